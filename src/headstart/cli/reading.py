"""What the commands that only read a repository have in common."""

import argparse
import json
import os
import sys
from datetime import datetime
from functools import partial
from typing import Any, assert_never

from headstart.cli import printable
from headstart.names import Fqrn
from headstart.siteconfig import read_site
from headstart.source import Anchors, MountSource, Opened, StorageSource, WebSource, open_source, parse


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare SOURCE, ``--key``, ``--fqrn`` and ``--json``."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a repository's name, a mounted /cvmfs/NAME, a storage directory, or an http address",
    )
    parser.add_argument(
        "--key",
        metavar="PUB",
        action="append",
        default=[],
        help="public key to trust (default: those in /etc/cvmfs/keys)",
    )
    parser.add_argument("--fqrn", metavar="NAME", help="the repository that it must be")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def open_from(args: argparse.Namespace, now: datetime) -> Opened:
    """Prove the source that the arguments name."""
    fqrn = Fqrn(args.fqrn) if args.fqrn else None
    site_of = partial(read_site, env=os.environ)
    anchors = Anchors(keys=tuple(args.key), fqrn=fqrn, site_of=site_of)
    return open_source(parse(args.source, site_of), anchors, now=now)


def heading(opened: Opened) -> dict[str, Any]:
    """What every JSON answer begins with."""
    match opened.source:
        case WebSource(url=url):
            where = url
        case StorageSource(directory=directory):
            where = directory
        case MountSource(root=root):
            where = root
        case _:
            assert_never(opened.source)
    snapshot = opened.snapshot
    said: dict[str, Any] = {"fqrn": str(opened.fqrn), "source": where}
    if snapshot is not None:
        said |= {"revision": snapshot.revision, "whitelist_expires": time_text(snapshot.valid_until)}
    return said


def title(opened: Opened) -> str:
    """The same as a line of text."""
    snapshot = opened.snapshot
    if snapshot is None:
        return f"{opened.fqrn}, mounted"
    return f"{opened.fqrn}, revision {snapshot.revision}, signed until {snapshot.valid_until:%Y-%m-%d}"


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


def counted(count: int, one: str, more: str = "") -> str:
    """A number of things: 1 entry, 2 entries."""
    return f"{count} {one if count == 1 else more or one + 's'}"


def write(text: str) -> None:
    """Print a line of data; what is no text, or would steer a terminal, is escaped."""
    sys.stdout.write(printable(text) + "\n")


def write_json(value: object) -> None:
    """Print one JSON object."""
    sys.stdout.write(json.dumps(value) + "\n")
