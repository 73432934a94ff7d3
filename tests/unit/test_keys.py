"""Key files: all or none, never overwritten, never open to others, and only in fitting pairs."""

import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from headstart.errors import KeyFileError
from headstart.keys import create_keys, load_keys, load_master_key
from headstart.names import Fqrn
from headstart.publickeys import find_public_keys
from simulator import NOW, rsa_signer

FQRN = Fqrn("julia.example.org")
ENDINGS = ["channelkey", "crt", "key", "masterkey", "pub"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys") / "below"
    create_keys(str(directory), FQRN, now=NOW)
    return directory


@pytest.fixture
def keys(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    for path in made.iterdir():
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        copy.chmod(stat.S_IMODE(path.stat().st_mode))
    return tmp_path


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_five_files_and_nothing_else(made: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == [f"{FQRN}.{ending}" for ending in ENDINGS]
    modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()}
    assert modes[".masterkey"] == modes[".key"] == modes[".channelkey"] == 0o600
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    certificate = x509.load_pem_x509_certificate((made / f"{FQRN}.crt").read_bytes())
    assert certificate.subject.rfc4514_string() == f"CN={FQRN} CernVM-FS Release Managers"
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(days=365)


def test_what_was_made_is_loaded_and_fits(made: Path) -> None:
    loaded, master = load_keys(str(made), FQRN), load_master_key(str(made), FQRN)
    assert loaded.masters.keys == (master.public,)
    assert loaded.certificate.key == loaded.repository.public != master.public
    (channel,) = loaded.channels
    assert channel.public.verifies(b"x", channel.sign(b"x"))
    assert find_public_keys(FQRN, directories=[str(made)]) == loaded.masters


def test_a_long_name_still_makes_a_certificate(tmp_path: Path) -> None:
    name = Fqrn("a" * 30 + ".example.organisation.org")
    assert create_keys(str(tmp_path), name, now=NOW).fqrn == name


@pytest.mark.parametrize("ending", ENDINGS)
def test_existing_keys_are_never_overwritten(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"{FQRN}.{ending}").write_bytes(b"precious")
    with pytest.raises(KeyFileError, match=f"{FQRN}.{ending} is there already"):
        create_keys(str(tmp_path), FQRN, now=NOW)
    assert contents(tmp_path) == {f"{FQRN}.{ending}": b"precious"}


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / f"{FQRN}.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="already"):
        create_keys(str(tmp_path), FQRN, now=NOW)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("linked", range(6))
@pytest.mark.parametrize("removed", [0, 1, 4])
def test_killed_while_putting_keys_in_place_then_started_again(
    made: Path, tmp_path: Path, linked: int, removed: int
) -> None:
    """Whichever link or removal came last before the kill, the next call ends with the same five files."""
    ready = tmp_path / f".{FQRN}.new-keys"
    ready.mkdir()
    names = sorted(contents(made))
    for name in names:
        (ready / name).write_bytes((made / name).read_bytes())
        (ready / name).chmod(0o600)
    for name in names[:linked]:
        os.link(ready / name, tmp_path / name)
    if linked == len(names):
        for name in names[:removed]:
            (ready / name).unlink()
    create_keys(str(tmp_path), FQRN, now=NOW)
    assert contents(tmp_path) == contents(made)


def test_killed_while_making_keys_then_started_again(tmp_path: Path) -> None:
    (tmp_path / ".keys-abandoned" / "keys").mkdir(parents=True)
    create_keys(str(tmp_path), FQRN, now=NOW)
    assert sorted(path.suffix[1:] for path in tmp_path.glob(f"{FQRN}.*")) == ENDINGS


def test_an_unfinished_call_does_not_take_other_keys_for_its_own(made: Path, tmp_path: Path) -> None:
    ready = tmp_path / f".{FQRN}.new-keys"
    ready.mkdir()
    (ready / f"{FQRN}.key").write_bytes((made / f"{FQRN}.key").read_bytes())
    (tmp_path / f"{FQRN}.key").write_bytes(b"precious")
    with pytest.raises(KeyFileError, match="already"):
        create_keys(str(tmp_path), FQRN, now=NOW)
    assert (tmp_path / f"{FQRN}.key").read_bytes() == b"precious"


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in ("file", "file/keys"):
        with pytest.raises(KeyFileError, match="is no directory"):
            create_keys(str(tmp_path / path), FQRN, now=NOW)
    with pytest.raises(KeyFileError, match="cannot write keys"):
        create_keys("/proc/nowhere/keys", FQRN, now=NOW)


@pytest.mark.parametrize("ending", ENDINGS)
def test_missing_file(keys: Path, ending: str) -> None:
    (keys / f"{FQRN}.{ending}").unlink()
    if ending != "masterkey":
        load = load_keys if ending != "pub" else load_master_key
        if ending == "channelkey":
            # Others may sign channels.
            assert load_keys(str(keys), FQRN).channels == ()
            return
        with pytest.raises(KeyFileError, match=f"no key file .*{ending}"):
            load(str(keys), FQRN)
    else:
        # Publishing does not need it: it may be kept elsewhere.
        load_keys(str(keys), FQRN)
        with pytest.raises(KeyFileError, match=r"no key file .*masterkey"):
            load_master_key(str(keys), FQRN)


@pytest.mark.parametrize("ending", ["masterkey", "key", "channelkey"])
@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o601])
def test_private_keys_open_to_others_are_refused(keys: Path, ending: str, mode: int) -> None:
    (keys / f"{FQRN}.{ending}").chmod(mode)
    load = load_master_key if ending == "masterkey" else load_keys
    with pytest.raises(KeyFileError, match=f"{ending} is open to others .*chmod 600"):
        load(str(keys), FQRN)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [b"", b"nonsense", b"x" * 70_000])
