"""A repository's storage, written so that a crash at any moment leaves the old state good.

Theory of operation. Everything but a handful of files at the top is content addressed and never changes, so
new objects can lie beside old ones unseen until the manifest names them. A transaction writes objects to
``data/txn/headstart``, makes them durable with one ``syncfs``, renames them to their places and makes that
durable too; only then are the mutable files replaced, one rename each, the manifest last by the caller's order.
They are written beside their places, because ``data`` may be a link to, or a mount of, another file system.
An object at its place is therefore always whole. Killed on the way, a transaction leaves staged files, which
the next one sweeps away, and perhaps objects that nothing names yet, which harm nobody and are found by name.

One writer at a time: a lock on a file in ``data/txn``, which the kernel drops with the process.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from itertools import islice
from threading import Lock
from typing import Final, NamedTuple, Protocol

from headstart.cvmfs.objects import ObjectName
from headstart.errors import CorruptError, LockedError, MissingError, StorageError
from headstart.objectfiles import unwritable, write_file
from headstart.parallel import in_parallel

_STAGING: Final = "data/txn/headstart"
_LOCK: Final = "data/txn/headstart.lock"
_DIRECTORIES: Final = ("data", *(f"data/{number:02x}" for number in range(256)), "data/txn")
_NEW: Final = ".headstart-new"
"""A mutable file before it gets its name."""
BEFORE_THE_MANIFEST: Final = {"data", ".cvmfswhitelist", ".cvmfs_master_replica", ".cvmfsreflog", _NEW}
"""What a repository may have before its first manifest makes it one."""
_QUESTIONS: Final = 16
"""Asked at the same time."""
_DIRECTORY_MODE: Final = 0o755


class Transaction(Protocol):
    """What a publication does to a storage; only one is open at a time."""

    def put(self, name: ObjectName, stored: bytes) -> bool:
        """Stage an object, which readers may see before it is settled; may be called from several threads.

        Returns:
            Whether it is new; an object that is there already is left alone.
        """

    def settle(self) -> None:
        """Bring all staged objects to their places; after this they outlive a power cut."""

    def replace(self, path: str, content: bytes) -> None:
        """Replace a mutable file by another, durably and at once; call ``settle`` before."""

    def delete(self, paths: Iterable[str]) -> None:
        """Delete files below ``data``, in this order or in batches of it; one that is gone already is no error.

        The caller sees to it that nothing names them any more, durably.

        Raises:
            StorageError: one cannot be deleted, or does not lie below ``data``; those before it are gone.
        """

    def remove(self, path: str) -> None:
        """Remove a mutable file; one that is not there is no error.

        Raises:
            StorageError: it cannot be removed, or is no mutable file.
        """


class Listed(NamedTuple):
    """A file as a listing shows it."""

    path: str
    """From the repository's root."""
    size: int
    """Bytes."""
    modified: int
    """Seconds since 1970."""


