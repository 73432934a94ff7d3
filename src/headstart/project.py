"""A Julia project as its files say it: what it is called, what it depends on, and its lock.

The lock is Julia's ``Manifest.toml``; it is called lock here, because Manifest is CVMFS's word. Both of its
formats are read: packages at the top level (Julia 1.5) and below ``deps`` (``manifest_format = "2.0"``).
"""

import enum
import graphlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from headstart.errors import ConfigurationError
from headstart.julia import JuliaRequest
from headstart.names import StackName
from headstart.tomltable import TomlTable

SETTINGS_FILE: Final = "Headstart.toml"
PROJECT_FILE: Final = "Project.toml"
LOCK_FILE: Final = "Manifest.toml"
_SETTINGS: Final = frozenset({"name", "julia", "targets", "image", "heavy", "lazy", "workload", "smoke"})
_PATH: Final = re.compile(r"""^([ \t]*)path[ \t]*=[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*')""", re.MULTILINE)
_TREE: Final = re.compile(r"[0-9a-f]{40}")
RESOLVE: Final = "run `julia --project=. -e 'import Pkg; Pkg.resolve()'` in the project and commit the result"


class ImageKind(enum.StrEnum):
    """What is built for a target."""

    SYSTEM = "sysimage"
    PACKAGES = "pkgimages"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``Headstart.toml``."""

    name: StackName
    julia: str
    """A version, ``system``, or a path; empty when any Julia will do."""
    targets: tuple[str, ...]
    image: ImageKind
    heavy: tuple[str, ...]
    """For ``image = "both"``: the packages of the system image; none to take those from registries."""
    lazy: tuple[str, ...]
    """Names of the artifacts that Julia would fetch on first use, and that the release is to hold."""
    workload: str
    """A script in the project, run while building; empty when there is none."""
    smoke: str
    """A script in the project, run after building; empty when there is none."""

    @classmethod
    def parse(cls, text: str, file: str) -> Self:
        """Read the file's text.

        Raises:
            ConfigurationError: naming the file and the key.
        """
        table = TomlTable.parse(text, file)
        table.only(_SETTINGS)
        try:
            name = StackName(table.text("name"))
        except ConfigurationError as error:
            if "name" not in table.value:
                raise
            raise ConfigurationError(f"{file}: name: {error.message}", hint=error.hint) from error
        image = table.text_or("image", ImageKind.SYSTEM)
        if image not in list(ImageKind):
            raise table.wrong("image", "sysimage, pkgimages or both")
        if "heavy" in table.value and image != ImageKind.BOTH:
            raise ConfigurationError(
                f'{file}: heavy goes with image = "both", and image is "{image}"',
                hint='take heavy away, or say image = "both"',
            )
        targets = table.texts("targets") if "targets" in table.value else ("x86-64", "x86-64-v3")
        if not targets or len(set(targets)) != len(targets):
            raise table.wrong("targets", "a list of different targets, at least one")
        return cls(
            name=name,
            julia=_julia(table),
            targets=targets,
            image=ImageKind(image),
            heavy=table.texts("heavy") if "heavy" in table.value else (),
            lazy=tuple(sorted(set(table.texts("lazy")))) if "lazy" in table.value else (),
            workload=_script(table, "workload"),
            smoke=_script(table, "smoke"),
        )


def _julia(table: TomlTable) -> str:
    text = table.text_or("julia", "")
    if text not in ("", "system") and "/" not in text:
        try:
            JuliaRequest(text)
        except ConfigurationError as error:
            raise ConfigurationError(f"{table.file}: julia: {error.message}", hint=error.hint) from error
    return text


def _script(table: TomlTable, key: str) -> str:
    if key not in table.value:
        return ""
    text = table.text(key)
    if not text.endswith(".jl") or any(part in ("", ".", "..") for part in text.split("/")):
        raise table.wrong(key, "the path of a Julia script inside the project, such as test/smoke.jl")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """``Project.toml``."""

    name: str
    """Empty for a project that is no package."""
    uuid: str
    dependencies: Mapping[str, str]
    """UUID by name."""
    weak: Mapping[str, str] = field(default_factory=dict)
    """UUID by name of what it only extends; since Julia 1.9 a dependency that is here too is no other."""
    extras: Mapping[str, str] = field(default_factory=dict)
    """UUID by name of packages that only tests, or preferences, are for."""
    extensions: tuple[str, ...] = ()
    """Names of the modules that are loaded when others are."""
    compat: Mapping[str, str] = field(default_factory=dict)
    """Versions that it admits, by name."""
    preferences: frozenset[str] = frozenset()
    """Names of the packages that it has preferences for."""
    workspace: tuple[str, ...] = ()
    """Directories of the projects that share its lock, since Julia 1.12."""

    @property
    def required(self) -> Mapping[str, str]:
        """The dependencies that are not weak, as Pkg reads them since Julia 1.9 (``Pkg/src/project.jl``)."""
        return {name: identity for name, identity in self.dependencies.items() if name not in self.weak}

    @classmethod
    def parse(cls, text: str, file: str) -> Self:
        """Read the file's text.

        Raises:
            ConfigurationError: naming the file and the key.
        """
        table = TomlTable.parse(text, file)
        if "manifest" in table.value:
            # Julia then takes that file, whatever stands beside the project (base/loading.jl, 1.11:755).
            raise ConfigurationError(
                f"{file}: manifest names another lock than the {LOCK_FILE} beside it",
                hint=f"take the key away and keep the lock as {LOCK_FILE}",
            )
        compat, workspace = table.table("compat"), table.table("workspace")
        return cls(
            name=table.text_or("name", ""),
            uuid=_uuid(table, "uuid") if "uuid" in table.value else "",
            dependencies=_uuids(table.table("deps")),
            weak=_uuids(table.table("weakdeps")),
            extras=_uuids(table.table("extras")),
            extensions=tuple(sorted(table.table("extensions").value)),
            compat={name: compat.text(name) for name in compat.value},
            preferences=preferred(table.table("preferences")),
            workspace=workspace.texts("projects") if "projects" in workspace.value else (),
        )


def preferred(table: TomlTable) -> frozenset[str]:
    """The packages that a table of preferences is for; each has a table of its own.

    Raises:
        ConfigurationError: one of them is no table.
    """
    return frozenset(name for name in table.value if table.table(name).value)


def _uuids(table: TomlTable) -> dict[str, str]:
    return {name: _uuid(table, name) for name in table.value}


def _uuid(table: TomlTable, key: str) -> str:
    text = table.text(key)
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise table.wrong(key, "a UUID") from error


@dataclass(frozen=True, slots=True)
class Standard:
    """Comes with Julia."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """Fetched once, known by its content."""

    tree: str
    """git-tree-sha1: 40 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Local:
    """A directory beside or inside the project."""

    path: str
    """As the lock has it: absolute, or relative to the lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package of a lock."""

    name: str
    uuid: str
    source: Standard | Tracked | Local
    dependencies: tuple[tuple[str, str], ...]
    """Names, and the UUID where the lock has to say which one."""
    extensions: tuple[str, ...] = ()
    """Names of the modules that are loaded as soon as others are (since Julia 1.9)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """``Manifest.toml``."""

    packages: tuple[Package, ...]
    julia: str
    """The version that resolved it; empty in the older format."""
    format: str
    """``1`` or ``2``; what differs within one of them does not matter here."""
    project_hash: str = ""
    """Of the project that it was resolved for; empty where it does not say (before Julia 1.8)."""

    @classmethod
    def parse(cls, text: str, file: str) -> Self:
        """Read the file's text, of either format.

        Raises:
            ConfigurationError: naming the file and the key.
        """
        table = TomlTable.parse(text, file)
        form = "2" if "manifest_format" in table.value else "1"
        if form == "2":
            version = table.text("manifest_format")
            if version.partition(".")[0] != "2":
                raise table.wrong("manifest_format", "2.0 or 2.1, which this Headstart knows")
            entries = table.table("deps")
        else:
            entries = table
        packages = [
            _package(entry, name)
            for name, value in entries.value.items()
            if isinstance(value, list)
            for entry in entries.tables(name)
        ]
        names: dict[str, str] = {}
        for package in packages:
            if package.uuid in names:
                raise ConfigurationError(
                    f"{file}: {names[package.uuid]} and {package.name} have one UUID, {package.uuid}",
                    hint=RESOLVE,
                )
            names[package.uuid] = package.name
        return cls(
            packages=tuple(packages),
            julia=table.text_or("julia_version", ""),
            format=form,
            project_hash=table.text_or("project_hash", ""),
        )

    def by_uuid(self) -> Mapping[str, Package]:
        """The packages by UUID."""
        return {package.uuid: package for package in self.packages}

    def needs(self, package: Package) -> tuple[Package, ...]:
        """The packages that one depends on directly.

        Raises:
            ConfigurationError: one of them is not in the lock, or there are two of its name.
        """
        found = []
        for name, identity in package.dependencies:
            matches = [other for other in self.packages if other.name == name and identity in ("", other.uuid)]
            if len(matches) != 1:
                raise ConfigurationError(
                    f"{LOCK_FILE}: {package.name} depends on {name}, of which the lock has {len(matches)}",
                    hint=RESOLVE,
                )
            found.append(matches[0])
        return tuple(found)

    def leaf_first(self) -> tuple[Package, ...]:
        """All packages, each after those that it depends on; by name where that leaves a choice.

        Raises:
            ConfigurationError: they depend on each other in a circle.
        """
        known = self.by_uuid()
        graph = {
            package.uuid: sorted(
                (other.uuid for other in self.needs(package)), key=lambda one: (known[one].name, one)
            )
            for package in sorted(self.packages, key=lambda package: (package.name, package.uuid))
        }
        try:
            return tuple(known[one] for one in graphlib.TopologicalSorter(graph).static_order())
        except graphlib.CycleError as error:
            names = " -> ".join(known[one].name for one in error.args[1])
            raise ConfigurationError(
                f"{LOCK_FILE}: packages depend on each other in a circle: {names}"
            ) from error

    def compiled(self, project: Project) -> tuple[Package, ...]:
        """What goes into an image, leaf first: all that the project reaches and that Julia does not bring."""
        known = self.by_uuid()
        reached: set[str] = set()
        pending = [known[one] for one in project.dependencies.values() if one in known]
        while pending:
            package = pending.pop()
            if package.uuid not in reached:
                reached.add(package.uuid)
                pending += self.needs(package)
        return tuple(
            package
            for package in self.leaf_first()
            if package.uuid in reached and not isinstance(package.source, Standard)
        )


def _package(entry: TomlTable, name: str) -> Package:
    source: Standard | Tracked | Local
    if "path" in entry.value:
        source = Local(entry.text("path"))
    elif "git-tree-sha1" in entry.value:
        tree = entry.text("git-tree-sha1")
        if _TREE.fullmatch(tree) is None:
            raise entry.wrong("git-tree-sha1", "40 hexadecimal digits")
        source = Tracked(tree)
    else:
        source = Standard()
    return Package(
        name=name,
        uuid=_uuid(entry, "uuid"),
        source=source,
        dependencies=_dependencies(entry),
        extensions=tuple(sorted(entry.table("extensions").value)),
    )


def _dependencies(entry: TomlTable) -> tuple[tuple[str, str], ...]:
    value: Any = entry.value.get("deps", [])
    if isinstance(value, dict):
        table = entry.table("deps")
        return tuple((name, _uuid(table, name)) for name in sorted(value))
    return tuple((name, "") for name in sorted(entry.texts("deps"))) if value else ()


def with_paths(lock_text: str, paths: Mapping[str, str]) -> str:
    """Rewrite the ``path`` of packages in a lock's text, and leave the rest as it is.

    Args:
        lock_text: a lock that ``Lock.parse`` has read.
        paths: the new path by the path that stands there.
    """

    def replace(found: re.Match[str]) -> str:
        old = str(TomlTable.parse(found[0].strip(), LOCK_FILE).text("path"))
        return f"{found[1]}path = {quoted(paths[old])}" if old in paths else found[0]

    return _PATH.sub(replace, lock_text)


def quoted(text: str) -> str:
    """A basic string of TOML, which for text without control characters is a string of JSON."""
    return json.dumps(text, ensure_ascii=False)
