"""The name of a process, as files give it (``headstart.holders``). On the shortest way to Julia."""

import os

BOOT_ID = "/proc/sys/kernel/random/boot_id"
UNTOLD = "-"
"""In place of the moment of a start, where the system does not say."""
_GONE_STATES = (b"Z", b"X")


def boot_id() -> str:
    """What is another one after every start of this machine; nothing where the system does not say."""
    try:
        with open(BOOT_ID) as file:
            return file.read(100).strip()
    except OSError:
        return ""


def holder() -> str:
    """This process, and whatever it becomes; fit for a file's name."""
    return ",".join((*here(), str(os.getpid()), started("self") or UNTOLD))


def here() -> tuple[str, str, str]:
    """Host, boot and pid namespace."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return os.uname().nodename.replace(",", "_"), boot_id(), namespace


def started(pid: str) -> str:
    """When a process was started, in ticks since boot; nothing for one that is over, or that is hidden."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The program's name, in parentheses, may hold anything.
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if len(fields) < 20 or fields[0] in _GONE_STATES else fields[19].decode()
