"""What a Julia that was started says about compiling: what it compiled, and why it could not go on without.

Theory of operation. Three things tell: the list of ``--trace-compile`` (exact up to 1.8; from 1.9 on it also
names methods whose code came ready from an image), the figures that ``data/counters.jl`` leaves (time and bytes
of machine code), and Julia's own words on standard error when it may not compile. All of it is text here:
nothing is started, nothing is read.

Julia's words by version: up to 1.10 an ``IOError`` or a ``SystemError`` out of ``compilecache``, which from 1.6
on names the directory that could not be made (``base/loading.jl``, 1.5:1228, 1.10:2297); from 1.11 on
``Precompiled image ... not available with flags ...`` (1.11:2457); for an extension an ``@error``, after which
Julia goes on without it (1.9 to 1.14). Why a cache was not taken Julia says only with ``JULIA_DEBUG=loading``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from headstart.wording import counted

_STATEMENT: Final = re.compile(r"precompile\(Tuple\{.*\)")
_COUNTED: Final = re.compile(r"headstart-compiled: (\d+) (\d+)")
_MODULE: Final = re.compile(r"(?<![\w.!])([A-Za-z_]\w*)\.(?=[A-Za-z_@#])")
_JULIAS: Final = frozenset({"Core", "Base"})
_STRICT: Final = re.compile(
    r"^ERROR: .*?Precompiled image "
    r'(?:Base\.PkgId\((?:Base\.UUID\("(?P<uuid>[0-9a-f-]{36})"\)|nothing), "(?P<name>\w+)"\)'
    r"|(?P<plain>\w+) \[(?P<id>[^\]]*)\]) not available with flags",
    re.MULTILINE,
)
_FAILED: Final = re.compile(r"^ERROR: .*?(?:IOError: |SystemError: ).*$", re.MULTILINE)
_CACHE_FOLDER: Final = re.compile(r"/compiled/v\d+\.\d+/(\w+)")
_EXTENSION: Final = re.compile(r"Error during loading of extension (\w+) of (\w+)")
_PLACE: Final = re.compile(r"^in expression starting at (.+):(\d+)$", re.MULTILINE)
_REJECTED: Final = re.compile(r"Rejecting (?:stale )?cache file .+?(?: (because|since|due to) (.+)|:$)")
_REASONS: Final = re.compile(r"^│\s+Reasons =\s*(.*)$")
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What was compiled, as Julia counts it (1.9 and newer)."""

    nanoseconds: int
    code_bytes: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The last figures that ``data/counters.jl`` left in a text; None when there are none."""
        found = _COUNTED.findall(text)
        return cls(nanoseconds=int(found[-1][0]), code_bytes=int(found[-1][1])) if found else None

    def beyond(self, usual: "Cost") -> bool:
        """Whether it is more than what any start costs."""
        return self.nanoseconds > usual.nanoseconds or self.code_bytes > usual.code_bytes

    def __str__(self) -> str:
        return f"{self.code_bytes:,} bytes of machine code in {self.nanoseconds / 1e6:.1f} ms"


def statements(text: str) -> frozenset[str]:
    """The statements of a trace; on a terminal they share the lines with what a script prints."""
    return frozenset(_STATEMENT.findall(text))


def only_julias(lines: Iterable[str], standard: frozenset[str]) -> bool:
    """Whether statements name no module but Julia's own.

    Args:
        lines: of a trace.
        standard: the names of the packages that come with this Julia.
    """
    return all(name in _JULIAS or name in standard for line in lines for name in _MODULE.findall(line))


def listed(lines: Iterable[str]) -> str:
    """Statements for a person: how many, and the first of them."""
    chosen = sorted(lines)
    count = counted(len(chosen), "method")
    more = "; ..." if len(chosen) > _SHOWN else ""
    return f"{count}: {'; '.join(chosen[:_SHOWN])}{more}" if chosen else count


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """Julia would have compiled a package, and was kept from it."""

    name: str
    """The package, where Julia names it."""
    uuid: str
    """Its UUID, where Julia names that."""
    place: str
    """``file:line`` of the statement that asked for it, where Julia says so."""

    @property
    def what(self) -> str:
        """It, for a person."""
        return self.name or (f"a package that {self.place} asks for" if self.place else "a package")


def miss(said: str) -> Miss | None:
    """Find out from what an ended Julia has said whether it ended because it would have compiled.

    Args:
        said: the end of its standard error.
    """
    for found in reversed(list(_STRICT.finditer(said))):
        return Miss(
            name=found["name"] or found["plain"],
            uuid=found["uuid"] or (found["id"] if found["id"] and "-" in found["id"] else ""),
            place=_place(said[found.end() :]),
        )
    for found in reversed(list(_FAILED.finditer(said))):
        rest = said[found.end() :]
        if re.search(r"\bcompilecache|\bmaybe_cachefile_lock", rest):
            folder = _CACHE_FOLDER.search(found[0])
            return Miss(name=folder[1] if folder else "", uuid="", place=_place(rest))
    return None


def _place(rest: str) -> str:
    """The outermost statement: what the user wrote."""
    places = _PLACE.findall(rest)
    return ":".join(places[-1]) if places else ""


def failed_extensions(said: str) -> tuple[str, ...]:
    """The extensions that Julia could not load and went on without, each with its package."""
    return tuple(dict.fromkeys(f"{name} of {parent}" for name, parent in _EXTENSION.findall(said)))


def rejection(said: str) -> str:
    """Why the last cache that Julia looked at was not taken, from what it says with ``JULIA_DEBUG=loading``.

    Returns:
        A clause that goes on after "because"; empty where nothing was rejected.
    """
    lines = said.splitlines()
    for number, line in reversed(list(enumerate(lines))):
        found = _REJECTED.search(line)
        if found is None:
            continue
        if found[2]:
            return re.sub(r"^it containing", "it contains", found[2].strip()).rstrip(".")[:300]
        told = next((more for rest in lines[number + 1 : number + 4] if (more := _REASONS.match(rest))), None)
        return "it is for another CPU" + (f" ({told[1].strip()[:200]})" if told and told[1] else "")
    return ""
