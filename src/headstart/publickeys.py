"""Finding a repository's public master keys: what a reader trusts. Standard library only."""

import os
from collections.abc import Sequence
from typing import Final

from headstart.cvmfs.trust import MasterKeys
from headstart.errors import CorruptError, KeyFileError
from headstart.namedfile import read_named
from headstart.names import Fqrn

KEYS_DIRECTORIES: Final = ("/etc/cvmfs/keys",)
KEY_LIMIT: Final = 1 << 16
"""Bytes that a key, or a certificate, may have."""


def read_key_file(path: str) -> bytes:
    """A small file, or a ``KeyFileError`` that says why not."""
    return read_named(path, what="key file", limit=KEY_LIMIT, error=KeyFileError)


def find_public_keys(
    fqrn: Fqrn | None, given: Sequence[str] = (), *, directories: Sequence[str] = KEYS_DIRECTORIES
) -> MasterKeys:
    """The keys that a repository may be signed with.

    Args:
        fqrn: the repository; None when it is not known, and then keys must be given.
        given: paths of public keys that the user named; where there are any, no others count.
        directories: where CVMFS clients keep them: ``<fqrn>.pub`` there or below ``<domain>/``, else any key
            of the domain (``<domain>.pub``, ``<domain>/*.pub``), as sites configure it.

    Raises:
        KeyFileError: none is found, or one is no RSA public key.
    """
    paths = list(given) or (_configured(fqrn, directories) if fqrn is not None else [])
    if not paths:
        raise KeyFileError(
            f"there is no public key of {fqrn or 'the repository'} below {' or '.join(directories)}",
            hint="name its public key file with --key",
        )
    try:
        return MasterKeys.from_pems({path: read_key_file(path) for path in paths})
    except CorruptError as error:
        raise KeyFileError(
            error.message, hint="name the repository's .pub file, which starts with -----BEGIN PUBLIC KEY-----"
        ) from error


def _configured(fqrn: Fqrn, directories: Sequence[str]) -> list[str]:
    domain = fqrn.text.partition(".")[2]
    for directory in directories:
        of_domain = os.path.join(directory, domain)
        own = [os.path.join(place, f"{fqrn}.pub") for place in (directory, of_domain)]
        found = [path for path in own if os.path.isfile(path)]
        if not found:
            shared = [os.path.join(directory, f"{domain}.pub"), *_public_keys_in(of_domain)]
            found = [path for path in shared if os.path.isfile(path)]
        if found:
            return found
    return []


def _public_keys_in(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    # Any of them may sign, as with a real client; the whitelist must name the repository all the same.
    return [os.path.join(directory, name) for name in sorted(names) if name.endswith(".pub")]
