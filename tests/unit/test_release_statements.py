"""Statements of releases: what they say, who believes them, and the commands that make them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import Key, SSlibKey

import publishing
import releases
import simulator
from crashing import quick_disk
from headstart import __version__
from headstart.channel import Root
from headstart.cli import main
from headstart.cvmfs.objects import Revision
from headstart.cvmfs.past import ByRevision
from headstart.dsse import Envelope, sign, verify
from headstart.errors import CorruptError, Error, KeyFileError, TrustError
from headstart.inspect import verify as look
from headstart.names import ReleaseId, Sha256, StackName
from headstart.published import SnapshotTree
from headstart.record import canonical
from headstart.reference import Reference
from headstart.releasestatement import (
    STATEMENT_TYPE,
    ReleaseStatement,
    Stated,
    read_statement,
    statement_path,
)
from headstart.repository import Repository, roll_back
from headstart.repository.channelkeys import KeyChange, bundle_keys, plan_keys
from headstart.repository.channels import channels_of, put_statements
from headstart.repository.pointing import bundle_at_hand, plan_stating
from headstart.repository.releasestatements import statement_of
from headstart.repository.retire import retire
from headstart.repository.state import Settings
from headstart.repository.statements import prove, publish_statements
from headstart.snapshot import Snapshot
from headstart.source import Opened, StorageSource
from publishing import FQRN
from simulator import DAY, channel_signer

__all__ = ["quick_disk"]
JETS = StackName("jets")
LOCK = b"""\
julia_version = "1.10.6"
manifest_format = "2.0"

[[deps.Example]]
git-tree-sha1 = "46e44e869b4d90b96bd8ed1fdcf32244fddfb6cc"
uuid = "7876af07-990d-54b4-ab0e-23690620f79a"
version = "0.5.5"

