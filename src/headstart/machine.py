"""What this machine offers to build with: a Julia, a C compiler, a CPU, and the data files of this package."""

import glob
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from headstart.cacheheader import cache_rules
from headstart.datafiles import DATA, data_path, data_text
from headstart.errors import ConfigurationError, MissingToolError
from headstart.julia import JuliaProbe, JuliaRequest, JuliaVersion
from headstart.microarchitecture import flags_of
from headstart.process import Command, Runner
from headstart.session import Session

_SHARED_PREFIXES: Final = ("/", "/usr", "/usr/local")
_DESCRIBE: Final = "describe.jl"
_HINT: Final = "name one with --julia or HEADSTART_JULIA, or put julia on the PATH"


def recipe_texts() -> dict[str, str]:
    """The Julia scripts that a build runs, by file name; one more only describes a Julia."""
    names = sorted(name for name in os.listdir(DATA) if name.endswith(".jl") and name != _DESCRIBE)
    return {name: data_text(name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class JuliaInstall:
    """A Julia on this machine, probed."""

    program: str
    """The program itself, no launcher: ``<prefix>/bin/julia``."""
    probe: JuliaProbe
    prefix: str
    library_path: tuple[str, ...]
    """What ``LD_LIBRARY_PATH`` must name for it to start; none for official builds."""

    @property
    def share(self) -> str:
        """Its ``share/julia``: the bundled depot."""
        return os.path.dirname(os.path.dirname(self.probe.stdlib))

    @property
    def private(self) -> bool:
        """Whether its prefix holds this Julia and nothing of the system's, so that it can be shipped."""
        inside = (self.probe.system_image, self.probe.stdlib, self._libjulia)
        return self.prefix not in _SHARED_PREFIXES and all(
            path.startswith(self.prefix + "/") for path in inside
        )

    @property
    def _libjulia(self) -> str:
        return next((path for path in self.probe.libraries if "/libjulia" in path), "")


def find_julia(given: str, wanted: str, env: Mapping[str, str], run: Runner) -> JuliaInstall:
    """Find a Julia and ask it what it is.

    Args:
        given: the program that the user named for this call; empty when none.
        wanted: ``julia`` of ``Headstart.toml``: a version, ``system``, a program's path, or empty.
        env: the user's environment.
        run: starts programs.

    Raises:
        MissingToolError: none is here, or none of the wanted version, or what was named is none.
    """
    named = given or env.get("HEADSTART_JULIA", "") or (wanted if "/" in wanted else "")
    version = None if "/" in wanted or wanted in ("", "system") else JuliaRequest(wanted)
    if named:
        install = _probe(_resolve(named, env), env, run)
        if version and not version.accepts(install.probe.version):
            raise MissingToolError(
                f"{named} is Julia {install.probe.version}, but the project asks for {version}",
                hint="name another one, or change julia in Headstart.toml",
            )
        return install
    seen: list[str] = []
    for program in _candidates(env):
        install = _probe(program, env, run)
        if not version or version.accepts(install.probe.version):
            return install
        seen.append(str(install.probe.version))
    found = f", only {', '.join(seen)}" if seen else ""
    raise MissingToolError(f"no Julia {version or ''}".rstrip() + f" was found{found}", hint=_HINT)


def _resolve(named: str, env: Mapping[str, str]) -> str:
    program = shutil.which(named, path=env.get("PATH", os.defpath))
    if program is None:
        raise MissingToolError(f"{named} is no program that can be started", hint=_HINT)
    return program


def _candidates(env: Mapping[str, str]) -> Iterator[str]:
    program = shutil.which("julia", path=env.get("PATH", os.defpath))
    if program is not None:
        yield program
    home = env.get("HOME", "")
    juliaup = env.get("JULIAUP_DEPOT_PATH") or (os.path.join(home, ".julia") if home else "")
    if juliaup:
        yield from sorted(
            glob.glob(os.path.join(glob.escape(juliaup), "juliaup/julia-*/bin/julia")), reverse=True
        )


def _probe(program: str, env: Mapping[str, str], run: Runner) -> JuliaInstall:
    script = os.path.join(DATA, "probe.jl")
    kept = {name: env[name] for name in ("PATH", "HOME", "JULIAUP_DEPOT_PATH") if name in env}
    last = ""
    for library_path in ((), *_library_paths(program)):
        extra = {"LD_LIBRARY_PATH": ":".join(library_path)} if library_path else {}
        done = run(Command(argv=(program, "--startup-file=no", script), env={**kept, **extra}), None)
        if done.code == 0:
            probe = JuliaProbe.parse(done.out.decode(errors="replace"), program)
            return JuliaInstall(
                program=os.path.join(probe.bindir, "julia"),
                probe=probe,
                prefix=os.path.dirname(probe.bindir),
                library_path=library_path,
            )
        last = last or done.err.decode(errors="replace").strip().partition("\n")[0]
    raise MissingToolError(f"{program} does not start as Julia does ({last[:200]})", hint=_HINT)


def describe_julia(
    argv: tuple[str, ...],
    version: JuliaVersion,
    library_path: tuple[str, ...],
    env: Mapping[str, str],
    run: Runner,
) -> Session:
    """Ask a Julia what it compares caches with.

    Args:
        argv: the program and its options; what it is asked depends on them.
        version: what it is.
        library_path: what ``LD_LIBRARY_PATH`` must name for it to start.
        env: the user's environment.
        run: starts programs.

    Raises:
        IncompatibleError: caches of this version are not known.
        MissingToolError: it does not answer.
    """
    rules = cache_rules(data_text("caches.toml"), version)
    kept = {name: env[name] for name in ("PATH", "HOME") if name in env}
    # Nothing but the system image may be loaded: no environment, no startup file.
    kept |= {"JULIA_LOAD_PATH": "@stdlib", "JULIA_DEPOT_PATH": "/nonexistent"}
    if library_path:
        kept["LD_LIBRARY_PATH"] = ":".join(library_path)
    done = run(Command(argv=(*argv, "--startup-file=no", data_path(_DESCRIBE)), env=kept), None)
    if done.code != 0:
        said = done.err.decode(errors="replace").strip().partition("\n")[0]
        raise MissingToolError(f"{' '.join(argv)} does not describe itself ({said[:200]})", hint=_HINT)
    return Session.said(done.out.decode(errors="replace"), argv[0], form=rules.format, features=cpu_flags())


def _library_paths(program: str) -> list[tuple[str, ...]]:
    """Where an unpacked distribution's Julia may have its libraries: it was linked for another prefix."""
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(program)))
    found = glob.glob(glob.escape(prefix) + "/lib/libjulia.so*") + glob.glob(
        glob.escape(prefix) + "/lib/*/libjulia.so*"
    )
    folders = sorted({os.path.dirname(path) for path in found})
    return [
        tuple(path for path in (folder, os.path.join(folder, "julia")) if os.path.isdir(path))
        for folder in folders
    ]


