"""Where a repository's files are read from: a directory here; ``webstratum`` has the servers.

A stratum is never trusted. It hands out bytes by path, up to a limit that whoever asks must state; what they
are worth is decided by name and signature, further up.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Generator, Iterator
from typing import Final, Protocol

from headstart.errors import CorruptError, MissingError, UnavailableError

_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


PIECE: Final = 1 << 17
"""Bytes in a piece of a file, where it comes in pieces."""


class Sink(Protocol):
    """What takes a file piece by piece."""

    def begin(self) -> None:
        """An answer comes, from its first byte on: what came of another before is worth nothing."""
        ...

    def take(self, piece: bytes | memoryview) -> None:
        """The next piece, which is gone when this returns."""
        ...

    def following(self) -> str | None:
        """The path that this thread asks for after this one, where that is known: it may be asked for ahead."""
        ...


class Stratum(Protocol):
    """A source of a repository's files. Safe to use from several threads."""

    @property
    def name(self) -> str:
        """How to name it in messages."""
        ...

    def fetch(self, path: str, *, limit: int, fresh: bool = False) -> bytes:
        """Read one file.

        Args:
            path: relative to the repository's root, such as ``data/ab/cdef``.
            limit: bytes that it may have.
            fresh: ask caches on the way for a new copy, after a bad one.

        Raises:
            MissingError: there is no such file.
            UnavailableError: the source does not answer, or with an error.
            CorruptError: it has more than ``limit`` bytes; no more than that were read.
        """
        ...

    def pour(self, path: str, sink: Sink, *, limit: int, fresh: bool = False) -> None:
        """Read one file into a sink; only when this returns, the sink has all of it.

        Raises:
            As ``fetch``; and whatever the sink raises.
        """
        data = self.fetch(path, limit=limit, fresh=fresh)
        sink.begin()
        sink.take(data)

    def another(self) -> "Stratum | None":
        """The same repository without the server that gave bad bytes; None where there is no other."""
        ...


def check_path(path: str) -> str:
    """Refuse a path that would lead out of the repository.

    Raises:
        CorruptError: it is absolute, or has ``..``, an empty part, or a NUL.
    """
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise CorruptError(f"{path[:200]!r} is not a path inside a repository")
    return path


def too_long(path: str, limit: int, name: str) -> CorruptError:
    """The error of a file with more bytes than it may have."""
    return CorruptError(
        f"{path} from {name} has more than the {limit} bytes it may have",
        hint="it is damaged, or something else answers in its place",
    )


class DirectoryStratum:
    """A repository's storage, in a directory."""

    def __init__(self, root: str) -> None:
        self._root = os.path.abspath(root)

    @property
    def name(self) -> str:
        """The directory."""
        return self._root

    def another(self) -> None:
        """There is no other."""

    def fetch(self, path: str, *, limit: int, fresh: bool = False) -> bytes:  # noqa: ARG002 - nothing caches here
        """Read one file; see ``Stratum``."""
        with contextlib.closing(self._pieces(path, limit=limit)) as pieces:
            parts = list(pieces)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pour(self, path: str, sink: Sink, *, limit: int, fresh: bool = False) -> None:  # noqa: ARG002 - as above
        """Read one file; see ``Stratum``."""
        with contextlib.closing(self._pieces(path, limit=limit, most=PIECE)) as pieces:
            sink.begin()
            for piece in pieces:
                sink.take(piece)

    def _pieces(self, path: str, *, limit: int, most: int | None = None) -> Generator[bytes]:
        place = os.path.join(self._root, check_path(path))
        try:
            # O_NONBLOCK: a fifo in the place of a file must not keep the reader waiting.
            file = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                yield from _read(file, path, limit=limit, name=self._root, most=most)
            finally:
                os.close(file)
        except OSError as error:
            if error.errno in _MISSING:
                raise MissingError(f"there is no {path} in {self._root}") from error
            raise UnavailableError(f"cannot read {place}: {error.strerror}") from error


class Storage(Protocol):
    """What of a storage is needed to read a repository from it; see ``store.Store``."""

    @property
    def name(self) -> str:
        """How people call it."""
        ...

    def read(self, path: str, *, limit: int) -> bytes:
        """Read a file of at most ``limit`` bytes."""
        ...


class StorageStratum(Stratum):
    """A repository's storage that is no directory."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def name(self) -> str:
        """That of the storage."""
        return self._storage.name

    def another(self) -> None:
        """There is no other."""

    def fetch(self, path: str, *, limit: int, fresh: bool = False) -> bytes:  # noqa: ARG002 - nothing caches here
        """Read one file; see ``Stratum``."""
        return self._storage.read(check_path(path), limit=limit)


def _read(file: int, path: str, *, limit: int, name: str, most: int | None) -> Iterator[bytes]:
    status = os.fstat(file)
    size = status.st_size
    if not stat.S_ISREG(status.st_mode):
        raise UnavailableError(f"{path} in {name} is no regular file")
    if size > limit:
        raise too_long(path, limit, name)
    left = limit + 1
    while left > 0 and (part := os.read(file, min(most or size + 1, left))):
        yield part
        left -= len(part)
    if left <= 0:
        raise too_long(path, limit, name)
