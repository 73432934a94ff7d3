"""Hydrating a release from a web server on loopback, against a bare loop over the same objects.

    python bench/bench_hydrate.py [--demo FOLDER] [--image FILE] [--rounds N] [--server nginx|python]

The bare loop reads each object from the disk, inflates it, hashes it (SHA-256) and writes its content at its
place, in pieces that stay in the processor's own memory, with as many threads as there are cores; it fetches,
verifies and records nothing. (A loop over whole objects takes a third longer or not, as the allocator pleases.)
Hydration proves the repository's state, looks all up, fetches, hashes each file in order, and places it. All of
it is in memory: on a disk the file system takes longer to make a file where others were deleted just before.
It is measured twice, where there are several cores: with the server on the same cores, and with the server on
one core, as if on another machine, and all else on the others. The second bare loop, which also fetches, says
how much of the difference is HTTP. Runs alternate, A B C A B C; medians go to stdout as one JSON object, with
the most memory that ``headstart run`` has while it does the same. ``--demo`` names a folder of ``headstart
demo``: the jets release in it is hydrated, with its Julia. Else it is an image alone: ``--image``, or the stock
Julia's system image, or 160 MB like it.
"""

import argparse
import hashlib
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from headstart import hydrate
from headstart.arrival import Part
from headstart.cache import Cache
from headstart.inflating import ENGINE, Inflater
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
from headstart.stratum import PIECE

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


def public_key(root: Path) -> Path:
    """The repository's, which is named for it."""
    (key,) = (root / "keys").glob("*.pub")
    return key


@contextmanager
def serving(root: Path, kind: str) -> Iterator[str]:
    """The repository's URL while it is served."""
    key = public_key(root)
    fqrn = Fqrn(key.stem)
    if kind == "python":
        with LoopbackServer(str(root / "storage"), fqrn) as server:
            yield server.url
        return
    if not (root / "www").exists():
        (root / "www" / "cvmfs").mkdir(parents=True)
        (root / "www" / "cvmfs" / str(fqrn)).symlink_to(root / "storage")
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
        yield f"http://127.0.0.1:{port}/cvmfs/{fqrn}"
    finally:
        nginx.terminate()
        nginx.wait()


def prove(root: Path, source: str) -> Opened:
    key = public_key(root)
    return open_source(parse(source), Anchors(keys=(str(key),)), now=datetime.now(UTC))


def hydration(opened: Opened) -> hydrate.Hydration:
    """The plan for the last image of the release, which is the highest level, with all that it needs."""
    found = resolve(opened.tree, Reference.parse("jets"), keys=opened.keys, now=datetime.now(UTC))
    julia = opened.tree.read(f"/julia/{found.release.julia}/julia.json", limit=1 << 20)
    home = f"stacks/{found.release.stack}/{found.release.id}"
    verified = hydrate.Verified(
        release=found.release,
        release_bytes=opened.tree.read(f"/{home}/release.json", limit=1 << 22),
        julia=hydrate.read_julia(found.release, julia),
        julia_bytes=julia,
    )
    assert opened.snapshot is not None
    return hydrate.plan(opened.snapshot, verified, found.release.images[-1], have=lambda _unit, _digest: False)


def hydrated(root: Path, url: str) -> float:
    """Seconds to have the release in an empty cache."""
    place = root / "cache"
    start = time.perf_counter()
    opened = prove(root, url)
    planned = hydration(opened)
    assert opened.snapshot is not None
    cache = Cache(str(place), opened.snapshot.fqrn, uid=os.geteuid())
    cache.prepare(time.time())
    hydrate.apply(planned, opened.snapshot, cache)
    seconds = time.perf_counter() - start
    assert all(cache.has(unit.unit, unit.digest) for unit in planned.units)
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
    key = public_key(root)
    words = [sys.executable, "-c", LAUNCHER, "run", url, "jets", "--key", str(key), "--cache", cache, "--", "x"]
    env = {"PATH": os.environ["PATH"], "HOME": str(root), "HEADSTART_STATE": str(root / "absent")}
    done = subprocess.run(words, env=env, capture_output=True, check=True, text=True)
    shutil.rmtree(cache)
    return int(done.stdout) * 1024 / 1e6


Parts = tuple[tuple[int, Part], ...]
"""Each part with its file's number."""
Read = Callable[[Part, memoryview], Iterator[memoryview]]
"""Gives an object in pieces, each in the place of the one before it."""


def from_disk(root: Path) -> Read:
    def read(part: Part, buffer: memoryview) -> Iterator[memoryview]:
        with open(root / "storage" / part.name.path, "rb", buffering=0) as file:
            while size := file.readinto(buffer):
                yield buffer[:size]

    return read


