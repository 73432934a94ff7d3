"""Making a past state the present one again, as a new revision.

The catalogs are the old ones; only the root catalog is written anew, with the next revision number and the
present root as its predecessor, because clients take nothing that is not newer. Tags of later revisions go, as
with the real tool (format section 10).

Channels do not go back by themselves: nodes refuse a pointer whose version is lower than one that they have
seen. So a channel that pointed elsewhere then is signed anew, to where it pointed then, above its present
version; one that did not exist then stays if its release is still there, and else is withdrawn, with a note of
its version for the day that it comes again. The statement of keys stays the present one (docs/adr/0010), and
so does the history of channels and statements. Releases that were stated then are stated by the present keys.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from headstart.channel import ROOT_PATH, WITHDRAWN_PATH, Pointer, Withdrawn, pointer_path
from headstart.cvmfs.edition import Edition, Forest, Graft, Manner
from headstart.cvmfs.entry import Directory, Entry, Stat, name_of
from headstart.cvmfs.forest import ancestors
from headstart.cvmfs.history import TRUNK_PREVIOUS, Tag
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.objects import Revision
from headstart.cvmfs.past import ByTag, PastRoot, Selector
from headstart.errors import ConfigurationError, Error, MissingError
from headstart.keys import RepositoryKeys
from headstart.names import Sha256
from headstart.release import RELEASE_FILE
from headstart.releasestatement import ReleaseStatement, statement_path
from headstart.repository.channels import (
    CHANNELS,
    Channels,
    channels_of,
    counting,
    enough_signers,
    entries_below,
    is_history,
    pointer_files,
    stated_by,
)
from headstart.repository.create import small_file
from headstart.repository.state import Repository, Settings, advance, tag_of
from headstart.repository.tags import check_whole
from headstart.store import Store, Transaction

UNDO: ByTag = ByTag(TRUNK_PREVIOUS)
"""What a rollback without a target goes back to, as with the real tool: the last publication is undone."""
_RECORD_LIMIT = 1 << 26


class ChannelAction(StrEnum):
    """What a rollback does to a channel."""

    SIGN = "sign"
    """Points where it pointed then, under a higher version."""
    KEEP = "keep"
    """Points at the same release then and now, or at one that is there then too."""
    WITHDRAW = "withdraw"
    """Its release is not there then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStep:
    """One channel's line of a plan."""

    action: ChannelAction
    pointer: Pointer
    """As it will be; a withdrawn one, as it was."""
    before: Pointer | None
    """As it is; None where there is no such channel now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackPlan:
    """What a rollback will do."""

    target: PastRoot
    forest: Forest
    """The target's catalogs."""
    revision: Revision
    """The new one."""
    removed: tuple[Tag, ...]
    """Tags that go; not the target itself, which moves along, and not the undo tags."""
    channels: tuple[ChannelStep, ...]
    withdrawn: Withdrawn
    stated: Mapping[bytes, Entry]
    """Files with statements of releases that hold, by path."""
    stated_anew: tuple[ReleaseStatement, ...]
    """Releases whose statement is to be signed anew."""


def plan_rollback(repository: Repository, selector: Selector, now: datetime) -> RollbackPlan:
    """What going back to a state will do; nothing is written.

    Raises:
        UnknownError: there is no such state, or it has been collected.
        ConfigurationError: it is the present one.
        KeyFileError: a channel must be signed, and the channel key is not one of the repository's.
        TrustError, CorruptError, MissingError: the target, or a pointer in it, does not hold.
    """
    target, forest = repository.past(selector)
    present = repository.manifest.revision
    if target.revision is None or target.revision >= present:
        raise ConfigurationError(
            f"{selector} of {repository.fqrn} is the present state",
            hint="name an earlier one: headstart repo tag list",
        )
    check_whole(repository, target, forest.holder(b""))
    gone = repository.history().taken_back(target.revision, target.tag)
    steps, withdrawn = _channels(repository, forest, now)
    stated, anew = _stated(repository, forest)
    return RollbackPlan(
        target=target,
        forest=forest,
        revision=Revision(present + 1),
        removed=tuple(tag for tag in gone if tag.name not in (target.tag, "trunk", "trunk-previous")),
        channels=steps,
        withdrawn=withdrawn,
        stated=stated,
        stated_anew=anew,
    )


def roll_back(
    target: tuple[Store, RepositoryKeys],
    selector: Selector,
    now: datetime,
    announce: Callable[[RollbackPlan], None] = lambda _plan: None,
) -> tuple[RollbackPlan, Manifest]:
    """Publish a past state as the next revision.

    Raises:
        LockedError: somebody else publishes.
        Error: as ``plan_rollback``, or from reading and writing; the present state is untouched.
    """
    store, keys = target
    with store.transaction() as into:
        repository = Repository.open(store, keys, now)
        plan = plan_rollback(repository, selector, now)
        announce(plan)
        settings = Settings(algorithm=repository.manifest.algorithm)
        root = plan.forest.holder(b"")
        manner = Manner(
            revision=plan.revision,
            when=repository.when(now),
            ttl=root.ttl,
            algorithm=settings.algorithm,
            encode=settings.encode,
            follows=repository.manifest.root_catalog,
        )
        edition = Edition(plan.forest, manner)
        graft = _graft(repository, plan, into, settings, now)
        if graft is not None:
            edition.graft(graft)
        edited = edition.finish()
        if edited.root is None:
            raise Error("a rollback came out without a root catalog", hint="report this fault of Headstart")
        draft = replace(repository.draft(edited.root, now), ttl=root.ttl)
        history = repository.history().rolled_back(
            plan.target.revision or Revision(0), plan.target.tag, tag_of(draft)
        )
        step = repository.step(draft, history, edited.catalogs, into, settings)
        return plan, advance(step, now)


