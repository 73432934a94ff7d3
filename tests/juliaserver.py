"""A download host of Julia's on this machine's loopback address, with builds that are made here."""

import gzip
import hashlib
import io
import json
import os
import platform
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from headstart.build.trees import git_tree
from headstart.official import OfficialBuilds
from headstart.process import run_process

LIST = "/bin/versions.json"


def program(version: str) -> str:
    """A shell script that answers the probe as a Julia of this version would, wherever it lies."""
    mark = "echo headstart-probe:"
    minor = ".".join(version.split(".")[:2])
    return f"""#!/bin/sh
prefix=$(cd "${{0%/*}}/.." && pwd)
{mark} version {version}
{mark} bindir $prefix/bin
{mark} image $prefix/lib/julia/sys.so
{mark} stdlib $prefix/share/julia/stdlib/v{minor}
{mark} library $prefix/lib/libjulia.so.1
"""


def archive(version: str, *, files: Mapping[str, str] = {}, top: str = "") -> bytes:
    """An archive like an official one, with a shell script for a Julia."""
    minor = ".".join(version.split(".")[:2])
    library = {f"share/julia/stdlib/v{minor}/{name}/src/{name}.jl": name for name in ("Printf", "Unicode")}
    content = {
        "bin/julia": program(version),
        "lib/libjulia.so.1": "library",
        "lib/julia/sys.so": "image",
        **library,
        **files,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, text in content.items():
            member = tarfile.TarInfo(f"{top or f'julia-{version}'}/{path}")
            member.size, member.mtime = len(text.encode()), 1_700_000_000
            member.mode = 0o755 if path.startswith("bin/") else 0o644
            tar.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(buffer.getvalue(), mtime=0)


class JuliaHost:
    """A server while a ``with`` block lasts; its public fields say what it does."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.lengths: dict[str, int] = {}
        """Where the header promises another length than there is."""
        self.asked: list[str] = []
        self.held = threading.Event()
        """Archives are sent when it is set."""
        self.held.set()
        self._versions: dict[str, Any] = {}
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append(self.path)
                if self.path != LIST:
                    host.held.wait(60)
                body = host.pages.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(host.lengths.get(self.path, len(body or b""))))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.versions = self.url + LIST

    def add(self, version: str, data: bytes, **changed: object) -> str:
        """Offer a build; returns its path on the server. ``changed`` replaces what the list says of it."""
        machine = platform.machine()
        path = f"/bin/linux/x64/julia-{version}-linux-{machine}.tar.gz"
        file = {
            "version": version,
            "url": self.url + path,
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "os": "linux",
            "arch": machine,
            "triplet": f"{machine}-linux-gnu",
            "kind": "archive",
            "extension": "tar.gz",
            **changed,
        }
        other = {**file, "os": "winnt", "url": self.url + "/x.zip", "triplet": f"{machine}-w64-mingw32"}
        self._versions[version] = {"files": [other, file], "stable": "-" not in version}
        self.pages[path] = data
        self.pages[LIST] = json.dumps(self._versions).encode()
        return path

    def downloads(self) -> int:
        """How many archives were asked for."""
        return sum(path != LIST for path in self.asked)

    def close(self) -> None:
        """Stop it: nobody answers any more."""
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def running(self) -> Iterator["JuliaHost"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.held.set()
            self.close()
            thread.join()


def builds(folder: Path, versions: str, said: list[str] | None = None) -> OfficialBuilds:
    """The builds of a user whose folder this is."""
    return OfficialBuilds(
        str(folder),
        versions=versions,
        env={**os.environ, "PYTHON_JULIAPKG_PROJECT": "not absolute"},
        run=run_process,
        digest=git_tree,
        say=(said if said is not None else []).append,
    )


def starts_as(host: JuliaHost, folder: Path, request: str) -> list[str]:
    """The words of a program that brings a build, for tests that kill it."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import juliaserver, pathlib\n"
        "from headstart.julia import JuliaRequest\n"
        "juliaserver.builds(pathlib.Path(sys.argv[2]), sys.argv[3]).obtain(JuliaRequest(sys.argv[4]))\n"
    )
    here = str(Path(__file__).resolve().parent)
    return [sys.executable, "-c", code, here, str(folder), host.versions, request]