class Store(Protocol):
    """A repository's storage."""

    @property
    def name(self) -> str:
        """How people call it."""

    def read(self, path: str, *, limit: int) -> bytes:
        """Read a file of at most ``limit`` bytes, by its path from the repository's root.

        Raises:
            MissingError: there is none.
            CorruptError: it is larger.
        """

    def has(self, path: str) -> bool:
        """Whether there is such a file."""

    def listing(self, prefix: str) -> Iterator[Listed]:
        """All files whose path starts with a prefix that ends with ``/``, in no order.

        Asked for page by page, so a caller that stops early does not wait for all. A file that comes or goes
        meanwhile may be in it or not; none where there is nothing of that prefix.

        Raises:
            StorageError: it cannot be read.
        """

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Become the writer; what was not settled by the end may be dropped.

        Raises:
            LockedError: somebody else is.
            StorageError: it cannot be written.
        """


class NewStorage(Store, Protocol):
    """A storage that a repository can be made in."""

    def is_empty(self) -> bool:
        """Whether there is nothing yet but what an interrupted creation left."""

    def strangers(self) -> list[str]:
        """What lies in it that no repository has, by name."""

    def prepare(self) -> None:
        """Make whatever a repository needs to be there first, unless it is.

        Raises:
            StorageError: that cannot be made.
        """


def present_files(store: Store, paths: Iterable[str]) -> set[str]:
    """Those of some files that are there; a storage that is far away is asked for many at a time."""
    asked = sorted(set(paths))
    if isinstance(store, DirectoryStore):
        return set(filter(store.has, asked))
    found: list[str] = []

    def ask(path: str) -> None:
        if store.has(path):
            found.append(path)

    in_parallel(asked, ask, workers=_QUESTIONS)
    return set(found)


class DirectoryStore:
    """A storage in a directory of a local or a network file system."""

    def __init__(self, root: str) -> None:
        self.root: Final = os.path.abspath(root)

    @property
    def name(self) -> str:
        """The directory."""
        return self.root

    def _at(self, path: str) -> str:
        return os.path.join(self.root, path)

    def read(self, path: str, *, limit: int) -> bytes:
        """See ``Store.read``."""
        try:
            with open(self._at(path), "rb") as file:
                # As much as is asked for is set aside at once, which a generous limit may not find room for.
                content = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingError(f"{self._at(path)} is missing") from error
        except OSError as error:
            raise StorageError(f"cannot read {self._at(path)}: {error.strerror}") from error
        if len(content) > limit:
            raise CorruptError(f"{self._at(path)} has more than the {limit} bytes it should")
        return content

    def has(self, path: str) -> bool:
        """See ``Store.has``."""
        return os.path.isfile(self._at(path))

    def listing(self, prefix: str) -> Iterator[Listed]:
        """See ``Store.listing``."""
        waiting = [prefix.rstrip("/")]
        while waiting:
            directory = waiting.pop()
            try:
                with _opened(self._at(directory)) as opened, os.scandir(opened) as entries:
                    for entry in entries:
                        path = f"{directory}/{entry.name}"
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(path)
                            continue
                        try:
                            found = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue
                        yield Listed(path, found.st_size, int(found.st_mtime))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise StorageError(f"cannot read {self._at(directory)}: {error.strerror}") from error

    def lacking(self) -> list[str]:
        """The directories that the real tools want and this storage does not have (format section 1)."""
        return [name for name in _DIRECTORIES if not os.path.isdir(self._at(name))]

    def is_empty(self) -> bool:
        """Whether there is nothing yet but what an interrupted creation left."""
        try:
            return set(os.listdir(self.root)) <= BEFORE_THE_MANIFEST
        except FileNotFoundError:
            return True
        except OSError as error:
            raise StorageError(
                f"cannot read {self.root}: {error.strerror}", hint="name a directory for the repository"
            ) from error

    def strangers(self) -> list[str]:
        """What lies in it that no repository has, by name; none where there is no directory yet."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(
                f"cannot read {self.root}: {error.strerror}", hint="name a directory for the repository"
            ) from error
        return [name for name in names if name not in ("data", _NEW) and not name.startswith(".cvmfs")]

    def prepare(self) -> None:
        """Make the directories that the real tools want to find (format section 1).

        Raises:
            StorageError: they cannot be made.
        """
        with _translated(self.root):
            if not os.path.isdir(self.root):
                os.makedirs(os.path.dirname(self.root), exist_ok=True)
                _make_directory(self.root)
            for name in _DIRECTORIES:
                _make_directory(self._at(name))

    @contextlib.contextmanager
    def transaction(self) -> Iterator["DirectoryTransaction"]:
        """See ``Store.transaction``."""
        with contextlib.ExitStack() as stack:
            with _translated(self.root):
                if not os.path.isdir(self._at("data")):
                    raise StorageError(
                        f"{self.root} is no repository", hint="make one first: headstart repo create"
                    )
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self._at("data/txn"))
                # Never unlinked: another writer may hold the very file that would be replaced.
                lock = os.open(self._at(_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, lock)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise LockedError(
                        f"somebody else is publishing to {self.root}", hint="try again when it is done"
                    ) from error
                stack.callback(shutil.rmtree, self._at(_STAGING), ignore_errors=True)
                shutil.rmtree(self._at(_STAGING), ignore_errors=True)
                # A killed writer's processes may end a moment after it, and put something there meanwhile.
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self._at(_STAGING))
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._at(_NEW))
                places = Places(
                    *(stack.enter_context(_opened(path)) for path in (self.root, self._at(_STAGING)))
                )
            yield DirectoryTransaction(self.root, places)


class Places(NamedTuple):
    """Descriptors of a storage's directories, open since before the first write."""

    root: int
    staging: int

    def disks(self) -> tuple[int, ...]:
        """One descriptor for each file system."""
        return tuple({os.fstat(descriptor).st_dev: descriptor for descriptor in self}.values())


