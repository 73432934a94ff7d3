"""The files that code loading reads: projects, their locks, directories of packages, without Julia.

What base/loading.jl and base/initdefs.jl (``load_path_expand``) find on a disk is found here through
``Files``, which is handed in; each file is read once. What Julia would find out in a way that is not here
raises ``NotKnownError``: then nobody guesses.
"""

import posixpath
import tomllib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from headstart.cacheheader import CacheRules, PackageId
from headstart.errors import ConfigurationError
from headstart.julia import JuliaVersion
from headstart.juliahash import extension_uuid

PROJECT_NAMES: Final = ("JuliaProject.toml", "Project.toml")


class NotKnownError(Exception):
    """Julia knows the answer, and this Headstart does not; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStat:
    """What the system says of a file or directory, links followed."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    directory: bool

    @property
    def mtime(self) -> float:
        """As Julia computes it (``jl_stat_mtime``, src/sys.c)."""
        seconds, rest = divmod(self.mtime_ns, 1_000_000_000)
        return seconds + rest * 1e-9


class Files(Protocol):
    """The files of the session's machine."""

    def stat(self, path: str) -> FileStat | None:
        """None where nothing is, or nothing may be seen."""
        ...

    def read(self, path: str) -> bytes | None:
        """A whole file; None where it cannot be read."""
        ...

    def names(self, path: str) -> tuple[str, ...] | None:
        """What is in a directory, sorted; None where it cannot be read."""
        ...

    def crc32c(self, path: str) -> int | None:
        """CRC-32C of a whole file; None where it cannot be read."""
        ...


class LoadedLock:
    """A lock as loading reads it: looser than a build's, since Julia takes what it finds."""

    def __init__(self, path: str, table: Mapping[str, Any]) -> None:
        self.path = path
        form = table.get("manifest_format")
        entries = table.get("deps", {}) if isinstance(form, str) and form.startswith("2") else table
        self.by_name: dict[str, list[Mapping[str, Any]]] = {
            name: [entry for entry in found if isinstance(entry, dict)]
            for name, found in (entries.items() if isinstance(entries, dict) else ())
            if isinstance(found, list)
        }
        self.by_uuid: dict[int, tuple[str, Mapping[str, Any]]] = {}
        self.extensions: dict[str, list[tuple[PackageId, Mapping[str, Any]]]] = {}
        for name, found in self.by_name.items():
            for entry in found:
                number = uuid_of(entry.get("uuid"))
                if number:
                    self.by_uuid.setdefault(number, (name, entry))
                    for extension in table_of(entry, "extensions"):
                        self.extensions.setdefault(extension, []).append((PackageId(name, number), entry))


def uuid_of(value: object) -> int:
    """A UUID as a number; 0 for what is none."""
    if not isinstance(value, str):
        return 0
    try:
        return uuid.UUID(value).int
    except ValueError:
        return 0


