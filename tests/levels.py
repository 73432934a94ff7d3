"""Images of every level for tests of the choice: a Julia's for x86-64, and what there might be for Arm."""

import functools
from collections.abc import Mapping

import releases
from headstart.datafiles import data_text
from headstart.julia import JuliaVersion, target
from headstart.microarchitecture import LEVELS
from headstart.release import ImageRecord

V80 = frozenset({"asimd", "fp"})
V81 = V80 | {"asimdrdm", "atomics", "crc32"}
V82 = V81 | {"asimddp", "asimdhp", "dcpop", "fphp"}
_SVE = V82 | {"bf16", "fcma", "i8mm", "jscvt", "lrcpc", "sve"}
_V90 = _SVE | {"flagm2", "frint", "sb", "sve2"}
ARM: Mapping[str, frozenset[str]] = {
    "aarch64": V80,  # generic
    "armv8.1-a": V81,  # generic,+lse,+crc,+rdm
    "armv8.2-a": V82,  # ...,+fullfp16,+dotprod,+ccpp: what neoverse-n1, cortex-a76 and apple-m1 have in common
    "armv8.4-a+sve": _SVE,  # ...,+rcpc,+jsconv,+complxnum,+i8mm,+bf16,+sve: neoverse-v1
    "armv9-a": _V90,  # ...,+altnzcv,+fptoint,+sb,+sve2: neoverse-n2, neoverse-v2
}
"""What each image for Arm asks for, the least demanding first."""


@functools.cache
def x86_images(julia: str) -> tuple[ImageRecord, ...]:
    """Those of ``data/targets.toml`` for a version of Julia."""
    table, version = data_text("targets.toml"), JuliaVersion.parse(julia)
    return tuple(releases.image(level, target(table, level, version).features) for level in LEVELS)


@functools.cache
def arm_images() -> tuple[ImageRecord, ...]:
    """Those of ``ARM``."""
    return tuple(releases.image(level, sorted(features)) for level, features in ARM.items())
