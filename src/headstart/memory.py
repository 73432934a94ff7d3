"""What a node remembers of a repository, so that nobody can take it back in time.

The newest state, and of each channel the highest version, that were ever believed. A version counts together
with the moment since which its owner lets versions count (``Root.restarted``): the pair only grows, so memories
can be merged in any order, and still an owner can come back from a version that a thief has driven up.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from headstart.channel import ROOT_PATH, Believed, Root
from headstart.cvmfs.objects import Digest, Revision
from headstart.cvmfs.trust import Seen
from headstart.errors import CorruptError, TrustError
from headstart.names import StackName

Age = tuple[int, int]
"""Since when versions count, in seconds since 1970, and the version: both only grow, in this order."""
NEVER: Final[Age] = (0, 0)
_BEHIND: Final = "the source is behind or serves an old state: use another one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a node remembers of a repository."""

    seen: Seen | None = None
    channels: Mapping[str, Age] = field(default_factory=dict)
    """By ``stack/channel``; and of ``/channels/root.json``, by that path."""

    def merged(self, other: Self) -> "Memory":
        """The newer of both, in every part."""
        first, second = self.seen, other.seen
        if first is None or (second is not None and second.revision >= first.revision):
            first, second = second, first
        if first is not None and second is not None:
            first = replace(first, whitelist=max(first.whitelist, second.whitelist))
        channels = dict(self.channels)
        for channel, age in other.channels.items():
            channels[channel] = max(age, channels.get(channel, NEVER))
        return Memory(seen=first, channels=channels)

    def to_bytes(self) -> bytes:
        """The stored form."""
        seen = self.seen and {
            "revision": self.seen.revision,
            "timestamp": self.seen.timestamp,
            "root_catalog": str(self.seen.root_catalog or ""),
            "whitelist": self.seen.whitelist,
        }
        channels = {
            name: {"since": since, "version": version} for name, (since, version) in self.channels.items()
        }
        return json.dumps({"seen": seen, "channels": channels}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the stored form.

        Raises:
            CorruptError: it is damaged.
        """
        try:
            record = json.loads(data)
            seen = record["seen"] and Seen(
                revision=Revision(int(record["seen"]["revision"])),
                timestamp=int(record["seen"]["timestamp"]),
                root_catalog=Digest.parse(record["seen"]["root_catalog"])
                if record["seen"]["root_catalog"]
                else None,
                whitelist=int(record["seen"]["whitelist"]),
            )
            channels = {
                str(channel): (int(age["since"]), int(age["version"]))
                for channel, age in record["channels"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise CorruptError(f"not a node's memory ({error})") from error
        return cls(seen=seen, channels=channels)

    def knows(self, stack: StackName, channel: object) -> bool:
        """Whether a channel was believed here before."""
        return f"{stack}/{channel}" in self.channels

    def check(self, believed: Believed | Root) -> None:
        """Refuse a channel, or a statement of keys, that is older than it was believed here before.

        Raises:
            TrustError: its version, or that of the statement of keys, is lower.
        """
        for what, age in ages_of(believed).items():
            seen = self.channels.get(what, NEVER)
            if age < seen:
                raise TrustError(
                    f"{_named(believed, what)} has version {age[1]}, this node has already seen {seen[1]}",
                    hint=_BEHIND,
                )


def _named(believed: Believed | Root, what: str) -> str:
    if isinstance(believed, Root):
        return f"{believed.fqrn}: {ROOT_PATH}"
    pointer = believed.pointer
    named = ROOT_PATH if what == ROOT_PATH else str(pointer.channel)
    return f"{pointer.stack}@{pointer.channel} of {believed.root.fqrn}: {named}"


def ages_of(believed: Believed | Root) -> dict[str, Age]:
    """What is to be remembered of a channel, or of a statement of keys alone."""
    if isinstance(believed, Root):
        return {ROOT_PATH: (0, believed.version)}
    pointer = believed.pointer
    return {f"{pointer.stack}/{pointer.channel}": believed.age, ROOT_PATH: (0, believed.root.version)}


def memory_of(seen: Seen | None, believed: Iterable[Believed | Root]) -> Memory:
    """What is to be remembered of a state and of what was believed in it."""
    channels: dict[str, Age] = {}
    for each in believed:
        channels |= ages_of(each)
    return Memory(seen=seen, channels=channels)
