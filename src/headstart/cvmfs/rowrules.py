"""What must hold of each row of a catalog by itself, as rules that SQLite tries (format section 9.3).

Each rule is a condition that is true of a row that breaks it. A condition that SQLite cannot decide, because a
column is NULL or of another type, counts as kept: that column's own rule is the one that is broken.
"""

from dataclasses import dataclass
from typing import Final

from headstart.cvmfs.faults import Code
from headstart.cvmfs.objects import DIGEST_SIZE

TYPE_MASK: Final = 0o170000
DIRECTORY: Final = 0o040000
REGULAR: Final = 0o100000
_SYMLINK: Final = 0o120000
_SPECIALS: Final = f"({0o010000}, {0o020000}, {0o060000}, {0o140000})"
"""Fifo, character device, block device, socket."""
_TYPE: Final = f"mode & {TYPE_MASK}"
_BYTES: Final = "CAST(symlink AS BLOB)"
_KNOWN_FLAGS: Final = 0x1FFFF
_LARGEST_ID: Final = 2**32 - 1
_NO_HASH: Final = f"zeroblob({DIGEST_SIZE})"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, and what to say of a row that breaks it."""

    code: Code
    broken: str
    """SQL."""
    text: str


def _no_number(*columns: str) -> str:
    return " OR ".join(f"typeof({column})<>'integer' OR {column}<0" for column in columns)


RULES: Final = (
    Rule(
        Code.COLUMN_TYPE,
        f"{_no_number('hardlinks', 'size', 'mode', 'flags', 'uid', 'gid')} OR typeof(mtime)<>'integer'",
        "has a column that is not a number, or negative",
    ),
    Rule(
        Code.COLUMN_TYPE,
        "typeof(mtimens) NOT IN ('integer', 'null') OR typeof(xattr) NOT IN ('blob', 'null')",
        "has nanoseconds that are no number, or attributes that are no BLOB",
    ),
    # The real client crashes on NULL, and asks SQLite for text.
    Rule(
        Code.COLUMN_TYPE,
        "typeof(name)<>'text' OR typeof(symlink)<>'text'",
        "has a name or a target that is not TEXT",
    ),
    Rule(Code.COLUMN_TYPE, f"size>={2**60} OR mode>{0o177777}", "has a size or a mode that is too large"),
    Rule(Code.COLUMN_TYPE, "mtimens>999999999", "has more nanoseconds than a second"),
    Rule(
        Code.DIGEST,
        "hash IS NOT NULL AND (typeof(hash)<>'blob' OR length(hash)<>20 OR hash=zeroblob(20))",
        "has a digest that is no BLOB of 20 bytes, or zeros: it must be NULL where there is none",
    ),
    Rule(Code.DIGEST, f"hash IS NOT NULL AND {_TYPE}<>{REGULAR}", "has a digest, but is no file"),
    Rule(Code.DIGEST, f"hash IS NULL AND {_TYPE}={REGULAR} AND flags & 64=0", "is a file without a digest"),
    Rule(
        Code.KIND,
        f"CASE {_TYPE} WHEN {DIRECTORY} THEN flags & 127 NOT IN (1, 3, 33)"
        f" WHEN {REGULAR} THEN flags & 127 NOT IN (4, 68) WHEN {_SYMLINK} THEN flags & 127<>12"
        f" ELSE {_TYPE} NOT IN {_SPECIALS} OR flags & 127<>20 END",
        "has a mode and flags that do not agree on what it is",
    ),
    Rule(
        Code.FLAGS,
        f"{_TYPE}={REGULAR} AND ((flags >> 8 & 7)>2 OR (flags >> 11 & 7)>1)",
        "has flags that name no known hash or compression",
    ),
    Rule(
        Code.FLAGS,
        f"{_TYPE}<>{REGULAR} AND flags & {0x10000 | 128}<>0",
        "is said to be external or for direct I/O, and is no regular file",
    ),
    Rule(
        Code.FLAGS,
        f"{_TYPE}<>{DIRECTORY} AND flags & {0x8000 | 0x4000}<>0",
        "is said to be hidden or a bind mountpoint, and is no directory",
    ),
    Rule(
        Code.FLAGS, "flags & 2<>0 AND flags & 16384<>0", "is said to be both a mountpoint and a bind mountpoint"
    ),
    Rule(Code.FLAGS, f"flags>{_KNOWN_FLAGS}", "has flags that the format does not know"),
    Rule(Code.LINK_COUNT, "hardlinks & 4294967295=0", "has a link count of 0"),
    Rule(Code.HARD_LINKS, f"{_TYPE}={DIRECTORY} AND hardlinks >> 32<>0", "is a directory in a hard-link group"),
    Rule(
        Code.HARD_LINKS,
        f"{_TYPE}<>{DIRECTORY} AND hardlinks & 4294967295>1 AND hardlinks >> 32=0",
        "has a link count above 1, and no hard-link group",
    ),
    Rule(Code.SYMLINK, f"{_TYPE}<>{_SYMLINK} AND length({_BYTES})>0", "has a target, but is no symbolic link"),
    Rule(
        Code.SYMLINK,
        f"{_TYPE}={_SYMLINK} AND (length({_BYTES})=0 OR instr({_BYTES}, x'00')>0)",
        "is a symbolic link without a usable target",
    ),
    Rule(
        Code.SYMLINK,
        f"{_TYPE}={_SYMLINK} AND size<>length({_BYTES})",
        "has a size that is not the length of its target",
    ),
    Rule(
        Code.SPECIAL,
        f"{_TYPE} IN ({0o010000}, {0o140000}) AND size<>0",
        "is no device, but has a device number",
    ),
)
VARIANT: Final = 1 << len(RULES)
"""The bit that asks for a look at a link whose target has variables."""


def rule_bits() -> str:
    """A column: the numbers of the broken rules as bits, and ``VARIANT``."""
    rules = [rule.broken for rule in RULES]
    rules.append(f"{_TYPE}={_SYMLINK} AND instr({_BYTES}, CAST('$(' AS BLOB))>0")
    # Nearly all rows break none, and are through with one comparison each; an answer of NULL is no.
    some = " OR ".join(f"({rule})" for rule in rules)
    bits = " | ".join(f"((({rule}) IS TRUE) << {number})" for number, rule in enumerate(rules))
    return f"CASE WHEN {some} THEN {bits} ELSE 0 END"


PLAIN: Final = (
    # One addition looks at eight types: what is not an integer makes the sum something else, but for text.
    "typeof(hardlinks + size + mode + flags + uid + gid + mtime + ifnull(mtimens, 0))='integer'"
    f" AND +hardlinks=1 AND +mode BETWEEN {REGULAR} AND {REGULAR | 0o7777}"
    f" AND flags & {~0x900 & ~0x200}=4 AND flags & 768<>768 AND +flags<''"
    f" AND +size BETWEEN 0 AND {2**60 - 1} AND +uid BETWEEN 0 AND {_LARGEST_ID}"
    f" AND +gid BETWEEN 0 AND {_LARGEST_ID}"
    f" AND +mtime<'' AND ifnull(mtimens, 0)<=999999999 AND +hash>{_NO_HASH} AND length(hash)={DIGEST_SIZE}"
    " AND +symlink='' AND +name>'' AND +name<x'' AND xattr IS NULL"
)
"""True of nearly all rows: a file in one piece, with one name and no attributes, that breaks none of ``RULES``.

