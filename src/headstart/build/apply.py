"""Carrying out a plan: the steps of a build, each of which leaves something that the next one needs."""

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import IO

from headstart.build.complaints import unbuilt
from headstart.build.depot import Artifact, DepotBuilder
from headstart.build.images import ImageBuilder, Traced, replayable, side_by_side
from headstart.build.opened import Watch
from headstart.build.plan import BuildPlan, release_record
from headstart.build.recipe import LOADED, WAYS, Workshop, failed_extension, failed_package, said
from headstart.build.smoke import SmokeTest
from headstart.build.sources import lay_out, write_file
from headstart.build.staging import Stage
from headstart.build.trees import check_julia, copy_julia, link_tree, mark, records
from headstart.console import Console
from headstart.errors import BuildError, NamespaceError
from headstart.machine import JuliaInstall
from headstart.names import Sha256
from headstart.process import Command, Finished, Runner
from headstart.release import RELEASE_FILE, ImageRecord, Record, Release
from headstart.wording import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a build works with."""

    install: JuliaInstall
    compiler: str
    depots: tuple[str, ...]
    """The user's depots."""
    network: Mapping[str, str]
    """Variables that say how to reach the network, for Julia's own Pkg."""
    run: Runner
    console: Console
    now: datetime
    privileged: bool
    parallel: int
    """How many images to build at once; each takes a core and some 2 GB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A release that is staged."""

    release: Release
    digest: Sha256
    path: str
    new: bool
    """Whether it was built now."""


def apply(plan: BuildPlan, stage: Stage, means: Means) -> Built:
    """Build a release, or find it already staged.

    Raises:
        BuildError: a step failed; the log says everything, and nothing but the log is left.
        NamespaceError: the final path cannot be had.
    """
    settings = plan.inputs.settings
    found = stage.staged(settings.name, plan.id)
    new = found is None
    if found is None:
        os.makedirs(os.path.dirname(stage.log(plan.id)), exist_ok=True)
        with open(stage.log(plan.id), "wb") as log:
            _Build(plan, stage, means, log).run()
        found = stage.staged(settings.name, plan.id)
        if found is None:
            raise BuildError(f"{stage.release(settings.name, plan.id)} has gone", hint="build again")
    else:
        means.console.step(f"{settings.name} {plan.id} is already staged: nothing to build")
    release, digest = found
    stage.announce(release.fqrn, release.stack, release.id, release.julia)
    return Built(release=release, digest=digest, path=stage.release(release.stack, release.id), new=new)


