"""From what a user types to a verified release, through a snapshot and through a mount alike."""

from dataclasses import replace
from pathlib import Path

import pytest

from headstart.channel import ROOT_PATH, pointer_path, read_root
from headstart.cvmfs.entry import Directory, File
from headstart.cvmfs.objects import Kind, ObjectName, inflate
from headstart.cvmfs.trust import MasterKeys
from headstart.errors import CorruptError, TrustError, UnknownError
from headstart.names import ChannelName, Fqrn, ReleaseId, Sha256, StackName
from headstart.published import (
    MountedTree,
    PublishedTree,
    SnapshotTree,
    channels,
    pointer,
    release,
    releases,
    resolve,
    stacks,
)
from headstart.reference import DigestPrefix, Reference
from headstart.snapshot import Snapshot
from simulator import DAY, NOW, Simulator, channel_signer, rsa_signer

JETS, PROD = StackName("jets"), ChannelName("prod")
FIRST, SECOND = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def repository() -> Simulator:
    simulator = Simulator()
    simulator.add_root()
    simulator.add_channel(simulator.pointer(simulator.add_release()))
    simulator.add_channel(simulator.pointer(simulator.add_release(release_id=SECOND), "test"))
    return simulator


@pytest.fixture(params=["snapshot", "mount"])
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Reader:
    """Opens a repository either way."""

    def __init__(self, how: str, directory: Path) -> None:
        self.how = how
        self.directory = directory

    def __call__(self, simulator: Simulator) -> PublishedTree:
        if self.how == "snapshot":
            simulator.publish()
            snapshot = Snapshot.open(simulator, keys=simulator.masters, fqrn=simulator.fqrn, now=NOW)
            return SnapshotTree(snapshot)
        for path, entry in simulator.tree.items():
            place = self.directory / path.decode().lstrip("/")
            if isinstance(entry, Directory):
                place.mkdir(parents=True, exist_ok=True)
            elif isinstance(entry, File):
                stored = simulator.files[ObjectName(digest=entry.digest, kind=Kind.FILE).path]
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(inflate(stored, limit=1 << 20, what="it"))
        return MountedTree(fqrn=simulator.fqrn, root=str(self.directory))


@pytest.fixture
def read(how: str, tmp_path: Path) -> Reader:
    return Reader(how, tmp_path)


def resolved(tree: PublishedTree, text: str, *, masters: MasterKeys | None = None, days: float = 0) -> str:
    keys = MasterKeys((rsa_signer("master").public,)) if masters is None else masters
    return str(resolve(tree, Reference.parse(text), keys=keys, now=NOW + days * DAY).release.id)


def test_what_there_is(repository: Simulator, read: Reader) -> None:
    repository.put("/channels/jets/README", b"no channel")
    repository.put("/stacks/jets/notes", b"no release")
    tree = read(repository)
    assert stacks(tree) == (JETS,)
    assert channels(tree, JETS) == (PROD, ChannelName("test"))
    assert releases(tree, JETS) == (ReleaseId(FIRST), ReleaseId(SECOND))
    assert channels(tree, StackName("other")) == ()
    assert releases(tree, StackName("other")) == ()


def test_an_empty_repository(read: Reader) -> None:
    tree = read(Simulator())
    assert stacks(tree) == ()
    with pytest.raises(UnknownError, match=r"no stack jets.*nothing has been published"):
        resolved(tree, "jets")


def test_every_way_to_name_a_release(repository: Simulator, read: Reader) -> None:
    tree = read(repository)
    digest = release(tree, JETS, ReleaseId(SECOND))[1]
    for text in ("jets", "jets@prod", f"jets@{FIRST}"):
        assert resolved(tree, text) == FIRST
    for text in (
        "jets@test",
        f"jets@{SECOND}",
        f"jets@{digest}",
        f"jets@{digest.hex[:8]}",
        f"jets@{digest.hex}",
    ):
        assert resolved(tree, text) == SECOND
    found = resolve(tree, Reference.parse("jets"), keys=repository.masters, now=NOW)
    assert found.pointer is not None
    assert found.digest == found.pointer.digest == Sha256.of(found.release.to_bytes())


