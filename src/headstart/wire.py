"""As much of HTTP/1.1 as reading a repository takes: one GET after the other, on a connection that stays open.

Standard library only, and little of it. ``http.client`` reads the head of an answer with the parser for mail,
line by line, and a node asks for hundreds of small objects (docs/adr/0021).

Theory of operation. A ``Connection`` sends a request and gives an ``Answer``, of which the head is read. What
the socket gives first holds the head and most often the beginning of the body, too, and small bodies whole;
nothing is copied. What is an answer, ``httphead`` decides. The connection is used again only when the answer
has come whole and nothing has come after it until the next question is sent: what comes unasked (a goodbye to
an idle connection, or what somebody has put behind a body) would be taken for its answer. What is asked next
can be sent as soon as the answer has come whole, and before it is used: nothing is ever asked behind an answer
that is still on its way, which not every proxy would understand.

No answer can keep the reader for ever: neither one that never ends, in its body or in all else that may come
(interim answers, headers, sizes of chunks, trailers), nor one that drips.
"""

import io
import re
import select
import socket
import time
from importlib import import_module
from typing import TYPE_CHECKING, Final

from headstart.httphead import Head, WireError
from headstart.stratum import PIECE
from headstart.wording import counted

if TYPE_CHECKING:
    from ssl import SSLContext

_LONGEST_HEAD: Final = 1 << 16
_LONGEST_LINE: Final = 1 << 12
_MOST_TALK: Final = 1 << 20
"""Bytes that may come before a body, and beside one."""
_MOST_FRAMING: Final = 8
"""Bytes on the wire per byte of a body: chunks of one byte take six."""
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r]*)?")
_NOTHING: Final = memoryview(b"")


class Connection:
    """A way to a server, opened when it is first asked and again when that is needed. For one thread.

    Args:
        server: host and port.
        secure: with TLS, and a certificate for that host.
        through: host and port of a proxy that is to make a tunnel.
        timeout: seconds that a server may take to answer or to go on; also how long it may be too slow.
        slowest: bytes per second below which it is.
    """

    def __init__(
        self,
        server: tuple[str, int],
        *,
        secure: bool = False,
        through: tuple[str, int] | None = None,
        timeout: float,
        slowest: int,
    ) -> None:
        self._server = server
        self._secure = secure
        self._through = through
        self._timeout = timeout
        self._slowest = slowest
        self._context: SSLContext | None = None
        self._flow: _Flow | None = None
        self._answer: Answer | None = None
        self._ahead: bytes | None = None
        self._asked = 0.0

    @property
    def kept(self) -> bool:
        """Whether it is open from an answer before: the server may have closed it since."""
        # Another thread may close it at any time.
        answer = self._answer
        return self._flow is not None and (answer is None or answer.over)

    def ask(self, request: bytes) -> "Answer":
        """Send a request, if ``ask_ahead`` has not, and read the head of its answer.

        Raises:
            ConnectionError: there was no answer at all, as when the connection was kept and is closed by now.
            OSError: the server cannot be reached, or is silent, or drips.
            WireError: what came is no answer.
            ValueError: the host's name cannot be one.
        """
        if not self._fit(request):
            self.close()
        ahead, flow = self._ahead, self._flow
        try:
            if flow is None:
                flow = self._flow = self._open()
            if ahead is None:
                flow.send(request)
            self._ahead = None
            flow.begin()
            self._answer = answer = Answer(self, flow)
        except BaseException:
            self.close()
            raise
        return answer

    def _fit(self, request: bytes) -> bool:
        """Whether what comes next on it can be nothing but the answer to this."""
        flow = self._flow
        if flow is None or not self.kept:
            return False
        if self._ahead is None:
            return not flow.speaks
        # A server that could not send on for as long may have given up, which says nothing about it.
        return self._ahead == request and time.monotonic() - self._asked < self._timeout

    def ask_ahead(self, request: bytes) -> None:
        """Send what is asked next, if the last answer has come whole: its bytes come while that is used."""
        flow = self._flow
        if flow is None or not self.kept:
            return
        if flow.speaks:
            self.close()
            return
        try:
            # Said first: what was sent unsaid would be answered as the next question.
            self._ahead, self._asked = request, time.monotonic()
            flow.send(request)
        except OSError:
            self.close()

    def close(self) -> None:
        """Close it; it is opened again when it is asked."""
        flow = self._flow
        if flow is not None:
            flow.close()
        self._flow = self._answer = self._ahead = None

    def _open(self) -> "_Flow":
        raw = socket.create_connection(self._through or self._server, timeout=self._timeout)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._through is not None:
                self._dig(_Flow(raw, self._timeout, self._slowest))
            return _Flow(self._secured(raw) if self._secure else raw, self._timeout, self._slowest)
        except BaseException:
            raw.close()
            raise

    def _dig(self, flow: "_Flow") -> None:
        """Have a proxy make a tunnel."""
        host, port = self._server
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        flow.send(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode("ascii"))
        head = flow.head()
        if not 200 <= head.status < 300:
            raise OSError(f"Tunnel connection failed: {head.status} {head.reason[:200]}")
        if not flow.empty:
            raise WireError("the proxy speaks in the server's place")

    def _secured(self, raw: socket.socket) -> socket.socket:
        if self._context is None:
            # It takes longer to import than all else here, and most repositories do without.
            self._context = import_module("ssl").create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context.wrap_socket(raw, server_hostname=self._server[0])


