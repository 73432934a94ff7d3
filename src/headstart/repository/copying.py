"""Copying states of a repository from a source into a storage, so that a kill at any moment loses little.

Theory of operation. A state is a tree of catalogs, and each catalog names the objects of its files. The trees
are walked depth first. Objects that the storage lacks are gathered into rounds over catalog after catalog; a
round fetches them with several threads, compares each with its name, and settles them, durably. A catalog is
put only after a round that has settled all its objects and the catalogs below it; so it is in place only when
everything below it is, as the real replicator has it too, and a root catalog in place is a whole state.

Which parts of a new state are there is learnt from a state that the mirror has logged as whole: where both have
the same catalog at the same place, nothing below it is looked at. That a catalog merely exists proves less
(garbage collection that was killed leaves some without what they name), so such a one is read from the storage
and everything it names looked for; that takes no request.

A state that the source has lost while it was copied (garbage was collected there) is left out when nothing
demands it: its catalogs are not put.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, Self

from headstart.crew import Crew
from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.database import Database
from headstart.cvmfs.entry import Compression
from headstart.cvmfs.objectkeys import Key, contents_in, key_of, keys_in, name_of
from headstart.cvmfs.objects import Digest, Kind, ObjectName
from headstart.cvmfs.rows import Nested
from headstart.cvmfs.trust import CATALOG_LIMIT
from headstart.errors import CorruptError, Error, MissingError
from headstart.fetching import fetch_object, stored_limit
from headstart.inflating import inflate
from headstart.repository.replica import read_object
from headstart.store import Store, Transaction
from headstart.stratum import Stratum

_ROUND: Final = 2000
"""Objects of a round: each round waits for the disk twice."""
_ROUND_BYTES: Final = 1 << 28
"""And bytes in them, inflated, so that a kill loses no more."""
_MOST: Final = 1 << 32
_MOST_UNSAID: Final = 1 << 30
"""Bytes that an object may have whose row says nothing that can be read."""
_AGAIN: Final = "the source has changed meanwhile, or is damaged: run it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A state to copy."""

    digest: Digest
    """Its root catalog's."""
    label: str
    """How messages call it."""
    demanded: bool
    """Whether the mirror may not do without: the present state and tags."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was, or is to be, copied."""

    objects: int = 0
    size: int = 0
    """Bytes as stored; of a survey, bytes of content: what the stored ones are is not known."""
    catalogs: int = 0
    """Among the objects."""
    looked_at: int = 0
    """Objects that were looked for."""


class _Size(NamedTuple):
    content: int
    """Bytes, inflated."""
    limit: int
    """Bytes that it may have as stored."""


_UNSAID: Final = _Size(0, 0)


@dataclass(slots=True, eq=False, kw_only=True)
class _Node:
    """A catalog on its way."""

    name: ObjectName
    mountpoint: bytes
    state: State | None
    stored: bytes | None
    """What is to be put; None where it is in place."""
    base: Mapping[bytes, Nested]
    """The catalogs below the one at the same place in a state that is whole."""
    waiting: deque[tuple[bytes, Nested]]
    """Catalogs below it that were not visited yet."""
    ahead: deque[tuple[bytes, Nested, Future[tuple[bytes, bool]]]] = field(default_factory=deque)
    """Those of them that are being fetched."""
    parents: list["_Node"] = field(default_factory=list)
    ready: int = 0
    """The round after which all that it names is settled."""
    settled: int = 0
    """The round after which it is itself."""
    broken: Error | None = None
    """Why it cannot be completed."""


@dataclass(slots=True, kw_only=True)
class _Task:
    name: ObjectName
    limit: int
    nodes: list[_Node]


