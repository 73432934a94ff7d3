"""What a build would do, decided before anything is done."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from headstart.build.sources import ProjectTree
from headstart.errors import ConfigurationError, IncompatibleError
from headstart.julia import Archive, Capabilities, ImageLayout, JuliaOrigin, JuliaVersion, Target
from headstart.names import Fqrn, JuliaName, ReleaseId, Sha256
from headstart.openscript import open_launcher
from headstart.project import LOCK_FILE, PROJECT_FILE, ImageKind, Local, Package, Settings, Standard, Tracked
from headstart.record import canonical
from headstart.release import (
    Code,
    ImageRecord,
    JuliaTree,
    LayeredImages,
    PackageImages,
    Release,
    SystemImage,
)
from headstart.script import launcher
from headstart.wording import counted

IMAGE_FILE = "sys.so"
STARTUP_FOLDER = "startup"
"""An environment of the release's own, whose package keeps what the stack's scripts compile."""
STARTUP_FILE = f"{STARTUP_FOLDER}/startup.jl"
_PREFERENCES = JuliaVersion.parse("1.6")
RECIPE = "3"
"""Grows when the way of building changes in a manner that the texts of the recipe do not show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that a release is made of."""

    fqrn: Fqrn
    settings: Settings
    project: ProjectTree
    julia: JuliaTree
    origin: JuliaOrigin
    """Where that Julia comes from."""
    version: JuliaVersion
    capabilities: Capabilities
    targets: tuple[Target, ...]
    """From the least to the most demanding."""
    recipe: Mapping[str, str]
    """The Julia scripts that the build runs, by file name."""

    @property
    def has_image(self) -> bool:
        """Whether the release has a system image of its own."""
        return self.settings.image is not ImageKind.PACKAGES

    @property
    def has_packages(self) -> bool:
        """Whether it has package images: of the stack, or of the standard library for its own system image."""
        return self.settings.image is not ImageKind.SYSTEM or self.capabilities.stdlib_anew

    @property
    def has_startup(self) -> bool:
        """Whether methods that the stack's scripts need are kept in package images of the release's own."""
        return self.settings.image is not ImageKind.SYSTEM

    @property
    def relocatable(self) -> bool:
        """Whether the release runs from another path: a cache file may hold on to paths, an image does not."""
        can = self.capabilities
        return can.relocatable_caches if self.has_packages else can.relocatable


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """What is to be built, and under which id."""

    inputs: Inputs
    id: ReleaseId
    digests: Mapping[str, str]
    """What the id was made of."""
    packages: tuple[Package, ...]
    """What is compiled, leaf first."""
    in_image: tuple[Package, ...]
    """Those of them that go into a system image, leaf first; none when Julia's own is used."""

    @property
    def on_top(self) -> tuple[Package, ...]:
        """Those that become package images, leaf first."""
        return tuple(package for package in self.packages if package not in self.in_image)

    @property
    def extensions(self) -> frozenset[str]:
        """Names of the modules that packages have for each other's sake."""
        own = self.inputs.project.project.extensions
        return frozenset(
            (*own, *(name for one in self.inputs.project.lock.packages for name in one.extensions))
        )

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
        counts = f"{counted(tracked, 'package')} by tree hash, {local} by path, {standard} of Julia's own"
        return (
            f"release    {inputs.settings.name} {self.id}",
            f"path       {self.path}",
            f"julia      {self.julia} ({counted(len(inputs.julia.files), 'file')})",
            *_origin_lines(inputs.origin),
            f"lock       {inputs.project.lock_name}: {counts}",
            *_preference_lines(inputs),
            *_packages_lines(self, names),
            f"workload   {inputs.settings.workload or 'none'}",
            *(line for one in inputs.targets for line in _image_lines(one)),
            f"smoke      {inputs.settings.smoke or inputs.settings.workload or 'loading the packages'}",
        )


def _origin_lines(origin: JuliaOrigin) -> list[str]:
    if not isinstance(origin, Archive):
        return []
    return [f"archive    {origin.url}", f"sha256     {origin.sha256.hex}"]


