import dataclasses
import io
import os
import shutil
import signal
import stat
import warnings
from pathlib import Path

import pytest

from fakebuild import FakeJulia, fake_inputs, fake_plan, fake_prefix, means, newer
from headstart.build import Inputs, Stage, apply, plan
from headstart.build.trees import git_tree
from headstart.datafiles import data_text
from headstart.errors import (
    BuildError,
    ConfigurationError,
    CorruptError,
    IncompatibleError,
    LockedError,
    NamespaceError,
)
from headstart.gittree import version_slug
from headstart.julia import JuliaVersion, Proof, capabilities
from headstart.machine import JuliaInstall
from headstart.names import Fqrn
from headstart.project import ImageKind
from headstart.release import FileRecord, JuliaTree, Release
from headstart.stage import open_stage
from projects import FILES, LEAF, LOCK, PRINTF, write_project


@pytest.fixture
def install(tmp_path: Path) -> JuliaInstall:
    return fake_prefix(tmp_path / "somewhere")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


@pytest.fixture
def julia(tmp_path: Path) -> FakeJulia:
    return FakeJulia(tmp_path)


# --- the release id


def test_same_inputs_give_the_same_id(tmp_path: Path, install: JuliaInstall, project: Path) -> None:
    one = fake_plan(project, install, tmp_path / "stage")
    other = tmp_path / "another/checkout"
    for name in sorted(FILES, reverse=True):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_text(FILES[name])
        os.utime(other / name, (12345, 12345))
        (other / name).chmod(0o600)
    (other / ".git").mkdir()
    (other / ".git/HEAD").write_text("ref")
    two = fake_plan(other, fake_prefix(tmp_path / "elsewhere"), other / "stage")
    assert one.id == two.id
    assert one.julia == two.julia


def test_the_stage_inside_the_project_is_no_input(tmp_path: Path, install: JuliaInstall, project: Path) -> None:
    before = fake_plan(project, install, project / "stage").id
    (project / "stage/logs").mkdir(parents=True)
    (project / "stage/logs/x.log").write_text("x")
    assert fake_plan(project, install, project / "stage").id == before
    assert fake_plan(project, install, tmp_path / "stage").id != before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Project.toml", FILES["Project.toml"] + "\n"),
        ("Manifest.toml", LOCK + "\n"),
        ("packages/Leaf/src/Leaf.jl", "module Leaf end"),
        ("workload.jl", "using App"),
        ("smoke.jl", "using App"),
        ("data/new.txt", ""),
        ("Headstart.toml", FILES["Headstart.toml"].replace("tiny", "tinier")),
    ],
)
def test_any_changed_file_gives_another_id(
    tmp_path: Path, install: JuliaInstall, project: Path, name: str, text: str
) -> None:
    before = fake_plan(project, install, tmp_path / "stage").id
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text(text)
    assert fake_plan(project, install, tmp_path / "stage").id != before


def test_any_other_input_gives_another_id(tmp_path: Path, install: JuliaInstall, project: Path) -> None:
    inputs = fake_inputs(project, install, tmp_path / "stage")
    fixed = dataclasses.replace(inputs.capabilities, relocatable=False)
    ids = [
        plan(inputs).id,
        plan(dataclasses.replace(inputs, fqrn=Fqrn("other.example.org"))).id,
        plan(dataclasses.replace(inputs, recipe={**inputs.recipe, "build_image.jl": "other"})).id,
        plan(dataclasses.replace(inputs, capabilities=fixed)).id,
        fake_plan(project, install, tmp_path / "stage", ["x86-64", "x86-64-v2"]).id,
    ]
    (Path(install.prefix) / "share/julia/stdlib/v1.5/Test/Test.jl").write_text("changed")
    ids.append(fake_plan(project, install, tmp_path / "stage").id)
    (project / "workload.jl").chmod(0o755)
    ids.append(fake_plan(project, install, tmp_path / "stage").id)
    assert len(set(ids)) == len(ids)
    assert inputs.version == JuliaVersion.parse("1.5.3")


def test_the_plan_is_printable(tmp_path: Path, install: JuliaInstall, project: Path) -> None:
    todo = fake_plan(project, install, tmp_path / "stage")
    text = "\n".join(todo.lines())
    assert f"/cvmfs/julia.example.org/stacks/tiny/{todo.id}" in text
    assert "compile    Leaf App" in text
    assert "x86-64-v2 (-C nehalem)" in text
    assert not (tmp_path / "stage").exists()


