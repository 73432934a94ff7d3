"""``headstart publish --tree`` and ``--delete``: any directory as a path of a repository."""

import argparse
import gc
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from headstart.cli.storages import in_bucket
from headstart.cli.tags import target_of
from headstart.console import Console
from headstart.cvmfs.balance import Weights
from headstart.cvmfs.dirtab import DIRTAB_LIMIT, pathspec
from headstart.cvmfs.entry import valid_path
from headstart.errors import ConfigurationError, ImmutableError, KeyFileError, StorageError
from headstart.ingest import Recipe
from headstart.namedfile import read_named
from headstart.repository import (
    OURS,
    Means,
    Tagging,
    TreePublished,
    Wanted,
    delete_path,
    publish_tree,
)
from headstart.tree import Manners
from headstart.wording import counted, readable

_TREE_ONLY = {
    "owner": "--owner",
    "no_xattrs": "--no-xattrs",
    "nanoseconds": "--nanoseconds",
    "autocatalogs": "--autocatalogs",
    "max_weight": "--max-weight",
    "min_weight": "--min-weight",
    "dirtab": "--dirtab",
    "uncompressed": "--uncompressed",
    "state": "--state",
    "checksum": "--checksum",
    "only": "--only",
}
_ITS_OWN = "leave it out: the Stratum 0 has its own"
_CONFIGURED = "the Stratum 0's configuration says it for all that is published there"
_LOOKS = "leave it out: rsync looks at all of the tree, and remembers nothing"
_NOT_VIA = {
    "storage": ("--storage", _ITS_OWN),
    "s3_config": ("--s3-config", _ITS_OWN),
    "keys": ("--keys", _ITS_OWN),
    "channel": ("--channel", "channels need Headstart's own keys"),
    "auto_tag": ("--auto-tag", _CONFIGURED),
    "auto_tag_days": ("--auto-tag-days", _CONFIGURED),
    "owner": ("--owner", "leave it out: owners are handed over as they are on disk"),
    "nanoseconds": ("--nanoseconds", _CONFIGURED),
    "autocatalogs": ("--autocatalogs", _CONFIGURED),
    "max_weight": ("--max-weight", _CONFIGURED),
    "min_weight": ("--min-weight", _CONFIGURED),
    "dirtab": ("--dirtab", "the Stratum 0 goes by .cvmfsdirtab in the repository's root directory"),
    "uncompressed": ("--uncompressed", _CONFIGURED),
    "state": ("--state", _LOOKS),
    "only": ("--only", _LOOKS),
}
"""What --via cannot do, and what to do instead."""


def add_tree_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what concerns any directory instead of a stage."""
    tree = parser.add_argument_group(
        "any directory", "instead of a stage: make a path of the repository what a directory is"
    )
    tree.add_argument(
        "--tree",
        metavar="DIR",
        help="publish this directory, or the one behind a link; what is not in it is removed",
    )
    tree.add_argument("--at", metavar="PATH", help="at this path of the repository; / is its root")
    tree.add_argument("--delete", metavar="PATH", help="remove this path from the repository")
    tree.add_argument("--owner", metavar="UID:GID", help="owner of everything (default: as on disk)")
    tree.add_argument("--no-xattrs", action="store_true", help="leave extended attributes behind")
    tree.add_argument("--nanoseconds", action="store_true", help="keep times to the nanosecond")
    tree.add_argument("--autocatalogs", action="store_true", help="divide catalogs that are too large")
    tree.add_argument("--max-weight", type=int, metavar="N", help="entries that are too many (default: 100000)")
    tree.add_argument("--min-weight", type=int, metavar="N", help="entries that are too few (default: 1000)")
    tree.add_argument(
        "--dirtab",
        metavar="FILE",
        help="rules for nested catalogs (default: .cvmfsdirtab in the root directory)",
    )
    tree.add_argument(
        "--uncompressed",
        metavar="PATTERN",
        action="append",
        help="store files whose path below DIR is like this as they are, such as '*.gz'; may be repeated",
    )
    tree.add_argument(
        "--state", metavar="FILE", help="where to remember what DIR looked like (default: at home)"
    )
    tree.add_argument(
        "--only",
        metavar="PATH",
        action="append",
        help="look only at this path below DIR, and at all below it: nothing else was touched since DIR was "
        "published; may be repeated",
    )
    tree.add_argument("--checksum", action="store_true", help="read every file, whatever is remembered")


def add_via_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what concerns a Stratum 0 of the site's own."""
    group = parser.add_argument_group(
        "a Stratum 0 of the site's own",
        "instead of --storage and --keys, on that machine, by whom may publish there",
    )
    group.add_argument(
        "--via", choices=("cvmfs_server",), help="publish in a transaction of this program, with rsync"
    )
    group.add_argument("--fqrn", metavar="NAME", help="the repository, where no stage says it")


