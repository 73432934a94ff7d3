"""Making the next state of a repository's catalogs out of the present one and what is put into it.

Theory of operation. An edition holds drafts of catalogs, by mountpoint. A draft is opened only where something
changes: on the way from the root to a graft, because each catalog names its children by hash. A graft replaces
whatever was at its path; directories in it that hold a ``.cvmfscatalog`` become catalogs of their own (format
section 9.5). In the end drafts are written from the deepest to the root. One that says what the present catalog
at its mountpoint says is dropped in favour of that one, so publishing the same again changes nothing at all.

A catalog's subtree counters follow by difference, so that the catalogs of other releases need not be read: what
a child counted is taken off when it is opened or removed, and put on when it is written.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.catalog_writer import Heading, is_directory, write_catalog
from headstart.cvmfs.entry import (
    MARKER,
    Directory,
    Entry,
    Mountpoint,
    Stat,
    is_below,
    name_of,
    parent_of,
    valid_path,
)
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName, Revision
from headstart.cvmfs.rows import Counters, Nested, Statistics
from headstart.cvmfs.trust import nested_catalog, open_nested
from headstart.errors import StorageError

Fetch = Callable[[ObjectName], bytes]
"""Reads an object as stored."""
_RESERVED: Final = b"/.cvmfs"
"""The format's own hidden directory (format section 12)."""


class Forest:
    """The catalogs of one revision, opened when they are needed."""

    def __init__(self, root: Catalog, digest: Digest, fetch: Fetch) -> None:
        self._fetch = fetch
        self._opened: dict[bytes, tuple[Catalog, Digest]] = {b"": (root, digest)}

    def mounted(self, mountpoint: bytes) -> tuple[Catalog, Digest] | None:
        """The catalog mounted at exactly this path, and its name; None where there is none."""
        if mountpoint in self._opened:
            return self._opened[mountpoint]
        parent = self.holder(mountpoint)
        if mountpoint not in parent.nested:
            return None
        name = nested_catalog(parent, mountpoint)
        self._opened[mountpoint] = open_nested(parent, mountpoint, self._fetch(name)), name.digest
        return self._opened[mountpoint]

    def holder(self, path: bytes) -> Catalog:
        """The catalog whose parent side holds, or would hold, the row of ``path``."""
        catalog = self._opened[b""][0]
        for ancestor in ancestors(path):
            if ancestor in catalog.nested:
                found = self.mounted_in(catalog, ancestor)
                catalog = found
        return catalog

    def mounted_in(self, parent: Catalog, mountpoint: bytes) -> Catalog:
        """The catalog nested in ``parent`` at ``mountpoint``."""
        if mountpoint not in self._opened:
            name = nested_catalog(parent, mountpoint)
            self._opened[mountpoint] = open_nested(parent, mountpoint, self._fetch(name)), name.digest
        return self._opened[mountpoint][0]

    def lookup(self, path: bytes) -> Entry | None:
        """The entry at a path; a ``Mountpoint`` where a nested catalog is mounted."""
        return self.holder(path).lookup(path)

    def catalogs(self) -> Iterator[Catalog]:
        """All catalogs, parents first."""
        waiting = [b""]
        while waiting:
            found = self.mounted(waiting.pop())
            if found is not None:
                yield found[0]
                waiting += sorted(found[0].nested, reverse=True)


