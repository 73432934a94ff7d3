"""The staging directory: what is complete in it, what is being made, and who is making it.

Theory of operation. A release and a Julia are made below ``work/`` and come to their place by one rename each,
so a directory under ``stacks/`` or ``julia/`` is complete or not there. ``stage.json``, which names what to
publish, is replaced last, by a rename too. One process at a time works here: it holds a lock that the kernel
takes away with the process, and throws away whatever an earlier one left below ``work/``.
"""

import contextlib
import fcntl
import os
import shutil
import stat
from types import TracebackType
from typing import Final, Self

from headstart.errors import CorruptError, LockedError, StorageError
from headstart.names import Fqrn, JuliaName, ReleaseId, Sha256, StackName
from headstart.record import canonical
from headstart.release import RELEASE_FILE, Release

STAGE_FILE: Final = "stage.json"
_OURS: Final = {STAGE_FILE, "julia", "stacks", "logs", "work"}


class Stage:
    """A staging directory, held by this process while the ``with`` block lasts.

    Args:
        path: the directory; it is made when it is not there.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._lock = -1

    def check(self) -> None:
        """Look whether it may be a staging directory; nothing is written.

        Raises:
            StorageError: there is no directory but a file, or something else is in it, such as a repository.
        """
        try:
            others = sorted(set(os.listdir(self.path)) - _OURS)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be read ({error.strerror})", hint="name another directory with --stage"
            ) from error
        if others:
            raise StorageError(
                f"{self.path} is no staging directory: {others[0]} is in it",
                hint="name one with --stage that is empty or not there yet",
            )

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            LockedError: another process is building here.
            StorageError: the directory cannot be written, or something else is in it.
        """
        self.check()
        try:
            os.makedirs(self.work, exist_ok=True)
            self._lock = os.open(os.path.join(self.work, "lock"), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written ({error.strerror})", hint="name another directory with --stage"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise LockedError(
                f"somebody else is building in {self.path}", hint="wait, or use another --stage"
            ) from error
        self.clean()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An interrupted build may still be writing; the next one throws away what this one cannot.
        with contextlib.suppress(OSError):
            self.clean()
        os.close(self._lock)

    @property
    def work(self) -> str:
        """Where things are made."""
        return os.path.join(self.path, "work")

    def clean(self) -> None:
        """Throw away what is half made; the lock's file stays."""
        for name in os.listdir(self.work):
            if name != "lock":
                remove_tree(os.path.join(self.work, name))

    def julia(self, name: JuliaName) -> str:
        """The place of a Julia."""
        return os.path.join(self.path, "julia", str(name))

    def release(self, stack: StackName, release: ReleaseId) -> str:
        """The place of a release."""
        return os.path.join(self.path, "stacks", str(stack), str(release))

    def log(self, release: ReleaseId) -> str:
        """The full log of a release's build."""
        return os.path.join(self.path, "logs", f"{release}.log")

    def staged(self, stack: StackName, release: ReleaseId) -> tuple[Release, Sha256] | None:
        """A release that is complete here, and its digest; None when it is not here.

        Raises:
            CorruptError: what is at its place is no such release.
        """
        place = self.release(stack, release)
        if not os.path.isdir(place):
            return None
        hint = f"remove {place} and build again"
        try:
            with open(os.path.join(place, RELEASE_FILE), "rb") as file:
                data = file.read()
            found = Release.from_bytes(data)
        except (OSError, CorruptError) as error:
            raise CorruptError(f"{place} is no complete release ({error})", hint=hint) from error
        if (found.stack, found.id) != (stack, release):
            raise CorruptError(f"{place} holds release {found.stack} {found.id}", hint=hint)
        return found, Sha256.of(data)

    def place(self, made: str, place: str) -> None:
        """Move something complete to its place."""
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.rename(made, place)

    def announce(self, fqrn: Fqrn, stack: StackName, release: ReleaseId, julia: JuliaName) -> None:
        """Say in ``stage.json`` what there is to publish."""
        content = canonical(
            {"schema": 1, "fqrn": str(fqrn), "stack": str(stack), "release": str(release), "julia": str(julia)}
        )
        part = os.path.join(self.work, STAGE_FILE)
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, os.path.join(self.path, STAGE_FILE))


def remove_tree(path: str) -> None:
    """Remove a tree whose directories may be read-only; links are removed, not followed."""
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return
    for folder, _, _ in os.walk(path):
        if not os.stat(folder).st_mode & stat.S_IWUSR:
            os.chmod(folder, 0o700)
    shutil.rmtree(path)
