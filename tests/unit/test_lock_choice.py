"""Which project, which lock and which preferences are the ones: as the Julia that reads them would choose."""

import os
from pathlib import Path

import pytest

from headstart.build.sources import Copied, ProjectTree, Written, read_project
from headstart.errors import ConfigurationError
from headstart.lockchoice import LOCK_NAMES, first, is_rival
from headstart.project import LOCK_FILE, PROJECT_FILE
from pkgserver import write_tree
from projects import APP, FILES, LEAF, LOCK, write_project

VERSIONED = ("JuliaManifest-v1.11.toml", "Manifest-v1.11.toml", *LOCK_NAMES)
ROOT = "33333333-3333-4333-8333-333333333333"


def read(project: Path, locks: tuple[str, ...] = LOCK_NAMES, *, workspaces: bool = False) -> ProjectTree:
    return read_project(str(project), str(project.parent / "stage"), locks, workspaces=workspaces)


def lock_text(tree: ProjectTree) -> str:
    source = tree.files[LOCK_FILE]
    assert isinstance(source, Written)
    return source.content.decode()


@pytest.mark.parametrize(
    ("present", "locks", "chosen"),
    [
        (["Manifest.toml"], LOCK_NAMES, "Manifest.toml"),
        (["Manifest.toml", "JuliaManifest.toml"], LOCK_NAMES, "JuliaManifest.toml"),
        (["Manifest.toml", "Manifest-v1.11.toml"], LOCK_NAMES, "Manifest.toml"),
        (["Manifest.toml", "Manifest-v1.11.toml"], VERSIONED, "Manifest-v1.11.toml"),
        (["JuliaManifest.toml", "Manifest-v1.11.toml"], VERSIONED, "Manifest-v1.11.toml"),
        (["JuliaManifest-v1.11.toml", "Manifest-v1.11.toml"], VERSIONED, "JuliaManifest-v1.11.toml"),
        (["Manifest.toml", "Manifest-v1.10.toml"], VERSIONED, "Manifest.toml"),
    ],
)
def test_the_lock_is_the_one_that_this_julia_takes(
    tmp_path: Path, present: list[str], locks: tuple[str, ...], chosen: str
) -> None:
    project = write_project(tmp_path / "p")
    (project / "Manifest.toml").unlink()
    for name in present:
        (project / name).write_text(LOCK + f"# {name}\n")
    tree = read(project, locks)
    assert tree.lock_name == chosen
    # The release has the chosen one alone, under the plain name.
    assert lock_text(tree) == LOCK + f"# {chosen}\n"
    assert [path for path in tree.files if is_rival(path)] == [PROJECT_FILE, LOCK_FILE]


def test_the_same_lock_under_another_name_is_the_same_release(tmp_path: Path) -> None:
    one, other = write_project(tmp_path / "a"), write_project(tmp_path / "b")
    (other / "Manifest.toml").rename(other / "Manifest-v1.11.toml")
    (other / "Manifest-v1.10.toml").write_text("another Julia's")
    assert read(one).digest() == read(other, VERSIONED).digest()


def test_a_julia_project_file_comes_first(tmp_path: Path) -> None:
    project = write_project(tmp_path / "p")
    (project / "Project.toml").rename(project / "JuliaProject.toml")
    (project / "Project.toml").write_text("not even [TOML")
    tree = read(project)
    assert tree.project.dependencies == {"App": APP}
    source = tree.files[PROJECT_FILE]
    assert isinstance(source, Copied)
    assert source.origin == str(project / "JuliaProject.toml")
    assert "JuliaProject.toml" not in tree.files


def test_only_a_project_at_the_top_is_a_rival(tmp_path: Path) -> None:
    project = write_project(tmp_path / "p")
    write_tree(project, {"packages/Leaf/JuliaProject.toml": FILES["packages/Leaf/Project.toml"]})
    write_tree(project, {"packages/Leaf/Project.toml": "broken ["})
    assert "packages/Leaf/JuliaProject.toml" in read(project).files


def test_no_lock_of_any_name(tmp_path: Path) -> None:
    project = write_project(tmp_path / "p")
    (project / "Manifest.toml").rename(project / "Manifest-v1.10.toml")
    with pytest.raises(
        ConfigurationError, match=r"p/Manifest\.toml is missing: a release is built from a lock"
    ):
        read(project, VERSIONED)


# --- the project's hash


def newer(project: Path, **named: str) -> Path:
    head = "".join(f'{name} = "{value}"\n' for name, value in named.items())
    (project / "Manifest.toml").write_text(f'manifest_format = "2.0"\n{head}' + LOCK.replace("[[", "[[deps."))
    return project


def test_a_lock_of_another_state_of_the_project_is_refused(tmp_path: Path) -> None:
    project = newer(write_project(tmp_path / "p"), julia_version="1.10.6", project_hash="0" * 40)
    with pytest.raises(ConfigurationError) as caught:
        read(project)
    assert "Manifest.toml was resolved for another state of the project" in caught.value.message
    assert "Pkg.resolve()" in caught.value.hint


