"""Statements and signed files that are well signed and still say what they must not."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from headstart.channel import POINTER_TYPE, Believed, Pointer, Root, read_pointer
from headstart.clock import RELEASED, own_complaint
from headstart.cvmfs.der import rsa_public_key
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.whitelist import Whitelist
from headstart.dsse import Envelope, Signature, sign, verify
from headstart.ed25519 import Ed25519PublicKey
from headstart.errors import CorruptError, TrustError
from headstart.memory import memory_of
from headstart.names import ChannelName, Fqrn, ReleaseId, Sha256, StackName
from headstart.record import canonical
from simulator import NOW, Simulator, channel_signer

POINTER = Pointer(
    fqrn=Fqrn("julia.example.org"),
    stack=StackName("jets"),
    channel=ChannelName("prod"),
    release=ReleaseId("0123456789abcdef"),
    digest=Sha256("0" * 64),
    version=3,
    issued=NOW,
    expires=NOW + timedelta(days=30),
)
KEY = channel_signer().public
MANY = [channel_signer(f"channel-{number}").public for number in range(17)]
ROOT = Root(
    fqrn=POINTER.fqrn,
    version=1,
    keys={KEY.keyid: KEY},
    threshold=1,
    issued=NOW,
    expires=NOW + timedelta(days=365),
    restarted=NOW,
    statements=False,
)


def believed(data: bytes, root: Root = ROOT) -> Believed:
    return read_pointer(data, root=root, stack=POINTER.stack, channel=POINTER.channel)


def test_a_pointer_may_not_go_back() -> None:
    found = believed(POINTER.signed(channel_signer()))
    assert found.pointer == POINTER
    newer = replace(found, pointer=replace(POINTER, version=4))
    memory = memory_of(None, [found])
    memory.check(found)
    memory.check(newer)
    with pytest.raises(TrustError, match=r"jets@prod .*prod has version 3, this node has already seen 4"):
        memory_of(None, [newer]).check(found)


def test_a_statement_of_keys_may_not_go_back() -> None:
    old = believed(POINTER.signed(channel_signer()))
    new = replace(old, root=replace(ROOT, version=2))
    memory_of(None, [old]).check(new)
    with pytest.raises(TrustError, match=r"root\.json has version 1, this node has already seen 2"):
        memory_of(None, [new]).check(old)


def test_versions_count_anew_when_their_owner_says_so() -> None:
    driven_up = believed(replace(POINTER, version=10**17).signed(channel_signer()))
    again = replace(ROOT, version=2, issued=NOW + timedelta(days=1), restarted=NOW + timedelta(days=1))
    honest = replace(POINTER, version=1, issued=NOW + timedelta(days=1)).signed(channel_signer())
    memory = memory_of(None, [driven_up])
    memory.check(believed(honest, again))
    # Nothing that was signed before counts any more, and there is no way back.
    with pytest.raises(TrustError, match="only what was signed from 2026-11-23T20:15:00Z on counts"):
        believed(POINTER.signed(channel_signer()), again)
    with pytest.raises(TrustError, match="already seen"):
        memory.merged(memory_of(None, [believed(honest, again)])).check(driven_up)


# -- clocks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (
            NOW - timedelta(seconds=3601),
            "clock says 2026-11-22T19:14:59Z, and .*prod.json was signed on 2026-11-22T20:15:00Z",
        ),
        (datetime(1970, 1, 1, tzinfo=UTC), "clock says 1970-01-01T00:00:00Z, and .* signed on 2026"),
        (NOW + timedelta(days=30), "expired on 2026-12-22T20:15:00Z, and .* clock says 2026-12-22T20:15:00Z"),
        (datetime(2100, 1, 1, tzinfo=UTC), "expired on 2027-11-22T20:15:00Z, and .* clock says 2100-01-01"),
    ],
)
def test_a_wrong_clock_is_named_with_the_other_time(now: datetime, why: str) -> None:
    found = believed(POINTER.signed(channel_signer()))
    for good in (NOW - timedelta(hours=1), NOW, NOW + timedelta(days=30) - timedelta(seconds=1)):
        found.check_time(good)
    with pytest.raises(TrustError, match=why):
        found.check_time(now)


def test_a_pointer_ends_with_the_statement_that_it_is_believed_by() -> None:
    short = replace(ROOT, expires=NOW + timedelta(days=3))
    found = believed(POINTER.signed(channel_signer()), short)
    assert found.expires == short.expires
    with pytest.raises(TrustError, match=r"root\.json expired on 2026-11-25.*master key"):
        found.check_time(NOW + timedelta(days=3))


def test_a_clock_from_before_this_headstart_is_wrong() -> None:
    assert own_complaint(RELEASED) == ""
    assert "says 2026-10-01T00:00:00Z, and this Headstart is of 2026-11-01" in own_complaint(
        datetime(2026, 10, 1, tzinfo=UTC)
    )
    assert datetime.now(UTC) > RELEASED, "RELEASED, or the clock here, is wrong"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": 0}, "version 0"),
        ({"expires": NOW}, "expires before"),
        ({"issued": NOW.replace(tzinfo=None)}, "whole seconds of UTC"),
        ({"issued": NOW.replace(microsecond=1)}, "whole seconds of UTC"),
        ({"expires": NOW.astimezone(timezone(timedelta(hours=1)))}, "whole seconds of UTC"),
    ],
)
def test_pointers_that_cannot_be_made(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(CorruptError, match=f"prod.json .*{why}"):
        replace(POINTER, **changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": 0}, "version 0"),
        ({"threshold": 0}, "wants 0 signatures"),
        ({"threshold": 2}, "1 key wants 2 signatures"),
        ({"keys": {}}, "0 keys wants 1"),
        ({"keys": {"me": KEY}}, f"the key {KEY.keyid} as 'me'"),
        ({"keys": {key.keyid: key for key in MANY}}, "names 17 keys, more than 16"),
        ({"expires": NOW}, "expires before"),
        ({"restarted": NOW + timedelta(1)}, "before it is to count"),
        ({"issued": NOW.replace(microsecond=1)}, "whole seconds of UTC"),
    ],
)
def test_root_statements_that_cannot_be_made(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(CorruptError, match=why):
        replace(ROOT, **changes)


@pytest.mark.parametrize(
    "value", ["", "00", "zz" * 32, "00" * 32, KEY.raw.hex().upper(), KEY.raw.hex() + " ", "é" * 64, 7]
)
def test_channel_keys_that_are_none(value: object) -> None:
    record = json.loads(ROOT.to_bytes())
    record["keys"][KEY.keyid] = value
    with pytest.raises(CorruptError, match=r"root\.json"):
        Root.from_bytes(canonical(record))


@pytest.mark.parametrize(
    "time", ["", "2026-11-22", "2026-11-22T20:15:00", "2026-13-22T20:15:00Z", "2026-11-22T24:15:00Z",
             "2026-11-22 20:15:00Z", "2026-11-22T20:15:00+00:00", "2026-11-22T20:15:00.0Z",
             "\uff12026-11-22T20:15:00Z"],
)  # fmt: skip
def test_times_have_one_spelling(time: str) -> None:
    record = json.loads(POINTER.to_bytes())
    record["issued"] = time
    with pytest.raises(CorruptError, match="it: issued is not a UTC time"):
        Pointer.from_bytes(canonical(record), where="it")


# -- envelopes ------------------------------------------------------------------------------------------------


def envelope() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(POINTER.signed(channel_signer()))
    return value


def test_pre_authentication_encoding_is_the_standard_s() -> None:
    """The worked example of the DSSE protocol: type and payload with their lengths."""
    signed: list[bytes] = []

    class Recorder:
        keyid = "id"

        def sign(self, message: bytes) -> bytes:
            signed.append(message)
            return b""

    sign(b"hello world", payload_type="http://example.com/HelloWorld", signers=[Recorder()])
    assert signed == [b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"]


def test_both_base64_alphabets_and_unknown_keys_are_read() -> None:
    value = envelope()
    good = Envelope.from_bytes(canonical(value), where="it")
    value["signatures"][0]["sig"] = value["signatures"][0]["sig"].translate({43: "-", 47: "_"})
    value["more"] = value["signatures"][0]["more"] = 1
    assert Envelope.from_bytes(canonical(value), where="it") == good


def test_a_signature_needs_no_key_id() -> None:
    value = envelope()
    del value["signatures"][0]["keyid"]
    assert believed(canonical(value)).pointer == POINTER


@pytest.mark.parametrize("text", ["!", "ab", "abc", "ab c", "ab\nc", "====", "é"])
def test_what_is_not_base64(text: str) -> None:
    for key in ("payload", "sig"):
        value = envelope()
        place = value if key == "payload" else value["signatures"][0]
        place[key] = text
        with pytest.raises(CorruptError, match=f"{key} is not base64"):
            Envelope.from_bytes(canonical(value), where="it")


def test_a_flood_of_signatures_is_not_checked() -> None:
    value = envelope()
    value["signatures"] *= 33
    with pytest.raises(CorruptError, match="33 signatures, more than 32"):
        Envelope.from_bytes(canonical(value), where="it")


def test_no_signature_at_all_and_no_threshold_at_all() -> None:
    unsigned = Envelope(payload_type=POINTER_TYPE, payload=POINTER.to_bytes(), signatures=())
    with pytest.raises(TrustError, match="0 good signatures"):
        believed(unsigned.to_bytes())
    with pytest.raises(TrustError, match="at least 1"):
        verify(unsigned, {}, threshold=0, payload_type=POINTER_TYPE, where="it")


def test_a_signature_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In plain Python it takes longer than anything else before a start."""
    checked: list[bytes] = []
    check = Ed25519PublicKey.verifies

    def counted(key: Ed25519PublicKey, message: bytes, signature: bytes) -> bool:
        checked.append(signature)
        return check(key, message, signature)

    monkeypatch.setattr(Ed25519PublicKey, "verifies", counted)
    assert believed(POINTER.signed(channel_signer())).signers == (channel_signer().keyid,)
    assert len(checked) == 1


