"""Building the images of a release, and testing each until a start compiles nothing.

One round builds what is missing for every target that is not yet good, and starts the smoke script on it. What
a start still compiles joins the statements that the next round replays. A system image that all statements go
into is then built anew; where there is a startup environment only that is, which takes seconds.

What is left over is asked for in two ways. Julia prints of a method that ``invoke`` has called the signature
that it was called with, by which ``precompile`` finds another, more specific method, whose code is there
already: ``repeat(::Char, ::Integer)`` of 1.11 is behind ``repeat(::Char, ::Int64)`` (base/strings/string.jl,
1.11.1:558).
"""

import contextlib
import dataclasses
import os
import queue
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from headstart.build.caches import check_caches, forget, forget_all, tidy
from headstart.build.plan import STARTUP_FOLDER, image_code, image_record
from headstart.build.recipe import Workshop, failed_extension
from headstart.build.smoke import SmokeTest
from headstart.build.sources import write_file
from headstart.build.startup import (
    PARENT,
    PARENT_UUID,
    Modules,
    replay_beside,
    startup_extensions,
    startup_files,
)
from headstart.build.trees import open_folders
from headstart.errors import BuildError
from headstart.image import check_targets, recorded_targets
from headstart.julia import Target
from headstart.openscript import OPEN_LAUNCHER_PATH, open_launcher
from headstart.process import Command, Finished
from headstart.project import Local, Package
from headstart.release import ImageRecord, Release
from headstart.script import LAUNCHER_PATH, launcher
from headstart.wording import counted

T = TypeVar("T")
ROUNDS: Final = 3
"""How often an image may be built until its smoke test compiles nothing."""
_CHARACTER: Final = re.compile(r"\bChar\(0x([0-9a-f]{8})\)")
Must = Callable[[Command, str], Finished]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """What a script was seen to do in an ordinary Julia."""

    script: tuple[str, ...]
    """The words after Julia's options."""
    statements: frozenset[str]
    """Lines that ask for what it compiled."""
    loaded: frozenset[str]
    """UUIDs of the packages that it had loaded in the end."""
    extensions: frozenset[tuple[str, str]] = frozenset()
    """UUID and name of the extensions among them."""


