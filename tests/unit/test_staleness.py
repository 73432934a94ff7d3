"""Julia's questions, one by one, on caches made by hand; what real Julias say is in tests/system."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from cachemaker import APP, AVX2, BASE, CHECKSUM, LEAF, PROJECT, Machine, rules_of, targets
from headstart.cacheheader import Build, CacheRules, Dependency, PackageId, Request
from headstart.reasons import TEACHINGS, Rule
from headstart.session import CacheFlags, Cpu
from headstart.staleness import flags_match, times_match
from headstart.verdicts import Accepted, Rejected, Uncached, Undecided, Unnamed

VERSIONS = ("1.5.3", "1.6.7", "1.8.5", "1.9.4", "1.10.6", "1.11.1", "1.12.2", "1.13.0")
GONE = PackageId("Gone", 0x44444444_4444_4444_8444_444444444444)


@pytest.mark.parametrize("version", VERSIONS)
def test_good_caches_are_accepted(version: str) -> None:
    machine = Machine(version)
    judge = machine.judge()
    for package, made in ((LEAF, machine.leaf), (APP, machine.app)):
        outcome = judge.judge(package).outcome
        assert outcome == Accepted(path=machine.path(package), build=machine.build(made))


def change_leaf(**values: object) -> Callable[[Machine], None]:
    def spoil(machine: Machine) -> None:
        machine.put(replace(machine.leaf, **values))  # type: ignore[arg-type]

    return spoil


def other_commit(machine: Machine) -> None:
    machine.put(replace(machine.leaf, front=replace(machine.leaf.front, commit="1" * 40)))


def bytes_of(place: int, value: int) -> Callable[[Machine], None]:
    def spoil(machine: Machine) -> None:
        content = bytearray(machine.files.content[machine.path(LEAF)])
        content[place] = value
        machine.files.content[machine.path(LEAF)] = bytes(content)

    return spoil


def no_native(machine: Machine) -> None:
    del machine.files.content[machine.path(LEAF)[:-3] + ".so"]


def misplaced(machine: Machine) -> None:
    machine.put(machine.app, of=LEAF)


def other_base(machine: Machine) -> None:
    machine.put(replace(machine.leaf, requires=(Build(BASE, 13),)))


def unreadable(machine: Machine) -> None:
    machine.files.unreadable.add(machine.path(LEAF))


def cut(machine: Machine) -> None:
    path = machine.path(LEAF)
    machine.files.content[path] = machine.files.content[path][:120]


def edited(text: bytes) -> Callable[[Machine], None]:
    def spoil(machine: Machine) -> None:
        machine.files.content[machine.sources[LEAF]] = text

    return spoil


def touched(machine: Machine) -> None:
    machine.files.times[machine.sources[LEAF]] = 1001.5


def elsewhere(machine: Machine) -> None:
    """The lock leads to another copy."""
    lock = machine.files.content[f"{PROJECT}/Manifest.toml"]
    machine.files.content[f"{PROJECT}/Manifest.toml"] = lock.replace(b"packages/Leaf", b"packages/Moved")
    home = f"{PROJECT}/packages"
    for name in ("Project.toml", "src/Leaf.jl"):
        machine.files.content[f"{home}/Moved/{name}"] = machine.files.content[f"{home}/Leaf/{name}"]


def far_away(machine: Machine) -> None:
    machine.put(
        replace(machine.leaf, dependencies=(*machine.leaf.dependencies, Dependency("@depot/x", 1, 1, -1)))
    )


def weak_cpu(machine: Machine) -> None:
    machine.start(cpu=Cpu(features=frozenset({"sse2"}), lacks=None))


REASONS: dict[str, tuple[str, Callable[[Machine], None], Rule]] = {
    "unreadable": ("1.10.6", unreadable, Rule.UNREADABLE),
    "another commit": ("1.10.6", other_commit, Rule.HEADER),
    "no magic": ("1.10.6", bytes_of(0, 0), Rule.HEADER),
    "a format of the future": ("1.10.6", bytes_of(8, 99), Rule.HEADER),
    "cut off": ("1.10.6", cut, Rule.DAMAGED),
    "options": ("1.9.4", lambda machine: machine.start(flags=CacheFlags(byte=0b11_1_00_01_1)), Rule.FLAGS),
    "CPU": ("1.9.4", weak_cpu, Rule.CPU),
    "no native code": ("1.10.6", no_native, Rule.NATIVE_MISSING),
    "another package": ("1.10.6", misplaced, Rule.OTHER_PACKAGE),
    "another package, 1.5": ("1.5.3", misplaced, Rule.ENTRY),
    "another Base": ("1.5.3", other_base, Rule.SYSTEM_IMAGE),
    "needs what is not there": ("1.10.6", change_leaf(requires=(Build(GONE, 1),)), Rule.NOT_FOUND),
    "elsewhere": ("1.10.6", elsewhere, Rule.ENTRY),
    "asked for another": ("1.10.6", change_leaf(requests=(Request(LEAF, GONE),)), Rule.MAPPING),
    "a file in no depot": ("1.11.1", far_away, Rule.SOURCE_DEPOT),
    "no source": ("1.10.6", change_leaf(dependencies=()), Rule.DAMAGED),
    "touched": ("1.10.6", touched, Rule.SOURCE_TIME),
    "longer": ("1.11.1", edited(b"module Leaf; end\n"), Rule.SOURCE_SIZE),
    "changed": ("1.11.1", edited(b"module Loaf end\n"), Rule.SOURCE_CONTENT),
    "checksum": ("1.10.6", bytes_of(-9, 77), Rule.CHECKSUM),
    "native checksum": (
        "1.10.6",
        lambda machine: machine.files.content.update({machine.path(LEAF)[:-3] + ".so": b"other code"}),
        Rule.NATIVE_CHECKSUM,
    ),
    "preferences": ("1.10.6", change_leaf(preferences=("a",), preferences_hash=5), Rule.PREFERENCES),
}


@pytest.mark.parametrize("name", REASONS)
def test_each_rule_rejects(name: str) -> None:
    version, spoil, rule = REASONS[name]
    machine = Machine(version)
    spoil(machine)
    outcome = machine.judge().judge(LEAF).outcome
    assert isinstance(outcome, Rejected), outcome
    assert outcome.reason.rule is rule
    assert outcome.reason.detail


@pytest.mark.parametrize("version", ["1.5.3", "1.8.5", "1.11.1"])
def test_who_needs_a_rejected_build_is_rejected(version: str) -> None:
    machine = Machine(version)
    bytes_of(-9, 77)(machine)
    outcome = machine.judge().judge(APP).outcome
    assert isinstance(outcome, Rejected)
    assert outcome.reason.rule is Rule.DEPENDENCY
    assert "Leaf" in outcome.reason.detail


@pytest.mark.parametrize(("version", "good"), [("1.7.3", False), ("1.8.5", True)])
def test_an_older_build_beside_a_newer_one_is_found_since_1_8(version: str, *, good: bool) -> None:
    machine = Machine(version)
    newer = replace(machine.leaf, provides=(Build(LEAF, 99),))
    machine.put(newer, rest="bbbbb", time=3000.0)
    judge = machine.judge()
    assert judge.judge(LEAF).outcome == Accepted(path=machine.path(LEAF, "bbbbb"), build=machine.build(newer))
    assert isinstance(judge.judge(APP).outcome, Accepted) is good


@pytest.mark.parametrize(
    ("version", "first"), [("1.5.3", "aaaaa"), ("1.6.7", "bbbbb"), ("1.10.6", "bbbbb"), ("1.11.1", "aaaaa")]
)
def test_candidates_are_tried_in_julias_order(version: str, first: str) -> None:
    """By name; then the newest; then the newest with native code."""
    machine = Machine(version)
    plain = replace(machine.leaf, targets=b"", flags=machine.leaf.flags & ~1)
    machine.put(plain if machine.rules.native else machine.leaf, rest="bbbbb", time=3000.0)
    assert machine.judge().candidates(LEAF)[0] == machine.path(LEAF, first)


def test_one_good_cache_is_enough() -> None:
    machine = Machine("1.10.6")
    machine.put(replace(machine.leaf, requires=(Build(BASE, 13),)), rest="bbbbb", time=3000.0)
    verdict = machine.judge().judge(LEAF)
    assert isinstance(verdict.outcome, Accepted)
    assert [candidate.path[-8:-3] for candidate in verdict.candidates] == ["bbbbb", "aaaaa"]


def test_no_cache_and_no_name() -> None:
    machine = Machine("1.10.6")
    del machine.files.content[machine.path(LEAF)]
    assert machine.judge().judge(LEAF).outcome == Uncached()
    assert machine.judge().judge(GONE).outcome == Unnamed()


def test_what_is_not_known_is_said() -> None:
    machine = Machine("1.9.4")
    machine.put(replace(machine.leaf, targets=targets({2: 1 << 5, 6: 1})))
    outcome = machine.judge().judge(LEAF).outcome
    assert isinstance(outcome, Undecided)
    assert "cpuid:6:0" in outcome.reasons[0]
    machine.start(cpu=Cpu(features=frozenset(), lacks=None))
    assert "CPU" in str(machine.judge().judge(LEAF).outcome)


def test_a_no_counts_even_beside_what_is_not_known() -> None:
    machine = Machine("1.9.4")
    machine.start(cpu=Cpu(features=frozenset(), lacks=None))
    touched(machine)
    outcome = machine.judge().judge(LEAF).outcome
    assert isinstance(outcome, Rejected)
    assert outcome.reason.rule is Rule.SOURCE_TIME


def test_preferences_of_1_13_are_not_known() -> None:
    machine = Machine("1.13.0")
    machine.files.content[f"{PROJECT}/LocalPreferences.toml"] = b'[Leaf]\na = "x"\n'
    change_leaf(preferences=("a",), preferences_hash=5)(machine)
    outcome = machine.judge().judge(LEAF).outcome
    assert isinstance(outcome, Undecided)
    assert "preferences a" in outcome.reasons[0]


def test_one_of_several_cpu_targets_is_enough() -> None:
    machine = Machine("1.9.4")
    both = targets({2: 1 << 16}, name="skylake-avx512")[4:]
    machine.put(replace(machine.leaf, targets=b"\2\0\0\0" + targets(AVX2)[4:] + both))
    assert isinstance(machine.judge().judge(LEAF).outcome, Accepted)


def test_what_julia_says_of_its_cpu_counts_more_than_cpuinfo() -> None:
    machine = Machine("1.10.6")
    machine.start(cpu=Cpu(features=frozenset({"avx2"}), lacks=frozenset({"avx2"})))
    outcome = machine.judge().judge(LEAF).outcome
    assert isinstance(outcome, Rejected)
    assert outcome.reason.rule is Rule.CPU


def test_a_standard_library_that_moved_since_julia_was_built() -> None:
    """Its caches name the builder's paths (``fixup_stdlib_path``)."""
    machine = Machine("1.10.6")
    machine.start(build_stdlib="/build/stdlib", stdlib=f"{PROJECT}/packages")
    machine.put(replace(machine.leaf, dependencies=(Dependency("/build/stdlib/Leaf/src/Leaf.jl", 0, 0, 5.0),)))
    assert isinstance(machine.judge().judge(LEAF).outcome, Accepted)