def check_target(args: argparse.Namespace) -> None:
    """See that it is said who publishes, and that nothing is asked of whom that cannot do it.

    Raises:
        ConfigurationError: it is not.
    """
    if args.via is None:
        for name in ("storage", "keys"):
            if getattr(args, name) is None:
                raise ConfigurationError(
                    f"--{name} is missing", hint="name it, or use --via cvmfs_server on a Stratum 0"
                )
        if args.fqrn is not None:
            raise ConfigurationError("--fqrn is of --via", hint="the storage says which repository it is")
        return
    for name, (word, hint) in _NOT_VIA.items():
        if _given(args, name):
            raise ConfigurationError(f"{word} is not for --via {args.via}", hint=hint)
    if (args.fqrn is None) == (args.stage is None):
        raise ConfigurationError(
            "a stage says its repository itself, and a tree does not",
            hint="give --fqrn NAME with --tree and --delete only",
        )


def check_words(args: argparse.Namespace) -> None:
    """See that the words are of one kind of publication.

    Raises:
        ConfigurationError: they are not.
    """
    kinds = [
        word
        for word, value in (("STAGE", args.stage), ("--tree", args.tree), ("--delete", args.delete))
        if value
    ]
    if len(kinds) != 1:
        said = " and ".join(kinds) or "nothing"
        raise ConfigurationError(
            f"{said} to publish", hint="name a STAGE, or --tree DIR --at PATH, or --delete PATH"
        )
    if (args.tree is None) != (args.at is None):
        raise ConfigurationError("--tree and --at go together", hint="--tree DIR --at /PATH")
    if args.stage is None and (args.channel or args.expires_days is not None):
        raise ConfigurationError("--channel and --expires-days are of a release, and this is none")
    given = [word for name, word in _TREE_ONLY.items() if _given(args, name)]
    if args.tree is None and given:
        raise ConfigurationError(f"{given[0]} is of a tree, and none is named", hint="add --tree DIR --at PATH")


def _given(args: argparse.Namespace, name: str) -> bool:
    """Whether an option was used; 0 is a value too."""
    value = getattr(args, name)
    return value is not None and value is not False


def run_tree(args: argparse.Namespace, env: Mapping[str, str], tagging: Tagging) -> int:
    """Publish a directory, or remove a path."""
    # What a tree becomes has no cycles; to look for some among so many objects costs 7 % of the time.
    gc.set_threshold(50_000, 20, 100)
    now = datetime.now(UTC)
    console = Console(sys.stderr)
    at = path_of(args.at if args.delete is None else args.delete)
    if args.tree is not None:
        _refuse_secrets(args)
    target = target_of(args)
    means = Means(recipe=_recipe(args), tagging=tagging)
    if args.delete is not None:
        done = delete_path(target, at, now, means, rehearse=args.dry_run)
    else:
        done = publish_tree(target, _wanted(args, at, env), now, means, rehearse=args.dry_run)
    _talk(console, done, args)
    if args.json:
        sys.stdout.write(json.dumps(_summary(done, args, at)) + "\n")
    else:
        sys.stdout.write(f"{done.manifest.revision}\n")
    return 0


def _refuse_secrets(args: argparse.Namespace) -> None:
    """Refuse a tree with the keys in it, which everybody could read then, or with the storage."""
    tree = os.path.realpath(args.tree)
    for place, what, error in (
        (args.keys, "the keys are", KeyFileError),
        (None if in_bucket(args.storage) else args.storage, "the storage is", StorageError),
    ):
        if place is not None and os.path.commonpath((tree, os.path.realpath(place))) == tree:
            raise error(f"{what} in {args.tree}, at {place}", hint="keep them outside of what is published")


def path_of(word: str) -> bytes:
    """A path of the repository; empty for its root.

    Raises:
        ConfigurationError, ImmutableError: it is none, or one that trees are not published to.
    """
    if not word.startswith("/"):
        raise ConfigurationError(f"{word} is no path of a repository", hint="it begins with a slash")
    at = os.fsencode(word.rstrip("/"))
    # Where a transaction is open, `..` would lead out of the repository, and `//julia` past the names below.
    if not valid_path(at):
        raise ConfigurationError(
            f"{word[:300]} is no path of a repository",
            hint="write it without '.', '..' and double slashes, its names of up to 255 bytes",
        )
    top = at.split(b"/")[1] if at else b""
    if top in OURS:
        raise ImmutableError(
            f"/{top.decode()} is where Headstart publishes itself",
            hint="publish a stage there, and everything else at another path",
        )
    return at


def _recipe(args: argparse.Namespace) -> Recipe:
    rules = []
    for pattern in args.uncompressed or ():
        try:
            rules.append(pathspec(os.fsencode(pattern), relaxed=True))
        except ValueError as error:
            raise ConfigurationError(f"--uncompressed {pattern}: {error}") from error
    workers = len(os.sched_getaffinity(0))
    if not rules:
        return Recipe(workers=workers)
    length = len(os.fsencode(_directory_of(args)))

    def uncompressed(place: str) -> bool:
        below = os.fsencode(place)[length:]
        return any(rule(below) for rule in rules)

    return Recipe(workers=workers, uncompressed=uncompressed)


