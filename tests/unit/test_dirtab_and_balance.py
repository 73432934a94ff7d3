"""Where nested catalogs are made: by rule and by weight."""

import pytest

from headstart.cvmfs.balance import Weights, divisions
from headstart.cvmfs.dirtab import Dirtab, pathspec
from headstart.cvmfs.entry import Directory, Entry, Stat, Symlink
from headstart.errors import ConfigurationError

STAT = Stat(mode=0o755, mtime=0)


@pytest.mark.parametrize(
    ("rules", "path", "matches"),
    [
        (b"/software/releases/*\n", b"/software/releases/1.0", True),
        (b"/software/releases/*\n", b"/software/releases/1.0/lib", False),
        (b"/software/releases/*\n", b"/software/releases", False),
        (b"/a/?/*.d/\n", b"/a/x/y.d", True),
        (b"/a/?/*.d/\n", b"/a/xx/y.d", False),
        (b"# /a\n\n  \t\n/a\r\n", b"/a", True),
        (b"/*\n! *.git\n", b"/x", True),
        (b"/*/*\n! *.git\n", b"/x/y.git", False),
        (b"! */private\n/*/*\n", b"/x/private", False),
        (b"/*\n!x\n", b"/x", True),  # a name without a slash before it is no path
        (b"/*\n! /x*\n", b"/xyz", False),
        (rb"/a\*", b"/a*", True),
        (rb"/a\*", b"/ab", False),
        (b"/a.c\n", b"/abc", False),
        (b"/\xff*\n", b"/\xff\xfe", True),
        (b"/.*\n", b"/.hidden", True),
        (b"", b"/a", False),
    ],
)
def test_rules_match_as_in_the_real_publisher(rules: bytes, path: bytes, matches: bool) -> None:
    assert Dirtab.parse(rules, where="rules").matches(path) is matches


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (b"software/*\n", "line 1"),
        (b"/a\n/b\\c\n", "line 2"),
        (b"/a\\", "backslash"),
        (b"/\n", "no name"),
        (b"/a\n!/a\n", "opposite"),
    ],
)
def test_what_is_no_rule_is_refused(rules: bytes, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Dirtab.parse(rules, where="rules")


def test_a_relaxed_star_reaches_across_slashes() -> None:
    assert pathspec(b"*.gz", relaxed=True)(b"/a/b/c.tar.gz")
    assert not pathspec(b"*.gz", relaxed=True)(b"/a/b/c.tar.gz.asc")


def tree(**sizes: int) -> dict[bytes, Entry]:
    """A directory ``/t`` whose directories have so many links each."""
    entries: dict[bytes, Entry] = {b"/t": Directory(name=b"t", stat=STAT)}
    for name, size in sizes.items():
        path = b"/t/" + name.replace("_", "/").encode()
        entries[path] = Directory(name=path.rpartition(b"/")[2], stat=STAT)
        for number in range(size):
            leaf = b"%d" % number
            entries[path + b"/" + leaf] = Symlink(name=leaf, stat=STAT, target=b"x")
    return entries


WEIGHTS = Weights(maximum=20, minimum=4)


def test_the_heaviest_are_divided_off_first() -> None:
    # 1 + 4 + 7 + 9 weigh more than 10; without the heaviest, 13 are left, and without the next 7.
    assert divisions(tree(a=3, b=6, c=8), (), b"/t", WEIGHTS) == [b"/t/c", b"/t/b"]


def test_inner_directories_come_before_outer_ones() -> None:
    found = divisions(tree(a=5, a_b=11, c=9), (), b"/t", WEIGHTS)
    assert found == [b"/t/a/b", b"/t/c"]


def test_what_is_too_light_stays() -> None:
    assert divisions(tree(**{f"n{number}": 2 for number in range(9)}), (), b"/t", WEIGHTS) == []


def test_a_nested_catalog_weighs_one() -> None:
    entries = tree(a=8)
    assert divisions(entries, (), b"/t", WEIGHTS) == []
    assert divisions(entries, [b"/t/n1"], b"/t", WEIGHTS) == [b"/t/a"]


@pytest.mark.parametrize(("minimum", "maximum"), [(1, 10), (6, 10), (0, 0)])
def test_weights_that_cannot_be_are_refused(minimum: int, maximum: int) -> None:
    with pytest.raises(ConfigurationError):
        Weights(maximum=maximum, minimum=minimum)
