"""Where a large file is cut into chunks (format section 17).

Theory of operation. The real publisher feeds bytes into ``x = (x << 1) ^ byte`` over 32 bits and cuts where x
comes close to 2**31 - 1. A byte leaves x after 32 shifts, so x at a position depends on the last 32 bytes only,
and the 32 bytes that are fed before the first test make up for the reset at each chunk's start. So x can be had
for a whole block at once: a window of 2n bytes is the window of n bytes, shifted by n, against the one n
positions on; five such doublings give 32. The first bytes of each chunk, up to the minimum, never matter.

Loading numpy takes as long as looking at a tree of 100,000 entries in which nothing changed, so this module is
loaded where a file is to be cut.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from headstart.cvmfs.chunks import WINDOW, ChunkSizes

_CENTRE: Final = np.uint32(0x7FFFFFFF)
_WRAPPED: Final = np.uint32(0xFFFFFFFF)
# Small enough for the arrays to stay in the second-level cache.
BLOCK = 32 * 1024
"""Bytes that are looked at together; it changes no result."""


def first_chunk(content: bytes | memoryview, sizes: ChunkSizes) -> int:
    """How many bytes the first chunk of ``content`` takes.

    Args:
        content: the next ``sizes.maximum`` bytes of a file, or all that is left of it.
        sizes: how large chunks may become.
    """
    if len(content) <= sizes.minimum:
        return len(content)
    data = np.frombuffer(content, dtype=np.uint8)
    end = min(len(data), sizes.maximum)
    scratch = np.empty((2, BLOCK + WINDOW), dtype=np.uint32)
    mark = _first_mark(data, (sizes.minimum, end), sizes.threshold, scratch)
    return end if mark is None else mark


def cut_marks(content: bytes | memoryview, sizes: ChunkSizes) -> list[int]:
    """Offsets at which ``content`` is cut, ascending, without 0 and without its end.

    A file of up to ``sizes.minimum`` bytes is never cut; one without a mark is stored whole.
    """
    view = memoryview(content)
    marks: list[int] = []
    start = first_chunk(view[: sizes.maximum], sizes)
    while start < len(view):
        marks.append(start)
        start += first_chunk(view[start : start + sizes.maximum], sizes)
    return marks


def _first_mark(
    data: npt.NDArray[np.uint8], span: tuple[int, int], threshold: int, scratch: npt.NDArray[np.uint32]
) -> int | None:
    """The first position of ``span`` whose window of 32 bytes, itself the last, asks for a cut."""
    if threshold == 0:
        return None
    reach = np.uint32(threshold - 1)
    for block in range(span[0], span[1], BLOCK):
        end = min(block + BLOCK, span[1])
        x = _rolling(data[block - WINDOW + 1 : end], scratch)
        distance = x - _CENTRE
        # C's abs() of the smallest integer is negative, so the farthest value of all counts as close.
        close = (distance + reach <= 2 * reach) | (x == _WRAPPED)
        if close.any():
            return block + int(close.argmax())
    return None


def _rolling(data: npt.NDArray[np.uint8], scratch: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The state x after each byte of ``data`` from the 32nd on."""
    window, other = scratch[0, : len(data)], scratch[1, : len(data)]
    window[:] = data
    for width in (1, 2, 4, 8, 16):
        longer = other[: len(window) - width]
        np.left_shift(window[:-width], np.uint32(width), out=longer)
        np.bitwise_xor(longer, window[width:], out=longer)
        window, other = longer, window
    return window
