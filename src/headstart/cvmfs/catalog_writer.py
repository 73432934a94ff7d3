"""Writing a file catalog: entries in, a SQLite database out; the same entries give the same bytes.

Schema, flags and counters are those of format section 9. What a person could get wrong is not asked for: path
hashes, link counts, flags and counters all come from the entries.
"""

import stat as modes
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from headstart.cvmfs.check import count_entries
from headstart.cvmfs.database import write_database
from headstart.cvmfs.entry import (
    FLAG_CHUNKED,
    FLAG_DIRECTORY,
    FLAG_FILE,
    FLAG_MOUNTPOINT,
    FLAG_NESTED_ROOT,
    FLAG_SPECIAL,
    FLAG_SYMLINK,
    ChunkedFile,
    Directory,
    Entry,
    File,
    Mountpoint,
    Special,
    Symlink,
    content_flags,
    pack_xattrs,
    parent_of,
    path_hash,
)
from headstart.cvmfs.objects import Digest, Revision
from headstart.cvmfs.rows import COUNTER_NAMES, GROUP_SHIFT, Counters, Nested, Statistics

_SCHEMA: Final = """
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER,
  hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER, flags INTEGER,
  name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, xattr BLOB,
  CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));
CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2);
CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB,
  CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size),
  FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog(md5path_1, md5path_2));
CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER,
  CONSTRAINT pk_nested_catalogs PRIMARY KEY (path));
CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER,
  CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path));
CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter));
"""
_INSERT_PROPERTY: Final = "INSERT INTO properties VALUES (?, CAST(? AS TEXT))"
# Names need not be UTF-8, but must be TEXT: the real tools ask SQLite for text.
_INSERT_ENTRY: Final = (
    "INSERT INTO catalog VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?)"
)
_INSERT_CHUNK: Final = "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)"
_INSERT_NESTED: Final = "INSERT INTO nested_catalogs VALUES (CAST(? AS TEXT), ?, ?)"
_INSERT_COUNTER: Final = "INSERT INTO statistics VALUES (?, ?)"
_NO_PREDECESSOR: Final = "0" * 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What a catalog says of itself."""

    mountpoint: bytes
    revision: Revision
    """Of the root catalog the repository's; a nested one counts its own changes from 1."""
    last_modified: int
    """Seconds since 1970."""
    ttl: int
    """Seconds; written to the root catalog only, as the real publisher does."""
    previous: Digest | None
    """The catalog mounted here before; it must exist in storage, or replication fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenCatalog:
    """A catalog's database and its counters."""

    database: bytes
    statistics: Statistics


def write_catalog(
    heading: Heading,
    entries: Sequence[tuple[bytes, Entry]],
    nested: Mapping[bytes, Nested],
    subtree: Counters,
) -> WrittenCatalog:
    """Make a catalog.

    Args:
        heading: what it says of itself.
        entries: path and entry of all that is in it, its own root first, in the order of the rows.
        nested: the catalog of each ``Mountpoint`` among the entries.
        subtree: what all catalogs below this one count, themselves and what is below them.
    """
    entries = numbered(entries)
    members = Counter(entry.stat.link_group for _, entry in entries if entry.stat.link_group)
    own = count_entries([entry for _, entry in entries], nested=len(nested))
    statistics = Statistics(own=own, subtree=subtree)
    directories = Counter(parent_of(path) for path, entry in entries if is_directory(entry) and path)
    references = ((path, str(nested[path].digest), nested[path].size) for path in sorted(nested))
    database = write_database(
        _SCHEMA,
        (
            (_INSERT_PROPERTY, iter(_properties(heading))),
            (_INSERT_ENTRY, _entry_rows(heading, entries, (directories, members))),
            (_INSERT_CHUNK, _chunk_rows(entries)),
            (_INSERT_NESTED, references),
            (_INSERT_COUNTER, _counter_rows(statistics)),
        ),
    )
    return WrittenCatalog(database=database, statistics=statistics)


def numbered(entries: Sequence[tuple[bytes, Entry]]) -> Sequence[tuple[bytes, Entry]]:
    """The same entries with their hard-link groups counted from 1, in the order of their first names.

    A group is of one directory, and its members differ in nothing but their names (format section 9.3): one
    that is left alone, or is not what the first of its group is, becomes a file of its own.
    """
    groups: dict[tuple[bytes, int], list[tuple[bytes, Entry]]] = {}
    for path, entry in entries:
        if entry.stat.link_group:
            groups.setdefault((parent_of(path), entry.stat.link_group), []).append((path, entry))
    if not groups:
        return entries
    numbers: dict[bytes, int] = {}
    number = 0
    for members in groups.values():
        first = members[0][1]
        same = [path for path, entry in members if replace(entry, name=first.name) == first]
        if len(same) > 1:
            number += 1
            numbers |= dict.fromkeys(same, number)
    return [(path, _in_group(entry, numbers.get(path, 0))) for path, entry in entries]


