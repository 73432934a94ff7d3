"""Handing a tree to a site's own Stratum 0, which ``cvmfs_server`` publishes.

Theory of operation. A site that has a Stratum 0 keeps its keys and its storage there, and whoever may publish
does so in a transaction: the repository is writable at its mountpoint from ``cvmfs_server transaction`` to
``cvmfs_server publish``, which signs. Between the two, ``rsync`` makes paths below the mountpoint what they are
to be, and touches only what differs. A release is compared with its records once more where it was copied to,
so that what is published is what was built. Whatever goes wrong after the transaction was opened, an interrupt
included, aborts it; a transaction of somebody else is never touched.
"""

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from headstart.cvmfs.entry import AUTO_MARKER, MARKER
from headstart.errors import (
    ConfigurationError,
    Error,
    ImmutableError,
    LockedError,
    MissingToolError,
    StorageError,
    TrustError,
    UnknownError,
)
from headstart.ingest import verify
from headstart.names import Fqrn
from headstart.process import Command, Finished, Runner
from headstart.stage import StagedRelease, StagedTree

_SERVER: Final = "cvmfs_server"
_IN_USE: Final = 17
"""``EEXIST``, with which ``transaction`` ends where one is open already (``publish/except.h``)."""
_SHELL: Final = frozenset('"`$\\\n\r')
"""What ``cvmfs_server publish`` gives to a shell between double quotes, and must not reach it."""
_MODES: Final = "D0755,Fa-w"
"""Of a release: directories are in no record, and neither are the markers, and nothing of it ever changes."""


