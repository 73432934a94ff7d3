"""The head of an answer of HTTP/1.1: how it went, how long its body is, and whether the connection stays open.

Where two readers could understand an answer in two ways (RFC 9112 sections 6.3 and 11.1) it is none: lengths
that contradict each other, a coding that nobody asked for, a line without a name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

_STATUS: Final = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: (.*))?")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OTHER_PROTOCOL: Final = 101
_WITHOUT_BODY: Final = frozenset({_OTHER_PROTOCOL, 204, 304})
_BLANK: Final = " \t"
_NOWHERE: Final = re.compile("[\\0\\r]")
"""What some take for the end of a line, or of all."""


class WireError(Exception):
    """What came is no answer of HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What an answer says before its body."""

    status: int
    reason: str
    headers: Mapping[str, str]
    """By name in small letters; several of one name with commas between."""
    length: int | None
    """Bytes of the body; None when that is seen at its end only."""
    chunked: bool
    keeps: bool
    """Whether the connection may be used after it."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a head, without the empty line at its end.

        Raises:
            WireError: it is none.
        """
        first, *lines = data.decode("latin-1").replace("\r\n", "\n").split("\n")
        begun = _STATUS.fullmatch(first)
        if begun is None:
            raise WireError(f"it is no answer of HTTP/1.1: {first[:60]!r}")
        status, newer = int(begun[2]), begun[1] != "0"
        headers = _headers(lines)
        chunked, length = _framing(headers)
        if status in _WITHOUT_BODY:
            chunked, length = False, 0
        said = {one.strip(_BLANK) for one in headers.get("connection", "").lower().split(",")}
        return cls(
            status=status,
            reason=(begun[3] or "").strip(_BLANK),
            headers=headers,
            length=length,
            chunked=chunked,
            keeps=(
                "close" not in said
                and (newer or "keep-alive" in said)
                and (length is not None or (chunked and newer and "content-length" not in headers))
                and status != _OTHER_PROTOCOL
            ),
        )


def _headers(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if _NOWHERE.search(line):
            raise WireError(f"it has a line that is no header: {line[:60]!r}")
        if line[:1] in (" ", "\t"):
            # An old way to go on in the next line (RFC 9112 section 5.2).
            colon, value = name, f"{found.get(name, '')} {line.strip(_BLANK)}".strip(_BLANK)
        else:
            name, colon, value = line.partition(":")
            if _NAME.fullmatch(name) is None:
                raise WireError(f"it has a line that is no header: {line[:60]!r}")
            name, value = name.lower(), value.strip(_BLANK)
            if name in found:
                value = f"{found[name]}, {value}"
        if not colon:
            raise WireError(f"it has a line that is no header: {line[:60]!r}")
        found[name] = value
    return found


def _framing(headers: Mapping[str, str]) -> tuple[bool, int | None]:
    """Whether a body comes in chunks, and how long it is where that is said (RFC 9112 section 6.3)."""
    coding = headers.get("transfer-encoding")
    said = headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked":
            raise WireError(f"it comes in a coding that nobody asked for: {coding[:60]!r}")
        return True, None
    if said is None:
        return False, None
    lengths = {one.strip(_BLANK) for one in said.split(",")}
    length = lengths.pop()
    if lengths or not (length.isascii() and length.isdigit() and len(length) < 20):
        raise WireError(f"its length is none: {said[:60]!r}")
    return False, int(length)
