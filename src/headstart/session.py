"""A Julia as its caches see it: what it compares them with, as a value that can be written down.

A description is made by asking a Julia once (``data/describe.jl``), kept as JSON, and used where no Julia is:
on a login node, or for another node's CPU.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from headstart.cacheheader import Front, PackageId
from headstart.errors import ConfigurationError, CorruptError, MissingToolError
from headstart.image import decode_targets
from headstart.julia import JuliaVersion
from headstart.record import Table, canonical

DESCRIPTION_SCHEMA: Final = 1
DESCRIPTION_MARK: Final = "headstart-session:"
_HEX: Final = re.compile(r"[0-9a-f]+")
_OPTIMISE: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """What a session's code may use."""

    features: frozenset[str]
    """What ``/proc/cpuinfo`` says, in its words."""
    lacks: frozenset[str] | None
    """What Julia itself says it does without (since 1.10); None where only ``/proc/cpuinfo`` is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFlags:
    """The options that caches are compared by (``jl_cache_flags``, 1.9.4 staticdata_utils.c:601)."""

    byte: int

    @property
    def native(self) -> bool:
        """Whether native code is wanted, or there."""
        return bool(self.byte & 1)

    @property
    def debug_level(self) -> int:
        """``-g``."""
        return self.byte >> 1 & 3

    @property
    def optimise(self) -> int:
        """``-O``."""
        return self.byte >> _OPTIMISE & 3

    def __str__(self) -> str:
        bounds = {0: "auto", 1: "yes", 2: "no"}.get(self.byte >> 3 & 3, "?")
        inline = "yes" if self.byte >> 5 & 1 else "no"
        native = "yes" if self.native else "no"
        return (
            f"--pkgimages={native} -g{self.debug_level} --check-bounds={bounds} --inline={inline} "
            f"-O{self.optimise}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A Julia that is about to look at caches, fresh: nothing is loaded but its system image."""

    front: Front
    version: JuliaVersion
    modules: Mapping[PackageId, int]
    """What the system image brings, and the build id of each."""
    flags: CacheFlags
    pkgimages: int
    """``--pkgimages``: 0 no, 1 yes, 2 existing."""
    cpu: Cpu
    targets: str
    """The list of CPU targets that Julia says it compiles for, in hexadecimal digits; empty up to 1.9."""
    system_image: str
    stdlib: str
    build_stdlib: str
    """Where the standard library was when this Julia was built: caches that came with it name that path."""

    @property
    def share(self) -> str:
        """The depot that comes with this Julia: ``<prefix>/share/julia``."""
        return self.stdlib.rpartition("/stdlib/")[0]

    def on_cpu(self, features: frozenset[str]) -> Self:
        """The same Julia on another machine, known by its ``/proc/cpuinfo``."""
        return replace(self, cpu=Cpu(features=features, lacks=None), targets="")

    def at(self, old: str, new: str) -> Self:
        """The same Julia, with what is below one directory seen below another."""

        def moved(path: str) -> str:
            return new + path[len(old) :] if path.startswith(old + "/") else path

        return replace(self, system_image=moved(self.system_image), stdlib=moved(self.stdlib))

    def to_bytes(self) -> bytes:
        """As JSON."""
        front = self.front
        return canonical(
            {
                "schema": DESCRIPTION_SCHEMA,
                "version": front.version,
                "format": front.format,
                "pointer_size": front.pointer_size,
                "uname": front.uname,
                "arch": front.arch,
                "branch": front.branch,
                "commit": front.commit,
                "flags": self.flags.byte,
                "pkgimages": self.pkgimages,
                "targets": self.targets,
                "cpu": sorted(self.cpu.features),
                "system_image": self.system_image,
                "stdlib": self.stdlib,
                "build_stdlib": self.build_stdlib,
                "modules": [
                    {"name": package.name, "uuid": f"{package.uuid:032x}", "build_id": f"{build_id:x}"}
                    for package, build_id in sorted(self.modules.items())
                ],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Read what ``to_bytes`` has written.

        Raises:
            CorruptError: it is something else; names the file and the key.
        """
        table = Table.of(data, where, DESCRIPTION_SCHEMA)
        targets = table.text("targets")
        if targets and (len(targets) % 2 or _HEX.fullmatch(targets) is None):
            raise CorruptError(f"{where}: targets are no hexadecimal digits")
        features = frozenset(table.texts("cpu"))
        return cls(
            front=Front(
                format=table.number("format"),
                pointer_size=table.number("pointer_size"),
                **{name: table.text(name) for name in ("uname", "arch", "version", "branch", "commit")},
            ),
            version=table.named("version", JuliaVersion.parse),
            modules={
                PackageId(entry.text("name"), _number(entry, "uuid")): _number(entry, "build_id")
                for entry in table.children("modules")
            },
            flags=CacheFlags(byte=table.number("flags")),
            pkgimages=table.number("pkgimages"),
            cpu=Cpu(features=features, lacks=_lacks(targets, where)),
            targets=targets,
            system_image=table.text("system_image"),
            stdlib=table.text("stdlib"),
            build_stdlib=table.text("build_stdlib"),
        )

    @classmethod
    def said(cls, text: str, program: str, *, form: int, features: frozenset[str]) -> Self:
        """Read what ``data/describe.jl`` prints: marked lines of a key, a space and a value.

        Args:
            text: what was printed.
            program: how to name it in an error.
            form: the format of caches that this version writes.
            features: of the machine's CPU.

        Raises:
            MissingToolError: the program printed something else, so it is no Julia.
        """
        values: dict[str, list[str]] = {}
        for line in text.splitlines():
            if line.startswith(DESCRIPTION_MARK):
                key, _, value = line.removeprefix(DESCRIPTION_MARK).strip().partition(" ")
                values.setdefault(key, []).append(value)
        try:
            version = values["version"][0]
            targets = values["targets"][0]
            modules = (line.split(" ", 2) for line in values["module"])
            return cls(
                front=Front(
                    format=form,
                    pointer_size=int(values["pointer"][0]),
                    uname=values["uname"][0],
                    arch=values["arch"][0],
                    version=version,
                    branch=values["branch"][0],
                    commit=values["commit"][0],
                ),
                version=JuliaVersion.parse(version),
                modules={PackageId(name, int(uuid, 16)): int(build, 16) for uuid, build, name in modules},
                flags=CacheFlags(byte=int(values["flags"][0])),
                pkgimages=int(values["pkgimages"][0]),
                cpu=Cpu(features=features, lacks=_lacks(targets, program)),
                targets=targets,
                system_image=values["image"][0],
                stdlib=values["stdlib"][0],
                build_stdlib=values["build_stdlib"][0],
            )
        except (KeyError, ValueError, ConfigurationError, CorruptError) as error:
            raise MissingToolError(
                f"{program} does not describe itself as Julia does", hint="name another one with --julia"
            ) from error


def _number(table: Table, key: str) -> int:
    text = table.text(key)
    if len(text) > 32 or _HEX.fullmatch(text) is None:
        raise CorruptError(f"{table.where}: {key} is {text[:40]!r}, which are no hexadecimal digits")
    return int(text, 16)


def _lacks(targets: str, where: str) -> frozenset[str] | None:
    """What the first target does without: package images are compared with that one (``pkgimg_init_cb``)."""
    if not targets:
        return None
    try:
        return decode_targets(bytes.fromhex(targets))[0].disabled
    except CorruptError as error:
        raise CorruptError(f"{where}: targets cannot be read ({error})") from error
