"""The choice of an image on known 64-bit Arm processors and virtual machines, beside archspec's answer.

All of them are synthesised: a processor's features are those of archspec's table, which has the kernel's words,
or those that its maker documents; a virtual machine's are a processor's less what its hypervisor or its kernel
hides. No release for Arm is built by Headstart yet, so the images are what Julia would record for levels of the
architecture (``src/features_aarch64.h`` of 1.10), in ``/proc/cpuinfo``'s words.
"""

import functools
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import releases
from headstart.errors import ConfigurationError, IncompatibleError
from headstart.microarchitecture import flags_of, select
from headstart.surroundings import look_at_processors
from levels import ARM, V80, V82, arm_images

archspec = pytest.importorskip("archspec.cpu", reason="archspec is not installed")
detect = pytest.importorskip("archspec.cpu.detect")

CRYPTO = frozenset({"aes", "pmull", "sha1", "sha2"})
ALWAYS = frozenset({"cpuid", "evtstrm"})
SVE = frozenset({"sve", "sve2", "svebf16", "svei8mm"})
OWN: Mapping[str, frozenset[str]] = {
    "x-gene": V80,
    "cortex-a53": V80 | CRYPTO | {"crc32"},
    "bcm2711": V80 | {"crc32"},
    "cortex-a76": V82 | CRYPTO | {"lrcpc"},
    "kunpeng": V82 | CRYPTO | {"asimdfhm", "fcma", "jscvt"},
    "armv7": frozenset({"half", "thumb", "fastmult", "vfp", "edsp", "neon", "vfpv3", "vfpv4", "idiva", "lpae"}),
}
"""Processors that archspec's table lacks, or has more of than is sold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine, what it is made of, and what it is to get."""

    title: str
    processor: str
    """By archspec's name, or in ``OWN``."""
    implementer: str
    part: str
    wanted: str
    """The image; ``none`` where it can run none."""
    archspec: str
    """What archspec calls it."""
    hidden: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()
    """What it has beyond the processor's table."""

    @property
    def features(self) -> frozenset[str]:
        known = OWN.get(self.processor)
        found = frozenset(archspec.TARGETS[self.processor].features) if known is None else known | ALWAYS
        return (found | self.shown) - self.hidden

    @property
    def cpuinfo(self) -> str:
        """What the kernel shows there, in its layout."""
        one = (
            f"BogoMIPS\t: 243.75\nFeatures\t: {' '.join(sorted(self.features))}\n"
            f"CPU implementer\t: {self.implementer}\nCPU architecture: 8\nCPU variant\t: 0x1\n"
            f"CPU part\t: {self.part}\nCPU revision\t: 1\n"
        )
        return f"processor\t: 0\n{one}\nprocessor\t: 1\n{one}\n"


def machine(
    title: str, processor: str, identity: str, wanted: str, called: str, **more: frozenset[str]
) -> Machine:
    implementer, _, part = identity.partition("/")
    return Machine(
        title=title,
        processor=processor,
        implementer=implementer,
        part=part,
        wanted=wanted,
        archspec=called,
        **more,
    )


