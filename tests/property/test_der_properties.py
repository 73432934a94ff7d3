"""Keys and certificates read as the library reads them; anything else is one named error."""

import functools
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from headstart.cvmfs.der import certificate_public_key, from_pem, rsa_public_key, to_pem
from headstart.cvmfs.objects import Algorithm, Digest
from headstart.cvmfs.signature import Certificate, CertificateFingerprint, RsaPublicKey
from headstart.errors import CorruptError
from simulator import rsa_signer

DER = serialization.Encoding.DER
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


@functools.cache
def rsa_key(bits: int, exponent: int = 65537) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=exponent, key_size=bits)


def certificate(key: rsa.RSAPrivateKey, serial: int = 1, name: str = "someone", *, plain: bool = True) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
    )
    if not plain:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(DER)


@pytest.mark.parametrize("bits", [2048, 2056, 3072, 4096])
@pytest.mark.parametrize("exponent", [3, 65537])
def test_public_keys_are_read_as_the_library_writes_them(bits: int, exponent: int) -> None:
    key = rsa_key(bits, exponent)
    spki = key.public_key().public_bytes(DER, SPKI)
    numbers = key.public_key().public_numbers()
    ours = RsaPublicKey.from_spki(spki, what="it")
    assert (ours.n, ours.e) == (numbers.n, numbers.e)
    assert ours.to_pem() == key.public_key().public_bytes(serialization.Encoding.PEM, SPKI)
    assert RsaPublicKey.from_pem(ours.to_pem(), what="it") == ours


@given(
    serial=st.integers(1, 2**159 - 1),
    name=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=16),
    plain=st.booleans(),
)
def test_certificates_are_read_as_the_library_writes_them(*, serial: int, name: str, plain: bool) -> None:
    key = rsa_signer("master").key
    data = certificate(key, serial, name, plain=plain)
    spki = key.public_key().public_bytes(DER, SPKI)
    assert certificate_public_key(data, what="it") == spki
    ours = Certificate.from_pem(b"some text\n" + to_pem(data, label="CERTIFICATE"), what="it")
    assert ours.der == data
    assert ours.key.spki == spki
    assert ours.fingerprint(Algorithm.SHA1).digest.raw == x509.load_der_x509_certificate(data).fingerprint(
        hashes.SHA1()  # noqa: S303 - the format's hash
    )


def spki_of(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(DER, SPKI)


@pytest.mark.parametrize(
    ("spki", "why"),
    [
        pytest.param(spki_of(ec.generate_private_key(ec.SECP256R1())), "no RSA key", id="ec"),
        pytest.param(spki_of(ed25519.Ed25519PrivateKey.generate()), "no RSA key", id="ed25519"),
        pytest.param(spki_of(rsa_key(1024)), "1024 bits", id="1024"),
    ],
)
def test_other_keys_are_refused_by_name(spki: bytes, why: str) -> None:
    with pytest.raises(CorruptError, match=f"this key .*{why}"):
        rsa_public_key(spki, what="this key")


def test_the_other_pem_form_is_refused() -> None:
    pem = rsa_key(2048).public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
    with pytest.raises(CorruptError, match="BEGIN PUBLIC KEY"):
        RsaPublicKey.from_pem(pem, what="it")


def test_every_truncation_is_a_named_error() -> None:
    key = rsa_signer("master")
    spki, cert = key.public.spki, certificate(key.key)
    for size in range(len(spki)):
        with pytest.raises(CorruptError, match="this key"):
            rsa_public_key(spki[:size], what="this key")
    for size in range(len(cert)):
        with pytest.raises(CorruptError, match="this certificate"):
            certificate_public_key(cert[:size], what="this certificate")
    for data, read in ((spki, rsa_public_key), (cert, certificate_public_key)):
        with pytest.raises(CorruptError, match="behind its end"):
            read(data + b"\0", what="it")


@given(st.data())
def test_flipped_bytes_are_the_same_key_or_a_named_error(data: st.DataObject) -> None:
    spki = bytearray(rsa_signer("master").public.spki)
    at = data.draw(st.integers(0, len(spki) - 1))
    spki[at] ^= data.draw(st.integers(1, 255))
    try:
        ours = rsa_public_key(bytes(spki), what="it")
    except CorruptError:
        return
    # What we read, the library reads alike: no second spelling passes.
    theirs = serialization.load_der_public_key(bytes(spki))
    assert isinstance(theirs, rsa.RSAPublicKey)
    assert theirs.public_numbers() == rsa.RSAPublicNumbers(ours.e, ours.n)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_named_error(data: bytes) -> None:
    for read in (rsa_public_key, certificate_public_key):
        with pytest.raises(CorruptError, match="this"):
            read(data, what="this")
    with pytest.raises(CorruptError, match="this"):
        Certificate.from_pem(data, what="this")


@given(st.binary(min_size=1, max_size=300), st.sampled_from([b"", b"text before\n", b"\r\n"]))
def test_pem_survives(der: bytes, before: bytes) -> None:
    assert from_pem(before + to_pem(der, label="THING"), label="THING", what="it") == der


@pytest.mark.parametrize(
    "length", [bytes([0x80]), bytes([0x81, 0x0D]), bytes([0x82, 0, 0x0D]), bytes([0x85, 0, 0, 0, 0, 1])]
)
def test_lengths_have_one_spelling(length: bytes) -> None:
    inner = bytes.fromhex("06092a864886f70d0101010500")
    with pytest.raises(CorruptError, match="length"):
        rsa_public_key(b"\x30\x82\x01\x00" + (b"\x30" + length + inner).ljust(256, b"\0"), what="it")


@given(st.sampled_from(Algorithm), st.binary(min_size=20, max_size=20).filter(any), st.data())
def test_fingerprints_survive_their_text_in_any_case_and_with_comments(
    algorithm: Algorithm, raw: bytes, data: st.DataObject
) -> None:
    fingerprint = CertificateFingerprint(Digest(algorithm=algorithm, raw=raw))
    text = str(fingerprint)
    line = data.draw(st.sampled_from([text, text.lower(), text.replace(":", "")]))
    line += data.draw(st.sampled_from(["", " # comment", "\tcomment", "#comment"]))
    assert CertificateFingerprint.parse(line) == fingerprint


@pytest.mark.parametrize("line", ["", "# comment", "AB:CD", "zz" * 20, "00" * 20, "ab" * 32])
def test_lines_that_are_no_fingerprint_are_none(line: str) -> None:
    assert CertificateFingerprint.parse(line) is None
