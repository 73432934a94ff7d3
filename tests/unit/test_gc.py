"""Garbage collection and repair: what is kept, what goes, and who is refused."""

import json
import os
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from headstart.cli import main
from headstart.cvmfs.history import Tag
from headstart.cvmfs.manifest import MANIFEST_FILE
from headstart.cvmfs.objectkeys import name_of
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName, Revision
from headstart.cvmfs.reflog import REFLOG_FILE, Reference, ReferenceKind, Reflog
from headstart.cvmfs.signature import seal
from headstart.errors import CorruptError, LockedError, MissingError, StorageError
from headstart.repository import Settings, Wanted, publish_tree
from headstart.repository.check import Subject, check
from headstart.repository.gc import Choice, Keep, choose, collect, plan
from headstart.repository.repair import plan as plan_repair
from headstart.repository.repair import repair
from headstart.repository.report import Report
from headstart.stratum import DirectoryStratum
from publishing import FQRN, NOW, Place, content_of, copy_keys, keys, new_repository

DAY = timedelta(days=1)


def digest(number: int) -> Digest:
    return Algorithm.SHA1.digest(str(number).encode())


def root(number: int, day: int) -> Reference:
    when = int((NOW + day * DAY).timestamp())
    return Reference(digest=digest(number), kind=ReferenceKind.CATALOG, timestamp=when)


def tag(number: int) -> Tag:
    return Tag(name=f"v{number}", digest=digest(number), revision=Revision(number), timestamp=0, size=1)


LOG = Reflog(fqrn=FQRN, references=tuple(root(number, number * 10) for number in range(6)))
"""Published every ten days; the fourth is the head, and the fifth's publication was killed."""


def chosen(keep: Keep, *tags: Tag) -> dict[int, set[str]]:
    found: Choice = choose(LOG, digest(4), [digest(4)], tags, keep)
    assert {item.digest for item in found.forgotten} == {item.digest for item in LOG.references} - {
        item.digest for item, _ in found.kept
    }
    return {
        number: set(why) for number in range(6) for item, why in found.kept if item.digest == digest(number)
    }


def test_the_present_state_is_always_kept() -> None:
    assert chosen(Keep()) == {4: {"present"}}


def test_revisions_are_counted_from_the_present_one() -> None:
    assert chosen(Keep(revisions=2)) == {4: {"present"}, 3: {"counted"}, 2: {"counted"}}
    assert set(chosen(Keep(revisions=1000))) == {0, 1, 2, 3, 4}


def test_tags_are_kept() -> None:
    assert chosen(Keep(), tag(1)) == {4: {"present"}, 1: {"tag"}}


@pytest.mark.parametrize(
    ("day", "kept"),
    [(55, {4}), (45, {4, 5}), (40, {3, 4, 5}), (39, {3, 4, 5}), (25, {2, 3, 4, 5}), (-9, {0, 1, 2, 3, 4, 5})],
)
def test_what_was_current_since_a_moment_is_kept(day: int, kept: set[int]) -> None:
    """Not only what was published since: at that moment somebody may have begun to use the one before."""
    assert set(chosen(Keep(since=NOW + day * DAY))) == kept


def test_certificates_go_with_the_states_of_their_time() -> None:
    others = [
        Reference(digest=digest(100 + number), kind=ReferenceKind.CERTIFICATE, timestamp=item.timestamp)
        for number, item in enumerate(LOG.references)
    ]
    log = replace(LOG, references=(*LOG.references, *others))
    found = choose(log, digest(4), [digest(4), digest(100)], [], Keep(revisions=1))
    assert {item.digest for item in found.others} == {digest(100), digest(103), digest(104), digest(105)}


# -- on a real repository --------------------------------------------------------------------------------------


def grow(place: Place, work: Path, revisions: int) -> None:
    """A revision a day, each with a file of its own, one that stays, and a nested catalog that changes."""
    work.mkdir()
    (work / "stays").write_text("always the same")
    (work / "inner").mkdir()
    (work / "inner" / ".cvmfscatalog").touch()
    for number in range(revisions):
        (work / "file").write_text(f"of revision {number}")
        (work / "inner" / "file").write_text(f"inside, of revision {number}")
        publish_tree(place.target, Wanted(directory=str(work), at=b"/tree"), NOW + number * DAY)


