"""What a node's cache keeps on every kind of file system: one at a time, leases, room for more."""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import crashing
import disks
import releases
from headstart import cache as caches
from headstart import holdername, holders, prune
from headstart.cache import Cache
from headstart.leases import ALONE, let_go, take
from headstart.names import Fqrn
from headstart.prune import Wish
from headstart.usage import Usage

FQRN = Fqrn("julia.example.org")
DAY = 86400


@pytest.fixture(params=disks.KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with disks.directory(request.param, tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def cache(place: Path) -> Cache:
    made = Cache(str(place / "cache"), FQRN, uid=os.geteuid())
    made.prepare(time.time())
    return made


def needs(name: str, julia: str = "1") -> tuple[str, ...]:
    return f"stacks/jets/{name}/images/x", f"stacks/jets/{name}", f"julia/{julia}"


def put(cache: Cache, name: str, julia: str = "1", size: int = 100_000) -> tuple[str, ...]:
    """An image with its release and its Julia, as a hydration leaves them."""
    units = needs(name, julia)
    for unit in reversed(units):
        if not cache.exists(unit):
            content = os.urandom(size)
            record = releases.record_of(content)
            with cache.workplace() as work:
                descriptor, path = work.part()
                os.write(descriptor, content)
                work.keep(descriptor, path, record, 5)
                os.close(descriptor)
                work.assemble(unit, {"file": (record, 5)}, {}, {}, "0" * 64)
    return units


def once_used(cache: Cache, name: str, age: float = 0, julia: str = "1") -> tuple[str, ...]:
    """An image that was started by a process that is over."""
    units = needs(name, julia)
    child = os.fork()
    if child == 0:
        try:
            assert Usage(cache, time.time()).begin(units)
            put(cache, name, julia)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    last = time.time() - age
    os.utime(used_file(cache, units), (last, last))
    return units


def used_file(cache: Cache, units: tuple[str, ...]) -> Path:
    return Path(cache.top, "used", units[0].replace("/", "_"))


def lease_of(cache: Cache, units: tuple[str, ...]) -> tuple[str, ...]:
    """What a start notes for the next one, on this kind of file system."""
    used = used_file(cache, units)
    return (str(used),) if cache.local else (str(used), str(Path(cache.top, "leases", used.name)))


@contextmanager
def running(cache: Cache, units: tuple[str, ...], code: str = "read line") -> Iterator[int]:
    """A process that took the lease and became a shell; its pid. It is ended, if it still runs."""
    said, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(say, 1)
            assert Usage(cache, time.time()).begin(units)
            os.execv("/bin/sh", ["sh", "-c", f"echo ready; {code}"])
        finally:
            os._exit(1)
    os.close(say)
    try:
        with open(said, "rb") as lines:
            assert lines.readline() == b"ready\n"
        yield child
    finally:
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def as_another_node(place: Path, patch: pytest.MonkeyPatch) -> Cache:
    """The cache as a node of another name, that was started another time, sees it from now on."""
    named = ("elsewhere", "00000000-0000-4000-8000-000000000000", "pid:[1]")
    for module in (holdername, holders):
        patch.setattr(module, "here", lambda: named)
    return Cache(str(place / "cache"), FQRN, uid=os.geteuid())


def pruned(cache: Cache, limit: int = 0) -> prune.Plan:
    return prune.apply(cache.directory, Wish(limit=limit), uid=os.geteuid(), now=time.time())


class TestDisk:
    def test_one_at_a_time(self, cache: Cache, place: Path) -> None:
        inside: list[int] = []
        most: list[int] = []

        def one() -> None:
            for _ in range(3):
                with cache.lock("unit"):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.002)
                    inside.pop()

        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1] * 12

    def test_a_lock_is_free_when_its_holder_was_killed(self, cache: Cache) -> None:
        child = os.fork()
        if child == 0:
            with cache.lock("unit"):
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        begun = time.monotonic()
        with cache.lock("unit"):
            assert time.monotonic() - begun < 5

    def test_what_a_program_runs_on_stays_until_it_ends(self, cache: Cache) -> None:
        used, other = once_used(cache, "a"), once_used(cache, "b")
        with running(cache, used, "exec sleep 600") as child:
            done = pruned(cache)
            assert all(cache.has(unit) for unit in used)
            assert not cache.exists(other[0])
            assert not cache.exists(other[1])
            assert (done.leased, done.enough) == (1, False)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            assert pruned(cache).leased == 0
        assert not any(cache.exists(unit) for unit in used)
        assert not any(Path(cache.top, "leases").iterdir())

    def test_what_a_program_has_started_holds_its_lease_too_where_locks_do(self, cache: Cache) -> None:
        if not cache.local:
            pytest.skip("a file names the process itself only")
        used = once_used(cache, "a")
        read, write = os.pipe()
        os.set_inheritable(read, True)
        with running(cache, used, f"head -n 1 </proc/self/fd/{read} >/dev/null & exit") as child:
            os.waitpid(child, 0)
            assert pruned(cache).leased == 1
        os.close(read)
        os.write(write, b"end\n")
        os.close(write)
        until = time.monotonic() + 10
        while pruned(cache).leased:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert not cache.exists(used[0])

    def test_who_may_only_read_a_cache_cannot_keep_others_from_starting(self, cache: Cache) -> None:
        if not cache.local:
            pytest.skip("there are no locks")
        lease = lease_of(cache, once_used(cache, "a"))
        reader = os.open(lease[0], os.O_RDONLY)
        fcntl.flock(reader, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="Bad file descriptor"):
            fcntl.fcntl(reader, fcntl.F_OFD_SETLK, ALONE)
        child = os.fork()
        if child == 0:
            os._exit(0 if take(lease, time.time()) is not None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        os.close(reader)

    def test_a_start_that_is_repeated_takes_its_lease_again_or_finds_nothing(self, cache: Cache) -> None:
        lease = lease_of(cache, once_used(cache, "a"))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                # Done once more after the image was taken out, it leaves no lease.
                if take(lease, time.time()) and pruned(cache).leased == 1:
                    os.rename(lease[0], lease[0] + ".gone")
                    before = os.listdir(Path(cache.top, "leases"))
                    code = 2 if take(lease, time.time()) and cache.local else 0
                    code = code or (0 if len(os.listdir(Path(cache.top, "leases"))) <= len(before) else 3)
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_starts_that_are_over_leave_no_leases_for_ever(self, cache: Cache) -> None:
        lease = lease_of(cache, once_used(cache, "a"))
        for _ in range(3):
            child = os.fork()
            if child == 0:
                os._exit(0 if take(lease, time.time()) is not None else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        left = set(os.listdir(Path(cache.top, "leases")))
        assert cache.local or len(left) >= 3
        os.utime(lease[0], (time.time() - 100,) * 2)
        held = take(lease, time.time())
        assert set(os.listdir(Path(cache.top, "leases"))) == ({os.path.basename(str(held))} if left else set())
        assert held is not None
        let_go(held)

    def test_longest_unused_goes_first_and_what_others_need_stays(self, cache: Cache) -> None:
        for age, name in ((300, "old"), (200, "middle"), (100, "new")):
            once_used(cache, name, age)
        whole = pruned(cache, 10**12).before
        done = pruned(cache, whole - 1)
        assert [departure.use.needs[0] for departure in done.departures] == [needs("old")[0]]
        assert done.departures[0].units == needs("old")[:2]
        assert done.after < whole
        assert cache.has("julia/1")
        assert cache.has(needs("middle")[0])
        pruned(cache)
        assert [path for path in Path(cache.root).rglob("*") if path.is_file()] == []
        assert [path for path in Path(cache.top, "files").rglob("*") if path.is_file()] == []

    def test_files_without_a_unit_stay_while_somebody_is_at_work(self, cache: Cache) -> None:
        units = once_used(cache, "a")
        with cache.workplace():
            pruned(cache)
            assert not cache.exists(units[0])
            assert [path for path in Path(cache.top, "files").rglob("*") if path.is_file()]
        pruned(cache)
        assert [path for path in Path(cache.top, "files").rglob("*") if path.is_file()] == []

    def test_starts_and_prunes_at_once_never_lose_what_runs(self, cache: Cache) -> None:
        """Every process that has its lease, and sees its image afterwards, sees it until it ends."""
        units = once_used(cache, "a")
        lease = lease_of(cache, units)
        children = []
        for number in range(12):
            child = os.fork()
            if child == 0:
                code = 3
                try:
                    if number % 3 == 0:
                        pruned(cache)
                        code = 0
                    elif take(lease, time.time()) and cache.has(units[0]):
                        time.sleep(0.3)
                        code = 0 if all(cache.has(unit) for unit in units) else 1
                    else:
                        code = 0
                finally:
                    os._exit(code)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 12

    def test_what_another_node_has_placed_is_seen_though_it_was_looked_for_in_vain_before(
        self, cache: Cache, place: Path
    ) -> None:
        elsewhere = Cache(str(disks.again(place) / "cache"), FQRN, uid=os.geteuid())
        units = needs("a")
        assert not any(elsewhere.has(unit) for unit in units)
        assert put(cache, "a") == units
        assert all(elsewhere.has(unit) for unit in units)

    def test_what_is_placed_where_other_nodes_see_it_is_on_the_server_and_good_for_their_boots(
        self, cache: Cache, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: set[int] = set()
        fsync = os.fsync

        def sync(descriptor: int) -> None:
            synced.add(os.fstat(descriptor).st_ino)
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", sync)
        units = put(cache, "a")
        monkeypatch.setattr(caches, "boot_id", lambda: "another")
        elsewhere = Cache(str(disks.again(place) / "cache"), FQRN, uid=os.geteuid())
        assert [elsewhere.has(unit) for unit in units] == [not cache.local] * 3
        parts = {os.stat(path).st_ino for unit in units for path in Path(cache.place(unit)).rglob("file")}
        assert synced & parts == (set() if cache.local else parts)

    def test_another_node_takes_out_nothing_that_runs_here_until_its_lease_is_two_weeks_old(
        self, cache: Cache, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if cache.local:
            pytest.skip("no other node sees it")
        used, other = once_used(cache, "a"), once_used(cache, "b")
        with running(cache, used, "exec sleep 600") as child:
            elsewhere = as_another_node(disks.again(place), monkeypatch)
            done = pruned(elsewhere)
            assert (done.leased, done.enough) == (1, False)
            assert all(cache.has(unit) for unit in used)
            assert not elsewhere.exists(other[0])
            assert not elsewhere.exists(other[1])
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            # From there nobody can tell.
            assert pruned(elsewhere).leased == 1
        (lease,) = Path(elsewhere.top, "leases").iterdir()
        for age, leased in ((14 * DAY - 3600, 1), (14 * DAY + 3600, 0)):
            then = time.time() - age
            os.utime(lease, (then, then))
            assert pruned(elsewhere).leased == leased
        assert not any(elsewhere.exists(unit) for unit in used)

    def test_a_job_that_is_over_here_is_let_go_here_at_once_and_then_everywhere(
        self, cache: Cache, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if cache.local:
            pytest.skip("no other node sees it")
        used = once_used(cache, "a")
        with monkeypatch.context() as there:
            assert pruned(as_another_node(disks.again(place), there)).leased == 1
        assert pruned(cache, 10**12).leased == 0
        assert pruned(as_another_node(disks.again(place), monkeypatch)).leased == 0
        assert not any(Path(cache.top, "leases").iterdir())
        assert not cache.exists(used[0])

    @pytest.mark.slow
    def test_killed_at_any_step_of_a_prune_nothing_wrong_is_left(self, cache: Cache) -> None:
        units, other = needs("a"), needs("b")
        number = 0
        for number in crashing.moments():
            units = once_used(cache, "a")
            other = once_used(cache, "b", age=50)
            if not crashing.killed_before_step(number, lambda: pruned(cache)):
                break
            for unit in (*units, *other):
                if cache.has(unit):
                    assert os.stat(os.path.join(cache.place(unit), "file")).st_size == 100_000
            # What was half taken out is no use to anybody, and goes with the next.
            assert pruned(cache).leased == 0
        assert not any(cache.exists(unit) for unit in (*units, *other))
        assert number > 5
