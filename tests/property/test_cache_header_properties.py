"""Headers of caches: what is written is read back, and no bytes do more than raise."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachemaker import APP, AVX2, CORE, LEAF, Made, front_of, rules_of, targets
from headstart.cacheheader import Build, Dependency, PackageId, Request, checksums, read_front, read_header
from headstart.errors import CorruptError, IncompatibleError
from headstart.image import decode_targets

VERSIONS = ("1.5.3", "1.6.7", "1.8.5", "1.9.4", "1.10.6", "1.11.1", "1.12.2", "1.13.0")
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
packages = st.builds(PackageId, words, st.integers(0, (1 << 128) - 1))
narrow = st.builds(Build, packages, st.integers(0, (1 << 64) - 1))
wide = st.builds(Build, packages, st.integers(0, (1 << 128) - 1))
times = st.floats(allow_nan=False)


@st.composite
def made(draw: st.DrawFn) -> Made:
    version = draw(st.sampled_from(VERSIONS))
    rules = rules_of(version)
    contents = st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1))
    dependencies = [
        Dependency(path, *(draw(contents) if rules.content else (0, 0)), draw(times))
        for path in draw(st.lists(words, min_size=1, max_size=4))
    ]
    provides = tuple(draw(st.lists(narrow, min_size=1, max_size=3, unique_by=lambda build: build.package)))
    return Made(
        front=front_of(version),
        checksum=draw(st.integers(1, (1 << 64) - 1)) if rules.native else 0,
        flags=draw(st.integers(0, 255)) if rules.native else 0,
        provides=provides,
        dependencies=tuple(dependencies),
        included=tuple(path for path, *_ in dependencies if draw(st.booleans())),
        requests=tuple(Request(provides[0].package, one) for one in draw(st.lists(packages, max_size=3))),
        preferences=tuple(draw(st.lists(words, max_size=3))) if rules.preferences else (),
        preferences_hash=draw(st.integers(0, (1 << 64) - 1)) if rules.preferences else 0,
        requires=tuple(draw(st.lists(wide if rules.native else narrow, max_size=5))),
        targets=draw(st.binary(max_size=40)) if rules.native else b"",
    )


@settings(deadline=None, max_examples=60)
@given(made())
def test_what_is_written_is_read_back(cache: Made) -> None:
    rules = rules_of(cache.front.version)
    data = cache.to_bytes()
    header = read_header(data, rules)
    for name in ("front", "checksum", "flags", "provides", "dependencies", "requests", "preferences"):
        assert getattr(header, name) == getattr(cache, name), name
    for name in ("preferences_hash", "requires", "targets"):
        assert getattr(header, name) == getattr(cache, name), name
    assert header.sources == (frozenset(cache.included) if rules.content else frozenset())
    assert checksums(data, native=True)[0] == struct.unpack("<I", data[-4:])[0]


def read(data: bytes, version: str) -> None:
    """Everything that reads bytes of a cache."""
    try:
        read_front(data)
        header = read_header(data, rules_of(version))
        assert len(header.provides) * 28 + len(header.requires) * 28 + len(header.targets) <= len(data)
        if header.targets:
            decode_targets(header.targets)
        checksums(data, native=bool(header.targets))
    except (CorruptError, IncompatibleError) as error:
        said = error.message
    else:
        said = "a value"
    assert 0 < len(said) < 200


@settings(deadline=None, max_examples=60)
@given(made(), st.data())
def test_damaged_bytes_are_named_or_are_values(cache: Made, data: st.DataObject) -> None:
    content = bytearray(cache.to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    read(bytes(content), cache.front.version)


@settings(deadline=None, max_examples=60)
@given(made(), st.data())
def test_lengths_that_lie_are_named(cache: Made, data: st.DataObject) -> None:
    content = bytearray(cache.to_bytes())
    place = data.draw(st.integers(13, len(content) - 4))
    number = data.draw(st.sampled_from((-1, 0, 1, 2**31 - 1, -(2**31), len(content), len(content) - place - 4)))
    struct.pack_into("<i", content, place, number)
    read(bytes(content), cache.front.version)


@settings(deadline=None, max_examples=60)
@given(made(), st.data())
def test_cut_off_bytes_are_named(cache: Made, data: st.DataObject) -> None:
    content = cache.to_bytes()
    read(content[: data.draw(st.integers(0, len(content) - 1))], cache.front.version)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200), st.sampled_from(VERSIONS))
def test_any_bytes_are_named(data: bytes, version: str) -> None:
    read(data, version)
    read(front_bytes(version) + data, version)


def front_bytes(version: str) -> bytes:
    whole = Made(front=front_of(version), provides=(Build(LEAF, 1),)).to_bytes()
    return whole[: whole.index(b"0" * 40) + 41]


@settings(deadline=None, max_examples=60)
@given(made())
def test_a_cache_of_another_layout_is_no_value_of_this_one(cache: Made) -> None:
    """Whatever another layout makes of the bytes, it is an error or a header, in bounded time."""
    for version in VERSIONS:
        read(cache.to_bytes(), version)


def test_native_codes_own_file_is_no_cache() -> None:
    data = bytearray(Made(front=front_of("1.10.6"), provides=(Build(APP, 1),)).to_bytes())
    data[len(front_bytes("1.10.6"))] = 1
    with pytest.raises(CorruptError, match="inner part"):
        read_header(bytes(data), rules_of("1.10.6"))


def test_targets_of_a_header_are_those_of_an_image() -> None:
    cache = Made(
        front=front_of("1.10.6"), provides=(Build(APP, 1),), requires=(Build(CORE, 2),), targets=targets(AVX2)
    )
    (target,) = decode_targets(read_header(cache.to_bytes(), rules_of("1.10.6")).targets)
    assert (target.name, target.features, target.disabled) == ("haswell", frozenset({"avx2"}), frozenset())
