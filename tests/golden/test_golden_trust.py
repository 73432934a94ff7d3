"""Both golden repositories hold from the master key down to every byte."""

import hashlib
import stat
from datetime import UTC, datetime

import pytest

import goldens
from goldens import Golden
from headstart.cvmfs.entry import ChunkedFile, Directory, Entry, File, Symlink, entry_mode
from headstart.cvmfs.objects import Digest, Kind, ObjectName
from headstart.cvmfs.trust import MasterKeys
from headstart.errors import MissingError, TrustError
from headstart.names import Fqrn
from headstart.snapshot import Snapshot
from headstart.stratum import Stratum, check_path, too_long

pytestmark = goldens.needed
NO_FILE = 1 << 30


class MemoryStratum(Stratum):
    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.read: set[str] = set()

    @property
    def name(self) -> str:
        return "memory"

    def another(self) -> None:
        return None

    def fetch(self, path: str, *, limit: int, fresh: bool = False) -> bytes:
        self.read.add(check_path(path))
        if path not in self.files:
            raise MissingError(path)
        if len(self.files[path]) > limit:
            raise too_long(path, limit, self.name)
        return self.files[path]


def opened(golden: Golden, stratum: MemoryStratum, now: datetime = goldens.NOW) -> Snapshot:
    keys = MasterKeys.from_pems({golden.public_key: golden.master})
    return Snapshot.open(stratum, keys=keys, fqrn=Fqrn(golden.fqrn), now=now)


@pytest.mark.parametrize("golden", goldens.BOTH)
def test_every_catalog_and_every_file_verifies_and_the_listing_is_the_mount_s(golden: Golden) -> None:
    stratum = MemoryStratum(golden.files)
    snapshot = opened(golden, stratum)
    found = {path.decode(errors="surrogateescape") or "/": entry for path, entry in snapshot.walk(b"")}
    expected = {record["path"]: record for record in golden.entries()}
    # The listing was taken through a mount, which does not show the markers of a hidden directory's kind.
    assert set(found) == set(expected)
    for path, record in expected.items():
        entry = found[path]
        assert oct(entry_mode(entry)) == record["mode"], path
        assert (entry.stat.mtime, entry.stat.uid, entry.stat.gid) == (
            record["mtime"],
            record["uid"],
            record["gid"],
        ), path
        assert {key.decode(): value.decode() for key, value in entry.stat.xattrs} == record.get("xattrs", {}), (
            path
        )
        check_content(snapshot, path, entry, record)


def check_content(snapshot: Snapshot, path: str, entry: Entry, record: dict[str, object]) -> None:
    match entry:
        case File() | ChunkedFile():
            assert record["type"] == "file", path
            content = snapshot.read(path.encode(errors="surrogateescape"), limit=NO_FILE)
            assert len(content) == entry.size == record["size"], path
            assert hashlib.sha256(content).hexdigest() == record["sha256"], path
        case Symlink():
            assert entry.target.decode(errors="surrogateescape") == record["target"], path
        case Directory():
            assert record["type"] == "dir", path
        case _:
            assert stat.S_ISFIFO(entry_mode(entry)), path


@pytest.mark.parametrize("golden", goldens.BOTH)
def test_the_chain_reaches_every_object_of_the_head(golden: Golden) -> None:
    """Tag rev-A and older history aside, nothing lies in the storage that the chain does not name."""
    stratum = MemoryStratum(golden.files)
    snapshot = opened(golden, stratum)
    catalogs = list(snapshot.catalogs())
    assert len(catalogs) >= 4
    for catalog in catalogs:
        assert catalog.complaints() == []
    history = snapshot.history()
    assert history is not None
    assert {"rev-A", "rev-B", "trunk"} <= {tag.name for tag in history.tags}
    assert snapshot.metainfo() is not None
    objects = {path for path in golden.files if path.startswith("data/")}
    for path in objects:
        name, _, _ = path.partition("\0")
        text = name.removeprefix("data/").replace("/", "")
        kind = Kind(text[-1]) if text[-1].isupper() else Kind.FILE
        ObjectName(digest=Digest.parse(text.removesuffix(kind.value)), kind=kind).check(golden.files[path])


@pytest.mark.parametrize("golden", goldens.BOTH)
def test_the_other_master_key_does_not_open_it(golden: Golden) -> None:
    other = goldens.SHAKE128 if golden is goldens.SHA1 else goldens.SHA1
    keys = MasterKeys.from_pems({"other": other.master})
    with pytest.raises(TrustError, match="cvmfswhitelist"):
        Snapshot.open(MemoryStratum(golden.files), keys=keys, fqrn=None, now=goldens.NOW)


def test_the_whitelist_ends_at_the_start_of_its_hour() -> None:
    stratum = MemoryStratum(goldens.SHA1.files)
    # The format's worked example: E20361119194727.
    opened(goldens.SHA1, stratum, datetime(2036, 11, 19, 18, 59, 59, tzinfo=UTC))
    with pytest.raises(TrustError, match="expired"):
        opened(goldens.SHA1, stratum, datetime(2036, 11, 19, 19, 0, 0, tzinfo=UTC))
