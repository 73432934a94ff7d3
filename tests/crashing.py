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


def killed_before_step(number: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a process that kills itself, as by ``kill -9``, before its n-th call that writes.

    Returns:
        False when it came to its end with fewer such calls.
    """
    child = os.fork()
    if child == 0:
        left = [number]

        def deadly(name: str) -> None:
            real = getattr(os, name)

            def call(*arguments: object, **named: object) -> object:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **named)

            setattr(os, name, call)

        for name in ("rename", "fsync", "write", "mkdir", "fchmod", "link", "unlink", "rmdir"):
            deadly(name)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def moments() -> Iterator[int]:
    """Each of the first steps, and then ever fewer, because there are many objects and few kinds of steps."""
    number = 0
    while True:
        yield number
        number += 1 + number // 12
