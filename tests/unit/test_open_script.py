"""``open/julia`` of a release: the release comes behind what is the user's, and nothing else is touched."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import releases
from headstart.datafiles import data_text
from headstart.julia import JuliaVersion, UserDepot, capabilities
from headstart.microarchitecture import LEVELS
from headstart.openscript import open_launcher
from headstart.release import Release

SHELLS = {
    "dash": ("dash",),
    "bash": ("bash",),
    "busybox": ("busybox", "sh"),
    "nounset": ("sh", "-eu"),
}
BUNDLED = "<bundled>"
USER = "~/.julia"


def julias_rule(value: str | None, rule: UserDepot) -> list[str]:
    """``init_depot_path`` of ``base/initdefs.jl``, as it stands in 1.10:107, 1.11.1:105 and 1.12:105."""
    if value is None:
        return [USER, BUNDLED]
    if value == "":
        return []
    found: list[str] = []
    parts = value.split(":")
    for part in parts:
        found += [part] if part else [USER, BUNDLED] if rule is UserDepot.EVERY else [BUNDLED]
    if rule is UserDepot.ALONE and not any(parts):
        found.insert(0, USER)
    if rule is UserDepot.FIRST and not parts[0]:
        found.insert(0, USER)
    return list(dict.fromkeys(found))


class Node:
    """A release on disk, and a CPU of level x86-64-v3."""

    def __init__(self, root: Path, base: Release | None = None, rule: UserDepot = UserDepot.EVERY) -> None:
        self.release = releases.write_stage(root / "tree", base, user_depot=rule)
        self.home = root / "tree" / "stacks" / "jets" / str(self.release.id)
        self.julia = root / "tree" / "julia" / str(self.release.julia)
        self.script = self.home / "open" / "julia"
        self.cpuinfo = root / "cpuinfo"
        self.cpuinfo.write_text(f"flags\t\t: {' '.join(LEVELS['x86-64-v3'])}\n")

    def run(self, *words: str | Path, env: dict[str, str]) -> tuple[list[str], dict[str, str]]:
        environment = {"PATH": os.environ["PATH"], "HEADSTART_CPUINFO": str(self.cpuinfo), **env}
        done = subprocess.run(words, env=environment, capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        arguments, found, _ = releases.parse_fake_output(done.stdout)
        return arguments, found

    def depots(self, env: dict[str, str], shell: tuple[str, ...] = ("sh",)) -> list[str]:
        """The user's part of the list; what is behind it is the same each time."""
        _, found = self.run(*shell, self.script, env=env)
        depots = found["JULIA_DEPOT_PATH"].split(":")
        behind = [f"{self.home}/depot", f"{self.julia}/share/julia"]
        assert depots[-2:] == behind
        return depots[:-2]


@pytest.mark.parametrize("words", SHELLS.values(), ids=SHELLS)
def test_what_is_the_users_stays(tmp_path: Path, words: tuple[str, ...]) -> None:
    if shutil.which(words[0]) is None:
        pytest.skip(f"there is no {words[0]} here")
    node = Node(tmp_path)
    mine = {
        "JULIA_LOAD_PATH": "@:/mine:", "JULIA_PROJECT": "@.", "JULIA_PKG_SERVER": "x",
        "JULIA_CPU_TARGET": "native", "JULIA_DEPOT_PATH": "/my depot:~/other", "hs_x": "kept", "HOME": "/h",
    }  # fmt: skip
    arguments = ["--project=/mine", "-e", "a  b", "", "*", "--startup-file=yes"]
    env = {**mine, "LD_LIBRARY_PATH": "/mine", "JULIA_BINDIR": "/bad"}
    found_arguments, found = node.run(*words, node.script, *arguments, env=env)
    assert found_arguments == ["-J", f"{node.home}/images/x86-64-v3/sys.so", *arguments]
    libraries = f"{node.julia}/lib:{node.julia}/lib/julia"
    behind = f"{node.home}/depot:{node.julia}/share/julia"
    ours = {"LD_LIBRARY_PATH": f"{libraries}:/mine", "JULIA_DEPOT_PATH": f"/my depot:~/other:{behind}"}
    shells = ("PATH", "PWD", "OLDPWD", "SHLVL", "_", "HEADSTART_CPUINFO")
    seen = {name: value for name, value in found.items() if name not in shells}
    assert seen == {**mine, **ours}
    # A Julia that is started by that one gets the same.
    again = node.run(*words, node.script, *arguments, env=found)[1]
    assert {name: value for name, value in again.items() if name not in shells} == seen


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(UserDepot),
    value=st.none() | st.lists(st.sampled_from(["", "/a", "/b c", "~/x"]), max_size=4).map(":".join),
)
def test_the_users_depots_are_those_that_julia_would_take(
    nodes: dict[UserDepot, Node], rule: UserDepot, value: str | None
) -> None:
    expected = [one for one in julias_rule(value, rule) if one != BUNDLED]
    found = nodes[rule].depots({} if value is None else {"JULIA_DEPOT_PATH": value})
    assert list(dict.fromkeys(found)) == (expected or ["/dev/null"])


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[UserDepot, Node]:
    return {rule: Node(tmp_path_factory.mktemp(rule), rule=rule) for rule in UserDepot}


