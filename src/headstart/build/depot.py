"""The release's depot: the packages and artifacts that the lock names, checked against its tree hashes.

The lock is law. What it names is looked for in the user's depots; what is not there, or is not what it should
be, Julia's own Pkg fetches, and then the same check decides. Nothing is resolved anew, and what a depot puts
in the place of an artifact (``Overrides.toml``) is refused: a node has no such depot.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Final

from headstart.build.complaints import refusal
from headstart.build.recipe import Workshop, said
from headstart.build.sources import write_file
from headstart.build.trees import copy_sources, git_tree, link_outward
from headstart.errors import BuildError, ConfigurationError
from headstart.gittree import version_slug
from headstart.machine import read_text
from headstart.overrides import OVERRIDES_FILE, Overrides
from headstart.process import Command, Finished, Runner
from headstart.project import LOCK_FILE, PROJECT_FILE, Package, Tracked, with_paths

_ARTIFACT_FILES: Final = ("JuliaArtifacts.toml", "Artifacts.toml")
_MARK: Final = "headstart-artifact:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """An artifact that a package takes on this platform."""

    tree: str
    lazy: bool
    """Whether Julia would fetch it on first use."""
    name: str
    package: Package


class DepotBuilder:
    """Fills the depot of one release.

    Args:
        shop: where the release is made.
        depots: the user's depots, to take from.
        network: variables that say how to reach the network.
        run: starts programs.
        log: where their output goes.
    """

    def __init__(
        self, shop: Workshop, depots: tuple[str, ...], network: Mapping[str, str], run: Runner, log: IO[bytes]
    ) -> None:
        self._shop = shop
        self._depots = depots
        self._network = network
        self._run = run
        self._log = log
        self._depot = shop.outside(f"{shop.plan.path}/depot")
        self._fetched = shop.scratch("fetched")

    def packages(self) -> int:
        """Copy the packages that the lock knows by their tree; returns how many.

        Raises:
            BuildError: one cannot be had, or is not what the lock says.
            UnavailableError: one cannot be had because a server does not answer.
        """
        wanted = [
            (package, package.source)
            for package in self._shop.plan.inputs.project.lock.packages
            if isinstance(package.source, Tracked)
        ]
        output: bytes | None = None
        for package, source in wanted:
            slug = version_slug(package.uuid, source.tree, 5)
            places = (f"packages/{package.name}/{slug}", f"packages/{package.name}/{slug[:4]}")
            what = f"package {package.name}"
            found, _ = self._take(what, source.tree, places, self._depots)
            if not found:
                output = self._fetch() if output is None else output
                self._take_fetched(what, source.tree, places, output)
        return len(wanted)

    def artifacts(self) -> tuple[tuple[Artifact, ...], tuple[Artifact, ...]]:
        """Copy the artifacts that the packages take on this platform; returns them, and the others.

        The others are the lazy ones, but for those that the settings name.

        Raises:
            BuildError: one cannot be had, or is not what ``Artifacts.toml`` says.
            UnavailableError: one cannot be had because a server does not answer.
            ConfigurationError: a depot puts something else in the place of one, or a lazy one that
                the settings name is none.
        """
        found = self._listed()
        asked = self._shop.plan.inputs.settings.lazy
        unknown = sorted(set(asked) - {one.name for one in found if one.lazy})
        if unknown:
            names = ", ".join(sorted({one.name for one in found if one.lazy})) or "none"
            raise ConfigurationError(
                f"Headstart.toml: lazy names {', '.join(unknown)}, and no package of the lock has such a lazy"
                " artifact",
                hint=f"those are {names}",
            )
        taken = {one.tree: one for one in found if not one.lazy or one.name in asked}
        self._refuse_overrides(taken.values())
        missing = [one for one in taken.values() if not self._take_artifact(one, self._depots)]
        if missing:
            output = self._fetch_artifacts(missing)
            for one in missing:
                self._take_fetched(_called(one), one.tree, (f"artifacts/{one.tree}",), output)
        return tuple(taken.values()), tuple(one for one in found if one.tree not in taken)

    def _listed(self) -> list[Artifact]:
        folders = self._folders()
        if not folders:
            return []
        done = self._ask("artifacts.jl", folders, self._shop.environment(self._shop.scratch("depot")))
        if done.code != 0:
            raise BuildError(
                f"the packages' artifacts cannot be listed: {said(done.err)}",
                hint=f"the full log is {self._log.name}",
            )
        found = []
        for line in done.out.decode(errors="replace").splitlines():
            if line.startswith(_MARK):
                tree, kind, name, folder = line.removeprefix(_MARK).split(maxsplit=3)
                found.append(Artifact(tree=tree, lazy=kind == "lazy", name=name, package=folders[folder]))
        return found

    def _folders(self) -> dict[str, Package]:
        """The packages that have artifacts, by where they are."""
        folders = {self._shop.source(package): package for package in self._shop.plan.packages}
        return {
            folder: package
            for folder, package in folders.items()
            if any(os.path.exists(self._shop.outside(f"{folder}/{name}")) for name in _ARTIFACT_FILES)
        }

    def _refuse_overrides(self, artifacts: Iterable[Artifact]) -> None:
        overrides = Overrides.none()
        # Of several depots the first one has the last word.
        for depot in reversed(self._depots):
            path = os.path.join(depot, "artifacts", OVERRIDES_FILE)
            if os.path.isfile(path):
                overrides = overrides.over(read_text(path, "", ""), path)
        for one in artifacts:
            found = overrides.of(one.package.uuid, one.name, one.tree)
            if found is not None:
                raise ConfigurationError(
                    f"{found.file} puts {found.value} in the place of {_called(one)}, and a release holds what"
                    " its packages name",
                    hint="build with a JULIA_DEPOT_PATH whose depots have no such line",
                )

    def _take_artifact(self, one: Artifact, depots: Iterable[str]) -> bool:
        return self._take(_called(one), one.tree, (f"artifacts/{one.tree}",), depots)[0]

    def _take(self, what: str, tree: str, places: tuple[str, ...], depots: Iterable[str]) -> tuple[bool, str]:
        """Copy a tree from the first depot that has it; whether one has, and else what was wrong."""
        last = f"it is in none of {', '.join(self._depots) or 'your depots (there are none)'}"
        for folder in depots:
            for place in places:
                origin = os.path.join(folder, place)
                if os.path.isdir(origin):
                    actual = git_tree(origin)
                    if actual == tree:
                        outward = link_outward(origin)
                        if outward:
                            raise BuildError(
                                f"{what} has a link that leads out of it ({outward})",
                                hint="a release holds all that it needs: use another version of it",
                            )
                        copy_sources(origin, os.path.join(self._depot, places[0]))
                        return True, ""
                    last = f"{origin} has tree {actual}"
        return False, last

    def _take_fetched(self, what: str, tree: str, places: tuple[str, ...], output: bytes) -> None:
        found, last = self._take(what, tree, places, (*self._depots, self._shop.outside(self._fetched)))
        if not found:
            raise refusal(f"{what} with tree {tree}", last, output, self._log.name)

    def _fetch(self) -> bytes:
        """Let Pkg fetch the packages that are not there; returns what it says, if it fails.

        Pkg works in a project of its own, which names them all: it may write there, and the real one may say
        what only holds at its author's place.
        """
        shop = self._shop
        place = shop.scratch("instantiate")
        tracked = {
            package.name: package.uuid
            for package in shop.plan.inputs.project.lock.packages
            if isinstance(package.source, Tracked)
        }
        os.makedirs(shop.outside(place))
        names = "".join(f'{name} = "{tracked[name]}"\n' for name in sorted(tracked))
        write_file(shop.outside(f"{place}/{PROJECT_FILE}"), f"[deps]\n{names}".encode(), program=False)
        made = shop.outside(f"{shop.plan.path}/project")
        places = shop.plan.inputs.project.places.values()
        text = with_paths(
            read_text(os.path.join(made, LOCK_FILE), "", ""),
            {path: f"{shop.plan.path}/project/{path}" for path in places},
        )
        write_file(shop.outside(f"{place}/{LOCK_FILE}"), text.encode(), program=False)
        self._registries()
        done = self._ask("instantiate.jl", (), {**self._network_environment(), "JULIA_PROJECT": place})
        return done.err if done.code else b""

    def _fetch_artifacts(self, missing: Iterable[Artifact]) -> bytes:
        """Let Pkg fetch artifacts; returns what it says."""
        wanted = " ".join(one.tree for one in missing)
        self._registries()
        env = {**self._network_environment(), "HEADSTART_WANTED": wanted}
        return self._ask("artifacts.jl", self._folders(), env).err

    def _network_environment(self) -> dict[str, str]:
        return {
            **self._shop.environment(self._fetched),
            **self._network,
            "JULIA_PKG_PRECOMPILE_AUTO": "0",
        }

    def _registries(self) -> None:
        """Copy the user's registries into the depot that Pkg fetches into: it brings them up to date."""
        fetched = os.path.join(self._shop.outside(self._fetched), "registries")
        if os.path.isdir(fetched):
            return
        os.makedirs(fetched)
        for depot in self._depots:
            folder = os.path.join(depot, "registries")
            for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
                origin, copy = os.path.join(folder, name), os.path.join(fetched, name)
                if os.path.exists(copy):
                    continue
                if os.path.isdir(origin):
                    shutil.copytree(origin, copy, symlinks=True)
                else:
                    shutil.copyfile(origin, copy)

    def _ask(self, script: str, words: Iterable[str], env: Mapping[str, str]) -> Finished:
        """Run one of the recipe's scripts; whether it went well is for the caller to decide."""
        shop = self._shop
        command: Command = shop.command(shop.julia(shop.recipe(script), *words), env)
        return self._run(command, self._log)


def _called(one: Artifact) -> str:
    return f"artifact {one.name} of {one.package.name}"
