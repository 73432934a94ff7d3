"""Beginning with a project: what ``Headstart.toml`` should say, found by looking at it.

``plan`` decides from what was read and gives the file's text; ``apply`` writes it where nothing is yet.
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from headstart.errors import ConfigurationError, StorageError
from headstart.julia import JuliaVersion
from headstart.juliasource import code
from headstart.lint import Finding, Rule
from headstart.microarchitecture import LEVELS
from headstart.names import StackName
from headstart.project import SETTINGS_FILE, ImageKind, Lock, Project, Settings, quoted

WORKLOADS: Final = ("workload.jl", "precompile/workload.jl", "test/workload.jl", "precompile_workload.jl")
SMOKES: Final = ("smoke.jl", "test/smoke.jl")
TESTS: Final = "test/runtests.jl"
"""Mentioned, never chosen: tests need more than the project does, and run for long."""
SCRIPTS: Final = (*WORKLOADS, *SMOKES, TESTS)
_MANY: Final = 100
"""Packages from which on package images are proposed: each job then uses a part of them."""
_WANTED_LEVELS: Final = ("x86-64", "x86-64-v3")
_USING: Final = re.compile(r"^[ \t]*(?:using|import)[ \t]+((?:[^\n;]*,[ \t]*\n)*[^\n;]*)", re.MULTILINE)
_ASKS: Final = re.compile(r"\bARGS\b|\breadline\(|\bstdin\b")
_STANDARD: Final = frozenset(
    {
        "Base", "Core", "Main", "Base64", "Dates", "DelimitedFiles", "Distributed", "Downloads",
        "InteractiveUtils", "LinearAlgebra", "Logging", "Markdown", "Mmap", "Pkg", "Printf", "Profile",
        "Random", "REPL",
        "Serialization", "SHA", "SharedArrays", "Sockets", "SparseArrays", "Statistics", "Test", "TOML",
        "Unicode", "UUIDs",
    }
)  # fmt: skip
"""What a script may load although the project does not depend on it: it comes with Julia."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen of a project."""

    directory: str
    """Absolute path."""
    project: Project
    lock: Lock
    scripts: Mapping[str, str]
    """Texts of those of ``SCRIPTS`` that the project has."""
    cpu: frozenset[str]
    """The features of this machine's CPU."""
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What is to be written."""

    path: str
    text: str
    settings: Settings
    """The text, read back."""


def plan(look: Look) -> Beginning:
    """Decide what the file should say."""
    workload, smoke, remarks = _scripts(look)
    parts = [
        "# What `headstart build` makes of this project. Every key: docs/projects.md.\n",
        f"# The name that the stack is published by.\nname = {quoted(stack_name(look))}\n",
        "\n".join(_julia(look)),
        "\n".join(_targets(look)),
        "\n".join(_image(look)),
    ]
    if workload:
        parts.append(
            f"# Run while building: what it compiles is in the image.\nworkload = {quoted(workload)}\n"
        )
    if smoke:
        parts.append(f"# Run after building: it must compile nothing.\nsmoke = {quoted(smoke)}\n")
    if not workload:
        parts.append(
            "# A script that does what jobs do, quickly: what it compiles comes into the image, and a job\n"
            '# compiles what is missing there.\n# workload = "workload.jl"\n'
        )
    parts += [f"# {remark}\n" for remark in remarks]
    text = "\n".join(parts)
    path = os.path.join(look.directory, SETTINGS_FILE)
    return Beginning(path=path, text=text, settings=Settings.parse(text, path))


def stack_name(look: Look) -> str:
    """A name for the stack: the package's, else the directory's, in the letters that a stack may have."""
    for text in (look.project.name, os.path.basename(look.directory).removesuffix(".jl")):
        name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).lstrip("._-")[:63].rstrip("._-")
        if name:
            return str(StackName(name))
    return "stack"


def _julia(look: Look) -> list[str]:
    said = look.lock.julia
    version = JuliaVersion.parse(said) if said else None
    if version is None:
        return [
            '# The lock does not say which Julia resolved it: "system" is the one on the PATH.',
            '# A version, such as "1.10", is the official build, the same on every machine.',
            'julia = "system"\n',
        ]
    if "DEV" in version.prerelease:
        return [f"# The lock is of Julia {version}, of which there is no official build.", 'julia = "system"\n']
    wanted = str(version) if version.prerelease else f"{version.major}.{version.minor}"
    newest = "" if version.prerelease else f", the newest {wanted}"
    return [
        f"# The lock is of Julia {said}. A version is the official build{newest}; others: a version in full,",
        '# "system" for the one on the PATH, or the path of a program.',
        f"julia = {quoted(wanted)}\n",
    ]


def _targets(look: Look) -> list[str]:
    levels = [level for level in _WANTED_LEVELS if LEVELS[level] <= look.cpu] or [_WANTED_LEVELS[0]]
    lines = ["# One image for each; a node takes the most demanding one that its CPU allows."]
    if len(levels) < len(_WANTED_LEVELS):
        lines.append(f"# This machine cannot build {_WANTED_LEVELS[-1]}.")
    return [*lines, f"targets = {json.dumps(levels)}\n"]


def _image(look: Look) -> list[str]:
    count = len(look.lock.compiled(look.project))
    version = JuliaVersion.parse(look.lock.julia) if look.lock.julia else None
    # Julia 1.11.0 and 1.11.1 record package images wrongly (JuliaLang/julia#56177).
    good = version is not None and (version.major, version.minor) >= (1, 9)
    good = good and look.lock.julia not in ("1.11.0", "1.11.1")
    forbidden = any(one.rule is Rule.NO_CACHE for one in look.findings)
    kind = ImageKind.PACKAGES if good and count > _MANY and not forbidden else ImageKind.SYSTEM
    why = {
        ImageKind.PACKAGES: f"# {count} packages, of which a job uses a part: one image for each package.",
        ImageKind.SYSTEM: "# Everything in one image, the fastest start.",
    }[kind]
    other = ImageKind.SYSTEM if kind is ImageKind.PACKAGES else ImageKind.PACKAGES
    return [why, f'# The other kinds are "{other}" and "both" (docs/images.md).', f"image = {quoted(kind)}\n"]


def _scripts(look: Look) -> tuple[str, str, list[str]]:
    """The workload, the smoke script, and a remark on each script that was left out."""
    chosen, remarks = [], []
    for names in (WORKLOADS, SMOKES):
        found = [name for name in names if name in look.scripts]
        good = [name for name in found if not _unfit(look, name)]
        chosen.append(good[0] if good else "")
        remarks += [f"Not used: {name}, which {_unfit(look, name)}." for name in found if name not in good]
    if TESTS in look.scripts and not chosen[0]:
        remarks.append(f"{TESTS} is no workload by itself: tests do more than jobs, and take longer.")
    return chosen[0], chosen[1], remarks


def _unfit(look: Look, name: str) -> str:
    """Why a script cannot be run by a build as it is; empty when nothing speaks against it."""
    blanked = code(look.scripts[name])
    if _ASKS.search(blanked):
        return "wants arguments or input"
    known = {*look.project.dependencies, look.project.name, *_STANDARD}
    loaded = {
        part.strip().partition(":")[0].partition(" as ")[0].strip().partition(".")[0]
        for found in _USING.finditer(blanked)
        for part in _parts(found[1])
    }
    missing = sorted(name for name in loaded if name and name not in known)
    return f"loads {', '.join(missing)}, on which the project does not depend" if missing else ""


def _parts(text: str) -> list[str]:
    """The modules of a ``using``: what follows a colon are names in the one before it."""
    return [text] if ":" in text else text.split(",")


def refuse_existing(directory: str) -> None:
    """Look whether the file is there already.

    Raises:
        ConfigurationError: it is.
    """
    path = os.path.join(directory, SETTINGS_FILE)
    if os.path.lexists(path):
        raise ConfigurationError(
            f"{path} is there already, and is never overwritten", hint="edit it, or move it away and try again"
        )


def apply(beginning: Beginning) -> None:
    """Write the file.

    Raises:
        ConfigurationError: there is one already.
        StorageError: it cannot be written; nothing of it is left.
    """
    try:
        file = open(beginning.path, "xb")  # noqa: SIM115  # closed below, whatever happens
    except FileExistsError:
        refuse_existing(os.path.dirname(beginning.path))
        raise
    except OSError as error:
        raise _unwritable(beginning, error) from error
    try:
        with file:
            file.write(beginning.text.encode())
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(beginning.path)
        raise _unwritable(beginning, error) from error


def _unwritable(beginning: Beginning, error: OSError) -> StorageError:
    return StorageError(
        f"{beginning.path} cannot be written ({error.strerror})",
        hint="print it with --dry-run, and put it where you may write",
    )
