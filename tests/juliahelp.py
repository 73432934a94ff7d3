"""Real Julias for tests: where they are, and how a test starts one.

Tests run on the usual one, and on those that HEADSTART_TEST_JULIAS names: paths of programs, colons between.
"""

import functools
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart.julia import JuliaVersion

REPO = Path(__file__).resolve().parent.parent
JETS = REPO / "examples" / "jets"
BUILDS = REPO / ".cache" / "test-builds"
"""Where builds are kept from one run of the tests to the next; each Julia has a folder of its own there."""
# Leaf first: Debian's build of 1.5.3 crashes when precompiling a package makes it precompile another.
JETS_PACKAGES = ("FourMomenta", "HepMCAscii", "JetClustering", "JetHistograms", "JetAnalysis")


def find_julia(env: Mapping[str, str]) -> Path | None:
    """HEADSTART_JULIA, else what `make` fetched into the checkout's cache."""
    given = env.get("HEADSTART_JULIA")
    if given:
        return Path(given)
    found = sorted((REPO / ".cache" / "julia").glob("**/bin/julia"))
    return found[0] if found else None


def named_julias(env: Mapping[str, str]) -> dict[str, Path | None]:
    """The usual Julia and the others, each by a name for test ids and folders."""
    others = [Path(path) for path in env.get("HEADSTART_TEST_JULIAS", "").split(":") if path]
    found: dict[str, Path | None] = {path.parent.parent.name: path for path in others}
    assert len(found) == len(others), "the folders of HEADSTART_TEST_JULIAS must have different names"
    return {"usual": find_julia(env), **found}


JULIAS = named_julias(os.environ)


def library_path(julia: Path) -> str | None:
    """Directories of a tree unpacked from Debian's packages, which does not know where it lies."""
    prefix = julia.resolve().parent.parent
    if prefix == Path("/usr"):
        return None
    places = [p.parent for p in sorted(prefix.glob("lib/*/libjulia.so*"))]
    return f"{places[0]}:{places[0] / 'julia'}" if places else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StockJulia:
    """A Julia with a depot of its own, away from the user's."""

    name: str
    program: Path
    home: Path

    @property
    def builds(self) -> Path:
        """Where what it builds is kept."""
        return BUILDS if self.name == "usual" else BUILDS / self.name

    @property
    def version(self) -> JuliaVersion:
        """What it says."""
        return _version(self)

    @property
    def share(self) -> Path:
        """The depot that comes with it."""
        return self.program.resolve().parent.parent / "share" / "julia"

    def environment(self) -> dict[str, str]:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}
        # the empty entry is where Julia keeps the caches of its own standard library (from 1.11 on)
        env["JULIA_DEPOT_PATH"] = f"{self.home / 'depot'}:"
        libraries = library_path(self.program)
        return env if libraries is None else env | {"LD_LIBRARY_PATH": libraries}

    def run(self, *args: str, project: Path = JETS) -> subprocess.CompletedProcess[str]:
        argv = [str(self.program), "--startup-file=no", "--color=no", f"--project={project}", *args]
        return subprocess.run(
            argv,
            env=self.environment(),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


@functools.cache
def _version(julia: StockJulia) -> JuliaVersion:
    done = julia.run("-e", "print(VERSION)")
    assert done.returncode == 0, done.stderr
    return JuliaVersion.parse(done.stdout)


@pytest.fixture(scope="session")
def stocked() -> dict[str, StockJulia]:
    """Those made so far: tests in random order ask for each of them again and again."""
    return {}


@pytest.fixture(scope="session", params=JULIAS)
def julia(
    request: pytest.FixtureRequest, stocked: dict[str, StockJulia], tmp_path_factory: pytest.TempPathFactory
) -> StockJulia:
    """Each Julia that tests are to run on."""
    name = str(request.param)
    program = JULIAS[name]
    if program is None:
        pytest.skip("no Julia: set HEADSTART_JULIA, or let `make` fetch one")
    assert program.is_file(), f"{program} is no Julia"
    if name not in stocked:
        stocked[name] = StockJulia(name=name, program=program, home=tmp_path_factory.mktemp("julia-home"))
    return stocked[name]


COUNTERS = REPO / "src" / "headstart" / "data" / "counters.jl"


def measures(version: JuliaVersion) -> tuple[tuple[str, ...], ...]:
    """Words before a script that make ``compiled`` say what it compiles.

    Up to 1.8 by the list, which later names also what came ready from an image; then by Julia's own counters.
    """
    if version < JuliaVersion.parse("1.9"):
        return (("--trace-compile=stderr",),)
    return ((str(COUNTERS),),)


def compiled(done: subprocess.CompletedProcess[str]) -> frozenset[str]:
    """What a start says that it compiled: statements, or a line with nanoseconds and bytes where there are."""
    lines = [line.strip() for line in done.stderr.splitlines()]
    counted = [line for line in lines if line.startswith("headstart-compiled: ")][-1:]
    return frozenset(line for line in lines if line.startswith("precompile(")) | (
        frozenset(counted) - {"headstart-compiled: 0 0"}
    )
