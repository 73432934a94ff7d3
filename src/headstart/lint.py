"""What in a project does not go well with images on a read-only store: found by looking, with what to do.

A finding is no error: much of what is found works where the release is mounted. Where a rule cannot be sure it
says nothing, so a project without findings may still hold on to a path. ``RULES`` has the reason of each.
"""

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from headstart.julia import JuliaVersion
from headstart.juliasource import Binding, arguments, bindings, code, enclosing, line_of
from headstart.project import LOCK_FILE, Lock, Package, Standard, Tracked


class Rule(enum.StrEnum):
    """What is looked for; the names are those of ``--json``."""

    BUILD_SCRIPT = "build-script"
    SCRATCH = "scratch-space"
    BUILT_PATH = "path-in-constant"
    BUILDER_PATH = "builder-in-constant"
    ARTIFACT = "artifact-in-constant"
    DEPENDENCY = "untracked-content"
    NO_CACHE = "no-precompile"
    PYTHON = "python-state"
    DEVICE = "device-preferences"
    STANDARD = "in-system-image"
    OUTSIDE = "path-outside"
    LOCK = "lock-version"
    UNSEEN = "not-looked-at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What a rule is about."""

    why: str
    todo: str


RULES: Final[Mapping[Rule, Advice]] = {
    Rule.BUILD_SCRIPT: Advice(
        why="a build step runs only when Pkg installs the package, and writes into the package's own "
        "directory; a release does not run it, and a package from a registry that it has changed "
        "no longer fits the lock",
        todo="use a version without deps/build.jl; in a package of your own, put what it makes into an"
        " artifact or into the sources",
    ),
    Rule.SCRATCH: Advice(
        why="a scratch space is made in the first depot, which on a node is read-only up to Julia "
        "1.10 and an empty one of the job's from 1.11 on",
        todo="take what is known beforehand from an artifact, and what is not from a directory of the job's",
    ),
    Rule.BUILT_PATH: Advice(
        why="a constant holds a path of the place where the release is built; it is right where the "
        "release is mounted or shown at that place, and wrong anywhere else",
        todo="make it a function, or write it with @path of the package RelocatableFolders",
    ),
    Rule.BUILDER_PATH: Advice(
        why="a constant holds something of the machine or the account that builds, and every node gets that",
        todo="compute it in a function, or set it in __init__",
    ),
    Rule.ARTIFACT: Advice(
        why="a constant holds the directory of an artifact as it is where the release is built; it is"
        " right where the release is mounted or shown at that place, and wrong anywhere else",
        todo='write artifact"..." inside the function that uses it',
    ),
    Rule.DEPENDENCY: Advice(
        why="include_dependency without track_content compares a modification time, of a directory "
        "also its own; a release gives its files one fixed time, but what lies outside of it may "
        "change",
        todo="say track_content=true (Julia 1.11), and name files of the package only",
    ),
    Rule.NO_CACHE: Advice(
        why="__precompile__(false) forbids a package image: with package images the package is "
        "compiled at each start, which a sealed start refuses",
        todo='build it into a system image (image = "sysimage", or heavy), or take the line away',
    ),
    Rule.PYTHON: Advice(
        why="it keeps a Python environment in a depot or beside the project, and resolves or writes "
        "it at run time",
        todo="point it to a Python that is on every node (JULIA_PYTHONCALL_EXE and "
        "JULIA_CONDAPKG_BACKEND=Null; for PyCall the variable PYTHON when it is built), and say "
        "so to whoever runs the release",
    ),
    Rule.DEVICE: Advice(
        why="what it finds on the machine that builds, such as no driver at all, is compiled into the image",
        todo="set its preferences to what the nodes have, and commit LocalPreferences.toml beside Project.toml",
    ),
    Rule.STANDARD: Advice(
        why="Julia's own system image holds this package already, and what is in the image is used "
        "whatever the lock says",
        todo="let the lock have the version that comes with Julia, or build with a Julia that brings "
        "the wanted one",
    ),
    Rule.OUTSIDE: Advice(
        why="it is taken from a directory outside of the project; a release holds a copy, but nobody "
        "else can build the same from the project alone",
        todo="move it into the project, or add it by URL or from a registry so that the lock has its tree hash",
    ),
    Rule.LOCK: Advice(
        why="Julia's own packages differ between minor versions, and a lock fits the one that resolved it",
        todo="resolve the project with the Julia that it is built with, and commit the lock",
    ),
    Rule.UNSEEN: Advice(
        why="its sources are in none of your depots, so nothing is known of them yet",
        todo="run `julia --project=. -e 'import Pkg; Pkg.instantiate()'` in the project and look again",
    ),
}

