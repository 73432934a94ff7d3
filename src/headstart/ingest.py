"""Files in, objects out: hash, cut, compress and stage, in parallel, each file read once.

Theory of operation. Large files are read by the calling thread, which hashes them (SHA-256) and finds the cut
marks as it goes, and hands each chunk to a worker that compresses, names and stages it. Small files go to the
workers in batches, because handing one over costs as much as compressing it. A semaphore bounds what is under
way, so memory stays at a few chunks per worker, however large the tree.

The workers are threads: the calls that are heavy for a chunk release the interpreter lock, so they use the
cores. For small files they are not heavy enough, so where there are many of them and the storage is a
directory, processes take them over (``workshop``). What comes out is the same.
"""

import contextlib
import hashlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from threading import BoundedSemaphore, Lock
from typing import Final, Self

from headstart.cvmfs.chunks import ChunkSizes
from headstart.cvmfs.entry import ChunkedFile, Compression, File
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName
from headstart.deflating import Compressor, fast, stored
from headstart.largefiles import (
    Done,
    Pieces,
    Taken,
    attributed,
    attributes_at,
    check_unchanged,
    file_of,
    fill,
    opened,
)
from headstart.names import Sha256
from headstart.smallfiles import Order, check_digest, content_of
from headstart.store import DirectoryTransaction, Transaction
from headstart.tree import Source
from headstart.workbench import Made, Setting
from headstart.workshop import Workshop