def looked_at(place: Place, now: datetime = NOW + 9 * DAY) -> Report:
    subject = Subject(
        stratum=DirectoryStratum(str(place.root)),
        store=place.store,
        lacking=tuple(place.store.lacking()),
        keys=keys().masters,
        fqrn=FQRN,
    )
    return check(subject, now=now, deep=True)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("grown")
    grow(new_repository(base / "storage"), base / "work", 5)
    return base / "storage"


@pytest.fixture
def place(grown: Path, tmp_path: Path) -> Place:
    shutil.copytree(grown, tmp_path / "storage")
    return Place(tmp_path / "storage")


def objects(place: Place) -> set[str]:
    return {item.path for item in place.store.listing("data/") if "/txn/" not in item.path}


def test_what_is_kept_is_whole_and_the_rest_is_gone(place: Place) -> None:
    before, state = objects(place), content_of(place.open())
    assert looked_at(place).complaints == []
    todo, _ = plan(place.open(), Keep())
    done = collect(place.target, Keep(), NOW + 9 * DAY)
    assert (done.objects, done.size) == (todo.objects, todo.size)
    assert len(before) - len(objects(place)) == done.objects > 10
    report = looked_at(place)
    assert (report.complaints, report.orphans) == ([], 0)
    # The present one, and the one before it, which the undo tag keeps.
    assert report.roots == 2
    assert content_of(place.open()) == state
    again = collect(place.target, Keep(), NOW + 9 * DAY)
    assert (again.objects, again.choice.forgotten) == (0, ())


def test_a_dry_run_is_right_and_writes_nothing(place: Place) -> None:
    def everything() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in place.root.rglob("*") if path.is_file()}

    before = everything()
    todo, condemned = plan(place.open(), Keep(revisions=2))
    assert todo.objects == len(condemned) > 0
    assert everything() == before


def test_revisions_by_number_and_by_age(place: Place) -> None:
    assert len(plan(place.open(), Keep(revisions=3))[0].choice.kept) == 4
    assert len(plan(place.open(), Keep(since=NOW + 2.5 * DAY))[0].choice.kept) == 3
    assert len(plan(place.open(), Keep(since=NOW - DAY))[0].choice.kept) == 6


def test_collected_publishes_go_on(place: Place, tmp_path: Path) -> None:
    collect(place.target, Keep(), NOW + 9 * DAY)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "file").write_text("of revision 0")  # its object was collected
    publish_tree(place.target, Wanted(directory=str(tmp_path / "more"), at=b"/more"), NOW + 10 * DAY)
    assert looked_at(place, NOW + 10 * DAY).complaints == []


def test_the_manifest_stays_what_it_was_but_for_the_log(place: Place) -> None:
    before = place.open().manifest
    collect(place.target, Keep(), NOW + 9 * DAY)
    after = place.open().manifest
    assert replace(after, reflog=before.reflog) == before
    assert after.reflog == after.algorithm.digest((place.root / REFLOG_FILE).read_bytes())


def test_what_nothing_names_goes_and_what_is_no_object_stays(place: Place) -> None:
    name = ObjectName(digest=digest(1), kind=Kind.CHUNK)
    (place.root / name.path).write_bytes(b"left by somebody")
    (place.root / "data" / "00" / "README").write_bytes(b"x")
    assert looked_at(place).orphans == 1
    assert collect(place.target, Keep(revisions=99), NOW + 9 * DAY).condemned == {Kind.CHUNK: 1}
    assert not place.store.has(name.path)
    assert place.store.has("data/00/README")


def test_nobody_may_publish_meanwhile(place: Place) -> None:
    with place.store.transaction(), pytest.raises(LockedError):
        collect(place.target, Keep(), NOW)


def test_a_repository_that_promised_to_keep_all_is_refused(tmp_path: Path) -> None:
    place = new_repository(tmp_path / "storage", Settings(garbage_collectable=False))
    with pytest.raises(StorageError, match="G=no"):
        collect(place.target, Keep(), NOW)
    collect(place.target, Keep(), NOW, enable=True)
    assert place.open().manifest.garbage_collectable
    assert looked_at(place).complaints == []


