"""A stand-in for Julia at the runner's seam: it writes what the real one would write, in no time.

Images are real shared objects, made once by the C compiler, so decoding them is the real thing.
"""

import dataclasses
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TextIO

import pytest

from headstart.build import BuildPlan, Inputs, Means, Stage, plan
from headstart.build.sources import read_project
from headstart.build.trees import julia_tree
from headstart.console import Console
from headstart.datafiles import data_text
from headstart.julia import Found, JuliaProbe, JuliaVersion, Target, capabilities, target
from headstart.machine import JuliaInstall, recipe_texts
from headstart.microarchitecture import LEVELS
from headstart.names import Fqrn
from headstart.process import Command, Finished
from headstart.project import Settings

FQRN = Fqrn("julia.example.org")
VERSION = JuliaVersion.parse("1.5.3")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMED = {
    "pni": (0, 0),
    "ssse3": (0, 9),
    "cx16": (0, 13),
    "sse4_1": (0, 19),
    "sse4_2": (0, 20),
    "popcnt": (0, 23),
    "lahf_lm": (5, 0),
}
"""Word and bit of the features that the two lowest levels record."""


def fake_prefix(folder: Path) -> JuliaInstall:
    """A directory that looks like a private Julia."""
    prefix = folder / "julia-1.5.3"
    library = tuple(f"share/julia/stdlib/v1.5/{name}/src/{name}.jl" for name in ("Printf", "Test", "Unicode"))
    for name in ("bin/julia", "lib/julia/sys.so", "lib/libjulia.so.1", *library):
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(name)
    (prefix / "bin/julia").chmod(0o755)
    (prefix / "lib/libjulia.so").symlink_to("libjulia.so.1")
    (prefix / "share/dangling").symlink_to("nowhere")
    probe = JuliaProbe(
        version=VERSION,
        bindir=str(prefix / "bin"),
        system_image=str(prefix / "lib/julia/sys.so"),
        stdlib=str(prefix / "share/julia/stdlib/v1.5"),
        libraries=(str(prefix / "lib/libjulia.so.1"),),
    )
    return JuliaInstall(program=str(prefix / "bin/julia"), probe=probe, prefix=str(prefix), library_path=())


def fake_inputs(
    project: Path, install: JuliaInstall, stage: Path, levels: Sequence[str] = ("x86-64-v2",)
) -> Inputs:
    settings = Settings.parse((project / "Headstart.toml").read_text(), "Headstart.toml")
    return Inputs(
        fqrn=FQRN,
        settings=settings,
        project=read_project(str(project), str(stage)),
        julia=julia_tree(install),
        origin=Found(),
        version=VERSION,
        capabilities=capabilities(data_text("julia.toml"), VERSION),
        targets=tuple(target(data_text("targets.toml"), level, VERSION) for level in levels),
        recipe=recipe_texts(),
    )


def newer(inputs: Inputs, **changed: object) -> Inputs:
    """The same inputs for a Julia that has package images."""
    version = JuliaVersion.parse("1.10.6")
    settings = dataclasses.replace(inputs.settings, **changed)  # type: ignore[arg-type]  # fields by name
    return dataclasses.replace(
        inputs,
        settings=settings,
        version=version,
        capabilities=dataclasses.replace(
            capabilities(data_text("julia.toml"), version), lock_formats=inputs.capabilities.lock_formats
        ),
        julia=dataclasses.replace(
            inputs.julia,
            files={path.replace("v1.5", "v1.10"): item for path, item in inputs.julia.files.items()},
        ),
    )


def fake_plan(
    project: Path, install: JuliaInstall, stage: Path, levels: Sequence[str] = ("x86-64-v2",)
) -> BuildPlan:
    return plan(fake_inputs(project, install, stage, levels))


def image_bytes(folder: Path, wanted: Target) -> bytes:
    """A shared object that records exactly what the target asks for."""
    compiler = shutil.which("cc") or pytest.skip("makes its images with a C compiler, and there is none")
    words = [0] * 11
    for name in wanted.recorded_features:
        word, bit = NAMED[name]
        words[word] |= 1 << bit
    data = struct.pack("<III", 1, 0, 11) + struct.pack("<11I", *words) + bytes(44)
    data += struct.pack("<I", len(wanted.recorded)) + wanted.recorded.encode() + bytes(4)
    source = folder / f"{wanted.level}.c"
    source.write_text(f"const unsigned char jl_dispatch_target_ids[] = {{{','.join(map(str, data))}}};\n")
    subprocess.run([compiler, "-shared", "-o", source.with_suffix(".so"), source], check=True)
    return source.with_suffix(".so").read_bytes()


