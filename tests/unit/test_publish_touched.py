"""Publishing only what was touched: the same comes out as if all of the tree had been looked at."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from crashing import quick_disk
from headstart.cli import main
from headstart.cvmfs.balance import Weights
from headstart.cvmfs.entry import File
from headstart.errors import ConfigurationError, StorageError
from headstart.repository import TreePublished
from headstart.tree import Manners
from publishing import AT, FQRN, Place, content_of, copy_keys, new_repository, publish_held

__all__ = ["quick_disk"]


@pytest.fixture
def place(quick_disk: Path) -> Place:
    return new_repository(quick_disk / "storage")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two marked directories, one in the other, and two plain ones."""
    top = tmp_path / "tree"
    for name in ("marked/inner/deep", "plain/sub", "other"):
        (top / name).mkdir(parents=True)
    for name in ("file", "marked/file", "marked/inner/deep/file", "plain/sub/file", "other/file"):
        (top / name).write_text(f"content of {name}")
    for name in ("marked", "marked/inner"):
        (top / name / ".cvmfscatalog").touch()
    return top


def run(place: Place, tree: Path, *only: str, **changes: object) -> TreePublished:
    return publish_held(place, tree, only=frozenset(map(os.fsencode, only)), **changes)


def in_step(place: Place, tree: Path, **changes: object) -> None:
    """All of the tree is published, and the memory of it is right: a full run reads and changes nothing."""
    before = content_of(place.open())
    done = run(place, tree, **changes)
    assert (done.changed, done.read) == (False, 0)
    assert run(place, tree, **changes, checksum=True).changed is False
    assert content_of(place.open()) == before


def paths(place: Place) -> set[str]:
    return {os.fsdecode(path.removeprefix(AT + b"/")) for path in content_of(place.open())}


def group_of(place: Place, path: bytes) -> int:
    entry = place.open().forest.lookup(AT + path)
    assert entry is not None
    return entry.stat.link_group


def test_a_changed_file_is_all_that_is_looked_at(place: Place, tree: Path) -> None:
    run(place, tree)
    (tree / "plain/sub/file").write_text("new")
    (tree / "marked/file").write_text("new, and not named")
    before = content_of(place.open())
    done = run(place, tree, "plain/sub/file")
    assert (done.changed, done.read, done.catalogs) == (True, 1, (b"",))
    after = content_of(place.open())
    assert {path for path in after if after[path] != before.get(path)} == {AT + b"/plain/sub/file"}
    assert run(place, tree, "plain/sub/file").changed is False
    done = run(place, tree)
    assert (done.read, done.catalogs) == (1, (b"", AT + b"/marked"))
    in_step(place, tree)


@pytest.mark.parametrize("top", [False, True])
def test_changes_inside_nested_catalogs(place: Place, tree: Path, *, top: bool) -> None:
    if top:
        (tree / ".cvmfscatalog").touch()
    run(place, tree)
    (tree / "marked/inner/deep/file").write_text("new")
    (tree / "marked/inner/deep/more").write_text("more")
    done = run(place, tree, "marked/inner/deep/file", "marked/inner/deep/more")
    assert done.read == 2
    assert set(done.catalogs) >= {b"", AT + b"/marked", AT + b"/marked/inner"}
    in_step(place, tree)


def test_what_is_gone_is_removed(place: Place, tree: Path) -> None:
    run(place, tree)
    shutil.rmtree(tree / "marked/inner")
    (tree / "other/file").unlink()
    (tree / "file").unlink()
    run(place, tree, "marked/inner", "other/file")
    assert "file" in paths(place)
    assert not {path for path in paths(place) if path.startswith("marked/inner") or path == "other/file"}
    run(place, tree, "file")
    in_step(place, tree)


@pytest.mark.parametrize(
    "name", ["fiel", "never/was/there", "file/inside", "plain/fiel", "link/file", ".cvmfscatalog"]
)
def test_what_is_neither_there_nor_published_is_refused(place: Place, tree: Path, name: str) -> None:
    (tree / "link").symlink_to("plain/sub")
    run(place, tree)
    (tree / "file").write_text("new")
    with pytest.raises(ConfigurationError, match=f"{name} is neither in {tree} nor published at /any"):
        run(place, tree, "file", name)
    assert place.open().manifest.revision == 2
    assert run(place, tree, "file").read == 1


