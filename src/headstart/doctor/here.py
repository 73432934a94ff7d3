"""Judging the node itself: processor, kernel, namespaces, FUSE, cache, disk, and what Julia would find."""

import posixpath
from collections.abc import Iterator
from typing import Final

from headstart.doctor.finding import Finding, good, note, problem, warning
from headstart.microarchitecture import LEVELS
from headstart.nodefacts import Facts, Fuse, Namespaces, Place, Processors, Silence, Surroundings
from headstart.script import DROPPED
from headstart.wording import counted

_MACHINES: Final = ("x86_64", "aarch64")
_LEAST_FREE: Final = 100_000_000
_LITTLE_FREE: Final = 2_000_000_000
_LEAST_FILES: Final = 1_000
_LITTLE_FILES: Final = 20_000
_SHARED: Final = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "afs", "9p", "fuse.sshfs")
_ELSEWHERE: Final = "name a directory on a local disk with --cache or HEADSTART_CACHE"
VARIABLES: Final = frozenset(
    {
        "CACHE",
        "CACHE_QUOTA",
        "CPUINFO",
        "JULIA",
        "JULIA_VERSIONS",
        "PROXY",
        "QUIET",
        "S3_ACL",
        "S3_CONFIG",
        "SCRATCH",
        "SERVERS",
        "SESSION",
        "STATE",
        "TARGET",
        "TEST_CVMFS",
        "TEST_CVMFS_WALKS",
        "TEST_JULIAS",
        "TEST_RADOSGW",
    }
)
"""What Headstart reads, behind ``HEADSTART_``."""


def judge_node(facts: Facts) -> Iterator[Finding]:
    """All that concerns the node, whatever the source."""
    asked = facts.surroundings.variables.get("HEADSTART_TARGET", "")
    yield from _processors(facts.processors, asked)
    yield _kernel(facts)
    yield from _namespaces(facts.namespaces)
    yield _fuse(facts.fuse)
    yield from _cache(facts.place)
    yield from _julia(facts.surroundings)
    yield from _headstart(facts.surroundings)
    if facts.distrusted:
        # A name may hold anything, and a finding is one line.
        place = facts.distrusted if facts.distrusted.isprintable() else repr(facts.distrusted)
        yield warning(
            "memory",
            f"{place} is another user's, or others may write it: what this node has seen is neither read from "
            "there nor kept there",
            f"as root: chown root {place}; chmod go-w {place}",
        )


def _processors(found: Processors | Silence, asked: str) -> Iterator[Finding]:
    if isinstance(found, Silence):
        yield problem("cpu", f"the processor: {found}", "see why /proc/cpuinfo cannot be read")
        return
    if found.machine not in _MACHINES:
        yield problem("cpu", f"{found.machine} is not supported", f"use one of {' '.join(_MACHINES)}")
        return
    if not found.flags:
        yield problem(
            "cpu",
            f"{found.source} names no CPU features",
            "mount /proc in this container, or unset HEADSTART_CPUINFO",
        )
        return
    if posixpath.dirname(found.source) != "/proc":
        yield note(
            "cpu", f"the features are read from {found.source}", "unset HEADSTART_CPUINFO for this machine's"
        )
    yield from _level(found)
    if len(found.flags) > 1:
        lacking = sorted(found.flags[0] - frozenset.intersection(*found.flags))
        yield warning(
            "cpu",
            f"the processors differ; not all have {' '.join(lacking) or 'the same features'}",
            "an image is chosen by the first one: set HEADSTART_TARGET to a level that all of them have",
        )
    yield from _asked_for(found.flags[0], asked)


