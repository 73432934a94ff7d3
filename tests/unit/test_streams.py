"""Standard output and standard error that are closed, full, or have lost their reader."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

import publishing
from headstart import cli
from headstart.cli import streams
from headstart.errors import OutputError, TrustError
from publishing import Place

FULL = "No space left on device"
BROKEN = {
    ">/dev/full": (OutputError.exit_code, FULL),
    ">&-": (OutputError.exit_code, "Bad file descriptor"),
    "> >(exec true)": (141, ""),
    "2>&-": (0, ""),
    "2>/dev/full": (0, ""),
    "2> >(exec true)": (0, ""),
    ">&- 2>&-": (OutputError.exit_code, ""),
    "<&- >&- 2>&-": (OutputError.exit_code, ""),
}
"""How the streams are, what a command that succeeds ends with, and what it says of it."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    publishing.copy_keys(tmp_path / "keys")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("content")
    return publishing.new_repository(tmp_path / "storage", now=publishing.later())


def headstart(streams: str, *words: str | Path) -> tuple[int, str, str]:
    """Run it; whoever is to read has gone by then."""
    shell = f'exec {streams}; sleep 0.2; exec "$@"'
    program = ("bash", "-c", shell, "bash", sys.executable, "-m", "headstart", *words)
    done = subprocess.run(program, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("json", [(), ("--json",)], ids=["text", "json"])
def test_what_is_done_is_done_whoever_listens(
    place: Place, tmp_path: Path, broken: str, json: tuple[str, ...]
) -> None:
    where = {"--storage": place.root, "--keys": tmp_path / "keys", "--state": tmp_path / "state"}
    words = [word for option in where.items() for word in option] + [*json]
    code, _, err = headstart(broken, "publish", "--tree", tmp_path / "tree", "--at", "/x", *words)
    expected, says = BROKEN[broken]
    assert code == expected
    assert says in err
    assert "Traceback" not in err
    assert "Exception" not in err
    assert err.count("headstart: ") == (1 if says else 0)
    assert place.open(publishing.later()).manifest.revision == 2


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize(
    "words", [("--help",), ("--version",), ("list", "--help"), ("repo", "create", "--help")]
)
def test_help_is_output_as_any(broken: str, words: tuple[str, ...]) -> None:
    code, out, err = headstart(broken, *words)
    assert (code, FULL in err) == (BROKEN[broken][0], broken == ">/dev/full")
    assert bool(out) == (code == 0)
    assert err.count("\n") <= 1


@pytest.mark.parametrize("broken", BROKEN)
def test_wrong_usage_stays_wrong_usage(broken: str) -> None:
    assert headstart(broken, "list")[0] == 2
    assert headstart(broken, "no-such-command")[0] == 2


def test_a_command_that_fails_keeps_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(words: list[str]) -> int:
        sys.stdout.write("half of it")
        raise TrustError("no")

    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        text = io.TextIOWrapper(io.BufferedWriter(streams._Data(full.fileno(), "w", closefd=False)))
        patch.setattr(sys, "stdout", text)
        patch.setattr(cli, "_dispatch", fail)
        assert cli.main(["list"]) == TrustError.exit_code
        text.close()


def test_much_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than any buffer holds: it fails where it is written, and not at the end."""
    with Path("/dev/full").open("w") as full:
        data = io.BufferedWriter(streams._Data(full.fileno(), "w", closefd=False))
        with pytest.raises(OutputError, match=FULL):
            data.write(b"much" * 1_000_000)
        talk = io.BufferedWriter(streams._Talk(full.fileno(), "w", closefd=False))
        assert talk.write(b"much" * 1_000_000) == 4_000_000
        talk.flush()
