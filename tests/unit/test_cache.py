"""The node's cache: whose it may be, what a killed process leaves, what it remembers."""

import fcntl
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import releases
from headstart import cache as caches
from headstart import shortcut
from headstart.cache import Cache, write_atomically
from headstart.cvmfs.objects import Algorithm, Revision
from headstart.cvmfs.trust import Seen
from headstart.errors import CacheError
from headstart.holdername import boot_id
from headstart.memory import Memory
from headstart.names import Fqrn
from headstart.ownership import check_owner
from headstart.release import LinkRecord

FQRN = Fqrn("julia.example.org")
NOW = 1_800_000_000.0
ROOT = Algorithm.SHA1.digest(b"a catalog")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(str(tmp_path / "cache"), FQRN, uid=os.geteuid())
    made.prepare(NOW)
    return made


def top(cache: Cache) -> Path:
    return Path(cache.directory) / str(FQRN)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777])
def test_what_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "cache"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(CacheError, match="may be written by others") as caught:
        Cache(str(place), FQRN, uid=os.geteuid()).prepare(NOW)
    assert "chmod go-w" in caught.value.hint
    assert list(place.iterdir()) == []


def test_what_another_user_owns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    owner = (tmp_path / "cache").stat().st_uid
    if owner == 0:
        os.chown(tmp_path / "cache", 4321, 4321)
        owner = 4321
    with pytest.raises(CacheError, match=f"belongs to user {owner}"):
        check_owner(str(tmp_path / "cache"), uid=owner + 1)
    check_owner(str(tmp_path / "cache"), uid=owner)
    check_owner("/", uid=owner)


def test_inner_directories_are_checked_too(cache: Cache) -> None:
    top(cache).chmod(0o777)
    with pytest.raises(CacheError, match="may be written by others"):
        cache.check()


def test_a_place_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match=r"the cache cannot be written: .*file") as caught:
        Cache(str(tmp_path / "file" / "cache"), FQRN, uid=os.geteuid()).prepare(NOW)
    assert "--cache" in caught.value.hint


def test_a_unit_is_placed_as_a_whole(cache: Cache) -> None:
    content = b"hello"
    record = releases.record_of(content, 0o555)
    with cache.workplace() as work:
        descriptor, path = work.part()
        os.write(descriptor, content)
        work.keep(descriptor, path, record, 12345)
        os.close(descriptor)
        assert cache.has_file(record, 12345)
        assert not cache.has_file(record, 12346)
        assert not cache.has("stacks/jets/x")
        work.assemble(
            "stacks/jets/x",
            {"bin/program": (record, 12345)},
            {"bin/link": LinkRecord(target="program")},
            {"release.json": b"{}\n"},
        )
    assert cache.has("stacks/jets/x")
    place = Path(cache.place("stacks/jets/x"))
    assert (place / "bin/link").read_bytes() == content
    found = (place / "bin/program").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime, found.st_nlink) == (0o555, 12345, 2)
    assert stat.S_IMODE((place / "release.json").stat().st_mode) == 0o444
    assert list((top(cache) / "work").iterdir()) == []


def test_the_second_to_place_a_unit_loses_quietly(cache: Cache) -> None:
    for text in (b"first", b"second"):
        with cache.workplace() as work:
            work.assemble("julia/x", {}, {}, {"julia.json": text})
    assert (Path(cache.place("julia/x")) / "julia.json").read_bytes() == b"first"


