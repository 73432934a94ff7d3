"""Looking for whatever in a catalog breaks the format, as sentences; and what its entries count.

The work is done in ``examine``; here are those who hold an opened catalog.
"""

from collections.abc import Iterable, Mapping

from headstart.cvmfs.entry import (
    FLAG_BIND,
    FLAG_EXTERNAL,
    FLAG_HIDDEN,
    ChunkedFile,
    Directory,
    Entry,
    File,
    Mountpoint,
    Symlink,
)
from headstart.cvmfs.examine import examine
from headstart.cvmfs.examined import Side, between
from headstart.cvmfs.faults import Fault
from headstart.cvmfs.rows import Counters, Rows, Statistics
from headstart.wording import counted, readable


def complaints(rows: Rows) -> list[str]:
    """Whatever breaks the format inside one catalog, a sentence each."""
    examined = examine(rows.database, rows.mountpoint)
    return [f"{rows.where}: {_sentence(fault)}" for fault in examined.faults if not fault.is_note]


def _sentence(fault: Fault) -> str:
    return f"{readable(fault.path or b'/')} {fault.text}"


def count_entries(entries: Iterable[Entry], *, nested: int) -> Counters:
    """What a catalog counts of its own.

    Args:
        entries: all that are in it.
        nested: how many catalogs hang from it.
    """
    regular = symlink = special = directories = file_size = chunked = chunks = chunked_size = xattr = 0
    for entry in entries:
        if isinstance(entry, File):  # first, because nearly all are
            regular += 1
            file_size += entry.size
        elif isinstance(entry, Directory | Mountpoint):
            directories += 1
        elif isinstance(entry, ChunkedFile):
            regular += 1
            file_size += entry.size
            chunked += 1
            chunked_size += entry.size
            chunks += len(entry.chunks)
        elif isinstance(entry, Symlink):
            symlink += 1
        else:
            special += 1
        if entry.stat.xattrs:
            xattr += 1
    return Counters(
        regular=regular,
        symlink=symlink,
        special=special,
        dir=directories,
        nested=nested,
        chunked=chunked,
        chunks=chunks,
        file_size=file_size,
        chunked_size=chunked_size,
        xattr=xattr,
    )


def complaints_between(
    rows: Rows, statistics: Statistics, children: Mapping[bytes, tuple[Rows, Statistics]]
) -> list[str]:
    """Whatever does not fit between a catalog and all that are nested in it, a sentence each."""
    found = [
        f"nested catalog {readable(path)} was not given"
        for path in sorted(rows.nested.keys() - children.keys())
    ]
    sides = {
        path: Side(edges={path: child.row(path)}, statistics=counters)
        for path, (child, counters) in children.items()
    }
    edges = {path: rows.row(path) for path in children}
    found += [_sentence(fault) for fault in between(edges, statistics, sides)]
    return [f"{rows.where}: {text}" for text in found]


def beyond_us(rows: Rows) -> list[str]:
    """What the rows use that Headstart's own entries cannot say."""
    uses = rows.database.query(
        f"SELECT count(*) FROM catalog WHERE flags & {FLAG_HIDDEN | FLAG_EXTERNAL | FLAG_BIND} <> 0"  # noqa: S608 - a number
    )[0][0]
    what = "hidden, external or bind-mounted"
    return [f"{rows.where} has {counted(uses, f'{what} entry', f'{what} entries')}"] if uses else []
