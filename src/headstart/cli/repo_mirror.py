"""``headstart repo mirror``: a Stratum 1, made and kept up to date."""

import argparse
import os
import sys
import time
from datetime import UTC, datetime, timedelta

from headstart.blacklists import read_blacklists
from headstart.cli.reading import (
    add_source_arguments,
    anchors_of,
    size_text,
    source_of,
    write,
    write_json,
)
from headstart.cli.storages import add_s3_argument, in_bucket, storage_of
from headstart.console import Console
from headstart.errors import ConfigurationError, StorageError
from headstart.failover import NoNotes
from headstart.repository.copying import Tally
from headstart.repository.mirror import Mirrored, Plan, Wishes, look, mirror
from headstart.repository.origin import Sought
from headstart.s3place import S3Place
from headstart.siteconfig import read_site
from headstart.source import MountSource, StorageSource, WebSource, expected_name, find_keys, stratum_of
from headstart.store import NewStorage
from headstart.wording import counted

HELP = "make a copy of a repository (a Stratum 1), or bring it up to date"
DESCRIPTION = """\
Copy a repository into a directory or an object store, or bring such a copy
up to date. Each object is compared with its name, the whole chain of
signatures is proven, and the manifest is replaced last and at once: what
serves the copy always has the old state or the new one. Objects that are
there are not fetched again, so a run that was killed is finished by the next.

Copied are the present state, all tags, and the states published since the
last run; by the first run all that the source still has. --keep-days N
leaves out those that were replaced more than N days ago. The source must
have the file .cvmfs_master_replica, by which its owner allows replication.
A source that is behind the mirror is refused.
"""
_MOST_WORKERS = 128
_INSIDE = "{} is the source itself, or lies in it"
_ELSEWHERE = "name another place for the mirror"
_TALK = 5.0
"""Seconds between two lines about the progress."""


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "mirror",
        help=HELP,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(perform=run)
    add_source_arguments(parser)
    parser.add_argument(
        "storage",
        metavar="STORAGE",
        help="the directory of the mirror, made if need be, or s3://BUCKET/PREFIX",
    )
    add_s3_argument(parser)
    parser.add_argument(
        "--keep-days",
        type=int,
        metavar="N",
        help="copy earlier states only that were current in the last N days",
    )
    parser.add_argument(
        "--workers", type=int, default=8, metavar="N", help="fetch so many at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--recheck",
        action="store_true",
        help="look for every object of every state again, and fetch what was lost",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be copied, write nothing; reads the catalogs"
    )


def run(args: argparse.Namespace) -> int:
    """Take a snapshot, or print what it would do."""
    now = datetime.now(UTC)
    wishes = _wishes(args)
    sought = _sought(args)
    store = storage_of(args)
    if args.dry_run:
        done = look(sought, store, wishes, now)
    else:
        talk = _Talk()
        done = mirror(sought, store, wishes, now, announce=talk.plan, progress=talk.progress)
        talk.done(done)
    if args.json:
        write_json(_json(done, sought, store, dry_run=args.dry_run))
    else:
        for line in _lines(done, dry_run=args.dry_run):
            write(line)
    return 0


def _wishes(args: argparse.Namespace) -> Wishes:
    if not 1 <= args.workers <= _MOST_WORKERS:
        raise ConfigurationError(f"--workers {args.workers} is no number from 1 to {_MOST_WORKERS}")
    if args.keep_days is not None and not 0 <= args.keep_days <= 100_000:
        raise ConfigurationError(f"--keep-days {args.keep_days} is no number from 0 to 100000")
    keep = timedelta(days=args.keep_days) if args.keep_days is not None else None
    return Wishes(workers=args.workers, keep=keep, recheck=args.recheck)