def _packages_lines(todo: BuildPlan, names: str) -> list[str]:
    kind = todo.inputs.settings.image
    if kind is not ImageKind.BOTH:
        what = "package images" if kind is ImageKind.PACKAGES else "system image"
        return [f"compile    {names} ({what})"]
    inside = " ".join(package.name for package in todo.in_image)
    on_top = " ".join(package.name for package in todo.on_top) or "none"
    return [f"compile    {inside} (system image)", f"           {on_top} (package images on top)"]


def _preference_lines(inputs: Inputs) -> list[str]:
    """What is set for packages: part of the release, and of what is compiled; who would not see it."""
    found = inputs.project.preferences
    lines = []
    if found.packages:
        unread = f" (Julia {inputs.version} reads none)" if inputs.version < _PREFERENCES else ""
        lines.append(f"preferences for {', '.join(found.packages)}, in {found.file or PROJECT_FILE}{unread}")
    if found.unread:
        names = ", ".join(found.unread)
        lines.append(
            f"preferences for {names} are read by nobody: {PROJECT_FILE} names it in no [deps] or [extras]"
        )
    return lines


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
    if settings.image is not ImageKind.SYSTEM and not inputs.capabilities.package_images:
        raise ConfigurationError(
            f"Headstart.toml: image is {settings.image.value!r}, which Julia {inputs.version} does not have",
            hint='use image = "sysimage", or Julia 1.9 or newer',
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
            f"Julia {inputs.version} cannot read a {inputs.project.lock_name} of format {lock.format}{by}"
            " and would find no package in it",
            hint="build with Julia 1.6.2 or newer, or resolve the project with the Julia that it is built with",
        )
    _check_resolver(inputs)
    _check_standard(inputs)
    for key, script in (("workload", settings.workload), ("smoke", settings.smoke)):
        if script and script not in inputs.project.files:
            raise ConfigurationError(f"Headstart.toml: {key} is {script}, and the project has no such file")
    digests = _digests(inputs)
    own = inputs.project.project
    packages = inputs.project.lock.compiled(own)
    if own.name and own.uuid:
        known = inputs.project.lock.by_uuid()
        needs = tuple((name, one) for name, one in sorted(own.dependencies.items()) if one in known)
        packages += (Package(name=own.name, uuid=own.uuid, source=Local("."), dependencies=needs),)
    return BuildPlan(
        inputs=inputs,
        id=ReleaseId(Sha256.of(canonical(digests)).hex[:16]),
        digests=digests,
        packages=packages,
        in_image=_in_image(inputs, packages),
    )


def _in_image(inputs: Inputs, packages: tuple[Package, ...]) -> tuple[Package, ...]:
    """What goes into the system image: all, none, or the heavy packages and what they depend on.

    Raises:
        ConfigurationError: a heavy package is not in the lock, or nothing says which ones are heavy.
    """
    settings = inputs.settings
    if settings.image is ImageKind.SYSTEM:
        return packages
    if settings.image is ImageKind.PACKAGES:
        return ()
    names = settings.heavy or tuple(one.name for one in packages if isinstance(one.source, Tracked))
    if not names:
        raise ConfigurationError(
            'Headstart.toml: image is "both", and the lock has no package from a registry for the image',
            hint='name the packages of the system image, as in heavy = ["DataFrames"]',
        )
    unknown = sorted(set(names) - {package.name for package in packages})
    if unknown:
        raise ConfigurationError(
            f"Headstart.toml: heavy names {', '.join(unknown)}, which is no package of the lock to be compiled",
            hint=f"it has {', '.join(package.name for package in packages)}",
        )
    reached: set[str] = set()
    pending = [package for package in packages if package.name in names]
    while pending:
        package = pending.pop()
        if package.uuid not in reached:
            reached.add(package.uuid)
            pending += inputs.project.lock.needs(package)
    return tuple(package for package in packages if package.uuid in reached)