PAUTH = frozenset({"paca", "pacg"})
MACHINES = (
    machine("X-Gene 1", "x-gene", "0x50/0x000", "aarch64", "aarch64"),
    machine("Raspberry Pi 3 (A53 without crypto)", "bcm2711", "0x41/0xd03", "aarch64", "aarch64"),
    machine("Raspberry Pi 4 (A72 without crypto)", "bcm2711", "0x41/0xd08", "aarch64", "aarch64"),
    machine("Cortex-A53 with crypto", "cortex-a53", "0x41/0xd03", "aarch64", "cortex_a72"),
    machine("Graviton (A72)", "cortex_a72", "0x41/0xd08", "aarch64", "cortex_a72"),
    machine("Raspberry Pi 5 (A76)", "cortex-a76", "0x41/0xd0b", "armv8.2-a", "neoverse_n1"),
    machine("ThunderX2", "thunderx2", "0x43/0x0af", "armv8.1-a", "thunderx2"),
    machine("ThunderX2 as Broadcom Vulcan", "thunderx2", "0x42/0x516", "armv8.1-a", "aarch64"),
    machine("A64FX", "a64fx", "0x46/0x001", "armv8.1-a", "a64fx"),
    machine("Kunpeng 920", "kunpeng", "0x48/0xd01", "armv8.2-a", "aarch64"),
    machine("Graviton 2 (N1)", "neoverse_n1", "0x41/0xd0c", "armv8.2-a", "neoverse_n1"),
    machine("Ampere Altra (N1)", "neoverse_n1", "0x41/0xd0c", "armv8.2-a", "neoverse_n1",
            shown=frozenset({"ssbs"})),
    machine("Graviton 3 (V1)", "neoverse_v1", "0x41/0xd40", "armv8.4-a+sve", "neoverse_v1"),
    machine("Graviton 3, bare metal", "neoverse_v1", "0x41/0xd40", "armv8.4-a+sve", "neoverse_v1",
            shown=PAUTH | {"ssbs"}),
    machine("Graviton 3, kernel without SVE", "neoverse_v1", "0x41/0xd40", "armv8.2-a", "neoverse_n1",
            hidden=SVE),
    machine("Graviton 3, rng hidden", "neoverse_v1", "0x41/0xd40", "armv8.4-a+sve", "neoverse_n1",
            hidden=frozenset({"rng"})),
    machine("Cobalt 100 (N2)", "neoverse_n2", "0x41/0xd49", "armv9-a", "neoverse_n2"),
    machine("Graviton 4 (V2)", "neoverse_v2", "0x41/0xd4f", "armv9-a", "neoverse_v2"),
    machine("Grace (V2)", "neoverse_v2", "0x41/0xd4f", "armv9-a", "neoverse_v2",
            shown=PAUTH | {"bti", "dgh", "ecv", "sm3", "sm4", "ssbs", "sveaes", "svesha3", "svesm4"}),
    machine("Grace, guest without SVE2", "neoverse_v2", "0x41/0xd4f", "armv8.4-a+sve", "neoverse_n1",
            hidden=frozenset({"sve2"})),
    machine("Grace, guest without SVE", "neoverse_v2", "0x41/0xd4f", "armv8.2-a", "neoverse_n1", hidden=SVE),
    machine("Neoverse V3AE", "neoverse_v3ae", "0x41/0xd83", "armv9-a", "neoverse_v3ae"),
    machine("Vera (Olympus)", "olympus", "0x4e/0x010", "armv9-a", "olympus"),
    machine("AmpereOne", "ampere1", "0xc0/0xac3", "armv8.2-a", "ampere1"),
    machine("AmpereOne A", "ampere1a", "0xc0/0xac4", "armv8.2-a", "ampere1a"),
    machine("M1 under Asahi", "m1", "0x61/0x022", "armv8.2-a", "m1"),
    machine("M1 in a virtual machine", "m1", "0x61/0x000", "armv8.2-a", "m1"),
    machine("M1, ssbs and pauth hidden", "m1", "0x61/0x000", "armv8.2-a", "aarch64", hidden=PAUTH | {"ssbs"}),
    machine("M2 in a virtual machine", "m2", "0x61/0x000", "armv8.2-a", "m3"),
    machine("M4 in a virtual machine", "m4", "0x61/0x000", "armv8.2-a", "m4"),
    machine("QEMU, cortex-a57", "cortex-a53", "0x41/0xd07", "aarch64", "cortex_a72"),
    machine("32-bit kernel on Armv7", "armv7", "0x41/0xc07", "none", "aarch64"),
)  # fmt: skip
TITLES = [one.title for one in MACHINES]

ROUGH = {
    # Names that are known by more than what runs on them, so that one hidden feature costs all of them.
    "Kunpeng 920", "Graviton 3, rng hidden", "Grace, guest without SVE2", "M1, ssbs and pauth hidden",
    "ThunderX2 as Broadcom Vulcan",
}  # fmt: skip
"""Where archspec's name stands for less than the machine can do."""
BOLD = {
    # What it is called has the same features, and no harm is done.
    "Cortex-A53 with crypto", "QEMU, cortex-a57", "M2 in a virtual machine",
}  # fmt: skip
"""Where archspec's name is another processor's."""


def find(title: str) -> Machine:
    return next(one for one in MACHINES if one.title == title)


