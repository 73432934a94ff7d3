"""``headstart shell``, ``env``, ``run --check``, ``run --scratch``: a published repository and a fake Julia."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import nodes
import publishing
import releases
from headstart.opensession import NOTE
from nodes import Node, Site, assert_refused, needs_namespace, without_namespaces

MOUNTPOINT = f"/cvmfs/{nodes.FQRN}"
HOME = f"{MOUNTPOINT}/stacks/jets/0123456789abcdef"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return nodes.make_site(tmp_path_factory.mktemp("site"), image_size=20_000)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "node").mkdir()
    return Node(root=tmp_path / "node", env={"SHELL": "/bin/sh"})


def fixed(root: Path) -> Site:
    """A repository whose release can only run at its path."""
    place = publishing.new_repository(root / "fixed", now=datetime.now(UTC))
    publishing.write_stage(root / "stage", lambda made: replace(made, relocatable=False))
    keys = publishing.copy_keys(root / "keys")
    key = keys / f"{nodes.FQRN}.pub"
    made = Site(storage=place.root, key=key, release=releases.release(), stage=root / "stage")
    made.publish(root / "stage")
    return made


def words(verb: str, site: Site, *more: str | Path) -> tuple[str | Path, ...]:
    return (verb, site.storage, "jets", "--key", site.key, *more)


@needs_namespace
def test_a_shell_finds_the_releases_julia_behind_what_is_its_users(site: Site, node: Node) -> None:
    script = 'command -v julia; julia -e "a  b"'
    done = node.headstart(*words("shell", site, "--", "sh", "-c", script), env={"JULIA_DEPOT_PATH": "/mine:"})
    assert done.returncode == 0, done.stderr
    found, _, rest = done.stdout.partition(b"\n")
    assert found.decode() == f"{HOME}/open/julia"
    arguments, environment, _ = releases.parse_fake_output(rest)
    assert arguments == ["-J", f"{HOME}/images/x86-64-v3/sys.so", "-e", "a  b"]
    julia = f"{MOUNTPOINT}/julia/{site.release.julia}"
    assert environment["JULIA_DEPOT_PATH"] == f"/mine:~/.julia:{HOME}/depot:{julia}/share/julia"
    assert "JULIA_LOAD_PATH" not in environment
    assert b"jets 0123456789abcdef (prod): image x86-64-v3" in done.stderr


@needs_namespace
def test_the_users_own_shell_is_started_and_told_how_to_leave(site: Site, node: Node, tmp_path: Path) -> None:
    shell = tmp_path / "my shell"
    shell.write_text('#!/bin/sh\nprintf "%s\\n" "$#" "$PATH"\nexit 9\n')
    shell.chmod(0o755)
    done = node.headstart(*words("shell", site), env={"SHELL": str(shell)})
    assert done.returncode == 9
    assert done.stdout.decode() == f"0\n{HOME}/open:{os.environ['PATH']}\n"
    last = done.stderr.decode().splitlines()[-1]
    assert last == (
        "headstart: julia is Julia 1.5.3 with jets behind your own depots;"
        f" the stack's project is {HOME}/project; leave with 'exit'"
    )
    quiet = node.headstart(*words("shell", site), env={"SHELL": str(shell), "HEADSTART_QUIET": "1"})
    assert quiet.stderr == b""
    assert_refused(node.headstart(*words("shell", site), env={"SHELL": "/no/shell"}), 19, "/no/shell")


@needs_namespace
def test_a_release_that_cannot_move_has_a_shell_but_no_settings(node: Node, tmp_path: Path) -> None:
    made = fixed(tmp_path)
    done = node.headstart(*words("shell", made, "--", "sh", "-c", "command -v julia"))
    assert done.stdout.decode() == f"{HOME}/open/julia\n"
    assert_refused(node.headstart(*words("env", made)), 14, "settings cannot show it there", "headstart shell")


def test_settings_are_taken_and_undone(site: Site, node: Node, tmp_path: Path) -> None:
    path = f"{tmp_path}/it's mine:{os.environ['PATH']}"
    env = {"PATH": path, "HEADSTART_QUIET": "1"}
    begin = node.headstart(*words("env", site), env=env)
    assert begin.returncode == 0, begin.stderr
    root = node.cache / str(nodes.FQRN) / "root"
    folder = f"{root}/stacks/jets/0123456789abcdef/open"
    script = f'eval "$1"; printf "%s\\n" "$PATH"; julia x >{tmp_path}/said; exec env -0'
    taken = subprocess.run(
        ["sh", "-c", script, "sh", begin.stdout.decode()],
        env={**node.environment(), **env}, capture_output=True, check=True,
    )  # fmt: skip
    assert taken.stdout.decode().partition("\n")[0] == f"{folder}:{path}"
    arguments, _, _ = releases.parse_fake_output((tmp_path / "said").read_bytes())
    assert arguments == ["-J", f"{root}/stacks/jets/0123456789abcdef/images/x86-64-v3/sys.so", "x"]
    inside = dict(pair.split("=", 1) for pair in taken.stdout.decode().partition("\n")[2].split("\0")[:-1])
    undo = node.headstart("env", "--undo", env={"PATH": inside["PATH"], NOTE: inside[NOTE]})
    assert undo.returncode == 0, undo.stderr
    after = subprocess.run(
        ["sh", "-c", 'eval "$1"; exec env -0', "sh", undo.stdout.decode()],
        env=inside, capture_output=True, check=True,
    )  # fmt: skip
    back = dict(pair.split("=", 1) for pair in after.stdout.decode().split("\0")[:-1])
    assert back["PATH"] == path
    assert NOTE not in back


def test_settings_as_json_and_for_other_shells(site: Site, node: Node) -> None:
    said = json.loads(node.headstart(*words("env", site, "--json")).stdout)
    root = node.cache / str(nodes.FQRN) / "root"
    home = f"{root}/stacks/jets/0123456789abcdef"
    assert (said["stack"], said["release"], said["target"]) == ("jets", "0123456789abcdef", "x86-64-v3")
    assert said["julia"] == f"{home}/open/julia"
    assert said["project"] == f"{home}/project"
    assert said["set"]["PATH"] == f"{home}/open:{os.environ['PATH']}"
    assert said["unset"] == []
    for shell, start in (("sh", b"export PATH='"), ("fish", b"set -gx PATH '"), ("csh", b"setenv PATH '")):
        assert node.headstart(*words("env", site, "--shell", shell)).stdout.startswith(start)
    undone = json.loads(node.headstart("env", "--undo", "--json", env=said["set"]).stdout)
    assert undone == {"set": {"PATH": os.environ["PATH"]}, "unset": [NOTE]}


def test_settings_say_what_is_wrong(site: Site, node: Node) -> None:
    assert_refused(node.headstart("env"), 2, "SOURCE and STACK, or give --undo")
    assert_refused(node.headstart("env", site.storage), 2, "SOURCE and STACK")
    assert_refused(node.headstart(*words("env", site, "--undo")), 2, "SOURCE and STACK")
    assert_refused(node.headstart("env", "--undo"), 10, "no session to undo")
    assert_refused(node.headstart("env", site.storage, "jest", "--key", site.key), 20, "no stack jest")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can show a directory as a mount")
@needs_namespace
def test_settings_for_a_mounted_repository_name_it_in_place(site: Site, node: Node, tmp_path: Path) -> None:
    mount = tmp_path / str(nodes.FQRN)
    shutil.copytree(site.stage, mount, symlinks=True)
    nodes.mount_channels(site, mount)
    inside = (
        "import sys, os; from headstart.namespace import Bind, enter;"
        f"enter((Bind({str(mount)!r}, {MOUNTPOINT!r}, False),));"
        "from headstart.cli import main; sys.exit(main())"
    )
    argv = ["-c", inside, "env", MOUNTPOINT, "jets", "--key", str(site.key), "--json"]
    done = subprocess.run(
        [sys.executable, *argv],
        env={**node.environment(), "PYTHONPATH": str(Path(nodes.__file__).parent.parent / "src")},
        capture_output=True, check=False,
    )  # fmt: skip
    assert json.loads(done.stdout)["julia"] == f"{HOME}/open/julia", done.stderr


def test_without_namespaces_a_shell_shows_the_cache_itself(site: Site, node: Node, tmp_path: Path) -> None:
    limits, show = without_namespaces(tmp_path), "command -v julia"
    done = subprocess.run(
        [*limits, sys.executable, "-m", "headstart", *words("shell", site, "--", "sh", "-c", show)],
        env=node.environment(),
        capture_output=True, check=False, cwd=node.root,
    )  # fmt: skip
    root = node.cache / str(nodes.FQRN) / "root"
    assert done.stdout.decode() == f"{root}/stacks/jets/0123456789abcdef/open/julia\n", done.stderr


# --- supervised


def check(node: Node, site: Site, fake: str = "", *more: str) -> "subprocess.CompletedProcess[bytes]":
    return node.headstart(*words("run", site, "--check", *more, "--", "x", "y z"), env={"FAKE_JULIA": fake})


TRACE = "for word do case $word in --trace-compile=*) trace=${word#*=} ;; esac; done; "


def test_a_checked_start_passes_everything_through(site: Site, node: Node) -> None:
    done = check(node, site, "echo words >&2")
    assert done.returncode == 0, done.stderr
    arguments, environment, _ = releases.parse_fake_output(done.stdout)
    assert arguments[:4] == [
        "-J", f"{HOME}/images/x86-64-v3/sys.so", "--startup-file=no", "--history-file=no",
    ]  # fmt: skip
    assert arguments[4].startswith("--trace-compile=/")
    assert arguments[5:] == ["x", "y z"]
    assert environment["JULIA_DEPOT_PATH"].split(":")[0] == "/dev/null"
    said = done.stderr.decode().splitlines()
    assert said[-2:] == ["words", "headstart: nothing was compiled"]
    assert check(node, site, "exit 7").returncode == 7
    assert check(node, site, "kill -TERM $$").returncode == -15


def test_what_a_job_compiled_breaks_the_promise(site: Site, node: Node) -> None:
    """What any start compiles is no fault of the job's: the empty start says it too."""
    usual = f"{TRACE} echo 'precompile(Tuple{{typeof(Base.exit)}})' >$trace; "
    assert check(node, site, usual).returncode == 0
    job = f"{usual} case $* in *'y z'*) echo 'precompile(Tuple{{typeof(Main.f), Int64}})' >>$trace ;; esac; "
    done = check(node, site, job)
    assert done.returncode == 25
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith(
        "headstart: compiled 1 method: precompile(Tuple{typeof(Main.f), Int64}); put it into"
    )
    # A job that failed has its own code, and what it compiled is said all the same.
    failed = check(node, site, f"{job} exit 3")
    assert failed.returncode == 3
    assert b"headstart: compiled 1 method" in failed.stderr


