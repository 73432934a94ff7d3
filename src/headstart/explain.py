"""Explain: for each package of a depot, whether a Julia will take its cache, and if not why.

``plan`` puts together what a session would see; ``explain`` looks, and starts nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headstart.cacheheader import CacheRules, PackageId, cache_rules, read_front, read_header
from headstart.datafiles import data_text
from headstart.depotfiles import CacheFolder, DepotFiles, cache_folders, other_versions
from headstart.environment import Environment
from headstart.errors import Error, UnknownError
from headstart.julia import JuliaVersion
from headstart.juliahash import package_slug
from headstart.projectfiles import ProjectFiles
from headstart.release import ImageRecord, Release
from headstart.script import settings
from headstart.session import Session
from headstart.staleness import Examiner
from headstart.verdicts import Accepted, Judge, Rejected, Uncached, Undecided, Unnamed, Verdict

_DEFAULT_LOAD_PATH: Final = ("@", "@v#.#", "@stdlib")

OUTCOMES: Final = {
    Accepted: "accepted",
    Rejected: "rejected",
    Uncached: "missing",
    Undecided: "unknown",
    Unnamed: "unused",
}
"""What becomes of a package, in a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is explained: one session, and whose caches are of interest."""

    session: Session
    rules: CacheRules
    depots: tuple[str, ...]
    """All that the session sees, in order, absolute."""
    asked: tuple[str, ...]
    """Those whose packages are explained; the others only serve."""
    load_path: tuple[str, ...]
    project: str
    """The active project, or empty."""
    seen: str
    """What the session sees at this path ..."""
    there: str
    """... is here; both empty where it sees the disk as it is."""
    whole: bool
    """Read native code too."""

    @property
    def folder(self) -> str:
        """Where caches of this Julia are, below ``compiled``."""
        return f"v{self.session.version.major}.{self.session.version.minor}"


def plan(
    session: Session,
    depots: Sequence[str],
    *,
    project: str = "",
    load_path: tuple[str, ...] = (),
    bundled: bool = True,
    whole: bool = False,
) -> Plan:
    """The session that a user would start.

    Args:
        session: the Julia.
        depots: ``DEPOT_PATH``, absolute, in order.
        project: the active project, absolute; empty for none.
        load_path: ``LOAD_PATH``; Julia's own where it is empty.
        bundled: put the depot that comes with Julia at the end, as an empty entry of ``JULIA_DEPOT_PATH`` does.
        whole: read native code too.

    Raises:
        IncompatibleError: caches of this version are not known.
    """
    own = (session.share,) if bundled and session.share and session.share not in depots else ()
    return Plan(
        session=session,
        rules=_rules(session),
        depots=(*depots, *own),
        asked=tuple(depots),
        load_path=load_path or _DEFAULT_LOAD_PATH,
        project=project,
        seen="",
        there="",
        whole=whole,
    )


def plan_release(
    session: Session, release: Release, image: ImageRecord, root: str, *, whole: bool = False
) -> Plan:
    """The sealed session of a release with one of its images, as at its own path.

    Args:
        session: the release's Julia with that image, described where it is.
        release: what is started.
        image: with which image.
        root: where the repository's tree is: a stage, or the mountpoint.
        whole: read native code too.

    Raises:
        IncompatibleError: caches of this version are not known.
    """
    seen = release.fqrn.mountpoint
    sets = settings(release, release.path, release.julia_path, packages=image.packages)
    depots = tuple(sets["JULIA_DEPOT_PATH"].split(":"))
    return Plan(
        session=session.at(root, seen),
        rules=_rules(session),
        depots=depots,
        asked=tuple(depot for depot in depots if not depot.startswith(release.julia_path + "/")),
        load_path=tuple(sets["JULIA_LOAD_PATH"].split(":")),
        project=sets["JULIA_PROJECT"],
        seen="" if root == seen else seen,
        there="" if root == seen else root,
        whole=whole,
    )


def _rules(session: Session) -> CacheRules:
    return cache_rules(data_text("caches.toml"), session.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found."""

    verdicts: tuple[Verdict, ...]
    """By name."""
    in_system_image: int
    """Packages that the system image brings: no cache is looked at."""
    notes: tuple[str, ...]
    """What is strange about the depots themselves."""

    @property
    def counts(self) -> dict[str, int]:
        """How many packages of each outcome."""
        found = dict.fromkeys(OUTCOMES.values(), 0)
        for verdict in self.verdicts:
            found[OUTCOMES[type(verdict.outcome)]] += 1
        return found

    @property
    def good(self) -> bool:
        """Whether every package that the session can name has a cache that it will take."""
        counts = self.counts
        bad = counts["rejected"] + counts["missing"] + counts["unknown"]
        return not bad and counts["accepted"] + self.in_system_image > 0


