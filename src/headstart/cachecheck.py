"""Hashing what is in a node's cache once more, against the records that list it, whose digests were proven.

A start trusts what is in a cache of its user's own, because it was hashed when it was placed. Disks forget, and
so an administrator may look again. What is damaged, a repair only makes forget that it was ever good: the next
start hashes the unit and fetches what it has to. What runs on it meanwhile is not disturbed.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from headstart.cache import Cache
from headstart.errors import CorruptError, Error
from headstart.launchfiles import WITH_STOCK, julia_files, plain_digest, unit_files
from headstart.names import Fqrn, Sha256
from headstart.parallel import in_parallel
from headstart.release import JULIA_FILE, RELEASE_FILE, FileRecord, JuliaTree, LinkRecord, Record, Release
from headstart.usage import Survey

WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """Something that is not what it should be."""

    fqrn: Fqrn
    unit: str
    """The unit; nothing for a file that no unit has."""
    path: str
    """The file, from the root of the file system."""
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a check has looked at, and what it complains of."""

    files: int
    size: int
    complaints: tuple[Complaint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """What a unit should hold."""

    unit: str
    place: str
    records: Mapping[str, Record]


def check(cache: Cache, survey: Survey, *, progress: Callable[[int], None] = lambda _size: None) -> Found:
    """Hash everything.

    Args:
        cache: of one repository.
        survey: what is in it.
        progress: told the bytes of each file; called from several threads.
    """
    complaints: list[Complaint] = []
    listed = []
    for unit in survey.units:
        # A unit without a note counts for nothing anyway, and is hashed before it is used.
        if cache.digest_of(unit):
            try:
                listed.append(_listed(cache, unit))
            except (CorruptError, OSError) as error:
                what = (
                    error.message if isinstance(error, CorruptError) else f"cannot be read ({error.strerror})"
                )
                complaints.append(_complaint(cache, unit, cache.place(unit), what))
    seen: dict[tuple[int, int], str] = {}
    tasks = [
        (one.unit, os.path.join(one.place, path), item) for one in listed for path, item in one.records.items()
    ]
    sizes: list[int] = []

    def look(task: tuple[str, str, Record]) -> None:
        unit, path, record = task
        what = _wrong_link(path, record) if isinstance(record, LinkRecord) else _wrong(path, record, seen)
        if what:
            complaints.append(_complaint(cache, unit, path, what))
        elif isinstance(record, FileRecord):
            sizes.append(record.size)
            progress(record.size)

    in_parallel(tasks, look, workers=WORKERS)
    in_parallel(
        tuple(_unseen(survey, seen)),
        lambda path: complaints.extend(_wrong_name(cache, path, seen)),
        workers=WORKERS,
    )
    ordered = sorted(complaints, key=lambda one: (one.unit, one.path))
    return Found(files=len(tasks), size=sum(sizes), complaints=tuple(ordered))


def repair(cache: Cache, survey: Survey, found: Found) -> None:
    """Let nothing count that was complained of; behind the gate.

    A unit's file stays where it is, for whoever runs on it, and loses its name in the store, from which other
    units would take it.

    Raises:
        OSError: it cannot be written.
    """
    stored = {inode: path for path, (inode, _) in survey.store.items()}
    for complaint in found.complaints:
        gone = [cache.placed(complaint.unit) if complaint.unit else complaint.path]
        with contextlib.suppress(OSError):
            gone += filter(None, [stored.get(os.lstat(complaint.path).st_ino)])
        for path in gone:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _complaint(cache: Cache, unit: str, path: str, what: str) -> Complaint:
    return Complaint(fqrn=cache.fqrn, unit=unit, path=path, what=what)


def _listed(cache: Cache, unit: str) -> _Listed:
    """What a unit should hold, by the record of which its note has the digest."""
    noted = cache.digest_of(unit)
    if unit.startswith("julia/"):
        tree = JuliaTree.from_bytes(_proven(os.path.join(cache.place(unit), JULIA_FILE), plain_digest(noted)))
        records: Mapping[str, Record] = julia_files(tree, stock=noted.endswith(WITH_STOCK))
        return _Listed(unit=unit, place=cache.place(unit), records=records)
    home, _, target = unit.partition("/images/")
    release = Release.from_bytes(_proven(os.path.join(cache.place(home), RELEASE_FILE), noted))
    records = unit_files(release, f"images/{target}" if target else "")
    return _Listed(unit=unit, place=cache.place(unit), records=records)


def _proven(path: str, digest: str) -> bytes:
    with open(path, "rb") as file:
        data = file.read()
    if Sha256.of(data).hex != digest:
        raise CorruptError(f"{os.path.basename(path)} is not the one that the unit was placed for")
    return data


def _wrong_link(path: str, record: LinkRecord) -> str:
    try:
        target = os.readlink(path)
    except OSError as error:
        return f"is no link ({error.strerror})"
    return "" if target == record.target else f"leads to {target!r}, not to {record.target!r}"


def _wrong(path: str, record: FileRecord, seen: dict[tuple[int, int], str]) -> str:
    """What is wrong with a file; a file that has several names is hashed once."""
    try:
        with open(path, "rb", opener=_plainly) as file:
            status = os.fstat(file.fileno())
            key = (status.st_dev, status.st_ino)
            if key not in seen:
                seen[key] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if seen[key] != record.sha256.hex:
        return f"has another SHA-256 ({seen[key][:12]}…) than the record"
    mode = status.st_mode & 0o7777
    return "" if mode == record.mode else f"has mode {mode:04o}, not {record.mode:04o}"


def _plainly(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _unseen(survey: Survey, seen: Mapping[tuple[int, int], str]) -> Iterator[str]:
    """The files of the store that no unit has."""
    inodes = {inode for _, inode in seen}
    return (path for path, (inode, _) in survey.store.items() if inode not in inodes)


def _wrong_name(cache: Cache, path: str, seen: dict[tuple[int, int], str]) -> Iterator[Complaint]:
    try:
        digest, mode = os.path.basename(path).split(".")[:2]
        record = FileRecord(sha256=Sha256(digest), size=0, mode=int(mode, 8))
    except (ValueError, Error):
        yield _complaint(cache, "", path, "is no file of a release")
        return
    what = _wrong(path, record, seen)
    if what:
        yield _complaint(cache, "", path, what.replace("the record", "its name says"))
