"""How large the chunks of a large file may become (format section 17); ``cutting`` says where it is cut."""

from dataclasses import dataclass
from typing import Final

from headstart.errors import ConfigurationError

WINDOW: Final = 32
"""Bytes that decide on a cut."""
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSizes:
    """How large chunks may become, in bytes; the defaults are the real publisher's."""

    minimum: int = 4 * _MIB
    average: int = 8 * _MIB
    maximum: int = 16 * _MIB

    def __post_init__(self) -> None:
        if not WINDOW <= self.minimum < self.average < self.maximum < 2**31:
            raise ConfigurationError(
                f"chunks of {self.minimum}, {self.average} and {self.maximum} bytes cannot be cut",
                hint=f"minimum, average and maximum must grow in this order, from {WINDOW} bytes on",
            )

    @property
    def threshold(self) -> int:
        """How close to the centre x must come, exclusive."""
        return 0xFFFFFFFF // self.average
