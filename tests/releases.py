"""Small releases for tests: a record, and a tree on disk whose "Julia" prints what it was started with."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from headstart.julia import UserDepot
from headstart.microarchitecture import LEVELS
from headstart.names import Fqrn, JuliaName, ReleaseId, Sha256, StackName
from headstart.openscript import OPEN_LAUNCHER_PATH, open_launcher
from headstart.release import (
    FileRecord,
    ImageRecord,
    JuliaTree,
    LayeredImages,
    LinkRecord,
    PackageImages,
    Record,
    Release,
    SystemImage,
)
from headstart.script import LAUNCHER_PATH, launcher

FAKE_JULIA = """\
#!/bin/sh
# Stands in for Julia: prints its arguments, one a line, and its environment; FAKE_JULIA is done before that.
eval "${FAKE_JULIA-}"
for word do printf 'arg %s\\n' "$word"; done
if [ "$1" = -J ]; then while IFS= read -r line; do printf 'file %s\\n' "$line"; break; done <"$2"; fi
printf 'cwd %s\\n' "$PWD"
exec env -0
"""


def image(target: str, features: Sequence[str] | None = None, size: int = 10) -> ImageRecord:
    return ImageRecord(
        target=target,
        cpu_target="generic",
        recorded="generic",
        features=tuple(sorted(LEVELS[target] if features is None else features)),
        code=SystemImage(path=f"images/{target}/sys.so", size=size),
        build_seconds=1.0,
    )


def packaged(made: ImageRecord) -> ImageRecord:
    """The same with package images in place of a system image."""
    return replace(made, code=PackageImages(path=made.directory, size=made.size, count=1))


def layered(made: ImageRecord) -> ImageRecord:
    """The same with package images on top of its system image."""
    (system,) = made.system
    packages = PackageImages(path=made.directory, size=made.size, count=1)
    return replace(made, code=LayeredImages(system=system, packages=packages))


def record_of(content: bytes, mode: int = 0o444) -> FileRecord:
    return FileRecord(sha256=Sha256.of(content), size=len(content), mode=mode)


def release(targets: Sequence[str] = ("x86-64", "x86-64-v3"), *, fqrn: str = "julia.example.org") -> Release:
    return Release(
        fqrn=Fqrn(fqrn),
        stack=StackName("jets"),
        id=ReleaseId("0123456789abcdef"),
        julia=JuliaName("1.5.3-0123456789ab"),
        julia_digest=Sha256("0" * 64),
        julia_version="1.5.3",
        julia_executable="bin/julia",
        julia_share="share/julia",
        julia_library_path=("lib", "lib/julia"),
        relocatable=True,
        startup="",
        load_path=(),
        julia_options=("--history-file=no",),
        julia_environment={},
        inputs={"recipe": "1"},
        images=tuple(image(target) for target in targets),
        files={},
        built="2026-01-01T00:00:00Z",
    )


JULIA_CONTENT: Mapping[str, bytes] = {
    "bin/julia": FAKE_JULIA.encode(),
    "lib/julia/sys.so": b"the stock system image\n" * 1000,
    "lib/libjulia.so.1": b"a library\n" * 5000,
    "share/julia/base/Base.jl": b"module Base end\n",
    "share/doc/julia/index.html": b"<html>manual</html>\n" * 100,
    "include/julia/julia.h": b"#define JULIA\n",
    "share/julia/test/runtests.jl": b"exit(0)\n",
}
"""A tree that looks like a Julia's; its program is the fake one."""


def write_stage(
    stage: Path,
    base: Release | None = None,
    *,
    image_size: int = 50_000,
    extra: Mapping[str, bytes] | None = None,
    user_depot: UserDepot = UserDepot.EVERY,
) -> Release:
    """Write a staged release as a build leaves it, and return its record.

    Args:
        stage: where; ``julia/<name>`` and ``stacks/<stack>/<id>`` are made below it.
        base: what the release is to be; its files and images' sizes are filled in.
        image_size: bytes of each image; its first line names its target.
        extra: more files of the release, by path inside it.
        user_depot: which Julia it is for, as far as ``open/julia`` is concerned.
    """
    start = base or release()
    julia_files: dict[str, Record] = {
        path: record_of(content, 0o555 if path.startswith("bin/") else 0o444)
        for path, content in JULIA_CONTENT.items()
    }
    julia_files["lib/libjulia.so"] = LinkRecord(target="libjulia.so.1")
    tree = JuliaTree(
        version="1.5.3",
        executable="bin/julia",
        share="share/julia",
        system_image="lib/julia/sys.so",
        library_path=start.julia_library_path,
        files=julia_files,
    )
    contents = {
        part.path: image_content(item.target, image_size) for item in start.images for part in item.system
    }
    contents |= {
        f"{part.path}/compiled/v1.10/Jets/abc.so": image_content(item.target, image_size)
        for item in start.images
        for part in item.packages
    }
    contents |= {
        "project/Project.toml": b'name = "Jets"\n',
        "project/Manifest.toml": b"# nothing\n",
        "depot/packages/Jets/src/Jets.jl": b"module Jets end\n",
        **(extra or {}),
    }
    made = replace(
        start,
        julia=tree.name,
        julia_digest=Sha256.of(tree.to_bytes()),
        images=tuple(_resized(item, image_size) for item in start.images),
    )
    contents[LAUNCHER_PATH] = launcher(made).encode()
    contents[OPEN_LAUNCHER_PATH] = open_launcher(made, user_depot).encode()
    files: dict[str, Record] = {
        path: record_of(content, 0o555 if path.startswith(("bin/", "open/")) else 0o444)
        for path, content in contents.items()
    }
    files["depot/current"] = LinkRecord(target="packages/Jets")
    made = replace(made, files=files)
    julia_root = stage / "julia" / str(made.julia)
    root = stage / "stacks" / str(made.stack) / str(made.id)
    _write(julia_root, JULIA_CONTENT, julia_files)
    _write(root, contents, files)
    (julia_root / "julia.json").write_bytes(tree.to_bytes())
    (root / "release.json").write_bytes(made.to_bytes())
    for directory in (julia_root, root):
        (directory / ".cvmfscatalog").touch()
    return made


def _resized(item: ImageRecord, size: int) -> ImageRecord:
    match item.code:
        case LayeredImages(system=system, packages=packages):
            return replace(
                item,
                code=LayeredImages(system=replace(system, size=size), packages=replace(packages, size=size)),
            )
        case code:
            return replace(item, code=replace(code, size=size))


def image_content(target: str, size: int) -> bytes:
    """Bytes that do not compress to nothing: its first line names the target."""
    head = f"image {target}\n".encode()
    words = b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))
    return (head + words)[:size]


def _write(root: Path, contents: Mapping[str, bytes], files: Mapping[str, Record]) -> None:
    for path, entry in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(entry, LinkRecord):
            os.symlink(entry.target, place)
        else:
            place.write_bytes(contents[path])
            place.chmod(entry.mode)


def parse_fake_output(out: bytes) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Arguments, environment, and the rest (``file``, ``cwd``) that the fake Julia printed."""
    *lines, last = out.split(b"\0")[0].split(b"\n")
    arguments = [line[4:].decode() for line in lines if line.startswith(b"arg ")]
    rest = {
        key: value
        for key, _, value in (line.decode().partition(" ") for line in lines)
        if key in ("file", "cwd")
    }
    pairs = [last, *out.split(b"\0")[1:-1]]
    environment = dict(pair.decode().split("=", 1) for pair in pairs)
    return arguments, environment, rest
