"""Objects of the format: one spelling of a digest, and inflating that stops in time."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName, deflate, inflate
from headstart.errors import CorruptError


@given(strategies.digests)
def test_digest_survives_its_text(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest


@given(strategies.digests)
def test_upper_case_and_other_lengths_are_no_digest(digest: Digest) -> None:
    text = str(digest)
    wrong = [text[1:], text + "0", "0" * 40, " " + text, text + "\n"]
    if text.upper() != text:
        wrong.append(text.upper())
    for spelling in wrong:
        with pytest.raises(CorruptError):
            Digest.parse(spelling)


@given(strategies.digests, st.sampled_from(Kind))
def test_suffix_comes_after_the_tag(digest: Digest, kind: Kind) -> None:
    name = ObjectName(digest=digest, kind=kind)
    text = str(digest)
    assert name.path == f"data/{text[:2]}/{text[2:]}{kind.value}"


@given(st.binary(max_size=300), st.sampled_from([Algorithm.SHA1, Algorithm.SHAKE128]), st.data())
def test_one_changed_byte_is_another_object(content: bytes, algorithm: Algorithm, data: st.DataObject) -> None:
    name = ObjectName(digest=algorithm.digest(content), kind=Kind.FILE)
    name.check(content)
    with pytest.raises(CorruptError, match="does not have the bytes of its name"):
        name.check(content + b"\0")
    if content:
        at = data.draw(st.integers(0, len(content) - 1))
        changed = bytearray(content)
        changed[at] ^= data.draw(st.integers(1, 255))
        with pytest.raises(CorruptError):
            name.check(bytes(changed))


@given(st.binary(max_size=2000))
def test_inflate_undoes_deflate_at_the_exact_limit(content: bytes) -> None:
    stored = deflate(content)
    assert inflate(stored, limit=len(content), what="x") == content
    if content:
        with pytest.raises(CorruptError, match="inflates to more"):
            inflate(stored, limit=len(content) - 1, what="x")


@given(st.binary(min_size=1, max_size=500), st.data())
def test_cut_or_continued_streams_are_refused(content: bytes, data: st.DataObject) -> None:
    stored = deflate(content)
    cut = data.draw(st.integers(0, len(stored) - 1))
    with pytest.raises(CorruptError):
        inflate(stored[:cut], limit=1000, what="x")
    with pytest.raises(CorruptError, match="behind the end"):
        inflate(stored + b"x", limit=1000, what="x")


def test_a_bomb_is_not_inflated() -> None:
    bomb = zlib.compress(bytes(200_000_000), 9)
    with pytest.raises(CorruptError, match="inflates to more than the 1000 bytes"):
        inflate(bomb, limit=1000, what="x")


def test_the_empty_object_has_the_name_that_the_format_gives_it() -> None:
    empty = deflate(b"")
    assert str(Algorithm.SHA1.digest(empty)) == "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"
    assert str(Algorithm.SHAKE128.digest(empty)) == "28d94b83b7229b331fc601362b8e272e02665122-shake128"


def test_worked_example() -> None:
    stored = deflate(b"Hello, CVMFS!\n")
    name = ObjectName(digest=Algorithm.SHA1.digest(stored), kind=Kind.FILE)
    assert name.path == "data/02/3ae6fe715e48440c6bfed20eaab7f2b155bc81"
