"""The chain of trust as types: bytes in, values out, no file, socket or clock.

Theory of operation (format sections 4 to 6). Each stage can only be had from the one before it, and names the
bytes that it wants next, so the order of checks cannot be written wrongly and whoever fetches stays simple:

    MasterKeys --trust(whitelist)--> TrustedWhitelist --examine(manifest)--> Claim
    Claim --prove(certificate)--> TrustedManifest --open_root(catalog)--> Catalog --open_nested(...)--> Catalog

1. the whitelist is signed by one of the master keys, is of this repository, and has not expired;
2. the manifest is a whole letter of this repository: parsed, its hash fits, not believed yet;
3. the certificate is the object that the manifest names, its fingerprint is on the whitelist and not
   blacklisted, and its key signed the manifest; the manifest is not older than what this node has seen;
4. catalogs are the objects that manifest and parent catalogs name, of the size and revision they say.

Holding a ``TrustedManifest`` or a ``Catalog`` from here is the proof.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objects import Digest, Kind, ObjectName, Revision, inflate
from headstart.cvmfs.signature import (
    CERTIFICATE_LIMIT,
    Certificate,
    CertificateFingerprint,
    Letter,
    RsaPublicKey,
    check_signature,
)
from headstart.cvmfs.whitelist import WHITELIST_FILE, Whitelist
from headstart.errors import CorruptError, TrustError
from headstart.names import Fqrn
from headstart.wording import counted, readable

CATALOG_LIMIT: Final = 1 << 28
"""Bytes that a catalog may inflate to here; the format's guidance is a tenth of it."""
_LOWEST_REVISION: Final = re.compile(r"<\s*([a-zA-Z0-9.-]+)\s+([0-9]{1,18})\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The newest state that this node remembers of a repository."""

    revision: Revision
    timestamp: int
    """The manifest's, seconds since 1970."""
    root_catalog: Digest | None = None
    """Its root catalog: the same revision with another one is a fork."""
    whitelist: int = 0
    """When its whitelist was issued, seconds since 1970: an older one may name a key that was stolen since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blacklist:
    """Certificates and old revisions that a site refuses, whatever the whitelist says."""

    fingerprints: frozenset[CertificateFingerprint] = frozenset()
    revisions: Mapping[str, Revision] = field(default_factory=dict)
    """The lowest revision of a repository that is still good."""

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read the format's blacklist file: fingerprints, and lines ``<FQRN REVISION``.

        Raises:
            CorruptError: a line that starts with ``<`` and says nothing: it must not be taken for a comment.
        """
        fingerprints: set[CertificateFingerprint] = set()
        revisions: dict[str, Revision] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if line.startswith("<"):
                found = _LOWEST_REVISION.fullmatch(line)
                if found is None:
                    raise CorruptError(f"blacklist line {number}: {line[:80]!r} is not <REPOSITORY REVISION")
                # The real client refuses what any of the lines refuses.
                lowest = Revision(int(found[2]))
                revisions[found[1]] = max(lowest, revisions.get(found[1], lowest))
            elif (fingerprint := CertificateFingerprint.parse(line)) is not None:
                fingerprints.add(fingerprint)
        return cls(fingerprints=frozenset(fingerprints), revisions=revisions)

    def joined(self, other: Self) -> Self:
        """What either refuses."""
        revisions = dict(self.revisions)
        for name, lowest in other.revisions.items():
            revisions[name] = max(lowest, revisions.get(name, lowest))
        return type(self)(fingerprints=self.fingerprints | other.fingerprints, revisions=revisions)

    def refuses(self, fqrn: Fqrn, revision: Revision) -> Revision | None:
        """The lowest good revision, where this one is lower."""
        lowest = self.revisions.get(str(fqrn))
        return lowest if lowest is not None and revision < lowest else None


NO_BLACKLIST: Final = Blacklist()


@dataclass(frozen=True, slots=True)
class MasterKeys:
    """The anchor: public master keys, one of which must fit. Any of several, so that keys can be changed."""

    keys: tuple[RsaPublicKey, ...]

    def __post_init__(self) -> None:
        if not self.keys:
            raise TrustError("there is no public key to trust", hint="name the repository's public key file")

    @classmethod
    def from_pems(cls, pems: Mapping[str, bytes]) -> Self:
        """Read PEM files, given by a name for complaints.

        Raises:
            CorruptError: one of them is no RSA public key.
            TrustError: there is none.
        """
        return cls(tuple(RsaPublicKey.from_pem(pem, what=name) for name, pem in pems.items()))

    @property
    def by_id(self) -> Mapping[str, RsaPublicKey]:
        """The keys as envelopes refer to them."""
        return {key.keyid: key for key in self.keys}

    def trust(self, whitelist: bytes, *, fqrn: Fqrn | None, now: datetime) -> "TrustedWhitelist":
        """Step 1.

        Args:
            whitelist: the file.
            fqrn: the repository it must be of; None to take its word for it, which the master key signed.
            now: UTC.

        Raises:
            CorruptError: not a whitelist, or damaged.
            TrustError: signed by none of the keys, another repository's, or expired.
        """
        record = self.signed(whitelist, fqrn=fqrn)
        if not record.valid(now):
            raise TrustError(
                f"{WHITELIST_FILE} of {record.fqrn} expired on {record.ends:%Y-%m-%d at %H:%M} UTC, and this "
                f"machine's clock says {now:%Y-%m-%d %H:%M}",
                hint="its owner must sign it again with the master key; check this machine's clock too",
            )
        return TrustedWhitelist(record)

    def signed(self, whitelist: bytes, *, fqrn: Fqrn | None) -> Whitelist:
        """A whitelist that one of the keys signed, expired or not: what a new one is made from.

        Raises:
            CorruptError: not a whitelist, or damaged.
            TrustError: signed by none of the keys, or another repository's.
        """
        letter = Letter.cut(whitelist, what=WHITELIST_FILE)
        good = any(key.verifies_plain(letter.hash_line, letter.signature) for key in self.keys)
        check_signature(good, what=WHITELIST_FILE, key="the given master key")
        record = Whitelist.from_bytes(letter.text)
        if fqrn is not None and record.fqrn != fqrn:
            raise TrustError(f"{WHITELIST_FILE} is of {record.fqrn}, not of {fqrn}")
        return record


@dataclass(frozen=True, slots=True)
class TrustedWhitelist:
    """A whitelist that is signed, of the right repository, and valid."""

    whitelist: Whitelist

    def examine(self, published: bytes) -> "Claim":
        """Step 2.

        Raises:
            CorruptError: not a manifest, or damaged.
            TrustError: another repository's.
        """
        letter = Letter.cut(published, what=MANIFEST_FILE)
        manifest = Manifest.from_bytes(letter.text)
        if manifest.fqrn != self.whitelist.fqrn:
            raise TrustError(f"{MANIFEST_FILE} is of {manifest.fqrn}, not of {self.whitelist.fqrn}")
        return Claim(whitelist=self.whitelist, letter=letter, manifest=manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A manifest that is whole, and not believed yet."""

    whitelist: Whitelist
    letter: Letter
    manifest: Manifest

    @property
    def certificate(self) -> ObjectName:
        """What to fetch next."""
        return self.manifest.certificate_name

    def prove(
        self, certificate: bytes, *, seen: Seen | None = None, blacklist: Blacklist = NO_BLACKLIST
    ) -> "TrustedManifest":
        """Step 3.

        Args:
            certificate: the object, as stored.
            seen: what this node remembers; nothing older is taken.
            blacklist: what this site refuses.

        Raises:
            CorruptError: not the certificate that the manifest names.
            TrustError: not whitelisted, blacklisted, not the signer, or older than what was seen.
        """
        self.certificate.check(certificate)
        what = f"certificate {self.certificate}"
        found = Certificate.from_pem(inflate(certificate, limit=CERTIFICATE_LIMIT, what=what), what=what)
        _check_certificate(found, self.whitelist, blacklist)
        good = found.key.verifies_sha1(self.letter.hash_line, self.letter.signature)
        check_signature(good, what=MANIFEST_FILE, key="the certificate that it names")
        _check_age(self.manifest, seen, blacklist)
        _check_whitelist_age(self.whitelist, seen)
        return TrustedManifest(manifest=self.manifest, whitelist=self.whitelist, certificate=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedManifest:
    """A manifest that a whitelisted certificate signed, and that is not older than what was seen."""

    manifest: Manifest
    whitelist: Whitelist
    certificate: Certificate

    @property
    def root_catalog(self) -> ObjectName:
        """What to fetch next."""
        return self.manifest.root_catalog_name

    def open_root(self, stored: bytes) -> Catalog:
        """Step 4, for the root catalog, as stored.

        Raises:
            CorruptError: not the catalog that the manifest names, or not as it says.
        """
        size = self.manifest.root_size
        catalog = _open(self.root_catalog, stored, size=size or None, mountpoint=b"")
        if catalog.revision != self.manifest.revision:
            raise CorruptError(
                f"the root catalog is of revision {catalog.revision}, the manifest of {self.manifest.revision}"
            )
        return catalog


def nested_catalog(parent: Catalog, mountpoint: bytes) -> ObjectName:
    """What to fetch for the catalog nested in ``parent`` at ``mountpoint``.

    Raises:
        CorruptError: the parent names none there.
    """
    nested = parent.nested.get(mountpoint)
    if nested is None:
        raise CorruptError(
            f"catalog {readable(parent.mountpoint or b'/')} names no catalog for {readable(mountpoint or b'/')}"
        )
    return ObjectName(digest=nested.digest, kind=Kind.CATALOG)


def open_nested(parent: Catalog, mountpoint: bytes, stored: bytes) -> Catalog:
    """Step 4, for a nested catalog, as stored.

    Raises:
        CorruptError: not the catalog that the parent names, of another place, or of another size.
    """
    name = nested_catalog(parent, mountpoint)
    size = parent.nested[mountpoint].size
    # Schema revision 0 did not record the size.
    return _open(name, stored, size=size or None, mountpoint=mountpoint)


def _open(name: ObjectName, stored: bytes, *, size: int | None, mountpoint: bytes) -> Catalog:
    name.check(stored)
    what = f"catalog {readable(mountpoint or b'/')} ({name})"
    limit = CATALOG_LIMIT if size is None else min(size, CATALOG_LIMIT)
    database = inflate(stored, limit=limit, what=what)
    if size is not None and len(database) != size:
        raise CorruptError(f"{what} has {counted(len(database), 'byte')}, not the {size} it should")
    return Catalog.from_bytes(database, mountpoint=mountpoint)


def _check_certificate(certificate: Certificate, whitelist: Whitelist, blacklist: Blacklist) -> None:
    for refused in blacklist.fingerprints:
        if certificate.fingerprint(refused.digest.algorithm) == refused:
            raise TrustError(
                f"the certificate of {whitelist.fqrn} is on this site's blacklist: {refused}",
                hint="its key may be stolen; wait until the owner publishes with another one",
            )
    # Each entry is compared in its own hash (format section 6).
    if not any(certificate.fingerprint(good.digest.algorithm) == good for good in whitelist.fingerprints):
        raise TrustError(
            f"the certificate of {whitelist.fqrn} is not on its whitelist",
            hint="the manifest is signed with a key that the repository's owner has not named",
        )


def _check_age(manifest: Manifest, seen: Seen | None, blacklist: Blacklist) -> None:
    check_not_refused(blacklist, manifest.fqrn, manifest.revision)
    if seen is None:
        return
    behind = "the source is behind or serves an old state: use another one"
    if manifest.revision < seen.revision:
        raise TrustError(
            f"{manifest.fqrn} is at revision {manifest.revision}, this node has already seen {seen.revision}",
            hint=behind,
        )
    if manifest.timestamp < seen.timestamp:
        raise TrustError(
            f"{manifest.fqrn} was published {seen.timestamp - manifest.timestamp} s before what was seen here",
            hint=behind,
        )
    other = seen.root_catalog is not None and manifest.root_catalog != seen.root_catalog
    if manifest.revision == seen.revision and other:
        raise TrustError(
            f"revision {manifest.revision} of {manifest.fqrn} is another one than this node has seen",
            hint="two states are published under one number: ask its owner",
        )


def check_not_refused(blacklist: Blacklist, fqrn: Fqrn, revision: Revision) -> None:
    """Refuse a revision that the site refuses, be it the present one or a past one.

    Raises:
        TrustError: it is lower than the lowest good one.
    """
    lowest = blacklist.refuses(fqrn, revision)
    if lowest is not None:
        raise TrustError(
            f"revision {revision} of {fqrn} is on this site's blacklist, which wants {lowest} or later",
            hint="ask the site's administrator why: revisions before it are known to be bad",
        )


def _check_whitelist_age(whitelist: Whitelist, seen: Seen | None) -> None:
    if seen is not None and int(whitelist.issued.timestamp()) < seen.whitelist:
        raise TrustError(
            f"the whitelist of {whitelist.fqrn} was issued on {whitelist.issued:%Y-%m-%d at %H:%M} UTC, "
            "and this node has seen a newer one",
            hint="the source is behind or serves an old state: use another one",
        )
