"""What a mirror copies from: a source's present state, proven like any client's, and the states before it.

The signed files are asked for past all caches. A source that is behind the mirror, or tells another story of a
revision that the mirror has, is refused before anything is written. Of earlier states the log of references
tells, as long as it is the very one that the manifest names; where it is not (a source that is a mirror itself
has its own), each root catalog names the one before it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from headstart.cvmfs.faults import Code
from headstart.cvmfs.history import Tag
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objects import Digest, Kind, ObjectName
from headstart.cvmfs.past import PastRoot, predecessors
from headstart.cvmfs.reflog import REFLOG_FILE, REFLOG_LIMIT, Reference, ReferenceKind, Reflog
from headstart.cvmfs.signature import CERTIFICATE_LIMIT, LETTER_LIMIT
from headstart.cvmfs.tagcheck import examine_history
from headstart.cvmfs.trust import CATALOG_LIMIT, NO_BLACKLIST, Blacklist, MasterKeys, TrustedManifest
from headstart.cvmfs.whitelist import WHITELIST_FILE, Whitelist
from headstart.errors import CorruptError, MissingError, StorageError, TrustError
from headstart.fetching import fetch_object, from_any, stored_limit
from headstart.inflating import inflate
from headstart.names import Fqrn
from headstart.repository.replica import REPLICA_MARKER, Standing, read_object
from headstart.snapshot import HISTORY_LIMIT
from headstart.store import Store
from headstart.stratum import Stratum

Digests = Callable[[Digest], bool]
"""A set of digests, asked for one of them."""
PKCS7_FILE: Final = ".cvmfswhitelist.pkcs7"
_PKCS7_LIMIT: Final = 1 << 20
_BEHIND: Final = "the source went back, or serves an old state: nothing was changed here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """Where to copy from, and whom to trust."""

    stratum: Stratum
    keys: MasterKeys
    fqrn: Fqrn | None
    """Which repository it must be; None for whichever the keys have signed."""
    blacklist: Blacklist = NO_BLACKLIST


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The proven present state of a source."""

    trusted: TrustedManifest
    published: bytes
    whitelist: bytes
    pkcs7: bytes | None
    """The older form of the whitelist's signature, where there is one; clients check it by themselves."""
    certificate: bytes
    """As stored."""

    @property
    def manifest(self) -> Manifest:
        """Its manifest."""
        return self.trusted.manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a proven state tells of others."""

    tags: tuple[Tag, ...]
    catalogs: tuple[Reference, ...]
    """Root catalogs in the order of publication, the present one last."""
    others: tuple[Reference, ...]
    """Certificates, histories and meta information of before."""
    history: bytes | None
    """As stored; None where it was not asked for, or there is none."""


NOTHING: Final = Told(tags=(), catalogs=(), others=(), history=None)
"""What there is to tell when nothing is new."""


def prove(sought: Sought, standing: Standing | None, now: datetime) -> Origin:
    """Prove what a source, or any of its servers, has.

    Args:
        sought: where.
        standing: what the mirror has already.
        now: UTC.

    Raises:
        StorageError: there is no repository, it may not be replicated, or is another one than the mirror's.
        TrustError: the chain does not hold, or the source is behind the mirror.
        CorruptError, MissingError, UnavailableError: a file of the chain is damaged, or cannot be had.
    """

    def ask(source: Stratum) -> Origin:
        if _optional(source, REPLICA_MARKER, _PKCS7_LIMIT) is None:
            raise StorageError(
                f"{source.name} may not be replicated: it has no {REPLICA_MARKER}",
                hint="check the address; its owner allows replication by that file",
            )
        whitelist = _signed(source, WHITELIST_FILE)
        published = _signed(source, MANIFEST_FILE)
        claim = sought.keys.trust(whitelist, fqrn=sought.fqrn, now=now).examine(published)
        certificate = fetch_object(source, claim.certificate, limit=stored_limit(CERTIFICATE_LIMIT))
        trusted = claim.prove(certificate, blacklist=sought.blacklist)
        if standing is not None:
            refuse_going_back(trusted.manifest, trusted.whitelist, standing, source=source.name)
        pkcs7 = _optional(source, PKCS7_FILE, _PKCS7_LIMIT)
        return Origin(
            trusted=trusted, published=published, whitelist=whitelist, pkcs7=pkcs7, certificate=certificate
        )

    return from_any(sought.stratum, ask)


def _signed(source: Stratum, name: str) -> bytes:
    try:
        return source.fetch(name, limit=LETTER_LIMIT, fresh=True)
    except MissingError as error:
        raise StorageError(
            f"{source.name} is no CVMFS repository: it has no {name}", hint="check the path or the address"
        ) from error


def _optional(source: Stratum, name: str, limit: int) -> bytes | None:
    try:
        return source.fetch(name, limit=limit, fresh=True)
    except MissingError:
        return None


def refuse_going_back(manifest: Manifest, whitelist: Whitelist, standing: Standing, *, source: str) -> None:
    """Refuse a state that clients of the mirror would refuse after the one they have.

    Raises:
        StorageError: it is of another repository.
        TrustError: it is older, or another one under the same number.
    """
    had = standing.manifest
    fqrn, revision = manifest.fqrn, manifest.revision
    if fqrn != had.fqrn:
        raise StorageError(
            f"{source} is {fqrn}, and this is a mirror of {had.fqrn}", hint="use another storage"
        )
    if revision < had.revision:
        raise TrustError(
            f"{source} is at revision {revision} of {fqrn}, and the mirror has {had.revision}", hint=_BEHIND
        )
    if revision == had.revision and manifest.root_catalog != had.root_catalog:
        raise TrustError(
            f"revision {revision} of {fqrn} is another one at {source} than in the mirror",
            hint="two states are published under one number: ask its owner; nothing was changed here",
        )
    if manifest.timestamp < had.timestamp:
        raise TrustError(
            f"{source} has a manifest of {fqrn} that is {had.timestamp - manifest.timestamp} s older than the "
            "mirror's",
            hint=_BEHIND,
        )
    if standing.whitelist is not None and whitelist.issued < standing.whitelist.issued:
        raise TrustError(
            f"{source} has a whitelist of {fqrn} of {whitelist.issued:%Y-%m-%d %H:%M} UTC, and the mirror has "
            "a newer one",
            hint=_BEHIND,
        )


def told(origin: Origin, stratum: Stratum, store: Store, *, known: Digests, since: float) -> Told:
    """Ask a source for the other states that there are.

    Args:
        origin: its proven state.
        stratum: where to read it.
        store: the mirror's, which may have some of the objects.
        known: tells of a root catalog whether the mirror has had it, so that nobody needs those before it.
        since: of no interest is what was replaced before, in seconds since 1970.

    Raises:
        CorruptError, MissingError, UnavailableError: the tag history or a root catalog cannot be had.
    """
    manifest = origin.manifest

    def fetch(name: ObjectName, limit: int) -> bytes:
        return read_object(store, name) if store.has(name.path) else fetch_object(stratum, name, limit=limit)

    tags: tuple[Tag, ...] = ()
    history = None
    if manifest.history is not None:
        name = ObjectName(digest=manifest.history, kind=Kind.HISTORY)
        history = fetch(name, stored_limit(HISTORY_LIMIT))
        data = inflate(history, limit=HISTORY_LIMIT, what=name.path)
        found = examine_history(data, manifest.fqrn)
        damage = [fault for fault in found.faults if fault.code is Code.HISTORY_DAMAGED]
        if damage:
            raise CorruptError(f"the tag history of {manifest.fqrn} at {stratum.name} {damage[0].text}")
        tags = found.tags
    log = _proven_log(manifest, stratum)
    if log is None:
        head = PastRoot(digest=manifest.root_catalog, revision=manifest.revision, size=manifest.root_size)
        chain = predecessors(head, lambda name: fetch(name, stored_limit(CATALOG_LIMIT)))
        return Told(tags=tags, catalogs=_back_to(chain, known, since), others=(), history=history)
    catalogs = [item for item in log.references if item.kind is ReferenceKind.CATALOG]
    # What stands behind the head was never current: its publication has not come to its end.
    place = next(
        (number for number, item in enumerate(catalogs) if item.digest == manifest.root_catalog), len(catalogs)
    )
    others = tuple(item for item in log.references if item.kind is not ReferenceKind.CATALOG)
    return Told(tags=tags, catalogs=tuple(catalogs[: place + 1]), others=others, history=history)


def _proven_log(manifest: Manifest, stratum: Stratum) -> Reflog | None:
    """The log of references, where the manifest vouches for it."""
    if manifest.reflog is None:
        return None
    try:
        data = stratum.fetch(REFLOG_FILE, limit=REFLOG_LIMIT, fresh=True)
        if manifest.reflog.algorithm.digest(data) != manifest.reflog:
            return None
        return Reflog.from_bytes(data, fqrn=manifest.fqrn)
    except (MissingError, CorruptError):
        return None


def _back_to(chain: Iterator[PastRoot], known: Digests, since: float) -> tuple[Reference, ...]:
    """Root catalogs from the present one back to one that the mirror has had, oldest first."""
    found: list[Reference] = []
    for root in chain:
        when = root.timestamp or 0
        found.append(Reference(digest=root.digest, kind=ReferenceKind.CATALOG, timestamp=when))
        if known(root.digest) or when < since:
            break
    return tuple(reversed(found))
