"""The choice of an image on known processors and virtual machines, beside archspec's answer.

All of them are synthesised: a processor's flags are those of archspec's table in the kernel's words, a virtual
machine's are a processor's less what its hypervisor hides. The images are those of ``data/targets.toml`` for a
Julia, so what counts is what their code uses, and not only their level's name.
"""

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import releases
from headstart.errors import IncompatibleError
from headstart.microarchitecture import LEVELS, flags_of, select
from levels import x86_images

archspec = pytest.importorskip("archspec.cpu", reason="archspec is not installed")
detect = pytest.importorskip("archspec.cpu.detect")

UNLISTED = {
    "cx16": ("nocona", "core2"),
    "fsgsbase": (
        "ivybridge", "haswell", "broadwell", "skylake", "mic_knl", "skylake_avx512", "cannonlake",
        "cascadelake", "icelake", "sapphirerapids", "alderlake",
    ),
}  # fmt: skip
"""What these processors have, and archspec's table does not say because its names do not depend on it."""
ALWAYS = frozenset(
    [
        "fpu",
        "cmov",
        "cx8",
        "fxsr",
        "lm",
        "mmx",
        "sse",
        "sse2",
        "syscall",
        "nx",
        "ht",
        "vme",
        "de",
        "pse",
        "tsc",
        "msr",
        "pae",
        "mce",
    ]
)
"""What archspec takes for granted."""

PROCESSORS = {
    "x86_64": "none", "x86_64_v2": "x86-64-v2", "x86_64_v3": "x86-64-v3", "x86_64_v4": "x86-64-v4",
    "nocona": "x86-64", "core2": "x86-64", "nehalem": "x86-64-v2", "westmere": "x86-64-v2",
    "sandybridge": "x86-64-v2", "ivybridge": "x86-64-v2", "haswell": "x86-64-v3", "broadwell": "x86-64-v3",
    "skylake": "x86-64-v3", "mic_knl": "x86-64-v3", "skylake_avx512": "x86-64-v4", "cannonlake": "x86-64-v4",
    "cascadelake": "x86-64-v4", "icelake": "x86-64-v4", "sapphirerapids": "x86-64-v4", "alderlake": "x86-64-v3",
    "k10": "x86-64", "bulldozer": "x86-64-v2", "piledriver": "x86-64-v2", "steamroller": "x86-64-v2",
    "excavator": "x86-64-v3", "zen": "x86-64-v3", "zen2": "x86-64-v3", "zen3": "x86-64-v3",
    "zen4": "x86-64-v4", "zen5": "x86-64-v4",
}  # fmt: skip
"""By archspec's name: the image of Julia 1.12 that it is to get.

The first AMD64 processors lack CMPXCHG16B, without which no Julia starts (``src/processor_x86.cpp``, 1.10:905).
"""

AVX512 = frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])
XSAVE = frozenset(["xsave", "avx", "avx2", "f16c", "fma", "xsavec", "xsaveopt", "xsaves"]) | AVX512


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """A virtual machine, or a kernel, that hides features of a processor."""

    title: str
    processor: str
    hidden: frozenset[str]
    wanted: str
    """The image of Julia 1.12."""
    archspec: str
    """What archspec calls it."""


MASKED = (
    Masked(title="EPYC Rome whose cloud hides clwb", processor="zen2", hidden=frozenset({"clwb"}),
           wanted="x86-64-v3", archspec="zen"),
    Masked(title="EPYC Milan whose cloud hides pku", processor="zen3", hidden=frozenset({"pku"}),
           wanted="x86-64-v3", archspec="zen2"),
    Masked(title="EPYC Genoa without AVX-512", processor="zen4", hidden=AVX512, wanted="x86-64-v3",
           archspec="zen3"),
    Masked(title="EPYC Genoa without AVX512VL", processor="zen4", hidden=frozenset({"avx512vl"}),
           wanted="x86-64-v3", archspec="zen3"),
    Masked(title="Skylake without XSAVE", processor="skylake_avx512", hidden=XSAVE, wanted="x86-64-v2",
           archspec="westmere"),
    Masked(title="Skylake without AVX-512", processor="skylake_avx512", hidden=AVX512, wanted="x86-64-v3",
           archspec="skylake"),
    Masked(title="Cascade Lake without avx512_vnni", processor="cascadelake",
           hidden=frozenset({"avx512_vnni"}), wanted="x86-64-v4", archspec="skylake_avx512"),
    Masked(title="Ice Lake whose cloud hides gfni and vaes", processor="icelake",
           hidden=frozenset({"gfni", "vaes"}), wanted="x86-64-v4", archspec="cascadelake"),
    Masked(title="Haswell without MOVBE", processor="haswell", hidden=frozenset({"movbe"}),
           wanted="x86-64-v2", archspec="ivybridge"),
    Masked(title="Haswell without LZCNT", processor="haswell", hidden=frozenset({"abm"}),
           wanted="x86-64-v2", archspec="ivybridge"),
    Masked(title="Haswell without BMI2", processor="haswell", hidden=frozenset({"bmi2"}),
           wanted="x86-64-v2", archspec="ivybridge"),
    Masked(title="Broadwell without FSGSBASE", processor="broadwell", hidden=frozenset({"fsgsbase"}),
           wanted="x86-64-v3", archspec="broadwell"),
    Masked(title="Nehalem without POPCNT", processor="nehalem", hidden=frozenset({"popcnt"}),
           wanted="x86-64", archspec="core2"),
    Masked(title="Westmere without CMPXCHG16B", processor="westmere", hidden=frozenset({"cx16"}),
           wanted="none", archspec="core2"),
    Masked(title="Sandy Bridge without AVX", processor="sandybridge", hidden=frozenset({"avx"}),
           wanted="x86-64-v2", archspec="westmere"),
    Masked(title="Zen that hides LAHF", processor="zen", hidden=frozenset({"lahf_lm"}), wanted="x86-64",
           archspec="x86_64"),
)  # fmt: skip

