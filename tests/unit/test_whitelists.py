"""Renewing whitelists, here and elsewhere; rolling certificates over; revoking them."""

import functools
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import publishing
from crashing import quick_disk
from headstart.cvmfs.manifest import MANIFEST_FILE
from headstart.cvmfs.objects import Algorithm
from headstart.cvmfs.renewal import Request, Terms, renew
from headstart.cvmfs.signature import CertificateFingerprint, seal
from headstart.cvmfs.trust import MasterKeys
from headstart.cvmfs.whitelist import WHITELIST_FILE, Whitelist
from headstart.errors import ConfigurationError, CorruptError, Error, KeyFileError, TrustError, UnknownError
from headstart.keys import RepositoryKeys, create_successor, load_keys
from headstart.names import Fqrn
from headstart.repository import Repository
from headstart.repository.whitelists import (
    Letters,
    install_whitelist,
    plan_renewal,
    renew_whitelist,
    request_of,
    resign_manifest,
    sign_request,
)
from headstart.store import DirectoryStore
from histories import HOUR, Timeline, timeline
from publishing import FQRN, NOW, content_of
from simulator import rsa_signer
from strategies import digests

__all__ = ["quick_disk"]
DAY = 24 * HOUR
fingerprints = digests.map(CertificateFingerprint)


@pytest.fixture
def line(quick_disk: Path) -> Timeline:
    return timeline(quick_disk, 2)


def letters(line: Timeline) -> Letters:
    return Letters.read(line.place.store, publishing.keys().masters)


def renewed(line: Timeline, now: datetime, **terms: object) -> Whitelist:
    wanted = Terms(**terms)  # type: ignore[arg-type]  # any of them, by name
    return renew_whitelist(line.place.store, publishing.all_keys().master, wanted, now).after


@functools.cache
def _successor(folder: Path) -> RepositoryKeys:
    old = publishing.copy_keys(folder / "old")
    return create_successor(str(old), str(folder / "new"), FQRN, now=NOW)


@pytest.fixture(scope="module")
def next_keys(tmp_path_factory: pytest.TempPathFactory) -> RepositoryKeys:
    return _successor(tmp_path_factory.mktemp("successor"))


def fingerprint(keys: RepositoryKeys) -> CertificateFingerprint:
    return keys.certificate.fingerprint(Algorithm.SHA1)


# -- the text ------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(fingerprints, min_size=1, max_size=4, unique=True),
    st.lists(fingerprints, max_size=3),
    st.data(),
    st.integers(1, 366),
    st.integers(-400, 400),
)
def test_a_renewal_keeps_what_it_is_not_told_to_change(
    old: list[CertificateFingerprint],
    add: list[CertificateFingerprint],
    data: st.DataObject,
    days: int,
    later: int,
) -> None:
    revoke = data.draw(st.lists(st.sampled_from(old), unique=True, max_size=len(old) - 1))
    before = Whitelist(fqrn=FQRN, issued=NOW, expires=NOW + DAY, fingerprints=tuple(old))
    terms = Terms(days=days, add=tuple(add), revoke=tuple(revoke))
    renewal = renew(before, terms, fqrn=FQRN, now=NOW + later * DAY)
    after = renewal.after
    assert set(after.fingerprints) == (set(old) - set(revoke)) | set(add)
    assert len(set(after.fingerprints)) == len(after.fingerprints)
    assert after.issued > before.issued
    assert after.expires - after.issued == timedelta(days=days)
    assert set(renewal.kept) | set(renewal.added) == set(after.fingerprints)
    assert set(renewal.revoked) == set(old) - set(after.fingerprints)
    assert Whitelist.from_bytes(after.to_bytes()) == after


@pytest.mark.parametrize("days", [0, -1, 367, 10**9])
def test_days_without_sense_are_refused(days: int) -> None:
    with pytest.raises(ConfigurationError, match="not from 1 to 366"):
        Terms(days=days)


# -- at the storage ------------------------------------------------------------------------------------------


def test_an_expired_whitelist_is_renewed_and_all_is_as_before(line: Timeline) -> None:
    late = NOW + 40 * DAY
    with pytest.raises(TrustError, match="expired"):
        line.place.open(late)
    manifest = (line.place.root / MANIFEST_FILE).read_bytes()
    after = renewed(line, late, days=10)
    assert after.expires == (late + 10 * DAY).replace(microsecond=0)
    assert content_of(line.place.open(late)) == line.contents[2]
    assert (line.place.root / MANIFEST_FILE).read_bytes() == manifest
    with pytest.raises(TrustError, match="expired"):
        line.place.open(late + 10 * DAY)


