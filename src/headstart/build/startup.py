"""The startup environment of a release with package images: what its scripts compile, kept ready.

Theory of operation. A package image holds the native code of what its package compiles while it is itself
precompiled, not of what a script makes of several packages later. So a release has a package of its own,
``HeadstartStartup``, which is empty, and extensions of it, one for each set of packages that a traced script
has loaded. While an extension is precompiled it replays the statements that the scripts were seen to compile:
Julia keeps the code of a method that is asked for by ``precompile``, whoever's method it is
(``has_backedge_to_worklist`` in ``src/staticdata_utils.c``, 1.9 to 1.12). Every start loads the empty package
(``-L startup.jl``), and Julia itself loads an extension as soon as all of its packages are there
(``run_extension_callbacks`` in ``base/loading.jl``, since 1.9). A job that uses but a part of the stack loads
only that part.

The environment stands behind the project and the standard library in the load path, and has no lock: each name
is found there by its UUID, and its place by the lock of the project in front.
"""

import uuid
from collections.abc import Mapping
from typing import Final

from headstart.project import Package

PARENT: Final = "HeadstartStartup"
PARENT_UUID: Final = str(uuid.uuid5(uuid.NAMESPACE_URL, "headstart:startup"))
STATEMENTS: Final = "statements"
_EXTENSION: Final = f"{PARENT}Ext"

Groups = Mapping[tuple[Package, ...], frozenset[str]]
"""Statements by the packages that must be loaded for them, which are sorted by name."""
Modules = Mapping[tuple[Package, ...], frozenset[tuple[str, str]]]
"""UUID and name of the packages' own extensions that are loaded with them."""


def startup_files(groups: Groups, modules: Modules, replay: str) -> dict[str, str]:
    """The environment's files, by path below it.

    Args:
        groups: what to keep ready.
        modules: what else the statements speak of.
        replay: Julia code that replays the file of statements beside it.
    """
    extensions = startup_extensions(groups)
    packages = {package.name: package.uuid for group in extensions.values() for package in group}
    project = [f'name = "{PARENT}"', f'uuid = "{PARENT_UUID}"', "", "[weakdeps]"]
    project += [f'{name} = "{packages[name]}"' for name in sorted(packages)]
    project += ["", "[extensions]"]
    for name, group in extensions.items():
        project.append(f"{name} = [{', '.join(_quoted(package.name) for package in group)}]")
    files = {
        "Project.toml": "\n".join(project) + "\n",
        f"src/{PARENT}.jl": f"# Empty; its extensions hold code.\nmodule {PARENT}\nend\n",
        "startup.jl": f'Base.require(Base.PkgId(Base.UUID("{PARENT_UUID}"), "{PARENT}"))\n',
    }
    for name, group in extensions.items():
        loads = ", ".join((PARENT, *(package.name for package in group)))
        # While an extension is precompiled, Julia 1.11 loads no other one by itself (base/loading.jl,
        # 1.11.1:1353).
        others = "".join(
            f'Base.require(Base.PkgId(Base.UUID("{uuid_}"), {_quoted(other)}))\n'
            for uuid_, other in sorted(modules.get(group, frozenset()))
        )
        files[f"ext/{name}/{name}.jl"] = f"module {name}\nusing {loads}\n{others}{replay}end\n"
        files[f"ext/{name}/{STATEMENTS}"] = "".join(sorted(groups[group]))
    return files


def _quoted(text: str) -> str:
    return f'"{text}"'


def replay_beside(function: str) -> str:
    """Julia code that replays the statements beside it; ``function`` takes a file and a module."""
    return f"({function})(joinpath(@__DIR__, {_quoted(STATEMENTS)}), @__MODULE__)\n"


def startup_extensions(groups: Groups) -> dict[str, tuple[Package, ...]]:
    """The extensions, and what each waits for; groups without packages or statements have none."""
    kept = [packages for packages, lines in groups.items() if packages and lines]
    return {f"{_EXTENSION}{number}": packages for number, packages in enumerate(kept, 1)}
