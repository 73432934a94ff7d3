"""A file on its way into the cache: parts are written where they belong and hashed in order as they arrive."""

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from headstart.cache import Workplace
from headstart.cvmfs.entry import Compression
from headstart.cvmfs.objects import ObjectName
from headstart.errors import CorruptError
from headstart.fetching import stored_limit
from headstart.inflating import Inflater
from headstart.release import FileRecord
from headstart.wording import counted

_BLOCK: Final = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """An object that holds a stretch of a file."""

    name: ObjectName
    offset: int
    size: int
    """Bytes of content."""
    compression: Compression

    @property
    def limit(self) -> int:
        """Bytes that the object may have as stored."""
        return stored_limit(self.size, self.compression)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A file to have in the cache, and what it is made of."""

    path: str
    """Where it is in the repository, for complaints."""
    record: FileRecord
    mtime: int
    parts: tuple[Part, ...]


class Arrival:
    """A file on its way: parts are written wherever they belong and hashed in order."""

    def __init__(self, wanted: Wanted, work: Workplace) -> None:
        self.wanted = wanted
        self._work = work
        self._lock = threading.Lock()
        self._descriptor = -1
        self._path = ""
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._hashing = False
        self._finished = False
        self._ready: dict[int, int] = {}

    def write(self, content: bytes | memoryview, offset: int) -> None:
        """Write a piece where it belongs; it counts for nothing before its part has arrived."""
        self._open()
        view = memoryview(content)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written

    def hash_before(self, part: Part) -> "hashlib._Hash | None":
        """The hash of all that comes before a part, where that is known: it can be hashed on its way then."""
        with self._lock:
            return self._hash.copy() if self._hashed == part.offset and not self._hashing else None

    def arrived(self, part: Part, hashed: "hashlib._Hash | None") -> None:
        """Take a part that is whole, and hash what can be hashed now.

        Args:
            part: the part.
            hashed: the hash of all up to its end, where ``hash_before`` has given a beginning.
        """
        self._open()
        with self._lock:
            if hashed is None:
                self._ready[part.offset] = part.size
            else:
                self._hash, self._hashed = hashed, part.offset + part.size
            if self._hashing:
                return
            self._hashing = True
        self._hash_ready()

    def _open(self) -> None:
        with self._lock:
            if self._descriptor < 0:
                self._descriptor, self._path = self._work.part()

    def _hash_ready(self) -> None:
        """Hash what is next in order, for as long as there is any; one thread at a time.

        It is read back from the file, quickly while it is in the kernel's memory, and takes none of
        ours: parts that wait for their turn would be many.
        """
        while True:
            with self._lock:
                size = self._ready.pop(self._hashed, None)
                if size is None:
                    self._hashing = False
                    return
            end = self._hashed + size
            block = memoryview(bytearray(min(_BLOCK, size)))
            while self._hashed < end:
                count = os.preadv(self._descriptor, (block[: end - self._hashed],), self._hashed)
                if not count:
                    raise OSError(errno.EIO, "cut short while it was written", self._path)
                self._hash.update(block[:count])
                self._hashed += count

    def finish_if_whole(self) -> bool:
        """Keep the file, if this was its last part; False when it is not the file that the release records."""
        record = self.wanted.record
        with self._lock:
            if self._finished or self._hashing or self._hashed != record.size:
                return True
            self._finished = True
        if self._hash.hexdigest() != record.sha256.hex:
            return False
        self._work.keep(self._descriptor, self._path, record, self.wanted.mtime)
        self.close()
        return True

    def close(self) -> None:
        """Let go of the file, kept or not."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


class Landing:
    """A part on its way to its place: takes an object as stored, undoes its compression, and writes.

    A sink (``stratum.Sink``). What it writes may be wrong; if it is, the next answer is written over it.
    """

    def __init__(
        self, arrival: Arrival, part: Part, following: Callable[[], Part | None] = lambda: None
    ) -> None:
        self._arrival = arrival
        self._part = part
        self._following = following
        self._what = f"object {part.name} of {arrival.wanted.path}"

    def begin(self) -> None:
        """Start, or start anew: every answer does, before its first piece."""
        self._size = 0
        self._hash = self._arrival.hash_before(self._part)
        self._fault: CorruptError | None = None
        self._inflater = Inflater(limit=self._part.size, what=self._what)

    def take(self, piece: bytes | memoryview) -> None:
        """The next piece of the object."""
        if self._part.compression is not Compression.ZLIB:
            self._write(iter((piece,)))
        elif self._fault is None:
            try:
                self._write(self._inflater.feed(piece))
            except CorruptError as error:
                # The rest is waited for, lest it be taken for the next answer: the object's name decides.
                self._fault = error

    def following(self) -> str | None:
        """See ``stratum.Sink``."""
        part = self._following()
        return None if part is None else part.name.path

    def end(self) -> None:
        """The object has come whole: its part has arrived, if that can be its content.

        Raises:
            CorruptError: it cannot.
        """
        if self._fault is not None:
            raise self._fault
        if self._part.compression is Compression.ZLIB:
            self._write(self._inflater.rest())
        if self._size != self._part.size:
            raise CorruptError(
                f"{self._what} has {counted(self._size, 'byte')} of content, not {self._part.size}"
            )
        self._arrival.arrived(self._part, self._hash)

    def _write(self, contents: Iterator[bytes | memoryview]) -> None:
        for content in contents:
            at, self._size = self._part.offset + self._size, self._size + len(content)
            if self._size <= self._part.size:
                self._arrival.write(content, at)
                if self._hash is not None:
                    self._hash.update(content)
