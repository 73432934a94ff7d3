"""A bucket of an S3 server: the few requests that a repository's storage is made of.

Theory of operation. Everything goes through boto3, which signs, retries what can be retried (no answer, 5xx,
being asked to slow down) and keeps connections. This module adds the bytes that are public, conditions, and one
sentence for each way in which a server says no.

Every upload carries the MD5 of its bytes, so the server refuses what was changed on the way. The newer
checksums of boto3 are off unless a request must have one: many servers that are no Amazon's do not know them.

Conditions. A write can be made to depend on what is there: ``Fresh``, nothing; ``Same``, the object with this
ETag. Servers differ in how the ETag is to be spelt: the standard wants quotes (and Cloudflare's R2 insists),
Ceph's radosgw compares it with its own, which has none (seen with 16.2.15). So the first conditional write is
tried both ways, and the way that worked is kept.
"""

import base64
import contextlib
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import boto3
from botocore import exceptions as aws
from botocore.config import Config
from urllib3.exceptions import HTTPError

from headstart.errors import (
    ConfigurationError,
    CorruptError,
    Error,
    MissingError,
    StorageError,
    UnavailableError,
)
from headstart.s3place import S3Access, S3Place, S3Server
from headstart.store import Listed

PAGE: Final = 1000
"""Names in one answer, or in one request to delete: the most that S3 has."""
_READS: Final = 3
"""Times that an answer is asked for whose end does not come."""
_BROKEN_OFF: Final = (aws.IncompleteReadError, aws.ResponseStreamingError, HTTPError)
"""An answer has begun and does not end as it should; what comes before that is tried again by boto3."""
_BROKEN: Final = (aws.ConnectionError, aws.HTTPClientError, *_BROKEN_OFF, OSError)
"""There is no connection, or it ends too early."""
_NO_CREDENTIALS: Final = (
    aws.NoCredentialsError, aws.PartialCredentialsError, aws.ProfileNotFound, aws.InvalidConfigError,
    aws.CredentialRetrievalError,
)  # fmt: skip
_UNREADY: Final = frozenset({"409", "ConditionalRequestConflict", "OperationAborted"})
"""Another write of the same name was under way: neither a yes nor a no."""
_REFUSED: Final = frozenset({"412", "PreconditionFailed"})
_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_FOR_EVER: Final = {"ContentType": "application/octet-stream", "CacheControl": "max-age=259200"}
_FOR_A_MINUTE: Final = {"ContentType": "application/x-cvmfs", "CacheControl": "max-age=61"}
"""As the real server has it: see format section 18."""
_OURS: Final = {"ContentType": "application/json", "CacheControl": "no-store"}
_CREDENTIALS: Final = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, or use --s3-config"
_SETTINGS: Final = "check AWS_ENDPOINT_URL, which begins with http:// or https://, and AWS_REGION"
_SAYINGS: Final = {
    "NoSuchBucket": ("there is no bucket {bucket} at {server}", "make it first, or check the name"),
    "InvalidAccessKeyId": ("{server} does not know the access key", _CREDENTIALS),
    "SignatureDoesNotMatch": ("{server} does not take the secret key for the access key's", _CREDENTIALS),
    "ExpiredToken": ("the credentials for {server} have expired", "get new ones"),
    "InvalidToken": ("{server} does not take the session token", "get new credentials"),
    "RequestTimeTooSkewed": ("{server} says that the clock here is wrong", "set the clock"),
    "AccessDenied": (
        "{server} does not allow {what} in {bucket} with these credentials",
        "ask the bucket's owner for the right to list, read, write and delete below the prefix",
    ),
    "AccessControlListNotSupported": (
        "the bucket {bucket} takes no ACLs",
        "make it readable by a bucket policy, and set HEADSTART_S3_ACL=none",
    ),
    "QuotaExceeded": ("the quota of {bucket} at {server} is used up", "raise it, or collect garbage"),
    "InsufficientStorage": ("{server} has no room left", "make room: what was published is untouched"),
    "InvalidBucketName": ("{bucket} is no name of a bucket for {server}", "check the name"),
    "PermanentRedirect": ("the bucket {bucket} is in another region", "set AWS_REGION to the bucket's"),
    "AuthorizationHeaderMalformed": ("{server} wants another region", "set AWS_REGION to the bucket's"),
    "NotImplemented": ("{server} cannot do {what}", "use a server that can: docs/object-stores.md"),
}


class Fresh:
    """The condition that there is nothing of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Same:
    """The condition that what is there has this ETag, without quotes."""

    etag: str


Condition = Fresh | Same


class RefusedError(Error):
    """A condition did not hold; never seen by a user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An object as it is in the bucket."""

    content: bytes
    etag: str
    modified: float
    """When it was written, and"""
    now: float | None
    """when it was asked for, both by the server's clock, in seconds since 1970; None if it does not say."""


