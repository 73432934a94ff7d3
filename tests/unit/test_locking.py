"""Locks without flock, holders that are named, and the types of file systems."""

import os
import signal
import time
from pathlib import Path

import pytest

from headstart import holdername, holders, locking
from headstart.holdername import boot_id, holder
from headstart.holders import Fate, fate
from headstart.locking import exclusive, file_system


def test_a_process_is_alive_until_it_ends() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, holder().encode())
        signal.pause()
    named = os.read(read, 1000).decode()
    assert fate(named) is Fate.ALIVE
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    # A zombie runs nothing any more.
    assert fate(named) is Fate.GONE
    os.waitpid(child, 0)
    assert fate(named) is Fate.GONE
    os.close(read)
    os.close(write)


def test_a_name_survives_exec() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1)
        named = holder()
        os.execv("/bin/sh", ["sh", "-c", f"printf '{named}'; exec sleep 600"])
    named = os.read(read, 1000).decode()
    assert fate(named) is Fate.ALIVE
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)


def test_what_cannot_be_seen_from_here_is_not_judged() -> None:
    host, boot, namespace, pid, start = holder().split(",")
    assert boot == boot_id()
    gone = {
        ",".join((host, boot, namespace, pid, "1")),
        ",".join((host, boot, namespace, str(2**22 + 1), start)),
        ",".join((host, boot, namespace, "x", start)),
    }
    assert {fate(named) for named in gone} == {Fate.GONE}
    elsewhere = {
        ",".join(("other", boot, namespace, pid, "1")),
        ",".join((host, "other", namespace, pid, "1")),
        ",".join((host, boot, "pid:[1]", pid, "1")),
        "",
        "nonsense",
        ",,,,",
        "\0" * 50,
    }
    assert {fate(named) for named in elsewhere} == {Fate.UNKNOWN}


def test_where_the_system_does_not_say_which_boot_it_is_nobody_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holdername, "BOOT_ID", "/no/such/file")
    assert boot_id() == ""
    assert fate(holder()) is Fate.UNKNOWN


def test_a_process_that_is_hidden_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``/proc`` hides other users' processes where it is mounted with ``hidepid``."""
    host, boot, namespace, *_ = holder().split(",")
    monkeypatch.setattr(holders, "started", lambda _pid: "")

    def other_users(_pid: int, _signal: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", other_users)
    assert fate(f"{host},{boot},{namespace},1,5") is Fate.UNKNOWN


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/user/cache", "nfs4"),
        ("/homer", "ext4"),
        ("/with space/x", "tmpfs"),
        ("/twice/x", "fuse.second"),
    ],
)
def test_the_type_is_that_of_the_innermost_mount(tmp_path: Path, path: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
        "23 22 0:5 / /home rw - nfs4 server:/home rw\n"
        "24 22 0:6 / /with\\040space rw shared:3 master:1 - tmpfs none rw\n"
        "25 22 0:7 / /twice rw - xfs /dev/x rw\n"
        "26 22 0:8 / /twice rw - fuse.second x rw\n"
        "nonsense\n"
    )
    assert file_system(path, str(mounts)) == kind
    assert file_system(path, str(tmp_path / "none")) == ""


def test_the_systems_own_answer_is_right() -> None:
    assert file_system("/proc/self") == "proc"
    if os.path.ismount("/dev/shm"):
        assert file_system("/dev/shm") == "tmpfs"


def _held_by(path: Path, named: str, age: float) -> Path:
    held = Path(f"{path}.held")
    held.write_text(named)
    then = time.time() - age
    os.utime(held, (then, then))
    return held


def test_a_linked_lock_of_another_host_counts_while_it_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    held = _held_by(lock, "other,boot,pid:[1],5,5", 10)
    tries: list[float] = []

    def wait(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 5:
            # Nobody touches it any more.
            os.utime(held, (1, 1))
        assert len(tries) < 9

    monkeypatch.setattr(time, "sleep", wait)
    with exclusive(str(lock), local=False):
        assert len(tries) >= 5
        assert held.read_text() == holder()
    assert list(tmp_path.iterdir()) == []


def test_a_linked_lock_is_touched_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_BEAT", 0.01)
    held = Path(f"{tmp_path / 'lock'}.held")
    with exclusive(str(tmp_path / "lock"), local=False):
        os.utime(held, (1, 1))
        until = time.monotonic() + 10
        while held.stat().st_mtime < 100:
            assert time.monotonic() < until
            time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []


def test_who_was_pushed_aside_does_not_take_away_anothers_lock(tmp_path: Path) -> None:
    held = Path(f"{tmp_path / 'lock'}.held")
    with exclusive(str(tmp_path / "lock"), local=False):
        held.unlink()
        held.write_text("somebody else")
    assert held.read_text() == "somebody else"


def test_a_lock_that_is_anothers_by_now_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at a lock and the push, its holder may have gone, and another one may have it."""
    held = tmp_path / "lock.held"
    held.write_text("x")
    os.utime(held, (1, 1))
    real = os.rename

    def late(source: str, target: str) -> None:
        held.unlink()
        held.write_text("new")
        real(source, target)

    monkeypatch.setattr(os, "rename", late)
    locking._push_aside(str(held), time.time())
    assert held.read_text() == "new"
    assert list(tmp_path.iterdir()) == [held]


def test_without_hard_links_a_lock_is_a_file_that_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_source: str, _target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    held = _held_by(tmp_path / "lock", holder().rpartition(",")[0] + ",1", 0)
    with exclusive(str(tmp_path / "lock"), local=False):
        assert held.read_text() == holder()
        assert locking._claim(str(tmp_path / "own"), str(held)) is None
    assert list(tmp_path.iterdir()) == []
