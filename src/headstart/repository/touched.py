"""Publishing only what is said to have changed of a tree that was published before.

Theory of operation. A full run looks at everything with ``lstat``, which takes its time for a large tree.
Whoever knows what was touched can say so, as overlayfs tells the real publisher. Then only those paths are
looked at, each with all below it, and the directories above them, whose times have changed too. The catalogs on
the way are taken as they are at present, and what lies at the paths is taken out of them and put in anew, by
the same steps as in a full run; no other catalog is opened.

What comes out is what a full run would make if nothing else had changed, and the memory of the tree is kept in
step: of the directories above a touched path the rows of what was touched become new, all others stay as they
were remembered. So a change that was not named is found by the next full run.

Some paths take more with them: a marker ``.cvmfscatalog`` its whole directory, a file all its hard links in the
same directory, and the first directory on the way that was not published yet everything below it.
"""

import contextlib
import os
import stat as modes
from collections.abc import Iterable, Mapping
from typing import Final

from headstart.cvmfs.edition import Branch, Edition, Forest, Region
from headstart.cvmfs.entry import AUTO_MARKER, MARKER, Directory, Entry, Mountpoint, is_below, name_of
from headstart.errors import ConfigurationError, StorageError
from headstart.ingest import Ingestion
from headstart.repository.drafts import Draft, Spot, Tree
from headstart.repository.synchronize import Synchronization
from headstart.tree import Listing, entry_of, link_groups, listing_of, refuse_reserved
from headstart.treestate import Origin, Seen, TreeState, look_of
from headstart.wording import readable

Names = dict[bytes, "Names | None"]
"""What was touched in a directory, by name: with what was touched in it, or None for all of it."""


def names_of(paths: Iterable[bytes]) -> Names | None:
    """Paths below a tree as names in its directories; None where all of the tree is meant."""
    found: Names = {}
    for path in paths:
        parts = path.split(b"/")
        if parts[-1] in (MARKER, AUTO_MARKER):
            parts.pop()  # whether there is a catalog concerns all of the directory
        if not parts or parts == [b""]:
            return None
        at: Names = found
        for part in parts[:-1]:
            below = at.setdefault(part, {})
            if below is None:
                break
            at = below
        else:
            at[parts[-1]] = None
    return found


def check_named(tree: Tree, base: Forest, paths: Iterable[bytes]) -> None:
    """Refuse paths below a tree that are none of its business, or neither there nor published.

    Raises:
        ConfigurationError: there is such a path.
        StorageError: the tree cannot be looked at.
    """
    for path in sorted(paths):
        if not tree.at and path.split(b"/")[0] in tree.kept:
            raise ConfigurationError(f"/{readable(path.split(b'/')[0])} is where Headstart publishes itself")
        if not _is_there(os.fsencode(tree.directory), path) and base.lookup(tree.at + b"/" + path) is None:
            raise ConfigurationError(
                f"--only {readable(path)} is neither in {tree.directory} nor published at "
                f"{readable(tree.at or b'/')}",
                hint="see whether it is spelt so, and leads through no link",
            )


def _is_there(top: bytes, path: bytes) -> bool:
    """Whether a path leads to something in a tree, through its directories alone."""
    at, names = top, path.split(b"/")
    try:
        for number, name in enumerate(names, start=1):
            at += b"/" + name
            if not modes.S_ISDIR(os.lstat(at).st_mode) and number < len(names):
                return False
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"cannot read {readable(at)}: {error.strerror}") from error
    return True


