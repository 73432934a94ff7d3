"""A private mount namespace, entered for real: as root, as an ordinary user, in each kind of surroundings."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.errors import NamespaceError
from headstart.namespace import Bind, bwrap_argv, enter, wrap

NOBODY = 65534
PROBE = "import os,sys; sys.exit(os.system('unshare -Urm true >/dev/null 2>&1') != 0)"


def namespaces_allowed() -> bool:
    return subprocess.run((sys.executable, "-c", PROBE), check=False).returncode == 0


pytestmark = pytest.mark.skipif(not namespaces_allowed(), reason="this machine allows no user namespaces")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    place = tmp_path / "tree"
    place.mkdir()
    (place / "file").write_text("bound\n")
    # pytest's own directories are private; the ordinary user below must get through.
    for directory in (place, *place.parents):
        # What everybody writes to (/tmp, /dev/shm) is not the test's to change.
        if directory.stat().st_mode & stat.S_ISVTX or not os.access(directory, os.W_OK):
            break
        directory.chmod(0o755)
    place.chmod(0o777)
    return place


def run(argv: tuple[str, ...], *, nobody: bool = False, cwd: str = "/tmp") -> subprocess.CompletedProcess[str]:
    extra = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if nobody else {}
    return subprocess.run(argv, check=False, capture_output=True, text=True, cwd=cwd, **extra)  # type: ignore[call-overload,no-any-return]  # the three keywords come together or not at all


def plain_python() -> str:
    """An interpreter that another user may run, and a place of the package that it may read."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        test = (candidate, "-c", "import sys; assert sys.version_info >= (3, 11)")
        try:
            if run(test, nobody=True).returncode == 0:
                return candidate
        except OSError:
            continue
    pytest.skip("no Python here that user nobody may run")


def as_nobody(argv: tuple[str, ...], package: Path) -> tuple[str, ...]:
    """The same wrapped command with an interpreter and a copy of the package that nobody can reach."""
    if not package.exists():
        shutil.copytree(Path(enter.__code__.co_filename).parent, package / "headstart")
    here = str(Path(enter.__code__.co_filename).parent.parent)
    return (plain_python(), *(word.replace(repr(here), repr(str(package))) for word in argv[1:]))


def bind(tree: Path, *, writable: bool = False) -> tuple[Bind, ...]:
    return (Bind(str(tree), "/cvmfs/test.example.org", writable),)


READ = ("sh", "-c", "cat /cvmfs/test.example.org/file; id -u; pwd")
WRITE = ("sh", "-c", "echo new > /cvmfs/test.example.org/written")


def test_directory_stands_at_the_mountpoint_and_the_host_stays_as_it_was(tree: Path) -> None:
    before = Path("/cvmfs").exists()
    done = run(wrap(bind(tree), READ))
    assert done.stdout.splitlines() == ["bound", str(os.getuid()), "/tmp"], done.stderr
    assert Path("/cvmfs").exists() == before
    assert not Path("/cvmfs/test.example.org").exists()


def test_read_only_bind_cannot_be_written(tree: Path) -> None:
    done = run(wrap(bind(tree), WRITE))
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr
    assert not (tree / "written").exists()


def test_writable_bind_writes_through(tree: Path) -> None:
    assert run(wrap(bind(tree, writable=True), WRITE)).returncode == 0
    assert (tree / "written").read_text() == "new\n"


