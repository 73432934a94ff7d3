"""``headstart repo create`` and ``headstart publish`` as a user types them."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import publishing
from headstart.cli import main
from headstart.cvmfs.entry import Compression, Directory, File
from headstart.errors import (
    ConfigurationError,
    CorruptError,
    Error,
    ImmutableError,
    KeyFileError,
    LockedError,
    MissingToolError,
    StorageError,
    TrustError,
    UnknownError,
)
from headstart.keys import create_keys
from headstart.names import Fqrn
from headstart.treestate import TreeState
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
    assert [step["action"] for step in said["steps"]] == ["publish", "publish", "point", "state"]
    assert said["pointer"]["version"] == 1
    assert said["objects"] > 10
    assert desk.publish("--channel", "prod") == 0
    assert desk.capture.readouterr().out == f"jets@sha256:{said['digest']}\n"


def test_digests_in_json_are_alike(desk: Desk) -> None:
    assert desk.publish("--channel", "prod", "--json") == 0
    published = desk.said()["digest"]
    key = str(desk.root / "keys" / "julia.example.org.pub")
    assert main(["list", str(desk.root / "storage"), "--key", key, "--json"]) == 0
    (stack,) = desk.said()["stacks"]
    assert {one["digest"] for one in (*stack["channels"], *stack["releases"])} == {published}


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
        (one_key_less, KeyFileError, "channel key"),
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


# Any directory


@dataclass(frozen=True)
class Yard(Desk):
    """A directory to be published beside the desk."""

    def put(self, *more: str) -> int:
        state = ["--state", str(self.root / "state")]
        return main(
            ["publish", "--tree", str(self.root / "tree"), "--at", "/data/set", *state, *self.words, *more]
        )

    def say(self, *more: str) -> int:
        return main(["publish", *self.words, *more])


@pytest.fixture
def yard(desk: Desk) -> Yard:
    (desk.root / "tree" / "sub").mkdir(parents=True)
    (desk.root / "tree" / "sub" / "file.gz").write_bytes(b"content")
    return Yard(desk.root, desk.capture)


def test_a_tree_is_published_once(yard: Yard) -> None:
    assert yard.put("--json", "--dry-run") == 0
    would = yard.said()
    assert (would["revision"], would["changes"], would["files_read"], would["dry_run"]) == (1, True, 1, True)
    assert yard.put("--json") == 0
    said = yard.said()
    assert (said["path"], said["revision"], said["changes"], said["catalogs"]) == ("/data/set", 2, True, ["/"])
    assert yard.put() == 0
    assert yard.capture.readouterr().out == "2\n"
    content = content_of(yard.place.open(publishing.later()))
    assert content[b"/data/set/sub/file.gz"] == b"content"


def test_a_tree_that_cannot_be_remembered_is_published(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(state: TreeState) -> None:
        state.lost = "database or disk is full"

    monkeypatch.setattr(TreeState, "keep", keep)
    yard.capture.readouterr()
    assert yard.put("--json") == 0
    out, err = yard.capture.readouterr()
    said = json.loads(out)
    assert (said["revision"], said["changes"]) == (2, True)
    assert "the next publication reads again what this one has read" in said["warnings"][0]
    assert f"headstart: warning: {said['warnings'][0]}\n" in err
    assert yard.put("--dry-run", "--json") == 0
    assert yard.said()["warnings"] == []


def test_a_limit_on_threads_is_one_sentence(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        yard.capture.readouterr()
        assert yard.put() == MissingToolError.exit_code
    out, err = yard.capture.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "ulimit -u" in err
    assert yard.put() == 0


def test_only_threads_that_are_of_use_are_started(yard: Yard) -> None:
    (yard.root / "tree" / "large").write_bytes(bytes(20_000_000))
    words = [
        "publish",
        "--tree",
        f"{yard.root}/tree",
        "--at",
        "/x",
        "--state",
        f"{yard.root}/state",
        *yard.words,
    ]
    program = "import os, sys; from headstart.cli import main; code = main(sys.argv[1:])"
    program += "; print(code, os.listdir('/proc/self/task'))"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env=environment, capture_output=True, text=True, check=True
    )
    revision, said = done.stdout.splitlines()
    assert revision == "2"
    assert said.startswith("0 ['")
    assert said.count(",") == 0


def test_a_tree_is_published_as_told(yard: Yard) -> None:
    (yard.root / "rules").write_text("/data/set/*\n")
    words = ["--owner", "7:8", "--nanoseconds", "--no-xattrs", "--dirtab", str(yard.root / "rules")]
    assert (
        yard.put(*words, "--uncompressed", "*.gz", "--checksum", "--autocatalogs", "--max-weight", "5000") == 0
    )
    entry = yard.place.open(publishing.later()).forest.lookup(b"/data/set/sub/file.gz")
    assert isinstance(entry, File)
    assert (entry.stat.uid, entry.stat.gid, entry.compression) == (7, 8, Compression.NONE)
    assert entry.stat.mtimens is not None
    catalogs = {catalog.mountpoint for catalog in yard.place.open(publishing.later()).forest.catalogs()}
    assert catalogs == {b"", b"/data/set/sub"}


@pytest.mark.parametrize("end", ["", "/"])
def test_a_link_is_the_directory_that_it_leads_to(yard: Yard, end: str) -> None:
    (yard.root / "current").symlink_to("tree")
    tree = ["--tree", f"{yard.root}/current{end}", "--at", "/x", "--state", str(yard.root / "state")]
    assert yard.say(*tree, "--uncompressed", "/sub/*.gz") == 0
    forest = yard.place.open(publishing.later()).forest
    assert isinstance(forest.lookup(b"/x"), Directory)
    entry = forest.lookup(b"/x/sub/file.gz")
    assert isinstance(entry, File)
    assert entry.compression is Compression.NONE
    (yard.root / "tree/sub/more").write_text("more")
    assert yard.say(*tree, "--uncompressed", "/sub/*.gz", "--only", f"{yard.root}/current/sub/more") == 0
    assert content_of(yard.place.open(publishing.later()))[b"/x/sub/more"] == b"more"
    yard.capture.readouterr()
    (yard.root / "current").unlink()
    for target, says in (("none", "none: No such file"), ("tree/sub/file.gz", "is not a directory")):
        (yard.root / "current").symlink_to(target)
        assert yard.say(*tree) == StorageError.exit_code
        assert says in yard.capture.readouterr().err
        (yard.root / "current").unlink()


def test_a_tree_at_the_root_leaves_releases_alone(yard: Yard) -> None:
    assert yard.publish("--channel", "prod") == 0
    tree = ["--tree", str(yard.root / "tree"), "--at", "/", "--state", str(yard.root / "state")]
    before = content_of(yard.place.open(publishing.later()))
    assert yard.say(*tree) == 0
    after = content_of(yard.place.open(publishing.later()))
    assert after[b"/sub/file.gz"] == b"content"
    assert {path: before[path] for path in before if path} == {path: after[path] for path in before if path}
    assert yard.publish("--channel", "prod") == 0


def test_a_path_is_removed(yard: Yard) -> None:
    assert yard.put() == 0
    assert yard.say("--delete", "/data/set/sub", "--dry-run", "--json") == 0
    assert yard.say("--delete", "/data/set/sub") == 0
    assert b"/data/set/sub" not in content_of(yard.place.open(publishing.later()))
    assert yard.say("--delete", "/data/set/sub") == UnknownError.exit_code
    assert yard.say("--delete", "/stacks") == ImmutableError.exit_code


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ([], ConfigurationError, "nothing to publish"),
        (["--tree", "T"], ConfigurationError, "go together"),
        (["--at", "/x"], ConfigurationError, "nothing to publish"),
        (["STAGE", "--tree", "T", "--at", "/x"], ConfigurationError, "STAGE and --tree"),
        (["--tree", "T", "--at", "x"], ConfigurationError, "slash"),
        (["--tree", "T", "--at", "/a/../b"], ConfigurationError, "/a/../b is no path of a repository"),
        (["--tree", "T", "--at", "//channels"], ConfigurationError, "//channels is no path of a repository"),
        (["--tree", "T", "--at", "/" + "a" * 256], ConfigurationError, "names of up to 255 bytes"),
        (["--delete", "/a/../b"], ConfigurationError, "/a/../b is no path of a repository"),
        (["--tree", "T", "--at", "/channels/jets"], ImmutableError, "/channels"),
        (["--tree", "T", "--at", "/x", "--channel", "prod"], ConfigurationError, "of a release"),
        (["--tree", "T", "--at", "/x", "--owner", "root"], ConfigurationError, "UID:GID"),
        (["--tree", "T", "--at", "/x", "--max-weight", "9"], ConfigurationError, "--autocatalogs"),
        (["--tree", "T", "--at", "/x", "--uncompressed", "\\a"], ConfigurationError, "backslash"),
        (["--tree", "T", "--at", "/x", "--dirtab", "none"], StorageError, "there is no file of rules none"),
        (["--tree", "T", "--at", "/x", "--dirtab", "/dev/zero"], StorageError, "more than the 1048576 bytes"),
        (["--delete", "/x", "--checksum"], ConfigurationError, "--checksum is of a tree"),
        (["--delete", "/x", "--max-weight", "0"], ConfigurationError, "--max-weight is of a tree"),
    ],
)
def test_words_that_do_not_go_together(yard: Yard, words: list[str], error: type[Error], says: str) -> None:
    yard.capture.readouterr()
    there = [str(yard.root / "tree") if word == "T" else word for word in words]
    assert yard.say(*there, *(["--state", str(yard.root / "state")] if "T" in words else [])) == error.exit_code
    out, err = yard.capture.readouterr()
    assert out == ""
    assert says in err.splitlines()[-1]
    assert yard.place.open(publishing.later()).manifest.revision == 1


def test_a_tree_with_the_keys_or_the_storage_in_it_is_refused(yard: Yard) -> None:
    (yard.root / "tree/link").symlink_to(yard.root)
    for tree, error in (
        (yard.root, KeyFileError),
        (yard.root / "keys", KeyFileError),
        (yard.root / "storage", StorageError),
        (yard.root / "storage/..", KeyFileError),
    ):
        assert yard.say("--tree", str(tree), "--at", "/x", "--dry-run") == error.exit_code
        assert "keep them outside" in yard.capture.readouterr().err
    assert yard.say("--tree", str(yard.root / "none"), "--at", "/x") == StorageError.exit_code
    assert f"cannot read {yard.root}/none: No such file" in yard.capture.readouterr().err


def test_one_of_anything_has_no_plural(yard: Yard) -> None:
    for path in (yard.root / "tree").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (yard.root / "tree/file").write_text("alone")
    yard.capture.readouterr()
    assert yard.put() == 0
    said = yard.capture.readouterr().err
    assert "1 file read, 1 new object, " in said
    assert "1 catalog" in said
