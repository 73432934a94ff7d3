"""Reading what a plan is made from: settings, project, Julia, CPU."""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headstart.build.plan import Inputs
from headstart.build.sources import glance, read_project
from headstart.build.trees import julia_tree
from headstart.datafiles import data_text
from headstart.errors import ConfigurationError, IncompatibleError, MissingToolError
from headstart.image import RecordedTarget, recorded_targets, require_vectors
from headstart.julia import Capabilities, Target, capabilities, require_features, target
from headstart.machine import JuliaInstall, cpu_flags, read_text, recipe_texts
from headstart.microarchitecture import LEVELS
from headstart.names import Fqrn
from headstart.official import OfficialBuilds, Wish, settle
from headstart.process import Runner
from headstart.project import SETTINGS_FILE, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for."""

    project: str
    """The project's directory."""
    stage: str
    """The staging directory."""
    fqrn: Fqrn
    targets: tuple[str, ...]
    """In place of those in ``Headstart.toml``; none when nothing was said."""
    julia: str
    """A Julia, or an official archive of one, in place of what would be found; empty when nothing was said."""
    refresh: bool
    """Look for a newer official build than the one that is kept."""


def gather(
    request: Request, env: Mapping[str, str], run: Runner, builds: OfficialBuilds
) -> tuple[Inputs, JuliaInstall]:
    """Read everything that a release is made of; nothing is written but an official Julia that must be fetched.

    Raises:
        ConfigurationError: the project, its lock or its settings are wrong, or there is no such target.
        MissingToolError: no Julia, or none that can be shipped.
        IncompatibleError: a target above this machine's level or this Julia's, or a Julia that is not known.
        UnavailableError: an official Julia has to be fetched, and the server does not answer.
        CorruptError: what it sends, or what was kept of it, is not what it should be.
        CacheError: it cannot be kept.
    """
    path = os.path.join(os.path.abspath(request.project), SETTINGS_FILE)
    if not os.path.isdir(request.project):
        raise ConfigurationError(
            f"there is no directory {os.path.dirname(path)}", hint="name the directory of a Julia project"
        )
    hint = 'write one with at least name = "..." (the name that the stack is published by)'
    settings = Settings.parse(read_text(path, "it says what the stack is called", hint), path)
    levels = request.targets or settings.targets
    glance(request.project)
    wish = Wish(given=request.julia, wanted=settings.julia, refresh=request.refresh)
    install, origin = settle(wish, env, run, builds)
    version = install.probe.version
    # Which lock is the project's depends on the Julia that looks for it.
    project = read_project(
        request.project, request.stage, install.probe.locks, workspaces=install.probe.workspaces
    )
    table = data_text("targets.toml")
    targets = [target(table, level, version) for level in dict.fromkeys(levels)]
    targets.sort(key=lambda one: tuple(LEVELS).index(one.level))
    can = capabilities(data_text("julia.toml"), version)
    require_targets(targets, install, can, cpu_flags())
    inputs = Inputs(
        fqrn=request.fqrn,
        settings=settings,
        project=project,
        julia=julia_tree(install),
        origin=origin,
        version=version,
        capabilities=can,
        targets=tuple(targets),
        recipe=recipe_texts(),
    )
    return inputs, install


def require_targets(
    targets: Iterable[Target], install: JuliaInstall, can: Capabilities, offered: frozenset[str]
) -> None:
    """Refuse what this machine or this Julia cannot build, before anything is built.

    Args:
        targets: what is wanted.
        install: with which Julia.
        can: what its version does.
        offered: what this CPU offers.

    Raises:
        IncompatibleError: a target above this machine's level or this Julia's.
        MissingToolError: Julia's own image cannot be read.
    """
    own = _own_targets(install, can)
    for one in targets:
        _require(one, offered, own)


def able_levels(
    levels: Iterable[str], install: JuliaInstall, can: Capabilities, offered: frozenset[str]
) -> list[str]:
    """Those of some levels, the lowest first, that can be built here: up to the first that cannot.

    Args:
        levels: such as ``x86-64-v3``.
        install: as for ``require_targets``, and so are the others.
        can: what its version does.
        offered: what this CPU offers.

    Raises:
        ConfigurationError: there is no such level.
        MissingToolError: Julia's own image cannot be read.
    """
    table, own = data_text("targets.toml"), _own_targets(install, can)
    found: list[str] = []
    with contextlib.suppress(IncompatibleError):
        for level in levels:
            _require(target(table, level, install.probe.version), offered, own)
            found.append(level)
    return found


def _require(one: Target, offered: frozenset[str], own: tuple[RecordedTarget, ...] | None) -> None:
    require_features(one, offered)
    if own is not None:
        require_vectors(one, own)


def _own_targets(install: JuliaInstall, can: Capabilities) -> tuple[RecordedTarget, ...] | None:
    """What Julia's own image was made for, where that matters to this version; it is large, so read it once."""
    if not can.own_vectors:
        return None
    path = install.probe.system_image
    try:
        with open(path, "rb") as file:
            return recorded_targets(file, can.image_layout, f"{path}, Julia's own image,")
    except OSError as error:
        raise MissingToolError(f"cannot read Julia's own image {path}: {error.strerror}") from error
