r"""What a Julia cache says of itself: the header of a ``compiled/v1.N/*.ji`` file, read from its bytes.

Theory of operation. Every ``.ji`` since 1.5 begins alike (``write_header``, 1.5.3 dump.c:1326 and 1.9.4
staticdata_utils.c:627)::

    "\xfbjli\r\n\x1a\n"  u16 format  u16 byte order mark  u8 size of a pointer
    operating system, machine, version of Julia, git branch, git commit: texts that end with a zero byte

Julia compares this part byte by byte with its own (``jl_read_verify_header``), so whatever follows was
written by exactly the version that the session is of, and the session's version says how to read it. Then
come, all numbers in the machine's order (little-endian here), texts with their length as i32 before them,
lists ended by a length of 0::

    since 1.9:  u8 "this is native code's own file", u64 checksum of the content, its end, its start; u8 flags
    modules that the cache provides: name, UUID (u64 high, u64 low), u64 build id
    u64 size of what follows up to the position of the sources
      dependencies: path, since 1.11 u64 size and u32 CRC-32C, f64 time, i32 module (from 1, or 0), path in it
        a path that begins with a zero byte is no file but a package that was asked for: u128 UUID and name
      since 1.6: names of preferences, u64 their hash
    i64 where the texts of the sources begin
    modules that have to be loaded first: name, UUID, build id (u64; since 1.9 u64 high, u64 low)
    since 1.9:  the CPU targets of the native code, as in a system image (headstart.image); none without
    ...
    the sources: path, u64 size, text, for each; a length of 0; u32 CRC-32C of the .so (if any); of the .ji

(``parse_cache_header``: 1.5.3 loading.jl:1314, 1.6.7:1401, 1.10.6:2504, 1.11.1:3154.) Bytes from outside:
every length is checked against what is left, and nothing is allocated that the file does not hold.
"""

import struct
import uuid
from dataclasses import dataclass
from typing import Final, NamedTuple

from headstart.errors import CorruptError, IncompatibleError
from headstart.julia import JuliaVersion
from headstart.tomltable import TomlTable
from headstart.wording import counted

MAGIC: Final = b"\xfbjli\r\n\x1a\n"
_ORDER_MARK: Final = 0xFEFF
_KNOWN_FORMATS: Final = (11, 12)
_LONGEST_WORD: Final = 256
_U32: Final = struct.Struct("<I")
_I32: Final = struct.Struct("<i")
_U64: Final = struct.Struct("<Q")
_FRONT: Final = struct.Struct("<HHB")
_IDENTITY: Final = struct.Struct("<QQQ")
_WIDE_IDENTITY: Final = struct.Struct("<QQQQ")
_CONTENT: Final = struct.Struct("<QI")
_TIME: Final = struct.Struct("<d")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRules:
    """How a version of Julia writes and judges caches: a row of ``data/caches.toml``, which explains it."""

    format: int
    native: bool
    preferences: bool
    content: bool
    times: frozenset[str]
    debug_level_exact: bool
    candidates: str
    by_build_id: bool
    values_known: bool
    locks: tuple[str, ...]
    standard: bool
    workspaces: bool
    extensions: bool
    missing_stops: bool


def cache_rules(table: str, version: JuliaVersion) -> CacheRules:
    """Find a version's row.

    Args:
        table: the text of ``data/caches.toml``.
        version: of which Julia.

    Raises:
        IncompatibleError: no row holds for this version.
    """
    for row in TomlTable.parse(table, "data/caches.toml").tables("cache"):
        if version.within(JuliaVersion.parse(row.text("since")), JuliaVersion.parse(row.text("until"))):
            return CacheRules(
                format=row.number("format"),
                native=row.truth("native"),
                preferences=row.truth("preferences"),
                content=row.truth("content"),
                times=frozenset(row.texts("times")),
                debug_level_exact=row.text("debug_level") == "exact",
                candidates=row.text("candidates"),
                by_build_id=row.truth("by_build_id"),
                values_known=row.text("values") == "murmur",
                locks=row.texts("locks"),
                standard=row.truth("standard"),
                workspaces=row.truth("workspaces"),
                extensions=row.truth("extensions"),
                missing_stops=row.truth("missing_stops"),
            )
    raise IncompatibleError(
        f"this Headstart does not know the cache format of Julia {version}",
        hint="it knows 1.5 to 1.13; a newer Headstart may know this one",
    )


class PackageId(NamedTuple):
    """A package as Julia tells them apart (``PkgId``)."""

    name: str
    uuid: int
    """0 for one without."""

    def __str__(self) -> str:
        return f"{self.name} [{uuid.UUID(int=self.uuid)}]" if self.uuid else self.name


class Build(NamedTuple):
    """One build of a module."""

    package: PackageId
    build_id: int
    """64 bits; since 1.9, 128: the upper half is a checksum of the image that holds the module."""


