"""Files in, objects out: hash, cut, compress and stage, in parallel, each file read once.

Theory of operation. Large files are read by the calling thread, which hashes them (SHA-256) and finds the cut
marks as it goes, and hands each chunk to a worker that compresses, names and stages it. Small files go to the
workers in batches, because handing one over costs as much as compressing it. A semaphore bounds what is under
way, so memory stays at a few chunks per worker, however large the tree. All the heavy calls release the
interpreter lock, so threads use the cores.
"""

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from threading import BoundedSemaphore, Lock
from typing import Final, Self

from headstart.cvmfs.chunks import ChunkSizes
from headstart.cvmfs.entry import Chunk, ChunkedFile, Compression, File
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName
from headstart.deflating import Compressor, fast, stored
from headstart.errors import CorruptError, StorageError
from headstart.names import Sha256
from headstart.store import Transaction
from headstart.tree import Source

Progress = Callable[[int], None]
"""Told how many bytes of content were taken in."""
_MOST_UNSETTLED: Final = 20_000
"""New objects that a transaction may list before they are brought to their places."""
_BATCH: Final = 64
"""Small files that a worker gets at once."""
_BATCH_BYTES: Final = 1 << 20


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
        self._batch: list[tuple[Source, Sha256 | None, Done]] = []
        self._batch_bytes = 0
        self._lock = Lock()
        self._unsettled = 0
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, source: Source, done: "Done", expected: Sha256 | None = None) -> None:
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
        self._batch.append((source, expected, done))
        self._batch_bytes += source.size
        if len(self._batch) >= _BATCH or self._batch_bytes >= _BATCH_BYTES:
            self._hand_over()

    def content(self, content: bytes, compression: Compression) -> Digest:
        """Take in what is in memory already."""
        return self._piece(content, Kind.FILE, compression).digest

    def drain(self) -> None:
        """Wait until all that was taken is done.

        Raises:
            Error: something of it failed.
        """
        self._hand_over()
        for _ in range(self._width):
            self._slots.acquire()
        self._slots.release(self._width)
        self._raise_failure()
        if self._unsettled > _MOST_UNSETTLED:
            # Objects that nothing names harm nobody; a list of all of them in memory would grow with the tree.
            self._into.settle()
            self._unsettled = 0

    def breathe(self) -> None:
        """Drain, if so much has gathered that its list should not grow any longer."""
        if self._unsettled > _MOST_UNSETTLED:
            self.drain()

    def _hand_over(self) -> None:
        if self._batch:
            batch, self._batch, self._batch_bytes = self._batch, [], 0
            self._submit(self._several, batch)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure  # a full disk does not get better by going on

    def _submit(self, work: "Callable[..., None]", *arguments: object) -> None:
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

    def _several(self, batch: "list[tuple[Source, Sha256 | None, Done]]") -> None:
        for source, expected, done in batch:
            self._whole(source, expected, done)

    def _whole(self, source: Source, expected: Sha256 | None, done: "Done") -> None:
        content = _content(source)
        if expected is not None:
            _check_digest(source, hashlib.sha256(content).hexdigest(), expected)
        compression = self.recipe.compression_of(source)
        done(_entry(source, [self._piece(content, Kind.FILE, compression)], compression))

    def _cut(self, source: Source, expected: Sha256 | None, done: "Done") -> None:
        """Read a large file and hand its chunks to the workers."""
        # With numpy, which most publications have no need of.
        first_chunk = import_module("headstart.cvmfs.cutting").first_chunk
        sizes = self.recipe.sizes
        sha256 = hashlib.sha256()
        pieces = _Pieces(source, self.recipe.compression_of(source), done)
        total = count = 0
        with _opened(source) as file:
            # One window for the whole file: fresh memory for each read costs as much as hashing it.
            window = memoryview(bytearray(sizes.maximum))
            filled = _fill(file, source, window)
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
                filled += _fill(file, source, window[filled:])
            _check_unchanged(source, file, total)
        if expected is not None:
            _check_digest(source, sha256.hexdigest(), expected)
        pieces.seal(count)

    def _chunk(self, pieces: "_Pieces", number: int, content: bytes, kind: Kind) -> None:
        pieces.add(number, self._piece(content, kind, pieces.compression))

    def _piece(self, content: bytes, kind: Kind, compression: Compression) -> "_Taken":
        encoded = stored(content) if compression is Compression.NONE else self.recipe.compress(content)
        digest = self.recipe.algorithm.digest(encoded)
        if self._into.put(ObjectName(digest=digest, kind=kind), encoded):
            with self._lock:
                self.objects += 1
                self.stored += len(encoded)
                self._unsettled += 1
        self._progress(len(content))
        return _Taken(digest=digest, size=len(content))


