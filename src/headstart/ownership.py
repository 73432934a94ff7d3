"""Whose a directory is, and who could exchange what is in it: what a cache may be believed to be."""

import contextlib
import os
import stat
from typing import Final

from headstart.errors import CacheError

UNMAPPED: Final = 65534
"""Whom root is seen as in a container without root (user_namespaces(7)), where ``/tmp`` is his all the same."""


def check_owner(path: str, *, uid: int) -> None:
    """Refuse a directory or file that somebody else may write.

    Args:
        path: what exists.
        uid: the user; files of root's are good as well.

    Raises:
        CacheError: it is another user's, or its group or everybody may write it.
        OSError: it is not there.
    """
    found = os.stat(path)
    if found.st_uid not in (0, uid):
        raise CacheError(
            f"{path} belongs to user {found.st_uid}, so what is in it is not yours to trust",
            hint="name a directory of your own with --cache or HEADSTART_CACHE",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CacheError(
            f"{path} may be written by others (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"chmod go-w {path}, after a look at what is in it",
        )


def check_way(path: str, *, uid: int) -> None:
    """Refuse a place that others can exchange for one of their own, by writing a directory on the way to it.

    A group's shared directory is let through: the members of a project are no strangers to each other. To root
    everybody is.

    Args:
        path: the directory that the place is in; what does not exist is passed over.
        uid: the user.

    Raises:
        CacheError: one on the way may be written by everybody and is not sticky; for root, is another user's.
    """
    while True:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = os.stat(path)
            # In a sticky directory, such as /tmp, nobody moves what is not his; but its owner moves all.
            sticky = found.st_mode & stat.S_ISVTX and found.st_mode & stat.S_IWOTH
            if sticky and found.st_uid not in (0, uid, UNMAPPED):
                check_owner(path, uid=uid)
            writable = found.st_mode & (stat.S_IWOTH if uid else stat.S_IWGRP | stat.S_IWOTH)
            if (writable and not found.st_mode & stat.S_ISVTX) or (uid == 0 and found.st_uid != 0):
                check_owner(path, uid=uid)
        above = os.path.dirname(path)
        if above == path:
            return
        path = above
