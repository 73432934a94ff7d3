"""A proxy that lies: it stands between a node and a real server, and breaks what passes through it.

It is both kinds of proxy: a request for a path goes to the server behind it, as behind a load balancer; a
request for a whole address is forwarded there, as by a Squid.

    with FaultProxy.before("http://127.0.0.1:8000") as proxy:
        proxy.fault = Fault.FLIP
        ... proxy.url ...
"""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import StrEnum
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

PAGE = b"<html><head><title>Login</title></head><body>Please accept our terms of use.</body></html>\n"


class Fault(StrEnum):
    """What goes wrong with an answer."""

    NONE = "none"
    CUT = "cut"
    """Half of what was promised, then the end of the connection."""
    FLIP = "flip"
    """One bit of it is another one."""
    PAGE = "page"
    """A page of HTML in its place, and it is called a success."""
    ERROR = "error"
    """503."""
    HANG = "hang"
    """No answer at all, and no end of it."""
    RESET = "reset"
    """The connection is reset in the middle of it."""
    SLOW = "slow"
    """It comes, a byte at a time."""
    OLD = "old"
    """Yesterday's, where there is one, whatever is asked for."""


@dataclass(slots=True, kw_only=True)
class FaultProxy:
    """The proxy; its fields may be changed while it runs."""

    behind: str
    """Address of the server behind it: ``host:port``."""
    fault: Fault = Fault.NONE
    hits: Callable[[str], bool] = lambda _path: True
    """Which paths suffer from it."""
    yesterday: Path | None = None
    """A copy of the repository's directory, of before."""
    clock: float = 0.0
    """Seconds by which its dates are ahead."""
    asked: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    address: str = ""
    """``host:port`` that it listens on."""

    @classmethod
    @contextmanager
    def before(cls, server: str, *, host: str = "127.0.0.1") -> Iterator[Self]:
        """Run one in front of a server."""
        made = cls(behind=urlsplit(server).netloc)
        listener = ThreadingHTTPServer((host, 0), partial(_Handler, proxy=made))
        listener.daemon_threads = True
        made.address = f"{host}:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.stop.set()
            listener.shutdown()
            listener.server_close()
            thread.join()

    def of(self, server: str) -> str:
        """A server's address, by way of this proxy."""
        return urlsplit(server)._replace(netloc=self.address).geturl()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, *words: object, proxy: FaultProxy, **rest: object) -> None:
        self.proxy = proxy
        super().__init__(*words, **rest)  # type: ignore[arg-type]  # socketserver's own

    def do_GET(self) -> None:
        proxy = self.proxy
        parts = urlsplit(self.path)
        proxy.asked.append(parts.path)
        fault = proxy.fault if proxy.hits(parts.path) else Fault.NONE
        if fault is Fault.HANG:
            proxy.stop.wait(60)
            self.close_connection = True
            return
        status, content = self._ask(parts.netloc or proxy.behind, parts.path)
        if fault is Fault.ERROR:
            status, content = 503, b""
        elif fault is Fault.PAGE:
            status, content = 200, PAGE
        elif fault is Fault.OLD and proxy.yesterday is not None:
            # Below /cvmfs/NAME.
            old = proxy.yesterday / parts.path.split("/", 3)[3]
            status, content = (200, old.read_bytes()) if old.is_file() else (404, b"")
        elif fault is Fault.FLIP and content:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self._send(content, fault)

    def _send(self, content: bytes, fault: Fault) -> None:
        if fault in (Fault.CUT, Fault.RESET):
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            if fault is Fault.RESET:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
        elif fault is Fault.SLOW:
            for byte in content:
                if self.proxy.stop.wait(0.1):
                    break
                self.wfile.write(bytes([byte]))
        else:
            self.wfile.write(content)

    def _ask(self, server: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(server, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 502, b""
        finally:
            connection.close()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate((time.time() if timestamp is None else timestamp) + self.proxy.clock, usegmt=True)

    def handle(self) -> None:
        # Whoever has seen enough goes away in the middle of it.
        try:
            super().handle()
        except (ConnectionError, ValueError):
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass
