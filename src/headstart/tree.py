"""Walking a staged directory into entries, without reading the files.

Nothing is followed: a symbolic link is an entry, wherever it points. Hard links are kept where the format can
say them, as names of one file in one directory; elsewhere each name becomes a file of its own, and content is
stored once anyway.
"""

import os
import stat as modes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from headstart.cvmfs.entry import Directory, Special, SpecialKind, Stat, Symlink
from headstart.errors import StorageError
from headstart.smallfiles import attributes_of
from headstart.wording import readable

_KINDS: Final = {kind.value: kind for kind in SpecialKind}
_NANOSECONDS: Final = 1_000_000_000
_OURS: Final = b".cvmfs"
_GRAFT_PREFIX: Final = b".cvmfsgraft-"
_BUNDLES: Final = b".cvmfsbundles"

Listing = Mapping[bytes, os.stat_result]
"""What is in a directory by name, in the order of the names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A regular file of the tree, whose content is still to be read."""

    name: bytes
    stat: Stat
    size: int
    place: str
    """Where to read it."""
    xattrs: bool = False
    """Whether its attributes are still to be read, too."""
    seen: tuple[int, int, int] | None = None
    """Inode, mtime and ctime in nanoseconds, as they must still be when it has been read; None to not look."""


Staged = Directory | Source | Symlink | Special


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """What to keep of a staged tree and what to make uniform."""

    owner: tuple[int, int] | None = None
    """User and group of everything; None keeps the files' own."""
    directory_mode: int | None = None
    """Mode of every directory; None keeps the directories' own."""
    xattrs: bool = True
    """Whether attributes in the ``user.`` namespace and file capabilities are kept; all others stay behind in
    any case, and what the format cannot hold is left out, as the real publisher does."""
    nanoseconds: bool = False
    """Whether times are kept to the nanosecond, as with CVMFS_ENABLE_MTIME_NS."""
    hardlinks: bool = False
    """Whether hard links within one directory stay so."""


AS_IT_IS: Final = Manners(hardlinks=True)


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
        place = os.fsencode(root)
        yield at, entry_of(place, at.rpartition(b"/")[2], top_of(root), manners)
        yield from _below(place, at, manners)
    except OSError as error:
        raise StorageError(f"cannot read {error.filename!s}: {error.strerror}") from error


def top_of(root: str) -> os.stat_result:
    """What a tree's topmost directory is like.

    Raises:
        StorageError: it is no directory.
        OSError: it cannot be looked at.
    """
    top = os.lstat(root)
    if not modes.S_ISDIR(top.st_mode):
        raise StorageError(f"{root} is not a directory")
    return top


def listing_of(directory: bytes) -> Listing:
    """What is in a directory, sorted by name.

    Raises:
        StorageError: something has a name that cannot be published.
        OSError: it cannot be read.
    """
    with os.scandir(directory) as found:
        listing = dict(sorted([(entry.name, entry.stat(follow_symlinks=False)) for entry in found]))
    if _OURS in b"/".join(listing):
        refuse_reserved(directory, listing)
    return listing


def refuse_reserved(directory: bytes, listing: Listing) -> None:
    """Refuse what has a name that means something else to the real tools.

    Raises:
        StorageError: there is such a name.
    """
    for name in [name for name in listing if name.startswith(_GRAFT_PREFIX) or name == _BUNDLES]:
        # The first tells the real publisher of files that are elsewhere, the second is reserved as a directory.
        if name != _BUNDLES or modes.S_ISDIR(listing[name].st_mode):
            raise StorageError(f"{readable(directory + b'/' + name)} has a name that cannot be published")


def link_groups(listing: Listing) -> Mapping[bytes, int]:
    """Which names in a directory are one file: for each of them the number of its group, from 1."""
    names: dict[tuple[int, int], list[bytes]] = {}
    for name, stat in listing.items():
        if stat.st_nlink > 1 and not modes.S_ISDIR(stat.st_mode):
            names.setdefault((stat.st_dev, stat.st_ino), []).append(name)
    groups = [group for group in names.values() if len(group) > 1]
    return {name: number for number, group in enumerate(groups, start=1) for name in group}


def _below(directory: bytes, at: bytes, manners: Manners) -> Iterator[tuple[bytes, Staged]]:
    listing = listing_of(directory)
    groups = link_groups(listing) if manners.hardlinks else {}
    for name, found in listing.items():
        place = directory + b"/" + name
        yield at + b"/" + name, entry_of(place, name, found, manners, groups.get(name, 0))
        if modes.S_ISDIR(found.st_mode):
            yield from _below(place, at + b"/" + name, manners)


def entry_of(place: bytes, name: bytes, found: os.stat_result, manners: Manners, group: int = 0) -> Staged:
    """The entry of one thing on disk.

    Args:
        place: where it is.
        name: what it is to be called.
        found: what it is like.
        manners: what to keep of owner, mode and attributes.
        group: of hard links that it belongs to.

    Raises:
        OSError: it cannot be looked at.
    """
    directory = modes.S_ISDIR(found.st_mode)
    mode = modes.S_IMODE(found.st_mode)
    uid, gid = manners.owner if manners.owner is not None else (found.st_uid, found.st_gid)
    seconds, nanoseconds = divmod(found.st_mtime_ns, _NANOSECONDS)
    regular = modes.S_ISREG(found.st_mode)
    stat = Stat(
        mode=manners.directory_mode if directory and manners.directory_mode is not None else mode,
        mtime=seconds,
        mtimens=nanoseconds if manners.nanoseconds else None,
        uid=uid,
        gid=gid,
        # Of a file that will be opened, that costs a fraction then.
        xattrs=attributes_of(place) if manners.xattrs and not regular else (),
        link_group=group,
    )
    if directory:
        return Directory(name=name, stat=stat)
    if regular:
        return Source(
            name=name,
            stat=stat,
            size=found.st_size,
            place=os.fsdecode(place),
            xattrs=manners.xattrs,
            seen=(found.st_ino, found.st_mtime_ns, found.st_ctime_ns),
        )
    if modes.S_ISLNK(found.st_mode):
        return Symlink(name=name, stat=stat, target=os.readlink(place))
    kind = _KINDS[modes.S_IFMT(found.st_mode)]
    device = kind in (SpecialKind.CHARACTER, SpecialKind.BLOCK)
    return Special(name=name, stat=stat, kind=kind, rdev=found.st_rdev if device else 0)
