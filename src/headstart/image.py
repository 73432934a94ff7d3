"""What native code says of itself: the CPU targets that it was compiled for.

Theory of operation. The image carries, for Julia's own use at start, a list of targets, each with a name and
two sets of features: those it uses and those it was told to do without (``serialize_target_data`` in
``src/processor.cpp``). As bytes, all numbers u32 and little-endian::

    number of targets, then for each:
        flags
        number of words N, N words of features in use, N words of features done without
        length and text of the name
        length and text of further features, which Julia passes on to LLVM and never checks

A word is a register that the CPUID instruction fills (``src/features_x86.h``), so the meaning of each bit is
Intel's and AMD's and does not change with Julia's version. Up to 1.8 the list is the exported symbol
``jl_dispatch_target_ids``. From 1.9 the symbol is local (and in the symbol table unless it was stripped), and
the exported ``jl_image_pointers`` is a record whose last pointer leads to the list. The header of a package's
cache (``headstart.cacheheader``) has a copy of its native code's list, and a running Julia gives its own
(``jl_reflect_clone_targets``): both are decoded here too.
"""

import struct
from dataclasses import dataclass
from typing import IO, Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import Relocation, RelocationSection
from elftools.elf.sections import SymbolTableSection

from headstart.errors import BuildError, CorruptError, IncompatibleError
from headstart.julia import ImageLayout, Target

_BITS: Final = {
    0: {  # CPUID 1, ECX
        0: "pni", 1: "pclmulqdq", 9: "ssse3", 12: "fma", 13: "cx16", 19: "sse4_1", 20: "sse4_2", 22: "movbe",
        23: "popcnt", 25: "aes", 26: "xsave", 28: "avx", 29: "f16c", 30: "rdrand",
    },
    2: {  # CPUID 7, EBX
        0: "fsgsbase", 3: "bmi1", 5: "avx2", 8: "bmi2", 11: "rtm", 14: "mpx", 16: "avx512f", 17: "avx512dq",
        18: "rdseed", 19: "adx", 21: "avx512ifma", 23: "clflushopt", 24: "clwb", 26: "avx512pf", 27: "avx512er",
        28: "avx512cd", 29: "sha_ni", 30: "avx512bw", 31: "avx512vl",
    },
    3: {  # CPUID 7, ECX
        1: "avx512vbmi", 4: "pku", 5: "waitpkg", 6: "avx512_vbmi2", 8: "gfni", 9: "vaes", 10: "vpclmulqdq",
        11: "avx512_vnni", 12: "avx512_bitalg", 14: "avx512_vpopcntdq", 22: "rdpid", 25: "cldemote",
        27: "movdiri", 28: "movdir64b", 29: "enqcmd",
    },
    4: {  # CPUID 7, EDX
        2: "avx512_4vnniw", 3: "avx512_4fmaps", 8: "avx512_vp2intersect", 14: "serialize", 16: "tsxldtrk",
        18: "pconfig", 22: "amx_bf16", 23: "avx512_fp16", 24: "amx_tile", 25: "amx_int8",
    },
    5: {  # CPUID 80000001, ECX
        0: "lahf_lm", 5: "abm", 6: "sse4a", 8: "3dnowprefetch", 11: "xop", 15: "lwp", 16: "fma4", 21: "tbm",
        29: "mwaitx",
    },
    7: {0: "xsaveopt", 1: "xsavec", 3: "xsaves"},  # CPUID 13, EAX
    8: {0: "clzero", 9: "wbnoinvd"},  # CPUID 80000008, EBX
    9: {4: "avx_vnni", 5: "avx512_bf16"},  # CPUID 7.1, EAX
    10: {4: "ptwrite"},  # CPUID 14, EBX
}  # fmt: skip
"""Bits of Julia's feature words, in ``/proc/cpuinfo``'s words (Linux ``asm/cpufeatures.h``)."""

