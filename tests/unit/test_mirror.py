"""Mirrors: what is copied and what is not asked for again, who is refused, and what a lost object does."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headstart.cli import main
from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objects import Algorithm, Kind, ObjectName, Revision, inflate
from headstart.cvmfs.past import ByRevision
from headstart.cvmfs.reflog import REFLOG_FILE, ReferenceKind, Reflog
from headstart.cvmfs.renewal import Terms
from headstart.cvmfs.signature import Letter, seal
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.errors import CorruptError, Error, MissingError, StorageError, TrustError, UnavailableError
from headstart.keys import create_keys, create_successor, load_keys
from headstart.names import Fqrn
from headstart.repository import adding, change_tags, roll_back
from headstart.repository.gc import Keep, collect, collect_mirror
from headstart.repository.mirror import Wishes, mirror
from headstart.repository.origin import PKCS7_FILE
from headstart.repository.replica import REPLICA_MARKER, RUNNING_FILE, SNAPSHOT_FILE
from headstart.repository.statusfile import STATUS_FILE
from headstart.repository.whitelists import renew_whitelist, resign_manifest
from headstart.store import DirectoryTransaction
from headstart.stratum import DirectoryStratum, Stratum
from headstart.webstratum import HttpStratum
from mirroring import DAY, WISHES, complaints, grow, objects, snapshot, sought, visible
from nodes import serving
from publishing import FQRN, NOW, Place, all_keys, copy_keys, keys, new_repository

LATER = NOW + 4 * DAY
MUCH_LATER = NOW + 9 * DAY
CHAIN = {REPLICA_MARKER, WHITELIST_FILE, MANIFEST_FILE, PKCS7_FILE}
"""What is asked for in any case, beside the certificate."""


@dataclass(slots=True)
class Watched:
    """A storage as a source that notes what is asked for, and can lose or change things."""

    root: Path
    asked: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    fails_after: int | None = None
    name: str = "the source"

    def fetch(self, path: str, *, limit: int, fresh: bool = False) -> bytes:
        self.asked.append(path)
        if self.fails_after is not None and len(self.asked) > self.fails_after:
            raise UnavailableError("the source is gone")
        if path in self.lost:
            raise MissingError(f"there is no {path}")
        return DirectoryStratum(str(self.root)).fetch(path, limit=limit, fresh=fresh)

    def another(self) -> None:
        return None

    pour = Stratum.pour

    @property
    def objects_asked(self) -> list[str]:
        return [path for path in self.asked if path.startswith("data/")]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Revisions 2, 3 and 4 of a tree; the first and the last have a tag."""
    base = tmp_path_factory.mktemp("grown")
    grow(new_repository(base / "source"), base / "work", range(1, 4))
    return base


@pytest.fixture
def source(template: Path, tmp_path: Path) -> Place:
    shutil.copytree(template / "source", tmp_path / "source")
    shutil.copytree(template / "work", tmp_path / "work")
    return Place(tmp_path / "source")


@pytest.fixture
def mirrored(tmp_path: Path) -> Place:
    return Place(tmp_path / "mirror")


def log_of(place: Place) -> Reflog:
    return Reflog.from_bytes((place.root / REFLOG_FILE).read_bytes(), fqrn=FQRN)


def roots(place: Place) -> list[str]:
    return [str(item.digest) for item in log_of(place).references if item.kind is ReferenceKind.CATALOG]


def name_of_root(place: Place, revision: int) -> ObjectName:
    for text in roots(place):
        name = ObjectName(
            digest=next(i.digest for i in log_of(place).references if str(i.digest) == text), kind=Kind.CATALOG
        )
        if catalog(place, name).revision == revision:
            return name
    raise AssertionError(f"no revision {revision}")


def catalog(place: Place, name: ObjectName, mountpoint: bytes = b"") -> Catalog:
    data = inflate((place.root / name.path).read_bytes(), limit=1 << 24, what="it")
    return Catalog.from_bytes(data, mountpoint=mountpoint)


