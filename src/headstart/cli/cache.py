"""``headstart cache``: what is in the node's cache, what of it may go, and whether it is still what it was."""

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

from headstart import cachecheck, prune
from headstart.cache import Cache
from headstart.cli.reading import size_text, time_text, write, write_json
from headstart.cli.run import NO_HOME, cache_of, homeless
from headstart.console import Console
from headstart.errors import CacheError, ComplaintsError, ConfigurationError
from headstart.prune import Plan, Wish, of_units
from headstart.siteconfig import parse_size, read_site
from headstart.usage import Survey, Usage
from headstart.wording import counted

HELP = "Look after the node's cache: 'headstart cache VERB --help' explains a verb."
_DAY = 86400
_STATUS = """\
Say what is in the cache: each image that was started, when that was last, and
whether a job runs on it now. Files that several images share count once in the
total.
"""
_PRUNE = """\
Make the cache smaller: images that were started longest ago go first, each with
its release and its Julia where no other image needs them. What a job runs on
stays, whatever is asked for.

Say how far: --quota SIZE, else the quota that is set on this node
(HEADSTART_CACHE_QUOTA, cache_quota in config.toml); --unused-for DAYS for what
nobody has started since; --all for everything.
"""
_VERIFY = """\
Hash every file in the cache again, and compare it with the record of its
release. Ends with 26 if something is wrong; --repair lets that count no longer,
so that the next start fetches it anew.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text, line, perform in (
        ("status", _STATUS, "say what is in the cache, and who runs on it", _status),
        ("prune", _PRUNE, "take out what was started longest ago", _prune),
        ("verify", _VERIFY, "hash everything in it once more", _verify),
    ):
        verb = verbs.add_parser(
            name,
            help=line,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        verb.set_defaults(perform=perform)
        verb.add_argument("--cache", metavar="DIR", default="", help="the cache (default: ~/.cache/headstart)")
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        if name == "prune":
            how = verb.add_mutually_exclusive_group()
            how.add_argument("--quota", metavar="SIZE", default="", help="such as 20GB")
            how.add_argument(
                "--unused-for", metavar="DAYS", type=float, help="what was not started for so long"
            )
            how.add_argument("--all", action="store_true", help="all that nobody runs on")
            verb.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
        if name == "verify":
            verb.add_argument("--repair", action="store_true", help="have what is damaged fetched anew")


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    directory, _ = cache_of(args.cache, os.environ, os.geteuid())
    if directory.startswith(NO_HOME):
        raise homeless(os.geteuid())
    if not os.path.isdir(directory):
        raise CacheError(
            f"there is no cache in {directory}", hint="name its directory with --cache or HEADSTART_CACHE"
        )
    done: int = args.perform(args, directory, time.time())
    return done


def _quota(given: str) -> int | None:
    return parse_size(given, "--quota") if given else read_site(None, os.environ).cache_quota


def _status(args: argparse.Namespace, directory: str, now: float) -> int:
    surveys = prune.look(directory, uid=os.geteuid(), now=now)
    quota = _quota("")
    size = prune.plan(surveys, Wish(limit=sys.maxsize)).before
    if args.json:
        images = [_image(survey, now) for survey in surveys]
        write_json({"cache": directory, "bytes": size, "quota": quota, "repositories": images})
        return 0
    limit = "no quota" if quota is None else f"a quota of {size_text(quota)}"
    write(f"{directory}: {size_text(size)}, {limit}")
    for survey in surveys:
        working = ", somebody is fetching" if survey.at_work else ""
        write("")
        write(f"{survey.fqrn}{working}")
        for use in reversed(survey.uses):
            held = "in use now" if use.leased else f"started {_ago(now - use.last)} ago"
            place = use.needs[0].removeprefix("stacks/")
            here = size_text(of_units(survey, use)) if use.needs[0] in survey.units else "not here"
            write(f"  {place}  {here}  {held}")
        if survey.unnamed:
            write(f"  {counted(len(survey.unnamed), 'directory', 'directories')} that no image needs")
    return 0


def _ago(seconds: float) -> str:
    for unit, length in (("day", _DAY), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return counted(int(seconds // length), unit)
    return "less than a minute"


def _image(survey: Survey, now: float) -> dict[str, Any]:
    return {
        "fqrn": str(survey.fqrn),
        "fetching": survey.at_work,
        "images": [
            {
                "unit": use.needs[0],
                "needs": list(use.needs[1:]),
                "here": use.needs[0] in survey.units,
                "bytes": of_units(survey, use),
                "last_start": time_text(datetime.fromtimestamp(min(use.last, now), UTC)),
                "in_use": use.leased,
            }
            for use in survey.uses
        ],
        "unneeded": sorted(survey.unnamed),
    }


def _wish(args: argparse.Namespace, now: float) -> Wish:
    if args.all:
        return Wish(limit=0)
    if args.unused_for is not None:
        if not 0 <= args.unused_for <= 36500:
            raise ConfigurationError(f"--unused-for {args.unused_for:g} is no number of days from 0 to 36500")
        return Wish(limit=0, until=now - args.unused_for * _DAY)
    quota = _quota(args.quota)
    if quota is None:
        raise ConfigurationError(
            "no quota is set on this node", hint="say --quota SIZE, --unused-for DAYS, or --all"
        )
    return Wish(limit=quota)


def _prune(args: argparse.Namespace, directory: str, now: float) -> int:
    wish = _wish(args, now)
    uid = os.geteuid()
    if args.dry_run:
        done = prune.plan(prune.look(directory, uid=uid, now=now), wish)
    else:
        done = prune.apply(directory, wish, uid=uid, now=now)
    by_size = not args.all and args.unused_for is None
    if args.json:
        write_json(_plan_json(done, by_size, directory, dry_run=args.dry_run))
        return 0
    would = "would go" if args.dry_run else "gone"
    for departure in done.departures:
        for unit in departure.units:
            write(f"{departure.fqrn}/{unit}  {would}")
    for fqrn, unit in done.strays:
        write(f"{fqrn}/{unit}  {would}, no image needs it")
    left = "would be left" if args.dry_run else "left"
    write(f"{size_text(done.before)} before, {size_text(done.after)} {left}")
    if by_size and not done.enough:
        Console(sys.stderr).step(f"more than {size_text(done.limit)} is in use and stays")
    return 0


def _plan_json(done: Plan, by_size: bool, directory: str, *, dry_run: bool) -> dict[str, Any]:  # noqa: FBT001
    return {
        "cache": directory,
        "dry_run": dry_run,
        "bytes_before": done.before,
        "bytes_after": done.after,
        "quota": done.limit if by_size else None,
        "within_quota": done.enough if by_size else None,
        "in_use": done.leased,
        "removed": [
            {"fqrn": str(departure.fqrn), "unit": unit}
            for departure in done.departures
            for unit in departure.units
        ]
        + [{"fqrn": str(fqrn), "unit": unit} for fqrn, unit in done.strays],
    }


def _verify(args: argparse.Namespace, directory: str, now: float) -> int:
    uid = os.geteuid()
    said: list[cachecheck.Complaint] = []
    files = size = 0
    for survey in prune.look(directory, uid=uid, now=now):
        cache = Cache(directory, survey.fqrn, uid=uid)
        found = cachecheck.check(cache, survey)
        files, size = files + found.files, size + found.size
        said += found.complaints
        if args.repair and found.complaints:
            with Usage(cache, now).gate():
                cachecheck.repair(cache, survey, found)
    if args.json:
        complaints = [
            {"fqrn": str(one.fqrn), "unit": one.unit, "path": one.path, "what": one.what} for one in said
        ]
        write_json(
            {
                "cache": directory,
                "files": files,
                "bytes": size,
                "complaints": complaints,
                "repaired": args.repair,
            }
        )
    else:
        for one in said:
            write(f"{one.path} {one.what}")
        write(f"{counted(files, 'file')} of {size_text(size)} looked at, {counted(len(said), 'complaint')}")
    if said:
        hint = "" if args.repair else "--repair has it fetched anew"
        raise ComplaintsError(
            f"{directory} has {counted(len(said), 'thing')} that {'is' if len(said) == 1 else 'are'} not what "
            "the records say",
            hint="the next start fetches it anew" if args.repair else hint,
        )
    return 0