def test_all_sources_must_be_in_one_depot() -> None:
    machine = Machine("1.11.1")
    inner = "@depot/project/packages/Leaf/src/inner.jl"
    machine.put(
        replace(
            machine.leaf,
            dependencies=(*machine.leaf.dependencies, Dependency(inner, 1, 1, -1)),
            included=(*machine.leaf.included, inner),
        )
    )
    machine.files.content["/first" + inner.removeprefix("@depot")] = b"x"
    outcome = machine.judge(depots=("/first", "/depot")).judge(LEAF).outcome
    assert isinstance(outcome, Rejected)
    assert outcome.reason.rule is Rule.ENTRY
    assert "@depot" in outcome.reason.detail


def test_caches_that_need_each_other_end() -> None:
    """Nobody but an attacker writes such; the question must not run in a circle."""
    for version in ("1.5.3", "1.10.6"):
        machine = Machine(version)
        leaf = replace(machine.leaf, requires=(*machine.leaf.requires, machine.build(machine.app)))
        machine.put(leaf)
        assert not isinstance(machine.judge().judge(APP).outcome, Uncached)


# Flags, bit by bit: OOICCDDP
PLAIN = 0b10_1_00_01_1


@pytest.mark.parametrize(
    ("version", "wanted", "cache", "pkgimages", "good"),
    [
        ("1.10.6", PLAIN, PLAIN, 1, True),
        ("1.10.6", PLAIN, PLAIN | 0b01_000000, 1, True),  # -O3 for -O2
        ("1.10.6", PLAIN | 0b01_000000, PLAIN, 1, False),  # -O2 for -O3
        ("1.10.6", PLAIN, PLAIN ^ 0b00_000_110, 1, False),  # -g2 for -g1
        ("1.12.2", PLAIN, PLAIN ^ 0b00_000_110, 1, True),
        ("1.12.2", PLAIN ^ 0b00_000_110, PLAIN, 1, False),  # -g1 for -g2
        ("1.12.2", PLAIN, PLAIN ^ 0b00_001_000, 1, False),  # --check-bounds
        ("1.12.2", PLAIN, PLAIN ^ 0b00_100_000, 1, False),  # --inline
        ("1.10.6", PLAIN & ~1, PLAIN & ~1 ^ 0b00_001_000, 0, True),  # nobody wants native code
        ("1.10.6", PLAIN & ~1, PLAIN, 0, False),
        ("1.11.1", PLAIN & ~1, PLAIN, 2, True),  # --pkgimages=existing
        ("1.11.1", PLAIN & ~1, PLAIN & ~1, 2, True),
    ],
)
def test_flags_match_as_julia_has_it(
    version: str, wanted: int, cache: int, pkgimages: int, *, good: bool
) -> None:
    found = flags_match(
        CacheFlags(byte=wanted), CacheFlags(byte=cache), pkgimages=pkgimages, rules=rules_of(version)
    )
    assert found is good


