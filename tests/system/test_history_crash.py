"""Tags, rollbacks and signatures killed before any of their writes: old or new state, and again it works."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import publishing
from crashing import killed_before_step, moments, quick_disk
from headstart.cvmfs.manifest import MANIFEST_FILE
from headstart.cvmfs.objects import Algorithm, Revision
from headstart.cvmfs.past import ByRevision
from headstart.cvmfs.renewal import Terms
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.errors import ConfigurationError, KeyFileError, UnknownError
from headstart.keys import create_successor, load_keys
from headstart.repository import Repository, adding, change_tags, moving, removing, roll_back
from headstart.repository.whitelists import renew_whitelist, resign_manifest
from histories import HOUR, timeline
from publishing import FQRN, NOW, Place, content_of

__all__ = ["quick_disk"]
LATER = NOW + 10 * HOUR
OLD = ByRevision(Revision(2))


def add(place: Place) -> object:
    return change_tags(place.target, adding("added", OLD), LATER)


def move(place: Place) -> object:
    return change_tags(place.target, moving("there", OLD), LATER)


def remove(place: Place) -> object:
    try:
        return change_tags(place.target, removing(["there"]), LATER)
    except UnknownError:
        return None  # done before it was killed


def rollback(place: Place) -> object:
    if place.open(LATER).manifest.revision == 5:
        return None  # done before it was killed; given again it would go back once more
    return roll_back(place.target, OLD, LATER)


def renew(place: Place) -> object:
    return renew_whitelist(place.store, publishing.all_keys().master, Terms(days=60), LATER)


def resign(place: Place) -> object:
    return resign_manifest(place.target, LATER)


def tags(repository: Repository) -> dict[str, int]:
    return {tag.name: tag.revision for tag in repository.history().tags}


@dataclass(frozen=True)
class Case:
    work: Callable[[Place], object]
    done: Callable[[Place], bool]
    revision: int = 4


def _renewed(place: Place) -> bool:
    return b"E20270122" in (place.root / WHITELIST_FILE).read_bytes()


CASES = {
    "add": Case(add, lambda place: "added" in tags(place.open(LATER))),
    "move": Case(move, lambda place: tags(place.open(LATER))["there"] == 2),
    "remove": Case(remove, lambda place: "there" not in tags(place.open(LATER))),
    "rollback": Case(rollback, lambda place: place.open(LATER).manifest.revision == 5, revision=5),
    "renew": Case(renew, _renewed),
    "resign": Case(resign, lambda place: place.open(LATER).manifest.timestamp == int(LATER.timestamp())),
}


@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_write_the_old_or_the_new_state_verifies(quick_disk: Path, name: str) -> None:
    case = CASES[name]
    line = timeline(quick_disk / "template")
    change_tags(line.place.target, adding("there", ByRevision(Revision(3))), line.now)
    outcomes = set()
    for kills, number in enumerate(moments()):
        place = Place(quick_disk / f"storage{kills}")
        shutil.copytree(line.place.root, place.root)
        killed = killed_before_step(number, lambda place=place: case.work(place))  # type: ignore[misc] # bound now
        done = case.done(place)
        state = place.open(LATER)
        assert state.manifest.revision in (4, case.revision)
        assert content_of(state) == line.contents[2 if state.manifest.revision == 5 else 4]
        state.past(OLD)
        outcomes.add((killed, done))
        case.work(place)
        assert case.done(place)
        state = place.open(LATER)
        assert content_of(state) == line.contents[2 if case.revision == 5 else 4]
        log = (place.root / ".cvmfsreflog").read_bytes()
        assert state.manifest.reflog == Algorithm.SHA1.digest(log)
        if not done:  # else there may have been no second writer to sweep
            assert os.listdir(place.root / "data" / "txn") == ["headstart.lock"]
        shutil.rmtree(place.root)
        if not killed:
            break
    assert (True, False) in outcomes
    assert (False, True) in outcomes


def test_a_successor_killed_at_any_write_can_be_made_again(quick_disk: Path) -> None:
    old = publishing.copy_keys(quick_disk / "old")
    for number in moments():
        new = quick_disk / f"new{number}"

        def work(new: Path = new) -> object:
            return create_successor(str(old), str(new), FQRN, now=NOW)

        killed = killed_before_step(number, work)
        try:
            work()
        except KeyFileError:
            # Complete before it was killed, or before this second time.
            assert load_keys(str(new), FQRN).fqrn == FQRN
        assert load_keys(str(new), FQRN).certificate != publishing.keys().certificate
        if not killed:
            break


def test_rolling_back_to_the_present_state_is_refused_after_all_these(quick_disk: Path) -> None:
    line = timeline(quick_disk)
    before = (line.place.root / MANIFEST_FILE).read_bytes()
    with pytest.raises(ConfigurationError):
        roll_back(line.place.target, ByRevision(Revision(4)), LATER)
    assert (line.place.root / MANIFEST_FILE).read_bytes() == before
