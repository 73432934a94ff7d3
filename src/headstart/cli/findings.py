"""How findings of ``lint`` are shown: for a person one rule at a time, for a program one by one."""

import itertools
import textwrap
from collections.abc import Iterable, Iterator
from operator import attrgetter

from headstart.lint import RULES, Finding, Rule

_WIDTH = 79
_INDENT = " " * 11


def lines(findings: Iterable[Finding], *, most: int = 0) -> Iterator[str]:
    """Findings for a person.

    Args:
        findings: sorted by rule.
        most: how many to show of each rule; 0 for all.
    """
    for rule, group in itertools.groupby(findings, key=attrgetter("rule")):
        found = tuple(group)
        advice = RULES[Rule(rule)]
        yield from _wrapped(f"lint       {rule}: {advice.why}")
        yield from _wrapped(f"{_INDENT}-> {advice.todo}")
        placed = [one for one in found if one.file]
        names = ", ".join(one.package for one in found if not one.file)
        shown = placed[: most or None]
        yield from (f"{_INDENT}{_named(one)}" for one in shown)
        if names:
            yield from _wrapped(f"{_INDENT}{names}")
        if len(shown) < len(placed):
            yield f"{_INDENT}and {len(placed) - len(shown)} more, which --dry-run shows"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, subsequent_indent=_INDENT, break_on_hyphens=False, break_long_words=False
    )


def _named(finding: Finding) -> str:
    """A place first, so that an editor finds it; the line is as long as it has to be."""
    about = f"{finding.package}: {finding.what}" if finding.package else finding.what
    return f"{finding.place}  {about}"


def to_json(findings: Iterable[Finding]) -> list[dict[str, object]]:
    """Findings for a program."""
    return [
        {
            "rule": str(one.rule),
            "package": one.package,
            "file": one.file,
            "line": one.line,
            "what": one.what,
            "why": RULES[one.rule].why,
            "do": RULES[one.rule].todo,
        }
        for one in findings
    ]
