"""The log of references, read strictly and written anew without a new state.

A publication may go on with a log that has lost something: clients do not read it. What decides by it what to
delete, or mends it, must not. Between log and manifest a kill leaves a checksum that does not fit, as format
section 13 knows it; whatever writes next puts it right.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol

from headstart.cvmfs.history import History
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objects import ObjectName
from headstart.cvmfs.reflog import REFLOG_FILE, REFLOG_LIMIT, Reflog, present
from headstart.cvmfs.signature import LETTER_LIMIT, seal
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.errors import CorruptError, MissingError
from headstart.names import Fqrn
from headstart.repository.replica import is_replica
from headstart.repository.state import Repository
from headstart.store import Store, Transaction

_REPAIR: Final = "mend it first: headstart repo check --repair"
_MIRROR_AGAIN: Final = "mend it first: headstart repo mirror writes it anew"


class Held(Protocol):
    """A proven present state in its storage: a publisher's (``Repository``) or a mirror's (``Replica``)."""

    @property
    def store(self) -> Store:
        """Where it is."""

    @property
    def manifest(self) -> Manifest:
        """Its manifest."""

    @property
    def fqrn(self) -> Fqrn:
        """Its name."""

    def fetch(self, name: ObjectName) -> bytes:
        """An object as stored, compared with its name; ``MissingError``, ``CorruptError`` where it is not."""

    def history(self) -> History:
        """Its tags."""


def read_whole(repository: Held) -> Reflog:
    """The log, where it can be relied on.

    Raises:
        MissingError, CorruptError: it is missing, damaged, or does not have what the manifest names.
    """
    where = f"{REFLOG_FILE} of {repository.fqrn}"
    hint = _MIRROR_AGAIN if is_replica(repository.store) else _REPAIR
    try:
        reflog = Reflog.from_bytes(repository.store.read(REFLOG_FILE, limit=REFLOG_LIMIT), fqrn=repository.fqrn)
    except MissingError as error:
        raise MissingError(f"{where} is missing, so nobody knows which states there were", hint=hint) from error
    except CorruptError as error:
        raise CorruptError(error.message, hint=hint) from error
    known = {item.digest for item in reflog.references}
    for reference in present(repository.manifest):
        if reference.digest not in known:
            raise CorruptError(f"{where} does not have {reference.digest}, which the manifest names", hint=hint)
    return reflog


def rewrite(
    repository: Repository, into: Transaction, reflog: Reflog, now: datetime, *, collectable: bool | None = None
) -> None:
    """Replace the log, and sign the same state again with its checksum.

    Revision, time and root catalog stay, so clients have nothing to fetch.

    Args:
        repository: the present state.
        into: the writer.
        reflog: what the log is to be.
        now: UTC.
        collectable: what the manifest is to say of garbage collection; None for what it says.

    Raises:
        TrustError: clients would not believe the new manifest; nothing was written.
    """
    manifest, keys = repository.manifest, repository.keys
    data = reflog.to_bytes()
    new = replace(
        manifest,
        reflog=manifest.algorithm.digest(data),
        garbage_collectable=manifest.garbage_collectable if collectable is None else collectable,
    )
    published = seal(new.to_bytes(), algorithm=new.algorithm, sign=keys.repository.sign_sha1)
    # What clients will do is done here first.
    whitelist = repository.store.read(WHITELIST_FILE, limit=LETTER_LIMIT)
    claim = keys.masters.trust(whitelist, fqrn=keys.fqrn, now=now).examine(published)
    claim.prove(repository.fetch(claim.certificate))
    into.settle()
    if repository.store.has(REFLOG_FILE) and repository.store.read(REFLOG_FILE, limit=REFLOG_LIMIT) == data:
        pass  # an earlier run came as far as this
    else:
        into.replace(REFLOG_FILE, data)
    if new != manifest:
        into.replace(MANIFEST_FILE, published)
