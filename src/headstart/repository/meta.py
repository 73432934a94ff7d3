"""Changing what a repository says of itself: a new object of meta information under the same root catalog.

``cvmfs_server update-repoinfo`` does the same: revision and tags stay, the manifest is signed anew.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.metainfo import METAINFO_LIMIT, MetaInfo
from headstart.cvmfs.objects import Algorithm, Kind, ObjectName, deflate, inflate
from headstart.keys import RepositoryKeys
from headstart.repository.state import Repository, Settings, advance
from headstart.store import Store, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaPlan:
    """What a change of meta information does."""

    before: bytes
    """The present object's content; empty where there is none."""
    after: bytes

    @property
    def changes(self) -> bool:
        """Whether anything becomes different."""
        return self.before != self.after


Wording = Callable[[bytes], MetaInfo]
"""Says what the next meta information is to be, given the present object's content, which may be empty."""


def plan_meta(repository: Repository, wording: Wording) -> MetaPlan:
    """What a change will do; nothing is written.

    Raises:
        MissingError, CorruptError: the present object is gone or damaged.
        ConfigurationError: the next one cannot be published.
    """
    before = metainfo_of(repository)
    return MetaPlan(before=before, after=wording(before).to_bytes())


def change_meta(
    target: tuple[Store, RepositoryKeys],
    wording: Wording,
    now: datetime,
    announce: Callable[[MetaPlan], None] = lambda _plan: None,
) -> tuple[MetaPlan, Manifest]:
    """Publish other meta information; where it is what it was, nothing is written.

    Raises:
        LockedError: somebody else publishes.
        Error: as ``plan_meta``; the present state is untouched.
    """
    store, keys = target
    with store.transaction() as into:
        repository = Repository.open(store, keys, now)
        plan = plan_meta(repository, wording)
        announce(plan)
        manifest = repository.manifest
        if not plan.changes:
            return plan, manifest
        name = put_metainfo(plan.after, into, manifest.algorithm)
        draft = replace(manifest, metainfo=name.digest, timestamp=repository.when(now))
        settings = Settings(algorithm=manifest.algorithm)
        return plan, advance(repository.step(draft, None, (), into, settings), now)


def metainfo_of(repository: Repository) -> bytes:
    """The present meta information; empty where there is none.

    Raises:
        MissingError, CorruptError: it is gone or damaged.
    """
    digest = repository.manifest.metainfo
    if digest is None:
        return b""
    name = ObjectName(digest=digest, kind=Kind.METAINFO)
    return inflate(repository.fetch(name), limit=METAINFO_LIMIT, what=str(name))


def put_metainfo(content: bytes, into: Transaction, algorithm: Algorithm) -> ObjectName:
    """Stage an object of meta information."""
    # Stock compression: a replica compresses this object again and files it under the name that it has here.
    stored = deflate(content)
    name = ObjectName(digest=algorithm.digest(stored), kind=Kind.METAINFO)
    into.put(name, stored)
    return name
