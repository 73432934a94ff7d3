"""The parser of all commands: what is wrong with the words is one sentence, as every other error."""

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """As ``argparse`` has it, but for how it complains."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where the help is."""
        self.exit(2, f"headstart: {message}; '{self.prog} --help' explains them\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End; help that cannot be printed is an error as any."""
        sys.stdout.flush()
        super().exit(status, message)
