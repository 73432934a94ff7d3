"""The node's cache as jobs use it: many at once, killed, short of room, of users who distrust each other."""

import fcntl
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nodes
import publishing
import releases
from headstart.cli import main
from headstart.leases import SHARED
from headstart.names import ReleaseId
from nodes import FaultyServer, Node, Site, assert_refused

FQRN = str(nodes.FQRN)
OTHERS = (4321, 4322)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")

# Everything is imported first: this Python's own library may be closed to other users.
AS_USER = """
import os, sys, _signal, ctypes, sqlite3, warnings, http.client, encodings.idna, stringprep
import headstart.cli.run, headstart.cli.starting, headstart.cli.cache
from headstart.cli import main
uid = int(sys.argv.pop(1))
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
# As after an exec: else this process may not set up a user namespace.
ctypes.CDLL(None).prctl(4, 1)
os.chdir("/")
sys.exit(main())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A repository with two releases."""
    made = nodes.make_site(tmp_path_factory.mktemp("site"))
    stage = tmp_path_factory.mktemp("next") / "stage"
    publishing.write_stage(stage, lambda one: replace(one, id=ReleaseId("fedcba9876543210")))
    made.publish(stage, None)
    return made


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "node").mkdir()
    return Node(root=tmp_path / "node", env={"HEADSTART_QUIET": "1"})


@pytest.fixture
def server(site: Site) -> Iterator[FaultyServer]:
    with nodes.serving(site.storage) as running:
        yield running


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory for all users; the test's own directories are closed to them."""
    place = Path("/tmp") / f"headstart-test-{os.getpid()}-{random.randrange(1 << 30):08x}"
    place.mkdir()
    place.chmod(0o1777)
    yield place
    shutil.rmtree(place)


def words_of(site: Site, source: "str | Path", reference: str = "jets") -> tuple[str, ...]:
    return (sys.executable, "-m", "headstart", "run", str(source), reference, "--key", str(site.key), "--", "x")


