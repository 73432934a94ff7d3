"""Processes named in files, so that others can tell later whether they are still there.

A process id alone says little: it is used again, another machine or container has the same one, and after a
reboot all begin anew. So a holder is named by host, boot, pid namespace, pid and the moment at which it was
started; all of these outlive an exec. From the same boot and namespace its end is seen exactly. From elsewhere
nobody can tell, and only age decides: ``Fate.UNKNOWN``.
"""

import os
from enum import Enum
from typing import Final

BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_FIELDS: Final = 5
_GONE_STATES: Final = ("Z", "X")
_UNTOLD: Final = "-"


class Fate(Enum):
    """What became of a holder."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


def boot_id() -> str:
    """What is another one after every start of this machine; nothing where the system does not say."""
    try:
        with open(BOOT_ID) as file:
            return file.read(100).strip()
    except OSError:
        return ""


def holder() -> str:
    """This process, and whatever it becomes; fit for a file's name."""
    return ",".join((*_here(), str(os.getpid()), _started("self") or _UNTOLD))


def fate(named: str) -> Fate:
    """What became of a holder, as far as it can be told from here."""
    parts = named.strip().split(",")
    if len(parts) != _FIELDS or tuple(parts[:3]) != _here() or not parts[1]:
        return Fate.UNKNOWN
    pid, start = parts[3:]
    now = _started(pid) if pid.isdecimal() else ""
    if now:
        return Fate.ALIVE if start in (now, _UNTOLD) else Fate.GONE
    return Fate.GONE if not pid.isdecimal() or _is_gone(int(pid)) else Fate.UNKNOWN


def _here() -> tuple[str, str, str]:
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return os.uname().nodename.replace(",", "_"), boot_id(), namespace


def _started(pid: str) -> str:
    """When a process was started, in ticks since boot; nothing for one that is over, or that is hidden."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The program's name, in parentheses, may hold anything.
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if len(fields) < 20 or fields[0].decode() in _GONE_STATES else fields[19].decode()


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
