"""The table of failure: one family per exit code.

Each family is a kind of situation that a script may want to tell apart. The message of an error is whole
sentences for a person: what is wrong, where, and (the ``hint``) what to do about it. Only ``headstart.cli``
turns an error into an exit code.

Exit codes 0, 1 and 2 keep their usual meaning (done, a fault of Headstart's own, wrong usage); codes of 126
and above belong to shells and signals. A started Julia's own exit code passes through untouched.
"""

from __future__ import annotations

# As in typing, which a node would have to import on the way to Julia; checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


class Error(Exception):
    """Root of everything Headstart raises on purpose.

    Args:
        message: what is wrong and where (file, line, key, path), without a full stop at the end.
        hint: what to do about it; empty when the message already says so.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ConfigurationError(Error):
    """What the user wrote is wrong: Headstart.toml, the project, its lock, a target's or a stack's name."""

    exit_code = 10


class MissingToolError(Error):
    """Something that this step needs is not on this machine: Julia, a C compiler, a hash of OpenSSL's."""

    exit_code = 11


class BuildError(Error):
    """The build did not give a good image: a package does not precompile, the smoke test failed."""

    exit_code = 12


class IncompatibleError(Error):
    """This machine's CPU cannot make, or cannot run, what was asked for."""

    exit_code = 13


class NamespaceError(Error):
    """The kernel or the site does not allow the mount namespace that this step cannot do without."""

    exit_code = 14


class KeyFileError(Error):
    """A key file is missing, is not what it should be, or is open to others."""

    exit_code = 15


class StorageError(Error):
    """The storage is no repository, is one already, or cannot be written."""

    exit_code = 16


class TrustError(Error):
    """The chain of signatures does not hold: wrong key, expired, rolled back, another repository's."""

    exit_code = 17


class CorruptError(Error):
    """Bytes are not what their name or their record promises: changed, truncated, or inflating too far."""

    exit_code = 18


class MissingError(Error):
    """An object that a verified record names is not there."""

    exit_code = 19


class UnknownError(Error):
    """There is no such stack, channel, release or path in the repository."""

    exit_code = 20


class UnavailableError(Error):
    """A server or a proxy does not answer, or answers with an error."""

    exit_code = 21


class CacheError(Error):
    """The node's cache cannot be written, is full, or is not this user's to trust."""

    exit_code = 22


class LockedError(Error):
    """Somebody else is writing to the same place."""

    exit_code = 23


class ImmutableError(Error):
    """A published release would be overwritten with other bytes."""

    exit_code = 24


class StrictError(Error):
    """A start would compile, or has compiled, and it was to compile nothing."""

    exit_code = 25


class ComplaintsError(Error):
    """A check came to its end and has found something to complain about."""

    exit_code = 26


class OutputError(Error):
    """Standard output cannot be written; where its reader has gone, nobody is told, and the code is 141."""

    exit_code = 27
