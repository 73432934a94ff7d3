import dataclasses
import io
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fakebuild import fake_prefix
from headstart.build.gather import able_levels
from headstart.datafiles import data_text
from headstart.errors import BuildError, IncompatibleError
from headstart.image import RecordedTarget, check_targets, recorded_targets, require_vectors
from headstart.julia import ImageLayout, JuliaVersion, capabilities, target

V3 = target(data_text("targets.toml"), "x86-64-v3", JuliaVersion.parse("1.5.3"))
HASWELL = (0x36D83203 & ~0x2000000, 0, 0x129, 0, 0, 0x21, 0, 0, 0, 0, 0)
"""The words that Julia 1.5.3 records for haswell; aes (bit 25) is no part of it."""


def target_data(targets: Sequence[tuple[str, Sequence[int], str]]) -> bytes:
    data = struct.pack("<I", len(targets))
    for name, words, extra in targets:
        data += (
            struct.pack("<II", 0, len(words)) + struct.pack(f"<{len(words)}I", *words) + bytes(4 * len(words))
        )
        for text in (name, extra):
            data += struct.pack("<I", len(text)) + text.encode()
    return data


def c_array(data: bytes) -> str:
    return "{" + ",".join(map(str, data)) + "}"


def compiled(folder: Path, source: str, *options: str) -> io.BytesIO:
    """A shared object from C source, as bytes in memory."""
    compiler = shutil.which("cc") or pytest.skip("makes its images with a C compiler, and there is none")
    (folder / "image.c").write_text(source)
    words = [compiler, "-shared", "-fPIC", *options, "-o", str(folder / "image.so"), str(folder / "image.c")]
    subprocess.run(words, check=True)
    return io.BytesIO((folder / "image.so").read_bytes())


def plain(folder: Path, data: bytes) -> io.BytesIO:
    return compiled(folder, f"const unsigned char jl_dispatch_target_ids[{len(data)}] = {c_array(data)};\n")


def test_targets_up_to_1_8(tmp_path: Path) -> None:
    data = target_data([("generic", (1 << 13,), ""), ("haswell", HASWELL, "")])
    generic, haswell = recorded_targets(plain(tmp_path, data), ImageLayout.DISPATCH_TARGET_IDS, "x")
    assert (generic.name, generic.features) == ("generic", frozenset({"cx16"}))
    assert haswell.features == V3.recorded_features
    check_targets((haswell,), V3, "x")


@pytest.mark.parametrize("pointers", [4, 5])
@pytest.mark.parametrize(
    ("declared", "options"),
    [
        ("static const unsigned char jl_dispatch_target_ids", ()),
        ("static const unsigned char other_name", ()),
        ("const unsigned char other_name", ()),
        ("static const unsigned char other_name", ("-Wl,-z,pack-relative-relocs",)),
    ],
    ids=["named", "stripped", "exported", "packed"],
)
def test_targets_from_1_9_on(tmp_path: Path, pointers: int, declared: str, options: tuple[str, ...]) -> None:
    data = target_data([("haswell", HASWELL, "")])
    name = declared.rsplit(maxsplit=1)[-1]
    source = f"{declared}[{len(data)}] = {c_array(data)};\nstatic int a;\n"
    source += f"const void *const jl_image_pointers[{pointers}] = {{{'&a,' * (pointers - 1)}{name}}};\n"
    (found,) = recorded_targets(compiled(tmp_path, source, *options), ImageLayout.IMAGE_POINTERS, "x")
    assert found == RecordedTarget(
        name="haswell", features=V3.recorded_features, disabled=frozenset(), unchecked=""
    )


def test_a_bit_without_a_name_is_kept(tmp_path: Path) -> None:
    (found,) = recorded_targets(
        plain(tmp_path, target_data([("new", (0, 1 << 7), "")])), ImageLayout.DISPATCH_TARGET_IDS, "x"
    )
    assert found.features == {"cpuid:1:7"}
    with pytest.raises(BuildError, match="cpuid:1:7"):
        check_targets((found,), V3, "the image")


@pytest.mark.parametrize(
    "data",
    [
        b"\x01\0",
        bytes(8),
        struct.pack("<I", 65) + bytes(4000),
        target_data([("haswell", HASWELL, "")])[:-9],
        struct.pack("<III", 1, 0, 1 << 20),
    ],
)
def test_a_damaged_record(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BuildError, match="damaged"):
        recorded_targets(plain(tmp_path, data), ImageLayout.DISPATCH_TARGET_IDS, "x")


