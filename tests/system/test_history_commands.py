"""Tags, past states, comparisons and blacklists as commands; two releases and a fake Julia."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nodes
import publishing
import releases
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.signature import Letter
from headstart.names import ReleaseId
from headstart.release import Release
from nodes import Node, Site

FIRST, SECOND = "0123456789abcdef", "fedcba9876543210"
Done = subprocess.CompletedProcess[bytes]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """``prod`` was the first release, tagged ``before``, and is the second."""
    root = tmp_path_factory.mktemp("site")
    site = nodes.make_site(root, image_size=60_000)
    place = publishing.Place(site.storage)
    words = ("repo", "tag", "add", "before", "-m", "the first one", *target(site))
    assert Node(root=root).headstart(*words).returncode == 0

    def second(release: Release) -> Release:
        return replace(release, id=ReleaseId(SECOND))

    stage = root / "second"
    publishing.write_stage(stage, second, extra={"depot/large": releases.image_content("other", 30_000)})
    site.publish(stage)
    assert place.open(publishing.later()).manifest.revision == 3
    return site


@pytest.fixture
def site(template: Site, tmp_path: Path) -> Site:
    """A copy that a test may write to."""
    subprocess.run(["cp", "-a", template.storage, tmp_path / "storage"], check=True)
    return replace(template, storage=tmp_path / "storage")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(root=tmp_path)


def target(site: Site) -> tuple[str, ...]:
    return ("--storage", str(site.storage), "--keys", str(site.key.parent))


def manifest(site: Site) -> Manifest:
    return Manifest.from_bytes(Letter.cut((site.storage / ".cvmfspublished").read_bytes(), what="it").text)


def good(done: Done) -> Any:
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def refused(done: Done, code: int, *words: str) -> None:
    assert done.returncode == code, (done.returncode, done.stderr.decode())
    last = done.stderr.decode().rstrip("\n").split("\n")[-1]
    assert last.startswith("headstart: ")
    for word in words:
        assert word in last


def test_tags_as_commands(site: Site, node: Node) -> None:
    before = manifest(site)
    words = ("repo", "tag", "add", "v2", "--revision", "2", *target(site), "--json")
    planned = good(node.headstart(*words, "--dry-run"))
    assert (planned["dry_run"], planned["changes"], planned["steps"][0]["action"]) == (True, True, "add")
    assert manifest(site) == before
    made = good(node.headstart(*words))
    assert made["steps"] == planned["steps"]
    assert manifest(site).revision == before.revision
    assert good(node.headstart(*words))["changes"] is False
    moved = good(node.headstart("repo", "tag", "move", "v2", "--at", "trunk", *target(site), "--json"))
    assert (moved["steps"][0]["before"]["revision"], moved["steps"][0]["tag"]["revision"]) == (2, 3)
    listed = good(node.headstart("repo", "tag", "list", *target(site), "--json"))
    assert {tag["name"]: tag["revision"] for tag in listed["tags"]} == {
        "before": 2,
        "v2": 3,
        "trunk": 3,
        "trunk-previous": 2,
    }
    text = node.headstart("repo", "tag", "list", *target(site)).stdout.decode()
    assert "before" in text
    assert "the first one" in text
    assert good(node.headstart("repo", "tag", "remove", "v2", *target(site), "--json"))["changes"]
    refused(node.headstart("repo", "tag", "remove", "v2", *target(site)), 20, "there is no tag v2")
    refused(node.headstart("repo", "tag", "add", "trunk", *target(site)), 10, "moves by itself")
    refused(node.headstart("repo", "tag", "add", "x y", *target(site)), 10, "no name for a tag")
    refused(node.headstart("repo", "tag", "add", "before", *target(site)), 24, "already")
    refused(node.headstart("repo", "tag", "add", "x", "--revision", "9", *target(site)), 20, "revision 9")
    refused(node.headstart("repo", "tag", "add", "x", "--root-hash", "9", *target(site)), 10, "root catalog")


def test_rollback_as_a_command(site: Site, node: Node) -> None:
    words = ("repo", "rollback", "before", *target(site), "--json")
    before = manifest(site)
    planned = good(node.headstart(*words, "--dry-run"))
    assert manifest(site) == before
    assert (planned["target"]["revision"], planned["new_revision"]) == (2, 4)
    (channel,) = planned["channels"]
    assert (channel["action"], channel["release"], channel["version"]) == ("sign", FIRST, 3)
    done = good(node.headstart(*words))
    assert (done["revision"], done["new_revision"]) == (4, 4)
    found = good(node.headstart("list", site.storage, "--key", site.key, "--json"))
    (stack,) = found["stacks"]
    assert [release["release"] for release in stack["releases"]] == [FIRST]
    assert stack["channels"][0]["version"] == 3
    assert node.headstart("verify", site.storage, "--key", site.key).returncode == 0
    refused(node.headstart(*words), 10, "present state")
    refused(node.headstart("repo", "rollback", "before", "--revision", "2", *target(site)), 10, "name one")
    refused(node.headstart("repo", "rollback", *target(site)), 20, "trunk-previous")


def test_readers_see_the_past(site: Site, node: Node) -> None:
    source = (site.storage, "--key", site.key)
    found = good(node.headstart("list", *source, "--tag", "before", "--json"))
    assert (found["revision"], found["past"]["tag"], found["past"]["anchor"], found["past"]["head"]) == (
        2,
        "before",
        "manifest",
        3,
    )
    assert [release["release"] for release in found["stacks"][0]["releases"]] == [FIRST]
    root = found["past"]["root_catalog"]
    shown = good(node.headstart("show", site.storage, "jets", "--key", site.key, "--root-hash", root, "--json"))
    assert (shown["release"], shown["past"]["tag"]) == (FIRST, "before")
    assert node.headstart("verify", *source, "--tag", "before").returncode == 0
    assert node.headstart("verify", *source, "--date", "2099-01-01").returncode == 0
    refused(node.headstart("list", *source, "--date", "2001-01-01"), 20, "no tag as old")
    refused(node.headstart("list", *source, "--date", "someday"), 10, "no date")
    refused(node.headstart("list", *source, "--tag", "nothing"), 20, "there is no tag nothing", "before")


def test_a_hash_that_no_tag_has_is_said_to_be_the_user_s_own(site: Site, node: Node) -> None:
    listed = good(node.headstart("repo", "tag", "list", *target(site), "--json"))
    root = next(tag["root_catalog"] for tag in listed["tags"] if tag["name"] == "before")
    good(node.headstart("repo", "tag", "remove", "before", *target(site), "--json"))
    good(node.headstart("repo", "rollback", "trunk-previous", *target(site), "--json"))
    found = good(node.headstart("list", site.storage, "--key", site.key, "--root-hash", root, "--json"))
    assert found["past"]["anchor"] == "root hash given"
    text = node.headstart("list", site.storage, "--key", site.key, "--root-hash", root).stdout.decode()
    assert "only the hash you gave vouches for" in text


def started(done: Done) -> str:
    """The release that a fake Julia was started from."""
    assert done.returncode == 0, done.stderr.decode()
    arguments, _, _ = releases.parse_fake_output(done.stdout)
    return arguments[1].split("/stacks/jets/")[1].split("/")[0]


@nodes.needs_namespace
def test_run_starts_from_the_past_and_remembers_the_present(site: Site, node: Node) -> None:
    words = ("run", site.storage, "jets", "--key", site.key)
    assert started(node.headstart(*words, "--", "x")) == SECOND
    for _ in range(2):  # the second time from the note
        done = node.headstart(*words, "--tag", "before", "--", "x")
        assert started(done) == FIRST
        assert b"revision 2 of the past, tag before" in done.stderr
    assert started(node.headstart(*words, "--", "x")) == SECOND
    root = manifest(site).root_catalog
    assert started(node.headstart(*words, "--root-hash", str(root), "--", "x")) == SECOND
    assert started(node.headstart(*words, "--date", "2099-12-31", "--", "x")) == SECOND
    refused(node.headstart(*words, "--tag", "nothing", "--", "x"), 20, "there is no tag nothing")
    assert node.headstart(*words, "--tag", "before", "--date", "2099-12-31", "--", "x").returncode == 2


@nodes.needs_namespace
def test_run_after_a_rollback_and_a_channel_that_went_back(site: Site, node: Node) -> None:
    words = ("run", site.storage, "jets", "--key", site.key, "--", "x")
    assert started(node.headstart(*words)) == SECOND  # this node has seen version 2 of the channel
    good(node.headstart("repo", "rollback", "before", *target(site), "--json"))
    assert started(node.headstart(*words)) == FIRST


@nodes.needs_namespace
def test_a_blacklist_stops_a_launch_that_was_made_a_moment_ago(site: Site, node: Node, tmp_path: Path) -> None:
    place = tmp_path / "blacklist"
    place.write_text("# nothing yet\n")
    words = ("run", site.storage, "jets", "--key", site.key, "--blacklist", place, "--", "x")
    for _ in range(2):
        assert started(node.headstart(*words)) == SECOND
    fingerprint = publishing.keys().certificate.fingerprint(manifest(site).algorithm)
    place.write_text(f"{fingerprint}\n")
    refused(node.headstart(*words), 17, "blacklist")
    refused(node.headstart("list", site.storage, "--key", site.key, "--blacklist", place), 17, "blacklist")
    place.write_text(f"<{nodes.FQRN} 4\n")
    refused(node.headstart(*words), 17, "wants 4")
    place.unlink()
    refused(node.headstart(*words), 10, "there is no blacklist")


def test_diff_as_a_command(site: Site, node: Node) -> None:
    source = (site.storage, "--key", site.key)
    found = good(node.headstart("diff", site.storage, "before", "trunk", "--key", site.key, "--json"))
    fates = {change["path"]: change["fate"] for change in found["changes"]}
    assert fates[f"/stacks/jets/{SECOND}"] == "added"
    assert fates["/channels/jets/prod.json"] == "changed"
    assert set(fates.values()) == {"added", "changed"}
    assert found["catalogs_skipped"] >= 2  # the first release and its Julia
    assert found["fetch_bytes"] > 0
    assert found["summary"]["/stacks/jets"]["removed"] == 0
    back = good(node.headstart("diff", site.storage, "3", "2", "--key", site.key, "--json"))
    assert {change["fate"] for change in back["changes"]} == {"removed", "changed"}
    two = good(
        node.headstart("diff", site.storage, f"jets@{FIRST}", f"jets@{SECOND}", "--key", site.key, "--json")
    )
    changed = {change["path"]: change for change in two["changes"]}
    assert "content" in changed["/depot/large"]["what"]
    assert changed["/depot/large"]["bytes_after"] == 30_000
    assert "content" not in changed.get("/images/x86-64/sys.so", {}).get("what", [])
    text = node.headstart("diff", site.storage, "before", "trunk", "--key", site.key).stdout.decode()
    assert f"+ /stacks/jets/{SECOND}/depot/large  30.0 kB\n" in text
    short = node.headstart("diff", site.storage, "before", "trunk", "--summary", "--key", site.key).stdout
    assert len(short.splitlines()) < 6
    same = node.headstart("diff", site.storage, "trunk", "trunk", "--key", site.key)
    assert same.stdout == b"no difference\n"
    refused(node.headstart("diff", source[0], "before", "jets@prod", "--key", site.key), 10, "one kind")
    refused(node.headstart("diff", source[0], "before", "99", "--key", site.key), 20, "revision 99")


def test_over_http_the_past_is_the_same_and_sizes_are_not_known(site: Site, node: Node) -> None:
    with nodes.serving(site.storage) as server:
        found = good(node.headstart("list", server.url, "--tag", "before", "--key", site.key, "--json"))
        assert found["past"]["revision"] == 2
        diff = good(node.headstart("diff", server.url, "before", "trunk", "--key", site.key, "--json"))
        assert diff["fetch_bytes"] is None
        assert diff["new_content_bytes"] > 30_000
        status = good(node.headstart("repo", "status", server.url, "--key", site.key, "--json"))
        assert (status["state"], status["revision"]) == ("good", 3)


def test_signing_somewhere_else_as_commands(site: Site, node: Node, tmp_path: Path) -> None:
    keys = site.key.parent
    office, vault = tmp_path / "office", tmp_path / "vault"
    for place, names in ((office, ("pub",)), (vault, ("pub", "masterkey"))):
        place.mkdir()
        for name in names:
            subprocess.run(["cp", "-a", keys / f"{nodes.FQRN}.{name}", place], check=True)
    following = tmp_path / "next"
    made = good(
        node.headstart("repo", "rollover", str(nodes.FQRN), "--keys", keys, "--to", following, "--json")
    )
    storage = ("--storage", str(site.storage), "--keys", str(office))
    request, signed = tmp_path / "request.json", tmp_path / "signed"
    add = ("--add-certificate", made["certificate"], "--days", "10")
    good(node.headstart("repo", "resign", *storage, *add, "--request", request, "--dry-run", "--json"))
    assert not request.exists()
    good(node.headstart("repo", "resign", *storage, *add, "--request", request, "--json"))
    done = node.headstart("repo", "resign", "--sign", request, "--keys", vault, "--output", signed, "--json")
    said = good(done)
    assert (len(said["kept"]), len(said["added"]), said["revoked"]) == (1, 1, [])
    assert b"adds " in done.stderr
    good(node.headstart("repo", "resign", *storage, "--apply", signed, "--dry-run", "--json"))
    assert (site.storage / ".cvmfswhitelist").read_bytes() != signed.read_bytes()
    good(node.headstart("repo", "resign", *storage, "--apply", signed, "--json"))
    assert (site.storage / ".cvmfswhitelist").read_bytes() == signed.read_bytes()
    published = ("repo", "resign", "--storage", str(site.storage), "--keys", following, "--published", "--json")
    good(node.headstart(*published))
    revoke = ("--revoke", said["kept"][0])
    assert good(node.headstart("repo", "resign", *target(site), *revoke, "--json"))["revoked"] == said["kept"]
    assert node.headstart("verify", site.storage, "--key", site.key).returncode == 0
    refused(node.headstart("repo", "tag", "add", "x", *target(site)), 17, "not on the whitelist")
    refused(node.headstart("repo", "resign", *storage, "--apply", signed), 17, "refuse to go back")
    refused(node.headstart("repo", "resign", *target(site), "--revoke", made["certificate"]), 17)
    refused(node.headstart("repo", "resign", *storage), 15, "masterkey")
    refused(node.headstart("repo", "resign", "--sign", request, "--keys", vault), 10, "--output")
    refused(node.headstart("repo", "resign", "--keys", vault), 10, "--storage")
    refused(node.headstart("repo", "resign", *target(site), "--days", "9999"), 10, "366")
    refused(node.headstart("repo", "resign", *storage, "--apply", signed, "--days", "3"), 10, "--days")


def test_publish_with_a_tag(site: Site, node: Node, tmp_path: Path) -> None:
    def third(release: Release) -> Release:
        return replace(release, id=ReleaseId("00000000000000aa"))

    publishing.write_stage(tmp_path / "third", third)
    words = ("publish", str(tmp_path / "third"), *target(site), "--json")
    refused(node.headstart(*words, "--message", "x"), 10, "--tag")
    refused(node.headstart(*words, "--tag", "trunk"), 10, "moves by itself")
    good(node.headstart(*words, "--tag", "third", "--message", "the third one"))
    listed = good(node.headstart("repo", "tag", "list", *target(site), "--json"))
    tag = next(tag for tag in listed["tags"] if tag["name"] == "third")
    assert (tag["revision"], tag["description"]) == (4, "the third one")
    site.publish(site.stage)  # back to the first release: the channel moves
    good(
        node.headstart(
            "publish", tmp_path / "third", *target(site), "--channel", "prod", "--auto-tag", "--json"
        )
    )
    listed = good(node.headstart("repo", "tag", "list", *target(site), "--json"))
    assert [tag["revision"] for tag in listed["tags"] if tag["automatic"]] == [6]