def _sought(args: argparse.Namespace) -> Sought:
    source = source_of(args)
    if isinstance(source, MountSource):
        raise StorageError(
            f"{source.root} is a mount, which shows files and not what they are stored in",
            hint="name a server of the repository",
        )
    if isinstance(source, StorageSource) and not in_bucket(args.storage):
        _refuse_inside(source.directory, args.storage)
    if in_bucket(args.source) and in_bucket(args.storage):
        _refuse_below(args.source, args.storage)
    anchors = anchors_of(args)
    # As ``open_source``: who asks a server for one repository must not be given another.
    named = isinstance(source, WebSource) or not anchors.keys
    fqrn = anchors.fqrn or (expected_name(source) if named else None)
    site = read_site(fqrn or expected_name(source), env=os.environ)
    return Sought(
        stratum=stratum_of(source, NoNotes()),
        keys=find_keys(source, anchors),
        fqrn=fqrn,
        blacklist=read_blacklists(anchors.blacklists, site=site.blacklists),
    )


def _refuse_inside(source: str, storage: str) -> None:
    """Refuse a mirror in the storage that it is a mirror of."""
    outer, inner = os.path.realpath(source), os.path.realpath(storage)
    if os.path.commonpath((outer, inner)) == outer:
        raise ConfigurationError(_INSIDE.format(storage), hint=_ELSEWHERE)


def _refuse_below(source: str, storage: str) -> None:
    """The same of two places in object stores."""
    if S3Place.parse(source).holds(S3Place.parse(storage)):
        raise ConfigurationError(_INSIDE.format(storage), hint=_ELSEWHERE)


class _Talk:
    """What is said meanwhile."""

    def __init__(self) -> None:
        self._console = Console(sys.stderr)
        self._last = time.monotonic()

    def plan(self, plan: Plan) -> None:
        """Before the first object."""
        self._console.step(_heading(plan))

    def progress(self, tally: Tally) -> None:
        """Now and then."""
        now = time.monotonic()
        if now - self._last >= _TALK:
            self._last = now
            self._console.step(f"{counted(tally.objects, 'object')} of {size_text(tally.size)} copied")

    def done(self, done: Mirrored) -> None:
        """At the end."""
        for state in done.left_out:
            self._console.note(f"left out, because the source does not have all of it: {state.label}")
        for warning in done.warnings:
            self._console.note(f"headstart: warning: {warning}")
        self._console.step("done")


def _heading(plan: Plan) -> str:
    manifest, before = plan.manifest, plan.before
    if before is None:
        return f"{manifest.fqrn} revision {manifest.revision}, {counted(len(plan.states), 'state')} to copy"
    if not plan.states:
        return f"{manifest.fqrn} is at revision {manifest.revision}: there is no new state"
    return (
        f"{manifest.fqrn} from revision {before.revision} to {manifest.revision}, "
        f"{counted(len(plan.states), 'state')} to copy"
    )


def _lines(done: Mirrored, *, dry_run: bool) -> list[str]:
    tally = done.tally
    if dry_run:
        lines = [_heading(done.plan)]
        lines += [f"would copy {state.label}" for state in done.plan.states if state not in done.left_out]
        lines += [
            f"would leave out {state.label}, of which the source does not have all" for state in done.left_out
        ]
        size = size_text(tally.size)
        what = f"{counted(tally.objects, 'object')} to fetch, {counted(tally.catalogs, 'catalog')} among them"
        return [*lines, f"{what}: {size} of content, which is less as stored"]
    manifest = done.plan.manifest
    what = f"{counted(tally.objects, 'object')} of {size_text(tally.size)} copied"
    return [f"{manifest.fqrn} revision {manifest.revision}: {what}"]


def _json(done: Mirrored, sought: Sought, store: NewStorage, *, dry_run: bool) -> dict[str, object]:
    plan, tally = done.plan, done.tally
    return {
        "fqrn": str(plan.manifest.fqrn),
        "source": sought.stratum.name,
        "storage": store.name,
        "dry_run": dry_run,
        "revision": plan.manifest.revision,
        "root_catalog": str(plan.manifest.root_catalog),
        "revision_before": plan.before.revision if plan.before is not None else None,
        "states": [
            {"root_catalog": str(state.digest), "what": state.label, "left_out": state in done.left_out}
            for state in plan.states
        ],
        "objects": tally.objects,
        "catalogs": tally.catalogs,
        "looked_for": tally.looked_at,
        "content_bytes" if dry_run else "bytes": tally.size,
        "warnings": list(done.warnings),
    }
