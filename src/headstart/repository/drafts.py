"""What a synchronisation works with: the tree, and catalogs in the making."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from headstart.cvmfs.balance import Weights
from headstart.cvmfs.dirtab import Dirtab
from headstart.cvmfs.edition import Branch, Region
from headstart.cvmfs.entry import Entry
from headstart.tree import Manners


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What is published, and where."""

    directory: str
    at: bytes
    """The path in the repository; empty for its root."""
    manners: Manners
    dirtab: Dirtab = field(default_factory=Dirtab)
    weights: Weights | None = None
    """How large catalogs may become before they are divided; None to leave them as they are marked."""
    kept: frozenset[bytes] = frozenset()
    """Names in the repository's root that are none of the tree's business, where it is published there."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a synchronisation came upon."""

    read: int = 0
    """Files."""
    read_bytes: int = 0
    catalogs: list[bytes] = field(default_factory=list)
    """Mountpoints of the nested catalogs that were written."""


@dataclass(slots=True, kw_only=True)
class Draft:
    """A catalog in the making."""

    region: Region = field(default_factory=Region)
    present: Mapping[bytes, Entry] | None = None
    """Entries of the catalog that is mounted there now."""
    finished: list[tuple[bytes, bytes, list[bytes]]] = field(default_factory=list)
    """Path, looks and regular files of directories whose files are all taken, but not yet remembered."""
    copies: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Path, and path of the same file."""
    untouched: dict[bytes, bytes] = field(default_factory=dict)
    """What the content of files became that were not looked at, by path."""
    divided: bool = False


class Spot(NamedTuple):
    """Something on disk that is to be a path in the repository."""

    path: bytes
    place: bytes
    stat: os.stat_result


class Later(NamedTuple):
    """A nested catalog that only waits for its files."""

    spot: Spot
    draft: Draft
    above: Draft
    """The catalog that it hangs from."""
    until: tuple[int, int]
    """Its entries, and the mark of the ingestion behind its files."""


def hang(draft: Draft, path: bytes, branch: Branch | Region) -> int:
    """Put a nested catalog into a draft, or what was in it, where it is dissolved; its weight there."""
    region = draft.region
    if isinstance(branch, Branch):
        region.branches[path] = branch
        return 1
    region.entries.update(branch.entries)
    region.branches.update(branch.branches)
    return len(branch.entries) + len(branch.branches)
