"""The release's depot: the packages and artifacts that the lock names, checked against its tree hashes.

The lock is law. What it names is looked for in the user's depots; what is not there, or is not what it should
be, Julia's own Pkg fetches, and then the same check decides. Nothing is resolved anew.
"""

import os
from collections.abc import Iterable, Mapping
from typing import IO, Final

from headstart.build.recipe import Workshop, said
from headstart.build.trees import copy_sources, git_tree, link_outward
from headstart.errors import BuildError
from headstart.gittree import version_slug
from headstart.process import Command, Runner
from headstart.project import Package, Tracked

_ARTIFACT_FILES: Final = ("JuliaArtifacts.toml", "Artifacts.toml")
_MARK: Final = "headstart-artifact:"


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
        self._fetched = shop.outside(shop.scratch("fetched"))
        self._has_fetched = False
        self._complaint = ""

    def packages(self) -> int:
        """Copy the packages that the lock knows by their tree; returns how many.

        Raises:
            BuildError: one cannot be had, or is not what the lock says.
        """
        wanted = [
            (package, package.source)
            for package in self._shop.plan.inputs.project.lock.packages
            if isinstance(package.source, Tracked)
        ]
        for package, source in wanted:
            slug = version_slug(package.uuid, source.tree, 5)
            places = (f"packages/{package.name}/{slug}", f"packages/{package.name}/{slug[:4]}")
            self._take(f"package {package.name}", source.tree, places)
        return len(wanted)

    def artifacts(self) -> int:
        """Copy the artifacts that the packages take on this platform; returns how many.

        Raises:
            BuildError: one cannot be had, or is not what ``Artifacts.toml`` says.
        """
        files = list(self._artifact_files())
        if not files:
            return 0
        shop = self._shop
        done = self._checked(
            shop.command(
                shop.julia(shop.recipe("artifacts.jl"), *files), shop.environment(shop.scratch("depot"))
            ),
            "the packages' artifacts cannot be listed",
        )
        found = {line.split()[1]: line.split()[2] for line in done.splitlines() if line.startswith(_MARK)}
        for tree, name in sorted(found.items()):
            self._take(f"artifact {name}", tree, (f"artifacts/{tree}",))
        return len(found)

    def _artifact_files(self) -> Iterable[str]:
        root = f"{self._shop.plan.path}/project"
        for package in self._shop.plan.packages:
            folder = self._folder(package, root)
            for name in _ARTIFACT_FILES:
                if os.path.exists(self._shop.outside(f"{folder}/{name}")):
                    yield f"{folder}/{name}"
                    break

    def _folder(self, package: Package, root: str) -> str:
        if isinstance(package.source, Tracked):
            slug = version_slug(package.uuid, package.source.tree, 5)
            return f"{self._shop.plan.path}/depot/packages/{package.name}/{slug}"
        place = self._shop.plan.inputs.project.places.get(package.uuid, "")
        return f"{root}/{place}" if place else root

    def _take(self, what: str, tree: str, places: tuple[str, ...]) -> None:
        last = f"it is in none of {', '.join(self._depots) or 'your depots (there are none)'}"
        for depot in (*self._depots, None):
            folder = depot if depot is not None else self._fetch()
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
                        return
                    last = f"{origin} has tree {actual}"
        raise BuildError(
            f"{what} with tree {tree} cannot be had: {last}{self._complaint}",
            hint="restore it with `julia --project=. -e 'import Pkg; Pkg.instantiate()'`, and build again; "
            f"the full log is {self._log.name}",
        )

    def _fetch(self) -> str:
        """Let Pkg fetch, once, into a depot of its own that starts with the user's registries."""
        if not self._has_fetched:
            self._has_fetched = True
            os.makedirs(self._fetched)
            registries = next(
                (f"{depot}/registries" for depot in self._depots if os.path.isdir(f"{depot}/registries")), ""
            )
            if registries:
                os.symlink(registries, os.path.join(self._fetched, "registries"))
            shop = self._shop
            env = {
                **shop.environment(shop.scratch("fetched")),
                **self._network,
                "JULIA_PKG_PRECOMPILE_AUTO": "0",
            }
            # Whether it went well is decided by what is there afterwards.
            done = self._run(shop.command(shop.julia(shop.recipe("instantiate.jl")), env), self._log)
            self._complaint = f", and Pkg says: {said(done.err)}" if done.code else ""
        return self._fetched

    def _checked(self, command: Command, what: str) -> str:
        done = self._run(command, self._log)
        if done.code != 0:
            raise BuildError(f"{what} (exit code {done.code})", hint=f"the full log is {self._log.name}")
        return done.out.decode(errors="replace")
