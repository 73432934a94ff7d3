"""Launch: the command that starts Julia with a release's image, and the ways to have it at its path.

Julia bakes absolute paths into what it builds, so a release runs best where it was built:
``/cvmfs/<repository>/...``. Where the repository is mounted it simply is there. Else the cache is bound to that
path in a mount namespace of this process's own; where the kernel allows that to bubblewrap only, by bubblewrap;
and where there is no namespace at all, a relocatable release runs from the cache's own path.

``headstart.script`` writes the same command in POSIX sh; both take their words from there.
"""

import os
import posixpath
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from headstart.directories import make_directories
from headstart.errors import CacheError, MissingError
from headstart.namespace import Bind, bwrap_argv, enter, try_out
from headstart.openscript import OPEN_LAUNCHER_PATH
from headstart.opensession import begun
from headstart.process import Command
from headstart.release import ImageRecord, Release
from headstart.script import dropped, is_strict, options, settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A start of one image, at one place."""

    argv: tuple[str, ...]
    """Program and arguments, without the user's."""
    sets: Mapping[str, str]
    drops: tuple[str, ...]
    binds: tuple[Bind, ...]
    """What must be shown where before it works; nothing when it works as it is."""
    needs: tuple[str, ...]
    """Paths, outside any namespace, without which it cannot work."""

    def command(self, args: tuple[str, ...], env: Mapping[str, str]) -> Command:
        """The whole command.

        Args:
            args: the user's.
            env: the user's environment.
        """
        kept = {name: value for name, value in env.items() if name not in self.drops}
        return Command(argv=(*self.argv, *args), env={**kept, **self.sets})


def scratch_depot(release: Release, env: Mapping[str, str], *, asked: bool = False) -> str:
    """The user's own depot, where this release is to have one; the same as ``bin/julia`` takes.

    Args:
        release: what is started.
        env: the user's environment.
        asked: whether there must be one, whichever Julia it is.

    Raises:
        CacheError: one was asked for, and the environment does not say where it could be.
    """
    if not (asked or is_strict(release)):
        return ""
    home = env.get("HOME", "")
    caches = env.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else "")
    if caches.startswith("/") and ":" not in caches:
        return f"{caches}/headstart/scratch/{release.id}"
    if asked:
        raise CacheError(
            "there is no place for a scratch depot",
            hint="set HOME or XDG_CACHE_HOME to an absolute path without a colon",
        )
    return ""


def close_scratch(depot: str) -> str:
    """Lay out a depot that packages may write into, but Julia cannot compile into; returns what keeps it out.

    Julia before 1.11 has no word for "compile nothing", and compiles into the first depot. So where it would
    make the directory ``compiled`` there stands a file of that name, which stops root too.

    Raises:
        CacheError: it cannot be laid out, or compiled code is there already.
    """
    block = f"{depot}/compiled"
    try:
        make_directories(depot)
        if os.path.isdir(block):
            os.rmdir(block)
        os.close(os.open(block, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444))
    except OSError as error:
        raise CacheError(
            f"{depot} cannot be made a scratch depot that nothing is compiled into ({error.strerror}: {block})",
            hint="what is there in place of an empty file must go",
        ) from error
    return block


def at_its_path(release: Release, image: ImageRecord, *, root: str, scratch: str) -> Start:
    """Start it as ``/cvmfs/<repository>/...``.

    Args:
        release: what to start.
        image: the chosen one.
        root: where the repository's tree is: its mountpoint, or a directory to be shown there.
        scratch: the user's own depot, or nothing.
    """
    mountpoint = release.fqrn.mountpoint
    binds = () if root == mountpoint else (Bind(source=root, target=mountpoint, writable=False),)
    return _start(release, image, seen=mountpoint, root=root, binds=binds, scratch=scratch)


def where_it_is(release: Release, image: ImageRecord, *, root: str, scratch: str) -> Start:
    """Start it from another path than it was built at; only a relocatable release bears that."""
    return _start(release, image, seen=root, root=root, binds=(), scratch=scratch)


def _start(
    release: Release, image: ImageRecord, *, seen: str, root: str, binds: tuple[Bind, ...], scratch: str
) -> Start:
    home = release.path.removeprefix(release.fqrn.mountpoint)
    julia = release.julia_path.removeprefix(release.fqrn.mountpoint)
    return Start(
        argv=(
            f"{seen}{julia}/{release.julia_executable}",
            *(word for part in image.system for word in ("-J", f"{seen}{home}/{part.path}")),
            *options(release, seen + home),
        ),
        sets=settings(release, seen + home, seen + julia, scratch=scratch, packages=image.packages),
        drops=dropped(release),
        binds=binds,
        needs=_needs(release, image, root),
    )


