"""``info/v1``: what a web server of several repositories says of them (format section 8).

It lies beside the repositories, whose storages are directories of one document root that is served as
``/cvmfs``. Nobody needs it to read a repository; monitoring looks at it. ``cvmfs_server update-info`` writes
the same from the site's configuration; here the storages themselves say what they are, and a mirror is known by
``.cvmfs_last_snapshot``.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.metainfo import MetaInfo
from headstart.cvmfs.signature import LETTER_LIMIT, Letter
from headstart.errors import CorruptError, Error, StorageError
from headstart.names import Fqrn
from headstart.repository.replica import SNAPSHOT_FILE

INFO: Final = "info/v1"
REPOSITORIES_FILE: Final = "repositories.json"
META_FILE: Final = "meta.json"
_SCHEMA: Final = 1
_NEW: Final = ".headstart-new"
_SKELETON: Final[Mapping[str, object]] = {"administrator": "", "email": "", "organisation": "", "custom": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A repository below the document root."""

    name: Fqrn
    directory: str
    """Its name there, and so in its address."""
    replica: bool

    def to_table(self) -> dict[str, str]:
        """As ``repositories.json`` says it."""
        alias = {} if self.directory == str(self.name) else {"alias": self.directory}
        return {"name": str(self.name), **alias, "url": f"/cvmfs/{self.directory}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoPlan:
    """The files to write, by their names in ``info/v1``."""

    served: tuple[Served, ...]
    faults: tuple[Error, ...]
    """What is wrong with the repositories that are left out, each in a sentence."""
    files: Mapping[str, bytes]


def plan_info(docroot: str, meta: MetaInfo | None) -> InfoPlan:
    """Look what is below a document root; nothing is written.

    Args:
        docroot: the directory that is served as ``/cvmfs``.
        meta: what the server is to say of itself; None leaves it as it is, or begins with a skeleton.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        names = sorted(os.listdir(docroot))
    except OSError as error:
        raise StorageError(
            f"cannot read {docroot}: {error.strerror}", hint="name the directory that is served as /cvmfs"
        ) from error
    served: list[Served] = []
    faults: list[Error] = []
    for name in names:
        try:
            found = _served(docroot, name)
        except (CorruptError, StorageError) as error:
            # One that is damaged must not hide the others.
            faults.append(error)
            continue
        if found is not None:
            served.append(found)
    table = {
        "schema": _SCHEMA,
        "repositories": [item.to_table() for item in served if not item.replica],
        "replicas": [item.to_table() for item in served if item.replica],
    }
    files = {REPOSITORIES_FILE: _json(table)}
    if meta is not None:
        files[META_FILE] = meta.to_bytes()
    elif not os.path.exists(os.path.join(docroot, INFO, META_FILE)):
        files[META_FILE] = _json(_SKELETON)
    return InfoPlan(served=tuple(served), faults=tuple(faults), files=files)


def write_info(docroot: str, plan: InfoPlan) -> None:
    """Write the files, each of them at once.

    Raises:
        StorageError: they cannot be written.
    """
    place = os.path.join(docroot, INFO)
    try:
        os.makedirs(place, exist_ok=True)
        for name, content in plan.files.items():
            part = os.path.join(place, _NEW)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with open(file, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fchmod(file, 0o644)
                os.fsync(file)
            os.replace(part, os.path.join(place, name))
    except OSError as error:
        raise StorageError(f"cannot write {place}: {error.strerror}") from error


def _served(docroot: str, name: str) -> Served | None:
    place = os.path.join(docroot, name)
    try:
        with open(os.path.join(place, MANIFEST_FILE), "rb") as file:
            data = file.read(LETTER_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"cannot read {place}: {error.strerror}") from error
    try:
        manifest = Manifest.from_bytes(Letter.cut(data, what=MANIFEST_FILE).text)
    except CorruptError as error:
        raise CorruptError(
            f"{place}: {error.message}", hint="see what is wrong: headstart repo check"
        ) from error
    replica = os.path.exists(os.path.join(place, SNAPSHOT_FILE))
    return Served(name=manifest.fqrn, directory=name, replica=replica)


def _json(table: object) -> bytes:
    return json.dumps(table, indent=2, ensure_ascii=False).encode() + b"\n"
