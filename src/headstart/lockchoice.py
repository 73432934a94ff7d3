"""Which files make a Julia environment: of several, Julia takes the first that is there.

Names and order are those of ``base/loading.jl`` (``project_names``, ``manifest_names``, ``preferences_names``:
1.5.3:302, 1.10.6:564, 1.11.1:588). Which locks a Julia looks for it says itself when it is probed, because that
differs within a minor version too.
"""

import re
from collections.abc import Collection, Sequence
from typing import Final

from headstart.project import LOCK_FILE, PROJECT_FILE

PROJECT_NAMES: Final = ("JuliaProject.toml", PROJECT_FILE)
LOCK_NAMES: Final = ("JuliaManifest.toml", LOCK_FILE)
"""What every Julia looks for."""
PREFERENCES_NAMES: Final = ("JuliaLocalPreferences.toml", "LocalPreferences.toml")
_LOCK: Final = re.compile(r"(Julia)?Manifest(?:-v(\d+)\.(\d+))?\.toml")


def first(names: Sequence[str], present: Collection[str]) -> str:
    """The first of several names that is there; empty when none is."""
    return next((name for name in names if name in present), "")


def is_rival(name: str) -> bool:
    """Whether some Julia would take a file for a project or a lock."""
    return name in PROJECT_NAMES or _LOCK.fullmatch(name) is not None


def locks_of_any_julia(present: Collection[str]) -> tuple[str, ...]:
    """The names of locks to look for, in order, while it is not known yet which Julia will read them.

    What every Julia reads, then those of one minor version, the newest first.
    """
    versioned = [
        ((int(found[2]), int(found[3]), found[1] is not None), name)
        for name in present
        if (found := _LOCK.fullmatch(name)) and found[2]
    ]
    return (*LOCK_NAMES, *(name for _, name in sorted(versioned, reverse=True)))
