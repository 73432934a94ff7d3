"""A repository as its publisher sees it: the verified present state, and the one way to the next.

The present is believed only after the whole chain of trust, like any client's: whoever could change the storage
must not get what he put there signed by us. The next state is put into storage in the order of format section
16, the manifest last, after the same chain was tried on it in memory. Its time never goes backwards, because
clients refuse a manifest that is older than theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Self

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.edition import Edited, Edition, Forest, Manner, NewCatalog
from headstart.cvmfs.entry import ChunkedFile, Compression, Entry, File
from headstart.cvmfs.history import TRUNK, History, Tag, automatic_name
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName, Revision, deflate, inflate
from headstart.cvmfs.past import ByHash, ByRevision, PastRoot, Selector, described, find
from headstart.cvmfs.reflog import REFLOG_FILE, REFLOG_LIMIT, ReferenceKind, Reflog, present
from headstart.cvmfs.signature import LETTER_LIMIT, seal
from headstart.cvmfs.trust import TrustedManifest
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.deflating import fast
from headstart.errors import CorruptError, Error, MissingError, StorageError, TrustError, UnknownError
from headstart.keys import RepositoryKeys
from headstart.names import Fqrn
from headstart.repository.replica import OBJECT_LIMIT, read_object, refuse_replica
from headstart.store import Store, Transaction, present_files
from headstart.wording import counted, readable

_DAY: Final = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagging:
    """Which tags a publication makes, beside the undo tags, which it moves in any case."""

    name: str = ""
    """A tag of the user's; empty for none."""
    description: str = ""
    """Of that tag, or of the automatic one."""
    automatic: bool = False
    """Whether a publication without a tag of the user's makes one of its own, named after its time."""
    days: int | None = None
    """How long automatic tags are kept; None for ever."""

    def applied(self, history: History, head: Tag) -> History:
        """The history with the tags of a publication of ``head``, in the order of the real publisher.

        Raises:
            ConfigurationError, ImmutableError: the user's tag has no good name, or is there already.
        """
        if self.days is not None:
            end = head.timestamp - self.days * _DAY
            old = [tag.name for tag in history.tags if tag.automatic and tag.timestamp < end]
            history = history.removed(old)
        name = self.name
        if not name and self.automatic:
            name = automatic_name(head.timestamp, (tag.name for tag in history.tags))
        if name:
            history = history.added(replace(head, name=name, description=self.description))
        return history


