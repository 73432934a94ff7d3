"""Parts on their way: what a bad answer left is written over by the next."""

import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.arrival import Arrival, Landing, Part, Wanted
from headstart.cache import Cache, Workplace
from headstart.cvmfs.entry import Compression
from headstart.cvmfs.objects import Algorithm, Kind, ObjectName
from headstart.errors import CorruptError
from headstart.fetching import pour_anew
from headstart.names import Fqrn, Sha256
from headstart.release import FileRecord
from simulator import Simulator

CONTENT = bytes(range(256)) * 3000
STORED = zlib.compress(CONTENT)


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workplace]:
    cache = Cache(str(tmp_path / "cache"), Fqrn("julia.example.org"), uid=os.geteuid())
    cache.prepare(1_800_000_000.0)
    with cache.workplace() as place:
        yield place


def wanted(
    stored: bytes, algorithm: Algorithm = Algorithm.SHA1, compression: Compression = Compression.ZLIB
) -> Wanted:
    name = ObjectName(digest=algorithm.digest(stored), kind=Kind.FILE)
    part = Part(name=name, offset=0, size=len(CONTENT), compression=compression)
    record = FileRecord(sha256=Sha256.of(CONTENT), size=len(CONTENT), mode=0o444)
    return Wanted(path="/x", record=record, mtime=1, parts=(part,))


def bring(source: Simulator, item: Wanted, work: Workplace) -> None:
    (part,) = item.parts
    arrival = Arrival(item, work)
    landing = Landing(arrival, part)
    try:
        try:
            source.pour(part.name.path, landing, limit=part.limit)
            landing.end()
        except CorruptError:
            pour_anew(source, part.name, landing, limit=part.limit)
            landing.end()
        assert arrival.finish_if_whole()
    finally:
        arrival.close()


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        STORED[: len(STORED) // 2],
        STORED[:-1] + b"!",
        STORED + b"behind it",
        b"<html>Please log in</html>",
        zlib.compress(CONTENT[:1000]),
        zlib.compress(bytes(10 * len(CONTENT))),
    ],
    ids=["nothing", "cut", "flipped", "longer", "html", "short", "bomb"],
)
@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.SHAKE128])
def test_a_bad_answer_is_written_over_by_a_fresh_one(work: Workplace, bad: bytes, algorithm: Algorithm) -> None:
    item = wanted(STORED, algorithm)
    path = item.parts[0].name.path
    source = Simulator()
    source.files[path], source.stale[path] = STORED, bad
    bring(source, item, work)
    assert source.requests == [(path, False), (path, True)]
    (kept,) = (Path(work.path).parent.parent / "files").rglob("*.444.1")
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == item.record.sha256.hex


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (b"no zlib stream", "is not a zlib stream"),
        (STORED[:-9], "is cut short"),
        (STORED + b"!", "1 byte behind the end"),
        (zlib.compress(CONTENT + b"!"), f"more than the {len(CONTENT)} bytes"),
        (zlib.compress(CONTENT[1:]), f"{len(CONTENT) - 1} bytes of content, not {len(CONTENT)}"),
    ],
)
def test_what_has_its_name_and_is_wrong_all_the_same_is_asked_for_once_more(
    work: Workplace, stored: bytes, says: str
) -> None:
    item = wanted(stored)
    source = Simulator()
    source.files[item.parts[0].name.path] = stored
    with pytest.raises(CorruptError, match=says):
        bring(source, item, work)
    assert [fresh for _path, fresh in source.requests] == [False, True]


def test_what_is_stored_as_it_is(work: Workplace) -> None:
    item = wanted(CONTENT, compression=Compression.NONE)
    source = Simulator()
    source.files[item.parts[0].name.path] = CONTENT
    source.stale[item.parts[0].name.path] = CONTENT[:-1]
    bring(source, item, work)
    assert len(source.requests) == 2
