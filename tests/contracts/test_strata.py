"""One contract for every stratum; and what only a server can do wrong."""

import contextlib
import errno
import http.server
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from headstart.errors import ConfigurationError, CorruptError, MissingError, UnavailableError
from headstart.loopback import LoopbackServer
from headstart.names import Fqrn
from headstart.stratum import DirectoryStratum, Stratum
from headstart.webstratum import HttpStratum
from simulator import Simulator

FILES = {
    ".cvmfspublished": b"manifest",
    "data/ab/cdef": b"content" * 1000,
    "data/ab/empty": b"",
    "data/ab/largeC": os.urandom(3_000_000),
}


class Bowl:
    """A sink that keeps what comes."""

    def __init__(self, *coming: str) -> None:
        self.content = bytearray(b"of another answer")
        self.largest = 0
        self.coming = coming

    def begin(self) -> None:
        self.content.clear()

    def take(self, piece: bytes | memoryview) -> None:
        self.content += piece
        self.largest = max(self.largest, len(piece))

    def following(self) -> str | None:
        return next(iter(self.coming), None)


class Leak(Bowl):
    """A sink that takes one piece and no more."""

    def take(self, piece: bytes | memoryview) -> None:
        super().take(piece)
        raise OSError(errno.ENOSPC, "the disk is full")


class StratumContract:
    """What whoever reads from a stratum relies on."""

    @pytest.mark.parametrize("path", FILES)
    def test_bytes_as_they_are_in_pieces(self, stratum: Stratum, path: str) -> None:
        bowl = Bowl()
        for limit, fresh in ((1 << 22, False), (len(FILES[path]), True)):
            stratum.pour(path, bowl, limit=limit, fresh=fresh)
            assert bytes(bowl.content) == FILES[path]

    def test_whether_what_was_said_to_follow_is_asked_for_or_not(self, stratum: Stratum) -> None:
        paths = [
            "data/ab/cdef",
            "data/ab/largeC",
            "data/ab/absent",
            "data/ab/cdef",
            "data/ab/empty",
            "data/ab/largeC",
        ]
        for path, coming in zip(paths, [*paths[1:], "data/ab/cdef"], strict=True):
            bowl = Bowl(coming)
            if path not in FILES:
                with pytest.raises(MissingError):
                    stratum.pour(path, bowl, limit=1 << 22)
                continue
            stratum.pour(path, bowl, limit=1 << 22)
            assert bytes(bowl.content) == FILES[path]
        for path in (".cvmfspublished", "data/ab/cdef"):  # not what the last one said
            assert stratum.fetch(path, limit=1 << 22, fresh=True) == FILES[path]

    def test_one_byte_too_many_in_pieces(self, stratum: Stratum) -> None:
        for path in ("data/ab/cdef", "data/ab/largeC"):
            with pytest.raises(CorruptError, match=f"{path} .*more than the {len(FILES[path]) - 1} bytes"):
                stratum.pour(path, Bowl(), limit=len(FILES[path]) - 1)
        with pytest.raises(MissingError, match="absent"):
            stratum.pour("data/ab/absent", Bowl(), limit=100)
        with pytest.raises(CorruptError, match="not a path"):
            stratum.pour("../x", Bowl(), limit=100)

    def test_a_sink_that_fails_is_no_fault_of_the_source(self, stratum: Stratum) -> None:
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is full"):
                stratum.pour("data/ab/largeC", Leak(), limit=1 << 22)
            bowl = Bowl()
            stratum.pour("data/ab/cdef", bowl, limit=1 << 22)
            assert bytes(bowl.content) == FILES["data/ab/cdef"]

    @pytest.mark.parametrize("path", FILES)
    def test_bytes_as_they_are(self, stratum: Stratum, path: str) -> None:
        assert stratum.fetch(path, limit=1 << 22) == FILES[path]
        assert stratum.fetch(path, limit=len(FILES[path]), fresh=True) == FILES[path]

    @pytest.mark.parametrize("path", ["data/ab/cdef", "data/ab/largeC"])
    def test_one_byte_too_many(self, stratum: Stratum, path: str) -> None:
        with pytest.raises(CorruptError, match=f"{path} .*more than the {len(FILES[path]) - 1} bytes"):
            stratum.fetch(path, limit=len(FILES[path]) - 1)
        assert stratum.fetch(path, limit=len(FILES[path])) == FILES[path]

    @pytest.mark.parametrize("path", ["data/ab/absent", "absent/absent", "data/ab/cdef/below"])
    def test_missing(self, stratum: Stratum, path: str) -> None:
        with pytest.raises(MissingError, match=path):
            stratum.fetch(path, limit=100)
        assert stratum.fetch(".cvmfspublished", limit=100) == b"manifest"

    @pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "data/../../x", "data//x", "data/./x", "a\0b"])
    def test_paths_that_lead_out(self, stratum: Stratum, path: str) -> None:
        with pytest.raises(CorruptError, match="not a path"):
            stratum.fetch(path, limit=100)

    def test_many_threads(self, stratum: Stratum) -> None:
        with ThreadPoolExecutor(8) as pool:
            paths = [*FILES] * 20
            results = list(pool.map(lambda path: stratum.fetch(path, limit=1 << 22), paths))
        assert results == [FILES[path] for path in paths]

    def test_it_has_a_name(self, stratum: Stratum) -> None:
        assert stratum.name