def test_a_job_that_would_have_had_to_compile(site: Site, node: Node) -> None:
    strict = 'ERROR: Precompiled image Base.PkgId(Base.UUID("33333333-3333-4333-8333-333333333333"), "Plots")'
    said = (
        f"printf '%s\\n' '{strict} not available with flags x' 'in expression starting at /j.jl:2' >&2; exit 1"
    )
    done = check(node, site, said)
    assert_refused_loudly(done, "Plots (/j.jl:2) would have to be compiled: it is not in jets 0123456789abcdef")
    assert strict.encode() in done.stderr
    # The same words in a job that goes on, or that fails otherwise, are only words.
    assert check(node, site, said.replace("exit 1", "exit 2")).returncode == 2


def assert_refused_loudly(done: "subprocess.CompletedProcess[bytes]", sentence: str) -> None:
    assert done.returncode == 25, done.stderr
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith(f"headstart: {sentence}"), last


def test_the_rule_that_rejects_a_cache_is_said(node: Node, tmp_path: Path) -> None:
    """Julia is asked once more, for this package alone."""
    place = publishing.new_repository(tmp_path / "packages", now=datetime.now(UTC))
    uuid = "33333333-3333-4333-8333-333333333333"
    files = {f"images/{level}/compiled/v1.5/Jets/a_b.ji": b"cache" for level in ("x86-64", "x86-64-v3")}
    publishing.write_stage(
        tmp_path / "stage",
        lambda made: replace(made, images=tuple(map(releases.packaged, made.images))),
        extra=files,
    )
    keys = publishing.copy_keys(tmp_path / "keys")
    key = keys / f"{nodes.FQRN}.pub"
    made = Site(storage=place.root, key=key, release=releases.release(), stage=tmp_path / "stage")
    made.publish(tmp_path / "stage")
    strict = f'ERROR: Precompiled image Base.PkgId(Base.UUID("{uuid}"), "Jets") not available with flags x'
    fake = (
        'if [ "${JULIA_DEBUG-}" = loading ]; then'
        f' case $* in *\'Base.require(Base.PkgId(Base.UUID("{uuid}"), "Jets"))\') '
        "echo 'Rejecting cache file /x.ji because it is for file /a not file /b' >&2 ;; esac; exit 1; fi; "
        f"echo '{strict}' >&2; exit 1"
    )
    done = check(node, made, fake)
    assert_refused_loudly(
        done,
        "Jets would have to be compiled: its cache in jets 0123456789abcdef was not taken, because it is for"
        " file /a not file /b",
    )


