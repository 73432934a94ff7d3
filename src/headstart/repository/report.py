"""What a check of a repository has found."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from headstart.cvmfs.faults import NOTES, Code, Fault
from headstart.wording import readable


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault, and where it was met."""

    code: Code
    path: str
    """As of ``Fault``; what is not UTF-8 as surrogates."""
    text: str
    revision: str = ""
    """Which state it is of, where it is not of the present one, as ``tag v1`` or ``root catalog ab12...``."""

    @property
    def is_note(self) -> bool:
        """Whether it breaks nothing."""
        return self.code in NOTES


@dataclass(slots=True, kw_only=True)
class Report:
    """Everything that was looked at, counted, and found."""

    complaints: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    roots: int = 0
    """States looked at: the present one, those of tags, and those in the log of references."""
    tags: int = 0
    catalogs: int = 0
    """Different ones; one that several states share is looked at once."""
    entries: int = 0
    """Rows in them."""
    objects: int = 0
    """That something names."""
    read: int = 0
    """Objects of files that were read and compared with their names."""
    bytes_read: int = 0
    """In those, as stored."""
    orphans: int = 0
    orphan_bytes: int = 0
    _known: set[Finding] = field(default_factory=set)

    def add(self, code: Code, path: bytes | str, text: str, revision: str = "") -> None:
        """Note something; not twice the same."""
        shown = path if isinstance(path, str) else readable(path)
        found = Finding(code, shown or "/", text, revision)
        if found not in self._known:
            self._known.add(found)
            (self.notes if found.is_note else self.complaints).append(found)

    def take(self, faults: Iterable[Fault], revision: str = "") -> None:
        """Note some faults."""
        for fault in faults:
            self.add(fault.code, fault.path, fault.text, revision)
