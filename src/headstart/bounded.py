"""Questions that may never be answered, asked so that nobody waits for ever. Standard library only.

A file system whose server has gone does not return from a look at it, and a name server may be silent for
minutes; neither takes a timeout. So each question is asked by a process of its own, which is killed when its
time is over. One that not even a kill reaches (the kernel waits for a dead server on its behalf) is left alone.
"""

import contextlib
import os
import pickle
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from headstart.nodefacts import Silence

K = TypeVar("K")
T = TypeVar("T")

_PIECE: Final = 1 << 16
_LAST_WAIT: Final = 0.2
"""Seconds in which a killed process should be gone."""


@dataclass(slots=True)
class _Asked(Generic[K]):
    """A question that is under way."""

    key: K
    child: int
    descriptor: int
    until: float
    said: bytearray = field(default_factory=bytearray)


def ask(questions: Mapping[K, Callable[[], T]], seconds: float, *, most: int = 16) -> dict[K, T | Silence]:
    """Ask all questions, several at a time, and come back with what was answered.

    This process must have one thread only, as it forks.

    Args:
        questions: by name. What they return is carried over a pipe, so it must be plain values.
        seconds: that each may take.
        most: how many to ask at a time.

    Returns:
        By name: the answer; or ``Silence`` where none came in time, or the question itself failed.
    """
    waiting = list(questions.items())
    found: dict[K, T | Silence] = {}
    with selectors.DefaultSelector() as selector:
        under_way: dict[int, _Asked[K]] = {}
        try:
            while waiting or under_way:
                while waiting and len(under_way) < most:
                    asked = _start(*waiting.pop(0), seconds)
                    under_way[asked.descriptor] = asked
                    selector.register(asked.descriptor, selectors.EVENT_READ)
                soonest = min(asked.until for asked in under_way.values())
                for key, _ in selector.select(max(0.0, soonest - time.monotonic())):
                    asked = under_way[key.fd]
                    piece = os.read(key.fd, _PIECE)
                    asked.said += piece
                    if not piece:
                        selector.unregister(key.fd)
                        del under_way[key.fd]
                        found[asked.key] = _end(asked)
                for asked in [one for one in under_way.values() if one.until <= time.monotonic()]:
                    selector.unregister(asked.descriptor)
                    del under_way[asked.descriptor]
                    _kill(asked)
                    found[asked.key] = Silence(seconds=seconds)
        finally:
            for asked in under_way.values():
                _kill(asked)
    return {key: found[key] for key in questions}


def _start(key: K, question: Callable[[], T], seconds: float) -> _Asked[K]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as stream:
                pickle.dump(question(), stream)
            code = 0
        except BaseException:  # noqa: BLE001  # the child must end here, whatever happens
            code = 1
        finally:
            os._exit(code)
    os.close(writing)
    return _Asked(key=key, child=child, descriptor=reading, until=time.monotonic() + seconds)


def _end(asked: "_Asked[K]") -> T | Silence:
    """The answer of a child that has said all it has to say."""
    os.close(asked.descriptor)
    os.waitpid(asked.child, 0)
    try:
        answer: T = pickle.loads(asked.said)  # noqa: S301  # written by our own child
    except (EOFError, pickle.UnpicklingError):
        return Silence(seconds=0.0)
    return answer


def _kill(asked: "_Asked[K]") -> None:
    os.close(asked.descriptor)
    os.kill(asked.child, signal.SIGKILL)
    until = time.monotonic() + _LAST_WAIT
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(asked.child, os.WNOHANG)[0] == 0 and time.monotonic() < until:
            time.sleep(0.005)
