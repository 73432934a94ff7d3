"""A repository's storage in an object store: see ``store`` for what it keeps, and ``lease`` for the lock.

Theory of operation. An object store has no rename, and needs none: an object of the repository is named by
its content, and nobody sees it before a catalog names it. So objects are uploaded to their places at once, many
at a time, and to settle is to wait for the last of them. A publication that is killed leaves objects that
nothing names, which the next one finds by name, or a collection takes away. Mutable files are each replaced
under the condition that they are what they were when the transaction began, so of two publishers that both
believe to be alone only one wins; the other is told so.

Whether an object is there already is asked one by one at first. Where more than a few of the same two first
letters are put, the names of all of those are fetched once, a thousand to a page, and kept for the transaction.
"""

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition, Lock
from typing import Final, Self

from headstart.bucket import Bucket, Fresh, RefusedError, Same, batches
from headstart.cvmfs.manifest import MANIFEST_FILE
from headstart.cvmfs.objectkeys import Key, key_at, key_of
from headstart.cvmfs.objects import ObjectName
from headstart.errors import Error, LockedError, StorageError, UnavailableError
from headstart.lease import Lease, prepare
from headstart.s3place import S3Access, S3Place
from headstart.store import BEFORE_THE_MANIFEST, Listed, check_mutable, check_object

_UNDER_WAY: Final = 64 << 20
"""Bytes of objects that wait for the server; one that is larger goes alone."""
_SINGLY: Final = 4
"""Objects of a folder that are asked for one by one."""


class S3Store:
    """A storage at a place in a bucket."""

    def __init__(self, place: S3Place, access: S3Access) -> None:
        self.bucket: Final = Bucket(place, access)

    @property
    def name(self) -> str:
        """``s3://bucket/prefix``."""
        return self.bucket.place.name

    def read(self, path: str, *, limit: int) -> bytes:
        """See ``Store.read``."""
        return self.bucket.read(path, limit=limit).content

    def has(self, path: str) -> bool:
        """See ``Store.has``."""
        return self.bucket.has(path)

    def listing(self, prefix: str) -> Iterator[Listed]:
        """See ``Store.listing``."""
        return self.bucket.listing(prefix)

    def is_empty(self) -> bool:
        """See ``NewStorage.is_empty``."""
        return {name.rstrip("/") for name in self.bucket.top()} <= BEFORE_THE_MANIFEST

    def strangers(self) -> list[str]:
        """See ``NewStorage.strangers``."""
        names = {name.rstrip("/") for name in self.bucket.top()} - BEFORE_THE_MANIFEST
        return sorted(name for name in names if not name.startswith(".cvmfs"))

    def prepare(self) -> None:
        """See ``NewStorage.prepare``: a free lock is put there, and nothing else needs to be."""
        prepare(self.bucket)

    @contextlib.contextmanager
    def transaction(self) -> Iterator["S3Transaction"]:
        """See ``Store.transaction``."""
        if not self.bucket.top().keys() & {MANIFEST_FILE, "data/"}:
            raise StorageError(f"{self.name} is no repository", hint="make one first: headstart repo create")
        lease = Lease(self.bucket)
        try:
            with S3Transaction(self.bucket, lease) as into:
                yield into
        finally:
            lease.release()


