"""The smoke test: the finished release, started as a node would start it, compiles nothing of its own.

What a Julia compiles in any start, however empty, is stock Julia's own and is subtracted. Up to 1.8 the list of
``--trace-compile`` is exact. From 1.9 it names statements even when nothing was compiled, so there the compile
time and the bytes of new machine code decide, and the list only says where to look.
"""

from collections.abc import Callable
from typing import Final

from headstart.build.recipe import WAYS, Workshop
from headstart.compiled import Cost, statements
from headstart.errors import BuildError
from headstart.julia import Proof, Target
from headstart.process import Command, Finished

_TRACE: Final = "--trace-compile=stderr"
Must = Callable[[Command, str], Finished]


class SmokeTest:
    """Starts a release's script for each kind of output.

    Args:
        shop: where the release is.
        must: runs a command, and raises when it fails.
        script: the words that start it: its path, or ``-e`` and its text.
    """

    def __init__(self, shop: Workshop, must: Must, script: tuple[str, ...]) -> None:
        self._shop = shop
        self._must = must
        self._words = script

    def left(self, target: Target) -> frozenset[str]:
        """The statements that one image still compiles; none when it is good."""
        found: set[str] = set()
        for way in WAYS:
            what = f"the smoke test of {target.level} (output to a {way})"
            usual = self._statements(self._must(self._shop.baseline(way, (_TRACE, "-e", "")), "stock Julia"))
            more = (
                self._statements(self._must(self._shop.started(target, way, (_TRACE, *self._words)), what))
                - usual
            )
            if (
                more
                and self._shop.plan.inputs.capabilities.proof is Proof.COUNTERS
                and not self._cost(target, way)
            ):
                more = frozenset()
            found |= more
        return frozenset(found)

    def once(self, target: Target) -> None:
        """Start it once more, for somebody who watches."""
        self._must(self._shop.started(target, WAYS[0], (_TRACE, *self._words)), f"a start of {target.level}")

    def _statements(self, done: Finished) -> frozenset[str]:
        return frozenset(found + "\n" for found in statements(_said(done)))

    def _cost(self, target: Target, way: str) -> bool:
        """Whether the script costs compile time or new machine code, beyond what an empty one costs."""
        counters = self._shop.recipe("counters.jl")
        usual = self._counted(self._must(self._shop.started(target, way, (counters, "-e", "")), "counting"))
        spent = self._counted(self._must(self._shop.started(target, way, (counters, *self._words)), "counting"))
        return spent.beyond(usual)

    def _counted(self, done: Finished) -> Cost:
        # On a terminal the line may follow what the script printed last.
        cost = Cost.parse(_said(done))
        if cost is None:
            raise BuildError("Julia did not say what it compiled in the smoke test")
        return cost


def _said(done: Finished) -> str:
    """Both streams: on a terminal what Julia says shares the screen with what the script prints."""
    return (done.err + b"\n" + done.out).decode(errors="replace")
