"""Renewing a whitelist: which certificates it is to name, until when, and the file that carries it to its key.

Theory of operation. The master key is to be kept where no network is, so signing is three steps that may happen
on different machines:

    request (at the storage) --file--> sign (where the master key is) --file--> apply (at the storage)

A request holds the text to be signed and the signed whitelist that it follows. Whoever signs need not trust who
carried it: what is kept, added and revoked is worked out from the two, and the old one must be signed by the
very same key. What comes back is the whitelist itself, and is proven like any other before it takes its place.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from headstart.cvmfs.objects import Algorithm
from headstart.cvmfs.signature import Certificate, CertificateFingerprint
from headstart.cvmfs.trust import MasterKeys
from headstart.cvmfs.whitelist import WHITELIST_FILE, Whitelist
from headstart.errors import ConfigurationError, CorruptError, TrustError, UnknownError
from headstart.names import Fqrn
from headstart.record import Table, canonical

WHITELIST_DAYS: Final = 30
"""How long a whitelist is valid, as the real tools have it."""
MOST_DAYS: Final = 366
_SCHEMA: Final = 1
_REQUEST: Final = "whitelist request"
_ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "sha1": Algorithm.SHA1,
    "rmd160": Algorithm.RIPEMD160,
    "shake128": Algorithm.SHAKE128,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a new whitelist is to say."""

    days: int = WHITELIST_DAYS
    add: tuple[CertificateFingerprint, ...] = ()
    revoke: tuple[CertificateFingerprint, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.days <= MOST_DAYS:
            raise ConfigurationError(
                f"a whitelist of {self.days} days is not from 1 to {MOST_DAYS}",
                hint=f"{WHITELIST_DAYS} are usual: a stolen key is good as long as a copy of the whitelist is",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A whitelist and the one that it follows."""

    before: Whitelist | None
    """None where there is none yet."""
    after: Whitelist

    @property
    def kept(self) -> tuple[CertificateFingerprint, ...]:
        """Certificates in both."""
        return tuple(item for item in self.after.fingerprints if item in self._before)

    @property
    def added(self) -> tuple[CertificateFingerprint, ...]:
        """Certificates that it trusts anew."""
        return tuple(item for item in self.after.fingerprints if item not in self._before)

    @property
    def revoked(self) -> tuple[CertificateFingerprint, ...]:
        """Certificates that it trusts no more."""
        return tuple(item for item in self._before if item not in self.after.fingerprints)

    @property
    def _before(self) -> tuple[CertificateFingerprint, ...]:
        return self.before.fingerprints if self.before is not None else ()


def renew(before: Whitelist | None, terms: Terms, *, fqrn: Fqrn, now: datetime) -> Renewal:
    """Make the next whitelist: all certificates of the last one, in its order, but for what the terms say.

    Its time of issue is never before that of the last one, because nodes refuse an older whitelist than they
    have seen.

    Raises:
        UnknownError: what is to be revoked is not on it.
        TrustError: no certificate would be left.
    """
    fingerprints = list(before.fingerprints if before is not None else ())
    for gone in terms.revoke:
        if gone not in fingerprints:
            raise UnknownError(
                f"{gone} is not on the whitelist of {fqrn}",
                hint="there are: " + (", ".join(map(str, fingerprints)) or "none"),
            )
        fingerprints.remove(gone)
    fingerprints += [item for item in dict.fromkeys(terms.add) if item not in fingerprints]
    if not fingerprints:
        raise TrustError(
            f"no certificate would be left on the whitelist of {fqrn}", hint="name one with --add-certificate"
        )
    issued = now.astimezone(UTC).replace(microsecond=0)
    if before is not None:
        issued = max(issued, before.issued + timedelta(seconds=1))
    after = Whitelist(
        fqrn=fqrn,
        issued=issued,
        expires=issued + timedelta(days=terms.days),
        fingerprints=tuple(fingerprints),
    )
    return Renewal(before=before, after=after)


def check_names(whitelist: Whitelist, certificate: Certificate) -> None:
    """Refuse a whitelist that does not name the certificate that signed the present manifest.

    Raises:
        TrustError: every node would refuse the repository.
    """
    good = whitelist.fingerprints
    if not any(certificate.fingerprint(item.digest.algorithm) == item for item in good):
        raise TrustError(
            f"the whitelist would not name the certificate that the present state of {whitelist.fqrn} is "
            "signed with, so that nobody could read it",
            hint="sign the state with another certificate first: headstart repo resign --published",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A whitelist to be signed somewhere else."""

    fqrn: Fqrn
    algorithm: Algorithm
    """The repository's: the signed file has its hash in it."""
    text: bytes
    """The whitelist, up to the signature."""
    present: bytes
    """The signed whitelist that it follows; empty where there is none."""

    @classmethod
    def of(cls, renewal: Renewal, *, present: bytes, algorithm: Algorithm) -> Self:
        """The request for a renewal."""
        after = renewal.after
        return cls(fqrn=after.fqrn, algorithm=algorithm, text=after.to_bytes(), present=present)

    def read(self, masters: MasterKeys) -> Renewal:
        """What signing it would do, worked out from what is signed and what is to be.

        Raises:
            TrustError: the whitelist that it follows is not by this key or of another repository; the new one
                is of another repository, is older, or lives too long.
            CorruptError: one of the two is no whitelist.
        """
        before = masters.signed(self.present, fqrn=self.fqrn) if self.present else None
        after = Whitelist.from_bytes(self.text)
        if after.to_bytes() != self.text:
            raise CorruptError("the whitelist to be signed has more in it than a whitelist says")
        if after.fqrn != self.fqrn:
            raise TrustError(f"the request is of {self.fqrn}, and the whitelist in it of {after.fqrn}")
        if before is not None and after.issued <= before.issued:
            raise TrustError("the whitelist to be signed is not newer than the one it follows")
        if not timedelta(0) < after.expires - after.issued <= timedelta(days=MOST_DAYS):
            raise TrustError(f"the whitelist to be signed is not for 1 to {MOST_DAYS} days")
        if not after.fingerprints:
            raise TrustError("the whitelist to be signed names no certificate")
        return Renewal(before=before, after=after)

    def to_bytes(self) -> bytes:
        """The file."""
        return canonical(
            {
                "schema": _SCHEMA,
                "type": _REQUEST,
                "fqrn": str(self.fqrn),
                "algorithm": next(name for name, item in _ALGORITHMS.items() if item is self.algorithm),
                "text": self.text.decode(),
                "present": base64.b64encode(self.present).decode(),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Self:
        """Read the file; ``where`` names it in errors.

        Raises:
            CorruptError: not such a file, naming the key.
        """
        table = Table.of(data, where, _SCHEMA)
        if table.text("type") != _REQUEST:
            raise table.wrong("type", repr(_REQUEST))
        algorithm = _ALGORITHMS.get(table.text("algorithm"))
        if algorithm is None:
            raise table.wrong("algorithm", f"one of {', '.join(_ALGORITHMS)}")
        try:
            present = base64.b64decode(table.text("present"), validate=True)
        except binascii.Error as error:
            raise table.wrong("present", f"the base64 of a {WHITELIST_FILE}") from error
        return cls(
            fqrn=table.named("fqrn", Fqrn),
            algorithm=algorithm,
            text=table.text("text").encode(),
            present=present,
        )


def entries_of(certificate: Certificate, whitelist: Whitelist | None) -> Iterable[CertificateFingerprint]:
    """A certificate's lines on a whitelist, in whichever hashes."""
    known = whitelist.fingerprints if whitelist is not None else ()
    return tuple(item for item in known if certificate.fingerprint(item.digest.algorithm) == item)
