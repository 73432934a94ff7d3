"""`headstart explain` on a depot of 300 packages, from the files alone.

    python bench/bench_explain.py --julia PROGRAM

A real Julia compiles two small packages. One of them is then copied under 299 other names: name, UUID, build id
and checksums in its cache are changed to fit, and its source and its entry in the lock are copied too. Every
cache must be accepted. Prints medians of the whole program, Python's own start included, as one JSON object;
processor time beside elapsed time, since a busy machine stretches the second only.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import google_crc32c

from headstart.juliahash import package_slug
from headstart.machine import find_julia
from headstart.process import run_process

LEAF = uuid.UUID("11111111-1111-4111-8111-111111111111")
FIXED_TIME = 1_000_000_000


def identity(number: int) -> uuid.UUID:
    return uuid.UUID(int=0x22222222_2222_4222_8222_000000000000 | number)


def name(number: int) -> str:
    return f"Package{number:03d}"


def source(number: int) -> str:
    return f"module {name(number)}\nusing Leaf\nf(x) = Leaf.f(x) + 1\nend\n"


def write_package(home: Path, called: str, number: uuid.UUID, text: str, needs: str) -> Path:
    entry = home / "src" / f"{called}.jl"
    entry.parent.mkdir(parents=True)
    entry.write_text(text)
    os.utime(entry, (FIXED_TIME, FIXED_TIME))
    (home / "Project.toml").write_text(f'name = "{called}"\nuuid = "{number}"\n{needs}')
    return entry


def write_project(depot: Path, count: int) -> Path:
    """Sources, and a lock that has all of them."""
    project = depot / "project"
    needs = f'[deps]\nLeaf = "{LEAF}"\n'
    write_package(project / "packages/Leaf", "Leaf", LEAF, "module Leaf\nf(x) = 2x\nend\n", "")
    lock = f'[[Leaf]]\npath = "packages/Leaf"\nuuid = "{LEAF}"\n'
    wanted = "[deps]\n"
    for number in range(count):
        home = project / "packages" / name(number)
        write_package(home, name(number), identity(number), source(number), needs)
        lock += f'[[{name(number)}]]\ndeps = ["Leaf"]\npath = "packages/{name(number)}"\n'
        lock += f'uuid = "{identity(number)}"\n'
        wanted += f'{name(number)} = "{identity(number)}"\n'
    (project / "Manifest.toml").write_text(lock)
    (project / "Project.toml").write_text(wanted)
    return project


def halves(number: uuid.UUID) -> bytes:
    return struct.pack("<QQ", number.int >> 64, number.int & (1 << 64) - 1)


def copy_cache(depot: Path, number: int) -> None:
    """The first package's cache as another's."""
    first = next((depot / "compiled").glob(f"v1.*/{name(0)}/*.ji"))
    old, new = (source(one).encode() for one in (0, number))
    data = first.read_bytes()[:-4]
    build = data.index(halves(identity(0))) + 16
    data = (
        data[:build] + struct.pack("<Q", struct.unpack_from("<Q", data, build)[0] + number) + data[build + 8 :]
    )
    data = data.replace(name(0).encode(), name(number).encode())
    data = data.replace(halves(identity(0)), halves(identity(number)))
    data = data.replace(
        struct.pack("<QI", len(old), google_crc32c.value(old)),
        struct.pack("<QI", len(new), google_crc32c.value(new)),
    )
    slug = package_slug(identity(number).int)
    place = first.parent.parent / name(number) / f"{slug}_{first.stem.partition('_')[2]}.ji"
    place.parent.mkdir()
    place.write_bytes(data + struct.pack("<I", google_crc32c.value(data)))
    if first.with_suffix(".so").exists():
        shutil.copyfile(first.with_suffix(".so"), place.with_suffix(".so"))


def seconds(argv: list[str], runs: int) -> tuple[float, float]:
    """Medians of whole runs, elapsed and of the processor; the first one, which warms up, is not counted."""
    took = []
    for _ in range(runs + 1):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True)
        end, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append((end - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    elapsed, processor = zip(*took[1:], strict=True)
    return round(statistics.median(elapsed), 3), round(statistics.median(processor), 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--julia", default="")
    parser.add_argument("--packages", type=int, default=300)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    install = find_julia(args.julia, "", os.environ, run_process)
    explain = [sys.executable, "-m", "headstart", "explain"]
    with tempfile.TemporaryDirectory() as folder:
        depot = Path(folder).resolve() / "depot"
        project = write_project(depot, args.packages)
        env = {"PATH": os.environ["PATH"], "HOME": folder, "JULIA_DEPOT_PATH": f"{depot}:{install.share}"}
        if install.library_path:
            env["LD_LIBRARY_PATH"] = ":".join(install.library_path)
        for word in ("Leaf", name(0)):
            argv = [install.program, "--startup-file=no", f"--project={project}", "-e"]
            wanted = LEAF if word == "Leaf" else identity(0)
            code = f'Base.require(Base.PkgId(Base.UUID("{wanted}"), "{word}"))'
            subprocess.run([*argv, code], env=env, check=True)
        for number in range(1, args.packages):
            copy_cache(depot, number)
        described = Path(folder) / "julia.json"
        with open(described, "wb") as file:
            subprocess.run([*explain, "--describe", "--julia", install.program], stdout=file, check=True)
        words = [*explain, str(depot), "--description", str(described), "--project", str(project), "--json"]
        found = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        assert found["accepted"] == len(found["packages"]) == args.packages + 1, found
        plain = seconds(words, args.runs)
        whole = seconds([*words, "--checksums"], args.runs)
        result = {
            "julia": str(install.probe.version),
            "packages": len(found["packages"]),
            "explain_s": plain[0],
            "explain_cpu_s": plain[1],
            "with_checksums_s": whole[0],
            "with_checksums_cpu_s": whole[1],
            "python_s": seconds([sys.executable, "-c", "pass"], args.runs)[0],
        }
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
