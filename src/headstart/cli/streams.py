"""Standard output and standard error, whatever they are: closed, full, or with nobody at their other end.

Standard output is data: what cannot be written there is an error with a code of its own. Standard error is
talk, and nobody has to listen: what cannot be written there goes nowhere, and changes no exit code.
"""

import io
import os
import sys
from typing import Any, TextIO

from headstart.errors import OutputError


class _Data(io.FileIO):
    """Standard output."""

    def write(self, content: Any, /) -> int:  # a buffer of any kind
        try:
            return super().write(content)
        except OSError as error:
            raise OutputError(
                f"standard output cannot be written: {error.strerror}",
                hint="only what was to be printed is lost",
            ) from error


class _Talk(io.FileIO):
    """Standard error."""

    def write(self, content: Any, /) -> int:  # a buffer of any kind
        try:
            return super().write(content)
        except OSError:
            return len(memoryview(content))


def prepare() -> None:
    """See to it that data and talk are written as above; what has been put in their place by others stays."""
    if sys.stdout is sys.__stdout__:
        # Opened to be read, a closed one says of itself, when it is written to, that it cannot be.
        sys.stdout = _text(_Data, sys.stdout, os.O_RDONLY)
    if sys.stderr is sys.__stderr__:
        # Programs that we start may have it as theirs.
        sys.stderr = _text(_Talk, sys.stderr, os.O_RDWR)


def abandon() -> None:
    """Let what waits to be printed go nowhere: the interpreter would try again at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _text(kind: type[io.FileIO], old: TextIO | None, closed: int) -> TextIO:
    if not isinstance(old, io.TextIOWrapper):
        # Closed by whoever started this, it is none.
        raw = kind(os.open(os.devnull, closed), "w")
        return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace")
    raw = kind(old.fileno(), "w", closefd=False)
    buffered = old.line_buffering or old.write_through
    return io.TextIOWrapper(io.BufferedWriter(raw), old.encoding, old.errors, line_buffering=buffered)
