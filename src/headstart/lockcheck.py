"""Whether a lock is one of a project: it names what the project wants, and was resolved for just that."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from headstart.errors import ConfigurationError
from headstart.julia import JuliaVersion
from headstart.project import LOCK_FILE, RESOLVE, Local, Lock, Package, Project
from headstart.versionspec import VersionSpec

_WEAK: Final = JuliaVersion.parse("1.9")
_SPACED: Final = JuliaVersion.parse("1.11")
_WORKSPACES: Final = JuliaVersion.parse("1.12")


def check_fit(project: Project, lock: Lock, local: Mapping[str, Project], file: str = LOCK_FILE) -> None:
    """Check that a lock is one of this project; all complaints in one error.

    Args:
        project: the project.
        lock: its lock.
        local: the ``Project.toml`` of each package that the lock has by its path, by UUID.
        file: how to name the lock in an error.

    Raises:
        ConfigurationError: it misses a dependency, or a package by path has become another one.
    """
    known = lock.by_uuid()
    faults = [
        f"{name} is not in it" if identity not in known else f"it calls {name} {known[identity].name}"
        for name, identity in sorted(project.required.items())
        if identity not in known or known[identity].name != name
    ]
    for package in lock.packages:
        if isinstance(package.source, Local) and package.uuid in local:
            faults += _local_faults(package, local[package.uuid], lock)
    if faults:
        raise ConfigurationError(f"{file} does not fit the project: {'; '.join(faults)}", hint=RESOLVE)


def _local_faults(package: Package, found: Project, lock: Lock) -> list[str]:
    if (found.name, found.uuid) != (package.name, package.uuid):
        return [f"at the path of {package.name} there is {found.name or 'none'} ({found.uuid or 'no UUID'})"]
    locked = {other.uuid for other in lock.needs(package)}
    new = [name for name, identity in sorted(found.required.items()) if identity not in locked]
    old = [other.name for other in lock.needs(package) if other.uuid not in found.dependencies.values()]
    return [f"{package.name} now depends on {name}" for name in new] + [
        f"{package.name} no longer depends on {name}" for name in old
    ]


def project_hash(project: Project, members: Sequence[Project], version: JuliaVersion) -> str:
    """What Pkg writes into a lock as ``project_hash``: 40 hexadecimal digits.

    Up to Julia 1.11 ``project_resolve_hash``, since 1.12 ``workspace_resolve_hash`` (``Pkg/src/Types.jl``,
    1.10.6:275, 1.11.1:261, 1.12.6:602).

    Args:
        project: the project.
        members: the other projects of its workspace.
        version: the Julia whose Pkg has resolved it.

    Raises:
        ConfigurationError: an entry of ``[compat]`` is none.
    """
    dash = "-" if version < _SPACED else " - "
    if version < _WORKSPACES:
        lines = _equations(project.dependencies if version < _WEAK else project.required)
        lines += _equations(
            {name: VersionSpec.parse(text).shown(dash) for name, text in project.compat.items()}
        )
    else:
        everyone = (project, *members)
        direct = {name: identity for one in everyone for name, identity in one.required.items()}
        direct |= {one.name: one.uuid for one in everyone if one.name and one.uuid}
        weak = {name: identity for one in everyone for name, identity in one.weak.items()}
        admitted = {name: _admitted(name, everyone).shown(dash) for name in direct | weak}
        lines = [*_equations(direct), "", *_equations(weak), "", *_equations(admitted)]
    return hashlib.sha1("".join(line + "\n" for line in lines).encode()).hexdigest()


def _equations(table: Mapping[str, str]) -> list[str]:
    return [f"{name}={table[name]}" for name in sorted(table)]


def _admitted(name: str, projects: Sequence[Project]) -> VersionSpec:
    spec = VersionSpec.everything()
    for project in projects:
        if name in project.compat:
            spec = spec.intersect(VersionSpec.parse(project.compat[name]))
    return spec


def check_hash(project: Project, members: Sequence[Project], lock: Lock, file: str) -> None:
    """Check that nothing has changed in a project since its lock was resolved.

    Args:
        project: the project.
        members: the other projects of its workspace.
        lock: its lock.
        file: how to name the lock in an error.

    Raises:
        ConfigurationError: it was resolved for other dependencies, or other versions of them.
    """
    if not lock.project_hash or not lock.julia:
        return
    now = project_hash(project, members, JuliaVersion.parse(lock.julia))
    if now != lock.project_hash:
        raise ConfigurationError(
            f"{file} was resolved for another state of the project: the hash of its dependencies and [compat]"
            f" is now {now[:10]}, and the lock says {lock.project_hash[:10]}",
            hint=RESOLVE,
        )
