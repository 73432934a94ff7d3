"""How a repository is: what it holds, and what of it expires when.

A repository whose whitelist has expired is the one that must be reported, so the state is proven as of the last
moment at which the whitelist was good, and everything else about the chain holds as ever.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from headstart.channel import Pointer, Root
from headstart.cvmfs.signature import LETTER_LIMIT
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.errors import Error, UnknownError
from headstart.failover import NoNotes
from headstart.published import SnapshotTree, believe, channels, root, stacks
from headstart.snapshot import Snapshot
from headstart.source import Anchors, MountSource, Opened, Source, find_keys, open_source, stratum_of


class State(StrEnum):
    """How something that expires stands."""

    GOOD = "good"
    SOON = "soon"
    """Less is left than the warning asks for."""
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """Something that expires."""

    what: str
    """``whitelist``, ``certificate``, ``channel-keys`` (the statement of them) or ``channel``."""
    name: str
    """Of a channel ``stack/channel``; of the others empty."""
    when: datetime
    """The first moment at which it is no longer good, UTC."""
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A repository in figures."""

    opened: Opened
    published: datetime
    """The manifest's time."""
    tags: int
    entries: int
    files: int
    size: int
    """Bytes of content, every name counted."""
    expiries: tuple[Expiry, ...]
    problems: tuple[tuple[str, Error], ...]
    """Channels that cannot be believed, for another reason than their date."""

    @property
    def worst(self) -> State:
        """The worst of what expires."""
        states = [expiry.state for expiry in self.expiries]
        return next((state for state in (State.EXPIRED, State.SOON) if state in states), State.GOOD)


def look(source: Source, anchors: Anchors, *, now: datetime, warning: timedelta) -> Status:
    """Look at a repository.

    Args:
        source: a storage or a server.
        anchors: what the user trusts.
        now: UTC.
        warning: how much time must be left for something to be good.

    Raises:
        UnknownError: the source is a mount, which does not show any of this.
        Error: as ``open_source``, but for the whitelist's date.
    """
    if isinstance(source, MountSource):
        raise UnknownError(
            f"{source.root} is mounted, and a mount does not show what signs it",
            hint="name the storage or a server",
        )
    data = stratum_of(source, NoNotes()).fetch(WHITELIST_FILE, limit=LETTER_LIMIT, fresh=True)
    ends = find_keys(source, anchors).signed(data, fqrn=anchors.fqrn).ends
    good = min(now, ends - timedelta(seconds=1))
    opened = open_source(source, anchors, now=good)
    snapshot = opened.snapshot
    if snapshot is None:
        raise UnknownError(f"{opened.fqrn} does not show what signs it")
    pointers, problems = _pointers(snapshot, opened)
    statements = _statements(snapshot, opened)
    named = [("whitelist", "", snapshot.valid_until), ("certificate", "", snapshot.certificate.ends)]
    named += [("channel-keys", "", statement.expires) for statement in statements]
    named += [("channel", f"{item.stack}/{item.channel}", item.expires) for item in pointers]
    total = snapshot.root_catalog.statistics.total
    history = snapshot.history()
    return Status(
        opened=opened,
        published=datetime.fromtimestamp(snapshot.manifest.timestamp, UTC),
        tags=len(history.tags) if history is not None else 0,
        entries=total.regular + total.symlink + total.special + total.dir,
        files=total.regular,
        size=total.file_size,
        expiries=tuple(
            Expiry(what=what, name=name, when=when, state=_state(when, now, warning))
            for what, name, when in named
        ),
        problems=problems,
    )


def _pointers(snapshot: Snapshot, opened: Opened) -> tuple[tuple[Pointer, ...], tuple[tuple[str, Error], ...]]:
    """Every channel's pointer, expired or not, and what is wrong with those that there is no reading."""
    tree = SnapshotTree(snapshot)
    found: list[Pointer] = []
    problems: list[tuple[str, Error]] = []
    for stack in stacks(tree):
        for channel in channels(tree, stack):
            try:
                # Expired or not: what is past is for the caller to say.
                found.append(believe(tree, stack, channel, keys=opened.keys).pointer)
            except Error as error:
                problems.append((f"{stack}/{channel}", error))
    return tuple(found), tuple(problems)


def _statements(snapshot: Snapshot, opened: Opened) -> tuple[Root, ...]:
    """The statement of channel keys; none where there is none that can be believed."""
    try:
        return (root(SnapshotTree(snapshot), opened.keys),)
    except Error:
        # A repository of another kind needs none, and its channels are what is wrong where it is damaged.
        return ()


def _state(when: datetime, now: datetime, warning: timedelta) -> State:
    if when <= now:
        return State.EXPIRED
    return State.SOON if when - now < warning else State.GOOD


def metrics(status: Status, *, now: datetime) -> str:
    """The status in Prometheus's text format, for the node exporter's textfile collector."""
    opened = status.opened
    fqrn = str(opened.fqrn)
    revision = opened.snapshot.revision if opened.snapshot is not None else 0
    figures: list[tuple[str, str, list[tuple[dict[str, str], int]]]] = [
        ("headstart_repository_revision", "Revision of the repository", [({}, revision)]),
        (
            "headstart_repository_published_timestamp_seconds",
            "Time of the last publication or change of tags",
            [({}, int(status.published.timestamp()))],
        ),
        ("headstart_repository_tags", "Tags of the repository", [({}, status.tags)]),
        ("headstart_repository_entries", "Files, directories, links and others", [({}, status.entries)]),
        ("headstart_repository_content_bytes", "Content of all files", [({}, status.size)]),
        (
            "headstart_expiry_timestamp_seconds",
            "When the whitelist, the certificate, the statement of channel keys or a channel expires",
            [({"what": item.what, "name": item.name}, int(item.when.timestamp())) for item in status.expiries],
        ),
        ("headstart_channel_problems", "Channels that cannot be believed", [({}, len(status.problems))]),
        ("headstart_status_timestamp_seconds", "When this was written", [({}, int(now.timestamp()))]),
    ]
    lines: list[str] = []
    for name, text, values in figures:
        lines += [f"# HELP {name} {text}.", f"# TYPE {name} gauge"]
        for labels, value in values:
            pairs = ",".join(f'{key}="{text}"' for key, text in ({"fqrn": fqrn} | labels).items() if text)
            lines.append(f"{name}{{{pairs}}} {value}")
    return "\n".join(lines) + "\n"
