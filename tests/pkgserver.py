"""A package server on loopback, with a registry, packages and artifacts that a test makes.

It speaks the protocol of Julia's package servers (``Pkg/docs/src/protocol.md``): ``/registries``,
``/registry/UUID/HASH``,
``/package/UUID/HASH`` and ``/artifact/HASH``, each a compressed tarball of a tree that is known by its git
hash.
"""

import gzip
import hashlib
import io
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from headstart.build.trees import git_tree

REGISTRY = "23338594-aafe-5451-b93e-139f81909106"
Fault = Callable[[bytes], bytes | int]
"""What the server does with a resource: it sends other bytes, or a status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tarball:
    """A tree, packed."""

    tree: str
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def write_tree(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files; one whose name ends with ``*`` is a program."""
    for name, text in files.items():
        place = folder / name.removesuffix("*")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text if isinstance(text, bytes) else text.encode())
        place.chmod(0o755 if name.endswith("*") else 0o644)
    return folder


def pack(folder: Path) -> Tarball:
    """Pack a directory, the same way each time."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            info = tar.gettarinfo(path, str(path.relative_to(folder)))
            info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
    return Tarball(tree=git_tree(str(folder)), content=gzip.compress(packed.getvalue(), mtime=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of a package, as a registry knows it."""

    version: str
    tree: str
    deps: Mapping[str, str]
    weak: Mapping[str, str]


@dataclass(slots=True)
class PackageServer:
    """What is served, and how it misbehaves.

    Args:
        root: where trees are made.
    """

    root: Path
    resources: dict[str, bytes] = field(default_factory=dict)
    packages: dict[tuple[str, str], list[Version]] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def package(
        self,
        name: str,
        uuid: str,
        version: str,
        files: Mapping[str, str | bytes],
        *,
        deps: Mapping[str, str] | None = None,
        weak: Mapping[str, str] | None = None,
    ) -> Path:
        """Register a version of a package; returns its directory."""
        folder = write_tree(self.root / "packages" / name / version, files)
        tarball = pack(folder)
        self.resources[f"/package/{uuid}/{tarball.tree}"] = tarball.content
        entry = Version(version=version, tree=tarball.tree, deps=deps or {}, weak=weak or {})
        self.packages.setdefault((name, uuid), []).append(entry)
        return folder

    def artifact(self, files: Mapping[str, str | bytes], name: str) -> Tarball:
        """Serve an artifact, both as a resource of the package server and as a file of its own."""
        tarball = pack(write_tree(self.root / "artifacts" / name, files))
        self.resources[f"/artifact/{tarball.tree}"] = tarball.content
        self.resources[f"/files/{name}.tar.gz"] = tarball.content
        return tarball

    def register(self) -> str:
        """Make the registry of all packages; returns its tree."""
        folder = self.root / "registry"
        shutil.rmtree(folder, ignore_errors=True)
        lines = ['name = "General"', f'uuid = "{REGISTRY}"', 'repo = ""', "", "[packages]"]
        for (name, uuid), versions in sorted(self.packages.items()):
            path = f"{name[0]}/{name}"
            lines.append(f'{uuid} = {{ name = "{name}", path = "{path}" }}')
            files = {
                "Package.toml": f'name = "{name}"\nuuid = "{uuid}"\nrepo = "file:///nowhere/{name}.git"\n',
                "Versions.toml": "".join(
                    f'["{one.version}"]\ngit-tree-sha1 = "{one.tree}"\n\n' for one in versions
                ),
            }
            for file, tables in (
                ("Deps", [one.deps for one in versions]),
                ("WeakDeps", [one.weak for one in versions]),
            ):
                if any(tables):
                    files[f"{file}.toml"] = "".join(
                        # A range of versions, which has no build number.
                        f'["{one.version.partition("+")[0]}"]\n'
                        + "".join(f'{dep} = "{id_}"\n' for dep, id_ in table.items())
                        + "\n"
                        for one, table in zip(versions, tables, strict=True)
                    )
            write_tree(folder / path, files)
        write_tree(folder, {"Registry.toml": "\n".join(lines) + "\n"})
        tarball = pack(folder)
        resource = f"/registry/{REGISTRY}/{tarball.tree}"
        self.resources[resource] = tarball.content
        for name in ("/registries", "/registries.eager", "/registries.conservative"):
            self.resources[name] = resource.encode() + b"\n"
        return tarball.tree


@contextmanager
def serving(server: PackageServer) -> Iterator[PackageServer]:
    """Serve it on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            server.asked.append(self.path)
            found: bytes | int = server.resources.get(self.path, 404)
            if isinstance(found, bytes) and self.path in server.faults:
                found = server.faults[self.path](found)
            status, content = (found, b"") if isinstance(found, int) else (200, found)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    server.url = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
