"""Looking for whatever in a catalog breaks the format: what ``cvmfs_swissknife check`` looks for, and more.

The real check recomputes counters and link counts but not path hashes, and the real client does not notice
chunks that do not cover their file (format sections 9 and 21). Everything here is recomputed from the rows.
Each complaint is a sentence; an empty list is a good catalog.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from headstart.cvmfs.entry import (
    FLAG_BIND,
    FLAG_EXTERNAL,
    FLAG_HIDDEN,
    FLAG_MOUNTPOINT,
    FLAG_NESTED_ROOT,
    MARKER,
    ChunkedFile,
    Directory,
    Entry,
    File,
    Mountpoint,
    Special,
    SpecialKind,
    Symlink,
    parent_of,
    path_hash,
)
from headstart.cvmfs.rows import COUNTER_NAMES, Counters, Row, Rows, Statistics
from headstart.errors import CorruptError


def complaints(rows: Rows, properties: Mapping[str, str], statistics: Statistics) -> list[str]:
    """Whatever breaks the format inside one catalog."""
    where = rows.where
    found = [str(text) for (text,) in rows.database.query("PRAGMA integrity_check") if text != b"ok"]
    if not rows.mountpoint and "root_prefix" in properties:
        found.append("the root catalog has a root_prefix")
    wanted = ("revision", "last_modified", "schema_revision")
    found += [f"property {key} is missing" for key in wanted if key not in properties]
    seen: dict[bytes, tuple[Row, Entry]] = {}
    try:
        seen = dict(_reachable(rows))
    except CorruptError as error:
        return [*[f"{where}: {text}" for text in found], error.message]
    total = rows.database.query("SELECT count(*), min(rowid) FROM catalog")[0]
    if total[0] != len(seen):
        found.append(f"{total[0] - len(seen)} rows cannot be reached from the root")
    if total[1] is None or total[1] < 1:
        found.append("a row number is below 1")
    found += _entries(seen)
    found += _nested(rows, seen)
    found += _tables(rows, seen)
    found += _counters("self", statistics.own, _count(rows, seen))
    return [f"{where}: {text}" for text in found]


def _reachable(rows: Rows) -> Iterator[tuple[bytes, tuple[Row, Entry]]]:
    root = rows.row(rows.mountpoint)
    if root is None:
        raise CorruptError(f"{rows.where} has no row for its own root")
    yield rows.mountpoint, (root, rows.entry(rows.mountpoint, root))
    waiting = [rows.mountpoint]
    while waiting:
        directory = waiting.pop()
        for path, row in rows.children(directory):
            entry = rows.entry(path, row)
            yield path, (row, entry)
            if isinstance(entry, Directory):
                waiting.append(path)
            elif isinstance(entry, Mountpoint) and rows.children(path):
                raise CorruptError(f"{rows.where} has rows below the mountpoint {path!r} of a nested catalog")


def _entries(seen: Mapping[bytes, tuple[Row, Entry]]) -> Iterator[str]:
    directories = Counter(
        parent_of(path)
        for path, (_, entry) in seen.items()
        if path and isinstance(entry, Directory | Mountpoint)
    )
    for path, (row, entry) in seen.items():
        if row.links == 0:
            yield f"{path!r} has a link count of 0"
        if row.hash is not None and not isinstance(entry, File | ChunkedFile):
            yield f"{path!r} has a digest, but is no file"
        if row.symlink and not isinstance(entry, Symlink):
            yield f"{path!r} has a target, but is no symbolic link"
        if entry.stat.xattrs != tuple(sorted(entry.stat.xattrs)) or (
            row.xattr is not None and not entry.stat.xattrs
        ):
            yield f"{path!r} has extended attributes out of order, or none"
        yield from _entry(path, row, entry, directories[path])


def _entry(path: bytes, row: Row, entry: Entry, directories: int) -> Iterator[str]:
    match entry:
        case Directory():
            if row.hardlinks != 2 + directories:
                yield f"{path!r} has link count {row.hardlinks}, but {directories} directories in it"
        case Symlink():
            if row.size != len(entry.target):
                yield f"{path!r} has size {row.size}, but a target of {len(entry.target)} bytes"
        case Special():
            if entry.rdev and entry.kind in (SpecialKind.FIFO, SpecialKind.SOCKET):
                yield f"{path!r} is no device, but has size {entry.rdev}"
        case File() | ChunkedFile() | Mountpoint():
            pass


def _nested(rows: Rows, seen: Mapping[bytes, tuple[Row, Entry]]) -> Iterator[str]:
    mountpoints = {path for path, (_, entry) in seen.items() if isinstance(entry, Mountpoint)}
    for path in sorted(rows.nested.keys() - mountpoints):
        yield f"nested catalog {path!r} has no mountpoint"
    markers = {path for path, (_, entry) in seen.items() if entry.name == MARKER}
    expected = rows.mountpoint + b"/" + MARKER
    if rows.mountpoint and expected not in markers:
        yield f"nested catalog without {MARKER.decode()} in its root"
    for path in sorted(markers - ({expected} if rows.mountpoint else set())):
        yield f"{path!r} marks a directory that is no nested catalog"
    for path in markers:
        if not isinstance(seen[path][1], File):
            yield f"{path!r} is not a regular file"


def _tables(rows: Rows, seen: Mapping[bytes, tuple[Row, Entry]]) -> Iterator[str]:
    chunked = {path_hash(path) for path, (_, entry) in seen.items() if isinstance(entry, ChunkedFile)}
    owners = {tuple(row) for row in rows.database.query("SELECT DISTINCT md5path_1, md5path_2 FROM chunks")}
    if owners - chunked:
        yield f"{len(owners - chunked)} files have chunks, but are not chunked"
    wrong = rows.database.query(
        "SELECT count(*) FROM catalog WHERE typeof(name) <> 'text' OR typeof(symlink) <> 'text'"
        " OR (hash IS NOT NULL AND typeof(hash) <> 'blob')"
    )[0][0]
    if wrong:
        yield f"{wrong} rows have a name or a target that is not TEXT, or a digest that is no BLOB"


def _count(rows: Rows, seen: Mapping[bytes, tuple[Row, Entry]]) -> Counters:
    values: Counter[str] = Counter(nested=len(rows.nested))
    for row, entry in seen.values():
        external = bool(row.flags & FLAG_EXTERNAL)
        values["xattr"] += row.xattr is not None
        values.update(count_entry(entry))
        if external and isinstance(entry, File | ChunkedFile):
            values["external"] += 1
            values["external_file_size"] += entry.size
    return Counters(**{name: values[name] for name in COUNTER_NAMES})


def count_entry(entry: Entry) -> dict[str, int]:
    """What an entry adds to its catalog's counters; ``xattr`` and ``nested`` are counted elsewhere."""
    match entry:
        case Directory() | Mountpoint():
            return {"dir": 1}
        case File():
            return {"regular": 1, "file_size": entry.size}
        case ChunkedFile():
            return {
                "regular": 1,
                "file_size": entry.size,
                "chunked": 1,
                "chunked_size": entry.size,
                "chunks": len(entry.chunks),
            }
        case Symlink():
            return {"symlink": 1}
        case Special():
            return {"special": 1}