def test_a_release_id_written_as_a_digest_is_none(repository: Simulator, read: Reader) -> None:
    with pytest.raises(UnknownError, match=f"no release sha256:{FIRST}"):
        resolved(read(repository), f"jets@sha256:{FIRST}")


def test_what_there_is_not_lists_what_there_is(repository: Simulator, read: Reader) -> None:
    tree = read(repository)
    with pytest.raises(UnknownError, match=r"no channel nightly; channels of jets: prod, test"):
        resolved(tree, "jets@nightly")
    with pytest.raises(UnknownError, match=rf"no release 00000000; releases of jets: {FIRST}, {SECOND}"):
        resolved(tree, "jets@00000000")
    for text in ("trees", "trees@prod", "trees@00000000"):
        with pytest.raises(UnknownError, match=r"no stack trees .*there are: jets"):
            resolved(tree, text)


def test_a_bare_stack_without_prod(read: Reader) -> None:
    simulator = Simulator()
    simulator.add_root()
    simulator.add_release()
    assert resolved(read(simulator), "jets") == FIRST
    simulator.add_release(release_id=SECOND)
    with pytest.raises(UnknownError, match=f"no channel prod and 2 releases: {FIRST}, {SECOND}"):
        resolved(read(simulator), "jets")


def test_digits_that_fit_two_releases(read: Reader) -> None:
    simulator = Simulator()
    simulator.add_root()
    digest = Sha256.of(simulator.add_release().to_bytes()).hex
    for number in range(10_000):
        # Content that gives the second release a digest with the same first digit, found by trying.
        other = simulator.add_release(release_id=SECOND, content=b"%d" % number)
        if Sha256.of(other.to_bytes()).hex[:1] == digest[:1]:
            break
    tree = read(simulator)
    first, second = (release(tree, JETS, ReleaseId(each))[1].hex for each in (FIRST, SECOND))
    assert first[:1] == second[:1]
    with pytest.raises(UnknownError, match=r"fits 2 releases .*more digits"):
        resolve(
            tree,
            Reference(stack=JETS, choice=DigestPrefix(hex=first[:1], only_digest=True)),
            keys=simulator.masters,
            now=NOW,
        )
    assert resolved(tree, f"jets@{first[:8]}") == FIRST


def test_an_id_is_found_before_a_digest(read: Reader) -> None:
    simulator = Simulator()
    simulator.add_root()
    digest = Sha256.of(simulator.add_release().to_bytes()).hex
    simulator.add_release(release_id=digest[:16])
    tree = read(simulator)
    assert resolved(tree, f"jets@{digest[:16]}") == digest[:16]
    assert resolved(tree, f"jets@sha256:{digest[:16]}") == resolved(tree, f"jets@{digest[:17]}") == FIRST


# -- pointers that must not be believed -----------------------------------------------------------------------


def test_pointer_expires_to_the_second(repository: Simulator, read: Reader) -> None:
    tree = read(repository)
    assert resolved(tree, "jets@prod", days=30 - 1 / 86400) == FIRST
    with pytest.raises(TrustError, match=r"prod.json expired on 2026-12-22T20:15:00Z.*digest"):
        resolved(tree, "jets@prod", days=30)
    assert resolved(tree, f"jets@{FIRST}", days=300) == FIRST


def test_pointer_of_another_channel_stack_or_repository(repository: Simulator, read: Reader) -> None:
    good = repository.pointer(repository.add_release())
    for other in (
        replace(good, channel=ChannelName("test")),
        replace(good, stack=StackName("trees")),
        replace(good, fqrn=Fqrn("other.example.org")),
    ):
        repository.put(pointer_path(JETS, PROD), other.signed(channel_signer()))
        with pytest.raises(TrustError, match="put in its place"):
            resolved(read(repository), "jets@prod")


