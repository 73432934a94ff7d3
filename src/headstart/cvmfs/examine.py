"""Looking for whatever in a catalog breaks the format: what ``cvmfs_swissknife check`` looks for, and more.

The real check recomputes counters and link counts but not path hashes, and the real client does not notice
chunks that do not cover their file (format sections 9 and 21). Everything here is recomputed from the rows.

Theory of operation. Nothing is taken for granted but that SQLite can read the file: what one test finds wrong
does not keep the others from looking. ``rowwalk`` goes through the rows of the table ``catalog``; the other
tables are small, and are read whole.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

from headstart.cvmfs.database import Database
from headstart.cvmfs.entry import (
    MARKER,
    is_below,
    name_of,
    parent_of,
    path_hash,
    valid_path,
)
from headstart.cvmfs.examined import Examined
from headstart.cvmfs.faults import Code, Fault
from headstart.cvmfs.objects import DIGEST_SIZE, Digest
from headstart.cvmfs.rowrules import counter_query
from headstart.cvmfs.rows import COUNTER_NAMES, TABLES, Counters, Nested, Row, Statistics
from headstart.cvmfs.rowwalk import PARENT, SELF, PathHash, RowWalk
from headstart.errors import CorruptError
from headstart.wording import counted, readable

_SCHEMAS: Final = ("2.4", "2.5")
_CHUNKS: Final = "SELECT md5path_1, md5path_2, offset, size, hash FROM chunks ORDER BY 1, 2, 3, 4"
_SPARSE: Final = 1.25
"""Row numbers are inodes on the client; the real tools rebuild a catalog with a fifth of them unused."""
_FEW: Final = 64
"""Rows below which it is no waste."""


def open_database(data: bytes, mountpoint: bytes) -> Database:
    """A catalog's file as ``examine`` wants it.

    Raises:
        CorruptError: not a plain SQLite file with only such tables.
    """
    where = f"catalog {mountpoint.decode(errors='replace') or '/'}"
    return Database(data, where=where, tables=TABLES)


def examine(database: Database, mountpoint: bytes) -> Examined:
    """Look through one catalog; what spans catalogs is not looked at.

    Raises:
        CorruptError: SQLite cannot read it to the end.
    """
    return _Examination(database, mountpoint).result()


class _Examination:
    """What is collected on the way through a catalog."""

    def __init__(self, database: Database, mountpoint: bytes) -> None:
        self._database = database
        self._mountpoint = mountpoint
        self._faults: list[Fault] = []
        self._properties: dict[str, str] = {}
        self._chunk_lists: dict[PathHash, list[tuple[Any, ...]]] = {}
        has = database.columns("catalog")
        columns = ", ".join(
            name if name in has or name not in ("mtimens", "xattr") else f"NULL AS {name}"
            for name in Row._fields
        )
        self._columns: Final = f"SELECT {columns} FROM catalog"  # noqa: S608 - constant names
        self._source: Final = f"({self._columns})"
        self._walk: Final = RowWalk(database, mountpoint, self._source)

    def _add(self, code: Code, path: bytes, text: str) -> None:
        self._faults.append(Fault(code, path, text))

    def result(self) -> Examined:
        database, root = self._database, self._mountpoint
        for (text,) in database.query("PRAGMA integrity_check"):
            if text != b"ok":
                self._add(Code.CATALOG_DAMAGED, root, f"has a damaged catalog: {text.decode(errors='replace')}")
        self._schema()
        self._heading()
        count, lowest, highest = database.query("SELECT count(*), min(rowid), max(rowid) FROM catalog")[0]
        self._row_numbers(count, lowest, highest)
        reached = self._walk.run()
        if reached != count:
            self._walk.unreachable(count - reached)
        self._faults += self._walk.faults
        self._chunk_table()
        self._hard_links()
        nested = self._nested_table()
        self._bind_table()
        self._marker_files()
        statistics = self._counters()
        odd = self._walk.odd_names
        if odd:
            self._add(Code.NAME_NOT_UTF8, odd[0], f"is one of {counted(len(odd), 'name')} not in UTF-8")
        return Examined(
            mountpoint=root,
            where=database.where,
            faults=tuple(self._faults),
            entries=count,
            nested=nested,
            statistics=statistics,
            edges={
                path: Row(*found[0])
                for path in (root, *self._walk.mountpoints)
                if (found := database.query(f"{self._columns} {SELF}", path_hash(path)))
            },
            properties=self._properties,
        )

    # -- the whole ---------------------------------------------------------------------------------------------

    def _schema(self) -> None:
        for columns, ends in (
            (("md5path_1", "md5path_2"), f"catalog {SELF}"),
            (("parent_1", "parent_2"), f"catalog {PARENT}"),
            (("md5path_1", "md5path_2"), f"chunks {SELF}"),
        ):
            try:
                self._database.require_index(f"SELECT * FROM {ends}", columns)  # noqa: S608 - constant names
            except CorruptError as error:
                self._add(Code.CATALOG_SCHEMA, self._mountpoint, error.message)

    def _heading(self) -> None:
        root = self._mountpoint
        try:
            found = self._properties = self._database.properties()
        except CorruptError as error:
            self._add(Code.CATALOG_PROPERTY, root, error.message)
            return
        if found.get("schema") not in _SCHEMAS:
            self._add(Code.CATALOG_SCHEMA, root, f"has schema {found.get('schema')!r}, not 2.4 or 2.5")
        prefix = found.get("root_prefix")
        if not root and prefix is not None:
            self._add(Code.CATALOG_PLACE, root, "is the root, and its catalog has a root_prefix")
        elif (prefix or "").encode(errors="surrogateescape") != root:
            self._add(Code.CATALOG_PLACE, root, f"has a catalog that says it belongs at {prefix or '/'}")
        for key in ("revision", "last_modified", "schema_revision"):
            if key not in found:
                self._add(Code.CATALOG_PROPERTY, root, f"property {key} is missing")
        for key in ("revision", "last_modified", "TTL"):
            text = found.get(key, "0")
            if not (text.isascii() and text.isdecimal() and len(text) <= 18):
                self._add(Code.CATALOG_PROPERTY, root, f"property {key} is {text[:40]!r}, not a number")
        previous = found.get("previous_revision", "")
        if previous.partition("-")[0].strip("0"):
            try:
                Digest.parse(previous)
            except CorruptError as error:
                self._add(Code.CATALOG_PROPERTY, root, f"property previous_revision: {error.message}")

    def _row_numbers(self, count: int, lowest: int | None, highest: int | None) -> None:
        if lowest is None or highest is None or lowest < 1:
            self._add(Code.ROW_NUMBER, self._mountpoint, "a row number is below 1, or there are no rows")
        elif highest > _FEW and highest > _SPARSE * count:
            self._add(
                Code.SPARSE_ROWS, self._mountpoint, f"has {count} rows with numbers up to {highest}, all inodes"
            )

    # -- the other tables --------------------------------------------------------------------------------------

    def _chunk_table(self) -> None:
        lists: dict[PathHash, list[tuple[Any, ...]]] = {}
        strangers = 0
        for key, group in groupby(self._database.query(_CHUNKS), key=lambda row: (row[0], row[1])):
            chunks = [row[2:] for row in group]
            if key not in self._walk.chunked:
                strangers += 1
                continue
            lists[key] = chunks
            path, size = self._walk.chunked[key]
            fault = _chunk_fault(chunks, size)
            if fault:
                self._add(Code.CHUNKS, path, fault)
        if strangers:
            self._add(Code.CHUNKS, self._mountpoint, f"has chunks of {counted(strangers, 'file')} not chunked")
        for key in self._walk.chunked.keys() - lists.keys():
            self._add(Code.CHUNKS, self._walk.chunked[key][0], "is chunked, and has no chunks")
        self._chunk_lists = lists

    def _hard_links(self) -> None:
        """Groups: in one directory, complete, and alike in everything but the name (format section 9.3)."""
        if not self._walk.linked:
            return
        groups: dict[int, list[tuple[bytes, Row]]] = defaultdict(list)
        for key, path in self._walk.linked.items():
            for found in self._database.query(f"{self._columns} {SELF}", key):
                row = Row(*found)
                groups[row.hardlinks >> 32].append((path, row))
        for number, members in sorted(groups.items()):
            members.sort()
            path, first = members[0]
            if len({parent_of(at) for at, _ in members}) > 1:
                self._add(Code.HARD_LINKS, path, f"is of hard-link group {number}, which spans directories")
            elif first.links != len(members):
                self._add(
                    Code.HARD_LINKS,
                    path,
                    f"has link count {first.links} in a group of {counted(len(members), 'name')}",
                )
            for at, row in members[1:]:
                chunks = [self._chunk_lists.get((item.md5path_1, item.md5path_2)) for item in (first, row)]
                if _unnamed(row) != _unnamed(first) or chunks[0] != chunks[1]:
                    self._add(
                        Code.HARD_LINKS,
                        at,
                        f"differs from {readable(name_of(path))}, of which it is another name",
                    )

    def _references(self, table: str) -> Iterator[tuple[bytes, Nested | None]]:
        """Path and catalog of a table's rows; None, and a complaint, where it says none."""
        sized = "size" if "size" in self._database.columns(table) else "0"
        rows = self._database.query(
            f"SELECT path, sha1, {sized}, typeof(path), typeof(sha1) FROM {table} ORDER BY 1"  # noqa: S608 - constant names
        )
        for path, digest, size, path_type, digest_type in rows:
            if path_type != b"text" or not valid_path(path) or not is_below(path, self._mountpoint):
                self._add(
                    Code.NESTED, self._mountpoint, f"names a catalog at {readable(path):.200}, not below itself"
                )
                continue
            try:
                # What is not text is no digest either.
                named = Digest.parse(digest.decode("ascii", "replace") if digest_type == b"text" else "")
            except CorruptError as error:
                self._add(Code.NESTED, path, f"has no digest of its catalog: {error.message}")
                yield path, None
                continue
            good = isinstance(size, int) and (size > 0 or (size == 0 and self._revision < 1))
            if not good:
                self._add(Code.NESTED, path, "has no size of its catalog")
            yield path, Nested(digest=named, size=size if good else 0)

    @property
    def _revision(self) -> int:
        """Of the schema, which has gained columns and rows over time (format section 9.1)."""
        text = self._properties.get("schema_revision", "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 7

    def _nested_table(self) -> dict[bytes, Nested]:
        listed = dict(self._references("nested_catalogs"))
        for path in sorted(listed.keys() - self._walk.mountpoints):
            self._add(Code.NESTED, path, "nested catalog has no mountpoint in the catalog that names it")
        for path in sorted(self._walk.mountpoints - listed.keys() - self._walk.binds):
            self._add(Code.NESTED, path, "is a mountpoint without a nested catalog")
        return {path: named for path, named in listed.items() if named is not None}

    def _bind_table(self) -> None:
        listed: set[bytes] = set()
        if self._database.columns("bind_mountpoints"):
            listed = {path for path, _ in self._references("bind_mountpoints")}
        for path in sorted(listed ^ self._walk.binds):
            self._add(
                Code.BIND_MOUNTPOINT, path, "is a bind mountpoint in its row or in their table, not in both"
            )

    def _marker_files(self) -> None:
        root = self._mountpoint
        expected = root + b"/" + MARKER
        if root and expected not in self._walk.markers:
            self._add(Code.MARKER, root, f"is a nested catalog without {MARKER.decode()} in its root")
        for path in sorted(self._walk.markers - ({expected} if root else set())):
            self._add(Code.MARKER, path, "marks a directory that is no nested catalog")

    def _counters(self) -> Statistics | None:
        root = self._mountpoint
        stored = dict(self._database.query("SELECT counter, value FROM statistics"))
        values: dict[str, dict[str, int]] = {"self": {}, "subtree": {}}
        for prefix, found in values.items():
            for name in COUNTER_NAMES:
                value = stored.get(f"{prefix}_{name}".encode())
                if value is None and self._revision < _COUNTER_SINCE.get(name, 0):
                    value = 0
                if not isinstance(value, int) or value < 0:
                    self._add(Code.COUNTER_MISSING, root, f"counter {prefix}_{name} is missing or not a number")
                else:
                    found[name] = value
        row = self._database.query(counter_query(self._source))[0]
        counted = dict(zip(COUNTER_NAMES, row, strict=True))
        for name, value in values["self"].items():
            if value != counted[name]:
                self._add(
                    Code.COUNTER_WRONG, root, f"counter self_{name} is {value}, should be {counted[name]}"
                )
        if any(len(found) < len(COUNTER_NAMES) for found in values.values()):
            return None
        return Statistics(own=Counters(**values["self"]), subtree=Counters(**values["subtree"]))


_COUNTER_SINCE: Final = {"xattr": 2, "external": 3, "external_file_size": 3, "special": 5}
"""Schema revisions that brought a counter."""


def _unnamed(row: Row) -> Row:
    return row._replace(rowid=0, md5path_1=0, md5path_2=0, name=b"")


def _chunk_fault(chunks: list[tuple[Any, ...]], size: Any) -> str:
    """What is wrong with the chunks of a file of ``size`` bytes; nothing if they are good."""
    at = 0
    for offset, length, digest in chunks:
        if offset != at or not isinstance(length, int) or length <= 0:
            return f"its chunks have a gap, or lap over, at byte {at}"
        if not isinstance(digest, bytes) or len(digest) != DIGEST_SIZE or not any(digest):
            return f"its chunk at byte {at} has no digest"
        at += length
    # The real client does not look, and gives a short file (format section 9.4).
    return "" if at == size else f"its chunks cover {at} of {counted(size, 'byte')}"