def chosen(text: str) -> str:
    try:
        return select(flags_of(text), arm_images()).chosen.target
    except IncompatibleError:
        return "none"


def archspecs(one: Machine, monkeypatch: pytest.MonkeyPatch) -> str:
    """What archspec would call it."""
    vendors = archspec.schema.TARGETS_JSON["conversions"]["arm_vendors"]
    vendor = vendors.get(one.implementer, "generic")
    info = detect.partial_uarch(vendor=vendor, features=set(one.features), cpu_part=one.part)
    monkeypatch.setattr(detect, "detected_info", lambda: info)
    monkeypatch.setattr(detect, "_machine", lambda: "aarch64")
    detect.host.cache_clear()
    try:
        return str(detect.host().name)
    finally:
        detect.host.cache_clear()


@functools.cache
def level_of(name: str) -> str:
    """The image that all features of one of archspec's names suffice for."""
    here: Any = archspec.TARGETS[name]
    return chosen(f"Features\t: {' '.join(sorted(here.features | V80))}\n")


@pytest.mark.parametrize("title", TITLES)
def test_each_machine_gets_its_image(title: str) -> None:
    assert chosen(find(title).cpuinfo) == find(title).wanted


@pytest.mark.parametrize("title", TITLES)
def test_archspec_calls_it_as_expected(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert archspecs(find(title), monkeypatch) == find(title).archspec


@pytest.mark.parametrize("title", TITLES)
def test_where_archspec_and_the_choice_differ(title: str) -> None:
    one = find(title)
    theirs, order = level_of(one.archspec), ["none", *ARM]
    if title in ROUGH:
        assert order.index(theirs) < order.index(one.wanted)
    elif one.wanted == "none":
        # It is asked for a 64-bit Arm processor, and takes for granted that it is one.
        assert theirs == "aarch64"
    else:
        assert theirs == one.wanted
    if title in BOLD:
        assert archspec.TARGETS[one.archspec].cpu_part != one.part


def test_the_script_chooses_the_same(tmp_path: Path) -> None:
    full = releases.release(())
    made = releases.write_stage(tmp_path, replace(full, images=arm_images()), image_size=20)
    script = tmp_path / "stacks" / "jets" / str(made.id) / "bin" / "julia"
    env = {"HEADSTART_CPUINFO": str(tmp_path / "cpuinfo"), "PATH": "/usr/bin:/bin"}

    def start(**more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([script], env=env | more, capture_output=True, check=False, timeout=60, text=True)

    for one in MACHINES:
        (tmp_path / "cpuinfo").write_text(one.cpuinfo)
        flags = flags_of(one.cpuinfo)
        assert look_at_processors(str(tmp_path / "cpuinfo")).flags == (flags,)
        if one.wanted == "none":
            assert start().returncode == IncompatibleError.exit_code
        else:
            assert f": {select(flags, arm_images()).explain()}\n" in start().stderr, one.title
    # The last one of each kind, asked for by name: checked all the same.
    for title, asked, code in (
        ("Graviton 2 (N1)", "armv9-a", IncompatibleError.exit_code),
        ("Graviton 2 (N1)", "neoverse-n1", ConfigurationError.exit_code),
        ("Grace (V2)", "armv8.1-a", 0),
    ):
        (tmp_path / "cpuinfo").write_text(find(title).cpuinfo)
        done = start(HEADSTART_TARGET=asked)
        assert done.returncode == code, done.stderr
        try:
            said = select(flags_of(find(title).cpuinfo), arm_images(), asked).explain()
        except (IncompatibleError, ConfigurationError) as error:
            said = str(error)
        assert said in done.stderr


def test_a_release_of_the_other_architecture_is_refused_with_the_reason() -> None:
    with pytest.raises(IncompatibleError, match="aarch64 needs asimd fp, which it does not offer"):
        select(frozenset({"fpu", "sse2", "lm"}), arm_images())
    with pytest.raises(IncompatibleError, match="x86-64 needs cmov"):
        select(find("Grace (V2)").features, (releases.image("x86-64"),))


def test_the_corpus_is_large_enough() -> None:
    assert len({one.cpuinfo for one in MACHINES}) >= 25
