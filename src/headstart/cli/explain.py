"""``headstart explain``: whether Julia will take the caches of a depot or a release, and why not."""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable
from typing import Any, Final, assert_never
from uuid import UUID

from headstart.cli.reading import write, write_json
from headstart.errors import ComplaintsError, ConfigurationError, MissingError
from headstart.explain import OUTCOMES, Plan, Report, explain, plan, plan_release
from headstart.julia import JuliaVersion
from headstart.machine import cpu_flags, describe_julia, find_julia, read_text
from headstart.microarchitecture import flags_of, select
from headstart.process import run_process
from headstart.reasons import TEACHINGS, Rejection
from headstart.release import RELEASE_FILE, Release
from headstart.session import Session
from headstart.staleness import Doubt, Fresh
from headstart.verdicts import Accepted, Candidate, Rejected, Uncached, Undecided, Unnamed, Verdict
from headstart.wording import counted

HELP = """\
Say for each package of a depot, or of a release, whether Julia will take its
cache, and if not which of its rules rejects it.

WHERE is one or several depots in the order of JULIA_DEPOT_PATH, or the
directory of one release, staged or mounted. Nothing is compiled or loaded: a
Julia is only asked what it is, or not even that with --description.
What comes after -- are options of the session's Julia, such as -O3 or -J IMAGE.

Exit code 0: every cache will be taken; 26: not every one. docs/explain.md
has each reason, and what to do about it.
"""
_WIDTH: Final = 100


