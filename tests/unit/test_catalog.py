"""Catalogs that are damaged, hostile or wrong: refused, or complained about, with catalog and row named."""

# ruff: noqa: S608 - the statements are the tests'

import sqlite3
from collections.abc import Callable

import pytest

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.catalog_writer import Heading, write_catalog
from headstart.cvmfs.entry import (
    MARKER,
    Chunk,
    ChunkedFile,
    Directory,
    Entry,
    File,
    Mountpoint,
    Stat,
    Symlink,
    pack_xattrs,
    path_hash,
    unpack_xattrs,
    valid_path,
)
from headstart.cvmfs.objects import Algorithm, Digest, Revision
from headstart.cvmfs.rows import Counters, Nested
from headstart.errors import CorruptError

STAT = Stat(mode=0o755, mtime=1_700_000_000)
SOME = Digest(algorithm=Algorithm.SHA1, raw=b"s" * 20)
AT = b"/software/1.0"
ENTRIES: dict[bytes, Entry] = {
    AT: Directory(name=b"1.0", stat=STAT),
    AT + b"/" + MARKER: File(name=MARKER, stat=STAT, size=0, digest=SOME),
    AT + b"/lib": Directory(name=b"lib", stat=STAT),
    AT + b"/lib/file": File(name=b"file", stat=STAT, size=3, digest=SOME),
    AT + b"/lib/link": Symlink(name=b"link", stat=STAT, target=b"file"),
    AT + b"/big": ChunkedFile(
        name=b"big",
        stat=STAT,
        size=30,
        chunks=(Chunk(offset=0, size=10, digest=SOME), Chunk(offset=10, size=20, digest=SOME)),
    ),
    AT + b"/inner": Mountpoint(name=b"inner", stat=STAT, links=2),
}
NESTED = {AT + b"/inner": Nested(digest=SOME, size=4096)}
HEADING = Heading(mountpoint=AT, revision=Revision(1), last_modified=5, ttl=240, previous=None)


def good() -> bytes:
    return write_catalog(HEADING, sorted(ENTRIES.items()), NESTED, Counters()).database


