"""The commands of a build. All of them run inside a mount namespace in which the work stands at its final path.

Everything that a command reads or writes is below ``/cvmfs/<repository>``: the release at its own place, its
Julia at its own, and what is thrown away below ``.build``. So no path of the builder's can get into an image.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from headstart.build.plan import STARTUP_FOLDER, BuildPlan, image_depot, image_path
from headstart.gittree import version_slug
from headstart.julia import Target
from headstart.namespace import Bind, wrap
from headstart.process import Command
from headstart.project import Package, Tracked
from headstart.script import LAUNCHER_PATH, own_depots

BUILD: Final = ".build"
NOBODY: Final = 65534
_TETHER: Final = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"
"""PR_SET_PDEATHSIG, SIGKILL: what a build has started dies with it, however it dies."""
_TERMINAL: Final = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"

WAYS: Final = ("pipe", "file", "terminal")
"""What standard output may be. Julia compiles printing for each of them anew."""
LOADED: Final = ".loaded"
"""Ending of the file that names the packages which a traced script has loaded."""
_EXTENSION: Final = re.compile(r"Error during loading of extension (\S+) of (\S+?),")
_FAILED: Final = "headstart-failed: "
_PLACE: Final = "in expression starting at "


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where a plan is carried out.

    Every path but ``root`` is one inside the namespace.
    """

    plan: BuildPlan
    root: str
    """The directory that stands at ``/cvmfs/<repository>``."""
    compiler: str
    libraries: tuple[str, ...]
    """Paths, inside Julia's tree, of what an image is linked against."""
    privileged: bool
    """Whether this process is root, and so can become somebody else for the smoke test."""

    @property
    def mountpoint(self) -> str:
        """``/cvmfs/<repository>``."""
        return self.plan.inputs.fqrn.mountpoint

    def outside(self, path: str) -> str:
        """Where a path inside is really."""
        return self.root + path.removeprefix(self.mountpoint)

    def scratch(self, *names: str) -> str:
        """A path below what is thrown away."""
        return "/".join((self.mountpoint, BUILD, *names))

    @property
    def program(self) -> str:
        """Julia's program."""
        return f"{self.plan.julia_path}/{self.plan.inputs.julia.executable}"

    @property
    def stock_image(self) -> str:
        """Julia's own system image."""
        return f"{self.plan.julia_path}/{self.plan.inputs.julia.system_image}"

    def image(self, target: Target) -> str:
        """The system image of a target."""
        return f"{self.plan.path}/{image_path(target)}"

    def source(self, package: Package) -> str:
        """Where a package's sources are."""
        if isinstance(package.source, Tracked):
            slug = version_slug(package.uuid, package.source.tree, 5)
            return f"{self.plan.path}/depot/packages/{package.name}/{slug}"
        place = self.plan.inputs.project.places.get(package.uuid, ".")
        return f"{self.plan.path}/project" if place == "." else f"{self.plan.path}/project/{place}"

    def environment(self, depot: str) -> dict[str, str]:
        """What a Julia of the build sees: nothing of the user's."""
        inputs = self.plan.inputs
        julia = inputs.julia
        share = f"{self.plan.julia_path}/{julia.share}"
        movable_caches = inputs.has_packages and inputs.relocatable
        depots = (depot, *own_depots(self.plan.path, share, movable_caches=movable_caches))
        variables = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": self.scratch("home"),
            "TMPDIR": self.scratch("tmp"),
            "LANG": "C.UTF-8",
            "JULIA_DEPOT_PATH": ":".join(depots),
            "JULIA_LOAD_PATH": "@:@stdlib",
            "JULIA_PROJECT": f"{self.plan.path}/project",
            "JULIA_NUM_THREADS": "1",
            "JULIA_NUM_PRECOMPILE_TASKS": "1",
            "JULIA_IMAGE_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "HEADSTART_SHARE": share,
        }
        if julia.library_path:
            variables["LD_LIBRARY_PATH"] = ":".join(
                f"{self.plan.julia_path}/{path}" for path in julia.library_path
            )
        return variables

    def julia(self, *words: str) -> tuple[str, ...]:
        """A start of the stock Julia that works towards a system image."""
        return self.plain_julia(*self.plan.inputs.capabilities.build_options, *words)

    def plain_julia(self, *words: str) -> tuple[str, ...]:
        """A start of the stock Julia."""
        return (self.program, "--startup-file=no", "--history-file=no", "--color=no", *words)

    def command(self, argv: tuple[str, ...], env: Mapping[str, str]) -> Command:
        """Run ``argv`` inside, with everything writable."""
        return self._inside(argv, env, way="pipe")

    def _inside(self, argv: tuple[str, ...], env: Mapping[str, str], *, way: str) -> Command:
        bind = Bind(self.root, self.mountpoint, writable=True)
        return Command(argv=_tethered(through(way, wrap((bind,), argv))), env=env, cwd="/")

    def recipe(self, name: str) -> str:
        """One of the recipe's scripts."""
        return self.scratch("recipe", name)

    def depot(self, target: Target) -> str:
        """The depot of a target's package images."""
        return f"{self.plan.path}/{image_depot(target)}"

    def package_images(self, target: Target, script: str, packages: Iterable[Package] = ()) -> Command:
        """Compile packages into a target's own depot, each with its native code.

        Args:
            target: the CPU level; workers take it from ``JULIA_CPU_TARGET`` (``base/loading.jl``, 1.9:2085).
            script: the recipe that names or loads them.
            packages: what to load, leaf first.
        """
        image = ("-J", self.image(target)) if self.plan.inputs.has_image else ()
        env = self.environment(self.depot(target))
        env |= {"JULIA_CPU_TARGET": target.cpu_target, "JULIA_LOAD_PATH": self._load_path()}
        options = self.plan.inputs.capabilities.cache_options
        return self.command(self.plain_julia(*image, *options, self.recipe(script), *named(packages)), env)

    def _load_path(self) -> str:
        return f"@:@stdlib:{self.plan.path}/{STARTUP_FOLDER}"

    def precompile(self) -> Command:
        """Compile the packages' caches into a depot that is thrown away."""
        env = self.environment(self.scratch("depot"))
        return self.command(self.julia(self.recipe("precompile.jl"), *named(self.plan.packages)), env)

    def trace(self, script: tuple[str, ...], way: str, statements: str) -> Command:
        """Run a script in an ordinary Julia and note what it compiles, and which packages it has loaded.

        Args:
            script: the words after Julia's options.
            way: what standard output is.
            statements: the file for the notes; the packages are noted beside it.
        """
        argv = self.julia(f"--trace-compile={statements}", "-L", self.recipe("loaded.jl"), *script)
        env = {**self.environment(self.scratch("depot")), "HEADSTART_LOADED": statements + LOADED}
        return self._inside(argv, env, way=way)

    def compile(self, target: Target, statements: str) -> Command:
        """Write the image's object code."""
        argv = self.julia(
            *("-C", target.cpu_target, "-O3", "--threads=1"),
            f"--sysimage={self.stock_image}",
            f"--output-o={self.object(target)}",
            *(self.recipe("build_image.jl"), statements, *named(self.plan.in_image)),
        )
        return self.command(argv, self.environment(self.scratch("depot")))

    def object(self, target: Target) -> str:
        """The image's object code, an archive."""
        return self.scratch(f"{target.level}-o.a")

    def link(self, target: Target) -> Command:
        """Link the image."""
        folders = dict.fromkeys(os.path.dirname(path) for path in self.libraries)
        argv = (
            self.compiler,
            *("-shared", "-fPIC", "-o", self.image(target)),
            *("-Wl,--whole-archive", self.object(target), "-Wl,--no-whole-archive"),
            *(f"-L{folder}" for folder in folders),
            *(f"-Wl,-rpath-link,{folder}" for folder in folders),
            *(f"-l:{os.path.basename(path)}" for path in self.libraries),
        )
        return self.command(argv, self.environment(self.scratch("depot")))

    def started(self, target: Target, way: str, words: tuple[str, ...]) -> Command:
        """A start of the finished release, as a node would: read-only, and as nobody where that can be."""
        env = {"HEADSTART_TARGET": target.level, "HEADSTART_QUIET": "1", **self._nobody()}
        return self._smoke((f"{self.plan.path}/{LAUNCHER_PATH}", *words), way, env)

    def baseline(self, way: str, words: tuple[str, ...]) -> Command:
        """The same with stock Julia, for what it compiles on its own."""
        env = {**self.environment(self.scratch("nothing")), **self._nobody()}
        argv = (self.program, "--startup-file=no", *self.plan.inputs.capabilities.run_options, *words)
        return self._smoke(argv, way, env)

    def _nobody(self) -> dict[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/nonexistent",
            "TMPDIR": "/tmp",  # noqa: S108  # Julia's own way to name its files there is safe
            "LANG": "C.UTF-8",
        }

    def _smoke(self, argv: tuple[str, ...], way: str, env: Mapping[str, str]) -> Command:
        bind = Bind(self.root, self.mountpoint, writable=False)
        inside = wrap((bind,), argv, uid=NOBODY if self.privileged else None)
        return Command(argv=_tethered(through(way, inside)), env=env, cwd="/")