def storage(root: Path) -> Path:
    for path, content in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


class TestMemory(StratumContract):
    @pytest.fixture
    def stratum(self) -> Stratum:
        simulator = Simulator()
        simulator.files |= FILES
        return simulator


class TestDirectory(StratumContract):
    @pytest.fixture
    def stratum(self, tmp_path: Path) -> Stratum:
        return DirectoryStratum(str(storage(tmp_path)))

    def test_what_is_no_file(self, stratum: Stratum, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        for path in ("fifo", "data"):
            with pytest.raises(UnavailableError, match=path):
                stratum.fetch(path, limit=100)

    def test_no_directory_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError):
            DirectoryStratum(str(tmp_path / "absent")).fetch(".cvmfspublished", limit=100)

    def test_no_descriptor_is_left_open(self, stratum: Stratum) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for path in ("data", "data/ab/cdef", "data/ab/absent"):
            for _ in range(10):
                with pytest.raises((UnavailableError, CorruptError, MissingError)):
                    stratum.fetch(path, limit=10)
        assert len(os.listdir("/proc/self/fd")) == before


class TestHttp(StratumContract):
    @pytest.fixture
    def stratum(self, tmp_path: Path) -> Iterator[Stratum]:
        fqrn = Fqrn("julia.example.org")
        with LoopbackServer(str(storage(tmp_path)), fqrn) as server, HttpStratum(server.url) as stratum:
            yield stratum


