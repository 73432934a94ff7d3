"""The project as a release will hold it: every file's place below ``project/``, found without copying anything.

What is in the project's directory keeps its place, hidden files aside. A package that the lock has by a path
outside of it comes to ``project/dev/<Name>``, and the lock's copy says so. Owners, times and the place of the
checkout leave no trace, so two checkouts of the same project give the same digest.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from headstart.errors import BuildError, ConfigurationError
from headstart.machine import read_text
from headstart.names import Sha256
from headstart.project import LOCK_FILE, PROJECT_FILE, Local, Lock, Package, Project, check_fit, with_paths
from headstart.record import canonical

_RIVAL: Final = re.compile(r"JuliaProject\.toml|JuliaManifest\.toml|(Julia)?Manifest-v[0-9.]+\.toml")
FIXED_TIME = 1_000_000_000
"""The one modification time of all sources, in seconds: Julia up to 1.10 compares it with what it noted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A file to copy."""

    origin: str
    """Absolute path."""
    sha256: Sha256
    program: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A file whose content is made here."""

    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """A symbolic link."""

    target: str


Source = Copied | Written | Linked


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectTree:
    """A project, read and checked."""

    project: Project
    lock: Lock
    files: Mapping[str, Source]
    """By path below ``project/``."""
    places: Mapping[str, str]
    """Where the lock's packages by path are below ``project/``, by UUID."""

    def digest(self, *paths: str) -> Sha256:
        """SHA-256 over the names and contents of some files; over all of them when none is named."""
        chosen = paths or tuple(sorted(self.files))
        return Sha256.of(canonical([[path, *_identity(self.files[path])] for path in chosen]))


def _identity(source: Source) -> tuple[str, str]:
    match source:
        case Copied():
            return ("program" if source.program else "file", source.sha256.hex)
        case Written():
            return ("file", Sha256.of(source.content).hex)
        case Linked():
            return ("link", source.target)


def read_project(directory: str, stage: str) -> ProjectTree:
    """Read a project, its lock, and the names and digests of all its files.

    Args:
        directory: the project's.
        stage: the staging directory, which is no part of the project even if it is inside.

    Raises:
        ConfigurationError: a file is missing or wrong, or the lock does not fit the project.
    """
    root = os.path.realpath(directory)
    hint = "name the directory of a Julia project"
    project_path = os.path.join(root, PROJECT_FILE)
    project = Project.parse(read_text(project_path, "that is no Julia project", hint), project_path)
    lock_path = os.path.join(root, LOCK_FILE)
    lock_text = read_text(
        lock_path,
        "a release is built from a lock and never resolves one",
        "run `julia --project=. -e 'import Pkg; Pkg.resolve()'` in the project and commit the result",
    )
    lock = Lock.parse(lock_text, lock_path)
    _refuse_rivals(root)
    places = {
        package.uuid: _place(package, root) for package in lock.packages if isinstance(package.source, Local)
    }
    check_fit(project, lock, {uuid: _project_at(origin, lock_path) for uuid, (origin, _) in places.items()})
    files = dict(_walk(root, os.path.realpath(stage)))
    for origin, place in places.values():
        if place.startswith("dev/") and origin != os.path.join(root, place):
            if any(path.startswith(place + "/") for path in files):
                raise ConfigurationError(f"{root}/{place} is in the way of the package at {origin}")
            files |= {f"{place}/{path}": source for path, source in _walk(origin, os.path.realpath(stage))}
    paths = {
        package.source.path: places[package.uuid][1]
        for package in lock.packages
        if isinstance(package.source, Local)
    }
    files[LOCK_FILE] = Written(content=with_paths(lock_text, paths).encode())
    return ProjectTree(
        project=project, lock=lock, files=files, places={uuid: place for uuid, (_, place) in places.items()}
    )


def _place(package: Package, root: str) -> tuple[str, str]:
    """Where a local package is, and where it will be below ``project/``."""
    assert isinstance(package.source, Local)  # noqa: S101  # narrows the type; callers have chosen
    origin = os.path.realpath(os.path.join(root, package.source.path))
    inside = os.path.relpath(origin, root)
    if origin != root and not inside.startswith(".."):
        return origin, inside
    return origin, f"dev/{package.name}"


def _project_at(origin: str, lock_path: str) -> Project:
    path = os.path.join(origin, PROJECT_FILE)
    text = read_text(path, f"{lock_path} has a package there", "repair the path in the lock")
    return Project.parse(text, path)


def _refuse_rivals(root: str) -> None:
    """Refuse files that Julia takes in place of those that were read here (``base/loading.jl``)."""
    for name in sorted(os.listdir(root)):
        if _RIVAL.fullmatch(name):
            raise ConfigurationError(
                f"{root} has a {name}, which Julia may take in place of {PROJECT_FILE} or {LOCK_FILE}",
                hint=f"keep one project and one lock there, called {PROJECT_FILE} and {LOCK_FILE}",
            )


def _walk(root: str, stage: str) -> Iterator[tuple[str, Source]]:
    if root == stage:
        raise ConfigurationError(
            f"the staging directory {stage} is the project itself",
            hint="name another --stage, inside or outside",
        )
    for folder, names, files in os.walk(root):
        names[:] = sorted(
            name for name in names if not name.startswith(".") and os.path.join(folder, name) != stage
        )
        for name in sorted(files) + [name for name in names if os.path.islink(os.path.join(folder, name))]:
            if not name.startswith("."):
                path = os.path.join(folder, name)
                yield os.path.relpath(path, root), _source(path, root)


def _source(path: str, root: str) -> Source:
    try:
        path.encode()
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            return _link(path, root)
        if not stat.S_ISREG(mode):
            raise ConfigurationError(
                f"{path} is neither a file nor a directory nor a link", hint="take it away"
            )
        return Copied(origin=path, sha256=hash_file(path), program=bool(mode & stat.S_IXUSR))
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{path!r} has a name that is not UTF-8", hint="rename it") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror})") from error


def _link(path: str, root: str) -> Linked:
    target = os.readlink(path)
    end = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if os.path.isabs(target) or not (end == root or end.startswith(root + "/")):
        raise ConfigurationError(
            f"{path} links to {target}, outside of the project", hint="copy what it links to into the project"
        )
    return Linked(target=target)


def hash_file(path: str) -> Sha256:
    """SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return Sha256(hashlib.file_digest(file, "sha256").hexdigest())


def lay_out(files: Mapping[str, Source], folder: str) -> None:
    """Write the files below a folder: modes 0444 and 0555, one fixed time.

    Raises:
        BuildError: a file is no longer what it was when the release id was made.
    """
    for path, source in files.items():
        place = os.path.join(folder, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        match source:
            case Linked():
                os.symlink(source.target, place)
            case Written():
                write_file(place, source.content, program=False)
            case Copied():
                with open(source.origin, "rb") as file:
                    content = file.read()
                if Sha256.of(content) != source.sha256:
                    raise BuildError(
                        f"{source.origin} was changed while this release was being built", hint="build again"
                    )
                write_file(place, content, program=source.program)


def write_file(path: str, content: bytes, *, program: bool) -> None:
    """Write a file of a release: read-only, at the fixed time."""
    with open(path, "xb") as file:
        file.write(content)
    os.chmod(path, 0o555 if program else 0o444)
    os.utime(path, (FIXED_TIME, FIXED_TIME))
