"""A real Julia for tests: where it is, and how a test starts it."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
JETS = REPO / "examples" / "jets"
# Leaf first: Debian's build of 1.5.3 crashes when precompiling a package makes it precompile another.
JETS_PACKAGES = ("FourMomenta", "HepMCAscii", "JetClustering", "JetHistograms", "JetAnalysis")


def find_julia(env: Mapping[str, str]) -> Path | None:
    """HEADSTART_JULIA, else what `make` fetched into the checkout's cache."""
    given = env.get("HEADSTART_JULIA")
    if given:
        return Path(given)
    found = sorted((REPO / ".cache" / "julia").glob("**/bin/julia"))
    return found[0] if found else None


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

    program: Path
    home: Path

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


@pytest.fixture(scope="session")
def julia(tmp_path_factory: pytest.TempPathFactory) -> StockJulia:
    program = find_julia(os.environ)
    if program is None:
        pytest.skip("no Julia: set HEADSTART_JULIA, or let `make` fetch one")
    assert program.is_file(), f"HEADSTART_JULIA names no file: {program}"
    return StockJulia(program=program, home=tmp_path_factory.mktemp("julia-home"))
