"""Looking at sources for ``lint``: a project's own, those of packages by path, those in the user's depots."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Final

from headstart.build.sources import Copied, ProjectTree
from headstart.errors import ConfigurationError
from headstart.gittree import version_slug
from headstart.lint import Sources, Subject, stock_names
from headstart.lockchoice import PREFERENCES_NAMES
from headstart.machine import JuliaInstall
from headstart.project import PROJECT_FILE, Local, Package, Tracked
from headstart.tomltable import TomlTable

_BUILD: Final = "deps/build.jl"
_FOLDERS: Final = ("src", "ext")
_LARGEST: Final = 4 << 20
"""Bytes: what is larger was written by a program."""


def examine(
    project: ProjectTree, root: str, depots: tuple[str, ...], install: JuliaInstall | None = None
) -> Subject:
    """Read what there is to look at; what cannot be read is left out.

    Args:
        project: the project, read and checked.
        root: its directory.
        depots: the user's.
        install: the Julia to build with; None when that is not known.
    """
    root = os.path.realpath(root)
    packages = list(project.lock.packages)
    own = project.project
    if own.name and own.uuid and own.uuid not in project.lock.by_uuid():
        needs = tuple(sorted(own.dependencies.items()))
        packages.append(Package(name=own.name, uuid=own.uuid, source=Local("."), dependencies=needs))
    sources, unseen, outside = [], [], {}
    for package in packages:
        match package.source:
            case Local(path):
                if package.uuid not in project.places and path != ".":
                    # Another project's of the same workspace.
                    continue
                place = os.path.realpath(os.path.join(root, os.path.dirname(project.lock_name), path))
                if project.places.get(package.uuid, ".") == ".":
                    place = root
                if place != root and not place.startswith(root + "/"):
                    outside[package.name] = place
                inside = os.path.relpath(place, root)
                shown = place if package.name in outside else inside
                sources.append(_local(package, project, shown))
            case Tracked(tree):
                found = _in_depots(package, tree, depots)
                if found:
                    sources.append(Sources(package=package, at=found, texts=dict(_texts(found))))
                else:
                    unseen.append(package)
            case _:
                pass
    return Subject(
        lock=project.lock,
        sources=tuple(sources),
        unseen=tuple(unseen),
        outside=outside,
        preferred=frozenset(_preferred(root)),
        julia=(install.probe.version,) if install else (),
        in_image=frozenset(_in_image(install)) if install else frozenset(),
    )


def _local(package: Package, project: ProjectTree, shown: str) -> Sources:
    """A package by path, from the files that the release would have of it."""
    place = project.places.get(package.uuid, ".")
    prefix = "" if place == "." else f"{place}/"
    origins = {
        path.removeprefix(prefix): source.origin
        for path, source in project.files.items()
        if path.startswith(prefix) and isinstance(source, Copied)
    }
    wanted = {path: origin for path, origin in origins.items() if _wanted(path)}
    return Sources(package=package, at="" if shown == "." else shown, texts=dict(_read(wanted)))


def _wanted(path: str) -> bool:
    return path == _BUILD or (path.endswith(".jl") and path.partition("/")[0] in _FOLDERS)


def _in_depots(package: Package, tree: str, depots: tuple[str, ...]) -> str:
    for depot in depots:
        for length in (5, 4):
            place = os.path.join(depot, "packages", package.name, version_slug(package.uuid, tree, length))
            if os.path.isdir(place):
                return place
    return ""


def _texts(place: str) -> Iterator[tuple[str, str]]:
    paths = {
        os.path.relpath(os.path.join(folder, name), place): os.path.join(folder, name)
        for top in (*_FOLDERS, os.path.dirname(_BUILD))
        for folder, _, names in os.walk(os.path.join(place, top))
        for name in names
    }
    yield from _read({path: origin for path, origin in paths.items() if _wanted(path)})


def _read(paths: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for path, origin in paths.items():
        with contextlib.suppress(OSError):
            if os.stat(origin).st_size <= _LARGEST:
                with open(origin, encoding="utf-8", errors="replace", newline="") as file:
                    yield path, file.read().replace("\r\n", "\n")


def _preferred(root: str) -> Iterator[str]:
    """Names of the packages that a project has preferences for."""
    for name in (*PREFERENCES_NAMES, PROJECT_FILE):
        # A file that Julia cannot read either is not this step's to complain of.
        with contextlib.suppress(OSError, UnicodeDecodeError, ConfigurationError):
            with open(os.path.join(root, name), encoding="utf-8") as file:
                table = TomlTable.parse(file.read(), name)
            yield from table.table("preferences").value if name == PROJECT_FILE else table.value


def _in_image(install: JuliaInstall) -> Iterator[str]:
    """UUIDs of the packages that a Julia's own system image holds, as the list that comes with it says."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        with open(os.path.join(install.share, "base", "sysimg.jl"), encoding="utf-8") as file:
            names = stock_names(file.read())
        for name in sorted(names):
            with contextlib.suppress(OSError, UnicodeDecodeError, ConfigurationError):
                path = os.path.join(install.probe.stdlib, name, PROJECT_FILE)
                with open(path, encoding="utf-8") as file:
                    yield TomlTable.parse(file.read(), path).text("uuid").lower()
