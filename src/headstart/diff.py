"""What differs between two states of a repository, or between two releases in one.

Theory of operation. Two trees are walked side by side, directory by directory. Where both have a nested catalog
of the same hash below the same path, all below it is equal and nothing of it is read: so two revisions that
differ in one release cost the catalogs on the way to it. Equal files seen on the way are remembered by their
objects, so that a moved file is not counted as something to fetch; what lies in catalogs that were not read is
not, and so the count of new objects may be a little too high, never too low.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from headstart.cvmfs.entry import ChunkedFile, Directory, Entry, File, Mountpoint, Special, Symlink, entry_mode
from headstart.cvmfs.objects import Kind, ObjectName
from headstart.snapshot import Snapshot

Sizes = Callable[[ObjectName], int | None]
"""Bytes of an object as stored; None where the source does not say without being read."""
_TIMELESS: Final = (Directory, Mountpoint)
"""A directory's time changes with everything in it, and says nothing more."""


class Fate(StrEnum):
    """What became of a path."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path that is not the same on both sides."""

    fate: Fate
    path: bytes
    """Below the two roots, with a ``/`` in front."""
    before: Entry | None
    after: Entry | None
    what: tuple[str, ...] = ()
    """Of a changed one: ``kind``, ``content``, ``target``, ``mode``, ``owner``, ``time``, ``attributes``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A tree: a directory of a state."""

    snapshot: Snapshot
    root: bytes = b""


@dataclass(slots=True, kw_only=True)
class Difference:
    """All changes, and what having the second side takes for those who have the first."""

    changes: list[Change] = field(default_factory=list)
    compared: int = 0
    """Catalogs that were read, on both sides together."""
    skipped: int = 0
    """Nested catalogs that are the same on both sides, and were not read."""
    new: dict[ObjectName, int] = field(default_factory=dict)
    """Objects that only the second side has, with the bytes of their content (of a catalog: its database)."""

    def fetched(self, sizes: Sizes) -> int | None:
        """Bytes of the new objects as stored; None where the source does not say."""
        total = 0
        for name in self.new:
            size = sizes(name)
            if size is None:
                return None
            total += size
        return total


def compare(before: Side, after: Side) -> Difference:
    """Compare two trees.

    Raises:
        UnknownError: one of the two directories is not there.
        CorruptError, MissingError, UnavailableError: a catalog cannot be read.
    """
    return _Walk(before, after).go()


