"""Garbage collection and repair, killed before any of their writes: what is kept is never touched."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from crashing import killed_before_step, moments, quick_disk
from headstart.cvmfs.manifest import MANIFEST_FILE
from headstart.cvmfs.reflog import REFLOG_FILE
from headstart.errors import StorageError
from headstart.repository import Wanted, publish_tree
from headstart.repository.check import Subject, check
from headstart.repository.gc import Keep, collect
from headstart.repository.repair import repair
from headstart.stratum import DirectoryStratum
from publishing import FQRN, NOW, Place, keys, new_repository

__all__ = ["quick_disk"]


def grown(base: Path) -> Place:
    """Four revisions, of which garbage collection keeps two."""
    place = new_repository(base / "storage")
    work = base / "work"
    (work / "inner").mkdir(parents=True)
    (work / "inner" / ".cvmfscatalog").touch()
    for number in range(4):
        (work / "file").write_text(f"of revision {number}")
        (work / "inner" / "file").write_text(f"inside, of revision {number}")
        publish_tree(place.target, Wanted(directory=str(work), at=b"/tree"), NOW)
    return place


def files(place: Place) -> dict[str, bytes]:
    """Everything but what a transaction leaves for the next one."""
    return {
        str(path.relative_to(place.root)): path.read_bytes()
        for path in sorted(place.root.rglob("*"))
        if path.is_file() and "txn" not in path.parts
    }


def complaints(place: Place) -> set[str]:
    subject = Subject(
        stratum=DirectoryStratum(str(place.root)), store=place.store, keys=keys().masters, fqrn=FQRN
    )
    return {str(item.code) for item in check(subject, now=NOW, deep=True).complaints}


def killed_everywhere(
    base: Path, start: Place, work: Callable[[Place], object], wanted: dict[str, bytes]
) -> int:
    """Kill ``work`` at each of its steps; afterwards all is well, and doing it again comes to the same end."""
    for deaths, number in enumerate(moments()):
        place = Place(base / f"killed{number}")
        shutil.copytree(start.root, place.root)
        known = complaints(place)
        killed = killed_before_step(number, lambda place=place: work(place))  # type: ignore[misc] # bound now
        # Between log and manifest the checksum does not fit, which format section 13 knows of.
        assert complaints(place) - known <= {"reflog-checksum"}
        work(place)
        assert files(place) == wanted
        assert complaints(place) == set()
        shutil.rmtree(place.root)
        if not killed:
            return deaths
    raise AssertionError("unreachable")


def test_garbage_collection_killed_at_any_step(quick_disk: Path) -> None:
    start = grown(quick_disk)
    whole = Place(quick_disk / "whole")
    shutil.copytree(start.root, whole.root)
    assert collect(whole.target, Keep(), NOW).objects > 8
    deaths = killed_everywhere(
        quick_disk, start, lambda place: collect(place.target, Keep(), NOW), files(whole)
    )
    assert deaths > 12


@pytest.mark.parametrize("lost", [True, False])
def test_repair_killed_at_any_step(quick_disk: Path, *, lost: bool) -> None:
    start = grown(quick_disk)
    if lost:
        (start.root / REFLOG_FILE).unlink()
    else:
        (start.root / REFLOG_FILE).write_bytes(b"noise")
    whole = Place(quick_disk / "whole")
    shutil.copytree(start.root, whole.root)
    repair(whole.target, NOW)
    assert killed_everywhere(quick_disk, start, lambda place: repair(place.target, NOW), files(whole)) > 5


def test_a_publication_may_come_between_two_halves_of_a_collection(quick_disk: Path) -> None:
    """What was forgotten and is not yet deleted may be wanted again: it is taken as it is, or written anew."""
    start = grown(quick_disk)
    (quick_disk / "again").mkdir()
    (quick_disk / "again" / "file").write_text("of revision 0")
    for number in (8, 10, 12, 14, 16, 18):
        place = Place(quick_disk / f"killed{number}")
        shutil.copytree(start.root, place.root)
        killed_before_step(number, lambda place=place: collect(place.target, Keep(), NOW))  # type: ignore[misc] # bound now
        publish_tree(place.target, Wanted(directory=str(quick_disk / "again"), at=b"/again"), NOW)
        assert complaints(place) == set()
        collect(place.target, Keep(), NOW)
        assert complaints(place) == set()


def test_what_cannot_be_deleted_is_said_and_tried_again(quick_disk: Path) -> None:
    place = grown(quick_disk)
    with pytest.MonkeyPatch.context() as patch:

        def full(path: str) -> None:
            raise OSError(30, "Read-only file system", path)

        patch.setattr("os.unlink", full)
        with pytest.raises(StorageError, match="Read-only"):
            collect(place.target, Keep(), NOW)
    assert place.store.has(MANIFEST_FILE)
    assert complaints(place) <= {"reflog-checksum"}
    assert collect(place.target, Keep(), NOW).objects > 8
    assert complaints(place) == set()
