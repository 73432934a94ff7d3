"""``headstart repo check``: all that is wrong with a repository; with ``--repair`` what can be mended."""

import argparse
import os
import sys
import textwrap
import time
from datetime import UTC, datetime

from headstart.cli.reading import size_text, write, write_json
from headstart.cli.storages import add_s3_argument, in_bucket, open_storage, source_on
from headstart.console import Console
from headstart.errors import ComplaintsError, ConfigurationError, StorageError
from headstart.failover import NoNotes
from headstart.keys import load_keys
from headstart.names import Fqrn
from headstart.repository.check import Subject, check
from headstart.repository.repair import Repair, repair
from headstart.repository.repair import plan as plan_repair
from headstart.repository.report import Finding, Report
from headstart.repository.state import Repository
from headstart.source import (
    Anchors,
    MountSource,
    StorageSource,
    expected_name,
    find_keys,
    parse,
    stratum_of,
)
from headstart.store import DirectoryStore, NewStorage
from headstart.wording import counted

HELP = "look for whatever is wrong with a repository, and mend what can be mended"
DESCRIPTION = """\
Check a repository as its owner: every signature, every catalog of the present
state, of all tags and of all states in the log of references, row by row,
the tag history, the log itself, and whether every object is in storage. It
is stricter than 'cvmfs_swissknife check', and reports all complaints with
their paths. Exit code 26 says that there are some, 0 that there are none;
notes, such as objects that nothing names, are no complaints.

The master public key is found as by 'headstart verify', or named by --key
or --keys. What a server has cannot be listed: there, missing objects are
found with --deep only.
"""


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "check",
        help=HELP,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(perform=run)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument(
        "source", metavar="SOURCE", nargs="?", help="the repository's storage, or an http address"
    )
    place.add_argument(
        "--storage", metavar="DIR", help="the repository's storage: a directory, or s3://BUCKET/PREFIX"
    )
    add_s3_argument(parser)
    parser.add_argument("--deep", action="store_true", help="read and hash every object")
    parser.add_argument(
        "--key",
        metavar="PUB",
        action="append",
        default=[],
        help="public key to trust (default: that in KEYDIR, or those in /etc/cvmfs/keys)",
    )
    parser.add_argument("--keys", metavar="KEYDIR", help="the directory of the repository's keys")
    parser.add_argument("--fqrn", metavar="NAME", help="the repository that it must be")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="first mend what can be: the log of references, missing directories, leftovers; needs --keys",
    )
    parser.add_argument("--dry-run", action="store_true", help="with --repair: say what it would do, and check")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Check; raises ``ComplaintsError`` where there is something to complain about."""
    now = datetime.now(UTC)
    start = time.monotonic()
    place = args.storage or args.source
    if args.s3_config is not None and not in_bucket(place):
        raise ConfigurationError(
            f"--s3-config is of an object store, and {place} is none", hint="name s3://BUCKET/PREFIX"
        )
    store = open_storage(place, os.environ, args.s3_config) if in_bucket(place) else None
    source = parse(place) if store is None else source_on(store)
    if isinstance(source, MountSource):
        raise StorageError(
            f"{source.root} is a mount, which shows files and not what they are stored in",
            hint="check the repository's storage or its server; headstart verify looks at a mount",
        )
    fqrn = Fqrn(args.fqrn) if args.fqrn else expected_name(source)
    if isinstance(source, StorageSource):
        store = DirectoryStore(source.directory)
    mended = _repair(args, store, fqrn, now)
    keys = list(args.key) or ([f"{args.keys}/{fqrn}.pub"] if args.keys else [])
    subject = Subject(
        stratum=stratum_of(source, NoNotes()),
        store=store,
        lacking=tuple(store.lacking()) if isinstance(store, DirectoryStore) else (),
        keys=find_keys(source, Anchors(keys=keys, fqrn=fqrn)),
        fqrn=fqrn,
    )
    report = check(subject, now=now, deep=args.deep)
    if args.json:
        write_json(_json(report, fqrn, mended))
    else:
        _print(report, deep=args.deep)
    if report.complaints:
        count = counted(len(report.complaints), "complaint")
        raise ComplaintsError(f"{count} about {subject.stratum.name} in {time.monotonic() - start:.1f} s")
    return 0


def _repair(
    args: argparse.Namespace, store: NewStorage | None, fqrn: Fqrn | None, now: datetime
) -> Repair | None:
    if not args.repair:
        if args.dry_run:
            raise ConfigurationError("--dry-run goes with --repair: a check writes nothing")
        return None
    if store is None:
        raise ConfigurationError("only a storage can be repaired, no server")
    if not args.keys or fqrn is None:
        raise ConfigurationError(
            "--repair signs the manifest again, because it has the log's checksum",
            hint="name the directory of the repository's keys with --keys",
        )
    target = store, load_keys(args.keys, fqrn)
    console = Console(sys.stderr)
    found = plan_repair(Repository.open(*target, now), now) if args.dry_run else repair(target, now)
    for line in _said(found, would=args.dry_run):
        console.step(line)
    return found


def _said(found: Repair, *, would: bool) -> list[str]:
    """What a repair did, or would do, a line each."""
    verb = "would have" if would else "has"
    lines = []
    if found.directories:
        lines.append(f"{verb} made {counted(len(found.directories), 'directory', 'directories')}")
    if found.leftovers:
        lines.append(f"{verb} deleted {counted(len(found.leftovers), 'leftover')} of killed publications")
    if found.reflog is not None:
        total = counted(len(found.reflog.references), "entry", "entries")
        added, dropped = len(found.added), len(found.dropped)
        lines.append(f"{verb} written the log of references: {total}, {added} new, {dropped} dropped")
    if found.resigned:
        lines.append(f"{verb} signed the manifest with the log's checksum")
    return lines or ["nothing to repair"]


def _print(report: Report, *, deep: bool) -> None:
    parts = [
        counted(report.roots, "state"),
        counted(report.tags, "tag"),
        counted(report.catalogs, "catalog"),
        counted(report.entries, "entry", "entries"),
    ]
    if report.objects:
        # A server cannot be listed, and nothing is counted there.
        parts.append(counted(report.objects, "object"))
    if deep:
        parts.append(f"{counted(report.read, 'object')} of {size_text(report.bytes_read)} read")
    write(", ".join(parts))
    for finding in (*report.complaints, *report.notes):
        kind = "note: " if finding.is_note else ""
        of = f" ({finding.revision})" if finding.revision else ""
        text = f"{kind}{finding.code}: {finding.path}{of}: {finding.text}"
        for line in textwrap.wrap(text, 100, subsequent_indent="    ", break_on_hyphens=False):
            write(line)
    if not report.complaints:
        write("everything is as it should be")


def _json(report: Report, fqrn: Fqrn | None, mended: Repair | None) -> dict[str, object]:
    said: dict[str, object] = {
        "fqrn": str(fqrn) if fqrn is not None else None,
        "states": report.roots,
        "tags": report.tags,
        "catalogs": report.catalogs,
        "entries": report.entries,
        "objects": report.objects,
        "objects_read": report.read,
        "bytes_read": report.bytes_read,
        "orphans": {"objects": report.orphans, "bytes": report.orphan_bytes},
        "complaints": [_finding(item) for item in report.complaints],
        "notes": [_finding(item) for item in report.notes],
    }
    if mended is not None:
        said["repair"] = {
            "directories": list(mended.directories),
            "leftovers": list(mended.leftovers),
            "reflog_added": [str(item.digest) for item in mended.added],
            "reflog_dropped": [str(item.digest) for item in mended.dropped],
            "reflog_written": mended.reflog is not None,
            "manifest_signed": mended.resigned,
        }
    return said


def _finding(finding: Finding) -> dict[str, str]:
    return {
        "code": str(finding.code),
        "path": finding.path,
        "text": finding.text,
        "revision": finding.revision,
    }
