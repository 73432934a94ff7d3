"""Stating releases: what is to be signed, so that nodes believe a release that nothing else pins.

A statement says what ``release.json`` and the lock in the release say. So it can be made by whoever has the
release, today or in a year, and is proven again from them where it is published. A release is stated only when
somebody names it: by publishing it, by letting a channel point at it, or by its reference. What merely lies in
the repository may be a thief's.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from headstart import __version__
from headstart.channel import Pointer
from headstart.errors import ConfigurationError, CorruptError, TrustError, UnknownError
from headstart.names import Sha256
from headstart.project import LOCK_FILE, Lock, Tracked
from headstart.published import PublishedTree, release
from headstart.release import JULIA_FILE, FileRecord, Release
from headstart.releasestatement import STATEMENT_LIMIT, ReleaseStatement, StatedImage
from headstart.repository.channels import Channels, RepositoryTree

LOCK_PATH: Final = f"project/{LOCK_FILE}"
"""Of the lock in a release."""
_LOCK_LIMIT: Final = 1 << 24


def statement_of(made: Release, digest: Sha256, lock: bytes) -> ReleaseStatement:
    """What is to be said of a release.

    Args:
        made: its record.
        digest: the SHA-256 of that.
        lock: the file in it; nothing where the record names none.

    Raises:
        CorruptError: the lock is not the one on record, or none; or there are too many files to name.
    """
    records = {f"/julia/{made.julia}/{JULIA_FILE}": made.julia_digest}
    recorded = made.files.get(LOCK_PATH)
    if isinstance(recorded, FileRecord):
        if Sha256.of(lock) != recorded.sha256:
            raise CorruptError(f"{LOCK_PATH} of {made.stack} {made.id} is not the one on record")
        records[LOCK_PATH] = recorded.sha256
    said = ReleaseStatement(
        fqrn=made.fqrn,
        stack=made.stack,
        release=made.id,
        digest=digest,
        images={
            path: record.sha256
            for path, record in made.files.items()
            if isinstance(record, FileRecord)
            and any(path.startswith(f"{image.directory}/") for image in made.images)
        },
        targets=tuple(
            StatedImage(
                target=image.target,
                cpu_target=image.cpu_target,
                kinds=("sysimage",) * len(image.system) + ("pkgimages",) * len(image.packages),
            )
            for image in made.images
        ),
        options=made.julia_options,
        environment=made.julia_environment,
        inputs=made.inputs,
        records=records,
        packages=_packages(lock, made),
        built=made.built,
        headstart=__version__,
    )
    # An envelope writes it in base64, a third longer.
    if len(said.to_bytes()) > STATEMENT_LIMIT // 2:
        raise CorruptError(
            f"{made.stack} {made.id} has {len(said.images)} files of images, too many to be stated"
        )
    return said


def _packages(lock: bytes, made: Release) -> dict[str, str]:
    try:
        packages = Lock.parse(lock.decode(), LOCK_PATH).packages
    except (ConfigurationError, ValueError) as error:
        raise CorruptError(f"{LOCK_PATH} of {made.stack} {made.id} cannot be read ({error})") from error
    return {
        f"pkg:julia/{quote(package.name)}?uuid={package.uuid}": package.source.tree
        for package in packages
        if isinstance(package.source, Tracked)
    }


def statement_in(tree: PublishedTree, made: Release, digest: Sha256) -> ReleaseStatement:
    """What is to be said of a release that is published.

    Raises:
        CorruptError, MissingError: what it is made of cannot be read.
    """
    lock = b""
    if LOCK_PATH in made.files:
        lock = tree.read(f"/stacks/{made.stack}/{made.id}/{LOCK_PATH}", limit=_LOCK_LIMIT)
    return statement_of(made, digest, lock)


def unstated(state: Channels, pointers: Iterable[Pointer]) -> tuple[ReleaseStatement, ...]:
    """The statements that the releases of some pointers lack.

    Who proves the pointers misses a release that is not there.
    """
    tree = RepositoryTree(state.repository)
    found: dict[Sha256, ReleaseStatement] = {}
    for pointer in pointers:
        if pointer.digest in found or state.stated(pointer.stack, pointer.digest) is not None:
            continue
        try:
            made, digest = release(tree, pointer.stack, pointer.release)
        except UnknownError:
            continue
        if digest == pointer.digest:
            found[digest] = statement_in(tree, made, digest)
    return tuple(found.values())


def check_said(tree: PublishedTree, statement: ReleaseStatement) -> None:
    """Refuse a statement that says anything else than what the repository has.

    Raises:
        UnknownError: there is no such release.
        TrustError: it is another one, or another account of it.
        CorruptError, MissingError: it cannot be read.
    """
    made, digest = release(tree, statement.stack, statement.release)
    said = statement_in(tree, made, digest)
    if statement != replace(said, headstart=statement.headstart):
        raise TrustError(
            f"the statement of {statement.stack}@{statement.digest} is not what {tree.fqrn} has in release "
            f"{made.id}, which is {digest}",
            hint="make it anew, from the present state",
        )
