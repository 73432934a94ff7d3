"""The channels of a state, from the publisher's side: expired or not, and with what has been withdrawn.

For a publisher only versions and what is pointed at matter, and both are signed; dates are for nodes.
"""

from dataclasses import dataclass, field
from typing import Final

from headstart.channel import (
    LIMIT,
    POINTER_TYPE,
    ROOT_PATH,
    WITHDRAWN_PATH,
    Pointer,
    Root,
    Withdrawn,
    pointer_path,
    read_root,
)
from headstart.cvmfs.edition import Forest
from headstart.cvmfs.entry import Directory, Entry, Mountpoint
from headstart.dsse import Envelope, verify
from headstart.errors import ConfigurationError, CorruptError, MissingError, TrustError
from headstart.names import ChannelName, StackName
from headstart.repository.state import Repository

CHANNELS: Final = b"/channels"
_ENDING: Final = ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """What a state says of its channels."""

    repository: Repository
    forest: Forest
    """The state's catalogs."""
    root: Root
    withdrawn: Withdrawn
    _known: dict[tuple[StackName, ChannelName], Pointer | None] = field(default_factory=dict)

    def pointer(self, stack: StackName, channel: ChannelName) -> Pointer | None:
        """Where a channel points, expired or not; None where there is none.

        Raises:
            TrustError: signed by none of the keys that the master key vouches for, or another channel's.
            CorruptError: no pointer.
        """
        key = (stack, channel)
        if key not in self._known:
            self._known[key] = self._read(stack, channel)
        return self._known[key]

    def _read(self, stack: StackName, channel: ChannelName) -> Pointer | None:
        path = pointer_path(stack, channel)
        data = self.repository.content_in(self.forest, path.encode(), limit=LIMIT)
        if data is None:
            return None
        where = f"{self.root.fqrn}: {path}"
        envelope = Envelope.from_bytes(data, where=where)
        payload = verify(
            envelope, self.root.keys, threshold=self.root.threshold, payload_type=POINTER_TYPE, where=where
        )
        pointer = Pointer.from_bytes(payload, where=where)
        if (pointer.fqrn, pointer.stack, pointer.channel) != (self.root.fqrn, stack, channel):
            raise TrustError(f"{where} is the pointer {pointer.stack}@{pointer.channel} put in its place")
        return pointer

    def last_version(self, stack: StackName, channel: ChannelName) -> int:
        """The highest version that nodes may have seen; 0 for a channel that never was."""
        last = self.pointer(stack, channel)
        return max(last.version if last is not None else 0, self.withdrawn.version(stack, channel))

    def names(self) -> tuple[tuple[StackName, ChannelName], ...]:
        """All channels, sorted."""
        found: list[tuple[StackName, ChannelName]] = []
        for path in entries_below(self.forest, CHANNELS):
            parts = path.decode(errors="replace").split("/")
            if len(parts) != 4 or not parts[3].endswith(_ENDING):
                continue
            try:
                found.append((StackName(parts[2]), ChannelName(parts[3].removesuffix(_ENDING))))
            except ConfigurationError:
                continue
        return tuple(sorted(found))


def channels_of(repository: Repository, forest: Forest | None = None) -> Channels:
    """The channels of the present state, or of another one.

    Raises:
        MissingError: the state has no statement of keys, so it can have no channels.
        TrustError, CorruptError: the statement is not the owner's.
    """
    forest = forest or repository.forest
    data = repository.content_in(forest, ROOT_PATH.encode(), limit=LIMIT)
    if data is None:
        raise MissingError(
            f"{repository.fqrn} has no {ROOT_PATH}, so it can have no channels",
            hint="make the repository with headstart repo create",
        )
    root = read_root(data, master=repository.keys.masters.by_id, fqrn=repository.fqrn)
    note = repository.content_in(forest, WITHDRAWN_PATH.encode(), limit=LIMIT)
    withdrawn = Withdrawn.from_bytes(note) if note is not None else Withdrawn(versions={})
    return Channels(repository=repository, forest=forest, root=root, withdrawn=withdrawn)


def entries_below(forest: Forest, path: bytes) -> dict[bytes, Entry]:
    """What is at and below a path, directories before their content; nothing where there is nothing.

    A place where another catalog begins is given as the directory that it is.
    """
    found: dict[bytes, Entry] = {}
    waiting = [path]
    while waiting:
        here = waiting.pop()
        entry = forest.lookup(here)
        if entry is None:
            continue
        if isinstance(entry, Mountpoint):
            nested = forest.mounted(here)
            if nested is None:
                raise CorruptError(f"no catalog is mounted at {here!r}")
            entry = nested[0].root()
        found[here] = entry
        if isinstance(entry, Directory):
            mounted = forest.mounted(here)
            holder = mounted[0] if mounted is not None else forest.holder(here)
            waiting += [here + b"/" + child.name for child in holder.children(here)]
    return found
