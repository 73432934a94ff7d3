"""Hydration: bring what one image of a release needs into the node's cache, verified.

Theory of operation. ``plan`` is pure: it takes the records of a release and its Julia, drops what a launch does
not need (other images, the stock system image, manuals, headers, tests), looks every remaining file up in the
verified catalogs, and says which objects that takes. ``apply`` fetches them with several threads, in pieces
that go through one after the other, so that memory holds some pieces and no object: each is inflated no further
than the catalog says, and written at its offset. Each file's SHA-256 is computed in the order of its bytes and
must be the one that the release records. Only then does the file get its name in the cache, and only when all
of a unit's files are there, the unit its place.

The SHA-256 comes from ``release.json``, which is itself compared with its name in the repository's signed
catalogs and with the digest that the channel or a statement signs: it vouches for every byte, so an object is
not hashed for its own name, too (SHA-1 or SHAKE-128, which is 6 to 8 % of the work). Only where an object does
not inflate to its size, or a file does not have its SHA-256, names are compared: they say whose copy is the
damaged one, and it is asked for past the caches on the way and from the other servers (docs/adr/0020).
"""

import hashlib
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from headstart.arrival import Arrival, Landing, Part, Wanted
from headstart.cache import Cache, Workplace, cache_errors
from headstart.cvmfs.entry import ChunkedFile, Compression, Entry, File, Symlink
from headstart.cvmfs.objects import Digest, Kind, ObjectName
from headstart.errors import CorruptError, MissingError, UnknownError
from headstart.launchfiles import WITH_STOCK, julia_files, unit_files
from headstart.names import Sha256
from headstart.neighbours import Neighbours
from headstart.parallel import in_parallel, looking_ahead
from headstart.release import (
    JULIA_FILE,
    RELEASE_FILE,
    FileRecord,
    ImageRecord,
    JuliaTree,
    LinkRecord,
    Record,
    Release,
)
from headstart.stratum import Sink
from headstart.wording import counted

WORKERS: Final = 6
"""Threads that fetch, at most: more than cores where they wait for the network."""
_LARGE: Final = 8 << 20
"""Bytes of content from which a part is large: most chunks have no more than half of it."""


Needed = tuple[tuple[str, tuple[str, ...]], ...]
"""Units of a cache, each with the digests of which it may be, the least first."""


_Fetch = Callable[[Arrival, Part, Callable[[], Part | None]], None]
"""Brings a part, and may ask which one this thread brings next."""


