"""Where names lead: projects, locks, extensions, directories of packages, shared environments, workspaces."""

import pytest

from cachemaker import APP, LEAF, MemoryFiles, rules_of
from headstart.cacheheader import PackageId
from headstart.environment import Environment
from headstart.errors import ConfigurationError
from headstart.julia import JuliaVersion
from headstart.juliahash import extension_uuid, version_slug
from headstart.projectfiles import NotKnownError, ProjectFiles

TREE = "0123456789abcdef0123456789abcdef01234567"
OTHER = PackageId("Leaf", 0x33333333_3333_4333_8333_333333333333)
DATES = PackageId("Dates", 0xADE2CA70_3891_5945_98FB_DC099432E06A)
A, L, X, D = (f"{package.uuid:032x}" for package in (APP, LEAF, OTHER, DATES))
STDLIB = "/julia/stdlib"
STANDARD = {
    f"{STDLIB}/Dates/Project.toml": f'name = "Dates"\nuuid = "{D}"\n[deps]\nPrintf = "{X}"\n',
    f"{STDLIB}/Dates/src/Dates.jl": "module Dates end",
}


def environment(
    files: dict[str, str],
    *,
    version: str = "1.10.6",
    depots: tuple[str, ...] = ("/one", "/two"),
    load_path: tuple[str, ...] = ("@", "@stdlib"),
    project: str = "/p",
) -> Environment:
    projects = ProjectFiles(
        rules=rules_of(version),
        version=JuliaVersion.parse(version),
        files=MemoryFiles({path: text.encode() for path, text in (STANDARD | files).items()}),
        depots=depots,
        project=project,
        stdlib=STDLIB,
    )
    return Environment(projects, load_path)


PLAIN = {
    "/p/Project.toml": f'[deps]\nApp = "{A}"\n',
    "/p/Manifest.toml": (
        f'[[App]]\ndeps = ["Leaf"]\nuuid = "{A}"\npath = "../app"\n'
        f'[[Leaf]]\nuuid = "{L}"\ngit-tree-sha1 = "{TREE}"\n'
        f'[[Dates]]\nuuid = "{D}"\n'
    ),
    "/app/src/App.jl": "module App end",
    "/app/Project.toml": f'name = "App"\nuuid = "{A}"\n',
}
SLUG = version_slug(LEAF.uuid, bytes.fromhex(TREE), 5)
PLACE = f"/two/packages/Leaf/{SLUG}/src/Leaf.jl"


@pytest.mark.parametrize("version", ["1.5.3", "1.8.5", "1.10.6", "1.13.0"])
def test_a_lock_says_what_names_mean_and_where_they_are(version: str) -> None:
    found = environment(PLAIN | {PLACE: "module Leaf end"}, version=version)
    assert found.identify(PackageId("Main", 0), "App") == APP
    assert found.identify(APP, "Leaf") == LEAF
    assert found.identify(APP, "App") == APP
    assert found.identify(APP, "Dates") is None
    assert found.locate(APP) == "/app/src/App.jl"
    assert found.locate(LEAF) == PLACE
    assert found.locate(DATES) == f"{STDLIB}/Dates/src/Dates.jl"
    assert found.locate(OTHER) is None
    assert found.locked() == tuple(sorted((APP, LEAF, DATES)))


def test_the_newer_lock_format_is_read() -> None:
    lock = PLAIN["/p/Manifest.toml"].replace("[[", "[[deps.")
    found = environment(PLAIN | {"/p/Manifest.toml": f'manifest_format = "2.0"\n{lock}', PLACE: ""})
    assert found.locate(LEAF) == PLACE


def test_the_first_depot_that_has_a_version_counts() -> None:
    found = environment(PLAIN | {PLACE: "", PLACE.replace("/two", "/one"): ""})
    assert found.locate(LEAF) == PLACE.replace("/two", "/one")


