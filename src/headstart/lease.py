"""The writer's lock in a bucket, which outlives whoever holds it, but not for long.

Theory of operation. The lock is an object that is written under conditions only, so of several who reach for it
one gets it. Its holder writes it again every third of its time, with a number that grows; who finds that it was
not written for longer than it is good for (both by the server's clock, so no clock here matters) takes it over.
At the end it is not deleted but written as free, because a deletion has no condition on most servers and could
hit the next holder's. Where a lock was left by a process of this very machine that is no more, nobody waits.

A holder that was only asleep for too long learns of it when it next writes the lock, or when what it publishes
meets another manifest than the one it began with: each mutable file is written under a condition too. One thing
those conditions do not see: objects that nobody names yet, and a collection that takes them away between. So
a lock that was taken over is marked as ``suspect``, from holder to holder, until somebody has written a new
manifest, which stops the sleeper for good; until then nothing is deleted (``S3Transaction.delete``).

A server that ignores conditions would make all this a mere hope. So they are tried on the lock itself,
each time: two writes that must be refused, and one that must not.
"""

import json
import secrets
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from headstart.bucket import Bucket, Condition, Found, Fresh, RefusedError, Same
from headstart.errors import Error, LockedError, MissingError, StorageError
from headstart.holdername import holder
from headstart.holders import Fate, fate

