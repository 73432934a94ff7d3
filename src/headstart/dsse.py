"""DSSE, the Dead Simple Signing Envelope (version 1.0.2): a payload, its type, and signatures over both.

What is signed is the *pre-authentication encoding* of type and payload, never JSON, so there is nothing to
canonicalise. Key ids in an envelope are hints that nobody vouches for: they choose which key to try, and the
threshold counts keys, not signatures.
"""

import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, Self

from headstart.errors import CorruptError, TrustError
from headstart.record import Table, canonical
from headstart.wording import counted

MOST_SIGNATURES: Final = 32
"""More than this in one envelope is an attempt to keep the reader busy."""


class PublicKey(Protocol):
    """What can check a signature."""

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over ``message``; never raises for a bad one."""
        ...


class Signer(Protocol):
    """What can make a signature."""

    @property
    def keyid(self) -> str:
        """How the signature refers to its key."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature over ``message``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature of an envelope."""

    keyid: str
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A payload with its signatures; nothing in it is believed before ``verify``."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    def with_signatures(self, signers: Iterable[Signer]) -> Self:
        """The same, signed by more keys; a signature that a key has made before is made anew."""
        message = pre_authentication_encoding(self.payload_type, self.payload)
        new = [Signature(keyid=signer.keyid, raw=signer.sign(message)) for signer in signers]
        known = {signature.keyid for signature in new}
        return type(self)(
            payload_type=self.payload_type,
            payload=self.payload,
            signatures=(*(old for old in self.signatures if old.keyid not in known), *new),
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Self:
        """Read the JSON form; keys that the standard does not name are ignored, as it asks.

        Args:
            data: the JSON.
            where: how to name it in an error.

        Raises:
            CorruptError: not an envelope, naming the key.
        """
        return cls.from_table(Table.parse(data, where))

    @classmethod
    def from_table(cls, table: Table) -> Self:
        """Read an envelope inside of another record.

        Raises:
            CorruptError: not an envelope, naming the key.
        """
        where = table.where
        signatures = table.children("signatures")
        if len(signatures) > MOST_SIGNATURES:
            raise CorruptError(f"{where} has {len(signatures)} signatures, more than {MOST_SIGNATURES}")
        return cls(
            payload_type=table.text("payloadType"),
            payload=_from_base64(table, "payload"),
            signatures=tuple(
                Signature(
                    keyid=child.text("keyid") if "keyid" in child.value else "", raw=_from_base64(child, "sig")
                )
                for child in signatures
            ),
        )

    def to_bytes(self) -> bytes:
        """The JSON form."""
        return canonical(self.record())

    def record(self) -> dict[str, object]:
        """The JSON form, to be put into another record."""
        return {
            "payloadType": self.payload_type,
            "payload": _to_base64(self.payload),
            "signatures": [
                {"keyid": signature.keyid, "sig": _to_base64(signature.raw)} for signature in self.signatures
            ],
        }


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """What the signatures are over: ``DSSEv1``, and type and payload with their lengths in bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, *, payload_type: str, signers: Iterable[Signer]) -> Envelope:
    """Make an envelope with a signature of each signer."""
    return Envelope(payload_type=payload_type, payload=payload, signatures=()).with_signatures(signers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A payload that is believed, and whose word that is."""

    payload: bytes
    signers: tuple[str, ...]
    """The ids of all keys that count and have signed it, in the order of the signatures."""


def verify(
    envelope: Envelope, keys: Mapping[str, PublicKey], *, threshold: int, payload_type: str, where: str
) -> Signed:
    """Believe an envelope that at least ``threshold`` different keys have signed.

    Args:
        envelope: what was read.
        keys: the keys that count, by id.
        threshold: how many of them must have signed; at least 1.
        payload_type: what the payload must say it is.
        where: how to name the envelope in an error.

    Raises:
        TrustError: another type, or too few good signatures.
    """
    if envelope.payload_type != payload_type:
        raise TrustError(f"{where} is signed as {envelope.payload_type[:80]!r}, not as {payload_type!r}")
    if threshold < 1:
        raise TrustError(
            f"{where} would be believed with {counted(threshold, 'signature')}, at least 1 is needed"
        )
    good = _signers_of(envelope, keys)
    if len(good) < threshold:
        found = counted(len(good), "good signature")
        raise TrustError(
            f"{where} has {found} of the {counted(len(keys), 'key')} that count, it needs {threshold}",
            hint="it is forged, damaged, or signed with keys that this repository does not name",
        )
    return Signed(payload=envelope.payload, signers=good)


def _signers_of(envelope: Envelope, keys: Mapping[str, PublicKey]) -> tuple[str, ...]:
    """The ids of those keys that have signed an envelope, each key once, in the order of its signatures.

    A key under two ids is one key, and counts under the first.
    """
    message = pre_authentication_encoding(envelope.payload_type, envelope.payload)
    good: dict[str, PublicKey] = {}
    for signature in envelope.signatures:
        # A key id is a hint: where it names none of ours, all are tried.
        hinted = keys.get(signature.keyid)
        tried = keys.items() if hinted is None else ((signature.keyid, hinted),)
        for keyid, key in tried:
            if key not in good.values() and key.verifies(message, signature.raw):
                good[keyid] = key
                break
    return tuple(good)


def _to_base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode()


def _from_base64(table: Table, key: str) -> bytes:
    """Either alphabet, as the standard asks; nothing else in between."""
    text = table.text(key).translate({ord("-"): "+", ord("_"): "/"})
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise table.wrong(key, "base64") from error
