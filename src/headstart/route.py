"""The way to a repository's servers: which ones, through which proxies, and how patiently.

Written as CVMFS's own settings are (``mount/default.conf`` of CVMFS 2.12; ``DownloadManager::SetProxyChain``):
servers in order with ``;`` between, proxies of a group with ``|`` between and groups with ``;``, and ``DIRECT``
for no proxy at all.
"""

import re
from dataclasses import dataclass
from typing import Final

from headstart.errors import ConfigurationError
from headstart.names import Fqrn

DIRECT: Final = "DIRECT"
"""In the place of a proxy: none."""
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?(?:/[!-~]*)?"
)
_HERE: Final = re.compile(r"localhost|127\.[0-9.]+|\[::1\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait, and how often to try; the defaults are CVMFS's, but for a shorter backoff."""

    timeout: float = 5.0
    """Seconds that an answer through a proxy may take to come or to go on."""
    timeout_direct: float = 10.0
    """The same without a proxy."""
    slowest: int = 1024
    """Bytes per second below which an answer is given up, once the timeout has passed."""
    retries: int = 1
    """How often all ways are tried again when none leads anywhere."""
    backoff: float = 0.5
    """Seconds before the first retry; each further one waits twice as long."""
    backoff_most: float = 10.0
    remembered: float = 300.0
    """Seconds for which a proxy or a server that failed comes last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where to read a repository from."""

    servers: tuple[str, ...]
    """Addresses of the repository, the preferred one first; at least one."""
    proxies: tuple[tuple[str, ...], ...] = ((DIRECT,),)
    """Groups of proxies: within one they share the load, the next one is for when all of it fails."""
    patience: Patience = Patience()

    @property
    def simple(self) -> bool:
        """Whether there is one way only."""
        return len(self.servers) == 1 and self.proxies == ((DIRECT,),)


def parse_proxies(text: str, where: str) -> tuple[tuple[str, ...], ...]:
    """Read proxies in CVMFS's syntax: ``"http://a:3128|http://b:3128;http://c:3128;DIRECT"``.

    Args:
        text: the setting.
        where: how to name it in an error.

    Raises:
        ConfigurationError: an empty group, or something that is no proxy. ``auto``, which asks the network
            for a script to run, is refused too.
    """
    groups = [[name.strip() for name in group.split("|")] for group in text.split(";")]
    return tuple(tuple(_proxy(name, text, where) for name in group) for group in groups)


def _proxy(name: str, text: str, where: str) -> str:
    if name == DIRECT:
        return name
    if not name:
        raise ConfigurationError(
            f"{where} is {text[:200]!r}, in which a proxy is missing",
            hint='write it like "http://a:3128|http://b:3128;DIRECT"',
        )
    if name == "auto":
        raise ConfigurationError(
            f"{where}: auto is not supported, it would run a script that the network offers",
            hint="name the proxies, or DIRECT",
        )
    url = name if "://" in name else f"http://{name}"
    return _address(url, f"{where}: {name[:200]!r} is no proxy", ("http",))


def _address(url: str, complaint: str, schemes: tuple[str, ...]) -> str:
    found = _URL.fullmatch(url)
    if found is not None and found["scheme"] in schemes and 0 < int(found["port"] or 80) < 65536:
        return url.rstrip("/")
    raise ConfigurationError(complaint, hint=f"write {schemes[0]}://HOST[:PORT]")


def parse_servers(text: str, fqrn: Fqrn | None, where: str) -> tuple[str, ...]:
    """Read servers in CVMFS's syntax, in which ``@fqrn@`` and ``@org@`` stand for the repository's name.

    Args:
        text: the setting, with ``;`` between servers (or ``,`` or ``|``, as CVMFS has it too).
        fqrn: the repository; None when it is not known, and then no address may ask for it.
        where: how to name the setting in an error.

    Raises:
        ConfigurationError: something that is no address.
    """
    names = [name.strip() for name in text.replace(",", ";").replace("|", ";").split(";")]
    return tuple(dict.fromkeys(_server(name, fqrn, where) for name in names))


def _server(name: str, fqrn: Fqrn | None, where: str) -> str:
    url = name
    if fqrn is not None:
        url = name.replace("@fqrn@", fqrn.text).replace("@org@", fqrn.text.partition(".")[0])
    if "@" in url:
        raise ConfigurationError(
            f"{where}: {name[:200]!r} needs the repository's name", hint="give --fqrn NAME"
        )
    return _address(url, f"{where}: {name[:200]!r} is no address of a server", ("http", "https"))


def is_here(url: str) -> bool:
    """Whether an address is on this machine, where no proxy is asked."""
    found = _URL.fullmatch(url)
    return found is not None and _HERE.fullmatch(found["host"]) is not None
