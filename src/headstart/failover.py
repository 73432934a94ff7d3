"""Reading a repository over a route of several servers and proxies. Standard library only.

Theory of operation. Every pair of a server and a proxy is a way, and ways are tried in order: for each server,
as the route names them, each group of proxies, and in a group from a place that this process has drawn. A way
that does not answer is followed by the next. Who is to blame is seen by what does answer: where the same server
is reached through another proxy, the proxy was bad; where another server is reached, the server was. What was
bad comes last for a while, in this process and (through the notes) in the next ones on this node. When no way
leads anywhere, all are tried once more after a pause.

"Not there" is an answer, but a server may be behind another (a Stratum 1 replicates now and then), so the other
servers are asked too. Bytes that are not what their name says are found out further up; ``another`` then gives
the same route without the proxy that they came through, which may have kept a damaged copy or say what it
likes. Where they come through every proxy it was the server, so the proxies are believed again, and the route
goes on without that server.
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol, TypeVar

from headstart.errors import CorruptError, Error, MissingError, UnavailableError
from headstart.route import DIRECT, Route
from headstart.stratum import Sink, Stratum

T = TypeVar("T")
Reach = Callable[[str, str | None, float], Stratum]
"""Makes a stratum of a server's address, a proxy (None for none), and seconds of patience."""
_MOST_NOTES: Final = 1 << 16


class Notes(Protocol):
    """What a node remembers of servers and proxies that failed."""

    def read(self) -> dict[str, float]:
        """When each of them failed last, in seconds of the node's monotonic clock."""

    def write(self, failed: dict[str, float]) -> None:
        """Keep that for the next process; failing to is no error."""


class NoNotes:
    """Nothing is remembered beyond this process."""

    def read(self) -> dict[str, float]:
        """See ``Notes``."""
        return {}

    def write(self, failed: dict[str, float]) -> None:
        """See ``Notes``."""


class FileNotes:
    """Notes in a file of the user's own."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> dict[str, float]:
        """See ``Notes``; a damaged file is as good as none."""
        try:
            with open(self._path, "rb") as file:
                found = json.loads(file.read(_MOST_NOTES))
            return {str(name): float(when) for name, when in found.items()}
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            return {}

    def write(self, failed: dict[str, float]) -> None:
        """See ``Notes``."""
        temporary = f"{self._path}.{os.getpid()}"
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with open(temporary, "w", encoding="ascii") as file:
                json.dump(failed, file)
            os.replace(temporary, self._path)


class Ledger:
    """Who failed, and when.

    Args:
        notes: what is remembered beyond this process.
        now: seconds of the node's monotonic clock, which all its processes share until it boots.
        remembered: for how many seconds.
    """

    def __init__(self, notes: Notes, now: Callable[[], float], remembered: float) -> None:
        self._notes = notes
        self._now = now
        self._remembered = remembered
        self._lock = threading.Lock()
        self._failed = notes.read()

    def is_bad(self, name: str) -> bool:
        """Whether it failed not long ago; a time to come is no time that is believed."""
        return 0 <= self._now() - self._failed.get(name, -self._remembered) < self._remembered

    def blame(self, name: str) -> None:
        """It has failed, and another in its place has not."""
        with self._lock:
            if not self.is_bad(name):
                self._failed = {one: when for one, when in self._failed.items() if self.is_bad(one)}
                self._failed[name] = self._now()
                self._notes.write(dict(self._failed))

    def pardon(self, names: frozenset[str]) -> None:
        """They were blamed for what was somebody else's fault."""
        with self._lock:
            if not names.isdisjoint(self._failed):
                self._failed = {one: when for one, when in self._failed.items() if one not in names}
                self._notes.write(dict(self._failed))


class Without(NamedTuple):
    """Who is left out of a route."""

    servers: frozenset[str]
    proxies: frozenset[str]
    """All of them for bad bytes of one server,"""
    server: str = ""
    """which is asked first until it has been asked through all others."""


NOBODY: Final = Without(frozenset(), frozenset())


