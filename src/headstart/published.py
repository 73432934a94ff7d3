"""What a repository offers: stacks, their channels and releases, and which release a reference means.

It is read through a ``PublishedTree``: a verified ``Snapshot``, or a CVMFS mount, whose client has verified it.
Either way a channel's pointer must be signed by the keys that the master key vouches for, and so must the
statement of a release that neither a pointer nor its digest pins, where the statement of keys asks for that.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeVar, assert_never

from headstart.channel import LIMIT, ROOT_PATH, Believed, Pointer, Root, pointer_path, read_pointer, read_root
from headstart.cvmfs.trust import MasterKeys
from headstart.errors import (
    ConfigurationError,
    CorruptError,
    Error,
    MissingError,
    TrustError,
    UnavailableError,
    UnknownError,
)
from headstart.names import ChannelName, Fqrn, ReleaseId, Sha256, StackName
from headstart.reference import DigestPrefix, NamedChannel, Reference, Unspecified
from headstart.release import RELEASE_FILE, Release
from headstart.releasestatement import (
    STATEMENT_LIMIT,
    Stated,
    read_statement,
    statement_path,
    statements_path,
)
from headstart.snapshot import Snapshot

DEFAULT_CHANNEL: Final = ChannelName("prod")
RELEASE_LIMIT: Final = 1 << 26
"""Bytes that a ``release.json`` may have."""
_N = TypeVar("_N", StackName, ChannelName, ReleaseId, Sha256)


class PublishedTree(Protocol):
    """The files of a repository, by paths such as ``/channels/root.json``."""

    @property
    def fqrn(self) -> Fqrn:
        """The repository."""
        ...

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; ``UnknownError`` where there is none."""
        ...

    def read(self, path: str, *, limit: int) -> bytes:
        """A regular file; ``UnknownError`` where there is none, ``CorruptError`` beyond ``limit`` bytes."""
        ...


