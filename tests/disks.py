"""Directories on several kinds of file systems, for tests of what a node's cache needs of one."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from headstart import cache as caches

KINDS = ("disk", "tmpfs", "elsewhere", "fuse", "nfs")
"""``elsewhere`` is a disk that is taken for a network file system; ``fuse`` is no disk of this
machine, and has two mounts, each with a memory of its own.

``nfs`` is where HEADSTART_TEST_NFS says: a folder, or several with colons between, mounts of one export.
"""
VARIABLE = "HEADSTART_TEST_NFS"
_AGAIN = "-again"
_REMEMBERS = "attr_timeout=30,entry_timeout=30,negative_timeout=30"
"""As a client of NFS does: what a name leads to, and that there is none, for half a minute."""


@contextmanager
def directory(kind: str, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on such a file system."""
    if kind == "tmpfs":
        with _in_memory() as place:
            yield place
    elif kind == "fuse":
        with _in_fuse(folder) as place:
            yield place
    elif kind == "nfs":
        with _on_nfs() as place:
            yield place
    else:
        if kind == "elsewhere":
            patch.setattr(caches, "flock_is_enough", lambda _path: False)
        (folder / "disk").mkdir()
        yield folder / "disk"


def again(place: Path) -> Path:
    """The same directory as another node sees it: through the next mount of the export, where there is one."""
    other = place.with_name(f"{place.name}{_AGAIN}")
    if other.is_dir():
        return other
    mounts = _mounts()
    for number, mount in enumerate(mounts):
        if place.is_relative_to(mount):
            return mounts[(number + 1) % len(mounts)] / place.relative_to(mount)
    return place


def _mounts() -> list[Path]:
    return [Path(path) for path in os.environ.get(VARIABLE, "").split(":") if path]


@contextmanager
def _on_nfs() -> Iterator[Path]:
    mounts = _mounts()
    if not mounts:
        pytest.skip(f"{VARIABLE} names no folder on NFS")
    place = Path(tempfile.mkdtemp(dir=mounts[0], prefix="headstart-test-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


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
    with ExitStack() as stack:
        for mount in (place, place.with_name(f"{place.name}{_AGAIN}")):
            stack.enter_context(_mounted(program, behind, mount))
        yield place


@contextmanager
def _mounted(program: str, behind: Path, place: Path) -> Iterator[None]:
    place.mkdir()
    running = subprocess.Popen([program, "-f", "-o", _REMEMBERS, behind, place], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if os.path.ismount(place) or running.poll() is not None:
                break
            time.sleep(0.05)
        if not os.path.ismount(place):
            pytest.skip("FUSE is not allowed here")
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=False)
        running.terminate()
        running.wait()
