"""Real Squids between a node and its servers: one dies, one was never there, one server is gone."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from headstart.failover import FailoverStratum, FileNotes, Ledger
from headstart.loopback import LoopbackServer
from headstart.names import Fqrn
from headstart.route import DIRECT, Patience, Route
from headstart.stratum import Stratum
from headstart.webstratum import HttpStratum

pytestmark = pytest.mark.slow

FQRN = Fqrn("julia.example.org")
PROGRAM = shutil.which("squid", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CONTENT = b"object" * 1000


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def squid() -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """A proxy: its address, its process, and its access log."""
    if PROGRAM is None:
        pytest.skip("squid is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="headstart-squid-") as name:
        # Started by root it becomes another user, who could not write among the files of the tests.
        os.chmod(name, 0o777)  # noqa: S103
        with _squid(Path(name), port) as (process, log):
            yield f"http://127.0.0.1:{port}", process, log


@contextmanager
def _squid(folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = folder / "access.log"
    (folder / "squid.conf").write_text(
        f"http_port 127.0.0.1:{port}\nhttp_access allow localhost\nhttp_access deny all\n"
        f"cache_mem 16 MB\ncache deny all\naccess_log stdio:{log}\ncache_log {folder}/cache.log\n"
        f"pid_filename {folder}/pid\ncoredump_dir {folder}\nshutdown_lifetime 0 seconds\n"
        "connect_timeout 1 seconds\nforward_timeout 2 seconds\nconnect_retries 0\nvisible_hostname test\n"
    )
    argv = [str(PROGRAM), "-N", "-f", str(folder / "squid.conf")]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(300):
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            else:
                pytest.fail("squid does not listen")
            yield process, log
        finally:
            process.kill()


def storage(root: Path) -> Path:
    (root / "data" / "ab").mkdir(parents=True)
    (root / "data" / "ab" / "cdef").write_bytes(CONTENT)
    return root


def stratum(route: Route, notes: Path, opened: ExitStack) -> FailoverStratum:
    def reach(server: str, proxy: str | None, timeout: float) -> Stratum:
        return opened.enter_context(HttpStratum(server, proxy=proxy, timeout=timeout))

    ledger = Ledger(FileNotes(str(notes)), time.monotonic, route.patience.remembered)
    return FailoverStratum(route, reach, ledger, draw=lambda _: 0, pause=time.sleep)


def requests(log: Path) -> int:
    return log.read_text().count("GET") if log.exists() else 0


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until it is so, or long enough."""
    for _ in range(200):
        if what():
            break
        time.sleep(0.05)


def test_proxies_and_servers_that_die_are_survived(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    patience = Patience(timeout=5, timeout_direct=5, retries=0)
    with (
        LoopbackServer(str(storage(tmp_path / "storage")), FQRN) as server,
        squid() as (first, process, first_log),
        squid() as (second, _, second_log),
        ExitStack() as opened,
    ):
        gone = server.url.replace(server.url.split("/")[2], nobody.removeprefix("http://"))
        route = Route(
            servers=(gone, server.url), proxies=((nobody, first), (second,), (DIRECT,)), patience=patience
        )
        notes = tmp_path / "cache" / "ways.json"
        reader = stratum(route, notes, opened)
        assert reader.fetch("data/ab/cdef", limit=10_000) == CONTENT
        # The dead server was seen through by what answered, and the dead proxy too: neither is asked again.
        assert next(reader.ways()) == (server.url, first)
        # Both were asked for the dead server, the first for the other as well; a proxy writes that down later.
        before = 2, 1
        wait_for(lambda: (requests(first_log), requests(second_log)) == before)
        assert reader.fetch("data/ab/cdef", limit=10_000, fresh=True) == CONTENT
        wait_for(lambda: requests(first_log) == before[0] + 1)
        assert (requests(first_log), requests(second_log)) == (before[0] + 1, before[1])
        process.kill()
        process.wait()
        # Another process of this node: it knows what the first one found out, and finds out the rest.
        other = stratum(route, notes, opened)
        assert next(other.ways()) == (server.url, first)
        assert other.fetch("data/ab/cdef", limit=10_000) == CONTENT
        assert next(other.ways()) == (server.url, second)
