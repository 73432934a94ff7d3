import pytest

from headstart.errors import ConfigurationError
from headstart.lockcheck import check_fit
from headstart.project import (
    ImageKind,
    Local,
    Lock,
    Project,
    Settings,
    Standard,
    Tracked,
    with_paths,
)
from projects import APP, FILES, LEAF, LOCK, PRINTF

TREE = "0fa3b52a04a4e210aeb1626def9c90df3ae65268"


def test_settings_have_defaults_for_all_but_the_name() -> None:
    settings = Settings.parse('name = "jets"\n', "Headstart.toml")
    assert str(settings.name) == "jets"
    assert settings.targets == ("x86-64", "x86-64-v3")
    assert settings.image is ImageKind.SYSTEM
    assert (settings.julia, settings.workload, settings.smoke) == ("", "", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "name is missing"),
        ("name = 3", "name is 3"),
        ('name = "Jets!"', "name: 'Jets!' is no name of a stack"),
        ('name = "jets"\ntarget = ["x86-64"]', "there is no key target"),
        ('name = "jets"\ntargets = []', "targets is []"),
        ('name = "jets"\ntargets = ["x86-64", "x86-64"]', "targets is"),
        ('name = "jets"\ntargets = "x86-64"', "targets is 'x86-64'"),
        ('name = "jets"\nimage = "docker"', "image is 'docker'"),
        ('name = "jets"\nworkload = "../w.jl"', "workload is"),
        ('name = "jets"\nsmoke = "/w.jl"', "smoke is"),
        ('name = "jets"\nsmoke = "smoke.py"', "smoke is"),
        ("name =", "Headstart.toml is not TOML"),
    ],
)
def test_settings_errors_name_the_file_and_the_key(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.parse(text, "Headstart.toml")
    assert "Headstart.toml" in str(caught.value)
    assert said in str(caught.value)


def test_lock_of_the_first_format() -> None:
    lock = Lock.parse(LOCK, "Manifest.toml")
    by_name = {package.name: package for package in lock.packages}
    assert by_name["App"].source == Local("packages/App")
    assert isinstance(by_name["Printf"].source, Standard)
    assert [package.name for package in lock.needs(by_name["App"])] == ["Leaf", "Printf"]
    assert lock.julia == ""


def test_lock_of_the_second_format_with_dependencies_by_uuid() -> None:
    text = f"""
julia_version = "1.10.6"
manifest_format = "2.0"
project_hash = "{TREE}"

[[deps.App]]
git-tree-sha1 = "{TREE}"
uuid = "{APP}"

    [deps.App.deps]
    Leaf = "{LEAF}"

[[deps.Leaf]]
uuid = "{LEAF}"

[[deps.Leaf]]
uuid = "{PRINTF}"
"""
    lock = Lock.parse(text, "Manifest.toml")
    assert lock.julia == "1.10.6"
    assert lock.packages[0].source == Tracked(TREE)
    assert [package.uuid for package in lock.needs(lock.packages[0])] == [LEAF]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('manifest_format = "3.0"', "manifest_format"),
        (f'[[A]]\nuuid = "{APP}"\ngit-tree-sha1 = "zz"', "A[0].git-tree-sha1"),
        ('[[A]]\nuuid = "x"', "A[0].uuid"),
        ("[[A]]", "A[0].uuid is missing"),
        (f'[[A]]\nuuid = "{APP}"\ndeps = [3]', "A[0].deps"),
    ],
)
def test_lock_errors_name_the_key(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Lock.parse(text, "Manifest.toml")
    assert said in str(caught.value)


def test_leaves_come_first_and_what_nobody_reaches_is_not_compiled() -> None:
    extra = f'\n[[Alone]]\npath = "alone"\nuuid = "{PRINTF[:-1]}0"\n'
    lock = Lock.parse(LOCK + extra, "Manifest.toml")
    names = [package.name for package in lock.leaf_first()]
    assert names.index("Leaf") < names.index("App")
    assert names.index("Unicode") < names.index("Printf") < names.index("App")
    project = Project.parse(FILES["Project.toml"], "Project.toml")
    assert [package.name for package in lock.compiled(project)] == ["Leaf", "App"]


def test_two_packages_of_one_uuid_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=f"Leaf and Twin have one UUID, {LEAF}"):
        Lock.parse(LOCK + f'\n[[Twin]]\nuuid = "{LEAF}"\n', "Manifest.toml")


