"""Reading a repository from a web server, through a proxy or not. Standard library only.

One connection per thread, kept open. Redirects are not followed (format section 18), nothing is unpacked on the
way, and no answer can keep the reader for ever: neither one that never ends (in its body, or in what ``http``
reads without telling: interim answers, headers, trailers) nor one that drips.
"""

import contextlib
import functools
import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any, Final, Self
from urllib.parse import SplitResult, quote, urlsplit

from headstart.errors import ConfigurationError, MissingError, UnavailableError
from headstart.stratum import PIECE, Sink, check_path, too_long
from headstart.wording import counted

_LONGEST: Final = 60.0
_MOST_TALK: Final = 1 << 20
"""Bytes that may come before a body, and beside one."""
_MOST_FRAMING: Final = 8
"""Bytes on the wire per byte of a body: chunks of one byte take six."""
_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "headstart", "Connection": "keep-alive"}
_FRESH: Final = {"Cache-Control": "no-cache", "Pragma": "no-cache"}
_TROUBLE: Final = (OSError, http.client.HTTPException, ValueError, MemoryError)
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
        heard: Callable[[Message], object] | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: of the repository's root; http or https.
            proxy: ``http://host:port``, or None to connect directly.
            timeout: seconds that a server may take to answer or to go on; also how long it may be too slow.
            slowest: bytes per second below which it is, as the real client's low speed limit.
            heard: is given the headers of each answer.

        Raises:
            ConfigurationError: not such a URL.
        """
        self._url = url.rstrip("/")
        self._target = _parse(url, ("http", "https"))
        self._proxy = None if proxy is None else _parse(proxy, ("http",))
        self._timeout = timeout
        self._slowest = slowest
        self._heard = heard
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[http.client.HTTPConnection] = []

    @property
    def name(self) -> str:
        """The URL."""
        return self._url

    def another(self) -> None:
        """There is no other: see ``failover``."""

    def fetch(self, path: str, *, limit: int, fresh: bool = False) -> bytes:
        """Read one file; see ``stratum.Stratum``."""
        with self._answer(path, fresh=fresh) as response:
            try:
                return self._body(response, path, limit)
            except _TROUBLE as error:
                raise self._unavailable(path, error) from error

    def pour(self, path: str, sink: Sink, *, limit: int, fresh: bool = False) -> None:
        """Read one file; see ``stratum.Stratum``."""
        with self._answer(path, fresh=fresh) as response:
            sink.begin()
            # What the sink raises is no fault of the server's, and not turned into one.
            for piece in self._pieces(response, path, limit):
                sink.take(piece)

    @contextlib.contextmanager
    def _answer(self, path: str, *, fresh: bool) -> Iterator[http.client.HTTPResponse]:
        """A good answer, whose body is still to come."""
        check_path(path)
        response = self._request(path, _HEADERS | _FRESH if fresh else _HEADERS)
        try:
            if self._heard is not None:
                self._heard(response.headers)
            self._check_status(response, path)
            yield response
        except BaseException:
            # What is left of an answer would be taken for the next one's.
            self._drop()
            raise
        finally:
            response.close()

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

    def _request(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        below = f"{self._target.path.rstrip('/')}/{quote(path)}"
        forwarded = self._proxy is not None and self._target.scheme == "http"
        wanted = f"http://{self._target.netloc}{below}" if forwarded else below
        connection, used = self._connection()
        try:
            try:
                return _ask(connection, wanted, headers)
            except (ConnectionError, http.client.RemoteDisconnected):
                # A server may close a connection that was idle: that says nothing about this request.
                if not used:
                    raise
                connection.close()
                return _ask(connection, wanted, headers)
        except _TROUBLE as error:
            self._drop()
            raise self._unavailable(path, error) from error

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """This thread's connection, and whether it was used before."""
        known: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if known is not None:
            return known, True
        to = self._proxy or self._target
        kind = http.client.HTTPSConnection if to.scheme == "https" else http.client.HTTPConnection
        if self._proxy is not None and self._target.scheme == "https":
            kind = http.client.HTTPSConnection
        connection = kind(to.hostname or "", to.port, timeout=self._timeout)
        if self._proxy is not None and self._target.scheme == "https":
            connection.set_tunnel(self._target.hostname or "", self._target.port or 443)
        connection.response_class = functools.partial(_Response, slowest=self._slowest)  # type: ignore[assignment]  # called, never asked for its type
        self._local.connection = connection
        with self._lock:
            self._connections.append(connection)
        return connection, False

    def _drop(self) -> None:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()

    def _check_status(self, response: http.client.HTTPResponse, path: str) -> None:
        if response.status in (404, 410):
            raise MissingError(f"there is no {path} at {self._url} ({response.status})")
        if response.status != 200:
            raise UnavailableError(
                f"{self._url}/{path} answers {response.status} {response.reason}"[:300], hint=_HINT
            )

    def _promised(self, response: http.client.HTTPResponse, path: str, limit: int) -> int | None:
        """Bytes that the body is to have; None when it does not say."""
        if isinstance(response, _Response):
            response.expect(limit)
        promised = response.length
        if promised is not None and promised > limit:
            raise too_long(path, limit, self._url)
        return promised

    def _check_whole(self, path: str, size: int, promised: int) -> None:
        if size != promised:
            raise UnavailableError(
                f"{self._url}/{path} is cut short: {size} of {counted(promised, 'byte')} came", hint=_HINT
            )

    def _body(self, response: http.client.HTTPResponse, path: str, limit: int) -> bytes:
        promised = self._promised(response, path, limit)
        if promised is None:
            return b"".join(self._unmeasured(response, path, limit))
        # In one read, to one place: put together from pieces it takes twice as long.
        data = response.read(promised)
        self._check_whole(path, len(data), promised)
        return data

    def _pieces(
        self, response: http.client.HTTPResponse, path: str, limit: int
    ) -> Iterator[bytes | memoryview]:
        """The body, each piece in the place of the one before it."""
        try:
            promised = self._promised(response, path, limit)
            if promised is None:
                yield from self._unmeasured(response, path, limit)
                return
            buffer = self._buffer()
            size = 0
            while size < promised and (count := response.readinto(buffer)):
                size += count
                yield buffer[:count]
            self._check_whole(path, size, promised)
        except _TROUBLE as error:
            raise self._unavailable(path, error) from error

    def _unmeasured(self, response: http.client.HTTPResponse, path: str, limit: int) -> Iterator[bytes]:
        """A body that does not say how long it is."""
        size = 0
        while part := response.read1(min(PIECE, limit + 1 - size)):
            size += len(part)
            if size > limit:
                raise too_long(path, limit, self._url)
            yield part

    def _buffer(self) -> memoryview:
        """This thread's, made once."""
        known: memoryview | None = getattr(self._local, "buffer", None)
        if known is None:
            known = self._local.buffer = memoryview(bytearray(PIECE))
        return known


