"""A release: one immutable build of a stack, as its ``release.json`` records it.

The *id* names the inputs and is known before the build, because Julia bakes absolute paths into what it builds
and the id is part of the path. The *digest* names the result: SHA-256 of ``release.json``, which in turn holds
the SHA-256 of every file of the release and of the Julia it runs on.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from headstart.errors import CorruptError
from headstart.names import Fqrn, JuliaName, ReleaseId, Sha256, StackName
from headstart.record import Table, canonical

__all__ = [
    "JULIA_FILE",
    "RELEASE_FILE",
    "Code",
    "FileRecord",
    "ImageRecord",
    "JuliaTree",
    "LayeredImages",
    "LinkRecord",
    "PackageImages",
    "Record",
    "Release",
    "SystemImage",
    "canonical",
    "relative_path",
]

SCHEMA: Final = 2
JULIA_SCHEMA: Final = 1
RELEASE_FILE: Final = "release.json"
JULIA_FILE: Final = "julia.json"


def relative_path(text: str) -> str:
    """Check a path inside a release: relative, normal, no ``..``, no NUL.

    Raises:
        CorruptError: a path that could lead elsewhere.
    """
    parts = text.split("/")
    if not text or "\0" in text or any(part in ("", ".", "..") for part in parts):
        raise CorruptError(f"{text[:200]!r} is not a path inside a release")
    return text


def _listed_path(text: str) -> str:
    """A path that becomes part of a list of directories, which a colon would split."""
    if ":" in text:
        raise CorruptError(f"{text[:200]!r} has a colon, which a list of directories cannot hold")
    return relative_path(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A regular file of a release."""

    sha256: Sha256
    size: int
    mode: int
    """0o444, or 0o555 for a program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRecord:
    """A symbolic link of a release; its target, resolved, stays inside the tree it is in."""

    target: str


Record = FileRecord | LinkRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class JuliaTree:
    """``julia.json``: the Julia that a release runs on, in a directory of its own in the repository."""

    version: str
    executable: str
    """Path of the program inside the tree, such as ``bin/julia``."""
    share: str
    """Path of its ``share/julia`` inside the tree: the bundled depot."""
    system_image: str
    """Path of the stock system image inside the tree; a release with its own does not need it."""
    library_path: tuple[str, ...]
    """Directories inside the tree that ``LD_LIBRARY_PATH`` must name; none for official builds."""
    files: Mapping[str, Record]

    def to_bytes(self) -> bytes:
        """The stored form; its digest names the tree."""
        return canonical(
            {
                "schema": JULIA_SCHEMA,
                "version": self.version,
                "executable": self.executable,
                "share": self.share,
                "system_image": self.system_image,
                "library_path": list(self.library_path),
                "files": _records_to_json(self.files),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the stored form.

        Raises:
            CorruptError: not such a record, naming the key.
        """
        record = Table.of(data, JULIA_FILE, JULIA_SCHEMA)
        return cls(
            version=record.text("version"),
            executable=relative_path(record.text("executable")),
            share=_listed_path(record.text("share")),
            system_image=relative_path(record.text("system_image")),
            library_path=tuple(_listed_path(path) for path in record.texts("library_path")),
            files=_records_from_json(record.mapping("files"), JULIA_FILE),
        )

    @property
    def name(self) -> JuliaName:
        """The directory's name: the version and the digest's first 12 digits."""
        return JuliaName(f"{self.version}-{Sha256.of(self.to_bytes()).hex[:12]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemImage:
    """Everything in one shared object, which Julia starts from (``-J``)."""

    path: str
    """Inside the release."""
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageImages:
    """A depot of compiled packages, each a cache file and a shared object, for one system image."""

    path: str
    """The depot inside the release: the directory that holds ``compiled/``."""
    size: int
    count: int
    """How many packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayeredImages:
    """A system image, and package images that were built on top of it and go with no other."""

    system: SystemImage
    packages: PackageImages


Code = SystemImage | PackageImages | LayeredImages


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """What was built for one target; all of its files are below ``images/<target>/`` in the release."""

    target: str
    """The level, such as ``x86-64-v3``."""
    cpu_target: str
    """What Julia was told (``-C``)."""
    recorded: str
    """The target name that the image itself records."""
    features: tuple[str, ...]
    """What a CPU must offer to run it, in ``/proc/cpuinfo``'s words, sorted."""
    code: Code
    build_seconds: float

    @property
    def directory(self) -> str:
        """Where all of it is inside the release."""
        return f"images/{self.target}"

    @property
    def system(self) -> tuple[SystemImage, ...]:
        """Its system image; none when it runs on Julia's own."""
        match self.code:
            case SystemImage():
                return (self.code,)
            case PackageImages():
                return ()
            case LayeredImages():
                return (self.code.system,)

    @property
    def packages(self) -> tuple[PackageImages, ...]:
        """Its package images; none when everything is in the system image."""
        match self.code:
            case SystemImage():
                return ()
            case PackageImages():
                return (self.code,)
            case LayeredImages():
                return (self.code.packages,)

    @property
    def parts(self) -> tuple[SystemImage | PackageImages, ...]:
        """Both kinds, the system image first."""
        return (*self.system, *self.packages)

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """``release.json``."""

    fqrn: Fqrn
    stack: StackName
    id: ReleaseId
    julia: JuliaName
    julia_digest: Sha256
    """SHA-256 of the ``julia.json`` of that tree."""
    julia_version: str
    julia_executable: str
    julia_share: str
    julia_library_path: tuple[str, ...]
    relocatable: bool
    """Whether it may run from another path than it was built at."""
    startup: str
    """A Julia file inside the release that every start loads first (``-L``); empty when there is none."""
    load_path: tuple[str, ...]
    """Environments inside the release that a sealed start has behind its project and the standard library."""
    julia_options: tuple[str, ...]
    """Options that a sealed start of this Julia takes, before the user's."""
    julia_environment: Mapping[str, str]
    """Variables that a sealed start of this Julia sets."""
    inputs: Mapping[str, str]
    """What the id was made of: a name and a SHA-256 or a spelling each."""
    images: tuple[ImageRecord, ...]
    """From the least to the most demanding."""
    files: Mapping[str, Record]
    """Every file of the release but ``release.json`` itself."""
    built: str
    """When, UTC, ISO 8601."""
    opened: tuple[str, ...] = ()
    """Files that a start opens, in that order, by path in the repository: the release's own and its Julia's."""

    @property
    def path(self) -> str:
        """Where the release was built and is to be run: an absolute path."""
        return f"{self.fqrn.mountpoint}/stacks/{self.stack}/{self.id}"

    @property
    def julia_path(self) -> str:
        """Where its Julia is to be: an absolute path."""
        return f"{self.fqrn.mountpoint}/julia/{self.julia}"

    def to_bytes(self) -> bytes:
        """The stored form; its SHA-256 is the release's digest."""
        return canonical(
            {
                "schema": SCHEMA,
                "fqrn": str(self.fqrn),
                "stack": str(self.stack),
                "release": str(self.id),
                "path": self.path,
                "julia": {
                    "name": str(self.julia),
                    "digest": self.julia_digest.hex,
                    "version": self.julia_version,
                    "executable": self.julia_executable,
                    "share": self.julia_share,
                    "library_path": list(self.julia_library_path),
                    "options": list(self.julia_options),
                    **({"environment": dict(self.julia_environment)} if self.julia_environment else {}),
                },
                "relocatable": self.relocatable,
                "startup": self.startup,
                "load_path": list(self.load_path),
                "inputs": dict(self.inputs),
                "images": [_image_to_json(image) for image in self.images],
                "files": _records_to_json(self.files),
                "built": self.built,
                **({"opened": list(self.opened)} if self.opened else {}),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the stored form.

        Raises:
            CorruptError: not such a record, naming the key.
        """
        record = Table.of(data, RELEASE_FILE, SCHEMA)
        julia = record.child("julia")
        return cls(
            fqrn=record.named("fqrn", Fqrn),
            stack=record.named("stack", StackName),
            id=record.named("release", ReleaseId),
            julia=julia.named("name", JuliaName),
            julia_digest=julia.named("digest", Sha256),
            julia_version=julia.text("version"),
            julia_executable=relative_path(julia.text("executable")),
            julia_share=_listed_path(julia.text("share")),
            julia_library_path=tuple(_listed_path(path) for path in julia.texts("library_path")),
            julia_options=julia.texts("options"),
            julia_environment=_variables(julia) if "environment" in julia.value else {},
            relocatable=record.truth("relocatable"),
            startup=relative_path(record.text("startup")) if record.text("startup") else "",
            load_path=tuple(_listed_path(path) for path in record.texts("load_path")),
            inputs={key: str(value) for key, value in record.mapping("inputs").items()},
            images=tuple(_image_from_json(child) for child in record.children("images")),
            files=_records_from_json(record.mapping("files"), RELEASE_FILE),
            built=record.text("built"),
            # Older releases do not say.
            opened=tuple(map(relative_path, record.texts("opened"))) if "opened" in record.value else (),
        )


def _variables(record: Table) -> dict[str, str]:
    """The variables of a Julia; a release whose Julia needs none does not mention them."""
    variables = record.child("environment")
    for name in variables.value:
        if not re.fullmatch(r"JULIA_[A-Z_]+", name):
            raise record.wrong("environment", "of variables that are Julia's own")
    return {name: variables.text(name) for name in variables.value}


def _image_to_json(image: ImageRecord) -> dict[str, Any]:
    said: dict[str, Any] = {
        "target": image.target,
        "cpu_target": image.cpu_target,
        "recorded": image.recorded,
        "features": list(image.features),
        "build_seconds": image.build_seconds,
    }
    for system in image.system:
        said["system"] = {"path": system.path, "size": system.size}
    for packages in image.packages:
        said["packages"] = {"path": packages.path, "size": packages.size, "count": packages.count}
    return said


def _image_from_json(record: Table) -> ImageRecord:
    image = ImageRecord(
        target=record.text("target"),
        cpu_target=record.text("cpu_target"),
        recorded=record.text("recorded"),
        features=tuple(sorted(record.texts("features"))),
        code=_code_from_json(record),
        build_seconds=record.seconds("build_seconds"),
    )
    relative_path(image.directory)
    for part in image.parts:
        if part.path != image.directory and not part.path.startswith(f"{image.directory}/"):
            raise CorruptError(
                f"{RELEASE_FILE}: image {image.target} is at {part.path}, not below {image.directory}"
            )
    return image


def _code_from_json(record: Table) -> Code:
    system = packages = None
    if "system" in record.value:
        part = record.child("system")
        system = SystemImage(path=relative_path(part.text("path")), size=part.number("size"))
    if "packages" in record.value:
        part = record.child("packages")
        packages = PackageImages(
            path=_listed_path(part.text("path")), size=part.number("size"), count=part.number("count")
        )
    if system is not None and packages is not None:
        return LayeredImages(system=system, packages=packages)
    code = system or packages
    if code is None:
        raise record.wrong("system", "there, and packages is not either: an image is one of them, or both")
    return code


def _records_to_json(files: Mapping[str, Record]) -> dict[str, Any]:
    return {
        path: {"symlink": entry.target}
        if isinstance(entry, LinkRecord)
        else {"sha256": entry.sha256.hex, "size": entry.size, "mode": f"{entry.mode:04o}"}
        for path, entry in files.items()
    }


def _records_from_json(files: Mapping[str, Any], where: str) -> dict[str, Record]:
    entries: dict[str, Record] = {}
    for path in files:
        record = Table(files, where, "files").child(path)
        relative_path(path)
        if "symlink" in record.value:
            entries[path] = LinkRecord(target=record.text("symlink"))
            continue
        mode = record.text("mode")
        if mode not in ("0444", "0555"):
            raise CorruptError(f"{where}: files.{path}.mode is {mode!r}, not 0444 or 0555")
        entries[path] = FileRecord(
            sha256=record.named("sha256", Sha256), size=record.number("size"), mode=int(mode, 8)
        )
    return entries