class Walk:
    """The way through the catalogs of some states, with what both a survey and a copy need.

    Args:
        source: where to read what the storage does not have.
        store: the mirror's.
        workers: how many threads fetch.
    """

    def __init__(self, source: Stratum, store: Store, *, workers: int) -> None:
        self._source = source
        self._store = store
        self._workers = workers
        self._crew = Crew(workers)
        self._nodes: dict[Key, _Node] = {}
        self._lost: dict[Key, MissingError] = {}
        self.tally: Final = Tally()

    def __enter__(self) -> Self:
        self._crew.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._crew.__exit__()

    def visit(self, state: State, base: Digest | None) -> None:
        """Walk through a state.

        Args:
            state: which.
            base: the root catalog of a state that the storage has as a whole; None where there is none.

        Raises:
            MissingError: a state that is demanded is not whole at the source.
            CorruptError: an object, or a catalog, is damaged.
            UnavailableError, StorageError: the source cannot be read, or the storage not written.
        """
        name = ObjectName(digest=state.digest, kind=Kind.CATALOG)
        if key_of(name) in self._nodes:
            return
        try:
            stored, there = self._load(name)
        except MissingError as error:
            if state.demanded:
                raise _incomplete(state, error) from error
            return
        stack = [self._open((name, b"", stored, there), state, self._nested_in(base, b""))]
        while stack:
            node = stack[-1]
            below = None if node.broken is not None else self._next(node)
            if below is not None:
                stack.append(below)
                continue
            stack.pop()
            for _, _, future in node.ahead:
                future.cancel()
            if node.broken is None:
                self._close(node)

    def is_whole(self, state: State) -> bool:
        """Whether a state that was visited can be complete."""
        node = self._nodes.get(key_of(ObjectName(digest=state.digest, kind=Kind.CATALOG)))
        return node is not None and node.broken is None

    def _next(self, node: _Node) -> _Node | None:
        """The next catalog below one that has to be gone through."""
        while True:
            while node.waiting and len(node.ahead) < self._workers:
                path, item = node.waiting.popleft()
                other = node.base.get(path)
                if other is not None and other.digest == item.digest:
                    continue
                name = ObjectName(digest=item.digest, kind=Kind.CATALOG)
                known = self._nodes.get(key_of(name))
                if known is None:
                    node.ahead.append((path, item, self._crew.submit(partial(self._load, name))))
                else:
                    self._attach(known, node)
            if not node.ahead or node.broken is not None:
                return None
            path, item, future = node.ahead.popleft()
            name = ObjectName(digest=item.digest, kind=Kind.CATALOG)
            try:
                stored, there = future.result()
            except MissingError as error:
                self._break(node, error)
                return None
            other = node.base.get(path)
            nested = self._nested_in(other.digest if other is not None else None, path)
            below = self._open((name, path, stored, there), None, nested)
            self._attach(below, node)
            return below

    def _attach(self, below: _Node, node: _Node) -> None:
        below.parents.append(node)
        node.ready = max(node.ready, below.settled)
        if below.broken is not None:
            self._break(node, below.broken)

    def _load(self, name: ObjectName) -> tuple[bytes, bool]:
        """A catalog as stored, and whether it is in place."""
        if self._store.has(name.path):
            try:
                return read_object(self._store, name), True
            except CorruptError as error:
                raise CorruptError(
                    f"{name} in {self._store.name} is damaged", hint="delete this file, and run it again"
                ) from error
        return fetch_object(self._source, name, limit=stored_limit(CATALOG_LIMIT)), False

    def _open(
        self, loaded: tuple[ObjectName, bytes, bytes, bool], state: State | None, base: Mapping[bytes, Nested]
    ) -> _Node:
        name, mountpoint, stored, there = loaded
        database = inflate(stored, limit=CATALOG_LIMIT, what=name.path)
        catalog = Catalog.from_bytes(database, mountpoint=mountpoint)
        node = _Node(
            name=name,
            mountpoint=mountpoint,
            state=state,
            stored=None if there else stored,
            base=base,
            waiting=deque(catalog.nested.items()),
        )
        self._nodes[key_of(name)] = node
        self._want(node, _sizes(catalog.rows.database))
        return node

    def _nested_in(self, base: Digest | None, mountpoint: bytes) -> Mapping[bytes, Nested]:
        """The catalogs that one in the storage names; none where it cannot be read."""
        if base is None:
            return {}
        name = ObjectName(digest=base, kind=Kind.CATALOG)
        try:
            database = inflate(read_object(self._store, name), limit=CATALOG_LIMIT, what=name.path)
            return Catalog.from_bytes(database, mountpoint=mountpoint).nested
        except (MissingError, CorruptError):
            return {}

    def _break(self, node: _Node, error: Error) -> None:
        """Give up a catalog and all that name it.

        Raises:
            MissingError: one of them is demanded.
        """
        waiting = [node]
        while waiting:
            one = waiting.pop()
            if one.broken is not None:
                continue
            one.broken = error
            one.stored = None
            if one.state is not None and one.state.demanded:
                raise _incomplete(one.state, error) from error
            waiting += one.parents

    def _want(self, node: _Node, sizes: Mapping[Key, _Size]) -> None:
        """See to the objects that a catalog names."""
        raise NotImplementedError

    def _close(self, node: _Node) -> None:
        """See to a catalog of which all below it was visited."""
        raise NotImplementedError


def _incomplete(state: State, error: Error) -> MissingError:
    return MissingError(f"{state.label} cannot be copied: {error.message}", hint=_AGAIN)


def _sizes(database: Database) -> dict[Key, _Size]:
    """The objects that a catalog's files are stored in, by size."""
    sizes: dict[Key, _Size] = {}
    for content in contents_in(database):
        limit = min(stored_limit(content.size, Compression(content.compression)), _MOST)
        sizes[content.key] = max(_Size(content.size, limit), sizes.get(content.key, _UNSAID))
    for key in keys_in(database):
        # Its row has a size or a compression that nobody knows.
        if key not in sizes:
            sizes[key] = _Size(0, _MOST_UNSAID)
    return sizes


