"""Official builds of Julia, against a real server on this machine."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headstart.cli import main
from headstart.errors import CacheError, ConfigurationError, CorruptError, MissingToolError, UnavailableError
from headstart.julia import Archive, Found, JuliaRequest, JuliaVersion, newest
from headstart.names import JuliaName, Sha256
from headstart.official import Unpacked, Wish, settle
from headstart.process import run_process
from juliaserver import LIST, JuliaHost, archive, builds, starts_as
from projects import SETTINGS, write_project

TEN = JuliaRequest("1.10")


@pytest.fixture
def host() -> Iterator[JuliaHost]:
    with JuliaHost().running() as server:
        server.add("1.9.4", archive("1.9.4"))
        server.add("1.10.6", archive("1.10.6"))
        server.add("1.10.10", archive("1.10.10"))
        server.add("1.12.0-rc1", archive("1.12.0-rc1"))
        yield server


def left(folder: Path) -> list[str]:
    """What is kept, and what is left of work."""
    names = {str(path.relative_to(folder)) for path in folder.glob("*")} - {"lock", "work"}
    return sorted(names | {f"work/{path.name}" for path in folder.glob("work/*")})


def test_the_newest_that_was_asked_for() -> None:
    known = [
        Archive(version=JuliaVersion.parse(text), url="", sha256=Sha256.of(b""), size=1)
        for text in ("1.9.4", "1.10.6", "1.10.10", "1.11.1", "1.12.0-rc1", "2.0.0")
    ]
    for asked, found in (
        ("1", "1.11.1"),
        ("1.10", "1.10.10"),
        ("1.10.6", "1.10.6"),
        ("1.12.0-rc1", "1.12.0-rc1"),
        ("2", "2.0.0"),
    ):
        assert str(newest(known, JuliaRequest(asked)).version) == found
    for asked in ("1.12", "1.10.1", "3"):
        with pytest.raises(ConfigurationError, match=r"no official build of Julia .* the newest is 2\.0\.0"):
            newest(known, JuliaRequest(asked))


@pytest.mark.parametrize("text", ["", "1.", "1.10-rc1", "~1.10", "1.10.6.2", "lts", "1.10.6\n", "1" * 70])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no version of Julia"):
        JuliaRequest(text)


def test_the_newest_patch_is_fetched_once_and_then_needs_no_network(host: JuliaHost, tmp_path: Path) -> None:
    folder, said = tmp_path / "cache/julia", list[str]()
    found = builds(folder, host.versions, said).obtain(TEN)
    data = archive("1.10.10")
    assert (str(found.archive.version), found.archive.sha256) == ("1.10.10", Sha256.of(data))
    assert left(folder) == [f"1.10.10-{Sha256.of(data).hex[:12]}"]
    assert len(said) == 1
    assert "fetching Julia 1.10.10 (0 MB) from http://127.0.0.1" in said[0]
    assert os.stat(found.program).st_mtime == 1_700_000_000
    assert os.access(found.program, os.X_OK)
    asked = list(host.asked)
    host.close()
    for text in ("1", "1.10", "1.10.10"):
        assert builds(folder, host.versions).obtain(JuliaRequest(text)) == found
    assert host.asked == asked
    with pytest.raises(UnavailableError, match=r"versions\.json cannot be reached \(Connection refused\)"):
        builds(folder, host.versions).obtain(JuliaRequest("1.10.6"))


def test_a_newer_one_is_taken_when_asked_for(host: JuliaHost, tmp_path: Path) -> None:
    mine = builds(tmp_path / "julia", host.versions)
    mine.obtain(TEN)
    host.add("1.10.11", archive("1.10.11"))
    assert str(mine.obtain(TEN).archive.version) == "1.10.10"
    assert str(mine.obtain(TEN, refresh=True).archive.version) == "1.10.11"
    assert str(mine.obtain(TEN).archive.version) == "1.10.11"
    assert (host.downloads(), len(left(tmp_path / "julia"))) == (2, 2)
    mine.obtain(TEN, refresh=True)
    assert host.downloads() == 2


def test_a_prerelease(host: JuliaHost, tmp_path: Path) -> None:
    mine = builds(tmp_path / "julia", host.versions)
    with pytest.raises(ConfigurationError, match=r"no official build of Julia 1\.12 for this machine"):
        mine.obtain(JuliaRequest("1.12"))
    assert str(mine.obtain(JuliaRequest("1.12.0-rc1")).archive.version) == "1.12.0-rc1"


def refused(host: JuliaHost, folder: Path, kind: type[Exception], says: str, asked: str = "1.10") -> None:
    with pytest.raises(kind, match=says) as caught:
        builds(folder, host.versions).obtain(JuliaRequest(asked))
    assert str(caught.value).count("\n") == 0
    assert left(folder) == []


def test_another_hash_is_refused(host: JuliaHost, tmp_path: Path) -> None:
    path = host.add("1.10.11", archive("1.10.11"), sha256="0" * 64)
    refused(host, tmp_path / "julia", CorruptError, "SHA-256 hash does not match, got")
    host.pages[path] = archive("1.10.11", files={"evil": "yes"})[: len(archive("1.10.11"))]
    refused(host, tmp_path / "julia", CorruptError, "is not the archive that was to come")


def test_a_truncated_download_is_refused_and_the_next_one_is_whole(host: JuliaHost, tmp_path: Path) -> None:
    data = archive("1.10.10")
    path = host.add("1.10.10", data)
    host.pages[path] = data[:100]
    says = f"ended after 100 of {len(data)} bytes|cannot be reached"
    refused(host, tmp_path / "julia", CorruptError, says)
    host.lengths[path] = len(data)
    with pytest.raises((CorruptError, UnavailableError), match=says):
        builds(tmp_path / "julia", host.versions).obtain(TEN)
    assert left(tmp_path / "julia") == []
    host.lengths.clear()
    host.pages[path] = data
    assert str(builds(tmp_path / "julia", host.versions).obtain(TEN).archive.version) == "1.10.10"


def test_an_answer_that_does_not_end_is_refused(host: JuliaHost, tmp_path: Path) -> None:
    path = host.add("1.10.10", archive("1.10.10"))
    host.pages[path] += bytes(10_000_000)
    refused(host, tmp_path / "julia", CorruptError, "sends more than the")


def test_html_in_place_of_the_archive_or_of_the_list(host: JuliaHost, tmp_path: Path) -> None:
    path = host.add("1.10.10", archive("1.10.10"))
    host.pages[path] = b"<html>please log in</html>"
    refused(host, tmp_path / "julia", CorruptError, "ended after 26 of")
    for page in (b"<html>please log in</html>", b"[]", b'{"1.10.6": {}}', b'{"1.10.6": 3}', b"\xff"):
        host.pages[LIST] = page
        refused(host, tmp_path / "julia", UnavailableError, "is no list of Julia's versions")


def test_a_server_that_answers_with_an_error(host: JuliaHost, tmp_path: Path) -> None:
    del host.pages[host.add("1.10.10", archive("1.10.10"))]
    refused(host, tmp_path / "julia", UnavailableError, "cannot be reached .*404")
    del host.pages[LIST]
    refused(host, tmp_path / "julia", UnavailableError, r"versions\.json cannot be reached .*404")


def test_an_archive_that_is_no_julia(host: JuliaHost, tmp_path: Path) -> None:
    host.add("1.10.11", b"not even an archive")
    refused(host, tmp_path / "julia", (CorruptError, CacheError), "cannot be unpacked")  # type: ignore[arg-type]
    host.add("1.10.11", archive("1.10.11", top="python-3"))
    refused(host, tmp_path / "julia", CorruptError, r"expecting one julia\* directory")


def test_a_path_that_leads_out_of_the_archive_is_refused(host: JuliaHost, tmp_path: Path) -> None:
    host.add("1.10.11", archive("1.10.11", files={"../../evil": "yes"}))
    refused(host, tmp_path / "julia", CorruptError, "cannot be unpacked")
    assert not list(tmp_path.rglob("evil"))


def test_two_at_once_fetch_once(host: JuliaHost, tmp_path: Path) -> None:
    said: list[str] = []
    waits = threading.Event()

    class Said(list[str]):
        def append(self, text: str) -> None:
            said.append(text)
            if "waiting" in text:
                waits.set()

    host.held.clear()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(builds(tmp_path / "julia", host.versions, Said()).obtain, TEN) for _ in range(2)]
        assert waits.wait(60)
        host.held.set()
        one, two = (each.result() for each in both)
    assert one == two
    assert host.downloads() == 1
    assert sum("fetching Julia" in text for text in said) == 1


@pytest.mark.parametrize("whole", [False, True])
def test_a_kill_while_downloading(host: JuliaHost, tmp_path: Path, whole: bool) -> None:
    """With the program that downloads, and without: that one goes when nobody waits for it."""
    folder = tmp_path / "julia"
    words = starts_as(host, folder, "1.10")
    host.held.clear()
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=whole)
    try:
        while not host.downloads():
            assert process.poll() is None
    finally:
        (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    assert left(folder)[0].startswith("work/")
    host.held.set()
    found = builds(folder, host.versions).obtain(TEN)
    assert left(folder) == [os.path.basename(found.folder)]


def test_a_kill_while_unpacking(host: JuliaHost, tmp_path: Path) -> None:
    """With some 200 MB to go after the first file is there."""
    folder = tmp_path / "julia"
    host.add("1.10.11", archive("1.10.11", files={f"share/{one}": "0" * 20_000_000 for one in range(10)}))
    words = starts_as(host, folder, "1.10")
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while not list(folder.glob("work/*/tmp*/julia-1.10.11/bin/julia")):
            assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert left(folder)[0].startswith("work/")
    assert builds(folder, host.versions).cached(TEN) is None
    host.add("1.10.11", archive("1.10.11"))
    found = builds(folder, host.versions).obtain(TEN)
    assert left(folder) == [os.path.basename(found.folder)]


def test_what_was_changed_since_is_refused(host: JuliaHost, tmp_path: Path) -> None:
    found = builds(tmp_path / "julia", host.versions).obtain(TEN)
    with open(found.program, "a") as file:
        file.write("# changed\n")
    with pytest.raises(CorruptError, match="is not as it was unpacked; remove"):
        builds(tmp_path / "julia", host.versions).obtain(TEN)
    os.unlink(os.path.join(found.folder, "official.json"))
    with pytest.raises(CorruptError, match=r"official\.json cannot be read .*; remove"):
        builds(tmp_path / "julia", host.versions).obtain(TEN)


def test_a_folder_that_others_may_write_is_not_used(host: JuliaHost, tmp_path: Path) -> None:
    builds(tmp_path / "julia", host.versions).obtain(TEN)
    (tmp_path / "julia").chmod(0o777)
    with pytest.raises(CacheError, match="others may write in"):
        builds(tmp_path / "julia", host.versions).obtain(TEN)


def test_a_folder_that_cannot_be_made(host: JuliaHost, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"Not a directory.*XDG_CACHE_HOME"):
        builds(tmp_path / "file/julia", host.versions).obtain(TEN)


def test_a_full_disk_leaves_nothing(host: JuliaHost, tmp_path: Path) -> None:
    host.add("1.10.11", archive("1.10.11", files={"share/large": "0" * 1_000_000}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        refused(host, tmp_path / "julia", CacheError, r"cannot be unpacked \(File too large\); make room in")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(builds(tmp_path / "julia", host.versions).obtain(TEN).archive.version) == "1.10.11"


def test_an_archive_that_the_user_brings(host: JuliaHost, tmp_path: Path) -> None:
    path = tmp_path / "mine.tar.gz"
    path.write_bytes(archive("1.11.1"))
    host.close()
    mine = builds(tmp_path / "julia", host.versions)
    found = mine.bring(str(path))
    assert (str(found.archive.version), found.archive.sha256) == ("1.11.1", Sha256.of(path.read_bytes()))
    assert mine.bring(str(path)) == found
    # Nobody vouches for it, so it is not what "1.11" means.
    assert mine.cached(JuliaRequest("1.11")) is None
    for content, says in (
        (b"text", "cannot be read as an archive"),
        (archive("1.11.1", top="stuff"), "holds stuff, not julia-VERSION"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=says):
            mine.bring(str(path))
    with pytest.raises(ConfigurationError, match="No such file"):
        mine.bring(str(tmp_path / "none.tar.gz"))


def test_the_record_reads_back(tmp_path: Path) -> None:
    one = Archive(version=JuliaVersion.parse("1.12.0-rc1"), url="https://x/y", sha256=Sha256.of(b"1"), size=7)
    made = Unpacked(archive=one, tree="a" * 40, folder=str(tmp_path))
    (tmp_path / "official.json").write_bytes(made.to_bytes())
    assert Unpacked.read(str(tmp_path)) == made
    (tmp_path / "official.json").write_bytes(made.to_bytes().replace(b'"size":7', b'"size":"7"'))
    with pytest.raises(CorruptError, match="size is not a whole number"):
        Unpacked.read(str(tmp_path))


def test_what_is_named_comes_before_the_version(host: JuliaHost, tmp_path: Path) -> None:
    mine = builds(tmp_path / "julia", host.versions)
    env = {"PATH": "/usr/bin:/bin"}
    path = tmp_path / "own.tar.gz"
    path.write_bytes(archive("1.10.2"))
    install, origin = settle(Wish(given=str(path), wanted="1.10"), env, run_process, mine)
    assert isinstance(origin, Archive)
    assert (str(install.probe.version), origin.url) == ("1.10.2", f"file://{path}")
    assert host.asked == []
    other = {**env, "HEADSTART_JULIA": install.program}
    again, found = settle(Wish(given="", wanted="1.10"), other, run_process, mine)
    assert (again.program, found) == (install.program, Found())
    install, origin = settle(Wish(given="", wanted="1.10"), env, run_process, mine)
    assert isinstance(origin, Archive)
    assert str(install.probe.version) == "1.10.10"
    assert install.private
    with pytest.raises(MissingToolError, match=r"is Julia 1\.10\.2, but the project asks for 1\.11"):
        settle(Wish(given=str(path), wanted="1.11"), env, run_process, mine)
    beside = {"PATH": f"{os.path.dirname(again.program)}:/usr/bin:/bin"}
    for wanted in ("system", ""):
        assert settle(Wish(given="", wanted=wanted), beside, run_process, mine)[1] == Found()


def test_an_archive_that_is_not_what_it_is_called(host: JuliaHost, tmp_path: Path) -> None:
    host.add("1.10.11", archive("1.10.2"))
    mine = builds(tmp_path / "julia", host.versions)
    host.add("1.10.12", archive("1.10.2", top="julia-1.10.12"))
    with pytest.raises(CorruptError, match=r"is called 1\.10\.12 but is Julia 1\.10\.2"):
        settle(Wish(given="", wanted="1.10"), {"PATH": "/usr/bin:/bin"}, run_process, mine)


def test_without_network_it_says_what_to_do(host: JuliaHost, tmp_path: Path) -> None:
    mine = builds(tmp_path / "julia", host.versions)
    host.close()
    env = {"PATH": "/usr/bin:/bin"}
    with pytest.raises(UnavailableError) as caught:
        settle(Wish(given="", wanted="1.10"), env, run_process, mine)
    assert str(caught.value) == (
        f"Julia 1.10 is not kept in {tmp_path}/julia, "
        f"and {host.versions} cannot be reached (Connection refused); "
        "name a Julia with --julia PROGRAM or bring an official archive with --julia julia-VERSION.tar.gz, "
        'or say julia = "system" in Headstart.toml'
    )
    near = tmp_path / "near"
    run_process_made = tmp_path / "x.tar.gz"
    run_process_made.write_bytes(archive("1.10.2"))
    subprocess.run(["tar", "xzf", run_process_made, "-C", tmp_path], check=True)
    (tmp_path / "julia-1.10.2").rename(near)
    env = {"PATH": f"{near}/bin:/usr/bin:/bin"}
    with pytest.raises(
        UnavailableError, match=rf"Julia 1\.10\.2 is on this machine: build with --julia {near}"
    ):
        settle(Wish(given="", wanted="1.10"), env, run_process, mine)


def test_refresh_without_network_names_what_is_kept(host: JuliaHost, tmp_path: Path) -> None:
    mine = builds(tmp_path / "julia", host.versions)
    mine.obtain(TEN)
    host.close()
    with pytest.raises(UnavailableError, match=r"Julia 1\.10\.10 is kept here: build without --refresh"):
        settle(Wish(given="", wanted="1.10", refresh=True), {"PATH": "/usr/bin:/bin"}, run_process, mine)


def test_without_juliapkg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = builds(tmp_path / "julia", "")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(MissingToolError, match="juliapkg, which fetches Julia, failed: exit code 1"):
        mine.obtain(TEN)


def test_a_prerelease_names_a_tree() -> None:
    for text in ("1.5.3", "1.12.0-rc1", "1.13.0-DEV.123", "1.12.0-rc1+0.x64"):
        assert str(JuliaName(f"{text}-0123456789ab")) == f"{text}-0123456789ab"
    for text in ("1.5", "1.12.0-rc1/..", "-1.5.3", "1.5.3 "):
        with pytest.raises(ConfigurationError, match="name of a Julia tree"):
            JuliaName(f"{text}-0123456789ab")


def preview(capsys: pytest.CaptureFixture[str], project: Path, *words: str) -> tuple[int, str, str]:
    """The exit code, data and talk of a dry run."""
    base = ["build", str(project), "--stage", str(project.parent / "stage"), "--repository", "a.example.org"]
    code = main([*base, "--dry-run", *words])
    return code, *capsys.readouterr()


def test_the_plan_names_the_archive_and_the_release_depends_on_it(
    host: JuliaHost, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = write_project(tmp_path / "project", Headstart_toml=f'julia = "1.10"\n{SETTINGS}')
    monkeypatch.delenv("HEADSTART_JULIA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HEADSTART_JULIA_VERSIONS", host.versions)
    code, out, err = preview(capsys, project)
    sha256 = Sha256.of(archive("1.10.10")).hex
    assert code == 0
    assert f"\nsha256     {sha256}\n" in out
    assert f"\narchive    {host.url}/bin/linux/x64/julia-1.10.10-linux" in out
    assert "fetching Julia 1.10.10" in err
    host.add("1.10.10", archive("1.10.10", files={"LICENSE.md": "other"}))
    code, out, err = preview(capsys, project, "--json")
    one = json.loads(out)
    assert (code, err, one["julia_archive"]["sha256"]) == (0, "", sha256)
    _, out, _ = preview(capsys, project, "--json", "--refresh")
    two = json.loads(out)
    assert two["julia_archive"]["sha256"] == Sha256.of(host.pages[host.asked[-1]]).hex
    assert len({one["release"], two["release"]}) == 2
    host.close()
    assert preview(capsys, project, "--refresh")[0] == UnavailableError.exit_code == 21
    code, out, _ = preview(
        capsys, project, "--json", "--julia", os.path.join(_kept(tmp_path), "julia/bin/julia")
    )
    assert (code, json.loads(out)["julia_archive"]) == (0, None)


def _kept(folder: Path) -> str:
    return str(min((folder / "cache/headstart/julia").glob("1.10.10-*")))


@pytest.mark.parametrize("text", ["newest", "1.10.x", "^1.10"])
def test_a_version_that_is_none_names_the_file_and_the_key(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = write_project(tmp_path / "project", Headstart_toml=f'julia = "{text}"\n{SETTINGS}')
    code, out, err = preview(capsys, project)
    assert (code, out) == (ConfigurationError.exit_code, "")
    assert f"{project}/Headstart.toml: julia: {text!r} is no version of Julia; write it like" in err
