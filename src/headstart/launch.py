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

from headstart.errors import MissingError
from headstart.namespace import Bind, bwrap_argv, enter, try_out
from headstart.process import Command
from headstart.release import ImageRecord, Release
from headstart.script import dropped, needs_scratch, options, settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A sealed start of one image, at one place."""

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


def scratch_depot(release: Release, env: Mapping[str, str]) -> str:
    """The user's own depot, where this release is to have one; the same as ``bin/julia`` takes."""
    if not needs_scratch(release):
        return ""
    home = env.get("HOME", "")
    caches = env.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else "")
    usable = caches.startswith("/") and ":" not in caches
    return f"{caches}/headstart/scratch/{release.id}" if usable else ""


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
        needs=(
            f"{root}{julia}/{release.julia_executable}",
            *(f"{root}{home}/{part.path}" for part in image.parts),
        ),
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


def become(
    start: Start, args: tuple[str, ...], env: Mapping[str, str], *, ways: Ways, settled: Callable[[Start], None]
) -> NoReturn:
    """Turn this process into Julia.

    Args:
        start: how, at the release's own path.
        args: the user's arguments.
        env: the user's environment.
        ways: what else may be tried.
        settled: told the way that is taken in the end, just before it is.

    Raises:
        NamespaceError: it needs a namespace, and none can be had.
        MissingError: the program cannot be started.
    """
    taken = start
    if start.binds:
        refused = try_out(start.binds)
        if refused and ways.bwrap is not None and ways.bwrap_works(ways.bwrap):
            # With the user's own environment: what is set is meant for Julia, not for bubblewrap.
            sets = tuple(start.sets.items())
            inner = (*start.argv, *args)
            wrapped = bwrap_argv(ways.bwrap, start.binds, inner, sets=sets, drops=start.drops)
            execute(Command(argv=wrapped, env=env))
        if refused and ways.moved is not None:
            taken = ways.moved
        else:
            enter(start.binds)
    settled(taken)
    execute(taken.command(args, env))


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
