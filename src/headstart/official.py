"""Official builds of Julia, fetched once and kept; and the choice of the Julia that a build uses.

Theory of operation. Below the folder, which is the user's own::

    <version>-<12 hexadecimal digits>/official.json    where it came from, and the archive's SHA-256
    <version>-<12 hexadecimal digits>/julia/           the archive, unpacked
    work/<random>/                                     what is under way
    lock

A build is unpacked in ``work`` and comes to its place by one rename, so what has a place is whole whenever a
process is killed. One process at a time fetches, under a lock that the kernel takes away with it; the others
wait and then find what it has brought. Whoever holds the lock clears what an earlier one left in ``work``.

Nothing is forced to the disk. Instead the record holds a digest of the tree, which is compared before each use:
what a power cut or a careless hand has changed is refused.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Self

from headstart.directories import make_directories, others_may_write
from headstart.errors import (
    CacheError,
    ConfigurationError,
    CorruptError,
    Error,
    MissingToolError,
    UnavailableError,
)
from headstart.julia import Archive, Found, JuliaOrigin, JuliaRequest, JuliaVersion, newest
from headstart.machine import JuliaInstall, find_julia
from headstart.names import Sha256
from headstart.process import Command, Finished, Runner
from headstart.record import Table, canonical

_SCHEMA: Final = 1
_RECORD: Final = "official.json"
HOST_MARK: Final = "headstart-juliahost: "
"""What a failure begins with, of the program that fetches."""
_PROGRAM: Final = "import sys; from headstart.juliahost import main; sys.exit(main(sys.argv[1:]))"
_ENDING: Final = ".tar.gz"
_FAMILIES: Final = {family.exit_code: family for family in (UnavailableError, CorruptError, CacheError)}
_WAYS: Final = (
    "name a Julia with --julia PROGRAM or bring an official archive with --julia julia-VERSION.tar.gz, "
    'or say julia = "system" in Headstart.toml'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """An official build on this machine."""

    archive: Archive
    tree: str
    """Digest of the unpacked tree."""
    folder: str

    @property
    def prefix(self) -> str:
        """Julia's prefix."""
        return os.path.join(self.folder, "julia")

    @property
    def program(self) -> str:
        """The program to start."""
        return os.path.join(self.prefix, "bin", "julia")

    def to_bytes(self) -> bytes:
        """The stored form."""
        return canonical({"schema": _SCHEMA, "tree": self.tree, **_to_json(self.archive)})

    @classmethod
    def read(cls, folder: str) -> Self:
        """Read the record of a build that has its place.

        Raises:
            CorruptError: there is none, or it is no such record.
        """
        path = os.path.join(folder, _RECORD)
        try:
            with open(path, "rb") as file:
                record = Table.of(file.read(), path, _SCHEMA)
        except OSError as error:
            raise CorruptError(f"{path} cannot be read ({error.strerror})", hint=f"remove {folder}") from error
        return cls(archive=_from_json(record), tree=record.text("tree"), folder=folder)


def _to_json(archive: Archive) -> dict[str, Any]:
    return {
        "version": str(archive.version),
        "url": archive.url,
        "sha256": archive.sha256.hex,
        "size": archive.size,
    }


def _from_json(record: Table) -> Archive:
    return Archive(
        version=record.named("version", JuliaVersion.parse),
        url=record.text("url"),
        sha256=record.named("sha256", Sha256),
        size=record.number("size"),
    )


