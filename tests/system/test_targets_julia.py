"""What real Julias record when they are told each level: in package images, which are made in seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.datafiles import data_text
from headstart.errors import BuildError, IncompatibleError
from headstart.image import check_targets, recorded_targets
from headstart.julia import JuliaVersion, capabilities, target
from headstart.machine import cpu_flags
from headstart.microarchitecture import LEVELS
from juliahelp import JETS, StockJulia

pytestmark = pytest.mark.slow

TINY = "44444444-4444-4444-8444-444444444444"
WIDE = frozenset({"x86-64-v3", "x86-64-v4"})


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "Tiny"
    (root / "src").mkdir(parents=True)
    (root / "Project.toml").write_text(f'name = "Tiny"\nuuid = "{TINY}"\n')
    (root / "src/Tiny.jl").write_text(
        "module Tiny\nf(x) = sum(x .* x)\nprecompile(f, (Vector{Float64},))\nend\n"
    )
    return root


def package_image(julia: StockJulia, package: Path, depot: Path, cpu_target: str) -> Path:
    """The package compiled as a build compiles one."""
    if not capabilities(data_text("julia.toml"), julia.version).package_images:
        pytest.skip(f"Julia {julia.version} has no package images: HEADSTART_TEST_JULIAS may name newer ones")
    env = julia.environment() | {
        "JULIA_CPU_TARGET": cpu_target,
        "JULIA_LOAD_PATH": f"{package}:@stdlib",
        "JULIA_DEPOT_PATH": f"{depot}:{julia.share}",
    }
    argv = [str(julia.program), "--startup-file=no", "-O2", "-e", "using Tiny"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (image,) = (depot / f"compiled/v{julia.version.major}.{julia.version.minor}/Tiny").glob("*.so")
    return image


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_is_recorded_as_expected_or_refused(
    julia: StockJulia, package: Path, tmp_path: Path, level: str
) -> None:
    if not LEVELS[level] <= cpu_flags():
        pytest.skip(f"this machine is no {level}")
    wanted = target(data_text("targets.toml"), level, julia.version)
    image = package_image(julia, package, tmp_path / "depot", wanted.cpu_target)
    layout = capabilities(data_text("julia.toml"), julia.version).image_layout
    with image.open("rb") as file:
        found = recorded_targets(file, layout, "it")
    if level in taken_away(julia):
        # JuliaLang/julia#56177: code with AVX is recorded as without, under an image that has none for it.
        with pytest.raises(BuildError, match=r"it lacks .*avx2"):
            check_targets(found, wanted, "it")
    else:
        assert check_targets(found, wanted, "it").name == wanted.recorded


def test_a_package_image_of_several_targets_records_one_up_to_1_11_1(
    julia: StockJulia, package: Path, tmp_path: Path
) -> None:
    """JuliaLang/julia#54471: the reason for one image per level."""
    image = package_image(julia, package, tmp_path / "depot", "generic;haswell,clone_all")
    layout = capabilities(data_text("julia.toml"), julia.version).image_layout
    with image.open("rb") as file:
        found = recorded_targets(file, layout, "it")
    fixed = julia.version >= JuliaVersion.parse("1.11.2")
    assert [one.name for one in found] == ["generic", "haswell"][: 2 if fixed else 1]
    wanted = target(data_text("targets.toml"), "x86-64-v3", julia.version)
    with pytest.raises(BuildError):
        check_targets(found, wanted, "it")


def test_a_level_that_would_lose_its_vectors_is_refused_before_anything_is_built(
    julia: StockJulia, tmp_path: Path
) -> None:
    refused = taken_away(julia) & {level for level, flags in LEVELS.items() if flags <= cpu_flags()}
    if not refused:
        pytest.skip(f"Julia {julia.version} here builds every level that this machine can")
    env = {"PATH": os.environ["PATH"], "HOME": str(julia.home)}
    for level in refused:
        argv = [sys.executable, "-m", "headstart", "build", str(JETS), "--stage", str(tmp_path / "stage")]
        argv += ["--repository", "tests.example.org", "--julia", str(julia.program), "--target", level]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == IncompatibleError.exit_code
        assert f"cannot build for {level}: its own image" in done.stderr
        assert not (tmp_path / "stage").exists()


def taken_away(julia: StockJulia) -> frozenset[str]:
    """The levels whose vectors this Julia does without."""
    can = capabilities(data_text("julia.toml"), julia.version)
    return WIDE if can.own_vectors and "avx" not in own_features(julia) else frozenset()


def own_features(julia: StockJulia) -> frozenset[str]:
    """All that any part of its own image uses."""
    path = julia.run("-e", "print(unsafe_string(Base.JLOptions().image_file))").stdout
    layout = capabilities(data_text("julia.toml"), julia.version).image_layout
    with Path(path).open("rb") as file:
        found = recorded_targets(file, layout, path)
    return frozenset().union(*(one.features for one in found))
