"""The kernel's table of mounts: which kind of file system a path is on."""

from typing import Final

_ESCAPES: Final = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


def kind_of(mountinfo: str, path: str) -> str:
    """The kind of file system that a path is on, by ``/proc/self/mountinfo``.

    Args:
        mountinfo: its text (proc_pid_mountinfo(5)).
        path: an absolute path without symbolic links.

    Returns:
        The kernel's name for it, or nothing where no line tells.
    """
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        words = line.split(" ")
        if len(words) < 7 or "-" not in words[6:-1]:
            continue
        point = words[4]
        for escape, sign in _ESCAPES:
            point = point.replace(escape, sign)
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Of two at one place the later one lies on top.
        if inside and len(point) >= best:
            best, kind = len(point), words[words.index("-", 6) + 1]
    return kind