class _Build:
    def __init__(self, plan: BuildPlan, stage: Stage, means: Means, log: IO[bytes]) -> None:
        self._plan = plan
        self._stage = stage
        self._means = means
        self._log = log
        self._shop = Workshop(
            plan=plan,
            root=os.path.join(stage.work, str(plan.id)),
            compiler=means.compiler,
            libraries=_libraries(plan, means.install),
            privileged=means.privileged,
        )
        self._made = self._shop.outside(plan.path)
        self._skeleton = release_record(plan.inputs, plan.id, ())
        self._left_out: tuple[Artifact, ...] = ()

    def run(self) -> None:
        """All steps, in order."""
        self._julia()
        self._workplace()
        self._allowed()
        self._depot()
        self._precompile()
        traced = self._trace()
        images = ImageBuilder(
            self._shop,
            self._skeleton,
            self._must,
            self._step,
            log=self._log.name,
            parallel=self._means.parallel,
        ).build(traced)
        self._finish(images)

    def _step(self, text: str) -> None:
        self._means.console.step(text)
        self._log.write(f"\n=== {text}\n".encode())
        self._log.flush()

    def _must(self, command: Command, what: str) -> Finished:
        done = self._means.run(command, self._log)
        self._check(done, what)
        return done

    def _check(self, done: Finished, what: str) -> None:
        if done.code == NamespaceError.exit_code and b"headstart: " in done.err:
            raise NamespaceError(said(done.err).removeprefix("headstart: "))
        if done.code != 0:
            raise BuildError(
                f"{what}: {said(done.err) or said(done.out) or f'exit code {done.code}'}",
                hint=f"the full log is {self._log.name}",
            )

    def _julia(self) -> None:
        place = self._stage.julia(self._plan.julia)
        if not os.path.isdir(place):
            self._step(f"copying Julia {self._plan.julia}")
            made = os.path.join(self._stage.work, "julia")
            copy_julia(self._means.install.prefix, self._plan.inputs.julia, made)
            self._stage.place(made, place)
        else:
            check_julia(self._plan.inputs.julia, place)
        link_tree(place, self._shop.outside(self._plan.julia_path))

    def _workplace(self) -> None:
        shop = self._shop
        self._step("laying out the project's sources")
        lay_out(self._plan.inputs.project.files, os.path.join(self._made, "project"))
        os.makedirs(os.path.join(self._made, "depot"), exist_ok=True)
        for name in ("recipe", "depot", "home", "tmp", "trace"):
            os.makedirs(shop.outside(shop.scratch(name)))
        for name, text in self._plan.inputs.recipe.items():
            write_file(shop.outside(shop.recipe(name)), text.encode(), program=False)

    def _allowed(self) -> None:
        """Find out early whether the final path can be had at all."""
        self._must(
            self._shop.command(("/bin/sh", "-c", 'test -d "$1"', "sh", self._plan.path), {}), "the namespace"
        )

    def _depot(self) -> None:
        means = self._means
        builder = DepotBuilder(self._shop, means.depots, means.network, means.run, self._log)
        self._step("checking packages and artifacts against the lock's tree hashes")
        packages, (taken, left) = builder.packages(), builder.artifacts()
        means.console.note(
            f"           {counted(packages, 'package')} and {counted(len(taken), 'artifact')}, as locked"
        )
        if left:
            names = ", ".join(f"{one.name} of {one.package.name}" for one in left)
            means.console.note(f"           left out, as nothing is fetched on a node: lazy artifacts {names}")
        self._left_out = left

    def _precompile(self) -> None:
        self._step(f"precompiling {counted(len(self._plan.packages), 'package')}, leaf first")
        done = self._means.run(self._shop.precompile(), self._log)
        name = failed_package(done.err)
        package = next((one for one in self._plan.packages if one.name == name), None)
        if package is not None and os.path.exists(
            self._shop.outside(f"{self._shop.source(package)}/deps/build.jl")
        ):
            reason = unbuilt(package, done.err)
            if reason:
                raise BuildError(
                    reason,
                    hint="take a version of it that has artifacts instead, or commit what the script would"
                    f" write as a package of your own; the full log is {self._log.name}",
                )
        self._check(done, f"{name or 'a package'} does not precompile")
        # Julia itself goes on without the extension.
        extension = failed_extension(done.err)
        if extension:
            raise BuildError(f"{extension} does not compile", hint=f"the full log is {self._log.name}")

    def _scripts(self) -> tuple[tuple[str, ...], ...]:
        """What to trace: the loading of the packages, the workload, and last what the smoke test will start."""
        settings = self._plan.inputs.settings
        project = f"{self._plan.path}/project"
        names = dict.fromkeys(name for name in (settings.workload, settings.smoke) if name)
        return (("-e", self._loading()), *((f"{project}/{name}",) for name in names))

    def _loading(self) -> str:
        names = [*self._plan.inputs.project.project.dependencies]
        own = self._plan.inputs.project.project.name
        return f"using {', '.join([*names, own] if own else names)}" if names or own else ""

    def _trace(self) -> tuple[Traced, ...]:
        scripts = self._scripts()
        self._step(f"tracing what {len(scripts)} scripts compile, each with {len(WAYS)} kinds of output")
        notes = self._shop.scratch("trace")
        files = [[(way, f"{notes}/{number}-{way}") for way in WAYS] for number, _ in enumerate(scripts)]
        side_by_side(
            [
                partial(
                    self._must,
                    self._shop.trace(script, way, file),
                    f"{os.path.basename(script[-1])} fails while it is traced",
                )
                for script, noted in zip(scripts, files, strict=True)
                for way, file in noted
            ],
            self._means.parallel,
        )
        self._refuse_lazy()
        return tuple(self._traced(script, noted) for script, noted in zip(scripts, files, strict=True))

    def _traced(self, script: tuple[str, ...], noted: list[tuple[str, str]]) -> Traced:
        lines = [line.partition("=") for _, file in noted for line in self._noted(file + LOADED).splitlines()]
        packages = {package.uuid for package in self._plan.packages}
        return Traced(
            script=script,
            statements=frozenset(line for _, file in noted for line in replayable(self._noted(file))),
            loaded=frozenset(identity for identity, _, _ in lines),
            extensions=frozenset(
                (identity, name)
                for identity, _, name in lines
                if name in self._plan.extensions and identity not in packages
            ),
        )

    def _refuse_lazy(self) -> None:
        """Refuse scripts that have fetched what no node would fetch."""
        fetched = os.path.join(self._shop.outside(self._shop.scratch("depot")), "artifacts")
        names = os.listdir(fetched) if os.path.isdir(fetched) else ()
        for one in self._left_out:
            if one.tree in names:
                raise BuildError(
                    f"the stack's scripts use {one.name}, a lazy artifact of {one.package.name}, which the"
                    " release does not hold, and a node fetches nothing",
                    hint=f'say lazy = ["{one.name}"] in Headstart.toml',
                )

    def _noted(self, file: str) -> str:
        with (
            contextlib.suppress(FileNotFoundError),
            open(self._shop.outside(file), encoding="utf-8") as lines,
        ):
            return lines.read()
        return ""

    def _opened(self) -> tuple[str, ...]:
        """What a start with each of the images opens, one after the other: a node fetches it in that order."""
        self._step("noting what a start opens, and in which order")
        top = f"{self._shop.mountpoint}/"
        roots = (self._plan.julia_path, self._plan.path)
        smoke = SmokeTest(self._shop, self._must, self._scripts()[-1])
        with Watch({path.removeprefix(top): self._shop.outside(path) for path in roots}) as watch:
            for target in self._plan.inputs.targets:
                smoke.once(target)
            return watch.seen()

    def _shipped(self, opened: tuple[str, ...], files: Mapping[str, Record]) -> tuple[str, ...]:
        """Those of them that a node has from the repository."""
        top = f"{self._shop.mountpoint}/"
        shipped = {f"{self._plan.path}/{path}".removeprefix(top) for path in files}
        shipped |= {
            f"{self._plan.julia_path}/{path}".removeprefix(top) for path in self._plan.inputs.julia.files
        }
        return tuple(path for path in opened if path in shipped)

    def _finish(self, images: tuple[ImageRecord, ...]) -> None:
        opened = self._opened()
        self._step("recording every file")
        mark(self._made)
        files = records(self._made)
        release = dataclasses.replace(
            self._skeleton,
            images=images,
            opened=self._shipped(opened, files),
            inputs=dict(self._plan.digests),
            files=files,
            built=self._means.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        write_file(os.path.join(self._made, RELEASE_FILE), release.to_bytes(), program=False)
        self._stage.place(self._made, self._stage.release(release.stack, release.id))
        self._step(f"staged {release.stack} {release.id}")


def _libraries(plan: BuildPlan, install: JuliaInstall) -> tuple[str, ...]:
    """Julia's own libraries as they stand in the shipped tree."""
    paths = []
    for name in plan.inputs.capabilities.libraries:
        wanted = f"/lib{name}.so"
        found = next((path for path in install.probe.libraries if wanted in path), None)
        if found is None or not found.startswith(install.prefix + "/"):
            raise BuildError(f"Julia {plan.inputs.version} at {install.prefix} has no lib{name}")
        paths.append(f"{plan.julia_path}/{os.path.relpath(found, install.prefix)}")
    return tuple(paths)
