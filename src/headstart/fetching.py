"""Objects from a stratum, compared with their names, and from whoever has them whole. Standard library only."""

from collections.abc import Callable
from typing import TypeVar

from headstart.cvmfs.entry import Compression
from headstart.cvmfs.objects import Algorithm, ObjectName, RunningDigest
from headstart.errors import CorruptError, Error, MissingError, StorageError, TrustError, UnavailableError
from headstart.stratum import Sink, Stratum

T = TypeVar("T")


def stored_limit(size: int, compression: Compression = Compression.ZLIB) -> int:
    """Bytes that an object of ``size`` bytes of content may have in storage, whatever made it.

    Deflate grows what it cannot compress by 5 bytes per block; the blocks of the real encoders are large, this
    leaves room for ones as small as 40 bytes.
    """
    return size if compression is Compression.NONE else size + size // 8 + 64


def fetch_object(stratum: Stratum, name: ObjectName, *, limit: int) -> bytes:
    """Fetch an object and compare it with its name.

    If it is damaged, once more past the caches on the way, and then from each other server.

    Raises:
        CorruptError: it is damaged, or has more than ``limit`` bytes.
        MissingError: it is not there.
        UnavailableError: the source does not answer.
    """
    try:
        return _fetch_once(stratum, name, limit=limit, fresh=False)
    except CorruptError:
        return from_any(stratum, lambda source: _fetch_once(source, name, limit=limit, fresh=True))


def pour_anew(stratum: Stratum, name: ObjectName, sink: Sink, *, limit: int) -> None:
    """An object into a sink, past the caches on the way, from each server until it is that of its name.

    Raises:
        CorruptError, MissingError, UnavailableError: as ``fetch_object``; and whatever the sink raises.
    """
    from_any(stratum, lambda source: _pour_once(source, name, sink, limit=limit))


def from_any(stratum: Stratum, ask: Callable[[Stratum], T]) -> T:
    """Ask a stratum, and each other server of it while what they say does not hold; the first error counts."""
    source: Stratum | None = stratum
    first: Error | None = None
    while source is not None:
        try:
            return ask(source)
        except (CorruptError, MissingError, TrustError, StorageError, UnavailableError) as error:
            # The others may be honest, or further on.
            first = first or error
            source = source.another()
    assert first is not None  # noqa: S101  # the loop ends by an error only
    raise first from None


def _fetch_once(stratum: Stratum, name: ObjectName, *, limit: int, fresh: bool) -> bytes:
    stored = stratum.fetch(name.path, limit=limit, fresh=fresh)
    name.check(stored)
    return stored


class _Hashed:
    """A sink that hashes on the way to another."""

    def following(self) -> None:
        """Bad bytes are the exception: what follows is asked for as ever."""

    def __init__(self, algorithm: Algorithm, sink: Sink) -> None:
        self._algorithm = algorithm
        self._sink = sink
        self.running = RunningDigest(algorithm)

    def begin(self) -> None:
        self.running = RunningDigest(self._algorithm)
        self._sink.begin()

    def take(self, piece: bytes | memoryview) -> None:
        self.running.update(piece)
        self._sink.take(piece)


def _pour_once(stratum: Stratum, name: ObjectName, sink: Sink, *, limit: int) -> None:
    hashed = _Hashed(name.digest.algorithm, sink)
    stratum.pour(name.path, hashed, limit=limit, fresh=True)
    name.check_digest(hashed.running.digest(), hashed.running.size)
