"""How long a launch takes from its start to the start of Julia: ``headstart run`` and ``bin/julia``.

    python bench/bench_launch.py [--rounds N]

Julia's place is taken by a program that ends at once, so its own time is measured and taken off. ``run`` is
measured with everything in the cache, namespace included, over ``python -I -S -c pass``; ``bin/julia`` under
each shell that is here, at the path that its release was built for. Runs alternate; medians go to stdout as one
JSON object. Beside elapsed time stands processor time, which means something on a busy machine too.
Then many are started at once, beside as many that do nothing: if all get the same share of the
processor, and are started one after the other, the 99th percentile is twice the median.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from headstart.keys import create_keys, load_master_key
from headstart.microarchitecture import LEVELS
from headstart.names import ChannelName, Fqrn, ReleaseId, Sha256, StackName
from headstart.record import canonical
from headstart.release import FileRecord, ImageRecord, JuliaTree, Record, Release, SystemImage
from headstart.repository import AllKeys, Channel, create, publish
from headstart.script import launcher
from headstart.stage import open_stage
from headstart.store import DirectoryStore

FQRN = Fqrn("julia.example.org")


def write_tree(root: Path, contents: Mapping[str, bytes]) -> dict[str, Record]:
    records: dict[str, Record] = {}
    for path, content in contents.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        mode = 0o555 if path.startswith("bin/") else 0o444
        place.chmod(mode)
        records[path] = FileRecord(sha256=Sha256.of(content), size=len(content), mode=mode)
    (root / ".cvmfscatalog").touch()
    return records


def make_stage(stage: Path, program: bytes) -> Release:
    """A release of four images whose Julia is another program."""
    files = write_tree(stage / "julia" / "new", {"bin/julia": program})
    tree = JuliaTree(
        version="1.5.3", executable="bin/julia", share="share/julia", system_image="lib/sys.so",
        library_path=(), files=files,
    )  # fmt: skip
    (stage / "julia" / "new").rename(stage / "julia" / str(tree.name))
    (stage / "julia" / str(tree.name) / "julia.json").write_bytes(tree.to_bytes())
    images = tuple(
        ImageRecord(
            target=target, cpu_target="x", recorded="x", features=tuple(sorted(flags)),
            code=SystemImage(path=f"images/{target}/sys.so", size=6), build_seconds=0.0,
        )
        for target, flags in LEVELS.items()
    )  # fmt: skip
    release = Release(
        fqrn=FQRN, stack=StackName("jets"), id=ReleaseId("0123456789abcdef"), julia=tree.name,
        julia_digest=Sha256.of(tree.to_bytes()), julia_version="1.5.3", julia_executable="bin/julia",
        julia_share="share/julia", julia_library_path=(), relocatable=True, startup="", load_path=(),
        julia_options=(), julia_environment={},
        inputs={},        images=images, files={}, built="2026-01-01T00:00:00Z",
    )  # fmt: skip
    contents = {f"images/{image.target}/sys.so": b"image\n" for image in images} | {
        "bin/julia": launcher(release).encode()
    }
    home = stage / "stacks" / "jets" / str(release.id)
    release = replace(release, files=write_tree(home, contents))
    (home / "release.json").write_bytes(release.to_bytes())
    said = {"fqrn": FQRN, "stack": release.stack, "release": release.id, "julia": tree.name}
    (stage / "stage.json").write_bytes(canonical({"schema": 1, **{key: str(said[key]) for key in said}}))
    return release


def timed(words: list[str], env: Mapping[str, str]) -> tuple[float, float]:
    """Milliseconds from the start of a program to its end, and of processor time."""
    start = time.perf_counter()
    # posix_spawn: nothing of this process is copied.
    child = os.posix_spawn(
        words[0], words, dict(env), file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", 1, 0)]
    )
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{words} ended with {status}")
    return seconds * 1000, (usage.ru_utime + usage.ru_stime) * 1000


def at_once(words: list[str], env: Mapping[str, str], count: int) -> dict[str, float]:
    """Seconds from the start of a program to its end, when many are started at once."""
    begun: dict[int, float] = {}
    took = []
    for _ in range(count):
        child = os.posix_spawn(
            words[0], words, dict(env), file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", 1, 0)]
        )
        begun[child] = time.perf_counter()
    for _ in range(count):
        child, status = os.wait()
        took.append(time.perf_counter() - begun[child])
        if status:
            raise SystemExit(f"{words} ended with {status}")
    p50, p99 = statistics.quantiles(took, n=100)[49], statistics.quantiles(took, n=100)[98]
    return {"p50_s": round(p50, 2), "p99_s": round(p99, 2), "ratio": round(p99 / p50, 2)}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--at-once", type=int, default=1000, help="starts at the same time")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headstart-bench-") as folder:
        root = Path(folder)
        true = Path(shutil.which("true") or "/bin/true")
        release = make_stage(root / "stage", true.read_bytes())
        now = datetime.now(UTC)
        keys = create_keys(str(root / "keys"), FQRN, now=now)
        store = DirectoryStore(str(root / "storage"))
        create(store, AllKeys(keys=keys, master=load_master_key(str(root / "keys"), FQRN)), now)
        publish((store, keys), open_stage(str(root / "stage")), Channel(name=ChannelName("prod")), now)
        key = str(root / "keys" / f"{FQRN}.pub")
        source = os.path.dirname(os.path.dirname(os.path.abspath(sys.modules["headstart"].__file__ or "")))
        code = f"import sys; sys.path.insert(0, {source!r}); from headstart.cli import main; sys.exit(main())"
        run = ["run", str(root / "storage"), "jets", "--key", key, "--", "x"]
        env = {"PATH": os.environ["PATH"], "HOME": folder, "HEADSTART_QUIET": "1"}
        # The script's usual way: the release stands where it was built for.
        home = root / "stage" / "stacks" / "jets" / str(release.id)
        (home / "bin" / "julia").chmod(0o755)
        (home / "bin" / "julia").write_text(launcher(release).replace(release.path, str(home)))
        arms: dict[str, list[str]] = {
            "nothing": [str(true)],
            "python": [sys.executable, "-I", "-S", "-c", "pass"],
            "run": [str(Path(sys.executable).with_name("headstart")), *run],
            "run, no site": [sys.executable, "-I", "-S", "-c", code, *run],
        }
        for shell in ("dash", "bash", "busybox"):
            path = shutil.which(shell)
            if path:
                extra = ["sh"] if shell == "busybox" else []
                arms[shell] = [path, *extra, str(home / "bin" / "julia"), "x"]
        times: dict[str, list[float]] = {name: [] for name in arms}
        work: dict[str, list[float]] = {name: [] for name in arms}
        for number in range(args.rounds + 3):
            for name, words in arms.items():
                took, worked = timed(words, env)
                if number >= 3:
                    times[name].append(took)
                    work[name].append(worked)
        many = {name: at_once(arms[name], env, args.at_once) for name in ("run, no site", "python")}
        said = {name: statistics.median(values) for name, values in times.items()}
        cpu = {name: statistics.median(values) for name, values in work.items()}
        over = [a - b - c for a, b, c in zip(times["run"], times["python"], times["nothing"], strict=True)]
        shells = [shell for shell in ("dash", "bash", "busybox") if shell in said]
        result = {
            "rounds": args.rounds,
            "medians_ms": {name: round(value, 2) for name, value in said.items()},
            "least_ms": {name: round(min(values), 2) for name, values in times.items()},
            "run_over_python_ms": round(statistics.median(over), 2),
            "run_over_python_cpu_ms": round(cpu["run"] - cpu["python"] - cpu["nothing"], 2),
            "run_no_site_over_python_cpu_ms": round(cpu["run, no site"] - cpu["python"] - cpu["nothing"], 2),
            "run_bar_ms": 25,
            "cpu_medians_ms": {name: round(value, 2) for name, value in cpu.items()},
            "script_cpu_ms": {shell: round(cpu[shell] - cpu["nothing"], 2) for shell in shells},
            "script_ms": {shell: round(said[shell] - said["nothing"], 2) for shell in shells},
            "script_bar_ms": 5,
            "at_once": args.at_once,
            "at_once_run": many["run, no site"],
            "at_once_python": many["python"],
            "at_once_bar": 2,
        }
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
