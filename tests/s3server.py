"""A light S3 server as a process of its own, and clients of it: moto, which knows conditional writes.

Its requests are worked off one after the other, so that a condition and its write are one step, as on real
servers (moto looks and writes in two, and two threads of it could come between each other).

    server = s3server.running()
    store = S3Store(server.place("prefix"), server.access())
"""

import atexit
import functools
import io
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import boto3

from headstart.s3place import S3Access, S3Keys, S3Place, S3Server

BUCKET = "repositories"
KEYS = S3Keys(access="tester", secret="secret")
_count = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running one."""

    url: str
    keys: S3Keys = KEYS

    def access(self, **changes: Any) -> S3Access:
        """The way to it, in a hurry: tests make it fail on purpose."""
        server = S3Server(endpoint=self.url, region="us-east-1", keys=self.keys, virtual=False)
        return replace(S3Access(server=server, attempts=2, timeout=10.0), **changes)

    def place(self, prefix: str = "") -> S3Place:
        """A place of the test's own."""
        return S3Place(bucket=BUCKET, prefix=prefix or f"test{next(_count)}")

    def env(self) -> dict[str, str]:
        """What a process needs to know, in the words of AWS."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.keys.access,
            "AWS_SECRET_ACCESS_KEY": self.keys.secret,
            "AWS_MAX_ATTEMPTS": "2",
        }

    def client(self) -> Any:
        """A client of boto3, to look behind."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.keys.access,
            aws_secret_access_key=self.keys.secret,
        )


@functools.cache
def running() -> Server:
    """The one of this run."""
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
    atexit.register(process.wait)
    atexit.register(process.kill)
    assert process.stdout is not None
    server = Server(url=process.stdout.readline().strip())
    process.stdout.close()
    server.client().create_bucket(Bucket=BUCKET)
    return server


def main() -> None:
    """Serve until killed; says the address first."""
    # Slow to import, and of no use to the process of the tests.
    from moto.moto_server.werkzeug_app import (  # noqa: PLC0415
        DomainDispatcherApplication,
        create_backend_app,
    )
    from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415

    class Quiet(WSGIRequestHandler):
        def log(self, *_: object) -> None:
            pass

    app = DomainDispatcherApplication(create_backend_app)
    one = threading.Lock()

    def serve(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with one:
            environ["wsgi.input"] = io.BytesIO(body)
            return list(app(environ, start))

    server = make_server("127.0.0.1", 0, serve, threaded=True, request_handler=Quiet)
    sys.stdout.write(f"http://127.0.0.1:{server.port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
