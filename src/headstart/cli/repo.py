"""``headstart repo``: what concerns a repository as a whole."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module

from headstart.cli.storages import add_storage_arguments, storage_of
from headstart.console import Console
from headstart.cvmfs.objects import Algorithm
from headstart.errors import KeyFileError, StorageError
from headstart.keys import create_keys, load_keys, load_master_key
from headstart.names import Fqrn
from headstart.repository.create import AllKeys, create, refuse_storage
from headstart.repository.state import Settings
from headstart.store import DirectoryStore

HELP = "Work on a repository as a whole: 'headstart repo VERB --help' explains a verb."
_HASHES = {"sha1": Algorithm.SHA1, "rmd160": Algorithm.RIPEMD160, "shake128": Algorithm.SHAKE128}


VERBS = {
    "create": ("repo", "add_create"),
    "tag": ("tags", "add_tag"),
    "rollback": ("tags", "add_rollback"),
    "resign": ("whitelists", "add_resign"),
    "rollover": ("whitelists", "add_rollover"),
    "status": ("status", "add_status"),
    "check": ("repo_check", "add"),
    "gc": ("repo_gc", "add"),
    "retire": ("repo_retire", "add"),
    "mirror": ("repo_mirror", "add"),
    "serve": ("repo_serve", "add"),
    "meta": ("repo_meta", "add_meta"),
    "update-info": ("repo_meta", "add_info"),
}
"""What declares each verb, in the order of ``--help``."""


def add_verbs(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Describe the verb that is asked for, or all of them: each has much to import."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    asked = words[0] if words else ""
    for module, function in [VERBS[asked]] if asked in VERBS else VERBS.values():
        getattr(import_module(f"headstart.cli.{module}"), function)(verbs)


def add_create(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    create_parser = verbs.add_parser(
        "create",
        help="make keys and an empty, signed repository",
        description=(
            "Make the keys of a repository, unless KEYDIR has them already, and an empty, signed repository "
            "in a storage that is empty or not there yet. The whitelist is valid for 30 days."
        ),
        allow_abbrev=False,
    )
    create_parser.add_argument("fqrn", metavar="FQRN", help="the repository's name, such as julia.example.org")
    add_storage_arguments(create_parser)
    create_parser.add_argument("--keys", required=True, metavar="KEYDIR", help="where its keys are to be")
    create_parser.add_argument(
        "--hash",
        choices=sorted(_HASHES),
        default="sha1",
        help="the hash that names objects (default: %(default)s)",
    )
    create_parser.add_argument(
        "--no-gc", action="store_true", help="promise that no state will ever go: its manifest says G=no"
    )
    create_parser.add_argument("--json", action="store_true", help="print one JSON object")
    create_parser.set_defaults(perform=_create)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    return int(args.perform(args))


def _create(args: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    fqrn = Fqrn(args.fqrn)
    console = Console(sys.stderr)
    store = storage_of(args)
    if isinstance(store, DirectoryStore):
        storage, keys_at = os.path.realpath(store.root), os.path.realpath(args.keys)
        if os.path.commonpath((storage, keys_at)) == storage:
            raise KeyFileError(
                f"{args.keys} lies in the storage, which everybody may read", hint="keep keys elsewhere"
            )
    # All before there are keys for nothing.
    refuse_storage(store)
    if isinstance(store, DirectoryStore):
        _refuse_unwritable(store.root)
    _HASHES[args.hash].digest(b"")
    have_keys = os.path.lexists(os.path.join(args.keys, f"{fqrn}.masterkey"))
    if not have_keys and not isinstance(store, DirectoryStore):
        # A place in an object store cannot be tried otherwise; what this puts there, the next attempt takes up.
        store.prepare()
    if have_keys:
        keys = load_keys(args.keys, fqrn)
        console.step(f"using the keys of {fqrn} in {args.keys}")
    else:
        keys = create_keys(args.keys, fqrn, now=now)
        console.step(f"made the keys of {fqrn} in {args.keys}; clients need {fqrn}.pub, nobody else the others")
    master = load_master_key(args.keys, fqrn)
    settings = Settings(algorithm=_HASHES[args.hash], garbage_collectable=not args.no_gc)
    manifest = create(store, AllKeys(keys=keys, master=master), now, settings)
    console.step(f"made the repository {fqrn} in {store.name}")
    public = os.path.join(os.path.abspath(args.keys), f"{fqrn}.pub")
    if args.json:
        said = {
            "fqrn": str(fqrn),
            "storage": store.name,
            "revision": manifest.revision,
            "root_catalog": str(manifest.root_catalog),
            "public_key": public,
        }
        sys.stdout.write(json.dumps(said) + "\n")
    else:
        sys.stdout.write(f"{public}\n")
    return 0


def _refuse_unwritable(storage: str) -> None:
    """Refuse a directory that cannot be made or written, by trying it, and leave nothing there."""
    lacking = []
    place = storage
    while not os.path.lexists(place):
        lacking.append(place)
        place = os.path.dirname(place)
    made: list[str] = []
    try:
        for place in reversed(lacking):
            os.mkdir(place)
            made.append(place)
        made.append(tempfile.mkdtemp(dir=storage))
    except OSError as error:
        raise StorageError(
            f"cannot write {place}: {error.strerror}", hint="make it writable, or name another place"
        ) from error
    finally:
        for place in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(place)