def test_a_directory_that_became_a_link_is_no_way_to_what_is_behind_it(place: Place, tree: Path) -> None:
    run(place, tree)
    shutil.rmtree(tree / "plain/sub")
    (tree / "plain/sub").symlink_to("../other")
    run(place, tree, "plain/sub/file")
    assert {"plain/sub", "plain/sub/file"} & paths(place) == {"plain/sub"}
    in_step(place, tree)


def test_directories_become_files_and_files_directories(place: Place, tree: Path) -> None:
    run(place, tree)
    for name in ("marked/inner", "plain/sub"):
        shutil.rmtree(tree / name)
        (tree / name).write_text("a file now")
    (tree / "file").unlink()
    (tree / "file").mkdir()
    (tree / "file/inside").write_text("inside")
    run(place, tree, "marked/inner", "plain/sub/file", "file/inside")
    assert paths(place) >= {"marked/inner", "plain/sub", "file/inside"}
    in_step(place, tree)


def test_a_new_directory_comes_whole(place: Place, tree: Path) -> None:
    run(place, tree)
    (tree / "new/one").mkdir(parents=True)
    for name in ("new/one/named", "new/not-named"):
        (tree / name).write_text(name)
    run(place, tree, "new/one/named")
    assert paths(place) >= {"new/one/named", "new/not-named"}
    in_step(place, tree)


def test_markers_come_and_go(place: Place, tree: Path) -> None:
    run(place, tree)
    (tree / "marked/.cvmfscatalog").unlink()
    (tree / "plain/.cvmfscatalog").touch()
    run(place, tree, "marked/.cvmfscatalog", "plain/.cvmfscatalog")
    mounted = {catalog.mountpoint for catalog in place.open().forest.catalogs()}
    assert mounted == {b"", AT + b"/plain", AT + b"/marked/inner"}
    in_step(place, tree)


def test_rules_and_weights_hold(place: Place, tree: Path) -> None:
    for number in range(30):
        (tree / f"plain/sub/{number:02d}").write_text(str(number))
    shape = {"dirtab": AT + b"/other\n", "weights": Weights(maximum=20, minimum=2)}
    run(place, tree, **shape)
    mounted = {catalog.mountpoint for catalog in place.open().forest.catalogs()}
    assert {AT + b"/other", AT + b"/plain"} <= mounted or {AT + b"/other", AT + b"/plain/sub"} <= mounted
    for name in ("plain/sub/07", "other/file"):
        (tree / name).write_text("new")
    assert run(place, tree, "plain/sub/07", "other/file", **shape).read == 2
    in_step(place, tree, **shape)
    for number in range(30):
        (tree / f"other/{number:02d}").write_text(str(number))
    run(place, tree, "other", **shape)
    in_step(place, tree, **shape)


def test_hard_links_of_a_directory_are_taken_along(place: Place, tree: Path) -> None:
    os.link(tree / "plain/sub/file", tree / "plain/sub/twin")
    os.link(tree / "other/file", tree / "plain/sub/from-other")
    os.link(tree / "plain/sub/from-other", tree / "plain/sub/pair")
    run(place, tree)
    with (tree / "plain/sub/file").open("w") as file:  # the same file, so both names
        file.write("new")
    os.link(tree / "other/file", tree / "plain/sub/third")
    assert run(place, tree, "plain/sub/twin", "plain/sub/third").read >= 1
    groups = {
        name: group_of(place, b"/plain/sub/" + name) for name in (b"file", b"twin", b"from-other", b"third")
    }
    assert groups[b"file"] == groups[b"twin"] != groups[b"third"] == groups[b"from-other"]
    assert all(groups.values())
    # Elsewhere each name is a file of its own, and stays as it was published.
    (tree / "other/file").write_text("new too")
    run(place, tree, "other/file")
    mine, other = (place.open().forest.lookup(AT + name) for name in (b"/plain/sub/third", b"/other/file"))
    assert isinstance(mine, File)
    assert isinstance(other, File)
    assert mine.digest != other.digest
    run(place, tree, "plain/sub/third")
    run(place, tree)
    in_step(place, tree)


