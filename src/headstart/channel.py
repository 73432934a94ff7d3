"""Channels: signed pointers from a name to a release, and the statement that says whose signatures count.

CVMFS's own chain proves what is in a repository, but a node that has never seen it before accepts any state as
old as the whitelist's validity. A pointer therefore carries what the chain lacks: an expiry of its own, a
version that only grows, and the SHA-256 of the release. Pointers are signed with Ed25519 keys; the repository's
``root`` statement names these keys, says how many of them each pointer needs, and is signed with the RSA master
key, so that one public key is the anchor of everything. Both are DSSE envelopes: ``/channels/root.json`` and
``/channels/<stack>/<channel>.json``.

Beside them stay all that ever were: ``/channels/<version>.root.json`` and
``/channels/<stack>/<channel>.history/<time>-<version>.json``. Nothing believes a channel by these; they say who
let it point where, and when.

Signatures are proven first (``read_root``, ``read_pointer``), and dates afterwards (``Believed.check_time``):
whoever looks after a repository wants to read what has expired, too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from headstart.clock import check_clock, check_expiry, clock_complaint, time_text
from headstart.dsse import Envelope, PublicKey, Signer, sign, verify
from headstart.ed25519 import KEY_SIZE, Ed25519PublicKey
from headstart.errors import CorruptError, TrustError
from headstart.names import ChannelName, Fqrn, ReleaseId, Sha256, StackName
from headstart.record import Table, canonical, one_spelling
from headstart.wording import counted

SCHEMA: Final = 1
ROOT_SCHEMA: Final = 2
ROOT_TYPE: Final = "application/vnd.headstart.root+json"
POINTER_TYPE: Final = "application/vnd.headstart.channel+json"
ROOT_PATH: Final = "/channels/root.json"
WITHDRAWN_PATH: Final = "/channels/withdrawn.json"
LIMIT: Final = 1 << 16
"""Bytes that either file may have."""
MOST_KEYS: Final = 16
"""Keys that one statement may name: each costs a node some milliseconds for a signature without a key id."""
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


def pointer_path(stack: StackName, channel: ChannelName) -> str:
    """Where a channel's pointer is in the repository."""
    return f"/channels/{stack}/{channel}.json"


def history_path(stack: StackName, channel: ChannelName) -> str:
    """The directory of all pointers that a channel ever had."""
    return f"/channels/{stack}/{channel}.history"


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """Which keys sign pointers and statements of releases, and how many of them each one needs."""

    fqrn: Fqrn
    version: int
    """Grows by one with each change; at least 1."""
    keys: Mapping[str, Ed25519PublicKey]
    """By key id."""
    threshold: int
    issued: datetime
    """UTC, whole seconds."""
    expires: datetime
    """UTC, whole seconds: from this moment on no pointer is believed by it."""
    restarted: datetime
    """UTC, whole seconds. Pointers issued before are not believed, and versions seen before do not count: so
    the owner undoes what a thief has done who signed a version so high that no honest one is above it."""
    statements: bool
    """Whether a release that neither a pointer nor its digest pins needs a statement (``releasestatement``)."""

    def __post_init__(self) -> None:
        what = f"the statement of {self.fqrn}'s keys"
        if self.version < 1:
            raise CorruptError(f"{what} has version {self.version}, not at least 1")
        for keyid, key in self.keys.items():
            if keyid != key.keyid:
                raise CorruptError(f"{what} has the key {key.keyid} as {keyid!r}")
        if len(self.keys) > MOST_KEYS:
            raise CorruptError(f"{what} names {len(self.keys)} keys, more than {MOST_KEYS}")
        if not 1 <= self.threshold <= len(self.keys):
            wanted = counted(self.threshold, "signature")
            raise CorruptError(
                f"the statement of {self.fqrn}'s {counted(len(self.keys), 'key')} wants {wanted}"
            )
        for time in (self.issued, self.expires, self.restarted):
            if time.tzinfo is not UTC or time.microsecond:
                raise CorruptError(f"{what} has the time {time.isoformat()}, not whole seconds of UTC")
        if not self.restarted <= self.issued < self.expires:
            raise CorruptError(f"{what} expires before it is issued, or is issued before it is to count")

    def to_bytes(self) -> bytes:
        """The payload."""
        return canonical(
            {
                "schema": ROOT_SCHEMA,
                "fqrn": str(self.fqrn),
                "version": self.version,
                "keys": {keyid: key.raw.hex() for keyid, key in self.keys.items()},
                "threshold": self.threshold,
                "issued": time_text(self.issued),
                "expires": time_text(self.expires),
                "restarted": time_text(self.restarted),
                # Said only where it is so: statements from before it could be said stay as they are signed.
                **({"statements": True} if self.statements else {}),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the payload.

        Raises:
            CorruptError: not such a statement in its one spelling, naming the key.
        """
        table = Table.of(data, ROOT_PATH, ROOT_SCHEMA)
        keys = table.child("keys")
        if len(keys.value) > MOST_KEYS:
            raise CorruptError(f"{ROOT_PATH} names {len(keys.value)} keys, more than {MOST_KEYS}")
        root = cls(
            fqrn=table.named("fqrn", Fqrn),
            version=table.number("version"),
            keys={keyid: _key(keys, keyid) for keyid in keys.value},
            threshold=table.number("threshold"),
            issued=_time(table, "issued"),
            expires=_time(table, "expires"),
            restarted=_time(table, "restarted"),
            statements="statements" in table.value and table.truth("statements"),
        )
        one_spelling(root.to_bytes(), data, ROOT_PATH)
        return root

    def check_time(self, now: datetime) -> None:
        """Refuse it when it has expired, and a clock by which nobody could tell.

        Raises:
            TrustError: it has expired, or was signed after ``now``.
        """
        what = f"{self.fqrn}: {ROOT_PATH}"
        check_clock(clock_complaint(now, signed=self.issued, what=what))
        check_expiry(
            now,
            expires=self.expires,
            what=what,
            hint="its owner must sign it again with the master key; meanwhile name the release by its digest",
        )

    @property
    def history_path(self) -> str:
        """Where it stays when the next one has come."""
        return f"/channels/{self.version}.root.json"

    def signed(self, *signers: Signer) -> bytes:
        """The file, signed with the repository's master key; while that is changed, with the next one too."""
        return sign(self.to_bytes(), payload_type=ROOT_TYPE, signers=signers).to_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """What a channel points at."""

    fqrn: Fqrn
    stack: StackName
    channel: ChannelName
    release: ReleaseId
    digest: Sha256
    """SHA-256 of the release's ``release.json``."""
    version: int
    """Grows by one with each change of the channel; at least 1."""
    issued: datetime
    """UTC, whole seconds."""
    expires: datetime
    """UTC, whole seconds: from this moment on it is not believed."""

    def __post_init__(self) -> None:
        where = pointer_path(self.stack, self.channel)
        if self.version < 1:
            raise CorruptError(f"{where} has version {self.version}, not at least 1")
        for time in (self.issued, self.expires):
            if time.tzinfo is not UTC or time.microsecond:
                raise CorruptError(f"{where} has the time {time.isoformat()}, not whole seconds of UTC")
        if self.expires <= self.issued:
            raise CorruptError(f"{where} expires before it is issued")

    def to_bytes(self) -> bytes:
        """The payload."""
        return canonical(
            {
                "schema": SCHEMA,
                "fqrn": str(self.fqrn),
                "stack": str(self.stack),
                "channel": str(self.channel),
                "release": str(self.release),
                "digest": self.digest.hex,
                "version": self.version,
                "issued": time_text(self.issued),
                "expires": time_text(self.expires),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Self:
        """Read the payload; ``where`` names it in errors.

        Raises:
            CorruptError: not a pointer in its one spelling, naming the key.
        """
        table = Table.of(data, where, SCHEMA)
        pointer = cls(
            fqrn=table.named("fqrn", Fqrn),
            stack=table.named("stack", StackName),
            channel=table.named("channel", ChannelName),
            release=table.named("release", ReleaseId),
            digest=table.named("digest", Sha256),
            version=table.number("version"),
            issued=_time(table, "issued"),
            expires=_time(table, "expires"),
        )
        one_spelling(pointer.to_bytes(), data, where)
        return pointer

    @property
    def history_path(self) -> str:
        """Where it stays when the next one has come; versions may begin anew, so its time is in the name."""
        return f"{history_path(self.stack, self.channel)}/{self.issued:%Y%m%dT%H%M%SZ}-{self.version}.json"

    def signed(self, *signers: Signer) -> bytes:
        """The file, signed with the repository's channel keys."""
        return sign(self.to_bytes(), payload_type=POINTER_TYPE, signers=signers).to_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """The last versions of channels that a rollback took away.

    A note of the publisher's to itself, signed by nobody but the repository: a channel that comes again must go
    on above them, because nodes that have seen it refuse a lower version.
    """

    versions: Mapping[str, int]
    """By ``stack/channel``."""

    def version(self, stack: StackName, channel: ChannelName) -> int:
        """The last version of a channel; 0 where none was ever withdrawn."""
        return self.versions.get(f"{stack}/{channel}", 0)

    def with_version(self, stack: StackName, channel: ChannelName, version: int) -> Self:
        """The same with a channel more."""
        key = f"{stack}/{channel}"
        return type(self)(versions={**self.versions, key: max(version, self.versions.get(key, 0))})

    def merged(self, other: Self) -> Self:
        """The higher version of each."""
        keys = self.versions.keys() | other.versions.keys()
        return type(self)(
            versions={key: max(self.versions.get(key, 0), other.versions.get(key, 0)) for key in keys}
        )

    def to_bytes(self) -> bytes:
        """The file."""
        return canonical({"schema": SCHEMA, "versions": dict(self.versions)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the file.

        Raises:
            CorruptError: not such a note, naming the key.
        """
        versions = Table.of(data, WITHDRAWN_PATH, SCHEMA).child("versions")
        return cls(versions={key: versions.number(key) for key in versions.value})


def read_root(data: bytes, *, master: Mapping[str, PublicKey], fqrn: Fqrn) -> Root:
    """Believe a root statement: signed with one of the master keys, and of this repository.

    Raises:
        CorruptError: not a root statement.
        TrustError: signed with none of the keys, or another repository's.
    """
    where = f"{fqrn}: {ROOT_PATH}"
    envelope = Envelope.from_bytes(data, where=where)
    signed = verify(envelope, master, threshold=1, payload_type=ROOT_TYPE, where=where)
    root = Root.from_bytes(signed.payload)
    if root.fqrn != fqrn:
        raise TrustError(f"{where} is the statement of {root.fqrn}, not of {fqrn}")
    return root


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """A pointer whose signatures hold, and the statement by which they do."""

    pointer: Pointer
    root: Root
    signers: tuple[str, ...]
    """Ids of the keys that signed it and count."""

    @property
    def expires(self) -> datetime:
        """The first moment at which it is no longer good: its own end, or that of the statement of keys."""
        return min(self.pointer.expires, self.root.expires)

    @property
    def age(self) -> tuple[int, int]:
        """What only grows: since when versions count, in seconds since 1970, and the version."""
        return int(self.root.restarted.timestamp()), self.pointer.version

    def check_time(self, now: datetime) -> None:
        """Refuse what has expired, and a clock by which nobody could tell.

        Raises:
            TrustError: pointer or statement has expired, or was signed after ``now``.
        """
        pointer, root = self.pointer, self.root
        channel = f"{root.fqrn}: {pointer_path(pointer.stack, pointer.channel)}"
        check_clock(clock_complaint(now, signed=max(pointer.issued, root.issued), what=channel))
        root.check_time(now)
        check_expiry(
            now,
            expires=pointer.expires,
            what=channel,
            hint="its owner must sign it again (headstart promote); meanwhile name the release by its digest",
        )


def read_pointer(data: bytes, *, root: Root, stack: StackName, channel: ChannelName) -> Believed:
    """Believe a pointer: signed by enough of the root's keys, and the one asked for. Dates are not looked at.

    Raises:
        CorruptError: not a pointer.
        TrustError: too few signatures, another channel's, or from before the statement lets pointers count.
    """
    where = f"{root.fqrn}: {pointer_path(stack, channel)}"
    envelope = Envelope.from_bytes(data, where=where)
    signed = verify(envelope, root.keys, threshold=root.threshold, payload_type=POINTER_TYPE, where=where)
    pointer = Pointer.from_bytes(signed.payload, where=where)
    if (pointer.fqrn, pointer.stack, pointer.channel) != (root.fqrn, stack, channel):
        raise TrustError(
            f"{where} is the pointer {pointer.fqrn}: {pointer.stack}@{pointer.channel} put in its place"
        )
    if pointer.issued < root.restarted:
        raise TrustError(
            f"{where} was signed on {time_text(pointer.issued)}, and its owner says that only what was signed "
            f"from {time_text(root.restarted)} on counts",
            hint="the source is behind or serves an old state: use another one",
        )
    return Believed(pointer=pointer, root=root, signers=signed.signers)


def _key(keys: Table, keyid: str) -> Ed25519PublicKey:
    text = keys.text(keyid)
    try:
        raw = bytes.fromhex(text) if len(text) == 2 * KEY_SIZE else b""
        return Ed25519PublicKey(raw)
    except (ValueError, CorruptError) as error:
        raise keys.wrong(keyid, "an Ed25519 public key in hexadecimal") from error


def _time(table: Table, key: str) -> datetime:
    text = table.text(key)
    try:
        if _TIME.fullmatch(text) is not None:
            return datetime.fromisoformat(text[:-1]).replace(tzinfo=UTC)
    except ValueError:
        pass
    raise table.wrong(key, "a UTC time such as 2026-11-22T20:15:00Z")
