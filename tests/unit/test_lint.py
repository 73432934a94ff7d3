"""What the lint finds, and what it must not find."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from fakebuild import fake_prefix
from headstart.build.examine import examine
from headstart.build.sources import read_project
from headstart.cli.findings import lines, to_json
from headstart.gittree import version_slug
from headstart.julia import JuliaVersion
from headstart.lint import RULES, Finding, Rule, Sources, Subject, lint, stock_names
from headstart.project import Local, Lock, Package, Standard, Tracked
from projects import APP, LEAF, LOCK, PRINTF, write_project

TREE = "0123456789abcdef0123456789abcdef01234567"
OTHER = "33333333-3333-4333-8333-333333333333"


def package(name: str = "App", **changed: object) -> Package:
    fields = {"uuid": APP, "source": Local("packages/App"), "dependencies": (), **changed}
    return Package(name=name, **fields)  # type: ignore[arg-type]  # as the fields are


def subject(*packages: Package, julia: str = "1.10.6", lock: str = "1.10.4", **changed: object) -> Subject:
    fields: dict[str, object] = {
        "sources": (),
        "unseen": (),
        "outside": {},
        "preferred": frozenset(),
        "julia": (JuliaVersion.parse(julia),) if julia else (),
        **changed,
    }
    return Subject(lock=Lock(packages=packages, julia=lock, format="2"), **fields)  # type: ignore[arg-type]


def of(text: str, path: str = "src/App.jl", dependencies: tuple[tuple[str, str], ...] = ()) -> list[str]:
    """Findings in one file, as rule and line."""
    one = package(dependencies=dependencies)
    sources = Sources(package=one, at="packages/App", texts={path: text})
    return [f"{found.rule}:{found.line}" for found in lint(subject(one, sources=(sources,)))]


@pytest.mark.parametrize(
    "value",
    [
        "@__DIR__",
        'joinpath(@__DIR__, "..", "data")',
        'abspath(joinpath(\n    @__DIR__,\n    "data",\n))',
        "dirname(dirname(pathof(App)))",
        'joinpath(pkgdir(@__MODULE__), "data")',
        '"$(@__DIR__)/data"',
        '[joinpath(@__DIR__, "a"), "b"]',
        "Ref(dirname(@__FILE__))",
        "normpath(Sys.BINDIR, Base.DATAROOTDIR)",
    ],
)
def test_a_path_in_a_constant(value: str) -> None:
    assert of(f"module App\n\nconst DATA = {value}\nend\n") == ["path-in-constant:3"]
    assert of(f"module App\nDATA = {value}\nend\n") == ["path-in-constant:2"]


@pytest.mark.parametrize(
    "text",
    [
        'data() = joinpath(@__DIR__, "data")',
        'function data()\n    here = joinpath(@__DIR__, "data")\nend',
        "# const DATA = @__DIR__",
        '"""\n    const DATA = joinpath(@__DIR__, "data")\n"""\nf() = 1',
        "#=\nconst DATA = @__DIR__\n=#",
        'const TABLE = read(joinpath(@__DIR__, "table.txt"), String)',
        'const VERSION = TOML.parsefile(joinpath(pkgdir(App), "Project.toml"))["version"]',
        'const NAMES = readlines(joinpath(@__DIR__, "names")) |> sort',
        'const TEXT = joinpath(@__DIR__, "x") |> read',
        'const IN_DEV = dirname(@__DIR__) == "dev"',
        'const HERE = @path joinpath(@__DIR__, "data")',
        'const HERE = @path(joinpath(@__DIR__, "data"))',
        "const find = name -> joinpath(@__DIR__, name)",
        "const HOME = () -> homedir()",
        'include(joinpath(@__DIR__, "other.jl"))',
        'const SAFE = "homedir() pwd() @__DIR__"',
        "const N = length(pwd())",
        "f(dir = @__DIR__) = dir",
        "const isroot = isfile(tempname())",
        "x.pathof(y) == 3",
    ],
)
def test_what_holds_no_path(text: str) -> None:
    assert of(text) == []


@pytest.mark.parametrize(
    "value", ["homedir()", 'joinpath(homedir(), ".app")', "Sys.CPU_THREADS", "mktempdir()"]
)
def test_the_builder_in_a_constant(value: str) -> None:
    assert of(f"\nconst X = {value}") == ["builder-in-constant:2"]


def test_an_artifact_in_a_constant() -> None:
    assert of('const A = artifact"data"') == ["artifact-in-constant:1"]
    assert of('const A = joinpath(artifact"data", "x")') == ["artifact-in-constant:1"]
    assert of('data() = artifact"data"\nconst T = read(joinpath(artifact"data", "x"))') == []


def test_dependencies_whose_content_is_not_tracked() -> None:
    text = 'include_dependency("a")\ninclude_dependency("b", track_content=true)\n'
    text += "if x\n  include_dependency(f(\n1))\nend"
    assert of(text) == ["untracked-content:1", "untracked-content:4"]
    assert of("function include_dependency(path)\nend\n# include_dependency(x)") == []


def test_no_precompilation() -> None:
    assert of("__precompile__(false)\nmodule App\nend") == ["no-precompile:1"]
    assert of("module App\n  __precompile__( false )\nend") == ["no-precompile:2"]
    assert (
        of('__precompile__(true)\n__precompile__()\n# __precompile__(false)\nx = "__precompile__(false)"') == []
    )


def test_scratch_spaces_need_the_package() -> None:
    text = 'using Scratch: @get_scratch!\nfunction __init__()\n    dir = @get_scratch!("x")\n'
    text += '    get_scratch!(App, "y")\nend'
    assert of(text, dependencies=(("Scratch", ""),)) == ["scratch-space:3", "scratch-space:4"]
    assert of(text) == []


def test_a_build_step() -> None:
    assert of("const X = @__DIR__", "deps/build.jl") == ["build-script:1"]


def rules(found: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(str(one.rule), one.package) for one in found]


def test_packages_that_are_known_by_name() -> None:
    tracked = Tracked(TREE)
    cuda = package("CUDA", uuid=OTHER, source=tracked)
    python = package("PythonCall", source=tracked)
    assert rules(lint(subject(cuda, python))) == [
        ("python-state", "PythonCall"),
        ("device-preferences", "CUDA"),
    ]
    assert rules(lint(subject(cuda, preferred=frozenset({"CUDA_Runtime_jll"})))) == []
    assert rules(lint(subject(cuda, preferred=frozenset({"MPIPreferences"})))) == [
        ("device-preferences", "CUDA")
    ]
    assert rules(lint(subject(package("CUDATools", source=tracked)))) == []


def test_a_package_that_the_system_image_holds() -> None:
    held = frozenset({PRINTF})
    assert rules(lint(subject(package("Printf", uuid=PRINTF, source=Standard()), in_image=held))) == []
    other = package("Printf", uuid=PRINTF, source=Tracked(TREE))
    assert rules(lint(subject(other, in_image=held))) == [("in-system-image", "Printf")]
    assert rules(lint(subject(other))) == []


def test_who_resolved_the_lock() -> None:
    assert lint(subject(lock="1.10.4", julia="1.10.6")) == ()
    (one,) = lint(subject(lock="1.1.0", julia="1.10.6"))
    assert (one.rule, one.what) == (Rule.LOCK, "resolved by Julia 1.1.0, and Julia 1.10.6 would build")
    assert lint(subject(lock="", julia="1.5.3")) == ()
    for julia in ("", "1.10.6"):
        assert rules(lint(subject(lock="", julia=julia))) == [("lock-version", "")]


def test_the_list_of_the_system_image() -> None:
    text = "stdlibs = [\n    # No dependencies\n    :SHA,\n    # :Gone,\n    :Random, # why\n]"
    assert stock_names(text) == {"SHA", "Random"}
    assert stock_names("nothing of the kind") == frozenset()


def test_every_rule_has_its_reason_and_its_cure() -> None:
    assert set(RULES) == set(Rule)
    for advice in RULES.values():
        assert re.fullmatch(r"[^.]*\S.*[^.]", advice.why)
        assert advice.todo


def write_sources(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_project_as_it_lies_there(tmp_path: Path) -> None:
    lock = LOCK + (
        f'\n[[Far]]\nuuid = "{OTHER}"\ngit-tree-sha1 = "{TREE}"\n'
        f'\n[[Gone]]\nuuid = "{OTHER[:-1]}4"\ngit-tree-sha1 = "{TREE}"\n'
    )
    lock = lock.replace('path = "packages/Leaf"', 'path = "../Leaf"')
    constant = "module X\nconst HERE = @__DIR__\nend\n"
    root = write_project(
        tmp_path / "project",
        Manifest_toml=lock,
        packages__App__src__App_jl=constant,
        packages__App__deps__build_jl="",
        packages__App__test__runtests_jl=constant,
        LocalPreferences_toml="[CUDA]\nx = 1\n",
    )
    (root / "packages/Leaf").rename(tmp_path / "Leaf")
    write_sources(tmp_path / "Leaf", {"src/part/one.jl": constant, "ext/LeafExt.jl": constant})
    depot = tmp_path / "depot"
    place = depot / "packages/Far" / version_slug(OTHER, TREE, 4)
    write_sources(place, {"src/Far.jl": constant, "test/runtests.jl": constant, "src/notes.txt": constant})
    tree = read_project(str(root), str(tmp_path / "stage"))
    found = examine(tree, str(root), (str(depot),), fake_prefix(tmp_path))
    assert found.preferred == {"CUDA"}
    assert found.julia == (JuliaVersion.parse("1.5.3"),)
    assert [(str(one.rule), one.package, one.place) for one in lint(found)] == [
        ("build-script", "App", "packages/App/deps/build.jl:1"),
        ("path-in-constant", "App", "packages/App/src/App.jl:2"),
        ("path-in-constant", "Far", f"{place}/src/Far.jl:2"),
        ("path-in-constant", "Leaf", f"{tmp_path}/Leaf/ext/LeafExt.jl:2"),
        ("path-in-constant", "Leaf", f"{tmp_path}/Leaf/src/part/one.jl:2"),
        ("path-outside", "Leaf", f"{tmp_path}/Leaf"),
        ("not-looked-at", "Gone", ""),
    ]


def test_a_project_that_is_a_package_itself(tmp_path: Path) -> None:
    root = write_project(
        tmp_path / "project",
        Project_toml=f'name = "Own"\nuuid = "{OTHER}"\n[deps]\nApp = "{APP}"\n',
        src__Own_jl="module Own\r\n\r\nconst HERE = @__DIR__\r\nend\r\n",
    )
    tree = read_project(str(root), str(tmp_path / "stage"))
    (one,) = lint(examine(tree, str(root), (), fake_prefix(tmp_path)))
    assert (one.package, one.place) == ("Own", "src/Own.jl:3")


def test_the_packages_of_a_real_system_image(tmp_path: Path) -> None:
    install = fake_prefix(tmp_path)
    share = Path(install.share)
    write_sources(
        share,
        {
            "base/sysimg.jl": "stdlibs = [\n :Printf,\n :Absent,\n]",
            "stdlib/v1.5/Printf/Project.toml": f'uuid = "{PRINTF.upper()}"',
        },
    )
    root = write_project(tmp_path / "project")
    tree = read_project(str(root), str(tmp_path / "stage"))
    assert examine(tree, str(root), (), install).in_image == {PRINTF}
    assert LEAF not in examine(tree, str(root), ()).in_image


def test_how_findings_are_shown() -> None:
    found = tuple(
        Finding(rule=Rule.BUILT_PATH, package="App", file="src/App.jl", line=line, what="X = … @__DIR__ …")
        for line in range(1, 5)
    ) + tuple(
        Finding(rule=Rule.UNSEEN, package=f"Package{index}", file="", line=0, what="tree")
        for index in range(30)
    )
    told = list(lines(found))
    assert max(map(len, told)) <= 79
    assert told[0].startswith("lint       path-in-constant: a constant holds")
    assert "           src/App.jl:4  App: X = … @__DIR__ …" in told
    assert "           -> make it a function" in "\n".join(told)
    assert "Package29" in "\n".join(told)
    short = list(lines(found, most=2))
    assert "           and 2 more, which --dry-run shows" in short
    assert "src/App.jl:3" not in "\n".join(short)
    one = to_json(found)[0]
    assert one["file"] == "src/App.jl"
    assert one["line"] == 1
    assert {"rule", "package", "file", "line", "what", "why", "do"} == set(one)
    assert list(lines(())) == []