def test_what_is_no_key(keys: Path, ending: str, content: bytes) -> None:
    (keys / f"{FQRN}.{ending}").write_bytes(content)
    load = load_master_key if ending in ("masterkey", "pub") else load_keys
    with pytest.raises(KeyFileError, match=ending):
        load(str(keys), FQRN)


def pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, password: bytes | None = None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
    )


def test_keys_of_another_kind_or_with_a_password(keys: Path) -> None:
    (keys / f"{FQRN}.channelkey").write_bytes(pem(rsa_signer("master").key))
    with pytest.raises(KeyFileError, match="no Ed25519 key"):
        load_keys(str(keys), FQRN)
    (keys / f"{FQRN}.key").write_bytes(pem(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(KeyFileError, match="no RSA key"):
        load_keys(str(keys), FQRN)
    (keys / f"{FQRN}.key").write_bytes(pem(rsa_signer("master").key, b"secret"))
    with pytest.raises(KeyFileError, match="password"):
        load_keys(str(keys), FQRN)


def test_halves_that_do_not_fit(keys: Path) -> None:
    (keys / f"{FQRN}.key").write_bytes(pem(rsa_signer("other").key))
    with pytest.raises(KeyFileError, match=r"crt is not the certificate of"):
        load_keys(str(keys), FQRN)
    (keys / f"{FQRN}.masterkey").write_bytes(pem(rsa_signer("other").key))
    with pytest.raises(KeyFileError, match=r"pub is not the public half of"):
        load_master_key(str(keys), FQRN)


def test_where_public_keys_are_looked_for(made: Path, tmp_path: Path) -> None:
    public, other = (made / f"{FQRN}.pub").read_bytes(), rsa_signer("other").public.to_pem()
    with pytest.raises(KeyFileError, match=f"no public key of {FQRN}.*--key"):
        find_public_keys(FQRN, directories=[str(tmp_path)])
    domain = tmp_path / "example.org"
    domain.mkdir()
    # Keys of the domain, as sites configure it, until there is one of the repository itself.
    (domain / "b.pub").write_bytes(other)
    (domain / "a.pub").write_bytes(public)
    (domain / "readme").write_bytes(b"no key")
    assert len(find_public_keys(FQRN, directories=[str(tmp_path)]).keys) == 2
    (domain / f"{FQRN}.pub").write_bytes(public)
    assert len(find_public_keys(FQRN, directories=[str(tmp_path)]).keys) == 1
    # Keys that the user names are the only ones that count.
    given = tmp_path / "given.pub"
    given.write_bytes(other)
    found = find_public_keys(FQRN, [str(given)], directories=[str(tmp_path)])
    assert found.keys == (rsa_signer("other").public,)
    assert find_public_keys(None, [str(given)]).keys == found.keys
    with pytest.raises(KeyFileError, match="no public key of the repository"):
        find_public_keys(None, directories=[str(tmp_path)])
    given.write_bytes(b"nonsense")
    with pytest.raises(KeyFileError, match=r"given\.pub"):
        find_public_keys(FQRN, [str(given)])
    with pytest.raises(KeyFileError, match="no key file"):
        find_public_keys(FQRN, [str(tmp_path / "absent.pub")])
