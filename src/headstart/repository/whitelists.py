"""A repository's whitelist in its storage: read, renewed and replaced; and its manifest signed anew.

Neither touches a catalog or an object of content. A whitelist is proven as every node will prove it, together
with the present manifest, before it takes its place by one rename.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objects import inflate
from headstart.cvmfs.renewal import Renewal, Request, Terms, check_names, renew
from headstart.cvmfs.signature import (
    CERTIFICATE_LIMIT,
    LETTER_LIMIT,
    Certificate,
    Letter,
    check_signature,
    seal,
)
from headstart.cvmfs.signing import Signer
from headstart.cvmfs.trust import MasterKeys
from headstart.cvmfs.whitelist import WHITELIST_FILE, Whitelist
from headstart.errors import MissingError, StorageError, TrustError
from headstart.keys import RepositoryKeys
from headstart.names import Fqrn
from headstart.repository.replica import refuse_replica
from headstart.repository.state import Repository, Settings
from headstart.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Letters:
    """The two signed files of a repository, looked at without asking whether the whitelist has expired."""

    fqrn: Fqrn
    manifest: Manifest
    certificate: Certificate
    """That the manifest is signed with."""
    whitelist: Whitelist | None
    """Signed by the master key; None where there is none."""
    whitelist_bytes: bytes

    @classmethod
    def read(cls, store: Store, masters: MasterKeys) -> "Letters":
        """Read them.

        Raises:
            StorageError: no repository, or a mirror of one.
            TrustError: the whitelist is by another master key, or the manifest not by the certificate it names.
            CorruptError, MissingError: one is damaged, or the certificate is gone.
        """
        if not store.has(MANIFEST_FILE):
            raise StorageError(f"{store.name} is no repository", hint="make one first: headstart repo create")
        refuse_replica(store)
        letter = Letter.cut(store.read(MANIFEST_FILE, limit=LETTER_LIMIT), what=MANIFEST_FILE)
        manifest = Manifest.from_bytes(letter.text)
        name = manifest.certificate_name
        stored = store.read(name.path, limit=2 * CERTIFICATE_LIMIT)
        name.check(stored)
        what = f"certificate {name}"
        certificate = Certificate.from_pem(inflate(stored, limit=CERTIFICATE_LIMIT, what=what), what=what)
        good = certificate.key.verifies_sha1(letter.hash_line, letter.signature)
        check_signature(good, what=MANIFEST_FILE, key="the certificate that it names")
        try:
            data = store.read(WHITELIST_FILE, limit=LETTER_LIMIT)
        except MissingError:
            data = b""
        whitelist = masters.signed(data, fqrn=manifest.fqrn) if data else None
        return cls(
            fqrn=manifest.fqrn,
            manifest=manifest,
            certificate=certificate,
            whitelist=whitelist,
            whitelist_bytes=data,
        )


def plan_renewal(letters: Letters, terms: Terms, now: datetime) -> Renewal:
    """What the next whitelist will say; nothing is written.

    Raises:
        UnknownError, TrustError: as ``renew``, or nobody could read the present state any more.
    """
    renewal = renew(letters.whitelist, terms, fqrn=letters.fqrn, now=now)
    check_names(renewal.after, letters.certificate)
    return renewal


def request_of(letters: Letters, renewal: Renewal) -> Request:
    """The file that asks for a signature elsewhere."""
    return Request.of(renewal, present=letters.whitelist_bytes, algorithm=letters.manifest.algorithm)


def sign_request(request: Request, master: Signer) -> tuple[Renewal, bytes]:
    """Sign a request: what it does, and the whitelist.

    Raises:
        TrustError, CorruptError: as ``Request.read``.
    """
    renewal = request.read(MasterKeys((master.public,)))
    return renewal, seal(request.text, algorithm=request.algorithm, sign=master.sign_plain)


def renew_whitelist(
    store: Store,
    master: Signer,
    terms: Terms,
    now: datetime,
    announce: Callable[[Renewal], None] = lambda _renewal: None,
) -> Renewal:
    """Sign and install the next whitelist, where storage and master key are at hand.

    Raises:
        LockedError: somebody else publishes.
        Error: as ``plan_renewal``; the present whitelist is untouched.
    """
    masters = MasterKeys((master.public,))
    with store.transaction() as into:
        letters = Letters.read(store, masters)
        renewal = plan_renewal(letters, terms, now)
        announce(renewal)
        _, data = sign_request(request_of(letters, renewal), master)
        _prove(letters, masters, data, now)
        into.replace(WHITELIST_FILE, data)
    return renewal


def plan_install(letters: Letters, masters: MasterKeys, data: bytes, now: datetime) -> Renewal:
    """What installing a signed whitelist will do; nothing is written.

    Raises:
        TrustError: not by the master key, of another repository, expired, older than the present one, or
            nobody could read the present state any more.
        CorruptError: no whitelist.
    """
    after = _prove(letters, masters, data, now)
    before = letters.whitelist
    if before is not None and data != letters.whitelist_bytes and after.issued <= before.issued:
        raise TrustError(
            f"the whitelist was issued on {after.issued:%Y-%m-%d at %H:%M:%S} UTC, and the present one of "
            f"{letters.fqrn} on {before.issued:%Y-%m-%d at %H:%M:%S}: nodes refuse to go back",
            hint="make a new request, and have that signed",
        )
    return Renewal(before=before, after=after)


def install_whitelist(
    store: Store,
    masters: MasterKeys,
    data: bytes,
    now: datetime,
    announce: Callable[[Renewal], None] = lambda _renewal: None,
) -> Renewal:
    """Install a whitelist that was signed somewhere else; the very same again changes nothing.

    Raises:
        LockedError: somebody else publishes.
        Error: as ``plan_install``; the present whitelist is untouched.
    """
    with store.transaction() as into:
        letters = Letters.read(store, masters)
        renewal = plan_install(letters, masters, data, now)
        announce(renewal)
        if data != letters.whitelist_bytes:
            into.replace(WHITELIST_FILE, data)
    return renewal


def _prove(letters: Letters, masters: MasterKeys, data: bytes, now: datetime) -> Whitelist:
    trusted = masters.trust(data, fqrn=letters.fqrn, now=now)
    check_names(trusted.whitelist, letters.certificate)
    return trusted.whitelist


def resign_manifest(target: tuple[Store, RepositoryKeys], now: datetime) -> Manifest:
    """Sign the present state with the certificate in the key directory (``cvmfs_server resign -p``).

    Root catalog, revision and tags stay; certificate, time and reference log are new.

    Raises:
        TrustError: that certificate is not on the whitelist.
        LockedError: somebody else publishes.
    """
    store, keys = target
    with store.transaction() as into:
        repository = Repository.open(store, keys, now)
        return repository.resign(into, now, Settings(algorithm=repository.manifest.algorithm))
