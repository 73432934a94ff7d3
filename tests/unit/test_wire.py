"""HTTP as far as it is read here: what is an answer, what is none, and when a connection is used again."""

import contextlib
import http.client
import io
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import wire
from headstart.httphead import Head, WireError
from headstart.stratum import PIECE
from headstart.wire import Answer, Connection
from scripted import Script

OK = b"HTTP/1.1 200 OK\r\n"
TOKENS = st.text("abcXYZ-09!#$%&'*+.^_`|~", min_size=1, max_size=12)
VALUES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, blacklist_characters="\x7f\x85"), max_size=30
)
OWN = {"transfer-encoding", "content-length", "connection"}


@contextlib.contextmanager
def connected(*scripts: Script, **words: Any) -> Iterator[Connection]:
    """A connection to a server that is opened once for each script."""
    with mock.patch.object(socket, "create_connection", side_effect=scripts):
        connection = Connection(("host", 80), **{"timeout": 5, "slowest": 1} | words)
        yield connection
        connection.close()


def whole(answer: Answer, *, at_once: int | None) -> bytes:
    if at_once is None:
        answer.expect(1 << 20)
        return b"".join(bytes(piece) for piece in iter(answer.piece, memoryview(b"")))
    return answer.read(at_once)


@st.composite
def framed(draw: st.DrawFn) -> tuple[bytes, bytes, str]:
    """A body, as it is sent, and how: with its head."""
    body = draw(st.binary(max_size=400) | st.integers(PIECE - 50, 3 * PIECE).map(lambda size: b"x" * size))
    how = draw(st.sampled_from(["length", "chunked", "until closed"]))
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * draw(st.integers(0, 2))
    if how == "length":
        return body, interim + OK + b"Content-Length: %d\r\n\r\n" % len(body) + body, how
    if how == "until closed":
        return body, interim + OK + b"\r\n" + body, how
    sent, at = b"", 0
    while at < len(body):
        size = draw(st.integers(1, min(len(body) - at, 2 * PIECE)))
        sent += b"%x%s\r\n%s\r\n" % (size, draw(st.sampled_from([b"", b";a=b", b" "])), body[at : at + size])
        at += size
    trailers = draw(st.sampled_from([b"", b"A: b\r\n"]))
    return (
        body,
        interim + OK + b"Transfer-Encoding: Chunked\r\n\r\n" + sent + b"000\r\n" + trailers + b"\r\n",
        how,
    )


@given(framed(), st.lists(st.integers(0, 500), max_size=6), st.booleans(), st.booleans())
def test_a_body_is_what_was_sent_however_it_comes(
    sent: tuple[bytes, bytes, str], cuts: list[int], pieces: bool, more: bool
) -> None:
    body, data, how = sent
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    parts = [data[begin:end] for begin, end in pairwise(places)]
    with connected(
        Script(*parts, b"!" if more and how != "until closed" else b""), Script(OK + b"\r\n")
    ) as connection:
        answer = connection.ask(b"GET 1")
        assert whole(answer, at_once=None if pieces else len(body) + 7) == body
        assert whole(answer, at_once=None if pieces else 7) == b""
        answer.close()
        surplus = more and len(answer._flow._bytes[answer._flow._at : answer._flow._end]) > 0
        assert connection.kept == (how != "until closed" and not surplus)


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_what_comes_after_a_body_is_nobodys_answer(size: int) -> None:
    body = b"x" * size
    first = Script(OK + b"Content-Length: %d\r\n\r\n" % size + body + OK + b"Content-Length: 4\r\n\r\nevil")
    second = Script(OK + b"Content-Length: 4\r\n\r\ngood")
    with connected(first, second) as connection:
        answer = connection.ask(b"GET 1")
        assert answer.read(size) == body
        answer.close()
        assert first.closed
        assert connection.ask(b"GET 2").read(4) == b"good"
    assert (first.heard, second.heard) == ([b"GET 1"], [b"GET 2"])


def test_what_was_asked_ahead_is_answered_on_the_same_connection() -> None:
    script = Script(OK + b"Content-Length: 3\r\n\r\none", OK + b"Content-Length: 3\r\n\r\ntwo")
    with connected(script) as connection:
        answer = connection.ask(b"GET 1")
        connection.ask_ahead(b"GET too early")  # its body has not been taken
        assert bytes(answer.piece()) == b"one"
        connection.ask_ahead(b"GET 2")
        assert script.heard == [b"GET 1", b"GET 2"]
        answer.close()
        assert connection.ask(b"GET 2").read(3) == b"two"
    assert script.heard == [b"GET 1", b"GET 2"]