def test_one_key_under_two_names_counts_once() -> None:
    signed = sign(b"x", payload_type="t", signers=[channel_signer()])
    (first,) = signed.signatures
    twice = replace(signed, signatures=(first, Signature(keyid="other", raw=first.raw)))
    with pytest.raises(TrustError, match="1 good signature"):
        verify(twice, {KEY.keyid: KEY, "other": KEY}, threshold=2, payload_type="t", where="it")


# -- the two signed files of CVMFS ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest() -> bytes:
    simulator = Simulator()
    return simulator.publish().to_bytes()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (b"Rd41d", b"Rd41e", "line 3.* the hash of the root path"),
        (b"Njulia", b"Njul_ia", "line 8.* a repository name"),
        (b"S1\n", b"S-1\n", "line 5.* a number"),
        (b"S1\n", b"S1_0\n", "line 5.* a number"),
        (b"S1\n", b"S" + b"9" * 19 + b"\n", "line 5.* a number"),
        (b"S1\n", b"S\n", "line 5.* a number"),
        (b"S1\n", b"S1\nS1\n", "line 6: S stands there twice"),
        (b"Ano\n", b"A\xc3\xa9\n", "not ASCII"),
    ],
)
def test_manifest_lines_that_say_nothing(manifest: bytes, old: bytes, new: bytes, line: str) -> None:
    assert old in manifest
    with pytest.raises(CorruptError, match=rf"\.cvmfspublished {line}|\.cvmfspublished is {line}"):
        Manifest.from_bytes(manifest.replace(old, new, 1))


