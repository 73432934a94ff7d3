"""The program of a process that makes objects of small files for another one, see ``workshop``."""

import contextlib
import gc
import os
from multiprocessing.connection import Connection
from typing import NamedTuple

from headstart.cvmfs.objects import Algorithm, Kind, object_path
from headstart.deflating import Compressor, stored
from headstart.errors import Error, StorageError
from headstart.objectfiles import Shelf
from headstart.smallfiles import Attributes, Order, content_of

Made = tuple[bytes, int, str, str, Attributes]
"""An object: digest, bytes as stored, path from the storage's root, and the name of its staged file, which is
empty where the object was there already; and the attributes of the file."""


class Setting(NamedTuple):
    """What such a process does."""

    algorithm: Algorithm
    compress: Compressor
    name: str
    """How people call the storage."""
    root: int
    """Descriptor of its directory, and"""
    staging: int
    """of the writer's staging directory."""


class Bench:
    """Where small files become objects."""

    def __init__(self, setting: Setting, shelf: Shelf) -> None:
        self._setting = setting
        self._shelf = shelf
        self._suffix = setting.algorithm.tag + Kind.FILE.value
        self._era = 0

    def work(self, era: int, orders: list[Order]) -> list[Made]:
        """Make a batch.

        Args:
            era: grows when what was staged before has been brought to its places.
            orders: the files.

        Raises:
            Error: one of them cannot be read or written, or is not what it should be.
        """
        if era != self._era:
            self._era = era
            self._shelf.forget()
        return [self._make(order) for order in orders]

    def _make(self, order: Order) -> Made:
        content, attributes = content_of(order)
        encoded = self._setting.compress(content) if order[4] else stored(content)
        digest = self._setting.algorithm.raw_digest(encoded)
        path = object_path(digest, self._suffix)
        return digest, len(encoded), path, self._shelf.put(path, encoded), attributes


def main(descriptor: int) -> None:
    """Answer batch after batch through an open socket, until nobody asks any more."""
    gc.disable()  # nothing here has cycles, and it would look for them at every few batches
    with contextlib.suppress(EOFError, ConnectionError), Connection(descriptor) as line:
        setting: Setting = line.recv()
        # Names that nobody else takes, not even one who comes after a writer that was killed.
        shelf = Shelf(setting.root, setting.staging, setting.name, f"{os.urandom(8).hex()}-")
        bench = Bench(setting, shelf)
        line.send("ready")
        while True:
            era, orders = line.recv()
            try:
                answer: list[Made] | Error = bench.work(era, orders)
            except Error as error:
                answer = error
            except (MemoryError, OSError) as error:
                answer = StorageError(f"a process that makes objects failed: {error!r}")
            line.send(answer)
