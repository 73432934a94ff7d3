"""The site's blacklist, where the CVMFS client keeps it: certificates and old revisions that it refuses.

The client reads ``/etc/cvmfs/blacklist``, or what ``CVMFS_BLACKLIST`` says, and one in the configuration
repository (``MountPoint::CheckBlacklists`` in ``cvmfs/mountpoint.cc``); a node may have none. Standard
library only.
"""

from collections.abc import Sequence
from typing import Final

from headstart.cvmfs.trust import Blacklist
from headstart.errors import ConfigurationError, CorruptError

BLACKLIST_FILE: Final = "/etc/cvmfs/blacklist"
_LIMIT: Final = 1 << 20


def read_blacklists(given: Sequence[str] = (), *, site: Sequence[str] = (BLACKLIST_FILE,)) -> Blacklist:
    """The site's blacklists, and others that the user names; what any of them refuses is refused.

    Args:
        given: paths that must be there.
        site: paths where there may be one.

    Raises:
        ConfigurationError: one is there and cannot be read, is too large, or has a line that means nothing; or
            one that the user named is not there. Going on without it might trust a stolen key.
    """
    made = Blacklist()
    for paths, required in ((site, False), (given, True)):
        for path in paths:
            made = made.joined(_read(path, required=required))
    return made


def _read(path: str, *, required: bool) -> Blacklist:
    try:
        with open(path, "rb") as stream:
            data = stream.read(_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not required:
            return Blacklist()
        raise ConfigurationError(f"there is no blacklist {path}") from error
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the blacklist {path}: {error.strerror}", hint="let everybody read it"
        ) from error
    if len(data) > _LIMIT:
        raise ConfigurationError(f"the blacklist {path} has more than {_LIMIT} bytes")
    try:
        return Blacklist.from_text(data.decode(errors="replace"))
    except CorruptError as error:
        raise ConfigurationError(f"{path}: {error.message}") from error
