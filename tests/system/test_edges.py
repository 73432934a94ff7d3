"""Starts where something that is usually there is not: each works, or says why not. All with real processes.

Both ways to start are tried: ``headstart run`` out of a storage directory, and the release's own ``bin/julia``
where it stands, under each shell that is here.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import nodes
import releases
from headstart.errors import OutputError
from nodes import Node, Site, assert_refused, needs_namespace, without_namespaces

SHELLS = {"dash": ("dash",), "bash": ("bash", "--posix"), "busybox": ("busybox", "sh")}
HOME = "stacks/jets/0123456789abcdef"
UID = 4711
AS_SOMEBODY = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--")


def _python_for_others() -> str:
    """A Python that any user may start: that of the tests may be in root's home."""
    for program in (sys.executable, "/usr/bin/python3"):
        done = subprocess.run(
            [*AS_SOMEBODY, program, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            return program
    return ""


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a program as another user")
needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A repository, a release as it stands in a mount, and Headstart itself, where every user may look."""

    root: Path
    site: Site

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": f"{os.environ['PATH']}:/usr/sbin", "PYTHONPATH": str(self.root / "src")}

    def run(self, python: str = sys.executable, source: str = "", *, extra: Sequence[str] = ()) -> list[str]:
        where = source or str(self.site.storage)
        return [python, "-m", "headstart", "run", where, "jets", "--key", str(self.site.key), *extra, "--", "x"]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="headstart-edges-") as name:
        root = Path(name)
        root.chmod(0o755)
        source = Path(nodes.__file__).parent.parent / "src"
        shutil.copytree(source, root / "src", ignore=shutil.ignore_patterns("__pycache__"))
        made = Place(root=root, site=nodes.make_site(root / "site", image_size=50_000))
        made.site.key.parent.chmod(0o755)
        yield made


@pytest.fixture
def node(place: Place) -> Iterator[Node]:
    """A directory of the test's own, for whoever it starts."""
    with tempfile.TemporaryDirectory(prefix="node-", dir=place.root, ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Node(root=Path(name))


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> tuple[str, ...]:
    words: tuple[str, ...] = SHELLS[request.param]
    if shutil.which(words[0]) is None:
        pytest.skip(f"there is no {words[0]} here")
    return words


def start(
    words: Sequence[str | Path], place: Place, node: Node, **env: str
) -> "subprocess.CompletedProcess[bytes]":
    cpuinfo = node.root / "cpuinfo"
    if not cpuinfo.exists():
        node.flags()
    return subprocess.run(
        words,
        env={**place.env, "HEADSTART_CPUINFO": str(cpuinfo), **env},
        capture_output=True,
        check=False,
        cwd=node.root,
        timeout=120,
    )


def script(place: Place, shell: Sequence[str]) -> list[str | Path]:
    return [*shell, place.site.stage / HOME / "bin" / "julia", "x"]


def assert_started(done: "subprocess.CompletedProcess[bytes]") -> dict[str, str]:
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    arguments, environment, rest = releases.parse_fake_output(done.stdout)
    assert rest["file"] == "image x86-64-v3"
    assert arguments[-1] == "x"
    return environment


# -- users -------------------------------------------------------------------------------------------------


@needs_root
def test_a_user_without_home_and_entry(place: Place, node: Node, shell: tuple[str, ...]) -> None:
    python = _python_for_others() or pytest.skip("there is no Python that any user may start")
    work = node.root / "work"
    work.mkdir()
    os.chown(work, UID, UID)
    if shell == SHELLS["dash"]:
        refused = start([*AS_SOMEBODY, *place.run(python)], place, node)
        assert_refused(
            refused, 22, f"HOME is not set, and user {UID} has no entry", "--cache or HEADSTART_CACHE"
        )
        for _ in range(2):
            cached = start([*AS_SOMEBODY, *place.run(python)], place, node, HEADSTART_CACHE=str(work / "cache"))
            assert_started(cached)
        assert {path.stat().st_uid for path in work.rglob("*")} == {UID}
    assert_started(start([*AS_SOMEBODY, *script(place, shell)], place, node))
    assert sorted(path.name for path in node.root.iterdir()) == ["cpuinfo", "work"]


@needs_root
def test_a_home_that_is_not_the_users_to_write(place: Place, node: Node) -> None:
    python = _python_for_others() or pytest.skip("there is no Python that any user may start")
    done = start([*AS_SOMEBODY, *place.run(python)], place, node, HOME="/")
    assert_refused(done, 22, "the cache cannot be written: /.cache (Permission denied)", "--cache")


@pytest.mark.parametrize("umask", ["077", "027", "000"])
def test_whatever_the_umask(place: Place, node: Node, umask: str) -> None:
    words = ["sh", "-c", f'umask {umask}; exec "$@"', "sh"]
    for _ in range(2):
        assert_started(start([*words, *place.run()], place, node, HOME=str(node.root)))
    # Root's cache is for all to start from; a user's is as open as his umask says, never for others to write.
    allowed = 0o755 if os.geteuid() == 0 else 0o777 & ~int(umask, 8) & ~0o022
    for path in (node.root / ".cache" / "headstart").rglob("*"):
        # What is verified has the mode that its record says; directories and notes are the user's.
        if path.is_dir() and not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) & ~allowed == 0
    assert_started(start([*words, *script(place, SHELLS["bash"])], place, node))


# -- places ------------------------------------------------------------------------------------------------


def _deep(root: Path, length: int) -> Path:
    """A path of that many characters."""
    missing = length - len(str(root))
    names = ["d" * 200] * (missing // 201) + ["e" * (missing % 201 - 1)] * (missing % 201 > 1)
    return root.joinpath(*names)


@pytest.mark.parametrize(
    ("length", "refused"), [(60, ""), (1000, ""), (3000, ""), (4000, "a shorter path"), (5000, "too long")]
)
def test_long_paths_of_a_cache(place: Place, node: Node, length: int, refused: str) -> None:
    cache = _deep(node.root, length)
    try:
        done = start(place.run(extra=("--cache", str(cache))), place, node, HOME=str(node.root))
        if refused:
            assert_refused(done, 22, "File name too long", *([refused] if length < 4096 else []))
        else:
            assert_started(done)
    finally:
        # Deeper than the standard library can remove it.
        subprocess.run(["rm", "-rf", "--", node.root / ("d" * 200)], check=True)


def test_a_name_that_is_too_long(place: Place, node: Node) -> None:
    done = start(place.run(extra=("--cache", str(node.root / ("d" * 300)))), place, node, HOME=str(node.root))
    assert_refused(done, 22, "File name too long")


def test_long_paths_of_a_release(place: Place, node: Node, shell: tuple[str, ...]) -> None:
    """As far as the kernel lets a path be given, and by a relative one from still deeper."""
    try:
        for length, code in ((3000, 0), (3900, 0), (4060, 19)):
            root = _deep(node.root, length)
            # From the inside: from the outside the longest of them could not be written.
            copy = f'mkdir -p "$2" && cd "$2" && cp -a "$1"/. . && exec {" ".join(shell)} ./{HOME}/bin/julia x'
            done = start(["bash", "-c", copy, "sh", place.site.stage, str(root)], place, node)
            if code:
                assert done.returncode == code, done.stderr
                assert b"is not there; mount the" in done.stderr
            else:
                assert_started(done)
            subprocess.run(["rm", "-rf", "--", node.root / ("d" * 200)], check=True)
    finally:
        subprocess.run(["rm", "-rf", "--", node.root / ("d" * 200)], check=True)


NAMES = [
    "with space",
    "a\nnewline",
    "newline at the end\n",
    "'\"$(x)`y`\\*?[!]",
    "é",
    b"\xff\xfe".decode(errors="surrogateescape"),
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_caches_and_releases(place: Place, node: Node, name: str) -> None:
    cache = node.root / name / "cache"
    for _ in range(2):
        done = start(place.run(extra=("--cache", str(cache))), place, node, HOME=str(node.root))
        assert_started(done)
        assert done.stderr.count(b"\n") <= 2
    moved = node.root / name / "release"
    shutil.copytree(place.site.stage, moved, symlinks=True)
    for shell in SHELLS.values():
        if shutil.which(shell[0]) is not None:
            done = start([*shell, moved / HOME / "bin" / "julia", "x"], place, node)
            assert done.returncode == 0, done.stderr
            assert os.fsencode(f"arg {moved / HOME}/images/x86-64-v3/sys.so\n") in done.stdout


def test_a_colon_in_the_name(place: Place, node: Node, shell: tuple[str, ...]) -> None:
    """A list of depots cannot hold it; at its own path a release does not know of it."""
    if shell == SHELLS["dash"]:
        assert_started(start(place.run(extra=("--cache", str(node.root / "a:b"))), place, node, HOME="/x"))
    moved = node.root / "c:d"
    shutil.copytree(place.site.stage, moved, symlinks=True)
    done = start([*shell, moved / HOME / "bin" / "julia", "x"], place, node)
    assert_refused(done, 14, "colon")


def test_a_working_directory_that_is_gone(place: Place, node: Node, shell: tuple[str, ...]) -> None:
    gone = ["sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh"]
    if shell == SHELLS["dash"]:
        assert_started(start([*gone, *place.run()], place, node, HOME=str(node.root)))
        relative = start([*gone, *place.run(source="some/where")], place, node, HOME=str(node.root))
        assert_refused(relative, 10, "the working directory is not there any more", "absolute")
        relative = start([*gone, *place.run(extra=("--cache", "c"))], place, node, HOME=str(node.root))
        assert_refused(relative, 10, "the working directory is not there any more", "absolute")
    done = start([*gone, *script(place, shell)], place, node)
    assert done.returncode == 0
    assert b"file image x86-64-v3\n" in done.stdout


# -- what may be written -----------------------------------------------------------------------------------


def read_only(*writable: Path) -> list[str]:
    """Words before a command for which nothing else can be written."""
    words = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for path in writable:
        words += ["--bind", str(path), str(path)]
    return words


@needs_bwrap
@needs_namespace
def test_without_write_access(place: Place, node: Node, shell: tuple[str, ...]) -> None:
    home = {"HOME": str(node.root)}
    node.flags()
    if shell == SHELLS["dash"]:
        assert_refused(start([*read_only(), *place.run()], place, node, **home), 22, "Read-only file system")
        assert_started(start(place.run(), place, node, **home))
        for extra in ((), ("--refresh",)):
            assert_started(start([*read_only(), *place.run(extra=extra)], place, node, **home))
    assert_started(start([*read_only(), *script(place, shell)], place, node, **home))


@needs_bwrap
@needs_namespace
def test_without_a_place_for_temporary_files(place: Place, node: Node, shell: tuple[str, ...]) -> None:
    words = [*read_only(node.root), "--tmpfs", "/var/tmp"]
    words = [*words, "--ro-bind", str(place.root), str(place.root), "--bind", str(node.root), str(node.root)]
    env = {"HOME": str(node.root), "TMPDIR": "/no/such/place"}
    node.flags()
    if shell == SHELLS["dash"]:
        assert_started(start([*words, *place.run()], place, node, **env))
    assert_started(start([*words, *script(place, shell)], place, node, **env))


# -- what the system gives ---------------------------------------------------------------------------------


@needs_namespace
def test_without_network(place: Place, node: Node, shell: tuple[str, ...]) -> None:
    alone = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    env = {"HOME": str(node.root), "HEADSTART_PROXY": "DIRECT"}
    node.flags()
    if shell == SHELLS["dash"]:
        with nodes.serving(place.site.storage) as server:
            words = place.run(source=server.url)
            assert_refused(start([*alone, *words], place, node, **env), 21, "unreachable")
            assert_started(start(words, place, node, **env))
            words = place.run(source=server.url, extra=("--refresh",))
            done = start([*alone, *words], place, node, **env)
        assert_started(done)
        assert b"going on with what was verified before" in done.stderr
    assert_started(start([*alone, *script(place, shell)], place, node, **env))


def test_without_namespaces(place: Place, node: Node, shell: tuple[str, ...], tmp_path: Path) -> None:
    """``run`` without them: tests/system/test_run.py."""
    assert_started(start([*without_namespaces(tmp_path), *script(place, shell)], place, node))


@needs_root
@needs_namespace
def test_without_proc(place: Place, node: Node, shell: tuple[str, ...]) -> None:
    bare = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc; exec "$@"', "sh"]
    env = {"HOME": str(node.root), "HEADSTART_CPUINFO": ""}
    if shell == SHELLS["dash"]:
        refused = start([*bare, *place.run()], place, node, **env)
        assert_refused(refused, 13, "/proc/cpuinfo names no CPU features")
    assert_refused(start([*bare, *script(place, shell)], place, node, **env), 13, "names no CPU features")


STREAMS: Mapping[str, str] = {
    "all closed": "<&- >&- 2>&-",
    "no standard error": "2>&-",
    "a full disk": "2>/dev/full",
    "nobody reads": "2> >(exec true)",
}


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS)
def test_streams_that_are_closed_or_full(place: Place, node: Node, streams: str) -> None:
    """Nobody has to listen: what comes back is Julia's own exit code, or Headstart's."""
    wrap = ["bash", "-c", f'exec "$@" {streams}', "bash"]
    if "(" in streams:
        # Whoever was to read has gone by then.
        wrap = ["bash", "-c", f'exec {streams}; sleep 0.3; exec "$@"', "bash"]
    env = {"HOME": str(node.root), "FAKE_JULIA": "exit 7"}
    arms: list[Callable[[], list[str | Path]]] = [lambda: [*place.run()]]
    if "(" not in streams:
        # A shell ends by SIGPIPE there, as any program would.
        arms += [lambda: script(place, SHELLS["dash"]), lambda: script(place, SHELLS["bash"])]
    for words in arms:
        for _ in range(2):
            assert start([*wrap, *words()], place, node, **env).returncode == 7
    assert start([*wrap, *place.run(source="/no/such/place")], place, node, **env).returncode == 16
    listing = [sys.executable, "-m", "headstart", "list", str(place.site.storage), "--key", str(place.site.key)]
    # Unlike a start, it has something to say itself.
    expected = OutputError.exit_code if " >&-" in streams else 0
    assert start([*wrap, *listing], place, node, **env).returncode == expected


@pytest.mark.parametrize("limit", ["-n 16", "-v 400000"])
def test_limits_that_suffice(place: Place, node: Node, limit: str) -> None:
    few = ["bash", "-c", f'ulimit {limit}; exec "$@"', "bash"]
    for _ in range(2):
        assert_started(start([*few, *place.run()], place, node, HOME=str(node.root)))
    assert_started(start([*few, *script(place, SHELLS["dash"])], place, node))


@needs_root
def test_a_limit_on_processes(place: Place, node: Node) -> None:
    """No thread can be started either, and that is said."""
    python = _python_for_others() or pytest.skip("there is no Python that any user may start")
    work = node.root / "work"
    work.mkdir()
    os.chown(work, UID, UID)
    few = ["prlimit", "--nproc=1", *AS_SOMEBODY]
    with nodes.serving(place.site.storage) as server:
        done = start([*few, *place.run(python, server.url)], place, node, HOME=str(work))
    assert_refused(done, 11, "no thread can be started here")
    assert_started(start([*AS_SOMEBODY, *place.run(python)], place, node, HOME=str(work)))


def test_a_limit_on_the_size_of_files(place: Place, node: Node) -> None:
    few = ["bash", "-c", 'ulimit -f 10; exec "$@"', "bash"]
    assert_refused(start([*few, *place.run()], place, node, HOME=str(node.root)), 22, "File too large")
    assert_started(start(place.run(), place, node, HOME=str(node.root)))
