"""Questions in processes of their own: real ones, some of which never come back."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from headstart.bounded import ask
from headstart.nodefacts import Silence


def test_answers_come_back_by_name_and_in_order() -> None:
    found = ask({number: partial(pow, number, 2) for number in range(40)}, 20.0, most=3)
    assert found == {number: number**2 for number in range(40)}
    assert list(found) == list(range(40))
    assert ask({}, 1.0) == {}


def test_a_long_answer_is_whole() -> None:
    assert ask({"long": lambda: "x" * 3_000_000}, 20.0) == {"long": "x" * 3_000_000}


def children() -> set[str]:
    """This process's own, dead ones that nobody has waited for included."""
    return {child for path in Path("/proc/self/task").glob("*/children") for child in path.read_text().split()}


def test_what_hangs_is_left_and_the_others_answer(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = children()
    start = time.monotonic()
    questions: dict[str, Callable[[], object]] = {
        "hangs": pipe.read_bytes,
        "sleeps": partial(time.sleep, 60),
        "here": os.getppid,
    }
    found = ask(questions, 0.5)
    assert time.monotonic() - start < 10
    assert found == {"hangs": Silence(seconds=0.5), "sleeps": Silence(seconds=0.5), "here": os.getpid()}
    assert str(found["hangs"]) == "no answer within 0.5 s"
    assert children() <= before  # nobody is left behind


def test_who_dies_over_a_question_has_not_answered() -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fail() -> None:
        raise RuntimeError

    questions: dict[str, Callable[[], object]] = {"dies": die, "fails": fail, "well": lambda: 1}
    found = ask(questions, 20.0)
    assert found == {"dies": Silence(seconds=0.0), "fails": Silence(seconds=0.0), "well": 1}
    assert str(found["dies"]) == "it cannot be looked at"