def from_server(url: str) -> Read:
    server, _, path = url.removeprefix("http://").partition("/")
    mine = threading.local()

    def read(part: Part, buffer: memoryview) -> Iterator[memoryview]:
        if not hasattr(mine, "connection"):
            mine.connection = http.client.HTTPConnection(server)
        mine.connection.request("GET", f"/{path}/{part.name.path}")
        answer = mine.connection.getresponse()
        while size := answer.readinto(buffer):
            yield buffer[:size]

    return read


def bare(root: Path, parts: Parts, read: Read) -> float:
    """Seconds to read, inflate, hash and write the same objects."""
    place = root / "bare"
    place.mkdir()
    mine = threading.local()
    start = time.perf_counter()

    def one(task: tuple[int, Part]) -> None:
        number, part = task
        if not hasattr(mine, "buffer"):
            mine.buffer = memoryview(bytearray(PIECE))
        descriptor = os.open(f"{place}/{number}", os.O_RDWR | os.O_CREAT, 0o600)
        inflater = Inflater(limit=part.size, what="object")
        digest = hashlib.sha256()
        offset = part.offset
        for piece in read(part, mine.buffer):
            for content in inflater.feed(piece):
                digest.update(content)
                offset += os.pwrite(descriptor, content, offset)
        for content in inflater.rest():
            digest.update(content)
            offset += os.pwrite(descriptor, content, offset)
        os.close(descriptor)

    in_parallel(parts, one, workers=len(os.sched_getaffinity(0)))
    seconds = time.perf_counter() - start
    assert sum(file.stat().st_size for file in place.iterdir()) == sum(part.size for _, part in parts)
    shutil.rmtree(place)
    return seconds


def compare(root: Path, parts: Parts, url: str, rounds: int) -> dict[str, float]:
    """Hydration, the bare loop, and the bare loop that fetches, in turn."""
    ways: dict[str, Callable[[], float]] = {
        "hydrate_s": lambda: hydrated(root, url),
        "bare_s": lambda: bare(root, parts, from_disk(root)),
        "bare_fetching_s": lambda: bare(root, parts, from_server(url)),
    }
    found: list[dict[str, float]] = []
    for number in range(rounds + 1):
        found.append({name: way() for name, way in ways.items()})
        said = ", ".join(f"{name.removesuffix('_s')} {seconds:.3f} s" for name, seconds in found[-1].items())
        sys.stderr.write(f"{said}{'' if number else ' (not counted)'}\n")
    counted = found[1:]
    return {
        **{name: round(statistics.median(one[name] for one in counted), 4) for name in ways},
        "ratio": round(statistics.median(one["hydrate_s"] / one["bare_s"] for one in counted), 3),
        "ratio_fetching": round(
            statistics.median(one["hydrate_s"] / one["bare_fetching_s"] for one in counted), 3
        ),
    }


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """This thread, and what it starts, on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


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
    parser.add_argument("--demo")
    parser.add_argument("--image")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--server", choices=["nginx", "python"], default="nginx" if shutil.which("nginx") else "python"
    )
    args = parser.parse_args()
    cores = os.sched_getaffinity(0)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  # a folder of its own is made there
    with tempfile.TemporaryDirectory(prefix="headstart-bench-", dir=memory) as folder:
        root = Path(folder)
        if args.demo:
            for name in ("storage", "keys"):
                shutil.copytree(Path(args.demo, name), root / name)
        else:
            make_repository(root, find_image(args.image, root))
        wanted = tuple(hydration(prove(root, str(root / "storage"))).wanted())
        parts = tuple((number, part) for number, file in enumerate(wanted) for part in file.parts)
        with serving(root, args.server) as url:
            shared = compare(root, parts, url, args.rounds)
            most = max(resident(root, url) for _ in range(3))
        apart = {}
        if len(cores) > 1:
            other = {min(cores)}
            with on(other), serving(root, args.server) as url, on(cores - other):
                apart = compare(root, parts, url, args.rounds)
        said = {
            "release": args.demo is not None,
            "bytes": sum(part.size for _, part in parts),
            "stored_bytes": sum((root / "storage" / part.name.path).stat().st_size for _, part in parts),
            "objects": len(parts),
            "files": len(wanted),
            "cores": len(cores),
            "server": args.server,
            "engine": ENGINE,
            "rounds": args.rounds,
            "bar": 1.15,
            **shared,
            **{f"apart_{name}": value for name, value in apart.items()},
            "resident_mb": round(most, 1),
            "resident_bar_mb": 40,
        }
        print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
