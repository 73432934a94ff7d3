"""Everything before a start: prove, resolve, choose, hydrate; and ``headstart run``, the long way.

``headstart shell`` and ``headstart env`` start another program, and need the same things on this node.
"""

import contextlib
import ctypes
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn, assert_never

from headstart import hydrate, launch, prune, shortcut
from headstart.cache import Cache, memories
from headstart.channel import ROOT_PATH, Believed, Root, pointer_path
from headstart.cli.run import NO_HOME, Node, Request, homeless, repeat, say
from headstart.clock import check_clock, clock_complaint, own_complaint
from headstart.cvmfs.manifest import DEFAULT_TTL, MANIFEST_FILE
from headstart.cvmfs.past import chosen
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.errors import CacheError, MissingToolError, TrustError, UnavailableError
from headstart.failover import FileNotes
from headstart.holdername import BOOT_ID
from headstart.launch import Placed, Start, Ways
from headstart.launchfiles import plain_digest
from headstart.memory import Memory, memory_of
from headstart.microarchitecture import Selection, flags_of, select
from headstart.names import Fqrn
from headstart.process import Command, run_process
from headstart.publickeys import KEYS_DIRECTORIES
from headstart.published import DEFAULT_CHANNEL, RELEASE_LIMIT, Pinned, Resolved, Unstated, resolve
from headstart.reference import DigestPrefix, Reference, Unspecified
from headstart.release import JULIA_FILE, RELEASE_FILE
from headstart.releasestatement import Stated, statement_path
from headstart.script import is_strict
from headstart.shortcut import Question, Shortcut
from headstart.siteconfig import read_site
from headstart.source import (
    Anchors,
    MountSource,
    Opened,
    Source,
    StorageSource,
    open_source,
    parse,
)
from headstart.usage import Usage

_MMAP_THRESHOLD = -3
"""``M_MMAP_THRESHOLD`` of mallopt(3)."""
_ARENA_MAX = -8
"""``M_ARENA_MAX`` of the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A release of which everything that one image needs is on this node."""

    opened: Opened
    resolved: Resolved
    selection: Selection
    root: str
    """Where the repository's tree is."""
    said: str
    """The line that says which image, and why."""


def start(request: Request, node: Node, question: Question, known: Shortcut | None) -> NoReturn:
    """Become Julia.

    Args:
        request: what the user asked for.
        node: what this process has around it.
        question: the same as a question, for the record.
        known: the record of the last time, which may be used if the source does not answer.

    Raises:
        Error: it cannot be; the family says why.
    """
    launching = Launch(request, node, question, known)
    try:
        launching.become(launching.ready())
    except UnavailableError as error:
        if known is None or not known.created <= node.now < known.expires:
            raise
        if not shortcut.regain(known, node.now):
            raise
        ends = datetime.fromtimestamp(known.expires, UTC)
        say(f"{error.message}; going on with what was verified before, signed until {ends:%Y-%m-%d %H:%M} UTC")
        repeat(known, request, node)
        raise


