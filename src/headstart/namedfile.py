"""Small files that somebody named, read no further than they may be long. Standard library only."""

from headstart.errors import Error
from headstart.wording import counted


def read_named(path: str, *, what: str, limit: int, error: type[Error]) -> bytes:
    """All of a small file.

    Args:
        path: where it is.
        what: what it is, for sentences: ``key file``.
        limit: bytes that it may have.
        error: raised, with one sentence, if it is not there, cannot be read, or has more.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError) as absent:
        raise error(f"there is no {what} {path}") from absent
    except OSError as fault:
        raise error(f"cannot read the {what} {path}: {fault.strerror}") from fault
    if len(data) > limit:
        raise error(f"the {what} {path} has more than the {counted(limit, 'byte')} it may have")
    return data
