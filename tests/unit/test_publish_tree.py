"""Publishing any directory: everything that the format has, what is read and what is not, what is refused."""

import os
import socket
import sqlite3
import stat
import zlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crashing import quick_disk
from headstart.cvmfs.balance import Weights, divisions
from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.chunks import ChunkSizes
from headstart.cvmfs.entry import (
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
)
from headstart.cvmfs.objects import Algorithm, Kind, ObjectName
from headstart.errors import CorruptError, LockedError, MissingToolError, StorageError, UnknownError
from headstart.ingest import Ingestion, Recipe
from headstart.repository import Means, Settings, Wanted, delete_path, publish_tree, synchronize
from headstart.tree import AS_IT_IS, Manners, Source
from headstart.treestate import looks_of
from publishing import AT, HELD, NOW, Place, content_of, new_repository
from publishing import publish_held as run

__all__ = ["quick_disk"]


@pytest.fixture
def place(quick_disk: Path) -> Place:
    return new_repository(quick_disk / "storage")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def fill(tree: Path) -> None:
    """Three releases, two of them marked."""
    for name in ("1", "2", "3"):
        (tree / name / "lib").mkdir(parents=True)
        (tree / name / "lib" / "file").write_text(f"content of {name}")
        if name != "3":
            (tree / name / ".cvmfscatalog").touch()


def catalogs(place: Place) -> dict[bytes, Catalog]:
    return {catalog.mountpoint: catalog for catalog in place.open().forest.catalogs()}


def digests(place: Place) -> dict[bytes, str]:
    found = catalogs(place).values()
    return {path: str(nested.digest) for catalog in found for path, nested in catalog.nested.items()}


# Everything in the format


def test_hard_links_in_one_directory_are_a_group(place: Place, tree: Path) -> None:
    (tree / "a").write_bytes(b"same" * 2000)
    (tree / "sub").mkdir()
    for name in ("b", "sub/c", "z"):
        os.link(tree / "a", tree / name)
    (tree / "link").symlink_to("a")
    os.link(tree / "link", tree / "link2", follow_symlinks=False)
    (tree / "alone").write_bytes(b"alone")
    sizes = ChunkSizes(minimum=1024, average=2048, maximum=4096)
    publish_tree(place.target, Wanted(directory=str(tree), at=AT), NOW, Means(recipe=Recipe(sizes=sizes)))
    content_of(place.open())
    rows = {row.name: row for row in catalogs(place)[b""].rows.every()}
    links = {name: (row.hardlinks >> 32, row.hardlinks & 0xFFFFFFFF) for name, row in rows.items()}
    assert links[b"a"] == links[b"b"] == links[b"z"] == (1, 3)
    assert links[b"link"] == links[b"link2"] == (2, 2)
    assert links[b"c"] == links[b"alone"] == (0, 1)
    ours = [place.open().forest.lookup(AT + name) for name in (b"/a", b"/b", b"/sub/c")]
    parts = [entry.chunks for entry in ours if isinstance(entry, ChunkedFile)]
    assert len(parts) == 3
    assert parts[0] == parts[1] == parts[2]


def test_hard_links_may_be_broken_up(place: Place, tree: Path) -> None:
    (tree / "a").write_bytes(b"same")
    os.link(tree / "a", tree / "b")
    run(place, tree, manners=Manners())
    assert all(row.hardlinks >> 32 == 0 for row in catalogs(place)[b""].rows.every())


