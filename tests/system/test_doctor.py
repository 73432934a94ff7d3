"""``headstart doctor`` where something is really wrong: servers, proxies, disks, clocks, what is forbidden."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import nodes
import publishing
from faultproxy import Fault, FaultProxy
from headstart.names import ChannelName
from headstart.repository import Channel
from nodes import FaultyServer, Node, Site, without_namespaces

CODE = 26


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return nodes.make_site(tmp_path_factory.mktemp("site"), image_size=50_000)


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[FaultyServer]:
    with nodes.serving(site.storage) as running:
        yield running


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "node").mkdir()
    return Node(root=tmp_path / "node")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def elsewhere(url: str) -> str:
    """A server on this machine by an address that is not taken for one, so that proxies are asked."""
    return url.replace("127.0.0.1", "0.0.0.0")  # noqa: S104  # not to listen on


def answer(done: "subprocess.CompletedProcess[bytes]") -> dict[str, Any]:
    assert done.returncode in (0, CODE), done.stderr.decode()
    assert done.stderr == b""
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["grade"] == "problem") == (done.returncode == CODE)
    return found


def doctor(node: Node, *words: str | Path, **env: str) -> dict[str, Any]:
    return answer(node.headstart("doctor", *words, "--json", env=env))


def about(found: dict[str, Any], area: str) -> list[tuple[str, str]]:
    """Grades, and texts with what to do."""
    return [(one["grade"], f"{one['text']} -> {one['do']}") for one in found["findings"] if one["area"] == area]


def test_with_nothing_configured_it_looks_at_the_node(node: Node) -> None:
    found = doctor(node)
    assert about(found, "cpu")[0][1].startswith(f"the features are read from {node.root}")
    assert about(found, "cpu")[1][0] == "good"
    assert about(found, "strata") == [
        ("note", "no repository was named -> headstart doctor NAME or ADDRESS looks at its servers, too")
    ]
    assert not node.cache.exists()


def test_a_healthy_server_and_what_it_looks_like(site: Site, node: Node, server: FaultyServer) -> None:
    found = doctor(node, server.url, "--key", site.key)
    ((grade, text),) = about(found, "strata")
    assert (grade, "revision 2 of" in text) == ("good", True)
    assert about(found, "clock")[0][0] == "good"
    (said,) = found["servers"]
    assert (said["server"], said["proxy"], said["revision"], said["error"]) == (server.url, None, 2, None)
    assert 0 < said["latency_s"] < 30
    assert found["fqrn"] == "julia.example.org"
    plain = node.headstart("doctor", server.url, "--key", site.key)
    assert plain.returncode == 0
    assert all(len(line) <= 79 for line in plain.stdout.decode().splitlines() if "/" not in line)
    assert b"strata     ok       http://" in plain.stdout
    # Nothing was written anywhere.
    assert sorted(path.name for path in node.root.iterdir()) == ["cpuinfo"]


def test_without_a_key_it_says_what_run_would(node: Node, server: FaultyServer) -> None:
    ((grade, text),) = about(doctor(node, server.url), "strata")
    assert (grade, "there is no public key" in text, "--key" in text) == ("problem", True, True)


def test_a_server_that_is_down_matters_when_there_is_no_other(
    site: Site, node: Node, server: FaultyServer
) -> None:
    gone = f"http://127.0.0.1:{free_port()}/cvmfs/{nodes.FQRN}"
    found = doctor(node, f"{gone};{server.url}", "--key", site.key)
    assert [grade for grade, _ in about(found, "strata")] == ["warning", "good"]
    found = doctor(node, gone, "--key", site.key)
    ((grade, text),) = about(found, "strata")
    assert (grade, "Connection refused" in text) == ("problem", True)


def test_a_proxy_that_is_down_or_forbids(site: Site, node: Node, server: FaultyServer) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    url = elsewhere(server.url)
    with FaultProxy.before(server.url) as proxy:
        living = f"http://{proxy.address}"
        found = doctor(node, url, "--key", site.key, HEADSTART_PROXY=f"{dead}|{living}")
        assert [grade for grade, _ in about(found, "proxies")] == ["warning", "good"]
        ((grade, text),) = about(found, "strata")
        assert (grade, f"through {living}" in text) == ("good", True)
        proxy.fault = Fault.ERROR
        found = doctor(node, url, "--key", site.key, HEADSTART_PROXY=f"{living};DIRECT")
        assert [grade for grade, _ in about(found, "proxies")] == ["good", "warning"]
        assert "503" in about(found, "proxies")[1][1]
        assert about(found, "strata")[0][0] == "good"
    found = doctor(node, url, "--key", site.key, HEADSTART_PROXY=dead)
    assert [grade for grade, _ in about(found, "proxies")] == ["problem"]
    assert about(found, "strata")[0][0] == "problem"
    # Without a source there are still the proxies.
    assert about(doctor(node, HEADSTART_PROXY=dead), "proxies")[0][0] == "problem"


@pytest.mark.parametrize(
    ("fault", "word"), [(Fault.PAGE, ".cvmfspublished"), (Fault.HANG, "timed out"), (Fault.FLIP, "")]
)
def test_a_server_that_lies_or_is_silent(
    site: Site, node: Node, server: FaultyServer, fault: Fault, word: str
) -> None:
    config = node.root / ".config" / "headstart" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("timeout_direct = 2\n")
    with FaultProxy.before(server.url) as proxy:
        proxy.fault = fault
        ((grade, text),) = about(doctor(node, proxy.of(server.url), "--key", site.key), "strata")
        assert (grade, word in text) == ("problem", True)
        assert text.split(" -> ")[1] != "None"


def test_nothing_hangs_it(site: Site, node: Node, server: FaultyServer) -> None:
    """A server that accepts and says nothing, and a file that never comes to an end of being opened."""
    os.mkfifo(node.root / "pipe")
    with FaultProxy.before(server.url) as proxy:
        proxy.fault = Fault.HANG
        start = time.monotonic()
        found = doctor(
            node, proxy.of(server.url), "--key", site.key, "--timeout", "1.5",
            HEADSTART_CPUINFO=str(node.root / "pipe"),
        )  # fmt: skip
        assert time.monotonic() - start < 40
    assert about(found, "cpu")[0][1].startswith("the processor: no answer within 1.5 s")
    assert "no answer within 1.5 s" in about(found, "strata")[0][1]
    assert found["servers"][0]["error"] == "no answer within 1.5 s"


def test_a_clock_beside_that_of_the_server(site: Site, node: Node, server: FaultyServer) -> None:
    with FaultProxy.before(server.url) as proxy:
        for ahead, grade, word in ((300.0, "warning", "5 min slow"), (-10800.0, "problem", "3 h fast")):
            proxy.clock = ahead
            found = doctor(node, proxy.of(server.url), "--key", site.key)
            ((said, text),) = about(found, "clock")
            assert (said, word in text, "set the clock" in text) == (grade, True, True)
            assert abs(found["servers"][0]["clock_offset_s"] - ahead) < 30


def test_a_whitelist_that_expired_and_one_about_to(node: Node, tmp_path: Path) -> None:
    keys = publishing.copy_keys(tmp_path / "keys")
    for days, grade, word in ((40, "problem", "expired on"), (28, "warning", "must sign it anew")):
        root = tmp_path / str(days)
        publishing.new_repository(root, now=datetime.now(UTC) - timedelta(days=days))
        with nodes.serving(root) as running:
            for source in (running.url, root):
                found = doctor(node, source, "--key", keys / f"{nodes.FQRN}.pub")
                ((said, text),) = about(found, "strata")
                assert (said, word in text, "sign" in text.split(" -> ")[1]) == (grade, True, True)


def test_a_server_behind_what_this_node_has_seen(node: Node, tmp_path: Path) -> None:
    site = nodes.make_site(tmp_path / "own", image_size=50_000)
    with nodes.serving(site.storage) as running, FaultProxy.before(running.url) as proxy:
        subprocess.run(["cp", "-a", site.storage, tmp_path / "yesterday"], check=True)
        publishing.write_stage(
            tmp_path / "next", lambda made: replace(made, id=type(made.id)("fedcba9876543210"))
        )
        site.publish(tmp_path / "next", Channel(name=ChannelName("prod")))
        assert node.run(running.url, site, "x").returncode == 0
        proxy.fault, proxy.yesterday = Fault.OLD, tmp_path / "yesterday"
        found = doctor(node, f"{proxy.of(running.url)};{running.url}", "--key", site.key)
        assert [grade for grade, _ in about(found, "strata")] == ["warning", "good"]
        assert "this node has seen revision 3" in about(found, "strata")[0][1]


def test_what_all_users_of_this_node_have_seen(site: Site, node: Node, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    env = {"HEADSTART_STATE": str(state)}
    assert node.run(site.storage, site, "x", env=env).returncode == 0
    (memory,) = state.glob("*/seen-*.json")
    memory.write_text(memory.read_text().replace('"revision": 2', '"revision": 9'))
    ((grade, text),) = about(doctor(node, site.storage, "--key", site.key, **env), "strata")
    assert (grade, "this node has seen revision 9" in text) == ("problem", True)
    memory.write_text("junk")
    ((grade, text),) = about(doctor(node, site.storage, "--key", site.key, **env), "settings")
    assert (grade, f"{memory} is damaged" in text) == ("problem", True)


def test_without_namespaces(node: Node, tmp_path: Path) -> None:
    words = [*without_namespaces(tmp_path), sys.executable, "-m", "headstart", "doctor", "--json"]
    done = subprocess.run(words, env=node.environment(), capture_output=True, check=False, cwd=node.root)
    ((grade, text),) = about(answer(done), "namespaces")
    assert (grade, "(14)" in text, "sysctl user.max_user_namespaces=15000" in text) == ("warning", True, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
@pytest.mark.parametrize(
    ("options", "area", "grade", "word"),
    [
        ("size=300k", "disk", "problem", "0.0 GB free of 0.0 GB of tmpfs: not enough"),
        ("size=300k", "cache", "problem", "No space left on device"),
        ("size=3g,noexec", "cache", "problem", "mounted noexec"),
        ("size=3g,ro", "cache", "problem", "Read-only file system"),
        ("size=3g,nr_inodes=200", "disk", "problem", "files may still be made"),
        ("size=3g", "disk", "note", "the node's memory"),
    ],
)
def test_disks(node: Node, tmp_path: Path, options: str, area: str, grade: str, word: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "tmpfs"]
    if subprocess.run([*mount, small], check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        ((said, text),) = about(doctor(node, "--cache", small / "cache"), area)
        assert (said, word in text) == (grade, True), text
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", small], check=False)


def test_a_cache_that_is_not_ours_to_trust(node: Node) -> None:
    node.cache.mkdir()
    node.cache.chmod(0o777)
    ((grade, text),) = about(doctor(node), "cache")
    assert (grade, "may be written by others" in text, "chmod go-w" in text) == ("problem", True, True)
    node.cache.rmdir()
    node.cache.write_text("")
    assert "is no directory" in about(doctor(node), "cache")[0][1]


def test_settings_and_names_that_are_wrong(node: Node, server: FaultyServer) -> None:
    config = node.root / ".config" / "headstart" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("proxi = 1\n")
    for words in ((), (server.url,)):
        ((grade, text),) = about(doctor(node, *words), "settings")
        assert (grade, "proxi" in text, "config.toml" in text) == ("problem", True, True)
    config.unlink()
    assert about(doctor(node, "no.such.repository"), "settings")[0][1].startswith(
        "no server of no.such.repository"
    )
    assert about(doctor(node, HEADSTART_PROXI="x"), "settings")[0][1].startswith(
        "HEADSTART_PROXI: nothing reads"
    )
    assert about(doctor(node, HEADSTART_CACHE_QUOTA="20 GB"), "settings") == []
    ((grade, text),) = about(doctor(node, HEADSTART_CACHE_QUOTA="much"), "settings")
    assert (grade, "'much' is no size" in text) == ("problem", True)
    wrong = node.headstart("doctor", "--timeout", "0")
    assert (wrong.returncode, wrong.stdout) == (10, b"")


def test_a_memory_that_others_may_write_is_told(node: Node) -> None:
    state = node.root / "state"
    state.mkdir()
    assert about(doctor(node, HEADSTART_STATE=str(state)), "memory") == []
    state.chmod(0o777)
    ((grade, text),) = about(doctor(node, HEADSTART_STATE=str(state)), "memory")
    assert (grade, f"chmod go-w {state}" in text) == ("warning", True)


def test_what_julia_would_find(node: Node) -> None:
    startup = node.root / ".julia" / "config" / "startup.jl"
    startup.parent.mkdir(parents=True)
    startup.write_text("")
    found = doctor(node, JULIA_LOAD_PATH="/x", JULIA_NUM_THREADS="2", LD_PRELOAD="", TMPDIR="/no/such/place")
    texts = [text for _, text in about(found, "julia")]
    assert [text.split(":")[0] for text in texts[:2]] == ["JULIA_LOAD_PATH", "JULIA_NUM_THREADS"]
    assert texts[2].startswith(f"{startup} is run by sessions")
    assert "/no/such/place: No such file or directory" in texts[3]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a program as another user")
def test_as_a_user_without_entry_and_home(node: Node) -> None:
    """As in a container that is given any uid."""
    source = str(Path(nodes.__file__).parent.parent / "src")
    code = (
        "import os, sys; sys.path.insert(0, sys.argv.pop(1));"
        "import headstart.cli.doctor, pwd, encodings.idna, json;"
        "from headstart.cli import main; os.setgroups([]); os.setgid(4711); os.setuid(4711); sys.exit(main())"
    )
    env = {"PATH": os.environ["PATH"], "HEADSTART_CPUINFO": "/proc/cpuinfo"}
    done = subprocess.run(
        [sys.executable, "-c", code, source, "doctor", "--json"],
        env=env, capture_output=True, check=False, cwd="/",
    )  # fmt: skip
    found = answer(done)
    assert (
        about(found, "kernel")[0][1].split(" -> ")[0].endswith("as user 4711, of whom the system has no entry")
    )
    assert about(found, "home")[0][0] == "warning"
    ((grade, text),) = about(found, "cache")
    assert (grade, "there is no place for it" in text, "/dev/null" in text) == ("problem", True, False)
    assert about(found, "disk") == []
