"""Publishing: a plan that can be printed, and what carries it out.

A release's directory and a Julia's are immutable. If one is there already, its record must be the very same,
and then nothing is done but reading the stage against the record, so that a changed stage never passes for what
is published. All that is new goes into one new revision, or none if nothing is new.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from headstart.channel import Pointer, pointer_path
from headstart.cvmfs.edition import Graft
from headstart.cvmfs.entry import Entry
from headstart.cvmfs.objects import Revision
from headstart.errors import ImmutableError, MissingError, TrustError
from headstart.ingest import Ingested, Progress, Recipe, ingest, verify
from headstart.keys import RepositoryKeys
from headstart.names import ChannelName
from headstart.releasestatement import ReleaseStatement, statement_path
from headstart.repository.channels import (
    channels_of,
    counting,
    enough_signers,
    pointer_files,
    put_statements,
)
from headstart.repository.pointing import POINTER_DAYS, Terms, point
from headstart.repository.releasestatements import LOCK_PATH, statement_of
from headstart.repository.state import NO_TAGS, Repository, Settings, Tagging
from headstart.stage import StagedRelease, StagedTree
from headstart.store import Store
from headstart.tree import Source, Staged

_RECORD_LIMIT: Final = 1 << 28


def _ignore(_: object) -> None:
    """Listen to nothing."""


class Action(StrEnum):
    """What a step of a plan does."""

    PUBLISH = "publish"
    PRESENT = "present"
    """It is there already, the same."""
    POINT = "point"
    KEEP = "keep"
    """The pointer is right and fresh enough."""
    STATE = "state"
    """The release's statement is to be signed."""
    WAIT = "wait"
    """It needs keys that are not at hand, and nobody believes the release by its id until they have signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of a plan."""

    action: Action
    path: str
    """In the repository."""
    files: int
    size: int
    """Bytes of content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a publication will do."""

    steps: tuple[Step, ...]
    pointer: Pointer | None
    """The pointer to be signed; None where none is asked for or the present one stays."""
    statement: ReleaseStatement | None
    """The release's statement to be signed; None where it is there, or the keys for it are not."""

    @property
    def changes(self) -> bool:
        """Whether there will be a new revision."""
        return any(step.action in (Action.PUBLISH, Action.POINT, Action.STATE) for step in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A channel that is to point at the release."""

    name: ChannelName
    valid: timedelta = timedelta(days=POINTER_DAYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """How a publication works; nothing of it changes what is published."""

    recipe: Recipe = field(default_factory=Recipe)
    progress: Progress = _ignore
    tagging: Tagging = NO_TAGS
    """The one exception: which tags it makes."""
    announce: Callable[[Plan], None] = _ignore
    """Told the plan before it is carried out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a publication did."""

    plan: Plan
    revision: Revision
    """Now the repository's, new or not."""
    objects: int
    """New objects of files."""
    stored: int
    """Bytes in them."""


def plan(repository: Repository, staged: StagedRelease, channel: Channel | None, now: datetime) -> Plan:
    """What publishing a stage will do; nothing is written.

    Raises:
        TrustError: the stage is for another repository, or the channel's present pointer is forged.
        ImmutableError: something else is published at a path already.
        KeyFileError: the channel key is not one of the repository's.
    """
    if staged.fqrn != repository.fqrn:
        raise TrustError(
            f"the stage was built for {staged.fqrn}, this repository is {repository.fqrn}",
            hint="paths are baked into a release: build it for this repository",
        )
    steps = [_tree_step(repository, tree) for tree in staged.trees]
    pointer = None
    if channel is not None:
        pointer = _next_pointer(repository, staged, channel, now)
        action = Action.POINT if pointer is not None else Action.KEEP
        path = pointer_path(staged.release.stack, channel.name)
        steps.append(Step(action=action, path=path, files=1, size=0))
    statement, saying = _next_statement(repository, staged)
    return Plan(steps=(*steps, *saying), pointer=pointer, statement=statement)


def _tree_step(repository: Repository, tree: StagedTree) -> Step:
    action = Action.PUBLISH
    path = tree.path.decode(errors="replace")
    if repository.forest.lookup(tree.path) is not None:
        if repository.content(tree.record_path, limit=_RECORD_LIMIT) != tree.record:
            raise ImmutableError(
                f"{path} is published in {repository.fqrn} already, with other content",
                hint="what is published never changes: build anew, which gives a new release",
            )
        action = Action.PRESENT
    return Step(action=action, path=path, files=len(tree.files), size=tree.size)


def _next_pointer(
    repository: Repository, staged: StagedRelease, channel: Channel, now: datetime
) -> Pointer | None:
    """The pointer to publish; None if the present one says the same and lives on for half its time."""
    state = channels_of(repository)
    enough_signers(repository.keys, state.root)
    release = staged.release
    step = point(
        state,
        (release.stack, channel.name),
        (release.id, staged.digest),
        Terms(valid=channel.valid),
        now,
    )
    return step.pointer if step.changes else None


def _next_statement(
    repository: Repository, staged: StagedRelease
) -> tuple[ReleaseStatement | None, tuple[Step, ...]]:
    """The statement to publish, and the step of it; a repository without channel keys has none."""
    try:
        state = channels_of(repository)
    except MissingError:
        return None, ()
    stack, digest = staged.release.stack, staged.digest
    if state.stated(stack, digest) is not None:
        return None, ()
    path = statement_path(stack, digest)
    if len(counting(repository.keys, state.root)) >= state.root.threshold:
        made = statement_of(staged.release, digest, staged.content(LOCK_PATH))
        return made, (Step(action=Action.STATE, path=path, files=1, size=0),)
    waits = Step(action=Action.WAIT, path=path, files=1, size=0)
    return None, (waits,) if state.root.statements else ()


def publish(
    target: tuple[Store, RepositoryKeys],
    staged: StagedRelease,
    channel: Channel | None,
    now: datetime,
    means: Means | None = None,
) -> Published:
    """Publish a stage as one new revision.

    Args:
        target: the storage and the keys of its repository.
        staged: the stage, read.
        channel: what is to point at it, if anything.
        now: UTC.
        means: how to work.

    Raises:
        LockedError: somebody else publishes.
        Error: as ``plan``, and whatever reading and writing may run into; the present state is untouched.
    """
    store, keys = target
    means = means or Means()
    with store.transaction() as into:
        repository = Repository.open(store, keys, now)
        todo = plan(repository, staged, channel, now)
        means.announce(todo)
        settings = settings_of(repository, means)
        edition = repository.edition(now, settings)
        objects = stored = 0
        for tree, step in zip(staged.trees, todo.steps, strict=False):
            if step.action is Action.PRESENT:
                verify(tree.files, tree.expected, workers=means.recipe.workers)
                means.progress(tree.size)
                continue
            taken = ingest(
                tree.files,
                into,
                recipe_of(repository, means),
                expected=tree.expected,
                progress=means.progress,
            )
            objects, stored = objects + taken.objects, stored + taken.stored
            edition.graft(_graft(tree.path, tree.entries, taken))
        put_statements(edition, repository, _statements(repository, todo), into, now)
        manifest = repository.commit(edition.finish(), into, now, settings)
    return Published(plan=todo, revision=manifest.revision, objects=objects, stored=stored)


def _statements(repository: Repository, todo: Plan) -> dict[str, bytes]:
    """The signed files of a plan, by where they are to be."""
    files: dict[str, bytes] = {}
    if todo.pointer is None and todo.statement is None:
        return files
    signers = enough_signers(repository.keys, channels_of(repository).root)
    if todo.pointer is not None:
        files |= pointer_files(todo.pointer, todo.pointer.signed(*signers))
    if todo.statement is not None:
        said = todo.statement
        files[statement_path(said.stack, said.digest)] = said.signed(*signers)
    return files


def _graft(path: bytes, entries: Mapping[bytes, Staged], taken: Ingested) -> Graft:
    done: dict[bytes, Entry] = {
        at: taken.entries[at] if isinstance(entry, Source) else entry for at, entry in entries.items()
    }
    return Graft(path=path, entries=done)


def settings_of(repository: Repository, means: Means) -> Settings:
    """What the repository is like, and how catalogs are compressed."""
    manifest = repository.manifest
    return Settings(
        algorithm=manifest.algorithm,
        ttl=manifest.ttl,
        garbage_collectable=manifest.garbage_collectable,
        encode=means.recipe.compress,
        tagging=means.tagging,
    )


def recipe_of(repository: Repository, means: Means) -> Recipe:
    """How files become objects of the repository."""
    recipe = means.recipe
    return Recipe(
        algorithm=repository.manifest.algorithm,
        compression=recipe.compression,
        compress=recipe.compress,
        sizes=recipe.sizes,
        workers=recipe.workers,
        uncompressed=recipe.uncompressed,
    )
