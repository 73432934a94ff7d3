"""A staged release on disk, compared with its records before anything of it is published.

The stage holds ``stage.json``, ``julia/<name>/`` and ``stacks/<stack>/<release>/``; each tree has a record
(``julia.json``, ``release.json``) of every file in it. Names, kinds, sizes, modes and link targets are compared
here; contents are hashed later, while they are compressed.
"""

import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from headstart.cvmfs.entry import MARKER, Directory, Special, Symlink
from headstart.errors import CorruptError, StorageError
from headstart.names import Fqrn, JuliaName, ReleaseId, Sha256, StackName
from headstart.record import Table
from headstart.release import JULIA_FILE, RELEASE_FILE, FileRecord, JuliaTree, LinkRecord, Record, Release
from headstart.tree import Manners, Source, Staged, walk
from headstart.wording import counted, readable

STAGE_FILE: Final = "stage.json"
SCHEMA: Final = 1
_RECORD_LIMIT: Final = 1 << 28
_UNIFORM: Final = Manners(owner=(0, 0), directory_mode=0o755, xattrs=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedTree:
    """A directory that is to appear in the repository as it is."""

    path: bytes
    """Where in the repository."""
    record_name: bytes
    """The file in it that names all others."""
    record: bytes
    entries: Mapping[bytes, Staged]
    """By path in the repository."""
    expected: Mapping[bytes, Sha256]
    """What the record says of each regular file, and of itself."""

    @property
    def files(self) -> Mapping[bytes, Source]:
        """The regular files."""
        return {path: entry for path, entry in self.entries.items() if isinstance(entry, Source)}

    @property
    def record_path(self) -> bytes:
        """Where the record is in the repository."""
        return self.path + b"/" + self.record_name

    @property
    def size(self) -> int:
        """Bytes of content."""
        return sum(source.size for source in self.files.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedRelease:
    """What a stage holds."""

    release: Release
    digest: Sha256
    """SHA-256 of its ``release.json``."""
    trees: tuple[StagedTree, ...]
    """The Julia it runs on, then the release itself."""

    @property
    def fqrn(self) -> Fqrn:
        """The repository it was built for, and can be published to."""
        return self.release.fqrn

    def content(self, path: str) -> bytes:
        """A small file of the release, by its path in it; nothing where there is none.

        Raises:
            StorageError: it cannot be read.
        """
        home = self.trees[-1]
        source = home.files.get(home.path + b"/" + path.encode())
        return b"" if source is None else _read(source.place)


def open_stage(directory: str) -> StagedRelease:
    """Read a stage and compare its trees with their records.

    Raises:
        StorageError: it cannot be read, or is none.
        CorruptError: a tree is not what its record says, naming the path.
    """
    if not os.path.isdir(directory):
        raise StorageError(
            f"there is no directory {directory}", hint="name what 'headstart build' got as --stage"
        )
    stage = Table.of(_read(f"{directory}/{STAGE_FILE}"), STAGE_FILE, SCHEMA)
    stack, release_id = stage.named("stack", StackName), stage.named("release", ReleaseId)
    julia_name = stage.named("julia", JuliaName)
    release_at, julia_at = f"stacks/{stack}/{release_id}", f"julia/{julia_name}"
    release_bytes = _read(f"{directory}/{release_at}/{RELEASE_FILE}")
    release = Release.from_bytes(release_bytes)
    julia_bytes = _read(f"{directory}/{julia_at}/{JULIA_FILE}")
    julia = JuliaTree.from_bytes(julia_bytes)
    said = (stage.named("fqrn", Fqrn), stack, release_id, julia_name)
    if said != (release.fqrn, release.stack, release.id, release.julia):
        raise CorruptError(f"{directory}/{STAGE_FILE} and {RELEASE_FILE} speak of different releases")
    if release.julia_digest != Sha256.of(julia_bytes) or release.julia != julia.name:
        raise CorruptError(f"{directory}/{julia_at} is not the Julia that {RELEASE_FILE} names")
    return StagedRelease(
        release=release,
        digest=Sha256.of(release_bytes),
        trees=(
            _tree(f"{directory}/{julia_at}", julia_at, (JULIA_FILE, julia_bytes), julia.files),
            _tree(f"{directory}/{release_at}", release_at, (RELEASE_FILE, release_bytes), release.files),
        ),
    )


def _read(place: str) -> bytes:
    try:
        with open(place, "rb") as file:
            return file.read(_RECORD_LIMIT)
    except FileNotFoundError as error:
        raise StorageError(f"{place} is missing", hint="this is no finished stage: build again") from error
    except OSError as error:
        raise StorageError(f"cannot read {place}: {error.strerror}") from error


def _tree(place: str, at: str, record: tuple[str, bytes], files: Mapping[str, Record]) -> StagedTree:
    path = b"/" + at.encode()
    name, content = record[0].encode(), record[1]
    entries = dict(walk(place, at=path, manners=_UNIFORM))
    records = {path + b"/" + key.encode("utf-8", "surrogateescape"): value for key, value in files.items()}
    complaints = list(_complaints(entries, records, (path, name)))
    if complaints:
        more = f" (and {len(complaints) - 1} more such)" if len(complaints) > 1 else ""
        raise CorruptError(
            f"{place}: {complaints[0]}{more}",
            hint="it was changed after the build: remove it from the stage and build again",
        )
    # The record and the markers, which no record has, get the modes of everything else.
    for key in entries.keys() - records.keys():
        entry = entries[key]
        if isinstance(entry, Source):
            entries[key] = replace(entry, stat=replace(entry.stat, mode=0o444))
    expected = {key: value.sha256 for key, value in records.items() if isinstance(value, FileRecord)}
    expected[path + b"/" + name] = Sha256.of(content)
    return StagedTree(path=path, record_name=name, record=content, entries=entries, expected=expected)


def _complaints(
    entries: Mapping[bytes, Staged], records: Mapping[bytes, Record], tree: tuple[bytes, bytes]
) -> Iterator[str]:
    root, record_name = tree
    if root + b"/" + MARKER not in entries:
        yield f"{MARKER.decode()} is missing, so it would not be a catalog of its own"
    for path in sorted(records.keys() - entries.keys()):
        yield f"{_shown(path, root)} is in {record_name.decode()}, but not there"
    for path, entry in entries.items():
        free = entry.name == MARKER or path == root + b"/" + record_name
        complaint = _complaint(path, entry, records.get(path), root)
        if complaint and not (free and path not in records and isinstance(entry, Source)):
            yield f"{_shown(path, root)} {complaint}"


def _complaint(path: bytes, entry: Staged, record: Record | None, root: bytes) -> str:
    """What is wrong with one entry; empty when it is as recorded."""
    complaint = ""
    match entry, record:
        case Directory(), None:
            pass
        case Source(), FileRecord():
            if (entry.size, entry.stat.mode) != (record.size, record.mode):
                found, recorded = counted(entry.size, "byte"), f"{record.size} and {record.mode:o}"
                complaint = f"has {found} and mode {entry.stat.mode:o}, its record says {recorded}"
        case Symlink(), LinkRecord():
            inside = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.target))
            if entry.target != record.target.encode("utf-8", "surrogateescape"):
                complaint = "points elsewhere than its record says"
            elif inside != root and not inside.startswith(root + b"/"):
                complaint = "points out of its tree"
        case Special(), _:
            complaint = "is neither file nor directory nor link"
        case _, None:
            complaint = "is in no record"
        case _:
            complaint = "is of another kind than its record says"
    return complaint


def _shown(path: bytes, root: bytes) -> str:
    return readable(path[len(root) + 1 :])
