"""SOURCE as the user writes it: a repository's name, a mount, a storage directory, or servers' addresses."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import Final

from headstart.blacklists import read_blacklists
from headstart.channel import LIMIT, ROOT_PATH
from headstart.cvmfs.manifest import MANIFEST_FILE
from headstart.cvmfs.objects import ObjectName
from headstart.cvmfs.past import Selector
from headstart.cvmfs.trust import MasterKeys, Seen
from headstart.errors import ConfigurationError, StorageError, UnknownError
from headstart.failover import FailoverStratum, Ledger, NoNotes, Notes
from headstart.names import Fqrn
from headstart.publickeys import KEYS_DIRECTORIES, find_public_keys
from headstart.published import MountedTree, PublishedTree, SnapshotTree
from headstart.route import Route
from headstart.siteconfig import Site, no_site
from headstart.snapshot import Snapshot
from headstart.stratum import DirectoryStratum, Storage, StorageStratum, Stratum

_SCHEMES: Final = ("http://", "https://")
_NO_NOTES: Final = NoNotes()


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSource:
    """Servers of a repository."""

    route: Route

    @property
    def url(self) -> str:
        """The address of the preferred one."""
        return self.route.servers[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSource:
    """A repository's storage directory."""

    directory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketSource:
    """A repository's storage in an object store, which takes more than the standard library to reach."""

    storage: Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSource:
    """A repository that a CVMFS client shows as a file system."""

    root: str
    fqrn: Fqrn


Source = WebSource | StorageSource | BucketSource | MountSource


def parse(text: str, site_of: Callable[[Fqrn | None], Site] = no_site) -> Source:
    """Tell which kind a source is, by a look at it.

    Args:
        text: a repository's name, which is taken where it is mounted, else from the servers that are
            configured; a directory; or an address, several with ``;`` between.
        site_of: what is configured here for a repository.

    Raises:
        StorageError: a directory that is neither storage nor a mount, or none at all.
        ConfigurationError: an address of another scheme, or a wrong setting.
    """
    if text.startswith(_SCHEMES):
        return WebSource(route=site_of(_last_part(text.partition(";")[0])).route(text))
    if "://" in text:
        hint = "use http://, https://, or a directory"
        if text.startswith("s3://"):
            hint = "name the address under which it is served: http://ENDPOINT/BUCKET/PREFIX"
        raise ConfigurationError(f"{text[:200]!r} is no address that can be read here", hint=hint)
    named = None if "/" in text or os.path.exists(text) else _name_or_none(text)
    if named is not None:
        if os.path.isdir(named.mountpoint) and os.listdir(named.mountpoint):
            return MountSource(root=named.mountpoint, fqrn=named)
        return WebSource(route=site_of(named).route())
    try:
        root = os.path.abspath(text)
    except FileNotFoundError as error:
        raise StorageError(
            f"cannot read {text[:200]}: the working directory is not there any more",
            hint="name an absolute path",
        ) from error
    if os.path.exists(root) and not os.path.isdir(root):
        raise StorageError(
            f"{root} is no directory", hint="name the repository's storage, or where it is mounted"
        )
    if not os.path.isdir(root):
        raise StorageError(f"there is no directory {root}", hint="check the path, or mount the repository")
    if not os.access(root, os.X_OK):
        raise StorageError(f"cannot read {root}: permission denied", hint="ask its owner to let you")
    if os.path.exists(os.path.join(root, MANIFEST_FILE)):
        return StorageSource(directory=root)
    fqrn = _name_or_none(os.path.basename(root))
    if fqrn is not None and (root == fqrn.mountpoint or os.path.exists(root + ROOT_PATH)):
        return MountSource(root=root, fqrn=fqrn)
    raise StorageError(
        f"{root} is no CVMFS repository: it has no {MANIFEST_FILE}",
        hint="name a storage directory, a mounted /cvmfs/NAME, or an address",
    )


def _name_or_none(text: str) -> Fqrn | None:
    try:
        return Fqrn(text)
    except ConfigurationError:
        return None


