"""What a build would do, decided before anything is done."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from headstart.build.sources import ProjectTree
from headstart.errors import ConfigurationError, IncompatibleError
from headstart.julia import Capabilities, ImageLayout, JuliaVersion, Target
from headstart.names import Fqrn, JuliaName, ReleaseId, Sha256
from headstart.project import LOCK_FILE, PROJECT_FILE, ImageKind, Local, Package, Settings, Standard, Tracked
from headstart.record import canonical
from headstart.release import ImageRecord, JuliaTree, Release, SystemImage
from headstart.script import launcher

RECIPE = "1"
"""Grows when the way of building changes in a manner that the texts of the recipe do not show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that a release is made of."""

    fqrn: Fqrn
    settings: Settings
    project: ProjectTree
    julia: JuliaTree
    version: JuliaVersion
    capabilities: Capabilities
    targets: tuple[Target, ...]
    """From the least to the most demanding."""
    recipe: Mapping[str, str]
    """The Julia scripts that the build runs, by file name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """What is to be built, and under which id."""

    inputs: Inputs
    id: ReleaseId
    digests: Mapping[str, str]
    """What the id was made of."""
    packages: tuple[Package, ...]
    """What goes into the image, leaf first."""

    @property
    def path(self) -> str:
        """Where the release will be seen: an absolute path."""
        return f"{self.inputs.fqrn.mountpoint}/stacks/{self.inputs.settings.name}/{self.id}"

    @property
    def julia_path(self) -> str:
        """Where its Julia will be seen."""
        return f"{self.inputs.fqrn.mountpoint}/julia/{self.julia}"

    @property
    def julia(self) -> JuliaName:
        """The directory of its Julia."""
        return self.inputs.julia.name

    def lines(self) -> tuple[str, ...]:
        """The plan for a person."""
        inputs = self.inputs
        names = " ".join(package.name for package in self.packages) or "none"
        tracked = sum(isinstance(package.source, Tracked) for package in inputs.project.lock.packages)
        local = sum(isinstance(package.source, Local) for package in inputs.project.lock.packages)
        standard = sum(isinstance(package.source, Standard) for package in inputs.project.lock.packages)
        return (
            f"release    {inputs.settings.name} {self.id}",
            f"path       {self.path}",
            f"julia      {self.julia} ({len(inputs.julia.files)} files)",
            f"lock       {tracked} packages by tree hash, {local} by path, {standard} of Julia's own",
            f"compile    {names}",
            f"workload   {inputs.settings.workload or 'none'}",
            *(line for one in inputs.targets for line in _image_lines(one)),
            f"smoke      {inputs.settings.smoke or inputs.settings.workload or 'loading the packages'}",
        )


def _image_lines(target: Target) -> list[str]:
    """A target; long ones of Julia's go on in another line."""
    text = f"image      {target.level} (-C {target.cpu_target.replace(',', ', ')})"
    return textwrap.wrap(text, 79, subsequent_indent=" " * 11, break_on_hyphens=False)


def plan(inputs: Inputs) -> BuildPlan:
    """Decide what is to be built.

    Raises:
        ConfigurationError: a script that the settings name is not in the project, or a kind of image that this
            Headstart does not build.
        IncompatibleError: this Julia cannot read the lock, or lacks what the lock takes for its own.
    """
    settings = inputs.settings
    if settings.image is not ImageKind.SYSTEM:
        raise ConfigurationError(
            f"image = {settings.image.value!r}: this Headstart builds system images only", hint='use "sysimage"'
        )
    if inputs.capabilities.image_layout is ImageLayout.UNKNOWN:
        raise ConfigurationError(
            f"the CPU targets that an image of Julia {inputs.version} records cannot be checked yet",
            hint="use Julia 1.13 or older",
        )
    lock = inputs.project.lock
    if lock.format not in inputs.capabilities.lock_formats:
        by = f", written by Julia {lock.julia}," if lock.julia else ""
        raise IncompatibleError(
            f"Julia {inputs.version} cannot read a {LOCK_FILE} of format {lock.format}{by}"
            " and would find no package in it",
            hint="build with Julia 1.6.2 or newer, or resolve the project with the Julia that it is built with",
        )
    _check_standard(inputs)
    for key, script in (("workload", settings.workload), ("smoke", settings.smoke)):
        if script and script not in inputs.project.files:
            raise ConfigurationError(f"Headstart.toml: {key} is {script}, and the project has no such file")
    digests = _digests(inputs)
    own = inputs.project.project
    packages = inputs.project.lock.compiled(own)
    if own.name and own.uuid:
        packages += (Package(name=own.name, uuid=own.uuid, source=Local("."), dependencies=()),)
    return BuildPlan(
        inputs=inputs, id=ReleaseId(Sha256.of(canonical(digests)).hex[:16]), digests=digests, packages=packages
    )


