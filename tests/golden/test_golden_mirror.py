"""The golden repositories, mirrored over HTTP: the same objects and signed files, nothing to complain about."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

import goldens
from headstart.cvmfs.reflog import REFLOG_FILE, Reflog
from headstart.cvmfs.trust import MasterKeys
from headstart.names import Fqrn
from headstart.repository.check import Subject, check
from headstart.repository.mirror import Wishes, look, mirror
from headstart.repository.origin import Sought
from headstart.store import DirectoryStore
from headstart.stratum import DirectoryStratum
from headstart.webserver import WebServer
from headstart.webstratum import HttpStratum

pytestmark = goldens.needed
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize("golden", goldens.BOTH)
def test_a_mirror_of_it(golden: goldens.Golden, tmp_path: Path) -> None:
    fqrn = Fqrn(golden.fqrn)
    for path, content in golden.files.items():
        place = tmp_path / "source" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    keys = MasterKeys.from_pems({"golden": golden.master})
    store = DirectoryStore(str(tmp_path / "mirror"))
    wanted = {path for path in golden.files if path.startswith("data/")}
    with (
        WebServer({fqrn: str(tmp_path / "source")}) as server,
        HttpStratum(server.urls[fqrn]) as stratum,
    ):
        sought = Sought(stratum=stratum, keys=keys, fqrn=fqrn)
        planned = look(sought, store, Wishes(workers=2), NOW)
        done = mirror(sought, store, Wishes(workers=4), NOW)
        again = mirror(sought, store, Wishes(workers=4), NOW)
    assert done.plan.states == planned.plan.states
    assert (done.tally.objects, done.tally.catalogs) == (planned.tally.objects, planned.tally.catalogs)
    assert again.tally.objects == 0
    files = {
        str(path.relative_to(store.root)): path.read_bytes()
        for path in Path(store.root).rglob("*")
        if path.is_file()
    }
    assert {path: files[path] for path in files if path.startswith("data/") and "txn" not in path} == {
        path: golden.files[path] for path in wanted
    }
    assert done.tally.objects == len(wanted)
    for name in (".cvmfspublished", ".cvmfswhitelist"):
        assert files[name] == golden.files[name]
    logs = [Reflog.from_bytes(data[REFLOG_FILE], fqrn=fqrn).references for data in (files, golden.files)]
    assert {(item.digest, item.kind) for item in logs[0]} == {(item.digest, item.kind) for item in logs[1]}
    subject = Subject(stratum=DirectoryStratum(store.root), store=store, keys=keys, fqrn=fqrn)
    assert check(subject, now=NOW, deep=True).complaints == []