_MOST_TARGETS: Final = 64
_R_X86_64_64: Final = 1
_R_X86_64_RELATIVE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTarget:
    """One target as an image records it."""

    name: str
    features: frozenset[str]
    """What it uses, in ``/proc/cpuinfo``'s words; ``cpuid:<word>:<bit>`` where there is none."""
    disabled: frozenset[str]
    """What it was told to do without; of a running Julia, all that its CPU lacks."""
    unchecked: str
    """Features that Julia passed on to LLVM and will not check at start."""


def recorded_targets(file: IO[bytes], layout: ImageLayout, name: str) -> tuple[RecordedTarget, ...]:
    """Decode the targets of a system image.

    Args:
        file: the image, an ELF shared object, seekable.
        layout: where this Julia records them.
        name: how to name the image in an error.

    Raises:
        BuildError: it is no such image, or this layout is not known.
    """
    if layout is ImageLayout.UNKNOWN:
        raise BuildError(f"{name}: this Headstart cannot read which CPU targets an image of this Julia records")
    try:
        elf = ELFFile(file)
        data = _target_data(elf, layout)
    except (ELFError, ValueError, OverflowError) as error:
        raise BuildError(f"{name} is no ELF shared object ({error})") from error
    if data is None:
        raise BuildError(f"{name} does not record its CPU targets: it is no system image of this Julia")
    try:
        return decode_targets(data)
    except CorruptError as error:
        raise BuildError(f"{name}: the record of its CPU targets is damaged ({error})") from error


def _target_data(elf: ELFFile, layout: ImageLayout) -> bytes | None:
    found = _symbol(elf, "jl_dispatch_target_ids")
    if found is not None:
        address, size = found
        return _bytes_at(elf, address, size)
    if layout is ImageLayout.IMAGE_POINTERS:
        found = _symbol(elf, "jl_image_pointers")
        if found is not None:
            # header, shards, TLS slots, from 1.11 the small types, and then the targets (src/processor.h)
            address, size = found
            pointer = _pointer_at(elf, address + {32: 24, 40: 32}.get(size, size))
            return None if pointer is None else _bytes_at(elf, pointer, 1 << 16)
    return None


def _symbol(elf: ELFFile, name: str) -> tuple[int, int] | None:
    for section in (".dynsym", ".symtab"):
        table = elf.get_section_by_name(section)
        if isinstance(table, SymbolTableSection):
            for symbol in table.get_symbol_by_name(name) or ():
                if symbol["st_shndx"] != "SHN_UNDEF":
                    return int(symbol["st_value"]), int(symbol["st_size"])
    return None


def _bytes_at(elf: ELFFile, address: int, size: int) -> bytes:
    for segment in elf.iter_segments("PT_LOAD"):
        start = int(segment["p_vaddr"])
        if start <= address < start + int(segment["p_filesz"]):
            elf.stream.seek(int(segment["p_offset"]) + address - start)
            return bytes(elf.stream.read(min(size, start + int(segment["p_filesz"]) - address)))
    return b""


def _pointer_at(elf: ELFFile, address: int) -> int | None:
    """A pointer that the dynamic loader fills in: its relocation says with what.

    Packed relocations (``DT_RELR``) keep that in the pointer's own place.
    """
    for section in elf.iter_sections():
        if isinstance(section, RelocationSection) and section.is_RELA():
            for relocation in section.iter_relocations():
                if relocation["r_offset"] == address:
                    kind = relocation["r_info_type"]
                    if kind == _R_X86_64_RELATIVE:
                        return int(relocation["r_addend"])
                    if kind == _R_X86_64_64:
                        return _symbol_value(elf, section["sh_link"], relocation) + int(relocation["r_addend"])
    place = _bytes_at(elf, address, 8)
    return int.from_bytes(place, "little") or None if len(place) == 8 else None


def _symbol_value(elf: ELFFile, table_index: int, relocation: Relocation) -> int:
    table = elf.get_section(table_index)
    if not isinstance(table, SymbolTableSection):
        raise ELFError("a relocation refers to no symbol table")
    return int(table.get_symbol(relocation["r_info_sym"])["st_value"])


