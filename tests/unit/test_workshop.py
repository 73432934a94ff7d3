"""Small files made into objects by processes of their own: what threads make, and what goes wrong there."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashing import killed_before_step, quick_disk, steps_of, telling_moments
from headstart import ingest
from headstart.cvmfs.chunks import ChunkSizes
from headstart.cvmfs.entry import Entry, Stat
from headstart.deflating import fast
from headstart.errors import CorruptError, StorageError
from headstart.ingest import Ingestion, Recipe
from headstart.repository import Means, TreePublished, Wanted, publish_tree
from headstart.store import DirectoryStore
from headstart.tree import Source
from headstart.workshop import Workshop
from publishing import AT, HELD, NOW, Place, content_of, new_repository

__all__ = ["quick_disk"]
SIZES = ChunkSizes(minimum=4096, average=8192, maximum=16384)
RECIPE = Recipe(sizes=SIZES, uncompressed=lambda place: place.endswith(".gz"))


@pytest.fixture
def place(quick_disk: Path) -> Place:
    return new_repository(quick_disk / "storage")


@pytest.fixture
def tree(quick_disk: Path) -> Path:
    """Small files, some of them twice, and a large one, in five catalogs."""
    for part in range(5):
        directory = quick_disk / "tree" / f"part{part}"
        directory.mkdir(parents=True)
        (directory / ".cvmfscatalog").touch()
        for number in range(20):
            (directory / f"file{number}").write_bytes(f"{part} {number % 15}\n".encode() * (1 + number * 40))
        (directory / "packed.gz").write_bytes(b"as it is" * (part + 1))
    (quick_disk / "tree" / "large").write_bytes(os.urandom(50_000))
    return quick_disk / "tree"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes for the very first files, a few at a time."""
    monkeypatch.setattr(ingest, "_FEW", 1)
    monkeypatch.setattr(ingest, "_BATCH", 7)


def run(place: Place, tree: Path, recipe: Recipe = RECIPE) -> TreePublished:
    return publish_tree(place.target, Wanted(directory=str(tree), at=AT), NOW, Means(recipe=recipe))