def test_a_clock_that_went_back_does_not_make_an_older_whitelist(line: Timeline) -> None:
    before = letters(line).whitelist
    assert before is not None
    assert renewed(line, NOW - 5 * DAY).issued == before.issued + timedelta(seconds=1)


def test_a_missing_whitelist_is_made_of_what_is_added(line: Timeline) -> None:
    (line.place.root / WHITELIST_FILE).unlink()
    with pytest.raises(TrustError, match="no certificate would be left"):
        renewed(line, NOW)
    assert renewed(line, NOW, add=(fingerprint(publishing.keys()),)).fqrn == FQRN
    line.place.open(line.now)


def test_a_whitelist_of_another_owner_is_not_carried_on(line: Timeline) -> None:
    before = letters(line).whitelist
    assert before is not None
    forged = seal(before.to_bytes(), algorithm=Algorithm.SHA1, sign=rsa_signer("thief").sign_plain)
    (line.place.root / WHITELIST_FILE).write_bytes(forged)
    with pytest.raises(TrustError, match="signature"):
        renewed(line, NOW)
    assert (line.place.root / WHITELIST_FILE).read_bytes() == forged


def test_the_certificate_in_use_cannot_be_revoked(line: Timeline, next_keys: RepositoryKeys) -> None:
    renewed(line, NOW, add=(fingerprint(next_keys),))
    with pytest.raises(TrustError, match="nobody could read"):
        renewed(line, NOW, revoke=(fingerprint(publishing.keys()),))


def test_what_is_not_there_cannot_be_revoked(line: Timeline, next_keys: RepositoryKeys) -> None:
    with pytest.raises(UnknownError, match="is not on the whitelist"):
        renewed(line, NOW, revoke=(fingerprint(next_keys),))


# -- rollover ------------------------------------------------------------------------------------------------


def test_a_rollover_is_good_at_every_step(line: Timeline, next_keys: RepositoryKeys) -> None:
    store, old_keys = line.place.store, publishing.keys()
    now = line.now

    def good() -> None:
        assert content_of(line.place.open(now)) == line.contents[2]

    with pytest.raises(TrustError, match="not on the whitelist"):
        resign_manifest((store, next_keys), now)
    renewed(line, NOW, add=(fingerprint(next_keys),))
    good()
    before = line.place.open(now).manifest
    after = resign_manifest((store, next_keys), now + HOUR)
    assert (after.root_catalog, after.revision, after.history) == (
        before.root_catalog,
        before.revision,
        before.history,
    )
    assert after.certificate != before.certificate
    assert after.certificate in {
        item.digest for item in Repository.open(store, next_keys, now).reflog().references
    }
    good()  # both are listed, so the old publisher still reads
    resign_manifest((store, old_keys), now + 2 * HOUR)  # and may even sign
    resign_manifest((store, next_keys), now + 3 * HOUR)
    renewed(line, NOW, revoke=(fingerprint(old_keys),))
    with pytest.raises(TrustError, match="certificate in the key directory is not on the whitelist"):
        line.place.open(now)
    with pytest.raises(TrustError, match="not on the whitelist"):
        resign_manifest((store, old_keys), now + 4 * HOUR)
    assert content_of(Repository.open(store, next_keys, now)) == line.contents[2]


def test_a_successor_leaves_the_present_keys_alone_and_has_no_master_key(tmp_path: Path) -> None:
    old = publishing.copy_keys(tmp_path / "old")
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    made = create_successor(str(old), str(tmp_path / "new"), FQRN, now=NOW)
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
    assert sorted(path.name.removeprefix(f"{FQRN}.") for path in (tmp_path / "new").iterdir()) == [
        "channelkey",
        "crt",
        "key",
        "pub",
    ]
    assert made.masters == publishing.keys().masters
    assert made.certificate != publishing.keys().certificate
    assert (tmp_path / "new" / f"{FQRN}.key").stat().st_mode & 0o777 == 0o600
    for into in ("old", "new"):
        with pytest.raises(KeyFileError):
            create_successor(str(old), str(tmp_path / into), FQRN, now=NOW)
    assert load_keys(str(tmp_path / "new"), FQRN).certificate == made.certificate


# -- elsewhere -----------------------------------------------------------------------------------------------


def requested(line: Timeline, now: datetime = NOW, **terms: object) -> Request:
    found = letters(line)
    renewal = plan_renewal(found, Terms(**terms), now)  # type: ignore[arg-type]  # any of them, by name
    return request_of(found, renewal)


