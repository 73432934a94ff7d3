"""Statements, pointers, manifests, whitelists, references: what is written is what is read, in one spelling."""

import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer._key import Key, SSlibKey
from securesystemslib.signer._signature import Signature as TheirSignature

import strategies
from headstart.channel import POINTER_TYPE, Pointer, Root, read_pointer
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.objects import Algorithm, Revision
from headstart.cvmfs.signature import CertificateFingerprint, Letter, seal
from headstart.cvmfs.whitelist import Whitelist
from headstart.dsse import Envelope, Signature, sign, verify
from headstart.errors import ConfigurationError, CorruptError, TrustError
from headstart.record import canonical
from headstart.reference import DigestPrefix, NamedChannel, Reference, Unspecified
from headstart.releasestatement import ReleaseStatement, StatedImage
from simulator import channel_signer, rsa_signer

EARLIEST = datetime(1000, 1, 1, tzinfo=UTC)
seconds = st.integers(0, 8000 * 365 * 86400).map(lambda passed: EARLIEST + timedelta(seconds=passed))
numbers = st.integers(min_value=0, max_value=10**17)
versions = st.integers(min_value=1, max_value=10**9)
names = st.lists(st.sampled_from(["channel", "channel-1", "channel-2"]), min_size=1, max_size=3, unique=True)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def pointers(draw: st.DrawFn) -> Pointer:
    issued = draw(seconds)
    return Pointer(
        fqrn=draw(strategies.fqrns),
        stack=draw(strategies.stack_names),
        channel=draw(strategies.channel_names),
        release=draw(strategies.release_ids),
        digest=draw(strategies.sha256s),
        version=draw(versions),
        issued=issued,
        expires=issued + timedelta(seconds=draw(st.integers(1, 10**7))),
    )


@st.composite
def roots(draw: st.DrawFn) -> Root:
    keys = [channel_signer(name).public for name in draw(names)]
    return Root(
        fqrn=draw(strategies.fqrns),
        version=draw(versions),
        keys={key.keyid: key for key in keys},
        threshold=draw(st.integers(1, len(keys))),
        issued=(issued := draw(seconds)),
        expires=issued + timedelta(seconds=draw(st.integers(1, 10**7))),
        restarted=issued - timedelta(seconds=draw(st.integers(0, 10**6))),
        statements=draw(st.booleans()),
    )


