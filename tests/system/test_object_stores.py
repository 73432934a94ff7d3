"""Publishers as processes that meet at a light S3 server, stop, and are killed."""

from pathlib import Path

import pytest

import objectstores
import s3server
from objectstores import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(s3server.running(), tmp_path)


@pytest.mark.slow
def test_of_two_at_once_one_wins(site: Site) -> None:
    objectstores.of_two_at_once_one_wins(site)


@pytest.mark.slow
def test_a_client_reads_it_over_http(site: Site) -> None:
    objectstores.a_client_reads_it_over_http(site)


@pytest.mark.slow
def test_who_was_stopped_for_too_long_changes_nothing(site: Site) -> None:
    objectstores.who_was_stopped_for_too_long_changes_nothing(site)


@pytest.mark.slow
def test_killed_before_any_write_the_old_or_the_new_state_verifies(site: Site) -> None:
    objectstores.killed_before_any_write_the_old_or_the_new_state_verifies(site, (0, 3, 5, 8, 9, 10, 11, 13))
