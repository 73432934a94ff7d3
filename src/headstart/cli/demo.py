"""``headstart demo``: the main job, end to end, on the example stack."""

import argparse
import json
import os
import sys

from headstart import demo
from headstart.build.gather import able_levels
from headstart.console import Console
from headstart.datafiles import data_path, data_text
from headstart.errors import ConfigurationError
from headstart.julia import Capabilities, Proof, capabilities
from headstart.machine import JuliaInstall, cpu_flags, find_julia
from headstart.names import Fqrn
from headstart.process import run_loud, run_process

HELP = """\
Build the example stack for two CPU levels, sign it, publish it, read it back
over HTTP, start it with nothing compiled on the way, and print the times
beside stock Julia's."""
_PACKAGES = "FourMomenta, HepMCAscii, JetClustering, JetHistograms, JetAnalysis"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument(
        "--folder",
        metavar="DIR",
        default="headstart-demo",
        help="where everything is made (default: %(default)s)",
    )
    parser.add_argument("--julia", default="", metavar="PROGRAM", help="the Julia to build with")
    parser.add_argument(
        "--rounds", type=int, default=demo.ROUNDS, metavar="N", help="rounds to measure (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object; the table is talk then")


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    if not 1 <= args.rounds <= 1000:
        raise ConfigurationError(f"--rounds {args.rounds} is not from 1 to 1000")
    console = Console(sys.stderr)
    install = find_julia(args.julia, "system", os.environ, run_process)
    console.note(f"Julia {install.probe.version} at {install.program}")
    settings = settings_for(os.path.abspath(args.folder), _example(), install, args.rounds)
    env = {**os.environ, "HEADSTART_JULIA": install.program}
    demo.prepare(settings, console, run_loud, env)
    override = os.environ.get("HEADSTART_TARGET")
    outcome = demo.measure(settings, console, run_process, cpu_flags(), override)
    console.step("done")
    table = demo.table(outcome.arms)
    if args.json:
        console.note("\n" + table)
        json.dump(outcome.to_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(table)
    return 0


def settings_for(folder: str, project: str, install: JuliaInstall, rounds: int) -> demo.Settings:
    """What the demo is made of, for an example stack and a Julia."""
    env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    if install.library_path:
        env["LD_LIBRARY_PATH"] = ":".join(install.library_path)
    table = capabilities(data_text("julia.toml"), install.probe.version)
    return demo.Settings(
        folder=folder,
        project=project,
        stack="jets",
        code=f"using {_PACKAGES}; exit(JetAnalysis.main(ARGS))",
        arguments=("--scan", os.path.join(project, "data", "events.hepmc3")),
        targets=_two_levels(install, table),
        fqrn=Fqrn("jets.example.org"),
        headstart=_headstart(),
        counters=data_path("counters.jl") if table.proof is Proof.COUNTERS else "",
        rounds=rounds,
        stock=demo.Stock(
            version=str(install.probe.version), executable=install.program, share=install.share, env=env
        ),
    )


def _two_levels(install: JuliaInstall, can: Capabilities) -> tuple[str, ...]:
    """The baseline, and the best level up to x86-64-v3 that this machine and this Julia can build."""
    able = able_levels(("x86-64", "x86-64-v2", "x86-64-v3"), install, can, cpu_flags())
    return (able[0], able[-1]) if len(able) > 1 else ("x86-64",)


def _headstart() -> tuple[str, ...]:
    program = os.path.join(os.path.dirname(sys.executable), "headstart")
    return (program,) if os.access(program, os.X_OK) else (sys.executable, "-m", "headstart")


def _example() -> str:
    """The example stack: beside this package when installed, in the checkout when not."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for place in (package, os.path.dirname(os.path.dirname(package))):
        project = os.path.join(place, "examples", "jets")
        if os.path.isfile(os.path.join(project, "Headstart.toml")):
            return project
    raise ConfigurationError(
        "the example stack examples/jets is not installed", hint="run the demo in a checkout"
    )
