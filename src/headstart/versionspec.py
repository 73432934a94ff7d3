"""Which versions a ``[compat]`` entry admits, and how Pkg prints that.

What is printed goes into the hash by which a lock knows the project that it was resolved for. Pkg does not hash
what stands in ``Project.toml`` but what it has understood (``Pkg/src/Versions.jl``, 1.10.6 and 1.12.6): an
entry is parsed, its ranges are joined where they touch, and the result is printed.
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from headstart.errors import ConfigurationError

Bound = tuple[int, ...]
"""Up to three numbers; what is left out is open. Pkg's ``VersionBound``."""

_VERSION: Final = r"v?([0-9]+?)(?:\.([0-9]+?))?(?:\.([0-9]+?))?"
_SEMVER: Final = re.compile(rf"([~^]?)?{_VERSION}")
_INEQUALITY: Final = re.compile(rf"(≥\s*|>=\s*|=\s*|<\s*)v?{_VERSION}")
_HYPHEN: Final = re.compile(rf"\s*{_VERSION}\s*?\s-\s\s*?{_VERSION}\s*")


@dataclass(frozen=True, slots=True)
class _Range:
    lower: Bound
    upper: Bound

    @property
    def empty(self) -> bool:
        for low, high in zip(self.lower, self.upper, strict=False):
            if low != high:
                return low > high
        return False

    def shown(self, dash: str) -> str:
        if not self.lower and not self.upper:
            return "*"
        if not self.lower:
            # Pkg joins all three numbers of an upper bound here, and has one space too few (Versions.jl:164).
            return f"0{dash.rstrip(' ')}{'.'.join(map(str, _padded(self.upper)))}"
        if not self.upper:
            return f"{'.'.join(map(str, _padded(self.lower)))}{dash}*"
        text = ".".join(map(str, self.lower))
        return text if self.lower == self.upper else f"{text}{dash}{'.'.join(map(str, self.upper))}"


def _padded(bound: Bound) -> Bound:
    return (*bound, *(0,) * (3 - len(bound)))


def _range(lower: Bound, upper: Bound) -> _Range:
    # Where both say the same, the upper one decides how precisely (Versions.jl:105).
    return _Range(upper if _padded(lower) == _padded(upper) else lower, upper)


def _compare_lower(one: Bound, other: Bound) -> int:
    for left, right in zip(one, other, strict=False):
        if left != right:
            return left - right
    return len(one) - len(other)


def _compare_upper(one: Bound, other: Bound) -> int:
    for left, right in zip(one, other, strict=False):
        if left != right:
            return left - right
    return len(other) - len(one)


def _compare(one: _Range, other: _Range) -> int:
    return _compare_lower(one.lower, other.lower) or _compare_upper(one.upper, other.upper)


def _joinable(upper: Bound, lower: Bound) -> bool:
    """Whether a range that ends at ``upper`` and one that begins at ``lower`` leave nothing between them."""
    if len(upper) != len(lower):
        for high, low in zip(upper, lower, strict=False):
            if high != low:
                return high > low
        return True
    for high, low in zip(upper[:-1], lower[:-1], strict=True):
        if high != low:
            return high > low
    return not upper or upper[-1] >= lower[-1] - 1


def _joined(ranges: Iterable[_Range]) -> tuple[_Range, ...]:
    found: list[_Range] = []
    for one in sorted((one for one in ranges if not one.empty), key=functools.cmp_to_key(_compare)):
        if found and _joinable(found[-1].upper, one.lower):
            last = found[-1]
            # Widened in place: Pkg simplifies a range only when it is complete.
            wider = one.upper if _compare_upper(last.upper, one.upper) < 0 else last.upper
            found[-1] = _Range(last.lower, wider)
        else:
            found.append(one)
    return tuple(_range(one.lower, one.upper) for one in found)


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """A set of versions, as ranges in order with gaps between them."""

    ranges: tuple[_Range, ...]

    @classmethod
    def everything(cls) -> Self:
        """All versions."""
        return cls((_Range((), ()),))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an entry of ``[compat]``.

        Raises:
            ConfigurationError: it is none.
        """
        return cls(_joined(_parsed(part.strip(), text) for part in text.strip().split(",")))

    def intersect(self, other: "VersionSpec") -> "VersionSpec":
        """The versions that both admit."""
        return VersionSpec(
            _joined(
                _range(
                    mine.lower if _compare_lower(mine.lower, theirs.lower) >= 0 else theirs.lower,
                    mine.upper if _compare_upper(mine.upper, theirs.upper) < 0 else theirs.upper,
                )
                for mine in self.ranges
                for theirs in other.ranges
            )
        )

    def shown(self, dash: str) -> str:
        """As Pkg prints it.

        Args:
            dash: between the ends of a range: ``-`` up to Julia 1.10, `` - `` since.
        """
        if not self.ranges:
            return "∅"
        texts = [one.shown(dash) for one in self.ranges]
        return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _parsed(part: str, text: str) -> _Range:
    for pattern, read in ((_SEMVER, _semver), (_INEQUALITY, _inequality), (_HYPHEN, _hyphen)):
        found = pattern.fullmatch(part)
        if found is not None:
            made = read(found)
            if made is not None:
                return made
            break
    raise ConfigurationError(f"{text!r} names no versions of a package", hint="write it like 1.2 or ^1.2, 2")


def _numbers(groups: Iterable[str | None]) -> Bound:
    return tuple(int(group) for group in groups if group is not None)


def _semver(found: re.Match[str]) -> _Range | None:
    given = _numbers(found.groups()[1:])
    if given == (0, 0, 0):
        return None
    lower = _padded(given)
    if found[1] == "~":
        return _range(lower, lower[:1] if len(given) == 1 else lower[:2])
    # What may not change is everything up to the first number that is not zero.
    kept = next((place for place, number in enumerate(lower, 1) if number), 0) or len(given)
    return _range(lower, lower[:kept])


def _inequality(found: re.Match[str]) -> _Range | None:
    given = _numbers(found.groups()[1:])
    version = _padded(given)
    sign = found[1].strip()
    if given == (0, 0, 0) or (sign == "<" and not any(version)):
        return None
    if sign == "=":
        return _range(version, version)
    if sign != "<":
        return _range(version, ())
    major, minor, patch = version
    if patch:
        return _range((0, 0, 0), (major, minor, patch - 1))
    return _range((0, 0, 0), (major, minor - 1) if minor else (major - 1,))


def _hyphen(found: re.Match[str]) -> _Range:
    groups = found.groups()
    return _range(_numbers(groups[:3]), _numbers(groups[3:]))
