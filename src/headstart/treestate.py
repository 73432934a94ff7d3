"""What a published tree looked like on disk, so that the next publication need not read what has not changed.

Theory of operation. For each directory the state keeps what ``lstat`` said of it and of everything in it
(mode, owner, size, mtime and ctime to the nanosecond, inode), and for each regular file an identity: what its
content became. A file whose ``lstat`` is the same has the same content, as in Git's index: whoever writes to
a file, or renames another over it, changes ctime or inode, and no program can set ctime back. The one way
around it is a write within the same tick of the file system's clock, after we have looked. So what changed
less than ``SLACK`` before the publication began is remembered as never the same, and is read again the next
time.

The identity says which row of the repository the memory speaks of: if somebody else has published something
else at the path, or rolled it back, the file is read again. For each catalog the state keeps its digest: is
that one still mounted, then its rows are what we wrote, and it need not even be opened.

The state is a SQLite file of this machine. It may be lost, damaged, or older than the repository at any time:
then more is read than need be, and nothing is ever wrong. It is written in one transaction after the new
state is published. Where it cannot be read or written any more on the way (a full disk), the publication goes
on without it.
"""

import hashlib
import os
import sqlite3
import stat as modes
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Self

from headstart.cvmfs.entry import ChunkedFile, File
from headstart.errors import StorageError
from headstart.tree import Listing

SLACK: Final = 2_000_000_000
"""Nanoseconds; the coarsest clock of a file system in use (FAT) ticks every two seconds."""
IDENTITY_SIZE: Final = 20
_LAYOUT: Final = "2"
_ROW: Final = struct.Struct("<IIIQqqQH")
_NEVER: Final = -1
_FOREVER: Final = 1 << 63
"""Nanoseconds; later than any time of a file."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS directories (path BLOB PRIMARY KEY, looks BLOB, identities BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS catalogs (path BLOB PRIMARY KEY, digest TEXT, origin INTEGER) WITHOUT ROWID;
"""
HOLDER: Final = b"holder"
"""In place of a path, which begins with a slash: the catalog that the tree hangs from."""


class Origin(IntEnum):
    """Why there is a nested catalog."""

    MARKED = 1
    """Its directory holds the marker."""
    RULE = 2
    """A rule says so."""
    WEIGHT = 3
    """Its parent would be too large."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A directory as it was."""

    looks: bytes
    identities: bytes

    def rows(self) -> Iterator[tuple[bytes, bytes, bytes | None]]:
        """Name and look of everything in it, in the order of the names, and of regular files the identity."""
        at, number = _ROW.size, 0
        while at < len(self.looks):
            row = _ROW.unpack_from(self.looks, at)
            start = at + _ROW.size
            end = start + row[-1]
            identity: bytes | None = None
            if modes.S_ISREG(row[0]):
                identity = self.identities[number * IDENTITY_SIZE : (number + 1) * IDENTITY_SIZE]
                number += 1
            yield self.looks[start:end], self.looks[at:start], identity
            at = end

    def files(self) -> dict[bytes, tuple[bytes, bytes]]:
        """What each regular file in it looked like, and its identity, by name."""
        return {name: (look, identity) for name, look, identity in self.rows() if identity is not None}

    def directories(self) -> list[bytes]:
        """Names of the directories in it."""
        return [name for name, look, _ in self.rows() if modes.S_ISDIR(_ROW.unpack(look)[0])]

    def is_of(self, stat: os.stat_result) -> bool:
        """Whether it was this very directory."""
        return bool(_ROW.unpack_from(self.looks)[6] == stat.st_ino)


def looks_of(top: os.stat_result, listing: Listing, horizon: int | None = None) -> bytes:
    """A directory and what is in it, in the form that is compared.

    Args:
        top: the directory itself.
        listing: what is in it.
        horizon: nanoseconds since 1970; what changed since then is made to look like nothing else. None to
            compare.
    """
    # As ``look_of``, without a call for each: this is most of what a publication of nothing new does.
    pack = _ROW.pack
    limit = _FOREVER if horizon is None else horizon
    rows = [
        pack(
            stat.st_mode,
            stat.st_uid,
            stat.st_gid,
            stat.st_size,
            mtime := stat.st_mtime_ns,
            ctime if (ctime := stat.st_ctime_ns) < limit and mtime < limit else _NEVER,
            stat.st_ino,
            len(name),
        )
        + name
        for name, stat in listing.items()
    ]
    return look_of(top, b"", horizon) + b"".join(rows)


def look_of(stat: os.stat_result, name: bytes, horizon: int | None = None) -> bytes:
    """What ``lstat`` says of one thing; see ``looks_of``."""
    ctime = stat.st_ctime_ns
    if horizon is not None and max(ctime, stat.st_mtime_ns) >= horizon:
        ctime = _NEVER
    return _ROW.pack(
        stat.st_mode,
        stat.st_uid,
        stat.st_gid,
        stat.st_size,
        stat.st_mtime_ns,
        ctime,
        stat.st_ino,
        len(name),
    )


