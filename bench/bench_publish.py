"""Publishing a release, against ``tar`` piped into ``zstd -3 -T0`` over the same tree.

    python bench/bench_publish.py --stage STAGE      # a finished stage
    python bench/bench_publish.py --julia PREFIX     # a stand-in: a Julia, and its system image twice, changed

Runs alternate, A B A B; medians are printed as one JSON object. Publishing includes reading the stage, SHA-256
of every file, compression, catalogs, signatures, and waiting until all is on disk; tar's output is written to a
file and is not waited for.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from headstart.ingest import Recipe
from headstart.keys import create_keys, load_master_key
from headstart.names import ChannelName, Fqrn, ReleaseId, Sha256, StackName
from headstart.record import canonical
from headstart.release import FileRecord, ImageRecord, JuliaTree, LinkRecord, Record, Release, SystemImage
from headstart.repository import AllKeys, Channel, Means, create, publish
from headstart.stage import open_stage
from headstart.store import DirectoryStore

RELEASE = ReleaseId("0123456789abcdef")


def records_of(root: Path) -> dict[str, Record]:
    """Bring a tree into the shape of a build's, and record it."""
    found: dict[str, Record] = {}
    for place in sorted(root.rglob("*")):
        path = str(place.relative_to(root))
        if place.is_symlink():
            if not place.resolve().is_relative_to(root.resolve()) or os.readlink(place).startswith("/"):
                place.unlink()
            else:
                found[path] = LinkRecord(target=os.readlink(place))
        elif place.is_file():
            mode = 0o555 if os.access(place, os.X_OK) and place.stat().st_mode & 0o111 else 0o444
            place.chmod(mode)
            content = place.read_bytes()
            found[path] = FileRecord(sha256=Sha256.of(content), size=len(content), mode=mode)
    return found


def stand_in(prefix: Path, stage: Path, fqrn: Fqrn) -> None:
    """A stage of the size of a real one, without building anything."""
    work = stage / "work"
    subprocess.run(["cp", "-a", "--no-preserve=ownership", prefix, work], check=True)
    image = next(path for path in work.rglob("sys.so"))
    files = records_of(work)
    tree = JuliaTree(
        version="1.5.3",
        executable="bin/julia",
        share="share/julia",
        system_image=str(image.relative_to(work)),
        library_path=(),
        files=files,
    )
    (work / "julia.json").write_bytes(tree.to_bytes())
    (work / ".cvmfscatalog").touch()
    julia = stage / "julia" / str(tree.name)
    julia.parent.mkdir(parents=True)
    work.rename(julia)
    root = stage / "stacks" / "jets" / str(RELEASE)
    content = bytearray((julia / image.relative_to(work)).read_bytes())
    images = []
    for number, target in enumerate(("x86-64", "x86-64-v3")):
        place = root / "images" / target / "sys.so"
        place.parent.mkdir(parents=True)
        for at in range(number * 1000, len(content), 65536):
            content[at] ^= 0x55
        place.write_bytes(content)
        images.append(image_record(target, len(content)))
    for number in range(200):
        place = root / "depot" / "packages" / f"P{number % 20}" / f"{number}.jl"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"module P{number}\n" * 50)
    release = Release(
        fqrn=fqrn, stack=StackName("jets"), id=RELEASE, julia=tree.name,
        julia_digest=Sha256.of(tree.to_bytes()), julia_version="1.5.3", julia_executable="bin/julia",
        julia_share="share/julia", julia_library_path=(),
        relocatable=True, startup="", load_path=(), julia_options=(), julia_environment={}, inputs={},
        images=tuple(images), files=records_of(root),
        built="2026-01-01T00:00:00Z",
    )  # fmt: skip
    (root / "release.json").write_bytes(release.to_bytes())
    (root / ".cvmfscatalog").touch()
    said = {"schema": 1, "fqrn": str(fqrn), "stack": "jets", "release": str(RELEASE), "julia": str(tree.name)}
    (stage / "stage.json").write_bytes(canonical(said))


def image_record(target: str, size: int) -> ImageRecord:
    return ImageRecord(
        target=target, cpu_target="generic", recorded="generic", features=(), build_seconds=0.0,
        code=SystemImage(path=f"images/{target}/sys.so", size=size),
    )  # fmt: skip


def time_publish(stage: Path, work: Path) -> tuple[float, int]:
    """Seconds to publish into a new repository, and bytes stored."""
    now = datetime.now(UTC)
    fqrn = Fqrn(json.loads((stage / "stage.json").read_text())["fqrn"])
    keys = create_keys(str(work / "keys"), fqrn, now=now)
    store = DirectoryStore(str(work / "storage"))
    create(store, AllKeys(keys=keys, master=load_master_key(str(work / "keys"), fqrn)), now)
    os.sync()
    start = time.perf_counter()
    means = Means(recipe=Recipe(workers=os.cpu_count() or 1))
    done = publish((store, keys), open_stage(str(stage)), Channel(name=ChannelName("prod")), now, means)
    return time.perf_counter() - start, done.stored


def published(stage: Path) -> tuple[str, str]:
    """What of a stage is published: the release that it announces, and its Julia."""
    said = json.loads((stage / "stage.json").read_text())
    return f"julia/{said['julia']}", f"stacks/{said['stack']}/{said['release']}"


def time_tar(stage: Path, work: Path) -> tuple[float, int]:
    """Seconds for tar and zstd of the same trees, and bytes written."""
    os.sync()
    start = time.perf_counter()
    out = work / "tree.tar.zst"
    command = 'tar -C "$1" -c "$3" "$4" | zstd -q -3 -T0 -o "$2"'
    subprocess.run(["bash", "-c", command, "tar", stage, out, *published(stage)], check=True)
    return time.perf_counter() - start, out.stat().st_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--stage", type=Path)
    source.add_argument("--julia", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        work = Path(folder)
        stage: Path = arguments.stage or work / "stage"
        if arguments.julia:
            stage.mkdir()
            stand_in(arguments.julia, stage, Fqrn("julia.example.org"))
        results: dict[str, list[tuple[float, int]]] = {"publish": [], "tar_zstd": []}
        for _ in range(arguments.runs):
            for name, run in (("publish", time_publish), ("tar_zstd", time_tar)):
                with tempfile.TemporaryDirectory(dir=folder) as inner:
                    results[name].append(run(stage, Path(inner)))
                    sys.stderr.write(f"{name} {results[name][-1][0]:.2f} s\n")
        medians = {name: statistics.median(seconds for seconds, _ in runs) for name, runs in results.items()}
        files = [path for tree in published(stage) for path in (stage / tree).rglob("*") if path.is_file()]
        size = sum(path.lstat().st_size for path in files)
        print(
            json.dumps(
                {
                    "content_bytes": size,
                    "publish_s": round(medians["publish"], 3),
                    "tar_zstd_s": round(medians["tar_zstd"], 3),
                    "ratio": round(medians["publish"] / medians["tar_zstd"], 3),
                    "bar": 3.0,
                    "publish_bytes": results["publish"][-1][1],
                    "tar_zstd_bytes": results["tar_zstd"][-1][1],
                    "runs": arguments.runs,
                }
            )
        )
        shutil.rmtree(work / "stage", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
