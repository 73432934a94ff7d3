"""What a snapshot plans, whatever a source tells and a mirror has."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from headstart.cvmfs.history import Tag
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.objects import Algorithm, Digest, Revision
from headstart.cvmfs.reflog import Reference, ReferenceKind, Reflog
from headstart.names import Fqrn
from headstart.repository.mirror import Wishes, plan
from headstart.repository.origin import Origin, Told
from headstart.repository.replica import Standing, snapshot_log

FQRN = Fqrn("julia.example.org")
NOW = datetime(2026, 11, 22, 20, 15, tzinfo=UTC)


def digest(number: int) -> Digest:
    return Algorithm.SHA1.digest(str(number).encode())


CERTIFICATE = digest(1000)


def root(number: int, age: int = 0) -> Reference:
    when = int((NOW - timedelta(days=age)).timestamp())
    return Reference(digest=digest(number), kind=ReferenceKind.CATALOG, timestamp=when)


def manifest(number: int, age: int) -> Manifest:
    return Manifest(
        fqrn=FQRN,
        root_catalog=digest(number),
        revision=Revision(number),
        certificate=CERTIFICATE,
        timestamp=root(number, age).timestamp,
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, Told, Standing | None, Wishes]:
    """A source that has published 0, 1, ... a day apart, and a mirror that has seen some of it."""
    head = draw(st.integers(0, 12))
    collected = draw(st.sets(st.integers(0, 11)))
    there = [number for number in range(head + 1) if number not in collected or number == head]
    tagged = draw(st.lists(st.integers(0, head), max_size=4))
    tags = tuple(
        Tag(name=f"v{place}", digest=digest(number), revision=Revision(number), timestamp=0, size=1)
        for place, number in enumerate(tagged)
    )
    catalogs = tuple(root(number, age=head - number) for number in there)
    told = Told(tags=tags, catalogs=catalogs, others=(), history=None)
    seen = draw(st.none() | st.integers(0, head))
    standing = None
    if seen is not None:
        had = [*draw(st.lists(st.integers(0, seen), unique=True)), seen]
        certificate = Reference(digest=CERTIFICATE, kind=ReferenceKind.CERTIFICATE, timestamp=0)
        references = (*(root(number) for number in sorted(set(had))), certificate)
        standing = Standing(
            manifest=manifest(seen, head - seen),
            published=b"",
            whitelist=None,
            reflog=draw(st.sampled_from((None, Reflog(fqrn=FQRN, references=references)))),
        )
    days = draw(st.none() | st.integers(0, 14))
    keep = timedelta(days=days) if days is not None else None
    return head, told, standing, Wishes(keep=keep, recheck=draw(st.booleans()))


@given(cases())
def test_a_plan(case: tuple[int, Told, Standing | None, Wishes]) -> None:
    head, told, standing, wishes = case
    origin = cast("Origin", SimpleNamespace(manifest=manifest(head, 0), certificate=b""))
    found = plan(origin, standing, told, wishes, NOW)
    log = standing.reflog if standing is not None else None
    old = log.references if log is not None else ()
    had = {item.digest for item in old}
    states = [state.digest for state in found.states]
    assert len(states) == len(set(states))
    demanded = {tag.digest for tag in told.tags} | {digest(head)}
    # Nobody may do without the present state and the tags.
    assert demanded <= had | set(states)
    assert {state.digest for state in found.states if state.demanded} == demanded & set(states)
    if not wishes.recheck:
        assert not had & set(states)
    else:
        assert {item.digest for item in old if item.kind is ReferenceKind.CATALOG} <= set(states)
        assert found.base is None
    # What a snapshot has skipped because it is too old, or was forgotten, does not come by itself.
    known = {item.digest for item in told.catalogs}
    assert set(states) <= known | demanded | had
    after = snapshot_log(FQRN, old, found.tagged, found.fresh)
    catalogs = [item.digest for item in after.references if item.kind is ReferenceKind.CATALOG]
    assert len(after.references) == len({item.digest for item in after.references})
    assert catalogs[-1] == digest(head)
    assert demanded <= set(catalogs)
    assert had <= {item.digest for item in after.references}
    order = {digest(number): number for number in range(head + 1)}
    fresh = [order[item.digest] for item in found.fresh if item.kind is ReferenceKind.CATALOG]
    assert fresh == sorted(fresh)
    # Done once, there is nothing left to do.
    again = Standing(manifest=manifest(head, 0), published=b"", whitelist=None, reflog=after)
    assert not plan(origin, again, told, Wishes(keep=wishes.keep), NOW).states
