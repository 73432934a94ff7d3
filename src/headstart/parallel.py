"""Doing many things with a few threads; ``concurrent.futures`` takes too long to import before a launch."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

_PATIENCE: Final = 5.0
"""Seconds to wait for each thread when interrupted."""
_WORTH_IT: Final = 0.001
"""Seconds of waiting below which another thread would be more in the way than of use."""
_Task = TypeVar("_Task")


def in_parallel(
    tasks: Sequence[_Task], do: Callable[[_Task], None], *, workers: int, at_first: int | None = None
) -> None:
    """Do all tasks, begun in their order, several at a time; the first error ends it and is raised.

    Args:
        tasks: what to do it with.
        do: called from several threads.
        workers: how many of them at most.
        at_first: how many of them to begin with: each that finds itself waiting, not working, brings another.
            Threads that work are best as many as there are cores, since more of them take turns, and what is
            begun first ends late; threads that wait for somebody's answer are best many.
    """
    looking_ahead(tasks, lambda task, _following: do(task), workers=workers, at_first=at_first)


def looking_ahead(
    tasks: Sequence[_Task],
    do: Callable[[_Task, Callable[[], _Task | None]], None],
    *,
    workers: int,
    at_first: int | None = None,
) -> None:
    """The same, where a task is told how to ask for the one that its thread does next.

    Once asked for, it is that thread's: so this is for the end of a task, lest another one have time for it.
    """
    _Team(tasks, do, min(workers, len(tasks))).run(at_first or workers)


class _Team(Generic[_Task]):
    """Threads that take one task after the other, until there is none or one has failed."""

    def __init__(
        self, tasks: Sequence[_Task], do: Callable[[_Task, Callable[[], _Task | None]], None], most: int
    ) -> None:
        self._following = iter(tasks)
        self._do = do
        self._most = most
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def _grow(self) -> None:
        """Have one more thread, if there may be one, and can be."""
        with self._lock:
            if len(self._threads) < self._most and not self._failures:
                thread = threading.Thread(target=self._work, daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    # As many as the limit on processes allows: these do it, if there are any.
                    if not self._threads:
                        raise
                    self._most = len(self._threads)
                    return
                self._threads.append(thread)

    def run(self, at_first: int) -> None:
        """Begin with some, wait for all, also for those that come meanwhile, and raise the first error."""
        try:
            for _ in range(at_first):
                self._grow()
            for thread in self._threads:
                thread.join()
        except BaseException as error:
            # Interrupted while waiting: have the others stop before what they work on goes away.
            self._failures.append(error)
            for thread in self._threads:
                thread.join(_PATIENCE)
            raise
        if self._failures:
            raise self._failures[0]

    def _next(self) -> _Task | None:
        with self._lock:
            return next(self._following, None)

    def _work(self) -> None:
        mine: list[_Task] = []

        def following() -> _Task | None:
            if not mine and (task := self._next()) is not None:
                mine.append(task)
            return mine[0] if mine else None

        while not self._failures:
            task = mine.pop() if mine else self._next()
            if task is None:
                return
            begun, worked = time.monotonic(), time.thread_time()
            try:
                self._do(task, following)
            except BaseException as error:  # noqa: BLE001  # raised again by the thread that waits
                self._failures.append(error)
            worked = time.thread_time() - worked
            waited = time.monotonic() - begun - worked
            if waited > max(worked, _WORTH_IT):
                self._grow()