class _Walk:
    def __init__(self, before: Side, after: Side) -> None:
        self._sides = (before, after)
        self._found = Difference()
        self._known: set[ObjectName] = set()
        """Objects of the first side."""
        self._read: set[tuple[int, bytes]] = set()

    def go(self) -> Difference:
        before, after = self._sides
        if before.root == after.root and before.snapshot.root_digest == after.snapshot.root_digest:
            self._found.skipped += 1
            return self._found
        if not before.root and not after.root:
            root = after.snapshot.root_digest
            self._new(ObjectName(digest=root, kind=Kind.CATALOG), 0)
        self._directory(b"")
        for name in self._known:
            self._found.new.pop(name, None)
        self._found.changes.sort(key=lambda change: change.path)
        return self._found

    def _children(self, side: int, path: bytes) -> dict[bytes, Entry]:
        snapshot, root = self._sides[side].snapshot, self._sides[side].root
        here = root + path
        catalog = snapshot.catalog(here)
        if (side, catalog.mountpoint) not in self._read:
            self._read.add((side, catalog.mountpoint))
            self._found.compared += 1
        return {entry.name: entry for entry in snapshot.children(here)}

    def _directory(self, path: bytes) -> None:
        """Two directories of that path, whose own entries have been compared."""
        waiting = [path]
        while waiting:
            here = waiting.pop()
            before, after = self._children(0, here), self._children(1, here)
            for name in sorted(before.keys() | after.keys()):
                at = here + b"/" + name
                old, new = before.get(name), after.get(name)
                if old is not None and new is not None and self._pair(at, old, new):
                    waiting.append(at)
                elif old is None and new is not None:
                    self._whole(1, at, new)
                elif new is None and old is not None:
                    self._whole(0, at, old)

    def _pair(self, path: bytes, old: Entry, new: Entry) -> bool:
        """Compare two entries of one path; whether what is in them is yet to be compared."""
        both = isinstance(old, _TIMELESS) and isinstance(new, _TIMELESS)
        if isinstance(old, _TIMELESS) != isinstance(new, _TIMELESS):
            # A directory in the place of a file, or the other way round.
            self._whole(0, path, old)
            self._whole(1, path, new)
            return False
        what = _differences(old, new)
        if what:
            self._found.changes.append(Change(fate=Fate.CHANGED, path=path, before=old, after=new, what=what))
        self._known.update(name for name, _ in _objects(old))
        for name, size in _objects(new):
            self._new(name, size)
        return both and not self._same_catalog(path, old, new)

    def _same_catalog(self, path: bytes, old: Entry, new: Entry) -> bool:
        names = [self._nested(side, path, entry) for side, entry in enumerate((old, new))]
        if names[0] is not None:
            self._known.add(names[0])
        if names[1] is not None and names[1] == names[0] and self._sides[0].root == self._sides[1].root:
            self._found.skipped += 1
            return True
        return False

    def _nested(self, side: int, path: bytes, entry: Entry) -> ObjectName | None:
        if not isinstance(entry, Mountpoint):
            return None
        here = self._sides[side].root + path
        nested = self._sides[side].snapshot.catalog(here[: here.rindex(b"/")]).nested.get(here)
        if nested is None:
            return None
        name = ObjectName(digest=nested.digest, kind=Kind.CATALOG)
        if side == 1:
            self._new(name, nested.size)
        return name

    def _whole(self, side: int, path: bytes, entry: Entry) -> None:
        """Something that only one side has, with all in it."""
        waiting = [(path, entry)]
        while waiting:
            at, here = waiting.pop()
            for name, size in _objects(here):
                if side == 0:
                    self._known.add(name)
                else:
                    self._new(name, size)
            nested = self._nested(side, at, here)
            if nested is not None and side == 0:
                self._known.add(nested)
            change = (
                Change(fate=Fate.REMOVED, path=at, before=here, after=None)
                if side == 0
                else Change(fate=Fate.ADDED, path=at, before=None, after=here)
            )
            self._found.changes.append(change)
            if isinstance(here, _TIMELESS):
                waiting += [(at + b"/" + name, child) for name, child in self._children(side, at).items()]

    def _new(self, name: ObjectName, size: int) -> None:
        self._found.new[name] = size


def _objects(entry: Entry) -> Iterator[tuple[ObjectName, int]]:
    if isinstance(entry, File):
        yield ObjectName(digest=entry.digest, kind=Kind.FILE), entry.size
    elif isinstance(entry, ChunkedFile):
        for chunk in entry.chunks:
            yield ObjectName(digest=chunk.digest, kind=Kind.CHUNK), chunk.size


def _differences(old: Entry, new: Entry) -> tuple[str, ...]:
    found: list[str] = []
    if _kind(old) != _kind(new):
        found.append("kind")
    elif isinstance(old, Symlink) and isinstance(new, Symlink):
        if old.target != new.target:
            found.append("target")
    elif _content(old) != _content(new):
        found.append("content")
    if entry_mode(old) & 0o7777 != entry_mode(new) & 0o7777:
        found.append("mode")
    if (old.stat.uid, old.stat.gid) != (new.stat.uid, new.stat.gid):
        found.append("owner")
    timeless = isinstance(old, _TIMELESS) or isinstance(new, _TIMELESS)
    if not timeless and _time(old) != _time(new):
        found.append("time")
    if old.stat.xattrs != new.stat.xattrs:
        found.append("attributes")
    return tuple(found)


def _time(entry: Entry) -> tuple[int, int]:
    return entry.stat.mtime, entry.stat.mtimens or 0


def _kind(entry: Entry) -> str:
    """The kind of thing, whichever way it is stored."""
    if isinstance(entry, _TIMELESS):
        return "directory"
    if isinstance(entry, File | ChunkedFile):
        return "file"
    return f"{entry_mode(entry) & 0o170000:o}"


def _content(entry: Entry) -> object:
    """What tells whether the content is the same; the same may have been cut or compressed otherwise."""
    if isinstance(entry, File | ChunkedFile):
        return entry.size, entry.compression, tuple(name for name, _ in _objects(entry))
    return entry.rdev if isinstance(entry, Special) else None
