"""The order in which a start opens files: as the kernel tells it, and as a node fetches it."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import releases
from headstart.build.opened import Watch
from headstart.errors import CorruptError
from headstart.release import Release


def test_what_a_program_opens_is_seen_in_its_order(tmp_path: Path) -> None:
    for path in ("julia/lib/b", "julia/lib/a", "home/deep/er/c", "home/never", "home/d e"):
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(path)
    os.symlink("b", tmp_path / "julia/lib/link")
    roots = {"julia/1.10.6": str(tmp_path / "julia"), "stacks/jets/x": str(tmp_path / "home")}
    code = 'cat home/deep/er/c julia/lib/link julia/lib/a "home/d e" home/deep/er/c; ls home home/deep'
    with Watch(roots) as watch:
        assert watch.seen() == ()
        subprocess.run(["sh", "-c", code], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
        assert watch.seen() == (
            "stacks/jets/x/deep/er/c",
            "julia/1.10.6/lib/b",
            "julia/1.10.6/lib/a",
            "stacks/jets/x/d e",
        )
        assert watch.seen() == ()


def test_a_release_that_has_no_order_is_as_it_was() -> None:
    made = releases.release()
    assert b"opened" not in made.to_bytes()
    noted = replace(made, opened=("julia/x/bin/julia", "stacks/jets/x/project/Project.toml"))
    assert Release.from_bytes(noted.to_bytes()) == noted
    assert Release.from_bytes(made.to_bytes()) == made
    wrong = replace(made, opened=("../x",))
    with pytest.raises(CorruptError, match="is not a path inside"):
        Release.from_bytes(wrong.to_bytes())