class _Pieces:
    """The pieces of a large file, which come in any order."""

    def __init__(self, source: Source, compression: Compression, done: "Done") -> None:
        self.compression: Final = compression
        self._source = source
        self._done = done
        self._lock = Lock()
        self._found: dict[int, _Taken] = {}
        self._count: int | None = None

    def add(self, number: int, piece: "_Taken") -> None:
        """One of them."""
        with self._lock:
            self._found[number] = piece
            last = len(self._found) == self._count
        if last:
            self._finish()

    def seal(self, count: int) -> None:
        """Say how many there are, once the file is known to be good."""
        with self._lock:
            self._count = count
            last = len(self._found) == count
        if last:
            self._finish()

    def _finish(self) -> None:
        pieces = [self._found[number] for number in range(len(self._found))]
        self._done(_entry(self._source, pieces, self.compression))


def _entry(source: Source, pieces: "list[_Taken]", compression: Compression) -> File | ChunkedFile:
    if len(pieces) == 1:
        return File(
            name=source.name,
            stat=source.stat,
            size=source.size,
            digest=pieces[0].digest,
            compression=compression,
        )
    chunks: list[Chunk] = []
    at = 0
    for piece in pieces:
        chunks.append(Chunk(offset=at, size=piece.size, digest=piece.digest))
        at += piece.size
    return ChunkedFile(
        name=source.name, stat=source.stat, size=source.size, chunks=tuple(chunks), compression=compression
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """One object made of content."""

    digest: Digest
    size: int


Done = Callable[[File | ChunkedFile], None]


def _opened(source: Source) -> io.FileIO:
    try:
        return open(source.place, "rb", buffering=0)
    except OSError as error:
        raise StorageError(f"cannot read {source.place}: {error.strerror}") from error


def _content(source: Source) -> bytes:
    """A small file, read with as few calls as can be: what there is to do for each file, a tree does often."""
    wanted = source.size + 1  # one more would show that it has grown
    try:
        descriptor = os.open(source.place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.read(descriptor, wanted)
            while len(content) < source.size and (more := os.read(descriptor, wanted - len(content))):
                content += more
            now = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"cannot read {source.place}: {error.strerror}") from error
    _compare(source, now, len(content))
    return content


def _fill(file: io.FileIO, source: Source, window: memoryview) -> int:
    """Read until ``window`` is full or the file ends, and say how many bytes there are."""
    filled = 0
    try:
        while filled < len(window):
            count = file.readinto(window[filled:])
            if not count:
                break
            filled += count
    except OSError as error:
        raise StorageError(f"cannot read {source.place}: {error.strerror}") from error
    return filled


def _check_unchanged(source: Source, file: io.FileIO, size: int) -> None:
    try:
        now = os.fstat(file.fileno())
    except OSError as error:
        raise StorageError(f"cannot read {source.place}: {error.strerror}") from error
    _compare(source, now, size)


def _compare(source: Source, now: os.stat_result, size: int) -> None:
    other = source.seen is not None and (now.st_ino, now.st_mtime_ns, now.st_ctime_ns) != source.seen
    if size != source.size or other:
        what = f"{size} bytes instead of {source.size}" if size != source.size else "somebody wrote to it"
        raise CorruptError(
            f"{source.place} changed while it was read: {what}",
            hint="let nothing write to the tree while it is published",
        )


def _check_digest(source: Source, found: str, expected: Sha256) -> None:
    if found != expected.hex:
        raise CorruptError(
            f"{source.place} does not have the SHA-256 of its record",
            hint="it was changed after the build: remove its tree from the stage and build again",
        )


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
        with _opened(source) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        _check_digest(source, found, expected[path])

    with ThreadPoolExecutor(workers, "verify") as pool:
        list(pool.map(check, expected))
