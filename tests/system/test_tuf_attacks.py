"""The attacks of TUF's specification (section 1.5.2), by their names there, against a node.

Against all that ``headstart run`` does before it becomes Julia, with a simulated stratum and a real server.

A node is the launcher itself, with a cache, a clock and a memory of the test's own. Who attacks can do what the
name says and no more: where he has stolen a key, the test says which.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import releases
from headstart import failover
from headstart.channel import ROOT_PATH, Pointer, Root, pointer_path
from headstart.cli.run import Node, Request
from headstart.cli.starting import Launch, Ready
from headstart.cvmfs.entry import File
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objects import Kind, ObjectName, deflate, inflate
from headstart.cvmfs.signature import Certificate, Letter
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.dsse import Envelope, sign
from headstart.errors import CorruptError, Error, MissingError, TrustError, UnavailableError
from headstart.names import ChannelName, Fqrn, ReleaseId, Sha256, StackName
from headstart.release import Release
from headstart.releasestatement import STATEMENT_LIMIT, STATEMENT_TYPE, ReleaseStatement, statement_path
from headstart.repository.releasestatements import LOCK_PATH, statement_of
from headstart.source import StorageSource, WebSource
from headstart.stratum import Stratum, too_long
from headstart.webstratum import HttpStratum
from nodes import V3_FLAGS
from simulator import DAY, NOW, Simulator, certificate_pem, channel_signer, rsa_signer

HOUR = timedelta(hours=1)
OLD, NEW, TREES = ReleaseId("0" * 16), ReleaseId("1" * 16), ReleaseId("2" * 16)
STACKS = {OLD: StackName("jets"), NEW: StackName("jets"), TREES: StackName("trees")}
PROD = pointer_path(StackName("jets"), ChannelName("prod"))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[ReleaseId, tuple[Path, Release]]:
    root = tmp_path_factory.mktemp("stages")
    found: dict[ReleaseId, tuple[Path, Release]] = {}
    for release_id, stack in STACKS.items():
        base = replace(releases.release(), id=release_id, stack=stack)
        extra = {"depot/which": str(release_id).encode()}
        stage = root / str(release_id)
        found[release_id] = stage, releases.write_stage(stage, base, image_size=2000, extra=extra)
    return found


# -- servers --------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *words: object, repository: "Hostile", **rest: object) -> None:
        self.repository = repository
        super().__init__(*words, **rest)  # type: ignore[arg-type]  # socketserver's own

    def do_GET(self) -> None:
        path = self.path.removeprefix(f"/cvmfs/{self.repository.fqrn}/")
        try:
            data = self.repository.fetch(path, limit=1 << 40)
        except MissingError:
            self.send_error(404)
            return
        self.close_connection = True
        self.send_response(200)
        if path not in self.repository.endless:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            for piece in self.repository.pieces(path, data):
                self.wfile.write(piece)
                self.wfile.flush()
        except ConnectionError:
            self.repository.given_up.append(path)

    def log_message(self, *_: object) -> None:
        pass


@dataclass(slots=True)
class Hostile(Simulator):
    """A repository whose stratum does not mean well."""

    endless: set[str] = field(default_factory=set)
    """Files that do not come to an end."""
    drips: set[str] = field(default_factory=set)
    """Files of which a byte comes every 50 ms."""
    given_up: list[str] = field(default_factory=list)
    """Files whose reader did not wait for the end."""

    def fetch(self, path: str, *, limit: int, fresh: bool = False) -> bytes:
        data = Simulator.fetch(self, path, limit=limit, fresh=fresh)
        if path in self.endless and limit < 1 << 40:
            raise too_long(path, limit, self.name)
        return data

    def pieces(self, path: str, data: bytes) -> Iterator[bytes]:
        if path in self.drips:
            for at in range(len(data)):
                time.sleep(0.05)
                yield data[at : at + 1]
            return
        yield data
        # Without an end for whoever keeps to his limits; a reader that does not must not take all memory.
        for _ in range(200 if path in self.endless else 0):
            yield b"\0" * (1 << 16)


@dataclass(slots=True)
class Site:
    """Strata of a repository, and a node that starts from them."""

    root: Path
    real: bool
    """Whether the node reaches them over HTTP."""
    monkeypatch: pytest.MonkeyPatch
    servers: ExitStack
    stages: Mapping[ReleaseId, tuple[Path, Release]]
    urls: dict[str, "Hostile"] = field(default_factory=dict)

    def repository(self, now: datetime = NOW, revision: int = 0) -> Hostile:
        """One with a release on ``prod``, published."""
        made = Hostile(now=now, revision=revision)
        made.put_root(made.root())
        self.add(made, OLD)
        made.add_channel(self.pointer(made, OLD))
        made.publish()
        return made

    def add(self, repository: Hostile, release: ReleaseId) -> None:
        repository.put_stage(self.stages[release][0])

    def pointer(self, repository: Hostile, release: ReleaseId, version: int = 1) -> Pointer:
        return repository.pointer(self.stages[release][1], version=version)

    def address(self, repository: Hostile) -> str:
        """Where the node finds it; the same each time."""
        for url, known in self.urls.items():
            if known is repository:
                return url
        url = f"http://simulated-{len(self.urls)}.example.org/cvmfs/{repository.fqrn}"
        if self.real:
            url = self.servers.enter_context(serving(repository))
        self.urls[url] = repository
        return url

    def reach(self, server: str, _proxy: str | None, _timeout: float) -> Stratum:
        return self.urls[server]

    def start(
        self, *repositories: Hostile, reference: str = "jets@prod", now: datetime = NOW, node: str = "node"
    ) -> Ready:
        """Everything of a start but the last step."""
        home = self.root / node
        home.mkdir(exist_ok=True)
        (home / "headstart").mkdir(exist_ok=True)
        (home / "headstart/config.toml").write_text("timeout_direct = 1\nretries = 0\n")
        (home / "cpuinfo").write_text(f"flags\t\t: {V3_FLAGS}\n")
        (home / "key.pub").write_bytes(rsa_signer("master").public.to_pem())
        request = Request()
        request.source = ";".join(self.address(each) for each in repositories)
        request.reference, request.keys = reference, (str(home / "key.pub"),)
        env = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "HEADSTART_QUIET": "1"}
        env |= {"HEADSTART_CPUINFO": str(home / "cpuinfo"), "HEADSTART_STATE": str(home / "none")}
        around = Node(str(home / "cache"), env)
        around.now = now.timestamp()
        return Launch(request, around, around.question(request)).ready()

    def started(
        self, *repositories: Hostile, reference: str = "jets@prod", now: datetime = NOW, **node: str
    ) -> ReleaseId:
        """Start, and see that what is there is what was published."""
        ready = self.start(*repositories, reference=reference, now=now, **node)
        release = ready.resolved.release
        home = Path(ready.root) / release.path.removeprefix(f"{release.fqrn.mountpoint}/")
        assert (home / "depot/which").read_text() == str(release.id)
        assert (home / "images/x86-64-v3/sys.so").read_bytes() == releases.image_content("x86-64-v3", 2000)
        return release.id

    def refused(
        self,
        kind: type[Error],
        match: str,
        *repositories: Hostile,
        reference: str = "jets@prod",
        now: datetime = NOW,
        **node: str,
    ) -> None:
        with pytest.raises(kind, match=match):
            self.start(*repositories, reference=reference, now=now, **node)


@contextmanager
def serving(repository: Hostile) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, repository=repository))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/cvmfs/{repository.fqrn}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(params=["simulated", "http"])
def site(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stages: Mapping[ReleaseId, tuple[Path, Release]],
) -> Iterator[Site]:
    with ExitStack() as servers:
        made = Site(
            root=tmp_path,
            real=request.param == "http",
            monkeypatch=monkeypatch,
            servers=servers,
            stages=stages,
        )
        if made.real:

            def reach(*words: Any, **rest: Any) -> HttpStratum:
                # A launch leaves its connections to the program that it becomes, and here there is none.
                return servers.enter_context(HttpStratum(*words, **rest))

            monkeypatch.setattr("headstart.webstratum.HttpStratum", reach)
        else:

            def stratum_of(source: WebSource | StorageSource, notes: failover.Notes) -> Stratum:
                assert isinstance(source, WebSource)
                ledger = failover.Ledger(notes, time.monotonic, 300)
                return failover.FailoverStratum(
                    source.route, made.reach, ledger, draw=lambda _most: 0, pause=lambda _seconds: None
                )

            monkeypatch.setattr("headstart.source.stratum_of", stratum_of)
        yield made


def test_a_repository_that_nobody_attacks_starts(site: Site) -> None:
    repository = site.repository()
    for now in (NOW, NOW + DAY):
        assert site.started(repository, now=now) == OLD
    assert site.started(repository, node="another node") == OLD


# -- arbitrary installation: what nobody has signed ----------------------------------------------------------


def foreign_objects(site: Site, repository: Hostile) -> str:
    """As long as the right ones, so that nothing but their names can tell."""
    objects = [path for path, _ in object_paths(repository)]
    for path in objects:
        repository.files[path] = deflate(inflate(repository.files[path], limit=1 << 20, what=path)[::-1])
    return "data/.*bytes of its name"


def foreign_manifest(site: Site, repository: Hostile) -> str:
    site.add(repository, NEW)
    repository.add_channel(site.pointer(repository, NEW, version=2))
    repository.publish()
    repository.sign_manifest(repository.manifest, key="attacker")
    return MANIFEST_FILE


def foreign_pointer(site: Site, repository: Hostile) -> str:
    """Who has the repository's key cannot move a channel."""
    site.add(repository, NEW)
    repository.add_channel(site.pointer(repository, NEW, version=2), "attacker")
    repository.publish()
    return "0 good signatures"