class Launch:
    """One launch, step by step.

    Args:
        request: what the user asked for.
        node: what this process has around it.
        question: the same as a question, for the record.
        known: the record of the last time, whose lease this process holds.
    """

    def __init__(self, request: Request, node: Node, question: Question, known: Shortcut | None = None) -> None:
        self._known = known
        self._request = request
        self._node = node
        self._question = question
        self._now = datetime.fromtimestamp(node.now, UTC)
        site_of = partial(read_site, env=node.env)
        fqrn = Fqrn(request.fqrn) if request.fqrn else None
        self._anchors = Anchors(keys=request.keys, fqrn=fqrn, site_of=site_of, blacklists=request.blacklists)
        self._past = chosen(request.tag, request.date, request.root_hash)
        self._source = parse(request.source, site_of)
        self._notes = FileNotes(os.path.join(node.cache, "ways.json"))
        self._reference = Reference.parse(request.reference)
        self._placed: tuple[str, ...] = ()
        """What changes when a unit of this launch is replaced in the cache."""
        self._lease: tuple[str, ...] = ()
        """What keeps the image in the cache as long as it runs."""

    def ready(self) -> Ready:
        """Have everything on this node, and say which image it is."""
        opened = self._open()
        resolved = resolve(opened.tree, self._reference, keys=opened.keys, now=opened.moment(self._now))
        self._check_clock(opened, resolved)
        cache = Cache(self._node.cache, opened.fqrn, uid=self._node.uid)
        if self._past is None:
            self._check_age(opened, resolved)
        target = self._node.env.get("HEADSTART_TARGET", "")
        selection = select(flags_of(self._node.cpuinfo), resolved.release.images, target)
        root = self._bring(opened, resolved, selection, cache)
        self._remember(cache, opened, resolved)
        said = _sentence(self._reference, resolved, selection) + _in_the_past(opened)
        if not self._node.env.get("HEADSTART_QUIET"):
            say(said)
        return Ready(opened=opened, resolved=resolved, selection=selection, root=root, said=said)

    def _open(self) -> Opened:
        """Prove the source's state, and that it is not older than what this node has seen."""
        opened = open_source(self._source, self._anchors, now=self._now, notes=self._notes, past=self._past)
        if isinstance(self._source, MountSource):
            return opened
        if self._node.cache.startswith(NO_HOME):
            raise homeless(self._node.uid)
        seen = self._recall(opened).seen
        if seen is None or opened.snapshot is None or seen == opened.snapshot.seen:
            return opened
        return open_source(
            self._source, self._anchors, now=self._now, seen=seen, notes=self._notes, past=self._past
        )

    def _memories(self, opened: Opened) -> tuple[Cache, ...]:
        return memories(self._node.cache, self._node.state, opened.fqrn, uid=self._node.uid)

    def _recall(self, opened: Opened) -> Memory:
        memory = Memory()
        for place in self._memories(opened):
            memory = memory.merged(place.recall(opened.keys.by_id))
        return memory

    def _check_clock(self, opened: Opened, resolved: Resolved) -> None:
        """Notice a clock that is behind; what is named by its digest needs none.

        A pointer's own times are looked at where it is believed. The manifest's is only a reason to say
        something: it never goes back, so it stays wrong for long when its publisher's clock was wrong once.
        """
        complaint = own_complaint(self._now)
        if resolved.expires is not None:
            check_clock(complaint)
        if not complaint and opened.snapshot is not None:
            manifest = opened.snapshot.manifest
            published = datetime.fromtimestamp(manifest.timestamp, UTC)
            what = f"revision {manifest.revision} of {opened.fqrn}"
            complaint = clock_complaint(self._now, signed=published, what=what)
        if complaint:
            say(complaint)

    def _check_age(self, opened: Opened, resolved: Resolved) -> None:
        """Refuse a channel that is older than it was believed here before, or gone."""
        known = self._recall(opened)
        for each in _believed(resolved):
            known.check(each)
        bare = resolved.pointer is None and isinstance(self._reference.choice, Unspecified)
        if bare and known.knows(self._reference.stack, DEFAULT_CHANNEL):
            raise TrustError(
                f"{self._reference.stack} of {opened.fqrn} had a channel {DEFAULT_CHANNEL}, and it is gone",
                hint="nothing signed says which release is meant: name one by its digest",
            )

    def _bring(self, opened: Opened, resolved: Resolved, selection: Selection, cache: Cache) -> str:
        """Have everything on this node, and say where the repository's tree is."""
        if isinstance(opened.source, MountSource):
            return opened.source.root
        assert opened.snapshot is not None  # noqa: S101  # only a mount has none
        cache.check()
        # Before anything is made: what is set may be no size.
        quota = self._anchors.site_of(cache.fqrn).cache_quota
        release = resolved.release
        needed = hydrate.needed(release, resolved.digest, selection.chosen)
        self._placed = tuple(cache.placed(unit) for unit, _ in needed)
        # Before anything is looked for: what is seen from now on stays.
        self._lease = Usage(cache, self._node.now).begin(tuple(unit for unit, _ in reversed(needed)))
        if self._known is not None and self._known.lease != self._lease:
            # Else the last release could neither make room for this one, nor go as long as a job runs on this.
            shortcut.leave(self._known)
        if not hydrate.lacking(needed, cache.has):
            return cache.root
        self._check_replacement(cache, resolved, needed)
        cache.prepare(self._node.now)
        julia_path = release.julia_path.removeprefix(release.fqrn.mountpoint)
        julia_bytes = opened.tree.read(f"{julia_path}/{JULIA_FILE}", limit=RELEASE_LIMIT)
        home = release.path.removeprefix(release.fqrn.mountpoint)
        verified = hydrate.Verified(
            release=release,
            release_bytes=opened.tree.read(f"{home}/{RELEASE_FILE}", limit=RELEASE_LIMIT),
            julia=hydrate.read_julia(release, julia_bytes),
            julia_bytes=julia_bytes,
        )
        # A release that is replaced takes its images with it, so there may be more to fetch afterwards.
        for _ in range(2):
            planned = hydrate.plan(opened.snapshot, verified, selection.chosen, have=cache.has)
            if not self._node.env.get("HEADSTART_QUIET"):
                say(f"fetching up to {planned.size / 1e6:.1f} MB into {cache.directory}")
            self._make_room(cache, planned, quota)
            _give_back_memory()
            hydrate.apply(planned, opened.snapshot, cache)
            if not hydrate.lacking(needed, cache.has):
                break
        return cache.root

    def _make_room(self, cache: Cache, planned: hydrate.Hydration, quota: int | None) -> None:
        """Keep the cache within its quota, as far as nobody runs on what is in it."""
        if quota is None or not planned.size:
            return
        kept = frozenset(cache.file(item.record, item.mtime) for item in planned.wanted())
        wish = prune.Wish(limit=max(0, quota - planned.size), kept=kept)
        done = prune.apply(cache.directory, wish, uid=self._node.uid, now=self._node.now)
        if not done.enough and not self._node.env.get("HEADSTART_QUIET"):
            say(
                f"the cache will have {(done.after + planned.size) / 1e6:.1f} MB, more than its quota of "
                f"{quota / 1e6:.1f} MB: the rest is in use"
            )

    def _check_replacement(self, cache: Cache, resolved: Resolved, needed: hydrate.Needed) -> None:
        """Refuse other bytes for what is here already, unless a channel or a digest vouches for them."""
        choice = self._reference.choice
        if resolved.pointer is not None or (isinstance(choice, DigestPrefix) and choice.pins):
            return
        for unit, digests in needed:
            here = plain_digest(cache.digest_of(unit))
            wanted = plain_digest(digests[0])
            if here not in ("", wanted) and cache.exists(unit):
                raise TrustError(
                    f"{unit} is sha256:{here} in {cache.directory}, and sha256:{wanted} in the repository",
                    hint="what is published is never changed: name the channel, or the release by its digest",
                )

    def _remember(self, cache: Cache, opened: Opened, resolved: Resolved) -> None:
        # What a channel said in the past is no news.
        believed = _believed(resolved) if self._past is None else []
        seen = opened.snapshot.seen if opened.snapshot is not None else None
        memory = memory_of(seen, believed)
        for place in self._memories(opened) if seen is not None or believed else ():
            try:
                place.remember(opened.keys.by_id, memory)
            except CacheError:
                # Neither a cache that an administrator filled and nobody else may write is a reason to fail,
                # nor a mounted repository, which needs no cache, nor the node's memory, which is root's.
                if seen is not None and place.root == cache.root and os.access(cache.root, os.W_OK):
                    raise

    def become(self, ready: Ready) -> NoReturn:
        """Turn this process into Julia."""
        placed = self.place(ready)
        launch.execute(placed.command(self._request.args, self._node.env))

    def place(self, ready: Ready) -> Placed:
        """Bring this process to where Julia can be started, and leave a record for the next time."""
        release, image, env = ready.resolved.release, ready.selection.chosen, self._node.env
        scratch = launch.scratch_depot(release, env, asked=self._request.scratch)
        block = launch.close_scratch(scratch) if scratch and not is_strict(release) else ""
        plain = launch.at_its_path(release, image, root=ready.root, scratch=scratch)
        launch.check_needs(plain)
        movable = may_move(ready)
        moved = launch.where_it_is(release, image, root=ready.root, scratch=scratch) if movable else None
        placed = launch.place(plain, ways_of(env, moved))
        if not placed.bwrap:
            record = self._record(ready, placed.start)
            # Gone, it would be made anew by the long way.
            record.stamps += ((block, shortcut.stamp(block)),) if block else ()
            shortcut.save(self._node.cache, self._question, record)
        return placed

    def _record(self, ready: Ready, taken: Start) -> Shortcut:
        opened, resolved = ready.opened, ready.resolved
        record = Shortcut()
        record.created = int(self._node.now)
        ends = [resolved.expires] if resolved.expires is not None and self._past is None else []
        ttl = DEFAULT_TTL
        if opened.snapshot is not None:
            ends.append(opened.snapshot.valid_until)
            ttl = opened.snapshot.manifest.ttl
        # What a mount shows without a channel is its client's to doubt, and it does so every few minutes.
        signed = min((int(end.timestamp()) for end in ends), default=record.created + ttl)
        record.expires = signed
        # A directory's state is seen from its files' stamps; a server must be asked from time to time.
        watched = isinstance(opened.source, StorageSource)
        record.fresh_until = signed if watched else min(signed, record.created + ttl)
        record.said = ready.said
        record.argv, record.drops, record.needs = taken.argv, taken.drops, taken.needs
        record.sets = tuple(taken.sets.items())
        record.lease = self._lease
        record.binds = tuple((bind.source, bind.target) for bind in taken.binds)
        record.stamps = tuple(self._stamps(opened.source, resolved))
        return record

    def _stamps(self, source: Source, resolved: Resolved) -> list[tuple[str, str]]:
        """What must stay as it is for the record to hold."""
        # After another boot the cache must be looked at again.
        stamps = [(path, shortcut.content_stamp(path)) for path in (*self._request.keys, BOOT_ID)]
        if not self._request.keys:
            configured = self._anchors.site_of(resolved.release.fqrn).keys
            stamps += [(path, shortcut.content_stamp(path)) for path in configured]
            stamps += [(path, shortcut.stamp(path)) for path in KEYS_DIRECTORIES]
        stamps += [(path, shortcut.stamp(path)) for path in self._placed]
        blacklists = (*self._anchors.site_of(resolved.release.fqrn).blacklists, *self._request.blacklists)
        stamps += [(path, shortcut.content_stamp(path) or shortcut.ABSENT) for path in blacklists]
        if isinstance(source, StorageSource):
            paths = [os.path.join(source.directory, name) for name in (MANIFEST_FILE, WHITELIST_FILE)]
            stamps += [(path, shortcut.stamp(path)) for path in paths]
        elif isinstance(source, MountSource):
            paths = [source.root + path for path in _relied_on(resolved)]
            stamps += [(path, shortcut.stamp(path)) for path in paths]
        return stamps


