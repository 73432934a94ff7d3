"""A published repository and a node that starts releases of it, for tests; real formats, a fake Julia."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import publishing
import releases
from headstart.cvmfs.chunks import ChunkSizes
from headstart.ingest import Recipe
from headstart.microarchitecture import LEVELS
from headstart.names import Fqrn, Sha256
from headstart.release import Release
from headstart.releasestatement import statement_path
from headstart.repository import Channel, Means, publish
from headstart.stage import open_stage

FQRN = publishing.FQRN
MEANS = Means(recipe=Recipe(sizes=ChunkSizes(minimum=20_000, average=40_000, maximum=80_000)))
"""Chunks so small that a test's images have several."""
V3_FLAGS = " ".join(sorted(LEVELS["x86-64-v3"]))
V1_FLAGS = " ".join(sorted(LEVELS["x86-64"]))


def _namespaces_work() -> bool:
    done = subprocess.run(
        ["unshare", "-m", "true"] if os.geteuid() == 0 else ["unshare", "-Um", "true"], check=False
    )
    return done.returncode == 0


needs_namespace = pytest.mark.skipif(not _namespaces_work(), reason="no mount namespaces are allowed here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A repository with one release of the stack ``jets`` on channel ``prod``."""

    storage: Path
    key: Path
    release: Release
    stage: Path

    @property
    def fqrn(self) -> Fqrn:
        return self.release.fqrn

    def publish(self, stage: Path, channel: Channel | None = publishing.PROD) -> None:
        """Publish another stage."""
        place = publishing.Place(self.storage)
        publish(place.target, open_stage(str(stage)), channel, datetime.now(UTC), MEANS)


def make_site(root: Path, *, image_size: int = 400_000) -> Site:
    """Publish a release with two images."""
    now = datetime.now(UTC)
    place = publishing.new_repository(root / "storage", now=now)
    made = publishing.write_stage(
        root / "stage", extra={"depot/large": releases.image_content("depot", image_size)}
    )
    publish(place.target, open_stage(str(root / "stage")), publishing.PROD, now, MEANS)
    keys = publishing.copy_keys(root / "keys")
    return Site(
        storage=root / "storage", key=keys / f"{publishing.FQRN}.pub", release=made, stage=root / "stage"
    )


def mount_channels(site: Site, mount: Path) -> None:
    """Write the channels' files, as a mount would show them, beside a copy of the stage."""
    repository = publishing.Place(site.storage).open(datetime.now(UTC))
    record = site.stage / f"stacks/{site.release.stack}/{site.release.id}/release.json"
    said = statement_path(site.release.stack, Sha256.of(record.read_bytes())).encode()
    for path in (b"/channels/root.json", b"/channels/jets/prod.json", said):
        content = repository.content(path, limit=1 << 16)
        assert content is not None
        place = mount / path.decode()[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Where ``headstart`` runs."""

    root: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def flags(self, flags: str = V3_FLAGS) -> str:
        """Make this CPU offer these features."""
        place = self.root / "cpuinfo"
        place.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        return str(place)

    def environment(self) -> dict[str, str]:
        place = self.root / "cpuinfo"
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "HEADSTART_CACHE": str(self.cache),
            "HEADSTART_CPUINFO": str(place) if place.exists() else self.flags(),
            **self.env,
        }

    def headstart(
        self, *words: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one command."""
        return subprocess.run(
            (sys.executable, "-m", "headstart", *words),
            env={**self.environment(), **(env or {})},
            capture_output=True,
            check=False,
            timeout=120,
            cwd=self.root,
        )

    def run(
        self,
        source: str | Path,
        site: Site,
        *words: str,
        reference: str = "jets",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """``headstart run`` with the site's key."""
        return self.headstart("run", source, reference, "--key", site.key, "--", *words, env=env)

    def files(self) -> set[Path]:
        """Every file under the cache's visible tree and file store."""
        return {
            path
            for part in ("root", "files", "work")
            for path in (self.cache / str(FQRN) / part).rglob("*")
            if path.is_file() and not path.is_symlink()
        }


Fault = Callable[[str, bytes], bytes | int | None]
"""What a server does with a path and its content: sends other bytes, a status, or nothing ever (None)."""


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, *words: object, site: "FaultyServer", **rest: object) -> None:
        self.site = site
        super().__init__(*words, **rest)  # type: ignore[arg-type]  # socketserver's own

    def do_GET(self) -> None:
        path = self.path.removeprefix(f"/cvmfs/{FQRN}/")
        self.site.asked.append(path)
        place = self.site.storage / path
        if not place.is_file():
            self.send_error(404)
            return
        content = place.read_bytes()
        answer = self.site.fault(path, content)
        if answer is None:
            self.site.stop.wait(30)
            self.close_connection = True
            return
        if isinstance(answer, int):
            self.send_response(answer)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) if self.site.promise_whole else len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        if self.site.promise_whole and len(answer) < len(content):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@dataclass(slots=True, kw_only=True)
class FaultyServer:
    """A web server of a repository that can be made to misbehave."""

    storage: Path
    fault: Fault = lambda _path, content: content
    promise_whole: bool = False
    """Whether Content-Length is of the whole file even when less is sent."""
    asked: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    url: str = ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # As many as a test starts at once.
    request_queue_size = 256


@contextmanager
def serving(storage: Path) -> Iterator[FaultyServer]:
    """Serve a repository on loopback."""
    site = FaultyServer(storage=storage)
    server = _Server(("127.0.0.1", 0), partial(_Handler, site=site))
    site.url = f"http://127.0.0.1:{server.server_address[1]}/cvmfs/{FQRN}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


def assert_refused(done: "subprocess.CompletedProcess[bytes]", code: int, *words: str) -> None:
    assert done.returncode == code, (done.returncode, done.stderr.decode())
    assert done.stdout == b""
    last = done.stderr.decode().rstrip("\n").split("\n")[-1]
    assert last.startswith("headstart: "), done.stderr.decode()
    for word in words:
        assert word in last


def without_namespaces(tmp_path: Path) -> list[str]:
    """Words before a command that take namespaces away from it, bubblewrap included."""
    if shutil.which("setpriv") is None or shutil.which("unshare") is None:
        pytest.skip("there is no setpriv or unshare here")
    # In a user namespace with no more of them allowed below it, and with no capabilities over it.
    take = 'echo 0 >/proc/sys/user/max_user_namespaces; echo 0 >/proc/sys/user/max_mnt_namespaces; exec "$@"'
    words = ["unshare", "-Ur", "sh", "-c", take, "sh", "setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    probe = subprocess.run([*words, "unshare", "-Um", "true"], capture_output=True, check=False)
    started = subprocess.run([*words, "true"], capture_output=True, check=False)
    if started.returncode != 0 or probe.returncode == 0:
        pytest.skip("namespaces cannot be taken away here")
    return words
