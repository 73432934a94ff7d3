"""Compressing content for the repository: any zlib stream will do for a reader, so the fast one is taken.

Julia's system image, the first 80 MB of it, on one core: igzip level 2 makes 676 MB/s into 27.0 %, level 3
373 MB/s into 27.6 %, stock zlib level 1 111 MB/s into 27.0 %, the real publisher's level 6 a quarter of that
into little less.
"""

import zlib
from collections.abc import Callable
from typing import Final

from isal import isal_zlib

Compressor = Callable[[bytes | memoryview], bytes]
_FAST_LEVEL: Final = 2
_FIRST: Final = 4
"""Bytes of the shortest match."""


def fast(content: bytes | memoryview) -> bytes:
    """A zlib stream, made fast; the same for the same content.

    Every other stream is another object in the repository, and igzip makes others at times. At levels 1 and 2 a
    match with the first bytes is found or not by the places in memory that a process happens to have: of two
    million streams of repeated lines, in 5,000 processes, 62 were of the other kind; of 400,000 whose first
    bytes do not come again, none. At level 3 none of a million was. ``isal_zlib.compress`` is worse.
    """
    data = bytes(content)  # itself, if it is that already
    stream = isal_zlib.compressobj(_FAST_LEVEL if data.find(data[:_FIRST], 1) < 0 else _FAST_LEVEL + 1)
    return stream.compress(data) + stream.flush()


def stock(content: bytes | memoryview) -> bytes:
    """The zlib stream that the real publisher makes."""
    return zlib.compress(content)


def stored(content: bytes | memoryview) -> bytes:
    """The content itself, for repositories that do not compress."""
    return bytes(content)
