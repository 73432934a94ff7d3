"""Large files: opened, read into a window from which chunks are cut, and put together again from their pieces.

``ingest`` cuts them; ``smallfiles`` has what is read at once and becomes one object.
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Final

from headstart.cvmfs.entry import Chunk, ChunkedFile, Compression, File
from headstart.cvmfs.objects import Digest
from headstart.errors import StorageError
from headstart.smallfiles import Attributes, attributes_of, compare
from headstart.tree import Source

Done = Callable[[File | ChunkedFile], None]
"""Told what became of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One object made of content."""

    digest: Digest
    size: int


class Pieces:
    """The pieces of a large file, which come in any order."""

    def __init__(self, source: Source, compression: Compression, done: Done) -> None:
        self.compression: Final = compression
        self._source = source
        self._done = done
        self._lock = Lock()
        self._found: dict[int, Taken] = {}
        self._count: int | None = None

    def add(self, number: int, piece: Taken) -> None:
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


def file_of(source: Source, digest: Digest, compression: Compression) -> File:
    """The entry of a file that became one object."""
    return File(name=source.name, stat=source.stat, size=source.size, digest=digest, compression=compression)


def _entry(source: Source, pieces: list[Taken], compression: Compression) -> File | ChunkedFile:
    if len(pieces) == 1:
        return file_of(source, pieces[0].digest, compression)
    chunks: list[Chunk] = []
    at = 0
    for piece in pieces:
        chunks.append(Chunk(offset=at, size=piece.size, digest=piece.digest))
        at += piece.size
    return ChunkedFile(
        name=source.name, stat=source.stat, size=source.size, chunks=tuple(chunks), compression=compression
    )


def attributed(source: Source, attributes: Attributes) -> Source:
    """A file with the attributes that were found with its content."""
    return replace(source, stat=replace(source.stat, xattrs=attributes)) if attributes else source


def attributes_at(source: Source, file: io.FileIO) -> Attributes:
    """The attributes of an open file, if they are wanted.

    Raises:
        StorageError: they cannot be read.
    """
    try:
        return attributes_of(file.fileno()) if source.xattrs else ()
    except OSError as error:
        raise StorageError(f"cannot read {source.place}: {error.strerror}") from error


def opened(source: Source) -> io.FileIO:
    """A file, open to be read without a buffer.

    Raises:
        StorageError: it cannot be opened.
    """
    try:
        return open(source.place, "rb", buffering=0)
    except OSError as error:
        raise StorageError(f"cannot read {source.place}: {error.strerror}") from error


def fill(file: io.FileIO, source: Source, window: memoryview) -> int:
    """Read until ``window`` is full or the file ends, and say how many bytes there are.

    Raises:
        StorageError: it cannot be read.
    """
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


def check_unchanged(source: Source, file: io.FileIO, size: int) -> None:
    """See that a file is what it was seen as, after so many bytes were read.

    Raises:
        CorruptError: it changed meanwhile.
        StorageError: it cannot be looked at.
    """
    try:
        now = os.fstat(file.fileno())
    except OSError as error:
        raise StorageError(f"cannot read {source.place}: {error.strerror}") from error
    compare(source.place, (source.size, source.seen), now, size)
