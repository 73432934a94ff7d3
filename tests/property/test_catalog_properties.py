"""Catalogs: any tree, written and read back, is the same tree, and nothing is wrong with it."""

import zlib
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.catalog_writer import Heading, write_catalog
from headstart.cvmfs.edition import Edition, Forest, Graft, Manner
from headstart.cvmfs.entry import (
    MARKER,
    Chunk,
    ChunkedFile,
    Compression,
    Directory,
    Entry,
    File,
    Mountpoint,
    Special,
    SpecialKind,
    Stat,
    Symlink,
    pack_xattrs,
    parent_of,
    unpack_xattrs,
)
from headstart.cvmfs.objects import Algorithm, Digest, ObjectName, Revision
from headstart.cvmfs.rows import Counters
from strategies import digests

EMPTY = Algorithm.SHA1.digest(zlib.compress(b""))
names = st.one_of(
    st.sampled_from(
        [b"a", b"b", b"lib", b"a-b", b"\xff\xfe", "grüße".encode(), b"with space", b"quote'\"", b"%5C$"]
    ),
    st.binary(min_size=1, max_size=8).filter(
        lambda name: not set(name) & {0, 47} and name not in (b".", b"..")
    ),
).filter(lambda name: name != MARKER)
xattrs = st.dictionaries(st.binary(min_size=1, max_size=255), st.binary(max_size=255), max_size=3).map(
    lambda pairs: tuple(sorted(pairs.items()))
)
stats = st.builds(
    Stat,
    mode=st.integers(0, 0o7777),
    mtime=st.integers(-(2**40), 2**40),
    mtimens=st.none() | st.integers(0, 999_999_999),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    xattrs=xattrs,
)
files = st.builds(
    File,
    name=names,
    stat=stats,
    size=st.integers(0, 2**50),
    digest=digests,
    compression=st.sampled_from(Compression),
)


@st.composite
def chunked_files(draw: st.DrawFn) -> ChunkedFile:
    algorithm = draw(st.sampled_from(Algorithm))
    chunks: list[Chunk] = []
    at = 0
    for size in draw(st.lists(st.integers(1, 2**24), min_size=1, max_size=4)):
        raw = draw(st.binary(min_size=20, max_size=20).filter(any))
        chunks.append(Chunk(offset=at, size=size, digest=Digest(algorithm=algorithm, raw=raw)))
        at += size
    return ChunkedFile(
        name=draw(names),
        stat=draw(stats),
        size=at,
        chunks=tuple(chunks),
        compression=draw(st.sampled_from(Compression)),
    )


leaves: st.SearchStrategy[Entry] = st.one_of(
    files,
    chunked_files(),
    st.builds(
        Symlink,
        name=names,
        stat=stats,
        target=st.binary(min_size=1, max_size=40).filter(lambda to: 0 not in to),
    ),
    st.builds(Special, name=names, stat=stats, kind=st.sampled_from([SpecialKind.FIFO, SpecialKind.SOCKET])),
    st.builds(
        Special,
        name=names,
        stat=stats,
        kind=st.sampled_from([SpecialKind.CHARACTER, SpecialKind.BLOCK]),
        rdev=st.integers(0, 2**40),
    ),
)


@st.composite
def trees(draw: st.DrawFn, at: bytes = b"", depth: int = 3, *, markers: bool = True) -> dict[bytes, Entry]:
    """A directory at ``at`` and all that is in it, some directories marked as catalogs of their own."""
    entries: dict[bytes, Entry] = {at: Directory(name=at.rpartition(b"/")[2], stat=draw(stats))}
    for leaf in draw(st.lists(leaves, max_size=3)):
        entries[at + b"/" + leaf.name] = leaf
    if depth:
        for name in draw(st.lists(names, max_size=2)):
            path = at + b"/" + name
            if path not in entries:
                entries |= draw(trees(path, depth - 1, markers=markers))
    if at and markers and draw(st.booleans()):
        entries[at + b"/" + MARKER] = File(name=MARKER, stat=draw(stats), size=0, digest=EMPTY)
    return entries


