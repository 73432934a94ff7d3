"""What a node does with time and memory: expired channels, clocks, where it remembers; and rollbacks."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import nodes
import publishing
import releases
from headstart.cli import main
from headstart.cli.run import Node as Around
from headstart.cli.run import Request
from headstart.cli.starting import Launch, Ready
from headstart.clock import RELEASED
from headstart.errors import TrustError
from headstart.names import ChannelName, ReleaseId, Sha256
from headstart.repository import Channel, publish
from headstart.stage import open_stage
from nodes import Node, Site, needs_namespace

DAY = timedelta(days=1)
SHORT = Channel(name=ChannelName("prod"), valid=3 * DAY)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose channel lives for three days, and whose whitelist for thirty."""
    root = tmp_path_factory.mktemp("site")
    place = publishing.new_repository(root / "storage", now=datetime.now(UTC))
    made = publishing.write_stage(root / "stage")
    publishing.copy_keys(root / "keys")
    site = Site(storage=place.root, key=root / "keys", release=made, stage=root / "stage")
    site.publish(site.stage, SHORT)
    return root


@pytest.fixture
def site(template: Path, tmp_path: Path) -> Site:
    root = tmp_path / "site"
    shutil.copytree(template, root, symlinks=True)
    made = replace(releases.release(fqrn=str(nodes.FQRN)))
    return Site(
        storage=root / "storage",
        key=root / "keys" / f"{nodes.FQRN}.pub",
        release=made,
        stage=root / "stage",
    )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "node").mkdir()
    return Node(root=tmp_path / "node", env={"HEADSTART_STATE": str(tmp_path / "state")})


def ready(site: Site, node: Node, now: datetime, reference: str = "jets@prod") -> Ready:
    """A start up to its last step, at another time."""
    request = Request()
    request.source, request.reference, request.keys = str(site.storage), reference, (str(site.key),)
    around = Around(str(node.cache), node.environment())
    around.now = now.timestamp()
    return Launch(request, around, around.question(request)).ready()


def digest_of(site: Site) -> str:
    found = ready(site, Node(root=site.storage.parent), datetime.now(UTC))
    return str(found.resolved.digest)


def memories(directory: Path) -> list[Any]:
    return [json.loads(path.read_text()) for path in (directory / str(nodes.FQRN)).glob("seen-*.json")]


def command(site: Site, *words: str) -> int:
    return main([*words, "--storage", str(site.storage), "--keys", str(site.key.parent)])


# -- expiry and clocks ----------------------------------------------------------------------------------------


def test_an_expired_channel_never_stops_a_job_that_named_its_release_by_digest(site: Site, node: Node) -> None:
    now, digest = datetime.now(UTC), digest_of(site)
    late = now + 5 * DAY
    assert ready(site, node, now).resolved.pointer is not None
    for forget in (False, True):
        if forget:
            shutil.rmtree(node.cache)
        for reference in ("jets", "jets@prod"):
            with pytest.raises(TrustError, match=r"prod\.json expired on .*, and this machine's clock says"):
                ready(site, node, late, reference)
        for reference in (
            f"jets@{digest}",
            f"jets@{digest.removeprefix('sha256:')[:32]}",
            f"jets@{site.release.id}",
        ):
            assert ready(site, node, late, reference).resolved.pointer is None


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (datetime(1970, 1, 2, tzinfo=UTC), "clock says 1970-01-02T00:00:00Z, and .*prod.json was signed on 20"),
        (RELEASED + timedelta(hours=1), "clock says 2026-11-01T01:00:00Z, and .*prod.json was signed on 20"),
    ],
)
def test_a_clock_that_is_behind_is_named(
    site: Site, node: Node, now: datetime, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TrustError, match=says):
        ready(site, node, now)
    digest = digest_of(site)
    capsys.readouterr()
    assert str(ready(site, node, now, f"jets@{digest}").resolved.digest) == digest
    said = capsys.readouterr().err
    assert f"this machine's clock says {now:%Y-%m-%d}" in said
    assert "this Headstart is of" in said or "revision 2 of julia.example.org was signed on" in said


