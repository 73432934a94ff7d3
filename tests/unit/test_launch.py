"""Launching: the command, where things are seen, and what a source may be."""

import functools
import os
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import releases
from headstart.errors import ConfigurationError, MissingError, StorageError, TrustError
from headstart.launch import at_its_path, check_needs, scratch_depot, where_it_is
from headstart.names import Fqrn
from headstart.route import Route
from headstart.script import DROPPED
from headstart.source import (
    Anchors,
    MountSource,
    StorageSource,
    WebSource,
    expected_name,
    open_source,
    parse,
)
from simulator import NOW, Simulator, rsa_signer

RELEASE = releases.release()
IMAGE = RELEASE.images[1]
STRICT = replace(RELEASE, julia_options=("--compiled-modules=strict",))


def test_a_start_at_its_path_binds_what_is_elsewhere() -> None:
    start = at_its_path(RELEASE, IMAGE, root="/cache/root", scratch="")
    home = "/cvmfs/julia.example.org/stacks/jets/0123456789abcdef"
    julia = "/cvmfs/julia.example.org/julia/1.5.3-0123456789ab"
    assert start.argv == (
        f"{julia}/bin/julia", "-J", f"{home}/images/x86-64-v3/sys.so", "--startup-file=no", "--history-file=no",
    )  # fmt: skip
    assert [(bind.source, bind.target, bind.writable) for bind in start.binds] == [
        ("/cache/root", "/cvmfs/julia.example.org", False)
    ]
    assert start.needs[1] == "/cache/root/stacks/jets/0123456789abcdef/images/x86-64-v3/sys.so"
    mounted = at_its_path(RELEASE, IMAGE, root="/cvmfs/julia.example.org", scratch="")
    assert mounted.binds == ()
    assert (mounted.argv, mounted.sets) == (start.argv, start.sets)


def test_a_start_elsewhere_names_only_where_it_is() -> None:
    start = where_it_is(RELEASE, IMAGE, root="/cache/root", scratch="")
    assert start.binds == ()
    assert not [text for text in (*start.argv, *start.sets.values()) if "/cvmfs/" in text]


def test_the_command_takes_the_users_environment_but_julias() -> None:
    start = at_its_path(RELEASE, IMAGE, root="/cache/root", scratch="")
    env = {**dict.fromkeys(DROPPED, "bad"), "JULIA_DEPOT_PATH": "bad", "JULIA_NUM_THREADS": "4", "HOME": "/h"}
    command = start.command(("-e", "1"), env)
    assert command.argv[-2:] == ("-e", "1")
    assert set(command.env) == {"HOME", "JULIA_NUM_THREADS", *start.sets}
    assert "bad" not in command.env.values()
    # A Julia that needs no library path gets none, whatever the user's says.
    official = replace(RELEASE, julia_library_path=())
    plain = at_its_path(official, IMAGE, root="/r", scratch="").command((), {"LD_LIBRARY_PATH": "/bad"})
    assert "LD_LIBRARY_PATH" not in plain.env


@pytest.mark.parametrize(
    ("env", "depot"),
    [
        ({"HOME": "/h"}, "/h/.cache/headstart/scratch/0123456789abcdef"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/c"}, "/c/headstart/scratch/0123456789abcdef"),
        ({"HOME": "/h:x"}, ""),
        ({"XDG_CACHE_HOME": "relative"}, ""),
        ({}, ""),
    ],
)
def test_scratch_is_the_users_own_or_none(env: dict[str, str], depot: str) -> None:
    assert scratch_depot(STRICT, env) == depot
    assert scratch_depot(RELEASE, env) == ""
    start = at_its_path(STRICT, IMAGE, root="/r", scratch=scratch_depot(STRICT, env))
    first = start.sets["JULIA_DEPOT_PATH"].split(":")[0]
    assert first == (depot or "/cvmfs/julia.example.org/stacks/jets/0123456789abcdef/depot")


def test_no_depot_is_ever_empty() -> None:
    for scratch in ("", "/s"):
        for made in (RELEASE, STRICT):
            sets = at_its_path(made, IMAGE, root="/r", scratch=scratch).sets
            assert all(part.startswith("/") for part in sets["JULIA_DEPOT_PATH"].split(":"))


def test_missing_parts_are_named(tmp_path: Path) -> None:
    made = releases.write_stage(tmp_path)
    start = where_it_is(made, made.images[0], root=str(tmp_path), scratch="")
    check_needs(start)
    os.unlink(start.needs[1])
    with pytest.raises(MissingError, match=r"images/x86-64/sys\.so is not there"):
        check_needs(start)


def test_sources_are_told_apart(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    (storage / ".cvmfspublished").write_bytes(b"C00\nNjulia.example.org\n--\n")
    mount = tmp_path / "julia.example.org"
    (mount / "channels").mkdir(parents=True)
    (mount / "channels" / "root.json").touch()
    assert parse(str(storage)) == StorageSource(directory=str(storage))
    assert parse(str(mount)) == MountSource(root=str(mount), fqrn=Fqrn("julia.example.org"))
    assert parse("http://host/cvmfs/a.b/") == WebSource(route=Route(servers=("http://host/cvmfs/a.b",)))
    for source in (str(storage), str(mount), "http://host/cvmfs/julia.example.org"):
        assert expected_name(parse(source)) == Fqrn("julia.example.org")
    assert expected_name(WebSource(route=Route(servers=("http://host/",)))) is None
    (tmp_path / "plain").mkdir()
    for nothing in (tmp_path / "plain", tmp_path / "absent"):
        with pytest.raises(StorageError):
            parse(str(nothing))
    with pytest.raises(ConfigurationError):
        parse("s3://bucket/x")


def test_a_server_is_asked_for_the_repository_that_its_address_names(tmp_path: Path) -> None:
    """One key may sign many repositories: another of them is not what was asked for."""
    other = Simulator(fqrn=Fqrn("test.example.org"))
    other.publish()
    for path, content in other.files.items():
        place = tmp_path / "cvmfs" / "julia.example.org" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    key = tmp_path / "key.pub"
    key.write_bytes(rsa_signer("master").public.to_pem())
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = WebSource(
            route=Route(servers=(f"http://127.0.0.1:{server.server_port}/cvmfs/julia.example.org",))
        )
        try:
            with pytest.raises(TrustError, match=r"is of test\.example\.org, not of julia\.example\.org"):
                open_source(source, Anchors(keys=(str(key),)), now=NOW)
            found = open_source(source, Anchors(keys=(str(key),), fqrn=other.fqrn), now=NOW)
            assert found.fqrn == other.fqrn
            assert found.snapshot is not None
        finally:
            server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
