import itertools

import pytest

from headstart.datafiles import data_text
from headstart.errors import ConfigurationError, IncompatibleError, MissingToolError
from headstart.julia import (
    ImageLayout,
    JuliaProbe,
    JuliaVersion,
    Proof,
    capabilities,
    require_features,
    target,
)
from headstart.microarchitecture import LEVELS

MINORS = range(5, 15)


def test_versions_in_julias_order() -> None:
    texts = ["1.5.3", "1.9.0-beta1", "1.9.0-rc2", "1.9.0", "1.10.0", "1.11.1", "1.11.2"]
    versions = [JuliaVersion.parse(text) for text in texts]
    assert sorted(versions, reverse=True) == versions[::-1]
    assert [str(version) for version in versions] == texts
    assert JuliaVersion.parse("1.11") == JuliaVersion.parse("1.11.0+build.1")


@pytest.mark.parametrize("text", ["", "1", "v1.5.3", "1.5.3.4", "1.x"])
def test_no_version(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no version of Julia"):
        JuliaVersion.parse(text)


@pytest.mark.parametrize("minor", MINORS)
def test_every_version_from_1_5_to_1_14_has_exactly_one_row(minor: int) -> None:
    found = capabilities(data_text("julia.toml"), JuliaVersion.parse(f"1.{minor}.2"))
    assert (found.proof is Proof.TRACE) == (minor <= 8)
    assert (found.image_layout is ImageLayout.DISPATCH_TARGET_IDS) == (minor <= 8)
    assert (found.image_layout is ImageLayout.UNKNOWN) == (minor == 14)
    assert ("--compiled-modules=strict" in found.run_options) == (minor >= 11)
    assert ("--pkgimages=no" in found.build_options) == (minor >= 9)
    assert ("julia-internal" in found.libraries) == (minor >= 6)
    assert found.lock_formats == (("1", "2") if minor >= 6 else ("1",))


def test_julia_learnt_to_read_locks_of_the_second_format_with_1_6_2() -> None:
    assert capabilities(data_text("julia.toml"), JuliaVersion.parse("1.6.1")).lock_formats == ("1",)


@pytest.mark.parametrize("text", ["1.4.2", "1.15.0", "2.0.0", "0.7.0"])
def test_other_versions_are_refused(text: str) -> None:
    with pytest.raises(IncompatibleError, match="does not know Julia"):
        capabilities(data_text("julia.toml"), JuliaVersion.parse(text))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("text", ["1.5.3", "1.6.7", "1.10.6", "1.11.1", "1.11.2", "1.12.2", "1.13.0"])
def test_every_level_has_a_spelling_and_asks_for_all_of_the_level(level: str, text: str) -> None:
    found = target(data_text("targets.toml"), level, JuliaVersion.parse(text))
    assert LEVELS[level] <= set(found.features)
    assert list(found.features) == sorted(set(found.features))
    assert "x86-64" not in found.cpu_target, "Julia below 1.14 makes images that crash from that name"
    # What an image uses and a CPU of the level may lack must not be in it, with the two that Haswell brings.
    assert found.recorded_features - LEVELS[level] <= {"cx16", "fsgsbase", "pclmulqdq"}


def test_levels_stand_from_the_least_to_the_most_demanding() -> None:
    table = data_text("targets.toml")
    found = [target(table, level, JuliaVersion.parse("1.5.3")) for level in LEVELS]
    for less, more in itertools.pairwise(found):
        assert set(less.features) < set(more.features)


def test_an_unknown_target_names_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="x86-64-v3"):
        target(data_text("targets.toml"), "znver4", JuliaVersion.parse("1.5.3"))


def test_a_level_without_a_spelling_is_refused() -> None:
    with pytest.raises(IncompatibleError, match=r"how to build for x86-64-v3 with Julia 1\.14"):
        target(data_text("targets.toml"), "x86-64-v3", JuliaVersion.parse("1.14.0"))


def test_a_target_above_this_machine_names_what_is_missing() -> None:
    wanted = target(data_text("targets.toml"), "x86-64-v4", JuliaVersion.parse("1.5.3"))
    require_features(wanted, frozenset(wanted.features))
    with pytest.raises(IncompatibleError, match=r"lacks avx512bw avx512cd;") as caught:
        require_features(wanted, frozenset(wanted.features) - {"avx512bw", "avx512cd"})
    assert caught.value.exit_code == IncompatibleError.exit_code
    assert "--target" in caught.value.hint


PROBE = """noise
headstart-probe: version 1.5.3
headstart-probe: bindir /j/bin
headstart-probe: image /j/lib/julia/sys.so
headstart-probe: stdlib /j/share/julia/stdlib/v1.5
headstart-probe: library /j/lib/libjulia.so.1.5
headstart-probe: library /j/lib/with a space.so
"""


def test_a_probe() -> None:
    probe = JuliaProbe.parse(PROBE, "julia")
    assert probe.version == JuliaVersion.parse("1.5.3")
    assert probe.libraries == ("/j/lib/libjulia.so.1.5", "/j/lib/with a space.so")


@pytest.mark.parametrize("text", ["", "julia version 1.5.3\n", PROBE.replace("1.5.3", "DEV")])
def test_a_program_that_is_no_julia(text: str) -> None:
    with pytest.raises(MissingToolError, match="/usr/bin/true does not answer as Julia"):
        JuliaProbe.parse(text, "/usr/bin/true")
