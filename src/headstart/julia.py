"""Versions of Julia, what each of them can do, and what one says of itself when asked."""

import enum
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from headstart.errors import ConfigurationError, IncompatibleError, MissingToolError
from headstart.microarchitecture import LEVELS
from headstart.names import Sha256
from headstart.tomltable import TomlTable

_VERSION: Final = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class JuliaVersion:
    """A version number as Julia orders them; ``1.12.0-rc1`` comes before ``1.12.0``."""

    major: int
    minor: int
    patch: int
    prerelease: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``1.5.3``, ``1.12.0-rc1``, or ``1.11`` for ``1.11.0``.

        Raises:
            ConfigurationError: any other text.
        """
        found = _VERSION.fullmatch(text)
        if found is None:
            raise ConfigurationError(f"{text[:60]!r} is no version of Julia", hint="write it like 1.10.6")
        return cls(int(found[1]), int(found[2]), int(found[3] or 0), found[4] or "")

    def _key(self) -> tuple[int, int, int, bool, str]:
        return (self.major, self.minor, self.patch, not self.prerelease, self.prerelease)

    def __lt__(self, other: "JuliaVersion") -> bool:
        return self._key() < other._key()

    def within(self, since: "JuliaVersion", until: "JuliaVersion") -> bool:
        """Whether this version's code is that of ``since`` up to, not including, ``until``.

        A prerelease has the code of the version it leads to.
        """
        core = (self.major, self.minor, self.patch)
        return (since.major, since.minor, since.patch) <= core < (until.major, until.minor, until.patch)

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        return f"{text}-{self.prerelease}" if self.prerelease else text


_REQUEST: Final = re.compile(r"\d+(\.\d+(\.\d+(-[0-9A-Za-z.-]+)?)?)?")


@dataclass(frozen=True, slots=True)
class JuliaRequest:
    """What a project asks for: ``1`` or ``1.10`` (the newest of them), ``1.10.6``, ``1.12.0-rc1``."""

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > 60 or _REQUEST.fullmatch(self.text) is None:
            raise ConfigurationError(
                f"{self.text[:60]!r} is no version of Julia",
                hint='write it like "1.10", "1.10.6" or "1.12.0-rc1"; or "system", or the path of a program',
            )

    def accepts(self, version: JuliaVersion) -> bool:
        """Whether a Julia of this version is what was asked for."""
        return str(version) == self.text or str(version).startswith(self.text + ".")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """An official build: the archive that it is unpacked from."""

    version: JuliaVersion
    url: str
    sha256: Sha256
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Found:
    """A Julia that was on this machine: nothing is known of where it came from."""


JuliaOrigin = Archive | Found


def newest(archives: Iterable[Archive], request: JuliaRequest) -> Archive:
    """Choose among official builds: the newest that was asked for; a prerelease only by its full name.

    Raises:
        ConfigurationError: there is none.
    """
    known = tuple(archives)
    fitting = [
        one
        for one in known
        if request.accepts(one.version) and (not one.version.prerelease or str(one.version) == request.text)
    ]
    if not fitting:
        last = max((one.version for one in known if not one.version.prerelease), default=None)
        raise ConfigurationError(
            f"there is no official build of Julia {request} for this machine",
            hint=f"the newest is {last}" if last else "name a Julia with --julia",
        )
    return max(fitting, key=lambda one: one.version)


class ImageLayout(enum.StrEnum):
    """Where a system image records the CPU targets that it was compiled for."""

    DISPATCH_TARGET_IDS = "dispatch-target-ids"
    IMAGE_POINTERS = "image-pointers"
    UNKNOWN = "unknown"


class Proof(enum.StrEnum):
    """How a Julia shows that it compiled nothing."""

    TRACE = "trace"
    COUNTERS = "counters"


class UserDepot(enum.StrEnum):
    """Which empty entries of ``JULIA_DEPOT_PATH`` stand for the user's own depot, ``~/.julia``.

    The others stand for the depots that come with Julia only (``init_depot_path`` in ``base/initdefs.jl``).
    """

    EVERY = "every"
    ALONE = "alone"
    """Those of a list of nothing else."""
    FIRST = "first"
    """One at the head of the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a version of Julia does; one row of ``data/julia.toml``, which explains each field."""

    image_layout: ImageLayout
    proof: Proof
    build_options: tuple[str, ...]
    run_options: tuple[str, ...]
    run_environment: Mapping[str, str]
    user_depot: UserDepot
    libraries: tuple[str, ...]
    relocatable: bool
    relocatable_caches: bool
    package_images: bool
    cache_options: tuple[str, ...]
    stdlib_anew: bool
    own_vectors: bool
    lock_formats: tuple[str, ...]


def capabilities(table: str, version: JuliaVersion) -> Capabilities:
    """Find a version's row.

    Args:
        table: the text of ``data/julia.toml``.
        version: of which Julia.

    Raises:
        IncompatibleError: no row holds for this version.
    """
    rows = TomlTable.parse(table, "data/julia.toml").tables("julia")
    for row in rows:
        if version.within(JuliaVersion.parse(row.text("since")), JuliaVersion.parse(row.text("until"))):
            return Capabilities(
                image_layout=ImageLayout(row.text("image_layout")),
                proof=Proof(row.text("proof")),
                build_options=row.texts("build_options"),
                run_options=row.texts("run_options"),
                run_environment=dict(word.split("=", 1) for word in row.texts("run_environment")),
                user_depot=UserDepot(row.text("user_depot")),
                libraries=row.texts("libraries"),
                relocatable=row.truth("relocatable"),
                relocatable_caches=row.truth("relocatable_caches"),
                package_images=row.truth("package_images"),
                cache_options=row.texts("cache_options"),
                stdlib_anew=row.truth("stdlib_anew"),
                own_vectors=row.truth("own_vectors"),
                lock_formats=row.texts("lock_formats"),
            )
    raise IncompatibleError(
        f"this Headstart does not know Julia {version}",
        hint=f"use Julia {rows[0].text('since')} or newer, below {rows[-1].text('until')}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A level, and how one version of Julia has to be told; one row of ``data/targets.toml``."""

    level: str
    """The name everywhere but inside Julia: ``x86-64-v3``."""
    cpu_target: str
    """The argument of ``-C``."""
    recorded: str
    """The name that the image records."""
    recorded_features: frozenset[str]
    """Exactly the features that the image records, in ``/proc/cpuinfo``'s words."""

    @property
    def features(self) -> tuple[str, ...]:
        """What a CPU must offer, to build the image as to run it, sorted."""
        return tuple(sorted(self.recorded_features | LEVELS[self.level]))


