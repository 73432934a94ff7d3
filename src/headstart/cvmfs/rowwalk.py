"""Going through the rows of a catalog from its root down, and whatever is wrong with them.

Theory of operation. Of nearly all rows there is nothing to say but that their names and the hashes of their
paths are right. Those of one directory come with one query, and are tried together: name by name only where
that does not come out right. SQLite picks out the others in one go through the table, directories and whatever
may break a rule (``rowrules``), with the answers to every rule as the bits of one number.
"""

import hashlib
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from headstart.cvmfs.database import Database
from headstart.cvmfs.entry import (
    FLAG_BIND,
    FLAG_CHUNKED,
    FLAG_MOUNTPOINT,
    FLAG_NESTED_ROOT,
    MARKER,
    name_of,
    parent_of,
    path_hash,
    unpack_xattrs,
    valid_name,
)
from headstart.cvmfs.faults import Code, Fault
from headstart.cvmfs.rowrules import DIRECTORY, PLAIN, REGULAR, RULES, TYPE_MASK, VARIANT, rule_bits
from headstart.cvmfs.rows import LINKS_MASK
from headstart.errors import CorruptError
from headstart.wording import counted, readable

PARENT: Final = "WHERE parent_1=? AND parent_2=?"
SELF: Final = "WHERE md5path_1=? AND md5path_2=?"
"""Ends of queries over an index."""
_NO_NAMES: Final = frozenset({b"", b".", b".."})
_LONGEST_NAME: Final = 255
_SHOWN: Final = 5
PathHash = tuple[int, int]
"""The columns that find a path."""


