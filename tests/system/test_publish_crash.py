"""Publishing that is killed, runs out of disk or meets a read-only one: nothing is lost, and again it works."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import publishing
from crashing import killed_before_step, moments, quick_disk
from headstart.bundle import Bundle
from headstart.cli import main
from headstart.errors import LockedError, StorageError
from headstart.names import Sha256
from headstart.reference import Reference
from headstart.releasestatement import statement_path
from headstart.repository import Repository, create, publish
from headstart.repository.channels import channels_of
from headstart.repository.pointing import bundle_at_hand, plan_stating
from headstart.repository.statements import publish_statements
from headstart.stage import open_stage
from headstart.store import DirectoryStore
from publishing import NOW, PROD, Place, content_of, new_repository, write_stage

__all__ = ["quick_disk"]


def run(place: Place, stage: Path) -> int:
    return publish(place.target, open_stage(str(stage)), PROD, NOW).revision


def test_killed_at_any_step_the_old_state_stands_and_the_next_run_works(quick_disk: Path) -> None:
    write_stage(quick_disk / "stage")
    outcomes = set()
    for kills, number in enumerate(moments()):
        place = new_repository(quick_disk / f"storage{kills}")
        old = content_of(place.open())
        killed = killed_before_step(number, lambda place=place: run(place, quick_disk / "stage"))  # type: ignore[misc] # bound now
        now = place.open()
        if now.manifest.revision == 1:
            assert content_of(now) == old
        else:
            assert b"/channels/jets/prod.json" in content_of(now)
        outcomes.add((killed, now.manifest.revision))
        assert run(place, quick_disk / "stage") == 2
        assert b"/channels/jets/prod.json" in content_of(place.open())
        assert os.listdir(place.root / "data" / "txn") == ["headstart.lock"]
        shutil.rmtree(place.root)
        if not killed:
            break
    assert (True, 1) in outcomes
    assert (False, 2) in outcomes


def test_release_and_statement_come_in_one_revision(quick_disk: Path) -> None:
    """Published on no channel, and killed at any step; and stated later, by another command."""
    made = write_stage(quick_disk / "stage")
    release = f"/stacks/jets/{made.id}/release.json".encode()
    said = statement_path(made.stack, Sha256.of(made.to_bytes())).encode()
    staged = open_stage(str(quick_disk / "stage"))
    nobody = replace(publishing.keys(), channels=())

    def state(place: Place) -> int:
        def make(repository: Repository) -> Bundle | None:
            return bundle_at_hand(
                channels_of(repository), plan_stating(repository, [Reference.parse(f"jets@{made.id}")])
            )

        return publish_statements(place.target, make, NOW).revision

    def publish_all(place: Place) -> int:
        return publish(place.target, staged, None, NOW).revision

    for work in (publish_all, state):
        outcomes = set()
        for number in moments():
            place = new_repository(quick_disk / "storage")
            if work is state:
                publish((place.store, nobody), staged, None, NOW)
            before = place.open().manifest.revision
            killed = killed_before_step(number, lambda place=place, work=work: work(place))  # type: ignore[misc] # bound now
            content = content_of(place.open())
            revision = place.open().manifest.revision
            assert (said in content) == (revision == before + 1)
            assert (release in content) == (work is state or said in content)
            outcomes.add((killed, revision - before))
            assert work(place) == before + 1
            assert said in content_of(place.open())
            shutil.rmtree(place.root)
            if not killed:
                break
        assert outcomes >= {(True, 0), (False, 1)}


def test_killed_between_its_last_steps_the_reflog_may_be_ahead(tmp_path: Path) -> None:
    """After the reflog, before the manifest: the window that format section 13 speaks of."""
    write_stage(tmp_path / "stage")
    place = new_repository(tmp_path / "storage")
    before = (place.root / ".cvmfspublished").read_bytes()
    real = os.rename

    def rename(source: str, target: str, **directories: int) -> None:
        if target.endswith(".cvmfspublished"):
            raise KeyboardInterrupt
        real(source, target, **directories)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            run(place, tmp_path / "stage")
    manifest = place.open().manifest
    reflog = (place.root / ".cvmfsreflog").read_bytes()
    assert (place.root / ".cvmfspublished").read_bytes() == before
    assert manifest.algorithm.digest(reflog) != manifest.reflog
    assert run(place, tmp_path / "stage") == 2
    manifest = place.open().manifest
    assert manifest.algorithm.digest((place.root / ".cvmfsreflog").read_bytes()) == manifest.reflog


def test_creation_killed_at_any_step_can_be_done_again(quick_disk: Path) -> None:
    publishing.all_keys()
    ends = []
    # Making the 256 directories are the first steps; those behind are the ones that matter.
    for number in (
        0,
        1,
        100,
        256,
        257,
        258,
        259,
        260,
        262,
        264,
        266,
        268,
        270,
        272,
        274,
        276,
        278,
        280,
        290,
        300,
    ):
        store = DirectoryStore(str(quick_disk / f"storage{number}"))
        killed = killed_before_step(number, lambda store=store: create(store, publishing.all_keys(), NOW))  # type: ignore[misc] # bound now
        if store.has(".cvmfspublished"):
            with pytest.raises(StorageError, match="already"):
                create(store, publishing.all_keys(), NOW)
        else:
            create(store, publishing.all_keys(), NOW)
        content_of(Place(Path(store.root)).open())
        ends.append(killed)
        shutil.rmtree(store.root)
    assert ends[0]
    assert not ends[-1]


def test_killed_at_random_moments_by_the_command_line(tmp_path: Path) -> None:
    write_stage(tmp_path / "stage", extra={f"depot/{number}.jl": os.urandom(20_000) for number in range(100)})
    publishing.copy_keys(tmp_path / "keys")
    storage = tmp_path / "storage"
    words = (
        "publish",
        tmp_path / "stage",
        "--storage",
        storage,
        "--keys",
        tmp_path / "keys",
        "--channel",
        "prod",
    )
    command = (sys.executable, "-m", "headstart", *map(str, words))
    assert (
        main(
            ["repo", "create", "julia.example.org", "--storage", str(storage), "--keys", str(tmp_path / "keys")]
        )
        == 0
    )
    whole = time.monotonic()
    assert subprocess.run([*command, "--dry-run"], check=False, capture_output=True).returncode == 0
    whole = time.monotonic() - whole
    chance = random.Random(7)
    for _ in range(8):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(whole * chance.uniform(0.3, 1.3))
            process.kill()
        state = Place(storage).open(now=publishing.later())
        assert state.manifest.revision in (1, 2)
        content_of(state)
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    state = Place(storage).open(now=publishing.later())
    assert state.manifest.revision == 2
    assert len(content_of(state)) > 100


def test_a_second_process_is_locked_out_and_a_killed_one_is_not_in_the_way(tmp_path: Path) -> None:
    write_stage(tmp_path / "stage")
    place = new_repository(tmp_path / "storage")
    holder = (
        "import sys, time; from headstart.store import DirectoryStore\n"
        "with DirectoryStore(sys.argv[1]).transaction(): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, place.root], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError):
            run(place, tmp_path / "stage")
        process.kill()
    assert run(place, tmp_path / "stage") == 2


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A file system of that size; what it gives remounts it with other options."""
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs is not allowed here: it takes root")

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", at], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", at], check=True)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    write_stage(tmp_path / "stage", extra={f"depot/{number}": os.urandom(300_000) for number in range(20)})
    with small_disk(tmp_path / "disk", "4m") as remount:
        place = new_repository(tmp_path / "disk" / "storage")
        old = content_of(place.open())
        with pytest.raises(StorageError, match="No space left") as caught:
            run(place, tmp_path / "stage")
        assert "make room" in caught.value.hint
        assert content_of(place.open()) == old
        assert os.listdir(place.root / "data" / "txn") == ["headstart.lock"]
        remount("size=64m")
        assert run(place, tmp_path / "stage") == 2
        content_of(place.open())


