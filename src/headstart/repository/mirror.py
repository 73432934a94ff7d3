"""A Stratum 1: a copy of a repository that is as good as the repository itself, and may be behind it.

Theory of operation (decision 13 in ``docs/adr``). What is to be copied is planned from what the source says of
itself and what the mirror has logged: the present state, every tag, and of earlier states those that came since
the last snapshot (at the first, all that the source has kept). First come objects and catalogs (``copying``),
then the mirror's own log of references, then the signed files as they are, byte for byte, the manifest last. So
a client sees the old state or the new one, and a run that was killed is finished by the next one, which looks
for what is there already. All of it happens under the storage's lock.

The log's times are those at which states came here, as in the real replicator: garbage collection asks how long
ago a state was current, and it was current here until the next one came.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objects import Digest, Kind, ObjectName, inflate
from headstart.cvmfs.reflog import REFLOG_FILE, Reference, ReferenceKind, present
from headstart.cvmfs.signature import CERTIFICATE_LIMIT, Certificate
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.errors import Error, MissingError, StorageError
from headstart.fetching import stored_limit
from headstart.repository.copying import Copy, State, Survey, Tally
from headstart.repository.origin import (
    NOTHING,
    PKCS7_FILE,
    Origin,
    Sought,
    Told,
    prove,
    refuse_going_back,
    told,
)
from headstart.repository.replica import (
    RUNNING_FILE,
    SNAPSHOT_FILE,
    Standing,
    read_object,
    snapshot_log,
)
from headstart.repository.statusfile import date_text, note
from headstart.snapshot import HISTORY_LIMIT
from headstart.store import NewStorage, Store, Transaction

_SMALL: Final = stored_limit(HISTORY_LIMIT)
"""Bytes that an object at the root of things may have: histories are the largest of them."""
_STATUS_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a snapshot will copy."""

    manifest: Manifest
    """The source's."""
    before: Manifest | None
    """The mirror's; None at the first snapshot."""
    states: tuple[State, ...]
    """In the order of publication, those that only a tag names first."""
    tagged: tuple[Reference, ...]
    """Root catalogs among them that only a tag names."""
    fresh: tuple[Reference, ...]
    """What the mirror's log gets beside them, in order."""
    small: tuple[Reference, ...]
    """Certificates, histories and meta information to look for."""
    in_hand: tuple[tuple[ObjectName, bytes], ...]
    """Objects among these that were read to make the plan."""
    base: Digest | None
    """The root catalog of a state that the mirror has as a whole."""

    @property
    def unchanged(self) -> bool:
        """Whether there is nothing to copy."""
        return not self.states and not self.fresh


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How to copy."""

    workers: int = 8
    keep: timedelta | None = None
    """Of earlier states only those that were current in this time; None for all that come into question."""
    recheck: bool = False
    """Look for every object of every state, whatever the log says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """What a snapshot did, or would do."""

    plan: Plan
    tally: Tally
    left_out: tuple[State, ...] = ()
    """Earlier states that the source does not have as a whole."""
    warnings: tuple[str, ...] = ()
    """Sentences on what did not go well once all was copied."""


def plan(origin: Origin, standing: Standing | None, told: Told, wishes: Wishes, now: datetime) -> Plan:
    """Decide what to copy.

    Args:
        origin: the source's state.
        standing: what the mirror has; None before its first snapshot.
        told: what the source tells of other states.
        wishes: how.
        now: UTC.
    """
    manifest = origin.manifest
    log = standing.reflog if standing is not None else None
    had = {item.digest: item for item in log.references} if log is not None else {}
    since = (now - wishes.keep).timestamp() if wishes.keep is not None else float("-inf")
    catalogs = _recent(told.catalogs, since)
    others = tuple(item for item in told.others if item.timestamp >= since)
    if standing is not None and log is not None:
        catalogs = _later(catalogs, standing.manifest)
        others = tuple(item for item in others if item.timestamp > standing.manifest.timestamp)
    heads = present(manifest)
    current = {item.digest for item in heads}
    named = {item.digest for item in catalogs} | {manifest.root_catalog}
    # Of several tags the first, because those that move by themselves stand at the end.
    labels = {tag.digest: f"tag {tag.name}" for tag in reversed(told.tags)} | {
        manifest.root_catalog: "the present state"
    }
    tagged = {tag.digest: tag.timestamp for tag in sorted(told.tags, key=lambda tag: tag.revision)}
    only_tagged = [digest for digest in tagged if digest not in named and digest not in had]
    in_order = [item.digest for item in catalogs if item.digest != manifest.root_catalog]
    wanted = [*only_tagged, *in_order, manifest.root_catalog]
    stamp = int(now.timestamp())
    # A root catalog that is logged came when it came; the others are put behind, as the real tool does it.
    after = [
        *(item for item in others if item.digest not in had and item.digest not in current),
        *(Reference(digest=digest, kind=ReferenceKind.CATALOG, timestamp=0) for digest in in_order),
        *heads,
    ]
    fresh = [item for item in after if item.digest not in had or _moves(item, standing, manifest)]
    small = [item for item in fresh if item.kind is not ReferenceKind.CATALOG]
    if wishes.recheck:
        small += [item for item in had.values() if item.kind is not ReferenceKind.CATALOG]
        old = [item.digest for item in had.values() if item.kind is ReferenceKind.CATALOG]
        wanted = list(dict.fromkeys([*old, *wanted]))
    else:
        wanted = [digest for digest in wanted if digest not in had]
    return Plan(
        manifest=manifest,
        before=standing.manifest if standing is not None else None,
        states=tuple(
            State(
                digest=digest,
                label=labels.get(digest, f"the earlier state {digest}"),
                demanded=digest in labels,
            )
            for digest in wanted
        ),
        tagged=tuple(
            Reference(digest=digest, kind=ReferenceKind.CATALOG, timestamp=stamp) for digest in only_tagged
        ),
        fresh=tuple(replace(item, timestamp=stamp) for item in fresh),
        small=tuple(dict.fromkeys(small)),
        in_hand=_in_hand(origin, told),
        base=standing.manifest.root_catalog if standing is not None and had and not wishes.recheck else None,
    )


