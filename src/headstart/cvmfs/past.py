"""Past states of a repository: how they are named, how they are found, and what each is proven by.

Theory of operation. A root catalog does not say which repository it is of, so it counts only when something
that is signed names it by its hash. There are three such ways, tried in this order:

1. the history database, which the manifest names, lists tags;
2. the head's root catalog names its predecessor, which names its own, and so on, until one has been collected;
3. the reference log, as long as it is the very one that the manifest names.

Whatever was found is opened as a root catalog of the size and revision that it is said to have. A hash that the
user gives is an anchor of its own: who knows it knows all that it names, but nobody has said that the owner
ever published it. ``PastRoot.proven`` tells the two apart.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self, assert_never

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.history import History, Tag
from headstart.cvmfs.objects import Digest, Kind, ObjectName, Revision, inflate
from headstart.cvmfs.trust import CATALOG_LIMIT
from headstart.errors import ConfigurationError, CorruptError, MissingError, UnknownError
from headstart.wording import counted

Fetch = Callable[[ObjectName], bytes]
"""Reads an object as stored, compared with its name."""
_DATE: Final = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)Z?)?", re.ASCII)
_FIRST: Final = Revision(0)
_HASH: Final = re.compile(r"[0-9a-f]{40}(-[a-z0-9]+)?")


@dataclass(frozen=True, slots=True)
class ByTag:
    """The state that a tag names."""

    name: str

    def __str__(self) -> str:
        return f"tag {self.name}"


@dataclass(frozen=True, slots=True)
class ByDate:
    """The state of a moment, as far as tags tell."""

    when: datetime
    """UTC."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``2026-11-22``, which is the whole of that day, or ``2026-11-22T20:15:00Z``; always UTC.

        Raises:
            ConfigurationError: no such time.
        """
        found = _DATE.fullmatch(text)
        try:
            if found is not None and found[2] is None:
                day = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
                return cls(day + timedelta(days=1) - timedelta(seconds=1))
            if found is not None:
                return cls(datetime.fromisoformat(f"{found[1]}T{found[2]}").replace(tzinfo=UTC))
        except (ValueError, OverflowError):
            pass
        raise ConfigurationError(
            f"{text[:80]!r} is no date", hint="write 2026-11-22 or 2026-11-22T20:15:00Z, in UTC"
        )

    def __str__(self) -> str:
        return f"{self.when:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True)
class ByRevision:
    """The state of a number."""

    number: Revision

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read decimal digits.

        Raises:
            ConfigurationError: something else.
        """
        if not (text.isascii() and text.isdecimal() and len(text) <= 18):
            raise ConfigurationError(f"{text[:80]!r} is no number of a revision")
        return cls(Revision(int(text)))

    def __str__(self) -> str:
        return f"revision {self.number}"


