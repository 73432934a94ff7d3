"""``headstart publish --via cvmfs_server``: a site's own Stratum 0 publishes what is handed to it."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping

from headstart.cli.reading import counted, write, write_json
from headstart.console import Console
from headstart.errors import ConfigurationError
from headstart.names import Fqrn
from headstart.process import run_process
from headstart.repository.handover import (
    Copy,
    HandedOver,
    Handover,
    Removal,
    hand_over,
    plan_change,
    plan_release,
)
from headstart.stage import open_stage

_OURS = {
    "storage": "--storage",
    "keys": "--keys",
    "channel": "--channel",
    "auto_tag": "--auto-tag",
    "auto_tag_days": "--auto-tag-days",
    "owner": "--owner",
    "nanoseconds": "--nanoseconds",
    "autocatalogs": "--autocatalogs",
    "max_weight": "--max-weight",
    "min_weight": "--min-weight",
    "dirtab": "--dirtab",
    "uncompressed": "--uncompressed",
    "state": "--state",
}


def add_via_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what concerns a Stratum 0 of the site's own."""
    group = parser.add_argument_group(
        "a Stratum 0 of the site's own",
        "instead of --storage and --keys, on that machine, by the account that may publish there",
    )
    group.add_argument(
        "--via", choices=("cvmfs_server",), help="publish in a transaction of this program, with rsync"
    )
    group.add_argument("--fqrn", metavar="NAME", help="the repository, where no stage says it")


def check_target(args: argparse.Namespace) -> None:
    """See that it is said who publishes, and that nothing is asked of whom that cannot do it.

    Raises:
        ConfigurationError: it is not.
    """
    if args.via is None:
        for name in ("storage", "keys"):
            if getattr(args, name) is None:
                raise ConfigurationError(
                    f"--{name} is missing", hint="name it, or use --via cvmfs_server on a Stratum 0"
                )
        if args.fqrn is not None:
            raise ConfigurationError("--fqrn is of --via", hint="the storage says which repository it is")
        return
    for name, word in _OURS.items():
        if getattr(args, name):
            raise ConfigurationError(
                f"{word} is not for --via {args.via}",
                hint="channels need Headstart's own keys; everything else is in the Stratum 0's configuration",
            )
    if (args.fqrn is None) == (args.stage is None):
        raise ConfigurationError(
            "a stage says its repository itself, and a tree does not",
            hint="give --fqrn NAME with --tree and --delete only",
        )


def run_via(args: argparse.Namespace, env: Mapping[str, str], at: bytes, kept: frozenset[bytes]) -> int:
    """Hand over a stage or a directory, or print how.

    Args:
        args: the arguments.
        env: the environment.
        at: the path in the repository of a directory, or to remove.
        kept: names in the root directory that are none of a directory's business.
    """
    naming = (args.tag or "", args.message or "")
    data: list[str]
    if args.stage is not None:
        staged = open_stage(args.stage)
        plan = plan_release(staged, os.path.abspath(args.stage), staged.fqrn.mountpoint, naming)
        data = [f"{staged.release.stack}@{staged.digest}"]
    else:
        fqrn = Fqrn(args.fqrn)
        plan = plan_change(fqrn, fqrn.mountpoint, _change(args, os.fsdecode(at) or "/", kept), naming)
        data = [os.fsdecode(at) or "/"]
    console = Console(sys.stderr)
    for path in plan.present:
        console.step(f"{path}: published already")
    if args.dry_run:
        for words in plan.commands:
            console.step(shlex.join(words))
        done = None
    else:
        done = hand_over(plan, run_process, env, console.step)
        console.step(_said(plan, done))
    if args.json:
        write_json(_json(plan, done))
    else:
        for line in data:
            write(line)
    return 0


def _change(args: argparse.Namespace, at: str, kept: frozenset[bytes]) -> Copy | Removal:
    if args.delete is not None:
        if at == "/":
            raise ConfigurationError("the root directory cannot be removed", hint="name what is in it")
        return Removal(at=at)
    return Copy(
        source=os.path.abspath(args.tree),
        at=at,
        kept=tuple(sorted(map(os.fsdecode, kept))) if at == "/" else (),
        xattrs=not args.no_xattrs,
        checksum=args.checksum,
    )


def _said(plan: Handover, done: HandedOver) -> str:
    if done.published:
        return f"{plan.fqrn} has a new revision: {counted(done.changed, 'path')} changed"
    return f"{plan.fqrn} stays as it is: nothing is new"


def _json(plan: Handover, done: HandedOver | None) -> dict[str, object]:
    return {
        "fqrn": str(plan.fqrn),
        "present": list(plan.present),
        "commands": [list(words) for words in plan.commands],
        "published": done is not None and done.published,
        "changed": 0 if done is None else done.changed,
        "dry_run": done is None,
    }
