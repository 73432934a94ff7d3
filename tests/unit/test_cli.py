"""The command line's own manners: help, unknown commands, errors as one sentence and an exit code."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headstart import cli, errors, launch
from headstart.cli import reading, run
from headstart.process import Command


def headstart(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "headstart", *words), check=False, capture_output=True, text=True
    )


def test_help_names_every_command_and_every_command_has_help() -> None:
    done = headstart("--help")
    assert done.returncode == 0
    for name in cli.COMMANDS:
        assert f"\n  {name}" in done.stdout
        inner = headstart(name, "--help")
        assert inner.returncode == 0, inner.stderr
        assert inner.stdout.startswith(f"usage: headstart {name}")


def test_no_arguments_show_the_help() -> None:
    assert headstart().stdout == headstart("--help").stdout


def test_version() -> None:
    assert headstart("--version").stdout.startswith("headstart 0.")


def test_unknown_command_is_one_sentence_that_lists_the_known_ones() -> None:
    done = headstart("frobnicate")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "'frobnicate'" in done.stderr
    assert "verify" in done.stderr


def test_errors_become_one_sentence_and_their_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: list[str]) -> int:
        raise errors.TrustError("the whitelist\nhas expired", hint="sign it again")

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert cli.main(["verify"]) == errors.TrustError.exit_code
    assert capsys.readouterr().err == "headstart: the whitelist has expired; sign it again\n"


def test_interruption_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupt)
    assert cli.main(["build"]) == 130
    assert capsys.readouterr().err.startswith("headstart: interrupted")


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        (sys.executable, "-m", "headstart", "--help"), check=False, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_what_a_server_says_is_printed_as_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: list[str]) -> int:
        raise errors.UnavailableError("answers 500 \x1b[2Jeverything is fine")

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert cli.main(["list"]) == errors.UnavailableError.exit_code
    run.say("image \x1b[8m")
    reading.write("release \x1b[8m")
    captured = capsys.readouterr()
    assert "\x1b" not in captured.err + captured.out
    assert "answers 500 \\x1b[2Jeverything" in captured.err


def test_a_program_that_does_not_start_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(errors.MissingError, match="cannot be started"):
        run.become((str(tmp_path / "absent"),), {})


def test_a_start_that_fails_leaves_the_signals_as_they_were(tmp_path: Path) -> None:
    """Else the next write into a closed connection would end the process without a word."""
    absent = str(tmp_path / "absent")
    before = signal.getsignal(signal.SIGPIPE), signal.getsignal(signal.SIGXFSZ)
    with pytest.raises(errors.MissingError):
        run.become((absent,), {})
    with pytest.raises(errors.MissingError):
        launch.execute(Command(argv=(absent,), env={}))
    assert (signal.getsignal(signal.SIGPIPE), signal.getsignal(signal.SIGXFSZ)) == before


def test_each_exit_code_is_explained_once() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "exit-codes.md").read_text()
    explained = [int(line.split("|")[1]) for line in page.splitlines() if line[:3].strip("| ").isdigit()]
    families = {kind.exit_code for kind in errors.Error.__subclasses__()}
    assert sorted(explained) == sorted({0, 1, 2, 130} | families)
