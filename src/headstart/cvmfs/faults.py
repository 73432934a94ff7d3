"""What can be wrong with a repository: each kind of fault by a name that scripts can rely on.

A *complaint* is something that breaks the format, for one of the real tools or for us. A *note* is worth
knowing and breaks nothing: rows without order, objects that nothing names.
"""

import enum
from dataclasses import dataclass
from typing import Final


class Code(enum.StrEnum):
    """The name of a kind of fault; it never changes its meaning."""

    # The two signed files and the certificate (format sections 5 to 7).
    WHITELIST_DAMAGED = "whitelist-damaged"
    WHITELIST_UNTRUSTED = "whitelist-untrusted"
    WHITELIST_EXPIRED = "whitelist-expired"
    MANIFEST_DAMAGED = "manifest-damaged"
    MANIFEST_UNTRUSTED = "manifest-untrusted"
    MANIFEST_TIME = "manifest-time"
    MANIFEST_TOO_LONG = "manifest-too-long"
    CERTIFICATE_UNTRUSTED = "certificate-untrusted"
    NOT_STOCK_COMPRESSION = "not-stock-compression"

    # Objects and files in storage (format sections 1 and 2).
    OBJECT_MISSING = "object-missing"
    OBJECT_DAMAGED = "object-damaged"
    OBJECT_SIZE = "object-size"
    FILE_MISSING = "file-missing"
    FILE_UNREADABLE = "file-unreadable"
    DIRECTORY_MISSING = "directory-missing"

    # A catalog as a whole (format sections 9.1 and 9.2).
    CATALOG_DAMAGED = "catalog-damaged"
    CATALOG_SCHEMA = "catalog-schema"
    CATALOG_PROPERTY = "catalog-property"
    CATALOG_PLACE = "catalog-place"
    CATALOG_SIZE = "catalog-size"
    CATALOG_REVISION = "catalog-revision"
    CATALOG_ROOT = "catalog-root"
    PREDECESSOR_MISSING = "predecessor-missing"
    COUNTER_MISSING = "counter-missing"
    COUNTER_WRONG = "counter-wrong"
    ROW_NUMBER = "row-number"
    ROW_UNREACHABLE = "row-unreachable"

    # Its rows (format sections 9.3 and 9.4).
    COLUMN_TYPE = "column-type"
    NAME = "name"
    PATH_HASH = "path-hash"
    DUPLICATE = "duplicate"
    KIND = "kind"
    FLAGS = "flags"
    DIGEST = "digest"
    LINK_COUNT = "link-count"
    HARD_LINKS = "hard-links"
    SYMLINK = "symlink"
    SPECIAL = "special"
    XATTRS = "xattrs"
    CHUNKS = "chunks"

    # What hangs together (format section 9.5).
    NESTED = "nested"
    MARKER = "marker"
    MOUNTPOINT = "mountpoint"
    BIND_MOUNTPOINT = "bind-mountpoint"

    # The tag history (format section 10).
    HISTORY_DAMAGED = "history-damaged"
    BRANCH = "branch"
    TAG = "tag"

    # The log of references (format section 13).
    REFLOG_DAMAGED = "reflog-damaged"
    REFLOG_MISSING = "reflog-missing"
    REFLOG_CHECKSUM = "reflog-checksum"
    REFLOG_INCOMPLETE = "reflog-incomplete"
    REFLOG_STALE = "reflog-stale"

    # Worth knowing.
    ORPHANS = "orphans"
    LEFTOVER = "leftover"
    UNKNOWN_FILE = "unknown-file"
    SPARSE_ROWS = "sparse-rows"
    NAME_NOT_UTF8 = "name-not-utf8"
    VARIANT_SYMLINK = "variant-symlink"
    HISTORY_ENDS = "history-ends"
    PREDECESSOR_COLLECTED = "predecessor-collected"


NOTES: Final = frozenset(
    {
        Code.ORPHANS,
        Code.LEFTOVER,
        Code.UNKNOWN_FILE,
        Code.SPARSE_ROWS,
        Code.NAME_NOT_UTF8,
        Code.VARIANT_SYMLINK,
        Code.HISTORY_ENDS,
        Code.PREDECESSOR_COLLECTED,
    }
)
"""What breaks nothing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it should be."""

    code: Code
    path: bytes
    """In the repository, as ``/a/b``, empty for its root; or of a file of its storage, as ``data/ab/cd``."""
    text: str
    """What is wrong with it; a sentence whose subject is the path."""

    @property
    def is_note(self) -> bool:
        """Whether it breaks nothing."""
        return self.code in NOTES
