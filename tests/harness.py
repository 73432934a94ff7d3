"""A small grid on one machine: nginx as stratum, Squid as proxy, nodes that are namespaces of their own.

All of these are the real programs. A test that needs one that is not here is skipped, and says which.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headstart.names import Fqrn

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_WAIT = 30.0


def program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A program that listens."""

    url: str
    """Of a stratum: the repository's; of a proxy: its own."""
    log: Path
    process: "subprocess.Popen[bytes]"

    def lines(self) -> list[list[str]]:
        """What was asked of it: status, bytes sent, path; in words."""
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def sent(self) -> int:
        """Bytes that left it, headers included."""
        return sum(int(line[1]) for line in self.lines())


@contextmanager
def _running(
    argv: Sequence[str], address: tuple[str, int], inside: Sequence[str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server until it listens, and end it afterwards."""
    with subprocess.Popen([*inside, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            probe = f"import socket; socket.create_connection({address!r}, 5).close()"
            until = time.monotonic() + _WAIT
            while subprocess.run(
                [*inside, sys.executable, "-I", "-S", "-c", probe], capture_output=True, check=False
            ).returncode:
                if process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"{argv[0]} does not listen on {address}")
                time.sleep(0.1)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


NGINX = """\
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    log_format short '$status $bytes_sent $uri';
    access_log {folder}/access.log short;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        listen {host}:{port};
        # As a Stratum 1: objects never change, what is signed may at any moment.
        etag off; if_modified_since off; default_type application/octet-stream;
        location /cvmfs/{fqrn}/ {{ alias {storage}/; add_header Cache-Control "max-age=61"; }}
        location /cvmfs/{fqrn}/data/ {{ alias {storage}/data/; add_header Cache-Control "max-age=259200"; }}
    }}
}}
"""


@contextmanager
def nginx(
    storage: Path, fqrn: Fqrn, *, host: str = "127.0.0.1", inside: Sequence[str] = ()
) -> Iterator[Server]:
    """A stratum.

    Args:
        storage: the repository's directory.
        fqrn: its name.
        host: address to listen on.
        inside: words before a command that put it into a network namespace.
    """
    port = free_port() if host == "127.0.0.1" else 8000
    with tempfile.TemporaryDirectory(prefix="headstart-nginx-") as name:
        folder = Path(name)
        text = NGINX.format(folder=folder, host=host, port=port, fqrn=fqrn, storage=storage)
        (folder / "nginx.conf").write_text(text)
        argv = [program("nginx"), "-e", str(folder / "error.log"), "-p", name, "-c", str(folder / "nginx.conf")]
        with _running(argv, (host, port), inside) as process:
            yield Server(url=f"http://{host}:{port}/cvmfs/{fqrn}", log=folder / "access.log", process=process)


@contextmanager
def squid(*, host: str = "127.0.0.1", inside: Sequence[str] = ()) -> Iterator[Server]:
    """A site's proxy, as CernVM-FS's documentation sets it up, but with its cache in memory."""
    port = free_port() if host == "127.0.0.1" else 3128
    with tempfile.TemporaryDirectory(prefix="headstart-squid-") as name:
        folder = Path(name)
        # Started by root it becomes another user, who could not write among the files of the tests.
        folder.chmod(0o777)
        (folder / "squid.conf").write_text(
            f"http_port {host}:{port}\nhttp_access allow all\n"
            "cache_mem 128 MB\nmaximum_object_size_in_memory 64 MB\ncollapsed_forwarding on\n"
            f"logformat short %>Hs %<st %ru\naccess_log stdio:{folder}/access.log logformat=short\n"
            f"cache_log {folder}/cache.log\npid_filename {folder}/pid\ncoredump_dir {folder}\n"
            "shutdown_lifetime 0 seconds\nconnect_timeout 2 seconds\nforward_timeout 4 seconds\n"
            "connect_retries 0\nvisible_hostname test\nnetdb_filename none\n"
        )
        argv = [program("squid"), "-N", "-f", str(folder / "squid.conf")]
        with _running(argv, (host, port), inside) as process:
            yield Server(url=f"http://{host}:{port}", log=folder / "access.log", process=process)


def connecting(url: str, *, inside: Sequence[str]) -> float:
    """Seconds that a connection to a server takes."""
    parts = urlsplit(url)
    place = parts.hostname, parts.port
    code = (
        "import socket, time; start = time.monotonic();"
        f" socket.create_connection({place!r}).close(); print(time.monotonic() - start)"
    )
    done = subprocess.run([*inside, sys.executable, "-I", "-c", code], capture_output=True, check=True)
    return float(done.stdout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A network of its own: servers in one place, and nodes that reach it by a wire each."""

    hub: Sequence[str]
    """Words before a command that runs where the servers are, at 10.66.0.1 and 10.66.0.2."""
    nodes: Sequence[Sequence[str]]
    """The same for each node."""
    devices: Sequence[str]
    """Of each node, its end of the wire."""

    def shape(self, *words: str) -> bool:
        """Give every wire a queue (``tc qdisc add dev DEVICE root ...``); False where there is none such."""
        for node, device in zip(self.nodes, self.devices, strict=True):
            argv = [*node, program("tc"), "qdisc", "replace", "dev", device, "root", *words]
            if subprocess.run(argv, capture_output=True, check=False).returncode:
                return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Long:
    """What is wrong with a wire."""

    seconds: float
    """One way."""
    jitter: float
    loss: float
    """Share of frames that never arrive."""


