"""The names that people type and paths are made of, each with one spelling and one door."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from headstart.errors import ConfigurationError

_FQRN: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class Fqrn:
    """Fully qualified repository name, such as ``julia.example.org``."""

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > 60 or _FQRN.fullmatch(self.text) is None:
            raise ConfigurationError(
                f"{self.text[:80]!r} is no repository name",
                hint="use letters, digits and hyphens in at least two parts, such as julia.example.org",
            )

    @property
    def mountpoint(self) -> str:
        """Where clients see the repository: ``/cvmfs/<name>``."""
        return f"/cvmfs/{self.text}"

    def __str__(self) -> str:
        return self.text


_LONGEST: Final = 255


def _named(pattern: str, what: str, hint: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        # The length comes first: a pattern may take its time over a long text.
        if len(text) > _LONGEST or compiled.fullmatch(text) is None:
            raise ConfigurationError(f"{text[:80]!r} is no {what}", hint=hint)
        return text

    return check


_check_stack = _named(
    r"[a-z0-9][a-z0-9._-]{0,62}",
    "name of a stack",
    "use up to 63 lower-case letters, digits, dots, underscores and hyphens",
)
_check_channel = _named(
    r"[a-z][a-z0-9._-]{0,30}",
    "name of a channel",
    "use up to 31 lower-case letters, digits, dots, underscores and hyphens, with a letter first",
)
_check_release = _named(r"[0-9a-f]{16}", "release id", "a release id is 16 lower-case hexadecimal digits")
_check_sha256 = _named(r"[0-9a-f]{64}", "SHA-256", "it takes 64 lower-case hexadecimal digits")
_check_julia = _named(
    r"\d+\.\d+\.\d+[A-Za-z0-9.+-]*-[0-9a-f]{12}",
    "name of a Julia tree",
    "it is <version>-<12 hexadecimal digits>",
)


@dataclass(frozen=True, slots=True, order=True)
class StackName:
    """The name a project is published by."""

    text: str

    def __post_init__(self) -> None:
        _check_stack(self.text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class ChannelName:
    """The name of a signed pointer to a release, such as ``prod``."""

    text: str

    def __post_init__(self) -> None:
        _check_channel(self.text)
        if len(self.text) >= 8 and not self.text.strip("0123456789abcdef"):
            raise ConfigurationError(
                f"{self.text!r} is no name of a channel: it reads as a digest", hint="use another word"
            )

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class ReleaseId:
    """16 hexadecimal digits: the first half of the SHA-256 over a build's inputs, cut to 64 bits."""

    text: str

    def __post_init__(self) -> None:
        _check_release(self.text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class Sha256:
    """A SHA-256 in lower-case hexadecimal; written ``sha256:...`` where it stands alone."""

    hex: str

    def __post_init__(self) -> None:
        _check_sha256(self.hex)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Hash ``data``."""
        return cls(hashlib.sha256(data).hexdigest())

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


@dataclass(frozen=True, slots=True, order=True)
class JuliaName:
    """The directory of one Julia in a repository: ``<version>-<12 hexadecimal digits of its digest>``."""

    text: str

    def __post_init__(self) -> None:
        _check_julia(self.text)

    def __str__(self) -> str:
        return self.text
