"""Where a repository is in an object store, and how to get in: ``s3://bucket/prefix``, CVMFS's ``s3.conf``.

The real server's file is sourced by a shell; here it is read line by line, assignments only, quoted as a shell
quotes, and nothing is expanded. Its names, and what they are where they are not set, are those of
``upload_s3.cc`` in CernVM-FS 2.12, but that requests are always signed by version 4.
"""

import re
import shlex
from dataclasses import dataclass
from typing import Final, Self

from headstart.errors import ConfigurationError

SCHEME: Final = "s3://"
PUBLIC_READ: Final = "public-read"
_ACLS: Final = frozenset(
    {
        "private", PUBLIC_READ, "public-read-write", "authenticated-read", "aws-exec-read", "bucket-owner-read",
        "bucket-owner-full-control",
    }
)  # fmt: skip
"""The canned ones."""
_NO_ACL: Final = frozenset({"", "-", "none"})
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
"""Ceph's rule, which is wider than that of Amazon."""
_PART: Final = re.compile(r"[A-Za-z0-9!_.*'()@+=,:~-]+")
"""What needs no care in a URL, as clients put the prefix into one."""
_DEFAULT_REGION: Final = "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Place:
    """A repository's place in a bucket."""

    bucket: str
    prefix: str
    """Without slashes around it; empty for the bucket's root."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``s3://bucket/prefix``.

        Raises:
            ConfigurationError: it is something else, or a name is no good in the address that clients use.
        """
        bucket, _, prefix = text.removeprefix(SCHEME).partition("/")
        if not text.startswith(SCHEME) or not _BUCKET.fullmatch(bucket):
            raise ConfigurationError(
                f"{text[:200]!r} names no bucket",
                hint="write it as s3://BUCKET/PREFIX; a bucket's name has two characters at least",
            )
        prefix = prefix.rstrip("/")
        parts = prefix.split("/") if prefix else []
        if any(part in (".", "..") or not _PART.fullmatch(part) for part in parts) or len(prefix) > 512:
            raise ConfigurationError(
                f"{text[:200]!r} has a prefix that clients cannot ask for as it is",
                hint="use letters, digits, dots and dashes, and single slashes",
            )
        return cls(bucket=bucket, prefix=prefix)

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    def holds(self, other: "S3Place") -> bool:
        """Whether another place is this one, or lies in it."""
        return self.bucket == other.bucket and f"{other.prefix}/".startswith(self.key(""))

    def key(self, path: str) -> str:
        """The name in the bucket of a file of the repository."""
        return f"{self.prefix}/{path}" if self.prefix else path


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Keys:
    """A pair of keys that was named; the secret stays out of every text."""

    access: str
    secret: str

    def __repr__(self) -> str:
        return f"S3Keys(access={self.access!r})"


class Surroundings:
    """Keys, endpoint and region come from the usual variables and files of AWS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A server that was named, with the keys to it."""

    endpoint: str
    """``http://host:port``."""
    region: str
    keys: S3Keys
    virtual: bool
    """Whether the bucket is a part of the host's name, in place of the path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """How to talk to an object store."""

    server: S3Server | Surroundings
    acl: str = PUBLIC_READ
    """The canned ACL of what is public; empty to send none, where a policy of the bucket makes it readable."""
    connections: int = 16
    attempts: int = 5
    """Of a request that the server or the network fails."""
    timeout: float = 30.0
    """Seconds without an answer."""
    lease: float = 60.0
    """Seconds after which a writer that does not say otherwise is taken for dead."""


def acl_of(text: str, where: str) -> str:
    """A canned ACL as it was written down; empty for none.

    Raises:
        ConfigurationError: there is no such one.
    """
    word = text.strip()
    if word in _NO_ACL:
        return ""
    if word not in _ACLS:
        raise ConfigurationError(
            f"{where}: {word[:60]!r} is no canned ACL",
            hint=f"it is {PUBLIC_READ} for most, and none where a bucket policy makes objects readable",
        )
    return word


def parse_s3_config(text: str, place: S3Place, *, where: str) -> S3Access:
    """Read an ``s3.conf``.

    Args:
        text: the file's.
        place: the repository's, whose bucket the file must be for.
        where: the file, for errors.

    Raises:
        ConfigurationError: something is missing or wrong in it, or it is for another bucket.
    """
    found = _assignments(text, where)

    def needed(name: str) -> str:
        if not found.get(name):
            raise ConfigurationError(f"{where} does not set {name}")
        return found[name]

    def number(name: str, default: int, most: int) -> int:
        word = found.get(name, "")
        value = int(word) if word.isascii() and word.isdecimal() and len(word) < 9 else -1
        if word and not 1 <= value <= most:
            raise ConfigurationError(f"{where}: {name} {word[:60]!r} is no number from 1 to {most}")
        return value if word else default

    bucket = needed("CVMFS_S3_BUCKET")
    if bucket != place.bucket:
        raise ConfigurationError(f"{where} is for the bucket {bucket}, and the storage is {place.name}")
    secure = found.get("CVMFS_S3_USE_HTTPS", "").lower() in ("yes", "on", "true", "1")
    host = needed("CVMFS_S3_HOST")
    if "/" in host:
        raise ConfigurationError(f"{where}: CVMFS_S3_HOST {host[:200]!r} is more than the name of a host")
    port = number("CVMFS_S3_PORT", 443 if secure else 80, 65535)
    default = S3Access(server=Surroundings())
    return S3Access(
        server=S3Server(
            endpoint=f"{'https' if secure else 'http'}://{host}:{port}",
            region=found.get("CVMFS_S3_REGION") or _DEFAULT_REGION,
            keys=S3Keys(access=needed("CVMFS_S3_ACCESS_KEY"), secret=needed("CVMFS_S3_SECRET_KEY")),
            virtual=found.get("CVMFS_S3_DNS_BUCKETS", "").lower() not in ("false", "no", "off", "0"),
        ),
        acl=acl_of(found.get("CVMFS_S3_X_AMZ_ACL", PUBLIC_READ), f"{where}: CVMFS_S3_X_AMZ_ACL"),
        connections=min(64, number("CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS", default.connections, 10_000)),
        attempts=number("CVMFS_S3_MAX_RETRIES", default.attempts - 1, 100) + 1,
        timeout=float(number("CVMFS_S3_TIMEOUT", int(default.timeout), 3600)),
    )


def _assignments(text: str, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for count, line in enumerate(text.splitlines(), start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ConfigurationError(f"{where}, line {count}: {str(error).lower()}") from error
        for word in words:
            name, equals, value = word.partition("=")
            if equals and name.startswith("CVMFS_S3_"):
                found[name] = value
    return found
