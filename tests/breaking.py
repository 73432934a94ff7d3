"""A whole, signed repository in memory to be broken in one place, with all else signed again correctly."""

import hashlib
import sqlite3
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.entry import ChunkedFile, File, Mountpoint, path_hash
from headstart.cvmfs.history import History
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objects import Digest, Kind, ObjectName, inflate
from headstart.cvmfs.reflog import REFLOG_FILE, Reflog, present
from headstart.cvmfs.signature import Letter
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.repository.check import Subject, check
from headstart.repository.report import Report
from headstart.snapshot import Snapshot
from memorystore import MemoryStore
from simulator import NOW, Simulator, rsa_signer

NESTED = b"/a/inner"
CONTENT = {b"/a/file": b"content", b"/a/chunked": b"0123456789" * 3, b"/a/inner/file": b"inner", b"/empty": b""}


def at(path: bytes) -> str:
    """The condition that finds a path's row."""
    return "WHERE md5path_1={} AND md5path_2={}".format(*path_hash(path))


@dataclass(slots=True)
class Broken:
    """A repository with a bit of everything, and ways to change it as a careless publisher would."""

    simulator: Simulator = field(default_factory=Simulator)

    def __post_init__(self) -> None:
        made = self.simulator
        for path, content in CONTENT.items():
            made.put(path.decode(), content, chunk=10 if b"chunked" in path else 0)
        made.link("/a/link", "file")
        made.nest(NESTED.decode())
        made.publish()
        made.files[".cvmfs_master_replica"] = b"yes\n"
        metainfo = made.store(zlib.compress(b"{}\n"), Kind.METAINFO)
        self.sign(metainfo=metainfo)

    @property
    def files(self) -> dict[str, bytes]:
        return self.simulator.files

    @property
    def manifest(self) -> Manifest:
        return self.simulator.manifest

    def sign(self, **changes: Any) -> None:
        """Another manifest, with a log of references that fits it."""
        manifest = replace(self.manifest, **changes)
        log = Reflog(fqrn=manifest.fqrn, references=present(manifest)).to_bytes()
        self.files[REFLOG_FILE] = log
        self.simulator.sign_manifest(replace(manifest, reflog=manifest.algorithm.digest(log)))

    def letter(self, change: Callable[[bytes], bytes]) -> None:
        """The manifest's text changed, hashed and signed."""
        text = change(Letter.cut(self.files[MANIFEST_FILE], what="it").text)
        line = hashlib.sha1(text).hexdigest().encode()
        self.files[MANIFEST_FILE] = text + b"--\n" + line + b"\n" + rsa_signer("repository").sign_sha1(line)

    def signature(self, make: Callable[[bytes, bytes], bytes], file: str = MANIFEST_FILE) -> None:
        """Another signature behind the hash: made of the text and of the line with its hash."""
        letter = Letter.cut(self.files[file], what="it")
        head = letter.text + b"--\n" + letter.hash_line + b"\n"
        self.files[file] = head + make(letter.text, letter.hash_line)

    # -- catalogs ----------------------------------------------------------------------------------------------

    def database(self, digest: Digest, kind: Kind = Kind.CATALOG) -> bytes:
        stored = self.files[ObjectName(digest=digest, kind=kind).path]
        return inflate(stored, limit=1 << 24, what="it")

    def root(self, *sql: str, change: Callable[[bytes], bytes] = bytes, size: int | None = None) -> None:
        """Another root catalog: after some SQL and a change of its bytes; tags and log name it."""
        old = self.manifest.root_catalog
        data = change(changed(self.database(old), *sql))
        del self.files[ObjectName(digest=old, kind=Kind.CATALOG).path]
        self.publish_root(zlib.compress(data), len(data) if size is None else size)

    def publish_root(self, stored: bytes, size: int, kind: Kind = Kind.CATALOG) -> None:
        digest = self.simulator.store(stored, kind)
        history = self.history
        tags = tuple(replace(tag, digest=digest, size=size) for tag in history.tags)
        self.sign(
            root_catalog=digest,
            root_size=size,
            history=self.store_history(replace(history, tags=tags).to_bytes()),
        )

    def nested(self, *sql: str) -> None:
        """Another nested catalog, which the root catalog names."""
        root = Catalog.from_bytes(self.database(self.manifest.root_catalog), mountpoint=b"")
        old = root.nested[NESTED].digest
        data = changed(self.database(old), *sql)
        del self.files[ObjectName(digest=old, kind=Kind.CATALOG).path]
        digest = self.simulator.store(zlib.compress(data), Kind.CATALOG)
        self.root(f"UPDATE nested_catalogs SET sha1='{digest}', size={len(data)}")  # noqa: S608 - the test's own

    # -- history -----------------------------------------------------------------------------------------------

    @property
    def history(self) -> History:
        assert self.manifest.history is not None
        data = self.database(self.manifest.history, Kind.HISTORY)
        return History.from_bytes(data, fqrn=self.simulator.fqrn)

    def store_history(self, data: bytes) -> Digest:
        if self.manifest.history is not None:
            self.files.pop(ObjectName(digest=self.manifest.history, kind=Kind.HISTORY).path, None)
        return self.simulator.store(zlib.compress(data), Kind.HISTORY)

    def tags(self, *sql: str) -> None:
        """Another history, after some SQL."""
        assert self.manifest.history is not None
        data = changed(self.database(self.manifest.history, Kind.HISTORY), *sql)
        self.sign(history=self.store_history(data))

    # -- looking at it -----------------------------------------------------------------------------------------

    def check(self, *, deep: bool = True) -> Report:
        made = self.simulator
        subject = Subject(stratum=made, store=MemoryStore(self.files), keys=made.masters, fqrn=made.fqrn)
        return check(subject, now=NOW, deep=deep)

    def codes(self) -> set[str]:
        report = self.check()
        return {str(item.code) for item in (*report.complaints, *report.notes)}

    def read(self) -> dict[bytes, bytes]:
        """What a reader gets of every file.

        Raises:
            Error: the reader refuses.
        """
        made = self.simulator
        opened = Snapshot.open(made, keys=made.masters, fqrn=made.fqrn, now=NOW)
        found: dict[bytes, bytes] = {}
        for path, entry in opened.walk(b""):
            assert not isinstance(entry, Mountpoint)
            if isinstance(entry, File | ChunkedFile):
                found[path] = opened.read(path, limit=1 << 20)
        opened.history()
        opened.metainfo()
        return found


def changed(data: bytes, *sql: str) -> bytes:
    """A database after some SQL, with the rest of its file as the writer leaves it."""
    if not sql:
        return data
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(data)
    for statement in sql:
        connection.execute(statement)
    connection.execute("VACUUM")
    made = connection.serialize()
    connection.close()
    return made


def expect(broken: Broken) -> dict[bytes, bytes]:
    """What a reader of a good one gets."""
    return CONTENT | {NESTED + b"/.cvmfscatalog": b""}


WHITELIST = WHITELIST_FILE
