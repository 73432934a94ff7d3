"""Any sequence of edits of a tree, published one after the other, gives what one publication of the last gives.

Apart, because they say how it came to be: revisions, times of publication, predecessors, and with them the
names of nested catalogs. Everything else is equal, row by row. The tree is a real one on disk; each edit sets a
time of its own, so that nothing depends on how fast the test runs.
"""

import contextlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headstart.cvmfs.balance import Weights
from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.chunks import ChunkSizes
from headstart.cvmfs.dirtab import Dirtab
from headstart.cvmfs.edition import Edition, Forest, Graft, Manner, NewCatalog
from headstart.cvmfs.entry import AUTO_MARKER, MARKER, Entry, File, Mountpoint
from headstart.cvmfs.objects import Algorithm, Kind, ObjectName, Revision
from headstart.cvmfs.rows import Row, Statistics
from headstart.ingest import Ingestion, Recipe
from headstart.repository.drafts import Tally, Tree
from headstart.repository.synchronize import Synchronization
from headstart.tree import AS_IT_IS
from headstart.treestate import TreeState

AT = b"/some/tree"
HORIZON = 1 << 62
"""Later than everything: what is remembered holds."""
RULES = Dirtab.parse(b"/some/tree/*/lib\n! *dir/lib\n", where="rules")
NAMES = st.sampled_from(["a", "b", "lib", "dir", "z\udcff"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
PICKS = st.integers(0, 30)
SIZES = ChunkSizes(minimum=64, average=128, maximum=256)


@dataclass
class Memory:
    """A storage: objects by path, and the catalogs of the newest state. It is its own transaction."""

    objects: dict[str, bytes] = field(default_factory=dict)
    forest: Forest | None = None
    revision: int = 0

    def put(self, name: ObjectName, stored: bytes) -> bool:
        new = name.path not in self.objects
        self.objects[name.path] = stored
        return new

    def settle(self) -> None:
        pass

    def replace(self, path: str, content: bytes) -> None:
        raise AssertionError(path, content)

    def delete(self, paths: Iterable[str]) -> None:
        raise AssertionError(paths)

    def remove(self, path: str) -> None:
        raise AssertionError(path)

    def fetch(self, name: ObjectName) -> bytes:
        return self.objects[name.path]

    def deliver(self, catalog: NewCatalog) -> None:
        self.put(catalog.name, catalog.stored)

    def change(self, act: Callable[[Edition], None]) -> bool:
        """One revision, if there is anything new."""
        manner = Manner(
            revision=Revision(self.revision + 1),
            when=1_800_000_000,
            ttl=240,
            algorithm=Algorithm.SHA1,
            encode=zlib.compress,
        )
        edition = Edition(self.forest, manner, self.deliver)
        act(edition)
        root = edition.finish().root
        if root is not None:
            self.put(root.name, root.stored)
            self.revision += 1
            catalog = Catalog.from_bytes(zlib.decompress(root.stored), mountpoint=b"")
            self.forest = Forest(catalog, root.name.digest, self.fetch)
        return root is not None

    def publish(self, tree: Tree, state: str | None) -> tuple[bool, Tally]:
        """Bring the tree in, and keep what the state is to remember."""
        assert self.forest is not None
        base = self.forest
        recipe = Recipe(sizes=SIZES, compress=zlib.compress)
        with (
            TreeState(state, {}, {}) as memory,
            Ingestion(recipe, self, lambda _: None) as ingestion,
        ):
            found: list[Synchronization] = []

            def act(edition: Edition) -> None:
                found.append(Synchronization(tree, base, edition, ingestion, (memory, HORIZON)))
                found[0].run()

            changed = self.change(act)
            holder = self.forest.mounted(self.forest.holder(tree.at).mountpoint)
            assert holder is not None
            found[0].remember_holder(str(holder[1]))
            memory.keep()
            return changed, found[0].tally

    def catalogs(self) -> dict[bytes, tuple[Statistics, frozenset[bytes], dict[bytes, Row]]]:
        """Counters, mountpoints and rows of every catalog, each of which is looked at for whatever is wrong."""
        assert self.forest is not None
        found = {catalog.mountpoint: catalog for catalog in self.forest.catalogs()}
        for catalog in found.values():
            assert catalog.complaints() == []
            assert catalog.complaints_about({path: found[path] for path in catalog.nested}) == []
            for _, entry in catalog.entries():
                if isinstance(entry, File):
                    assert ObjectName(digest=entry.digest, kind=Kind.FILE).path in self.objects
        return {
            path: (
                catalog.statistics,
                frozenset(catalog.nested),
                {str((row.md5path_1, row.md5path_2)).encode(): row for row in catalog.rows.every()},
            )
            for path, catalog in found.items()
        }

    def content(self) -> dict[bytes, Entry]:
        """Everything, whatever catalog it is in, without the markers."""
        assert self.forest is not None
        return {
            path: replace(entry, stat=replace(entry.stat, link_group=0))
            for catalog in self.forest.catalogs()
            for path, entry in catalog.entries()
            if not isinstance(entry, Mountpoint) and not entry.name.startswith(b".cvmfs")
        }


def new_memory() -> Memory:
    memory = Memory()
    memory.change(lambda _: None)
    return memory


class Edits(RuleBasedStateMachine):
    """Edits of a tree, publications of it, and others who publish over it."""

    weights: Weights | None = None

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="headstart-tree-")
        self.root = Path(self.folder, "tree")
        self.root.mkdir()
        # In memory where there is one: it is synced each time.
        fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.quick = tempfile.mkdtemp(prefix="headstart-state-", dir=fast)
        self.state = f"{self.quick}/new/tree.sqlite"
        self.clock = 1_700_000_000_000_000_000
        self.memory = new_memory()
        self.dirty = True

    def teardown(self) -> None:
        shutil.rmtree(self.folder)
        shutil.rmtree(self.quick)

    def stamp(self, *paths: Path) -> None:
        """Give everything that an edit touched a time that nothing else has."""
        self.dirty = True
        for path in paths:
            self.clock += 1_000_000_007
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, ns=(self.clock, self.clock), follow_symlinks=False)

    def place(self, path: str) -> Path | None:
        """Where an edit can be, with the directories on the way; None if a file is in the way."""
        place = self.root / path
        for above in reversed(place.relative_to(self.root).parents):
            inner = self.root / above
            if inner.is_symlink() or (inner.exists() and not inner.is_dir()):
                return None
            if not inner.exists():
                inner.mkdir()
                self.stamp(inner, inner.parent)
        return place

    def existing(self, pick: int) -> str | None:
        """One of the things that are there."""
        found = sorted(
            os.path.relpath(os.path.join(folder, name), self.root)
            for folder, folders, files in os.walk(self.root)
            for name in folders + files
        )
        return found[pick % len(found)] if found else None

    def clear(self, place: Path) -> None:
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        elif place.is_symlink() or place.exists():
            place.unlink()

    @rule(path=PATHS, size=st.sampled_from([0, 1, 10, 300, 900]), seed=st.integers(0, 3))
    def write(self, path: str, size: int, seed: int) -> None:
        place = self.place(path)
        if place is not None:
            if place.is_dir() or place.is_symlink() or place.is_fifo():
                self.clear(place)
            place.write_bytes(bytes((seed * 37 + at * at) % 251 for at in range(size)))
            self.stamp(place, place.parent)

    @rule(path=PATHS)
    def make_directory(self, path: str) -> None:
        place = self.place(path)
        if place is not None and not (place.is_dir() and not place.is_symlink()):
            self.clear(place)
            place.mkdir()
            self.stamp(place, place.parent)

    @rule(pick=PICKS)
    def remove(self, pick: int) -> None:
        path = self.existing(pick)
        if path is None:
            return
        place = self.place(path)
        if place is not None:
            self.clear(place)
            self.stamp(place.parent)

    @rule(pick=PICKS, new=PATHS)
    def move(self, pick: int, new: str) -> None:
        old = self.existing(pick)
        if old is None:
            return
        source, target = self.place(old), self.place(new)
        if source is None or target is None or not os.path.lexists(source):
            return
        if f"{new}/".startswith(f"{old}/") or f"{old}/".startswith(f"{new}/"):
            return
        self.clear(target)
        source.rename(target)
        self.stamp(source.parent, target.parent)

    @rule(path=PATHS, to=st.sampled_from(["a", "../b", "$(VAR:-x)"]))
    def link(self, path: str, to: str) -> None:
        place = self.place(path)
        if place is not None:
            self.clear(place)
            place.symlink_to(to)
            self.stamp(place, place.parent)

    @rule(pick=PICKS, name=NAMES)
    def hard_link(self, pick: int, name: str) -> None:
        path = self.existing(pick)
        if path is None:
            return
        place = self.place(path)
        if place is not None and place.is_file() and not place.is_symlink() and place.name != name:
            other = place.with_name(name)
            self.clear(other)
            os.link(place, other)
            self.stamp(place, place.parent)

    @rule(path=PATHS)
    def fifo(self, path: str) -> None:
        place = self.place(path)
        if place is not None:
            self.clear(place)
            os.mkfifo(place)
            self.stamp(place, place.parent)

    @rule(pick=PICKS, mode=st.sampled_from([0o755, 0o700, 0o4711]), colour=st.binary(max_size=4))
    def attributes(self, pick: int, mode: int, colour: bytes) -> None:
        path = self.existing(pick)
        if path is None:
            return
        place = self.place(path)
        if place is not None and os.path.lexists(place) and not place.is_symlink():
            place.chmod(mode)
            if place.is_file() or place.is_dir():
                os.setxattr(place, "user.colour", colour)
            self.stamp(place)

    @rule(path=PATHS)
    def mark(self, path: str) -> None:
        place = self.place(f"{path}/.cvmfscatalog")
        if place is not None:
            if place.exists():
                place.unlink()
            else:
                place.touch()
            self.stamp(place, place.parent)

    @rule(pick=PICKS)
    def meddle(self, pick: int) -> None:
        """Somebody else publishes over a path of the tree, or takes it away."""
        path = self.existing(pick)
        if path is None:
            return
        at = AT + b"/" + os.fsencode(path)
        forest = self.memory.forest
        assert forest is not None
        entry = forest.lookup(at)
        if entry is None or entry.name in (MARKER, AUTO_MARKER):
            return
        if isinstance(entry, File):
            stored = zlib.compress(b"*" * entry.size)
            digest = Algorithm.SHA1.digest(stored)
            self.memory.put(ObjectName(digest=digest, kind=Kind.FILE), stored)
            other = replace(entry, digest=digest)
            self.memory.change(lambda edition: edition.graft(Graft(path=at, entries={at: other})))
        else:
            self.memory.change(lambda edition: edition.remove(at))
        self.dirty = True

    @rule()
    def forget(self) -> None:
        """The state is lost."""
        Path(self.state).unlink(missing_ok=True)

    def tree(self) -> Tree:
        return Tree(directory=str(self.root), at=AT, manners=AS_IT_IS, dirtab=RULES, weights=self.weights)

    @rule()
    def publish(self) -> None:
        self.memory.publish(self.tree(), self.state)
        once = new_memory()
        once.publish(self.tree(), None)
        self.compare(once)
        self.dirty = False

    @rule()
    def publish_more_often(self) -> None:
        """Without it most edits would meet in one publication."""
        self.publish()

    @rule(pick=PICKS)
    def meddle_and_publish(self, pick: int) -> None:
        self.publish()
        self.meddle(pick)
        self.publish()

    def compare(self, once: Memory) -> None:
        assert cleaned(self.memory) == cleaned(once)

    @precondition(lambda self: not self.dirty)
    @invariant()
    def nothing_new_is_no_revision(self) -> None:
        changed, tally = self.memory.publish(self.tree(), self.state)
        assert not changed
        if Path(self.state).exists() and tally.read:
            # The state was lost since: now it is there again.
            changed, tally = self.memory.publish(self.tree(), self.state)
        assert (changed, tally.read, tally.catalogs) == (False, 0, [])


def cleaned(memory: Memory) -> dict[bytes, object]:
    """Catalogs without their row numbers and the times of directories above the tree."""
    found: dict[bytes, object] = {}
    for mountpoint, (statistics, nested, rows) in memory.catalogs().items():
        found[mountpoint] = statistics, nested, {key: row._replace(rowid=0) for key, row in rows.items()}
    return found


class DividedEdits(Edits):
    """The same where catalogs are divided by weight, which depends on what was there: content is compared."""

    weights = Weights(minimum=3, maximum=6)

    def compare(self, once: Memory) -> None:
        assert self.memory.content() == once.content()
        assert self.memory.catalogs().keys() >= {b""}


SOME = settings(deadline=None, max_examples=20, stateful_step_count=25)
TestEdits = Edits.TestCase
TestEdits.settings = SOME
TestDividedEdits = DividedEdits.TestCase
TestDividedEdits.settings = SOME
