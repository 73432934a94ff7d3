"""What the program says while it works: one line per step, with the time since the start, on standard error."""

import time
from typing import TextIO

from headstart.wording import printable


class Console:
    """Talk for a person; never data, and nothing in it can steer a terminal.

    Args:
        stream: where to write, standard error as a rule.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._start = time.monotonic()

    def step(self, text: str) -> None:
        """Say what begins or what was reached, with the elapsed time in seconds."""
        self._stream.write(f"[{time.monotonic() - self._start:6.1f} s] {printable(text)}\n")
        self._stream.flush()

    def note(self, text: str) -> None:
        """Say something that is no step."""
        self._stream.write("\n".join(map(printable, text.split("\n"))) + "\n")
        self._stream.flush()
