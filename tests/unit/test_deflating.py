"""Compressing: the same content gives the same object, however many threads are at work."""

import random
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from headstart.deflating import fast


def test_the_same_content_gives_the_same_stream_in_every_thread() -> None:
    source = random.Random(1)
    contents = [
        b"".join(source.choice([b"alpha ", b"beta\n", b"\0\0", b"%d" % number]) for _ in range(40))
        for number in range(5_000)
    ]
    with ThreadPoolExecutor(4) as pool:
        first = list(pool.map(fast, contents))
        again = list(pool.map(fast, contents))
    assert [number for number, one in enumerate(first) if one != again[number]] == []
    assert all(zlib.decompress(one) == content for one, content in zip(first, contents, strict=True))


LINES = """
import hashlib, sys
sys.path[:] = eval(sys.argv[1])
from headstart.deflating import fast
lines = [b"%d %d\\n" % (part, number) for part in range(5) for number in range(15)]
every = [line * (1 + number * 40) for line in lines for number in range(5)]
print(hashlib.sha256(b"".join(map(fast, every))).hexdigest())
"""


@pytest.mark.slow
def test_the_same_content_gives_the_same_stream_in_every_process() -> None:
    """Each has its own places in memory; at another level one of 200 or so makes another stream."""
    argv = (sys.executable, "-I", "-c", LINES, repr(sys.path))
    with ThreadPoolExecutor(2) as pool:
        said = pool.map(lambda _: subprocess.run(argv, capture_output=True, check=True).stdout, range(900))
        assert len(set(said)) == 1
