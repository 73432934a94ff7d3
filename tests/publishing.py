"""Repositories on disk for tests: keys, storage, stages, and a look at everything that was published."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import releases
from headstart.cvmfs.entry import ChunkedFile, Compression, Entry, File, Mountpoint
from headstart.cvmfs.objects import Kind, ObjectName, inflate
from headstart.keys import RepositoryKeys, create_keys, load_keys, load_master_key
from headstart.names import ChannelName, Fqrn
from headstart.record import canonical
from headstart.release import Release
from headstart.repository import (
    AllKeys,
    Channel,
    Repository,
    Settings,
    TreePublished,
    Wanted,
    create,
    publish_tree,
)
from headstart.store import DirectoryStore

NOW = datetime(2026, 11, 22, 20, 15, tzinfo=UTC)
FQRN = Fqrn("julia.example.org")
PROD = Channel(name=ChannelName("prod"))
AT = b"/any"
"""Where trees are published."""
HELD = -(10**18)
"""A slack that reaches beyond whatever the clock says: what is remembered holds."""


@functools.cache
def _key_directory() -> str:
    """One set of keys for the whole run: making them is slow, and no test changes them."""
    directory = tempfile.mkdtemp(prefix="headstart-test-keys-")
    atexit.register(shutil.rmtree, directory)
    create_keys(directory, FQRN, now=NOW)
    return directory


@functools.cache
def keys() -> RepositoryKeys:
    return load_keys(_key_directory(), FQRN)


@functools.cache
def all_keys() -> AllKeys:
    return AllKeys(keys=keys(), master=load_master_key(_key_directory(), FQRN))


def copy_keys(directory: Path) -> Path:
    """The keys in a directory of the test's own."""
    shutil.copytree(_key_directory(), directory)
    return directory


@dataclass(frozen=True, slots=True)
class Place:
    """A new repository."""

    root: Path

    @property
    def store(self) -> DirectoryStore:
        return DirectoryStore(str(self.root))

    @property
    def target(self) -> tuple[DirectoryStore, RepositoryKeys]:
        return self.store, keys()

    def open(self, now: datetime = NOW) -> Repository:
        return Repository.open(self.store, keys(), now)


def new_repository(root: Path, settings: Settings | None = None, now: datetime = NOW) -> Place:
    place = Place(root)
    create(place.store, all_keys(), now, settings or Settings())
    return place


def write_stage(
    stage: Path, change: Callable[[Release], Release] | None = None, *, extra: Mapping[str, bytes] | None = None
) -> Release:
    """A finished stage, as a build leaves it."""
    base = releases.release(fqrn=str(FQRN))
    made = releases.write_stage(stage, change(base) if change else base, extra=extra)
    said = {"fqrn": made.fqrn, "stack": made.stack, "release": made.id, "julia": made.julia}
    (stage / "stage.json").write_bytes(
        canonical({"schema": 1, **{key: str(value) for key, value in said.items()}})
    )
    return made


def publish_held(place: Place, tree: Path, **changes: object) -> TreePublished:
    """Publish a tree with a state that is kept beside the storage."""
    wanted = Wanted(directory=str(tree), at=AT, state=str(place.root.parent / "state"), slack=HELD)
    wanted = replace(wanted, **changes)  # type: ignore[arg-type]
    return publish_tree(place.target, wanted, NOW)


def content_of(repository: Repository) -> dict[bytes, Entry | bytes]:
    """Everything in the present state: files as their content, everything else as its entry.

    Every catalog is checked on the way, alone and against those nested in it, and every object is read.
    """
    found: dict[bytes, Entry | bytes] = {}
    catalogs = {catalog.mountpoint: catalog for catalog in repository.forest.catalogs()}
    for catalog in catalogs.values():
        assert catalog.complaints() == []
        assert catalog.complaints_about({path: catalogs[path] for path in catalog.nested}) == []
        for path, entry in catalog.entries():
            if isinstance(entry, File | ChunkedFile):
                found[path] = _read(repository, entry)
            elif not isinstance(entry, Mountpoint):
                found[path] = entry
    return found


def _read(repository: Repository, entry: File | ChunkedFile) -> bytes:
    if isinstance(entry, File):
        parts = [(entry.digest, Kind.FILE, entry.size)]
    else:
        parts = [(chunk.digest, Kind.CHUNK, chunk.size) for chunk in entry.chunks]
    content = b""
    for digest, kind, size in parts:
        stored = repository.fetch(ObjectName(digest=digest, kind=kind))
        plain = stored if entry.compression is Compression.NONE else inflate(stored, limit=size, what="part")
        assert len(plain) == size
        content += plain
    assert len(content) == entry.size
    return content


def later() -> datetime:
    """The real now, for what a command published with the real clock."""
    return datetime.now(UTC)