def test_every_shell_splits_the_list_the_same(nodes: dict[UserDepot, Node]) -> None:
    for rule, node in nodes.items():
        for value in (None, "", ":", "::", "/a", "/a:", ":/a", "/a::/b", "*:/a", "~/.julia:/a"):
            env: dict[str, str] = {} if value is None else {"JULIA_DEPOT_PATH": value}
            found = {tuple(node.depots(env, words)) for words in SHELLS.values() if shutil.which(words[0])}
            assert len(found) == 1, (rule, value)


@pytest.mark.parametrize(
    ("version", "rule"),
    [("1.5.3", "every"), ("1.10.6", "every"), ("1.11.1", "alone"), ("1.11.2", "first"), ("1.12.0", "first")],
)
def test_the_rule_goes_with_the_version(version: str, rule: str) -> None:
    assert capabilities(data_text("julia.toml"), JuliaVersion.parse(version)).user_depot == rule


def test_package_images_come_behind_the_users_depots(tmp_path: Path) -> None:
    base = releases.release()
    for kind in (releases.packaged, releases.layered):
        made = replace(
            base, images=tuple(map(kind, base.images)), startup="startup/x.jl", load_path=("startup",)
        )
        node = Node(tmp_path / kind.__name__, made)
        arguments, found = node.run(node.script, "x", env={"JULIA_DEPOT_PATH": "/mine"})
        image = ["-J", f"{node.home}/images/x86-64-v3/sys.so"] if kind is releases.layered else []
        assert arguments == [*image, "x"]
        assert found["JULIA_DEPOT_PATH"].split(":") == [
            "/mine",
            f"{node.home}/images/x86-64-v3",
            f"{node.home}/depot",
            str(node.home),
            f"{node.julia}/share/julia",
        ]
        assert "JULIA_LOAD_PATH" not in found


def test_it_is_found_through_path(tmp_path: Path) -> None:
    node = Node(tmp_path / "a b")
    path = f"{node.script.parent}:{os.environ['PATH']}"
    arguments, _ = node.run("sh", "-c", 'julia "a b"', env={"PATH": path})
    assert arguments == ["-J", f"{node.home}/images/x86-64-v3/sys.so", "a b"]


def test_a_release_that_cannot_move_says_where_it_belongs(tmp_path: Path) -> None:
    node = Node(tmp_path, replace(releases.release(), relocatable=False))
    done = subprocess.run([node.script], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (14, b"")
    assert b"can only run as /cvmfs/julia.example.org/stacks/jets/0123456789abcdef" in done.stderr


def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("there is no shellcheck here")
    base = releases.release()
    kinds = (base, replace(base, relocatable=False, images=tuple(map(releases.packaged, base.images))))
    for made in kinds:
        for rule in UserDepot:
            script = tmp_path / "julia"
            script.write_text(open_launcher(made, rule))
            done = subprocess.run(
                ["shellcheck", "-s", "sh", script], capture_output=True, check=False, timeout=60
            )
            assert done.returncode == 0, done.stdout.decode()
