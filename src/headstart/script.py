"""``bin/julia`` of a release: selection and start in POSIX sh, for nodes that have no Python.

Theory of operation. The script runs under any POSIX shell (dash, bash, busybox) from any directory, through
symbolic links and through ``PATH``. It starts no other program before Julia, nor forks: everything on the usual
way is built into the shell, because a fork costs more than the whole decision. ``/proc/cpuinfo`` is read no
further than the first processor's flags.

A release knows the path it is meant for, so ``[ $0 -ef <that path> ]`` answers where the script stands without
following any link. Only a relocatable release that was moved looks for itself (and may start ``readlink``).

Variables are called ``hs_...`` so that none that the user exports is changed for Julia. What a job's
environment says about Julia's own workings is dropped by name (``DROPPED``): a shell cannot go through its
environment without forking, and the Python launcher takes the same list, so that both start the same Julia.

Exit codes are those of ``headstart.errors``.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from headstart.errors import (
    ConfigurationError,
    IncompatibleError,
    MissingError,
    NamespaceError,
)
from headstart.microarchitecture import FLAG_KEYS, LEVELS, best_known
from headstart.release import ImageRecord, PackageImages, Release

LAUNCHER_PATH: Final = "bin/julia"
"""Where the script is in a release."""

DROPPED: Final = (
    "JULIA_BINDIR",
    "JULIA_CPU_TARGET",
    "JULIA_FALLBACK_REPL",
    "JULIA_IMAGE_THREADS",
    "JULIA_IMAGE_TIMINGS",
    "JULIA_LLVM_ARGS",
    "JULIA_MAX_NUM_PRECOMPILE_FILES",
    "JULIA_NUM_PRECOMPILE_TASKS",
    "JULIA_OBJCACHE_PATH",
    "JULIA_PKG_DEVDIR",
    "JULIA_PKG_OFFLINE",
    "JULIA_PKG_PRECOMPILE_AUTO",
    "JULIA_PKG_PRESERVE_TIERED_INSTALLED",
    "JULIA_PKG_SERVER",
    "JULIA_PKG_USE_CLI_GIT",
    "JULIA_SYSIMAGE",
    "JULIA_USE_FLISP_PARSER",
    "JULIA_USE_NEW_PARSER",
    "JULIA_VERBOSE_LINKING",
)
"""What a sealed start takes out of the environment: whatever decides which code is found, parsed or compiled.

