"""``headstart history``: what channels pointed at, since when, and whose keys let them."""

import argparse
from datetime import UTC, datetime
from typing import Any

from headstart.channel import Believed
from headstart.channelhistory import Past, past_of
from headstart.cli.reading import (
    add_source_arguments,
    heading,
    open_from,
    time_text,
    title,
    write,
    write_json,
    write_lines,
)
from headstart.errors import ConfigurationError
from headstart.reference import NamedChannel, Reference, Unspecified

HELP = """\
List all that a channel ever pointed at, the newest first: version, when it was
signed and until when it is believed, release and digest, and the keys that
signed it. Each line is proven by a statement of keys that the master key
signed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source_arguments(parser)
    parser.add_argument("reference", metavar="STACK[@CHANNEL]", help="a channel; without it all of the stack")


def run(args: argparse.Namespace) -> int:
    """Print the list."""
    reference = Reference.parse(args.reference)
    choice = reference.choice
    if not isinstance(choice, NamedChannel | Unspecified):
        raise ConfigurationError(f"{args.reference!r} names no channel", hint="write STACK or STACK@CHANNEL")
    opened = open_from(args, datetime.now(UTC))
    found = past_of(opened, reference.stack, choice.name if isinstance(choice, NamedChannel) else None)
    if args.json:
        said = [
            {
                "stack": str(each.stack),
                "channel": str(each.channel),
                "history": [_json(past) for past in each.pasts],
            }
            for each in found
        ]
        write_json(heading(opened) | {"channels": said})
        return 0
    write_lines(title(opened))
    for each in found:
        write("")
        write(f"{each.stack}@{each.channel}")
        for past in each.pasts:
            for line in _text(past):
                write(line)
        if not each.pasts:
            write("  no history")
    return 0


def _text(past: Past) -> list[str]:
    if not isinstance(past.believed, Believed):
        return [f"  {past.path}: {past.believed}"]
    pointer = past.believed.pointer
    mark = "*" if past.present else " "
    by = ", ".join(keyid[:12] for keyid in past.believed.signers)
    times = f"{pointer.issued:%Y-%m-%d %H:%M} to {pointer.expires:%Y-%m-%d}"
    line = f"{mark} {pointer.version:>4}  {times}  {pointer.release}  sha256:{pointer.digest.hex[:12]}"
    return [line, f"        signed by {by}"]


def _json(past: Past) -> dict[str, Any]:
    if not isinstance(past.believed, Believed):
        return {"path": past.path, "problem": str(past.believed)}
    pointer = past.believed.pointer
    return {
        "path": past.path,
        "present": past.present,
        "version": pointer.version,
        "issued": time_text(pointer.issued),
        "expires": time_text(pointer.expires),
        "release": str(pointer.release),
        "digest": pointer.digest.hex,
        "keys": list(past.believed.signers),
        "keys_version": past.believed.root.version,
    }
