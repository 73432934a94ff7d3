"""Whether a cache is good by itself: ``stale_cachefile`` as a function of values.

Theory of operation. Julia asks a fixed list of questions of a cache, in one order since 1.5 (base/loading.jl,
1.5.3:1427, 1.6.7:1726, 1.8.5:2065, 1.9.4:2711, 1.10.6:3007, 1.11.1:3644), and the first no ends it.
``Examiner`` asks the same questions in that order. A question whose answer cannot be had from files is *not
known*: the others are still asked, because a no among them decides all the same. The two questions of
precompilation workers ("concrete dependencies") are left out; what a cache needs of other caches is
``headstart.verdicts``.
"""

import math
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from headstart.cacheheader import (
    FRONT_FIELDS,
    Build,
    CacheHeader,
    CacheRules,
    Dependency,
    PackageId,
    checksums,
    read_front,
    read_header,
)
from headstart.environment import Environment
from headstart.errors import CorruptError, IncompatibleError
from headstart.image import RecordedTarget, decode_targets
from headstart.juliahash import crc32c, hash_value
from headstart.projectfiles import Files, NotKnownError
from headstart.reasons import Rejection, Rule
from headstart.session import CacheFlags, Session
from headstart.wording import counted

_DEPOT: Final = "@depot"
_ROOTS: Final = (PackageId("Core", 0), PackageId("Base", 0), PackageId("Main", 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """No rule speaks against the cache by itself; what it needs is another question."""

    build: Build
    requires: tuple[Build, ...]
    """What the system image does not bring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Nothing speaks against it, but not everything is known."""

    build: Build | None
    requires: tuple[Build, ...]
    reasons: tuple[str, ...]


Finding = Rejection | Fresh | Doubt


@dataclass(frozen=True, slots=True)
class Unknown:
    """A question without an answer."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A cache that was looked at."""

    header: CacheHeader | None
    """None where it could not be read, or another Julia wrote it."""
    finding: Finding


class Examiner:
    """Asks Julia's questions of caches, for one fresh session.

    Args:
        session: the Julia.
        rules: those of its version.
        environment: what its names mean.
        files: where it looks.
        depots: ``DEPOT_PATH``, absolute.
        whole: read native code too, to check its checksum as Julia does at every load.
    """

    def __init__(
        self,
        session: Session,
        rules: CacheRules,
        environment: Environment,
        *,
        files: Files,
        depots: tuple[str, ...],
        whole: bool,
    ) -> None:
        self.session = session
        self.rules = rules
        self.environment = environment
        self.files = files
        self.depots = depots
        self._whole = whole
        self._examined: dict[str, Examined] = {}
        self._decoded: dict[bytes, tuple[RecordedTarget, ...]] = {}

    def examine(self, package: PackageId, path: str) -> Examined:
        """Look at a cache, as one of this package."""
        known = self._examined.get(path)
        if known is None:
            known = self._examined[path] = self._examine(package, path)
        return known

    def _examine(self, package: PackageId, path: str) -> Examined:
        data = self.files.read(path)
        if data is None:
            return Examined(header=None, finding=Rejection(rule=Rule.UNREADABLE, detail="it cannot be read"))
        try:
            header = self._header(data)
        except _NoError as no:
            return Examined(header=None, finding=no.rejection)
        return Examined(header=header, finding=self._found(package, path, header, data))

    def _header(self, data: bytes) -> CacheHeader:
        ours = self.session.front
        try:
            front, _ = read_front(data)
        except (CorruptError, IncompatibleError) as error:
            raise _NoError(Rule.HEADER, error.message) from error
        differing = front.differences(ours)
        if differing:
            field = "version" if "version" in differing else differing[0]
            here, there = (str(getattr(one, field)) or "empty" for one in (ours, front))
            raise _NoError(
                Rule.HEADER,
                f"made by another Julia: its {FRONT_FIELDS[field]} is {there}, the session's is {here}",
            )
        try:
            header = read_header(data, self.rules)
        except (CorruptError, IncompatibleError) as error:
            raise _NoError(Rule.DAMAGED, error.message) from error
        if not header.provides or not header.dependencies:
            raise _NoError(Rule.DAMAGED, "it provides nothing, or names no source")
        return header

    def _found(self, package: PackageId, path: str, header: CacheHeader, data: bytes) -> Finding:
        doubts = []
        for answer in self._questions(package, path, header, data):
            if isinstance(answer, Rejection):
                return answer
            doubts.append(answer.reason)
        requires = tuple(build for build in header.requires if build.package not in self.session.modules)
        if doubts:
            return Doubt(build=header.build, requires=requires, reasons=tuple(doubts))
        return Fresh(build=header.build, requires=requires)

    def _questions(
        self, package: PackageId, path: str, header: CacheHeader, data: bytes
    ) -> Iterator[Rejection | Unknown]:
        """Every no and every doubt, in Julia's order."""
        if self.rules.native:
            yield from self._native(path, header)
        # Up to 1.7 nobody asks; another package's entry file then gives it away.
        if self.rules.by_build_id and header.build.package != package:
            yield Rejection(rule=Rule.OTHER_PACKAGE, detail=f"it is for {header.build.package} instead")
        yield from self._modules(header)
        try:
            yield from self._sources(package, header)
        except NotKnownError as error:
            yield Unknown(str(error))
        yield from self._checksums(path, header, data)
        yield from self._preferences(package, header)

    def _native(self, path: str, header: CacheHeader) -> Iterator[Rejection | Unknown]:
        session = self.session
        cache = CacheFlags(byte=header.flags)
        if not flags_match(session.flags, cache, pkgimages=session.pkgimages, rules=self.rules):
            yield Rejection(
                rule=Rule.FLAGS, detail=f"the session wants {session.flags}; it was made with {cache}"
            )
        if not header.targets:
            return
        if session.pkgimages == 0:
            yield Rejection(rule=Rule.NATIVE_UNWANTED, detail="the session has --pkgimages=no")
        try:
            yield from self._cpu(self._targets(header.targets))
        except CorruptError as error:
            yield Rejection(rule=Rule.DAMAGED, detail=f"the record of its CPU targets is damaged ({error})")
        code = native_path(path)
        found = self.files.stat(code)
        if found is None or found.directory:
            yield Rejection(rule=Rule.NATIVE_MISSING, detail=f"{posixpath.basename(code)} is not there")

    def _targets(self, data: bytes) -> tuple[RecordedTarget, ...]:
        """Decoded; most caches of a depot have the same."""
        if data not in self._decoded:
            self._decoded[data] = decode_targets(data)
        return self._decoded[data]

    def _cpu(self, targets: tuple[RecordedTarget, ...]) -> Iterator[Rejection | Unknown]:
        """One target that uses nothing which the session does without is enough (``match_sysimg_targets``)."""
        cpu = self.session.cpu
        names = " and ".join(target.name for target in targets)
        if cpu.lacks is not None:
            missing = [target.features & cpu.lacks for target in targets]
        elif cpu.features:
            missing = [
                frozenset(one for one in target.features - cpu.features if not one.startswith("cpuid:"))
                for target in targets
            ]
            unsure = [target.features - cpu.features for target in targets]
            if all(unsure) and not all(missing):
                yield Unknown(f"/proc/cpuinfo has no word for {' '.join(_least(unsure))}, which its code uses")
        else:
            yield Unknown("the features of the session's CPU")
            return
        if all(missing):
            lacking = " ".join(_least(missing))
            yield Rejection(
                rule=Rule.CPU, detail=f"its code is for {names}, and the session's CPU lacks {lacking}"
            )

    def _modules(self, header: CacheHeader) -> Iterator[Rejection | Unknown]:
        modules = self.session.modules
        for wanted in header.requires:
            here = modules.get(wanted.package)
            if here == wanted.build_id:
                continue
            name = wanted.package.name
            if here is not None:
                what = "it was made under another system image, or another build of this Julia"
                what = what if wanted.package in _ROOTS else f"it was made with another build of {name}"
                yield Rejection(
                    rule=Rule.SYSTEM_IMAGE,
                    detail=f"{what}: {name} here is {here:x}, and it wants {wanted.build_id:x}",
                )
                continue
            try:
                if self.environment.locate(wanted.package) is None:
                    yield Rejection(
                        rule=Rule.NOT_FOUND,
                        detail=f"it needs {wanted.package}, which no environment of the session has",
                    )
            except NotKnownError as error:
                yield Unknown(str(error))

    # Sources

    def _sources(self, package: PackageId, header: CacheHeader) -> Iterator[Rejection | Unknown]:
        paths = self._resolved(header)
        entry = paths[0]
        located = self.environment.locate(package)
        if located is not None and not self._same(entry, located):
            fixed = self._fixed(entry)
            if not self.rules.native or not self._same(fixed, located):
                yield Rejection(
                    rule=Rule.ENTRY, detail=f"it is for {entry}, and the session would load {located}"
                )
        for request in header.requests:
            found = self.environment.identify(request.module, request.package.name)
            if found != request.package:
                now = str(found) if found else "nothing"
                yield Rejection(
                    rule=Rule.MAPPING,
                    detail=(
                        f"{request.module.name} asked for {request.package} by name, and would now get {now}"
                    ),
                )
        for path, dependency in zip(paths, header.dependencies, strict=True):
            yield from self._source(path, dependency)

    def _resolved(self, header: CacheHeader) -> tuple[str, ...]:
        """Paths with ``@depot`` replaced where Julia would (``parse_cache_header``, 1.11.1 loading.jl:3241)."""
        paths = [dependency.path for dependency in header.dependencies]
        if not self.rules.content:
            return tuple(paths)
        depots = {self._depot_of(path) for path in header.sources} - {None}
        (home,) = depots if len(depots) == 1 else (None,)
        return tuple(
            _restored(path, home if path in header.sources else self._depot_of(path)) for path in paths
        )

    def _depot_of(self, path: str) -> str | None:
        if not path.startswith(_DEPOT + "/"):
            return None
        return next(
            (depot for depot in self.depots if self.files.stat(_restored(path, depot)) is not None), None
        )

    def _source(self, path: str, dependency: Dependency) -> Iterator[Rejection]:
        if self.rules.content and path.startswith(_DEPOT + "/"):
            yield Rejection(
                rule=Rule.SOURCE_DEPOT, detail=f"not all of its sources are in one depot: {path} is not found"
            )
            return
        found = self.files.stat(path)
        if found is None:
            fixed = self._fixed(path)
            moved = self.rules.native and fixed.startswith(self.session.stdlib)
            at = self.files.stat(fixed) if moved else None
            if at is None or at.directory:
                yield Rejection(rule=Rule.SOURCE_MISSING, detail=f"{path} does not exist")
            return
        if not self.rules.content or dependency.time >= 0:
            if not times_match(found.mtime, dependency.time, self.rules):
                yield Rejection(
                    rule=Rule.SOURCE_TIME,
                    detail=f"{path} is of {found.mtime!r} (seconds since 1970), before {dependency.time!r}",
                )
        elif found.size != dependency.size:
            yield Rejection(
                rule=Rule.SOURCE_SIZE,
                detail=f"{path} has {counted(found.size, 'byte')}, recorded were {dependency.size}",
            )
        elif self._content(path, directory=found.directory) != dependency.crc:
            yield Rejection(rule=Rule.SOURCE_CONTENT, detail=f"the content of {path} has changed")

    def _content(self, path: str, *, directory: bool) -> int | None:
        if not directory:
            return self.files.crc32c(path)
        names = self.files.names(path)
        return None if names is None else crc32c("".join(names).encode("utf-8", "surrogateescape"))

    def _same(self, one: str, other: str) -> bool:
        """``samefile``."""
        first, second = self.files.stat(one), self.files.stat(other)
        if first is None or second is None:
            return False
        return (first.device, first.inode) == (second.device, second.inode)

    def _fixed(self, path: str) -> str:
        """``fixup_stdlib_path``, base/methodshow.jl: where the standard library was when Julia was built."""
        built, here = (
            posixpath.normpath(self.session.build_stdlib),
            posixpath.normpath(self.session.stdlib),
        )
        if built == here:
            return path
        plain = posixpath.normpath(path)
        fixed = plain.replace(built, here)
        return path if fixed == plain else fixed

    # The end

    def _checksums(self, path: str, header: CacheHeader, data: bytes) -> Iterator[Rejection]:
        try:
            own, native = checksums(data, native=bool(header.targets))
        except CorruptError as error:
            yield Rejection(rule=Rule.CHECKSUM, detail=error.message)
            return
        if crc32c(data[:-4]) != own:
            yield Rejection(rule=Rule.CHECKSUM, detail="its bytes are not those that were written")
        if header.targets and self._whole:
            code = native_path(path)
            if self.files.crc32c(code) != native:
                yield Rejection(
                    rule=Rule.NATIVE_CHECKSUM,
                    detail=f"{posixpath.basename(code)} is not the file that was written with it",
                )

    def _preferences(self, package: PackageId, header: CacheHeader) -> Iterator[Rejection | Unknown]:
        if not self.rules.preferences:
            return
        mixed: int | None = 0
        if package.uuid and header.preferences:
            found = self.environment.preferences(package)
            for name in header.preferences:
                value = found.get(name)
                if value is not None and mixed is not None:
                    mixed = hash_value(value, mixed) if self.rules.values_known else None
        names = ", ".join(header.preferences)
        if mixed is None:
            yield Unknown(f"how this Julia hashes the preferences {names}")
        elif mixed != header.preferences_hash:
            hashes = f"their hash is {mixed:x}, and was {header.preferences_hash:x}"
            yield Rejection(
                rule=Rule.PREFERENCES, detail=f"it was made with other values of {names or 'none'}: {hashes}"
            )


def _least(missing: list[frozenset[str]]) -> list[str]:
    """The fewest features of any target."""
    return min((sorted(one) for one in missing), key=len)


class _NoError(Exception):
    """A no before there is a header to ask about."""

    def __init__(self, rule: Rule, detail: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(rule=rule, detail=detail)


def native_path(path: str) -> str:
    """Where the native code of a cache is (``ocachefile_from_cachefile``), on Linux."""
    return posixpath.splitext(path)[0] + ".so"


def _restored(path: str, depot: str | None) -> str:
    return path if depot is None or not path.startswith(_DEPOT) else depot + path[len(_DEPOT) :]


def flags_match(wanted: CacheFlags, cache: CacheFlags, *, pkgimages: int, rules: CacheRules) -> bool:
    """``jl_match_cache_flags``: 1.9.4 staticdata_utils.c:601, 1.11.1:619.

    Args:
        wanted: the session's.
        cache: the cache's.
        pkgimages: ``--pkgimages`` of the session: 0, 1, or 2 for "existing".
        rules: of the session's version.
    """
    if not wanted.native and not cache.native:
        return True
    found = cache.byte & ~1 if pkgimages == 2 else cache.byte
    exact = 0b00111111 if rules.debug_level_exact else 0b00111001
    if (found ^ wanted.byte) & exact:
        return False
    if not rules.debug_level_exact and cache.debug_level < wanted.debug_level:
        return False
    return cache.optimise >= wanted.optimise


def times_match(now: float, recorded: float, rules: CacheRules) -> bool:
    """Whether a source's time is as good as the recorded one (``stale_cachefile``); seconds."""
    if now == recorded:
        return True
    if not math.isfinite(recorded):
        return False
    times = rules.times
    scaled = recorded * 1e6
    return (
        ("floor" in times and now == math.floor(recorded))
        or ("microsecond" in times and math.isfinite(scaled) and now == math.trunc(scaled) / 1e6)
        or ("one" in times and now == 1.0)
        or ("below" in times and 0 < recorded - now < 1e-6)
        or ("ceil" in times and now == math.ceil(recorded))
    )
