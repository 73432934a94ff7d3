"""``headstart run``: choose the image for this CPU, fetch what is missing, become Julia.

This module is on the shortest way to Julia: a launch that was made before, a moment ago, is repeated without
importing anything that it does not need. Everything else is in ``headstart.cli.starting``.
"""

import os
import sys
import time
from importlib import import_module

from headstart import shortcut as shortcuts
from headstart.directories import own_part
from headstart.errors import CacheError, ConfigurationError, MissingError, NamespaceError
from headstart.shortcut import Question, Shortcut
from headstart.wording import printable

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping
    from typing import NoReturn

HELP = """\
Choose the image for this CPU, fetch what is missing, and become Julia.

SOURCE is a repository's name, a mounted repository (/cvmfs/NAME), a storage
directory, or an http address, several with ; between.
STACK may be followed by @CHANNEL, @RELEASE, @sha256:DIGEST, or @ and 8 or more
digits of the digest; alone it is its channel prod, else its only release.
What comes after -- goes to Julia.

HEADSTART_TARGET    use this image, if this CPU can run it
HEADSTART_QUIET     do not say which image was chosen
HEADSTART_CACHE     the cache's directory, as --cache
HEADSTART_CACHE_QUOTA  how large the cache may be, such as 20GB
HEADSTART_PROXY     proxies, as CVMFS_HTTP_PROXY: "http://a|http://b;DIRECT"
HEADSTART_SCRATCH   as --scratch
HEADSTART_STATE     what this node has seen (default: /var/lib/headstart)
"""
CPUINFO = "/proc/cpuinfo"
NO_HOME = "/dev/null/no-home"
"""Where nothing is and nothing can be made: a cache is needed only where something has to be fetched."""
STATE = "/var/lib/headstart"
_PLAIN = {
    "--key": "keys",
    "--blacklist": "blacklists",
    "--cache": "cache",
    "--fqrn": "fqrn",
    "--tag": "tag",
    "--date": "date",
    "--root-hash": "root_hash",
}
"""Options with a value, and where it goes."""
_FIRST_PROCESSOR = 16384
"""Bytes of ``/proc/cpuinfo`` in which the first processor's flags are sure to be."""


class Request:
    """What the user asked for."""

    __slots__ = (
        "args",
        "blacklists",
        "cache",
        "check",
        "date",
        "fqrn",
        "keys",
        "reference",
        "refresh",
        "root_hash",
        "scratch",
        "source",
        "tag",
    )

    def __init__(self) -> None:
        self.source = ""
        self.reference = ""
        self.keys: tuple[str, ...] = ()
        self.cache = ""
        self.fqrn = ""
        self.tag = ""
        self.date = ""
        self.root_hash = ""
        self.blacklists: tuple[str, ...] = ()
        self.refresh = False
        self.scratch = False
        """Whether packages are to have a depot that they may write into, whichever Julia it is."""
        self.check = False
        """Whether to stay Julia's parent, and to see that it compiles nothing."""
        self.args: tuple[str, ...] = ()


class Node:
    """What this process has around it."""

    __slots__ = ("cache", "cpuinfo", "cpuinfo_path", "env", "now", "scratch", "state", "uid")

    def __init__(self, cache: str, env: dict[str, str]) -> None:
        self.env = env
        self.uid = os.geteuid()
        self.now = time.time()
        self.cache, _ = cache_of(cache, env, self.uid)
        self.scratch, _ = _caches_of(env)
        self.state = env.get("HEADSTART_STATE") or STATE
        """Where root lets this node remember what any of its users may rely on."""
        self.cpuinfo_path = env.get("HEADSTART_CPUINFO") or CPUINFO
        self.cpuinfo = _read_cpuinfo(self.cpuinfo_path)

    def question(self, request: Request) -> Question:
        """The request, and all else that its answer depends on."""
        lines = self.cpuinfo.split("\n")
        flags = next((line for line in lines if line.lstrip().startswith(("flags", "Features"))), "")
        return Question(
            request.source,
            request.reference,
            request.fqrn,
            self.env.get("HEADSTART_TARGET", ""),
            flags,
            self.scratch,
            "scratch" if request.scratch else "",
            request.tag,
            request.date,
            request.root_hash,
            *request.blacklists,
            "",
            *request.keys,
        )


