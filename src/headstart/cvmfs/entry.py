"""What a catalog's rows say: the entries of a directory tree, their paths and attributes.

A path is bytes as in the file system: empty for the repository's root, else ``/`` and the components joined
with ``/``. Rows are found by the MD5 of that path (format section 9.3), so a name is only as good as its hash:
the reader compares both.
"""

import hashlib
import stat as modes
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from headstart.cvmfs.objects import Algorithm, Digest
from headstart.errors import CorruptError
from headstart.wording import counted, readable

DIRECTORY_SIZE: Final = 4096
"""What a directory's size column says by convention."""
MARKER: Final = b".cvmfscatalog"
"""The file that makes its directory a nested catalog (format section 9.5)."""
AUTO_MARKER: Final = b".cvmfsautocatalog"
"""The file beside it where the publisher made the catalog for its weight."""

FLAG_DIRECTORY: Final = 1
FLAG_MOUNTPOINT: Final = 2
FLAG_FILE: Final = 4
FLAG_SYMLINK: Final = 8
FLAG_SPECIAL: Final = 16
FLAG_NESTED_ROOT: Final = 32
FLAG_CHUNKED: Final = 64
FLAG_EXTERNAL: Final = 128
FLAG_BIND: Final = 0x4000
FLAG_HIDDEN: Final = 0x8000
_HALVES: Final = struct.Struct("<qq").unpack
_HASH_SHIFT: Final = 8
_COMPRESSION_SHIFT: Final = 11


class Compression(Enum):
    """How a file's bytes are stored; the value is its id in catalog flags (format section 2)."""

    ZLIB = 0
    NONE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """What every entry has besides its name."""

    mode: int
    """Permission bits, set-user-id and the like included, without the type."""
    mtime: int
    """Seconds since 1970."""
    mtimens: int | None = None
    """Nanoseconds, where they were recorded."""
    uid: int = 0
    gid: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    """Extended attributes, sorted by key."""
    link_group: int = 0
    """Entries of one directory with the same number are names of one file (format section 9.3); 0 for one name.
    Directories have none. Numbers need be unique in a directory only: whoever writes a catalog counts anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A directory; also the root of a catalog, seen from inside it."""

    name: bytes
    stat: Stat
    size: int = DIRECTORY_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Mountpoint:
    """A directory whose content is in a nested catalog."""

    name: bytes
    stat: Stat
    links: int
    """2 and the number of directories in it: the parent cannot count them."""
    size: int = DIRECTORY_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A regular file stored as one object."""

    name: bytes
    stat: Stat
    size: int
    """Bytes of content."""
    digest: Digest
    compression: Compression = Compression.ZLIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of a file's content, stored as an object of its own."""

    offset: int
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedFile:
    """A regular file stored in chunks, which cover its content in order and without gaps."""

    name: bytes
    stat: Stat
    size: int
    chunks: tuple[Chunk, ...]
    compression: Compression = Compression.ZLIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Symlink:
    """A symbolic link."""

    name: bytes
    stat: Stat
    target: bytes


class SpecialKind(Enum):
    """A kind of special file; the value is its type in ``st_mode``."""

    FIFO = modes.S_IFIFO
    SOCKET = modes.S_IFSOCK
    CHARACTER = modes.S_IFCHR
    BLOCK = modes.S_IFBLK


@dataclass(frozen=True, slots=True, kw_only=True)
class Special:
    """A fifo, a socket or a device."""

    name: bytes
    stat: Stat
    kind: SpecialKind
    rdev: int = 0
    """Device number as by ``makedev``; 0 for fifos and sockets."""


Entry = Directory | Mountpoint | File | ChunkedFile | Symlink | Special


def path_hash(path: bytes) -> tuple[int, int]:
    """The two columns that find a path: halves of its MD5, signed, little-endian (format section 9.3)."""
    first, second = _HALVES(hashlib.md5(path, usedforsecurity=False).digest())
    return first, second


def parent_of(path: bytes) -> bytes:
    """The directory that ``path``, which is not the root, lies in."""
    return path.rpartition(b"/")[0]


def name_of(path: bytes) -> bytes:
    """The last component; empty for the root."""
    return path.rpartition(b"/")[2]


def is_below(path: bytes, ancestor: bytes) -> bool:
    """Whether ``path`` lies truly inside ``ancestor``."""
    return path.startswith(ancestor + b"/")


def valid_name(name: bytes) -> bool:
    """Whether ``name`` can be one component of a path and cannot lead elsewhere."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name and len(name) <= 255


def valid_path(path: bytes) -> bool:
    """Whether ``path`` is the root or a normal absolute path."""
    return path == b"" or (path[:1] == b"/" and all(valid_name(part) for part in path[1:].split(b"/")))


def entry_mode(entry: Entry) -> int:
    """The full ``st_mode`` of an entry, type included."""
    return _type_of(entry) | entry.stat.mode


def _type_of(entry: Entry) -> int:
    match entry:
        case Directory() | Mountpoint():
            return modes.S_IFDIR
        case File() | ChunkedFile():
            return modes.S_IFREG
        case Symlink():
            return modes.S_IFLNK
        case Special():
            return entry.kind.value


def content_flags(algorithm: Algorithm, compression: Compression) -> int:
    """The flag bits that say how a file's objects are hashed and stored."""
    return (algorithm.value - 1) << _HASH_SHIFT | compression.value << _COMPRESSION_SHIFT


def flags_algorithm(flags: int) -> Algorithm:
    """The content hash that a row's flags name; ``ValueError`` for an unknown one."""
    return Algorithm((flags >> _HASH_SHIFT & 7) + 1)


def flags_compression(flags: int) -> Compression:
    """The compression that a row's flags name; ``ValueError`` for an unknown one."""
    return Compression(flags >> _COMPRESSION_SHIFT & 7)


def pack_xattrs(xattrs: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The xattr column: version, count, then lengths, key and value of each, sorted by key.

    Raises:
        CorruptError: what the format cannot hold: an empty or long key, a long value, too many, a key twice.
    """
    pairs = sorted(xattrs)
    if not pairs:
        return None
    if len(pairs) > 255 or len({key for key, _ in pairs}) < len(pairs):
        raise CorruptError(f"{len(pairs)} extended attributes do not fit: up to 255, each key once")
    packed = bytearray((1, len(pairs)))
    for key, value in pairs:
        if not 1 <= len(key) <= 255 or len(value) > 255:
            raise CorruptError(
                f"extended attribute {readable(key[:60])} does not fit: {counted(len(key), 'byte')} of key, "
                f"{len(value)} of value",
                hint="keys and values may have up to 255 bytes",
            )
        packed += bytes((len(key), len(value))) + key + value
    return bytes(packed)


def unpack_xattrs(packed: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
    """Undo ``pack_xattrs``.

    Raises:
        CorruptError: cut short, with bytes behind the end, not version 1, or with an empty key.
    """
    if packed is None:
        return ()
    if len(packed) < 2 or packed[0] != 1:
        raise CorruptError("its extended attributes are not of version 1")
    pairs: list[tuple[bytes, bytes]] = []
    at = 2
    for _ in range(packed[1]):
        if at + 2 > len(packed):
            raise CorruptError("its extended attributes are cut short")
        key_end = at + 2 + packed[at]
        end = key_end + packed[at + 1]
        if packed[at] == 0 or end > len(packed):
            raise CorruptError("its extended attributes are cut short or have an empty key")
        pairs.append((packed[at + 2 : key_end], packed[key_end:end]))
        at = end
    if at != len(packed):
        raise CorruptError("its extended attributes have bytes behind their end")
    return tuple(pairs)
