"""Just enough DER and PEM to take an RSA public key out of a key file or a certificate.

Theory of operation. A node has no library that reads X.509, and needs none: the format trusts a certificate
by the hash of its bytes alone (format section 4), so all that is wanted is the public key inside. ``_Cursor``
reads one tag-length-value after the other, in DER's one spelling (definite, shortest lengths, single-byte
tags); the functions below know which values stand where (RFC 5280 sections 4.1 and 4.1.2.7, RFC 8017
appendix A.1.1). Anything else is an error with the place in it.
"""

import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from headstart.errors import CorruptError

_INTEGER: Final = 0x02
_BIT_STRING: Final = 0x03
_UTC_TIME: Final = 0x17
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_RSA_ENCRYPTION: Final = bytes.fromhex("300d06092a864886f70d0101010500")
"""AlgorithmIdentifier: SEQUENCE { OBJECT IDENTIFIER 1.2.840.113549.1.1.1, NULL }."""
SMALLEST_MODULUS: Final = 2048
LARGEST_MODULUS: Final = 8192
"""Bits; larger ones would only keep the reader busy."""
_LARGEST_EXPONENT: Final = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaNumbers:
    """Modulus and public exponent."""

    n: int
    e: int


def rsa_public_key(spki: bytes, *, what: str) -> RsaNumbers:
    """Read a SubjectPublicKeyInfo that holds an RSA key.

    Args:
        spki: DER, nothing behind it.
        what: how to name it in an error.

    Raises:
        CorruptError: not DER, not RSA, or not of a size and exponent that make sense.
    """
    outer = _Cursor(spki, what)
    info = outer.inner(_SEQUENCE, "the key")
    outer.end()
    if info.whole(_SEQUENCE, "the algorithm") != _RSA_ENCRYPTION:
        raise CorruptError(f"{what} is no RSA key")
    bits = info.content(_BIT_STRING, "the key bits")
    info.end()
    if bits[:1] != b"\0":
        raise CorruptError(f"{what} is not DER: its key bits are no whole bytes")
    packed = _Cursor(bits[1:], what)
    numbers = packed.inner(_SEQUENCE, "the numbers")
    packed.end()
    n, e = numbers.integer("the modulus"), numbers.integer("the exponent")
    numbers.end()
    if not SMALLEST_MODULUS <= n.bit_length() <= LARGEST_MODULUS or n % 2 == 0:
        raise CorruptError(
            f"{what} is an RSA key of {n.bit_length()} bits",
            hint=f"use one of {SMALLEST_MODULUS} to {LARGEST_MODULUS} bits",
        )
    if not 3 <= e < _LARGEST_EXPONENT or e % 2 == 0:
        raise CorruptError(f"{what} is an RSA key with an exponent that is even, below 3 or above 2^32")
    return RsaNumbers(n=n, e=e)


def certificate_public_key(certificate: bytes, *, what: str) -> bytes:
    """Take the SubjectPublicKeyInfo out of an X.509 certificate.

    Args:
        certificate: DER, nothing behind it.
        what: how to name it in an error.

    Raises:
        CorruptError: not DER, or not laid out as a certificate.
    """
    outer = _Cursor(certificate, what)
    body = outer.inner(_SEQUENCE, "the certificate")
    outer.end()
    signed = body.inner(_SEQUENCE, "the signed part")
    body.whole(_SEQUENCE, "the signature's algorithm")
    body.content(_BIT_STRING, "the signature")
    body.end()
    if signed.next_tag() == _VERSION:
        signed.content(_VERSION, "the version")
    signed.integer("the serial number", any_sign=True)
    for part in ("the signature's algorithm", "the issuer", "the validity", "the subject"):
        signed.whole(_SEQUENCE, part)
    return signed.whole(_SEQUENCE, "the public key")


