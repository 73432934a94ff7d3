"""``headstart list``, ``show`` and ``verify`` as programs: what they print, and what they find."""

import json
import lzma
import os
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import nodes
from headstart import inspect
from headstart.cli import main
from headstart.cvmfs.entry import ChunkedFile, File
from headstart.cvmfs.objects import Digest, Kind, ObjectName
from headstart.errors import CorruptError, MissingError, TrustError
from headstart.names import ChannelName
from headstart.repository import Channel
from headstart.source import Anchors, open_source, parse
from nodes import Node, Site

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden"
GOLDENS = {
    "test.local.repo": ("golden-repo.tar", "golden-test.local.repo.pub"),
    "shake.local.repo": ("golden-repo-shake128-uncompressed.tar.xz", "golden-shake.local.repo.pub"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return nodes.make_site(tmp_path_factory.mktemp("site"), image_size=100_000)


@pytest.fixture
def own_site(site: Site, tmp_path: Path) -> Site:
    """A copy that the test may spoil."""
    shutil.copytree(site.storage, tmp_path / "storage")
    return Site(storage=tmp_path / "storage", key=site.key, release=site.release, stage=site.stage)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(root=tmp_path)


def spoken(done: "subprocess.CompletedProcess[bytes]") -> str:
    text = done.stdout.decode()
    assert max(map(len, text.split("\n"))) <= 100
    return text


def test_list_names_everything(site: Site, node: Node) -> None:
    done = node.headstart("list", site.storage, "--key", site.key)
    text = spoken(done)
    assert (done.returncode, done.stderr) == (0, b"")
    for word in ("julia.example.org, revision 2", "\njets\n", "prod", "0123456789abcdef", "x86-64 x86-64-v3"):
        assert word in text
    found = json.loads(node.headstart("list", site.storage, "--key", site.key, "--json").stdout)
    (stack,) = found["stacks"]
    (channel,) = stack["channels"]
    (release,) = stack["releases"]
    assert (found["fqrn"], found["revision"]) == ("julia.example.org", 2)
    assert (stack["name"], channel["name"], channel["version"]) == ("jets", "prod", 1)
    assert channel["digest"] == release["digest"]
    assert channel["release"] == release["release"] == "0123456789abcdef"
    assert release["targets"] == ["x86-64", "x86-64-v3"]
    assert release["files"] == len(site.release.files)


def test_list_names_the_tags_of_any_source(own_site: Site, node: Node) -> None:
    own = ("--storage", str(own_site.storage), "--keys", str(own_site.key.parent))
    assert main(["repo", "tag", "add", "first", "-m", "the first one", *own]) == 0
    with nodes.serving(own_site.storage) as server:
        words = ("list", server.url, "--key", own_site.key, "--tags")
        (line,) = (line for line in spoken(node.headstart(*words)).splitlines() if line.startswith("first "))
        found = json.loads(node.headstart(*words, "--json").stdout)
    assert line.split()[1] == "2"
    assert line.endswith("the first one")
    (tag,) = (tag for tag in found["tags"] if tag["name"] == "first")
    assert (found["revision"], tag["revision"], tag["description"]) == (2, 2, "the first one")


def test_list_shows_a_channel_that_cannot_be_believed(own_site: Site, node: Node) -> None:
    now = datetime.now(UTC)
    own_site.publish(own_site.stage, Channel(name=ChannelName("brief"), valid=timedelta(days=1)))
    opened = open_source(
        parse(str(own_site.storage)), Anchors(keys=(str(own_site.key),)), now=now + timedelta(days=2)
    )
    ((state, _),) = (stack.channels for stack in inspect.survey(opened, now=now + timedelta(days=2)))
    assert isinstance(state.pointer, TrustError)
    assert "expired" in state.pointer.message
    report = inspect.verify(opened, now=now + timedelta(days=2), deep=False)
    assert [(item.path, item.exit_code) for item in report.complaints] == [("/channels/jets/brief.json", 17)]
    assert node.headstart("verify", own_site.storage, "--key", own_site.key).returncode == 0


def test_show_describes_a_release(site: Site, node: Node) -> None:
    done = node.headstart("show", site.storage, "jets", "--key", site.key)
    text = spoken(done)
    assert done.returncode == 0
    for word in (
        "jets 0123456789abcdef",
        "sha256:",
        "prod, version 1",
        "1.5.3",
        "x86-64-v3",
        "asks for abm avx",
    ):
        assert word in text
    found = json.loads(node.headstart("show", site.storage, "jets@prod", "--key", site.key, "--json").stdout)
    assert found["path"] == site.release.path
    assert [image["features"] for image in found["images"]] == [
        list(image.features) for image in site.release.images
    ]
    assert found["julia"]["name"] == str(site.release.julia)
    assert found["channels"][0]["name"] == "prod"
    assert found["inputs"] == dict(site.release.inputs)
    refused = node.headstart("show", site.storage, "jets@test", "--key", site.key)
    assert (refused.returncode, refused.stdout) == (20, b"")
    assert b"channels of jets: prod" in refused.stderr


@pytest.mark.parametrize("deep", [False, True])
def test_a_good_repository_verifies(site: Site, node: Node, *, deep: bool) -> None:
    words: tuple[str | Path, ...] = ("verify", site.storage, "--key", site.key, *(["--deep"] if deep else []))
    done = node.headstart(*words)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "everything is as it should be" in spoken(done)
    found = json.loads(node.headstart(*words, "--json").stdout)
    assert found["complaints"] == []
    assert (found["catalogs"], found["releases"], found["channels"]) == (3, 1, 1)
    assert (found["objects"] > 5) is deep


@pytest.mark.parametrize("name", GOLDENS)
def test_repositories_of_the_real_tools_verify_to_the_last_byte(name: str, node: Node, tmp_path: Path) -> None:
    archive, key = GOLDENS[name]
    if not GOLDEN.exists():
        pytest.skip(f"the golden repositories are not at {GOLDEN}")
    data = (GOLDEN / archive).read_bytes()
    (tmp_path / "golden.tar").write_bytes(lzma.decompress(data) if archive.endswith(".xz") else data)
    with tarfile.open(tmp_path / "golden.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    done = node.headstart("verify", "--deep", tmp_path / name, "--key", GOLDEN / key, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["complaints"]) == (0, [])
    assert (found["fqrn"], found["revision"], found["catalogs"], found["releases"]) == (name, 3, 4, 0)
    assert found["objects"] > 15
    assert "no stacks" in spoken(node.headstart("list", tmp_path / name, "--key", GOLDEN / key))
    victim = max((tmp_path / name / "data").rglob("*"), key=lambda path: path.stat().st_size)
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    assert node.headstart("verify", tmp_path / name, "--key", GOLDEN / key).returncode == 0
    assert node.headstart("verify", "--deep", tmp_path / name, "--key", GOLDEN / key).returncode == 18


def _objects(site: Site, kind: Kind) -> list[Path]:
    """Two objects of a kind that the present state uses; one where there is only one."""
    snapshot = open_source(
        parse(str(site.storage)), Anchors(keys=(str(site.key),)), now=datetime.now(UTC)
    ).snapshot
    assert snapshot is not None
    home = f"/stacks/jets/{site.release.id}".encode()
    found: list[Digest | None] = []
    match kind:
        case Kind.CATALOG:
            found = [snapshot.root_catalog.nested[home].digest]
        case Kind.HISTORY:
            found = [snapshot.manifest.history]
        case Kind.METAINFO:
            found = [snapshot.manifest.metainfo]
        case Kind.FILE:
            entries = [snapshot.lookup(home + path) for path in (b"/bin/julia", b"/project/Project.toml")]
            found = [entry.digest for entry in entries if isinstance(entry, File)]
        case _:
            large = snapshot.lookup(home + b"/depot/large")
            assert isinstance(large, ChunkedFile)
            found = [large.chunks[0].digest, large.chunks[1].digest]
    names = [ObjectName(digest=digest, kind=kind) for digest in found if digest is not None]
    return [site.storage / name.path for name in names]


@pytest.mark.parametrize("kind", [Kind.CHUNK, Kind.FILE, Kind.CATALOG, Kind.HISTORY, Kind.METAINFO])
@pytest.mark.parametrize("how", ["gone", "flipped", "cut"])
def test_every_spoilt_object_is_found_and_all_of_them_are_told(
    own_site: Site, node: Node, kind: Kind, how: str
) -> None:
    victims = _objects(own_site, kind)
    assert victims
    for victim in victims:
        content = victim.read_bytes()
        victim.chmod(0o644)
        if how == "gone":
            victim.unlink()
        elif how == "flipped":
            victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        else:
            victim.write_bytes(content[:-3])
    done = node.headstart("verify", "--deep", own_site.storage, "--key", own_site.key, "--json")
    found = json.loads(done.stdout)
    family = (MissingError if how == "gone" else CorruptError).exit_code
    assert len(found["complaints"]) >= len(victims)
    codes = {item["exit_code"] for item in found["complaints"]}
    assert family in codes
    assert done.returncode == found["complaints"][0]["exit_code"]
    assert done.stderr.count(b"\n") == 1
    text = spoken(node.headstart("verify", "--deep", own_site.storage, "--key", own_site.key))
    for item in found["complaints"]:
        assert item["path"] in text


def test_an_object_that_holds_something_else_is_found_by_the_release(own_site: Site) -> None:
    """Catalogs and releases that contradict each other: both are signed, one is wrong."""
    opened = open_source(
        parse(str(own_site.storage)), Anchors(keys=(str(own_site.key),)), now=datetime.now(UTC)
    )
    assert opened.snapshot is not None
    real = opened.snapshot.stored

    class Other:
        """The snapshot, but one file's bytes are others."""

        def __getattr__(self, name: str) -> object:
            return getattr(opened.snapshot, name)

        def stored(self, name: object, *, limit: int) -> bytes:
            stored = real(name, limit=limit)  # type: ignore[arg-type]  # passed through
            content = zlib.decompress(stored) if stored[:1] == b"\x78" else stored
            return zlib.compress(content.replace(b"Jets", b"Jots")) if b'name = "Jets"' in content else stored

    report = inspect.Report(complaints=[])
    promised = inspect._promises(opened, report, datetime.now(UTC))
    entries = inspect._catalogs(opened.snapshot, report)
    reading = inspect._Reading(Other(), report, promised, lambda _size: None)  # type: ignore[arg-type]  # a stand-in
    reading.read(entries)
    assert [item.path.rpartition("/")[2] for item in report.complaints] == ["Project.toml"]
    assert "SHA-256" in report.complaints[0].text


def _unlink(path: Path) -> None:
    path.unlink()


def _append(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"!")


def _flip(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"!")


@pytest.mark.parametrize(
    ("change", "shallow", "deep"),
    [(_unlink, 19, 19), (_append, 18, 18), (_flip, 0, 18)],
    ids=["gone", "longer", "other"],
)
def test_a_mounted_repository_can_be_verified(
    site: Site, node: Node, tmp_path: Path, change: Callable[[Path], None], shallow: int, deep: int
) -> None:
    mount = tmp_path / str(nodes.FQRN)
    shutil.copytree(site.stage, mount, symlinks=True)
    nodes.mount_channels(site, mount)
    words = ("verify", mount, "--key", site.key)
    assert node.headstart(*words).returncode == 0
    assert node.headstart(*words, "--deep").returncode == 0
    assert b"jets" in node.headstart("list", mount, "--key", site.key).stdout
    change(mount / "stacks/jets/0123456789abcdef/project/Project.toml")
    assert node.headstart(*words).returncode == shallow
    assert node.headstart(*words, "--deep").returncode == deep
    os.unlink(mount / "stacks/jets/0123456789abcdef/depot/current")
    assert node.headstart(*words).returncode != 0


def test_a_repository_of_another_key_is_refused_at_once(site: Site, node: Node) -> None:
    if not GOLDEN.exists():
        pytest.skip(f"the golden repositories are not at {GOLDEN}")
    for name in ("list", "verify"):
        done = node.headstart(name, site.storage, "--key", GOLDEN / "golden-test.local.repo.pub")
        assert (done.returncode, done.stdout) == (17, b"")
        assert done.stderr.count(b"\n") == 1
