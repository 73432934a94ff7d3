"""The history database: the tags of a repository (format section 10).

Theory of operation. A history is a value: adding, removing and moving tags, and rolling back, give another.
The order of the rows is kept as the real tool leaves it (``swissknife_history.cc``): what is removed makes
no gap, what is new or moved goes to the end. So a list of tags after the same steps is the same list.

The two undo tags belong to the publisher: ``trunk`` is the present state and ``trunk-previous`` what ``trunk``
was before. Only publishing and rolling back move them; a change of other tags does not.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Self

from headstart.cvmfs.database import Database, write_database
from headstart.cvmfs.objects import Digest, Revision
from headstart.errors import ConfigurationError, CorruptError, ImmutableError, UnknownError
from headstart.names import Fqrn
from headstart.wording import readable

TRUNK: Final = "trunk"
TRUNK_PREVIOUS: Final = "trunk-previous"
UNDO_TAGS: Final = frozenset({TRUNK, TRUNK_PREVIOUS})
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
_NEW_NAME: Final = re.compile(r"[A-Za-z0-9._/:-]{1,255}")
"""What the real publisher makes of a name that it cleans."""
_NAME: Final = re.compile(r"[^\s\x00-\x1f\x7f]{1,255}")
"""What there may be: the real tool refuses nothing but spaces."""
_AUTO_NAME: Final = re.compile(r"generic(_\d+)?-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z", re.ASCII)
"""As ``filter_auto_tags`` of the real tool finds them (``cvmfs_server_publish.sh``)."""
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
        if _NAME.fullmatch(self.name) is None:
            raise CorruptError(f"{self.name[:80]!r} is no name of a tag")
        if "\0" in self.description:
            raise CorruptError(f"the description of tag {self.name} has a zero in it")

    @property
    def automatic(self) -> bool:
        """Whether a publication made it, and may take it away when it is old."""
        return _AUTO_NAME.fullmatch(self.name) is not None


def check_new_name(name: str) -> str:
    """Refuse a name that no new tag may have.

    Raises:
        ConfigurationError: it has other signs than the real tools leave in a name, or is an undo tag's.
    """
    if _NEW_NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{name[:80]!r} is no name for a tag", hint="use 1 to 255 letters, digits and the signs . _ / : -"
        )
    return check_not_undo(name)


def check_not_undo(name: str) -> str:
    """Refuse to touch a tag that belongs to the publisher.

    Raises:
        ConfigurationError: it is one of the undo tags.
    """
    if name in UNDO_TAGS:
        raise ConfigurationError(f"tag {name} moves by itself, with each publication", hint="use another name")
    return name


def automatic_name(when: int, taken: Iterable[str]) -> str:
    """The name of a publication's own tag: ``generic-YYYY-MM-DDTHH:MM:SSZ``, numbered where that is taken.

    Args:
        when: seconds since 1970.
        taken: names there are.
    """
    known = frozenset(taken)
    stamp = f"{datetime.fromtimestamp(when, UTC):%Y-%m-%dT%H:%M:%SZ}"
    name, number = f"generic-{stamp}", 1
    while name in known:
        name, number = f"generic_{number}-{stamp}", number + 1
    return name


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

    def at(self, when: int) -> Tag | None:
        """The tag that a client with ``CVMFS_REPOSITORY_DATE`` takes: the latest one not after ``when``."""
        return max(
            (tag for tag in self.tags if tag.timestamp <= when), key=lambda tag: tag.revision, default=None
        )

    def added(self, tag: Tag) -> Self:
        """The history with one tag more; itself where the very same tag is there already.

        Raises:
            ConfigurationError: the name is none for a new tag.
            ImmutableError: there is another tag of that name.
        """
        check_new_name(tag.name)
        known = self.tag(tag.name)
        if known == tag:
            return self
        if known is not None:
            raise ImmutableError(
                f"there is a tag {tag.name} of {self.fqrn} already, of revision {known.revision}",
                hint="move it, or use another name",
            )
        return replace(self, tags=(*self.tags, tag))

    def removed(self, names: Iterable[str]) -> Self:
        """The history without some tags.

        Raises:
            ConfigurationError: one is an undo tag.
            UnknownError: there is no such tag.
        """
        gone = frozenset(map(check_not_undo, names))
        for name in sorted(gone):
            self.demand(name)
        return replace(self, tags=tuple(tag for tag in self.tags if tag.name not in gone))

    def moved(self, tag: Tag) -> Self:
        """The history with the tag of that name elsewhere; its description stays where none is given.

        Raises:
            ConfigurationError: it is an undo tag.
            UnknownError: there is no such tag.
        """
        known = self.demand(check_not_undo(tag.name))
        if known.digest == tag.digest and tag.description in ("", known.description):
            return self
        moved = replace(tag, description=tag.description or known.description)
        return replace(self, tags=(*(other for other in self.tags if other.name != tag.name), moved))

    def demand(self, name: str) -> Tag:
        """The tag of that name.

        Raises:
            UnknownError: there is none, listing some that there are.
        """
        found = self.tag(name)
        if found is None:
            latest = sorted(self.tags, key=lambda tag: (-tag.revision, tag.name))
            there = ", ".join(tag.name for tag in latest[:10]) + (", ..." if len(latest) > 10 else "")
            raise UnknownError(
                f"there is no tag {name[:80]} of {self.fqrn}", hint=f"there are: {there or 'none'}"
            )
        return found

    def published(self, head: Tag) -> Self:
        """The history after a publication, with its undo tags as the real publisher moves them.

        Args:
            head: what was published; its name and description become those of ``trunk``.
        """
        kept = [tag for tag in self.tags if tag.name not in UNDO_TAGS]
        trunk = self.tag(TRUNK)
        if trunk is not None:
            kept.append(replace(trunk, name=TRUNK_PREVIOUS, description="default undo target"))
        kept.append(replace(head, name=TRUNK, description="current HEAD"))
        return replace(self, tags=tuple(kept))

    def taken_back(self, revision: Revision, name: str) -> tuple[Tag, ...]:
        """The tags that a rollback takes away: all later ones, and the target itself, which comes again."""
        return tuple(tag for tag in self.tags if tag.revision > revision or tag.name == name)

    def rolled_back(self, revision: Revision, name: str, head: Tag) -> Self:
        """The history after a rollback, as ``CommandRollbackTag`` of the real tool leaves it.

        ``trunk`` is of a later revision than any target, so it goes, and there is no undo of a rollback.

        Args:
            revision: the target's.
            name: the tag that was asked for; empty where none was.
            head: the root catalog that was published.
        """
        gone = self.taken_back(revision, name)
        again = tuple(replace(head, name=name, description=tag.description) for tag in gone if tag.name == name)
        kept = tuple(tag for tag in self.tags if tag not in gone)
        return replace(self, tags=(*kept, *again)).published(head)


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
        raise CorruptError(f"{where}: tag {readable(name):.80} has a column of the wrong type")
    return Tag(
        name=_decoded(where, name),
        digest=Digest.parse(digest.decode(errors="replace")),
        revision=Revision(revision),
        timestamp=timestamp,
        size=size,
        description=description.decode(errors="replace"),
    )


def _decoded(where: str, name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise CorruptError(f"{where}: the name {readable(name):.80} is not UTF-8") from error