class S3Transaction:
    """The writer of an ``S3Store``.

    Args:
        bucket: the storage.
        lease: the lock on it.
    """

    def __init__(self, bucket: Bucket, lease: Lease) -> None:
        self._bucket = bucket
        self._lease = lease
        self._etags = {name: etag for name, etag in bucket.top().items() if etag}
        """Of the mutable files, as they were at the beginning and as this transaction left them."""
        self._there = _Presence(bucket)
        self._pool = ThreadPoolExecutor(bucket.access.connections, "upload")
        self._change = Condition()
        self._names: set[str] = set()
        """Put since the last time all was settled."""
        self._waiting = 0
        """Bytes under way, and"""
        self._uploads = 0
        """in how many objects."""
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def put(self, name: ObjectName, stored: bytes) -> bool:
        """See ``Transaction.put``."""
        with self._change:
            if name.path in self._names:
                return False
            self._names.add(name.path)
        try:
            if self._there.has(name):
                return False
        except Error as error:
            # Others were told that it is there.
            self._failure = self._failure or error
            raise
        with self._change:
            while self._uploads and self._waiting + len(stored) > _UNDER_WAY and self._failure is None:
                self._change.wait()
            if self._failure is not None:
                raise self._failed() from self._failure
            self._waiting += len(stored)
            self._uploads += 1
        future = self._pool.submit(self._upload, name, stored)
        future.add_done_callback(lambda done: self._uploaded(done, len(stored)))
        return True

    def _upload(self, name: ObjectName, stored: bytes) -> None:
        if self._failure is None:
            self._lease.check()
            self._bucket.write(name.path, stored)
            self._there.add(name)

    def _uploaded(self, future: Future[None], size: int) -> None:
        with self._change:
            if not future.cancelled():
                self._failure = self._failure or future.exception()
            self._waiting -= size
            self._uploads -= 1
            self._change.notify_all()

    def _failed(self) -> BaseException:
        if isinstance(self._failure, Error):
            return type(self._failure)(self._failure.message, hint=self._failure.hint)
        return StorageError(f"an object could not be written to {self._bucket.place.name}")

    def settle(self) -> None:
        """See ``Transaction.settle``."""
        with self._change:
            while self._uploads:
                self._change.wait()
            if self._failure is not None:
                raise self._failed() from self._failure
            self._names.clear()

    def replace(self, path: str, content: bytes) -> None:
        """See ``Transaction.replace``.

        Raises:
            LockedError: somebody else has changed it since the transaction began.
        """
        self._lease.check()
        etag = self._etags.get(path)
        try:
            written = self._bucket.write(path, content, Fresh() if etag is None else Same(etag=etag))
        except RefusedError as error:
            written = self._as_wanted(path, content)
            if not written:
                raise LockedError(
                    f"somebody else has changed {path} of {self._bucket.place.name} meanwhile",
                    hint="do it again",
                ) from error
        except UnavailableError as error:
            written = self._after_silence(path, content, error)
        self._etags[path] = written
        if path == MANIFEST_FILE and written != etag:
            self._lease.trust()

    def _as_wanted(self, path: str, content: bytes) -> str:
        """The ETag, if it was this very write that is there: its answer was lost, and it was sent again."""
        try:
            found = self._bucket.read(path, limit=len(content))
        except Error:
            return ""
        return found.etag if found.content == content else ""

    def _after_silence(self, path: str, content: bytes, error: UnavailableError) -> str:
        written = self._as_wanted(path, content)
        if not written:
            raise UnavailableError(
                error.message, hint=f"whether {path} was written is not known: headstart repo status tells"
            ) from error
        return written

    def delete(self, paths: Iterable[str]) -> None:
        """See ``Transaction.delete``.

        Raises:
            LockedError: the lock was lost, or an earlier publisher may still come back and name them.
        """
        for batch in batches(paths):
            for path in batch:
                check_object(path)
            if self._lease.suspect:
                raise LockedError(
                    f"the lock of an earlier publisher to {self._bucket.place.name} ran out, and it may "
                    "still come back and need what would be deleted",
                    hint="sign a new manifest first, which stops it: headstart repo resign --published",
                )
            self._lease.check()
            self._bucket.delete(batch)
            self._there.remove(batch)
            with self._change:
                self._names.difference_update(batch)

    def remove(self, path: str) -> None:
        """Remove a mutable file; one that is not there is no error.

        Raises:
            StorageError: it is no mutable file, or cannot be removed.
        """
        check_mutable(path)
        self._lease.check()
        self._bucket.remove(path)
        self._etags.pop(path, None)


class _Presence:
    """Which objects there are. Only for whoever holds the lock: nobody else changes it meanwhile."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._locks = [Lock() for _ in range(256)]
        self._asked = [0] * 256
        self._known: list[set[Key] | None] = [None] * 256

    def has(self, name: ObjectName) -> bool:
        """Whether there is such an object."""
        number = name.digest.raw[0]
        with self._locks[number]:
            known = self._known[number]
            if known is None:
                self._asked[number] += 1
                if self._asked[number] <= _SINGLY:
                    return self._bucket.has(name.path)
                listed = self._bucket.listing(f"data/{number:02x}/")
                known = {key for item in listed if (key := key_at(item.path)) is not None}
                self._known[number] = known
            return key_of(name) in known

    def add(self, name: ObjectName) -> None:
        """Note a new one."""
        number = name.digest.raw[0]
        with self._locks[number]:
            known = self._known[number]
            if known is not None:
                known.add(key_of(name))

    def remove(self, paths: Iterable[str]) -> None:
        """Note that some are gone."""
        for key in map(key_at, paths):
            if key is not None:
                with self._locks[key[0]]:
                    known = self._known[key[0]]
                    if known is not None:
                        known.discard(key)