def test_another_question_than_the_one_asked_ahead_is_not_given_its_answer() -> None:
    first = Script(OK + b"Content-Length: 3\r\n\r\none", OK + b"Content-Length: 3\r\n\r\ntwo")
    second = Script(OK + b"Content-Length: 5\r\n\r\nthree")
    with connected(first, second) as connection:
        assert connection.ask(b"GET 1").read(3) == b"one"
        connection.ask_ahead(b"GET 2")
        assert connection.ask(b"GET 3").read(5) == b"three"
        assert first.closed
        assert second.heard == [b"GET 3"]


def test_a_connection_that_is_closed_after_an_answer_says_nothing_of_the_next() -> None:
    first = Script(OK + b"Content-Length: 3\r\n\r\none")
    second = Script(OK + b"Content-Length: 3\r\n\r\ntwo")
    with connected(first, second) as connection:
        assert connection.ask(b"GET 1").read(3) == b"one"
        connection.ask_ahead(b"GET 2")
        assert connection.kept
        with pytest.raises(ConnectionError, match="without an answer"):
            connection.ask(b"GET 2")
        assert connection.ask(b"GET 2").read(3) == b"two"
        first.closed = True
        assert second.heard == [b"GET 2"]


def test_a_question_ahead_that_cannot_be_sent_is_asked_later() -> None:
    first, second = Script(OK + b"Content-Length: 0\r\n\r\n"), Script(OK + b"Content-Length: 1\r\n\r\n2")
    with connected(first, second) as connection:
        connection.ask(b"GET 1")
        first.closed = True
        connection.ask_ahead(b"GET 2")
        assert not connection.kept
        connection.ask_ahead(b"GET 2")
        assert connection.ask(b"GET 2").read(1) == b"2"


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", True),
        (b"HTTP/1.1 304\r\nContent-Length: 5\r\n\r\n", True),
        (b"HTTP/1.1 200 \nContent-Length: 0, 0\n\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\n", False),
        (b"HTTP/1.1 101 Another one\r\nConnection: Upgrade\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x\r\nConnection: y , close\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: closely\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, close\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nEmpty:\r\nOther: \xe9 \t\x01\t\r\nA:\tb\r\n\r\n", True),
    ],
)
def test_whether_a_connection_is_kept(head: bytes, kept: bool) -> None:
    with connected(Script(head)) as connection:
        answer = connection.ask(b"GET 1")
        assert (answer.head.length is not None) == (answer.read(5) == b"" and b"OK\r\n\r\n" not in head)
        answer.close()
        assert connection.kept == kept


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n", False),
        (OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", False),
    ],
)
def test_chunks_that_others_might_read_otherwise_are_the_last_on_their_connection(
    head: bytes, kept: bool
) -> None:
    with connected(Script(head + b"1\r\nx\r\n0\r\n\r\n")) as connection:
        answer = connection.ask(b"GET 1")
        assert whole(answer, at_once=None) == b"x"
        answer.close()
        assert connection.kept == kept


@contextlib.contextmanager
def paired(count: int) -> Iterator[tuple[Connection, list[socket.socket]]]:
    """A connection that is opened up to so many times, and its other ends."""
    pairs = [socket.socketpair() for _ in range(count)]
    for ours, _ in pairs:
        ours.settimeout(5)
    with (
        mock.patch.object(socket, "create_connection", side_effect=[ours for ours, _ in pairs]),
        mock.patch.object(socket, "IPPROTO_TCP", socket.SOL_SOCKET),  # these have no delay to be without
        mock.patch.object(socket, "TCP_NODELAY", socket.SO_KEEPALIVE),
    ):
        connection = Connection(("host", 80), timeout=5, slowest=1)
        yield connection, [other for _, other in pairs]
        connection.close()
    for one, other in pairs:
        one.close()
        other.close()