def foreign_channel_keys(site: Site, repository: Hostile) -> str:
    """Nor say that his own key moves it."""
    site.add(repository, NEW)
    repository.put_root(repository.root("attacker", version=2), "attacker")
    repository.add_channel(site.pointer(repository, NEW, version=2), "attacker")
    repository.publish()
    return rf"{ROOT_PATH} has 0 good signatures"


def foreign_whitelist(site: Site, repository: Hostile) -> str:
    repository.sign_whitelist(key="attacker")
    return WHITELIST_FILE


@pytest.mark.parametrize(
    "attack", [foreign_objects, foreign_manifest, foreign_pointer, foreign_channel_keys, foreign_whitelist]
)
def test_arbitrary_installation(site: Site, attack: Callable[[Site, Hostile], str]) -> None:
    repository = site.repository()
    with pytest.raises((TrustError, CorruptError), match=attack(site, repository)):
        site.start(repository)


# -- endless data ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["manifest", "whitelist", "catalog", "certificate", "file"])
def test_endless_data(site: Site, which: str) -> None:
    repository = site.repository()
    manifest = repository.manifest
    path = {
        "manifest": MANIFEST_FILE,
        "whitelist": WHITELIST_FILE,
        "catalog": manifest.root_catalog_name.path,
        "certificate": manifest.certificate_name.path,
        "file": next(path for path, entry in object_paths(repository) if entry == PROD),
    }[which]
    repository.endless.add(path)
    began = time.monotonic()
    site.refused(CorruptError, "more than the [0-9]+ bytes", repository)
    # Not even the shortest time after which an answer would be too slow.
    assert time.monotonic() - began < 20


