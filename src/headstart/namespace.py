"""A private view of the file system in which a directory of ours stands at ``/cvmfs/<repository>``.

Theory of operation. Julia bakes absolute paths into what it builds, so a release is built, and where possible
run, at the path it has in the mounted repository. Where that path is not really there, this process gives
itself a mount namespace of its own (and, unless it is root, a user namespace in which it may mount) and mounts
there. Nobody else sees it, and it goes away with the last process in it.

There are three situations:

* ``/cvmfs/<repository>`` exists: the directory is bound over it;
* ``/cvmfs`` exists without it (an autofs mountpoint, say): a small tmpfs with the same entries goes over it;
* there is no ``/cvmfs``, and only root could make one: a tmpfs becomes the new root, every entry of the old
  root is bound into it, and ``pivot_root`` makes it the root. Nothing is ever created on the host itself.

The user keeps its uid and gid inside, so files made there belong to the right owner. A process with several
threads cannot enter a user namespace (unshare(2)), so ``enter`` comes last before exec.

This module is on the path from a node's shell to Julia: standard library only, and few imports.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
import warnings  # noqa: F401  # os.execvpe imports it, when another uid may not read the library any more

from headstart.errors import Error, NamespaceError

# As in typing, which a node would have to import on the way to Julia; checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_MS_REMOUNT: Final = 32
_MS_NOATIME: Final = 1024
_MS_NODIRATIME: Final = 2048
_MS_BIND: Final = 4096
_MS_MOVE: Final = 8192
_MS_REC: Final = 16384
_MS_PRIVATE: Final = 1 << 18
_MS_RELATIME: Final = 1 << 21
_MNT_DETACH: Final = 2
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}
_ST_RELATIME: Final = 4096
_PARENT: Final = "/cvmfs"

_HINT: Final = (
    "allow unprivileged user namespaces here (sysctl user.max_user_namespaces, "
    "kernel.apparmor_restrict_unprivileged_userns), install bubblewrap, or mount the repository"
)


class EnteredError(NamespaceError):
    """A namespace was given, and then not the mounts: this process is of no use for another way any more."""


class Bind:
    """A directory and where it is to be seen.

    Neither a dataclass nor a named tuple: a node pays for the import of what makes them at every start.

    Args:
        source: an absolute path.
        target: ``/cvmfs/<name>``.
        writable: whether it may be written through.
    """

    __slots__ = ("source", "target", "writable")

    def __init__(self, source: str, target: str, writable: bool) -> None:  # noqa: FBT001  # three plain fields
        self.source = source
        self.target = target
        self.writable = writable

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bind) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return f"Bind{self._fields()!r}"

    def _fields(self) -> tuple[str, str, bool]:
        return self.source, self.target, self.writable


def enter(binds: tuple[Bind, ...]) -> None:
    """Move this process, for good, into a namespace in which each bind is to be seen.

    Raises:
        NamespaceError: the kernel or the site does not allow it.
        EnteredError: it does, and then a source cannot be bound.
    """
    for bind in binds:
        name = bind.target.removeprefix(_PARENT + "/")
        if not bind.target.startswith(_PARENT + "/") or "/" in name or name in ("", ".", ".."):
            raise NamespaceError(f"{bind.target} is not a place directly below {_PARENT}")
    libc = _Libc()
    here = _working_directory()
    _unshare(libc)
    try:
        _mount(libc, binds)
    except NamespaceError as error:
        raise EnteredError(error.message, hint=error.hint) from error
    # The working directory still is a directory below the old root: look it up again.
    if here:
        try:  # noqa: SIM105  # contextlib is slow to import
            os.chdir(here)
        except OSError:
            pass


def _mount(libc: _Libc, binds: tuple[Bind, ...]) -> None:
    libc.mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    if all(os.path.isdir(bind.target) for bind in binds):
        for bind in binds:
            _bind(libc, bind, bind.target)
    elif os.path.isdir(_PARENT):
        _cover_parent(libc, binds)
    else:
        _new_root(libc, binds)


def try_out(binds: tuple[Bind, ...]) -> str:
    """Whether ``enter`` would succeed, tried in a child; nothing when it would, else why not.

    A process that was given a user namespace and then not the mounts, as by AppArmor, is of no use for another
    way any more: bubblewrap would inherit what confines it.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            enter(binds)
            code = 0
        except BaseException:  # noqa: BLE001  # the child must end here, whatever happens
            code = 1
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return "" if status == 0 else "a mount namespace cannot be entered here"


