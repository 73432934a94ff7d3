"""Hydration: what is planned, and that nothing wrong is ever placed, whatever the source hands out."""

import errno
import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import releases
from headstart import cache as caches
from headstart.cache import Cache
from headstart.cvmfs.entry import Chunk, ChunkedFile, Compression, Directory, Entry, File, Stat, Symlink
from headstart.cvmfs.objects import Algorithm, Kind, ObjectName
from headstart.errors import CacheError, CorruptError, Error, MissingError, UnavailableError, UnknownError
from headstart.hydrate import Hydration, Verified, apply, lacking, needed, plan, read_julia, units
from headstart.names import JuliaName, Sha256
from headstart.release import ImageRecord, JuliaTree, LinkRecord, PackageImages, Release, SystemImage
from headstart.stratum import Sink

CHUNK = 6997  # no part of a repetitive file is like another


@dataclass
class MemorySource:
    """A repository in memory: entries by path, objects by name; and what it does instead of serving."""

    entries: dict[bytes, Entry] = field(default_factory=dict)
    objects: dict[ObjectName, bytes] = field(default_factory=dict)
    served: list[ObjectName] = field(default_factory=list)
    change: Callable[[ObjectName, bytes], bytes] = lambda _name, stored: stored
    """What comes in the place of an object, from wherever it is asked for."""
    stale: dict[ObjectName, bytes] = field(default_factory=dict)
    """What a cache on the way has in its place."""
    again: list[ObjectName] = field(default_factory=list)
    """What was asked for past the caches."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def lookup(self, path: bytes) -> Entry:
        if path not in self.entries:
            raise UnknownError(f"there is no {path!r}")
        return self.entries[path]

    def pour(self, name: ObjectName, sink: Sink, *, limit: int) -> None:
        with self.lock:
            self.served.append(name)
        self._pour(self.stale.get(name) or self._answer(name), sink, limit)

    def pour_again(self, name: ObjectName, sink: Sink, *, limit: int) -> None:
        with self.lock:
            self.again.append(name)
        stored = self._answer(name)
        self._pour(stored, sink, limit)
        name.check(stored)

    def _answer(self, name: ObjectName) -> bytes:
        if name not in self.objects:
            raise MissingError(f"{name} is not there")
        return self.change(name, self.objects[name])

    def _pour(self, stored: bytes, sink: Sink, limit: int) -> None:
        sink.begin()
        for at in range(0, len(stored), 1000):
            if at + 1000 > limit and len(stored) > limit:
                raise CorruptError(f"it is longer than {limit}")
            sink.take(stored[at : at + 1000])

    def put(self, content: bytes, kind: Kind, compression: Compression = Compression.ZLIB) -> ObjectName:
        stored = zlib.compress(content) if compression is Compression.ZLIB else content
        name = ObjectName(digest=Algorithm.SHA1.digest(stored), kind=kind)
        self.objects[name] = stored
        return name

    def add_file(self, path: str, content: bytes, compression: Compression = Compression.ZLIB) -> None:
        stat = Stat(mode=0o444, mtime=1_000_000_000)
        name = os.path.basename(path).encode()
        if len(content) <= CHUNK:
            digest = self.put(content, Kind.FILE, compression).digest
            self.entries[path.encode()] = File(
                name=name, stat=stat, size=len(content), digest=digest, compression=compression
            )
            return
        chunks = tuple(
            Chunk(
                offset=at,
                size=len(content[at : at + CHUNK]),
                digest=self.put(content[at : at + CHUNK], Kind.CHUNK, compression).digest,
            )
            for at in range(0, len(content), CHUNK)
        )
        self.entries[path.encode()] = ChunkedFile(
            name=name, stat=stat, size=len(content), chunks=chunks, compression=compression
        )


@dataclass
class World:
    """A release in memory, and a cache to bring it to."""

    source: MemorySource
    verified: Verified
    cache: Cache
    contents: dict[str, bytes]

    @property
    def release(self) -> Release:
        return self.verified.release

    def plan(self, target: str = "x86-64-v3") -> Hydration:
        image = next(image for image in self.release.images if image.target == target)
        return plan(self.source, self.verified, image, have=self.cache.has)

    def apply(self, target: str = "x86-64-v3", workers: int = 4) -> None:
        self.cache.prepare(1_800_000_000.0)
        apply(self.plan(target), self.source, self.cache, workers=workers)

    def placed(self) -> dict[str, bytes]:
        """What stands under the cache's root, by path in the repository."""
        root = Path(self.cache.root)
        return {
            f"/{path.relative_to(root)}": path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and not path.is_symlink()
        }

    def assert_nothing_wrong(self) -> None:
        for path, content in self.placed().items():
            assert content == self.contents[path], path
        for place in (Path(self.cache.directory) / str(self.release.fqrn) / "files").rglob("*"):
            if place.is_file():
                assert hashlib.sha256(place.read_bytes()).hexdigest() == place.name.split(".")[0]
        assert list((Path(self.cache.directory) / str(self.release.fqrn) / "work").iterdir()) == []


