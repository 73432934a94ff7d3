"""``headstart channel``: the keys of channels, renewing them, and signing where the keys are."""

import argparse
import os
import sys
from datetime import UTC, datetime
from typing import Any

from headstart.bundle import BUNDLE_LIMIT, Bundle
from headstart.channel import Pointer, Root
from headstart.cli.pointing import (
    add_pointing_arguments,
    add_target_arguments,
    perform,
    pointer_json,
    say_next,
    step_json,
    talk,
    terms_of,
    write_bundle,
)
from headstart.cli.reading import counted, time_text, write, write_json
from headstart.cli.tags import target_of
from headstart.console import Console
from headstart.cvmfs.signing import Ed25519Signer, Signer
from headstart.ed25519 import KEY_SIZE, Ed25519PublicKey
from headstart.errors import ConfigurationError, CorruptError, KeyFileError, StorageError
from headstart.keys import create_channel_key, load_channel_keys, load_master_key
from headstart.names import Fqrn
from headstart.repository import Repository
from headstart.repository.channelkeys import KeyChange, KeyPlan, bundle_keys, plan_keys
from headstart.repository.channels import channels_of, enough_signers
from headstart.repository.create import ROOT_DAYS
from headstart.repository.pointing import Pointing, plan_renewal
from headstart.repository.statements import Proven, prove, publish_statements