def test_manifest_digests_are_lower_case(manifest: bytes) -> None:
    line = manifest.split(b"\n")[0]
    with pytest.raises(CorruptError, match=r"line 1: C.* is not a content digest"):
        Manifest.from_bytes(manifest.replace(line, b"C" + line[1:20] + b"A" + line[21:]))


WHITELIST = b"20261122190000\nE20261222190000\nNjulia.example.org\n"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"2026112219", b"2026112299", "line 1.* not a time"),
        (b"20261122190000", b"2026112219000", "line 1.* not a time"),
        (b"E2026", b"E202", "line 2.* not a time"),
        (b"E20261222", b"E20261322", "line 2.* not a time"),
        (b"E2026", b"X2026", "does not start"),
        (b"Njulia", b"Xjulia", "does not start"),
        (b"Njulia.", b"Njulia_", "line 3.* no repository name"),
        (b"Njulia.example.org\n", b"", "does not start"),
        (b"20261122190000\nE2026", b"2026112219000\xd9\xa0\nE2026", "line 1.* not a time"),
    ],
)
def test_whitelist_lines_that_say_nothing(old: bytes, new: bytes, why: str) -> None:
    assert Whitelist.from_bytes(WHITELIST).expires == datetime(2026, 12, 22, 19, tzinfo=UTC)
    with pytest.raises(CorruptError, match=rf"\.cvmfswhitelist {why}"):
        Whitelist.from_bytes(WHITELIST.replace(old, new))


# -- keys -----------------------------------------------------------------------------------------------------


def test_rsa_keys_with_exponents_and_bits_that_make_no_sense() -> None:
    numbers = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key().public_numbers()
    for exponent, why in ((1, "exponent"), (2**32 + 1, "exponent"), (4, "exponent")):
        spki = _spki(numbers.n, exponent)
        with pytest.raises(CorruptError, match=why):
            rsa_public_key(spki, what="it")
    with pytest.raises(CorruptError, match="RSA key of"):
        rsa_public_key(_spki(numbers.n - 1, 65537), what="it")
    good = bytearray(_spki(numbers.n, 65537))
    assert rsa_public_key(bytes(good), what="it").n == numbers.n
    # Seven bits fewer: the key bits would be no whole bytes.
    good[good.index(b"\x03\x82") + 4] = 7
    with pytest.raises(CorruptError, match="whole bytes"):
        rsa_public_key(bytes(good), what="it")


def _spki(n: int, e: int) -> bytes:
    """A key's DER, whatever the numbers: the library would refuse to write these."""

    def value(tag: int, content: bytes) -> bytes:
        size = len(content)
        length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
        return bytes([tag]) + length + content

    def integer(number: int) -> bytes:
        return value(2, number.to_bytes(number.bit_length() // 8 + 1, "big"))

    bits = value(3, b"\0" + value(0x30, integer(n) + integer(e)))
    built = value(0x30, bytes.fromhex("300d06092a864886f70d0101010500") + bits)
    if e == 65537 and n % 2:
        theirs = rsa.RSAPublicNumbers(e, n).public_key()
        encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        assert built == theirs.public_bytes(encoding, form)
    return built
