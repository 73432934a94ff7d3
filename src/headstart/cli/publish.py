"""``headstart publish``: a staged release, or any directory, into a repository."""

import argparse
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from headstart.cli.storages import add_storage_arguments, storage_of
from headstart.cli.trees import (
    add_tree_arguments,
    add_via_arguments,
    check_target,
    check_words,
    path_of,
    run_tree,
)
from headstart.console import Console
from headstart.cvmfs.history import check_new_name
from headstart.errors import ConfigurationError
from headstart.ingest import Recipe
from headstart.keys import load_keys
from headstart.names import ChannelName
from headstart.repository import OURS, Action, Channel, Means, Plan, Repository, Tagging, plan, publish
from headstart.stage import StagedRelease, open_stage
from headstart.wording import counted

HELP = """\
Publish a staged release as a new revision of a repository, and with --channel
point a channel at it. What is published already is not published again.
With --tree, make a path of the repository what any directory is: only what has
changed since the last time is read, and nothing new is no new revision.
With --via cvmfs_server, let a Stratum 0 of the site's own publish it."""
_DAYS = 30
_WORDS = {
    Action.PUBLISH: "to publish",
    Action.PRESENT: "published already",
    Action.POINT: "to sign",
    Action.KEEP: "points there already",
    Action.STATE: "to sign",
    Action.WAIT: "needs more signatures: headstart channel state --request FILE",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument(
        "stage", metavar="STAGE", nargs="?", help="the directory that a build staged the release in"
    )
    add_storage_arguments(parser, required=False)
    parser.add_argument("--keys", metavar="KEYDIR", help="the directory of its keys")
    parser.add_argument("--channel", metavar="NAME", help="point this channel at the release")
    parser.add_argument(
        "--expires-days",
        type=int,
        metavar="N",
        help=f"days that the channel's pointer is believed (default: {_DAYS})",
    )
    naming = parser.add_mutually_exclusive_group()
    naming.add_argument("--tag", metavar="NAME", help="name the new revision")
    naming.add_argument(
        "--auto-tag", action="store_true", help="name it after its time: generic-2026-11-22T20:15:00Z"
    )
    parser.add_argument("-m", "--message", metavar="TEXT", help="the tag's description")
    parser.add_argument(
        "--auto-tag-days", type=int, metavar="N", help="take automatic tags away that are older"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_tree_arguments(parser)
    add_via_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Publish, or print the plan."""
    # Large files are cut with numpy, whose linear algebra would start a thread for each core, and interrupts us
    # where it cannot.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    check_words(args)
    check_target(args)
    if args.via is not None:
        _tagging(args)  # what it refuses is refused here, too
        at = b"" if args.stage is not None else path_of(args.at if args.delete is None else args.delete)
        return int(import_module("headstart.cli.handing").run_via(args, os.environ, at, OURS))
    return _run_stage(args) if args.stage is not None else run_tree(args, os.environ, _tagging(args))


def _run_stage(args: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    days = _DAYS if args.expires_days is None else args.expires_days
    if not 1 <= days <= 3650:
        raise ConfigurationError(f"--expires-days {days} is not from 1 to 3650")
    if args.expires_days is not None and not args.channel:
        raise ConfigurationError("--expires-days is of a channel, and none is named", hint="add --channel NAME")
    valid = timedelta(days=days)
    channel = Channel(name=ChannelName(args.channel), valid=valid) if args.channel else None
    tagging = _tagging(args)
    console = Console(sys.stderr)
    staged = open_stage(args.stage)
    store = storage_of(args)
    keys = load_keys(args.keys, staged.fqrn)
    if args.dry_run:
        repository = Repository.open(store, keys, now)
        todo = plan(repository, staged, channel, now)
        _talk(console, todo)
        said = _summary(staged, todo) | {"revision": repository.manifest.revision, "dry_run": True}
    else:
        recipe = Recipe(workers=len(os.sched_getaffinity(0)))
        means = Means(recipe=recipe, tagging=tagging, announce=lambda it: _talk(console, it))
        done = publish((store, keys), staged, channel, now, means)
        console.step(
            f"{staged.fqrn} is at revision {done.revision}: "
            + (
                f"{counted(done.objects, 'new object')}, {done.stored / 1e6:.1f} MB"
                if done.plan.changes
                else "nothing is new"
            )
        )
        extra = {"revision": done.revision, "objects": done.objects, "bytes": done.stored, "dry_run": False}
        said = _summary(staged, done.plan) | extra
    if args.json:
        sys.stdout.write(json.dumps(said) + "\n")
    else:
        sys.stdout.write(f"{staged.release.stack}@{staged.digest}\n")
    return 0


def _tagging(args: argparse.Namespace) -> Tagging:
    if args.message is not None and args.tag is None and not args.auto_tag:
        raise ConfigurationError("--message is of a tag, and none is named", hint="add --tag NAME")
    if args.auto_tag_days is not None and not 1 <= args.auto_tag_days <= 36500:
        raise ConfigurationError(f"--auto-tag-days {args.auto_tag_days} is not from 1 to 36500")
    return Tagging(
        name=check_new_name(args.tag) if args.tag is not None else "",
        description=args.message or "",
        automatic=args.auto_tag,
        days=args.auto_tag_days,
    )


def _talk(console: Console, todo: Plan) -> None:
    for step in todo.steps:
        size = f" ({counted(step.files, 'file')}, {step.size / 1e6:.1f} MB)" if step.size else ""
        console.step(f"{step.path}: {_WORDS[step.action]}{size}")


def _summary(staged: StagedRelease, todo: Plan) -> dict[str, Any]:
    pointer = todo.pointer
    return {
        "fqrn": str(staged.fqrn),
        "stack": str(staged.release.stack),
        "release": str(staged.release.id),
        "digest": staged.digest.hex,
        "changes": todo.changes,
        "steps": [
            {"action": str(step.action), "path": step.path, "files": step.files, "bytes": step.size}
            for step in todo.steps
        ],
        "pointer": None
        if pointer is None
        else {
            "channel": str(pointer.channel),
            "version": pointer.version,
            "expires": pointer.expires.isoformat(),
        },
    }