LOCK: Final = "data/txn/headstart.lock"
_LIMIT: Final = 1 << 14
_NO_ETAG: Final = "0" * 32
_LONGEST: Final = 86400.0
_GRAIN: Final = 1.0
"""Seconds that times in HTTP may be wrong by: they have no fractions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of some machine, so well described that no other is taken for it."""

    host: str
    boot: str
    """Of the kernel: another one has no process of before."""
    namespace: str
    """In which the number counts."""
    pid: int
    start: str
    """When it began, in the kernel's ticks: numbers are used again."""

    @classmethod
    def here(cls) -> "Process":
        """This one."""
        host, boot, namespace, pid, start = holder().split(",")
        return cls(host=host, boot=boot, namespace=namespace, pid=int(pid), start=start)

    def gone(self) -> bool:
        """Whether it is known to be no more, by somebody who may be elsewhere and then cannot know."""
        named = (self.host, self.boot, self.namespace, str(self.pid), self.start)
        return bool(self.start) and fate(",".join(named)) is Fate.GONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """What the lock says."""

    holder: Process | None
    """None: it is free."""
    nonce: str
    """Another one for each holder."""
    count: int
    """Of its writings."""
    lease: float
    """Seconds for which a writing is good."""
    suspect: bool
    """Whether an earlier holder was cut off that may not know it."""

    def to_bytes(self) -> bytes:
        """As an object."""
        holder = self.holder
        said: dict[str, Any] = {
            "schema": 1,
            "nonce": self.nonce,
            "count": self.count,
            "lease": self.lease,
            "suspect": self.suspect,
            "holder": holder
            and {
                "host": holder.host,
                "boot": holder.boot,
                "namespace": holder.namespace,
                "pid": holder.pid,
                "start": holder.start,
            },
        }
        return json.dumps(said, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "Lock":
        """Read it; what is no lock of ours counts as held by somebody unknown for a day."""
        try:
            said = json.loads(data)
            held = said["holder"]
            return cls(
                holder=None
                if held is None
                else Process(
                    host=str(held["host"]),
                    boot=str(held["boot"]),
                    namespace=str(held["namespace"]),
                    pid=int(held["pid"]),
                    start=str(held["start"]),
                ),
                nonce=str(said["nonce"]),
                count=int(said["count"]),
                lease=min(_LONGEST, max(0.0, float(said["lease"]))),
                suspect=bool(said["suspect"]),
            )
        except (ValueError, TypeError, KeyError):
            unknown = Process(host="?", boot="", namespace="", pid=0, start="")
            return cls(holder=unknown, nonce="", count=0, lease=_LONGEST, suspect=True)


class Lease:
    """The lock, held. A thread keeps it fresh until it is released."""

    def __init__(self, bucket: Bucket) -> None:
        """Take the lock.

        Raises:
            LockedError: somebody else has it.
            StorageError: the server ignores conditions, or refuses to be written to.
            UnavailableError: it does not answer.
        """
        self._bucket = bucket
        self._over = threading.Event()
        self._change = threading.Lock()
        self._lost = False
        self._at = time.monotonic()
        found = _look(bucket)
        before = Lock.from_bytes(found.content) if found is not None else None
        cut_off = before is not None and _cut_off(bucket, before, found)
        suspect = cut_off or (before is not None and before.suspect)
        self._lock = Lock(
            holder=Process.here(),
            nonce=secrets.token_hex(16),
            count=0,
            lease=bucket.access.lease,
            suspect=suspect,
        )
        self._etag = self._take(found)
        try:
            self._try_conditions()
        except Error:
            self.release()
            raise
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    @property
    def suspect(self) -> bool:
        """Whether an earlier holder may still be about to publish."""
        return self._lock.suspect

    def trust(self) -> None:
        """Note that a new manifest stops every earlier holder."""
        with self._change:
            self._lock = replace(self._lock, suspect=False)

    def check(self) -> None:
        """See that it is still held.

        Raises:
            LockedError: it is not, or that is not known any more.
        """
        if self._lost or time.monotonic() - self._at > self._lock.lease:
            raise LockedError(
                f"the lock on {self._bucket.place.name} was lost: this process was stopped, or the server was "
                "not reached, for too long",
                hint="nothing of this publication is visible; do it again",
            )

    def release(self) -> None:
        """Give it back; a lock that cannot be given back is taken over later."""
        self._over.set()
        if hasattr(self, "_thread"):
            self._thread.join()
        if not self._lost:
            free = replace(self._lock, holder=None, count=self._lock.count + 1)
            try:
                self._bucket.write(LOCK, free.to_bytes(), Same(etag=self._etag))
            except Error:
                return

    def _take(self, found: Found | None) -> str:
        condition: Condition = Fresh() if found is None else Same(etag=found.etag)
        try:
            return self._bucket.write(LOCK, self._lock.to_bytes(), condition)
        except RefusedError as error:
            now = _look(self._bucket)
            if now is not None and self._is_ours(now):
                return now.etag
            if found is not None and now is not None and now.etag == found.etag:
                how = "refuses a write whose condition (If-Match) holds"
                raise _ignorant(self._bucket, how) from error
            raise LockedError(
                f"somebody else has just begun to publish to {self._bucket.place.name}",
                hint="try again when it is done",
            ) from error

    def _is_ours(self, found: Found) -> bool:
        """Whether this holder wrote it: of a request that was sent twice, the second is refused."""
        return Lock.from_bytes(found.content).nonce == self._lock.nonce

    def _try_conditions(self) -> None:
        for condition in (Fresh(), Same(etag=_NO_ETAG)):
            try:
                self._bucket.write(LOCK, self._lock.to_bytes(), condition)
            except RefusedError:
                continue
            word = "If-None-Match" if isinstance(condition, Fresh) else "If-Match"
            raise _ignorant(self._bucket, f"ignores the condition of a write ({word})")
        try:
            self._renew()
        except RefusedError as error:
            raise _ignorant(self._bucket, "refuses a write whose condition (If-Match) holds") from error

    def _renew(self) -> None:
        began = time.monotonic()
        with self._change:
            self._lock = replace(self._lock, count=self._lock.count + 1)
            data = self._lock.to_bytes()
        try:
            etag = self._bucket.write(LOCK, data, Same(etag=self._etag))
        except RefusedError:
            found = _look(self._bucket)
            if found is None or not self._is_ours(found):
                raise
            etag = self._bucket.write(LOCK, data, Same(etag=found.etag))
        self._etag, self._at = etag, began

    def _keep(self) -> None:
        while not self._over.wait(self._lock.lease / 3):
            try:
                self._renew()
            except RefusedError:
                self._lost = True
                return
            except Error:
                continue  # the time that is left decides


def prepare(bucket: Bucket) -> None:
    """Put a free lock where there is none, which makes the place one for a repository."""
    free = Lock(holder=None, nonce="", count=0, lease=bucket.access.lease, suspect=False)
    try:
        bucket.write(LOCK, free.to_bytes(), Fresh())
    except RefusedError:
        return


def _look(bucket: Bucket) -> Found | None:
    try:
        return bucket.read(LOCK, limit=_LIMIT)
    except MissingError:
        return None


def _cut_off(bucket: Bucket, before: Lock, found: Found | None) -> bool:
    """Whether the holder before was alive when last seen, and its time is over.

    Raises:
        LockedError: its time is not over.
    """
    holder = before.holder
    if holder is None or found is None or holder.gone():
        return False
    if found.now is None or found.now - found.modified <= before.lease + _GRAIN:
        until = datetime.fromtimestamp(found.modified + before.lease, UTC)
        raise LockedError(
            f"somebody else is publishing to {bucket.place.name}: process {holder.pid} on {holder.host}",
            hint=f"try again when it is done; if it is dead, its lock is good until {until:%H:%M:%S} UTC",
        )
    return True


def _ignorant(bucket: Bucket, how: str) -> StorageError:
    return StorageError(
        f"{bucket.server} {how}, so two publishers could overwrite each other's work",
        hint="use a server with conditional writes: docs/object-stores.md",
    )
