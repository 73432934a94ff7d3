"""Julia's caches made by hand, and a machine of files in memory: what tests of ``explain`` are made of."""

import functools
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import google_crc32c

from headstart.cacheheader import (
    MAGIC,
    Build,
    CacheRules,
    Dependency,
    Front,
    PackageId,
    Request,
    cache_rules,
)
from headstart.datafiles import data_text
from headstart.environment import Environment
from headstart.julia import JuliaVersion
from headstart.juliahash import package_slug
from headstart.projectfiles import FileStat, ProjectFiles
from headstart.session import CacheFlags, Cpu, Session
from headstart.staleness import Examiner
from headstart.verdicts import Judge

CORE = PackageId("Core", 0)
BASE = PackageId("Base", 0)
LEAF = PackageId("Leaf", 0x11111111_1111_4111_8111_111111111111)
APP = PackageId("App", 0x22222222_2222_4222_8222_222222222222)
DEPOT = "/depot"
STDLIB = "/julia/share/julia/stdlib"
CHECKSUM = 0xFAFBFCFD00000000 | 0x1234


@functools.cache
def rules_of(version: str) -> CacheRules:
    return cache_rules(data_text("caches.toml"), JuliaVersion.parse(version))


def front_of(version: str) -> Front:
    return Front(
        format=rules_of(version).format,
        pointer_size=8,
        uname="Linux",
        arch="x86_64",
        version=version,
        branch="HEAD",
        commit="0" * 40,
    )


def targets(
    features: Mapping[int, int], *, name: str = "haswell", disabled: Mapping[int, int] | None = None
) -> bytes:
    """One CPU target; bits by the number of the word."""
    words = [features.get(number, 0) for number in range(11)]
    without = [(disabled or {}).get(number, 0) for number in range(11)]
    text = name.encode()
    return struct.pack(f"<III11I11II{len(text)}sI", 1, 0, 11, *words, *without, len(text), text, 0)


AVX2 = {2: 1 << 5}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A cache to be written."""

    front: Front
    checksum: int = CHECKSUM
    flags: int = 0
    provides: tuple[Build, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    included: tuple[str, ...] = ()
    requests: tuple[Request, ...] = ()
    preferences: tuple[str, ...] = ()
    preferences_hash: int = 0
    requires: tuple[Build, ...] = ()
    targets: bytes = b""
    native: bytes = b""
    """The .so beside it."""

    def to_bytes(self) -> bytes:
        """As Julia writes it (``write_header`` and what follows it, src/staticdata_utils.c)."""
        rules = rules_of(self.front.version)
        front = self.front
        out = MAGIC + struct.pack("<HHB", front.format, 0xFEFF, front.pointer_size)
        for word in (front.uname, front.arch, front.version, front.branch, front.commit):
            out += word.encode() + b"\0"
        if rules.native:
            out += struct.pack("<BQQQB", 0, self.checksum, 0, 0, self.flags)
        out += self._builds(self.provides, wide=False)
        listed = self._dependencies(rules)
        if rules.preferences:
            listed += b"".join(text(name) for name in self.preferences)
            listed += struct.pack("<iQ", 0, self.preferences_hash)
        out += struct.pack("<Q", len(listed) + 8) + listed
        place = len(out)
        rest = self._builds(self.requires, wide=rules.native)
        if rules.native:
            rest += struct.pack("<i", len(self.targets)) + self.targets
        out += struct.pack("<q", place + 8 + len(rest)) + rest
        for path in self.included:
            out += text(path) + struct.pack("<Q", 3) + b"end"
        out += struct.pack("<i", 0)
        if self.targets:
            out += struct.pack("<I", google_crc32c.value(self.native))
        return out + struct.pack("<I", google_crc32c.value(out))

    def _builds(self, builds: tuple[Build, ...], *, wide: bool) -> bytes:
        out = b""
        for package, build_id in builds:
            out += text(package.name) + struct.pack("<QQ", package.uuid >> 64, package.uuid & (1 << 64) - 1)
            if wide:
                out += struct.pack("<Q", build_id >> 64)
            out += struct.pack("<Q", build_id & (1 << 64) - 1)
        return out + struct.pack("<i", 0)

    def _dependencies(self, rules: CacheRules) -> bytes:
        out = b""
        for path, size, crc, time in self.dependencies:
            out += text(path) + (struct.pack("<QI", size, crc) if rules.content else b"")
            out += struct.pack("<d", time) + struct.pack("<i", 1) + text("Inner") + struct.pack("<i", 0)
        modules = [build.package for build in self.provides]
        for module, package in self.requests:
            packed = b"\0" + package.uuid.to_bytes(16, "little") + package.name.encode()
            out += struct.pack("<i", len(packed)) + packed
            out += struct.pack("<QI", 0, 0) if rules.content else b""
            number = modules.index(module) + 1 if module in modules else 0
            out += struct.pack("<di", 0.0, number) + (struct.pack("<i", 0) if number else b"")
        return out + struct.pack("<i", 0)


def text(word: str) -> bytes:
    raw = word.encode()
    return struct.pack("<i", len(raw)) + raw


@dataclass
class MemoryFiles:
    """Files in memory; a directory is what has files below it."""

    content: dict[str, bytes] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    """Paths that are another path's file."""
    unreadable: set[str] = field(default_factory=set)

    def stat(self, path: str) -> FileStat | None:
        path = self.same.get(path, path)
        directory = path not in self.content
        if directory and not any(one.startswith(path + "/") for one in self.content):
            return None
        return FileStat(
            device=1,
            inode=hash(path),
            size=len(self.content.get(path, b"")),
            mtime_ns=round(self.times.get(path, 0.0) * 1_000_000_000),
            directory=directory,
        )

    def read(self, path: str) -> bytes | None:
        return None if path in self.unreadable else self.content.get(self.same.get(path, path))

    def names(self, path: str) -> tuple[str, ...] | None:
        below = {one[len(path) + 1 :].partition("/")[0] for one in self.content if one.startswith(path + "/")}
        return tuple(sorted(below)) if below else None

    def crc32c(self, path: str) -> int | None:
        data = self.read(path)
        return None if data is None else google_crc32c.value(data)