def changed(*statements: str, database: bytes | None = None) -> bytes:
    """A catalog after some SQL."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(database or good())
    for statement in statements:
        connection.execute(statement)
    data = connection.serialize()
    connection.close()
    return data


def opened(*statements: str) -> Catalog:
    return Catalog.from_bytes(changed(*statements), mountpoint=AT)


def where(path: bytes) -> str:
    return "WHERE md5path_1={} AND md5path_2={}".format(*path_hash(path))


LIB_FILE = where(AT + b"/lib/file")


def test_the_good_one_is_good() -> None:
    catalog = opened()
    assert catalog.complaints() == []
    assert dict(catalog.entries()) == ENTRIES
    assert [entry.name for entry in catalog.children(AT)] == [MARKER, b"big", b"inner", b"lib"]
    assert catalog.nested == NESTED
    assert catalog.lookup(b"/elsewhere") is None
    assert catalog.lookup(AT + b"/lib/none") is None


@pytest.mark.parametrize(
    ("path", "first", "second"),
    [
        (b"", 338333539836370388, 9098107892288553193),
        (b"/foo", 5745132282796244766, -5819618580357280866),
        (b"/foo/bar.txt", -253085982223081053, -8020493289569331487),
        ("/software/1.0/bin/héllo".encode(), 8238431834282859289, 5989991299349968336),
    ],
)
def test_path_hashes_are_the_specifications(path: bytes, first: int, second: int) -> None:
    assert path_hash(path) == (first, second)


def test_the_xattr_column_is_the_specifications() -> None:
    packed = bytes.fromhex("01010f04757365722e746573742e636f6c6f72626c7565")
    assert unpack_xattrs(packed) == ((b"user.test.color", b"blue"),)
    assert pack_xattrs([(b"user.test.color", b"blue")]) == packed


@pytest.mark.parametrize(
    "packed",
    [b"", b"\x01", b"\x02\x00", b"\x01\x01", b"\x01\x01\x02\x01ab", b"\x01\x00x", b"\x01\x01\x00\x01a"],
)
def test_damaged_xattrs_are_refused(packed: bytes) -> None:
    with pytest.raises(CorruptError):
        unpack_xattrs(packed)


@pytest.mark.parametrize(
    "xattrs", [[(b"", b"x")], [(b"k" * 256, b"")], [(b"k", b"v" * 256)], [(b"k", b"1"), (b"k", b"2")]]
)
def test_xattrs_that_do_not_fit_are_refused(xattrs: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(CorruptError):
        pack_xattrs(xattrs)


@pytest.mark.parametrize("path", [b"/", b"/a/", b"a", b"/a//b", b"/a/./b", b"/../a", b"/a\0"])
def test_paths_that_lead_elsewhere_are_none(path: bytes) -> None:
    assert not valid_path(path)


def wal(data: bytes) -> bytes:
    return data[:18] + b"\x02\x02" + data[20:]


def cut(data: bytes) -> bytes:
    return data[:-4096]


def scribbled(data: bytes) -> bytes:
    return data[:100] + b"\xff" * (len(data) - 100)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (wal, "WAL"),
        (cut, "pages"),
        (scribbled, "malformed|not a database|damaged"),
        (lambda data: b"", "not a SQLite"),
        (lambda data: b"SQLite format 4\0" + data[16:], "not a SQLite"),
        (lambda data: data + b"x", "pages"),
    ],
)
def test_files_that_are_no_plain_database_are_refused(damage: Callable[[bytes], bytes], says: str) -> None:
    with pytest.raises(CorruptError, match=says):
        Catalog.from_bytes(damage(good()), mountpoint=AT)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("CREATE VIEW evil AS SELECT 1", "schema"),
        ("CREATE TRIGGER evil AFTER INSERT ON chunks BEGIN SELECT 1; END", "schema"),
        ("CREATE TABLE other (x)", "schema"),
        ("ALTER TABLE catalog ADD COLUMN evil AS (zeroblob(1))", "computed"),
        ("UPDATE properties SET value='2.6' WHERE key='schema'", "2.6"),
        ("DELETE FROM properties WHERE key='schema'", "schema"),
        ("UPDATE properties SET value='/other' WHERE key='root_prefix'", "/other"),
        ("UPDATE properties SET value='many' WHERE key='revision'", "revision"),
        ("UPDATE properties SET value=x'00ff' WHERE key='revision'", "revision"),
        ("UPDATE properties SET value=NULL WHERE key='revision'", "not text"),
        ("DELETE FROM statistics WHERE counter='self_special'", "self_special"),
        ("UPDATE statistics SET value='x' WHERE counter='self_special'", "self_special"),
        ("UPDATE nested_catalogs SET path='/elsewhere'", "not below"),
        ("UPDATE nested_catalogs SET path='/software/1.0/../x'", "not below"),
        ("UPDATE nested_catalogs SET sha1='XYZ'", "no content digest"),
        ("UPDATE nested_catalogs SET size=NULL", "no size"),
        (f"DELETE FROM catalog {where(AT)}", "root"),
        (f"UPDATE catalog SET flags=1 {where(AT)}", "row 1"),
    ],
)
def test_what_concerns_the_whole_is_refused_at_once(statement: str, says: str) -> None:
    with pytest.raises(CorruptError, match=says):
        opened(statement)


@pytest.mark.parametrize(
    "change",
    [
        "name=NULL",
        "name='other'",
        "name=x'66696c65' || '/'",
        "symlink=NULL",
        "mode='x'",
        "mode=16877",
        "flags=12",
        "flags=1028",
        "flags=4 + 3*2048",
        "hash=NULL",
        "hash=x''",
        "hash=zeroblob(20)",
        "size=-1",
        "uid=NULL",
        "mtime='soon'",
        "xattr=x'0101'",
        "xattr='text'",
        "hardlinks=NULL",
        "parent_1=1",
    ],
)
def test_a_damaged_row_is_refused_and_named(change: str) -> None:
    catalog = opened(f"UPDATE catalog SET {change} {LIB_FILE}")
    with pytest.raises(CorruptError, match=r"catalog /software/1\.0: row \d+"):
        catalog.lookup(AT + b"/lib/file")
    assert catalog.complaints()


def test_a_row_under_another_paths_hash_is_refused_in_listings() -> None:
    catalog = opened(f"UPDATE catalog SET md5path_1=17 {LIB_FILE}")
    assert catalog.lookup(AT + b"/lib/file") is None
    with pytest.raises(CorruptError, match="path hash"):
        catalog.children(AT + b"/lib")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM chunks WHERE offset=10",
        "DELETE FROM chunks",
        "UPDATE chunks SET size=9 WHERE offset=0",
        "UPDATE chunks SET size=21 WHERE offset=10",
        "UPDATE chunks SET hash=NULL",
        "UPDATE chunks SET hash=zeroblob(20)",
        "UPDATE chunks SET offset=-10 WHERE offset=0",
    ],
)
def test_chunks_that_do_not_cover_their_file_are_refused(statement: str) -> None:
    with pytest.raises(CorruptError, match="chunk"):
        opened(statement).lookup(AT + b"/big")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (f"UPDATE catalog SET hardlinks=7 {where(AT + b'/lib')}", "link count"),
        (f"UPDATE catalog SET hardlinks=0 {LIB_FILE}", "link count"),
        (f"UPDATE catalog SET size=1 {where(AT + b'/lib/link')}", "target"),
        ("UPDATE statistics SET value=9 WHERE counter='self_regular'", "self_regular"),
        ("UPDATE statistics SET value=9 WHERE counter='self_chunks'", "self_chunks"),
        (f"DELETE FROM catalog {where(AT + b'/' + MARKER)}", "without .cvmfscatalog"),
        (f"DELETE FROM catalog {where(AT + b'/lib')}", "cannot be reached"),
        (f"DELETE FROM catalog {where(AT + b'/inner')}", "no mountpoint"),
        (f"UPDATE catalog SET hash=randomblob(20) {where(AT + b'/lib')}", "no file"),
        (f"UPDATE catalog SET symlink='x' {LIB_FILE}", "no symbolic link"),
        (f"UPDATE catalog SET name=CAST(name AS BLOB) {LIB_FILE}", "not TEXT"),
        ("INSERT INTO chunks VALUES (1, 2, 0, 5, zeroblob(20))", "not chunked"),
        ("DELETE FROM properties WHERE key='last_modified'", "last_modified"),
        (f"UPDATE catalog SET rowid=-5 {LIB_FILE}", "below 1"),
    ],
)
def test_complaints_find_what_a_reader_would_not(statement: str, says: str) -> None:
    assert any(says in complaint for complaint in opened(statement).complaints())


def child() -> bytes:
    entries: dict[bytes, Entry] = {
        AT + b"/inner": Directory(name=b"inner", stat=STAT),
        AT + b"/inner/" + MARKER: File(name=MARKER, stat=STAT, size=0, digest=SOME),
    }
    heading = Heading(mountpoint=AT + b"/inner", revision=Revision(1), last_modified=5, ttl=240, previous=None)
    return write_catalog(heading, sorted(entries.items()), {}, Counters()).database


def test_complaints_between_catalogs() -> None:
    inner = Catalog.from_bytes(child(), mountpoint=AT + b"/inner")
    totals = inner.statistics.total
    parent = Catalog.from_bytes(
        write_catalog(HEADING, sorted(ENTRIES.items()), NESTED, totals).database, mountpoint=AT
    )
    assert parent.complaints_about({AT + b"/inner": inner}) == []
    assert "not given" in parent.complaints_about({})[0]
    assert any("subtree_" in text for text in opened().complaints_about({AT + b"/inner": inner}))
    other = changed("UPDATE catalog SET mtime=7 WHERE name='inner'", database=child())
    moved = Catalog.from_bytes(other, mountpoint=AT + b"/inner")
    assert any("differ" in text for text in parent.complaints_about({AT + b"/inner": moved}))


def test_hidden_entries_are_not_listed_but_found() -> None:
    catalog = opened(f"UPDATE catalog SET flags=flags|32768 {LIB_FILE}")
    assert catalog.lookup(AT + b"/lib/file") is not None
    assert [entry.name for entry in catalog.children(AT + b"/lib")] == [b"link"]
    assert catalog.beyond_us()