# --- the project


def outside(project: Path) -> Path:
    """The project with its leaf package in a directory beside it."""
    (project / "packages/Leaf").rename(project.parent / "Leaf")
    (project / "Manifest.toml").write_text(LOCK.replace("packages/Leaf", "../Leaf"))
    return project


def test_a_package_outside_comes_below_dev(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    one = fake_plan(outside(project), install, tmp_path / "stage")
    deeper = tmp_path / "x/y"
    deeper.mkdir(parents=True)
    shutil.copytree(project, deeper / "p")
    shutil.copytree(tmp_path / "Leaf", deeper / "Leaf")
    assert fake_plan(deeper / "p", install, tmp_path / "stage").id == one.id
    with Stage(str(tmp_path / "stage")) as stage:
        built = Path(apply(one, stage, means(install, julia, io.StringIO())).path)
    assert (built / "project/dev/Leaf/src/Leaf.jl").read_text() == FILES["packages/Leaf/src/Leaf.jl"]
    assert 'path = "dev/Leaf"' in (built / "project/Manifest.toml").read_text()
    assert 'path = "packages/App"' in (built / "project/Manifest.toml").read_text()


def test_a_directory_in_the_way_of_a_package_outside(
    tmp_path: Path, install: JuliaInstall, project: Path
) -> None:
    (outside(project) / "dev/Leaf").mkdir(parents=True)
    (project / "dev/Leaf/x").touch()
    with pytest.raises(ConfigurationError, match="in the way"):
        fake_plan(project, install, tmp_path / "stage")


def test_a_project_that_is_a_package_itself_is_compiled_last(
    tmp_path: Path, install: JuliaInstall, project: Path
) -> None:
    (project / "Project.toml").write_text(f'name = "Own"\nuuid = "{PRINTF[:-1]}0"\n' + FILES["Project.toml"])
    todo = fake_plan(project, install, tmp_path / "stage")
    assert [package.name for package in todo.packages] == ["Leaf", "App", "Own"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Manifest.toml", "Manifest.toml is missing: a release is built from a lock"),
        ("Project.toml", "Project.toml is missing: that is no Julia project"),
        ("packages/Leaf/Project.toml", "has a package there"),
    ],
)
def test_a_missing_file(tmp_path: Path, install: JuliaInstall, project: Path, name: str, said: str) -> None:
    (project / name).unlink()
    with pytest.raises(ConfigurationError) as caught:
        fake_plan(project, install, tmp_path / "stage")
    assert said in str(caught.value)


def test_a_lock_that_does_not_fit(tmp_path: Path, install: JuliaInstall, project: Path) -> None:
    (project / "Project.toml").write_text(f'[deps]\nGone = "{LEAF[:-1]}2"\n')
    with pytest.raises(ConfigurationError, match=r"Manifest\.toml does not fit the project: Gone is not in it"):
        fake_plan(project, install, tmp_path / "stage")


def test_a_script_that_is_not_there(tmp_path: Path, install: JuliaInstall, project: Path) -> None:
    (project / "smoke.jl").unlink()
    with pytest.raises(ConfigurationError, match=r"smoke is smoke\.jl, and the project has no such file"):
        fake_plan(project, install, tmp_path / "stage")


def test_a_lock_that_this_julia_cannot_read(tmp_path: Path, install: JuliaInstall, project: Path) -> None:
    head = 'julia_version = "1.10.6"\nmanifest_format = "2.0"\n'
    (project / "Manifest.toml").write_text(head + LOCK.replace("[[", "[[deps."))
    with pytest.raises(
        IncompatibleError, match=r"1\.5\.3 cannot read a Manifest\.toml of format 2, written by"
    ):
        fake_plan(project, install, tmp_path / "stage")


def test_a_lock_that_takes_for_julias_own_what_this_one_does_not_bring(
    tmp_path: Path, install: JuliaInstall, project: Path
) -> None:
    (project / "Manifest.toml").write_text(LOCK + f'\n[[Downloads]]\nuuid = "{LEAF[:-1]}2"\n')
    with pytest.raises(IncompatibleError, match=r"takes Downloads for Julia's own, and Julia 1\.5\.3 does not"):
        fake_plan(project, install, tmp_path / "stage")


