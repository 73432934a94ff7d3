"""One thing that is to be said of a node."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How bad it is, the best first."""

    GOOD = "good"
    NOTE = "note"
    """Nothing is wrong; but it is as well to know."""
    WARNING = "warning"
    """Jobs start, but not as they should, or not for long."""
    PROBLEM = "problem"
    """Jobs will not start, or not all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A judgement."""

    area: str
    """What it is about: one word."""
    grade: Grade
    text: str
    todo: str
    """What to do about it; nothing for what is good."""


def good(area: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(area=area, grade=Grade.GOOD, text=text, todo="")


def note(area: str, text: str, todo: str = "") -> Finding:
    """As well to know."""
    return Finding(area=area, grade=Grade.NOTE, text=text, todo=todo)


def warning(area: str, text: str, todo: str) -> Finding:
    """Not as it should be."""
    return Finding(area=area, grade=Grade.WARNING, text=text, todo=todo)


def problem(area: str, text: str, todo: str) -> Finding:
    """Jobs will not start."""
    return Finding(area=area, grade=Grade.PROBLEM, text=text, todo=todo)


def worst(findings: Iterable[Finding]) -> Grade:
    """The worst of all grades; good where there are none."""
    found = {finding.grade for finding in findings}
    return next((grade for grade in reversed(Grade) if grade in found), Grade.GOOD)
