"""Finding out about a node: two rounds of questions, because some depend on what a source turns out to be."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from headstart import bounded, probing, surroundings
from headstart.cache import memories, memory_is_sound
from headstart.errors import Error
from headstart.names import Fqrn
from headstart.nodefacts import Facts, Silence, Surroundings, Trouble, Way
from headstart.probing import Inquiry, Named
from headstart.route import DIRECT, Patience, Route
from headstart.siteconfig import Site
from headstart.source import Anchors, MountSource, StorageSource, WebSource

_MOUNTS: Final = "/cvmfs"
_MOST_WAYS: Final = 64
_Questions = dict[tuple[str, Any], Callable[[], Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a look is to be taken at."""

    source: str
    """As the user named it; nothing where he did not."""
    anchors: Anchors
    cache: str
    """Its directory; nothing where there is no place for one."""
    origin: str
    """What says that the cache is there."""
    state: str
    """Where root lets this node remember."""
    cpuinfo: str
    seconds: float
    """That anything may take to answer."""


def gather(case: Case, *, env: Mapping[str, str], now: datetime, clock: Callable[[], float]) -> Facts:
    """Find out what there is to be known.

    Args:
        case: what is asked about.
        env: the user's environment.
        now: UTC.
        clock: seconds since 1970.
    """
    first: _Questions = {
        ("processors", ""): partial(surroundings.look_at_processors, case.cpuinfo),
        ("namespaces", ""): partial(surroundings.try_namespaces, env),
        ("place", ""): partial(surroundings.look_at_place, case.cache, case.origin, uid=os.geteuid()),
        ("around", ""): partial(surroundings.look_around, env),
        ("mounts", ""): partial(_names, _MOUNTS),
        ("source", ""): partial(_understand, case),
        ("quota", ""): partial(_quota, case),
        ("distrusted", ""): partial(_distrusted, case.state),
    }
    found = {name: answer for (name, _), answer in bounded.ask(first, case.seconds).items()}
    understood = found["source"]
    known = understood if isinstance(understood, Named) else None
    mounted = known.source.root if known is not None and isinstance(known.source, MountSource) else ""
    names = () if isinstance(found["mounts"], Silence) else found["mounts"]
    paths = dict.fromkeys((*([mounted] if mounted else []), *(f"{_MOUNTS}/{name}" for name in names)))
    second: _Questions = {("mount", path): partial(surroundings.look_at_mount, path) for path in paths}
    if isinstance(understood, Route):
        second |= _proxies(understood)
    if known is not None:
        second |= _of_source(known, case, now=now, clock=clock)
    answers = bounded.ask(second, case.seconds)

    def part(kind: str) -> dict[Any, Any]:
        return {key: answer for (name, key), answer in answers.items() if name == kind}

    seen = part("seen").get("", 0)
    around = found["around"]
    uname = os.uname()
    return Facts(
        now=now,
        uid=os.geteuid(),
        kernel=f"{uname.sysname} {uname.release}",
        fqrn=known.fqrn if known is not None else None,
        source=mounted or case.source,
        settings=_trouble(case.source or "the settings", understood, seen, found["quota"]),
        seen=seen if isinstance(seen, int) else 0,
        distrusted=found["distrusted"] if isinstance(found["distrusted"], str) else "",
        processors=found["processors"],
        namespaces=found["namespaces"],
        fuse=surroundings.look_at_fuse(env),
        mounts=part("mount"),
        place=found["place"],
        proxies=part("proxy"),
        ways=part("way"),
        storage=part("storage").get(""),
        surroundings=around if isinstance(around, Surroundings) else _unseen(env, around),
    )


def _names(folder: str) -> tuple[str, ...]:
    """The repositories below ``/cvmfs``: names with a dot."""
    try:
        return tuple(sorted(name for name in os.listdir(folder) if "." in name.strip(".")))
    except OSError:
        return ()


def _understand(case: Case) -> Named | Route | Trouble | None:
    """The source; without one the proxies that are set for any; nothing where nothing is set."""
    if case.source:
        return probing.understand(case.source, case.anchors)
    try:
        site: Site = case.anchors.site_of(None)
        return site.route("http://server.invalid/cvmfs/any.invalid")
    except Error as error:
        return Trouble.of(error)


def _proxies(route: Route) -> _Questions:
    proxies = dict.fromkeys(proxy for group in route.proxies for proxy in group if proxy != DIRECT)
    return {("proxy", proxy): partial(probing.connect, proxy, route.patience) for proxy in proxies}


def _of_source(known: Named, case: Case, *, now: datetime, clock: Callable[[], float]) -> _Questions:
    patience = known.source.route.patience if isinstance(known.source, WebSource) else Patience()
    inquiry = Inquiry(named=known, patience=patience, now=now, clock=clock)
    found: _Questions = {}
    if isinstance(known.source, WebSource):
        route = known.source.route
        proxies = tuple(dict.fromkeys(proxy for group in route.proxies for proxy in group))
        ways = [Way(server=server, proxy=proxy) for server in route.servers for proxy in proxies]
        found |= _proxies(route)
        found |= {("way", way): partial(probing.hear, way, inquiry) for way in ways[:_MOST_WAYS]}
    elif isinstance(known.source, StorageSource):
        found["storage", ""] = partial(probing.look_at_storage, known.source.directory, inquiry)
    if known.fqrn is not None and not isinstance(known.keys, Trouble):
        found["seen", ""] = partial(_seen, case, known.fqrn, known.keys.by_id)
    return found


def _seen(case: Case, fqrn: Fqrn, anchors: Mapping[str, object]) -> int | Trouble:
    """The revision that this node has seen, wherever it remembers."""
    revisions = [0]
    for place in memories(case.cache, case.state, fqrn, uid=os.geteuid()):
        try:
            seen = place.recall(anchors).seen
        except Error as error:
            return Trouble.of(error)
        revisions += [seen.revision] if seen is not None else []
    return max(revisions)


def _distrusted(state: str) -> str:
    """The directory, if it is there and others may write it."""
    return state if os.path.isdir(state) and not memory_is_sound(state, uid=os.geteuid()) else ""


def _quota(case: Case) -> Trouble | None:
    """What is wrong with the quota that is set."""
    try:
        _ = case.anchors.site_of(None).cache_quota
    except Error as error:
        return Trouble.of(error)
    return None


def _trouble(what: str, *answers: object) -> Trouble | None:
    """The first of these that is one."""
    for answer in answers:
        if isinstance(answer, Trouble):
            return answer
        if isinstance(answer, Silence):
            return Trouble(code=1, text=f"{what}: {answer}", hint="see which mount on this machine hangs")
        if (
            isinstance(answer, Named)
            and isinstance(answer.keys, Trouble)
            and not isinstance(answer.source, WebSource | StorageSource)
        ):
            return answer.keys
    return None


def _unseen(env: Mapping[str, str], silence: Silence) -> Surroundings:
    """What is known where a file system that all this is on does not answer."""
    folder = env.get("TMPDIR") or "/tmp"  # noqa: S108
    return Surroundings(
        variables=dict(env),
        home=env.get("HOME", ""),
        entry=True,
        startup=(),
        julia="",
        temporary=f"{folder} ({silence}: HOME, PATH or TMPDIR leads to a mount that hangs)",
        fast=True,
    )
