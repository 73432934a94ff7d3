"""A signed repository in memory that is a stratum: real formats, real signatures, and anything can be broken.

    repository = Simulator()
    repository.put("/a/file", b"content")
    repository.publish()
    Snapshot.open(repository, keys=repository.masters, fqrn=repository.fqrn, now=NOW)

``files`` is the storage, to be changed at will; ``sign_manifest`` and ``sign_whitelist`` sign what was changed.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from headstart.channel import ROOT_PATH, Pointer, Root, pointer_path
from headstart.cvmfs.catalog_writer import Heading, write_catalog
from headstart.cvmfs.entry import (
    MARKER,
    Chunk,
    ChunkedFile,
    Compression,
    Directory,
    Entry,
    File,
    Mountpoint,
    Stat,
    Symlink,
    is_below,
    name_of,
    parent_of,
)
from headstart.cvmfs.history import History, Tag
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName, Revision, deflate
from headstart.cvmfs.rows import Counters, Nested, Statistics
from headstart.cvmfs.signature import Certificate, Letter, seal
from headstart.cvmfs.signing import Ed25519Signer, RsaSigner
from headstart.cvmfs.trust import MasterKeys
from headstart.cvmfs.whitelist import WHITELIST_FILE, Whitelist
from headstart.errors import MissingError
from headstart.keys import make_certificate
from headstart.names import ChannelName, Fqrn, JuliaName, ReleaseId, Sha256, StackName
from headstart.release import FileRecord, ImageRecord, Release, SystemImage
from headstart.stratum import Stratum, check_path, too_long

NOW = datetime(2026, 11, 22, 20, 15, tzinfo=UTC)
DAY = timedelta(days=1)


@functools.cache
def rsa_signer(name: str) -> RsaSigner:
    """An RSA key for this run; the same one for the same name."""
    return RsaSigner(rsa.generate_private_key(public_exponent=65537, key_size=2048))


@functools.cache
def channel_signer(name: str = "channel") -> Ed25519Signer:
    return Ed25519Signer(ed25519.Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b".")[:32]))


@functools.cache
def certificate_pem(fqrn: str, key: str) -> bytes:
    return make_certificate(Fqrn(fqrn), rsa_signer(key).key, now=NOW)


@dataclass(slots=True)
class Simulator(Stratum):
    """The repository. Change what you like, then ``publish``; or change ``files`` behind its back."""

    fqrn: Fqrn = field(default_factory=lambda: Fqrn("julia.example.org"))
    algorithm: Algorithm = Algorithm.SHA1
    now: datetime = NOW
    revision: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    tree: dict[bytes, Entry] = field(default_factory=dict)
    requests: list[tuple[str, bool]] = field(default_factory=list)
    """Path, and whether a fresh copy was wanted, of every fetch."""
    stale: dict[str, bytes] = field(default_factory=dict)
    """What a proxy on the way answers instead, unless it is asked for a fresh copy."""

    def __post_init__(self) -> None:
        self.tree[b""] = Directory(name=b"", stat=Stat(mode=0o755, mtime=1_700_000_000))
        self.sign_whitelist()

    # -- the stratum ---------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return f"simulator of {self.fqrn}"

    def another(self) -> None:
        return None

    def fetch(self, path: str, *, limit: int, fresh: bool = False) -> bytes:
        check_path(path)
        self.requests.append((path, fresh))
        data = self.files.get(path)
        if not fresh:
            data = self.stale.get(path, data)
        if data is None:
            raise MissingError(f"there is no {path} in {self.name}")
        if len(data) > limit:
            raise too_long(path, limit, self.name)
        return data

    # -- keys ----------------------------------------------------------------------------------------------

    @property
    def masters(self) -> MasterKeys:
        return MasterKeys((rsa_signer("master").public,))

    @property
    def certificate(self) -> Certificate:
        return Certificate.from_pem(certificate_pem(str(self.fqrn), "repository"), what="certificate")

    # -- content -------------------------------------------------------------------------------------------

    def store(self, stored: bytes, kind: Kind = Kind.FILE) -> Digest:
        """Put an object into the storage under its name."""
        digest = self.algorithm.digest(stored)
        self.files[ObjectName(digest=digest, kind=kind).path] = stored
        return digest

    def put(
        self,
        path: str,
        content: bytes,
        *,
        mode: int = 0o444,
        chunk: int = 0,
        compression: Compression = Compression.ZLIB,
    ) -> Entry:
        """A file, in chunks of that many bytes if any; directories above it appear by themselves."""
        at = path.encode()
        pack: Callable[[bytes], bytes] = deflate if compression is Compression.ZLIB else bytes
        stat = Stat(mode=mode, mtime=1_700_000_000)
        if chunk:
            chunks = tuple(
                Chunk(
                    offset=start,
                    size=len(content[start : start + chunk]),
                    digest=self.store(pack(content[start : start + chunk]), Kind.CHUNK),
                )
                for start in range(0, len(content), chunk)
            )
            return self._set(
                at,
                ChunkedFile(
                    name=name_of(at), stat=stat, size=len(content), chunks=chunks, compression=compression
                ),
            )
        digest = self.store(pack(content))
        return self._set(
            at, File(name=name_of(at), stat=stat, size=len(content), digest=digest, compression=compression)
        )

    def link(self, path: str, target: str) -> Entry:
        at = path.encode()
        stat = Stat(mode=0o777, mtime=1_700_000_000)
        return self._set(at, Symlink(name=name_of(at), stat=stat, target=target.encode()))

    def nest(self, path: str) -> None:
        """Let a catalog of its own begin at ``path``."""
        self.put(f"{path}/{MARKER.decode()}", b"")

    def _set(self, path: bytes, entry: Entry) -> Entry:
        above = parent_of(path)
        if above not in self.tree:
            self._set(above, Directory(name=name_of(above), stat=Stat(mode=0o755, mtime=1_700_000_000)))
        self.tree[path] = entry
        return entry

    # -- releases and channels -----------------------------------------------------------------------------

    def add_release(
        self, stack: str = "jets", release_id: str = "0123456789abcdef", *, content: bytes = b"image"
    ) -> Release:
        """A small release with one image; not one that runs."""
        where = f"/stacks/{stack}/{release_id}"
        image = "images/x86-64/sys.so"
        release = Release(
            fqrn=self.fqrn,
            stack=StackName(stack),
            id=ReleaseId(release_id),
            julia=JuliaName("1.10.6-0123456789ab"),
            julia_digest=Sha256("0" * 64),
            julia_version="1.10.6",
            julia_executable="bin/julia",
            julia_share="share/julia",
            julia_library_path=(),
            relocatable=True,
            startup="",
            load_path=(),
            julia_options=(),
            julia_environment={},
            inputs={},
            images=(
                ImageRecord(
                    target="x86-64",
                    cpu_target="generic",
                    recorded="generic",
                    features=(),
                    code=SystemImage(path=image, size=len(content)),
                    build_seconds=1.0,
                ),
            ),
            files={image: FileRecord(sha256=Sha256.of(content), size=len(content), mode=0o444)},
            built="2026-11-22T20:15:00Z",
        )
        self.put(f"{where}/{image}", content)
        self.put(f"{where}/release.json", release.to_bytes())
        self.nest(where)
        return release

    def put_stage(self, stage: Path) -> None:
        """Everything of a staged release (``releases.write_stage``), so that a node can start it."""
        for place in sorted(stage.rglob("*")):
            path = f"/{place.relative_to(stage)}"
            if place.is_symlink():
                self.link(path, str(place.readlink()))
            elif place.is_file() and path.count("/") > 1:
                self.put(path, place.read_bytes(), mode=place.stat().st_mode & 0o777)

    def root(self, *names: str, version: int = 1, threshold: int = 1) -> Root:
        """A statement of channel keys, of a year, under which every pointer counts."""
        signers = [channel_signer(name) for name in names or ("channel",)]
        return Root(
            fqrn=self.fqrn,
            version=version,
            keys={signer.keyid: signer.public for signer in signers},
            threshold=threshold,
            issued=self.now,
            expires=self.now + 365 * DAY,
            restarted=NOW - 100 * DAY,
            statements=False,
        )

    def put_root(self, root: Root, *masters: str) -> None:
        self.put(ROOT_PATH, root.signed(*(rsa_signer(name) for name in masters or ("master",))))

    def add_root(self, *, master: str = "master", version: int = 1, threshold: int = 1, keys: int = 1) -> None:
        """The statement of channel keys; the first is ``channel``, others ``channel-1``, ..."""
        names = ["channel", *(f"channel-{number}" for number in range(1, keys))]
        self.put_root(self.root(*names, version=version, threshold=threshold), master)

    def pointer(self, release: Release, channel: str = "prod", *, version: int = 1) -> Pointer:
        return Pointer(
            fqrn=self.fqrn,
            stack=release.stack,
            channel=ChannelName(channel),
            release=release.id,
            digest=Sha256.of(release.to_bytes()),
            version=version,
            issued=self.now,
            expires=self.now + 30 * DAY,
        )

    def add_channel(self, pointer: Pointer, *signers: str) -> None:
        signed = pointer.signed(*(channel_signer(name) for name in signers or ("channel",)))
        self.put(pointer_path(pointer.stack, pointer.channel), signed)

    # -- publishing ----------------------------------------------------------------------------------------

    def publish(self) -> Manifest:
        """Write catalogs, history, certificate and a signed manifest of the next revision."""
        self.revision += 1
        stamp = int(self.now.timestamp())
        root, _ = self._write(b"", stamp)
        head = Tag(
            name="trunk",
            digest=root.digest,
            revision=Revision(self.revision),
            timestamp=stamp,
            size=root.size,
        )
        history = History(fqrn=self.fqrn, tags=(head,)).to_bytes()
        pem = certificate_pem(str(self.fqrn), "repository")
        manifest = Manifest(
            fqrn=self.fqrn,
            root_catalog=root.digest,
            root_size=root.size,
            revision=Revision(self.revision),
            certificate=self.store(deflate(pem), Kind.CERTIFICATE),
            history=self.store(deflate(history), Kind.HISTORY),
            timestamp=stamp,
        )
        self.sign_manifest(manifest)
        return manifest

    def _write(self, mountpoint: bytes, stamp: int) -> tuple[Nested, Statistics]:
        roots = sorted(
            parent_of(path)
            for path in self.tree
            if name_of(path) == MARKER and is_below(parent_of(path), mountpoint)
        )
        direct = [path for path in roots if not any(is_below(path, other) for other in roots)]
        nested = {path: self._write(path, stamp) for path in direct}
        entries = [
            (path, self._as_mountpoint(path) if path in nested else self.tree[path])
            for path in sorted(self.tree)
            if (path == mountpoint or is_below(path, mountpoint))
            and not any(is_below(path, other) for other in direct)
        ]
        heading = Heading(
            mountpoint=mountpoint,
            revision=Revision(self.revision),
            last_modified=stamp,
            ttl=240,
            previous=None,
        )
        subtree = sum((statistics.total for _, statistics in nested.values()), start=Counters())
        written = write_catalog(heading, entries, {path: named for path, (named, _) in nested.items()}, subtree)
        digest = self.store(deflate(written.database), Kind.CATALOG)
        return Nested(digest=digest, size=len(written.database)), written.statistics

    def _as_mountpoint(self, path: bytes) -> Mountpoint:
        inside = [entry for at, entry in self.tree.items() if at and parent_of(at) == path]
        links = 2 + sum(isinstance(entry, Directory) for entry in inside)
        return Mountpoint(name=name_of(path), stat=self.tree[path].stat, links=links)

    @property
    def manifest(self) -> Manifest:
        return Manifest.from_bytes(Letter.cut(self.files[MANIFEST_FILE], what="it").text)

    def sign_manifest(self, manifest: Manifest, *, key: str = "repository") -> None:
        self.files[MANIFEST_FILE] = seal(
            manifest.to_bytes(), algorithm=self.algorithm, sign=rsa_signer(key).sign_sha1
        )

    @property
    def whitelist(self) -> Whitelist:
        return Whitelist(
            fqrn=self.fqrn,
            issued=self.now,
            expires=self.now + 30 * DAY,
            fingerprints=(self.certificate.fingerprint(self.algorithm),),
        )

    def sign_whitelist(self, whitelist: Whitelist | None = None, *, key: str = "master") -> None:
        text = (whitelist or self.whitelist).to_bytes()
        self.files[WHITELIST_FILE] = seal(text, algorithm=self.algorithm, sign=rsa_signer(key).sign_plain)
