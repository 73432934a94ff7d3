"""What a look through a catalog has found, and what must hold between it and those that are nested in it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from headstart.cvmfs.entry import (
    FLAG_MOUNTPOINT,
    FLAG_NESTED_ROOT,
)
from headstart.cvmfs.faults import Code, Fault
from headstart.cvmfs.objects import Digest
from headstart.cvmfs.rows import COUNTER_NAMES, Counters, Nested, Row, Statistics
from headstart.errors import CorruptError


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A catalog, looked through."""

    mountpoint: bytes
    where: str
    faults: tuple[Fault, ...]
    entries: int = 0
    """Rows."""
    nested: Mapping[bytes, Nested] = field(default_factory=dict)
    """The references to nested catalogs that can be followed."""
    statistics: Statistics | None = None
    """Its counters, where all of them are there."""
    edges: Mapping[bytes, Row] = field(default_factory=dict)
    """The rows of its own root and of the mountpoints in it."""
    properties: Mapping[str, str] = field(default_factory=dict)

    def number(self, key: str) -> int | None:
        """A property that is a number; None where it is not there, or not one."""
        text = self.properties.get(key, "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None

    @property
    def previous(self) -> Digest | None:
        """The catalog that was mounted here before, where it is recorded."""
        text = self.properties.get("previous_revision", "")
        try:
            return Digest.parse(text) if text.partition("-")[0].strip("0") else None
        except CorruptError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What a catalog shows to the one above it."""

    edges: Mapping[bytes, Row | None]
    statistics: Statistics


def between(
    edges: Mapping[bytes, Row | None], statistics: Statistics | None, children: Mapping[bytes, Side]
) -> Iterator[Fault]:
    """Whatever does not fit between a catalog and all that are nested in it.

    Args:
        edges: the catalog's rows of mountpoints.
        statistics: its counters, if they can be compared.
        children: every nested catalog, by mountpoint.
    """
    subtree = Counters()
    for path, child in children.items():
        subtree += child.statistics.total
        ours, theirs = edges.get(path), child.edges.get(path)
        if ours is None or theirs is None:
            yield Fault(Code.MOUNTPOINT, path, "mountpoint is missing on one side")
            continue
        transition = FLAG_MOUNTPOINT | FLAG_NESTED_ROOT
        pair = [row._replace(rowid=0, flags=(row.flags or 0) | transition) for row in (ours, theirs)]
        if pair[0] != pair[1]:
            yield Fault(
                Code.MOUNTPOINT, path, "the rows of a mountpoint differ between parent and nested catalog"
            )
    if statistics is None:
        return
    for name in COUNTER_NAMES:
        stored, counted = getattr(statistics.subtree, name), getattr(subtree, name)
        if stored != counted:
            yield Fault(Code.COUNTER_WRONG, b"", f"counter subtree_{name} is {stored}, should be {counted}")
