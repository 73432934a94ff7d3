"""What becomes of a package: which of its caches Julia takes, or why none.

Theory of operation. Julia tries the caches of a package one after the other. One that is good by itself
(``headstart.staleness``) must also find every module that was loaded when it was made: in the system image,
or as a cache of exactly that build that is good too (``_require_search_from_serialized``, 1.8.5:983,
1.10.6:1536, 1.11.1:1908); up to 1.7 the first good cache of the package is taken, and must be that build
(1.5.3:755). A cache names all it needs, not only its direct dependencies, so nothing has to be followed
further.

A verdict is about a fresh session whose first ``using`` it is.
"""

import posixpath
from dataclasses import dataclass

from headstart.cacheheader import Build, PackageId, read_header
from headstart.errors import CorruptError, IncompatibleError
from headstart.juliahash import package_slug
from headstart.projectfiles import NotKnownError
from headstart.reasons import Rejection, Rule
from headstart.session import CacheFlags
from headstart.staleness import Doubt, Examiner, Finding, Fresh, Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A cache file that Julia tries for a package."""

    path: str
    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A cache will be loaded."""

    path: str
    build: Build


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """All caches are rejected; the reason is that of the one which Julia tries first."""

    path: str
    reason: Rejection


@dataclass(frozen=True, slots=True)
class Uncached:
    """There is none: Julia would compile."""


@dataclass(frozen=True, slots=True)
class Unnamed:
    """No environment of the session names the package: its caches are never looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """Files alone do not tell."""

    path: str
    reasons: tuple[str, ...]


Outcome = Accepted | Rejected | Uncached | Unnamed | Undecided


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a package."""

    package: PackageId
    outcome: Outcome
    candidates: tuple[Candidate, ...]
    """In the order in which Julia tries them."""


