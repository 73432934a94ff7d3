"""Garbage collection: old states go, and with them what only they are made of.

Theory of operation (decision 11 in ``docs/adr``). Kept are the present state, what was current at any time
since a moment, a number of states before the present one, and all tags; what channels point to lies inside the
present state. From their root catalogs every object that is needed is marked, by its key; catalogs that
several states share are read once. Then the log of references forgets the other states, durably, and only
after that everything that bears no mark is deleted, found by listing the storage: so a run that was killed is
finished by the next one, which need not know of it, and objects that nothing ever named go too. All of it
happens under the publisher's lock.

Forgotten root catalogs are deleted first, then the other catalogs, then the rest, so that a root catalog that
is there has all that it names.
"""

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.history import Tag
from headstart.cvmfs.objectkeys import Key, key_at, key_of, keys_in, name_of
from headstart.cvmfs.objects import Digest, Kind, ObjectName, inflate
from headstart.cvmfs.reflog import REFLOG_FILE, REFLOG_LIMIT, Reference, ReferenceKind, Reflog, present
from headstart.cvmfs.trust import CATALOG_LIMIT, MasterKeys
from headstart.errors import CorruptError, MissingError, StorageError
from headstart.keys import RepositoryKeys
from headstart.names import Fqrn
from headstart.repository.references import Held, read_whole, rewrite
from headstart.repository.replica import Replica, is_replica
from headstart.repository.state import Repository
from headstart.repository.statusfile import date_text, note
from headstart.store import Store

_CHECK: Final = "see what else is wrong: headstart repo check"


class Reason(enum.StrEnum):
    """Why a state is kept."""

    PRESENT = "present"
    TAG = "tag"
    RECENT = "recent"
    """Current at some time since the moment."""
    COUNTED = "counted"
    """One of the last revisions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """What to keep besides the present state and all tags."""

    revisions: int = 0
    """Before the present one."""
    since: datetime | None = None
    """Whatever was current at this moment or later; None for nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What becomes of each reference in the log."""

    kept: tuple[tuple[Reference, frozenset[Reason]], ...]
    """Root catalogs, and why."""
    others: tuple[Reference, ...]
    """Certificates, histories and meta information that stay."""
    forgotten: tuple[Reference, ...]

    @property
    def reflog(self) -> tuple[Reference, ...]:
        """What stays of the log, unordered."""
        return (*(reference for reference, _ in self.kept), *self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What a collection does, or did."""

    choice: Choice
    marked: int
    """Objects that stay because something kept is made of them."""
    condemned: Mapping[Kind, int] = field(default_factory=dict)
    """Objects to delete, by what they are."""
    size: int = 0
    """Bytes in them."""

    @property
    def objects(self) -> int:
        """How many objects go."""
        return sum(self.condemned.values())


def choose(reflog: Reflog, head: Digest, current: Iterable[Digest], tags: Sequence[Tag], keep: Keep) -> Choice:
    """Decide what to keep.

    Args:
        reflog: the log, in the order of publication.
        head: the present root catalog.
        current: everything that the manifest names.
        tags: all of them.
        keep: what more to keep.
    """
    catalogs = [item for item in reflog.references if item.kind is ReferenceKind.CATALOG]
    reasons: dict[Digest, set[Reason]] = {item.digest: set() for item in catalogs}
    reasons.setdefault(head, set()).add(Reason.PRESENT)
    for tag in tags:
        if tag.digest in reasons:
            reasons[tag.digest].add(Reason.TAG)
    # What stands behind the head was never current: its publication was killed before the manifest.
    place = next(number for number, item in enumerate(catalogs) if item.digest == head)
    before, behind = catalogs[:place], catalogs[place + 1 :]
    for item in before[-keep.revisions :] if keep.revisions else ():
        reasons[item.digest].add(Reason.COUNTED)
    if keep.since is not None:
        since = keep.since.timestamp()
        # Each was current until the next one came.
        for item, following in zip(before, catalogs[1 : place + 1], strict=True):
            if following.timestamp >= since:
                reasons[item.digest].add(Reason.RECENT)
        for item in behind:
            if item.timestamp >= since:
                reasons[item.digest].add(Reason.RECENT)
    kept = tuple((item, frozenset(reasons[item.digest])) for item in catalogs if reasons[item.digest])
    oldest = min(item.timestamp for item, why in kept if why != {Reason.TAG})
    named = set(current)
    rest = [item for item in reflog.references if item.kind is not ReferenceKind.CATALOG]
    others = tuple(item for item in rest if item.digest in named or item.timestamp >= oldest)
    stays = {item.digest for item, _ in kept} | {item.digest for item in others}
    forgotten = tuple(item for item in reflog.references if item.digest not in stays)
    return Choice(kept=kept, others=others, forgotten=forgotten)


class Marks:
    """The keys of all objects that some root catalogs are made of."""

    def __init__(self, fetch: Callable[[ObjectName], bytes]) -> None:
        self._fetch = fetch
        self.keys: Final[set[Key]] = set()

    def add(self, root: Digest) -> None:
        """Mark a root catalog and everything below it.

        Raises:
            MissingError, CorruptError: a catalog cannot be read, so nobody knows what it needs.
        """
        waiting = [(ObjectName(digest=root, kind=Kind.CATALOG), b"")]
        while waiting:
            name, mountpoint = waiting.pop()
            key = key_of(name)
            if key in self.keys:
                continue
            data = inflate(self._fetch(name), limit=CATALOG_LIMIT, what=str(name))
            catalog = Catalog.from_bytes(data, mountpoint=mountpoint)
            self.keys.add(key)
            self.keys.update(keys_in(catalog.rows.database))
            waiting += [
                (ObjectName(digest=item.digest, kind=Kind.CATALOG), path)
                for path, item in catalog.nested.items()
            ]