SOURCE = b"module Leaf end\n"
PROJECT = "/depot/project"


class Machine:
    """A session of some Julia with App and Leaf in its project, and good caches of both."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.rules = rules_of(version)
        self.files = MemoryFiles()
        native = self.rules.native
        self.session = Session(
            front=front_of(version),
            version=JuliaVersion.parse(version),
            modules={CORE: 11, BASE: 12},
            flags=CacheFlags(byte=0b10_1_00_01_1 if native else 0),
            pkgimages=1 if native else 0,
            cpu=Cpu(features=frozenset({"avx2"}), lacks=None),
            targets="",
            system_image="/julia/lib/sys.so",
            stdlib=STDLIB,
            build_stdlib=STDLIB,
        )
        app, leaf = (f"{PROJECT}/packages/{name}/src/{name}.jl" for name in ("App", "Leaf"))
        self.sources = {APP: app, LEAF: leaf}
        uuids = {name.name: f"{name.uuid:032x}" for name in (APP, LEAF)}
        put = self.files.content
        put[f"{PROJECT}/Project.toml"] = (
            f'[deps]\nApp = "{uuids["App"]}"\n[extras]\nLeaf = "{uuids["Leaf"]}"\n'.encode()
        )
        put[f"{PROJECT}/Manifest.toml"] = (
            f'[[App]]\ndeps = ["Leaf"]\npath = "packages/App"\nuuid = "{uuids["App"]}"\n'
            f'[[Leaf]]\npath = "packages/Leaf"\nuuid = "{uuids["Leaf"]}"\n'
        ).encode()
        for package, path in self.sources.items():
            put[path] = SOURCE
            self.files.times[path] = 1000.5
            home = path.partition("/src/")[0]
            number = uuids[package.name]
            put[f"{home}/Project.toml"] = f'name = "{package.name}"\nuuid = "{number}"\n'.encode()
        self.leaf = self.made(LEAF, 21)
        self.app = self.made(APP, 22, requests=(Request(APP, LEAF),), needs=(self.build(self.leaf),))
        self.put(self.leaf)
        self.put(self.app)

    def made(
        self,
        package: PackageId,
        number: int,
        *,
        requests: tuple[Request, ...] = (),
        needs: tuple[Build, ...] = (),
    ) -> Made:
        path = self.sources[package]
        content = self.rules.content
        recorded = "@depot" + path[len(DEPOT) :] if content else path
        return Made(
            front=self.session.front,
            checksum=CHECKSUM + number if self.rules.native else 0,
            flags=self.session.flags.byte,
            provides=(Build(package, number),),
            dependencies=(
                Dependency(recorded, len(SOURCE), google_crc32c.value(SOURCE), -1.0 if content else 1000.5),
            ),
            included=(recorded,),
            requests=requests,
            requires=(*(Build(*pair) for pair in self.session.modules.items()), *needs),
            targets=targets(AVX2) if self.rules.native else b"",
            native=b"native code",
        )

    @staticmethod
    def build(made: Made) -> Build:
        return Build(made.provides[0].package, made.checksum << 64 | made.provides[0].build_id)

    def path(self, package: PackageId, rest: str = "aaaaa") -> str:
        version = self.session.version
        folder = f"{DEPOT}/compiled/v{version.major}.{version.minor}/{package.name}"
        return f"{folder}/{package_slug(package.uuid)}_{rest}.ji"

    def put(self, made: Made, *, rest: str = "aaaaa", time: float = 2000.0, of: PackageId | None = None) -> str:
        """Write a cache; its path."""
        path = self.path(of or made.provides[0].package, rest)
        self.files.content[path] = made.to_bytes()
        self.files.times[path] = time
        if made.targets:
            self.files.content[path.removesuffix(".ji") + ".so"] = made.native
        return path

    def start(self, **session: object) -> None:
        """Another session."""
        self.session = replace(self.session, **session)  # type: ignore[arg-type]

    def judge(
        self,
        *,
        depots: tuple[str, ...] = (DEPOT,),
        load_path: tuple[str, ...] = ("@", "@stdlib"),
        whole: bool = True,
    ) -> Judge:
        """A judge of this session."""
        projects = ProjectFiles(
            rules=self.rules,
            version=self.session.version,
            files=self.files,
            depots=depots,
            project=PROJECT,
            stdlib=STDLIB,
        )
        environment = Environment(projects, load_path)
        return Judge(
            Examiner(self.session, self.rules, environment, files=self.files, depots=depots, whole=whole)
        )