def test_the_stage_cannot_be_the_project(tmp_path: Path, install: JuliaInstall, project: Path) -> None:
    (tmp_path / "link").symlink_to(project)
    with pytest.raises(ConfigurationError, match="is the project itself"):
        fake_plan(project, install, tmp_path / "link")


def test_a_lock_that_another_minor_version_resolved_is_refused(
    tmp_path: Path, install: JuliaInstall, project: Path
) -> None:
    inputs = fake_inputs(project, install, tmp_path / "stage")

    def resolved_by(version: str) -> Inputs:
        lock = dataclasses.replace(inputs.project.lock, julia=version)
        return dataclasses.replace(inputs, project=dataclasses.replace(inputs.project, lock=lock))

    assert plan(resolved_by("1.5.0")).id == plan(inputs).id
    with pytest.raises(
        IncompatibleError, match=r"resolved by Julia 1\.6\.2, and the release would be built with"
    ):
        plan(resolved_by("1.6.2"))


@pytest.mark.parametrize("kind", ["pkgimages", "both"])
def test_a_julia_without_package_images_is_refused(
    tmp_path: Path, install: JuliaInstall, project: Path, kind: str
) -> None:
    (project / "Headstart.toml").write_text(FILES["Headstart.toml"] + f'image = "{kind}"\n')
    with pytest.raises(ConfigurationError, match=f"image is '{kind}', which Julia 1.5.3 does not have"):
        fake_plan(project, install, tmp_path / "stage")


def test_each_kind_of_image_puts_the_packages_in_their_place(
    tmp_path: Path, install: JuliaInstall, project: Path
) -> None:
    inputs = fake_inputs(project, install, tmp_path / "stage")

    def names(**changed: object) -> tuple[list[str], list[str]]:
        todo = plan(newer(inputs, **changed))
        return [one.name for one in todo.in_image], [one.name for one in todo.on_top]

    assert names(image=ImageKind.SYSTEM) == (["Leaf", "App"], [])
    assert names(image=ImageKind.PACKAGES) == ([], ["Leaf", "App"])
    assert names(image=ImageKind.BOTH, heavy=("Leaf",)) == (["Leaf"], ["App"])
    # What a heavy package depends on goes with it.
    assert names(image=ImageKind.BOTH, heavy=("App",)) == (["Leaf", "App"], [])
    with pytest.raises(ConfigurationError, match="heavy names Other"):
        names(image=ImageKind.BOTH, heavy=("Other",))
    with pytest.raises(ConfigurationError, match="no package from a registry"):
        names(image=ImageKind.BOTH)
    kinds = [ImageKind.SYSTEM, ImageKind.PACKAGES]
    ids = {plan(newer(inputs, image=kind)).id for kind in kinds} | {
        plan(newer(inputs, image=ImageKind.BOTH, heavy=(name,))).id for name in ("Leaf", "App")
    }
    assert len(ids) == 4


def test_a_release_with_caches_of_absolute_paths_stays_where_it_is(
    tmp_path: Path, install: JuliaInstall, project: Path
) -> None:
    inputs = fake_inputs(project, install, tmp_path / "stage")
    assert inputs.relocatable
    assert not inputs.has_packages
    # Julia 1.10: the standard library is compiled anew for an image, and its caches hold on to their paths.
    assert newer(inputs, image=ImageKind.SYSTEM).has_packages
    assert not newer(inputs, image=ImageKind.SYSTEM).relocatable
    later = capabilities(data_text("julia.toml"), JuliaVersion.parse("1.11.1"))
    assert dataclasses.replace(newer(inputs, image=ImageKind.PACKAGES), capabilities=later).relocatable


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside"])
def test_a_link_out_of_the_project_is_refused(
    tmp_path: Path, install: JuliaInstall, project: Path, target: str
) -> None:
    (project / "packages/link").symlink_to(target)
    with pytest.raises(ConfigurationError, match="outside of the project"):
        fake_plan(project, install, tmp_path / "stage")


def test_something_that_is_no_file_is_refused(tmp_path: Path, install: JuliaInstall, project: Path) -> None:
    os.mkfifo(project / "pipe")
    with pytest.raises(ConfigurationError, match="neither a file"):
        fake_plan(project, install, tmp_path / "stage")


# --- carrying it out


