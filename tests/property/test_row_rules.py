"""The short rule for plain files says nothing of a row that the long ones would complain about."""

import sqlite3
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headstart.cvmfs.rowrules import PLAIN, rule_bits

GOOD: dict[str, Any] = {
    "hardlinks": 1,
    "hash": b"h" * 20,
    "size": 7,
    "mode": 0o100644,
    "mtime": -5,
    "mtimens": 17,
    "flags": 4,
    "name": "file",
    "symlink": "",
    "uid": 0,
    "gid": 1000,
    "xattr": None,
}
ODD: tuple[Any, ...] = (
    None, -1, 0, 1, 2, 3, 4, 12, 20, 68, 0.5, 4.0, 33188.0, 1e300, 2**32, 2**32 + 1, 2**60, 2**62, 2**63 - 1,
    -(2**63), 0o040755, 0o120777, 0o010644, 0o100000, 0o107777, 0o110000, 0o200000, 999_999_999, 1_000_000_000,
    "", "4", "1", "33188", "x", "$(A)", b"", b"4", b"x", bytes(20), b"h" * 19, b"h" * 21, bytes(19) + b"1",
)  # fmt: skip
values = st.sampled_from(ODD) | st.integers(-(2**63), 2**63 - 1) | st.integers(0, 0x3FFFF)
"""Whatever a hostile file may have in a column."""


def judged(row: dict[str, Any], kind: str) -> tuple[int | None, int]:
    """Whether the short rule takes a row, and what the long ones say."""
    with sqlite3.connect(":memory:") as connection:
        columns = ", ".join(f"{name} {kind}" for name in row)
        connection.execute(f"CREATE TABLE catalog ({columns})")
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO catalog VALUES ({marks})", list(row.values()))  # noqa: S608 - constant names
        query = f"SELECT {PLAIN}, {rule_bits()} FROM catalog"  # noqa: S608 - constant names
        found: tuple[int | None, int] = connection.execute(query).fetchone()
    connection.close()
    return found


def test_a_plain_file_is_plain() -> None:
    assert judged(GOOD, "") == (1, 0)
    assert judged(GOOD | {"mtimens": None, "flags": 4 | 2 << 8 | 1 << 11}, "") == (1, 0)


@given(
    changed=st.dictionaries(st.sampled_from(sorted(GOOD)), values, min_size=1, max_size=3),
    kind=st.sampled_from(("", "INTEGER", "TEXT", "BLOB", "REAL")),
)
def test_what_is_taken_for_plain_breaks_no_rule(changed: dict[str, Any], kind: str) -> None:
    plain, bits = judged(GOOD | changed, kind)
    assert not plain or bits == 0


@given(name=st.sampled_from(sorted(GOOD)), value=values)
def test_what_is_no_plain_file_is_not_taken_for_one(name: str, value: Any) -> None:
    row = GOOD | {name: value}
    plain, _ = judged(row, "")
    if not plain:
        return
    assert row["mode"] >> 12 == 0o10
    assert row["flags"] & 127 == 4
    assert row["hardlinks"] == 1
    assert row["xattr"] is None
    assert isinstance(row["name"], str)