NO_TAGS: Final = Tagging()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a new repository is like; it keeps to it."""

    algorithm: Algorithm = Algorithm.SHA1
    ttl: int = 240
    """Seconds that clients keep a state without asking for a newer one."""
    garbage_collectable: bool = True
    """Whether old states may go; a Stratum 1 expects that of such a repository only (format section 9.2)."""
    encode: Callable[[bytes], bytes] = fast
    """How catalogs and histories are compressed; certificate and meta info always as the real tools do."""
    tagging: Tagging = NO_TAGS


class Repository:
    """The present state, verified."""

    def __init__(self, store: Store, keys: RepositoryKeys, trusted: TrustedManifest) -> None:
        self.store: Final = store
        self.keys: Final = keys
        self.manifest: Final[Manifest] = trusted.manifest
        root = trusted.open_root(self.fetch(trusted.root_catalog))
        self.forest: Final = Forest(root, self.manifest.root_catalog, self.fetch)

    @classmethod
    def open(cls, store: Store, keys: RepositoryKeys, now: datetime) -> Self:
        """Verify the present state with the keys' own public halves.

        Raises:
            StorageError: no repository, or a mirror of one.
            TrustError: another repository's keys, an expired whitelist, a forged state.
            CorruptError, MissingError: an object is damaged or gone.
        """
        try:
            published = store.read(MANIFEST_FILE, limit=LETTER_LIMIT)
        except MissingError as error:
            raise StorageError(
                f"{store.name} is no repository", hint="make one first: headstart repo create"
            ) from error
        refuse_replica(store)
        return cls(store, keys, _believe(store, keys, published, now))

    @property
    def fqrn(self) -> Fqrn:
        """Its name."""
        return self.manifest.fqrn

    def fetch(self, name: ObjectName) -> bytes:
        """An object as stored, compared with its name.

        Raises:
            MissingError, CorruptError: it is gone or damaged.
        """
        return read_object(self.store, name)

    def content(self, path: bytes, *, limit: int) -> bytes | None:
        """The content of a small file of the present state; see ``content_in``."""
        return self.content_in(self.forest, path, limit=limit)

    def content_in(self, forest: Forest, path: bytes, *, limit: int) -> bytes | None:
        """The content of a small file of a state, verified; None where there is none.

        Raises:
            CorruptError: it is no such file, larger than ``limit``, or damaged.
        """
        entry: Entry | None = forest.lookup(path)
        if entry is None:
            return None
        if isinstance(entry, ChunkedFile):
            if entry.size > limit:
                raise CorruptError(
                    f"{readable(path)} in {self.fqrn} has {counted(entry.size, 'byte')}, more than {limit}"
                )
            parts = ((chunk.digest, Kind.CHUNK, chunk.size) for chunk in entry.chunks)
            return b"".join(self._part(part, entry.compression, path) for part in parts)
        if not isinstance(entry, File) or entry.size > limit:
            raise CorruptError(f"{readable(path)} in {self.fqrn} is no file of up to {counted(limit, 'byte')}")
        return self._part((entry.digest, Kind.FILE, entry.size), entry.compression, path)

    def _part(self, part: tuple[Digest, Kind, int], compression: Compression, path: bytes) -> bytes:
        digest, kind, size = part
        stored = self.fetch(ObjectName(digest=digest, kind=kind))
        content = (
            stored if compression is Compression.NONE else inflate(stored, limit=size, what=readable(path))
        )
        if len(content) != size:
            raise CorruptError(
                f"{readable(path)} in {self.fqrn} has {counted(len(content), 'byte')} instead of {size}"
            )
        return content

    def history(self) -> History:
        """Its tags."""
        if self.manifest.history is None:
            return History(fqrn=self.fqrn)
        name = ObjectName(digest=self.manifest.history, kind=Kind.HISTORY)
        return History.from_bytes(inflate(self.fetch(name), limit=OBJECT_LIMIT, what=str(name)), fqrn=self.fqrn)

    @property
    def head(self) -> PastRoot:
        """The present root catalog."""
        manifest = self.manifest
        return PastRoot(
            digest=manifest.root_catalog,
            revision=manifest.revision,
            size=manifest.root_size,
            timestamp=self.forest.holder(b"").last_modified,
        )

    def past(self, selector: Selector) -> tuple[PastRoot, Forest]:
        """A past state that is named by something signed, and its catalogs; see ``cvmfs.past``.

        Raises:
            UnknownError: there is no such state, or it has been collected.
            CorruptError: one of the root catalogs is damaged.
        """
        root = find(selector, self.head, self.history(), self.fetch) or self._logged(selector)
        if root is None:
            raise UnknownError(
                f"there is no {selector} of {self.fqrn}",
                hint="it was never published here, or has been collected: see headstart repo tag list",
            )
        try:
            catalog, size = root.open(self.fetch(root.name))
        except MissingError as error:
            raise UnknownError(f"{selector} of {self.fqrn} is not in the storage any more") from error
        return described(root, catalog, size), Forest(catalog, root.digest, self.fetch)

    def _logged(self, selector: Selector) -> PastRoot | None:
        """The state in the reference log; a log that is not the manifest's own proves nothing."""
        log = self._signed_log()
        for item in reversed(log.references) if log is not None else ():
            if item.kind is not ReferenceKind.CATALOG:
                continue
            root = PastRoot(digest=item.digest)
            if isinstance(selector, ByHash):
                if item.digest == selector.digest:
                    return root
            elif isinstance(selector, ByRevision):
                try:
                    catalog, size = root.open(self.fetch(root.name))
                except MissingError:
                    continue
                if catalog.revision == selector.number:
                    return described(root, catalog, size)
        return None

    def _signed_log(self) -> Reflog | None:
        wanted = self.manifest.reflog
        try:
            data = self.store.read(REFLOG_FILE, limit=REFLOG_LIMIT)
            if wanted is None or wanted.algorithm.digest(data) != wanted:
                return None
            return Reflog.from_bytes(data, fqrn=self.fqrn)
        except (MissingError, CorruptError):
            return None

    def reflog(self) -> Reflog:
        """Its log of references, which an interrupted publication may have left ahead of the manifest.

        Raises:
            MissingError, CorruptError: the manifest says that there is a log, and it is missing or damaged.
                Begun anew it would know the present state only, and a collection would delete what else was to
                stay.
        """
        manifest = self.manifest
        try:
            found = Reflog.from_bytes(self.store.read(REFLOG_FILE, limit=REFLOG_LIMIT), fqrn=self.fqrn)
        except (MissingError, CorruptError) as error:
            if manifest.reflog is not None:
                raise type(error)(
                    f"the log of references of {self.fqrn} cannot be used: {error.message}",
                    hint="mend it first: headstart repo check --repair",
                ) from error
            found = Reflog(fqrn=self.fqrn)
        heads = present(manifest)
        known = {item.digest for item in found.references}
        paths = [item.name.path for item in found.references]
        there = present_files(self.store, paths)
        kept = tuple(item for item, path in zip(found.references, paths, strict=True) if path in there)
        return Reflog(fqrn=self.fqrn, references=(*kept, *(item for item in heads if item.digest not in known)))

    def when(self, now: datetime) -> int:
        """The time of the next state: now, but never before the present one's."""
        return max(int(now.timestamp()), self.manifest.timestamp, self.forest.holder(b"").last_modified)

    def edition(
        self, now: datetime, settings: Settings, deliver: Callable[[NewCatalog], None] | None = None
    ) -> Edition:
        """Begin the next state; ``deliver`` takes nested catalogs as they are written, see ``Edition``."""
        manner = Manner(
            revision=Revision(self.manifest.revision + 1),
            when=self.when(now),
            ttl=self.forest.holder(b"").ttl,
            algorithm=self.manifest.algorithm,
            encode=settings.encode,
        )
        return Edition(self.forest, manner, deliver)

    def commit(self, edited: Edited, into: Transaction, now: datetime, settings: Settings) -> Manifest:
        """Make an edition the present state; everything it names must have been put already.

        Returns:
            The new manifest; the old one where nothing changed.
        """
        root = edited.root
        if root is None:
            if not settings.tagging.name:
                return self.manifest
            # There is nothing new to publish, and still a state to name.
            tagged = replace(settings.tagging, automatic=False, days=None)
            return self.retag(tagged.applied(self.history(), self._head_tag()), into, now, settings)
        draft = self.draft(root, now)
        head = tag_of(draft)
        history = settings.tagging.applied(self.history(), head).published(head)
        return advance(self.step(draft, history, edited.catalogs, into, settings), now)

    def draft(self, root: NewCatalog, now: datetime) -> Manifest:
        """The manifest of the next revision."""
        return replace(
            self.manifest,
            root_catalog=root.name.digest,
            root_size=root.size,
            revision=Revision(self.manifest.revision + 1),
            timestamp=self.when(now),
        )

    def retag(self, history: History, into: Transaction, now: datetime, settings: Settings) -> Manifest:
        """Publish other tags of the same state, as the real ``tag`` command does.

        Root catalog and revision stay, so that no client loads anything; the manifest is signed anew with the
        time of now (``CommandEditTag`` in ``swissknife_history.cc``, ``SigningTool::Run``).

        Returns:
            The new manifest; the old one where the tags are what they were.
        """
        if history == self.history():
            return self.manifest
        return self.resign(into, now, settings, history)

    def resign(
        self, into: Transaction, now: datetime, settings: Settings, history: History | None = None
    ) -> Manifest:
        """Sign the same state again, with the certificate in the key directory."""
        draft = replace(self.manifest, timestamp=self.when(now))
        return advance(self.step(draft, history, (), into, settings), now)

    def _head_tag(self) -> Tag:
        return replace(tag_of(self.manifest), timestamp=self.forest.holder(b"").last_modified)

    def step(
        self,
        draft: Manifest,
        history: History | None,
        catalogs: tuple[NewCatalog, ...],
        into: Transaction,
        settings: Settings,
    ) -> "Advance":
        """What ``advance`` needs to follow the present state; no history means that it stays."""
        return Advance(
            store=self.store,
            keys=self.keys,
            into=into,
            catalogs=catalogs,
            draft=draft,
            history=history,
            reflog=self.reflog(),
            settings=settings,
        )


