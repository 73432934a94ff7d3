"""``headstart repo serve``: what it gives, what it hides, and how it ends."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headstart.cli import main
from headstart.cvmfs.objects import Algorithm, Kind, ObjectName
from headstart.errors import ConfigurationError
from headstart.webserver import LONG, SHORT, WebServer, answer_for
from nodes import make_site
from publishing import FQRN, later, new_repository

OBJECT = ObjectName(digest=Algorithm.SHAKE128.digest(b"x"), kind=Kind.CHUNK).path


@contextmanager
def served(root: Path, files: dict[str, bytes]) -> Iterator[http.client.HTTPConnection]:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    with WebServer({FQRN: str(root)}) as server:
        connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=10)
        yield connection
        connection.close()


FILES = {".cvmfspublished": b"manifest", ".cvmfs_status.json": b"{}", OBJECT: os.urandom(300_000)}
HEADERS = {
    ".cvmfspublished": ("application/x-cvmfs", SHORT),
    ".cvmfs_status.json": ("application/json", SHORT),
    OBJECT: ("application/octet-stream", LONG),
}


def test_what_clients_and_proxies_expect(tmp_path: Path) -> None:
    with served(tmp_path, FILES) as connection:
        for path, content in FILES.items():
            for method in ("GET", "HEAD", "GET"):
                connection.request(method, f"/cvmfs/{FQRN}/{path}")
                answer = connection.getresponse()
                body = answer.read()
                assert (answer.status, body) == (200, content if method == "GET" else b"")
                kind, seconds = HEADERS[path]
                assert answer.headers["Content-Type"] == kind
                assert answer.headers["Content-Length"] == str(len(content))
                assert answer.headers["Cache-Control"] == f"max-age={seconds}"
                # Validators are what proxies got wrong (format section 18).
                assert "Last-Modified" not in answer.headers
                assert "ETag" not in answer.headers


HERE = f"/cvmfs/{FQRN}"
HIDDEN = [
    "/", "/cvmfs", HERE, f"{HERE}/", f"{HERE}/data/", f"{HERE}/data/txn/headstart.lock",
    f"{HERE}/.headstart-new",
    f"{HERE}/secret", f"{HERE}/../secret", f"{HERE}/%2e%2e/secret", f"{HERE}/data/../../secret",
    f"/cvmfs/../{FQRN}/.cvmfspublished", f"{HERE}/.cvmfspublished/", f"{HERE}/.cvmfswhitelist",
    "/cvmfs/other.example.org/.cvmfspublished", "/.cvmfspublished", "//cvmfs//", f"{HERE}/data/ab/%00",
    f"{HERE}//.cvmfspublished", f"{HERE}/data/ab/cdef",
]  # fmt: skip


def test_what_is_none_of_a_clients_business(tmp_path: Path) -> None:
    files = {
        **FILES,
        "data/txn/headstart.lock": b"",
        ".headstart-new": b"half",
        "secret": b"s",
        "../secret": b"s",
    }
    os.makedirs(tmp_path / "storage" / ".cvmfswhitelist")
    with served(tmp_path / "storage", files) as connection:
        for path in HIDDEN:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (404, b""), path
            assert answer.headers["Cache-Control"] == "no-store"
        for method in ("POST", "PUT", "DELETE"):
            connection.request(method, f"/cvmfs/{FQRN}/.cvmfspublished")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 501
    assert (tmp_path / "storage" / ".cvmfspublished").read_bytes() == b"manifest"


@pytest.mark.parametrize(
    "path", [OBJECT, OBJECT.removesuffix("P"), ".cvmfsreflog", ".cvmfsalt-" + "ab" * 20 + "-shake128C"]
)
def test_files_of_a_repository(path: str) -> None:
    assert answer_for(path) is not None


@pytest.mark.parametrize(
    "path", ["data", OBJECT + "x", OBJECT.upper(), ".cvmfs", ".cvmfsalt-x", "data/txn/1", ""]
)
def test_other_files(path: str) -> None:
    assert answer_for(path) is None


def test_an_address_where_nobody_can_listen(tmp_path: Path) -> None:
    with WebServer({FQRN: str(tmp_path)}) as server:
        port = urlsplit(server.address).port
        assert port is not None
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1 port {port}"):
            WebServer({FQRN: str(tmp_path)}, port=port)
    with pytest.raises(ConfigurationError, match="cannot listen on no-such-host"):
        WebServer({FQRN: str(tmp_path)}, host="no-such-host.invalid")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    """Found below a directory of several."""
    root = tmp_path / "storages"
    site = make_site(root / "one", image_size=1000)
    os.rename(site.storage, root / "first")
    command = [sys.executable, "-m", "headstart", "repo", "serve", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        assert url.endswith(f"/cvmfs/{FQRN}")
        assert "Not for production" in process.stderr.readline()
        assert f"headstart list {url}" in process.stderr.readline()
        assert "CVMFS_SERVER_URL=" in process.stderr.readline()
        listing = subprocess.run(
            [sys.executable, "-m", "headstart", "list", url, "--key", str(site.key), "--json"],
            check=True,
            capture_output=True,
        )
        assert json.loads(listing.stdout)["fqrn"] == str(FQRN)
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stderr.read() == "stopped\n"


def test_what_cannot_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repo", "serve", str(tmp_path)]) == 16
    assert "there is no repository in" in capsys.readouterr().err
    assert main(["repo", "serve", str(tmp_path / "absent")]) == 16
    first = new_repository(tmp_path / "a", now=later())
    new_repository(tmp_path / "b", now=later())
    assert main(["repo", "serve", str(tmp_path)]) == 10
    assert f"both are {FQRN}" in capsys.readouterr().err
    assert main(["repo", "serve", str(first.root), "--port", "70000"]) == 10
    capsys.readouterr()
