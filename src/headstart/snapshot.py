"""One verified state of a repository: the whole chain from the master key to a file's bytes.

``Snapshot.open`` proves the manifest; everything else is fetched when it is asked for, each object compared
with the name that a verified catalog gives it. An object that arrives damaged is asked for once more, past the
caches on the way, as the real client does (format section 18). Symbolic links are never followed and paths are
only ever compared with catalog rows, so nothing in a repository can lead out of it.
"""

from collections.abc import Iterator
from datetime import datetime
from threading import Lock
from typing import Final, Self, assert_never

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.entry import (
    ChunkedFile,
    Compression,
    Directory,
    Entry,
    File,
    Mountpoint,
    Special,
    Symlink,
    parent_of,
    valid_path,
)
from headstart.cvmfs.history import History
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objects import (
    Digest,
    Kind,
    ObjectName,
    Revision,
    inflate,
)
from headstart.cvmfs.past import ByHash, PastRoot, Selector, among_tags, described, find
from headstart.cvmfs.signature import CERTIFICATE_LIMIT, LETTER_LIMIT, Certificate
from headstart.cvmfs.trust import (
    CATALOG_LIMIT,
    NO_BLACKLIST,
    Blacklist,
    MasterKeys,
    Seen,
    TrustedManifest,
    check_not_refused,
    nested_catalog,
    open_nested,
)
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.errors import CorruptError, MissingError, StorageError, TrustError, UnknownError
from headstart.fetching import fetch_object, from_any, pour_anew, stored_limit
from headstart.names import Fqrn
from headstart.stratum import Sink, Stratum
from headstart.wording import readable

HISTORY_LIMIT: Final = 1 << 26
"""Bytes that the tag history may inflate to here."""
METAINFO_LIMIT: Final = 1 << 20