class Answer:
    """One answer; its body is still to come."""

    def __init__(self, connection: Connection, flow: "_Flow") -> None:
        self._connection = connection
        self._flow = flow
        self.head: Final = flow.head()
        self._left = 0 if self.head.chunked else self.head.length
        self._begun = False
        self._whole = self._left == 0 and not self.head.chunked

    @property
    def over(self) -> bool:
        """Whether it has come whole, with nothing after it, so that the connection may be used again."""
        return self._whole and self.head.keeps and self._flow.empty

    def expect(self, limit: int) -> None:
        """A body of up to ``limit`` bytes may come from here on."""
        self._flow.expect(limit)

    def piece(self) -> memoryview:
        """What comes next of the body, in the place of the piece before it; nothing where no more comes.

        Raises:
            OSError, WireError: as ``Connection.ask``; not where a body with a length is cut short.
        """
        room = self._room(PIECE)
        found = self._flow.take(room) if room else _NOTHING
        self._took(len(found))
        return found

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes of the body, or what there is of it, to one place: it is not put together."""
        whole = io.BytesIO()
        if size:
            whole.seek(size - 1)
            whole.write(b"\0")
        got = 0
        with whole.getbuffer() as space:
            while room := self._room(size - got):
                count = self._flow.into(space[got : got + room])
                self._took(count)
                got += count
                if not count:
                    break
        whole.truncate(got)
        return whole.getvalue()

    def close(self) -> None:
        """Let go of it: what is left of it would be taken for the next one's."""
        if not self.over:
            self._connection.close()

    def _room(self, most: int) -> int:
        """How much of ``most`` bytes may come now; 0 at the end."""
        if self._left == 0 and self.head.chunked and not self._whole:
            self._next_chunk()
        if self._whole:
            return 0
        return most if self._left is None else min(most, self._left)

    def _took(self, count: int) -> None:
        if self._whole:
            return
        if self._left is None:
            self._whole = not count
            return
        if not count and self.head.chunked:
            raise WireError("it ends within a chunk")
        self._left -= count
        self._whole = not self._left and not self.head.chunked

    def _next_chunk(self) -> None:
        if self._begun and self._flow.line():
            raise WireError("a chunk is longer than it says")
        self._begun = True
        found = _SIZE.fullmatch(self._flow.line())
        if found is None:
            raise WireError("a chunk does not say how long it is")
        self._left = int(found[1], 16)
        if not self._left:
            while self._flow.line():
                pass
            self._whole = True