class Storage:
    """Catalogs by name, and the forest of the newest root."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.forest: Forest | None = None
        self.revision = 0

    def fetch(self, name: ObjectName) -> bytes:
        return self.objects[name.path]

    def publish(self, *grafts: Graft) -> int:
        """Apply grafts as one revision, and say how many catalogs are new."""
        manner = Manner(
            revision=Revision(self.revision + 1),
            when=1_800_000_000 + self.revision,
            ttl=240,
            algorithm=Algorithm.SHAKE128,
            encode=zlib.compress,
        )
        edition = Edition(self.forest, manner)
        for graft in grafts:
            edition.graft(graft)
        edited = edition.finish()
        for catalog in edited.catalogs:
            self.objects[catalog.name.path] = catalog.stored
        if edited.root is not None:
            self.revision += 1
            database = zlib.decompress(edited.root.stored)
            root = Catalog.from_bytes(database, mountpoint=b"")
            assert root.revision == self.revision
            self.forest = Forest(root, edited.root.name.digest, self.fetch)
        return len(edited.catalogs)

    def content(self) -> dict[bytes, Entry]:
        """Everything, without mountpoints; every catalog is checked on the way."""
        assert self.forest is not None
        found: dict[bytes, Entry] = {}
        catalogs = {catalog.mountpoint: catalog for catalog in self.forest.catalogs()}
        for catalog in catalogs.values():
            assert catalog.complaints() == []
            assert catalog.complaints_about({path: catalogs[path] for path in catalog.nested}) == []
            if catalog.previous_revision is not None:
                assert any(str(catalog.previous_revision)[2:] in path for path in self.objects)
            for path, entry in catalog.entries():
                assert self.forest.lookup(path) is not None
                if not isinstance(entry, Mountpoint):
                    found[path] = entry
        return found


@settings(deadline=None, max_examples=60)
@given(trees(depth=1, markers=False))
def test_one_catalog_gives_back_its_entries(tree: dict[bytes, Entry]) -> None:
    heading = Heading(mountpoint=b"", revision=Revision(7), last_modified=12, ttl=100, previous=EMPTY)
    made = write_catalog(heading, sorted(tree.items()), {}, Counters())
    again = write_catalog(heading, sorted(tree.items()), {}, Counters())
    assert made.database == again.database
    catalog = Catalog.from_bytes(made.database, mountpoint=b"")
    assert catalog.complaints() == []
    assert dict(catalog.entries()) == tree
    assert all(catalog.lookup(path) == entry for path, entry in tree.items())
    assert (catalog.revision, catalog.last_modified, catalog.ttl) == (7, 12, 100)
    assert catalog.previous_revision == EMPTY
    assert catalog.statistics == made.statistics


@settings(deadline=None, max_examples=60)
@given(trees())
def test_nested_catalogs_give_back_the_tree(tree: dict[bytes, Entry]) -> None:
    storage = Storage()
    storage.publish(Graft(path=b"", entries=tree))
    assert storage.content() == tree
    marked = {parent_of(path) for path, entry in tree.items() if entry.name == MARKER}
    assert storage.forest is not None
    assert {catalog.mountpoint for catalog in storage.forest.catalogs()} == marked | {b""}


@settings(deadline=None, max_examples=60)
@given(trees())
def test_publishing_the_same_again_changes_nothing(tree: dict[bytes, Entry]) -> None:
    storage = Storage()
    storage.publish(Graft(path=b"", entries=tree))
    assert storage.publish(Graft(path=b"", entries=tree)) == 0
    assert storage.revision == 1


places = st.lists(st.sampled_from([b"a", b"b", b"lib"]), min_size=1, max_size=3).map(
    lambda parts: b"/" + b"/".join(parts)
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(places.flatmap(lambda at: st.tuples(st.just(at), trees(at, 2))), min_size=1, max_size=5), st.data()
)
def test_grafts_one_after_another_give_what_a_dictionary_gives(
    grafts: list[tuple[bytes, dict[bytes, Entry]]], data: st.DataObject
) -> None:
    storage = Storage()
    storage.publish()
    model: dict[bytes, Entry] = storage.content()
    together = data.draw(st.booleans(), label="in one revision")
    waiting: list[Graft] = []
    for path, tree in grafts:
        if not _reachable(model, path):
            continue
        waiting.append(Graft(path=path, entries=tree))
        model = {
            at: entry for at, entry in model.items() if at != path and not at.startswith(path + b"/")
        } | tree
        for at in _above(path):
            model.setdefault(at, Directory(name=at.rpartition(b"/")[2], stat=Stat(mode=0o755, mtime=0)))
        if not together:
            storage.publish(*waiting)
            waiting.clear()
    storage.publish(*waiting)
    assert _timeless(storage.content()) == _timeless(model)


def _above(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[:end]) for end in range(2, len(parts))]


def _reachable(model: Mapping[bytes, Entry], path: bytes) -> bool:
    return all(isinstance(model.get(at), Directory | None) for at in _above(path))


def _timeless(content: Mapping[bytes, Entry]) -> dict[bytes, Entry]:
    """Without the times of directories, which change when something is put into them."""
    return {
        path: replace(entry, stat=replace(entry.stat, mtime=0, mtimens=None))
        if isinstance(entry, Directory)
        else entry
        for path, entry in content.items()
    }


@given(xattrs)
def test_extended_attributes_survive(pairs: tuple[tuple[bytes, bytes], ...]) -> None:
    assert unpack_xattrs(pack_xattrs(pairs)) == pairs
