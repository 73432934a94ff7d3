"""Why Julia rejects a cache: each of its rules, its words for it, and what a person can do.

The numbers are those of docs/explain.md, which follows the order of Julia's questions (``stale_cachefile``).
"""

import enum
from dataclasses import dataclass
from typing import Final


class Rule(enum.StrEnum):
    """Why Julia rejects a cache; the value is our short name for it."""

    UNREADABLE = "unreadable"
    HEADER = "header"
    DAMAGED = "damaged"
    FLAGS = "flags"
    NATIVE_UNWANTED = "native-unwanted"
    CPU = "cpu"
    NATIVE_MISSING = "native-missing"
    OTHER_PACKAGE = "other-package"
    SYSTEM_IMAGE = "system-image"
    NOT_FOUND = "not-found"
    ENTRY = "entry"
    MAPPING = "mapping"
    SOURCE_DEPOT = "source-depot"
    SOURCE_MISSING = "source-missing"
    SOURCE_TIME = "source-time"
    SOURCE_SIZE = "source-size"
    SOURCE_CONTENT = "source-content"
    CHECKSUM = "checksum"
    NATIVE_CHECKSUM = "native-checksum"
    PREFERENCES = "preferences"
    DEPENDENCY = "dependency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """What a rule is about, for a person."""

    number: int
    """In the list of ``docs/explain.md``, which follows Julia's order."""
    said: str
    """Julia's words at ``JULIA_DEBUG=loading``, as far as they are the same for all versions."""
    advice: str


TEACHINGS: Final = {
    Rule.UNREADABLE: Teaching(
        number=1,
        said="it could not be opened",
        advice="make the file readable for everybody who runs Julia (mode 0444, directories 0755)",
    ),
    Rule.HEADER: Teaching(
        number=2,
        said="it has an invalid or incompatible cache header",
        advice="compile the caches with the Julia that the session uses, down to the same commit",
    ),
    Rule.DAMAGED: Teaching(
        number=2,
        said="the header of the cache file appears to be corrupt (Julia stops with an error here)",
        advice="copy the file again, or delete it and compile it anew",
    ),
    Rule.FLAGS: Teaching(
        number=3,
        said="the flags are mismatched",
        advice="start Julia with the options the cache was made with, or compile with those of the session",
    ),
    Rule.NATIVE_UNWANTED: Teaching(
        number=5,
        said="it would require usage of pkgimage",
        advice="leave out --pkgimages=no (--code-coverage and --track-allocation imply it)",
    ),
    Rule.CPU: Teaching(
        number=6,
        said="its native code cannot be loaded on this target",
        advice="use the image of a lower CPU level, or build one for this level (JULIA_CPU_TARGET)",
    ),
    Rule.NATIVE_MISSING: Teaching(
        number=7,
        said="its pkgimage was not found",
        advice="copy the .so that stands beside the .ji under the same name, or compile the package anew",
    ),
    Rule.OTHER_PACKAGE: Teaching(
        number=8,
        said="it is for another package",
        advice="delete the file: it was put, or renamed, into the wrong place",
    ),
    Rule.SYSTEM_IMAGE: Teaching(
        number=9,
        said="a module that it needs is already loaded and incompatible",
        advice="compile the caches under the very system image that the session starts with (-J)",
    ),
    Rule.NOT_FOUND: Teaching(
        number=10,
        said="a dependency was not found",
        advice="add the package to the project and its lock, or its source to one of the depots",
    ),
    Rule.ENTRY: Teaching(
        number=12,
        said="it is for another file",
        advice="let the session find the package where it was compiled: same path, version and depot order",
    ),
    Rule.MAPPING: Teaching(
        number=13,
        said="a uuid mapping has changed",
        advice="use the lock that the cache was compiled with, or compile with this one",
    ),
    Rule.SOURCE_DEPOT: Teaching(
        number=14,
        said="its depot could not be resolved",
        advice="put the depot with all of the package's sources into JULIA_DEPOT_PATH, before any other copy",
    ),
    Rule.SOURCE_MISSING: Teaching(
        number=14,
        said="a file does not exist",
        advice="put the source where it was, or compile the package anew",
    ),
    Rule.SOURCE_TIME: Teaching(
        number=14,
        said="the mtime of a file has changed",
        advice="set the recorded time again (touch -d), or compile after giving all sources one fixed time",
    ),
    Rule.SOURCE_SIZE: Teaching(
        number=14, said="the file size of a file has changed", advice="bring the source back, or compile anew"
    ),
    Rule.SOURCE_CONTENT: Teaching(
        number=14, said="the hash of a file has changed", advice="bring the source back, or compile anew"
    ),
    Rule.CHECKSUM: Teaching(
        number=15, said="it has an invalid checksum", advice="copy the file again: it is damaged"
    ),
    Rule.NATIVE_CHECKSUM: Teaching(
        number=16,
        said="its ocachefile has an invalid checksum",
        advice="copy .ji and .so again, both from one build",
    ),
    Rule.PREFERENCES: Teaching(
        number=17,
        said="the preferences hash does not match",
        advice="give the session the build's LocalPreferences.toml, or leave out the environment with others",
    ),
    Rule.DEPENDENCY: Teaching(
        number=18,
        said="a required dependency is missing from the cache",
        advice="publish all caches of one build together: rebuild all that depends on a rebuilt package",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A no."""

    rule: Rule
    detail: str