HELP = "Keys of channels, and signing: 'headstart channel VERB --help' explains a verb."
_KEYS = """\
Show or change which keys sign channels, and how many of them each one needs.
Without --add, --remove, --threshold, --days or --restart it shows them.

The next statement of keys takes the master key. Where that is elsewhere:

  headstart channel keys ... --request FILE
  headstart channel sign FILE --keys MASTERDIR
  headstart channel apply FILE --storage DIR --keys KEYDIR

Channels that the new keys would not vouch for as they are signed now are signed
anew in the same step, where they point now.

After the theft of a key take it away with --remove and say --restart: what was
signed before does not count any more, and versions begin anew on every node,
however high the thief has driven them.
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
    _add_carrying(verbs)


def _add_carrying(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sign = verbs.add_parser(
        "sign",
        help="add your signatures to a file that was carried here",
        description=(
            "Say what a file from --request asks for, and add the signatures of the keys in KEYDIR: of the "
            "channel keys to channels, of the master key to a statement of keys. Read what it says before "
            "you carry it on: whoever carried it could have changed it."
        ),
        allow_abbrev=False,
    )
    sign.add_argument("file", metavar="FILE", help="what --request wrote; signed in place")
    sign.add_argument("--keys", required=True, metavar="KEYDIR", help="the directory of your keys")
    sign.add_argument("--dry-run", action="store_true", help="say what it asks for, sign nothing")
    sign.add_argument("--json", action="store_true", help="print one JSON object")
    sign.set_defaults(perform=_sign)
    apply = verbs.add_parser(
        "apply",
        help="publish what was signed elsewhere",
        description="Publish what a file from --request asks for, when enough keys have signed it.",
        allow_abbrev=False,
    )
    apply.add_argument("file", metavar="FILE", help="what --request wrote, and others signed")
    add_target_arguments(apply)
    apply.set_defaults(perform=_apply)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    return int(args.perform(args))


def _renew(args: argparse.Namespace) -> int:
    terms = terms_of(args, renew=args.all)
    return perform(args, lambda repository, now: plan_renewal(repository, terms, now))


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
    changes = args.add or args.remove or args.restart or args.threshold is not None or args.days is not None
    if not changes:
        if args.request is not None:
            raise ConfigurationError("nothing is to be changed, so nothing is to be signed", hint="see --help")
        repository = Repository.open(store, keys, now)
        return _show(args, channels_of(repository).root)
    change = _change(args)
    made: list[KeyPlan] = []
    masters: tuple[Signer, ...] = ()
    if args.request is None and not args.dry_run:
        masters = (load_master_key(args.keys, keys.fqrn),)

    def make(repository: Repository) -> Bundle:
        plan = plan_keys(repository, change, now)
        made.append(plan)
        _talk_keys(console, plan)
        if plan.channels and args.request is None:
            enough_signers(keys, plan.root)
        return bundle_keys(repository, plan, masters)

    if args.request is not None or args.dry_run:
        repository = Repository.open(store, keys, now)
        bundle = make(repository)
        if args.request is not None and not args.dry_run:
            write_bundle(args.request, bundle)
            say_next(console, args.request, bundle)
    else:
        manifest = publish_statements((store, keys), make, now)
        console.step(f"{keys.fqrn} is at revision {manifest.revision}")
    plan = made[0]
    if args.json:
        said = _root_json(plan.root) | {"channels": [step_json(step) for step in plan.channels]}
        write_json(said | {"dry_run": args.dry_run, "request": args.request})
    else:
        for keyid in sorted(plan.root.keys):
            write(keyid)
    return 0


def _change(args: argparse.Namespace) -> KeyChange:
    days = ROOT_DAYS if args.days is None else args.days
    if not 1 <= days <= 3650:
        raise ConfigurationError(f"--days {days} is not from 1 to 3650")
    return KeyChange(
        add=tuple(_public(word) for word in args.add),
        remove=tuple(args.remove),
        threshold=args.threshold,
        days=days,
        restart=args.restart,
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
        write_json(_root_json(root))
        return 0
    write(f"{root.fqrn}: {_root_text(root)}")
    for keyid in sorted(root.keys):
        write(f"  {keyid}")
    return 0


def _root_text(root: Root) -> str:
    return (
        f"{root.threshold} of {counted(len(root.keys), 'key')} for each channel, version {root.version}, "
        f"until {root.expires:%Y-%m-%d}"
    )


def _root_json(root: Root) -> dict[str, Any]:
    return {
        "fqrn": str(root.fqrn),
        "version": root.version,
        "threshold": root.threshold,
        "keys": [{"id": keyid, "public": key.raw.hex()} for keyid, key in sorted(root.keys.items())],
        "issued": time_text(root.issued),
        "expires": time_text(root.expires),
        "restarted": time_text(root.restarted),
    }


def _talk_keys(console: Console, plan: KeyPlan) -> None:
    console.step(f"channel keys of {plan.root.fqrn}: {_root_text(plan.root)}")
    for word, ids in (
        ("adds", plan.root.keys.keys() - plan.before.keys.keys()),
        ("takes away", plan.before.keys.keys() - plan.root.keys.keys()),
    ):
        for keyid in sorted(ids):
            console.step(f"{word} {keyid}")
    if plan.root.restarted != plan.before.restarted:
        console.step("what was signed before does not count any more, and versions begin anew")
    talk(console, plan.channels)


def _read(path: str) -> Bundle:
    try:
        with open(path, "rb") as stream:
            data = stream.read(BUNDLE_LIMIT + 1)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > BUNDLE_LIMIT:
        raise CorruptError(f"{path} has more than the {BUNDLE_LIMIT} bytes it may have")
    return Bundle.from_bytes(data, where=path)


def _sign(args: argparse.Namespace) -> int:
    bundle = _read(args.file)
    console = Console(sys.stderr)
    channel_keys = load_channel_keys(args.keys, bundle.fqrn)
    masters: tuple[Signer, ...] = ()
    if bundle.root is not None and os.path.lexists(os.path.join(args.keys, f"{bundle.fqrn}.masterkey")):
        masters = (load_master_key(args.keys, bundle.fqrn),)
    for line in _asked(bundle):
        console.step(line)
    if not masters and not (bundle.pointers and channel_keys):
        raise KeyFileError(
            f"no key in {args.keys} can sign what {args.file} asks for",
            hint=f"it takes {bundle.fqrn}.channelkey for channels, and {bundle.fqrn}.masterkey for their keys",
        )
    used = _used(bundle, masters, channel_keys)
    for keyid in used:
        console.step(f"signs with {keyid}")
    if not args.dry_run:
        write_bundle(args.file, bundle.signed(masters, channel_keys))
    if args.json:
        said = [
            _root_json(each.statement) if isinstance(each.statement, Root) else pointer_json(each.statement)
            for each in bundle.statements
        ]
        write_json({"fqrn": str(bundle.fqrn), "statements": said, "keys": used, "dry_run": args.dry_run})
    else:
        write(args.file)
    return 0


def _used(bundle: Bundle, masters: tuple[Signer, ...], channel_keys: tuple[Ed25519Signer, ...]) -> list[str]:
    used = [f"the master key {signer.keyid}" for signer in masters] if bundle.root is not None else []
    return used + [f"the channel key {signer.keyid}" for signer in channel_keys if bundle.pointers]


def _asked(bundle: Bundle) -> list[str]:
    """Everything that a file asks to be signed, in full."""
    lines: list[str] = []
    for each in bundle.statements:
        match each.statement:
            case Root() as root:
                lines.append(f"channel keys of {root.fqrn}: {_root_text(root)}")
                lines += [f"  {keyid}" for keyid in sorted(root.keys)]
                lines.append(f"  what was signed before {time_text(root.restarted)} does not count")
            case Pointer() as pointer:
                lines.append(
                    f"{pointer.stack}@{pointer.channel} of {pointer.fqrn}: version {pointer.version}, "
                    f"{pointer.release} {pointer.digest}, "
                    f"{time_text(pointer.issued)} to {time_text(pointer.expires)}"
                )
    return lines


def _apply(args: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    bundle = _read(args.file)
    store, keys = target_of(args)
    console = Console(sys.stderr)
    told: list[Proven] = []

    def announce(proven: Proven) -> None:
        told.append(proven)
        if proven.root != proven.root_before:
            console.step(f"channel keys of {keys.fqrn}: {_root_text(proven.root)}")
        for pointer, before in proven.channels:
            talk(console, [Pointing(pointer=pointer, before=before)])
        if not proven.files:
            console.step("all of it is published already")

    if args.dry_run:
        repository = Repository.open(store, keys, now)
        announce(prove(repository, bundle, now))
        revision = repository.manifest.revision
    else:
        revision = publish_statements((store, keys), lambda _repository: bundle, now, announce).revision
        console.step(f"{keys.fqrn} is at revision {revision}")
    if args.json:
        said = {"fqrn": str(keys.fqrn), "revision": revision, "changes": bool(told[0].files)}
        channels = [pointer_json(pointer) for pointer, _ in told[0].channels]
        write_json(said | {"keys_version": told[0].root.version, "channels": channels, "dry_run": args.dry_run})
    else:
        write(str(revision))
    return 0
