"""A stack with real dependencies, built on each Julia from a package server that this test runs, and started.

One release for each Julia is shared and kept below .cache; what can go wrong on the way is made to go wrong.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dependencies import ANALYSIS, NOWHERE, TUNABLE, Stack, add_packages, resolve, write_stack
from headstart.errors import BuildError, ConfigurationError, UnavailableError
from headstart.julia import JuliaVersion
from headstart.namespace import Bind, wrap
from headstart.release import Release
from juliahelp import StockJulia
from pkgserver import PackageServer, serving, write_tree

pytestmark = pytest.mark.slow

FQRN = "tests.example.org"
CLOSED = "http://127.0.0.1:9"
"""A port that nobody listens at; as a proxy it keeps everything else on this machine."""


@pytest.fixture(scope="module")
def stack(julia: StockJulia, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Resolved by the Julia's own Pkg against the server."""
    root = tmp_path_factory.mktemp("dependencies")
    server = PackageServer(root=root / "server")
    server.root.mkdir()
    with serving(server):
        made = add_packages(server, julia.version)
        project = write_stack(root, made, julia.version)
        if julia.version >= JuliaVersion.parse("1.9"):
            with (project / "Headstart.toml").open("a") as settings:
                settings.write('image = "pkgimages"\n')
        resolve(julia, project, server, root / "depot")
        yield Stack(project=project, server=server, artifacts=made, depot=root / "depot")


def command(project: Path, stage: Path, *words: str) -> list[str]:
    argv = [sys.executable, "-m", "headstart", "build", str(project), "--stage", str(stage)]
    return [*argv, "--repository", FQRN, *words]