def named(packages: Iterable[Package]) -> tuple[str, ...]:
    """Packages as the recipe's scripts take them."""
    return tuple(f"{package.uuid}={package.name}" for package in packages)


def _tethered(argv: tuple[str, ...]) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", _TETHER, *argv)


def through(way: str, argv: tuple[str, ...]) -> tuple[str, ...]:
    """Start ``argv`` with another kind of standard output; with ``pipe`` it is what the runner gives it."""
    if way == "file":
        # To libuv, and so to Julia, the null device is a file like any other.
        return ("/bin/sh", "-c", 'exec "$@" >/dev/null', "sh", *argv)
    if way == "terminal":
        return (sys.executable, "-I", "-S", "-c", _TERMINAL, *argv)
    return argv


def failed_package(output: bytes) -> str:
    """The package that ``precompile.jl`` names as the one that failed; empty when it names none."""
    for line in output.decode(errors="replace").splitlines():
        if line.startswith(_FAILED):
            return line.removeprefix(_FAILED).strip()
    return ""


def failed_extension(output: bytes) -> str:
    """The extension that Julia says it could not load (``base/loading.jl``, 1.10:1301); empty when none."""
    found = _EXTENSION.search(output.decode(errors="replace"))
    return f"extension {found[1]} of {found[2]}" if found else ""


def said(output: bytes) -> str:
    """What a program says went wrong: its error line, those after it, and where; else its last line."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if line.startswith("ERROR:"):
            rest = lines[number + 1 :]
            chosen = [
                line,
                *(one for one in rest[:3] if not one.startswith(("Stacktrace", "[", _PLACE, _FAILED))),
            ]
            place = next((one for one in rest if one.startswith(_PLACE)), "").removeprefix(_PLACE)
            return " ".join(chosen)[:500] + (f" at {place}"[:300] if place else "")
    return lines[-1][:300] if lines else ""
