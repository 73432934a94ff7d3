"""A launch remembered, so that the same launch again need not ask anybody for a while.

Theory of operation. Proving a repository's state takes fetching and several signatures; starting Julia again a
second later should not. So a launch leaves a record of what it decided: the program, its image, where things
are, what it said. The record is used only for the same question (source, reference, keys to the byte, CPU
flags, override), only until the repository's own time to live has passed, and never beyond the end of the
whitelist or the channel's pointer. When the source cannot be reached, it may be used until that end.

It is as good as the directory it is in: the cache's, owned by the user (or root) and writable by nobody else.

This module is on the shortest way to Julia, so it imports next to nothing: no dataclasses, no json, no typing.
The form is texts separated by NUL, which neither arguments nor environments can contain.
"""

import binascii
import os

from headstart.directories import make_directories, others_may_write
from headstart.leases import let_go, take

_MAGIC = "headstart shortcut 5"
_END = "end"
_LIMIT = 1 << 20
ABSENT = "absent"
"""The stamp of a file that is not there, and whose appearance would change the answer."""


class Question:
    """What a launch was asked; the record holds for exactly this.

    Args:
        parts: source, reference, and everything else that the answer depends on, as texts.
    """

    __slots__ = ("parts",)

    def __init__(self, *parts: str) -> None:
        self.parts = parts

    @property
    def name(self) -> str:
        """A file name for the record. Two questions of one name only push each other out."""
        return f"{binascii.crc32(repr(self.parts).encode(errors='surrogateescape')):08x}"


class Shortcut:
    """What a launch decided. All times are seconds since 1970."""

    __slots__ = (
        "argv",
        "binds",
        "created",
        "drops",
        "expires",
        "fresh_until",
        "held",
        "lease",
        "needs",
        "said",
        "sets",
        "stamps",
    )

    def __init__(self) -> None:
        self.created = 0
        self.fresh_until = 0
        """Until then it may be used without asking the source."""
        self.expires = 0
        """Until then it may be used when the source does not answer: the end of what was signed."""
        self.said = ""
        """The line that says which image, and why."""
        self.argv: tuple[str, ...] = ()
        """Program and arguments, without the user's."""
        self.sets: tuple[tuple[str, str], ...] = ()
        self.drops: tuple[str, ...] = ()
        self.binds: tuple[tuple[str, str], ...] = ()
        """What to show where in a namespace, read-only; none to run without one."""
        self.needs: tuple[str, ...] = ()
        """Paths that must be there, outside the namespace."""
        self.lease: tuple[str, ...] = ()
        """What keeps the image in the cache while Julia runs, as ``headstart.leases`` takes it."""
        self.held: int | str | None = None
        """The lease that this process has, once the record was loaded; None when it has let go of it."""
        self.stamps: tuple[tuple[str, str], ...] = ()
        """Files that must be as they were: path and ``stamp``, or path and content for keys."""

    def environment(self, env: dict[str, str]) -> dict[str, str]:
        """The environment to start Julia with, made of the user's."""
        made = {name: value for name, value in env.items() if name not in self.drops}
        made.update(self.sets)
        return made


def stamp(path: str) -> str:
    """What changes when a file is replaced or rewritten; nothing when it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"stat {found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}"


def content_stamp(path: str) -> str:
    """A small file's bytes."""
    try:
        with open(path, "rb") as file:
            return "content " + file.read(_LIMIT).hex()
    except OSError:
        return ""


def path_of(cache: str, question: Question) -> str:
    """Where the record of a question is."""
    return os.path.join(cache, "launches", question.name)


def load(cache: str, question: Question, *, uid: int, now: float = 0.0) -> Shortcut | None:
    """The record of a question, if there is one that can be relied on; its times are not looked at.

    With it comes the lease on its image, which this process holds from then on.

    Args:
        cache: the cache's directory.
        question: what is asked.
        uid: the user.
        now: seconds since 1970.
    """
    path = path_of(cache, question)
    try:
        for place in (cache, os.path.dirname(path)):
            if others_may_write(place, uid=uid):
                return None
        with open(path, "rb") as file:
            if others_may_write(file.fileno(), uid=uid):
                return None
            text = os.fsdecode(file.read(_LIMIT))
    except OSError:
        return None
    shortcut = _decode(text, question)
    # First the lease, then the look: what is seen after it stays.
    held = take(shortcut.lease, now) if shortcut is not None else None
    if shortcut is None or held is None:
        return None
    if _holds(shortcut):
        shortcut.held = held
        return shortcut
    # Else this very start would keep the last release from making room for the next.
    let_go(held)
    return None


