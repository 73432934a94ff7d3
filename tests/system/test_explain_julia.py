"""`headstart explain` against what real Julias say at JULIA_DEBUG=loading, with each reason made on purpose."""

import contextlib
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from cachemaker import rules_of
from headstart.cacheheader import read_front, read_header
from headstart.errors import CorruptError, IncompatibleError
from headstart.julia import JuliaVersion
from headstart.juliahash import package_slug
from headstart.reasons import Rule
from juliahelp import StockJulia
from projects import APP, LEAF, PRINTF, UNICODE

pytestmark = pytest.mark.slow

OTHER = "33333333-3333-4333-8333-333333333333"
PROJECT = f"""\
[deps]
App = "{APP}"

[extras]
Leaf = "{LEAF}"
"""
LOCK = f"""\
[[App]]
deps = ["Leaf", "Printf"]
path = "packages/App"
uuid = "{APP}"
version = "0.1.0"

[[Leaf]]
path = "packages/Leaf"
uuid = "{LEAF}"
version = "0.1.0"

[[Printf]]
deps = ["Unicode"]
uuid = "{PRINTF}"

[[Unicode]]
uuid = "{UNICODE}"
"""
FILES = {
    "Project.toml": PROJECT,
    "Manifest.toml": LOCK,
    "LocalPreferences.toml": '[Leaf]\ngreeting = "hello"\nlevel = 3\nloud = true\n',
    "packages/Leaf/Project.toml": f'name = "Leaf"\nuuid = "{LEAF}"\nversion = "0.1.0"\n',
    "packages/Leaf/data.txt": "some data\n",
    "packages/Leaf/src/inner.jl": "inner() = 1\n",
    "packages/Leaf/src/Leaf.jl": f"""\
module Leaf
include("inner.jl")
include_dependency("../data.txt")
if isdefined(Base, :record_compiletime_preference)
    for name in ("greeting", "level", "loud", "absent")
        Base.record_compiletime_preference(Base.UUID("{LEAF}"), name)
    end
end
twice(x) = 2x
end
""",
    "packages/App/Project.toml": (
        f'name = "App"\nuuid = "{APP}"\nversion = "0.1.0"\n[deps]\nLeaf = "{LEAF}"\nPrintf = "{PRINTF}"\n'
    ),
    "packages/App/src/App.jl": "module App\nusing Leaf, Printf\nmain() = Leaf.twice(21)\nend\n",
}
EXTRA = "55555555-5555-4555-8555-555555555555"
WITH_EXTENSION = {
    "Project.toml": PROJECT.replace("[deps]\n", f'[deps]\nExtra = "{EXTRA}"\n'),
    "Manifest.toml": LOCK
    + f"""
[[Extra]]
path = "packages/Extra"
uuid = "{EXTRA}"
version = "0.1.0"
weakdeps = ["Leaf"]

    [Extra.extensions]
    ExtraLeafExt = "Leaf"
""",
    "packages/Extra/Project.toml": (
        f'name = "Extra"\nuuid = "{EXTRA}"\nversion = "0.1.0"\n[weakdeps]\nLeaf = "{LEAF}"\n'
        '[extensions]\nExtraLeafExt = "Leaf"\n'
    ),
    "packages/Extra/src/Extra.jl": "module Extra end\n",
    "packages/Extra/ext/ExtraLeafExt.jl": "module ExtraLeafExt\nusing Extra, Leaf\nend\n",
}
"""What is added where packages have extensions."""
# What Julia does first for `using`: look for a good cache and load it; here nothing is compiled instead.
ASK = """\
id = Base.PkgId(Base.UUID(ARGS[2]), ARGS[1])
path = Base.locate_package(id)
function ask()
    if endswith(id.name, "Ext")
        # Loading what it extends would load it too, so it is only asked about.
        caches = Base.find_all_in_cache_path(id)
        good = any(Base.stale_cachefile(id, UInt128(0), path, cache) !== true for cache in caches)
        return good ? Main : nothing
    end
    VERSION < v"1.8-" && return Base._require_search_from_serialized(id, path)
    VERSION < v"1.9-" && return Base._require_search_from_serialized(id, path, UInt64(0))
    VERSION < v"1.11-" && return Base._require_search_from_serialized(id, path, UInt128(0))
    return Base._require_search_from_serialized(id, path, UInt128(0), true)
end
isdefined(Base, :require_lock) && lock(Base.require_lock)
found = path === nothing ? nothing : ask()
println(found isa Union{Module,Vector} ? "accepted" : "rejected")
"""


