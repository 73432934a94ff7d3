"""What differs between two states: found without reading what is the same, and never too little to fetch."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crashing import quick_disk
from headstart.cvmfs.entry import ChunkedFile, File, Mountpoint
from headstart.cvmfs.objects import Kind, ObjectName, Revision
from headstart.cvmfs.past import ByRevision
from headstart.diff import Difference, Fate, Side, compare
from headstart.errors import UnknownError
from headstart.repository import Wanted, publish_tree
from headstart.snapshot import Snapshot
from headstart.source import StorageSource, stored_size
from headstart.stratum import DirectoryStratum
from histories import timeline
from publishing import NOW as PUBLISHED
from publishing import keys, new_repository
from simulator import NOW, Simulator

__all__ = ["quick_disk"]


def opened(repository: Simulator) -> Snapshot:
    return Snapshot.open(repository, keys=repository.masters, fqrn=repository.fqrn, now=NOW)


def states(*trees: dict[str, str]) -> tuple[Simulator, list[Snapshot]]:
    """One repository, published with each tree; a directory with a name in capitals is a catalog of its own."""
    repository = Simulator()
    root = repository.tree[b""]
    found: list[Snapshot] = []
    for tree in trees:
        repository.tree = {b"": root}
        for path, content in tree.items():
            if content.startswith("-> "):
                repository.link(path, content[3:])
            else:
                repository.put(path, content.encode(), chunk=4 if len(content) > 8 else 0)
            for part in [path[:end] for end, sign in enumerate(path) if sign == "/" and end]:
                if part.rpartition("/")[2].isupper():
                    repository.nest(part)
        repository.publish()
        snapshot = opened(repository)
        snapshot.root_catalog  # noqa: B018 - before the manifest is replaced
        found.append(snapshot)
    return repository, found


def between(before: dict[str, str], after: dict[str, str]) -> Difference:
    _, (first, second) = states(before, after)
    return compare(Side(snapshot=first), Side(snapshot=second))


def fates(found: Difference) -> dict[str, str]:
    return {change.path.decode(): str(change.fate) for change in found.changes}


def test_equal_states_are_not_read() -> None:
    repository, (first, second) = states({"/a/b": "x"}, {"/a/b": "x"})
    again = compare(Side(snapshot=first), Side(snapshot=first))
    assert (again.changes, again.new, again.compared) == ([], {}, 0)
    assert compare(Side(snapshot=first), Side(snapshot=second)).changes == []
    assert repository.revision == 2


def test_each_kind_of_change() -> None:
    found = between(
        {"/same": "s", "/gone/deep": "g", "/text": "old", "/link": "-> a", "/kind": "file", "/dir/x": "x"},
        {"/same": "s", "/new/deep": "n", "/text": "new", "/link": "-> b", "/kind": "-> l", "/dir": "file"},
    )
    assert [(change.path.decode(), str(change.fate)) for change in found.changes] == [
        ("/dir", "removed"),
        ("/dir", "added"),
        ("/dir/x", "removed"),
        ("/gone", "removed"),
        ("/gone/deep", "removed"),
        ("/kind", "changed"),
        ("/link", "changed"),
        ("/new", "added"),
        ("/new/deep", "added"),
        ("/text", "changed"),
    ]
    what = {change.path: change.what for change in found.changes if change.fate is Fate.CHANGED}
    assert what == {b"/text": ("content",), b"/link": ("target",), b"/kind": ("kind", "mode")}


class Counting(DirectoryStratum):
    """A storage that notes what is read of it."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.read: list[str] = []

    def fetch(self, path: str, *, limit: int, fresh: bool = False) -> bytes:
        self.read.append(path)
        return super().fetch(path, limit=limit, fresh=fresh)


def test_what_is_nested_and_the_same_is_not_read(quick_disk: Path) -> None:
    place = new_repository(quick_disk / "storage")
    tree = quick_disk / "tree"
    for name in ("one", "two", "three"):
        (tree / name).mkdir(parents=True)
        (tree / name / ".cvmfscatalog").touch()
        (tree / name / "file").write_text(name)
    for number in (1, 2):
        (tree / "two" / "other").write_text(str(number))
        os.utime(tree / "two" / "other", (1, 1))
        publish_tree(place.target, Wanted(directory=str(tree), at=b"/tree"), PUBLISHED)
    stratum = Counting(str(place.root))
    snapshot = Snapshot.open(stratum, keys=keys().masters, fqrn=None, now=PUBLISHED)
    sides = [Side(snapshot=snapshot.at(ByRevision(Revision(number)))) for number in (2, 3)]
    stratum.read.clear()
    found = compare(*sides)
    assert {change.path: change.what for change in found.changes} == {b"/tree/two/other": ("content",)}
    assert (found.skipped, found.compared) == (2, 4)
    assert len(stratum.read) == 2  # the nested catalog, of either side


