"""``headstart channel sign`` and ``apply``: statements that are carried to where keys are, and back."""

import argparse
import os
import sys
from datetime import UTC, datetime
from typing import Any

from headstart.bundle import BUNDLE_LIMIT, Bundle, Statement
from headstart.channel import Pointer, Root
from headstart.cli.pointing import (
    add_target_arguments,
    pointer_json,
    root_json,
    root_text,
    stated_json,
    talk,
    talk_stated,
    write_bundle,
)
from headstart.cli.reading import time_text, write, write_json
from headstart.cli.tags import target_of
from headstart.console import Console
from headstart.cvmfs.signing import Ed25519Signer, Signer
from headstart.errors import KeyFileError, StorageError
from headstart.keys import load_channel_keys, load_master_key
from headstart.namedfile import read_named
from headstart.releasestatement import ReleaseStatement
from headstart.repository import Repository
from headstart.repository.pointing import Pointing
from headstart.repository.statements import Proven, prove, publish_statements
from headstart.wording import counted


def add_carrying(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the two verbs."""
    sign = verbs.add_parser(
        "sign",
        help="add your signatures to a file that was carried here",
        description=(
            "Say what a file from --request asks for, and add the signatures of the keys in KEYDIR: of the "
            "channel keys to channels and releases, of the master key to a statement of keys. Read what it "
            "says before you carry it on: whoever carried it could have changed it."
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


def _read(path: str) -> Bundle:
    data = read_named(path, what="file to sign", limit=BUNDLE_LIMIT, error=StorageError)
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
    if not masters and not (bundle.asks_channel_keys and channel_keys):
        raise KeyFileError(
            f"no key in {args.keys} can sign what {args.file} asks for",
            hint=f"it takes {bundle.fqrn}.channelkey for channels and releases, and {bundle.fqrn}.masterkey "
            "for their keys",
        )
    used = _used(bundle, masters, channel_keys)
    for keyid in used:
        console.step(f"signs with {keyid}")
    if not args.dry_run:
        write_bundle(args.file, bundle.signed(masters, channel_keys))
    if args.json:
        said = [_statement_json(each.statement) for each in bundle.statements]
        write_json({"fqrn": str(bundle.fqrn), "statements": said, "keys": used, "dry_run": args.dry_run})
    else:
        write(args.file)
    return 0


def _statement_json(statement: Statement) -> dict[str, Any]:
    match statement:
        case Root():
            return root_json(statement)
        case Pointer():
            return pointer_json(statement)
        case ReleaseStatement():
            return stated_json(statement)


def _used(bundle: Bundle, masters: tuple[Signer, ...], channel_keys: tuple[Ed25519Signer, ...]) -> list[str]:
    used = [f"the master key {signer.keyid}" for signer in masters] if bundle.root is not None else []
    return used + [f"the channel key {signer.keyid}" for signer in channel_keys if bundle.asks_channel_keys]


def _asked(bundle: Bundle) -> list[str]:
    """Everything that a file asks to be signed, in full."""
    lines: list[str] = []
    for each in bundle.statements:
        match each.statement:
            case Root() as root:
                lines.append(f"channel keys of {root.fqrn}: {root_text(root)}")
                lines += [f"  {keyid}" for keyid in sorted(root.keys)]
                lines.append(f"  what was signed before {time_text(root.restarted)} does not count")
            case Pointer() as pointer:
                lines.append(
                    f"{pointer.stack}@{pointer.channel} of {pointer.fqrn}: version {pointer.version}, "
                    f"{pointer.release} {pointer.digest}, "
                    f"{time_text(pointer.issued)} to {time_text(pointer.expires)}"
                )
            case ReleaseStatement() as release:
                lines.append(
                    f"release {release.release} of {release.stack} in {release.fqrn}: {release.digest}, built "
                    f"{release.built}, {counted(len(release.packages), 'package')}, "
                    f"{counted(len(release.images), 'file')} of images"
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
            console.step(f"channel keys of {keys.fqrn}: {root_text(proven.root)}")
        for pointer, before in proven.channels:
            talk(console, [Pointing(pointer=pointer, before=before)])
        talk_stated(console, proven.releases)
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
        stated = [stated_json(each) for each in told[0].releases]
        said |= {"keys_version": told[0].root.version, "channels": channels, "stated": stated}
        write_json(said | {"dry_run": args.dry_run})
    else:
        write(str(revision))
    return 0