def files_of(place: Place) -> set[str]:
    return {listed.path for listed in place.store.listing("data/") if "txn" not in listed.path}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes that a test starts; none of them is left at its end."""
    found: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*arguments: object, **named: object) -> subprocess.Popen[bytes]:
        found.append(real(*arguments, **named))  # type: ignore[call-overload] # as it is called
        return found[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    yield found
    assert all(process.returncode is not None for process in found)


@pytest.mark.usefixtures("at_once")
def test_processes_make_what_threads_make(
    quick_disk: Path, tree: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [new_repository(quick_disk / name) for name in ("processes", "threads")]
    ours = run(places[0], tree)
    assert len(started) == 2
    assert os.listdir(places[0].root / "data" / "txn") == ["headstart.lock"]
    monkeypatch.setattr(ingest, "_FEW", 10**6)
    theirs = run(places[1], tree)
    assert len(started) == 2
    assert files_of(places[0]) == files_of(places[1])
    assert (ours.objects, ours.stored, ours.read) == (theirs.objects, theirs.stored, theirs.read)
    assert content_of(places[0].open()) == content_of(places[1].open())
    for path in files_of(places[0]):
        assert (places[0].root / path).stat().st_mode & 0o7777 == 0o644


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("program", [None, "", "/nowhere/python", "/bin/false", "/bin/true"])
def test_where_no_process_comes_up_threads_do_it(
    place: Place, tree: Path, monkeypatch: pytest.MonkeyPatch, program: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    assert run(place, tree).read == 111
    content_of(place.open())


def test_with_all_standard_streams_closed(quick_disk: Path) -> None:
    """Then the storage's descriptors have their numbers, and must not become a process's own streams."""
    tree, storage, keys = (quick_disk / name for name in ("many", "storage", "keys"))
    for number in range(1100):
        place = tree / str(number // 100) / str(number)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{number}\n")
    ours = [sys.executable, "-m", "headstart"]
    where = ["--storage", str(storage), "--keys", str(keys)]
    subprocess.run([*ours, "repo", "create", "test.example.org", *where], check=True, capture_output=True)
    words = [*ours, "publish", "--tree", str(tree), "--at", "/x", "--state", str(quick_disk / "state"), *where]
    subprocess.run(["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words], check=False, timeout=120)
    assert b"\nS2\n" in (storage / ".cvmfspublished").read_bytes()


@pytest.mark.usefixtures("at_once")
def test_attributes_come_with_the_content(place: Place, tree: Path) -> None:
    """Of small and large files, and of those that are not read again because they are known."""
    places = {b"/part1/file1": b"small", b"/large": b"large", b"/part1/file2": b"other"}
    try:
        for path, value in places.items():
            os.setxattr(tree / os.fsdecode(path[1:]), "user.kind", value)
    except OSError:
        pytest.skip("no attributes on this file system")
    wanted = Wanted(directory=str(tree), at=AT, state=str(tree.parent / "state"), slack=HELD)
    for read in (111, 1):
        assert publish_tree(place.target, wanted, NOW, Means(recipe=RECIPE)).read == read
        for path, value in places.items():
            entry = place.open().forest.lookup(AT + path)
            assert entry is not None
            assert entry.stat.xattrs == ((b"user.kind", value),)
        assert sum(bool(entry.stat.xattrs) for entry in entries_of(place)) == 3
        (tree / "part1" / "file3").write_text("changed")


def entries_of(place: Place) -> list[Entry]:
    return [entry for catalog in place.open().forest.catalogs() for _, entry in catalog.entries()]


@pytest.mark.usefixtures("at_once")
def test_what_is_there_already_is_not_written_again(
    place: Place, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_MOST_UNSETTLED", 10)
    assert run(place, tree).objects > 70
    shutil.copytree(tree, tree.parent / "copy")
    again = run(place, tree.parent / "copy")
    assert (again.objects, again.stored) == (0, 0)


def test_what_several_make_is_counted_once(place: Place) -> None:
    """Also where one of them comes when the other's is at its place already."""
    path = f"data/00/{'1' * 38}"
    with place.store.transaction() as into:
        staging = place.root / "data" / "txn" / "headstart"
        for name in ("first", "second", "third"):
            (staging / name).write_bytes(b"the same")
        assert into.adopt(path, "first")
        assert not into.adopt(path, "second")
        into.settle()
        assert not into.adopt(path, "third")
        into.settle()
    assert (place.root / path).read_bytes() == b"the same"


