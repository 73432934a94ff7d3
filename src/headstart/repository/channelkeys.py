"""Changing the statement of channel keys: keys come and go, the threshold, the expiry, a new beginning.

The next statement has the next version and is signed with the master key, here or elsewhere. Channels that
would not be believed by it as they are signed now are signed anew in the same step, to where they point, and so
are the statements of releases: no node is left without either in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from headstart.bundle import Bundle, Unsigned
from headstart.channel import MOST_KEYS, Root
from headstart.cvmfs.signing import Signer
from headstart.ed25519 import Ed25519PublicKey
from headstart.errors import ConfigurationError, UnknownError
from headstart.names import ChannelName, StackName
from headstart.releasestatement import ReleaseStatement
from headstart.repository.channels import Channels, channels_of, counting
from headstart.repository.create import ROOT_DAYS
from headstart.repository.pointing import DEFAULT, Pointing, Terms, point
from headstart.repository.state import Repository
from headstart.wording import counted

_SHORTEST: Final = 8
"""Digits of a key id that name a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """What is to be different."""

    add: tuple[Ed25519PublicKey, ...] = ()
    remove: tuple[str, ...] = ()
    """Beginnings of key ids."""
    threshold: int | None = None
    """How many keys each pointer needs; None for as many as now."""
    days: int | None = None
    """How long the statement is to be believed; None for as long as usual, if anything else is different."""
    restart: bool = False
    """Whether only pointers signed from now on are to count, and versions to begin anew."""
    statements: bool | None = None
    """Whether releases need statements; None for as it is now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlan:
    """What a change of keys will do."""

    before: Root
    root: Root
    channels: tuple[Pointing, ...]
    """Those that are to be signed anew."""
    releases: tuple[ReleaseStatement, ...]
    """So."""

    @property
    def changes(self) -> bool:
        """Whether anything is to be signed."""
        return self.root != self.before


def plan_keys(repository: Repository, change: KeyChange, now: datetime) -> KeyPlan:
    """The next statement of keys, or the present one where nothing is to be different; nothing is written.

    Raises:
        UnknownError: a key that is to go is not named.
        ConfigurationError: fewer keys than the threshold are left, or a key is there already.
        TrustError, CorruptError, MissingError: the present statements do not hold.
    """
    state = channels_of(repository)
    before = state.root
    keys = dict(before.keys)
    for key in dict.fromkeys(change.add):
        if key.keyid in keys:
            raise ConfigurationError(f"{key.keyid} is a channel key of {before.fqrn} already")
        keys[key.keyid] = key
    for start in dict.fromkeys(find_key(before, start) for start in change.remove):
        del keys[start]
    if len(keys) > MOST_KEYS:
        raise ConfigurationError(
            f"{before.fqrn} would have {len(keys)} channel keys, more than {MOST_KEYS}", hint="--remove some"
        )
    threshold = before.threshold if change.threshold is None else change.threshold
    if not 1 <= threshold <= len(keys):
        wanted = counted(threshold, "signature")
        raise ConfigurationError(
            f"with {counted(len(keys), 'key')} of {before.fqrn} no pointer can have {wanted}",
            hint="add keys, or say another --threshold",
        )
    statements = before.statements if change.statements is None else change.statements
    same = (keys, threshold, statements) == (dict(before.keys), before.threshold, before.statements)
    if same and not change.restart and change.days is None:
        return KeyPlan(before=before, root=before, channels=(), releases=())
    start_time = now.astimezone(UTC).replace(microsecond=0)
    root = replace(
        before,
        version=before.version + 1,
        keys=keys,
        threshold=threshold,
        issued=start_time,
        expires=start_time + timedelta(days=ROOT_DAYS if change.days is None else change.days),
        restarted=start_time if change.restart else before.restarted,
        statements=statements,
    )
    lost = [channel for channel in state.names() if not state.holds(*channel, root)]
    return KeyPlan(
        before=before,
        root=root,
        channels=tuple(_anew(state, channel, root, now) for channel in lost),
        releases=state.lost(root),
    )


def find_key(root: Root, start: str) -> str:
    """The id of the key that begins with some digits.

    Raises:
        UnknownError: there is none, or more than one.
        ConfigurationError: fewer digits than name a key.
    """
    if len(start) < _SHORTEST:
        raise ConfigurationError(f"{start!r} has fewer than {_SHORTEST} digits of a key's id")
    found = [keyid for keyid in root.keys if keyid.startswith(start)]
    if len(found) != 1:
        raise UnknownError(
            f"{start} is {'none' if not found else 'more than one'} of the channel keys of {root.fqrn}",
            hint=f"there are: {', '.join(sorted(root.keys))}",
        )
    return found[0]


def _anew(state: Channels, channel: tuple[StackName, ChannelName], root: Root, now: datetime) -> Pointing:
    pointer = state.pointer(*channel)
    if pointer is None:
        raise UnknownError(f"there is no channel {channel[0]}@{channel[1]}")
    renewed = Terms(valid=DEFAULT.valid, renew=True)
    step = point(state, channel, (pointer.release, pointer.digest), renewed, now)
    if root.restarted > state.root.restarted:
        step = replace(step, pointer=replace(step.pointer, version=1))
    return step


def bundle_keys(repository: Repository, plan: KeyPlan, masters: Sequence[Signer]) -> Bundle:
    """The statement of keys and all that it has signed anew, signed by whoever is there and counts.

    Args:
        repository: the present state.
        plan: one that changes something.
        masters: the master keys at hand.
    """
    signers = counting(repository.keys, plan.root)
    statements = [Unsigned.of(plan.root, masters)]
    statements += [Unsigned.of(step.pointer, signers) for step in plan.channels]
    statements += [Unsigned.of(each, signers) for each in plan.releases]
    return Bundle(fqrn=repository.fqrn, statements=tuple(statements))
