"""Looking for whatever breaks the format in the two small databases: tag history and log of references.

Readers take a database or refuse it; here each row is looked at by itself, so that one bad tag does not hide
another (format sections 10 and 13).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from headstart.cvmfs.database import Database
from headstart.cvmfs.faults import Code, Fault
from headstart.cvmfs.history import TRUNK, Tag
from headstart.cvmfs.objects import Digest, Revision
from headstart.cvmfs.reflog import Reference, ReferenceKind
from headstart.errors import CorruptError
from headstart.names import Fqrn
from headstart.wording import readable

HISTORY: Final = b"tag history"
REFLOG: Final = b".cvmfsreflog"
"""How complaints about them call them."""
_HISTORY_TABLES: Final = frozenset({"properties", "branches", "tags", "recycle_bin"})
_REFLOG_TABLES: Final = frozenset({"properties", "refs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedHistory:
    """A tag history, looked through."""

    faults: tuple[Fault, ...]
    tags: tuple[Tag, ...] = ()
    """Those that can be read."""
    previous: Digest | None = None
    """The history before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedReflog:
    """A log of references, looked through."""

    faults: tuple[Fault, ...]
    references: tuple[Reference, ...] = ()
    """Those that can be read, in order."""


def examine_history(data: bytes, fqrn: Fqrn) -> ExaminedHistory:
    """Look through a history database."""
    faults: list[Fault] = []
    try:
        opened = Database(data, where=HISTORY.decode(), tables=_HISTORY_TABLES)
        properties = opened.properties()
        tags = opened.query(
            "SELECT name, hash, revision, timestamp, channel, description, size, branch"
            " FROM tags ORDER BY rowid"
        )
        branches = opened.query("SELECT branch, parent, initial_revision FROM branches")
    except CorruptError as error:
        return ExaminedHistory(faults=(Fault(Code.HISTORY_DAMAGED, HISTORY, error.message),))
    for key, wanted in (("schema", "1.0"), ("fqrn", str(fqrn))):
        if properties.get(key) != wanted:
            text = f"property {key} is {properties.get(key)!r}, not {wanted!r}"
            faults.append(Fault(Code.HISTORY_DAMAGED, HISTORY, text))
    good = [tag for row in tags if (tag := _tag(row, faults)) is not None]
    _branches(tags, branches, faults)
    if good and not any(tag.name == TRUNK for tag in good):
        faults.append(Fault(Code.TAG, HISTORY, f"has tags, and none called {TRUNK}"))
    return ExaminedHistory(faults=tuple(faults), tags=tuple(good), previous=_previous(properties, faults))


def _tag(row: tuple[Any, ...], faults: list[Fault]) -> Tag | None:
    name, digest, revision, timestamp, channel, description, size, branch = row
    path = b"tag " + name[:80] if isinstance(name, bytes) else HISTORY
    texts = all(isinstance(text, bytes) for text in (name, digest, description, branch))
    numbers = all(isinstance(number, int) and number >= 0 for number in (revision, timestamp, size))
    if not texts or not numbers or not isinstance(channel, int):
        faults.append(Fault(Code.TAG, path, "has a column of the wrong type; text columns must not be NULL"))
        return None
    try:
        return Tag(
            name=name.decode(errors="replace"),
            digest=Digest.parse(digest.decode(errors="replace")),
            revision=Revision(revision),
            timestamp=timestamp,
            size=size,
            description=description.decode(errors="replace"),
        )
    except CorruptError as error:
        faults.append(Fault(Code.TAG, path, error.message))
        return None


def _branches(tags: list[tuple[Any, ...]], branches: list[tuple[Any, ...]], faults: list[Fault]) -> None:
    first = {branch: initial for branch, _, initial in branches}
    used = {row[7] for row in tags}
    faults.extend(
        Fault(Code.BRANCH, HISTORY, f"tags use the branch {readable(branch):.80}, which is not there")
        for branch in used - first.keys()
    )
    faults.extend(
        Fault(
            Code.BRANCH,
            HISTORY,
            f"the branch {readable(branch):.80} has no tag: the real check calls it dangling",
        )
        for branch in first.keys() - used
    )
    for row in tags:
        initial = first.get(row[7])
        if isinstance(initial, int) and isinstance(row[2], int) and row[2] < initial:
            path = b"tag " + row[0][:80] if isinstance(row[0], bytes) else HISTORY
            faults.append(Fault(Code.TAG, path, f"is of revision {row[2]}, before its branch began"))


def _previous(properties: Mapping[str, str], faults: list[Fault]) -> Digest | None:
    text = properties.get("previous_revision", "")
    if not text.partition("-")[0].strip("0"):
        return None
    try:
        return Digest.parse(text)
    except CorruptError as error:
        faults.append(Fault(Code.HISTORY_DAMAGED, HISTORY, f"property previous_revision: {error.message}"))
        return None


def examine_reflog(data: bytes, fqrn: Fqrn) -> ExaminedReflog:
    """Look through a log of references."""
    faults: list[Fault] = []
    try:
        opened = Database(data, where=REFLOG.decode(), tables=_REFLOG_TABLES)
        properties = opened.properties()
        rows = opened.query("SELECT hash, type, timestamp FROM refs ORDER BY rowid")
    except CorruptError as error:
        return ExaminedReflog(faults=(Fault(Code.REFLOG_DAMAGED, REFLOG, error.message),))
    for key, wanted in (("schema", "1.0"), ("schema_revision", "0"), ("fqrn", str(fqrn))):
        # The real tools stop at any other schema.
        if properties.get(key) != wanted:
            text = f"property {key} is {properties.get(key)!r}, not {wanted!r}"
            faults.append(Fault(Code.REFLOG_DAMAGED, REFLOG, text))
    references: list[Reference] = []
    for digest, kind, timestamp in rows:
        if kind not in (0, 1, 2, 3) or not isinstance(digest, bytes) or not isinstance(timestamp, int):
            faults.append(
                Fault(
                    Code.REFLOG_DAMAGED,
                    REFLOG,
                    f"has a reference {readable(digest):.80} of type {readable(kind):.20}",
                )
            )
            continue
        try:
            named = Digest.parse(digest.decode(errors="replace"))
        except CorruptError as error:
            faults.append(Fault(Code.REFLOG_DAMAGED, REFLOG, error.message))
            continue
        references.append(Reference(digest=named, kind=ReferenceKind(kind), timestamp=timestamp))
    return ExaminedReflog(faults=tuple(faults), references=tuple(references))
