"""``bin/julia`` of a release, under every shell that is here, from everywhere it may be called from."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import releases
from headstart.cli.run import Request, start
from headstart.errors import ConfigurationError
from headstart.launch import where_it_is
from headstart.microarchitecture import LEVELS
from headstart.release import ImageRecord, Release
from headstart.script import DROPPED, launcher, other_project, settings

SHELLS = {
    "dash": ("dash",),
    "bash": ("bash",),
    "bash-posix": ("bash", "--posix"),
    "busybox": ("busybox", "sh"),
    "nounset": ("sh", "-eu"),
}
V3_FLAGS = " ".join(sorted(LEVELS["x86-64-v3"]))
V4_FLAGS = " ".join(sorted(LEVELS["x86-64-v4"]))
V2_FLAGS = " ".join(sorted(LEVELS["x86-64-v2"]))


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> tuple[str, ...]:
    words = SHELLS[request.param]
    if shutil.which(words[0]) is None:
        pytest.skip(f"there is no {words[0]} here")
    return words


class Node:
    """A release laid out on disk, and a cpuinfo file to choose by."""

    def __init__(self, root: Path, base: Release | None = None) -> None:
        self.root = root
        self.release = releases.write_stage(root / "tree", base)
        self.home = root / "tree" / "stacks" / "jets" / str(self.release.id)
        self.script = self.home / "bin" / "julia"
        self.cpuinfo = root / "cpuinfo"
        self.flags(V3_FLAGS)

    def flags(self, flags: str) -> None:
        self.cpuinfo.write_text(f"processor\t: 0\nmodel name\t: flags of a CPU\nflags\t\t: {flags}\n\n")

    def run(
        self, *words: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {"PATH": os.environ["PATH"], "HEADSTART_CPUINFO": str(self.cpuinfo), **(env or {})}
        return subprocess.run(words, env=environment, cwd=cwd, capture_output=True, check=False, timeout=60)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_every_shell_starts_julia_with_the_same_words_and_environment(
    node: Node, shell: tuple[str, ...]
) -> None:
    hostile = dict.fromkeys(DROPPED, "bad")
    hostile |= {"JULIA_DEPOT_PATH": "/bad:", "JULIA_LOAD_PATH": "/bad", "LD_LIBRARY_PATH": "/bad", "IFS": "/"}
    hostile |= {"JULIA_NUM_THREADS": "3", "hs_x": "kept", "HOME": "/home/someone"}
    arguments = ["-e", "a  b", "", "*", "--", "$HOME", "it's", '"', "two\tthree", "\\n"]
    done = node.run(*shell, node.script, *arguments, env=hostile)
    assert done.returncode == 0, done.stderr
    words, environment, rest = releases.parse_fake_output(done.stdout)
    assert words == [
        "-J", f"{node.home}/images/x86-64-v3/sys.so", "--startup-file=no", "--history-file=no", *arguments,
    ]  # fmt: skip
    assert rest["file"] == "image x86-64-v3"
    wanted = dict(
        settings(node.release, str(node.home), str(node.root / "tree" / "julia" / str(node.release.julia)))
    )
    wanted |= {"JULIA_NUM_THREADS": "3", "hs_x": "kept", "HOME": "/home/someone"}
    ours = ("PATH", "PWD", "OLDPWD", "SHLVL", "_", "IFS", "HEADSTART_CPUINFO")
    assert {name: value for name, value in environment.items() if name not in ours} == wanted
    assert done.stderr == b"headstart: jets 0123456789abcdef: image x86-64-v3\n"


def test_it_is_found_from_any_directory(node: Node, shell: tuple[str, ...], tmp_path: Path) -> None:
    away = tmp_path / "a way"
    away.mkdir()
    relative = os.path.relpath(node.script, away)
    (away / "to-absolute").symlink_to(node.script)
    (away / "to-relative").symlink_to(relative)
    (away / "twice").symlink_to("to-relative")
    (away / "dir").symlink_to(node.script.parent)
    for name in (relative, "to-absolute", "./to-relative", "twice", "dir/julia", str(away / "twice")):
        done = node.run(*shell, name, "x", cwd=away)
        words, environment, rest = releases.parse_fake_output(done.stdout)
        assert words[1] == f"{node.home}/images/x86-64-v3/sys.so", (name, done.stderr)
        assert environment["JULIA_PROJECT"] == f"{node.home}/project"
        assert rest["cwd"] == str(away), name
    done = node.run(*shell, "julia", cwd=node.script.parent)
    assert done.returncode == 0, done.stderr


def test_it_is_found_through_path(node: Node, tmp_path: Path) -> None:
    away = tmp_path / "bin dir"
    away.mkdir()
    (away / "jets").symlink_to(node.script)
    path = f"{away}:{os.environ['PATH']}"
    for words in (("env", "jets", "a b"), ("sh", "-c", 'jets "a b"'), ("bash", "jets", "a b")):
        done = node.run(*words, env={"PATH": path}, cwd=tmp_path)
        arguments, _, _ = releases.parse_fake_output(done.stdout)
        assert arguments[-1] == "a b", done.stderr
        assert arguments[1] == f"{node.home}/images/x86-64-v3/sys.so"


def test_a_release_that_cannot_move_says_where_it_belongs(tmp_path: Path, shell: tuple[str, ...]) -> None:
    node = Node(tmp_path, replace(releases.release(), relocatable=False))
    done = node.run(*shell, node.script)
    assert done.returncode == 14
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert b"/cvmfs/julia.example.org/stacks/jets/0123456789abcdef" in done.stderr


def test_it_says_what_was_chosen_and_why_nothing_better(node: Node) -> None:
    head = "headstart: jets 0123456789abcdef: "
    said = {
        V4_FLAGS: f"{head}image x86-64-v3; x86-64-v4 not built\n",
        V3_FLAGS: f"{head}image x86-64-v3\n",
        V2_FLAGS: f"{head}image x86-64; x86-64-v3 needs abm avx avx2 bmi1 bmi2 f16c fma movbe xsave\n",
    }
    for flags, sentence in said.items():
        node.flags(flags)
        assert node.run(node.script).stderr.decode() == sentence
    assert node.run(node.script, env={"HEADSTART_QUIET": "1"}).stderr == b""


def test_an_override_is_checked(node: Node, shell: tuple[str, ...]) -> None:
    done = node.run(*shell, node.script, env={"HEADSTART_TARGET": "x86-64"})
    assert done.stderr == b"headstart: jets 0123456789abcdef: image x86-64; as HEADSTART_TARGET asks\n"
    assert b"image x86-64\n" in done.stdout
    done = node.run(*shell, node.script, env={"HEADSTART_TARGET": "zen*"})
    assert (done.returncode, done.stdout) == (10, b"")
    assert b"'zen*'" in done.stderr
    assert b"it has x86-64 x86-64-v3" in done.stderr
    node.flags(V2_FLAGS)
    done = node.run(*shell, node.script, env={"HEADSTART_TARGET": "x86-64-v3"})
    assert (done.returncode, done.stdout) == (13, b"")
    assert b"x86-64-v3 needs abm avx avx2 bmi1 bmi2 f16c fma movbe xsave" in done.stderr


def test_a_cpu_below_every_image_is_refused(node: Node, shell: tuple[str, ...]) -> None:
    node.flags("fpu cmov")
    done = node.run(*shell, node.script)
    assert (done.returncode, done.stdout) == (13, b"")
    assert b"x86-64 needs cx8 fxsr lm mmx sse sse2 syscall, which it does not offer" in done.stderr
    node.cpuinfo.write_text("processor: 0\n")
    done = node.run(*shell, node.script)
    assert done.returncode == 13
    assert b"names no CPU features" in done.stderr
    node.cpuinfo.unlink()
    assert node.run(*shell, node.script).returncode == 13


@pytest.mark.parametrize("gone", ["image", "julia"])
def test_a_part_that_is_not_there_is_named(node: Node, gone: str) -> None:
    part = {
        "image": node.home / "images" / "x86-64-v3" / "sys.so",
        "julia": node.root / "tree" / "julia" / str(node.release.julia) / "bin" / "julia",
    }[gone]
    part.unlink()
    done = node.run(node.script)
    assert (done.returncode, done.stdout) == (19, b"")
    assert str(part).encode() in done.stderr


def test_a_strict_release_has_a_scratch_depot_of_the_users_own(tmp_path: Path, shell: tuple[str, ...]) -> None:
    node = Node(tmp_path, replace(releases.release(), julia_options=("--compiled-modules=strict",)))
    release_id = str(node.release.id)
    cases = {
        (("HOME", "/home/x"),): f"/home/x/.cache/headstart/scratch/{release_id}:",
        (("HOME", "/home/x"), ("XDG_CACHE_HOME", "/c")): f"/c/headstart/scratch/{release_id}:",
        (("HOME", "/home:x"),): "",
        (("XDG_CACHE_HOME", "relative"),): "",
        (): "",
    }
    for variables, depot in cases.items():
        done = node.run(*shell, node.script, env=dict(variables))
        _, environment, _ = releases.parse_fake_output(done.stdout)
        assert environment["JULIA_DEPOT_PATH"].startswith(f"{depot}{node.home}/depot:"), done.stderr


def with_package_images(kind: Callable[[ImageRecord], ImageRecord]) -> Release:
    base = releases.release()
    return replace(
        base,
        images=tuple(kind(image) for image in base.images),
        startup="startup/with $HOME and 'quotes'.jl",
        load_path=("startup",),
    )


def test_package_images_are_a_depot_in_front_of_the_release(tmp_path: Path, shell: tuple[str, ...]) -> None:
    for kind in (releases.packaged, releases.layered):
        node = Node(tmp_path / kind.__name__, with_package_images(kind))
        done = node.run(*shell, node.script, "-e", "1")
        assert done.returncode == 0, done.stderr
        words, environment, _ = releases.parse_fake_output(done.stdout)
        system = ["-J", f"{node.home}/images/x86-64-v3/sys.so"] if kind is releases.layered else []
        startup = ["-L", f"{node.home}/{node.release.startup}"]
        assert words == [*system, "--startup-file=no", "--history-file=no", *startup, "-e", "1"]
        depots = environment["JULIA_DEPOT_PATH"].split(":")
        assert depots[:2] == [f"{node.home}/images/x86-64-v3", f"{node.home}/depot"]
        assert environment["JULIA_LOAD_PATH"] == f"@:@stdlib:{node.home}/startup"
        # The Python launcher starts the same, for either kind.
        chosen = node.release.images[1]
        start = where_it_is(node.release, chosen, root=str(tmp_path / kind.__name__ / "tree"), scratch="")
        assert list(start.argv[1:]) == words[:-2]
        assert {name: environment[name] for name in start.sets} == start.sets


def test_nothing_is_forked_where_the_release_belongs(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("there is no strace here")
    node = Node(tmp_path)
    # As if it stood where it was built for: the record's own path is this directory.
    here = launcher(node.release).replace(node.release.path, str(node.home))
    node.script.chmod(0o755)
    node.script.write_text(here)
    link = tmp_path / "jets"
    link.symlink_to(node.script)
    for name in (node.script, link):
        done = node.run(
            "strace",
            "-f",
            "-e",
            "trace=process",
            "-o",
            tmp_path / "trace",
            "dash",
            name,
            env={"HEADSTART_QUIET": "1"},
        )
        assert done.returncode == 0, done.stderr
        calls = (tmp_path / "trace").read_text().splitlines()
        started = [line for line in calls if "execve(" in line and line.endswith("= 0")]
        assert len(started) >= 2
        assert "/julia/" in started[1]
        before = calls[: calls.index(started[1])]
        assert [line for line in before if "fork(" in line or "clone" in line] == []


def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("there is no shellcheck here")
    strict = replace(releases.release(), julia_options=("--compiled-modules=strict",))
    packages = with_package_images(releases.packaged)
    moved = replace(strict, relocatable=False, julia_version="1.14.0")
    for made in (releases.release(), strict, moved, packages, with_package_images(releases.layered)):
        script = tmp_path / "julia"
        script.write_text(launcher(made))
        done = subprocess.run(["shellcheck", "-s", "sh", script], capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout.decode()


def test_what_julia_needs_is_set_per_version() -> None:
    needs = {"JULIA_OBJCACHE": "0"}
    newest = replace(
        releases.release(), julia_library_path=(), julia_version="1.14.0-DEV", julia_environment=needs
    )
    text = launcher(newest)
    assert 'export JULIA_OBJCACHE="0"' in text
    assert "JULIA_OBJCACHE=" not in launcher(releases.release())
    assert "export LD_LIBRARY_PATH" not in text
    assert " LD_LIBRARY_PATH" in text.split("unset ")[-1].split("\n")[0]


PROJECTS = [
    (("--project=/home/someone/jets", "job.jl"), "--project=/home/someone/jets"),
    (("-q", "--project", "job.jl"), "--project"),
    (("-e", "1", "--project=."), "--project=."),
    (("-L", "x.jl", "-t", "2", "--project=@."), "--project=@."),
    (("job.jl", "--project=other"), ""),
    (("-e", "--project=text"), ""),
    ((), ""),
]


@pytest.mark.parametrize(("words", "found"), PROJECTS)
def test_another_project_is_refused_before_julia_starts(
    node: Node, shell: tuple[str, ...], words: tuple[str, ...], found: str
) -> None:
    """Its preferences and its lock are not those that the image was compiled with."""
    assert other_project(words) == found
    done = node.run(*shell, node.script, *words)
    if found:
        assert (done.returncode, done.stdout) == (ConfigurationError.exit_code, b"")
        assert done.stderr.startswith(f"headstart: {found} puts another project, with its own lock".encode())
        assert done.stderr.count(b"\n") == 1
    else:
        assert done.returncode == 0, done.stderr


def test_headstart_run_refuses_another_project_alike(tmp_path: Path) -> None:
    request = Request()
    request.source, request.reference, request.args = str(tmp_path), "jets", ("--project=x", "job.jl")
    with pytest.raises(ConfigurationError, match="--project=x puts another project"):
        start(request)