def _last_part(url: str) -> Fqrn | None:
    return _name_or_none(url.rstrip("/").rpartition("/")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """What the user trusts."""

    keys: Sequence[str] = ()
    """Paths of public keys; where there are none, CVMFS's own configuration is asked."""
    fqrn: Fqrn | None = None
    """Which repository it must be; None for whichever the keys have signed."""
    directories: Sequence[str] = KEYS_DIRECTORIES
    site_of: Callable[[Fqrn | None], Site] = no_site
    """What is configured here for a repository: its keys count where the user names none."""
    blacklists: Sequence[str] = ()
    """Paths of blacklists, beside the site's own."""


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

    def moment(self, now: datetime) -> datetime:
        """The moment at which channels are to be valid: that of a past state, where one was asked for.

        Its owner vouches for the state today, with the tag or the chain that led there, so the channels in it
        are believed as they were then.
        """
        past = self.snapshot.past if self.snapshot is not None else None
        if past is None or past.timestamp is None:
            return now
        return min(now, datetime.fromtimestamp(past.timestamp, UTC))


def stratum_of(source: WebSource | StorageSource | BucketSource, notes: Notes) -> Stratum:
    """Where to read it from."""
    if isinstance(source, StorageSource):
        return DirectoryStratum(source.directory)
    if isinstance(source, BucketSource):
        return StorageStratum(source.storage)
    patience = source.route.patience
    web = import_module("headstart.webstratum")  # brings HTTP and TLS, which a directory has no need of

    def reach(server: str, proxy: str | None, timeout: float) -> Stratum:
        made: Stratum = web.HttpStratum(server, proxy=proxy, timeout=timeout, slowest=patience.slowest)
        return made

    ledger = Ledger(notes, time.monotonic, patience.remembered)
    return FailoverStratum(source.route, reach, ledger, draw=_draw, pause=time.sleep)


def _draw(most: int) -> int:
    return int.from_bytes(os.urandom(4), "little") % most


def stored_size(source: Source, name: ObjectName) -> int | None:
    """Bytes of an object as stored; None where that is not known without reading it."""
    if not isinstance(source, StorageSource):
        return None
    try:
        return os.stat(os.path.join(source.directory, name.path)).st_size
    except OSError:
        return None


def expected_name(source: Source) -> Fqrn | None:
    """The repository that a source seems to be, before anything is proven; None when it does not say."""
    if isinstance(source, MountSource):
        return source.fqrn
    if isinstance(source, WebSource):
        return _last_part(source.url)
    stratum = stratum_of(source, _NO_NOTES)
    lines = stratum.fetch(MANIFEST_FILE, limit=LIMIT).split(b"\n")
    return _name_or_none(
        next((line[1:].decode(errors="replace") for line in lines if line.startswith(b"N")), "")
    )


def find_keys(source: Source, anchors: Anchors) -> MasterKeys:
    """The keys to trust for a source.

    Raises:
        KeyFileError: there are none, or one is not a key.
    """
    name = anchors.fqrn or (None if anchors.keys else expected_name(source))
    given = anchors.keys or (anchors.site_of(name).keys if name is not None else ())
    return find_public_keys(name, given, directories=anchors.directories)


def open_source(
    source: Source,
    anchors: Anchors,
    *,
    now: datetime,
    seen: Seen | None = None,
    notes: Notes = _NO_NOTES,
    past: Selector | None = None,
) -> Opened:
    """Prove a source's state.

    Args:
        source: where.
        anchors: what the user trusts.
        now: UTC.
        seen: what this node remembers.
        notes: which servers and proxies failed here before.
        past: a past state to be read; None for the present one.

    Raises:
        KeyFileError: no key to trust is found.
        ConfigurationError: a blacklist cannot be read.
        UnknownError: there is no such past state, or the source is a mount, which shows only one.
        TrustError: the chain does not hold, or it is another repository.
        CorruptError, MissingError, UnavailableError, StorageError: as ``Snapshot.open``.
    """
    keys = find_keys(source, anchors)
    if isinstance(source, MountSource):
        if anchors.fqrn is not None and anchors.fqrn != source.fqrn:
            raise StorageError(f"{source.root} is {source.fqrn}, not {anchors.fqrn}")
        if past is not None:
            raise UnknownError(
                f"{source.root} is mounted, and shows the one state that its client has chosen",
                hint="name the storage or a server, or set CVMFS_REPOSITORY_TAG for the client",
            )
        mounted = MountedTree(fqrn=source.fqrn, root=source.root)
        return Opened(source=source, keys=keys, tree=mounted, snapshot=None)
    # Without keys of the user's own, the name decides which keys count, so it must be the one proven. And who
    # asks a server for one repository must not be given another that the same owner has signed.
    named = isinstance(source, WebSource) or not anchors.keys
    fqrn = anchors.fqrn or (expected_name(source) if named else None)
    site = anchors.site_of(fqrn or expected_name(source))
    blacklist = read_blacklists(anchors.blacklists, site=site.blacklists)
    stratum = stratum_of(source, notes)
    snapshot = Snapshot.open(stratum, keys=keys, fqrn=fqrn, now=now, seen=seen, blacklist=blacklist)
    if past is not None:
        snapshot = snapshot.at(past)
    return Opened(source=source, keys=keys, tree=SnapshotTree(snapshot), snapshot=snapshot)