def test_a_whitelist_is_signed_without_storage_and_installed_without_the_master_key(
    line: Timeline, next_keys: RepositoryKeys
) -> None:
    request = requested(line, add=(fingerprint(next_keys),))
    carried = Request.from_bytes(request.to_bytes(), where="request")
    assert carried == request
    renewal, data = sign_request(carried, publishing.all_keys().master)
    assert renewal.kept == (fingerprint(publishing.keys()),)
    assert renewal.added == (fingerprint(next_keys),)
    for _ in range(2):  # the second time it is there already
        install_whitelist(line.place.store, publishing.keys().masters, data, NOW)
        assert (line.place.root / WHITELIST_FILE).read_bytes() == data
    Repository.open(line.place.store, next_keys, line.now)


def test_the_signer_sees_what_the_carrier_changed(line: Timeline, next_keys: RepositoryKeys) -> None:
    """Whoever carries the file can write it anew; what is added is worked out where the key is."""
    request = requested(line)
    thief = str(fingerprint(next_keys))
    changed = replace(request, text=request.text + f"{thief}\n".encode())
    renewal, _ = sign_request(changed, publishing.all_keys().master)
    assert [str(item) for item in renewal.added] == [thief]


def changed_text(request: Request, old: str, new: str) -> Request:
    return replace(request, text=request.text.replace(old.encode(), new.encode()))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda it: replace(it, fqrn=Fqrn("other.example.org"), present=b""), TrustError),
        (lambda it: changed_text(it, "Njulia.example.org", "Nother.example.org"), TrustError),
        (lambda it: changed_text(it, "E2026", "E2036"), TrustError),
        (lambda it: changed_text(it, "2026112220", "2016112220"), TrustError),
        (lambda it: replace(it, text=it.text + b"# a comment\n"), CorruptError),
        (lambda it: replace(it, text=b"".join(it.text.splitlines(keepends=True)[:3])), TrustError),
        (lambda it: replace(it, present=it.present[:-1] + b"x"), TrustError),
        (lambda it: replace(it, present=b"nonsense"), CorruptError),
    ],
)
def test_a_request_that_makes_no_sense_is_not_signed(
    line: Timeline, change: object, error: type[Error]
) -> None:
    with pytest.raises(error):
        sign_request(change(requested(line)), publishing.all_keys().master)  # type: ignore[operator]


def test_another_master_key_does_not_sign(line: Timeline) -> None:
    with pytest.raises(TrustError, match="signature"):
        sign_request(requested(line), rsa_signer("other"))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"schema":1,"type":"other"}', b"\xff", b'{"schema":2}'])
def test_other_files_are_no_requests(data: bytes) -> None:
    with pytest.raises(CorruptError):
        Request.from_bytes(data, where="file")


def test_a_whitelist_that_is_older_expired_or_forged_is_not_installed(line: Timeline) -> None:
    masters, store = publishing.keys().masters, line.place.store
    first = sign_request(requested(line, NOW + HOUR), publishing.all_keys().master)[1]
    second = sign_request(requested(line, NOW + 2 * HOUR, days=2), publishing.all_keys().master)[1]
    install_whitelist(store, masters, second, NOW)
    for data, when, words in (
        (first, NOW, "nodes refuse to go back"),  # an older one that is still valid
        (second, NOW + 3 * DAY, "expired"),
        (second[:-1] + bytes([second[-1] ^ 1]), NOW, "signature"),
    ):
        with pytest.raises(TrustError, match=words):
            install_whitelist(store, masters, data, when)
        assert (line.place.root / WHITELIST_FILE).read_bytes() == second


def test_a_whitelist_without_the_present_certificate_is_not_installed(
    line: Timeline, next_keys: RepositoryKeys
) -> None:
    """A request made before a rollover was undone, or another publisher's."""
    present = letters(line)
    assert present.whitelist is not None
    text = replace(
        present.whitelist, issued=NOW + HOUR, expires=NOW + DAY, fingerprints=(fingerprint(next_keys),)
    ).to_bytes()
    data = seal(text, algorithm=Algorithm.SHA1, sign=publishing.all_keys().master.sign_plain)
    with pytest.raises(TrustError, match="nobody could read"):
        install_whitelist(line.place.store, MasterKeys((publishing.all_keys().master.public,)), data, NOW)


def test_what_is_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Error, match="no repository"):
        Letters.read(DirectoryStore(str(tmp_path)), publishing.keys().masters)
