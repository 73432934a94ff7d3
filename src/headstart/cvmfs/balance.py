"""Where a catalog that has grown too large is divided, as by the real publisher's CVMFS_AUTOCATALOGS.

Its way (catalog_balancer_impl.h): directories are visited from the deepest up. Each weighs 1 and what all in
it weigh; a nested catalog weighs 1. While one weighs more than half of what a catalog may have, the heaviest
directory in it becomes a catalog, unless that one is lighter than the least that a catalog should have. A
catalog that was made so and has shrunk below that least is dissolved into its parent.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from headstart.cvmfs.entry import Directory, Entry, is_below, parent_of
from headstart.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How large catalogs may become, in entries; the defaults are the real publisher's."""

    maximum: int = 100_000
    minimum: int = 1_000

    def __post_init__(self) -> None:
        if not 2 <= self.minimum <= self.maximum // 2:
            raise ConfigurationError(
                f"catalogs of {self.minimum} to {self.maximum} entries cannot be made",
                hint="the least must be 2 or more, and at most half of the most",
            )

    @property
    def target(self) -> int:
        """What a divided catalog should have at most."""
        return self.maximum // 2


def divisions(
    entries: Mapping[bytes, Entry], mountpoints: Collection[bytes], top: bytes, weights: Weights
) -> list[bytes]:
    """The directories below ``top`` that are to become catalogs, the inner before the outer.

    Args:
        entries: of one catalog, by path.
        mountpoints: of the catalogs that are nested in it.
        top: the directory to begin with.
        weights: how large catalogs may become.
    """
    inside = [path for path in entries if is_below(path, top)]
    directories = [path for path in inside if isinstance(entries[path], Directory)]
    leaves = Counter(parent_of(path) for path in inside if not isinstance(entries[path], Directory))
    leaves.update(parent_of(path) for path in mountpoints if is_below(path, top))
    children: dict[bytes, list[tuple[int, bytes]]] = {}
    chosen: list[bytes] = []
    for path in sorted([top, *directories], key=lambda path: (-path.count(b"/"), path)):
        inner = children.pop(path, [])
        weight = 1 + leaves[path] + sum(heavy for heavy, _ in inner)
        for heavy, child in sorted(inner, key=lambda item: (-item[0], item[1])):
            if weight <= weights.target or heavy < weights.minimum:
                break
            chosen.append(child)
            weight -= heavy - 1
        if path != top:
            children.setdefault(parent_of(path), []).append((weight, path))
    return chosen
