"""Julia's comments, strings and top-level bindings, told apart without parsing it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.juliasource import arguments, bindings, code, enclosing, line_of

PIECES = (
    "x", " ", "\n", '"', '"""', "`", "```", "'", "#", "#=", "=#", "$(", "(", ")", "\\", "const ", "=",
    "@__DIR__", "r", "é", "'a'", '\\"',
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a # b\nc", "a    \nc"),
        ("a #= b #= c =# d\n=# e", "a               \n   e"),
        ('f("a b", c)', 'f("   ", c)'),
        ('"a \\" b" c', '"      " c'),
        ('"""a "b" c""" d', '"""       """ d'),
        ('"# no comment" # one', '"            "      '),
        ('"a$(f("b"))c" d', '"  (f(" ")) " d'),
        ('r"\\"$(f)" d', 'r"      " d'),
        ('raw"a" b', 'raw" " b'),
        ("`ls $(x) a` b", "`    (x)  ` b"),
        ("A' * B'", "A' * B'"),
        ("x = '\"' # c", "x = ' '    "),
        ("x = '\\'' + 'a'", "x = '  ' + ' '"),
        ("x = '\\u2200' y", "x = '      ' y"),
        ("f(x)' + [1]'", "f(x)' + [1]'"),
        ('artifact"name"', 'artifact"    "'),
        ('"never ends', '"          '),
        ("#= never ends", "             "),
    ],
)
def test_what_is_no_code_is_blanked(text: str, left: str) -> None:
    assert code(text) == left


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_places_and_lines_stay_whatever_the_text(text: str) -> None:
    blanked = code(text)
    assert len(blanked) == len(text)
    assert [at for at, sign in enumerate(blanked) if sign == "\n"] == [
        at for at, sign in enumerate(text) if sign == "\n"
    ]
    list(bindings(blanked))


@given(st.text(alphabet="abc#\"'`$() \n=", max_size=30))
def test_a_comment_hides_everything(text: str) -> None:
    line = text.replace("\n", " ").replace("=", "-")
    assert code(f"#{line}\nx") == " " * (len(line) + 1) + "\nx"


def names(text: str) -> list[tuple[str, int, str]]:
    return [(one.name, one.line, " ".join(one.value.split())) for one in bindings(code(text))]


def test_bindings_at_the_top_level() -> None:
    text = """\
module A
    const INNER = 1
const LONG = joinpath(
    "a",
    "b")
const TYPED::String = f(x); const SECOND = 2
global const G = a +
    b
plain = 3
f(x) = 4
f(x; y = 5) = 6
x == 7
    indented = 8
function g()
    local = 9
end
const h = x -> x
end
"""
    assert names(text) == [
        ("INNER", 2, "1"),
        ("LONG", 3, 'joinpath( " ", " ")'),
        ("TYPED", 6, "f(x)"),
        ("G", 7, "a + b"),
        ("plain", 9, "3"),
        ("h", 17, "x -> x"),
    ]


def test_what_a_place_is_an_argument_of() -> None:
    value = 'Base.read(joinpath((a), [@path(x[1], HERE)]), "b")'
    assert list(enclosing(value, value.index("HERE"))) == ["@path", "[", "joinpath", "Base.read"]
    assert list(enclosing(value, value.index("1]"))) == ["x[", "@path", "[", "joinpath", "Base.read"]
    assert list(enclosing("HERE", 0)) == []
    assert arguments("f(a, (b), c) d", 1) == "a, (b), c"
    assert arguments("f(a", 1) == "a"
    assert line_of("a\nb", 2) == 2
