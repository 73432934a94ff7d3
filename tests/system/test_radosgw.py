"""What holds with a light S3 server, and what that one cannot show, on Ceph's radosgw, as CERN has it.

Only where ``HEADSTART_TEST_RADOSGW=1`` asks for it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import objectstores
import radosgw
import s3server
from headstart.cvmfs.objects import Algorithm, Kind, ObjectName
from headstart.errors import CorruptError
from headstart.s3store import S3Store
from objectstores import Site

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("HEADSTART_TEST_RADOSGW") != "1",
        reason="HEADSTART_TEST_RADOSGW=1 asks for Ceph's radosgw",
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3server.Server]:
    assert radosgw.lacking() == [], "install ceph-mon, ceph-osd, ceph-common and radosgw"
    with radosgw.running(tmp_path_factory.mktemp("ceph")) as made:
        yield made


@pytest.fixture
def site(server: s3server.Server, tmp_path: Path) -> Site:
    return Site(server, tmp_path)


def test_of_two_at_once_one_wins(site: Site) -> None:
    objectstores.of_two_at_once_one_wins(site)


def test_a_client_reads_it_over_http(site: Site) -> None:
    objectstores.a_client_reads_it_over_http(site)


def test_who_was_stopped_for_too_long_changes_nothing(site: Site) -> None:
    objectstores.who_was_stopped_for_too_long_changes_nothing(site)


def test_killed_before_any_write_the_old_or_the_new_state_verifies(site: Site) -> None:
    objectstores.killed_before_any_write_the_old_or_the_new_state_verifies(site, (3, 6, 9, 10, 11, 13))


def test_changed_bytes_are_refused(site: Site) -> None:
    objectstores.changed_bytes_are_refused(site)


def test_wrong_credentials_are_told_apart(site: Site) -> None:
    objectstores.wrong_credentials_are_told_apart(site)


def test_names_come_page_by_page(site: Site, server: s3server.Server) -> None:
    """More than one answer holds, through the real thing's idea of where the next page begins."""
    store = S3Store(site.place, server.access())
    contents = [str(number).encode() for number in range(1010)]
    names = [ObjectName(digest=Algorithm.SHA1.digest(content), kind=Kind.FILE) for content in contents]
    paths = {name.path for name in names}
    with store.transaction() as into:
        for name, content in zip(names, contents, strict=True):
            into.put(name, content)
        into.settle()
    listed = [item.path for item in store.listing("data/")]
    assert len(listed) == len(set(listed)) > 1010
    assert paths <= set(listed)
    with store.transaction() as into:
        into.delete(sorted(paths))
    assert not paths & {item.path for item in store.listing("data/")}


def test_what_is_too_long_is_not_read_to_its_end(site: Site) -> None:
    with site.store.transaction() as into:
        into.replace(".cvmfs_status.json", bytes(1 << 20))
    with pytest.raises(CorruptError):
        site.store.read(".cvmfs_status.json", limit=1000)
    assert site.store.read(".cvmfs_status.json", limit=1 << 20) == bytes(1 << 20)
