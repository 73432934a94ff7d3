"""Builds with a real Julia. One tiny release is shared, and kept below .cache from one run to the next."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart.build.trees import git_tree
from headstart.datafiles import data_text
from headstart.errors import (
    BuildError,
    ConfigurationError,
    IncompatibleError,
    MissingToolError,
    NamespaceError,
    UnavailableError,
)
from headstart.gittree import version_slug
from headstart.image import recorded_targets
from headstart.julia import ImageLayout, JuliaVersion, capabilities, target
from headstart.names import JuliaName
from headstart.namespace import Bind, wrap
from headstart.release import JuliaTree, Release
from juliahelp import StockJulia, compiled, measures
from projects import LEAF, LOCK, write_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

FQRN = "tests.example.org"
WITHOUT_CAPABILITIES = (
    "setpriv",
    "--bounding-set=-sys_admin,-setuid,-setgid",
    "--inh-caps=-sys_admin,-setuid,-setgid",
)
"""Makes of root what it is in a container: an ordinary user, as far as namespaces go."""


def environment(julia: StockJulia, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(julia.home), "HEADSTART_JULIA": str(julia.program), **more}


def command(project: Path, *words: str, stage: Path, repository: str = FQRN) -> list[str]:
    argv = [sys.executable, "-m", "headstart", "build", str(project), "--stage", str(stage)]
    return [*argv, "--repository", repository, *words]


def build(
    project: Path, env: Mapping[str, str], *words: str, stage: Path, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    argv = [*before, *command(project, *words, stage=stage)]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=3000, check=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """The shared release."""

    project: Path
    stage: Path
    root: Path
    release: Release
    digest: str
    env: Mapping[str, str]

    def inside(self, *argv: str, uid: int | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """Start a program where the stage stands, read-only, at the repository's mountpoint."""
        bind = Bind(str(self.stage), f"/cvmfs/{FQRN}", writable=False)
        full = {"PATH": "/usr/bin:/bin", "HOME": "/proc/nowhere", **env}
        words = wrap((bind,), argv, uid=uid)
        return subprocess.run(words, env=full, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="session")
def tiny(julia: StockJulia) -> Tiny:
    return make(julia)


@functools.cache
def make(julia: StockJulia) -> Tiny:
    """Built as an ordinary user would; the demo builds as whoever starts it."""
    project, stage = write_project(julia.home / "tiny"), julia.builds / "stage"
    env = environment(julia)
    before = WITHOUT_CAPABILITIES if os.geteuid() == 0 and shutil.which("setpriv") else ()
    done = build(project, env, "--json", stage=stage, before=before)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    root = Path(outcome["path"])
    release = Release.from_bytes((root / "release.json").read_bytes())
    return Tiny(project=project, stage=stage, root=root, release=release, digest=outcome["digest"], env=env)


def test_the_release_starts_and_compiles_nothing(tiny: Tiny, julia: StockJulia) -> None:
    launcher = f"{tiny.release.path}/bin/julia"
    uid = 65534 if os.geteuid() == 0 else None
    words = (f"{tiny.release.path}/project/smoke.jl",)
    for counting in measures(julia.version):
        done = tiny.inside(launcher, *counting, *words, uid=uid)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "total 3.000 of 0.5 1.0 1.5\n"
        stock = tiny.inside(launcher, *counting, "-e", "", uid=uid)
        assert compiled(done) <= compiled(stock)
        assert not [line for line in compiled(done) if "App" in line or "Leaf" in line]
        assert "image x86-64-v2" in done.stderr


def layout(julia: StockJulia) -> ImageLayout:
    return capabilities(data_text("julia.toml"), julia.version).image_layout


def test_paths_in_the_release_are_its_final_ones(tiny: Tiny) -> None:
    code = "using App; print(pathof(App), ' ', Sys.BINDIR, ' ', join(DEPOT_PATH, ','))"
    done = tiny.inside(f"{tiny.release.path}/bin/julia", "-e", code)
    source, bindir, depots = done.stdout.split()
    assert source == f"{tiny.release.path}/project/packages/App/src/App.jl"
    assert bindir.startswith(f"/cvmfs/{FQRN}/julia/")
    first, *others = depots.split(",")
    assert others.index(f"{tiny.release.path}/depot") < others.index(
        f"/cvmfs/{FQRN}/julia/{tiny.release.julia}/{tiny.release.julia_share}"
    )
    # Julia writes to the first: what is no directory, a depot of this start's own, or, up to 1.10, one that
    # cannot be written, because it compiles into any other.
    assert (
        first == "/dev/null"
        or not first.startswith("/cvmfs/")
        or first == f"{tiny.release.path}/images/x86-64-v2"
    )
    assert all(place.startswith(f"/cvmfs/{FQRN}/") for place in others)
    image = (tiny.root / tiny.release.images[0].system[0].path).read_bytes()
    assert str(tiny.stage).encode() not in image
    assert str(tiny.project).encode() not in image


