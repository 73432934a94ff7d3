"""A real Julia, packed as an official archive is, fetched and asked what it is."""

import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from headstart.build.trees import julia_tree
from headstart.julia import Archive, JuliaRequest
from headstart.machine import find_julia
from headstart.official import Wish, settle
from headstart.process import run_process
from juliahelp import StockJulia
from juliaserver import JuliaHost, builds

pytestmark = pytest.mark.slow


def packed(prefix: Path, version: str) -> bytes:
    """The prefix as an archive; quickly, rather than small."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        tar.add(prefix, arcname=f"julia-{version}")
    return buffer.getvalue()


def test_a_real_julia_comes_out_as_it_went_in(julia: StockJulia, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    own = find_julia(str(julia.program), "", env, run_process)
    version = str(own.probe.version)
    with JuliaHost().running() as host:
        host.add(version, packed(Path(own.prefix), version))
        mine = builds(tmp_path / "julia", host.versions)
        minor = version.rpartition(".")[0]
        install, origin = settle(Wish(given="", wanted=minor), env, run_process, mine)
        assert host.downloads() == 1
    assert isinstance(origin, Archive)
    assert str(origin.version) == version
    assert install.prefix.startswith(str(tmp_path))
    assert julia_tree(install) == julia_tree(own)
    said = subprocess.run(
        [install.program, "--startup-file=no", "-e", "print(sum(1:10))"],
        env={**env, "LD_LIBRARY_PATH": ":".join(install.library_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "55"
    # The probe and the program have left it as it was: the digest still holds, with nobody to ask.
    assert mine.obtain(JuliaRequest(minor)).program == install.program