class Dependency(NamedTuple):
    """A file that a cache was made from."""

    path: str
    """As recorded: absolute, or since 1.11 ``@depot/...``."""
    size: int
    crc: int
    time: float
    """Seconds; -1 where size and CRC count instead (since 1.11)."""


class Request(NamedTuple):
    """A package that a module asked for by name, and what it got."""

    module: PackageId
    package: PackageId


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What stands first, and must equal the session's Julia."""

    format: int
    pointer_size: int
    uname: str
    arch: str
    version: str
    branch: str
    commit: str

    def differences(self, other: "Front") -> tuple[str, ...]:
        """In which fields, in the order in which Julia compares them."""
        return tuple(name for name in FRONT_FIELDS if getattr(self, name) != getattr(other, name))


FRONT_FIELDS: Final = {
    "format": "format",
    "pointer_size": "size of a pointer",
    "uname": "operating system",
    "arch": "machine",
    "version": "version of Julia",
    "branch": "git branch",
    "commit": "git commit",
}
"""The fields of ``Front``, and what a person calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheHeader:
    """A cache's header."""

    front: Front
    checksum: int
    """Of the content; the upper half of the build ids that the cache provides. 0 up to 1.8."""
    flags: int
    """The options that it was compiled with (``jl_cache_flags``); 0 up to 1.8."""
    provides: tuple[Build, ...]
    """Build ids of 64 bits; the first one is the package itself."""
    dependencies: tuple[Dependency, ...]
    """The first one is the package's own entry file."""
    sources: frozenset[str]
    """Which of them were included, and so must all be in one depot; since 1.11 only."""
    requests: tuple[Request, ...]
    preferences: tuple[str, ...]
    preferences_hash: int
    requires: tuple[Build, ...]
    targets: bytes
    """CPU targets of the native code, to be decoded by ``headstart.image``; empty without native code."""

    @property
    def build(self) -> Build:
        """What the cache is of, with its whole build id."""
        first = self.provides[0]
        return Build(first.package, self.checksum << 64 | first.build_id)


class _Cursor:
    """Reading on, with every length checked."""

    def __init__(self, data: bytes, place: int) -> None:
        self.data = data
        self.place = place
        self._packages: dict[bytes, PackageId] = {}

    def take(self, form: struct.Struct) -> tuple[int, ...]:
        place = self.place
        self.place = place + form.size
        if self.place > len(self.data):
            raise CorruptError("it ends within its header")
        return form.unpack_from(self.data, place)

    def number(self, form: struct.Struct = _U64) -> int:
        return self.take(form)[0]

    def time(self) -> float:
        return float(self.number(_TIME))

    def length(self) -> int:
        length = self.number(_I32)
        if not 0 <= length <= len(self.data) - self.place:
            raise CorruptError(f"it tells of a text of {counted(length, 'byte')}, which are not there")
        return length

    def raw(self, length: int) -> bytes:
        place = self.place
        self.place = place + length
        return self.data[place : self.place]

    def package(self, length: int) -> PackageId:
        """A name of this length, and the UUID behind it."""
        raw = self.data[self.place : self.place + length + 16]
        known = self._packages.get(raw)
        if known is None:
            name = _text(raw[:length])
            high, low = struct.unpack("<QQ", raw[length:]) if len(raw) == length + 16 else (0, 0)
            known = self._packages[raw] = PackageId(name, high << 64 | low)
        self.place += length
        return known


def _text(raw: bytes) -> str:
    """Paths are bytes to Linux; what is no UTF-8 is kept as Python keeps it."""
    return raw.decode("utf-8", "surrogateescape")