class Source(Protocol):
    """Where a plan's entries and a hydration's objects come from: a verified state of a repository."""

    def lookup(self, path: bytes) -> Entry:
        """The entry at a path; UnknownError when there is none."""

    def pour(self, name: ObjectName, sink: Sink, *, limit: int) -> None:
        """What comes for an object, not compared with its name; safe from several threads."""

    def pour_again(self, name: ObjectName, sink: Sink, *, limit: int) -> None:
        """An object's bytes past all caches, which are its name's when this returns; likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPlan:
    """A directory that appears in the cache as a whole."""

    unit: str
    digest: str
    """SHA-256, in hexadecimal, of the record that lists its files."""
    files: Mapping[str, Wanted]
    """By path inside the unit, in the order in which they are fetched."""
    links: Mapping[str, LinkRecord]
    extra: Mapping[str, bytes]
    """Small files whose bytes are known already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hydration:
    """Everything that is missing for a launch."""

    units: tuple[UnitPlan, ...]

    @property
    def size(self) -> int:
        """Bytes of content that have to be fetched at most."""
        return sum({item.record.sha256: item.record.size for item in self.wanted()}.values())

    def wanted(self) -> Iterator[Wanted]:
        """All files of all units."""
        for unit in self.units:
            yield from unit.files.values()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A release and its Julia as read from the repository, both by digest."""

    release: Release
    release_bytes: bytes
    julia: JuliaTree
    julia_bytes: bytes


def units(release: Release, image: ImageRecord) -> tuple[str, str, str]:
    """The units that a launch needs: Julia, the release without images, the image."""
    home = f"stacks/{release.stack}/{release.id}"
    return f"julia/{release.julia}", home, f"{home}/{image.directory}"


def needed(release: Release, digest: Sha256, image: ImageRecord) -> Needed:
    """The units that a launch needs, each with the digests of which it may be; the first is the least of them.

    A Julia is in a cache in part, or with its own system image and compiled packages too.

    Args:
        release: what is to be started.
        digest: its own.
        image: the chosen one.
    """
    julia, home, inside = units(release, image)
    whole = release.julia_digest.hex + WITH_STOCK
    return (
        (julia, (release.julia_digest.hex, whole) if image.system else (whole,)),
        (home, (digest.hex,)),
        (inside, (digest.hex,)),
    )


def lacking(wanted: Needed, have: Callable[[str, str], bool]) -> tuple[tuple[str, str], ...]:
    """The units of ``needed`` that are not there, each with the least digest that will do."""
    return tuple((unit, digests[0]) for unit, digests in wanted if not any(have(unit, one) for one in digests))


def read_julia(release: Release, data: bytes) -> JuliaTree:
    """Believe the ``julia.json`` of a release's Julia.

    Raises:
        CorruptError: it is not the one that the release names, or has another's name.
    """
    if Sha256.of(data) != release.julia_digest:
        raise CorruptError(
            f"{release.julia_path}/{JULIA_FILE} is not the one that {release.stack} {release.id} names"
        )
    tree = JuliaTree.from_bytes(data)
    # Other releases take what they find under this name for theirs.
    if tree.name != release.julia:
        raise CorruptError(f"{release.julia_path}/{JULIA_FILE} is that of {tree.name}")
    return tree


def plan(
    source: Source, verified: Verified, image: ImageRecord, *, have: Callable[[str, str], bool]
) -> Hydration:
    """Say what has to be fetched before this image can be started.

    Args:
        source: a verified state of the repository.
        verified: the release and its Julia.
        image: the one that was chosen.
        have: which units are in the cache, by name and digest.

    Raises:
        CorruptError: records and catalogs contradict each other, or a path or a link leads out of its tree.
        MissingError: the catalogs lack a file that the records name.
    """
    release = verified.release
    julia_unit, home, image_unit = units(release, image)
    chosen = {
        julia_unit: (julia_files(verified.julia, stock=not image.system), {JULIA_FILE: verified.julia_bytes}),
        home: (unit_files(release, ""), {RELEASE_FILE: verified.release_bytes}),
        image_unit: (unit_files(release, image.directory), {}),
    }
    wanted = needed(release, Sha256.of(verified.release_bytes), image)
    return Hydration(
        units=tuple(
            _in_order(_plan_unit(source, named, *chosen[named[0]]), release.opened)
            for named in lacking(wanted, have)
        )
    )


def _in_order(unit: UnitPlan, opened: tuple[str, ...]) -> UnitPlan:
    """The same with its files in the order in which they are fetched: as a start opened them, then the rest.

    Of the rest large files come first, so that the last thread is not left alone with one.
    """
    rank = {path: number for number, path in enumerate(opened)}

    def key(item: tuple[str, Wanted]) -> tuple[int, int]:
        return rank.get(f"{unit.unit}/{item[0]}", len(rank)), -item[1].record.size

    return replace(unit, files=dict(sorted(unit.files.items(), key=key)))


def _plan_unit(
    source: Source, named: tuple[str, str], records: Mapping[str, Record], extra: Mapping[str, bytes]
) -> UnitPlan:
    unit, digest = named
    files: dict[str, Wanted] = {}
    links: dict[str, LinkRecord] = {}
    directories = {""}
    for path, record in records.items():
        where = f"/{unit}/{path}"
        parent = posixpath.dirname(path)
        while parent not in directories:
            if parent in records or parent in extra:
                raise CorruptError(f"{where} is below {parent}, which is recorded as no directory")
            directories.add(parent)
            parent = posixpath.dirname(parent)
        if path in extra:
            raise CorruptError(f"{where} is recorded as a file of the release, which it cannot be")
        entry = _lookup(source, where)
        if isinstance(record, LinkRecord):
            _check_link(where, path, record, entry)
            links[path] = record
        else:
            files[path] = _wanted(where, record, entry)
    return UnitPlan(unit=unit, digest=digest, files=files, links=links, extra=extra)


def _lookup(source: Source, where: str) -> Entry:
    try:
        return source.lookup(where.encode())
    except UnknownError as error:
        raise MissingError(
            f"{where} is recorded in the release, but the repository does not have it"
        ) from error


def _check_link(where: str, path: str, record: LinkRecord, entry: Entry) -> None:
    if not isinstance(entry, Symlink) or entry.target != record.target.encode():
        raise CorruptError(
            f"{where} is recorded as a link to {record.target!r}, and the catalog says otherwise"
        )
    parts = record.target.split("/")
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    # Beyond the leading ones, ".." behind another link could lead anywhere.
    if (
        record.target.startswith("/")
        or ".." in parts[climbs:]
        or climbs > path.count("/")
        or "\0" in record.target
    ):
        raise CorruptError(f"{where} is a link to {record.target!r}, which may lead out of its tree")


def _wanted(where: str, record: FileRecord, entry: Entry) -> Wanted:
    parts: tuple[Part, ...]
    match entry:
        case File():
            parts = (_part(entry.digest, Kind.FILE, 0, entry.size, entry.compression),)
        case ChunkedFile():
            parts = tuple(
                _part(chunk.digest, Kind.CHUNK, chunk.offset, chunk.size, entry.compression)
                for chunk in sorted(entry.chunks, key=lambda chunk: chunk.offset)
            )
        case _:
            raise CorruptError(f"{where} is recorded as a file, and the catalog says otherwise")
    if entry.size != record.size:
        raise CorruptError(
            f"{where} has {counted(entry.size, 'byte')} in the catalog, and {record.size} in its record"
        )
    reached = 0
    for part in parts:
        if part.offset != reached:
            raise CorruptError(f"{where} has a gap or an overlap between its chunks at {reached}")
        reached += part.size
    if reached != record.size:
        raise CorruptError(f"{where} has {counted(record.size, 'byte')}, and its chunks end at {reached}")
    return Wanted(path=where, record=record, mtime=entry.stat.mtime, parts=parts)


def _part(digest: Digest, kind: Kind, offset: int, size: int, compression: Compression) -> Part:
    return Part(name=ObjectName(digest=digest, kind=kind), offset=offset, size=size, compression=compression)


def apply(
    hydration: Hydration,
    source: Source,
    cache: Cache,
    *,
    workers: int = WORKERS,
    progress: Callable[[int], None] = lambda _size: None,
) -> None:
    """Bring a plan's units into the cache. Several processes may do so at once; one of them works.

    Args:
        hydration: the plan.
        source: where the objects come from.
        cache: prepared.
        workers: threads.
        progress: told bytes of content as they arrive; called from several threads.

    Raises:
        CorruptError: an object or a file is not what it should be. Nothing of it is kept.
        MissingError, UnavailableError: as the source says.
        CacheError: the cache cannot be written.
    """
    for unit in hydration.units:
        with cache.lock(unit.unit):
            if cache.has(unit.unit, unit.digest):
                continue
            with cache.workplace() as work, cache_errors(work.path):
                if cache.exists(unit.unit):
                    # One that was placed for another digest may have files that this one does not know.
                    known = cache.digest_of(unit.unit) == unit.digest
                    if known and _intact(unit, cache.place(unit.unit), workers):
                        cache.vouch(unit.unit, unit.digest)
                        continue
                _fetch_files(unit, source, cache, work, workers, progress)
                if cache.exists(unit.unit):
                    # As late as can be: somebody may be running on it.
                    work.discard(unit.unit)
                work.assemble(
                    unit.unit,
                    {path: (item.record, item.mtime) for path, item in unit.files.items()},
                    unit.links,
                    unit.extra,
                    unit.digest,
                )


def _fetch_files(
    unit: UnitPlan, source: Source, cache: Cache, work: Workplace, workers: int, progress: Callable[[int], None]
) -> None:
    missing = {cache.file(item.record, item.mtime): item for item in unit.files.values()}
    there = [path for path, item in missing.items() if cache.has_file(item.record, item.mtime)]

    def reuse(path: str) -> None:
        if _hash_of(path) == missing[path].record.sha256.hex:
            del missing[path]

    in_parallel(there, reuse, workers=workers)
    neighbours = Neighbours(cache, unit.unit)
    with neighbours.told():

        def ask(item: Wanted) -> None:
            if neighbours.copy(work, item.record, item.mtime):
                del missing[cache.file(item.record, item.mtime)]

        while missing and cache.shared:
            in_parallel(tuple(missing.values()), ask, workers=workers)
            if not missing or not neighbours.worth_waiting():
                break
        _fetch(tuple(missing.values()), source, work, workers, progress)


def _fetch(
    missing: tuple[Wanted, ...], source: Source, work: Workplace, workers: int, progress: Callable[[int], None]
) -> None:
    def fetch(arrival: Arrival, part: Part, following: Callable[[], Part | None]) -> None:
        landing = Landing(arrival, part, following)
        try:
            source.pour(part.name, landing, limit=part.limit)
            landing.end()
        except CorruptError:
            fetch_again(arrival, part, following)
        progress(part.size)

    def fetch_again(arrival: Arrival, part: Part, _following: Callable[[], Part | None]) -> None:
        landing = Landing(arrival, part)
        source.pour_again(part.name, landing, limit=part.limit)
        landing.end()

    wrong = _bring(missing, work, fetch, workers)
    if wrong := _bring(wrong, work, fetch_again, workers):
        raise CorruptError(
            f"{wrong[0].path} does not have the SHA-256 that the release records",
            hint="the repository's catalogs and the release contradict each other: tell its owner",
        )


def _bring(missing: Sequence[Wanted], work: Workplace, fetch: _Fetch, workers: int) -> list[Wanted]:
    """Have files put together and kept; those that are not what the release records are returned, not kept."""
    tasks = [
        (arrival, part)
        for arrival in (Arrival(item, work) for item in missing)
        for part in arrival.wanted.parts
    ]
    # A file is hashed in order, by one thread at a time: begun among the last, a large one, or a large part of
    # it, would keep one at work while the others are done.
    tasks.sort(key=lambda task: (-(task[0].wanted.record.size // _LARGE), task[1].size < _LARGE))
    wrong: list[Wanted] = []

    def bring(task: tuple[Arrival, Part], following: Callable[[], tuple[Arrival, Part] | None]) -> None:
        def following_part() -> Part | None:
            coming = following()
            return None if coming is None else coming[1]

        fetch(*task, following_part)
        if not task[0].finish_if_whole():
            wrong.append(task[0].wanted)

    try:
        looking_ahead(tasks, bring, workers=workers, at_first=len(os.sched_getaffinity(0)))
    finally:
        for arrival, _ in tasks:
            arrival.close()
    return wrong


def _intact(unit: UnitPlan, place: str, workers: int) -> bool:
    """Whether a unit that an earlier boot left behind is what it should be, to the bit."""
    damaged: list[str] = []

    def look(path: str) -> None:
        if _hash_of(os.path.join(place, path)) != expected[path]:
            damaged.append(path)

    expected = {path: item.record.sha256.hex for path, item in unit.files.items()}
    expected |= {path: Sha256.of(content).hex for path, content in unit.extra.items()}
    in_parallel(tuple(expected), look, workers=workers)
    for path, link in unit.links.items():
        try:
            if os.readlink(os.path.join(place, path)) != link.target:
                damaged.append(path)
        except OSError:
            damaged.append(path)
    return not damaged


def _hash_of(path: str) -> str:
    """SHA-256 of a file, in hexadecimal; nothing when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