class _Watched(io.RawIOBase):
    """What comes from a socket, and an end to it when it comes too slowly to be meant well."""

    def __init__(self, raw: io.RawIOBase, timeout: float, slowest: int) -> None:
        self._raw = raw
        self._timeout = timeout
        self._slowest = slowest
        self._start = time.monotonic()
        self._size = 0
        self._most = _MOST_TALK

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        size: int | None = self._raw.readinto(buffer)
        self._size += size or 0
        passed = time.monotonic() - self._start
        # The end of an answer is never too slow.
        if size and passed > self._timeout and self._size < passed * self._slowest:
            raise TimeoutError(f"it comes too slowly, {counted(self._size, 'byte')} in {passed:.0f} s")
        if self._size > self._most:
            raise OSError(f"it does not end, {counted(self._size, 'byte')} came")
        return size

    def expect(self, limit: int) -> None:
        """From here on a body of up to ``limit`` bytes may come."""
        self._most = self._size + _MOST_FRAMING * limit + _MOST_TALK

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer, watched from its first header on."""

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
        *,
        slowest: int,
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp.close()
        self._watched = _Watched(sock.makefile("rb", buffering=0), sock.gettimeout() or _LONGEST, slowest)
        self.fp = io.BufferedReader(self._watched)

    def expect(self, limit: int) -> None:
        """See ``_Watched``."""
        self._watched.expect(limit)


def _ask(
    connection: http.client.HTTPConnection, wanted: str, headers: dict[str, str]
) -> http.client.HTTPResponse:
    connection.request("GET", wanted, headers=headers)
    return connection.getresponse()


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
    extras = parts.query or parts.fragment or parts.username
    printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme in schemes and parts.hostname and port != 0 and not extras and printable:
        return parts
    raise ConfigurationError(
        f"{url[:200]!r} is not an address of a repository or a proxy",
        hint=f"write {schemes[0]}://HOST[:PORT]/PATH, without user, query or fragment",
    )
