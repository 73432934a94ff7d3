"""The rows of a catalog, each through one door that checks it.

What a row claims is compared with what it must be: types of its columns, path hash, parent, name, flags against
mode, chunks without gaps (format section 9). Damage is a ``CorruptError`` that names catalog and row.
"""

import re
import stat as modes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from headstart.cvmfs.database import Database
from headstart.cvmfs.entry import (
    FLAG_CHUNKED,
    FLAG_DIRECTORY,
    FLAG_FILE,
    FLAG_HIDDEN,
    FLAG_MOUNTPOINT,
    FLAG_NESTED_ROOT,
    FLAG_SPECIAL,
    FLAG_SYMLINK,
    Chunk,
    ChunkedFile,
    Directory,
    Entry,
    File,
    Mountpoint,
    Special,
    SpecialKind,
    Stat,
    Symlink,
    flags_algorithm,
    flags_compression,
    is_below,
    name_of,
    parent_of,
    path_hash,
    unpack_xattrs,
    valid_name,
    valid_path,
)
from headstart.cvmfs.objects import DIGEST_SIZE, Digest
from headstart.errors import CorruptError
from headstart.wording import counted, readable

TABLES: Final = frozenset(
    {"properties", "catalog", "chunks", "nested_catalogs", "bind_mountpoints", "statistics"}
)
LINKS_MASK: Final = 0xFFFFFFFF
GROUP_SHIFT: Final = 32
"""The column ``hardlinks`` holds the group above and the number of names below this bit."""
_TYPE_FLAGS: Final = (
    FLAG_DIRECTORY | FLAG_MOUNTPOINT | FLAG_FILE | FLAG_SYMLINK | FLAG_SPECIAL | FLAG_NESTED_ROOT | FLAG_CHUNKED
)
_MOST: Final = {"mode": 2**32, "size": 2**60}
_CHUNKS: Final = "SELECT offset, size, hash FROM chunks WHERE md5path_1=? AND md5path_2=? ORDER BY offset, size"
_KINDS: Final = {kind.value: kind for kind in SpecialKind}


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    """A nested catalog as its parent names it."""

    digest: Digest
    size: int
    """Bytes of the database, inflated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What a catalog counts (format section 9.6); field names are the format's."""

    regular: int = 0
    symlink: int = 0
    special: int = 0
    dir: int = 0
    nested: int = 0
    chunked: int = 0
    chunks: int = 0
    file_size: int = 0
    chunked_size: int = 0
    xattr: int = 0
    external: int = 0
    external_file_size: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(**{name: getattr(self, name) + getattr(other, name) for name in COUNTER_NAMES})

    def __sub__(self, other: "Counters") -> "Counters":
        return Counters(**{name: getattr(self, name) - getattr(other, name) for name in COUNTER_NAMES})