def tag_of(manifest: Manifest) -> Tag:
    """A published state as a tag, to be named."""
    return Tag(
        name=TRUNK,
        digest=manifest.root_catalog,
        revision=manifest.revision,
        timestamp=manifest.timestamp,
        size=manifest.root_size,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """What is needed for a step to the next state."""

    store: Store
    keys: RepositoryKeys
    into: Transaction
    catalogs: tuple[NewCatalog, ...]
    draft: Manifest
    """All of it is right but certificate, history and reflog."""
    history: History | None
    """All tags of the next state; which one it follows is put right by the step itself. None: as they are."""
    reflog: Reflog
    settings: Settings


def advance(step: Advance, now: datetime) -> Manifest:
    """Put the next state into storage, the manifest last (format section 16).

    Raises:
        Error: whatever went wrong; the present state is untouched.
    """
    algorithm, draft = step.draft.algorithm, step.draft
    for catalog in step.catalogs:
        check_catalog(catalog)
        step.into.put(catalog.name, catalog.stored)
    certificate = _put(step, deflate(step.keys.certificate_pem), Kind.CERTIFICATE)
    history = draft.history
    if step.history is not None:
        tags = replace(step.history, previous=draft.history)
        history = _put(step, step.settings.encode(tags.to_bytes()), Kind.HISTORY)
    named = replace(draft, certificate=certificate, history=history)
    reflog = step.reflog.published(present(named)).to_bytes()
    manifest = replace(named, reflog=algorithm.digest(reflog))
    published = seal(manifest.to_bytes(), algorithm=algorithm, sign=step.keys.repository.sign_sha1)
    step.into.settle()
    # What clients will do is done here first, on what storage really gives.
    trusted = _believe(step.store, step.keys, published, now)
    trusted.open_root(read_object(step.store, trusted.root_catalog))
    step.into.replace(REFLOG_FILE, reflog)
    step.into.replace(MANIFEST_FILE, published)
    return manifest


def _put(step: Advance, stored: bytes, kind: Kind) -> Digest:
    digest = step.draft.algorithm.digest(stored)
    step.into.put(ObjectName(digest=digest, kind=kind), stored)
    return digest


def check_catalog(new: NewCatalog) -> None:
    """Read a catalog back before anybody else does."""
    what = str(new.name)
    database = inflate(new.stored, limit=new.size, what=what)
    catalog = Catalog.from_bytes(database, mountpoint=new.mountpoint)
    complaints = catalog.complaints()
    if complaints:
        raise Error(
            f"a catalog came out wrong: {complaints[0]}", hint="this is a fault of Headstart: report it"
        )


def _believe(store: Store, keys: RepositoryKeys, published: bytes, now: datetime) -> TrustedManifest:
    whitelist = store.read(WHITELIST_FILE, limit=LETTER_LIMIT)
    trusted = keys.masters.trust(whitelist, fqrn=keys.fqrn, now=now)
    known = trusted.whitelist.fingerprints
    if not any(keys.certificate.fingerprint(item.digest.algorithm) == item for item in known):
        raise TrustError(
            f"the certificate in the key directory is not on the whitelist of {keys.fqrn}",
            hint="clients would refuse what its key signs: use the right keys, or sign a new whitelist",
        )
    claim = trusted.examine(published)
    return claim.prove(read_object(store, claim.certificate))
