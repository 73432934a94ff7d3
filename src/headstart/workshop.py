"""Processes beside this one that make objects of small files, many at a time.

Theory of operation. What there is to do for a small file is done by Python for a good part, and threads would
wait for each other's interpreter lock more than they work. So batches of small files go to processes, started
anew (not forked: this one may have threads), through a socket each. They read, compress, hash and stage, and
answer with digests; the storage's writer adopts what they have staged. Each is given a few batches more than it
works at, so none waits for us while we write a catalog. Answers are taken by whoever gives or
waits, so nobody needs a thread.

They hold no lock. They end when the other end of their socket is closed, so also when this process is killed:
what they may stage in the moment between goes into a directory that is swept away, see ``objectfiles``.
"""

import contextlib
import errno
import fcntl
import json
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import Final

from headstart.errors import Error, StorageError
from headstart.smallfiles import Order
from headstart.workbench import Made, Setting

_AHEAD: Final = 6
"""Batches that a process has at most, the one that it works at among them. They are paths only, and all their
answers fit into a socket's buffer, so a process never waits for us to take one while we wait for it."""
_PROGRAM: Final = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from headstart.workbench import main
main(int(sys.argv[2]))
"""
Answered = Callable[[list[Made]], None]
"""Told what became of a batch, in its order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hand:
    """One of the processes."""

    process: subprocess.Popen[bytes]
    line: Connection
    waiting: deque[tuple[int, Answered]] = field(default_factory=deque)
    """The numbers of the batches that it has, and who is to be told of them."""


class Workshop:
    """Some processes, from the first batch until ``close``.

    Args:
        setting: what they do.
        workers: how many of them.

    Raises:
        OSError, EOFError: they cannot be started, or end before they are ready.
        pickle.PicklingError, AttributeError: what they should do cannot be said to another process.
    """

    def __init__(self, setting: Setting, workers: int) -> None:
        if not sys.executable:
            raise FileNotFoundError(errno.ENOENT, "nothing says where Python is")
        self._hands: list[_Hand] = []
        self._era = 0
        with contextlib.ExitStack() as opened:
            # Where a standard stream is closed, one of these may have its number.
            root, staging = (_high(descriptor, opened) for descriptor in (setting.root, setting.staging))
            setting = setting._replace(root=root, staging=staging)
            said = pickle.dumps(setting)
            try:
                for _ in range(workers):
                    self._hands.append(_started(setting, said))
                for hand in self._hands:
                    hand.line.recv()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """End them all; what they have not answered is lost."""
        for hand in self._hands:
            hand.line.close()
            if hand.waiting:
                hand.process.kill()
        for hand in self._hands:
            hand.process.wait()

    def give(self, number: int, orders: list[Order], answered: Answered) -> None:
        """Have a batch of small files made into objects.

        Args:
            number: of the batch; they grow.
            orders: the files.
            answered: called from this thread, by this or another method.

        Raises:
            Error: an earlier one failed, or a process has ended.
        """
        self._take(0)
        hand = min(self._hands, key=lambda hand: len(hand.waiting))
        while len(hand.waiting) >= _AHEAD:
            self._take(None)
            hand = min(self._hands, key=lambda hand: len(hand.waiting))
        hand.waiting.append((number, answered))
        try:
            hand.line.send((self._era, orders))
        except OSError as error:
            raise _ended(hand) from error

    def wait_for(self, number: int) -> None:
        """Wait for all batches up to a number.

        Raises:
            Error: something of it failed, or a process has ended.
        """
        while any(hand.waiting and hand.waiting[0][0] <= number for hand in self._hands):
            self._take(None)

    def settled(self) -> None:
        """What was staged and answered so far has been brought to its places."""
        self._era += 1

    def _take(self, timeout: float | None) -> None:
        """Take the answers that are there, or that come within some seconds, None for the next one."""
        busy = {hand.line: hand for hand in self._hands if hand.waiting}
        for line in wait(list(busy), timeout) if busy else ():
            hand = busy[line]  # type: ignore[index] # only these were asked for
            try:
                answer: list[Made] | Error = hand.line.recv()
            except (EOFError, OSError) as error:
                raise _ended(hand) from error
            _, answered = hand.waiting.popleft()
            if isinstance(answer, Error):
                raise answer
            answered(answer)


def _high(descriptor: int, opened: contextlib.ExitStack) -> int:
    """The same file under a number that is no standard stream's."""
    number = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    opened.callback(os.close, number)
    return number


def _started(setting: Setting, said: bytes) -> _Hand:
    ours, theirs = Pipe()
    with contextlib.ExitStack() as opened:
        opened.callback(theirs.close)
        line = _high(theirs.fileno(), opened)
        # ``-I``: nothing of the environment or of the working directory says what is imported.
        words = [sys.executable, "-I", "-c", _PROGRAM, json.dumps(sys.path), str(line)]
        try:
            process = subprocess.Popen(
                words,
                # It says everything through its line, and must keep nobody waiting for the end of ours.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(line, setting.root, setting.staging),
                # A group of its own: an interrupt from the keyboard is this process's to deal with.
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
    hand = _Hand(process=process, line=ours)
    try:
        ours.send_bytes(said)
    except OSError:
        ours.close()
        process.wait()
        raise
    return hand


def _ended(hand: _Hand) -> StorageError:
    code = hand.process.wait()
    return StorageError(
        f"a process that makes objects has ended by itself (exit code {code})",
        hint="see that there is enough memory, and try again: what was published is untouched",
    )
