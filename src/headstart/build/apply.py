"""Carrying out a plan: the steps of a build, each of which leaves something that the next one needs."""

import contextlib
import dataclasses
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import IO, Final, TypeVar

from headstart.build.depot import DepotBuilder
from headstart.build.plan import BuildPlan, image_record, release_record
from headstart.build.recipe import WAYS, Workshop, failed_package, said
from headstart.build.smoke import SmokeTest
from headstart.build.sources import lay_out, write_file
from headstart.build.staging import Stage
from headstart.build.trees import check_julia, copy_julia, link_tree, mark, open_folders, records
from headstart.console import Console
from headstart.errors import BuildError, NamespaceError
from headstart.image import check_targets, recorded_targets
from headstart.julia import Target
from headstart.machine import JuliaInstall
from headstart.names import Sha256
from headstart.process import Command, Finished, Runner
from headstart.release import RELEASE_FILE, ImageRecord, Release
from headstart.script import LAUNCHER_PATH, launcher

T = TypeVar("T")
_ROUNDS: Final = 3
"""How often an image may be built until its smoke test compiles nothing."""


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

    def run(self) -> None:
        """All steps, in order."""
        self._julia()
        self._workplace()
        self._allowed()
        self._depot()
        self._step(f"precompiling {len(self._plan.packages)} packages, leaf first")
        done = self._means.run(self._shop.precompile(), self._log)
        package = failed_package(done.err)
        self._check(done, f"{package or 'a package'} does not precompile")
        statements = self._trace()
        images = self._images(statements)
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
        packages, artifacts = builder.packages(), builder.artifacts()
        means.console.note(f"           {packages} packages and {artifacts} artifacts, as locked")

    def _scripts(self) -> tuple[tuple[str, ...], ...]:
        """What to trace: the workload, the smoke script, and the loading of the packages."""
        settings = self._plan.inputs.settings
        project = f"{self._plan.path}/project"
        names = dict.fromkeys(name for name in (settings.workload, settings.smoke) if name)
        return (("-e", self._loading()), *((f"{project}/{name}",) for name in names))

    def _loading(self) -> str:
        names = [*self._plan.inputs.project.project.dependencies]
        own = self._plan.inputs.project.project.name
        return f"using {', '.join([*names, own] if own else names)}" if names or own else ""

    def _trace(self) -> set[str]:
        scripts = self._scripts()
        self._step(f"tracing what {len(scripts)} scripts compile, each with {len(WAYS)} kinds of output")
        notes = self._shop.scratch("trace")
        starts = [
            (script, way, f"{notes}/{number}-{way}") for number, script in enumerate(scripts) for way in WAYS
        ]
        _side_by_side(
            [
                partial(
                    self._must,
                    self._shop.trace(script, way, file),
                    f"{os.path.basename(script[-1])} fails while it is traced",
                )
                for script, way, file in starts
            ],
            self._means.parallel,
        )
        statements: set[str] = set()
        for _, _, file in starts:
            with (
                contextlib.suppress(FileNotFoundError),
                open(self._shop.outside(file), encoding="utf-8") as lines,
            ):
                statements |= set(replayable(lines.read()))
        return statements

    def _images(self, statements: set[str]) -> tuple[ImageRecord, ...]:
        targets = self._plan.inputs.targets
        pending = targets
        left: dict[Target, frozenset[str]] = {}
        found: dict[str, ImageRecord] = {}
        for number in range(1, _ROUNDS + 1):
            again = f", round {number}" if number > 1 else ""
            for target in pending:
                self._step(f"image {target.level}{again}: compiling with {len(statements)} statements")
            file = self._shop.scratch("trace", f"statements-{number}")
            write_file(self._shop.outside(file), "".join(sorted(statements)).encode(), program=False)
            done = _side_by_side(
                [partial(self._image, target, file) for target in pending], self._means.parallel
            )
            found |= {record.target: record for record in done}
            images = tuple(found[target.level] for target in targets)
            self._launcher(images)
            left = {target: self._smoke(target) for target in pending}
            pending = tuple(target for target in pending if left[target])
            if not pending:
                return images
            fresh = {line for target in pending for line in replayable("".join(left[target]))} - statements
            if not fresh:
                break
            statements |= fresh
        raise BuildError(
            f"the smoke test of {pending[0].level} still compiles {len(left[pending[0]])} methods: "
            + "; ".join(line.strip() for line in sorted(left[pending[0]])[:3]),
            hint="what a script defines itself is compiled at every start: move it into a package; "
            f"the full log is {self._log.name}",
        )

    def _image(self, target: Target, statements: str) -> ImageRecord:
        shop = self._shop
        image = shop.outside(shop.image(target))
        os.makedirs(os.path.dirname(image), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(image)
        compiled = self._must(
            shop.compile(target, statements), f"the image for {target.level} does not compile"
        )
        linked = self._must(shop.link(target), f"the image for {target.level} does not link")
        os.unlink(shop.outside(shop.object(target)))
        with open(image, "rb") as file:
            found = recorded_targets(file, self._plan.inputs.capabilities.image_layout, f"the image {image}")
        check_targets(found, target, f"the image for {target.level}")
        os.chmod(image, 0o444)
        size = os.path.getsize(image)
        self._step(f"image {target.level}: {size / 1e6:.0f} MB, records {found[0].name} as it should")
        return image_record(target, size=size, seconds=compiled.seconds + linked.seconds)

    def _launcher(self, images: tuple[ImageRecord, ...]) -> None:
        path = os.path.join(self._made, LAUNCHER_PATH)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        text = launcher(dataclasses.replace(self._skeleton, images=images))
        write_file(path, text.encode(), program=True)
        open_folders(self._shop.root)

    def _smoke(self, target: Target) -> frozenset[str]:
        settings = self._plan.inputs.settings
        name = settings.smoke or settings.workload
        script = f"{self._plan.path}/project/{name}" if name else ""
        who = "as nobody, " if self._means.privileged else ""
        self._step(f"smoke test of {target.level}: read-only, {who}must compile nothing")
        return SmokeTest(self._shop, self._must, script, self._loading()).left(target)

    def _finish(self, images: tuple[ImageRecord, ...]) -> None:
        self._step("recording every file")
        mark(self._made)
        release = dataclasses.replace(
            self._skeleton,
            images=images,
            inputs=dict(self._plan.digests),
            files=records(self._made),
            built=self._means.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        write_file(os.path.join(self._made, RELEASE_FILE), release.to_bytes(), program=False)
        self._stage.place(self._made, self._stage.release(release.stack, release.id))
        self._step(f"staged {release.stack} {release.id}")


def replayable(trace: str) -> list[str]:
    """The statements of a trace that an image can replay: what a script defined itself is in no package."""
    return [
        line + "\n"
        for line in trace.splitlines()
        if line.startswith("precompile(") and "Main." not in line and "##" not in line.partition("Tuple")[0]
    ]


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


def _side_by_side(jobs: Sequence[Callable[[], T]], width: int) -> list[T]:
    """Do several things at once and return what they return, in order; the first error ends it.

    The threads do not keep this process alive: when it is interrupted it goes, and what it started goes too.
    """
    waiting: queue.SimpleQueue[tuple[int, Callable[[], T]]] = queue.SimpleQueue()
    ended: queue.SimpleQueue[tuple[int, T] | BaseException] = queue.SimpleQueue()
    for item in enumerate(jobs):
        waiting.put(item)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                number, job = waiting.get_nowait()
                try:
                    ended.put((number, job()))
                except BaseException as error:  # noqa: BLE001  # handed over to the thread that waits
                    ended.put(error)
                    return

    for _ in range(min(width, len(jobs))):
        threading.Thread(target=work, daemon=True).start()
    found: dict[int, T] = {}
    for _ in jobs:
        end = ended.get()
        if isinstance(end, BaseException):
            raise end
        found[end[0]] = end[1]
    return [found[number] for number in range(len(jobs))]