@pytest.mark.parametrize("damage", [b"", b"SQLite format 3\0", None])
def test_without_a_good_log_nothing_is_collected(place: Place, damage: bytes | None) -> None:
    if damage is None:
        (place.root / REFLOG_FILE).unlink()
    else:
        (place.root / REFLOG_FILE).write_bytes(damage)
    before = objects(place)
    with pytest.raises((CorruptError, MissingError), match="repair"):
        collect(place.target, Keep(), NOW)
    assert objects(place) == before


def test_with_a_kept_catalog_missing_nothing_is_collected(place: Place) -> None:
    catalog = next(catalog for catalog in place.open().forest.catalogs() if catalog.nested)
    victim = ObjectName(digest=next(iter(catalog.nested.values())).digest, kind=Kind.CATALOG)
    os.unlink(place.root / victim.path)
    before = objects(place)
    with pytest.raises(MissingError, match="nothing is collected"):
        collect(place.target, Keep(), NOW)
    assert objects(place) == before


# -- repair ----------------------------------------------------------------------------------------------------


def test_there_is_nothing_to_repair_in_a_good_one(place: Place) -> None:
    before = (place.root / MANIFEST_FILE).read_bytes()
    assert not repair(place.target, NOW).changes
    assert (place.root / MANIFEST_FILE).read_bytes() == before


@pytest.mark.parametrize("damage", [b"", b"noise", None])
def test_a_lost_log_is_made_anew_with_all_states_that_are_whole(place: Place, damage: bytes | None) -> None:
    old = place.open().reflog()
    if damage is None:
        (place.root / REFLOG_FILE).unlink()
    else:
        (place.root / REFLOG_FILE).write_bytes(damage)
    assert looked_at(place).complaints
    todo = plan_repair(place.open(), NOW)
    done = repair(place.target, NOW + 9 * DAY)
    assert done.added == todo.added
    new = place.open().reflog()
    assert {item.digest for item in new.references} == {item.digest for item in old.references}
    catalogs = [item.digest for item in old.references if item.kind is ReferenceKind.CATALOG]
    assert [item.digest for item in new.references if item.kind is ReferenceKind.CATALOG] == catalogs
    report = looked_at(place)
    assert (report.complaints, report.orphans) == ([], 0)
    assert len(collect(place.target, Keep(revisions=3), NOW + 9 * DAY).choice.kept) == 4


def test_a_state_that_was_half_deleted_is_not_taken_up_again(place: Place) -> None:
    """Garbage collection may have been killed, and then the log was lost."""
    # The first one has nothing that the present one does not have too.
    reference = [item for item in place.open().reflog().references if item.kind is ReferenceKind.CATALOG][1]
    _, condemned = plan(place.open(), Keep())
    for key in condemned:
        name = name_of(key)
        if name.kind is Kind.FILE:
            os.unlink(place.root / name.path)
    (place.root / REFLOG_FILE).unlink()
    repair(place.target, NOW)
    assert reference.digest not in {item.digest for item in place.open().reflog().references}
    assert [item for item in looked_at(place).complaints if item.code != "orphans"] == []


def test_entries_that_are_missing_or_stale_are_mended(place: Place) -> None:
    log = place.open().reflog()
    gone = Reference(digest=digest(7), kind=ReferenceKind.METAINFO, timestamp=5)
    wrong = replace(log, references=(gone, *log.references[2:])).to_bytes()
    (place.root / REFLOG_FILE).write_bytes(wrong)
    codes = {str(item.code) for item in looked_at(place).complaints}
    assert codes == {"reflog-checksum", "reflog-stale"} | ({"reflog-incomplete"} & codes)
    done = repair(place.target, NOW + 9 * DAY)
    assert done.dropped == (gone,)
    assert {item.digest for item in done.added} <= {item.digest for item in log.references}
    assert looked_at(place).complaints == []


def test_directories_and_leftovers(place: Place) -> None:
    os.rmdir(next(path for path in (place.root / "data").iterdir() if not any(path.iterdir())))
    old = place.root / "data" / "txn" / "cvmfs.abc"
    old.write_bytes(b"x")
    os.utime(old, (1, 1))
    fresh = place.root / "data" / "txn" / "cvmfs.def"
    fresh.write_bytes(b"x")
    os.utime(fresh, (NOW.timestamp(), NOW.timestamp()))
    assert {str(item.code) for item in looked_at(place).complaints} == {"directory-missing"}
    done = repair(place.target, NOW + timedelta(hours=1))
    assert (len(done.directories), done.leftovers) == (1, ("data/txn/cvmfs.abc",))
    assert (old.exists(), fresh.exists()) == (False, True)


