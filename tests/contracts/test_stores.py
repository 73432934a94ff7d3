"""What every storage keeps, whatever it is made of."""

import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest

import s3server
from headstart.cvmfs.objects import Algorithm, Kind, ObjectName
from headstart.errors import CorruptError, LockedError, MissingError, StorageError
from headstart.s3store import S3Store
from headstart.store import DirectoryStore, Store
from memorystore import MemoryStore


def named(content: bytes, kind: Kind = Kind.FILE) -> ObjectName:
    return ObjectName(digest=Algorithm.SHAKE128.digest(content), kind=kind)


@pytest.fixture(params=["directory", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "s3":
        server = s3server.running()
        bucket = S3Store(server.place(), server.access())
        bucket.prepare()
        return bucket
    made = DirectoryStore(str(tmp_path / "storage"))
    made.prepare()
    return made


class TestStore:
    def test_objects_are_there_when_they_are_settled(self, store: Store) -> None:
        with store.transaction() as into:
            assert into.put(named(b"one"), b"one")
            into.settle()
            assert store.read(named(b"one").path, limit=3) == b"one"

    def test_a_limit_beyond_all_memory_is_only_a_limit(self, store: Store) -> None:
        with store.transaction() as into:
            into.replace(".cvmfspublished", b"new")
        assert store.read(".cvmfspublished", limit=1 << 46) == b"new"

    def test_what_is_not_settled_is_dropped_or_harmless(self, store: Store) -> None:
        with store.transaction() as into:
            into.put(named(b"one"), b"one")
        with store.transaction() as into:
            into.put(named(b"one"), b"one")
            into.settle()
        assert store.read(named(b"one").path, limit=3) == b"one"

    def test_an_object_is_never_written_twice(self, store: Store) -> None:
        with store.transaction() as into:
            assert into.put(named(b"one"), b"one")
            assert not into.put(named(b"one"), b"one")
            into.settle()
            assert not into.put(named(b"one"), b"two")
            into.settle()
        assert store.read(named(b"one").path, limit=9) == b"one"

    def test_kinds_are_different_objects(self, store: Store) -> None:
        with store.transaction() as into:
            for kind in Kind:
                assert into.put(named(b"one", kind), b"one")
            into.settle()
        assert all(store.has(named(b"one", kind).path) for kind in Kind)

    def test_mutable_files_are_replaced(self, store: Store) -> None:
        with store.transaction() as into:
            into.replace(".cvmfspublished", b"old")
            into.replace(".cvmfspublished", b"new")
        assert store.read(".cvmfspublished", limit=3) == b"new"

    def test_mutable_files_are_removed_and_nothing_else_is(self, store: Store) -> None:
        with store.transaction() as into:
            into.replace(".cvmfs_is_snapshotting", b"now")
            into.remove(".cvmfs_is_snapshotting")
            into.remove(".cvmfs_is_snapshotting")
            assert not store.has(".cvmfs_is_snapshotting")
            into.put(named(b"one"), b"one")
            into.settle()
            for path in (named(b"one").path, "data", ".cvmfs/../data", "letter.txt", ""):
                with pytest.raises(StorageError, match="is no mutable file"):
                    into.remove(path)
        assert store.has(named(b"one").path)

    def test_one_writer_at_a_time(self, store: Store) -> None:
        with store.transaction(), pytest.raises(LockedError), store.transaction():
            pass
        with store.transaction():
            pass

    def test_missing_files_and_long_ones_are_told_apart(self, store: Store) -> None:
        with pytest.raises(MissingError):
            store.read(".cvmfspublished", limit=10)
        with store.transaction() as into:
            into.replace(".cvmfspublished", b"12345")
        with pytest.raises(CorruptError):
            store.read(".cvmfspublished", limit=4)

    def test_objects_may_be_put_from_many_threads(self, store: Store) -> None:
        contents = [str(number % 25).encode() for number in range(200)]
        with store.transaction() as into:
            threads = [
                threading.Thread(
                    target=lambda part: [into.put(named(item), item) for item in part], args=(part,)
                )
                for part in (contents[0::4], contents[1::4], contents[2::4], contents[3::4])
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            into.settle()
        assert all(store.read(named(item).path, limit=9) == item for item in contents)

    def test_what_is_there_is_listed_below_a_prefix(self, store: Store) -> None:
        contents = [str(number).encode() * number for number in range(40)]
        with store.transaction() as into:
            for content in contents:
                into.put(named(content), content)
            into.put(named(b"other", Kind.CATALOG), b"other")
            into.settle()
            into.replace(".cvmfspublished", b"x")
        listed = {item.path: item.size for item in store.listing("data/") if "/txn/" not in item.path}
        wanted = {named(content).path: len(content) for content in contents}
        assert listed == wanted | {named(b"other", Kind.CATALOG).path: 5}
        prefix = named(contents[3]).path[:8]
        assert prefix.endswith("/")
        assert {item.path for item in store.listing(prefix)} == {
            path for path in listed if path.startswith(prefix)
        }
        assert list(store.listing("data/none/")) == []

    def test_a_listing_may_be_left_early(self, store: Store) -> None:
        with store.transaction() as into:
            for number in range(5):
                into.put(named(bytes([number])), bytes([number]))
            into.settle()
        assert next(store.listing("data/")).path.startswith("data/")

    def test_objects_are_deleted_and_may_be_gone_before(self, store: Store) -> None:
        with store.transaction() as into:
            for number in range(4):
                into.put(named(bytes([number])), bytes([number]))
            into.settle()
            into.delete(named(bytes([number])).path for number in (0, 2, 0, 9))
        assert [store.has(named(bytes([number])).path) for number in range(4)] == [False, True, False, True]
        with store.transaction() as into:
            assert into.put(named(b"\0"), b"\0")

    @pytest.mark.parametrize("path", [".cvmfspublished", "data/../.cvmfspublished", "/etc/passwd"])
    def test_nothing_else_is_ever_deleted(self, store: Store, path: str) -> None:
        with store.transaction() as into:
            into.replace(".cvmfspublished", b"x")
            with pytest.raises(StorageError):
                into.delete([path])
        assert store.has(".cvmfspublished")


def test_in_a_directory_objects_appear_when_they_are_settled(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    store.prepare()
    with store.transaction() as into:
        into.put(named(b"one"), b"one")
        assert not store.has(named(b"one").path)
    with store.transaction() as into:
        into.settle()
    assert not store.has(named(b"one").path)


def test_a_directory_has_all_that_the_real_tools_want(tmp_path: Path) -> None:
    DirectoryStore(str(tmp_path)).prepare()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(
        [*(f"{number:02x}" for number in range(256)), "txn"]
    )


def test_objects_can_be_read_by_a_web_server(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    store.prepare()
    with store.transaction() as into:
        into.put(named(b"one"), b"one")
        into.settle()
        into.replace(".cvmfspublished", b"x")
    for path in (named(b"one").path, ".cvmfspublished"):
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o644


def test_directories_can_be_read_by_a_web_server_whatever_the_umask(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path / "storage"))
    old = os.umask(0o077)
    try:
        store.prepare()
        (tmp_path / "storage" / "data" / "07").chmod(0o700)  # of a creation that was killed
        store.prepare()
        with store.transaction() as into:
            (tmp_path / "storage" / os.path.dirname(named(b"one").path)).rmdir()
            into.put(named(b"one"), b"one")
            into.settle()
    finally:
        os.umask(old)
    assert {(path.stat().st_mode & 0o777) for path in (tmp_path / "storage" / "data").iterdir()} == {0o755}
    assert (tmp_path / "storage").stat().st_mode & 0o777 == 0o755


def test_the_objects_may_be_on_a_disk_of_their_own(tmp_path: Path) -> None:
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs two file systems, and there is no /dev/shm beside this one")
    other = tempfile.mkdtemp(dir="/dev/shm", prefix="headstart-test-")
    try:
        (tmp_path / "data").symlink_to(other)
        store = DirectoryStore(str(tmp_path))
        store.prepare()
        with store.transaction() as into:
            into.put(named(b"one"), b"one")
            into.settle()
            into.replace(".cvmfspublished", b"x")
        assert store.read(named(b"one").path, limit=3) == b"one"
        assert store.read(".cvmfspublished", limit=1) == b"x"
    finally:
        shutil.rmtree(other)


def test_a_transaction_sweeps_away_what_a_killed_one_left(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    store.prepare()
    left = tmp_path / "data" / "txn" / "headstart"
    left.mkdir()
    (left / "0").write_bytes(b"half")
    (tmp_path / ".headstart-new").write_bytes(b"half")
    foreign = tmp_path / "data" / "txn" / "tmpXYZ"
    foreign.write_bytes(b"of the real tools")
    with store.transaction() as into:
        into.settle()
    assert not left.exists()
    assert not (tmp_path / ".headstart-new").exists()
    assert foreign.exists()
