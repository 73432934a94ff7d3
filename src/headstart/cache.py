"""The node's cache: releases laid out as in their repository, shared by all jobs of a user or a node.

Theory of operation. Below the cache's directory, for each repository::

    <fqrn>/root/julia/<name>                     units: whole whenever they exist
    <fqrn>/root/stacks/<stack>/<id>
    <fqrn>/root/stacks/<stack>/<id>/images/<target>
    <fqrn>/files/ab/<sha256>.<mode>.<mtime>      every file of every unit, once
    <fqrn>/work/<host>.<random>                  what is under way
    <fqrn>/locks/<unit>                          who fetches what; ``gate``: who changes what is used
    <fqrn>/used/<unit>                           when an image was started last, and what it needs (``usage``)
    <fqrn>/leases/<unit>@<process>               who runs on it, where other machines see the cache
    <fqrn>/placed/<unit>                         in which boot the unit was placed, and of which digest it is
    <fqrn>/seen-<key>.json                       the newest state of the repository that was ever believed

A file is written in ``work``, verified there, and renamed to its name in ``files``; a unit is assembled of hard
links in ``work`` and renamed to its place. So whatever stands under ``root`` is whole, whenever a process is
killed, and needs no lock to be used. Locks only save work: one job downloads while the others wait for it
(``headstart.locking``). Where two go on all the same, they download the same and the second rename loses.

Nothing is forced to the node's disk: a launch would wait for whatever else the node is writing. Instead the
cache remembers in which boot a unit was placed. In another one (the power may have failed in between) a unit
counts only after all its files have been hashed once more, which takes less than fetching any of them. Where
other machines see the cache, files are with their server before the unit is placed, and count on all of them.

A unit's name says what it was made from, not which bytes it has: whoever holds the repository's key can publish
other bytes under the same name. So a unit counts only for the digest that it was placed for, that of the
``release.json`` or ``julia.json`` which lists its files.

A killed process leaves at most its own directory in ``work``. Whoever comes next on the same host clears it, as
the lock on it is gone with its owner; on other hosts, whose locks may not be visible here, after a day.

A cache in which others may write is not used: what Julia loads from it would be theirs to choose. Where a node
has one directory for all, sticky as ``/tmp``, each user has a part of it of his own (``directories.own_part``),
and takes from the parts of others only what he has copied and hashed (``headstart.neighbours``).
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from headstart.directories import make_directories, others_may_write, own_part
from headstart.errors import CacheError, CorruptError
from headstart.holdername import boot_id, holder
from headstart.holders import Fate, fate
from headstart.locking import exclusive, flock_is_enough
from headstart.memory import Memory
from headstart.names import Fqrn
from headstart.ownership import check_owner, check_way
from headstart.release import FileRecord, LinkRecord

_STALE_SECONDS: Final = 86400
_LOCK: Final = ".lock"
_DURABLE: Final = "durable"
KEEPING: Final = ("locks", "placed", "used", "leases")
"""Directories of notes about what is in the cache."""


@contextlib.contextmanager
def cache_errors(place: str, done: str = "written") -> Iterator[None]:
    """Turn a failure of the file system below the cache into the one sentence that it is.

    Args:
        place: what to name where the system does not.
        done: what cannot be done to it: ``written`` or ``read``.
    """
    try:
        yield
    except OSError as error:
        hint = {
            errno.ENOSPC: "make room, or name another directory with --cache or HEADSTART_CACHE",
            errno.ENAMETOOLONG: "name a directory with a shorter path with --cache or HEADSTART_CACHE",
            errno.EDQUOT: "make room in your quota, or name another directory with --cache or HEADSTART_CACHE",
        }.get(error.errno or 0, f"name a directory that can be {done} with --cache or HEADSTART_CACHE")
        where = error.filename if isinstance(error.filename, str) else place
        raise CacheError(
            f"the cache cannot be {done}: {where} ({error.strerror or error})", hint=hint
        ) from error


def memory_is_sound(directory: str, *, uid: int) -> bool:
    """Whether a directory may be asked what this node has seen: it is there, and nobody else writes it."""
    try:
        # With a slash behind it, a file is none.
        return not others_may_write(f"{directory}/", uid=uid)
    except OSError:
        return False


def memories(cache: str, state: str, fqrn: Fqrn, *, uid: int) -> tuple["Cache", ...]:
    """Where this node remembers: in the user's cache, and for all its users where root has made a place for it.

    Args:
        cache: the user's; nothing where there is no place for one.
        state: root's, which need not be there.
        fqrn: of what.
        uid: the user.
    """
    places = [cache] if cache else []
    places += [state] if memory_is_sound(state, uid=uid) else []
    return tuple(Cache(place, fqrn, uid=uid) for place in places)


class Cache:
    """The part of a cache directory that belongs to one repository."""

    def __init__(self, directory: str, fqrn: Fqrn, *, uid: int) -> None:
        self.directory: Final = os.path.abspath(directory)
        self.fqrn: Final = fqrn
        self.top: Final = os.path.join(self.directory, str(fqrn))
        self.uid: Final = uid
        self._local: bool | None = None
        self.root: Final = os.path.join(self.top, "root")
        """What a mount of the repository would show, as far as it is here."""

    def check(self) -> None:
        """Refuse a cache that somebody else may write.

        Raises:
            CacheError: so it is.
        """
        check_way(os.path.dirname(self.directory), uid=self.uid)
        if os.path.islink(self.directory) and self.shared:
            raise CacheError(
                f"{self.directory} is a link, which anybody could have made",
                hint="have it removed, or name another directory with --cache or HEADSTART_CACHE",
            )
        for path in (self.directory, self.top, self.root):
            with contextlib.suppress(FileNotFoundError):
                check_owner(path, uid=self.uid)

    def prepare(self, now: float) -> None:
        """Make the cache's directories, and clear what killed processes left in them.

        Args:
            now: seconds since 1970.

        Raises:
            CacheError: they cannot be made, or others may write them.
        """
        with cache_errors(self.directory):
            self.make(self.directory)
            self.check()
            for name in ("root", "files", "work", *KEEPING):
                self.make(os.path.join(self.top, name))
            self.check()
            self._sweep(now)

    @property
    def for_all(self) -> bool:
        """Whether others are to read it, whatever its owner's umask: root's, or a part of a shared one."""
        return self.uid == 0 or bool(self.shared)

    def make(self, path: str) -> None:
        """Make a directory of the cache's, and those that lead to it."""
        make_directories(path, for_all=self.for_all)

    def place(self, unit: str) -> str:
        """Where a unit is, or is to be."""
        return os.path.join(self.root, unit)

    def has(self, unit: str, digest: str = "") -> bool:
        """Whether a unit is here, whole, of this digest, and written in this boot or hashed since."""
        boot, found = self._said(unit)
        # It is looked up last: only one that is not noted is absent, and is not remembered so.
        return (
            boot in (_DURABLE, boot_id() or _DURABLE) and (not digest or found == digest) and self.exists(unit)
        )

    def digest_of(self, unit: str) -> str:
        """The digest that a unit was placed for; nothing when it is not known."""
        return self._said(unit)[1]

    def _said(self, unit: str) -> tuple[str, str]:
        """In which boot a unit was placed or since when it is durable, and for which digest."""
        path = self.placed(unit)
        try:
            # A network file system remembers for up to a minute that a name was not there; its server is asked
            # for the directory each time. Who has waited for another node would not see what that one placed.
            if not self.local and os.path.basename(path) not in os.listdir(os.path.dirname(path)):
                return "", ""
            with open(path, encoding="utf-8", errors="replace") as file:
                boot, _, digest = file.read(200).rpartition(" ")
        except OSError:
            return "", ""
        return boot, digest

    def exists(self, unit: str) -> bool:
        """Whether a unit is here; it may have suffered from a power cut."""
        return os.path.isdir(self.place(unit))

    def vouch(self, unit: str, digest: str = "", *, boot: str = "") -> None:
        """Note that a unit is what this digest asks for: in this boot, or, hashed from the disk, for good."""
        write_atomically(self.placed(unit), f"{boot or _DURABLE} {digest}".encode())

    def placed(self, unit: str) -> str:
        """Where it is noted when and for which digest a unit was placed; another file after every change."""
        return os.path.join(self.top, "placed", unit.replace("/", "_"))

    def file(self, record: FileRecord, mtime: int) -> str:
        """Where a file of this content, mode and time is, or is to be."""
        name = f"{record.sha256.hex}.{record.mode:o}.{mtime}"
        return os.path.join(self.top, "files", name[:2], name)

    def has_file(self, record: FileRecord, mtime: int) -> bool:
        """Whether a file is here, of its size; its content has to be hashed before it is used."""
        try:
            return os.stat(self.file(record, mtime)).st_size == record.size
        except OSError:
            return False

    @property
    def shared(self) -> str:
        """The directory for all users in which this one is its user's part; nothing where it is none."""
        above = os.path.dirname(self.directory)
        return above if own_part(above, self.uid) == self.directory else ""

    @property
    def local(self) -> bool:
        """Whether only this machine sees the cache."""
        if self._local is None:
            self._local = flock_is_enough(self.directory)
        return self._local

    @contextlib.contextmanager
    def lock(self, unit: str) -> Iterator[None]:
        """Wait until nobody else is fetching this unit."""
        with contextlib.ExitStack() as stack:
            with cache_errors(self.top):
                path = os.path.join(self.top, "locks", unit.replace("/", "_"))
                stack.enter_context(exclusive(path, local=self.local))
            yield

    @contextlib.contextmanager
    def workplace(self) -> Iterator["Workplace"]:
        """A directory for what is under way; gone afterwards, however this ends."""
        with cache_errors(self.top):
            name = f"{os.uname().nodename}.{os.urandom(8).hex()}"
            path = os.path.join(self.top, "work", name)
            # Not while somebody looks whether files without a unit are about to get one.
            with self.lock("gate"):
                os.mkdir(path, 0o700)
                lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                with contextlib.suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX)
                os.write(lock, os.fsencode(holder()))
        try:
            yield Workplace(self, path)
        finally:
            # A network file system keeps a removed file, and so its directory, while it is open.
            os.close(lock)
            _remove(path)

    def _sweep(self, now: float) -> None:
        work = os.path.join(self.top, "work")
        for name in os.listdir(work):
            path = os.path.join(work, name)
            with contextlib.suppress(OSError):
                if not self.at_work(path, now):
                    _remove(path)

    def at_work(self, path: str, now: float) -> bool:
        """Whether a process may still be working in this part of ``work``."""
        age = now - os.stat(path).st_mtime
        try:
            lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            # Killed between making the directory and its lock, or about to make it: give it a minute.
            return age <= (
                60 if os.path.basename(path).startswith(f"{os.uname().nodename}.") else _STALE_SECONDS
            )
        try:
            found = fate(os.fsdecode(os.read(lock, 1000)))
            if self.local:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
                except OSError:
                    return found is not Fate.GONE
                return False
        finally:
            os.close(lock)
        return found is Fate.ALIVE or (found is Fate.UNKNOWN and age <= _STALE_SECONDS)

    def recall(self, anchors: Iterable[str]) -> Memory:
        """What is remembered of the repository; nothing when this is the first time.

        Args:
            anchors: ids of the master keys that are trusted: memories of one repository under another key
                are those of another repository.

        Raises:
            CacheError: the memory is damaged, which is not the same as having none.
        """
        memory = Memory()
        for anchor in anchors:
            memory = memory.merged(self._recall(self._memory(anchor)))
        return memory

    def _memory(self, anchor: str) -> str:
        return os.path.join(self.top, f"seen-{anchor[:16]}.json")

    @staticmethod
    def _recall(path: str) -> Memory:
        try:
            with open(path, "rb") as file:
                return Memory.from_bytes(file.read())
        except FileNotFoundError:
            return Memory()
        except CorruptError as error:
            hint = "delete it, and this node trusts the repository as on the first day"
            raise CacheError(f"{path} is damaged: {error.message}", hint=hint) from error
        except OSError as error:
            hint = "have it made readable, or name another place (--cache, HEADSTART_CACHE; HEADSTART_STATE)"
            raise CacheError(
                f"what was seen before cannot be read: {path} ({error.strerror})", hint=hint
            ) from error

    def remember(self, anchors: Iterable[str], memory: Memory) -> None:
        """Keep what was believed, unless something newer is kept already.

        Raises:
            CacheError: the cache cannot be written.
        """
        for anchor in anchors:
            path = self._memory(anchor)
            before = self._recall(path)
            if before.merged(memory) == before:
                continue
            with cache_errors(path):
                self.make(os.path.join(self.top, "locks"))
            with self.lock("seen"), cache_errors(path):
                write_atomically(path, self._recall(path).merged(memory).to_bytes())