@dataclass(frozen=True, slots=True)
class ByHash:
    """The state with this root catalog."""

    digest: Digest

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the hash as the format writes it; the ``C`` that file names have behind it may stay.

        Raises:
            ConfigurationError: something else.
        """
        try:
            return cls(Digest.parse(text.removesuffix("C")))
        except CorruptError as error:
            raise ConfigurationError(
                f"{text[:80]!r} is no hash of a root catalog", hint="write its 40 digits, lower case"
            ) from error

    def __str__(self) -> str:
        return f"root catalog {self.digest}"


Selector = ByTag | ByDate | ByRevision | ByHash


_READERS: Final[Mapping[str, Callable[[str], Selector]]] = {
    "tag": ByTag,
    "date": ByDate.parse,
    "revision": ByRevision.parse,
    "hash": ByHash.parse,
}


def parse_selector(text: str) -> Selector:
    """Tell by its looks what a word names: 40 hexadecimal digits a hash, only digits a revision, else a tag.

    ``tag:``, ``date:``, ``revision:`` and ``hash:`` in front say it outright.

    Raises:
        ConfigurationError: nothing of that kind.
    """
    kind, colon, rest = text.partition(":")
    reader = _READERS.get(kind) if colon else None
    if reader is not None:
        return reader(rest)
    if _HASH.fullmatch(text.removesuffix("C")) is not None:
        return ByHash.parse(text)
    return ByRevision.parse(text) if text.isascii() and text.isdecimal() else ByTag(text)


def chosen(tag: str | None, date: str | None, root_hash: str | None) -> Selector | None:
    """The state that the options ``--tag``, ``--date`` and ``--root-hash`` name; None where there is none.

    Raises:
        ConfigurationError: no such date, or no such hash.
    """
    if tag:
        return ByTag(tag)
    if date:
        return ByDate.parse(date)
    return ByHash.parse(root_hash) if root_hash else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRoot:
    """The root catalog of a state, and what it is said to be."""

    digest: Digest
    revision: Revision | None = None
    """None where nobody has said."""
    size: int = 0
    """Bytes of the database; 0 where nobody has said."""
    timestamp: int | None = None
    """Its ``last_modified``; None where nobody has said."""
    tag: str = ""
    """The tag it was found by, if any."""
    proven: bool = True
    """Whether the signed manifest vouches for it; else only its hash is known, from the user."""

    @classmethod
    def of_tag(cls, tag: Tag) -> Self:
        """What a tag says."""
        return cls(
            digest=tag.digest, revision=tag.revision, size=tag.size, timestamp=tag.timestamp, tag=tag.name
        )

    @property
    def name(self) -> ObjectName:
        """What to fetch."""
        return ObjectName(digest=self.digest, kind=Kind.CATALOG)

    @property
    def limit(self) -> int:
        """Bytes that the database may have."""
        return min(self.size or CATALOG_LIMIT, CATALOG_LIMIT)

    def open(self, stored: bytes) -> tuple[Catalog, int]:
        """Open the catalog, as stored; with the bytes of its database.

        Raises:
            CorruptError: not the catalog of that hash, no root catalog, or not as it is said to be.
        """
        self.name.check(stored)
        what = f"root catalog {self.name}"
        database = inflate(stored, limit=self.limit, what=what)
        catalog = Catalog.from_bytes(database, mountpoint=b"")
        said = f"tag {self.tag}" if self.tag else "what names it"
        if self.size and len(database) != self.size:
            raise CorruptError(
                f"{what} has {counted(len(database), 'byte')}, not the {self.size} that {said} gives"
            )
        if self.revision is not None and catalog.revision != self.revision:
            raise CorruptError(f"{what} is of revision {catalog.revision}, and {said} gives {self.revision}")
        return catalog, len(database)


def find(selector: Selector, head: PastRoot, history: History, fetch: Fetch) -> PastRoot | None:
    """Find a past state by the first two ways.

    Args:
        selector: which.
        head: the present root catalog.
        history: the tags.
        fetch: reads an object.

    Returns:
        None where a revision or a hash is found neither among the tags nor among the head's predecessors.

    Raises:
        UnknownError: there is no such tag, or none as old as that.
        CorruptError: a root catalog on the way is damaged.
    """
    match selector:
        case ByTag(name=name):
            return PastRoot.of_tag(history.demand(name))
        case ByDate(when=when):
            found = history.at(int(when.timestamp()))
            if found is None:
                raise UnknownError(
                    f"{history.fqrn} has no tag as old as {selector}", hint="name a revision or a root hash"
                )
            return PastRoot.of_tag(found)
        case ByRevision() | ByHash():
            known = among_tags(selector, head, history)
            if known is not None:
                return known
            end = selector.number if isinstance(selector, ByRevision) else _FIRST
            return next((root for root in predecessors(head, fetch, down_to=end) if _is(root, selector)), None)
        case _:
            assert_never(selector)


def among_tags(selector: ByRevision | ByHash, head: PastRoot, history: History) -> PastRoot | None:
    """The head or a tag that a revision or a hash means."""
    known = (head, *map(PastRoot.of_tag, history.tags))
    return next((root for root in known if _is(root, selector)), None)


def _is(root: PastRoot, selector: ByRevision | ByHash) -> bool:
    if isinstance(selector, ByHash):
        return root.digest == selector.digest
    return root.revision == selector.number


def predecessors(head: PastRoot, fetch: Fetch, *, down_to: Revision = _FIRST) -> Iterator[PastRoot]:
    """The head and the root catalogs before it, each named by the one after it, as far as they are there.

    Raises:
        CorruptError: one is damaged, or of a revision that is not smaller than that of the one after it.
    """
    root: PastRoot | None = head
    above: Revision | None = None
    while root is not None:
        try:
            catalog, size = root.open(fetch(root.name))
        except MissingError:
            return
        if above is not None and catalog.revision >= above:
            raise CorruptError(
                f"root catalog {root.name} of revision {catalog.revision} is named as the one before {above}"
            )
        yield described(root, catalog, size)
        above = catalog.revision
        previous = catalog.previous_revision
        root = PastRoot(digest=previous) if previous is not None and catalog.revision > down_to else None


def described(root: PastRoot, catalog: Catalog, size: int) -> PastRoot:
    """A root with all that its catalog says of itself."""
    return PastRoot(
        digest=root.digest,
        revision=catalog.revision,
        size=size,
        timestamp=catalog.last_modified,
        tag=root.tag,
        proven=root.proven,
    )