@pytest.mark.usefixtures("at_once")
def test_as_many_objects_are_new_as_there_are_more(
    place: Place, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_MOST_UNSETTLED", 1)
    for number in range(400):
        (tree / "part4" / f"same{number}").write_bytes(f"{number % 20}".encode())
    before = files_of(place)
    done = run(place, tree)
    more = [path for path in files_of(place) - before if path[-1] not in "CH"]
    assert done.objects == len(more)
    assert done.stored == sum((place.root / path).stat().st_size for path in more)


@pytest.mark.usefixtures("at_once")
def test_a_few_files_start_no_processes(
    place: Place, tree: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    run(place, tree)
    assert started == []


@pytest.mark.usefixtures("at_once")
def test_without_processes_threads_do_it(place: Place, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refused)
    run(place, tree)
    content_of(place.open())


@pytest.mark.usefixtures("at_once")
def test_what_cannot_be_said_to_a_process_is_done_by_threads(
    place: Place, tree: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    run(place, tree, Recipe(sizes=SIZES, compress=lambda content: fast(content)))  # noqa: PLW0108 - has no name
    assert started == []
    content_of(place.open())


def source(path: Path, *, size: int | None = None) -> Source:
    found = path.stat() if path.exists() else path.parent.stat()
    return Source(
        name=os.fsencode(path.name),
        stat=Stat(mode=0o644, mtime=0),
        size=found.st_size if size is None else size,
        place=str(path),
        seen=(found.st_ino, found.st_mtime_ns, found.st_ctime_ns),
    )


def take_all(ingestion: Ingestion, files: list[Source]) -> None:
    for item in files:
        ingestion.take(item, lambda _: None)
    ingestion.drain()


@pytest.mark.usefixtures("at_once", "started")
@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ("grown", CorruptError, "changed while it was read"),
        ("gone", StorageError, "cannot read .*none: No such file"),
        ("staging", StorageError, "cannot write .*storage"),
    ],
)
def test_what_fails_in_a_process_fails_here(
    place: Place, tree: Path, wrong: str, error: type[Exception], said: str
) -> None:
    good = [source(tree / "part0" / f"file{number}") for number in range(20)]
    bad = {
        "grown": source(tree / "part1" / "file1", size=1),
        "gone": source(tree / "none", size=5),
        "staging": source(tree / "part1" / "file2"),
    }[wrong]
    with place.store.transaction() as into, Ingestion(RECIPE, into, lambda _: None) as ingestion:
        if wrong == "staging":
            shutil.rmtree(place.root / "data" / "txn" / "headstart")
        with pytest.raises(error, match=said):
            take_all(ingestion, [*good, bad, *good])
        with pytest.raises(error, match=said):
            take_all(ingestion, good)


@pytest.mark.usefixtures("at_once")
def test_a_process_that_is_killed_is_told_of(
    place: Place, tree: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    with place.store.transaction() as into, Ingestion(RECIPE, into, lambda _: None) as ingestion:
        files = [source(tree / "part0" / f"file{number}") for number in range(20)]
        take_all(ingestion, files)
        for process in started:
            process.send_signal(signal.SIGKILL)
        with pytest.raises(StorageError, match=r"ended by itself \(exit code -9\)") as caught:
            take_all(ingestion, files * 5)
        assert "enough memory" in caught.value.hint


@pytest.mark.usefixtures("at_once")
def test_they_end_when_nobody_asks_any_more(
    place: Place, tree: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    with place.store.transaction() as into, Ingestion(RECIPE, into, lambda _: None) as ingestion:
        take_all(ingestion, [source(tree / "part0" / f"file{number}") for number in range(20)])
        workshop = ingestion._workshop
        assert isinstance(workshop, Workshop)
        # As the kernel does it for a process that is killed.
        for hand in workshop._hands:
            hand.line.close()
        assert [process.wait(60) for process in started] == [0, 0]


@pytest.mark.usefixtures("at_once")
def test_killed_at_any_moment_the_next_run_works(
    quick_disk: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_MOST_UNSETTLED", 30)
    steps = steps_of(lambda: run(new_repository(quick_disk / "counted"), tree))
    outcomes = set()
    for number in telling_moments(steps, last=6):
        place = new_repository(quick_disk / f"storage{number}")
        killed = killed_before_step(number, lambda place=place: run(place, tree))  # type: ignore[misc] # bound now
        outcomes.add((killed, place.open().manifest.revision))
        content_of(place.open())
        assert run(place, tree).manifest.revision == 2
        assert len(content_of(place.open())) > 100
        assert os.listdir(place.root / "data" / "txn") == ["headstart.lock"]
        shutil.rmtree(place.root)
    assert outcomes >= {(True, 1), (False, 2)}


def test_a_straggler_of_a_killed_writer_disturbs_nobody(place: Place) -> None:
    """It comes back to a directory that is gone, or puts a file there that is swept away."""
    store = DirectoryStore(str(place.root))
    staging = place.root / "data" / "txn" / "headstart"
    with store.transaction() as first:
        kept = os.dup(first.places.staging)
    with store.transaction():
        with pytest.raises(FileNotFoundError):
            os.open("late", os.O_WRONLY | os.O_CREAT, dir_fd=kept)
        assert os.listdir(staging) == []
    os.close(kept)


@pytest.mark.usefixtures("at_once")
def test_the_walk_goes_on_while_files_are_under_way(
    place: Place, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    real = Ingestion.drain

    def drain(self: Ingestion) -> None:
        waits.append(1)
        real(self)

    monkeypatch.setattr(Ingestion, "drain", drain)
    run(place, tree)
    assert len(waits) == 1  # and not for each of the five catalogs
    assert len(content_of(place.open())) > 100
