"""Naming states of a repository: tags are added, moved and removed without publishing anything.

Each verb is a plan, made of the verified present state, and one way to carry it out. A plan that changes
nothing writes nothing, so a command that was killed after its work was done can be given again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.history import History, Tag, check_new_name, check_not_undo
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.past import PastRoot, Selector
from headstart.cvmfs.trust import nested_catalog, open_nested
from headstart.errors import CorruptError, MissingError
from headstart.keys import RepositoryKeys
from headstart.repository.state import Repository, Settings
from headstart.store import Store


class TagAction(StrEnum):
    """What happens to a tag."""

    ADD = "add"
    MOVE = "move"
    REMOVE = "remove"
    KEEP = "keep"
    """It is as it should be already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagStep:
    """One line of a plan."""

    action: TagAction
    tag: Tag
    """As it will be; what is removed, as it was."""
    before: Tag | None = None
    """Where a moved tag was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagPlan:
    """What a tag command will do."""

    steps: tuple[TagStep, ...]
    history: History
    """All tags afterwards."""

    @property
    def changes(self) -> bool:
        """Whether anything is to be written."""
        return any(step.action is not TagAction.KEEP for step in self.steps)


Planner = Callable[[Repository], TagPlan]


def adding(name: str, at: Selector | None, description: str = "") -> Planner:
    """Name a state.

    Args:
        name: of the new tag.
        at: which state; None for the present one.
        description: a line for people.

    Returns:
        What plans it. It raises ``ConfigurationError`` for a bad name, ``ImmutableError`` where another state
        has it, ``UnknownError`` where there is no such state, ``MissingError`` where that is not whole.
    """
    check_new_name(name)

    def plan(repository: Repository) -> TagPlan:
        tag = _tag(repository, name, at, description)
        history = repository.history()
        after = history.added(tag)
        action = TagAction.KEEP if after is history else TagAction.ADD
        return TagPlan(steps=(TagStep(action=action, tag=tag),), history=after)

    return plan


def moving(name: str, at: Selector | None, description: str = "") -> Planner:
    """Let a tag name another state; without a description it keeps its own. Raises as ``adding``."""
    check_not_undo(name)

    def plan(repository: Repository) -> TagPlan:
        tag = _tag(repository, name, at, description)
        history = repository.history()
        before = history.demand(name)
        after = history.moved(tag)
        action = TagAction.KEEP if after is history else TagAction.MOVE
        return TagPlan(steps=(TagStep(action=action, tag=after.demand(name), before=before),), history=after)

    return plan


def removing(names: Iterable[str]) -> Planner:
    """Take tags away; the states that they named may be collected from then on.

    Returns:
        What plans it. It raises ``UnknownError`` where there is no such tag.
    """
    wanted = tuple(dict.fromkeys(map(check_not_undo, names)))

    def plan(repository: Repository) -> TagPlan:
        history = repository.history()
        steps = tuple(TagStep(action=TagAction.REMOVE, tag=history.demand(name)) for name in wanted)
        return TagPlan(steps=steps, history=history.removed(wanted))

    return plan


def change_tags(
    target: tuple[Store, RepositoryKeys],
    planner: Planner,
    now: datetime,
    announce: Callable[[TagPlan], None] = lambda _plan: None,
) -> tuple[TagPlan, Manifest]:
    """Carry out a plan as a new history under a manifest that is signed anew.

    Returns:
        The plan, and the manifest: the old one where nothing changed.

    Raises:
        LockedError: somebody else publishes.
        Error: as the plan, and whatever reading and writing may run into; the present state is untouched.
    """
    store, keys = target
    with store.transaction() as into:
        repository = Repository.open(store, keys, now)
        plan = planner(repository)
        announce(plan)
        if not plan.changes:
            return plan, repository.manifest
        settings = Settings(algorithm=repository.manifest.algorithm)
        return plan, repository.retag(plan.history, into, now, settings)


def _tag(repository: Repository, name: str, at: Selector | None, description: str) -> Tag:
    if at is None:
        root = repository.head
    else:
        root, forest = repository.past(at)
        check_whole(repository, root, forest.holder(b""))
    return tag_of_root(root, name, description)


def tag_of_root(root: PastRoot, name: str, description: str) -> Tag:
    """A tag for a root catalog that has been opened.

    Raises:
        CorruptError: it does not say of which revision or time it is.
    """
    if root.revision is None or root.timestamp is None:
        raise CorruptError(f"root catalog {root.name} does not say of which revision it is")
    return Tag(
        name=name,
        digest=root.digest,
        revision=root.revision,
        timestamp=root.timestamp,
        size=root.size,
        description=description,
    )


def check_whole(repository: Repository, root: PastRoot, catalog: Catalog) -> None:
    """Refuse a state of which a catalog is gone: a replica would run into it, and so would readers.

    Raises:
        CorruptError, MissingError: one is damaged or gone.
    """
    waiting = [catalog]
    while waiting:
        parent = waiting.pop()
        for mountpoint in parent.nested:
            name = nested_catalog(parent, mountpoint)
            try:
                child = open_nested(parent, mountpoint, repository.fetch(name))
            except MissingError as error:
                raise MissingError(
                    f"{repository.fqrn} at root catalog {root.digest} lacks its catalog of "
                    f"{mountpoint.decode(errors='replace')}",
                    hint="that state has been collected in part: choose another one",
                ) from error
            if child.nested:
                waiting.append(child)
