"""Files that commands write for others to read: whole, or not at all."""

import contextlib
import os

from headstart.errors import StorageError


def write_whole(path: str, content: bytes) -> None:
    """Replace a file at once; where that fails, nothing is left behind.

    Raises:
        StorageError: it cannot be written.
    """
    part = f"{path}.{os.getpid()}"
    try:
        try:
            with open(part, "wb") as stream:
                stream.write(content)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
