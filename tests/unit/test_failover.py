"""Several servers and proxies: who is asked, who is blamed, and what comes out in the end."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import CorruptError, Error, MissingError, UnavailableError
from headstart.failover import FailoverStratum, FileNotes, Ledger, NoNotes
from headstart.route import DIRECT, Patience, Route
from headstart.stratum import Sink, Stratum

Answer = Callable[[str, str], bytes]


class Network:
    """Servers and proxies that do as they are told; every question is noted."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []
        self.waited: list[float] = []
        self.patience: set[float] = set()
        self.time = 1000.0

    def reach(self, server: str, proxy: str | None, timeout: float) -> Stratum:
        self.patience.add(timeout)
        return Way(self, server, proxy or DIRECT)

    def stratum(self, route: Route, ledger: Ledger | None = None, first: int = 0) -> FailoverStratum:
        known = ledger or Ledger(NoNotes(), lambda: self.time, route.patience.remembered)
        return FailoverStratum(
            route, self.reach, known, draw=lambda most: first % most, pause=self.waited.append
        )


class Way(Stratum):
    def __init__(self, network: Network, server: str, proxy: str) -> None:
        self._network = network
        self._way = (server, proxy)

    @property
    def name(self) -> str:
        return self._way[0]

    def another(self) -> None:
        return None

    def fetch(self, path: str, *, limit: int, fresh: bool = False) -> bytes:
        self._network.asked.append(self._way)
        return self._network.answer(*self._way)


def silent(*names: str) -> Answer:
    def answer(server: str, proxy: str) -> bytes:
        for name in (server, proxy):
            if name in names:
                raise UnavailableError(f"{server} through {proxy} is silent")
        return f"{server} {proxy}".encode()

    return answer


TWO = Route(servers=("A", "B"), proxies=(("p", "q"), (DIRECT,)))


def test_the_first_way_is_the_only_one_while_it_works() -> None:
    network = Network(silent())
    stratum = network.stratum(TWO)
    assert [stratum.fetch("x", limit=1) for _ in range(3)] == [b"A p"] * 3
    assert network.asked == [("A", "p")] * 3
    assert stratum.name == "A"
    assert network.patience == {TWO.patience.timeout}


def test_within_a_group_the_load_is_shared() -> None:
    network = Network(silent())
    assert network.stratum(TWO, first=1).fetch("x", limit=1) == b"A q"
    assert [proxy for _, proxy in network.stratum(TWO, first=1).ways()] == ["q", "p", DIRECT] * 2


def test_a_bad_proxy_comes_last_for_a_while() -> None:
    network = Network(silent("p"))
    stratum = network.stratum(TWO)
    for _ in range(2):
        assert stratum.fetch("x", limit=1) == b"A q"
    assert network.asked == [("A", "p"), ("A", "q"), ("A", "q")]
    network.time += TWO.patience.remembered
    stratum.fetch("x", limit=1)
    assert network.asked[-2:] == [("A", "p"), ("A", "q")]


def test_a_bad_server_comes_last_and_no_proxy_is_blamed_for_it() -> None:
    network = Network(silent("A"))
    stratum = network.stratum(TWO)
    for _ in range(2):
        assert stratum.fetch("x", limit=1) == b"B p"
    assert network.asked == [("A", "p"), ("A", "q"), ("A", DIRECT), ("B", "p"), ("B", "p")]
    assert stratum.name == "B"
    assert network.patience == {TWO.patience.timeout, TWO.patience.timeout_direct}


def test_a_dead_first_group_is_left_for_the_next() -> None:
    network = Network(silent("p", "q"))
    stratum = network.stratum(TWO)
    assert [stratum.fetch("x", limit=1) for _ in range(2)] == [b"A DIRECT"] * 2
    assert network.asked == [("A", "p"), ("A", "q"), ("A", DIRECT), ("A", DIRECT)]


def test_all_ways_are_tried_again_after_a_pause_that_grows() -> None:
    left = [12]

    def answer(server: str, proxy: str) -> bytes:
        left[0] -= 1
        if left[0] >= 0:
            raise UnavailableError("not yet")
        return b"now"

    network = Network(answer)
    patience = Patience(retries=4, backoff=1.0, backoff_most=1.5)
    assert network.stratum(Route(servers=TWO.servers, proxies=TWO.proxies, patience=patience)).fetch(
        "x", limit=1
    ) == (b"now")
    assert network.waited == [1.0, 1.5]


