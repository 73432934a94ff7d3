"""Pruning: take out of a node's cache what was started longest ago, until it is as small as it should be.

``plan`` is pure: it takes what was seen and says what goes. ``apply`` looks and plans behind the gates of all
repositories in the cache, so that what was seen stays as it was, and takes out; an image on which somebody
begins to run in that very moment stays all the same.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from headstart.cache import Cache
from headstart.names import Fqrn
from headstart.usage import Survey, Usage, Use, repositories


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """An image that goes, and the units that go with it because no other image needs them."""

    fqrn: Fqrn
    use: Use
    units: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What goes, and how much that gives."""

    before: int
    """Bytes on the disk."""
    after: int
    limit: int
    """What was asked for."""
    departures: tuple[Departure, ...]
    """In their order: what was started longest ago comes first."""
    strays: tuple[tuple[Fqrn, str], ...]
    """Units that no image needs."""
    files: tuple[tuple[Fqrn, str], ...]
    """Files that no unit has any more."""
    leased: int
    """Images that somebody runs on."""

    @property
    def enough(self) -> bool:
        """Whether that makes the cache as small as was asked for."""
        return self.after <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How small a cache should be."""

    limit: int
    """Bytes that it may have."""
    kept: frozenset[str] = frozenset()
    """Files of the store that somebody is about to make a unit of."""
    until: float = float("inf")
    """Images that were started later stay."""


def plan(surveys: tuple[Survey, ...], wish: Wish) -> Plan:
    """Say what goes.

    Args:
        surveys: of each repository in the cache.
        wish: how small it should be.
    """
    shelves = {survey.fqrn: _Shelf(survey, wish.kept) for survey in surveys}
    before = sum(shelf.size for shelf in shelves.values())
    departures: list[Departure] = []
    strays: list[tuple[Fqrn, str]] = []
    if before > wish.limit:
        for fqrn, shelf in shelves.items():
            strays += [(fqrn, unit) for unit in sorted(shelf.survey.unnamed, reverse=True)]
            shelf.drop(tuple(shelf.survey.unnamed))
            shelf.clear()
    oldest = sorted(
        ((use.last, fqrn.text, use.key, fqrn, use) for fqrn, shelf in shelves.items() for use in shelf.uses),
        key=lambda found: found[:3],
    )
    for last, _, _, fqrn, use in oldest:
        if sum(shelf.size for shelf in shelves.values()) <= wish.limit:
            break
        if not use.leased and last <= wish.until:
            departures.append(Departure(fqrn=fqrn, use=use, units=shelves[fqrn].leave(use)))
    return Plan(
        before=before,
        after=sum(shelf.size for shelf in shelves.values()),
        limit=wish.limit,
        departures=tuple(departures),
        strays=tuple(strays),
        files=tuple((fqrn, path) for fqrn, shelf in shelves.items() for path in shelf.gone),
        leased=sum(use.leased for survey in surveys for use in survey.uses),
    )


class _Shelf:
    """What would be left of a repository's part."""

    def __init__(self, survey: Survey, kept: frozenset[str]) -> None:
        self.survey = survey
        self.uses = list(survey.uses)
        self.gone: list[str] = []
        self._kept = kept
        self._units = dict(survey.units)
        self._store = dict(survey.store)
        self._users: dict[int, int] = {}
        self._blocks: dict[int, int] = {}
        for blocks in (*self._units.values(), dict(self._store.values())):
            for inode, size in blocks.items():
                self._users[inode] = self._users.get(inode, 0) + 1
                self._blocks[inode] = size
        self.size = sum(self._blocks.values())
        self._path_of = {inode: path for path, (inode, _) in self._store.items()}

    def clear(self) -> None:
        """Let go of the files that no unit has."""
        for path, (inode, _) in list(self._store.items()):
            if self._users.get(inode) == 1:
                self._forget(path, inode)

    def leave(self, use: Use) -> tuple[str, ...]:
        """Let go of an image, and say which units go with it: those that no other needs."""
        self.uses.remove(use)
        still = {unit for other in self.uses for unit in other.needs}
        units = tuple(unit for unit in use.needs if unit not in still and unit in self._units)
        self.drop(units)
        return units

    def drop(self, units: tuple[str, ...]) -> None:
        """Let go of units."""
        for unit in units:
            for inode in self._units.pop(unit, {}):
                self._release(inode)
                if self._users.get(inode) == 1 and inode in self._path_of:
                    self._forget(self._path_of[inode], inode)

    def _forget(self, path: str, inode: int) -> None:
        if not self.survey.at_work and path not in self._kept and path in self._store:
            del self._store[path]
            self.gone.append(path)
            self._release(inode)

    def _release(self, inode: int) -> None:
        self._users[inode] -= 1
        if not self._users[inode]:
            self.size -= self._blocks.pop(inode)
            del self._users[inode]


def look(directory: str, *, uid: int, now: float) -> tuple[Survey, ...]:
    """See what is in a cache, without changing anything but leases that have ended, if this user may.

    Raises:
        CacheError: it cannot be read, or others may write it.
    """
    with contextlib.ExitStack() as stack:
        if os.access(directory, os.W_OK):
            return tuple(usage.survey() for usage in _behind_gates(directory, uid, now, stack).values())
        # Another user's, such as root's for all: nothing in it can be changed, so there is no gate either.
        caches = [Cache(directory, fqrn, uid=uid) for fqrn in repositories(directory)]
        for cache in caches:
            cache.check()
        return tuple(Usage(cache, now).survey() for cache in caches)


def apply(directory: str, wish: Wish, *, uid: int, now: float) -> Plan:
    """Make a cache as small as it should be, as far as nobody runs on what is in it.

    Args:
        directory: the cache's.
        wish: how small.
        uid: the user, whose cache it is.
        now: seconds since 1970.

    Returns:
        What was done.

    Raises:
        CacheError: it cannot be written, or others may write it.
    """
    with contextlib.ExitStack() as stack:
        usages = _behind_gates(directory, uid, now, stack)
        while True:
            found = plan(tuple(usage.survey() for usage in usages.values()), wish)
            if _carry_out(found, usages):
                return found


def _carry_out(found: Plan, usages: Mapping[Fqrn, Usage]) -> bool:
    """Whether all went as planned; if not somebody has begun to run on an image, and another one must go."""
    for fqrn, unit in found.strays:
        usages[fqrn].remove(unit)
    for departure in found.departures:
        if not usages[departure.fqrn].take_out(departure.use, departure.units):
            return False
    for fqrn, path in found.files:
        usages[fqrn].remove_files((path,))
    return True


def _behind_gates(directory: str, uid: int, now: float, stack: contextlib.ExitStack) -> dict[Fqrn, Usage]:
    """All repositories, in the order of their names, so that two who prune never wait for each other."""
    usages = {}
    for fqrn in repositories(directory):
        cache = Cache(directory, fqrn, uid=uid)
        cache.check()
        cache.prepare(now)
        usages[fqrn] = Usage(cache, now)
        stack.enter_context(usages[fqrn].gate())
    return usages


def of_units(survey: Survey, use: Use) -> int:
    """Bytes of the units that an image needs."""
    blocks: dict[int, int] = {}
    for unit in use.needs:
        blocks.update(survey.units.get(unit, {}))
    return sum(blocks.values())
