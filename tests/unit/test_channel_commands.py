"""``headstart promote``, ``rollback``, ``history`` and ``channel``: as they are typed, and over months."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.signer._key import SSlibKey

import publishing
import releases
import simulator
from crashing import quick_disk
from headstart.bundle import Bundle
from headstart.channel import ROOT_PATH, Pointer, pointer_path, read_root
from headstart.cli import main
from headstart.cvmfs.objects import Revision
from headstart.cvmfs.past import ByRevision, ByTag
from headstart.cvmfs.renewal import Terms as WhitelistTerms
from headstart.errors import (
    ConfigurationError,
    CorruptError,
    Error,
    KeyFileError,
    StorageError,
    TrustError,
    UnknownError,
)
from headstart.names import ChannelName, ReleaseId, StackName
from headstart.reference import DigestPrefix, Reference
from headstart.repository import Channel, Repository, adding, change_tags, publish, removing, roll_back
from headstart.repository.channelkeys import KeyChange, bundle_keys, plan_keys
from headstart.repository.channels import channels_of, history_of
from headstart.repository.gc import Keep, collect
from headstart.repository.pointing import (
    Pointing,
    Terms,
    bundle_of,
    plan_promotion,
    plan_renewal,
    plan_return,
)
from headstart.repository.retire import retire
from headstart.repository.statements import prove, publish_statements
from headstart.repository.whitelists import renew_whitelist
from headstart.stage import open_stage
from publishing import FQRN, NOW, Place, new_repository, write_stage

__all__ = ["quick_disk"]
DAY = timedelta(days=1)
IDS = ("0123456789abcdef", "fedcba9876543210")
MANY = [
    word for number in range(16) for word in ("--add", simulator.channel_signer(f"{number}").public.raw.hex())
]
JETS, PROD, TESTING = StackName("jets"), ChannelName("prod"), ChannelName("testing")


@dataclass(slots=True)
class Desk:
    """Two releases: ``prod`` is the first, ``testing`` the second and was the first before."""

    root: Path
    place: Place
    capture: pytest.CaptureFixture[str]

    def run(self, *words: str, keys: str = "keys") -> int:
        where = ["--storage", str(self.root / "storage"), "--keys", str(self.root / keys)]
        return main([*words, *where])

    def said(self) -> Any:
        return json.loads(self.capture.readouterr().out)

    def error(self) -> str:
        return self.capture.readouterr().err.rstrip("\n").split("\n")[-1]

    def pointers(self) -> dict[str, tuple[str, int]]:
        state = channels_of(self.place.open(publishing.later()))
        found = {str(name): state.pointer(stack, name) for stack, name in state.names()}
        return {name: (str(it.release), it.version) for name, it in found.items() if it is not None}

    def apply(self, make: Callable[[Repository], Sequence[Pointing]], now: datetime) -> None:
        publish_statements(self.place.target, lambda repository: bundle_of(repository, make(repository)), now)


def make(root: Path, now: datetime) -> Path:
    publishing.copy_keys(root / "keys")
    place = new_repository(root / "storage", now=now)
    for number, release_id in enumerate(IDS):
        base = replace(releases.release(fqrn=str(FQRN)), id=ReleaseId(release_id))
        write_stage(root / f"stage{number}", lambda _, base=base: base)  # type: ignore[misc]  # bound by a default
        for name in ("testing",) if number else ("prod", "testing"):
            channel = Channel(name=ChannelName(name))
            publish(place.target, open_stage(str(root / f"stage{number}")), channel, now)
    return root


@pytest.fixture(scope="module")
def present(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("present"), publishing.later() - timedelta(minutes=1))


@pytest.fixture(scope="module")
def then(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("then"), NOW)


def copy(template: Path, root: Path, capture: pytest.CaptureFixture[str]) -> Desk:
    shutil.copytree(template, root, dirs_exist_ok=True)
    return Desk(root, Place(root / "storage"), capture)


@pytest.fixture
def desk(present: Path, quick_disk: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return copy(present, quick_disk, capsys)


@pytest.fixture
def past(then: Path, quick_disk: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """The same at the time of the other tests."""
    return copy(then, quick_disk, capsys)


# -- promote and rollback -----------------------------------------------------------------------------------


def test_a_release_goes_from_channel_to_channel_and_back(desk: Desk) -> None:
    assert desk.pointers() == {"prod": (IDS[0], 1), "testing": (IDS[1], 2)}
    assert desk.run("promote", "jets@testing", "prod", "--dry-run", "--json") == 0
    planned = desk.said()
    assert (planned["dry_run"], planned["channels"][0]["pointer"]["version"]) == (True, 2)
    assert desk.pointers()["prod"] == (IDS[0], 1)
    assert desk.run("promote", "jets@testing", "prod") == 0
    assert desk.pointers() == {"prod": (IDS[1], 2), "testing": (IDS[1], 2)}
    assert desk.capture.readouterr().out.startswith("jets@sha256:")
    # Again it changes nothing, and signs anew when it is told to.
    assert desk.run("promote", "jets@testing", "prod") == 0
    assert desk.pointers()["prod"] == (IDS[1], 2)
    assert desk.run("promote", "jets@prod", "prod", "--renew") == 0
    assert desk.pointers()["prod"] == (IDS[1], 3)
    assert desk.run("rollback", "jets@prod") == 0
    assert desk.pointers()["prod"] == (IDS[0], 4)
    capture = desk.capture.readouterr()
    assert f"points at {IDS[0]} instead of {IDS[1]}, version 4" in capture.err
    digest = json.loads(_listed(desk))["stacks"][0]["releases"][1]["digest"]
    for to, version in ((IDS[1], 5), (IDS[0], 6), (digest[:8], 7), (f"sha256:{digest}", 7)):
        assert desk.run("rollback", "jets@prod", "--to", to) == 0
        assert desk.pointers()["prod"][1] == version
    assert desk.run("promote", f"jets@{IDS[0]}", "nightly") == 0
    assert desk.pointers()["nightly"] == (IDS[0], 1)


def _listed(desk: Desk) -> str:
    desk.capture.readouterr()
    key = str(desk.root / "keys" / f"{FQRN}.pub")
    assert main(["list", str(desk.root / "storage"), "--key", key, "--json"]) == 0
    return desk.capture.readouterr().out


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["promote", "jets", "prod"], ConfigurationError, "does not say which release"),
        (["promote", "jets@testing", "PROD"], ConfigurationError, "name of a channel"),
        (["promote", "jets@nightly", "prod"], UnknownError, "no channel nightly; channels of jets: prod, test"),
        (["promote", "trees@prod", "prod"], UnknownError, "no stack trees"),
        (["promote", "jets@sha256:" + "0" * 64, "prod"], UnknownError, "no release sha256:000"),
        (["promote", "jets@testing", "prod", "--expires-days", "0"], ConfigurationError, "--expires-days 0"),
        (["rollback", "jets"], ConfigurationError, "names no channel"),
        (["rollback", f"jets@{IDS[0]}"], ConfigurationError, "names no channel"),
        (["rollback", "jets@nightly"], UnknownError, "no channel nightly"),
        (["rollback", "jets@prod"], UnknownError, "never pointed at another release"),
        (["rollback", "jets@prod", "--to", "testing"], ConfigurationError, "is no digest"),
        (["rollback", "jets@prod", "--to", "00000000"], UnknownError, "no release 00000000"),
        (["channel", "keys", "--remove", "00000000"], UnknownError, "none of the channel keys"),
        (["channel", "keys", "--remove", "00"], ConfigurationError, "fewer than 8 digits"),
        (["channel", "keys", "--add", "xyz"], KeyFileError, "no public channel key"),
        (["channel", "keys", "--threshold", "2"], ConfigurationError, "no pointer can have 2 signatures"),
        (["channel", "keys", "--days", "0"], ConfigurationError, "--days 0"),
        (["channel", "keys", *MANY], ConfigurationError, "17 channel keys, more than 16; --remove some"),
        (["channel", "keys", "--request", "file"], ConfigurationError, "nothing is to be changed"),
        (["channel", "apply", "/no/such/file"], Error, "there is no file to sign /no/such/file"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence_and_changes_nothing(
    desk: Desk, words: list[str], error: type[Error], says: str
) -> None:
    before = {path: path.read_bytes() for path in desk.place.root.rglob("*") if path.is_file()}
    code = desk.run(*words)
    assert code == error.exit_code or error is Error
    assert code != 0
    assert says in desk.error()
    assert {path: path.read_bytes() for path in desk.place.root.rglob("*") if path.is_file()} == before


def test_a_key_that_the_repository_does_not_name_moves_nothing(desk: Desk) -> None:
    for path in (desk.root / "keys").glob("*.channelkey"):
        path.unlink()
    assert main(["channel", "new-key", str(FQRN), "mallory", "--keys", str(desk.root / "keys")]) == 0
    assert desk.run("promote", "jets@testing", "prod") == KeyFileError.exit_code
    assert "no channel key in the key directory is one that" in desk.error()
    assert desk.run("rollback", "jets@prod", "--to", IDS[1]) == KeyFileError.exit_code
    assert desk.pointers()["prod"] == (IDS[0], 1)


def test_history_says_when_what_and_by_whom(desk: Desk) -> None:
    assert desk.run("promote", "jets@testing", "prod", "--expires-days", "3") == 0
    assert desk.run("rollback", "jets@prod") == 0
    desk.capture.readouterr()
    key = str(desk.root / "keys" / f"{FQRN}.pub")
    assert main(["history", str(desk.place.root), "jets@prod", "--key", key, "--json"]) == 0
    (channel,) = desk.said()["channels"]
    (signer,) = publishing.keys().channels
    assert [(it["version"], it["release"], it["present"]) for it in channel["history"]] == [
        (3, IDS[0], True),
        (2, IDS[1], False),
        (1, IDS[0], False),
    ]
    assert {tuple(it["keys"]) for it in channel["history"]} == {(signer.keyid,)}
    assert main(["history", str(desk.place.root), "jets", "--key", key]) == 0
    text = desk.capture.readouterr().out
    assert "jets@prod" in text
    assert "jets@testing" in text
    assert text.count(f"signed by {signer.keyid[:12]}") == 5
    for words, error in (
        (["jets@nightly"], UnknownError),
        (["trees"], UnknownError),
        (["jets@01234567"], ConfigurationError),
    ):
        assert main(["history", str(desk.place.root), *words, "--key", key]) == error.exit_code


def test_a_rollback_of_the_repository_keeps_the_history(past: Desk) -> None:
    past.apply(
        lambda repository: [plan_promotion(repository, Reference.parse("jets@testing"), PROD, Terms(), NOW)],
        NOW,
    )
    roll_back(past.place.target, ByRevision(Revision(2)), NOW + DAY)
    state = channels_of(past.place.open(NOW + DAY))
    assert [(str(it.release), it.version) for it in history_of(state, JETS, PROD)] == [
        (IDS[0], 1),
        (IDS[1], 2),
        (IDS[0], 3),
    ]


# -- renewal --------------------------------------------------------------------------------------------------


def test_channels_are_renewed_when_half_of_their_time_is_over(past: Desk) -> None:
    for days, versions in ((14, [1, 2]), (16, [2, 3]), (20, [2, 3])):
        now = NOW + days * DAY
        steps = plan_renewal(past.place.open(now), Terms(), now)
        assert [step.pointer.version for step in steps] == versions
        assert [str(step.pointer.release) for step in steps] == [IDS[0], IDS[1]]
        past.apply(lambda repository, now=now: plan_renewal(repository, Terms(), now), now)  # type: ignore[misc]  # bound by a default


def test_words_that_are_said_twice_count_once(desk: Desk) -> None:
    public = simulator.channel_signer("next").public
    assert desk.run("channel", "keys", *["--add", public.raw.hex()] * 2, "--json") == 0
    assert len(desk.said()["keys"]) == 2
    assert desk.run("channel", "keys", "--remove", public.keyid, "--remove", public.keyid[:9], "--json") == 0
    assert len(desk.said()["keys"]) == 1


def test_a_file_in_place_of_a_directory_for_keys(desk: Desk) -> None:
    (desk.root / "file").touch()
    words = ["channel", "new-key", str(FQRN), "alice", "--keys", str(desk.root / "file")]
    assert main(words) == KeyFileError.exit_code
    assert "file is no directory; name one" in desk.error()


def test_renewal_without_a_channel_says_so(quick_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publishing.copy_keys(quick_disk / "keys")
    new_repository(quick_disk / "storage", now=publishing.later() - timedelta(minutes=1))
    desk = Desk(quick_disk, Place(quick_disk / "storage"), capsys)
    assert desk.run("channel", "renew") == 0
    assert f"{FQRN} has no channels" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["promote", "jets@testing", "prod"], ["channel", "keys", "--days", "30"]])
def test_a_request_that_cannot_be_written_is_all_that_is_said(desk: Desk, words: list[str]) -> None:
    assert desk.run(*words, "--request", str(desk.root / "none/request")) == StorageError.exit_code
    (line,) = desk.capture.readouterr().err.splitlines()
    assert line.startswith("headstart: cannot write ")


def test_renewal_as_a_command(desk: Desk) -> None:
    assert desk.run("channel", "renew") == 0
    assert desk.pointers() == {"prod": (IDS[0], 1), "testing": (IDS[1], 2)}
    assert desk.run("channel", "renew", "--all") == 0
    assert desk.pointers() == {"prod": (IDS[0], 2), "testing": (IDS[1], 3)}


# -- keys -----------------------------------------------------------------------------------------------------


def new_key(desk: Desk, name: str, directory: str) -> str:
    desk.capture.readouterr()
    assert main(["channel", "new-key", str(FQRN), name, "--keys", str(desk.root / directory)]) == 0
    return desk.capture.readouterr().out.strip()


def test_two_people_sign_what_neither_may_alone(desk: Desk) -> None:
    public = new_key(desk, "bob", "bob")
    file = str(desk.root / "request")
    # Raising the threshold takes Bob's signatures at once, so it is carried to him too.
    assert desk.run("channel", "keys", "--add", public, "--threshold", "2") == KeyFileError.exit_code
    assert desk.run("channel", "keys", "--add", public, "--threshold", "2", "--request", file) == 0
    assert desk.run("channel", "apply", file) == TrustError.exit_code
    for who in ("bob", "keys"):
        assert main(["channel", "sign", file, "--keys", str(desk.root / who)]) == 0
    assert desk.run("channel", "apply", file, "--dry-run") == 0
    assert desk.run("channel", "apply", file) == 0
    assert desk.pointers() == {"prod": (IDS[0], 2), "testing": (IDS[1], 3)}
    # From now on one alone moves nothing.
    for words in (["promote", "jets@testing", "prod"], ["channel", "renew", "--all"]):
        assert desk.run(*words) == KeyFileError.exit_code
        assert "need 2 signatures, and the key directory has 1 of the 2 keys" in desk.error()
    assert desk.run("promote", "jets@testing", "prod", "--request", file) == 0
    assert desk.run("channel", "apply", file) == TrustError.exit_code
    assert "1 good signature of the 2 keys" in desk.error()
    assert main(["channel", "sign", file, "--keys", str(desk.root / "bob"), "--json"]) == 0
    assert desk.run("channel", "apply", file) == 0
    assert desk.pointers()["prod"] == (IDS[1], 3)
    # Taken twice it changes nothing; after another change it is refused.
    assert desk.run("channel", "apply", file) == 0
    assert desk.run("promote", f"jets@{IDS[0]}", "prod", "--request", str(desk.root / "other")) == 0
    assert desk.run("promote", f"jets@{IDS[0]}", "prod", "--expires-days", "9", "--request", file) == 0
    for each in ("other", "request"):
        assert main(["channel", "sign", str(desk.root / each), "--keys", str(desk.root / "bob")]) == 0
    assert desk.run("channel", "apply", file) == 0
    assert desk.run("channel", "apply", str(desk.root / "other")) == TrustError.exit_code
    assert "only 5 can follow" in desk.error()


def test_what_is_published_is_verified_by_securesystemslib(desk: Desk) -> None:
    public = new_key(desk, "bob", "keys")
    assert desk.run("channel", "keys", "--add", public, "--threshold", "2") == 0
    repository = desk.place.open(publishing.later())
    data = repository.content(pointer_path(JETS, PROD).encode(), limit=1 << 16)
    assert data is not None
    theirs = TheirEnvelope.from_dict(json.loads(data))
    keys = [
        SSlibKey(keyid, "ed25519", "ed25519", {"public": key.raw.hex()})
        for keyid, key in channels_of(repository).root.keys.items()
    ]
    assert set(theirs.verify(keys, 2)) == {key.keyid for key in keys}  # type: ignore[arg-type]  # a list is invariant


def test_keys_are_rotated_step_by_step(desk: Desk) -> None:
    (old,) = publishing.keys().channels
    public = new_key(desk, "next", "keys")
    assert desk.run("channel", "keys", "--add", public, "--json") == 0
    assert desk.said()["channels"] == []
    # The old one goes: what it alone has signed is signed by the next one in the same step.
    assert desk.run("channel", "keys", "--remove", old.keyid[:8], "--json") == 0
    said = desk.said()
    assert (said["version"], len(said["keys"]), len(said["channels"])) == (3, 1, 2)
    state = channels_of(desk.place.open(publishing.later()))
    assert old.keyid not in state.root.keys
    assert desk.pointers()["prod"] == (IDS[0], 2)
    assert desk.run("channel", "keys", "--remove", said["keys"][0]["id"]) == ConfigurationError.exit_code
    assert desk.run("channel", "keys", "--add", public) == ConfigurationError.exit_code
    assert desk.run("channel", "keys", "--threshold", "2") == ConfigurationError.exit_code
    assert "with 1 key of" in desk.error()
    assert desk.run("channel", "keys") == 0
    assert "1 of 1 key for each channel, version 3" in desk.capture.readouterr().out
    # The old signatures are history, proven by the statement of their time.
    key = str(desk.root / "keys" / f"{FQRN}.pub")
    assert main(["history", str(desk.place.root), "jets@prod", "--key", key, "--json"]) == 0
    assert [(it["version"], it["keys_version"]) for it in desk.said()["channels"][0]["history"]] == [
        (2, 3),
        (1, 2),
    ]


def test_a_new_beginning_after_a_theft(past: Desk) -> None:
    store, keys = past.place.target
    (thief,) = keys.channels
    honest = simulator.channel_signer("honest")
    change = KeyChange(add=(honest.public,), remove=(thief.keyid,), restart=True)
    master = publishing.all_keys().master

    def restart(repository: Repository) -> Bundle:
        plan = plan_keys(repository, change, NOW + DAY)
        assert [step.pointer.version for step in plan.channels] == [1, 1]
        return bundle_keys(repository, plan, [master])

    publish_statements((store, replace(keys, channels=(honest,))), restart, NOW + DAY)
    state = channels_of(past.place.open(NOW + DAY))
    assert (state.root.version, state.root.restarted) == (2, NOW + DAY)
    found = state.pointer(JETS, TESTING)
    assert found is not None
    assert (found.version, str(found.release)) == (1, IDS[1])


def test_the_master_key_is_changed_with_two_signatures(past: Desk) -> None:
    """Nodes that have only the old public key believe the statement, and so do those with only the new one."""
    repository = past.place.open()
    plan = plan_keys(repository, KeyChange(days=365), NOW + DAY)
    bundle = bundle_keys(repository, plan, ()).signed(
        [publishing.all_keys().master, simulator.rsa_signer("next master")], ()
    )
    publish_statements(past.place.target, lambda _: bundle, NOW + DAY)
    data = past.place.open(NOW + DAY).content(ROOT_PATH.encode(), limit=1 << 16)
    assert data is not None
    assert bundle.root is not None
    for masters in (publishing.keys().masters.by_id, {"": simulator.rsa_signer("next master").public}):
        assert read_root(data, master=masters, fqrn=FQRN).version == 2
    with pytest.raises(TrustError):
        read_root(data, master={"": simulator.rsa_signer("third").public}, fqrn=FQRN)


def test_what_a_bundle_must_not_do(past: Desk) -> None:
    repository = past.place.open()
    master = publishing.all_keys().master
    stranger = simulator.channel_signer("stranger")
    later = NOW + DAY
    good = plan_promotion(repository, Reference.parse("jets@testing"), PROD, Terms(), later)
    signed = bundle_of(repository, [good])
    assert signed is not None
    prove(repository, signed, later)

    def refused(pointer: Pointer, error: type[Error], match: str) -> None:
        bundle = bundle_of(repository, [Pointing(pointer=pointer, before=good.before)])
        assert bundle is not None
        with pytest.raises(error, match=match):
            prove(repository, bundle, later)

    refused(replace(good.pointer, version=3), TrustError, "only 2 can follow")
    refused(
        replace(good.pointer, version=1, issued=NOW + timedelta(seconds=1)), TrustError, "only 2 can follow"
    )
    refused(replace(good.pointer, issued=NOW, expires=later), TrustError, "expired on")
    refused(replace(good.pointer, release=ReleaseId("0" * 16)), UnknownError, "no release 0000")
    refused(
        replace(good.pointer, digest=type(good.pointer.digest)("0" * 64)), UnknownError, "the one of that id"
    )
    # Keys that would leave channels behind without anybody who vouches for them.
    plan = plan_keys(
        repository,
        KeyChange(add=(stranger.public,), remove=(repository.keys.channels[0].keyid,)),
        later,
    )
    alone = Bundle(fqrn=FQRN, statements=bundle_keys(repository, plan, [master]).statements[:1])
    with pytest.raises(TrustError, match=r"nobody would believe jets@prod, jets@testing, jets@.*any more"):
        prove(repository, alone, later)
    # The owner's statement can be signed by nobody else.
    plan = plan_keys(repository, KeyChange(add=(stranger.public,)), later)
    with pytest.raises(TrustError, match="0 good signatures"):
        prove(repository, bundle_keys(repository, plan, [simulator.rsa_signer("thief")]), later)
    again = replace(plan.root, version=3)
    with pytest.raises(TrustError, match="only the next one can follow"):
        prove(repository, bundle_keys(repository, replace(plan, root=again), [master]), later)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", *(b'{"schema":1,"fqrn":"julia.example.org","statements":[%s]}' % it for it in (b"", b"{}"))],
)
def test_a_file_that_is_none_to_sign(desk: Desk, data: bytes) -> None:
    file = desk.root / "request"
    file.write_bytes(data)
    assert main(["channel", "sign", str(file), "--keys", str(desk.root / "keys")]) == CorruptError.exit_code
    assert desk.run("channel", "apply", str(file)) == CorruptError.exit_code


def test_returning_takes_the_last_other_release_that_is_there(past: Desk) -> None:
    repository = past.place.open()
    step = plan_return(repository, (JETS, TESTING), None, Terms(), NOW)
    assert (str(step.pointer.release), step.pointer.version) == (IDS[0], 3)
    to = DigestPrefix(hex=IDS[1], only_digest=False)
    assert not plan_return(repository, (JETS, TESTING), to, Terms(), NOW).changes


# -- retirement -----------------------------------------------------------------------------------------------


def retired(desk: Desk, now: datetime, *names: str) -> tuple[str, ...]:
    references = [Reference.parse(f"jets@{name}") for name in names]
    return retire(desk.place.target, references, now)[0].paths


def test_a_release_stays_until_neither_a_channel_nor_a_tag_holds_it(past: Desk) -> None:
    """Nor a pointer that a node could still believe; its objects go with the last state that has it."""
    store, promote = past.place.store, Reference.parse("jets@testing")
    change_tags(past.place.target, adding("keep", None, ""), NOW)
    past.apply(lambda repository: [plan_promotion(repository, promote, PROD, Terms(), NOW)], NOW)
    with pytest.raises(ConfigurationError, match=r"is held by jets@(prod|testing), version 2"):
        retired(past, NOW + DAY, IDS[1])
    with pytest.raises(
        ConfigurationError, match=r"is held by jets@(prod|testing), version 1, until 2026-12-22"
    ):
        retired(past, NOW + DAY, IDS[0])
    renew_whitelist(store, publishing.all_keys().master, WhitelistTerms(), NOW + 20 * DAY)
    late = NOW + 31 * DAY
    with pytest.raises(ConfigurationError, match="is held by"):
        retired(past, late, IDS[0], IDS[1])
    # The Julia stays: the other release runs on it. The release's statement goes.
    (said,) = [path for path in retired(past, late, IDS[0]) if path != f"/stacks/jets/{IDS[0]}"]
    assert said.startswith("/channels/jets/releases/")
    with pytest.raises(UnknownError, match="no release"):
        retired(past, late, IDS[0])
    path = f"/stacks/jets/{IDS[0]}/release.json".encode()
    past.apply(lambda repository: plan_renewal(repository, Terms(), late), late)
    collect(past.place.target, Keep(), late)
    repository = past.place.open(late)
    assert repository.content(path, limit=1 << 20) is None
    assert repository.content(said.encode(), limit=1 << 20) is None
    assert repository.content_in(repository.past(ByTag("keep"))[1], path, limit=1 << 20) is not None
    change_tags(past.place.target, removing(["keep"]), late)
    assert collect(past.place.target, Keep(), late).objects > 0
    publishing.content_of(past.place.open(late))


def test_retirement_as_a_command(desk: Desk) -> None:
    assert desk.run("repo", "retire", f"jets@{IDS[0]}") == ConfigurationError.exit_code
    assert "is held by jets@prod" in desk.error()
    assert desk.run("repo", "retire", "jets@prod") == ConfigurationError.exit_code
    assert desk.run("repo", "retire", "jets@00000000") == UnknownError.exit_code
