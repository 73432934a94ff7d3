"""``headstart promote``: let a channel point at a release that is published already."""

import argparse

from headstart.cli.pointing import add_pointing_arguments, perform, terms_of
from headstart.names import ChannelName
from headstart.reference import Reference
from headstart.repository.pointing import plan_promotion

HELP = """\
Let a channel point at a release that is published already: another channel's
(jets@testing), or one named by id or digest (jets@sha256:...). Nothing is
copied, and jobs that run go on with what they have.

A channel that points there already is signed anew when less than half of its
time is left, or with --renew. Where channels need more signatures than there
are keys at hand, --request writes a file for the others to sign."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("reference", metavar="STACK@WHICH", help="the release")
    parser.add_argument("channel", metavar="CHANNEL", help="what is to point at it")
    parser.add_argument("--renew", action="store_true", help="sign anew, however fresh the pointer is")
    add_pointing_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Promote, or print the plan."""
    reference, channel = Reference.parse(args.reference), ChannelName(args.channel)
    terms = terms_of(args, renew=args.renew)
    return perform(args, lambda repository, now: [plan_promotion(repository, reference, channel, terms, now)])
