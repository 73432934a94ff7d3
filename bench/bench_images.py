"""The kinds of images side by side, on one Julia: start, bytes fetched, size, build time, what is compiled.

    python bench/bench_images.py [--julia PROGRAM] [--kind KIND ...] [--target T] [--rounds N]
        [--events N]

For each kind the example stack is built, published and served over HTTP from this machine, and then started in
turns: stock Julia with an empty depot and again, the release with an empty cache and again, the same image by
hand at the same path (``julia -J`` in a namespace that was made before), and stock Julia that does nothing. The
workload's own steady-state time is that of its second run in one process, and the longer it works the less
its start matters: ``--events`` says how much of the data a job has to do. Medians go to stdout as one JSON
object; a Markdown table of them to stderr. Builds are kept in build/images.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart import demo
from headstart.build.staging import remove_tree
from headstart.cache import Cache
from headstart.cli.demo import settings_for
from headstart.console import Console
from headstart.datafiles import data_path
from headstart.loopback import LoopbackServer
from headstart.machine import cpu_flags, find_julia
from headstart.microarchitecture import LEVELS, select
from headstart.namespace import Bind, wrap
from headstart.process import run_loud, run_process
from headstart.release import ImageRecord, Release
from headstart.script import settings as sealed

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "jets"
PLACE = HERE.parent / "build" / "images"
KINDS = {"sysimage": "", "pkgimages": "", "both": 'heavy = ["JetClustering"]\n'}
COUNTED = re.compile(r"headstart-compiled: (\d+) (\d+)")


def write_project(kind: str, place: Path) -> Path:
    """The example stack with another kind of image."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(EXAMPLE, place)
    text = (place / "Headstart.toml").read_text()
    text = re.sub(r"^image = .*\n", f'image = "{kind}"\n{KINDS[kind]}', text, flags=re.MULTILINE)
    (place / "Headstart.toml").write_text(text)
    return place


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One published release, and how to start it."""

    settings: demo.Settings
    release: Release
    image: ImageRecord
    url: str
    scratch: str

    @property
    def cache(self) -> str:
        return os.path.join(self.scratch, "cache")

    @property
    def env(self) -> dict[str, str]:
        return {**self.settings.stock.env, "HOME": self.scratch, "HEADSTART_QUIET": "1"}

    def run(self) -> tuple[str, ...]:
        settings = self.settings
        place = ("--key", settings.public_key, "--cache", self.cache)
        return (*settings.headstart, "run", self.url, f"{settings.stack}@{demo.CHANNEL}", *place, "--")

    def stock(self) -> tuple[tuple[str, ...], dict[str, str]]:
        settings = self.settings
        env = {
            **settings.stock.env,
            "HOME": self.scratch,
            "JULIA_DEPOT_PATH": f"{self.scratch}/depot:{settings.stock.share}",
            "JULIA_LOAD_PATH": "@:@stdlib",
            "JULIA_PROJECT": settings.project,
        }
        return (settings.stock.executable, "--startup-file=no", "--history-file=no"), env

    def by_hand(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """What the release's own start is, typed by somebody who knows it."""
        release = self.release
        julia = f"{release.fqrn.mountpoint}/julia/{release.julia}"
        env = {**self.env, **sealed(release, release.path, julia, packages=self.image.packages)}
        env["LD_LIBRARY_PATH"] = ":".join(f"{julia}/{path}" for path in release.julia_library_path)
        words = [f"{julia}/{release.julia_executable}", "--startup-file=no", "--history-file=no"]
        for part in self.image.system:
            words += ["-J", f"{release.path}/{part.path}"]
        if release.startup:
            words += ["-L", f"{release.path}/{release.startup}"]
        if "--compiled-modules=strict" in release.julia_options:
            env["JULIA_DEPOT_PATH"] = f"{self.scratch}/hand:{env['JULIA_DEPOT_PATH']}"
        return (*words, *release.julia_options), env

    def work(self) -> tuple[str, ...]:
        return ("-e", self.settings.code, "--", *self.settings.arguments)

    def again(self) -> str:
        """The work twice in one process, and the time of the second."""
        arguments = ", ".join(json.dumps(word) for word in self.settings.arguments)
        load = self.settings.code.partition(";")[0]
        return (
            f"{load}; once() = JetAnalysis.main([{arguments}]); once(); start = time_ns(); once();"
            ' print(stderr, "headstart-steady: ", time_ns() - start)'
        )

    def counting(self) -> str:
        arguments = ", ".join(json.dumps(word) for word in self.settings.arguments)
        return f"empty!(ARGS); append!(ARGS, [{arguments}]); {self.settings.code}"


@contextmanager
def at_its_path(root: str, release: Release) -> Iterator[tuple[str, ...]]:
    """Words that start a program where a cache stands at the repository's mountpoint."""
    inside = wrap((Bind(root, release.fqrn.mountpoint, writable=False),), ("sleep", "86400"))
    with subprocess.Popen(inside, env={"PATH": "/usr/bin:/bin"}) as holder:
        user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
        enter = ("nsenter", "--target", str(holder.pid), "--mount", *user)
        try:
            for _ in range(200):
                done = subprocess.run([*enter, "test", "-e", release.path], check=False, capture_output=True)
                if done.returncode == 0:
                    break
                time.sleep(0.05)
            yield (*enter, "--")
        finally:
            holder.kill()


