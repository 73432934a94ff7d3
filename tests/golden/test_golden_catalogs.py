"""Publishing the tree of the golden repositories gives the golden catalogs, row by row.

Apart: times of publication, the root directory's own time, row numbers (the real publisher leaves gaps) and the
order of rows. Everything else must be equal, digests of zlib objects and chunk rows included.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headstart.cvmfs.catalog import Catalog, Compression
from headstart.cvmfs.chunks import ChunkSizes
from headstart.cvmfs.database import Database
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName, inflate
from headstart.cvmfs.rows import TABLES, Row
from headstart.cvmfs.signature import Letter
from headstart.deflating import stock
from headstart.ingest import Recipe
from headstart.keys import create_keys, load_master_key
from headstart.names import Fqrn
from headstart.repository import AllKeys, Means, Settings, Wanted, create, publish_tree
from headstart.store import DirectoryStore
from headstart.tree import Manners

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
NOW = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)
MIB = 1 << 20
SIZES = ChunkSizes(minimum=MIB, average=4 * MIB, maximum=8 * MIB)
OWNER = Manners(owner=(999, 995))
REPOSITORIES = {
    "test.local.repo": ("golden-repo.tar", Algorithm.SHA1, Compression.ZLIB),
    "shake.local.repo": ("golden-repo-shake128-uncompressed.tar.xz", Algorithm.SHAKE128, Compression.NONE),
}

pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="the golden repositories are not beside this checkout"
)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source tree at both revisions."""
    folder = tmp_path_factory.mktemp("trees")
    make_tree(folder / "1", 1)
    subprocess.run(["cp", "-a", folder / "1", folder / "2"], check=True)
    make_tree(folder / "2", 2)
    return folder / "1", folder / "2"


@pytest.fixture(scope="module", params=sorted(REPOSITORIES))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, trees: tuple[Path, Path]
) -> Iterator[tuple[Path, Path]]:
    """The golden repository and ours, both unpacked; ours after publishing both revisions of the tree."""
    folder = tmp_path_factory.mktemp("golden")
    name, (archive, algorithm, compression) = request.param, REPOSITORIES[request.param]
    with tarfile.open(GOLDEN / archive) as tar:
        tar.extractall(folder, filter="data")
    fqrn = Fqrn(name)
    keys = create_keys(str(folder / "keys"), fqrn, now=NOW)
    store = DirectoryStore(str(folder / "ours"))
    settings = Settings(algorithm=algorithm, encode=stock, garbage_collectable=algorithm is not Algorithm.SHA1)
    create(store, AllKeys(keys=keys, master=load_master_key(str(folder / "keys"), fqrn)), NOW, settings)
    means = Means(recipe=Recipe(compression=compression, compress=stock, sizes=SIZES))
    for tree in trees:
        publish_tree((store, keys), Wanted(directory=str(tree), at=b"", manners=OWNER), NOW, means)
    yield folder / name, folder / "ours"
    shutil.rmtree(folder)


def make_tree(tree: Path, revision: int) -> None:
    subprocess.run([sys.executable, GOLDEN / "maketree.py", tree, str(revision)], check=True)
    if revision == 1:
        # What its makers set on the mounted tree (see the golden README and listing).
        os.mkfifo(tree / "modes" / "fifo", 0o644)
        os.chmod(tree / "modes" / "fifo", 0o644)
        os.setxattr(tree / "bin" / "hello.sh", "user.test.color", b"blue")
        for changed in (tree / "modes" / "fifo", tree / "modes", tree / "bin" / "hello.sh"):
            os.utime(changed, (1700001000, 1700001000))


def manifest_of(repository: Path) -> Manifest:
    return Manifest.from_bytes(Letter.cut((repository / ".cvmfspublished").read_bytes(), what="manifest").text)


def database_of(repository: Path, digest: Digest, mountpoint: bytes) -> tuple[Database, Catalog]:
    name = ObjectName(digest=digest, kind=Kind.CATALOG)
    stored = (repository / name.path).read_bytes()
    name.check(stored)
    data = inflate(stored, limit=1 << 24, what="catalog")
    return Database(data, where="catalog", tables=TABLES), Catalog.from_bytes(data, mountpoint=mountpoint)


