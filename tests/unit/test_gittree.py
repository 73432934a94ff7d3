import os
import shutil
import subprocess
from pathlib import Path

import pytest

from headstart.build.trees import copy_sources, git_tree
from headstart.gittree import MODE_FILE, TreeFile, blob_id, tree_hash, version_slug


def git(*words: str, cwd: Path) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    return subprocess.run(
        ["git", *words], cwd=cwd, env=env, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_an_empty_tree_and_an_empty_blob_have_gits_well_known_ids() -> None:
    assert blob_id(b"").hex() == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert tree_hash([]) == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@pytest.mark.skipif(shutil.which("git") is None, reason="compares with git, which is not here")
def test_the_hash_is_gits(tmp_path: Path) -> None:
    files = {
        "a": b"1",
        "a.b": b"2",
        "a-b/c": b"3",
        "a0": b"",
        "deep/er/x": b"\0\xff",
        "Ümlaut": b"u",
        "sub/run.sh": b"#!/bin/sh\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "sub/run.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("deep")
    (tmp_path / "empty").mkdir()
    git("init", "-q", cwd=tmp_path)
    git("add", "-A", cwd=tmp_path)
    wanted = git("write-tree", cwd=tmp_path)
    assert git_tree(str(tmp_path)) == wanted
    copy = tmp_path / "../copy"
    copy_sources(str(tmp_path), str(copy))
    assert git_tree(str(copy)) == wanted
    assert not (copy / ".git").exists()
    assert (copy / "a").stat().st_mode & 0o777 == 0o444
    assert (copy / "sub/run.sh").stat().st_mode & 0o777 == 0o555
    assert (copy / "a").stat().st_mtime == 1_000_000_000
    (tmp_path / "a").write_bytes(b"changed")
    assert git_tree(str(tmp_path)) != wanted


def test_order_does_not_matter() -> None:
    files = [
        TreeFile(path=name, mode=MODE_FILE, blob=blob_id(name)) for name in (b"b", b"a/x", b"a.b", b"a/b/c")
    ]
    assert tree_hash(files) == tree_hash(files[::-1])


def test_the_slug_is_julias() -> None:
    # Base.version_slug of Julia 1.5.3 for this package and tree.
    uuid, tree = "7876af07-990d-54b4-ab0e-23690620f79a", "0fa3b52a04a4e210aeb1626def9c90df3ae65268"
    assert version_slug(uuid, tree, 5) == "6bI8k"
    assert version_slug(uuid, tree, 4) == "6bI8"
