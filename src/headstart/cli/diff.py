"""``headstart diff``: what differs between two states of a repository, or two releases in it."""

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from headstart.cli.reading import (
    add_source_arguments,
    anchors_of,
    past_json,
    size_text,
    source_of,
    write,
    write_json,
)
from headstart.cvmfs.entry import ChunkedFile, Entry, File
from headstart.cvmfs.past import parse_selector
from headstart.diff import Change, Difference, Fate, Side, compare
from headstart.errors import ConfigurationError, UnknownError
from headstart.published import resolve
from headstart.reference import Reference
from headstart.source import Opened, open_source, stored_size
from headstart.wording import counted, readable

HELP = """\
Compare two states of a repository, or two releases in its present state.

A and B are each a tag, a number of a revision, or a root catalog's hash
(tag:NAME, revision:N, hash:H and date:WHEN say it outright; the present state
is the tag trunk), or both releases: STACK@CHANNEL, STACK@RELEASE,
STACK@sha256:DIGEST. Nested catalogs that both have are not read.

The exit code is 0 whether they differ or not.
"""
_SIGNS = {Fate.ADDED: "+", Fate.REMOVED: "-", Fate.CHANGED: "~"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source_arguments(parser)
    parser.add_argument("before", metavar="A")
    parser.add_argument("after", metavar="B")
    parser.add_argument("--summary", action="store_true", help="leave the paths away")


def run(args: argparse.Namespace) -> int:
    """Print the differences."""
    now = datetime.now(UTC)
    opened = open_source(source_of(args), anchors_of(args), now=now)
    before, after = _sides(opened, args.before, args.after, now)
    found = compare(before, after)
    fetched = found.fetched(lambda name: stored_size(opened.source, name))
    if args.json:
        said = {
            "fqrn": str(opened.fqrn),
            "before": _side_json(args.before, before),
            "after": _side_json(args.after, after),
            "summary": _groups(found),
            "catalogs_compared": found.compared,
            "catalogs_skipped": found.skipped,
            "new_objects": len(found.new),
            "new_content_bytes": sum(found.new.values()),
            "fetch_bytes": fetched,
        }
        if not args.summary:
            said["changes"] = [_change_json(change) for change in found.changes]
        write_json(said)
        return 0
    if not args.summary:
        for change in found.changes:
            write(_line(change))
    for name, group in _groups(found).items():
        write(
            f"{name}: {group['added']} added, {group['removed']} removed, {group['changed']} changed, "
            f"{size_text(group['bytes_before'])} -> {size_text(group['bytes_after'])}"
        )
    write(_total(found, fetched))
    return 0


def _sides(opened: Opened, before: str, after: str, now: datetime) -> tuple[Side, Side]:
    snapshot = opened.snapshot
    if snapshot is None:
        raise UnknownError(
            f"{opened.fqrn} is mounted, and shows one state", hint="name its storage or a server"
        )
    if ("@" in before) != ("@" in after):
        raise ConfigurationError(f"{before} and {after} are not of one kind", hint="two states or two releases")
    if "@" not in before:
        return (
            Side(snapshot=snapshot.at(parse_selector(before))),
            Side(snapshot=snapshot.at(parse_selector(after))),
        )
    found = [
        resolve(opened.tree, Reference.parse(text), keys=opened.keys, now=now).release
        for text in (before, after)
    ]
    homes = [release.path.removeprefix(release.fqrn.mountpoint).encode() for release in found]
    return Side(snapshot=snapshot, root=homes[0]), Side(snapshot=snapshot, root=homes[1])


def _side_json(text: str, side: Side) -> dict[str, Any]:
    said: dict[str, Any] = {"named": text, "path": readable(side.root or b"/")}
    past = side.snapshot.past
    return said | (past_json(past) if past is not None else {"revision": side.snapshot.revision})


def _size(entry: Entry | None) -> int:
    return entry.size if isinstance(entry, File | ChunkedFile) else 0


def _group(change: Change) -> str:
    parts = change.path.decode(errors="replace").split("/")
    return "/" + "/".join(parts[1:3] if parts[1] in ("stacks", "julia", "channels") else parts[1:2])


def _groups(found: Difference) -> Mapping[str, dict[str, int]]:
    """By stack, Julia, or directory at the top."""
    groups: dict[str, dict[str, int]] = {}
    for change in found.changes:
        empty = {"added": 0, "removed": 0, "changed": 0, "bytes_before": 0, "bytes_after": 0}
        group = groups.setdefault(_group(change), empty)
        group[change.fate] += 1
        group["bytes_before"] += _size(change.before)
        group["bytes_after"] += _size(change.after)
    return dict(sorted(groups.items()))


def _line(change: Change) -> str:
    text = f"{_SIGNS[change.fate]} {readable(change.path)}"
    if change.fate is Fate.CHANGED:
        text += f"  ({', '.join(change.what)})"
        if "content" in change.what:
            text += f"  {size_text(_size(change.before))} -> {size_text(_size(change.after))}"
        return text
    entry = change.after or change.before
    return f"{text}  {size_text(_size(entry))}" if isinstance(entry, File | ChunkedFile) else text


def _total(found: Difference, fetched: int | None) -> str:
    if not found.changes:
        return "no difference"
    plain = size_text(sum(found.new.values()))
    stored = f", {size_text(fetched)} to fetch" if fetched is not None else ""
    return (
        f"{counted(len(found.changes), 'path')}; {counted(len(found.new), 'new object')} of {plain}{stored}; "
        f"{counted(found.compared, 'catalog')} read, {found.skipped} the same"
    )


def _change_json(change: Change) -> dict[str, Any]:
    said: dict[str, Any] = {
        "fate": str(change.fate),
        "path": readable(change.path),
        "bytes_before": None if change.before is None else _size(change.before),
        "bytes_after": None if change.after is None else _size(change.after),
    }
    return said | ({"what": list(change.what)} if change.what else {})
