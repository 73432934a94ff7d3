"""Asking servers and proxies how they are, for ``headstart doctor``. Standard library only.

Each of these may be silent for long, a name server even longer than any timeout: ``bounded.ask`` is for them.
"""

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from headstart.blacklists import read_blacklists
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.signature import LETTER_LIMIT, Letter
from headstart.cvmfs.trust import Blacklist, MasterKeys
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.errors import Error, KeyFileError
from headstart.names import Fqrn
from headstart.nodefacts import Heard, ProxyAnswer, Storage, Trouble, Way
from headstart.route import DIRECT, Patience
from headstart.snapshot import Snapshot
from headstart.source import Anchors, Source, expected_name, find_keys, parse
from headstart.stratum import DirectoryStratum, Stratum
from headstart.webstratum import HttpStratum


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A source as the user named it, understood."""

    source: Source
    fqrn: Fqrn | None
    keys: MasterKeys | Trouble
    blacklist: Blacklist


def understand(text: str, anchors: Anchors) -> Named | Trouble:
    """What a user's word for a source means here, and what is trusted for it."""
    try:
        source = parse(text, anchors.site_of)
        fqrn = anchors.fqrn or expected_name(source)
        blacklist = read_blacklists(anchors.blacklists, site=anchors.site_of(fqrn).blacklists)
        try:
            keys: MasterKeys | Trouble = find_keys(source, anchors)
        except KeyFileError as error:
            keys = Trouble.of(error)
    except Error as error:
        return Trouble.of(error)
    return Named(source=source, fqrn=fqrn, keys=keys, blacklist=blacklist)


def connect(proxy: str, patience: Patience) -> ProxyAnswer:
    """Whether a proxy lets itself be connected to."""
    parts = urlsplit(proxy)
    start = time.monotonic()
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=patience.timeout):
            error = ""
    except OSError as failed:
        error = failed.strerror or str(failed)
    return ProxyAnswer(proxy=proxy, error=error, seconds=time.monotonic() - start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """How to ask a server."""

    named: Named
    patience: Patience
    now: datetime
    clock: Callable[[], float]
    """Seconds since 1970."""


def hear(way: Way, inquiry: Inquiry) -> Heard | Trouble:
    """Ask one server in one way for the signed files, and see whether a start would believe it."""
    patience = inquiry.patience
    direct = way.proxy == DIRECT
    clocks: list[float | None] = []
    stratum = HttpStratum(
        way.server,
        proxy=None if direct else way.proxy,
        timeout=patience.timeout_direct if direct else patience.timeout,
        slowest=patience.slowest,
        heard=lambda headers: clocks.append(_offset(headers, inquiry.clock())),
    )
    with stratum:
        try:
            published = stratum.fetch(MANIFEST_FILE, limit=LETTER_LIMIT, fresh=True)
            start = time.monotonic()
            whitelist = stratum.fetch(WHITELIST_FILE, limit=LETTER_LIMIT)
            latency = time.monotonic() - start
            manifest = Manifest.from_bytes(Letter.cut(published, what=MANIFEST_FILE).text)
        except Error as error:
            return Trouble.of(error)
        ends, refused = _believed(stratum, whitelist, inquiry)
    return Heard(
        latency=latency,
        # The first answer was a fresh one, not one that a proxy had kept with its date.
        offset=clocks[0] if clocks else None,
        revision=manifest.revision,
        published=datetime.fromtimestamp(manifest.timestamp, UTC),
        ends=ends,
        trouble=refused,
    )


def _offset(headers: Mapping[str, str], now: float) -> float | None:
    """By how much a server's clock is before ours; its dates have whole seconds."""
    try:
        said = parsedate_to_datetime(headers.get("date", "")).timestamp()
        age = int(headers.get("age", "0"))
    except (ValueError, OverflowError, TypeError):
        return None
    return said + age + 0.5 - now


def _believed(stratum: Stratum, whitelist: bytes, inquiry: Inquiry) -> tuple[datetime | None, Trouble | None]:
    """When the whitelist ends, and why a start would not believe this server."""
    named = inquiry.named
    if isinstance(named.keys, Trouble):
        return None, named.keys
    try:
        ends = named.keys.signed(whitelist, fqrn=named.fqrn).ends
    except Error as error:
        return None, Trouble.of(error)
    try:
        Snapshot.open(stratum, keys=named.keys, fqrn=named.fqrn, now=inquiry.now, blacklist=named.blacklist)
    except Error as error:
        return ends, Trouble.of(error)
    return ends, None


def look_at_storage(directory: str, inquiry: Inquiry) -> Storage:
    """See whether a start would believe a repository in a directory."""
    stratum = DirectoryStratum(directory)
    try:
        whitelist = stratum.fetch(WHITELIST_FILE, limit=LETTER_LIMIT)
        published = stratum.fetch(MANIFEST_FILE, limit=LETTER_LIMIT)
        revision = Manifest.from_bytes(Letter.cut(published, what=MANIFEST_FILE).text).revision
    except Error as error:
        return Storage(directory=directory, trouble=Trouble.of(error), revision=0, ends=None)
    ends, refused = _believed(stratum, whitelist, inquiry)
    return Storage(directory=directory, trouble=refused, revision=revision, ends=ends)
