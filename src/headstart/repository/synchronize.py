"""Making a path of a repository what a directory on disk is, catalog by catalog.

Theory of operation. The tree is walked once per catalog, children before parents. First the walk only
compares what ``lstat`` says with the state that the last publication left (``headstart.treestate``): is it
all the same, and is the catalog that was written then still mounted, then nothing of it is read, neither
files nor catalog. Otherwise the catalog is made anew: entries from ``lstat``, contents from the present
catalog where the state vouches for them, else from the files themselves. A catalog that comes out as it was
stays the very same. So a publication rewrites the catalogs on the paths to what changed, and holds in memory
one catalog of each level at most, and a few small ones whose files are still under way while the walk goes on.

A directory gets a catalog of its own if it holds ``.cvmfscatalog``, if a rule of ``.cvmfsdirtab`` says so,
or, on request, if its parent's would be too large (``headstart.cvmfs.balance``). The last two put the marker
into the catalog that the tree does not have, as the real publisher does; the tree itself is never written to.
"""

import os
import stat as modes
from collections import deque
from collections.abc import Container, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from headstart.cvmfs.balance import divisions
from headstart.cvmfs.edition import Branch, Edition, Forest, Region
from headstart.cvmfs.entry import (
    AUTO_MARKER,
    MARKER,
    ChunkedFile,
    Compression,
    Directory,
    Entry,
    File,
    Mountpoint,
    Stat,
    is_below,
    name_of,
)
from headstart.errors import StorageError
from headstart.ingest import Ingestion
from headstart.repository.drafts import Draft, Later, Spot, Tally, Tree, hang
from headstart.smallfiles import attributes_of
from headstart.tree import Listing, Source, entry_of, link_groups, listing_of, top_of
from headstart.treestate import HOLDER, Origin, Seen, TreeState, identity_of, look_of, looks_of
from headstart.wording import readable

_DEEPEST: Final = 180
"""Directories above each other; the walk calls itself for each."""
_MOST_WAITING: Final = 4_000
"""Entries of catalogs that wait for their files while the walk goes on: it keeps the readers of files busy."""
_TOO_MUCH: Final = 2
"""Times what a catalog may have: a directory that gathers so much is divided before all of it is seen."""


