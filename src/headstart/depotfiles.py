"""The files of depots as Julia sees them, and which caches there are."""

import os
from dataclasses import dataclass
from typing import Final

import google_crc32c

from headstart.projectfiles import FileStat

_BLOCK: Final = 1 << 20
_LARGEST: Final = 1 << 30
"""More than this is no header, no source and no cache: nobody may make us fill the memory."""


class DepotFiles:
    """The disk, with everything below one path seen at another.

    Args:
        seen: the path by which a session knows a tree, such as ``/cvmfs/<repository>``; empty for the disk
            as it is.
        there: where the tree is.
    """

    def __init__(self, seen: str = "", there: str = "") -> None:
        self._seen = seen
        self._there = there
        self._stats: dict[str, FileStat | None] = {}
        self._names: dict[str, tuple[str, ...] | None] = {}

    def place(self, path: str) -> str:
        """Where a path of the session is on this disk."""
        if self._seen and (path == self._seen or path.startswith(self._seen + "/")):
            return self._there + path[len(self._seen) :]
        return path

    def stat(self, path: str) -> FileStat | None:
        """As the system says, links followed."""
        if path not in self._stats:
            try:
                found = os.stat(self.place(path))
            except (OSError, ValueError):
                self._stats[path] = None
            else:
                self._stats[path] = FileStat(
                    device=found.st_dev,
                    inode=found.st_ino,
                    size=found.st_size,
                    mtime_ns=found.st_mtime_ns,
                    directory=(found.st_mode & 0o170000) == 0o040000,
                )
        return self._stats[path]

    def read(self, path: str) -> bytes | None:
        """A whole file, if it is one of a size that can be."""
        try:
            with open(self.place(path), "rb") as file:
                found = os.fstat(file.fileno())
                if found.st_mode & 0o170000 != 0o100000 or found.st_size > _LARGEST:
                    return None
                return file.read(found.st_size)
        except (OSError, ValueError):
            return None

    def names(self, path: str) -> tuple[str, ...] | None:
        """What is in a directory."""
        if path not in self._names:
            try:
                self._names[path] = tuple(sorted(os.listdir(self.place(path)), key=os.fsencode))
            except (OSError, ValueError):
                self._names[path] = None
        return self._names[path]

    def crc32c(self, path: str) -> int | None:
        """Of a whole file, read in blocks."""
        found = 0
        try:
            with open(self.place(path), "rb") as file:
                while block := file.read(_BLOCK):
                    found = google_crc32c.extend(found, block)
        except (OSError, ValueError):
            return None
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFolder:
    """What a depot has for one package of one minor version of Julia."""

    depot: str
    name: str
    """Of the package; empty for packages without a UUID, which share the version's own folder."""
    caches: tuple[str, ...]
    """Names of ``.ji`` files."""
    alone: tuple[str, ...]
    """Names of native code without a cache: Julia never looks at them."""


def cache_folders(files: DepotFiles, depot: str, version: str) -> tuple[CacheFolder, ...]:
    """All that a depot has compiled for a minor version, such as ``v1.10``."""
    home = f"{depot}/compiled/{version}"
    names = files.names(home) or ()
    folders = [
        _folder(files, depot, home, name)
        for name in ("", *names)
        if not name or _is_directory(files, f"{home}/{name}")
    ]
    return tuple(folder for folder in folders if folder.caches or folder.alone)


def _is_directory(files: DepotFiles, path: str) -> bool:
    found = files.stat(path)
    return found is not None and found.directory


def _folder(files: DepotFiles, depot: str, home: str, name: str) -> CacheFolder:
    inside = files.names(f"{home}/{name}" if name else home) or ()
    stems = {one[:-3] for one in inside if one.endswith(".ji")}
    return CacheFolder(
        depot=depot,
        name=name,
        caches=tuple(f"{stem}.ji" for stem in sorted(stems)),
        alone=tuple(one for one in inside if one.endswith(".so") and one[:-3] not in stems),
    )


def other_versions(files: DepotFiles, depot: str, version: str) -> tuple[str, ...]:
    """For which other minor versions a depot has caches."""
    found = files.names(f"{depot}/compiled") or ()
    return tuple(name for name in found if name != version and name.startswith("v"))
