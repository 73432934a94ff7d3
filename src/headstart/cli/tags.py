"""``headstart repo tag`` and ``headstart repo rollback``: states of a repository by name."""

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

from headstart.cli.reading import (
    size_text,
    tag_json,
    tags_of,
    time_text,
    write,
    write_json,
    write_tags,
)
from headstart.cli.storages import add_storage_arguments, storage_of, stratum_on
from headstart.console import Console
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.past import ByHash, ByRevision, ByTag, Selector
from headstart.cvmfs.signature import LETTER_LIMIT, Letter
from headstart.errors import ConfigurationError, MissingError, StorageError
from headstart.keys import RepositoryKeys, load_keys, load_public
from headstart.names import Fqrn
from headstart.repository import (
    ChannelAction,
    Repository,
    RollbackPlan,
    TagAction,
    TagPlan,
    adding,
    change_tags,
    moving,
    plan_rollback,
    removing,
    roll_back,
)
from headstart.repository.rollback import UNDO
from headstart.repository.tags import Planner
from headstart.snapshot import Snapshot
from headstart.store import NewStorage
from headstart.wording import counted

_WORDS = {
    TagAction.ADD: "added",
    TagAction.MOVE: "moved",
    TagAction.REMOVE: "removed",
    TagAction.KEEP: "is so already",
}
_CHANNEL_WORDS = {
    ChannelAction.SIGN: "signed anew",
    ChannelAction.KEEP: "stays",
    ChannelAction.WITHDRAW: "withdrawn: its release is not there then",
}


