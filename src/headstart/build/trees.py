"""Copies of a Julia and of a lock's packages, and the records of what is in a tree."""

import concurrent.futures
import os
import shutil
import stat

from headstart.build.sources import FIXED_TIME, hash_file
from headstart.errors import CorruptError, MissingToolError
from headstart.gittree import MODE_FILE, MODE_LINK, MODE_PROGRAM, TreeFile, blob_id, tree_hash
from headstart.machine import JuliaInstall
from headstart.names import Sha256
from headstart.release import JULIA_FILE, FileRecord, JuliaTree, LinkRecord, Record

CATALOG_MARK = ".cvmfscatalog"
"""An empty file that asks for a nested catalog at its directory."""
_EMPTY = FileRecord(sha256=Sha256.of(b""), size=0, mode=0o444)


def records(root: str) -> dict[str, Record]:
    """Every file and link below a directory, with the mode that a release gives it."""
    paths = [
        os.path.relpath(os.path.join(folder, name), root)
        for folder, names, files in os.walk(root)
        for name in [*files, *(name for name in names if os.path.islink(os.path.join(folder, name)))]
    ]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = dict(zip(sorted(paths), pool.map(lambda path: _record(root, path), sorted(paths)), strict=True))
    return {path: record for path, record in found.items() if record is not None}


def _record(root: str, path: str) -> Record | None:
    place = os.path.join(root, path)
    status = os.lstat(place)
    if stat.S_ISLNK(status.st_mode):
        return LinkRecord(target=os.readlink(place))
    if not stat.S_ISREG(status.st_mode):
        return None
    mode = 0o555 if status.st_mode & stat.S_IXUSR else 0o444
    return FileRecord(sha256=hash_file(place), size=status.st_size, mode=mode)


def julia_tree(install: JuliaInstall) -> JuliaTree:
    """Record a Julia as the repository will hold it.

    Raises:
        MissingToolError: it is the system's, or links lead out of it, so it cannot be shipped.
    """
    prefix = install.prefix
    if not install.private:
        raise MissingToolError(
            f"the Julia at {install.program} is part of the system and cannot be shipped on its own",
            hint="use an official build of Julia, or one unpacked into a directory of its own",
        )
    # A link that leads nowhere is not shipped: distributions leave some, into packages that are not there.
    found = {
        path: record
        for path, record in records(prefix).items()
        if not isinstance(record, LinkRecord) or os.path.exists(os.path.join(prefix, path))
    }
    for path, record in found.items():
        if isinstance(record, LinkRecord):
            end = os.path.normpath(os.path.join(prefix, os.path.dirname(path), record.target))
            if os.path.isabs(record.target) or not end.startswith(prefix + "/"):
                raise MissingToolError(
                    f"{prefix}/{path} links to {record.target}, outside of this Julia",
                    hint="use a Julia that is complete in its own directory",
                )
    found[CATALOG_MARK] = _EMPTY

    def inside(path: str) -> str:
        return os.path.relpath(path, prefix)

    return JuliaTree(
        version=str(install.probe.version),
        executable=inside(install.program),
        share=inside(install.share),
        system_image=inside(install.probe.system_image),
        library_path=tuple(map(inside, install.library_path)),
        files=found,
    )


def copy_julia(prefix: str, tree: JuliaTree, place: str) -> None:
    """Copy a Julia, modes normalised; times stay, cut to seconds, because bundled caches may note them."""
    for path, record in tree.files.items():
        if path == CATALOG_MARK:
            continue
        origin, copy = os.path.join(prefix, path), os.path.join(place, path)
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        if isinstance(record, LinkRecord):
            os.symlink(record.target, copy)
        else:
            shutil.copyfile(origin, copy)
            os.chmod(copy, record.mode)
            seconds = int(os.stat(origin).st_mtime)
            os.utime(copy, (seconds, seconds))
    mark(place)
    with open(os.path.join(place, JULIA_FILE), "xb") as file:
        file.write(tree.to_bytes())
    os.chmod(os.path.join(place, JULIA_FILE), 0o444)


def check_julia(tree: JuliaTree, place: str) -> None:
    """Look whether a Julia that was staged earlier is still what it was: everything is built with it.

    Raises:
        CorruptError: it was changed, or a power cut took some of it.
    """
    found = records(place)
    record = found.pop(JULIA_FILE, None)
    if found != tree.files or not isinstance(record, FileRecord) or record.sha256 != Sha256.of(tree.to_bytes()):
        differing = sorted(
            path for path in found.keys() | tree.files.keys() if found.get(path) != tree.files.get(path)
        )
        raise CorruptError(
            f"{place} is not as it was staged: {(differing or [JULIA_FILE])[0]} differs",
            hint=f"remove {place} and build again",
        )


def mark(place: str) -> None:
    """Ask for a nested catalog at a directory."""
    with open(os.path.join(place, CATALOG_MARK), "xb"):
        pass
    os.chmod(os.path.join(place, CATALOG_MARK), 0o444)
    os.utime(os.path.join(place, CATALOG_MARK), (FIXED_TIME, FIXED_TIME))


def link_tree(origin: str, place: str) -> None:
    """Make a tree appear at a second place on the same file system, by hard links."""
    shutil.copytree(origin, place, symlinks=True, copy_function=os.link)


def git_tree(root: str) -> str:
    """The git tree hash of a directory; ``.git`` is left out, as Pkg leaves it out."""
    files = []
    for folder, names, members in os.walk(root):
        names[:] = [name for name in names if name != ".git"]
        for name in [*members, *(name for name in names if os.path.islink(os.path.join(folder, name)))]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                mode, blob = MODE_LINK, blob_id(os.fsencode(os.readlink(path)))
            else:
                mode = MODE_PROGRAM if status.st_mode & stat.S_IXUSR else MODE_FILE
                with open(path, "rb") as file:
                    blob = blob_id(file.read())
            files.append(TreeFile(path=os.fsencode(os.path.relpath(path, root)), mode=mode, blob=blob))
    return tree_hash(files)


def copy_sources(origin: str, place: str) -> None:
    """Copy a package or an artifact: read-only, one fixed time, links kept, ``.git`` left out."""

    def copy(path: str, other: str) -> None:
        shutil.copyfile(path, other)
        os.chmod(other, 0o555 if os.stat(path).st_mode & stat.S_IXUSR else 0o444)
        os.utime(other, (FIXED_TIME, FIXED_TIME))

    shutil.copytree(
        origin, place, symlinks=True, copy_function=copy, ignore=lambda _, names: {".git"} & set(names)
    )
    open_folders(place)


def link_outward(root: str) -> str:
    """The first link below a directory that leads out of it, as path and target; empty when there is none."""
    root = os.path.normpath(root)
    for folder, names, files in os.walk(root):
        for place in sorted(os.path.join(folder, name) for name in [*names, *files]):
            if os.path.islink(place):
                target = os.readlink(place)
                end = os.path.normpath(os.path.join(folder, target))
                if os.path.isabs(target) or not (end == root or end.startswith(root + "/")):
                    return f"{os.path.relpath(place, root)} -> {target}"
    return ""


def open_folders(root: str) -> None:
    """Let everybody into the directories of a tree, whatever this process's umask is."""
    for folder, _, _ in os.walk(root):
        os.chmod(folder, 0o755)  # noqa: S103  # published for everybody to read
