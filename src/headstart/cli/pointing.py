"""What the commands that let channels point somewhere have in common."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from headstart.bundle import Bundle
from headstart.channel import Pointer, Root
from headstart.cli.reading import time_text, write, write_json
from headstart.cli.storages import add_storage_arguments
from headstart.cli.tags import target_of
from headstart.cli.writing import write_whole
from headstart.console import Console
from headstart.errors import ConfigurationError
from headstart.releasestatement import ReleaseStatement
from headstart.repository import Repository
from headstart.repository.channels import channels_of, enough_signers
from headstart.repository.pointing import POINTER_DAYS, Pointing, Terms, bundle_of
from headstart.repository.statements import prove, publish_statements
from headstart.wording import counted

Planner = Callable[[Repository, datetime], Sequence[Pointing]]


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the repository and its keys are, and how to answer."""
    add_storage_arguments(parser)
    parser.add_argument("--keys", required=True, metavar="KEYDIR", help="the directory of its keys")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_pointing_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the same, with how the pointer is to be."""
    add_target_arguments(parser)
    parser.add_argument(
        "--expires-days",
        type=int,
        default=POINTER_DAYS,
        metavar="N",
        help="days that the pointer is believed (default: %(default)s)",
    )
    parser.add_argument(
        "--request",
        metavar="FILE",
        help="publish nothing; write what others are to sign (headstart channel sign)",
    )


def terms_of(args: argparse.Namespace, *, renew: bool = False) -> Terms:
    """How pointers are to be made."""
    if not 1 <= args.expires_days <= 3650:
        raise ConfigurationError(f"--expires-days {args.expires_days} is not from 1 to 3650")
    return Terms(valid=timedelta(days=args.expires_days), renew=renew)


def perform(args: argparse.Namespace, plan: Planner) -> int:
    """Let channels point where the plan says: now, or when others have signed."""
    console = Console(sys.stderr)
    steps: list[Pointing] = []

    def make(repository: Repository, now: datetime) -> Bundle | None:
        steps.extend(plan(repository, now))
        return bundle_of(repository, steps)

    said = carry_out(args, console, make, lambda: talk(console, steps))
    answer(args, said, steps)
    return 0


def carry_out(
    args: argparse.Namespace,
    console: Console,
    plan: Callable[[Repository, datetime], Bundle | None],
    tell: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Publish what is to be signed with the keys at hand, or write it down for others; what JSON says of it.

    Args:
        args: of ``add_target_arguments``, and ``request``.
        console: where to talk.
        plan: what is to be signed; None for nothing.
        tell: says what becomes of it, once nothing speaks against it any more.
    """
    now = datetime.now(UTC)
    store, keys = target_of(args)
    stated: list[ReleaseStatement] = []

    def make(repository: Repository) -> Bundle | None:
        bundle = plan(repository, now)
        if bundle is None:
            tell()
            return None
        stated.extend(statement for statement, _ in bundle.releases)
        if args.request is None:
            enough_signers(keys, channels_of(repository).root)
        return bundle

    def announce(_: object = None) -> None:
        tell()
        talk_stated(console, stated)

    if args.request is not None or args.dry_run:
        repository = Repository.open(store, keys, now)
        bundle = make(repository)
        if bundle is not None and args.request is None:
            prove(repository, bundle, now)
        write_request(args, console, bundle, announce)
        revision = repository.manifest.revision
    else:
        revision = publish_statements((store, keys), make, now, announce).revision
        console.step(f"{keys.fqrn} is at revision {revision}")
    said = {"fqrn": str(keys.fqrn), "revision": revision, "dry_run": args.dry_run, "request": args.request}
    return said | {"stated": [stated_json(each) for each in stated]}


def answer(args: argparse.Namespace, said: dict[str, Any], steps: Sequence[Pointing]) -> None:
    """Print the data: for people a reference for each channel."""
    if args.json:
        write_json(said | {"channels": [step_json(step) for step in steps]})
        return
    for step in steps:
        write(f"{step.pointer.stack}@{step.pointer.digest}")


