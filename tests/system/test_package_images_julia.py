"""Package images, alone and on top of a system image, with the real Julias that have them."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.datafiles import data_text
from headstart.julia import JuliaVersion, capabilities
from headstart.namespace import Bind, wrap
from headstart.release import Release
from juliahelp import COUNTERS, StockJulia
from projects import LOCK, SETTINGS, write_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

FQRN = "tests.example.org"


@pytest.fixture(scope="module", params=["pkgimages", "both"])
def release(julia: StockJulia, request: pytest.FixtureRequest) -> tuple[Path, Release]:
    """The tiny stack as package images, alone and on top of a system image; its stage, and its record."""
    if not capabilities(data_text("julia.toml"), julia.version).package_images:
        pytest.skip(f"Julia {julia.version} has no package images: HEADSTART_TEST_JULIAS may name newer ones")
    return make(julia, str(request.param))


@functools.cache
def make(julia: StockJulia, kind: str) -> tuple[Path, Release]:
    """One per Julia and kind."""
    heavy = 'heavy = ["Leaf"]\n' if kind == "both" else ""
    project = write_project(
        julia.home / kind,
        Headstart_toml=f'{SETTINGS}image = "{kind}"\n{heavy}',
        Manifest_toml=LOCK,
    )
    stage = julia.builds / kind
    argv = [sys.executable, "-m", "headstart", "build", str(project), "--stage", str(stage), "--json"]
    argv += ["--repository", FQRN, "--julia", str(julia.program)]
    env = {"PATH": os.environ["PATH"], "HOME": str(julia.home)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr
    root = Path(json.loads(done.stdout)["path"])
    return stage, Release.from_bytes((root / "release.json").read_bytes())


def started(release: tuple[Path, Release], *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The release's own launcher, read-only at its path."""
    stage, made = release
    argv = wrap((Bind(str(stage), f"/cvmfs/{FQRN}", writable=False),), (f"{made.path}/bin/julia", *words))
    full = {"PATH": "/usr/bin:/bin", "HOME": "/proc/nowhere", "HEADSTART_QUIET": "1", **env}
    return subprocess.run(argv, env=full, capture_output=True, text=True, timeout=300, check=False)


def test_each_package_is_there_once_with_its_code(release: tuple[Path, Release]) -> None:
    stage, made = release
    (image,) = made.images
    (packages,) = image.packages
    place = stage / made.path.removeprefix(f"/cvmfs/{FQRN}/") / packages.path / "compiled"
    folders = [folder for version in place.iterdir() for folder in version.iterdir()]
    names = {folder.name for folder in folders}
    assert {"App", "HeadstartStartup"} <= names
    # What is in the system image has no cache, and the standard library has one for a system image of ours.
    assert ("Leaf" in names, "Statistics" in names) == ((False, True) if image.system else (True, False))
    assert len(folders) == packages.count
    for folder in folders:
        assert sorted(path.suffix for path in folder.iterdir()) == [".ji", ".so"]


def test_the_script_finds_its_code_ready(release: tuple[Path, Release]) -> None:
    _, made = release
    script = f"{made.path}/project/smoke.jl"
    done = started(release, str(COUNTERS), script)
    assert done.returncode == 0, done.stderr
    assert "total 3.000 of 0.5 1.0 1.5\n" in done.stdout
    # Up to a few methods of Julia's own, each some hundred bytes; the stack's take tens of thousands.
    assert _bytes(done) < 10_000
    listed = started(release, "--trace-compile=stderr", script).stderr
    assert not re.search(r"precompile\(.*\b(App|Leaf)\.main", listed)


def test_the_rest_of_the_standard_library_is_accepted(release: tuple[Path, Release]) -> None:
    done = started(release, "-e", "using App, Dates, Test, Distributed; print(pathof(App))")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{release[1].path}/project/packages/App/src/App.jl"


def test_what_was_not_compiled_is_an_error(release: tuple[Path, Release], tmp_path: Path) -> None:
    """A package that is no part of the release is not compiled on the node."""
    package = tmp_path / "Foreign"
    (package / "src").mkdir(parents=True)
    uuid = "33333333-3333-4333-8333-333333333333"
    (package / "Project.toml").write_text(f'name = "Foreign"\nuuid = "{uuid}"\n')
    (package / "src/Foreign.jl").write_text("module Foreign end\n")
    done = started(release, "-e", f'push!(LOAD_PATH, "{package}"); using Foreign')
    assert done.returncode != 0
    assert re.search(r"not available with flags|read-only file system|EROFS", done.stderr), done.stderr


def test_elsewhere_it_runs_or_says_why_not(release: tuple[Path, Release]) -> None:
    stage, made = release
    launcher = stage / made.path.removeprefix(f"/cvmfs/{FQRN}/") / "bin/julia"
    env = {"PATH": "/usr/bin:/bin", "HOME": "/proc/nowhere", "HEADSTART_QUIET": "1"}
    done = subprocess.run(
        [launcher, "-e", "using App; print(pathof(App))"],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if JuliaVersion.parse(made.julia_version) < JuliaVersion.parse("1.11"):
        assert done.returncode == 14
        assert "can only run as /cvmfs/" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout == str(launcher.parent.parent / "project/packages/App/src/App.jl")


def _bytes(done: subprocess.CompletedProcess[str]) -> int:
    """Bytes of machine code that a start says it has made."""
    return int(re.findall(r"headstart-compiled: \d+ (\d+)", done.stderr)[-1])