def test_special_files_and_variant_links(place: Place, tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tree)  # the path of a socket may not be long
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        (tree / "variant").symlink_to("$(VARIANT:-none)")
        (tree / os.fsdecode(b"\xff")).symlink_to(os.fsdecode(b"\xfe"))
        run(place, tree)
    content = content_of(place.open())
    kinds = {path: entry.kind for path, entry in content.items() if isinstance(entry, Special)}
    assert kinds == {AT + b"/fifo": SpecialKind.FIFO, AT + b"/socket": SpecialKind.SOCKET}
    targets = {path: entry.target for path, entry in content.items() if isinstance(entry, Symlink)}
    assert targets == {AT + b"/variant": b"$(VARIANT:-none)", AT + b"/\xff": b"\xfe"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes devices")
def test_devices_keep_their_numbers(place: Place, tree: Path) -> None:
    try:
        os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("not even root makes devices here")
    run(place, tree)
    entry = place.open().forest.lookup(AT + b"/null")
    assert isinstance(entry, Special)
    assert (entry.kind, entry.rdev) == (SpecialKind.CHARACTER, os.makedev(1, 3))


def test_extended_attributes(place: Place, tree: Path) -> None:
    (tree / "file").touch()
    os.setxattr(tree / "file", "user.colour", b"blue")
    os.setxattr(tree / "file", "user.empty", b"")
    os.setxattr(tree / "file", "user.long", bytes(300))  # more than the format holds
    os.setxattr(tree, "user.of.directory", b"1")
    run(place, tree)
    forest = place.open().forest
    entry, top = forest.lookup(AT + b"/file"), forest.lookup(AT)
    assert entry is not None
    assert top is not None
    assert entry.stat.xattrs == ((b"user.colour", b"blue"), (b"user.empty", b""))
    assert top.stat.xattrs == ((b"user.of.directory", b"1"),)
    run(place, tree, manners=Manners(xattrs=False))
    entry = place.open().forest.lookup(AT + b"/file")
    assert entry is not None
    assert entry.stat.xattrs == ()


def test_nanoseconds_are_kept_on_request(place: Place, tree: Path) -> None:
    (tree / "file").touch()
    os.utime(tree / "file", ns=(0, 1_700_000_000_123_456_789))
    run(place, tree)
    rows = {row.name: row for row in catalogs(place)[b""].rows.every()}
    assert (rows[b"file"].mtime, rows[b"file"].mtimens) == (1_700_000_000, None)
    assert run(place, tree, manners=replace(AS_IT_IS, nanoseconds=True)).changed
    rows = {row.name: row for row in catalogs(place)[b""].rows.every()}
    assert (rows[b"file"].mtime, rows[b"file"].mtimens) == (1_700_000_000, 123_456_789)
    os.utime(tree / "file", ns=(0, -1))
    run(place, tree, manners=replace(AS_IT_IS, nanoseconds=True))
    rows = {row.name: row for row in catalogs(place)[b""].rows.every()}
    assert (rows[b"file"].mtime, rows[b"file"].mtimens) == (-1, 999_999_999)


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("compression", list(Compression))
def test_every_hash_and_compression(
    quick_disk: Path, tree: Path, algorithm: Algorithm, compression: Compression
) -> None:
    try:
        algorithm.digest(b"")
    except MissingToolError:
        pytest.skip("this machine's OpenSSL has no RIPEMD-160")
    place = new_repository(quick_disk / "storage", Settings(algorithm=algorithm))
    (tree / "small").write_bytes(b"small")
    (tree / "empty").touch()
    (tree / "large").write_bytes(bytes(range(256)) * 40)
    recipe = Recipe(compression=compression, sizes=ChunkSizes(minimum=1024, average=2048, maximum=4096))
    publish_tree(place.target, Wanted(directory=str(tree), at=AT), NOW, Means(recipe=recipe))
    content = content_of(place.open())
    assert (content[AT + b"/small"], content[AT + b"/empty"]) == (b"small", b"")
    assert content[AT + b"/large"] == bytes(range(256)) * 40
    entry = place.open().forest.lookup(AT + b"/small")
    assert isinstance(entry, File)
    assert (entry.digest.algorithm, entry.compression) == (algorithm, compression)


def test_some_files_may_be_stored_as_they_are(place: Place, tree: Path) -> None:
    (tree / "a.gz").write_bytes(b"a" * 100)
    (tree / "a.txt").write_bytes(b"a" * 100)
    recipe = Recipe(uncompressed=lambda where: where.endswith(".gz"))
    publish_tree(place.target, Wanted(directory=str(tree), at=AT), NOW, Means(recipe=recipe))
    forest = place.open().forest
    raw, packed = forest.lookup(AT + b"/a.gz"), forest.lookup(AT + b"/a.txt")
    assert isinstance(raw, File)
    assert isinstance(packed, File)
    assert (raw.compression, packed.compression) == (Compression.NONE, Compression.ZLIB)
    name = ObjectName(digest=raw.digest, kind=Kind.FILE)
    assert (place.root / name.path).read_bytes() == b"a" * 100
    assert content_of(place.open())[AT + b"/a.gz"] == b"a" * 100


def test_owners_may_be_made_uniform(place: Place, tree: Path) -> None:
    fill(tree)
    run(place, tree, manners=Manners(owner=(12, 34)))
    for path, entry in catalogs(place)[AT + b"/1"].entries():
        assert (entry.stat.uid, entry.stat.gid) == (12, 34), path


# Nested catalogs


def test_catalogs_by_marker_and_by_rule(place: Place, tree: Path) -> None:
    fill(tree)
    rules = b"/any/*\n! /any/1*\n/any/1/lib\n"
    run(place, tree, dirtab=rules)
    # The rule against /any/1 also reaches what is in it; the marker stands for itself.
    assert set(catalogs(place)) == {b"", AT + b"/1", AT + b"/2", AT + b"/3"}
    content = content_of(place.open())
    assert content[AT + b"/3/.cvmfscatalog"] == b""
    assert not (tree / "3" / ".cvmfscatalog").exists()
    before = digests(place)
    assert not run(place, tree, dirtab=rules).changed
    assert run(place, tree).changed
    assert set(catalogs(place)) == {b"", AT + b"/1", AT + b"/2"}
    assert digests(place) == {path: before[path] for path in (AT + b"/1", AT + b"/2")}


def test_the_root_brings_its_own_rules_and_keeps_what_is_not_its(place: Place, tree: Path) -> None:
    fill(tree)
    (tree / ".cvmfsdirtab").write_bytes(b"/3\n")
    kept = frozenset({b"channels"})
    run(place, tree, at=b"", kept=kept)
    assert set(catalogs(place)) == {b"", b"/1", b"/2", b"/3"}
    assert {b"/channels/root.json", b"/3/lib/file", b"/.cvmfsdirtab"} <= content_of(place.open()).keys()
    assert not run(place, tree, at=b"", kept=kept).changed
    # From now on they are the rules of the repository.
    (tree.parent / "other").mkdir()
    publish_tree(place.target, Wanted(directory=str(tree.parent / "other"), at=b"/3/more"), NOW)
    publish_tree(place.target, Wanted(directory=str(tree / "1"), at=b"/3"), NOW)
    assert b"/3" in catalogs(place)
    (tree / "channels").mkdir()
    with pytest.raises(StorageError, match="channels"):
        run(place, tree, at=b"", kept=kept)


def test_catalogs_by_weight(place: Place, tree: Path) -> None:
    for name in ("a", "b", "c"):
        (tree / name).mkdir()
        for number in range(8):
            (tree / name / str(number)).write_text(name)
    weights = Weights(minimum=4, maximum=20)
    run(place, tree, weights=weights)
    assert set(catalogs(place)) == {b"", AT + b"/a", AT + b"/b", AT + b"/c"}
    entry = catalogs(place)[AT + b"/a"].lookup(AT + b"/a/.cvmfsautocatalog")
    assert isinstance(entry, File)
    assert entry.stat.mode == 0o600
    content_of(place.open())
    before = digests(place)
    assert not run(place, tree, weights=weights).changed
    assert not run(place, tree, weights=weights, checksum=True).changed
    # It stays while it has enough, whatever the whole weighs, and is dissolved when it has too little.
    for number in range(5):
        (tree / "a" / str(number)).unlink()
    run(place, tree, weights=weights)
    assert set(catalogs(place)) == {b"", AT + b"/a", AT + b"/b", AT + b"/c"}
    assert digests(place)[AT + b"/b"] == before[AT + b"/b"]
    for number in range(5, 8):
        (tree / "a" / str(number)).unlink()
    run(place, tree, weights=weights)
    assert set(catalogs(place)) == {b"", AT + b"/b", AT + b"/c"}
    assert not run(place, tree, weights=weights).changed
    content_of(place.open())


def test_a_directory_of_far_too_much_is_divided_on_the_way(place: Place, tree: Path) -> None:
    for name in "abcdefgh":
        (tree / name).mkdir()
        for number in range(9):
            (tree / name / str(number)).touch()
    run(place, tree, weights=Weights(minimum=4, maximum=20))
    sizes = {path: sum(1 for _ in catalog.entries()) for path, catalog in catalogs(place).items()}
    assert len(sizes) == 9
    assert max(sizes.values()) <= 20
    content_of(place.open())


def test_what_cannot_be_divided_is_not_tried_again_and_again(
    place: Place, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in range(100):
        (tree / f"{name:02}").mkdir()
        (tree / f"{name:02}" / "x").touch()
    tried: list[bytes] = []

    def counted(
        entries: Mapping[bytes, Entry], mountpoints: Collection[bytes], top: bytes, weights: Weights
    ) -> list[bytes]:
        tried.append(top)
        return divisions(entries, mountpoints, top, weights)

    monkeypatch.setattr(synchronize, "divisions", counted)
    run(place, tree, weights=Weights(minimum=4, maximum=10))
    # At 21, 44, 90 and 182 of the 201 entries, at the directory's end, and at the catalog's.
    assert len(tried) == 6
    assert set(catalogs(place)) == {b""}
    content_of(place.open())


# What is read, and what is not


def stamp(path: Path, seconds: int) -> None:
    """A time of its own, whatever the clock."""
    os.utime(path, (seconds, seconds))


def test_only_what_changed_is_read_and_rewritten(place: Place, tree: Path) -> None:
    fill(tree)
    assert run(place, tree).read == 5
    before = digests(place)
    (tree / "1" / "lib" / "file").write_text("CONTENT of 1")
    stamp(tree / "1" / "lib" / "file", 7)
    done = run(place, tree)
    assert (done.read, done.catalogs) == (1, (b"", AT + b"/1"))
    after = digests(place)
    assert after[AT + b"/2"] == before[AT + b"/2"]
    assert after[AT + b"/1"] != before[AT + b"/1"]
    assert content_of(place.open())[AT + b"/1/lib/file"] == b"CONTENT of 1"
    again = run(place, tree)
    assert (again.changed, again.read) == (False, 0)
    assert again.manifest == done.manifest


def test_nothing_is_read_where_nothing_is_new(place: Place, tree: Path) -> None:
    fill(tree)
    run(place, tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ingestion, "take", lambda *_: pytest.fail("a file was read"))
        assert not run(place, tree).changed
        with pytest.raises(pytest.fail.Exception):
            run(place, tree, checksum=True)


def test_what_changed_a_moment_before_is_read_again(place: Place, tree: Path) -> None:
    fill(tree)
    run(place, tree, slack=-HELD)
    assert run(place, tree, slack=HELD).read == 5
    assert run(place, tree, slack=HELD).read == 0


def test_a_racy_look_is_never_the_same_again(tree: Path) -> None:
    (tree / "file").touch()
    top, listing = os.lstat(tree), {b"file": os.lstat(tree / "file")}
    ctime = listing[b"file"].st_ctime_ns
    plain = looks_of(top, listing)
    assert looks_of(top, listing, max(ctime, top.st_ctime_ns) + 1) == plain
    assert looks_of(top, listing, ctime) != plain


def test_a_lost_or_damaged_state_only_costs_time(place: Place, tree: Path) -> None:
    fill(tree)
    run(place, tree)
    (place.root.parent / "state").write_bytes(b"no database" * 1000)
    done = run(place, tree)
    assert (done.changed, done.read) == (False, 5)
    (place.root.parent / "state").unlink()
    done = run(place, tree)
    assert (done.changed, done.read) == (False, 5)
    assert run(place, tree).read == 0


def test_a_state_that_cannot_be_kept_is_one_sentence(place: Place, tree: Path) -> None:
    (tree.parent / "file").touch()
    with pytest.raises(StorageError, match="--state"):
        run(place, tree, state=str(tree.parent / "file" / "state"))
    assert place.open().manifest.revision == 1


@pytest.mark.parametrize(
    "at", ["SELECT looks", "INSERT OR REPLACE INTO dir", "INSERT OR REPLACE INTO cat", "COMMIT"]
)
def test_what_is_published_is_so_even_if_it_cannot_be_remembered(
    place: Place, tree: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    state = f"{place.root.parent}/state"

    class Full(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql.startswith(at):
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, *parameters)

    fill(tree)
    run(place, tree)
    (tree / "3" / "new").write_text("new")
    real = sqlite3.connect

    def connect(name: str, **named: Any) -> sqlite3.Connection:
        return real(name, **named, factory=Full if name == state else sqlite3.Connection)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect)
        done = run(place, tree)
    assert (done.changed, place.open().manifest.revision) == (True, 3)
    assert content_of(place.open())[AT + b"/3/new"] == b"new"
    (warning,) = done.warnings
    assert "database or disk is full" in warning
    assert f"cannot be remembered in {state} (" in warning
    # What was remembered before still holds for what has not changed since.
    again = run(place, tree)
    assert (again.changed, again.read, again.warnings) == (False, 1, ())
    assert run(place, tree).read == 0


def test_a_failed_publication_leaves_the_state_as_it_was(place: Place, tree: Path) -> None:
    fill(tree)
    run(place, tree)
    (tree / "3" / "new").write_text("new")
    (tree / "4").mkdir()
    (tree / "4" / ".cvmfsgraft-x").touch()
    with pytest.raises(StorageError, match="cvmfsgraft-x"):
        run(place, tree)
    (tree / "4" / ".cvmfsgraft-x").unlink()
    assert run(place, tree).read == 1


def test_another_recipe_reads_everything_and_another_shape_nothing(place: Place, tree: Path) -> None:
    fill(tree)
    run(place, tree)
    assert run(place, tree, rules="others").read == 5
    done = run(place, tree, rules="others", manners=Manners(owner=(1, 2)))
    assert (done.changed, done.read) == (True, 0)


def test_what_somebody_else_changed_is_put_right(place: Place, tree: Path) -> None:
    fill(tree)
    run(place, tree)
    delete_path(place.target, AT + b"/2", NOW)
    delete_path(place.target, AT + b"/3/lib", NOW)
    done = run(place, tree)
    assert (done.changed, done.read) == (True, 3)
    content = content_of(place.open())
    assert content[AT + b"/2/lib/file"] == b"content of 2"
    assert content[AT + b"/3/lib/file"] == b"content of 3"


def test_the_same_tree_gives_the_same_objects(quick_disk: Path, place: Place, tree: Path) -> None:
    fill(tree)
    other = new_repository(quick_disk / "other")
    wanted = Wanted(directory=str(tree), at=AT)
    assert publish_tree(place.target, wanted, NOW).manifest == publish_tree(other.target, wanted, NOW).manifest

    def objects(root: Path) -> set[str]:
        return {str(path.relative_to(root)) for path in root.glob("data/??/*")}

    assert objects(place.root) == objects(other.root)


def test_a_file_becomes_a_directory_and_a_tree_moves(place: Place, tree: Path) -> None:
    fill(tree)
    (tree / "thing").write_text("a file")
    run(place, tree)
    (tree / "thing").unlink()
    (tree / "1").rename(tree / "thing")
    (tree / "3").rename(tree / "1")
    done = run(place, tree)
    content = content_of(place.open())
    assert content[AT + b"/thing/lib/file"] == b"content of 1"
    assert content[AT + b"/1/lib/file"] == b"content of 3"
    assert set(catalogs(place)) == {b"", AT + b"/thing", AT + b"/2"}
    # What moved is read, for its path is new; as objects it is there already.
    assert (done.read, done.objects) == (3, 0)
    mountpoint = catalogs(place)[b""].lookup(AT + b"/thing")
    assert isinstance(mountpoint, Mountpoint)


def test_a_nested_catalog_names_its_predecessor_only_where_there_is_one(place: Place, tree: Path) -> None:
    fill(tree)
    run(place, tree)
    assert catalogs(place)[AT + b"/1"].previous_revision is None
    before = digests(place)[AT + b"/1"]
    (tree / "1" / "more").touch()
    run(place, tree)
    assert str(catalogs(place)[AT + b"/1"].previous_revision) == before
    assert catalogs(place)[AT + b"/1"].revision == 2
    delete_path(place.target, AT + b"/1", NOW)
    run(place, tree)
    assert catalogs(place)[AT + b"/1"].previous_revision is None


# What is refused


def test_a_file_that_changes_while_it_is_read_is_refused(tree: Path, place: Place) -> None:
    (tree / "file").write_bytes(b"one")
    found = os.lstat(tree / "file")
    seen = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
    where = str(tree / "file")
    source = Source(name=b"file", stat=Stat(mode=0o644, mtime=0), size=3, place=where, seen=seen)
    stamp(tree / "file", 7)
    with place.store.transaction() as into, Ingestion(Recipe(), into, lambda _: None) as ingestion:
        ingestion.take(source, lambda _: None)
        with pytest.raises(CorruptError, match="changed while it was read"):
            ingestion.drain()


@pytest.mark.parametrize("name", [".cvmfsgraft-file", ".cvmfsbundles/"])
def test_names_that_the_real_publisher_keeps_are_refused(place: Place, tree: Path, name: str) -> None:
    if name.endswith("/"):
        (tree / name).mkdir()
    else:
        (tree / name).touch()
    with pytest.raises(StorageError, match="cannot be published"):
        run(place, tree)
    assert place.open().manifest.revision == 1


def test_a_tree_that_is_no_directory_is_refused(place: Place, tree: Path) -> None:
    (tree / "file").touch()
    for path in (tree / "file", tree / "none"):
        with pytest.raises(StorageError):
            run(place, path)


def test_a_tree_of_bottomless_depth_is_refused(place: Place, tree: Path) -> None:
    deep = tree
    for _ in range(200):
        deep = deep / "d"
    deep.mkdir(parents=True)
    with pytest.raises(StorageError, match="deep"):
        run(place, tree)


def test_two_at_once_are_refused(place: Place, tree: Path) -> None:
    with place.store.transaction(), pytest.raises(LockedError):
        run(place, tree)


# Rehearsal and removal


def test_a_rehearsal_says_what_would_be_and_writes_nothing(place: Place, tree: Path) -> None:
    fill(tree)
    before = {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()}
    wanted = Wanted(directory=str(tree), at=AT, state=str(place.root.parent / "state"), slack=HELD)
    would = publish_tree(place.target, wanted, NOW, rehearse=True)
    assert {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()} == before
    did = publish_tree(place.target, wanted, NOW)
    assert replace(would, manifest=did.manifest) == did
    assert would.changed


def test_what_is_removed_is_gone_and_nothing_else(place: Place, tree: Path) -> None:
    fill(tree)
    run(place, tree)
    assert delete_path(place.target, AT + b"/1", NOW, rehearse=True).changed
    assert AT + b"/1" in catalogs(place)
    done = delete_path(place.target, AT + b"/1", NOW)
    assert done.catalogs == (b"",)
    content = content_of(place.open())
    assert not any(path.startswith(AT + b"/1") for path in content)
    assert content[AT + b"/2/lib/file"] == b"content of 2"
    with pytest.raises(UnknownError):
        delete_path(place.target, AT + b"/1", NOW)
    for path in (b"", AT + b"/2/.cvmfscatalog"):
        with pytest.raises(StorageError):
            delete_path(place.target, path, NOW)
    top = place.open().forest.lookup(AT)
    assert isinstance(top, Directory)
    assert top.stat.mtime == int(NOW.timestamp())


def test_an_empty_object_is_stored_for_markers_that_the_tree_does_not_have(place: Place, tree: Path) -> None:
    (tree / "a").mkdir()
    run(place, tree, dirtab=b"/any/a\n")
    entry = catalogs(place)[AT + b"/a"].lookup(AT + b"/a/.cvmfscatalog")
    assert isinstance(entry, File)
    stored = (place.root / ObjectName(digest=entry.digest, kind=Kind.FILE).path).read_bytes()
    assert zlib.decompress(stored) == b""
