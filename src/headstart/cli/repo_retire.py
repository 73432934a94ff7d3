"""``headstart repo retire``: take old releases out of the present state."""

import argparse
import sys
from datetime import UTC, datetime

from headstart.cli.reading import write, write_json
from headstart.cli.storages import add_storage_arguments
from headstart.cli.tags import target_of
from headstart.console import Console
from headstart.reference import Reference
from headstart.repository.retire import Retirement, plan_retirement, retire
from headstart.repository.state import Repository

DESCRIPTION = """\
Take releases out of the present state of a repository, and each Julia that no
other release runs on. A release that a channel points at is refused, and so is
one that a pointer names which has not expired: a node without a memory may
believe it.

Tags and kept revisions still have it; when none is left, headstart repo gc
deletes what only it was made of. Jobs that run have theirs in their node's
cache. Who names it by its digest gets it no more.
"""


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "retire",
        help="take old releases out that no channel holds",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("references", metavar="STACK@RELEASE", nargs="+", help="by id or digest")
    add_storage_arguments(parser)
    parser.add_argument("--keys", required=True, metavar="KEYDIR", help="the directory of its keys")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(perform=run)


def run(args: argparse.Namespace) -> int:
    """Take them out, or print the plan."""
    now = datetime.now(UTC)
    references = [Reference.parse(word) for word in args.references]
    store, keys = target_of(args)
    console = Console(sys.stderr)

    def announce(plan: Retirement) -> None:
        for path in plan.paths:
            console.step(f"{path} goes")

    if args.dry_run:
        repository = Repository.open(store, keys, now)
        plan, manifest = plan_retirement(repository, references, now), repository.manifest
        announce(plan)
    else:
        plan, manifest = retire((store, keys), references, now, announce)
        console.step(f"{keys.fqrn} is at revision {manifest.revision}")
    if args.json:
        said = [
            {"stack": str(made.stack), "release": str(made.id), "digest": digest.hex}
            for made, digest in plan.releases
        ]
        write_json(
            {
                "fqrn": str(keys.fqrn),
                "revision": manifest.revision,
                "releases": said,
                "paths": list(plan.paths),
                "dry_run": args.dry_run,
            }
        )
    else:
        for path in plan.paths:
            write(path)
    return 0