def target(table: str, level: str, version: JuliaVersion) -> Target:
    """Find how to build for a level with a version of Julia.

    Args:
        table: the text of ``data/targets.toml``.
        level: such as ``x86-64-v3``.
        version: of which Julia.

    Raises:
        ConfigurationError: there is no such level.
        IncompatibleError: nobody knows yet how this version has to be told.
    """
    rows = TomlTable.parse(table, "data/targets.toml").tables("level")
    for row in rows:
        if row.text("name") == level:
            return _spelling(row, level, version)
    raise ConfigurationError(
        f"{level[:40]!r} is no target", hint=f"the targets are {', '.join(row.text('name') for row in rows)}"
    )


def _spelling(row: TomlTable, level: str, version: JuliaVersion) -> Target:
    for spelling in row.tables("spelling"):
        if version.within(
            JuliaVersion.parse(spelling.text("since")), JuliaVersion.parse(spelling.text("until"))
        ):
            return Target(
                level=level,
                cpu_target=spelling.text("cpu_target"),
                recorded=spelling.text("recorded"),
                recorded_features=frozenset(spelling.texts("features")),
            )
    raise IncompatibleError(
        f"this Headstart does not know how to build for {level} with Julia {version}",
        hint="use a Julia that data/targets.toml has a spelling for",
    )


def require_features(wanted: Target, offered: frozenset[str]) -> None:
    """Refuse a target above this machine.

    Julia would silently take away what the builder's CPU lacks and still label the image with the higher
    level's name (``arg_target_data`` in ``src/processor_x86.cpp``), so this is asked before anything is built.

    Raises:
        IncompatibleError: naming what the CPU lacks.
    """
    missing = [name for name in wanted.features if name not in offered]
    if missing:
        raise IncompatibleError(
            f"this machine cannot build for {wanted.level}: its CPU lacks {' '.join(missing)}",
            hint=f"build {wanted.level} on a machine that has them, or leave it out with --target",
        )


PROBE_MARK: Final = "headstart-probe:"
_LOCKS: Final = "JuliaManifest.toml Manifest.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class JuliaProbe:
    """What a Julia says of itself; paths are absolute."""

    version: JuliaVersion
    bindir: str
    system_image: str
    stdlib: str
    libraries: tuple[str, ...]
    """Every shared library it had loaded."""
    locks: tuple[str, ...] = tuple(_LOCKS.split())
    """The names that it looks for a project's lock under, in order (``Base.manifest_names``)."""
    workspaces: bool = False
    """Whether projects can share a lock (``Base.base_project``, since 1.12)."""

    @classmethod
    def parse(cls, text: str, program: str) -> Self:
        """Read what ``data/probe.jl`` prints: marked lines of a key, a space and a value.

        Raises:
            MissingToolError: the program printed something else, so it is no Julia.
        """
        values: dict[str, list[str]] = {}
        for line in text.splitlines():
            if line.startswith(PROBE_MARK):
                key, _, value = line.removeprefix(PROBE_MARK).strip().partition(" ")
                values.setdefault(key, []).append(value)
        try:
            return cls(
                version=JuliaVersion.parse(values["version"][0]),
                bindir=values["bindir"][0],
                system_image=values["image"][0],
                stdlib=values["stdlib"][0],
                libraries=tuple(values["library"]),
                locks=tuple(values.get("locks", [_LOCKS])[0].split()),
                workspaces=values.get("workspaces") == ["true"],
            )
        except (KeyError, ConfigurationError) as error:
            raise MissingToolError(
                f"{program} does not answer as Julia does", hint="name another one with --julia"
            ) from error