def test_the_image_records_its_level(tiny: Tiny, julia: StockJulia) -> None:
    wanted = target(data_text("targets.toml"), "x86-64-v2", JuliaVersion.parse(tiny.release.julia_version))
    (record,) = tiny.release.images
    with (tiny.root / record.system[0].path).open("rb") as file:
        (found,) = recorded_targets(file, layout(julia), "the image")
    assert (found.name, found.features) == (wanted.recorded, wanted.recorded_features)
    assert record.features == wanted.features


def test_what_is_staged_is_not_built_again(tiny: Tiny, tmp_path: Path) -> None:
    elsewhere = write_project(tmp_path / "elsewhere")
    start = time.monotonic()
    done = build(elsewhere, tiny.env, "--json", stage=tiny.stage)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["built"] is False
    assert json.loads(done.stdout)["digest"] == tiny.digest
    assert time.monotonic() - start < 20


def test_julias_own_image_records_what_it_was_built_for(julia: StockJulia) -> None:
    done = julia.run("-e", "print(unsafe_string(Base.JLOptions().image_file))")
    with Path(done.stdout).open("rb") as file:
        found = recorded_targets(file, layout(julia), done.stdout)
    assert found[0].name == "generic"
    assert found[0].features == {"cx16"}
    assert not any(name.startswith("cpuid:") for one in found for name in one.features)
    if julia.version == JuliaVersion.parse("1.5.3"):
        # Debian's, which is always here.
        assert [one.name for one in found] == ["generic", "sandybridge", "haswell"]
        assert {"avx2", "bmi1", "abm", "pclmulqdq"} <= found[2].features


def test_the_shipped_julia_is_complete(tiny: Tiny) -> None:
    name = JuliaName(str(tiny.release.julia))
    tree = JuliaTree.from_bytes((tiny.stage / "julia" / str(name) / "julia.json").read_bytes())
    assert tree.name == name
    libraries = ":".join(f"/cvmfs/{FQRN}/julia/{name}/{path}" for path in tree.library_path)
    done = tiny.inside(
        f"/cvmfs/{FQRN}/julia/{name}/{tree.executable}", "-e", "print(VERSION)", LD_LIBRARY_PATH=libraries
    )
    assert done.stdout == tree.version, done.stderr


# --- bad input: one sentence, its own exit code, nothing half-written


def refused(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    lines = [line for line in done.stderr.splitlines() if line.startswith("headstart: ")]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, done.stderr
    for text in said:
        assert text in lines[0]
    assert done.stdout == ""


def test_a_package_that_does_not_precompile(julia: StockJulia, tmp_path: Path) -> None:
    broken = 'module Leaf\nerror("broken on purpose")\nend\n'
    project = write_project(tmp_path / "p", packages__Leaf__src__Leaf_jl=broken)
    done = build(project, environment(julia), stage=tmp_path / "stage")
    refused(
        done, BuildError.exit_code, "does not precompile", "broken on purpose", str(tmp_path / "stage/logs/")
    )
    (log,) = (tmp_path / "stage/logs").iterdir()
    assert "broken on purpose" in log.read_text()
    assert not (tmp_path / "stage/stacks").exists()
    assert not (tmp_path / "stage/stage.json").exists()
    assert os.listdir(tmp_path / "stage/work") == ["lock"]


def test_a_workload_that_fails(julia: StockJulia, tmp_path: Path) -> None:
    project = write_project(tmp_path / "p", workload_jl='error("no work today")\n')
    done = build(project, environment(julia), stage=tmp_path / "stage")
    refused(done, BuildError.exit_code, "workload.jl", "no work today")


def test_no_julia(tmp_path: Path) -> None:
    env = {"PATH": "/nowhere", "HOME": str(tmp_path)}
    done = build(write_project(tmp_path / "p"), env, stage=tmp_path / "stage")
    refused(done, MissingToolError.exit_code, "no Julia was found")
    assert not (tmp_path / "stage").exists()


def test_no_compiler(julia: StockJulia, tmp_path: Path) -> None:
    done = build(write_project(tmp_path / "p"), environment(julia, PATH="/nowhere"), stage=tmp_path / "stage")
    refused(done, MissingToolError.exit_code, "no C compiler")
    assert not (tmp_path / "stage").exists()


def test_a_julia_of_the_systems(tmp_path: Path) -> None:
    prefix = "/usr"
    program = tmp_path / "julia"
    answers = {"version": "1.5.3", "bindir": f"{prefix}/bin", "image": f"{prefix}/lib/x/sys.so"}
    answers |= {"stdlib": f"{prefix}/share/julia/stdlib/v1.5", "library": f"{prefix}/lib/libjulia.so.1"}
    lines = [f"echo headstart-probe: {key} {value}" for key, value in answers.items()]
    program.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    program.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "HEADSTART_JULIA": str(program)}
    done = build(write_project(tmp_path / "p"), env, stage=tmp_path / "stage")
    refused(done, MissingToolError.exit_code, "part of the system")


