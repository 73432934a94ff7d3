"""The manifest, ``.cvmfspublished``: which root catalog is a repository's current state (format section 5)."""

from dataclasses import dataclass
from typing import Final, Self

from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName, Revision
from headstart.errors import ConfigurationError, CorruptError
from headstart.names import Fqrn

MANIFEST_FILE: Final = ".cvmfspublished"
ROOT_PATH_HASH: Final = "d41d8cd98f00b204e9800998ecf8427e"
"""MD5 of the empty path; the only value that line R may have."""
DEFAULT_TTL: Final = 240
_MOST_DIGITS: Final = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the manifest's lines say; the letter before each field's description is its line's."""

    fqrn: Fqrn
    """N"""
    root_catalog: Digest
    """C"""
    root_size: int = 0
    """B: bytes of the inflated root catalog; 0 where it is not said."""
    ttl: int = DEFAULT_TTL
    """D: seconds."""
    revision: Revision
    """S"""
    garbage_collectable: bool = False
    """G"""
    alternative_paths: bool = False
    """A"""
    certificate: Digest
    """X"""
    history: Digest | None = None
    """H"""
    timestamp: int = 0
    """T: seconds since 1970."""
    metainfo: Digest | None = None
    """M"""
    reflog: Digest | None = None
    """Y: hash of the raw ``.cvmfsreflog``."""

    @property
    def algorithm(self) -> Algorithm:
        """The hash that the repository uses for new objects: the root catalog's."""
        return self.root_catalog.algorithm

    @property
    def root_catalog_name(self) -> ObjectName:
        """The root catalog's object."""
        return ObjectName(digest=self.root_catalog, kind=Kind.CATALOG)

    @property
    def certificate_name(self) -> ObjectName:
        """The certificate's object."""
        return ObjectName(digest=self.certificate, kind=Kind.CERTIFICATE)

    def to_bytes(self) -> bytes:
        """The text to seal, lines in the order of the real tools."""
        lines = [
            f"C{self.root_catalog}",
            f"B{self.root_size}",
            f"R{ROOT_PATH_HASH}",
            f"D{self.ttl}",
            f"S{self.revision}",
            f"G{_yes_no(self.garbage_collectable)}",
            f"A{_yes_no(self.alternative_paths)}",
            f"N{self.fqrn}",
            f"X{self.certificate}",
        ]
        if self.history is not None:
            lines.append(f"H{self.history}")
        lines.append(f"T{self.timestamp}")
        if self.metainfo is not None:
            lines.append(f"M{self.metainfo}")
        if self.reflog is not None:
            lines.append(f"Y{self.reflog}")
        return "".join(f"{line}\n" for line in lines).encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> Self:
        """Read the text of a letter; unknown lines are ignored, as by the real client.

        Raises:
            CorruptError: a line that is missing, stands twice, or is not what it should be, by number.
        """
        lines = _Lines(text)
        if lines.text("R") != ROOT_PATH_HASH:
            raise lines.wrong("R", "the hash of the root path")
        return cls(
            fqrn=lines.fqrn("N"),
            root_catalog=lines.digest("C"),
            root_size=lines.number("B", default=0),
            ttl=lines.number("D"),
            revision=Revision(lines.number("S")),
            garbage_collectable=lines.truth("G"),
            alternative_paths=lines.truth("A"),
            certificate=lines.digest("X"),
            history=lines.optional_digest("H"),
            timestamp=lines.number("T", default=0),
            metainfo=lines.optional_digest("M"),
            reflog=lines.optional_digest("Y"),
        )


def _yes_no(value: bool) -> str:  # noqa: FBT001 - a value to spell
    return "yes" if value else "no"


class _Lines:
    """The lines by their letter, each with its number for complaints."""

    def __init__(self, text: bytes) -> None:
        self._lines: dict[str, tuple[int, str]] = {}
        try:
            decoded = text.decode("ascii")
        except UnicodeDecodeError as error:
            raise CorruptError(f"{MANIFEST_FILE} is not ASCII, at byte {error.start}") from error
        for number, line in enumerate(decoded.split("\n"), start=1):
            letter = line[:1]
            # Z is reserved and may repeat; an empty line says nothing.
            if letter in self._lines and letter != "Z":
                raise CorruptError(f"{MANIFEST_FILE} line {number}: {letter} stands there twice")
            if letter:
                self._lines[letter] = (number, line[1:])

    def wrong(self, letter: str, wanted: str) -> CorruptError:
        number, value = self._lines[letter]
        return CorruptError(f"{MANIFEST_FILE} line {number}: {letter}{value[:80]!r} is not {wanted}")

    def text(self, letter: str) -> str:
        if letter not in self._lines:
            raise CorruptError(f"{MANIFEST_FILE} has no line {letter}")
        return self._lines[letter][1]

    def number(self, letter: str, *, default: int | None = None) -> int:
        if default is not None and letter not in self._lines:
            return default
        text = self.text(letter)
        if not text.isdecimal() or len(text) > _MOST_DIGITS:
            raise self.wrong(letter, "a number")
        return int(text)

    def truth(self, letter: str) -> bool:
        return letter in self._lines and self.text(letter) == "yes"

    def digest(self, letter: str) -> Digest:
        try:
            return Digest.parse(self.text(letter))
        except CorruptError as error:
            if letter not in self._lines:
                raise
            raise self.wrong(letter, "a content digest") from error

    def optional_digest(self, letter: str) -> Digest | None:
        return self.digest(letter) if letter in self._lines else None

    def fqrn(self, letter: str) -> Fqrn:
        try:
            return Fqrn(self.text(letter))
        except ConfigurationError as error:
            raise self.wrong(letter, "a repository name") from error
