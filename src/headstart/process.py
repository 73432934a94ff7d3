"""Starting programs: what to start is a value, starting it is a function that is handed in."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

from headstart.errors import MissingToolError


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program to start; nothing of the caller's environment is added to it."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None
    """Working directory; the caller's own where there is none."""

    def __str__(self) -> str:
        return " ".join(self.argv)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a program ended."""

    code: int
    """Its exit code, negative for the number of the signal that ended it."""
    out: bytes
    err: bytes
    seconds: float
    """Elapsed time from start to end."""


Runner = Callable[[Command, IO[bytes] | None], Finished]
"""Starts a command, waits for it, and copies what it printed to the log, if there is one."""


def run_process(command: Command, log: IO[bytes] | None = None) -> Finished:
    """Start a program and wait for it, with nothing on its standard input.

    Raises:
        MissingToolError: there is no such program, or it may not be started.
    """
    start = time.monotonic()
    try:
        done = subprocess.run(
            command.argv,
            env=dict(command.env),
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise MissingToolError(f"{command.argv[0]} cannot be started ({error.strerror})") from error
    finished = Finished(
        code=done.returncode, out=done.stdout, err=done.stderr, seconds=time.monotonic() - start
    )
    if log is not None:
        log.write(b"$ " + str(command).encode(errors="replace") + b"\n" + finished.out + finished.err)
        log.write(f"[exit code {finished.code}, {finished.seconds:.1f} s]\n".encode())
        log.flush()
    return finished


def run_loud(command: Command) -> int:
    """Start a program that talks to the user itself, wait for it, and return its exit code.

    Its standard output goes to our standard error, since ours may be data.

    Raises:
        MissingToolError: there is no such program, or it may not be started.
    """
    try:
        done = subprocess.run(
            command.argv,
            env=dict(command.env),
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=False,
        )
    except OSError as error:
        raise MissingToolError(f"{command.argv[0]} cannot be started ({error.strerror})") from error
    return done.returncode
