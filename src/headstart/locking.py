"""One process at a time, on any file system: flock where the kernel keeps it, a linked file elsewhere.

Theory of operation. On file systems of this machine alone ``flock`` is right: the kernel lets go of it when its
process ends, however it ends, and it is seen across containers. On network file systems it may be refused
(ENOLCK), or be kept on this host only (``local_lock``, ``nolock``), without a word. There the lock is a file
that comes to be by ``link``, which every server does as one step, and whose reply, if lost, is found again in
the count of links. It names its holder (``headstart.holders``). A holder that is seen to be gone, or that is
elsewhere and has not touched its file for a minute by the server's clock, is pushed aside: the file is moved
away, and put back if it turns out to be another one than was judged.

Two waiting processes can still push aside in such a moment that both go on. So what these locks guard must be
right without them, and only cost more; where that is not so (``headstart.usage``), it is said.
"""

import contextlib
import errno
import fcntl
import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Final

from headstart.holdername import holder
from headstart.holders import Fate, fate
from headstart.mountinfo import kind_of

_OF_THIS_MACHINE: Final = frozenset(
    {
        "ext2",
        "ext3",
        "ext4",
        "xfs",
        "btrfs",
        "tmpfs",
        "ramfs",
        "overlay",
        "zfs",
        "f2fs",
        "bcachefs",
        "jfs",
        "rootfs",
    }
)
_MOUNTS: Final = "/proc/self/mountinfo"
_STALE: Final = 60.0
_BEAT: Final = 10.0
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
MODE: Final = 0o600
"""Nobody else may open a lock: whoever can open it can hold it."""


def file_system(path: str, mounts: str = _MOUNTS) -> str:
    """The type of the file system that a path is on, such as ``ext4`` or ``nfs4``; nothing if unknown."""
    return kind_of(mount_table(mounts), os.path.realpath(path))


def mount_table(mounts: str = _MOUNTS) -> str:
    """The kernel's table, as ``mountinfo.kind_of`` reads it; nothing where it cannot be read."""
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def flock_is_enough(path: str) -> bool:
    """Whether all who see a directory are on this machine, so that ``flock`` there is seen by all of them."""
    return file_system(path) in _OF_THIS_MACHINE


@contextlib.contextmanager
def exclusive(path: str, *, local: bool) -> Iterator[None]:
    """Wait until nobody else is here.

    Args:
        path: the lock's file, which stays.
        local: whether ``flock`` is enough.

    Raises:
        OSError: the file cannot be made.
    """
    descriptor = _flocked(path) if local else None
    if descriptor is not None:
        try:
            yield
        finally:
            os.close(descriptor)
        return
    with _linked(f"{path}.held"):
        yield


def _flocked(path: str) -> int | None:
    """A descriptor that holds the lock; None where the file system has none."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _linked(path: str) -> Iterator[None]:
    own = f"{path}.{os.urandom(8).hex()}"
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(holder())
        pause = 0.02
        while (claimed := _claim(own, path)) is None:
            os.utime(own)
            _push_aside(path, os.stat(own).st_mtime)
            # Everybody at another moment.
            time.sleep(pause * (0.5 + random.random()))  # noqa: S311  # no secret
            pause = min(pause * 1.5, 0.5)
        over = threading.Event()
        beat = threading.Thread(target=_beat, args=(path, over), daemon=True)
        beat.start()
        try:
            yield
        finally:
            over.set()
            beat.join()
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(path), claimed):
                    os.unlink(path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(own)


def _claim(own: str, path: str) -> os.stat_result | None:
    """Give our file the lock's name; None while another has it."""
    try:
        os.link(own, path)
    except FileExistsError:
        # The server may have done it, and its answer may have been lost.
        found = os.stat(own)
        return found if found.st_nlink == 2 else None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return os.stat(own)
    # Without hard links: a file that can only be made once does as well, but is empty for a moment.
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    except FileExistsError:
        return None
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(holder())
        return os.fstat(file.fileno())


def _push_aside(path: str, now: float) -> None:
    """Take away a lock whose holder is gone.

    Args:
        path: the lock.
        now: the server's time.
    """
    # Open until the end: the number of a removed file's inode is free for the next one.
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
        judged = os.fstat(file.fileno())
        found = fate(file.read(1000))
        if found is Fate.ALIVE or (found is Fate.UNKNOWN and now - judged.st_mtime < _STALE):
            return
        aside = f"{path}.{os.urandom(8).hex()}"
        os.rename(path, aside)
        if not os.path.samestat(os.stat(aside), judged):
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        os.unlink(aside)


def _beat(path: str, over: threading.Event) -> None:
    """Touch a lock while it is held, for those who cannot see its holder."""
    while not over.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)
