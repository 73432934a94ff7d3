"""What publishers that meet, stop and die must make of any S3 server, a light one and a real one."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import bucketpublisher
import publishing
import s3server
from headstart.cli import main
from headstart.cvmfs.objects import Algorithm, Kind, ObjectName
from headstart.errors import LockedError, StorageError
from headstart.lease import LOCK, Lock
from headstart.repository import Repository, create
from headstart.repository.publish_tree import Wanted, publish_tree
from headstart.s3place import S3Keys, S3Place
from headstart.s3store import S3Store
from publishing import content_of

PUBLISHER = Path(__file__).parent / "bucketpublisher.py"


class Site:
    """A repository in a bucket, and who publishes to it."""

    def __init__(self, server: s3server.Server, folder: Path) -> None:
        self.server = server
        self.place = server.place()
        self.store = S3Store(self.place, server.access())
        self.folder = folder
        self.keys = folder / "keys"
        if not self.keys.exists():
            publishing.copy_keys(self.keys)
        create(self.store, publishing.all_keys(), publishing.later())

    def tree(self, name: str, count: int = 3) -> Path:
        tree = self.folder / name
        tree.mkdir()
        for number in range(count):
            (tree / f"file{number}").write_text(f"{name} {number}")
        return tree

    def publisher(self, tree: Path, *, lease: float = 60.0, pause: bool = False) -> "subprocess.Popen[str]":
        """One that is ready, and waits for a line."""
        keys = self.server.keys
        words = (self.server.url, keys.access, keys.secret, self.place.name, self.keys, tree, lease)
        process = subprocess.Popen(
            [sys.executable, str(PUBLISHER), *map(str, words), str(int(pause))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def state(self) -> dict[bytes, Any]:
        """All files of the present state, verified."""
        repository = Repository.open(self.store, publishing.keys(), publishing.later())
        return {path: entry for path, entry in content_of(repository).items() if isinstance(entry, bytes)}

    def complaints(self) -> int:
        key = f"{self.keys}/julia.example.org.pub"
        return main(
            ["repo", "check", self.place.name, "--deep", "--key", key, "--s3-config", str(self.config())]
        )

    def config(self) -> Path:
        """The file of the real server."""
        host, port = self.server.url.removeprefix("http://").split(":")
        path = self.folder / "s3.conf"
        path.write_text(
            f"CVMFS_S3_HOST={host}\nCVMFS_S3_PORT={port}\nCVMFS_S3_BUCKET={self.place.bucket}\n"
            f"CVMFS_S3_ACCESS_KEY={self.server.keys.access}\nCVMFS_S3_SECRET_KEY={self.server.keys.secret}\n"
            "CVMFS_S3_DNS_BUCKETS=false\n"
        )
        return path

    @property
    def url(self) -> str:
        """Where a client finds it."""
        return f"{self.server.url}/{self.place.bucket}/{self.place.prefix}"


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def of_two_at_once_one_wins(site: Site) -> None:
    """Both reach for the lock at the same moment; who has it waits until the other has ended."""
    names = ("one", "other")
    both = {name: site.publisher(site.tree(name), pause=True) for name in names}
    for process in both.values():
        go(process)
    said = {name: process.stdout.readline() for name, process in both.items() if process.stdout is not None}
    winner, loser = sorted(names, key=lambda name: said[name] != "paused\n")
    assert said[winner] == "paused\n"
    assert "somebody else" in said[loser]
    assert end(both[loser])[0] == LockedError.exit_code
    both[winner].send_signal(signal.SIGCONT)
    assert end(both[winner])[0] == 0
    assert site.state()[b"/data/file1"] == f"{winner} 1".encode()
    assert site.complaints() == 0


def who_was_stopped_for_too_long_changes_nothing(site: Site) -> None:
    late = site.publisher(site.tree("late"), lease=1.0, pause=True)
    go(late)
    assert late.stdout is not None
    assert late.stdout.readline() == "paused\n"
    # It looks alive until its time runs out; then somebody elsewhere could not know better. Here it is seen to
    # live, so only the time counts.
    tree = site.tree("prompt")
    code, said = -1, ""
    for _ in range(30):
        process = site.publisher(tree)
        go(process)
        code, said = end(process)
        if code == 0:
            break
        assert code == LockedError.exit_code, said
    assert code == 0, said
    late.send_signal(signal.SIGCONT)
    code, said = end(late)
    assert (code, "of this publication is visible" in said or "meanwhile" in said) == (
        LockedError.exit_code,
        True,
    )
    assert site.state()[b"/data/file1"] == b"prompt 1"
    assert Lock.from_bytes(site.store.read(LOCK, limit=9999)).holder is None


def killed_before_any_write_the_old_or_the_new_state_verifies(site: Site, numbers: Iterable[int]) -> None:
    outcomes = set()
    before = site.state()
    for number in numbers:
        name = f"tree{number}"
        tree = site.tree(name)
        killed = _killed_before_write(site, tree, number)
        state = site.state()
        new = state.get(b"/data/file1") == f"{name} 1".encode()
        assert new or state == before
        outcomes.add((killed, new))
        _publish(site, tree)
        before = site.state()
        assert before[b"/data/file1"] == f"{name} 1".encode()
    assert (True, False) in outcomes
    assert (False, True) in outcomes
    assert site.complaints() == 0


def _publish(site: Site, tree: Path) -> None:
    store = S3Store(site.place, site.server.access(connections=4))
    publish_tree((store, publishing.keys()), Wanted(directory=str(tree), at=b"/data"), publishing.later())


def _killed_before_write(site: Site, tree: Path, number: int) -> bool:
    """Publish in a process that kills itself before its n-th write; whether it came so far."""
    publishing.keys()
    child = os.fork()
    if child == 0:
        try:
            bucketpublisher.interrupt(number, pause=False)
            _publish(site, tree)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def a_client_reads_it_over_http(site: Site) -> None:
    process = site.publisher(site.tree("tree"))
    go(process)
    assert end(process)[0] == 0
    key = f"{site.keys}/julia.example.org.pub"
    for words in (("list",), ("verify", "--deep")):
        command = (sys.executable, "-m", "headstart", *words, site.url, "--key", key)
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "julia.example.org, revision 2" in done.stdout
    with urllib.request.urlopen(f"{site.url}/.cvmfspublished") as answer:  # noqa: S310 - of the test's own server
        headers = {name.lower(): text for name, text in answer.headers.items()}
        assert answer.read() == site.store.read(".cvmfspublished", limit=9999)
    assert headers["content-type"] == "application/x-cvmfs"
    assert headers["cache-control"] == "max-age=61"


def changed_bytes_are_refused(site: Site) -> None:
    """The checksum that goes with every upload is compared by the server."""
    name = ObjectName(digest=Algorithm.SHA1.digest(b"x"), kind=Kind.FILE)
    client = site.store.bucket._client

    def change(params: dict[str, Any], **_: object) -> None:
        params["body"] = b"y"

    client.meta.events.register("before-call.s3.PutObject", change)
    with pytest.raises(StorageError, match="BadDigest"):
        site.store.bucket.write(name.path, b"x")
    assert not site.store.has(name.path)


def wrong_credentials_are_told_apart(site: Site) -> None:
    for access, secret, said in (
        ("nobody", site.server.keys.secret, "does not know the access key"),
        (site.server.keys.access, "wrong", "does not take the secret key"),
    ):
        other = s3server.Server(url=site.server.url, keys=S3Keys(access=access, secret=secret))
        store = S3Store(site.place, other.access())
        with pytest.raises(StorageError, match=said):
            store.is_empty()
        with pytest.raises(StorageError, match=said):
            store.has(".cvmfspublished")
    nowhere = S3Store(S3Place(bucket="not-there", prefix="x"), site.server.access())
    with pytest.raises(StorageError, match="no bucket not-there"):
        nowhere.is_empty()
    with pytest.raises(StorageError, match="no bucket not-there"):
        nowhere.read("x", limit=1)