def talk(console: Console, steps: Sequence[Pointing]) -> None:
    """Say what becomes of each channel."""
    for step in steps:
        console.step(f"{step.pointer.stack}@{step.pointer.channel}: {step_text(step)}")


def talk_stated(console: Console, statements: Iterable[ReleaseStatement]) -> None:
    """Say which releases are stated."""
    for each in statements:
        console.step(f"{each.stack} {each.release}: stated as {each.digest}")


def step_text(step: Pointing) -> str:
    """What becomes of a channel, in words."""
    pointer, before = step.pointer, step.before
    until = f"version {pointer.version}, until {pointer.expires:%Y-%m-%d}"
    if not step.changes:
        return f"points at {pointer.release} already, {until}"
    if before is None:
        return f"new, points at {pointer.release}, {until}"
    if before.digest == pointer.digest:
        return f"still points at {pointer.release}, {until} instead of {before.expires:%Y-%m-%d}"
    return f"points at {pointer.release} instead of {before.release}, {until}"


def step_json(step: Pointing) -> dict[str, Any]:
    """The same in JSON."""
    before = None if step.before is None else pointer_json(step.before)
    return {"changes": step.changes, "pointer": pointer_json(step.pointer), "before": before}


def pointer_json(pointer: Pointer) -> dict[str, Any]:
    """A pointer in JSON."""
    return {
        "stack": str(pointer.stack),
        "channel": str(pointer.channel),
        "release": str(pointer.release),
        "digest": pointer.digest.hex,
        "version": pointer.version,
        "issued": time_text(pointer.issued),
        "expires": time_text(pointer.expires),
    }


def root_text(root: Root) -> str:
    """A statement of keys, in words."""
    return (
        f"{root.threshold} of {counted(len(root.keys), 'key')} for each channel, version {root.version}, "
        f"until {root.expires:%Y-%m-%d}, releases need {'statements' if root.statements else 'no statements'}"
    )


def root_json(root: Root) -> dict[str, Any]:
    """A statement of keys in JSON."""
    return {
        "fqrn": str(root.fqrn),
        "version": root.version,
        "threshold": root.threshold,
        "keys": [{"id": keyid, "public": key.raw.hex()} for keyid, key in sorted(root.keys.items())],
        "issued": time_text(root.issued),
        "expires": time_text(root.expires),
        "restarted": time_text(root.restarted),
        "statements": root.statements,
    }


def stated_json(statement: ReleaseStatement) -> dict[str, Any]:
    """A release's statement in JSON."""
    return {
        "stack": str(statement.stack),
        "release": str(statement.release),
        "digest": statement.digest.hex,
    }


def write_request(
    args: argparse.Namespace, console: Console, bundle: Bundle | None, announce: Callable[[], None]
) -> None:
    """Write the file for others to sign, if ``--request`` asks for one, and say what is to be done.

    Args:
        args: with ``request`` and ``dry_run``.
        console: where to talk.
        bundle: what is to be signed; None for nothing, and then it has been said.
        announce: says what is to be signed.
    """
    path = args.request
    if bundle is None:
        if path is not None:
            console.step(f"nothing is to be signed, so {path} is not written")
        return
    written = path is not None and not args.dry_run
    if written:
        write_bundle(path, bundle)
    announce()
    if written:
        what = counted(len(bundle.statements), "statement")
        console.step(f"wrote {path} with {what} to be signed by others:")
        console.step(f"  headstart channel sign {path} --keys KEYDIR")
        console.step(f"  headstart channel apply {path} --storage DIR --keys KEYDIR")


def write_bundle(path: str, bundle: Bundle) -> None:
    """Write a file to carry, whole or not at all."""
    write_whole(path, bundle.to_bytes())
