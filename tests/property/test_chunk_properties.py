"""Cut marks: the block-wise detector against format section 17 in plain Python."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headstart.cvmfs import cutting
from headstart.cvmfs.chunks import ChunkSizes
from headstart.cvmfs.cutting import cut_marks


def to_signed(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31


def reference(data: bytes, sizes: ChunkSizes) -> list[int]:
    """Section 17, word by word, with C's arithmetic on 32 bits."""
    marks: list[int] = []
    start = 0
    while True:
        x = 0
        at = start + sizes.minimum - 32
        mark = None
        while at < min(start + sizes.maximum, len(data)):
            x = (x << 1 ^ data[at]) % 2**32
            distance = to_signed(to_signed(x) - 2147483647)
            absolute = to_signed(abs(distance))
            if at >= start + sizes.minimum and absolute < 4294967295 // sizes.average:
                mark = at
                break
            at += 1
        if mark is None:
            mark = start + sizes.maximum
        if mark >= len(data):
            return marks
        marks.append(mark)
        start = mark


sizes_of_chunks = st.builds(
    lambda minimum, more, most: ChunkSizes(
        minimum=minimum, average=minimum + more, maximum=minimum + more + most
    ),
    st.integers(32, 200),
    st.integers(1, 300),
    st.integers(1, 4000),
)
contents = st.one_of(
    st.binary(max_size=3000),
    # Long runs of one byte give the values at the edges of C's arithmetic: 0x01 gives 0xffffffff.
    st.builds(lambda byte, count: bytes([byte]) * count, st.integers(0, 255), st.integers(0, 3000)),
    st.builds(lambda piece, count: piece * count, st.binary(min_size=1, max_size=70), st.integers(0, 60)),
)


@given(contents, sizes_of_chunks)
def test_marks_are_those_of_the_specification(content: bytes, sizes: ChunkSizes) -> None:
    assert cut_marks(content, sizes) == reference(content, sizes)


@given(st.integers(0, 2**32), st.integers(0, 40_000))
def test_marks_do_not_depend_on_the_blocks_that_are_looked_at(seed: int, length: int) -> None:
    content = bytes((seed >> (at % 29)) * at & 0xFF for at in range(length))
    sizes = ChunkSizes(minimum=64, average=3000, maximum=70_000)
    expected = cut_marks(content, sizes)
    whole, cutting.BLOCK = cutting.BLOCK, 37
    try:
        assert cut_marks(content, sizes) == expected
    finally:
        cutting.BLOCK = whole


@given(contents, sizes_of_chunks)
def test_chunks_keep_to_their_sizes(content: bytes, sizes: ChunkSizes) -> None:
    edges = [0, *cut_marks(content, sizes), len(content)]
    lengths = [end - start for start, end in pairwise(edges)]
    assert all(sizes.minimum <= length <= sizes.maximum for length in lengths[:-1])
    assert lengths[-1] <= sizes.maximum


def test_a_run_of_ones_is_cut_where_c_arithmetic_wraps() -> None:
    sizes = ChunkSizes(minimum=64, average=128, maximum=1024)
    assert cut_marks(b"\x01" * 200, sizes) == [64, 128, 192] == reference(b"\x01" * 200, sizes)


def test_a_file_of_exactly_the_maximum_is_one_chunk() -> None:
    sizes = ChunkSizes(minimum=64, average=128, maximum=1024)
    assert cut_marks(bytes(1024), sizes) == []
    assert cut_marks(bytes(1025), sizes) == [1024]
