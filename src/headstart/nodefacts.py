"""What ``headstart doctor`` knows of a node before it judges: facts as they were found, and no opinions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from headstart.errors import Error
from headstart.names import Fqrn
from headstart.route import DIRECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """In the place of an answer that did not come."""

    seconds: float
    """How long it was waited for; 0 where whoever was asked has died over it."""

    def __str__(self) -> str:
        return f"no answer within {self.seconds:g} s" if self.seconds else "it cannot be looked at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """An error of Headstart's own, as a start would end with it."""

    code: int
    """The exit code that it would have."""
    text: str
    hint: str

    @classmethod
    def of(cls, error: Error) -> Self:
        """An error as a fact."""
        return cls(code=error.exit_code, text=error.message, hint=error.hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processors:
    """What ``/proc/cpuinfo`` says, or what is read in its place."""

    machine: str
    """As ``uname -m``."""
    source: str
    """The file that was read."""
    flags: Sequence[frozenset[str]]
    """The distinct sets of features, that of the first processor first; nothing where it names none."""
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """Whether this process may give itself a view of the file system of its own."""

    why_not: str
    """Nothing where it may."""
    bwrap: str
    """Path of bubblewrap; nothing where there is none."""
    bwrap_works: bool
    switches: Mapping[str, str]
    """The kernel's settings that matter, by name; only those that this kernel has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuse:
    """What a CernVM-FS client would need."""

    device: bool
    """Whether ``/dev/fuse`` is there and may be opened."""
    helper: str
    """Path of ``fusermount3`` or ``fusermount``; nothing where there is neither."""
    client: str
    """Path of ``cvmfs2``; nothing where it is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A repository below ``/cvmfs``."""

    path: str
    kind: str
    """Of file system, as the kernel calls it; nothing where nothing is mounted there."""
    entries: int
    """How many names are in it."""
    error: str
    """Why it cannot be read; nothing where it can."""
    attributes: Mapping[str, str]
    """What the client says of itself: ``revision``, ``host``, ``proxy``, ``nioerr``; nothing elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the cache is or is to be, and the disk below it."""

    path: str
    origin: str
    """What says that it is there: an option, a variable, or the user's home."""
    exists: bool
    trouble: Trouble | None
    """Why it would not be used."""
    unwritable: str
    """Why a small file cannot be made there; nothing where it can."""
    borrowed: bool
    """Whether it is root's, and the user is another."""
    kind: str
    """Of file system."""
    free: int
    """Bytes that this user may still write."""
    size: int
    free_files: int
    """Files that this user may still make; -1 where the file system does not count them."""
    noexec: bool
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyAnswer:
    """Whether a proxy lets itself be connected to."""

    proxy: str
    error: str
    """Why not; nothing where it does."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A server, and how it is reached."""

    server: str
    proxy: str
    """``DIRECT`` for none."""

    def __str__(self) -> str:
        return self.server if self.proxy == DIRECT else f"{self.server} through {self.proxy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a server said."""

    latency: float
    """Seconds for a small file over a connection that is open."""
    offset: float | None
    """Seconds by which its clock is before this machine's; None where it did not say, or something kept it."""
    revision: int
    published: datetime
    ends: datetime | None
    """When its whitelist ends; None where no key is there to believe it with."""
    trouble: Trouble | None
    """Why a start would not believe it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """A repository in a directory."""

    directory: str
    trouble: Trouble | None
    revision: int
    ends: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What Julia and Headstart would find around them."""

    variables: Mapping[str, str]
    """The environment."""
    home: str
    """The home directory, by ``HOME`` or else by the user's entry; nothing where there is none."""
    entry: bool
    """Whether the user has an entry in the system's list."""
    startup: Sequence[str]
    """Startup files of Julia that are there."""
    julia: str
    """The Julia that a shell would find; nothing where there is none."""
    temporary: str
    """Why the directory for temporary files cannot be used; nothing where it can."""
    fast: bool
    """Whether the library that makes inflating faster is installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that was found."""

    now: datetime
    uid: int
    kernel: str
    """As ``uname -sr``."""
    fqrn: Fqrn | None
    """The repository that was asked about, as far as that is known."""
    source: str
    """As the user named it; nothing where he did not."""
    settings: Trouble | None
    """Why the settings, or the source, cannot be understood."""
    seen: int
    """The revision that this node has seen; 0 for none."""
    distrusted: str
    """Where this node would remember for all its users, if others could not write there; nothing else."""
    processors: Processors | Silence
    namespaces: Namespaces | Silence
    fuse: Fuse
    mounts: Mapping[str, Mount | Silence]
    """By path."""
    place: Place | Silence | None
    proxies: Mapping[str, ProxyAnswer | Silence]
    ways: Mapping[Way, Heard | Trouble | Silence]
    storage: Storage | Silence | None
    surroundings: Surroundings
