"""What a channel pointed at, since when, and who let it: all pointers that it ever had, each one proven.

An old pointer counts when a statement of keys that the master key signed would have believed it; all of those
are kept beside the present one. Dates are shown and not judged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from headstart.channel import (
    LIMIT,
    ROOT_PATH,
    Believed,
    Pointer,
    Root,
    history_path,
    read_pointer,
    read_root,
)
from headstart.dsse import Envelope
from headstart.errors import CorruptError, Error, TrustError, UnknownError
from headstart.names import ChannelName, StackName
from headstart.published import PublishedTree, believe, channels
from headstart.source import Opened

_ENDING: Final = ".root.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One pointer of a channel."""

    path: str
    believed: Believed | Error
    """By the newest statement of keys that believes it; or why none does."""
    present: bool
    """Whether the channel points there now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPast:
    """One channel and all that it ever pointed at, the newest first."""

    stack: StackName
    channel: ChannelName
    pasts: tuple[Past, ...]


def past_of(opened: Opened, stack: StackName, channel: ChannelName | None) -> tuple[ChannelPast, ...]:
    """The history of a channel, or of all channels of a stack.

    Raises:
        UnknownError: there is no such stack or channel, listing what there is.
        TrustError, CorruptError: the present statement of keys does not hold.
    """
    tree = opened.tree
    names: tuple[ChannelName, ...] = channels(tree, stack) if channel is None else (channel,)
    if not names:
        raise UnknownError(
            f"{stack} in {tree.fqrn} has no channels", hint=f"headstart list {tree.fqrn} says what there is"
        )
    roots = tuple(_roots(opened))
    return tuple(_channel(opened, roots, stack, name) for name in names)


def _roots(opened: Opened) -> Iterator[Root]:
    """All statements of keys that the master key signed, the newest first."""
    tree, master = opened.tree, opened.keys.by_id
    present = read_root(tree.read(ROOT_PATH, limit=LIMIT), master=master, fqrn=tree.fqrn)
    yield present
    names = [name for name in tree.names("/channels") if name.endswith(_ENDING)]
    found: list[Root] = []
    for name in names:
        try:
            data = tree.read(f"/channels/{name}", limit=LIMIT)
            found.append(read_root(data, master=master, fqrn=tree.fqrn))
        except (TrustError, CorruptError):
            # One that another master key signed, before it was changed: what only it believed is not believed.
            continue
    yield from sorted(
        (root for root in found if root.version < present.version), key=lambda root: -root.version
    )


def _channel(opened: Opened, roots: Sequence[Root], stack: StackName, channel: ChannelName) -> ChannelPast:
    tree = opened.tree
    try:
        present: Pointer | None = believe(tree, stack, channel, keys=opened.keys).pointer
    except (TrustError, CorruptError):
        present = None
    directory = history_path(stack, channel)
    try:
        names = [f"{directory}/{name}" for name in tree.names(directory)]
    except UnknownError:
        # Published by a Headstart that kept no history.
        names = []
    pasts = [_past(tree, roots, (stack, channel), path, present) for path in sorted(names, reverse=True)]
    return ChannelPast(stack=stack, channel=channel, pasts=tuple(sorted(pasts, key=_age, reverse=True)))


def _age(past: Past) -> tuple[int, int]:
    return past.believed.age if isinstance(past.believed, Believed) else (0, 0)


def _past(
    tree: PublishedTree,
    roots: Sequence[Root],
    channel: tuple[StackName, ChannelName],
    path: str,
    present: Pointer | None,
) -> Past:
    try:
        data = tree.read(path, limit=LIMIT)
        pointer = Pointer.from_bytes(Envelope.from_bytes(data, where=path).payload, where=path)
        believed: Believed | Error = _believed(data, roots, channel)
    except Error as error:
        return Past(path=path, believed=error, present=False)
    return Past(path=path, believed=believed, present=pointer == present)


def _believed(data: bytes, roots: Sequence[Root], channel: tuple[StackName, ChannelName]) -> Believed | Error:
    fault: Error | None = None
    for root in roots:
        try:
            return read_pointer(data, root=root, stack=channel[0], channel=channel[1])
        except TrustError as error:
            fault = fault or error
    return fault or TrustError(f"no statement of keys believes {channel[0]}@{channel[1]}")
