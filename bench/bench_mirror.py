"""Mirroring a repository from a web server, against a bare loop that fetches and hashes the same objects.

    python bench/bench_mirror.py                            # 10,000 entries, 200 MB
    python bench/bench_mirror.py --entries 100000 --bytes 2000000000

The server is nginx where it is installed, else ``headstart repo serve``; it is the same for all. The bare loop
has as many threads, keeps its connections, writes nothing and knows the objects' names beforehand. Where
``cvmfs_swissknife`` is installed, its ``pull`` is the third. Each run is a process of its own, the arms
alternate, and processor time is taken too: on a machine that others use, its ratio is the one that says
something. Medians, as one JSON object.
"""

import argparse
import hashlib
import http.client
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from headstart.ingest import Recipe
from headstart.keys import create_keys, load_keys, load_master_key
from headstart.names import Fqrn
from headstart.repository import AllKeys, Means, Wanted, create, publish_tree
from headstart.store import DirectoryStore

FQRN = Fqrn("bench.example.org")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
WORKERS = 8


def make_tree(root: Path, entries: int, size: int) -> None:
    """Directories of a hundred files and a catalog for each ten of them; half of a file can be compressed."""
    noise = hashlib.shake_128(b"noise").digest(1 << 20)
    each = size // entries
    for number in range(entries):
        directory = root / f"part{number // 1000}" / f"directory{number // 100 % 10}"
        if number % 100 == 0:
            directory.mkdir(parents=True)
            (directory.parent / ".cvmfscatalog").touch()
        at = number * 613 % (1 << 19)
        content = b"%d" % number + noise[at : at + each // 2] + bytes(each // 2)
        (directory / f"file{number % 100}").write_bytes(content)


def make_repository(work: Path, entries: int, size: int) -> int:
    """A published tree with a catalog for each 1,000 entries; how many objects."""
    now = datetime.now(UTC)
    store = DirectoryStore(str(work / "cvmfs" / str(FQRN)))
    keys = create_keys(str(work / "keys"), FQRN, now=now)
    create(store, AllKeys(keys=keys, master=load_master_key(str(work / "keys"), FQRN)), now)
    make_tree(work / "tree", entries, size)
    wanted = Wanted(directory=str(work / "tree"), at=b"/tree")
    target = store, load_keys(str(work / "keys"), FQRN)
    publish_tree(target, wanted, now, Means(recipe=Recipe(workers=os.cpu_count() or 1)))
    shutil.rmtree(work / "tree")
    names = [item.path for item in store.listing("data/") if "/txn/" not in item.path]
    (work / "names").write_text("\n".join(names))
    return len(names)


@contextmanager
def served(work: Path) -> Iterator[tuple[str, int]]:
    """What the server is, and its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    nginx = shutil.which("nginx", path=PATH)
    if nginx is not None:
        user = "user root;" if os.geteuid() == 0 else ""
        (work / "nginx.conf").write_text(
            f"{user} daemon off; pid {work}/pid; error_log {work}/error.log;\nevents {{ }}\n"
            f"http {{ access_log off; sendfile on; keepalive_requests 1000000;\n"
            f"server {{ listen 127.0.0.1:{port}; root {work}; }} }}\n"
        )
        argv = [nginx, "-e", f"{work}/error.log", "-c", f"{work}/nginx.conf"]
    else:
        argv = [sys.executable, "-m", "headstart", "repo", "serve", f"{work}/cvmfs", "--port", str(port)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        try:
            yield "nginx" if nginx is not None else "repo serve", port
        finally:
            process.terminate()


def bare(names: Path, port: int) -> None:
    """The bare loop."""
    following = iter(names.read_text().split("\n"))
    lock = threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while True:
            with lock:
                path = next(following, None)
            if path is None:
                return
            connection.request("GET", f"/cvmfs/{FQRN}/{path}")
            hashed = hashlib.sha1(connection.getresponse().read(), usedforsecurity=False).hexdigest()
            assert path[5:].replace("/", "").startswith(hashed)

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def timed(*words: str) -> tuple[float, float]:
    """Seconds, and seconds of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def mirrored(work: Path, port: int) -> tuple[float, float]:
    storage = work / "mirror"
    shutil.rmtree(storage, ignore_errors=True)
    words = ("repo", "mirror", f"http://127.0.0.1:{port}/cvmfs/{FQRN}", str(storage))
    key = ("--key", str(work / "keys" / f"{FQRN}.pub"), "--workers", str(WORKERS))
    return timed(sys.executable, "-m", "headstart", *words, *key)


def pulled(program: str, work: Path, port: int) -> tuple[float, float]:
    """The real replicator, into a storage that it finds as it wants it."""
    storage = work / "pulled"
    shutil.rmtree(storage, ignore_errors=True)
    DirectoryStore(str(storage)).prepare()
    (work / "spool").mkdir(exist_ok=True)
    url = f"http://127.0.0.1:{port}/cvmfs/{FQRN}"
    words = ("-m", str(FQRN), "-u", url, "-w", url, "-r", f"local,{storage}/data/txn,{storage}")
    more = ("-k", str(work / "keys" / f"{FQRN}.pub"), "-n", str(WORKERS), "-i")
    places = ("-x", str(work / "spool"), "-R", str(work / "reflog.chksum"))
    return timed(program, "pull", *words, *more, *places)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=200_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare is not None:
        bare(Path(arguments.bare[0]), int(arguments.bare[1]))
        return 0
    real = shutil.which("cvmfs_swissknife")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        work = Path(folder)
        os.chmod(work, 0o755)  # noqa: S103 - the server's workers may be somebody else
        objects = make_repository(work, arguments.entries, arguments.bytes)
        runs: dict[str, list[tuple[float, float]]] = {"mirror": [], "bare": [], "pull": []}
        with served(work) as (server, port):
            for _ in range(arguments.runs):
                runs["mirror"].append(mirrored(work, port))
                runs["bare"].append(timed(sys.executable, __file__, "--bare", str(work / "names"), str(port)))
                if real is not None:
                    runs["pull"].append(pulled(real, work, port))
                sys.stderr.write(f"{ {name: times[-1] for name, times in runs.items() if times} }\n")
        found: dict[str, object] = {"objects": objects, "bytes": arguments.bytes, "server": server}
        middle = {
            name: [statistics.median(column) for column in zip(*times, strict=True)]
            for name, times in runs.items()
            if times
        }
        for name, (wall, cpu) in middle.items():
            found |= {f"{name}_s": round(wall, 2), f"{name}_cpu_s": round(cpu, 2)}
            if name != "mirror":
                found |= {
                    f"over_{name}": round(middle["mirror"][0] / wall, 2),
                    f"cpu_over_{name}": round(middle["mirror"][1] / cpu, 2),
                }
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
