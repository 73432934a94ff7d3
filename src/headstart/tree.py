"""Walking a staged directory into entries, without reading the files.

Hard links are broken up, as the real publisher does: each name becomes a file of its own, and content is stored
once anyway. Nothing is followed: a symbolic link is an entry, wherever it points.
"""

import os
import stat as modes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from headstart.cvmfs.entry import Directory, Special, SpecialKind, Stat, Symlink, valid_name
from headstart.errors import StorageError

_KINDS: Final = {kind.value: kind for kind in SpecialKind}
_USER_NAMESPACE: Final = "user."


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A regular file of the tree, whose content is still to be read."""

    name: bytes
    stat: Stat
    size: int
    place: str
    """Where to read it."""


Staged = Directory | Source | Symlink | Special


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """What to keep of a staged tree and what to make uniform."""

    owner: tuple[int, int] | None = None
    """User and group of everything; None keeps the files' own."""
    directory_mode: int | None = None
    """Mode of every directory; None keeps the directories' own."""
    xattrs: bool = True
    """Whether attributes in the ``user.`` namespace are kept; all others stay behind in any case."""


AS_IT_IS: Final = Manners()


def walk(root: str, *, at: bytes, manners: Manners = AS_IT_IS) -> Iterator[tuple[bytes, Staged]]:
    """Path and entry of everything in a directory, itself first, sorted by path within each directory.

    Args:
        root: the directory.
        at: the path in the repository that it is to have.
        manners: what to keep of owners, modes and attributes.

    Raises:
        StorageError: something cannot be read, or has a name the format cannot hold.
    """
    try:
        top = os.lstat(root)
        if not modes.S_ISDIR(top.st_mode):
            raise StorageError(f"{root} is not a directory")
        yield at, _entry(os.fsencode(root), at.rpartition(b"/")[2], top, manners)
        yield from _below(os.fsencode(root), at, manners)
    except OSError as error:
        raise StorageError(f"cannot read {error.filename!s}: {error.strerror}") from error


def _below(directory: bytes, at: bytes, manners: Manners) -> Iterator[tuple[bytes, Staged]]:
    for name in sorted(os.listdir(directory)):
        place = directory + b"/" + name
        if not valid_name(name):
            raise StorageError(f"{place!r} has a name that cannot be published")
        found = os.lstat(place)
        yield at + b"/" + name, _entry(place, name, found, manners)
        if modes.S_ISDIR(found.st_mode):
            yield from _below(place, at + b"/" + name, manners)


def _entry(place: bytes, name: bytes, found: os.stat_result, manners: Manners) -> Staged:
    directory = modes.S_ISDIR(found.st_mode)
    mode = modes.S_IMODE(found.st_mode)
    uid, gid = manners.owner if manners.owner is not None else (found.st_uid, found.st_gid)
    stat = Stat(
        mode=manners.directory_mode if directory and manners.directory_mode is not None else mode,
        mtime=found.st_mtime_ns // 1_000_000_000,
        uid=uid,
        gid=gid,
        xattrs=_xattrs(place) if manners.xattrs else (),
    )
    if directory:
        return Directory(name=name, stat=stat)
    if modes.S_ISREG(found.st_mode):
        return Source(name=name, stat=stat, size=found.st_size, place=os.fsdecode(place))
    if modes.S_ISLNK(found.st_mode):
        return Symlink(name=name, stat=stat, target=os.readlink(place))
    kind = _KINDS[modes.S_IFMT(found.st_mode)]
    device = kind in (SpecialKind.CHARACTER, SpecialKind.BLOCK)
    return Special(name=name, stat=stat, kind=kind, rdev=found.st_rdev if device else 0)


def _xattrs(place: bytes) -> tuple[tuple[bytes, bytes], ...]:
    names = [name for name in os.listxattr(place, follow_symlinks=False) if name.startswith(_USER_NAMESPACE)]
    return tuple(sorted((os.fsencode(name), os.getxattr(place, name, follow_symlinks=False)) for name in names))
