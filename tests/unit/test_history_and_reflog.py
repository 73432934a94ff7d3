"""Tags and references: round trips, undo tags, and what is refused."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.cvmfs.history import TRUNK, TRUNK_PREVIOUS, History, Tag
from headstart.cvmfs.objects import Algorithm, Digest, Revision
from headstart.cvmfs.reflog import Reference, ReferenceKind, Reflog
from headstart.errors import CorruptError
from headstart.names import Fqrn
from strategies import digests

FQRN = Fqrn("julia.example.org")
numbers = st.integers(0, 2**40)
tags = st.builds(
    Tag,
    name=st.from_regex(r"[A-Za-z0-9._/:-]{1,20}", fullmatch=True),
    digest=digests,
    revision=numbers.map(Revision),
    timestamp=numbers,
    size=numbers,
    description=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
)


def digest(byte: int) -> Digest:
    return Digest(algorithm=Algorithm.SHA1, raw=bytes([byte]) * 20)


def head(number: int) -> Tag:
    return Tag(name=TRUNK, digest=digest(number), revision=Revision(number), timestamp=number, size=4096)


@given(st.lists(tags, min_size=1, max_size=5, unique_by=lambda tag: tag.name), st.none() | digests)
def test_history_survives(many: list[Tag], previous: Digest | None) -> None:
    history = History(fqrn=FQRN, tags=tuple(many), previous=previous)
    assert History.from_bytes(history.to_bytes(), fqrn=FQRN) == history
    assert history.to_bytes() == history.to_bytes()


def test_undo_tags_move_as_the_real_publisher_moves_them() -> None:
    history = History(
        fqrn=FQRN, tags=(Tag(**{name: getattr(head(9), name) for name in Tag.__slots__} | {"name": "keep"}),)
    )
    for number in (1, 2, 3):
        history = history.published(head(number))
    trunk, previous = history.tag(TRUNK), history.tag(TRUNK_PREVIOUS)
    assert trunk is not None
    assert previous is not None
    assert (trunk.revision, trunk.description) == (3, "current HEAD")
    assert (previous.revision, previous.description) == (2, "default undo target")
    assert {tag.name for tag in history.tags} == {"keep", TRUNK, TRUNK_PREVIOUS}


def test_a_history_without_a_tag_is_not_written() -> None:
    with pytest.raises(CorruptError, match="no tag"):
        History(fqrn=FQRN).to_bytes()


def changed(data: bytes, statement: str) -> bytes:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(data)
    connection.execute(statement)
    result = connection.serialize()
    connection.close()
    return result


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM properties WHERE key='fqrn'",
        "UPDATE properties SET value='other.example.org' WHERE key='fqrn'",
        "UPDATE properties SET value='2.0' WHERE key='schema'",
        "INSERT INTO branches VALUES ('side', '', 3)",
        "UPDATE tags SET description=NULL",
        "UPDATE tags SET hash='nothing'",
        "UPDATE tags SET revision='x'",
        "UPDATE tags SET name='with space'",
        "CREATE TABLE other (x)",
    ],
)
def test_other_histories_are_refused(statement: str) -> None:
    data = History(fqrn=FQRN).published(head(1)).to_bytes()
    with pytest.raises(CorruptError):
        History.from_bytes(changed(data, statement), fqrn=FQRN)


references = st.builds(Reference, digest=digests, kind=st.sampled_from(ReferenceKind), timestamp=numbers)


@given(st.lists(references, max_size=6, unique_by=lambda item: str(item.digest)))
def test_reflogs_survive(many: list[Reference]) -> None:
    reflog = Reflog(fqrn=FQRN, references=tuple(many))
    assert Reflog.from_bytes(reflog.to_bytes(), fqrn=FQRN) == reflog


def test_a_reference_published_again_moves_to_the_end() -> None:
    one, two = (
        Reference(digest=digest(number), kind=ReferenceKind.CATALOG, timestamp=number) for number in (1, 2)
    )
    again = Reference(digest=digest(1), kind=ReferenceKind.CATALOG, timestamp=9)
    assert Reflog(fqrn=FQRN, references=(one, two)).published([again]).references == (two, again)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE properties SET value='1' WHERE key='schema_revision'",
        "DELETE FROM properties WHERE key='fqrn'",
        "INSERT INTO refs VALUES ('abc', 0, 1)",
        "INSERT INTO refs VALUES ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 4, 1)",
    ],
)
def test_other_reflogs_are_refused(statement: str) -> None:
    with pytest.raises(CorruptError):
        Reflog.from_bytes(changed(Reflog(fqrn=FQRN).to_bytes(), statement), fqrn=FQRN)
