"""``headstart explain`` on depots on disk, whose caches are made by hand."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import releases
from cachemaker import BASE, LEAF, Machine
from headstart.cli import main
from headstart.depotfiles import DepotFiles
from headstart.explain import plan_release


class Desk:
    """A machine's files on disk, its description, and the command over them."""

    def __init__(self, root: Path, capture: pytest.CaptureFixture[str], version: str = "1.11.1") -> None:
        self.root = root
        self.capture = capture
        self.machine = Machine(version)
        self.machine.start(stdlib=f"{root}/julia/share/julia/stdlib/v1.11")
        self.write()
        (root / "julia/share/julia").mkdir(parents=True, exist_ok=True)

    def write(self) -> None:
        for path, content in self.machine.files.content.items():
            place = self.root / path[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            when = round(self.machine.files.times.get(path, 1000.0) * 1e9)
            os.utime(place, ns=(when, when))
        (self.root / "julia.json").write_bytes(self.machine.session.to_bytes())

    @property
    def depot(self) -> Path:
        return self.root / "depot"

    def cache(self, name: str, ending: str = ".ji") -> Path:
        (found,) = self.depot.glob(f"compiled/*/{name}/*{ending}")
        return found

    def run(self, *words: str) -> tuple[int, str]:
        code = main(["explain", *words])
        return code, self.capture.readouterr().out

    def explain(self, *words: str) -> tuple[int, dict[str, Any]]:
        code, out = self.run(*self.words, "--json", *words)
        found: dict[str, Any] = json.loads(out)
        return code, found

    @property
    def words(self) -> tuple[str, ...]:
        given = ("--description", str(self.root / "julia.json"), "--project", str(self.depot / "project"))
        return (str(self.depot), *given)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path.resolve(), capsys)


def test_all_is_well(desk: Desk) -> None:
    code, found = desk.explain("--checksums")
    assert code == 0
    assert found["good"] is True
    assert (found["accepted"], found["rejected"], found["missing"]) == (2, 0, 0)
    assert [one["name"] for one in found["packages"]] == ["App", "Leaf"]
    assert found["packages"][1]["uuid"] == "11111111-1111-4111-8111-111111111111"
    assert found["packages"][1]["cache"] == str(desk.cache("Leaf"))
    assert found["depots"] == [str(desk.depot), str(desk.root / "julia/share/julia")]


def test_people_get_a_table_a_summary_and_advice(desk: Desk) -> None:
    source = desk.depot / "project/packages/Leaf/src/Leaf.jl"
    source.write_bytes(source.read_bytes() + b"# more\n")
    code, out = desk.run(*desk.words)
    assert code == 26
    lines = out.splitlines()
    assert lines[0].startswith("Julia 1.11.1, ")
    assert any(line.startswith("App   rejected  [18 dependency]") for line in lines)
    assert any(line.startswith("Leaf  rejected  [14 source-size]") for line in lines)
    assert "2 packages: 0 accepted, 2 rejected; checksums of native code not looked at" in lines
    assert any(line.startswith("  source-size: bring the source back") for line in lines)


def test_a_package_without_a_cache_counts(desk: Desk) -> None:
    for ending in (".ji", ".so"):
        desk.cache("Leaf", ending).unlink()
    code, found = desk.explain()
    assert code == 26
    assert {one["name"]: one["outcome"] for one in found["packages"]} == {"App": "rejected", "Leaf": "missing"}


def test_what_the_system_image_brings_is_only_counted(desk: Desk) -> None:
    desk.machine.start(modules={**desk.machine.session.modules, LEAF: 1})
    desk.machine.put(replace(desk.machine.app, requires=()))
    desk.write()
    code, found = desk.explain()
    assert (code, found["in_system_image"]) == (0, 1)
    assert [one["name"] for one in found["packages"]] == ["App"]


def test_native_code_alone_is_noted(desk: Desk) -> None:
    desk.cache("Leaf").unlink()
    code, found = desk.explain()
    assert code == 26
    assert any(note.endswith(".so has no .ji beside it: Julia never looks at it") for note in found["notes"])


def test_a_depot_of_another_system_image(desk: Desk) -> None:
    desk.machine.start(modules={**desk.machine.session.modules, BASE: 77})
    desk.write()
    code, out = desk.run(*desk.words)
    assert code == 26
    assert "[9 system-image]" in out
    assert "compile the caches under the very system image" in out