def test_without_hard_links_files_are_copied(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_source: str, _place: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    record = releases.record_of(b"x")
    with cache.workplace() as work:
        descriptor, path = work.part()
        os.write(descriptor, b"x")
        work.keep(descriptor, path, record, 5)
        os.close(descriptor)
        monkeypatch.setattr(os, "link", refuse)
        work.assemble("julia/x", {"a": (record, 5)}, {}, {})
    found = (Path(cache.place("julia/x")) / "a").stat()
    assert (found.st_nlink, found.st_mtime, stat.S_IMODE(found.st_mode)) == (1, 5, 0o444)


def test_what_a_dead_process_left_is_cleared_and_what_a_living_one_has_is_not(cache: Cache) -> None:
    work = top(cache) / "work"
    host = os.uname().nodename
    dead, alive, young = (work / f"{host}.{name}" for name in ("dead", "alive", "young"))
    for place in (dead, alive):
        place.mkdir()
        (place / "part").write_text("x")
        (place / ".lock").touch()
    young.mkdir()
    os.utime(young, (NOW - 10, NOW - 10))
    elsewhere, old = work / "otherhost.1", work / "otherhost.2"
    elsewhere.mkdir()
    os.utime(elsewhere, (NOW - 3600, NOW - 3600))
    old.mkdir()
    os.utime(old, (NOW - 90_000, NOW - 90_000))
    with open(alive / ".lock", "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cache.prepare(NOW)
        assert {place.name for place in work.iterdir()} == {alive.name, young.name, elsewhere.name}
    cache.prepare(NOW + 100)
    assert {place.name for place in work.iterdir()} == {elsewhere.name}


def test_a_unit_counts_only_in_the_boot_that_placed_it(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    with cache.workplace() as work:
        work.assemble("julia/x", {}, {}, {"julia.json": b"{}"})
    assert cache.has("julia/x")
    monkeypatch.setattr(caches, "boot_id", lambda: "another")
    assert (cache.has("julia/x"), cache.exists("julia/x")) == (False, True)
    cache.vouch("julia/x")
    assert cache.has("julia/x")
    # Where the system does not say which boot this is, only what was hashed counts.
    monkeypatch.setattr(caches, "boot_id", lambda: "")
    with cache.workplace() as work:
        work.assemble("julia/y", {}, {}, {"julia.json": b"{}"})
    assert cache.has("julia/x")


def test_boot_ids_are_the_systems() -> None:
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip() != ""


seens = st.builds(
    Seen,
    revision=st.integers(0, 50).map(Revision),
    timestamp=st.integers(0, 2**40),
    root_catalog=st.sampled_from([None, ROOT]),
)
memories = st.builds(
    Memory,
    seen=st.none() | seens,
    channels=st.dictionaries(
        st.sampled_from(["jets/prod", "jets/test", "a/b"]), st.tuples(st.integers(0, 3), st.integers(1, 99))
    ),
)


@given(memories)
def test_memories_come_back(memory: Memory) -> None:
    assert Memory.from_bytes(memory.to_bytes()) == memory


@given(memories, memories)
def test_merging_never_goes_back(one: Memory, other: Memory) -> None:
    merged = one.merged(other)
    for memory in (one, other):
        if memory.seen is not None:
            assert merged.seen is not None
            assert merged.seen.revision >= memory.seen.revision
        for channel, age in memory.channels.items():
            assert merged.channels[channel] >= age
    assert merged.merged(merged) == merged
    assert Memory().merged(one) == one.merged(Memory()) == one


def test_memory_is_kept_per_key(cache: Cache) -> None:
    newer = Memory(seen=Seen(revision=Revision(7), timestamp=70), channels={"jets/prod": (1, 3)})
    older = Memory(seen=Seen(revision=Revision(5), timestamp=50), channels={"jets/prod": (1, 9)})
    cache.remember(["a" * 64], newer)
    cache.remember(["a" * 64], older)
    assert cache.recall(["a" * 64]) == Memory(seen=newer.seen, channels={"jets/prod": (1, 9)})
    assert cache.recall(["b" * 64]) == Memory()
    assert cache.recall(["b" * 64, "a" * 64]).seen == newer.seen


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seen": 3, "channels": {}}', '{"seen": null}'])
def test_a_damaged_memory_is_not_none(cache: Cache, text: str) -> None:
    (top(cache) / f"seen-{'a' * 16}.json").write_text(text)
    with pytest.raises(CacheError, match="is damaged") as caught:
        cache.recall(["a" * 64])
    assert "delete it" in caught.value.hint


def test_writing_replaces_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "file"
    write_atomically(str(place), b"one")

    def fail(_source: str, _place: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(str(place), b"two")
    assert place.read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_no_umask_lets_others_into_what_is_made(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        made = Cache(str(tmp_path / "a" / "b" / "cache"), FQRN, uid=os.geteuid())
        made.prepare(NOW)
        with made.workplace() as work:
            work.assemble("stacks/jets/x", {}, {}, {"deep/er/file": b"{}"})
            work.assemble("stacks/jets/x/images/y", {}, {}, {"sys.so": b"{}"})
        shortcut.save(str(tmp_path / "c" / "d"), shortcut.Question("q"), shortcut.Shortcut())
    finally:
        os.umask(before)
    places = [tmp_path / "a", *(tmp_path / "a").rglob("*"), tmp_path / "c", *(tmp_path / "c").rglob("*")]
    assert len(places) > 15
    assert [place for place in places if place.stat().st_mode & 0o022] == []


def test_a_unit_is_one_digests_only(cache: Cache) -> None:
    with cache.workplace() as work:
        work.assemble("julia/x", {}, {}, {"julia.json": b"{}"}, "ab" * 32)
    assert cache.has("julia/x", "ab" * 32)
    assert not cache.has("julia/x", "cd" * 32)
    assert cache.digest_of("julia/x") == "ab" * 32
    cache.vouch("julia/x", "cd" * 32)
    assert (cache.has("julia/x", "ab" * 32), cache.has("julia/x", "cd" * 32)) == (False, True)


def test_a_place_that_anybody_can_exchange_is_refused(tmp_path: Path) -> None:
    open_place = tmp_path / "open"
    open_place.mkdir()
    made = Cache(str(open_place / "cache"), FQRN, uid=os.geteuid())
    made.prepare(NOW)
    open_place.chmod(0o777)
    with pytest.raises(CacheError, match=r"open may be written by others"):
        made.check()
    # As /tmp is: what is mine there can only be moved by me.
    open_place.chmod(0o1777)
    made.check()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make directories of two users")
def test_a_directory_for_all_is_roots(tmp_path: Path) -> None:
    """Its owner can exchange everything in it; in a container without root, root is seen as nobody."""
    everybodys = tmp_path / "all"
    everybodys.mkdir()
    everybodys.chmod(0o1777)
    own = everybodys / "4321"
    own.mkdir()
    os.chown(own, 4321, 4321)
    made = Cache(str(own), FQRN, uid=4321)
    assert made.shared == str(everybodys)
    for owner, fine in ((0, True), (4321, True), (65534, True), (4322, False)):
        os.chown(everybodys, owner, owner)
        if fine:
            made.check()
        else:
            with pytest.raises(CacheError, match="belongs to user 4322"):
                made.check()
    everybodys.chmod(0o755)
    assert made.shared == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make directories of two users")
def test_root_takes_no_cache_below_another_users_directory(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    made = Cache(str(home / "cache"), FQRN, uid=0)
    made.prepare(NOW)
    os.chown(home, 4321, 4321)
    with pytest.raises(CacheError, match="belongs to user 4321"):
        made.check()
