"""The project as a release will hold it: every file's place below ``project/``, found without copying anything.

What is in the project's directory keeps its place, hidden files aside. Of several files that could be its
project or
its lock, the release holds the one that its Julia takes, under the plain name. A package that the lock has by
a path
outside of it comes to ``project/dev/<Name>``, and the lock's copy says so. Owners, times and the place of the
checkout leave no trace, so two checkouts of the same project give the same digest.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headstart.errors import BuildError, ConfigurationError
from headstart.lockcheck import check_fit, check_hash
from headstart.lockchoice import LOCK_NAMES, PREFERENCES_NAMES, PROJECT_NAMES, first, is_rival
from headstart.machine import read_text
from headstart.names import Sha256
from headstart.project import (
    LOCK_FILE,
    PROJECT_FILE,
    Local,
    Lock,
    Package,
    Project,
    preferred,
    with_paths,
)
from headstart.record import canonical
from headstart.tomltable import TomlTable

_NAME: Final = "name the directory of a Julia project"
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
class Preferences:
    """What is set for packages; Julia reads some of it while it compiles them (since 1.6)."""

    file: str
    """Its name beside the project; empty where there is none."""
    packages: tuple[str, ...]
    unread: tuple[str, ...]
    """Packages whose preferences nobody reads, because the project does not name them (``get_uuid_name``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectTree:
    """A project, read and checked."""

    project: Project
    lock: Lock
    lock_name: str
    """The file that was chosen as its lock, relative to the project; a release has it as ``Manifest.toml``."""
    preferences: Preferences
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


def glance(directory: str) -> None:
    """Find out early, before any Julia is asked, whether there is a project to read at all.

    Raises:
        ConfigurationError: there is none, or it is wrong.
    """
    _project_at(os.path.realpath(directory), "that is no Julia project", _NAME)


def read_project(
    directory: str, stage: str, locks: Sequence[str] = LOCK_NAMES, *, workspaces: bool = False
) -> ProjectTree:
    """Read a project, its lock, and the names and digests of all its files.

    Args:
        directory: the project's.
        stage: the staging directory, which is no part of the project even if it is inside.
        locks: the names that its Julia looks for a lock under, in order.
        workspaces: whether its Julia lets projects share a lock.

    Raises:
        ConfigurationError: a file is missing or wrong, or the lock does not fit the project.
    """
    root = os.path.realpath(directory)
    project = _project_at(root, "that is no Julia project", _NAME)
    base, members = _workspace(root, project) if workspaces else (root, ())
    lock_path = _lock_path(root, base, locks)
    lock_text = read_text(
        lock_path,
        "a release is built from a lock and never resolves one",
        "run `julia --project=. -e 'import Pkg; Pkg.resolve()'` in the project and commit the result",
    )
    lock = Lock.parse(lock_text, lock_path)
    shared = os.path.dirname(lock_path) != root
    places = {
        package.uuid: _place(package, root, lock_path) for package in _local(lock, project, shared=shared)
    }
    found = {
        uuid: _project_at(origin, f"{lock_path} has a package there", "repair the path in the lock")
        for uuid, (origin, _) in places.items()
    }
    check_fit(project, lock, found, lock_path)
    check_hash(project, members, lock, lock_path)
    files = _files(root, os.path.realpath(stage), places)
    files[LOCK_FILE] = Written(content=with_paths(lock_text, _new_paths(lock, places)).encode())
    return ProjectTree(
        project=project,
        lock=lock,
        lock_name=os.path.relpath(lock_path, root),
        preferences=read_preferences(root, base, project),
        files=files,
        places={uuid: place for uuid, (_, place) in places.items()},
    )


def _local(lock: Lock, project: Project, *, shared: bool) -> list[Package]:
    """The packages of a lock that are there by their path.

    Of a lock that several projects share, those that this one reaches: the others' are none of its business.
    """
    reached = {package.uuid for package in lock.compiled(project)} if shared else set(lock.by_uuid())
    return [
        package for package in lock.packages if isinstance(package.source, Local) and package.uuid in reached
    ]


def _new_paths(lock: Lock, places: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    return {
        package.source.path: places[package.uuid][1]
        for package in lock.packages
        if isinstance(package.source, Local) and package.uuid in places
    }


def _files(root: str, stage: str, places: Mapping[str, tuple[str, str]]) -> dict[str, Source]:
    """The project's files and those of the packages beside it; project and lock under their plain names."""
    files = dict(_walk(root, stage))
    chosen = first(PROJECT_NAMES, files)
    project = files[chosen]
    files = {path: source for path, source in files.items() if not is_rival(path)} | {PROJECT_FILE: project}
    for origin, place in places.values():
        if place.startswith("dev/") and origin != os.path.join(root, place):
            if any(path.startswith(place + "/") for path in files):
                raise ConfigurationError(f"{root}/{place} is in the way of the package at {origin}")
            files |= {f"{place}/{path}": source for path, source in _walk(origin, stage)}
    return files


def _workspace(root: str, project: Project) -> tuple[str, tuple[Project, ...]]:
    """The directory whose lock the project shares, and the other projects that do.

    A directory above it, or itself, names the projects that share its lock; it may share another's itself
    (``Base.base_project`` in ``base/loading.jl``, 1.12).
    """
    base, head = root, project
    above = os.path.dirname(base)
    while above != os.path.dirname(above):
        if first(PROJECT_NAMES, _names(above)):
            other = _project_at(above, "", "")
            if base in {os.path.realpath(os.path.join(above, path)) for path in other.workspace}:
                base, head = above, other
        above = os.path.dirname(above)
    everyone: dict[str, Project] = {}
    pending = [(base, head)]
    while pending:
        place, one = pending.pop()
        if place not in everyone:
            everyone[place] = one
            for path in one.workspace:
                member = os.path.realpath(os.path.join(place, path))
                if first(PROJECT_NAMES, _names(member)):
                    pending.append((member, _project_at(member, "", "")))
    everyone.pop(root, None)
    return base, tuple(everyone[place] for place in sorted(everyone))


def _lock_path(root: str, base: str, locks: Sequence[str]) -> str:
    """The lock that Julia would take (``project_file_manifest_path`` in ``base/loading.jl``)."""
    for folder in (base, root):
        name = first(locks, _names(folder))
        if name:
            return os.path.join(folder, name)
    return os.path.join(root, LOCK_FILE)


def _names(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _place(package: Package, root: str, lock_path: str) -> tuple[str, str]:
    """Where a local package is, and where it will be below ``project/``."""
    assert isinstance(package.source, Local)  # noqa: S101  # narrows the type; callers have chosen
    origin = os.path.realpath(os.path.join(os.path.dirname(lock_path), package.source.path))
    if origin == root:
        return origin, "."
    inside = os.path.relpath(origin, root)
    return origin, f"dev/{package.name}" if inside.startswith("..") else inside


def _project_at(origin: str, what: str, hint: str) -> Project:
    path = os.path.join(origin, first(PROJECT_NAMES, _names(origin)) or PROJECT_FILE)
    return Project.parse(read_text(path, what, hint), path)


def read_preferences(root: str, base: str, project: Project) -> Preferences:
    """What is set for packages beside the project (``collect_preferences`` in ``base/loading.jl``).

    Args:
        root: the project's directory.
        base: the directory whose lock it shares.
        project: the project.

    Raises:
        ConfigurationError: a file of preferences is wrong, or the workspace sets some, which a release of one
        of its
            projects would not see.
    """
    if base != root:
        above = _project_at(base, "", "")
        shared = first(PREFERENCES_NAMES, _names(base))
        if shared or above.preferences:
            raise ConfigurationError(
                f"{os.path.join(base, shared or PROJECT_FILE)} sets preferences for the whole workspace, and a"
                f" release of {root} alone would not see them",
                hint=f"set them in {os.path.join(root, PREFERENCES_NAMES[-1])}, or build {base} itself",
            )
    name = first(PREFERENCES_NAMES, _names(root))
    local: frozenset[str] = frozenset()
    if name:
        path = os.path.join(root, name)
        local = preferred(TomlTable.parse(read_text(path, "", ""), path))
    wanted = local | project.preferences
    known = frozenset((*project.dependencies, *project.weak, *project.extras, project.name))
    return Preferences(file=name, packages=tuple(sorted(wanted & known)), unread=tuple(sorted(wanted - known)))


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