What only tunes a run stays (``JULIA_NUM_THREADS``, ``JULIA_DEBUG``, ``JULIA_EXCLUSIVE``, settings of packages).
"""


OTHER_PROJECT: Final = (
    "puts another project, with its own lock and preferences, in the place of the one that the image was built"
    " from; leave it out"
)
_WITH_VALUE: Final = ("-e", "-E", "-L", "-C", "-H", "-J", "-p", "-t", "-m")
"""Options whose value is the next word."""


def options(release: Release, root: str) -> tuple[str, ...]:
    """What a sealed start says to Julia between the image and the user's arguments.

    Args:
        release: what is started.
        root: where its directory is to be seen.
    """
    startup = ("-L", f"{root}/{release.startup}") if release.startup else ()
    return ("--startup-file=no", *release.julia_options, *startup)


NOWHERE: Final = "/dev/null"
"""A depot that nothing can be written into, wherever a release is and whoever its user is: no directory."""


def is_strict(release: Release) -> bool:
    """Whether Julia has a word for it (since 1.11), so that the first depot may be one that can be written.

    Julia compiles into the first depot what it has no cache for. Before 1.11 a depot stands there that cannot
    be written, which makes every miss an error (``compilecache_path`` in ``base/loading.jl``, 1.5:1228,
    1.10:2297). Since 1.11 ``--compiled-modules=strict`` does that, and packages that want a scratch space can
    have one.
    """
    return "--compiled-modules=strict" in release.julia_options


def first_depots(release: Release, scratch: str) -> tuple[str, ...]:
    """What stands in front of a release's own depots in a sealed start.

    Package images of a Julia before 1.11 are always seen read-only (they cannot move), so they may come first
    themselves. A release without any runs from a directory of its user's own, too.

    Args:
        release: what is started.
        scratch: a depot of the user's own that nothing is compiled into, or nothing.
    """
    if scratch:
        return (scratch,)
    return () if is_strict(release) or has_packages(release) else (NOWHERE,)


def has_packages(release: Release) -> bool:
    """Whether its images have package images, on top of a system image or alone."""
    return any(image.packages for image in release.images)


def own_depots(root: str, share: str, *, movable_caches: bool) -> tuple[str, ...]:
    """The depots of a release behind that of its image; a build must see the same ones as a start.

    Args:
        root: where its directory is to be seen.
        share: where its Julia's bundled depot is to be seen.
        movable_caches: whether it has cache files that bear another path: these name their sources by the depot
            that they are in, so the project's own need one too.
    """
    return (f"{root}/depot", *((root,) if movable_caches else ()), share)


def depots_behind(release: Release, root: str, julia: str) -> tuple[str, ...]:
    """The depots of a release behind that of its image.

    Args:
        release: what is started.
        root: where its directory is to be seen.
        julia: where its Julia is to be seen.
    """
    movable_caches = release.relocatable and has_packages(release)
    return own_depots(root, f"{julia}/{release.julia_share}", movable_caches=movable_caches)


def settings(
    release: Release, root: str, julia: str, *, scratch: str = "", packages: Sequence[PackageImages] = ()
) -> Mapping[str, str]:
    """The environment of a sealed start, beyond what it drops.

    Args:
        release: what is started.
        root: where its directory is to be seen.
        julia: where its Julia is to be seen.
        scratch: a depot of the user's own that nothing is compiled into, or nothing.
        packages: the chosen image's package images.
    """
    depots = (
        *first_depots(release, scratch),
        *(f"{root}/{part.path}" for part in packages),
        *depots_behind(release, root, julia),
    )
    variables = {
        "JULIA_DEPOT_PATH": ":".join(depots),
        "JULIA_LOAD_PATH": ":".join(("@", "@stdlib", *(f"{root}/{path}" for path in release.load_path))),
        "JULIA_PROJECT": f"{root}/project",
        **release.julia_environment,
    }
    if release.julia_library_path:
        variables["LD_LIBRARY_PATH"] = ":".join(f"{julia}/{path}" for path in release.julia_library_path)
    return variables


def other_project(words: Sequence[str]) -> str:
    """The option among Julia's that puts another project in the place of the release's; empty when none does.

    Another project has another lock and other preferences than the image was compiled with: package images
    would be of no use, and a system image would keep what it was compiled with and not say so.
    """
    value = False
    for word in words:
        if value:
            value = False
        elif word == "--project" or word.startswith("--project="):
            return word
        elif not word.startswith("-"):
            break
        else:
            value = word in _WITH_VALUE
    return ""


def refuse_other_project(words: Sequence[str]) -> None:
    """Refuse what ``other_project`` finds.

    Raises:
        ConfigurationError: it finds something.
    """
    word = other_project(words)
    if word:
        raise ConfigurationError(f"{word} {OTHER_PROJECT}")


def dropped(release: Release) -> tuple[str, ...]:
    """Names that a sealed start takes out of the environment."""
    kept = settings(release, "", "")
    return tuple(name for name in (*DROPPED, "LD_LIBRARY_PATH") if name not in kept)


def launcher(release: Release) -> str:
    """The text of ``bin/julia``."""
    return fill(
        release,
        {
            "SELF": LAUNCHER_PATH,
            "ABOUT": _ABOUT,
            "SAY": _SAY,
            "ARGUMENTS": _ARGUMENTS,
            "DEPOT": _SCRATCH if is_strict(release) else "hs_depot=",
            "ENVIRONMENT": _environment(release),
            "OPTIONS": _options(release) + " ",
        },
    )


def fill(release: Release, start: Mapping[str, str]) -> str:
    """The text of a script that finds its release, chooses the image and becomes Julia.

    Args:
        release: of which it is a part.
        start: what it is called, what it says and what it gives to Julia, by placeholder.
    """
    parts = {
        **start,
        "ELSEWHERE": _ELSEWHERE if release.relocatable else _NOWHERE_ELSE,
        "ASKED": _asked(release),
        "CHOOSE": _choose(release),
        "STACK": str(release.stack),
        "RELEASE": str(release.id),
        "ROOT": shlex.quote(release.path),
        "MOUNTPOINT": release.fqrn.mountpoint,
        "JULIA": shlex.quote(str(release.julia)),
        "EXECUTABLE": shlex.quote(release.julia_executable),
        "TARGETS": " ".join(image.target for image in release.images),
        "OTHER_PROJECT": OTHER_PROJECT,
        "WITH_VALUE": " | ".join(_WITH_VALUE),
        "FLAG_KEYS": " | ".join(FLAG_KEYS),
        "CONFIGURATION": str(ConfigurationError.exit_code),
        "INCOMPATIBLE": str(IncompatibleError.exit_code),
        "NAMESPACE": str(NamespaceError.exit_code),
        "MISSING": str(MissingError.exit_code),
    }
    text = _SCRIPT
    for name, value in parts.items():
        text = text.replace(f"%{name}%", value)
    return text


def _options(release: Release) -> str:
    words = options(release, "\0root")
    return " ".join(with_places(word) if "\0" in word else shlex.quote(word) for word in words)


def _weigh(image: ImageRecord) -> tuple[str, str]:
    system = "".join(part.path for part in image.system)
    packages = "".join(part.path for part in image.packages)
    return (
        f"hs_need {' '.join(map(shlex.quote, sorted(image.features)))}",
        f"hs_take {shlex.join((image.target, system, packages))}",
    )


def _asked(release: Release) -> str:
    """The arms of the ``case`` over ``HEADSTART_TARGET``."""
    lines = []
    for image in release.images:
        need, take = _weigh(image)
        lines += [f"{shlex.quote(image.target)})", f"    {need}", f"    {take}", "    ;;"]
    return "\n".join(f"    {line}" for line in lines)


def _choose(release: Release) -> str:
    """From the most demanding image down: take it, or note why not; then the levels beyond them all."""
    lines = []
    for image in reversed(release.images):
        need, take = _weigh(image)
        lines += ['if [ -z "$hs_image" ]; then', f"    {need}", f"    {take}", "fi"]
    best = best_known([image.target for image in release.images])
    beyond = tuple(LEVELS.items())[best + 1 :] if best >= 0 else ()
    for level, flags in reversed(beyond):
        lines += [
            'if [ -z "$hs_beyond" ]; then',
            f"    hs_need {' '.join(sorted(flags))}",
            f'    [ -n "$hs_missing" ] || hs_beyond="; {level} not built"',
            "fi",
        ]
    return "\n".join(f"    {line}" for line in lines)


def _environment(release: Release) -> str:
    """Assignments, with the two places left to the shell."""
    lines = [f"unset {' '.join(dropped(release))}"]
    for name, value in settings(release, "\0root", "\0julia").items():
        depots = "$hs_depot${hs_packages:+$hs_root/$hs_packages:}" if name == "JULIA_DEPOT_PATH" else ""
        lines.append(f"export {name}={with_places(value, before=depots)}")
    return "\n".join(lines)


def with_places(text: str, before: str = "") -> str:
    """A word in double quotes in which the shell fills in where the release and its Julia are."""
    quoted = re.sub(r'([$`"\\])', r"\\\1", text)
    quoted = quoted.replace("\0root", "$hs_root").replace("\0julia", "$hs_julia")
    return f'"{before}{quoted}"'


_ABOUT: Final = """\
# Start Julia with stack %STACK%, release %RELEASE%, and the image that fits this CPU.
# Made by Headstart. Needs a POSIX shell and /proc/cpuinfo, and starts no other program before Julia.
#
#   HEADSTART_TARGET=TARGET    use this image, if this CPU can run it
#   HEADSTART_QUIET=1          do not say on standard error which image was chosen, and why
#   HEADSTART_CPUINFO=FILE     read the CPU's features from this file"""