def _level(found: Processors) -> Iterator[Finding]:
    here = found.flags[0]
    name = f"{found.model or found.machine}{', virtual' if 'hypervisor' in here else ''}"
    if found.machine != "x86_64":
        yield good("cpu", f"{name}: {len(here)} features; images are chosen by those that they use")
        return
    reached = [level for level, flags in LEVELS.items() if flags <= here]
    beyond = next(((level, flags - here) for level, flags in LEVELS.items() if not flags <= here), None)
    reason = f"; {beyond[0]} needs {' '.join(sorted(beyond[1]))}" if beyond else ""
    if not reached:
        yield problem(
            "cpu", f"{name} is below every level{reason}", "use a newer machine, or unmask its features"
        )
    elif beyond and "hypervisor" in here and len(beyond[1]) < len(LEVELS[beyond[0]] - LEVELS[reached[-1]]):
        yield warning(
            "cpu",
            f"{name}: {reached[-1]}{reason}, and has the rest of it",
            "let the hypervisor show the processor as it is (CPU model host-passthrough)",
        )
    else:
        yield good("cpu", f"{name}: {reached[-1]}{reason}")


def _asked_for(here: frozenset[str], asked: str) -> Iterator[Finding]:
    if not asked:
        return
    needs = LEVELS.get(asked)
    if needs is None:
        yield note(
            "cpu",
            f"HEADSTART_TARGET asks for {asked[:60]!r}",
            "a release without such an image is refused (10)",
        )
    elif needs <= here:
        yield note(
            "cpu", f"HEADSTART_TARGET asks for {asked}, whatever else there is", "unset it for the best image"
        )
    else:
        yield problem(
            "cpu",
            f"HEADSTART_TARGET asks for {asked}, and this CPU lacks {' '.join(sorted(needs - here))}",
            "unset HEADSTART_TARGET",
        )


def _kernel(facts: Facts) -> Finding:
    who = "root" if facts.uid == 0 else f"user {facts.uid}"
    if facts.surroundings.entry:
        return good("kernel", f"{facts.kernel}, as {who}")
    return note("kernel", f"{facts.kernel}, as {who}, of whom the system has no entry", "fine, if HOME is set")


def _namespaces(found: Namespaces | Silence) -> Iterator[Finding]:
    if isinstance(found, Silence):
        yield warning("namespaces", f"a mount namespace: {found}", "see which mount on this machine hangs")
        return
    if not found.why_not:
        yield good("namespaces", "a release can be shown at its own path")
        return
    if found.bwrap_works:
        yield good("namespaces", f"a release can be shown at its own path by {found.bwrap} ({found.why_not})")
        return
    bwrap = f"{found.bwrap} fails too" if found.bwrap else "bubblewrap is not installed"
    yield warning(
        "namespaces",
        f"{found.why_not}, and {bwrap}: without a mount at /cvmfs only releases that may move can run (14)",
        _unlock(found),
    )


def _unlock(found: Namespaces) -> str:
    switches = found.switches
    changes = [
        f"{name}={value}"
        for name, stops, value in (
            ("user.max_user_namespaces", "0", "15000"),
            ("user.max_mnt_namespaces", "0", "15000"),
            ("kernel.unprivileged_userns_clone", "0", "1"),
            ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        )
        if switches.get(name) == stops
    ]
    if changes:
        return f"as root: sysctl {' '.join(changes)}; or mount the repository"
    return (
        "rules of a container or a service forbid it (seccomp, AppArmor): relax them, or mount the repository"
    )


def _fuse(found: Fuse) -> Finding:
    client = found.client or "no cvmfs2"
    if found.device:
        return good("fuse", f"/dev/fuse may be opened; {client}, {found.helper or 'no fusermount'}")
    return note(
        "fuse",
        f"/dev/fuse cannot be opened; {client}",
        "" if not found.client else "the CernVM-FS client needs it: pass the device into this container",
    )


