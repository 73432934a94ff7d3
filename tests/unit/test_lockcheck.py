"""The hash by which a lock knows its project, and the version ranges in it; beside what real Pkgs say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import ConfigurationError
from headstart.julia import JuliaVersion
from headstart.lockcheck import check_hash, project_hash
from headstart.project import Lock, Project
from headstart.versionspec import VersionSpec
from projects import APP, LEAF, PRINTF

DEPS = f'[deps]\nApp = "{APP}"\n'


def project(text: str) -> Project:
    return Project.parse(text, "Project.toml")


# Each as Pkg 1.5.3 prints it.
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1", "1"),
        ("1.2", "1.2.0-1"),
        ("^1.2.3", "1.2.3-1"),
        ("~1.2.3", "1.2.3-1.2"),
        ("~1", "1"),
        ("0.2.3", "0.2.3-0.2"),
        ("0.0.3", "0.0.3"),
        ("0.0", "0.0"),
        ("0", "0"),
        ("1, 2", "1-2"),
        ("0.3, 1", "[0.3, 1]"),
        ("1.2, 1.5", "1.2.0-1"),
        ("2, 1", "1-2"),
        ("=1.2.3", "1.2.3"),
        (">= 1.2.3", "1.2.3-*"),
        ("≥ 1.2", "1.2.0-*"),
        ("< 2", "0.0.0-1"),
        ("< 0.2.0", "0.0.0-0.1"),
        ("< 1.2.3", "0.0.0-1.2.2"),
        ("1.2 - 3.4.5", "1.2-3.4.5"),
        ("2 - 1", "∅"),
        ("v1.2", "1.2.0-1"),
    ],
)
def test_versions_are_printed_as_pkg_prints_them(text: str, shown: str) -> None:
    assert VersionSpec.parse(text).shown("-") == shown


@pytest.mark.parametrize("text", ["", "x", "1.2.3.4", "0.0.0", ">1", "1 2", "< 0", "1,,2", "=0.0.0"])
def test_what_names_no_versions_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="names no versions of a package"):
        VersionSpec.parse(text)


NUMBERS = st.integers(0, 4).map(str)
VERSIONS = st.lists(NUMBERS, min_size=1, max_size=3).map(".".join).filter(lambda text: text != "0.0.0")
ENTRIES = st.lists(
    st.tuples(st.sampled_from(["", "^", "~", "=", ">="]), VERSIONS).map("".join), min_size=1, max_size=4
).map(", ".join)


@given(ENTRIES)
def test_ranges_are_in_order_with_gaps_between_them(text: str) -> None:
    spec = VersionSpec.parse(text)
    assert spec.ranges
    ends = [(one.lower, one.upper) for one in spec.ranges]
    assert ends == sorted(ends)
    assert not any(one.empty for one in spec.ranges)


@given(ENTRIES, st.randoms())
def test_the_order_of_an_entry_does_not_matter(text: str, random: object) -> None:
    parts = text.split(", ")
    random.shuffle(parts)  # type: ignore[attr-defined]  # hypothesis hands out a random.Random
    assert VersionSpec.parse(", ".join(parts)) == VersionSpec.parse(text)


@given(ENTRIES, ENTRIES)
def test_what_both_admit_is_the_same_from_either_side(one: str, other: str) -> None:
    left, right = VersionSpec.parse(one), VersionSpec.parse(other)
    assert left.intersect(right) == right.intersect(left)
    assert left.intersect(left) == left
    assert left.intersect(VersionSpec.everything()) == left


RICH = f'''{DEPS}Leaf = "{LEAF}"

[weakdeps]
Leaf = "{LEAF}"

[compat]
App = "1.2, 2"
Leaf = "0.3, >= 1.5"
julia = "1.6"
'''


@pytest.mark.parametrize(
    ("text", "found"),
    [(DEPS, "8e203e85b943e790e6c23da752fe7580793cf24a"), (RICH, "17ddf6eb0a744511ace7b314e922894c9f35a2ff")],
)
def test_the_hash_is_the_one_that_pkg_1_10_6_gives(text: str, found: str) -> None:
    assert project_hash(project(text), (), JuliaVersion.parse("1.10.6")) == found


def test_weak_dependencies_are_left_out_since_1_9() -> None:
    both = project(DEPS + f'Leaf = "{LEAF}"\n\n[weakdeps]\nLeaf = "{LEAF}"\n')
    hashes = [project_hash(both, (), JuliaVersion.parse(version)) for version in ("1.8.5", "1.10.6")]
    strong = [
        project_hash(project(text), (), JuliaVersion.parse("1.8.5"))
        for text in (DEPS + f'Leaf = "{LEAF}"\n', DEPS)
    ]
    assert hashes == strong


def test_a_workspace_is_hashed_as_one_since_1_12() -> None:
    new = JuliaVersion.parse("1.12.0")
    one = project(DEPS + '[compat]\nApp = "1.2, 2"\n')
    member = project(f'[deps]\nApp = "{APP}"\nPrintf = "{PRINTF}"\n[compat]\nApp = "1.4"\njulia = "1.12"\n')
    assert project_hash(one, (member,), new) == project_hash(member, (one,), new)
    # Only what both admit counts.
    assert project_hash(one, (member,), new) == project_hash(
        project(DEPS + '[compat]\nApp = "1.4"\n'), (member,), new
    )
    assert project_hash(one, (), new) != project_hash(one, (member,), new)
    assert project_hash(one, (), JuliaVersion.parse("1.11.1")) == project_hash(
        one, (member,), JuliaVersion.parse("1.11.1")
    )


def test_a_lock_is_compared_by_the_rule_of_its_own_julia() -> None:
    one = project(DEPS + '[compat]\nApp = "1.2"\n')
    for version in ("1.10.6", "1.11.1"):
        found = project_hash(one, (), JuliaVersion.parse(version))
        head = f'manifest_format = "2.0"\njulia_version = "{version}"\nproject_hash = '
        check_hash(one, (), Lock.parse(f'{head}"{found}"\n', "m"), "m")
        other = project(DEPS + '[compat]\nApp = "1.3"\n')
        with pytest.raises(ConfigurationError, match="m was resolved for another state of the project"):
            check_hash(other, (), Lock.parse(f'{head}"{found}"\n', "m"), "m")