def _check_standard(inputs: Inputs) -> None:
    """Refuse a lock that counts on packages which this Julia does not bring: another one resolved it."""
    version = inputs.version
    library = f"{inputs.julia.share}/stdlib/v{version.major}.{version.minor}/"
    brought = {
        path[len(library) :].partition("/")[0] for path in inputs.julia.files if path.startswith(library)
    }
    missing = [
        package.name
        for package in inputs.project.lock.packages
        if isinstance(package.source, Standard) and package.name not in brought
    ]
    if missing:
        raise IncompatibleError(
            f"{LOCK_FILE} takes {', '.join(sorted(missing))} for Julia's own,"
            f" and Julia {version} does not bring it",
            hint="resolve the project with the Julia that it is built with",
        )


def _digests(inputs: Inputs) -> dict[str, str]:
    settings = inputs.settings

    def script(path: str) -> str:
        return inputs.project.digest(path).hex if path else "none"

    return {
        "fqrn": str(inputs.fqrn),
        "stack": str(settings.name),
        "julia": Sha256.of(inputs.julia.to_bytes()).hex,
        "project": inputs.project.digest(PROJECT_FILE).hex,
        "lock": inputs.project.digest(LOCK_FILE).hex,
        "sources": inputs.project.digest().hex,
        "workload": script(settings.workload),
        "smoke": script(settings.smoke),
        "targets": " ".join(f"{one.level}={one.cpu_target}" for one in inputs.targets),
        "recipe": Sha256.of(canonical([RECIPE, dict(inputs.recipe)])).hex,
        "launcher": Sha256.of(_specimen(inputs)).hex,
    }


def _specimen(inputs: Inputs) -> bytes:
    """The launch script as it would be but for the id: it is part of the release, so it is an input."""
    images = tuple(image_record(target, size=0, seconds=0.0) for target in inputs.targets)
    return launcher(release_record(inputs, ReleaseId("0" * 16), images)).encode()


def image_record(target: Target, *, size: int, seconds: float) -> ImageRecord:
    """The record of one image; what it records of itself has been checked against the target."""
    return ImageRecord(
        target=target.level,
        cpu_target=target.cpu_target,
        recorded=target.recorded,
        features=target.features,
        code=SystemImage(path=image_path(target), size=size),
        build_seconds=round(seconds, 1),
    )


def image_path(target: Target) -> str:
    """The system image inside the release."""
    return f"images/{target.level}/sys.so"


def release_record(inputs: Inputs, release: ReleaseId, images: tuple[ImageRecord, ...]) -> Release:
    """``release.json`` without the list of files and the time, which are known last."""
    julia = inputs.julia
    return Release(
        fqrn=inputs.fqrn,
        stack=inputs.settings.name,
        id=release,
        julia=julia.name,
        julia_digest=Sha256.of(julia.to_bytes()),
        julia_version=julia.version,
        julia_executable=julia.executable,
        julia_share=julia.share,
        julia_library_path=julia.library_path,
        julia_options=inputs.capabilities.run_options,
        relocatable=inputs.capabilities.relocatable,
        startup="",
        load_path=(),
        inputs={},
        images=images,
        files={},
        built="",
    )