def _check_resolver(inputs: Inputs) -> None:
    """Refuse a lock that another minor version of Julia has resolved: the standard library may differ.

    Pkg only warns (``Pkg/src/manifest.jl``, 1.10:344); but what it warns of would be published. The older
    format of a lock does not say who resolved it.
    """
    if not inputs.project.lock.julia:
        return
    resolver = JuliaVersion.parse(inputs.project.lock.julia)
    version = inputs.version
    if (resolver.major, resolver.minor) != (version.major, version.minor):
        raise IncompatibleError(
            f"{inputs.project.lock_name} was resolved by Julia {resolver},"
            f" and the release would be built with {version}",
            hint=f"build with Julia {resolver.major}.{resolver.minor}, or resolve the project with {version}",
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
            f"{inputs.project.lock_name} takes {', '.join(sorted(missing))} for Julia's own,"
            f" and Julia {version} does not bring it",
            hint="resolve the project with the Julia that it is built with",
        )


def _digests(inputs: Inputs) -> dict[str, str]:
    settings, can = inputs.settings, inputs.capabilities

    def script(path: str) -> str:
        return inputs.project.digest(path).hex if path else "none"

    return {
        "fqrn": str(inputs.fqrn),
        "stack": str(settings.name),
        "julia": Sha256.of(inputs.julia.to_bytes()).hex,
        "julia_archive": inputs.origin.sha256.hex if isinstance(inputs.origin, Archive) else "none",
        "project": inputs.project.digest(PROJECT_FILE).hex,
        "lock": inputs.project.digest(LOCK_FILE).hex,
        "sources": inputs.project.digest().hex,
        "workload": script(settings.workload),
        "smoke": script(settings.smoke),
        "image": " ".join((settings.image, *settings.heavy)),
        "lazy": " ".join(settings.lazy) or "none",
        "targets": " ".join(f"{one.level}={one.cpu_target}" for one in inputs.targets),
        "options": " ".join((*can.build_options, *can.cache_options, f"stdlib_anew={can.stdlib_anew}")),
        "recipe": Sha256.of(canonical([RECIPE, dict(inputs.recipe)])).hex,
        "launcher": Sha256.of(_specimen(inputs)).hex,
    }


def _specimen(inputs: Inputs) -> bytes:
    """The launch scripts as they would be but for the id: they are part of the release, so they are inputs."""
    images = tuple(
        image_record(target, image_code(inputs, target, system=0, packages=0, count=0), seconds=0.0)
        for target in inputs.targets
    )
    release = release_record(inputs, ReleaseId("0" * 16), images)
    return (launcher(release) + open_launcher(release, inputs.capabilities.user_depot)).encode()


def image_record(target: Target, code: Code, *, seconds: float) -> ImageRecord:
    """The record of one image; what it records of itself has been checked against the target."""
    return ImageRecord(
        target=target.level,
        cpu_target=target.cpu_target,
        recorded=target.recorded,
        features=target.features,
        code=code,
        build_seconds=round(seconds, 1),
    )


def image_code(inputs: Inputs, target: Target, *, system: int, packages: int, count: int) -> Code:
    """What an image is made of.

    Args:
        inputs: they decide of which kinds it is.
        target: for which level.
        system: bytes of the system image, where it has one.
        packages: bytes of the package images, where it has some.
        count: how many of these.
    """
    image = SystemImage(path=image_path(target), size=system)
    if not inputs.has_packages:
        return image
    depot = PackageImages(path=image_depot(target), size=packages, count=count)
    return LayeredImages(system=image, packages=depot) if inputs.has_image else depot


def image_path(target: Target) -> str:
    """The system image inside the release."""
    return f"{image_depot(target)}/{IMAGE_FILE}"


def image_depot(target: Target) -> str:
    """The depot of package images inside the release."""
    return f"images/{target.level}"


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
        julia_environment=inputs.capabilities.run_environment,
        relocatable=inputs.relocatable,
        startup=STARTUP_FILE if inputs.has_startup else "",
        load_path=(STARTUP_FOLDER,) if inputs.has_startup else (),
        inputs={},
        images=images,
        files={},
        built="",
    )