def _in_hand(origin: Origin, told: Told) -> tuple[tuple[ObjectName, bytes], ...]:
    manifest = origin.manifest
    certificate = manifest.certificate_name, origin.certificate
    if manifest.history is None or told.history is None:
        return (certificate,)
    return certificate, (ObjectName(digest=manifest.history, kind=Kind.HISTORY), told.history)


def _moves(item: Reference, standing: Standing | None, manifest: Manifest) -> bool:
    """Whether something that is logged is logged again because the manifest has come back to it."""
    if item.kind is ReferenceKind.CATALOG or standing is None:
        return False
    return item.digest in {one.digest for one in present(manifest)} - {
        one.digest for one in present(standing.manifest)
    }


def _recent(catalogs: tuple[Reference, ...], since: float) -> tuple[Reference, ...]:
    """Those that were current at a moment or later: each was until the next one came."""
    ends = [*(item.timestamp for item in catalogs[1:]), float("inf")]
    return tuple(item for item, end in zip(catalogs, ends, strict=False) if end >= since)


def _later(catalogs: tuple[Reference, ...], manifest: Manifest) -> tuple[Reference, ...]:
    """Those behind a state, or after its time where it is not among them."""
    for place, item in enumerate(catalogs):
        if item.digest == manifest.root_catalog:
            return catalogs[place + 1 :]
    return tuple(item for item in catalogs if item.timestamp > manifest.timestamp)


def look(sought: Sought, store: Store, wishes: Wishes, now: datetime) -> Mirrored:
    """What a snapshot would do; nothing is written. All catalogs that the mirror lacks are read on the way.

    Raises:
        Error: as ``mirror``.
    """
    standing = Standing.read(store)
    origin = prove(sought, standing, now)
    found = _planned(sought, store, origin, standing, wishes, now)
    with Survey(sought.stratum, store, workers=wishes.workers) as survey:
        survey.add(item.name for item in found.small)
        for state in found.states:
            survey.visit(state, found.base)
    left_out = tuple(state for state in found.states if not survey.is_whole(state))
    return Mirrored(plan=found, tally=survey.tally, left_out=left_out)


def _planned(
    sought: Sought, store: Store, origin: Origin, standing: Standing | None, wishes: Wishes, now: datetime
) -> Plan:
    log = standing.reflog if standing is not None else None
    same = standing is not None and standing.published == origin.published
    if same and log is not None and not wishes.recheck:
        return plan(origin, standing, NOTHING, wishes, now)
    had = {item.digest for item in log.references} if log is not None else set()
    since = (now - wishes.keep).timestamp() if wishes.keep is not None else float("-inf")
    words = told(origin, sought.stratum, store, known=had.__contains__, since=since)
    return plan(origin, standing, words, wishes, now)


def mirror(
    sought: Sought,
    store: NewStorage,
    wishes: Wishes,
    now: datetime,
    *,
    announce: Callable[[Plan], None] = lambda _plan: None,
    progress: Callable[[Tally], None] = lambda _tally: None,
) -> Mirrored:
    """Take a snapshot.

    Args:
        sought: where from, and whom to trust.
        store: the mirror's storage, or what is to be one.
        wishes: how.
        now: UTC.
        announce: told what will be copied before anything is.
        progress: told what has been copied, now and then.

    Raises:
        StorageError: no repository, one that may not be replicated, or another one; the storage is not a
            mirror's, or cannot be written.
        LockedError: somebody else writes to the storage.
        TrustError: the chain does not hold, or the source is behind the mirror.
        MissingError, CorruptError: the source does not have all that it names, or damaged.
        UnavailableError: the source does not answer.
    """
    standing = Standing.read(store)
    origin = prove(sought, standing, now)
    if standing is None:
        _refuse_strangers(store)
    store.prepare()
    with store.transaction() as into:
        # Another run may have come to its end meanwhile.
        standing = Standing.read(store)
        if standing is not None:
            trusted = origin.trusted
            refuse_going_back(trusted.manifest, trusted.whitelist, standing, source=sought.stratum.name)
        found = _planned(sought, store, origin, standing, wishes, now)
        announce(found)
        date = f"{date_text(now)}\n".encode()
        into.replace(RUNNING_FILE, date)
        try:
            with Copy(sought.stratum, store, into, workers=wishes.workers, progress=progress) as copy:
                copied = _copy(copy, found)
            _try(store, origin, sought, now)
            _log(into, standing, copied)
            _show(store, into, origin, standing, date)
        except BaseException:
            with contextlib.suppress(Error):
                into.remove(RUNNING_FILE)
            raise
        return _ended(into, copied)


