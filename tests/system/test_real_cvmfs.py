"""The stock CVMFS 2.12 over what Headstart writes: checker, Stratum 1 and client have nothing to say.

One repository goes through everything that Headstart can do to it. After each step the stock checker looks at
it from the disk and over HTTP, a stock Stratum 1 replicates what is new, and a stock client that has been
mounted since the beginning, and one that comes new, show exactly the tree that was published.
"""

import os
import random
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import publishing
import realcvmfs
from headstart.cli import main
from headstart.loopback import LoopbackServer
from publishing import FQRN
from realcvmfs import Tools, look

pytestmark = pytest.mark.slow
AT = "/any"
Look = dict[bytes, tuple[object, ...]]


@dataclass
class Site:
    """A repository, the tree that is published to it, and the stock tools over it."""

    root: Path
    tools: Tools
    seen: dict[str, Look] = field(default_factory=dict)
    """What tags show."""

    @property
    def tree(self) -> Path:
        return self.root / "tree"

    @property
    def words(self) -> list[str]:
        return ["--storage", str(self.tools.storage), "--keys", str(self.root / "keys")]

    def headstart(self, *words: str) -> None:
        assert main([*words, *self.words]) == 0, words

    def publish(self, *more: str) -> None:
        state = str(self.root / "state")
        self.headstart("publish", "--tree", str(self.tree), "--at", AT, "--state", state, *more)

    @property
    def revision(self) -> int:
        lines = (self.tools.storage / ".cvmfspublished").read_bytes().split(b"\n--\n")[0].split(b"\n")
        return int(next(line[1:] for line in lines if line.startswith(b"S")))


