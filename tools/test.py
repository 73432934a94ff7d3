"""Run the tests in two lanes side by side: those with real Julias, which build images, and the others.

    python tools/test.py [what pytest takes …]

Each lane is one pytest with coverage, so what slow tests share is made once. The slow lane's output comes as it
is written, the other's in one piece when it ends. The exit code is that of the first lane that failed. With
``-m`` among the words there is one lane.
"""

import shutil
import subprocess
import sys
import tempfile
import threading
from typing import Final

NOTHING_SELECTED: Final = 5
"""pytest's exit code where no test is left: right for one lane, not for both."""


def lane(words: list[str], *marks: str) -> list[str]:
    """The command of a lane."""
    return [sys.executable, "-m", "coverage", "run", "-m", "pytest", *marks, *words]


def main(words: list[str]) -> int:
    """Start both, show both, and say whether both are well."""
    if any(word.startswith("-m") for word in words):
        return subprocess.run(lane(words), check=False).returncode
    with tempfile.TemporaryFile() as kept:
        quick = subprocess.Popen(lane(words, "-m", "not slow"), stdout=kept, stderr=subprocess.STDOUT)

        def show() -> None:
            quick.wait()
            kept.seek(0)
            shutil.copyfileobj(kept, sys.stdout.buffer)
            sys.stdout.flush()

        shown = threading.Thread(target=show)
        shown.start()
        slow = subprocess.Popen(lane(words, "-m", "slow"), stdout=sys.stdout)
        codes = []
        try:
            codes.append(slow.wait())
        finally:
            shown.join()
        codes.append(quick.returncode)
    failed = [code for code in codes if code not in (0, NOTHING_SELECTED)]
    if failed:
        return failed[0]
    return min(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
