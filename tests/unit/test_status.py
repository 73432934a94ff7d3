"""How a repository is: what expires when, and the same as text for Prometheus."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import publishing
from crashing import quick_disk
from headstart.cli import main
from headstart.cvmfs.der import certificate_end
from headstart.cvmfs.objects import Algorithm
from headstart.cvmfs.signature import Letter, seal
from headstart.cvmfs.whitelist import WHITELIST_FILE, Whitelist
from headstart.errors import Error, TrustError, UnknownError
from headstart.names import ChannelName
from headstart.repository import Channel, publish
from headstart.repository.whitelists import install_whitelist
from headstart.source import Anchors, MountSource, StorageSource
from headstart.stage import open_stage
from headstart.status import State, Status, look, metrics
from publishing import FQRN, NOW, Place, new_repository, write_stage

__all__ = ["quick_disk"]
DAY = timedelta(days=1)


@pytest.fixture
def place(quick_disk: Path) -> Place:
    """With channels ``prod`` for 30 days and ``brief`` for 3, and keys beside it."""
    write_stage(quick_disk / "stage")
    publishing.copy_keys(quick_disk / "keys")
    made = new_repository(quick_disk / "storage")
    for name, days in (("prod", 30), ("brief", 3)):
        channel = Channel(name=ChannelName(name), valid=days * DAY)
        publish(made.target, open_stage(str(quick_disk / "stage")), channel, NOW)
    return made


def status(place: Place, now: datetime, days: int = 7) -> Status:
    key = str(place.root.parent / "keys" / f"{FQRN}.pub")
    source = StorageSource(directory=str(place.root))
    return look(source, Anchors(keys=(key,)), now=now, warning=days * DAY)


def states(found: Status) -> dict[str, str]:
    return {f"{item.what} {item.name}".strip(): str(item.state) for item in found.expiries}


@pytest.mark.parametrize(
    ("after", "expected", "worst"),
    [
        (0, ("good", "good", "good", "good", "soon"), State.SOON),
        (4, ("good", "good", "good", "good", "expired"), State.EXPIRED),
        (24, ("soon", "good", "good", "soon", "expired"), State.EXPIRED),
        (31, ("expired", "good", "good", "expired", "expired"), State.EXPIRED),
        (400, ("expired", "expired", "expired", "expired", "expired"), State.EXPIRED),
    ],
)
def test_each_expires_in_its_time(place: Place, after: int, expected: tuple[str, ...], worst: State) -> None:
    found = status(place, NOW + after * DAY)
    names = ("whitelist", "certificate", "channel-keys", "channel jets/prod", "channel jets/brief")
    assert states(found) == dict(zip(names, expected, strict=True))
    assert found.worst is worst
    assert found.problems == ()


def test_the_figures_are_the_repository_s(place: Place) -> None:
    found = status(place, NOW)
    manifest = place.open().manifest
    assert found.opened.snapshot is not None
    assert found.opened.snapshot.revision == manifest.revision == 3
    assert found.published == datetime.fromtimestamp(manifest.timestamp, UTC)
    assert found.tags == 2
    content = publishing.content_of(place.open())
    assert found.files == sum(isinstance(item, bytes) for item in content.values())
    assert found.size == sum(len(item) for item in content.values() if isinstance(item, bytes))
    end = certificate_end(publishing.keys().certificate.der, what="it")
    assert end == NOW + 365 * DAY
    assert {item.when for item in found.expiries if item.what == "certificate"} == {end}


def test_metrics_are_prometheus_text(place: Place) -> None:
    text = metrics(status(place, NOW), now=NOW)
    line = re.compile(r'[a-z_]+\{[a-z]+="[^"\\\n]*"(,[a-z]+="[^"\\\n]*")*\} \d+')
    help_line = re.compile(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ gauge)")
    assert text.endswith("\n")
    for each in text.rstrip("\n").split("\n"):
        assert line.fullmatch(each) or help_line.fullmatch(each), each
    whitelist = Whitelist.from_bytes(Letter.cut((place.root / WHITELIST_FILE).read_bytes(), what="it").text)
    ends = int(whitelist.ends.timestamp())
    assert f'headstart_expiry_timestamp_seconds{{fqrn="{FQRN}",what="whitelist"}} {ends}\n' in text
    assert f'headstart_repository_revision{{fqrn="{FQRN}"}} 3\n' in text
    assert 'what="channel",name="jets/brief"' in text


def test_a_revoked_certificate_is_an_error_not_a_status(place: Place) -> None:
    data = (place.root / WHITELIST_FILE).read_bytes()
    record = Whitelist.from_bytes(Letter.cut(data, what="it").text)
    other = replace(record, fingerprints=(type(record.fingerprints[0])(Algorithm.SHA1.digest(b"x")),))
    signed = seal(other.to_bytes(), algorithm=Algorithm.SHA1, sign=publishing.all_keys().master.sign_plain)
    with pytest.raises(TrustError):
        install_whitelist(place.store, publishing.keys().masters, signed, NOW)
    (place.root / WHITELIST_FILE).write_bytes(signed)
    with pytest.raises(TrustError, match="not on its whitelist"):
        status(place, NOW)


def test_a_mount_does_not_show_its_signatures() -> None:
    with pytest.raises(UnknownError, match="mounted"):
        look(MountSource(root="/cvmfs/a.b.c", fqrn=FQRN), Anchors(), now=NOW, warning=DAY)


def test_as_a_command(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The real clock: what was published in the past of these tests has expired, and the code says so."""
    key = str(place.root.parent / "keys" / f"{FQRN}.pub")
    file = place.root.parent / "headstart.prom"
    words = ["repo", "status", str(place.root), "--key", key]
    soon = status(place, publishing.later())
    code = main([*words, "--json", "--metrics", str(file)])
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert code == (TrustError.exit_code if soon.worst is State.EXPIRED else 0)
    assert found["state"] == str(soon.worst)
    assert (found["fqrn"], found["revision"], found["tags"]) == (str(FQRN), 3, 2)
    assert [item["what"] for item in found["expiries"]] == [
        "whitelist",
        "certificate",
        "channel-keys",
        "channel",
        "channel",
    ]
    assert file.read_text().startswith("# HELP headstart_repository_revision ")
    assert [path.name for path in place.root.parent.glob("headstart.prom*")] == ["headstart.prom"]
    assert main(words) == code
    text = capsys.readouterr().out
    for word in ("julia.example.org, revision 3", "whitelist: ", "channel jets/brief: ", "tags       2"):
        assert word in text
    assert main([*words, "--warn-days", "-1"]) == 10
    assert main([*words, "--metrics", "/nonexistent/x"]) == 16
    assert issubclass(TrustError, Error)
