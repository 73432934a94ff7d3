"""The example stack on stock Julia: its own tests, FastJet's jets, its bytes, its manners."""

import gzip
import json
from pathlib import Path

import pytest

from juliahelp import JETS, JETS_PACKAGES, REPO, StockJulia

pytestmark = pytest.mark.slow

SHARED = REPO.parent / "shared" / "data"
SAMPLE = JETS / "data" / "events.hepmc3"


@pytest.fixture(scope="module")
def jets(julia: StockJulia) -> StockJulia:
    """Julia with the packages precompiled, leaf first."""
    done = julia.run("-e", "using " + ", ".join(JETS_PACKAGES))
    assert done.returncode == 0, done.stderr
    return julia


@pytest.mark.parametrize("package", JETS_PACKAGES)
def test_packages_pass_their_own_tests(jets: StockJulia, package: str) -> None:
    done = jets.run(str(JETS / "packages" / package / "test" / "runtests.jl"))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Test Summary:" in done.stdout


def test_jets_are_fastjets(jets: StockJulia, tmp_path: Path) -> None:
    events = SHARED / "events.eeH.hepmc3.gz"
    if not events.exists():
        pytest.skip("the events with FastJet's jets are not beside this checkout")
    out = tmp_path / "jets.json"
    done = jets.run(str(JETS / "jets.jl"), "--p=-1", "--R=1.0", "--ptmin=5", "--json", str(out), str(events))
    assert done.returncode == 0, done.stderr
    ours = json.loads(out.read_text())
    fastjets = json.loads((SHARED / "jet-collections-fastjet-inclusive-EEKt-p-1-R1.0.json").read_text())
    assert len(fastjets) == 100
    assert [e["jetid"] for e in ours] == [e["jetid"] for e in fastjets]
    for mine, reference in zip(ours, fastjets, strict=True):
        assert len(mine["jets"]) == len(reference["jets"]), reference["jetid"]
        for jet, expected in zip(mine["jets"], reference["jets"], strict=True):
            assert jet["rap"] == pytest.approx(expected["rap"], rel=0, abs=1e-7)
            assert jet["phi"] == pytest.approx(expected["phi"], rel=0, abs=1e-7)
            assert jet["pt"] == pytest.approx(expected["pt"], rel=1e-7, abs=0)


def test_generator_writes_the_shipped_bytes(jets: StockJulia, tmp_path: Path) -> None:
    out = tmp_path / "events.hepmc3"
    done = jets.run(str(JETS / "generate.jl"), str(out))
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == SAMPLE.read_bytes()
    assert SAMPLE.stat().st_size <= 500_000


def test_report_of_the_shipped_events(jets: StockJulia) -> None:
    done = jets.run(str(JETS / "jets.jl"), str(SAMPLE), "--scan")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("events.hepmc3: 200 events at 250 GeV; generalised kt, p = -1.0, R = 1.0")
    assert "entries 200, in range 200.00" in done.stdout
    assert "best resolution: " in done.stdout


def test_smoke_and_workload_succeed(jets: StockJulia) -> None:
    smoke = jets.run(str(JETS / "smoke.jl"))
    assert (smoke.returncode, smoke.stderr) == (0, "")
    assert smoke.stdout.startswith("events.hepmc3: 20 events")
    workload = jets.run(str(JETS / "workload.jl"))
    assert workload.returncode == 0, workload.stderr
    assert "Durham" in workload.stdout


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((), "one FILE is needed, 0 are given"),
        (("--R", "wide", "f"), '--R should be a number above 0 and at most 2π, not "wide"'),
        (("--what", "f"), "unknown option --what"),
    ],
)
def test_bad_arguments_are_one_sentence(jets: StockJulia, args: tuple[str, ...], sentence: str) -> None:
    done = jets.run(str(JETS / "jets.jl"), *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"jets: {sentence}; --help lists the options\n"


def test_missing_file_is_one_sentence(jets: StockJulia, tmp_path: Path) -> None:
    done = jets.run(str(JETS / "jets.jl"), str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"jets: {tmp_path}/none: no such file\n"


def test_truncated_file_is_refused_by_line(jets: StockJulia, tmp_path: Path) -> None:
    lines = SAMPLE.read_text().splitlines(keepends=True)
    cut = tmp_path / "cut.hepmc3"
    cut.write_text("".join(lines[:1000]))
    done = jets.run(str(JETS / "jets.jl"), str(cut))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"jets: {cut}, line 1000: the file is truncated: it ends inside event ")


def test_truncated_gzip_is_refused(jets: StockJulia, tmp_path: Path) -> None:
    packed = gzip.compress(SAMPLE.read_bytes(), mtime=0)
    cut = tmp_path / "cut.hepmc3.gz"
    cut.write_bytes(packed[: len(packed) // 2])
    done = jets.run(str(JETS / "jets.jl"), str(cut))
    assert (done.returncode, done.stdout) == (3, "")
    assert "gzip cannot read it to the end" in done.stderr