def test_a_link_that_is_left_alone_is_a_file(place: Place, tree: Path) -> None:
    os.link(tree / "plain/sub/file", tree / "plain/sub/twin")
    run(place, tree)
    (tree / "plain/sub/twin").unlink()
    run(place, tree, "plain/sub/twin")
    assert group_of(place, b"/plain/sub/file") == 0
    run(place, tree)  # its look is another, too
    in_step(place, tree)


def test_a_tree_that_was_not_published_here_is_refused(place: Place, tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not known to be what was published at /any"):
        run(place, tree, "file")
    run(place, tree)
    shutil.copytree(tree, tmp_path / "copy", symlinks=True)
    with pytest.raises(ConfigurationError, match="is not known"):
        run(place, tmp_path / "copy", "file")
    assert run(place, tree, "file").changed is False


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("--owner", {"manners": Manners(owner=(5, 6))}),
        ("--no-xattrs", {"manners": Manners(xattrs=False)}),
        ("--nanoseconds", {"manners": Manners(nanoseconds=True)}),
        ("--autocatalogs, or a weight,", {"weights": Weights(maximum=20, minimum=2)}),
        ("--dirtab, or .cvmfsdirtab,", {"dirtab": b"/plain\n"}),
        ("--uncompressed", {"rules": "['*.gz']"}),
    ],
)
def test_other_options_than_the_last_time_are_refused(
    place: Place, tree: Path, name: str, changes: dict[str, object]
) -> None:
    plain: dict[str, object] = {"manners": Manners()} if "manners" in changes else {}
    run(place, tree, **plain)
    (tree / "file").write_text("new")
    with pytest.raises(ConfigurationError) as caught:
        run(place, tree, "file", **changes)
    assert caught.value.message.startswith(f"{name} is not as it was when {tree} was published at /any, and")
    assert place.open().manifest.revision == 2
    assert run(place, tree, "file", **plain).read == 1  # nothing was forgotten
    run(place, tree, **changes)
    (tree / "file").write_text("newer")
    assert run(place, tree, "file", **changes).read == 1
    in_step(place, tree, **changes)


def test_a_catalog_of_somebody_else_is_refused(place: Place, tree: Path, tmp_path: Path) -> None:
    run(place, tree)
    shutil.copytree(tree, tmp_path / "copy", symlinks=True)
    (tmp_path / "copy/marked/file").write_text("theirs")
    run(place, tmp_path / "copy", state=str(tmp_path / "another"))
    (tree / "marked/inner/deep/file").write_text("ours")
    with pytest.raises(ConfigurationError, match="/any/marked is not what"):
        run(place, tree, "marked/inner/deep/file")
    (tree / "plain/sub/file").write_text("ours")
    run(place, tree, "plain/sub/file")
    assert run(place, tree).read >= 1  # and what is theirs is found
    in_step(place, tree)


def test_what_headstart_publishes_itself_is_left_alone(place: Place, tree: Path) -> None:
    root = {"at": b"", "kept": frozenset({b"stacks"})}
    run(place, tree, **root)
    (tree / "file").write_text("new")
    run(place, tree, "file", **root)
    in_step(place, tree, **root)
    with pytest.raises(ConfigurationError, match="/stacks is where Headstart publishes itself"):
        run(place, tree, "stacks/any", **root)
    (tree / ".cvmfsdirtab").write_text("/plain\n")
    run(place, tree, ".cvmfsdirtab", **root)
    assert b"/plain" in {catalog.mountpoint for catalog in place.open().forest.catalogs()}


@pytest.mark.parametrize("only", [False, True])
def test_a_name_in_a_complaint_is_one_line_and_as_it_is(place: Place, tree: Path, *, only: bool) -> None:
    run(place, tree)
    Path(os.fsdecode(bytes(tree / "plain") + b"/.cvmfsgraft-\n\xff")).touch()
    with pytest.raises(StorageError) as caught:
        run(place, tree, *(["plain/.cvmfsgraft-\n\udcff"] if only else []))
    assert caught.value.message == f"{tree}/plain/.cvmfsgraft-\\n\\xff has a name that cannot be published"