def _channels(
    repository: Repository, forest: Forest, now: datetime
) -> tuple[tuple[ChannelStep, ...], Withdrawn]:
    try:
        present = channels_of(repository)
    except MissingError:
        # A repository of somebody else's kind has no channels to care for.
        return (), Withdrawn(versions={})
    try:
        then: Channels | None = channels_of(repository, forest)
    except MissingError:
        then = None
    withdrawn = present.withdrawn if then is None else present.withdrawn.merged(then.withdrawn)
    steps: list[ChannelStep] = []
    for stack, channel in then.names() if then is not None else ():
        old = then.pointer(stack, channel) if then is not None else None
        if old is not None:
            steps.append(_brought_back(present, old, now))
    known = {(step.pointer.stack, step.pointer.channel) for step in steps}
    for stack, channel in present.names():
        pointer = present.pointer(stack, channel)
        if pointer is None or (stack, channel) in known:
            continue
        action = ChannelAction.KEEP if _has(repository, forest, pointer) else ChannelAction.WITHDRAW
        if action is ChannelAction.WITHDRAW:
            withdrawn = withdrawn.with_version(stack, channel, pointer.version)
        steps.append(ChannelStep(action=action, pointer=pointer, before=pointer))
    if any(step.action is ChannelAction.SIGN for step in steps):
        enough_signers(repository.keys, present.root)
    return tuple(steps), withdrawn


def _brought_back(present: Channels, old: Pointer, now: datetime) -> ChannelStep:
    current = present.pointer(old.stack, old.channel)
    if current is not None and (current.release, current.digest) == (old.release, old.digest):
        return ChannelStep(action=ChannelAction.KEEP, pointer=current, before=current)
    start = now.astimezone(UTC).replace(microsecond=0)
    version = max(present.last_version(old.stack, old.channel), old.version) + 1
    pointer = replace(old, version=version, issued=start, expires=start + (old.expires - old.issued))
    return ChannelStep(action=ChannelAction.SIGN, pointer=pointer, before=current)


def _stated(repository: Repository, forest: Forest) -> tuple[dict[bytes, Entry], tuple[ReleaseStatement, ...]]:
    """The statements of a past state's releases: files that hold now, and what is to be signed anew.

    A release that is gone by now may have been signed by keys that are gone, too. Without keys at hand it is
    then stated no more.
    """
    try:
        present, then = channels_of(repository), channels_of(repository, forest)
    except MissingError:
        return {}, ()
    able = len(counting(repository.keys, present.root)) >= present.root.threshold
    kept: dict[bytes, Entry] = {}
    anew: list[ReleaseStatement] = []
    for stack, digest in sorted({*then.statements(), *present.statements()}):
        said, old = present.stated(stack, digest), then.stated(stack, digest)
        at = statement_path(stack, digest).encode()
        if said is not None and _has(repository, forest, said):
            kept |= _file(present, at)
        elif said is None and old is not None:
            if then.stated(stack, digest, present.root) is not None:
                kept |= _file(then, at)
            elif able:
                anew.append(old)
    return kept, tuple(anew)


def _file(state: Channels, path: bytes) -> dict[bytes, Entry]:
    entry = state.forest.lookup(path)
    return {} if entry is None else {path: entry}


def _has(repository: Repository, forest: Forest, pointer: Pointer | ReleaseStatement) -> bool:
    path = f"/stacks/{pointer.stack}/{pointer.release}/{RELEASE_FILE}".encode()
    data = repository.content_in(forest, path, limit=_RECORD_LIMIT)
    return data is not None and Sha256.of(data) == pointer.digest


def _graft(
    repository: Repository, plan: RollbackPlan, into: Transaction, settings: Settings, now: datetime
) -> Graft | None:
    """``/channels`` of the next state; None where that of the target serves as it is."""
    then = entries_below(plan.forest, CHANNELS)
    present = entries_below(repository.forest, CHANNELS)
    wanted = {path: entry for path, entry in then.items() if stated_by(path) is None}
    wanted |= {path: entry for path, entry in present.items() if is_history(path)}
    wanted |= plan.stated
    for said in plan.stated_anew:
        at = statement_path(said.stack, said.digest).encode()
        content = said.signed(*counting(repository.keys, channels_of(repository).root))
        wanted[at] = _written(at, content, repository, into, settings, now)
    for step in plan.channels:
        path = pointer_path(step.pointer.stack, step.pointer.channel).encode()
        match step.action:
            case ChannelAction.SIGN:
                signers = enough_signers(repository.keys, channels_of(repository).root)
                content = step.pointer.signed(*signers)
                for place in pointer_files(step.pointer, content):
                    at = place.encode()
                    wanted[at] = _written(at, content, repository, into, settings, now)
            case ChannelAction.KEEP:
                wanted[path] = present[path]
            case ChannelAction.WITHDRAW:
                wanted.pop(path, None)
    if ROOT_PATH.encode() in present:
        wanted[ROOT_PATH.encode()] = present[ROOT_PATH.encode()]
    if plan.withdrawn.versions:
        path = WITHDRAWN_PATH.encode()
        wanted[path] = _written(path, plan.withdrawn.to_bytes(), repository, into, settings, now)
    if wanted == then or not wanted:
        return None
    for above in {above for path in wanted for above in ancestors(path)}:
        if above not in wanted:
            wanted[above] = present.get(above) or Directory(
                name=name_of(above), stat=Stat(mode=0o755, mtime=repository.when(now))
            )
    return Graft(path=CHANNELS, entries=dict(sorted(wanted.items())))


def _written(
    path: bytes, content: bytes, repository: Repository, into: Transaction, settings: Settings, now: datetime
) -> Entry:
    return small_file(path, content, into, repository.when(now), settings).entries[path]
