"""``headstart publish --via cvmfs_server``: a site's own Stratum 0 publishes what is handed to it."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping

from headstart.cli.reading import write, write_json
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
from headstart.wording import counted


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
