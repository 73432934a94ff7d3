"""A repository's keys on disk, named as the real tools name them, and the channel key beside them.

``<fqrn>.masterkey`` and ``.pub``: the master pair, needed to sign the whitelist and the statement of channel
keys; it may be kept elsewhere. ``<fqrn>.key`` and ``.crt``: the repository's key and certificate, which sign
the manifest. ``<fqrn>.channelkey``, and ``<fqrn>.channelkey-<name>`` where there are several: Ed25519 keys that
sign channel pointers. A publisher may have none of them: then others sign.
"""

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from headstart.cvmfs.signature import Certificate
from headstart.cvmfs.signing import Ed25519Signer, RsaSigner, Signer
from headstart.cvmfs.trust import MasterKeys
from headstart.errors import ConfigurationError, CorruptError, KeyFileError
from headstart.namedfile import read_named
from headstart.names import Fqrn
from headstart.publickeys import KEY_LIMIT, read_key_file
from headstart.tokens import PREFIX, TokenSigner

_BITS: Final = 2048
"""What the real tools make; a client verifies with any size."""
_CERTIFICATE_DAYS: Final = 365
_PRIVATE: Final = ("masterkey", "key", "channelkey")
_ALL: Final = (*_PRIVATE, "pub", "crt")
_KEY_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_SUCCESSOR: Final = ("pub", "key", "crt")
_PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryKeys:
    """What publishing needs; the master key is not among it."""

    fqrn: Fqrn
    masters: MasterKeys
    """The public master key: what was published before is verified with it."""
    repository: Signer
    """Signs the manifest."""
    certificate: Certificate
    certificate_pem: bytes
    channels: tuple[Ed25519Signer, ...]
    """Sign channel pointers."""


def create_keys(directory: str, fqrn: Fqrn, *, now: datetime) -> RepositoryKeys:
    """Make all five files, or none; existing ones are never touched.

    The files are made complete in a folder of their own, whose renaming is the point of no return, and then
    linked into place. Where an earlier call was killed in between, this one finishes with the keys of that one.

    Raises:
        KeyFileError: one of the files is there already, or they cannot be written.
    """
    return _write_all(directory, fqrn, lambda: _make(fqrn, now))


def load_keys(directory: str, fqrn: Fqrn) -> RepositoryKeys:
    """Read what publishing needs.

    Raises:
        KeyFileError: a file is missing, readable by others, no such key, or does not fit its other half.
    """
    path = os.path.join(directory, str(fqrn))
    repository = _signer(f"{path}.key")
    pem = read_key_file(f"{path}.crt")
    certificate = read_certificate(f"{path}.crt")
    masters = load_public(directory, fqrn)
    if certificate.key != repository.public:
        raise KeyFileError(f"{path}.crt is not the certificate of {path}.key")
    return RepositoryKeys(
        fqrn=fqrn,
        masters=masters,
        repository=repository,
        certificate=certificate,
        certificate_pem=pem,
        channels=load_channel_keys(directory, fqrn),
    )


def load_channel_keys(directory: str, fqrn: Fqrn) -> tuple[Ed25519Signer, ...]:
    """Read all channel keys of a repository that are in a directory.

    Raises:
        KeyFileError: one is readable by others, or no Ed25519 key.
    """
    paths = [os.path.join(directory, name) for name in _channel_key_names(directory, fqrn)]
    return tuple(Ed25519Signer.from_pem(_read_channel_key(path), what=path) for path in paths)


def _read_channel_key(path: str) -> bytes:
    data = _read_private(path)
    if data.startswith(PREFIX):
        raise KeyFileError(
            f"{path} says that the key is in a token, and a channel key cannot be in one",
            hint="put the key itself into the file; headstart channel new-key makes one",
        )
    return data


