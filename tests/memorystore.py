"""A storage in memory, with the promises of ``tests/contracts/test_stores.py``."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from headstart.cvmfs.objects import ObjectName
from headstart.errors import CorruptError, LockedError, MissingError, StorageError
from headstart.store import Listed, check_mutable


class MemoryStore:
    """A storage that is gone with the test."""

    name = "memory"

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files: dict[str, bytes] = {} if files is None else files
        self._writer = threading.Lock()

    def read(self, path: str, *, limit: int) -> bytes:
        if path not in self.files:
            raise MissingError(f"{path} is missing")
        if len(self.files[path]) > limit:
            raise CorruptError(f"{path} has more than the {limit} bytes it should")
        return self.files[path]

    def has(self, path: str) -> bool:
        return path in self.files

    def listing(self, prefix: str) -> Iterator[Listed]:
        for path in list(self.files):
            if path.startswith(prefix):
                yield Listed(path, len(self.files[path]), 0)

    @contextmanager
    def transaction(self) -> Iterator["MemoryTransaction"]:
        if not self._writer.acquire(blocking=False):
            raise LockedError("somebody else is publishing")
        try:
            yield MemoryTransaction(self.files)
        finally:
            self._writer.release()


class MemoryTransaction:
    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files
        self._staged: dict[str, bytes] = {}

    def put(self, name: ObjectName, stored: bytes) -> bool:
        new = name.path not in self._files and name.path not in self._staged
        self._staged.setdefault(name.path, stored)
        return new

    def settle(self) -> None:
        for path, stored in self._staged.items():
            self._files.setdefault(path, stored)
        self._staged.clear()

    def replace(self, path: str, content: bytes) -> None:
        self._files[path] = content

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            if not path.startswith("data/") or ".." in path.split("/"):
                raise StorageError(f"{path} is no object")
            self._files.pop(path, None)

    def remove(self, path: str) -> None:
        self._files.pop(check_mutable(path), None)
