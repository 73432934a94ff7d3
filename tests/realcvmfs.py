"""The stock CVMFS tools over a repository: checker, Stratum 1 and client, where the machine has them.

``HEADSTART_TEST_CVMFS`` is ``1`` where they are on the path, or the prefix that they were installed to. The
client needs root and ``/dev/fuse``.
"""

import hashlib
import os
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headstart.loopback import LoopbackServer
from headstart.names import Fqrn

VARIABLE = "HEADSTART_TEST_CVMFS"
_SHOWN = ("user.", "security.capability")


def tools_environment() -> dict[str, str]:
    """What the tools run with; skips the test where there are none."""
    where = os.environ.get(VARIABLE)
    if not where:
        pytest.skip(f"the stock CVMFS tools are asked for with {VARIABLE}=1 or {VARIABLE}=PREFIX")
    env = dict(os.environ, LC_ALL="C")
    if where != "1":
        env["PATH"] = f"{where}/bin:{env['PATH']}"
        env["LD_LIBRARY_PATH"] = env["CVMFS_LIBRARY_PATH"] = f"{where}/lib"
    for tool in ("cvmfs_swissknife", "cvmfs2"):
        assert shutil.which(tool, path=env["PATH"]), f"{VARIABLE}={where}, and there is no {tool}"
    return env


@dataclass(frozen=True)
class Tools:
    """The tools over one repository and its replica."""

    env: dict[str, str]
    root: Path
    """A directory of the test's own."""
    storage: Path
    key: Path
    """The master's public half."""
    fqrn: Fqrn
    server: LoopbackServer
    mounts: Path
    """Another one, whose name is short: the client's sockets have at most 107 bytes."""
    replica: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "replica", self.root / "replica")
        (self.root / "temporary").mkdir()
        for number in range(256):
            (self.replica / "data" / f"{number:02x}").mkdir(parents=True)
        (self.replica / "data" / "txn").mkdir()

    def swissknife(self, *words: object) -> str:
        """Run a command that must succeed; what it prints."""
        command = ["cvmfs_swissknife", *map(str, words)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=300, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{said}"
        return said

    def check(self, *more: object) -> None:
        """Structure and the presence of each object, from the disk and as a client comes; then every byte."""
        temporary = self.root / "temporary"
        words = ("-c", "-t", temporary, "-l", 2, *more)
        local = self.swissknife("check", "-r", self.storage, *words)
        remote = self.swissknife("check", "-r", self.server.url, "-k", self.key, "-N", self.fqrn, *words)
        for said in (local, remote):
            assert "no problems found" in said, said
            assert "warning" not in said.lower(), said
        self.swissknife("scrub", "-r", self.storage / "data")

    def pull(self) -> None:
        """Replicate as a Stratum 1, the first time or again, and check the replica."""
        again = (self.replica / ".cvmfspublished").exists()
        chksum = self.root / "replica.chksum"
        temporary = self.root / "temporary"
        spooler = f"local,{self.replica}/data/txn,{self.replica}"
        self.swissknife(
            *("pull", "-m", self.fqrn, "-u", self.server.url, "-w", f"file://{self.replica}", "-r", spooler),
            *("-x", temporary, "-k", self.key, "-n", 4, "-t", 5, "-a", 1, "-R", chksum, "-l", 2),
            *(("-p",) if again else ("-p", "-i")),
        )
        published = (self.storage / ".cvmfspublished").read_bytes()
        assert (self.replica / ".cvmfspublished").read_bytes() == published
        self.swissknife("check", "-r", self.replica, "-c", "-t", temporary, "-R", chksum)
        self.swissknife("scrub", "-r", self.replica / "data")

    @contextmanager
    def mount(self, name: str, **options: str) -> Iterator["Mount"]:
        """The stock client on a mountpoint of its own, with a cache of its own."""
        place = self.mounts / name
        for part in ("cache", "mnt"):
            (place / part).mkdir(parents=True)
        settings = {
            "CVMFS_SERVER_URL": self.server.url,
            "CVMFS_HTTP_PROXY": "DIRECT",
            "CVMFS_PUBLIC_KEY": str(self.key),
            "CVMFS_CACHE_BASE": f"{place}/cache",
            "CVMFS_RELOAD_SOCKETS": f"{place}/cache",
            "CVMFS_SHARED_CACHE": "no",
            "CVMFS_CLAIM_OWNERSHIP": "no",
            "CVMFS_HIDE_MAGIC_XATTRS": "yes",
            "CVMFS_SEND_INFO_HEADER": "no",
            "CVMFS_MAX_RETRIES": "0",
            "CVMFS_USYSLOG": f"{place}/log",
            **options,
        }
        (place / "config").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        words = ["cvmfs2", "-o", f"config={place}/config", str(self.fqrn), str(place / "mnt")]
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=60, check=False)
        log = place / "log"
        said = done.stdout + done.stderr + (log.read_text() if log.exists() else "")
        assert done.returncode == 0, f"the client did not mount:\n{said}"
        try:
            yield Mount(place / "mnt", place / "cache")
        finally:
            subprocess.run(["umount", "-l", str(place / "mnt")], check=False)