def test_when_no_way_leads_there_every_reason_is_told() -> None:
    network = Network(silent("A", "B"))
    with pytest.raises(UnavailableError, match="any of 6 ways: A through p is silent; A through q") as caught:
        network.stratum(TWO).fetch("x", limit=1)
    assert "B through DIRECT is silent" in caught.value.message
    assert len(network.asked) == 12
    single = Network(silent("A"))
    with pytest.raises(UnavailableError, match=r"^A through DIRECT is silent$"):
        single.stratum(Route(servers=("A",))).fetch("x", limit=1)


def test_a_server_that_is_behind_is_followed_by_the_next() -> None:
    def answer(server: str, proxy: str) -> bytes:
        if server == "A":
            raise MissingError("not at A")
        return b"from B"

    network = Network(answer)
    assert network.stratum(TWO).fetch("x", limit=1) == b"from B"
    assert network.asked == [("A", "p"), ("B", "p")]


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (MissingError("m"), MissingError("n"), MissingError),
        (MissingError("m"), UnavailableError("u"), UnavailableError),
        (CorruptError("c"), MissingError("m"), CorruptError),
        (CorruptError("c"), UnavailableError("u"), CorruptError),
    ],
)
def test_of_several_errors_the_gravest_is_told(first: Error, second: Error, wanted: type[Error]) -> None:
    def answer(server: str, proxy: str) -> bytes:
        raise first if server == "A" else second

    network = Network(answer)
    with pytest.raises(wanted):
        network.stratum(Route(servers=("A", "B"))).fetch("x", limit=1)


def test_what_came_of_a_way_that_broke_off_counts_for_nothing() -> None:
    class Breaking(Way):
        """Proxy p gives half of the file."""

        def pour(self, path: str, sink: Sink, *, limit: int, fresh: bool = False) -> None:
            content = self.fetch(path, limit=limit, fresh=fresh)
            sink.begin()
            sink.take(content[:1])
            if b" p" in content:
                raise UnavailableError("it broke off")
            sink.take(content[1:])

    class Bowl:
        def __init__(self) -> None:
            self.content = b""

        def following(self) -> None:
            pass

        def begin(self) -> None:
            self.content = b""

        def take(self, piece: bytes | memoryview) -> None:
            self.content += piece

    network = Network(silent())
    ledger = Ledger(NoNotes(), lambda: network.time, TWO.patience.remembered)
    stratum = FailoverStratum(
        TWO,
        lambda server, proxy, _patience: Breaking(network, server, proxy or DIRECT),
        ledger,
        draw=lambda _most: 0,
        pause=network.waited.append,
    )
    bowl = Bowl()
    stratum.pour("x", bowl, limit=10)
    assert bowl.content == b"A q"
    assert ledger.is_bad("p")
    assert network.waited == []


def test_another_leaves_out_the_proxy_and_then_the_server() -> None:
    network = Network(silent())
    stratum = network.stratum(TWO)
    second = stratum.another()
    assert second is not None
    assert second.fetch("x", limit=1) == b"A q"
    # The proxy comes last from now on.
    assert stratum.fetch("x", limit=1) == b"A q"
    third = second.another()
    assert third is not None
    assert third.fetch("x", limit=1) == b"A DIRECT"
    fourth = third.another()
    # The same through all of them: it was the server, and it comes last, and they do not.
    assert fourth is not None
    assert fourth.fetch("x", limit=1) == b"B p"
    assert stratum.fetch("x", limit=1) == b"B p"
    last = fourth
    for way in (b"B q", b"B DIRECT"):
        following = last.another()
        assert following is not None
        assert following.fetch("x", limit=1) == way
        last = following
    assert last.another() is None


def test_without_proxies_another_leaves_out_the_server() -> None:
    network = Network(silent())
    stratum = network.stratum(Route(servers=("A", "B")))
    other = stratum.another()
    assert other is not None
    assert other.fetch("x", limit=1) == b"B DIRECT"
    assert other.another() is None
    assert stratum.fetch("x", limit=1) == b"B DIRECT"