def _cache(found: Place | Silence | None) -> Iterator[Finding]:
    if found is None:
        yield problem(
            "cache",
            "there is no place for it: HOME is not set, and the system has no entry of this user",
            "name a directory with --cache or HEADSTART_CACHE",
        )
        return
    if isinstance(found, Silence):
        yield problem("cache", f"its file system gives {found}", _ELSEWHERE)
        return
    where = f"{found.path} ({found.origin}{'' if found.exists else ', to be made'})"
    if found.trouble is not None:
        yield problem("cache", found.trouble.text, found.trouble.hint or _ELSEWHERE)
    elif found.noexec:
        yield problem("cache", f"{where} is mounted noexec: no program in it can be started", _ELSEWHERE)
    elif found.unwritable and not found.exists:
        yield problem("cache", f"{where} cannot be made: {found.unwritable}", _ELSEWHERE)
    elif found.unwritable and found.borrowed:
        yield note("cache", f"{where} is root's: what is in it is used, and only root can add to it")
    elif found.unwritable:
        yield warning(
            "cache",
            f"{where} cannot be written: {found.unwritable}; what is in it can be used",
            "make room or lift the quota, or fill it as the user to whom it belongs",
        )
    elif found.kind in _SHARED:
        yield note("cache", f"{where} is on {found.kind}", "fetching and starting are faster from a local disk")
    else:
        yield good("cache", where)
    yield _disk(found)


def _disk(found: Place) -> Finding:
    kind = f" of {found.kind}" if found.kind else ""
    text = f"{found.free / 1e9:.1f} GB free of {found.size / 1e9:.1f} GB{kind}"
    few = found.free_files >= 0
    if found.free < _LEAST_FREE:
        return problem(
            "disk", f"{text}: not enough for a release", f"make room below {found.path}, or {_ELSEWHERE}"
        )
    if few and found.free_files < _LEAST_FILES:
        return problem(
            "disk", f"{counted(found.free_files, 'file')} may still be made", f"delete some, or {_ELSEWHERE}"
        )
    if found.free < _LITTLE_FREE:
        return warning(
            "disk", f"{text}: little for a release", f"make room below {found.path}, or {_ELSEWHERE}"
        )
    if few and found.free_files < _LITTLE_FILES:
        return warning(
            "disk", f"{counted(found.free_files, 'file')} may still be made", f"delete some, or {_ELSEWHERE}"
        )
    if found.kind in ("tmpfs", "ramfs"):
        return note("disk", f"{text}: it is the node's memory that it fills")
    return good("disk", text)


def _julia(found: Surroundings) -> Iterator[Finding]:
    said = len(findings := list(_julia_variables(found)))
    yield from findings
    if found.startup:
        yield note("julia", f"{found.startup[0]} is run by sessions (shell, env), and never by run")
    if found.temporary:
        yield warning(
            "julia",
            f"no temporary file can be made in {found.temporary}",
            "set TMPDIR to a place that is there",
        )
    if not said and not found.startup and not found.temporary:
        yield good(
            "julia",
            f"nothing is set that would change it; in PATH: {found.julia or 'none, and none is needed'}",
        )


def _julia_variables(found: Surroundings) -> Iterator[Finding]:
    variables = found.variables
    ours = {"JULIA_DEPOT_PATH", "JULIA_LOAD_PATH", "JULIA_PROJECT", "LD_LIBRARY_PATH", *DROPPED}
    dropped = sorted(name for name in variables if name in ours)
    if dropped:
        yield note(
            "julia", f"{' '.join(dropped)}: run and bin/julia do without; sessions (shell, env) keep them"
        )
    kept = sorted(name for name in variables if name.startswith("JULIA_") and name not in ours)
    if kept:
        yield note("julia", f"{' '.join(kept)}: Julia is given these")
    if variables.get("LD_PRELOAD"):
        yield warning(
            "julia",
            f"LD_PRELOAD={variables['LD_PRELOAD'][:200]} is loaded into every Julia, and nothing verifies it",
            "unset it, unless the site needs it",
        )


def _headstart(found: Surroundings) -> Iterator[Finding]:
    if not found.home:
        yield warning(
            "home",
            "there is no home: HOME is not set, and the system has no entry of this user",
            "set HOME, or XDG_CACHE_HOME and HEADSTART_CACHE",
        )
    names = (name for name in found.variables if name.startswith("HEADSTART_"))
    unknown = sorted(name for name in names if name.removeprefix("HEADSTART_") not in VARIABLES)
    if unknown:
        yield warning("settings", f"{' '.join(unknown)}: nothing reads it", "see docs/node.md for the names")
    if not found.fast:
        yield note("python", "isal is not installed", "pip install isal: fetching is faster with it")
