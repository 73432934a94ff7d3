"""The reference log: every root-level object ever published and not yet collected (format section 13)."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self

from headstart.cvmfs.database import Database, write_database
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.objects import Digest, Kind, ObjectName
from headstart.errors import CorruptError
from headstart.names import Fqrn
from headstart.wording import readable

REFLOG_FILE: Final = ".cvmfsreflog"
REFLOG_LIMIT: Final = 1 << 28
"""Bytes that a log may have."""
_TABLES: Final = frozenset({"properties", "refs"})
_SCHEMA: Final = """
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER, CONSTRAINT pk_refs PRIMARY KEY (hash));
"""


class ReferenceKind(Enum):
    """What a reference is; the value is its type column."""

    CATALOG = 0
    CERTIFICATE = 1
    HISTORY = 2
    METAINFO = 3


_OBJECTS: Final = {
    ReferenceKind.CATALOG: Kind.CATALOG,
    ReferenceKind.CERTIFICATE: Kind.CERTIFICATE,
    ReferenceKind.HISTORY: Kind.HISTORY,
    ReferenceKind.METAINFO: Kind.METAINFO,
}
"""What kind of object a reference is to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A root-level object."""

    digest: Digest
    kind: ReferenceKind
    timestamp: int
    """When it was published last, seconds since 1970."""

    @property
    def name(self) -> ObjectName:
        """The object's."""
        return ObjectName(digest=self.digest, kind=_OBJECTS[self.kind])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reflog:
    """The whole log, in the order of publication."""

    fqrn: Fqrn
    references: tuple[Reference, ...] = ()

    @classmethod
    def from_bytes(cls, database: bytes, *, fqrn: Fqrn) -> Self:
        """Read ``.cvmfsreflog``.

        Raises:
            CorruptError: not such a database, or another repository's.
        """
        where = f".cvmfsreflog of {fqrn}"
        opened = Database(database, where=where, tables=_TABLES)
        properties = opened.properties()
        found = tuple(properties.get(key) for key in ("schema", "schema_revision", "fqrn"))
        if found != ("1.0", "0", str(fqrn)):
            raise CorruptError(f"{where} has schema {found[0]} revision {found[1]} and is of {found[2]!r}")
        references: list[Reference] = []
        for digest, kind, timestamp in opened.query("SELECT hash, type, timestamp FROM refs ORDER BY rowid"):
            if kind not in (0, 1, 2, 3) or not isinstance(digest, bytes) or not isinstance(timestamp, int):
                raise CorruptError(
                    f"{where} has a reference {readable(digest):.80} of type {readable(kind):.20}"
                )
            references.append(
                Reference(
                    digest=Digest.parse(digest.decode(errors="replace")),
                    kind=ReferenceKind(kind),
                    timestamp=timestamp,
                )
            )
        return cls(fqrn=fqrn, references=tuple(references))

    def to_bytes(self) -> bytes:
        """The file: a raw database, not compressed."""
        properties = [("schema", "1.0"), ("schema_revision", "0"), ("fqrn", str(self.fqrn))]
        rows = ((str(item.digest), item.kind.value, item.timestamp) for item in self.references)
        return write_database(
            _SCHEMA,
            (
                ("INSERT INTO properties VALUES (?, ?)", iter(properties)),
                ("INSERT INTO refs VALUES (?, ?, ?)", rows),
            ),
        )

    def published(self, references: Iterable[Reference]) -> Self:
        """The log with these references at its end, as "insert or replace" would have it."""
        fresh = {item.digest: item for item in references}
        kept = tuple(item for item in self.references if item.digest not in fresh)
        return type(self)(fqrn=self.fqrn, references=(*kept, *fresh.values()))


def present(manifest: Manifest) -> tuple[Reference, ...]:
    """What the log must have because the manifest names it."""
    named = (
        (manifest.root_catalog, ReferenceKind.CATALOG),
        (manifest.certificate, ReferenceKind.CERTIFICATE),
        (manifest.history, ReferenceKind.HISTORY),
        (manifest.metainfo, ReferenceKind.METAINFO),
    )
    return tuple(
        Reference(digest=digest, kind=kind, timestamp=manifest.timestamp)
        for digest, kind in named
        if digest is not None
    )