def test_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="x is no ELF shared object"):
        recorded_targets(io.BytesIO(b"MZ" + bytes(100)), ImageLayout.DISPATCH_TARGET_IDS, "x")
    with pytest.raises(BuildError, match="no system image"):
        recorded_targets(compiled(tmp_path, "int a;\n"), ImageLayout.DISPATCH_TARGET_IDS, "x")
    with pytest.raises(BuildError, match="no system image"):
        recorded_targets(compiled(tmp_path, "int a;\n"), ImageLayout.IMAGE_POINTERS, "x")
    with pytest.raises(BuildError, match="cannot read which CPU targets"):
        recorded_targets(io.BytesIO(), ImageLayout.UNKNOWN, "x")


GOOD = RecordedTarget(name="haswell", features=V3.recorded_features, disabled=frozenset(), unchecked="")


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ((), "records 0 targets"),
        ((GOOD, GOOD), "records 2 targets"),
        (
            (RecordedTarget(name="generic", features=GOOD.features, disabled=frozenset(), unchecked=""),),
            "called generic, not haswell",
        ),
        (
            (
                RecordedTarget(
                    name="haswell", features=GOOD.features - {"avx2"}, disabled=frozenset(), unchecked=""
                ),
            ),
            "lacks avx2",
        ),
        (
            (
                RecordedTarget(
                    name="haswell", features=GOOD.features | {"aes"}, disabled=frozenset(), unchecked=""
                ),
            ),
            "uses aes beyond",
        ),
        (
            (RecordedTarget(name="haswell", features=GOOD.features, disabled=frozenset(), unchecked="+foo"),),
            "'\\+foo' on unchecked",
        ),
    ],
)
def test_an_image_that_is_not_for_its_level(recorded: tuple[RecordedTarget, ...], said: str) -> None:
    with pytest.raises(BuildError, match=said):
        check_targets(recorded, V3, "the image")


@pytest.mark.parametrize(
    ("level", "own", "fits"),
    [
        ("x86-64-v2", [set()], True),
        ("x86-64-v3", [set()], False),
        ("x86-64-v3", [set(), {"avx", "avx2"}], True),
        ("x86-64-v3", [{"avx", "avx512f"}], True),
        ("x86-64-v4", [set(), {"avx", "avx2"}], False),
        ("x86-64-v4", [set(), {"avx", "avx512f"}], True),
    ],
)
def test_vectors_wider_than_julias_own_image_has(level: str, own: list[set[str]], fits: bool) -> None:
    wanted = target(data_text("targets.toml"), level, JuliaVersion.parse("1.11.1"))
    parts = tuple(
        RecordedTarget(name=f"part{number}", features=frozenset(one), disabled=frozenset(), unchecked="")
        for number, one in enumerate(own)
    )
    if fits:
        require_vectors(wanted, parts)
    else:
        with pytest.raises(IncompatibleError, match=r"own image \(part0.*\) has no vectors of (256|512) bits"):
            require_vectors(wanted, parts)


def test_which_julias_keep_to_the_vectors_of_their_own_image() -> None:
    bound = [
        version
        for version in ("1.5.3", "1.10.6", "1.11.0", "1.11.1", "1.11.2", "1.12.0", "1.13.0")
        if capabilities(data_text("julia.toml"), JuliaVersion.parse(version)).own_vectors
    ]
    assert bound == ["1.11.0", "1.11.1"]


def test_julias_own_image_is_read_once_for_all_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = JuliaVersion.parse("1.11.1")
    levels = ("x86-64", "x86-64-v2", "x86-64-v3")
    made = fake_prefix(tmp_path)
    install = dataclasses.replace(made, probe=dataclasses.replace(made.probe, version=version))
    can = capabilities(data_text("julia.toml"), version)
    rows = [target(data_text("targets.toml"), level, version) for level in levels]
    own = [RecordedTarget(name="own", features=frozenset(), disabled=frozenset(), unchecked="")]
    read: list[str] = []

    def recorded(_file: object, _layout: object, name: str) -> tuple[RecordedTarget, ...]:
        read.append(name)
        return tuple(own)

    gather = sys.modules["headstart.build.gather"]  # the package has a function of that name
    monkeypatch.setattr(gather, "recorded_targets", recorded)
    monkeypatch.setattr(gather, "require_features", lambda *_: None)
    assert able_levels(levels, install, can, frozenset()) == ["x86-64", "x86-64-v2"]
    assert len(read) == 1
    own[0] = dataclasses.replace(own[0], features=rows[-1].recorded_features)
    assert able_levels(levels, install, can, frozenset()) == list(levels)
    assert len(read) == 2
    other = capabilities(data_text("julia.toml"), JuliaVersion.parse("1.11.2"))
    assert able_levels(levels, install, other, frozenset()) == list(levels)
    assert len(read) == 2