class Workplace:
    """A directory of our own in which files and units come to be."""

    def __init__(self, cache: Cache, path: str) -> None:
        self._cache = cache
        self.path: Final = path

    def part(self) -> tuple[int, str]:
        """A new, empty file: its descriptor, open for reading and writing, and its path."""
        path = os.path.join(self.path, os.urandom(8).hex())
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path

    def keep(self, descriptor: int, path: str, record: FileRecord, mtime: int) -> None:
        """Give a verified file its mode, time and name in the cache."""
        os.fchmod(descriptor, record.mode)
        os.utime(descriptor, (mtime, mtime))
        if not self._cache.local:
            # NFS would do it when the file is closed.
            os.fsync(descriptor)
        place = self._cache.file(record, mtime)
        self._cache.make(os.path.dirname(place))
        os.rename(path, place)

    def assemble(
        self,
        unit: str,
        files: Mapping[str, tuple[FileRecord, int]],
        links: Mapping[str, LinkRecord],
        extra: Mapping[str, bytes],
        digest: str = "",
    ) -> None:
        """Make a unit of files that are in the cache, and put it in its place.

        Args:
            unit: its name.
            files: by path inside the unit: record and modification time.
            links: symbolic links.
            extra: small files that are not shared, such as ``release.json``.
            digest: of the record that lists them.
        """
        tree = os.path.join(self.path, "unit")
        folders = {os.path.dirname(os.path.join(tree, path)) for path in (*files, *links, *extra)}
        for path in sorted({tree, *folders}):
            self._cache.make(path)
        for path, (record, mtime) in files.items():
            _link(self._cache.file(record, mtime), os.path.join(tree, path), settle=not self._cache.local)
        for path, link in links.items():
            os.symlink(link.target, os.path.join(tree, path))
        for path, content in extra.items():
            write_atomically(os.path.join(tree, path), content, mode=0o444)
        if not self._cache.local:
            for path in (*(os.path.join(tree, path) for path in extra), *sorted(folders)):
                _settle(path)
        # Another node, with a boot of its own, need not hash what does not depend on ours.
        self._cache.vouch(unit, digest, boot=boot_id() if self._cache.local else "")
        place = self._cache.place(unit)
        self._cache.make(os.path.dirname(place))
        try:
            os.rename(tree, place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            _remove(tree)

    def discard(self, unit: str) -> None:
        """Take a damaged unit out of its place."""
        gone = os.path.join(self.path, os.urandom(8).hex())
        os.rename(self._cache.place(unit), gone)
        _remove(gone)


def write_atomically(path: str, content: bytes, mode: int = 0o644) -> None:
    """Replace a file as a whole: whoever reads it sees the old bytes or the new ones."""
    temporary = f"{path}.{os.urandom(4).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _link(source: str, place: str, *, settle: bool) -> None:
    try:
        os.link(source, place)
    except OSError as error:
        # File systems without hard links, or with few: a copy is as good.
        if error.errno not in (errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EXDEV):
            raise
        shutil.copy2(source, place)
        if settle:
            _settle(place)


def _settle(path: str) -> None:
    """Have a file, or a directory's names, where they outlive this machine."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems have nothing to do for a directory, and say so.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
