"""Publishing a tree: the first time, with nothing new, and with one changed file; seconds and memory of each.

    python bench/bench_publish_tree.py                   # 100,000 entries, 2 GB, a catalog for each 1,000
    python bench/bench_publish_tree.py --entries 1000000 --bytes 0 --flat            # catalogs by weight

Each step is a process of its own. Beside the first stands ``tar`` piped into ``zstd -3 -T0`` over the same
tree, which is not waited for to be on disk; beside the second ``find``, which looks at everything with
``lstat`` as well. One JSON object.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from headstart.cvmfs.balance import Weights
from headstart.ingest import Recipe
from headstart.keys import create_keys, load_keys, load_master_key
from headstart.names import Fqrn
from headstart.repository import AllKeys, Means, Wanted, create, publish_tree
from headstart.store import DirectoryStore

FQRN = Fqrn("bench.example.org")
FILES = 20
DIRECTORIES = 47
"""In one part of the tree, which makes 1,000 entries of it: files in each, and directories with marker and
itself."""


def make_tree(root: Path, entries: int, size: int, *, marked: bool) -> None:
    """Parts of 1,000 entries, or twenty such in one where none is marked; half of a file can be compressed."""
    noise = hashlib.shake_128(b"noise").digest(1 << 20)
    parts = entries // 1000
    each = size // max(1, parts * FILES * DIRECTORIES)
    for part in range(parts):
        # A part without its marker is a little too light to become a catalog of its own.
        top = (root if marked else root / f"group-{part // 20:03d}") / f"part-{part:04d}"
        top.mkdir(parents=True)
        if marked:
            (top / ".cvmfscatalog").touch()
        for number in range(DIRECTORIES):
            directory = top / f"directory-{number:02d}"
            directory.mkdir()
            for file in range(FILES):
                at = (part * 7919 + number * 613 + file * 31) % (1 << 19)
                name = f"{part} {number} {file}\n".encode() if each else b""
                content = name + noise[at : at + each // 2] + bytes(each // 2)
                (directory / f"file-{file:02d}").write_bytes(content)


def step(work: Path, *, divided: bool) -> dict[str, float]:
    """One publication, in this process."""
    now = datetime.now(UTC)
    store = DirectoryStore(str(work / "storage"))
    if not (work / "storage").exists():
        keys = create_keys(str(work / "keys"), FQRN, now=now)
        create(store, AllKeys(keys=keys, master=load_master_key(str(work / "keys"), FQRN)), now)
    keys = load_keys(str(work / "keys"), FQRN)
    wanted = Wanted(
        directory=str(work / "tree"),
        at=b"/tree",
        weights=Weights() if divided else None,
        state=str(work / "state"),
    )
    wall, cpu = time.perf_counter(), sum(os.times()[:4])  # with the processes that it starts
    done = publish_tree((store, keys), wanted, now, Means(recipe=Recipe(workers=os.cpu_count() or 1)))
    return {
        "seconds": round(time.perf_counter() - wall, 3),
        "cpu_seconds": round(sum(os.times()[:4]) - cpu, 3),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "peak_of_a_process_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "files_read": done.read,
        "catalogs": len(done.catalogs),
    }


def child(work: Path, *, divided: bool) -> dict[str, float]:
    """One publication, in another process."""
    words = [sys.executable, __file__, "--step", str(work), *(["--flat"] if divided else [])]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def timed(command: str, *words: str) -> dict[str, float]:
    """Seconds of a shell's command, and of its children's processors."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(["bash", "-c", command, "bench", *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(time.perf_counter() - start, 3), "cpu_seconds": round(cpu, 3)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=2_000_000_000)
    parser.add_argument("--flat", action="store_true", help="no marked directories, catalogs by weight")
    parser.add_argument("--runs", type=int, default=3, help="publications of nothing new, and of one file")
    parser.add_argument("--step", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is not None:
        print(json.dumps(step(arguments.step, divided=arguments.flat)))
        return 0
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        work = Path(folder)
        tree = work / "tree"
        make_tree(tree, arguments.entries, arguments.bytes, marked=not arguments.flat)
        os.sync()
        time.sleep(3)  # what has just been written is read twice, see ADR 12
        said: dict[str, object] = {"entries": arguments.entries, "bytes": arguments.bytes}
        said["first"] = child(work, divided=arguments.flat)
        said["tar_zstd"] = timed('tar -C "$1" -c . | zstd -q -3 -T0 -o "$2"', str(tree), str(work / "out"))
        same, find, one = [], [], []
        for run in range(arguments.runs):
            same.append(child(work, divided=arguments.flat))
            find.append(timed('find "$1" -newermt 2100-01-01', str(tree)))
            first = tree / ("group-000/part-0000" if arguments.flat else "part-0000")
            (first / "directory-00" / "file-00").write_text(f"changed {run}")
            one.append(child(work, divided=arguments.flat))
        said |= {"nothing_new": same, "find": find, "one_file": one}
        print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
