"""Tags as the real 2.12 tools write them: the golden histories step by step, and its own SQL as an oracle."""

import sqlite3
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import goldens
from goldens import Golden
from headstart.cvmfs.history import TRUNK, TRUNK_PREVIOUS, History, Tag
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName, Revision, inflate
from headstart.cvmfs.past import ByDate, ByRevision, ByTag, PastRoot, predecessors
from headstart.cvmfs.past import find as find_past
from headstart.cvmfs.reflog import ReferenceKind, Reflog
from headstart.cvmfs.signature import Letter
from headstart.names import Fqrn
from headstart.repository.state import Tagging

FQRN = Fqrn("test.local.repo")


def manifest_of(golden: Golden) -> Manifest:
    return Manifest.from_bytes(Letter.cut(golden.files[".cvmfspublished"], what="it").text)


def rows(database: bytes) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(database)
    found = {
        table: connection.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()  # noqa: S608 - names of ours
        for table in ("properties", "branches", "tags", "recycle_bin")
    }
    connection.close()
    found["properties"].sort()
    return found


def histories(golden: Golden) -> list[tuple[Digest, bytes]]:
    """Every history database of a golden repository, in the order of publication."""
    log = Reflog.from_bytes(golden.files[".cvmfsreflog"], fqrn=Fqrn(golden.fqrn))
    digests = [item.digest for item in log.references if item.kind is ReferenceKind.HISTORY]
    paths = [ObjectName(digest=digest, kind=Kind.HISTORY).path for digest in digests]
    return [
        (digest, inflate(golden.files[path], limit=1 << 20, what=path))
        for digest, path in zip(digests, paths, strict=True)
    ]


@goldens.needed
@pytest.mark.parametrize("golden", goldens.BOTH)
def test_the_same_publications_give_the_same_rows(golden: Golden) -> None:
    """Created with an automatic tag, then published twice with ``-a rev-X -m "golden revision X"``."""
    fqrn = Fqrn(golden.fqrn)
    theirs = histories(golden)
    assert len(theirs) == 3
    ours = History(fqrn=fqrn)
    previous: Digest | None = None
    for digest, database in theirs:
        read = History.from_bytes(database, fqrn=fqrn)
        trunk = read.demand(TRUNK)
        (name,) = [tag.name for tag in read.tags if tag.revision == trunk.revision and tag.name != TRUNK]
        tagging = Tagging(name=name, description=read.demand(name).description)
        ours = replace(tagging.applied(ours, trunk).published(trunk), previous=previous)
        assert rows(ours.to_bytes()) == rows(database)
        assert read == ours
        previous = digest
    assert [tag.automatic for tag in ours.tags] == [True, False, False, False, False]


@goldens.needed
@pytest.mark.parametrize("golden", goldens.BOTH)
def test_past_states_of_the_golden_repositories_are_found(golden: Golden) -> None:
    manifest = manifest_of(golden)

    def fetch(name: ObjectName) -> bytes:
        return golden.files[name.path]

    head = PastRoot(digest=manifest.root_catalog, revision=manifest.revision, size=manifest.root_size)
    assert [root.revision for root in predecessors(head, fetch)] == [3, 2, 1, 0]
    history = History.from_bytes(histories(golden)[-1][1], fqrn=Fqrn(golden.fqrn))
    first = find_past(ByTag("rev-A"), head, history, fetch)
    assert first == replace(first or head, revision=Revision(2), tag="rev-A")
    assert first is not None
    assert first.open(fetch(first.name))[0].revision == 2
    for selector, revision in (
        (ByRevision(Revision(0)), 0),
        (ByRevision(Revision(1)), 1),
        (ByDate(goldens.NOW.replace(day=22, hour=23)), 3),
    ):
        found = find_past(selector, head, history, fetch)
        assert found is not None
        assert found.revision == revision


# -- the tool's own statements (history_sql.cc and swissknife_history.cc of 2.12) ------------------------------

