"""Ceph's own S3 server for tests: one monitor, one OSD in memory, and radosgw, from Debian's packages.

``ceph-mon``, ``ceph-osd``, ``ceph-common`` and ``radosgw`` are needed; it keeps everything
below one folder, listens on loopback only, and is gone with the test run.
"""

import contextlib
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import s3server
from headstart.s3place import S3Keys

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
KEYS = S3Keys(access="tester", secret="secret")
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}]
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
# Without authentication nothing can be encrypted, and radosgw would ask for it.
ms cluster mode = crc
ms service mode = crc
ms client mode = crc
ms mon cluster mode = crc
ms mon service mode = crc
ms mon client mode = crc
keyring = /dev/null
osd objectstore = memstore
memstore device bytes = 1073741824
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon data avail warn = 1
mon data avail crit = 1
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
run dir = {folder}
admin socket = {folder}/$name.asok
pid file =
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
rgw frontends = beast endpoint=127.0.0.1:{web}
rgw thread pool size = 32
rgw enable gc threads = false
rgw enable lc threads = false
rgw enable quota threads = false
rgw dynamic resharding = false
rgw override bucket index max shards = 1
"""


def lacking() -> list[str]:
    """Programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[s3server.Server]:
    """One with a user and a bucket."""
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    mon, web = _free_ports(2)
    fsid = str(uuid.uuid4())
    file = folder / "ceph.conf"
    file.write_text(_CONFIGURATION.format(fsid=fsid, mon=mon, web=web, folder=folder))
    use = ("-c", str(file))
    _run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon}]", str(folder / "map"))
    _run("ceph-mon", "-i", "a", "--mkfs", "--monmap", str(folder / "map"), *use)
    with contextlib.ExitStack() as stack:

        def start(*words: str) -> None:
            log = stack.enter_context(open(folder / f"{words[0]}.out", "wb"))
            process = subprocess.Popen([*words, "-f", *use], stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)

        start("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        _run("ceph", *use, "osd", "new", osd, "0")
        _run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd, *use)
        start("ceph-osd", "-i", "0")
        start("radosgw", "-n", "client.rgw")
        _wait_for(web)
        user = (
            "--uid=tester",
            "--display-name=tester",
            f"--access-key={KEYS.access}",
            f"--secret-key={KEYS.secret}",
        )
        _run("radosgw-admin", *use, "user", "create", *user)
        server = s3server.Server(url=f"http://127.0.0.1:{web}", keys=KEYS)
        server.client().create_bucket(Bucket=s3server.BUCKET)
        yield server


def _run(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (words, done.stdout, done.stderr)


def _wait_for(port: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise AssertionError("radosgw does not begin to listen")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
