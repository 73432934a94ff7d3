"""Making directories that only their owner writes, whatever the umask. On the shortest way to Julia."""

import os


def make_directories(path: str, *, for_all: bool = False) -> None:
    """Make a directory and all that lead to it, each with mode 0755 at most; fine when they are there.

    ``os.makedirs`` gives the mode to the last one only: below a umask of 002 or 000, as some batch systems have
    it, anybody could put a directory of his own in the place of one in the middle.

    Args:
        path: the directory.
        for_all: whether others must get in, whatever the umask: with mode 0755, then.

    Raises:
        OSError: one cannot be made.
    """
    missing: list[str] = []
    while path and not os.path.isdir(path):
        missing.append(path)
        above = os.path.dirname(path)
        if above == path:
            break
        path = above
    for place in reversed(missing):
        try:
            os.mkdir(place, 0o755)
        except FileExistsError:
            if not os.path.isdir(place):
                raise
        else:
            if for_all:
                os.chmod(place, 0o755)  # noqa: S103  # that is what is asked for


def others_may_write(path: str | int, *, uid: int) -> bool:
    """Whether somebody else than the user and root owns a file or directory, or may write it.

    A descriptor says it of the very file that is open.

    Raises:
        OSError: it is not there.
    """
    found = os.stat(path)
    return found.st_uid not in (0, uid) or bool(found.st_mode & 0o022)


def own_part(directory: str, uid: int) -> str:
    """The user's part of a cache directory: of one for all, sticky as ``/tmp``, a directory of his own in it.

    Nobody can take away or exchange what is another user's in a sticky directory, but anybody can make names in
    it. So what stands there is looked at before it is used (``Cache.check``), and links count for nothing.

    Args:
        directory: an absolute path.
        uid: the user.
    """
    try:
        mode = os.stat(directory).st_mode
    except OSError:
        return directory
    return os.path.join(directory, str(uid)) if mode & 0o1002 == 0o1002 else directory