_INSERT = (
    "INSERT INTO tags (name, hash, revision, timestamp, channel, description, size, branch) "
    "VALUES (?,?,?,?,0,?,?,'')"
)
_REMOVE = "DELETE FROM tags WHERE name = ?"
_ROLLBACK = "DELETE FROM tags WHERE (revision > ? OR name = ?) AND branch = ''"
_BY_DATE = "SELECT name, revision FROM tags WHERE branch = '' AND timestamp <= ? ORDER BY revision DESC LIMIT 1"


@dataclass
class Oracle:
    """A history database under the statements that the real tool runs, in its order."""

    connection: sqlite3.Connection = field(
        default_factory=lambda: sqlite3.connect(":memory:", isolation_level=None)
    )

    def __post_init__(self) -> None:
        empty = History(fqrn=FQRN).published(tag(TRUNK, 1))
        self.connection.deserialize(empty.to_bytes())

    def insert(self, it: Tag) -> None:
        values = (it.name, str(it.digest), it.revision, it.timestamp, it.description, it.size)
        self.connection.execute(_INSERT, values)

    def remove(self, name: str) -> None:
        self.connection.execute(_REMOVE, (name,))

    def get(self, name: str) -> Tag | None:
        return History.from_bytes(self.connection.serialize(), fqrn=FQRN).tag(name)

    def undo_tags(self, head: Tag) -> None:
        """``CommandTag::UpdateUndoTags``."""
        self.remove(TRUNK_PREVIOUS)
        old = self.get(TRUNK)
        if old is not None:
            self.remove(TRUNK)
            self.insert(replace(old, name=TRUNK_PREVIOUS, description="default undo target"))
        self.insert(replace(head, name=TRUNK, description="current HEAD"))

    def roll_back(self, target: Tag, head: Tag) -> None:
        """``CommandRollbackTag::Main`` and ``SqliteHistory::Rollback``."""
        self.connection.execute(_ROLLBACK, (target.revision, target.name))
        again = replace(head, name=target.name, description=target.description)
        self.insert(again)
        self.undo_tags(again)

    def tags(self) -> list[tuple[object, ...]]:
        return self.connection.execute("SELECT * FROM tags ORDER BY rowid").fetchall()


def tag(name: str, revision: int, description: str = "") -> Tag:
    digest = Digest(algorithm=Algorithm.SHA1, raw=revision.to_bytes(20, "big"))
    return Tag(
        name=name,
        digest=digest,
        revision=Revision(revision),
        timestamp=1_700_000_000 + revision,
        size=4096,
        description=description,
    )


steps = st.lists(
    st.tuples(
        st.sampled_from(["publish", "publish with", "add", "move", "remove", "rollback"]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(1, 30),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(steps)
def test_any_sequence_of_commands_leaves_the_rows_of_the_tool(
    many: list[tuple[str, str, int]],
) -> None:
    oracle = Oracle()
    ours = History(fqrn=FQRN).published(tag(TRUNK, 1))
    revision = 1
    for command, name, number in many:
        known = ours.tag(name)
        past = tag(name, min(number, revision), f"state {number}")
        if command.startswith("publish"):
            revision += 1
            head = tag(TRUNK, revision)
            if command == "publish with" and known is None:
                oracle.insert(replace(head, name=name))
                ours = Tagging(name=name).applied(ours, head)
            oracle.undo_tags(head)
            ours = ours.published(head)
        elif command == "add" and known is None:
            oracle.insert(past)
            ours = ours.added(past)
        elif command == "move" and known is not None and known.digest != past.digest:
            oracle.remove(name)
            oracle.insert(past)
            ours = ours.moved(past)
        elif command == "remove" and known is not None:
            oracle.remove(name)
            ours = ours.removed([name])
        elif command == "rollback" and known is not None and known.revision < revision:
            revision += 1
            head = tag(TRUNK, revision)
            oracle.roll_back(known, head)
            ours = ours.rolled_back(known.revision, name, head)
        assert rows(ours.to_bytes())["tags"] == oracle.tags()
    when = 1_700_000_000 + revision // 2
    wanted = oracle.connection.execute(_BY_DATE, (when,)).fetchone()
    found = ours.at(when)
    assert (None if found is None else found.revision) == (None if wanted is None else wanted[1])
