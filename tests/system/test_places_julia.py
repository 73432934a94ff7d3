"""Where a release runs, and where its packages then think that they are: at its path, and away from it.

Builds with real Julias, shared and kept below .cache: a system image where that is the only kind there is, and
package images elsewhere; every kind of every Julia when HEADSTART_TEST_KINDS says so.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart.build.trees import git_tree
from headstart.julia import JuliaVersion, capabilities
from headstart.machine import data_text
from headstart.namespace import Bind, wrap
from headstart.release import Release
from juliahelp import StockJulia
from projects import write_project

pytestmark = pytest.mark.slow

FQRN = "tests.example.org"
PLACES = "44444444-4444-4444-8444-444444444444"
ARTIFACTS = "56f22d72-fd6d-98f1-02f0-08ddc0907c33"
PKG = "44cfe95a-1eb2-52ea-b672-e2afdf69b78f"
SOURCE = """\
module Places
using {library}
const HERE = @__DIR__
const TOOL = artifact"tool"
here() = @__DIR__
tool() = artifact"tool"
say() = foreach(println, (pathof(Places), HERE, here(), TOOL, tool()))
end
"""
FOREIGN = """\
using Places
push!(LOAD_PATH, ARGS[1])
using Foreign
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A staged and published release."""

    stage: Path
    release: Release
    storage: Path
    key: Path
    project: Path
    env: Mapping[str, str]

    @property
    def moved(self) -> Path:
        """The release's directory, away from its path."""
        return self.stage / self.release.path.removeprefix(f"/cvmfs/{FQRN}/")

    def at_its_path(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        argv = wrap((Bind(str(self.stage), f"/cvmfs/{FQRN}", writable=False),), words)
        return start(argv, {**self.env, **env})

    def headstart(self, *words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return start((sys.executable, "-m", "headstart", *map(str, words)), {**self.env, **env})

    def run(self, *words: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """``headstart run --check`` from the storage."""
        extra = ("--check",) if check else ()
        return self.headstart("run", self.storage, "places", "--key", self.key, *extra, "--", *words, **env)


def start(argv: tuple[str, ...], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=600, check=False)


def kinds(julia: StockJulia) -> tuple[str, ...]:
    if not capabilities(data_text("julia.toml"), julia.version).package_images:
        return ("sysimage",)
    return ("pkgimages", "sysimage", "both") if os.environ.get("HEADSTART_TEST_KINDS") else ("pkgimages",)


@pytest.fixture(scope="module", params=["sysimage", "pkgimages", "both"])
def site(request: pytest.FixtureRequest, julia: StockJulia, tmp_path_factory: pytest.TempPathFactory) -> Site:
    kind = str(request.param)
    if kind not in kinds(julia):
        pytest.skip(f"not built of Julia {julia.version} here")
    root = tmp_path_factory.mktemp("places")
    newer = julia.version >= JuliaVersion.parse("1.6")
    library, name, uuid = ("Artifacts", "Artifacts", ARTIFACTS) if newer else ("Pkg.Artifacts", "Pkg", PKG)
    settings = f'name = "places"\ntargets = ["x86-64-v2"]\nimage = "{kind}"\n'
    project = write_project(
        root / "project",
        Headstart_toml=settings + ('heavy = ["Places"]\n' if kind == "both" else ""),
        Project_toml=f'[deps]\nPlaces = "{PLACES}"\n',
        Manifest_toml=f'[[Places]]\ndeps = ["{name}"]\npath = "packages/Places"\nuuid = "{PLACES}"\n'
        f'version = "0.1.0"\n\n[[{name}]]\nuuid = "{uuid}"\n',
        packages__Places__Project_toml=f'name = "Places"\nuuid = "{PLACES}"\nversion = "0.1.0"\n\n'
        f'[deps]\n{name} = "{uuid}"\n',
        packages__Places__src__Places_jl=SOURCE.format(library=library),
        foreign_jl=FOREIGN,
    )
    shutil.rmtree(project / "packages/App")
    shutil.rmtree(project / "packages/Leaf")
    depot = root / "depot"
    made = root / "made"
    made.mkdir()
    (made / "tool").write_text("a tool\n")
    tree = git_tree(str(made))
    (depot / "artifacts").mkdir(parents=True)
    shutil.move(made, depot / "artifacts" / tree)
    (project / "packages/Places/Artifacts.toml").write_text(f'[tool]\ngit-tree-sha1 = "{tree}"\n')
    for unused in ("workload.jl", "smoke.jl"):
        (project / unused).unlink()
    env = {"PATH": os.environ["PATH"], "HOME": str(root / "home"), "HEADSTART_QUIET": "1"}
    stage = julia.builds / f"places-{kind}"
    built = start(
        (
            *(sys.executable, "-m", "headstart", "build", str(project), "--stage", str(stage), "--json"),
            *("--repository", FQRN, "--julia", str(julia.program)),
        ),
        {**env, "JULIA_DEPOT_PATH": str(depot)},
    )
    assert built.returncode == 0, built.stderr
    release = Release.from_bytes((Path(json.loads(built.stdout)["path"]) / "release.json").read_bytes())
    storage, keys = root / "storage", root / "keys"
    place = ("--storage", str(storage), "--keys", str(keys))
    for words in (("repo", "create", FQRN), ("publish", str(stage), "--channel", "prod")):
        done = start((sys.executable, "-m", "headstart", *words, *place), env)
        assert done.returncode == 0, done.stderr
    return Site(
        stage=stage,
        release=release,
        storage=storage,
        key=keys / f"{FQRN}.pub",
        project=project,
        env={**env, "HEADSTART_CACHE": str(root / "cache")},
    )


def test_at_its_path_every_place_is_there(site: Site) -> None:
    home = site.release.path
    done = site.at_its_path(f"{home}/bin/julia", "-e", "using Places; Places.say(); print(isdir(Places.TOOL))")
    assert done.returncode == 0, done.stderr
    *said, found = done.stdout.splitlines()
    source = f"{home}/project/packages/Places/src"
    assert said[:3] == [f"{source}/Places.jl", source, source]
    assert said[3] == said[4]
    assert said[3].startswith(f"{home}/depot/artifacts/")
    assert found == "true"
