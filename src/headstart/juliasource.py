"""Just enough of Julia's grammar to look for words in its code: what is comment and text, what a constant is.

Nothing here parses Julia. ``code`` blanks what is no code, so that a word found in it is a word of the program;
``bindings`` finds what a module binds at its top level: a ``const`` stands nowhere else, and a plain assignment
counts when it starts its line, as the code of functions hardly ever does.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_NEXT: Final = re.compile(r"""#=|#|\"""|"|```|`|'|[()]""")
_NEST: Final = re.compile(r"#=|=#")
_CHAR: Final = re.compile(r"'(?:\\(?:x[0-9a-fA-F]{1,2}|[uU][0-9a-fA-F]{1,8}|[0-7]{1,3}|.)|[^'\\\n])'")
_BINDING: Final = re.compile(
    r"^(?:[ \t]*(?:global[ \t]+)?const[ \t]+([\w!]+)|([A-Za-z_][\w!]*))[ \t]*(?:::[^=\n]*)?=(?![=>])",
    re.MULTILINE,
)
_GOES_ON: Final = "=,+*/&|?:<>([{"
_WORD_CHARACTERS: Final = re.compile(r"[\w!)\]}'.]")


def code(text: str) -> str:
    """The text with comments, and what stands between quotes, replaced by spaces; places and lines stay.

    The quotes themselves stay, and so does code that is put into a string by ``$(...)``.
    """
    out: list[str] = []
    _scan(text, 0, out, inner=False)
    return "".join(out)


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _scan(text: str, at: int, out: list[str], *, inner: bool) -> int:
    """Copy code to ``out`` up to the end, or up to the parenthesis that ends an interpolation."""
    depth = 0
    while True:
        found = _NEXT.search(text, at)
        if found is None:
            out.append(text[at:])
            return len(text)
        out.append(text[at : found.start()])
        at = found.start()
        sign = found[0]
        if sign in "()":
            depth += 1 if sign == "(" else -1
            out.append(sign)
            at += 1
            if inner and depth < 0:
                return at
        elif sign.startswith("#"):
            end = _comment_end(text, at)
            out.append(_blank(text[at:end]))
            at = end
        elif sign == "'":
            at = _apostrophe(text, at, out)
        else:
            at = _string(text, at, sign, out)


def _comment_end(text: str, at: int) -> int:
    if not text.startswith("#=", at):
        end = text.find("\n", at)
        return len(text) if end < 0 else end
    depth = 0
    for found in _NEST.finditer(text, at):
        depth += 1 if found[0] == "#=" else -1
        if depth == 0:
            return found.end()
    return len(text)


def _apostrophe(text: str, at: int, out: list[str]) -> int:
    """A character, or the adjoint of what stands before it."""
    before = text[at - 1] if at else " "
    found = None if _WORD_CHARACTERS.match(before) else _CHAR.match(text, at)
    if found is None:
        out.append("'")
        return at + 1
    out.append(f"'{_blank(found[0][1:-1])}'")
    return found.end()


def _string(text: str, at: int, quote: str, out: list[str]) -> int:
    """A string or a command; one with a word before it, as in ``r"..."``, holds no code."""
    plain = at > 0 and (text[at - 1].isalnum() or text[at - 1] in "_!")
    out.append(quote)
    at += len(quote)
    while at < len(text):
        if text[at] == "\\":
            out.append(_blank(text[at : at + 2]))
            at += 2
        elif text.startswith(quote, at):
            out.append(quote)
            return at + len(quote)
        elif not plain and text.startswith("$(", at):
            out.append(" (")
            at = _scan(text, at + 2, out, inner=True)
        else:
            out.append(text[at] if text[at] == "\n" else " ")
            at += 1
    return at


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A name that a module binds at its top level, and the code of its value."""

    name: str
    value: str
    line: int
    """Of the name, from 1."""


def bindings(blanked: str) -> Iterator[Binding]:
    """What a module binds at its top level.

    Args:
        blanked: what ``code`` has made of its text.
    """
    for found in _BINDING.finditer(blanked):
        value = blanked[found.end() : _statement_end(blanked, found.end())]
        yield Binding(
            name=found[1] or found[2], value=value, line=line_of(blanked, found.start(1 if found[1] else 2))
        )


def _statement_end(blanked: str, at: int) -> int:
    depth = 0
    start = at
    for found in re.compile(r"[()\[\]{}\n;]").finditer(blanked, at):
        sign = found[0]
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif depth <= 0 and (sign == ";" or blanked[start : found.start()].rstrip()[-1:] not in _GOES_ON):
            return found.start()
    return len(blanked)


def line_of(text: str, at: int) -> int:
    """The number of the line, from 1, that a place is in."""
    return text.count("\n", 0, at) + 1


def enclosing(value: str, at: int) -> Iterator[str]:
    """What a place in an expression is an argument of, from the inside: functions, and macros with their ``@``.

    A bracket gives ``[``, or the name before it with ``[``; parentheses alone give nothing.
    """
    depth = 0
    for index in range(at - 1, -1, -1):
        sign = value[index]
        if sign in ")]}":
            depth += 1
        elif sign in "([{":
            if depth:
                depth -= 1
                continue
            before = re.search(r"@?[\w.!]*$", value[:index])
            name = before[0] if before else ""
            if sign != "(":
                yield f"{name}["
            elif name:
                yield name


def arguments(blanked: str, at: int) -> str:
    """The code between the parenthesis at a place and the one that ends it."""
    depth = 0
    for index in range(at, len(blanked)):
        depth += {"(": 1, ")": -1}.get(blanked[index], 0)
        if depth == 0:
            return blanked[at + 1 : index]
    return blanked[at + 1 :]