@pytest.mark.parametrize(
    ("words", "changed", "said"),
    [
        (("--target", "znver4"), {}, "'znver4' is no target"),
        ((), {"Headstart_toml": 'name = "tiny"\ntargets = ["x86_64"]\n'}, "'x86_64' is no target"),
        ((), {"Headstart_toml": ""}, "name is missing"),
        ((), {"Manifest_toml": LOCK.replace('"Leaf", ', "")}, "Manifest.toml does not fit the project"),
        ((), {"Manifest_toml": "[["}, "Manifest.toml is not TOML"),
    ],
)
def test_what_the_user_wrote_is_wrong(
    julia: StockJulia, tmp_path: Path, words: tuple[str, ...], changed: dict[str, str], said: str
) -> None:
    project = write_project(tmp_path / "p", **changed)
    refused(
        build(project, environment(julia), *words, stage=tmp_path / "stage"), ConfigurationError.exit_code, said
    )
    assert not (tmp_path / "stage").exists()


def test_no_lock(julia: StockJulia, tmp_path: Path) -> None:
    project = write_project(tmp_path / "p")
    (project / "Manifest.toml").unlink()
    done = build(project, environment(julia), stage=tmp_path / "stage")
    refused(done, ConfigurationError.exit_code, "Manifest.toml is missing", "Pkg.resolve")