def _working_directory() -> str:
    """Where we are; nothing when that was removed or may not be looked at."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def wrap(binds: tuple[Bind, ...], argv: tuple[str, ...], *, uid: int | None = None) -> tuple[str, ...]:
    """The command line that enters the namespace in a child process and then becomes ``argv``.

    Args:
        binds: what is to be seen where.
        argv: the program to become.
        uid: user (and group) to become after the mounts; only root can ask for it.
    """
    package_parent = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    code = (
        f"import sys; sys.path.insert(0, {package_parent!r}); "
        "from headstart.namespace import main; main(sys.argv[1:])"
    )
    options = [] if uid is None else ["--uid", str(uid)]
    for bind in binds:
        options += ["--bind-rw" if bind.writable else "--bind-ro", bind.source, bind.target]
    return (sys.executable, "-I", "-S", "-c", code, *options, "--", *argv)


def bwrap_argv(
    bwrap: str,
    binds: tuple[Bind, ...],
    argv: tuple[str, ...],
    *,
    sets: tuple[tuple[str, str], ...] = (),
    drops: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """The same through bubblewrap, for systems that allow namespaces to that program only.

    Bubblewrap stays, waits, and gives its child's exit code. When it is killed, so is the child.

    Args:
        bwrap: path of the program.
        binds: what is to be seen where.
        argv: the program to become.
        sets: environment of the program, beyond its own: a bubblewrap that is set-user-id loses library paths.
        drops: names that the program must not find in its environment.
    """
    options: list[str] = ["--die-with-parent"]
    for name in drops:
        options += ["--unsetenv", name]
    for name, value in sets:
        options += ["--setenv", name, value]
    for name in sorted(os.listdir("/")):
        path = "/" + name
        if path == _PARENT:
            for child in sorted(os.listdir(path)):
                if f"{path}/{child}" not in {bind.target for bind in binds}:
                    options += ["--dev-bind", f"{path}/{child}", f"{path}/{child}"]
        elif os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        else:
            options += ["--dev-bind", path, path]
    for bind in binds:
        options += ["--bind" if bind.writable else "--ro-bind", bind.source, bind.target]
    here = _working_directory()
    return (bwrap, *options, *(("--chdir", here) if here else ()), "--", *argv)


def main(argv: list[str]) -> NoReturn:
    """Enter the namespace that the options describe and become the program after ``--``."""
    binds: list[Bind] = []
    uid: int | None = None
    words = iter(argv)
    for word in words:
        if word == "--":
            break
        if word == "--uid":
            uid = int(next(words))
        else:
            binds.append(Bind(next(words), next(words), word == "--bind-rw"))
    program = list(words)
    try:
        enter(tuple(binds))
        if uid is not None:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        os.execvpe(program[0], program, os.environ)
    except Error as error:
        sys.stderr.write(f"headstart: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        sys.stderr.write(f"headstart: {program[0]} cannot be started ({error.strerror})\n")
        sys.exit(NamespaceError.exit_code)


class _Libc:
    """The four system calls that Python 3.11 does not offer, with errors as exceptions."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def unshare(self, flags: int) -> int:
        """Returns 0 or the error's number: which error it is decides what to try next."""
        return 0 if self._libc.unshare(flags) == 0 else ctypes.get_errno()

    def mount(self, source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
        done = self._libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            None if kind is None else kind.encode(),
            ctypes.c_ulong(flags),
            None if data is None else data.encode(),
        )
        if done != 0:
            number = ctypes.get_errno()
            raise NamespaceError(f"{source} cannot be mounted at {target} ({os.strerror(number)})", hint=_HINT)

    def pivot_root_here(self) -> bool:
        """Make the working directory the root and let go of the old one; False where that cannot be."""
        number = _PIVOT_ROOT.get(os.uname().machine)
        if number is None or self._libc.syscall(number, b".", b".") != 0:
            return False
        return bool(self._libc.umount2(b".", _MNT_DETACH) == 0)


