"""``headstart repo create`` and ``headstart publish`` as a user types them."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import publishing
from headstart.cli import main
from headstart.errors import (
    ConfigurationError,
    CorruptError,
    Error,
    ImmutableError,
    KeyFileError,
    LockedError,
    StorageError,
    TrustError,
)
from headstart.keys import create_keys
from headstart.names import Fqrn
from publishing import Place, content_of, write_stage


@dataclass(frozen=True)
class Desk:
    """Keys, a repository and a stage, and the commands over them."""

    root: Path
    capture: pytest.CaptureFixture[str]

    @property
    def words(self) -> list[str]:
        return ["--storage", str(self.root / "storage"), "--keys", str(self.root / "keys")]

    def create(self, *more: str) -> int:
        return main(["repo", "create", "julia.example.org", *self.words, *more])

    def publish(self, *more: str) -> int:
        return main(["publish", str(self.root / "stage"), *self.words, *more])

    def said(self) -> Any:
        return json.loads(self.capture.readouterr().out)

    @property
    def place(self) -> Place:
        return Place(self.root / "storage")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    publishing.copy_keys(tmp_path / "keys")
    write_stage(tmp_path / "stage")
    made = Desk(tmp_path, capsys)
    assert made.create() == 0
    assert capsys.readouterr().out == f"{tmp_path}/keys/julia.example.org.pub\n"
    return made


def test_creation_makes_keys_where_there_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(tmp_path, capsys)
    assert desk.create("--hash", "shake128", "--json") == 0
    said = desk.said()
    assert said["fqrn"] == "julia.example.org"
    assert said["root_catalog"].endswith("-shake128")
    assert Path(said["public_key"]).read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")
    for name in ("masterkey", "key", "channelkey"):
        assert (tmp_path / "keys" / f"julia.example.org.{name}").stat().st_mode & 0o777 == 0o600


def test_creation_elsewhere_leaves_the_keys_alone(desk: Desk) -> None:
    before = {path.name: path.read_bytes() for path in (desk.root / "keys").iterdir()}
    again = ["--storage", str(desk.root / "other"), "--keys", str(desk.root / "keys")]
    assert main(["repo", "create", "julia.example.org", *again]) == 0
    assert {path.name: path.read_bytes() for path in (desk.root / "keys").iterdir()} == before


def test_creation_that_fails_leaves_no_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "file").touch()
    assert Desk(tmp_path, capsys).create() == StorageError.exit_code
    assert not (tmp_path / "keys").exists()


def test_publishing_prints_what_is_published(desk: Desk) -> None:
    assert desk.publish("--channel", "prod", "--json") == 0
    said = desk.said()
    assert (said["revision"], said["changes"], said["dry_run"]) == (2, True, False)
    assert [step["action"] for step in said["steps"]] == ["publish", "publish", "point"]
    assert said["pointer"]["version"] == 1
    assert said["objects"] > 10
    assert desk.publish("--channel", "prod") == 0
    assert desk.capture.readouterr().out == f"jets@{said['digest']}\n"


def test_a_dry_run_writes_nothing(desk: Desk) -> None:
    before = content_of(desk.place.open(publishing.later()))
    assert desk.publish("--channel", "prod", "--dry-run", "--json") == 0
    said = desk.said()
    assert (said["revision"], said["changes"], said["dry_run"]) == (1, True, True)
    assert content_of(desk.place.open(publishing.later())) == before


def no_keys(desk: Desk) -> None:
    (desk.root / "keys").rename(desk.root / "elsewhere")


def one_key_less(desk: Desk) -> None:
    (desk.root / "keys" / "julia.example.org.channelkey").unlink()


def open_keys(desk: Desk) -> None:
    (desk.root / "keys" / "julia.example.org.key").chmod(0o640)


def no_key_at_all(desk: Desk) -> None:
    (desk.root / "keys" / "julia.example.org.key").write_text("not a key")


def other_keys(desk: Desk) -> None:
    no_keys(desk)
    create_keys(str(desk.root / "keys"), Fqrn("julia.example.org"), now=publishing.NOW)


def no_repository(desk: Desk) -> None:
    (desk.root / "storage").rename(desk.root / "away")


def no_stage(desk: Desk) -> None:
    (desk.root / "stage" / "stage.json").unlink()


def spoilt_stage(desk: Desk) -> None:
    next((desk.root / "stage").rglob("Jets.jl")).unlink()


def other_release(desk: Desk) -> None:
    assert desk.publish() == 0
    subprocess.run(["rm", "-rf", desk.root / "stage"], check=True)
    write_stage(desk.root / "stage", extra={"depot/more.jl": b"more"})


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (no_keys, KeyFileError, "julia.example.org.key"),
        (one_key_less, KeyFileError, "channelkey"),
        (open_keys, KeyFileError, "chmod 600"),
        (no_key_at_all, KeyFileError, "julia.example.org.key"),
        (other_keys, TrustError, "master key"),
        (no_repository, StorageError, "headstart repo create"),
        (no_stage, StorageError, "build again"),
        (spoilt_stage, CorruptError, "build again"),
        (other_release, ImmutableError, "never changes"),
    ],
)
def test_each_failure_is_one_sentence_with_its_exit_code(
    desk: Desk, spoil: Callable[[Desk], None], error: type[Error], says: str
) -> None:
    spoil(desk)
    desk.capture.readouterr()
    assert desk.publish("--channel", "prod") == error.exit_code
    out, err = desk.capture.readouterr()
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("headstart: ")
    assert says in last
    assert "Traceback" not in err


def test_a_writer_that_comes_second_is_told_so(desk: Desk) -> None:
    with desk.place.store.transaction():
        assert desk.publish() == LockedError.exit_code
    assert "somebody else" in desk.capture.readouterr().err


@pytest.mark.parametrize(
    "words", [["--channel", "Not A Name"], ["--expires-days", "0"], ["--expires-days", "99999"]]
)
def test_wrong_names_and_numbers_are_refused(desk: Desk, words: list[str]) -> None:
    assert desk.publish(*words) == ConfigurationError.exit_code