def test_a_moved_file_is_nothing_to_fetch() -> None:
    found = between({"/a/file": "content"}, {"/b/file": "content"})
    assert fates(found) == {"/a": "removed", "/a/file": "removed", "/b": "added", "/b/file": "added"}
    assert {name.kind for name in found.new} == {Kind.CATALOG}  # the new root catalog alone


def test_new_objects_are_those_that_only_the_second_has(quick_disk: Path) -> None:
    """Compared with the storage itself: what is fetched for revision 3 is what publishing it stored."""
    line = timeline(quick_disk, 3)
    master = keys().masters
    snapshot = Snapshot.open(DirectoryStratum(str(line.place.root)), keys=master, fqrn=None, now=line.now)
    first, second = (snapshot.at(ByRevision(Revision(number))) for number in (2, 3))
    found = compare(Side(snapshot=first), Side(snapshot=second))
    source = StorageSource(directory=str(line.place.root))
    before, after = objects(first), objects(second)
    assert set(found.new) == after - before
    fetched = found.fetched(lambda name: stored_size(source, name))
    assert fetched == sum((line.place.root / name.path).stat().st_size for name in after - before)
    assert found.fetched(lambda _name: None) is None
    shutil.rmtree(line.place.root)
    assert found.fetched(lambda name: stored_size(source, name)) is None


def objects(snapshot: Snapshot) -> set[ObjectName]:
    found = {ObjectName(digest=snapshot.root_digest, kind=Kind.CATALOG)}
    for catalog in snapshot.catalogs():
        found |= {ObjectName(digest=nested.digest, kind=Kind.CATALOG) for nested in catalog.nested.values()}
        for _, entry in catalog.entries():
            if isinstance(entry, File):
                found.add(ObjectName(digest=entry.digest, kind=Kind.FILE))
            elif isinstance(entry, ChunkedFile):
                found |= {ObjectName(digest=chunk.digest, kind=Kind.CHUNK) for chunk in entry.chunks}
    return found


names = st.sampled_from(["a", "b", "C", "D"])
contents = st.sampled_from(["", "x", "y", "long enough for chunks", "-> here", "-> there"])
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


def clean(tree: dict[str, str]) -> dict[str, str]:
    """Without files in the place of directories, or of catalogs."""
    return {
        path: content
        for path, content in tree.items()
        if not any(other.startswith(path + "/") for other in tree)
    }


trees = st.dictionaries(paths, contents, min_size=1, max_size=6).map(clean)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(trees, trees)
def test_a_comparison_finds_what_a_full_walk_finds(before: dict[str, str], after: dict[str, str]) -> None:
    _, (first, second) = states(before, after)
    found = compare(Side(snapshot=first), Side(snapshot=second))
    walked = [
        {path: entry for path, entry in snapshot.walk(b"") if path and not isinstance(entry, Mountpoint)}
        for snapshot in (first, second)
    ]
    # A change of kind between a directory and something else is told as one going and one coming.
    assert {change.path for change in found.changes if change.before is not None} - walked[0].keys() == set()
    added = {change.path for change in found.changes if change.fate is Fate.ADDED}
    removed = {change.path for change in found.changes if change.fate is Fate.REMOVED}
    assert added >= walked[1].keys() - walked[0].keys()
    assert removed >= walked[0].keys() - walked[1].keys()
    for path in walked[0].keys() & walked[1].keys():
        old, new = walked[0][path], walked[1][path]
        if isinstance(old, File | ChunkedFile) and isinstance(new, File | ChunkedFile):
            changed = any(change.path == path for change in found.changes)
            assert changed == (first.read(path, limit=99) != second.read(path, limit=99))
    assert set(found.new) >= objects(second) - objects(first)
    assert set(found.new) <= objects(second)


def test_a_side_that_is_not_there() -> None:
    _, (first, _) = states({"/a": "x"}, {"/a": "y"})
    with pytest.raises(UnknownError):
        compare(Side(snapshot=first, root=b"/none"), Side(snapshot=first, root=b"/other"))
