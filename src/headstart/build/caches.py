"""A depot of package images as a release holds it: complete pairs, one for each package, and nothing else."""

import os
import shutil
from collections.abc import Iterator
from typing import Final

from headstart.build.plan import IMAGE_FILE
from headstart.build.sources import FIXED_TIME
from headstart.errors import BuildError
from headstart.image import check_targets, recorded_targets
from headstart.julia import ImageLayout, Target

COMPILED: Final = "compiled"
_LEFTOVER: Final = ".pidfile"
_TEMPORARY: Final = "jl_"


def forget(depot: str, names: tuple[str, ...]) -> None:
    """Throw away what was compiled of some packages, so that they are compiled anew."""
    for folder in _versions(depot):
        for name in names:
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def forget_all(depot: str) -> None:
    """Throw away what was compiled."""
    shutil.rmtree(os.path.join(depot, COMPILED), ignore_errors=True)


def tidy(depot: str) -> None:
    """Take away what a build leaves beside its caches, and make files what a release has.

    Julia gives a cache the mode of its source (``base/loading.jl``, 1.10:2432), locks by ``.pidfile`` and
    writes to ``jl_...`` before it renames; Pkg keeps a log of what was used.
    """
    for name in os.listdir(depot):
        if name not in (COMPILED, IMAGE_FILE):
            path = os.path.join(depot, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    for folder, _, files in os.walk(os.path.join(depot, COMPILED)):
        for name in files:
            path = os.path.join(folder, name)
            if name.endswith(_LEFTOVER) or name.startswith(_TEMPORARY):
                os.unlink(path)
            else:
                os.chmod(path, 0o444)
                # Julia takes the newest candidate first; with one of each, one time for all does.
                os.utime(path, (FIXED_TIME, FIXED_TIME))


def check_caches(depot: str, target: Target, layout: ImageLayout) -> tuple[int, int]:
    """Look whether a depot is what a session of this level accepts: how many packages, and bytes.

    Raises:
        BuildError: a cache without its native code or the other way round, two for one package, or code for
            another target.
    """
    count = size = 0
    for folder in _packages(depot):
        stems: dict[str, set[str]] = {}
        for name in os.listdir(folder):
            stem, ending = os.path.splitext(name)
            stems.setdefault(stem, set()).add(ending)
            size += os.path.getsize(os.path.join(folder, name))
        where = os.path.relpath(folder, depot)
        if len(stems) != 1 or set(*stems.values()) != {".ji", ".so"}:
            found = ", ".join(sorted(os.listdir(folder))) or "nothing"
            raise BuildError(
                f"{where} of the image for {target.level} holds {found}, not one cache with its native code",
                hint="build again; if it stays so, tell which package it is",
            )
        path = os.path.join(folder, next(iter(stems)) + ".so")
        what = f"the package image {os.path.relpath(path, depot)}"
        with open(path, "rb") as file:
            check_targets(recorded_targets(file, layout, what), target, what)
        count += 1
    return count, size


def _versions(depot: str) -> Iterator[str]:
    compiled = os.path.join(depot, COMPILED)
    if os.path.isdir(compiled):
        yield from (os.path.join(compiled, name) for name in sorted(os.listdir(compiled)))


def _packages(depot: str) -> Iterator[str]:
    for folder in _versions(depot):
        yield from (os.path.join(folder, name) for name in sorted(os.listdir(folder)))
