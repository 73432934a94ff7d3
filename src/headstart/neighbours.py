"""Files that other users of this node have fetched already: copied, hashed, and only then believed.

Theory of operation. In a directory for all users (sticky, as ``/tmp``) each has a part of his own, which the
others may read. The owner of a file can change it at any time, also after somebody has looked at it, and also
while it is mapped. So nothing of another's part is ever used where it is: a file is copied into our own part
and the copy is hashed. What a hostile neighbour can do is to offer nothing, or something wrong, which is then
fetched.

His part may also be a trap. It is walked by descriptors, without following a link and without leaving the file
system that the shared directory is on (he may have mounted something that never answers). Only regular files of
the right size are read, and opened so that neither a pipe nor a file lease (fcntl(2)) makes us wait.

Where the file system can, a copy shares its blocks with the original until one of them is written, so that it
takes no room.

Two users who start the same release at once should download it once. Who fetches a unit leaves a note in
``busy/`` with a number that says since when; whoever comes later waits, and copies what has arrived, as long as
something does. A note is only a claim: after some seconds in which nothing came that was right, everybody
fetches for himself.
"""

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from typing import Final

from headstart.cache import Cache, Workplace, cache_errors, write_atomically
from headstart.holdername import holder
from headstart.holders import Fate, fate
from headstart.release import FileRecord

PATIENCE: Final = 20.0
"""Seconds to wait for a neighbour in which nothing comes."""
_PAUSE: Final = 0.3
_MOST: Final = 16
"""Neighbours to look at."""
_NOTE_SECONDS: Final = 900
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK: Final = 1 << 20


class Neighbours:
    """The parts of others in a shared directory, as far as they have to do with a unit.

    Args:
        cache: ours; where it is in no shared directory there are no neighbours.
        unit: what is wanted.
    """

    def __init__(self, cache: Cache, unit: str) -> None:
        self._cache = cache
        self._note = unit.replace("/", "_")
        self._since = 0
        self._device = os.stat(cache.shared).st_dev if cache.shared else 0
        self._last = time.monotonic()

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Let the others know that we are fetching."""
        if not self._cache.shared:
            yield
            return
        folder = os.path.join(self._cache.top, "busy")
        path = os.path.join(folder, self._note)
        with cache_errors(path):
            self._cache.make(folder)
            self._since = _moment()
            write_atomically(path, f"{self._since} {holder()}".encode(errors="surrogateescape"))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def copy(self, work: Workplace, record: FileRecord, mtime: int) -> bool:
        """Have a file from one of them; False when none has it as it should be."""
        for name in self._parts():
            place = os.path.relpath(self._cache.file(record, mtime), self._cache.directory)
            try:
                source = self._open(os.path.join(name, place), record.size)
            except OSError:
                continue
            try:
                if _copied(source, work, record, mtime):
                    self._last = time.monotonic()
                    return True
            finally:
                os.close(source)
        return False

    def worth_waiting(self) -> bool:
        """Whether somebody fetches the same, came before us, and may bring something yet; after a pause."""
        if not self._cache.shared or time.monotonic() - self._last > PATIENCE:
            return False
        if not any(self._is_ahead(name) for name in self._parts()):
            return False
        time.sleep(_PAUSE)
        return True

    def _is_ahead(self, name: str) -> bool:
        try:
            descriptor = self._open(os.path.join(name, str(self._cache.fqrn), "busy", self._note), None)
        except OSError:
            return False
        with open(descriptor, "rb") as file:
            since, _, who = os.fsdecode(file.read(1000)).partition(" ")
        if not since.isdecimal():
            return False
        age = (_moment() - int(since)) / 1e9
        found = fate(who)
        earlier = (int(since), int(name)) < (self._since, self._cache.uid)
        return earlier and (found is Fate.ALIVE or (found is Fate.UNKNOWN and age < _NOTE_SECONDS))

    def _parts(self) -> list[str]:
        if not self._cache.shared:
            return []
        own = str(self._cache.uid)
        names = [name for name in os.listdir(self._cache.shared) if name.isdecimal() and name != own]
        # Root's first; an order of their own for nobody to gain by a name.
        return sorted(names, key=lambda name: (name != "0", hashlib.sha256(f"{own} {name}".encode()).digest()))[
            :_MOST
        ]

    def _open(self, path: str, size: int | None) -> int:
        """A descriptor of a regular file in a neighbour's part.

        Raises:
            OSError: it is not there, or not such a file.
        """
        *folders, name = path.split("/")
        at = os.open(self._cache.shared, _FOLDER)
        try:
            for folder in folders:
                following = os.open(folder, _FOLDER, dir_fd=at)
                os.close(at)
                at = following
                if os.fstat(at).st_dev != self._device:
                    raise OSError(f"{folder} is elsewhere")
            descriptor = os.open(name, _FILE, dir_fd=at)
        finally:
            os.close(at)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_dev != self._device or size not in (None, found.st_size):
            os.close(descriptor)
            raise OSError(f"{name} is no such file")
        return descriptor


def _moment() -> int:
    """Nanoseconds since this node was started: the same for all who are on it, whatever its clock says."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _copied(source: int, work: Workplace, record: FileRecord, mtime: int) -> bool:
    descriptor, path = work.part()
    try:
        _copy(source, descriptor, record.size)
        digest = hashlib.sha256()
        for offset in range(0, record.size, _BLOCK):
            digest.update(os.pread(descriptor, min(_BLOCK, record.size - offset), offset))
        if os.fstat(descriptor).st_size != record.size or digest.hexdigest() != record.sha256.hex:
            os.unlink(path)
            return False
        work.keep(descriptor, path, record, mtime)
    finally:
        os.close(descriptor)
    return True


def _copy(source: int, target: int, size: int) -> None:
    """Copy at most so many bytes, without their blocks where the file system can."""
    done = 0
    try:
        while done < size:
            count = os.copy_file_range(source, target, size - done)
            if not count:
                break
            done += count
    except OSError:
        # Not between these two. What cannot be written at all, fails below.
        os.lseek(target, 0, os.SEEK_SET)
        os.ftruncate(target, 0)
        done = 0
        while done < size and (block := os.pread(source, min(_BLOCK, size - done), done)):
            view = memoryview(block)
            done += len(block)
            while view:
                view = view[os.write(target, view) :]