class OfficialBuilds:
    """The official builds that this user has, and the way to get more.

    Args:
        folder: where they are kept.
        versions: URL of the list of versions; empty for Julia's own.
        env: the user's environment, with what says how to reach the network.
        run: starts programs.
        digest: names the content of a directory.
        say: tells the user what takes time.
    """

    def __init__(
        self,
        folder: str,
        *,
        versions: str,
        env: Mapping[str, str],
        run: Runner,
        digest: Callable[[str], str],
        say: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self._versions = versions
        # Settings of the library's own, and depots that it would look for, are of no concern here.
        self._env = {
            name: value for name, value in env.items() if not name.startswith(("JULIA", "PYTHON_JULIAPKG"))
        }
        self._run = run
        self._digest = digest
        self._say = say

    def cached(self, request: JuliaRequest) -> Unpacked | None:
        """The newest build that is here and was asked for; nothing is asked of the network.

        Raises:
            CorruptError: it is not as it was unpacked.
            CacheError: others may write where it is.
        """
        try:
            names = [name for name in os.listdir(self.folder) if name not in ("work", "lock")]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        here = [Unpacked.read(os.path.join(self.folder, name)) for name in sorted(names)]
        # What a user brought is an archive that nobody vouched for: it is used when it is named.
        known = {one.archive: one for one in here if not one.archive.url.startswith("file:")}
        try:
            return self._sound(known[newest(known, request)])
        except ConfigurationError:
            return None

    def obtain(self, request: JuliaRequest, *, refresh: bool = False) -> Unpacked:
        """A build that was asked for: the newest one here, else the newest there is.

        Args:
            request: which version.
            refresh: ask for the newest even if one that fits is here.

        Raises:
            UnavailableError: it has to be fetched, and the server does not answer.
            ConfigurationError: there is no such build.
            CorruptError: what came is not what the list of versions promises, or what is here was changed.
            CacheError: it cannot be kept.
        """
        found = None if refresh else self.cached(request)
        if found is not None:
            return found
        done = self._host("list", self._versions)
        records = json.loads(done.out)
        where = "the list of Julia's versions"
        return self._have(newest([_from_json(Table(record, where)) for record in records], request))

    def bring(self, path: str) -> Unpacked:
        """A build from an archive that the user has.

        Raises:
            ConfigurationError: there is no such file, or it is no archive of a Julia.
            CacheError: it cannot be kept.
        """
        place = os.path.abspath(path)
        try:
            with open(place, "rb") as file:
                sha256 = Sha256(hashlib.file_digest(file, "sha256").hexdigest())
            size = os.stat(place).st_size
            with tarfile.open(place, "r:gz") as archive:
                first = archive.next()
        except (OSError, EOFError, tarfile.TarError) as error:
            raise ConfigurationError(f"{path} cannot be read as an archive ({error})") from error
        top = first.name.removeprefix("./").partition("/")[0] if first else ""
        try:
            version = JuliaVersion.parse(top.removeprefix("julia-"))
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{path} holds {top[:60] or 'nothing'}, not julia-VERSION as official archives do",
                hint="unpack it, and name its bin/julia with --julia",
            ) from error
        return self._have(Archive(version=version, url=f"file://{place}", sha256=sha256, size=size))

    def _place(self, archive: Archive) -> str:
        return os.path.join(self.folder, f"{archive.version}-{archive.sha256.hex[:12]}")

    def _have(self, archive: Archive) -> Unpacked:
        """Look whether a build is here, and fetch it when it is not."""
        place = self._place(archive)
        if not os.path.isdir(place):
            with self._writing(), self._locked():
                if not os.path.isdir(place):
                    self._fetch(archive)
        return self._sound(Unpacked.read(place))

    def _fetch(self, archive: Archive) -> None:
        work = os.path.join(self.folder, "work")
        shutil.rmtree(work, ignore_errors=True)
        make_directories(work)
        part = tempfile.mkdtemp(dir=work)
        self._say(f"fetching Julia {archive.version} ({archive.size / 1e6:.0f} MB) from {archive.url}")
        try:
            made = Unpacked(archive=archive, tree="", folder=part)
            self._host("unpack", json.dumps(_to_json(archive)), made.prefix, temporary=part)
            if not os.access(made.program, os.X_OK):
                raise CorruptError(f"{archive.url} has no bin/julia in it")
            made = Unpacked(archive=archive, tree=self._digest(made.prefix), folder=part)
            with open(os.path.join(part, _RECORD), "xb") as file:
                file.write(made.to_bytes())
            os.chmod(part, 0o755)  # noqa: S103  # mkdtemp's mode is the owner's alone
            os.rename(part, self._place(archive))
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _sound(self, found: Unpacked) -> Unpacked:
        """Check a build before it is used."""
        with self._writing():
            if others_may_write(self.folder, uid=os.geteuid()):
                raise CacheError(f"others may write in {self.folder}", hint="take that right away from them")
            tree = self._digest(found.prefix)
        if tree != found.tree:
            raise CorruptError(
                f"{found.prefix} is not as it was unpacked", hint=f"remove {found.folder}, and build again"
            )
        return found

    def _host(self, *words: str, temporary: str = "") -> Finished:
        """Let juliapkg do something, in a process of its own."""
        env = {**self._env, **({"TMPDIR": temporary} if temporary else {})}
        done = self._run(Command(argv=(sys.executable, "-P", "-c", _PROGRAM, *words), env=env), None)
        if done.code != 0:
            self._fail(done)
        return done

    def _fail(self, done: Finished) -> NoReturn:
        lines = done.err.decode(errors="replace").strip().splitlines() or [f"exit code {done.code}"]
        message = next((line.removeprefix(HOST_MARK) for line in lines if line.startswith(HOST_MARK)), "")
        family: type[Error] = _FAMILIES.get(done.code, MissingToolError)
        if not message:
            raise MissingToolError(f"juliapkg, which fetches Julia, failed: {lines[-1][:200]}", hint=_WAYS)
        hints = {UnavailableError: _WAYS, CorruptError: "build again"}
        raise family(message, hint=hints.get(family, f"make room in {self.folder}"))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock on the folder, after waiting for whoever has it."""
        make_directories(self.folder)
        lock = os.open(os.path.join(self.folder, "lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say("another build is fetching a Julia: waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn a failure of the file system below the folder into the one sentence that it is."""
        try:
            yield
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> CacheError:
        return CacheError(
            f"{self.folder} cannot be used ({error.strerror or error})",
            hint="make room there, or name a directory of your own in XDG_CACHE_HOME",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which Julia a user wants."""

    given: str
    """What this call names: a program, or an official archive; empty when it names none."""
    wanted: str
    """``julia`` of ``Headstart.toml``."""
    refresh: bool = False
    """Look for a newer patch than the one that is kept."""


def settle(
    wish: Wish, env: Mapping[str, str], run: Runner, builds: OfficialBuilds
) -> tuple[JuliaInstall, JuliaOrigin]:
    """Find the Julia to build with: what is named, else the official build of a version, else the user's own.

    Raises:
        MissingToolError: none is here, or what was named is none, or of another version.
        UnavailableError: an official build has to be fetched, and the server does not answer.
        ConfigurationError: there is no official build of that version.
        CorruptError: the archive is not what it should be.
        CacheError: it cannot be kept.
    """
    path = wish.wanted if "/" in wish.wanted else ""
    version = "" if path or wish.wanted == "system" else wish.wanted
    named = wish.given or env.get("HEADSTART_JULIA", "") or path
    if named.endswith(_ENDING):
        unpacked = builds.bring(named)
    elif version and not named:
        unpacked = _official(JuliaRequest(version), wish, env, run, builds)
    else:
        return find_julia(wish.given, wish.wanted, env, run), Found()
    install = find_julia(unpacked.program, version, env, run)
    if install.probe.version != unpacked.archive.version:
        raise CorruptError(
            f"{unpacked.archive.url} is called {unpacked.archive.version} but is Julia {install.probe.version}",
            hint=f"remove {unpacked.folder}",
        )
    return install, unpacked.archive


def _official(
    request: JuliaRequest, wish: Wish, env: Mapping[str, str], run: Runner, builds: OfficialBuilds
) -> Unpacked:
    try:
        return builds.obtain(request, refresh=wish.refresh)
    except UnavailableError as error:
        kept = builds.cached(request) if wish.refresh else None
        if kept is not None:
            hint = f"Julia {kept.archive.version} is kept here: build without --refresh"
            raise UnavailableError(error.message, hint=hint) from error
        message = f"Julia {request} is not kept in {builds.folder}, and {error.message}"
        try:
            near = find_julia("", str(request), env, run)
        except MissingToolError:
            raise UnavailableError(message, hint=error.hint) from error
        hint = f"Julia {near.probe.version} is on this machine: build with --julia {near.program}"
        raise UnavailableError(message, hint=hint) from error
