"""Statements to carry: pointers, statements of releases and one of keys, that wait for more signatures.

Whoever signs may have no network and no repository, so the file holds the envelopes themselves, whole: what is
signed is what will be published, to the bit. Who carries the file can change what is in it, so a signer reads
what he signs; and the repository takes nothing from it that its nodes would not believe.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from headstart.channel import POINTER_TYPE, ROOT_PATH, ROOT_TYPE, Pointer, Root, pointer_path
from headstart.dsse import Envelope, Signer
from headstart.errors import CorruptError
from headstart.names import Fqrn
from headstart.record import Table, canonical
from headstart.releasestatement import STATEMENT_TYPE, ReleaseStatement, statement_path

SCHEMA: Final = 1
BUNDLE_LIMIT: Final = 1 << 27
MOST: Final = 2000
"""Statements in one file: a change of keys may have those of all releases signed anew."""
Statement = Root | Pointer | ReleaseStatement
_KINDS: Final[Mapping[type[Statement], str]] = {
    Root: ROOT_TYPE,
    Pointer: POINTER_TYPE,
    ReleaseStatement: STATEMENT_TYPE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsigned:
    """One statement with the signatures that it has so far; nobody has looked at them."""

    statement: Statement
    envelope: Envelope

    @classmethod
    def of(cls, statement: Statement, signers: Iterable[Signer] = ()) -> Self:
        """A statement, signed by whoever is there."""
        kind = _KINDS[type(statement)]
        envelope = Envelope(payload_type=kind, payload=statement.to_bytes(), signatures=())
        return cls(statement=statement, envelope=envelope.with_signatures(signers))

    @classmethod
    def from_table(cls, table: Table) -> Self:
        """Read one.

        Raises:
            CorruptError: no statement of any kind.
        """
        envelope = Envelope.from_table(table)
        match envelope.payload_type:
            case kind if kind == ROOT_TYPE:
                return cls(statement=Root.from_bytes(envelope.payload), envelope=envelope)
            case kind if kind == POINTER_TYPE:
                pointer = Pointer.from_bytes(envelope.payload, where=table.where)
                return cls(statement=pointer, envelope=envelope)
            case kind if kind == STATEMENT_TYPE:
                release = ReleaseStatement.from_bytes(envelope.payload, where=table.where)
                return cls(statement=release, envelope=envelope)
            case other:
                raise CorruptError(f"{table.where} has a statement of the unknown type {other[:80]!r}")

    @property
    def path(self) -> str:
        """Where it is to be in the repository."""
        match self.statement:
            case Root():
                return ROOT_PATH
            case Pointer(stack=stack, channel=channel):
                return pointer_path(stack, channel)
            case ReleaseStatement(stack=stack, digest=digest):
                return statement_path(stack, digest)

    def signed(self, signers: Iterable[Signer]) -> Self:
        """The same with more signatures."""
        return type(self)(statement=self.statement, envelope=self.envelope.with_signatures(signers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Statements that belong together: all of them are published, in one revision, or none."""

    fqrn: Fqrn
    statements: tuple[Unsigned, ...]

    def __post_init__(self) -> None:
        paths = [each.path for each in self.statements]
        if not paths or len(paths) > MOST:
            raise CorruptError(f"a file to sign has {len(paths)} statements, not from 1 to {MOST}")
        if len(set(paths)) != len(paths):
            raise CorruptError("a file to sign has two statements for one place")
        for each in self.statements:
            if each.statement.fqrn != self.fqrn:
                raise CorruptError(f"a file to sign for {self.fqrn} has a statement of {each.statement.fqrn}")

    @property
    def root(self) -> Unsigned | None:
        """The statement of keys in it."""
        return next((each for each in self.statements if isinstance(each.statement, Root)), None)

    @property
    def pointers(self) -> tuple[tuple[Pointer, Unsigned], ...]:
        """The pointers in it."""
        return tuple((each.statement, each) for each in self.statements if isinstance(each.statement, Pointer))

    @property
    def releases(self) -> tuple[tuple[ReleaseStatement, Unsigned], ...]:
        """The statements of releases in it."""
        return tuple(
            (each.statement, each) for each in self.statements if isinstance(each.statement, ReleaseStatement)
        )

    @property
    def asks_channel_keys(self) -> bool:
        """Whether anything in it is to be signed with channel keys."""
        return any(not isinstance(each.statement, Root) for each in self.statements)

    def signed(self, masters: Iterable[Signer], channels: Iterable[Signer]) -> Self:
        """The same, the statement of keys signed by the former and all else by the latter."""
        masters, channels = tuple(masters), tuple(channels)
        return type(self)(
            fqrn=self.fqrn,
            statements=tuple(
                each.signed(masters if isinstance(each.statement, Root) else channels)
                for each in self.statements
            ),
        )

    def to_bytes(self) -> bytes:
        """The file."""
        return canonical(
            {
                "schema": SCHEMA,
                "fqrn": str(self.fqrn),
                "statements": [each.envelope.record() for each in self.statements],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Self:
        """Read the file.

        Raises:
            CorruptError: no such file, naming the key.
        """
        table = Table.of(data, where, SCHEMA)
        return cls(
            fqrn=table.named("fqrn", Fqrn),
            statements=tuple(Unsigned.from_table(child) for child in table.children("statements")),
        )
