"""Keys in a token: a real PKCS#11 library with a software token, where there is one."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import publishing
from headstart.cvmfs.manifest import MANIFEST_FILE
from headstart.cvmfs.renewal import Terms
from headstart.cvmfs.signing import RsaSigner
from headstart.errors import Error, KeyFileError, MissingToolError
from headstart.keys import load_keys, load_master_key
from headstart.repository import AllKeys, Repository, adding, change_tags, create
from headstart.repository.whitelists import renew_whitelist
from headstart.store import DirectoryStore
from headstart.tokens import TokenSigner, TokenUri
from publishing import FQRN, NOW

LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
)
LIBRARY = next((path for path in LIBRARIES if os.path.exists(path)), "")
needs_token = pytest.mark.skipif(
    not LIBRARY or not shutil.which("softhsm2-util") or importlib.util.find_spec("pkcs11") is None,
    reason="needs SoftHSM 2 and python-pkcs11",
)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key directory whose master key and repository key are in a token; the PIN is in a file beside it."""
    root = tmp_path_factory.mktemp("token")
    keys = publishing.copy_keys(root / "keys")
    (root / "tokens").mkdir()
    (root / "softhsm2.conf").write_text(f"directories.tokendir = {root}/tokens\nobjectstore.backend = file\n")
    # The library reads it when it is loaded for the first time, in this process too.
    os.environ["SOFTHSM2_CONF"] = str(root / "softhsm2.conf")
    (root / "pin").write_text("1234\n")
    tool = ("softhsm2-util", "--module", LIBRARY)
    slot = ("--init-token", "--free", "--label", "test", "--pin", "1234", "--so-pin", "5678")
    subprocess.run([*tool, *slot], check=True, capture_output=True)
    for number, kind in enumerate(("masterkey", "key"), start=1):
        place = keys / f"{FQRN}.{kind}"
        words = ("--import", str(place), "--token", "test", "--label", kind, "--id", f"{number:02x}")
        subprocess.run([*tool, *words, "--pin", "1234"], check=True, capture_output=True)
        place.write_text(uri(root, f"object={kind}"))
    return root


def uri(root: Path, named: str, where: str = "test", pin: str = "pin") -> str:
    return f"pkcs11:token={where};{named}?module-path={LIBRARY}&pin-source=file:{root}/{pin}\n"


@needs_token
def test_a_token_signs_what_a_file_signs(token: Path) -> None:
    """PKCS#1 v1.5 is deterministic, so the very same bytes."""
    in_file = publishing.all_keys().master
    in_token = load_master_key(str(token / "keys"), FQRN)
    assert isinstance(in_token, TokenSigner)
    assert isinstance(in_file, RsaSigner)
    assert (in_token.public, in_token.keyid) == (in_file.public, in_file.keyid)
    for text in (b"", b"0123456789abcdef0123456789abcdef01234567", b"x" * 49):
        assert in_token.sign(text) == in_file.sign(text)
        assert in_token.sign_sha1(text) == in_file.sign_sha1(text)
        assert in_token.sign_plain(text) == in_file.sign_plain(text)


@needs_token
def test_a_repository_lives_on_keys_in_a_token(token: Path, tmp_path: Path) -> None:
    keys = load_keys(str(token / "keys"), FQRN)
    master = load_master_key(str(token / "keys"), FQRN)
    store = DirectoryStore(str(tmp_path / "storage"))
    create(store, AllKeys(keys=keys, master=master), NOW)
    change_tags((store, keys), adding("v1", None), NOW)
    renew_whitelist(store, master, Terms(days=9), NOW)
    opened = Repository.open(store, publishing.keys(), NOW)  # by the keys that the token's were made from
    assert opened.history().tag("v1") is not None
    assert store.has(MANIFEST_FILE)


@needs_token
def test_a_key_may_be_named_by_its_id(token: Path) -> None:
    found = TokenSigner.open(uri(token, "id=%02").encode(), what="it")
    assert found.public == publishing.keys().repository.public


@needs_token
@pytest.mark.parametrize(
    ("named", "where", "pin"),
    [
        ("object=nothing", "test", "pin"),
        ("object=key", "other", "pin"),
        ("object=key", "test", "wrong"),
        ("object=key", "test", "none"),
    ],
)
def test_a_token_without_the_key_is_one_sentence(token: Path, named: str, where: str, pin: str) -> None:
    (token / "wrong").write_text("9999")
    with pytest.raises(KeyFileError):
        TokenSigner.open(uri(token, named, where, pin).encode(), what="it").sign_plain(b"text")


@needs_token
def test_a_library_that_is_not_there(token: Path) -> None:
    text = uri(token, "object=key").replace(LIBRARY, "/nonexistent.so")
    with pytest.raises(MissingToolError, match="no PKCS#11 library"):
        TokenSigner.open(text.encode(), what="it")


def test_uris_are_read() -> None:
    text = "pkcs11:token=My%20Token;object=a;id=%01%ff?module-path=/l.so&pin-source=file:/p\n"
    assert TokenUri.parse(text, what="it") == TokenUri(
        module="/l.so", token="My Token", label="a", id=b"\x01\xff", pin_source="/p"
    )


@pytest.mark.parametrize(
    "text",
    [
        "pkcs11:",
        "pkcs11:token=a?module-path=/l",
        "pkcs11:object=a?module-path=/l",
        "pkcs11:token=a;object=b",
        "pkcs11:token=a;token=b;object=c?module-path=/l",
        "pkcs11:token=a;object=b;pin-value=1?module-path=/l",
        "pkcs11:token=a;object?module-path=/l",
        "pkcs11:token=a;object=b?module-path=/l&x=1",
    ],
)
def test_uris_that_say_too_little_or_something_else(text: str) -> None:
    with pytest.raises(KeyFileError) as caught:
        TokenUri.parse(text, what="the file")
    assert isinstance(caught.value, Error)
    assert "the file" in str(caught.value)


def test_a_password_is_no_uri(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    keys = publishing.copy_keys(tmp_path / "keys")
    (keys / f"{FQRN}.key").write_bytes(pem)
    with pytest.raises(KeyFileError, match="has a password"):
        load_keys(str(keys), FQRN)
