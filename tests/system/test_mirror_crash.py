"""A snapshot that is killed, runs out of disk or meets a read-only one: the old state or the new one."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashing import killed_before_step, quick_disk, steps_of, telling_moments
from headstart.cvmfs.manifest import MANIFEST_FILE
from headstart.cvmfs.objects import Revision
from headstart.cvmfs.past import ByRevision
from headstart.errors import StorageError
from headstart.repository import roll_back
from headstart.repository.gc import Keep, collect_mirror
from mirroring import DAY, complaints, grow, snapshot, visible
from publishing import FQRN, NOW, Place, keys, new_repository

__all__ = ["quick_disk"]


@pytest.fixture
def source(quick_disk: Path) -> Place:
    place = new_repository(quick_disk / "source")
    grow(place, quick_disk / "work", range(1, 4))
    return place


def killed_everywhere(base: Path, source: Place, start: Path, days: int) -> set[tuple[bool, str]]:
    """Kill a snapshot at its steps; afterwards all is well, and the next one comes to the same end.

    Returns:
        Whether it was killed, and what the mirror showed then.
    """
    now = NOW + days * DAY
    whole, counted = Place(base / "whole"), Place(base / "counted")
    for place in (whole, counted):
        shutil.copytree(start, place.root)
    snapshot(source, whole, now)
    wanted = visible(whole.root)
    old = visible(start).get(MANIFEST_FILE)
    outcomes = set()
    for number in telling_moments(steps_of(lambda: snapshot(source, counted, now))):
        place = Place(base / "killed")
        shutil.copytree(start, place.root)
        killed = killed_before_step(number, lambda place=place: snapshot(source, place, now))  # type: ignore[misc] # bound now
        found = visible(place.root).get(MANIFEST_FILE)
        assert found in (old, wanted[MANIFEST_FILE])
        outcomes.add((killed, "old" if found == old else "new"))
        assert found is None or complaints(place, now, deep=False) == set()
        snapshot(source, place, now)
        assert visible(place.root) == wanted
        assert os.listdir(place.root / "data" / "txn") == ["headstart.lock"]
        shutil.rmtree(place.root)
    assert complaints(whole, now) == set()
    return outcomes


ALL = {(True, "old"), (True, "new"), (False, "new")}


@pytest.mark.slow
def test_the_first_snapshot_killed_at_any_step(quick_disk: Path, source: Place) -> None:
    # The 256 directories are made before anything else; those steps are of no interest here.
    start = Place(quick_disk / "start")
    start.store.prepare()
    assert killed_everywhere(quick_disk, source, start.root, 4) == ALL


@pytest.mark.slow
def test_a_later_snapshot_killed_at_any_step(quick_disk: Path, source: Place) -> None:
    start = Place(quick_disk / "start")
    snapshot(source, start, NOW + 4 * DAY)
    grow(source, quick_disk / "work", range(5, 7))
    assert killed_everywhere(quick_disk, source, start.root, 9) == ALL


def test_garbage_collection_in_a_mirror_killed_at_any_step(quick_disk: Path, source: Place) -> None:
    """Killed, it leaves catalogs without what they name; the next snapshot must not take them for whole."""
    start = Place(quick_disk / "start")
    grow(source, quick_disk / "work", range(4, 5))
    snapshot(source, start, NOW + 5 * DAY)
    # The publisher comes back to what the mirror is about to forget.
    later = NOW + 6 * DAY
    roll_back(source.target, ByRevision(Revision(3)), later)

    def collect(place: Place) -> None:
        collect_mirror((place.store, keys().masters, FQRN), Keep(), later)

    counted = Place(quick_disk / "counted")
    shutil.copytree(start.root, counted.root)
    steps = steps_of(lambda: collect(counted))
    assert steps > 5
    for number in range(steps + 1):
        place = Place(quick_disk / "killed")
        shutil.copytree(start.root, place.root)
        killed_before_step(number, lambda place=place: collect(place))  # type: ignore[misc] # bound now
        assert complaints(place, later, deep=False) == set()
        snapshot(source, place, later)
        assert complaints(place, later, deep=False) == set()
        shutil.rmtree(place.root)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes."""
    at = tmp_path / "disk"
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", at], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs is not allowed here: it takes root")
    yield at
    subprocess.run(["umount", at], check=True)


def test_a_disk_that_fills_at_any_moment_loses_nothing(
    quick_disk: Path, source: Place, small_disk: Path
) -> None:
    place = Place(small_disk / "mirror")
    snapshot(source, place, NOW + 4 * DAY)
    before = visible(place.root)
    grow(source, quick_disk / "work", range(5, 8))
    free = os.statvfs(small_disk)
    reasons: list[str] = []
    for spare in range(0, 80, 8):
        filler = small_disk / "filler"
        filler.write_bytes(b"\0" * ((free.f_bavail - spare) * free.f_bsize))
        try:
            snapshot(source, place, NOW + 9 * DAY)
        except StorageError as error:
            reasons.append(str(error))
            assert (place.root / MANIFEST_FILE).read_bytes() == before[MANIFEST_FILE]
        filler.unlink()
        assert complaints(place, NOW + 9 * DAY) == set()
    assert len(reasons) > 1
    assert all("No space left" in reason for reason in reasons)
    assert (place.root / MANIFEST_FILE).read_bytes() == (source.root / MANIFEST_FILE).read_bytes()


def test_a_read_only_disk_is_said(quick_disk: Path, source: Place, small_disk: Path) -> None:
    place = Place(small_disk / "mirror")
    snapshot(source, place, NOW + 4 * DAY)
    before = visible(place.root)
    grow(source, quick_disk / "work", range(5, 6))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StorageError, match="Read-only"):
        snapshot(source, place, NOW + 9 * DAY)
    assert visible(place.root) == before
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    snapshot(source, place, NOW + 9 * DAY)
    assert complaints(place, NOW + 9 * DAY) == set()
