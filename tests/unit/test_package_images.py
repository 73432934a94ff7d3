"""Depots of package images, and the environment that keeps what scripts compile: files in, files out."""

import shutil
import tomllib
from pathlib import Path

import pytest

from fakebuild import VERSION, image_bytes
from headstart.build.caches import check_caches, forget, forget_all, tidy
from headstart.build.images import replayable
from headstart.build.recipe import failed_extension
from headstart.build.sources import FIXED_TIME
from headstart.build.startup import PARENT, PARENT_UUID, Groups, startup_extensions, startup_files
from headstart.datafiles import data_text
from headstart.errors import BuildError
from headstart.julia import ImageLayout, target
from headstart.project import Local, Package

LAYOUT = ImageLayout.DISPATCH_TARGET_IDS
V2 = target(data_text("targets.toml"), "x86-64-v2", VERSION)
BASELINE = target(data_text("targets.toml"), "x86-64", VERSION)


def package(name: str, digit: int) -> Package:
    return Package(
        name=name, uuid=f"{digit}" * 8 + "-1111-4111-8111-111111111111", source=Local(name), dependencies=()
    )


A, B = package("A", 1), package("B", 2)


@pytest.fixture
def depot(tmp_path: Path) -> Path:
    """Two packages as Julia leaves them, with what a build leaves beside them."""
    if shutil.which("cc") is None:
        pytest.skip("makes its images with a C compiler, and there is none")
    root = tmp_path / "images/x86-64-v2"
    code = image_bytes(tmp_path, V2)
    for name in ("A", "B"):
        folder = root / "compiled/v1.10" / name
        folder.mkdir(parents=True)
        (folder / "abc_de.ji").write_bytes(b"cache")
        (folder / "abc_de.so").write_bytes(code)
        (folder / "abc_de.ji.pidfile").write_bytes(b"1")
        (folder / "jl_Xy12").write_bytes(b"half")
    (root / "sys.so").write_bytes(b"image")
    (root / "logs").mkdir()
    (root / "logs/manifest_usage.toml").write_text("")
    return root


def test_a_tidy_depot_holds_pairs_and_nothing_else(depot: Path) -> None:
    tidy(str(depot))
    found = sorted(str(path.relative_to(depot)) for path in depot.rglob("*") if path.is_file())
    pairs = [f"compiled/v1.10/{name}/abc_de.{ending}" for name in "AB" for ending in ("ji", "so")]
    assert found == [*pairs, "sys.so"]
    for pair in pairs:
        assert (depot / pair).stat().st_mode & 0o777 == 0o444
        assert (depot / pair).stat().st_mtime == FIXED_TIME
    count, size = check_caches(str(depot), V2, LAYOUT)
    assert (count, size) == (2, sum((depot / pair).stat().st_size for pair in pairs))


@pytest.mark.parametrize("missing", ["ji", "so"])
def test_half_a_pair_is_refused(depot: Path, missing: str) -> None:
    tidy(str(depot))
    (depot / f"compiled/v1.10/B/abc_de.{missing}").unlink()
    with pytest.raises(BuildError, match=r"compiled/v1\.10/B of the image for x86-64-v2 holds abc_de"):
        check_caches(str(depot), V2, LAYOUT)


def test_two_candidates_for_a_package_are_refused(depot: Path) -> None:
    tidy(str(depot))
    for ending in ("ji", "so"):
        (depot / f"compiled/v1.10/A/other.{ending}").write_bytes(b"")
    with pytest.raises(BuildError, match="not one cache with its native code"):
        check_caches(str(depot), V2, LAYOUT)


def test_code_for_another_target_is_refused(depot: Path, tmp_path: Path) -> None:
    tidy(str(depot))
    place = depot / "compiled/v1.10/A/abc_de.so"
    place.unlink()
    place.write_bytes(image_bytes(tmp_path, BASELINE))
    with pytest.raises(BuildError, match=r"A/abc_de\.so is not an image for x86-64-v2: it lacks"):
        check_caches(str(depot), V2, LAYOUT)


def test_what_is_forgotten_is_compiled_anew(depot: Path) -> None:
    forget(str(depot), ("B", "NotThere"))
    assert [path.name for path in (depot / "compiled/v1.10").iterdir()] == ["A"]
    forget_all(str(depot))
    assert not (depot / "compiled").exists()
    assert (depot / "sys.so").exists()
    assert check_caches(str(depot), V2, LAYOUT) == (0, 0)


def test_the_startup_environment_has_an_extension_for_each_set_of_packages() -> None:
    groups = {
        (A, B): frozenset({"precompile(Tuple{typeof(A.f)})\n", "precompile(Tuple{typeof(B.g)})\n"}),
        (A,): frozenset({"precompile(Tuple{typeof(A.f)})\n"}),
        (): frozenset({"precompile(Tuple{typeof(Base.exit)})\n"}),
        (B,): frozenset[str](),
    }
    files = startup_files(groups, {}, "# replay\n")
    project = tomllib.loads(files["Project.toml"])
    assert (project["name"], project["uuid"]) == (PARENT, PARENT_UUID)
    assert project["weakdeps"] == {"A": A.uuid, "B": B.uuid}
    # What needs no package, or has nothing to keep, has no extension.
    assert sorted(project["extensions"].values()) == [["A"], ["A", "B"]]
    assert sorted(project["extensions"]) == sorted(startup_extensions(groups))
    for name, needs in project["extensions"].items():
        text = files[f"ext/{name}/{name}.jl"]
        assert text.startswith(f"module {name}\nusing {', '.join((PARENT, *needs))}\n# replay\n")
        lines = files[f"ext/{name}/statements"].splitlines()
        assert len(lines) == len(needs)
        assert lines == sorted(lines)
    assert PARENT_UUID in files["startup.jl"]


def test_an_extension_that_julia_goes_on_without_is_named() -> None:
    said = b"Error: Error during loading of extension PlotsExt of Jets, use `Base.retry_load_extensions()` ..."
    assert failed_extension(b"warning\n" + said) == "extension PlotsExt of Jets"
    assert failed_extension(b"all is well") == ""


def test_a_character_in_a_statement_is_written_so_that_julia_reads_it_back() -> None:
    said = "precompile(Tuple{Type{Printf.Spec{Base.Val{Char(0x66000000)}}}, Bool})\n"
    assert replayable(said + "precompile(Tuple{typeof(Main.f)})\n") == [
        "precompile(Tuple{Type{Printf.Spec{Base.Val{Base.reinterpret(Base.Char, 0x66000000)}}}, Bool})\n"
    ]


def test_extensions_are_loaded_by_hand_where_julia_loads_none() -> None:
    """1.11 loads no other extension while one is precompiled, and statements speak of them."""
    groups: Groups = {(A, B): frozenset({"precompile(Tuple{typeof(A.f), BExt.T})\n"})}
    files = startup_files(groups, {(A, B): frozenset({("uuid-of-it", "BExt")})}, "# replay\n")
    (path,) = (path for path in files if path.endswith("Ext1.jl"))
    lines = files[path].splitlines()
    assert lines[1:4] == [
        f"using {PARENT}, A, B",
        'Base.require(Base.PkgId(Base.UUID("uuid-of-it"), "BExt"))',
        "# replay",
    ]
