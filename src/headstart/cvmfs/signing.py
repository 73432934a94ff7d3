"""Making signatures: the publisher's side, with the ``cryptography`` package. A node never imports this."""

from dataclasses import dataclass
from typing import Protocol, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo

from headstart.cvmfs.signature import RsaPublicKey
from headstart.ed25519 import Ed25519PublicKey
from headstart.errors import KeyFileError


class Signer(Protocol):
    """An RSA key that signs letters and statements, wherever it is kept: in a file, or in a token."""

    @property
    def public(self) -> RsaPublicKey:
        """Its public half."""

    @property
    def keyid(self) -> str:
        """How signatures refer to its public half."""

    def sign(self, message: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256: statements in envelopes."""

    def sign_sha1(self, hash_line: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-1: the manifest's hash line (format section 5)."""

    def sign_plain(self, hash_line: bytes) -> bytes:
        """PKCS#1 v1.5 padding without a DigestInfo: the whitelist's hash line (format section 6)."""


def _private_key(pem: bytes, what: str) -> object:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise KeyFileError(f"{what} has a password", hint="keys with a password are not supported") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        # The library's own words speak to its programmers.
        raise KeyFileError(f"{what} is no private key in PEM", hint="put the right file there") from error


@dataclass(frozen=True, slots=True)
class RsaSigner:
    """A master key or a repository key."""

    key: rsa.RSAPrivateKey

    @classmethod
    def from_pem(cls, pem: bytes, *, what: str) -> Self:
        """Read PKCS#1 or PKCS#8 PEM without a password.

        Raises:
            KeyFileError: no RSA private key.
        """
        key = _private_key(pem, what)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise KeyFileError(f"{what} is no RSA key")
        return cls(key)

    @property
    def public(self) -> RsaPublicKey:
        """Its public half."""
        spki = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return RsaPublicKey.from_spki(spki, what="this RSA key")

    @property
    def keyid(self) -> str:
        """How signatures refer to its public half."""
        return self.public.keyid

    def sign(self, message: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256: statements in envelopes."""
        return self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())

    def sign_sha1(self, hash_line: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-1: the manifest's hash line (format section 5)."""
        return self.key.sign(hash_line, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - the format's hash

    def sign_plain(self, hash_line: bytes) -> bytes:
        """PKCS#1 v1.5 padding without a DigestInfo: the whitelist's hash line (format section 6)."""
        return self.key.sign(hash_line, padding.PKCS1v15(), NoDigestInfo())


@dataclass(frozen=True, slots=True)
class Ed25519Signer:
    """A channel key."""

    key: ed25519.Ed25519PrivateKey

    @classmethod
    def from_pem(cls, pem: bytes, *, what: str) -> Self:
        """Read PKCS#8 PEM without a password.

        Raises:
            KeyFileError: no Ed25519 private key.
        """
        key = _private_key(pem, what)
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise KeyFileError(f"{what} is no Ed25519 key")
        return cls(key)

    @property
    def public(self) -> Ed25519PublicKey:
        """Its public half."""
        return Ed25519PublicKey(self.key.public_key().public_bytes_raw())

    @property
    def keyid(self) -> str:
        """How signatures refer to its public half."""
        return self.public.keyid

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of RFC 8032."""
        return self.key.sign(message)
