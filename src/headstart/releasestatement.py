"""Release statements: who vouches for a release that neither a channel nor its digest pins.

A pointer says which release a channel means, and a digest is the release. Who names a release by its id, by a
few digits, or not at all has nothing but the repository key's word, unless a statement of the release is signed
by the keys that sign channels. It is an in-toto Statement (v1) in a DSSE envelope, and its predicate is SLSA
provenance (v1): what ``release.json`` and the lock in the release say of how it was made, for whoever reads
such things. Headstart goes by its first subject: the SHA-256 of ``release.json``, which has that of every file.

It lies beside the channels, ``/channels/<stack>/releases/<digest>.json``, because a release never changes and
the keys do. It has no date: it is as good as the keys that the present ``root.json`` names, and says the same
whoever writes it, so people can sign it far from each other.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from headstart.channel import Root
from headstart.dsse import Envelope, Signer, sign, verify
from headstart.errors import CorruptError, TrustError
from headstart.names import Fqrn, ReleaseId, Sha256, StackName
from headstart.record import Table, canonical, one_spelling
from headstart.release import RELEASE_FILE, relative_path

STATEMENT_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_LIMIT: Final = 1 << 22
"""Bytes that the file may have. With package images it names some hundred files for each target."""
IN_TOTO: Final = "https://in-toto.io/Statement/v1"
PROVENANCE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:headstart:release:1"
"""What the parameters mean; another number where they change."""
BUILDER: Final = "urn:headstart:build"
_TREE: Final = re.compile(r"[0-9a-f]{40}")


def statements_path(stack: StackName) -> str:
    """The directory of all statements of a stack's releases."""
    return f"/channels/{stack}/releases"


