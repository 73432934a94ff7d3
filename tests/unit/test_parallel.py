"""Threads: every task is done once, the first error ends it, and waiting brings more of them."""

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.parallel import in_parallel, looking_ahead


@given(st.integers(0, 40), st.integers(1, 8), st.none() | st.integers(1, 12))
def test_every_task_is_done_once(count: int, workers: int, at_first: int | None) -> None:
    done: list[int] = []
    in_parallel(range(count), done.append, workers=workers, at_first=at_first)
    assert sorted(done) == list(range(count))


@pytest.mark.parametrize("at_first", [None, 1, 3])
def test_the_first_error_is_raised_and_ends_it(at_first: int | None) -> None:
    done: list[int] = []

    def fail_at_five(task: int) -> None:
        if task == 5:
            raise ValueError("five")
        done.append(task)
        time.sleep(0.002)

    with pytest.raises(ValueError, match="five"):
        in_parallel(range(1000), fail_at_five, workers=3, at_first=at_first)
    assert len(done) < 1000


def test_threads_that_wait_bring_others_up_to_what_is_allowed() -> None:
    seen: set[int] = set()
    together = threading.Barrier(3)

    def wait(task: int) -> None:
        seen.add(threading.get_ident())
        if task > 10:
            together.wait(10)
        time.sleep(0.003)

    in_parallel(range(11 + 30), wait, workers=3, at_first=1)
    assert len(seen) == 3


def test_threads_that_work_stay_as_many_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "thread_time", time.monotonic)  # all that passes is work
    seen: set[int] = set()

    def work(_task: int) -> None:
        seen.add(threading.get_ident())
        time.sleep(0.003)

    in_parallel(range(20), work, workers=6, at_first=1)
    assert len(seen) == 1


@pytest.mark.parametrize("at_first", [None, 1])
def test_what_threads_there_can_be_do_it(monkeypatch: pytest.MonkeyPatch, at_first: int | None) -> None:
    real = threading.Thread.start
    started: list[threading.Thread] = []
    done: list[int] = []

    def start(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    def wait(task: int) -> None:
        done.append(task)
        time.sleep(0.003)

    monkeypatch.setattr(threading.Thread, "start", start)
    in_parallel(range(30), wait, workers=5, at_first=at_first)
    assert sorted(done) == list(range(30))
    assert len(started) == 2
    with pytest.raises(RuntimeError, match="can't start"):
        in_parallel(range(30), wait, workers=5, at_first=at_first)


@given(st.integers(0, 40), st.integers(1, 8), st.lists(st.integers(0, 2), min_size=40, max_size=40))
def test_what_a_thread_has_asked_for_is_what_it_does_next(count: int, workers: int, looks: list[int]) -> None:
    done: list[int] = []
    promised: dict[int, int | None] = {}

    def work(task: int, following: Callable[[], int | None]) -> None:
        me = threading.get_ident()
        assert promised.pop(me, task) == task
        done.append(task)
        for _ in range(looks[task]):
            coming = following()
            assert promised.setdefault(me, coming) == coming

    looking_ahead(range(count), work, workers=workers)
    assert sorted(done) == list(range(count))