class TestHttpThroughAProxy(StratumContract):
    @pytest.fixture
    def stratum(self) -> Iterator[Stratum]:
        def answer(handler: Handler) -> None:
            prefix = "http://stratum.example.org:8000/cvmfs/r/"
            path = handler.path.removeprefix(prefix)
            content = FILES.get(path) if handler.path.startswith(prefix) else None
            handler.reply(b"" if content is None else content, 404 if content is None else 200)

        with (
            serving(answer) as url,
            HttpStratum("http://stratum.example.org:8000/cvmfs/r", proxy=url) as stratum,
        ):
            yield stratum


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """What a server needs for TLS at localhost, and whom to believe for it."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pem")
    return context, folder / "pem"


def answer_files(handler: "Handler") -> None:
    content = FILES.get(handler.path.removeprefix("/r/"))
    handler.reply(b"" if content is None else content, 404 if content is None else 200)


@pytest.fixture
def trusted(secure: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    monkeypatch.setenv("SSL_CERT_FILE", str(secure[1]))
    return secure[0]


class TestHttps(StratumContract):
    @pytest.fixture
    def stratum(self, trusted: ssl.SSLContext) -> Iterator[Stratum]:
        with serving(answer_files, trusted) as url, HttpStratum(f"{url}/r") as stratum:
            yield stratum


class TestHttpsThroughATunnel(StratumContract):
    @pytest.fixture
    def stratum(self, trusted: ssl.SSLContext) -> Iterator[Stratum]:
        with (
            serving(answer_files, trusted) as url,
            digging(b"HTTP/1.1 200 Connection established\r\n\r\n") as proxy,
            HttpStratum(f"{url}/r", proxy=proxy) as stratum,
        ):
            yield stratum


def test_whom_to_believe_is_read_once_for_a_thread(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[ssl.SSLContext] = []
    make = ssl.create_default_context

    def making() -> ssl.SSLContext:
        read.append(make())
        return read[-1]

    def answer(handler: Handler) -> None:
        handler.close_connection = True
        answer_files(handler)

    monkeypatch.setattr(ssl, "create_default_context", making)
    with serving(answer, trusted) as url, HttpStratum(f"{url}/r") as stratum:
        for _ in range(3):
            assert stratum.fetch("data/ab/cdef", limit=1 << 22) == FILES["data/ab/cdef"]
    assert len(read) == 1


def test_a_goodbye_to_an_idle_connection_is_no_answer() -> None:
    idle = threading.Event()

    def answer(handler: Handler) -> None:
        handler.reply(b"yes")
        if type(handler).connections == 1:
            handler.send_response(408)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            handler.close_connection = True
            idle.set()

    with serving(answer) as url, HttpStratum(url) as stratum:
        assert stratum.fetch("x", limit=10) == b"yes"
        assert idle.wait(10)
        assert stratum.fetch("x", limit=10) == b"yes"


def test_a_server_that_nobody_vouches_for(secure: tuple[ssl.SSLContext, Path]) -> None:
    with (
        serving(answer_files, secure[0]) as url,
        HttpStratum(f"{url}/r") as stratum,
        pytest.raises(UnavailableError, match="certificate verify failed"),
    ):
        stratum.fetch("x", limit=10)
    with serving(answer_files) as plain:
        at = plain.replace("http:", "https:")
        with HttpStratum(at, timeout=1) as stratum, pytest.raises(UnavailableError):
            stratum.fetch("x", limit=10)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 403 Not for you\r\nContent-Length: 0\r\n\r\n", "Tunnel connection failed: 403 Not for you"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "in the server's place"),
        (b"SSH-2.0-x\r\n\r\n", "no answer of HTTP"),
        (b"", "without an answer"),
    ],
)
def test_a_proxy_that_makes_no_tunnel(trusted: ssl.SSLContext, said: bytes, why: str) -> None:
    with (
        serving(answer_files, trusted) as url,
        digging(said) as proxy,
        HttpStratum(url, proxy=proxy, timeout=2) as stratum,
        pytest.raises(UnavailableError, match=why),
    ):
        stratum.fetch("x", limit=10)


def test_a_tunnel_to_an_address_of_version_6() -> None:
    with (
        digging(b"HTTP/1.1 403 No " + b"x" * 1000 + b"\r\n\r\n", "[::1]:443") as proxy,
        HttpStratum("https://[::1]/r", proxy=proxy, timeout=2) as stratum,
        pytest.raises(UnavailableError, match=r"Tunnel connection failed: 403 No x{10,250};"),
    ):
        stratum.fetch("x", limit=10)


@contextmanager
def digging(said: bytes, to: str = "") -> Iterator[str]:
    """A proxy that makes tunnels, or says something else."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        with client:
            asked = client.recv(1 << 16)
            place = asked.split(b" ")[1].decode()
            assert to in ("", place)
            assert asked.startswith(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n".encode())
            client.sendall(said)
            if b" 200 Connection" not in said:
                return
            host, _, port = place.rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                back = threading.Thread(target=pump, args=(server, client), daemon=True)
                back.start()
                pump(client, server)
                back.join(5)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer: ClassVar[Callable[[Any], None]]
    connections: ClassVar[int]

    def setup(self) -> None:
        type(self).connections += 1
        super().setup()

    def do_GET(self) -> None:
        type(self).answer(self)

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, body: bytes, status: int = 200, *, promised: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if promised is None else promised))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(answer: Callable[[Handler], None], secure: ssl.SSLContext | None = None) -> Iterator[str]:
    kind = type("OneHandler", (Handler,), {"answer": staticmethod(answer), "connections": 0})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        if secure is not None:
            server.socket = secure.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        # A client that goes away in the middle is what several tests are about.
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # only silenced
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"{'http://127.0.0.1' if secure is None else 'https://localhost'}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def refused(answer: Callable[[Handler], None], kind: type[Exception], match: str, limit: int = 100) -> None:
    with serving(answer) as url, HttpStratum(url, timeout=0.5) as stratum:
        for _ in range(2):
            with pytest.raises(kind, match=match):
                stratum.fetch("data/ab/cdef", limit=limit)
            with pytest.raises(kind, match=match):
                stratum.pour("data/ab/cdef", Bowl(), limit=limit)


