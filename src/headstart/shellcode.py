"""Changes to an environment in the words of shells, for ``eval`` and ``source``.

Every value is quoted so that a shell takes it as it is, whatever is in it: spaces, quotes, line breaks, what
the shell would expand. The one thing that cannot be said is a line break to a C shell: what ``eval`` gets from
backquotes has lost it before the shell reads it.
"""

import re
from typing import Final

from headstart.errors import ConfigurationError
from headstart.opensession import Changes

SHELLS: Final = ("sh", "fish", "csh")
"""``sh`` is every shell of that family: dash, bash, zsh, busybox."""


def shell_code(changes: Changes, shell: str) -> str:
    """The changes as lines of a shell; nothing for none.

    Args:
        changes: variables to set, and with None those to remove.
        shell: one of ``SHELLS``.

    Raises:
        ConfigurationError: a value that this shell cannot be told.
    """
    say = {"sh": _sh, "fish": _fish, "csh": _csh}[shell]
    return "".join(f"{say(name, value)};\n" for name, value in changes.items())


def _sh(name: str, value: str | None) -> str:
    if value is None:
        return f"unset {name}"
    quoted = value.replace("'", "'\\''")
    return f"export {name}='{quoted}'"


def _fish(name: str, value: str | None) -> str:
    # fish takes a variable whose name ends in PATH for a list, and splits it at the colons itself.
    if value is None:
        return f"set -e {name}"
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"set -gx {name} '{quoted}'"


def _csh(name: str, value: str | None) -> str:
    if value is None:
        return f"unsetenv {name}"
    if "\n" in value:
        raise ConfigurationError(
            f"{name} has a line break in it, which a C shell cannot be told through eval",
            hint="use 'headstart shell', or another shell",
        )
    # Quotes end before a quote and before what names an old command, which is one even inside them.
    quoted = re.sub(r"(['!])", r"'\\\1'", value)
    return f"setenv {name} '{quoted}'"