def certificate_end(certificate: bytes, *, what: str) -> datetime:
    """The last moment of an X.509 certificate's validity, UTC (RFC 5280 section 4.1.2.5).

    Raises:
        CorruptError: not DER, not laid out as a certificate, or no such time.
    """
    outer = _Cursor(certificate, what)
    signed = outer.inner(_SEQUENCE, "the certificate").inner(_SEQUENCE, "the signed part")
    if signed.next_tag() == _VERSION:
        signed.content(_VERSION, "the version")
    signed.integer("the serial number", any_sign=True)
    for part in ("the signature's algorithm", "the issuer"):
        signed.whole(_SEQUENCE, part)
    validity = signed.inner(_SEQUENCE, "the validity")
    validity.content(validity.next_tag(), "the start of the validity")
    tag = validity.next_tag()
    text = validity.content(tag, "the end of the validity").decode("ascii", "replace")
    if tag == _UTC_TIME and len(text) == 13:
        # Two digits of the year: 50 to 99 are of the last century.
        text = ("19" if text[:2] >= "50" else "20") + text
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise CorruptError(f"{what} ends at {text[:40]!r}, which is no time") from error


def from_pem(text: bytes, *, label: str, what: str) -> bytes:
    """Decode the first PEM block of a kind; what stands around it is ignored (format section 7).

    Args:
        text: PEM.
        label: the kind, such as ``CERTIFICATE``.
        what: how to name it in an error.

    Raises:
        CorruptError: there is no such block, or it is not whole.
    """
    begin, end = (f"-----{word} {label}-----" for word in ("BEGIN", "END"))
    lines = [line.strip() for line in text.decode("ascii", "replace").splitlines()]
    try:
        first = lines.index(begin) + 1
        return binascii.a2b_base64("".join(lines[first : lines.index(end, first)]), strict_mode=True)
    except ValueError as error:
        raise CorruptError(f"{what} has no whole PEM block {begin}") from error


def to_pem(der: bytes, *, label: str) -> bytes:
    """Encode as one PEM block with lines of 64 characters."""
    text = binascii.b2a_base64(der, newline=False).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


class _Cursor:
    """Reads DER values one after the other."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._at = 0

    def _wrong(self, part: str, how: str) -> CorruptError:
        return CorruptError(f"{self._what} is not DER: {part} {how}, at byte {self._at}")

    def next_tag(self) -> int:
        """The tag that comes next, or -1 at the end."""
        return self._data[self._at] if self._at < len(self._data) else -1

    def end(self) -> None:
        """Nothing may come now."""
        if self._at != len(self._data):
            raise self._wrong("something", "stands behind its end")

    def _span(self, tag: int, part: str) -> tuple[int, int]:
        """Start and end of the content of the value that comes next."""
        at = self._at
        if self.next_tag() != tag or at + 2 > len(self._data):
            raise self._wrong(part, "is missing")
        size = self._data[at + 1]
        start = at + 2
        if size >= 0x80:
            width = size - 0x80
            start += width
            if not 1 <= width <= 4 or start > len(self._data):
                raise self._wrong(part, "has no definite length")
            size = int.from_bytes(self._data[at + 2 : start], "big")
            if size < 0x80 or size < 1 << 8 * (width - 1):
                raise self._wrong(part, "has a length that is not the shortest")
        if start + size > len(self._data):
            raise self._wrong(part, "is cut short")
        return start, start + size

    def content(self, tag: int, part: str) -> bytes:
        """The content of the value that comes next."""
        start, self._at = self._span(tag, part)
        return self._data[start : self._at]

    def whole(self, tag: int, part: str) -> bytes:
        """The value that comes next, tag and length included."""
        before = self._at
        _, self._at = self._span(tag, part)
        return self._data[before : self._at]

    def inner(self, tag: int, part: str) -> "_Cursor":
        """A cursor over the content of the value that comes next."""
        return _Cursor(self.content(tag, part), self._what)

    def integer(self, part: str, *, any_sign: bool = False) -> int:
        """The INTEGER that comes next; not negative unless any sign is allowed."""
        content = self.content(_INTEGER, part)
        if not content or (len(content) > 1 and content[0] in (0, 0xFF) and content[0] >> 7 == content[1] >> 7):
            raise self._wrong(part, "is not a number in its shortest form")
        value = int.from_bytes(content, "big", signed=True)
        if value < 0 and not any_sign:
            raise self._wrong(part, "is negative")
        return value
