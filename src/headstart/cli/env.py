"""``headstart env``: the settings of a session, for the user's own shell to take and to undo."""

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

from headstart import launch
from headstart.cli.reading import write_json
from headstart.cli.run import add_release_arguments, look_around, requested
from headstart.cli.starting import Launch, may_move
from headstart.errors import NamespaceError
from headstart.openscript import OPEN_LAUNCHER_PATH
from headstart.opensession import Changes, undone
from headstart.shellcode import SHELLS, shell_code

HELP = """\
Print settings that make julia a release's Julia, with the release behind what
is yours; your shell takes them, and takes them back:

  eval "$(headstart env SOURCE STACK)"        eval "$(headstart env --undo)"
  headstart env SOURCE STACK --shell fish | source
  eval "`headstart env SOURCE STACK --shell csh`"

SOURCE and STACK are as for 'headstart run'. Settings cannot show a release at
another path: where it must be at its own and is not mounted there, use
'headstart shell'.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_release_arguments(parser, nargs="?")
    parser.add_argument("--shell", choices=SHELLS, default="sh", help="whose words to print (default: sh)")
    parser.add_argument("--undo", action="store_true", help="print what takes the last settings back")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.usage = "headstart env (SOURCE STACK[@WHICH] | --undo) [OPTIONS]"


def run(args: argparse.Namespace) -> int:
    """Print the settings."""
    named = bool(args.source and args.reference)
    if named == args.undo or (args.source and not args.reference):
        sys.stderr.write(
            "headstart: name SOURCE and STACK, or give --undo; 'headstart env --help' explains them\n"
        )
        return 2
    if args.undo:
        changes = undone(os.environ)
        _print(changes, args, {})
        return 0
    request = requested(args)
    node = look_around(request)
    ready = Launch(request, node, node.question(request)).ready()
    release = ready.resolved.release
    if ready.root != release.fqrn.mountpoint and not may_move(ready):
        raise NamespaceError(
            f"{release.stack} {release.id} can only run as {release.path}, and settings cannot show it there",
            hint=f"mount the repository at {release.fqrn.mountpoint}, or use 'headstart shell'",
        )
    image, root = ready.selection.chosen, ready.root
    start = launch.session(release, image, root=root, seen=root, program=(), env=node.env)
    launch.check_needs(start)
    home = root + release.path.removeprefix(release.fqrn.mountpoint)
    more = {
        "stack": str(release.stack),
        "release": str(release.id),
        "target": image.target,
        "julia": f"{home}/{OPEN_LAUNCHER_PATH}",
        "julia_version": release.julia_version,
        "project": f"{home}/project",
    }
    _print(start.sets, args, more)
    return 0


def _print(changes: Changes, args: argparse.Namespace, more: Mapping[str, Any]) -> None:
    if args.json:
        write_json(
            {
                **more,
                "set": {name: value for name, value in changes.items() if value is not None},
                "unset": [name for name, value in changes.items() if value is None],
            }
        )
        return
    # Values are bytes that need not be text.
    sys.stdout.buffer.write(os.fsencode(shell_code(changes, args.shell)))
    sys.stdout.buffer.flush()
