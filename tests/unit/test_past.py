"""Past states from a reader's side: found through what is signed, and what a hostile source can do about it."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.blacklists import read_blacklists
from headstart.cvmfs.history import History, Tag
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.objects import Digest, Kind, ObjectName, Revision, deflate
from headstart.cvmfs.past import ByDate, ByHash, ByRevision, ByTag, Selector, chosen, parse_selector
from headstart.cvmfs.signature import Certificate
from headstart.cvmfs.trust import Blacklist
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.errors import ConfigurationError, CorruptError, Error, MissingError, TrustError, UnknownError
from headstart.snapshot import Snapshot
from simulator import DAY, NOW, Simulator, certificate_pem, rsa_signer
from strategies import digests


class Past(Simulator):
    """A simulated repository with a history of its states."""

    tags: tuple[Tag, ...] = ()

    def publish_as(self, name: str, text: str) -> Manifest:
        """Publish a state with ``/file``, and a tag for it."""
        self.put("/file", text.encode())
        self.put("/nested/file", b"the same")
        self.nest("/nested")
        manifest = self.publish()
        tag = Tag(
            name=name,
            digest=manifest.root_catalog,
            revision=manifest.revision,
            timestamp=manifest.timestamp,
            size=manifest.root_size,
        )
        self.tags = (*self.tags, tag)
        return self.sign_history(self.tags)

    def sign_history(self, tags: tuple[Tag, ...]) -> Manifest:
        """Sign the present state with other tags."""
        history = self.store(deflate(History(fqrn=self.fqrn, tags=tags).to_bytes()), Kind.HISTORY)
        manifest = replace(self.manifest, history=history)
        self.sign_manifest(manifest)
        return manifest


def opened(repository: Simulator, now: datetime = NOW, blacklist: Blacklist | None = None) -> Snapshot:
    return Snapshot.open(
        repository,
        keys=repository.masters,
        fqrn=repository.fqrn,
        now=now,
        blacklist=blacklist or Blacklist(),
    )


@pytest.fixture
def repository() -> Past:
    made = Past()
    for day, name in enumerate(("one", "two", "three")):
        made.now = NOW + day * DAY
        made.publish_as(name, f"state {name}")
    return made


def text(snapshot: Snapshot) -> bytes:
    return snapshot.read(b"/file", limit=100)


@pytest.mark.parametrize(
    ("selector", "name"),
    [
        (ByTag("one"), b"state one"),
        (ByTag("three"), b"state three"),
        (ByRevision(Revision(2)), b"state two"),
        (ByDate(NOW), b"state one"),
        (ByDate(NOW + DAY - timedelta(seconds=1)), b"state one"),
        (ByDate(NOW + DAY), b"state two"),
        (ByDate(NOW + 90 * DAY), b"state three"),
    ],
)
def test_a_past_state_is_read(repository: Past, selector: Selector, name: bytes) -> None:
    snapshot = opened(repository).at(selector)
    assert text(snapshot) == name
    assert snapshot.past is not None
    assert snapshot.past.proven
    assert snapshot.manifest.revision == 3
    assert snapshot.read(b"/nested/file", limit=10) == b"the same"
    assert snapshot.seen == opened(repository).seen  # what is remembered is the present state


def test_a_root_hash_is_an_anchor_of_its_own_unless_a_tag_has_it(repository: Past) -> None:
    first = repository.tags[0].digest
    assert opened(repository).at(ByHash(first)).past == opened(repository).at(ByTag("one")).past
    repository.sign_history(repository.tags[1:])
    snapshot = opened(repository).at(ByHash(first))
    assert text(snapshot) == b"state one"
    assert snapshot.past is not None
    assert not snapshot.past.proven
    assert (snapshot.revision, snapshot.past.tag) == (1, "")


@pytest.mark.parametrize(
    ("selector", "error"),
    [
        (ByTag("four"), UnknownError),
        (ByDate(NOW - timedelta(seconds=1)), UnknownError),
        (ByRevision(Revision(9)), UnknownError),
        (ByHash(Digest.parse("ab" * 20)), MissingError),
    ],
)
def test_a_state_that_is_not_there(repository: Past, selector: Selector, error: type[Error]) -> None:
    with pytest.raises(error):
        opened(repository).at(selector)


# -- attacks -------------------------------------------------------------------------------------------------


def test_an_old_history_object_in_the_place_of_the_new_one(repository: Past) -> None:
    """Served under the name of the present one, to hide a tag or to let one point where it once did."""
    old = History(fqrn=repository.fqrn, tags=repository.tags[:1]).to_bytes()
    present = repository.manifest.history
    assert present is not None
    repository.files[ObjectName(digest=present, kind=Kind.HISTORY).path] = deflate(old)
    with pytest.raises(CorruptError, match="does not have the bytes of its name"):
        opened(repository).at(ByTag("one"))


def test_an_old_manifest_with_its_old_history(repository: Past) -> None:
    seen = opened(repository).seen
    repository.sign_history(repository.tags[:2])
    repository.sign_manifest(replace(repository.manifest, revision=Revision(2)))
    with pytest.raises(TrustError, match="this node has already seen 3"):
        Snapshot.open(repository, keys=repository.masters, fqrn=None, now=NOW, seen=seen)


def test_the_history_of_another_repository(repository: Past) -> None:
    other = repository.store(
        deflate(History(fqrn=type(repository.fqrn)("other.example.org"), tags=repository.tags).to_bytes()),
        Kind.HISTORY,
    )
    repository.sign_manifest(replace(repository.manifest, history=other))
    with pytest.raises(CorruptError, match=r"is of 'other\.example\.org'"):
        opened(repository).at(ByTag("one"))


def test_a_tag_that_points_at_the_root_catalog_of_another_repository(repository: Past) -> None:
    """A root catalog has no name in it, so its size and revision must be what the tag says."""
    other = Past(now=NOW)
    other.put("/file", b"from elsewhere")
    other.revision = 6
    foreign = other.publish()
    path = foreign.root_catalog_name.path
    repository.files[path] = other.files[path]
    lie = replace(repository.tags[0], name="lie", digest=foreign.root_catalog, size=foreign.root_size)
    repository.sign_history((*repository.tags, lie))
    with pytest.raises(CorruptError, match="is of revision 7, and tag lie gives 1"):
        opened(repository).at(ByTag("lie"))
    repository.sign_history((*repository.tags, replace(lie, revision=Revision(7), size=lie.size + 4096)))
    with pytest.raises(CorruptError, match="that tag lie gives"):
        opened(repository).at(ByTag("lie"))


def test_a_nested_catalog_is_no_state(repository: Past) -> None:
    nested = opened(repository).root_catalog.nested[b"/nested"].digest
    with pytest.raises(CorruptError, match="belongs at /nested"):
        opened(repository).at(ByHash(nested))


def test_a_damaged_root_catalog(repository: Past) -> None:
    path = ObjectName(digest=repository.tags[0].digest, kind=Kind.CATALOG).path
    repository.files[path] = repository.files[path][:-1]
    with pytest.raises(CorruptError):
        opened(repository).at(ByTag("one"))


# -- keys that are no longer good ----------------------------------------------------------------------------


def test_a_revoked_certificate(repository: Past) -> None:
    other = Certificate.from_pem(certificate_pem(str(repository.fqrn), "another"), what="it")
    listed = replace(repository.whitelist, fingerprints=(other.fingerprint(repository.algorithm),))
    repository.sign_whitelist(listed)
    with pytest.raises(TrustError, match="not on its whitelist"):
        opened(repository)


def test_an_older_whitelist_that_is_still_valid_is_refused_by_who_saw_the_newer_one(repository: Past) -> None:
    """A thief of a revoked key serves the whitelist that still has it."""
    old = repository.files[WHITELIST_FILE]
    repository.sign_whitelist(replace(repository.whitelist, issued=NOW + 3 * DAY, expires=NOW + 30 * DAY))
    seen = opened(repository, NOW + 3 * DAY).seen
    repository.files[WHITELIST_FILE] = old
    opened(repository, NOW + 3 * DAY)  # valid for who has no memory
    with pytest.raises(TrustError, match="has seen a newer one"):
        Snapshot.open(repository, keys=repository.masters, fqrn=None, now=NOW + 3 * DAY, seen=seen)


def test_an_expired_whitelist_hides_the_past_too(repository: Past) -> None:
    with pytest.raises(TrustError, match="expired"):
        opened(repository, NOW + 40 * DAY)


def test_two_certificates_on_one_whitelist_are_both_good(repository: Past) -> None:
    pem = certificate_pem(str(repository.fqrn), "next")
    other = Certificate.from_pem(pem, what="it").fingerprint(repository.algorithm)
    both = (*repository.whitelist.fingerprints, other)
    repository.sign_whitelist(replace(repository.whitelist, fingerprints=both))
    assert text(opened(repository)) == b"state three"
    certificate = repository.store(deflate(pem), Kind.CERTIFICATE)
    repository.sign_manifest(replace(repository.manifest, certificate=certificate), key="next")
    assert text(opened(repository)) == b"state three"
    repository.sign_manifest(replace(repository.manifest, certificate=certificate), key="repository")
    with pytest.raises(TrustError, match="signature"):
        opened(repository)
    assert rsa_signer("next").public != rsa_signer("repository").public


# -- the site's blacklist ------------------------------------------------------------------------------------


def test_the_blacklist_refuses_a_certificate(repository: Past, tmp_path: Path) -> None:
    place = tmp_path / "blacklist"
    place.write_text(f"# stolen in May\n{repository.certificate.fingerprint(repository.algorithm)} # theirs\n")
    with pytest.raises(TrustError, match="blacklist"):
        opened(repository, blacklist=read_blacklists(site=[str(place)]))


def test_the_blacklist_refuses_revisions_of_the_present_and_the_past(repository: Past, tmp_path: Path) -> None:
    place = tmp_path / "blacklist"
    place.write_text(f"<{repository.fqrn} 2\n<other.example.org 9\n<{repository.fqrn}\t1\n")
    snapshot = opened(repository, blacklist=read_blacklists(site=[str(place)]))
    assert text(snapshot.at(ByTag("two"))) == b"state two"
    for selector in (ByTag("one"), ByHash(repository.tags[0].digest)):
        with pytest.raises(TrustError, match=r"revision 1 .* blacklist, which wants 2"):
            snapshot.at(selector)
    place.write_text(f"<{repository.fqrn} 4")
    with pytest.raises(TrustError, match="wants 4"):
        opened(repository, blacklist=read_blacklists(site=[str(place)]))


def test_blacklists_add_up(tmp_path: Path) -> None:
    (tmp_path / "site").write_text(f"{'AB' * 20}\n<a.example.org 3\n")
    (tmp_path / "mine").write_text(f"{'cd' * 20}\n<a.example.org 2\n<b.example.org 5\n")
    found = read_blacklists([str(tmp_path / "mine")], site=[str(tmp_path / "site")])
    assert {str(item).replace(":", "").lower() for item in found.fingerprints} == {"ab" * 20, "cd" * 20}
    assert found.revisions == {"a.example.org": 3, "b.example.org": 5}


def test_a_node_may_have_no_blacklist_but_not_one_that_cannot_be_read(tmp_path: Path) -> None:
    assert read_blacklists(site=[str(tmp_path / "none")]) == Blacklist()
    with pytest.raises(ConfigurationError, match="there is no blacklist"):
        read_blacklists([str(tmp_path / "none")], site=[str(tmp_path / "none")])
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_blacklists(site=[str(tmp_path)])
    (tmp_path / "bad").write_text("<a.example.org\n")
    with pytest.raises(ConfigurationError, match="line 1"):
        read_blacklists(site=[str(tmp_path / "bad")])


# -- what the user writes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("v1.2/rc-1", ByTag("v1.2/rc-1")),
        ("12", ByRevision(Revision(12))),
        ("tag:12", ByTag("12")),
        ("revision:12", ByRevision(Revision(12))),
        ("ab" * 20, ByHash(Digest.parse("ab" * 20))),
        ("ab" * 20 + "-shake128C", ByHash(Digest.parse("ab" * 20 + "-shake128"))),
        ("hash:" + "ab" * 20, ByHash(Digest.parse("ab" * 20))),
        ("generic-2026-11-22T20:15:00Z", ByTag("generic-2026-11-22T20:15:00Z")),
        ("date:2026-11-22", ByDate(datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC))),
        ("date:2026-11-22T20:15:00Z", ByDate(NOW)),
        ("date:2026-11-22 20:15", ByDate(NOW)),
    ],
)
def test_states_are_written_in_these_ways(text: str, selector: Selector) -> None:
    assert parse_selector(text) == selector


@pytest.mark.parametrize("text", ["date:yesterday", "date:2026-02-30", "revision:x", "hash:abc", "AB" * 20])
def test_others_are_refused_or_tags(text: str) -> None:
    if text == "AB" * 20:
        assert parse_selector(text) == ByTag(text)
    else:
        with pytest.raises(ConfigurationError):
            parse_selector(text)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_word_is_a_selector_or_one_sentence(text: str) -> None:
    for read in (parse_selector, ByDate.parse, ByRevision.parse, ByHash.parse):
        with suppress(ConfigurationError):
            assert str(read(text))


@settings(deadline=None)
@given(digests)
def test_a_hash_is_read_back(digest: Digest) -> None:
    assert chosen(None, None, str(digest)) == ByHash(digest)
    assert chosen(None, None, None) is None
