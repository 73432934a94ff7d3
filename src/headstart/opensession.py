"""A session with a release behind what is the user's: what it changes in the environment, and how to undo it.

Theory of operation. One variable changes: the release's ``open/`` comes first in ``PATH``, so that ``julia`` is
the release's (``headstart.openscript`` does the rest at each start). What was there before is noted in a second
one, ``HEADSTART_SESSION``, as JSON, because a variable that was not set is not one that was empty. Undoing
gives exactly that back, if nobody has changed it since; else only what was added is taken out, and what others
added stays. A session within a session notes the outer one, so they are undone one by one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from headstart.errors import ConfigurationError

NOTE: Final = "HEADSTART_SESSION"
"""The variable that says what was there before."""
_PATH: Final = "PATH"
_USUAL_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
"""What is searched where ``PATH`` is not set; programs differ in it, but none leaves out the last two."""

Changes = Mapping[str, str | None]
"""Variables to set, and with None those to remove."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Note:
    folder: str
    path: str | None
    """``PATH`` as it was, if it was set."""
    outer: str | None
    """The note of the session around this one, if there is one."""

    @property
    def made(self) -> str:
        """``PATH`` as the session made it."""
        return f"{self.folder}:{_USUAL_PATH if self.path is None else self.path}"

    def text(self) -> str:
        return json.dumps([self.folder, self.path, self.outer])

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            folder, path, outer = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            folder, path, outer = None, None, None
        if isinstance(folder, str) and isinstance(path, str | None) and isinstance(outer, str | None):
            return cls(folder=folder, path=path, outer=outer)
        raise ConfigurationError(
            f"{NOTE} is not as Headstart writes it, so what was there before is not known",
            hint=f"unset it, and take the release's directory out of {_PATH} by hand",
        )


def begun(folder: str, env: Mapping[str, str]) -> Changes:
    """What a session changes; nothing where it is that session already.

    Args:
        folder: the directory with the release's ``julia`` for sessions.
        env: the environment as it is.

    Raises:
        ConfigurationError: the directory's name has a colon, which a list of directories cannot hold.
    """
    if ":" in folder:
        raise ConfigurationError(f"{folder} has a colon in its name, which {_PATH} cannot hold")
    note = _Note(folder=folder, path=env.get(_PATH), outer=env.get(NOTE))
    if note.outer is not None and env.get(_PATH) == _Note.parse(note.outer).made:
        outer = _Note.parse(note.outer)
        if outer.folder == folder:
            return {}
    return {_PATH: note.made, NOTE: note.text()}


def undone(env: Mapping[str, str]) -> Changes:
    """What undoes the innermost session.

    Raises:
        ConfigurationError: there is none, or its note is damaged.
    """
    if NOTE not in env:
        raise ConfigurationError(
            "there is no session to undo here", hint="'headstart env SOURCE STACK' prints what begins one"
        )
    note = _Note.parse(env[NOTE])
    here = env.get(_PATH)
    if here == note.made:
        return {_PATH: note.path, NOTE: note.outer}
    changes: dict[str, str | None] = {NOTE: note.outer}
    parts = [] if here is None else here.split(":")
    if note.folder in parts:
        parts.remove(note.folder)
        changes[_PATH] = ":".join(parts)
    return changes
