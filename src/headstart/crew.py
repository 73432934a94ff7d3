"""A few threads that stay: what keeps a connection for each thread is asked by the same ones over and over.

They are daemons, so an interrupted program does not wait for a download that drips. ``parallel`` is for those
who must start fast and do one thing.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Final, Self, TypeVar

_PATIENCE: Final = 5.0
"""Seconds to wait for what is under way when something has failed."""
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class Crew:
    """Some threads, while a ``with`` block lasts."""

    def __init__(self, workers: int) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(_PATIENCE)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def submit(self, do: Callable[[], _Result]) -> Future[_Result]:
        """Have something done by the next thread that is free."""
        future: Future[_Result] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = do()
            except BaseException as error:  # noqa: BLE001  # raised again by whoever asks for the result
                future.set_exception(error)
            else:
                future.set_result(result)

        self._jobs.put(job)
        return future

    def all(self, tasks: list[_Task], do: Callable[[_Task, threading.Event], None]) -> None:
        """Do all tasks, begun in their order; the first error ends it and is raised.

        Args:
            tasks: what to do it with.
            do: called from several threads; the event says that the others have given up, and then it must
                leave nothing behind.
        """
        following = iter(tasks)
        lock = threading.Lock()
        stop = threading.Event()

        def work() -> None:
            try:
                while not stop.is_set():
                    with lock:
                        task = next(following, None)
                    if task is None:
                        return
                    do(task, stop)
            except BaseException:
                stop.set()
                raise

        futures = [self.submit(work) for _ in range(min(len(self._threads), len(tasks)))]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            stop.set()
            wait(futures, timeout=_PATIENCE)
