"""``headstart repo status``: how a repository is, and what of it expires when."""

import argparse
import sys
from datetime import UTC, datetime, timedelta

from headstart.cli.reading import (
    add_source_arguments,
    anchors_of,
    heading,
    size_text,
    source_of,
    time_text,
    title,
    write,
    write_json,
)
from headstart.cli.writing import write_whole
from headstart.errors import ConfigurationError, TrustError
from headstart.status import State, Status, look, metrics
from headstart.wording import counted

_DAYS = 7
_WORDS = {State.GOOD: "good until", State.SOON: "expires soon, on", State.EXPIRED: "EXPIRED on"}


def add_status(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare ``repo status``."""
    parser = verbs.add_parser(
        "status",
        help="say how a repository is and what of it expires when",
        description=(
            "Say how a repository is: revision, last publication, tags, size, and when the whitelist, the "
            f"certificate and each channel expire. The exit code is {TrustError.exit_code} when one of these "
            "has expired or a channel cannot be believed. CVMFS clients look at the whitelist's date, and "
            "not at the certificate's."
        ),
        allow_abbrev=False,
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--warn-days",
        type=int,
        default=_DAYS,
        metavar="N",
        help="call it soon when fewer days are left (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics", metavar="FILE", help="write it as Prometheus text too, for the textfile collector"
    )
    parser.set_defaults(perform=_status)


def _status(args: argparse.Namespace) -> int:
    if not 0 <= args.warn_days <= 3650:
        raise ConfigurationError(f"--warn-days {args.warn_days} is not from 0 to 3650")
    now = datetime.now(UTC)
    status = look(source_of(args), anchors_of(args), now=now, warning=timedelta(days=args.warn_days))
    if args.metrics is not None:
        write_whole(args.metrics, metrics(status, now=now).encode())
    if args.json:
        write_json(_json(status))
    else:
        _print(status)
    expired = [item for item in status.expiries if item.state is not State.GOOD]
    for item in expired:
        sys.stderr.write(
            f"headstart: {_subject(item.what, item.name)} {_WORDS[item.state]} {item.when:%Y-%m-%d}\n"
        )
    bad = status.worst is State.EXPIRED or bool(status.problems)
    return TrustError.exit_code if bad else 0


def _subject(what: str, name: str) -> str:
    return f"{what} {name}".rstrip()


def _print(status: Status) -> None:
    write(title(status.opened))
    write(f"published  {time_text(status.published)}")
    write(f"tags       {status.tags}")
    write(f"content    {counted(status.entries, 'entry', 'entries')}, {size_text(status.size)}")
    for item in status.expiries:
        write(f"{_subject(item.what, item.name)}: {_WORDS[item.state]} {item.when:%Y-%m-%d %H:%M} UTC")
    for name, error in status.problems:
        write(f"channel {name}: {error}")


def _json(status: Status) -> dict[str, object]:
    return heading(status.opened) | {
        "published": time_text(status.published),
        "tags": status.tags,
        "entries": status.entries,
        "files": status.files,
        "bytes": status.size,
        "state": str(status.worst),
        "expiries": [
            {
                "what": item.what,
                "name": item.name or None,
                "when": time_text(item.when),
                "state": str(item.state),
            }
            for item in status.expiries
        ],
        "problems": [{"channel": name, "text": str(error)} for name, error in status.problems],
    }