_SAY: Final = """\
if [ -z "${HEADSTART_QUIET-}" ]; then
    printf 'headstart: %s\\n' "%STACK% %RELEASE%: image $hs_target$hs_beyond$hs_why" >&2
fi
"""

_SCRATCH: Final = """\
# The user's own depot comes first: packages may keep files there; nothing is ever compiled into it.
hs_depot=
if [ -n "${XDG_CACHE_HOME-}" ]; then
    hs_depot=$XDG_CACHE_HOME/headstart/scratch/%RELEASE%
elif [ -n "${HOME-}" ]; then
    hs_depot=$HOME/.cache/headstart/scratch/%RELEASE%
fi
case $hs_depot in
*:*) hs_depot='' ;;
/*) hs_depot=$hs_depot: ;;
*) hs_depot='' ;;
esac"""

_NOWHERE_ELSE: Final = """\
    hs_what="%STACK% %RELEASE% can only run as $hs_root, and this is $0"
    hs_fail %NAMESPACE% "$hs_what; mount the repository at %MOUNTPOINT%, or use 'headstart run'"\
"""

_ELSEWHERE: Final = r"""    hs_self=$0
    case $hs_self in
    */*) ;;
    *)
        # A shell that searched PATH by itself does not say what it found.
        if [ ! -f "$hs_self" ]; then
            IFS=:
            for hs_place in ${PATH-}; do
                if [ -f "${hs_place:-.}/$hs_self" ]; then
                    hs_self=${hs_place:-.}/$hs_self
                    break
                fi
            done
            unset IFS
        fi
        ;;
    esac
    while [ -h "$hs_self" ]; do
        hs_link=$(readlink "$hs_self") || hs_fail %NAMESPACE% "$hs_self cannot be followed"
        case $hs_link in
        /*) hs_self=$hs_link ;;
        *) hs_self=${hs_self%"${hs_self##*/}"}$hs_link ;;
        esac
    done
    # In a subshell, so that the job's working directory stays; the dot saves a newline at the end of a name.
    case $hs_self in
    /*) ;;
    *) hs_self=./$hs_self ;;
    esac
    hs_root=$(CDPATH='' command cd -P -- "${hs_self%/*}/.." && printf '%s.' "$PWD") ||
        hs_fail %NAMESPACE% "the release that $0 belongs to cannot be found"
    hs_root=${hs_root%.}
    case $hs_root in
    *:*) hs_fail %NAMESPACE% "$hs_root has a colon in its name, which a list of depots cannot hold" ;;
    esac"""

