"""Publishing statements: of channels, of releases and of keys, proven as every node will prove them.

Every change is a ``Bundle``, whether it was signed here a moment ago or carried around for a week. It is taken
whole or not at all, and only on top of the state that it was made for: versions go up by one, so of two changes
made at the same time the second is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from headstart.bundle import Bundle
from headstart.channel import (
    ROOT_PATH,
    Believed,
    Pointer,
    Root,
    pointer_path,
    read_pointer,
    read_root,
)
from headstart.clock import check_expiry
from headstart.cvmfs.manifest import Manifest
from headstart.errors import TrustError, UnknownError
from headstart.keys import RepositoryKeys
from headstart.published import release
from headstart.releasestatement import ReleaseStatement, read_statement, statement_path
from headstart.repository.channels import (
    Channels,
    RepositoryTree,
    channels_of,
    pointer_files,
    put_statements,
)
from headstart.repository.releasestatements import check_said
from headstart.repository.state import Repository, Settings
from headstart.store import Store

_AGAIN = "make it anew, from the present state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A bundle that every node will believe, as a change of the present state."""

    root: Root
    """Which keys count from then on."""
    root_before: Root
    channels: tuple[tuple[Pointer, Pointer | None], ...]
    """Each pointer, and the one before."""
    releases: tuple[ReleaseStatement, ...]
    """Releases that are stated by it."""
    files: dict[str, bytes]
    """What has to be written; nothing where all of it is there already."""


def prove(repository: Repository, bundle: Bundle, now: datetime) -> Proven:
    """Prove a bundle against the present state; nothing is written.

    Raises:
        TrustError: too few signatures, expired, not the next version, not what a release is, or a channel or a
            release that the bundle leaves alone would no longer be believed.
        UnknownError: a pointer or a statement names a release that is not in the repository.
        CorruptError, MissingError: the present statements do not hold.
    """
    if bundle.fqrn != repository.fqrn:
        raise TrustError(f"the statements are of {bundle.fqrn}, and the repository is {repository.fqrn}")
    state = channels_of(repository)
    files: dict[str, bytes] = {}
    root = state.root
    if bundle.root is not None:
        root = _next_root(state, bundle.root.envelope.to_bytes(), now)
        if root != state.root:
            signed = bundle.root.envelope.to_bytes()
            files |= {ROOT_PATH: signed, root.history_path: signed}
    changed: list[tuple[Pointer, Pointer | None]] = []
    for pointer, unsigned in bundle.pointers:
        signed = unsigned.envelope.to_bytes()
        believed = read_pointer(signed, root=root, stack=pointer.stack, channel=pointer.channel)
        before = state.pointer(pointer.stack, pointer.channel)
        if before == pointer:
            continue
        _check_next(state, believed, now)
        _check_release(repository, pointer)
        files |= pointer_files(pointer, signed)
        changed.append((pointer, before))
    stated: list[ReleaseStatement] = []
    for statement, unsigned in bundle.releases:
        signed = unsigned.envelope.to_bytes()
        read_statement(signed, root=root, stack=statement.stack, digest=statement.digest)
        if state.stated(statement.stack, statement.digest, root) is not None:
            continue
        check_said(RepositoryTree(repository), statement)
        files[unsigned.path] = signed
        stated.append(statement)
    if root != state.root:
        _check_others(state, root, {each.path for each in bundle.statements})
    return Proven(
        root=root, root_before=state.root, channels=tuple(changed), releases=tuple(stated), files=files
    )


def publish_statements(
    target: tuple[Store, RepositoryKeys],
    make: Callable[[Repository], Bundle | None],
    now: datetime,
    announce: Callable[[Proven], None] = lambda _proven: None,
) -> Manifest:
    """Publish a bundle as one new revision; none where nothing is new.

    Args:
        target: the storage and the keys of its repository; channel keys among them are not needed.
        make: the bundle, from the present state; None for nothing to do.
        now: UTC.
        announce: told what will be done before anything is.

    Raises:
        LockedError: somebody else publishes.
        Error: as ``make`` and ``prove``, or from reading and writing; the present state is untouched.
    """
    store, keys = target
    with store.transaction() as into:
        repository = Repository.open(store, keys, now)
        bundle = make(repository)
        if bundle is None:
            return repository.manifest
        proven = prove(repository, bundle, now)
        announce(proven)
        settings = Settings(algorithm=repository.manifest.algorithm)
        edition = repository.edition(now, settings)
        put_statements(edition, repository, proven.files, into, now)
        return repository.commit(edition.finish(), into, now, settings)


def _next_root(state: Channels, data: bytes, now: datetime) -> Root:
    present = state.root
    root = read_root(data, master=state.repository.keys.masters.by_id, fqrn=present.fqrn)
    if root == present:
        return root
    if root.version != present.version + 1 or root.restarted < present.restarted:
        raise TrustError(
            f"the statement of keys has version {root.version}, and the present one of {present.fqrn} "
            f"{present.version}: only the next one can follow it",
            hint=_AGAIN,
        )
    check_expiry(now, expires=root.expires, what="the statement of keys", hint=_AGAIN)
    return root


def _check_next(state: Channels, believed: Believed, now: datetime) -> None:
    pointer = believed.pointer
    what = f"the pointer of {pointer.stack}@{pointer.channel}"
    check_expiry(now, expires=pointer.expires, what=what, hint=_AGAIN)
    if believed.root.restarted > state.root.restarted:
        return
    last = state.last_version(pointer.stack, pointer.channel)
    if pointer.version != last + 1:
        raise TrustError(
            f"{what} has version {pointer.version}, and nodes may have seen {last}: only {last + 1} can follow",
            hint=_AGAIN,
        )


def _check_release(repository: Repository, pointer: Pointer) -> None:
    _, digest = release(RepositoryTree(repository), pointer.stack, pointer.release)
    if digest != pointer.digest:
        raise UnknownError(
            f"{pointer.stack} in {repository.fqrn} has no release {pointer.release} of {pointer.digest}",
            hint=f"the one of that id is {digest}",
        )


def _check_others(state: Channels, root: Root, changed: set[str]) -> None:
    """Refuse to leave channels and releases behind that nobody would believe any more.

    Args:
        state: the present state.
        root: the next statement of keys.
        changed: paths of the statements that are made anew.
    """
    lost = [
        f"{stack}@{channel}"
        for stack, channel in state.names()
        if pointer_path(stack, channel) not in changed and not state.holds(stack, channel, root)
    ]
    lost += [
        f"{each.stack}@{each.release}"
        for each in state.lost(root)
        if statement_path(each.stack, each.digest) not in changed
    ]
    if lost:
        raise TrustError(
            f"with these keys nobody would believe {', '.join(lost)} any more",
            hint="let the keys that stay sign them in the same step",
        )