def leave(shortcut: Shortcut) -> None:
    """Let go of the lease that came with a record, when another image is to be started."""
    if shortcut.held is not None:
        let_go(shortcut.held)
        shortcut.held = None


def regain(shortcut: Shortcut, now: float) -> bool:
    """Whether a record can be relied on after all: its lease is still held, or again, and all is as it was."""
    if shortcut.held is None:
        shortcut.held = take(shortcut.lease, now)
        if shortcut.held is not None and not _holds(shortcut):
            leave(shortcut)
    return shortcut.held is not None


def _holds(shortcut: Shortcut) -> bool:
    """Whether everything is as it was when the record was made."""
    for place, then in shortcut.stamps:
        if not then or then != _stamp_like(then, place):
            return False
    return all(os.path.exists(place) for place in shortcut.needs)


def _stamp_like(then: str, place: str) -> str:
    """Today's stamp of a file, of the same kind."""
    if then == ABSENT:
        return "" if os.path.lexists(place) else ABSENT
    return content_stamp(place) if then.startswith("content ") else stamp(place)


def save(cache: str, question: Question, shortcut: Shortcut) -> None:
    """Keep a record, replacing the last one; a cache that cannot be written is no reason to fail."""
    path = path_of(cache, question)
    temporary = f"{path}.{os.getpid()}"
    try:
        # Root's cache is for all to start from, whatever root's umask.
        for_all = os.geteuid() == 0
        make_directories(os.path.dirname(path), for_all=for_all)
        if any(others_may_write(place, uid=os.geteuid()) for place in (cache, os.path.dirname(path))):
            return
        with open(temporary, "wb", opener=_new) as file:
            file.write(os.fsencode(_encode(shortcut, question)))
            if for_all:
                os.fchmod(file.fileno(), 0o644)
        os.rename(temporary, path)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            return


def forget(cache: str, question: Question) -> None:
    """Have the next start find out everything anew, as far as the record may be removed."""
    try:
        os.unlink(path_of(cache, question))
    except OSError:
        return


def _new(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)


def _encode(shortcut: Shortcut, question: Question) -> str:
    fields = [_MAGIC, str(shortcut.created), str(shortcut.fresh_until), str(shortcut.expires), shortcut.said]
    lists = (
        question.parts,
        shortcut.argv,
        [text for pair in shortcut.sets for text in pair],
        shortcut.drops,
        [text for pair in shortcut.binds for text in pair],
        shortcut.needs,
        [text for pair in shortcut.stamps for text in pair],
        shortcut.lease,
    )
    for texts in lists:
        fields += [str(len(texts)), *texts]
    return "\0".join([*fields, _END])


def _decode(text: str, question: Question) -> Shortcut | None:
    """Read a record; None when it is another question's, of another form, or damaged."""
    fields = text.split("\0")
    if len(fields) < 6 or fields[0] != _MAGIC or fields[-1] != _END:
        return None
    made = Shortcut()
    try:
        made.created, made.fresh_until, made.expires = map(int, fields[1:4])
        made.said = fields[4]
        lists: list[tuple[str, ...]] = []
        place = 5
        for _ in range(8):
            count = int(fields[place])
            lists.append(tuple(fields[place + 1 : place + 1 + count]))
            if len(lists[-1]) != count or count < 0:
                return None
            place += 1 + count
    except (ValueError, IndexError):
        return None
    asked, made.argv, sets, made.drops, binds, made.needs, stamps, made.lease = lists
    if asked != question.parts or place != len(fields) - 1 or not made.argv:
        return None
    made.sets, made.binds, made.stamps = _pairs(sets), _pairs(binds), _pairs(stamps)
    return made


def _pairs(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple(zip(texts[::2], texts[1::2], strict=True)) if len(texts) % 2 == 0 else ()
