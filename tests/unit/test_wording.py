"""Numbers and names in sentences: the plural, nothing that steers a terminal, no two names that look alike."""

import io
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.console import Console
from headstart.wording import counted, printable, readable


def test_one_thing_has_no_plural() -> None:
    assert [counted(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert [counted(number, "entry", "entries") for number in (1, 2)] == ["1 entry", "2 entries"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00fcmlaut", "plain \u00fcmlaut"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\u009b31m"),
        ("a\rb\nc", "a\\rb\\nc"),
        ("\u202eback", "\\u202eback"),
        ("\udcff", "\\xff"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_nothing_that_is_printed_steers_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_names_are_shown_as_names() -> None:
    assert readable("/any/gr\u00fcn \u2713".encode()) == "/any/gr\u00fcn \u2713"
    assert readable(b"a\nb\xff") == "a\\nb\\xff"
    assert readable(None) == "None"
    assert readable("text") == "'text'"  # no name in a catalog


def test_no_two_names_look_alike() -> None:
    names = (b"\xff", b"\\xff", b"\\\\xff", "\u00ff".encode(), b"\n", b"\\n", b"\xc2\x80", b"\x80", b"\\u0080")
    assert all(readable(one) != readable(other) for one, other in combinations(names, 2))


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_any_two_names_are_told_apart(one: bytes, other: bytes) -> None:
    assert readable(one).isprintable()
    assert (readable(one) == readable(other)) == (one == other)


def test_a_step_is_one_line_and_a_note_as_many_as_it_was_given() -> None:
    heard = io.StringIO()
    console = Console(heard)
    console.step("published a\nb \x1b[2J")
    console.note("\none\ntwo\r")
    first, *others = heard.getvalue().split("\n")
    assert first.endswith("published a\\nb \\x1b[2J")
    assert others == ["", "one", "two\\r", ""]
