"""Starts of a release with real Julias, whose own system image stands in for one that was built."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import nodes
import publishing
import releases
from headstart.datafiles import data_text
from headstart.julia import Capabilities, capabilities
from headstart.openscript import open_launcher
from headstart.release import Release
from headstart.script import launcher
from juliahelp import StockJulia, library_path
from nodes import Node, Site, needs_namespace

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


def with_julia(made: Release, julia: StockJulia) -> Release:
    """The record of a release that runs on this Julia."""
    libraries = (library_path(julia.program) or "").split(":")
    return replace(
        made,
        images=made.images[:1],
        julia_version=str(julia.version),
        julia_library_path=tuple(os.path.relpath(path, prefix(julia)) for path in libraries if path),
        julia_options=can(julia).run_options,
    )


def prefix(julia: StockJulia) -> Path:
    return julia.program.resolve().parent.parent


def own_image(julia: StockJulia) -> str:
    return julia.run("-e", "print(unsafe_string(Base.JLOptions().image_file))").stdout


@pytest.fixture
def moved(julia: StockJulia, tmp_path: Path) -> Moved:
    made = with_julia(releases.release(), julia)
    tree = tmp_path / "tree"
    home = tree / "stacks/jets" / str(made.id)
    for folder in ("images/x86-64", "bin", "open", "depot", "project"):
        (home / folder).mkdir(parents=True)
    (home / "project/Project.toml").write_text("")
    (home / "images/x86-64/sys.so").symlink_to(own_image(julia))
    (tree / "julia").mkdir()
    (tree / "julia" / str(made.julia)).symlink_to(prefix(julia))
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
    share = str(prefix(moved.julia))
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


Runner = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def checked(julia: StockJulia, tmp_path: Path) -> Runner:
    """``headstart run --check`` of a mounted repository, in which this Julia stands at its place."""
    place = publishing.new_repository(tmp_path / "storage", now=datetime.now(UTC))
    made = publishing.write_stage(tmp_path / "stage", lambda made: with_julia(made, julia))
    key = publishing.copy_keys(tmp_path / "keys") / f"{nodes.FQRN}.pub"
    site = Site(storage=place.root, key=key, release=made, stage=tmp_path / "stage")
    site.publish(tmp_path / "stage")
    mount = tmp_path / str(nodes.FQRN)
    shutil.copytree(tmp_path / "stage", mount, symlinks=True)
    nodes.mount_channels(site, mount)
    home = mount / made.path.removeprefix(f"/cvmfs/{nodes.FQRN}/")
    for path, real in (
        (mount / "julia" / str(made.julia), str(prefix(julia))),
        (home / made.images[0].system[0].path, own_image(julia)),
    ):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(real)
    node = Node(root=tmp_path / "node", env={"HEADSTART_QUIET": "1"})
    node.root.mkdir()

    def run(*words: str, options: tuple[str, ...] = ("--check",)) -> "subprocess.CompletedProcess[str]":
        done = node.headstart("run", mount, "jets", "--key", key, *options, "--", *words)
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    return run


@needs_namespace
def test_a_checked_start_sees_what_real_julia_compiles(checked: Runner, tmp_path: Path) -> None:
    nothing = checked("-e", "")
    assert nothing.returncode == 0, nothing.stderr
    failed = checked("-e", "exit(3)")
    assert failed.returncode == 3
    job = checked("-e", "f(x) = sum(abs2, x) + length(string(x)); print(f([1.5, 2.5]))")
    assert (job.returncode, job.stdout) == (25, "18.5"), job.stderr
    last = job.stderr.splitlines()[-1]
    assert last.startswith("headstart: compiled "), last
    assert "Main.f" in last or "bytes of machine code" in last


@needs_namespace
def test_a_start_that_would_compile_is_told_from_julias_words(checked: Runner, tmp_path: Path) -> None:
    project = own_project(tmp_path / "own")
    script = tmp_path / "job.jl"
    script.write_text(f'push!(LOAD_PATH, "{project}")\nusing Foreign\nForeign.say()\n')
    done = checked(str(script))
    assert (done.returncode, done.stdout) == (25, ""), done.stderr
    last = done.stderr.splitlines()[-1]
    assert "would have to be compiled" in last
    assert f"{script}:2" in last
    assert "ERROR: LoadError: " in done.stderr
    # A depot for files is none for code.
    kept = checked("-e", 'mkpath(joinpath(DEPOT_PATH[1], "scratchspaces"))', options=("--scratch",))
    assert kept.returncode == 0, kept.stderr
    (scratch,) = (tmp_path / "node/.cache/headstart/scratch").iterdir()
    assert (scratch / "scratchspaces").is_dir()
    refused = checked(str(script), options=("--scratch", "--check"))
    assert (refused.returncode, refused.stdout) == (25, ""), refused.stderr
    assert not (scratch / "compiled").is_dir()
