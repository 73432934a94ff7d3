"""Judging facts: whatever they are there is an answer, and each of them changes it as it should."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.doctor import Finding, Grade, diagnose, worst
from headstart.doctor.here import VARIABLES
from headstart.microarchitecture import LEVELS
from headstart.mountinfo import kind_of
from headstart.names import Fqrn
from headstart.nodefacts import (
    Facts,
    Fuse,
    Heard,
    Mount,
    Namespaces,
    Place,
    Processors,
    ProxyAnswer,
    Silence,
    Storage,
    Surroundings,
    Trouble,
    Way,
)
from headstart.route import DIRECT

NOW = datetime(2026, 11, 22, 20, 15, tzinfo=UTC)
V3 = LEVELS["x86-64-v3"]
FIRST, SECOND = (f"http://{name}.example.org/cvmfs/julia.example.org" for name in "ab")
SQUID = "http://squid:3128"
SILENCE = Silence(seconds=10.0)
TROUBLE = Trouble(code=21, text="cannot read it: Connection refused", hint="check the address")
HEARD = Heard(
    latency=0.02,
    offset=0.4,
    revision=7,
    published=NOW - timedelta(hours=1),
    ends=NOW + timedelta(days=20),
    trouble=None,
)
PROCESSORS = Processors(machine="x86_64", source="/proc/cpuinfo", flags=(V3,), model="A CPU")
NAMESPACES = Namespaces(why_not="", bwrap="", bwrap_works=False, switches={})
PLACE = Place(
    path="/home/me/.cache/headstart", origin="HOME", exists=True, trouble=None, unwritable="", kind="ext4",
    borrowed=False, free=10**11, size=10**12, free_files=10**7, noexec=False, read_only=False,
)  # fmt: skip
SURROUNDINGS = Surroundings(
    variables={"HOME": "/home/me"}, home="/home/me", entry=True, startup=(), julia="", temporary="", fast=True
)
FACTS = Facts(
    now=NOW, uid=1000, kernel="Linux 6.1", fqrn=Fqrn("julia.example.org"), source="julia.example.org",
    settings=None, seen=7, distrusted="", processors=PROCESSORS, namespaces=NAMESPACES,
    fuse=Fuse(device=True, helper="", client=""), mounts={}, place=PLACE, proxies={},
    ways={Way(server=FIRST, proxy=DIRECT): HEARD}, storage=None, surroundings=SURROUNDINGS,
)  # fmt: skip


def of(area: str, **changed: Any) -> list[Finding]:
    return [finding for finding in diagnose(replace(FACTS, **changed)) if finding.area == area]


def test_a_memory_that_others_may_write_is_told() -> None:
    assert of("memory") == []
    one("memory", Grade.WARNING, "/srv/seen", "neither read", "chmod go-w /srv/seen", distrusted="/srv/seen")
    one("memory", Grade.WARNING, r"'/srv/se\nen' is", distrusted="/srv/se\nen")


def one(area: str, grade: Grade, *words: str, **changed: Any) -> Finding:
    (found,) = [finding for finding in of(area, **changed) if finding.grade is grade]
    for word in words:
        assert word in f"{found.text} -> {found.todo}"
    return found


def test_a_healthy_node_has_nothing_to_complain_about() -> None:
    findings = diagnose(FACTS)
    assert worst(findings) is Grade.NOTE
    assert [finding.text for finding in findings if finding.grade is Grade.NOTE] == [
        "nothing is mounted below /cvmfs, so releases are fetched"
    ]
    assert worst(()) is Grade.GOOD


@pytest.mark.parametrize(
    ("flags", "machine", "grade", "words"),
    [
        ((LEVELS["x86-64-v4"],), "x86_64", Grade.GOOD, ("A CPU: x86-64-v4",)),
        ((V3,), "x86_64", Grade.GOOD, ("x86-64-v3; x86-64-v4 needs avx512bw avx512cd",)),
        (
            (V3 - {"movbe"} | {"hypervisor"},),
            "x86_64",
            Grade.WARNING,
            ("x86-64-v3 needs movbe", "host-passthrough"),
        ),
        ((V3 | {"hypervisor"},), "x86_64", Grade.GOOD, ("A CPU, virtual: x86-64-v3",)),
        ((frozenset({"fpu"}),), "x86_64", Grade.PROBLEM, ("below every level", "needs cmov")),
        ((), "x86_64", Grade.PROBLEM, ("names no CPU features", "mount /proc")),
        ((V3, V3 - {"avx2"}), "x86_64", Grade.WARNING, ("not all have avx2", "HEADSTART_TARGET")),
        ((frozenset({"fp", "asimd"}),), "aarch64", Grade.GOOD, ("2 features",)),
        ((V3,), "riscv64", Grade.PROBLEM, ("riscv64 is not supported",)),
    ],
)
def test_processors(
    flags: tuple[frozenset[str], ...], machine: str, grade: Grade, words: tuple[str, ...]
) -> None:
    one("cpu", grade, *words, processors=replace(PROCESSORS, flags=flags, machine=machine))


@pytest.mark.parametrize(
    ("asked", "grade", "word"),
    [
        ("x86-64-v2", Grade.NOTE, "whatever else there is"),
        ("x86-64-v4", Grade.PROBLEM, "lacks avx512bw"),
        ("zen4", Grade.NOTE, "refused (10)"),
    ],
)
def test_a_target_that_is_asked_for(asked: str, grade: Grade, word: str) -> None:
    around = replace(SURROUNDINGS, variables={"HEADSTART_TARGET": asked})
    one("cpu", grade, asked, word, surroundings=around)


@pytest.mark.parametrize(
    ("changed", "grade", "words"),
    [
        ({}, Grade.GOOD, ("at its own path",)),
        ({"why_not": "no (EPERM)", "bwrap": "/bin/bwrap", "bwrap_works": True}, Grade.GOOD, ("by /bin/bwrap",)),
        ({"why_not": "no"}, Grade.WARNING, ("bubblewrap is not installed", "seccomp")),
        (
            {"why_not": "no", "bwrap": "/bin/bwrap", "switches": {"user.max_user_namespaces": "0"}},
            Grade.WARNING,
            ("fails too", "sysctl user.max_user_namespaces=15000"),
        ),
        (
            {"why_not": "no", "switches": {"kernel.apparmor_restrict_unprivileged_userns": "1"}},
            Grade.WARNING,
            ("kernel.apparmor_restrict_unprivileged_userns=0",),
        ),
    ],
)
def test_namespaces(changed: dict[str, Any], grade: Grade, words: tuple[str, ...]) -> None:
    one("namespaces", grade, *words, namespaces=replace(NAMESPACES, **changed))


@pytest.mark.parametrize(
    ("changed", "area", "grade", "words"),
    [
        ({"exists": False}, "cache", Grade.GOOD, ("to be made",)),
        ({"trouble": TROUBLE}, "cache", Grade.PROBLEM, ("check the address",)),
        ({"noexec": True}, "cache", Grade.PROBLEM, ("noexec",)),
        ({"unwritable": "Disk quota exceeded"}, "cache", Grade.WARNING, ("quota exceeded; what is in it",)),
        ({"unwritable": "Read-only file system", "exists": False}, "cache", Grade.PROBLEM, ("cannot be made",)),
        ({"unwritable": "Permission denied", "borrowed": True}, "cache", Grade.NOTE, ("is root's",)),
        ({"kind": "nfs4"}, "cache", Grade.NOTE, ("is on nfs4",)),
        ({"free": 10**7}, "disk", Grade.PROBLEM, ("0.0 GB free", "make room")),
        ({"free": 10**9}, "disk", Grade.WARNING, ("1.0 GB free",)),
        ({"free_files": 3}, "disk", Grade.PROBLEM, ("3 files",)),
        ({"free_files": 5000}, "disk", Grade.WARNING, ("5000 files",)),
        ({"free_files": -1}, "disk", Grade.GOOD, ("100.0 GB free of 1000.0 GB of ext4",)),
        ({"kind": "tmpfs"}, "disk", Grade.NOTE, ("memory",)),
    ],
)
def test_cache_and_disk(changed: dict[str, Any], area: str, grade: Grade, words: tuple[str, ...]) -> None:
    one(area, grade, *words, place=replace(PLACE, **changed))


def test_a_server_among_others_is_a_warning_and_the_last_one_a_problem() -> None:
    first, second = (Way(server=server, proxy=DIRECT) for server in (FIRST, SECOND))
    one("strata", Grade.PROBLEM, "Connection refused", ways={first: TROUBLE})
    one("strata", Grade.PROBLEM, "no answer within 10 s", ways={first: SILENCE})
    one("strata", Grade.WARNING, "Connection refused", ways={first: TROUBLE, second: HEARD})
    assert [found.grade for found in of("strata", ways={first: TROUBLE, second: SILENCE})] == [
        Grade.PROBLEM
    ] * 2


@pytest.mark.parametrize(
    ("changed", "grade", "words"),
    [
        ({}, Grade.GOOD, ("20 ms, revision 7 of 2026-11-22 19:15 UTC, whitelist until 2026-12-12",)),
        ({"latency": 2.5}, Grade.WARNING, ("2500 ms", "slow", "nearer")),
        ({"ends": NOW + timedelta(hours=20)}, Grade.WARNING, ("resign",)),
        ({"ends": NOW, "trouble": replace(TROUBLE, hint="")}, Grade.PROBLEM, ("resign", "or this clock")),
        ({"trouble": TROUBLE}, Grade.PROBLEM, ("check the address",)),
        ({"revision": 6}, Grade.PROBLEM, ("has seen revision 7", "replication")),
    ],
)
def test_what_a_server_says(changed: dict[str, Any], grade: Grade, words: tuple[str, ...]) -> None:
    way = Way(server=FIRST, proxy=DIRECT)
    one("strata", grade, *words, ways={way: replace(HEARD, **changed)})


def test_a_server_behind_another_is_named() -> None:
    ways = {
        Way(server=FIRST, proxy=DIRECT): replace(HEARD, revision=7),
        Way(server=SECOND, proxy=DIRECT): replace(HEARD, revision=9),
    }
    one("strata", Grade.WARNING, FIRST, "another server has revision 9", ways=ways)


def test_proxies() -> None:
    good, dead = (ProxyAnswer(proxy=SQUID, error=error, seconds=0.002) for error in ("", "Connection refused"))
    direct, through = (Way(server=FIRST, proxy=proxy) for proxy in (DIRECT, SQUID))
    one("proxies", Grade.GOOD, "answers after 2 ms", proxies={SQUID: good})
    one("proxies", Grade.PROBLEM, "Connection refused", "HEADSTART_PROXY", proxies={SQUID: dead})
    one("proxies", Grade.WARNING, "no answer", proxies={SQUID: SILENCE, "http://other:3128": good})
    # It lives, and what it says is its own fault: the server is well.
    refused = {direct: HEARD, through: replace(TROUBLE, text="answers 403 Forbidden")}
    one("proxies", Grade.WARNING, "403", "access rules", proxies={SQUID: good}, ways=refused)
    assert [found.grade for found in of("strata", proxies={SQUID: good}, ways=refused)] == [Grade.GOOD]


@pytest.mark.parametrize(
    ("offsets", "grade", "words"),
    [
        ((0.4,), Grade.GOOD, ("within 1 s of that of",)),
        ((-300.0,), Grade.WARNING, ("is 5 min fast", "set the clock")),
        ((90000.0,), Grade.PROBLEM, ("is 25 h slow", "seems expired")),
        ((86400.0 * 400,), Grade.PROBLEM, ("400 days slow",)),
        ((1.0, 4000.0, 2.0), Grade.NOTE, ("its clock is 67 min fast",)),
        ((4000.0, 1.0), Grade.GOOD, ("within 1 s of the servers'",)),
        ((4000.0, 4001.0, 1.0), Grade.PROBLEM, ("67 min slow",)),
        ((None,), Grade.NOTE, ("no server said",)),
    ],
)
def test_the_clock(offsets: tuple[float | None, ...], grade: Grade, words: tuple[str, ...]) -> None:
    ways = {
        Way(server=f"http://{number}.example.org/cvmfs/x.y", proxy=DIRECT): replace(HEARD, offset=offset)
        for number, offset in enumerate(offsets)
    }
    one("clock", grade, *words, ways=ways)


@pytest.mark.parametrize(
    ("variables", "area", "grade", "words"),
    [
        (
            {"JULIA_LOAD_PATH": "/x", "LD_LIBRARY_PATH": "/y"},
            "julia",
            Grade.NOTE,
            ("JULIA_LOAD_PATH LD_LIBRARY_PATH",),
        ),
        ({"JULIA_NUM_THREADS": "4"}, "julia", Grade.NOTE, ("JULIA_NUM_THREADS: Julia is given",)),
        ({"LD_PRELOAD": "/x.so"}, "julia", Grade.WARNING, ("LD_PRELOAD=/x.so",)),
        ({"HEADSTART_TARGETS": "x"}, "settings", Grade.WARNING, ("HEADSTART_TARGETS: nothing reads it",)),
    ],
)
def test_variables(variables: dict[str, str], area: str, grade: Grade, words: tuple[str, ...]) -> None:
    one(area, grade, *words, surroundings=replace(SURROUNDINGS, variables=variables))


def test_what_is_around_julia() -> None:
    around = replace(SURROUNDINGS, home="", startup=("/x/startup.jl",), temporary="/gone: No such file")
    one("home", Grade.WARNING, "there is no home", surroundings=around)
    one("julia", Grade.WARNING, "/gone", surroundings=around)
    one("julia", Grade.NOTE, "/x/startup.jl is run by sessions", surroundings=around)
    one("python", Grade.NOTE, "isal", surroundings=replace(SURROUNDINGS, fast=False))


def test_mounts() -> None:
    path = "/cvmfs/julia.example.org"
    mount = Mount(path=path, kind="fuse", entries=3, error="", attributes={"revision": "7", "nioerr": "0"})
    one("mounts", Grade.GOOD, "fuse, revision 7", mounts={path: mount})
    one("mounts", Grade.WARNING, "12 I/O errors", mounts={path: replace(mount, attributes={"nioerr": "12"})})
    one("mounts", Grade.PROBLEM, "hangs", "cvmfs_config killall", mounts={path: SILENCE})
    gone = replace(mount, kind="", entries=0, error="Transport endpoint is not connected")
    one("mounts", Grade.PROBLEM, "not connected", mounts={path: gone}, ways={}, source=path)
    one("mounts", Grade.NOTE, "fetched", mounts={path: gone})


def test_a_directory() -> None:
    storage = Storage(directory="/srv/x", trouble=None, revision=9, ends=NOW + timedelta(days=9))
    one("strata", Grade.GOOD, "/srv/x: revision 9", ways={}, storage=storage)
    one("strata", Grade.WARNING, "resign", ways={}, storage=replace(storage, ends=NOW + timedelta(days=1)))
    one("strata", Grade.PROBLEM, "Connection refused", ways={}, storage=replace(storage, trouble=TROUBLE))
    one("strata", Grade.PROBLEM, "has seen revision 7", ways={}, storage=replace(storage, revision=3))
    one("strata", Grade.PROBLEM, "no answer", ways={}, storage=SILENCE)


def test_settings_that_are_wrong_are_a_problem() -> None:
    one("settings", Grade.PROBLEM, "Connection refused", "check the address", settings=TROUBLE)


TEXTS = st.sampled_from(["", "x", "Permission denied"])
SECONDS = st.floats(0, 100)
FLAGS = st.lists(st.sampled_from([V3, LEVELS["x86-64"], frozenset({"fp"}), V3 | {"hypervisor"}]), max_size=3)
SILENCES = st.builds(Silence, seconds=SECONDS)
TROUBLES = st.builds(Trouble, code=st.integers(1, 30), text=st.just("it fails"), hint=TEXTS)
WAYS = st.builds(Way, server=st.sampled_from([FIRST, SECOND]), proxy=st.sampled_from([DIRECT, SQUID]))
MOMENTS = st.integers(0, 4_000_000_000).map(partial(datetime.fromtimestamp, tz=UTC))
MAPS = st.dictionaries(
    st.sampled_from(["JULIA_X", "LD_PRELOAD", "HEADSTART_TARGET", "nioerr", "revision"]), TEXTS, max_size=3
)
HEARDS = st.builds(
    Heard, latency=SECONDS, offset=st.none() | st.floats(-1e10, 1e10), revision=st.integers(0, 99),
    published=MOMENTS, ends=MOMENTS, trouble=st.none() | TROUBLES,
)  # fmt: skip
"""Whoever is believed has a whitelist."""
PLACES = st.builds(
    Place, path=TEXTS, origin=TEXTS, exists=st.booleans(), trouble=st.none() | TROUBLES, unwritable=TEXTS,
    kind=st.sampled_from(["nfs", "tmpfs", "ext4"]), free=st.integers(0, 10**13), size=st.integers(0, 10**13),
    free_files=st.integers(-1, 10**9), noexec=st.booleans(), read_only=st.booleans(),
)  # fmt: skip
MOUNTS = st.builds(Mount, path=TEXTS, kind=TEXTS, entries=st.integers(0, 2), error=TEXTS, attributes=MAPS)
MACHINES = st.sampled_from(["x86_64", "aarch64", "mips"])
ANY = st.builds(
    Facts,
    now=MOMENTS,
    uid=st.integers(0, 9),
    kernel=TEXTS,
    fqrn=st.none() | st.just(Fqrn("julia.example.org")),
    source=TEXTS,
    settings=st.none() | TROUBLES,
    seen=st.integers(0, 99),
    processors=SILENCES | st.builds(Processors, machine=MACHINES, source=TEXTS, flags=FLAGS, model=TEXTS),
    namespaces=SILENCES
    | st.builds(Namespaces, why_not=TEXTS, bwrap=TEXTS, bwrap_works=st.booleans(), switches=MAPS),
    fuse=st.builds(Fuse, device=st.booleans(), helper=TEXTS, client=TEXTS),
    mounts=st.dictionaries(TEXTS, SILENCES | MOUNTS, max_size=2),
    place=SILENCES | PLACES,
    proxies=st.dictionaries(
        st.just(SQUID), SILENCES | st.builds(ProxyAnswer, proxy=TEXTS, error=TEXTS, seconds=SECONDS)
    ),
    ways=st.dictionaries(WAYS, SILENCES | TROUBLES | HEARDS, max_size=3),
    storage=st.none()
    | SILENCES
    | st.builds(Storage, directory=TEXTS, trouble=TROUBLES, revision=st.integers(0, 9), ends=st.none())
    | st.builds(Storage, directory=TEXTS, trouble=st.none(), revision=st.integers(0, 9), ends=MOMENTS),
    surroundings=st.builds(
        Surroundings, variables=MAPS, home=TEXTS, entry=st.booleans(), startup=st.lists(TEXTS, max_size=1),
        julia=TEXTS, temporary=TEXTS, fast=st.booleans(),
    ),
)  # fmt: skip
"""Whatever may be found."""


@given(ANY)
def test_there_is_a_finding_for_whatever_was_found(facts: Facts) -> None:
    findings = diagnose(facts)
    assert {"cpu", "kernel", "fuse", "cache", "julia"} <= {finding.area for finding in findings}
    for finding in findings:
        assert finding.text
        assert "\n" not in finding.text
        # What is wrong comes with what to do; what is right does not.
        if finding.grade in (Grade.WARNING, Grade.PROBLEM):
            assert finding.todo
        if finding.grade is Grade.GOOD:
            assert not finding.todo
    assert worst(findings) in {finding.grade for finding in findings}


@given(ANY)
def test_a_server_that_works_makes_none_of_them_a_problem(facts: Facts) -> None:
    well = replace(HEARD, revision=99, ends=facts.now + timedelta(days=9))
    better = replace(
        facts, ways={**facts.ways, Way(server="http://c.example.org/cvmfs/x.y", proxy=DIRECT): well}
    )
    found = [finding for finding in diagnose(replace(better, storage=None)) if finding.area == "strata"]
    assert worst(found) is not Grade.PROBLEM


MOUNTINFO = """\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
30 22 0:25 / /cvmfs rw - autofs /etc/auto.cvmfs rw
31 30 0:26 / /cvmfs/julia.example.org ro shared:7 master:1 - fuse cvmfs2 ro
32 22 0:27 / /with\\040space rw - tmpfs tmpfs rw
33 32 0:28 / /with\\040space rw - nfs4 server:/x rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/me", "ext4"),
        ("/cvmfs", "autofs"),
        ("/cvmfs/julia.example.org", "fuse"),
        ("/cvmfs/julia.example.org/x", "fuse"),
        ("/cvmfs/julia.example.organ", "autofs"),
        ("/with space/x", "nfs4"),
    ],
)
def test_the_kind_of_a_file_system(path: str, kind: str) -> None:
    assert kind_of(MOUNTINFO, path) == kind
    assert kind_of("", path) == ""


def test_every_setting_that_is_read_is_known() -> None:
    """Whoever reads another variable has to name it to the doctor, or he calls it a mistake."""
    package = Path(__file__).resolve().parents[2] / "src/headstart"
    texts = [path.read_text() for path in package.rglob("*.py")]
    read = {name for text in texts for name in re.findall(r'"HEADSTART_([A-Z0-9_]+)"', text)}
    between_a_build_and_its_julia = {"COUNTED", "LOADED", "SHARE", "WANTED"}
    assert "CACHE" in read
    assert read - between_a_build_and_its_julia <= VARIABLES
