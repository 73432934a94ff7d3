"""A node against a thief of the repository key, and against old states: the command as it is typed."""

import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import nodes
import publishing
from headstart.cvmfs.objects import Algorithm
from headstart.cvmfs.signature import Letter, seal
from headstart.cvmfs.whitelist import WHITELIST_FILE, Whitelist
from headstart.repository import Channel, publish
from headstart.stage import open_stage
from nodes import Node, Site

ID = "0123456789abcdef"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    root = tmp_path / "node"
    root.mkdir()
    return Node(root=root)


def make(root: Path, channel: Channel | None, extra: Mapping[str, bytes]) -> Site:
    """A repository of the one name and the one set of keys, with a release of the one id."""
    now = datetime.now(UTC)
    place = publishing.new_repository(root / "storage", now=now)
    made = publishing.write_stage(root / "stage", extra=extra)
    publish(place.target, open_stage(str(root / "stage")), channel, now, nodes.MEANS)
    key = publishing.copy_keys(root / "keys") / f"{publishing.FQRN}.pub"
    return Site(storage=root / "storage", key=key, release=made, stage=root / "stage")


def later(channel: Channel, days: int) -> Channel:
    return Channel(name=channel.name, valid=timedelta(days=days))


@pytest.fixture
def bad(tmp_path: Path) -> Site:
    return make(tmp_path / "bad", None, {"project/LocalPreferences.toml": b"bad"})


@pytest.fixture
def good(tmp_path: Path, bad: Site) -> Site:
    """Made after the thief's, so that it is newer in everything."""
    assert bad.storage.exists()
    site = make(tmp_path / "good", publishing.PROD, {})
    site.publish(site.stage, later(publishing.PROD, 60))
    return site


def preferences(node: Node) -> list[Path]:
    return list((node.cache / str(nodes.FQRN) / "root").rglob("LocalPreferences.toml"))


def test_what_a_thief_had_a_node_fetch_is_not_run_for_the_channel(good: Site, bad: Site, node: Node) -> None:
    done = node.run(bad.storage, bad, "x", reference=f"jets@{ID}")
    assert done.returncode == 0, done.stderr
    assert preferences(node)
    for _ in range(2):
        done = node.run(good.storage, good, "x", reference="jets@prod")
        assert done.returncode == 0, done.stderr
        assert not preferences(node)


def test_an_id_does_not_replace_what_a_channel_vouched_for(good: Site, bad: Site, node: Node) -> None:
    assert node.run(good.storage, good, "x", reference="jets@prod").returncode == 0
    for path in (node.cache / str(nodes.FQRN)).glob("seen-*.json"):
        path.unlink()
    done = node.run(bad.storage, bad, "x", reference=f"jets@{ID}")
    assert done.returncode == 17
    assert b"what is published is never changed" in done.stderr
    assert not preferences(node)


def test_a_channel_that_was_there_cannot_be_taken_away(
    good: Site, bad: Site, node: Node, tmp_path: Path
) -> None:
    assert b"the only release, in no channel" in node.run(bad.storage, bad, "x").stderr
    shutil.rmtree(node.cache)
    assert node.run(good.storage, good, "x").returncode == 0
    # As new as anything the node has seen, with one release and no channel.
    state = make(tmp_path / "third", None, {"depot/a": b"1"})
    memory = next((node.cache / str(nodes.FQRN)).glob("seen-*.json"))
    memory.write_text(memory.read_text().replace('"revision": 3', '"revision": 1'))
    done = node.run(state.storage, state, "x", reference="jets")
    assert done.returncode == 17
    assert b"had a channel prod, and it is gone" in done.stderr


def test_an_older_whitelist_is_refused_by_a_node_that_has_seen_a_newer_one(good: Site, node: Node) -> None:
    assert node.run(good.storage, good, "x").returncode == 0
    place = good.storage / WHITELIST_FILE
    whitelist = Whitelist.from_bytes(Letter.cut(place.read_bytes(), what="it").text)
    older = Whitelist(
        fqrn=whitelist.fqrn,
        issued=whitelist.issued - timedelta(days=2),
        expires=whitelist.expires,
        fingerprints=whitelist.fingerprints,
    )
    signer = publishing.all_keys().master
    place.write_bytes(seal(older.to_bytes(), algorithm=Algorithm.SHA1, sign=signer.sign_plain))
    done = node.run(good.storage, good, "x")
    assert done.returncode == 17
    assert b"has seen a newer one" in done.stderr


def test_an_older_statement_of_keys_is_refused(good: Site, node: Node) -> None:
    assert node.run(good.storage, good, "x").returncode == 0
    memory = next((node.cache / str(nodes.FQRN)).glob("seen-*.json"))
    seen, higher = (f'"/channels/root.json": {{"since": 0, "version": {version}}}' for version in (1, 2))
    assert seen in memory.read_text()
    memory.write_text(memory.read_text().replace(seen, higher))
    done = node.headstart("run", good.storage, "jets", "--key", good.key, "--refresh", "--", "x")
    assert done.returncode == 17
    assert b"/channels/root.json has version 1" in done.stderr


def test_a_repeated_launch_falls_with_what_it_stands_on(good: Site, node: Node) -> None:
    assert node.run(good.storage, good, "x").returncode == 0
    placed = sorted((node.cache / str(nodes.FQRN) / "placed").iterdir())
    assert len(placed) == 3
    # As another launch leaves it that found other bytes to be the right ones.
    os.unlink(placed[1])
    placed[1].write_text("another boot " + "0" * 64)
    done = node.run(good.storage, good, "x")
    assert done.returncode == 0
    assert b"fetching" in done.stderr
