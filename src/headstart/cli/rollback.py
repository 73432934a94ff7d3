"""``headstart rollback``: let a channel point where it pointed before."""

import argparse

from headstart.cli.pointing import add_pointing_arguments, perform, terms_of
from headstart.errors import ConfigurationError
from headstart.reference import DigestPrefix, NamedChannel, Reference
from headstart.repository.pointing import plan_return

HELP = """\
Let a channel point at an earlier release again: the last other one of its
history (headstart history), or with --to any that is still in the repository.
It is a new pointer of a higher version, so nodes take it; jobs that run go on
with what they have, and a job that names its release by digest is not touched.
(headstart repo rollback takes the whole repository back instead.)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("channel", metavar="STACK@CHANNEL", help="what is to go back")
    parser.add_argument(
        "--to", metavar="DIGEST", help="the release: sha256:..., 8 or more digits of its digest, or its id"
    )
    add_pointing_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Go back, or print the plan."""
    reference = Reference.parse(args.channel)
    if not isinstance(reference.choice, NamedChannel):
        raise ConfigurationError(f"{args.channel!r} names no channel", hint="write STACK@CHANNEL")
    channel = (reference.stack, reference.choice.name)
    to = None
    if args.to is not None:
        choice = Reference.parse(f"{reference.stack}@{args.to}").choice
        if not isinstance(choice, DigestPrefix):
            raise ConfigurationError(
                f"--to {args.to} is no digest", hint="to follow another channel: headstart promote"
            )
        to = choice
    terms = terms_of(args)
    return perform(args, lambda repository, now: [plan_return(repository, channel, to, terms, now)])