def test_pointer_signed_by_a_stranger(repository: Simulator, read: Reader) -> None:
    repository.add_channel(repository.pointer(repository.add_release()), "stranger")
    with pytest.raises(TrustError, match="0 good signatures of the 1 key that"):
        resolved(read(repository), "jets@prod")


def test_pointer_needs_the_threshold(repository: Simulator, read: Reader) -> None:
    repository.add_root(threshold=2, keys=3)
    with pytest.raises(TrustError, match="1 good signature of the 3 keys that count, it needs 2"):
        resolved(read(repository), "jets@prod")
    repository.add_channel(repository.pointer(repository.add_release()), "channel", "channel")
    with pytest.raises(TrustError, match="1 good signature"):
        resolved(read(repository), "jets@prod")
    repository.add_channel(repository.pointer(repository.add_release()), "channel", "channel-2")
    assert resolved(read(repository), "jets@prod") == FIRST


def test_pointer_to_other_bytes(repository: Simulator, read: Reader) -> None:
    repository.add_release(content=b"another image")
    with pytest.raises(CorruptError, match=r"jets@prod of .* points at sha256:"):
        resolved(read(repository), "jets@prod")


def test_pointer_to_nothing(repository: Simulator, read: Reader) -> None:
    good = repository.pointer(repository.add_release())
    repository.add_channel(replace(good, release=ReleaseId("0" * 16)))
    with pytest.raises(UnknownError, match="no release 0000000000000000"):
        resolved(read(repository), "jets@prod")


@pytest.mark.parametrize("path", [pointer_path(JETS, PROD), ROOT_PATH])
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b"<html>", b"{" * 5000, b"x" * 70_000])
def test_pointer_and_root_that_are_none(repository: Simulator, read: Reader, path: str, content: bytes) -> None:
    repository.put(path, content)
    with pytest.raises(CorruptError, match=path):
        resolved(read(repository), "jets@prod")


def test_root_statement_of_another_master_key(repository: Simulator, read: Reader) -> None:
    repository.add_root(master="mallory")
    with pytest.raises(TrustError, match=r"root.json has 0 good signatures"):
        resolved(read(repository), "jets@prod")


def test_root_statement_missing(repository: Simulator, read: Reader) -> None:
    del repository.tree[ROOT_PATH.encode()]
    with pytest.raises(TrustError, match="nothing says who signs"):
        resolved(read(repository), "jets@prod")


def test_root_statement_of_another_repository(repository: Simulator) -> None:
    statement = replace(repository.root(), fqrn=Fqrn("other.example.org"))
    with pytest.raises(TrustError, match=r"statement of other.example.org"):
        read_root(statement.signed(rsa_signer("master")), master=repository.masters.by_id, fqrn=repository.fqrn)


def test_pointer_in_the_place_of_the_root_statement(repository: Simulator) -> None:
    signed = repository.pointer(repository.add_release()).signed(rsa_signer("master"))
    with pytest.raises(TrustError, match=r"signed as 'application/vnd.headstart.channel"):
        read_root(signed, master=repository.masters.by_id, fqrn=repository.fqrn)


def test_release_of_another_place(repository: Simulator, read: Reader) -> None:
    other = repository.add_release(release_id=SECOND)
    repository.put(f"/stacks/jets/{FIRST}/release.json", other.to_bytes())
    with pytest.raises(CorruptError, match=f"is the record of julia.example.org: jets/{SECOND}"):
        resolved(read(repository), f"jets@{FIRST}")


def test_a_pointer_can_be_asked_for_alone(repository: Simulator, read: Reader) -> None:
    found = pointer(read(repository), JETS, PROD, keys=repository.masters, now=NOW)
    assert (found.release, found.version) == (ReleaseId(FIRST), 1)
