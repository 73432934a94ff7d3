"""``headstart init``: what it proposes, and what it refuses to do."""

import json
import os
import re
import resource
import shutil
from pathlib import Path

import pytest

from headstart.cli import build, main
from headstart.errors import BuildError, ConfigurationError, StorageError
from headstart.init import Look, apply, plan, stack_name
from headstart.juliasource import code
from headstart.lint import Finding, Rule
from headstart.microarchitecture import LEVELS
from headstart.project import ImageKind, Local, Lock, Package, Project, Settings
from juliahelp import JETS
from juliaserver import program
from projects import APP, write_project

ALL = frozenset().union(*LEVELS.values())
Capture = pytest.CaptureFixture[str]


def look(
    *, name: str = "", folder: str = "/x/project", julia: str = "", count: int = 1, **changed: object
) -> Look:
    packages = tuple(
        Package(name=f"P{index}", uuid=str(index), source=Local("x"), dependencies=()) for index in range(count)
    )
    fields: dict[str, object] = {
        "directory": folder,
        "project": Project(name=name, uuid="", dependencies={one.name: one.uuid for one in packages}),
        "lock": Lock(packages=packages, julia=julia, format="2"),
        "scripts": {},
        "cpu": ALL,
        "findings": (),
        **changed,
    }
    return Look(**fields)  # type: ignore[arg-type]  # as the fields are


@pytest.mark.parametrize(
    ("name", "folder", "found"),
    [
        ("JetAnalysis", "/x/y", "jetanalysis"),
        ("", "/x/My Project.jl", "my-project"),
        ("", "/x/..hidden-", "hidden"),
        ("Ünïcode", "/x/y", "n-code"),
        ("", "/", "stack"),
        ("", "/x/日本", "stack"),
        ("A" * 100, "/x", "a" * 63),
    ],
)
def test_the_stacks_name(name: str, folder: str, found: str) -> None:
    assert stack_name(look(name=name, folder=folder)) == found
    assert str(plan(look(name=name, folder=folder)).settings.name) == found


@pytest.mark.parametrize(
    ("resolver", "found"),
    [
        ("", "system"),
        ("1.10.6", "1.10"),
        ("1.12.0-rc1", "1.12.0-rc1"),
        ("1.13.0-DEV.12", "system"),
    ],
)
def test_the_julia_is_that_of_the_lock(resolver: str, found: str) -> None:
    assert plan(look(julia=resolver)).settings.julia == found


def test_a_level_that_this_machine_cannot_build_is_left_out() -> None:
    assert plan(look()).settings.targets == ("x86-64", "x86-64-v3")
    weak = plan(look(cpu=LEVELS["x86-64-v2"]))
    assert weak.settings.targets == ("x86-64",)
    assert "This machine cannot build x86-64-v3" in weak.text


def test_package_images_for_a_large_stack_where_they_are_good() -> None:
    forbids = Finding(rule=Rule.NO_CACHE, package="P1", file="x", line=1, what="")
    for one, kind in (
        (look(julia="1.10.6", count=50), ImageKind.SYSTEM),
        (look(julia="1.10.6", count=101), ImageKind.PACKAGES),
        (look(julia="1.8.5", count=101), ImageKind.SYSTEM),
        (look(julia="1.11.1", count=101), ImageKind.SYSTEM),
        (look(julia="", count=101), ImageKind.SYSTEM),
        (look(julia="1.10.6", count=101, findings=(forbids,)), ImageKind.SYSTEM),
    ):
        assert plan(one).settings.image == kind


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("using P0, Printf\nP0.f()", ""),
        ("import P0.Inner: x\nusing P0:\n  y\nimport P0 as Q", ""),
        ("using Test,\n    P0", ""),
        ('# using Foo\nx = "using Foo"', ""),
        ("using .Inner", ""),
        ("using P0,\n  Foo, Bar", "loads Bar, Foo, on which the project does not depend"),
        ("import Foo as P0", "loads Foo"),
        ("f(ARGS[1])", "wants arguments or input"),
        ("x = readline()", "wants arguments or input"),
    ],
)
def test_a_script_is_chosen_when_nothing_speaks_against_it(text: str, why: str) -> None:
    found = plan(look(scripts={"precompile/workload.jl": text, "test/runtests.jl": "using Foo"}))
    if why:
        assert found.settings.workload == ""
        assert f"# Not used: precompile/workload.jl, which {why}" in found.text
        assert "# test/runtests.jl is no workload by itself" in found.text
    else:
        assert found.settings.workload == "precompile/workload.jl"
        assert "runtests" not in found.text