def start(argv: tuple[str, ...], env: Mapping[str, str]) -> tuple[float, str]:
    """Seconds until it ended, and what it said."""
    began = time.monotonic()
    done = subprocess.run(argv, env=dict(env), capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return seconds, done.stderr


def clear(scratch: str) -> None:
    """Throw away depots and caches, which hold directories that nobody may write."""
    for name in os.listdir(scratch):
        remove_tree(os.path.join(scratch, name))


def measure(subject: Subject, server: LoopbackServer, rounds: int) -> dict[str, Any]:
    """The arms in turns."""
    stock, stock_env = subject.stock()
    times: dict[str, list[float]] = {}
    fetched: list[int] = []

    def note(name: str, argv: tuple[str, ...], env: Mapping[str, str]) -> str:
        seconds, said = start(argv, env)
        times.setdefault(name, []).append(seconds)
        return said

    for number in range(rounds):
        sys.stderr.write(f"round {number + 1} of {rounds}\n")
        clear(subject.scratch)
        note("stock_cold", (*stock, *subject.work()), stock_env)
        note("stock_second", (*stock, *subject.work()), stock_env)
        before = server.sent
        note("release_cold", (*subject.run(), *subject.work()), subject.env)
        fetched.append(server.sent - before)
        root = Cache(subject.cache, subject.release.fqrn, uid=os.geteuid()).root
        with at_its_path(root, subject.release) as enter:
            hand, hand_env = subject.by_hand()
            for _ in range(3):
                note("empty", (*stock, "-e", ""), stock_env)
                note("release_warm", (*subject.run(), *subject.work()), subject.env)
                note("by_hand", (*enter, *hand, *subject.work()), hand_env)
                note("entering", (*enter, "true"), hand_env)
        said = note("twice", (*subject.run(), "-e", subject.again()), subject.env)
        steady = int(said.rpartition("headstart-steady: ")[2].split()[0])
        times.setdefault("steady", []).append(steady / 1e9)
    _, said = start((*subject.run(), data_path("counters.jl"), "-e", subject.counting()), subject.env)
    spent = COUNTED.findall(said)[-1]
    written = [path for path in Path(subject.scratch).rglob("*.ji") if "depot" not in path.parts
               and not str(path).startswith(subject.cache)]  # fmt: skip
    middle = {name: statistics.median(values) for name, values in times.items()}
    return {
        **{f"{name}_s": round(value, 4) for name, value in middle.items() if name != "twice"},
        "bytes_fetched": max(fetched),
        "image_bytes": subject.image.size,
        "build_seconds": subject.image.build_seconds,
        "compile_ns": int(spent[0]),
        "jit_bytes": int(spent[1]),
        "caches_written": len(written),
        "shorter_than_stock": round(middle["stock_cold"] / middle["release_warm"], 1),
        "of_by_hand": round(middle["release_warm"] / (middle["by_hand"] - middle["entering"]), 3),
        "of_empty_and_steady": round(middle["release_warm"] / (middle["empty"] + middle["steady"]), 3),
    }


def one_kind(kind: str, args: argparse.Namespace) -> dict[str, Any]:
    """Build, publish, serve and measure one kind."""
    install = find_julia(args.julia, "system", os.environ, run_process)
    place = PLACE / str(install.probe.version) / kind
    project = write_project(kind, place / "project")
    settings = settings_for(str(place), str(project), install, args.rounds)
    settings = replace(settings, targets=(args.target or settings.targets[-1],))
    if args.events:
        settings = replace(settings, arguments=("--max-events", str(args.events), *settings.arguments))
    env = {**os.environ, "HEADSTART_JULIA": install.program}
    began = time.monotonic()
    demo.prepare(settings, Console(sys.stderr), run_loud, env)
    prepared = time.monotonic() - began
    staged = json.loads((place / "stage" / "stage.json").read_text())
    record = place / "stage" / "stacks" / staged["stack"] / staged["release"] / "release.json"
    release = Release.from_bytes(record.read_bytes())
    image = next(
        one for one in release.images
        if one.target == select(cpu_flags(), release.images, None).chosen.target
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix="headstart-images-", dir=demo.scratch_place(str(place))) as scratch,
        LoopbackServer(settings.below("storage"), settings.fqrn) as server,
    ):
        subject = Subject(settings=settings, release=release, image=image, url=server.url, scratch=scratch)
        try:
            found = measure(subject, server, args.rounds)
        finally:
            clear(scratch)
    said = {"julia": str(install.probe.version), "kind": kind, "target": image.target, "events": args.events}
    return {**said, **found, "prepared_seconds": round(prepared, 1)}


def table(rows: list[dict[str, Any]]) -> str:
    """What was measured, as Markdown."""
    names = "Julia|image|build|size|fetched|stock, empty depot|empty cache|warm|by hand|`-e ''` + steady|left"
    lines = [f"| {' | '.join(names.split('|'))} |", "|---" * len(names.split("|")) + "|"]
    for row in rows:
        left = f"{row['jit_bytes']} B, {row['compile_ns'] / 1e6:.0f} ms" if row["jit_bytes"] else "0"
        ratios = f"{row['of_by_hand']:.3f} | {row['of_empty_and_steady']:.2f}"
        lines.append(
            f"| {row['julia']} | {row['kind']} {row['target']} | {row['build_seconds']:.0f} s "
            f"| {row['image_bytes'] / 1e6:.0f} MB | {row['bytes_fetched'] / 1e6:.0f} MB "
            f"| {row['stock_cold_s']:.2f} s | {row['release_cold_s']:.2f} s | {row['release_warm_s']:.3f} s "
            f"({row['shorter_than_stock']:.1f} times) | {ratios} | {left} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--julia", default="", help="the Julia (default: HEADSTART_JULIA, else on the PATH)")
    parser.add_argument("--kind", action="append", choices=list(KINDS), default=[])
    parser.add_argument("--target", choices=list(LEVELS), default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=0, help="of the data (default: all)")
    args = parser.parse_args()
    rows = [one_kind(kind, args) for kind in args.kind or KINDS]
    sys.stderr.write(table(rows))
    sys.stdout.write(json.dumps({"images": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