@st.composite
def release_statements(draw: st.DrawFn) -> ReleaseStatement:
    texts = st.dictionaries(strategies.words, strategies.words, max_size=3)
    kinds = st.sampled_from([("sysimage",), ("pkgimages",), ("sysimage", "pkgimages")])
    images = st.builds(StatedImage, target=strategies.targets, cpu_target=strategies.words, kinds=kinds)
    files = st.dictionaries(strategies.paths.map("images/".__add__), strategies.sha256s, max_size=3)
    return ReleaseStatement(
        fqrn=draw(strategies.fqrns),
        stack=draw(strategies.stack_names),
        release=draw(strategies.release_ids),
        digest=draw(strategies.sha256s),
        images=draw(files),
        targets=tuple(draw(st.lists(images, max_size=2))),
        options=tuple(draw(st.lists(strategies.words, max_size=2))),
        environment=draw(texts),
        inputs=draw(texts),
        records=draw(st.dictionaries(strategies.words, strategies.sha256s, max_size=2)),
        packages=draw(
            st.dictionaries(strategies.words.map("pkg:julia/".__add__), strategies.hex_text(40), max_size=3)
        ),
        built=draw(strategies.words),
        headstart=draw(strategies.words),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    optional = st.none() | strategies.digests
    return Manifest(
        fqrn=draw(strategies.fqrns),
        root_catalog=draw(strategies.digests),
        root_size=draw(numbers),
        ttl=draw(numbers),
        revision=Revision(draw(numbers)),
        garbage_collectable=draw(st.booleans()),
        alternative_paths=draw(st.booleans()),
        certificate=draw(strategies.digests),
        history=draw(optional),
        timestamp=draw(numbers),
        metainfo=draw(optional),
        reflog=draw(optional),
    )


whitelists = st.builds(
    Whitelist,
    fqrn=strategies.fqrns,
    issued=seconds,
    expires=seconds,
    fingerprints=st.lists(st.builds(CertificateFingerprint, strategies.digests), max_size=3).map(tuple),
)


@given(pointers())
def test_pointer_survives(pointer: Pointer) -> None:
    assert Pointer.from_bytes(pointer.to_bytes(), where="it") == pointer


@given(roots())
def test_root_statement_survives(root: Root) -> None:
    assert Root.from_bytes(root.to_bytes()) == root


@given(release_statements())
def test_release_statement_survives(statement: ReleaseStatement) -> None:
    assert ReleaseStatement.from_bytes(statement.to_bytes(), where="it") == statement


@given(release_statements(), st.data())
def test_a_release_statement_with_another_value_or_key_is_that_one_or_a_named_error(
    statement: ReleaseStatement, data: st.DataObject
) -> None:
    record = json.loads(statement.to_bytes())
    place = record
    # Some way down, and there something else.
    for _ in range(data.draw(st.integers(0, 4))):
        inner = [each for each in place.values() if isinstance(each, dict)]
        if inner:
            place = data.draw(st.sampled_from(inner))
    place[data.draw(st.sampled_from([*place, "more"]))] = data.draw(json_values)
    changed = canonical_or_plain(record)
    with contextlib.suppress(CorruptError):
        assert ReleaseStatement.from_bytes(changed, where="it").to_bytes() == changed


@given(manifests())
def test_manifest_survives(manifest: Manifest) -> None:
    text = manifest.to_bytes()
    assert Manifest.from_bytes(text) == manifest
    # Order, unknown lines and empty ones mean nothing to a reader.
    shuffled = b"\n".join([b"Qunknown", b"", *reversed(text.split(b"\n")), b""])
    assert Manifest.from_bytes(shuffled) == manifest


@given(whitelists)
def test_whitelist_survives(whitelist: Whitelist) -> None:
    text = whitelist.to_bytes()
    assert Whitelist.from_bytes(text) == whitelist
    assert Whitelist.from_bytes(text + b"# a comment\n") == whitelist


@given(whitelists, seconds)
def test_whitelist_is_valid_by_the_hour(whitelist: Whitelist, now: datetime) -> None:
    """Only while year, month, day and hour are before those of the expiry."""
    fields = [(time.year, time.month, time.day, time.hour) for time in (now, whitelist.expires)]
    assert whitelist.valid(now) == (fields[0] < fields[1])


@given(manifests(), st.data())
def test_a_manifest_line_lost_doubled_or_spoilt_is_named(manifest: Manifest, data: st.DataObject) -> None:
    lines = manifest.to_bytes().split(b"\n")[:-1]
    at = data.draw(st.integers(0, len(lines) - 1))
    letter = chr(lines[at][0])
    match data.draw(st.sampled_from(["lost", "doubled", "spoilt"])):
        case "lost":
            del lines[at]
            if letter not in "CRDSNX":
                Manifest.from_bytes(b"\n".join([*lines, b""]))
                return
        case "doubled":
            lines.append(lines[at])
        case _:
            if letter in "GA":
                return
            lines[at] += b"!"
    with pytest.raises(CorruptError, match=rf"\.cvmfspublished.*{letter}"):
        Manifest.from_bytes(b"\n".join([*lines, b""]))


@given(st.binary(max_size=200))
def test_other_bytes_are_a_named_error(data: bytes) -> None:
    for read in (
        Manifest.from_bytes,
        Whitelist.from_bytes,
        Root.from_bytes,
        lambda data: Pointer.from_bytes(data, where="it"),
        lambda data: ReleaseStatement.from_bytes(data, where="it"),
        lambda data: Envelope.from_bytes(data, where="it"),
        lambda data: Letter.cut(data, what="it"),
    ):
        with pytest.raises(CorruptError):
            read(data)


@given(pointers(), json_values, st.data())
def test_a_pointer_with_another_value_or_key_is_that_one_or_a_named_error(
    pointer: Pointer, value: object, data: st.DataObject
) -> None:
    record = json.loads(pointer.to_bytes())
    record[data.draw(st.sampled_from([*record, "more"]))] = value
    changed = canonical_or_plain(record)
    with contextlib.suppress(CorruptError):
        assert Pointer.from_bytes(changed, where="it").to_bytes() == changed


@given(roots(), json_values, st.data())
def test_a_root_statement_with_another_value_or_key_is_that_one_or_a_named_error(
    root: Root, value: object, data: st.DataObject
) -> None:
    record = json.loads(root.to_bytes())
    record[data.draw(st.sampled_from([*record, "more"]))] = value
    changed = canonical_or_plain(record)
    with contextlib.suppress(CorruptError):
        assert Root.from_bytes(changed).to_bytes() == changed


@given(
    pointers(),
    st.sampled_from(["schema", "fqrn", "stack", "channel", "release", "digest", "version", "issued"]),
)
def test_a_key_of_a_pointer_that_is_missing_or_null_is_named(pointer: Pointer, key: str) -> None:
    record = json.loads(pointer.to_bytes())
    del record[key]
    for changed in (record, record | {key: None}):
        with pytest.raises(CorruptError, match=f"it.*{key}"):
            Pointer.from_bytes(canonical(changed), where="it")


def canonical_or_plain(record: object) -> bytes:
    try:
        return canonical(record)
    except UnicodeEncodeError:
        # A lone surrogate, which JSON can spell and UTF-8 cannot.
        return json.dumps(record).encode()


@given(pointers())
def test_a_second_spelling_of_a_pointer_is_refused(pointer: Pointer) -> None:
    spaced = json.dumps(json.loads(pointer.to_bytes()), indent=1).encode()
    with pytest.raises(CorruptError, match="one spelling"):
        Pointer.from_bytes(spaced, where="it")


@given(
    st.binary(max_size=100),
    # A zero in a text is refused here, and is in no type that anybody uses.
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    names,
)
def test_envelopes_are_read_and_verified_alike_by_securesystemslib(
    payload: bytes, kind: str, signers: list[str]
) -> None:
    ours = sign(payload, payload_type=kind, signers=[channel_signer(name) for name in signers])
    theirs = TheirEnvelope.from_dict(json.loads(ours.to_bytes()))
    assert (theirs.payload, theirs.payload_type) == (payload, kind)
    keys: list[Key] = [
        SSlibKey(
            channel_signer(name).keyid,
            "ed25519",
            "ed25519",
            {"public": channel_signer(name).public.raw.hex()},
        )
        for name in signers
    ]
    theirs.verify(keys, len(signers))
    again = Envelope.from_bytes(json.dumps(theirs.to_dict()).encode(), where="it")
    assert again == ours
    public = {channel_signer(name).keyid: channel_signer(name).public for name in signers}
    signed = verify(again, public, threshold=len(signers), payload_type=kind, where="it")
    assert signed.payload == payload
    assert set(signed.signers) == set(public)
    with pytest.raises(TrustError, match=r"good signatures? "):
        verify(again, public, threshold=len(signers) + 1, payload_type=kind, where="it")


@given(st.binary(max_size=50), st.data())
def test_a_changed_envelope_is_refused_by_both(payload: bytes, data: st.DataObject) -> None:
    signer = channel_signer()
    good = sign(payload, payload_type="kind", signers=[signer])
    match data.draw(st.sampled_from(["payload", "signature"])):
        case "payload":
            changed = Envelope(payload_type="kind", payload=payload + b"\0", signatures=good.signatures)
        case _:
            raw = bytearray(good.signatures[0].raw)
            raw[data.draw(st.integers(0, 63))] ^= data.draw(st.integers(1, 255))
            changed = Envelope(
                payload_type="kind",
                payload=payload,
                signatures=(Signature(keyid=signer.keyid, raw=bytes(raw)),),
            )
    with pytest.raises(TrustError, match="0 good signatures"):
        verify(changed, {signer.keyid: signer.public}, threshold=1, payload_type="kind", where="it")
    theirs = TheirEnvelope(
        changed.payload,
        "kind",
        {each.keyid: TheirSignature(each.keyid, each.raw.hex()) for each in changed.signatures},
    )
    with pytest.raises(VerificationError):
        theirs.verify([SSlibKey(signer.keyid, "ed25519", "ed25519", {"public": signer.public.raw.hex()})], 1)


@given(pointers(), names, st.integers(1, 3))
def test_a_pointer_needs_the_threshold_of_different_keys(
    pointer: Pointer, signers: list[str], threshold: int
) -> None:
    keys = [channel_signer(name).public for name in ("channel", "channel-1", "channel-2")]
    root = Root(
        fqrn=pointer.fqrn,
        version=1,
        keys={key.keyid: key for key in keys},
        threshold=threshold,
        issued=pointer.issued,
        expires=pointer.expires,
        restarted=pointer.issued,
        statements=False,
    )
    # A stranger's signature, and the first one twice under another id, count for nothing.
    good = [channel_signer(name) for name in signers]
    envelope = sign(pointer.to_bytes(), payload_type=POINTER_TYPE, signers=[*good, channel_signer("stranger")])
    twice = Signature(keyid="", raw=envelope.signatures[0].raw)
    data = Envelope(
        payload_type=POINTER_TYPE, payload=envelope.payload, signatures=(*envelope.signatures, twice)
    ).to_bytes()
    if len(signers) >= threshold:
        believed = read_pointer(data, root=root, stack=pointer.stack, channel=pointer.channel)
        assert believed.pointer == pointer
        assert set(believed.signers) == {signer.keyid for signer in good}
    else:
        with pytest.raises(TrustError, match=rf"{len(signers)} good signatures?"):
            read_pointer(data, root=root, stack=pointer.stack, channel=pointer.channel)


@given(st.binary(max_size=300).map(lambda text: text.replace(b"\r", b"").replace(b"\0", b"") + b"\n"))
def test_letters_survive(text: bytes) -> None:
    if b"\n--\n" in text:
        return
    signer = rsa_signer("master")
    sealed = seal(text, algorithm=Algorithm.SHAKE128, sign=signer.sign_plain)
    letter = Letter.cut(sealed, what="it")
    assert letter.text == text
    assert signer.public.verifies_plain(letter.hash_line, letter.signature)


@given(st.one_of(strategies.stack_names.map(str), st.text(max_size=20)), st.text(max_size=70))
def test_references_survive_or_are_refused(stack: str, rest: str) -> None:
    for text in (stack, f"{stack}@{rest}"):
        with contextlib.suppress(ConfigurationError):
            reference = Reference.parse(text)
            assert str(reference) == text
            assert Reference.parse(str(reference)) == reference


@given(strategies.stack_names, strategies.hex_text(64), st.integers(8, 64))
def test_eight_or_more_digits_are_a_digest(stack: object, digits: str, length: int) -> None:
    short = digits[:length]
    assert Reference.parse(f"{stack}@{short}").choice == DigestPrefix(hex=short, only_digest=False)
    assert Reference.parse(f"{stack}@sha256:{short}").choice == DigestPrefix(hex=short, only_digest=True)
    assert Reference.parse(str(stack)).choice == Unspecified()


def test_what_references_look_like() -> None:
    assert isinstance(Reference.parse("jets@prod").choice, NamedChannel)
    assert isinstance(Reference.parse("jets@abcdef1").choice, NamedChannel)
    for text in ("", "@", "jets@", "@prod", "jets@sha256:abc", "jets@SHA256:" + "a" * 64, "jets@a@b", "Jets"):
        with pytest.raises(ConfigurationError, match="no reference"):
            Reference.parse(text)
