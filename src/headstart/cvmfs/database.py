"""SQLite databases as bytes: catalogs, histories and reflogs are such files.

Everything happens in memory. Reading is defensive: a signed repository may still be hostile, so the header is
looked at before SQLite sees the file, only plain tables and indexes are let through, and there is an end to the
work that a file may cause: a few pages that name each other as children over and over look like any number of
rows. Writing gives the same
bytes for the same rows (on the same SQLite): rows are inserted in the caller's order and ``VACUUM`` lays the
pages out anew.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import Any, Final

from headstart.errors import CorruptError
from headstart.wording import counted, readable

_MAGIC: Final = b"SQLite format 3\0"
_HEADER_SIZE: Final = 100
_UTF8: Final = 1
_LONGEST_VALUE: Final = 1 << 20
"""Bytes of a text or blob: names, targets and attributes have far less."""
_TICK: Final = 1000
_LEAST_WORK: Final = 2_000_000
_WORK_PER_BYTE: Final = 32
"""SQLite's instructions that a file may take for its queries of ``_TICK`` and more. A row has some 100 bytes
and takes some 50 to read, so a good file can be read through dozens of times."""


class Database:
    """A verified file, open for reading; usable from several threads."""

    def __init__(self, data: bytes, *, where: str, tables: frozenset[str]) -> None:
        """Open a database.

        Args:
            data: the file.
            where: how to name it in errors.
            tables: the tables it may have.

        Raises:
            CorruptError: not a SQLite file in rollback-journal mode with only such tables.
        """
        self.where: Final = where
        _check_header(data, where)
        self._lock = Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._connection.text_factory = bytes
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
        self._ticks_left = (_LEAST_WORK + _WORK_PER_BYTE * len(data)) // _TICK
        self._connection.set_progress_handler(self._tick, _TICK)
        try:
            self._connection.deserialize(data)
        except sqlite3.Error as error:
            raise CorruptError(f"{where} is not a usable SQLite database ({error})") from error
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "query_only=ON"):
            self.query(f"PRAGMA {pragma}")
        self._check_schema(tables)

    def _tick(self) -> bool:
        """Whether it has been enough."""
        self._ticks_left -= 1
        return self._ticks_left < 0

    def _check_schema(self, tables: frozenset[str]) -> None:
        for kind, name, page in self.query("SELECT type, name, rootpage FROM sqlite_master"):
            if kind == b"index":
                continue
            known = isinstance(name, bytes) and name.decode(errors="replace") in tables
            # A virtual table has no page of its own.
            if kind != b"table" or not known or not isinstance(page, int) or page < 1:
                raise CorruptError(
                    f"{self.where} has {readable(kind)} {readable(name)} in its schema, which the format does "
                    "not know"
                )
        for table in tables:
            if any(column[6] for column in self.query(f"PRAGMA table_xinfo({table})")):
                raise CorruptError(f"{self.where}: table {table} has computed columns or is virtual")

    def require_index(self, sql: str, columns: Sequence[str]) -> None:
        """See that a query finds its rows without going through all of them, which thousands of queries would.

        Raises:
            CorruptError: there is no index over just these columns, in this order, that it could use.
        """
        wanted = f"({' AND '.join(f'{column}=?' for column in columns)})".encode()
        plan = self.query(f"EXPLAIN QUERY PLAN {sql}", [0] * len(columns))
        if not any(b"INDEX" in row[3] and wanted in row[3] for row in plan):
            raise CorruptError(f"{self.where} has no index over {' and '.join(columns)}")

    def columns(self, table: str) -> frozenset[str]:
        """Names of a table's columns; none when there is no such table."""
        return frozenset(row[1].decode(errors="replace") for row in self.query(f"PRAGMA table_info({table})"))

    def query(self, sql: str, values: Sequence[int | bytes | str] = ()) -> list[tuple[Any, ...]]:
        """All rows of an answer; text comes as bytes.

        Raises:
            CorruptError: SQLite finds the file damaged, or a table or column is missing.
        """
        try:
            with self._lock:
                return self._connection.execute(sql, values).fetchall()
        except (sqlite3.Error, OverflowError, MemoryError, UnicodeDecodeError) as error:
            # The last one: SQLite names in its complaint what it found in the file.
            raise CorruptError(f"{self.where} is damaged ({error})") from error

    def properties(self) -> dict[str, str]:
        """The table ``properties``, which all three kinds have.

        A value may be a path, so what is not UTF-8 comes as surrogates.

        Raises:
            CorruptError: a key or a value is not text.
        """
        found: dict[str, str] = {}
        for key, value in self.query("SELECT key, value FROM properties"):
            try:
                found[_text(key)] = _text(value)
            except TypeError as error:
                raise CorruptError(f"{self.where}: property {readable(key)} is not text") from error
        return found


def _text(value: object) -> str:
    # The real tools bind numbers as text, but SQLite's column affinity is a wish, not a promise.
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, bytes):
        raise TypeError
    return value.decode(errors="surrogateescape")


def _check_header(data: bytes, where: str) -> None:
    if len(data) < _HEADER_SIZE or data[:16] != _MAGIC:
        raise CorruptError(f"{where} is not a SQLite database ({counted(len(data), 'byte')})")
    if data[18] != 1 or data[19] != 1:
        # The real client aborts on a write-ahead log, so nobody may have published one.
        raise CorruptError(f"{where} is in SQLite's WAL mode, which the format forbids")
    page = int.from_bytes(data[16:18], "big")
    page = 65536 if page == 1 else page
    pages = int.from_bytes(data[28:32], "big")
    if page < 512 or page & (page - 1) or len(data) % page or (pages and pages * page != len(data)):
        raise CorruptError(
            f"{where} has {counted(len(data), 'byte')}, which is not its {pages} pages of {page}"
        )
    if int.from_bytes(data[56:60], "big") not in (0, _UTF8):
        raise CorruptError(f"{where} is not in UTF-8")


def write_database(schema: str, rows: Iterable[tuple[str, Iterator[Sequence[Any]]]]) -> bytes:
    """Make a database.

    Args:
        schema: the statements that create its tables.
        rows: statement with placeholders and its values, in the order to insert.

    Returns:
        The file: UTF-8, rollback-journal mode, pages of 4096 bytes, without gaps.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.execute("PRAGMA page_size=4096")
        connection.executescript(f"BEGIN; {schema}")
        for statement, values in rows:
            connection.executemany(statement, values)
        connection.execute("COMMIT")
        connection.execute("VACUUM")
        return connection.serialize()
    finally:
        connection.close()