def _wanted(args: argparse.Namespace, at: bytes, env: Mapping[str, str]) -> Wanted:
    weights = None
    if args.autocatalogs:
        default = Weights()
        weights = Weights(
            maximum=default.maximum if args.max_weight is None else args.max_weight,
            minimum=default.minimum if args.min_weight is None else args.min_weight,
        )
    elif args.max_weight is not None or args.min_weight is not None:
        raise ConfigurationError(
            "--max-weight and --min-weight are of --autocatalogs", hint="add --autocatalogs"
        )
    return Wanted(
        directory=_directory_of(args),
        at=at,
        manners=Manners(
            owner=_owner(args.owner),
            xattrs=not args.no_xattrs,
            nanoseconds=args.nanoseconds,
            hardlinks=True,
        ),
        weights=weights,
        dirtab=_rules(args.dirtab),
        kept=OURS if at == b"" else frozenset(),
        rules=repr(sorted(args.uncompressed or ())),
        state=args.state or _default_state(args, at, env),
        only=_only(args),
        checksum=args.checksum,
    )


def _directory_of(args: argparse.Namespace) -> str:
    """The tree's directory; where a link is named, the one that it leads to."""
    directory: str = args.tree.rstrip("/") or "/"
    return os.path.realpath(directory) if os.path.islink(directory) else directory


def _only(args: argparse.Namespace) -> frozenset[bytes]:
    """The paths that were touched, from the tree's top; empty where they are all of it."""
    if args.only and args.checksum:
        raise ConfigurationError(
            "--only and --checksum exclude each other", hint="--checksum reads all of the tree"
        )
    top = os.path.abspath(args.tree)
    # A relative path is one below the tree, wherever this program was started.
    found = [os.path.relpath(os.path.join(top, word), top) for word in args.only or ()]
    for word, path in zip(args.only or (), found, strict=True):
        if path == os.pardir or path.startswith(os.pardir + "/"):
            raise ConfigurationError(
                f"--only {word} is outside of {args.tree}", hint="name paths as they are below the tree"
            )
    return frozenset() if os.curdir in found else frozenset(map(os.fsencode, found))


def _owner(word: str | None) -> tuple[int, int] | None:
    if word is None:
        return None
    uid, colon, gid = word.partition(":")
    numbers = [int(part) for part in (uid, gid) if part.isascii() and part.isdecimal() and len(part) <= 10]
    if not colon or len(numbers) != 2 or max(numbers) >= 2**32:
        raise ConfigurationError(f"--owner {word} is not of the form UID:GID, in numbers")
    return numbers[0], numbers[1]


def _rules(file: str | None) -> bytes | None:
    if file is None:
        return None
    return read_named(file, what="file of rules", limit=DIRTAB_LIMIT, error=StorageError)


def _default_state(args: argparse.Namespace, at: bytes, env: Mapping[str, str]) -> str | None:
    home = env.get("HOME")
    states = env.get("XDG_STATE_HOME") or (f"{home}/.local/state" if home else None)
    if states is None:
        return None
    storage = args.storage if in_bucket(args.storage) else os.path.realpath(args.storage)
    places = (storage, os.path.realpath(args.tree))
    key = hashlib.sha256(b"\0".join((*map(os.fsencode, places), at))).hexdigest()
    return f"{states}/headstart/trees/{key[:32]}.sqlite"


def _talk(console: Console, done: TreePublished, args: argparse.Namespace) -> None:
    for warning in done.warnings:
        console.note(f"headstart: warning: {warning}")
    if not done.changed:
        console.step(f"{done.manifest.fqrn} stays at revision {done.manifest.revision}: nothing is new")
        return
    revision = done.manifest.revision + 1 if args.dry_run else done.manifest.revision
    verb = "would be" if args.dry_run else "is"
    console.step(
        f"{done.manifest.fqrn} {verb} at revision {revision}: {counted(done.read, 'file')} read, "
        f"{counted(done.objects, 'new object')}, {done.stored / 1e6:.1f} MB, "
        f"{counted(len(done.catalogs), 'catalog')}"
    )


def _summary(done: TreePublished, args: argparse.Namespace, at: bytes) -> dict[str, object]:
    return {
        "fqrn": str(done.manifest.fqrn),
        "path": readable(at or b"/"),
        "revision": done.manifest.revision,
        "changes": done.changed,
        "files_read": done.read,
        "bytes_read": done.read_bytes,
        "objects": done.objects,
        "bytes": done.stored,
        "catalogs": [readable(path or b"/") for path in done.catalogs],
        "warnings": list(done.warnings),
        "dry_run": args.dry_run,
    }