def make_world(tmp_path: Path, name: str = "stage", extra: Mapping[str, bytes] | None = None) -> World:
    stage = tmp_path / name
    made = releases.write_stage(stage, image_size=60_000, extra=extra)
    source = MemorySource()
    contents = {}
    for path in sorted(stage.rglob("*")):
        name = f"/{path.relative_to(stage)}"
        if path.is_symlink():
            target = os.readlink(path).encode()
            source.entries[name.encode()] = Symlink(
                name=path.name.encode(), stat=Stat(mode=0o777, mtime=0), target=target
            )
        elif path.is_dir():
            source.entries[name.encode()] = Directory(name=path.name.encode(), stat=Stat(mode=0o755, mtime=0))
        else:
            contents[name] = path.read_bytes()
            plain = Compression.NONE if path.name == "Base.jl" else Compression.ZLIB
            source.add_file(name, contents[name], plain)
    julia_bytes = contents[f"/julia/{made.julia}/julia.json"]
    verified = Verified(
        release=made,
        release_bytes=made.to_bytes(),
        julia=read_julia(made, julia_bytes),
        julia_bytes=julia_bytes,
    )
    cache = Cache(str(tmp_path / "cache"), made.fqrn, uid=os.geteuid())
    return World(source, verified, cache, contents)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def test_what_a_thief_published_under_the_same_id_does_not_stay(tmp_path: Path) -> None:
    """A release id names inputs, not bytes: only the digest says whether a unit is the one that is meant."""
    bad = make_world(tmp_path, "bad", {"project/LocalPreferences.toml": b"bad", "depot/x": b"bad"})
    bad.apply()
    good = make_world(tmp_path, "good")
    assert good.release.id == bad.release.id
    assert not any(good.plan().units[at].unit == f"julia/{good.release.julia}" for at in (0, 1))
    good.apply()
    assert not any("bad" in text for text in map(repr, good.placed().values()))
    assert f"/stacks/jets/{good.release.id}/depot/x" not in good.placed()
    good.assert_nothing_wrong()
    good.source.served.clear()
    good.apply()
    assert good.source.served == []


def test_a_julia_must_have_the_name_of_its_digest(world: World) -> None:
    other = replace(world.release, julia=JuliaName("1.5.3-ffffffffffff"))
    with pytest.raises(CorruptError, match="ffffffffffff"):
        read_julia(other, world.verified.julia_bytes)


def test_only_what_the_image_needs_is_fetched_and_all_of_it_is_right(world: World) -> None:
    world.apply()
    placed = world.placed()
    julia = f"/julia/{world.release.julia}"
    home = f"/stacks/jets/{world.release.id}"
    skipped = {
        f"{julia}/lib/julia/sys.so",
        f"{julia}/share/doc/julia/index.html",
        f"{julia}/include/julia/julia.h",
        f"{julia}/share/julia/test/runtests.jl",
        f"{home}/images/x86-64/sys.so",
    }
    markers = {f"{julia}/.cvmfscatalog", f"{home}/.cvmfscatalog"}
    assert set(placed) == set(world.contents) - skipped - markers
    world.assert_nothing_wrong()
    root = Path(world.cache.root)
    assert os.readlink(root / julia[1:] / "lib" / "libjulia.so") == "libjulia.so.1"
    program = root / julia[1:] / "bin" / "julia"
    assert program.stat().st_mode & 0o7777 == 0o555
    assert program.stat().st_mtime == 1_000_000_000
    assert len(world.source.served) == len(set(world.source.served))