class _Flow:
    """What comes from a socket, and an end to it when it comes too slowly to be meant well, or does not end."""

    def __init__(self, raw: socket.socket, timeout: float, slowest: int) -> None:
        self._socket = raw
        self._timeout = timeout
        self._slowest = slowest
        self._bytes = bytearray(PIECE)
        self._view = memoryview(self._bytes)
        self._at = self._end = 0
        """What has come and was not taken yet is between."""
        self._poll = select.poll()
        self._poll.register(raw, select.POLLIN)
        self.begin()

    @property
    def empty(self) -> bool:
        """Whether all that has come was taken."""
        return self._at == self._end

    @property
    def speaks(self) -> bool:
        """Whether there is more of what comes, or its end, without waiting for it."""
        try:
            # TLS takes from the socket more than it gives.
            pending = getattr(self._socket, "pending", None)
            return bool((pending is not None and pending()) or self._poll.poll(0))
        except (OSError, ValueError):  # closed by another thread
            return True

    def send(self, request: bytes) -> None:
        """Send a request."""
        self._socket.sendall(request)

    def begin(self) -> None:
        """What comes from here on is an answer."""
        self._waited = 0.0
        self._size = 0
        self._most = _MOST_TALK

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def expect(self, limit: int) -> None:
        """From here on a body of up to ``limit`` bytes may come."""
        self._most = self._size + _MOST_FRAMING * limit + _MOST_TALK

    def head(self) -> Head:
        """The head of an answer that is not an interim one."""
        while True:
            found = Head.parse(self._until_empty_line())
            if found.status >= 200 or found.status == 101:
                return found

    def line(self) -> bytes:
        """The next line, without its end."""
        while (end := self._bytes.find(b"\n", self._at, self._end)) < 0:
            if self._end - self._at > _LONGEST_LINE or not self._more():
                raise WireError("a line among its chunks does not end")
        found = bytes(self._view[self._at : end])
        self._at = end + 1
        return found.removesuffix(b"\r")

    def take(self, most: int) -> memoryview:
        """What has come, or else what comes, gone at the next call; nothing at the end of all."""
        if self.empty:
            self._more()
        found = self._view[self._at : min(self._end, self._at + most)]
        self._at += len(found)
        return found

    def into(self, buffer: memoryview) -> int:
        """The same, to where it is wanted."""
        if self.empty:
            return self._receive(buffer)
        found = self.take(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def _until_empty_line(self) -> bytes:
        looked = 0
        while True:
            found = _END_OF_HEAD.search(self._bytes, self._at + max(0, looked - 2), self._end)
            if found is not None:
                head = bytes(self._view[self._at : found.start()])
                self._at = found.end()
                return head.removesuffix(b"\r")
            looked = self._end - self._at
            if looked > _LONGEST_HEAD:
                raise WireError("its headers do not end")
            if not self._more():
                if not self._size:
                    raise ConnectionResetError("the connection was closed without an answer")
                begun = bytes(self._view[self._at : self._end][:60])
                raise WireError(f"it is no answer of HTTP/1.1: {begun!r}")

    def _more(self) -> bool:
        """Have more of what comes behind what has come; False at the end of all."""
        held = self._end - self._at
        if self._at:
            self._view[:held] = self._bytes[self._at : self._end]
            self._at, self._end = 0, held
        count = self._receive(self._view[held:])
        self._end += count
        return bool(count)

    def _receive(self, buffer: memoryview) -> int:
        begun = time.monotonic()
        size = self._socket.recv_into(buffer)
        # What was spent between, on a slow disk, is not the server's.
        self._waited += time.monotonic() - begun
        self._size += size
        # The end of an answer is never too slow.
        if size and self._waited > self._timeout and self._size < self._waited * self._slowest:
            raise TimeoutError(f"it comes too slowly, {counted(self._size, 'byte')} in {self._waited:.0f} s")
        if self._size > self._most:
            raise OSError(f"it does not end, {counted(self._size, 'byte')} came")
        return size
