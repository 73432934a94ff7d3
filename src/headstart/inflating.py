"""Undoing zlib, as fast as this machine can and as strictly as the format allows.

Intel's ISA-L (package ``isal``) inflates about 2.4 times as fast as zlib, which is the largest part of a
hydration's work. A node need not have it: without it, zlib does the same. Both let other threads run.
"""

import zlib
from collections.abc import Iterator
from typing import Final

from headstart.cvmfs.objects import check_inflated
from headstart.errors import CorruptError

# The one optional import of the node's modules: a node needs nothing but Python.
try:
    from isal import isal_zlib as _zlib

    ENGINE = "isal"
except ImportError:
    import zlib as _zlib  # type: ignore[no-redef]  # the same interface, by the library's promise

    ENGINE = "zlib"
"""Which of the two it is."""

_ERRORS: Final[tuple[type[Exception], ...]] = (
    zlib.error,
    _zlib.error,  # type: ignore[assignment]  # the stub calls the class an instance
)


_OUTPUT: Final = 1 << 20
"""Bytes of content in a piece, at most. Each is returned to the system when it is done with, so memory holds
one per thread; with smaller ones threads wait more often for each other's Python (of two, 6 % of the time)."""


class Inflater:
    """The same as ``inflate`` in pieces, for who has no room for the whole.

    Nothing counts before ``rest`` has come to its end without an error.

    Args:
        limit: bytes of content allowed.
        what: how to name the object in an error.
    """

    def __init__(self, *, limit: int, what: str) -> None:
        self._stream = _zlib.decompressobj()
        self._limit = limit
        self._what = what
        self._size = 0
        self._behind = 0

    def feed(self, stored: bytes | memoryview) -> Iterator[bytes]:
        """Content that the next piece of the stream brings.

        Raises:
            CorruptError: as ``inflate``, when it is found.
        """
        if self._stream.eof:
            self._behind += len(stored)
        block = stored
        while block and not self._stream.eof:
            piece = self._next(block)
            block = self._stream.unconsumed_tail
            if piece:
                yield piece

    def rest(self) -> Iterator[bytes]:
        """Content that is left when the whole stream has come.

        Raises:
            CorruptError: as ``inflate``.
        """
        # An engine may hold content back whose last byte of input it has taken.
        while not self._stream.eof and (piece := self._next(b"")):
            yield piece
        self._check()

    def _next(self, block: bytes | memoryview) -> bytes:
        try:
            piece: bytes = self._stream.decompress(block, _OUTPUT)
        except _ERRORS as error:
            raise CorruptError(f"{self._what} is not a zlib stream ({error})") from error
        self._size += len(piece)
        if self._size > self._limit:
            self._check()
        return piece

    def _check(self) -> None:
        behind = len(self._stream.unused_data) + self._behind
        check_inflated(self._size, ended=self._stream.eof, behind=behind, limit=self._limit, what=self._what)


def inflate(stored: bytes, *, limit: int, what: str) -> bytes:
    """Undo zlib strictly: whole stream, checksum, nothing behind it, at most ``limit`` bytes of content.

    The same promise as ``headstart.cvmfs.objects.inflate``; a test holds the two together.

    Args:
        stored: a zlib stream (RFC 1950).
        limit: bytes of content allowed; one more is an error, found without inflating the rest.
        what: how to name the object in an error.

    Raises:
        CorruptError: not a zlib stream, cut short, with bytes behind it, or larger than ``limit``.
    """
    stream = _zlib.decompressobj()
    try:
        content: bytes = stream.decompress(stored, limit + 1)
        # With its output exactly full, an engine may stop short of the stream's end mark and checksum.
        while not stream.eof and stream.unconsumed_tail and len(content) <= limit:
            more = stream.decompress(stream.unconsumed_tail, limit + 1 - len(content))
            if not more and not stream.eof:
                break
            content += more
    except _ERRORS as error:
        raise CorruptError(f"{what} is not a zlib stream ({error})") from error
    check_inflated(len(content), ended=stream.eof, behind=len(stream.unused_data), limit=limit, what=what)
    return content