def decode_targets(data: bytes) -> tuple[RecordedTarget, ...]:
    """Decode a list of targets.

    Raises:
        CorruptError: it contradicts itself or is cut off.
    """
    try:
        return _decode(data)
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptError(str(error)) from error


def _decode(data: bytes) -> tuple[RecordedTarget, ...]:
    (count,) = struct.unpack_from("<I", data)
    if not 0 < count <= _MOST_TARGETS:
        raise struct.error(f"{count} targets")
    offset = 4
    targets = []
    for _ in range(count):
        _, words = struct.unpack_from("<II", data, offset)
        offset += 8
        if words > _MOST_TARGETS:
            raise struct.error(f"{words} words of features")
        enabled = struct.unpack_from(f"<{words}I", data, offset)
        disabled = struct.unpack_from(f"<{words}I", data, offset + 4 * words)
        name, offset = _text(data, offset + 8 * words)
        unchecked, offset = _text(data, offset)
        target = RecordedTarget(
            name=name, features=_features(enabled), disabled=_features(disabled), unchecked=unchecked
        )
        targets.append(target)
    return tuple(targets)


def _text(data: bytes, offset: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", data, offset)
    (text,) = struct.unpack_from(f"{length}s", data, offset + 4)
    return text.decode(), offset + 4 + length


def _features(words: tuple[int, ...]) -> frozenset[str]:
    return frozenset(
        _BITS.get(number, {}).get(bit, f"cpuid:{number}:{bit}")
        for number, word in enumerate(words)
        for bit in range(32)
        if word >> bit & 1
    )


def _vector_bytes(features: frozenset[str]) -> int:
    """The widest vectors of a target (``max_vector_size`` in ``src/processor_x86.cpp``)."""
    return 64 if "avx512f" in features else 32 if "avx" in features else 16


def require_vectors(wanted: Target, own: tuple[RecordedTarget, ...]) -> None:
    """Refuse a target with wider vectors than Julia's own image has, for a Julia that then drops them.

    Such an image would be refused when it is made, after minutes (``check_targets``).

    Args:
        wanted: what is to be built.
        own: what Julia's own image records.

    Raises:
        IncompatibleError: no part of Julia's own image has vectors that wide.
    """
    needed = _vector_bytes(wanted.recorded_features)
    if all(_vector_bytes(one.features) < needed for one in own):
        names = ", ".join(one.name for one in own)
        raise IncompatibleError(
            f"this Julia cannot build for {wanted.level}: its own image ({names}) has no vectors of"
            f" {8 * needed} bits, and Julia 1.11.0 and 1.11.1 do without them then",
            hint="use Julia 1.11.2 or newer, or leave the level out with --target",
        )


def check_targets(recorded: tuple[RecordedTarget, ...], wanted: Target, name: str) -> RecordedTarget:
    """Compare what an image records with what it was to be built for.

    Raises:
        BuildError: several targets, another name, or a feature more or less than the level asks for.
    """
    if len(recorded) != 1:
        names = ", ".join(one.name for one in recorded)
        raise BuildError(f"{name} records {len(recorded)} targets ({names}), not the one for {wanted.level}")
    (one,) = recorded
    more = sorted(one.features - wanted.recorded_features)
    less = sorted(wanted.recorded_features - one.features)
    faults = [f"it uses {' '.join(more)} beyond the level"] if more else []
    faults += [f"it lacks {' '.join(less)}"] if less else []
    faults += [f"it passes {one.unchecked!r} on unchecked"] if one.unchecked else []
    faults += [f"it is called {one.name}, not {wanted.recorded}"] if one.name != wanted.recorded else []
    if faults:
        raise BuildError(
            f"{name} is not an image for {wanted.level}: {'; '.join(faults)}",
            hint="this Julia does not treat -C as data/targets.toml expects; nothing was staged",
        )
    return one
