"""What the commands that only read a repository have in common."""

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any, Final, assert_never

from headstart.cvmfs.history import Tag
from headstart.cvmfs.past import PastRoot, chosen
from headstart.names import Fqrn
from headstart.siteconfig import read_site
from headstart.snapshot import Snapshot
from headstart.source import (
    Anchors,
    BucketSource,
    MountSource,
    Opened,
    Source,
    StorageSource,
    WebSource,
    open_source,
    parse,
)
from headstart.wording import printable

SCHEME: Final = "s3://"


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare SOURCE, what is trusted for it, and ``--json``."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a repository's name, a mounted /cvmfs/NAME, a storage, or an http address",
    )
    add_trust_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_trust_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--key``, ``--fqrn`` and ``--blacklist``, which ``anchors_of`` reads."""
    parser.add_argument(
        "--key",
        metavar="PUB",
        action="append",
        default=[],
        help="public key to trust (default: those in /etc/cvmfs/keys)",
    )
    parser.add_argument("--fqrn", metavar="NAME", help="the repository that it must be")
    parser.add_argument(
        "--blacklist",
        metavar="FILE",
        action="append",
        default=[],
        help="certificates and old revisions to refuse, beside the site's (/etc/cvmfs/blacklist)",
    )


def add_past_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--tag``, ``--date`` and ``--root-hash``."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--tag", metavar="NAME", help="the state that a tag names, not the present one")
    which.add_argument(
        "--date", metavar="WHEN", help="the state of a day or a moment, in UTC: 2026-11-22[T20:15:00Z]"
    )
    which.add_argument("--root-hash", metavar="HASH", help="the state with this root catalog")


def anchors_of(args: argparse.Namespace) -> Anchors:
    """What the user trusts."""
    return Anchors(
        keys=tuple(args.key),
        fqrn=Fqrn(args.fqrn) if args.fqrn else None,
        site_of=partial(read_site, env=os.environ),
        blacklists=tuple(args.blacklist),
    )


def source_of(args: argparse.Namespace) -> Source:
    """The source that the arguments name."""
    if args.source.startswith(SCHEME):
        # Takes a library that no node needs.
        storages = import_module("headstart.cli.storages")
        opened: Source = storages.source_on(storages.open_storage(args.source, os.environ))
        return opened
    return parse(args.source, partial(read_site, env=os.environ))


def open_from(args: argparse.Namespace, now: datetime) -> Opened:
    """Prove the source that the arguments name, at the state that they name, if they do."""
    past = chosen(*(getattr(args, name, None) for name in ("tag", "date", "root_hash")))
    return open_source(source_of(args), anchors_of(args), now=now, past=past)


def heading(opened: Opened) -> dict[str, Any]:
    """What every JSON answer begins with."""
    match opened.source:
        case WebSource(url=url):
            where = url
        case StorageSource(directory=directory):
            where = directory
        case BucketSource(storage=storage):
            where = storage.name
        case MountSource(root=root):
            where = root
        case _:
            assert_never(opened.source)
    snapshot = opened.snapshot
    said: dict[str, Any] = {"fqrn": str(opened.fqrn), "source": where}
    if snapshot is not None:
        said |= {"revision": snapshot.revision, "whitelist_expires": time_text(snapshot.valid_until)}
        if snapshot.past is not None:
            said["past"] = past_json(snapshot.past) | {"head": snapshot.manifest.revision}
    return said


def title(opened: Opened) -> str:
    """The same as a line of text."""
    snapshot = opened.snapshot
    if snapshot is None:
        return f"{opened.fqrn}, mounted"
    text = f"{opened.fqrn}, revision {snapshot.revision}, signed until {snapshot.valid_until:%Y-%m-%d}"
    past = snapshot.past
    if past is None:
        return text
    tag = f"tag {past.tag}, " if past.tag else ""
    return f"{text}\n{tag}{past_text(past)}; the present one is {snapshot.manifest.revision}"


def past_text(past: PastRoot) -> str:
    """What a past state is proven by, in words."""
    if past.proven:
        return f"a state that the owner vouches for: {past.digest}"
    return f"a state that only the hash you gave vouches for: {past.digest}"


def past_json(past: PastRoot) -> dict[str, Any]:
    """A past state in JSON; ``anchor`` says what it is proven by."""
    return {
        "tag": past.tag or None,
        "revision": past.revision,
        "root_catalog": str(past.digest),
        "time": None if past.timestamp is None else time_text(datetime.fromtimestamp(past.timestamp, UTC)),
        "anchor": "manifest" if past.proven else "root hash given",
    }


def tags_of(snapshot: Snapshot) -> list[Tag]:
    """A repository's tags, as the real tool lists them."""
    history = snapshot.history()
    return sorted(history.tags if history is not None else (), key=lambda tag: (-tag.timestamp, -tag.revision))


def tag_json(tag: Tag) -> dict[str, Any]:
    """A tag in JSON."""
    return {
        "name": tag.name,
        "revision": tag.revision,
        "root_catalog": str(tag.digest),
        "time": time_text(datetime.fromtimestamp(tag.timestamp, UTC)),
        "root_catalog_bytes": tag.size,
        "description": tag.description,
        "automatic": tag.automatic,
    }


def write_tags(tags: list[Tag]) -> None:
    """Print tags, a line each."""
    width = max((len(tag.name) for tag in tags), default=0)
    for tag in tags:
        when = time_text(datetime.fromtimestamp(tag.timestamp, UTC))
        text = f"{tag.name:<{width}}  {tag.revision:>6}  {when}  {str(tag.digest)[:12]}  {tag.description}"
        write(text.rstrip())


def time_text(time: datetime) -> str:
    """A time in JSON."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def size_text(size: int) -> str:
    """A size for people, decimal: 153.4 MB."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.95:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def write(text: str) -> None:
    """Print a line of data; what is no text, or would steer a terminal, is escaped."""
    sys.stdout.write(printable(text) + "\n")


def write_lines(text: str) -> None:
    """Print some lines of data."""
    for line in text.split("\n"):
        write(line)


def write_json(value: object) -> None:
    """Print one JSON object."""
    sys.stdout.write(json.dumps(value) + "\n")
