"""``headstart channel``: the keys of channels, renewing them, and signing where the keys are."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from headstart.bundle import Bundle
from headstart.channel import Root
from headstart.cli.carrying import add_carrying
from headstart.cli.pointing import (
    add_pointing_arguments,
    add_target_arguments,
    carry_out,
    perform,
    root_json,
    root_text,
    stated_json,
    step_json,
    talk,
    talk_stated,
    terms_of,
    write_request,
)
from headstart.cli.reading import write, write_json
from headstart.cli.tags import target_of
from headstart.console import Console
from headstart.ed25519 import KEY_SIZE, Ed25519PublicKey
from headstart.errors import ConfigurationError, CorruptError, KeyFileError
from headstart.keys import create_channel_key, load_master_key
from headstart.names import Fqrn
from headstart.reference import Reference
from headstart.releasestatement import ReleaseStatement
from headstart.repository import Repository
from headstart.repository.channelkeys import KeyChange, KeyPlan, bundle_keys, plan_keys
from headstart.repository.channels import channels_of, enough_signers
from headstart.repository.create import ROOT_DAYS
from headstart.repository.pointing import Pointing, bundle_at_hand, plan_renewal, plan_stating
from headstart.repository.statements import publish_statements

HELP = "Keys of channels, and signing: 'headstart channel VERB --help' explains a verb."
_KEYS = """\
Show or change which keys sign channels, and how many of them each one needs.
Without --add, --remove, --threshold, --days, --restart or --statements it
shows them.

The next statement of keys takes the master key. Where that is elsewhere:

  headstart channel keys ... --request FILE
  headstart channel sign FILE --keys MASTERDIR
  headstart channel apply FILE --storage DIR --keys KEYDIR

Channels and releases that the new keys would not vouch for as they are signed
now are signed anew in the same step, the channels where they point now.

After the theft of a key take it away with --remove and say --restart: what was
signed before does not count any more, and versions begin anew on every node,
however high the thief has driven them. What a thief has stated or let a channel
point at is signed anew like all else: take it out before.
"""
_STATE = """\
Sign statements of releases: that they are what whoever signs channels has
published. publish and promote do so for theirs, if the keys are at hand. A
node believes a release that is named by its id, by a few digits or not at all
only with one (channel keys --statements).

