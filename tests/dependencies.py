"""A stack with all that real ones have: a registry, artifacts, a library, preferences, an extension, a
package by path.

``Quantities``      from the registry, in three versions
``Shapes``          from the registry; with an extension for ``Quantities`` (since Julia 1.9)
``Summer_jll``      from the registry; a library in an artifact that is chosen by platform, opened in
``__init__``
``Tunable``         from the registry; its code depends on a preference that is read while it is compiled
(since 1.6) ``Analysis``        by path, beside the project; has artifacts of its own, one of them lazy
"""

import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart.julia import JuliaVersion
from juliahelp import StockJulia
from pkgserver import PackageServer, Tarball, write_tree

QUANTITIES = "a0000000-0000-4000-8000-000000000001"
SHAPES = "a0000000-0000-4000-8000-000000000002"
SUMMER = "a0000000-0000-4000-8000-000000000003"
TUNABLE = "a0000000-0000-4000-8000-000000000004"
ANALYSIS = "a0000000-0000-4000-8000-000000000005"
LIBDL = "8f399da3-3557-5675-b5ff-fb832c97cbdb"
_PKG = {"Pkg": "44cfe95a-1eb2-52ea-b672-e2afdf69b78f"}
_ARTIFACTS = {"Artifacts": "56f22d72-fd6d-98f1-02f0-08ddc0907c33"}


def artifacts_library(version: JuliaVersion) -> dict[str, str]:
    """What a package depends on to have artifacts: a library of their own came with Julia 1.6."""
    return _PKG if version < JuliaVersion.parse("1.6") else _ARTIFACTS


def project_toml(name: str, uuid: str, version: str, deps: Mapping[str, str], more: str = "") -> str:
    lines = [f'name = "{name}"', f'uuid = "{uuid}"', f'version = "{version}"', "", "[deps]"]
    return "\n".join([*lines, *(f'{dep} = "{id_}"' for dep, id_ in sorted(deps.items()))]) + "\n" + more


NOWHERE = "http://127.0.0.1:9/files"
"""Where artifacts are by their own word: a closed port, so only the package server has them."""


def add_packages(server: PackageServer, version: JuliaVersion, files_at: str = NOWHERE) -> dict[str, Tarball]:
    """Register everything; returns the artifacts."""
    for number, factor in (("1.0.0", 1), ("1.1.0", 10), ("2.0.0", 100)):
        files = {
            "Project.toml": project_toml("Quantities", QUANTITIES, number, {}),
            "src/Quantities.jl": (
                f"module Quantities\nstruct Metres\n    x::Float64\nend\nfactor() = {factor}\nend\n"
            ),
        }
        server.package("Quantities", QUANTITIES, number, files)
    extension = (
        f'\n[weakdeps]\nQuantities = "{QUANTITIES}"\n\n[extensions]\nShapesQuantitiesExt = "Quantities"\n'
    )
    server.package(
        "Shapes",
        SHAPES,
        "0.3.1",
        {
            "Project.toml": project_toml("Shapes", SHAPES, "0.3.1", {}, extension),
            "src/Shapes.jl": (
                "module Shapes\nstruct Square{T}\n    side::T\nend\narea(s::Square) = s.side * s.side\nend\n"
            ),
            "ext/ShapesQuantitiesExt.jl": (
                "module ShapesQuantitiesExt\nusing Shapes, Quantities\n"
                "struct Area{T}\n    x::T\nend\n"
                "Shapes.area(s::Shapes.Square{Quantities.Metres}) =\n"
                "    Area(s.side.x^2 * Quantities.factor()).x\nend\n"
            ),
        },
        weak={"Quantities": QUANTITIES},
    )
    made = {"summer": library(server), "table": server.artifact({"table.txt": "2 3 5 7\n"}, "table")}
    made["spare"] = server.artifact({"spare.txt": "only on demand\n"}, "spare")
    deps = {"Libdl": LIBDL, **artifacts_library(version)}
    using = ", ".join("Pkg.Artifacts" if dep == "Pkg" else dep for dep in deps)
    server.package(
        "Summer_jll",
        SUMMER,
        "1.2.3+0",
        {
            "Project.toml": project_toml("Summer_jll", SUMMER, "1.2.3+0", deps),
            "Artifacts.toml": platform_artifact("Summer", made["summer"], f"{files_at}/summer.tar.gz"),
            "src/Summer_jll.jl": (
                f'module Summer_jll\nusing {using}\nconst symbol = Ref(C_NULL)\npath = ""\n'
                "function __init__()\n"
                '    global path = joinpath(artifact"Summer", "lib", "libsummer.so")\n'
                '    symbol[] = dlsym(dlopen(path), "summer")\nend\n'
                "summed(xs::Vector{Float64}) = "
                "ccall(symbol[], Cdouble, (Ptr{Cdouble}, Csize_t), xs, length(xs))\nend\n"
            ),
        },
        deps=deps,
    )
    server.package(
        "Tunable",
        TUNABLE,
        "0.1.0",
        {
            "Project.toml": project_toml("Tunable", TUNABLE, "0.1.0", {}),
            "src/Tunable.jl": (
                "module Tunable\n"
                f'const SELF = Base.UUID("{TUNABLE}")\n'
                "const MODE = if isdefined(Base, :get_preferences)\n"
                '    Base.record_compiletime_preference(SELF, "mode")\n'
                '    get(Base.get_preferences(SELF), "mode", "plain")\nelse\n    "plain"\nend\nend\n'
            ),
        },
    )
    server.register()
    return made


