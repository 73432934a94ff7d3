"""Files in, objects out: hash, cut, compress and stage, in parallel, each file read once.

Theory of operation. Large files are read by the calling thread, which hashes them (SHA-256) and finds the cut
marks as it goes, and hands each chunk to a worker that compresses, names and stages it. Small files go to the
workers whole. A semaphore bounds what is under way, so memory stays at a few chunks per worker, however large
the tree. All the heavy calls release the interpreter lock, so threads use the cores.
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import Final

from headstart.cvmfs.chunks import ChunkSizes, first_chunk
from headstart.cvmfs.entry import Chunk, ChunkedFile, Compression, File
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName
from headstart.deflating import Compressor, fast, stored
from headstart.errors import CorruptError, StorageError
from headstart.names import Sha256
from headstart.store import Transaction
from headstart.tree import Source

Progress = Callable[[int], None]
"""Told how many bytes of content were taken in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How content becomes objects."""

    algorithm: Algorithm = Algorithm.SHA1
    compression: Compression = Compression.ZLIB
    compress: Compressor = fast
    sizes: ChunkSizes = field(default_factory=ChunkSizes)
    workers: int = 2

    @property
    def encode(self) -> Compressor:
        """From content to stored bytes of a file."""
        return stored if self.compression is Compression.NONE else self.compress


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What became of the files."""

    entries: Mapping[bytes, File | ChunkedFile]
    objects: int
    """How many objects are new."""
    stored: int
    """Bytes in the new objects."""


class Ingestion:
    """One run over a tree; see ``ingest``."""

    def __init__(self, recipe: Recipe, into: Transaction, progress: Progress) -> None:
        self._recipe = recipe
        self._into = into
        self._progress = progress
        self._slots = BoundedSemaphore(2 * recipe.workers)
        self._pool = ThreadPoolExecutor(recipe.workers, "ingest")
        self._failure: BaseException | None = None

    def run(self, files: Mapping[bytes, Source], expected: Mapping[bytes, Sha256]) -> Ingested:
        """Take in all files; see ``ingest``."""
        small: dict[bytes, Future[_Taken]] = {}
        large: dict[bytes, list[Future[_Taken]]] = {}
        try:
            # Large ones first, so that the last to finish is a small one.
            for path, source in sorted(files.items(), key=lambda item: -item[1].size):
                if source.size > self._recipe.sizes.minimum:
                    large[path] = self._cut(source, expected.get(path))
                else:
                    small[path] = self._submit(self._whole, source, expected.get(path))
            taken = {path: [future.result()] for path, future in small.items()}
            taken |= {path: [future.result() for future in futures] for path, futures in large.items()}
        finally:
            self._pool.shutdown(cancel_futures=True)
        new = [piece for pieces in taken.values() for piece in pieces if piece.new]
        return Ingested(
            entries={path: self._entry(files[path], pieces) for path, pieces in taken.items()},
            objects=len(new),
            stored=sum(piece.stored for piece in new),
        )

    def _submit(self, work: "Callable[..., _Taken]", *arguments: object) -> "Future[_Taken]":
        self._slots.acquire()
        if self._failure is not None:
            raise self._failure  # a full disk does not get better by going on
        future = self._pool.submit(work, *arguments)
        future.add_done_callback(self._done)
        return future

    def _done(self, future: "Future[_Taken]") -> None:
        if not future.cancelled():
            self._failure = self._failure or future.exception()
        self._slots.release()

    def _whole(self, source: Source, expected: Sha256 | None) -> "_Taken":
        with _opened(source) as file:
            content = _read(file, source, source.size + 1)
        _check_size(source, len(content))
        if expected is not None:
            _check_digest(source, hashlib.sha256(content).hexdigest(), expected)
        return self._piece(content, Kind.FILE)

    def _cut(self, source: Source, expected: Sha256 | None) -> "list[Future[_Taken]]":
        """Read a large file and hand its chunks to the workers."""
        sizes = self._recipe.sizes
        sha256 = hashlib.sha256()
        futures: list[Future[_Taken]] = []
        total = 0
        with _opened(source) as file:
            # One window for the whole file: fresh memory for each read costs as much as hashing it.
            window = memoryview(bytearray(sizes.maximum))
            filled = _fill(file, source, window)
            while filled:
                length = first_chunk(window[:filled], sizes)
                chunk = bytes(window[:length])
                whole = total == 0 and length == source.size
                futures.append(self._submit(self._piece, chunk, Kind.FILE if whole else Kind.CHUNK))
                if expected is not None:
                    sha256.update(chunk)
                total += length
                window[: filled - length] = window[length:filled]
                filled -= length
                filled += _fill(file, source, window[filled:])
        _check_size(source, total)
        if expected is not None:
            _check_digest(source, sha256.hexdigest(), expected)
        return futures

    def _piece(self, content: bytes, kind: Kind) -> "_Taken":
        encoded = self._recipe.encode(content)
        digest = self._recipe.algorithm.digest(encoded)
        new = self._into.put(ObjectName(digest=digest, kind=kind), encoded)
        self._progress(len(content))
        return _Taken(digest=digest, size=len(content), stored=len(encoded), new=new)

    def _entry(self, source: Source, pieces: "list[_Taken]") -> File | ChunkedFile:
        compression = self._recipe.compression
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
    stored: int
    new: bool


def _opened(source: Source) -> io.FileIO:
    try:
        return open(source.place, "rb", buffering=0)
    except OSError as error:
        raise StorageError(f"cannot read {source.place}: {error.strerror}") from error


def _read(file: io.FileIO, source: Source, size: int) -> bytes:
    """Exactly ``size`` bytes, or all that are left."""
    content = bytearray(size)
    return bytes(memoryview(content)[: _fill(file, source, memoryview(content))])


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


def _check_size(source: Source, size: int) -> None:
    if size != source.size:
        raise CorruptError(
            f"{source.place} changed while it was read: {size} bytes instead of {source.size}",
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
    return Ingestion(recipe, into, progress).run(files, expected)


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
