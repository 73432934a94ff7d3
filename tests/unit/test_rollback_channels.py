"""What a rollback does to channels: nodes that have seen a version must never be given a lower one."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import publishing
import simulator
from crashing import quick_disk
from headstart.channel import WITHDRAWN_PATH, Pointer, Withdrawn
from headstart.cvmfs.objects import Revision
from headstart.cvmfs.past import ByRevision
from headstart.cvmfs.signing import Ed25519Signer
from headstart.errors import CorruptError, KeyFileError, TrustError, UnknownError
from headstart.inspect import survey, verify
from headstart.keys import RepositoryKeys
from headstart.names import ChannelName, ReleaseId, StackName
from headstart.release import Release
from headstart.repository import Channel, ChannelAction, RollbackPlan, Wanted, publish, publish_tree, roll_back
from headstart.repository.channels import channels_of
from headstart.source import Anchors, Opened, open_source, parse
from headstart.stage import open_stage
from publishing import NOW, Place, content_of, new_repository, write_stage

__all__ = ["quick_disk"]
HOUR = timedelta(hours=1)
STACK = StackName("jets")
IDS = ("0123456789abcdef", "fedcba9876543210")


@dataclass(slots=True)
class Site:
    place: Place
    stages: tuple[Path, Path]
    key: Path
    now: datetime = NOW

    def publish(self, which: int, channel: str) -> None:
        self.now += HOUR
        made = Channel(name=ChannelName(channel))
        publish(self.place.target, open_stage(str(self.stages[which])), made, self.now)

    def roll_back(self, revision: int) -> RollbackPlan:
        self.now += HOUR
        return roll_back(self.place.target, ByRevision(Revision(revision)), self.now)[0]

    def opened(self) -> Opened:
        return open_source(parse(str(self.place.root)), Anchors(keys=(str(self.key),)), now=self.now)

    def pointers(self) -> dict[str, Pointer]:
        found: dict[str, Pointer] = {}
        for stack in survey(self.opened(), now=self.now):
            for channel in stack.channels:
                assert isinstance(channel.pointer, Pointer)
                found[str(channel.name)] = channel.pointer
        return found

    def sound(self) -> None:
        opened = self.opened()
        # No stage of these tests has a Julia that verify would accept as whole; channels are what matters here.
        complaints = verify(opened, now=self.now, deep=False).complaints
        assert [item for item in complaints if item.path.startswith("/channels")] == []
        content_of(self.place.open(self.now))


@pytest.fixture
def site(quick_disk: Path) -> Site:
    """Revision 2: prod is the first release. Revision 3: prod is the second one. Revision 4: next is it too."""
    write_stage(quick_disk / "one")

    def other(release: Release) -> Release:
        return replace(release, id=ReleaseId(IDS[1]))

    write_stage(quick_disk / "two", other)
    made = Site(
        place=new_repository(quick_disk / "storage"),
        stages=(quick_disk / "one", quick_disk / "two"),
        key=publishing.copy_keys(quick_disk / "keys") / f"{publishing.FQRN}.pub",
    )
    made.publish(0, "prod")
    made.publish(1, "prod")
    made.publish(1, "next")
    return made


def test_a_channel_goes_back_under_a_higher_version(site: Site) -> None:
    assert {name: (str(it.release), it.version) for name, it in site.pointers().items()} == {
        "prod": (IDS[1], 2),
        "next": (IDS[1], 1),
    }
    plan = site.roll_back(2)
    assert {str(step.pointer.channel): step.action for step in plan.channels} == {
        "prod": ChannelAction.SIGN,
        "next": ChannelAction.WITHDRAW,
    }
    pointer = site.pointers()["prod"]
    assert (str(pointer.release), pointer.version) == (IDS[0], 3)
    assert pointer.issued == site.now.replace(microsecond=0)
    assert set(site.pointers()) == {"prod"}
    site.sound()
    tree = site.opened().tree
    assert tree.names("/stacks/jets") == [IDS[0]]


def test_a_withdrawn_channel_comes_again_above_its_version(site: Site) -> None:
    site.publish(0, "next")
    assert site.pointers()["next"].version == 2
    site.roll_back(3)
    assert "next" not in site.pointers() or site.pointers()["next"].version >= 2
    site.roll_back(2)
    site.publish(1, "next")
    assert site.pointers()["next"].version == 3
    site.sound()


def test_the_note_of_withdrawn_versions_outlives_more_rollbacks(site: Site) -> None:
    site.roll_back(2)  # revision 5: next is withdrawn at version 1
    site.publish(1, "prod")  # revision 6
    site.roll_back(3)  # a state from before the note
    state = channels_of(site.place.open(site.now))
    assert state.withdrawn.versions == {"jets/next": 1}
    assert state.last_version(STACK, ChannelName("next")) == 1
    site.sound()


def test_a_channel_that_points_where_it_pointed_keeps_its_pointer(site: Site) -> None:
    before = site.pointers()["prod"]
    plan = site.roll_back(3)
    assert {str(step.pointer.channel): step.action for step in plan.channels} == {
        "prod": ChannelAction.KEEP,
        "next": ChannelAction.KEEP,  # made later, and its release is there then
    }
    assert site.pointers()["prod"] == before
    assert set(site.pointers()) == {"prod", "next"}
    site.sound()


def test_forth_and_back_and_forth(site: Site) -> None:
    versions = []
    for revision in (2, 3, 2, 4, 5):
        site.roll_back(revision)
        versions.append(site.pointers()["prod"].version)
        site.sound()
    assert versions == [3, 4, 5, 6, 7]


def test_a_channel_key_of_somebody_else_stops_a_rollback_that_needs_it(site: Site) -> None:
    keys = publishing.keys()
    other: Ed25519Signer = simulator.channel_signer("thief")
    strange = RepositoryKeys(
        fqrn=keys.fqrn,
        masters=keys.masters,
        repository=keys.repository,
        certificate=keys.certificate,
        certificate_pem=keys.certificate_pem,
        channels=(other,),
    )
    with pytest.raises(KeyFileError, match="channel key"):
        roll_back((site.place.store, strange), ByRevision(Revision(2)), site.now)
    # Where nothing is to be signed, none is needed.
    roll_back((site.place.store, strange), ByRevision(Revision(3)), site.now)
    site.sound()


def test_the_statement_of_keys_never_goes_back(site: Site) -> None:
    before = site.place.open(site.now).forest.lookup(b"/channels/root.json")
    site.roll_back(1)
    assert site.place.open(site.now).forest.lookup(b"/channels/root.json") == before
    assert site.pointers() == {}
    assert set(channels_of(site.place.open(site.now)).withdrawn.versions) == {"jets/prod", "jets/next"}


def test_a_forged_pointer_stops_a_rollback(site: Site, quick_disk: Path) -> None:
    """The storage's key holder put it there; nothing that the channel key did not sign is signed anew."""
    forged = quick_disk / "forged"
    forged.mkdir()
    prod = site.pointers()["prod"]
    (forged / "prod.json").write_bytes(prod.signed(simulator.channel_signer("thief")))
    publish_tree(site.place.target, Wanted(directory=str(forged), at=b"/channels/jets"), site.now)
    with pytest.raises(TrustError):
        roll_back(site.place.target, ByRevision(Revision(2)), site.now)


@pytest.mark.parametrize("text", [b"", b"{}", b'{"schema":1,"versions":{"jets/prod":-1}}', b'{"schema":1}'])
def test_a_damaged_note_is_refused(text: bytes) -> None:
    with pytest.raises(CorruptError):
        Withdrawn.from_bytes(text)


def test_the_note_is_no_channel(site: Site) -> None:
    site.roll_back(2)
    assert site.opened().tree.read(WITHDRAWN_PATH, limit=1000)
    assert channels_of(site.place.open(site.now)).names() == ((STACK, ChannelName("prod")),)
    with pytest.raises(UnknownError):
        site.place.open(site.now).past(ByRevision(Revision(99)))
