"""Descriptions of a Julia: asked for, written, read."""

import json
from typing import Any

import pytest

from cachemaker import AVX2, BASE, CORE, Machine, targets
from headstart.datafiles import data_text
from headstart.errors import CorruptError, MissingToolError
from headstart.session import CacheFlags, Cpu, Session

SAID = """\
something else
headstart-session: version 1.10.6
headstart-session: pointer 8
headstart-session: uname Linux
headstart-session: arch x86_64
headstart-session: branch\x20
headstart-session: commit abc
headstart-session: image /j/lib/julia/sys.so
headstart-session: stdlib /j/share/julia/stdlib/v1.10
headstart-session: build_stdlib /build/share/julia/stdlib/v1.10
headstart-session: flags 99
headstart-session: pkgimages 1
headstart-session: module 0 fafbfcfd00000001 Core
headstart-session: module ade2ca703891594598fbdc099432e06a 1f Dates
"""


def heard(text: str) -> Session:
    return Session.said(text, "julia", form=12, features=frozenset({"avx2"}))


def test_what_a_julia_says_is_read_and_survives_json() -> None:
    blob = targets(AVX2, disabled={2: 1 << 16}).hex()
    session = heard(SAID + f"headstart-session: targets {blob}\n")
    assert session.front.branch == ""
    assert session.share == "/j/share/julia"
    assert session.modules[CORE] == 0xFAFBFCFD00000001
    assert session.cpu.lacks == frozenset({"avx512f"})
    assert Session.from_bytes(session.to_bytes(), "x.json") == session


def test_the_script_says_every_key_that_is_read() -> None:
    script = data_text("describe.jl")
    assert all(f'say("{line.split()[1]}"' in script for line in SAID.splitlines()[1:])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("flags 99", "flags many"),
        ("module 0 fafbfcfd00000001 Core", "module 0"),
        ("image /j/lib/julia/sys.so", "picture"),
        ("version 1.10.6", "version new"),
    ],
)
def test_an_answer_that_is_none(old: str, new: str) -> None:
    assert old in SAID
    with pytest.raises(MissingToolError, match="does not describe itself"):
        heard(SAID.replace(old, new) + "headstart-session: targets\n")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", "one"), ("version", 1), ("format", "x"), ("targets", "abc"), ("targets", "00"),
        ("modules", {}),
        ("modules", [{"name": "Core", "uuid": "0", "build_id": "xyz"}]), ("cpu", "avx2"), ("schema", 2),
        ("modules", [{"name": "Core", "uuid": "0" * 33, "build_id": "1"}]), ("stdlib", None),
    ],
)  # fmt: skip
def test_a_spoiled_description_is_named(key: str, value: Any) -> None:
    good: dict[str, Any] = json.loads(Machine("1.10.6").session.to_bytes())
    with pytest.raises(CorruptError, match=r"x\.json"):
        Session.from_bytes(json.dumps(good | {key: value}).encode(), "x.json")


def test_the_same_julia_elsewhere() -> None:
    session = Machine("1.10.6").session
    assert session.at("/julia", "/cvmfs/x/julia").stdlib == "/cvmfs/x/julia/share/julia/stdlib"
    assert session.at("/jul", "/cvmfs/x").stdlib == session.stdlib
    other = session.on_cpu(frozenset({"sse2"}))
    assert (other.cpu, other.targets) == (Cpu(features=frozenset({"sse2"}), lacks=None), "")
    assert other.modules[BASE] == session.modules[BASE]


def test_flags_read_like_options() -> None:
    assert str(CacheFlags(byte=0b10_1_01_10_1)) == "--pkgimages=yes -g2 --check-bounds=yes --inline=yes -O2"
    assert str(CacheFlags(byte=0b01_0_10_00_0)) == "--pkgimages=no -g0 --check-bounds=no --inline=no -O1"