def _believed(resolved: Resolved) -> list[Believed | Root]:
    """What a node remembers of why it was that release."""
    match resolved.proof:
        case Believed():
            return [resolved.proof]
        case Stated(root=root) | Unstated(root=root):
            return [root]
        case Pinned():
            return []
        case _:
            assert_never(resolved.proof)


def _relied_on(resolved: Resolved) -> list[str]:
    """The small files of the repository by which it was that release."""
    release = resolved.release
    match resolved.proof:
        case Believed(pointer=pointer):
            return [pointer_path(pointer.stack, pointer.channel)]
        case Stated():
            return [ROOT_PATH, statement_path(release.stack, resolved.digest)]
        case Unstated():
            return [ROOT_PATH]
        case Pinned():
            return []
        case _:
            assert_never(resolved.proof)


def _give_back_memory() -> None:
    """Have glibc return large blocks to the system when they are free; left alone it learns to keep them.

    And have all threads share one heap: each would keep what is free in its own.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 1 << 17)
        libc.mallopt(_ARENA_MAX, 1)


def _sentence(reference: Reference, resolved: Resolved, selection: Selection) -> str:
    release = resolved.release
    channel = f" ({resolved.pointer.channel})" if resolved.pointer else ""
    if isinstance(reference.choice, Unspecified) and not resolved.pointer:
        # Worth a word: no channel says that it is this one.
        channel = " (the only release, in no channel)"
    return f"{release.stack} {release.id}{channel}: {selection.explain()}"


def _in_the_past(opened: Opened) -> str:
    past = opened.snapshot.past if opened.snapshot is not None else None
    if past is None:
        return ""
    tag = f", tag {past.tag}" if past.tag else ""
    anchor = "" if past.proven else ", which only the hash you gave vouches for"
    return f"; revision {past.revision} of the past{tag}{anchor}"


def ways_of(env: Mapping[str, str], moved: Start | None) -> Ways:
    """What may be tried where there is no namespace.

    Args:
        env: the user's environment.
        moved: how to start from the cache's own path, if the release bears that.
    """
    return Ways(bwrap=shutil.which("bwrap", path=env.get("PATH")), bwrap_works=_bwrap_works, moved=moved)


def may_move(ready: Ready) -> bool:
    """Whether the release may run from where the repository's tree is here; a list of depots holds no colon."""
    return ready.resolved.release.relocatable and ":" not in ready.root


def _bwrap_works(bwrap: str) -> bool:
    trial = Command(argv=(bwrap, "--dev-bind", "/", "/", "true"), env={"PATH": "/usr/bin:/bin"})
    try:
        return run_process(trial).code == 0
    except MissingToolError:
        return False
