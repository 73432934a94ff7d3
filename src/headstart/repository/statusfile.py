"""``.cvmfs_status.json``: when something was last done to a repository, for monitoring (format section 15).

The real tools write it after a collection (``last_gc``), a check and a snapshot, as a flat table of texts whose
times are what ``date --utc`` prints. Clients do not read it.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from headstart.errors import CorruptError, MissingError
from headstart.store import Store, Transaction

STATUS_FILE: Final = ".cvmfs_status.json"
_LIMIT: Final = 1 << 16
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def note(store: Store, into: Transaction, news: Mapping[str, str]) -> None:
    """Put texts into the status file; what else it says stays, unless it is damaged.

    Raises:
        StorageError: it cannot be read or written.
    """
    try:
        said = json.loads(store.read(STATUS_FILE, limit=_LIMIT))
    except (MissingError, CorruptError, ValueError, RecursionError):
        said = {}
    table = said if isinstance(said, dict) else {}
    into.replace(STATUS_FILE, json.dumps({**table, **news}, indent=2).encode() + b"\n")


def date_text(now: datetime) -> str:
    """What ``date --utc`` prints where no language is set: ``Thu Nov 26 10:16:49 UTC 2026``."""
    day, month = _DAYS[now.weekday()], _MONTHS[now.month - 1]
    return f"{day} {month} {now.day:2} {now:%H:%M:%S} UTC {now.year}"
