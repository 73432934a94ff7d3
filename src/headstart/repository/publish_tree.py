"""Publishing any directory: what is at a path of the repository becomes what the directory is."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Final

from headstart.cvmfs.balance import Weights
from headstart.cvmfs.dirtab import DIRTAB, DIRTAB_LIMIT, Dirtab
from headstart.cvmfs.edition import NewCatalog
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.objects import ObjectName
from headstart.errors import ConfigurationError, StorageError
from headstart.ingest import Ingestion
from headstart.keys import RepositoryKeys
from headstart.namedfile import read_named
from headstart.repository.drafts import Tree
from headstart.repository.publish import Means, recipe_of, settings_of
from headstart.repository.state import Repository, check_catalog
from headstart.repository.synchronize import Synchronization
from headstart.repository.touched import PartSynchronization, check_named, names_of
from headstart.store import Store, Transaction
from headstart.tree import AS_IT_IS, Manners
from headstart.treestate import SLACK, TreeState
from headstart.wording import readable

OURS: Final = frozenset({b"channels", b"julia", b"modules", b"stacks"})
"""Names in the root directory that Headstart publishes itself, and whose content never changes."""
_DEFAULT_MEANS: Final = Means()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What of a directory is to be published, and how."""

    directory: str
    at: bytes
    """The path in the repository; empty for its root."""
    manners: Manners = AS_IT_IS
    weights: Weights | None = None
    """How large catalogs may become before they are divided; None to leave them as they are marked."""
    dirtab: bytes | None = None
    """Rules for nested catalogs; None for those in the repository's root directory."""
    kept: frozenset[bytes] = frozenset()
    """Names in the repository's root that stay as they are, where the directory is published there."""
    rules: str = ""
    """What ``Recipe.uncompressed`` goes by, as a text: other rules make another recipe."""
    state: str | None = None
    """The file that remembers what the directory looked like; None to read everything."""
    only: frozenset[bytes] = frozenset()
    """What was touched since it was published last, as paths below the directory, without a slash at their
    ends; nothing is looked at but them, and all below them. Empty to look at everything."""
    checksum: bool = False
    """Whether to read everything, whatever is remembered."""
    slack: int = SLACK
    """Nanoseconds before the publication: what changed since then is read again the next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePublished:
    """What a publication did, or would do."""

    manifest: Manifest
    """Now the repository's, new or not."""
    changed: bool
    """Whether there is, or would be, a new revision."""
    read: int
    """Files that were read."""
    read_bytes: int
    objects: int
    """New objects of files."""
    stored: int
    """Bytes in them."""
    catalogs: tuple[bytes, ...]
    """Mountpoints of the catalogs that are new, the root's as an empty path."""
    warnings: tuple[str, ...] = ()
    """Sentences on what did not go well once all was published."""


@dataclass(slots=True)
class _Rehearsal:
    """A transaction that writes nothing."""

    store: Store
    staged: set[str] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)

    def put(self, name: ObjectName, stored: bytes) -> bool:  # noqa: ARG002 - the protocol's
        """See ``Transaction.put``."""
        with self.lock:
            if name.path in self.staged or self.store.has(name.path):
                return False
            self.staged.add(name.path)
            return True

    def settle(self) -> None:
        """See ``Transaction.settle``."""

    def replace(self, path: str, content: bytes) -> None:
        """See ``Transaction.replace``."""

    def delete(self, paths: Iterable[str]) -> None:
        """Deletes nothing either."""

    def remove(self, path: str) -> None:
        """Nor does this."""


def publish_tree(
    target: tuple[Store, RepositoryKeys],
    wanted: Wanted,
    now: datetime,
    means: Means = _DEFAULT_MEANS,
    *,
    rehearse: bool = False,
) -> TreePublished:
    """Make a path of the repository a copy of any directory, as the real publisher would.

    Args:
        target: the storage and the keys of its repository.
        wanted: what to publish.
        now: UTC; from before anybody looked at the directory.
        means: how to work.
        rehearse: whether to only find out what would be done, which reads but writes nothing.

    Raises:
        LockedError: somebody else publishes.
        ConfigurationError: only some paths are wanted, and the directory is not what was published before, or
            one of them is neither in it nor published.
        Error: whatever reading and writing may run into; the present state is untouched.
    """
    store, keys = target
    with _transaction(store, rehearse=rehearse) as into:
        repository = Repository.open(store, keys, now)
        settings = settings_of(repository, means)
        recipe = recipe_of(repository, means)
        rules = _rules(repository, wanted)
        tree = _tree(wanted, rules)
        written: dict[bytes, str] = {}
        edition = repository.edition(now, settings, _delivery(into, written))
        horizon = int(now.timestamp()) * 1_000_000_000 - wanted.slack
        file = None if rehearse and wanted.checksum else wanted.state
        said = _descriptions(repository, wanted, means, rules[0])
        with (
            Ingestion(recipe, into, means.progress) as ingestion,
            TreeState(file, *said, anew=wanted.checksum) as state,
        ):
            check_named(tree, repository.forest, wanted.only)
            # Its own rules concern all of a tree.
            whole = not wanted.only or (wanted.at == b"" and DIRTAB in wanted.only)
            names = None if whole else names_of(wanted.only)
            if names is not None:
                _refuse_others(wanted, state.others)
            parts = (tree, repository.forest, edition, ingestion, (state, horizon))
            run = Synchronization(*parts) if names is None else PartSynchronization(*parts, names)
            run.run()
            holder = repository.forest.holder(wanted.at).mountpoint
            present = repository.forest.mounted(holder)
            edited = edition.finish()
            written |= {new.mountpoint: str(new.name.digest) for new in edited.catalogs}
            manifest = repository.manifest
            if not rehearse:
                manifest = repository.commit(edited, into, now, settings)
                digest = written.get(holder, str(present[1]) if present is not None else "")
                run.remember_holder(digest)
                state.keep()
        return TreePublished(
            manifest=manifest,
            changed=edited.root is not None,
            read=run.tally.read,
            read_bytes=run.tally.read_bytes,
            objects=ingestion.objects,
            stored=ingestion.stored,
            catalogs=tuple(sorted(written)),
            warnings=_forgotten(wanted, state.lost) if not rehearse else (),
        )