class Judge:
    """Judges packages; keeps what it has found."""

    def __init__(self, examiner: Examiner) -> None:
        self._examiner = examiner
        self._ordered: dict[PackageId, tuple[str, ...]] = {}
        self._verdicts: dict[PackageId, Verdict] = {}
        self._asked: set[PackageId] = set()

    def judge(self, package: PackageId) -> Verdict:
        """What becomes of a package in a fresh session."""
        known = self._verdicts.get(package)
        if known is None:
            self._asked.add(package)
            known = self._verdicts[package] = self._judge(package)
            self._asked.discard(package)
        return known

    def stray(self, name: str, path: str) -> Verdict:
        """What becomes of a cache that does not even say whose it is; its folder bears this name."""
        finding = self._examiner.examine(PackageId(name, 0), path).finding
        tried = (Candidate(path=path, finding=finding),)
        return Verdict(package=PackageId(name, 0), outcome=_outcome(tried), candidates=tried)

    def _judge(self, package: PackageId) -> Verdict:
        paths = self.candidates(package)
        try:
            located = self._examiner.environment.locate(package)
        except NotKnownError as error:
            return Verdict(
                package=package, outcome=Undecided(path=(*paths, "")[0], reasons=(str(error),)), candidates=()
            )
        if located is None:
            return Verdict(package=package, outcome=Unnamed(), candidates=())
        tried = tuple(Candidate(path=path, finding=self._complete(package, path)) for path in paths)
        return Verdict(package=package, outcome=_outcome(tried), candidates=tried)

    def candidates(self, package: PackageId) -> tuple[str, ...]:
        """Caches of a package in the order in which Julia tries them (``find_all_in_cache_path``)."""
        known = self._ordered.get(package)
        if known is None:
            known = self._ordered[package] = self._candidates(package)
        return known

    def _candidates(self, package: PackageId) -> tuple[str, ...]:
        version = self._examiner.session.version
        folder = posixpath.join("compiled", f"v{version.major}.{version.minor}")
        if package.uuid:
            folder = posixpath.join(folder, package.name)
        start = f"{package_slug(package.uuid)}_" if package.uuid else f"{package.name}.ji"
        paths = []
        for depot in self._examiner.depots:
            home = posixpath.join(depot, folder)
            for name in self._examiner.files.names(home) or ():
                if name.startswith(start) and (name.endswith(".ji") or not self._examiner.rules.native):
                    path = posixpath.join(home, name)
                    found = self._examiner.files.stat(path)
                    if found is not None and not found.directory:
                        paths.append((path, found.mtime))
        if len(paths) > 1 and self._examiner.rules.candidates != "name":
            native_first = self._examiner.rules.candidates == "native" and self._examiner.session.pkgimages != 0
            paths.sort(key=lambda pair: (native_first and self._is_native(pair[0]), pair[1]), reverse=True)
        return tuple(path for path, _ in paths)

    def _is_native(self, path: str) -> bool:
        data = self._examiner.files.read(path)
        try:
            header = read_header(data or b"", self._examiner.rules)
        except (CorruptError, IncompatibleError):
            return False
        return header.front == self._examiner.session.front and CacheFlags(byte=header.flags).native

    # One candidate, with all that it needs

    def _complete(self, package: PackageId, path: str) -> Finding:
        finding = self._examiner.examine(package, path).finding
        if isinstance(finding, Rejection):
            return finding
        doubts: list[str] = [] if isinstance(finding, Fresh) else list(finding.reasons)
        for wanted in finding.requires:
            answer = self._dependency(wanted)
            if isinstance(answer, Rejection):
                return answer
            if isinstance(answer, Unknown):
                doubts.append(answer.reason)
        if doubts:
            return Doubt(build=finding.build, requires=finding.requires, reasons=tuple(dict.fromkeys(doubts)))
        return finding

    def _dependency(self, wanted: Build) -> Rejection | Unknown | None:
        """Whether a build of a package is to be had."""
        if not self._examiner.rules.by_build_id:
            return self._first_good(wanted)
        best: Rejection | Doubt | None = None
        others = 0
        for path in self.candidates(wanted.package):
            examined = self._examiner.examine(wanted.package, path)
            if examined.header is None or examined.header.build != wanted:
                others += 1
            elif isinstance(examined.finding, Fresh):
                return None
            else:
                best = best or examined.finding
        if isinstance(best, Doubt):
            return Unknown(f"{wanted.package.name}: {best.reasons[0]}")
        name = wanted.package.name
        if best is not None:
            what = f"its cache is rejected: {best.detail}"
        elif others:
            what = f"its {others} caches are of other builds" if others > 1 else "its cache is of another build"
        else:
            what = "it has no cache in these depots"
        return Rejection(rule=Rule.DEPENDENCY, detail=f"it needs {name} as built then; {what}")

    def _first_good(self, wanted: Build) -> Rejection | Unknown | None:
        """Up to 1.7: the first good cache of the package has to be that build."""
        name = wanted.package.name
        if wanted.package in self._asked:
            return Unknown(f"{name} needs itself in a circle")
        outcome = self.judge(wanted.package).outcome
        if isinstance(outcome, Undecided):
            return Unknown(f"{name}: {outcome.reasons[0]}")
        if isinstance(outcome, Accepted):
            if outcome.build == wanted:
                return None
            what = "its first good cache is of another build"
        elif isinstance(outcome, Rejected):
            what = f"its cache is rejected: {outcome.reason.detail}"
        else:
            what = "it has no cache in these depots"
        return Rejection(rule=Rule.DEPENDENCY, detail=f"it needs {name} as built then; {what}")


def _outcome(tried: tuple[Candidate, ...]) -> Outcome:
    for candidate in tried:
        if isinstance(candidate.finding, Fresh):
            return Accepted(path=candidate.path, build=candidate.finding.build)
    for candidate in tried:
        if isinstance(candidate.finding, Doubt):
            return Undecided(path=candidate.path, reasons=candidate.finding.reasons)
    for candidate in tried:
        if isinstance(candidate.finding, Rejection):
            return Rejected(path=candidate.path, reason=candidate.finding)
    return Uncached()