def test_a_package_that_is_in_no_depot_ends_the_search_since_1_9() -> None:
    """Another environment further on has it; Julia no longer looks there."""
    more = {
        "/q/Project.toml": f'[deps]\nLeaf = "{L}"\n',
        "/q/Manifest.toml": f'[[Leaf]]\nuuid = "{L}"\npath = "leaf"\n',
        "/q/leaf/src/Leaf.jl": "",
    }
    for version, where in (("1.8.5", "/q/leaf/src/Leaf.jl"), ("1.9.4", None)):
        assert environment(PLAIN | more, version=version, load_path=("@", "/q")).locate(LEAF) == where


def test_versioned_locks_come_first_since_1_11() -> None:
    versioned = PLAIN | {
        "/p/Manifest-v1.11.toml": f'[[Leaf]]\nuuid = "{X}"\npath = "x"\n',
        "/p/x/src/Leaf.jl": "",
    }
    assert environment(versioned, version="1.10.6").locate(OTHER) is None
    assert environment(versioned, version="1.11.1").locate(OTHER) == "/p/x/src/Leaf.jl"
    assert environment(versioned, version="1.12.2").locate(OTHER) is None


def test_two_of_one_name_need_a_table_of_uuids() -> None:
    lock = (
        f'[[App]]\nuuid = "{A}"\npath = "../app"\n    [App.deps]\n    Leaf = "{X}"\n'
        f'[[Leaf]]\nuuid = "{L}"\n[[Leaf]]\nuuid = "{X}"\n'
    )
    assert environment(PLAIN | {"/p/Manifest.toml": lock}).identify(APP, "Leaf") == OTHER
    unclear = lock.replace(f'    [App.deps]\n    Leaf = "{X}"\n', 'deps = ["Leaf"]\n')
    with pytest.raises(NotKnownError, match="2 packages called Leaf"):
        environment(PLAIN | {"/p/Manifest.toml": unclear}).identify(APP, "Leaf")


def test_extensions() -> None:
    name = PackageId("AppLeafExt", extension_uuid(APP.uuid, "AppLeafExt"))
    lock = (
        f'manifest_format = "2.0"\n[[deps.App]]\nuuid = "{A}"\npath = "../app"\nweakdeps = ["Leaf"]\n'
        f'    [deps.App.extensions]\n    AppLeafExt = "Leaf"\n[[deps.Leaf]]\nuuid = "{L}"\npath = "../leaf"\n'
    )
    files = PLAIN | {"/p/Manifest.toml": lock, "/app/ext/AppLeafExt.jl": "", "/leaf/src/Leaf.jl": ""}
    found = environment(files)
    assert found.locate(name) == "/app/ext/AppLeafExt.jl"
    assert found.identify(name, "App") == APP
    assert found.identify(name, "Leaf") == LEAF
    assert name in found.locked()
    folder = environment(files | {"/app/ext/AppLeafExt/AppLeafExt.jl": ""})
    assert folder.locate(name) == "/app/ext/AppLeafExt/AppLeafExt.jl"
    assert environment(files, version="1.8.5").locate(name) is None
    with pytest.raises(NotKnownError, match=r"1\.13\.0 numbers extensions"):
        environment(files, version="1.13.0").locate(name)


def test_the_active_project_may_be_a_package_itself() -> None:
    files = {"/p/Project.toml": f'name = "App"\nuuid = "{A}"\n[deps]\nLeaf = "{L}"\n', "/p/src/App.jl": ""}
    found = environment(files)
    assert found.locate(APP) == "/p/src/App.jl"
    assert found.identify(APP, "Leaf") == LEAF
    assert found.identify(APP, "Dates") is None


def test_shared_environments_are_found_in_depots() -> None:
    files = {
        "/two/environments/v1.10/Project.toml": f'[deps]\nLeaf = "{L}"\n',
        "/two/environments/v1.10/Manifest.toml": f'[[Leaf]]\nuuid = "{L}"\npath = "/leaf"\n',
        "/leaf/src/Leaf.jl": "",
    }
    assert environment(files, load_path=("@", "@v#.#"), project="").locate(LEAF) == "/leaf/src/Leaf.jl"
    assert environment(files, load_path=("@stdlib",), project="").locate(LEAF) is None


