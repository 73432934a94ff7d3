"""The main job, end to end, on a real Julia: the demo, and the release that it publishes.

The demo's folder is kept below .cache from one run to the next, so its images are built once.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headstart.errors import CorruptError, NamespaceError, UnknownError
from headstart.julia import JuliaVersion
from headstart.namespace import Bind, wrap
from juliahelp import JETS, REPO, StockJulia, compiled, measures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SHARED = REPO.parent / "shared" / "data"
MAIN = "using JetAnalysis; exit(JetAnalysis.main(ARGS))"
SAMPLE = str(JETS / "data" / "events.hepmc3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What the demo left."""

    found: dict[str, Any]
    talk: str
    env: dict[str, str]

    def headstart(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        argv = (sys.executable, "-m", "headstart", *words)
        return subprocess.run(
            argv, env=self.env | env, capture_output=True, text=True, timeout=600, check=False
        )

    def run(
        self, cache: Path, *words: str, reference: str = "jets", **env: str
    ) -> subprocess.CompletedProcess[str]:
        place = ("--key", self.found["public_key"], "--cache", str(cache))
        return self.headstart("run", self.found["repository"], reference, *place, "--", *words, **env)


def call(julia: StockJulia, folder: Path) -> Demo:
    env = {"PATH": os.environ["PATH"], "HOME": str(julia.home), "HEADSTART_JULIA": str(julia.program)}
    argv = (sys.executable, "-m", "headstart", "demo", "--folder", str(folder), "--rounds", "1", "--json")
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr
    return Demo(found=json.loads(done.stdout), talk=done.stderr, env=env)


@pytest.fixture(scope="session")
def demo(julia: StockJulia) -> Demo:
    return first(julia)


@functools.cache
def first(julia: StockJulia) -> Demo:
    """One per Julia: tests in random order ask for each of them again and again."""
    return call(julia, julia.builds / "demo")


@pytest.fixture(scope="session")
def cache(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "cache"


def test_the_figures_are_whole(demo: Demo) -> None:
    found = demo.found
    for key in (
        "stock_cold_s",
        "stock_second_s",
        "release_cold_s",
        "release_warm_s",
        "image_by_hand_s",
    ):
        assert found[key] > 0, key
    assert found["compiled_methods"] == 0
    assert found["compiled_methods_by_arm"]["stock_second"] > 10
    assert found["bytes_fetched"] > 50_000_000
    assert found["target"] in ("x86-64", "x86-64-v2", "x86-64-v3")
    assert found["why"]
    assert found["fqrn"] == "jets.example.org"
    assert Path(found["repository"], ".cvmfspublished").is_file()
    assert Path(found["public_key"]).read_text().startswith("-----BEGIN PUBLIC KEY-----")
    for title in ("stock Julia, empty depot", "release, warm cache", "compiled", "times shorter"):
        assert title in demo.talk
    assert max(map(len, demo.talk.partition("median")[2].splitlines())) <= 80


def test_the_second_time_nothing_is_built_or_published_again(demo: Demo, julia: StockJulia) -> None:
    again = call(julia, julia.builds / "demo")
    assert again.found["digest"] == demo.found["digest"]
    assert "is already staged: nothing to build" in again.talk
    assert "nothing is new" in again.talk
    assert "points there already" in again.talk
    assert "compiling with" not in again.talk


def test_the_release_gives_fastjets_jets(demo: Demo, cache: Path, tmp_path: Path) -> None:
    events = SHARED / "events.eeH.hepmc3.gz"
    if not events.exists():
        pytest.skip("the events with FastJet's jets are not beside this checkout")
    out = tmp_path / "jets.json"
    words = ("--p=-1", "--R=1.0", "--ptmin=5", "--json", str(out), str(events))
    done = demo.run(cache, "-e", MAIN, "--", *words)
    assert done.returncode == 0, done.stderr
    ours = json.loads(out.read_text())
    reference = json.loads((SHARED / "jet-collections-fastjet-inclusive-EEKt-p-1-R1.0.json").read_text())
    assert len(ours) == len(reference) == 100
    for mine, expected in zip(ours, reference, strict=True):
        for jet, wanted in zip(mine["jets"], expected["jets"], strict=True):
            assert jet["pt"] == pytest.approx(wanted["pt"], rel=1e-7, abs=0)
            assert jet["rap"] == pytest.approx(wanted["rap"], rel=0, abs=1e-7)
            assert jet["phi"] == pytest.approx(wanted["phi"], rel=0, abs=1e-7)


@pytest.mark.parametrize("target", ["x86-64", "best"])
def test_every_image_starts_with_nothing_compiled(
    demo: Demo, cache: Path, julia: StockJulia, target: str
) -> None:
    chosen = demo.found["target"] if target == "best" else target
    (counting,) = measures(julia.version)
    work = f'empty!(ARGS); append!(ARGS, ["--scan", "{SAMPLE}"]); {MAIN}'
    found = []
    for code in ("", work):
        done = demo.run(cache, *counting, "-e", code, HEADSTART_TARGET=chosen)
        assert done.returncode == 0, done.stderr
        assert f"image {chosen}" in done.stderr
        found.append(compiled(done))
    assert found[1] - found[0] == set()


def test_exit_code_and_output_of_julia_pass_through(demo: Demo, cache: Path) -> None:
    done = demo.run(cache, "-e", "print(join(ARGS, '|')); exit(7)", "--", "a b", "")
    assert (done.returncode, done.stdout) == (7, "a b|")


def test_the_job_sees_the_path_it_was_built_at_and_cannot_write_there(demo: Demo, cache: Path) -> None:
    home = f"/cvmfs/jets.example.org/stacks/jets/{demo.found['release']}"
    code = "using JetAnalysis; print(pathof(JetAnalysis), ' ', dirname(Base.active_project()))"
    done = demo.run(cache, "-e", code)
    source, project = done.stdout.split()
    assert source in (f"{home}/project/packages/JetAnalysis/src/JetAnalysis.jl", "nothing")
    assert project == f"{home}/project"
    done = demo.run(cache, "-e", f'touch("{home}/project/new")')
    assert done.returncode == 1
    assert "read-only" in done.stderr


def test_a_user_without_a_home_a_depot_or_a_namespace_is_served(
    demo: Demo, cache: Path, julia: StockJulia
) -> None:
    if shutil.which("setpriv") is None or os.geteuid() != 0:
        pytest.skip("setpriv, as root, takes the capability away")
    # No capability to mount, and no user namespace to get it in: the release runs from the cache's path.
    limit = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    inner = (
        "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin",
        sys.executable, "-m", "headstart", "run", demo.found["repository"], "jets",
        "--key", demo.found["public_key"], "--cache", str(cache),
        "--", "-e", MAIN, "--", SAMPLE,
    )  # fmt: skip
    argv = ("unshare", "-Ur", "--", "sh", "-c", limit, "sh", *inner)
    env = {name: value for name, value in demo.env.items() if name != "HOME"}
    env["PATH"] = "/usr/bin:/bin"  # where no bubblewrap with a set-user-id bit helps
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)
    if JuliaVersion.parse("1.9") <= julia.version < JuliaVersion.parse("1.11"):
        # The standard library's caches, compiled for the image, name their sources by absolute paths.
        assert done.returncode == NamespaceError.exit_code, done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert "events.hepmc3: 200 events" in done.stdout


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_the_launcher_of_a_mounted_repository(demo: Demo, julia: StockJulia, shell: str) -> None:
    words = shell.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    home = f"/cvmfs/jets.example.org/stacks/jets/{demo.found['release']}"
    bind = Bind(str(julia.builds / "demo" / "stage"), "/cvmfs/jets.example.org", writable=False)
    argv = wrap((bind,), (*words, f"{home}/bin/julia", "-e", MAIN, "--", SAMPLE, "--rows", "1"))
    done = subprocess.run(
        argv, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("events.hepmc3: 200 events at 250 GeV")
    assert done.stderr.startswith(f"headstart: jets {demo.found['release']}: image {demo.found['target']}")


def test_a_damaged_image_never_starts_and_the_repaired_one_does(demo: Demo, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    shutil.copytree(demo.found["repository"], storage)
    good = {path: path.read_bytes() for path in storage.glob("data/*/*P")}
    for path, content in good.items():
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    place = ("--key", demo.found["public_key"], "--cache", str(tmp_path / "cache"))
    words = ("run", str(storage), "jets", *place, "--", "-e", "print(1)")
    targets = ("x86-64", demo.found["target"])
    for target in targets:
        done = demo.headstart(*words, HEADSTART_TARGET=target)
        assert (done.returncode, done.stdout) == (CorruptError.exit_code, ""), done.stderr
    deep = demo.headstart("verify", str(storage), "--deep", "--key", demo.found["public_key"])
    assert deep.returncode == CorruptError.exit_code
    for path, content in good.items():
        path.write_bytes(content)
    for target in targets:
        done = demo.headstart(*words, HEADSTART_TARGET=target)
        assert (done.returncode, done.stdout) == (0, "1"), done.stderr


def test_unknown_names_list_what_there_is(demo: Demo, cache: Path) -> None:
    for reference, known in (("jet", "jets"), ("jets@test", "prod"), ("jets@00000000", demo.found["release"])):
        done = demo.run(cache, "-e", "", reference=reference)
        assert done.returncode == UnknownError.exit_code, done.stderr
        assert known in done.stderr
        assert done.stderr.count("\n") == 1