def _ended(into: Transaction, copied: Mirrored) -> Mirrored:
    """No run is at work any more; clients see the new state already."""
    try:
        into.remove(RUNNING_FILE)
    except Error as error:
        said = (
            f"all is copied, but {RUNNING_FILE} says still that a run is at work, until the next one: {error}"
        )
        return replace(copied, warnings=(said,))
    return copied


def _refuse_strangers(store: NewStorage) -> None:
    strangers = store.strangers()
    if strangers:
        raise StorageError(
            f"{store.name} holds something else: {strangers[0]}",
            hint="name a directory that is empty, not there yet, or a mirror's",
        )


def _copy(copy: Copy, found: Plan) -> Mirrored:
    copy.give(found.in_hand)
    copy.fetch((item.name, _SMALL) for item in found.small)
    for state in found.states:
        copy.visit(state, found.base)
    copy.finish()
    lost = {item.digest for item in found.small if copy.lacks(item.name)}
    for item in present(found.manifest):
        if item.digest in lost:
            raise MissingError(
                f"{item.name} is missing at the source, and its manifest names it",
                hint="tell its owner: nothing was changed here",
            )
    left_out = tuple(state for state in found.states if not copy.is_whole(state))
    lost |= {state.digest for state in left_out}
    fresh = tuple(item for item in found.fresh if item.digest not in lost)
    return Mirrored(plan=replace(found, fresh=fresh), tally=copy.tally, left_out=left_out)


def _try(store: Store, origin: Origin, sought: Sought, now: datetime) -> None:
    """Do what clients will do, on what the storage really gives.

    Raises:
        Error: they would refuse it.
    """
    claim = sought.keys.trust(origin.whitelist, fqrn=origin.manifest.fqrn, now=now).examine(origin.published)
    trusted = claim.prove(read_object(store, claim.certificate), blacklist=sought.blacklist)
    trusted.open_root(read_object(store, trusted.root_catalog))


def _log(into: Transaction, standing: Standing | None, copied: Mirrored) -> None:
    """Log what came; clients do not look at it."""
    fqrn = copied.plan.manifest.fqrn
    log = standing.reflog if standing is not None else None
    new = snapshot_log(fqrn, log.references if log is not None else (), copied.plan.tagged, copied.plan.fresh)
    if new != log:
        into.replace(REFLOG_FILE, new.to_bytes())


def _show(store: Store, into: Transaction, origin: Origin, standing: Standing | None, date: bytes) -> None:
    """Let clients see the new state: for them the rename of the manifest is all that counts."""
    for name, stored in _alternatives(store, origin.manifest):
        into.replace(name, stored)
    into.replace(SNAPSHOT_FILE, date)
    note(store, into, {"last_snapshot": date.decode().strip()})
    if origin.pkcs7 is not None:
        into.replace(PKCS7_FILE, origin.pkcs7)
    else:
        into.remove(PKCS7_FILE)
    letters = [(WHITELIST_FILE, origin.whitelist), (MANIFEST_FILE, origin.published)]
    if standing is not None and _manifest_first(store, standing, origin):
        letters.reverse()
    for name, content in letters:
        if not store.has(name) or store.read(name, limit=_STATUS_LIMIT) != content:
            into.replace(name, content)


def _manifest_first(store: Store, standing: Standing, origin: Origin) -> bool:
    """Whether only the old whitelist holds with both manifests: the new one has revoked the old certificate."""
    if standing.whitelist is None:
        return False
    try:
        name = standing.manifest.certificate_name
        pem = inflate(read_object(store, name), limit=CERTIFICATE_LIMIT, what=name.path)
        old = Certificate.from_pem(pem, what=name.path)
    except Error:
        return False
    revoked = not any(
        old.fingerprint(good.digest.algorithm) == good for good in origin.trusted.whitelist.fingerprints
    )
    new = origin.trusted.certificate
    known = any(new.fingerprint(good.digest.algorithm) == good for good in standing.whitelist.fingerprints)
    return revoked and known


def _alternatives(store: Store, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    """Copies of the root objects beside the manifest, where it says ``A`` (format section 1)."""
    if manifest.alternative_paths:
        for item in present(manifest):
            name = item.name
            yield f".cvmfsalt-{name.digest}{name.kind}", read_object(store, name)
