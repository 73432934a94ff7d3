"""A lease: an image that a process runs on is not taken out of the cache. On the shortest way to Julia.

The process that takes it becomes Julia, and Julia holds it, with all that Julia starts. On a file system of
this machine it is a read lock on the image's file in ``used/``, of the kind that belongs to the open file
(``F_OFD_SETLK``, fcntl(2)): its descriptor outlives exec, and the kernel ends it with the last process that has
it. ``flock`` would do the same, but whoever may read a file may have it for himself alone; for that, this kind
asks who may write. Where other machines see the cache, a lease is a file in ``leases/`` that names the process
(``headstart.holders``); whoever makes room judges it.

The time of the file in ``used/`` is that of the last start, give or take a minute.
"""

import fcntl
import os
import sys
import time
from importlib import import_module

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable

SHARED = bytes(32)
"""A read lock on a whole file, as ``struct flock`` has it: every field is nothing."""
ALONE = b"\1" + bytes(31)
"""The same as a write lock."""
_ASK = fcntl.F_OFD_GETLK
_FREE = fcntl.F_UNLCK.to_bytes(2, sys.byteorder)
_TRIES = 20
_PAUSE = 0.01
_COARSE = 60
_OUT_OF_THE_WAY = 200
"""Descriptors below that are those that scripts and programs choose for themselves."""


def hold(used: str, now: float) -> int | None:
    """Hold a lease by a lock, from now until this process, and whatever it becomes, ends.

    Args:
        used: the image's file in ``used/``.
        now: seconds since 1970.

    Returns:
        Its descriptor; None when it is not there, or is being taken out of the cache just now.
    """
    try:
        descriptor = os.open(used, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if not _locked(descriptor):
            return None
        try:
            # The new one is inherited.
            held = fcntl.fcntl(descriptor, fcntl.F_DUPFD, _OUT_OF_THE_WAY)
        except (OSError, ValueError):
            # So many descriptors may not be had here.
            held = os.dup2(descriptor, os.dup(descriptor), inheritable=True)
        _touch(descriptor, now)
    finally:
        os.close(descriptor)
    return held


def note(used: str, lease: str, holder: "Callable[[], str]", now: float) -> str | None:
    """Hold a lease by a file that names this process.

    Args:
        used: the image's file in ``used/``.
        lease: the beginning of the file's name in ``leases/``.
        holder: names this process.
        now: seconds since 1970.

    Returns:
        That file; None when ``used`` is not there, or is being taken out of the cache just now.
    """
    place = f"{lease}@{holder()}"
    try:
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError:
        return None
    try:
        # First the lease, then this: whoever makes room moves ``used`` away first and looks for leases then, so
        # one of us sees the other. A network file system asks its server when a file is opened, not at a stat.
        descriptor = os.open(used, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        os.unlink(place)
        return None
    try:
        _touch(descriptor, now)
    finally:
        os.close(descriptor)
    return place


def take(lease: "tuple[str, ...]", now: float) -> int | str | None:
    """Take a lease of the kind that an earlier start took: nothing, a lock's file, or that and a name.

    Args:
        lease: as ``headstart.usage`` describes it.
        now: seconds since 1970.

    Returns:
        What ``let_go`` takes; None when it cannot be had.
    """
    if not lease:
        return ""
    if len(lease) == 1:
        return hold(lease[0], now)
    # Only where the cache is on a network file system.
    used, named = lease
    try:
        idle = abs(now - os.stat(used).st_mtime) > _COARSE
    except OSError:
        return None
    held = note(used, named, import_module("headstart.holdername").holder, now)
    if held is not None and idle:
        # Each start leaves a file there, and only its own machine can tell that it is over.
        try:  # noqa: SIM105  # contextlib is slow to import
            import_module("headstart.usage").sweep(os.path.dirname(named), now)
        except OSError:
            # A cache that an administrator has filled.
            pass
    return held


def let_go(held: int | str) -> None:
    """End a lease that was taken for what turned out not to be started."""
    if isinstance(held, int):
        os.close(held)
    elif held:
        try:  # noqa: SIM105  # contextlib is slow to import
            os.unlink(held)
        except OSError:
            # A process that is gone is seen to be.
            pass


def locked_by_others(used: str) -> bool:
    """Whether somebody holds a lease by a lock, for who may only read the file; nothing is locked for it."""
    try:
        descriptor = os.open(used, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # The kernel writes over the question: what stands in the way, or that nothing does.
        return fcntl.fcntl(descriptor, _ASK, ALONE)[:2] != _FREE
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Whether the lock is ours now; who makes room has it for a moment only."""
    for number in range(_TRIES):
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, SHARED)
        except (BlockingIOError, PermissionError):
            time.sleep(_PAUSE * min(number, 3))
        except OSError:
            return False
        else:
            return True
    return False


def _touch(used: int, now: float) -> None:
    if abs(now - os.fstat(used).st_mtime) > _COARSE:
        try:  # noqa: SIM105  # contextlib is slow to import
            os.utime(used)
        except OSError:
            # A cache that an administrator has filled.
            pass
