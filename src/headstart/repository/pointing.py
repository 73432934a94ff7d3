"""Letting channels point somewhere: promote, go back, renew.

All three make the same thing, a pointer of the next version; a release is never copied and never removed by it,
so whoever runs on the old one goes on. Going back is a new pointer to an old digest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, assert_never

from headstart.bundle import Bundle, Unsigned
from headstart.channel import Pointer
from headstart.errors import ConfigurationError, CorruptError, UnknownError
from headstart.names import ChannelName, ReleaseId, Sha256, StackName
from headstart.published import believe, by_digits, release
from headstart.reference import DigestPrefix, NamedChannel, Reference, Unspecified
from headstart.releasestatement import ReleaseStatement
from headstart.repository.channels import Channels, RepositoryTree, channels_of, counting, history_of
from headstart.repository.releasestatements import statement_in, unstated
from headstart.repository.state import Repository

POINTER_DAYS: Final = 30
Target = tuple[ReleaseId, Sha256]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How pointers are to be made."""

    valid: timedelta = timedelta(days=POINTER_DAYS)
    renew: bool = False
    """Whether to sign anew even what says the same and has more than half of its time left."""


DEFAULT: Final = Terms()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointing:
    """One channel's line of a plan."""

    pointer: Pointer
    """As it will be."""
    before: Pointer | None
    """As it is; None for a channel that is new."""

    @property
    def changes(self) -> bool:
        """Whether anything is to be signed."""
        return self.pointer != self.before


def point(
    state: Channels, channel: tuple[StackName, ChannelName], target: Target, terms: Terms, now: datetime
) -> Pointing:
    """A channel's next pointer; the present one if it says the same and lives on for half its time."""
    last = state.pointer(*channel)
    same = last is not None and (last.release, last.digest) == target
    if last is not None and same and not terms.renew and last.expires - now > terms.valid / 2:
        return Pointing(pointer=last, before=last)
    start = now.astimezone(UTC).replace(microsecond=0)
    pointer = Pointer(
        fqrn=state.root.fqrn,
        stack=channel[0],
        channel=channel[1],
        release=target[0],
        digest=target[1],
        version=state.last_version(*channel) + 1,
        issued=start,
        expires=start + terms.valid,
    )
    return Pointing(pointer=pointer, before=last)


def plan_promotion(
    repository: Repository, reference: Reference, channel: ChannelName, terms: Terms, now: datetime
) -> Pointing:
    """Let a channel point at a release that is published: another channel's, or one named by digest or id.

    Raises:
        ConfigurationError: the reference does not say which release.
        UnknownError: there is no such stack, channel or release, listing what there is.
        TrustError, CorruptError, MissingError: a statement or a record does not hold.
    """
    target = _target(repository, reference)
    return point(channels_of(repository), (reference.stack, channel), target, terms, now)


def _target(repository: Repository, reference: Reference) -> Target:
    tree, masters = RepositoryTree(repository), repository.keys.masters
    match reference.choice:
        case NamedChannel(name=name):
            # Expired or not: for who publishes it says where it points.
            pointer = believe(tree, reference.stack, name, keys=masters).pointer
            _, digest = release(tree, reference.stack, pointer.release)
            if digest != pointer.digest:
                raise CorruptError(f"{reference} points at {pointer.digest}, and its release is {digest}")
            return pointer.release, digest
        case DigestPrefix():
            made, digest = by_digits(tree, reference.stack, reference.choice)
            return made.id, digest
        case Unspecified():
            raise ConfigurationError(
                f"{reference.stack} alone does not say which release",
                hint="write STACK@CHANNEL, STACK@RELEASE or STACK@sha256:DIGEST",
            )
        case _:
            assert_never(reference.choice)


def plan_return(
    repository: Repository,
    channel: tuple[StackName, ChannelName],
    to: DigestPrefix | None,
    terms: Terms,
    now: datetime,
) -> Pointing:
    """Let a channel point where it pointed before.

    Args:
        repository: the present state.
        channel: which.
        to: the release to go back to; None for the last one before the present.
        terms: how to make the pointer.
        now: UTC.

    Raises:
        UnknownError: there is no such channel or release, or the channel never pointed elsewhere.
        TrustError, CorruptError, MissingError: a statement or a record does not hold.
    """
    stack, name = channel
    state, tree = channels_of(repository), RepositoryTree(repository)
    present = believe(tree, stack, name, keys=repository.keys.masters).pointer
    if to is not None:
        target = _target(repository, Reference(stack=stack, choice=to))
        return point(state, channel, target, terms, now)
    earlier = [past for past in history_of(state, stack, name) if past.version < present.version]
    for past in sorted(earlier, key=lambda past: past.version, reverse=True):
        if past.digest != present.digest:
            _, digest = release(tree, stack, past.release)
            if digest == past.digest:
                return point(state, channel, (past.release, digest), terms, now)
    raise UnknownError(
        f"{stack}@{name} of {repository.fqrn} has never pointed at another release that is still there",
        hint="name one: --to DIGEST; headstart list shows them",
    )


def plan_renewal(repository: Repository, terms: Terms, now: datetime) -> tuple[Pointing, ...]:
    """All channels, each where it points now; those with less than half of their time left are signed anew."""
    state = channels_of(repository)
    found: list[Pointing] = []
    for channel in state.names():
        pointer = state.pointer(*channel)
        if pointer is not None:
            found.append(point(state, channel, (pointer.release, pointer.digest), terms, now))
    return tuple(found)


def bundle_of(repository: Repository, steps: Iterable[Pointing]) -> Bundle | None:
    """What there is to be signed, signed by those keys at hand that count; None for nothing.

    Who lets a channel point at a release vouches for it, so a release that has no statement gets one.
    """
    state = channels_of(repository)
    pointers = [step.pointer for step in steps if step.changes]
    return bundle_at_hand(state, [*pointers, *unstated(state, pointers)])


def bundle_at_hand(state: Channels, statements: Sequence[Pointer | ReleaseStatement]) -> Bundle | None:
    """Some statements, signed by those keys at hand that count; None for none."""
    signers = counting(state.repository.keys, state.root)
    signed = tuple(Unsigned.of(statement, signers) for statement in statements)
    return Bundle(fqrn=state.root.fqrn, statements=signed) if signed else None


def plan_stating(repository: Repository, references: Iterable[Reference]) -> tuple[ReleaseStatement, ...]:
    """The statements that some releases lack.

    Raises:
        ConfigurationError: a reference does not name one release.
        UnknownError: there is no such release, listing what there is.
        TrustError, CorruptError, MissingError: a statement or a record does not hold.
    """
    state, tree = channels_of(repository), RepositoryTree(repository)
    found: dict[Sha256, ReleaseStatement] = {}
    for reference in references:
        release_id, digest = _target(repository, reference)
        if state.stated(reference.stack, digest) is None:
            made, _ = release(tree, reference.stack, release_id)
            found[digest] = statement_in(tree, made, digest)
    return tuple(found.values())
