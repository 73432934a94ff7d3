"""``Overrides.toml`` of a depot: what a user puts in the place of artifacts (``stdlib/Artifacts``, 1.10.6:93).

A line replaces a tree by another one or by a directory; a table named by a package's UUID does so by the
names that the package has for its artifacts. An empty text takes an earlier depot's line back.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from headstart.tomltable import TomlTable

OVERRIDES_FILE: Final = "Overrides.toml"
_TREE: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One line of such a file."""

    file: str
    value: str
    """A directory, or another tree; empty when the line takes another one back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What holds for the artifacts of all packages."""

    trees: Mapping[str, Override]
    names: Mapping[tuple[str, str], Override]
    """By the package's UUID and the artifact's name."""

    @classmethod
    def none(cls) -> Self:
        """Nothing is replaced."""
        return cls(trees={}, names={})

    def over(self, text: str, file: str) -> "Overrides":
        """These, with those of a file in front of them.

        Lines that Julia reports and leaves out are left out here too.

        Raises:
            ConfigurationError: the file is not TOML.
        """
        trees, names = dict(self.trees), dict(self.names)
        for key, value in TomlTable.parse(text, file).value.items():
            if isinstance(value, str) and _valid(value) and _TREE.fullmatch(key.lower()):
                trees[key.lower()] = Override(file=file, value=value)
            elif isinstance(value, dict) and _is_uuid(key):
                for name, other in value.items():
                    if isinstance(other, str) and _valid(other):
                        names[str(uuid.UUID(key)), name] = Override(file=file, value=other)
        return Overrides(trees=trees, names=names)

    def of(self, package: str, name: str, tree: str) -> Override | None:
        """What stands in the place of an artifact.

        Args:
            package: UUID of the package that it belongs to.
            name: what the package calls it.
            tree: its git-tree-sha1.
        """
        found = [self.names.get((package, name)), self.trees.get(tree)]
        return next((one for one in found if one is not None and one.value), None)


def _valid(value: str) -> bool:
    return not value or value.startswith("/") or _TREE.fullmatch(value.lower()) is not None


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