def test_a_clock_from_before_this_headstart_keeps_nothing_alive(node: Node, tmp_path: Path) -> None:
    """Nothing in an old repository shows that its pointer has expired; the program itself does."""
    then = RELEASED - 20 * DAY
    place = publishing.new_repository(tmp_path / "old" / "storage", now=then)
    made = publishing.write_stage(tmp_path / "stage")
    publish(place.target, open_stage(str(tmp_path / "stage")), publishing.PROD, then, nodes.MEANS)
    key = publishing.copy_keys(tmp_path / "old" / "keys") / f"{nodes.FQRN}.pub"
    old = Site(storage=place.root, key=key, release=made, stage=tmp_path / "stage")
    for reference in ("jets@prod", f"jets@{made.id}"):
        with pytest.raises(
            TrustError, match=f"clock says {then:%Y-%m-%d}.*, and this Headstart is of 2026-11-01"
        ):
            ready(old, node, then + timedelta(hours=1), reference)
    digest = Sha256.of(made.to_bytes())
    assert ready(old, node, then + timedelta(hours=1), f"jets@{digest}").resolved.pointer is None
    # By the right clock it could be believed until its end.
    assert ready(old, node, RELEASED).resolved.pointer is not None


def test_a_clock_that_is_ahead_is_named_with_what_has_expired(site: Site, node: Node) -> None:
    with pytest.raises(
        TrustError, match=r"cvmfswhitelist .*expired on 20.*, and this machine's clock says 2099-01"
    ):
        ready(site, node, datetime(2099, 1, 1, tzinfo=UTC))


# -- where a node remembers -----------------------------------------------------------------------------------


def older(site: Site) -> None:
    """Put the state of before behind a renewed channel, as a server that is behind shows it."""
    before = (site.storage / ".cvmfspublished").read_bytes()
    assert command(site, "promote", "jets@prod", "prod", "--renew") == 0
    (site.storage / ".cvmfspublished.new").write_bytes((site.storage / ".cvmfspublished").read_bytes())
    (site.storage / ".cvmfspublished.old").write_bytes(before)


def show(site: Site, which: str) -> None:
    shutil.copy(site.storage / f".cvmfspublished.{which}", site.storage / ".cvmfspublished")


def test_a_node_remembers_for_all_its_users_where_root_lets_it(site: Site, node: Node, tmp_path: Path) -> None:
    state = tmp_path / "state"
    older(site)
    ready(site, node, datetime.now(UTC))
    assert not state.exists()
    state.mkdir(mode=0o755)
    ready(site, node, datetime.now(UTC))
    assert memories(state) == memories(node.cache)
    # Another user, with a cache of his own and no memory in it.
    show(site, "old")
    other = Node(root=tmp_path / "other", env=node.env)
    other.root.mkdir()
    with pytest.raises(TrustError, match="this node has already seen"):
        ready(site, other, datetime.now(UTC))
    # A place that anybody may write says nothing.
    state.chmod(0o777)
    assert ready(site, other, datetime.now(UTC)).resolved.pointer is not None