def catalogs_of(repository: Path) -> dict[bytes, tuple[Database, Catalog]]:
    """All catalogs of the head, by mountpoint."""
    found: dict[bytes, tuple[Database, Catalog]] = {}
    waiting = [(b"", manifest_of(repository).root_catalog)]
    while waiting:
        mountpoint, digest = waiting.pop()
        found[mountpoint] = database_of(repository, digest, mountpoint)
        waiting += [(path, nested.digest) for path, nested in found[mountpoint][1].nested.items()]
    return found


def rows_of(database: Database) -> dict[object, tuple[object, ...]]:
    """Rows without their numbers, by name hash; the root directory's without its time."""
    found: dict[object, tuple[object, ...]] = {}
    for full in database.query("SELECT rowid, * FROM catalog"):
        row = Row(*full)._replace(rowid=0)
        found[row.md5path_1, row.md5path_2] = row._replace(mtime=0) if row.name == b"" else row
    return found


def test_both_have_the_same_catalogs(pair: tuple[Path, Path]) -> None:
    golden, ours = (catalogs_of(repository) for repository in pair)
    expected = {b"", b"/software/1.0", b"/software/1.0/share/inner", b"/software/2.0"}
    assert golden.keys() == ours.keys() == expected


def test_entries_are_equal_row_by_row(pair: tuple[Path, Path]) -> None:
    golden, ours = (catalogs_of(repository) for repository in pair)
    for mountpoint, (database, _) in golden.items():
        assert rows_of(ours[mountpoint][0]) == rows_of(database)


def test_chunks_are_equal_row_by_row(pair: tuple[Path, Path]) -> None:
    golden, ours = (catalogs_of(repository) for repository in pair)
    for mountpoint, (database, _) in golden.items():
        query = "SELECT md5path_1, md5path_2, offset, size, hash FROM chunks ORDER BY 1, 2, 3"
        assert ours[mountpoint][0].query(query) == database.query(query)
    assert len(ours[b""][0].query("SELECT * FROM chunks")) == 4


def test_counters_and_properties_are_equal(pair: tuple[Path, Path]) -> None:
    golden, ours = (catalogs_of(repository) for repository in pair)
    for mountpoint, (database, catalog) in golden.items():
        other, our = ours[mountpoint]
        assert our.statistics == catalog.statistics
        assert our.revision == catalog.revision
        times = ("last_modified", "previous_revision")
        said = {key: value for key, value in database.properties().items() if key not in times}
        assert {key: value for key, value in other.properties().items() if key not in times} == said
        assert (our.previous_revision is None) == (catalog.previous_revision is None)


def test_the_schema_is_the_same(pair: tuple[Path, Path]) -> None:
    query = "SELECT name, type FROM sqlite_master ORDER BY name"
    golden, ours = (catalogs_of(repository) for repository in pair)
    assert ours[b""][0].query(query) == golden[b""][0].query(query)
    for table in TABLES:
        info = f"PRAGMA table_info({table})"
        assert ours[b""][0].query(info) == golden[b""][0].query(info)


def test_nothing_to_complain_about(pair: tuple[Path, Path]) -> None:
    for repository in pair:
        catalogs = catalogs_of(repository)
        for _, catalog in catalogs.values():
            assert catalog.complaints() == []
            assert catalog.complaints_about({path: catalogs[path][1] for path in catalog.nested}) == []


def test_the_unchanged_catalog_keeps_its_first_revision(pair: tuple[Path, Path]) -> None:
    for repository in pair:
        revisions = {
            mountpoint: catalog.revision for mountpoint, (_, catalog) in catalogs_of(repository).items()
        }
        assert revisions == {b"": 3, b"/software/1.0": 2, b"/software/1.0/share/inner": 1, b"/software/2.0": 1}


def test_every_golden_object_of_a_file_is_ours_too(pair: tuple[Path, Path]) -> None:
    """Stock level 6 gives the very names, so each file of the head lies in our storage under them."""
    golden, ours = pair
    for _, catalog in catalogs_of(golden).values():
        for row in catalog.rows.every():
            if row.hash is not None:
                digest = Digest(algorithm=manifest_of(golden).algorithm, raw=row.hash)
                path = ObjectName(digest=digest, kind=Kind.FILE).path
                assert (ours / path).read_bytes() == (golden / path).read_bytes()
