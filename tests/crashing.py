"""Work that is killed before any of its steps: what a test of a writer's crashes needs."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a killed process needs no real disk, and hundreds of syncs do."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    folder = tempfile.mkdtemp(dir="/dev/shm", prefix="headstart-test-")
    yield Path(folder)
    shutil.rmtree(folder)


_WRITES = ("rename", "fsync", "write", "mkdir", "fchmod", "link", "unlink", "rmdir")


def killed_before_step(number: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a process that kills itself, as by ``kill -9``, before its n-th call that writes.

    Returns:
        False when it came to its end with fewer such calls.
    """
    child = os.fork()
    if child == 0:
        left = [number]

        def count() -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        _watched(count)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _watched(count: Callable[[], None]) -> None:
    """Have every call that writes counted, in this process from now on."""

    def watch(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            count()
            return real(*arguments, **named)

        return call

    for name in _WRITES:
        setattr(os, name, watch(getattr(os, name)))


def steps_of(work: Callable[[], object]) -> int:
    """How many calls that write ``work`` makes; it is done in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        seen = [0]
        real = os.write

        def count() -> None:
            seen[0] += 1

        _watched(count)
        try:
            work()
        finally:
            real(writer, str(seen[0]).encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return int(said)


def telling_moments(steps: int, *, last: int = 18, between: int = 6) -> list[int]:
    """Some moments of the many in which objects are written, all of the last ones, and one that never comes."""
    first = max(0, steps - last)
    return sorted({0, 1, 2, *range(0, first, max(1, first // between)), *range(first, steps + 1)})


def moments() -> Iterator[int]:
    """Each of the first steps, and then ever fewer, because there are many objects and few kinds of steps."""
    number = 0
    while True:
        yield number
        number += 1 + number // 12