def test_the_first_of_several_scripts() -> None:
    found = plan(look(scripts={"workload.jl": "", "test/workload.jl": "", "smoke.jl": "", "test/smoke.jl": ""}))
    assert (found.settings.workload, found.settings.smoke) == ("workload.jl", "smoke.jl")
    other = plan(look(scripts={"workload.jl": "ARGS", "test/workload.jl": ""}))
    assert other.settings.workload == "test/workload.jl"
    nothing = plan(look())
    assert '# workload = "workload.jl"' in nothing.text
    assert code(nothing.text)


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    beginning = plan(look(folder=str(tmp_path)))
    apply(beginning)
    assert Path(beginning.path).read_text() == beginning.text
    with pytest.raises(ConfigurationError, match="is there already, and is never overwritten"):
        apply(beginning)
    os.unlink(beginning.path)
    os.symlink("nowhere", beginning.path)
    with pytest.raises(ConfigurationError, match="is there already"):
        apply(beginning)
    assert not (tmp_path / "nowhere").exists()


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    beginning = plan(look(folder=str(tmp_path / "gone")))
    with pytest.raises(StorageError, match=r"cannot be written \(No such file or directory\); print it with"):
        apply(beginning)
    beginning = plan(look(folder=str(tmp_path)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(StorageError, match="File too large"):
            apply(beginning)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def project_of(tmp_path: Path, kind: str) -> Path:
    root = tmp_path / "project"
    if kind == "jets":
        shutil.copytree(JETS, root)
    else:
        write_project(root, packages__App__deps__build_jl="")
    (root / "Headstart.toml").unlink()
    return root


@pytest.mark.parametrize("kind", ["jets", "tiny"])
def test_what_it_writes_is_what_a_build_takes(
    kind: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project_of(tmp_path, kind)
    before = sorted(tmp_path.rglob("*"))
    assert main(["init", str(root), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert sorted(tmp_path.rglob("*")) == before
    settings = Settings.parse(out, "Headstart.toml")
    assert (str(settings.name), settings.workload, settings.smoke) == ("project", "workload.jl", "smoke.jl")
    assert f"next       headstart build {root} --stage" in err
    assert ("packages/App/deps/build.jl:1  App: a build step" in err) == (kind == "tiny")
    assert main(["init", str(root)]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"{root}/Headstart.toml\n", err)
    assert (root / "Headstart.toml").read_text() == out
    # And the next thing is what it says.
    monkeypatch.setenv("HEADSTART_JULIA", str(private_julia(tmp_path / "julia")))
    words = ["build", str(root), "--stage", str(tmp_path / "stage"), "--repository", "julia.example.org"]
    assert main([*words, "--dry-run", "--json"]) == 0
    plan_said = json.loads(capsys.readouterr().out)
    assert plan_said["stack"] == "project"
    found = [(one["rule"], one["file"], one["line"]) for one in plan_said["findings"]]
    assert found == ([("build-script", "packages/App/deps/build.jl", 1)] if kind == "tiny" else [])
    assert main([*words, "--dry-run"]) == 0
    assert ("lint       build-script: " in capsys.readouterr().out) == (kind == "tiny")
    assert not (tmp_path / "stage").exists()


def test_the_lock_of_one_julia_only(tmp_path: Path, capsys: Capture) -> None:
    root = project_of(tmp_path, "tiny")
    lock = (root / "Manifest.toml").read_text()
    (root / "Manifest.toml").unlink()
    for version, said in (("1.11", "1.11.1"), ("1.9", "1.9.4")):
        text = f'julia_version = "{said}"\nmanifest_format = "2.0"\n\n' + lock.replace("[[", "[[deps.")
        (root / f"Manifest-v{version}.toml").write_text(text)
    assert main(["init", str(root), "--dry-run"]) == 0
    assert Settings.parse(capsys.readouterr().out, "Headstart.toml").julia == "1.11"
    # The one that every Julia reads comes first.
    (root / "Manifest.toml").write_text(lock)
    assert main(["init", str(root), "--dry-run"]) == 0
    assert Settings.parse(capsys.readouterr().out, "Headstart.toml").julia == "system"


def test_the_lock_of_a_workspace(tmp_path: Path, capsys: Capture) -> None:
    root = project_of(tmp_path, "tiny")
    text = (root / "Project.toml").read_text() + '[workspace]\nprojects = ["member"]\n'
    (root / "Project.toml").write_text(text)
    (root / "member").mkdir()
    (root / "member/Project.toml").write_text('[deps]\nLeaf = "11111111-1111-4111-8111-111111111111"\n')
    assert main(["init", str(root / "member"), "--dry-run"]) == 0
    assert str(Settings.parse(capsys.readouterr().out, "Headstart.toml").name) == "member"


def test_a_build_notes_what_was_found(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise BuildError("stopped here")

    root = project_of(tmp_path, "tiny")
    assert main(["init", str(root)]) == 0
    monkeypatch.setattr(build, "apply", stop)
    monkeypatch.setenv("HEADSTART_JULIA", str(private_julia(tmp_path / "julia")))
    capsys.readouterr()
    words = ["build", str(root), "--stage", str(tmp_path / "stage"), "--repository", "julia.example.org"]
    assert main(words) == BuildError.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert "lint       build-script: a build step runs only when" in err
    assert "packages/App/deps/build.jl:1  App: a build step" in err


def private_julia(julia: Path) -> Path:
    """A directory that looks like a private Julia, with a program that answers the probe."""
    for name in ("bin/julia", "lib/libjulia.so.1", "lib/julia/sys.so"):
        (julia / name).parent.mkdir(parents=True, exist_ok=True)
        (julia / name).write_text(program("1.5.3"))
    for name in ("Printf", "Unicode"):
        (julia / f"share/julia/stdlib/v1.5/{name}").mkdir(parents=True)
        (julia / f"share/julia/stdlib/v1.5/{name}/x").touch()
    (julia / "bin/julia").chmod(0o755)
    return julia / "bin/julia"


def test_json(tmp_path: Path, capsys: Capture) -> None:
    root = project_of(tmp_path, "tiny")
    assert main(["init", str(root), "--json", "--dry-run"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["written"] is False
    assert said["path"] == f"{root}/Headstart.toml"
    assert [one["rule"] for one in said["findings"]] == ["build-script", "lock-version"]
    assert main(["init", str(root), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["written"] is True
    assert (root / "Headstart.toml").read_text() == said["text"]


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        (
            "Project.toml",
            "Project.toml is missing: that is no Julia project; name the directory of a Julia project",
        ),
        (
            "Manifest.toml",
            r"Manifest.toml is missing: a release is built from a lock .*; run `julia --project=\.",
        ),
    ],
)
def test_a_project_that_is_none(gone: str, says: str, tmp_path: Path, capsys: Capture) -> None:
    root = project_of(tmp_path, "tiny")
    (root / gone).unlink()
    refused(root, capsys, ConfigurationError.exit_code, says)


def test_other_refusals(tmp_path: Path, capsys: Capture) -> None:
    root = project_of(tmp_path, "tiny")
    refused(tmp_path / "none", capsys, ConfigurationError.exit_code, f"there is no directory {tmp_path}/none")
    (root / "Project.toml").write_text(f'[deps]\nApp = "{APP}"\nNew = "{APP[:-1]}3"\n')
    refused(root, capsys, ConfigurationError.exit_code, "does not fit the project: New is not in it")
    (root / "Headstart.toml").write_text("mine")
    refused(root, capsys, ConfigurationError.exit_code, "is there already, and is never overwritten")
    assert (root / "Headstart.toml").read_text() == "mine"


def refused(root: Path, capsys: Capture, code: int, says: str) -> None:
    before = sorted(os.listdir(root)) if root.is_dir() else []
    assert main(["init", str(root)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(says, err), err
    assert (sorted(os.listdir(root)) if root.is_dir() else []) == before