@pytest.mark.parametrize("named", [{"julia_version": "1.10.6"}, {}])
def test_a_lock_that_does_not_say_is_taken(tmp_path: Path, named: dict[str, str]) -> None:
    assert read(newer(write_project(tmp_path / "p"), **named)).lock.packages


# --- workspaces

HEAD = f'''name = "Root"
uuid = "{ROOT}"
version = "0.1.0"

[workspace]
projects = ["jobs"]
'''


def workspace(root: Path, **more: str) -> Path:
    """A workspace with the project as its member ``jobs``; returns the member."""
    member = write_project(root / "jobs")
    lock = (member / "Manifest.toml").read_text()
    (member / "Manifest.toml").unlink()
    entry = f'\n[[Root]]\npath = "."\nuuid = "{ROOT}"\nversion = "0.1.0"\n'
    write_tree(
        root,
        {
            "Project.toml": HEAD,
            "src/Root.jl": "module Root end\n",
            "Manifest.toml": lock.replace('path = "packages', 'path = "jobs/packages') + entry,
            **more,
        },
    )
    return member


def test_a_member_has_the_lock_of_its_workspace(tmp_path: Path) -> None:
    tree = read(workspace(tmp_path / "w"), workspaces=True)
    assert tree.lock_name == os.path.join("..", "Manifest.toml")
    assert 'path = "packages/App"' in lock_text(tree)
    # What this project does not reach is no part of the release.
    assert set(tree.places) == {APP, LEAF}
    assert not any(path.startswith("dev/") for path in tree.files)


def test_a_member_that_depends_on_the_root_gets_a_copy_of_it(tmp_path: Path) -> None:
    member = workspace(tmp_path / "w")
    (member / "Project.toml").write_text(FILES["Project.toml"] + f'Root = "{ROOT}"\n')
    tree = read(member, workspaces=True)
    assert tree.places[ROOT] == "dev/Root"
    assert 'path = "dev/Root"' in lock_text(tree)
    assert "dev/Root/src/Root.jl" in tree.files


def test_the_root_of_a_workspace_is_a_project_of_its_own(tmp_path: Path) -> None:
    root = workspace(tmp_path / "w").parent
    write_tree(root, {"Headstart.toml": 'name = "root"\n'})
    tree = read(root, workspaces=True)
    assert (tree.lock_name, tree.places[ROOT]) == ("Manifest.toml", ".")
    assert 'path = "."' in lock_text(tree)
    assert 'path = "jobs/packages/App"' in lock_text(tree)


def test_a_julia_without_workspaces_wants_a_lock_beside_the_member(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"jobs/Manifest\.toml is missing"):
        read(workspace(tmp_path / "w"))


def test_a_directory_that_no_workspace_names_is_none_of_its(tmp_path: Path) -> None:
    member = workspace(tmp_path / "w")
    member.rename(member.parent / "other")
    with pytest.raises(ConfigurationError, match=r"other/Manifest\.toml is missing"):
        read(member.parent / "other", workspaces=True)


@pytest.mark.parametrize(
    "more",
    [
        {"LocalPreferences.toml": '[App]\nmode = "x"\n'},
        {"Project.toml": HEAD + '\n[preferences.App]\nmode = "x"\n'},
    ],
)
def test_preferences_of_the_workspace_are_refused(tmp_path: Path, more: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="sets preferences for the whole workspace"):
        read(workspace(tmp_path / "w", **more), workspaces=True)


# --- preferences


def test_preferences_are_part_of_the_release(tmp_path: Path) -> None:
    project = write_project(tmp_path / "p")
    before = read(project)
    write_tree(project, {"LocalPreferences.toml": '[App]\nmode = "fast"\n\n[Gone]\nx = 1\n'})
    tree = read(project)
    assert (tree.preferences.file, tree.preferences.packages) == ("LocalPreferences.toml", ("App",))
    # Julia looks a package up in the project first, and reads nothing for those that it does not find there.
    assert tree.preferences.unread == ("Gone",)
    assert tree.digest() != before.digest()
    write_tree(project, {"JuliaLocalPreferences.toml": "[App]\nother = true\n"})
    assert read(project).preferences.file == "JuliaLocalPreferences.toml"


def test_preferences_in_the_project_count_too(tmp_path: Path) -> None:
    project = write_project(tmp_path / "p")
    text = FILES["Project.toml"] + f'\n[extras]\nLeaf = "{LEAF}"\n\n[preferences.Leaf]\nsize = 3\n'
    (project / "Project.toml").write_text(text)
    tree = read(project)
    assert (tree.preferences.file, tree.preferences.packages, tree.preferences.unread) == ("", ("Leaf",), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [("App = 3\n", r"LocalPreferences\.toml: App is 3, which is not a table"), ("[App", "is not TOML")],
)
def test_preferences_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    project = write_tree(write_project(tmp_path / "p"), {"LocalPreferences.toml": text})
    with pytest.raises(ConfigurationError, match=said):
        read(project)


def test_the_first_name_that_is_there() -> None:
    assert first(("a", "b"), {"b", "c"}) == "b"
    assert first(("a",), set()) == ""
