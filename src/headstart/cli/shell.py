"""``headstart shell``: a session of the user's own, with a release behind what is the user's."""

import argparse
from collections.abc import Callable
from functools import partial

from headstart import launch
from headstart.cli.run import add_release_arguments, look_around, requested, say
from headstart.cli.starting import Launch, may_move, ways_of
from headstart.release import Release

HELP = """\
Start your shell with a release behind what is yours: julia is the release's
Julia with its image for this CPU, its packages and their compiled code are
found behind your own depots, and your projects stay your projects. Leave it
as you leave any shell. What comes after -- is run in place of the shell.

SOURCE and STACK are as for 'headstart run'. The path that a release was built
at is shown in a namespace where the repository is not mounted.
"""
_RUN = ("/bin/sh", "-c", 'exec "$@"', "sh")
"""Runs a command that is searched for in the session's own PATH."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the command's own are taken off before."""
    add_release_arguments(parser)
    parser.usage = "headstart shell SOURCE STACK[@WHICH] [OPTIONS] [-- COMMAND ...]"


def main(words: list[str], fallback: Callable[[list[str]], argparse.Namespace]) -> int:
    """Start the session.

    Args:
        words: behind ``shell``.
        fallback: reads all words but the command's.
    """
    end = words.index("--") if "--" in words else len(words)
    args = fallback(words[:end])
    args.args = tuple(words[end + 1 :])
    return run(args)


def run(args: argparse.Namespace) -> int:
    """Become the user's shell; returns only by an error."""
    request = requested(args)
    node = look_around(request)
    ready = Launch(request, node, node.question(request)).ready()
    program = (*_RUN, *request.args) if request.args else (node.env.get("SHELL") or "/bin/sh",)

    release, image, root = ready.resolved.release, ready.selection.chosen, ready.root
    begin = partial(launch.session, release, image, root=root, program=program, env=node.env)
    plain = begin(seen=release.fqrn.mountpoint)
    launch.check_needs(plain)
    moved = begin(seen=root) if may_move(ready) else None
    placed = launch.place(plain, ways_of(node.env, moved))
    if not request.args and not node.env.get("HEADSTART_QUIET"):
        say(_greeting(release, root if placed.start is moved else release.fqrn.mountpoint))
    launch.execute(placed.command((), node.env))


def _greeting(release: Release, seen: str) -> str:
    home = seen + release.path.removeprefix(release.fqrn.mountpoint)
    return (
        f"julia is Julia {release.julia_version} with {release.stack} behind your own depots;"
        f" the stack's project is {home}/project; leave with 'exit'"
    )