def object_paths(repository: Hostile) -> Iterator[tuple[str, str]]:
    """Objects of plain files, and the paths that they stand for."""
    for path, entry in repository.tree.items():
        if isinstance(entry, File):
            yield ObjectName(digest=entry.digest, kind=Kind.FILE).path, path.decode()


# -- extraneous dependencies: what the release did not ask for ------------------------------------------------


def test_extraneous_dependencies_are_not_installed(site: Site) -> None:
    """Who has the repository's key puts a package beside the release's own: nothing brings it along."""
    repository = site.repository()
    evil = f"/stacks/jets/{OLD}/depot/packages/Evil/src/Evil.jl"
    repository.put(evil, b"module Evil end")
    repository.publish()
    ready = site.start(repository)
    assert not list(Path(ready.root).rglob("Evil*"))
    assert list(Path(ready.root).rglob("Jets.jl"))


def test_extraneous_dependencies_in_place_of_the_release_s_own(site: Site) -> None:
    """Nor does another Julia take the place of the one that the release was built with."""
    repository = site.repository()
    julia = site.stages[OLD][1].julia
    record = next(path for path in repository.tree if path == f"/julia/{julia}/julia.json".encode())
    stage = site.stages[OLD][0]
    content = (stage / record.decode()[1:]).read_bytes()
    repository.put(record.decode(), content.replace(b"1.5.3", b"1.5.4"))
    repository.publish()
    site.refused(CorruptError, r"julia\.json", repository)


# -- fast-forward ---------------------------------------------------------------------------------------------


def test_fast_forward(site: Site) -> None:
    """Thieves of all keys but the master key drive a channel's version up; its owner comes back from that."""
    repository = site.repository()
    repository.add_channel(replace(site.pointer(repository, OLD), version=10**18))
    repository.publish()
    assert site.started(repository) == OLD
    # The owner names another key. Without a new beginning nodes would be lost to him.
    repository.now = NOW + HOUR
    site.add(repository, NEW)
    root = repository.root("channel-1", version=2)
    repository.put_root(root)
    repository.add_channel(site.pointer(repository, NEW, version=1), "channel-1")
    repository.publish()
    site.refused(TrustError, "version 1, this node has already seen 10", repository, now=NOW + HOUR)
    repository.put_root(replace(root, restarted=NOW + HOUR))
    repository.publish()
    assert site.started(repository, now=NOW + HOUR) == NEW
    # And the thieves do not come back, nor does what was signed before, by whichever key.
    before = replace(site.pointer(repository, OLD, version=2), issued=NOW)
    repository.add_channel(before, "channel-1")
    repository.publish()
    site.refused(TrustError, "only what was signed from", repository, now=NOW + HOUR)
    repository.put_root(repository.root("channel", version=1))
    repository.add_channel(replace(site.pointer(repository, OLD), version=10**18 + 1))
    repository.publish()
    site.refused(TrustError, "already seen", repository, now=NOW + HOUR)


