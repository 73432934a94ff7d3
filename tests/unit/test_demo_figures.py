"""The demo's commands, its table and its figures, without running anything."""

from dataclasses import replace
from pathlib import Path

import pytest

import releases
from headstart import demo
from headstart.console import Console
from headstart.errors import BuildError, TrustError
from headstart.microarchitecture import LEVELS, select
from headstart.names import Fqrn, Sha256
from headstart.process import Command

SETTINGS = demo.Settings(
    folder="/folder",
    project="/project",
    stack="jets",
    code="1",
    arguments=("events",),
    targets=("x86-64", "x86-64-v3"),
    fqrn=Fqrn("jets.example.org"),
    headstart=("headstart",),
    stock=demo.Stock(version="1.5.3", executable="/julia", share="/share", env={}),
)


def arm(key: str, *seconds: float, compiled: int = 0, fetched: int = 0) -> demo.Arm:
    runs = tuple(demo.Run(seconds=value, compiled=compiled, fetched=fetched) for value in seconds)
    return demo.Arm(key=key, title=demo.TITLES[key], runs=runs)


ARMS = (
    arm("stock_cold", 6.0, 5.0, 9.0, compiled=45),
    arm("stock_second", 3.0, 2.0, 4.0, compiled=30),
    arm("release_cold", 2.0, 2.5, 1.5, fetched=108_000_000),
    arm("release_warm", 0.5, 0.4, 0.6),
    arm("image_by_hand", 0.4, 0.5, 0.45),
)


def test_the_steps_are_commands_that_a_user_could_type() -> None:
    todo = demo.commands(SETTINGS)
    assert todo["build"] == (
        "build", "/project", "--stage", "/folder/stage", "--repository", "jets.example.org",
        "--target", "x86-64", "--target", "x86-64-v3",
    )  # fmt: skip
    assert todo["publish"][-2:] == ("--channel", "prod")
    assert todo["verify"] == ("verify", "/folder/storage", "--key", "/folder/keys/jets.example.org.pub")


def test_the_table_has_medians_and_ratios_within_80_columns() -> None:
    text = demo.table(ARMS)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "stock Julia, empty depot        6.000 s  5.000 s  9.000 s        45           -" in lines
    assert "release, empty cache            2.000 s  1.500 s  2.500 s         0    108.0 MB" in lines
    assert "12.0 times shorter than stock's first" in text
    assert "6.0 times shorter than stock's second" in text
    assert "1.111 of the time" in text


def test_the_figures_name_why_the_other_images_were_not_taken() -> None:
    release = releases.release()
    chosen = release.images[0].target
    selection = select(LEVELS[chosen] | frozenset(release.images[0].features), release.images)
    outcome = demo.Outcome(
        settings=SETTINGS, release=release, digest=Sha256("0" * 64), selection=selection, arms=ARMS
    )
    found = outcome.to_json()
    assert found["target"] == chosen
    assert set(found["why"]) == {image.target for image in release.images} - {chosen}
    assert all("needs" in reason for reason in found["why"].values())
    assert found["stock_cold_s"] == 6.0
    assert found["release_warm_s"] == 0.5
    assert found["compiled_methods"] == 0
    assert found["bytes_fetched"] == 108_000_000
    best = release.images[-1]
    everything = LEVELS["x86-64-v4"].union(*(image.features for image in release.images))
    richer = replace(outcome, selection=select(everything, release.images))
    assert richer.to_json()["target"] == best.target
    assert "nearer to this CPU" in richer.reasons[chosen]


class Programs:
    """Starts nothing: notes the steps, and answers with what a test wants."""

    def __init__(self, codes: dict[str, list[int]]) -> None:
        self.steps: list[str] = []
        self._codes = codes

    def __call__(self, command: Command) -> int:
        step = command.argv[1]
        self.steps.append(step)
        codes = self._codes.get(step, [])
        return codes.pop(0) if codes else 0


class Silence:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...


def prepared(folder: str, codes: dict[str, list[int]]) -> list[str]:
    programs = Programs(codes)
    console = Console(Silence())  # type: ignore[arg-type]  # all that it uses of a stream
    demo.prepare(replace(SETTINGS, folder=folder), console, programs, {})
    return programs.steps


def test_the_first_time_makes_a_repository_and_later_times_do_not(tmp_path: Path) -> None:
    assert prepared(str(tmp_path), {}) == ["build", "repo", "publish", "verify"]
    published(tmp_path)
    assert prepared(str(tmp_path), {}) == ["build", "publish", "verify"]


def published(folder: Path) -> None:
    (folder / "storage").mkdir()
    (folder / "storage" / ".cvmfspublished").touch()


def test_a_repository_whose_whitelist_has_expired_is_made_again(tmp_path: Path) -> None:
    published(tmp_path)
    steps = prepared(str(tmp_path), {"publish": [TrustError.exit_code]})
    assert steps == ["build", "publish", "repo", "publish", "verify"]
    assert not (tmp_path / "storage").exists()


def test_a_failed_step_ends_the_demo_and_names_it(tmp_path: Path) -> None:
    for step in ("build", "repo", "publish", "verify"):
        with pytest.raises(BuildError, match="ended with exit code 11"):
            prepared(str(tmp_path), {step: [11]})


def test_another_failure_to_publish_loses_no_repository(tmp_path: Path) -> None:
    published(tmp_path)
    with pytest.raises(BuildError, match="'publish'"):
        prepared(str(tmp_path), {"publish": [24]})
    assert (tmp_path / "storage" / ".cvmfspublished").exists()