@pytest.mark.parametrize("unasked", [b"HTTP/1.1 408 You are slow\r\nContent-Length: 0\r\n\r\n", b"", b"\r\n"])
@pytest.mark.parametrize("ahead", [True, False])
def test_what_comes_unasked_is_nobodys_answer(unasked: bytes, ahead: bool) -> None:
    with paired(2) as (connection, (first, second)):
        first.sendall(OK + b"Content-Length: 3\r\n\r\none")
        assert connection.ask(b"GET 1").read(3) == b"one"
        if unasked:
            first.sendall(unasked)
        else:
            first.shutdown(socket.SHUT_RDWR)
        if ahead:
            connection.ask_ahead(b"GET 2")
        second.sendall(OK + b"Content-Length: 3\r\n\r\ntwo")
        assert connection.ask(b"GET 2").read(3) == b"two"
        assert first.recv(100) == b"GET 1"
        assert second.recv(100) == b"GET 2"


def test_what_tls_has_taken_from_the_socket_is_unasked_too() -> None:
    first, second = Script(OK + b"Content-Length: 0\r\n\r\n"), Script(OK + b"Content-Length: 0\r\n\r\n")
    with connected(first, second) as connection, mock.patch.object(first, "pending", create=True):
        connection.ask(b"GET 1")
        connection.ask(b"GET 2")
    assert (first.heard, second.heard) == ([b"GET 1"], [b"GET 2"])


def test_an_answer_asked_for_ahead_that_nobody_took_for_long_is_asked_for_anew() -> None:
    first = Script(OK + b"Content-Length: 3\r\n\r\none", OK + b"Content-Length: 3\r\n\r\ntw")
    second = Script(OK + b"Content-Length: 3\r\n\r\ntwo")
    with connected(first, second) as connection, mock.patch.object(time, "monotonic") as now:
        now.return_value = 100.0
        assert connection.ask(b"GET 1").read(3) == b"one"
        connection.ask_ahead(b"GET 2")
        now.return_value = 106.0
        assert connection.ask(b"GET 2").read(3) == b"two"


def test_the_time_that_is_spent_between_pieces_is_not_the_servers() -> None:
    class Slow(Script):
        taken = 0.0

        def recv_into(self, buffer: memoryview) -> int:
            now.return_value += self.taken
            return super().recv_into(buffer)

    for took, between in ((0.0, 60.0), (6.0, 0.0)):
        script = Slow(OK + b"Content-Length: 6\r\n\r\n", b"one", b"two")
        with connected(script, slowest=1000) as connection, mock.patch.object(time, "monotonic") as now:
            now.return_value = 100.0
            answer = connection.ask(b"GET 1")
            script.taken = took
            with pytest.raises(TimeoutError, match="too slowly") if took else contextlib.nullcontext():
                for piece in (b"one", b"two"):
                    assert bytes(answer.piece()) == piece
                    now.return_value += between


@pytest.mark.parametrize("ahead", [True, False])
def test_a_connection_that_another_thread_closes_is_an_error_of_the_system(ahead: bool) -> None:
    script = Script(OK + b"Content-Length: 3\r\n\r\none", OK + b"Content-Length: 3\r\n\r\ntwo")
    with connected(script) as connection:
        assert connection.ask(b"GET 1").read(3) == b"one"
        if ahead:
            connection.ask_ahead(b"GET 2")
        with (
            mock.patch.object(script, "sendall", side_effect=lambda _: connection.close()),
            mock.patch.object(wire._Flow, "begin", side_effect=connection.close),
            pytest.raises(OSError, match="closed"),
        ):
            connection.ask(b"GET 2")
        assert not connection.kept