class ImageBuilder:
    """Builds all images of one release.

    Args:
        shop: where the release is made.
        skeleton: the release's record, without images.
        must: runs a command, and raises when it fails.
        step: tells about a step.
        log: the path of the full log, for complaints.
        parallel: how many targets to build at once.
    """

    def __init__(
        self,
        shop: Workshop,
        skeleton: Release,
        must: Must,
        step: Callable[[str], None],
        *,
        log: str,
        parallel: int,
    ) -> None:
        self._shop = shop
        self._plan = shop.plan
        self._inputs = shop.plan.inputs
        self._made = shop.outside(shop.plan.path)
        self._skeleton = skeleton
        self._must = must
        self._step = step
        self._log = log
        self._parallel = parallel
        self._seconds: dict[Target, float] = {}
        self._whole = True
        """Whether the next round makes everything anew, and not the startup environment alone."""

    def build(self, traced: Sequence[Traced]) -> tuple[ImageRecord, ...]:
        """Build and test.

        Args:
            traced: what the scripts compile; the last one must compile nothing in the end.

        Raises:
            BuildError: something does not compile, is not what it should be, or still compiles at a start.
        """
        groups = self._groups(traced)
        modules = self._modules(traced)
        smoked = traced[-1]
        key = self._trigger(smoked)
        pending = self._inputs.targets
        found: dict[str, ImageRecord] = {}
        left: dict[Target, frozenset[str]] = {}
        faulty: tuple[Target, ...] = ()
        layered = self._inputs.has_image and self._inputs.has_startup
        rebuilt = not layered
        for number in range(1, ROUNDS + 1 + layered):
            self._startup(groups, modules)
            found |= {record.target: record for record in self._round(number, pending, groups)}
            self._whole = not self._inputs.has_startup
            images = tuple(found[target.level] for target in self._inputs.targets if target.level in found)
            self._launcher(images)
            left = {target: self._smoke(target, smoked.script) for target in pending}
            faulty = tuple(target for target in pending if left[target])
            if not faulty:
                return images
            again = {line for target in faulty for line in replayable("".join(left[target]))}
            fresh = (again | set(map(_invoked, again))) - groups[key]
            if not fresh:
                if self._foreign(left):
                    break
                if rebuilt:
                    self._accept(left)
                    return images
                # What no package image can hold, a system image can: it is made once more, with all that came
                # up.
                rebuilt = self._whole = True
            groups[key] |= fresh
            if not self._inputs.has_startup:
                # A startup environment is of all targets, and what is compiled of it must be of the same text.
                pending = faulty
        raise BuildError(
            f"the smoke test of {faulty[0].level} still compiles {counted(len(left[faulty[0]]), 'method')}: "
            + "; ".join(line.strip() for line in sorted(left[faulty[0]])[:3]),
            hint="what a script defines itself is compiled at every start: move it into a package; "
            f"the full log is {self._log}",
        )

    def _foreign(self, left: Mapping[Target, frozenset[str]]) -> bool:
        """Whether anything is left that the release itself can and must hold ready.

        A method that Julia's system image knows, but has no code for, is compiled by each process that calls
        it: a package image keeps code for new signatures only (``src/precompile_utils.c``, 1.10 and 1.11). A
        system image holds them all.
        """
        own = (*(package.name for package in self._plan.packages), *sorted(self._plan.extensions))
        names = "|".join(map(re.escape, own))
        foreign = re.compile(rf"\b(Main|{PARENT}\w*|{names})\.")
        return not self._inputs.has_startup or any(
            foreign.search(line) for lines in left.values() for line in lines
        )

    def _accept(self, left: Mapping[Target, frozenset[str]]) -> None:
        lines = sorted(set().union(*left.values()))
        self._step(
            f"at each start up to {counted(len(lines), 'method')} of Julia's own will be compiled: Julia "
            f"brings no code for them, and package images can hold none, such as {lines[0].strip()}"
        )

    def _groups(self, traced: Sequence[Traced]) -> dict[tuple[Package, ...], frozenset[str]]:
        groups: dict[tuple[Package, ...], frozenset[str]] = {}
        for one in traced:
            key = self._trigger(one)
            groups[key] = groups.get(key, frozenset()) | one.statements
        return groups

    def _modules(self, traced: Sequence[Traced]) -> Modules:
        modules: dict[tuple[Package, ...], frozenset[tuple[str, str]]] = {}
        for one in traced:
            key = self._trigger(one)
            modules[key] = modules.get(key, frozenset()) | one.extensions
        return modules

    def _trigger(self, one: Traced) -> tuple[Package, ...]:
        """The project's own packages, direct dependencies and itself, that a script has loaded.

        Those in the system image are there anyway. From 1.11 on they do not count as loaded before somebody
        asks for them by name (``explicit_loaded_modules`` in ``base/loading.jl``, 1.11.1:2327), so what waited
        for one of them would wait in vain where only another package uses it.
        """
        project = self._inputs.project.project
        chosen = [
            package
            for package in self._plan.packages
            if package.uuid in {*project.dependencies.values(), project.uuid} & one.loaded
            and package not in self._plan.in_image
        ]
        return tuple(sorted(chosen, key=lambda package: package.name))

    def _startup(self, groups: dict[tuple[Package, ...], frozenset[str]], modules: Modules) -> None:
        if not self._inputs.has_startup:
            return
        replay = replay_beside(self._inputs.recipe["replay.jl"])
        for path, text in startup_files(groups, modules, replay).items():
            self._rewrite(f"{STARTUP_FOLDER}/{path}", text, program=False)

    def _rewrite(self, path: str, text: str, *, program: bool) -> None:
        """Write a file of the release, in place of what an earlier round wrote."""
        place = os.path.join(self._made, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place)
        write_file(place, text.encode(), program=program)

    def _round(
        self, number: int, pending: Sequence[Target], groups: dict[tuple[Package, ...], frozenset[str]]
    ) -> list[ImageRecord]:
        again = f", round {number}" if number > 1 else ""
        statements = set().union(*groups.values())
        file = self._shop.scratch("trace", f"statements-{number}")
        write_file(self._shop.outside(file), "".join(sorted(statements)).encode(), program=False)
        what = "compiling" if self._inputs.has_image else "compiling packages,"
        for target in pending:
            self._step(f"image {target.level}{again}: {what} with {len(statements)} statements")
        extensions = tuple(startup_extensions(groups))
        jobs = [partial(self._image, target, file, extensions) for target in pending]
        return side_by_side(jobs, self._parallel)

    def _image(self, target: Target, statements: str, extensions: tuple[str, ...]) -> ImageRecord:
        """One image, or what has to be made anew of it."""
        shop = self._shop
        os.makedirs(shop.outside(shop.depot(target)), exist_ok=True)
        system = 0
        if self._inputs.has_image:
            if self._whole:
                self._system_image(target, statements)
            system = os.path.getsize(shop.outside(shop.image(target)))
        count = size = 0
        if self._inputs.has_packages:
            count, size = self._packages(target, extensions)
        code = image_code(self._inputs, target, system=system, packages=size, count=count)
        return image_record(target, code, seconds=self._seconds[target])

    def _timed(self, target: Target, command: Command, what: str) -> Finished:
        done = self._must(command, what)
        self._seconds[target] = self._seconds.get(target, 0.0) + done.seconds
        return done

    def _system_image(self, target: Target, statements: str) -> None:
        shop = self._shop
        image = shop.outside(shop.image(target))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(image)
        self._compiled(target, shop.compile(target, statements), "the image")
        self._timed(target, shop.link(target), f"the image for {target.level} does not link")
        os.unlink(shop.outside(shop.object(target)))
        with open(image, "rb") as file:
            found = recorded_targets(file, self._inputs.capabilities.image_layout, f"the image {image}")
        check_targets(found, target, f"the image for {target.level}")
        os.chmod(image, 0o444)
        size = os.path.getsize(image)
        self._step(f"image {target.level}: {size / 1e6:.0f} MB, records {found[0].name} as it should")

    def _packages(self, target: Target, extensions: tuple[str, ...]) -> tuple[int, int]:
        """Compile the depot of a target: how many packages it holds, and bytes."""
        shop = self._shop
        depot = shop.outside(shop.depot(target))
        if not self._whole:
            forget(depot, (PARENT, *extensions))
        else:
            # A new system image leaves none of them valid.
            forget_all(depot)
            if self._plan.on_top:
                self._compiled(target, shop.package_images(target, "precompile.jl", self._plan.on_top))
            if self._inputs.has_image and self._inputs.capabilities.stdlib_anew:
                self._step(f"image {target.level}: compiling the standard library on top of it")
                self._compiled(target, shop.package_images(target, "stdlib.jl"))
        if self._inputs.has_startup:
            parent = Package(name=PARENT, uuid=PARENT_UUID, source=Local("startup"), dependencies=())
            everything = (*self._plan.packages, parent)
            self._compiled(target, shop.package_images(target, "precompile.jl", everything))
        tidy(depot)
        count, size = check_caches(depot, target, self._inputs.capabilities.image_layout)
        self._step(f"image {target.level}: {count} package images, {size / 1e6:.0f} MB, as they should be")
        return count, size

    def _compiled(self, target: Target, command: Command, what: str = "a package image") -> None:
        done = self._timed(target, command, f"{what} for {target.level} does not compile")
        # Julia itself goes on without the extension.
        name = failed_extension(done.err)
        if name:
            raise BuildError(f"{name} does not compile for {target.level}", hint=f"the full log is {self._log}")

    def _launcher(self, images: tuple[ImageRecord, ...]) -> None:
        release = dataclasses.replace(self._skeleton, images=images)
        self._rewrite(LAUNCHER_PATH, launcher(release), program=True)
        text = open_launcher(release, self._inputs.capabilities.user_depot)
        self._rewrite(OPEN_LAUNCHER_PATH, text, program=True)
        open_folders(self._shop.root)

    def _smoke(self, target: Target, script: tuple[str, ...]) -> frozenset[str]:
        who = "as nobody, " if self._shop.privileged else ""
        self._step(f"smoke test of {target.level}: read-only, {who}must compile nothing")
        return SmokeTest(self._shop, self._must, script).left(target)


def replayable(trace: str) -> list[str]:
    """The statements of a trace that an image can replay: what a script defined itself is in no package.

    Julia prints a character among a type's parameters by its bits, in a form that it does not read back.
    """
    return [
        _CHARACTER.sub(r"Base.reinterpret(Base.Char, 0x\1)", line) + "\n"
        for line in trace.splitlines()
        if line.startswith("precompile(") and "Main." not in line and "##" not in line.partition("Tuple")[0]
    ]


def _invoked(statement: str) -> str:
    """The same statement, of the methods behind the one that its signature chooses."""
    return f"invoked{statement.removeprefix('precompile')}"


def side_by_side(jobs: Sequence[Callable[[], T]], width: int) -> list[T]:
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
