"""The nginx configuration of docs/serving.md, on a real nginx behind a real Squid."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.signature import Letter
from nodes import Node, Site, make_site
from publishing import FQRN

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
NGINX = shutil.which("nginx", path=PATH)
SQUID = shutil.which("squid", path=PATH)
HERE = f"/cvmfs/{FQRN}"


def configuration(folder: Path, port: int) -> str:
    """What stands on the page, with another port and another place."""
    found = re.search(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    text = found[1]
    for before, after in (("listen 8000;", f"listen 127.0.0.1:{port};"), ("root /srv;", f"root {folder}/srv;")):
        assert text.count(before) == 1
        text = text.replace(before, after)
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{ }}\nhttp {{ access_log off; {temporary}\n{text}\n}}\n"
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(argv: list[str], port: int) -> Iterator[str]:
    """A server, from when it listens until the block ends; its address."""
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None, f"{argv[0]} has ended"
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def nginx(site: Site) -> Iterator[str]:
    if NGINX is None:
        pytest.skip("nginx is not installed")
    with tempfile.TemporaryDirectory(prefix="headstart-nginx-") as name:
        folder = Path(name)
        (folder / "srv" / "cvmfs").mkdir(parents=True)
        (folder / "srv" / "cvmfs" / str(FQRN)).symlink_to(site.storage)
        (folder / "srv" / "secret").write_text("secret")
        port = free_port()
        (folder / "nginx.conf").write_text(configuration(folder, port))
        with running([NGINX, "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"], port) as address:
            yield address


def ask(
    address: str, path: str, method: str = "GET", headers: dict[str, str] | None = None, proxy: str = ""
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(proxy or address).netloc, timeout=20)
    connection.request(method, f"{address}{path}" if proxy else path, headers=headers or {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def an_object(site: Site) -> str:
    found = min(path for path in (site.storage / "data").glob("??/*") if path.is_file())
    return str(found.relative_to(site.storage))


def test_headers_and_bytes(site: Site, nginx: str) -> None:
    (site.storage / ".cvmfs_status.json").write_text('{"last_gc": "never"}')
    wanted = {
        ".cvmfspublished": ("application/x-cvmfs", 61),
        ".cvmfswhitelist": ("application/x-cvmfs", 61),
        ".cvmfs_status.json": ("application/json", 61),
        an_object(site): ("application/octet-stream", 259_200),
    }
    for path, (kind, seconds) in wanted.items():
        content = (site.storage / path).read_bytes()
        eager = {"Accept-Encoding": "gzip, br", "If-Modified-Since": "Sat, 01 Jan 2050 00:00:00 GMT"}
        for method, body in (("GET", content), ("HEAD", b"")):
            status, headers, got = ask(nginx, f"{HERE}/{path}", method, eager)
            assert (status, got) == (200, body)
            assert headers["content-type"] == kind
            assert headers["content-length"] == str(len(content))
            assert headers["cache-control"] == f"max-age={seconds}"
            assert not {"last-modified", "etag", "content-encoding", "accept-ranges"} & headers.keys()


def test_what_is_not_there(site: Site, nginx: str) -> None:
    (site.storage / "data" / "txn" / "staged").write_bytes(b"half an object")
    missing = "data/00/" + "0" * 37 + "1"
    for path in (
        "/", "/secret", "/cvmfs/", f"{HERE}/", f"{HERE}/data/", f"{HERE}/data/txn/staged", f"{HERE}/{missing}",
        f"{HERE}/../../secret", f"{HERE}/%2e%2e/%2e%2e/secret", f"{HERE}/.headstart-new", f"{HERE}/.cvmfs_no",
    ):  # fmt: skip
        status, headers, _ = ask(nginx, path)
        assert status in (400, 404), path
        assert "expires" not in headers
        assert "cache-control" not in headers
    for method in ("POST", "PUT", "DELETE"):
        assert ask(nginx, f"{HERE}/.cvmfspublished", method)[0] == 405


def test_what_comes_later_and_what_changes_is_seen_at_once(site: Site, nginx: str) -> None:
    path = site.storage / "data" / "00" / ("0" * 36 + "12")
    assert ask(nginx, f"{HERE}/data/00/{path.name}")[0] == 404
    path.write_bytes(b"new")
    assert ask(nginx, f"{HERE}/data/00/{path.name}")[2] == b"new"
    path.unlink()
    manifest = site.storage / ".cvmfspublished"
    old = manifest.read_bytes()
    try:
        (site.storage / ".next").write_bytes(old + b"x")
        os.replace(site.storage / ".next", manifest)
        assert ask(nginx, f"{HERE}/.cvmfspublished")[2] == old + b"x"
    finally:
        manifest.write_bytes(old)


def test_a_squid_keeps_what_it_may_and_readers_read_through_it(site: Site, nginx: str, tmp_path: Path) -> None:
    if SQUID is None:
        pytest.skip("squid is not installed")
    with tempfile.TemporaryDirectory(prefix="headstart-squid-") as name:
        # Started by root it becomes another user, who could not write among the files of the tests.
        os.chmod(name, 0o777)  # noqa: S103
        port = free_port()
        Path(name, "squid.conf").write_text(
            f"http_port 127.0.0.1:{port}\nhttp_access allow localhost\nhttp_access deny all\n"
            f"cache_mem 32 MB\nmaximum_object_size_in_memory 16 MB\n"
            f"access_log none\ncache_log {name}/cache.log\n"
            f"pid_filename {name}/pid\ncoredump_dir {name}\n"
            "shutdown_lifetime 0 seconds\nvisible_hostname test\n"
        )
        with running([SQUID, "-N", "-f", f"{name}/squid.conf"], port) as proxy:
            for path in (".cvmfspublished", an_object(site)):
                first, second = (ask(nginx, f"{HERE}/{path}", proxy=proxy) for _ in range(2))
                assert first[1]["x-cache"].startswith("MISS")
                assert second[1]["x-cache"].startswith("HIT"), path
                assert first[2] == second[2] == (site.storage / path).read_bytes()
            node = Node(root=tmp_path)
            source = f"{nginx}{HERE}"
            # A server on this machine is asked directly, whatever the proxy.
            listed = node.headstart("list", source, "--key", site.key, env={"HEADSTART_PROXY": proxy})
            assert listed.returncode == 0, listed.stderr
            assert b"jets" in listed.stdout
            checked = node.headstart("repo", "check", source, "--key", site.key, "--deep")
            assert checked.returncode == 0, checked.stdout
            mirrored = node.headstart("repo", "mirror", source, tmp_path / "mirror", "--key", site.key)
            assert mirrored.returncode == 0, mirrored.stderr
    published = (tmp_path / "mirror" / ".cvmfspublished").read_bytes()
    assert Manifest.from_bytes(Letter.cut(published, what="it").text).fqrn == FQRN
    assert published == (site.storage / ".cvmfspublished").read_bytes()
