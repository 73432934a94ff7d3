"""Looking through the catalogs of several states of a repository, each different catalog once.

Catalogs name each other by hash, so states share what did not change between them. Nothing of a catalog is kept
but what the one above it is compared with; of objects, only their keys, to be compared with what is in storage.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from headstart.cvmfs.database import Database
from headstart.cvmfs.entry import Compression
from headstart.cvmfs.examine import examine, open_database
from headstart.cvmfs.examined import Examined, Side, between
from headstart.cvmfs.faults import Code
from headstart.cvmfs.objectkeys import Content, Key, contents_in, key_of, keys_in, name_of, places_in
from headstart.cvmfs.objects import Digest, Kind, ObjectName
from headstart.cvmfs.trust import CATALOG_LIMIT
from headstart.errors import CorruptError, Error, MissingError, UnavailableError
from headstart.fetching import fetch_object, stored_limit
from headstart.inflating import inflate
from headstart.parallel import in_parallel
from headstart.repository.report import Report
from headstart.stratum import Stratum
from headstart.wording import counted, readable

_WORKERS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root catalog to begin with."""

    digest: Digest
    size: int
    """Bytes of its database as whoever names it says; 0 where that is not said."""
    label: str
    """Which state it is of, for findings; empty for the present one."""


@dataclass(frozen=True, slots=True)
class _Seen:
    mountpoint: bytes
    label: str


class States:
    """The catalogs that were looked through so far."""

    def __init__(self, stratum: Stratum, report: Report, *, reader: "Reader | None" = None) -> None:
        self._stratum = stratum
        self._report = report
        self._reader = reader
        self._seen: dict[Key, _Seen] = {}
        self._sides: dict[Key, Side] = {}
        self._roots: dict[Key, Examined] = {}
        self.named: Final[set[Key]] = set()
        """All objects that a catalog names, itself included."""
        self.predecessors: Final[dict[Key, bytes]] = {}
        """Catalogs that once were mounted where others are now, and where."""
        self.complete = True
        """Whether every catalog could be read, so that ``named`` is all there is."""

    def visit(self, root: Root) -> Examined | None:
        """Look through the catalogs of a state; its root catalog, unless that cannot be read."""
        waiting = [(root.digest, b"", root.size)]
        fresh: list[Examined] = []
        while waiting:
            digest, mountpoint, size = waiting.pop()
            key = key_of(ObjectName(digest=digest, kind=Kind.CATALOG))
            seen = self._seen.get(key)
            if seen is not None:
                if seen.mountpoint != mountpoint:
                    text = f"is the catalog of {readable(seen.mountpoint or b'/')} too"
                    self._report.add(Code.CATALOG_PLACE, mountpoint, text, root.label)
                continue
            self._seen[key] = _Seen(mountpoint, root.label)
            self.named.add(key)
            found = self._load(digest, mountpoint, size, root.label)
            if found is None:
                self.complete = False
                continue
            fresh.append(found)
            own = {mountpoint: found.edges.get(mountpoint)}
            if found.statistics is not None:
                self._sides[key] = Side(edges=own, statistics=found.statistics)
            if not mountpoint:
                self._roots[key] = found
            if found.previous is not None:
                name = ObjectName(digest=found.previous, kind=Kind.CATALOG)
                self.predecessors[key_of(name)] = mountpoint
            waiting += [(item.digest, path, item.size) for path, item in found.nested.items()]
        for catalog in fresh:
            self._compare(catalog, root.label)
        return self._roots.get(key_of(ObjectName(digest=root.digest, kind=Kind.CATALOG)))

    def _compare(self, catalog: Examined, label: str) -> None:
        sides: dict[bytes, Side] = {}
        for path, item in catalog.nested.items():
            side = self._sides.get(key_of(ObjectName(digest=item.digest, kind=Kind.CATALOG)))
            if side is None:
                return  # it cannot be read, which was said
            sides[path] = side
        for fault in between(catalog.edges, catalog.statistics, sides):
            self._report.add(fault.code, fault.path or catalog.mountpoint, fault.text, label)

    def _load(self, digest: Digest, mountpoint: bytes, size: int, label: str) -> Examined | None:
        report = self._report
        name = ObjectName(digest=digest, kind=Kind.CATALOG)
        try:
            data = _database(self._stratum, name)
        except MissingError:
            report.add(Code.OBJECT_MISSING, mountpoint, f"has a catalog, {name}, that is missing", label)
            return None
        except CorruptError as error:
            report.add(
                Code.OBJECT_DAMAGED, mountpoint, f"has a catalog that is damaged: {error.message}", label
            )
            return None
        if size and len(data) != size:
            text = f"has a catalog of {counted(len(data), 'byte')}, and whoever names it says {size}"
            report.add(Code.CATALOG_SIZE, mountpoint, text, label)
        try:
            database = open_database(data, mountpoint)
            found = examine(database, mountpoint)
            self.named.update(keys_in(database))
            if self._reader is not None:
                self._reader.read(database)
        except CorruptError as error:
            report.add(Code.CATALOG_DAMAGED, mountpoint, error.message, label)
            return None
        report.catalogs += 1
        report.entries += found.entries
        report.take(found.faults, label)
        return found

    def places(self, wanted: AbstractSet[Key]) -> Iterator[tuple[Key, bytes, str]]:
        """The files that are stored in some objects: object, path, and state."""
        for key, seen in self._seen.items():
            try:
                data = _database(self._stratum, name_of(key))
                for found, path in places_in(open_database(data, seen.mountpoint), seen.mountpoint, wanted):
                    yield found, path, seen.label
            except (CorruptError, MissingError):
                continue  # complained about before


