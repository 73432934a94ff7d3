"""A web server for repositories, to try things out with; not for production, where ``docs/serving.md`` helps.

It answers GET and HEAD for what the format says a client may ask for, by the name of the file, and nothing
else exists: no listing, no staging area, no way out of a storage. Headers are those of the real servers (format
section 18): what may change is kept by caches for 61 seconds, because Squid does not keep what is good for 60;
objects, which never change, for three days; no validators and no dates of change, which proxies got wrong.
"""

import os
import re
import socket
import stat
import threading
from collections.abc import Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, NamedTuple, Self
from urllib.parse import unquote

from headstart.cvmfs.objectkeys import key_at
from headstart.errors import ConfigurationError
from headstart.names import Fqrn

SHORT: Final = 61
"""Seconds that caches keep what may change."""
LONG: Final = 259_200
"""Seconds that caches keep an object."""
_MUTABLE: Final = frozenset(
    {
        ".cvmfspublished",
        ".cvmfswhitelist",
        ".cvmfswhitelist.pkcs7",
        ".cvmfsreflog",
        ".cvmfs_master_replica",
        ".cvmfs_last_snapshot",
        ".cvmfs_is_snapshotting",
        ".cvmfs_status.json",
    }
)
_ALTERNATIVE: Final = re.compile(r"\.cvmfsalt-[0-9a-f]{40}(-[a-z0-9]+)?[CHXM]")
_PLACE: Final = re.compile(r"/cvmfs/([^/]+)/(.+)")
_PIECE: Final = 1 << 18
_IDLE: Final = 60.0
"""Seconds after which a connection that says nothing is closed."""


class Answer(NamedTuple):
    """How a file is to be served."""

    path: str
    """Below the storage."""
    kind: str
    """Its Content-Type."""
    seconds: int
    """That caches may keep it."""


def answer_for(path: str) -> Answer | None:
    """What a path below a repository is; None where a client has no business there."""
    if path == ".cvmfs_status.json":
        return Answer(path, "application/json", SHORT)
    if path in _MUTABLE:
        return Answer(path, "application/x-cvmfs", SHORT)
    if _ALTERNATIVE.fullmatch(path) is not None:
        return Answer(path, "application/x-cvmfs", SHORT)
    if key_at(path) is not None:
        return Answer(path, "application/octet-stream", LONG)
    return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in one packet each: without this the kernel waits 40 ms for the second.
    disable_nagle_algorithm = True
    timeout = _IDLE
    server_version = "headstart"
    sys_version = ""

    def __init__(self, *words: object, storages: Mapping[Fqrn, str]) -> None:
        self._storages = storages
        super().__init__(*words)  # type: ignore[arg-type]  # socketserver's own three

    def do_GET(self) -> None:
        """Answer with a file."""
        self._serve(body=True)

    def do_HEAD(self) -> None:
        """The same without it."""
        self._serve(body=False)

    def _serve(self, *, body: bool) -> None:
        answer, place = self._find()
        if answer is None:
            self._refuse()
            return
        try:
            # O_NONBLOCK: a fifo in the place of a file must not keep a thread waiting.
            file = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            self._refuse()
            return
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                self._refuse()
                return
            self.send_response(200)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(status.st_size))
            self.send_header("Cache-Control", f"max-age={answer.seconds}")
            self.end_headers()
            if body and status.st_size:
                with open(file, "rb", closefd=False) as stream:
                    self.connection.sendfile(stream)
        finally:
            os.close(file)

    def _find(self) -> tuple[Answer | None, str]:
        found = _PLACE.fullmatch(unquote(self.path.partition("?")[0]))
        if found is None:
            return None, ""
        try:
            storage = self._storages.get(Fqrn(found[1]))
        except ConfigurationError:
            return None, ""
        answer = answer_for(found[2])
        return (None, "") if answer is None or storage is None else (answer, os.path.join(storage, answer.path))

    def _refuse(self) -> None:
        """There is nothing, and there may be soon."""
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A whole batch of nodes may come at once.
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no error."""


class WebServer:
    """Serve some repositories while a ``with`` block lasts.

    Args:
        storages: directories, by the names of the repositories in them.
        host: address to listen on.
        port: the same; 0 for any that is free.

    Raises:
        ConfigurationError: nobody can listen there.
    """

    def __init__(self, storages: Mapping[Fqrn, str], *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._storages = dict(storages)
        kind = type("_BoundServer", (_Server,), {"address_family": _family(host, port)})
        try:
            self._server = kind((host, port), partial(_Handler, storages=self._storages))
        except OSError as error:
            raise _cannot(host, port, error) from error
        self._host = host
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        """Such as ``http://127.0.0.1:8000``."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.server_address[1]}"

    @property
    def urls(self) -> Mapping[Fqrn, str]:
        """Where each repository is."""
        return {fqrn: f"{self.address}/cvmfs/{fqrn}" for fqrn in self._storages}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _family(host: str, port: int) -> socket.AddressFamily:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    except OSError as error:
        raise _cannot(host, port, error) from error


def _cannot(host: str, port: int, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"cannot listen on {host} port {port}: {error.strerror or error}",
        hint="choose another --host or --port",
    )