def test_another_leaves_out_who_answered_though_others_have_blamed_it_meanwhile() -> None:
    network = Network(silent())
    ledger = Ledger(NoNotes(), lambda: network.time, 300)
    stratum = network.stratum(Route(servers=("A", "B")), ledger)
    assert stratum.fetch("x", limit=1) == b"A DIRECT"
    ledger.blame("A")
    other = stratum.another()
    assert other is not None
    assert other.fetch("x", limit=1) == b"B DIRECT"
    assert not ledger.is_bad("B")


def test_the_next_process_knows(tmp_path: Path) -> None:
    notes = FileNotes(str(tmp_path / "cache" / "ways.json"))
    network = Network(silent("p"))
    ledger = Ledger(notes, lambda: network.time, 300)
    network.stratum(TWO, ledger).fetch("x", limit=1)
    again = Network(silent("p"))
    again.stratum(TWO, Ledger(notes, lambda: network.time + 5, 300)).fetch("x", limit=1)
    assert again.asked == [("A", "q")]
    # After a boot the clock begins anew: what is noted lies in the future, and nobody is bad.
    assert not Ledger(notes, lambda: 3.0, 300).is_bad("p")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"p": "x"}', '{"p": null}', "[" * 10000])
def test_damaged_notes_are_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "ways.json").write_text(text)
    assert FileNotes(str(tmp_path / "ways.json")).read() == {}


def test_notes_that_cannot_be_written_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    FileNotes(str(tmp_path / "file" / "ways.json")).write({"p": 1.0})


SERVERS, PROXIES = ("A", "B", "C"), ("p", "q", "r", DIRECT)


@given(
    st.lists(st.sampled_from(SERVERS), min_size=1, unique=True),
    st.lists(st.lists(st.sampled_from(PROXIES), min_size=1, unique=True), min_size=1, max_size=3),
    st.sets(st.tuples(st.sampled_from(SERVERS), st.sampled_from(PROXIES))),
    st.integers(0, 3),
)
def test_what_one_way_has_is_found_however_many_are_dead(
    servers: list[str], groups: list[list[str]], dead: set[tuple[str, str]], first: int
) -> None:
    def answer(server: str, proxy: str) -> bytes:
        if (server, proxy) in dead:
            raise UnavailableError("dead")
        return b"found"

    network = Network(answer)
    stratum = network.stratum(Route(servers=tuple(servers), proxies=tuple(map(tuple, groups))), first=first)
    ways = {(server, proxy) for server in servers for group in groups for proxy in group}
    for _ in range(3):
        if ways <= dead:
            with pytest.raises(UnavailableError):
                stratum.fetch("x", limit=1)
        else:
            assert stratum.fetch("x", limit=1) == b"found"
    # Blame moves ways to the end and never drops one.
    assert set(stratum.ways()) == ways


@given(
    st.lists(st.sampled_from(SERVERS), min_size=1, unique=True),
    st.lists(st.sampled_from(PROXIES), min_size=1, unique=True),
    st.sets(st.sampled_from(SERVERS)),
    st.sets(st.sampled_from(PROXIES[:-1])),
    st.lists(st.sampled_from([*SERVERS, *PROXIES[:-1]]), max_size=12),
)
def test_whoever_lies_an_honest_way_is_found(
    servers: list[str],
    proxies: list[str],
    lying_servers: set[str],
    lying_proxies: set[str],
    blamed: list[str],
) -> None:
    """Whatever other threads find out, or believe to, between an answer and what this one makes of it."""

    def answer(server: str, proxy: str) -> bytes:
        return b"bad" if server in lying_servers or proxy in lying_proxies else b"good"

    others = bool(blamed)
    network = Network(answer)
    ledger = Ledger(NoNotes(), lambda: network.time, 300)
    stratum = network.stratum(Route(servers=tuple(servers), proxies=tuple((one,) for one in proxies)), ledger)
    source: FailoverStratum | None = stratum
    found = b""
    while source is not None and found != b"good":
        found = source.fetch("x", limit=1)
        if blamed:
            ledger.blame(blamed.pop())
        source = source.another() if found != b"good" else source
    assert (found == b"good") == bool(set(servers) - lying_servers and set(proxies) - lying_proxies)
    assert len(network.asked) <= len(servers) * len(proxies)
    if found == b"good" and not others:
        # And from now on at once.
        assert stratum.fetch("x", limit=1) == b"good"
