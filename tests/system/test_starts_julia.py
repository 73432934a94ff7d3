"""The scripts of a release with real Julias, whose own system image stands in for one that was built."""

import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import releases
from headstart.julia import Capabilities, capabilities
from headstart.machine import data_text
from headstart.openscript import open_launcher
from headstart.release import Release
from headstart.script import launcher
from juliahelp import StockJulia, library_path

pytestmark = pytest.mark.slow

FOREIGN = "33333333-3333-4333-8333-333333333333"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A release away from its path, and a user who owns all of it."""

    home: Path
    release: Release
    julia: StockJulia
    root: Path

    def start(self, script: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        full = {"PATH": "/usr/bin:/bin", "HOME": str(self.root / "user"), "HEADSTART_QUIET": "1", **env}
        argv = [str(self.home / script), *words]
        return subprocess.run(argv, env=full, capture_output=True, text=True, timeout=600, check=False)

    def stock(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """The same Julia without a release."""
        libraries = library_path(self.julia.program)
        full = {"PATH": "/usr/bin:/bin", "HOME": str(self.root / "user"), **env}
        full |= {} if libraries is None else {"LD_LIBRARY_PATH": libraries}
        argv = [str(self.julia.program), *words]
        return subprocess.run(argv, env=full, capture_output=True, text=True, timeout=600, check=False)


def can(julia: StockJulia) -> Capabilities:
    return capabilities(data_text("julia.toml"), julia.version)


@pytest.fixture
def moved(julia: StockJulia, tmp_path: Path) -> Moved:
    prefix = julia.program.resolve().parent.parent
    done = julia.run("-e", "print(unsafe_string(Base.JLOptions().image_file))")
    libraries = (library_path(julia.program) or "").split(":")
    made = replace(
        releases.release(["x86-64"]),
        julia_version=str(julia.version),
        julia_library_path=tuple(os.path.relpath(path, prefix) for path in libraries if path),
        julia_options=can(julia).run_options,
    )
    tree = tmp_path / "tree"
    home = tree / "stacks/jets" / str(made.id)
    for folder in ("images/x86-64", "bin", "open", "depot", "project"):
        (home / folder).mkdir(parents=True)
    (home / "project/Project.toml").write_text("")
    (home / "images/x86-64/sys.so").symlink_to(done.stdout)
    (tree / "julia").mkdir()
    (tree / "julia" / str(made.julia)).symlink_to(prefix)
    scripts = {"bin/julia": launcher(made), "open/julia": open_launcher(made, can(julia).user_depot)}
    for name, text in scripts.items():
        (home / name).write_text(text)
        (home / name).chmod(0o755)
    (tmp_path / "user").mkdir()
    return Moved(home=home, release=made, julia=julia, root=tmp_path)


def own_project(root: Path) -> Path:
    """A project of the user's, with a package of his own."""
    package = root / "Foreign"
    (package / "src").mkdir(parents=True)
    (package / "Project.toml").write_text(f'name = "Foreign"\nuuid = "{FOREIGN}"\nversion = "0.1.0"\n')
    (package / "src/Foreign.jl").write_text('module Foreign\nsay() = print("foreign")\nend\n')
    (root / "Project.toml").write_text(f'[deps]\nForeign = "{FOREIGN}"\n')
    (root / "Manifest.toml").write_text(
        f'[[Foreign]]\npath = "Foreign"\nuuid = "{FOREIGN}"\nversion = "0.1.0"\n'
    )
    return root


def files(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*")}


def test_a_sealed_start_compiles_nowhere_though_its_user_may_write_everywhere(moved: Moved) -> None:
    """Away from its path a release is in a directory of its user's: it must not be filled with code."""
    project = own_project(moved.root / "own")
    before = files(moved.root)
    code = f'push!(LOAD_PATH, "{project}"); using Foreign; Foreign.say()'
    done = moved.start("bin/julia", "-e", code)
    assert done.returncode == 1, done.stdout
    assert done.stdout == ""
    assert "Foreign" in done.stderr or "mkdir" in done.stderr
    assert files(moved.root) == before
    fine = moved.start("bin/julia", "-e", "print(DEPOT_PATH[end]); exit(4)")
    assert fine.returncode == 4
    assert fine.stdout.endswith("/share/julia")


SHOW = "foreach(println, DEPOT_PATH); println(); foreach(println, LOAD_PATH); println(Base.active_project())"


@pytest.mark.parametrize("given", [None, "", ":", "/mine", "/mine:", ":/mine", "/mine::/other", "~/x:/mine"])
def test_a_session_has_the_users_depots_and_load_path(moved: Moved, given: str | None) -> None:
    project = own_project(moved.root / "own")
    env = {"JULIA_PROJECT": str(project), "JULIA_LOAD_PATH": "@:/load:"}
    env |= {} if given is None else {"JULIA_DEPOT_PATH": given}
    stock = moved.stock("-e", SHOW, **env)
    assert stock.returncode == 0, stock.stderr
    done = moved.start("open/julia", "-e", SHOW, **env)
    assert done.returncode == 0, done.stderr
    wanted, _, load = stock.stdout.partition("\n\n")
    found, _, own_load = done.stdout.partition("\n\n")
    if not wanted.startswith("/"):
        wanted, load = "", stock.stdout.lstrip("\n")
    share = str(moved.julia.program.resolve().parent.parent)
    users = [path for path in wanted.splitlines() if not path.startswith(f"{share}/")]
    ours = [
        str(moved.home / "depot"),
        str(moved.root / "tree/julia" / str(moved.release.julia) / "share/julia"),
    ]
    assert found.splitlines() == [*(users or ["/dev/null"]), *ours]
    assert own_load == load


def test_a_session_compiles_into_its_users_own_depot(moved: Moved) -> None:
    project = own_project(moved.root / "own")
    before = files(moved.home)
    done = moved.start("open/julia", f"--project={project}", "-e", "using Foreign; Foreign.say()")
    assert (done.returncode, done.stdout) == (0, "foreign"), done.stderr
    assert list((moved.root / "user/.julia/compiled").glob("v*/Foreign/*.ji"))
    assert files(moved.home) == before
    nested = 'run(`julia -e "foreach(println, DEPOT_PATH)"`)'
    path = f"{moved.home}/open:/usr/bin:/bin"
    outer = moved.start("open/julia", "-e", "foreach(println, DEPOT_PATH)", PATH=path)
    inner = moved.start("open/julia", "-e", nested, PATH=path)
    assert inner.returncode == 0, inner.stderr
    assert inner.stdout == outer.stdout
