"""``headstart repo meta`` and ``headstart repo update-info``: what repository and server say of themselves."""

import argparse
import json
import os
import sys
from datetime import UTC, datetime

from headstart.cli.reading import write, write_json
from headstart.cli.storages import add_storage_arguments, storage_of, stratum_on
from headstart.cli.tags import name_of
from headstart.console import Console
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.metainfo import METAINFO_LIMIT, MetaInfo
from headstart.errors import ConfigurationError, StorageError
from headstart.keys import load_keys, load_public
from headstart.namedfile import read_named
from headstart.repository.meta import MetaPlan, change_meta, plan_meta
from headstart.repository.serverinfo import INFO, plan_info, write_info
from headstart.repository.state import Repository
from headstart.snapshot import Snapshot
from headstart.wording import counted

_META = """\
Print what the repository says of itself: a JSON object with administrator,
email, organisation, description, url, recommended-stratum0,
recommended-stratum1s and custom. With --file or --set publish another; the
revision stays, the manifest is signed anew. Only that needs more keys than
FQRN.pub.
"""
_INFO = """\
Write info/v1/repositories.json, the list of the repositories and mirrors in
DOCROOT, the directory that a web server serves as /cvmfs, and
info/v1/meta.json, what the server says of itself: FILE, or a skeleton where
there is none yet. A repository that is damaged is left out, and the end is that
of its error.
"""


def add_meta(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare ``repo meta``."""
    parser = verbs.add_parser(
        "meta",
        help="show or change what the repository says of itself",
        description=_META,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_storage_arguments(parser)
    parser.add_argument("--keys", required=True, metavar="KEYDIR", help="the directory of its keys")
    parser.add_argument("--file", metavar="FILE", help="publish this JSON object; - reads standard input")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=TEXT",
        help="change the text of a key; of recommended-stratum1s, the addresses with spaces between",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the next object, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object on one line")
    parser.set_defaults(perform=_meta)


def add_info(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare ``repo update-info``."""
    parser = verbs.add_parser(
        "update-info",
        help="write info/v1, the list of a server's repositories",
        description=_INFO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("docroot", metavar="DOCROOT", help="the directory that is served as /cvmfs")
    parser.add_argument("--meta", metavar="FILE", help="what the server says of itself, a JSON object")
    parser.add_argument("--dry-run", action="store_true", help="print the files, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(perform=_info)


def _meta(args: argparse.Namespace) -> int:
    changes = [_change(word) for word in args.set]
    now = datetime.now(UTC)
    store = storage_of(args)
    fqrn = name_of(store)
    given = _given(args.file)
    if given is None and not changes:
        if args.dry_run:
            raise ConfigurationError("--dry-run is of a change, and none is named", hint="add --file or --set")
        masters = load_public(args.keys, fqrn)
        snapshot = Snapshot.open(stratum_on(store), keys=masters, fqrn=fqrn, now=now)
        content = snapshot.metainfo() or b""
        return _answer(args, snapshot.manifest, content, None)
    console = Console(sys.stderr)

    def wording(before: bytes) -> MetaInfo:
        base = given
        if base is None:
            base = (
                MetaInfo.read(before, what=f"the meta information of {fqrn}") if before else MetaInfo.new(fqrn)
            )
        return base.changed(changes)

    keys = load_keys(args.keys, fqrn)
    if args.dry_run:
        repository = Repository.open(store, keys, now)
        plan, manifest = plan_meta(repository, wording), repository.manifest
    else:
        plan, manifest = change_meta((store, keys), wording, now)
        console.step(f"meta information of {fqrn}: {'changed' if plan.changes else 'is so already'}")
    return _answer(args, manifest, plan.after, plan)


def _change(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise ConfigurationError(f"--set {word} is not of the form KEY=TEXT")
    return key, value


def _answer(args: argparse.Namespace, manifest: Manifest, content: bytes, plan: MetaPlan | None) -> int:
    if args.json:
        said: dict[str, object] = {
            "fqrn": str(manifest.fqrn),
            "revision": manifest.revision,
            "metainfo": MetaInfo.read(content, what="the meta information").table if content else None,
        }
        if plan is not None:
            said |= {"changes": plan.changes, "dry_run": args.dry_run}
        write_json(said)
    else:
        for line in content.decode(errors="replace").splitlines():
            write(line)
    return 0


def _info(args: argparse.Namespace) -> int:
    meta = _given(args.meta)
    plan = plan_info(args.docroot, meta)
    replicas = sum(item.replica for item in plan.served)
    console = Console(sys.stderr)
    console.step(
        f"{counted(len(plan.served) - replicas, 'repository', 'repositories')} and "
        f"{counted(replicas, 'mirror')} in {args.docroot}"
    )
    if not args.dry_run:
        write_info(args.docroot, plan)
    paths = [os.path.join(os.path.abspath(args.docroot), INFO, name) for name in plan.files]
    if args.json:
        files = {path: json.loads(content) for path, content in zip(paths, plan.files.values(), strict=True)}
        faults = [str(fault) for fault in plan.faults]
        write_json({"files": files, "left_out": faults, "dry_run": args.dry_run})
    else:
        for path, content in zip(paths, plan.files.values(), strict=True):
            write(path)
            for line in content.decode().splitlines() if args.dry_run else ():
                write(line)
    for fault in plan.faults[1:]:
        console.step(f"left out: {fault}")
    if plan.faults:
        raise plan.faults[0]
    return 0


def _given(file: str | None) -> MetaInfo | None:
    if file is None:
        return None
    if file != "-":
        content = read_named(file, what="file of meta information", limit=METAINFO_LIMIT, error=StorageError)
        return MetaInfo.parse(content, what=file)
    try:
        # One byte more than may be.
        content = sys.stdin.buffer.read(METAINFO_LIMIT + 1)
    except OSError as error:
        raise StorageError(f"cannot read standard input: {error.strerror}") from error
    return MetaInfo.parse(content, what="standard input")
