"""The choice of an image: what holds for every CPU, and that Python and the shell script always agree."""

import itertools
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import releases
from headstart.errors import ConfigurationError, IncompatibleError
from headstart.microarchitecture import LEVELS, flags_of, select
from headstart.release import ImageRecord
from headstart.script import launcher

V1, V2, V3, V4 = (sorted(flags) for flags in LEVELS.values())
NOISE = [
    "aes",
    "arat",
    "avx512_vnni",
    "avx_vnni",
    "constant_tsc",
    "ht",
    "hypervisor",
    "nx",
    "pge",
    "sha_ni",
    "sse4a",
    "vme",
    "xsaves",
    "avx512",
]

CPUINFO = {
    # What a kernel shows on these processors (shortened to what tells them apart, in the kernel's layout).
    "Intel Core 2 (no SSE4.2)": (f"{' '.join(V1)} ht pni ssse3 cx16 sse4_1 lahf_lm", "x86-64"),
    "Intel Nehalem": (f"{' '.join(V2)} ht nx rdtscp", "x86-64-v2"),
    "Intel Sandy Bridge (AVX, no AVX2)": (f"{' '.join(V2)} aes xsave avx pclmulqdq", "x86-64-v2"),
    "Intel Haswell": (f"{' '.join(V3)} aes fsgsbase rdrand erms invpcid", "x86-64-v3"),
    "Intel Xeon Skylake": (f"{' '.join(V4)} adx clwb pku aes", "x86-64-v4"),
    "Intel Alder Lake (AVX-512 fused off)": (f"{' '.join(V3)} avx_vnni sha_ni gfni serialize", "x86-64-v3"),
    "Intel Knights Landing (AVX-512, no BW/DQ/VL)": (
        f"{' '.join(V3)} avx512f avx512pf avx512er avx512cd",
        "x86-64-v3",
    ),
    "AMD Opteron (no SSSE3)": (f"{' '.join(V1)} pni cx16 popcnt sse4a lahf_lm abm", "x86-64"),
    "AMD Bulldozer (no AVX2)": (f"{' '.join(V2)} avx xsave fma4 xop abm sse4a", "x86-64-v2"),
    "AMD Zen 2": (f"{' '.join(V3)} sse4a clzero sha_ni rdpid", "x86-64-v3"),
    "AMD Zen 4": (f"{' '.join(V4)} avx512_bf16 avx512vbmi gfni vaes", "x86-64-v4"),
    "a VM that hides XSAVE, so no AVX": (
        f"{' '.join(sorted(set(V4) - {'xsave', 'avx', 'avx2', 'f16c', 'fma'}))} hypervisor",
        "x86-64-v2",
    ),
    "a VM that hides MOVBE": (f"{' '.join(sorted(set(V4) - {'movbe'}))} hypervisor", "x86-64-v2"),
    "qemu64": ("fpu cx8 cmov mmx fxsr sse sse2 syscall nx lm pni cx16 lahf_lm svm hypervisor", "x86-64"),
}
FULL = releases.release(tuple(LEVELS))


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _laid_out(tmp_path_factory.mktemp("full"), FULL.images)


def _laid_out(stage: Path, images: tuple[ImageRecord, ...]) -> Path:
    made = releases.write_stage(stage, replace(FULL, images=images), image_size=20)
    return stage / "stacks" / "jets" / str(made.id) / "bin" / "julia"


