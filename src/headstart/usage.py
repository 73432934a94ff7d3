"""What is in a cache, who runs on it, and how it is taken out: never what somebody runs on, and whole or not.

Theory of operation. What is started is an image; it needs its release and its Julia. So each image has a file
in ``used/`` that names the three units, and whose time is that of its last start. It is made before anything is
fetched, so whatever is in ``root`` is named by one. A lease is on the image (``headstart.leases``). What is
taken out is the image that nobody holds and that was started longest ago, then its release if no image of it is
left, then its Julia if no release names it.

All that makes or removes names in ``used/`` and ``work/`` does so behind the gate, one lock of the cache's; a
start that repeats an earlier one does not come to the gate. It takes its lease first and looks afterwards
whether everything is there. So either it has the lease before the image is being taken out, which then stops;
or what it looks for is gone, and it takes the long way. With locks that is one atomic step: whoever takes out
must have the lock alone. With files that name processes, ``used/<image>`` is moved away before leases are
looked for, and a start opens it after it has written its lease: one of the two sees the other. A lease of
another machine counts until that machine says that its process is gone, or for two weeks.

To take a unit out, its note in ``placed/`` goes first, and then it is moved into ``work/`` by one rename. A
crash in between leaves a unit without its note, which the next start fetches anew.

Files in ``files/`` that no unit has any more go when nobody is at work, because somebody who is may be about to
make a unit of them.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from headstart.cache import KEEPING, Cache, cache_errors, write_atomically
from headstart.errors import CacheError, ConfigurationError
from headstart.holdername import holder
from headstart.holders import Fate, fate
from headstart.leases import ALONE, SHARED, hold, locked_by_others, note
from headstart.names import Fqrn

_NOT_OURS: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_LEASE_SECONDS: Final = 14 * 86400
_UNNAMED_SECONDS: Final = 86400
_OUT: Final = ".out"
_AWAY: Final = "x"

Blocks = Mapping[int, int]
"""Bytes on the disk by inode: what two places share counts once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """An image that was started, or that somebody was about to start."""

    key: str
    """Its name in ``used/``."""
    needs: tuple[str, ...]
    """Units, the image first and the one that most others need last."""
    last: float
    """When it was started last, in seconds since 1970."""
    leased: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is in a cache of one repository."""

    fqrn: Fqrn
    units: Mapping[str, Blocks]
    uses: tuple[Use, ...]
    store: Mapping[str, tuple[int, int]]
    """``files/``: inode and bytes, by path."""
    at_work: bool
    """Whether somebody is fetching something."""
    unnamed: frozenset[str]
    """Units that no use names, and that are not new."""


class Usage:
    """Who uses what in a cache.

    Args:
        cache: checked.
        now: seconds since 1970.
    """

    def __init__(self, cache: Cache, now: float) -> None:
        self._cache = cache
        self._now = now

    def begin(self, needs: tuple[str, ...]) -> tuple[str, ...]:
        """Take the lease on an image, for this process and what it becomes, before it is looked for.

        Args:
            needs: the image's unit and those that it needs.

        Returns:
            How to take it again (``leases.take``); nothing where the cache is one that this user only reads,
            and which does not let him.
        """
        key = needs[0].replace("/", "_")
        used = self._path("used", key)
        with contextlib.suppress(OSError, CacheError):
            for name in KEEPING:
                self._cache.make(self._path(name))
            # Now that there is something: in a directory for all, somebody may have been faster.
            self._cache.check()
            with self.gate():
                self._announce(used, needs)
                if self._by_lock() and hold(used, self._now) is not None:
                    return (used,)
                sweep(self._path("leases"), self._now)
                lease = self._path("leases", key)
                if note(used, lease, holder, self._now) is not None:
                    return used, lease
        return (used,) if hold(used, self._now) is not None else ()

    @contextlib.contextmanager
    def gate(self) -> Iterator[None]:
        """Be the only one who changes what there is in ``used`` and ``work``."""
        with self._cache.lock("gate"):
            yield

    def _by_lock(self) -> bool:
        """Whether locks are kept here; the file system is asked, which may say otherwise than its type."""
        if not self._cache.local:
            return False
        descriptor = os.open(self._path("locks", "probe"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, SHARED)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _announce(self, used: str, needs: tuple[str, ...]) -> None:
        known = _lines(used)
        lacking = [unit for unit in needs if unit not in known]
        if not known:
            # Root's cache is for all to start from, and so to hold leases in. Nobody else's is.
            mode = 0o644 if self._cache.uid == 0 else 0o600
            write_atomically(used, "".join(f"{unit}\n" for unit in needs).encode(), mode=mode)
        elif lacking:
            with open(used, "ab") as file:
                file.write("".join(f"{unit}\n" for unit in lacking).encode())

    def survey(self) -> Survey:
        """Look at everything; behind the gate, where this user can change anything."""
        with cache_errors(self._cache.top, "read"):
            uses = tuple(sorted(self._uses(), key=lambda use: (use.last, use.key)))
            units = {unit: _blocks(self._cache.place(unit), self._inner(unit)) for unit in self._units()}
            named = {unit for use in uses for unit in use.needs}
            unnamed = frozenset(unit for unit in units if unit not in named and self._is_old(unit))
            work = self._path("work")
            at_work = any(self._at_work(os.path.join(work, name)) for name in _names(work))
            return Survey(
                fqrn=self._cache.fqrn,
                units=units,
                uses=uses,
                store=self._store(),
                at_work=at_work,
                unnamed=unnamed,
            )

    def take_out(self, use: Use, units: tuple[str, ...]) -> bool:
        """Take units out that only this image needs, and its name; behind the gate.

        Returns:
            False when somebody has begun to run on it.
        """
        with cache_errors(self._cache.top), self._alone(use.key) as alone:
            if alone:
                for unit in units:
                    self.remove(unit)
                for name in (use.key, use.key + _OUT):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self._path("used", name))
            return alone

    def remove(self, unit: str) -> None:
        """Take a unit out that nobody needs; behind the gate."""
        with cache_errors(self._cache.top):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._cache.placed(unit))
            # Without the gate, which we have: this place is not for files that become units.
            away = self._path("work", f"{os.uname().nodename}.{os.urandom(8).hex()}")
            os.mkdir(away, 0o700)
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._cache.place(unit), os.path.join(away, _AWAY))
            shutil.rmtree(away, ignore_errors=True)

    def remove_files(self, paths: tuple[str, ...]) -> None:
        """Remove files of ``files/`` that no unit has; behind the gate, and when nobody is at work."""
        with cache_errors(self._cache.top):
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    @contextlib.contextmanager
    def _alone(self, key: str) -> Iterator[bool]:
        """Whether nobody holds a lease on an image, and nobody will until this ends."""
        used = self._path("used", key)
        with contextlib.ExitStack() as stack:
            if os.path.lexists(used):
                if self._locked(used, stack):
                    yield False
                    return
                os.rename(used, used + _OUT)
            if not self._noted(key):
                yield True
            else:
                os.rename(used + _OUT, used)
                yield False

    def _locked(self, used: str, stack: contextlib.ExitStack) -> bool:
        """Whether others have a lock on it; if not we have, until the stack is left."""
        if not self._cache.local:
            return False
        try:
            descriptor = os.open(used, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
            return locked_by_others(used)
        stack.callback(os.close, descriptor)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, ALONE)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            # No locks here: then no start has one either.
            return False
        return False

    def _noted(self, key: str) -> bool:
        """Whether a process that is named in ``leases`` may still run."""
        folder = self._path("leases")
        if not self._cache.local and os.access(folder, os.W_OK):
            # What others have put there must be seen: our own change makes the client ask its server again.
            probe = os.path.join(folder, f".{os.urandom(8).hex()}")
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.unlink(probe)
        named = [name for name in _names(folder) if name.partition("@")[0] == key]
        lasting = [name for name in named if _lasts(folder, name, self._now)]
        return bool(lasting)

    def _uses(self) -> Iterator[Use]:
        folder = self._path("used")
        for key in sorted({name.removesuffix(_OUT) for name in _names(folder)}):
            for name in (key, key + _OUT):
                path = os.path.join(folder, name)
                needs = _lines(path)
                if needs:
                    with contextlib.suppress(FileNotFoundError):
                        last = os.stat(path).st_mtime
                        yield Use(key=key, needs=needs, last=last, leased=self.is_leased(key))
                        break

    def is_leased(self, key: str) -> bool:
        """Whether somebody runs on an image, at this moment; behind the gate."""
        with contextlib.ExitStack() as stack:
            used = self._path("used", key)
            return (os.path.lexists(used) and self._locked(used, stack)) or self._noted(key)

    def _units(self) -> Iterator[str]:
        root = self._cache.root
        for name in _names(os.path.join(root, "julia")):
            yield f"julia/{name}"
        for stack in _names(os.path.join(root, "stacks")):
            for release in _names(os.path.join(root, "stacks", stack)):
                home = f"stacks/{stack}/{release}"
                yield home
                for target in _names(os.path.join(root, home, "images")):
                    yield f"{home}/images/{target}"

    @staticmethod
    def _inner(unit: str) -> str:
        """What below a unit is units of their own."""
        return "images" if unit.startswith("stacks/") and unit.count("/") == 2 else ""

    def _is_old(self, unit: str) -> bool:
        try:
            return self._now - os.stat(self._cache.placed(unit)).st_mtime > _UNNAMED_SECONDS
        except FileNotFoundError:
            return True

    def _at_work(self, path: str) -> bool:
        try:
            return self._cache.at_work(path, self._now)
        except OSError:
            return False

    def _store(self) -> dict[str, tuple[int, int]]:
        found = {}
        for folder in _names(self._path("files")):
            with contextlib.suppress(OSError), os.scandir(self._path("files", folder)) as entries:
                for entry in entries:
                    seen = entry.stat(follow_symlinks=False)
                    found[entry.path] = (seen.st_ino, seen.st_blocks * 512)
        return found

    def _path(self, *parts: str) -> str:
        return os.path.join(self._cache.top, *parts)


def repositories(directory: str) -> tuple[Fqrn, ...]:
    """The repositories of which a cache has something, sorted by name."""
    found = []
    for name in _names(directory):
        # Beside them are the notes of recent launches.
        with contextlib.suppress(ConfigurationError):
            fqrn = Fqrn(name)
            if os.path.isdir(os.path.join(directory, name, "root")):
                found.append(fqrn)
    return tuple(found)


def sweep(leases: str, now: float) -> None:
    """Remove the leases of processes that are gone from here, which nobody else need do.

    Args:
        leases: the directory of them, where they are files that name processes.
        now: seconds since 1970.
    """
    for name in _names(leases):
        _lasts(leases, name, now)


def _lasts(leases: str, name: str, now: float) -> bool:
    """Whether a lease may still be one; if not it is removed."""
    path = os.path.join(leases, name)
    found = fate(name.partition("@")[2])
    with contextlib.suppress(FileNotFoundError):
        age = now - os.stat(path).st_mtime
        if found is Fate.ALIVE or (found is Fate.UNKNOWN and age <= _LEASE_SECONDS):
            return True
        try:
            os.unlink(path)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
    return False


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _lines(path: str) -> tuple[str, ...]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return tuple(dict.fromkeys(line for line in file.read().splitlines() if line))
    except (FileNotFoundError, IsADirectoryError):
        # A directory in their place is none of ours.
        return ()


def _blocks(path: str, without: str) -> dict[int, int]:
    found: dict[int, int] = {}
    waiting = [path]
    while waiting:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(seen.st_mode):
                    if entry.path != os.path.join(path, without):
                        waiting.append(entry.path)
                else:
                    found[seen.st_ino] = seen.st_blocks * 512
    return found
