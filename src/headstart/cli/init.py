"""``headstart init``."""

import argparse
import os
import shlex
import sys

from headstart.build.examine import examine
from headstart.build.sources import Copied, read_project
from headstart.cli.findings import lines, to_json
from headstart.errors import ConfigurationError
from headstart.init import SCRIPTS, Look, apply, plan, refuse_existing
from headstart.lint import lint
from headstart.lockchoice import first, locks_of_any_julia
from headstart.machine import cpu_flags, depots, read_text
from headstart.record import canonical

HELP = """Look at a Julia project and write Headstart.toml beside its Project.toml.

The project needs its lock, Manifest.toml. An existing Headstart.toml is never
overwritten. What in the project may not go well with a release is said on
standard error, with what to do about it, and then what to type next."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("project", metavar="PROJECT", help="directory of a Julia project with its lock")
    parser.add_argument("--dry-run", action="store_true", help="print the file and write nothing")
    parser.add_argument("--json", action="store_true", help="print the file and the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Look, decide, and unless it is a dry run, write."""
    root = os.path.abspath(args.project)
    if not os.path.isdir(root):
        raise ConfigurationError(f"there is no directory {root}", hint="name the directory of a Julia project")
    refuse_existing(root)
    # No stage is there yet; a hidden directory is no part of a project anyway.
    names = os.listdir(root)
    locks = locks_of_any_julia(names)
    # Without a lock of its own it may share the one of a workspace.
    project = read_project(root, os.path.join(root, ".stage"), locks, workspaces=not first(locks, names))
    findings = lint(examine(project, root, depots(os.environ)))
    scripts = {
        path: read_text(source.origin, "it was there just now", "")
        for path in SCRIPTS
        if isinstance(source := project.files.get(path), Copied)
    }
    beginning = plan(
        Look(
            directory=os.path.realpath(root),
            project=project.project,
            lock=project.lock,
            scripts=scripts,
            cpu=cpu_flags(),
            findings=findings,
        )
    )
    if not args.dry_run:
        apply(beginning)
    following = (
        f"headstart build {shlex.quote(args.project)} --stage stage --repository julia.example.org --dry-run"
    )
    if args.json:
        said = {
            "path": beginning.path,
            "text": beginning.text,
            "written": not args.dry_run,
            "findings": to_json(findings),
            "next": following,
        }
        sys.stdout.buffer.write(canonical(said))
        return 0
    sys.stdout.write(beginning.text if args.dry_run else f"{beginning.path}\n")
    sys.stdout.flush()
    talk = [*lines(findings), f"next       {following}"]
    sys.stderr.write("\n".join(talk) + "\n")
    return 0