class PartSynchronization(Synchronization):
    """One run over some paths of a tree."""

    def __init__(
        self,
        tree: Tree,
        base: Forest,
        edition: Edition,
        ingestion: Ingestion,
        memory: tuple[TreeState, int],
        names: Names,
    ) -> None:
        """Prepare; see ``Synchronization``, and ``names_of`` for the last."""
        super().__init__(tree, base, edition, ingestion, memory)
        self._names: Final = names
        self._holder_known = False

    def _put(self, spot: Spot) -> None:
        tree = self._tree
        self._refuse_stranger(spot)
        if tree.at and isinstance(self._base.lookup(tree.at), Mountpoint):
            branch = self._part(spot, self._names)
            region = Region(branches={tree.at: branch}) if isinstance(branch, Branch) else branch
            self._edition.put(tree.at, region)
            return
        above = self._base.holder(tree.at)
        found = self._base.mounted(above.mountpoint)
        self._holder_known = found is not None and self._holder_is(str(found[1]))
        draft = self._taken(above.entries(), spot.path)
        self._change(draft, spot, self._names)
        self._catch_up()
        self._finish(draft, spot.path, len(draft.region.entries) + len(draft.region.branches))
        self._edition.put(tree.at, draft.region)

    def remember_holder(self, digest: str) -> None:
        """See ``Synchronization``; what somebody else has changed since is found by the next full run."""
        if self._holder_known:
            super().remember_holder(digest)

    def _refuse_stranger(self, spot: Spot) -> None:
        """Refuse what is not the tree that was published here."""
        seen = self._state.directory(spot.path)
        present = self._base.lookup(spot.path) if spot.path else self._base.holder(b"").root()
        if seen is None or not seen.is_of(spot.stat) or not isinstance(present, Directory | Mountpoint):
            at = readable(spot.path or b"/")
            raise ConfigurationError(
                f"{self._tree.directory} is not known to be what was published at {at}",
                hint="publish all of it once, without --only",
            )

    def _part(self, spot: Spot, names: Names) -> Branch | Region:
        """A nested catalog of which some is new; see ``_catalog``."""
        mounted = self._base.mounted(spot.path)
        if mounted is None or not self._recorded(spot.path):
            raise ConfigurationError(
                f"the catalog at {readable(spot.path)} is not what {self._tree.directory} became when it was "
                "published",
                hint="somebody else published there, or rolled it back: publish all of it, without --only",
            )
        present = dict(mounted[0].entries())
        draft = self._taken(present.items(), spot.path)
        draft.present = present
        if self._state.origin(spot.path) is not Origin.MARKED:
            # Not the tree's own: it is put in anew, with the times of the directory.
            for name in (MARKER, AUTO_MARKER):
                draft.region.entries.pop(spot.path + b"/" + name, None)
        self._change(draft, spot, names)
        self._catch_up()
        self._finish(draft, spot.path, len(draft.region.entries) + len(draft.region.branches))
        return self._closed(spot, draft)

    def _taken(self, entries: Iterable[tuple[bytes, Entry]], top: bytes) -> Draft:
        """A draft of what is in a catalog at present, as far as it lies at or below a path."""
        draft = Draft()
        for path, entry in entries:
            if path != top and not is_below(path, top):
                continue
            if isinstance(entry, Mountpoint):
                draft.region.branches[path] = self._kept(path)
            else:
                draft.region.entries[path] = entry
        return draft

    def _change(self, draft: Draft, spot: Spot, names: Names) -> None:
        """A directory that is in a draft already, in which some names are to be looked at."""
        top = entry_of(spot.place, name_of(spot.path), spot.stat, self._tree.manners)
        if not isinstance(top, Directory):
            raise StorageError(f"{readable(spot.place)} is no directory any more")
        draft.region.entries[spot.path] = top
        listing = _looked_at(spot.place, names)
        groups = self._groups(draft, listing)
        first: dict[int, bytes] = {}
        seen = self._state.directory(spot.path)
        known = seen.files() if seen is not None else {}
        names = dict.fromkeys(listing) | names
        for name in sorted(names):
            path, stat = spot.path + b"/" + name, listing.get(name)
            if stat is None or not modes.S_ISDIR(stat.st_mode):
                _drop(draft, path)
                self._state.forget(path)
            if stat is None:
                continue
            inner = Spot(path, spot.place + b"/" + name, stat)
            if modes.S_ISDIR(stat.st_mode):
                self._into(draft, inner, names[name])
            else:
                self._leaf(draft, inner, (groups.get(name, 0), first), known.get(name))
        if seen is not None:
            self._splice(draft, spot, seen, {name: listing.get(name) for name in names})

    def _into(self, draft: Draft, spot: Spot, names: Names | None) -> None:
        """A directory that is there, with all below it, or only with some names."""
        is_catalog = spot.path in draft.region.branches
        if names is not None and is_catalog:
            branch = self._part(spot, names)
            del draft.region.branches[spot.path]
            if isinstance(branch, Branch):
                draft.region.branches[spot.path] = branch
            else:
                draft.region.entries.update(branch.entries)
                draft.region.branches.update(branch.branches)
        elif names is not None and isinstance(draft.region.entries.get(spot.path), Directory):
            self._change(draft, spot, names)
        else:
            _drop(draft, spot.path)
            self._below(draft, spot, {})

    def _groups(self, draft: Draft, listing: Listing) -> Mapping[bytes, int]:
        """Numbers for the groups of hard links, beside those that the draft has."""
        groups = link_groups(listing) if self._tree.manners.hardlinks else {}
        if not groups:
            return groups
        last = max(entry.stat.link_group for entry in draft.region.entries.values())
        return {name: last + number for name, number in groups.items()}

    def _splice(
        self, draft: Draft, spot: Spot, seen: Seen, fresh: Mapping[bytes, os.stat_result | None]
    ) -> None:
        """Remember new looks of some names in a directory, and the old ones of all others."""
        rows: dict[bytes, bytes] = {}
        files: list[bytes] = []
        for name, look, identity in seen.rows():
            if name not in fresh:
                rows[name] = look
                if identity is not None:
                    draft.untouched[spot.path + b"/" + name] = identity
        for name, stat in fresh.items():
            if stat is not None:
                rows[name] = look_of(stat, name, self._horizon)
        looks = [look_of(spot.stat, b"", self._horizon)]
        for name, look in sorted(rows.items()):
            looks.append(look + name)
            path, stat = spot.path + b"/" + name, fresh.get(name)
            if path in draft.untouched or (stat is not None and modes.S_ISREG(stat.st_mode)):
                files.append(path)
        draft.finished.append((spot.path, b"".join(looks), files))


def _looked_at(place: bytes, names: Iterable[bytes]) -> Listing:
    """Those of some names in a directory that are there, and the other hard links of files among them."""
    found: dict[bytes, os.stat_result] = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found[name] = os.lstat(place + b"/" + name)
    refuse_reserved(place, found)
    linked = {
        (stat.st_dev, stat.st_ino)
        for stat in found.values()
        if stat.st_nlink > 1 and not modes.S_ISDIR(stat.st_mode)
    }
    if linked:
        found |= {
            name: stat for name, stat in listing_of(place).items() if (stat.st_dev, stat.st_ino) in linked
        }
    return {name: found[name] for name in sorted(found)}


def _drop(draft: Draft, path: bytes) -> None:
    """Take what lies at a path out of a draft, with all below it."""
    entries, branches = draft.region.entries, draft.region.branches
    branches.pop(path, None)
    if isinstance(entries.pop(path, None), Directory):
        for held in (entries, branches):
            for at in [at for at in held if is_below(at, path)]:
                del held[at]