class Bucket:
    """A place in a bucket. Safe to use from several threads."""

    def __init__(self, place: S3Place, access: S3Access) -> None:
        """Prepare; nothing is sent yet.

        Raises:
            ConfigurationError: the settings of AWS are wrong.
        """
        self.place: Final = place
        self.access: Final = access
        config: dict[str, Any] = {
            "connect_timeout": min(10.0, access.timeout),
            "read_timeout": access.timeout,
            "retries": {"mode": "standard", "total_max_attempts": access.attempts},
            "max_pool_connections": access.connections + 4,
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        named: dict[str, Any] = {}
        if isinstance(access.server, S3Server):
            server = access.server
            named = {
                "endpoint_url": server.endpoint,
                "region_name": server.region,
                "aws_access_key_id": server.keys.access,
                "aws_secret_access_key": server.keys.secret,
            }
            config["s3"] = {"addressing_style": "virtual" if server.virtual else "path"}
        try:
            # With keys that were named, nothing of the surroundings counts, and one session does for all.
            session = _shared_session() if named else boto3.session.Session()
            self._client = session.client("s3", config=Config(**config), **named)
        except (aws.BotoCoreError, ValueError) as error:
            hint = _CREDENTIALS if isinstance(error, _NO_CREDENTIALS) else _SETTINGS
            raise ConfigurationError(f"cannot use {place.name}: {error}", hint=hint) from error
        self.server: Final = str(self._client.meta.endpoint_url)
        self._quoted: bool | None = None
        """How the server wants an ETag to be spelt; None while that is not known."""

    def __del__(self) -> None:
        # The client is part of a ring of references, and would leave its connections to the collector of those.
        client = getattr(self, "_client", None)
        if client is not None:
            client.close()

    def read(self, path: str, *, limit: int) -> Found:
        """Read an object of at most ``limit`` bytes.

        Raises:
            MissingError: there is none.
            CorruptError: it is larger.
            StorageError, UnavailableError: the server does not give it.
        """
        with self._translated(f"reading {path}", path):
            answer, content = self._read(path, limit + 1)
        if len(content) > limit:
            raise CorruptError(f"{self.place.name}/{path} has more than the {limit} bytes it should")
        said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return Found(
            content=content,
            etag=_bare(answer["ETag"]),
            modified=answer["LastModified"].timestamp(),
            now=_seconds(said),
        )

    def _read(self, path: str, most: int) -> tuple[dict[str, Any], bytes]:
        for _ in range(_READS - 1):
            with contextlib.suppress(*_BROKEN_OFF):
                return self._read_once(path, most)
        return self._read_once(path, most)

    def _read_once(self, path: str, most: int) -> tuple[dict[str, Any], bytes]:
        answer: dict[str, Any] = self._client.get_object(Bucket=self.place.bucket, Key=self.place.key(path))
        with contextlib.closing(answer["Body"]) as body:
            content = bytearray()
            # Only at its end is an answer compared with its length.
            while len(content) < most and (part := body.read(most - len(content))):
                content += part
            return answer, bytes(content)

    def has(self, path: str) -> bool:
        """Whether there is such an object.

        Raises:
            StorageError, UnavailableError: the server does not say.
        """
        try:
            with self._translated(f"looking for {path}", path):
                self._client.head_object(Bucket=self.place.bucket, Key=self.place.key(path))
        except MissingError:
            return False
        except StorageError:
            # The answer to HEAD has no text that says what is wrong.
            with contextlib.suppress(CorruptError):
                self.read(path, limit=0)
        return True

    def write(self, path: str, content: bytes, condition: Condition | None = None) -> str:
        """Write an object.

        Args:
            path: from the repository's root; it decides who may read it, and for how long caches keep it.
            content: all of it.
            condition: what must hold at that moment.

        Returns:
            Its ETag.

        Raises:
            RefusedError: the condition does not hold.
            StorageError, UnavailableError: the server does not take it. What is there then is unknown if a
                request was sent, as ever when an answer is missing.
        """
        request: dict[str, Any] = {
            "Bucket": self.place.bucket,
            "Key": self.place.key(path),
            "Body": content,
            "ContentMD5": base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode(),
        }
        ours = path.startswith("data/txn/")
        request |= _OURS if ours else _FOR_EVER if path.startswith("data/") else _FOR_A_MINUTE
        if self.access.acl and not ours:
            request["ACL"] = self.access.acl
        with self._translated(f"writing {path}", path):
            match condition:
                case None:
                    return _bare(self._client.put_object(**request)["ETag"])
                case Fresh():
                    return self._conditional(request | {"IfNoneMatch": "*"})
                case Same(etag=etag):
                    return self._if_same(request, etag)

    def _if_same(self, request: dict[str, Any], etag: str) -> str:
        spellings = (True, False) if self._quoted is None else (self._quoted,)
        for quoted in spellings:
            with contextlib.suppress(RefusedError):
                written = self._conditional(request | {"IfMatch": f'"{etag}"' if quoted else etag})
                self._quoted = quoted
                return written
        raise RefusedError("what is there is something else")

    def _conditional(self, request: dict[str, Any]) -> str:
        for left in reversed(range(self.access.attempts)):
            try:
                return _bare(self._client.put_object(**request)["ETag"])
            except aws.ClientError as error:
                code = _code(error)
                if code in _REFUSED or (code in _MISSING and "IfMatch" in request):
                    raise RefusedError("a condition does not hold") from error
                if code not in _UNREADY or not left:
                    raise
        raise AssertionError  # the last time round raises or returns

    def listing(self, prefix: str) -> Iterator[Listed]:
        """All objects below a prefix that ends with a slash, page by page."""
        for page in self._pages(Prefix=self.place.key(prefix)):
            for item in page.get("Contents", ()):
                modified: datetime = item["LastModified"]
                yield Listed(self._path(item["Key"]), item["Size"], int(modified.timestamp()))

    def top(self) -> dict[str, str]:
        """What is at the repository's root: ETags by name, of what is like a directory an empty text."""
        start = f"{self.place.prefix}/" if self.place.prefix else ""
        found: dict[str, str] = {}
        for page in self._pages(Prefix=start, Delimiter="/"):
            found |= {self._path(item["Key"]): _bare(item["ETag"]) for item in page.get("Contents", ())}
            found |= {self._path(item["Prefix"]): "" for item in page.get("CommonPrefixes", ())}
        return found

    def _pages(self, **what: str) -> Iterator[dict[str, Any]]:
        pages = iter(
            self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.place.bucket, PaginationConfig={"PageSize": PAGE}, **what
            )
        )
        while True:
            with self._translated("listing", ""):
                page = next(pages, None)
            if page is None:
                return
            yield page

    def _path(self, key: str) -> str:
        return key[len(self.place.prefix) + 1 :] if self.place.prefix else key

    def delete(self, paths: Sequence[str]) -> None:
        """Delete up to ``PAGE`` objects with one request; one that is gone already is no error.

        Raises:
            StorageError, UnavailableError: not all of them could be.
        """
        named = [{"Key": self.place.key(path)} for path in paths]
        with self._translated("deleting", ""):
            answer = self._client.delete_objects(
                Bucket=self.place.bucket, Delete={"Objects": named, "Quiet": True}
            )
        wrong: list[dict[str, str]] = [
            item for item in answer.get("Errors", ()) if item.get("Code") not in _MISSING
        ]
        if wrong:
            raise self._denied(wrong[0].get("Code", ""), f"deleting {wrong[0].get('Key', '')}")

    def remove(self, path: str) -> None:
        """Delete one object; none is no error."""
        with self._translated(f"deleting {path}", path):
            self._client.delete_object(Bucket=self.place.bucket, Key=self.place.key(path))

    @contextlib.contextmanager
    def _translated(self, what: str, path: str) -> Iterator[None]:
        try:
            yield
        except aws.ClientError as error:
            code = _code(error)
            if code in _MISSING:
                raise MissingError(f"{self.place.name}/{path} is missing") from error
            raise self._denied(code, what, error) from error
        except _NO_CREDENTIALS as error:
            raise ConfigurationError(
                f"there are no credentials for {self.place.name}: {_sentence(error)}", hint=_CREDENTIALS
            ) from error
        except _BROKEN as error:
            raise UnavailableError(
                f"{self.server} gives no answer to {what} of {self.place.name}: {_sentence(error)}",
                hint="check the endpoint and the network; what was published is untouched",
            ) from error
        except aws.BotoCoreError as error:
            raise StorageError(f"cannot go on {what} of {self.place.name}: {_sentence(error)}") from error

    def _denied(self, code: str, what: str, error: aws.ClientError | None = None) -> Error:
        status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0) if error is not None else 0
        code = {"403": "AccessDenied", "401": "AccessDenied", "301": "PermanentRedirect"}.get(code, code)
        if code in _SAYINGS:
            text, hint = _SAYINGS[code]
            parts = {"bucket": self.place.bucket, "server": self.server, "what": what}
            return StorageError(text.format_map(parts), hint=hint)
        if status >= 500 or code in ("SlowDown", "ServiceUnavailable", "InternalError"):
            said = code if code == str(status) else f"{status or ''} {code}".strip()
            return UnavailableError(
                f"{self.server} fails at {what} of {self.place.name}: {said}",
                hint="try again later; what was published is untouched",
            )
        message = error.response["Error"].get("Message") if error is not None else ""
        return StorageError(
            f"{self.server} refuses {what} of {self.place.name}: {' '.join(filter(None, (code, message)))}"
        )


@functools.cache
def _shared_session() -> Any:
    return boto3.session.Session()


def batches(paths: Iterable[str]) -> Iterator[list[str]]:
    """The paths in their order, as many at a time as one request takes."""
    batch: list[str] = []
    for path in paths:
        batch.append(path)
        if len(batch) == PAGE:
            yield batch
            batch = []
    if batch:
        yield batch


def _code(error: aws.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _bare(etag: str) -> str:
    return etag.strip('"')


def _seconds(said: str | None) -> float | None:
    try:
        return parsedate_to_datetime(said).timestamp() if said else None
    except ValueError:
        return None


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
