"""A publisher to an object store as a process of its own, that can be started, stopped and killed on the point.

    python bucketpublisher.py URL ACCESS SECRET S3PLACE KEYS TREE LEASE PAUSE

It says ``ready``, waits for a line, and publishes TREE at /data. If PAUSE is 1, it says ``paused`` and stops
itself before it writes the manifest. The exit code is that of the command line.
"""

import os
import signal
import sys
from datetime import UTC, datetime
from threading import Lock

from headstart.bucket import Bucket, Condition
from headstart.errors import Error
from headstart.keys import load_keys
from headstart.names import Fqrn
from headstart.repository.publish_tree import Wanted, publish_tree
from headstart.s3place import S3Access, S3Keys, S3Place, S3Server
from headstart.s3store import S3Store


def main() -> int:
    """See the module."""
    url, access, secret, place, keys, tree = sys.argv[1:7]
    lease, pause = float(sys.argv[7]), sys.argv[8] == "1"
    interrupt(-1, pause=pause)
    server = S3Server(
        endpoint=url, region="us-east-1", keys=S3Keys(access=access, secret=secret), virtual=False
    )
    store = S3Store(S3Place.parse(place), S3Access(server=server, lease=lease, connections=4))
    target = store, load_keys(keys, Fqrn("julia.example.org"))
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        done = publish_tree(target, Wanted(directory=tree, at=b"/data"), datetime.now(UTC))
    except Error as error:
        print(error, flush=True)
        return error.exit_code
    print(done.manifest.revision, flush=True)
    return 0


def interrupt(kill: int, *, pause: bool) -> None:
    """Kill this process before its n-th write, or stop it before it writes the manifest."""
    real = Bucket.write
    count = [0]
    one = Lock()

    def write(self: Bucket, path: str, content: bytes, condition: Condition | None = None) -> str:
        with one:
            number = count[0]
            count[0] += 1
            if number == kill:
                os.kill(os.getpid(), signal.SIGKILL)
            if pause and path == ".cvmfspublished":
                print("paused", flush=True)
                os.kill(os.getpid(), signal.SIGSTOP)
        return real(self, path, content, condition)

    setattr(Bucket, "write", write)  # noqa: B010 - a checker would refuse the assignment


if __name__ == "__main__":
    sys.exit(main())