@dataclass(frozen=True, slots=True)
class SnapshotTree:
    """The files of a verified snapshot."""

    snapshot: Snapshot

    @property
    def fqrn(self) -> Fqrn:
        """The repository."""
        return self.snapshot.fqrn

    def names(self, path: str) -> list[str]:
        """The names in a directory; see ``PublishedTree``."""
        children = self.snapshot.children(path.encode(errors="surrogateescape"))
        return [entry.name.decode(errors="surrogateescape") for entry in children]

    def read(self, path: str, *, limit: int) -> bytes:
        """A regular file; see ``PublishedTree``."""
        return self.snapshot.read(path.encode(errors="surrogateescape"), limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountedTree:
    """The files of a repository that is mounted, such as at ``/cvmfs/julia.example.org``."""

    fqrn: Fqrn
    root: str

    def names(self, path: str) -> list[str]:
        """The names in a directory; see ``PublishedTree``."""
        try:
            return sorted(os.listdir(self.root + path))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UnknownError(f"there is no directory {self.root}{path}") from error
        except OSError as error:
            raise UnavailableError(f"cannot read {self.root}{path}: {error.strerror}") from error

    def read(self, path: str, *, limit: int) -> bytes:
        """A regular file; see ``PublishedTree``."""
        try:
            with open(self.root + path, "rb") as stream:
                data = stream.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise UnknownError(f"there is no file {self.root}{path}") from error
        except OSError as error:
            raise UnavailableError(f"cannot read {self.root}{path}: {error.strerror}") from error
        if len(data) > limit:
            raise CorruptError(f"{self.root}{path} has more than the {limit} bytes it may have")
        return data


@dataclass(frozen=True, slots=True)
class Pinned:
    """The user has named so much of the digest that nothing else can be meant."""


@dataclass(frozen=True, slots=True)
class Unstated:
    """The repository key's word alone, because the owner asks for no more."""

    root: Root
    """The statement of keys, which does not."""


Proof = Believed | Stated | Pinned | Unstated


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The release that a reference means."""

    release: Release
    digest: Sha256
    proof: Proof
    """Why it is that one."""

    @property
    def pointer(self) -> Pointer | None:
        """The channel's pointer, where the reference went through one."""
        return self.proof.pointer if isinstance(self.proof, Believed) else None

    @property
    def expires(self) -> datetime | None:
        """The first moment at which the proof is no longer good; None for one that does not expire."""
        match self.proof:
            case Believed():
                return self.proof.expires
            case Stated(root=root):
                return root.expires
            case Pinned() | Unstated():
                return None
            case _:
                assert_never(self.proof)


def stacks(tree: PublishedTree) -> tuple[StackName, ...]:
    """The stacks that have releases, sorted."""
    return _named(tree, "/stacks", StackName)


def channels(tree: PublishedTree, stack: StackName) -> tuple[ChannelName, ...]:
    """The channels of a stack, sorted; their pointers are not looked at."""
    return _named(tree, f"/channels/{stack}", ChannelName, ending=".json")


def releases(tree: PublishedTree, stack: StackName) -> tuple[ReleaseId, ...]:
    """The releases of a stack, sorted by id."""
    return _named(tree, f"/stacks/{stack}", ReleaseId)


def stated_releases(tree: PublishedTree, stack: StackName) -> tuple[Sha256, ...]:
    """The digests of which a stack has files with statements, sorted; what is in them is not looked at."""
    return _named(tree, statements_path(stack), Sha256, ending=".json")


def root(tree: PublishedTree, keys: MasterKeys) -> Root:
    """Which keys sign the repository's pointers and statements of releases.

    Raises:
        TrustError: the repository does not say, or none of the master keys has signed it.
        CorruptError: not such a statement.
    """
    try:
        data = tree.read(ROOT_PATH, limit=LIMIT)
    except UnknownError as error:
        raise TrustError(
            f"{tree.fqrn} has no {ROOT_PATH}, so nothing says who signs its channels and releases",
            hint="name the release by its digest",
        ) from error
    return read_root(data, master=keys.by_id, fqrn=tree.fqrn)


def believe(tree: PublishedTree, stack: StackName, channel: ChannelName, *, keys: MasterKeys) -> Believed:
    """Where a channel points, expired or not.

    Raises:
        UnknownError: there is no such channel, listing those that there are.
        TrustError: its signatures do not hold, or it is another's.
        CorruptError: no such pointer.
    """
    try:
        data = tree.read(pointer_path(stack, channel), limit=LIMIT)
    except UnknownError as error:
        raise _no_channel(tree, stack, channel) from error
    return read_pointer(data, root=root(tree, keys), stack=stack, channel=channel)


def pointer(
    tree: PublishedTree, stack: StackName, channel: ChannelName, *, keys: MasterKeys, now: datetime
) -> Pointer:
    """Where a channel points today.

    Raises:
        UnknownError, CorruptError: as ``believe``.
        TrustError: so, or it has expired, or by this clock nobody can tell.
    """
    found = believe(tree, stack, channel, keys=keys)
    found.check_time(now)
    return found.pointer


def release(tree: PublishedTree, stack: StackName, release_id: ReleaseId) -> tuple[Release, Sha256]:
    """A release and its digest.

    Raises:
        UnknownError: there is no such release, listing those that there are.
        CorruptError: its record is damaged, or another one's.
    """
    path = f"/stacks/{stack}/{release_id}/{RELEASE_FILE}"
    try:
        data = tree.read(path, limit=RELEASE_LIMIT)
    except UnknownError as error:
        raise _no_release(tree, stack, str(release_id)) from error
    record = Release.from_bytes(data)
    if (record.fqrn, record.stack, record.id) != (tree.fqrn, stack, release_id):
        raise CorruptError(f"{path} in {tree.fqrn} is the record of {record.fqrn}: {record.stack}/{record.id}")
    return record, Sha256.of(data)


def resolve(tree: PublishedTree, reference: Reference, *, keys: MasterKeys, now: datetime) -> Resolved:
    """Find the release that a reference means.

    Args:
        tree: where to look.
        reference: what the user said; a bare stack means its channel ``prod``, else its only release.
        keys: the anchor for the pointers.
        now: UTC.

    Raises:
        UnknownError: there is none, or more than one; the message lists what there is.
        TrustError: the channel's pointer does not hold, or a statement that the release needs.
        CorruptError: pointer and release do not fit, or a record is damaged.
    """
    choice = reference.choice
    match choice:
        case NamedChannel():
            return _by_channel(tree, reference.stack, choice.name, keys=keys, now=now)
        case DigestPrefix():
            record, digest = by_digits(tree, reference.stack, choice)
            if choice.pins:
                return Resolved(release=record, digest=digest, proof=Pinned())
        case Unspecified():
            if DEFAULT_CHANNEL in channels(tree, reference.stack):
                return _by_channel(tree, reference.stack, DEFAULT_CHANNEL, keys=keys, now=now)
            record, digest = _the_only_one(tree, reference.stack)
        case _:
            assert_never(choice)
    proof = _stated(tree, record, digest, keys=keys, now=now)
    return Resolved(release=record, digest=digest, proof=proof)


def stated(tree: PublishedTree, stack: StackName, digest: Sha256, *, by: Root) -> Stated:
    """The statement of a release, whatever the time.

    Raises:
        TrustError: there is none, it is another's, or too few of the keys that count have signed it.
        CorruptError: no such statement.
    """
    try:
        data = tree.read(statement_path(stack, digest), limit=STATEMENT_LIMIT)
    except UnknownError as error:
        raise TrustError(
            f"{stack}@{digest} of {tree.fqrn} has no statement, and only those who sign its channels can say "
            "that it is theirs",
            hint="name a channel, or the digest that whoever published the release gave you",
        ) from error
    return read_statement(data, root=by, stack=stack, digest=digest)


def _stated(
    tree: PublishedTree, record: Release, digest: Sha256, *, keys: MasterKeys, now: datetime
) -> Stated | Unstated:
    # Without a statement of keys nobody can say that there need be no statement of the release: a thief of the
    # repository key could take it away.
    who = root(tree, keys)
    if not who.statements:
        return Unstated(who)
    who.check_time(now)
    return stated(tree, record.stack, digest, by=who)


def _by_channel(
    tree: PublishedTree, stack: StackName, channel: ChannelName, *, keys: MasterKeys, now: datetime
) -> Resolved:
    believed = believe(tree, stack, channel, keys=keys)
    believed.check_time(now)
    found = believed.pointer
    record, digest = release(tree, stack, found.release)
    if digest != found.digest:
        raise CorruptError(
            f"{stack}@{channel} of {tree.fqrn} points at {found.digest}, but release {record.id} is {digest}",
            hint="the release was replaced after it was published: do not use this source",
        )
    return Resolved(release=record, digest=digest, proof=believed)


def by_digits(tree: PublishedTree, stack: StackName, prefix: DigestPrefix) -> tuple[Release, Sha256]:
    """The release of an id, or of the first digits of a digest; whoever put it there.

    Raises:
        UnknownError: there is none, or more than one; the message lists what there is.
        CorruptError, MissingError, UnavailableError: its record cannot be read.
    """
    ids = releases(tree, stack)
    # An id is a path, so it is found without reading the records of all releases.
    if not prefix.only_digest and prefix.hex in map(str, ids):
        return release(tree, stack, ReleaseId(prefix.hex))
    found: list[tuple[Release, Sha256]] = []
    fault: Error | None = None
    for release_id in ids:
        try:
            record, digest = release(tree, stack, release_id)
        except (CorruptError, MissingError, UnavailableError) as error:
            # One that cannot be read must not keep anybody from another.
            fault = error
            continue
        if digest.hex.startswith(prefix.hex):
            found.append((record, digest))
    if not found:
        raise fault or _no_release(tree, stack, str(prefix))
    if len(found) > 1:
        raise UnknownError(
            f"{prefix} fits {len(found)} releases of {stack}: {_listed(digest for _, digest in found)}",
            hint="give more digits",
        )
    return found[0]


def _the_only_one(tree: PublishedTree, stack: StackName) -> tuple[Release, Sha256]:
    ids = releases(tree, stack)
    if not ids:
        raise _no_release(tree, stack, "release")
    if len(ids) > 1:
        raise UnknownError(
            f"{stack} has no channel {DEFAULT_CHANNEL} and {len(ids)} releases: {_listed(ids)}",
            hint=f"name a release or a channel ({_listed(channels(tree, stack)) or 'there is none'})",
        )
    return release(tree, stack, ids[0])


def _named(tree: PublishedTree, path: str, make: type[_N], *, ending: str = "") -> tuple[_N, ...]:
    """The names in a directory that are names of that kind; none where there is no directory."""
    try:
        names = tree.names(path)
    except UnknownError:
        return ()
    found: list[_N] = []
    for name in names:
        if not name.endswith(ending):
            continue
        try:
            found.append(make(name.removesuffix(ending)))
        except ConfigurationError:
            # Markers such as .cvmfscatalog, or something that a newer Headstart put there.
            continue
    return tuple(sorted(found))


def _no_stack(tree: PublishedTree, stack: StackName) -> UnknownError:
    return UnknownError(
        f"there is no stack {stack} in {tree.fqrn}",
        hint=f"there are: {there}"
        if (there := _listed(stacks(tree)))
        else "nothing has been published there yet",
    )


def _no_channel(tree: PublishedTree, stack: StackName, channel: ChannelName) -> UnknownError:
    there = channels(tree, stack)
    if not there and stack not in stacks(tree):
        return _no_stack(tree, stack)
    return UnknownError(
        f"{stack} in {tree.fqrn} has no channel {channel}",
        hint=f"channels of {stack}: {_listed(there) or 'none'}",
    )


def _no_release(tree: PublishedTree, stack: StackName, wanted: str) -> UnknownError:
    there = releases(tree, stack)
    if not there and stack not in stacks(tree):
        return _no_stack(tree, stack)
    return UnknownError(
        f"{stack} in {tree.fqrn} has no release {wanted}",
        hint=f"releases of {stack}: {_listed(there) or 'none'}",
    )


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))
