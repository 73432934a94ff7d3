"""Between a client and an S3 server: a proxy that refuses, forgets, hangs, or is another kind of server."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from s3server import Server


@dataclass(slots=True)
class Ask:
    """A request, which may be changed before it goes on."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """Given in the server's place."""

    status: int
    code: str = ""

    @property
    def body(self) -> bytes:
        text = f"<Code>{self.code}</Code><Message>told so</Message>"
        return f"<?xml version='1.0'?><Error>{text}</Error>".encode() if self.code else b""


class Swallow:
    """The request goes on, and its answer is lost."""


class Cut:
    """The request goes on, and its answer ends in the middle."""


class Hang:
    """Nothing goes on until the proxy ends."""


Verdict = Answer | Swallow | Cut | Hang | None
Rule = Callable[[Ask], Verdict]


@dataclass(slots=True)
class Proxy:
    """What has passed, and what is to become of the next."""

    server: Server
    rule: Rule
    seen: list[Ask] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def count(self, method: str, part: str = "") -> int:
        return sum(ask.method == method and part in ask.path for ask in self.seen)


def nothing(_: Ask) -> Verdict:
    """Let everything pass."""
    return None


@contextmanager
def proxy(behind: Server, rule: Rule = nothing) -> Iterator[Proxy]:
    """One that runs until the end."""
    target = urlsplit(behind.url).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def work(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            ask = Ask(self.command, self.path, dict(self.headers.items()), self.rfile.read(length))
            made.seen.append(ask)
            verdict = made.rule(ask)
            self.close_connection = True
            if isinstance(verdict, Hang):
                made.over.wait(30)
                return
            if isinstance(verdict, Answer):
                self.answer(verdict.status, {"Content-Type": "application/xml"}, verdict.body)
                return
            onward = http.client.HTTPConnection(target, timeout=30)
            ask.headers.pop("Expect", None)
            onward.request(ask.method, ask.path, ask.body or None, ask.headers)
            got = onward.getresponse()
            body = got.read()
            onward.close()
            if isinstance(verdict, Swallow):
                return
            self.answer(got.status, dict(got.getheaders()), body, cut=isinstance(verdict, Cut))

        def answer(self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False) -> None:
            self.send_response_only(status)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            kept = {name: text for name, text in headers.items() if name.lower() not in _HOP}
            for name, text in (kept | {"Content-Length": length, "Connection": "close"}).items():
                self.send_header(name, text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = work  # noqa: N815 - the library's names

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    made = Proxy(server=Server(url=f"http://127.0.0.1:{listener.server_address[1]}"), rule=rule)
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        made.over.set()
        listener.shutdown()
        thread.join()
        listener.server_close()


_HOP = {"content-length", "connection", "transfer-encoding"}
