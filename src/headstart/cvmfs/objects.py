"""The objects of the format: algorithms, digests, object names, and stored bytes.

An object's name is the hash of its bytes *as stored*, after compression, so the same content may have several
names (format section 1). A ``Digest`` can only be had from bytes or from text in the one spelling that the
format knows; an ``ObjectName`` adds the suffix letter that says what kind of object it is.
"""

import enum
import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import Final, NewType, Self

from headstart.errors import CorruptError, MissingToolError
from headstart.wording import counted

Revision = NewType("Revision", int)
"""Number of a published state of a repository; grows by one with each."""

DIGEST_SIZE: Final = 20
"""Bytes in every content digest of the format."""


class Algorithm(enum.Enum):
    """A content hash of the format; the value is its id in catalog flags (format section 3)."""

    SHA1 = 1
    RIPEMD160 = 2
    SHAKE128 = 3

    @property
    def tag(self) -> str:
        """What follows the hexadecimal digits in text; nothing for SHA-1."""
        match self:
            case Algorithm.SHA1:
                return ""
            case Algorithm.RIPEMD160:
                return "-rmd160"
            case Algorithm.SHAKE128:
                return "-shake128"

    def digest(self, data: bytes | bytearray | memoryview) -> "Digest":
        """Hash ``data``.

        Raises:
            MissingToolError: this Python's OpenSSL offers no RIPEMD-160.
        """
        return Digest(algorithm=self, raw=self.raw_digest(data))

    def raw_digest(self, data: bytes | bytearray | memoryview) -> bytes:
        """The 20 bytes of ``digest``; raises the same."""
        match self:
            case Algorithm.SHA1:
                return hashlib.sha1(data).digest()
            case Algorithm.SHAKE128:
                return hashlib.shake_128(data).digest(DIGEST_SIZE)
            case Algorithm.RIPEMD160:
                return _ripemd160(data).digest()


class RunningDigest:
    """A digest of bytes that come in pieces.

    Raises:
        MissingToolError: as ``Algorithm.digest``.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._sponge = hashlib.shake_128() if algorithm is Algorithm.SHAKE128 else None
        self._block = hashlib.sha1() if algorithm is Algorithm.SHA1 else None
        if algorithm is Algorithm.RIPEMD160:
            self._block = _ripemd160(b"")
        self.size = 0
        """Bytes that have come."""

    def update(self, piece: bytes | memoryview) -> None:
        """Hash one more piece."""
        running = self._sponge or self._block
        assert running is not None  # noqa: S101  # it is one of the two
        running.update(piece)
        self.size += len(piece)

    def digest(self) -> "Digest":
        """The digest of all that has come."""
        if self._sponge is not None:
            return Digest(algorithm=self._algorithm, raw=self._sponge.digest(DIGEST_SIZE))
        assert self._block is not None  # noqa: S101  # it is one of the two
        return Digest(algorithm=self._algorithm, raw=self._block.digest())


def _ripemd160(data: bytes | bytearray | memoryview) -> "hashlib._Hash":
    try:
        return hashlib.new("ripemd160", data)
    except ValueError as error:
        raise MissingToolError(
            "the repository names its objects by RIPEMD-160, which this machine's OpenSSL does not offer",
            hint="enable its legacy provider, or take OpenSSL 3.0.7 or later",
        ) from error


_DIGEST_TEXT: Final = re.compile(r"([0-9a-f]{40})(-rmd160|-shake128)?")
_ALGORITHM_OF_TAG: Final = {algorithm.tag: algorithm for algorithm in Algorithm}


_ZEROS: Final = bytes(DIGEST_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """A content digest: 20 bytes and the algorithm that made them."""

    algorithm: Algorithm
    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != DIGEST_SIZE or self.raw == _ZEROS:
            raise CorruptError(
                f"a digest of {counted(len(self.raw), 'byte')} or of zeros is none: {self.raw.hex()!r}"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the format's text: 40 lower-case hexadecimal digits and the algorithm's tag.

        Raises:
            CorruptError: any other text, upper case included (the real tools compute garbage from it).
        """
        found = _DIGEST_TEXT.fullmatch(text)
        if found is None:
            raise CorruptError(f"{text[:60]!r} is no content digest")
        return cls(algorithm=_ALGORITHM_OF_TAG[found[2] or ""], raw=bytes.fromhex(found[1]))

    def __str__(self) -> str:
        return self.raw.hex() + self.algorithm.tag


class Kind(enum.StrEnum):
    """What an object is; the value is its suffix letter."""

    FILE = ""
    CHUNK = "P"
    CATALOG = "C"
    HISTORY = "H"
    CERTIFICATE = "X"
    METAINFO = "M"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectName:
    """An object in a repository's ``data`` directory."""

    digest: Digest
    kind: Kind

    @property
    def path(self) -> str:
        """Place relative to the repository's root: ``data/ab/cdef...C`` (format section 1)."""
        return object_path(self.digest.raw, self.digest.algorithm.tag + self.kind.value)

    def check(self, stored: bytes | bytearray | memoryview) -> None:
        """Compare stored bytes with the name.

        Raises:
            CorruptError: they are other bytes.
        """
        self.check_digest(self.digest.algorithm.digest(stored), len(stored))

    def check_digest(self, found: Digest, size: int) -> None:
        """Compare the digest of so many stored bytes with the name.

        Raises:
            CorruptError: it is another.
        """
        if found != self.digest:
            raise CorruptError(
                f"object {self.path} does not have the bytes of its name ({counted(size, 'byte')} read)",
                hint="the copy is damaged or forged: repair or replace this source",
            )

    def __str__(self) -> str:
        return self.path


def object_path(raw: bytes, suffix: str) -> str:
    """See ``ObjectName.path``.

    Args:
        raw: the digest.
        suffix: the algorithm's tag and the kind's letter.
    """
    text = raw.hex()
    return f"data/{text[:2]}/{text[2:]}{suffix}"


def deflate(content: bytes | bytearray | memoryview) -> bytes:
    """Compress as the real tools do: zlib stream at the default level (format section 2)."""
    return zlib.compress(content)


def inflate(stored: bytes, *, limit: int, what: str) -> bytes:
    """Undo ``deflate`` strictly: whole stream, nothing behind it, at most ``limit`` bytes of content.

    Args:
        stored: a zlib stream (RFC 1950).
        limit: bytes of content allowed; one more is an error, found without inflating the rest.
        what: how to name the object in an error.

    Raises:
        CorruptError: not a zlib stream, cut short, with bytes behind it, or larger than ``limit``.
    """
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(stored, limit + 1)
    except zlib.error as error:
        raise CorruptError(f"{what} is not a zlib stream ({error})") from error
    check_inflated(len(content), ended=stream.eof, behind=len(stream.unused_data), limit=limit, what=what)
    return content


def check_inflated(size: int, *, ended: bool, behind: int, limit: int, what: str) -> None:
    """What every way of inflating has to promise, whichever library it uses.

    Args:
        size: bytes that came out, as far as they were let out.
        ended: whether the stream reached its end mark.
        behind: bytes that follow the end of the stream.
        limit: bytes of content allowed.
        what: how to name the object in an error.

    Raises:
        CorruptError: too much content, a stream cut short, or bytes behind it.
    """
    if size > limit:
        raise CorruptError(f"{what} inflates to more than the {counted(limit, 'byte')} it should")
    if not ended:
        raise CorruptError(f"{what} is cut short: its zlib stream does not end")
    if behind:
        raise CorruptError(f"{what} has {counted(behind, 'byte')} behind the end of its zlib stream")
