"""Handing a tree to a site's own Stratum 0: what ``cvmfs_server`` is told, and what happens when it refuses.

``cvmfs_server`` is a stand-in that records how it is called; the real one was tried by hand. ``rsync`` is real.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart.cli import main
from headstart.errors import (
    ConfigurationError,
    CorruptError,
    Error,
    ImmutableError,
    LockedError,
    MissingToolError,
    StorageError,
    UnknownError,
)
from headstart.process import Command, Finished, run_process
from headstart.repository.handover import Copy, HandedOver, Removal, hand_over, plan_change, plan_release
from headstart.stage import open_stage
from publishing import FQRN, write_stage

SCRIPT = """#!/bin/sh
printf '%s|' "$@" >> "$RECORD/calls"; echo >> "$RECORD/calls"
if [ -e "$RECORD/fail-$1" ]; then
    echo "doing what was asked"
    cat "$RECORD/fail-$1" >&2
    exit $(cat "$RECORD/code-$1")
fi
"""


@dataclass(frozen=True)
class Stratum0:
    """A stand-in for one, and the mounted repository."""

    place: Path

    @property
    def root(self) -> str:
        return str(self.place / "mounted")

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": f"{self.place}/bin:{os.environ['PATH']}", "RECORD": str(self.place)}

    @property
    def calls(self) -> list[list[str]]:
        record = self.place / "calls"
        return [line.split("|")[:-1] for line in record.read_text().splitlines()] if record.exists() else []

    def fail(self, verb: str, code: int, message: str) -> None:
        (self.place / f"fail-{verb}").write_text(message)
        (self.place / f"code-{verb}").write_text(str(code))

    def release(self, stage: Path, tag: str = "", message: str = "") -> HandedOver:
        plan = plan_release(open_stage(str(stage)), str(stage), self.root, (tag, message))
        return hand_over(plan, run_process, self.env)

    def change(self, change: Copy | Removal) -> HandedOver:
        return hand_over(plan_change(FQRN, self.root, change, ("", "")), run_process, self.env)


@pytest.fixture
def server(tmp_path: Path) -> Stratum0:
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    (tmp_path / "bin").mkdir()
    (tmp_path / "mounted").mkdir()
    script = tmp_path / "bin" / "cvmfs_server"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    return Stratum0(tmp_path)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    write_stage(tmp_path / "stage")
    return tmp_path / "stage"


def shown(root: str) -> dict[str, bytes | None]:
    return {
        os.path.relpath(os.path.join(place, name), root): (Path(place) / name).read_bytes()
        for place, _, names in os.walk(root)
        for name in names
    }


def test_a_release_goes_into_one_transaction(server: Stratum0, stage: Path) -> None:
    assert server.release(stage, "one", "it's the first").published
    name = str(FQRN)
    assert server.calls == [["transaction", name], ["publish", "-a", "one", "-m", "it's the first", name]]
    there = shown(server.root)
    assert there == {path: content for path, content in shown(str(stage)).items() if path != "stage.json"}
    for place, _, names in os.walk(server.root):
        assert place == server.root or os.stat(place).st_mode & 0o777 == 0o755
        assert all(os.stat(os.path.join(place, one)).st_mode & 0o222 == 0 for one in names)


def test_what_is_there_already_opens_no_transaction(server: Stratum0, stage: Path) -> None:
    server.release(stage)
    (server.place / "calls").unlink()
    assert server.release(stage) == HandedOver(published=False, changed=0)
    assert server.calls == []


def test_another_release_at_the_same_path_is_refused(server: Stratum0, stage: Path) -> None:
    server.release(stage)
    (record,) = Path(server.root).rglob("release.json")
    record.chmod(0o644)
    record.write_bytes(b"{}")
    (server.place / "calls").unlink()
    with pytest.raises(ImmutableError):
        server.release(stage)
    assert server.calls == []


def test_a_stage_that_changes_under_our_hands_is_aborted(server: Stratum0, stage: Path) -> None:
    plan = plan_release(open_stage(str(stage)), str(stage), server.root, ("", ""))
    (image,) = stage.rglob("x86-64/sys.so")
    image.chmod(0o644)
    image.write_bytes(image.read_bytes()[::-1])
    with pytest.raises(CorruptError, match=r"sys\.so"):
        hand_over(plan, run_process, server.env)
    assert server.calls == [["transaction", str(FQRN)], ["abort", "-f", str(FQRN)]]


def test_somebody_elses_transaction_is_not_aborted(server: Stratum0, stage: Path) -> None:
    server.fail("transaction", 17, "CernVM-FS transaction error: another transaction is already open")
    with pytest.raises(LockedError, match="another transaction is already open"):
        server.release(stage)
    assert server.calls == [["transaction", str(FQRN)]]
    assert shown(server.root) == {}


@pytest.mark.parametrize("aborting", [True, False])
def test_a_refusal_is_passed_on_and_aborts(server: Stratum0, stage: Path, aborting: bool) -> None:
    server.fail("publish", 3, "Tag name 'one' is already in use.\n")
    if not aborting:
        server.fail("abort", 1, "cannot unmount")
    with pytest.raises(StorageError) as caught:
        server.release(stage, "one")
    assert "cvmfs_server publish ended with 3: Tag name 'one' is already in use." in caught.value.message
    assert [words[0] for words in server.calls] == ["transaction", "publish", "abort"]
    assert ("aborting failed, too (cannot unmount)" in caught.value.hint) == (not aborting)


def test_an_interrupt_aborts(server: Stratum0, stage: Path) -> None:
    plan = plan_release(open_stage(str(stage)), str(stage), server.root, ("", ""))

    def run(command: Command, log: object) -> Finished:
        if command.argv[0] == "rsync":
            raise KeyboardInterrupt
        return run_process(command)

    with pytest.raises(KeyboardInterrupt):
        hand_over(plan, run, server.env)
    assert [words[0] for words in server.calls] == ["transaction", "abort"]


def test_a_tree_is_made_what_the_directory_is(server: Stratum0, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(b"new")
    (tree / "link").symlink_to("sub/file")
    there = Path(server.root) / "any"
    there.mkdir()
    for name in ("old", ".cvmfscatalog", ".cvmfsautocatalog"):
        (there / name).touch()
    assert server.change(Copy(source=str(tree), at="/any")).published
    assert shown(str(there)).keys() == {"sub/file", "link", ".cvmfscatalog", ".cvmfsautocatalog"}
    assert [words[0] for words in server.calls] == ["transaction", "publish"]
    assert not server.change(Copy(source=str(tree), at="/any")).published
    assert [words[0] for words in server.calls[2:]] == ["transaction", "abort"]
    assert server.change(Removal(at="/any/sub")).published
    assert not (there / "sub").exists()


def test_links_in_the_repository_are_not_followed(tmp_path: Path) -> None:
    for name in ("tree", "mounted", "elsewhere/sub"):
        (tmp_path / name).mkdir(parents=True)
    root = str(tmp_path / "mounted")
    (tmp_path / "mounted" / "link").symlink_to(tmp_path / "elsewhere")
    for change in (
        Copy(source=str(tmp_path / "tree"), at="/link"),
        Copy(source=str(tmp_path / "tree"), at="/link/sub/new"),
        Removal(at="/link/sub"),
    ):
        with pytest.raises(StorageError, match=f"/link in {FQRN} is a link"):
            plan_change(FQRN, root, change, ("", ""))
    assert plan_change(FQRN, root, Removal(at="/link"), ("", "")).changes == (Removal(at="/link"),)


def test_names_in_the_root_stay(server: Stratum0, tmp_path: Path) -> None:
    for name in ("julia", "gone"):
        (Path(server.root) / name).mkdir()
    (tmp_path / "tree" / "new").mkdir(parents=True)
    server.change(Copy(source=str(tmp_path / "tree"), at="/", kept=("julia", "stacks")))
    assert {place.name for place in Path(server.root).iterdir()} == {"julia", "new"}


def test_what_is_not_there(server: Stratum0, stage: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownError):
        plan_change(FQRN, server.root, Removal(at="/none"), ("", ""))
    with pytest.raises(StorageError, match="is no directory"):
        plan_change(FQRN, server.root, Copy(source=str(tmp_path / "none"), at="/any"), ("", ""))
    with pytest.raises(StorageError, match="not mounted"):
        plan_release(open_stage(str(stage)), str(stage), str(tmp_path / "none"), ("", ""))
    (server.place / "bin" / "cvmfs_server").unlink()
    plan = plan_release(open_stage(str(stage)), str(stage), server.root, ("", ""))
    with pytest.raises(MissingToolError, match="cvmfs_server"):
        hand_over(plan, run_process, {"PATH": str(server.place / "bin")})


@pytest.mark.parametrize("message", ['a "quoted" word', "$(id)", "`id`", "two\nlines", "back\\slash"])
def test_a_message_never_reaches_the_servers_shell(server: Stratum0, stage: Path, message: str) -> None:
    with pytest.raises(ConfigurationError, match="shell"):
        plan_release(open_stage(str(stage)), str(stage), server.root, ("one", message))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--only", "a"], "--only is not for --via cvmfs_server; leave it out: rsync looks at all of the tree"),
        (["--keys", "k"], "--keys is not for --via cvmfs_server; leave it out: the Stratum 0 has its own"),
        (["--max-weight", "0"], "--max-weight is not for --via cvmfs_server; the Stratum 0's configuration"),
        (["--dirtab", "d"], ".cvmfsdirtab in the repository's root directory"),
    ],
)
def test_what_the_server_cannot_do_is_refused_with_what_to_do(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    tree = ["publish", "--tree", "/", "--at", "/a", "--via", "cvmfs_server", "--fqrn", "a.b"]
    assert main([*tree, *words]) == ConfigurationError.exit_code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["STAGE"], ConfigurationError),
        (["STAGE", "--storage", "x"], ConfigurationError),
        (["STAGE", "--storage", "x", "--keys", "y", "--fqrn", "a.b"], ConfigurationError),
        (["STAGE", "--via", "cvmfs_server", "--keys", "y"], ConfigurationError),
        (["STAGE", "--via", "cvmfs_server", "--channel", "prod"], ConfigurationError),
        (["STAGE", "--via", "cvmfs_server", "--fqrn", "a.b"], ConfigurationError),
        (["--delete", "/a", "--via", "cvmfs_server"], ConfigurationError),
        (["--delete", "/", "--via", "cvmfs_server", "--fqrn", "a.b"], ConfigurationError),
        (["--delete", "/julia", "--via", "cvmfs_server", "--fqrn", "a.b"], ImmutableError),
        (["--delete", "//julia", "--via", "cvmfs_server", "--fqrn", "a.b"], ConfigurationError),
        (["--delete", "/../../tmp/x", "--via", "cvmfs_server", "--fqrn", "a.b"], ConfigurationError),
        (["--tree", "/", "--at", "/a/../../x", "--via", "cvmfs_server", "--fqrn", "a.b"], ConfigurationError),
        (["--delete", "/a", "--via", "cvmfs_server", "--fqrn", "no-such.example.org"], StorageError),
        (["STAGE", "--via", "cvmfs_server", "-m", "text"], ConfigurationError),
        (["STAGE", "--via", "cvmfs_server", "--dry-run"], StorageError),
    ],
)
def test_words_that_do_not_go_together(stage: Path, words: list[str], error: type[Error]) -> None:
    assert main(["publish", *(str(stage) if word == "STAGE" else word for word in words)]) == error.exit_code