def environment(julia: StockJulia, depot: Path, server: str) -> dict[str, str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(julia.home), "HEADSTART_JULIA": str(julia.program)}
    env |= {"JULIA_DEPOT_PATH": str(depot), "JULIA_PKG_SERVER": server}
    return env | dict.fromkeys(("http_proxy", "https_proxy"), CLOSED) | {"no_proxy": "127.0.0.1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The shared release."""

    stage: Path
    root: Path
    release: Release

    def start(self, *words: str, cwd: str = "/", **env: str) -> subprocess.CompletedProcess[str]:
        """Start it read-only at its path."""
        bind = Bind(str(self.stage), f"/cvmfs/{FQRN}", writable=False)
        argv = wrap((bind,), (f"{self.release.path}/bin/julia", *words))
        full = {"PATH": "/usr/bin:/bin", "HOME": "/proc/nowhere", "HEADSTART_QUIET": "1", **env}
        return subprocess.run(argv, env=full, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)

    @property
    def job(self) -> str:
        return f"{self.release.path}/project/job.jl"

    @property
    def says(self) -> str:
        """What the job prints: a sum by the library over the artifact, and what the packages make of it."""
        version = JuliaVersion.parse(self.release.julia_version)
        extended = "none" if version < JuliaVersion.parse("1.9") else "40.0"
        mode = "plain" if version < JuliaVersion.parse("1.6") else "fast"
        return f"17.0 9 {extended} 10 {mode}\n"


@pytest.fixture(scope="module")
def made(julia: StockJulia, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Built with an empty depot, so that everything comes from the server."""
    stage = julia.builds / "dependencies"
    env = environment(julia, tmp_path_factory.mktemp("empty"), stack.server.url)
    argv = command(stack.project, stage, "--json")
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr
    root = Path(json.loads(done.stdout)["path"])
    return Made(stage=stage, root=root, release=Release.from_bytes((root / "release.json").read_bytes()))


def test_the_release_runs_with_all_of_its_dependencies(made: Made) -> None:
    done = made.start(made.job)
    assert done.returncode == 0, done.stderr
    assert done.stdout == made.says


def test_what_the_lock_names_is_in_the_release_and_nothing_else(made: Made, stack: Stack) -> None:
    artifacts = {path.name for path in (made.root / "depot/artifacts").iterdir()}
    assert artifacts == {stack.artifacts[name].tree for name in ("summer", "table")}
    packages = {path.name for path in (made.root / "depot/packages").iterdir()}
    assert packages == {"Quantities", "Shapes", "Summer_jll", "Tunable"}
    assert (made.root / "project/LocalPreferences.toml").read_text() == '[Tunable]\nmode = "fast"\n'
    assert 'path = "dev/Analysis"' in (made.root / "project/Manifest.toml").read_text()
    assert (made.root / "project/dev/Analysis/src/Analysis.jl").exists()


def test_a_users_own_preferences_and_projects_change_nothing(made: Made, tmp_path: Path) -> None:
    """Wherever Julia would find them: in the user's own environment, the working directory, variables."""
    version = JuliaVersion.parse(made.release.julia_version)
    foreign = {
        "Project.toml": f'[deps]\nTunable = "{TUNABLE}"\nAnalysis = "{ANALYSIS}"\n',
        "LocalPreferences.toml": '[Tunable]\nmode = "slow"\n',
    }
    own = tmp_path / ".julia/environments" / f"v{version.major}.{version.minor}"
    for folder in (own, tmp_path / "here"):
        write_tree(folder, foreign)
    done = made.start(
        made.job,
        cwd=str(tmp_path / "here"),
        HOME=str(tmp_path),
        JULIA_PROJECT=str(tmp_path / "here"),
        JULIA_LOAD_PATH=f"{tmp_path / 'here'}:@v#.#:@stdlib",
        JULIA_DEPOT_PATH=str(tmp_path / ".julia"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == made.says
    refused = made.start(f"--project={tmp_path / 'here'}", made.job)
    assert (refused.returncode, refused.stdout) == (ConfigurationError.exit_code, "")
    assert "puts another project, with its own lock and preferences" in refused.stderr


# --- what goes wrong on the way; every build here ends before anything is compiled


def refused(
    julia: StockJulia, project: Path, tmp_path: Path, depot: Path, server: str, code: int, *said: str
) -> None:
    """A build that is refused in one sentence, and leaves nothing."""
    depot.mkdir(exist_ok=True)
    argv = command(project, tmp_path / "stage")
    env = environment(julia, depot, server)
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=1200, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("headstart: ")]
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    for text in said:
        assert text in lines[0]
    assert not (tmp_path / "stage/stacks").exists()


def resource(stack: Stack, start: str) -> str:
    return next(path for path in stack.server.resources if path.startswith(start))


@pytest.fixture
def faults(stack: Stack) -> Iterator[PackageServer]:
    yield stack.server
    stack.server.faults.clear()


def test_a_registry_that_cannot_be_reached(julia: StockJulia, stack: Stack, tmp_path: Path) -> None:
    refused(
        julia, stack.project, tmp_path, tmp_path / "empty", CLOSED, UnavailableError.exit_code,
        "cannot be had: it is in none of", "a server cannot be reached", CLOSED.removeprefix("http://").split(":")[0],
        "JULIA_PKG_SERVER",
    )  # fmt: skip


def test_a_server_that_sends_another_package(
    julia: StockJulia, stack: Stack, faults: PackageServer, tmp_path: Path
) -> None:
    other = faults.resources[resource(stack, "/package/a0000000-0000-4000-8000-000000000002")]
    faults.faults[resource(stack, f"/package/{TUNABLE}")] = lambda _: other
    refused(
        julia, stack.project, tmp_path, tmp_path / "empty", faults.url, BuildError.exit_code,
        "package Tunable with tree", "a server sent something else",
    )  # fmt: skip


def test_a_package_that_was_tampered_with_in_the_depot(julia: StockJulia, stack: Stack, tmp_path: Path) -> None:
    depot = tmp_path / "depot"
    shutil.copytree(stack.depot, depot)
    (place,) = depot.glob("packages/Tunable/*")
    (place / "src/Tunable.jl").chmod(0o644)
    with (place / "src/Tunable.jl").open("a") as file:
        file.write("# evil\n")
    refused(
        julia, stack.project, tmp_path, depot, CLOSED, UnavailableError.exit_code,
        f"package Tunable with tree {resource(stack, f'/package/{TUNABLE}').rpartition('/')[2]}",
        f"{place} has tree",
    )  # fmt: skip


@pytest.mark.parametrize("fault", ["another", "cut short"])
def test_an_artifact_that_is_not_what_its_hash_says(
    julia: StockJulia, stack: Stack, faults: PackageServer, tmp_path: Path, fault: str
) -> None:
    table, spare = (f"/artifact/{stack.artifacts[name].tree}" for name in ("table", "spare"))
    other = faults.resources[spare]
    faults.faults[table] = (
        (lambda _: other) if fault == "another" else (lambda content: content[: len(content) // 2])
    )
    said = "a server sent something else" if fault == "another" else "cannot be unpacked"
    refused(
        julia, stack.project, tmp_path, tmp_path / "empty", faults.url, BuildError.exit_code,
        f"artifact table of Analysis with tree {stack.artifacts['table'].tree}", said,
    )  # fmt: skip


def changed(stack: Stack, tmp_path: Path, **files: str) -> Path:
    """A copy of the project, and of the package beside it, with other files."""
    for name in ("project", "Analysis"):
        shutil.copytree(stack.project.parent / name, tmp_path / name)
    write_tree(tmp_path, files)
    return tmp_path / "project"


def test_a_file_of_an_artifact_whose_sha256_is_another(
    julia: StockJulia, stack: Stack, faults: PackageServer, tmp_path: Path
) -> None:
    """Served from the address in ``Artifacts.toml``, by a server that is no package server."""
    text = (stack.project.parent / "Analysis/JuliaArtifacts.toml").read_text()
    text = text.replace(NOWHERE, f"{faults.url}/files").replace(stack.artifacts["table"].sha256, "0" * 64)
    project = changed(stack, tmp_path, **{"Analysis/JuliaArtifacts.toml": text})
    faults.faults[f"/artifact/{stack.artifacts['table'].tree}"] = lambda _: 404
    refused(
        julia, project, tmp_path, tmp_path / "empty", faults.url, BuildError.exit_code,
        "artifact table of Analysis", "a server sent something else",
    )  # fmt: skip


def test_an_override_is_refused(julia: StockJulia, stack: Stack, tmp_path: Path) -> None:
    depot = tmp_path / "depot"
    shutil.copytree(stack.depot, depot)
    write_tree(depot, {"artifacts/Overrides.toml": f'[{ANALYSIS}]\ntable = "/opt/site/table"\n'})
    refused(
        julia, stack.project, tmp_path, depot, CLOSED, ConfigurationError.exit_code,
        f"{depot}/artifacts/Overrides.toml puts /opt/site/table in the place of artifact table of Analysis",
    )  # fmt: skip


def test_lazy_artifacts_are_carried_when_they_are_named(
    julia: StockJulia, stack: Stack, tmp_path: Path
) -> None:
    settings = (stack.project / "Headstart.toml").read_text()
    project = changed(
        stack,
        tmp_path,
        **{
            "project/Headstart.toml": f'lazy = ["spare"]\n{settings}',
            # Ends the build right after the depot is filled.
            "Analysis/src/Analysis.jl": 'module Analysis\nerror("far enough")\nend\n',
        },
    )
    env = environment(julia, stack.depot, stack.server.url)
    argv = command(project, tmp_path / "stage")
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=1200, check=False)
    assert "far enough" in done.stderr
    assert "4 packages and 3 artifacts, as locked" in done.stderr
    assert "left out" not in done.stderr
    write_tree(tmp_path, {"project/Headstart.toml": f'lazy = ["absent"]\n{settings}'})
    refused(
        julia, project, tmp_path, stack.depot, CLOSED, ConfigurationError.exit_code,
        "lazy names absent", "those are spare",
    )  # fmt: skip


def test_a_package_that_wants_its_build_script(julia: StockJulia, stack: Stack, tmp_path: Path) -> None:
    project = changed(
        stack,
        tmp_path,
        **{
            "Analysis/deps/build.jl": 'write("deps.jl", "const x = 1")\n',
            "Analysis/src/Analysis.jl": 'module Analysis\ninclude("../deps/deps.jl")\nend\n',
        },
    )
    refused(
        julia, project, tmp_path, stack.depot, CLOSED, BuildError.exit_code,
        "Analysis wants what its deps/build.jl writes into its own directory", "a build runs no such script",
    )  # fmt: skip


def test_an_extension_that_does_not_compile_fails_the_build(
    julia: StockJulia, stack: Stack, tmp_path: Path
) -> None:
    """Also where it would go into a system image, and Julia itself goes on without it."""
    if julia.version < JuliaVersion.parse("1.9"):
        pytest.skip(f"Julia {julia.version} has no extensions")
    toml = (stack.project.parent / "Analysis/Project.toml").read_text()
    toml = toml.replace(f'Tunable = "{TUNABLE}"\n', "") + f'\n[weakdeps]\nTunable = "{TUNABLE}"\n'
    source = (stack.project.parent / "Analysis/src/Analysis.jl").read_text().replace(", Tunable", "")
    project = changed(
        stack,
        tmp_path,
        **{
            "Analysis/Project.toml": toml + '\n[extensions]\nBrokenExt = "Tunable"\n',
            "Analysis/ext/BrokenExt.jl": 'module BrokenExt\nusing Analysis, Tunable\nerror("broken")\nend\n',
            "Analysis/src/Analysis.jl": source.replace("Tunable.MODE", '"none"'),
            "project/Headstart.toml": (stack.project / "Headstart.toml")
            .read_text()
            .replace("pkgimages", "sysimage"),
            "project/job.jl": "using Tunable, Analysis\nAnalysis.main()\n",
        },
    )
    resolve(julia, project, stack.server, stack.depot)
    refused(
        julia, project, tmp_path, stack.depot, CLOSED, BuildError.exit_code,
        "extension BrokenExt of Analysis does not compile",
    )  # fmt: skip