def create_channel_key(directory: str, fqrn: Fqrn, name: str) -> Ed25519Signer:
    """Make one more channel key, ``<fqrn>.channelkey-<name>``.

    Raises:
        ConfigurationError: no such name.
        KeyFileError: the file is there already, or cannot be written.
    """
    if _KEY_NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{name[:80]!r} is no name of a key", hint="use up to 31 lower-case letters, digits and hyphens"
        )
    _refuse_address(directory)
    path = os.path.join(directory, f"{fqrn}.channelkey-{name}")
    key = ed25519.Ed25519PrivateKey.generate()
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        _write_new(path, _private_pem(key), 0o600)
    except FileExistsError as error:
        if not os.path.isdir(directory):
            raise KeyFileError(
                f"{directory} is no directory", hint="name one that keys can be put into"
            ) from error
        raise KeyFileError(f"{path} is there already", hint="keys are never overwritten") from error
    except OSError as error:
        raise KeyFileError(f"cannot write keys to {directory}: {error.strerror}") from error
    return Ed25519Signer(key)


def load_master_key(directory: str, fqrn: Fqrn) -> Signer:
    """Read the private master key, which signs the whitelist and the statement of channel keys.

    Raises:
        KeyFileError: it is missing, readable by others, no RSA key, or not the other half of the public one.
    """
    path = os.path.join(directory, str(fqrn))
    master = _signer(f"{path}.masterkey")
    public = load_public(directory, fqrn)
    if master.public not in public.keys:
        raise KeyFileError(f"{path}.pub is not the public half of {path}.masterkey")
    return master


def _signer(path: str) -> Signer:
    """An RSA key in a file, or in the token that the file names (``headstart.tokens``)."""
    data = _read_private(path)
    if data.startswith(PREFIX):
        return TokenSigner.open(data, what=path)
    return RsaSigner.from_pem(data, what=path)


def load_public(directory: str, fqrn: Fqrn) -> MasterKeys:
    """Read the public master key.

    Raises:
        KeyFileError: it is missing, or no RSA public key.
    """
    path = os.path.join(directory, f"{fqrn}.pub")
    try:
        return MasterKeys.from_pems({path: read_key_file(path)})
    except CorruptError as error:
        raise KeyFileError(error.message) from error


def read_certificate(path: str) -> Certificate:
    """Read a certificate's file.

    Raises:
        KeyFileError: it is missing, or no certificate with an RSA key.
    """
    try:
        data = read_named(path, what="certificate", limit=KEY_LIMIT, error=KeyFileError)
        return Certificate.from_pem(data, what=path)
    except CorruptError as error:
        raise KeyFileError(error.message) from error


def create_successor(directory: str, into: str, fqrn: Fqrn, *, now: datetime) -> RepositoryKeys:
    """Make a new repository key and certificate, in another directory; the other keys are copied along.

    The private master key is not. The files are all made, or none; existing ones are never touched.

    Args:
        directory: of the present keys.
        into: where the next ones are to be.
        fqrn: the repository.
        now: UTC.

    Raises:
        KeyFileError: the present keys cannot be read, or the new ones not be written.
    """
    plan_successor(directory, into, fqrn)
    path = os.path.join(directory, str(fqrn))
    channel_keys = _channel_key_names(directory, fqrn)

    def make() -> Mapping[str, bytes]:
        key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
        return {
            f"{fqrn}.pub": read_key_file(f"{path}.pub"),
            f"{fqrn}.key": _private_pem(key),
            f"{fqrn}.crt": make_certificate(fqrn, key, now=now),
            **{name: _read_private(os.path.join(directory, name)) for name in channel_keys},
        }

    return _write_all(into, fqrn, make)


def plan_successor(directory: str, into: str, fqrn: Fqrn) -> tuple[str, ...]:
    """The files that ``create_successor`` will make or, after it was killed, finish; nothing is written.

    Raises:
        KeyFileError: it would refuse.
    """
    load_keys(directory, fqrn)
    _refuse_address(into)
    if os.path.realpath(directory) == os.path.realpath(into):
        raise KeyFileError(
            f"{into} has the present keys in it", hint="name another directory for the next ones"
        )
    if os.path.lexists(into) and not os.path.isdir(into):
        raise KeyFileError(f"{into} is no directory", hint="name one that keys can be put into")
    if not os.path.isdir(os.path.join(into, f".{fqrn}.new-keys")):
        _refuse_existing(into, fqrn)
    names = (*(f"{fqrn}.{kind}" for kind in _SUCCESSOR), *_channel_key_names(directory, fqrn))
    return tuple(os.path.join(into, name) for name in names)


