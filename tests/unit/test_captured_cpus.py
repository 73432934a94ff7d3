"""The choice of an image on machines whose ``/proc/cpuinfo`` was captured, in Python and in the script.

The captures are those that archspec brings along for its own tests, read where it is installed; each is named
after what its people call the processor. ``HEADSTART_TEST_CPUINFO`` names a folder of more of them, one file
each: what they are to get is not known, but Python and the script have to agree on it.
"""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import releases
from headstart.errors import IncompatibleError
from headstart.microarchitecture import flags_of, select
from headstart.release import ImageRecord
from levels import arm_images, x86_images

archspec = pytest.importorskip("archspec", reason="archspec is not installed")

PLACE = Path(archspec.__file__).parent / "json" / "tests" / "targets"
JULIA = "1.12.2"
WANTED = {
    "linux-scientific7-k10": "x86-64",
    "linux-scientificfermi6-bulldozer": "x86-64-v2", "linux-rhel6-piledriver": "x86-64-v2",
    "linux-scientific7-piledriver": "x86-64-v2", "linux-scientificfermi6-piledriver": "x86-64-v2",
    "linux-rhel7-ivybridge": "x86-64-v2",
    "linux-rhel7-haswell": "x86-64-v3", "linux-rhel7-broadwell": "x86-64-v3",
    "linux-ubuntu18.04-broadwell": "x86-64-v3", "linux-rhel7-x86_64_v3": "x86-64-v3",
    "linux-rhel7-zen": "x86-64-v3", "linux-ubuntu20.04-zen3": "x86-64-v3",
    "linux-ubuntu24.04-alderlake": "x86-64-v3",
    "linux-rhel7-skylake_avx512": "x86-64-v4", "linux-centos7-cascadelake": "x86-64-v4",
    "linux-unknown-sapphirerapids": "x86-64-v4", "linux-rocky8.5-zen4": "x86-64-v4",
    "linux-rocky9-zen5": "x86-64-v4", "linux-rocky9-zen6": "x86-64-v4",
    "linux-ubuntu26.04-arrowlake_s": "x86-64-v3",
    "linux-amazon-cortex_a72": "aarch64",
    "linux-centos7-thunderx2": "armv8.1-a", "linux-rocky8-a64fx": "armv8.1-a",
    "linux-amazon-neoverse_n1": "armv8.2-a", "linux-asahi-m1": "armv8.2-a", "linux-asahi-m2": "armv8.2-a",
    "linux-ubuntu22.04-ampere1": "armv8.2-a", "linux-ubuntu22.04-ampere1a": "armv8.2-a",
    "linux-amazon-neoverse_v1": "armv8.4-a+sve", "linux-rhel8-neoverse_v1": "armv8.4-a+sve",
    "linux-rhel9-neoverse_n2": "armv9-a", "linux-ubuntu22.04-neoverse_n2": "armv9-a",
    "linux-rhel9-neoverse_v2": "armv9-a", "linux-ubuntu22.04-neoverse_v2": "armv9-a",
    "linux-unknown-neoverse_v2": "armv9-a", "linux-ubuntu24.04-neoverse_v3ae": "armv9-a",
    "linux-ubuntu26.04-olympus": "armv9-a",
    "linux-centos7-power8le": "none", "linux-rhel8-power9": "none", "linux-unknown-power10": "none",
    "linux-sifive-u74mc": "none", "linux-spacemit-x60": "none", "linux-debian13-x60": "none",
}  # fmt: skip
"""By the capture's name: the image that it is to get; none for a machine of another kind."""


def captures() -> dict[str, Path]:
    """Those that are here, by name."""
    more = os.environ.get("HEADSTART_TEST_CPUINFO")
    folders = (PLACE, Path(more)) if more else (PLACE,)
    found = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    return {
        path.name: path for path in found if path.is_file() and not path.name.startswith(("darwin", "windows"))
    }


CAPTURES = captures()


def images() -> tuple[ImageRecord, ...]:
    """A release for both kinds of machine: a feature of one is never a feature of the other."""
    return x86_images(JULIA) + arm_images()


def text_of(name: str) -> str:
    return CAPTURES[name].read_text(encoding="utf-8", errors="surrogateescape")


def answer(name: str) -> str:
    """What the choice says, or the reason why there is none."""
    try:
        return select(flags_of(text_of(name)), images()).explain()
    except IncompatibleError as error:
        return str(error)


@pytest.mark.parametrize("name", WANTED)
def test_each_machine_gets_its_image(name: str) -> None:
    if name not in CAPTURES:
        pytest.skip("the archspec that is installed brings no such capture")
    if WANTED[name] == "none":
        with pytest.raises(IncompatibleError):
            select(flags_of(text_of(name)), images())
    else:
        assert select(flags_of(text_of(name)), images()).chosen.target == WANTED[name]


@pytest.mark.skipif(not CAPTURES, reason="the archspec that is installed brings no captures")
def test_the_script_chooses_the_same(tmp_path: Path) -> None:
    made = releases.write_stage(tmp_path, replace(releases.release(()), images=images()), image_size=20)
    script = tmp_path / "stacks" / "jets" / str(made.id) / "bin" / "julia"
    for name, path in CAPTURES.items():
        env = {"HEADSTART_CPUINFO": str(path), "PATH": "/usr/bin:/bin"}
        done = subprocess.run([script], env=env, capture_output=True, check=False, timeout=60, text=True)
        assert f": {answer(name)}\n" in done.stderr.replace(str(path), "/proc/cpuinfo"), name


@pytest.mark.skipif(not PLACE.is_dir(), reason="the archspec that is installed brings no captures")
def test_archspecs_name_stands_for_the_same_level() -> None:
    """Each x86 capture's name is a processor whose own level is the one of the image."""
    cpu = pytest.importorskip("archspec.cpu")
    compared = 0
    for name in WANTED.keys() & CAPTURES.keys():
        found = cpu.TARGETS[name.rpartition("-")[2]]
        family = [one.name for one in (found, *found.ancestors) if one.vendor == "generic"]
        if found.family.name != "x86_64":
            continue
        assert family[0].replace("x86_64_", "x86-64-").replace("x86_64", "x86-64") == WANTED[name], name
        compared += 1
    assert compared >= 15