def test_a_circle_is_refused() -> None:
    text = LOCK.replace("[[Leaf]]", '[[Leaf]]\ndeps = ["App"]')
    with pytest.raises(ConfigurationError, match="circle"):
        Lock.parse(text, "Manifest.toml").leaf_first()


def test_a_dependency_that_the_lock_lacks_is_refused() -> None:
    text = LOCK.replace('deps = ["Leaf", "Printf"]', 'deps = ["Leaf", "Gone"]')
    with pytest.raises(ConfigurationError, match="App depends on Gone"):
        Lock.parse(text, "Manifest.toml").leaf_first()


def _local() -> dict[str, Project]:
    return {
        LEAF: Project.parse(FILES["packages/Leaf/Project.toml"], "Leaf"),
        APP: Project.parse(FILES["packages/App/Project.toml"], "App"),
    }


def test_a_lock_that_fits() -> None:
    check_fit(Project.parse(FILES["Project.toml"], "p"), Lock.parse(LOCK, "m"), _local())


@pytest.mark.parametrize(
    ("project", "local", "said"),
    [
        (f'[deps]\nOther = "{PRINTF[:-1]}0"', {}, "Other is not in it"),
        (f'[deps]\nMain = "{APP}"', {}, "it calls Main App"),
        (
            FILES["Project.toml"],
            {LEAF: f'name = "Leave"\nuuid = "{LEAF}"'},
            "at the path of Leaf there is Leave",
        ),
        (FILES["Project.toml"], {LEAF: f'name = "Leaf"\nuuid = "{APP}"'}, "at the path of Leaf"),
        (
            FILES["Project.toml"],
            {LEAF: FILES["packages/Leaf/Project.toml"] + f'[deps]\nPrintf = "{PRINTF}"'},
            "Leaf now depends on Printf",
        ),
        (
            FILES["Project.toml"],
            {APP: f'name = "App"\nuuid = "{APP}"\n[deps]\nLeaf = "{LEAF}"'},
            "App no longer depends on Printf",
        ),
    ],
)
def test_a_lock_that_does_not_fit(project: str, local: dict[str, str], said: str) -> None:
    found = _local() | {uuid: Project.parse(text, "p") for uuid, text in local.items()}
    with pytest.raises(ConfigurationError) as caught:
        check_fit(Project.parse(project, "p"), Lock.parse(LOCK, "m"), found)
    assert said in caught.value.message
    assert "Pkg.resolve" in caught.value.hint


def test_paths_are_rewritten_and_nothing_else() -> None:
    text = 'path = "a"\n  path = \'../b\'  # kept\npathology = "a"\nx = "path = \\"a\\""\n'
    assert with_paths(text, {"../b": "dev/B"}) == text.replace("'../b'", '"dev/B"')
    assert with_paths(LOCK, {}) == LOCK


def test_a_path_with_odd_characters_stays_what_it_is() -> None:
    odd = 'pack "ages"\\µ'
    written = with_paths(LOCK, {"packages/App": odd})
    package = next(one for one in Lock.parse(written, "m").packages if one.name == "App")
    assert package.source == Local(odd)


def test_a_project_that_names_another_lock_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"x/Project\.toml: manifest names another lock"):
        Project.parse('manifest = "other/Manifest.toml"\n', "x/Project.toml")


def test_heavy_goes_with_both_kinds_of_image() -> None:
    both = Settings.parse('name = "a"\nimage = "both"\nheavy = ["A", "B"]\n', "Headstart.toml")
    assert (both.image, both.heavy) == (ImageKind.BOTH, ("A", "B"))
    with pytest.raises(ConfigurationError, match='heavy goes with image = "both", and image is "sysimage"'):
        Settings.parse('name = "a"\nheavy = ["A"]\n', "Headstart.toml")