# -- what is copied --------------------------------------------------------------------------------------------


def test_a_first_snapshot_has_all_that_the_source_has(source: Place, mirrored: Place) -> None:
    done = snapshot(source, mirrored, LATER)
    assert objects(mirrored.root) == objects(source.root)
    assert done.tally.objects == len(objects(source.root))
    assert done.tally.size == sum(map(len, objects(source.root).values()))
    for name in (MANIFEST_FILE, WHITELIST_FILE):
        assert (mirrored.root / name).read_bytes() == (source.root / name).read_bytes()
    assert roots(mirrored) == roots(source)
    assert {item.digest for item in log_of(mirrored).references} == {
        item.digest for item in log_of(source).references
    }
    assert complaints(mirrored, LATER) == set()
    # A mirror is not a source of mirrors, unless its administrator says so.
    assert sorted(path.name for path in mirrored.root.iterdir()) == [
        SNAPSHOT_FILE, STATUS_FILE, MANIFEST_FILE, REFLOG_FILE, WHITELIST_FILE, "data",
    ]  # fmt: skip
    assert (mirrored.root / SNAPSHOT_FILE).read_text() == "Thu Nov 26 20:15:00 UTC 2026\n"


def test_with_nothing_new_only_the_chain_is_asked_for(source: Place, mirrored: Place) -> None:
    snapshot(source, mirrored, LATER)
    before = visible(mirrored.root)
    watched = Watched(source.root)
    done = snapshot(watched, mirrored, MUCH_LATER)
    assert set(watched.asked) == CHAIN | {source.open(LATER).manifest.certificate_name.path}
    assert done.tally.objects == 0
    assert visible(mirrored.root) == before
    assert (mirrored.root / SNAPSHOT_FILE).read_text() == "Tue Dec  1 20:15:00 UTC 2026\n"


def test_a_later_snapshot_asks_for_what_is_new_and_each_once(
    source: Place, mirrored: Place, tmp_path: Path
) -> None:
    snapshot(source, mirrored, LATER)
    before = set(objects(source.root))
    grow(source, tmp_path / "work", range(5, 7))
    watched = Watched(source.root)
    done = snapshot(watched, mirrored, MUCH_LATER)
    new = set(objects(source.root)) - before
    assert set(watched.objects_asked) - {source.open(LATER).manifest.certificate_name.path} == new
    assert len(watched.objects_asked) == len(new) + 1
    assert done.tally.objects == len(new)
    assert [state.label for state in done.plan.states] == ["tag v5", "the present state"]
    assert objects(mirrored.root) == objects(source.root)
    assert roots(mirrored) == roots(source)
    assert complaints(mirrored, MUCH_LATER) == set()


def test_the_times_in_the_log_are_those_of_the_snapshots(
    source: Place, mirrored: Place, tmp_path: Path
) -> None:
    snapshot(source, mirrored, LATER)
    grow(source, tmp_path / "work", range(5, 6))
    snapshot(source, mirrored, MUCH_LATER)
    times = {item.timestamp for item in log_of(mirrored).references if item.kind is ReferenceKind.CATALOG}
    assert times == {int(LATER.timestamp()), int(MUCH_LATER.timestamp())}


