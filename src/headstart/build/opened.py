"""The files that a start opens, in their order, as the kernel tells it to whoever watches (inotify(7)).

A watch is on a directory and tells of each file that is opened in it, through whichever mount. It needs no
rights beyond reading, and neither slows Julia down nor changes it. Where it is not to be had, or there is more
than its queue holds, the order is shorter; it only says what is fetched first.
"""

import contextlib
import ctypes
import os
import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

_OPEN: Final = 0x20
_ONLY_DIRECTORIES: Final = 0x01000000
_IS_DIRECTORY: Final = 0x40000000
_HEAD: Final = struct.Struct("iIII")
_BLOCK: Final = 1 << 16


class Watch:
    """Watches some directories, with all below them.

    Args:
        roots: by path in the repository, such as ``julia/1.10.6-…``, where that is on the disk.
    """

    def __init__(self, roots: Mapping[str, str]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self._folders: dict[int, str] = {}
        for name, root in roots.items():
            for folder, _, _ in os.walk(root):
                self._add(folder, os.path.normpath(os.path.join(name, os.path.relpath(folder, root))))

    def _add(self, folder: str, name: str) -> None:
        if self._descriptor >= 0:
            number = self._libc.inotify_add_watch(
                self._descriptor, os.fsencode(folder), ctypes.c_uint32(_OPEN | _ONLY_DIRECTORIES)
            )
            if number >= 0:
                self._folders[number] = name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def seen(self) -> tuple[str, ...]:
        """The files that were opened since the last time, by path in the repository, each once."""
        found: dict[str, None] = {}
        with contextlib.suppress(OSError):
            while self._descriptor >= 0:
                self._read(os.read(self._descriptor, _BLOCK), found)
        return tuple(found)

    def _read(self, events: bytes, found: dict[str, None]) -> None:
        at = 0
        while at + _HEAD.size <= len(events):
            number, mask, _, length = _HEAD.unpack_from(events, at)
            at += _HEAD.size
            name = events[at : at + length].rstrip(b"\0")
            at += length
            if number in self._folders and name and not mask & _IS_DIRECTORY:
                found[f"{self._folders[number]}/{os.fsdecode(name)}"] = None
