"""TOML read strictly: every complaint names the file and the key, and no key goes unread."""

import tomllib
from collections.abc import Mapping
from typing import Any, Self

from headstart.errors import ConfigurationError


def shown(value: object) -> str:
    """A value as an error shows it: short."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class TomlTable:
    """Typed access to one table.

    Args:
        value: the parsed table.
        file: how to name the file in an error.
        path: the keys that lead to the table; empty at the top.
    """

    def __init__(self, value: Mapping[str, Any], file: str, path: str = "") -> None:
        self.value = value
        self.file = file
        self.path = path

    @classmethod
    def parse(cls, text: str, file: str) -> Self:
        """Parse a file's text.

        Raises:
            ConfigurationError: it is not TOML, with the place that the parser names.
        """
        try:
            return cls(tomllib.loads(text), file)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigurationError(f"{file} is not TOML ({error})") from error

    def name(self, key: str) -> str:
        """The key as an error names it."""
        return f"{self.path}.{key}" if self.path else key

    def wrong(self, key: str, wanted: str) -> ConfigurationError:
        """The error for a key whose value is not what it should be."""
        if key not in self.value:
            return ConfigurationError(f"{self.file}: {self.name(key)} is missing", hint=f"it is {wanted}")
        return ConfigurationError(
            f"{self.file}: {self.name(key)} is {shown(self.value[key])}, which is not {wanted}"
        )

    def only(self, keys: frozenset[str]) -> None:
        """Refuse keys that nothing would read: most are misspelt."""
        for key in self.value:
            if key not in keys:
                raise ConfigurationError(
                    f"{self.file}: there is no key {self.name(key)}",
                    hint=f"the keys are {', '.join(sorted(keys))}",
                )

    def text(self, key: str) -> str:
        """A text."""
        value = self.value.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def text_or(self, key: str, default: str) -> str:
        """A text, or the default where the key is absent."""
        return self.text(key) if key in self.value else default

    def number(self, key: str) -> int:
        """A whole number."""
        value = self.value.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(key, "a whole number")
        return value

    def truth(self, key: str) -> bool:
        """True or false."""
        value = self.value.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self.value.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "a list of texts")
        return tuple(value)

    def table(self, key: str) -> "TomlTable":
        """A table below this one; an empty one where the key is absent."""
        value = self.value.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "a table")
        return TomlTable(value, self.file, self.name(key))

    def tables(self, key: str) -> tuple["TomlTable", ...]:
        """A list of tables; an empty one where the key is absent."""
        value = self.value.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(key, "a list of tables")
        return tuple(
            TomlTable(item, self.file, f"{self.name(key)}[{index}]") for index, item in enumerate(value)
        )