@contextmanager
def _long_wires(pairs: Sequence[tuple[str, str]], how: Long) -> Iterator[None]:
    """Devices that are joined in pairs, until the end."""
    words = [str(value) for value in (how.seconds, how.jitter, how.loss)]
    argv = [sys.executable, str(Path(__file__).with_name("longwire.py")), *words]
    argv += [name for pair in pairs for name in pair]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            if not process.stdout.readline():
                pytest.skip(f"there are no TAP devices here: {process.stderr.read().decode()[-200:]}")
            yield
        finally:
            process.stdin.close()


@contextmanager
def grid(count: int, long: Long | None = None) -> Iterator[Grid]:
    """Make a network with that many nodes; it goes away with the last process in it.

    Args:
        count: how many nodes.
        long: what is wrong with each wire between a node and the bridge, if anything is.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces that are connected")
    ip = program("ip")
    tag = os.urandom(3).hex()
    names = [f"hs{tag}h", *(f"hs{tag}n{number}" for number in range(count))]
    inside = {name: (ip, "netns", "exec", name) for name in names}
    hub = names[0]

    def run(*words: str) -> None:
        done = subprocess.run(words, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(
                f"network namespaces cannot be made here: {' '.join(words)}: {done.stderr.decode()[:200]}"
            )

    wires = [(f"{tag}n{number}", f"{tag}h{number}") for number in range(count)]
    with ExitStack() as opened:
        if long is not None:
            opened.enter_context(_long_wires(wires, long))
        for name in names:
            run(ip, "netns", "add", name)
            opened.callback(subprocess.run, [ip, "netns", "delete", name], capture_output=True, check=False)
            run(*inside[name], ip, "link", "set", "lo", "up")
        run(*inside[hub], ip, "link", "add", "bridge0", "type", "bridge")
        for last in (1, 2):
            run(*inside[hub], ip, "address", "add", f"10.66.0.{last}/16", "dev", "bridge0")
        run(*inside[hub], ip, "link", "set", "bridge0", "up")
        for number, (name, (here, there)) in enumerate(zip(names[1:], wires, strict=True)):
            if long is None:
                run(ip, "link", "add", here, "netns", name, "type", "veth", "peer", "name", there, "netns", hub)
            else:
                run(ip, "link", "set", here, "netns", name)
                run(ip, "link", "set", there, "netns", hub)
            run(*inside[hub], ip, "link", "set", there, "master", "bridge0", "up")
            run(*inside[name], ip, "address", "add", f"10.66.1.{number + 1}/16", "dev", here)
            run(*inside[name], ip, "link", "set", here, "up")
        yield Grid(
            hub=inside[hub],
            nodes=[inside[name] for name in names[1:]],
            devices=[here for here, _ in wires],
        )
