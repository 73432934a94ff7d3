"""All bars, measured: a Markdown table on stdout, everything in build/bench.json.

    python -m bench

Every figure is a ratio or a difference within one run, with its arms interleaved; nothing here is a test.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"


def call(*words: str) -> dict[str, Any]:
    """Run a program that prints one JSON object at the end of its standard output."""
    sys.stderr.write(f"$ {' '.join(words)}\n")
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def bench(name: str, *words: str) -> dict[str, Any]:
    """Run one of the measurements beside this file."""
    return call(sys.executable, str(HERE / f"bench_{name}.py"), *words)


def rows(
    demo: dict[str, Any],
    launch: dict[str, Any],
    hydrate: dict[str, Any],
    publish: dict[str, Any],
    explain: dict[str, Any],
    check: dict[str, Any],
) -> list[tuple[str, str, str]]:
    """What is compared, the bar, and what was measured."""
    warm = demo["release_warm_s"]
    script = ", ".join(f"{shell} {value:.1f} ms" for shell, value in launch["script_ms"].items())
    return [
        (
            "release warm against stock Julia with an empty depot",
            "at least 10 times shorter",
            f"{demo['stock_cold_s'] / warm:.1f} times ({warm:.3f} s, {demo['stock_cold_s']:.2f} s)",
        ),
        (
            "release warm against its image by hand (`julia -J`)",
            "≤ 1.05",
            f"{warm / demo['image_by_hand_s']:.3f}",
        ),
        ("methods compiled beyond stock Julia's own start", "0", str(demo["compiled_methods"])),
        ("`bin/julia`, from its exec to Julia's", "≤ 5 ms", script),
        (
            "`headstart run`, all cached, over `python -I -S -c pass`",
            "≤ 25 ms",
            f"{launch['run_over_python_ms']:.1f} ms",
        ),
        (
            f"{launch['at_once']} starts at once, all cached: 99th percentile against the median",
            "≤ 2",
            f"{launch['at_once_run']['ratio']:.2f} (bare Python {launch['at_once_python']['ratio']:.2f})",
        ),
        (
            f"hydrating the release, {hydrate['objects']} objects, against a bare inflate, hash, write loop",
            "≤ 1.15",
            (f"{hydrate['apart_ratio']:.2f}; " if "apart_ratio" in hydrate else "")
            + f"{hydrate['ratio']:.2f} with the server on the same cores (against a loop that fetches, too: "
            + (f"{hydrate['apart_ratio_fetching']:.2f}; " if "apart_ratio" in hydrate else "")
            + f"{hydrate['ratio_fetching']:.2f})",
        ),
        (
            "resident memory of the launcher while it hydrates",
            "≤ 40 MB",
            f"{hydrate['resident_mb']:.0f} MB",
        ),
        ("publishing the release, against `tar` and `zstd -3 -T0`", "≤ 3", f"{publish['ratio']:.2f}"),
        (
            f"`headstart explain` on {explain['packages']} packages, whole program",
            "≤ 1 s",
            f"{explain['explain_s']:.2f} s ({explain['explain_cpu_s']:.2f} s of the processor)",
        ),
        (
            "`repo check` without content, 100,000 files",
            "≥ 50,000 entries a second",
            f"{check['check_entries_per_s']} ({check['check_entries_per_cpu_s']} per second of processor time)",
        ),
    ]


def mirror_row(mirror: dict[str, Any]) -> tuple[str, str, str]:
    """The same of the mirror, which has the real one's time beside it where that is installed."""
    return (
        f"`repo mirror` of {mirror['objects']} objects, against a bare loop that fetches and hashes them",
        "≤ 1.3 of the real `pull`, where that is installed",
        f"{mirror['over_bare']:.2f} ({mirror['cpu_over_bare']:.2f} of its processor time)"
        + (f"; of `pull` {mirror['over_pull']:.2f}" if "over_pull" in mirror else ""),
    )


def main() -> int:
    """Measure everything."""
    headstart = str(Path(sys.executable).with_name("headstart"))
    folder = BUILD / "demo"
    os.makedirs(folder, exist_ok=True)
    demo = call(headstart, "demo", "--folder", str(folder), "--json")
    launch = bench("launch")
    hydrate = bench("hydrate", "--demo", str(folder))
    publish = bench("publish", "--stage", str(folder / "stage"))
    found = {
        "demo": demo,
        "launch": launch,
        "hydrate": hydrate,
        "publish": publish,
        "explain": bench("explain"),
        "check": bench("check"),
    }
    mirror = bench("mirror")
    (BUILD / "bench.json").write_text(json.dumps(found | {"mirror": mirror}, indent=2) + "\n")
    lines = ["| what | bar | measured |", "|---|---|---|"]
    lines += [
        f"| {what} | {bar} | {measured} |" for what, bar, measured in (*rows(**found), mirror_row(mirror))
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