DIFFER = {
    # Machine and Julia: our image, and the level that archspec's answer belongs to. Ours is right in each.
    # The code of these images is Haswell's to the letter and may use FSGSBASE, which no level asks for.
    ("Broadwell without FSGSBASE", "1.10.6"): ("x86-64-v2", "x86-64-v3"),
    ("x86_64_v3", "1.10.6"): ("x86-64-v2", "x86-64-v3"),
    ("x86_64_v4", "1.10.6"): ("x86-64-v2", "x86-64-v4"),
    # No Julia starts without CMPXCHG16B, which the levels ask for from x86-64-v2 on.
    ("x86_64", "1.10.6"): ("none", "x86-64"),
    ("x86_64", "1.12.2"): ("none", "x86-64"),
    ("Westmere without CMPXCHG16B", "1.10.6"): ("none", "x86-64"),
    ("Westmere without CMPXCHG16B", "1.12.2"): ("none", "x86-64"),
}
MACHINES = [*PROCESSORS, *(one.title for one in MASKED)]
JULIAS = ["1.10.6", "1.12.2"]


def processor_of(machine: str) -> tuple[str, frozenset[str], str, str]:
    """Archspec's name, what is hidden of it, the image that it is to get, and what archspec calls that."""
    for one in MASKED:
        if one.title == machine:
            return one.processor, one.hidden, one.wanted, one.archspec
    return machine, frozenset(), PROCESSORS[machine], machine


def cpuinfo_of(machine: str) -> str:
    """What the kernel shows there, in its layout."""
    name, hidden, _, _ = processor_of(machine)
    known = archspec.TARGETS[name]
    features = {"pni" if feature == "sse3" else feature for feature in known.features} | ALWAYS
    features |= {feature for feature, names in UNLISTED.items() if name in names}
    more = " hypervisor" if hidden else ""
    vendor = known.vendor if known.vendor != "generic" else "HygonGenuine"
    flags = " ".join(sorted(features - hidden))
    one = f"vendor_id\t: {vendor}\nmodel name\t: {machine}\nflags\t\t: {flags}{more}\n"
    return f"processor\t: 0\n{one}bugs\t\t: spectre_v1\n\nprocessor\t: 1\n{one}\n"


def chosen(text: str, julia: str) -> str:
    try:
        return select(flags_of(text), x86_images(julia)).chosen.target
    except IncompatibleError:
        return "none"


def archspecs(text: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What archspec would call a machine that shows this."""
    vendor = next(line.partition(": ")[2] for line in text.splitlines() if line.startswith("vendor_id"))
    features = {"sse3" if flag == "pni" else flag for flag in flags_of(text)}
    monkeypatch.setattr(detect, "detected_info", lambda: detect.partial_uarch(vendor=vendor, features=features))
    monkeypatch.setattr(detect, "_machine", lambda: "x86_64")
    detect.host.cache_clear()
    try:
        return detect.host()
    finally:
        detect.host.cache_clear()


def level_of(found: Any) -> str:
    """The level that one of archspec's names belongs to."""
    generic = next(one for one in (found, *found.ancestors) if one.vendor == "generic")
    return str(generic.name).replace("x86_64_", "x86-64-").replace("x86_64", "x86-64")


@pytest.mark.parametrize("machine", MACHINES)
def test_each_machine_gets_its_image(machine: str) -> None:
    assert chosen(cpuinfo_of(machine), "1.12.2") == processor_of(machine)[2]


@pytest.mark.parametrize("machine", MACHINES)
def test_archspec_calls_it_as_expected(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert archspecs(cpuinfo_of(machine), monkeypatch).name == processor_of(machine)[3]


@pytest.mark.parametrize("julia", JULIAS)
@pytest.mark.parametrize("machine", MACHINES)
def test_where_archspec_and_the_choice_differ(
    machine: str, julia: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = cpuinfo_of(machine)
    theirs = level_of(archspecs(text, monkeypatch))
    assert (chosen(text, julia), theirs) == DIFFER.get((machine, julia), (theirs, theirs))


@pytest.mark.parametrize("julia", JULIAS)
def test_the_script_chooses_the_same(tmp_path: Path, julia: str) -> None:
    full = releases.release(tuple(LEVELS))
    made = releases.write_stage(tmp_path, replace(full, images=x86_images(julia)), image_size=20)
    script = tmp_path / "stacks" / "jets" / str(made.id) / "bin" / "julia"
    for machine in MACHINES:
        text = cpuinfo_of(machine)
        (tmp_path / "cpuinfo").write_text(text)
        env = {"HEADSTART_CPUINFO": str(tmp_path / "cpuinfo"), "PATH": "/usr/bin:/bin"}
        done = subprocess.run([script], env=env, capture_output=True, check=False, timeout=60, text=True)
        if chosen(text, julia) == "none":
            assert done.returncode == IncompatibleError.exit_code
        else:
            assert f": {select(flags_of(text), x86_images(julia)).explain()}\n" in done.stderr, machine


def test_the_corpus_is_large_enough() -> None:
    assert len({cpuinfo_of(machine) for machine in MACHINES}) >= 40