class RowWalk:
    """One walk, and what it came upon.

    Args:
        database: the catalog's file.
        mountpoint: where it is mounted.
        source: its rows with all columns of the present schema, as a table of SQL.
    """

    def __init__(self, database: Database, mountpoint: bytes, source: str) -> None:
        self._database: Final = database
        self._mountpoint: Final = mountpoint
        self._select: Final = (
            f"SELECT {rule_bits()}, rowid, md5path_1, md5path_2, name, mode, flags, hardlinks, size, xattr,"  # noqa: S608 - constant names
            f" parent_1, parent_2 FROM {source}"
        )
        self.faults: Final[list[Fault]] = []
        self.chunked: Final[dict[PathHash, tuple[bytes, int]]] = {}
        """Path and size of each chunked file."""
        self.linked: Final[dict[PathHash, bytes]] = {}
        """Path of each file that says it is one of several names."""
        self.mountpoints: Final[set[bytes]] = set()
        self.binds: Final[set[bytes]] = set()
        self.markers: Final[set[bytes]] = set()
        self.odd_names: Final[list[bytes]] = []
        """Paths whose names are not in UTF-8."""

    def _add(self, code: Code, path: bytes, text: str) -> None:
        self.faults.append(Fault(code, path, text))

    def run(self) -> int:
        """Go into every directory from the root down; how many rows were met."""
        root = self._mountpoint
        found = self._database.query(f"{self._select} {SELF}", path_hash(root))
        if not found:
            self._add(Code.CATALOG_ROOT, root, "has no row in its own catalog")
            return 0
        row = found[0]
        self._own_root(row[5], row[6])
        if row[0] or row[9] is not None:
            self._rules(root, row)
        if row[4] != name_of(root):
            self._add(Code.NAME, root, f"has a row with the name {row[4]!r:.80}")
        reached = 1
        odd = self._odd_rows(row[1])
        # Directories to look into, and how many links they say they have.
        waiting: list[tuple[bytes, Any]] = [(root, row[7])]
        children = f"SELECT md5path_1, md5path_2, name FROM catalog {PARENT} AND rowid<>?"  # noqa: S608 - constant names
        while waiting:
            path, links = waiting.pop()
            key = path_hash(path)
            # Not the root again: its wrong parent was complained about.
            rows = self._database.query(children, (*key, row[1]))
            reached += len(rows)
            self._names(path, rows)
            directories = self._directory(path, odd.get(key, ()), waiting)
            if links != 2 + directories and path not in self.mountpoints:
                self._add(
                    Code.LINK_COUNT,
                    path,
                    f"has link count {links}, but {counted(directories, 'directory', 'directories')} in it",
                )
        return reached

    def _odd_rows(self, root: int) -> Mapping[PathHash, list[tuple[Any, ...]]]:
        """The rows that are no plain files, by their parent: directories, and whatever breaks a rule."""
        found: dict[PathHash, list[tuple[Any, ...]]] = defaultdict(list)
        for row in self._database.query(f"{self._select} WHERE rowid<>? AND ({PLAIN}) IS NOT TRUE", (root,)):
            found[row[-2:]].append(row)
        return found

    def _own_root(self, mode: Any, flags: Any) -> None:
        root = self._mountpoint
        parent_1, parent_2 = self._database.query(
            f"SELECT parent_1, parent_2 FROM catalog {SELF}",  # noqa: S608 - constant names
            path_hash(root),
        )[0]
        # The root has no parent, and says so with zeros rather than with a hash (format section 9.3).
        if (parent_1, parent_2) != (path_hash(parent_of(root)) if root else (0, 0)):
            self._add(Code.CATALOG_ROOT, root, "its parent is not the directory it lies in")
        if not isinstance(mode, int) or mode & TYPE_MASK != DIRECTORY:
            self._add(Code.CATALOG_ROOT, root, "is no directory in its own catalog")
        elif isinstance(flags, int) and bool(flags & FLAG_NESTED_ROOT) != bool(root):
            self._add(Code.CATALOG_ROOT, root, f"flags {flags:#x} are not those of a catalog's root")

    def _names(self, path: bytes, rows: list[tuple[Any, ...]]) -> None:
        """The names of one directory, and the hashes of their paths; those of plain files are seen only here.

        All of them at once first: row by row only where that does not come out right.
        """
        if not rows:
            return
        base, md5 = path + b"/", hashlib.md5
        firsts, seconds, names = zip(*rows, strict=True)
        try:
            joined = b"/".join(names)
            hashes = b"".join([md5(base + name, usedforsecurity=False).digest() for name in names])
        except TypeError:
            joined, hashes = b"\0", b""  # one is no text
        numbers = struct.unpack(f"<{len(hashes) // 8}q", hashes)
        if numbers[::2] != firsts or numbers[1::2] != seconds:
            self._hashes(base, rows)
        different = set(names)
        if MARKER in different:
            self.markers.add(base + MARKER)
        if len(different) != len(rows):
            self._add(Code.DUPLICATE, path, "has a name that stands twice in one directory")
        plain = joined.isascii() and b"\0" not in joined and joined.count(b"/") == len(rows) - 1
        if not plain or not different.isdisjoint(_NO_NAMES) or max(map(len, names)) > _LONGEST_NAME:
            for name in names:
                if isinstance(name, bytes):
                    self._name(base + name, name)

    def _hashes(self, base: bytes, rows: list[tuple[Any, ...]]) -> None:
        for first, second, name in rows:
            if isinstance(name, bytes) and path_hash(base + name) != (first, second):
                self._add(
                    Code.PATH_HASH, base + name, "has another path's hash, so it is listed and cannot be opened"
                )

    def _directory(self, path: bytes, rows: Iterable[tuple[Any, ...]], waiting: list[tuple[bytes, Any]]) -> int:
        """The rows of one directory that are no plain files; how many directories there are."""
        directories = 0
        for row in rows:
            bits, _, first, second, name, mode, flags, links, size, xattr = row[:-2]
            child = path + b"/" + name if isinstance(name, bytes) else path
            if bits or xattr is not None:
                self._rules(child, row)
                if not isinstance(name, bytes) or not isinstance(mode, int) or not isinstance(flags, int):
                    continue  # a rule was broken, so that was said
            if mode & TYPE_MASK == DIRECTORY:
                directories += 1
                self._inner(child, flags, links, waiting)
            elif links != 1 and isinstance(links, int) and links > LINKS_MASK:
                self.linked[first, second] = child
            if flags & FLAG_CHUNKED:
                self.chunked[first, second] = child, size
            if name == MARKER and mode & TYPE_MASK != REGULAR:
                self._add(Code.MARKER, child, "is not a regular file")
        return directories

    def _inner(self, path: bytes, flags: int, links: Any, waiting: list[tuple[bytes, Any]]) -> None:
        if flags & FLAG_NESTED_ROOT:
            self._add(Code.FLAGS, path, "is said to be the root of this catalog")
        if flags & FLAG_MOUNTPOINT:
            self.mountpoints.add(path)
        if flags & FLAG_BIND:
            self.binds.add(path)
        if flags & (FLAG_MOUNTPOINT | FLAG_BIND):
            below = self._database.query(f"SELECT count(*) FROM catalog {PARENT}", path_hash(path))[0][0]  # noqa: S608 - constant names
            if not below:
                return
            self._add(
                Code.MOUNTPOINT,
                path,
                f"is where a catalog is mounted, with {counted(below, 'row')} below it here",
            )
            self.mountpoints.add(path)
        waiting.append((path, links))

    def _name(self, path: bytes, name: bytes) -> None:
        if not valid_name(name):
            self._add(Code.NAME, path, f"{name!r:.80} is no name of a file")
            return
        try:
            name.decode()
        except UnicodeDecodeError:
            self.odd_names.append(path)

    def _rules(self, path: bytes, row: tuple[Any, ...]) -> None:
        """What SQLite found wrong with a row, and its attributes."""
        bits, first, second, xattr = row[0], row[2], row[3], row[9]
        for number, rule in enumerate(RULES):
            if bits >> number & 1:
                self._add(rule.code, path, rule.text)
        if bits & VARIANT:
            target = self._database.query(f"SELECT symlink FROM catalog {SELF}", (first, second))  # noqa: S608 - constant names
            if target and isinstance(target[0][0], bytes) and not _good_variant(target[0][0]):
                self._add(
                    Code.VARIANT_SYMLINK,
                    path,
                    f"has a variable in its target that does not end: {readable(target[0][0])}",
                )
        if isinstance(xattr, bytes):
            try:
                pairs = unpack_xattrs(xattr)
            except CorruptError as error:
                self._add(Code.XATTRS, path, error.message)
                return
            if not pairs or pairs != tuple(sorted(dict(pairs).items())):
                self._add(Code.XATTRS, path, "has extended attributes out of order, twice, or none")

    def unreachable(self, missing: int) -> None:
        """Rows that no walk from the root comes to: their parent is no directory here."""
        reached: set[int] = set()
        waiting = [path_hash(self._mountpoint)]
        query = f"SELECT rowid, md5path_1, md5path_2 FROM catalog {PARENT}"  # noqa: S608 - constant names
        while waiting:
            for rowid, first, second in self._database.query(query, waiting.pop()):
                if rowid not in reached and isinstance(first, int) and isinstance(second, int):
                    waiting.append((first, second))
                reached.add(rowid)
        own = self._database.query(f"SELECT rowid FROM catalog {SELF}", path_hash(self._mountpoint))  # noqa: S608 - constant names
        reached.update(rowid for (rowid,) in own)
        names = [
            readable(name)
            for rowid, name in self._database.query("SELECT rowid, name FROM catalog ORDER BY rowid")
            if rowid not in reached
        ]
        some = f": {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}" if names else ""
        self._add(
            Code.ROW_UNREACHABLE,
            self._mountpoint,
            f"{counted(missing, 'row')} cannot be reached from the root{some}",
        )


def _good_variant(target: bytes) -> bool:
    """Whether each ``$(`` of a target ends: ``$(NAME)`` or ``$(NAME:-other)``."""
    parts = target.split(b"$(")[1:]
    return all(b")" in part and part[:1] not in (b")", b":") for part in parts)
