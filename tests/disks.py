"""Directories on several kinds of file systems, for tests of what a node's cache needs of one."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headstart import cache as caches

KINDS = ("disk", "tmpfs", "elsewhere", "fuse")
"""``elsewhere`` is a disk that is taken for a network file system; ``fuse`` is no disk of this machine."""


@contextmanager
def directory(kind: str, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on such a file system."""
    if kind == "tmpfs":
        with _in_memory() as place:
            yield place
    elif kind == "fuse":
        with _in_fuse(folder) as place:
            yield place
    else:
        if kind == "elsewhere":
            patch.setattr(caches, "flock_is_enough", lambda _path: False)
        (folder / "disk").mkdir()
        yield folder / "disk"


@contextmanager
def _in_memory() -> Iterator[Path]:
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("there is no tmpfs here")
    place = tempfile.mkdtemp(dir="/dev/shm", prefix="headstart-test-")
    try:
        yield Path(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _in_fuse(folder: Path) -> Iterator[Path]:
    program = shutil.which("bindfs")
    if program is None:
        pytest.skip("there is no bindfs here")
    behind, place = folder / "behind", folder / "fuse"
    behind.mkdir()
    place.mkdir()
    running = subprocess.Popen([program, "-f", behind, place], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if os.path.ismount(place) or running.poll() is not None:
                break
            time.sleep(0.05)
        if not os.path.ismount(place):
            pytest.skip("FUSE is not allowed here")
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=False)
        running.terminate()
        running.wait()
