"""Julia's own hashes, where its caches depend on them.

Theory of operation. Three kinds occur. Names of directories and files, and checksums, are CRC-32C
(Castagnoli; ``_crc32c`` in ``base/util.jl``). UUIDs of extensions and the hash of preferences are made with
``hash``, which is MurmurHash3 of 128 bits for texts and Thomas Wang's mixer for numbers up to Julia 1.12
(``base/hashing.jl``, ``src/support/hashing.c``); 1.13 has another one, which is not here. What Julia would
hash in a way that is not here gives no number rather than a wrong one.
"""

import math
import struct
from collections.abc import Mapping
from typing import Any, Final

import google_crc32c

_MASK: Final = (1 << 64) - 1
_SLUG_SIGNS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_TEXT_SEED: Final = 0x71E729FD56419C81
_TUPLE_SEED: Final = 0x77CFA1EEF01BCA90
_UUID_SEED: Final = 0xD06FA04F86F11B53
_DICT_SEED: Final = 0x6D35BB51952D5539


def crc32c(data: bytes, start: int = 0) -> int:
    """CRC-32C, going on from ``start``."""
    return int(google_crc32c.extend(start, data))


def slug(value: int, length: int) -> str:
    """A number as Julia writes it into names (``slug``, 1.5.3 loading.jl:133)."""
    signs = ""
    for _ in range(length):
        value, digit = divmod(value, len(_SLUG_SIGNS))
        signs += _SLUG_SIGNS[digit]
    return signs


def package_slug(uuid: int) -> str:
    """With what the names of a package's cache files begin (``package_slug``, 1.5.3 loading.jl:143)."""
    return slug(crc32c(uuid.to_bytes(16, "little")), 5)


def version_slug(uuid: int, tree: bytes, length: int) -> str:
    """The directory of a package's version (``version_slug``, 1.5.3 loading.jl:148).

    Args:
        uuid: the package's.
        tree: its git-tree-sha1, 20 bytes.
        length: 5, or 4 as it once was.
    """
    return slug(crc32c(tree, crc32c(uuid.to_bytes(16, "little"))), length)


def hash_value(value: Any, seed: int = 0) -> int | None:
    """``hash(value, seed)`` of Julia 1.5 to 1.12 for what TOML can say; nothing for what is not known here.

    Texts, truth values, whole numbers of 64 bits, other numbers, and tables of these (``base/hashing.jl``,
    ``base/float.jl``, ``base/abstractdict.jl``).
    """
    match value:
        case str():
            return _hash_text(value.encode(), seed)
        case bool() | int() if -(1 << 63) <= value < 1 << 63:
            return _hash_word(int(value) & _MASK, seed)
        case float():
            # One that is a whole number hashes as that (base/float.jl, 1.10:638).
            if (
                value == value // 1
                and -(2.0**63) <= value < 2.0**63
                and not (value == 0 and str(value)[0] == "-")
            ):
                return _hash_word(int(value) & _MASK, seed)
            return None if math.isnan(value) else _hash_word(_bits(value), seed)
        case dict():
            return _hash_table(value, seed)
        case _:
            return None


def _bits(value: float) -> int:
    return int.from_bytes(struct.pack("<d", value), "little")


def _hash_table(table: Mapping[str, Any], seed: int) -> int | None:
    mixed = _DICT_SEED
    for key, value in table.items():
        inner = hash_value(value)
        if inner is None:
            return None
        mixed ^= _hash_text(key.encode(), inner)
    return _hash_word(mixed, seed)


def extension_uuid(parent: int, name: str) -> int:
    """The UUID of a package's extension in Julia 1.9 to 1.12 (``uuid5``, 1.10.6 loading.jl:147)."""
    mixed = _hash_uuid(parent)
    value = 0
    for _ in range(2):
        mixed = _hash_text(name.encode(), mixed)
        value = value << 64 | mixed
    return value & 0xFFFFFFFFFFFF0FFF3FFFFFFFFFFFFFFF | 0x50008000000000000000


def _hash_uuid(uuid: int) -> int:
    inner = _TUPLE_SEED
    for word in (uuid & _MASK, uuid >> 64):
        inner = _hash_word(word, inner)
    return _hash_word(_UUID_SEED, inner)


def _hash_word(word: int, seed: int) -> int:
    """``hash(::UInt64, seed)``."""
    word = (~word + (word << 21)) & _MASK
    word ^= word >> 24
    word = word * 265 & _MASK
    word ^= word >> 14
    word = word * 21 & _MASK
    word ^= word >> 28
    word = (word + (word << 31)) & _MASK
    return (word - 3 * seed) & _MASK


def _hash_text(text: bytes, seed: int) -> int:
    """``hash(::String, seed)``."""
    seed = (seed + _TEXT_SEED) & _MASK
    return (_murmur(text, seed & 0xFFFFFFFF) + seed) & _MASK


_C1: Final = 0x87C37B91114253D5
_C2: Final = 0x4CF5AD432745937F


def _murmur(data: bytes, seed: int) -> int:
    """The second half of MurmurHash3_x64_128."""
    first = second = seed
    whole = len(data) // 16 * 16
    for place in range(0, whole, 16):
        one, two = struct.unpack_from("<QQ", data, place)
        first ^= _rotate(one * _C1 & _MASK, 31) * _C2 & _MASK
        first = ((_rotate(first, 27) + second) * 5 + 0x52DCE729) & _MASK
        second ^= _rotate(two * _C2 & _MASK, 33) * _C1 & _MASK
        second = ((_rotate(second, 31) + first) * 5 + 0x38495AB5) & _MASK
    one, two = struct.unpack("<QQ", data[whole:].ljust(16, b"\0"))
    second ^= _rotate(two * _C2 & _MASK, 33) * _C1 & _MASK
    first ^= _rotate(one * _C1 & _MASK, 31) * _C2 & _MASK
    first ^= len(data)
    second ^= len(data)
    first = (first + second) & _MASK
    second = (second + first) & _MASK
    first, second = _finish(first), _finish(second)
    first = (first + second) & _MASK
    return (second + first) & _MASK


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> 64 - bits) & _MASK


def _finish(word: int) -> int:
    word ^= word >> 33
    word = word * 0xFF51AFD7ED558CCD & _MASK
    word ^= word >> 33
    word = word * 0xC4CEB9FE1A85EC53 & _MASK
    return word ^ word >> 33
