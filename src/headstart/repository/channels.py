"""The channels and stated releases of a state, from the publisher's side: expired, withdrawn or not.

For a publisher only versions and what is pointed at matter, and both are signed; dates are for nodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from headstart.channel import (
    LIMIT,
    ROOT_PATH,
    WITHDRAWN_PATH,
    Believed,
    Pointer,
    Root,
    Withdrawn,
    history_path,
    pointer_path,
    read_pointer,
    read_root,
)
from headstart.cvmfs.edition import Edition, Forest
from headstart.cvmfs.entry import Directory, Entry, Mountpoint
from headstart.cvmfs.signing import Ed25519Signer
from headstart.dsse import Envelope
from headstart.errors import (
    ConfigurationError,
    CorruptError,
    KeyFileError,
    MissingError,
    TrustError,
    UnknownError,
)
from headstart.keys import RepositoryKeys
from headstart.names import ChannelName, Fqrn, Sha256, StackName
from headstart.releasestatement import STATEMENT_LIMIT, ReleaseStatement, read_statement, statement_path
from headstart.repository.create import small_file
from headstart.repository.state import Repository, Settings
from headstart.store import Transaction
from headstart.wording import counted, readable

CHANNELS: Final = b"/channels"
_ENDING: Final = ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """What a state says of its channels."""

    repository: Repository
    forest: Forest
    """The state's catalogs."""
    root: Root
    withdrawn: Withdrawn
    _known: dict[tuple[StackName, ChannelName], Believed | None] = field(default_factory=dict)

    def pointer(self, stack: StackName, channel: ChannelName) -> Pointer | None:
        """Where a channel points, expired or not; None where there is none.

        Raises:
            TrustError: not signed by enough of the keys that the master key vouches for, or another channel's.
            CorruptError: no pointer.
        """
        key = (stack, channel)
        if key not in self._known:
            data = self.content(pointer_path(stack, channel))
            self._known[key] = (
                None if data is None else read_pointer(data, root=self.root, stack=stack, channel=channel)
            )
        found = self._known[key]
        return found.pointer if found is not None else None

    def holds(self, stack: StackName, channel: ChannelName, root: Root) -> bool:
        """Whether a channel's pointer, as it is signed now, would be believed by another statement of keys."""
        data = self.content(pointer_path(stack, channel))
        try:
            return data is not None and bool(read_pointer(data, root=root, stack=stack, channel=channel))
        except TrustError:
            return False

    def stated(self, stack: StackName, digest: Sha256, root: Root | None = None) -> ReleaseStatement | None:
        """The statement of a release; None where there is none that would be believed.

        Args:
            stack: the release's.
            digest: the release's.
            root: another statement of keys to believe it by.
        """
        try:
            data = self.content(statement_path(stack, digest), limit=STATEMENT_LIMIT)
            if data is not None:
                return read_statement(data, root=root or self.root, stack=stack, digest=digest).statement
        except (TrustError, CorruptError):
            # Whatever a thief of the repository key has put there.
            pass
        return None

    def lost(self, root: Root) -> tuple[ReleaseStatement, ...]:
        """The statements of releases that are believed now, and would not be by another statement of keys."""
        held = (self.stated(*each) for each in self.statements())
        return tuple(
            each for each in held if each is not None and self.stated(each.stack, each.digest, root) is None
        )

    def content(self, path: str, *, limit: int = LIMIT) -> bytes | None:
        """A statement's file; None where there is none."""
        return self.repository.content_in(self.forest, path.encode(), limit=limit)

    def last_version(self, stack: StackName, channel: ChannelName) -> int:
        """The highest version that nodes may have seen; 0 for a channel that never was."""
        last = self.pointer(stack, channel)
        return max(last.version if last is not None else 0, self.withdrawn.version(stack, channel))

    def names(self) -> tuple[tuple[StackName, ChannelName], ...]:
        """All channels, sorted."""
        found: list[tuple[StackName, ChannelName]] = []
        for path in entries_below(self.forest, CHANNELS):
            parts = path.decode(errors="replace").split("/")
            if len(parts) != 4 or not parts[3].endswith(_ENDING):
                continue
            try:
                found.append((StackName(parts[2]), ChannelName(parts[3].removesuffix(_ENDING))))
            except ConfigurationError:
                continue
        return tuple(sorted(found))

    def statements(self) -> tuple[tuple[StackName, Sha256], ...]:
        """All releases that there is a file with a statement of, sorted, whatever is in it."""
        found = (stated_by(path) for path in entries_below(self.forest, CHANNELS))
        return tuple(sorted(each for each in found if each is not None))


@dataclass(frozen=True, slots=True)
class RepositoryTree:
    """The present state's files, as readers see them (``published.PublishedTree``)."""

    repository: Repository

    @property
    def fqrn(self) -> Fqrn:
        """The repository."""
        return self.repository.fqrn

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        forest, at = self.repository.forest, path.encode()
        if not isinstance(forest.lookup(at), Directory | Mountpoint):
            raise UnknownError(f"there is no directory {path} in {self.fqrn}")
        mounted = forest.mounted(at)
        holder = mounted[0] if mounted is not None else forest.holder(at)
        return sorted(entry.name.decode(errors="surrogateescape") for entry in holder.children(at))

    def read(self, path: str, *, limit: int) -> bytes:
        """A regular file."""
        content = self.repository.content(path.encode(), limit=limit)
        if content is None:
            raise UnknownError(f"there is no file {path} in {self.fqrn}")
        return content