def _counters(prefix: str, stored: Counters, counted: Counters) -> Iterator[str]:
    for name in COUNTER_NAMES:
        if getattr(stored, name) != getattr(counted, name):
            yield f"counter {prefix}_{name} is {getattr(stored, name)}, should be {getattr(counted, name)}"


def complaints_between(
    rows: Rows, statistics: Statistics, children: Mapping[bytes, tuple[Rows, Statistics]]
) -> list[str]:
    """Whatever does not fit between a catalog and all that are nested in it."""
    found = [f"nested catalog {path!r} was not given" for path in sorted(rows.nested.keys() - children.keys())]
    subtree = Counters()
    for path, (child, counters) in children.items():
        subtree += counters.total
        ours, theirs = rows.row(path), child.row(path)
        if ours is None or theirs is None:
            found.append(f"mountpoint {path!r} is missing on one side")
            continue
        transition = FLAG_MOUNTPOINT | FLAG_NESTED_ROOT
        same = ours._replace(rowid=0, flags=ours.flags & ~transition)
        if same != theirs._replace(rowid=0, flags=theirs.flags & ~transition):
            found.append(f"the rows of mountpoint {path!r} differ between parent and nested catalog")
    found += _counters("subtree", statistics.subtree, subtree)
    return [f"{rows.where}: {text}" for text in found]


def beyond_us(rows: Rows) -> list[str]:
    """What the rows use that Headstart's own entries cannot say."""
    uses = rows.database.query(
        f"SELECT count(*) FROM catalog WHERE flags & {FLAG_HIDDEN | FLAG_EXTERNAL | FLAG_BIND} <> 0"  # noqa: S608 - a number
    )[0][0]
    return [f"{rows.where} has {uses} hidden, external or bind-mounted entries"] if uses else []
