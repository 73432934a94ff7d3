"""Keys that are kept in a token: a smart card or a hardware security module behind PKCS#11.

Where a key directory has a private RSA key, its file may hold one line with a PKCS#11 URI (RFC 7512) in place
of PEM, which says where the key is:

    pkcs11:token=master;object=julia.example.org?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/root/pin

The key never leaves the token: the text goes in and a signature comes out, by the mechanism CKM_RSA_PKCS, which
all tokens with RSA have. Every signature is checked with the public half before it is used, because not
all cards are reliable, as the real tools know too (``masterkeycard_sign`` in ``cvmfs_server_ssl.sh``).

The package ``python-pkcs11`` is needed for it, and for nothing else.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Self
from urllib.parse import unquote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from headstart.cvmfs.signature import SHA1_INFO, SHA256_INFO, RsaPublicKey
from headstart.errors import CorruptError, KeyFileError, MissingToolError
from headstart.publickeys import read_key_file

PREFIX: Final = b"pkcs11:"
_PATH: Final = {"token", "object", "id"}
_QUERY: Final = {"module-path", "pin-source"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUri:
    """Where a key is."""

    module: str
    """The token's library."""
    token: str
    label: str
    """The key's, on the token; empty where its id says which."""
    id: bytes
    pin_source: str
    """A file with the PIN; empty for a token without one."""

    @classmethod
    def parse(cls, text: str, *, what: str) -> Self:
        """Read the URI; ``what`` names the file in errors.

        Raises:
            KeyFileError: another form, or a part that is not known here, by name.
        """
        path, _, query = text.strip().removeprefix(PREFIX.decode()).partition("?")
        parts: dict[str, str] = {}
        for piece, known in [(it, _PATH) for it in path.split(";")] + [(it, _QUERY) for it in query.split("&")]:
            if not piece:
                continue
            name, equals, value = piece.partition("=")
            if name not in known or not equals or name in parts:
                raise KeyFileError(
                    f"{what}: {name[:40]!r} is not known in a PKCS#11 URI here, or stands there twice",
                    hint="use token, object or id, and module-path and pin-source behind the ?",
                )
            parts[name] = value
        if "token" not in parts or "module-path" not in parts or not ({"object", "id"} & parts.keys()):
            raise KeyFileError(f"{what}: the PKCS#11 URI names no token, module-path, or object or id")
        return cls(
            module=unquote(parts["module-path"]),
            token=unquote(parts["token"]),
            label=unquote(parts.get("object", "")),
            id=unquote(parts.get("id", ""), encoding="latin-1").encode("latin-1"),
            pin_source=unquote(parts.get("pin-source", "")).removeprefix("file:"),
        )


class TokenSigner:
    """An RSA key in a token; see ``cvmfs.signing.Signer``."""

    def __init__(self, uri: TokenUri, what: str) -> None:
        self._uri = uri
        self._what = what
        self.public: Final[RsaPublicKey] = self._public()
        """Its public half, as the token has it."""

    @classmethod
    def open(cls, text: bytes, *, what: str) -> Self:
        """Find the key that a key file's URI names.

        Raises:
            KeyFileError: no such token, key or PIN.
            MissingToolError: the package or the token's library is not here.
        """
        return cls(TokenUri.parse(text.decode(errors="replace"), what=what), what)

    @property
    def keyid(self) -> str:
        """How signatures refer to its public half."""
        return self.public.keyid

    def sign(self, message: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256."""
        made = self._sign(SHA256_INFO + hashlib.sha256(message).digest())
        return self._checked(made, good=self.public.verifies(message, made))

    def sign_sha1(self, hash_line: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-1."""
        made = self._sign(SHA1_INFO + hashlib.sha1(hash_line).digest())
        return self._checked(made, good=self.public.verifies_sha1(hash_line, made))

    def sign_plain(self, hash_line: bytes) -> bytes:
        """PKCS#1 v1.5 padding without a DigestInfo."""
        made = self._sign(hash_line)
        return self._checked(made, good=self.public.verifies_plain(hash_line, made))

    def _checked(self, signature: bytes, *, good: bool) -> bytes:
        if not good:
            raise KeyFileError(f"{self._what}: the token gave a signature that does not hold")
        return signature

    def _public(self) -> RsaPublicKey:
        attributes = self._in_token("PUBLIC_KEY", self._numbers)
        n, e = (int.from_bytes(part, "big") for part in attributes)
        try:
            key = rsa.RSAPublicNumbers(e, n).public_key()
            spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            return RsaPublicKey.from_spki(spki, what=self._what)
        except (ValueError, CorruptError) as error:
            raise KeyFileError(f"{self._what}: the key in the token cannot be used ({error})") from error

    @staticmethod
    def _numbers(pkcs11: Any, key: Any) -> tuple[bytes, bytes]:
        return bytes(key[pkcs11.Attribute.MODULUS]), bytes(key[pkcs11.Attribute.PUBLIC_EXPONENT])

    def _sign(self, content: bytes) -> bytes:
        def sign(pkcs11: Any, key: Any) -> bytes:
            return bytes(key.sign(content, mechanism=pkcs11.Mechanism.RSA_PKCS))

        made: bytes = self._in_token("PRIVATE_KEY", sign)
        return made

    def _in_token(self, kind: str, use: Callable[[Any, Any], Any]) -> Any:
        """Do something with the library and the key, in a session of its own."""
        uri = self._uri
        try:
            # Not everybody has it, and few need it.
            pkcs11: Any = import_module("pkcs11")
        except ImportError as error:
            raise MissingToolError(
                f"{self._what} is in a token, and the package python-pkcs11 is not here",
                hint="pip install 'headstart[pkcs11]'",
            ) from error
        if not os.path.exists(uri.module):
            raise MissingToolError(f"{self._what}: there is no PKCS#11 library {uri.module}")
        pin = read_key_file(uri.pin_source).decode(errors="replace").strip() if uri.pin_source else None
        named: dict[str, Any] = {"label": uri.label} if uri.label else {}
        if uri.id:
            named["id"] = uri.id
        try:
            token = pkcs11.lib(uri.module).get_token(token_label=uri.token)
            with token.open(user_pin=pin) as session:
                return use(pkcs11, session.get_key(object_class=getattr(pkcs11.ObjectClass, kind), **named))
        except pkcs11.PKCS11Error as error:
            raise KeyFileError(
                f"{self._what}: the token {uri.token!r} does not give the key ({type(error).__name__})",
                hint="check token, object and PIN: pkcs11-tool --list-objects",
            ) from error