def forked(words: tuple[str, ...], env: Mapping[str, str], out: Path) -> int:
    """A process that does what ``headstart`` does, without the time that Python takes to start; its pid."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.environ.clear()
            os.environ.update(env)
            descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            code = main(list(words[3:]))
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    return child


def started(done: "subprocess.CompletedProcess[bytes]") -> None:
    assert done.returncode == 0, done.stderr.decode()
    assert b"file image x86-64-v3" in done.stdout


def as_user(
    uid: int,
    site: Site,
    source: str,
    shared: Path,
    *,
    reference: str = "jets",
    env: Mapping[str, str] | None = None,
) -> "subprocess.CompletedProcess[bytes]":
    cpuinfo = shared / "cpuinfo"
    key = shared / "key.pub"
    if not key.exists():
        shutil.copy(site.key, key)
        cpuinfo.write_text(f"flags\t: {nodes.V3_FLAGS}\n")
        for place in (key, cpuinfo):
            place.chmod(0o644)
    return subprocess.run(
        [sys.executable, "-c", AS_USER, str(uid), "run", source, reference, "--key", key, "--", "x"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "HEADSTART_CACHE": str(shared),
            "HEADSTART_CPUINFO": str(cpuinfo),
            "HEADSTART_QUIET": "1",
            **(env or {}),
        },
        capture_output=True,
        check=False,
        timeout=120,
    )


def chunks_asked(server: FaultyServer) -> Counter[str]:
    return Counter(path for path in server.asked if path.startswith("data/") and path.endswith("P"))


@pytest.mark.slow
def test_many_starts_on_an_empty_cache_download_once(
    site: Site, node: Node, server: FaultyServer, tmp_path: Path
) -> None:
    outs = [tmp_path / f"out{number}" for number in range(50)]
    children = [forked(words_of(site, server.url), node.environment(), out) for out in outs]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * 50, [out.read_text() for out in outs]
    assert all(b"file image x86-64-v3" in out.read_bytes() for out in outs)
    objects = Counter(path for path in server.asked if path.startswith("data/") and path[-1] not in "CXH")
    assert {count for path, count in chunks_asked(server).items()} == {1}
    # Whoever comes before it is there reads the records, to know what to ask for; everything else comes once.
    assert len([path for path, count in objects.items() if count > 1]) <= 4


NO_LOCKS = """
#include <errno.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>
int flock(int file, int how) { (void)file; (void)how; errno = ENOLCK; return -1; }
int fcntl64(int file, int what, ...)
{
    va_list rest;
    va_start(rest, what);
    long value = va_arg(rest, long);
    va_end(rest);
    if (what == 37 || what == 38) { errno = ENOLCK; return -1; }
    return syscall(SYS_fcntl, file, what, value);
}
int fcntl(int file, int what, ...) __attribute__((alias("fcntl64")));
"""


@pytest.mark.slow
def test_where_locks_are_refused_it_is_the_same(
    site: Site, node: Node, server: FaultyServer, tmp_path: Path
) -> None:
    """A library in front of the system's refuses all locks, as a network file system without locks does."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    (tmp_path / "no.c").write_text(NO_LOCKS)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "no.so", tmp_path / "no.c"], check=True)
    env = {**node.environment(), "LD_PRELOAD": str(tmp_path / "no.so")}
    running = [
        subprocess.Popen(words_of(site, server.url), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    for one in running:
        out, err = one.communicate(timeout=300)
        assert one.returncode == 0, err.decode()
        assert b"file image x86-64-v3" in out
    assert {count for path, count in chunks_asked(server).items()} == {1}
    job = subprocess.Popen(
        words_of(site, server.url),
        env={**env, "FAKE_JULIA": "exec sleep 600"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        leases = node.cache / FQRN / "leases"
        until = time.monotonic() + 60
        while not leases.exists() or not any(f",{job.pid}," in place.name for place in leases.iterdir()):
            assert time.monotonic() < until
            time.sleep(0.05)
        said = json.loads(node.headstart("cache", "prune", "--all", "--json").stdout)
        assert (said["in_use"], said["removed"]) == (1, [])
    finally:
        job.kill()
        job.wait()
    assert len(json.loads(node.headstart("cache", "prune", "--all", "--json").stdout)["removed"]) == 3


@pytest.mark.slow
def test_killed_at_random_moments_nothing_is_ever_wrong(
    site: Site, node: Node, server: FaultyServer, tmp_path: Path
) -> None:
    chance = random.Random(5)

    def slowly(path: str, content: bytes) -> bytes:
        if path.endswith("P"):
            time.sleep(0.05)
        return content

    server.fault = slowly
    killed = 0
    for number in range(60):
        place = node.cache / FQRN
        if number % 3 == 0:
            shutil.rmtree(place, ignore_errors=True)
        child = forked(words_of(site, server.url), node.environment(), tmp_path / "out")
        # Once it works on the cache: what comes before is no business of the cache's.
        while not (place / "work").exists() and not os.waitid(
            os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            time.sleep(0.002)
        time.sleep(chance.random() * 0.4)
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        if killed == 15:
            break
    assert killed >= 8
    started(node.run(server.url, site))
    assert node.headstart("cache", "verify").returncode == 0
    # What a process that was killed while it cleared up has left, stays for a minute.
    left = list((node.cache / FQRN / "work").iterdir())
    assert [path for path in left if (path / ".lock").exists()] == []


def publish_next(own: nodes.Site, stage: Path) -> None:
    """Another release of the stack, which its channel points at from now on."""
    publishing.write_stage(
        stage,
        lambda made: replace(made, id=type(made.id)("fedcba9876543210")),
        extra={"depot/large": releases.image_content("another", 50_000)},
    )
    own.publish(stage)


def test_the_next_release_takes_the_place_of_the_one_that_was_started_before(
    node: Node, tmp_path: Path
) -> None:
    own = nodes.make_site(tmp_path / "own", image_size=50_000)
    started(node.run(own.storage, own))
    publish_next(own, tmp_path / "next")
    env = {"HEADSTART_CACHE_QUOTA": "100 kB", "HEADSTART_QUIET": ""}
    started(node.run(own.storage, own, env=env))
    (repository,) = json.loads(node.headstart("cache", "status", "--json").stdout)["repositories"]
    assert [one["unit"].split("/")[2] for one in repository["images"]] == ["fedcba9876543210"]


def test_a_channel_that_moved_behind_a_server_lets_the_old_release_go(node: Node, tmp_path: Path) -> None:
    own = nodes.make_site(tmp_path / "own", image_size=50_000)
    with nodes.serving(own.storage) as server:
        started(node.run(server.url, own))
        publish_next(own, tmp_path / "next")
        # Not before the server is to be asked again the channel is seen to have moved.
        (record,) = (node.cache / "launches").iterdir()
        fields = record.read_bytes().split(b"\0")
        fields[2] = fields[1]
        record.write_bytes(b"\0".join(fields))
        job = subprocess.Popen(
            words_of(own, server.url),
            env={**node.environment(), "FAKE_JULIA": "echo running; exec sleep 600"},
            stdout=subprocess.PIPE,
        )
        assert job.stdout is not None
        with job.stdout:
            while job.stdout.readline() not in (b"running\n", b""):
                pass
        images = json.loads(node.headstart("cache", "status", "--json").stdout)["repositories"][0]["images"]
        job.kill()
        job.wait()
    in_use = {one["unit"].split("/")[2]: one["in_use"] for one in images}
    assert in_use == {"0123456789abcdef": False, "fedcba9876543210": True}


@pytest.mark.slow
def test_a_quota_makes_room_but_not_under_a_running_job(site: Site, node: Node) -> None:
    job = subprocess.Popen(
        words_of(site, site.storage),
        env={**node.environment(), "FAKE_JULIA": "echo running; exec sleep 600"},
        stdout=subprocess.PIPE,
    )
    assert job.stdout is not None
    try:
        assert job.stdout.readline() == b"running\n"
        env = {"HEADSTART_CACHE_QUOTA": "100 kB", "HEADSTART_QUIET": ""}
        # Too small for both: what runs stays, and the other start goes on all the same.
        done = node.run(site.storage, site, reference="jets@fedcba9876543210", env=env)
        started(done)
        assert b"more than its quota of 0.1 MB: the rest is in use" in done.stderr
        status = json.loads(node.headstart("cache", "status", "--json", env=env).stdout)
        (repository,) = status["repositories"]
        assert status["quota"] == 100_000
        assert [(one["unit"].split("/")[2], one["in_use"]) for one in repository["images"]] == [
            ("0123456789abcdef", True),
            ("fedcba9876543210", False),
        ]
        text = node.headstart("cache", "status", env=env).stdout.decode()
        assert "a quota of 100.0 kB" in text
        assert "in use now" in text
        done = node.headstart("cache", "prune", env=env)
        assert done.returncode == 0
        assert b"fedcba9876543210/images/x86-64-v3  gone\n" in done.stdout
        assert b"0123456789abcdef" not in done.stdout
        assert b"in use and stays" in done.stderr
    finally:
        job.kill()
        job.wait()
        job.stdout.close()
    started(node.run(site.storage, site, env=env))
    started(node.run(site.storage, site, reference="jets@fedcba9876543210", env=env))
    # Now the first one had to go.
    images = node.cache / FQRN / "root/stacks/jets"
    assert [path.name for path in images.iterdir()] == ["fedcba9876543210"]
    started(node.run(site.storage, site))


def test_what_is_damaged_is_found_and_fetched_anew(site: Site, node: Node) -> None:
    started(node.run(site.storage, site))
    root = node.cache / FQRN / "root"
    image = next(root.rglob("images/x86-64-v3/sys.so"))
    image.chmod(0o644)
    with open(image, "r+b") as file:
        file.seek(1000)
        file.write(b"!")
    done = node.headstart("cache", "verify")
    assert done.returncode == 26
    assert b"sys.so has another SHA-256" in done.stdout
    assert b"1 thing that is not what" in done.stderr
    said = json.loads(node.headstart("cache", "verify", "--repair", "--json").stdout)
    assert [one["unit"] for one in said["complaints"]] == ["stacks/jets/0123456789abcdef/images/x86-64-v3"]
    assert node.headstart("cache", "verify").returncode == 0
    assert image.exists()
    started(node.run(site.storage, site))
    assert node.headstart("cache", "verify").returncode == 0


def test_a_directory_among_the_notes_is_passed_over(site: Site, node: Node) -> None:
    started(node.run(site.storage, site))
    (node.cache / FQRN / "used" / "somebodys").mkdir()
    (node.cache / FQRN / "leases" / "somebodys").mkdir()
    said = json.loads(node.headstart("cache", "status", "--json").stdout)
    assert [one["unit"] for one in said["repositories"][0]["images"]] == [
        "stacks/jets/0123456789abcdef/images/x86-64-v3"
    ]
    assert node.headstart("cache", "prune", "--all").returncode == 0
    started(node.run(site.storage, site))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("status", "--cache", "/no/such"), 22, "there is no cache in /no/such"),
        (("prune",), 10, "no quota is set"),
        (("prune", "--quota", "much"), 10, "is no size"),
        (("prune", "--unused-for", "-1"), 10, "is no number of days"),
        (("prune", "--unused-for", "x"), 2, "--unused-for"),
        (("scrub",), 2, "'headstart cache --help'"),
    ],
)
def test_wrong_words_are_one_sentence(node: Node, words: tuple[str, ...], code: int, said: str) -> None:
    node.cache.mkdir(exist_ok=True)
    assert_refused(node.headstart("cache", *words), code, said)


@pytest.mark.parametrize("words", [("cache", "status"), ("doctor",)])
def test_a_working_directory_that_is_gone(node: Node, tmp_path: Path, words: tuple[str, ...]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = "import os, sys; from headstart.cli import main; os.rmdir(os.getcwd()); sys.exit(main())"
    done = subprocess.run(
        (sys.executable, "-c", code, *words, "--cache", "here"),
        env=node.environment(), capture_output=True, check=False, cwd=gone,
    )  # fmt: skip
    assert_refused(done, 10, "the working directory is not there any more")


def test_a_quota_that_is_no_size_is_refused_before_anything_is_fetched(site: Site, node: Node) -> None:
    assert_refused(
        node.run(site.storage, site, env={"HEADSTART_CACHE_QUOTA": "-5"}), 10, "HEADSTART_CACHE_QUOTA"
    )
    assert node.files() == set()
    assert not node.cache.exists()


@needs_root
def test_a_second_user_copies_what_the_first_has_fetched(
    site: Site, server: FaultyServer, shared: Path
) -> None:
    first, second = OTHERS
    started(as_user(first, site, server.url, shared))
    assert chunks_asked(server)
    server.asked.clear()
    started(as_user(second, site, server.url, shared))
    assert not chunks_asked(server)
    for uid in OTHERS:
        part = shared / str(uid)
        assert {path.lstat().st_uid for path in (part, *part.rglob("*"))} == {uid}
        assert not [
            path for path in (part, *part.rglob("*")) if not path.is_symlink() and path.stat().st_mode & 0o022
        ]
    # Nothing of the one is a file of the other: its owner could change it later.
    inodes = [
        {path.stat().st_ino for path in (shared / str(uid)).rglob("*") if path.is_file()} for uid in OTHERS
    ]
    assert not inodes[0] & inodes[1]


@needs_root
def test_a_hostile_user_can_only_be_of_no_use(site: Site, server: FaultyServer, shared: Path) -> None:
    hostile, victim = OTHERS
    started(as_user(hostile, site, server.url, shared))
    store = sorted(
        (path for path in (shared / str(hostile) / FQRN / "files").rglob("*") if path.is_file()), key=str
    )
    secret = shared / "secret"
    secret.write_text("not for everybody")
    for number, path in enumerate(store):
        size = path.stat().st_size
        path.unlink()
        kind = number % 5
        if kind == 0:
            path.write_bytes(os.urandom(size))
        elif kind == 1:
            path.symlink_to(secret)
        elif kind == 2:
            os.mkfifo(path)
        elif kind == 3:
            path.mkdir()
        else:
            os.mknod(path, stat.S_IFREG | 0o644)
            os.truncate(path, 1 << 40)
    (shared / str(hostile) / FQRN / "busy").mkdir(exist_ok=True)
    server.asked.clear()
    started(as_user(victim, site, server.url, shared))
    assert chunks_asked(server)
    for path in (shared / str(victim)).rglob("*"):
        if path.parent.parent.name == "files":
            digest = subprocess.run(["sha256sum", path], capture_output=True, check=True).stdout[:64].decode()
            assert path.name.startswith(digest)


@needs_root
@pytest.mark.parametrize("trap", ["directory", "link", "link to his own"])
def test_a_name_that_somebody_else_took_is_refused(
    site: Site, server: FaultyServer, shared: Path, trap: str
) -> None:
    hostile, victim = OTHERS
    own = shared / "elsewhere"
    own.mkdir()
    os.chown(own, victim, victim)
    place = shared / str(victim)
    if trap == "directory":
        place.mkdir()
        os.chown(place, hostile, hostile)
    else:
        place.symlink_to(own if trap == "link to his own" else "/etc")
        os.chown(place, hostile, hostile, follow_symlinks=False)
    assert_refused(as_user(victim, site, server.url, shared), 22, str(place))
    assert list(own.iterdir()) == []


@needs_root
def test_a_shared_directory_of_another_user_is_refused(site: Site, server: FaultyServer, shared: Path) -> None:
    os.chown(shared, OTHERS[0], OTHERS[0])
    assert_refused(as_user(OTHERS[1], site, server.url, shared), 22, "belongs to user 4321")


@needs_root
@pytest.mark.slow
def test_two_users_at_once_download_once(site: Site, server: FaultyServer, shared: Path) -> None:
    def slowly(path: str, content: bytes) -> bytes:
        if path.endswith("P"):
            time.sleep(0.1)
        return content

    server.fault = slowly
    as_user(4323, site, server.url, shared, reference="none")
    children = []
    for uid in OTHERS:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                started(as_user(uid, site, server.url, shared))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert {count for path, count in chunks_asked(server).items()} == {1}


@pytest.mark.slow
@needs_root
def test_roots_cache_serves_all_and_their_jobs_hold_it(site: Site, server: FaultyServer, shared: Path) -> None:
    """An administrator fills a cache that nobody else may write; jobs of others still keep what they run on."""
    cache = shared / "roots"
    cache.mkdir(mode=0o755)
    shared.chmod(0o755)
    env = {"HEADSTART_CACHE": str(cache)}
    started(as_user(0, site, server.url, shared, env=env))
    server.asked.clear()
    held = {**env, "FAKE_JULIA": f"touch {cache}/not-mine 2>/dev/null || exec sleep 5"}
    child = os.fork()
    if child == 0:
        try:
            as_user(OTHERS[0], site, server.url, shared, env=held)
        finally:
            os._exit(0)
    node = Node(root=shared, env=env)
    until = time.monotonic() + 60
    while not json.loads(node.headstart("cache", "status", "--json").stdout)["repositories"][0]["images"][0][
        "in_use"
    ]:
        assert time.monotonic() < until
    assert json.loads(node.headstart("cache", "prune", "--all", "--json").stdout)["removed"] == []
    os.waitpid(child, 0)
    assert not chunks_asked(server)
    assert len(json.loads(node.headstart("cache", "prune", "--all", "--json").stdout)["removed"]) == 3


@needs_root
def test_what_root_fills_below_a_closed_umask_is_open_to_all(
    site: Site, server: FaultyServer, shared: Path
) -> None:
    shared.chmod(0o755)
    env = {"HEADSTART_CACHE": str(shared / "site" / "cache")}
    before = os.umask(0o077)
    try:
        started(as_user(0, site, server.url, shared, env=env))
    finally:
        os.umask(before)
    server.asked.clear()
    started(as_user(OTHERS[0], site, server.url, shared, env=env))
    assert not chunks_asked(server)
    work = shared / "site" / "cache" / FQRN / "work"
    for place in (shared / "site").rglob("*"):
        if place.is_dir() and place != work:
            assert place.stat().st_mode & 0o777 == 0o755, place


@needs_root
def test_a_user_sees_what_is_in_roots_cache(site: Site, server: FaultyServer, shared: Path) -> None:
    shared.chmod(0o755)
    env = {"HEADSTART_CACHE": str(shared / "cache")}
    started(as_user(0, site, server.url, shared, env=env))

    def status() -> dict[str, Any]:
        words = [sys.executable, "-c", AS_USER, str(OTHERS[0]), "cache", "status", "--json"]
        done = subprocess.run(words, env={**os.environ, **env}, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        (repository,) = json.loads(done.stdout)["repositories"]
        (image,) = repository["images"]
        return dict(image)

    assert (status()["here"], status()["in_use"]) == (True, False)
    used = next((shared / "cache" / FQRN / "used").iterdir())
    with open(used, "rb") as held:
        fcntl.fcntl(held, fcntl.F_OFD_SETLK, SHARED)
        assert status()["in_use"]


# A program that is small itself: a child counts what its parent had in memory when it was made.
PEAK = """
import os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], dict(os.environ))
_, status, used = os.wait4(child, 0)
sys.stderr.write(f"peak {used.ru_maxrss}\\n")
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.slow
def test_what_the_launcher_has_in_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    """It is some pieces of objects at a time; how large the objects are, ``test_hydrate_memory`` looks at."""
    big = nodes.make_site(tmp_path / "big", image_size=40_000_000)
    node = Node(root=tmp_path / "node")
    node.root.mkdir()
    with nodes.serving(big.storage) as server:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", PEAK, *words_of(big, server.url)],
            env=node.environment(),
            capture_output=True,
            check=False,
        )
    started(done)
    assert int(done.stderr.split()[-1]) * 1024 <= 40_000_000
