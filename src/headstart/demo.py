"""The main job, end to end, on an example stack, with the times beside stock Julia's.

The demo types the commands that a user would type, one program each, and shows them. Then it measures five
arms, interleaved, several rounds: stock Julia with an empty depot, stock Julia again, the release with an empty
cache, the release again, and the release's image started by hand. Every run does the same work on the same
events, and its output must be the same to the byte.
"""

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from headstart.build.staging import remove_tree
from headstart.cache import Cache
from headstart.console import Console
from headstart.errors import BuildError, TrustError
from headstart.loopback import LoopbackServer
from headstart.microarchitecture import Selection, select
from headstart.names import Fqrn, Sha256
from headstart.process import Command, Finished, Runner
from headstart.release import RELEASE_FILE, ImageRecord, Release
from headstart.script import settings as sealed

ROUNDS: Final = 5
CHANNEL: Final = "prod"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """Stock Julia, as the user has it."""

    version: str
    executable: str
    share: str
    """Its ``share/julia``: the bundled depot."""
    env: Mapping[str, str]
    """What it needs to start at all: ``PATH``, ``LD_LIBRARY_PATH`` for a tree that wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the demo is made of."""

    folder: str
    """Absolute path of the demo's own folder."""
    project: str
    """Absolute path of the example stack."""
    stack: str
    code: str
    """What Julia is told with ``-e``: to start the application with the arguments."""
    arguments: tuple[str, ...]
    """The application's own: options and the event file."""
    targets: tuple[str, ...]
    fqrn: Fqrn
    headstart: tuple[str, ...]
    """How to start Headstart."""
    stock: Stock
    counters: str = ""
    """The script that counts what a run compiles, for a Julia whose list names more than that."""
    rounds: int = ROUNDS

    def below(self, *names: str) -> str:
        """A path in the demo's folder."""
        return os.path.join(self.folder, *names)

    @property
    def public_key(self) -> str:
        """The master public key of the demo's repository."""
        return self.below("keys", f"{self.fqrn}.pub")


