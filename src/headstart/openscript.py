"""``open/julia`` of a release: a Julia for a user's own session, with the release behind what is the user's.

Theory of operation. The script finds its release and chooses the image as ``bin/julia`` does. Then it changes
three things only. The release's system image, if it has one, is given to Julia. The release's depots come
behind the user's own in ``JULIA_DEPOT_PATH``; the load path, the project and all else stay the user's, who may
compile, into the first depot, which is his. And variables that would make this Julia another one are set right.

Depots are put together here, at each start, and not in the environment of a session: which of the release's
depots is right depends on the CPU, and a session's environment travels, with a batch job, to nodes with another
one.

An empty entry of ``JULIA_DEPOT_PATH`` stands for Julia's own depots, which come at the end here in any case,
and in some places for ``~/.julia``; in which ones depends on the version (``headstart.julia.UserDepot``). It is
spelled out, because with the release behind it the list would be another one. ``~`` is left to Julia, which
knows the home of a user without ``HOME`` too. Entries of the release itself, as a Julia hands them down to what
it starts, are taken out first, so the same start within a start gives the same list.

Nothing is said: a session starts Julia often, and was told at its own start.
"""

from typing import Final

from headstart.julia import UserDepot
from headstart.release import Release
from headstart.script import NOWHERE, depots_behind, fill, with_places

OPEN_LAUNCHER_PATH: Final = "open/julia"
"""Where the script is in a release. Its directory goes on the PATH of a session."""


def open_launcher(release: Release, user_depot: UserDepot) -> str:
    """The text of ``open/julia``."""
    return fill(
        release,
        {
            "SELF": OPEN_LAUNCHER_PATH,
            "ABOUT": _ABOUT,
            "SAY": "",
            "ARGUMENTS": "",
            "DEPOT": _DEPOTS.replace("%USER%", _USER[user_depot]).replace("%EMPTY%", _EMPTY[user_depot]),
            "ENVIRONMENT": _environment(release),
            "OPTIONS": "",
        },
    )


def _environment(release: Release) -> str:
    depots = with_places(
        ":".join(depots_behind(release, "\0root", "\0julia")),
        before=f"${{hs_depots:-{NOWHERE}:}}${{hs_packages:+$hs_root/$hs_packages:}}",
    )
    # Another Julia's: with it this one would look for its own parts there.
    lines = ["unset JULIA_BINDIR", f"export JULIA_DEPOT_PATH={depots}"]
    if release.julia_library_path:
        ours = ":".join(f"\0julia/{path}" for path in release.julia_library_path)
        lines += [
            f"hs_libraries={with_places(ours)}",
            "case ${LD_LIBRARY_PATH-} in",
            '"$hs_libraries" | "$hs_libraries":*) ;;',
            '*) export LD_LIBRARY_PATH="$hs_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ;;',
            "esac",
        ]
    return "\n".join(lines)


_ABOUT: Final = """\
# Start Julia for a session of one's own, with stack %STACK%, release %RELEASE%, behind one's own depots:
# its image for this CPU, its packages and their compiled code. The load path and the project stay as they are.
# Made by Headstart. Needs a POSIX shell and /proc/cpuinfo, and starts no other program before Julia.
#
#   HEADSTART_TARGET=TARGET    use this image, if this CPU can run it
#   HEADSTART_CPUINFO=FILE     read the CPU's features from this file
#
# shellcheck disable=SC2034,SC2088  # nothing is said here of the choice; it is Julia that reads the tilde"""

_USER: Final = {
    UserDepot.EVERY: "hs_user='~/.julia:'",
    UserDepot.ALONE: "case ${JULIA_DEPOT_PATH-:} in\n*[!:]* | '') ;;\n*) hs_depots='~/.julia:' ;;\nesac",
    UserDepot.FIRST: "case ${JULIA_DEPOT_PATH-:} in\n:*) hs_depots='~/.julia:' ;;\nesac",
}
_EMPTY: Final = {
    UserDepot.EVERY: "'') hs_depots=$hs_depots$hs_user hs_user='' ;;",
    UserDepot.ALONE: "'') ;;",
    UserDepot.FIRST: "'') ;;",
}

_DEPOTS: Final = """\
# The user's depots come first. Set to nothing, JULIA_DEPOT_PATH means none at all; not set, what a colon means.
hs_depots=
%USER%
hs_rest=${JULIA_DEPOT_PATH-:}
hs_rest=${hs_rest:+$hs_rest:}
while [ -n "$hs_rest" ]; do
    hs_entry=${hs_rest%%:*}
    hs_rest=${hs_rest#*:}
    case $hs_entry in
    %EMPTY%
    %NOWHERE% | "$hs_root" | "$hs_root"/* | "$hs_julia"/*) ;;
    *) hs_depots=$hs_depots$hs_entry: ;;
    esac
done""".replace("%NOWHERE%", NOWHERE)
