"""Coverage-guided fuzzing of every parser of bytes from outside.

    python tools/fuzz.py --seconds 20                # each parser in turn
    python tools/fuzz.py --seconds 600 catalog       # one of them

A value or a named error, soon, or it is a find. The parsers, and a good sample of each, are those of
``tests/property/test_outside_bytes.py``. What makes one raise anything else, hang, or eat memory is written to
``build/fuzz``; mended, the input belongs into ``tests/fuzz/<parser>/``, where the fast tests try it for ever.
Needs the extra ``fuzz`` (atheris).
"""

# ruff: noqa: PLC0415 - atheris must be there before what it instruments

import argparse
import contextlib
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
TESTS = HERE / "tests"
BUILD = HERE / "build" / "fuzz"
FOUND = TESTS / "fuzz"
_LONGEST = 1 << 16
_SLOWEST = 10
"""Seconds for one input."""
_MOST = 1024
"""MiB of memory."""


def fuzz_one(kind: str, seconds: int) -> None:
    """Fuzz a parser in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["headstart"]):
        sys.path[:0] = [str(TESTS), str(TESTS / "property")]
        outside = import_module("test_outside_bytes")
        from headstart.errors import Error

    parse = outside.PARSERS[kind]
    corpus = Path(tempfile.mkdtemp(prefix=f"headstart-fuzz-{kind.replace(' ', '-')}-"))
    (corpus / "sample").write_bytes(outside.samples()[kind])
    folder = kind.replace(" ", "-")
    for place in sorted((FOUND / folder).glob("*")):
        (corpus / place.name).write_bytes(place.read_bytes())

    def one(data: bytes) -> None:
        with contextlib.suppress(Error):
            parse(data)

    BUILD.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        f"-timeout={_SLOWEST}",
        f"-rss_limit_mb={_MOST}",
        f"-artifact_prefix={BUILD}/{folder}-",
        "-print_final_stats=0",
        "-verbosity=0",
        "-close_fd_mask=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def kinds() -> list[str]:
    """The names of all parsers."""
    sys.path[:0] = [str(TESTS), str(TESTS / "property")]
    return sorted(import_module("test_outside_bytes").PARSERS)


def main() -> int:
    """Fuzz some parsers, each in a process of its own."""
    parser = argparse.ArgumentParser(description="Fuzz the parsers of bytes from outside.")
    parser.add_argument("kinds", nargs="*", metavar="PARSER", help="which (default: all)")
    parser.add_argument("--seconds", type=int, default=20, help="for each (default: %(default)s)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        fuzz_one(arguments.kinds[0], arguments.seconds)
        return 0
    failed = []
    for kind in arguments.kinds or kinds():
        sys.stderr.write(f"fuzzing {kind} for {arguments.seconds} s\n")
        command = (sys.executable, str(Path(__file__)), "--here", "--seconds", str(arguments.seconds), kind)
        done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
        if done.returncode:
            failed.append(kind)
            sys.stderr.write(done.stdout[-4000:] + done.stderr[-4000:])
    if failed:
        sys.stderr.write(f"something was found in: {', '.join(failed)}; the inputs are in {BUILD}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
