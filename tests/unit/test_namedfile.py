"""Files that somebody named are read no further than they may be long, and one sentence says what is wrong."""

from pathlib import Path

import pytest

from headstart.cli import main
from headstart.errors import ConfigurationError, Error, KeyFileError, StorageError
from headstart.namedfile import read_named
from headstart.publickeys import read_key_file
from publishing import copy_keys, new_repository

Capture = pytest.CaptureFixture[str]


def test_no_more_is_read_than_may_be(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_named(str(file), what="note", limit=5, error=StorageError) == b"12345"
    for path, limit, says in (
        (file, 4, f"the note {file} has more than the 4 bytes it may have"),
        (file, 1, f"the note {file} has more than the 1 byte it may have"),
        (tmp_path / "none", 5, f"there is no note {tmp_path}/none"),
        (file / "inside", 5, f"there is no note {file}/inside"),
        (tmp_path, 5, f"cannot read the note {tmp_path}: Is a directory"),
        (Path("/dev/zero"), 5, "the note /dev/zero has more than the 5 bytes it may have"),
    ):
        with pytest.raises(StorageError) as caught:
            read_named(str(path), what="note", limit=limit, error=StorageError)
        assert str(caught.value) == says
    with pytest.raises(KeyFileError, match="the key file /dev/zero has more than the 65536 bytes"):
        read_key_file("/dev/zero")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["channel", "sign", "FILE", "--keys", "KEYS"], "file to sign"),
        (["channel", "apply", "FILE", "--keys", "KEYS", "--storage", "x"], "file to sign"),
        (["repo", "resign", "--sign", "FILE", "--keys", "KEYS", "--output", "x"], "request"),
    ],
)
@pytest.mark.parametrize(
    ("file", "says"), [("/dev/zero", "more than the"), ("/none", "there is no"), ("/", "directory")]
)
def test_files_on_the_command_line(
    capsys: Capture, tmp_path: Path, words: list[str], what: str, file: str, says: str
) -> None:
    put = {"FILE": file, "KEYS": str(copy_keys(tmp_path / "keys"))}
    assert main([put.get(word, word) for word in words]) == StorageError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{what} {file}" in line
    assert says in line


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (
            ["--revoke", "zz"],
            KeyFileError,
            "zz is neither the file of a certificate nor a fingerprint",
        ),
        (["--add-certificate", "/none"], KeyFileError, "there is no certificate /none"),
        (["--published", "--days", "0"], ConfigurationError, "--days is of a new whitelist"),
    ],
)
def test_what_a_new_whitelist_is_to_say(
    capsys: Capture, tmp_path: Path, words: list[str], error: type[Error], says: str
) -> None:
    keys = copy_keys(tmp_path / "keys")
    new_repository(tmp_path / "storage")
    place = ["--storage", str(tmp_path / "storage"), "--keys", str(keys)]
    assert main(["repo", "resign", *place, *words]) == error.exit_code
    assert says in capsys.readouterr().err
