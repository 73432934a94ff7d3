"""Creating a repository: signed, and with nothing in it but the statement of its channel keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from headstart.channel import ROOT_PATH, Root
from headstart.cvmfs.edition import Edition, Graft, Manner
from headstart.cvmfs.entry import Entry, File, Stat, name_of
from headstart.cvmfs.history import History
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.metainfo import MetaInfo
from headstart.cvmfs.objects import Algorithm, Kind, ObjectName, Revision
from headstart.cvmfs.reflog import Reflog
from headstart.cvmfs.renewal import Terms, renew
from headstart.cvmfs.signature import seal
from headstart.cvmfs.signing import Signer
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.errors import Error, KeyFileError, StorageError
from headstart.keys import RepositoryKeys
from headstart.repository.meta import put_metainfo
from headstart.repository.state import Advance, Settings, advance, tag_of
from headstart.store import NewStorage, Transaction

ROOT_DAYS: Final = 365
"""How long a statement of channel keys is believed."""
_REPLICA_MARKER: Final = ".cvmfs_master_replica"
_DEFAULT: Final = Settings()


@dataclass(frozen=True, slots=True, kw_only=True)
class AllKeys:
    """What creation needs: the master key too, which may be put away afterwards."""

    keys: RepositoryKeys
    master: Signer


def create(store: NewStorage, all_keys: AllKeys, now: datetime, settings: Settings = _DEFAULT) -> Manifest:
    """Make a repository in an empty storage.

    The manifest is written last: interrupted before, there is no repository yet, and doing it again makes one.

    Args:
        store: where; a directory need not exist.
        all_keys: of the repository.
        now: UTC.
        settings: what it is to be like.

    Raises:
        StorageError: the storage is a repository already, is not empty, or cannot be written.
        LockedError: somebody else is at it.
    """
    keys = all_keys.keys
    refuse_storage(store)
    store.prepare()
    when = int(now.timestamp())
    with store.transaction() as into:
        if store.has(MANIFEST_FILE):
            raise StorageError(f"{store.name} has just become a repository")
        into.replace(WHITELIST_FILE, whitelist(all_keys, now, settings.algorithm))
        into.replace(_REPLICA_MARKER, b"This file marks the repository as one that may be replicated.\n")
        manner = Manner(
            revision=Revision(1),
            when=when,
            ttl=settings.ttl,
            algorithm=settings.algorithm,
            encode=settings.encode,
        )
        edition = Edition(None, manner)
        root = first_root(keys, now)
        signed = root.signed(all_keys.master)
        for path in (ROOT_PATH, root.history_path):
            edition.graft(small_file(path.encode(), signed, into, when, settings))
        edited = edition.finish()
        metainfo = put_metainfo(MetaInfo.new(keys.fqrn).to_bytes(), into, settings.algorithm)
        if edited.root is None:
            raise Error(
                "a new repository came out without a root catalog", hint="report this fault of Headstart"
            )
        draft = Manifest(
            fqrn=keys.fqrn,
            root_catalog=edited.root.name.digest,
            root_size=edited.root.size,
            ttl=settings.ttl,
            revision=Revision(1),
            garbage_collectable=settings.garbage_collectable,
            certificate=edited.root.name.digest,  # put right by the step itself
            timestamp=when,
            metainfo=metainfo.digest,
        )
        step = Advance(
            store=store,
            keys=keys,
            into=into,
            catalogs=edited.catalogs,
            draft=draft,
            history=settings.tagging.applied(History(fqrn=keys.fqrn), tag_of(draft)).published(tag_of(draft)),
            reflog=Reflog(fqrn=keys.fqrn),
            settings=settings,
        )
        return advance(step, now)


def first_root(keys: RepositoryKeys, now: datetime) -> Root:
    """The first statement of channel keys: those at hand, any of which may sign.

    Raises:
        KeyFileError: there is none.
    """
    if not keys.channels:
        raise KeyFileError(
            f"the key directory has no channel key of {keys.fqrn}",
            hint=f"put {keys.fqrn}.channelkey there, or make one: headstart channel new-key",
        )
    start = now.astimezone(UTC).replace(microsecond=0)
    return Root(
        fqrn=keys.fqrn,
        version=1,
        keys={signer.keyid: signer.public for signer in keys.channels},
        threshold=1,
        issued=start,
        expires=start + timedelta(days=ROOT_DAYS),
        restarted=start,
        statements=True,
    )


def refuse_storage(store: NewStorage) -> None:
    """Refuse a storage that a repository cannot be made in.

    Raises:
        StorageError: it is a repository already, or is not empty.
    """
    if store.has(MANIFEST_FILE):
        raise StorageError(f"{store.name} is a repository already", hint="publish to it, or name another place")
    if not store.is_empty():
        raise StorageError(f"{store.name} is not empty", hint="name a place that is empty or not there yet")


def whitelist(all_keys: AllKeys, now: datetime, algorithm: Algorithm) -> bytes:
    """A whitelist of the repository's one certificate, signed with the master key."""
    keys = all_keys.keys
    terms = Terms(add=(keys.certificate.fingerprint(algorithm),))
    made = renew(None, terms, fqrn=keys.fqrn, now=now).after
    return seal(made.to_bytes(), algorithm=algorithm, sign=all_keys.master.sign_plain)


def small_file(path: bytes, content: bytes, into: Transaction, when: int, settings: Settings) -> Graft:
    """Put a small file's object, and say what is to appear at its path."""
    stored = settings.encode(content)
    digest = settings.algorithm.digest(stored)
    into.put(ObjectName(digest=digest, kind=Kind.FILE), stored)
    entry = File(name=name_of(path), stat=Stat(mode=0o644, mtime=when), size=len(content), digest=digest)
    entries: Mapping[bytes, Entry] = {path: entry}
    return Graft(path=path, entries=entries)