def read_front(data: bytes) -> tuple[Front, int]:
    """The first part, and where the rest begins.

    Raises:
        CorruptError: it is no cache, or is cut off.
        IncompatibleError: a format that this Headstart does not know.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise CorruptError("it does not begin as a cache of Julia does")
    cursor = _Cursor(data, len(MAGIC))
    form, mark, pointer_size = cursor.take(_FRONT)
    if mark != _ORDER_MARK:
        raise CorruptError("it was written in another order of bytes")
    if form not in _KNOWN_FORMATS:
        raise IncompatibleError(f"its format is {form}, which this Headstart does not know")
    place = cursor.place
    words = []
    for _ in range(5):
        end = data.find(b"\0", place, place + _LONGEST_WORD)
        if end < 0:
            raise CorruptError("one of the words at its beginning does not end")
        words.append(_text(data[place:end]))
        place = end + 1
    uname, arch, version, branch, commit = words
    front = Front(
        format=form,
        pointer_size=pointer_size,
        uname=uname,
        arch=arch,
        version=version,
        branch=branch,
        commit=commit,
    )
    return front, place


def read_header(data: bytes, rules: CacheRules) -> CacheHeader:
    """The whole header of a cache.

    Args:
        data: the whole file.
        rules: how the Julia writes that its first part names.

    Raises:
        CorruptError: it is no cache, is cut off or contradicts itself, or is native code's own file.
        IncompatibleError: a format that this Headstart does not know.
    """
    front, place = read_front(data)
    if front.format != rules.format:
        raise CorruptError(f"its format is {front.format} where this Julia writes {rules.format}")
    cursor = _Cursor(data, place)
    checksum = flags = 0
    if rules.native:
        if cursor.number(struct.Struct("<B")):
            raise CorruptError("it is the inner part of native code")
        checksum, _, _ = cursor.take(_IDENTITY)
        if checksum == 0:
            raise CorruptError("it was never finished: its checksum is 0")
        flags = cursor.number(struct.Struct("<B"))
    provides = _builds(cursor, wide=False)
    start = cursor.place
    size = cursor.number()
    dependencies, requests = _dependencies(cursor, rules, provides)
    preferences, preferences_hash = _preferences(cursor) if rules.preferences else ((), 0)
    sources_at = cursor.number(struct.Struct("<q"))
    if cursor.place - start - 8 != size:
        raise CorruptError("the size of its list of dependencies is not what it says")
    requires = _builds(cursor, wide=rules.native)
    targets = cursor.raw(cursor.length()) if rules.native else b""
    return CacheHeader(
        front=front,
        checksum=checksum,
        flags=flags,
        provides=provides,
        dependencies=dependencies,
        sources=_sources(data, sources_at) if rules.content else frozenset(),
        requests=requests,
        preferences=preferences,
        preferences_hash=preferences_hash,
        requires=requires,
        targets=targets,
    )


def _builds(cursor: _Cursor, *, wide: bool) -> tuple[Build, ...]:
    builds = []
    while length := cursor.length():
        package = cursor.package(length)
        if wide:
            _, _, high, low = cursor.take(_WIDE_IDENTITY)
            builds.append(Build(package, high << 64 | low))
        else:
            builds.append(Build(package, cursor.take(_IDENTITY)[2]))
    return tuple(builds)


def _dependencies(
    cursor: _Cursor, rules: CacheRules, provides: tuple[Build, ...]
) -> tuple[tuple[Dependency, ...], tuple[Request, ...]]:
    files: list[Dependency] = []
    requests: list[Request] = []
    while length := cursor.length():
        path = cursor.raw(length)
        size, crc = cursor.take(_CONTENT) if rules.content else (0, 0)
        time = cursor.time()
        number = cursor.number(_I32)
        if not 0 <= number <= len(provides):
            raise CorruptError(f"it tells of module {number}, and provides {len(provides)}")
        module = provides[number - 1].package if number else PackageId("", 0)
        if number:
            while inner := cursor.length():
                cursor.raw(inner)
        if path[0]:
            files.append(Dependency(_text(path), size, crc, time))
        else:
            requests.append(Request(module, _requested(path)))
    return tuple(files), tuple(requests)


def _requested(packed: bytes) -> PackageId:
    """``binunpack``, 1.5.3 loading.jl:197."""
    if len(packed) < 17:
        raise CorruptError("it tells of a package without a UUID")
    return PackageId(_text(packed[17:]), int.from_bytes(packed[1:17], "little"))


def _preferences(cursor: _Cursor) -> tuple[tuple[str, ...], int]:
    names = []
    while length := cursor.length():
        names.append(_text(cursor.raw(length)))
    return tuple(names), cursor.number()


def _sources(data: bytes, place: int) -> frozenset[str]:
    """Names of the sources whose text the cache holds (``srctext_files``, 1.11.1 loading.jl:3399)."""
    if place == 0:
        return frozenset()
    if not 0 < place <= len(data):
        raise CorruptError("its sources are said to be outside of it")
    cursor = _Cursor(data, place)
    names = set()
    while cursor.place < len(data) and (length := cursor.length()):
        names.add(_text(cursor.raw(length)))
        size = cursor.number()
        if size > len(data) - cursor.place:
            raise CorruptError("one of its sources ends outside of it")
        cursor.place += size
    return frozenset(names)


def checksums(data: bytes, *, native: bool) -> tuple[int, int]:
    """What a cache records at its end: the CRC-32C of itself, and that of the native code beside it.

    ``isvalid_file_crc`` and ``isvalid_pkgimage_crc``, 1.10.6 loading.jl:2487. Without native code
    the second is 0.

    Raises:
        CorruptError: it is shorter than these.
    """
    if len(data) < 8:
        raise CorruptError("it is shorter than its checksums")
    own = _U32.unpack_from(data, len(data) - 4)[0]
    return own, _U32.unpack_from(data, len(data) - 8)[0] if native else 0
