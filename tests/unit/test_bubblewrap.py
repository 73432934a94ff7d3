"""The launch through bubblewrap, for systems that allow namespaces to that program only: really made."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nodes
import releases
from headstart import launch, namespace
from headstart.errors import NamespaceError
from headstart.launch import Ways, at_its_path
from headstart.namespace import Bind, bwrap_argv, try_out
from nodes import Node, Site

BWRAP = shutil.which("bwrap") or ""


def bubblewrap_works() -> bool:
    words = (BWRAP, "--dev-bind", "/", "/", "true")
    return bool(BWRAP) and subprocess.run(words, check=False, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap is not here, or not allowed")

# As on a system where the kernel gives a process the namespace and refuses it the mounts.
REFUSED = """\
import sys
from headstart import launch, namespace
from headstart.errors import NamespaceError
def refuse(*_):
    raise NamespaceError("refused by the test")
namespace.enter = launch.enter = refuse
from headstart.cli import main
sys.exit(main())
"""
SOURCE = str(Path(namespace.__file__).parent.parent)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return nodes.make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "node").mkdir()
    return Node(root=tmp_path / "node")


def test_julia_starts_at_its_path_with_its_environment(site: Site, node: Node) -> None:
    words = ["-e", "a\nb", "--", "", "--bind"]
    env = {**node.environment(), "JULIA_PKG_SERVER": "bad", "LD_LIBRARY_PATH": "/nowhere", "KEPT": "a\nb"}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", REFUSED, "run", site.storage, "jets", "--key", site.key, "--", *words],
            env=env, capture_output=True, check=False, cwd=node.root,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        arguments, environment, rest = releases.parse_fake_output(done.stdout.replace(b"a\nb", b"a b"))
        home = "/cvmfs/julia.example.org/stacks/jets/0123456789abcdef"
        assert arguments[1] == f"{home}/images/x86-64-v3/sys.so"
        assert arguments[-5:] == ["-e", "a b", "--", "", "--bind"]
        assert rest["file"] == "image x86-64-v3"
        assert rest["cwd"] == str(node.root)
        assert environment["JULIA_PROJECT"] == f"{home}/project"
        assert environment["LD_LIBRARY_PATH"].startswith("/cvmfs/julia.example.org/julia/")
        assert environment["KEPT"] == "a b"
        assert "JULIA_PKG_SERVER" not in environment


def bind(tmp_path: Path) -> tuple[Bind, ...]:
    (tmp_path / "tree").mkdir(exist_ok=True)
    return (Bind(str(tmp_path / "tree"), "/cvmfs/test.example.org", False),)


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -TERM $$", 128 + signal.SIGTERM)])
def test_exit_codes_and_signals_pass(tmp_path: Path, script: str, code: int) -> None:
    words = bwrap_argv(BWRAP, bind(tmp_path), ("sh", "-c", script))
    assert subprocess.run(words, check=False).returncode == code


def test_julia_does_not_outlive_a_killed_bubblewrap(tmp_path: Path) -> None:
    words = bwrap_argv(BWRAP, bind(tmp_path), ("sh", "-c", "echo $$; exec sleep 60"))
    with subprocess.Popen(words, stdout=subprocess.PIPE) as outer:
        assert outer.stdout is not None
        inner = int(outer.stdout.readline())
        outer.kill()
        outer.wait()
    deadline = time.monotonic() + 10
    while _alive(inner) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(inner)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_working_directory_that_is_gone_is_no_reason_to_fail(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        f"import os, sys; sys.path.insert(0, {SOURCE!r}); os.chdir({str(gone)!r}); os.rmdir({str(gone)!r});"
        "from headstart.namespace import bwrap_argv;"
        f"words = bwrap_argv({BWRAP!r}, (), ('true',)); os.execv(words[0], words)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_bubblewrap_itself_gets_the_users_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does it load Julia's libraries, nor, being set-user-id, lose them for Julia."""
    monkeypatch.setattr(launch, "try_out", lambda _binds: "refused")
    release = releases.release()
    start = at_its_path(release, release.images[0], root=str(tmp_path), scratch="")
    placed = launch.place(start, Ways(bwrap=BWRAP, bwrap_works=lambda _: True, moved=None))
    # Such a launch leaves no record.
    assert placed.bwrap == BWRAP
    command = placed.command(("x",), {"LD_LIBRARY_PATH": "/mine"})
    assert command.env == {"LD_LIBRARY_PATH": "/mine"}
    at = command.argv.index("LD_LIBRARY_PATH")
    assert command.argv[at - 1] == "--setenv"
    assert command.argv[at + 1] == start.sets["LD_LIBRARY_PATH"]


def test_trying_out_leaves_this_process_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.readlink("/proc/self/ns/mnt"), os.readlink("/proc/self/ns/user")
    try_out(bind(tmp_path))

    def refuse(_binds: tuple[Bind, ...]) -> None:
        raise NamespaceError("refused by the test")

    monkeypatch.setattr(namespace, "enter", refuse)
    assert try_out(bind(tmp_path))
    assert (os.readlink("/proc/self/ns/mnt"), os.readlink("/proc/self/ns/user")) == before
