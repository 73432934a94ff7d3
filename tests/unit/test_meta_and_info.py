"""What a repository and a server say of themselves; RIPEMD-160; a rollover that is only tried."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import publishing
from crashing import quick_disk
from headstart.cli import main
from headstart.cvmfs.metainfo import METAINFO_LIMIT, MetaInfo
from headstart.cvmfs.objects import Kind, ObjectName, deflate
from headstart.errors import (
    ConfigurationError,
    CorruptError,
    Error,
    KeyFileError,
    MissingToolError,
    StorageError,
)
from headstart.names import Fqrn
from headstart.repository.meta import change_meta, metainfo_of
from headstart.repository.state import Repository
from headstart.repository.statusfile import date_text
from publishing import FQRN, NOW, Place, later, new_repository

__all__ = ["quick_disk"]


@pytest.fixture
def place(quick_disk: Path) -> Place:
    return new_repository(quick_disk / "docroot" / str(FQRN))


@pytest.fixture
def words(place: Place, tmp_path: Path) -> list[str]:
    return ["--storage", str(place.root), "--keys", str(publishing.copy_keys(tmp_path / "keys"))]


def meta(words: list[str], capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    capsys.readouterr()
    assert main(["repo", "meta", *words, *more]) == 0
    said: dict[str, object] = json.loads(capsys.readouterr().out)
    return said


def test_a_new_repository_says_what_it_is(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = meta(words, capsys)
    assert said["description"] == f"Julia releases of {FQRN}, published by Headstart"
    assert said["recommended-stratum1s"] == []


def test_meta_information_is_changed_under_the_same_root_catalog(
    place: Place, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = place.open().manifest
    said = meta(
        words, capsys, "--set", "email=a@b", "--set", "recommended-stratum1s=http://a http://b", "--json"
    )
    assert (said["changes"], said["dry_run"]) == (True, False)
    after = place.open(later()).manifest
    assert (after.root_catalog, after.revision, after.history) == (
        before.root_catalog,
        before.revision,
        before.history,
    )
    assert after.metainfo != before.metainfo
    shown = meta(words, capsys)
    assert (shown["email"], shown["recommended-stratum1s"]) == ("a@b", ["http://a", "http://b"])
    # A replica compresses it again and keeps the name: only the real tools' own level gives the same bytes.
    assert after.metainfo is not None
    stored = (place.root / ObjectName(digest=after.metainfo, kind=Kind.METAINFO).path).read_bytes()
    assert stored == deflate(metainfo_of(place.open(later())))


def test_the_same_again_or_a_dry_run_signs_nothing(
    place: Place, words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    manifest = (place.root / ".cvmfspublished").read_bytes()
    assert meta(words, capsys, "--set", "url=http://x", "--dry-run")["url"] == "http://x"
    (tmp_path / "same.json").write_text(json.dumps(meta(words, capsys)))
    assert meta(words, capsys, "--file", str(tmp_path / "same.json"), "--json")["changes"] is False
    assert (place.root / ".cvmfspublished").read_bytes() == manifest


def test_a_change_is_made_from_what_is_there(place: Place, words: list[str]) -> None:
    def wording(before: bytes) -> MetaInfo:
        return MetaInfo.read(before, what="it").changed([("organisation", "ours")])

    plan, manifest = change_meta(place.target, wording, NOW)
    assert plan.changes
    assert json.loads(plan.after)["organisation"] == "ours"
    assert Repository.open(place.store, publishing.keys(), NOW).manifest == manifest
    assert main(["repo", "check", *words]) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[" * 30_000, "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b'{"custom": {"a": Infinity}}', "no value of JSON"),
        (b'["email"]', "no JSON object"),
        (b'{"email": 3}', "is to be a text"),
        (b'{"custom": "text"}', "is to be an object"),
        (b'{"recommended-stratum1s": "http://a"}', "is to be a list of texts"),
        (b'{"recommended-stratum1s": [1]}', "is to be a list of texts"),
        (b'{"a": "%s"}' % (b"a" * METAINFO_LIMIT), "may have 65536"),
    ],
)
def test_what_is_no_meta_information_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        MetaInfo.parse(text, what="the file")


def test_published_meta_information_may_be_of_any_form() -> None:
    assert MetaInfo.read(b'{"email": 3}', what="it").table == {"email": 3}
    for content in (b"[]", b"{", b"\xff"):
        with pytest.raises(CorruptError):
            MetaInfo.read(content, what="it")
    with pytest.raises(ConfigurationError, match="too much"):
        MetaInfo(table={"a": "a" * METAINFO_LIMIT}).to_bytes()
    assert json.loads(MetaInfo.new(Fqrn("a.b")).changed([("url", "\udcff")]).to_bytes())


def test_words_of_meta_that_are_wrong(words: list[str], tmp_path: Path) -> None:
    for more, error in (
        (["--set", "nonsense=1"], ConfigurationError),
        (["--set", "email"], ConfigurationError),
        (["--dry-run"], ConfigurationError),
        (["--file", str(tmp_path / "none")], StorageError),
    ):
        assert main(["repo", "meta", *words, *more]) == error.exit_code


# -- info/v1 and the status file ------------------------------------------------------------------------------


def test_a_server_lists_its_repositories_and_mirrors(
    place: Place, quick_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docroot = place.root.parent
    mirror = new_repository(docroot / "alias")
    (mirror.root / ".cvmfs_last_snapshot").write_text("yesterday\n")
    (docroot / "nothing").mkdir()
    (docroot / "file").touch()
    assert main(["repo", "update-info", str(docroot), "--dry-run"]) == 0
    assert not (docroot / "info").exists()
    assert main(["repo", "update-info", str(docroot)]) == 0
    said = json.loads((docroot / "info/v1/repositories.json").read_bytes())
    assert said == {
        "schema": 1,
        "repositories": [{"name": str(FQRN), "url": f"/cvmfs/{FQRN}"}],
        "replicas": [{"name": str(FQRN), "alias": "alias", "url": "/cvmfs/alias"}],
    }
    assert json.loads((docroot / "info/v1/meta.json").read_bytes())["custom"] == {}
    assert {path.stat().st_mode & 0o777 for path in (docroot / "info/v1").iterdir()} == {0o644}
    own = quick_disk / "own.json"
    own.write_text('{"administrator": "A. Person"}')
    for more in (["--meta", str(own)], []):
        capsys.readouterr()
        assert main(["repo", "update-info", str(docroot), *more, "--json"]) == 0
        files = json.loads(capsys.readouterr().out)["files"]
        assert len(files) == 1 + len(more) // 2
        assert json.loads((docroot / "info/v1/meta.json").read_bytes()) == {"administrator": "A. Person"}


def test_a_server_with_a_damaged_manifest_or_none(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["repo", "update-info", str(tmp_path / "none")]) == StorageError.exit_code
    docroot = place.root.parent
    for name in ("bad", "worse"):
        (docroot / name).mkdir()
        (docroot / name / ".cvmfspublished").write_bytes(b"nonsense")
    capsys.readouterr()
    assert main(["repo", "update-info", str(docroot), "--json"]) == CorruptError.exit_code
    said = capsys.readouterr()
    # The others are listed all the same, and nothing is kept back.
    listed = json.loads((docroot / "info/v1/repositories.json").read_bytes())["repositories"]
    assert listed == [{"name": str(FQRN), "url": f"/cvmfs/{FQRN}"}]
    assert len(json.loads(said.out)["left_out"]) == 2
    assert "bad: " in said.err
    assert "worse: " in said.err


def test_a_collection_says_when_it_was(place: Place, words: list[str]) -> None:
    status = place.root / ".cvmfs_status.json"
    status.write_text('{"last_check": "long ago"}')
    assert main(["repo", "gc", *words]) == 0
    said = json.loads(status.read_bytes())
    assert said["last_check"] == "long ago"
    assert datetime.strptime(said["last_gc"].replace("UTC", "+0000"), "%a %b %d %H:%M:%S %z %Y").year >= 2026
    status.write_text("[")
    assert main(["repo", "gc", *words]) == 0
    assert json.loads(status.read_bytes()).keys() == {"last_gc"}


def test_a_time_is_what_date_prints() -> None:
    when = datetime(2026, 11, 6, 7, 8, 9, tzinfo=UTC)
    words = ["date", "--utc", "--date", "2026-11-06 07:08:09"]
    done = subprocess.run(words, env=dict(os.environ, LC_ALL="C"), capture_output=True, text=True, check=True)
    assert date_text(when) == done.stdout.strip()


# -- RIPEMD-160 and the rollover ------------------------------------------------------------------------------

NO_RIPEMD160 = """\
import sys, hashlib
real = hashlib.new
def new(name, *arguments, **words):
    if name == "ripemd160":
        raise ValueError("unsupported hash type ripemd160")
    return real(name, *arguments, **words)