def test_reserved_names_are_refused(place: Place, tree: Path) -> None:
    run(place, tree)
    (tree / "plain/.cvmfsgraft-x").touch()
    with pytest.raises(StorageError, match="cannot be published"):
        run(place, tree, "plain/.cvmfsgraft-x")


def test_the_command_line(quick_disk: Path, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage, keys = quick_disk / "storage", copy_keys(quick_disk / "keys")
    assert main(["repo", "create", str(FQRN), "--storage", str(storage), "--keys", str(keys)]) == 0
    words = ["publish", "--tree", str(tree), "--at", "/any", "--storage", str(storage), "--keys", str(keys)]
    words += ["--state", str(quick_disk / "state")]
    assert main(words) == 0
    (tree / "file").write_text("new")
    assert main([*words, "--only", "file", "--only", str(tree / "other" / "..") + "/other"]) == 0
    assert "is at revision 3" in capsys.readouterr().err
    for only, why in (("../elsewhere", "is outside of"), ("/etc", "is outside of")):
        assert main([*words, "--only", only]) != 0
        assert why in capsys.readouterr().err
    assert main([*words, "--only", "file", "--checksum"]) != 0
    assert "exclude each other" in capsys.readouterr().err
    capsys.readouterr()
    assert main([*words, "--only", "fiel"]) == ConfigurationError.exit_code
    assert "--only fiel is neither in" in capsys.readouterr().err
    assert main([*words, "--only", "."]) == 0
    assert main(["publish", "--delete", "/any", *words[5:], "--only", "file"]) != 0


NAMES = ("a", "b", "c")
SPOTS = tuple(f"{one}/{two}/{three}" for one in NAMES for two in NAMES for three in NAMES)


@settings(
    max_examples=25,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(data=st.data())
def test_any_changes_come_out_as_in_a_full_run(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    work = tmp_path_factory.mktemp("touched")
    place, tree = new_repository(work / "storage"), work / "tree"
    for spot in data.draw(st.sets(st.sampled_from(SPOTS), min_size=1, max_size=8)):
        (tree / spot).parent.mkdir(parents=True, exist_ok=True)
        (tree / spot).write_text(spot)
    for marked in data.draw(st.sets(st.sampled_from(("a", "a/b", "b", "c/c")))):
        if (tree / marked).is_dir():
            (tree / marked / ".cvmfscatalog").touch()
    run(place, tree)
    for _ in range(data.draw(st.integers(1, 3))):
        touched = []
        for number in range(data.draw(st.integers(1, 4))):
            spot = data.draw(st.sampled_from(SPOTS + NAMES + ("a/b", "b/a", "c/c", "a/.cvmfscatalog")))
            kind = data.draw(st.sampled_from(("write", "remove", "directory", "link")))
            if change(tree, spot, kind, str(number)):
                touched.append(spot)
        before = paths(place)
        named = [name for spot in touched if (name := known(spot, tree, before))]
        if named:
            run(place, tree, *named)
    in_step(place, tree)
    shutil.rmtree(work)


def known(spot: str, tree: Path, before: set[str]) -> str:
    """What to name for a touched place: not what came and went in between, but what was made for it."""
    while spot and spot not in before and not os.path.lexists(tree / spot):
        spot = os.path.dirname(spot)
    return spot


def change(tree: Path, spot: str, kind: str, text: str) -> bool:
    """Do something at a place of the tree; False where that makes no sense."""
    at = tree / spot
    if any(above.is_file() or above.is_symlink() for above in at.parents):
        return False
    if kind == "write" and (at.is_dir() or at.is_symlink()):
        return False
    if spot.endswith(".cvmfscatalog") and (kind != "write" or not at.parent.is_dir()):
        return False
    if kind != "write" and os.path.lexists(at):
        if at.is_dir() and not at.is_symlink():
            shutil.rmtree(at)
        else:
            at.unlink()
        if kind == "remove":
            return True
    elif kind == "remove":
        return False
    at.parent.mkdir(parents=True, exist_ok=True)
    if kind == "directory":
        (at / "below").mkdir(parents=True)
        (at / "below" / "file").write_text(text)
    elif kind == "link":
        at.symlink_to(text)
    else:
        at.write_text(text)
    return True
