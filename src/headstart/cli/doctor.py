"""``headstart doctor``: what would go wrong on this node, and what to do about it."""

import argparse
import os
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, assert_never

from headstart.cli.reading import add_trust_arguments, anchors_of, time_text, write, write_json
from headstart.cli.run import CPUINFO, NO_HOME, STATE, cache_of
from headstart.doctor import Case, Finding, Grade, diagnose, gather, worst
from headstart.errors import ComplaintsError, ConfigurationError
from headstart.nodefacts import Facts, Heard, Silence, Trouble, Way
from headstart.route import DIRECT
from headstart.wording import counted

HELP = f"""\
Say what would go wrong on this node, and what to do about it: the processor,
namespaces, mounts, the cache and its disk, proxies, servers, the clock, and
what Julia would find in the environment. Nothing is changed.

SOURCE is what 'headstart run' would be given; without it no server is asked.
The exit code is {ComplaintsError.exit_code} where there is a problem; warnings and notes are none.
"""
_SECONDS = 10.0
_MARKS = {Grade.GOOD: "ok", Grade.NOTE: "note", Grade.WARNING: "warning", Grade.PROBLEM: "PROBLEM"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="SOURCE", nargs="?", default="")
    add_trust_arguments(parser)
    parser.add_argument("--cache", metavar="DIR", default="", help="the cache (default: ~/.cache/headstart)")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=_SECONDS,
        help="how long anything may take to answer (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Look, judge, print."""
    if not 0.1 <= args.timeout <= 600:
        raise ConfigurationError(f"--timeout {args.timeout:g} is not from 0.1 to 600")
    env = dict(os.environ)
    place, origin = cache_of(args.cache, env, os.geteuid())
    case = Case(
        source=args.source,
        anchors=anchors_of(args),
        cache="" if place.startswith(NO_HOME) else place,
        origin=origin,
        state=env.get("HEADSTART_STATE") or STATE,
        cpuinfo=env.get("HEADSTART_CPUINFO") or CPUINFO,
        seconds=args.timeout,
    )
    facts = gather(case, env=env, now=datetime.now(UTC), clock=time.time)
    findings = diagnose(facts)
    if args.json:
        write_json(_json(facts, findings))
    else:
        _print(findings)
    return ComplaintsError.exit_code if worst(findings) is Grade.PROBLEM else 0


def _print(findings: Sequence[Finding]) -> None:
    for finding in findings:
        head = f"{finding.area:<11}{_MARKS[finding.grade]:<9}"
        for line in _wrapped(head, finding.text):
            write(line)
        if finding.todo:
            for line in _wrapped(f"{'':<20}-> ", finding.todo):
                write(line)
    counts = Counter(finding.grade for finding in findings)
    said = [
        counted(counts[grade], name)
        for grade, name in ((Grade.PROBLEM, "problem"), (Grade.WARNING, "warning"))
        if counts[grade]
    ]
    write(", ".join(said) or "nothing to complain about")


def _wrapped(head: str, text: str) -> list[str]:
    lines = textwrap.wrap(
        text, 79 - len(head), break_on_hyphens=False, break_long_words=False, drop_whitespace=True
    )
    return [f"{head if not number else ' ' * len(head)}{line}" for number, line in enumerate(lines)]


def _json(facts: Facts, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "schema": 1,
        "grade": str(worst(findings)),
        "fqrn": str(facts.fqrn) if facts.fqrn is not None else None,
        "source": facts.source or None,
        "findings": [
            {"area": one.area, "grade": str(one.grade), "text": one.text, "do": one.todo or None}
            for one in findings
        ],
        "servers": [_way(way, answer) for way, answer in facts.ways.items()],
    }


def _way(way: Way, answer: Heard | Trouble | Silence) -> dict[str, Any]:
    said: dict[str, Any] = {"server": way.server, "proxy": None if way.proxy == DIRECT else way.proxy}
    match answer:
        case Heard():
            return said | {
                "latency_s": round(answer.latency, 4),
                "clock_offset_s": None if answer.offset is None else round(answer.offset, 1),
                "revision": answer.revision,
                "published": time_text(answer.published),
                "whitelist_expires": None if answer.ends is None else time_text(answer.ends),
                "error": None if answer.trouble is None else answer.trouble.text,
            }
        case Trouble(text=text):
            return said | {"error": text}
        case Silence():
            return said | {"error": str(answer)}
        case _:
            assert_never(answer)