class FakeJulia:
    """A runner. What it is told to do is in its public fields.

    Args:
        folder: for the images that it makes.
    """

    def __init__(self, folder: Path) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.images = {
            level: image_bytes(folder, target(data_text("targets.toml"), level, VERSION))
            for level in list(LEVELS)[:2]
        }
        self.trace = "precompile(Tuple{typeof(App.main), Array{String, 1}})\n"
        self.start = "precompile(Tuple{typeof(Base.start)})\n"
        self.leftover: Callable[[str], str] = lambda _statements: ""
        self.artifacts: dict[str, str] = {}
        """By tree: ``eager`` or ``lazy``, and a name."""
        self.counters: Callable[[bool], str] = lambda _work: "0 0"
        self.fail: dict[str, tuple[int, bytes]] = {}
        self.before: Callable[[str], None] = lambda _kind: None
        self.statements = ""
        self._lock = threading.Lock()

    def __call__(self, command: Command, log: IO[bytes] | None) -> Finished:
        argv = command.argv
        kind = self._kind(argv)
        with self._lock:
            self.commands.append((kind, *argv))
        self.before(kind)
        code, err = self.fail.get(kind, (0, b""))
        out = b""
        if kind == "artifacts":
            folder = argv[-1]
            lines = [f"headstart-artifact: {tree} {name} {folder}" for tree, name in self.artifacts.items()]
            out = "\n".join(lines).encode()
        if code == 0:
            err += self._do(kind, argv).encode()
        if log is not None:
            log.write(err)
        return Finished(code=code, out=out, err=err, seconds=0.1)

    def kinds(self) -> list[str]:
        return [command[0] for command in self.commands]

    def _kind(self, argv: Sequence[str]) -> str:
        text = " ".join(argv)
        for word, kind in (
            ("-Wl,--whole-archive", "link"),
            ("--output-o", "compile"),
            ("counters.jl", "count"),
            ("precompile.jl", "precompile"),
            ("instantiate.jl", "instantiate"),
            ("artifacts.jl", "artifacts"),
            ("/bin/julia --trace-compile=stderr", "smoke"),
            ("--trace-compile=stderr -e", "baseline"),
            ("--trace-compile=", "trace"),
            ("test -d", "allowed"),
        ):
            if word in text:
                return kind
        raise AssertionError(f"a command that the fake does not know: {text}")

    def _do(self, kind: str, argv: Sequence[str]) -> str:
        at = next(index for index, word in enumerate(argv) if word in ("--bind-rw", "--bind-ro"))
        root, mountpoint = argv[at + 1], argv[at + 2]

        def outside(path: str) -> Path:
            return Path(root + path.removeprefix(mountpoint))

        def option(name: str) -> str:
            return next(word.removeprefix(name) for word in argv if word.startswith(name))

        if kind == "trace":
            outside(option("--trace-compile=")).write_text(self.start + self.trace)
        elif kind == "compile":
            statements = next(word for word in argv if "/statements-" in word)
            self.statements = outside(statements).read_text()
            outside(option("--output-o=")).write_bytes(b"objects")
        elif kind == "link":
            path = argv[list(argv).index("-o") + 1]
            outside(path).write_bytes(self.images[path.split("/")[-2]])
        elif kind == "count":
            return f"headstart-compiled: {self.counters(argv[-1].endswith('smoke.jl'))}\n"
        elif kind in ("smoke", "baseline"):
            return self.start + (self.leftover(self.statements) if kind == "smoke" else "")
        return ""


def means(install: JuliaInstall, run: FakeJulia, stream: TextIO, depots: tuple[str, ...] = ()) -> Means:
    return Means(
        install=install,
        compiler="/usr/bin/cc",
        depots=depots,
        network={},
        run=run,
        console=Console(stream),
        now=NOW,
        privileged=False,
        parallel=2,
    )


__all__ = ["FakeJulia", "Stage", "fake_inputs", "fake_plan", "fake_prefix", "means", "newer"]
