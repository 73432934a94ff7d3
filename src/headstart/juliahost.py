"""Julia's download host, reached through the library juliapkg; a program of its own, which ``official`` starts.

It is a process of its own because juliapkg reads the environment and keeps state when it is imported, prints to
standard output, holds the archive in memory, and knows no time limit: here none of that touches anybody else,
and a kill leaves nothing but a directory that nobody looks at.

juliapkg (0.1.28) chooses the builds for this machine, downloads one, compares its SHA-256 and unpacks it
(``juliapkg/install_julia.py``). Added around it: the list is read here and handed to it, so that it can be of
another server, of a bounded size, and with prereleases; no answer is read beyond its size; a server that falls
silent is given up; what leads out of an archive is refused.

Usage: ``list URL`` prints the builds for this machine as JSON; ``unpack ARCHIVE FOLDER`` brings one, ARCHIVE
being an entry of that list. A failure is a line with ``HOST_MARK`` on standard error, and the exit code of
its family.
"""

import contextlib
import ctypes
import http.client
import json
import signal
import socket
import ssl
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterable
from types import TracebackType
from typing import IO, Any, Final, Self

from juliapkg import install_julia

from headstart.errors import CacheError, CorruptError, Error, UnavailableError
from headstart.official import HOST_MARK
from headstart.wording import counted

_SILENCE: Final = 20.0
"""Seconds after which a server that says nothing is given up."""
_DIE_WITH_PARENT: Final = 1
"""PR_SET_PDEATHSIG (``linux/prctl.h``)."""
_LIST_LIMIT: Final = 64 << 20
_NETWORK: Final = (
    urllib.error.URLError,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
    http.client.HTTPException,
)


class _Bounded:
    """An answer that is read up to a number of bytes.

    Args:
        answer: what the server sends.
        limit: how many bytes are wanted; one more is an error.
    """

    def __init__(self, answer: IO[bytes], limit: int) -> None:
        self._answer = answer
        self._limit = limit
        self.seen = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answer, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answer.close()

    def read(self, amount: int = -1) -> bytes:
        """The next bytes.

        Raises:
            CorruptError: there are more than were wanted.
        """
        left = self._limit - self.seen
        data = self._answer.read(left + 1 if amount < 0 else min(amount, left + 1))
        self.seen += len(data)
        if self.seen > self._limit:
            raise CorruptError(f"the server sends more than the {self._limit} bytes that were to come")
        return data


class _Limit(urllib.request.BaseHandler):
    """Bounds every answer, after errors and redirections have been dealt with."""

    handler_order = 2000

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.answers: list[_Bounded] = []

    def http_response(self, _: urllib.request.Request, answer: IO[bytes]) -> _Bounded:
        """Wrap an answer."""
        self.answers.append(_Bounded(answer, self._limit))
        return self.answers[-1]

    https_response = http_response


def _read(url: str) -> bytes:
    opener = urllib.request.build_opener(_Limit(_LIST_LIMIT))
    with opener.open(url) as answer:
        data: bytes = answer.read()
    return data


def builds(url: str) -> list[dict[str, Any]]:
    """The official builds for this machine that a list of versions has.

    Args:
        url: of the list; empty for Julia's own.

    Raises:
        UnavailableError: the server does not answer, or not with such a list.
    """
    url = url or install_julia._julia_versions_url  # noqa: SLF001  # the library has no other name for it
    try:
        versions = json.loads(_read(url))
        stable = {name for name, version in versions.items() if version["stable"]}
        install_julia._all_julia_versions = {  # noqa: SLF001  # or it would read the list itself, unbounded
            name: {**version, "stable": True} for name, version in versions.items()
        }
        found = install_julia.compatible_julia_versions()
        return [
            {**{key: file[key] for key in ("version", "url", "sha256", "size")}, "stable": name in stable}
            for name, version in found.items()
            for file in _archives(version["files"])
        ]
    except _NETWORK as error:
        raise UnavailableError(f"{url} cannot be reached ({_reason(error)})") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise UnavailableError(f"{url} is no list of Julia's versions ({_reason(error)})") from error


def _archives(files: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [file for file in files if file["url"].endswith(".tar.gz")][:1]


def unpack(archive: dict[str, Any], folder: str) -> None:
    """Bring an archive, compare it with its SHA-256, and unpack it.

    Args:
        archive: an entry of ``builds``.
        folder: the directory that is to be Julia's prefix.

    Raises:
        UnavailableError: the server does not answer.
        CorruptError: what it sends is not that archive, or the archive is no Julia.
        CacheError: the archive cannot be written.
    """
    url, size = archive["url"], archive["size"]
    limit = _Limit(size)
    urllib.request.install_opener(urllib.request.build_opener(limit))
    if hasattr(tarfile, "data_filter"):
        tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        install_julia.install_julia({"files": [archive]}, folder)
    except _NETWORK as error:
        raise UnavailableError(f"{url} cannot be reached ({_reason(error)})") from error
    except (tarfile.TarError, EOFError) as error:
        raise CorruptError(f"{url} cannot be unpacked ({_reason(error)})") from error
    except OSError as error:
        raise CacheError(f"{url} cannot be unpacked ({_reason(error)})") from error
    except Error:
        raise
    except Exception as error:  # juliapkg raises nothing narrower
        seen = limit.answers[-1].seen if limit.answers else size
        came = f"it ended after {seen} of {counted(size, 'byte')}" if seen != size else _reason(error)
        raise CorruptError(f"{url} is not the archive that was to come: {came}") from error


def _reason(error: BaseException) -> str:
    inner = None if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", None)
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    if isinstance(error, OSError) and error.strerror and inner is None:
        return error.strerror
    return (str(inner or error) or type(error).__name__).splitlines()[0][:200]


def main(words: list[str]) -> int:
    """Do what the words say; the data is the only thing on standard output."""
    # Who started this would take what it brings away: without it there is nobody to work for.
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    socket.setdefaulttimeout(_SILENCE)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            said = ""
            if words[0] == "list":
                said = json.dumps(builds(words[1]))
            else:
                unpack(json.loads(words[1]), words[2])
    except Error as error:
        sys.stderr.write(f"{HOST_MARK}{error.message}\n")
        return error.exit_code
    sys.stdout.write(said)
    return 0
