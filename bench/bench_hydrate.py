"""Hydrating an image from a web server on loopback, against a bare loop over the same objects.

    python bench/bench_hydrate.py [--image FILE] [--rounds N] [--server nginx|python]

The bare loop reads each object from the disk, inflates it, hashes it (SHA-256) and writes its content at its
place, with as many threads as there are cores; it fetches, verifies and records nothing. Hydration proves the
repository's state, looks the image up, fetches with several threads, compares every object with its name,
hashes the file, and places it. The server runs on the same cores. Runs alternate, A B A B; medians go to stdout
as one JSON object, with the most memory that ``headstart run`` has while it does the same. Without ``--image``
the stock Julia's system image is taken, else 160 MB like it.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from headstart import hydrate
from headstart.arrival import Part
from headstart.cache import Cache
from headstart.inflating import ENGINE, inflate
from headstart.keys import create_keys, load_master_key
from headstart.loopback import LoopbackServer
from headstart.names import ChannelName, Fqrn, JuliaName, ReleaseId, Sha256, StackName
from headstart.parallel import in_parallel
from headstart.published import resolve
from headstart.record import canonical
from headstart.reference import Reference
from headstart.release import FileRecord, ImageRecord, JuliaTree, Release, SystemImage
from headstart.repository import AllKeys, Channel, create, publish
from headstart.source import Anchors, Opened, open_source, parse
from headstart.stage import open_stage
from headstart.store import DirectoryStore

FQRN = Fqrn("julia.example.org")
HOME = f"stacks/jets/{'0' * 16}"
IMAGE = "images/x86-64/sys.so"


def write_stage(stage: Path, image: Path) -> None:
    """A stage with one image and next to nothing else."""
    content = b"#!/bin/sh\n"
    program = {"bin/julia": FileRecord(sha256=Sha256.of(content), size=len(content), mode=0o555)}
    tree = JuliaTree(
        version="1.5.3", executable="bin/julia", share="share/julia", system_image="lib/sys.so",
        library_path=(), files=program,
    )  # fmt: skip
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    size = image.stat().st_size
    release = Release(
        fqrn=FQRN, stack=StackName("jets"), id=ReleaseId("0" * 16), julia=JuliaName(str(tree.name)),
        julia_digest=Sha256.of(tree.to_bytes()), julia_version="1.5.3", julia_executable="bin/julia",
        julia_share="share/julia", julia_library_path=(), relocatable=True, startup="", load_path=(),
        julia_options=(), julia_environment={},
        inputs={},
        images=(
            ImageRecord(
                target="x86-64", cpu_target="generic", recorded="generic", features=(),
                code=SystemImage(path=IMAGE, size=size),
                build_seconds=0.0,
            ),
        ),
        files={IMAGE: FileRecord(sha256=Sha256(digest), size=size, mode=0o444)}, built="2026-01-01T00:00:00Z",
    )  # fmt: skip
    for root, name, record in (
        (stage / "julia" / str(tree.name), "julia.json", tree.to_bytes()),
        (stage / HOME, "release.json", release.to_bytes()),
    ):
        root.mkdir(parents=True)
        (root / name).write_bytes(record)
        (root / ".cvmfscatalog").touch()
    place = stage / "julia" / str(tree.name) / "bin" / "julia"
    place.parent.mkdir()
    place.write_bytes(content)
    place.chmod(0o555)
    place = stage / HOME / IMAGE
    place.parent.mkdir(parents=True)
    shutil.copyfile(image, place)
    place.chmod(0o444)
    said = {"fqrn": FQRN, "stack": release.stack, "release": release.id, "julia": tree.name}
    (stage / "stage.json").write_bytes(canonical({"schema": 1, **{key: str(said[key]) for key in said}}))


def make_repository(root: Path, image: Path) -> None:
    now = datetime.now(UTC)
    write_stage(root / "stage", image)
    keys = create_keys(str(root / "keys"), FQRN, now=now)
    store = DirectoryStore(str(root / "storage"))
    create(store, AllKeys(keys=keys, master=load_master_key(str(root / "keys"), FQRN)), now)
    publish((store, keys), open_stage(str(root / "stage")), Channel(name=ChannelName("prod")), now)


@contextmanager
def serving(root: Path, kind: str) -> Iterator[str]:
    """The repository's URL while it is served."""
    if kind == "python":
        with LoopbackServer(str(root / "storage"), FQRN) as server:
            yield server.url
        return
    (root / "www" / "cvmfs").mkdir(parents=True)
    (root / "www" / "cvmfs" / str(FQRN)).symlink_to(root / "storage")
    for path in (root, *(root / "storage").rglob("*")):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    port = 18080 + os.getpid() % 1000
    user = "user root;" if os.geteuid() == 0 else ""
    (root / "nginx.conf").write_text(
        f"{user} worker_processes 1; daemon off; pid {root}/pid; error_log {root}/error.log;\n"
        "events { worker_connections 64; }\n"
        "http { access_log off; sendfile on; tcp_nopush on; keepalive_timeout 60; keepalive_requests 100000;\n"
        f" client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;\n"
        f" uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;\n"
        f" server {{ listen 127.0.0.1:{port}; root {root}/www; }} }}\n"
    )
    nginx = subprocess.Popen(["nginx", "-c", root / "nginx.conf", "-e", root / "error.log"])
    try:
        time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/cvmfs/{FQRN}"
    finally:
        nginx.terminate()
        nginx.wait()


