"""Compressing content for the repository: any zlib stream will do for a reader, so the fast one is taken.

Julia's system image of 188 MB on one core: igzip level 2 makes 550 MB/s into 31 %, stock zlib level 1 94 MB/s
into 28 %, the real publisher's level 6 a quarter of that into little less.
"""

import zlib
from collections.abc import Callable
from typing import Final

from isal import isal_zlib

Compressor = Callable[[bytes | memoryview], bytes]
_FAST_LEVEL: Final = 2


def fast(content: bytes | memoryview) -> bytes:
    """A zlib stream, made fast; the same for the same content.

    ``isal_zlib.compress`` is not: at level 2 some hundred of 40,000 small inputs came out another way when
    several threads were at work, and every other stream is another object in the repository.
    """
    stream = isal_zlib.compressobj(_FAST_LEVEL)
    return stream.compress(content) + stream.flush()


def stock(content: bytes | memoryview) -> bytes:
    """The zlib stream that the real publisher makes."""
    return zlib.compress(content)


def stored(content: bytes | memoryview) -> bytes:
    """The content itself, for repositories that do not compress."""
    return bytes(content)
