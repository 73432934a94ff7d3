"""Taking old releases out of the present state, so that garbage collection can free what only they are made of.

A release is held by every channel that points at it, and by every pointer at it that has not expired: a node
without a memory may still believe that one. Tags and kept revisions hold their own states, with all releases in
them, whatever the present one has. Jobs that run hold what they need on their node, where nobody asks the
publisher; and jobs that name a release by its digest cannot be seen from here at all, so nothing is taken out
that was not named.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from headstart.channel import Pointer
from headstart.cvmfs.manifest import Manifest
from headstart.errors import ConfigurationError, MissingError
from headstart.keys import RepositoryKeys
from headstart.names import Sha256
from headstart.published import by_digits, releases, stacks
from headstart.published import release as read_release
from headstart.reference import DigestPrefix, Reference
from headstart.release import Release
from headstart.releasestatement import statement_path
from headstart.repository.channels import RepositoryTree, channels_of, history_of
from headstart.repository.state import Repository, Settings
from headstart.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """What goes out of the present state."""

    releases: tuple[tuple[Release, Sha256], ...]
    statements: tuple[str, ...]
    """Paths of their statements, as far as there are any."""
    julias: tuple[str, ...]
    """Paths of Julias that no release that stays runs on."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Everything that goes."""
        homes = (f"/stacks/{made.stack}/{made.id}" for made, _ in self.releases)
        return (*homes, *self.statements, *self.julias)


def plan_retirement(repository: Repository, references: Iterable[Reference], now: datetime) -> Retirement:
    """What taking some releases out will do; nothing is written.

    Raises:
        ConfigurationError: one is not named by digest or id, or is held by a channel.
        UnknownError: there is no such release, listing what there is.
        TrustError, CorruptError, MissingError: a statement or a record does not hold.
    """
    tree = RepositoryTree(repository)
    going: dict[str, tuple[Release, Sha256]] = {}
    for reference in references:
        if not isinstance(reference.choice, DigestPrefix):
            raise ConfigurationError(
                f"{reference} does not name one release", hint="write STACK@RELEASE or STACK@sha256:DIGEST"
            )
        made, digest = by_digits(tree, reference.stack, reference.choice)
        going[f"/stacks/{made.stack}/{made.id}"] = made, digest
    held = _held(repository, now)
    for made, digest in going.values():
        by = held.get(digest)
        if by is not None:
            raise ConfigurationError(
                f"{made.stack} {made.id} is held by {by.stack}@{by.channel}, version {by.version}, until "
                f"{by.expires:%Y-%m-%d %H:%M} UTC",
                hint="let the channel point elsewhere, and wait until nobody can believe that pointer any more",
            )
    staying = {
        read_release(tree, stack, release_id)[0].julia
        for stack in stacks(tree)
        for release_id in releases(tree, stack)
        if f"/stacks/{stack}/{release_id}" not in going
    }
    lonely = {str(made.julia) for made, _ in going.values() if made.julia not in staying}
    said = (statement_path(made.stack, digest) for made, digest in going.values())
    return Retirement(
        releases=tuple(going.values()),
        statements=tuple(path for path in said if repository.forest.lookup(path.encode()) is not None),
        julias=tuple(f"/julia/{name}" for name in sorted(lonely)),
    )


def _held(repository: Repository, now: datetime) -> dict[Sha256, Pointer]:
    """Digests that a channel points at, or a pointer that has not expired."""
    try:
        state = channels_of(repository)
    except MissingError:
        return {}
    found: dict[Sha256, Pointer] = {}
    for stack, channel in state.names():
        for pointer in history_of(state, stack, channel):
            if pointer.expires > now and pointer.issued >= state.root.restarted:
                found[pointer.digest] = pointer
    # Those that are in force last: they are the better reason.
    for channel_name in state.names():
        present = state.pointer(*channel_name)
        if present is not None:
            found[present.digest] = present
    return found


def retire(
    target: tuple[Store, RepositoryKeys],
    references: Iterable[Reference],
    now: datetime,
    announce: Callable[[Retirement], None] = lambda _plan: None,
) -> tuple[Retirement, Manifest]:
    """Take releases out of the present state, as one new revision; no object is deleted.

    Raises:
        LockedError: somebody else publishes.
        Error: as ``plan_retirement``, or from reading and writing; the present state is untouched.
    """
    store, keys = target
    with store.transaction() as into:
        repository = Repository.open(store, keys, now)
        plan = plan_retirement(repository, references, now)
        announce(plan)
        settings = Settings(algorithm=repository.manifest.algorithm)
        edition = repository.edition(now, settings)
        for path in plan.paths:
            edition.remove(path.encode())
        return plan, repository.commit(edition.finish(), into, now, settings)