def commands(settings: Settings) -> dict[str, tuple[str, ...]]:
    """The commands that make the repository, by the name of their step."""
    place = ("--storage", settings.below("storage"), "--keys", settings.below("keys"))
    targets = tuple(word for target in settings.targets for word in ("--target", target))
    stage = settings.below("stage")
    return {
        "build": ("build", settings.project, "--stage", stage, "--repository", str(settings.fqrn), *targets),
        "create": ("repo", "create", str(settings.fqrn), *place),
        "publish": ("publish", stage, *place, "--channel", CHANNEL),
        "verify": ("verify", settings.below("storage"), "--key", settings.public_key),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measured start."""

    seconds: float
    """From starting the program to its end."""
    compiled: int
    """Methods that Julia compiled in it."""
    fetched: int
    """Bytes that the server sent for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to start the same work."""

    key: str
    title: str
    runs: tuple[Run, ...]

    @property
    def median(self) -> float:
        """Median time in seconds."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def compiled(self) -> int:
        """The most methods that any run compiled."""
        return max(run.compiled for run in self.runs)

    @property
    def fetched(self) -> int:
        """The most bytes that any run fetched."""
        return max(run.fetched for run in self.runs)


TITLES: Final = {
    "stock_cold": "stock Julia, empty depot",
    "stock_second": "stock Julia, second start",
    "release_cold": "release, empty cache",
    "release_warm": "release, warm cache",
    "image_by_hand": "its image by hand (julia -J)",
}


def table(arms: Sequence[Arm]) -> str:
    """The figures for a person, within 80 columns."""
    lines = [f"{'':<30}{'median':>9}{'fastest':>9}{'slowest':>9}{'compiled':>10}{'fetched':>12}"]
    for arm in arms:
        times = [run.seconds for run in arm.runs]
        fetched = f"{arm.fetched / 1e6:.1f} MB" if arm.fetched else "-"
        lines.append(
            f"{arm.title:<30}{arm.median:>7.3f} s{min(times):>7.3f} s{max(times):>7.3f} s"
            f"{arm.compiled:>10}{fetched:>12}"
        )
    by_key = {arm.key: arm.median for arm in arms}
    warm = by_key["release_warm"]
    lines += [
        "",
        f"A warm start is {by_key['stock_cold'] / warm:.1f} times shorter than stock's first,",
        f"{by_key['stock_second'] / warm:.1f} times shorter than stock's second, and takes",
        f"{warm / by_key['image_by_hand']:.3f} of the time of the same image started by hand.",
        "'compiled': methods compiled beyond those of stock Julia's own empty start.",
    ]
    return "\n".join(lines) + "\n"


def prepare(
    settings: Settings, console: Console, loud: Callable[[Command], int], env: Mapping[str, str]
) -> None:
    """Build, create, publish and verify, each by the command a user would type; nothing is done twice.

    Raises:
        BuildError: a command failed; it has said why.
    """
    os.makedirs(settings.folder, exist_ok=True)
    todo = commands(settings)

    def call(step: str) -> int:
        argv = (*settings.headstart, *todo[step])
        console.step("$ headstart " + " ".join(todo[step]))
        return loud(Command(argv=argv, env=env))

    def must(step: str) -> None:
        code = call(step)
        if code != 0:
            raise BuildError(
                f"the demo's step '{step}' ended with exit code {code}", hint="its message is above"
            )

    must("build")
    if not os.path.exists(settings.below("storage", ".cvmfspublished")):
        _forget_repository(settings)
        must("create")
        must("publish")
    else:
        code = call("publish")
        if code == TrustError.exit_code:
            # A demo repository lives as long as its whitelist; an older one is simply made again.
            _forget_repository(settings)
            must("create")
            must("publish")
        elif code != 0:
            raise _failed("publish", code)
    must("verify")


def _failed(step: str, code: int) -> BuildError:
    return BuildError(f"the demo's step '{step}' ended with exit code {code}", hint="its message is above")


def _forget_repository(settings: Settings) -> None:
    for name in ("storage", "keys"):
        shutil.rmtree(settings.below(name), ignore_errors=True)


class Measurement:
    """The five arms against one served repository.

    Args:
        settings: what to start.
        server: the repository's server, running.
        run: how to start programs.
        scratch: a directory for depots, caches and traces.
        reference: what to run, ``stack@channel``.
    """

    def __init__(
        self, settings: Settings, server: LoopbackServer, run: Runner, *, scratch: str, reference: str
    ) -> None:
        self._settings = settings
        self._server = server
        self._run = run
        self._scratch = scratch
        self._reference = reference
        self._baseline: frozenset[str] = frozenset()
        self._output: bytes | None = None
        self._counter = 0

    def learn_baseline(self) -> None:
        """Note what stock Julia compiles when it starts and does nothing."""
        trace, options = self._tracing()
        self._start((self._settings.stock.executable, *_QUIET, *options, "-e", ""), self._stock_env("baseline"))
        self._baseline = frozenset(_lines(trace))

    def stock(self, depot: str) -> Run:
        """Stock Julia with a depot of this name below the scratch directory."""
        program = (self._settings.stock.executable, *_QUIET)
        return self._measure(program, self._stock_env(depot))

    def by_hand(self, release: Release, image: ImageRecord, root: str) -> Run:
        """The image by ``julia -J``, as somebody would type it who knows where everything is.

        The same Julia, depots and project as the release's own start has, from a repository's root.
        """
        home = f"{root}/stacks/{release.stack}/{release.id}"
        julia = f"{root}/julia/{release.julia}"
        env = {name: value for name, value in self._settings.stock.env.items() if name != "LD_LIBRARY_PATH"}
        env |= sealed(release, home, julia, packages=image.packages)
        start = (word for part in image.system for word in ("-J", f"{home}/{part.path}"))
        program = (f"{julia}/{release.julia_executable}", *start, *_QUIET)
        return self._counted(self._measure(program, env), program, env)

    def _counted(self, run: Run, program: tuple[str, ...], env: Mapping[str, str]) -> Run:
        """The run, with no method counted where Julia's own counters say that none was compiled.

        From Julia 1.9 on the list also names methods that came ready from the image. The same work is started
        once more, not timed.
        """
        if not run.compiled or not self._settings.counters:
            return run
        words = ", ".join(json.dumps(word).replace("$", "\\$") for word in self._settings.arguments)
        code = f"empty!(ARGS); append!(ARGS, [{words}]); {self._settings.code}"
        done = self._start((*program, self._settings.counters, "-e", code), env)
        nothing = (done.out + done.err).rstrip().endswith(b"headstart-compiled: 0 0")
        return replace(run, compiled=0) if nothing else run

    def release(self, cache: str) -> Run:
        """``headstart run`` with a cache of this name below the scratch directory."""
        program = (*self._run_command(cache), "--")
        env = {**self._settings.stock.env, "HEADSTART_QUIET": "1"}
        return self._counted(self._measure(program, env), program, env)

    def _run_command(self, cache: str) -> tuple[str, ...]:
        settings = self._settings
        place = ("--key", settings.public_key, "--cache", os.path.join(self._scratch, cache))
        return (*settings.headstart, "run", self._server.url, self._reference, *place)

    def _stock_env(self, depot: str) -> dict[str, str]:
        stock = self._settings.stock
        return {
            **stock.env,
            "JULIA_DEPOT_PATH": f"{os.path.join(self._scratch, depot)}:{stock.share}",
            "JULIA_LOAD_PATH": "@:@stdlib",
            "JULIA_PROJECT": self._settings.project,
        }

    def _tracing(self) -> tuple[str, tuple[str, ...]]:
        self._counter += 1
        trace = os.path.join(self._scratch, f"trace-{self._counter}")
        return trace, (f"--trace-compile={trace}",)

    def _measure(self, program: tuple[str, ...], env: Mapping[str, str]) -> Run:
        trace, options = self._tracing()
        before = self._server.sent
        start = time.monotonic()
        argv = (*program, *options, "-e", self._settings.code, "--", *self._settings.arguments)
        done = self._start(argv, env)
        seconds = time.monotonic() - start
        if self._output is None:
            self._output = done.out
        elif done.out != self._output:
            raise BuildError(
                "two starts of the same work printed different results", hint=f"see {' '.join(argv)}"
            )
        compiled = sum(line not in self._baseline for line in _lines(trace))
        return Run(seconds=seconds, compiled=compiled, fetched=self._server.sent - before)

    def _start(self, argv: tuple[str, ...], env: Mapping[str, str]) -> Finished:
        done = self._run(Command(argv=argv, env=env, cwd=self._settings.folder), None)
        if done.code != 0:
            last = done.err.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise BuildError(f"{' '.join(argv[:3])} ... ended with exit code {done.code}: {last[0]}")
        return done


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the demo found."""

    settings: Settings
    release: Release
    digest: Sha256
    selection: Selection
    arms: tuple[Arm, ...]

    @property
    def reasons(self) -> dict[str, str]:
        """Why each image that was not taken was not, by target."""
        reasons = {refusal.target: str(refusal) for refusal in self.selection.refused}
        for image in self.release.images:
            if image.target != self.selection.chosen.target:
                reasons.setdefault(image.target, f"{self.selection.chosen.target} is nearer to this CPU")
        if self.selection.not_built:
            reasons[self.selection.not_built] = "this CPU has it, and the release has no image for it"
        return reasons

    def to_json(self) -> dict[str, Any]:
        """The figures for a program: seconds are medians of the rounds."""
        by_key = {arm.key: arm for arm in self.arms}
        warm = by_key["release_warm"]
        return {
            "schema": 1,
            "julia": self.settings.stock.version,
            "target": self.selection.chosen.target,
            "why": self.reasons,
            **{f"{key}_s": round(arm.median, 4) for key, arm in by_key.items()},
            "compiled_methods": max(warm.compiled, by_key["release_cold"].compiled),
            "compiled_methods_by_arm": {key: arm.compiled for key, arm in by_key.items()},
            "bytes_fetched": by_key["release_cold"].fetched,
            "rounds": len(warm.runs),
            "seconds_by_arm": {key: [round(run.seconds, 4) for run in arm.runs] for key, arm in by_key.items()},
            "repository": self.settings.below("storage"),
            "fqrn": str(self.settings.fqrn),
            "public_key": self.settings.public_key,
            "stack": self.settings.stack,
            "channel": CHANNEL,
            "release": str(self.release.id),
            "digest": self.digest.hex,
        }


def measure(
    settings: Settings, console: Console, run: Runner, here: frozenset[str], override: str | None
) -> Outcome:
    """Measure the five arms, interleaved, on the published release.

    Args:
        settings: what to start.
        console: where to talk.
        run: how to start programs.
        here: this CPU's features.
        override: the target that somebody asks for.
    """
    release, digest = _staged(settings)
    selection = select(here, release.images, override)
    console.note(f"This CPU: {selection.explain()}")
    runs: dict[str, list[Run]] = {key: [] for key in TITLES}
    scratch = tempfile.mkdtemp(prefix="headstart-measure-", dir=scratch_place(settings.folder))
    try:
        with LoopbackServer(settings.below("storage"), settings.fqrn) as server:
            reference = f"{settings.stack}@{CHANNEL}"
            arms = Measurement(settings, server, run, scratch=scratch, reference=reference)
            arms.learn_baseline()
            for number in range(1, settings.rounds + 1):
                console.step(f"round {number} of {settings.rounds}: five starts of the same work")
                for key, start in _round(arms, settings.fqrn, release, selection, scratch):
                    runs[key].append(start())
                for name in ("depot", "cache"):
                    remove_tree(os.path.join(scratch, name))
    finally:
        remove_tree(scratch)
    arms_found = tuple(Arm(key=key, title=title, runs=tuple(runs[key])) for key, title in TITLES.items())
    return Outcome(settings=settings, release=release, digest=digest, selection=selection, arms=arms_found)


_MEMORY: Final = "/dev/shm"  # noqa: S108  # mkdtemp makes a directory of its own there
_SCRATCH_SIZE: Final = 2 << 30
"""Bytes that one round's depot and cache are sure to fit in."""


def scratch_place(folder: str) -> str:
    """Where all arms have their depots and caches: in memory, so that none waits for another's writes.

    In the demo's folder where there is no such place, it is small, or no program may be started from it.
    """
    try:
        place = os.statvfs(_MEMORY)
    except OSError:
        return folder
    good = place.f_bavail * place.f_frsize >= _SCRATCH_SIZE and not place.f_flag & os.ST_NOEXEC
    return _MEMORY if good and os.access(_MEMORY, os.W_OK) else folder


def _round(
    arms: Measurement, fqrn: Fqrn, release: Release, selection: Selection, scratch: str
) -> tuple[tuple[str, Callable[[], Run]], ...]:
    root = Cache(os.path.join(scratch, "cache"), fqrn, uid=os.geteuid()).root
    return (
        ("stock_cold", lambda: arms.stock("depot")),
        ("stock_second", lambda: arms.stock("depot")),
        ("release_cold", lambda: arms.release("cache")),
        ("release_warm", lambda: arms.release("cache")),
        ("image_by_hand", lambda: arms.by_hand(release, selection.chosen, root)),
    )


def _staged(settings: Settings) -> tuple[Release, Sha256]:
    with open(settings.below("stage", "stage.json"), encoding="utf-8") as file:
        staged = json.load(file)
    path = settings.below("stage", "stacks", staged["stack"], staged["release"], RELEASE_FILE)
    with open(path, "rb") as record:
        data = record.read()
    return Release.from_bytes(data), Sha256.of(data)


_QUIET: Final = ("--startup-file=no", "--history-file=no")


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return [line.strip() for line in file if line.strip()]
    except FileNotFoundError:
        return []
