"""Which package a name means, and where its source is: Julia's code loading, without Julia.

Theory of operation. A session has a list of environments (``LOAD_PATH``), each a project with its lock or a
directory of packages. ``using Name`` inside a package asks them in order what ``Name`` is for that package
(``identify_package``), then where that package's entry file is (``locate_package``; base/loading.jl,
1.5.3:244 to :600, 1.10.6:300 to :930, 1.11.1:300 to :960). Both answers decide about caches, so they are
found here in the same order and with the same stops.
"""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Final

from headstart.cacheheader import PackageId
from headstart.juliahash import extension_uuid, version_slug
from headstart.lockchoice import PREFERENCES_NAMES
from headstart.projectfiles import LoadedLock, NotKnownError, ProjectFiles, table_of, uuid_of

_TREE_DIGITS: Final = 40


class _StopError(Exception):
    """The search ends here without an answer."""


class Environment:
    """A session's environments.

    Args:
        projects: the files.
        load_path: ``LOAD_PATH``: ``@``, ``@stdlib``, ``@v#.#``, or paths.
    """

    def __init__(self, projects: ProjectFiles, load_path: tuple[str, ...]) -> None:
        self._projects = projects
        self._rules = projects.rules
        self._located: dict[PackageId, str | None] = {}
        found = (projects.expand(entry) for entry in load_path)
        self.entries = tuple(dict.fromkeys(path for path in found if path))
        """The environments: project files, and directories of packages."""

    # What a name means

    def identify(self, where: PackageId, name: str) -> PackageId | None:
        """Which package a package means by a name (``identify_package``)."""
        if where.name == name:
            return where
        for env in self.entries:
            if where.uuid == 0:
                found = self._project_dependency(env, name)
            else:
                try:
                    found = self._dependency(env, where, name)
                except _StopError:
                    return None
            if found is not None:
                return found
        return self._standard_dependency(where, name) if self._rules.workspaces else None

    def _project_dependency(self, env: str, name: str) -> PackageId | None:
        project = self._projects.project_file(env)
        if isinstance(project, str):
            return self._explicit(project, name)
        if not project:
            return None
        entry, inner = self._projects.entry_and_project(env, name)
        if inner is None:
            return PackageId(name, 0) if entry else None
        found = self._projects.name_uuid(inner, name)
        return found if found.name == name else None

    def _explicit(self, project: str, name: str) -> PackageId | None:
        """``explicit_project_deps_get``."""
        table = self._projects.toml(project)
        if table.get("name") == name:
            number = uuid_of(table.get("uuid"))
            if not number:
                raise NotKnownError(f"{project} has a name but no UUID, and Julia makes one up")
            return PackageId(name, number)
        number = uuid_of(table_of(table, "deps").get(name))
        return PackageId(name, number) if number else None

    def _dependency(self, env: str, where: PackageId, name: str) -> PackageId | None:
        """``manifest_deps_get``; ``_StopError`` where it is known that there is no such dependency."""
        project = self._projects.project_file(env)
        if project is False:
            return None
        implicit = project is True
        owner = self._project_of(env, where) if implicit else project
        if not isinstance(owner, str):
            return None
        table = self._projects.toml(owner)
        if self._projects.name_uuid(owner, where.name) == where:
            found = self._explicit(owner, name)
        elif self._projects.is_extension(uuid_of(table.get("uuid")), table_of(table, "extensions"), where):
            number = uuid_of(table_of(table, "weakdeps").get(name))
            found = PackageId(name, number) if number else self._explicit(owner, name)
        elif implicit:
            return None
        else:
            return self._locked_dependency(owner, where, name)
        if found is None:
            raise _StopError
        return found

    def _project_of(self, env: str, where: PackageId) -> str | None:
        """The project of a package, or of the package whose extension it is, in a directory of packages."""
        project = self._projects.entry_and_project(env, where.name)[1]
        if project is not None or not self._rules.content:
            return project
        return self._projects.extended_in(env, where)

    def _locked_dependency(self, project: str, where: PackageId, name: str) -> PackageId | None:
        """``explicit_manifest_deps_get``."""
        lock = self._projects.lock(project)
        if lock is None:
            return None
        if where.uuid in lock.by_uuid:
            return self._listed(lock, lock.by_uuid[where.uuid][1], ("deps",), name)
        for parent, entry in lock.extensions.get(where.name, ()):
            if self._projects.is_extension(parent.uuid, entry["extensions"], where):
                if name == parent.name:
                    return parent
                triggers = entry["extensions"][where.name]
                weak = name == triggers or (isinstance(triggers, list) and name in triggers)
                return self._listed(lock, entry, ("weakdeps", "deps") if weak else ("deps",), name)
        return None

    def _listed(
        self, lock: LoadedLock, entry: Mapping[str, Any], keys: tuple[str, ...], name: str
    ) -> PackageId | None:
        for key in keys:
            listed = entry.get(key)
            if isinstance(listed, dict) and name in listed:
                return PackageId(name, uuid_of(listed[name]))
            if isinstance(listed, list) and name in listed:
                found = lock.by_name.get(name, [])
                if len(found) != 1:
                    raise NotKnownError(
                        f"{lock.path} has {len(found)} packages called {name}, where Julia wants one"
                    )
                return PackageId(name, uuid_of(found[0].get("uuid")))
        raise _StopError

    def _standard_dependency(self, where: PackageId, name: str) -> PackageId | None:
        """Since 1.12 the standard library's own projects come last (``identify_stdlib_project_dep``)."""
        project = self._projects.project_file(posixpath.join(self._projects.stdlib, where.name))
        if isinstance(project, str) and self._projects.name_uuid(project, where.name) == where:
            return self._explicit(project, name)
        return None

    # Where a package is

    def locate(self, package: PackageId) -> str | None:
        """The entry file of a package (``locate_package``); None where it is not in any environment."""
        if package not in self._located:
            try:
                self._located[package] = self._locate(package)
            except _StopError:
                self._located[package] = None
        return self._located[package]

    def _locate(self, package: PackageId) -> str | None:
        if package.uuid == 0:
            return next(
                (
                    self._projects.entry_and_project(env, package.name)[0]
                    for env in self.entries
                    if self._project_dependency(env, package.name) == package
                ),
                None,
            )
        for env in (*self.entries, *((self._projects.stdlib,) if self._rules.standard else ())):
            path = self._place(env, package)
            if path is not None:
                return self._entry(path, package.name)
        return None

    def _place(self, env: str, package: PackageId) -> str | None:
        """``manifest_uuid_path``: the directory, or the entry file, of a package in one environment."""
        project = self._projects.project_file(env)
        if isinstance(project, str):
            table = self._projects.toml(project)
            home = posixpath.dirname(project)
            if self._projects.name_uuid(project, package.name) == package:
                inner = table.get("path", table.get("entryfile"))
                return posixpath.join(home, inner) if isinstance(inner, str) else home
            if self._projects.is_extension(uuid_of(table.get("uuid")), table_of(table, "extensions"), package):
                return self._projects.extension_file(home, package.name)
            return self._locked_place(project, package)
        return self._place_inside(env, package) if project else None

    def _place_inside(self, env: str, package: PackageId) -> str | None:
        """The entry file of a package in a directory of packages (``implicit_manifest_uuid_path``)."""
        entry, project = self._projects.entry_and_project(env, package.name)
        if project is not None:
            return entry if self._projects.name_uuid(project, package.name) == package else None
        if self._rules.content and env == self._projects.stdlib:
            extended = self._projects.extended_in(env, package)
            if extended is not None:
                return self._projects.extension_file(posixpath.dirname(extended), package.name)
        return None

    def _locked_place(self, project: str, package: PackageId) -> str | None:
        """``explicit_manifest_uuid_path``."""
        lock = self._projects.lock(project)
        if lock is None:
            return None
        for entry in lock.by_name.get(package.name, ()):
            if uuid_of(entry.get("uuid")) == package.uuid:
                return self._entry_place(lock, package, entry)
        for parent, entry in lock.extensions.get(package.name, ()):
            if self._projects.is_extension(parent.uuid, entry["extensions"], package):
                source = self.locate(parent)
                if source is None:
                    raise NotKnownError(f"{package.name} extends {parent.name}, whose source is not found")
                home = posixpath.normpath(posixpath.join(posixpath.dirname(source), ".."))
                return self._projects.extension_file(home, package.name)
        return None

    def _entry_place(self, lock: LoadedLock, package: PackageId, entry: Mapping[str, Any]) -> str | None:
        path = entry.get("path")
        if isinstance(path, str):
            return posixpath.normpath(posixpath.join(posixpath.dirname(lock.path), path))
        tree = entry.get("git-tree-sha1")
        if not isinstance(tree, str) or len(tree) != _TREE_DIGITS:
            return None
        try:
            digest = bytes.fromhex(tree)
        except ValueError:
            return None
        for length in (5, 4):
            for depot in self._projects.depots:
                place = posixpath.join(
                    depot, "packages", package.name, version_slug(package.uuid, digest, length)
                )
                if self._projects.files.stat(place) is not None:
                    return place
        if self._rules.missing_stops:
            raise _StopError
        return None

    def locked(self) -> tuple[PackageId, ...]:
        """Every package of the active project's lock, and every extension whose packages are all in it."""
        project = self._projects.expand("@")
        lock = (
            self._projects.lock(project)
            if project and isinstance(self._projects.project_file(project), str)
            else None
        )
        if lock is None:
            return ()
        packages = [PackageId(name, number) for number, (name, _) in lock.by_uuid.items()]
        if self._rules.extensions and self._rules.values_known:
            for name, parents in lock.extensions.items():
                for parent, entry in parents:
                    triggers = entry["extensions"][name]
                    wanted = triggers if isinstance(triggers, list) else [triggers]
                    if all(trigger in lock.by_name for trigger in wanted):
                        packages.append(PackageId(name, extension_uuid(parent.uuid, name)))
        return tuple(sorted(packages))

    # Preferences

    def preferences(self, package: PackageId) -> Mapping[str, Any]:
        """What all environments say of a package's preferences, merged (``get_preferences``)."""
        merged: dict[str, Any] = {}
        for project in reversed(self._preference_projects()):
            for table in self._preference_tables(project, package):
                merged = _merged(merged, table)
        return merged

    def _preference_projects(self) -> list[str]:
        projects: list[str] = []
        for place, env in enumerate(self.entries):
            project = self._projects.project_file(env)
            while isinstance(project, str):
                projects.append(project)
                project = (
                    self._projects.base_project(project) if place == 0 and self._rules.workspaces else False
                )
        return projects

    def _preference_tables(self, project: str, package: PackageId) -> Iterator[Mapping[str, Any]]:
        table = self._projects.toml(project)
        name = self._called(table, package.uuid)
        if name is None:
            return
        yield table_of(table_of(table, "preferences"), name)
        for file in PREFERENCES_NAMES:
            path = posixpath.join(posixpath.dirname(project), file)
            if self._projects.is_file(path):
                yield table_of(self._projects.toml(path), name)
                break

    def _called(self, table: Mapping[str, Any], number: int) -> str | None:
        """The name by which a project knows a package (``get_uuid_name``)."""
        name = table.get("name")
        if isinstance(name, str) and uuid_of(table.get("uuid")) == number:
            return name
        for key in ("deps", "extras", *(("weakdeps",) if self._rules.extensions else ())):
            for dependency, value in table_of(table, key).items():
                if uuid_of(value) == number:
                    return dependency
        return None

    def _entry(self, path: str, name: str) -> str | None:
        """``entry_path``."""
        if self._projects.is_file(path):
            return posixpath.normpath(path)
        inner = posixpath.normpath(posixpath.join(path, "src", f"{name}.jl"))
        return inner if self._projects.is_file(inner) else None


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``recursive_prefs_merge``, 1.10.6 loading.jl:2766."""
    merged = dict(base)
    cleared = over.get("__clear__")
    for key in cleared if isinstance(cleared, list) else ():
        merged.pop(key, None)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