_DIRECTORY_MODE: Final = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A path of the repository that is to become what a directory is."""

    source: str
    at: str
    """In the repository; ``/`` for its root."""
    kept: tuple[str, ...] = ()
    """Names in it that are none of the directory's business."""
    xattrs: bool = True
    checksum: bool = False
    """Whether files of the same size and time are compared, too, which reads all of the published ones."""
    tree: StagedTree | None = None
    """The records that the copy is compared with; None for a tree that has none, whose modes stay as well."""

    def argv(self, root: str) -> tuple[str, ...]:
        """What makes it so, and names what it changed."""
        into = f"{root}{self.at}".rstrip("/")
        # Markers that the server made itself are in no tree, and it would make them anew each time.
        rules = [f"--filter=protect {name.decode()}" for name in (MARKER, AUTO_MARKER)]
        # No hard links: the publisher breaks them up, so that they would be different each time.
        words = ["--archive", "--delete", "--numeric-ids", "--itemize-changes"]
        words += ["--xattrs"] if self.xattrs else []
        words += ["--checksum"] if self.checksum else []
        words += [f"--chmod={_MODES}"] if self.tree is not None else []
        kept = [f"--exclude=/{name}" for name in self.kept]
        return ("rsync", *words, *rules, *kept, f"{self.source.rstrip('/')}/", f"{into}/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A path of the repository that is to go."""

    at: str

    def argv(self, root: str) -> tuple[str, ...]:
        """What removes it."""
        return ("rm", "-rf", "--", f"{root}{self.at}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What is done, in this order, between opening a transaction and publishing it."""

    fqrn: Fqrn
    root: str
    """Where the repository is mounted."""
    changes: tuple[Copy | Removal, ...]
    """Nothing, where all is there already: then no transaction is opened."""
    present: tuple[str, ...] = ()
    """Paths that are there already."""
    tag: str = ""
    message: str = ""

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """All programs that will be started."""
        if not self.changes:
            return ()
        naming = (("-a", self.tag) if self.tag else ()) + (("-m", self.message) if self.message else ())
        return (
            (_SERVER, "transaction", str(self.fqrn)),
            *(change.argv(self.root) for change in self.changes),
            (_SERVER, "publish", *naming, str(self.fqrn)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """What a handover did."""

    published: bool
    """Whether there is a new revision; not where the tree was there already."""
    changed: int
    """Paths that became different."""


def check_message(message: str) -> str:
    """Refuse a description that ``cvmfs_server`` would let a shell interpret.

    Raises:
        ConfigurationError: it has such a sign.
    """
    bad = sorted(_SHELL & set(message))
    if bad:
        raise ConfigurationError(
            f"the message has {bad[0]!r} in it, which cvmfs_server passes to a shell", hint="leave it out"
        )
    return message


def plan_release(staged: StagedRelease, directory: str, root: str, naming: tuple[str, str]) -> Handover:
    """What handing a stage over will do.

    Args:
        staged: the stage, read.
        directory: where it is.
        root: where the repository is mounted.
        naming: a tag and its description; empty for none.

    Raises:
        ConfigurationError: the description cannot be handed over.
        StorageError: no such repository is mounted.
        TrustError: another one is.
        ImmutableError: something else is published at a path already.
    """
    check_message(naming[1])
    _look(staged.fqrn, root)
    changes: list[Copy] = []
    present = []
    for tree in staged.trees:
        at = os.fsdecode(tree.path)
        there = f"{root}{at}"
        if not os.path.lexists(there):
            changes.append(Copy(source=f"{directory.rstrip('/')}{at}", at=at, tree=tree, xattrs=False))
        elif _content(root + os.fsdecode(tree.record_path)) == tree.record:
            present.append(at)
        else:
            raise ImmutableError(
                f"{at} is published in {staged.fqrn} already, with other content",
                hint="what is published never changes: build anew, which gives a new release",
            )
    return Handover(
        fqrn=staged.fqrn,
        root=root,
        changes=tuple(changes),
        present=tuple(present),
        tag=naming[0],
        message=naming[1],
    )


def plan_change(fqrn: Fqrn, root: str, change: Copy | Removal, naming: tuple[str, str]) -> Handover:
    """What handing over any directory, or removing a path, will do.

    Raises:
        ConfigurationError: the description cannot be handed over.
        StorageError: no such repository is mounted, the directory is none, or a link is on the way to the path.
        UnknownError: the path to remove is not there.
    """
    check_message(naming[1])
    _look(fqrn, root)
    match change:
        case Copy():
            if not os.path.isdir(change.source):
                raise StorageError(f"{change.source} is no directory", hint="name the tree to be published")
            _refuse_link(fqrn, root, change.at)
        case Removal():
            if not os.path.lexists(f"{root}{change.at}"):
                raise UnknownError(f"there is no {change.at} in {fqrn}")
            _refuse_link(fqrn, root, os.path.dirname(change.at))
    return Handover(fqrn=fqrn, root=root, changes=(change,), tag=naming[0], message=naming[1])


def hand_over(
    plan: Handover,
    run: Runner,
    env: Mapping[str, str],
    announce: Callable[[str], None] = lambda _line: None,
) -> HandedOver:
    """Carry out a plan, in one transaction.

    Raises:
        LockedError: somebody else has a transaction open.
        MissingToolError: ``cvmfs_server`` or ``rsync`` is not here.
        StorageError: one of them failed, with what it said; the transaction was aborted.
        CorruptError: the stage was changed; the transaction was aborted.
    """
    if not plan.changes:
        return HandedOver(published=False, changed=0)
    opening, *working, publishing = plan.commands

    def start(words: tuple[str, ...]) -> Finished:
        announce(shlex.join(words))
        return run(Command(argv=words, env=env, cwd="/"), None)

    opened = start(opening)
    if opened.code == _IN_USE:
        raise LockedError(
            f"{plan.fqrn}: {_reason(opened)}", hint="try again when whoever opened it has published"
        )
    _demand(opened, opening, "nothing was begun")
    try:
        changed = 0
        for change, words in zip(plan.changes, working, strict=True):
            changed += _carry_out(plan, change, words, start)
        if changed:
            _demand(start(publishing), publishing, "the transaction was aborted: nothing is published")
    except BaseException as error:
        _abort(plan, run, env, error)
        raise
    if not changed:
        _demand(_aborted(plan, run, env), ("cvmfs_server", "abort"), "a transaction without changes is open")
    return HandedOver(published=bool(changed), changed=changed)


def _carry_out(
    plan: Handover, change: Copy | Removal, words: tuple[str, ...], start: Callable[[tuple[str, ...]], Finished]
) -> int:
    """How many paths became different."""
    if isinstance(change, Removal):
        _demand(start(words), words, "the transaction was aborted")
        return 1
    _make_directories(plan.root, change.at)
    done = start(words)
    _demand(done, words, "the transaction was aborted")
    if change.tree is not None:
        tree = change.tree
        there = {path: replace(file, place=plan.root + os.fsdecode(path)) for path, file in tree.files.items()}
        verify(there, tree.expected, workers=2)
    return len(done.out.splitlines())


def _refuse_link(fqrn: Fqrn, root: str, at: str) -> None:
    """Refuse a path with a link in it: ``rsync`` and ``rm`` would follow it, out of the repository too."""
    while at != "/":
        if os.path.islink(f"{root}{at}"):
            raise StorageError(
                f"{at} in {fqrn} is a link, and nothing can be changed behind it",
                hint="name the path that it leads to, or remove the link with --delete",
            )
        at = os.path.dirname(at)


def _make_directories(root: str, at: str) -> None:
    place = root
    for part in at.strip("/").split("/"):
        place = f"{place}/{part}" if part else place
        if not os.path.isdir(place):
            try:
                os.mkdir(place)
                os.chmod(place, _DIRECTORY_MODE)  # whatever the umask is: all clients are to look into it
            except OSError as error:
                raise StorageError(f"cannot make {place}: {error.strerror}") from error


def _abort(plan: Handover, run: Runner, env: Mapping[str, str], error: BaseException) -> None:
    try:
        done = _aborted(plan, run, env)
    except MissingToolError:
        return
    if done.code != 0 and isinstance(error, Error):
        error.hint = f"aborting failed, too ({_reason(done)}): see to it with cvmfs_server abort -f {plan.fqrn}"


def _aborted(plan: Handover, run: Runner, env: Mapping[str, str]) -> Finished:
    return run(Command(argv=(_SERVER, "abort", "-f", str(plan.fqrn)), env=env, cwd="/"), None)


def _demand(done: Finished, words: tuple[str, ...], state: str) -> None:
    if done.code != 0:
        name = " ".join(words[:2]) if words[0] == _SERVER else words[0]
        raise StorageError(f"{name} ended with {done.code}: {_reason(done)}", hint=state)


def _reason(done: Finished) -> str:
    """The last lines that a program complained with."""
    for said in (done.err, done.out):
        lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
        if lines:
            return " / ".join(lines[-3:])
    return "it said nothing"


def _look(fqrn: Fqrn, root: str) -> None:
    if not os.path.isdir(root):
        raise StorageError(
            f"{fqrn} is not mounted at {root}",
            hint="run this on the Stratum 0, as the account that may publish there",
        )
    try:
        name = os.getxattr(root, "user.fqrn").decode(errors="replace")
    except OSError:
        # The publisher's own mount may hide the attribute.
        return
    if name != str(fqrn):
        raise TrustError(f"{name} is mounted at {root}, and not {fqrn}")


def _content(place: str) -> bytes | None:
    try:
        with open(place, "rb") as file:
            return file.read()
    except OSError:
        return None
