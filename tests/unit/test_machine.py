import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from headstart.errors import ConfigurationError, MissingToolError
from headstart.machine import cpu_flags, depots, find_compiler, find_julia, read_text, recipe_texts
from headstart.process import run_process


def fake_julia(prefix: Path, version: str, *, needs_library_path: bool = False) -> Path:
    """A shell script that answers the probe as a Julia of this version would."""
    for name in ("bin", "lib/julia", "share/julia/stdlib/v1.5"):
        (prefix / name).mkdir(parents=True, exist_ok=True)
    (prefix / "lib/libjulia.so.1").touch()
    (prefix / "lib/julia/sys.so").touch()
    program = prefix / "bin/julia"
    mark = "echo headstart-probe:"
    lines = ["#!/bin/sh"]
    if needs_library_path:
        wanted = f"{prefix}/lib:{prefix}/lib/julia"
        lines.append(f'test "$LD_LIBRARY_PATH" = "{wanted}" || {{ echo no lib >&2; exit 127; }}')
    lines += [
        f"{mark} version {version}",
        f"{mark} bindir {prefix}/bin",
        f"{mark} image {prefix}/lib/julia/sys.so",
        f"{mark} stdlib {prefix}/share/julia/stdlib/v1.5",
        f"{mark} library {prefix}/lib/libjulia.so.1",
    ]
    program.write_text("\n".join(lines) + "\n")
    program.chmod(0o755)
    return program


def find(given: str = "", wanted: str = "", **env: str) -> str:
    full: Mapping[str, str] = {"PATH": "/nowhere", **env}
    return find_julia(given, wanted, full, run_process).program


def test_what_is_given_comes_first_then_the_variable_then_the_path(tmp_path: Path) -> None:
    one, two, three = (str(fake_julia(tmp_path / name, "1.5.3")) for name in "abc")
    path = f"{os.path.dirname(three)}:/usr/bin:/bin"
    assert find(one, HEADSTART_JULIA=two, PATH=path) == one
    assert find(HEADSTART_JULIA=two, PATH=path) == two
    assert find(PATH=path) == three


def test_juliaup_is_searched_for_a_version(tmp_path: Path) -> None:
    on_path = fake_julia(tmp_path / "path", "1.11.1")
    for version in ("1.9.4", "1.10.6"):
        fake_julia(tmp_path / f"home/.julia/juliaup/julia-{version}+0.x64.linux.gnu", version)
    env = {"PATH": f"{on_path.parent}:/usr/bin:/bin", "HOME": str(tmp_path / "home")}
    assert find(wanted="1.10.6", **env).endswith("julia-1.10.6+0.x64.linux.gnu/bin/julia")
    assert find(wanted="1.10", **env).endswith("julia-1.10.6+0.x64.linux.gnu/bin/julia")
    assert find(wanted="1.11", **env) == find(wanted="system", **env) == str(on_path)
    with pytest.raises(MissingToolError, match=r"no Julia 1\.1 was found, only 1\.11\.1, 1\.9\.4, 1\.10\.6"):
        find(wanted="1.1", **env)


def test_no_julia() -> None:
    with pytest.raises(MissingToolError, match="no Julia was found; name one with --julia"):
        find()


def test_a_named_program_that_is_not_there() -> None:
    with pytest.raises(MissingToolError, match="/no/julia is no program that can be started"):
        find(HEADSTART_JULIA="/no/julia")


def test_a_named_program_of_another_version(tmp_path: Path) -> None:
    program = str(fake_julia(tmp_path, "1.5.3"))
    with pytest.raises(MissingToolError, match=r"is Julia 1\.5\.3, but the project asks for 1\.10"):
        find(program, "1.10")
    with pytest.raises(ConfigurationError, match="no version of Julia"):
        find(program, "newest")


def test_a_program_that_is_no_julia(tmp_path: Path) -> None:
    with pytest.raises(MissingToolError, match="does not answer as Julia"):
        find("/bin/true", PATH="/bin")
    program = tmp_path / "julia"
    program.write_text("#!/bin/sh\necho it is broken >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(MissingToolError, match="it is broken"):
        find(str(program))


def test_an_unpacked_julia_is_given_its_library_path(tmp_path: Path) -> None:
    program = fake_julia(tmp_path, "1.5.3", needs_library_path=True)
    install = find_julia(str(program), "", {"PATH": "/bin"}, run_process)
    assert install.library_path == (f"{tmp_path}/lib", f"{tmp_path}/lib/julia")
    assert install.private
    assert install.share == f"{tmp_path}/share/julia"


def test_the_users_library_path_is_not_handed_on(tmp_path: Path) -> None:
    program = fake_julia(tmp_path, "1.5.3")
    program.write_text(
        program.read_text().replace("#!/bin/sh", '#!/bin/sh\ntest -z "$LD_LIBRARY_PATH" || exit 9')
    )
    assert find(str(program), LD_LIBRARY_PATH="/evil", PATH="/bin") == str(program)


def test_a_julia_of_the_systems_is_not_private(tmp_path: Path) -> None:
    install = find_julia(str(fake_julia(tmp_path, "1.5.3")), "", {"PATH": "/bin"}, run_process)
    assert install.private
    assert not dataclasses.replace(install, prefix="/usr").private
    elsewhere = dataclasses.replace(install.probe, libraries=("/usr/lib/libjulia.so.1",))
    assert not dataclasses.replace(install, probe=elsewhere).private


def test_the_compiler(tmp_path: Path) -> None:
    for name in ("gcc", "clang", "mycc"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert find_compiler({"PATH": str(tmp_path)}) == str(tmp_path / "gcc")
    assert find_compiler({"PATH": str(tmp_path), "CC": "mycc"}) == str(tmp_path / "mycc")
    # It is started from another directory than the user's.
    near = os.path.relpath(tmp_path / "mycc")
    assert find_compiler({"PATH": "/nowhere", "CC": near}) == str(tmp_path / "mycc")
    with pytest.raises(MissingToolError, match="no C compiler to link an image with: tcc"):
        find_compiler({"PATH": str(tmp_path), "CC": "tcc"})
    with pytest.raises(MissingToolError, match="install gcc or clang"):
        find_compiler({"PATH": "/nowhere"})


def test_depots(tmp_path: Path) -> None:
    (tmp_path / ".julia").mkdir()
    (tmp_path / "other").mkdir()
    home = str(tmp_path)
    assert depots({"HOME": home}) == (f"{home}/.julia",)
    assert depots({"HOME": home, "JULIA_DEPOT_PATH": f"~/other:{home}/gone"}) == (f"{home}/other",)
    both = (f"{home}/.julia", f"{home}/other")
    assert depots({"HOME": home, "JULIA_DEPOT_PATH": f":{home}/other:{home}/gone:"}) == both
    assert depots({}) == ()


def test_this_machine_and_this_package() -> None:
    assert "fpu" in cpu_flags() or os.uname().machine != "x86_64"
    assert {"probe.jl", "precompile.jl", "build_image.jl"} <= set(recipe_texts())


def test_a_text_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="it is not UTF-8"):
        read_text(str(tmp_path / "x"), "what", "hint")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_text(str(tmp_path), "what", "hint")
    with pytest.raises(ConfigurationError, match="is missing: it is needed; write it"):
        read_text(str(tmp_path / "y"), "it is needed", "write it")