def _run_script(script: Path, cpuinfo: str, override: str = "", shell: str = "sh") -> tuple[int, str]:
    place = script.parent / "cpuinfo"
    place.write_text(cpuinfo)
    environment = {"HEADSTART_CPUINFO": str(place), "HEADSTART_TARGET": override, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([shell, script], env=environment, capture_output=True, check=False, timeout=60)
    return done.returncode, done.stderr.decode().strip()


def _in_python(images: tuple[ImageRecord, ...], cpuinfo: str, override: str = "") -> tuple[int, str]:
    """What the script should answer, from the Python side."""
    try:
        chosen = select(flags_of(cpuinfo), images, override)
    except (ConfigurationError, IncompatibleError) as error:
        return error.exit_code, f"headstart: {error}"
    return 0, f"headstart: jets {FULL.id}: {chosen.explain()}"


@pytest.mark.parametrize("name", CPUINFO)
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_known_processors_get_their_level_from_both(script: Path, name: str, shell: str) -> None:
    flags, level = CPUINFO[name]
    one = f"processor\t: 0\nmodel name\t: {name}\nflags\t\t: {flags}\nvmx flags\t: vnmi\nbugs\t\t: none\n\n"
    text = one + one.replace("processor\t: 0", "processor\t: 1")
    assert select(flags_of(text), FULL.images).chosen.target == level
    assert _run_script(script, text, shell=shell) == _in_python(FULL.images, text)


def test_this_machine_gets_the_same_from_both(script: Path) -> None:
    text = Path("/proc/cpuinfo").read_text()
    assert _run_script(script, text) == _in_python(FULL.images, text)


@given(
    st.sets(st.sampled_from([*V4, *NOISE]), max_size=len(V4) + len(NOISE)),
    st.sampled_from([V1, V2, V3, V4, []]),
    st.sampled_from(["", "", "x86-64", "x86-64-v3", "x86-64-v4", "avx2"]),
    st.sampled_from(
        ["flags\t\t: {}", "flags : {} ", " flags\t:{}", "Features\t: {}", "flag\t: {}", "flags\t{}"]
    ),
)
@settings(max_examples=150, deadline=None)
def test_script_and_python_agree(
    script: Path, some: set[str], level: list[str], override: str, line: str
) -> None:
    # Either a level with a few features taken away or added, or anything at all.
    flags = sorted(set(level) ^ some) if len(some) < 4 else sorted({*level, *some})
    text = f"processor\t: 0\n{line.format(' '.join(flags))}\nflags\t\t: fpu\n"
    # The script names the file it read, and "processor" may be the whole of it.
    code, said = _run_script(script, text, override)
    assert (code, said.replace(str(script.parent / "cpuinfo"), "/proc/cpuinfo")) == _in_python(
        FULL.images, text, override
    )


@given(
    st.sets(st.sampled_from([*V4, *NOISE])),
    st.lists(st.sampled_from(list(LEVELS)), min_size=1, max_size=4, unique=True),
)
def test_the_choice_runs_and_nothing_better_would(flags: set[str], targets: list[str]) -> None:
    images = tuple(releases.image(target) for target in LEVELS if target in targets)
    here = frozenset(flags | set(V1))
    if not any(LEVELS[image.target] <= here for image in images):
        with pytest.raises(IncompatibleError, match=f"{images[0].target} needs"):
            select(here, images)
        return
    selection = select(here, images)
    assert set(selection.chosen.features) <= here
    better = images[images.index(selection.chosen) + 1 :]
    assert [refusal.target for refusal in selection.refused] == [image.target for image in better]
    for refusal in selection.refused:
        assert set(refusal.missing) == set(LEVELS[refusal.target]) - here
    for image in images:
        if set(image.features) <= here:
            assert select(here, images, image.target).chosen == image
        else:
            with pytest.raises(IncompatibleError):
                select(here, images, image.target)
    with pytest.raises(ConfigurationError, match="it has"):
        select(here, images, "haswell")


def test_levels_contain_each_other() -> None:
    flags = list(LEVELS.values())
    assert all(lower < higher for lower, higher in itertools.pairwise(flags))


def test_a_release_of_no_known_level_says_nothing_about_levels(tmp_path: Path) -> None:
    images = (releases.image("custom", ("fpu",)),)
    text = f"flags\t: {' '.join(V4)}\n"
    assert select(flags_of(text), images).explain() == "image custom"
    assert _run_script(_laid_out(tmp_path, images), text) == _in_python(images, text)
    assert "x86-64" not in launcher(replace(FULL, images=images)).split("# The image")[1]