def test_a_checksum_that_does_not_fit_is_signed_anew(place: Place) -> None:
    manifest = replace(place.open().manifest, reflog=digest(3))
    data = seal(manifest.to_bytes(), algorithm=manifest.algorithm, sign=keys().repository.sign_sha1)
    (place.root / MANIFEST_FILE).write_bytes(data)
    assert {str(item.code) for item in looked_at(place).complaints} == {"reflog-checksum"}
    assert repair(place.target, NOW).resigned
    assert looked_at(place).complaints == []


def test_a_damaged_object_is_left_alone(place: Place) -> None:
    victim = place.root / next(path for path in sorted(objects(place)) if path[-1] not in "CHXM")
    victim.write_bytes(b"damaged")
    repair(place.target, NOW)
    assert victim.read_bytes() == b"damaged"
    assert {str(item.code) for item in looked_at(place).complaints} == {"object-damaged"}


# -- the command line ------------------------------------------------------------------------------------------


@pytest.fixture
def live(tmp_path: Path) -> tuple[Path, Path]:
    """Storage and keys of a repository that was made just now, by the command line."""
    storage, key_directory = tmp_path / "live", copy_keys(tmp_path / "keys")
    assert main(["repo", "create", str(FQRN), "--storage", str(storage), "--keys", str(key_directory)]) == 0
    return storage, key_directory


def test_check_prints_what_it_found_and_has_an_exit_code_of_its_own(
    live: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    storage, key_directory = live
    words = ["repo", "check", "--storage", str(storage), "--keys", str(key_directory)]
    capsys.readouterr()
    assert main([*words, "--deep"]) == 0
    assert "everything is as it should be" in capsys.readouterr().out
    (storage / REFLOG_FILE).write_bytes(b"noise")
    assert main([*words, "--json"]) == 26
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert {item["code"] for item in found["complaints"]} == {"reflog-damaged", "reflog-checksum"} | {
        item["code"] for item in found["complaints"] if item["code"] == "reflog-incomplete"
    }
    assert captured.err.startswith("headstart: ")
    assert main([*words, "--repair", "--dry-run"]) == 26
    assert "would have written the log" in capsys.readouterr().err
    assert main([*words, "--repair", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repair"]["manifest_signed"]
    assert main([*words, "--dry-run"]) == 10
    assert main([*words[:4], "--repair", "--key", str(key_directory / f"{FQRN}.pub")]) == 10


def test_gc_prints_its_plan(live: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    storage, key_directory = live
    words = ["repo", "gc", "--storage", str(storage), "--keys", str(key_directory)]
    name = ObjectName(digest=digest(1), kind=Kind.CHUNK)
    (storage / name.path).write_bytes(b"12345")
    capsys.readouterr()
    assert main([*words, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["objects"], found["bytes"], found["to_delete"]) == (1, 5, {"chunks": 1})
    assert (storage / name.path).exists()
    assert main([*words, "--keep-revisions", "3", "--keep-since", "2026-01-01"]) == 0
    assert "chunks: 1 to delete" in capsys.readouterr().out
    assert not (storage / name.path).exists()
    for wrong in (["--keep-since", "soon"], ["--keep-days", "-1"], ["--keep-revisions", "-1"]):
        assert main([*words, *wrong]) == 10
    assert main(["repo", "gc", "--storage", str(key_directory), "--keys", str(key_directory)]) == 16


def test_a_repository_may_promise_to_keep_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage, key_directory = tmp_path / "live", copy_keys(tmp_path / "keys")
    words = ["--storage", str(storage), "--keys", str(key_directory)]
    assert main(["repo", "create", str(FQRN), *words, "--no-gc"]) == 0
    assert main(["repo", "gc", *words]) == 16
    assert "--enable" in capsys.readouterr().err
    assert main(["repo", "gc", *words, "--enable"]) == 0
    assert main(["repo", "gc", *words]) == 0
