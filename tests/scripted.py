"""A server that is a list of what it says."""

import errno
import os
from typing import Final

_SILENT: Final = os.pipe()


class Script:
    """A socket that says what it was told to, in these pieces, when it is asked, and keeps what it hears."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.heard: list[bytes] = []
        self.closed = False

    def fileno(self) -> int:
        return _SILENT[0]

    def recv_into(self, buffer: memoryview) -> int:
        if self.closed:
            raise OSError(errno.EBADF, "closed")
        if not self.pieces:
            return 0
        piece = self.pieces.pop(0)
        count = min(len(piece), len(buffer))
        buffer[:count] = piece[:count]
        if piece[count:]:
            self.pieces.insert(0, piece[count:])
        return count

    def sendall(self, request: bytes) -> None:
        if self.closed:
            raise BrokenPipeError("closed")
        self.heard.append(request)

    def setsockopt(self, *_: object) -> None:
        pass

    def close(self) -> None:
        self.closed = True