hashlib.new = new
from headstart.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_ripemd160_where_it_is_and_where_it_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = str(publishing.copy_keys(tmp_path / "keys"))
    there = ["--storage", str(tmp_path / "storage"), "--keys", keys]
    assert main(["repo", "create", str(FQRN), *there, "--hash", "rmd160", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["root_catalog"].endswith("-rmd160")
    new = ["--storage", str(tmp_path / "other"), "--keys", str(tmp_path / "no-keys"), "--hash", "rmd160"]
    for words in (["repo", "create", str(FQRN), *new], ["repo", "meta", *there]):
        done = subprocess.run(
            [sys.executable, "-c", NO_RIPEMD160, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == MissingToolError.exit_code
        assert "RIPEMD-160, which this machine's OpenSSL does not offer" in done.stderr
    assert not (tmp_path / "no-keys").exists()


@pytest.mark.parametrize(("to", "error"), [("next", None), ("keys", KeyFileError), ("file", KeyFileError)])
def test_a_rollover_may_be_tried(tmp_path: Path, to: str, error: type[Error] | None) -> None:
    publishing.copy_keys(tmp_path / "keys")
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    words = ["repo", "rollover", str(FQRN), "--keys", str(tmp_path / "keys"), "--to", str(tmp_path / to)]
    assert main([*words, "--dry-run"]) == (0 if error is None else error.exit_code)
    assert sorted(tmp_path.rglob("*")) == before
    if error is None:
        assert main(words) == 0
        assert main([*words, "--dry-run"]) == KeyFileError.exit_code