def prove(root: Path, source: str) -> Opened:
    anchors = Anchors(keys=(str(root / "keys" / f"{FQRN}.pub"),))
    return open_source(parse(source), anchors, now=datetime.now(UTC))


def hydration(opened: Opened) -> tuple[hydrate.Hydration, Release]:
    """The plan for the image alone."""
    found = resolve(opened.tree, Reference.parse("jets"), keys=opened.keys, now=datetime.now(UTC))
    julia = opened.tree.read(f"/julia/{found.release.julia}/julia.json", limit=1 << 20)
    verified = hydrate.Verified(
        release=found.release,
        release_bytes=b"",
        julia=hydrate.read_julia(found.release, julia),
        julia_bytes=julia,
    )
    image = found.release.images[0]
    only = hydrate.units(found.release, image)[2]
    assert opened.snapshot is not None

    def have(unit: str, _digest: str) -> bool:
        return unit != only

    return hydrate.plan(opened.snapshot, verified, image, have=have), found.release


def hydrated(root: Path, url: str) -> float:
    """Seconds to have the image in an empty cache."""
    place = root / "cache"
    start = time.perf_counter()
    opened = prove(root, url)
    planned, release = hydration(opened)
    cache = Cache(str(place), FQRN, uid=os.geteuid())
    cache.prepare(time.time())
    assert opened.snapshot is not None
    hydrate.apply(planned, opened.snapshot, cache)
    seconds = time.perf_counter() - start
    assert os.path.getsize(cache.place(f"{HOME}/{IMAGE}")) == release.images[0].size
    shutil.rmtree(place)
    return seconds


LAUNCHER = """
import os, sys
from headstart.cli import main

def instead_of_julia(*_):
    with open("/proc/self/status") as file:
        print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
        sys.stdout.flush()
    os._exit(0)

os.execve = instead_of_julia
sys.exit(main())
"""
"""``headstart run``, which says what memory it had at most, in KiB, in the place of becoming Julia."""


def resident(root: Path, url: str) -> float:
    """MB that the launcher has at most while it hydrates the whole release into an empty cache."""
    cache = str(root / "resident")
    key = str(root / "keys" / f"{FQRN}.pub")
    words = [sys.executable, "-c", LAUNCHER, "run", url, "jets", "--key", key, "--cache", cache, "--", "x"]
    env = {"PATH": os.environ["PATH"], "HOME": str(root), "HEADSTART_STATE": str(root / "absent")}
    done = subprocess.run(words, env=env, capture_output=True, check=True, text=True)
    shutil.rmtree(cache)
    return int(done.stdout) * 1024 / 1e6


def bare(root: Path, parts: tuple[Part, ...], workers: int) -> float:
    """Seconds to inflate, hash and write the same objects."""
    place = root / "bare"
    start = time.perf_counter()
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def one(part: Part) -> None:
        content = inflate((root / "storage" / part.name.path).read_bytes(), limit=part.size, what="object")
        hashlib.sha256(content).digest()
        os.pwrite(descriptor, content, part.offset)

    in_parallel(parts, one, workers=workers)
    os.close(descriptor)
    seconds = time.perf_counter() - start
    place.unlink()
    return seconds


def stand_in(root: Path) -> Path:
    """160 MB that deflate to about a quarter, as a system image does."""
    place = root / "sys.so"
    block = os.urandom(1 << 16)
    with open(place, "wb") as file:
        file.writelines(number.to_bytes(8, "big") * 24576 + block[: 1 << 16] for number in range(160 * 4))
    return place


def find_image(given: str | None, root: Path) -> Path:
    if given:
        return Path(given)
    julia = os.environ.get("HEADSTART_JULIA") or shutil.which("julia")
    if julia:
        code = "print(unsafe_string(Base.JLOptions().image_file))"
        done = subprocess.run([julia, "-e", code], capture_output=True, check=False, text=True)
        if done.returncode == 0 and os.path.isfile(done.stdout):
            return Path(done.stdout)
    return stand_in(root)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--image")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--server", choices=["nginx", "python"], default="nginx" if shutil.which("nginx") else "python"
    )
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="headstart-bench-") as folder:
        root = Path(folder)
        image = find_image(args.image, root)
        make_repository(root, image)
        planned, release = hydration(prove(root, str(root / "storage")))
        (unit,) = planned.units
        parts = unit.files["sys.so"].parts
        rounds = []
        with serving(root, args.server) as url:
            hydrated(root, url)
            bare(root, parts, cores)
            for _ in range(args.rounds):
                rounds.append((hydrated(root, url), bare(root, parts, cores)))
                sys.stderr.write(f"hydrate {rounds[-1][0]:.3f} s, bare {rounds[-1][1]:.3f} s\n")
            most = max(resident(root, url) for _ in range(3))
        ours = statistics.median(pair[0] for pair in rounds)
        theirs = statistics.median(pair[1] for pair in rounds)
        stored = sum((root / "storage" / part.name.path).stat().st_size for part in parts)
        said = {
            "image_bytes": release.images[0].size,
            "stored_bytes": stored,
            "objects": len(parts),
            "cores": cores,
            "server": args.server,
            "engine": ENGINE,
            "rounds": args.rounds,
            "hydrate_s": round(ours, 4),
            "bare_s": round(theirs, 4),
            "ratio": round(statistics.median(a / b for a, b in rounds), 3),
            "bar": 1.15,
            "resident_mb": round(most, 1),
            "resident_bar_mb": 40,
        }
        print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