class FailoverStratum:
    """A repository behind a route. Safe to use from several threads.

    Args:
        route: where to read it from.
        reach: makes the stratum of one way.
        ledger: who failed before.
        draw: a number below its argument, at random.
        pause: waits for some seconds.
        without: who is not to be asked.
    """

    def __init__(
        self,
        route: Route,
        reach: Reach,
        ledger: Ledger,
        *,
        draw: Callable[[int], int],
        pause: Callable[[float], None],
        without: Without = NOBODY,
    ) -> None:
        self._route = route
        self._reach = reach
        self._ledger = ledger
        self._draw = draw
        self._pause = pause
        self._without = without
        groups = ((group, draw(len(group))) for group in route.proxies)
        ordered = (proxy for group, first in groups for proxy in (*group[first:], *group[:first]))
        self._proxies = tuple(proxy for proxy in dict.fromkeys(ordered) if proxy not in without.proxies)
        self._lock = threading.Lock()
        self._strata: dict[tuple[str, str], Stratum] = {}
        self._answered = threading.local()
        """Who answered this thread last: others may find out meanwhile who is bad, which changes the order."""

    @property
    def name(self) -> str:
        """The server that is asked first."""
        return self._servers()[0]

    def another(self) -> "FailoverStratum | None":
        """The same without the proxy, or else the server, that answered last; None when there is no other."""
        server, proxy = getattr(self._answered, "way", None) or next(self.ways())
        if len(self._proxies) > 1 and proxy != DIRECT:
            self._ledger.blame(proxy)
            return self._but(Without(self._without.servers, self._without.proxies | {proxy}, server))
        self._ledger.pardon(self._without.proxies)
        if len(self._servers()) < 2:
            return None
        self._ledger.blame(server)
        return self._but(Without(self._without.servers | {server}, frozenset()))

    def _but(self, without: Without) -> "FailoverStratum":
        return FailoverStratum(
            self._route, self._reach, self._ledger, draw=self._draw, pause=self._pause, without=without
        )

    def fetch(self, path: str, *, limit: int, fresh: bool = False) -> bytes:
        """Read one file; see ``stratum.Stratum``."""
        return self._ask(path, lambda way: way.fetch(path, limit=limit, fresh=fresh))

    def pour(self, path: str, sink: Sink, *, limit: int, fresh: bool = False) -> None:
        """Read one file; see ``stratum.Stratum``."""
        self._ask(path, lambda way: way.pour(path, sink, limit=limit, fresh=fresh))

    def _ask(self, path: str, ask: Callable[[Stratum], T]) -> T:
        """Try all ways, and all once more after a pause while none leads anywhere."""
        patience = self._route.patience
        wait = patience.backoff
        for left in reversed(range(patience.retries + 1)):
            found = self._once(path, ask)
            if not isinstance(found, Error):
                return found
            if not left or isinstance(found, MissingError | CorruptError):
                raise found
            self._pause(wait)
            wait = min(2 * wait, patience.backoff_most)
        raise AssertionError("the last try returns or raises")

    def _once(self, path: str, ask: Callable[[Stratum], T]) -> T | Error:
        """Try every way once: what was found, or the error that says most."""
        failed: list[tuple[str, str]] = []
        errors: list[Error] = []
        for server in self._servers():
            for proxy in self._by_trust(self._proxies):
                self._answered.way = server, proxy
                try:
                    found = ask(self._stratum(server, proxy))
                except UnavailableError as error:
                    failed.append((server, proxy))
                    errors.append(error)
                except (MissingError, CorruptError) as error:
                    # This server has answered; what it says may still not be what the others say.
                    errors.append(error)
                    self._blame(failed, server, proxy)
                    break
                else:
                    self._blame(failed, server, proxy)
                    return found
        return self._worst(path, errors)

    def _blame(self, failed: list[tuple[str, str]], server: str, proxy: str) -> None:
        for other_server, other_proxy in failed:
            if other_server == server:
                self._ledger.blame(other_proxy)
            elif other_proxy == proxy:
                self._ledger.blame(other_server)

    def _worst(self, path: str, errors: list[Error]) -> Error:
        """Of several errors the one to raise: damage, then silence (of all or some), then absence."""
        for kind in (CorruptError, UnavailableError, MissingError):
            found = [error for error in errors if isinstance(error, kind)]
            if found and (len(found) == 1 or not isinstance(found[0], UnavailableError)):
                return found[0]
            if found:
                reasons = "; ".join(dict.fromkeys(error.message for error in found))
                return UnavailableError(
                    f"cannot read {path} on any of {len(found)} ways: {reasons}", hint=found[0].hint
                )
        raise AssertionError("there is a way, and it gave neither bytes nor an error")

    def _servers(self) -> tuple[str, ...]:
        left = self._by_trust(tuple(one for one in self._route.servers if one not in self._without.servers))
        return tuple(sorted(left, key=lambda one: one != self._without.server))

    def _by_trust(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(names, key=self._ledger.is_bad))

    def _stratum(self, server: str, proxy: str) -> Stratum:
        with self._lock:
            known = self._strata.get((server, proxy))
            if known is None:
                patience = self._route.patience
                direct = proxy == DIRECT
                wait = patience.timeout_direct if direct else patience.timeout
                known = self._strata[server, proxy] = self._reach(server, None if direct else proxy, wait)
            return known

    def ways(self) -> Iterator[tuple[str, str]]:
        """Every server and proxy, in the order in which they would be tried now."""
        for server in self._servers():
            for proxy in self._by_trust(self._proxies):
                yield server, proxy
