"""Letters, certificates and RSA signatures: how the two signed files of a repository are sealed.

A *letter* is a text, a line ``--``, the text's hash in hexadecimal, and an RSA signature up to the end of the
file. What is signed is never the text but the line with its hash, and in two ways (format sections 5 and 6):

* the manifest: RSASSA-PKCS1-v1_5 with SHA-1, so the hash line is hashed once more;
* the whitelist: PKCS#1 v1.5 padding directly around the hash line, without naming a hash.

Verification builds the one padded message that there can be and compares it with what the key makes of the
signature. Nothing of the padding is parsed, so nothing can hide in it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from headstart.cvmfs.der import certificate_end, certificate_public_key, from_pem, rsa_public_key, to_pem
from headstart.cvmfs.objects import Algorithm, Digest
from headstart.errors import CorruptError, TrustError

LETTER_LIMIT: Final = 1 << 16
"""Bytes that a manifest or a whitelist may have here; the real tools read 4095 of a local manifest."""
CERTIFICATE_LIMIT: Final = 1 << 16
"""Bytes of a certificate, in PEM."""
_SEPARATOR: Final = b"\n--\n"
# DigestInfo up to the digest itself (RFC 8017 section 9.2, note 1).
SHA1_INFO: Final = bytes.fromhex("3021300906052b0e03021a05000414")
SHA256_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaPublicKey:
    """An RSA key that checks signatures."""

    n: int
    e: int
    spki: bytes
    """Its SubjectPublicKeyInfo, DER."""

    @classmethod
    def from_spki(cls, spki: bytes, *, what: str) -> Self:
        """Read DER.

        Raises:
            CorruptError: no RSA public key of 2048 to 8192 bits.
        """
        numbers = rsa_public_key(spki, what=what)
        return cls(n=numbers.n, e=numbers.e, spki=spki)

    @classmethod
    def from_pem(cls, text: bytes, *, what: str) -> Self:
        """Read ``-----BEGIN PUBLIC KEY-----``; the PKCS#1 form is refused, as by the real client.

        Raises:
            CorruptError: no such PEM block, or no RSA public key.
        """
        return cls.from_spki(from_pem(text, label="PUBLIC KEY", what=what), what=what)

    def to_pem(self) -> bytes:
        """The PEM form."""
        return to_pem(self.spki, label="PUBLIC KEY")

    @property
    def keyid(self) -> str:
        """SHA-256 of the key's DER, in hexadecimal: how signatures refer to it."""
        return hashlib.sha256(self.spki).hexdigest()

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether it is this key's RSASSA-PKCS1-v1_5 signature with SHA-256 over ``message``."""
        return self._opens(SHA256_INFO + hashlib.sha256(message).digest(), signature)

    def verifies_sha1(self, message: bytes, signature: bytes) -> bool:
        """The same with SHA-1: the manifest's signature over its hash line."""
        return self._opens(SHA1_INFO + hashlib.sha1(message).digest(), signature)

    def verifies_plain(self, text: bytes, signature: bytes) -> bool:
        """The whitelist's: ``text`` itself, padded, with no hash named."""
        return self._opens(text, signature)

    def _opens(self, content: bytes, signature: bytes) -> bool:
        size = (self.n.bit_length() + 7) // 8
        number = int.from_bytes(signature, "big")
        if len(signature) != size or number >= self.n or len(content) > size - 11:
            return False
        padded = b"\0\1" + b"\xff" * (size - 3 - len(content)) + b"\0" + content
        return pow(number, self.e, self.n).to_bytes(size, "big") == padded


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A signed file, cut into its parts; the hash fits the text, the signature is yet to be checked."""

    text: bytes
    """Up to and including the newline before ``--``."""
    hash_line: bytes
    """The text's hash as the file has it, without newline: what the signature is over."""
    signature: bytes

    @classmethod
    def cut(cls, data: bytes, *, what: str) -> Self:
        """Cut a file at the first line ``--`` and compare the hash.

        Args:
            data: the whole file.
            what: how to name it in an error.

        Raises:
            CorruptError: no such parts, a carriage return, or another text than was hashed.
        """
        before, separator, after = data.partition(_SEPARATOR)
        hash_line, newline, signature = after.partition(b"\n")
        if not separator or not newline or not signature:
            raise CorruptError(
                f"{what} is no signed file: it has no line --, hash and signature",
                hint="it is cut short, or something else answers in its place",
            )
        text = before + b"\n"
        if b"\r" in text or b"\0" in text:
            raise CorruptError(f"{what} has carriage returns or zeros in its text")
        try:
            digest = Digest.parse(hash_line.decode("ascii", "replace"))
        except CorruptError as error:
            raise CorruptError(f"{what} has no hash after its line --: {error.message}") from error
        if digest.algorithm.digest(text) != digest:
            raise CorruptError(
                f"{what} does not have the text that was hashed and signed",
                hint="it is damaged or forged: use another source",
            )
        return cls(text=text, hash_line=hash_line, signature=signature)


def seal(text: bytes, *, algorithm: Algorithm, sign: Callable[[bytes], bytes]) -> bytes:
    """Make a signed file: the text, its hash in the repository's algorithm, a signature over the hash line."""
    hash_line = str(algorithm.digest(text)).encode()
    return text + _SEPARATOR[1:] + hash_line + b"\n" + sign(hash_line)


@dataclass(frozen=True, slots=True)
class CertificateFingerprint:
    """The hash of a certificate's DER."""

    digest: Digest

    @classmethod
    def parse(cls, line: str) -> Self | None:
        """Read a line of a whitelist or a blacklist as the real client does (format section 6).

        Returns:
            None for a line that is no fingerprint, such as a comment: those are skipped.
        """
        text = line.lower().replace(":", "")
        for stop in (" ", "\t", "#"):
            text = text.partition(stop)[0]
        try:
            return cls(Digest.parse(text))
        except CorruptError:
            return None

    def __str__(self) -> str:
        digits = self.digest.raw.hex(":") + self.digest.algorithm.tag
        return digits.upper()


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A repository's certificate: an envelope for a public key, trusted by its fingerprint alone."""

    der: bytes
    key: RsaPublicKey

    @classmethod
    def from_pem(cls, text: bytes, *, what: str) -> Self:
        """Read PEM; validity, names and usages are not looked at (format section 4).

        Raises:
            CorruptError: no certificate with an RSA key.
        """
        der = from_pem(text, label="CERTIFICATE", what=what)
        return cls(der=der, key=RsaPublicKey.from_spki(certificate_public_key(der, what=what), what=what))

    @property
    def ends(self) -> datetime:
        """When its own validity ends, UTC; no CVMFS client looks at it (format section 4).

        Raises:
            CorruptError: it has no such time.
        """
        return certificate_end(self.der, what="the certificate")

    def fingerprint(self, algorithm: Algorithm) -> CertificateFingerprint:
        """Its fingerprint in one of the format's hashes."""
        return CertificateFingerprint(algorithm.digest(self.der))


def check_signature(good: bool, *, what: str, key: str) -> None:  # noqa: FBT001 - a verdict, not a switch
    """Turn a verdict into an error.

    Raises:
        TrustError: the signature does not hold.
    """
    if not good:
        raise TrustError(
            f"the signature of {what} is not by {key}",
            hint="check that the key is this repository's, and the source the right one",
        )
