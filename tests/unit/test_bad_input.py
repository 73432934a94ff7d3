"""What newcomers type: each mistake is one sentence with its exit code, before anything is written."""

import json
import os
import textwrap
from pathlib import Path

import pytest

import publishing
from fakebuild import fake_inputs, fake_prefix
from headstart import cli
from headstart.build.recipe import failed_package, said
from headstart.cli import build as build_command
from headstart.cli import main
from headstart.errors import ConfigurationError, KeyFileError, StorageError
from headstart.names import ChannelName
from projects import write_project
from publishing import write_stage

Capture = pytest.CaptureFixture[str]
BUILD = ("--repository", "julia.example.org", "--dry-run")


def refusal(capture: Capture, *words: str) -> tuple[int, str]:
    """The exit code and the sentence of a command that fails."""
    capture.readouterr()
    try:
        code = main(list(words))
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capture.readouterr()
    assert out == ""
    assert err.startswith("headstart: ")
    assert err.count("\n") == 1
    return code, err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_fits_80_columns(name: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    verbs: tuple[tuple[str, ...], ...] = ((), ("create",)) if name == "repo" else ((),)
    for verb in verbs:
        with pytest.raises(SystemExit):
            main([name, *verb, "--help"])
    assert main(["--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize(
    "words",
    [
        ("build",),
        ("build", "p", "--stage", "s"),
        ("publish", "s", "--storage"),
        ("publish", "s", "--storage", "d", "--keys", "k", "--expires-days", "soon"),
        ("repo",),
        ("repo", "create", "a.example.org", "--storage", "d", "--keys", "k", "--hash", "md5"),
        ("list", "--bogus", "x"),
        ("run", "x"),
        # What a shell makes of a variable that is not set.
        ("publish", "s", "--storage", "d", "--keys", "k", "--channel", ""),
        ("build", "", "--stage", "s", "--repository", "a.example.org"),
        ("build", "p", "--stage", "", "--repository", "a.example.org"),
        ("repo", "create", "a.example.org", "--storage", "", "--keys", "k"),
        ("list", ""),
        ("run", "", "jets"),
    ],
)
def test_wrong_words_are_one_sentence_that_names_the_help(
    words: tuple[str, ...], capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, err = refusal(capsys, *words)
    assert code == 2
    assert f"'headstart {words[0]}" in err
    assert "--help'" in err
    assert list(tmp_path.iterdir()) == []


def test_a_project_that_is_no_directory(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    for name in ("none", "file"):
        code, err = refusal(capsys, "build", str(tmp_path / name), "--stage", str(tmp_path / "stage"), *BUILD)
        assert (code, f"there is no directory {tmp_path / name};" in err) == (
            ConfigurationError.exit_code,
            True,
        )
    assert not (tmp_path / "stage").exists()


def test_a_stage_among_other_things_is_refused(tmp_path: Path, capsys: Capture) -> None:
    """A repository, above all: a build there would lie beside what is served."""
    project = write_project(tmp_path / "project")
    place = publishing.Place(tmp_path / "storage")
    publishing.copy_keys(tmp_path / "keys")
    assert (
        main(
            [
                "repo",
                "create",
                "julia.example.org",
                "--storage",
                str(place.root),
                "--keys",
                str(tmp_path / "keys"),
            ]
        )
        == 0
    )
    (tmp_path / "file").write_text("")
    before = sorted(os.listdir(place.root))
    for name, says in (("storage", "no staging directory"), ("file", "Not a directory")):
        words = ("build", str(project), "--stage", str(tmp_path / name), "--repository", "julia.example.org")
        code, err = refusal(capsys, *words)
        assert code == StorageError.exit_code
        assert says in err
        assert "--stage" in err
    assert sorted(os.listdir(place.root)) == before


def test_a_stage_that_is_none(tmp_path: Path, capsys: Capture) -> None:
    words = ("--storage", str(tmp_path / "storage"), "--keys", str(tmp_path / "keys"))
    code, err = refusal(capsys, "publish", str(tmp_path / "none"), *words)
    assert code == StorageError.exit_code
    assert f"there is no directory {tmp_path / 'none'}" in err


def test_keys_are_not_made_where_everybody_reads(tmp_path: Path, capsys: Capture) -> None:
    storage = tmp_path / "storage"
    (tmp_path / "link").symlink_to(storage)
    for keys in (storage, storage / "keys", tmp_path / "link" / "keys"):
        words = ("repo", "create", "julia.example.org", "--storage", str(storage), "--keys", str(keys))
        code, err = refusal(capsys, *words)
        assert code == KeyFileError.exit_code
        assert "lies in the storage" in err
    assert not storage.exists()


def test_an_expiry_without_a_channel_is_refused(tmp_path: Path, capsys: Capture) -> None:
    write_stage(tmp_path / "stage")
    words = ("--storage", str(tmp_path / "storage"), "--keys", str(tmp_path / "keys"), "--expires-days", "5")
    code, err = refusal(capsys, "publish", str(tmp_path / "stage"), *words)
    assert code == ConfigurationError.exit_code
    assert "--channel" in err


@pytest.mark.parametrize("name", ["deadbeef", "abcdef0123456789", "a" * 31])
def test_a_channel_that_reads_as_a_digest_could_never_be_asked_for(name: str) -> None:
    with pytest.raises(ConfigurationError, match="reads as a digest"):
        ChannelName(name)


@pytest.mark.parametrize("name", ["facade", "abcdefg", "deadbeef-1", "prod"])
def test_other_channels_of_such_letters_are_names(name: str) -> None:
    assert str(ChannelName(name)) == name


def test_a_plan_as_json(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    project = write_project(tmp_path / "project")
    install = fake_prefix(tmp_path / "somewhere")
    inputs = fake_inputs(project, install, tmp_path / "stage")
    monkeypatch.setattr(build_command, "gather", lambda *_: (inputs, install))
    words = ["build", str(project), "--stage", str(tmp_path / "stage"), *BUILD]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["stack"], found["targets"], found["packages"]) == ("tiny", ["x86-64-v2"], ["Leaf", "App"])
    assert (found["staged"], found["published"]) == (False, False)
    assert main(words) == 0
    text = capsys.readouterr().out
    assert f"release    tiny {found['release']}\n" in text
    assert "already" not in text
    assert not (tmp_path / "stage").exists()


def test_what_julia_says_is_told_with_its_package_and_its_place() -> None:
    output = textwrap.dedent("""\
        ERROR: LoadError: boom
        Stacktrace:
         [1] error(::String) at ./error.jl:33
        in expression starting at /cvmfs/x/packages/A/src/A.jl:207
        headstart-failed: A
        ERROR: LoadError: Failed to precompile A [8687b18d]
        in expression starting at /cvmfs/x/.build/recipe/precompile.jl:3
        """).encode()
    assert failed_package(output) == "A"
    assert said(output) == "ERROR: LoadError: boom at /cvmfs/x/packages/A/src/A.jl:207"
    assert (failed_package(b"killed\n"), said(b"killed\n"), said(b"")) == ("", "killed", "")