Name only what you know: what lies in the repository may be a thief's. Where
more signatures are needed than there are keys at hand, --request writes a file
for the others to sign.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    keys = verbs.add_parser(
        "keys",
        help="show or change which keys sign channels",
        description=_KEYS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    keys.add_argument("--add", metavar="KEY", action="append", default=[], help="name this public key too")
    keys.add_argument(
        "--remove", metavar="ID", action="append", default=[], help="trust the key no more whose id begins so"
    )
    keys.add_argument("--threshold", type=int, metavar="N", help="signatures that each channel needs")
    keys.add_argument(
        "--days", type=int, metavar="N", help=f"days that the statement is believed (default: {ROOT_DAYS})"
    )
    keys.add_argument("--restart", action="store_true", help="let only what is signed from now on count")
    keys.add_argument(
        "--statements",
        choices=("required", "optional"),
        help="whether nodes believe a release that is named by its id only where these keys have stated it",
    )
    keys.add_argument("--request", metavar="FILE", help="write what is to be signed elsewhere")
    add_target_arguments(keys)
    keys.set_defaults(perform=_keys)
    new = verbs.add_parser(
        "new-key",
        help="make one more channel key",
        description="Make a channel key, FQRN.channelkey-NAME in KEYDIR, and print its public half for --add.",
        allow_abbrev=False,
    )
    new.add_argument("fqrn", metavar="FQRN", help="the repository's name")
    new.add_argument("name", metavar="NAME", help="the key's name, such as alice")
    new.add_argument("--keys", required=True, metavar="KEYDIR", help="where it is to be")
    new.add_argument("--json", action="store_true", help="print one JSON object")
    new.set_defaults(perform=_new_key)
    renew = verbs.add_parser(
        "renew",
        help="sign all channels again that will expire",
        description="Sign all channels again, where they point, that have less than half of their time left.",
        allow_abbrev=False,
    )
    add_pointing_arguments(renew)
    renew.add_argument("--all", action="store_true", help="however fresh they are")
    renew.set_defaults(perform=_renew)
    state = verbs.add_parser(
        "state",
        help="vouch for releases that were published without",
        description=_STATE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    state.add_argument("references", metavar="STACK@WHICH", nargs="+", help="a release")
    state.add_argument("--request", metavar="FILE", help="publish nothing; write what others are to sign")
    add_target_arguments(state)
    state.set_defaults(perform=_state)
    add_carrying(verbs)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    return int(args.perform(args))


def _renew(args: argparse.Namespace) -> int:
    terms = terms_of(args, renew=args.all)

    def plan(repository: Repository, now: datetime) -> Sequence[Pointing]:
        steps = plan_renewal(repository, terms, now)
        if not steps:
            Console(sys.stderr).step(f"{repository.fqrn} has no channels")
        return steps

    return perform(args, plan)


def _state(args: argparse.Namespace) -> int:
    references = [Reference.parse(word) for word in args.references]
    made: list[ReleaseStatement] = []

    def plan(repository: Repository, _now: datetime) -> Bundle | None:
        made.extend(plan_stating(repository, references))
        return bundle_at_hand(channels_of(repository), made)

    console = Console(sys.stderr)

    def tell() -> None:
        if not made:
            console.step(f"stated already: {', '.join(args.references)}")

    said = carry_out(args, console, plan, tell)
    if args.json:
        write_json(said)
    else:
        for each in made:
            write(f"{each.stack}@{each.digest}")
    return 0


def _new_key(args: argparse.Namespace) -> int:
    made = create_channel_key(args.keys, Fqrn(args.fqrn), args.name)
    path = os.path.join(os.path.abspath(args.keys), f"{args.fqrn}.channelkey-{args.name}")
    Console(sys.stderr).step(
        f"made {path}; it counts when the owner names it: headstart channel keys --add {made.public.raw.hex()}"
    )
    if args.json:
        write_json({"fqrn": args.fqrn, "file": path, "id": made.keyid, "public": made.public.raw.hex()})
    else:
        write(made.public.raw.hex())
    return 0


def _keys(args: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    store, keys = target_of(args)
    console = Console(sys.stderr)
    given = (args.threshold, args.days, args.statements)
    changes = args.add or args.remove or args.restart or any(each is not None for each in given)
    if not changes:
        if args.request is not None:
            raise ConfigurationError("nothing is to be changed, so nothing is to be signed", hint="see --help")
        repository = Repository.open(store, keys, now)
        return _show(args, channels_of(repository).root)
    change = _change(args)
    made: list[KeyPlan] = []

    def make(repository: Repository) -> Bundle | None:
        plan = plan_keys(repository, change, now)
        made.append(plan)
        if not plan.changes:
            _talk_keys(console, plan)
            return None
        if (plan.channels or plan.releases) and args.request is None:
            enough_signers(keys, plan.root)
        at_hand = args.request is None and not args.dry_run
        return bundle_keys(repository, plan, (load_master_key(args.keys, keys.fqrn),) if at_hand else ())

    if args.request is not None or args.dry_run:
        bundle = make(Repository.open(store, keys, now))
        write_request(args, console, bundle, lambda: _talk_keys(console, made[0]))
    else:
        manifest = publish_statements((store, keys), make, now, lambda _: _talk_keys(console, made[0]))
        console.step(f"{keys.fqrn} is at revision {manifest.revision}")
    plan = made[0]
    if args.json:
        said = root_json(plan.root) | {
            "changes": plan.changes,
            "channels": [step_json(step) for step in plan.channels],
            "stated": [stated_json(each) for each in plan.releases],
        }
        write_json(said | {"dry_run": args.dry_run, "request": args.request})
    else:
        for keyid in sorted(plan.root.keys):
            write(keyid)
    return 0


def _change(args: argparse.Namespace) -> KeyChange:
    if args.days is not None and not 1 <= args.days <= 3650:
        raise ConfigurationError(f"--days {args.days} is not from 1 to 3650")
    return KeyChange(
        add=tuple(_public(word) for word in args.add),
        remove=tuple(args.remove),
        threshold=args.threshold,
        days=args.days,
        restart=args.restart,
        statements=None if args.statements is None else args.statements == "required",
    )


def _public(word: str) -> Ed25519PublicKey:
    try:
        raw = bytes.fromhex(word)
        if len(raw) == KEY_SIZE:
            return Ed25519PublicKey(raw)
    except (ValueError, CorruptError):
        pass
    raise KeyFileError(
        f"{word[:80]!r} is no public channel key",
        hint=f"write the {2 * KEY_SIZE} digits that headstart channel new-key prints",
    )


def _show(args: argparse.Namespace, root: Root) -> int:
    if args.json:
        write_json(root_json(root))
        return 0
    write(f"{root.fqrn}: {root_text(root)}")
    for keyid in sorted(root.keys):
        write(f"  {keyid}")
    return 0


def _talk_keys(console: Console, plan: KeyPlan) -> None:
    already = "" if plan.changes else "are so already: "
    console.step(f"channel keys of {plan.root.fqrn}: {already}{root_text(plan.root)}")
    for word, ids in (
        ("adds", plan.root.keys.keys() - plan.before.keys.keys()),
        ("takes away", plan.before.keys.keys() - plan.root.keys.keys()),
    ):
        for keyid in sorted(ids):
            console.step(f"{word} {keyid}")
    if plan.root.restarted != plan.before.restarted:
        console.step("what was signed before does not count any more, and versions begin anew")
    talk(console, plan.channels)
    talk_stated(console, plan.releases)
