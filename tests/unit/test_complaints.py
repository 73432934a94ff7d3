"""What Pkg says becomes one sentence, with the exit code of its family; the texts are those of 1.5.3."""

import pytest

from headstart.build.complaints import refusal, unbuilt
from headstart.errors import BuildError, UnavailableError
from headstart.project import Local, Package, Tracked

WHAT = f"package Tunable with tree {'3' * 40}"


@pytest.mark.parametrize(
    ("output", "family", "said"),
    [
        (
            (
                "┌ Warning: could not download http://127.0.0.1:9/registries\n└ @ Pkg.Types /x/Types.jl:951\n"
                "ERROR: LoadError: expected package `Quantities [a0000000]` to be registered\n"
            ),
            UnavailableError,
            "cannot be reached or does not have it (Pkg says: could not download http://127.0.0.1:9/registries)",
        ),
        (
            (
                "\x1b[?25l\x1b[2Kcurl: (7) Failed to connect to 127.0.0.1 port 9: Couldn't connect\n"
                "ERROR: Unable to automatically install 'table' from '/p/JuliaArtifacts.toml'\n"
            ),
            UnavailableError,
            "(Pkg says: curl: (7) Failed to connect to 127.0.0.1 port 9",
        ),
        (
            (
                "┌ Warning: tarball content does not match git-tree-sha1\n└ @ Pkg.Operations\n"
                "ERROR: LoadError: failed to clone from file:///nowhere/Tunable.git, error: GitError()\n"
            ),
            BuildError,
            "a server sent something else for it or another (Pkg says: tarball content does not match",
        ),
        (
            "┌ Error: Tree Hash Mismatch!\n│   Expected git-tree-sha1:   f2ce\n",
            BuildError,
            "a server sent something else for it or another (Pkg says: Tree Hash Mismatch!)",
        ),
        (
            (
                "gzip: stdin: unexpected end of file\ntar: Child returned status 1\n"
                "curl: (7) Failed to connect to 127.0.0.1 port 9\n"
            ),
            BuildError,
            "what a server sent cannot be unpacked (Pkg says: gzip: stdin: unexpected end of file)",
        ),
        (
            "ERROR: LoadError: no such thing\nStacktrace:\n",
            BuildError,
            "Pkg says: ERROR: LoadError: no such thing",
        ),
        ("", BuildError, "cannot be had: it is in none of /d"),
    ],
)
def test_the_trouble_that_explains_the_rest_is_told(output: str, family: type, said: str) -> None:
    error = refusal(WHAT, "it is in none of /d", output.encode(), "/logs/x.log")
    assert type(error) is family
    assert error.message.startswith(f"{WHAT} cannot be had: it is in none of /d")
    assert said in error.message
    assert "\n" not in str(error)
    assert "\x1b" not in str(error)
    assert "/logs/x.log" in error.hint


@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        ('ERROR: LoadError: SystemError: opening file "/p/Old/deps/deps.jl": No such file or directory', True),
        ('ERROR: LoadError: Old not properly installed, please run Pkg.build("Old")', True),
        ("ERROR: LoadError: UndefVarError: x not defined", False),
    ],
)
def test_a_package_that_lacks_what_its_build_script_writes(output: str, *, wanted: bool) -> None:
    package = Package(name="Old", uuid="", source=Tracked("0" * 40), dependencies=())
    said = unbuilt(package, output.encode())
    assert (
        said.startswith("Old wants what its deps/build.jl writes into a directory that all its users share")
        is wanted
    )
    assert bool(said) is wanted
    local = Package(name="Old", uuid="", source=Local("x"), dependencies=())
    assert ("its own directory" in unbuilt(local, output.encode())) is wanted
