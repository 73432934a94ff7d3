"""Reading a repository from a web server, through a proxy or not. Standard library only.

One connection per thread, kept open. Redirects are not followed (format section 18), nothing is unpacked on the
way, and no answer can keep the reader for ever (see ``wire``).
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Self
from urllib.parse import SplitResult, quote, urlsplit

from headstart.errors import ConfigurationError, MissingError, UnavailableError
from headstart.httphead import WireError
from headstart.stratum import Sink, check_path, too_long
from headstart.wire import Answer, Connection
from headstart.wording import counted

_HEADERS: Final = "Accept-Encoding: identity\r\nUser-Agent: headstart\r\nConnection: keep-alive\r\n"
_FRESH: Final = "Cache-Control: no-cache\r\nPragma: no-cache\r\n"
_TROUBLE: Final = (OSError, WireError, ValueError, MemoryError)
_PORTS: Final = {"http": 80, "https": 443}
_HINT: Final = "check the address, the server and the proxy"


class HttpStratum:
    """A repository below a URL, such as ``http://host/cvmfs/julia.example.org``."""

    def __init__(
        self,
        url: str,
        *,
        proxy: str | None = None,
        timeout: float = 10.0,
        slowest: int = 1024,
        heard: Callable[[Mapping[str, str]], object] | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: of the repository's root; http or https.
            proxy: ``http://host:port``, or None to connect directly.
            timeout: seconds that a server may take to answer or to go on; also how long it may be too slow.
            slowest: bytes per second below which it is, as the real client's low speed limit.
            heard: is given the headers of each answer, by name in small letters.

        Raises:
            ConfigurationError: not such a URL.
        """
        self._url = url.rstrip("/")
        self._target = _parse(url, ("http", "https"))
        self._proxy = None if proxy is None else _parse(proxy, ("http",))
        self._secure = self._target.scheme == "https"
        forwarded = f"http://{self._target.netloc}" if self._proxy is not None and not self._secure else ""
        self._below = f"{forwarded}{self._target.path.rstrip('/')}/"
        self._timeout = timeout
        self._slowest = slowest
        self._heard = heard
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[Connection] = []

    @property
    def name(self) -> str:
        """The URL."""
        return self._url

    def another(self) -> None:
        """There is no other: see ``failover``."""

    def fetch(self, path: str, *, limit: int, fresh: bool = False) -> bytes:
        """Read one file; see ``stratum.Stratum``."""
        with self._answer(path, fresh=fresh) as answer:
            try:
                return self._body(answer, path, limit)
            except _TROUBLE as error:
                raise self._unavailable(path, error) from error

    def pour(self, path: str, sink: Sink, *, limit: int, fresh: bool = False) -> None:
        """Read one file; see ``stratum.Stratum``."""
        with self._answer(path, fresh=fresh) as answer:
            sink.begin()
            # What the sink raises is no fault of the server's, and not turned into one.
            for piece in self._pieces(answer, path, limit):
                if answer.over and (following := sink.following()) is not None:
                    self._connection().ask_ahead(self._get(following))
                sink.take(piece)

    @contextlib.contextmanager
    def _answer(self, path: str, *, fresh: bool) -> Iterator[Answer]:
        """A good answer, whose body is still to come."""
        answer = self._request(check_path(path), fresh=fresh)
        try:
            if self._heard is not None:
                self._heard(answer.head.headers)
            self._check_status(answer, path)
            yield answer
        finally:
            answer.close()

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
        self._local = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unavailable(self, path: str, error: Exception) -> UnavailableError:
        return UnavailableError(f"cannot read {self._url}/{path}: {_reason(error)}", hint=_HINT)

    def _request(self, path: str, *, fresh: bool) -> Answer:
        request = self._get(path, fresh=fresh)
        connection = self._connection()
        kept = connection.kept
        try:
            try:
                return connection.ask(request)
            except ConnectionError:
                # A server may close a connection that was idle: that says nothing about this request.
                if not kept:
                    raise
                return connection.ask(request)
        except _TROUBLE as error:
            raise self._unavailable(path, error) from error

    def _get(self, path: str, *, fresh: bool = False) -> bytes:
        return (
            f"GET {self._below}{quote(path)} HTTP/1.1\r\nHost: {self._target.netloc}\r\n"
            f"{_HEADERS}{_FRESH if fresh else ''}\r\n"
        ).encode("ascii")

    def _connection(self) -> Connection:
        """This thread's."""
        known: Connection | None = getattr(self._local, "connection", None)
        if known is None:
            target, proxy = _place(self._target), None if self._proxy is None else _place(self._proxy)
            known = self._local.connection = Connection(
                target if self._secure else proxy or target,
                secure=self._secure,
                through=proxy if self._secure else None,
                timeout=self._timeout,
                slowest=self._slowest,
            )
            with self._lock:
                self._connections.append(known)
        return known

    def _check_status(self, answer: Answer, path: str) -> None:
        head = answer.head
        if head.status in (404, 410):
            raise MissingError(f"there is no {path} at {self._url} ({head.status})")
        if head.status != 200:
            raise UnavailableError(f"{self._url}/{path} answers {head.status} {head.reason}"[:300], hint=_HINT)

    def _promised(self, answer: Answer, path: str, limit: int) -> int | None:
        """Bytes that the body is to have; None when it does not say."""
        answer.expect(limit)
        promised = answer.head.length
        if promised is not None and promised > limit:
            raise too_long(path, limit, self._url)
        return promised

    def _check_whole(self, path: str, size: int, promised: int | None) -> None:
        if promised is not None and size != promised:
            raise UnavailableError(
                f"{self._url}/{path} is cut short: {size} of {counted(promised, 'byte')} came", hint=_HINT
            )

    def _body(self, answer: Answer, path: str, limit: int) -> bytes:
        promised = self._promised(answer, path, limit)
        if promised is None:
            return b"".join(bytes(piece) for piece in self._pieces(answer, path, limit))
        data = answer.read(promised)
        self._check_whole(path, len(data), promised)
        return data

    def _pieces(self, answer: Answer, path: str, limit: int) -> Iterator[memoryview]:
        """The body, each piece in the place of the one before it."""
        try:
            promised = self._promised(answer, path, limit)
            size = 0
            while piece := answer.piece():
                size += len(piece)
                if size > limit:
                    raise too_long(path, limit, self._url)
                yield piece
            self._check_whole(path, size, promised)
        except _TROUBLE as error:
            raise self._unavailable(path, error) from error


def _place(address: SplitResult) -> tuple[str, int]:
    return address.hostname or "", address.port or _PORTS[address.scheme]


def _reason(error: Exception) -> str:
    """What went wrong, without the number that the system gives it."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__


def _parse(url: str, schemes: tuple[str, ...]) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    extras = parts.query or parts.fragment or "@" in parts.netloc
    printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme in schemes and parts.hostname and port != 0 and not extras and printable:
        return parts
    raise ConfigurationError(
        f"{url[:200]!r} is not an address of a repository or a proxy",
        hint=f"write {schemes[0]}://HOST[:PORT]/PATH, without user, query or fragment",
    )