class Survey(Walk):
    """Counting what a copy would fetch. Catalogs are read on the way, and forgotten."""

    def __init__(self, source: Stratum, store: Store, *, workers: int) -> None:
        super().__init__(source, store, workers=workers)
        self._wanted: set[Key] = set()

    def add(self, names: Iterable[ObjectName]) -> None:
        """Count objects that no catalog names, whose size nobody says."""
        self.tally.objects += sum(not self._store.has(name.path) for name in names)

    def _want(self, node: _Node, sizes: Mapping[Key, _Size]) -> None:  # noqa: ARG002 - the other one's
        for key, size in sizes.items():
            self.tally.looked_at += 1
            if key not in self._wanted and not self._store.has(name_of(key).path):
                self._wanted.add(key)
                self.tally.objects += 1
                self.tally.size += size.content

    def _close(self, node: _Node) -> None:
        if node.stored is not None:
            self.tally.objects += 1
            self.tally.catalogs += 1
            self.tally.size += len(node.stored)
            node.stored = None


class Copy(Walk):
    """Copying for real.

    Args:
        source: where from.
        store: where to.
        into: its writer.
        workers: how many threads fetch.
        progress: told of what has been copied so far, now and then.
    """

    def __init__(
        self,
        source: Stratum,
        store: Store,
        into: Transaction,
        *,
        workers: int,
        progress: Callable[[Tally], None] = lambda _tally: None,
    ) -> None:
        super().__init__(source, store, workers=workers)
        self._into = into
        self._progress = progress
        self._lock = threading.Lock()
        self._round: dict[Key, _Task] = {}
        self._round_bytes = 0
        self._rounds = 0
        self._pending: list[_Node] = []
        self._staged = False
        self._given: set[Key] = set()

    def give(self, objects: Iterable[tuple[ObjectName, bytes]]) -> None:
        """Take objects that were read before, compared with their names."""
        for name, stored in objects:
            self._count(self._into.put(name, stored), len(stored))
            self._given.add(key_of(name))
        self._staged = True

    def fetch(self, names: Iterable[tuple[ObjectName, int]]) -> None:
        """Copy objects that no catalog names, each with the bytes that it may have; see ``lacks``."""
        for name, limit in names:
            if key_of(name) not in self._given and not self._store.has(name.path):
                self._add(key_of(name), limit, ())

    def lacks(self, name: ObjectName) -> bool:
        """Whether the source did not have an object that was to be copied."""
        return key_of(name) in self._lost

    def finish(self) -> None:
        """Bring everything to its place.

        Raises:
            MissingError: a state that is demanded is not whole at the source.
            CorruptError, UnavailableError, StorageError: as ``visit``.
        """
        while self._round or self._pending or self._staged:
            self._settle()

    def _want(self, node: _Node, sizes: Mapping[Key, _Size]) -> None:
        for key, size in sizes.items():
            self.tally.looked_at += 1
            if key in self._lost:
                self._break(node, self._lost[key])
                return
            if key in self._round or not self._store.has(name_of(key).path):
                node.ready = self._rounds + 1
                self._add(key, size.limit, (node,))
                if node.broken is not None:
                    return

    def _add(self, key: Key, limit: int, nodes: Iterable[_Node]) -> None:
        task = self._round.get(key)
        if task is not None:
            task.nodes.extend(nodes)
            return
        self._round[key] = _Task(name=name_of(key), limit=limit, nodes=list(nodes))
        self._round_bytes += limit
        if len(self._round) >= _ROUND or self._round_bytes >= _ROUND_BYTES:
            self._settle()

    def _close(self, node: _Node) -> None:
        node.base = {}
        if node.stored is None:
            node.settled = node.ready
        elif node.ready <= self._rounds:
            self._put(node)
            node.settled = self._rounds + 1
        else:
            self._pending.append(node)
            node.settled = node.ready + 1
        for parent in node.parents:
            parent.ready = max(parent.ready, node.settled)

    def _put(self, node: _Node) -> None:
        assert node.stored is not None  # noqa: S101  # asked by the caller
        self._count(self._into.put(node.name, node.stored), len(node.stored))
        self.tally.catalogs += 1
        self._staged = True
        node.stored = None

    def _settle(self) -> None:
        """One round: fetch, settle, and put the catalogs that waited for it."""
        tasks = sorted(self._round.values(), key=lambda task: -task.limit)
        self._round = {}
        self._round_bytes = 0
        self._crew.all(tasks, self._copy)
        self._into.settle()
        self._staged = False
        self._rounds += 1
        for task in tasks if self._lost else ():
            error = self._lost.get(key_of(task.name))
            if error is not None:
                for node in task.nodes:
                    self._break(node, error)
        waiting, self._pending = self._pending, []
        for node in waiting:
            if node.broken is not None:
                continue
            if node.ready <= self._rounds:
                self._put(node)
            else:
                self._pending.append(node)
        self._progress(self.tally)

    def _copy(self, task: _Task, stop: threading.Event) -> None:
        try:
            stored = fetch_object(self._source, task.name, limit=task.limit)
        except MissingError as error:
            with self._lock:
                self._lost[key_of(task.name)] = error
            return
        if not stop.is_set():
            self._count(self._into.put(task.name, stored), len(stored))

    def _count(self, new: bool, size: int) -> None:  # noqa: FBT001 - what the store says
        with self._lock:
            self.tally.objects += new
            self.tally.size += size if new else 0
