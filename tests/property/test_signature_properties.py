"""Signatures against the libraries that everybody uses: what they accept, we accept, and nothing else."""

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from hypothesis import given
from hypothesis import strategies as st

from headstart.cvmfs.signature import RsaPublicKey
from headstart.ed25519 import Ed25519PublicKey
from headstart.errors import CorruptError
from simulator import rsa_signer

seeds = st.binary(min_size=32, max_size=32)
messages = st.binary(max_size=200)


def library_verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def we_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        return Ed25519PublicKey(public).verifies(message, signature)
    except CorruptError:
        return False


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Bits flipped, cut, lengthened, or as it was."""
    changed = bytearray(data)
    for at in draw(st.lists(st.integers(0, max(8 * len(data) - 1, 0)), max_size=3)):
        if data:
            changed[at // 8] ^= 1 << at % 8
    match draw(st.sampled_from(["same", "same", "same", "cut", "longer"])):
        case "cut":
            del changed[draw(st.integers(0, len(changed))) :]
        case "longer":
            changed += draw(st.binary(min_size=1, max_size=3))
        case _:
            pass
    return bytes(changed)


@given(seeds, messages)
def test_ed25519_accepts_what_the_library_signs(seed: bytes, message: bytes) -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    public = Ed25519PublicKey(key.public_key().public_bytes_raw())
    signature = key.sign(message)
    assert public.verifies(message, signature)
    assert not public.verifies(message + b"\0", signature)


@given(seeds, messages, st.data())
def test_ed25519_agrees_with_the_library_on_everything_changed(
    seed: bytes, message: bytes, data: st.DataObject
) -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    which = data.draw(st.sampled_from(["message", "signature", "key"]))
    if which == "message":
        message = data.draw(mutated(message))
    elif which == "signature":
        signature = data.draw(mutated(signature))
    else:
        changed = data.draw(mutated(public))
        public = changed if len(changed) == 32 else public
    assert we_verify(public, message, signature) == library_verifies(public, message, signature)


ORDER = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19
SMALL_ORDER = [
    (1).to_bytes(32, "little"),
    (P - 1).to_bytes(32, "little"),
    bytes(32),
    (1 << 255).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]


@pytest.mark.parametrize("raw", SMALL_ORDER)
def test_ed25519_keys_that_anybody_can_sign_for_are_none(raw: bytes) -> None:
    with pytest.raises(CorruptError, match="no Ed25519 public key"):
        Ed25519PublicKey(raw)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param((P + 3).to_bytes(32, "little"), id="y-not-below-p"),
        pytest.param((1 | 1 << 255).to_bytes(32, "little"), id="zero-with-a-sign"),
        pytest.param((2).to_bytes(32, "little"), id="no-such-point"),
        pytest.param(b"", id="empty"),
        pytest.param(bytes(33), id="33-bytes"),
    ],
)
def test_ed25519_keys_of_another_spelling_are_none(raw: bytes) -> None:
    with pytest.raises(CorruptError):
        Ed25519PublicKey(raw)


@given(seeds, messages)
def test_ed25519_has_one_signature_number_not_two(seed: bytes, message: bytes) -> None:
    """RFC 8032 section 5.1.7: S must be below the group's order."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    signature = key.sign(message)
    again = int.from_bytes(signature[32:], "little") + ORDER
    forged = signature[:32] + again.to_bytes(32, "little")
    assert not Ed25519PublicKey(key.public_key().public_bytes_raw()).verifies(message, forged)


def test_ed25519_vectors_of_the_standard() -> None:
    """RFC 8032 section 7.1, tests 1 and 3."""
    for public, message, signature in (
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            (
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
                "d25bf5f0595bbe24655141438e7a100b"
            ),
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            (
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
                "4a7c15e9716ed28dc027beceea1ec40a"
            ),
        ),
    ):
        key = Ed25519PublicKey(bytes.fromhex(public))
        assert key.verifies(bytes.fromhex(message), bytes.fromhex(signature))


HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}  # noqa: S303 - the format's hash


def rsa_library_verifies(key: RsaPublicKey, form: str, message: bytes, signature: bytes) -> bool:
    public = rsa_signer("master").key.public_key()
    assert public.public_numbers().n == key.n
    try:
        if form == "plain":
            return public.recover_data_from_signature(signature, PKCS1v15(), None) == message
        public.verify(signature, message, PKCS1v15(), HASHES[form])
    except InvalidSignature:
        return False
    return True


FORMS = {
    "sha256": ("sign", "verifies"),
    "sha1": ("sign_sha1", "verifies_sha1"),
    "plain": ("sign_plain", "verifies_plain"),
}


@pytest.mark.parametrize("form", FORMS)
@given(message=st.binary(max_size=100), data=st.data())
def test_rsa_agrees_with_the_library_on_everything_changed(
    form: str, message: bytes, data: st.DataObject
) -> None:
    signer = rsa_signer("master")
    sign, verifies = FORMS[form]
    signature = getattr(signer, sign)(message)
    assert getattr(signer.public, verifies)(message, signature)
    for other in FORMS:
        if other != form:
            assert not getattr(signer.public, FORMS[other][1])(message, signature)
    if data.draw(st.booleans()):
        message = data.draw(mutated(message))
    else:
        signature = data.draw(mutated(signature))
    ours = getattr(signer.public, verifies)(message, signature)
    assert ours == rsa_library_verifies(signer.public, form, message, signature)


@pytest.mark.parametrize("number", ["n", "n+s", "0", "1", "n-1"])
def test_rsa_takes_one_number_per_signature(number: str) -> None:
    signer = rsa_signer("master")
    key, signature = signer.public, signer.sign(b"message")
    s = int.from_bytes(signature, "big")
    value = {"n": key.n, "n+s": key.n + s, "0": 0, "1": 1, "n-1": key.n - 1}[number]
    raw = value.to_bytes((value.bit_length() + 7) // 8 or 1, "big").rjust(len(signature), b"\0")
    assert not key.verifies(b"message", raw)
