"""The catalogs of one revision, by mountpoint."""

from collections.abc import Callable, Iterator

from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.entry import Entry
from headstart.cvmfs.objects import Digest, ObjectName
from headstart.cvmfs.trust import nested_catalog, open_nested

Fetch = Callable[[ObjectName], bytes]
"""Reads an object as stored."""


class Forest:
    """The catalogs of one revision, opened when they are needed."""

    def __init__(self, root: Catalog, digest: Digest, fetch: Fetch) -> None:
        self._fetch = fetch
        self._opened: dict[bytes, tuple[Catalog, Digest]] = {b"": (root, digest)}

    def mounted(self, mountpoint: bytes) -> tuple[Catalog, Digest] | None:
        """The catalog mounted at exactly this path, and its name; None where there is none."""
        if mountpoint in self._opened:
            return self._opened[mountpoint]
        parent = self.holder(mountpoint)
        if mountpoint not in parent.nested:
            return None
        name = nested_catalog(parent, mountpoint)
        self._opened[mountpoint] = open_nested(parent, mountpoint, self._fetch(name)), name.digest
        return self._opened[mountpoint]

    def holder(self, path: bytes) -> Catalog:
        """The catalog whose parent side holds, or would hold, the row of ``path``."""
        catalog = self._opened[b""][0]
        for ancestor in ancestors(path):
            if ancestor in catalog.nested:
                found = self.mounted_in(catalog, ancestor)
                catalog = found
        return catalog

    def mounted_in(self, parent: Catalog, mountpoint: bytes) -> Catalog:
        """The catalog nested in ``parent`` at ``mountpoint``."""
        if mountpoint not in self._opened:
            name = nested_catalog(parent, mountpoint)
            self._opened[mountpoint] = open_nested(parent, mountpoint, self._fetch(name)), name.digest
        return self._opened[mountpoint][0]

    def lookup(self, path: bytes) -> Entry | None:
        """The entry at a path; a ``Mountpoint`` where a nested catalog is mounted."""
        return self.holder(path).lookup(path)

    def forget(self, mountpoint: bytes) -> None:
        """Close a nested catalog; it is opened again when it is asked for."""
        if mountpoint:
            self._opened.pop(mountpoint, None)

    def catalogs(self) -> Iterator[Catalog]:
        """All catalogs, parents first."""
        waiting = [b""]
        while waiting:
            found = self.mounted(waiting.pop())
            if found is not None:
                yield found[0]
                waiting += sorted(found[0].nested, reverse=True)


def ancestors(path: bytes) -> Iterator[bytes]:
    """The directories above ``path``, from below the root downward, without the root and without itself."""
    at = path.find(b"/", 1)
    while at > 0:
        yield path[:at]
        at = path.find(b"/", at + 1)