def test_a_release_is_complete_and_its_records_are_true(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    (project / "packages/alias").symlink_to("Leaf")
    (project / "packages/ahead").symlink_to("Leaf/not/yet")
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    todo = fake_plan(project, install, tmp_path / "stage", ["x86-64", "x86-64-v2"])
    talk = io.StringIO()
    old = os.umask(0o077)
    try:
        with Stage(str(tmp_path / "stage")) as stage:
            built = apply(todo, stage, means(install, julia, talk))
    finally:
        os.umask(old)
    root = Path(built.path)
    assert root == tmp_path / "stage/stacks/tiny" / str(todo.id)
    data = (root / "release.json").read_bytes()
    release = Release.from_bytes(data)
    assert release == built.release
    assert release.to_bytes() == data
    assert [image.target for image in release.images] == ["x86-64", "x86-64-v2"]
    assert release.images[1].recorded == "nehalem"
    assert set(release.inputs) >= {
        "fqrn",
        "stack",
        "julia",
        "project",
        "lock",
        "sources",
        "workload",
        "targets",
    }
    assert release.built == "2026-01-02T03:04:05Z"
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}
    assert found == {*release.files, "release.json"}
    assert {".cvmfscatalog", "bin/julia", "images/x86-64/sys.so", "project/packages/alias"} <= found
    for path, record in release.files.items():
        if isinstance(record, FileRecord):
            status = (root / path).stat()
            assert stat.S_IMODE(status.st_mode) == record.mode
            assert status.st_size == record.size
            if path.startswith("project/"):
                assert status.st_mtime == 1_000_000_000
    assert release.files["project/run.sh"].mode == 0o555  # type: ignore[union-attr]  # it is a file
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o755 for path in root.rglob("*") if path.is_dir())
    tree = JuliaTree.from_bytes((tmp_path / "stage/julia" / str(todo.julia) / "julia.json").read_bytes())
    assert tree.name == release.julia == todo.julia
    shipped = tmp_path / "stage/julia" / str(todo.julia)
    assert (shipped / "lib/libjulia.so").is_symlink()
    assert not (shipped / "share/dangling").is_symlink()
    assert stat.S_IMODE((shipped / "bin/julia").stat().st_mode) == 0o555
    assert open_stage(str(tmp_path / "stage")).digest == built.digest
    announced = f'"release":"{todo.id}"'
    assert announced in (tmp_path / "stage/stage.json").read_text()
    assert os.listdir(tmp_path / "stage/work") == ["lock"]
    assert "staged tiny" in talk.getvalue()


