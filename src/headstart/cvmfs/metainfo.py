"""Meta information: what a repository, or a server of several, says of itself in JSON (format section 8).

The format leaves its form free, and the real tools take whatever is JSON. Here it is one object, in which the
keys of the real tools' skeleton have the kinds that they have there: what shows them to people relies on it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from headstart.errors import ConfigurationError, CorruptError
from headstart.names import Fqrn
from headstart.wording import counted

METAINFO_LIMIT: Final = 1 << 16
"""Bytes of JSON; more than the client can show in ``user.repo_metainfo`` makes no sense."""
WORDS: Final = ("administrator", "email", "organisation", "description", "url", "recommended-stratum0")
_LIST: Final = "recommended-stratum1s"
_TABLE: Final = "custom"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaInfo:
    """A JSON object whose known keys are of their kinds."""

    table: Mapping[str, object]

    @classmethod
    def new(cls, fqrn: Fqrn) -> Self:
        """What a new repository says of itself."""
        words = dict.fromkeys(WORDS, "") | {"description": f"Julia releases of {fqrn}, published by Headstart"}
        return cls(table={**words, _LIST: [], _TABLE: {}})

    @classmethod
    def parse(cls, text: bytes, *, what: str) -> Self:
        """Read the JSON that somebody wrote.

        Raises:
            ConfigurationError: it is no JSON object of at most 64 kB, or a known key is of another kind.
        """
        if len(text) > METAINFO_LIMIT:
            raise ConfigurationError(
                f"{what} has {counted(len(text), 'byte')}: meta information may have {METAINFO_LIMIT}",
                hint="put the rest where 'url' points to",
            )
        try:
            table = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{what} is no JSON: {error}") from error
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"{what} is no JSON object", hint='write {"description": "...", "url": "..."}'
            )
        for key, value in table.items():
            _check(key, value, what)
        return cls(table=table)

    @classmethod
    def read(cls, content: bytes, *, what: str) -> Self:
        """Read a published object, which may be of the free form that the format allows.

        Raises:
            CorruptError: it is no JSON object.
        """
        try:
            table = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise CorruptError(f"{what} is no JSON: {error}") from error
        if not isinstance(table, dict):
            raise CorruptError(f"{what} is no JSON object")
        return cls(table=table)

    def changed(self, changes: Iterable[tuple[str, str]]) -> Self:
        """The same with other words under some of the known keys; the list is split at its spaces.

        Raises:
            ConfigurationError: no known key of words.
        """
        table = dict(self.table)
        for key, value in changes:
            if key not in (*WORDS, _LIST):
                raise ConfigurationError(
                    f"{key!r} is no key of meta information that has words",
                    hint=f"it is one of {', '.join((*WORDS, _LIST))}; anything else is written in a file",
                )
            table[key] = value.split() if key == _LIST else value
        return type(self)(table=table)

    def to_bytes(self) -> bytes:
        """As JSON for people.

        Raises:
            ConfigurationError: it has become too large.
        """
        text = json.dumps(self.table, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        if len(text) > METAINFO_LIMIT:
            raise ConfigurationError(
                f"meta information of {counted(len(text), 'byte')} is too much: {METAINFO_LIMIT} may be"
            )
        return text


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is no value of JSON")


def _check(key: str, value: object, what: str) -> None:
    if key in WORDS:
        good, kind = isinstance(value, str), "a text"
    elif key == _LIST:
        good, kind = isinstance(value, list) and all(isinstance(item, str) for item in value), "a list of texts"
    elif key == _TABLE:
        good, kind = isinstance(value, dict), "an object"
    else:
        return
    if not good:
        raise ConfigurationError(f"{what}: {key!r} is to be {kind}", hint="as in the real tools' skeleton")
