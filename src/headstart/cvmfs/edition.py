"""Making the next state of a repository's catalogs out of the present one and what is put into it.

Theory of operation. An edition holds drafts of catalogs, by mountpoint. A draft is opened only where something
changes: on the way from the root to a graft, because each catalog names its children by hash. A graft replaces
whatever was at its path; directories in it that hold a ``.cvmfscatalog`` become catalogs of their own (format
section 9.5). In the end drafts are written from the deepest to the root. One that says what the present catalog
at its mountpoint says is dropped in favour of that one, so publishing the same again changes nothing at all.

A catalog's subtree counters follow by difference, so that the catalogs of other releases need not be read: what
a child counted is taken off when it is opened or removed, and put on when it is written.

A graft is held in memory whole. A tree of any size comes the other way round: ``close`` writes one catalog
after the other, children first, and hands it on; what is left of it is a ``Branch``, the row and the
reference that its parent needs; ``put`` hangs the topmost of them into what is there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.catalog_writer import Heading, is_directory, numbered, write_catalog
from headstart.cvmfs.entry import (
    AUTO_MARKER,
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
from headstart.cvmfs.forest import Forest, ancestors
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName, Revision
from headstart.cvmfs.rows import Counters, Nested, Statistics
from headstart.errors import StorageError, UnknownError
from headstart.wording import readable

__all__ = ["Branch", "Edited", "Edition", "Forest", "Graft", "Manner", "NewCatalog", "Region"]

_RESERVED: Final = b"/.cvmfs"
"""The format's own hidden directory (format section 12)."""


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
class Branch:
    """A nested catalog that is written, or stays as it is."""

    row: Mountpoint
    """What its parent says of its root."""
    reference: Nested
    total: Counters | None
    """What it and all below it count; None where it is the one that is mounted there at present."""
    before: Counters | None = None
    """What the one that is mounted there at present counts, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One catalog's share of a tree."""

    entries: dict[bytes, Entry] = field(default_factory=dict)
    """By absolute path; of its topmost directory too. No mountpoints: those are branches."""
    branches: dict[bytes, Branch] = field(default_factory=dict)
    """The catalogs that hang from it, by mountpoint."""

    def rows(self) -> dict[bytes, Entry]:
        """All that is to stand in the catalog."""
        return self.entries | {path: branch.row for path, branch in self.branches.items()}

    def references(self) -> dict[bytes, Nested]:
        """Of the nested catalogs."""
        return {path: branch.reference for path, branch in self.branches.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """The outcome: the new catalogs that were not handed on before, the root's last."""

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
            raise StorageError(f"{readable(self.mountpoint or b'/')} is not a directory")
        return entry


class Edition:
    """One change of a repository, of any number of grafts.

    Args:
        base: the present state; None for a new repository.
        manner: how catalogs are written.
        deliver: takes each nested catalog as soon as it is written; without it they are kept to the end.
    """

    def __init__(
        self, base: Forest | None, manner: Manner, deliver: Callable[[NewCatalog], None] | None = None
    ) -> None:
        self._base: Final = base
        self._manner: Final = manner
        self._deliver: Final = deliver
        self._kept: Final[list[NewCatalog]] = []
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

    def close(self, mountpoint: bytes, region: Region, present: Mapping[bytes, Entry] | None = None) -> Branch:
        """Write a nested catalog, all of whose own nested catalogs are written.

        Args:
            mountpoint: where it is to be mounted.
            region: what is to be in it.
            present: the entries of the catalog that is mounted there now, if somebody has read them.

        Returns:
            What its parent has to know. Nothing is written where the present catalog says the same.
        """
        old = self._mounted(mountpoint)
        draft = _Draft(mountpoint=mountpoint, entries=region.rows(), nested=region.references())
        draft.subtree = self._difference(old.nested if old is not None else {}, region.branches)
        if old is not None:
            draft.subtree += old.statistics.subtree
        reference, statistics, catalog = self._write(draft, present)
        if catalog is not None:
            self._hand_on(catalog)
        if self._base is not None:
            self._base.forget(mountpoint)
        return Branch(
            row=_mountpoint(draft),
            reference=reference,
            total=None if catalog is None else statistics.total,
            before=None if old is None else old.statistics.total,
        )

    def put(self, path: bytes, region: Region) -> None:
        """Put a tree at a path, in place of whatever is there, all of whose nested catalogs are written.

        Args:
            path: where.
            region: the part of the tree that has no catalog of its own; where the whole of it has one, the
                branch at ``path`` alone.

        Raises:
            StorageError: on the way there lies something else than directories, or what would be lost.
        """
        _check_path(path)
        if path == b"":
            old = self._mounted(b"")
            self._drafts.clear()
            draft = _Draft(mountpoint=b"", entries=region.rows(), nested=region.references())
            draft.subtree = self._difference(old.nested if old is not None else {}, region.branches)
            if old is not None:
                draft.subtree += old.statistics.subtree
            self._drafts[b""] = draft
            return
        holder = self._descend(path)
        if path not in holder.entries:
            self._touch(holder, parent_of(path))
        for at in [at for at in holder.entries if at == path or is_below(at, path)]:
            del holder.entries[at]
        present = {at: holder.nested.pop(at) for at in list(holder.nested) if at == path or is_below(at, path)}
        holder.subtree += self._difference(present, region.branches)
        holder.entries |= region.rows()
        holder.nested |= region.references()

    def remove(self, path: bytes) -> None:
        """Take something away, with all below it.

        Raises:
            UnknownError: there is nothing.
            StorageError: it cannot be taken away: the root, or what makes a directory a catalog.
        """
        _check_path(path)
        if path == b"" or name_of(path) in (MARKER, AUTO_MARKER):
            raise StorageError(f"{path.decode(errors='replace') or '/'} cannot be removed by itself")
        if self._base is None or self._base.lookup(path) is None:
            raise UnknownError(f"there is no {path.decode(errors='replace')} in the repository")
        holder = self._descend(path)
        self._remove(holder, path)
        self._touch(holder, parent_of(path))

    def _difference(self, present: Mapping[bytes, Nested], branches: Mapping[bytes, Branch]) -> Counters:
        """What the subtree counters of a catalog change by, when some that are nested in it become others."""
        change = Counters()
        for at in present:
            branch = branches.get(at)
            if branch is None or branch.total is not None:
                before = branch.before if branch is not None else None
                change -= before if before is not None else self._total(at)
        for at, branch in branches.items():
            if branch.total is not None:
                change += branch.total
            elif at not in present:
                change += self._total(at)
        return change

    def _mounted(self, mountpoint: bytes) -> Catalog | None:
        found = self._base.mounted(mountpoint) if self._base is not None else None
        return None if found is None else found[0]

    def _total(self, mountpoint: bytes) -> Counters:
        """What a catalog that is mounted at present counts, with all below it."""
        catalog = self._mounted(mountpoint)
        if catalog is None or self._base is None:
            raise StorageError(f"no catalog is mounted at {readable(mountpoint)}")
        self._base.forget(mountpoint)
        return catalog.statistics.total

    def _hand_on(self, catalog: NewCatalog) -> None:
        if self._deliver is not None and catalog.mountpoint:
            self._deliver(catalog)
        else:
            self._kept.append(catalog)

    def finish(self) -> Edited:
        """Write what has changed."""
        for mountpoint in sorted(self._drafts, key=lambda path: (path.count(b"/"), path), reverse=True):
            draft = self._drafts[mountpoint]
            reference, statistics, catalog = self._write(draft)
            if catalog is not None:
                self._hand_on(catalog)
            if mountpoint:
                self._hang(draft, reference, statistics)
        return Edited(catalogs=tuple(self._kept))

    def _hang(self, draft: _Draft, reference: Nested, statistics: Statistics) -> None:
        parent = self._draft_above(draft.mountpoint)
        parent.entries[draft.mountpoint] = _mountpoint(draft)
        parent.nested[draft.mountpoint] = reference
        parent.subtree += statistics.total

    def _draft_above(self, mountpoint: bytes) -> _Draft:
        above = parent_of(mountpoint)
        while above not in self._drafts:
            above = parent_of(above)
        return self._drafts[above]

    def _write(
        self, draft: _Draft, present: Mapping[bytes, Entry] | None = None
    ) -> tuple[Nested, Statistics, NewCatalog | None]:
        old = self._base.mounted(draft.mountpoint) if self._base is not None else None
        rows = numbered(sorted(draft.entries.items()))
        manner = self._manner
        follows = manner.follows if not draft.mountpoint else None
        unlike = old is None or follows is not None or old[0].nested != draft.nested
        if old is not None and not unlike and _same(old[0], rows, present):
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
        made = write_catalog(heading, rows, draft.nested, draft.subtree)
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
                raise StorageError(f"no catalog is mounted at {readable(mountpoint)}")
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
                    raise StorageError(
                        f"{readable(directory)} is not a directory, so nothing can be put below it"
                    )
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
                raise StorageError(f"{readable(path)} lies in no catalog")
            if isinstance(entry, Directory):
                places[path] = place
            place.entries[path] = entry


def _same(catalog: Catalog, rows: Sequence[tuple[bytes, Entry]], present: Mapping[bytes, Entry] | None) -> bool:
    """Whether a catalog says just this."""
    own = catalog.statistics.own
    if own.regular + own.symlink + own.special + own.dir != len(rows) or catalog.beyond_us():
        return False
    found = dict(catalog.entries()) if present is None else present
    return len(found) == len(rows) and all(found.get(path) == entry for path, entry in rows)


def _mountpoint(draft: _Draft) -> Mountpoint:
    """The row that the parent of a catalog has of its root."""
    root = draft.root()
    links = 2 + sum(
        is_directory(entry) and parent_of(path) == draft.mountpoint for path, entry in draft.entries.items()
    )
    return Mountpoint(name=root.name, stat=root.stat, size=root.size, links=links)


def _check_path(path: bytes) -> None:
    if not valid_path(path) or path == _RESERVED or is_below(path, _RESERVED):
        raise StorageError(f"nothing can be put at {readable(path)}", hint="name a normal absolute path")


def _check(graft: Graft) -> None:
    _check_path(graft.path)
    if graft.path not in graft.entries:
        raise StorageError(f"there is nothing to put at {readable(graft.path)}")
    for path, entry in graft.entries.items():
        inside = path == graft.path or is_below(path, graft.path)
        if not inside or isinstance(entry, Mountpoint) or entry.name != name_of(path):
            raise StorageError(f"{readable(path)} does not belong into a tree at {readable(graft.path)}")
        if path != graft.path and not isinstance(graft.entries.get(parent_of(path)), Directory):
            raise StorageError(f"{readable(path)} is in no directory")
    if b"/" + MARKER in graft.entries:
        # The real publisher refuses it too: the root is a catalog without being asked.
        raise StorageError(f"{MARKER.decode()} must not be in the repository's root directory")
