"""What a plan takes out of a cache: enough where that is possible, the oldest first, never what is in use."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from headstart.names import Fqrn
from headstart.prune import Wish, plan
from headstart.usage import Survey, Use

FQRNS = (Fqrn("a.example.org"), Fqrn("b.example.org"))


@st.composite
def surveys(draw: st.DrawFn, fqrn: Fqrn) -> Survey:
    """Images of a few releases on a few Julias, whose files are partly the same."""
    uses: list[Use] = []
    units: dict[str, Mapping[int, int]] = {}
    inodes = st.dictionaries(st.integers(1, 30), st.just(0), max_size=4)
    for number in range(draw(st.integers(0, 5))):
        home = f"stacks/s/{draw(st.integers(0, 2))}"
        needs = (f"{home}/images/{number}", home, f"julia/{draw(st.integers(0, 1))}")
        uses.append(
            Use(
                key=f"{number}",
                needs=needs,
                last=float(draw(st.integers(0, 9))),
                leased=draw(st.booleans()),
            )
        )
        for unit in needs:
            if draw(st.booleans()):
                units.setdefault(unit, {inode: 100 + inode for inode in draw(inodes)})
    for unit in draw(st.sets(st.sampled_from(["julia/7", "stacks/s/9"]))):
        units[unit] = {inode: 100 + inode for inode in draw(inodes)}
    named = {unit for use in uses for unit in use.needs}
    store = {f"/files/{fqrn}/{inode}": (inode, 100 + inode) for inode in draw(inodes)}
    return Survey(
        fqrn=fqrn,
        units=units,
        uses=tuple(sorted(uses, key=lambda use: (use.last, use.key))),
        store=store,
        at_work=draw(st.booleans()),
        unnamed=frozenset(unit for unit in units if unit not in named),
    )


both = st.tuples(surveys(FQRNS[0]), surveys(FQRNS[1]))


def left(survey: Survey, gone: set[tuple[Fqrn, str]], files: set[tuple[Fqrn, str]]) -> int:
    blocks: dict[int, int] = {}
    for unit, inner in survey.units.items():
        if (survey.fqrn, unit) not in gone:
            blocks.update(inner)
    blocks.update(dict(one for path, one in survey.store.items() if (survey.fqrn, path) not in files))
    return sum(blocks.values())


@given(both, st.integers(0, 3000), st.data())
def test_what_a_plan_promises(found: tuple[Survey, Survey], limit: int, data: st.DataObject) -> None:
    paths = sorted(path for survey in found for path in survey.store)
    kept = data.draw(st.frozensets(st.sampled_from(paths))) if paths else frozenset()
    done = plan(found, Wish(limit=limit, kept=kept))
    gone = {(one.fqrn, unit) for one in done.departures for unit in one.units} | set(done.strays)
    files = set(done.files)
    departed = {(one.fqrn, one.use.key) for one in done.departures}
    for survey in found:
        for use in survey.uses:
            if (survey.fqrn, use.key) not in departed:
                # What stays has all that it needs; and what is in use stays.
                assert not {(survey.fqrn, unit) for unit in use.needs} & gone
            else:
                assert not use.leased
        assert not survey.at_work or not {path for fqrn, path in files if fqrn == survey.fqrn}
    assert not {path for _, path in files} & kept
    # The sums are what would be there.
    assert done.before == sum(left(survey, set(), set()) for survey in found)
    assert done.after == sum(left(survey, gone, files) for survey in found)
    if done.before <= limit:
        assert (gone, files) == (set(), set())
    if not done.enough:
        # Then everything that could go has gone.
        assert departed == {(survey.fqrn, use.key) for survey in found for use in survey.uses if not use.leased}
    # No younger one went before an older one that could have gone.
    times = [one.use.last for one in done.departures]
    assert times == sorted(times)
    if done.departures:
        last = done.departures[-1].use.last
        for survey in found:
            for use in survey.uses:
                assert use.leased or use.last >= last or (survey.fqrn, use.key) in departed


@given(both, st.integers(0, 9))
def test_what_was_started_since_stays(found: tuple[Survey, Survey], until: int) -> None:
    done = plan(found, Wish(limit=0, until=float(until)))
    assert all(one.use.last <= until for one in done.departures)
    busy = tuple(
        replace(survey, uses=tuple(replace(use, leased=True) for use in survey.uses)) for survey in found
    )
    assert plan(busy, Wish(limit=0)).departures == ()
