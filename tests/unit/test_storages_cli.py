"""A place in an object store where a command takes a storage."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import publishing
import s3server
from headstart.cli import main
from headstart.errors import (
    ConfigurationError,
    CorruptError,
    KeyFileError,
    LockedError,
    MissingToolError,
    StorageError,
    UnavailableError,
)
from headstart.lease import LOCK, Lock, Process
from headstart.s3store import S3Store
from publishing import write_stage

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "HEADSTART_S3_CONFIG", "HEADSTART_S3_ACL"):
        monkeypatch.delenv(name, raising=False)
    for name, text in s3server.running().env().items():
        monkeypatch.setenv(name, text)

    def words(*given: str) -> tuple[int, str, str]:
        code = main(list(given))
        return code, *capsys.readouterr()

    return words


def config(folder: Path, bucket: str = s3server.BUCKET) -> str:
    server = s3server.running()
    host, port = server.url.removeprefix("http://").split(":")
    path = folder / "s3.conf"
    path.write_text(
        f"CVMFS_S3_HOST={host}\nCVMFS_S3_PORT={port}\nCVMFS_S3_BUCKET={bucket}\nCVMFS_S3_DNS_BUCKETS=false\n"
        f"CVMFS_S3_ACCESS_KEY={server.keys.access}\nCVMFS_S3_SECRET_KEY={server.keys.secret}\n"
    )
    return str(path)


@pytest.mark.slow
def test_every_verb_takes_a_bucket(run: Run, tmp_path: Path) -> None:
    server = s3server.running()
    place = server.place()
    publishing.copy_keys(tmp_path / "keys")
    write_stage(tmp_path / "stage")
    target = ("--storage", place.name, "--keys", str(tmp_path / "keys"))
    key = ("--key", f"{tmp_path}/keys/julia.example.org.pub")

    def said(*words: str) -> Any:
        code, out, err = run(*words)
        assert code == 0, err
        return json.loads(out)

    assert said("repo", "create", "julia.example.org", *target, "--json")["storage"] == place.name
    assert (
        said("publish", f"{tmp_path}/stage", *target, "--channel", "prod", "--tag", "one", "--json")["revision"]
        == 2
    )
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("content")
    tree = ("publish", "--tree", f"{tmp_path}/tree", "--at", "/data", "--state", f"{tmp_path}/state")
    assert said(*tree, *target, "--dry-run", "--json")["objects"] == 1
    assert said(*tree, *target, "--json")["revision"] == 3
    assert said(*tree, *target, "--json")["changes"] is False
    assert said("repo", "tag", "add", "two", *target, "--json")["changes"] is True
    assert {tag["name"] for tag in said("repo", "tag", "list", *target, "--json")["tags"]} >= {"one", "two"}
    assert said("repo", "rollback", "one", *target, "--json")["revision"] == 4
    assert said("repo", "gc", *target, "--keep-revisions", "0", "--json")["objects"] > 0
    assert said("repo", "resign", *target, "--json")["dry_run"] is False
    assert said("repo", "resign", *target, "--published", "--json")["revision"] == 4
    assert said("repo", "check", *target, "--repair", "--deep", "--json")["complaints"] == []
    for source in (place.name, f"{server.url}/{place.bucket}/{place.prefix}"):
        assert said("list", source, *key, "--json")["source"] == source
        assert said("repo", "status", source, *key, "--json")["revision"] == 4
        assert said("show", source, "jets@prod", *key, "--json")["stack"] == "jets"
        assert said("verify", source, *key, "--json")["complaints"] == []
        assert said("diff", source, "one", "trunk", *key, "--json") is not None


def test_the_real_servers_file_does(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in s3server.running().env():
        monkeypatch.delenv(name)
    place = s3server.running().place()
    publishing.copy_keys(tmp_path / "keys")
    target = ("--storage", place.name, "--keys", str(tmp_path / "keys"))
    file = config(tmp_path)
    assert run("repo", "create", "julia.example.org", *target, "--s3-config", file)[0] == 0
    monkeypatch.setenv("HEADSTART_S3_CONFIG", file)
    assert run("repo", "tag", "list", *target)[0] == 0
    assert run("list", place.name, "--key", f"{tmp_path}/keys/julia.example.org.pub")[0] == 0


def test_each_mistake_is_one_sentence(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publishing.copy_keys(tmp_path / "keys")
    place = s3server.running().place()

    def refused(code: int, said: str, storage: str, *more: str) -> None:
        for verb in (("repo", "create", "julia.example.org"), ("repo", "tag", "add", "x"), ("repo", "gc")):
            got, out, err = run(*verb, "--storage", storage, "--keys", f"{tmp_path}/keys", *more)
            assert (got, out) == (code, ""), err
            assert err.startswith("headstart: ")
            assert err.count("\n") == 1
            assert said in err

    refused(ConfigurationError.exit_code, "names no bucket", "s3://")
    for address in ("http://server/x", "S3://bucket/x", "file:///x"):
        refused(ConfigurationError.exit_code, "is an address, and a storage is written to", address)
    refused(ConfigurationError.exit_code, "cannot ask for as it is", "s3://bucket/a b")
    refused(
        ConfigurationError.exit_code,
        "is for the bucket other",
        place.name,
        "--s3-config",
        config(tmp_path, "other"),
    )
    refused(ConfigurationError.exit_code, "there is no s3.conf", place.name, "--s3-config", f"{tmp_path}/none")
    refused(
        ConfigurationError.exit_code,
        "is of an object store",
        f"{tmp_path}/dir",
        "--s3-config",
        config(tmp_path),
    )
    refused(StorageError.exit_code, "there is no bucket not-there", "s3://not-there/x")
    code, _, err = run("repo", "tag", "list", "--storage", place.name, "--keys", f"{tmp_path}/keys")
    assert (code, "is no repository" in err) == (StorageError.exit_code, True)
    code, _, err = run("run", place.name, "jets")
    assert (code, "http://ENDPOINT/BUCKET/PREFIX" in err) == (ConfigurationError.exit_code, True)
    monkeypatch.setenv("HEADSTART_S3_ACL", "everybody")
    refused(ConfigurationError.exit_code, "HEADSTART_S3_ACL", place.name)
    monkeypatch.delenv("HEADSTART_S3_ACL")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    refused(UnavailableError.exit_code, "gives no answer", place.name)


def test_somebody_else_is_named(run: Run, tmp_path: Path) -> None:
    server = s3server.running()
    place = server.place()
    publishing.copy_keys(tmp_path / "keys")
    target = ("--storage", place.name, "--keys", str(tmp_path / "keys"))
    assert run("repo", "create", "julia.example.org", *target)[0] == 0
    far = Process(host="far.example.org", boot="b", namespace="n", pid=7, start="1")
    lock = Lock(holder=far, nonce="x", count=1, lease=60.0, suspect=False)
    S3Store(place, server.access()).bucket.write(LOCK, lock.to_bytes())
    code, _, err = run("repo", "tag", "add", "x", *target)
    assert code == LockedError.exit_code
    assert "process 7 on far.example.org" in err


def test_without_boto3_only_buckets_cannot_be_reached(tmp_path: Path) -> None:
    publishing.new_repository(tmp_path / "storage")
    publishing.copy_keys(tmp_path / "keys")
    program = (
        "import sys; sys.modules['boto3'] = None; from headstart.cli import main; sys.exit(main(sys.argv[1:]))"
    )

    def without(storage: str) -> "subprocess.CompletedProcess[str]":
        words = ("repo", "gc", "--dry-run", "--storage", storage, "--keys", str(tmp_path / "keys"))
        command = [sys.executable, "-c", program, *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=dict(os.environ))

    done = without("s3://bucket/x")
    assert done.returncode == MissingToolError.exit_code
    assert "pip install 'headstart[s3]'" in done.stderr
    assert without(str(tmp_path / "storage")).returncode == 0


def test_a_mirror_in_its_source_is_refused_in_a_bucket_too(run: Run, tmp_path: Path) -> None:
    place = s3server.running().place()
    keys = publishing.copy_keys(tmp_path / "keys")
    assert run("repo", "create", "julia.example.org", "--storage", place.name, "--keys", str(keys))[0] == 0
    key = ("--key", f"{keys}/julia.example.org.pub")
    for inside in (place.name, f"{place.name}/", f"{place.name}/inside"):
        code, out, err = run("repo", "mirror", place.name, inside, *key)
        assert (code, out) == (ConfigurationError.exit_code, "")
        assert "is the source itself, or lies in it" in err
    assert run("repo", "mirror", place.name, f"{place.name}-mirror", *key)[0] == 0


def test_keys_are_in_no_address(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    publishing.copy_keys(tmp_path / "keys")
    before = set(tmp_path.iterdir())
    for words in (
        ("repo", "create", "julia.example.org", "--storage", "storage", "--keys", "s3://bucket/keys"),
        ("repo", "rollover", "julia.example.org", "--keys", "keys", "--to", "s3://bucket/keys"),
        ("repo", "rollover", "julia.example.org", "--keys", "keys", "--to", "s3://bucket/keys", "--dry-run"),
        ("channel", "new-key", "julia.example.org", "alice", "--keys", "s3://bucket/keys"),
    ):
        code, out, err = run(*words)
        assert (code, out) == (KeyFileError.exit_code, "")
        assert "s3://bucket/keys is an address" in err
    assert set(tmp_path.iterdir()) == before


def test_what_was_carried_and_is_no_whitelist_is_named(run: Run, tmp_path: Path) -> None:
    keys = publishing.copy_keys(tmp_path / "keys")
    publishing.new_repository(tmp_path / "storage")
    (tmp_path / "carried").write_text("garbage")
    target = ("--storage", f"{tmp_path}/storage", "--keys", str(keys))
    code, _, err = run("repo", "resign", *target, "--apply", f"{tmp_path}/carried")
    assert code == CorruptError.exit_code
    assert f"{tmp_path}/carried is no signed file" in err


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(run: Run, tmp_path: Path) -> None:
    keys = publishing.copy_keys(tmp_path / "keys")
    storage = f"{tmp_path}/storage"
    assert run("repo", "create", "julia.example.org", "--storage", storage, "--keys", str(keys))[0] == 0
    write_stage(tmp_path / "stage")
    target = ("--storage", storage, "--keys", str(keys))
    assert run("publish", f"{tmp_path}/stage", *target, "--channel", "prod")[0] == 0
    (tmp_path / "taken").mkdir()
    before = set(tmp_path.iterdir())
    for words in (
        ("repo", "status", storage, "--key", f"{keys}/julia.example.org.pub", "--metrics", f"{tmp_path}/taken"),
        ("repo", "resign", *target, "--request", f"{tmp_path}/taken"),
        ("channel", "keys", *target, "--days", "3", "--request", f"{tmp_path}/taken"),
    ):
        code, out, err = run(*words)
        assert (code, out) == (StorageError.exit_code, ""), err
        assert "taken: Is a directory" in err
    assert set(tmp_path.iterdir()) == before


def test_an_option_that_would_count_for_nothing_is_refused(run: Run, tmp_path: Path) -> None:
    code, _, err = run("repo", "check", str(tmp_path), "--s3-config", f"{tmp_path}/none")
    assert code == ConfigurationError.exit_code
    assert "--s3-config is of an object store" in err


def test_a_wrong_endpoint_is_no_lack_of_credentials(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "garbage")
    code, _, err = run("list", s3server.running().place().name)
    assert code == ConfigurationError.exit_code
    assert "check AWS_ENDPOINT_URL" in err


def test_a_channel_key_in_a_token_is_no_broken_file(run: Run, tmp_path: Path) -> None:
    keys = publishing.copy_keys(tmp_path / "keys")
    publishing.new_repository(tmp_path / "storage")
    (keys / "julia.example.org.channelkey").write_text("pkcs11:token=x;object=y?module-path=/x.so\n")
    code, _, err = run("repo", "tag", "add", "x", "--storage", f"{tmp_path}/storage", "--keys", str(keys))
    assert code == KeyFileError.exit_code
    assert "a channel key cannot be in one" in err


@pytest.mark.parametrize("storage", ["/proc/self/nothing", "/proc/nothing/here"])
def test_no_keys_are_made_for_a_storage_that_cannot_be_written(run: Run, tmp_path: Path, storage: str) -> None:
    # Root may write wherever it is not read-only as a whole; nobody may make anything in /proc.
    code, _, err = run(
        "repo", "create", "julia.example.org", "--storage", storage, "--keys", f"{tmp_path}/keys"
    )
    assert code == StorageError.exit_code
    assert "cannot write /proc/" in err
    assert not (tmp_path / "keys").exists()


def test_a_storage_is_tried_without_leaving_anything(run: Run, tmp_path: Path) -> None:
    (tmp_path / "keys").touch()
    storage = f"{tmp_path}/new/storage"
    code, _, err = run(
        "repo", "create", "julia.example.org", "--storage", storage, "--keys", f"{tmp_path}/keys"
    )
    assert code == KeyFileError.exit_code, err
    assert os.listdir(tmp_path) == ["keys"]


def test_no_keys_are_made_for_a_bucket_that_cannot_be_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(store: S3Store) -> None:
        raise StorageError(f"{store.name} refuses to be written to")

    monkeypatch.setattr(S3Store, "prepare", refused)
    storage = s3server.running().place().name
    code, _, err = run(
        "repo", "create", "julia.example.org", "--storage", storage, "--keys", f"{tmp_path}/keys"
    )
    assert code == StorageError.exit_code
    assert "refuses to be written to" in err
    assert not (tmp_path / "keys").exists()


def test_a_check_of_a_server_does_not_speak_of_no_objects(run: Run, tmp_path: Path) -> None:
    server = s3server.running()
    place = server.place()
    keys = publishing.copy_keys(tmp_path / "keys")
    assert run("repo", "create", "julia.example.org", "--storage", place.name, "--keys", str(keys))[0] == 0
    address = f"{server.url}/{place.bucket}/{place.prefix}"
    key = ("--key", f"{keys}/julia.example.org.pub")
    for words, said in (((), "entries\n"), (("--deep",), "entries, 1 object of ")):
        code, out, err = run("repo", "check", address, *key, *words)
        assert code == 0, err
        assert said in out