@pytest.fixture(params=["sha1", "rmd160", "shake128"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    env = realcvmfs.tools_environment()
    publishing.copy_keys(tmp_path / "keys")
    storage = tmp_path / "storage"
    words = ["--storage", str(storage), "--keys", str(tmp_path / "keys")]
    assert main(["repo", "create", str(FQRN), *words, "--hash", request.param]) == 0
    key = tmp_path / "keys" / f"{FQRN}.pub"
    with (
        LoopbackServer(str(storage), FQRN) as server,
        tempfile.TemporaryDirectory(prefix="hs-", ignore_cleanup_errors=True) as mounts,
    ):
        yield Site(tmp_path, Tools(env, tmp_path, storage, key, FQRN, server, Path(mounts)))


def fill(tree: Path) -> None:
    """Everything that the format can say."""
    chance = random.Random(4)
    for path in ("bin", "nested/inner/deep", "rule/a", "rule/b", "many"):
        (tree / path).mkdir(parents=True)
    (tree / "bin" / "program").write_bytes(chance.randbytes(5000))
    (tree / "bin" / "program").chmod(0o4755)
    (tree / "bin" / "empty").touch()
    (tree / "bin" / "large").write_bytes(chance.randbytes(25 << 20))
    (tree / "bin" / "packed.gz").write_bytes(b"stored as it is" * 100)
    (tree / "bin" / "link").symlink_to("program")
    (tree / "bin" / "nowhere").symlink_to("/no/such/place")
    (tree / "bin" / "variant").symlink_to("$(HEADSTART_NO_SUCH:-program)")
    for name in ("one", "two", "three"):
        os.link(tree / "bin" / "program", tree / "bin" / f"same-{name}")
    os.mkfifo(tree / "bin" / "fifo", 0o600)
    with socket.socket(socket.AF_UNIX) as made, suppress(OSError):
        made.bind(str(tree / "bin" / "socket"))
    if os.geteuid() == 0:
        os.mknod(tree / "bin" / "device", 0o20644, os.makedev(1, 3))
        os.chown(tree / "bin" / "empty", 1234, 5678)
    os.setxattr(tree / "bin" / "empty", "user.colour", b"blue")
    os.setxattr(tree / "nested", "user.of.directory", b"\0\1\2")
    (tree / os.fsdecode(b"not \xff\xfe utf-8")).write_bytes(b"odd")
    (tree / "line\nbreak and 'quotes' \\ $HOME").write_bytes(b"odder")
    (tree / "nested" / ".cvmfscatalog").touch()
    (tree / "nested" / "inner" / ".cvmfscatalog").touch()
    (tree / "nested" / "inner" / "deep" / "file").write_bytes(b"deep" * 1000)
    for name in ("a", "b"):
        (tree / "rule" / name / "file").write_bytes(name.encode())
    for number in range(300):
        folder = tree / "many" / str(number % 7)
        folder.mkdir(exist_ok=True)
        (folder / f"file{number}").write_bytes(b"%d" % (number % 50))
    for number, (directory, names, files) in enumerate(os.walk(tree, topdown=False)):
        for name in [*names, *files]:
            os.utime(os.path.join(directory, name), (0, 1_700_000_000 + number), follow_symlinks=False)
    os.utime(tree, (0, 1_600_000_000))


def begin(site: Site) -> None:
    fill(site.tree)
    site.publish(*RULES)


def grow(site: Site) -> None:
    (site.tree / "nested" / "inner" / "new").write_bytes(b"new")
    shutil.rmtree(site.tree / "many" / "3")
    shutil.move(site.tree / "many" / "4", site.tree / "bin" / "moved")
    (site.tree / "bin" / "program").write_bytes(b"other")
    site.publish(*RULES, "--tag", "second", "-m", "the second state")


def replace_kinds(site: Site) -> None:
    """Files become directories, directories files; a catalog goes, and another comes."""
    (site.tree / "bin" / "empty").unlink()
    (site.tree / "bin" / "empty").mkdir()
    (site.tree / "bin" / "empty" / "file").write_bytes(b"in a directory that was a file")
    shutil.rmtree(site.tree / "many" / "5")
    (site.tree / "many" / "5").write_bytes(b"a file that was a directory")
    shutil.rmtree(site.tree / "rule" / "a")
    (site.tree / "rule" / "a").symlink_to("b")
    (site.tree / "nested" / ".cvmfscatalog").unlink()
    (site.tree / "bin" / ".cvmfscatalog").touch()
    site.publish(*RULES)


OTHER_KINDS = ("kinds", "rollback", "publish after rollback")
"""Steps after which a path is of another kind. A client that has shown it answers EIO from then on, whoever
published it ("changed file type ... Fix me" in GetDirentForInode of its cvmfs.cc)."""
RULES = ("--autocatalogs", "--max-weight", "120", "--min-weight", "20", "--uncompressed", "*.gz")


def collect(site: Site) -> None:
    site.headstart("repo", "gc", "--keep-revisions", "0")


def renew(site: Site) -> None:
    site.headstart("repo", "resign", "--days", "7")


def roll_over(site: Site) -> None:
    """Another certificate, then only that one."""
    old, new = site.root / "keys", site.root / "next"
    assert main(["repo", "rollover", str(FQRN), "--keys", str(old), "--to", str(new)]) == 0
    site.headstart("repo", "resign", "--add-certificate", str(new / f"{FQRN}.crt"))
    words = ["--storage", str(site.tools.storage), "--keys", str(new), "--published"]
    assert main(["repo", "resign", *words]) == 0
    site.headstart("repo", "resign", "--revoke", str(old / f"{FQRN}.crt"))
    for name in ("key", "crt"):
        shutil.copy(new / f"{FQRN}.{name}", old / f"{FQRN}.{name}")


def remember(tag: str) -> Callable[[Site], None]:
    def step(site: Site) -> None:
        site.headstart("repo", "tag", "add", tag, "-m", 'it\'s "quoted" and \u00fc')
        site.seen[tag] = look(site.tree)

    return step


def go_back(site: Site) -> None:
    site.headstart("repo", "rollback", "first")
    site.seen.pop("third")


STEPS: tuple[tuple[str, Callable[[Site], None]], ...] = (
    ("first", begin),
    ("nothing new", lambda site: site.publish(*RULES)),
    ("tag", remember("first")),
    ("grow", grow),
    ("kinds", replace_kinds),
    ("meta", lambda site: site.headstart("repo", "meta", "--set", "email=somebody@example.org")),
    ("tag again", remember("third")),
    ("untag", lambda site: site.headstart("repo", "tag", "remove", "second")),
    ("auto tag", lambda site: site.publish("--nanoseconds", "--auto-tag")),
    ("resign", renew),
    ("rollover", roll_over),
    ("gc", collect),
    ("rollback", go_back),
    ("gc after rollback", collect),
    ("publish after rollback", lambda site: site.publish(*RULES)),
    ("delete", lambda site: site.headstart("publish", "--delete", f"{AT}/nested")),
    ("delete all", lambda site: site.headstart("publish", "--delete", AT)),
    ("last gc", collect),
)


def test_the_stock_tools_have_nothing_to_complain_about(site: Site) -> None:
    tools = site.tools
    site.tree.mkdir()
    tools.check()
    tools.pull()
    with ExitStack() as stack:
        old = stack.enter_context(tools.mount("old"))
        for number, (name, step) in enumerate(STEPS):
            step(site)
            print(f"step {name}: revision {site.revision}")
            tools.check()
            tools.pull()
            expected = _expected(site, name)
            old.wait_for(site.revision)
            if name in OTHER_KINDS:
                stack.close()
                old = stack.enter_context(tools.mount(f"old-{number}"))
            _compare(look(old.root / AT[1:]) if expected else {}, expected, name)
            assert (old.root / AT[1:]).exists() == bool(expected)
            with tools.mount(f"new-{number}") as new:
                assert new.revision == site.revision
                _compare(look(new.root / AT[1:]) if expected else {}, expected, name)
    for tag, expected in site.seen.items():
        with tools.mount(f"tag-{tag}", CVMFS_REPOSITORY_TAG=tag) as past:
            _compare(look(past.root / AT[1:], nanoseconds=True), expected, tag)
        tools.check("-n", tag)


def _expected(site: Site, name: str) -> Look:
    if name in ("rollback", "gc after rollback"):
        return site.seen["first"]
    if name in ("delete all", "last gc"):
        return {}
    there = look(site.tree)
    if name == "delete":
        return {
            path: said
            for path, said in there.items()
            if path != b"/nested" and not path.startswith(b"/nested/")
        }
    return there


def _compare(found: Look, expected: Look, step: str) -> None:
    # Markers of catalogs that were made by weight are in the catalog only.
    found = {
        path: said
        for path, said in found.items()
        if path in expected or path.rpartition(b"/")[2] not in (b".cvmfscatalog", b".cvmfsautocatalog")
    }
    assert found.keys() == expected.keys(), f"after {step}: {sorted(found.keys() ^ expected.keys())[:10]}"
    for path, said in expected.items():
        assert found[path] == said, f"after {step}: {path!r}"


class Walk:
    """Changes of a tree by chance."""

    def __init__(self, tree: Path, chance: random.Random) -> None:
        self.tree = tree
        self.chance = chance
        self.made = 0

    def _any(self, *, directory: bool) -> Path:
        found = [self.tree] if directory else []
        for place, names, files in os.walk(self.tree):
            found += [Path(place) / name for name in (names if directory else files)]
        return self.chance.choice(found or [self.tree])

    def _new(self) -> Path:
        self.made += 1
        return self._any(directory=True) / f"{self.chance.choice('abc')}{self.made}"

    def write(self) -> None:
        place = self.chance.choice((self._new(), self._any(directory=False)))
        if place.is_symlink() or not place.is_dir():
            with suppress(FileNotFoundError):
                place.unlink()
            place.write_bytes(self.chance.randbytes(self.chance.choice((0, 1, 100, 3000))))

    def directory(self) -> None:
        place = self._new()
        place.mkdir()
        (place / "file").write_bytes(b"in %d" % self.made)
        if self.chance.random() < 0.5:
            (place / ".cvmfscatalog").touch()

    def remove(self) -> None:
        place = self._any(directory=self.chance.random() < 0.3)
        if place == self.tree:
            return
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()

    def move(self) -> None:
        place, there = self._any(directory=True), self._new()
        if not there.is_relative_to(place):
            place.rename(there)

    def link(self) -> None:
        place = self._any(directory=False)
        self.made += 1
        if place.is_file() and not place.is_symlink() and place.name != ".cvmfscatalog":
            os.link(place, place.with_name(f"hard{self.made}"))
        self._new().symlink_to(f"{place.name}")

    def attributes(self) -> None:
        place = self._any(directory=self.chance.random() < 0.5)
        if not place.is_symlink():
            place.chmod(self.chance.choice((0o755, 0o700, 0o644, 0o4711)))
            os.setxattr(place, f"user.{self.chance.choice('xyz')}", self.chance.randbytes(5))

    def kind(self) -> None:
        """What is at a path becomes a directory or a catalog, or is one no more."""
        place = self._any(directory=True)
        marker = place / ".cvmfscatalog"
        if place != self.tree and marker.exists():
            marker.unlink()
        elif place != self.tree:
            marker.touch()
        other = self._any(directory=False)
        if other != self.tree:
            other.unlink()
            if other.name != ".cvmfscatalog":
                other.mkdir()

    def step(self) -> None:
        for _ in range(self.chance.randint(0, 6)):
            what = (self.write, self.write, self.directory, self.remove, self.move, self.link)
            self.chance.choice((*what, self.attributes, self.kind))()


@pytest.mark.parametrize("seed", range(int(os.environ.get("HEADSTART_TEST_CVMFS_WALKS", "2"))))
@pytest.mark.parametrize("site", ["sha1"], indirect=True)
def test_nor_after_any_sequence_of_changes(site: Site, seed: int) -> None:
    chance = random.Random(seed)
    walk = Walk(site.tree, chance)
    site.tree.mkdir()
    weights = ("--autocatalogs", "--max-weight", "12", "--min-weight", "4")
    for number in range(20):
        walk.step()
        how = chance.choice((weights, (), ("--checksum",), ("--nanoseconds",)))
        site.publish(*how)
        shown = look(site.tree, nanoseconds="--nanoseconds" in how)
        match chance.randrange(8):
            case 0:
                site.headstart("repo", "tag", "add", f"tag{number}")
                site.seen[f"tag{number}"] = shown
            case 1 if site.seen:
                tag = chance.choice(sorted(site.seen))
                site.headstart("repo", "rollback", tag)
                shown = site.seen[tag]
                site.seen = {name: there for name, there in site.seen.items() if int(name[3:]) <= int(tag[3:])}
            case 2 | 3:
                collect(site)
            case 4 if site.seen:
                tag = chance.choice(sorted(site.seen))
                site.headstart("repo", "tag", "remove", tag)
                del site.seen[tag]
        site.tools.check()
        site.tools.pull()
        with site.tools.mount(str(number)) as client:
            assert client.revision == site.revision
            _compare(look(client.root / AT[1:], nanoseconds=True), shown, f"step {number}")
    for tag, expected in site.seen.items():
        with site.tools.mount(tag, CVMFS_REPOSITORY_TAG=tag) as past:
            _compare(look(past.root / AT[1:], nanoseconds=True), expected, tag)