class Snapshot:
    """A repository at one revision, read only. Safe to use from several threads."""

    def __init__(self, stratum: Stratum, trusted: TrustedManifest, blacklist: Blacklist = NO_BLACKLIST) -> None:
        self._stratum = stratum
        self._trusted = trusted
        self._blacklist = blacklist
        self.past: PastRoot | None = None
        """Which past state this is; None for the repository's present one."""
        self._lock = Lock()
        self._catalogs: dict[bytes, Catalog] = {}
        self._last: tuple[bytes, Catalog] | None = None
        """The directory that was last asked about, and the catalog of what is in it."""

    @classmethod
    def open(
        cls,
        stratum: Stratum,
        *,
        keys: MasterKeys,
        fqrn: Fqrn | None,
        now: datetime,
        seen: Seen | None = None,
        blacklist: Blacklist = NO_BLACKLIST,
    ) -> Self:
        """Prove the repository's current state.

        Args:
            stratum: where to read it from.
            keys: the anchor.
            fqrn: which repository it must be; None to take what the master key has signed.
            now: UTC.
            seen: what this node remembers of the repository.
            blacklist: what this site refuses.

        Raises:
            StorageError: there is no repository.
            TrustError: the chain does not hold.
            CorruptError: a file of the chain is damaged.
            MissingError: the certificate is not there.
            UnavailableError: the source does not answer.
        """

        def prove(source: Stratum, *, fresh: bool) -> TrustedManifest:
            whitelist = _signed_file(source, WHITELIST_FILE, fresh=fresh)
            published = _signed_file(source, MANIFEST_FILE, fresh=fresh)
            claim = keys.trust(whitelist, fqrn=fqrn, now=now).examine(published)
            stored = fetch_object(source, claim.certificate, limit=stored_limit(CERTIFICATE_LIMIT))
            return claim.prove(stored, seen=seen, blacklist=blacklist)

        try:
            return cls(stratum, prove(stratum, fresh=False), blacklist)
        except (CorruptError, MissingError, TrustError):
            # A proxy may have kept an old or a broken copy, or one file of before and one of after a change.
            return from_any(stratum, lambda source: cls(source, prove(source, fresh=True), blacklist))

    def at(self, selector: Selector) -> Self:
        """The repository at a past state; manifest, tags and what is to be remembered stay the present ones.

        A state is found through what the manifest vouches for (``cvmfs.past``). A hash that is no tag's is
        taken as the user's own anchor, and said to be so in ``past``: looking through all that was ever
        published would take a fetch for each revision.

        Raises:
            UnknownError: there is no such state.
            TrustError: the site refuses its revision.
            CorruptError, MissingError, UnavailableError: its root catalog cannot be had.
        """
        history = self.history() or History(fqrn=self.fqrn)
        if isinstance(selector, ByHash):
            own = PastRoot(digest=selector.digest, proven=False)
            root: PastRoot | None = among_tags(selector, self.head, history) or own
        else:
            root = find(selector, self.head, history, self._fetch_catalog)
        if root is None:
            raise UnknownError(f"there is no {selector} of {self.fqrn}", hint="it may have been collected")
        try:
            catalog, size = root.open(self._fetch_catalog(root.name))
        except MissingError as error:
            raise MissingError(f"{selector} of {self.fqrn} is not there any more: {error.message}") from error
        check_not_refused(self._blacklist, self.fqrn, catalog.revision)
        made = type(self)(self._stratum, self._trusted, self._blacklist)
        made.past = described(root, catalog, size)
        made._catalogs[b""] = catalog  # noqa: SLF001 - one of its own kind
        return made

    def _fetch_catalog(self, name: ObjectName) -> bytes:
        return self.stored(name, limit=stored_limit(CATALOG_LIMIT))

    @property
    def head(self) -> PastRoot:
        """The present root catalog, as the manifest has it."""
        manifest = self.manifest
        return PastRoot(digest=manifest.root_catalog, revision=manifest.revision, size=manifest.root_size)

    @property
    def name(self) -> str:
        """Where it is read from."""
        return self._stratum.name

    @property
    def fqrn(self) -> Fqrn:
        """The repository."""
        return self.manifest.fqrn

    @property
    def manifest(self) -> Manifest:
        """Its proven manifest."""
        return self._trusted.manifest

    @property
    def revision(self) -> Revision:
        """The revision that it shows."""
        if self.past is not None and self.past.revision is not None:
            return self.past.revision
        return self.manifest.revision

    @property
    def root_digest(self) -> Digest:
        """The hash of the root catalog that it shows."""
        return self.past.digest if self.past is not None else self.manifest.root_catalog

    @property
    def valid_until(self) -> datetime:
        """When its whitelist ends."""
        return self._trusted.whitelist.ends

    @property
    def certificate(self) -> Certificate:
        """The certificate that its manifest is signed with."""
        return self._trusted.certificate

    @property
    def seen(self) -> Seen:
        """What to remember of it, for the next ``open``."""
        manifest = self.manifest
        return Seen(
            revision=manifest.revision,
            timestamp=manifest.timestamp,
            root_catalog=manifest.root_catalog,
            whitelist=int(self._trusted.whitelist.issued.timestamp()),
        )

    @property
    def root_catalog(self) -> Catalog:
        """The catalog of the repository's root."""
        return self._catalog(b"", None)

    def catalog(self, path: bytes) -> Catalog:
        """The catalog that holds what is in ``path``, itself included.

        Raises:
            UnknownError: not a normal absolute path.
            CorruptError: a catalog on the way is damaged.
            MissingError: a catalog on the way is not there.
        """
        if not valid_path(path):
            raise UnknownError(f"{path[:200]!r} is not a path in a repository")
        directory = parent_of(path)
        # Most questions are about one directory after the other.
        asked, catalog = self._last or (b"", self.root_catalog)
        if asked != directory:
            catalog = self.root_catalog
            end = 0
            # Every directory on the way, from the root down, may be where another catalog begins.
            while end < len(directory):
                end = directory.find(b"/", end + 1)
                end = len(directory) if end < 0 else end
                if directory[:end] in catalog.nested:
                    catalog = self._catalog(directory[:end], catalog)
            self._last = directory, catalog
        return self._catalog(path, catalog) if path in catalog.nested else catalog

    def lookup(self, path: bytes) -> Entry:
        """What is at a path: empty for the root, else ``/`` and components; symbolic links are not followed.

        Raises:
            UnknownError: nothing is.
            CorruptError: a catalog on the way is damaged.
            MissingError: a catalog on the way is not there.
        """
        entry = self.catalog(path).lookup(path)
        if entry is None:
            raise UnknownError(f"there is no {path.decode(errors='replace')} in {self.fqrn}")
        return entry

    def children(self, path: bytes) -> tuple[Entry, ...]:
        """What is in a directory, sorted by name.

        Raises:
            UnknownError: there is no such directory.
            CorruptError: a catalog on the way is damaged.
            MissingError: a catalog on the way is not there.
        """
        if not isinstance(self.lookup(path), Directory):
            raise UnknownError(f"{path.decode(errors='replace')} in {self.fqrn} is no directory")
        return self.catalog(path).children(path)

    def walk(self, path: bytes) -> Iterator[tuple[bytes, Entry]]:
        """Path and entry of all that is at and below ``path``, directories before their content.

        Where a nested catalog begins, its own ``Directory`` is given.

        Raises:
            As ``lookup`` and ``children``, while it goes.
        """
        waiting = [(path, self.lookup(path))]
        while waiting:
            here, entry = waiting.pop()
            if isinstance(entry, Mountpoint):
                entry = self.lookup(here)
            yield here, entry
            if isinstance(entry, Directory):
                waiting += [(here + b"/" + child.name, child) for child in reversed(self.children(here))]

    def catalogs(self) -> Iterator[Catalog]:
        """All catalogs, parents first.

        Raises:
            CorruptError: one is damaged.
            MissingError: one is not there.
        """
        waiting = [self.root_catalog]
        while waiting:
            catalog = waiting.pop()
            yield catalog
            waiting += [self._catalog(path, catalog) for path in sorted(catalog.nested, reverse=True)]

    def read(self, path: bytes, *, limit: int) -> bytes:
        """The content of a regular file.

        Raises:
            UnknownError: there is no such regular file.
            CorruptError: it is damaged, or has more than ``limit`` bytes.
            MissingError: an object of it is not there.
            UnavailableError: the source does not answer.
        """
        entry = self.lookup(path)
        shown = readable(path)
        match entry:
            case File() | ChunkedFile():
                return self.content(entry, what=shown, limit=limit)
            case Directory() | Mountpoint() | Symlink() | Special():
                raise UnknownError(f"{shown} in {self.fqrn} is no regular file")
            case _:
                assert_never(entry)

    def content(self, entry: File | ChunkedFile, *, what: str, limit: int) -> bytes:
        """The content of an entry of this repository; ``what`` names it in errors.

        Raises:
            As ``read``.
        """
        if entry.size > limit:
            raise CorruptError(f"{what} has {entry.size} bytes, more than the {limit} it may have")
        match entry:
            case File():
                name = ObjectName(digest=entry.digest, kind=Kind.FILE)
                return self._part(name, entry.size, entry.compression, what)
            case ChunkedFile():
                return b"".join(
                    self._part(
                        ObjectName(digest=chunk.digest, kind=Kind.CHUNK), chunk.size, entry.compression, what
                    )
                    for chunk in entry.chunks
                )

    def stored(self, name: ObjectName, *, limit: int) -> bytes:
        """An object's bytes as stored, compared with its name; a damaged one is fetched once more.

        Raises:
            CorruptError: it is damaged, or has more than ``limit`` bytes.
            MissingError: it is not there.
            UnavailableError: the source does not answer.
        """
        return fetch_object(self._stratum, name, limit=limit)

    def pour(self, name: ObjectName, sink: Sink, *, limit: int) -> None:
        """What comes for an object into a sink: nobody has compared it with its name.

        Raises:
            CorruptError, MissingError, UnavailableError: as ``stored``; and whatever the sink raises.
        """
        self._stratum.pour(name.path, sink, limit=limit)

    def pour_again(self, name: ObjectName, sink: Sink, *, limit: int) -> None:
        """An object's bytes as stored into a sink, after bad ones; when this returns, they are its name's.

        Raises:
            CorruptError, MissingError, UnavailableError: as ``stored``; and whatever the sink raises.
        """
        pour_anew(self._stratum, name, sink, limit=limit)

    def history(self) -> History | None:
        """The tags, where the repository keeps them.

        Raises:
            CorruptError: damaged.
            MissingError: not there.
        """
        data = self._database(self.manifest.history, Kind.HISTORY, HISTORY_LIMIT)
        return None if data is None else History.from_bytes(data, fqrn=self.fqrn)

    def metainfo(self) -> bytes | None:
        """The description of the repository, JSON of any form, where it has one.

        Raises:
            CorruptError: damaged.
            MissingError: not there.
        """
        return self._database(self.manifest.metainfo, Kind.METAINFO, METAINFO_LIMIT)

    def _database(self, digest: Digest | None, kind: Kind, limit: int) -> bytes | None:
        if digest is None:
            return None
        name = ObjectName(digest=digest, kind=kind)
        return inflate(self.stored(name, limit=stored_limit(limit)), limit=limit, what=str(name))

    def _catalog(self, mountpoint: bytes, parent: Catalog | None) -> Catalog:
        with self._lock:
            known = self._catalogs.get(mountpoint)
        if known is not None:
            return known
        if parent is None:
            size = self.manifest.root_size or CATALOG_LIMIT
            stored = self.stored(self._trusted.root_catalog, limit=stored_limit(min(size, CATALOG_LIMIT)))
            opened = self._trusted.open_root(stored)
        else:
            if not isinstance(parent.lookup(mountpoint), Mountpoint):
                raise CorruptError(f"{mountpoint.decode(errors='replace')} is no place for a nested catalog")
            size = parent.nested[mountpoint].size or CATALOG_LIMIT
            name = nested_catalog(parent, mountpoint)
            opened = open_nested(
                parent, mountpoint, self.stored(name, limit=stored_limit(min(size, CATALOG_LIMIT)))
            )
        with self._lock:
            # Two threads may both have fetched it; all must see one.
            return self._catalogs.setdefault(mountpoint, opened)

    def _part(self, name: ObjectName, size: int, compression: Compression, what: str) -> bytes:
        stored = self.stored(name, limit=stored_limit(size, compression))
        content = stored if compression is Compression.NONE else inflate(stored, limit=size, what=what)
        if len(content) != size:
            raise CorruptError(f"{what} has {len(content)} bytes in {name}, not the {size} it should")
        return content


def _signed_file(stratum: Stratum, name: str, *, fresh: bool) -> bytes:
    try:
        return stratum.fetch(name, limit=LETTER_LIMIT, fresh=fresh)
    except MissingError as error:
        raise StorageError(
            f"{stratum.name} is no CVMFS repository: it has no {name}", hint="check the path or the address"
        ) from error