# -- indefinite freeze ----------------------------------------------------------------------------------------


def test_indefinite_freeze_of_a_channel(site: Site) -> None:
    """The same old state for ever: a node with no memory of anything newer stops at the pointer's end."""
    repository = site.repository()
    repository.add_channel(replace(site.pointer(repository, OLD), expires=NOW + 3 * DAY))
    repository.publish()
    assert site.started(repository, now=NOW + 3 * DAY - timedelta(seconds=1)) == OLD
    late = NOW + 3 * DAY
    for node in ("node", "without a memory"):
        site.refused(TrustError, r"prod\.json expired on 2026-11-25", repository, now=late, node=node)
    # What is named by its digest has nothing to expire.
    digest = repository.pointer(site.stages[OLD][1]).digest
    assert site.started(repository, reference=f"jets@{digest}", now=late) == OLD


def test_indefinite_freeze_of_the_channel_keys(site: Site) -> None:
    """A key that was taken away may not live on behind an old statement."""
    repository = site.repository()
    repository.put_root(replace(repository.root(), expires=NOW + 3 * DAY))
    repository.publish()
    assert site.started(repository, now=NOW + 2 * DAY) == OLD
    site.refused(TrustError, r"root\.json expired on 2026-11-25", repository, now=NOW + 3 * DAY)


def test_indefinite_freeze_of_the_repository(site: Site) -> None:
    repository = site.repository()
    repository.sign_whitelist(replace(repository.whitelist, expires=NOW + 3 * DAY))
    assert site.started(repository, now=NOW + 2 * DAY) == OLD
    site.refused(TrustError, "cvmfswhitelist .*expired on 2026-11-25", repository, now=NOW + 3 * DAY)


def test_indefinite_freeze_by_the_clock(site: Site) -> None:
    """Who can set a node's clock back cannot keep what has expired alive: what was signed since tells."""
    repository = site.repository(now=NOW + 10 * DAY)
    site.refused(TrustError, "this machine's clock says 2026-11-22.*was signed on 2026-12-02", repository)
    digest = repository.pointer(site.stages[OLD][1]).digest
    assert site.started(repository, reference=f"jets@{digest}") == OLD


# -- malicious mirrors ----------------------------------------------------------------------------------------


def old_mirror(site: Site) -> Hostile:
    return site.repository()


def rotten_mirror(site: Site) -> Hostile:
    made = site.repository(revision=1)
    for path in list(made.files):
        if path.startswith("data/"):
            made.files[path] = b"rotten"
    return made


def empty_mirror(site: Site) -> Hostile:
    made = site.repository(revision=1)
    made.files.clear()
    return made


@pytest.mark.parametrize("mirror", [old_mirror, rotten_mirror, empty_mirror])
def test_malicious_mirrors(site: Site, mirror: Callable[[Site], Hostile]) -> None:
    """One of two is bad, and is the one that is asked first: nothing of it is taken, and the start succeeds."""
    good = site.repository(revision=1)
    assert site.started(good) == OLD
    site.add(good, NEW)
    good.add_channel(site.pointer(good, NEW, version=2))
    good.publish()
    assert site.started(good) == NEW
    bad = mirror(site)
    assert site.started(bad, good) == NEW
    assert bad.requests


# -- mix-and-match --------------------------------------------------------------------------------------------


def test_mix_and_match_of_two_states(site: Site) -> None:
    """Files of one revision among those of another."""
    repository = site.repository()
    before = dict(repository.files)
    site.add(repository, NEW)
    repository.add_channel(site.pointer(repository, NEW, version=2))
    repository.publish()
    old = Letter.cut(before[MANIFEST_FILE], what="it")
    catalogs = [Manifest.from_bytes(old.text), repository.manifest]
    then, now = (manifest.root_catalog_name.path for manifest in catalogs)
    repository.files[now] = before[then]
    site.refused(CorruptError, "bytes of its name", repository)


def test_mix_and_match_of_a_new_state_with_an_old_channel(site: Site) -> None:
    """Who has the repository's key shows a node of today the channel of yesterday."""
    repository = site.repository()
    repository.add_channel(site.pointer(repository, OLD, version=2))
    repository.publish()
    assert site.started(repository) == OLD
    repository.add_channel(site.pointer(repository, OLD, version=1))
    repository.publish()
    site.refused(TrustError, "prod has version 1, this node has already seen 2", repository)


def test_mix_and_match_of_releases(site: Site) -> None:
    """The record of one release in the place of another's."""
    repository = site.repository()
    site.add(repository, NEW)
    other = replace(site.stages[NEW][1], id=OLD)
    repository.put(f"/stacks/jets/{OLD}/release.json", other.to_bytes())
    repository.publish()
    site.refused(CorruptError, "points at sha256:", repository)


