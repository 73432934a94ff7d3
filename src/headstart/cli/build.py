"""``headstart build``."""

import argparse
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

from headstart.build import BuildPlan, Built, Inputs, Means, Request, Stage, apply, gather, plan
from headstart.build.examine import examine
from headstart.build.trees import git_tree
from headstart.cli.findings import lines, to_json
from headstart.console import Console
from headstart.errors import UnknownError
from headstart.julia import Archive
from headstart.lint import Finding, lint
from headstart.machine import depots, find_compiler, may_become_another
from headstart.names import Fqrn, Sha256
from headstart.official import OfficialBuilds
from headstart.process import run_process
from headstart.published import release as find_release
from headstart.record import canonical
from headstart.release import Release
from headstart.siteconfig import read_site
from headstart.source import Anchors, open_source, parse

HELP = """Build a release of a Julia project into a staging directory.

The project's Manifest.toml is the lock: nothing is resolved anew. One system
image is built for each target, checked, and started once; it must then compile
nothing. The release's id is known before the build, from its inputs, and a
release that is already staged is not built again.

Julia is the one of --julia, else of HEADSTART_JULIA; else julia in
Headstart.toml decides: a version ("1.10", "1.10.6") is the official build,
fetched once, kept and named in the plan by its SHA-256; "system" is the one on
the PATH; a path is that program."""

_MOST = 5
"""How many findings of one rule a build mentions."""
_NETWORK = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "julia_pkg_server",
            "julia_ssl_ca_roots_path", "julia_ssl_no_verify_hosts", "julia_pkg_use_cli_git")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("project", metavar="PROJECT", help="directory with Headstart.toml and a locked project")
    parser.add_argument("--stage", metavar="DIR", required=True, help="staging directory, made when missing")
    parser.add_argument(
        "--repository", metavar="FQRN", required=True, help="name of the repository it will be published in"
    )
    parser.add_argument(
        "--target", metavar="T", action="append", default=[], help="build for this level only; may be repeated"
    )
    parser.add_argument(
        "--julia", metavar="PATH", default="", help="the Julia to build with and to ship, or its .tar.gz"
    )
    parser.add_argument(
        "--refresh", action="store_true", help="look for a newer official Julia than the one kept"
    )
    parser.add_argument(
        "--published", metavar="SOURCE", default="", help="build nothing that this repository has already"
    )
    parser.add_argument(
        "--key", metavar="PUB", action="append", default=[], help="public key to trust for --published"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and do nothing")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(args: argparse.Namespace) -> int:
    """Plan, and unless it is a dry run, build."""
    request = Request(
        project=args.project,
        stage=args.stage,
        fqrn=Fqrn(args.repository),
        targets=tuple(args.target),
        julia=args.julia,
        refresh=args.refresh,
    )
    console = Console(sys.stderr)
    Stage(args.stage).check()  # before Julia is asked, and also when nothing will be done
    env = dict(os.environ)
    inputs, install = gather(request, env, run_process, official_builds(env, console))
    todo = plan(inputs)
    known = _published(args, todo)
    findings = lint(examine(inputs.project, args.project, depots(env), install))
    if args.dry_run:
        return _preview(args, todo, findings, published=known is not None)
    if known is not None:
        console.step(f"{inputs.settings.name} {todo.id} is already published: nothing to build")
        return _tell(args, Built(release=known[0], digest=known[1], path=known[0].path, new=False))
    for line in todo.lines():
        console.note(f"           {line}")
    for line in lines(findings, most=_MOST):
        console.note(f"           {line}")
    means = Means(
        install=install,
        compiler=find_compiler(env),
        depots=depots(env),
        network={name: value for name, value in env.items() if name.lower() in _NETWORK},
        run=run_process,
        console=console,
        now=datetime.now(UTC),
        privileged=may_become_another(),
        parallel=max(1, len(os.sched_getaffinity(0))),
    )
    with Stage(args.stage) as stage:
        built = apply(todo, stage, means)
    return _tell(args, built)


def official_builds(env: Mapping[str, str], console: Console) -> OfficialBuilds:
    """The user's official builds of Julia."""
    caches = env.get("XDG_CACHE_HOME") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".cache")
    return OfficialBuilds(
        os.path.abspath(os.path.join(caches, "headstart", "julia")),
        versions=env.get("HEADSTART_JULIA_VERSIONS", ""),
        env=env,
        run=run_process,
        digest=git_tree,
        say=console.step,
    )


def _preview(
    args: argparse.Namespace, todo: BuildPlan, findings: tuple[Finding, ...], *, published: bool
) -> int:
    """Print the plan and what was found in the project."""
    settings = todo.inputs.settings
    staged = Stage(args.stage).staged(settings.name, todo.id) is not None
    if args.json:
        said = {
            "stack": str(settings.name),
            "release": str(todo.id),
            "path": todo.path,
            "julia": str(todo.julia),
            "julia_archive": archive_of(todo.inputs),
            "packages": [package.name for package in todo.packages],
            "targets": [one.level for one in todo.inputs.targets],
            "findings": to_json(findings),
            "staged": staged,
            "published": published,
        }
        sys.stdout.buffer.write(canonical(said))
        return 0
    told = list(todo.lines())
    told += [
        f"{name:<10} already: there is nothing to build"
        for name, known in (("staged", staged), ("published", published))
        if known
    ]
    told += lines(findings)
    sys.stdout.write("\n".join(told) + "\n")
    return 0


def archive_of(inputs: Inputs) -> dict[str, str] | None:
    """The official archive of the Julia, for JSON."""
    origin = inputs.origin
    return {"url": origin.url, "sha256": origin.sha256.hex} if isinstance(origin, Archive) else None


def _published(args: argparse.Namespace, todo: BuildPlan) -> tuple[Release, Sha256] | None:
    """The release, if the repository that the user names has it."""
    if not args.published:
        return None
    site_of = partial(read_site, env=os.environ)
    anchors = Anchors(keys=tuple(args.key), fqrn=todo.inputs.fqrn, site_of=site_of)
    opened = open_source(parse(args.published, site_of), anchors, now=datetime.now(UTC))
    try:
        return find_release(opened.tree, todo.inputs.settings.name, todo.id)
    except UnknownError:
        return None


def _tell(args: argparse.Namespace, built: Built) -> int:
    """Print the outcome."""
    outcome = {
        "stack": str(built.release.stack),
        "release": str(built.release.id),
        "digest": built.digest.hex,
        "path": built.path,
        "built": built.new,
    }
    if args.json:
        sys.stdout.buffer.write(canonical(outcome))
    else:
        sys.stdout.write(f"{outcome['stack']} {outcome['release']} {built.digest}\n{outcome['path']}\n")
    return 0