@dataclass(frozen=True, kw_only=True)
class World:
    """A depot with a project in it, both compiled by one Julia."""

    julia: StockJulia
    root: Path
    spare: Path
    """A copy, to bring everything back."""
    description: Path

    @property
    def depot(self) -> Path:
        return self.root / "depot"

    @property
    def project(self) -> Path:
        return self.depot / "project"

    def cache(self, name: str, ending: str = ".ji") -> Path:
        (found,) = self.depot.glob(f"compiled/v1.*/{name}/*{ending}")
        return found

    def environment(self, **env: str) -> dict[str, str]:
        depots = f"{self.depot}:{self.julia.share}"
        return self.julia.environment() | {"JULIA_DEPOT_PATH": depots} | env

    def start(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        argv = [str(self.julia.program), "--startup-file=no", "--color=no", f"--project={self.project}", *words]
        return subprocess.run(
            argv,
            env=self.environment(**env),
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def restore(self) -> None:
        shutil.rmtree(self.depot)
        shutil.copytree(self.spare, self.depot, symlinks=True)

    def explain(self, *words: str, options: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
        """What headstart says; by its description, unless options need another one."""
        which = ["--julia", str(self.julia.program)] if options else ["--description", str(self.description)]
        argv = [sys.executable, "-m", "headstart", "explain", str(self.depot), *which, "--json"]
        argv += ["--project", str(self.project), *words, *(("--", *options) if options else ())]
        env = {"PATH": "/usr/bin:/bin", "HOME": "/proc/nowhere"}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode in (0, 26), done.stderr
        return done.returncode, json.loads(done.stdout)

    def said(self, name: str, uuid: str, *options: str) -> tuple[str, str]:
        """What Julia does with a package's caches, and its words for it."""
        done = self.start(*options, str(self.root / "ask.jl"), name, uuid, JULIA_DEBUG="loading")
        return done.stdout.strip() or f"exit code {done.returncode}", done.stderr


@pytest.fixture(scope="module")
def world(julia: StockJulia, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The depot, compiled leaf first."""
    root = tmp_path_factory.mktemp("explain").resolve()
    made = World(julia=julia, root=root, spare=root / "spare", description=root / "julia.json")
    extended = julia.version >= JuliaVersion.parse("1.9")
    for name, text in (FILES | (WITH_EXTENSION if extended else {})).items():
        path = made.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "ask.jl").write_text(ASK)
    for name, uuid in (("Leaf", LEAF), ("App", APP)):
        done = made.start("-e", f'Base.require(Base.PkgId(Base.UUID("{uuid}"), "{name}"))')
        assert done.returncode == 0, done.stderr
    if extended:
        done = made.start("-e", f'Base.require(Base.PkgId(Base.UUID("{EXTRA}"), "Extra")); using App')
        assert done.returncode == 0, done.stderr
    shutil.copytree(made.depot, made.spare, symlinks=True)
    argv = [sys.executable, "-m", "headstart", "explain", "--describe", "--julia", str(julia.program)]
    env = {"PATH": "/usr/bin:/bin", "HOME": "/proc/nowhere"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    made.description.write_text(done.stdout)
    return made


@pytest.fixture
def fresh(world: World) -> Iterator[World]:
    """The depot as it was compiled; and again afterwards."""
    yield world
    world.restore()


# Ways to spoil it


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a cache, and let its own checksum be right again."""
    data = change(path.read_bytes()[:-4])
    path.write_bytes(data + struct.pack("<I", google_crc32c.value(data)))


def once(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1
    return data.replace(old, new, 1)


def other_version(world: World) -> None:
    text = str(world.julia.version)
    other = text[:-1] + chr(ord(text[-1]) ^ 1)
    rewrite(world.cache("Leaf"), lambda data: once(data, f"\0{text}\0".encode(), f"\0{other}\0".encode()))


def other_build_of(module: bytes) -> Callable[[World], None]:
    """As if the cache had been made under another system image: a module of it has another build id."""

    def change(world: World) -> None:
        size = len(module)
        entry = struct.pack("<i", size) + module + bytes(16)

        def altered(data: bytes) -> bytes:
            place = data.index(entry) + len(entry)
            return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

        rewrite(world.cache("Leaf"), altered)

    return change


def rebuilt_leaf(world: World) -> None:
    """Leaf compiled once more, App not."""
    shutil.rmtree(world.cache("Leaf").parent)
    done = world.start("-e", f'Base.require(Base.PkgId(Base.UUID("{LEAF}"), "Leaf"))')
    assert done.returncode == 0, done.stderr


def lock(change: Callable[[str], str]) -> Callable[[World], None]:
    def spoil(world: World) -> None:
        path = world.project / "Manifest.toml"
        text = path.read_text()
        assert change(text) != text
        path.write_text(change(text))

    return spoil


def moved_app(world: World) -> None:
    shutil.copytree(world.project / "packages/App", world.project / "packages/Moved")
    lock(lambda text: text.replace("packages/App", "packages/Moved"))(world)


def other_leaf(world: World) -> None:
    """A second package called Leaf; App now means that one."""
    place = world.project / "packages/Other/src"
    place.mkdir(parents=True)
    (place / "Leaf.jl").write_text("module Leaf end\n")
    (place.parent / "Project.toml").write_text(f'name = "Leaf"\nuuid = "{OTHER}"\n')
    text = LOCK.replace('deps = ["Leaf", "Printf"]\npath', "path").replace(
        'version = "0.1.0"\n\n[[Leaf]]',
        f'version = "0.1.0"\n\n    [App.deps]\n    Leaf = "{OTHER}"\n    Printf = "{PRINTF}"\n\n[[Leaf]]',
        1,
    )
    text += f'\n[[Leaf]]\npath = "packages/Other"\nuuid = "{OTHER}"\nversion = "0.1.0"\n'
    (world.project / "Manifest.toml").write_text(text)


def in_source(name: str, change: Callable[[str], str]) -> Callable[[World], None]:
    def spoil(world: World) -> None:
        path = world.project / "packages" / name
        path.write_text(change(path.read_text()))

    return spoil


def without(name: str) -> Callable[[World], None]:
    return lambda world: (world.project / "packages" / name).unlink()


def flipped(ending: str, back: int) -> Callable[[World], None]:
    """One bit of a file, so many bytes before its end."""

    def spoil(world: World) -> None:
        path = world.cache("Leaf", ending)
        data = bytearray(path.read_bytes())
        data[-back] ^= 1
        path.write_bytes(data)

    return spoil


def no_native(world: World) -> None:
    world.cache("Leaf", ".so").unlink()


def misplaced(world: World) -> None:
    """App's cache in Leaf's place."""
    for ending in (".ji", ".so")[: 2 if list(world.depot.glob("compiled/*/App/*.so")) else 1]:
        shutil.copyfile(world.cache("App", ending), world.cache("Leaf", ending))


def preferences(world: World) -> None:
    path = world.project / "LocalPreferences.toml"
    path.write_text(path.read_text().replace("hello", "good morning"))


def extension_changed(world: World) -> None:
    path = world.project / "packages/Extra/ext/ExtraLeafExt.jl"
    path.write_text(path.read_text().replace("using Extra, Leaf", "using Leaf, Extra"))
    os.utime(path, (5, 5))


def other_system_image(world: World) -> None:
    """A copy of Julia's own with one letter of a docstring changed: as another build of it would be."""
    image = Path(json.loads(world.description.read_text())["system_image"])
    (world.root / "other.so").write_bytes(once(image.read_bytes(), b"Return the", b"return the"))


def nothing(_world: World) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Case:
    """A reason, how to make it, and Julia's words for it."""

    spoil: Callable[[World], None] = nothing
    package: str = "Leaf"
    rule: Rule | None
    """None: Julia takes it."""
    said: str = ""
    """A regular expression for what Julia prints."""
    options: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """Of headstart."""
    since: str = "1.5"
    until: str = "1.14"


CASES = {
    "untouched": Case(rule=None),
    "untouched, with what it needs": Case(package="App", rule=None),
    "another version": Case(
        spoil=other_version, rule=Rule.HEADER, said="invalid cache header|incompatible cache header"
    ),
    "check-bounds": Case(
        rule=Rule.FLAGS, options=("--check-bounds=yes",), said="flags are mismatched", since="1.9"
    ),
    "check-bounds before there were flags": Case(rule=None, options=("--check-bounds=yes",), until="1.9"),
    "a higher optimisation level": Case(
        rule=Rule.FLAGS, options=("-O3",), said="flags are mismatched", since="1.9"
    ),
    "a lower optimisation level": Case(rule=None, options=("-O1",), since="1.9"),
    "debug level, exact": Case(
        rule=Rule.FLAGS, options=("-g0",), said="flags are mismatched", since="1.9", until="1.11.2"
    ),
    "no native code wanted": Case(
        rule=Rule.FLAGS, options=("--pkgimages=no",), said="flags are mismatched", since="1.9"
    ),
    "existing native code wanted": Case(rule=None, options=("--pkgimages=existing",), since="1.11"),
    "a CPU target below": Case(
        rule=Rule.CPU,
        options=("-C", "generic"),
        said="runtime-disabled features|can't be loaded on this target",
        since="1.9",
    ),
    "native code missing": Case(
        spoil=no_native, rule=Rule.NATIVE_MISSING, said="pkgimage .* was not found", since="1.9"
    ),
    "another package's cache": Case(
        spoil=misplaced, rule=Rule.OTHER_PACKAGE, said="since it is for .* instead", since="1.8"
    ),
    "another package's cache, before that was asked": Case(
        spoil=misplaced, rule=Rule.ENTRY, said="because it is for file", until="1.8"
    ),
    "another build of Base": Case(
        spoil=other_build_of(b"Base"),
        rule=Rule.SYSTEM_IMAGE,
        said="module .*Base.* is already loaded and incompatible",
    ),
    "another build of Core": Case(
        spoil=other_build_of(b"Core"),
        rule=Rule.SYSTEM_IMAGE,
        said="already loaded and incompatible|made with a different julia version",
    ),
    "another system image": Case(
        spoil=other_system_image,
        rule=Rule.SYSTEM_IMAGE,
        options=("-J", "{root}/other.so"),
        said="already loaded and incompatible|made with a different julia version",
        since="1.9",
    ),
    "another system image, before its content counted": Case(
        spoil=other_system_image, rule=None, options=("-J", "{root}/other.so"), until="1.9"
    ),
    "a dependency rebuilt": Case(
        spoil=rebuilt_leaf,
        package="App",
        rule=Rule.DEPENDENCY,
        said="[Rr]equired dependency .*Leaf.* (is missing from the cache|failed to load)",
    ),
    "a dependency's source changed": Case(
        spoil=in_source("Leaf/src/Leaf.jl", lambda text: text.replace("2x", "2x + 1 - 1")),
        package="App",
        rule=Rule.DEPENDENCY,
        said="[Rr]equired dependency .*Leaf.* (is missing from the cache|failed to load)",
    ),
    "a dependency not in the lock": Case(
        spoil=lock(lambda text: text.replace("[[Leaf]]", "[[Gone]]").replace(LEAF, OTHER)),
        package="App",
        rule=Rule.NOT_FOUND,
        said="because dependency .*Leaf.* not found",
    ),
    "entry file moved": Case(
        spoil=moved_app, package="App", rule=Rule.ENTRY, said="because it is for file .*packages/App/src/App.jl"
    ),
    "another package of that name": Case(
        spoil=other_leaf, package="App", rule=Rule.MAPPING, said="uuid mapping for .*App.* has changed"
    ),
    "source touched": Case(
        spoil=lambda world: (world.project / "packages/Leaf/src/inner.jl").touch(),
        rule=Rule.SOURCE_TIME,
        said="because file .*inner.jl .* has changed",
        until="1.11",
    ),
    "source touched, where content counts": Case(
        spoil=lambda world: (world.project / "packages/Leaf/src/inner.jl").touch(), rule=None, since="1.11"
    ),
    "source longer": Case(
        spoil=in_source("Leaf/src/inner.jl", lambda text: text + "# more\n"),
        rule=Rule.SOURCE_SIZE,
        said="file size of .*inner.jl has changed",
        since="1.11",
    ),
    "source changed": Case(
        spoil=in_source("Leaf/src/inner.jl", lambda text: text.replace("1", "2")),
        rule=Rule.SOURCE_CONTENT,
        said="hash of .*inner.jl has changed",
        since="1.11",
    ),
    "source missing": Case(
        spoil=without("Leaf/src/inner.jl"),
        rule=Rule.SOURCE_MISSING,
        said=r"inner.jl does not exist|inner.jl \(mtime 0.0\) has changed",
    ),
    "data missing": Case(
        spoil=without("Leaf/data.txt"),
        rule=Rule.SOURCE_MISSING,
        said=r"data.txt does not exist|data.txt \(mtime 0.0\) has changed",
        until="1.11",
    ),
    "data missing, where depots are looked for": Case(
        spoil=without("Leaf/data.txt"),
        rule=Rule.SOURCE_DEPOT,
        said="its depot could not be resolved",
        since="1.11",
    ),
    "cache damaged": Case(spoil=flipped(".ji", 40), rule=Rule.CHECKSUM, said="has an invalid checksum"),
    "native code damaged": Case(
        spoil=flipped(".so", 40),
        rule=Rule.NATIVE_CHECKSUM,
        said=r"\.so has an invalid checksum",
        words=("--checksums",),
        since="1.9",
    ),
    "an extension": Case(package="ExtraLeafExt", rule=None, since="1.9"),
    "an extension's source changed": Case(
        spoil=extension_changed,
        package="ExtraLeafExt",
        rule=Rule.SOURCE_TIME,
        said="because file .*ExtraLeafExt.jl .* has changed",
        since="1.9",
        until="1.11",
    ),
    "an extension's content changed": Case(
        spoil=extension_changed,
        package="ExtraLeafExt",
        rule=Rule.SOURCE_CONTENT,
        said="hash of .*ExtraLeafExt.jl has changed",
        since="1.11",
    ),
    "other preferences": Case(
        spoil=preferences, rule=Rule.PREFERENCES, said="preferences hash does not match", since="1.6"
    ),
    "other preferences, before there were any": Case(spoil=preferences, rule=None, until="1.6"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_julia_says(fresh: World, name: str) -> None:
    case = CASES[name]
    version = fresh.julia.version
    limits = [tuple(int(part) for part in text.split(".")) for text in (case.since, case.until)]
    if not limits[0] <= (version.major, version.minor, version.patch) < limits[1]:
        pytest.skip(f"not on {version}")
    case.spoil(fresh)
    options = tuple(option.format(root=fresh.root) for option in case.options)
    code, report = fresh.explain(*case.words, options=options)
    (found,) = [one for one in report["packages"] if one["name"] == case.package and one["caches"]]
    said, words = fresh.said(case.package, found["uuid"], *options)
    assert found["outcome"] == said, (found, words)
    if case.rule is None:
        assert found["outcome"] == "accepted", found
    else:
        assert found["rule"] == case.rule, found
        assert re.search(case.said, words), words
        assert code == 26


def test_a_cut_off_cache_stops_julia(fresh: World) -> None:
    path = fresh.cache("Leaf")
    path.write_bytes(path.read_bytes()[:200])
    _, report = fresh.explain()
    (found,) = [one for one in report["packages"] if one["name"] == "Leaf"]
    assert (found["outcome"], found["rule"]) == ("rejected", "damaged")
    said, words = fresh.said("Leaf", LEAF)
    assert said == "exit code 1"
    assert "EOFError" in words


def test_damaged_real_headers_are_named(world: World) -> None:
    chance = random.Random(7)
    rules = rules_of(str(world.julia.version))
    for name in ("Leaf", "App"):
        data = world.cache(name).read_bytes()
        assert read_header(data, rules).build.package.name == name
        for _ in range(400):
            spoiled = bytearray(data[: chance.choice((len(data), chance.randrange(1, len(data))))])
            for _ in range(chance.randrange(4)):
                spoiled[chance.randrange(min(len(spoiled), 1500))] = chance.randrange(256)
            with contextlib.suppress(CorruptError, IncompatibleError):
                read_front(bytes(spoiled))
                read_header(bytes(spoiled), rules)


def test_names_are_as_julia_makes_them(world: World) -> None:
    for name, uuid in (("Leaf", LEAF), ("App", APP)):
        assert world.cache(name).name.startswith(package_slug(int(uuid.replace("-", ""), 16)) + "_")


def test_another_depot_order_takes_the_newest_or_the_first(fresh: World) -> None:
    """Of two good caches the one that Julia takes is named."""
    cache = fresh.cache("Leaf")
    other = cache.with_name(cache.stem[:6] + "zzzzz.ji")
    shutil.copyfile(cache, other)
    if cache.with_suffix(".so").exists():
        shutil.copyfile(cache.with_suffix(".so"), other.with_suffix(".so"))
    _, report = fresh.explain()
    (found,) = [one for one in report["packages"] if one["name"] == "Leaf"]
    _, words = fresh.said("Leaf", LEAF)
    by_name = str(fresh.julia.version).startswith("1.5.")
    assert found["cache"] == str(cache if by_name and cache.name < other.name else other)
    assert len(found["caches"]) == 2
    assert "Rejecting" not in words