# -- rollback -------------------------------------------------------------------------------------------------


def advanced(site: Site) -> tuple[Hostile, dict[str, bytes]]:
    """A repository that has gone on, a node that has seen that, and all files of before."""
    repository = site.repository()
    before = dict(repository.files)
    site.add(repository, NEW)
    repository.put_root(repository.root("channel", "channel-1", version=2))
    repository.add_channel(site.pointer(repository, NEW, version=2))
    repository.now = NOW + HOUR
    repository.sign_whitelist()
    repository.publish()
    assert site.started(repository, now=NOW + HOUR) == NEW
    return repository, before


def test_rollback_of_the_repository(site: Site) -> None:
    repository, before = advanced(site)
    repository.files |= {MANIFEST_FILE: before[MANIFEST_FILE]}
    site.refused(TrustError, "at revision 1, this node has already seen 2", repository, now=NOW + HOUR)


def test_rollback_of_the_whitelist(site: Site) -> None:
    """It may name a certificate that has been revoked since."""
    repository, before = advanced(site)
    repository.files |= {WHITELIST_FILE: before[WHITELIST_FILE]}
    site.refused(TrustError, "has seen a newer one", repository, now=NOW + HOUR)


def test_rollback_of_a_channel(site: Site) -> None:
    repository, _ = advanced(site)
    repository.add_channel(site.pointer(repository, OLD, version=1))
    repository.publish()
    site.refused(TrustError, "prod has version 1, this node has already seen 2", repository, now=NOW + HOUR)


def test_rollback_of_the_channel_keys(site: Site) -> None:
    """The old statement may name a key that was stolen since."""
    repository, _ = advanced(site)
    repository.put_root(repository.root())
    repository.add_channel(site.pointer(repository, OLD, version=3))
    repository.publish()
    site.refused(
        TrustError, r"root\.json has version 1, this node has already seen 2", repository, now=NOW + HOUR
    )


# -- slow retrieval -------------------------------------------------------------------------------------------


