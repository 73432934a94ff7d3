"""``headstart repo gc``: forget old states, and delete what only they were made of."""

import argparse
import sys
from datetime import UTC, datetime, timedelta

from headstart.cli.reading import size_text, write, write_json
from headstart.cli.storages import add_storage_arguments, source_on, storage_of
from headstart.console import Console
from headstart.cvmfs.objects import Kind
from headstart.errors import ConfigurationError, CorruptError, MissingError, StorageError, UnavailableError
from headstart.keys import load_keys
from headstart.names import Fqrn
from headstart.publickeys import find_public_keys
from headstart.repository.gc import Collection, Keep, collect, collect_mirror, plan, refuse
from headstart.repository.references import Held
from headstart.repository.replica import Replica, is_replica
from headstart.repository.state import Repository
from headstart.source import expected_name
from headstart.store import DirectoryStore, NewStorage
from headstart.wording import counted

HELP = "forget old states, and delete what only they are made of"
DESCRIPTION = """\
Collect garbage. Kept are the present state with all releases and channels in
it, every tag, what was current in the last N days (--keep-days, 30 if nothing
is said) or since a moment (--keep-since), and the N revisions before the
present one (--keep-revisions). A client that stays on a state that is gone
gets I/O errors, and a Stratum 1 that was away for longer needs a new first
snapshot.

What only other states are made of is deleted, and so are objects that nothing
names. Nobody can publish meanwhile. A run that was killed is finished by the
next one.
"""
_DAYS = 30
_NAMES = {
    Kind.FILE: "files",
    Kind.CHUNK: "chunks",
    Kind.CATALOG: "catalogs",
    Kind.HISTORY: "histories",
    Kind.CERTIFICATE: "certificates",
    Kind.METAINFO: "metainfo",
}


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "gc",
        help=HELP,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(perform=run)
    add_storage_arguments(parser)
    parser.add_argument("--keys", metavar="KEYDIR", help="the directory of its keys; not needed for a mirror")
    parser.add_argument(
        "--key",
        metavar="PUB",
        action="append",
        default=[],
        help="of a mirror: public key to trust (default: those in /etc/cvmfs/keys)",
    )
    parser.add_argument(
        "--keep-revisions", type=int, metavar="N", help="keep so many states before the present one"
    )
    since = parser.add_mutually_exclusive_group()
    since.add_argument("--keep-days", type=int, metavar="N", help=f"(default: {_DAYS}, if nothing is said)")
    since.add_argument("--keep-since", metavar="WHEN", help="such as 2026-11-01 or 2026-11-01T12:00, UTC")
    parser.add_argument(
        "--enable", action="store_true", help="let the manifest say G=yes where it says that nothing may go"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Collect, or print the plan."""
    now = datetime.now(UTC)
    keep = _keep(args, now)
    store = storage_of(args)
    fqrn = _name_in(store)
    found = (
        _collect_mirror(args, store, fqrn, keep, now)
        if is_replica(store)
        else _collect(args, store, fqrn, keep, now)
    )
    if args.json:
        write_json(_json(found, fqrn, dry_run=args.dry_run))
    else:
        _print(found)
    return 0


def _collect(args: argparse.Namespace, store: NewStorage, fqrn: Fqrn, keep: Keep, now: datetime) -> Collection:
    if args.keys is None or args.key:
        raise ConfigurationError(
            "the manifest is signed again, because it has the checksum of the log of references",
            hint="name the directory of the repository's keys with --keys; --key is for mirrors",
        )
    keys = load_keys(args.keys, fqrn)
    if args.dry_run:
        return _planned(Repository.open(store, keys, now), keep, enable=args.enable)
    console = Console(sys.stderr)
    found = collect(
        (store, keys), keep, now, enable=args.enable, announce=lambda todo: console.step(_line(todo))
    )
    console.step("done")
    return found


def _collect_mirror(
    args: argparse.Namespace, store: NewStorage, fqrn: Fqrn, keep: Keep, now: datetime
) -> Collection:
    if args.enable:
        raise ConfigurationError(f"{store.name} is a mirror: only the publisher can say G=yes")
    keys = find_public_keys(fqrn, args.key or ([f"{args.keys}/{fqrn}.pub"] if args.keys else []))
    if args.dry_run:
        return _planned(Replica.open(store, keys, fqrn, now), keep, enable=False)
    console = Console(sys.stderr)
    found = collect_mirror((store, keys, fqrn), keep, now, announce=lambda todo: console.step(_line(todo)))
    console.step("done")
    return found


def _planned(repository: Held, keep: Keep, *, enable: bool) -> Collection:
    refuse(repository, enable=enable)
    return plan(repository, keep)[0]


def _name_in(store: NewStorage) -> Fqrn:
    """The repository that a storage is, by its own word."""
    try:
        found = expected_name(source_on(store))
    except (MissingError, UnavailableError) as error:
        if isinstance(error, UnavailableError) and not isinstance(store, DirectoryStore):
            raise
        raise StorageError(
            f"{store.name} is no repository", hint="name its storage, which has a .cvmfspublished"
        ) from error
    if found is None:
        raise CorruptError(f"the manifest in {store.name} does not name its repository")
    return found


def _keep(args: argparse.Namespace, now: datetime) -> Keep:
    for name, value in (("--keep-revisions", args.keep_revisions), ("--keep-days", args.keep_days)):
        if value is not None and not 0 <= value <= 100_000:
            raise ConfigurationError(f"{name} {value} is no number from 0 to 100000")
    revisions = args.keep_revisions or 0
    if args.keep_since is not None:
        try:
            since = datetime.fromisoformat(args.keep_since)
            since = since.replace(tzinfo=UTC) if since.tzinfo is None else since.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise ConfigurationError(
                f"--keep-since {args.keep_since!r} is no time",
                hint="write it as 2026-11-01 or 2026-11-01T12:00",
            ) from error
        return Keep(revisions=revisions, since=since)
    if args.keep_days is None and args.keep_revisions is not None:
        return Keep(revisions=revisions)
    return Keep(
        revisions=revisions, since=now - timedelta(days=_DAYS if args.keep_days is None else args.keep_days)
    )


def _line(found: Collection) -> str:
    forgotten = sum(item.kind.value == 0 for item in found.choice.forgotten)
    return (
        f"{counted(len(found.choice.kept), 'state')} kept, {forgotten} forgotten; "
        f"{counted(found.objects, 'object')} of {size_text(found.size)} to delete, {found.marked} stay"
    )


def _print(found: Collection) -> None:
    write(_line(found))
    for reference, reasons in found.choice.kept:
        when = datetime.fromtimestamp(reference.timestamp, UTC)
        write(f"keep {reference.digest} of {when:%Y-%m-%d %H:%M} ({', '.join(sorted(reasons))})")
    for reference in found.choice.forgotten:
        if reference.kind.value == 0:
            when = datetime.fromtimestamp(reference.timestamp, UTC)
            write(f"forget {reference.digest} of {when:%Y-%m-%d %H:%M}")
    for kind, count in sorted(found.condemned.items()):
        write(f"{_NAMES[kind]}: {count} to delete")


def _json(found: Collection, fqrn: Fqrn, *, dry_run: bool) -> dict[str, object]:
    return {
        "fqrn": str(fqrn),
        "dry_run": dry_run,
        "kept": [
            {"root_catalog": str(item.digest), "timestamp": item.timestamp, "reasons": sorted(why)}
            for item, why in found.choice.kept
        ],
        "forgotten": [
            {"digest": str(item.digest), "kind": item.kind.name.lower(), "timestamp": item.timestamp}
            for item in found.choice.forgotten
        ],
        "objects": found.objects,
        "bytes": found.size,
        "deleted" if not dry_run else "to_delete": {
            _NAMES[kind]: count for kind, count in sorted(found.condemned.items())
        },
        "objects_kept": found.marked,
    }
