"""Compressing: the same content gives the same object, however many threads are at work."""

import random
import zlib
from concurrent.futures import ThreadPoolExecutor

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