def test_root_of_the_new_view_is_read_only_and_complete(tree: Path) -> None:
    done = run(wrap(bind(tree), ("sh", "-c", "ls -A / | sort; touch /made-by-test")))
    assert set(os.listdir("/")) <= set(done.stdout.split()) | {"cvmfs"}
    assert "Read-only file system" in done.stderr
    assert not Path("/made-by-test").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_ordinary_user_keeps_its_uid(tree: Path) -> None:
    done = run(as_nobody(wrap(bind(tree), READ), tree / "package"), nobody=True)
    assert done.stdout.splitlines() == ["bound", str(NOBODY), "/tmp"], done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_an_ordinary_user_is_served_where_the_first_directory_is_private(tree: Path) -> None:
    inner = as_nobody(wrap(bind(tree), READ), tree / "package")
    # In a root of its own, in which there is no /cvmfs yet, and a directory of root's comes first.
    prepare = (
        "umount /cvmfs/* && mount -o remount,rw,bind / && rmdir /cvmfs/* /cvmfs && mkdir -m 700 /.0 &&"
        ' exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"'
    )
    done = run(wrap(bind(tree), ("sh", "-c", prepare, "sh", *inner)))
    assert done.stdout.splitlines() == ["bound", str(NOBODY), "/tmp"], done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_another_user_gets_in_whatever_the_umask_of_root(tree: Path) -> None:
    argv = wrap(bind(tree), ("cat", "/cvmfs/test.example.org/file"), uid=NOBODY)
    done = run(("sh", "-c", 'umask 077; exec "$@"', "sh", *argv))
    assert done.stdout == "bound\n", done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_ordinary_user_writes_as_itself(tree: Path) -> None:
    done = run(as_nobody(wrap(bind(tree, writable=True), WRITE), tree / "package"), nobody=True)
    assert done.returncode == 0, done.stderr
    assert (tree / "written").stat().st_uid == NOBODY


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give itself another uid")
def test_uid_is_given_up_after_the_mounts(tree: Path) -> None:
    done = run(wrap(bind(tree), READ, uid=NOBODY))
    assert done.stdout.splitlines() == ["bound", str(NOBODY), "/tmp"], done.stderr


def test_other_repositories_below_an_existing_parent_stay_visible(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("other\n")
    inner = wrap(bind(tree), ("sh", "-c", "cat /cvmfs/*/file"))
    done = run(wrap((Bind(str(other), "/cvmfs/other.example.org", False),), inner))
    assert sorted(done.stdout.split()) == ["bound", "other"], done.stderr


def test_existing_mountpoint_is_covered(tree: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "file").write_text("old\n")
    done = run(wrap(bind(old), wrap(bind(tree), READ)))
    assert done.stdout.startswith("bound\n"), done.stderr


def test_bubblewrap_gives_the_same_view(tree: Path) -> None:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        pytest.skip("bubblewrap is not installed")
    done = run(bwrap_argv(bwrap, bind(tree), READ), cwd=os.getcwd())
    assert done.stdout.splitlines()[:2] == ["bound", str(os.getuid())], done.stderr
    assert run(bwrap_argv(bwrap, bind(tree), WRITE)).returncode != 0


def test_forbidden_namespaces_are_one_sentence_and_an_exit_code(tree: Path) -> None:
    # Inside a user namespace whose limit is zero no further one may be made.
    script = (
        'echo 0 > /proc/sys/user/max_user_namespaces && echo 0 > /proc/sys/user/max_mnt_namespaces && exec "$@"'
    )
    done = run(("unshare", "-Ur", "sh", "-c", script, "sh", *wrap(bind(tree), READ)))
    if "Permission denied" in done.stderr and "headstart" not in done.stderr:
        pytest.skip("this kernel does not let a namespace limit itself")
    assert done.returncode == NamespaceError.exit_code
    assert done.stderr.count("\n") == 1
    assert "no mount namespace is allowed here" in done.stderr


def test_missing_source_and_missing_program_are_named(tree: Path) -> None:
    done = run(wrap((Bind(str(tree / "absent"), "/cvmfs/test.example.org", False),), READ))
    assert done.returncode == NamespaceError.exit_code
    assert "absent" in done.stderr
    done = run(wrap(bind(tree), ("/no/such/program",)))
    assert done.returncode == NamespaceError.exit_code
    assert "/no/such/program" in done.stderr


@pytest.mark.parametrize("target", ["/usr", "/cvmfs", "/cvmfs/", "/cvmfs/a/b", "/cvmfs/.."])
def test_targets_elsewhere_are_refused(tree: Path, target: str) -> None:
    with pytest.raises(NamespaceError, match="directly below"):
        enter((Bind(str(tree), target, False),))