def _database(stratum: Stratum, name: ObjectName) -> bytes:
    stored = fetch_object(stratum, name, limit=stored_limit(CATALOG_LIMIT))
    return inflate(stored, limit=CATALOG_LIMIT, what=name.path)


class Reader:
    """Reading the objects of files, each once; what is wrong with one is kept under its key."""

    def __init__(self, stratum: Stratum, report: Report, progress: Callable[[int], None]) -> None:
        self._stratum = stratum
        self._report = report
        self._progress = progress
        self._read: dict[Key, Content] = {}
        """As the first row that names an object says."""
        self._lock = threading.Lock()
        self._faults: dict[Key, tuple[Code, str]] = {}

    @property
    def faults(self) -> Mapping[Key, tuple[Code, str]]:
        """What is wrong, by object."""
        return self._faults

    def read(self, database: Database) -> None:
        """Read all objects of a catalog's files that were not read before."""
        tasks: list[Content] = []
        for content in contents_in(database):
            known = self._read.setdefault(content.key, content)
            if known is content:
                tasks.append(content)
            elif known != content:
                known_size = counted(known.size, "byte")
                text = f"has {known_size} in one row and {content.size}, or another compression, in another"
                self._faults.setdefault(content.key, (Code.OBJECT_SIZE, text))
        tasks.sort(key=lambda task: -task.size)
        in_parallel(tasks, self._object, workers=_WORKERS)

    def _object(self, task: Content) -> None:
        name = name_of(task.key)
        compression = Compression(task.compression)
        try:
            stored = fetch_object(self._stratum, name, limit=stored_limit(task.size, compression))
            plain = compression is Compression.NONE
            content = stored if plain else inflate(stored, limit=task.size, what=name.path)
            if len(content) != task.size:
                raise CorruptError(f"{name} has {counted(len(content), 'byte')} of content, not {task.size}")
        except MissingError:
            self._note(task.key, Code.OBJECT_MISSING, f"is stored in {name}, which is missing")
        except UnavailableError as error:
            self._note(task.key, Code.FILE_UNREADABLE, error.message)
        except Error as error:
            self._note(task.key, Code.OBJECT_DAMAGED, error.message)
        else:
            with self._lock:
                self._report.read += 1
                self._report.bytes_read += len(stored)
            self._progress(len(stored))

    def _note(self, key: Key, code: Code, text: str) -> None:
        with self._lock:
            self._faults.setdefault(key, (code, text))
