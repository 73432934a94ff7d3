"""How a user says which release: ``jets``, ``jets@prod``, ``jets@sha256:ab12...``, ``jets@ab12cd34``.

A channel is as good as its signature, and 32 or more digits of a digest pin the bytes whoever holds the
repository's key. Fewer digits, an id, or a bare name only choose among what that key has signed: its thief
could make a release of his own whose digest starts with the same 8 digits, and take the other one away. So a
release that is named in these ways is believed only where its owner has stated it (``releasestatement``).
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from headstart.errors import ConfigurationError
from headstart.names import ChannelName, StackName

_PREFIX: Final = re.compile(r"[0-9a-f]{8,64}")
_HINT: Final = (
    "write STACK, STACK@CHANNEL, STACK@RELEASE, STACK@sha256:DIGEST, "
    "or STACK@ and 8 or more digits of the digest"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedChannel:
    """Whatever the channel points at."""

    name: ChannelName


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestPrefix:
    """The release whose digest starts with these digits."""

    hex: str
    """8 to 64 lower-case hexadecimal digits."""
    only_digest: bool
    """True when written with ``sha256:``; else 16 digits may be a release id as well."""

    def __str__(self) -> str:
        return f"sha256:{self.hex}" if self.only_digest else self.hex

    @property
    def pins(self) -> bool:
        """Whether nobody can make another release that it fits: 128 bits."""
        return len(self.hex) >= 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Unspecified:
    """The channel ``prod`` where there is one, else the only release."""


Choice = NamedChannel | DigestPrefix | Unspecified


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A stack and which of its releases."""

    stack: StackName
    choice: Choice

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what the user typed. 8 or more hexadecimal digits are a digest, never a channel.

        Raises:
            ConfigurationError: another spelling.
        """
        stack, at, rest = text.partition("@")
        try:
            name = StackName(stack)
            return cls(stack=name, choice=_choice(rest) if at else Unspecified())
        except ConfigurationError as error:
            raise ConfigurationError(f"{text[:120]!r} is no reference: {error.message}", hint=_HINT) from error

    def __str__(self) -> str:
        match self.choice:
            case NamedChannel(name=name):
                return f"{self.stack}@{name}"
            case DigestPrefix():
                return f"{self.stack}@{self.choice}"
            case Unspecified():
                return str(self.stack)


def _choice(text: str) -> Choice:
    digits = text.removeprefix("sha256:")
    if _PREFIX.fullmatch(digits) is not None:
        return DigestPrefix(hex=digits, only_digest=digits != text)
    if digits != text:
        raise ConfigurationError(f"{text[:80]!r} is not sha256: and 8 to 64 lower-case hexadecimal digits")
    return NamedChannel(name=ChannelName(text))