def test_the_standard_library_knows_its_own_dependencies_since_1_12() -> None:
    """Where neither a lock nor the load path does."""
    wanted = PackageId("Printf", OTHER.uuid)
    assert environment({}, version="1.12.2", load_path=("@",)).identify(DATES, "Printf") == wanted
    assert environment({}, version="1.11.1", load_path=("@",)).identify(DATES, "Printf") is None


def test_workspaces_share_a_lock_since_1_12() -> None:
    files = {
        "/w/Project.toml": '[workspace]\nprojects = ["part"]\n',
        "/w/Manifest.toml": f'[[Leaf]]\nuuid = "{L}"\npath = "leaf"\n',
        "/w/leaf/src/Leaf.jl": "",
        "/w/part/Project.toml": f'[deps]\nLeaf = "{L}"\n',
        "/w/LocalPreferences.toml": "[Leaf]\na = 1\nb = 1\n",
        "/w/part/LocalPreferences.toml": "[Leaf]\nb = 2\n",
    }
    files["/w/Project.toml"] += f'[extras]\nLeaf = "{L}"\n'
    found = environment(files, version="1.12.2", project="/w/part")
    assert found.locate(LEAF) == "/w/leaf/src/Leaf.jl"
    assert found.preferences(LEAF) == {"a": 1, "b": 2}
    assert environment(files, version="1.11.1", project="/w/part").locate(LEAF) is None


def test_preferences_of_all_environments_merge_and_the_first_wins() -> None:
    files = {
        "/p/Project.toml": f'[deps]\nLeaf = "{L}"\n[preferences.Leaf]\na = 1\nt = {{x = 1, y = 1}}\n',
        "/p/LocalPreferences.toml": "[Leaf]\nb = 2\nt = {y = 2}\n",
        "/q/Project.toml": f'[extras]\nLeaf = "{L}"\n',
        "/q/LocalPreferences.toml": "[Leaf]\na = 9\nc = 3\n",
        "/r/Project.toml": f'[weakdeps]\nLeaf = "{L}"\n',
        "/r/JuliaLocalPreferences.toml": "[Leaf]\nd = 4\n",
        "/r/LocalPreferences.toml": "[Leaf]\nd = 5\n",
        "/s/Project.toml": "",
        "/s/LocalPreferences.toml": "[Leaf]\nhidden = 1\n",
    }
    path = ("@", "/q", "/r", "/s")
    merged = {"a": 1, "b": 2, "c": 3, "t": {"x": 1, "y": 2}}
    assert environment(files, load_path=path).preferences(LEAF) == merged | {"d": 4}
    assert environment(files, load_path=path, version="1.8.5").preferences(LEAF) == merged
    files["/p/LocalPreferences.toml"] = '[Leaf]\n__clear__ = ["a", "c"]\n'
    cleared = environment(files, load_path=path).preferences(LEAF)
    assert "a" not in cleared
    assert "c" not in cleared


def test_a_project_that_is_no_toml_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"/p/Manifest\.toml is not TOML"):
        environment(PLAIN | {"/p/Manifest.toml": "[[["}).locate(LEAF)


ODD = (
    "a = 1\n",
    "[[Leaf]]\n",
    "[[Leaf]]\nuuid = 3\n",
    f'[[Leaf]]\nuuid = "{L}"\n',
    '[deps]\nLeaf = "x"\n',
    f'[[Leaf]]\nuuid = "{L}"\ngit-tree-sha1 = "short"\n',
    f'[[Leaf]]\nuuid = "{L}"\ngit-tree-sha1 = "{"z" * 40}"\n',
)


@pytest.mark.parametrize("lock", ODD)
def test_odd_locks_lead_nowhere(lock: str) -> None:
    found = environment(PLAIN | {"/p/Manifest.toml": lock})
    assert found.locate(LEAF) is None
    assert found.identify(APP, "Leaf") is None