def _channel_key_names(directory: str, fqrn: Fqrn) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise KeyFileError(f"cannot read the key directory {directory}: {error.strerror}") from error
    own = f"{fqrn}.channelkey"
    return [name for name in names if name == own or name.startswith(f"{own}-")]


def _refuse_address(directory: str) -> None:
    """Keys would land in a directory named ``s3:``."""
    if "://" in directory:
        raise KeyFileError(f"{directory} is an address", hint="keys are kept in a directory of this machine")


def _write_all(directory: str, fqrn: Fqrn, make: Callable[[], Mapping[str, bytes]]) -> RepositoryKeys:
    _refuse_address(directory)
    ready = os.path.join(directory, f".{fqrn}.new-keys")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if not os.path.isdir(ready):
            _refuse_existing(directory, fqrn)
            _prepare(directory, ready, make())
        _link_into_place(directory, ready)
    except (FileExistsError, NotADirectoryError) as error:
        raise KeyFileError(f"{directory} is no directory", hint="name one that keys can be put into") from error
    except OSError as error:
        raise KeyFileError(f"cannot write keys to {directory}: {error.strerror}") from error
    return load_keys(directory, fqrn)


def _read_private(path: str) -> bytes:
    data = read_key_file(path)
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        raise KeyFileError(
            f"the private key {path} is open to others (mode {mode:04o})", hint=f"run: chmod 600 {path}"
        )
    return data


def _make(fqrn: Fqrn, now: datetime) -> Mapping[str, bytes]:
    """The content of each file, by its ending."""
    master, repository = (rsa.generate_private_key(public_exponent=65537, key_size=_BITS) for _ in range(2))
    return {
        f"{fqrn}.masterkey": _private_pem(master),
        f"{fqrn}.pub": master.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        f"{fqrn}.key": _private_pem(repository),
        f"{fqrn}.crt": make_certificate(fqrn, repository, now=now),
        f"{fqrn}.channelkey": _private_pem(ed25519.Ed25519PrivateKey.generate()),
    }


def make_certificate(fqrn: Fqrn, key: rsa.RSAPrivateKey, *, now: datetime) -> bytes:
    """A certificate as the real tools make it, in PEM: self-signed, a year, named after the repository."""
    x509 = import_module("cryptography.x509")  # slow, and who has a certificate has no need of it
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{fqrn} CernVM-FS Release Managers"[:64])])
    start = now.astimezone(UTC).replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=_CERTIFICATE_DAYS))
        .sign(key, hashes.SHA256())
    )
    made: bytes = certificate.public_bytes(serialization.Encoding.PEM)
    return made


def _private_pem(key: _PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _refuse_existing(directory: str, fqrn: Fqrn) -> None:
    for kind in _ALL:
        path = os.path.join(directory, f"{fqrn}.{kind}")
        if os.path.lexists(path):
            raise KeyFileError(
                f"{path} is there already", hint="keys are never overwritten: use another directory"
            )


def _prepare(directory: str, ready: str, files: Mapping[str, bytes]) -> None:
    """Write ``files`` to a folder and, when all are on disk, give it the name ``ready``."""
    with tempfile.TemporaryDirectory(dir=directory, prefix=".keys-", ignore_cleanup_errors=True) as work:
        inner = os.path.join(work, "keys")
        os.mkdir(inner, 0o700)
        for name, content in files.items():
            private = name.rpartition(".")[2].partition("-")[0] in _PRIVATE
            _write_new(os.path.join(inner, name), content, 0o600 if private else 0o644)
        os.rename(inner, ready)


def _write_new(path: str, content: bytes, mode: int) -> None:
    """A file that was not there, on the disk when this comes back."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(file, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(file)


def _link_into_place(directory: str, ready: str) -> None:
    names = sorted(os.listdir(ready))
    for name in names:
        source, target = os.path.join(ready, name), os.path.join(directory, name)
        try:
            os.link(source, target)
        except FileExistsError as error:
            # The same file: linked before a call was killed.
            if not os.path.samefile(source, target):
                raise KeyFileError(f"{target} is there already, and not of the keys in {ready}") from error
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(ready, name))
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(ready)