def test_slow_retrieval(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that drips is given up for another one; simulated, by a clock that runs ahead at each look."""
    slow, good = site.repository(), site.repository()
    slow.drips.add(MANIFEST_FILE)
    if not site.real:
        site.real = True
        monkeypatch.undo()
        slow.drips.clear()
        url = site.address(slow)
        passed = iter(range(0, 10**9, 30))
        with monkeypatch.context() as patched:
            patched.setattr("headstart.wire.time.monotonic", lambda: float(next(passed)))
            with (
                HttpStratum(url, timeout=10) as stratum,
                pytest.raises(UnavailableError, match="too slowly"),
            ):
                stratum.fetch(MANIFEST_FILE, limit=1 << 16)
        return
    began = time.monotonic()
    site.refused(UnavailableError, "too slowly", slow)
    assert site.started(slow, good) == OLD
    # The whole file would have taken half a minute, and was asked for three times.
    assert len(slow.files[MANIFEST_FILE]) * 0.05 > 15
    assert time.monotonic() - began < 15


# -- vulnerability to key compromise --------------------------------------------------------------------------


def guarded(repository: Hostile, version: int = 2) -> Root:
    """Two of three keys must agree."""
    return repository.root("channel", "channel-1", "channel-2", version=version, threshold=2)


def test_vulnerability_to_key_compromise_of_fewer_keys_than_the_threshold(site: Site) -> None:
    """Thieves of the repository's key and of one channel key."""
    repository = site.repository()
    site.add(repository, NEW)
    repository.put_root(guarded(repository))
    repository.add_channel(site.pointer(repository, OLD), "channel", "channel-2")
    repository.publish()
    assert site.started(repository) == OLD
    stolen = site.pointer(repository, NEW, version=2)
    for signers in (["channel"], ["channel", "channel"], ["channel", "attacker"]):
        repository.add_channel(stolen, *signers)
        repository.publish()
        site.refused(TrustError, "1 good signature of the 3 keys that count, it needs 2", repository)
    repository.add_channel(stolen, "channel", "channel-1")
    repository.publish()
    assert site.started(repository) == NEW


def test_vulnerability_to_key_compromise_ends_with_the_key(site: Site) -> None:
    """A key that is no longer named signs nothing any more, for nodes with and without a memory."""
    repository = site.repository()
    site.add(repository, NEW)
    repository.put_root(repository.root("channel-1", version=2))
    repository.add_channel(site.pointer(repository, OLD, version=2), "channel-1")
    repository.publish()
    assert site.started(repository) == OLD
    repository.add_channel(site.pointer(repository, NEW, version=3), "channel")
    repository.publish()
    for node in ("node", "without a memory"):
        site.refused(TrustError, "0 good signatures of the 1 key", repository, node=node)


def test_vulnerability_to_key_compromise_of_the_repository_key(site: Site) -> None:
    """It ends with the certificate's place on the whitelist."""
    repository = site.repository()
    other = Certificate.from_pem(certificate_pem(str(repository.fqrn), "next"), what="next certificate")
    fingerprints = (other.fingerprint(repository.algorithm),)
    repository.sign_whitelist(replace(repository.whitelist, fingerprints=fingerprints))
    site.refused(TrustError, "not on its whitelist", repository)


# -- wrong software installation: signed, and not what was asked for ----------------------------------------


def test_wrong_software_installation_of_another_channel(site: Site) -> None:
    """The pointer of ``testing`` in the place of that of ``prod``."""
    repository = site.repository()
    site.add(repository, NEW)
    testing = repository.pointer(site.stages[NEW][1], "testing", version=2)
    repository.put(PROD, testing.signed(channel_signer()))
    repository.publish()
    site.refused(TrustError, "jets@testing put in its place", repository)


def test_wrong_software_installation_of_another_stack(site: Site) -> None:
    repository = site.repository()
    site.add(repository, TREES)
    trees = repository.pointer(site.stages[TREES][1], version=2)
    repository.put(PROD, trees.signed(channel_signer()))
    repository.publish()
    site.refused(TrustError, "trees@prod put in its place", repository)


def test_wrong_software_installation_under_a_release_s_name(site: Site) -> None:
    """The record of another stack where a release was named by its id."""
    repository = site.repository()
    site.add(repository, TREES)
    record = site.stages[TREES][1].to_bytes()
    repository.put(f"/stacks/jets/{OLD}/release.json", record)
    repository.publish()
    site.refused(
        CorruptError, f"is the record of julia.example.org: trees/{TREES}", repository, reference=f"jets@{OLD}"
    )


def test_wrong_software_installation_of_another_repository(site: Site) -> None:
    """Another repository of the same owner, at the address of the one that was asked for."""
    other = Hostile(fqrn=Fqrn("other.example.org"))
    other.publish()
    repository = site.repository()
    repository.files = {**repository.files, **other.files}
    site.refused(TrustError, "is of other.example.org, not of julia.example.org", repository)


def test_wrong_software_installation_by_a_digest(site: Site) -> None:
    """Nothing but those bytes answers to a digest, whoever has signed it."""
    repository = site.repository()
    site.add(repository, NEW)
    digest = repository.pointer(site.stages[OLD][1]).digest
    repository.put(f"/stacks/jets/{OLD}/release.json", replace(site.stages[NEW][1], id=OLD).to_bytes())
    repository.publish()
    with pytest.raises(Error, match=f"no release {digest}"):
        site.start(repository, reference=f"jets@{digest}")


# -- a release that neither a channel nor its digest pins -----------------------------------------------------


def said(site: Site, release: ReleaseId) -> ReleaseStatement:
    made = site.stages[release][1]
    return statement_of(
        made, Sha256.of(made.to_bytes()), (site.stages[release][0] / lock_of(made)).read_bytes()
    )


def lock_of(made: Release) -> str:
    return f"stacks/{made.stack}/{made.id}/{LOCK_PATH}"


def place_of(statement: ReleaseStatement) -> str:
    return statement_path(statement.stack, statement.digest)


def signed(statement: ReleaseStatement, *signers: str) -> bytes:
    return statement.signed(*(channel_signer(name) for name in signers or ("channel", "channel-1")))


def stating(site: Site) -> Hostile:
    """One that asks for statements, of two of three keys; one of its releases is stated and on a channel."""
    repository = site.repository()
    repository.put_root(replace(guarded(repository, version=1), statements=True))
    repository.add_channel(site.pointer(repository, OLD), "channel", "channel-1")
    repository.put(place_of(said(site, OLD)), signed(said(site, OLD)))
    repository.publish()
    return repository


def no_statement(_site: Site, _repository: Hostile) -> str:
    return "has no statement"


def of_another_release(site: Site, repository: Hostile) -> str:
    repository.put(place_of(said(site, NEW)), signed(said(site, OLD)))
    return "is the statement of julia.example.org: jets@sha256:.* put in its place"


def of_another_stack(site: Site, repository: Hostile) -> str:
    repository.put(place_of(said(site, NEW)), signed(replace(said(site, NEW), stack=StackName("trees"))))
    return "is the statement of julia.example.org: trees@sha256:.* put in its place"


def of_another_repository(site: Site, repository: Hostile) -> str:
    repository.put(place_of(said(site, NEW)), signed(replace(said(site, NEW), fqrn=Fqrn("other.example.org"))))
    return "is the statement of other.example.org: jets@sha256:.* put in its place"


def by_a_stranger(site: Site, repository: Hostile) -> str:
    repository.put(place_of(said(site, NEW)), signed(said(site, NEW), "attacker", "another"))
    return "0 good signatures of the 3 keys that count, it needs 2"


def by_a_key_that_was_taken_away(site: Site, repository: Hostile) -> str:
    repository.put(place_of(said(site, NEW)), signed(said(site, NEW), "channel", "removed"))
    return "1 good signature of the 3 keys that count, it needs 2"


def by_one_of_two(site: Site, repository: Hostile) -> str:
    repository.put(place_of(said(site, NEW)), signed(said(site, NEW), "channel"))
    return "1 good signature of the 3 keys that count, it needs 2"


def by_one_twice(site: Site, repository: Hostile) -> str:
    once = Envelope.from_bytes(signed(said(site, NEW), "channel"), where="it")
    again = replace(once.signatures[0], keyid="another")
    repository.put(place_of(said(site, NEW)), replace(once, signatures=(*once.signatures, again)).to_bytes())
    return "1 good signature of the 3 keys that count, it needs 2"


def signatures_of_another(site: Site, repository: Hostile) -> str:
    good = Envelope.from_bytes(signed(said(site, OLD)), where="it")
    repository.put(place_of(said(site, NEW)), replace(good, payload=said(site, NEW).to_bytes()).to_bytes())
    return "0 good signatures of the 3 keys that count, it needs 2"


def a_pointer(site: Site, repository: Hostile) -> str:
    pointer = site.pointer(repository, NEW)
    signers = [channel_signer(name) for name in ("channel", "channel-1")]
    repository.put(place_of(said(site, NEW)), pointer.signed(*signers))
    return "is signed as 'application/vnd.headstart.channel.json', not as 'application/vnd.in-toto.json'"


def a_pointer_under_a_statement_s_type(site: Site, repository: Hostile) -> str:
    signers = [channel_signer(name) for name in ("channel", "channel-1")]
    good = Envelope.from_bytes(site.pointer(repository, NEW).signed(*signers), where="it")
    repository.put(place_of(said(site, NEW)), replace(good, payload_type=STATEMENT_TYPE).to_bytes())
    return "0 good signatures of the 3 keys that count, it needs 2"


def something_else_of_in_toto_s(site: Site, repository: Hostile) -> str:
    payload = said(site, NEW).to_bytes().replace(b"slsa.dev/provenance", b"example.org/vulnerabilities")
    signers = [channel_signer(name) for name in ("channel", "channel-1")]
    made = sign(payload, payload_type=STATEMENT_TYPE, signers=signers)
    repository.put(place_of(said(site, NEW)), made.to_bytes())
    return "predicateType is not https://slsa.dev/provenance/v1"


def truncated(site: Site, repository: Hostile) -> str:
    repository.put(place_of(said(site, NEW)), signed(said(site, NEW))[:-100])
    return "is not JSON"


def huge(site: Site, repository: Hostile) -> str:
    data = signed(said(site, NEW))
    repository.put(place_of(said(site, NEW)), data[:-1] + b" " * STATEMENT_LIMIT + b"\n")
    return "has [0-9]+ bytes, more than"


def deeply_nested(site: Site, repository: Hostile) -> str:
    repository.put(place_of(said(site, NEW)), b'{"payload":' + b"[" * 200_000)
    return "is not JSON"


def deeply_nested_inside(site: Site, repository: Hostile) -> str:
    good = Envelope.from_bytes(signed(said(site, NEW)), where="it")
    repository.put(place_of(said(site, NEW)), replace(good, payload=b'{"_type":' + b"[" * 200_000).to_bytes())
    return "0 good signatures"


def no_keys_at_all(_site: Site, repository: Hostile) -> str:
    del repository.tree[ROOT_PATH.encode()]
    return "has no /channels/root.json, so nothing says who signs its channels and releases"


def keys_of_his_own(site: Site, repository: Hostile) -> str:
    repository.put_root(replace(repository.root("attacker", version=2), statements=True), "attacker")
    repository.put(place_of(said(site, NEW)), signed(said(site, NEW), "attacker"))
    return "root.json has 0 good signatures"


def keys_that_have_expired(site: Site, repository: Hostile) -> str:
    old = replace(guarded(repository, version=1), issued=NOW - 9 * DAY, expires=NOW - DAY, statements=True)
    repository.put_root(replace(old, restarted=NOW - 10 * DAY))
    repository.put(place_of(said(site, NEW)), signed(said(site, NEW)))
    return "root.json expired on 2026-11-21"


def keys_from_the_future(site: Site, repository: Hostile) -> str:
    repository.put_root(replace(guarded(repository, version=1), issued=NOW + DAY, statements=True))
    repository.put(place_of(said(site, NEW)), signed(said(site, NEW)))
    return "this machine's clock says 2026-11-22"


@pytest.mark.parametrize(
    "attack",
    [
        no_statement,
        of_another_release,
        of_another_stack,
        of_another_repository,
        by_a_stranger,
        by_a_key_that_was_taken_away,
        by_one_of_two,
        by_one_twice,
        signatures_of_another,
        a_pointer,
        a_pointer_under_a_statement_s_type,
        something_else_of_in_toto_s,
        truncated,
        huge,
        deeply_nested,
        deeply_nested_inside,
        no_keys_at_all,
        keys_of_his_own,
        keys_that_have_expired,
        keys_from_the_future,
    ],
)
def test_a_release_that_a_thief_of_the_repository_key_put_in(
    site: Site, attack: Callable[[Site, Hostile], str]
) -> None:
    """He takes the channel away, so that the stack alone, an id or a few digits may mean his."""
    repository = stating(site)
    assert site.started(repository, reference=f"jets@{OLD}", node="another") == OLD
    site.add(repository, NEW)
    says = attack(site, repository)
    for path in [path for path in repository.tree if path == PROD.encode() or b"/" + str(OLD).encode() in path]:
        del repository.tree[path]
    repository.publish()
    digest = said(site, NEW).digest
    for reference in (f"jets@{NEW}", f"jets@{digest.hex[:8]}", f"jets@sha256:{digest.hex[:31]}", "jets"):
        with pytest.raises((TrustError, CorruptError), match=says) as refusal:
            site.start(repository, reference=reference)
        assert refusal.value.exit_code in (17, 18)
    assert not list((site.root / "node/cache").rglob("sys.so"))
    # Who has the digest has the bytes, and his owner's keys need not speak for them.
    assert site.started(repository, reference=f"jets@{digest.hex[:32]}") == NEW


def test_a_release_is_believed_when_enough_keys_have_stated_it(site: Site) -> None:
    repository = stating(site)
    site.add(repository, NEW)
    repository.put(place_of(said(site, NEW)), signed(said(site, NEW), "channel-1", "channel-2"))
    repository.publish()
    digest = said(site, NEW).digest
    for reference in (f"jets@{NEW}", f"jets@{digest.hex[:8]}"):
        assert site.started(repository, reference=reference) == NEW
    # The channel needs no statement.
    del repository.tree[place_of(said(site, OLD)).encode()]
    repository.publish()
    assert site.started(repository) == OLD


def test_only_who_needs_a_statement_reads_it(site: Site) -> None:
    repository = stating(site)
    digest = said(site, OLD).digest
    files = {path: name for name, path in object_paths(repository)}
    keys, statement = files[ROOT_PATH], files[place_of(said(site, OLD))]
    for reference, wanted in (
        (f"jets@{digest.hex[:32]}", set()),
        ("jets@prod", {keys}),
        (f"jets@{OLD}", {keys, statement}),
    ):
        repository.requests.clear()
        assert site.started(repository, reference=reference, node=reference.replace("@", "-")) == OLD
        assert {path for path, _ in repository.requests} & {keys, statement} == wanted


def test_the_record_of_a_stated_release_cannot_be_changed(site: Site) -> None:
    """Mix-and-match: other bytes under its id, beside its own statement or one that was moved."""
    repository = stating(site)
    other = replace(site.stages[NEW][1], id=OLD)
    repository.put(f"/stacks/jets/{OLD}/release.json", other.to_bytes())
    repository.publish()
    site.refused(TrustError, "has no statement", repository, reference=f"jets@{OLD}")
    repository.put(statement_path(StackName("jets"), Sha256.of(other.to_bytes())), signed(said(site, OLD)))
    repository.publish()
    site.refused(TrustError, "put in its place", repository, reference=f"jets@{OLD}")


def test_an_old_statement_of_keys_does_not_take_the_need_for_statements_away(site: Site) -> None:
    """On a node that has seen the present one, by whichever way of naming a release."""
    repository = stating(site)
    before = repository.root(version=1)
    repository.put_root(replace(guarded(repository), statements=True))
    repository.publish()
    assert site.started(repository, reference=f"jets@{OLD}") == OLD
    site.add(repository, NEW)
    repository.put_root(before)
    repository.publish()
    site.refused(
        TrustError,
        r"root\.json has version 1, this node has already seen 2",
        repository,
        reference=f"jets@{NEW}",
    )


def test_a_start_by_statement_ends_with_the_keys(site: Site) -> None:
    repository = stating(site)
    repository.put_root(replace(guarded(repository, version=1), expires=NOW + 3 * DAY, statements=True))
    repository.publish()
    ready = site.start(repository, reference=f"jets@{OLD}", now=NOW + 2 * DAY)
    assert ready.resolved.expires == NOW + 3 * DAY
    site.refused(
        TrustError, r"root\.json expired on 2026-11-25", repository, reference=f"jets@{OLD}", now=NOW + 3 * DAY
    )
