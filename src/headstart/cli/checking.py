"""``headstart run --check``: stay Julia's parent, and see that it compiles nothing.

The default start becomes Julia and has no say in how it ends. This one waits, passes signals, streams and the
exit code through, and says at the end what was compiled. A job that ended well although something was compiled
gives exit code 25, and so does one that ended because Julia would have had to compile; any other failure is the
job's own.
"""

import os
import tempfile
from dataclasses import dataclass

from headstart.cli.run import Node, Request, say
from headstart.cli.starting import Launch, Ready
from headstart.compiled import Cost, Miss, failed_extensions, listed, miss, only_julias, rejection, statements
from headstart.datafiles import data_path, data_text
from headstart.errors import ConfigurationError, StrictError
from headstart.julia import JuliaVersion, Proof, capabilities
from headstart.launch import Placed
from headstart.process import Command, run_process
from headstart.shortcut import Question
from headstart.supervise import end_like, supervise

_HINT = "put it into the stack and publish a new release, or work in 'headstart shell', where Julia may compile"


def check(request: Request, node: Node, question: Question) -> int:
    """Start Julia, wait for it, and return its exit code.

    Raises:
        StrictError: it compiled something and ended well all the same, or ended because it would have compiled.
        Error: it could not be started; the family says why.
    """
    for word in request.args:
        if word.startswith("--trace-compile"):
            raise ConfigurationError(f"{word} does not go with --check, which traces by itself")
    launching = Launch(request, node, question)
    ready = launching.ready()
    placed = launching.place(ready)
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        watch = _Watch(ready=ready, placed=placed, node=node, folder=folder)
        done = supervise(watch.command("job", request.args))
        missed = miss(done.said) if done.code == 1 else None
        if missed is not None:
            raise StrictError(watch.refusal(missed), hint=_HINT)
        found = watch.found(done.said)
    if found.broken and done.code == 0:
        raise StrictError(found.text, hint=_HINT)
    if not node.env.get("HEADSTART_QUIET"):
        say(found.text)
    return end_like(done.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    text: str
    broken: bool
    """Whether something was compiled that a release promises to bring."""


_NOTHING = _Found(text="nothing was compiled", broken=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watch:
    """What a supervised Julia leaves to be looked at."""

    ready: Ready
    placed: Placed
    node: Node
    folder: str
    """Where it notes what it compiles."""

    def command(self, name: str, args: tuple[str, ...]) -> Command:
        """A start that notes what it compiles; each has its own name."""
        words: tuple[str, ...] = (f"--trace-compile={self.folder}/{name}.trace",)
        env = self.node.env
        if self._proof is Proof.COUNTERS:
            words += ("-L", data_path("supervised.jl"))
            env = {**env, "HEADSTART_COUNTED": f"{self.folder}/{name}.cost"}
        return self.placed.command((*words, *args), env)

    def found(self, said: str) -> _Found:
        """What the job has compiled, beyond what any start of this Julia does."""
        extensions = failed_extensions(said)
        if extensions:
            return _Found(text=f"Julia went on without extension {', '.join(extensions)}", broken=True)
        return self._by_trace() if self._proof is Proof.TRACE else self._by_counters()

    def _by_counters(self) -> _Found:
        cost = Cost.parse(self._noted("job.cost"))
        if cost is None:
            return _Found(text="Julia ended without saying what it compiled", broken=True)
        usual: Cost | None = Cost(nanoseconds=0, code_bytes=0)
        if cost != usual:
            run_process(self.command("usual", ("-e", "")))
            usual = Cost.parse(self._noted("usual.cost"))
        if usual is not None and not cost.beyond(usual):
            return _NOTHING
        lines = self._statements("job") - self._statements("usual")
        if self.ready.resolved.release.startup and only_julias(lines, self._standard()):
            text = f"compiled {cost}: methods of Julia's own, of which package images can hold no code"
            return _Found(text=text, broken=False)
        return _Found(text=f"compiled {cost}: {listed(lines)}", broken=True)

    def refusal(self, missed: Miss) -> str:
        """Why Julia would have compiled, in a sentence."""
        release = self.ready.resolved.release
        which = f"{release.stack} {release.id}"
        asked = f" ({missed.place})" if missed.place and missed.name else ""
        what = f"{missed.what}{asked} would have to be compiled"
        if not missed.name:
            return f"{what}: {which} has no code for it that this Julia takes"
        if missed.name not in self._compiled():
            return f"{what}: it is not in {which}"
        # Asked again on its own, Julia says which rule rejects the cache; it may still compile nothing.
        package = f'Base.PkgId(Base.UUID("{missed.uuid}"), "{missed.name}")' if missed.uuid else ""
        code = f"Base.require({package})" if package else f"import {missed.name}"
        env = {**self.node.env, "JULIA_DEBUG": "loading"}
        done = run_process(self.placed.command(("-e", code), env))
        because = rejection(done.err.decode(errors="replace"))
        return f"{what}: its cache in {which} was not taken" + (f", because {because}" if because else "")

    @property
    def _proof(self) -> Proof:
        version = JuliaVersion.parse(self.ready.resolved.release.julia_version)
        return capabilities(data_text("julia.toml"), version).proof

    def _by_trace(self) -> _Found:
        lines = self._statements("job")
        if lines:
            run_process(self.command("usual", ("-e", "")))
            lines -= self._statements("usual")
        return _Found(text=f"compiled {listed(lines)}", broken=True) if lines else _NOTHING

    def _statements(self, name: str) -> frozenset[str]:
        return statements(self._noted(f"{name}.trace"))

    def _noted(self, name: str) -> str:
        try:
            with open(f"{self.folder}/{name}", encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def _compiled(self) -> frozenset[str]:
        """The packages that the chosen image has caches of."""
        folders = tuple(f"{part.path}/compiled/" for part in self.ready.selection.chosen.packages)
        files = self.ready.resolved.release.files
        return frozenset(
            path.split("/")[-2] for path in files if path.startswith(folders) and path.endswith(".ji")
        )

    def _standard(self) -> frozenset[str]:
        """The packages that come with this Julia."""
        release = self.ready.resolved.release
        version = JuliaVersion.parse(release.julia_version)
        share = f"{release.julia_path}/{release.julia_share}".removeprefix(release.fqrn.mountpoint)
        return frozenset(os.listdir(f"{self.ready.root}{share}/stdlib/v{version.major}.{version.minor}"))