def counting(keys: RepositoryKeys, root: Root) -> tuple[Ed25519Signer, ...]:
    """Those of the channel keys in the key directory that the repository names; there may be none."""
    return tuple(signer for signer in keys.channels if signer.keyid in root.keys)


def signers_at_hand(keys: RepositoryKeys, root: Root) -> tuple[Ed25519Signer, ...]:
    """Those of the channel keys in the key directory that the repository names.

    Raises:
        KeyFileError: there is none.
    """
    good = counting(keys, root)
    if not good:
        raise KeyFileError(
            f"no channel key in the key directory is one that {root.fqrn} names in {ROOT_PATH}",
            hint="use the key directory that the repository was created with, or let a new key be named: "
            "headstart channel keys --add",
        )
    return good


def enough_signers(keys: RepositoryKeys, root: Root) -> tuple[Ed25519Signer, ...]:
    """The same, where they are enough for a pointer.

    Raises:
        KeyFileError: they are fewer than ``root`` asks for.
    """
    good = signers_at_hand(keys, root)
    if len(good) < root.threshold:
        raise KeyFileError(
            f"channels and releases of {root.fqrn} need {counted(root.threshold, 'signature')}, and the key "
            f"directory has {len(good)} of the {counted(len(root.keys), 'key')}",
            hint="let the others sign: headstart promote STACK@WHICH CHANNEL --request FILE",
        )
    return good


def put_statements(
    edition: Edition, repository: Repository, files: Mapping[str, bytes], into: Transaction, now: datetime
) -> None:
    """Let small files be at their paths in the next state."""
    settings = Settings(algorithm=repository.manifest.algorithm)
    for path, content in sorted(files.items()):
        edition.graft(small_file(path.encode(), content, into, repository.when(now), settings))


def pointer_files(pointer: Pointer, signed: bytes) -> dict[str, bytes]:
    """Where a pointer is to be: in its place, and among all that there were."""
    return {pointer_path(pointer.stack, pointer.channel): signed, pointer.history_path: signed}


def stated_by(path: bytes) -> tuple[StackName, Sha256] | None:
    """The release whose statement has that path; None where it is none of a statement."""
    parts = path.decode(errors="replace").split("/")
    if len(parts) != 5 or parts[3] != "releases" or not parts[4].endswith(_ENDING):
        return None
    try:
        return StackName(parts[2]), Sha256(parts[4].removesuffix(_ENDING))
    except ConfigurationError:
        return None


def is_history(path: bytes) -> bool:
    """Whether a path below ``/channels`` is one of what was, which a rollback leaves as it is."""
    parts = path.decode(errors="replace").split("/")
    return (len(parts) == 5 and parts[3].endswith(".history")) or (
        len(parts) == 3 and parts[2].endswith(".root.json")
    )


def history_of(state: Channels, stack: StackName, channel: ChannelName) -> tuple[Pointer, ...]:
    """All pointers that a channel ever had, the oldest first, as they say of themselves.

    Enough to choose from, and nothing is believed because of it.
    """
    found: list[Pointer] = []
    tree = RepositoryTree(state.repository)
    directory = history_path(stack, channel)
    try:
        names = tree.names(directory)
    except UnknownError:
        return ()
    for name in names:
        path = f"{directory}/{name}"
        envelope = Envelope.from_bytes(tree.read(path, limit=LIMIT), where=path)
        found.append(Pointer.from_bytes(envelope.payload, where=path))
    return tuple(found)


def channels_of(repository: Repository, forest: Forest | None = None) -> Channels:
    """The channels of the present state, or of another one.

    Raises:
        MissingError: the state has no statement of keys, so it can have no channels.
        TrustError, CorruptError: the statement is not the owner's.
    """
    forest = forest or repository.forest
    data = repository.content_in(forest, ROOT_PATH.encode(), limit=LIMIT)
    if data is None:
        raise MissingError(
            f"{repository.fqrn} has no {ROOT_PATH}, so it can have no channels",
            hint="make the repository with headstart repo create",
        )
    root = read_root(data, master=repository.keys.masters.by_id, fqrn=repository.fqrn)
    note = repository.content_in(forest, WITHDRAWN_PATH.encode(), limit=LIMIT)
    withdrawn = Withdrawn.from_bytes(note) if note is not None else Withdrawn(versions={})
    return Channels(repository=repository, forest=forest, root=root, withdrawn=withdrawn)


def entries_below(forest: Forest, path: bytes) -> dict[bytes, Entry]:
    """What is at and below a path, directories before their content; nothing where there is nothing.

    A place where another catalog begins is given as the directory that it is.
    """
    found: dict[bytes, Entry] = {}
    waiting = [path]
    while waiting:
        here = waiting.pop()
        entry = forest.lookup(here)
        if entry is None:
            continue
        if isinstance(entry, Mountpoint):
            nested = forest.mounted(here)
            if nested is None:
                raise CorruptError(f"no catalog is mounted at {readable(here)}")
            entry = nested[0].root()
        found[here] = entry
        if isinstance(entry, Directory):
            mounted = forest.mounted(here)
            holder = mounted[0] if mounted is not None else forest.holder(here)
            waiting += [here + b"/" + child.name for child in holder.children(here)]
    return found
