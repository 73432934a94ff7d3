"""Small files: read at once, with as few calls as can be, and made into one object each.

What there is to do for each file, a tree does often; this is done by threads, or by processes of their own
(``workshop``), to which everything goes as plain tuples.
"""

import hashlib
import os
from typing import Final

from headstart.errors import CorruptError, StorageError
from headstart.wording import counted

Order = tuple[str, int, tuple[int, int, int] | None, bool, bool, str | None]
"""A small file: place and size; inode, mtime and ctime in nanoseconds, as they must still be when it has been
read, or None; whether its attributes are wanted, and whether it is to be compressed; the SHA-256 in hexadecimal
digits that it must have, or None."""
Attributes = tuple[tuple[bytes, bytes], ...]
"""Extended ones: keys and values, sorted."""
_USER_NAMESPACE: Final = "user."
_CAPABILITY: Final = "security.capability"
_XATTR_LIMIT: Final = 255
"""Bytes of a key and of a value, and attributes of an entry (format section 9.3)."""


def content_of(order: Order) -> tuple[bytes, Attributes]:
    """A small file's content and attributes, if it is what it should be.

    Raises:
        CorruptError: it changed, or is not what its record says.
        StorageError: it cannot be read.
    """
    place, size, seen, attributed, _, expected = order
    wanted = size + 1  # one more would show that it has grown
    try:
        # O_NONBLOCK: a fifo that has come in its place must not keep the reader waiting.
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            content = os.read(descriptor, wanted)
            while len(content) < size and (more := os.read(descriptor, wanted - len(content))):
                content += more
            attributes = attributes_of(descriptor) if attributed else ()
            now = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"cannot read {place}: {error.strerror}") from error
    compare(place, (size, seen), now, len(content))
    if expected is not None:
        check_digest(place, hashlib.sha256(content).hexdigest(), expected)
    return content, attributes


def attributes_of(file: bytes | int) -> Attributes:
    """The attributes of something that are published, by its place or by a descriptor of it.

    Raises:
        OSError: they cannot be read.
    """
    follow = isinstance(file, int)
    names = os.listxattr(file, follow_symlinks=follow)
    if not names:
        return ()  # nearly always
    pairs: list[tuple[bytes, bytes]] = []
    for name in names:
        if name.startswith(_USER_NAMESPACE) or name == _CAPABILITY:
            pair = os.fsencode(name), os.getxattr(file, name, follow_symlinks=follow)
            if all(len(part) <= _XATTR_LIMIT for part in pair):
                pairs.append(pair)
    return tuple(sorted(pairs)[:_XATTR_LIMIT])


def compare(place: str, known: tuple[int, tuple[int, int, int] | None], now: os.stat_result, size: int) -> None:
    """See that a file is still what it was.

    Args:
        place: where it is.
        known: its size; its inode, mtime and ctime in nanoseconds, or None to not look.
        now: what it is like after it was read.
        size: bytes that were read.

    Raises:
        CorruptError: it is not.
    """
    other = known[1] is not None and (now.st_ino, now.st_mtime_ns, now.st_ctime_ns) != known[1]
    if size != known[0] or other:
        what = f"{counted(size, 'byte')} instead of {known[0]}" if size != known[0] else "somebody wrote to it"
        raise CorruptError(
            f"{place} changed while it was read: {what}",
            hint="let nothing write to the tree while it is published",
        )


def check_digest(place: str, found: str, expected: str) -> None:
    """Compare the SHA-256 of a file with that of its record, both in hexadecimal digits.

    Raises:
        CorruptError: it is another.
    """
    if found != expected:
        raise CorruptError(
            f"{place} does not have the SHA-256 of its record",
            hint="it was changed after the build: remove its tree from the stage and build again",
        )
