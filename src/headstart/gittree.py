"""The tree hash by which Julia's lock names a package or an artifact: git's own (gitformat-pack, "tree").

What goes in is a list of files; a directory is there because a file is. Git has no empty directories, and Pkg
leaves them out of the hash as well (``GitTools.tree_hash``).
"""

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MODE_FILE: Final = "100644"
MODE_PROGRAM: Final = "100755"
MODE_LINK: Final = "120000"
_MODE_TREE: Final = "40000"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeFile:
    """A file or a symbolic link in a tree."""

    path: bytes
    """Relative, with slashes."""
    mode: str
    blob: bytes
    """20 bytes: the id of its content, or of a link's target."""


def blob_id(content: bytes | memoryview) -> bytes:
    """Git's id of a file's content: SHA-1 over a header with the length, and the content."""
    digest = hashlib.sha1(b"blob %d\0" % len(content))
    digest.update(content)
    return digest.digest()


def tree_hash(files: Iterable[TreeFile]) -> str:
    """Git's id of the tree, 40 hexadecimal digits."""
    rows = [(file.path.split(b"/"), file.mode, file.blob) for file in files]
    return _tree_id(sorted(rows, key=lambda row: row[0])).hex()


def _tree_id(rows: list[tuple[list[bytes], str, bytes]]) -> bytes:
    entries: list[tuple[bytes, bytes]] = []
    for name, group in itertools.groupby(rows, key=lambda row: row[0][0]):
        members = list(group)
        parts, mode, blob = members[0]
        if len(parts) > 1:
            mode = _MODE_TREE
            blob = _tree_id([(parts[1:], mode, blob) for parts, mode, blob in members])
        # Git sorts a directory as if its name ended with a slash.
        order = name + b"/" if mode == _MODE_TREE else name
        entries.append((order, mode.encode() + b" " + name + b"\0" + blob))
    body = b"".join(entry for _, entry in sorted(entries))
    return hashlib.sha1(b"tree %d\0" % len(body) + body).digest()


_SLUG_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".decode()


def version_slug(uuid: str, tree: str, length: int) -> str:
    """The directory below ``packages/<Name>/`` (``Base.version_slug``, ``base/loading.jl``).

    Args:
        uuid: of the package.
        tree: its git-tree-sha1.
        length: 5 letters, or 4 in depots that a Julia before 1.5 wrote.
    """
    number = int(uuid.replace("-", ""), 16)
    crc = _crc32c(bytes.fromhex(tree), _crc32c(number.to_bytes(16, "little"), 0))
    letters = []
    for _ in range(length):
        crc, index = divmod(crc, len(_SLUG_LETTERS))
        letters.append(_SLUG_LETTERS[index])
    return "".join(letters)


def _crc32c(data: bytes, crc: int) -> int:
    """Castagnoli's CRC-32 (RFC 3720 appendix B.4), bit by bit: it is only ever asked for 36 bytes."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