def table_of(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A table in a table; an empty one for what is none."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


class ProjectFiles:
    """A session's projects and directories of packages.

    Args:
        rules: how this version of Julia looks.
        version: which it is.
        files: where it looks.
        depots: ``DEPOT_PATH``, absolute.
        project: the active project: a directory or its ``Project.toml``; empty for none.
        stdlib: the directory of the standard library.
    """

    def __init__(
        self,
        *,
        rules: CacheRules,
        version: JuliaVersion,
        files: Files,
        depots: tuple[str, ...],
        project: str,
        stdlib: str,
    ) -> None:
        self.rules = rules
        self.files = files
        self.depots = depots
        self.stdlib = stdlib
        self._version = version
        self._project = project
        self._tables: dict[str, Mapping[str, Any]] = {}
        self._locks: dict[str, LoadedLock | None] = {}
        self._projects: dict[str, str | bool] = {}

    def expand(self, entry: str) -> str | None:
        """``load_path_expand``."""
        if entry == "@":
            if not self._project:
                return None
            if posixpath.basename(self._project) in PROJECT_NAMES:
                return self._project
            named = self.named_project(self._project)
            return named or posixpath.join(self._project, PROJECT_NAMES[-1])
        if entry == "@stdlib":
            return self.stdlib
        if entry.startswith("@"):
            return self._shared(entry[1:])
        return self.named_project(entry) or entry

    def _shared(self, name: str) -> str | None:
        for number in (self._version.major, self._version.minor, self._version.patch):
            name = name.replace("#", str(number), 1)
        for depot in self.depots:
            found = self.named_project(posixpath.join(depot, "environments", name))
            if found:
                return found
        return None

    def named_project(self, directory: str) -> str | None:
        """The project file of a directory (``locate_project_file``)."""
        places = (posixpath.join(directory, name) for name in PROJECT_NAMES)
        return next((place for place in places if self.is_file(place)), None)

    def project_file(self, env: str) -> str | bool:
        """``env_project_file``: its project file; True for a directory without one; False for neither."""
        if env not in self._projects:
            found = self.files.stat(env)
            if found is not None and found.directory:
                self._projects[env] = self.named_project(env) or True
            else:
                named = posixpath.basename(env) in PROJECT_NAMES
                self._projects[env] = env if named and found is not None else False
        return self._projects[env]

    def lock(self, project: str) -> LoadedLock | None:
        """``project_file_manifest_path``, parsed."""
        if project not in self._locks:
            self._locks[project] = None
            path = self._lock_path(project)
            if path is not None:
                self._locks[project] = LoadedLock(path, self.toml(path))
        return self._locks[project]

    def _lock_path(self, project: str) -> str | None:
        base = self.base_project(project) if self.rules.workspaces else False
        if isinstance(base, str):
            return self._lock_path(base)
        home = posixpath.dirname(project)
        named = self.toml(project).get("manifest")
        names = (*((named,) if isinstance(named, str) else ()), *self.rules.locks)
        paths = (posixpath.normpath(posixpath.join(home, name)) for name in names)
        return next((path for path in paths if self.is_file(path)), None)

    def base_project(self, project: str) -> str | bool:
        """The project of the workspace that this one is a part of (``base_project``, 1.12)."""
        home = posixpath.dirname(project)
        base = self.named_project(posixpath.dirname(home))
        if base is None or base == project:
            return False
        projects = table_of(self.toml(base), "workspace").get("projects")
        return base if isinstance(projects, list) and posixpath.basename(home) in projects else False

    def name_uuid(self, project: str, name: str) -> PackageId:
        """``project_file_name_uuid``; one without a UUID is like no other."""
        table = self.toml(project)
        found = table.get("name", name)
        return PackageId(found if isinstance(found, str) else name, uuid_of(table.get("uuid")) or -1)

    def is_extension(self, parent: int, extensions: Mapping[str, Any], package: PackageId) -> bool:
        """Whether a package is one of these extensions of a package with this UUID."""
        if package.name not in extensions or not self.rules.extensions or not parent:
            return False
        if not self.rules.values_known:
            raise NotKnownError(f"this Headstart does not know how Julia {self._version} numbers extensions")
        return extension_uuid(parent, package.name) == package.uuid

    def extension_file(self, home: str, name: str) -> str:
        """``find_ext_path``."""
        folder = posixpath.join(home, "ext", name, f"{name}.jl")
        return folder if self.is_file(folder) else posixpath.join(home, "ext", f"{name}.jl")

    def extended_in(self, env: str, package: PackageId) -> str | None:
        """The project in a directory of packages that has such an extension."""
        for name in self.files.names(env) or ():
            project = self.named_project(posixpath.join(env, name))
            if project is not None:
                table = self.toml(project)
                if self.is_extension(uuid_of(table.get("uuid")), table_of(table, "extensions"), package):
                    return project
        return None

    def entry_and_project(self, directory: str, name: str) -> tuple[str | None, str | None]:
        """``entry_point_and_project_file``."""
        for home in (posixpath.join(directory, name), posixpath.join(directory, f"{name}.jl")):
            entry = posixpath.join(home, "src", f"{name}.jl")
            if self.is_file(entry):
                return entry, self.named_project(home)
        bare = posixpath.join(directory, f"{name}.jl")
        return (bare if self.is_file(bare) else None), None

    def is_file(self, path: str) -> bool:
        """Whether there is one, links followed."""
        found = self.files.stat(path)
        return found is not None and not found.directory

    def toml(self, path: str) -> Mapping[str, Any]:
        """A file, parsed.

        Raises:
            ConfigurationError: it cannot be read, or is not TOML.
        """
        if path not in self._tables:
            data = self.files.read(path)
            if data is None:
                raise ConfigurationError(f"{path} cannot be read")
            try:
                self._tables[path] = tomllib.loads(data.decode())
            except (ValueError, RecursionError) as error:
                raise ConfigurationError(f"{path} is not TOML ({error})") from error
        return self._tables[path]