def find_compiler(env: Mapping[str, str]) -> str:
    """The C compiler that links an image: ``CC``, or the first of cc, gcc, clang on the PATH.

    Raises:
        MissingToolError: there is none.
    """
    path = env.get("PATH", os.defpath)
    named = env.get("CC", "")
    for name in (named,) if named else ("cc", "gcc", "clang"):
        program = shutil.which(name, path=path)
        if program is not None:
            return os.path.abspath(program)
    raise MissingToolError(
        f"no C compiler to link an image with: {named or 'cc, gcc, clang'} cannot be started",
        hint="install gcc or clang, or name a compiler in CC",
    )


def cpu_flags() -> frozenset[str]:
    """The features of this machine's CPU, in ``/proc/cpuinfo``'s words."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        return flags_of(file.read())


_CAPABILITIES: Final = 1 << 6 | 1 << 7 | 1 << 21
"""CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN (``linux/capability.h``)."""


def may_become_another() -> bool:
    """Whether this process may mount and then become another user: root, but not root in every container."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next((line.split()[1] for line in file if line.startswith("CapEff:")), "0")
    return os.geteuid() == 0 and int(effective, 16) & _CAPABILITIES == _CAPABILITIES


def depots(env: Mapping[str, str]) -> tuple[str, ...]:
    """The user's depots: those of ``JULIA_DEPOT_PATH``, an empty one being ``~/.julia`` as to Julia."""
    home = env.get("HOME", "")
    default = os.path.join(home, ".julia") if home else ""
    entries = [entry or default for entry in env.get("JULIA_DEPOT_PATH", "").split(":")]
    paths = [home + entry[1:] if home and entry.startswith("~/") else entry for entry in entries]
    return tuple(dict.fromkeys(os.path.abspath(path) for path in paths if os.path.isdir(path)))


def read_text(path: str, what: str, hint: str) -> str:
    """Read one of the user's text files.

    Args:
        path: the file.
        what: how to name it in an error.
        hint: what to do when it is not there.

    Raises:
        ConfigurationError: it is not there, cannot be read, or is no UTF-8.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} is missing: {what}", hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{path} cannot be read ({reason})") from error
