"""Judging where a repository comes from: settings, mounts, proxies, servers, and the clock that they show."""

import statistics
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from headstart.doctor.finding import Finding, Grade, good, note, problem, warning
from headstart.nodefacts import Facts, Heard, Mount, ProxyAnswer, Silence, Storage, Trouble, Way
from headstart.route import DIRECT

_SLOW: Final = 1.0
_SKEW: Final = 60.0
"""Seconds by which a clock may be wrong before it is worth a word: dates of servers are rounded, and kept."""
_BAD_SKEW: Final = 3600.0
_SOON: Final = timedelta(days=3)
_CLOCK: Final = "set the clock (chronyc makestep, or ntpdate)"


def judge_sources(facts: Facts) -> Iterator[Finding]:
    """All that concerns where a repository comes from."""
    if facts.settings is not None:
        yield problem("settings", facts.settings.text, facts.settings.hint or "correct it")
    yield from _mounts(facts.mounts, facts)
    yield from _proxies(facts.proxies)
    heard = {way: found for way, found in facts.ways.items() if isinstance(found, Heard)}
    yield from _servers(facts)
    if facts.storage is not None:
        yield _storage(facts.storage, facts)
    yield from _clock(heard, facts)
    if not facts.source and facts.settings is None:
        yield note(
            "strata", "no repository was named", "headstart doctor NAME or ADDRESS looks at its servers, too"
        )


def _mounts(mounts: Mapping[str, Mount | Silence], facts: Facts) -> Iterator[Finding]:
    for path, found in mounts.items():
        if isinstance(found, Silence):
            yield problem(
                "mounts",
                f"{path} hangs: {found}",
                "as root: cvmfs_config killall; or name a server in place of the mount",
            )
        elif found.error or not found.entries:
            if not facts.ways and facts.storage is None and path == facts.source:
                yield problem(
                    "mounts", f"{path}: {found.error or 'nothing in it'}", f"cvmfs_config probe {path[7:]}"
                )
            else:
                yield note("mounts", f"{path} is not mounted, so releases are fetched")
        else:
            yield _mounted(found)
    if not mounts:
        yield note("mounts", "nothing is mounted below /cvmfs, so releases are fetched")


def _mounted(found: Mount) -> Finding:
    said = found.attributes
    about = "".join(
        f", {label} {said[name]}"
        for name, label in (("revision", "revision"), ("host", "from"))
        if said.get(name)
    )
    text = f"{found.path}: {found.kind or 'a plain directory'}{about}"
    errors = said.get("nioerr", "0")
    if errors not in ("", "0"):
        return warning(
            "mounts", f"{text}; its client counts {errors[:20]} I/O errors", "see cvmfs_config stat -v"
        )
    return good("mounts", text)


def _proxies(proxies: Mapping[str, ProxyAnswer | Silence]) -> Iterator[Finding]:
    dead = {name for name, found in proxies.items() if isinstance(found, Silence) or found.error}
    for name, found in proxies.items():
        if isinstance(found, Silence):
            text = f"{name}: {found}"
        elif found.error:
            text = f"{name}: {found.error}"
        else:
            yield good("proxies", f"{name} answers after {found.seconds * 1000:.0f} ms")
            continue
        todo = "start it, or take it out of the settings (HEADSTART_PROXY, CVMFS_HTTP_PROXY)"
        yield problem("proxies", text, todo) if dead == set(proxies) else warning("proxies", text, todo)


def _servers(facts: Facts) -> Iterator[Finding]:
    """One finding for each server, by the best way to it, and one for each living proxy that is no way."""
    servers = dict.fromkeys(way.server for way in facts.ways)
    revisions = [
        found.revision for found in facts.ways.values() if isinstance(found, Heard) and not found.trouble
    ]
    newest = max(revisions, default=0)
    findings = [
        _server({way: found for way, found in facts.ways.items() if way.server == server}, newest, facts)
        for server in servers
    ]
    usable = any(finding.grade is not Grade.PROBLEM for finding in findings)
    for finding in findings:
        # One server that fails is what the others are for.
        if usable and finding.grade is Grade.PROBLEM:
            yield warning(finding.area, finding.text, finding.todo)
        else:
            yield finding
    for way, found in facts.ways.items():
        proxy = facts.proxies.get(way.proxy)
        alive = isinstance(proxy, ProxyAnswer) and not proxy.error
        others = [
            other for at, other in facts.ways.items() if at.server == way.server and isinstance(other, Heard)
        ]
        if alive and others and not isinstance(found, Heard):
            said = str(found) if isinstance(found, Silence) else found.text
            yield warning("proxies", f"{way}: {said}", "see the proxy's access rules and log")


