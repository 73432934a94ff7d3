"""A grid that lies, hangs and loses: nginx, Squid, a faulty proxy, and nodes with a network of their own."""

import hashlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

import harness
import nodes
import publishing
import releases
from faultproxy import Fault, FaultProxy
from headstart.names import ChannelName
from headstart.repository import Channel
from nodes import Node, Site, assert_refused

pytestmark = pytest.mark.slow

PATIENCE = "timeout = 3\ntimeout_direct = 3\nretries = 0\n"
BOUND = 60.0
"""Seconds after which a start that cannot succeed has ended, on a machine that has much else to do."""
FAULTS = [fault for fault in Fault if fault is not Fault.NONE]
CODES = {
    Fault.CUT: (21,), Fault.FLIP: (18,), Fault.PAGE: (18,), Fault.ERROR: (21,), Fault.HANG: (21,),
    Fault.RESET: (21,), Fault.SLOW: (21,), Fault.OLD: (17,),
}  # fmt: skip
"""By fault: the exit codes of a start that finds it everywhere."""


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("yesterday") / "storage"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, yesterday: Path) -> Site:
    """Two releases, and a copy of the time when there was only the first."""
    root = tmp_path_factory.mktemp("site")
    site = nodes.make_site(root, image_size=200_000)
    shutil.copytree(site.storage, yesterday)
    publishing.write_stage(
        root / "next",
        lambda made: replace(made, id=type(made.id)("fedcba9876543210")),
        # Nothing that a compressor could make small.
        extra={"depot/large": random.Random(20261126).randbytes(400_000)},
    )
    site.publish(root / "next", Channel(name=ChannelName("prod")))
    return site


@pytest.fixture(scope="module")
def stratum(site: Site) -> Iterator[harness.Server]:
    with harness.nginx(site.storage, nodes.FQRN) as running:
        yield running


@pytest.fixture
def faulty(stratum: harness.Server, yesterday: Path) -> Iterator[FaultProxy]:
    with FaultProxy.before(stratum.url) as proxy:
        proxy.yesterday = yesterday
        yield proxy


@pytest.fixture
def node(tmp_path: Path) -> Node:
    root = tmp_path / "node"
    config = root / ".config" / "headstart" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(PATIENCE)
    made = Node(root=root)
    made.flags()
    return made


def assert_started(done: "subprocess.CompletedProcess[bytes]") -> None:
    assert done.returncode == 0, done.stderr.decode()
    _, _, rest = releases.parse_fake_output(done.stdout)
    assert rest["file"] == "image x86-64-v3"


def refreshed(node: Node, site: Site, source: str) -> "subprocess.CompletedProcess[bytes]":
    return node.headstart("run", source, "jets", "--key", site.key, "--refresh", "--", "x")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_one_of_two_servers_is_survived(
    site: Site, node: Node, stratum: harness.Server, faulty: FaultProxy, fault: Fault
) -> None:
    if fault is Fault.OLD:
        # A node that has seen today's state; one that has seen nothing believes what is signed and good.
        assert_started(node.run(stratum.url, site))
    faulty.fault = fault
    done = refreshed(node, site, f"{faulty.of(stratum.url)};{stratum.url}")
    assert_started(done)
    assert b"jets fedcba9876543210 (prod)" in done.stderr
    assert faulty.asked


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_all_servers_is_named_soon_and_leaves_nothing_bad(
    site: Site, node: Node, stratum: harness.Server, faulty: FaultProxy, fault: Fault
) -> None:
    with FaultProxy.before(stratum.url) as second:
        second.yesterday = faulty.yesterday
        source = f"{faulty.of(stratum.url)};{second.of(stratum.url)}"
        if fault is Fault.OLD:
            assert_started(node.run(stratum.url, site))
        for proxy in (faulty, second):
            proxy.fault = fault
            # What is signed comes through, so that the fault is met in the middle of things.
            proxy.hits = (lambda path: "/data/" in path) if fault is not Fault.OLD else (lambda _path: True)
        start = time.monotonic()
        done = refreshed(node, site, source)
        assert time.monotonic() - start < BOUND
        assert done.returncode in CODES[fault], done.stderr.decode()
        assert_refused(done, done.returncode)
        for proxy in (faulty, second):
            proxy.fault = Fault.NONE
        before = len(faulty.asked) + len(second.asked)
        assert_started(refreshed(node, site, source))
        assert len(faulty.asked) + len(second.asked) > before
    kept = [path for path in (node.cache / str(nodes.FQRN) / "files").rglob("*") if path.is_file()]
    assert len(kept) > 5
    for path in kept:
        assert path.name.startswith(f"{hashlib.sha256(path.read_bytes()).hexdigest()}.")
    assert list((node.cache / str(nodes.FQRN) / "work").iterdir()) == []