_PYTHON: Final = frozenset({"PyCall", "Conda", "CondaPkg", "PythonCall"})
_DEVICES: Final = {
    "CUDA": ("CUDA_Runtime_jll", "CUDA"),
    "AMDGPU": ("AMDGPU",),
    "oneAPI": ("oneAPI",),
    "MPI": ("MPIPreferences", "MPI"),
}
"""Packages that look around when they are compiled, and the names under which their preferences are kept."""

_PATHS: Final = re.compile(r"@__DIR__\b|@__FILE__\b|\bpathof\(|\bpkgdir\(|\bSys\.BINDIR\b|\bSys\.STDLIB\b")
_BUILDERS: Final = re.compile(
    r"\b(?:homedir|pwd|tempdir|tempname|mktempdir|gethostname)\(|\bSys\.CPU_THREADS\b|\bDEPOT_PATH\b"
)
_ARTIFACTS: Final = re.compile(r'\bartifact"|@artifact_str\b')
_KEEPING: Final = frozenset(
    {
        "joinpath",
        "abspath",
        "normpath",
        "realpath",
        "dirname",
        "expanduser",
        "string",
        "String",
        "Ref",
        "mkpath",
    }
)
"""Functions whose value still has the path of their argument in it."""
_NOT_KEPT: Final = re.compile(r"->|\|>|==|!=|≠|<|>|∈|\bin\b|\bfunction\b|\bdo\b|&&|\|\||@(?!__|artifact_str)\w")
_NO_CACHE: Final = re.compile(r"^[ \t]*__precompile__\(\s*false\s*\)", re.MULTILINE)
_DEPENDENCY: Final = re.compile(r"(?<!function )\binclude_dependency\(")
_SCRATCH: Final = re.compile(
    r"^(?![ \t]*(?:using|import|export)\b).*?(@get_scratch!|\bget_scratch!(?=\())", re.MULTILINE
)
_TRACKED: Final = re.compile(r"\btrack_content\s*=\s*true\b")
_OF_INTEREST: Final = re.compile(
    r"__DIR__|__FILE__|pathof|pkgdir|Sys\.|artifact|homedir|pwd|temp|gethostname|DEPOT_PATH|__precompile__|"
    r"include_dependency|get_scratch"
)
"""Files without any of these words are not looked into more closely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found."""

    rule: Rule
    package: str
    """Empty where it is about the project as a whole."""
    file: str
    """As a user would name it; empty where there is no file to show."""
    line: int
    """From 1; 0 where it is about the whole file."""
    what: str
    """Which thing, in a few words."""

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """One package as it was found on this machine."""

    package: Package
    at: str
    """Its directory, as a user would name it; empty for the project itself."""
    texts: Mapping[str, str]
    """Its Julia files by path inside it, and ``deps/build.jl`` where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A project, as far as it was found."""

    lock: Lock
    sources: tuple[Sources, ...]
    unseen: tuple[Package, ...]
    """Packages that are not on this machine."""
    outside: Mapping[str, str]
    """Directories of packages by path that are not inside the project, by name."""
    preferred: frozenset[str]
    """Names of packages that the project has preferences for."""
    julia: tuple[JuliaVersion, ...] = ()
    """The Julia to build with; none when that is not known."""
    in_image: frozenset[str] = frozenset()
    """UUIDs of the packages that its own system image holds."""


def lint(subject: Subject) -> tuple[Finding, ...]:
    """Everything that was found, sorted by rule, package and place."""
    found = [
        *_lock(subject),
        *(
            Finding(rule=Rule.OUTSIDE, package=name, file=path, line=0, what="not in the project")
            for name, path in subject.outside.items()
        ),
        *(
            Finding(rule=Rule.UNSEEN, package=package.name, file="", line=0, what=_tree(package))
            for package in subject.unseen
        ),
        *(finding for sources in subject.sources for finding in _package(sources)),
        *(finding for package in subject.lock.packages for finding in _by_name(package, subject)),
    ]
    order = list(Rule)
    return tuple(
        sorted(found, key=lambda one: (order.index(one.rule), one.package, one.file, one.line, one.what))
    )


