"""Staying a program's parent: its end, its words and its signals come through as they are."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.supervise import PASSED_ON

SUPERVISED = """\
import signal, sys
# What a shell starts in the background would ignore some of them, and so would all that it starts.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_DFL)
from headstart.process import Command
from headstart.supervise import end_like, supervise
done = supervise(Command(argv=tuple(sys.argv[2:]), env={"PATH": "/usr/bin:/bin"}))
with open(sys.argv[1], "w") as file:
    file.write(f"{done.code} {done.said}")
sys.exit(end_like(done.code))
"""
EXECUTED = """\
import os, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def words(note: Path, *argv: str) -> list[str]:
    return [sys.executable, "-c", SUPERVISED, str(note), *argv]


@pytest.fixture
def note(tmp_path: Path) -> Path:
    return tmp_path / "note"


def test_streams_and_exit_code_come_through(note: Path) -> None:
    script = "cat; echo out; echo err >&2; printf 'no newline' >&2; exit 7"
    done = subprocess.run(words(note, "sh", "-c", script), input=b"in\n", capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"in\nout\n", b"err\nno newline")
    assert note.read_text() == "7 err\nno newline"


def test_only_the_end_of_what_is_said_is_kept_and_all_of_it_passed_on(note: Path) -> None:
    script = "import os\nfor number in range(40000): os.write(2, b'%010d' % number)"
    done = subprocess.run(words(note, sys.executable, "-c", script), capture_output=True, check=False)
    assert done.stderr == b"".join(b"%010d" % number for number in range(40000))
    assert note.read_text() == "0 " + done.stderr.decode()[-(1 << 18) :]


def test_descriptors_and_the_signal_mask_are_as_with_exec(note: Path) -> None:
    def masks(*before: str) -> list[str]:
        read, write = os.pipe()
        script = f"grep -E 'SigBlk|SigIgn' /proc/self/status >/proc/self/fd/{write}"
        argv = [*before, "sh", "-c", script]
        done = subprocess.run(argv, pass_fds=[write], capture_output=True, check=False)
        os.close(write)
        assert done.returncode == 0, done.stderr
        with os.fdopen(read) as said:
            return said.read().split()

    # A Python in between lets some signals be that it was started ignoring: compare with one that execs.
    through = (sys.executable, "-c", EXECUTED)
    assert masks(*words(note)) == masks(*through)
    assert masks(*words(note))[1] == "0" * 16


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGQUIT]
)
def test_a_signal_goes_through(note: Path, number: signal.Signals) -> None:
    script = f"trap 'echo got; exit 3' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(words(note, "sh", "-c", script), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)
        assert running.stdout.read() == "got\n"
        assert running.wait(20) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_program_that_dies_of_a_signal(note: Path, number: signal.Signals, tmp_path: Path) -> None:
    done = subprocess.run(
        words(note, "sh", "-c", f"kill -{number.name[3:]} $$"), capture_output=True, check=False, cwd=tmp_path
    )
    assert done.returncode == -number
    assert note.read_text() == f"{-number} "


def test_the_program_dies_with_its_parent(note: Path) -> None:
    with subprocess.Popen(
        words(note, "sh", "-c", "echo ready; exec sleep 600"), stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.kill()
        # The pipe ends when the last one that has it is gone.
        assert running.stdout.read() == ""


def test_what_is_left_running_holds_nobody_up(note: Path, tmp_path: Path) -> None:
    script = f"sleep 30 & echo $! >{tmp_path}/pid; echo err >&2"
    done = subprocess.run(words(note, "sh", "-c", script), stderr=subprocess.PIPE, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, b"err\n")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_an_interrupt_of_the_terminal_comes_once(note: Path, tmp_path: Path) -> None:
    """The kernel sends it to the program too, which must not get it a second time."""
    log = tmp_path / "log"
    script = (
        "import os, signal, sys, time\n"
        f"log = open({str(log)!r}, 'a', buffering=1)\n"
        "signal.signal(signal.SIGINT, lambda *_: log.write('int\\n'))\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, words(note, sys.executable, "-c", script))
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 100)
    os.write(terminal, b"\x03")
    while not log.exists() or not log.read_text():
        os.sched_yield()
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 5
    assert log.read_text() == "int\n"


def test_a_program_that_is_none(note: Path) -> None:
    done = subprocess.run(words(note, "/no/such/program"), capture_output=True, text=True, check=False)
    assert "MissingToolError: /no/such/program cannot be started (No such file or directory)" in done.stderr


def test_a_reader_that_goes_away_is_noticed_by_the_program(note: Path) -> None:
    script = "while :; do echo x >&2 || exit 4; done"
    running = subprocess.Popen(words(note, "sh", "-c", f"trap '' PIPE; {script}"), stderr=subprocess.PIPE)
    assert running.stderr is not None
    running.stderr.read(10)
    running.stderr.close()
    assert running.wait(20) == 4


def test_job_control_stays_the_shells() -> None:
    stops = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGSTOP, signal.SIGKILL}
    assert not PASSED_ON & stops