def library(server: PackageServer) -> Tarball:
    """A library that sums numbers, compiled here."""
    compiler = shutil.which("cc") or pytest.skip("makes a library with a C compiler, and there is none")
    source = server.root / "summer.c"
    source.write_text(
        "#include <stddef.h>\ndouble summer(const double *x, size_t n)\n"
        "{ double sum = 0; for (size_t i = 0; i < n; i++) sum += x[i]; return sum; }\n"
    )
    made = server.root / "libsummer.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wl,--build-id=none", "-o", made, source], check=True)
    return server.artifact(
        {"lib/libsummer.so*": made.read_bytes(), "share/licenses/COPYING": "free\n"}, "summer"
    )


def platform_artifact(name: str, tarball: Tarball, url: str) -> str:
    """An ``Artifacts.toml`` as a JLL has it: an entry for each platform; only this machine's can be had."""
    entries = []
    for arch, libc, tree, sha in (
        ("aarch64", "glibc", "1" * 40, "1" * 64),
        (platform.machine(), "glibc", tarball.tree, tarball.sha256),
        (platform.machine(), "musl", "2" * 40, "2" * 64),
    ):
        entries.append(
            f'[[{name}]]\narch = "{arch}"\ngit-tree-sha1 = "{tree}"\nlibc = "{libc}"\nos = "linux"\n\n'
            f'    [[{name}.download]]\n    sha256 = "{sha}"\n    url = "{url}"\n'
        )
    return "\n".join(entries)


def plain_artifact(name: str, tarball: Tarball, url: str, *, lazy: bool = False) -> str:
    more = "lazy = true\n" if lazy else ""
    return (
        f'[{name}]\ngit-tree-sha1 = "{tarball.tree}"\n{more}\n'
        f'    [[{name}.download]]\n    sha256 = "{tarball.sha256}"\n    url = "{url}"\n'
    )


def write_stack(root: Path, made: Mapping[str, Tarball], version: JuliaVersion) -> Path:
    """Write the project without its lock, and the package beside it; returns the project's directory."""
    deps = {"Quantities": QUANTITIES, "Shapes": SHAPES, "Summer_jll": SUMMER, "Tunable": TUNABLE}
    library = artifacts_library(version)
    using = ", ".join([*deps, *("Pkg.Artifacts" if dep == "Pkg" else dep for dep in library)])
    write_tree(
        root / "Analysis",
        {
            "Project.toml": project_toml("Analysis", ANALYSIS, "0.1.0", deps | library),
            "JuliaArtifacts.toml": plain_artifact("table", made["table"], f"{NOWHERE}/table.tar.gz")
            + plain_artifact("spare", made["spare"], f"{NOWHERE}/spare.tar.gz", lazy=True),
            "src/Analysis.jl": (
                f"module Analysis\nusing {using}\n"
                'const TABLE = artifact"table"\n'
                'numbers() = parse.(Float64, split(read(joinpath(TABLE, "table.txt"), String)))\n'
                "function main()\n"
                "    square = Shapes.Square(Quantities.Metres(2.0))\n"
                '    extended = hasext() ? string(Shapes.area(square)) : "none"\n'
                "    said = [string(Summer_jll.summed(numbers())), string(Shapes.area(Shapes.Square(3))),\n"
                "        extended, string(Quantities.factor()), Tunable.MODE]\n"
                "    println(join(said, ' '))\n"
                "    return 0\nend\n"
                "hasext() = isdefined(Base, :get_extension) &&\n"
                "    Base.get_extension(Shapes, :ShapesQuantitiesExt) !== nothing\nend\n"
            ),
        },
    )
    names = {"Analysis": ANALYSIS, **deps}
    return write_tree(
        root / "project",
        {
            "Headstart.toml": SETTINGS,
            "Project.toml": "[deps]\n"
            + "".join(f'{name} = "{id_}"\n' for name, id_ in sorted(names.items()))
            + '\n[compat]\nQuantities = "1"\n',
            "LocalPreferences.toml": '[Tunable]\nmode = "fast"\n',
            "job.jl": "using Analysis\nAnalysis.main()\n",
        },
    )


SETTINGS = """\
name = "physics"
targets = ["x86-64-v2"]
workload = "job.jl"
smoke = "job.jl"
"""

RESOLVE = """\
import Pkg
Pkg.develop(Pkg.PackageSpec(path = "../Analysis"))
Pkg.resolve()
"""


def resolve(julia: StockJulia, project: Path, server: PackageServer, depot: Path) -> None:
    """Let Pkg make the lock, as a user would; its depot then has what the lock names."""
    env = {**julia.environment(), "JULIA_PKG_SERVER": server.url, "JULIA_PKG_PRECOMPILE_AUTO": "0"}
    env["JULIA_DEPOT_PATH"] = f"{depot}:{julia.share}"
    argv = [str(julia.program), "--startup-file=no", "--color=no", "--project=.", "-e", RESOLVE]
    done = subprocess.run(argv, env=env, cwd=project, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The stack, resolved."""

    project: Path
    server: PackageServer
    artifacts: Mapping[str, Tarball]
    depot: Path
    """A user's, with all that the lock names."""
