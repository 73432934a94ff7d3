"""Objects by a key of 22 bytes, for those who hold the names of all objects of a repository at once.

A key is an object's digest, its algorithm's id, and its suffix letter (0 for none): see format section 1.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple, NewType

from headstart.cvmfs.database import Database
from headstart.cvmfs.entry import Compression, path_hash
from headstart.cvmfs.objects import DIGEST_SIZE, Algorithm, Digest, Kind, ObjectName

Key = NewType("Key", bytes)
"""See the module."""
_DEEPEST: Final = 2048
"""Components that a path may have: Linux allows paths of 4096 bytes."""
_NOT_EXTERNAL: Final = "flags & 128 = 0"
_ZEROS: Final = f"zeroblob({DIGEST_SIZE})"
# Whatever SQLite puts behind a BLOB is one.
_WHOLE: Final = f"FROM catalog WHERE +hash>{_ZEROS} AND length(hash)={DIGEST_SIZE} AND {_NOT_EXTERNAL}"
_CHUNKS: Final = (
    "FROM chunks JOIN catalog USING (md5path_1, md5path_2)"
    f" WHERE +chunks.hash>{_ZEROS} AND length(chunks.hash)={DIGEST_SIZE} AND {_NOT_EXTERNAL}"
)


def _endings(kind: Kind) -> Mapping[int, bytes]:
    """What follows a digest in a key, by the hash bits of a row's flags."""
    return {algorithm.value - 1: _ending(algorithm, kind) for algorithm in Algorithm}


def _ending(algorithm: Algorithm, kind: Kind) -> bytes:
    return bytes((algorithm.value, ord(kind.value) if kind.value else 0))


_FILES: Final = _endings(Kind.FILE)
_PARTS: Final = _endings(Kind.CHUNK)

_SPELT: Final = {
    algorithm.tag + kind.value: _ending(algorithm, kind) for algorithm in Algorithm for kind in Kind
}
"""The same by how a file's name ends."""
_ZERO: Final = bytes(DIGEST_SIZE)


class Content(NamedTuple):
    """An object of a file's content as a row names it."""

    key: Key
    size: int
    """Bytes, inflated."""
    compression: int
    """Its id (``Compression``)."""


def key_of(name: ObjectName) -> Key:
    """The key of an object."""
    return Key(name.digest.raw + _ending(name.digest.algorithm, name.kind))


def name_of(key: Key) -> ObjectName:
    """The object of a key."""
    digest = Digest(algorithm=Algorithm(key[DIGEST_SIZE]), raw=key[:DIGEST_SIZE])
    return ObjectName(digest=digest, kind=Kind(chr(key[-1]) if key[-1] else ""))


def key_at(path: str) -> Key | None:
    """The key of the object that a file of the storage is by its path; None where it is none."""
    digits, ending = path[5:7] + path[8:46], _SPELT.get(path[46:])
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        return None
    # Capitals and blanks are digits for Python only.
    if ending is None or raw.hex() != digits or len(raw) != DIGEST_SIZE or raw == _ZERO:
        return None
    return Key(raw + ending) if path[:5] == "data/" and path[7] == "/" else None


def keys_in(database: Database) -> Iterator[Key]:
    """What a catalog's files are stored in, chunks included; the same object may come again.

    External files are not stored, and what has an unknown hash cannot be named.

    Raises:
        CorruptError: SQLite cannot read it.
    """
    for query, endings in (
        (f"SELECT hash, flags {_WHOLE}", _FILES),
        (f"SELECT chunks.hash, flags {_CHUNKS}", _PARTS),
    ):
        rows = database.query(query)
        # Few different flags stand in many rows.
        known = {
            flags: endings[flags >> 8 & 7]
            for flags in {flags for _, flags in rows}
            if isinstance(flags, int) and flags >> 8 & 7 in endings
        }
        yield from [Key(raw + known[flags]) for raw, flags in rows if flags in known]


def contents_in(database: Database) -> Iterator[Content]:
    """The same with sizes, for those who read them."""
    known = {compression.value for compression in Compression}
    queries = (
        (f"SELECT DISTINCT hash, flags, size {_WHOLE}", _FILES),
        (f"SELECT DISTINCT chunks.hash, flags, chunks.size {_CHUNKS}", _PARTS),
    )
    for query, endings in queries:
        for raw, flags, size in database.query(query):
            if not isinstance(flags, int) or not isinstance(size, int) or size < 0:
                continue
            if flags >> 8 & 7 in endings and flags >> 11 & 7 in known:
                yield Content(Key(raw + endings[flags >> 8 & 7]), size, flags >> 11 & 7)


def places_in(database: Database, mountpoint: bytes, wanted: AbstractSet[Key]) -> Iterator[tuple[Key, bytes]]:
    """Which files of a catalog are stored in some objects: each object with the path of each of its files.

    Raises:
        CorruptError: SQLite cannot read it.
    """
    names: dict[tuple[int, int], tuple[bytes, tuple[int, int]]] = {}
    found: list[tuple[Key, tuple[int, int]]] = []
    for first, second, above, below, name, raw, flags in database.query(
        "SELECT md5path_1, md5path_2, parent_1, parent_2, name, hash, flags FROM catalog"
    ):
        if isinstance(name, bytes):
            names[first, second] = name, (above, below)
        if isinstance(raw, bytes) and isinstance(flags, int) and flags >> 8 & 7 in _FILES:
            found.append((Key(raw + _FILES[flags >> 8 & 7]), (first, second)))
    for first, second, raw, flags in database.query(
        "SELECT md5path_1, md5path_2, chunks.hash, flags FROM chunks JOIN catalog USING (md5path_1, md5path_2)"
    ):
        if isinstance(raw, bytes) and isinstance(flags, int) and flags >> 8 & 7 in _PARTS:
            found.append((Key(raw + _PARTS[flags >> 8 & 7]), (first, second)))
    top = path_hash(mountpoint)
    for key, file in found:
        if key not in wanted:
            continue
        at, parts = file, list[bytes]()
        # A damaged catalog may go round in circles.
        while at != top and at in names and len(parts) < _DEEPEST:
            name, at = names[at]
            parts.append(name)
        yield key, b"/".join([mountpoint, *reversed(parts)])