def test_a_disk_that_fills_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    write_stage(tmp_path / "stage")
    with small_disk(tmp_path / "disk", "8m") as remount:
        place = new_repository(tmp_path / "disk" / "storage")
        free = os.statvfs(place.root)
        failures = 0
        for spare in range(0, 80, 8):
            filler = tmp_path / "disk" / "filler"
            filler.write_bytes(b"\0" * ((free.f_bavail - spare) * free.f_bsize))
            try:
                run(place, tmp_path / "stage")
            except StorageError:
                failures += 1
                filler.unlink()
                assert place.open().manifest.revision == 1
                content_of(place.open())
            else:
                break
        assert failures
        remount("size=64m")
        assert run(place, tmp_path / "stage") == 2


def test_a_read_only_disk_is_refused_with_a_hint(tmp_path: Path) -> None:
    write_stage(tmp_path / "stage")
    with small_disk(tmp_path / "disk", "8m") as remount:
        place = new_repository(tmp_path / "disk" / "storage")
        remount("ro")
        with pytest.raises(StorageError, match="Read-only") as caught:
            run(place, tmp_path / "stage")
        assert "read-only" in caught.value.hint
        with pytest.raises(StorageError, match="Read-only"):
            create(DirectoryStore(str(tmp_path / "disk" / "other")), publishing.all_keys(), NOW)
        remount("rw")
        assert run(place, tmp_path / "stage") == 2
