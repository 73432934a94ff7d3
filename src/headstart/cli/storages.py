"""Where a repository's storage is, as a user names it: a directory, or ``s3://bucket/prefix``."""

import argparse
import os
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Final

from headstart.errors import ConfigurationError, MissingToolError
from headstart.namedfile import read_named
from headstart.s3place import PUBLIC_READ, SCHEME, S3Access, S3Place, Surroundings, acl_of, parse_s3_config
from headstart.source import BucketSource, StorageSource
from headstart.store import DirectoryStore, NewStorage
from headstart.stratum import DirectoryStratum, StorageStratum, Stratum

_LIMIT: Final = 1 << 16
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def add_storage_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Declare ``--storage`` and ``--s3-config``."""
    parser.add_argument(
        "--storage",
        required=required,
        metavar="DIR",
        help="the repository's storage: a directory, or s3://BUCKET/PREFIX",
    )
    add_s3_argument(parser)


def add_s3_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--s3-config``."""
    parser.add_argument(
        "--s3-config",
        metavar="FILE",
        help="CVMFS's s3.conf, for s3:// (default: the variables and files of AWS)",
    )


def in_bucket(text: str) -> bool:
    """Whether a storage is in an object store, by its name."""
    return text.startswith(SCHEME)


def storage_of(args: argparse.Namespace, env: Mapping[str, str] = os.environ) -> NewStorage:
    """The storage that the arguments name."""
    return open_storage(args.storage, env, args.s3_config)


def open_storage(text: str, env: Mapping[str, str], config: str | None = None) -> NewStorage:
    """A storage by its name.

    Args:
        text: a directory, or ``s3://bucket/prefix``.
        env: the user's environment.
        config: an ``s3.conf``; where there is none, ``HEADSTART_S3_CONFIG`` may name it.

    Raises:
        ConfigurationError: the name or the settings are wrong.
        MissingToolError: boto3 is not installed.
    """
    if not in_bucket(text):
        if config is not None:
            raise ConfigurationError(
                f"--s3-config is of an object store, and {text} is a directory", hint="name s3://BUCKET/PREFIX"
            )
        if _URL.match(text):
            # Else a directory named "http:" would be made here.
            raise ConfigurationError(
                f"{text[:200]!r} is an address, and a storage is written to",
                hint="name its directory, or s3://BUCKET/PREFIX in small letters",
            )
        return DirectoryStore(text)
    place = S3Place.parse(text)
    file = config or env.get("HEADSTART_S3_CONFIG")
    if file:
        access = parse_s3_config(_read(file), place, where=file)
    else:
        acl = acl_of(env.get("HEADSTART_S3_ACL", PUBLIC_READ), "HEADSTART_S3_ACL")
        access = S3Access(server=Surroundings(), acl=acl)
    try:
        module = import_module("headstart.s3store")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("boto3", "botocore"):
            raise
        raise MissingToolError(
            f"{place.name} needs the Python package boto3, which is not installed",
            hint="install it: pip install 'headstart[s3]'",
        ) from error
    made: NewStorage = module.S3Store(place, access)
    return made


def _read(file: str) -> str:
    try:
        return read_named(file, what="s3.conf", limit=_LIMIT, error=ConfigurationError).decode()
    except ValueError as error:
        raise ConfigurationError(f"cannot read the s3.conf {file}: {error}") from error


def source_on(store: NewStorage) -> StorageSource | BucketSource:
    """A storage as a source to read from."""
    return (
        StorageSource(directory=store.root)
        if isinstance(store, DirectoryStore)
        else BucketSource(storage=store)
    )


def stratum_on(store: NewStorage) -> Stratum:
    """Where to read the files of a storage from."""
    return DirectoryStratum(store.root) if isinstance(store, DirectoryStore) else StorageStratum(store)
