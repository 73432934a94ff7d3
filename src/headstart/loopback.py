"""A small web server on this machine's loopback address, for the demo and the tests; never for production.

It serves a repository's storage below ``/cvmfs/<name>/`` as a stratum does, and counts what it sends.
"""

import contextlib
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import IO, Self

from headstart.names import Fqrn


class _Handler(SimpleHTTPRequestHandler):
    """Plain GET and HEAD with keep-alive, and no talk."""

    protocol_version = "HTTP/1.1"
    # Headers and body leave in one packet each: without this the kernel waits 40 ms for the second.
    disable_nagle_algorithm = True

    def __init__(self, *arguments: object, server_state: "LoopbackServer", directory: str) -> None:
        self._state = server_state
        super().__init__(*arguments, directory=directory)  # type: ignore[arg-type]  # socketserver's own three

    def translate_path(self, path: str) -> str:
        prefix = f"/cvmfs/{self._state.fqrn}/"
        return super().translate_path(path.removeprefix(prefix) if path.startswith(prefix) else "/.no-such")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def copyfile(self, source: IO[bytes], _: object) -> None:  # type: ignore[override]  # it reads files only
        """Send a file, from kernel to kernel, and count it.

        Counted first: who has read the last byte may ask for the sum before this thread goes on.
        """
        self._state.add(os.fstat(source.fileno()).st_size)
        with contextlib.suppress(ConnectionError):  # who asked has gone
            self.connection.sendfile(source)


class LoopbackServer:
    """Serve one repository while a ``with`` block lasts.

    Args:
        storage: the repository's directory.
        fqrn: its name, part of the URL.
    """

    def __init__(self, storage: str, fqrn: Fqrn) -> None:
        self.fqrn = fqrn
        self._sent = 0
        self._lock = threading.Lock()
        handler = partial(_Handler, server_state=self, directory=storage)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """What to give ``headstart run`` as the source."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/cvmfs/{self.fqrn}"

    @property
    def sent(self) -> int:
        """Bytes of content sent since the start."""
        with self._lock:
            return self._sent

    def add(self, size: int) -> None:
        """Count bytes that were sent."""
        with self._lock:
            self._sent += size

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