def _in_group(entry: Entry, number: int) -> Entry:
    if entry.stat.link_group == number:
        return entry
    return replace(entry, stat=replace(entry.stat, link_group=number))


def is_directory(entry: Entry) -> bool:
    """Whether it counts as one in its parent's links."""
    return isinstance(entry, Directory | Mountpoint)


def _properties(heading: Heading) -> list[tuple[str, str | bytes]]:
    rows: list[tuple[str, str | bytes]] = [("schema", "2.5"), ("schema_revision", "7")]
    if heading.mountpoint:
        rows.append(("root_prefix", heading.mountpoint))
    else:
        rows.append(("TTL", str(heading.ttl)))
    rows += [("last_modified", str(heading.last_modified)), ("revision", str(heading.revision))]
    if heading.previous is not None:
        rows.append(("previous_revision", str(heading.previous)))
    elif heading.mountpoint:
        rows.append(("previous_revision", _NO_PREDECESSOR))
    return rows


def _entry_rows(
    heading: Heading, entries: Sequence[tuple[bytes, Entry]], counts: tuple[Counter[bytes], Counter[int]]
) -> Iterator[tuple[Any, ...]]:
    mountpoint = heading.mountpoint
    parent, hashed = b"/", (0, 0)
    for path, entry in entries:
        above, _, name = path.rpartition(b"/")
        if above != parent:
            # The same for all in one directory.
            parent, hashed = above, path_hash(above)
        kind, flags, links, digest, size, target = _details(entry, path, counts)
        if path == mountpoint and path:
            flags |= FLAG_NESTED_ROOT
        stat = entry.stat
        yield (
            *path_hash(path),
            *(hashed if path else (0, 0)),
            links,
            digest,
            size,
            kind | stat.mode,
            stat.mtime,
            stat.mtimens,
            flags,
            name,
            target,
            stat.uid,
            stat.gid,
            pack_xattrs(stat.xattrs) if stat.xattrs else None,
        )


def _details(
    entry: Entry, path: bytes, counts: tuple[Counter[bytes], Counter[int]]
) -> tuple[int, int, int, bytes | None, int, bytes]:
    """Type, flags, link count, digest, size and target: the columns that depend on what an entry is."""
    directories, members = counts
    group = entry.stat.link_group
    links = group << GROUP_SHIFT | members[group] if group else 1
    match entry:
        case File():  # first, because nearly all are
            flags = FLAG_FILE | content_flags(entry.digest.algorithm, entry.compression)
            return modes.S_IFREG, flags, links, entry.digest.raw, entry.size, b""
        case Directory():
            return modes.S_IFDIR, FLAG_DIRECTORY, 2 + directories[path], None, entry.size, b""
        case Mountpoint():
            flags = FLAG_DIRECTORY | FLAG_MOUNTPOINT
            return modes.S_IFDIR, flags, entry.links, None, entry.size, b""
        case ChunkedFile():
            algorithm = entry.chunks[0].digest.algorithm
            flags = FLAG_FILE | FLAG_CHUNKED | content_flags(algorithm, entry.compression)
            return modes.S_IFREG, flags, links, None, entry.size, b""
        case Symlink():
            return modes.S_IFLNK, FLAG_FILE | FLAG_SYMLINK, links, None, len(entry.target), entry.target
        case Special():
            return entry.kind.value, FLAG_FILE | FLAG_SPECIAL, links, None, entry.rdev, b""


def _chunk_rows(entries: Sequence[tuple[bytes, Entry]]) -> Iterator[tuple[Any, ...]]:
    for path, entry in entries:
        if isinstance(entry, ChunkedFile):
            for chunk in entry.chunks:
                yield (*path_hash(path), chunk.offset, chunk.size, chunk.digest.raw)


def _counter_rows(statistics: Statistics) -> Iterator[tuple[str, int]]:
    for prefix, counters in (("self", statistics.own), ("subtree", statistics.subtree)):
        for name in COUNTER_NAMES:
            yield f"{prefix}_{name}", getattr(counters, name)
