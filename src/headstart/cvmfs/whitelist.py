"""The whitelist, ``.cvmfswhitelist``: which certificates may sign the manifest (format section 6)."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from headstart.cvmfs.signature import CertificateFingerprint
from headstart.errors import ConfigurationError, CorruptError, TrustError
from headstart.names import Fqrn

WHITELIST_FILE: Final = ".cvmfswhitelist"
_TIME: Final = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whitelist:
    """What the whitelist's lines say."""

    fqrn: Fqrn
    issued: datetime
    """UTC, whole seconds."""
    expires: datetime
    """UTC, whole seconds, as written; see ``ends``."""
    fingerprints: tuple[CertificateFingerprint, ...]

    @property
    def ends(self) -> datetime:
        """The first moment at which it is no longer valid: the start of the hour it expires in."""
        return self.expires.replace(minute=0, second=0)

    def valid(self, now: datetime) -> bool:
        """Whether it may be used at ``now`` (UTC)."""
        return now < self.ends

    def to_bytes(self) -> bytes:
        """The text to seal."""
        lines = [
            _time_text(self.issued),
            f"E{_time_text(self.expires)}",
            f"N{self.fqrn}",
            *map(str, self.fingerprints),
        ]
        return "".join(f"{line}\n" for line in lines).encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> Self:
        """Read the text of a letter; lines that are no fingerprint are skipped, as by the real client.

        Raises:
            CorruptError: the first three lines are not what they should be, by number.
            TrustError: it asks for checks of other kinds, which are not made here.
        """
        lines = text.decode("ascii", "replace").split("\n")
        if len(lines) < 4 or not lines[1].startswith("E") or not lines[2].startswith("N"):
            raise CorruptError(f"{WHITELIST_FILE} does not start with time, expiry and repository name")
        for line in lines[3:]:
            if line.startswith(("V", "W")):
                raise TrustError(
                    f"{WHITELIST_FILE} asks for a check that is not made here: {line[:40]!r}",
                    hint="sign it again without this line",
                )
        try:
            fqrn = Fqrn(lines[2][1:])
        except ConfigurationError as error:
            raise CorruptError(f"{WHITELIST_FILE} line 3: {error.message}") from error
        found = (CertificateFingerprint.parse(line) for line in lines[3:])
        return cls(
            fqrn=fqrn,
            issued=_time(lines[0], 1),
            expires=_time(lines[1][1:], 2),
            fingerprints=tuple(fingerprint for fingerprint in found if fingerprint is not None),
        )


def _time_text(time: datetime) -> str:
    return f"{time.year:04}{time.month:02}{time.day:02}{time.hour:02}{time.minute:02}{time.second:02}"


def _time(text: str, line: int) -> datetime:
    found = _TIME.fullmatch(text)
    try:
        if found is not None:
            year, month, day, hour, minute, second = map(int, found.groups())
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        pass
    raise CorruptError(f"{WHITELIST_FILE} line {line}: {text[:40]!r} is not a time YYYYMMDDhhmmss")