def test_a_connection_is_kept_and_one_that_was_closed_is_opened_again() -> None:
    handlers: list[Handler] = []

    def answer(handler: Handler) -> None:
        handlers.append(handler)
        handler.close_connection = len(handlers) == 3
        handler.reply(b"yes")

    with serving(answer) as url, HttpStratum(url) as stratum:
        for _ in range(6):
            assert stratum.fetch("x", limit=10) == b"yes"
    assert type(handlers[0]).connections == 2


def test_what_follows_is_asked_for_when_an_answer_has_come_and_before_it_is_used() -> None:
    asked: list[str] = []
    changed = threading.Condition()

    def answer(handler: Handler) -> None:
        with changed:
            asked.append(handler.path)
            changed.notify()
        handler.reply(b"yes")

    class Slow(Bowl):
        def take(self, piece: bytes | memoryview) -> None:
            super().take(piece)
            with changed:
                assert changed.wait_for(lambda: "/second" in asked, timeout=10)

    with serving(answer) as url, HttpStratum(url) as stratum:
        stratum.pour("first", Slow("second"), limit=10)
        assert stratum.fetch("second", limit=10) == b"yes"
        assert asked == ["/first", "/second"]
        stratum.pour("third", Bowl("fourth"), limit=10)
        assert (
            stratum.fetch("fifth", limit=10) == b"yes"
        )  # on another connection, lest it be taken for the fourth


@pytest.mark.parametrize("told", [True, False])
def test_a_server_that_closes_after_each_answer_is_no_worse_for_being_asked_ahead(*, told: bool) -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(handler.path)))
        if told:
            handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(handler.path.encode())
        handler.close_connection = True

    with serving(answer) as url, HttpStratum(url) as stratum:
        for number in range(20):
            bowl = Bowl(f"{number + 1}")
            stratum.pour(f"{number}", bowl, limit=10)
            assert bytes(bowl.content) == f"/{number}".encode()


def test_a_fresh_copy_is_asked_for_past_caches() -> None:
    seen: list[tuple[str | None, str | None]] = []

    def answer(handler: Handler) -> None:
        seen.append((handler.headers["Cache-Control"], handler.headers["Pragma"]))
        assert handler.headers["Accept-Encoding"] == "identity"
        handler.reply(b"yes")

    with serving(answer) as url, HttpStratum(url) as stratum:
        stratum.fetch("x", limit=10)
        stratum.fetch("x", limit=10, fresh=True)
    assert seen == [(None, None), ("no-cache", "no-cache")]


@pytest.mark.parametrize("status", [301, 302, 400, 403, 500, 503, 206, 204])
def test_any_other_status(status: int) -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(status)
        handler.send_header("Location", "http://127.0.0.1:1/elsewhere")
        if status != 204:
            handler.send_header("Content-Length", "0")
        handler.end_headers()

    refused(answer, UnavailableError, str(status))