@pytest.mark.parametrize("fault", [Fault.FLIP, Fault.PAGE, Fault.HANG, Fault.RESET])
def test_a_proxy_that_lies_is_not_the_servers_fault(
    site: Site, node: Node, stratum: harness.Server, faulty: FaultProxy, fault: Fault
) -> None:
    """With one server only, by another way: a Squid that is well."""
    faulty.fault = fault
    # An address of this machine that is not taken for one, so that proxies are asked.
    url = stratum.url.replace("127.0.0.1", "0.0.0.0")  # noqa: S104
    with harness.squid() as good:
        proxies = {"HEADSTART_PROXY": f"http://{faulty.address};{good.url}"}
        assert_started(node.run(url, site, env=proxies))
        assert good.lines()
        # The next start on this node knows whom not to ask.
        faulty.asked.clear()
        assert_started(
            node.headstart("run", url, "jets", "--key", site.key, "--refresh", "--", "x", env=proxies)
        )
        assert faulty.asked == []
    done = node.headstart(
        "run",
        url,
        "jets",
        "--key",
        site.key,
        "--cache",
        node.root / "cold",
        "--",
        "x",
        env={"HEADSTART_PROXY": f"http://{faulty.address}"},
    )
    assert done.returncode in (17, *CODES[fault]), done.stderr.decode()
    assert_refused(done, done.returncode)


def start_all(
    commands: Sequence[Sequence[str | Path]], envs: Sequence[dict[str, str]]
) -> list["subprocess.CompletedProcess[bytes]"]:
    """Start programs at once and wait for all of them."""
    started = [
        subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for words, env in zip(commands, envs, strict=True)
    ]
    ended = []
    for process in started:
        out, err = process.communicate(timeout=300)
        ended.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return ended


def launch(site: Site, url: str) -> list[str | Path]:
    return [sys.executable, "-m", "headstart", "run", url, "jets", "--key", site.key, "--", "x"]


def several(root: Path, count: int) -> list[Node]:
    made = [Node(root=root / f"node{number}") for number in range(count)]
    for node in made:
        node.root.mkdir()
        node.flags()
    return made


def test_eight_nodes_behind_a_squid_cost_the_origin_what_one_does(site: Site, tmp_path: Path) -> None:
    sent = []
    for count in (1, 8):
        (tmp_path / str(count)).mkdir()
        group = several(tmp_path / str(count), count)
        with harness.nginx(site.storage, nodes.FQRN) as origin, harness.squid() as proxy:
            url = origin.url.replace("127.0.0.1", "0.0.0.0")  # noqa: S104
            envs = [node.environment() | {"HEADSTART_PROXY": proxy.url} for node in group]
            for done in start_all([launch(site, url)] * count, envs):
                assert_started(done)
            assert len(proxy.lines()) >= count * len(origin.lines()) > 0
            sent.append(origin.sent())
    assert sent[0] > 400_000
    assert sent[1] <= 1.05 * sent[0], sent


LONG = harness.Long(seconds=0.04, jitter=0.01, loss=0.02)
THIN = ("tbf", "rate", "4mbit", "burst", "64kb", "latency", "200ms")


@pytest.mark.parametrize("long", [LONG, None], ids=["long", "thin"])
def test_nodes_on_wires_that_are_long_or_thin(site: Site, tmp_path: Path, long: harness.Long | None) -> None:
    """Each node is a network namespace; servers and proxy are behind a bridge that all of them are wired to."""
    count = 3
    group = several(tmp_path, count)
    with ExitStack() as opened:
        grid = opened.enter_context(harness.grid(count, long))
        if long is None and not grid.shape(*THIN):
            pytest.skip(f"this kernel has no queue for 'tc qdisc replace dev DEVICE root {' '.join(THIN)}'")
        origin = opened.enter_context(
            harness.nginx(site.storage, nodes.FQRN, host="10.66.0.1", inside=grid.hub)
        )
        proxy = opened.enter_context(harness.squid(host="10.66.0.2", inside=grid.hub))
        if long is not None:
            assert harness.connecting(proxy.url, inside=grid.nodes[0]) >= 2 * (long.seconds - long.jitter)
        envs = [node.environment() | {"HEADSTART_PROXY": proxy.url} for node in group]
        words_of = [[*inside, *launch(site, origin.url)] for inside in grid.nodes]
        for done in start_all(words_of, envs):
            assert_started(done)
        assert len(proxy.lines()) >= count * len(origin.lines()) > 0
