"""Processes named in files, so that others can tell later whether they are still there.

A process id alone says little: it is used again, another machine or container has the same one, and after a
reboot all begin anew. So a holder is named by host, boot, pid namespace, pid and the moment at which it was
started; all of these outlive an exec. From the same boot and namespace its end is seen exactly. From elsewhere
nobody can tell, and only age decides: ``Fate.UNKNOWN``.
"""

import os
from enum import Enum
from typing import Final

from headstart.holdername import UNTOLD, here, started

_FIELDS: Final = 5


class Fate(Enum):
    """What became of a holder."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


def fate(named: str) -> Fate:
    """What became of a holder, as far as it can be told from here."""
    parts = named.strip().split(",")
    if len(parts) != _FIELDS or tuple(parts[:3]) != here() or not parts[1]:
        return Fate.UNKNOWN
    pid, start = parts[3:]
    now = started(pid) if pid.isdecimal() else ""
    if now:
        return Fate.ALIVE if start in (now, UNTOLD) else Fate.GONE
    return Fate.GONE if not pid.isdecimal() or _is_gone(int(pid)) else Fate.UNKNOWN


def _is_gone(pid: int) -> bool:
    """Whether there is no such process; other users' may be hidden from ``/proc`` (hidepid)."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    # It is there, so /proc has hidden it, or it is a zombie.
    try:
        with open(f"/proc/{pid}/stat", "rb"):
            return True
    except OSError:
        return False