def identity_of(entry: File | ChunkedFile) -> bytes:
    """What a file's content became."""
    if isinstance(entry, File):
        return entry.digest.raw
    return hashlib.sha1(b"".join(chunk.digest.raw for chunk in entry.chunks), usedforsecurity=False).digest()


class TreeState:
    """The memory of one tree.

    Args:
        file: where it is kept; made if there is none, begun anew if it is damaged. None to remember nothing.
        recipe: how content becomes objects: each thing that matters, by its name for people, as a text. The
            memory of another recipe is worth nothing.
        shape: so, how objects become catalogs; with another shape, no catalog is what it was.
        anew: whether to forget what is in it.

    Raises:
        StorageError: it cannot be made, or opened to be written.
    """

    def __init__(
        self, file: str | None, recipe: Mapping[str, str], shape: Mapping[str, str], *, anew: bool = False
    ) -> None:
        self._file: Final = file
        self.others: tuple[str, ...] = ()
        """What of recipe and shape was another when the tree was published, by its name."""
        self.lost = ""
        """Why nothing of it will be kept, in the system's words; empty where all is well."""
        self._connection: sqlite3.Connection | None = None
        if file is None:
            return
        try:
            os.makedirs(os.path.dirname(os.path.abspath(file)), mode=0o700, exist_ok=True)
            try:
                self._open(file, (recipe, shape), anew=anew)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                os.unlink(file)
                self._open(file, (recipe, shape), anew=anew)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(
                f"cannot keep the state of the tree in {file}: {error}", hint="name another place with --state"
            ) from error

    def _open(self, file: str, said: tuple[Mapping[str, str], Mapping[str, str]], *, anew: bool) -> None:
        connection = sqlite3.connect(file, isolation_level=None, timeout=0)
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN IMMEDIATE")
        about = dict(connection.execute("SELECT key, value FROM about"))
        recipe = {"layout": _LAYOUT, **said[0]}
        rows = {**recipe, **said[1]}
        self.others = tuple(key for key in rows if key in about and about[key] != rows[key])
        stale: tuple[str, ...] = ()
        if anew or any(about.get(key) != recipe[key] for key in recipe):
            stale = ("directories", "catalogs")
        elif about != rows:
            stale = ("catalogs",)
        for table in stale:
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - constant names
        if anew or about != rows:
            connection.execute("DELETE FROM about")
            connection.executemany("INSERT INTO about VALUES (?, ?)", rows.items())
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()  # what was not kept is gone

    def keep(self) -> None:
        """Make what was remembered last; call it when all of it is published, and look at ``lost`` then."""
        self._do("COMMIT")
        self._do("BEGIN IMMEDIATE")

    def directory(self, path: bytes) -> Seen | None:
        """A directory as it was published, by its path in the repository."""
        row = self._one("SELECT looks, identities FROM directories WHERE path=?", path)
        return None if row is None else Seen(row[0], row[1])

    def catalog(self, mountpoint: bytes) -> str | None:
        """Digest of the catalog that was published at a path."""
        row = self._one("SELECT digest FROM catalogs WHERE path=?", mountpoint)
        return None if row is None else str(row[0])

    def origin(self, mountpoint: bytes) -> Origin | None:
        """Why it was published."""
        row = self._one("SELECT origin FROM catalogs WHERE path=?", mountpoint)
        return None if row is None else Origin(row[0])

    def remember(self, path: bytes, seen: Seen) -> None:
        """What is to be known of a directory."""
        self._do("INSERT OR REPLACE INTO directories VALUES (?, ?, ?)", path, seen.looks, seen.identities)

    def remember_catalog(self, mountpoint: bytes, digest: str, origin: Origin) -> None:
        """What is to be known of a catalog."""
        if (self.catalog(mountpoint), self.origin(mountpoint)) != (digest, origin):
            self._do("INSERT OR REPLACE INTO catalogs VALUES (?, ?, ?)", mountpoint, digest, origin)

    def forget_catalog(self, mountpoint: bytes) -> None:
        """There is no catalog at a path any more."""
        self._do("DELETE FROM catalogs WHERE path=?", mountpoint)

    def forget(self, path: bytes) -> None:
        """A directory is gone, with all below it."""
        for table in ("directories", "catalogs"):
            # The byte after the slash: all paths below, and no others.
            self._do(f"DELETE FROM {table} WHERE path=? OR (path>? AND path<?)", path, path + b"/", path + b"0")  # noqa: S608 - constant names

    def _one(self, sql: str, path: bytes) -> tuple[Any, ...] | None:
        if self._connection is None:
            return None
        try:
            row: tuple[Any, ...] | None = self._connection.execute(sql, (path,)).fetchone()
        except sqlite3.Error as error:
            self.lost = self.lost or str(error)
            return None
        return row

    def _do(self, sql: str, *values: bytes | str | int) -> None:
        # After a failure some of it may be missing, so no more is kept of this time.
        if self._connection is None or self.lost:
            return
        try:
            self._connection.execute(sql, values)
        except sqlite3.Error as error:
            self.lost = str(error)