def cache_of(option: str, env: "Mapping[str, str]", uid: int) -> tuple[str, str]:
    """Where the user's cache is, and what says so.

    Args:
        option: the directory that the user names, or nothing.
        env: the user's environment.
        uid: the user.

    Raises:
        ConfigurationError: the path begins at a working directory that is not there any more.
    """
    try:
        return _cache_of(option, env, uid)
    except FileNotFoundError as error:
        raise _nowhere() from error


def _cache_of(option: str, env: "Mapping[str, str]", uid: int) -> tuple[str, str]:
    for path, origin in ((option, "--cache"), (env.get("HEADSTART_CACHE", ""), "HEADSTART_CACHE")):
        if path:
            return own_part(os.path.abspath(path), uid), origin
    caches, origin = _caches_of(env)
    return own_part(os.path.abspath(f"{caches}/headstart"), uid), origin


def homeless(uid: int) -> CacheError:
    """What to say where a cache is needed and its place begins with ``NO_HOME``."""
    return CacheError(
        f"there is no place for the cache: HOME is not set, and user {uid} has no entry",
        hint="name a directory with --cache or HEADSTART_CACHE",
    )


def _caches_of(env: "Mapping[str, str]") -> tuple[str, str]:
    """Where all of the user's caches are, and what says so."""
    if env.get("XDG_CACHE_HOME"):
        return env["XDG_CACHE_HOME"], "XDG_CACHE_HOME"
    if env.get("HOME"):
        return f"{env['HOME'].rstrip('/')}/.cache", "HOME"
    home = os.path.expanduser("~")
    if home.startswith("/"):
        return f"{home}/.cache", "the user's entry"
    # A user without an entry, as containers have it.
    return NO_HOME, "there is no home"


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Declare the arguments; those for Julia are taken off before."""
    add_release_arguments(parser)
    parser.add_argument(
        "--scratch",
        action="store_true",
        help="let packages write into a depot of yours; Julia compiles nothing there",
    )
    parser.add_argument(
        "--check", action="store_true", help="wait for Julia, say what it compiled, and fail (25) if it did"
    )
    parser.usage = "headstart run SOURCE STACK[@WHICH] [OPTIONS] -- JULIA'S ARGUMENTS"


def add_release_arguments(parser: "argparse.ArgumentParser", *, nargs: str | None = None) -> None:
    """Declare what names a release, and where it is to be on this node.

    Args:
        parser: of a command.
        nargs: how often its name is given, as ``argparse`` has it.
    """
    parser.add_argument("source", metavar="SOURCE", nargs=nargs)
    parser.add_argument("reference", metavar="STACK[@WHICH]", nargs=nargs)
    parser.add_argument(
        "--key",
        metavar="PUB",
        action="append",
        default=[],
        help="public key to trust (default: those in /etc/cvmfs/keys)",
    )
    parser.add_argument("--cache", metavar="DIR", default="", help="the cache (default: ~/.cache/headstart)")
    parser.add_argument("--fqrn", metavar="NAME", default="", help="the repository it must be")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--tag", metavar="NAME", default="", help="the repository as this tag names it")
    which.add_argument(
        "--date", metavar="WHEN", default="", help="the repository as of 2026-11-22[T20:15:00Z], in UTC"
    )
    which.add_argument("--root-hash", metavar="HASH", default="", help="the repository with this root catalog")
    parser.add_argument(
        "--blacklist",
        metavar="FILE",
        action="append",
        default=[],
        help="certificates and old revisions to refuse, beside the site's (/etc/cvmfs/blacklist)",
    )
    parser.add_argument("--refresh", action="store_true", help="ask the source even if it was asked just now")


def run(args: "argparse.Namespace") -> int:
    """Start Julia; returns only with ``--check``, and by an error."""
    request = requested(args)
    request.scratch, request.check = args.scratch, args.check
    return start(request)


def requested(args: "argparse.Namespace") -> Request:
    """What ``add_release_arguments`` declares, as it was given."""
    request = Request()
    request.source, request.reference = args.source, args.reference
    request.keys, request.cache, request.fqrn = tuple(args.key), args.cache, args.fqrn
    request.tag, request.date, request.root_hash = args.tag, args.date, args.root_hash
    request.blacklists = tuple(args.blacklist)
    request.refresh = args.refresh
    request.args = tuple(getattr(args, "args", ()))
    return request


def main(words: list[str], fallback: "Callable[[list[str]], argparse.Namespace]") -> int:
    """Start Julia, reading the words without argparse where they are plain.

    Args:
        words: behind ``run``.
        fallback: reads all words but Julia's; prints help or what is wrong with them.
    """
    end = words.index("--") if "--" in words else len(words)
    request = read(words[:end])
    args = tuple(words[end + 1 :])
    if request is None:
        namespace = fallback(words[:end])
        namespace.args = args
        return run(namespace)
    request.args = args
    return start(request)


def read(words: list[str]) -> Request | None:
    """Read plain words; None when argparse must have a look at them."""
    request = Request()
    names: list[str] = []
    following = iter(words)
    for word in following:
        if word in ("--refresh", "--scratch"):
            setattr(request, word[2:], True)
        elif word in _PLAIN:
            value = next(following, "")
            if not value or value.startswith("-"):
                return None
            if word == "--key":
                request.keys += (value,)
            elif word == "--blacklist":
                request.blacklists += (value,)
            else:
                setattr(request, _PLAIN[word], value)
        elif not word or word.startswith("-"):
            return None
        else:
            names.append(word)
    if len(names) != 2 or len([word for word in (request.tag, request.date, request.root_hash) if word]) > 1:
        return None
    request.source, request.reference = names
    return request


def start(request: Request) -> int:
    """Start Julia, the short way if there is one."""
    if any(word.startswith("--project") for word in request.args):
        import_module("headstart.script").refuse_other_project(request.args)
    node = look_around(request)
    request.scratch = request.scratch or bool(node.env.get("HEADSTART_SCRATCH"))
    question = node.question(request)
    if request.check:
        return int(import_module("headstart.cli.checking").check(request, node, question))
    known = shortcuts.load(node.cache, question, uid=node.uid, now=node.now)
    if known is not None and not request.refresh and known.created <= node.now < known.fresh_until:
        try:
            repeat(known, request, node)
        except NamespaceError:
            # The next start is to look for another way, which this process cannot go any more.
            shortcuts.forget(node.cache, question)
            raise
    import_module("headstart.cli.starting").start(request, node, question, known)
    return 1


def look_around(request: Request) -> Node:
    """This process's surroundings; paths of the request become absolute.

    Raises:
        ConfigurationError: a path begins at a working directory that is not there any more.
    """
    source = request.source
    try:
        if "://" in source:
            request.source = source.rstrip("/")
        elif "/" in source or os.path.exists(source):
            # Else it is a repository's name.
            request.source = os.path.abspath(source)
        request.keys = tuple(map(os.path.abspath, request.keys))
        request.blacklists = tuple(map(os.path.abspath, request.blacklists))
        return Node(request.cache, dict(os.environ))
    except FileNotFoundError as error:
        raise _nowhere() from error


def _nowhere() -> ConfigurationError:
    return ConfigurationError(
        "the working directory is not there any more", hint="go to another one, or name absolute paths"
    )


def repeat(known: Shortcut, request: Request, node: Node) -> None:
    """Do again what was done before; comes back only if there is no namespace to be had any more.

    Raises:
        NamespaceError: there is one, and nothing can be mounted in it.
    """
    if not node.env.get("HEADSTART_QUIET"):
        say(known.said)
    if known.binds:
        namespace = import_module("headstart.namespace")
        try:
            namespace.enter(
                tuple(
                    namespace.Bind(source=source, target=target, writable=False)
                    for source, target in known.binds
                )
            )
        except namespace.EnteredError:
            raise
        except namespace.NamespaceError:
            return
    become(known.argv + request.args, known.environment(node.env))


def become(argv: tuple[str, ...], env: dict[str, str]) -> "NoReturn":
    """Replace this process."""
    # Python ignores these two for itself; a program expects them as a shell leaves them. ``signal`` proper
    # takes as long to import as everything else here together: its numbers are enumerations.
    signal = import_module("_signal")
    ours = [(number, signal.signal(number, signal.SIG_DFL)) for number in (signal.SIGPIPE, signal.SIGXFSZ)]
    try:
        os.execve(argv[0], argv, env)
    except OSError as error:
        # Such as too many arguments; the record has seen the program there a moment ago.
        raise MissingError(f"{argv[0]} cannot be started ({error.strerror})") from error
    finally:
        for number, handler in ours:
            signal.signal(number, handler)


def say(text: str) -> None:
    """Talk to the user, in one line; a job does not depend on somebody listening."""
    try:
        # Closed by whoever started this, it is none.
        if sys.stderr is not None:
            sys.stderr.write(f"headstart: {printable(text)}\n")
            sys.stderr.flush()
    except OSError:
        return


def _read_cpuinfo(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_FIRST_PROCESSOR).decode(errors="replace")
    except OSError:
        return ""
