"""The history database: the tags of a repository (format section 10)."""

import re
from dataclasses import dataclass, replace
from typing import Final, Self

from headstart.cvmfs.database import Database, write_database
from headstart.cvmfs.objects import Digest, Revision
from headstart.errors import CorruptError
from headstart.names import Fqrn

TRUNK: Final = "trunk"
TRUNK_PREVIOUS: Final = "trunk-previous"
_TABLES: Final = frozenset({"properties", "branches", "tags", "recycle_bin"})
_SCHEMA: Final = """
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
CREATE TABLE branches (branch TEXT, parent TEXT, initial_revision INTEGER,
  CONSTRAINT pk_branch PRIMARY KEY (branch),
  FOREIGN KEY (parent) REFERENCES branches (branch), CHECK ((branch <> '') OR (parent IS NULL)),
  CHECK ((branch = '') OR (parent IS NOT NULL)));
INSERT INTO branches VALUES ('', NULL, 0);
CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER, channel INTEGER, description TEXT,
  size INTEGER, branch TEXT, CONSTRAINT pk_tags PRIMARY KEY (name),
  FOREIGN KEY (branch) REFERENCES branches (branch));
CREATE TABLE recycle_bin (hash TEXT, flags INTEGER, CONSTRAINT pk_hash PRIMARY KEY (hash));
"""
_TAG_NAME: Final = re.compile(r"[A-Za-z0-9._/:-]{1,255}")
_NO_PREDECESSOR: Final = "0" * 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A named root catalog."""

    name: str
    digest: Digest
    """The root catalog's."""
    revision: Revision
    timestamp: int
    """The catalog's ``last_modified``: seconds since 1970."""
    size: int
    """Bytes of the root catalog's database, inflated."""
    description: str = ""

    def __post_init__(self) -> None:
        if _TAG_NAME.fullmatch(self.name) is None:
            raise CorruptError(f"{self.name[:80]!r} is no name of a tag")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All tags, which must stay readable as long as they are there."""

    fqrn: Fqrn
    tags: tuple[Tag, ...] = ()
    previous: Digest | None = None
    """The history database before this one."""

    @classmethod
    def from_bytes(cls, database: bytes, *, fqrn: Fqrn) -> Self:
        """Read a history database.

        Raises:
            CorruptError: not such a database, another repository's, or with branches, which are not supported.
        """
        where = f"the tag history of {fqrn}"
        opened = Database(database, where=where, tables=_TABLES)
        properties = opened.properties()
        if properties.get("schema") != "1.0" or properties.get("fqrn") != str(fqrn):
            raise CorruptError(
                f"{where} has schema {properties.get('schema')!r} and is of {properties.get('fqrn')!r}"
            )
        if opened.query("SELECT count(*) FROM branches WHERE branch <> ''") != [(0,)]:
            raise CorruptError(f"{where} has branches, which Headstart does not write")
        rows = opened.query(
            "SELECT name, hash, revision, timestamp, size, description FROM tags ORDER BY rowid"
        )
        previous = properties.get("previous_revision", "")
        return cls(
            fqrn=fqrn,
            tags=tuple(_tag(where, row) for row in rows),
            previous=Digest.parse(previous) if previous.partition("-")[0].strip("0") else None,
        )

    def to_bytes(self) -> bytes:
        """The database.

        Raises:
            CorruptError: there is no tag at all: the real check calls that dangling branches.
        """
        if not self.tags:
            raise CorruptError(f"the tag history of {self.fqrn} has no tag")
        properties = [
            ("schema", "1.0"),
            ("schema_revision", "3"),
            ("fqrn", str(self.fqrn)),
            ("previous_revision", str(self.previous) if self.previous is not None else _NO_PREDECESSOR),
        ]
        tags = (
            (tag.name, str(tag.digest), tag.revision, tag.timestamp, tag.description, tag.size)
            for tag in self.tags
        )
        return write_database(
            _SCHEMA,
            (
                ("INSERT INTO properties VALUES (?, ?)", iter(properties)),
                ("INSERT INTO tags VALUES (?, ?, ?, ?, 0, ?, ?, '')", tags),
            ),
        )

    def tag(self, name: str) -> Tag | None:
        """The tag of that name."""
        return next((tag for tag in self.tags if tag.name == name), None)

    def published(self, head: Tag, *, previous: Digest | None) -> Self:
        """The history after a publication, with its undo tags as the real publisher moves them.

        Args:
            head: what was published; its name and description become those of ``trunk``.
            previous: the history database that this one follows.
        """
        kept = [tag for tag in self.tags if tag.name not in (TRUNK, TRUNK_PREVIOUS)]
        trunk = self.tag(TRUNK)
        if trunk is not None:
            kept.append(replace(trunk, name=TRUNK_PREVIOUS, description="default undo target"))
        kept.append(replace(head, name=TRUNK, description="current HEAD"))
        return replace(self, tags=tuple(kept), previous=previous)


def _tag(where: str, row: tuple[object, ...]) -> Tag:
    name, digest, revision, timestamp, size, description = row
    if (
        not isinstance(name, bytes)
        or not isinstance(digest, bytes)
        or not isinstance(description, bytes)
        or not isinstance(revision, int)
        or not isinstance(timestamp, int)
        or not isinstance(size, int)
    ):
        raise CorruptError(f"{where}: tag {name!r:.80} has a column of the wrong type")
    return Tag(
        name=name.decode(errors="replace"),
        digest=Digest.parse(digest.decode(errors="replace")),
        revision=Revision(revision),
        timestamp=timestamp,
        size=size,
        description=description.decode(errors="replace"),
    )
