"""Looking at a repository: what it offers, what one release is made of, and whether all of it is sound.

Nothing here stops at the first fault: a survey says of a channel that it cannot be believed and why, and
``verify`` collects every complaint with the path it is about.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from headstart.channel import ROOT_PATH, Pointer, Root
from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.entry import ChunkedFile, Compression, Entry, File, Mountpoint, Symlink
from headstart.cvmfs.objects import Digest, Kind, ObjectName
from headstart.errors import CorruptError, Error, MissingError, UnknownError
from headstart.fetching import stored_limit
from headstart.inflating import inflate
from headstart.names import ChannelName, ReleaseId, Sha256, StackName
from headstart.parallel import in_parallel
from headstart.published import (
    RELEASE_LIMIT,
    Resolved,
    channels,
    pointer,
    release,
    releases,
    resolve,
    root,
    stacks,
    stated,
    stated_releases,
)
from headstart.reference import Reference
from headstart.release import JULIA_FILE, RELEASE_FILE, FileRecord, JuliaTree, LinkRecord, Record, Release
from headstart.releasestatement import Stated, statement_path
from headstart.snapshot import Snapshot
from headstart.source import MountSource, Opened
from headstart.wording import counted, readable

_WORKERS: Final = 4
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelState:
    """A channel, believed or not."""

    name: ChannelName
    pointer: Pointer | Error
    """What it says, or why it is not believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseState:
    """A release's record, readable or not."""

    id: ReleaseId
    record: tuple[Release, Sha256] | Error
    """The record and its digest, or what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackState:
    """What there is of a stack."""

    name: StackName
    channels: tuple[ChannelState, ...]
    releases: tuple[ReleaseState, ...]


def survey(opened: Opened, *, now: datetime) -> tuple[StackState, ...]:
    """Everything that a repository offers.

    Raises:
        CorruptError, MissingError, UnavailableError: a catalog cannot be read.
    """
    tree = opened.tree
    return tuple(
        StackState(
            name=stack,
            channels=tuple(_channel(opened, stack, name, now) for name in channels(tree, stack)),
            releases=tuple(_release(opened, stack, release_id) for release_id in releases(tree, stack)),
        )
        for stack in stacks(tree)
    )


def _channel(opened: Opened, stack: StackName, name: ChannelName, now: datetime) -> ChannelState:
    try:
        return ChannelState(name=name, pointer=pointer(opened.tree, stack, name, keys=opened.keys, now=now))
    except Error as error:
        return ChannelState(name=name, pointer=error)


def _release(opened: Opened, stack: StackName, release_id: ReleaseId) -> ReleaseState:
    try:
        return ReleaseState(id=release_id, record=release(opened.tree, stack, release_id))
    except Error as error:
        return ReleaseState(id=release_id, record=error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One release, with its Julia and the channels that point at it."""

    resolved: Resolved
    julia: JuliaTree
    channels: tuple[Pointer, ...]
    stated: Stated | Error
    """Its statement, or why it has none that holds; its dates are not looked at."""


def describe(opened: Opened, reference: Reference, *, now: datetime) -> Description:
    """Look at one release.

    Raises:
        UnknownError: there is none, listing what there is.
        TrustError, CorruptError, MissingError, UnavailableError: it cannot be believed or read.
    """
    resolved = resolve(opened.tree, reference, keys=opened.keys, now=now)
    made = resolved.release
    states = [_channel(opened, made.stack, name, now) for name in channels(opened.tree, made.stack)]
    return Description(
        resolved=resolved,
        julia=_julia(opened, made),
        channels=tuple(
            state.pointer
            for state in states
            if isinstance(state.pointer, Pointer) and state.pointer.digest == resolved.digest
        ),
        stated=_stated(opened, made.stack, resolved.digest),
    )


def _stated(opened: Opened, stack: StackName, digest: Sha256) -> Stated | Error:
    try:
        return stated(opened.tree, stack, digest, by=root(opened.tree, opened.keys))
    except Error as error:
        return error


