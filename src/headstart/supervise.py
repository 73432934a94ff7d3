"""Staying the parent of a program: signals go through to it, its standard error is passed on and remembered.

Theory of operation. The signals that somebody may send to this process are blocked and waited for, so that each
comes with where it came from: what the kernel sends because of a terminal has gone to the whole foreground
group, the program included, and is not sent again. Stopping and going on (job control) stays the shell's and
the kernel's: both processes are of one group. The program dies with this process, however that ends.

A thread copies standard error as it comes. What the program leaves running may keep that pipe open: the copying
ends with the program, not with the pipe.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Final, Self

from headstart.errors import MissingToolError
from headstart.process import Command

_SI_KERNEL: Final = 0x80
_PR_SET_PDEATHSIG: Final = 1
_KEPT: Final = 1 << 18
"""Bytes of standard error that are remembered: its end, which holds the error that a program ends with."""
_PIECE: Final = 1 << 16

PASSED_ON: Final = frozenset(signal.valid_signals()) - {
    # cannot be waited for; job control; ours; faults of this process itself; the terminal's size
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT),
    *(signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGWINCH, signal.SIGURG),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS),
}
"""Signals that the program gets when this process does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervised:
    """How a program ended."""

    code: int
    """Its exit code, negative for the number of the signal that ended it."""
    said: str
    """The end of what it wrote to standard error."""


def supervise(command: Command) -> Supervised:
    """Start a program with this process's own standard streams, and wait for it.

    Only the main thread may call it, while there is no other.

    Raises:
        MissingToolError: there is no such program, or it may not be started.
    """
    libc = ctypes.CDLL(None)
    with _blocked() as before:
        try:
            process = subprocess.Popen(
                command.argv,
                env=dict(command.env),
                cwd=command.cwd,
                stderr=subprocess.PIPE,
                # As with exec: what a shell has opened for the job is the job's.
                close_fds=False,
                preexec_fn=partial(_prepare, libc, before, os.getpid()),  # noqa: PLW1509  # no other thread yet
            )
        except OSError as error:
            raise MissingToolError(f"{command.argv[0]} cannot be started ({error.strerror})") from error
        assert process.stderr is not None  # noqa: S101  # it is a pipe
        with process.stderr as errors, _Copy(errors) as copy:
            code = _wait(process)
        return Supervised(code=code, said=copy.text)


def end_like(code: int) -> int:
    """End as a program did: returns its exit code, or dies of the signal that ended it."""
    if code >= 0:
        return code
    # Beside Julia's core another one of this process would only be in the way.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
    os.kill(os.getpid(), -code)
    return 128 - code


@contextlib.contextmanager
def _blocked() -> Iterator[set[signal.Signals | int]]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*PASSED_ON, signal.SIGCHLD})
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare(libc: ctypes.CDLL, before: set[signal.Signals | int], parent: int) -> None:
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(process: subprocess.Popen[bytes]) -> int:
    waited = {*PASSED_ON, signal.SIGCHLD}
    while True:
        told = signal.sigwaitinfo(waited)
        if told.si_signo == signal.SIGCHLD:
            code = process.poll()
            if code is not None:
                return code
        elif told.si_code != _SI_KERNEL:
            process.send_signal(told.si_signo)


class _Copy:
    """Copies a pipe to our standard error until the program has ended, and remembers the end of it."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._file = pipe
        self._pipe = pipe.fileno()
        self._ended, self._end = os.pipe()
        self._kept = b""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._end)
        self._thread.join()
        os.close(self._ended)

    @property
    def text(self) -> str:
        """What is remembered."""
        return self._kept.decode(errors="replace")

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        poll.register(self._ended, 0)  # hung up when the other end is closed
        while True:
            ready = dict(poll.poll())
            if self._pipe in ready:
                piece = os.read(self._pipe, _PIECE)
                if not piece:
                    return
                if not self._pass_on(piece):
                    self._file.close()
                    return
            elif self._ended in ready:
                return

    def _pass_on(self, piece: bytes) -> bool:
        self._kept = (self._kept + piece)[-_KEPT:]
        while piece:
            try:
                piece = piece[os.write(2, piece) :]
            except OSError:
                # Whoever read our standard error has gone, and the program is to find that out for itself.
                return False
        return True
