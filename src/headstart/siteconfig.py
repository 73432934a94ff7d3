"""What a node's administrator and user have set: servers, proxies, keys, patience. Standard library only.

In this order, the first that says something counts, setting by setting:

1. ``HEADSTART_SERVERS``, ``HEADSTART_PROXY`` and ``HEADSTART_CACHE_QUOTA`` in the environment;
2. ``$XDG_CONFIG_HOME/headstart/config.toml`` (``~/.config`` where that is not set);
3. ``/etc/headstart/config.toml``;
4. the CernVM-FS client's own files below ``/etc/cvmfs``, so that such a site configures nothing twice.

The client's files are shell scripts. They are read as its fast parser does it (``cvmfs/options.cc`` of 2.12,
``SimpleOptionsParser``): line by line, assignments only, the last one counts, nothing is expanded or run.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from headstart.blacklists import BLACKLIST_FILE
from headstart.errors import ConfigurationError
from headstart.names import Fqrn
from headstart.route import DIRECT, Patience, Route, is_here, parse_proxies, parse_servers
from headstart.tomltable import TomlTable

_ETC: Final = "/etc"
_LIMIT: Final = 1 << 20
_QUOTA: Final = "cache_quota"
_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_KEYS: Final = frozenset({"servers", "proxy", "keys", "timeout", "timeout_direct", "retries"})
_REPOSITORY: Final = "repository"
_PATIENCE: Final = {
    # CVMFS's word: ours, and the least that makes sense
    "CVMFS_TIMEOUT": ("timeout", 1),
    "CVMFS_TIMEOUT_DIRECT": ("timeout_direct", 1),
    "CVMFS_LOW_SPEED_LIMIT": ("slowest", 0),
    "CVMFS_MAX_RETRIES": ("retries", 0),
    "CVMFS_BACKOFF_INIT": ("backoff", 0),
    "CVMFS_BACKOFF_MAX": ("backoff_most", 0),
    "CVMFS_PROXY_RESET_AFTER": ("remembered", 0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A text that somebody has set, and where."""

    text: str
    where: str
    """A file or a variable, as an error names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What is set for one repository, or for any."""

    fqrn: Fqrn | None
    settings: Mapping[str, Setting]
    """By CVMFS's name; of several only the one that counts."""

    def route(self, servers: str = "") -> Route:
        """The way to the repository.

        Args:
            servers: addresses that the user names; those that are configured where there are none.

        Raises:
            ConfigurationError: there is no server, or a setting is wrong.
        """
        named = Setting(text=servers, where="SOURCE") if servers else self.settings.get("CVMFS_SERVER_URL")
        if named is None:
            raise ConfigurationError(
                f"no server of {self.fqrn} is configured, and it is not mounted",
                hint="name its address, or set servers in /etc/headstart/config.toml",
            )
        found = parse_servers(named.text, self.fqrn, named.where)
        proxy = self.settings.get("CVMFS_HTTP_PROXY")
        # A server on this machine is for trying things out, and no proxy elsewhere would reach it.
        direct = proxy is None or not proxy.text or all(map(is_here, found))
        groups = ((DIRECT,),) if direct or proxy is None else parse_proxies(proxy.text, proxy.where)
        return Route(servers=found, proxies=groups, patience=self._patience())

    def _patience(self) -> Patience:
        numbers: dict[str, Any] = {}
        for name, (ours, least) in _PATIENCE.items():
            setting = self.settings.get(name)
            if setting is not None and setting.text:
                try:
                    number = float(setting.text)
                except ValueError:
                    number = -1.0
                if not least <= number <= 86400:
                    raise ConfigurationError(f"{setting.where}: {name} cannot be {setting.text[:60]!r}")
                numbers[ours] = int(number) if ours in ("slowest", "retries") else number
        return Patience(**numbers)

    @property
    def keys(self) -> tuple[str, ...]:
        """Public keys that are configured for the repository; none where nothing is, or no key is there."""
        named = self.settings.get("CVMFS_PUBLIC_KEY")
        if named is not None and named.text:
            return tuple(path for path in named.text.split(":") if path)
        folder = self.settings.get("CVMFS_KEYS_DIR")
        if folder is None or not folder.text:
            return ()
        try:
            names = os.listdir(folder.text)
        except OSError:
            return ()
        return tuple(os.path.join(folder.text, name) for name in sorted(names) if name.endswith(".pub"))

    @property
    def cache_quota(self) -> int | None:
        """Bytes that the node's cache may have; None where nobody has said.

        Raises:
            ConfigurationError: what is set is no size.
        """
        setting = self.settings.get(_QUOTA)
        return None if setting is None or not setting.text else parse_size(setting.text, setting.where)

    @property
    def blacklists(self) -> tuple[str, ...]:
        """Where the site's client has blacklists, which need not be there."""
        named = self.settings.get("CVMFS_BLACKLIST")
        own = named.text if named is not None and named.text else BLACKLIST_FILE
        shared = self.settings.get("CVMFS_CONFIG_REPOSITORY")
        if shared is None or not shared.text or (self.fqrn is not None and shared.text == self.fqrn.text):
            return (own,)
        return own, f"/cvmfs/{shared.text}/etc/cvmfs/blacklist"