def test_a_target_above_this_machine(julia: StockJulia, tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("hides CPU features by a mount over /proc/cpuinfo, which takes root")
    cpuinfo = tmp_path / "cpuinfo"
    flags = "fpu cmov cx8 cx16 fxsr lm mmx sse sse2 syscall pni ssse3 sse4_1 sse4_2 popcnt lahf_lm avx"
    cpuinfo.write_text(f"flags\t\t: {flags}\n")
    script = 'mount --bind "$0" /proc/cpuinfo && exec "$@"'
    before = ("unshare", "-m", "sh", "-c", script, str(cpuinfo))
    project = write_project(tmp_path / "p")
    done = build(project, environment(julia), "--target", "x86-64-v3", stage=tmp_path / "stage", before=before)
    refused(done, IncompatibleError.exit_code, "cannot build for x86-64-v3", "avx2", "--target")
    assert not (tmp_path / "stage").exists()


def test_no_namespaces_allowed(julia: StockJulia, tmp_path: Path) -> None:
    script = (
        'echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$@"'
    )
    before = ("unshare", "-U", "-r", "sh", "-c", script, "sh")
    probe = subprocess.run([*before, "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"namespaces cannot be forbidden here: {probe.stderr.decode().strip()}")
    done = build(write_project(tmp_path / "p"), environment(julia), stage=tmp_path / "stage", before=before)
    refused(done, NamespaceError.exit_code, "no mount namespace is allowed here")
    assert not (tmp_path / "stage/stacks").exists()


STOPPED = "stopped.example.org"
"""A repository that no other test builds for: its name tells the processes of one build."""


def children(stage: Path) -> list[int]:
    """Processes that work for a stage; inside the namespace it stands at the repository's mountpoint."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(stage).encode() in words or f"/cvmfs/{STOPPED}/".encode() in words:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_the_middle(julia: StockJulia, tmp_path: Path, number: signal.Signals) -> None:
    project, stage = write_project(tmp_path / "p"), tmp_path / "stage"
    for _ in range(2):
        argv = command(project, stage=stage, repository=STOPPED)
        process = subprocess.Popen(argv, env=environment(julia), stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if "compiling with" in line:
                break
        else:
            pytest.fail("the build ended before it came to compile an image")
        time.sleep(2)
        assert len(children(stage)) > 1
        process.send_signal(number)
        said = process.stderr.read()
        process.stderr.close()
        code = process.wait(timeout=30)
        assert code == (130 if number == signal.SIGINT else -signal.SIGKILL), said
        deadline = time.monotonic() + 20
        while children(stage) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert children(stage) == []
        assert not (stage / "stacks").exists()
        assert not (stage / "stage.json").exists()
    # What the first one had finished is used by the second.
    assert len(list((stage / "julia").iterdir())) == 1


def test_packages_and_artifacts_come_from_the_depots(julia: StockJulia, tmp_path: Path) -> None:
    project, stage, depot = write_project(tmp_path / "p"), tmp_path / "stage", tmp_path / "depot"
    leaf = project / "packages/Leaf"
    tree = git_tree(str(leaf))
    shutil.move(leaf, depot / "packages/Leaf" / version_slug(LEAF, tree, 5))
    (project / "Manifest.toml").write_text(LOCK.replace('path = "packages/Leaf"', f'git-tree-sha1 = "{tree}"'))
    (tmp_path / "made/bin").mkdir(parents=True)
    (tmp_path / "made/bin/tool").write_text("#!/bin/sh\n")
    (tmp_path / "made/bin/tool").chmod(0o755)
    artifact = git_tree(str(tmp_path / "made"))
    shutil.move(tmp_path / "made", depot / "artifacts" / artifact)
    lazy = f'[other]\ngit-tree-sha1 = "{"1" * 40}"\nlazy = true\n'
    (project / "packages/App/Artifacts.toml").write_text(f'[tool]\ngit-tree-sha1 = "{artifact}"\n' + lazy)
    # A server that nobody can reach, whatever network there is.
    env = environment(julia, JULIA_DEPOT_PATH=str(depot), JULIA_PKG_SERVER="http://127.0.0.1:9")
    said = stopped_when(command(project, stage=stage), env, "compiling with")
    assert "1 package and 1 artifact, as locked" in said
    (depot / "artifacts" / artifact / "bin/tool").write_text("#!/bin/sh\nevil\n")
    done = build(project, env, stage=stage)
    said = f"artifact tool of App with tree {artifact} cannot be had"
    # A newer Pkg says only that nothing else was left to try after the server.
    silent = "no download section" in done.stderr
    refused(done, BuildError.exit_code if silent else UnavailableError.exit_code, said, "Pkg says: ")


def stopped_when(argv: list[str], env: Mapping[str, str], text: str) -> str:
    """Start a build, kill it when it says something, and return what it said until then."""
    process = subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)
    said = ""
    try:
        assert process.stderr is not None
        for line in process.stderr:
            said += line
            if text in line:
                return said
        pytest.fail(f"the build ended before it said {text!r}: {said}")
    finally:
        process.kill()
        process.communicate()


def test_two_builders_at_once(julia: StockJulia, tmp_path: Path) -> None:
    project, stage = write_project(tmp_path / "p"), tmp_path / "stage"
    first = subprocess.Popen(
        command(project, stage=stage), env=environment(julia), stderr=subprocess.PIPE, text=True
    )
    try:
        assert first.stderr is not None
        next(line for line in first.stderr if "precompiling" in line)
        refused(build(project, environment(julia), stage=stage), 23, "somebody else is building")
    finally:
        first.kill()
        first.communicate()


def test_what_is_published_is_not_built_again(tiny: Tiny, tmp_path: Path) -> None:
    storage, keys = tmp_path / "storage", tmp_path / "keys"
    place = ("--storage", str(storage), "--keys", str(keys))
    for words in (("repo", "create", FQRN), ("publish", str(tiny.stage))):
        argv = [sys.executable, "-m", "headstart", *words, *place]
        done = subprocess.run(argv, env=tiny.env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    known = ("--published", str(storage), "--key", str(keys / f"{FQRN}.pub"))
    done = build(tiny.project, tiny.env, *known, "--json", stage=tmp_path / "stage")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == tiny.digest
    assert not (tmp_path / "stage").exists()
    # Another release of the same stack is not in the repository, so it would be built.
    (tiny.project / "new.txt").touch()
    done = build(tiny.project, tiny.env, *known, "--dry-run", stage=tmp_path / "stage")
    (tiny.project / "new.txt").unlink()
    assert done.returncode == 0, done.stderr
    assert "already" not in done.stdout