def statement_path(stack: StackName, digest: Sha256) -> str:
    """Where a release's statement is in the repository."""
    return f"{statements_path(stack)}/{digest.hex}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedImage:
    """What was built for one target."""

    target: str
    cpu_target: str
    """What Julia was told (``-C``)."""
    kinds: tuple[str, ...]
    """``sysimage``, ``pkgimages`` or both, as in ``Headstart.toml``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseStatement:
    """What is said of a release."""

    fqrn: Fqrn
    stack: StackName
    release: ReleaseId
    digest: Sha256
    """SHA-256 of the release's ``release.json``."""
    images: Mapping[str, Sha256]
    """Every file of every image, by path inside the release."""
    targets: tuple[StatedImage, ...]
    options: tuple[str, ...]
    """Options that a sealed start of this Julia takes."""
    environment: Mapping[str, str]
    inputs: Mapping[str, str]
    """What the id was made of: among others the lock, the options and the recipe of the build."""
    records: Mapping[str, Sha256]
    """``julia.json`` of its Julia, by its path in the repository, and its lock, by its path in the release."""
    packages: Mapping[str, str]
    """git-tree-sha1 of each package in the lock, by its package URL."""
    built: str
    headstart: str
    """The version that wrote this."""

    def __post_init__(self) -> None:
        where = statement_path(self.stack, self.digest)
        if RELEASE_FILE in self.images:
            raise CorruptError(f"{where} has {RELEASE_FILE} as an image")
        for path in self.images:
            relative_path(path)
        for package, tree in self.packages.items():
            if _TREE.fullmatch(tree) is None:
                raise CorruptError(
                    f"{where} has the tree {tree[:80]!r} of {package[:80]}, which is none of git's"
                )

    def to_bytes(self) -> bytes:
        """The payload."""
        subjects = {RELEASE_FILE: self.digest, **dict(sorted(self.images.items()))}
        parameters: dict[str, Any] = {
            "fqrn": str(self.fqrn),
            "stack": str(self.stack),
            "release": str(self.release),
            "images": [
                {"target": image.target, "cpu_target": image.cpu_target, "kinds": list(image.kinds)}
                for image in self.targets
            ],
            "options": list(self.options),
            "environment": dict(self.environment),
            "inputs": dict(self.inputs),
        }
        packages = [
            {"uri": package, "digest": {"gitTree": tree}} for package, tree in sorted(self.packages.items())
        ]
        return canonical(
            {
                "_type": IN_TOTO,
                "subject": _resources(subjects),
                "predicateType": PROVENANCE,
                "predicate": {
                    "buildDefinition": {
                        "buildType": BUILD_TYPE,
                        "externalParameters": parameters,
                        "resolvedDependencies": [*_resources(dict(sorted(self.records.items()))), *packages],
                    },
                    "runDetails": {
                        "builder": {"id": BUILDER, "version": {"headstart": self.headstart}},
                        "metadata": {"finishedOn": self.built},
                    },
                },
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Self:
        """Read the payload; ``where`` names it in errors.

        Raises:
            CorruptError: not such a statement in its one spelling, naming the key.
        """
        table = Table.parse(data, where)
        predicate = table.child("predicate")
        definition, run = predicate.child("buildDefinition"), predicate.child("runDetails")
        for part, key, wanted in (
            (table, "_type", IN_TOTO),
            (table, "predicateType", PROVENANCE),
            (definition, "buildType", BUILD_TYPE),
        ):
            if part.text(key) != wanted:
                raise part.wrong(key, f"{wanted}, which this Headstart knows")
        parameters = definition.child("externalParameters")
        subjects = _digests(table.children("subject"))
        dependencies = definition.children("resolvedDependencies")
        if RELEASE_FILE not in subjects:
            raise table.wrong("subject", f"of {RELEASE_FILE}")
        statement = cls(
            fqrn=parameters.named("fqrn", Fqrn),
            stack=parameters.named("stack", StackName),
            release=parameters.named("release", ReleaseId),
            digest=subjects.pop(RELEASE_FILE),
            images=subjects,
            targets=tuple(
                StatedImage(
                    target=image.text("target"),
                    cpu_target=image.text("cpu_target"),
                    kinds=image.texts("kinds"),
                )
                for image in parameters.children("images")
            ),
            options=parameters.texts("options"),
            environment=_texts(parameters.child("environment")),
            inputs=_texts(parameters.child("inputs")),
            records=_digests(each for each in dependencies if "uri" not in each.value),
            packages={
                each.text("uri"): each.child("digest").text("gitTree")
                for each in dependencies
                if "uri" in each.value
            },
            built=run.child("metadata").text("finishedOn"),
            headstart=run.child("builder").child("version").text("headstart"),
        )
        one_spelling(statement.to_bytes(), data, where)
        return statement

    def signed(self, *signers: Signer) -> bytes:
        """The file, signed with the repository's channel keys."""
        return sign(self.to_bytes(), payload_type=STATEMENT_TYPE, signers=signers).to_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """A release's statement whose signatures hold, and the statement of keys by which they do."""

    statement: ReleaseStatement
    root: Root
    signers: tuple[str, ...]
    """Ids of the keys that signed it and count."""


def read_statement(data: bytes, *, root: Root, stack: StackName, digest: Sha256) -> Stated:
    """Believe a release's statement: signed by enough of the root's keys, and of the release that is there.

    Dates are not looked at (``Root.check_time``).

    Raises:
        CorruptError: no such statement.
        TrustError: too few signatures, or another release's.
    """
    where = f"{root.fqrn}: {statement_path(stack, digest)}"
    envelope = Envelope.from_bytes(data, where=where)
    signed = verify(envelope, root.keys, threshold=root.threshold, payload_type=STATEMENT_TYPE, where=where)
    statement = ReleaseStatement.from_bytes(signed.payload, where=where)
    if (statement.fqrn, statement.stack, statement.digest) != (root.fqrn, stack, digest):
        raise TrustError(
            f"{where} is the statement of {statement.fqrn}: {statement.stack}@{statement.digest} "
            "put in its place"
        )
    return Stated(statement=statement, root=root, signers=signed.signers)


def _resources(digests: Mapping[str, Sha256]) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": digest.hex}} for name, digest in digests.items()]


def _digests(resources: Iterable[Table]) -> dict[str, Sha256]:
    return {each.text("name"): each.child("digest").named("sha256", Sha256) for each in resources}


def _texts(table: Table) -> dict[str, str]:
    return {key: table.text(key) for key in table.value}