COUNTER_NAMES: Final = tuple(field.name for field in fields(Counters))


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The counters of a catalog itself and of all catalogs below it."""

    own: Counters
    subtree: Counters

    @property
    def total(self) -> Counters:
        """What a parent adds to its own subtree counters."""
        return self.own + self.subtree


class Row(NamedTuple):
    """A row of the table ``catalog``, as SQLite gives it: any column may hold anything."""

    rowid: Any
    md5path_1: Any
    md5path_2: Any
    parent_1: Any
    parent_2: Any
    hardlinks: Any
    hash: Any
    size: Any
    mode: Any
    mtime: Any
    mtimens: Any
    flags: Any
    name: Any
    symlink: Any
    uid: Any
    gid: Any
    xattr: Any

    @property
    def links(self) -> int:
        """How many names the file has; of a directory 2 and the directories in it."""
        return int(self.hardlinks) & LINKS_MASK


_INTEGERS: Final = (
    "rowid", "md5path_1", "md5path_2", "parent_1", "parent_2", "hardlinks", "size", "mode", "mtime", "flags",
    "uid", "gid",
)  # fmt: skip
_UNSIGNED: Final = ("hardlinks", "size", "mode", "flags", "uid", "gid")


class Rows:
    """Access to one catalog's tables."""

    def __init__(self, database: Database, mountpoint: bytes) -> None:
        self.database: Final = database
        self.mountpoint: Final = mountpoint
        self.where: Final = database.where
        has = database.columns("catalog")
        columns = [
            name if name in has or name not in ("mtimens", "xattr") else f"NULL AS {name}"
            for name in Row._fields
        ]
        self._select: Final = f"SELECT {', '.join(columns)} FROM catalog"  # noqa: S608 - constant names
        for ends in ("WHERE md5path_1=? AND md5path_2=?", "WHERE parent_1=? AND parent_2=?"):
            names = re.findall(r"(\w+)=", ends)
            database.require_index(f"{self._select} {ends}", names)
        database.require_index(_CHUNKS, ("md5path_1", "md5path_2"))
        self.nested: Final = self._nested()
        self._last = mountpoint, path_hash(mountpoint)

    def _nested(self) -> Mapping[bytes, Nested]:
        found: dict[bytes, Nested] = {}
        for path, digest, size in self.database.query(
            "SELECT path, sha1, size FROM nested_catalogs ORDER BY path"
        ):
            where = f"{self.where}: nested catalog {readable(path)}"
            if not isinstance(path, bytes) or not valid_path(path) or not is_below(path, self.mountpoint):
                raise CorruptError(f"{where} is not below its parent")
            if not isinstance(digest, bytes) or not isinstance(size, int) or size <= 0:
                raise CorruptError(f"{where} has no digest or no size")
            found[path] = Nested(digest=Digest.parse(digest.decode("ascii", "replace")), size=size)
        return MappingProxyType(found)

    def statistics(self) -> Statistics:
        """The counters as stored; without each of the 24 the real client does not open a catalog."""
        stored = dict(self.database.query("SELECT counter, value FROM statistics"))

        def counters(prefix: str) -> Counters:
            values: dict[str, int] = {}
            for name in COUNTER_NAMES:
                value = stored.get(f"{prefix}_{name}".encode())
                if not isinstance(value, int) or value < 0:
                    raise CorruptError(f"{self.where}: counter {prefix}_{name} is missing or not a number")
                values[name] = value
            return Counters(**values)

        return Statistics(own=counters("self"), subtree=counters("subtree"))

    def root(self) -> Directory:
        """The catalog's own root.

        Raises:
            CorruptError: there is none, or it is no directory.
        """
        entry = self.lookup(self.mountpoint)
        if not isinstance(entry, Directory):
            raise CorruptError(f"{self.where} has no row for its own root")
        return entry

    def lookup(self, path: bytes) -> Entry | None:
        """The entry at an absolute path, or None."""
        row = self.row(path)
        return None if row is None else self.entry(path, row)

    def row(self, path: bytes) -> Row | None:
        """The unchecked row at an absolute path."""
        found = self.database.query(f"{self._select} WHERE md5path_1=? AND md5path_2=?", path_hash(path))
        if len(found) > 1:
            raise CorruptError(f"{self.where} has several rows for {readable(path)}")
        return Row(*found[0]) if found else None

    def children(self, path: bytes) -> list[tuple[bytes, Row]]:
        """Paths and unchecked rows of what lies directly in ``path``, hidden ones included, sorted by name."""
        rows = [
            Row(*row)
            for row in self.database.query(f"{self._select} WHERE parent_1=? AND parent_2=?", path_hash(path))
        ]
        for row in rows:
            if not isinstance(row.name, bytes) or not valid_name(row.name):
                raise self._refused(row, f"{readable(row.name)} is no name of a file")
        found = sorted(((path + b"/" + row.name, row) for row in rows), key=lambda pair: pair[0])
        for (first, row), (second, _) in pairwise(found):
            if first == second:
                raise self._refused(row, f"{readable(row.name)} stands twice in one directory")
        return found

    def every(self) -> list[Row]:
        """All rows, unchecked, by row number."""
        return [Row(*row) for row in self.database.query(f"{self._select} ORDER BY rowid")]

    def hidden(self, row: Row) -> bool:
        """Whether a directory listing leaves it out."""
        return isinstance(row.flags, int) and bool(row.flags & FLAG_HIDDEN)

    def _refused(self, row: Row, why: str) -> CorruptError:
        return CorruptError(f"{self.where}: row {row.rowid} ({readable(row.name):.80}): {why}")

    def entry(self, path: bytes, row: Row) -> Entry:
        """Turn a row into the entry at ``path``.

        Raises:
            CorruptError: it is not a good row for this path.
        """
        self._check_columns(path, row)
        try:
            stat = Stat(
                mode=modes.S_IMODE(row.mode),
                mtime=row.mtime,
                mtimens=row.mtimens if row.mtimens is not None and row.mtimens >= 0 else None,
                uid=row.uid,
                gid=row.gid,
                xattrs=unpack_xattrs(row.xattr),
                link_group=0 if modes.S_ISDIR(row.mode) else row.hardlinks >> GROUP_SHIFT,
            )
        except CorruptError as error:
            raise self._refused(row, error.message) from error
        flags = row.flags & _TYPE_FLAGS
        kind = modes.S_IFMT(row.mode)
        if kind == modes.S_IFDIR:
            return self._directory(path, row, stat, flags)
        if kind == modes.S_IFREG and flags in (FLAG_FILE, FLAG_FILE | FLAG_CHUNKED):
            return self._file(path, row, stat)
        if kind == modes.S_IFLNK and flags == FLAG_FILE | FLAG_SYMLINK:
            if not row.symlink or b"\0" in row.symlink:
                raise self._refused(row, "a symbolic link without a usable target")
            return Symlink(name=row.name, stat=stat, target=row.symlink)
        if kind in _KINDS and flags == FLAG_FILE | FLAG_SPECIAL:
            return Special(name=row.name, stat=stat, kind=_KINDS[kind], rdev=row.size)
        raise self._refused(row, f"mode {row.mode:o} and flags {row.flags:#x} do not agree")

    def _check_columns(self, path: bytes, row: Row) -> None:
        for column in _INTEGERS:
            value = getattr(row, column)
            if not isinstance(value, int) or (value < 0 and column in _UNSIGNED):
                raise self._refused(row, f"{column} is {readable(value):.40}")
            if value >= _MOST.get(column, 2**63):
                raise self._refused(row, f"{column} is {value}, which is too much")
        if not isinstance(row.mtimens, int | None) or not isinstance(row.xattr, bytes | None):
            raise self._refused(row, "mtimens or xattr is of the wrong type")
        if not isinstance(row.name, bytes) or not isinstance(row.symlink, bytes):
            raise self._refused(row, "name or symlink is not text")  # the real client crashes on NULL
        if row.name != name_of(path) or (row.md5path_1, row.md5path_2) != path_hash(path):
            raise self._refused(row, f"name or path hash is not that of {readable(path)}")
        # The root has no parent, and says so with zeros rather than with a hash (format section 9.3).
        parent = self._hash_of_directory(parent_of(path)) if path else (0, 0)
        if (row.parent_1, row.parent_2) != parent:
            raise self._refused(row, f"its parent is not the directory of {readable(path)}")
        if row.hash is not None and (
            not isinstance(row.hash, bytes) or len(row.hash) != DIGEST_SIZE or not any(row.hash)
        ):
            raise self._refused(row, "its digest is of another size, or zeros")

    def _hash_of_directory(self, path: bytes) -> tuple[int, int]:
        """That of the last one is at hand: most rows come with their neighbours."""
        asked, known = self._last
        if asked != path:
            asked, known = self._last = path, path_hash(path)
        return known

    def _directory(self, path: bytes, row: Row, stat: Stat, flags: int) -> Directory | Mountpoint:
        if path == self.mountpoint:
            if flags != FLAG_DIRECTORY | (FLAG_NESTED_ROOT if path else 0):
                raise self._refused(row, f"flags {row.flags:#x} are not those of a catalog's root")
            return Directory(name=row.name, stat=stat, size=row.size)
        if flags == FLAG_DIRECTORY | FLAG_MOUNTPOINT:
            if path not in self.nested:
                raise self._refused(row, "a mountpoint without a nested catalog")
            return Mountpoint(name=row.name, stat=stat, size=row.size, links=row.links)
        if flags != FLAG_DIRECTORY or path in self.nested:
            raise self._refused(row, f"flags {row.flags:#x} are not those of this directory")
        return Directory(name=row.name, stat=stat, size=row.size)

    def _file(self, path: bytes, row: Row, stat: Stat) -> File | ChunkedFile:
        try:
            algorithm, compression = flags_algorithm(row.flags), flags_compression(row.flags)
        except ValueError as error:
            raise self._refused(row, f"flags {row.flags:#x} name no known hash or compression") from error
        if row.flags & FLAG_CHUNKED:
            chunks = tuple(
                Chunk(offset=offset, size=size, digest=Digest(algorithm=algorithm, raw=raw))
                for offset, size, raw in self._chunks(path, row)
            )
            return ChunkedFile(name=row.name, stat=stat, size=row.size, chunks=chunks, compression=compression)
        if row.hash is None:
            raise self._refused(row, "a file without a digest")
        return File(
            name=row.name,
            stat=stat,
            size=row.size,
            digest=Digest(algorithm=algorithm, raw=row.hash),
            compression=compression,
        )

    def _chunks(self, path: bytes, row: Row) -> Iterator[tuple[int, int, bytes]]:
        at = 0
        found = self.database.query(_CHUNKS, path_hash(path))
        for offset, size, raw in found:
            if offset != at or not isinstance(size, int) or size <= 0:
                raise self._refused(row, f"its chunks have a gap, or lap over, at byte {at}")
            if not isinstance(raw, bytes) or len(raw) != DIGEST_SIZE or not any(raw):
                raise self._refused(row, f"its chunk at byte {at} has no digest")
            yield at, size, raw
            at += size
        # The real client does not look, and gives a short file (format section 9.4).
        if at != row.size or not found:
            raise self._refused(row, f"its chunks cover {at} of {counted(row.size, 'byte')}")
