"""Reading a file catalog: a SQLite database of one subtree, minus what its nested catalogs hold.

Theory of operation. The bytes were verified by name before they come here, but whoever signed them may have
made a mistake or be an enemy of this node, so nothing in them is taken as it is. ``database`` refuses what is
not a plain SQLite file; ``from_bytes`` checks what concerns the whole: schema, mountpoint, counters, nested
catalogs, root row. Rows are read when they are asked for, by the MD5 of their path, and each passes the one
door in ``rows``. So a damaged row is an error for those who ask for it, and a catalog of a hundred thousand
rows costs a launch no more than the few it needs. ``complaints`` looks at all of them.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Self

from headstart.cvmfs import check
from headstart.cvmfs.database import Database
from headstart.cvmfs.entry import (
    Chunk,
    ChunkedFile,
    Compression,
    Directory,
    Entry,
    File,
    Mountpoint,
    Special,
    SpecialKind,
    Stat,
    Symlink,
    is_below,
)
from headstart.cvmfs.objects import Digest, Revision
from headstart.cvmfs.rows import TABLES, Counters, Nested, Rows, Statistics
from headstart.errors import CorruptError

__all__ = [
    "DEFAULT_TTL",
    "Catalog",
    "Chunk",
    "ChunkedFile",
    "Compression",
    "Counters",
    "Directory",
    "Entry",
    "File",
    "Mountpoint",
    "Nested",
    "Special",
    "SpecialKind",
    "Stat",
    "Statistics",
    "Symlink",
]

DEFAULT_TTL: Final = 240
"""Seconds that a client keeps a catalog without asking again, where the root catalog does not say."""
_SCHEMAS: Final = ("2.4", "2.5")


class Catalog:
    """One catalog, read only. Safe to use from several threads."""

    def __init__(self, rows: Rows, properties: Mapping[str, str]) -> None:
        self.rows: Final = rows
        """The rows as stored, for those who compare them."""
        self._properties = properties
        self.mountpoint: Final[bytes] = rows.mountpoint
        self.statistics: Final[Statistics] = rows.statistics()
        self.nested: Final[Mapping[bytes, Nested]] = rows.nested
        """Of this catalog's direct children, by mountpoint."""
        self.revision: Final[Revision] = Revision(self._number("revision", 0))
        """Of the root catalog: the repository's; a nested one counts its own changes."""
        self.ttl: Final[int] = self._number("TTL", DEFAULT_TTL)
        """Seconds that a client may go without asking for a newer state."""
        self.last_modified: Final[int] = self._number("last_modified", 0)
        """Seconds since 1970."""

    @classmethod
    def from_bytes(cls, database: bytes, *, mountpoint: bytes) -> Self:
        """Open a catalog.

        Args:
            database: the SQLite file, inflated and verified by name.
            mountpoint: the path it is mounted at; empty for the root catalog.

        Raises:
            CorruptError: not such a database, or not the catalog of this mountpoint.
        """
        where = f"catalog {mountpoint.decode(errors='replace') or '/'}"
        opened = Database(database, where=where, tables=TABLES)
        properties = opened.properties()
        if properties.get("schema") not in _SCHEMAS:
            raise CorruptError(f"{where} has schema {properties.get('schema')!r}, not 2.4 or 2.5")
        prefix = properties.get("root_prefix", "")
        if prefix.encode(errors="surrogateescape") != mountpoint:
            raise CorruptError(f"{where} says that it belongs at {prefix or '/'}")
        catalog = cls(Rows(opened, mountpoint), properties)
        catalog.root()
        return catalog

    @property
    def previous_revision(self) -> Digest | None:
        """The catalog that was mounted here before, where it is recorded."""
        text = self._properties.get("previous_revision", "")
        # The real tools write zeros for "none".
        return Digest.parse(text) if text.partition("-")[0].strip("0") else None

    def root(self) -> Directory:
        """The catalog's own root directory."""
        return self.rows.root()

    def lookup(self, path: bytes) -> Entry | None:
        """The entry at an absolute path, or None where this catalog has none.

        Raises:
            CorruptError: its row is damaged, naming catalog and row.
        """
        if path != self.mountpoint and not is_below(path, self.mountpoint):
            return None
        return self.rows.lookup(path)

    def children(self, path: bytes) -> tuple[Entry, ...]:
        """The entries in the directory at ``path``, sorted by name; hidden ones are left out.

        Raises:
            CorruptError: a row is damaged, naming catalog and row.
        """
        rows = self.rows
        return tuple(rows.entry(at, row) for at, row in rows.children(path) if not rows.hidden(row))

    def entries(self) -> Iterator[tuple[bytes, Entry]]:
        """Path and entry of everything in this catalog, its root first, directories before their content."""
        yield self.mountpoint, self.root()
        waiting = [self.mountpoint]
        while waiting:
            path = waiting.pop()
            children = self.children(path)
            for entry in children:
                yield path + b"/" + entry.name, entry
            waiting += [
                path + b"/" + entry.name for entry in reversed(children) if isinstance(entry, Directory)
            ]

    def beyond_us(self) -> list[str]:
        """What a rewrite of this catalog by Headstart would lose, a sentence each."""
        return check.beyond_us(self.rows)

    def complaints(self) -> list[str]:
        """Whatever in this catalog breaks the format, a sentence each; what spans catalogs is not looked at."""
        return check.complaints(self.rows)

    def complaints_about(self, children: Mapping[bytes, "Catalog"]) -> list[str]:
        """Whatever does not fit between this catalog and all those nested in it.

        Args:
            children: every direct child, by mountpoint.
        """
        return check.complaints_between(
            self.rows,
            self.statistics,
            {path: (child.rows, child.statistics) for path, child in children.items()},
        )

    def _number(self, key: str, default: int) -> int:
        text = self._properties.get(key)
        if text is None:
            return default
        if not text.isascii() or not text.isdecimal() or len(text) > 18:
            raise CorruptError(f"{self.rows.where}: property {key} is {text[:40]!r}, not a number")
        return int(text)