class DirectoryTransaction:
    """The writer of a ``DirectoryStore``.

    Args:
        root: the storage.
        places: its directories.
    """

    def __init__(self, root: str, places: Places) -> None:
        self.root: Final = root
        self.places: Final = places
        self._lock = Lock()
        self._staged: dict[str, str] = {}
        """Names of staged files by the paths of their objects."""
        self._durable: dict[str, str] = {}
        """Those that only wait to be brought to their places."""
        self._moved = False
        """Whether some have been."""
        self._count = 0
        self._failed = False
        self._readable = False
        """Whether new files in the staging directory have been seen to get the right mode by themselves."""

    def put(self, name: ObjectName, stored: bytes) -> bool:
        """See ``Transaction.put``."""
        path = name.path
        with self._lock:
            if path in self._staged or path in self._durable:
                return False
            # Not ``os.path.exists``: nearly all are new, and each would raise an error inside.
            if os.access(path, os.F_OK, dir_fd=self.places.root):
                return False
            place = str(self._count)
            self._count += 1
            self._staged[path] = place
        try:
            self._readable = write_file(place, stored, directory=self.places.staging, readable=self._readable)
        except OSError as error:
            self._failed = True
            raise unwritable(f"{self.root}/{_STAGING}/{place}", error) from error
        return True

    def adopt(self, path: str, place: str) -> bool:
        """Take over an object that another process has staged (``Shelf``).

        Args:
            path: of the object, from the storage's root.
            place: the name of the staged file.

        Returns:
            Whether it is new; another's may have come first, and this one is swept away in the end.
        """
        with self._lock:
            if path in self._durable or self._staged.setdefault(path, place) is not place:
                return False
            # Another's may have been brought to its place since this one was begun.
            if self._moved and os.access(path, os.F_OK, dir_fd=self.places.root):
                del self._staged[path]
                return False
        return True

    def settle(self) -> None:
        """See ``Transaction.settle``."""
        self.settle_on()
        self.begin_settling()
        self.settle_on()

    def begin_settling(self) -> None:
        """Make durable what is staged, nothing of which is still being written; ``settle_on`` does the rest."""
        if self._failed:
            # Another thread's object is missing, so nothing that names it may become visible.
            raise StorageError(f"an object could not be written to {self.root}")
        with _translated(self.root):
            _sync(self.places.disks())
        with self._lock:
            self._durable, self._staged = self._durable | self._staged, {}

    def settle_on(self, most: int | None = None) -> bool:
        """Bring durable objects to their places, at most so many: who does other things besides goes on soon.

        Returns:
            Whether it was the last of them, so that they outlive a power cut there.
        """
        if not self._durable:
            return False
        root, staging = self.places
        self._moved = True
        with _translated(self.root):
            for path in list(islice(self._durable, most)):
                place = self._durable[path]
                try:
                    os.rename(place, path, src_dir_fd=staging, dst_dir_fd=root)
                except FileNotFoundError:
                    _make_directory(os.path.join(self.root, os.path.dirname(path)))
                    os.rename(place, path, src_dir_fd=staging, dst_dir_fd=root)
                del self._durable[path]
            if not self._durable:
                _sync(self.places.disks())
        return not self._durable

    def replace(self, path: str, content: bytes) -> None:
        """See ``Transaction.replace``."""
        target = os.path.join(self.root, path)
        with _translated(target):
            place = os.path.join(os.path.dirname(target), _NEW)
            write_file(place, content, durable=True)
            os.rename(place, target)
            with _opened(os.path.dirname(target)) as directory:
                os.fsync(directory)

    def delete(self, paths: Iterable[str]) -> None:
        """See ``Transaction.delete``."""
        for path in paths:
            target = os.path.join(self.root, check_object(path))
            with _translated(target), contextlib.suppress(FileNotFoundError):
                os.unlink(target)

    def remove(self, path: str) -> None:
        """See ``Transaction.remove``."""
        target = os.path.join(self.root, check_mutable(path))
        with _translated(target), contextlib.suppress(FileNotFoundError):
            os.unlink(target)


def check_object(path: str) -> str:
    """Refuse to delete what is no object of a repository.

    Raises:
        StorageError: it is none.
    """
    if not path.startswith("data/") or ".." in path.split("/"):
        raise StorageError(f"{path} is no object, and nothing else is ever deleted")
    return path


def check_mutable(path: str) -> str:
    """Refuse to remove what is no mutable file of a repository.

    Raises:
        StorageError: it is none.
    """
    if not path.startswith(".cvmfs") or "/" in path:
        raise StorageError(f"{path} is no mutable file of a repository, and nothing else is ever removed")
    return path


@contextlib.contextmanager
def _opened(directory: str) -> Iterator[int]:
    """A descriptor of a directory: below it names are found faster than by their whole paths."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _make_directory(path: str) -> None:
    """Make a directory, or open one that is there, so that web servers can read it whatever the umask."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    mode = os.stat(path).st_mode
    if mode & _DIRECTORY_MODE != _DIRECTORY_MODE:
        os.chmod(path, mode | _DIRECTORY_MODE)


def _sync(disks: tuple[int, ...]) -> None:
    """Make everything on some file systems durable: one barrier instead of thousands.

    Also what an earlier writer, killed before its own barrier, left at its place.
    """
    ctypes = import_module("ctypes")  # slow, and of no use where nothing is new
    libc = ctypes.CDLL(None, use_errno=True)
    for descriptor in disks:
        if libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error
