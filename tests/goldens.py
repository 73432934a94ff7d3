"""The golden repositories, made by the real server tools, read into memory."""

import functools
import json
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).resolve().parent.parent.parent / "shared" / "golden"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
"""A moment at which both are valid."""

needed = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the golden repositories are not in {GOLDEN}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    fqrn: str
    archive: str
    public_key: str
    listing: str

    @property
    def files(self) -> dict[str, bytes]:
        """Every file of the storage, by its path below the repository's root."""
        return _files(self.archive, self.fqrn)

    @property
    def master(self) -> bytes:
        return (GOLDEN / self.public_key).read_bytes()

    def entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = json.loads((GOLDEN / self.listing).read_bytes())
        return entries

    def private(self, kind: str) -> bytes:
        """A test key: ``masterkey``, ``key``, ``crt`` or ``pub``."""
        with tarfile.open(GOLDEN / "golden-test-private-keys.tar") as archive:
            for member in archive:
                if Path(member.name).name == f"{self.fqrn}.{kind}":
                    stream = archive.extractfile(member)
                    assert stream is not None
                    return stream.read()
        raise AssertionError(f"no {kind} of {self.fqrn}")


@functools.cache
def _files(archive: str, fqrn: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with tarfile.open(GOLDEN / archive) as tar:
        for member in tar:
            path = member.name.removeprefix("./").removeprefix(f"{fqrn}/")
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is not None:
                files[path] = stream.read()
    return files


SHA1 = Golden(
    fqrn="test.local.repo",
    archive="golden-repo.tar",
    public_key="golden-test.local.repo.pub",
    listing="golden-listing-rev-B.json",
)
SHAKE128 = Golden(
    fqrn="shake.local.repo",
    archive="golden-repo-shake128-uncompressed.tar.xz",
    public_key="golden-shake.local.repo.pub",
    listing="golden-shake-listing-rev-B.json",
)
BOTH = [pytest.param(SHA1, id="sha1"), pytest.param(SHAKE128, id="shake128")]
