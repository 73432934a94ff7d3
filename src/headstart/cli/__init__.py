"""The command line: one module per command, imported only when it is the one asked for.

This is the only place that turns an error into an exit code. Standard output is data, standard error is talk.
"""

import os
import sys
from importlib import import_module
from types import ModuleType

from headstart.errors import Error, MissingToolError, OutputError
from headstart.wording import printable

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_PIPE = 141
"""What shells make of a program that SIGPIPE has ended."""
COMMANDS = {
    "demo": "everything below, end to end, on an example stack",
    "init": "look at a Julia project and write its Headstart.toml",
    "build": "build a release of a Julia project into a staging directory",
    "repo": "create a repository; tag, check, clean up, copy and serve it",
    "publish": "publish a staged release, and point a channel at it",
    "promote": "let a channel point at a published release, or sign it again",
    "rollback": "let a channel point where it pointed before",
    "history": "say what channels pointed at, when, and whose keys let them",
    "channel": "the keys of channels: threshold, rotation, signing elsewhere",
    "run": "choose the image for this CPU, fetch it, start Julia with it",
    "shell": "start your shell with a release's Julia behind what is yours",
    "env": "print the settings of such a session, for sh, fish, csh, or as JSON",
    "doctor": "say what would go wrong on this node, and what to do about it",
    "cache": "say what is in the node's cache, make it smaller, check it",
    "list": "list stacks, channels and releases of a repository",
    "show": "describe one release",
    "explain": "say whether Julia will take the caches of a depot, and why not",
    "diff": "compare two states of a repository, or two releases",
    "verify": "verify a repository's chain of signatures, catalogs and objects",
}
"""Name and one line of every command, in the order of ``--help``."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    code = _outcome(lambda: _dispatch(words))
    late = _outcome(_printed)
    return code or late


def _outcome(do: "Callable[[], int]") -> int:
    """The exit code of what is done; what goes wrong is said."""
    try:
        return do()
    except OutputError as error:
        import_module("headstart.cli.streams").abandon()
        if isinstance(error.__cause__, BrokenPipeError):
            # The reader of our output has gone, and wants no more: we end as SIGPIPE ends other programs.
            return _PIPE
        _say(f"headstart: {error}")
        return error.exit_code
    except Error as error:
        _say(f"headstart: {error}")
        return error.exit_code
    except RuntimeError as error:
        # What ``threading`` says; there is no class for it.
        if str(error) != "can't start new thread":
            raise
        _say(
            "headstart: no thread can be started here; raise the limit on processes (ulimit -u), and try again"
        )
        return MissingToolError.exit_code
    except KeyboardInterrupt:
        _say("headstart: interrupted; what was complete is kept, run it again to go on")
        return 130


def _printed() -> int:
    """See to it that all that was to be printed is."""
    if sys.stdout is not None:
        sys.stdout.flush()
    return 0


def _say(text: str) -> None:
    try:
        # Closed by whoever started this, it is none.
        if sys.stderr is not None:
            sys.stderr.write(printable(" ".join(text.split("\n"))) + "\n")
            sys.stderr.flush()
    except OSError:
        # The interpreter would try again at its end, and fail with a code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _dispatch(words: list[str]) -> int:
    name = words[0] if words else "--help"
    if name not in COMMANDS:
        import_module("headstart.cli.streams").prepare()
    if name in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return 0
    if name in ("-V", "--version"):
        sys.stdout.write(f"headstart {import_module('headstart').__version__}\n")
        return 0
    if name not in COMMANDS:
        _say(f"headstart: there is no command {name!r}; the commands are {', '.join(COMMANDS)}")
        return 2
    command = import_module(f"headstart.cli.{name}")
    if hasattr(command, "main"):
        # A command that is in a hurry reads plain words itself, and comes back for help and for complaints.
        return int(command.main(words[1:], lambda plain: _parse(command, name, plain)))
    return int(command.run(_parse(command, name, words[1:])))


def _parse(command: ModuleType, name: str, words: list[str]) -> "argparse.Namespace":
    import_module("headstart.cli.streams").prepare()
    # Slow to import, and not always needed.
    library = import_module("argparse")
    parser = import_module("headstart.cli.parser").Parser(
        prog=f"headstart {name}",
        description=command.HELP,
        formatter_class=library.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if hasattr(command, "add_verbs"):
        command.add_verbs(parser, words)
    else:
        command.add_arguments(parser)
    if "" in words:
        # What an unset variable of a shell gives; it would be taken for the current directory.
        parser.error("one of the words is empty")
    parsed: argparse.Namespace = parser.parse_args(words)
    return parsed


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        "usage: headstart COMMAND [ARGUMENTS]",
        "",
        "Julia jobs that start already compiled:",
        "build once, sign, publish to CernVM-FS, start anywhere.",
        "",
        *(f"  {name:<{width}}  {line}" for name, line in COMMANDS.items()),
        "",
        "'headstart COMMAND --help' explains a command. Exit codes: docs/exit-codes.md.",
    ]
    return "\n".join(lines) + "\n"
