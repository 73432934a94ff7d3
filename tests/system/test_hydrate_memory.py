"""Hydrating takes little memory, however large the objects are and however many come at once."""

import hashlib
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from headstart.cvmfs.objects import Algorithm, Kind, ObjectName
from headstart.loopback import LoopbackServer
from headstart.names import Fqrn

FILES = 6
SIZE = 8 << 20
MOST = 10 << 20
"""Bytes that it may take beside what the program had before."""
PROGRAM = """
import json, os, sys
from headstart.arrival import Part, Wanted
from headstart.cache import Cache
from headstart.cvmfs.entry import Compression
from headstart.cvmfs.objects import Digest, Kind, ObjectName
from headstart.hydrate import Hydration, UnitPlan, apply
from headstart.names import Fqrn, Sha256
from headstart.release import FileRecord
from headstart.webstratum import HttpStratum

url, directory, compression, files = json.loads(sys.argv[1])
stratum = HttpStratum(url)

class Source:
    def lookup(self, path):
        raise AssertionError
    def pour(self, name, sink, *, limit):
        stratum.pour(name.path, sink, limit=limit)

def wanted(path, digest, sha256, size):
    name = ObjectName(digest=Digest.parse(digest), kind=Kind.FILE)
    part = Part(name=name, offset=0, size=size, compression=Compression[compression])
    record = FileRecord(sha256=Sha256(sha256), size=size, mode=0o444)
    return Wanted(path=path, record=record, mtime=1, parts=(part,))

def memory(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(what))

unit = UnitPlan(
    unit="stacks/x/y", digest="0" * 64, files={one[0]: wanted(*one) for one in files}, links={}, extra={}
)
cache = Cache(directory, Fqrn("julia.example.org"), uid=os.geteuid())
cache.prepare(1_800_000_000.0)
before = memory("VmRSS")
apply(Hydration(units=(unit,)), Source(), cache)
print(memory("VmHWM") - before)
"""


@pytest.mark.parametrize("compression", ["ZLIB", "NONE"])
def test_memory_does_not_grow_with_the_objects(tmp_path: Path, compression: str) -> None:
    files = []
    for number in range(FILES):
        content = os.urandom(SIZE)
        stored = zlib.compress(content, 0) if compression == "ZLIB" else content
        name = ObjectName(digest=Algorithm.SHA1.digest(stored), kind=Kind.FILE)
        place = tmp_path / "storage" / name.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(stored)
        files.append([f"file{number}", str(name.digest), hashlib.sha256(content).hexdigest(), SIZE])
    with LoopbackServer(str(tmp_path / "storage"), Fqrn("julia.example.org")) as server:
        asked = json.dumps([server.url, str(tmp_path / "cache"), compression, files])
        program = [sys.executable, "-c", PROGRAM, asked]
        done = subprocess.run(program, capture_output=True, check=True, text=True)
    assert int(done.stdout) < MOST
