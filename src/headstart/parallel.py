"""Doing many things with a few threads; ``concurrent.futures`` takes too long to import before a launch."""

import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

_PATIENCE: Final = 5.0
"""Seconds to wait for each thread when interrupted."""
_Task = TypeVar("_Task")


def in_parallel(tasks: Sequence[_Task], do: Callable[[_Task], None], *, workers: int) -> None:
    """Do all tasks, begun in their order, several at a time; the first error ends it and is raised.

    Args:
        tasks: what to do it with.
        do: called from several threads.
        workers: how many of them at most.
    """
    following = iter(tasks)
    lock = threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        while not failures:
            with lock:
                task = next(following, None)
            if task is None:
                return
            try:
                do(task)
            except BaseException as error:  # noqa: BLE001  # raised again by the thread that waits
                failures.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(tasks)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as error:
        # Interrupted while waiting: have the others stop before what they work on goes away.
        failures.append(error)
        for thread in threads:
            if thread.ident is not None:
                thread.join(_PATIENCE)
        raise
    if failures:
        raise failures[0]