_ARGUMENTS: Final = """\
# The options of Julia's among the arguments, up to the program.
hs_value=
for hs_word do
    if [ -n "$hs_value" ]; then
        hs_value=
        continue
    fi
    case $hs_word in
    --project | --project=*) hs_fail %CONFIGURATION% "$hs_word %OTHER_PROJECT%" ;;
    %WITH_VALUE%) hs_value=1 ;;
    -*) ;;
    *) break ;;
    esac
done

"""

_SCRIPT: Final = r"""#!/bin/sh
%ABOUT%

set +aefu
unset IFS

hs_fail() {
    printf 'headstart: %s\n' "$2" >&2
    exit "$1"
}

# Set hs_missing to those of the arguments that this CPU does not offer.
hs_need() {
    hs_missing=
    for hs_flag do
        case $hs_flags in
        *" $hs_flag "*) ;;
        *) hs_missing="$hs_missing $hs_flag" ;;
        esac
    done
}

# Take the image of target $1, system image $2 and package images $3, if nothing is missing; else note why not.
hs_take() {
    if [ -z "$hs_missing" ]; then
        hs_target=$1 hs_system=$2 hs_packages=$3
        hs_image=${2:-$3}
    else
        hs_least="$1 needs$hs_missing"
        hs_why="; $hs_least$hs_why"
    fi
}

# Where this release is.
hs_root=%ROOT%
# shellcheck disable=SC3013  # -ef is POSIX since 2024, and every sh has had it for long
if [ "$0" != "$hs_root/%SELF%" ] && ! [ "$0" -ef "$hs_root/%SELF%" ]; then
%ELSEWHERE%
fi
hs_julia=${hs_root%/*/*/*}/julia/%JULIA%
hs_program=$hs_julia/%EXECUTABLE%

%ARGUMENTS%# What this CPU offers: the flags of the first processor.
hs_flags=
hs_cpuinfo=${HEADSTART_CPUINFO:-/proc/cpuinfo}
if [ -r "$hs_cpuinfo" ]; then
    while read -r hs_key hs_rest || [ -n "$hs_key" ]; do
        case $hs_key in
        %FLAG_KEYS%)
            hs_flags=" ${hs_rest#:} "
            break
            ;;
        esac
    done <"$hs_cpuinfo"
fi

# The image: the most demanding one that this CPU offers everything for.
hs_image='' hs_system='' hs_packages='' hs_target='' hs_least='' hs_why='' hs_beyond=''
if [ -n "${HEADSTART_TARGET-}" ]; then
    hs_what='this CPU cannot run the image that HEADSTART_TARGET asks for'
    hs_beyond='; as HEADSTART_TARGET asks'
    case $HEADSTART_TARGET in
%ASKED%
    *)
        hs_what="HEADSTART_TARGET asks for '$HEADSTART_TARGET', and this release has no such image"
        hs_fail %CONFIGURATION% "$hs_what; it has %TARGETS%"
        ;;
    esac
else
    hs_what='this CPU can run no image of this release'
%CHOOSE%
fi
if [ -z "$hs_image" ]; then
    case $hs_flags in
    *[!\ ]*) hs_fail %INCOMPATIBLE% "$hs_what: $hs_least, which it does not offer" ;;
    *) hs_fail %INCOMPATIBLE% "$hs_what: $hs_cpuinfo names no CPU features" ;;
    esac
fi
if [ ! -r "$hs_root/$hs_image" ]; then
    hs_fail %MISSING% "$hs_root/$hs_image is not there; mount the repository, or use 'headstart run'"
fi
if [ ! -x "$hs_program" ]; then
    hs_fail %MISSING% "$hs_program is not there; mount the whole repository at %MOUNTPOINT%"
fi
%SAY%
%DEPOT%
%ENVIRONMENT%
exec "$hs_program" ${hs_system:+-J "$hs_root/$hs_system"} %OPTIONS%"$@"
"""