def _server(ways: Mapping[Way, Heard | Trouble | Silence], newest: int, facts: Facts) -> Finding:
    heard = sorted(
        (
            (found.trouble is not None, found.latency, str(way))
            for way, found in ways.items()
            if isinstance(found, Heard)
        )
    )
    if not heard:
        way, found = next(iter(ways.items()))
        text = f"{way}: {found}" if isinstance(found, Silence) else getattr(found, "text", "")
        return problem(
            "strata", text, getattr(found, "hint", "") or "check the address, the server and the proxy"
        )
    best = heard[0][2]
    found = next(answer for way, answer in ways.items() if str(way) == best)
    assert isinstance(found, Heard)  # noqa: S101  # so they were picked
    published = f"revision {found.revision} of {found.published:%Y-%m-%d %H:%M} UTC"
    text = f"{best}: {found.latency * 1000:.0f} ms, {published}"
    if found.trouble is not None:
        return problem(
            "strata", f"{best}: {found.trouble.text}", found.trouble.hint or _expired(found.ends, facts.now)
        )
    if facts.seen > found.revision:
        return problem(
            "strata",
            f"{text}, and this node has seen revision {facts.seen}",
            "its replication is behind, or it serves an old state: use another server until it has caught up",
        )
    if found.revision < newest:
        return warning(
            "strata", f"{text}; another server has revision {newest}", "see whether its replication runs"
        )
    return _health(found, text, facts.now)


def _health(found: Heard, text: str, now: datetime) -> Finding:
    assert found.ends is not None  # noqa: S101  # it would not be believed
    until = f"{text}, whitelist until {found.ends:%Y-%m-%d}"
    if found.ends - now < _SOON:
        return warning("strata", until, "its owner must sign it anew (headstart repo resign) before then")
    if found.latency > _SLOW:
        return warning("strata", f"{until}: slow", "put a nearer server first, or a proxy between")
    return good("strata", until)


def _expired(ends: datetime | None, now: datetime) -> str:
    if ends is not None and ends <= now:
        return "its owner must sign the whitelist anew (headstart repo resign); or this clock is wrong"
    return "use another server, and tell the repository's owner"


def _storage(found: Storage | Silence, facts: Facts) -> Finding:
    if isinstance(found, Silence):
        return problem("strata", f"{facts.source}: {found}", "see why the file system does not answer")
    if found.trouble is not None:
        return problem(
            "strata",
            f"{found.directory}: {found.trouble.text}",
            found.trouble.hint or _expired(found.ends, facts.now),
        )
    text = f"{found.directory}: revision {found.revision}, whitelist until {found.ends:%Y-%m-%d}"
    if facts.seen > found.revision:
        return problem("strata", f"{text}; this node has seen revision {facts.seen}", "use a newer state")
    if found.ends is not None and found.ends - facts.now < _SOON:
        return warning("strata", text, "its owner must sign it anew (headstart repo resign) before then")
    return good("strata", text)


def _clock(heard: Mapping[Way, Heard], facts: Facts) -> Iterator[Finding]:
    offsets: dict[str, float] = {}
    for way, found in heard.items():
        if found.offset is not None and (way.server not in offsets or way.proxy == DIRECT):
            offsets[way.server] = found.offset
    if not offsets:
        if facts.ways:
            yield note("clock", f"{facts.now:%Y-%m-%d %H:%M:%S} UTC; no server said what it has")
        return
    # Of two that differ the one that is nearer to ours.
    usual = (
        statistics.median_low(sorted(offsets.values(), key=abs))
        if len(offsets) == 2
        else statistics.median(offsets.values())
    )
    others = "the servers'" if len(offsets) > 1 else f"that of {next(iter(offsets))}"
    if abs(usual) < _SKEW:
        yield good("clock", f"within {max(1, round(abs(usual)))} s of {others}")
        for server, offset in offsets.items():
            if abs(offset - usual) >= _SKEW:
                yield note("clock", f"{server}: its clock is {_span(offset)}", "tell who runs it")
        return
    ours = f"this clock says {facts.now:%Y-%m-%d %H:%M:%S} UTC and is {_span(-usual)} beside {others}"
    if abs(usual) < _BAD_SKEW:
        yield warning("clock", ours, _CLOCK)
    else:
        yield problem("clock", f"{ours}: what is signed seems expired, or not yet there", _CLOCK)


def _span(offset: float) -> str:
    size = abs(offset)
    text = f"{size:.0f} s" if size < 120 else f"{size / 60:.0f} min" if size < 7200 else f"{size / 3600:.0f} h"
    if size >= 172800:
        text = f"{size / 86400:.0f} days"
    return f"{text} {'fast' if offset > 0 else 'slow'}"
