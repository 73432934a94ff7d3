r"""``.cvmfsdirtab``: rules that say which directories become nested catalogs.

As in the real publisher (path_filters/dirtab.cc, pathspec/): a line is an absolute path in which ``*`` stands
for any part of a name and ``?`` for one byte of it, a backslash before these and itself for the sign as such;
``!`` in front takes away what earlier or later lines give, and there ``*`` also reaches across slashes, so
that ``! *.git`` means every path that ends so. ``#`` begins a comment.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from headstart.errors import ConfigurationError

DIRTAB: Final = b".cvmfsdirtab"
DIRTAB_LIMIT: Final = 1 << 20
"""Bytes that such a file may have."""
"""Its name, in the repository's root directory."""
_SPECIAL: Final = b"*?"


def pathspec(text: bytes, *, relaxed: bool) -> Callable[[bytes], bool]:
    """A test for paths.

    Args:
        text: the pattern.
        relaxed: whether ``*`` reaches across slashes.

    Raises:
        ValueError: it is no pattern.
    """
    elements = [part for part in text.split(b"/") if part]
    if not elements:
        raise ValueError("there is no name in it")
    body = b"/".join(_element(part, relaxed=relaxed) for part in elements)
    found = re.compile((b"/" if text.startswith(b"/") else b"") + body + b"/?", re.DOTALL)
    return lambda path: found.fullmatch(path) is not None


def _element(text: bytes, *, relaxed: bool) -> bytes:
    result = bytearray()
    at = 0
    while at < len(text):
        sign = text[at : at + 1]
        if sign == b"\\":
            at += 1
            sign = text[at : at + 1]
            if not sign or sign not in b"*?\\":
                raise ValueError("a backslash stands before something else than *, ? or \\")
            result += re.escape(sign)
        elif sign == b"*":
            result += b".*" if relaxed else b"[^/]*"
        elif sign == b"?":
            result += b"[^/]"
        else:
            result += re.escape(sign)
        at += 1
    return bytes(result)


@dataclass(frozen=True, slots=True)
class Dirtab:
    """The rules."""

    wanted: tuple[Callable[[bytes], bool], ...] = ()
    unwanted: tuple[Callable[[bytes], bool], ...] = ()

    @classmethod
    def parse(cls, text: bytes, *, where: str) -> "Dirtab":
        """Read the rules.

        Args:
            text: of the file.
            where: how to name it in errors.

        Raises:
            ConfigurationError: a line that is no rule, naming it.
        """
        wanted: dict[bytes, Callable[[bytes], bool]] = {}
        unwanted: dict[bytes, Callable[[bytes], bool]] = {}
        for number, raw in enumerate(text.split(b"\n"), start=1):
            line = raw.strip(b" \t\r")
            negative = line.startswith(b"!")
            rule = line.removeprefix(b"!").strip(b" \t")
            if line.startswith(b"#") or not rule:
                continue
            if not negative and not rule.startswith(b"/"):
                raise _refused(where, number, "a path that is to become a catalog begins with a slash")
            try:
                (unwanted if negative else wanted)[rule] = pathspec(rule, relaxed=negative)
            except ValueError as error:
                raise _refused(where, number, str(error)) from error
            if rule in wanted and rule in unwanted:
                raise _refused(where, number, "another line says the opposite")
        return cls(tuple(wanted.values()), tuple(unwanted.values()))

    def matches(self, path: bytes) -> bool:
        """Whether a directory is to become a nested catalog."""
        return any(rule(path) for rule in self.wanted) and not any(rule(path) for rule in self.unwanted)


def _refused(where: str, number: int, why: str) -> ConfigurationError:
    return ConfigurationError(f"{where}, line {number}: {why}", hint="see docs/publishing.md for its rules")