It says in a third of the steps what the rules say. SQLite puts numbers before text and text before BLOBs, so
one comparison tells them apart; the plus sign keeps it from turning text into a number first.
"""


def counter_query(rows: str) -> str:
    """What a catalog counts, in the order of ``Counters`` (format section 9.6)."""
    regular, chunked, external = f"{_TYPE}={REGULAR}", "flags & 64<>0", "flags & 128<>0"
    sums = (
        regular,
        f"{_TYPE}={_SYMLINK}",
        f"{_TYPE} IN {_SPECIALS}",
        f"{_TYPE}={DIRECTORY}",
        None,
        f"{regular} AND {chunked}",
        None,
        f"CASE WHEN {regular} THEN size ELSE 0 END",
        f"CASE WHEN {regular} AND {chunked} THEN size ELSE 0 END",
        "xattr IS NOT NULL",
        f"{regular} AND {external}",
        f"CASE WHEN {regular} AND {external} THEN size ELSE 0 END",
    )
    tables = iter(("nested_catalogs", "chunks"))
    columns = [
        f"(SELECT count(*) FROM {next(tables)})" if condition is None else f"coalesce(sum({condition}), 0)"  # noqa: S608 - constant names
        for condition in sums
    ]
    return f"SELECT {', '.join(columns)} FROM {rows}"  # noqa: S608 - constant names
