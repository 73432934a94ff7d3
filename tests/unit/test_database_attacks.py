"""Databases made to keep the reader busy, or to make SQLite do something else than read rows."""

import sqlite3
import struct
import time

import pytest

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.catalog_writer import Heading, write_catalog
from headstart.cvmfs.database import Database
from headstart.cvmfs.entry import Directory, File, Stat
from headstart.cvmfs.objects import Algorithm, Revision
from headstart.cvmfs.rows import Counters
from headstart.errors import CorruptError
from headstart.inspect import Report

HEADING = Heading(mountpoint=b"", revision=Revision(1), last_modified=1, ttl=240, previous=None)
DIGEST = Algorithm.SHA1.digest(b"x")
STAT = Stat(mode=0o644, mtime=1)


def catalog(files: int) -> bytes:
    root = Directory(name=b"", stat=Stat(mode=0o755, mtime=1))
    entries = [(b"", root)]
    made = [
        (b"/%06d" % number, File(name=b"%06d" % number, stat=STAT, size=1, digest=DIGEST))
        for number in range(files)
    ]
    return write_catalog(HEADING, [*entries, *made], {}, Counters()).database


def changed(data: bytes, *statements: str) -> bytes:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(data)
    connection.execute("PRAGMA writable_schema=ON")
    for statement in statements:
        connection.execute(statement)
    connection.execute("PRAGMA writable_schema=OFF")
    try:
        return connection.serialize()
    finally:
        connection.close()


SMALL = catalog(3)


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TRIGGER t AFTER INSERT ON catalog BEGIN SELECT 1; END",),
        ("DROP TABLE chunks", "CREATE VIEW chunks AS SELECT * FROM catalog"),
        ("DROP TABLE chunks", "CREATE VIRTUAL TABLE chunks USING rtree(id, a, b)"),
        ("INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 0, 'CREATE VIRTUAL TABLE x USING x')",),
        ("CREATE TABLE more (a)",),
        ("ANALYZE",),
        ("ALTER TABLE catalog ADD COLUMN lazy AS (length(randomblob(1000000000)))",),
    ],
)
def test_anything_but_plain_tables_is_refused(statements: tuple[str, ...]) -> None:
    with pytest.raises(CorruptError):
        Catalog.from_bytes(changed(SMALL, *statements), mountpoint=b"")


@pytest.mark.parametrize(
    ("statements", "match"),
    [
        (("DROP INDEX idx_catalog_parent",), "no index over parent_1 and parent_2"),
        (
            ("DROP INDEX idx_catalog_parent", "CREATE INDEX one ON catalog (parent_1)"),
            "no index over parent_1 and parent_2",
        ),
        (
            (
                "CREATE TABLE c AS SELECT * FROM catalog",
                "DROP TABLE catalog",
                "ALTER TABLE c RENAME TO catalog",
                "CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)",
            ),
            "no index over md5path_1 and md5path_2",
        ),
        (
            (
                "CREATE TABLE c AS SELECT * FROM chunks",
                "DROP TABLE chunks",
                "ALTER TABLE c RENAME TO chunks",
            ),
            "no index over md5path_1 and md5path_2",
        ),
    ],
)
def test_catalogs_that_would_be_searched_row_by_row_are_refused(
    statements: tuple[str, ...], match: str
) -> None:
    with pytest.raises(CorruptError, match=match):
        Catalog.from_bytes(changed(SMALL, *statements), mountpoint=b"")


def test_a_schema_that_is_no_text_is_damage() -> None:
    data = SMALL.replace(b"CREATE TABLE properties (key TEXT", b"CREATE \xc5\x80BLE properties \xff\xfe TEXT")
    assert data != SMALL
    with pytest.raises(CorruptError):
        Catalog.from_bytes(data, mountpoint=b"")


def fan_out(levels: int) -> bytes:
    """A database whose table has a few pages, each the child of the one above hundreds of times."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA page_size=4096")
    connection.execute("CREATE TABLE properties (key TEXT, value TEXT)")
    connection.execute("INSERT INTO properties VALUES ('schema', '2.5')")
    data = bytearray(connection.serialize())
    connection.close()
    leaf = bytes(data[4096:8192])
    pages = [bytes(data[:4096])]
    count = 300
    for level in range(levels):
        below = 2 + level + 1
        cells = b"".join(struct.pack(">IB", below, 1 + number % 100) for number in range(count))
        head = struct.pack(">BHHHBI", 5, 0, count, 4096 - len(cells), 0, below)
        places = b"".join(struct.pack(">H", 4096 - len(cells) + 5 * number) for number in range(count))
        page = bytearray(4096)
        page[: len(head) + len(places)] = head + places
        page[4096 - len(cells) :] = cells
        pages.append(bytes(page))
    pages.append(leaf)
    made = bytearray(b"".join(pages))
    made[28:32] = struct.pack(">I", len(made) // 4096)
    return bytes(made)


def test_a_few_pages_that_look_like_endless_rows_are_left_soon() -> None:
    start = time.monotonic()
    assert len(fan_out(6)) < 40_000  # 300 ** 6 rows
    with pytest.raises(CorruptError, match="damaged"):
        Database(fan_out(6), where="it", tables=frozenset({"properties"})).properties()
    assert time.monotonic() - start < 20
    assert Database(fan_out(0), where="it", tables=frozenset({"properties"})).properties() == {"schema": "2.5"}


@pytest.mark.parametrize(
    ("sql", "match"),
    [
        ("UPDATE catalog SET mode = 1 << 40 WHERE name = '000001'", "mode is"),
        ("UPDATE catalog SET size = 1 << 62 WHERE name = '000001'", "too much"),
        ("UPDATE catalog SET name = '000002' WHERE name = '000001'", "000002"),
        ("UPDATE catalog SET flags = 4.5 WHERE name = '000001'", "flags is"),
        ("UPDATE catalog SET name = zeroblob(5000000) WHERE name = '000001'", "damaged"),
        ("UPDATE catalog SET name = 'a/b' WHERE name = '000001'", "no name of a file"),
        ("UPDATE catalog SET name = '..' WHERE name = '000001'", "no name of a file"),
        ("UPDATE catalog SET name = CAST(x'6100' AS TEXT) WHERE name = '000001'", "no name of a file"),
    ],
)
def test_rows_that_are_none_are_refused(sql: str, match: str) -> None:
    opened = Catalog.from_bytes(changed(SMALL, sql), mountpoint=b"")
    with pytest.raises(CorruptError, match=match):
        opened.children(b"")


def test_a_large_catalog_is_read_in_the_time_it_takes() -> None:
    data = catalog(20_000)
    start = time.monotonic()
    opened = Catalog.from_bytes(data, mountpoint=b"")
    assert opened.complaints() == []
    for number in range(0, 20_000, 5):
        assert opened.lookup(b"/%06d" % number) is not None
    assert len(list(opened.entries())) == 20_001
    assert time.monotonic() - start < 30


def test_a_good_catalog_may_be_read_many_times() -> None:
    opened = Catalog.from_bytes(catalog(2_000), mountpoint=b"")
    for _ in range(50):
        assert len(opened.children(b"")) == 2_000


def test_many_complaints_take_no_time() -> None:
    report = Report(complaints=[])
    start = time.monotonic()
    for number in range(40_000):
        report.add(f"/{number}", CorruptError("is damaged"))
        report.add(f"/{number}", CorruptError("is damaged"))
    assert len(report.complaints) == 40_000
    assert time.monotonic() - start < 10
