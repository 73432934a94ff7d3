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


_INPUT: Final = 1 << 17
_OUTPUT: Final = 1 << 20


def pieces(stored: bytes, *, limit: int, what: str) -> Iterator[bytes]:
    """The same as ``inflate`` in pieces of a megabyte at most, for who has no room for the whole.

    Nothing counts before the last piece has come without an error.

    Raises:
        CorruptError: as ``inflate``, when it is found.
    """
    stream = _zlib.decompressobj()
    view = memoryview(stored)
    size = at = 0
    try:
        while not stream.eof:
            # The tail of a small block is copied in no time, that of the whole would not be.
            block: bytes | memoryview = stream.unconsumed_tail
            if not block:
                block, at = view[at : at + _INPUT], at + _INPUT
            piece: bytes = stream.decompress(block, _OUTPUT)
            size += len(piece)
            # An engine may hold content back whose last byte of input it has taken.
            if size > limit or not (piece or block):
                break
            if piece:
                yield piece
    except _ERRORS as error:
        raise CorruptError(f"{what} is not a zlib stream ({error})") from error
    behind = len(stream.unused_data) + max(0, len(stored) - at)
    check_inflated(size, ended=stream.eof, behind=behind, limit=limit, what=what)


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