def test_a_depot_of_another_minor_version(desk: Desk) -> None:
    os.rename(desk.depot / "compiled/v1.11", desk.depot / "compiled/v1.9")
    code, found = desk.explain()
    assert code == 26
    assert found["missing"] == 2
    assert found["notes"] == [f"{desk.depot} has caches of v1.9, and none of v1.11"]


@pytest.mark.parametrize("version", ["1.10.6", "1.14.0-DEV"])
def test_a_cache_that_another_julia_wrote(desk: Desk, version: str) -> None:
    """Also where nothing else tells whose it is: its layout may not be known here."""
    cache = desk.cache("Leaf")
    spoiled = cache.read_bytes().replace(b"\x001.11.1\x00", b"\0" + version.encode() + b"\0", 1)
    cache.write_bytes(spoiled)
    (desk.depot / "project/Manifest.toml").unlink()
    _, found = desk.explain()
    (leaf,) = [one for one in found["packages"] if one["name"] == "Leaf"]
    assert (leaf["outcome"], leaf["rule"]) == ("rejected", "header")
    assert f"its version of Julia is {version}, the session's is 1.11.1" in leaf["detail"]


def test_a_julia_whose_caches_are_not_known(desk: Desk) -> None:
    said = json.loads((desk.root / "julia.json").read_text())
    (desk.root / "julia.json").write_text(json.dumps(said | {"version": "1.14.0-DEV"}))
    assert main(["explain", *desk.words]) == 13
    assert "this Headstart does not know the cache format of Julia 1.14.0-DEV" in desk.capture.readouterr().err


def test_without_a_project_nothing_is_looked_at(desk: Desk) -> None:
    code, out = desk.run(*desk.words[:3])
    assert code == 26
    assert "2 unused" in out
    assert "give --project" in out


def test_a_renamed_cache_is_noted(desk: Desk) -> None:
    cache = desk.cache("Leaf")
    cache.rename(cache.with_name("zzzzz_aaaaa.ji"))
    _, found = desk.explain()
    assert any("Julia does not look for that one here" in note for note in found["notes"])


def test_another_nodes_cpu(desk: Desk) -> None:
    cpuinfo = desk.root / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu sse2\n")
    code, found = desk.explain("--cpuinfo", str(cpuinfo))
    assert code == 26
    assert found["packages"][1]["rule"] == "cpu"
    assert "lacks avx2" in found["packages"][1]["detail"]


def test_checksums_of_native_code_on_request(desk: Desk) -> None:
    desk.cache("Leaf", ".so").write_bytes(b"other code!")
    assert desk.explain()[0] == 0
    code, found = desk.explain("--checksums")
    assert code == 26
    assert found["packages"][1]["rule"] == "native-checksum"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 10, "nothing to explain"),
        (("/nonexistent-depot",), 20, "is no directory, so no depot"),
        (("{depot}", "--target", "x86-64"), 10, "--target goes with a release"),
        (("{depot}", "--describe"), 10, "only describes a Julia"),
        (("{empty}",), 20, "no caches for Julia 1.11"),
        (("{depot}", "--", "-O3"), 10, "options of Julia belong to its description"),
        (("{depot}", "--cpuinfo", "/nonexistent"), 10, "/nonexistent is missing"),
    ],
)
def test_wrong_words_are_one_sentence(desk: Desk, words: tuple[str, ...], code: int, said: str) -> None:
    (desk.root / "empty").mkdir()
    filled = [word.format(depot=desk.depot, empty=desk.root / "empty") for word in words]
    place = filled.index("--") if "--" in filled else len(filled)
    given = ["--description", str(desk.root / "julia.json")]
    assert main(["explain", *filled[:place], *given, *filled[place:]]) == code
    err = desk.capture.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_spoiled_description_is_named(desk: Desk) -> None:
    (desk.root / "julia.json").write_text("{}")
    assert main(["explain", *desk.words]) == 18
    assert "julia.json is no record of Headstart's: it has no key schema" in desk.capture.readouterr().err


def test_a_lock_that_is_no_toml_is_named(desk: Desk) -> None:
    (desk.depot / "project/Manifest.toml").write_text("[[")
    assert main(["explain", *desk.words]) == 10
    assert "Manifest.toml is not TOML" in desk.capture.readouterr().err


