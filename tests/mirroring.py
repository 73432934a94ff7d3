"""Repositories on disk and mirrors of them, for tests."""

from datetime import datetime, timedelta
from pathlib import Path

from headstart.repository import Means, Tagging, Wanted, publish_tree
from headstart.repository.check import Subject, check
from headstart.repository.mirror import Mirrored, Wishes, mirror
from headstart.repository.origin import Sought
from headstart.repository.report import Report
from headstart.stratum import DirectoryStratum, Stratum
from publishing import FQRN, NOW, Place, keys

WISHES = Wishes(workers=3)
DAY = timedelta(days=1)


def grow(place: Place, work: Path, revisions: range) -> None:
    """A revision a day, with nested catalogs, one in another, and a tag now and then."""
    (work / "inner" / "deep").mkdir(parents=True, exist_ok=True)
    (work / "same").mkdir(exist_ok=True)
    for part in ("inner", "inner/deep", "same"):
        (work / part / ".cvmfscatalog").touch()
    for number in revisions:
        (work / "file").write_text(f"of revision {number}")
        (work / "inner" / "file").write_text(f"inside, of revision {number}")
        (work / "inner" / "deep" / "file").write_text(f"deep down, of revision {number}")
        tagging = Tagging(name=f"v{number}") if number % 2 else Tagging()
        means = Means(tagging=tagging)
        publish_tree(place.target, Wanted(directory=str(work), at=b"/tree"), NOW + number * DAY, means)


def sought(source: Place | Stratum) -> Sought:
    """Where to copy from: a repository's storage, or whatever reads one."""
    stratum = DirectoryStratum(str(source.root)) if isinstance(source, Place) else source
    return Sought(stratum=stratum, keys=keys().masters, fqrn=FQRN)


def snapshot(
    source: Place | Stratum, mirrored: Place, now: datetime = NOW, wishes: Wishes = WISHES
) -> Mirrored:
    """Take one."""
    return mirror(sought(source), mirrored.store, wishes, now)


def looked_at(place: Place, now: datetime = NOW, *, deep: bool = True) -> Report:
    """All that is wrong with a repository or a mirror."""
    subject = Subject(
        stratum=DirectoryStratum(str(place.root)),
        store=place.store,
        lacking=tuple(place.store.lacking()),
        keys=keys().masters,
        fqrn=FQRN,
    )
    return check(subject, now=now, deep=deep)


def complaints(place: Place, now: datetime = NOW, *, deep: bool = True) -> set[str]:
    found = looked_at(place, now, deep=deep).complaints
    return {f"{item.code}: {item.path}: {item.text}" for item in found}


def objects(root: Path) -> dict[str, bytes]:
    """The objects in a storage."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted((root / "data").rglob("*"))
        if path.is_file() and "txn" not in path.parts
    }


def visible(root: Path) -> dict[str, bytes]:
    """Everything that clients can see but the times of snapshots."""
    times = (".cvmfs_last_snapshot", ".cvmfs_status.json")
    top = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file() and path.name not in times}
    return {**objects(root), **top}