def delete_path(
    target: tuple[Store, RepositoryKeys],
    path: bytes,
    now: datetime,
    means: Means = _DEFAULT_MEANS,
    *,
    rehearse: bool = False,
) -> TreePublished:
    """Take a path out of the repository, with all below it; nothing in storage is deleted.

    Raises:
        UnknownError: there is no such path.
        LockedError: somebody else publishes.
        Error: whatever reading and writing may run into; the present state is untouched.
    """
    store, keys = target
    with _transaction(store, rehearse=rehearse) as into:
        repository = Repository.open(store, keys, now)
        settings = settings_of(repository, means)
        edition = repository.edition(now, settings)
        edition.remove(path)
        edited = edition.finish()
        manifest = repository.manifest if rehearse else repository.commit(edited, into, now, settings)
        return TreePublished(
            manifest=manifest,
            changed=edited.root is not None,
            read=0,
            read_bytes=0,
            objects=0,
            stored=0,
            catalogs=tuple(sorted(new.mountpoint for new in edited.catalogs)),
        )


@contextmanager
def _transaction(store: Store, *, rehearse: bool) -> Iterator[Transaction]:
    if rehearse:
        yield _Rehearsal(store)
    else:
        with store.transaction() as into:
            yield into


def _delivery(into: Transaction, written: dict[bytes, str]) -> Callable[[NewCatalog], None]:
    def deliver(catalog: NewCatalog) -> None:
        check_catalog(catalog)
        into.put(catalog.name, catalog.stored)
        written[catalog.mountpoint] = str(catalog.name.digest)

    return deliver


def _rules(repository: Repository, wanted: Wanted) -> tuple[bytes, str]:
    """The text of the rules for nested catalogs, and where it is from."""
    if wanted.dirtab is not None:
        return wanted.dirtab, "the rules for nested catalogs"
    if wanted.at == b"":
        return _own_rules(wanted.directory), f"{wanted.directory}/{DIRTAB.decode()}"
    rules = repository.content(b"/" + DIRTAB, limit=DIRTAB_LIMIT)
    return rules or b"", f"{repository.fqrn}: /{DIRTAB.decode()}"


def _tree(wanted: Wanted, rules: tuple[bytes, str]) -> Tree:
    return Tree(
        directory=wanted.directory,
        at=wanted.at,
        manners=wanted.manners,
        dirtab=Dirtab.parse(rules[0], where=rules[1]),
        weights=wanted.weights,
        kept=wanted.kept,
    )


def _refuse_others(wanted: Wanted, others: Sequence[str]) -> None:
    """Refuse to publish some paths otherwise than all that is left as it is."""
    if others:
        at = readable(wanted.at or b"/")
        raise ConfigurationError(
            f"{others[0]} is not as it was when {wanted.directory} was published at {at}, "
            "and with --only it would hold for some paths alone",
            hint="publish all of it once, without --only",
        )


def _forgotten(wanted: Wanted, why: str) -> tuple[str, ...]:
    """What to say where a tree cannot be remembered: it is published all the same."""
    if not why:
        return ()
    said = (
        f"what {wanted.directory} looks like cannot be remembered in {wanted.state} ({why}), so the next "
        "publication reads again what this one has read; make room there, or remove that file"
    )
    return (said,)


def _own_rules(directory: str) -> bytes:
    """The rules that a directory brings, which is to be the repository's root."""
    place = f"{directory}/{DIRTAB.decode()}"
    try:
        os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError:
        pass  # said by who reads it
    return read_named(place, what="file of rules", limit=DIRTAB_LIMIT, error=StorageError)


def _descriptions(
    repository: Repository, wanted: Wanted, means: Means, rules: bytes
) -> tuple[dict[str, str], dict[str, str]]:
    """What the memory of a directory depends on: how content is stored, and how it is laid out."""
    recipe, manners = means.recipe, wanted.manners
    content = {
        "--uncompressed": wanted.rules,
        "the hash of the repository": repository.manifest.algorithm,
        "compression": recipe.compression,
        "the size of chunks": recipe.sizes,
    }
    shape = {
        "the repository": repository.fqrn,
        "--at": (wanted.at, sorted(wanted.kept)),
        "--owner": manners.owner,
        "--no-xattrs": manners.xattrs,
        "--nanoseconds": manners.nanoseconds,
        "what else is kept of files": (manners.directory_mode, manners.hardlinks),
        "--autocatalogs, or a weight,": wanted.weights,
        "--dirtab, or .cvmfsdirtab,": hashlib.sha256(rules).hexdigest(),
    }
    return {key: repr(each) for key, each in content.items()}, {key: repr(each) for key, each in shape.items()}
