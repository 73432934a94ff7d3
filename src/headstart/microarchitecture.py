"""Which image a CPU is given: by its feature bits, never by its name.

Theory of operation. An image says which features its code uses, in the words of the ``flags`` line of
``/proc/cpuinfo`` (Linux, ``arch/x86/include/asm/cpufeatures.h``). The kernel leaves out of that line what the
processor has but nobody may use: what a hypervisor masks, what firmware switched off, AVX without the kernel's
support for its registers. So the line is what counts, and a CPU's name says nothing: the same Zen 3 with
``xsaves`` hidden by a cloud is another machine (JuliaLang/julia#50102).

The images of a release are in order, from the least to the most demanding; the last one that this CPU offers
everything for is the one. ``headstart.script`` writes the same decision in POSIX sh, word for word; a property
test holds the two together.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headstart.errors import ConfigurationError, IncompatibleError
from headstart.release import ImageRecord

_V1: Final = "cmov cx8 fpu fxsr lm mmx sse sse2 syscall"
_V2: Final = f"{_V1} cx16 lahf_lm pni popcnt sse4_1 sse4_2 ssse3"
_V3: Final = f"{_V2} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"
_V4: Final = f"{_V3} avx512bw avx512cd avx512dq avx512f avx512vl"

LEVELS: Final = {
    name: frozenset(flags.split())
    for name, flags in {"x86-64": _V1, "x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}.items()
}
"""What each level of the x86-64 psABI (section 3.1.1) asks of a CPU, in ``/proc/cpuinfo``'s words; least first.

The kernel calls SSE3 ``pni``, LZCNT ``abm``, and shows ``xsave`` only where the system uses it (OSXSAVE).
"""

FLAG_KEYS: Final = ("flags", "Features")
"""How the line is called: on x86 and on Arm."""

# As a shell's ``read -r key rest`` takes it apart: blanks around and between, the rest without its colon.
_FLAGS_LINE: Final = re.compile(rf"^[ \t]*(?:{'|'.join(FLAG_KEYS)})(?:[ \t]+:?([^\n]*?))?[ \t]*$", re.MULTILINE)


def flags_of(cpuinfo: str) -> frozenset[str]:
    """The features of the first processor in the text of ``/proc/cpuinfo``; none when it names none."""
    found = _FLAGS_LINE.search(cpuinfo)
    return frozenset(word for word in (found[1] or "").split(" ") if word) if found else frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An image that was not taken."""

    target: str
    missing: tuple[str, ...]
    """The features that this CPU lacks for it, sorted; never empty."""

    def __str__(self) -> str:
        return f"{self.target} needs {' '.join(self.missing)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The image to use, and why it is no other."""

    chosen: ImageRecord
    refused: tuple[Refusal, ...]
    """Images that would have come before it, the nearest first; each asks for more than this CPU has."""
    not_built: str
    """The best level that this CPU reaches beyond the release's best image; empty when there is none."""
    asked: bool
    """Whether somebody asked for this target, so that nothing was weighed."""

    def explain(self) -> str:
        """One line: what was chosen, and why nothing better."""
        parts = [f"image {self.chosen.target}"]
        if self.asked:
            parts.append("as HEADSTART_TARGET asks")
        elif self.not_built:
            parts.append(f"{self.not_built} not built")
        return "; ".join((*parts, *map(str, self.refused)))


def select(here: frozenset[str], images: Sequence[ImageRecord], override: str | None = None) -> Selection:
    """Choose the most demanding image that a CPU can run.

    Args:
        here: the features of this CPU, as ``flags_of`` gives them.
        images: a release's images, from the least to the most demanding.
        override: the target that somebody asks for (``HEADSTART_TARGET``); checked like any other.

    Raises:
        ConfigurationError: the target asked for is not among the images.
        IncompatibleError: this CPU can run no image, or not the one asked for; says what it lacks.
    """
    if override:
        return _asked_for(here, images, override)
    refused: list[Refusal] = []
    for image in reversed(images):
        missing = _missing(here, image)
        if not missing:
            return Selection(
                chosen=image,
                refused=tuple(reversed(refused)),
                not_built=_not_built(here, images),
                asked=False,
            )
        refused.append(Refusal(target=image.target, missing=missing))
    if not refused:
        raise IncompatibleError("the release has no image")
    raise _incompatible(here, refused[-1], "this CPU can run no image of this release")


def _asked_for(here: frozenset[str], images: Sequence[ImageRecord], override: str) -> Selection:
    for image in images:
        if image.target == override:
            missing = _missing(here, image)
            if missing:
                refusal = Refusal(target=image.target, missing=missing)
                raise _incompatible(
                    here, refusal, "this CPU cannot run the image that HEADSTART_TARGET asks for"
                )
            return Selection(chosen=image, refused=(), not_built="", asked=True)
    raise ConfigurationError(
        f"HEADSTART_TARGET asks for {override!r}, and this release has no such image",
        hint=f"it has {' '.join(image.target for image in images)}",
    )


def _incompatible(here: frozenset[str], refusal: Refusal, what: str) -> IncompatibleError:
    if not here:
        return IncompatibleError(f"{what}: /proc/cpuinfo names no CPU features")
    return IncompatibleError(f"{what}: {refusal}, which it does not offer")


def _missing(here: frozenset[str], image: ImageRecord) -> tuple[str, ...]:
    return tuple(sorted(set(image.features) - here))


def best_known(targets: Sequence[str]) -> int:
    """Place in ``LEVELS`` of the best of these targets; -1 when none of them is a level."""
    return max((place for place, level in enumerate(LEVELS) if level in targets), default=-1)


def _not_built(here: frozenset[str], images: Sequence[ImageRecord]) -> str:
    """The best level beyond all images that this CPU reaches."""
    best = best_known([image.target for image in images])
    if best < 0:
        return ""
    beyond = [level for level, flags in tuple(LEVELS.items())[best + 1 :] if flags <= here]
    return beyond[-1] if beyond else ""
