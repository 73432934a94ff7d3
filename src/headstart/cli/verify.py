"""``headstart verify``: the whole chain, every catalog, every release; with ``--deep`` every byte."""

import argparse
import sys
import textwrap
import time
from datetime import UTC, datetime

from headstart.cli.reading import (
    add_past_arguments,
    add_source_arguments,
    heading,
    open_from,
    size_text,
    title,
    write,
    write_json,
    write_lines,
)
from headstart.inspect import Report, verify
from headstart.wording import counted

HELP = """\
Verify a repository: the chain of signatures, the structure of every catalog,
every channel, and the record and the statement of every release. Any CVMFS
repository can be verified, also one that has no stacks.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source_arguments(parser)
    add_past_arguments(parser)
    parser.add_argument("--deep", action="store_true", help="read and hash every object and file")


def run(args: argparse.Namespace) -> int:
    """Verify; the exit code is that of the first complaint's family."""
    now = datetime.now(UTC)
    start = time.monotonic()
    opened = open_from(args, now)
    report = verify(opened, now=opened.moment(now), deep=args.deep)
    if args.json:
        write_json(heading(opened) | _json(report, deep=args.deep))
    else:
        write_lines(title(opened))
        write(_counts(report, deep=args.deep))
        for complaint in report.complaints:
            for line in textwrap.wrap(
                f"{complaint.path}: {complaint.text}",
                79,
                subsequent_indent="    ",
                break_on_hyphens=False,
                break_long_words=False,
            ):
                write(line)
        if not report.complaints:
            write("everything is as it should be")
    if report.complaints:
        sys.stderr.write(
            f"headstart: {counted(len(report.complaints), 'complaint')} in {time.monotonic() - start:.1f} s\n"
        )
        return report.complaints[0].exit_code
    return 0


def _counts(report: Report, *, deep: bool) -> str:
    parts = [
        counted(report.catalogs, "catalog"),
        counted(report.entries, "entry", "entries"),
        counted(report.releases, "release"),
        counted(report.channels, "channel"),
        counted(report.statements, "statement"),
    ]
    if deep:
        parts.append(f"{counted(report.objects, 'object')} of {size_text(report.bytes)}")
    return ", ".join(parts)


def _json(report: Report, *, deep: bool) -> dict[str, object]:
    return {
        "deep": deep,
        "catalogs": report.catalogs,
        "entries": report.entries,
        "objects": report.objects,
        "bytes": report.bytes,
        "releases": report.releases,
        "channels": report.channels,
        "statements": report.statements,
        "complaints": [
            {"path": complaint.path, "text": complaint.text, "exit_code": complaint.exit_code}
            for complaint in report.complaints
        ],
    }
