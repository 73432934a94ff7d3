"""Find a Julia that a release can be built with, or fetch one into a folder; print the path of its program.

1. The one that the user has: HEADSTART_JULIA, the PATH, juliaup's; if it can be shipped with a release.
2. The one that an earlier call has fetched into the folder.
3. The official build, as `headstart build` gets it (headstart/official.py).
4. Where its download site cannot be reached: Julia 1.5.3 as Debian 11 (bullseye) has it, unpacked from the
   archives that this machine's own apt sources name. Nothing is installed, and no root is needed.

What was chosen, and why, is said on standard error.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from headstart.build.trees import git_tree
from headstart.errors import Error, MissingToolError
from headstart.julia import JuliaRequest
from headstart.machine import find_julia
from headstart.official import OfficialBuilds
from headstart.process import run_process

OFFICIAL = JuliaRequest("1.10")
"""The long-term support line."""
SUITE = "bullseye"
PACKAGES = (
    "julia", "julia-common", "libjulia1",
    "libbsd0", "libcurl3-gnutls", "libdsfmt-19937-1", "libedit2", "libffi7", "libgfortran5", "libgit2-1.1",
    "libgmp10", "libhttp-parser2.9", "libllvm9", "libmbedcrypto3", "libmbedtls12", "libmbedx509-0", "libmd0",
    "libmpfr6", "libopenlibm3", "libpcre2-8-0", "libpcre3", "libquadmath0", "libssh2-1", "libtinfo6",
    "libunwind8", "libutf8proc2", "libz3-4",
)  # fmt: skip
"""Julia 1.5.3 and what it loads, but for what every Debian has (libc6, libgcc-s1, libstdc++6, zlib1g)."""


def say(text: str) -> None:
    """Talk for a person."""
    sys.stderr.write(f"get_julia: {text}\n")
    sys.stderr.flush()


def usable(program: str) -> bool:
    """Whether a program is a Julia that can be shipped."""
    install = find_julia(program, "", dict(os.environ), run_process)
    if not install.private:
        say(f"Julia {install.probe.version} at {install.program} is the system's own and cannot be shipped")
    return install.private


def users_own() -> str | None:
    """The Julia that the user has."""
    try:
        install = find_julia("", "", dict(os.environ), run_process)
    except MissingToolError as error:
        if os.environ.get("HEADSTART_JULIA"):
            raise
        say(f"{error.message}")
        return None
    if not usable(install.program):
        return None
    say(f"using Julia {install.probe.version} at {install.program}")
    return install.program


def call(argv: list[str], *, seconds: int, cwd: Path | None = None) -> None:
    """Run a program quietly.

    Raises:
        MissingToolError: it fails, or is not here, or takes too long.
    """
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingToolError(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise MissingToolError(f"{Path(argv[0]).name} failed: {lines[-1][:300]}")


def placed(folder: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Make a directory beside its place and move it there when it is complete."""
    part = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=folder))
    try:
        make(part)
        part.chmod(0o755)
        return part.rename(folder / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def officials(folder: Path) -> OfficialBuilds:
    """The official builds that are kept in the folder."""
    return OfficialBuilds(
        str(folder / "official"),
        versions=os.environ.get("HEADSTART_JULIA_VERSIONS", ""),
        env=dict(os.environ),
        run=run_process,
        digest=git_tree,
        say=say,
    )


def official(folder: Path) -> Path:
    """The official build, compared with its SHA-256."""
    return Path(officials(folder).obtain(OFFICIAL).program)


def apt_sources(text: str, codename: str) -> str:
    """A source list with this machine's suite replaced by bullseye."""
    return re.sub(rf"\b{re.escape(codename)}\b", SUITE, text)


def codename() -> str:
    """This Debian's name.

    Raises:
        MissingToolError: it is no Debian on x86-64.
    """
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian" or platform.machine() != "x86_64":
        raise MissingToolError("this is no Debian on x86-64, so Debian's Julia is of no use here")
    return release.get("VERSION_CODENAME", "")


def write_sources(folder: Path, name: str) -> None:
    """Copy this machine's apt sources, for the other suite."""
    etc = Path("/etc/apt")
    (folder / "parts").mkdir()
    (folder / "preferences").mkdir()
    main = etc / "sources.list"
    (folder / "sources.list").write_text(apt_sources(main.read_text(), name) if main.exists() else "")
    for path in sorted((etc / "sources.list.d").glob("*")):
        if path.suffix in (".list", ".sources"):
            text = path.read_text()
            # Other vendors' archives have no such suite.
            if re.search(rf"\b{re.escape(name)}\b", text):
                (folder / "parts" / path.name).write_text(apt_sources(text, name))


def debian(folder: Path) -> Path:
    """Debian's Julia 1.5.3 with its libraries, as one tree."""
    name = codename()

    def make(part: Path) -> None:
        apt = part / "apt"
        for path in ("state/lists/partial", "cache/archives/partial", "etc", "debs"):
            (apt / path).mkdir(parents=True)
        (apt / "status").touch()
        write_sources(apt / "etc", name)
        settings = {
            "Dir::State": apt / "state",
            "Dir::State::status": apt / "status",
            "Dir::Cache": apt / "cache",
            "Dir::Etc::sourcelist": apt / "etc/sources.list",
            "Dir::Etc::sourceparts": apt / "etc/parts",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": apt / "etc/preferences",
            "APT::Sandbox::User": "",
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Languages": "none",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        call(["apt-get", *options, "-q", "update"], seconds=300)
        call(["apt-get", *options, "-q", "download", *PACKAGES], seconds=900, cwd=apt / "debs")
        for deb in sorted((apt / "debs").glob("*.deb")):
            call(["dpkg-deb", "-x", str(deb), str(part)], seconds=120)
        # Debian 11 still has some libraries below /lib: bring all below one prefix.
        if (part / "lib").is_dir():
            shutil.copytree(part / "lib", part / "usr/lib", symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(part / "lib")
        shutil.rmtree(apt)

    return placed(folder, "debian-1.5.3", make) / "usr/bin/julia"


def fetched(folder: Path) -> Path | None:
    """What an earlier call fetched."""
    kept = officials(folder).cached(OFFICIAL)
    if kept is not None:
        return Path(kept.program)
    place = folder / "debian-1.5.3/usr/bin/julia"
    return place if place.is_file() else None


def get(folder: Path) -> str:
    """The path of a Julia's program.

    Raises:
        MissingToolError: none is here and none can be fetched; with the reason for each way.
    """
    own = users_own()
    if own is not None:
        return own
    folder.mkdir(parents=True, exist_ok=True)
    earlier = fetched(folder)
    if earlier is not None and usable(str(earlier)):
        return str(earlier)
    reasons = []
    for what, way in (("the official build", official), ("Debian's Julia 1.5.3", debian)):
        say(f"fetching {what} into {folder}")
        try:
            program = str(way(folder))
            if usable(program):
                say(f"using {what} at {program}")
                return program
        except (Error, OSError) as error:
            reason = error.message if isinstance(error, Error) else str(error)
            say(f"{what} cannot be had: {reason}")
            reasons.append(f"{what}: {reason}")
    raise MissingToolError(
        f"no Julia can be had here ({'; '.join(reasons)})",
        hint="install one and put it on the PATH, or name it in HEADSTART_JULIA",
    )


def main() -> int:
    """Command line: one option, the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".cache/julia"), help="where to fetch one into")
    try:
        sys.stdout.write(get(parser.parse_args().folder.resolve()) + "\n")
    except Error as error:
        sys.stderr.write(f"get_julia: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
