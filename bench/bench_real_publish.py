"""Publishing a tree the first time, beside the stock publisher in the same run; needs root and its 2.12 tools.

    python -m bench.bench_real_publish --cvmfs /opt/cvmfs                # 100,000 entries, 2 GB
    python -m bench.bench_real_publish --entries 20000 --bytes 400000000 --rounds 3

``cvmfs_swissknife sync`` is what ``cvmfs_server publish`` spends its time in. It is given the tree as the upper
layer of the union file system that it expects, with an empty layer below, and the options of a new repository:
no FUSE and no overlayfs slow it down, and neither tagging nor signing are counted. Headstart's whole command
is counted. The two take turns, each with an empty repository; one JSON object, with seconds of
the clock and of the processors.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.bench_publish_tree import make_tree

FQRN = "bench.example.org"
MIB = 1 << 20
# The publisher keeps its statistics in /var/spool/cvmfs, which this machine need not have.
INSIDE = 'mount -t tmpfs tmpfs /var/spool && mkdir -p /var/spool/cvmfs/$0 && exec "$@"'


def counted(words: list[str], env: dict[str, str]) -> dict[str, float]:
    """Run a program: its seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{words[0]} ended with {done.returncode}: {done.stderr or done.stdout}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(time.perf_counter() - start, 2), "cpu_seconds": round(cpu, 2)}


def new_repository(work: Path) -> None:
    """An empty repository, with the keys of the first."""
    shutil.rmtree(work / "storage", ignore_errors=True)
    words = ["repo", "create", FQRN, "--storage", str(work / "storage"), "--keys", str(work / "keys")]
    subprocess.run([sys.executable, "-m", "headstart", *words], check=True, capture_output=True)
    os.sync()


def ours(work: Path) -> dict[str, float]:
    """``headstart publish --tree``."""
    new_repository(work)
    words = ["publish", "--tree", str(work / "tree"), "--at", "/tree", "--state", str(work / "state")]
    (work / "state").unlink(missing_ok=True)
    where = ["--storage", str(work / "storage"), "--keys", str(work / "keys")]
    return counted([sys.executable, "-m", "headstart", *words, *where], dict(os.environ))


def theirs(work: Path, env: dict[str, str]) -> dict[str, float]:
    """``cvmfs_swissknife sync``."""
    new_repository(work)
    storage = work / "storage"
    letter = (storage / ".cvmfspublished").read_bytes().split(b"\n")
    root = next(line[1:].decode() for line in letter if line.startswith(b"C"))
    sync = ["cvmfs_swissknife", "sync", "-u", str(work / "tree"), "-s", str(work / "tree")]
    sync += [
        "-c",
        str(work / "empty"),
        "-t",
        str(work / "temporary"),
        "-b",
        root,
        "-e",
        "sha1",
        "-Z",
        "default",
    ]
    sync += ["-r", f"local,{storage}/data/txn,{storage}", "-w", f"file://{storage}", "-N", FQRN]
    sync += [
        "-o",
        str(work / "manifest"),
        "-K",
        str(work / "keys" / f"{FQRN}.pub"),
        "-f",
        "overlayfs",
        "-i",
        "-k",
    ]
    sync += ["-p", "-l", str(4 * MIB), "-a", str(8 * MIB), "-h", str(16 * MIB)]
    return counted(["unshare", "-m", "--propagation", "private", "sh", "-c", INSIDE, FQRN, *sync], env)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cvmfs", metavar="PREFIX", help="where the stock tools are installed (default: PATH)")
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=2_000_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    env = dict(os.environ)
    if arguments.cvmfs:
        env["PATH"] = f"{arguments.cvmfs}/bin:{env['PATH']}"
        env["LD_LIBRARY_PATH"] = f"{arguments.cvmfs}/lib"
    with tempfile.TemporaryDirectory(dir=env.get("TMPDIR")) as folder:
        work = Path(folder)
        for name in ("empty", "temporary"):
            (work / name).mkdir()
        make_tree(work / "tree", arguments.entries, arguments.bytes, marked=True)
        time.sleep(3)
        found: dict[str, list[dict[str, float]]] = {"headstart": [], "cvmfs": []}
        for _ in range(arguments.rounds):
            found["headstart"].append(ours(work))
            found["cvmfs"].append(theirs(work, env))
    said: dict[str, object] = {"entries": arguments.entries, "bytes": arguments.bytes, **found}
    for unit in ("seconds", "cpu_seconds"):
        middle = {name: statistics.median(run[unit] for run in runs) for name, runs in found.items()}
        said[f"{unit}_ratio"] = round(middle["cvmfs"] / middle["headstart"], 2)
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
