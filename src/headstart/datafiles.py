"""The data files of this package. Standard library only."""

import os
from typing import Final

DATA: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
"""Where they are."""


def data_path(name: str) -> str:
    """Where one of the package's own data files is."""
    return os.path.join(DATA, name)


def data_text(name: str) -> str:
    """The text of one of the package's own data files."""
    with open(data_path(name), encoding="utf-8") as file:
        return file.read()