Progress = Callable[[int], None]
"""Told how many bytes of content were taken in."""
_MOST_UNSETTLED: Final = 20_000
"""New objects that a transaction may list before they are brought to their places."""
_AT_ONCE: Final = 200
"""Objects that are brought to their places between two directories."""
_BATCH: Final = 64
"""Small files that a worker gets at once."""
_BATCH_BYTES: Final = 1 << 20
_FEW: Final = 16
"""Batches that are not worth starting processes for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How content becomes objects."""

    algorithm: Algorithm = Algorithm.SHA1
    compression: Compression = Compression.ZLIB
    compress: Compressor = fast
    sizes: ChunkSizes = field(default_factory=ChunkSizes)
    workers: int = 2
    uncompressed: Callable[[str], bool] = lambda _: False
    """Which files are stored as they are in any case, by their places on disk."""

    def compression_of(self, source: Source) -> Compression:
        """How a file is stored."""
        return Compression.NONE if self.uncompressed(source.place) else self.compression


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What became of the files."""

    entries: Mapping[bytes, File | ChunkedFile]
    objects: int
    """How many objects are new."""
    stored: int
    """Bytes in the new objects."""


class Ingestion:
    """Takes in one file after the other; the entries come when they are done, from any thread.

    Args:
        recipe: how objects are made.
        into: where they are staged.
        progress: told how many bytes were taken in.
    """

    def __init__(self, recipe: Recipe, into: Transaction, progress: Progress) -> None:
        self.recipe: Final = recipe
        self.objects = 0
        """New ones, so far."""
        self.stored = 0
        """Bytes in them."""
        self._into = into
        self._progress = progress
        self._width = 2 * recipe.workers
        self._slots = BoundedSemaphore(self._width)
        self._pool = ThreadPoolExecutor(recipe.workers, "ingest")
        self._batch: list[_Item] = []
        self._batch_bytes = 0
        self._batches = 0
        self._threaded = False
        """Whether a thread may be at work."""
        self._workshop: Workshop | None = None
        self._lock = Lock()
        self._unsettled = 0
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._workshop is not None:
            self._workshop.close()

    def take(self, source: Source, done: Done, expected: Sha256 | None = None) -> None:
        """Take in a file.

        Args:
            source: the file.
            done: told what became of it; not at all if it fails.
            expected: the SHA-256 that it must have, where one is recorded.

        Raises:
            Error: this or an earlier one failed.
        """
        if source.size > self.recipe.sizes.minimum:
            self._cut(source, expected, done)
            return
        self._batch.append((source, self.recipe.compression_of(source), expected, done))
        self._batch_bytes += source.size
        if len(self._batch) >= _BATCH or self._batch_bytes >= _BATCH_BYTES:
            self._hand_over()

    def content(self, content: bytes, compression: Compression) -> Digest:
        """Take in what is in memory already."""
        return self._piece(content, Kind.FILE, compression).digest

    def mark(self) -> int:
        """A mark behind all that was taken so far, for ``wait_for``."""
        return self._batches + (1 if self._batch else 0)

    def wait_for(self, mark: int) -> None:
        """Wait until all that was taken before a mark is done; what came later goes on.

        Raises:
            Error: something of it failed.
        """
        if mark > self._batches:
            self._hand_over()
        self._wait_for_threads()
        if self._workshop is not None:
            with self._failing():
                self._workshop.wait_for(mark)

    def _wait_for_threads(self) -> None:
        if self._threaded:
            self._threaded = False
            for _ in range(self._width):
                self._slots.acquire()
            self._slots.release(self._width)
        self._raise_failure()

    def drain(self) -> None:
        """Wait until all that was taken is done.

        Raises:
            Error: something of it failed.
        """
        self.wait_for(self.mark())

    def breathe(self) -> None:
        """Bring objects to their places if so many have gathered that their list should not grow any longer.

        Objects that nothing names harm nobody; a list of all of them in memory would grow with the tree.
        """
        into = self._into
        if self._unsettled > _MOST_UNSETTLED:
            self._wait_for_threads()
            self._unsettled = 0
            if isinstance(into, DirectoryTransaction):
                into.begin_settling()
            else:
                into.settle()
        # A few at a time: processes run out of files while we do nothing else.
        settled = isinstance(into, DirectoryTransaction) and into.settle_on(_AT_ONCE)
        if settled and self._workshop is not None:
            self._workshop.settled()

    def _hand_over(self) -> None:
        if not self._batch:
            return
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        self._batches += 1
        if self._batches == _FEW:
            self._workshop = self._opened_workshop()
        if self._workshop is None:
            self._submit(self._several, batch)
            return
        self._raise_failure()
        orders = [_order(source, compression, expected) for source, compression, expected, _ in batch]
        with self._failing():
            self._workshop.give(self._batches, orders, partial(self._answered, batch))

    def _opened_workshop(self) -> Workshop | None:
        """Processes for small files; None where threads have to do, which only takes longer."""
        into, recipe = self._into, self.recipe
        if not isinstance(into, DirectoryTransaction):
            return None
        setting = Setting(recipe.algorithm, recipe.compress, into.root, *into.places)
        with contextlib.suppress(OSError, EOFError, pickle.PicklingError, AttributeError):
            return Workshop(setting, recipe.workers)
        return None

    def _answered(self, batch: "list[_Item]", made: list[Made]) -> None:
        """Small files have become objects."""
        into, algorithm = self._into, self.recipe.algorithm
        taken = 0
        for (source, compression, _, done), (raw, size, path, place, attributes) in zip(
            batch, made, strict=True
        ):
            if place and isinstance(into, DirectoryTransaction) and into.adopt(path, place):
                self._count(size)
            digest = Digest(algorithm=algorithm, raw=raw)
            done(file_of(attributed(source, attributes), digest, compression))
            taken += source.size
        self._progress(taken)

    def _count(self, size: int) -> None:
        """A new object."""
        with self._lock:
            self.objects += 1
            self.stored += size
            self._unsettled += 1

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Whatever fails in there is the failure of all that is taken in afterwards."""
        try:
            yield
        except BaseException as error:
            self._failure = self._failure or error
            raise

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure  # a full disk does not get better by going on

    def _submit(self, work: "Callable[..., None]", *arguments: object) -> None:
        self._threaded = True
        self._slots.acquire()
        if self._failure is not None:
            self._slots.release()
            raise self._failure
        future = self._pool.submit(work, *arguments)
        future.add_done_callback(self._finished)

    def _finished(self, future: Future[None]) -> None:
        if not future.cancelled():
            self._failure = self._failure or future.exception()
        self._slots.release()

    def _several(self, batch: "list[_Item]") -> None:
        for source, compression, expected, done in batch:
            content, attributes = content_of(_order(source, compression, expected))
            digest = self._piece(content, Kind.FILE, compression).digest
            done(file_of(attributed(source, attributes), digest, compression))

    def _cut(self, source: Source, expected: Sha256 | None, done: Done) -> None:
        """Read a large file and hand its chunks to the workers."""
        # With numpy, which most publications have no need of.
        first_chunk = import_module("headstart.cvmfs.cutting").first_chunk
        sizes = self.recipe.sizes
        sha256 = hashlib.sha256()
        total = count = 0
        with opened(source) as file:
            source = attributed(source, attributes_at(source, file))
            pieces = Pieces(source, self.recipe.compression_of(source), done)
            # One window for the whole file: fresh memory for each read costs as much as hashing it.
            window = memoryview(bytearray(sizes.maximum))
            filled = fill(file, source, window)
            while filled:
                length: int = first_chunk(window[:filled], sizes)
                chunk = bytes(window[:length])
                whole = total == 0 and length == source.size
                self._submit(self._chunk, pieces, count, chunk, Kind.FILE if whole else Kind.CHUNK)
                if expected is not None:
                    sha256.update(chunk)
                total, count = total + length, count + 1
                window[: filled - length] = window[length:filled]
                filled -= length
                filled += fill(file, source, window[filled:])
            check_unchanged(source, file, total)
        if expected is not None:
            check_digest(source.place, sha256.hexdigest(), expected.hex)
        pieces.seal(count)

    def _chunk(self, pieces: Pieces, number: int, content: bytes, kind: Kind) -> None:
        pieces.add(number, self._piece(content, kind, pieces.compression))

    def _piece(self, content: bytes, kind: Kind, compression: Compression) -> Taken:
        encoded = stored(content) if compression is Compression.NONE else self.recipe.compress(content)
        digest = self.recipe.algorithm.digest(encoded)
        if self._into.put(ObjectName(digest=digest, kind=kind), encoded):
            self._count(len(encoded))
        self._progress(len(content))
        return Taken(digest=digest, size=len(content))