[[deps.Base64]]
uuid = "2a0f44e3-6c83-55bd-87e4-b1978d98bd5f"
"""
ID = "0123456789abcdef"
OTHER = "fedcba9876543210"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> ReleaseStatement:
    base = replace(releases.release(fqrn=str(FQRN)), inputs={"lock": "1", "options": "-O2"})
    made = releases.write_stage(
        tmp_path_factory.mktemp("stage"), base, image_size=100, extra={"project/Manifest.toml": LOCK}
    )
    return statement_of(made, Sha256.of(made.to_bytes()), LOCK)


def root_of(*names: str, threshold: int = 1) -> Root:
    return replace(simulator.Simulator().root(*names, threshold=threshold), statements=True)


def believed(data: bytes, said: ReleaseStatement, root: Root | None = None) -> Stated:
    return read_statement(data, root=root or root_of(), stack=said.stack, digest=said.digest)


# -- what they say --------------------------------------------------------------------------------------------


def test_a_statement_is_in_toto_s_and_its_predicate_slsa_provenance(said: ReleaseStatement) -> None:
    value = json.loads(said.to_bytes())
    assert (value["_type"], value["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    content = releases.image_content("x86-64-v3", 100)
    assert value["subject"][0] == {"name": "release.json", "digest": {"sha256": said.digest.hex}}
    assert {"name": "images/x86-64-v3/sys.so", "digest": {"sha256": Sha256.of(content).hex}} in value["subject"]
    assert len(value["subject"]) == 3
    definition = value["predicate"]["buildDefinition"]
    parameters = definition["externalParameters"]
    assert (parameters["fqrn"], parameters["stack"], parameters["release"]) == (str(FQRN), "jets", ID)
    assert parameters["images"][1] == {"target": "x86-64-v3", "cpu_target": "generic", "kinds": ["sysimage"]}
    assert parameters["options"] == ["--history-file=no"]
    assert parameters["inputs"]["options"] == "-O2"
    assert {
        "name": "project/Manifest.toml",
        "digest": {"sha256": Sha256.of(LOCK).hex},
    } in definition["resolvedDependencies"]
    # What comes with Julia has no tree of its own.
    assert [each for each in definition["resolvedDependencies"] if "uri" in each] == [
        {
            "uri": "pkg:julia/Example?uuid=7876af07-990d-54b4-ab0e-23690620f79a",
            "digest": {"gitTree": "46e44e869b4d90b96bd8ed1fdcf32244fddfb6cc"},
        }
    ]
    run = value["predicate"]["runDetails"]
    assert run["builder"]["version"] == {"headstart": __version__}
    assert run["metadata"]["finishedOn"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (releases.packaged, ("pkgimages",)),
        (releases.layered, ("sysimage", "pkgimages")),
    ],
)
def test_package_images_are_named_file_by_file(
    tmp_path: Path, change: Callable[..., Any], kinds: object
) -> None:
    base = releases.release(("x86-64",), fqrn=str(FQRN))
    made = releases.write_stage(tmp_path, replace(base, images=(change(base.images[0]),)), image_size=100)
    found = statement_of(made, Sha256.of(made.to_bytes()), b"# nothing\n")
    assert found.targets[0].kinds == kinds
    assert set(found.images) == {path for path in made.files if path.startswith("images/")}
    assert "images/x86-64/compiled/v1.10/Jets/abc.so" in found.images
    assert found.packages == {}


def test_a_lock_must_be_the_one_on_record(tmp_path: Path) -> None:
    made = releases.write_stage(tmp_path, releases.release(fqrn=str(FQRN)), image_size=100)
    with pytest.raises(CorruptError, match="is not the one on record"):
        statement_of(made, Sha256.of(made.to_bytes()), LOCK)


def test_a_release_of_too_many_files_is_not_stated(tmp_path: Path) -> None:
    made = releases.write_stage(tmp_path, releases.release(fqrn=str(FQRN)), image_size=100)
    many = {f"images/x86-64/compiled/{number:0200}.so": releases.record_of(b"") for number in range(9000)}
    with pytest.raises(CorruptError, match="has 9002 files of images, too many to be stated"):
        statement_of(replace(made, files={**made.files, **many}), Sha256("0" * 64), b"# nothing\n")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"images": {"release.json": Sha256("0" * 64)}}, "as an image"),
        ({"images": {"../x": Sha256("0" * 64)}}, "not a path inside"),
        ({"packages": {"pkg:julia/Example": "0" * 64}}, "none of git's"),
    ],
)
def test_statements_that_cannot_be_made(said: ReleaseStatement, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(CorruptError, match=why):
        replace(said, **changes)


def _set(value: Any, path: str, new: object) -> None:
    *way, last = path.split(".")
    for key in way:
        value = value[key]
    value[last] = new


@pytest.mark.parametrize(
    ("path", "new", "why"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1", "_type is not https://in-toto.io/Statement/v1"),
        ("predicateType", "https://slsa.dev/provenance/v2", "predicateType is not"),
        ("predicate.buildDefinition.buildType", "urn:headstart:release:2", "buildType is not"),
        ("subject", [], r"subject is not of release\.json"),
        ("subject", {}, "subject is not a list"),
        ("predicate", [], "predicate is not an object"),
        ("predicate.buildDefinition.externalParameters.fqrn", "no name", "fqrn is not well formed"),
        ("predicate.buildDefinition.externalParameters.release", "x", "release is not well formed"),
        ("predicate.runDetails.builder.id", "urn:another", "one spelling"),
        ("predicate.runDetails.more", 1, "one spelling"),
        ("more", [], "one spelling"),
    ],
)
def test_signed_statements_that_say_something_else_or_more(
    said: ReleaseStatement, path: str, new: object, why: str
) -> None:
    value = json.loads(said.to_bytes())
    _set(value, path, new)
    signed = sign(canonical(value), payload_type=STATEMENT_TYPE, signers=[channel_signer()])
    with pytest.raises(CorruptError, match=why):
        believed(signed.to_bytes(), said)


def test_a_statement_needs_the_threshold_of_different_keys(said: ReleaseStatement) -> None:
    root = root_of("channel", "channel-1", "channel-2", threshold=2)
    good = said.signed(channel_signer("channel"), channel_signer("channel-2"))
    assert set(believed(good, said, root).signers) == {
        channel_signer(name).keyid for name in ("channel", "channel-2")
    }
    for names in (("channel",), ("channel", "channel"), ("channel", "stranger")):
        with pytest.raises(TrustError, match="1 good signature of the 3 keys that count, it needs 2"):
            believed(said.signed(*(channel_signer(name) for name in names)), said, root)


def test_securesystemslib_verifies_ours_and_we_verify_theirs(said: ReleaseStatement) -> None:
    ours = said.signed(channel_signer("channel"), channel_signer("channel-1"))
    keys: list[Key] = [
        SSlibKey(signer.keyid, "ed25519", "ed25519", {"public": signer.public.raw.hex()})
        for signer in (channel_signer("channel"), channel_signer("channel-1"))
    ]
    envelope = TheirEnvelope.from_dict(json.loads(ours))
    assert envelope.payload_type == STATEMENT_TYPE
    assert len(envelope.verify(keys, 2)) == 2
    theirs = TheirEnvelope(said.to_bytes(), STATEMENT_TYPE, {})
    signers = [channel_signer("channel"), channel_signer("channel-1")]
    for signer in signers:
        theirs.sign(
            CryptoSigner(
                signer.key, SSlibKey(signer.keyid, "ed25519", "ed25519", {"public": signer.public.raw.hex()})
            )
        )
    data = json.dumps(theirs.to_dict()).encode()
    assert believed(data, said, root_of("channel", "channel-1", threshold=2)).statement == said
    public = {signer.keyid: signer.public for signer in signers}
    read = Envelope.from_bytes(data, where="it")
    signed = verify(read, public, threshold=2, payload_type=STATEMENT_TYPE, where="it")
    assert signed.payload == said.to_bytes()
    assert set(signed.signers) == set(public)


# -- the publisher --------------------------------------------------------------------------------------------


class Desk:
    """A repository with one release on no channel, and what its owner types."""

    def __init__(self, root: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.capture = capture
        self.now = publishing.later()
        publishing.copy_keys(root / "keys")
        self.place = publishing.new_repository(root / "storage", now=self.now)
        self.digests = {each: self.stage(each) for each in (ID, OTHER)}

    def stage(self, release_id: str) -> Sha256:
        made = publishing.write_stage(
            self.root / release_id, lambda base: replace(base, id=ReleaseId(release_id))
        )
        return Sha256.of(made.to_bytes())

    def run(self, *words: str, keys: str = "keys") -> int:
        where = ["--storage", str(self.root / "storage"), "--keys", str(self.root / keys)]
        return main([*words, *where])

    def publish(self, release_id: str = ID, keys: str = "keys") -> Any:
        self.capture.readouterr()
        assert self.run("publish", str(self.root / release_id), "--json", keys=keys) == 0
        return self.said()

    def read(self, *words: str) -> tuple[int, Any]:
        self.capture.readouterr()
        key = str(self.root / "keys" / f"{FQRN}.pub")
        code = main([words[0], str(self.place.root), *words[1:], "--key", key, "--json"])
        out = self.capture.readouterr().out
        return code, json.loads(out) if out else None

    def said(self) -> Any:
        return json.loads(self.capture.readouterr().out)

    def error(self) -> str:
        return self.capture.readouterr().err.rstrip("\n").split("\n")[-1]

    def stated(self, release_id: str = ID) -> bool:
        state = channels_of(self.place.open(publishing.later()))
        return state.stated(JETS, self.digests[release_id]) is not None

    def new_key(self, name: str, directory: str) -> str:
        self.capture.readouterr()
        assert main(["channel", "new-key", str(FQRN), name, "--keys", str(self.root / directory)]) == 0
        return self.capture.readouterr().out.strip()

    def without_channel_key(self) -> None:
        """The key directory of somebody who may publish, and no more."""
        publishing.copy_keys(self.root / "publisher")
        (self.root / "publisher" / f"{FQRN}.channelkey").unlink()


@pytest.fixture
def desk(quick_disk: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(quick_disk, capsys)


def test_publishing_states_what_it_publishes(desk: Desk) -> None:
    path = statement_path(JETS, desk.digests[ID])
    assert desk.publish()["steps"][-1] == {"action": "state", "path": path, "files": 1, "bytes": 0}
    assert desk.stated()
    repository = desk.place.open(publishing.later())
    assert repository.manifest.revision == 2
    # Once more changes nothing.
    assert desk.publish()["changes"] is False
    code, shown = desk.read("show", f"jets@{ID}")
    (signer,) = publishing.keys().channels
    assert (code, shown["statement"]) == (0, {"keys": [signer.keyid], "headstart": __version__})
    key = str(desk.root / "keys" / f"{FQRN}.pub")
    assert main(["show", str(desk.place.root), f"jets@{ID}", "--key", key]) == 0
    assert f"  stated    by {signer.keyid[:12]}" in desk.capture.readouterr().out
    code, verified = desk.read("verify")
    assert (code, verified["statements"], verified["complaints"]) == (0, 1, [])


def test_what_is_published_without_the_keys_waits_for_them(desk: Desk) -> None:
    desk.without_channel_key()
    assert desk.publish(keys="publisher")["steps"][-1]["action"] == "wait"
    assert not desk.stated()
    code, _ = desk.read("show", f"jets@{ID}")
    assert code == TrustError.exit_code
    code, shown = desk.read("show", f"jets@{desk.digests[ID]}")
    assert code == 0
    assert "has no statement" in shown["statement"]["problem"]
    code, verified = desk.read("verify")
    assert code == TrustError.exit_code
    (complaint,) = verified["complaints"]
    assert complaint["path"] == statement_path(JETS, desk.digests[ID])
    # Published again by who has the key, or stated by name.
    assert [step["action"] for step in desk.publish()["steps"]] == ["present", "present", "state"]
    assert desk.read("verify")[0] == desk.read("show", f"jets@{ID}")[0] == 0


def test_a_release_is_stated_by_name(desk: Desk) -> None:
    desk.without_channel_key()
    desk.publish(keys="publisher")
    desk.capture.readouterr()
    assert desk.run("channel", "state", f"jets@{ID}", keys="publisher") == KeyFileError.exit_code
    (complaint,) = desk.capture.readouterr().err.splitlines()  # and nothing before it that sounds like success
    assert complaint.startswith("headstart: no channel key")
    assert desk.run("channel", "state", "jets") != 0
    assert desk.run("channel", "state", "jets@00000000") != 0
    assert desk.run("channel", "state", f"jets@{ID}", "--dry-run") == 0
    assert not desk.stated()
    desk.capture.readouterr()
    assert desk.run("channel", "state", f"jets@{ID}", "--json") == 0
    assert [each["release"] for each in desk.said()["stated"]] == [ID]
    assert desk.stated()
    revision = desk.place.open(publishing.later()).manifest.revision
    desk.capture.readouterr()
    assert desk.run("channel", "state", f"jets@{ID}") == 0
    assert f"stated already: jets@{ID}" in desk.capture.readouterr().err
    assert desk.place.open(publishing.later()).manifest.revision == revision


def test_letting_a_channel_point_at_a_release_states_it(desk: Desk) -> None:
    desk.without_channel_key()
    desk.publish(keys="publisher")
    desk.publish(OTHER, keys="publisher")
    desk.capture.readouterr()
    assert desk.run("promote", f"jets@{ID}", "prod", "--json") == 0
    assert [each["digest"] for each in desk.said()["stated"]] == [desk.digests[ID].hex]
    # What merely lies there is nobody's word, however often channels are renewed.
    assert desk.run("channel", "renew", "--all") == 0
    assert (desk.stated(ID), desk.stated(OTHER)) == (True, False)


def test_a_statement_is_carried_to_who_must_sign_it(desk: Desk) -> None:
    public = desk.new_key("bob", "bob")
    file = str(desk.root / "request")
    desk.publish()
    # Raising the threshold takes Bob's signature of what is stated already.
    keys = ("channel", "keys", "--add", public, "--threshold", "2")
    assert desk.run(*keys) == KeyFileError.exit_code
    assert desk.run(*keys, "--request", file) == 0
    for who in ("bob", "keys"):
        assert main(["channel", "sign", file, "--keys", str(desk.root / who)]) == 0
    assert f"release {ID} of jets" in desk.capture.readouterr().err
    assert desk.run("channel", "apply", file) == 0
    assert desk.stated()
    # One alone publishes, and does not state.
    assert desk.publish(OTHER)["steps"][-1]["action"] == "wait"
    assert desk.run("channel", "state", f"jets@{OTHER}") == KeyFileError.exit_code
    assert desk.run("channel", "state", f"jets@{OTHER}", "--request", file) == 0
    assert desk.run("channel", "apply", file) == TrustError.exit_code
    assert "1 good signature of the 2 keys" in desk.error()
    assert main(["channel", "sign", file, "--keys", str(desk.root / "bob"), "--json"]) == 0
    assert [each["digest"] for each in desk.said()["statements"]] == [desk.digests[OTHER].hex]
    assert desk.run("channel", "apply", file, "--json") == 0
    assert [each["release"] for each in desk.said()["stated"]] == [OTHER]
    assert desk.stated(OTHER)
    assert desk.run("channel", "state", f"jets@{OTHER}", "--request", str(desk.root / "none")) == 0
    assert "nothing is to be signed" in desk.error()
    assert not (desk.root / "none").exists()
    # Taken twice it changes nothing.
    revision = desk.place.open(publishing.later()).manifest.revision
    assert desk.run("channel", "apply", file) == 0
    assert desk.place.open(publishing.later()).manifest.revision == revision


def test_keys_that_change_sign_anew_what_nobody_would_believe(desk: Desk) -> None:
    desk.publish()
    (old,) = publishing.keys().channels
    assert desk.run("channel", "keys", "--add", desk.new_key("next", "keys")) == 0
    desk.capture.readouterr()
    assert desk.run("channel", "keys", "--remove", old.keyid, "--json") == 0
    assert [each["release"] for each in desk.said()["stated"]] == [ID]
    assert desk.stated()
    assert desk.read("verify")[0] == 0


def test_what_nobody_stated_is_not_signed_anew(desk: Desk) -> None:
    """A thief's release with a statement that he made: a change of keys does not make it the owner's."""
    desk.without_channel_key()
    desk.publish(keys="publisher")
    store, keys = desk.place.target
    thief = channel_signer("thief")
    now = publishing.later()
    with store.transaction() as into:
        repository = Repository.open(store, keys, now)
        (made,) = plan_stating(repository, [Reference.parse(f"jets@{ID}")])
        edition = repository.edition(now, Settings())
        path = statement_path(JETS, made.digest)
        put_statements(edition, repository, {path: made.signed(thief)}, into, now)
        repository.commit(edition.finish(), into, now, Settings())
    plan = plan_keys(desk.place.open(publishing.later()), KeyChange(add=(channel_signer("x").public,)), now)
    assert plan.releases == ()
    assert not desk.stated()


def test_whether_statements_are_required_can_be_changed(desk: Desk) -> None:
    desk.without_channel_key()
    desk.publish(keys="publisher")
    code, _ = desk.read("show", f"jets@{ID}")
    assert code == TrustError.exit_code
    desk.capture.readouterr()
    assert desk.run("channel", "keys", "--json") == 0
    assert desk.said()["statements"] is True
    assert desk.run("channel", "keys", "--statements", "optional", "--json") == 0
    assert desk.said()["statements"] is False
    assert desk.read("show", f"jets@{ID}")[0] == desk.read("verify")[0] == 0
    assert desk.publish(OTHER, keys="publisher")["steps"][-1]["action"] == "publish"
    assert desk.run("channel", "keys", "--statements", "required") == 0
    assert desk.read("show", f"jets@{ID}")[0] == desk.read("verify")[0] == TrustError.exit_code
    # Said once more, it changes nothing: no key is asked for, and there is no revision for it.
    revision = desk.place.open(publishing.later()).manifest.revision
    (desk.root / "keys" / f"{FQRN}.masterkey").unlink()
    desk.capture.readouterr()
    assert desk.run("channel", "keys", "--statements", "required", "--threshold", "1", "--json") == 0
    out, err = desk.capture.readouterr()
    assert (json.loads(out)["changes"], json.loads(out)["version"]) == (False, 3)
    assert f"channel keys of {FQRN}: are so already: 1 of 1 key" in err
    request = desk.root / "request"
    assert desk.run("channel", "keys", "--statements", "required", "--request", str(request)) == 0
    assert "so already" in desk.capture.readouterr().err
    assert not request.exists()
    assert desk.place.open(publishing.later()).manifest.revision == revision
    assert desk.run("channel", "keys", "--days", "300") == KeyFileError.exit_code  # a change, by what it says


def test_what_a_bundle_must_not_say_of_a_release(desk: Desk) -> None:
    desk.without_channel_key()
    desk.publish(keys="publisher")
    repository = desk.place.open(publishing.later())
    (good,) = plan_stating(repository, [Reference.parse(f"jets@{ID}")])

    def refused(statement: ReleaseStatement, error: type[Error], match: str) -> None:
        bundle = bundle_at_hand(channels_of(repository), [statement])
        assert bundle is not None
        with pytest.raises(error, match=match):
            prove(repository, bundle, publishing.later())

    refused(replace(good, digest=Sha256("0" * 64)), TrustError, "is not what")
    refused(replace(good, packages={"pkg:julia/Evil": "0" * 40}), TrustError, "is not what")
    refused(replace(good, images={}), TrustError, "is not what")
    refused(replace(good, release=ReleaseId(OTHER)), Error, f"no release {OTHER}")
    # Written by another Headstart it says the same.
    bundle = bundle_at_hand(channels_of(repository), [replace(good, headstart="9.9.9")])
    assert bundle is not None
    assert prove(repository, bundle, publishing.later()).releases[0].headstart == "9.9.9"
    # Keys that would leave a stated release behind are refused.
    publish_statements(desk.place.target, lambda _: bundle, publishing.later())
    repository = desk.place.open(publishing.later())
    change = KeyChange(add=(channel_signer("x").public,), remove=(repository.keys.channels[0].keyid,))
    whole = bundle_keys(repository, plan_keys(repository, change, desk.now), [publishing.all_keys().master])
    alone = replace(whole, statements=whole.statements[:1])
    with pytest.raises(TrustError, match=f"nobody would believe jets@{ID} any more"):
        prove(repository, alone, publishing.later())


def test_a_retired_release_takes_its_statement_along(desk: Desk) -> None:
    desk.publish()
    desk.publish(OTHER)
    plan, _ = retire(desk.place.target, [Reference.parse(f"jets@{ID}")], publishing.later())
    path = statement_path(JETS, desk.digests[ID])
    assert plan.statements == (path,)
    content = publishing.content_of(desk.place.open(publishing.later()))
    assert path.encode() not in content
    assert statement_path(JETS, desk.digests[OTHER]).encode() in content


def test_a_rollback_keeps_what_is_stated_and_brings_back_what_was(desk: Desk) -> None:
    """A release that was stated only later, one that is gone and comes back, and one that goes."""
    desk.without_channel_key()
    desk.publish(keys="publisher")
    assert desk.run("channel", "state", f"jets@{ID}") == 0
    desk.publish(OTHER)
    roll_back(desk.place.target, ByRevision(Revision(2)), publishing.later())
    assert desk.stated()
    assert desk.read("verify")[0] == 0
    (old,) = publishing.keys().channels
    retire(desk.place.target, [Reference.parse(f"jets@{ID}")], publishing.later())
    # Meanwhile the keys have changed, so the old statement would not be believed.
    public = desk.new_key("next", "keys")
    assert desk.run("channel", "keys", "--add", public, "--remove", old.keyid) == 0
    assert desk.run("repo", "rollback", "--revision", "3") == 0
    assert f"release jets/{ID}: stated anew" in desk.capture.readouterr().err
    assert desk.stated()
    assert desk.read("verify")[0] == 0


def test_a_statement_of_a_release_that_is_not_there_is_complained_about(tmp_path: Path) -> None:
    repository = simulator.Simulator()
    made = repository.add_release()
    other = replace(made, id=ReleaseId(OTHER))
    repository.put_root(replace(repository.root(), statements=True))
    for each, signer in ((made, "channel"), (other, "stranger")):
        said = statement_of(each, Sha256.of(each.to_bytes()), b"")
        repository.put(statement_path(said.stack, said.digest), said.signed(channel_signer(signer)))
    said = statement_of(replace(made, id=ReleaseId("1" * 16)), Sha256("1" * 64), b"")
    repository.put(statement_path(said.stack, said.digest), said.signed(channel_signer()))
    repository.publish()
    snapshot = Snapshot.open(repository, keys=repository.masters, fqrn=repository.fqrn, now=simulator.NOW)
    opened = Opened(
        source=StorageSource(directory=str(tmp_path)),
        tree=SnapshotTree(snapshot),
        keys=repository.masters,
        snapshot=snapshot,
    )
    report = look(opened, now=simulator.NOW, deep=False)
    assert report.statements == 3
    texts = {each.path: each.text for each in report.complaints if "/releases/" in each.path}
    assert len(texts) == 2
    assert "0 good signatures" in texts[statement_path(JETS, Sha256.of(other.to_bytes()))]
    assert "cannot be read here" in texts[statement_path(JETS, Sha256("1" * 64))]
    late = look(opened, now=simulator.NOW + 365 * DAY, deep=False)
    assert any("root.json expired on" in each.text for each in late.complaints)
