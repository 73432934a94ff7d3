"""The loopback server serves one repository, keeps connections, and counts what it sends."""

import http.client
from pathlib import Path
from urllib.parse import urlsplit

from headstart.loopback import LoopbackServer
from headstart.names import Fqrn


def test_serves_below_the_repository_name_only_and_counts(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "object").write_bytes(b"x" * 1000)
    with LoopbackServer(str(tmp_path), Fqrn("test.example.org")) as server:
        place = urlsplit(server.url)
        connection = http.client.HTTPConnection(place.netloc, timeout=10)
        for _ in range(2):  # the same connection twice
            connection.request("GET", f"{place.path}/data/object")
            answer = connection.getresponse()
            assert (answer.status, len(answer.read())) == (200, 1000)
        assert server.sent == 2000
        for path in ("/data/object", "/cvmfs/other.example.org/data/object", f"{place.path}/../../etc/passwd"):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 404
        connection.close()
