"""Checking a repository without its content: entries a second, and beside it ``headstart verify``.

    python bench/bench_check.py --entries 100000
    python bench/bench_check.py --storage DIR --key PUB      # a repository that is there

The repository is generated: small files in directories of a hundred, a nested catalog for ten thousand of
them, one object per file. Each run is a process of its own, the two alternate, and both its time and its
processor time are taken: on a machine that others use too, the second is the one that says something. Medians
are printed as one JSON object.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from headstart.cvmfs.catalog_writer import Heading, write_catalog
from headstart.cvmfs.entry import MARKER, Directory, Entry, File, Mountpoint, Stat, is_below, name_of, parent_of
from headstart.cvmfs.history import TRUNK, History, Tag
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName, Revision, deflate
from headstart.cvmfs.reflog import REFLOG_FILE, Reflog, present
from headstart.cvmfs.rows import Counters, Nested, Statistics
from headstart.cvmfs.signature import seal
from headstart.keys import create_keys, load_master_key
from headstart.names import Fqrn
from headstart.repository import AllKeys, create
from headstart.store import DirectoryStore, Transaction

FQRN = Fqrn("bench.example.org")
STAT = Stat(mode=0o644, mtime=1_700_000_000)
PER_DIRECTORY = 100
PER_CATALOG = 10_000
SHA1 = Algorithm.SHA1


def paths(entries: int) -> Iterator[tuple[bytes, bytes]]:
    """Catalog and path of each file."""
    for number in range(entries):
        catalog = b"/tree%03d" % (number // PER_CATALOG)
        yield (
            catalog,
            catalog + b"/dir%02d/file%02d.jl" % (number // PER_DIRECTORY % 100, number % PER_DIRECTORY),
        )


def generate(storage: Path, keys_at: Path, entries: int) -> None:
    """A signed repository of so many files, written catalog by catalog."""
    now = datetime.now(UTC)
    keys = create_keys(str(keys_at), FQRN, now=now)
    store = DirectoryStore(str(storage))
    manifest = create(store, AllKeys(keys=keys, master=load_master_key(str(keys_at), FQRN)), now)
    with store.transaction() as into:
        trees: dict[bytes, dict[bytes, Entry]] = {}
        empty = put(into, b"", Kind.FILE)
        for catalog, path in paths(entries):
            tree = trees.setdefault(catalog, {})
            if not tree:
                tree[catalog] = Directory(name=name_of(catalog), stat=STAT)
                marker = catalog + b"/" + MARKER
                tree[marker] = File(name=MARKER, stat=STAT, size=0, digest=empty)
            above = parent_of(path)
            tree.setdefault(above, Directory(name=name_of(above), stat=STAT))
            tree[path] = File(name=name_of(path), stat=STAT, size=len(path), digest=put(into, path, Kind.FILE))
        root: dict[bytes, Entry] = {b"": Directory(name=b"", stat=STAT)}
        nested: dict[bytes, Nested] = {}
        below = Counters()
        stamp = int(now.timestamp())
        for catalog, tree in trees.items():
            links = 2 + sum(
                isinstance(entry, Directory) for path, entry in tree.items() if is_below(path, catalog)
            )
            root[catalog] = Mountpoint(name=name_of(catalog), stat=STAT, links=links)
            nested[catalog], statistics_of = written(into, catalog, tree, {}, Counters(), stamp)
            below += statistics_of.total
        top, _ = written(into, b"", root, nested, below, stamp)
        finish(into, manifest, top, keys.repository.sign_sha1, stamp)


def put(into: Transaction, content: bytes, kind: Kind) -> Digest:
    stored = deflate(content)
    digest = SHA1.digest(stored)
    into.put(ObjectName(digest=digest, kind=kind), stored)
    return digest


def written(
    into: Transaction, mountpoint: bytes, tree: dict[bytes, Entry], nested: dict[bytes, Nested],
    below: Counters, stamp: int,
) -> tuple[Nested, Statistics]:  # fmt: skip
    heading = Heading(mountpoint=mountpoint, revision=Revision(2), last_modified=stamp, ttl=240, previous=None)
    made = write_catalog(heading, sorted(tree.items()), nested, below)
    return Nested(digest=put(into, made.database, Kind.CATALOG), size=len(made.database)), made.statistics


def finish(into: Transaction, old: Manifest, top: Nested, sign: Callable[[bytes], bytes], stamp: int) -> None:
    tag = Tag(name=TRUNK, digest=top.digest, revision=Revision(2), timestamp=stamp, size=top.size)
    history = History(fqrn=FQRN, tags=(tag,)).to_bytes()
    manifest = replace(
        old,
        root_catalog=top.digest,
        root_size=top.size,
        revision=Revision(2),
        timestamp=stamp,
        history=put(into, history, Kind.HISTORY),
    )
    log = Reflog(fqrn=FQRN, references=present(manifest)).to_bytes()
    manifest = replace(manifest, reflog=SHA1.digest(log))
    into.settle()
    into.replace(REFLOG_FILE, log)
    into.replace(".cvmfspublished", seal(manifest.to_bytes(), algorithm=SHA1, sign=sign))


def timed(*words: str) -> tuple[float, float, int]:
    """Seconds, seconds of processor time, and entries."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run((sys.executable, "-m", "headstart", *words), stdout=subprocess.PIPE, check=True)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used, json.loads(done.stdout)["entries"]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--storage", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        storage: Path = arguments.storage or Path(folder) / "storage"
        key: Path = arguments.key or Path(folder) / "keys" / f"{FQRN}.pub"
        if arguments.storage is None:
            generate(storage, Path(folder) / "keys", arguments.entries)
        runs: dict[str, list[tuple[float, float, int]]] = {"check": [], "verify": []}
        for _ in range(arguments.runs):
            for name, words in (("check", ("repo", "check")), ("verify", ("verify",))):
                runs[name].append(timed(*words, str(storage), "--key", str(key), "--json"))
                sys.stderr.write(f"{name}: {runs[name][-1]}\n")
        found: dict[str, float] = {"bar": 50_000}
        for name, times in runs.items():
            entries = times[0][2]
            found |= {
                f"{name}_entries": entries,
                f"{name}_entries_per_s": round(entries / statistics.median(wall for wall, _, _ in times)),
                f"{name}_entries_per_cpu_s": round(entries / statistics.median(cpu for _, cpu, _ in times)),
            }
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
