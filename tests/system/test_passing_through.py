"""What stands between a job and Julia: nothing, by ``headstart run`` on both its ways, and by ``bin/julia``."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import nodes
import releases
from headstart.script import DROPPED
from nodes import Node, Site

HOME = "stacks/jets/0123456789abcdef"
SHELLS = {"dash": ("dash",), "bash": ("bash", "--posix"), "busybox": ("busybox", "sh")}
WAYS = ("run, the long way", "run, the short way", *SHELLS)
SLOW = frozenset(
    {
        "argparse", "dataclasses", "datetime", "enum", "hashlib", "inspect", "json", "pathlib", "re", "shutil",
        "signal", "socket", "sqlite3", "subprocess", "tempfile", "tomllib", "typing", "urllib.parse",
    }
)  # fmt: skip
"""What a start that was made a moment ago does without; each of them takes longer than all that it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A way to start Julia."""

    words: Sequence[str | Path]
    env: dict[str, str]

    def run(
        self, fake: str = "", before: Sequence[str] = (), **env: str
    ) -> "subprocess.CompletedProcess[bytes]":
        """Start it and wait; ``fake`` is done in Julia's place, ``before`` stands before the command."""
        return subprocess.run(
            [*before, *self.words], env=self.env | {"FAKE_JULIA": fake} | env, capture_output=True, check=False
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return nodes.make_site(tmp_path_factory.mktemp("site"), image_size=50_000)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Node:
    """One on which everything has been started before."""
    made = Node(root=tmp_path_factory.mktemp("node"))
    made.flags()
    assert made.run(site.storage, site, "x").returncode == 0
    return made


@pytest.fixture(params=WAYS)
def job(request: pytest.FixtureRequest, site: Site, node: Node) -> Job:
    env = node.environment() | {"HEADSTART_QUIET": "1"}
    shell = SHELLS.get(request.param)
    if shell is not None:
        if shutil.which(shell[0]) is None:
            pytest.skip(f"there is no {shell[0]} here")
        return Job(words=[*shell, site.stage / HOME / "bin" / "julia", "x"], env=env)
    refresh = ["--refresh"] if "long" in request.param else []
    run: list[str | Path] = [sys.executable, "-m", "headstart", "run", site.storage, "jets", "--key", site.key]
    return Job(words=[*run, *refresh, "--", "x"], env=env)


def test_exit_codes(job: Job) -> None:
    for code in (0, 1, 25, 127, 255):
        assert job.run(f"exit {code}").returncode == code


def test_a_signal_that_ends_julia_ends_the_job(job: Job) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGINT):
        done = job.run(f"ulimit -c 0; kill -{number.value} $$")
        assert (done.returncode, done.stderr) == (-number, b"")


def test_julia_is_the_process_that_was_started(job: Job) -> None:
    """So whatever a batch system sends to the job arrives, and what it counts is Julia's."""
    fake = 'trap "exit 9" TERM; echo $$; while :; do sleep 0.02; done'
    with subprocess.Popen(job.words, env=job.env | {"FAKE_JULIA": fake}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 9


def test_signals_that_are_ignored_or_blocked_are_so_for_julia(job: Job) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])\n"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    before = [sys.executable, "-c", code]
    state = "grep -E 'SigBlk|SigIgn' /proc/self/status; exit 0"
    direct = subprocess.run([*before, "sh", "-c", state], capture_output=True, check=True)
    assert job.run(state, before).stdout == direct.stdout
    # The hangup is among them; who starts the tests may have added others.
    ignored = direct.stdout.partition(b"SigIgn:\t")[2].split()[0]
    assert int(ignored, 16) & 1


def test_what_would_change_which_code_runs_does_not_arrive(job: Job, node: Node) -> None:
    hostile = dict.fromkeys(DROPPED, "bad") | {"LD_LIBRARY_PATH": "bad", "JULIA_PROJECT": "bad"}
    hostile |= {"JULIA_DEPOT_PATH": "bad:", "JULIA_LOAD_PATH": "bad:", "JULIA_NUM_THREADS": "3"}
    startup = node.root / ".julia" / "config" / "startup.jl"
    startup.parent.mkdir(parents=True, exist_ok=True)
    startup.write_text("exit(1)\n")
    done = job.run(**hostile)
    assert done.returncode == 0, done.stderr
    words, environment, _ = releases.parse_fake_output(done.stdout)
    assert {name for name, value in environment.items() if "bad" in value.split(":")} == set()
    assert environment["JULIA_NUM_THREADS"] == "3"
    assert (environment["JULIA_LOAD_PATH"], environment["LD_LIBRARY_PATH"].count("/lib")) == ("@:@stdlib", 2)
    # No depot of the user's, no startup file of his.
    depots = environment["JULIA_DEPOT_PATH"].split(":")
    assert depots[0] == "/dev/null"
    assert not [depot for depot in depots if ".julia" in depot]
    assert "--startup-file=no" in words[:3]


@pytest.fixture
def short(site: Site, node: Node) -> list[str | Path]:
    """The short way, without what the tests' environment adds to Python's own start."""
    source = Path(nodes.__file__).parent.parent / "src"
    code = f"import sys; sys.path.insert(0, {str(source)!r}); from headstart.cli import main; sys.exit(main())"
    return ["-I", "-S", "-c", code, "run", site.storage, "jets", "--key", site.key, "--", "x"]


def test_the_short_way_imports_what_it_needs_only(node: Node, short: list[str | Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *short],
        env=node.environment() | {"FAKE_JULIA": "exit 0"},
        capture_output=True,
        check=True,
    )
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith("import time:")]
    modules = {line.rpartition("|")[2].strip() for line in lines[1:]}
    # What is imported by its name is in no such line; what it imports is.
    assert {"headstart.shortcut", "ctypes"} <= modules
    assert modules & SLOW == set()
    own = {name for name in modules if name.startswith("headstart")}
    wanted = ("cli", "cli.run", "directories", "errors", "leases", "namespace", "shortcut", "wording")
    assert own <= {"headstart"} | {f"headstart.{name}" for name in wanted}


def test_the_short_way_is_one_process(node: Node, short: list[str | Path], tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("there is no strace here")
    trace = tmp_path / "trace"
    words = ["strace", "-f", "-e", "trace=process", "-o", trace, sys.executable, *short]
    env = node.environment() | {"FAKE_JULIA": "exit 0"}
    done = subprocess.run(words, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    calls = trace.read_text().splitlines()
    started = [line for line in calls if "execve(" in line and line.endswith("= 0")]
    # Julia's place is taken by a script: nothing is between Python and it.
    assert "/julia/" in started[1]
    before = calls[: calls.index(started[1])]
    assert [line for line in before if "fork(" in line or "clone" in line] == []
    assert os.fspath(node.cache) not in done.stderr.decode()
