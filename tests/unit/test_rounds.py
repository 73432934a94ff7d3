"""The rounds of a build: what a start still compiles decides what the next one makes anew."""

from collections.abc import Sequence
from pathlib import Path

import pytest

import releases
from fakebuild import fake_inputs, fake_prefix, newer
from headstart.build import plan
from headstart.build.images import ImageBuilder, Traced
from headstart.build.plan import release_record
from headstart.build.recipe import Workshop
from headstart.errors import BuildError
from headstart.julia import Target
from headstart.names import ReleaseId
from headstart.process import Command, Finished
from headstart.project import ImageKind, Package
from headstart.release import ImageRecord
from projects import APP, write_project

OWN = "precompile(Tuple{typeof(Base.print), Base.IOBuffer, UInt16})\n"
STACK = "precompile(Tuple{typeof(App.main), Array{String, 1}})\n"


class Rounds(ImageBuilder):
    """Builds nothing, and notes of each round whether it would have made everything anew."""

    def prepare(self, left: Sequence[frozenset[str]]) -> None:
        self.whole: list[bool] = []
        self.told: list[str] = []
        self.asked: list[frozenset[str]] = []
        self.waits: list[set[tuple[str, ...]]] = []
        self._left = iter(left)
        self._step = self.told.append

    def _round(
        self, number: int, pending: Sequence[Target], groups: dict[tuple[Package, ...], frozenset[str]]
    ) -> list[ImageRecord]:
        del number
        self.asked.append(frozenset().union(*groups.values()))
        self.waits.append({tuple(package.name for package in packages) for packages in groups})
        self.whole.append(self._whole)
        return [releases.image(target.level) for target in pending]

    def _launcher(self, images: tuple[ImageRecord, ...]) -> None:
        del images

    def _smoke(self, target: Target, script: tuple[str, ...]) -> frozenset[str]:
        del target, script
        return next(self._left)


def rounds(tmp_path: Path, kind: ImageKind, *left: frozenset[str], heavy: str = "Leaf") -> Rounds:
    project = write_project(tmp_path / "project")
    inputs = fake_inputs(project, fake_prefix(tmp_path / "somewhere"), tmp_path / "stage")
    todo = plan(newer(inputs, image=kind, heavy=(heavy,) if kind is ImageKind.BOTH else ()))

    def must(command: Command, what: str) -> Finished:
        raise AssertionError(f"{what} of {command}")

    builder = Rounds(
        Workshop(plan=todo, root=str(tmp_path / "root"), compiler="", libraries=(), privileged=False),
        release_record(todo.inputs, ReleaseId("0" * 16), ()),
        must,
        lambda _: None,
        log="x.log",
        parallel=1,
    )
    builder.prepare(left)
    return builder


TRACED = (Traced(script=("job.jl",), statements=frozenset({STACK}), loaded=frozenset({APP})),)


def test_a_system_image_is_made_once_more_for_what_no_package_image_can_hold(tmp_path: Path) -> None:
    left = frozenset({OWN})
    builder = rounds(tmp_path, ImageKind.BOTH, left, left, frozenset())
    builder.build(TRACED)
    assert builder.whole == [True, False, True]
    assert builder.told == []


def test_what_is_left_even_then_is_told(tmp_path: Path) -> None:
    left = frozenset({OWN})
    builder = rounds(tmp_path, ImageKind.BOTH, left, left, left)
    builder.build(TRACED)
    assert builder.whole == [True, False, True]
    assert "at each start up to 1 method of Julia's own will be compiled" in builder.told[0]


def test_package_images_alone_are_as_good_as_they_get(tmp_path: Path) -> None:
    left = frozenset({OWN})
    builder = rounds(tmp_path, ImageKind.PACKAGES, left, left)
    builder.build(TRACED)
    assert builder.whole == [True, False]
    assert len(builder.told) == 1


@pytest.mark.parametrize("kind", [ImageKind.BOTH, ImageKind.PACKAGES])
def test_a_method_of_the_stack_must_not_be_left(tmp_path: Path, kind: ImageKind) -> None:
    left = frozenset({STACK})
    with pytest.raises(BuildError, match="still compiles 1 method: "):
        rounds(tmp_path, kind, left, left, left, left).build(TRACED)


@pytest.mark.parametrize(
    ("kind", "heavy", "waits"),
    [(ImageKind.PACKAGES, "", ("App",)), (ImageKind.BOTH, "Leaf", ("App",)), (ImageKind.BOTH, "App", ())],
)
def test_no_extension_waits_for_what_is_in_the_system_image(
    tmp_path: Path, kind: ImageKind, heavy: str, waits: tuple[str, ...]
) -> None:
    builder = rounds(tmp_path, kind, frozenset(), heavy=heavy)
    builder.build(TRACED)
    assert builder.waits == [{waits}]


def test_what_is_left_is_asked_for_as_called_past_another_method_too(tmp_path: Path) -> None:
    builder = rounds(tmp_path, ImageKind.SYSTEM, frozenset({OWN, STACK}), frozenset())
    builder.build(TRACED)
    behind = {line.replace("precompile", "invoked", 1) for line in (OWN, STACK)}
    assert builder.asked == [{STACK}, {STACK, OWN, *behind}]


def test_every_round_of_a_system_image_makes_it_anew(tmp_path: Path) -> None:
    builder = rounds(tmp_path, ImageKind.SYSTEM, frozenset({OWN}), frozenset())
    builder.build(TRACED)
    assert builder.whole == [True, True]