@dataclass(frozen=True)
class Mount:
    """A mounted repository."""

    root: Path
    cache: Path

    def remount(self) -> str:
        """Let the client look for a newer revision now; what it says to that."""
        with socket.socket(socket.AF_UNIX) as talk:
            talk.settimeout(60)
            talk.connect(str(next(self.cache.rglob("cvmfs_io.*"))))
            talk.sendall(b"remount sync")
            return talk.recv(4096).decode()

    @property
    def revision(self) -> int:
        """Of what is mounted."""
        return int(os.getxattr(self.root, "user.revision"))

    def wait_for(self, revision: int) -> None:
        """Remount until the client shows a revision."""
        said = ""
        for _ in range(40):
            said = self.remount()
            if self.revision == revision:
                return
            time.sleep(0.25)
        raise AssertionError(f"the client stays at revision {self.revision} and not {revision}: {said}")


def look(root: Path, *, nanoseconds: bool = False) -> dict[bytes, tuple[object, ...]]:
    """All that a tree shows to programs, by path: kind, mode, owner, time, content, links, attributes."""
    unit = 1 if nanoseconds else 1_000_000_000
    found: dict[bytes, tuple[object, ...]] = {}
    top = os.fsencode(root)
    for directory, _, _ in os.walk(top):
        with os.scandir(directory) as entries:
            here = sorted(entries, key=lambda entry: entry.name)
        same: dict[int, list[bytes]] = {}
        for entry in here:
            same.setdefault(entry.inode(), []).append(entry.name)
        for entry in here:
            # By its path: a listing may know less.
            said = os.lstat(entry.path)
            names = tuple(same[entry.inode()]) if not entry.is_dir(follow_symlinks=False) else ()
            found[entry.path[len(top) :]] = (
                oct(said.st_mode),
                (said.st_uid, said.st_gid),
                said.st_mtime_ns // unit * unit,
                said.st_rdev if stat.S_ISCHR(said.st_mode) or stat.S_ISBLK(said.st_mode) else 0,
                *_content(entry.path, said),
                names,
                _attributes(entry.path, said),
            )
    return found


def _content(path: bytes, said: os.stat_result) -> tuple[object, ...]:
    if stat.S_ISLNK(said.st_mode):
        target = os.readlink(path)
        assert said.st_size == len(target)
        # What the client makes of a variant link where the variable is not set.
        return (re.sub(rb"\$\([^:)]*:-([^)]*)\)", rb"\1", target),)
    if stat.S_ISREG(said.st_mode):
        with open(path, "rb") as file:
            return said.st_size, hashlib.file_digest(file, "sha256").hexdigest()
    return (0, "")


def _attributes(path: bytes, said: os.stat_result) -> tuple[tuple[str, bytes], ...]:
    if stat.S_ISLNK(said.st_mode):
        return ()
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False)) for name in names if name.startswith(_SHOWN)
    )