def _unshare(libc: _Libc) -> None:
    uid, gid = os.geteuid(), os.getegid()
    failed = libc.unshare(_CLONE_NEWNS) if uid == 0 else errno.EPERM
    if failed == 0:
        return
    # Root in a container without CAP_SYS_ADMIN is in the same position as an ordinary user.
    failed = libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS)
    if failed:
        raise NamespaceError(f"no mount namespace is allowed here ({os.strerror(failed)})", hint=_HINT)
    try:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    except OSError as error:
        raise EnteredError(f"the user namespace cannot be set up ({error.strerror})", hint=_HINT) from error


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _bind(libc: _Libc, bind: Bind, at: str) -> None:
    libc.mount(bind.source, at, None, _MS_BIND | _MS_REC)
    if not bind.writable:
        # A user namespace may not drop flags that the source is mounted with, so they are named again.
        kept = os.statvfs(at).f_flag
        flags = kept & (_MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME | _MS_NODIRATIME)
        if kept & _ST_RELATIME:
            flags |= _MS_RELATIME
        libc.mount("none", at, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | flags)


def _cover_parent(libc: _Libc, binds: tuple[Bind, ...]) -> None:
    """Put a tmpfs with the same entries, and ours, over an existing ``/cvmfs``."""
    names = os.listdir(_PARENT)
    below = os.open(_PARENT, os.O_RDONLY | os.O_DIRECTORY)
    libc.mount("tmpfs", _PARENT, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    ours = {bind.target for bind in binds}
    for name in names:
        if f"{_PARENT}/{name}" not in ours:
            # An entry that its owner hides or that is about to go is no reason to fail.
            source = f"/proc/self/fd/{below}/{name}"
            try:
                _show(libc, source, os.lstat(source).st_mode, f"{_PARENT}/{name}")
            except (NamespaceError, OSError):
                continue
    for bind in binds:
        os.mkdir(bind.target)
        _bind(libc, bind, bind.target)
    os.close(below)
    libc.mount("none", _PARENT, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)


def _new_root(libc: _Libc, binds: tuple[Bind, ...]) -> None:
    """Build a root with everything of the old one and ``/cvmfs`` beside it, and make it the root."""
    modes = {name: os.lstat("/" + name).st_mode for name in sorted(os.listdir("/"))}
    folders = ["/" + name for name, mode in modes.items() if name != "proc" and stat.S_ISDIR(mode)]
    # One that this user may open: others may be private, such as /root.
    place = next((path for path in folders if os.access(path, os.R_OK | os.X_OK)), folders[0])
    # The new root hides one directory of the old one, which is reached through this descriptor.
    hidden = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    libc.mount("tmpfs", place, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    for name, mode in modes.items():
        _show(libc, f"/proc/self/fd/{hidden}" if "/" + name == place else "/" + name, mode, f"{place}/{name}")
    os.mkdir(place + _PARENT)
    os.chmod(place + _PARENT, 0o755)  # noqa: S103  # whatever the umask: who comes after a change of uid must get in
    for bind in binds:
        at = place + bind.target
        os.mkdir(at)
        _bind(libc, bind, at)
    os.close(hidden)
    libc.mount("none", place, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    os.chdir(place)
    if not libc.pivot_root_here():
        # A node that runs from its initramfs has a root that cannot be pivoted: move and chroot instead.
        libc.mount(".", "/", None, _MS_MOVE)
        os.chroot(".")
    os.chdir("/")


def _show(libc: _Libc, source: str, mode: int, at: str) -> None:
    """Make one entry of a directory appear at another place: a link copied, anything else bound."""
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), at)
        return
    if stat.S_ISDIR(mode):
        os.mkdir(at)
    else:
        os.close(os.open(at, os.O_CREAT | os.O_WRONLY, 0o644))
    libc.mount(source, at, None, _MS_BIND | _MS_REC)