def stock_names(text: str) -> frozenset[str]:
    """The packages that a Julia's own system image was made with.

    Args:
        text: the ``share/julia/base/sysimg.jl`` that comes with it.
    """
    found = re.search(r"\bstdlibs = \[(.*?)\]", code(text), re.DOTALL)
    return frozenset(re.findall(r":(\w+)", found[1])) if found else frozenset()


def _tree(package: Package) -> str:
    return f"tree {package.source.tree}" if isinstance(package.source, Tracked) else "no tree hash"


def _lock(subject: Subject) -> Iterator[Finding]:
    said = subject.lock.julia
    for version in subject.julia:
        if said and not said.startswith(f"{version.major}.{version.minor}."):
            what = f"resolved by Julia {said}, and Julia {version} would build"
            yield Finding(rule=Rule.LOCK, package="", file=LOCK_FILE, line=0, what=what)
    # Before 1.7 no Julia wrote its version into a lock (Pkg, manifest format 2.0).
    if not said and all((version.major, version.minor) >= (1, 7) for version in subject.julia):
        what = "does not say which Julia resolved it"
        yield Finding(rule=Rule.LOCK, package="", file=LOCK_FILE, line=0, what=what)


def _by_name(package: Package, subject: Subject) -> Iterator[Finding]:
    if isinstance(package.source, Standard):
        return

    def finding(rule: Rule, what: str) -> Finding:
        return Finding(rule=rule, package=package.name, file=LOCK_FILE, line=0, what=what)

    if package.name in _PYTHON:
        yield finding(Rule.PYTHON, "in the lock")
    kept = _DEVICES.get(package.name, ())
    if kept and not subject.preferred.intersection(kept):
        yield finding(Rule.DEVICE, f"no preferences of {' or '.join(kept)}")
    if package.uuid in subject.in_image:
        yield finding(Rule.STANDARD, "another one than Julia's own")


def _package(sources: Sources) -> Iterator[Finding]:
    for path, text in sorted(sources.texts.items()):
        shown = f"{sources.at}/{path}" if sources.at else path
        if path == "deps/build.jl":
            yield Finding(
                rule=Rule.BUILD_SCRIPT, package=sources.package.name, file=shown, line=1, what="a build step"
            )
        elif _OF_INTEREST.search(text):
            for rule, line, what in _file(code(text), sources.package):
                yield Finding(rule=rule, package=sources.package.name, file=shown, line=line, what=what)


def _file(blanked: str, package: Package) -> Iterator[tuple[Rule, int, str]]:
    for found in _NO_CACHE.finditer(blanked):
        yield Rule.NO_CACHE, line_of(blanked, found.end()), "__precompile__(false)"
    for found in _DEPENDENCY.finditer(blanked):
        if not _TRACKED.search(arguments(blanked, found.end() - 1)):
            yield Rule.DEPENDENCY, line_of(blanked, found.start()), "include_dependency"
    if any(name == "Scratch" for name, _ in package.dependencies):
        for found in _SCRATCH.finditer(blanked):
            yield Rule.SCRATCH, line_of(blanked, found.start(1)), found[1]
    for binding in bindings(blanked):
        for rule, pattern in (
            (Rule.BUILT_PATH, _PATHS),
            (Rule.BUILDER_PATH, _BUILDERS),
            (Rule.ARTIFACT, _ARTIFACTS),
        ):
            for word in _held(binding, pattern):
                yield rule, binding.line, f"{binding.name} = … {word.rstrip('(')} …"
                break


def _held(binding: Binding, pattern: re.Pattern[str]) -> Iterable[str]:
    """Words of a pattern that a binding's value holds on to, as far as that can be seen."""
    if _NOT_KEPT.search(binding.value):
        return
    for found in pattern.finditer(binding.value):
        callees = (name.rpartition(".")[2] for name in enclosing(binding.value, found.start()))
        if all(name == "[" or name in _KEEPING for name in callees):
            yield found[0]
