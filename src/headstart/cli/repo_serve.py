"""``headstart repo serve``: repositories on a small web server, to try things out."""

import argparse
import os
import signal
import sys
import threading

from headstart.cvmfs.manifest import MANIFEST_FILE
from headstart.errors import ConfigurationError, CorruptError, StorageError
from headstart.names import Fqrn
from headstart.source import StorageSource, expected_name
from headstart.webserver import WebServer

HELP = "serve repositories over HTTP, to try things out; not for production"
DESCRIPTION = """\
Serve one or several repositories over HTTP until it is interrupted, with the
headers that clients and proxies expect. STORAGE is a repository's storage, or
a directory that holds such directories. Each is at /cvmfs/FQRN, where stock
clients look for it. The addresses are printed on standard output.

This is for trying things out: it has no TLS, no limits and no log. For
production there is a tested nginx configuration in docs/serving.md.
"""


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "serve",
        help=HELP,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(perform=run)
    parser.add_argument("storage", metavar="STORAGE", nargs="+", help="a storage, or a directory of several")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="0 for any that is free (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    if not 0 <= args.port < 65536:
        raise ConfigurationError(f"--port {args.port} is no number from 0 to 65535")
    storages = _storages(args.storage)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with WebServer(storages, host=args.host, port=args.port) as server:
        for url in server.urls.values():
            sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        first = next(iter(server.urls.values()))
        sys.stderr.write(
            "Not for production: see docs/serving.md. Stop with Ctrl-C.\n"
            f"  headstart list {first} --key PUB\n"
            f"  CernVM-FS: CVMFS_SERVER_URL={server.address}/cvmfs/@fqrn@ CVMFS_HTTP_PROXY=DIRECT\n"
        )
        sys.stderr.flush()
        stop.wait()
    sys.stderr.write("stopped\n")
    return 0


def _storages(given: list[str]) -> dict[Fqrn, str]:
    """The repositories in some directories."""
    found: dict[Fqrn, str] = {}
    for text in given:
        root = os.path.abspath(text)
        places = [root] if _is_storage(root) else [place for place in _below(root) if _is_storage(place)]
        if not places:
            raise StorageError(
                f"there is no repository in {root}", hint=f"name its storage, which has a {MANIFEST_FILE}"
            )
        for place in places:
            fqrn = expected_name(StorageSource(directory=place))
            if fqrn is None:
                raise CorruptError(f"the manifest in {place} does not name its repository")
            if fqrn in found:
                raise ConfigurationError(f"{found[fqrn]} and {place} both are {fqrn}", hint="name one of them")
            found[fqrn] = place
    return found


def _is_storage(place: str) -> bool:
    return os.path.isfile(os.path.join(place, MANIFEST_FILE))


def _below(root: str) -> list[str]:
    try:
        return sorted(entry.path for entry in os.scandir(root) if entry.is_dir())
    except OSError as error:
        raise StorageError(f"cannot read {root}: {error.strerror}", hint="check the path") from error
