"""What Julia's own programs complain about, as an error that says what to do.

Pkg goes on after most of its troubles, tries another way, and ends with what went wrong there. So all that it
said is looked through for the trouble that explains the rest; its words are much the same from 1.5 to 1.12
(``Pkg/src/Operations.jl``, ``PlatformEngines.jl``, ``Artifacts.jl``; of the network speak curl and
libgit2).
"""

import re
from typing import Final

from headstart.build.recipe import said
from headstart.errors import BuildError, Error, UnavailableError
from headstart.project import Local, Package

_BOX: Final = re.compile(r"^[\s│┌└├╷╵|]*(Warning: |Error: |ERROR: )?")
_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ELSE: Final = re.compile(
    r"hash mismatch|does not match git-tree-sha1|tarball content does not match", re.IGNORECASE
)
_BROKEN: Final = re.compile(
    r"failed to extract|not in gzip format|unexpected end of|premature end|EOFError|truncated|is not archive",
    re.IGNORECASE,
)
_NETWORK: Final = re.compile(
    r"failed to (connect|clone|fetch)|could not resolve|couldn't connect|connection (refused|reset)|timed out"
    r"|operation too slow|could not download|returned error: \d|RequestError|HTTP/\d\S* \d\d\d",
    re.IGNORECASE,
)
_BUILD_OUTPUT: Final = re.compile(
    r"[\"'/]deps/[\w.-]+\.(jl|so|toml|json)\b|not properly installed|Pkg\.build\("
)


def refusal(what: str, last: str, output: bytes, log: str) -> Error:
    """The error for a package or an artifact that cannot be had.

    Args:
        what: its name and its tree.
        last: what was found in its place.
        output: all that Pkg said while it was to fetch it.
        log: the path of the full log.
    """
    lines = [_CONTROL.sub("", line) for line in output.decode(errors="replace").splitlines()]
    told = f"{what} cannot be had: {last}"
    full = f"the full log is {log}"

    def first(pattern: re.Pattern[str]) -> str:
        return next((_BOX.sub("", line).strip()[:300] for line in lines if pattern.search(line)), "")

    line = first(_ELSE)
    if line:
        return BuildError(
            f"{told}, and a server sent something else for it or another (Pkg says: {line})",
            hint=f"take another server (JULIA_PKG_SERVER), or ask who runs this one; {full}",
        )
    line = first(_BROKEN)
    if line:
        return BuildError(
            f"{told}, and what a server sent cannot be unpacked (Pkg says: {line})",
            hint=f"try again, or take another server (JULIA_PKG_SERVER); {full}",
        )
    line = first(_NETWORK)
    if line:
        return UnavailableError(
            f"{told}, and a server cannot be reached or does not have it (Pkg says: {line})",
            hint="name one that can in JULIA_PKG_SERVER, or fill a depot with"
            f" `julia --project=. -e 'import Pkg; Pkg.instantiate()'` where there is a network; {full}",
        )
    rest = f", and Pkg says: {said(output)}" if output.strip() else ""
    return BuildError(
        told + rest,
        hint="restore it with `julia --project=. -e 'import Pkg; Pkg.instantiate()'`, and build again; " + full,
    )


def unbuilt(package: Package, output: bytes) -> str:
    """What to say of a package that does not compile because it lacks what its build script would have written.

    Args:
        package: the package; it has a ``deps/build.jl``.
        output: what Julia said.

    Returns:
        nothing when that is not what is wrong.
    """
    if not _BUILD_OUTPUT.search(output.decode(errors="replace")):
        return ""
    where = "its own directory" if isinstance(package.source, Local) else "a directory that all its users share"
    return (
        f"{package.name} wants what its deps/build.jl writes into {where}, and a build runs no such script:"
        " its output would be in no lock"
    )