def as_release(desk: Desk) -> Path:
    """The depot as the package images of a staged release."""
    made = releases.release(("x86-64",))
    made = replace(
        made,
        images=tuple(releases.packaged(image) for image in made.images),
        julia_version="1.11.1",
        relocatable=False,
    )
    home = desk.root / "stage" / made.path.removeprefix("/cvmfs/julia.example.org/")
    (home / "images/x86-64").mkdir(parents=True)
    os.rename(desk.depot / "compiled", home / "images/x86-64/compiled")
    os.rename(desk.depot / "project", home / "project")
    (home / "depot").mkdir()
    (home / "release.json").write_bytes(made.to_bytes())
    return home


def test_a_staged_release_is_seen_at_its_own_path(desk: Desk) -> None:
    """Recorded paths are those below ``/cvmfs``, where nothing is on this machine."""
    machine = desk.machine = Machine("1.10.6")
    made = releases.release(("x86-64",))
    for one in ("leaf", "app"):
        cache = getattr(machine, one)
        old = cache.dependencies[0]
        path = old.path.replace("/depot/project", f"{made.path}/project")
        machine.put(replace(cache, dependencies=(old._replace(path=path),)))
    desk.write()
    for path in desk.depot.glob("compiled/v1.11"):
        path.rename(desk.root / "away")
    home = as_release(desk)
    record = json.loads((home / "release.json").read_text())
    (home / "release.json").write_text(json.dumps(record | {"julia": record["julia"] | {"version": "1.10.6"}}))
    code, out = desk.run(str(home), "--description", str(desk.root / "julia.json"), "--json")
    found = json.loads(out)
    assert code == 0, found
    assert found["project"] == f"{made.path}/project"
    assert found["packages"][0]["cache"].startswith(f"{made.path}/images/x86-64/compiled/v1.10/App/")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda words: ["/tmp", *words], 10, "one release at a time"),
        (lambda words: [*words, "--project", "/p"], 10, "brings its own project"),
        (lambda words: [*words, "--target", "x86-64-v9"], 10, "asks for 'x86-64-v9'"),
        (lambda words: words[:1], 19, "bin/julia is not there"),
    ],
)
def test_wrong_words_for_a_release(
    desk: Desk, change: Callable[[list[str]], list[str]], code: int, said: str
) -> None:
    words = [str(as_release(desk)), "--description", str(desk.root / "julia.json")]
    assert main(["explain", *change(words)]) == code
    assert said in desk.capture.readouterr().err


def test_a_release_away_from_its_stage_is_refused(desk: Desk) -> None:
    home = as_release(desk)
    home.rename(desk.root / "alone")
    assert main(["explain", str(desk.root / "alone"), "--description", str(desk.root / "julia.json")]) == 10
    assert "is not where release" in desk.capture.readouterr().err


def test_a_plan_sees_what_a_sealed_start_sees() -> None:
    made = releases.release(("x86-64",))
    made = replace(made, images=tuple(releases.packaged(image) for image in made.images))
    session = Machine("1.5.3").session
    planned = plan_release(session, made, made.images[0], "/stage")
    assert planned.depots == (f"{made.path}/images/x86-64", *planned.depots[1:])
    assert planned.asked == planned.depots[:-1]
    assert planned.load_path == ("@", "@stdlib")
    assert (planned.seen, planned.there) == ("/cvmfs/julia.example.org", "/stage")
    mounted = plan_release(session, made, made.images[0], "/cvmfs/julia.example.org")
    assert (mounted.seen, mounted.there) == ("", "")


def test_odd_files_are_no_files(tmp_path: Path) -> None:
    """Neither pipes nor directories nor what cannot be named is read."""
    os.mkfifo(tmp_path / "pipe")
    files = DepotFiles()
    assert files.read(str(tmp_path)) is None
    assert files.read("a\0b") is None
    assert files.stat("a\0b") is None
    assert files.names(str(tmp_path / "pipe")) is None
    assert files.crc32c(str(tmp_path)) is None


def test_a_tree_seen_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    files = DepotFiles("/cvmfs/x.org", str(tmp_path))
    assert files.read("/cvmfs/x.org/file") == b"x"
    assert files.read("/cvmfs/x.organ/file") is None
    assert files.place("/cvmfs/x.org") == str(tmp_path)