def main(words: list[str], parse: Callable[[list[str]], argparse.Namespace]) -> int:
    """Run the command; the words after ``--`` are Julia's."""
    place = words.index("--") if "--" in words else len(words)
    return _run(parse(words[:place]), tuple(words[place + 1 :]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("where", metavar="WHERE", nargs="*", help="depots in order, or a release's directory")
    julia = parser.add_mutually_exclusive_group()
    julia.add_argument(
        "--julia", metavar="PROGRAM", help="the session's Julia (default: as headstart build finds it)"
    )
    julia.add_argument(
        "--description", metavar="FILE", help="what --describe has written, where there is no Julia"
    )
    parser.add_argument(
        "--describe", action="store_true", help="only print the description of that Julia, as JSON"
    )
    parser.add_argument("--project", metavar="DIR", default="", help="the session's project")
    parser.add_argument(
        "--load-path",
        metavar="LIST",
        default="",
        help="the session's JULIA_LOAD_PATH (default: @:@v#.#:@stdlib)",
    )
    parser.add_argument("--target", metavar="LEVEL", help="of a release: the image to look at")
    parser.add_argument("--cpuinfo", metavar="FILE", help="/proc/cpuinfo of the node that the session is for")
    parser.add_argument(
        "--only", action="store_true", help="do not add the depot that comes with Julia at the end"
    )
    parser.add_argument(
        "--checksums", action="store_true", help="read all native code and check its checksum, as Julia does"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _run(args: argparse.Namespace, options: tuple[str, ...]) -> int:
    if args.describe:
        _only_describes(args)
        sys.stdout.buffer.write(_session(args, options).to_bytes())
        return 0
    if not args.where:
        raise ConfigurationError("nothing to explain", hint="name depots, or the directory of a release")
    places = [os.path.abspath(path) for path in args.where]
    released = [path for path in places if os.path.isfile(os.path.join(path, RELEASE_FILE))]
    planned = _release(args, options, places) if released else _depots(args, options, places)
    report = explain(planned)
    if args.json:
        write_json(_json(planned, report))
    else:
        for line in _text(planned, report):
            write(line)
    return 0 if report.good else ComplaintsError.exit_code


def _only_describes(args: argparse.Namespace) -> None:
    if args.where or args.description:
        raise ConfigurationError(
            "--describe only describes a Julia", hint="name it with --julia, and its options after --"
        )


def _depots(args: argparse.Namespace, options: tuple[str, ...], places: list[str]) -> Plan:
    if args.target:
        raise ConfigurationError("--target goes with a release's directory, and these are depots")
    return plan(
        _on_cpu(args, _session(args, options)),
        places,
        project=os.path.abspath(args.project) if args.project else "",
        load_path=tuple(part for part in args.load_path.split(":") if part),
        bundled=not args.only,
        whole=args.checksums,
    )


def _release(args: argparse.Namespace, options: tuple[str, ...], places: list[str]) -> Plan:
    if len(places) != 1:
        raise ConfigurationError("one release at a time, and without other depots")
    if args.project or args.load_path or args.only:
        raise ConfigurationError(
            "a release brings its own project, load path and depots",
            hint="leave out --project, --load-path and --only",
        )
    (place,) = places
    with open(os.path.join(place, RELEASE_FILE), "rb") as file:
        release = Release.from_bytes(file.read())
    home = release.path.removeprefix(release.fqrn.mountpoint)
    if not place.endswith(home):
        raise ConfigurationError(
            f"{place} is not where release {release.id} belongs: {home} below its stage or its mountpoint"
        )
    root = place.removesuffix(home)
    here = (
        flags_of(read_text(args.cpuinfo, "no CPU to look at", "copy it from the node"))
        if args.cpuinfo
        else cpu_flags()
    )
    image = select(here, release.images, args.target).chosen
    if args.julia or args.description:
        session = _session(args, options)
    else:
        julia = root + release.julia_path.removeprefix(release.fqrn.mountpoint)
        program = f"{julia}/{release.julia_executable}"
        if not os.path.isfile(program):
            raise MissingError(
                f"{program} is not there", hint="describe the release's Julia, and give --description"
            )
        argv = (
            program,
            *(word for part in image.system for word in ("-J", f"{place}/{part.path}")),
            *release.julia_options,
            *options,
        )
        libraries = tuple(f"{julia}/{path}" for path in release.julia_library_path)
        version = JuliaVersion.parse(release.julia_version)
        session = describe_julia(argv, version, libraries, dict(os.environ), run_process)
    return plan_release(_on_cpu(args, session), release, image, root, whole=args.checksums)


def _session(args: argparse.Namespace, options: tuple[str, ...]) -> Session:
    if args.description:
        if options:
            raise ConfigurationError(
                "options of Julia belong to its description", hint="give them to --describe, after --"
            )
        text = read_text(
            args.description, "no description to look at", "write one with headstart explain --describe"
        )
        return Session.from_bytes(text.encode(), args.description)
    env = dict(os.environ)
    install = find_julia(args.julia or "", "", env, run_process)
    return describe_julia(
        (install.program, *options), install.probe.version, install.library_path, env, run_process
    )


def _on_cpu(args: argparse.Namespace, session: Session) -> Session:
    if not args.cpuinfo:
        return session
    return session.on_cpu(flags_of(read_text(args.cpuinfo, "no CPU to look at", "copy it from the node")))


# For people


def _text(planned: Plan, report: Report) -> list[str]:
    lines = [f"Julia {planned.session.front.version}, {planned.session.system_image}"]
    lines += [f"  depot  {depot}" for depot in planned.depots]
    if planned.project:
        lines.append(f"  project  {planned.project}")
    lines.append("")
    names = [verdict.package.name for verdict in report.verdicts]
    width = max((len(name) for name in names), default=0)
    for verdict in report.verdicts:
        word = OUTCOMES[type(verdict.outcome)]
        lead = f"{verdict.package.name:<{width}}  {word:<8}"
        told = _told(verdict)
        lines += textwrap.wrap(
            f"{lead}  {told}" if told else lead,
            _WIDTH,
            subsequent_indent=" " * 6,
            break_on_hyphens=False,
            break_long_words=False,
        )
    lines += [f"note: {note}" for note in report.notes]
    return [
        *lines,
        *([""] if report.verdicts or report.notes else []),
        _summary(planned, report),
        *_advice(report),
    ]


def _told(verdict: Verdict) -> str:
    match verdict.outcome:
        case Accepted():
            return ""
        case Rejected(reason=reason):
            more = len(verdict.candidates) - 1
            others = f" ({counted(more, 'more cache')}, rejected too)" if more else ""
            return f"{_words(reason)}{others}"
        case Uncached():
            return "it has no cache in these depots: Julia would compile it, or include its source"
        case Unnamed():
            return "no environment of the session names it: its caches are never looked at"
        case Undecided(reasons=reasons):
            return "not known: " + "; ".join(reasons)
        case _:
            assert_never(verdict.outcome)


def _words(reason: Rejection) -> str:
    teaching = TEACHINGS[reason.rule]
    return f"[{teaching.number} {reason.rule}] {teaching.said}: {reason.detail}"


def _summary(planned: Plan, report: Report) -> str:
    counts = report.counts
    parts = [f"{counts['accepted']} accepted"]
    parts += [f"{counts[word]} {word}" for word in ("rejected", "missing", "unknown", "unused") if counts[word]]
    if report.in_system_image:
        parts.append(f"{report.in_system_image} in the system image")
    unread = "" if planned.whole or not planned.rules.native else "; checksums of native code not looked at"
    return f"{counted(len(report.verdicts), 'package')}: {', '.join(parts)}{unread}"


def _advice(report: Report) -> list[str]:
    rules = {
        verdict.outcome.reason.rule: None
        for verdict in report.verdicts
        if isinstance(verdict.outcome, Rejected)
    }
    return [f"  {rule}: {TEACHINGS[rule].advice}" for rule in rules]


# For programs


def _json(planned: Plan, report: Report) -> dict[str, Any]:
    session = planned.session
    return {
        "julia": session.front.version,
        "system_image": session.system_image,
        "depots": list(planned.depots),
        "project": planned.project,
        "good": report.good,
        **report.counts,
        "in_system_image": report.in_system_image,
        "native_checksums": planned.whole,
        "packages": [_package(verdict) for verdict in report.verdicts],
        "notes": list(report.notes),
    }


def _package(verdict: Verdict) -> dict[str, Any]:
    outcome = verdict.outcome
    said: dict[str, Any] = {
        "name": verdict.package.name,
        "uuid": str(UUID(int=verdict.package.uuid)) if verdict.package.uuid else "",
        "outcome": OUTCOMES[type(outcome)],
        "caches": [_candidate(candidate) for candidate in verdict.candidates],
    }
    match outcome:
        case Accepted(path=path, build=build):
            said |= {"cache": path, "build_id": f"{build.build_id:x}"}
        case Rejected(path=path, reason=reason):
            said |= {"cache": path, **_reason(reason)}
        case Undecided(path=path, reasons=reasons):
            said |= {"cache": path, "not_known": list(reasons)}
        case Uncached() | Unnamed():
            pass
        case _:
            assert_never(outcome)
    return said


def _candidate(candidate: Candidate) -> dict[str, Any]:
    said: dict[str, Any] = {"cache": candidate.path}
    match candidate.finding:
        case Fresh(build=build):
            return said | {"outcome": "accepted", "build_id": f"{build.build_id:x}"}
        case Doubt(reasons=reasons):
            return said | {"outcome": "unknown", "not_known": list(reasons)}
        case Rejection() as reason:
            return said | {"outcome": "rejected", **_reason(reason)}
        case _:
            assert_never(candidate.finding)


def _reason(reason: Rejection) -> dict[str, Any]:
    teaching = TEACHINGS[reason.rule]
    return {
        "rule": str(reason.rule),
        "number": teaching.number,
        "said": teaching.said,
        "detail": reason.detail,
        "advice": teaching.advice,
    }
