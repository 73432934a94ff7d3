"""Tags and rollbacks of real repositories: what stays, what moves, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

import publishing
from crashing import quick_disk
from headstart.cvmfs.history import TRUNK, TRUNK_PREVIOUS, History, Tag
from headstart.cvmfs.manifest import MANIFEST_FILE
from headstart.cvmfs.objects import Digest, Kind, ObjectName, Revision
from headstart.cvmfs.past import ByHash, ByRevision, ByTag, Selector, predecessors
from headstart.cvmfs.reflog import Reference, ReferenceKind, Reflog
from headstart.errors import ConfigurationError, CorruptError, Error, ImmutableError, MissingError, UnknownError
from headstart.repository import (
    Means,
    Repository,
    Settings,
    Tagging,
    Wanted,
    adding,
    change_tags,
    moving,
    publish_tree,
    removing,
    roll_back,
)
from headstart.repository.rollback import UNDO
from headstart.repository.tags import Planner
from histories import HOUR, Timeline, timeline
from publishing import content_of, new_repository

__all__ = ["quick_disk"]


@pytest.fixture
def line(quick_disk: Path) -> Timeline:
    return timeline(quick_disk)


def change(line: Timeline, planner: Planner) -> Repository:
    line.now += HOUR
    change_tags(line.place.target, planner, line.now)
    return line.place.open(line.now)


def tags(repository: Repository) -> dict[str, Tag]:
    return {tag.name: tag for tag in repository.history().tags}


def test_a_tag_changes_nothing_but_the_history_and_the_time(line: Timeline) -> None:
    """As ``cvmfs_server tag``: same root catalog, same revision, signed anew with the time of now."""
    before = line.place.open(line.now)
    after = change(line, adding("v1", None, "the first one"))
    old, new = before.manifest, after.manifest
    assert (new.root_catalog, new.revision, new.certificate, new.metainfo) == (
        old.root_catalog,
        old.revision,
        old.certificate,
        old.metainfo,
    )
    assert new.timestamp == int(line.now.timestamp()) > old.timestamp
    assert after.history().previous == old.history != new.history
    assert tags(after)["v1"] == Tag(
        name="v1",
        digest=old.root_catalog,
        revision=old.revision,
        timestamp=before.forest.holder(b"").last_modified,
        size=old.root_size,
        description="the first one",
    )
    assert tags(after)[TRUNK] == tags(before)[TRUNK]
    assert content_of(after) == line.contents[4]
    assert new.reflog == new.algorithm.digest((line.place.root / ".cvmfsreflog").read_bytes())
    logged = {item.digest: item for item in after.reflog().references}
    assert logged[new.root_catalog].timestamp == new.timestamp  # inserted anew, as the real tool does
    assert new.history in logged


@pytest.mark.parametrize("way", ["revision", "hash", "tag"])
def test_a_past_state_can_be_named(line: Timeline, way: str) -> None:
    change(line, adding("known", ByRevision(Revision(2))))
    selectors: dict[str, Selector] = {
        "revision": ByRevision(Revision(2)),
        "hash": ByHash(line.manifests[2].root_catalog),
        "tag": ByTag("known"),
    }
    after = change(line, adding("old", selectors[way]))
    made = tags(after)["old"]
    assert (made.digest, made.revision, made.size) == (
        line.manifests[2].root_catalog,
        2,
        line.manifests[2].root_size,
    )
    assert made.timestamp == line.manifests[2].timestamp


def test_adding_the_same_again_writes_nothing(line: Timeline) -> None:
    change(line, adding("v1", ByRevision(Revision(3)), "three"))
    before = (line.place.root / MANIFEST_FILE).read_bytes()
    change(line, adding("v1", ByRevision(Revision(3)), "three"))
    assert (line.place.root / MANIFEST_FILE).read_bytes() == before


def test_moving_keeps_the_description(line: Timeline) -> None:
    change(line, adding("v1", ByRevision(Revision(3)), "three"))
    assert tags(change(line, moving("v1", ByRevision(Revision(2)))))["v1"].revision == 2
    after = change(line, moving("v1", None, "the last"))
    assert (tags(after)["v1"].revision, tags(after)["v1"].description) == (4, "the last")


def test_removing(line: Timeline) -> None:
    change(line, adding("v1", None))
    assert set(tags(change(line, removing(["v1"])))) == {TRUNK, TRUNK_PREVIOUS}


@pytest.mark.parametrize(
    ("planner", "error"),
    [
        (lambda: adding("with space", None), ConfigurationError),
        (lambda: adding("", None), ConfigurationError),
        (lambda: adding("ü", None), ConfigurationError),
        (lambda: adding("x" * 256, None), ConfigurationError),
        (lambda: adding(TRUNK, None), ConfigurationError),
        (lambda: moving(TRUNK_PREVIOUS, None), ConfigurationError),
        (lambda: removing([TRUNK]), ConfigurationError),
        (lambda: adding("taken", None), ImmutableError),
        (lambda: moving("nothing", None), UnknownError),
        (lambda: removing(["taken", "nothing"]), UnknownError),
        (lambda: adding("v1", ByRevision(Revision(9))), UnknownError),
        (lambda: adding("v1", ByHash(Digest.parse("ab" * 20))), UnknownError),
        (lambda: adding("v1", ByTag("nothing")), UnknownError),
    ],
)
def test_what_is_refused_leaves_everything_alone(line: Timeline, planner: object, error: type[Error]) -> None:
    change(line, adding("taken", ByRevision(Revision(2))))
    before = (line.place.root / MANIFEST_FILE).read_bytes()
    with pytest.raises(error):
        change(line, planner())  # type: ignore[operator]  # a factory, so that raising happens here
    assert (line.place.root / MANIFEST_FILE).read_bytes() == before


# -- who may say what a past state is ------------------------------------------------------------------------


def foreign_root(line: Timeline, quick_disk: Path) -> Digest:
    """The root catalog of another repository of the same owner's, put into this one's storage."""
    other = timeline(quick_disk / "other", 7)
    manifest = other.manifests[7]
    path = manifest.root_catalog_name.path
    (line.place.root / path).write_bytes((other.place.root / path).read_bytes())
    return manifest.root_catalog


def test_the_root_catalog_of_another_repository_is_not_a_past_state(line: Timeline, quick_disk: Path) -> None:
    foreign = foreign_root(line, quick_disk)
    for selector in (ByHash(foreign), ByRevision(Revision(7))):
        with pytest.raises(UnknownError):
            change(line, adding("v1", selector))
        with pytest.raises(UnknownError):
            roll_back(line.place.target, selector, line.now)


def test_a_reference_log_that_is_not_the_manifest_s_proves_nothing(line: Timeline, quick_disk: Path) -> None:
    """Whoever can write the storage can write the log, which is not signed itself."""
    foreign = foreign_root(line, quick_disk)
    log = line.place.open(line.now).reflog()
    forged = log.published([Reference(digest=foreign, kind=ReferenceKind.CATALOG, timestamp=1)])
    (line.place.root / ".cvmfsreflog").write_bytes(forged.to_bytes())
    for selector in (ByHash(foreign), ByRevision(Revision(7))):
        with pytest.raises(UnknownError):
            change(line, adding("v1", selector))


def test_a_nested_catalog_is_not_a_past_state(line: Timeline) -> None:
    forest = line.place.open(line.now).forest
    nested = forest.holder(b"").nested[b"/tree/nested"].digest
    with pytest.raises(UnknownError):
        change(line, adding("v1", ByHash(nested)))


def test_behind_a_gap_the_signed_reference_log_still_knows(line: Timeline) -> None:
    """Revision 3 is collected, revision 2 is not: no chain of predecessors leads there any more."""
    line.publish()
    (line.place.root / line.manifests[3].root_catalog_name.path).unlink()
    repository = line.place.open(line.now)
    assert [root.revision for root in predecessors(repository.head, repository.fetch)] == [5, 4]
    for selector in (ByRevision(Revision(2)), ByHash(line.manifests[2].root_catalog)):
        root, _ = repository.past(selector)
        assert (root.digest, root.revision) == (line.manifests[2].root_catalog, 2)
    with pytest.raises(UnknownError, match="collected"):
        repository.past(ByRevision(Revision(3)))


def test_a_state_without_one_of_its_catalogs_is_not_named(line: Timeline) -> None:
    _, forest = line.place.open(line.now).past(ByRevision(Revision(2)))
    digest = forest.holder(b"").nested[b"/tree/nested"].digest
    (line.place.root / ObjectName(digest=digest, kind=Kind.CATALOG).path).unlink()
    with pytest.raises(MissingError, match="/tree/nested"):
        change(line, adding("v1", ByRevision(Revision(2))))
    with pytest.raises(MissingError, match="/tree/nested"):
        roll_back(line.place.target, ByRevision(Revision(2)), line.now)


def test_a_tag_that_lies_about_its_revision_is_refused(line: Timeline) -> None:
    repository = line.place.open(line.now)
    lie = replace(tags(repository)[TRUNK_PREVIOUS], name="lie", revision=Revision(2))
    with line.place.store.transaction() as into:
        history = replace(repository.history(), tags=(*repository.history().tags, lie))
        repository.retag(history, into, line.now, Settings())
    with pytest.raises(CorruptError, match="is of revision 3, and tag lie gives 2"):
        line.place.open(line.now).past(ByTag("lie"))


# -- rollback ------------------------------------------------------------------------------------------------


def test_a_rollback_is_a_new_revision_with_the_old_tree(line: Timeline) -> None:
    change(line, adding("good", ByRevision(Revision(2)), "it worked"))
    change(line, adding("bad", ByRevision(Revision(3))))
    change(line, adding("same", ByRevision(Revision(2))))
    line.now += HOUR
    head = line.place.open(line.now).manifest
    plan, manifest = roll_back(line.place.target, ByTag("good"), line.now)
    after = line.place.open(line.now)
    assert content_of(after) == line.contents[2]
    assert manifest.revision == after.manifest.revision == plan.revision == 5
    assert manifest.timestamp == int(line.now.timestamp())
    root = after.forest.holder(b"")
    assert (root.revision, root.previous_revision, root.last_modified) == (
        5,
        head.root_catalog,
        manifest.timestamp,
    )
    assert root.nested == plan.forest.holder(b"").nested  # the old catalogs themselves
    # As the real tool: later tags go, the target moves along, one of the same revision stays.
    assert [tag.name for tag in plan.removed] == ["bad"]
    assert [(tag.name, tag.revision, tag.description) for tag in after.history().tags] == [
        ("same", 2, ""),
        ("good", 5, "it worked"),
        (TRUNK, 5, "current HEAD"),
    ]
    assert tags(after)["good"].digest == manifest.root_catalog
    assert manifest.root_catalog in {item.digest for item in after.reflog().references}


def test_without_a_target_the_last_publication_is_undone_once(line: Timeline) -> None:
    _, manifest = roll_back(line.place.target, UNDO, line.now)
    after = line.place.open(line.now)
    assert content_of(after) == line.contents[3]
    assert [tag.name for tag in after.history().tags] == [TRUNK]
    with pytest.raises(UnknownError, match="trunk-previous"):
        roll_back(line.place.target, UNDO, line.now)
    assert line.place.open(line.now).manifest == manifest


def test_rollback_and_publish_and_rollback(line: Timeline) -> None:
    roll_back(line.place.target, ByRevision(Revision(2)), line.now)
    line.publish()
    roll_back(line.place.target, ByHash(line.manifests[4].root_catalog), line.now)
    after = line.place.open(line.now)
    assert content_of(after) == line.contents[4]
    assert after.manifest.revision == 7
    assert [root.revision for root in predecessors(after.head, after.fetch)] == [7, 6, 5, 4, 3, 2, 1]


def test_the_present_state_is_no_target(line: Timeline) -> None:
    for selector in (ByTag(TRUNK), ByRevision(Revision(4)), ByHash(line.manifests[4].root_catalog)):
        with pytest.raises(ConfigurationError, match="present state"):
            roll_back(line.place.target, selector, line.now)


# -- tags of publications ------------------------------------------------------------------------------------


def test_publications_make_the_tags_that_they_are_asked_for(quick_disk: Path) -> None:
    line = timeline(quick_disk, 1)
    line.publish(Tagging(automatic=True))
    line.publish(Tagging(name="named", description="by me", automatic=True))
    history = line.place.open(line.now).history()
    assert [(tag.name, tag.revision, tag.description) for tag in history.tags] == [
        ("generic-2026-11-22T21:15:00Z", 2, ""),
        ("named", 3, "by me"),
        (TRUNK_PREVIOUS, 2, "default undo target"),
        (TRUNK, 3, "current HEAD"),
    ]


def test_old_automatic_tags_go_with_the_next_publication(quick_disk: Path) -> None:
    line = timeline(quick_disk, 1)
    for _ in range(3):
        line.publish(Tagging(automatic=True))
        line.now += 24 * HOUR
    line.publish(Tagging(automatic=True, days=2))
    automatic = [tag.revision for tag in line.place.open(line.now).history().tags if tag.automatic]
    assert automatic == [4, 5]


def test_a_tag_for_a_publication_of_nothing_new_names_what_is_there(line: Timeline) -> None:
    line.place.open(line.now)
    before = line.manifests[4]
    number = 4
    tree = line.root / "tree"
    assert (tree / "file").read_text() == f"state {number}"
    means = Means(tagging=Tagging(name="named"))
    after = publish_tree(
        line.place.target, Wanted(directory=str(tree), at=b"/tree"), line.now + HOUR, means
    ).manifest
    assert (after.revision, after.root_catalog) == (4, before.root_catalog)
    assert tags(line.place.open(line.now + HOUR))["named"].revision == 4


def test_a_tag_that_is_taken_stops_the_publication(line: Timeline) -> None:
    change(line, adding("taken", ByRevision(Revision(2))))
    before = (line.place.root / MANIFEST_FILE).read_bytes()
    with pytest.raises(ImmutableError):
        line.publish(Tagging(name="taken"))
    assert (line.place.root / MANIFEST_FILE).read_bytes() == before


def test_an_empty_history_names_only_the_head(quick_disk: Path) -> None:
    place = new_repository(quick_disk / "storage")
    repository = place.open()
    assert [tag.name for tag in repository.history().tags] == [TRUNK]
    assert History(fqrn=publishing.FQRN).at(1) is None
    assert Reflog(fqrn=publishing.FQRN).references == ()
