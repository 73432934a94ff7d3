"""``headstart run`` from end to end: a published repository, a real server, a real namespace, a fake Julia."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import nodes
import publishing
import releases
from headstart.repository import Channel
from nodes import FaultyServer, Node, Site, assert_refused, needs_namespace, without_namespaces

MOUNTPOINT = f"/cvmfs/{nodes.FQRN}"
HOME = f"{MOUNTPOINT}/stacks/jets/0123456789abcdef"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return nodes.make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def own_site(tmp_path: Path) -> Site:
    """A repository that the test may change."""
    return nodes.make_site(tmp_path / "own site", image_size=50_000)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "node").mkdir()
    return Node(root=tmp_path / "node")


@pytest.fixture
def server(site: Site) -> Iterator[FaultyServer]:
    with nodes.serving(site.storage) as running:
        yield running


def assert_started(done: "subprocess.CompletedProcess[bytes]", target: str = "x86-64-v3") -> None:
    assert done.returncode == 0, done.stderr.decode()
    arguments, _, rest = releases.parse_fake_output(done.stdout)
    assert arguments[1].endswith(f"/images/{target}/sys.so")
    assert rest["file"] == f"image {target}"


@needs_namespace
def test_cold_warm_and_repeated_launches_are_the_same(site: Site, node: Node, server: FaultyServer) -> None:
    hostile = {"JULIA_LOAD_PATH": "/bad", "LD_LIBRARY_PATH": "/bad", "JULIA_NUM_THREADS": "2", "OTHER": "kept"}
    arguments = ["-e", "a  b", "", "--", "--key", "é"]
    outputs = []
    for extra in ((), (), ("--refresh",)):
        done = node.headstart(
            "run", server.url, "jets", "--key", site.key, *extra, "--", *arguments, env=hostile
        )
        assert_started(done)
        outputs.append(done.stdout)
        assert b"headstart: jets 0123456789abcdef (prod): image x86-64-v3\n" in done.stderr
    assert outputs[0] == outputs[1] == outputs[2]
    words, environment, rest = releases.parse_fake_output(outputs[0])
    assert words == [
        "-J",
        f"{HOME}/images/x86-64-v3/sys.so",
        "--startup-file=no",
        "--history-file=no",
        *arguments,
    ]
    julia = f"{MOUNTPOINT}/julia/{site.release.julia}"
    assert environment["JULIA_DEPOT_PATH"] == f"/dev/null:{HOME}/depot:{julia}/share/julia"
    assert environment["JULIA_PROJECT"] == f"{HOME}/project"
    assert environment["JULIA_LOAD_PATH"] == "@:@stdlib"
    assert environment["LD_LIBRARY_PATH"] == f"{julia}/lib:{julia}/lib/julia"
    assert (environment["JULIA_NUM_THREADS"], environment["OTHER"]) == ("2", "kept")
    assert rest["cwd"] == str(node.root)


@needs_namespace
def test_run_and_the_releases_own_script_start_the_same(site: Site, node: Node) -> None:
    """Seen at its path, ``bin/julia`` gives Julia the words and the environment that ``run`` gives."""
    done = node.run(site.storage, site, "x")
    tree = node.cache / str(nodes.FQRN) / "root"
    program = f"{tree}/stacks/jets/0123456789abcdef/bin/julia"
    inside = (
        "import sys; sys.path.insert(0, sys.argv[1]); from headstart.namespace import Bind, enter; import os;"
        f"enter((Bind({str(tree)!r}, {MOUNTPOINT!r}, False),));"
        f"os.execv({HOME + '/bin/julia'!r}, ['julia', 'x'])"
    )
    assert os.path.exists(program)
    source = str(Path(nodes.__file__).parent.parent / "src")
    script = subprocess.run(
        [sys.executable, "-c", inside, source],
        env=node.environment(),
        cwd=node.root,
        capture_output=True,
        check=False,
    )
    ours = releases.parse_fake_output(done.stdout)
    theirs = releases.parse_fake_output(script.stdout)
    assert ours[0] == theirs[0], script.stderr
    added = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert {k: v for k, v in ours[1].items() if k not in added} == {
        k: v for k, v in theirs[1].items() if k not in added
    }
    assert script.stderr == b"headstart: jets 0123456789abcdef: image x86-64-v3\n"


def test_a_server_is_not_asked_again_within_the_time_to_live(
    site: Site, node: Node, server: FaultyServer
) -> None:
    assert_started(node.run(server.url, site))
    assert any(path.endswith("P") for path in server.asked)
    server.asked.clear()
    assert_started(node.run(server.url, site))
    assert server.asked == []
    assert_started(node.headstart("run", server.url, "jets", "--key", site.key, "--refresh", "--", "x"))
    assert ".cvmfspublished" in server.asked
    assert not any(path.endswith("P") for path in server.asked)


def test_only_what_one_image_needs_is_fetched(site: Site, node: Node, server: FaultyServer) -> None:
    node.flags(nodes.V1_FLAGS)
    done = node.run(server.url, site)
    assert_started(done, "x86-64")
    assert b"x86-64-v3 needs abm avx" in done.stderr
    names = {path.name for path in node.files()}
    assert len([name for name in names if name == "sys.so"]) == 1
    images = node.cache / str(nodes.FQRN) / "root/stacks/jets/0123456789abcdef/images"
    assert os.listdir(images) == ["x86-64"]


def test_a_cpu_change_is_noticed_by_the_repeated_launch(site: Site, node: Node) -> None:
    assert_started(node.run(site.storage, site))
    node.flags(nodes.V1_FLAGS)
    assert_started(node.run(site.storage, site), "x86-64")
    node.flags("fpu")
    assert_refused(node.run(site.storage, site), 13, "x86-64 needs cmov")


def test_an_override_is_checked(site: Site, node: Node) -> None:
    done = node.run(site.storage, site, env={"HEADSTART_TARGET": "x86-64"})
    assert_started(done, "x86-64")
    assert b"as HEADSTART_TARGET asks" in done.stderr
    assert_refused(
        node.run(site.storage, site, env={"HEADSTART_TARGET": "zen4"}), 10, "'zen4'", "it has x86-64 x86-64-v3"
    )
    node.flags(nodes.V1_FLAGS)
    assert_refused(
        node.run(site.storage, site, env={"HEADSTART_TARGET": "x86-64-v3"}), 13, "x86-64-v3 needs abm"
    )


def test_quiet_is_quiet(site: Site, node: Node) -> None:
    for _ in range(2):
        assert node.run(site.storage, site, env={"HEADSTART_QUIET": "1"}).stderr == b""


@pytest.mark.parametrize(
    ("reference", "code", "words"),
    [
        ("jest", 20, ("no stack jest", "jets")),
        ("jets@test", 20, ("no channel test", "prod")),
        ("jets@deadbeef", 20, ("no release deadbeef", "0123456789abcdef")),
        ("jets@sha256:" + "0" * 64, 20, ("no release",)),
        ("JETS", 10, ("'JETS'",)),
        ("jets@", 10, ()),
    ],
)
def test_what_is_not_there_is_named_with_what_is(
    site: Site, node: Node, reference: str, code: int, words: tuple[str, ...]
) -> None:
    assert_refused(node.run(site.storage, site, reference=reference), code, *words)


def test_a_release_can_be_named_by_digest_and_id(site: Site, node: Node) -> None:
    listed = json.loads(node.headstart("list", site.storage, "--key", site.key, "--json").stdout)
    digest = listed["stacks"][0]["releases"][0]["digest"]
    for reference in (f"jets@sha256:{digest}", f"jets@{digest[:8]}", "jets@0123456789abcdef", "jets@prod"):
        assert_started(node.run(site.storage, site, reference=reference))


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("/no/such/place", 16),
        (".", 16),
        ("ftp://x/cvmfs/y", 10),
        ("http://127.0.0.1:1/cvmfs/julia.example.org", 21),
    ],
)
def test_a_source_that_is_none_is_refused(site: Site, node: Node, source: str, code: int) -> None:
    assert_refused(node.run(source, site), code)
    assert not (node.cache / str(nodes.FQRN) / "root").exists()


def test_another_key_and_another_name_are_refused(site: Site, node: Node, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pub"
    numbers = rsa.generate_private_key(65537, 2048).public_key()
    wrong.write_bytes(numbers.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert_refused(node.headstart("run", site.storage, "jets", "--key", wrong, "--", "x"), 17, "signature")
    assert_refused(node.headstart("run", site.storage, "jets", "--key", tmp_path / "none", "--", "x"), 15)
    assert_refused(node.headstart("run", site.storage, "jets", "--", "x"), 15, "--key")
    named = node.headstart(
        "run", site.storage, "jets", "--key", site.key, "--fqrn", "other.example.org", "--", "x"
    )
    assert_refused(named, 17, "other.example.org")


def test_words_that_are_wrong_are_one_sentence_that_names_the_help(site: Site, node: Node) -> None:
    few = ((), (site.storage,))
    for words in (*few, (site.storage, "jets", "x"), (site.storage, "jets", "--nope"), ("", "jets")):
        assert_refused(node.headstart("run", *words), 2, "'headstart run --help'")
    assert b"--refresh" in node.headstart("run", "--help").stdout


def test_a_new_release_is_seen_at_once_in_a_directory(own_site: Site, node: Node, tmp_path: Path) -> None:
    assert_started(node.run(own_site.storage, own_site))
    publishing.write_stage(
        tmp_path / "next",
        lambda made: replace(made, id=type(made.id)("fedcba9876543210"), inputs={"recipe": "2"}),
    )
    own_site.publish(tmp_path / "next")
    done = node.run(own_site.storage, own_site)
    assert b"jets fedcba9876543210 (prod)" in done.stderr
    old = node.run(own_site.storage, own_site, reference="jets@0123456789abcdef")
    assert b"jets 0123456789abcdef: image" in old.stderr


def test_an_older_state_is_refused_by_a_node_that_has_seen_a_newer_one(
    own_site: Site, node: Node, tmp_path: Path
) -> None:
    shutil.copytree(own_site.storage, tmp_path / "yesterday")
    publishing.write_stage(tmp_path / "next", lambda made: replace(made, id=type(made.id)("fedcba9876543210")))
    own_site.publish(tmp_path / "next")
    assert_started(node.run(own_site.storage, own_site))
    assert_refused(node.run(tmp_path / "yesterday", own_site), 17, "has already seen 3")
    # A node that has seen nothing believes it: it is signed and not expired.
    assert_started(
        Node(root=tmp_path / "node", env={"HEADSTART_CACHE": str(tmp_path / "fresh")}).run(
            tmp_path / "yesterday", own_site
        )
    )


def test_an_expired_pointer_is_refused_and_a_digest_still_works(
    own_site: Site, node: Node, tmp_path: Path
) -> None:
    publishing.write_stage(tmp_path / "next", lambda made: replace(made, id=type(made.id)("fedcba9876543210")))
    own_site.publish(tmp_path / "next", Channel(name=publishing.PROD.name, valid=timedelta(seconds=1)))
    time.sleep(1.5)
    assert_refused(node.run(own_site.storage, own_site), 17, "expired")
    assert_started(node.run(own_site.storage, own_site, reference="jets@fedcba9876543210"))


def test_a_record_is_not_used_beyond_what_was_signed(own_site: Site, node: Node, tmp_path: Path) -> None:
    publishing.write_stage(tmp_path / "next", lambda made: replace(made, id=type(made.id)("fedcba9876543210")))
    own_site.publish(tmp_path / "next", Channel(name=publishing.PROD.name, valid=timedelta(seconds=3)))
    assert_started(node.run(own_site.storage, own_site))
    time.sleep(3.2)
    assert_refused(node.run(own_site.storage, own_site), 17, "expired")


def test_a_silent_server_is_no_reason_to_stop_while_the_signatures_last(site: Site, node: Node) -> None:
    with nodes.serving(site.storage) as server:
        assert_started(node.run(server.url, site))
    done = node.headstart("run", server.url, "jets", "--key", site.key, "--refresh", "--", "x")
    assert_started(done)
    assert b"going on with what was verified before, signed until" in done.stderr
    # Nothing is known about another question.
    assert_refused(node.run(server.url, site, reference="jets@0123456789abcdef"), 21)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(os.urandom(3000)),
        lambda path: path.write_bytes(path.read_bytes().replace(b"headstart shortcut", b"headstart shortcat")),
        lambda path: path.chmod(0o666),
        lambda path: path.unlink(),
        lambda path: path.parent.chmod(0o777),
    ],
)
def test_a_spoilt_record_is_not_used(site: Site, node: Node, spoil: Callable[[Path], object]) -> None:
    assert_started(node.run(site.storage, site))
    (record,) = (node.cache / "launches").iterdir()
    # A record that would start something else, if it were believed.
    evil = record.read_bytes().replace(b"/bin/julia\0", b"/bin/evil!\0")
    record.write_bytes(evil)
    spoil(record)
    assert_started(node.run(site.storage, site))


def test_a_changed_key_file_is_another_question(site: Site, node: Node, tmp_path: Path) -> None:
    key = tmp_path / "key.pub"
    shutil.copy(site.key, key)
    words = ("run", site.storage, "jets", "--key", key, "--", "x")
    assert_started(node.headstart(*words))
    key.write_text("nonsense")
    assert_refused(node.headstart(*words), 15)


def test_a_cache_that_others_may_write_is_not_used(site: Site, node: Node) -> None:
    node.cache.mkdir()
    node.cache.chmod(0o777)
    assert_refused(node.run(site.storage, site), 22, "may be written by others", "chmod go-w")
    node.cache.chmod(0o755)
    assert_started(node.run(site.storage, site))
    node.cache.chmod(0o775)
    assert_refused(node.run(site.storage, site), 22)


# Everything is imported first: this Python's own library may be closed to other users.
AS_NOBODY = """
import os, sys, _signal, ctypes, sqlite3, warnings
import headstart.cli.run, headstart.cli.starting
from headstart.cli import main
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a program as another user")
def test_a_cache_that_cannot_be_written_is_one_sentence(own_site: Site, node: Node, tmp_path: Path) -> None:
    """As a user who may read everything and write nothing."""
    for path in (tmp_path, *tmp_path.parents, own_site.key.parent, own_site.key.parent.parent):
        if str(path).startswith(str(tmp_path.parent.parent)):
            path.chmod(0o755)
    (tmp_path / "closed").mkdir(mode=0o755)
    words = ("run", str(own_site.storage), "jets", "--key", str(own_site.key), "--", "x")
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *words],
        env={**node.environment(), "HEADSTART_CACHE": str(tmp_path / "closed" / "cache")},
        capture_output=True,
        check=False,
        cwd="/",
    )
    assert_refused(done, 22, "cannot be written", "--cache")
    assert os.listdir(tmp_path / "closed") == []


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_one_sentence_and_what_was_complete_is_kept(
    site: Site, node: Node, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k,mode=755", "tmpfs", small], check=False
    ).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        env = {"HEADSTART_CACHE": str(small / "cache")}
        assert_refused(node.run(site.storage, site, env=env), 22, "No space left", "make room")
        work = small / "cache" / str(nodes.FQRN) / "work"
        assert list(work.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=20m", small], check=True)
        assert_started(node.run(site.storage, site, env=env))
    finally:
        subprocess.run(["umount", "-l", small], check=False)


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again(site: Site, node: Node, server: FaultyServer) -> None:
    chance = random.Random(20261122)

    def slowly(_path: str, content: bytes) -> bytes:
        time.sleep(0.1)
        return content

    server.fault = slowly
    words = (sys.executable, "-m", "headstart", "run", server.url, "jets", "--key", site.key, "--", "x")
    killed = 0
    for _ in range(14):
        running = subprocess.Popen(
            words, env=node.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            running.wait(0.2 + chance.random() * 1.2)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            killed += 1
        running.communicate()
        work = node.cache / str(nodes.FQRN) / "work"
        assert not work.exists() or len(list(work.iterdir())) <= 1
    assert killed >= 3
    assert_started(node.run(server.url, site))
    assert_started(node.headstart("run", server.url, "jets", "--key", site.key, "--refresh", "--", "x"))
    assert list((node.cache / str(nodes.FQRN) / "work").iterdir()) == []


def _cut(_path: str, content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flip(_path: str, content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


FAULTS: Mapping[str, tuple[nodes.Fault, int]] = {
    "cut": (_cut, 18),
    "flipped": (_flip, 18),
    "html": (lambda _path, _content: b"<html><body>Please log in</body></html>", 18),
    "gone": (lambda _path, _content: 404, 19),
    "error": (lambda _path, _content: 502, 21),
    "redirect": (lambda _path, _content: 302, 21),
    "endless": (lambda _path, content: content + bytes(50_000_000), 18),
    "empty": (lambda _path, _content: b"", 18),
}


@pytest.mark.parametrize(
    "victim", ["chunk", "file", "catalog", "certificate", ".cvmfspublished", ".cvmfswhitelist"]
)
@pytest.mark.parametrize("name", FAULTS)
def test_a_lying_server_is_never_believed(
    site: Site, node: Node, server: FaultyServer, name: str, victim: str
) -> None:
    fault, code = FAULTS[name]
    ends = {"chunk": ("P",), "catalog": ("C",), "certificate": ("X",), "file": tuple("0123456789abcdef")}

    def here(path: str, content: bytes) -> bytes | int | None:
        hit = path == victim or (path.startswith("data/") and victim in ends and path.endswith(ends[victim]))
        return fault(path, content) if hit else content

    server.fault = here
    done = node.run(server.url, site)
    if victim.startswith(".") and name == "gone":
        code = 16
    if victim == ".cvmfswhitelist" and name in ("cut", "flipped"):
        # Its signature is what suffers first.
        code = 17
    assert_refused(done, code)
    assert done.stderr.count(b"\n") <= 2
    placed = {path for path in node.files() if "images" in str(path)}
    assert placed == set()
    server.fault = lambda _path, content: content
    assert_started(node.run(server.url, site))


def test_a_connection_that_breaks_off_is_no_answer(site: Site, node: Node, server: FaultyServer) -> None:
    server.promise_whole = True
    server.fault = lambda path, content: content[:100] if path.endswith("P") else content
    assert_refused(node.run(server.url, site), 21, "cut short")


@pytest.mark.slow
def test_a_server_that_hangs_is_left_after_a_while(site: Site, node: Node, server: FaultyServer) -> None:
    server.fault = lambda path, content: None if path.endswith("P") else content
    start = time.monotonic()
    assert_refused(node.run(server.url, site), 21, "timed out")
    assert time.monotonic() - start < 25


NO_MOUNTS = """\
#include <errno.h>
int mount(const char *from, const char *to, const char *type, unsigned long flags, const void *data)
{ errno = EACCES; return -1; }
"""


@needs_namespace
def test_a_namespace_without_mounts_spoils_one_start_at_most(site: Site, node: Node, tmp_path: Path) -> None:
    """A library in front of the system's refuses all mounts, as AppArmor does once a namespace is there."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    (tmp_path / "no.c").write_text(NO_MOUNTS)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "no.so", tmp_path / "no.c"], check=True)
    words = ("run", site.storage, "jets", "--key", site.key, "--", "x")
    for _ in range(2):
        assert_started(node.headstart(*words))
    (record,) = (node.cache / "launches").iterdir()
    done = node.headstart(*words, env={"LD_PRELOAD": str(tmp_path / "no.so")})
    assert_refused(done, 14, "cannot be mounted")
    assert not record.exists()
    assert_started(node.headstart(*words))


@needs_namespace
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can show a directory as a mount")
def test_a_mounted_repository_is_used_in_place(site: Site, node: Node, tmp_path: Path) -> None:
    """The stage has what a mount would show, but for the channels, which are read out of the storage."""
    mount = tmp_path / str(nodes.FQRN)
    shutil.copytree(site.stage, mount, symlinks=True)
    nodes.mount_channels(site, mount)
    words = ("run", mount, "jets", "--key", site.key, "--", "x")
    for _ in range(2):
        done = node.headstart(*words)
        assert_started(done)
        arguments, _, _ = releases.parse_fake_output(done.stdout)
        assert arguments[1] == f"{HOME}/images/x86-64-v3/sys.so"
    # What was believed is remembered there, and nothing else comes to be.
    assert sorted(path.name for path in (node.cache / str(nodes.FQRN)).iterdir() if path.is_dir()) == ["locks"]
    inside = (
        "import sys, os; from headstart.namespace import Bind, enter;"
        f"enter((Bind({str(mount)!r}, {MOUNTPOINT!r}, False),));"
        "from headstart.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", inside, "run", MOUNTPOINT, "jets", "--key", site.key, "--", "x"],
        env=node.environment(), capture_output=True, check=False,
    )  # fmt: skip
    assert_started(done)
    (mount / "channels/jets/prod.json").write_bytes(
        (mount / "channels/jets/prod.json").read_bytes().replace(b'"sig":"', b'"sig":"AAAA')
    )
    assert_refused(node.headstart(*words), 17, "0 good signatures")


@needs_namespace
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can show a directory as a mount")
def test_a_repeated_start_from_a_mount_sees_that_its_release_is_stated_no_more(
    site: Site, node: Node, tmp_path: Path
) -> None:
    mount = tmp_path / str(nodes.FQRN)
    shutil.copytree(site.stage, mount, symlinks=True)
    nodes.mount_channels(site, mount)
    words = ("run", mount, "jets@0123456789abcdef", "--key", site.key, "--", "x")
    for _ in range(2):
        assert_started(node.headstart(*words))
    assert len(list((node.cache / "launches").iterdir())) == 1
    (statement,) = (mount / "channels/jets/releases").iterdir()
    content = statement.read_bytes()
    statement.unlink()
    assert_refused(node.headstart(*words), 17, "has no statement")
    statement.write_bytes(content)
    assert_started(node.headstart(*words))
    keys = mount / "channels/root.json"
    keys.write_bytes(keys.read_bytes().replace(b'"sig":"', b'"sig":"AAAA'))
    assert_refused(node.headstart(*words), 17, "0 good signatures")


def test_without_namespaces_a_relocatable_release_runs_where_it_is(
    site: Site, node: Node, tmp_path: Path
) -> None:
    limits = without_namespaces(tmp_path)
    for _ in range(2):
        done = subprocess.run(
            [
                *limits,
                sys.executable,
                "-m",
                "headstart",
                "run",
                site.storage,
                "jets",
                "--key",
                site.key,
                "--",
                "x",
            ],
            env={**node.environment(), "PATH": str(tmp_path / "nothing") + ":" + os.environ["PATH"]},
            capture_output=True,
            check=False,
            cwd=node.root,
        )
        assert_started(done)
        arguments, environment, _ = releases.parse_fake_output(done.stdout)
        root = node.cache / str(nodes.FQRN) / "root"
        assert arguments[1] == f"{root}/stacks/jets/0123456789abcdef/images/x86-64-v3/sys.so"
        assert environment["JULIA_PROJECT"] == f"{root}/stacks/jets/0123456789abcdef/project"


def test_without_namespaces_a_release_that_cannot_move_is_refused(node: Node, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    place = publishing.new_repository(tmp_path / "fixed", now=now)
    publishing.write_stage(tmp_path / "stage", lambda made: replace(made, relocatable=False))
    keys = publishing.copy_keys(tmp_path / "keys")
    made = Site(
        storage=place.root,
        key=keys / f"{nodes.FQRN}.pub",
        release=releases.release(),
        stage=tmp_path / "stage",
    )
    made.publish(tmp_path / "stage")
    words: list[str | Path] = ["run", made.storage, "jets", "--key", made.key, "--", "x"]
    done = subprocess.run(
        [*without_namespaces(tmp_path), sys.executable, "-m", "headstart", *words],
        env=node.environment(),
        capture_output=True,
        check=False,
    )
    assert_refused(done, 14, "namespace")
