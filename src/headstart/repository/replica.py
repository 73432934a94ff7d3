"""A mirror in its storage: what makes it one, what it shows, and its state as garbage collection needs it.

A mirror (a Stratum 1) is told by ``.cvmfs_last_snapshot``, which it has since before its first manifest. Its
manifest is the publisher's, byte for byte, and its log of references is its own, so the checksum in the one is
not of the other (format section 13). Nobody publishes to it: its next snapshot would be refused as a fork.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from headstart.cvmfs.history import History
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objects import Kind, ObjectName, inflate
from headstart.cvmfs.reflog import REFLOG_FILE, REFLOG_LIMIT, Reference, Reflog, present
from headstart.cvmfs.signature import LETTER_LIMIT, Letter
from headstart.cvmfs.trust import MasterKeys
from headstart.cvmfs.whitelist import WHITELIST_FILE, Whitelist
from headstart.errors import ConfigurationError, CorruptError, MissingError, StorageError, TrustError
from headstart.names import Fqrn
from headstart.snapshot import HISTORY_LIMIT
from headstart.store import Store

REPLICA_MARKER: Final = ".cvmfs_master_replica"
"""By which a publisher allows replication."""
SNAPSHOT_FILE: Final = ".cvmfs_last_snapshot"
RUNNING_FILE: Final = ".cvmfs_is_snapshotting"
OBJECT_LIMIT: Final = 1 << 28
"""Bytes that an object at the root of things may have as stored."""


def is_replica(store: Store) -> bool:
    """Whether a storage is a mirror's."""
    return store.has(SNAPSHOT_FILE)


def refuse_replica(store: Store) -> None:
    """Refuse to write to a mirror as its publisher.

    Raises:
        StorageError: it is a mirror.
    """
    if is_replica(store):
        raise StorageError(
            f"{store.name} is a mirror: it has {SNAPSHOT_FILE}",
            hint="write to the storage that it is a mirror of, or delete this file to make it one of its own",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a mirror shows before a snapshot."""

    manifest: Manifest
    published: bytes
    """Its file."""
    whitelist: Whitelist | None
    """None where it cannot be read: the next one takes its place."""
    reflog: Reflog | None
    """None where it cannot be relied on."""

    @classmethod
    def read(cls, store: Store) -> Self | None:
        """Read it; None where there is no manifest yet.

        Nothing is proven here: what is read only decides what is left alone or refused.

        Raises:
            StorageError: the storage is not a mirror's.
            CorruptError: the manifest is damaged.
        """
        try:
            published = store.read(MANIFEST_FILE, limit=LETTER_LIMIT)
        except MissingError:
            return None
        if not is_replica(store):
            raise StorageError(
                f"{store.name} has a repository that is no mirror: there is no {SNAPSHOT_FILE}",
                hint="name another place for the mirror",
            )
        try:
            manifest = Manifest.from_bytes(Letter.cut(published, what=MANIFEST_FILE).text)
        except CorruptError as error:
            raise CorruptError(
                f"the manifest of the mirror {store.name} is damaged: {error.message}",
                hint=f"delete its {MANIFEST_FILE}: the next run writes it, and fetches no object again",
            ) from error
        return cls(
            manifest=manifest,
            published=published,
            whitelist=_whitelist(store),
            reflog=_reflog(store, manifest),
        )


def _whitelist(store: Store) -> Whitelist | None:
    try:
        data = store.read(WHITELIST_FILE, limit=LETTER_LIMIT)
        return Whitelist.from_bytes(Letter.cut(data, what=WHITELIST_FILE).text)
    except (MissingError, CorruptError, TrustError, ConfigurationError):
        return None


def _reflog(store: Store, manifest: Manifest) -> Reflog | None:
    try:
        found = Reflog.from_bytes(store.read(REFLOG_FILE, limit=REFLOG_LIMIT), fqrn=manifest.fqrn)
    except (MissingError, CorruptError):
        return None
    known = {item.digest for item in found.references}
    return found if all(item.digest in known for item in present(manifest)) else None


def snapshot_log(
    fqrn: Fqrn, old: Iterable[Reference], tagged: Iterable[Reference], fresh: Iterable[Reference]
) -> Reflog:
    """The log after a snapshot.

    Args:
        fqrn: the repository.
        old: what it was.
        tagged: root catalogs that came only because a tag names them, of no known place in the order.
        fresh: what came otherwise, in the order of publication, the present state last.
    """
    known = tuple(old)
    there = {item.digest for item in known}
    last = {item.digest: item for item in fresh}
    first = {item.digest: item for item in tagged if item.digest not in there and item.digest not in last}
    kept = tuple(item for item in known if item.digest not in last)
    return Reflog(fqrn=fqrn, references=(*first.values(), *kept, *last.values()))


class Replica:
    """The present state of a mirror, proven with public keys: what garbage collection works on."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store: Final = store
        self.manifest: Final = manifest

    @classmethod
    def open(cls, store: Store, keys: MasterKeys, fqrn: Fqrn, now: datetime) -> Self:
        """Prove it.

        Raises:
            StorageError: there is no mirror.
            TrustError: the chain does not hold.
            CorruptError, MissingError: an object is damaged or gone.
        """
        if not is_replica(store) or not store.has(MANIFEST_FILE):
            raise StorageError(f"{store.name} is no mirror", hint="make one first: headstart repo mirror")
        whitelist = store.read(WHITELIST_FILE, limit=LETTER_LIMIT)
        published = store.read(MANIFEST_FILE, limit=LETTER_LIMIT)
        claim = keys.trust(whitelist, fqrn=fqrn, now=now).examine(published)
        return cls(store, claim.prove(read_object(store, claim.certificate)).manifest)

    @property
    def fqrn(self) -> Fqrn:
        """Its name."""
        return self.manifest.fqrn

    def fetch(self, name: ObjectName) -> bytes:
        """An object as stored, compared with its name.

        Raises:
            MissingError, CorruptError: it is gone or damaged.
        """
        return read_object(self.store, name)

    def history(self) -> History:
        """Its tags."""
        if self.manifest.history is None:
            return History(fqrn=self.fqrn)
        name = ObjectName(digest=self.manifest.history, kind=Kind.HISTORY)
        return History.from_bytes(
            inflate(self.fetch(name), limit=HISTORY_LIMIT, what=str(name)), fqrn=self.fqrn
        )


def read_object(store: Store, name: ObjectName) -> bytes:
    """An object of a storage, compared with its name.

    Raises:
        MissingError, CorruptError: it is gone or damaged.
    """
    stored = store.read(name.path, limit=OBJECT_LIMIT)
    name.check(stored)
    return stored