def test_an_extension_that_was_left_out_breaks_the_promise(site: Site, node: Node) -> None:
    done = check(node, site, "echo 'Error during loading of extension TwoExt of One, use' >&2")
    assert_refused_loudly(done, "Julia went on without extension TwoExt of One")


def test_a_trace_of_ones_own_does_not_go_with_a_check(site: Site, node: Node) -> None:
    done = node.headstart(*words("run", site, "--check", "--", "--trace-compile=x", "y"))
    assert_refused(done, 10, "--trace-compile=x does not go with --check")


# --- a depot that packages may write into


def test_a_scratch_depot_is_one_that_nothing_is_compiled_into(site: Site, node: Node) -> None:
    scratch = node.root / ".cache" / "headstart" / "scratch" / "0123456789abcdef"
    for extra, env in (((), {"HEADSTART_SCRATCH": "1"}), (("--scratch",), {}), (("--scratch",), {})):
        done = node.headstart(*words("run", site, *extra, "--", "x"), env=env)
        assert done.returncode == 0, done.stderr
        _, environment, _ = releases.parse_fake_output(done.stdout)
        assert environment["JULIA_DEPOT_PATH"].split(":")[:2] == [str(scratch), f"{HOME}/depot"]
        assert (scratch / "compiled").is_file()
        # Without it the next start is as ever.
        plain = node.headstart(*words("run", site, "--", "x"))
        assert b"JULIA_DEPOT_PATH=/dev/null:" in plain.stdout
    (scratch / "compiled").unlink()
    assert node.headstart(*words("run", site, "--scratch", "--", "x")).returncode == 0
    assert (scratch / "compiled").is_file()


def test_a_scratch_depot_with_compiled_code_is_refused(site: Site, node: Node) -> None:
    place = node.root / ".cache" / "headstart" / "scratch" / "0123456789abcdef" / "compiled"
    (place / "v1.5").mkdir(parents=True)
    assert_refused(node.headstart(*words("run", site, "--scratch", "--", "x")), 22, str(place), "must go")
    (place / "v1.5").rmdir()
    assert node.headstart(*words("run", site, "--scratch", "--", "x")).returncode == 0
    place.unlink()
    place.symlink_to("/tmp")
    assert_refused(node.headstart(*words("run", site, "--scratch", "--", "x")), 22, str(place))


def test_a_scratch_depot_needs_a_place(site: Site, node: Node) -> None:
    done = node.headstart(*words("run", site, "--scratch", "--", "x"), env={"HOME": "/a:b"})
    assert_refused(done, 22, "no place for a scratch depot", "XDG_CACHE_HOME")