_Item = tuple[Source, Compression, Sha256 | None, Done]
"""A small file, how it is stored, what it must be, and who is told what became of it."""


def _order(source: Source, compression: Compression, expected: Sha256 | None) -> Order:
    sha256 = None if expected is None else expected.hex
    return source.place, source.size, source.seen, source.xattrs, compression is not Compression.NONE, sha256


_QUIET: Final[Progress] = lambda _: None  # noqa: E731 - a default that does nothing


def ingest(
    files: Mapping[bytes, Source],
    into: Transaction,
    recipe: Recipe,
    *,
    expected: Mapping[bytes, Sha256],
    progress: Progress = _QUIET,
) -> Ingested:
    """Turn files into objects.

    Args:
        files: by their path in the repository.
        into: where the objects are staged.
        recipe: how they are made.
        expected: the SHA-256 that files must have, where one is recorded.
        progress: told, from any thread, how many bytes were taken in.

    Raises:
        CorruptError: a file changes under our hands, or is not what its record says.
        StorageError: a file cannot be read, or an object not be written.
    """
    entries: dict[bytes, File | ChunkedFile] = {}
    with Ingestion(recipe, into, progress) as ingestion:
        # Large ones first, so that the last to finish is a small one.
        for path, source in sorted(files.items(), key=lambda item: -item[1].size):
            ingestion.take(source, partial(entries.__setitem__, path), expected.get(path))
        ingestion.drain()
    return Ingested(entries=entries, objects=ingestion.objects, stored=ingestion.stored)


def verify(files: Mapping[bytes, Source], expected: Mapping[bytes, Sha256], *, workers: int) -> None:
    """Read files only to compare them with their records.

    Raises:
        CorruptError: one is not what its record says.
        StorageError: one cannot be read.
    """

    def check(path: bytes) -> None:
        source = files[path]
        with opened(source) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        check_digest(source.place, found, expected[path].hex)

    with ThreadPoolExecutor(workers, "verify") as pool:
        list(pool.map(check, expected))
