"""Writing files into a storage: whole, readable for web servers, and with sentences for what goes wrong.

What is here is needed by the writer of a storage and by the processes that stage objects for it. They know
its directories by descriptors, not by names: who outlives the writer by a moment then writes into a directory
that is gone, and never into that of the next writer.
"""

import errno
import os
import stat as modes
from typing import Final

from headstart.errors import StorageError

MODE: Final = 0o644
_HINTS: Final = {
    errno.ENOSPC: "make room and try again: what was published is untouched",
    errno.EDQUOT: "raise the quota and try again: what was published is untouched",
    errno.EROFS: "the storage is mounted read-only: publish where it can be written",
    errno.EACCES: "publish as the user that owns the storage",
    errno.EPERM: "publish as the user that owns the storage",
}


def write_file(
    place: str,
    content: bytes,
    *,
    directory: int | None = None,
    durable: bool = False,
    readable: bool = False,
) -> bool:
    """Write a file that web servers can read, whatever the publisher's umask.

    Args:
        place: where.
        content: what.
        directory: descriptor of what ``place`` is relative to.
        durable: whether it must outlive a power cut when this returns.
        readable: whether files that are made there are known to get that mode by themselves.

    Returns:
        Whether they do.

    Raises:
        OSError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    descriptor = os.open(place, flags, MODE, dir_fd=directory)
    try:
        if not readable:
            readable = modes.S_IMODE(os.fstat(descriptor).st_mode) == MODE
            os.fchmod(descriptor, MODE)
        written = os.write(descriptor, content)
        while written < len(content):
            written += os.write(descriptor, memoryview(content)[written:])
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return readable


def unwritable(path: str, error: OSError) -> StorageError:
    """The sentence for a file that cannot be written.

    Args:
        path: what was written to, where the error names nothing that can be found.
        error: what the system says.
    """
    named = isinstance(error.filename, str) and os.path.isabs(error.filename)
    place = error.filename if named else path
    return StorageError(f"cannot write {place}: {error.strerror}", hint=_HINTS.get(error.errno or 0, ""))


class Shelf:
    """Where another process than the storage's writer stages objects.

    Args:
        root: descriptor of the storage's directory.
        staging: descriptor of the writer's staging directory.
        name: how people call the storage.
        prefix: what the names of staged files begin with, unlike those of anybody else.
    """

    def __init__(self, root: int, staging: int, name: str, prefix: str) -> None:
        self._root = root
        self._staging = staging
        self._name = name
        self._prefix = prefix
        self._count = 0
        self._staged: set[str] = set()
        self._readable = False

    def forget(self) -> None:
        """What was staged has been brought to its places."""
        self._staged.clear()

    def put(self, path: str, stored: bytes) -> str:
        """Stage an object.

        Args:
            path: of the object, from the storage's root.
            stored: its bytes.

        Returns:
            The name of the staged file; empty where the object is there already.

        Raises:
            StorageError: it cannot be written.
        """
        if path in self._staged or os.access(path, os.F_OK, dir_fd=self._root):
            return ""
        self._count += 1
        place = f"{self._prefix}{self._count}"
        try:
            self._readable = write_file(place, stored, directory=self._staging, readable=self._readable)
        except OSError as error:
            raise unwritable(self._name, error) from error
        self._staged.add(path)
        return place