def parse_size(text: str, where: str) -> int:
    """Bytes, of a number with a unit: ``500 MB``, ``20G``, ``1.5 TB``, ``16 GiB``.

    Args:
        text: what somebody wrote.
        where: a file, a variable or an option, for the complaint.

    Raises:
        ConfigurationError: it is no size.
    """
    found = re.fullmatch(
        r"(\d{1,12}(?:\.\d{1,3})?)\s*(?:([KMGT])(i?)B?|B)?", text.strip(), re.ASCII | re.IGNORECASE
    )
    if found is None:
        raise ConfigurationError(
            f"{where}: {text[:60]!r} is no size", hint="write a number with a unit, such as 20 GB"
        )
    number, unit, binary = found.groups()
    unit = (unit or "").upper()
    step = 1024 ** "BKMGT".index(unit or "B") if binary else _UNITS[unit]
    return int(float(number) * step)


def no_site(fqrn: Fqrn | None) -> Site:
    """Nothing is set."""
    return Site(fqrn=fqrn, settings={})


def read_site(fqrn: Fqrn | None, env: Mapping[str, str], *, etc: str = _ETC) -> Site:
    """Read what is set on this node.

    Args:
        fqrn: the repository; None to read only what holds for any.
        env: the user's environment.
        etc: in place of ``/etc``.

    Raises:
        ConfigurationError: one of Headstart's own files is wrong, or a file cannot be read.
    """
    settings = _of_cvmfs(fqrn, etc)
    config = env.get("XDG_CONFIG_HOME") or (os.path.join(env["HOME"], ".config") if env.get("HOME") else "")
    places = [os.path.join(etc, "headstart"), *([os.path.join(config, "headstart")] if config else [])]
    for place in places:
        settings |= _of_headstart(fqrn, os.path.join(place, "config.toml"))
    for variable, name in (
        ("HEADSTART_SERVERS", "CVMFS_SERVER_URL"),
        ("HEADSTART_PROXY", "CVMFS_HTTP_PROXY"),
        ("HEADSTART_CACHE_QUOTA", _QUOTA),
    ):
        if env.get(variable):
            settings[name] = Setting(text=env[variable], where=variable)
    return Site(fqrn=fqrn, settings=settings)


def _of_headstart(fqrn: Fqrn | None, path: str) -> dict[str, Setting]:
    text = _text(path)
    if text is None:
        return {}
    table = TomlTable.parse(text, path)
    table.only(_KEYS | {_REPOSITORY, _QUOTA})
    found = _settings(table)
    if _QUOTA in table.value:
        # Of the cache, which is of all repositories.
        found[_QUOTA] = Setting(text=table.text(_QUOTA), where=table.file)
    every = table.table(_REPOSITORY)
    for name in every.value:
        one = every.table(Fqrn(name).text)
        one.only(_KEYS)
        if fqrn is not None and name == fqrn.text:
            found |= _settings(one)
    return found


def _settings(table: TomlTable) -> dict[str, Setting]:
    found = {}
    for key, name, between in (("servers", "CVMFS_SERVER_URL", ";"), ("keys", "CVMFS_PUBLIC_KEY", ":")):
        if key in table.value:
            found[name] = between.join(table.texts(key))
    if "proxy" in table.value:
        found["CVMFS_HTTP_PROXY"] = table.text("proxy")
    for key, name in (
        ("timeout", "CVMFS_TIMEOUT"),
        ("timeout_direct", "CVMFS_TIMEOUT_DIRECT"),
        ("retries", "CVMFS_MAX_RETRIES"),
    ):
        value = table.value.get(key)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise table.wrong(key, "a number")
            found[name] = str(value)
    return {name: Setting(text=text, where=table.file) for name, text in found.items()}


def _of_cvmfs(fqrn: Fqrn | None, etc: str) -> dict[str, Setting]:
    """The client's parameters, its files in its order (``mount/default.conf``)."""
    root = os.path.join(etc, "cvmfs")
    found = _assignments(os.path.join(root, "default.conf"))
    for path in _configurations(os.path.join(root, "default.d")):
        found |= _assignments(path)
    mounted = found.get("CVMFS_CONFIG_REPOSITORY")
    shared = f"/cvmfs/{mounted.text}/etc/cvmfs" if mounted is not None and mounted.text else ""
    if shared:
        found |= _assignments(os.path.join(shared, "default.conf"))
    found |= _assignments(os.path.join(root, "default.local"))
    if fqrn is None:
        return found
    domain = fqrn.text.partition(".")[2]
    for part in (f"domain.d/{domain}", f"config.d/{fqrn}"):
        if shared:
            found |= _assignments(os.path.join(shared, f"{part}.conf"))
        for ending in ("conf", "local"):
            found |= _assignments(os.path.join(root, f"{part}.{ending}"))
    return found


def _configurations(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".conf")]
    except OSError:
        return []


def _assignments(path: str) -> dict[str, Setting]:
    found = {}
    for line in (_text(path) or "").splitlines():
        name, equals, value = line.partition("#")[0].partition("=")
        name = name.strip()
        for word in ("readonly ", "export ", "eval "):
            if name.startswith(word):
                name = name.removeprefix(word).strip()
                break
        value = value.strip()
        if equals and name.startswith("CVMFS_") and " " not in name:
            if len(value) > 2 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            found[name] = Setting(text=value, where=path)
    return found


def _text(path: str) -> str | None:
    """A file's text; None where there is none, or it is not for this user to read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_LIMIT)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