def session(
    release: Release,
    image: ImageRecord,
    *,
    root: str,
    seen: str,
    program: tuple[str, ...],
    env: Mapping[str, str],
) -> Start:
    """Start a program of the user's, for which ``julia`` is the release's, behind what is the user's.

    Args:
        release: which one.
        image: the chosen one, which must be there.
        root: where the repository's tree is.
        seen: where it is to be seen: there, or at its mountpoint.
        program: what to start, with its arguments.
        env: the user's environment.

    Raises:
        MissingError: the release was built by a Headstart that knew no sessions.
        ConfigurationError: there is a colon in the path.
    """
    if OPEN_LAUNCHER_PATH not in release.files:
        raise MissingError(
            f"{release.stack} {release.id} has no {OPEN_LAUNCHER_PATH}",
            hint="build it again with this Headstart, and publish that",
        )
    home = release.path.removeprefix(release.fqrn.mountpoint)
    changes = begun(posixpath.dirname(f"{seen}{home}/{OPEN_LAUNCHER_PATH}"), env)
    return Start(
        argv=program,
        sets={name: value for name, value in changes.items() if value is not None},
        drops=(),
        binds=() if root == seen else (Bind(source=root, target=seen, writable=False),),
        needs=_needs(release, image, root),
    )


def _needs(release: Release, image: ImageRecord, root: str) -> tuple[str, ...]:
    home = release.path.removeprefix(release.fqrn.mountpoint)
    julia = release.julia_path.removeprefix(release.fqrn.mountpoint)
    return (
        f"{root}{julia}/{release.julia_executable}",
        *(f"{root}{home}/{part.path}" for part in image.parts),
    )


def check_needs(start: Start) -> None:
    """See that program and image are there.

    Raises:
        MissingError: one is not.
    """
    for path in start.needs:
        if not os.path.exists(path):
            raise MissingError(f"{path} is not there", hint="the mount, or the cache, has lost a part of it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """What can be tried where the path is not there and namespaces may be refused."""

    bwrap: str | None
    """Path of bubblewrap, if there is one."""
    bwrap_works: Callable[[str], bool]
    """Tries it out."""
    moved: Start | None
    """How to start from another path, if the release bears that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A start that works from here on: this process is where its paths are."""

    start: Start
    bwrap: str
    """The program that shows each command its paths; empty where this process sees them itself."""

    def command(self, args: tuple[str, ...], env: Mapping[str, str]) -> Command:
        """The whole command, to become or to be started."""
        if not self.bwrap:
            return self.start.command(args, env)
        # With the user's own environment: what is set is meant for Julia, not for bubblewrap.
        sets = tuple(self.start.sets.items())
        inner = (*self.start.argv, *args)
        wrapped = bwrap_argv(self.bwrap, self.start.binds, inner, sets=sets, drops=self.start.drops)
        return Command(argv=wrapped, env=env)


def place(start: Start, ways: Ways) -> Placed:
    """Bring this process to where a start works, for good.

    Args:
        start: how, at the release's own path.
        ways: what else may be tried.

    Raises:
        NamespaceError: it needs a namespace, and none can be had.
    """
    if not start.binds:
        return Placed(start=start, bwrap="")
    if try_out(start.binds):
        if ways.bwrap is not None and ways.bwrap_works(ways.bwrap):
            return Placed(start=start, bwrap=ways.bwrap)
        if ways.moved is not None:
            return Placed(start=ways.moved, bwrap="")
    enter(start.binds)
    return Placed(start=start, bwrap="")


def execute(command: Command) -> NoReturn:
    """Replace this process by a program.

    Raises:
        MissingError: it cannot be started.
    """
    # Python ignores these two for itself; a program that is started expects them as a shell leaves them.
    ours = [(number, signal.signal(number, signal.SIG_DFL)) for number in (signal.SIGPIPE, signal.SIGXFSZ)]
    try:
        os.execve(command.argv[0], command.argv, dict(command.env))
    except OSError as error:
        name = posixpath.basename(command.argv[0])
        raise MissingError(
            f"{command.argv[0]} cannot be started ({error.strerror})", hint=f"try {name} by hand"
        ) from error
    finally:
        # Reached only where nothing was started: this process goes on, and a closed pipe must not end it.
        for number, handler in ours:
            signal.signal(number, handler)
