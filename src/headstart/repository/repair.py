"""Mending what can be mended without guessing: the log of references, missing directories, leftovers.

The log says which states there were. What it must have is known from elsewhere: the manifest names the present
objects, the history its tags and the history before it, and each root catalog the one before it. A state that
is only known as another one's predecessor is taken up again if everything it is made of is there: garbage
collection may have forgotten it and been killed while it deleted it. Entries whose object is gone are dropped.

Nothing else is touched: a damaged object has to come from a copy, and wrong rows have to be published anew.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.history import History
from headstart.cvmfs.objectkeys import Key, key_at
from headstart.cvmfs.objects import Digest, Kind, ObjectName, inflate
from headstart.cvmfs.reflog import REFLOG_FILE, REFLOG_LIMIT, Reference, ReferenceKind, Reflog, present
from headstart.cvmfs.tagcheck import examine_reflog
from headstart.cvmfs.trust import CATALOG_LIMIT
from headstart.errors import CorruptError, MissingError
from headstart.keys import RepositoryKeys
from headstart.repository.gc import Marks
from headstart.repository.references import rewrite
from headstart.repository.state import Repository
from headstart.snapshot import HISTORY_LIMIT
from headstart.store import DirectoryStore, Store

_OLD: Final = timedelta(days=1)
"""How long ago a file of somebody else's publication must have been written to be a leftover."""
_TXN: Final = "data/txn/"
_OWN: Final = ("data/txn/headstart/", "data/txn/headstart.lock")
"""What a transaction sees to by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What is, or was, mended."""

    directories: tuple[str, ...] = ()
    """Made."""
    leftovers: tuple[str, ...] = ()
    """Deleted."""
    reflog: Reflog | None = None
    """The new log of references; None where the present one stays."""
    added: tuple[Reference, ...] = ()
    dropped: tuple[Reference, ...] = ()
    """Of the log."""
    resigned: bool = False
    """Whether the manifest gets the log's checksum."""

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.directories or self.leftovers or self.resigned)


def plan(repository: Repository, now: datetime) -> Repair:
    """What there is to mend; nothing is written.

    Raises:
        MissingError, CorruptError: the present root catalog or history is damaged or gone.
    """
    store = repository.store
    log, data = _log(repository)
    old = {item.digest: item for item in log}
    wanted = _mended(repository, log)
    new = {item.digest: item for item in wanted}
    reflog = Reflog(fqrn=repository.fqrn, references=wanted)
    same = data is not None and wanted == log and _reads(data, repository)
    resigned = not same or repository.manifest.reflog != repository.manifest.algorithm.digest(data or b"")
    return Repair(
        directories=tuple(store.lacking()) if isinstance(store, DirectoryStore) else (),
        leftovers=tuple(sorted(_leftovers(store, now))),
        reflog=None if same else reflog,
        added=tuple(item for item in wanted if item.digest not in old),
        dropped=tuple(item for item in log if item.digest not in new),
        resigned=resigned,
    )


def repair(
    target: tuple[Store, RepositoryKeys],
    now: datetime,
    *,
    announce: Callable[[Repair], None] = lambda _plan: None,
) -> Repair:
    """Mend what can be mended.

    Args:
        target: the storage and the keys of its repository.
        now: UTC.
        announce: told what will be done before anything is.

    Raises:
        LockedError: somebody publishes.
        TrustError, MissingError, CorruptError: the present state does not hold, so nothing can be signed again.
        StorageError: it cannot be written.
    """
    store, keys = target
    if isinstance(store, DirectoryStore):
        lacking = tuple(store.lacking())
        if lacking:
            store.prepare()
    else:
        lacking = ()
    with store.transaction() as into:
        repository = Repository.open(store, keys, now)
        found = plan(repository, now)
        announce(found)
        if found.resigned:
            log = found.reflog or Reflog(fqrn=repository.fqrn, references=_log(repository)[0])
            rewrite(repository, into, log, now)
        into.delete(found.leftovers)
    return Repair(
        directories=lacking,
        leftovers=found.leftovers,
        reflog=found.reflog,
        added=found.added,
        dropped=found.dropped,
        resigned=found.resigned,
    )