def test_cut_short() -> None:
    def answer(handler: Handler) -> None:
        handler.reply(b"half", promised=8)
        handler.close_connection = True

    refused(answer, UnavailableError, "cut short|IncompleteRead")


def test_endless_without_a_length() -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        while True:
            handler.wfile.write(b"x" * 1000)

    refused(answer, CorruptError, "more than the 10000 bytes", limit=10_000)


def test_a_length_beyond_the_limit_is_not_waited_for() -> None:
    refused(lambda handler: handler.reply(b"", promised=1 << 40), CorruptError, "more than the 100 bytes")


def test_chunked_answers_are_read_and_cut_ones_found() -> None:
    whole = True

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"3\r\nabc\r\n")
        handler.wfile.write(b"0\r\n\r\n" if whole else b"5\r\nab")
        handler.close_connection = not whole

    with serving(answer) as url, HttpStratum(url, timeout=0.5) as stratum:
        assert stratum.fetch("x", limit=3) == b"abc"
        assert stratum.fetch("x", limit=3) == b"abc"
        whole = False
        with pytest.raises(UnavailableError):
            stratum.fetch("x", limit=100)


def test_a_server_that_hangs_or_drips() -> None:
    done = threading.Event()

    def hang(_: Handler) -> None:
        done.wait(20)

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        while not done.wait(0.1):
            handler.wfile.write(b"x")

    def drip_headers(handler: Handler) -> None:
        while not done.wait(0.1):
            handler.wfile.write(b"H")

    for answer, match in ((hang, "timed out"), (drip, "too slowly"), (drip_headers, "too slowly")):
        done.clear()
        with serving(answer) as url, HttpStratum(url, timeout=0.4) as stratum:
            with pytest.raises(UnavailableError, match=match):
                stratum.fetch("x", limit=100)
            done.set()


@pytest.mark.parametrize(
    ("head", "repeated"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"A: b\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    ],
    ids=["interim answers", "trailers", "a chunk's size", "headers"],
)
def test_endless_talk_around_a_body(head: bytes, repeated: bytes) -> None:
    def answer(handler: Handler) -> None:
        handler.wfile.write(head)
        while True:  # until the reader has gone
            handler.wfile.write(repeated * (65536 // len(repeated)))

    with serving(answer) as url, HttpStratum(url, timeout=2) as stratum:
        start = time.monotonic()
        with pytest.raises(UnavailableError):
            stratum.fetch("x", limit=100)
        assert time.monotonic() - start < 10


def test_a_host_that_cannot_be_one_is_unavailable() -> None:
    with HttpStratum(f"http://{'a' * 70}.example.org/x") as stratum, pytest.raises(UnavailableError):
        stratum.fetch("x", limit=100)


def test_what_is_no_web_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def speak() -> None:
            for _ in range(2):
                client, _address = listener.accept()
                with client:
                    client.recv(1000)
                    client.sendall(b"220 smtp.example.org ESMTP\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        with HttpStratum(f"http://127.0.0.1:{port}", timeout=2) as stratum:
            for _ in range(2):
                with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}"):
                    stratum.fetch("x", limit=100)
        thread.join()
    with (
        HttpStratum(f"http://127.0.0.1:{port}", timeout=2) as stratum,
        pytest.raises(UnavailableError, match="refused"),
    ):
        stratum.fetch("x", limit=100)


@pytest.mark.parametrize(
    "url",
    [
        "", "host/path", "ftp://host/x", "file:///x", "http://", "http://user:word@host/", "http://@host/", "http://host:x/",
        "http://host:99999/", "http://host/?q", "http://host/#f", "http://host/a b", "http://host/\r\nX: y",
        "http://höst/", "http://[::1/",
    ],
)  # fmt: skip
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not an address"):
        HttpStratum(url)
    with pytest.raises(ConfigurationError, match="not an address"):
        HttpStratum("http://host", proxy=url or "x")
