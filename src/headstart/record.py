"""Stored records: JSON in one spelling, read with types and with complaints that name the file and the key."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Self, TypeVar

from headstart.errors import ConfigurationError, CorruptError

_T = TypeVar("_T")


def canonical(value: object) -> bytes:
    """JSON with sorted keys, no spaces, UTF-8 and a newline at the end: one spelling per value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def one_spelling(written: bytes, read: bytes, where: str) -> None:
    """Refuse a signed record that says more than was understood, or says it in another spelling.

    Args:
        written: the record as it was understood, written anew.
        read: as it was read.
        where: how to name it in an error.

    Raises:
        CorruptError: they differ.
    """
    if written != read:
        raise CorruptError(
            f"{where} is not written in the one spelling of its content", hint="use a newer Headstart"
        )


_MOST: Final = 2**62
"""No count, size or time reaches it."""


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


class Table:
    """Typed access to parsed JSON; every complaint names the file and the key."""

    def __init__(self, value: Mapping[str, Any], where: str, path: str = "") -> None:
        self.value = value
        self.where = where
        self.path = path

    @classmethod
    def of(cls, data: bytes, where: str, schema: int) -> Self:
        """Parse a stored record of the given schema number; ``where`` names it in complaints.

        Raises:
            CorruptError: not JSON, not an object, or of another schema.
        """
        table = cls.parse(data, where)
        found = table.value.get("schema")
        if found is None:
            raise CorruptError(f"{where} is no record of Headstart's: it has no key schema")
        if found != schema or isinstance(found, bool):
            raise CorruptError(
                f"{where} has schema {found!r}, this Headstart knows {schema}", hint="use a newer Headstart"
            )
        return table

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Parse a stored record without a schema number.

        Raises:
            CorruptError: not JSON, or not an object.
        """
        try:
            text = data.decode()
            value = json.loads(text, parse_constant=_no_number)
            if "\\u" in text:
                # Half a surrogate pair is no text: neither a path nor an argument can be made of it.
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise CorruptError(f"{where} is not JSON ({error})") from error
        if not isinstance(value, dict):
            raise CorruptError(f"{where} is no JSON object")
        return cls(value, where)

    def wrong(self, key: str, wanted: str) -> CorruptError:
        """The error that says what the value of ``key`` should have been."""
        return CorruptError(f"{self.where}: {self.path + '.' if self.path else ''}{key} is not {wanted}")

    def text(self, key: str) -> str:
        """A text."""
        value = self.value.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, "a text")
        if "\0" in value:
            raise self.wrong(key, "a text without zeros")
        return value

    def named(self, key: str, make: Callable[[str], _T]) -> _T:
        """A text that ``make`` accepts."""
        try:
            return make(self.text(key))
        except ConfigurationError as error:
            raise self.wrong(key, f"well formed ({error.message})") from error

    def number(self, key: str) -> int:
        """A whole number of at least 0."""
        value = self.value.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
            raise self.wrong(key, "a whole number of at least 0")
        return value

    def seconds(self, key: str) -> float:
        """A number."""
        value = self.value.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not -_MOST < value < _MOST:
            raise self.wrong(key, "a number")
        return float(value)

    def truth(self, key: str) -> bool:
        """True or false."""
        value = self.value.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self.value.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
            raise self.wrong(key, "a list of texts")
        return tuple(value)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """An object, as it is."""
        value = self.value.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return value

    def child(self, key: str) -> "Table":
        """An object, as a table."""
        return Table(self.mapping(key), self.where, f"{self.path}.{key}" if self.path else key)

    def children(self, key: str) -> tuple["Table", ...]:
        """A list of objects, as tables."""
        value = self.value.get(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(key, "a list of objects")
        return tuple(Table(item, self.where, f"{key}[{index}]") for index, item in enumerate(value))