def test_a_second_image_fetches_only_itself(world: World) -> None:
    world.apply("x86-64")
    world.source.served.clear()
    assert [unit.unit for unit in world.plan("x86-64-v3").units] == [
        units(world.release, world.release.images[1])[2]
    ]
    world.apply("x86-64-v3")
    chunks = world.source.entries[f"/stacks/jets/{world.release.id}/images/x86-64-v3/sys.so".encode()]
    assert isinstance(chunks, ChunkedFile)
    assert len(world.source.served) <= len(chunks.chunks)
    assert world.plan("x86-64").units == world.plan("x86-64-v3").units == ()
    world.assert_nothing_wrong()


def test_files_that_are_there_are_not_fetched_again(world: World) -> None:
    world.apply()
    for unit in units(world.release, world.release.images[1])[:1]:
        caches._remove(world.cache.place(unit))
    world.source.served.clear()
    world.apply()
    assert world.source.served == []
    world.assert_nothing_wrong()


@pytest.mark.parametrize("wrong", [lambda _content: b"short", lambda content: bytes(len(content))])
def test_a_file_that_was_damaged_behind_our_back_is_fetched_again(
    world: World, wrong: Callable[[bytes], bytes]
) -> None:
    world.apply()
    files = Path(world.cache.directory) / str(world.release.fqrn) / "files"
    victim = max((path for path in files.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(wrong(content))
    for unit in reversed(units(world.release, world.release.images[1])):
        caches._remove(world.cache.place(unit))
    world.apply()
    world.assert_nothing_wrong()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_after_another_boot_a_unit_is_hashed_and_fetched_again_if_it_suffered(
    world: World, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    world.apply()
    everything = units(world.release, world.release.images[1])
    world.source.served.clear()
    monkeypatch.setattr(caches, "boot_id", lambda: "another boot")
    assert not any(world.cache.has(unit) for unit in everything)
    world.apply()
    assert world.source.served == []
    assert all(world.cache.has(unit) for unit in everything)
    monkeypatch.setattr(caches, "boot_id", lambda: "a third boot")
    assert all(world.cache.has(unit) for unit in everything)
    # What a power cut may leave: the name, the size, and nothing in it.
    for unit in everything:
        (Path(world.cache.directory) / str(world.release.fqrn) / "placed" / unit.replace("/", "_")).unlink()
    name = ("share/julia/base/Base.jl", "project/Project.toml", "sys.so")[which]
    victim = Path(world.cache.place(everything[which])) / name
    size = victim.stat().st_size
    victim.chmod(0o644)
    victim.write_bytes(bytes(size))
    world.apply()
    assert world.source.served
    assert all(world.cache.has(unit) for unit in everything) or which == 1
    world.apply()
    assert all(world.cache.has(unit) for unit in everything)
    world.assert_nothing_wrong()


def _flip(name: ObjectName, stored: bytes) -> bytes:
    return stored[:-1] + bytes([stored[-1] ^ 1])


@pytest.mark.parametrize("victim", ["images/x86-64-v3/sys.so", "project/Project.toml", "bin/julia"])
@pytest.mark.parametrize(
    ("damage", "family"),
    [
        (_flip, CorruptError),
        (lambda _name, stored: stored[: len(stored) // 2], CorruptError),
        (lambda _name, _stored: b"<html>Please log in</html>", CorruptError),
        (lambda _name, stored: stored + bytes(1 << 20), CorruptError),
    ],
    ids=["flipped", "cut", "html", "longer"],
)
def test_damaged_objects_are_never_placed(
    world: World, victim: str, damage: Callable[[ObjectName, bytes], bytes], family: type[Error]
) -> None:
    path = f"/stacks/jets/{world.release.id}/{victim}".encode()
    entry = world.source.entries[path]
    name = (
        ObjectName(digest=entry.chunks[-1].digest, kind=Kind.CHUNK)
        if isinstance(entry, ChunkedFile)
        else ObjectName(digest=entry.digest, kind=Kind.FILE)
        if isinstance(entry, File)
        else None
    )
    world.source.change = lambda asked, stored: damage(asked, stored) if asked == name else stored
    with pytest.raises(family):
        world.apply()
    world.assert_nothing_wrong()
    unit = units(world.release, world.release.images[1])[2 if victim.startswith("images") else 1]
    assert not world.cache.has(unit)
    world.source.change = lambda _asked, stored: stored
    world.apply()
    assert world.cache.has(unit)
    world.assert_nothing_wrong()


def chunks_of_the_image(world: World) -> list[ObjectName]:
    entry = world.source.entries[f"/stacks/jets/{world.release.id}/images/x86-64-v3/sys.so".encode()]
    assert isinstance(entry, ChunkedFile)
    return [ObjectName(digest=chunk.digest, kind=Kind.CHUNK) for chunk in entry.chunks]


@pytest.mark.parametrize("which", [0, 3, -1])
def test_one_that_a_cache_on_the_way_has_damaged_is_asked_for_again_alone(world: World, which: int) -> None:
    victim = chunks_of_the_image(world)[which]
    world.source.stale[victim] = world.source.objects[victim][:-1] + b"!"
    world.apply()
    world.assert_nothing_wrong()
    assert world.source.again == [victim]


@pytest.mark.parametrize("which", [0, 3, -1])
def test_a_lie_of_the_right_size_is_found_by_the_file_and_its_parts_are_asked_for_again(
    world: World, which: int
) -> None:
    """Another object's bytes, well compressed: nothing but the SHA-256 of the file is against them."""
    names = chunks_of_the_image(world)
    victim = names[which]
    content = zlib.decompress(world.source.objects[victim])
    world.source.stale[victim] = zlib.compress(content[::-1])
    told: list[int] = []
    world.cache.prepare(1_800_000_000.0)
    planned = world.plan()
    apply(planned, world.source, world.cache, workers=2, progress=told.append)
    world.assert_nothing_wrong()
    assert sorted(world.source.again, key=str) == sorted(names, key=str)
    assert sum(told) == planned.size


def test_a_lie_of_the_right_size_that_stays_is_never_placed(world: World) -> None:
    victim = chunks_of_the_image(world)[3]
    lie = zlib.compress(zlib.decompress(world.source.objects[victim])[::-1])
    world.source.change = lambda name, stored: lie if name == victim else stored
    with pytest.raises(CorruptError, match=f"{victim}"):
        world.apply()
    world.assert_nothing_wrong()
    assert not world.cache.has(units(world.release, world.release.images[1])[2])


def test_a_file_that_is_cut_short_while_it_is_put_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    # Only what did not come in order is read back: the first part has to come late.
    late, _, third, *_ = chunks_of_the_image(world)
    second_is_there = threading.Event()

    def slowly(name: ObjectName, stored: bytes) -> bytes:
        if name == late:
            assert second_is_there.wait(5)
        if name == third:
            second_is_there.set()
        return stored

    world.source.change = slowly
    with pytest.raises(CacheError, match="cut short"):
        world.apply(workers=2)
    monkeypatch.undo()
    world.source.change = lambda _name, stored: stored
    world.apply()
    world.assert_nothing_wrong()


def test_an_object_that_inflates_too_far_is_refused(world: World) -> None:
    path = f"/stacks/jets/{world.release.id}/project/Project.toml".encode()
    entry = world.source.entries[path]
    assert isinstance(entry, File)
    bomb = world.source.put(bytes(5000), Kind.FILE)
    world.source.entries[path] = replace(entry, digest=bomb.digest)
    with pytest.raises(CorruptError, match=f"inflates to more than the {entry.size} bytes"):
        world.apply()
    world.assert_nothing_wrong()


def test_a_catalog_that_names_other_content_is_found_by_the_releases_own_hash(world: World) -> None:
    path = f"/stacks/jets/{world.release.id}/images/x86-64-v3/sys.so".encode()
    content = world.contents[path.decode()]
    world.source.add_file(path.decode(), content[:-1] + b"!")
    with pytest.raises(CorruptError, match="does not have the SHA-256 that the release records"):
        world.apply()
    world.assert_nothing_wrong()


def test_a_missing_object_and_a_silent_source_keep_their_families(world: World) -> None:
    entry = world.source.entries[f"/stacks/jets/{world.release.id}/images/x86-64-v3/sys.so".encode()]
    assert isinstance(entry, ChunkedFile)
    name = ObjectName(digest=entry.chunks[3].digest, kind=Kind.CHUNK)
    stored = world.source.objects.pop(name)
    with pytest.raises(MissingError):
        world.apply()
    world.source.objects[name] = stored

    def silent(_name: ObjectName, _stored: bytes) -> bytes:
        raise UnavailableError("the source does not answer")

    world.source.change = silent
    with pytest.raises(UnavailableError):
        world.apply()
    world.assert_nothing_wrong()


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_parts_that_come_in_any_order_make_the_same_file(world: World, workers: int) -> None:
    # The first part of every file comes last: all others have to wait, more than are held in memory.
    firsts = {
        entry.chunks[0].digest: len(entry.chunks)
        for entry in world.source.entries.values()
        if isinstance(entry, ChunkedFile)
    }
    others = threading.Semaphore(0)

    def slowly(name: ObjectName, stored: bytes) -> bytes:
        if name.digest in firsts and workers > 1:
            others.acquire(timeout=0.2)
        else:
            others.release()
        return stored

    world.source.change = slowly
    world.apply(workers=workers)
    world.assert_nothing_wrong()


def test_records_that_the_catalogs_do_not_have_are_missing(world: World) -> None:
    del world.source.entries[f"/stacks/jets/{world.release.id}/project/Project.toml".encode()]
    with pytest.raises(MissingError, match=r"project/Project\.toml is recorded in the release"):
        world.plan()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("depot/evil", "/etc/passwd"),
        ("depot/evil", "../../../../x"),
        ("depot/evil", "../.."),
        ("depot/evil", "packages/.."),
        ("depot/evil", "../depot/current/../../.."),
    ],
)
def test_links_that_may_lead_out_are_refused(world: World, path: str, target: str) -> None:
    evil = replace(world.release, files={**world.release.files, path: LinkRecord(target=target)})
    world.verified = replace(world.verified, release=evil)
    where = f"/stacks/jets/{world.release.id}/{path}".encode()
    world.source.entries[where] = Symlink(name=b"evil", stat=Stat(mode=0o777, mtime=0), target=target.encode())
    with pytest.raises(CorruptError, match="may lead out of its tree"):
        world.plan()


def test_a_file_below_a_link_is_refused(world: World) -> None:
    below = "depot/current/x"
    evil = replace(world.release, files={**world.release.files, below: releases.record_of(b"x")})
    world.verified = replace(world.verified, release=evil)
    world.source.add_file(f"/stacks/jets/{world.release.id}/{below}", b"x")
    with pytest.raises(CorruptError, match="recorded as no directory"):
        world.plan()


def test_catalog_and_record_must_agree(world: World) -> None:
    path = f"/stacks/jets/{world.release.id}/project/Project.toml".encode()
    entry = world.source.entries[path]
    assert isinstance(entry, File)
    for other in (
        replace(entry, size=entry.size + 1),
        Symlink(name=b"Project.toml", stat=entry.stat, target=b"x"),
        ChunkedFile(name=entry.name, stat=entry.stat, size=entry.size, chunks=()),
        ChunkedFile(
            name=entry.name,
            stat=entry.stat,
            size=entry.size,
            chunks=(Chunk(offset=1, size=entry.size - 1, digest=entry.digest),),
        ),
    ):
        world.source.entries[path] = other
        with pytest.raises(CorruptError, match=r"Project\.toml"):
            world.plan()


def test_another_julia_than_the_releases_is_refused(world: World) -> None:
    other = replace(world.verified.julia, version="1.5.4")
    with pytest.raises(CorruptError, match="is not the one that jets"):
        read_julia(world.release, other.to_bytes())
    assert isinstance(read_julia(world.release, world.verified.julia_bytes), JuliaTree)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_failing_disk_is_one_error_and_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.pwrite
    calls = []

    def failing(descriptor: int, data: bytes, offset: int) -> int:
        calls.append(offset)
        if len(calls) > 5:
            raise OSError(number, os.strerror(number))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", failing)
    with pytest.raises(CacheError, match="the cache cannot be written"):
        world.apply()
    monkeypatch.undo()
    world.assert_nothing_wrong()
    world.apply()
    world.assert_nothing_wrong()


def test_many_at_once_work_once(world: World) -> None:
    world.cache.prepare(0.0)
    failures: list[Error] = []

    def one() -> None:
        try:
            own = Cache(world.cache.directory, world.release.fqrn, uid=os.geteuid())
            apply(plan(world.source, world.verified, world.release.images[1], have=own.has), world.source, own)
        except Error as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(world.source.served) == len(set(world.source.served))
    world.assert_nothing_wrong()


def test_an_image_outside_its_place_is_refused(world: World) -> None:
    moved = replace(world.release.images[1], code=SystemImage(path="depot/sys.so", size=1))
    said = replace(world.release, images=(moved,)).to_bytes()
    with pytest.raises(CorruptError, match=r"is at depot/sys\.so, not below images/"):
        Release.from_bytes(said)


def test_a_julia_is_fetched_whole_only_where_its_own_image_is_used(world: World) -> None:
    own = world.release.images[0]
    stock = replace(own, code=PackageImages(path=own.directory, size=1, count=1))

    def julia(image: ImageRecord) -> set[str]:
        planned = plan(world.source, world.verified, image, have=world.cache.has)
        return {path for unit in planned.units if unit.unit.startswith("julia/") for path in unit.files}

    assert julia(stock) - julia(own) == {"lib/julia/sys.so"}
    digest = Sha256.of(world.verified.release_bytes)
    world.cache.prepare(1_800_000_000.0)
    apply(plan(world.source, world.verified, own, have=world.cache.has), world.source, world.cache)
    assert lacking(needed(world.release, digest, own), world.cache.has) == ()
    # The part that is here does not do for the other kind; that one fetches what is missing, and does for both.
    assert julia(stock)
    apply(plan(world.source, world.verified, stock, have=world.cache.has), world.source, world.cache)
    assert lacking(needed(world.release, digest, stock), world.cache.has) == ()
    assert lacking(needed(world.release, digest, own), world.cache.has) == ()
    served = world.source.served
    assert len(served) == len(set(served))


def test_sizes_are_of_what_is_missing(world: World) -> None:
    planned = world.plan()
    sizes = {item.record.sha256: item.record.size for item in planned.wanted()}
    assert planned.size == sum(sizes.values()) > 60_000
    world.apply()
    assert world.plan().size == 0


def test_files_are_fetched_in_the_order_in_which_a_start_opened_them(world: World) -> None:
    julia, home, image = units(world.release, world.release.images[1])
    opened = (f"{julia}/share/julia/base/Base.jl", f"{julia}/bin/julia", f"{home}/project/Manifest.toml", "x/y")
    release = replace(world.release, opened=opened)
    world.verified = replace(world.verified, release=release, release_bytes=release.to_bytes())
    planned = {unit.unit: list(unit.files) for unit in world.plan().units}
    assert planned[julia] == ["share/julia/base/Base.jl", "bin/julia", "lib/libjulia.so.1"]
    assert planned[home][0] == "project/Manifest.toml"
    rest = [world.plan().units[1].files[path].record.size for path in planned[home][1:]]
    assert rest == sorted(rest, reverse=True)
    assert planned[image] == ["sys.so"]
    world.apply(workers=1)
    first = world.source.entries[f"/{opened[0]}".encode()]
    assert isinstance(first, File)
    assert world.source.served[0].digest == first.digest
