"""Inflating: both engines keep the promise of the format's own, for good streams and for every damage."""

import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import inflating
from headstart.cvmfs import objects
from headstart.errors import CorruptError

Inflate = Callable[..., bytes]

contents = st.one_of(
    st.binary(max_size=2000),
    st.builds(lambda piece, times: piece * times, st.binary(min_size=1, max_size=5), st.integers(0, 30_000)),
)


def joined(stored: bytes, *, limit: int, what: str) -> bytes:
    """In pieces so small that every stream has many."""
    inflater = inflating.Inflater(limit=limit, what=what)
    found = [piece for at in range(0, len(stored), 7) for piece in inflater.feed(stored[at : at + 7])]
    return b"".join([*found, *inflater.rest()])


@pytest.fixture(params=["as installed", "zlib", "pieces", "pieces of zlib"])
def inflate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Inflate:
    if request.param.endswith("zlib"):
        monkeypatch.setattr(inflating, "_zlib", zlib)
    if not request.param.startswith("pieces"):
        return inflating.inflate
    monkeypatch.setattr(inflating, "_OUTPUT", 500)
    return joined


def verdict(inflate: Inflate, stored: bytes, limit: int) -> bytes | str:
    """The content, or what is wrong."""
    try:
        return inflate(stored, limit=limit, what="object X")
    except CorruptError as error:
        return error.message.split("(", maxsplit=1)[0]


@given(contents, st.sampled_from([1, 6, 9]), st.integers(0, 3))
def test_the_content_comes_back(content: bytes, level: int, spare: int) -> None:
    stored = zlib.compress(content, level)
    assert inflating.inflate(stored, limit=len(content) + spare, what="x") == content


@given(contents.filter(bool), st.data())
def test_every_damage_is_found_as_the_format_finds_it(content: bytes, data: st.DataObject) -> None:
    stored = zlib.compress(content)
    kind = data.draw(st.sampled_from(["cut", "flip", "tail", "bomb"]))
    limit = len(content)
    if kind == "cut":
        stored = stored[: data.draw(st.integers(0, len(stored) - 1))]
    elif kind == "flip":
        # Bits of deflate's data may still spell another stream; the two ends, magic and checksum, may not.
        place = data.draw(st.sampled_from([0, len(stored) - 1, len(stored) - 4]))
        stored = (
            stored[:place] + bytes([stored[place] ^ (1 << data.draw(st.integers(0, 7)))]) + stored[place + 1 :]
        )
    elif kind == "tail":
        stored += data.draw(st.binary(min_size=1, max_size=20))
    else:
        limit = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(CorruptError):
        inflating.inflate(stored, limit=limit, what="x")
    with pytest.raises(CorruptError):
        objects.inflate(stored, limit=limit, what="x")


@pytest.mark.parametrize(
    ("stored", "limit", "what"),
    [
        (zlib.compress(b"a" * 100) + b"!", 100, "object X has 1 byte behind the end of its zlib stream"),
        (zlib.compress(b"a" * 100)[:-1], 100, "object X is cut short: its zlib stream does not end"),
        (zlib.compress(b"a" * 101), 100, "object X inflates to more than the 100 bytes it should"),
        (b"<html>no</html>", 100, "object X is not a zlib stream "),
        (b"", 100, "object X is cut short: its zlib stream does not end"),
        (zlib.compress(b""), 0, b""),
    ],
)
def test_both_engines_say_what_is_wrong(inflate: Inflate, stored: bytes, limit: int, what: bytes | str) -> None:
    assert verdict(inflate, stored, limit) == what


def test_a_bomb_costs_no_more_than_its_limit(inflate: Inflate) -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    assert verdict(inflate, bomb, 1000) == "object X inflates to more than the 1000 bytes it should"