def add_tag(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare ``repo tag`` and its verbs."""
    parser = verbs.add_parser(
        "tag",
        help="name states of a repository: add, list, move, remove",
        description="Name states of a repository. A tag keeps its state from being collected.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="add|list|move|remove")
    add = actions.add_parser(
        "add",
        help="name a state",
        description=(
            "Name the present state, or a past one that has not been collected. The revision stays; the "
            "manifest is signed anew. Names have 1 to 255 letters, digits and the signs . _ / : -. A tag "
            "that is there already must be moved. trunk and trunk-previous move by themselves."
        ),
        allow_abbrev=False,
    )
    add.add_argument("name", metavar="NAME")
    _add_state(add)
    add.add_argument("-m", "--message", default="", metavar="TEXT", help="a description")
    add.set_defaults(perform=_change, make=lambda args: adding(args.name, _state(args), args.message))
    move = actions.add_parser(
        "move",
        help="let a tag name another state",
        description="Let a tag name the present state, or a past one. Without -m it keeps its description.",
        allow_abbrev=False,
    )
    move.add_argument("name", metavar="NAME")
    _add_state(move)
    move.add_argument("-m", "--message", default="", metavar="TEXT", help="another description")
    move.set_defaults(perform=_change, make=lambda args: moving(args.name, _state(args), args.message))
    remove = actions.add_parser(
        "remove",
        help="take tags away",
        description="Take tags away. The states that they named may be collected from then on.",
        allow_abbrev=False,
    )
    remove.add_argument("names", metavar="NAME", nargs="+")
    remove.set_defaults(perform=_change, make=lambda args: removing(args.names))
    listing = actions.add_parser(
        "list",
        help="list the tags",
        description="List the tags; FQRN.pub in KEYDIR is enough.",
        allow_abbrev=False,
    )
    listing.set_defaults(perform=_list)
    for verb in (add, move, remove):
        verb.add_argument("--dry-run", action="store_true", help="say what would change, write nothing")
    for verb in (add, move, remove, listing):
        _add_target(verb)


def add_rollback(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare ``repo rollback``."""
    parser = verbs.add_parser(
        "rollback",
        help="make a past state the present one, as a new revision",
        description=(
            "Make a past state the present one, as a new revision; without a target, that of trunk-previous. "
            "Tags of later revisions go. A channel that pointed elsewhere then is signed anew above its "
            "present version; a later channel stays if its release is there then, and else is withdrawn."
        ),
        allow_abbrev=False,
    )
    parser.add_argument("tag", metavar="TAG", nargs="?", help="a tag (default: trunk-previous)")
    parser.add_argument("--revision", metavar="N", help="a past revision")
    parser.add_argument("--root-hash", metavar="HASH", help="the root catalog of a past revision")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, write nothing")
    _add_target(parser)
    parser.set_defaults(perform=_roll_back)


def _add_state(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--revision", metavar="N", help="the state of a past revision")
    which.add_argument("--root-hash", metavar="HASH", help="the state with this root catalog")
    which.add_argument("--at", metavar="TAG", help="the state that another tag names")


def _add_target(parser: argparse.ArgumentParser) -> None:
    add_storage_arguments(parser)
    parser.add_argument("--keys", required=True, metavar="KEYDIR", help="the directory of its keys")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _state(args: argparse.Namespace) -> Selector | None:
    if args.revision is not None:
        return ByRevision.parse(args.revision)
    if args.root_hash is not None:
        return ByHash.parse(args.root_hash)
    if getattr(args, "at", None) is not None:
        return ByTag(args.at)
    return None


def name_of(store: NewStorage) -> Fqrn:
    """The repository that a storage says it is; its keys prove it afterwards.

    Raises:
        StorageError: no repository.
    """
    try:
        published = store.read(MANIFEST_FILE, limit=LETTER_LIMIT)
    except MissingError as error:
        raise StorageError(
            f"{store.name} is no repository", hint="make one first: headstart repo create"
        ) from error
    letter = Letter.cut(published, what=MANIFEST_FILE)
    return Manifest.from_bytes(letter.text).fqrn


def target_of(args: argparse.Namespace) -> tuple[NewStorage, RepositoryKeys]:
    """Storage and keys that the arguments name."""
    store = storage_of(args)
    return store, load_keys(args.keys, name_of(store))


def _change(args: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    planner: Planner = args.make(args)
    target = target_of(args)
    console = Console(sys.stderr)
    if args.dry_run:
        repository = Repository.open(*target, now)
        plan, manifest = planner(repository), repository.manifest
        _talk(console, plan)
    else:
        plan, manifest = change_tags(target, planner, now, lambda it: _talk(console, it))
    if args.json:
        write_json(
            _heading(manifest)
            | {
                "changes": plan.changes,
                "steps": [
                    {"action": str(step.action), "tag": tag_json(step.tag)}
                    | ({"before": tag_json(step.before)} if step.before is not None else {})
                    for step in plan.steps
                ],
                "dry_run": args.dry_run,
            }
        )
    else:
        for step in plan.steps:
            write(f"{step.tag.name} {step.tag.revision} {step.tag.digest}")
    return 0


def _talk(console: Console, plan: TagPlan) -> None:
    for step in plan.steps:
        before = f", was revision {step.before.revision}" if step.before is not None else ""
        console.step(f"tag {step.tag.name}: {_WORDS[step.action]}, revision {step.tag.revision}{before}")


def _heading(manifest: Manifest) -> dict[str, Any]:
    return {
        "fqrn": str(manifest.fqrn),
        "revision": manifest.revision,
        "root_catalog": str(manifest.root_catalog),
    }


def _list(args: argparse.Namespace) -> int:
    store = storage_of(args)
    fqrn = name_of(store)
    # The public key is enough to look.
    masters = load_public(args.keys, fqrn)
    now = datetime.now(UTC)
    snapshot = Snapshot.open(stratum_on(store), keys=masters, fqrn=fqrn, now=now)
    tags = tags_of(snapshot)
    if args.json:
        write_json(_heading(snapshot.manifest) | {"tags": [tag_json(tag) for tag in tags]})
    else:
        write_tags(tags)
    return 0


def _roll_back(args: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    if sum(word is not None for word in (args.tag, args.revision, args.root_hash)) > 1:
        raise ConfigurationError("more than one state is named to go back to", hint="name one")
    selector = ByTag(args.tag) if args.tag is not None else _state(args) or UNDO
    target = target_of(args)
    console = Console(sys.stderr)
    if args.dry_run:
        repository = Repository.open(*target, now)
        plan, manifest = plan_rollback(repository, selector, now), repository.manifest
        _say(console, plan, manifest.fqrn)
    else:
        plan, manifest = roll_back(target, selector, now, lambda it: _say(console, it, target[1].fqrn))
        console.step(f"{manifest.fqrn} is at revision {manifest.revision}")
    if args.json:
        write_json(_heading(manifest) | _plan_json(plan) | {"dry_run": args.dry_run})
    else:
        write(f"{plan.revision} {manifest.root_catalog}" if not args.dry_run else f"{plan.revision}")
    return 0


def _say(console: Console, plan: RollbackPlan, fqrn: Fqrn) -> None:
    root = plan.target
    total = plan.forest.holder(b"").statistics.total
    tag = f" (tag {root.tag})" if root.tag else ""
    console.step(
        f"{fqrn}: revision {root.revision}{tag} becomes {plan.revision}: "
        f"{counted(total.regular, 'file')}, {size_text(total.file_size)}"
    )
    for removed in plan.removed:
        console.step(f"tag {removed.name} of revision {removed.revision} goes")
    for step in plan.channels:
        console.step(
            f"channel {step.pointer.stack}/{step.pointer.channel}: {_CHANNEL_WORDS[step.action]} "
            f"({step.pointer.release}, version {step.pointer.version})"
        )
    for said in plan.stated_anew:
        console.step(f"release {said.stack}/{said.release}: stated anew")


def _plan_json(plan: RollbackPlan) -> dict[str, Any]:
    return {
        "target": {
            "revision": plan.target.revision,
            "root_catalog": str(plan.target.digest),
            "tag": plan.target.tag or None,
        },
        "new_revision": plan.revision,
        "removed_tags": [tag_json(tag) for tag in plan.removed],
        "channels": [
            {
                "action": str(step.action),
                "stack": str(step.pointer.stack),
                "channel": str(step.pointer.channel),
                "release": str(step.pointer.release),
                "version": step.pointer.version,
                "expires": time_text(step.pointer.expires),
            }
            for step in plan.channels
        ],
    }