@pytest.mark.parametrize(
    ("version", "now", "recorded", "good"),
    [
        ("1.5.3", 1000.25, 1000.25, True),
        ("1.5.3", 1000.0, 1000.25, True),
        ("1.5.3", 1000.123456, 1000.123456789, True),
        ("1.5.3", 1.0, 1000.25, False),
        ("1.6.4", 1.0, 1000.25, False),
        ("1.6.5", 1.0, 1000.25, True),
        ("1.8.2", 1000.0000001, 1000.0000009, False),
        ("1.8.3", 1000.0000001, 1000.0000009, True),
        ("1.8.3", 1001.0, 1000.25, False),
        ("1.8.4", 1001.0, 1000.25, True),
        ("1.10.6", 1000.5, 1000.25, False),
        ("1.10.6", 5.0, float("nan"), False),
        ("1.10.6", 5.0, float("inf"), False),
        ("1.10.6", 5.0, 1e303, False),
    ],
)
def test_times_match_as_julia_has_it(version: str, now: float, recorded: float, *, good: bool) -> None:
    rules: CacheRules = rules_of(version)
    assert times_match(now, recorded, rules) is good


def test_every_rule_is_taught() -> None:
    assert set(TEACHINGS) == set(Rule)
    assert CHECKSUM >> 32 == 0xFAFBFCFD  # as Julia marks it (jl_create_system_image, 1.9.4 staticdata.c)