def test_a_file_is_no_memory(site: Site, node: Node, tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    assert ready(site, node, datetime.now(UTC)).resolved.pointer is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's memory is for all")
def test_what_root_remembers_is_for_all_whatever_the_umask(site: Site, node: Node, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    before = os.umask(0o077)
    try:
        ready(site, node, datetime.now(UTC))
    finally:
        os.umask(before)
    assert memories(state)
    assert (state / str(nodes.FQRN)).stat().st_mode & 0o777 == 0o755


def test_a_memory_that_cannot_be_written_is_read_all_the_same(site: Site, node: Node, tmp_path: Path) -> None:
    """As a node's is to all but root: here a file lies where its locks would be, which stops root too."""
    state = tmp_path / "state"
    older(site)
    state.mkdir(mode=0o755)
    ready(site, node, datetime.now(UTC))
    before = memories(state)
    shutil.rmtree(state / str(nodes.FQRN) / "locks")
    (state / str(nodes.FQRN) / "locks").touch()
    other = Node(root=tmp_path / "other", env=node.env)
    other.root.mkdir()
    show(site, "old")
    with pytest.raises(TrustError, match="this node has already seen"):
        ready(site, other, datetime.now(UTC))
    assert command(site, "promote", "jets@prod", "prod", "--renew") == 0
    show(site, "new")
    assert command(site, "promote", "jets@prod", "prod", "--renew") == 0
    assert ready(site, other, datetime.now(UTC)).resolved.pointer is not None
    assert memories(state) == before != memories(other.cache)


def test_a_mount_is_remembered_too(site: Site, node: Node, tmp_path: Path) -> None:
    """Its client proves the state and remembers it; channels are ours to remember."""
    mount = tmp_path / str(nodes.FQRN)
    shutil.copytree(site.stage, mount, symlinks=True)
    nodes.mount_channels(site, mount)
    old = (mount / "channels/jets/prod.json").read_bytes()
    assert command(site, "promote", "jets@prod", "prod", "--renew") == 0
    nodes.mount_channels(site, mount)

    def start() -> Ready:
        mounted = replace(site, storage=mount)
        return ready(mounted, node, datetime.now(UTC))

    assert start().resolved.pointer is not None
    (kept,) = memories(node.cache)
    assert kept["channels"]["jets/prod"]["version"] == 2
    (mount / "channels/jets/prod.json").write_bytes(old)
    with pytest.raises(TrustError, match="prod has version 1, this node has already seen 2"):
        start()


# -- what a rollback leaves alone -----------------------------------------------------------------------------


@contextmanager
def running(site: Site, node: Node) -> Iterator["subprocess.Popen[bytes]"]:
    """A job on the release that ``prod`` is now; it reads its image when the file ``go`` is there."""
    node.flags()
    wait = 'echo started >&2; while [ ! -e "$HOME/go" ]; do sleep 0.05; done'
    job = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "headstart",
            "run",
            str(site.storage),
            "jets@prod",
            "--key",
            str(site.key),
            "--",
            "x",
        ],
        env={**node.environment(), "FAKE_JULIA": wait},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert job.stderr is not None
        while (line := job.stderr.readline()) != b"started\n":
            assert line, "it did not start"
        yield job
    finally:
        job.kill()
        job.communicate()


@needs_namespace
def test_a_job_goes_on_to_its_end_when_its_release_is_rolled_back_and_garbage_collected(
    site: Site, node: Node, tmp_path: Path
) -> None:
    old = site.release.id
    publishing.write_stage(tmp_path / "next", lambda base: replace(base, id=ReleaseId("f" * 16)))
    site.publish(tmp_path / "next", SHORT)
    with running(site, node) as job:
        assert command(site, "rollback", "jets@prod", "--to", str(old)) == 0
        time.sleep(1)
        assert command(site, "repo", "gc", "--keep-days", "0") == 0
        later = Node(root=tmp_path / "later")
        later.root.mkdir()
        # Whoever starts now gets the old one; the new one is still there for who names it.
        assert ready(site, later, datetime.now(UTC)).resolved.release.id == old
        assert ready(site, later, datetime.now(UTC), "jets@" + "f" * 16).resolved.release.id == ReleaseId(
            "f" * 16
        )
        (node.root / "go").touch()
        out, err = job.communicate(timeout=60)
    assert job.returncode == 0, err
    arguments, _, rest = releases.parse_fake_output(out)
    assert arguments[1].endswith(f"/{'f' * 16}/images/x86-64-v3/sys.so")
    assert rest["file"] == "image x86-64-v3"