def explain(planned: Plan) -> Report:
    """Look at every package.

    Raises:
        ConfigurationError: a project or lock is no TOML.
        UnknownError: a depot is not there, or there are no packages at all.
    """
    return _Look(planned).report()


class _Look:
    def __init__(self, planned: Plan) -> None:
        self._planned = planned
        self._files = DepotFiles(planned.seen, planned.there)
        session = planned.session
        projects = ProjectFiles(
            rules=planned.rules,
            version=session.version,
            files=self._files,
            depots=planned.depots,
            project=planned.project,
            stdlib=session.stdlib,
        )
        self._environment = Environment(projects, planned.load_path)
        examiner = Examiner(
            session,
            planned.rules,
            self._environment,
            files=self._files,
            depots=planned.depots,
            whole=planned.whole,
        )
        self._judge = Judge(examiner)
        self._notes: list[str] = []
        self._strays: list[Verdict] = []

    def report(self) -> Report:
        session = self._planned.session
        packages = set(self._environment.locked())
        folders = [folder for depot in self._planned.asked for folder in self._folders(depot)]
        for folder in folders:
            self._notes += [
                f"{self._path(folder, name)} has no .ji beside it: Julia never looks at it"
                for name in folder.alone
            ]
            packages |= self._packages(folder, packages)
        verdicts = [self._judge.judge(package) for package in packages if package not in session.modules]
        verdicts += self._strays
        self._about(folders)
        inside = sum(package in session.modules for package in packages)
        if not verdicts and not inside:
            where = ", ".join(self._planned.asked)
            raise UnknownError(
                f"{where}: no caches for Julia {session.version.major}.{session.version.minor}, and no project "
                "that names packages",
                hint="; ".join(self._notes) or "name the depots of the session, and its project with --project",
            )
        if verdicts and all(isinstance(verdict.outcome, Unnamed) for verdict in verdicts):
            self._notes.append("no environment of the session names any of these packages: give --project")
        verdicts.sort(key=lambda verdict: verdict.package)
        return Report(verdicts=tuple(verdicts), in_system_image=inside, notes=tuple(self._notes))

    def _path(self, folder: CacheFolder, name: str) -> str:
        inner = f"{folder.name}/{name}" if folder.name else name
        return f"{folder.depot}/compiled/{self._planned.folder}/{inner}"

    def _folders(self, depot: str) -> tuple[CacheFolder, ...]:
        found = self._files.stat(depot)
        if found is None or not found.directory:
            raise UnknownError(
                f"{depot} is no directory, so no depot", hint="name depots, or a release's directory"
            )
        return cache_folders(self._files, depot, self._planned.folder)

    def _packages(self, folder: CacheFolder, known: set[PackageId]) -> set[PackageId]:
        """The packages whose caches are in a folder: by the lock's names, or by what the files say."""
        slugs = {package_slug(one.uuid): one for one in known if one.name == folder.name}
        found: set[PackageId] = set()
        for name in folder.caches:
            path = self._path(folder, name)
            start = name.partition("_")[0]
            package = slugs.get(start) or self._said(path)
            if package is None:
                self._strays.append(self._judge.stray(folder.name or name.removesuffix(".ji"), path))
            elif not _in_place(package, folder.name, name):
                self._notes.append(f"{path} is of {package}, and Julia does not look for that one here")
            else:
                slugs[start] = package
                found.add(package)
        return found

    def _said(self, path: str) -> PackageId | None:
        """Whose cache it says it is, in the layout of the Julia that wrote it."""
        data = self._files.read(path) or b""
        try:
            front, _ = read_front(data)
            rules = cache_rules(data_text("caches.toml"), JuliaVersion.parse(front.version))
            provides = read_header(data, rules).provides
        except Error:
            return None
        return provides[0].package if provides else None

    def _about(self, folders: Sequence[CacheFolder]) -> None:
        for depot in self._planned.asked:
            if not any(folder.depot == depot for folder in folders):
                others = other_versions(self._files, depot, self._planned.folder)
                if others:
                    self._notes.append(
                        f"{depot} has caches of {', '.join(others)}, and none of {self._planned.folder}"
                    )


def _in_place(package: PackageId, folder: str, name: str) -> bool:
    if not package.uuid:
        return not folder and name == f"{package.name}.ji"
    return folder == package.name and name.partition("_")[0] == package_slug(package.uuid)