def plan(repository: Held, keep: Keep) -> tuple[Collection, tuple[Key, ...]]:
    """What a collection will do, and the objects that it will delete, in that order; nothing is written.

    Raises:
        MissingError, CorruptError: the log of references or a kept catalog is damaged or gone.
    """
    manifest, reflog, tags = repository.manifest, read_whole(repository), repository.history().tags
    current = [item.digest for item in present(manifest)]
    choice = choose(reflog, manifest.root_catalog, current, tags, keep)
    marks = Marks(repository.fetch)
    roots = [*(item.digest for item, _ in choice.kept), *(tag.digest for tag in tags)]
    for digest in dict.fromkeys(roots):
        try:
            marks.add(digest)
        except (MissingError, CorruptError) as error:
            raise type(error)(
                f"a state that is to be kept is damaged, so nothing is collected: {error.message}", hint=_CHECK
            ) from error
    marks.keys.update(key_of(item.name) for item in (*choice.others, *present(manifest)))
    condemned, size, marked = _unmarked(repository.store, marks.keys)
    roots_first = {key_of(item.name) for item in choice.forgotten}
    condemned.sort(key=lambda key: (key not in roots_first, key[-1:] != b"C", key))
    kinds = Counter(name_of(key).kind for key in condemned)
    return Collection(choice=choice, marked=marked, condemned=dict(kinds), size=size), tuple(condemned)


def _unmarked(store: Store, marks: set[Key]) -> tuple[list[Key], int, int]:
    """Objects in storage without a mark, their bytes, and how many have one; what is no object stays."""
    condemned: list[Key] = []
    size = marked = 0
    for listed in store.listing("data/"):
        key = key_at(listed.path)
        if key is None:
            continue
        if key in marks:
            marked += 1
        else:
            condemned.append(key)
            size += listed.size
    return condemned, size, marked


def collect(
    target: tuple[Store, RepositoryKeys],
    keep: Keep,
    now: datetime,
    *,
    enable: bool = False,
    announce: Callable[[Collection], None] = lambda _plan: None,
) -> Collection:
    """Collect garbage.

    Args:
        target: the storage and the keys of its repository.
        keep: what to keep besides the present state and all tags.
        now: UTC.
        enable: make a repository garbage-collectable that is not.
        announce: told what will be done before anything is.

    Raises:
        StorageError: the repository is not garbage-collectable, or cannot be written.
        LockedError: somebody publishes.
        MissingError, CorruptError: the log of references or a kept catalog is damaged or gone.
        TrustError: the present state does not hold.
    """
    store, keys = target
    with store.transaction() as into:
        repository = Repository.open(store, keys, now)
        refuse(repository, enable=enable)
        found, condemned = plan(repository, keep)
        announce(found)
        if found.choice.forgotten or not repository.manifest.garbage_collectable or _stale(repository):
            stays = {item.digest for item in found.choice.reflog}
            log = read_whole(repository)
            kept = tuple(item for item in log.references if item.digest in stays)
            rewrite(repository, into, Reflog(fqrn=log.fqrn, references=kept), now, collectable=True)
        into.delete(_paths(condemned))
        note(store, into, {"last_gc": date_text(now)})
    return found


def collect_mirror(
    target: tuple[Store, MasterKeys, Fqrn],
    keep: Keep,
    now: datetime,
    *,
    announce: Callable[[Collection], None] = lambda _plan: None,
) -> Collection:
    """Collect garbage in a mirror, whose log of references is its own: nothing is signed again.

    Args:
        target: the mirror's storage, whom to trust, and which repository it is of.
        keep: what to keep besides the present state and all tags.
        now: UTC.
        announce: told what will be done before anything is.

    Raises:
        StorageError: it is no mirror, the repository is not garbage-collectable, or it cannot be written.
        LockedError: a snapshot is being taken.
        MissingError, CorruptError: the log of references or a kept catalog is damaged or gone.
        TrustError: the present state does not hold.
    """
    store, keys, fqrn = target
    with store.transaction() as into:
        replica = Replica.open(store, keys, fqrn, now)
        refuse(replica, enable=False)
        found, condemned = plan(replica, keep)
        announce(found)
        if found.choice.forgotten:
            stays = {item.digest for item in found.choice.reflog}
            kept = tuple(item for item in read_whole(replica).references if item.digest in stays)
            into.replace(REFLOG_FILE, Reflog(fqrn=fqrn, references=kept).to_bytes())
        into.delete(_paths(condemned))
    return found


def refuse(repository: Held, *, enable: bool) -> None:
    """Refuse a repository whose replicas were not told that states may go (format section 9.2).

    Raises:
        StorageError: it is such a one.
    """
    if not repository.manifest.garbage_collectable and not enable:
        raise StorageError(
            f"{repository.fqrn} is not garbage-collectable: its manifest says G=no",
            hint="only its publisher can change that"
            if is_replica(repository.store)
            else "to say G=yes in it from now on, use --enable",
        )


def _stale(repository: Repository) -> bool:
    """Whether the manifest has another checksum than the log's, as a killed run leaves it."""
    data = repository.store.read(REFLOG_FILE, limit=REFLOG_LIMIT)
    return repository.manifest.reflog != repository.manifest.algorithm.digest(data)


def _paths(keys: Iterable[Key]) -> Iterator[str]:
    return (name_of(key).path for key in keys)
