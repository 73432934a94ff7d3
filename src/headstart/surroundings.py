"""A look at the node itself, for ``headstart doctor``. Standard library only.

Every function returns what it found, failures included. Those that touch what others serve (mounts, caches on
network file systems) may take for ever: ``bounded.ask`` is for them.
"""

import errno
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Final

from headstart.errors import CacheError, NamespaceError
from headstart.locking import file_system, mount_table
from headstart.microarchitecture import flags_of
from headstart.mountinfo import kind_of
from headstart.namespace import Bind, enter
from headstart.nodefacts import Fuse, Mount, Namespaces, Place, Processors, Surroundings, Trouble
from headstart.ownership import check_owner, check_way

_TRIAL: Final = 16 << 20
"""Bytes that a file on trial is given."""
_SWITCHES: Final = (
    "user/max_user_namespaces",
    "user/max_mnt_namespaces",
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
)
_ATTRIBUTES: Final = ("revision", "host", "proxy", "nioerr")
"""Extended attributes that the CernVM-FS client gives its mount (``cvmfs/magic_xattr.cc`` of 2.12)."""


def look_at_processors(path: str) -> Processors:
    """Every processor's features, and the first one's name."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 24)
    except OSError:
        text = ""
    blocks = text.split("\n\n")
    flags = tuple(dict.fromkeys(found for found in map(flags_of, blocks) if found))
    words = (line.partition(":") for line in blocks[0].splitlines())
    names = {key.strip().lower(): value.strip() for key, _, value in words}
    model = names.get("model name") or " ".join(
        f"{key} {names[name]}"
        for key, name in (("implementer", "cpu implementer"), ("part", "cpu part"))
        if name in names
    )
    return Processors(machine=os.uname().machine, source=path, flags=flags, model=model)


def try_namespaces(env: Mapping[str, str]) -> Namespaces:
    """Enter a namespace, for good: only for a process that has nothing else to do."""
    switches = {}
    for name in _SWITCHES:
        try:
            with open(f"/proc/sys/{name}", encoding="ascii") as file:
                switches[name.replace("/", ".")] = file.read(40).strip()
        except OSError:
            continue
    # Before this process enters one itself, and would bequeath it.
    bwrap = shutil.which("bwrap", path=env.get("PATH")) or ""
    works = bool(bwrap) and _works(bwrap)
    try:
        here = os.path.dirname(os.path.abspath(__file__))
        enter((Bind(here, "/cvmfs/doctor.headstart.example", writable=False),))
        why_not = ""
    except NamespaceError as error:
        why_not = error.message
    except OSError as error:
        why_not = error.strerror or str(error)
    return Namespaces(why_not=why_not, bwrap=bwrap, bwrap_works=works, switches=switches)


def _works(bwrap: str) -> bool:
    try:
        done = subprocess.run(
            (bwrap, "--dev-bind", "/", "/", "true"),
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def look_at_fuse(env: Mapping[str, str]) -> Fuse:
    """What a CernVM-FS client would need."""
    path = f"{env.get('PATH', os.defpath)}:/usr/bin:/usr/sbin"
    helpers = (shutil.which(name, path=path) for name in ("fusermount3", "fusermount"))
    return Fuse(
        device=os.access("/dev/fuse", os.R_OK | os.W_OK),
        helper=next((found for found in helpers if found), ""),
        client=shutil.which("cvmfs2", path=path) or "",
    )


def look_at_mount(path: str) -> Mount:
    """A repository below ``/cvmfs``, whether it is mounted or not; lets an automounter mount it."""
    try:
        entries, error = len(os.listdir(path)), ""
    except OSError as failed:
        entries, error = 0, failed.strerror or str(failed)
    attributes = {}
    for name in _ATTRIBUTES:
        try:
            attributes[name] = os.getxattr(path, f"user.{name}").decode(errors="replace").strip()
        except OSError:
            continue
    mounts = mount_table()
    kind = "" if kind_of(mounts, os.path.dirname(path)) == (own := kind_of(mounts, path)) else own
    return Mount(path=path, kind=kind, entries=entries, error=error, attributes=attributes)


def look_at_place(path: str, origin: str, *, uid: int) -> Place | None:
    """A cache's directory, or the nearest one above it that is there; nothing where there is none to be had."""
    if not path:
        return None
    exists = os.path.isdir(path)
    near = path
    while not os.path.isdir(near) and near != os.path.dirname(near):
        near = os.path.dirname(near)
    refused = None
    try:
        check_way(os.path.dirname(path), uid=uid)
        if exists:
            check_owner(path, uid=uid)
        elif os.path.lexists(path):
            refused = Trouble(
                code=CacheError.exit_code,
                text=f"{path} is there and is no directory",
                hint="name a directory with --cache or HEADSTART_CACHE",
            )
    except CacheError as error:
        refused = Trouble.of(error)
    except OSError as error:
        refused = Trouble(
            code=CacheError.exit_code,
            text=f"{path} cannot be looked at ({error.strerror})",
            hint="name a directory of your own with --cache or HEADSTART_CACHE",
        )
    disk = os.statvfs(near)
    return Place(
        path=path,
        origin=origin,
        exists=exists,
        trouble=refused,
        unwritable=_try_to_write(near),
        borrowed=exists and uid != 0 and os.stat(path).st_uid == 0,
        kind=file_system(near),
        free=disk.f_bavail * disk.f_frsize,
        size=disk.f_blocks * disk.f_frsize,
        free_files=disk.f_favail if disk.f_files else -1,
        noexec=bool(disk.f_flag & os.ST_NOEXEC),
        read_only=bool(disk.f_flag & os.ST_RDONLY),
    )


def _try_to_write(folder: str) -> str:
    """Why a file cannot be made in a directory; leaves nothing there, however it ends.

    A user's quota says no only when something is written.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        return os.strerror(errno.EROFS if read_only else errno.EACCES)
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # Network file systems have no files without a name.
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            return ""
        return error.strerror or str(error)
    try:
        os.posix_fallocate(descriptor, 0, _TRIAL)
    except OSError as error:
        return "" if error.errno in (errno.EOPNOTSUPP, errno.EINVAL) else (error.strerror or str(error))
    finally:
        os.close(descriptor)
    return ""


def look_around(env: Mapping[str, str]) -> Surroundings:
    """What Julia and Headstart would find around them."""
    try:
        entry = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        entry = ""
    home = env.get("HOME") or entry
    first = env.get("JULIA_DEPOT_PATH", "").partition(":")[0] or (f"{home}/.julia" if home else "")
    startup = os.path.join(
        first.replace("~", home, 1) if first.startswith("~/") else first, "config/startup.jl"
    )
    # Where a Julia would put them: it takes the variable at its word.
    folder = env.get("TMPDIR") or "/tmp"  # noqa: S108
    try:
        with tempfile.TemporaryFile(dir=folder):
            temporary = ""
    except OSError as error:
        temporary = f"{folder}: {error.strerror}"
    return Surroundings(
        variables=dict(env),
        home=home,
        entry=bool(entry),
        startup=(startup,) if first and os.path.isfile(startup) else (),
        julia=shutil.which("julia", path=env.get("PATH")) or "",
        temporary=temporary,
        fast=importlib.util.find_spec("isal") is not None,
    )