def test_an_interrupt_while_a_question_is_sent_ahead_leaves_no_answer_for_the_next() -> None:
    first = Script(OK + b"Content-Length: 3\r\n\r\none", OK + b"Content-Length: 3\r\n\r\ntwo")
    second = Script(OK + b"Content-Length: 5\r\n\r\nthree")

    def interrupted(request: bytes) -> None:
        first.heard.append(request)
        raise KeyboardInterrupt

    with connected(first, second) as connection:
        assert connection.ask(b"GET 1").read(3) == b"one"
        with mock.patch.object(first, "sendall", interrupted), pytest.raises(KeyboardInterrupt):
            connection.ask_ahead(b"GET 2")
        assert connection.ask(b"GET 3").read(5) == b"three"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"220 smtp ESMTP\r\n\r\n", "no answer of HTTP/1.1: '220 smtp"),
        (b"HTTP/2 200\r\n\r\n", "no answer of HTTP/1.1"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "no answer of HTTP/1.1"),
        (b"HTTP/1.1 0200 OK\r\n\r\n", "no answer of HTTP/1.1"),
        (b"\r\n" + OK + b"\r\n", "no answer of HTTP/1.1"),
        (b"HTTP/1.1 200 OK", "no answer of HTTP/1.1: b'HTTP/1.1 200 OK'"),
        (OK + b"No colon\r\n\r\n", "no header: 'No colon"),
        (OK + b"Content-Length : 5\r\n\r\n", "no header"),
        (OK + b": 5\r\n\r\n", "no header"),
        (OK + b" folded: from nothing\r\n\r\n", "no header"),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "its length is none: '5, 6'"),
        (OK + b"Content-Length: -5\r\n\r\n", "its length is none"),
        (OK + b"Content-Length: +5\r\n\r\n", "its length is none"),
        (OK + b"Content-Length: 5_0\r\n\r\n", "its length is none"),
        (OK + b"Content-Length: \xb2\r\n\r\n", "its length is none"),
        (OK + b"Content-Length: \r\n\r\n", "its length is none"),
        (OK + b"Content-Length: 5\xa0\r\n\r\n", "its length is none"),
        (OK + b"Content-Length: 5\x0b\r\n\r\n", "its length is none"),
        (OK + b"Content-Length: 5\r\r\n\r\n", "no header"),
        (OK + b"A: b\rContent-Length: 5\r\n\r\n", "no header"),
        (OK + b"A: b\r\n c\rContent-Length: 5\r\n\r\n", "no header"),
        (OK + b"A: b\0\r\n\r\n", "no header"),
        (OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", "its length is none"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "nobody asked for: 'gzip, chunked'"),
        (OK + b"Transfer-Encoding: identity\r\n\r\n", "nobody asked for"),
        (OK + b"A: " + b"b" * 70_000, "do not end"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", "does not end"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde", "does not say how long"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabcde", "does not say how long"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n\r\n", "does not say how long"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5;\r0\r\nabcde", "does not say how long"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 20 + b"\r\n", "does not say how long"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc", "within a chunk"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", "longer than it says"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b", "does not end"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 5000, "does not end"),
    ],
)
@pytest.mark.parametrize("at_once", [None, 1000])
def test_what_is_no_answer(said: bytes, why: str, at_once: int | None) -> None:
    script = Script(said)
    with connected(script) as connection:
        with pytest.raises(WireError, match=why.replace("+", r"\+")):
            whole(connection.ask(b"GET 1"), at_once=at_once)
        connection.close()
        assert script.closed


def test_an_answer_that_is_cut_short_is_not_waited_for_and_its_connection_not_kept() -> None:
    script = Script(OK + b"Content-Length: 5\r\n\r\nabc")
    with connected(script) as connection:
        answer = connection.ask(b"GET 1")
        assert answer.read(5) == b"abc"
        assert not connection.kept
        answer.close()
        assert script.closed


@given(
    st.integers(200, 599),
    st.lists(st.tuples(TOKENS, VALUES), max_size=8),
    st.none() | st.integers(0, 1 << 40) | st.just("chunked"),
    st.sampled_from([b"\r\n", b"\n"]),
)
def test_heads_are_read_as_the_standard_library_does(
    status: int, headers: list[tuple[str, str]], framing: int | str | None, end: bytes
) -> None:
    lines = [f"HTTP/1.1 {status} So be it"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() not in OWN]
    if isinstance(framing, int):
        lines.append(f"Content-Length: {framing}")
    elif framing is not None:
        lines.append(f"Transfer-Encoding: {framing}")
    data = end.join(line.encode("latin-1") for line in lines)
    ours = Head.parse(data)

    class Fake:
        def makefile(self, *_: object, **__: object) -> io.BytesIO:
            return io.BytesIO(data + end + end)

    theirs = http.client.HTTPResponse(Fake(), method="GET")  # type: ignore[arg-type]  # all that it asks a socket for
    theirs.begin()
    assert (ours.status, ours.reason) == (theirs.status, theirs.reason)
    for name in {name for name, _ in headers} - OWN:
        found = theirs.headers.get_all(name)
        if found is not None and name.lower() not in OWN:
            assert ours.headers[name.lower()] == ", ".join(value.strip(" \t") for value in found)
    assert (ours.length, ours.chunked or status in (204, 304)) == (
        theirs.length,
        bool(theirs.chunked) or status in (204, 304),
    )
    assert ours.keeps == (not theirs.will_close)