def test_a_snapshot_that_was_interrupted_goes_on_where_it_was(
    source: Place, mirrored: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.repository.copying._ROUND", 3)
    asked: list[str] = []
    for patience in range(12, 100, 12):
        watched = Watched(source.root, fails_after=patience)
        try:
            snapshot(watched, mirrored, LATER)
        except UnavailableError:
            assert not (mirrored.root / MANIFEST_FILE).exists()
            assert not (mirrored.root / RUNNING_FILE).exists()
        else:
            break
        finally:
            asked += watched.objects_asked
    assert complaints(mirrored, LATER) == set()
    assert objects(mirrored.root) == objects(source.root)
    files = [path for path in asked if not path.endswith(("C", "X", "H", "M"))]
    # A round that failed is fetched again: here three objects with as many under way.
    assert len(files) <= len(set(files)) + 6 * len(range(12, 100, 12))


def test_a_snapshot_is_one_even_if_its_mark_stays(
    source: Place, mirrored: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove(_: DirectoryTransaction, path: str) -> None:
        if path == RUNNING_FILE:
            raise StorageError(f"cannot write {path}: Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryTransaction, "remove", remove)
        done = snapshot(source, mirrored, LATER)
    assert [RUNNING_FILE in warning and "Input/output error" in warning for warning in done.warnings] == [True]
    assert (mirrored.root / MANIFEST_FILE).read_bytes() == (source.root / MANIFEST_FILE).read_bytes()
    assert snapshot(source, mirrored, LATER).warnings == ()
    assert not (mirrored.root / RUNNING_FILE).exists()


def test_only_recent_states_when_asked_for(source: Place, mirrored: Place) -> None:
    keep = Wishes(workers=2, keep=timedelta(days=1, hours=1))
    done = snapshot(source, mirrored, NOW + 3 * DAY, keep)
    # Revision 3 was current until revision 4 came, and revision 2 has a tag.
    assert [state.label for state in done.plan.states] == ["tag v1", "tag trunk-previous", "the present state"]
    assert len(roots(mirrored)) == len(roots(source)) - 1
    assert complaints(mirrored, NOW + 3 * DAY) == set()


def test_a_tag_on_a_state_that_the_mirror_has_not_brings_it(source: Place, mirrored: Place) -> None:
    snapshot(source, mirrored, LATER, Wishes(keep=timedelta(0)))
    first = name_of_root(source, 1)
    assert not (mirrored.root / first.path).exists()
    change_tags(source.target, adding("first", ByRevision(Revision(1))), LATER)
    done = snapshot(source, mirrored, MUCH_LATER, Wishes(keep=timedelta(0)))
    assert [state.label for state in done.plan.states] == ["tag first"]
    assert roots(mirrored)[0] == str(first.digest)
    assert complaints(mirrored, MUCH_LATER) == set()


def test_a_source_whose_log_is_another_one_is_followed_back_by_its_catalogs(
    source: Place, mirrored: Place, tmp_path: Path
) -> None:
    """Such as a mirror."""
    snapshot(source, mirrored, LATER)
    (mirrored.root / REPLICA_MARKER).touch()
    second = Place(tmp_path / "second")
    snapshot(mirrored, second, LATER)
    assert roots(second) == roots(source)
    grow(source, tmp_path / "work", range(5, 8))
    snapshot(source, mirrored, MUCH_LATER)
    watched = Watched(mirrored.root)
    done = snapshot(watched, second, MUCH_LATER)
    assert len(done.plan.states) == 3
    assert roots(second) == roots(source)
    assert complaints(second, MUCH_LATER) == set()


def test_copies_beside_the_manifest_where_it_says_so(source: Place, mirrored: Place) -> None:
    resign(source, alternative_paths=True)
    snapshot(source, mirrored, LATER)
    manifest = source.open(LATER).manifest
    for name in (manifest.certificate_name, manifest.root_catalog_name):
        alternative = mirrored.root / f".cvmfsalt-{name.digest}{name.kind}"
        assert alternative.read_bytes() == (source.root / name.path).read_bytes()


def test_the_older_form_of_the_whitelist_comes_and_goes_with_the_source(source: Place, mirrored: Place) -> None:
    (source.root / PKCS7_FILE).write_bytes(b"another signature")
    snapshot(source, mirrored, LATER)
    assert (mirrored.root / PKCS7_FILE).read_bytes() == b"another signature"
    (source.root / PKCS7_FILE).unlink()
    snapshot(source, mirrored, LATER)
    assert not (mirrored.root / PKCS7_FILE).exists()


def test_the_status_file_keeps_what_else_it_says(source: Place, mirrored: Place) -> None:
    snapshot(source, mirrored, LATER)
    (mirrored.root / STATUS_FILE).write_text('{"last_gc": "long ago"}')
    snapshot(source, mirrored, MUCH_LATER)
    said = json.loads((mirrored.root / STATUS_FILE).read_bytes())
    assert said == {"last_gc": "long ago", "last_snapshot": "Tue Dec  1 20:15:00 UTC 2026"}
    (mirrored.root / STATUS_FILE).write_text("[" * 100_000)
    snapshot(source, mirrored, MUCH_LATER)
    assert json.loads((mirrored.root / STATUS_FILE).read_bytes()).keys() == {"last_snapshot"}


def test_a_whitelist_alone_is_renewed(source: Place, mirrored: Place) -> None:
    snapshot(source, mirrored, LATER)
    renew_whitelist(source.store, all_keys().master, Terms(days=90), LATER)
    snapshot(source, mirrored, LATER)
    assert (mirrored.root / WHITELIST_FILE).read_bytes() == (source.root / WHITELIST_FILE).read_bytes()


# -- who is refused --------------------------------------------------------------------------------------------


def resign(place: Place, **changes: object) -> Manifest:
    """The same state under another manifest, well signed."""
    manifest = replace(
        Manifest.from_bytes(Letter.cut((place.root / MANIFEST_FILE).read_bytes(), what="it").text),
        **changes,  # type: ignore[arg-type] # as the test says
    )
    sealed = seal(manifest.to_bytes(), algorithm=manifest.algorithm, sign=keys().repository.sign_sha1)
    (place.root / MANIFEST_FILE).write_bytes(sealed)
    return manifest


def unchanged(place: Place, do: Callable[[], object], kind: type[Error], text: str) -> None:
    """Something fails with such an error and changes nothing that anybody can see."""
    before = visible(place.root) if place.root.exists() else None
    with pytest.raises(kind, match=text):
        do()
    assert (visible(place.root) if place.root.exists() else None) == before


def test_a_source_that_went_back(source: Place, mirrored: Place, tmp_path: Path) -> None:
    old = {name: (source.root / name).read_bytes() for name in (MANIFEST_FILE, REFLOG_FILE)}
    grow(source, tmp_path / "work", range(5, 6))
    snapshot(source, mirrored, MUCH_LATER)
    for name, content in old.items():
        (source.root / name).write_bytes(content)
    text = "is at revision 4 of julia.example.org, and the mirror has 5; the source went back"
    unchanged(mirrored, lambda: snapshot(source, mirrored, MUCH_LATER), TrustError, text)


def test_another_state_under_the_same_number(source: Place, mirrored: Place, tmp_path: Path) -> None:
    fork = Place(tmp_path / "fork")
    shutil.copytree(source.root, fork.root)
    grow(source, tmp_path / "work", range(5, 6))
    grow(fork, tmp_path / "work", range(6, 7))
    snapshot(source, mirrored, MUCH_LATER)
    text = "revision 5 of julia.example.org is another one at"
    unchanged(mirrored, lambda: snapshot(fork, mirrored, MUCH_LATER), TrustError, text)


def test_the_same_state_with_an_older_time(source: Place, mirrored: Place) -> None:
    snapshot(source, mirrored, LATER)
    before = source.open(LATER).manifest.timestamp
    resign(source, timestamp=before - 5)
    unchanged(mirrored, lambda: snapshot(source, mirrored, LATER), TrustError, "that is 5 s older than")


def test_an_older_whitelist(source: Place, mirrored: Place) -> None:
    old = (source.root / WHITELIST_FILE).read_bytes()
    renew_whitelist(source.store, all_keys().master, Terms(days=30), LATER)
    snapshot(source, mirrored, LATER)
    (source.root / WHITELIST_FILE).write_bytes(old)
    unchanged(mirrored, lambda: snapshot(source, mirrored, LATER), TrustError, "the mirror has a newer one")


def test_an_expired_whitelist(source: Place, mirrored: Place) -> None:
    unchanged(mirrored, lambda: snapshot(source, mirrored, NOW + 40 * DAY), TrustError, "expired on 2026-12-22")


def test_another_name_and_another_key(source: Place, mirrored: Place, tmp_path: Path) -> None:
    other = replace(sought(source), fqrn=Fqrn("other.example.org"))
    unchanged(mirrored, lambda: mirror(other, mirrored.store, WISHES, LATER), TrustError, "not of other")
    create_keys(str(tmp_path / "keys"), FQRN, now=NOW)
    strange = replace(sought(source), keys=load_keys(str(tmp_path / "keys"), FQRN).masters)
    unchanged(mirrored, lambda: mirror(strange, mirrored.store, WISHES, LATER), TrustError, "master key")


def test_a_source_without_the_owners_leave(source: Place, mirrored: Place) -> None:
    (source.root / REPLICA_MARKER).unlink()
    text = "may not be replicated: it has no .cvmfs_master_replica"
    unchanged(mirrored, lambda: snapshot(source, mirrored, LATER), StorageError, text)


def test_a_storage_that_is_no_mirror(source: Place, tmp_path: Path) -> None:
    own = new_repository(tmp_path / "own")
    unchanged(own, lambda: snapshot(source, own, LATER), StorageError, "that is no mirror")
    strange = Place(tmp_path / "home")
    strange.root.mkdir()
    (strange.root / "letter.txt").write_text("dear")
    with pytest.raises(StorageError, match=r"holds something else: letter\.txt"):
        snapshot(source, strange, LATER)
    assert [path.name for path in strange.root.iterdir()] == ["letter.txt"]


def test_a_mirror_whose_manifest_is_damaged(source: Place, mirrored: Place) -> None:
    snapshot(source, mirrored, LATER)
    (mirrored.root / MANIFEST_FILE).write_bytes(b"noise")
    with pytest.raises(CorruptError, match=r"manifest of the mirror .* is damaged.*delete its .cvmfspublished"):
        snapshot(source, mirrored, LATER)
    (mirrored.root / MANIFEST_FILE).unlink()
    watched = Watched(source.root)
    snapshot(watched, mirrored, LATER)
    assert not {path for path in watched.objects_asked if not path.endswith("X")}
    assert complaints(mirrored, LATER) == set()


@pytest.mark.parametrize("damage", [b"noise", None])
def test_a_mirror_whose_log_is_damaged_gets_another(
    source: Place, mirrored: Place, damage: bytes | None
) -> None:
    snapshot(source, mirrored, LATER)
    before = roots(mirrored)
    (mirrored.root / REFLOG_FILE).unlink()
    if damage is not None:
        (mirrored.root / REFLOG_FILE).write_bytes(damage)
    with pytest.raises((CorruptError, MissingError), match="headstart repo mirror"):
        collect_mirror((mirrored.store, keys().masters, FQRN), Keep(), LATER)
    snapshot(source, mirrored, LATER)
    assert roots(mirrored) == before
    assert complaints(mirrored, LATER) == set()


def test_nobody_publishes_to_a_mirror(source: Place, mirrored: Place, tmp_path: Path) -> None:
    snapshot(source, mirrored, LATER)
    master = all_keys().master
    for write in (
        lambda: grow(mirrored, tmp_path / "work", range(8, 9)),
        lambda: change_tags(mirrored.target, adding("x", ByRevision(Revision(2))), LATER),
        lambda: roll_back(mirrored.target, ByRevision(Revision(2)), LATER),
        lambda: collect(mirrored.target, Keep(), LATER),
        lambda: renew_whitelist(mirrored.store, master, Terms(days=3), LATER),
    ):
        unchanged(mirrored, write, StorageError, "is a mirror: it has .cvmfs_last_snapshot")


# -- what the source has lost, or damages ----------------------------------------------------------------------


def only_in(place: Place, revision: int) -> set[str]:
    """Objects that no other state needs."""
    needed: dict[int, set[str]] = {}
    for number in range(1, 5):
        found = needed.setdefault(number, set())
        waiting = [(name_of_root(place, number), b"")]
        while waiting:
            name, at = waiting.pop()
            found.add(name.path)
            opened = catalog(place, name, at)
            for _, entry in opened.entries():
                digest = getattr(entry, "digest", None)
                if digest is not None:
                    found.add(ObjectName(digest=digest, kind=Kind.FILE).path)
            waiting += [
                (ObjectName(digest=item.digest, kind=Kind.CATALOG), path)
                for path, item in opened.nested.items()
            ]
    others = set().union(*(needed[number] for number in needed if number != revision))
    return needed[revision] - others


def test_an_earlier_state_that_is_not_whole_is_left_out(source: Place, mirrored: Place) -> None:
    """Whichever of its objects is gone; of its catalogs none is put that lacks something."""
    # Nothing demands revision 3 once a later one has taken trunk-previous.
    grow(source, mirrored.root.parent / "work", range(4, 5))
    gone = name_of_root(source, 3)
    for number, path in enumerate(sorted(only_in(source, 3))):
        place = Place(mirrored.root / str(number))
        done = snapshot(Watched(source.root, lost={path}), place, MUCH_LATER)
        assert [state.label for state in done.left_out] == [f"the earlier state {gone.digest}"]
        assert str(gone.digest) not in roots(place)
        assert not (place.root / gone.path).exists()
        assert complaints(place, MUCH_LATER) == set()


DEMANDED = [(2, "tag v1"), (3, "tag trunk-previous"), (4, "the present state")]


@pytest.mark.parametrize(("revision", "label"), DEMANDED)
def test_a_state_that_is_demanded_must_be_whole(
    source: Place, mirrored: Place, revision: int, label: str
) -> None:
    for number, path in enumerate(sorted(only_in(source, revision))):
        place = Place(mirrored.root / str(number))
        with pytest.raises(MissingError, match=f"{label} cannot be copied: there is no {path}"):
            snapshot(Watched(source.root, lost={path}), place, LATER)
        assert not (place.root / MANIFEST_FILE).exists()
        snapshot(source, place, LATER)
        assert complaints(place, LATER) == set()


def test_what_the_manifest_names_must_be_there(source: Place, mirrored: Place) -> None:
    manifest = source.open(LATER).manifest
    assert manifest.history is not None
    history = ObjectName(digest=manifest.history, kind=Kind.HISTORY)
    with pytest.raises(MissingError, match=history.path):
        snapshot(Watched(source.root, lost={history.path}), mirrored, LATER)


@pytest.mark.parametrize("fault", ["flipped", "short", "empty", "html"])
def test_a_server_that_damages_what_it_sends(source: Place, mirrored: Place, fault: str) -> None:
    changed: dict[str, Callable[[bytes], bytes]] = {
        "flipped": lambda content: content[:-1] + bytes((content[-1] ^ 1,)),
        "short": lambda content: content[: len(content) // 2],
        "empty": lambda _content: b"",
        "html": lambda _content: b"<html>It works!</html>",
    }

    def misbehave(path: str, content: bytes) -> bytes:
        return changed[fault](content) if path in bad else content

    files = sorted(path for path in objects(source.root) if path[-1] not in "XHM")
    bad = {files[3]}
    with serving(source.root) as server, HttpStratum(server.url) as stratum:
        server.fault = misbehave
        with pytest.raises((CorruptError, UnavailableError)):
            snapshot(stratum, mirrored, LATER)
        assert not (mirrored.root / MANIFEST_FILE).exists()
        bad = set()
        snapshot(stratum, mirrored, LATER)
    assert complaints(mirrored, LATER) == set()


def test_damage_on_the_way_is_asked_for_again(source: Place, mirrored: Place) -> None:
    seen: set[str] = set()

    def once(path: str, content: bytes) -> bytes:
        if path in seen or not path.startswith("data/"):
            return content
        seen.add(path)
        return content[:-1]

    with serving(source.root) as server, HttpStratum(server.url) as stratum:
        server.fault = once
        snapshot(stratum, mirrored, LATER)
    assert objects(mirrored.root) == objects(source.root)


# -- what is there already -------------------------------------------------------------------------------------


def test_a_catalog_that_is_there_does_not_prove_what_it_names(source: Place, mirrored: Place) -> None:
    """As garbage collection leaves it that was killed: a catalog whose nested one is gone, which comes back."""
    grow(source, mirrored.root.parent / "work", range(4, 5))
    snapshot(source, mirrored, MUCH_LATER)
    gone = name_of_root(mirrored, 3)
    inner = catalog(mirrored, gone).nested[b"/tree/inner"].digest
    name = ObjectName(digest=inner, kind=Kind.CATALOG)
    deep = catalog(mirrored, name, b"/tree/inner").nested[b"/tree/inner/deep"].digest
    log = log_of(mirrored)
    kept = tuple(item for item in log.references if item.digest != gone.digest)
    (mirrored.root / REFLOG_FILE).write_bytes(Reflog(fqrn=FQRN, references=kept).to_bytes())
    (mirrored.root / gone.path).unlink()
    (mirrored.root / ObjectName(digest=deep, kind=Kind.CATALOG).path).unlink()
    roll_back(source.target, ByRevision(Revision(3)), MUCH_LATER)
    snapshot(source, mirrored, MUCH_LATER)
    assert (
        catalog(mirrored, source.open(MUCH_LATER).manifest.root_catalog_name).nested[b"/tree/inner"].digest
        == inner
    )
    assert complaints(mirrored, MUCH_LATER) == set()


def test_what_was_lost_is_found_when_asked_for(source: Place, mirrored: Place) -> None:
    snapshot(source, mirrored, LATER)
    whole = objects(mirrored.root)
    for path in sorted(whole):
        (mirrored.root / path).unlink()
        snapshot(source, mirrored, LATER, Wishes(workers=2, recheck=True))
        assert objects(mirrored.root) == whole, path


def test_a_catalog_that_is_damaged_in_the_mirror_is_said(source: Place, mirrored: Place) -> None:
    snapshot(source, mirrored, LATER)
    path = mirrored.root / name_of_root(mirrored, 2).path
    path.write_bytes(b"noise")
    with pytest.raises(CorruptError, match="is damaged; delete this file, and run it again"):
        snapshot(source, mirrored, LATER, Wishes(recheck=True))
    path.unlink()
    snapshot(source, mirrored, LATER, Wishes(recheck=True))
    assert complaints(mirrored, LATER) == set()


def test_what_garbage_collection_has_forgotten_does_not_come_back(
    source: Place, mirrored: Place, tmp_path: Path
) -> None:
    snapshot(source, mirrored, LATER)
    done = collect_mirror((mirrored.store, keys().masters, FQRN), Keep(), LATER)
    assert done.objects
    assert len(roots(mirrored)) == 3
    assert complaints(mirrored, LATER) == set()
    assert (mirrored.root / MANIFEST_FILE).read_bytes() == (source.root / MANIFEST_FILE).read_bytes()
    grow(source, tmp_path / "work", range(5, 6))
    snapshot(source, mirrored, MUCH_LATER)
    assert len(roots(mirrored)) == 4
    assert complaints(mirrored, MUCH_LATER) == set()


def test_a_mirror_of_what_may_not_be_collected(source: Place, mirrored: Place) -> None:
    resign(source, garbage_collectable=False)
    snapshot(source, mirrored, LATER)
    with pytest.raises(StorageError, match="only its publisher can change that"):
        collect_mirror((mirrored.store, keys().masters, FQRN), Keep(), LATER)


# -- the command -----------------------------------------------------------------------------------------------


def words(source: Place, mirrored: Place, tmp_path: Path, *more: str) -> list[str]:
    if not (tmp_path / "keys").exists():
        copy_keys(tmp_path / "keys")
    key = str(tmp_path / "keys" / f"{FQRN}.pub")
    return ["repo", "mirror", str(source.root), str(mirrored.root), "--key", key, *more]


def renewed(source: Place) -> Place:
    """Valid at the time of now, which is the command's."""
    renew_whitelist(source.store, all_keys().master, Terms(days=30), datetime.now(UTC))
    return source


def test_the_command(
    source: Place, mirrored: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renewed(source)
    assert main(words(source, mirrored, tmp_path, "--dry-run", "--json")) == 0
    planned = json.loads(capsys.readouterr().out)
    assert not mirrored.root.exists()
    assert main(words(source, mirrored, tmp_path, "--json")) == 0
    done = json.loads(capsys.readouterr().out)
    assert planned["objects"] == done["objects"] == len(objects(source.root))
    assert planned["catalogs"] == done["catalogs"]
    assert planned["states"] == done["states"]
    assert (planned["dry_run"], done["dry_run"]) == (True, False)
    assert (done["revision"], done["revision_before"]) == (4, None)
    assert main(words(source, mirrored, tmp_path)) == 0
    said = capsys.readouterr()
    assert said.out == "julia.example.org revision 4: 0 objects of 0 B copied\n"
    assert "is at revision 4: there is no new state" in said.err
    pub = str(tmp_path / "keys" / f"{FQRN}.pub")
    assert main(["repo", "gc", "--storage", str(mirrored.root), "--key", pub, "--keep-revisions", "0"]) == 0
    assert main(["repo", "check", str(mirrored.root), "--key", pub, "--deep"]) == 0
    assert main(["repo", "gc", "--storage", str(mirrored.root), "--key", pub, "--enable"]) == 10
    assert main(["repo", "gc", "--storage", str(source.root), "--key", pub]) == 10
    capsys.readouterr()


WRONG = {
    "no workers": (["--workers", "0"], 10, "--workers 0 is no number from 1 to 128"),
    "days": (["--keep-days", "-1"], 10, "--keep-days -1 is no number"),
    "name": (["--fqrn", "other.example.org"], 17, "not of other.example.org"),
    "key": (["--key", "/nowhere"], 15, "/nowhere"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_words(
    source: Place, mirrored: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    more, code, text = WRONG[wrong]
    assert main(words(renewed(source), mirrored, tmp_path, *more)) == code
    assert text in capsys.readouterr().err
    assert not mirrored.root.exists()


def test_the_source_itself_is_no_mirror(
    source: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (source, Place(source.root / "inside")):
        assert main(words(source, place, tmp_path)) == 10
        assert "is the source itself, or lies in it" in capsys.readouterr().err
    assert not (source.root / "inside").exists()


def test_after_a_revocation_there_is_no_moment_without_trust(
    source: Place, mirrored: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new whitelist does not know the old manifest's certificate, so it comes after the new manifest."""
    old = copy_keys(tmp_path / "keys")
    new_keys = create_successor(str(old), str(tmp_path / "new"), FQRN, now=NOW)
    old_line = keys().certificate.fingerprint(Algorithm.SHA1)
    new_line = new_keys.certificate.fingerprint(Algorithm.SHA1)
    master = all_keys().master
    renew_whitelist(source.store, master, Terms(days=30, add=(new_line,)), LATER)
    snapshot(source, mirrored, LATER)
    resign_manifest((source.store, new_keys), LATER)
    renew_whitelist(source.store, master, Terms(days=30, revoke=(old_line,)), LATER + timedelta(seconds=1))
    replaced: list[str] = []
    real = DirectoryTransaction.replace

    def replace_and_look(self: DirectoryTransaction, path: str, content: bytes) -> None:
        real(self, path, content)
        replaced.append(path)
        assert {line for line in complaints(mirrored, LATER, deep=False) if "whitelist" in line} == set()

    monkeypatch.setattr(DirectoryTransaction, "replace", replace_and_look)
    snapshot(source, mirrored, LATER)
    assert replaced[-2:] == [MANIFEST_FILE, WHITELIST_FILE]
    assert complaints(mirrored, LATER) == set()