def _log(repository: Repository) -> tuple[tuple[Reference, ...], bytes | None]:
    """What of the log can be read, and its bytes where there are any."""
    try:
        data = repository.store.read(REFLOG_FILE, limit=REFLOG_LIMIT)
    except (MissingError, CorruptError):
        return (), None
    return examine_reflog(data, repository.fqrn).references, data


def _reads(data: bytes, repository: Repository) -> bool:
    return not examine_reflog(data, repository.fqrn).faults


def _mended(repository: Repository, log: tuple[Reference, ...]) -> tuple[Reference, ...]:
    """The log as it should be: in order of time, what is present last."""
    store, manifest = repository.store, repository.manifest
    there = [item for item in log if store.has(item.name.path)]
    found = {item.digest: item for item in there}
    heads = present(manifest)
    for item in (*_histories(repository), *_tagged(repository), *heads):
        found.setdefault(item.digest, item)
    before: list[Reference] = []
    keys: set[Key] = set()
    for item in _predecessors(repository, list(found.values())):
        if item.digest not in found:
            keys = keys or _all_keys(store)
            if _whole(repository, item.digest, keys):
                before.append(item)
    if not before and len(found) == len(there):
        return tuple(there)
    last = {item.digest for item in heads}
    # Each was found after the one that follows it; of the same second, it comes before that one.
    ordered = sorted((*reversed(before), *found.values()), key=lambda item: item.timestamp)
    return (*(item for item in ordered if item.digest not in last), *(found[item.digest] for item in heads))


def _histories(repository: Repository) -> Iterator[Reference]:
    """The histories before the present one, as far as they are there and good."""
    history = repository.history()
    seen: set[Digest] = set()
    while (digest := history.previous) is not None and digest not in seen:
        seen.add(digest)
        name = ObjectName(digest=digest, kind=Kind.HISTORY)
        try:
            data = inflate(repository.fetch(name), limit=HISTORY_LIMIT, what=str(name))
            history = History.from_bytes(data, fqrn=repository.fqrn)
        except (MissingError, CorruptError):
            return
        when = max((tag.timestamp for tag in history.tags), default=0)
        yield Reference(digest=digest, kind=ReferenceKind.HISTORY, timestamp=when)


def _tagged(repository: Repository) -> Iterator[Reference]:
    for tag in repository.history().tags:
        if repository.store.has(ObjectName(digest=tag.digest, kind=Kind.CATALOG).path):
            yield Reference(digest=tag.digest, kind=ReferenceKind.CATALOG, timestamp=tag.timestamp)


def _predecessors(repository: Repository, known: list[Reference]) -> Iterator[Reference]:
    """The root catalogs that came before known ones, as far as they are there and good."""
    waiting = [item.digest for item in known if item.kind is ReferenceKind.CATALOG]
    seen = set(waiting)
    while waiting:
        catalog = _root(repository, waiting.pop())
        previous = catalog.previous_revision if catalog is not None else None
        if previous is None or previous in seen:
            continue
        seen.add(previous)
        before = _root(repository, previous)
        if before is not None:
            yield Reference(digest=previous, kind=ReferenceKind.CATALOG, timestamp=before.last_modified)
            waiting.append(previous)


def _root(repository: Repository, digest: Digest) -> Catalog | None:
    name = ObjectName(digest=digest, kind=Kind.CATALOG)
    try:
        data = inflate(repository.fetch(name), limit=CATALOG_LIMIT, what=str(name))
        return Catalog.from_bytes(data, mountpoint=b"")
    except (MissingError, CorruptError):
        return None


def _all_keys(store: Store) -> set[Key]:
    return {key for listed in store.listing("data/") if (key := key_at(listed.path)) is not None}


def _whole(repository: Repository, digest: Digest, there: set[Key]) -> bool:
    """Whether everything that a state is made of is in storage."""
    marks = Marks(repository.fetch)
    try:
        marks.add(digest)
    except (MissingError, CorruptError):
        return False
    return marks.keys <= there


def _leftovers(store: Store, now: datetime) -> Iterator[str]:
    limit = (now - _OLD).timestamp()
    for listed in store.listing(_TXN):
        if not listed.path.startswith(_OWN) and listed.modified < limit:
            yield listed.path