class Synchronization:
    """One run over a tree."""

    def __init__(
        self, tree: Tree, base: Forest, edition: Edition, ingestion: Ingestion, memory: tuple[TreeState, int]
    ) -> None:
        """Prepare.

        Args:
            tree: what is published, and where.
            base: the present state.
            edition: the next one.
            ingestion: takes the files in.
            memory: of the last publication, and since when, in nanoseconds, changes may go unseen.
        """
        self._tree: Final = tree
        self._base: Final = base
        self._edition: Final = edition
        self._ingestion: Final = ingestion
        self._state: Final = memory[0]
        self._horizon: Final = memory[1]
        self._later: Final[deque[Later]] = deque()
        """In the order of the walk, so what hangs from a catalog stands before it."""
        self._waiting = 0
        """Entries in them."""
        self.tally: Final = Tally()

    def run(self) -> None:
        """Put the tree into the edition; see ``Edition.finish`` for whether anything changed.

        Raises:
            StorageError: something cannot be read, or be said in the format.
            CorruptError: a file changes under our hands, or a catalog is damaged.
        """
        tree = self._tree
        try:
            self._put(Spot(tree.at, os.fsencode(tree.directory), top_of(tree.directory)))
        except OSError as error:
            raise StorageError(
                f"cannot read {readable(os.fsencode(error.filename or tree.directory))}: {error.strerror}"
            ) from error

    def _put(self, spot: Spot) -> None:
        tree = self._tree
        names = listing_of(spot.place).keys()
        if tree.at == b"" and MARKER in names:
            # The real publisher refuses it too: the root is a catalog without being asked.
            raise StorageError(f"{MARKER.decode()} must not be in the repository's root directory")
        if tree.at == b"" and names & tree.kept:
            taken = ", ".join(sorted(readable(name) for name in names & tree.kept))
            raise StorageError(
                f"{tree.directory} has {taken}, which Headstart itself publishes in the root directory",
                hint="rename it, or publish the tree at another path with --at",
            )
        if tree.at and self._origin(spot, names) in (Origin.MARKED, Origin.RULE):
            branch = self._catalog(spot, trusted=False)
            if isinstance(branch, Branch):
                self._edition.put(tree.at, Region(branches={tree.at: branch}))
        else:
            self._top(spot)

    def remember_holder(self, digest: str) -> None:
        """The catalog that the tree hangs from, once it is published."""
        self._state.remember_catalog(HOLDER, digest, Origin.MARKED)

    def _holder_is(self, digest: str) -> bool:
        """Whether the catalog that the tree hangs from is the one that we left."""
        return self._state.catalog(HOLDER) == digest

    # The walk that only compares

    def _unchanged(self, top: Spot) -> list[Spot] | None:
        """The nested catalogs below a catalog's own part of the tree; None if that part is not as it was."""
        nested: list[Spot] = []
        waiting = [top]
        while waiting:
            spot = waiting.pop()
            listing = listing_of(spot.place)
            if spot is not top and self._origin(spot, listing, at_present=False) is not None:
                nested.append(spot)
                continue
            seen = self._state.directory(spot.path)
            if seen is None or seen.looks != looks_of(spot.stat, listing):
                return None
            waiting += [
                Spot(spot.path + b"/" + name, spot.place + b"/" + name, stat)
                for name, stat in listing.items()
                if modes.S_ISDIR(stat.st_mode)
            ]
        return nested

    def _origin(self, spot: Spot, names: Container[bytes], *, at_present: bool = True) -> Origin | None:
        """Why a directory has a catalog of its own; None if it has none.

        Args:
            spot: the directory.
            names: what is in it.
            at_present: whether to look in the repository too for a catalog that was made for its weight; where
                what we remember is known to be true, that would only open catalogs for nothing.
        """
        if MARKER in names:
            return Origin.MARKED
        if self._tree.dirtab.matches(spot.path):
            return Origin.RULE
        if self._tree.weights is None:
            return None
        divided = self._state.origin(spot.path) is Origin.WEIGHT
        return Origin.WEIGHT if divided or (at_present and self._was_divided(spot.path)) else None

    def _was_divided(self, path: bytes) -> bool:
        """Whether there is a catalog at present that was made for its weight."""
        found = self._base.mounted(path)
        return found is not None and found[0].lookup(path + b"/" + AUTO_MARKER) is not None

    def _recorded(self, path: bytes) -> bool:
        """Whether the catalog that is mounted at a path is the one that we left there."""
        known = self._state.catalog(path)
        if known is None:
            return False
        reference = self._base.holder(path).nested.get(path)
        return reference is not None and str(reference.digest) == known

    # The walk that makes catalogs

    def _top(self, spot: Spot) -> None:
        """A tree whose topmost directory lies in a catalog that is not its own."""
        above = self._base.holder(spot.path)
        found = self._base.mounted(above.mountpoint)
        done: dict[bytes, Branch | Region | None] = {}
        if found is not None and self._holder_is(str(found[1])):
            nested = self._unchanged(spot)
            if nested is not None:
                done = {inner.path: self._catalog(inner, trusted=True) for inner in nested}
                if all(branch is None for branch in done.values()):
                    return
        draft = self._fill(spot, done)
        region = draft.region
        if spot.path == b"":
            self._keep_ours(region)
        self._edition.put(spot.path, region)

    def _keep_ours(self, region: Region) -> None:
        """What stays in the root directory whatever the tree says."""
        kept = tuple(b"/" + name for name in self._tree.kept)
        for path, entry in self._base.holder(b"").entries():
            if any(path == top or is_below(path, top) for top in kept):
                if isinstance(entry, Mountpoint):
                    region.branches[path] = self._kept(path)
                else:
                    region.entries[path] = entry

    def _catalog(self, spot: Spot, *, trusted: bool) -> Branch | Region | None:
        """One nested catalog and all below it.

        Args:
            spot: its root.
            trusted: whether the catalog above is known to be the one that we left.

        Returns:
            What its parent has to know of it; None if it stays as it is; what was in it, where it is dissolved.
        """
        done: dict[bytes, Branch | Region | None] = {}
        if trusted or self._recorded(spot.path):
            nested = self._unchanged(spot)
            if nested is not None:
                done = {inner.path: self._catalog(inner, trusted=True) for inner in nested}
                if all(branch is None for branch in done.values()):
                    return None
        return self._closed(spot, self._fill(spot, done))

    def _closed(self, spot: Spot, draft: Draft) -> Branch | Region:
        """A full draft as a catalog, or what was in it, where it is dissolved."""
        marked = spot.path + b"/" + MARKER in draft.region.entries
        origin = self._origin(spot, {MARKER} if marked else ())
        weights = self._tree.weights
        rows = len(draft.region.entries) + len(draft.region.branches) + 2
        if origin is Origin.WEIGHT and weights is not None and rows < weights.minimum:
            self._state.forget_catalog(spot.path)
            return draft.region
        return self._close(spot.path, draft.region, origin or Origin.MARKED, draft.present)

    def _fill(self, spot: Spot, done: Mapping[bytes, Branch | Region | None]) -> Draft:
        """Everything that belongs into one catalog."""
        draft, weight = self._walked(spot, done)
        self._finish(draft, spot.path, weight)
        return draft

    def _walked(self, spot: Spot, done: Mapping[bytes, Branch | Region | None]) -> tuple[Draft, int]:
        """Everything that belongs into one catalog, whose files may still be under way; and its weight."""
        mounted = self._base.mounted(spot.path)
        draft = Draft()
        if mounted is not None and self._state.directory(spot.path) is not None:
            draft.present = dict(mounted[0].entries())
        return draft, self._directory(draft, spot, listing_of(spot.place), done)

    def _finish(self, draft: Draft, top: bytes, weight: int) -> None:
        """Divide a draft that is too large, and wait for its files."""
        if self._is_too_large(draft, weight):
            self._divide(draft, top)
        self._settle(draft)

    def _is_too_large(self, draft: Draft, weight: int) -> bool:
        weights = self._tree.weights
        return weights is not None and (draft.divided or weight > weights.maximum)

    def _put_off(self, spot: Spot, above: Draft) -> None:
        """Make a nested catalog, to be closed when its files are done."""
        draft, weight = self._walked(spot, {})
        if self._is_too_large(draft, weight):
            self._divide(draft, spot.path)
        self._later.append(Later(spot, draft, above, (weight, self._ingestion.mark())))
        self._waiting += weight
        self._catch_up(_MOST_WAITING)

    def _catch_up(self, most: int = -1) -> None:
        """Close catalogs that only wait for their files, until the others have no more than so many entries."""
        while self._later and self._waiting > most:
            spot, draft, above, (weight, mark) = self._later.popleft()
            self._waiting -= weight
            self._ingestion.wait_for(mark)
            self._record(draft)
            hang(above, spot.path, self._closed(spot, draft))

    def _directory(
        self, draft: Draft, spot: Spot, listing: Listing, done: Mapping[bytes, Branch | Region | None]
    ) -> int:
        """A directory and what is below it into a draft.

        Returns:
            Its weight: the entries that the draft has of it.
        """
        if spot.path.count(b"/") > _DEEPEST:
            raise StorageError(f"{readable(spot.place)} lies more than {_DEEPEST} directories deep")
        manners, entries, weights = self._tree.manners, draft.region.entries, self._tree.weights
        top = entry_of(spot.place, name_of(spot.path), spot.stat, manners)
        if not isinstance(top, Directory):
            raise StorageError(f"{readable(spot.place)} is no directory any more")
        entries[spot.path] = top
        seen = self._state.directory(spot.path)
        known = seen.files() if seen is not None else {}
        groups = link_groups(listing) if manners.hardlinks else {}
        first: dict[int, bytes] = {}
        files: list[bytes] = []
        weight = 1
        most = None if weights is None else _TOO_MUCH * weights.maximum
        for name, stat in listing.items():
            path, place = spot.path + b"/" + name, spot.place + b"/" + name
            if modes.S_ISDIR(stat.st_mode):
                weight += self._below(draft, Spot(path, place, stat), done)
                if most is not None and weight > most:
                    # The real publisher sees all of a directory before it divides it, and holds it in memory.
                    draft.divided = True
                    weight -= self._divide(draft, spot.path)
                    # What cannot be divided is not looked through again for each directory that comes.
                    most = max(most, 2 * weight)
                continue
            weight += 1
            if self._leaf(draft, Spot(path, place, stat), (groups.get(name, 0), first), known.get(name)):
                files.append(path)
        self._forget_absent(spot, seen, listing)
        draft.finished.append((spot.path, looks_of(spot.stat, listing, self._horizon), files))
        if weights is not None and weight > weights.maximum:
            draft.divided = True
            weight -= self._divide(draft, spot.path)
        self._ingestion.breathe()
        return weight

    def _leaf(
        self,
        draft: Draft,
        spot: Spot,
        links: tuple[int, dict[int, bytes]],
        before: tuple[bytes, bytes] | None,
    ) -> bool:
        """Something that is no directory, into a draft.

        Args:
            draft: the catalog.
            spot: what it is.
            links: the group of hard links that it belongs to, and the first path of each group.
            before: what it looked like, and what its content became.

        Returns:
            Whether it is a regular file.
        """
        group, first = links
        name = name_of(spot.path)
        entry = entry_of(spot.place, name, spot.stat, self._tree.manners, group)
        if not isinstance(entry, Source):
            draft.region.entries[spot.path] = entry
        elif group and group in first:
            draft.copies.append((spot.path, first[group]))
        else:
            first[group] = spot.path
            if before is None or not self._known(draft, spot, entry, before):
                self._read(draft, spot.path, entry)
        return isinstance(entry, Source)

    def _below(self, draft: Draft, spot: Spot, done: Mapping[bytes, Branch | Region | None]) -> int:
        """A directory inside another: into the same draft, or as a branch of it."""
        listing = listing_of(spot.place)
        origin = self._origin(spot, listing)
        if origin is None:
            self._state.forget_catalog(spot.path)
            return self._directory(draft, spot, listing, done)
        if spot.path not in done and origin is not Origin.WEIGHT and not self._recorded(spot.path):
            self._put_off(spot, draft)
            return 1
        branch = done[spot.path] if spot.path in done else self._catalog(spot, trusted=False)
        return hang(draft, spot.path, branch if branch is not None else self._kept(spot.path))

    def _kept(self, mountpoint: bytes) -> Branch:
        """A nested catalog that stays as it is."""
        parent = self._base.holder(mountpoint)
        row = parent.lookup(mountpoint)
        if not isinstance(row, Mountpoint):
            raise StorageError(f"no catalog is mounted at {readable(mountpoint)}")
        return Branch(row=row, reference=parent.nested[mountpoint], total=None)

    def _forget_absent(self, spot: Spot, seen: Seen | None, listing: Listing) -> None:
        if seen is not None:
            there = {name for name, stat in listing.items() if modes.S_ISDIR(stat.st_mode)}
            for name in seen.directories():
                if name not in there:
                    self._state.forget(spot.path + b"/" + name)

    def _known(self, draft: Draft, spot: Spot, source: Source, before: tuple[bytes, bytes]) -> bool:
        """Take a file's content from the present state, if it is known to be the same."""
        path = spot.path
        if before[0] != look_of(spot.stat, source.name):
            return False
        entry = draft.present.get(path) if draft.present is not None else None
        entry = entry if entry is not None else self._base.lookup(path)
        if not isinstance(entry, File | ChunkedFile) or identity_of(entry) != before[1]:
            return False
        if entry.size != source.size or entry.compression is not self._ingestion.recipe.compression_of(source):
            return False
        attributes = attributes_of(spot.place) if source.xattrs else ()
        stat = replace(source.stat, xattrs=attributes) if attributes else source.stat
        draft.region.entries[path] = replace(entry, stat=stat)
        return True

    def _read(self, draft: Draft, path: bytes, source: Source) -> None:
        self.tally.read += 1
        self.tally.read_bytes += source.size
        self._ingestion.take(source, partial(draft.region.entries.__setitem__, path))

    def _settle(self, draft: Draft) -> None:
        """Wait for all files of a draft, and for the catalogs that hang from it."""
        self._catch_up()
        self._ingestion.drain()
        self._record(draft)

    def _record(self, draft: Draft) -> None:
        """Remember what the directories of a draft looked like, whose files are all done."""
        entries = draft.region.entries
        for path, other in draft.copies:
            entry = entries[other]
            entries[path] = replace(entry, name=name_of(path))
        draft.copies.clear()
        for path, looks, files in draft.finished:
            identities = bytearray()
            for file in files:
                entry = entries[file]
                if not isinstance(entry, File | ChunkedFile):
                    raise StorageError(f"{readable(file)} came out as no file")
                identities += draft.untouched.get(file) or identity_of(entry)
            self._state.remember(path, Seen(looks, bytes(identities)))
        draft.finished.clear()
        draft.untouched.clear()

    def _divide(self, draft: Draft, top: bytes) -> int:
        """Make catalogs of what is too much below a directory of a draft.

        Returns:
            By how much the draft has become lighter.
        """
        weights = self._tree.weights
        if weights is None:
            return 0
        self._settle(draft)
        region = draft.region
        before = len(region.entries) + len(region.branches)
        for path in divisions(region.entries, region.branches.keys(), top, weights):
            part = Region(
                entries={at: region.entries.pop(at) for at in list(region.entries) if _within(at, path)},
                branches={at: region.branches.pop(at) for at in list(region.branches) if _within(at, path)},
            )
            region.branches[path] = self._close(path, part, Origin.WEIGHT, None)
        return before - len(region.entries) - len(region.branches)

    def _close(
        self, path: bytes, region: Region, origin: Origin, present: Mapping[bytes, Entry] | None
    ) -> Branch:
        """Write a nested catalog."""
        if origin is not Origin.MARKED:
            self._mark(region, path, origin)
        branch = self._edition.close(path, region, present)
        if branch.total is not None:
            self.tally.catalogs.append(path)
        self._state.remember_catalog(path, str(branch.reference.digest), origin)
        return branch

    def _mark(self, region: Region, path: bytes, origin: Origin) -> None:
        """The markers that the tree does not have, with the modes that the real publisher gives them."""
        top = region.entries[path].stat
        mode = 0o600 if origin is Origin.WEIGHT else 0o644
        compression = Compression.ZLIB if origin is Origin.WEIGHT else self._ingestion.recipe.compression
        digest = self._ingestion.content(b"", compression)
        stat = Stat(mode=mode, mtime=top.mtime, mtimens=top.mtimens, uid=top.uid, gid=top.gid)
        for name in (MARKER, AUTO_MARKER) if origin is Origin.WEIGHT else (MARKER,):
            region.entries[path + b"/" + name] = File(
                name=name, stat=stat, size=0, digest=digest, compression=compression
            )


def _within(path: bytes, top: bytes) -> bool:
    return path == top or is_below(path, top)