def test_what_is_staged_is_not_built_again(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    todo = fake_plan(project, install, tmp_path / "stage")
    talk = io.StringIO()
    for new in (True, False):
        with Stage(str(tmp_path / "stage")) as stage:
            built = apply(todo, stage, means(install, julia, talk))
        assert built.new is new
    assert julia.kinds().count("compile") == 1
    assert "already staged" in talk.getvalue()


def test_a_staged_julia_that_is_damaged_is_built_with_no_more(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    todo = fake_plan(project, install, tmp_path / "stage")
    with Stage(str(tmp_path / "stage")) as stage:
        apply(todo, stage, means(install, julia, io.StringIO()))
        (project / "smoke.jl").write_text("using App\n")
        other = fake_plan(project, install, tmp_path / "stage")
        library = Path(stage.julia(todo.julia)) / "lib/libjulia.so.1"
        content = library.read_bytes()
        library.chmod(0o644)
        library.write_bytes(content[:-1])
        library.chmod(0o444)
        with pytest.raises(CorruptError, match=r"lib/libjulia\.so\.1 differs") as caught:
            apply(other, stage, means(install, julia, io.StringIO()))
        assert caught.value.hint.startswith(f"remove {stage.julia(todo.julia)}")
        shutil.rmtree(stage.julia(todo.julia))
        assert apply(other, stage, means(install, julia, io.StringIO())).new


def test_a_staged_release_that_is_damaged_is_an_error(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    todo = fake_plan(project, install, tmp_path / "stage")
    place = tmp_path / "stage/stacks/tiny" / str(todo.id)
    place.mkdir(parents=True)
    (place / "release.json").write_text("{")
    with Stage(str(tmp_path / "stage")) as stage, pytest.raises(CorruptError, match="no complete release"):
        apply(todo, stage, means(install, julia, io.StringIO()))


def test_left_over_methods_are_fed_back(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    late = "precompile(Tuple{typeof(App.late)})\n"
    julia.leftover = lambda statements: "" if late in statements else late
    todo = fake_plan(project, install, tmp_path / "stage")
    with Stage(str(tmp_path / "stage")) as stage:
        apply(todo, stage, means(install, julia, io.StringIO()))
    assert julia.kinds().count("compile") == 2
    assert julia.trace in julia.statements


@pytest.mark.parametrize("line", ["typeof(App.never)", "typeof(Main.mine)"])
def test_methods_that_stay_are_an_error_that_names_them(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia, line: str
) -> None:
    julia.leftover = lambda _: f"precompile(Tuple{{{line}}})\n"
    todo = fake_plan(project, install, tmp_path / "stage")
    with Stage(str(tmp_path / "stage")) as stage, pytest.raises(BuildError) as caught:
        apply(todo, stage, means(install, julia, io.StringIO()))
    assert f"precompile(Tuple{{{line}}})" in caught.value.message
    assert str(tmp_path / "stage/logs") in caught.value.hint
    assert not (tmp_path / "stage/stacks").exists()


FAILURES = {
    "precompile": "a package does not precompile",
    "trace": "fails while it is traced",
    "compile": "the image for x86-64-v2 does not compile",
    "link": "the image for x86-64-v2 does not link",
    "smoke": "the smoke test of x86-64-v2",
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_step_that_fails_says_what_julia_said_and_leaves_nothing_but_the_log(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia, kind: str
) -> None:
    said = b"noise\nERROR: LoadError: UndefVarError: x not defined\nStacktrace:\n [1] top-level scope\n"
    julia.fail[kind] = (1, said)
    todo = fake_plan(project, install, tmp_path / "stage")
    with Stage(str(tmp_path / "stage")) as stage, pytest.raises(BuildError) as caught:
        apply(todo, stage, means(install, julia, io.StringIO()))
    assert FAILURES[kind] in caught.value.message
    assert "LoadError: UndefVarError: x not defined" in caught.value.message
    log = tmp_path / f"stage/logs/{todo.id}.log"
    assert str(log) in caught.value.hint
    assert said in log.read_bytes()
    assert not (tmp_path / "stage/stacks").exists()
    assert not (tmp_path / "stage/stage.json").exists()
    assert os.listdir(tmp_path / "stage/work") == ["lock"]
    julia.fail.clear()
    with Stage(str(tmp_path / "stage")) as stage:
        assert apply(todo, stage, means(install, julia, io.StringIO())).new


def test_an_image_for_another_level_is_refused(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    julia.images["x86-64-v2"] = julia.images["x86-64"]
    todo = fake_plan(project, install, tmp_path / "stage")
    with (
        Stage(str(tmp_path / "stage")) as stage,
        pytest.raises(BuildError, match="is called generic"),
    ):
        apply(todo, stage, means(install, julia, io.StringIO()))
    assert not (tmp_path / "stage/stacks").exists()


def test_no_namespace_is_said_before_anything_long_begins(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    julia.fail["allowed"] = (
        NamespaceError.exit_code,
        b"headstart: no mount namespace is allowed here; do this\n",
    )
    todo = fake_plan(project, install, tmp_path / "stage")
    with Stage(str(tmp_path / "stage")) as stage, pytest.raises(NamespaceError, match=r"^no mount namespace"):
        apply(todo, stage, means(install, julia, io.StringIO()))
    assert "precompile" not in julia.kinds()


def test_a_source_that_changes_during_the_build(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    todo = fake_plan(project, install, tmp_path / "stage")
    (project / "packages/Leaf/src/Leaf.jl").write_text("module Leaf; end")
    with (
        Stage(str(tmp_path / "stage")) as stage,
        pytest.raises(BuildError, match=r"Leaf\.jl was changed while"),
    ):
        apply(todo, stage, means(install, julia, io.StringIO()))


def test_two_builders_in_one_stage(tmp_path: Path) -> None:
    with (
        Stage(str(tmp_path)),
        pytest.raises(LockedError, match="somebody else is building"),
        Stage(str(tmp_path)),
    ):
        pass
    with Stage(str(tmp_path)):
        pass


@pytest.mark.parametrize("kind", ["allowed", "precompile", "trace", "compile", "link", "smoke"])
def test_killed_at_any_step_and_run_again(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia, kind: str
) -> None:
    todo = fake_plan(project, install, tmp_path / "stage")

    def die(step: str) -> None:
        if step == kind:
            os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        # Threads of earlier builds may still be about; the child does not touch what is theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        julia.before = die
        with Stage(str(tmp_path / "stage")) as stage:
            apply(todo, stage, means(install, julia, io.StringIO()))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not (tmp_path / "stage/stacks").exists()
    assert len(os.listdir(tmp_path / "stage/work")) > 1
    with Stage(str(tmp_path / "stage")) as stage:
        assert apply(todo, stage, means(install, julia, io.StringIO())).new
    assert os.listdir(tmp_path / "stage/work") == ["lock"]


# --- packages and artifacts by tree hash


def tracked(project: Path, tree: str) -> Path:
    """The project with its leaf package by tree hash."""
    (project / "Manifest.toml").write_text(LOCK.replace('path = "packages/Leaf"', f'git-tree-sha1 = "{tree}"'))
    return project


def depot_with(folder: Path, package: Path, tree: str) -> Path:
    place = folder / "packages/Leaf" / version_slug(LEAF, tree, 5)
    shutil.copytree(package, place, symlinks=True)
    return place


def test_a_package_by_its_tree_is_taken_from_the_depots_and_checked(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    tree = git_tree(str(project / "packages/Leaf"))
    place = depot_with(tmp_path / "depot", project / "packages/Leaf", tree)
    todo = fake_plan(tracked(project, tree), install, tmp_path / "stage")
    with Stage(str(tmp_path / "stage")) as stage:
        built = apply(todo, stage, means(install, julia, io.StringIO(), (str(tmp_path / "depot"),)))
    copy = Path(built.path) / "depot" / place.relative_to(tmp_path / "depot")
    assert git_tree(str(copy)) == tree
    assert (copy / "src/Leaf.jl").stat().st_mtime == 1_000_000_000
    assert "instantiate" not in julia.kinds()


@pytest.mark.parametrize("target", ["/etc/passwd", "../../Other"])
def test_a_package_with_a_link_out_of_it_could_not_be_published(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia, target: str
) -> None:
    (project / "packages/Leaf/data").symlink_to(target)
    tree = git_tree(str(project / "packages/Leaf"))
    depot_with(tmp_path / "depot", project / "packages/Leaf", tree)
    (project / "packages/Leaf/data").unlink()
    todo = fake_plan(tracked(project, tree), install, tmp_path / "stage")
    with (
        Stage(str(tmp_path / "stage")) as stage,
        pytest.raises(BuildError, match=f"package Leaf has a link that leads out of it .data -> {target}"),
    ):
        apply(todo, stage, means(install, julia, io.StringIO(), (str(tmp_path / "depot"),)))


def test_a_package_that_is_not_its_tree_is_fetched_and_else_refused(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    tree = git_tree(str(project / "packages/Leaf"))
    place = depot_with(tmp_path / "depot", project / "packages/Leaf", tree)
    (place / "src/Leaf.jl").write_text("module Leaf; evil() = 1; end")
    julia.fail["instantiate"] = (1, b"ERROR: no network\nStacktrace:\n")
    todo = fake_plan(tracked(project, tree), install, tmp_path / "stage")
    with Stage(str(tmp_path / "stage")) as stage, pytest.raises(BuildError) as caught:
        apply(todo, stage, means(install, julia, io.StringIO(), (str(tmp_path / "depot"),)))
    assert f"package Leaf with tree {tree} cannot be had" in caught.value.message
    assert str(place) in caught.value.message
    assert "Pkg says: ERROR: no network" in caught.value.message
    assert str(tmp_path / "stage/logs") in caught.value.hint
    assert julia.kinds().count("instantiate") == 1
    assert not (tmp_path / "stage/stacks").exists()


def test_artifacts_are_taken_and_checked_like_packages(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    (project / "packages/Leaf/Artifacts.toml").write_text("# listed by Julia itself\n")
    made = tmp_path / "made"
    (made / "bin").mkdir(parents=True)
    (made / "bin/tool").write_text("#!/bin/sh\n")
    (made / "bin/tool").chmod(0o755)
    (made / "lib").symlink_to("bin")
    tree = git_tree(str(made))
    shutil.copytree(made, tmp_path / "depot/artifacts" / tree, symlinks=True)
    julia.artifacts = {tree: "eager tool"}
    todo = fake_plan(project, install, tmp_path / "stage")
    with Stage(str(tmp_path / "stage")) as stage:
        built = apply(todo, stage, means(install, julia, io.StringIO(), (str(tmp_path / "depot"),)))
    copy = Path(built.path) / "depot/artifacts" / tree
    assert git_tree(str(copy)) == tree
    assert stat.S_IMODE((copy / "bin/tool").stat().st_mode) == 0o555
    listing = next(command for command in julia.commands if command[0] == "artifacts")
    assert listing[-1] == f"{todo.path}/project/packages/Leaf"


def test_an_artifact_that_nobody_has(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    (project / "packages/Leaf/Artifacts.toml").touch()
    julia.artifacts = {"0" * 40: "eager tool"}
    todo = fake_plan(project, install, tmp_path / "stage")
    with (
        Stage(str(tmp_path / "stage")) as stage,
        pytest.raises(BuildError, match="artifact tool of Leaf with tree 0000"),
    ):
        apply(todo, stage, means(install, julia, io.StringIO()))


def with_artifact(project: Path, tmp_path: Path, julia: FakeJulia, kind: str) -> str:
    """The project with an artifact of its leaf package, which is in a depot; returns its tree."""
    (project / "packages/Leaf/Artifacts.toml").touch()
    made = tmp_path / "made"
    made.mkdir()
    (made / "data").write_text("x")
    tree = git_tree(str(made))
    shutil.copytree(made, tmp_path / "depot/artifacts" / tree)
    julia.artifacts = {tree: f"{kind} table"}
    return tree


def test_a_lazy_artifact_is_left_out_unless_the_settings_name_it(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    tree = with_artifact(project, tmp_path, julia, "lazy")
    depots = (str(tmp_path / "depot"),)
    told = io.StringIO()
    with Stage(str(tmp_path / "stage")) as stage:
        without = apply(
            fake_plan(project, install, tmp_path / "stage"), stage, means(install, julia, told, depots)
        )
        (project / "Headstart.toml").write_text(FILES["Headstart.toml"] + 'lazy = ["table"]\n')
        todo = fake_plan(project, install, tmp_path / "stage")
        carried = apply(todo, stage, means(install, julia, io.StringIO(), depots))
        (project / "Headstart.toml").write_text(FILES["Headstart.toml"] + 'lazy = ["other"]\n')
        with pytest.raises(ConfigurationError, match=r"lazy names other, and no package .* those are table"):
            apply(fake_plan(project, install, tmp_path / "stage"), stage, means(install, julia, told, depots))
    assert "lazy artifacts table of Leaf" in told.getvalue()
    assert not (Path(without.path) / "depot/artifacts").exists()
    assert (Path(carried.path) / "depot/artifacts" / tree / "data").read_text() == "x"


def test_a_script_that_fetches_a_lazy_artifact_is_refused(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    tree = with_artifact(project, tmp_path, julia, "lazy")
    todo = fake_plan(project, install, tmp_path / "stage")

    def fetch(kind: str) -> None:
        if kind == "trace":
            place = tmp_path / "stage/work" / str(todo.id) / ".build/depot/artifacts" / tree
            place.mkdir(parents=True, exist_ok=True)

    julia.before = fetch
    with Stage(str(tmp_path / "stage")) as stage, pytest.raises(BuildError) as caught:
        apply(todo, stage, means(install, julia, io.StringIO(), (str(tmp_path / "depot"),)))
    assert "use table, a lazy artifact of Leaf, which the release does not hold" in caught.value.message
    assert 'lazy = ["table"]' in caught.value.hint


@pytest.mark.parametrize("line", ['{tree} = "/opt/site"\n', '["{leaf}"]\ntable = "/opt/site"\n'])
def test_what_a_depot_puts_in_the_place_of_an_artifact_is_refused(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia, line: str
) -> None:
    tree = with_artifact(project, tmp_path, julia, "eager")
    overrides = tmp_path / "depot/artifacts/Overrides.toml"
    overrides.write_text(line.format(tree=tree, leaf=LEAF))
    todo = fake_plan(project, install, tmp_path / "stage")
    depots = (str(tmp_path / "depot"),)
    with Stage(str(tmp_path / "stage")) as stage, pytest.raises(ConfigurationError) as caught:
        apply(todo, stage, means(install, julia, io.StringIO(), depots))
    said = f"{overrides} puts /opt/site in the place of artifact table of Leaf, and a release holds"
    assert caught.value.message.startswith(said)
    # What is put in the place of something else is no business of this stack.
    overrides.write_text(f'{"9" * 40} = "/opt/site"\n')
    with Stage(str(tmp_path / "stage")) as stage:
        assert apply(todo, stage, means(install, julia, io.StringIO(), depots)).new


@pytest.mark.parametrize("kind", ["precompile", "compile"])
def test_an_extension_that_does_not_compile_fails_a_system_image_too(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia, kind: str
) -> None:
    julia.fail[kind] = (0, b"Error: Error during loading of extension AppExt of App, use `Base.retry` ...\n")
    todo = fake_plan(project, install, tmp_path / "stage")
    with (
        Stage(str(tmp_path / "stage")) as stage,
        pytest.raises(BuildError, match="extension AppExt of App"),
    ):
        apply(todo, stage, means(install, julia, io.StringIO()))


def test_a_package_that_lacks_what_its_build_script_writes_is_told(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    said = b'headstart-failed: Leaf\nERROR: LoadError: SystemError: opening file "/x/deps/deps.jl": none\n'
    julia.fail["precompile"] = (1, said)
    with Stage(str(tmp_path / "stage")) as stage:
        with pytest.raises(BuildError, match=r"Leaf does not precompile: ERROR: LoadError"):
            apply(fake_plan(project, install, tmp_path / "stage"), stage, means(install, julia, io.StringIO()))
        (project / "packages/Leaf/deps").mkdir()
        (project / "packages/Leaf/deps/build.jl").touch()
        with pytest.raises(
            BuildError, match=r"Leaf wants what its deps/build\.jl writes into its own directory"
        ):
            apply(fake_plan(project, install, tmp_path / "stage"), stage, means(install, julia, io.StringIO()))


def test_the_plan_says_what_lock_it_is_and_whose_preferences_there_are(
    tmp_path: Path, install: JuliaInstall, project: Path
) -> None:
    (project / "LocalPreferences.toml").write_text("[App]\nx = 1\n\n[Gone]\nx = 1\n")
    (project / "Manifest.toml").rename(project / "JuliaManifest.toml")
    inputs = fake_inputs(project, install, tmp_path / "stage")
    text = "\n".join(plan(inputs).lines())
    assert "lock       JuliaManifest.toml: 0 packages by tree hash, 2 by path, 2 of Julia's own" in text
    assert "preferences for App, in LocalPreferences.toml (Julia 1.5.3 reads none)" in text
    assert "preferences for Gone are read by nobody" in text
    assert "reads none" not in "\n".join(plan(newer(inputs)).lines())


def test_artifacts_that_cannot_be_listed(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    (project / "packages/Leaf/Artifacts.toml").touch()
    julia.fail["artifacts"] = (1, b"ERROR: broken\n")
    todo = fake_plan(project, install, tmp_path / "stage")
    with Stage(str(tmp_path / "stage")) as stage, pytest.raises(BuildError, match="artifacts cannot be listed"):
        apply(todo, stage, means(install, julia, io.StringIO()))


# --- the proof of a newer Julia


@pytest.mark.parametrize(("work", "good"), [("10 500", True), ("10 501", False), ("11 500", False)])
def test_from_1_9_on_the_counters_decide(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia, work: str, *, good: bool
) -> None:
    inputs = fake_inputs(project, install, tmp_path / "stage")
    newer = dataclasses.replace(inputs.capabilities, proof=Proof.COUNTERS)
    todo = plan(dataclasses.replace(inputs, capabilities=newer))
    julia.leftover = lambda _: "precompile(Tuple{typeof(App.listed)})\n"
    julia.counters = lambda smoke: work if smoke else "10 500"
    with Stage(str(tmp_path / "stage")) as stage:
        if good:
            assert apply(todo, stage, means(install, julia, io.StringIO())).new
        else:
            with pytest.raises(BuildError, match="still compiles 1 method: "):
                apply(todo, stage, means(install, julia, io.StringIO()))


def test_a_julia_that_does_not_count(
    tmp_path: Path, install: JuliaInstall, project: Path, julia: FakeJulia
) -> None:
    inputs = fake_inputs(project, install, tmp_path / "stage")
    newer = dataclasses.replace(inputs.capabilities, proof=Proof.COUNTERS)
    todo = plan(dataclasses.replace(inputs, capabilities=newer))
    julia.leftover = lambda _: "precompile(Tuple{typeof(App.listed)})\n"
    julia.counters = lambda _: ""
    with (
        Stage(str(tmp_path / "stage")) as stage,
        pytest.raises(BuildError, match="did not say what it compiled"),
    ):
        apply(todo, stage, means(install, julia, io.StringIO()))
