"""Which files of a Julia a start needs: what a node fetches of it, and later finds in its cache."""

import posixpath
import re
from typing import Final

from headstart.release import JuliaTree, Record, Release

WITH_STOCK: Final = "+stock"
"""Behind the digest of a Julia that is in a cache with its own system image and compiled packages."""
_NOT_FOR_A_LAUNCH: Final = (
    "include", "share/doc", "share/man", "share/applications", "share/icons", "share/lintian", "share/metainfo",
)  # fmt: skip
"""Directories of a Julia's prefix that no start reads."""


def plain_digest(digest: str) -> str:
    """The digest of the record behind a unit, whatever part of it is in the cache."""
    return digest.removesuffix(WITH_STOCK)


def unit_files(release: Release, directory: str) -> dict[str, Record]:
    """The files of one unit of a release, by path in it.

    Args:
        release: its record.
        directory: an image's, such as ``images/x86-64-v3``; nothing for all that is in no image.
    """
    if not directory:
        return {path: item for path, item in release.files.items() if not path.startswith("images/")}
    inside = f"{directory}/"
    return {path.removeprefix(inside): item for path, item in release.files.items() if path.startswith(inside)}


def julia_files(julia: JuliaTree, *, stock: bool) -> dict[str, Record]:
    """What a launch needs of a Julia.

    Not headers, documentation, and the tests of Julia and its standard library; and, with a system image of its
    own, neither the stock one nor the compiled packages that come with Julia, which go with that one only.

    Args:
        julia: its record.
        stock: whether it starts from the stock system image.
    """
    top = posixpath.dirname(posixpath.dirname(julia.share))
    top = f"{top}/" if top else ""
    skipped = (*(f"{top}{name}/" for name in _NOT_FOR_A_LAUNCH), f"{julia.share}/test/")
    stdlib = re.compile(re.escape(julia.share) + r"/stdlib/[^/]+/[^/]+/(test|docs)/")
    return {
        path: item
        for path, item in julia.files.items()
        if (stock or (path != julia.system_image and not path.startswith(f"{julia.share}/compiled/")))
        and not path.startswith(skipped)
        and not stdlib.match(path)
        and "-debug.so" not in posixpath.basename(path)
    }
