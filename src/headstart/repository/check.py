"""Checking a repository: everything that can be found wrong with it, from its signatures to its storage.

Theory of operation. Nothing here stops at the first fault, and nothing that was read is believed: who looks
after a repository wants all complaints at once. First the chain (``chain``), then the present state, each tag
and each state in the log of references (``states``), then the two small databases, and in the end the storage:
one listing of it tells which objects are missing, and which are there and named by nothing. What needs a
listing is left out for a source that has none, such as a web server.

How it differs from ``headstart verify``: that goes the way of a node, through the readers that a start uses,
and says whether this node could use the repository and its releases. This one is for the repository's owner,
reads no release's record, and is stricter than ``cvmfs_swissknife check``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from headstart.cvmfs.examined import Examined
from headstart.cvmfs.faults import Code
from headstart.cvmfs.history import TRUNK, Tag
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objectkeys import Key, key_at, key_of, name_of
from headstart.cvmfs.objects import Digest, Kind, ObjectName
from headstart.cvmfs.reflog import REFLOG_FILE, Reference, ReferenceKind
from headstart.cvmfs.tagcheck import HISTORY, REFLOG, examine_history, examine_reflog
from headstart.cvmfs.trust import MasterKeys
from headstart.errors import CorruptError, MissingError
from headstart.fetching import fetch_object, stored_limit
from headstart.inflating import inflate
from headstart.names import Fqrn
from headstart.repository.chain import check_chain, read_named
from headstart.repository.replica import REPLICA_MARKER, SNAPSHOT_FILE
from headstart.repository.report import Report
from headstart.repository.states import Reader, Root, States
from headstart.snapshot import HISTORY_LIMIT, METAINFO_LIMIT
from headstart.store import Store
from headstart.stratum import Stratum
from headstart.wording import counted

_TXN: Final = "data/txn/"
_MOST_HISTORIES: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is to be checked."""

    stratum: Stratum
    store: Store | None
    """The same as storage, where it is one; None for a web server."""
    lacking: tuple[str, ...] = ()
    """Directories of the storage that should be there."""
    keys: MasterKeys
    fqrn: Fqrn | None
    """Which repository it must be; None for whichever it says."""


def check(
    subject: Subject, *, now: datetime, deep: bool, progress: Callable[[int], None] = lambda _size: None
) -> Report:
    """Look at all of a repository.

    Args:
        subject: where it is, and whom to trust.
        now: UTC.
        deep: read every object too.
        progress: told bytes of objects as they are read; called from several threads.

    Raises:
        UnavailableError, StorageError: the source does not answer, or cannot be read.
    """
    return _Check(subject, deep=deep, progress=progress).run(now)