def _julia(opened: Opened, made: Release) -> JuliaTree:
    path = f"/julia/{made.julia}/{JULIA_FILE}"
    try:
        data = opened.tree.read(path, limit=RELEASE_LIMIT)
    except UnknownError as error:
        raise MissingError(f"{path}, which release {made.id} of {made.stack} runs on, is not there") from error
    if Sha256.of(data) != made.julia_digest:
        raise CorruptError(f"{path} is not the one that release {made.id} of {made.stack} names")
    return JuliaTree.from_bytes(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """Something that is not as it should be."""

    path: str
    """What it is about, in the repository: ``/`` is all of it."""
    text: str
    exit_code: int
    """Of the family of errors that it belongs to."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What a verification looked at and found. Threads may add to it."""

    complaints: list[Complaint]
    catalogs: int = 0
    entries: int = 0
    objects: int = 0
    """Read and compared with their names."""
    bytes: int = 0
    """In them, as stored."""
    releases: int = 0
    channels: int = 0
    statements: int = 0
    """Of releases."""
    _known: set[Complaint] = field(default_factory=set)

    def add(self, path: str, error: Error) -> None:
        """Note a complaint; not twice the same."""
        found = Complaint(path=path, text=str(error), exit_code=error.exit_code)
        if found not in self._known:
            self._known.add(found)
            self.complaints.append(found)

    @contextmanager
    def about(self, path: str) -> Iterator[None]:
        """Note what goes wrong inside, and go on behind it."""
        try:
            yield
        except Error as error:
            self.add(path, error)


def verify(
    opened: Opened, *, now: datetime, deep: bool, progress: Callable[[int], None] = lambda _size: None
) -> Report:
    """Look at all of a repository whose chain of signatures holds.

    Args:
        opened: the repository.
        now: UTC.
        deep: read every object and every file of every release too.
        progress: told bytes as they are read; called from several threads.
    """
    report = Report(complaints=[])
    entries: dict[bytes, Entry] = {}
    if opened.snapshot is not None:
        entries = _catalogs(opened.snapshot, report)
        _databases(opened.snapshot, report)
    expected = _promises(opened, report, now)
    if opened.snapshot is not None:
        _compare(expected, entries, report)
        if deep:
            _Reading(opened.snapshot, report, expected, progress).read(entries)
    if isinstance(opened.source, MountSource):
        _mounted(opened.source.root, expected, report, progress if deep else None)
    report.complaints.sort(key=lambda complaint: complaint.path)
    return report


def _catalogs(snapshot: Snapshot, report: Report) -> dict[bytes, Entry]:
    """Every catalog, alone and with those nested in it, and all entries by path."""
    entries: dict[bytes, Entry] = {}
    waiting = [b""]
    opened: dict[bytes, Catalog] = {}
    order: list[Catalog] = []
    while waiting:
        path = waiting.pop()
        with report.about(readable(path or b"/")):
            catalog = snapshot.catalog(path)
            if catalog.mountpoint != path:
                raise CorruptError(f"no catalog begins at {readable(path or b'/')}, though its parent says so")
            opened[path] = catalog
            order.append(catalog)
            report.catalogs += 1
            waiting += sorted(catalog.nested, reverse=True)
    for catalog in order:
        with report.about(readable(catalog.mountpoint or b"/")):
            for text in catalog.complaints():
                report.add(readable(catalog.mountpoint or b"/"), CorruptError(text))
            children = {path: opened[path] for path in catalog.nested if path in opened}
            if len(children) == len(catalog.nested):
                for text in catalog.complaints_about(children):
                    report.add(readable(catalog.mountpoint or b"/"), CorruptError(text))
            for path, entry in catalog.entries():
                if not isinstance(entry, Mountpoint):
                    entries[path] = entry
                    report.entries += 1
    return entries


def _databases(snapshot: Snapshot, report: Report) -> None:
    with report.about("/.cvmfspublished (tag history)"):
        snapshot.history()
    with report.about("/.cvmfspublished (meta information)"):
        snapshot.metainfo()


def _promises(opened: Opened, report: Report, now: datetime) -> dict[str, Record]:
    """Check channels and records of releases; what the records promise, by path in the repository."""
    expected: dict[str, Record] = {}
    try:
        states = survey(opened, now=now)
    except Error as error:
        report.add("/stacks", error)
        return expected
    if states:
        with report.about(ROOT_PATH):
            by = root(opened.tree, opened.keys)
            _check_statements(opened, states, by, report)
            if by.statements:
                by.check_time(now)
    for stack in states:
        digests = {state.id: state.record[1] for state in stack.releases if not isinstance(state.record, Error)}
        for channel in stack.channels:
            report.channels += 1
            with report.about(f"/channels/{stack.name}/{channel.name}.json"):
                _check_pointer(channel, digests)
        for state in stack.releases:
            report.releases += 1
            with report.about(f"/stacks/{stack.name}/{state.id}/{RELEASE_FILE}"):
                if isinstance(state.record, Error):
                    raise state.record
                expected |= _promised(opened, state.record[0])
    return expected


def _check_statements(opened: Opened, states: Iterable[StackState], by: Root, report: Report) -> None:
    """Every statement that is there, and every one that should be."""
    for stack in states:
        there = set(stated_releases(opened.tree, stack.name))
        releases = {state.record[1] for state in stack.releases if not isinstance(state.record, Error)}
        report.statements += len(there)
        for digest in sorted(there | (releases if by.statements else set())):
            with report.about(statement_path(stack.name, digest)):
                stated(opened.tree, stack.name, digest, by=by)
                if digest not in releases:
                    raise MissingError("is the statement of a release that cannot be read here")


def _check_pointer(channel: ChannelState, digests: Mapping[ReleaseId, Sha256]) -> None:
    if isinstance(channel.pointer, Error):
        raise channel.pointer
    found = digests.get(channel.pointer.release)
    if found is None:
        raise MissingError(f"points at release {channel.pointer.release}, which cannot be read here")
    if found != channel.pointer.digest:
        raise CorruptError(
            f"points at {channel.pointer.digest}, but release {channel.pointer.release} is {found}"
        )


def _promised(opened: Opened, made: Release) -> dict[str, Record]:
    home = f"/stacks/{made.stack}/{made.id}"
    promised = {f"{home}/{path}": record for path, record in made.files.items()}
    for image in made.images:
        for system in image.system:
            if system.path not in made.files:
                raise CorruptError(
                    f"image {image.target} is said to be {system.path}, which is no file of the release"
                )
        for packages in image.packages:
            if not any(path.startswith(f"{packages.path}/compiled/") for path in made.files):
                raise CorruptError(
                    f"image {image.target} is said to have packages in {packages.path}, which has none"
                )
    julia = _julia(opened, made)
    if made.julia_executable not in julia.files:
        raise CorruptError(f"{made.julia_executable} is no file of {made.julia}")
    return promised | {f"/julia/{made.julia}/{path}": record for path, record in julia.files.items()}


def _compare(expected: Mapping[str, Record], entries: Mapping[bytes, Entry], report: Report) -> None:
    """Records against catalogs."""
    for path, record in expected.items():
        with report.about(path):
            entry = entries.get(path.encode())
            match entry:
                case None:
                    raise MissingError("is recorded in its release, and the repository does not have it")
                case Symlink() if isinstance(record, LinkRecord):
                    if entry.target.decode(errors="replace") != record.target:
                        raise CorruptError(
                            f"leads to {readable(entry.target)}, and its record says {record.target}"
                        )
                case File() | ChunkedFile() if isinstance(record, FileRecord):
                    if (entry.size, entry.stat.mode & 0o777) != (record.size, record.mode):
                        raise CorruptError(
                            f"has {counted(entry.size, 'byte')} and mode {entry.stat.mode:04o}, "
                            f"and its record says {record.size} and {record.mode:04o}"
                        )
                case _:
                    raise CorruptError(f"is a {type(entry).__name__}, and its record says something else")


class _Reading:
    """Reading every object once, and every recorded file's content."""

    def __init__(
        self,
        snapshot: Snapshot,
        report: Report,
        expected: Mapping[str, Record],
        progress: Callable[[int], None],
    ) -> None:
        self._snapshot = snapshot
        self._report = report
        self._expected = expected
        self._progress = progress
        self._lock = threading.Lock()
        self._done: set[ObjectName] = set()

    def read(self, entries: Mapping[bytes, Entry]) -> None:
        """Read all that these entries are made of."""
        files = [(path, entry) for path, entry in entries.items() if isinstance(entry, File | ChunkedFile)]
        files.sort(key=lambda pair: -pair[1].size)
        in_parallel(files, self._file, workers=_WORKERS)

    def _file(self, pair: tuple[bytes, File | ChunkedFile]) -> None:
        path, entry = pair
        shown = _shown(path)
        record = self._expected.get(shown)
        whole = hashlib.sha256()
        complete = isinstance(record, FileRecord)
        for name, size in _objects(entry):
            # What a release records is hashed as a whole; for anything else each object needs one look.
            if not self._first_time(name) and not isinstance(record, FileRecord):
                continue
            try:
                whole.update(self._content(name, size, entry.compression))
            except Error as error:
                self._report.add(shown, error)
                complete = False
        if complete and isinstance(record, FileRecord) and whole.hexdigest() != record.sha256.hex:
            self._report.add(shown, CorruptError("does not have the SHA-256 that its release records"))

    def _first_time(self, name: ObjectName) -> bool:
        with self._lock:
            known = name in self._done
            self._done.add(name)
            return not known

    def _content(self, name: ObjectName, size: int, compression: Compression) -> bytes:
        stored = self._snapshot.stored(name, limit=stored_limit(size, compression))
        plain = compression is Compression.NONE
        content = stored if plain else inflate(stored, limit=size, what=f"object {name}")
        if len(content) != size:
            raise CorruptError(f"object {name} has {counted(len(content), 'byte')} of content, not {size}")
        with self._lock:
            self._report.objects += 1
            self._report.bytes += len(stored)
        self._progress(len(stored))
        return content


def _objects(entry: File | ChunkedFile) -> Iterable[tuple[ObjectName, int]]:
    if isinstance(entry, File):
        return [(_name(entry.digest, Kind.FILE), entry.size)]
    return [(_name(chunk.digest, Kind.CHUNK), chunk.size) for chunk in entry.chunks]


def _name(digest: Digest, kind: Kind) -> ObjectName:
    return ObjectName(digest=digest, kind=kind)


def _mounted(
    top: str, expected: Mapping[str, Record], report: Report, progress: Callable[[int], None] | None
) -> None:
    """A mount's files against the records, as the file system shows them; contents only where told."""
    for path, record in expected.items():
        with report.about(path):
            try:
                _mounted_file(top + path, record, progress)
            except OSError as error:
                raise MissingError(f"cannot be read ({error.strerror})") from error
            report.entries += 1


def _mounted_file(place: str, record: Record, progress: Callable[[int], None] | None) -> None:
    if isinstance(record, LinkRecord):
        if os.readlink(place) != record.target:
            raise CorruptError(f"leads to {os.readlink(place)}, and its record says {record.target}")
        return
    if os.lstat(place).st_size != record.size:
        raise CorruptError(f"has {counted(os.lstat(place).st_size, 'byte')}, and its record says {record.size}")
    if progress is None:
        return
    whole = hashlib.sha256()
    with open(place, "rb") as file:
        while block := file.read(_BLOCK):
            whole.update(block)
            progress(len(block))
    if whole.hexdigest() != record.sha256.hex:
        raise CorruptError("does not have the SHA-256 that its release records")


def _shown(path: bytes) -> str:
    return path.decode(errors="surrogateescape") or "/"