def ancestors(path: bytes) -> Iterator[bytes]:
    """The directories above ``path``, from below the root downward, without the root and without itself."""
    at = path.find(b"/", 1)
    while at > 0:
        yield path[:at]
        at = path.find(b"/", at + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graft:
    """What is to be at a path, in place of whatever is there."""

    path: bytes
    entries: Mapping[bytes, Entry]
    """By absolute path; of ``path`` itself too. No mountpoints: markers say where catalogs are nested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How catalogs are written."""

    revision: Revision
    """Of the new root catalog."""
    when: int
    """Seconds since 1970: ``last_modified``, and the mtime of directories that gain an entry."""
    ttl: int
    algorithm: Algorithm
    encode: Callable[[bytes], bytes]
    """A zlib stream of a database; catalogs are always compressed."""
    owner: tuple[int, int] = (0, 0)
    """User and group of directories that are made on the way to a graft."""
    follows: Digest | None = None
    """The root catalog that the new one follows, where that is not the base: a new one is made in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCatalog:
    """A catalog to be put into storage."""

    mountpoint: bytes
    name: ObjectName
    stored: bytes
    size: int
    """Bytes of the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """The outcome: the new catalogs, the root's last."""

    catalogs: tuple[NewCatalog, ...]

    @property
    def root(self) -> NewCatalog | None:
        """The new root catalog; None where nothing changed."""
        return self.catalogs[-1] if self.catalogs else None


@dataclass(slots=True, kw_only=True)
class _Draft:
    """A catalog in the making."""

    mountpoint: bytes
    entries: dict[bytes, Entry]
    nested: dict[bytes, Nested] = field(default_factory=dict)
    subtree: Counters = field(default_factory=Counters)

    def root(self) -> Directory:
        entry = self.entries[self.mountpoint]
        if not isinstance(entry, Directory):
            raise StorageError(f"{self.mountpoint!r} is not a directory")
        return entry


class Edition:
    """One change of a repository, of any number of grafts."""

    def __init__(self, base: Forest | None, manner: Manner) -> None:
        self._base: Final = base
        self._manner: Final = manner
        self._drafts: dict[bytes, _Draft] = {}
        if base is None:
            stat = Stat(mode=0o755, mtime=manner.when, uid=manner.owner[0], gid=manner.owner[1])
            self._drafts[b""] = _Draft(mountpoint=b"", entries={b"": Directory(name=b"", stat=stat)})
        elif manner.follows is not None:
            self._open(b"")

    def graft(self, graft: Graft) -> None:
        """Put something at a path.

        Raises:
            StorageError: on the way there lies something else than directories, or what would be lost.
        """
        _check(graft)
        if graft.path == b"":
            self._drafts.clear()
            self._plant(graft, None)
            return
        holder = self._descend(graft.path)
        self._remove(holder, graft.path)
        self._plant(graft, holder)

    def finish(self) -> Edited:
        """Write what has changed."""
        written: list[NewCatalog] = []
        for mountpoint in sorted(self._drafts, key=lambda path: (path.count(b"/"), path), reverse=True):
            draft = self._drafts[mountpoint]
            reference, statistics, catalog = self._write(draft)
            if catalog is not None:
                written.append(catalog)
            if mountpoint:
                self._hang(draft, reference, statistics)
        return Edited(catalogs=tuple(written))

    def _hang(self, draft: _Draft, reference: Nested, statistics: Statistics) -> None:
        parent = self._draft_above(draft.mountpoint)
        root = draft.root()
        links = 2 + sum(
            is_directory(entry) and parent_of(path) == draft.mountpoint for path, entry in draft.entries.items()
        )
        parent.entries[draft.mountpoint] = Mountpoint(
            name=root.name, stat=root.stat, size=root.size, links=links
        )
        parent.nested[draft.mountpoint] = reference
        parent.subtree += statistics.total

    def _draft_above(self, mountpoint: bytes) -> _Draft:
        above = parent_of(mountpoint)
        while above not in self._drafts:
            above = parent_of(above)
        return self._drafts[above]

    def _write(self, draft: _Draft) -> tuple[Nested, Statistics, NewCatalog | None]:
        old = self._base.mounted(draft.mountpoint) if self._base is not None else None
        manner = self._manner
        follows = manner.follows if not draft.mountpoint else None
        same = old is not None and old[0].nested == draft.nested and dict(old[0].entries()) == draft.entries
        if old is not None and same and follows is None:
            return self._reference(draft.mountpoint, old[1]), old[0].statistics, None
        if draft.mountpoint:
            revision = Revision(old[0].revision + 1 if old is not None else 1)
        else:
            revision = manner.revision
        heading = Heading(
            mountpoint=draft.mountpoint,
            revision=revision,
            last_modified=manner.when,
            ttl=manner.ttl,
            previous=follows or (old[1] if old is not None else None),
        )
        made = write_catalog(heading, sorted(draft.entries.items()), draft.nested, draft.subtree)
        stored = manner.encode(made.database)
        digest = manner.algorithm.digest(stored)
        size = len(made.database)
        name = ObjectName(digest=digest, kind=Kind.CATALOG)
        new = NewCatalog(mountpoint=draft.mountpoint, name=name, stored=stored, size=size)
        return Nested(digest=digest, size=size), made.statistics, new

    def _reference(self, mountpoint: bytes, digest: Digest) -> Nested:
        if self._base is None or not mountpoint:
            return Nested(digest=digest, size=1)  # of the root nobody asks
        return self._base.holder(mountpoint).nested[mountpoint]

    def _open(self, mountpoint: bytes) -> _Draft:
        """The draft of a catalog that is there already."""
        if mountpoint not in self._drafts:
            found = self._base.mounted(mountpoint) if self._base is not None else None
            if found is None:
                raise StorageError(f"no catalog is mounted at {mountpoint!r}")
            catalog = found[0]
            for complaint in catalog.beyond_us():
                raise StorageError(
                    f"{complaint}, which Headstart cannot write again",
                    hint="publish with the tools that made them",
                )
            draft = _Draft(
                mountpoint=mountpoint,
                entries=dict(catalog.entries()),
                nested=dict(catalog.nested),
                subtree=catalog.statistics.subtree,
            )
            self._drafts[mountpoint] = draft
            if mountpoint:
                self._draft_above(mountpoint).subtree -= catalog.statistics.total
        return self._drafts[mountpoint]

    def _descend(self, path: bytes) -> _Draft:
        """The draft that is to hold the row of ``path``, with all directories on the way."""
        draft = self._open(b"")
        for directory in ancestors(path):
            if directory in self._drafts:
                draft = self._drafts[directory]
                continue
            match draft.entries.get(directory):
                case Mountpoint():
                    draft = self._open(directory)
                case Directory():
                    pass
                case None:
                    uid, gid = self._manner.owner
                    stat = Stat(mode=0o755, mtime=self._manner.when, uid=uid, gid=gid)
                    draft.entries[directory] = Directory(name=name_of(directory), stat=stat)
                    self._touch(draft, parent_of(directory))
                case _:
                    raise StorageError(f"{directory!r} is not a directory, so nothing can be put below it")
        return draft

    def _touch(self, draft: _Draft, directory: bytes) -> None:
        entry = draft.entries[directory]
        if isinstance(entry, Directory):
            stat = replace(entry.stat, mtime=self._manner.when, mtimens=None)
            draft.entries[directory] = replace(entry, stat=stat)

    def _remove(self, holder: _Draft, path: bytes) -> None:
        if path not in holder.entries and path not in self._drafts:
            self._touch(holder, parent_of(path))
            return
        for mountpoint in [at for at in self._drafts if at == path or is_below(at, path)]:
            # What an opened catalog counted was taken off when it was opened.
            del self._drafts[mountpoint]
            holder.nested.pop(mountpoint, None)
            holder.entries.pop(mountpoint, None)
        for at in [at for at in holder.entries if at == path or is_below(at, path)]:
            if isinstance(holder.entries.pop(at), Mountpoint):
                del holder.nested[at]
                found = self._base.mounted(at) if self._base is not None else None
                if found is not None:
                    holder.subtree -= found[0].statistics.total

    def _plant(self, graft: Graft, holder: _Draft | None) -> None:
        """Sort the entries into the drafts of the catalogs that they belong to."""
        roots = {parent_of(path) for path, entry in graft.entries.items() if entry.name == MARKER}
        if holder is None:
            roots.add(b"")
        for path in sorted(roots):
            self._drafts[path] = _Draft(mountpoint=path, entries={})
        places: dict[bytes, _Draft | None] = {parent_of(graft.path): holder} if graft.path else {}
        for path, entry in sorted(graft.entries.items()):
            place = self._drafts[path] if path in roots else places[parent_of(path)]
            if place is None:
                raise StorageError(f"{path!r} lies in no catalog")
            if isinstance(entry, Directory):
                places[path] = place
            place.entries[path] = entry


def _check(graft: Graft) -> None:
    if not valid_path(graft.path) or graft.path == _RESERVED or is_below(graft.path, _RESERVED):
        raise StorageError(f"nothing can be put at {graft.path!r}", hint="name a normal absolute path")
    if graft.path not in graft.entries:
        raise StorageError(f"there is nothing to put at {graft.path!r}")
    for path, entry in graft.entries.items():
        inside = path == graft.path or is_below(path, graft.path)
        if not inside or isinstance(entry, Mountpoint) or entry.name != name_of(path):
            raise StorageError(f"{path!r} does not belong into a tree at {graft.path!r}")
        if path != graft.path and not isinstance(graft.entries.get(parent_of(path)), Directory):
            raise StorageError(f"{path!r} is in no directory")
    if b"/" + MARKER in graft.entries:
        # The real publisher refuses it too: the root is a catalog without being asked.
        raise StorageError(f"{MARKER.decode()} must not be in the repository's root directory")