class _Check:
    def __init__(self, subject: Subject, *, deep: bool, progress: Callable[[int], None]) -> None:
        self._subject = subject
        self._stratum = subject.stratum
        self._report = Report()
        self._reader = Reader(self._stratum, self._report, progress) if deep else None
        self._states = States(self._stratum, self._report, reader=self._reader)
        self._named: set[Key] = set()
        """Objects at the root of things: the manifest's, the history's, the log's."""
        self._explained: set[Key] = set()
        self._roots: set[Digest] = set()
        """Of the states that were looked at."""
        self._replica = False
        """Whether it is a Stratum 1: the manifest's checksum is of another log of references than its own."""

    def run(self, now: datetime) -> Report:
        report, subject = self._report, self._subject
        manifest = check_chain(self._stratum, subject.keys, subject.fqrn, now=now, report=report)
        for path in subject.lacking:
            report.add(Code.DIRECTORY_MISSING, path, "is missing, and the real tools do not make it")
        self._replica = self._exists(SNAPSHOT_FILE)
        if not self._replica and not self._exists(REPLICA_MARKER):
            report.add(Code.FILE_MISSING, REPLICA_MARKER, "is missing, so no Stratum 1 will replicate this")
        if manifest is not None:
            self._state(manifest)
        if subject.store is not None:
            collected = self._storage(subject.store)
            # A mirror need not have what its publisher has, and nobody takes snapshots of it.
            collectable = self._replica or (manifest is not None and manifest.garbage_collectable)
            self._predecessors(collected, collectable=collectable)
        self._explain({})
        report.roots = len(self._roots)
        report.complaints.sort(key=lambda found: (found.revision, found.path, found.code))
        report.notes.sort(key=lambda found: (found.revision, found.path, found.code))
        return report

    def _exists(self, path: str) -> bool:
        try:
            self._stratum.fetch(path, limit=1 << 20)
        except MissingError:
            return False
        except CorruptError:
            pass  # larger than it needs to be
        return True

    # -- states ------------------------------------------------------------------------------------------------

    def _state(self, manifest: Manifest) -> None:
        report = self._report
        self._roots.add(manifest.root_catalog)
        head = self._states.visit(Root(digest=manifest.root_catalog, size=manifest.root_size, label=""))
        if head is not None:
            self._head(manifest, head)
        if manifest.metainfo is not None:
            name = ObjectName(digest=manifest.metainfo, kind=Kind.METAINFO)
            self._named.add(key_of(name))
            read_named(self._stratum, name, METAINFO_LIMIT, report)
        self._named.add(key_of(manifest.certificate_name))
        tags = self._history(manifest)
        for tag in tags:
            self._tag(tag, manifest)
        self._reflog(manifest, tags)

    def _head(self, manifest: Manifest, head: Examined) -> None:
        report = self._report
        revision = head.number("revision")
        if revision != manifest.revision:
            text = f"is of revision {manifest.revision}, and its root catalog of {revision}"
            report.add(Code.CATALOG_REVISION, MANIFEST_FILE, text)
        modified = head.number("last_modified")
        if modified is not None and manifest.timestamp and manifest.timestamp < modified:
            report.add(
                Code.MANIFEST_TIME,
                MANIFEST_FILE,
                "is older than its root catalog: clients that have mounted that refuse it",
            )

    def _tag(self, tag: Tag, manifest: Manifest) -> None:
        report, path = self._report, f"tag {tag.name}"
        report.tags += 1
        self._roots.add(tag.digest)
        if tag.name == TRUNK and tag.digest != manifest.root_catalog:
            report.add(Code.TAG, path, f"names {tag.digest}, and the manifest {manifest.root_catalog}")
        found = self._states.visit(Root(digest=tag.digest, size=tag.size, label=path))
        if found is None:
            report.add(Code.TAG, path, f"names the root catalog {tag.digest}, which cannot be read")
            return
        for what, said, is_so in (
            ("revision", tag.revision, found.number("revision")),
            ("time", tag.timestamp, found.number("last_modified")),
        ):
            if said != is_so:
                report.add(Code.TAG, path, f"says {what} {said}, and its root catalog {is_so}")

    def _history(self, manifest: Manifest) -> tuple[Tag, ...]:
        """The tags; the histories before this one are looked at as far as they are there."""
        report = self._report
        tags: tuple[Tag, ...] = ()
        digest, first, seen = manifest.history, True, set[Digest]()
        while digest is not None and digest not in seen and len(seen) < _MOST_HISTORIES:
            seen.add(digest)
            name = ObjectName(digest=digest, kind=Kind.HISTORY)
            try:
                stored = fetch_object(self._stratum, name, limit=stored_limit(HISTORY_LIMIT))
                data = inflate(stored, limit=HISTORY_LIMIT, what=name.path)
            except MissingError:
                if first:
                    report.add(Code.OBJECT_MISSING, name.path, "is missing, and the manifest names it")
                else:
                    steps = counted(len(seen) - 1, "step")
                    report.add(Code.HISTORY_ENDS, HISTORY, f"goes back {steps}: {digest} is gone")
                break
            except CorruptError as error:
                report.add(Code.OBJECT_DAMAGED, name.path, error.message)
                break
            self._named.add(key_of(name))
            found = examine_history(data, manifest.fqrn)
            report.take(found.faults, "" if first else f"tag history {digest}")
            if first:
                tags = found.tags
            digest, first = found.previous, False
        if manifest.history is not None:
            self._named.add(key_of(ObjectName(digest=manifest.history, kind=Kind.HISTORY)))
        return tags

    # -- the log of references ---------------------------------------------------------------------------------

    def _reflog(self, manifest: Manifest, tags: tuple[Tag, ...]) -> None:
        report = self._report
        try:
            data = self._stratum.fetch(REFLOG_FILE, limit=HISTORY_LIMIT)
        except MissingError:
            if manifest.reflog is not None:
                report.add(Code.REFLOG_MISSING, REFLOG, "is missing, and the manifest has its checksum")
            return
        except CorruptError as error:
            report.add(Code.REFLOG_DAMAGED, REFLOG, error.message)
            return
        if manifest.reflog is None and not self._replica:
            report.add(Code.REFLOG_CHECKSUM, REFLOG, "has no checksum in the manifest")
        wanted = manifest.reflog if not self._replica else None
        if wanted is not None and wanted.algorithm.digest(data) != wanted:
            report.add(Code.REFLOG_CHECKSUM, REFLOG, f"is not the one of the manifest's checksum {wanted}")
        found = examine_reflog(data, manifest.fqrn)
        report.take(found.faults)
        known = {item.digest for item in found.references}
        for digest, what in (
            (manifest.root_catalog, "root catalog"),
            (manifest.certificate, "certificate"),
            (manifest.history, "tag history"),
            (manifest.metainfo, "meta information"),
            *((tag.digest, f"root catalog of tag {tag.name}") for tag in tags),
        ):
            if digest is not None and digest not in known:
                report.add(Code.REFLOG_INCOMPLETE, REFLOG, f"does not have the {what}, {digest}")
        heads = {manifest.root_catalog, *(tag.digest for tag in tags)}
        for reference in reversed(found.references):
            self._reference(reference, seen=reference.digest in heads)

    def _reference(self, reference: Reference, *, seen: bool) -> None:
        name = reference.name
        if not self._has(name):
            text = f"names {name}, which is missing"
            self._report.add(Code.REFLOG_STALE, REFLOG, text)
            return
        self._named.add(key_of(name))
        if reference.kind is ReferenceKind.CATALOG and not seen:
            self._roots.add(reference.digest)
            self._states.visit(Root(digest=reference.digest, size=0, label=f"root catalog {reference.digest}"))

    def _has(self, name: ObjectName) -> bool:
        if self._subject.store is not None:
            return self._subject.store.has(name.path)
        return self._exists(name.path)

    # -- storage -----------------------------------------------------------------------------------------------

    def _storage(self, store: Store) -> set[Key]:
        """One listing: what is named and missing, what is there and named by nothing.

        Returns:
            The predecessors of catalogs that are gone.
        """
        report = self._report
        missing = self._named | self._states.named
        collected = self._states.predecessors.keys() - missing
        report.objects = len(missing)
        orphans = size = 0
        for listed in store.listing("data/"):
            key = key_at(listed.path)
            if key is None:
                self._no_object(listed.path)
            elif key in missing:
                missing.discard(key)
                if not listed.size and not _may_be_empty(key):
                    report.add(Code.OBJECT_DAMAGED, listed.path, "is empty")
            else:
                orphans, size = orphans + 1, size + listed.size
                collected.discard(key)
        self._orphans(orphans, size)
        faults = {
            key: (Code.OBJECT_MISSING, f"is stored in {name_of(key)}, which is missing") for key in missing
        }
        # What hangs at the root was asked for before.
        self._explain({key: fault for key, fault in faults.items() if key in self._states.named})
        return collected

    def _no_object(self, path: str) -> None:
        if not path.startswith(_TXN):
            self._report.add(Code.UNKNOWN_FILE, path, "is no object")
        elif not path.endswith(".lock"):
            self._report.add(Code.LEFTOVER, path, "was left by a publication that did not end")

    def _orphans(self, count: int, size: int) -> None:
        report = self._report
        if count and self._states.complete:
            report.orphans, report.orphan_bytes = count, size
            report.add(
                Code.ORPHANS,
                "data",
                f"has {counted(count, 'object')} of {counted(size, 'byte')} that nothing names",
            )

    def _predecessors(self, collected: set[Key], *, collectable: bool) -> None:
        """A Stratum 1 goes back through them from its second snapshot on (format section 9.2)."""
        gone = sorted((self._states.predecessors[key], str(name_of(key))) for key in collected)
        if not collectable:
            for path, name in gone:
                text = (
                    f"has a catalog whose predecessor {name} is gone: no Stratum 1 can take its next snapshot"
                )
                self._report.add(Code.PREDECESSOR_MISSING, path, text)
            return
        # Of a root catalog it may be gone; of a nested one it is asked for by who has seen neither.
        nested = [path for path, _ in gone if path]
        if nested:
            self._report.add(
                Code.PREDECESSOR_COLLECTED,
                nested[0],
                f"is one of {counted(len(nested), 'place')} of nested catalogs whose predecessor "
                "was collected: a Stratum 1 that was away for longer than states are kept needs a new first "
                "snapshot",
            )

    def _explain(self, faults: dict[Key, tuple[Code, str]]) -> None:
        """Say of objects that are not as they should be which files are stored in them."""
        if self._reader is not None:
            faults = {**self._reader.faults, **faults}
        wanted = faults.keys() - self._explained
        if not wanted:
            return
        self._explained |= wanted
        for key, path, label in self._states.places(wanted):
            code, text = faults[key]
            self._report.add(code, path, text, label)


def _may_be_empty(key: Key) -> bool:
    name = name_of(key)
    return name.digest == name.digest.algorithm.digest(b"")
