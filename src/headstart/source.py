"""SOURCE as the user writes it: a mounted repository, a storage directory, or a server's address."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from headstart.channel import LIMIT, ROOT_PATH
from headstart.cvmfs.manifest import MANIFEST_FILE
from headstart.cvmfs.trust import MasterKeys, Seen
from headstart.errors import ConfigurationError, StorageError
from headstart.names import Fqrn
from headstart.publickeys import KEYS_DIRECTORIES, find_public_keys
from headstart.published import MountedTree, PublishedTree, SnapshotTree
from headstart.snapshot import Snapshot
from headstart.stratum import DirectoryStratum, Stratum
from headstart.webstratum import HttpStratum

_SCHEMES: Final = ("http://", "https://")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSource:
    """A server's address of a repository."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSource:
    """A repository's storage directory."""

    directory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSource:
    """A repository that a CVMFS client shows as a file system."""

    root: str
    fqrn: Fqrn


Source = WebSource | StorageSource | MountSource


def parse(text: str) -> Source:
    """Tell which kind a source is, by a look at it.

    Raises:
        StorageError: a directory that is neither storage nor a mount, or none at all.
        ConfigurationError: an address of another scheme.
    """
    if text.startswith(_SCHEMES):
        return WebSource(url=text.rstrip("/"))
    if "://" in text:
        raise ConfigurationError(
            f"{text[:200]!r} is no address that can be read", hint="use http://, https://, or a directory"
        )
    root = os.path.abspath(text)
    if not os.path.isdir(root):
        raise StorageError(f"there is no directory {root}", hint="check the path, or mount the repository")
    if not os.access(root, os.X_OK):
        raise StorageError(f"cannot read {root}: permission denied", hint="ask its owner to let you")
    if os.path.exists(os.path.join(root, MANIFEST_FILE)):
        return StorageSource(directory=root)
    try:
        fqrn = Fqrn(os.path.basename(root))
    except ConfigurationError:
        fqrn = None
    if fqrn is not None and (root == fqrn.mountpoint or os.path.exists(root + ROOT_PATH)):
        return MountSource(root=root, fqrn=fqrn)
    raise StorageError(
        f"{root} is no CVMFS repository: it has no {MANIFEST_FILE}",
        hint="name a storage directory, a mounted /cvmfs/NAME, or an address",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """What the user trusts."""

    keys: Sequence[str] = ()
    """Paths of public keys; where there are none, CVMFS's own configuration is asked."""
    fqrn: Fqrn | None = None
    """Which repository it must be; None for whichever the keys have signed."""
    directories: Sequence[str] = KEYS_DIRECTORIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A source whose chain of signatures holds."""

    source: Source
    keys: MasterKeys
    tree: PublishedTree
    snapshot: Snapshot | None
    """The proven state; None for a mount, whose client has proven it."""

    @property
    def fqrn(self) -> Fqrn:
        """The repository."""
        return self.tree.fqrn


def stratum_of(source: WebSource | StorageSource) -> Stratum:
    """Where to read it from."""
    return HttpStratum(source.url) if isinstance(source, WebSource) else DirectoryStratum(source.directory)


def expected_name(source: Source) -> Fqrn | None:
    """The repository that a source seems to be, before anything is proven; None when it does not say."""
    if isinstance(source, MountSource):
        return source.fqrn
    if isinstance(source, WebSource):
        text = source.url.rpartition("/")[2]
    else:
        stratum = DirectoryStratum(source.directory)
        lines = stratum.fetch(MANIFEST_FILE, limit=LIMIT).split(b"\n")
        text = next((line[1:].decode(errors="replace") for line in lines if line.startswith(b"N")), "")
    try:
        return Fqrn(text)
    except ConfigurationError:
        return None


def find_keys(source: Source, anchors: Anchors) -> MasterKeys:
    """The keys to trust for a source.

    Raises:
        KeyFileError: there are none, or one is not a key.
    """
    name = anchors.fqrn or (None if anchors.keys else expected_name(source))
    return find_public_keys(name, anchors.keys, directories=anchors.directories)


def open_source(source: Source, anchors: Anchors, *, now: datetime, seen: Seen | None = None) -> Opened:
    """Prove a source's state.

    Args:
        source: where.
        anchors: what the user trusts.
        now: UTC.
        seen: what this node remembers.

    Raises:
        KeyFileError: no key to trust is found.
        TrustError: the chain does not hold, or it is another repository.
        CorruptError, MissingError, UnavailableError, StorageError: as ``Snapshot.open``.
    """
    keys = find_keys(source, anchors)
    if isinstance(source, MountSource):
        if anchors.fqrn is not None and anchors.fqrn != source.fqrn:
            raise StorageError(f"{source.root} is {source.fqrn}, not {anchors.fqrn}")
        mounted = MountedTree(fqrn=source.fqrn, root=source.root)
        return Opened(source=source, keys=keys, tree=mounted, snapshot=None)
    # Without keys of the user's own, the name decides which keys count, so it must be the one proven. And who
    # asks a server for one repository must not be given another that the same owner has signed.
    named = isinstance(source, WebSource) or not anchors.keys
    fqrn = anchors.fqrn or (expected_name(source) if named else None)
    snapshot = Snapshot.open(stratum_of(source), keys=keys, fqrn=fqrn, now=now, seen=seen)
    return Opened(source=source, keys=keys, tree=SnapshotTree(snapshot), snapshot=snapshot)
