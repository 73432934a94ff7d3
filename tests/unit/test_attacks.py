"""What a hostile or broken source can do to the chain of trust, and the one error it gets for it."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from headstart.cvmfs.entry import ChunkedFile, File
from headstart.cvmfs.manifest import MANIFEST_FILE
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName, Revision, deflate
from headstart.cvmfs.rows import Nested
from headstart.cvmfs.signature import Letter, seal
from headstart.cvmfs.trust import Blacklist, MasterKeys, Seen
from headstart.cvmfs.whitelist import WHITELIST_FILE
from headstart.errors import CorruptError, Error, MissingError, StorageError, TrustError, UnknownError
from headstart.names import Fqrn
from headstart.snapshot import Snapshot
from simulator import DAY, NOW, Simulator, certificate_pem, rsa_signer


@pytest.fixture
def repository() -> Simulator:
    simulator = Simulator()
    simulator.put("/a/file", b"content" * 1000)
    simulator.put("/a/chunked", bytes(range(256)) * 64, chunk=5000)
    simulator.put("/nested/file", b"inside")
    simulator.nest("/nested")
    simulator.put("/other/file", b"elsewhere")
    simulator.nest("/other")
    simulator.publish()
    return simulator


def opened(simulator: Simulator, **how: object) -> Snapshot:
    arguments = {"keys": simulator.masters, "fqrn": simulator.fqrn, "now": NOW} | how
    return Snapshot.open(simulator, **arguments)  # type: ignore[arg-type]  # any argument, by name


def read_everything(simulator: Simulator, **how: object) -> None:
    snapshot = opened(simulator, **how)
    for path, entry in snapshot.walk(b""):
        if isinstance(entry, File | ChunkedFile):
            snapshot.read(path, limit=1 << 20)


def refused(kind: type[Error], simulator: Simulator, match: str, **how: object) -> None:
    with pytest.raises(kind, match=match):
        read_everything(simulator, **how)


def test_the_untouched_repository_holds(repository: Simulator) -> None:
    read_everything(repository)
    read_everything(repository, fqrn=None)


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.SHAKE128])
def test_it_holds_in_every_hash(algorithm: Algorithm) -> None:
    simulator = Simulator(algorithm=algorithm)
    simulator.put("/file", b"content")
    simulator.publish()
    read_everything(simulator)


# -- rollback and freeze ------------------------------------------------------------------------------------


def test_older_revision_than_seen(repository: Simulator) -> None:
    old = repository.files[MANIFEST_FILE]
    repository.publish()
    seen = opened(repository).seen
    read_everything(repository, seen=seen)
    repository.files[MANIFEST_FILE] = old
    refused(TrustError, repository, "at revision 1, this node has already seen 2", seen=seen)


def test_older_time_than_seen(repository: Simulator) -> None:
    seen = opened(repository).seen
    manifest = repository.manifest
    repository.sign_manifest(replace(manifest, timestamp=manifest.timestamp - 1))
    refused(TrustError, repository, "1 s before", seen=seen)


def test_two_states_under_one_revision(repository: Simulator) -> None:
    seen = opened(repository).seen
    repository.put("/more", b"more")
    repository.revision -= 1
    repository.publish()
    read_everything(repository)
    refused(TrustError, repository, "another one than", seen=seen)


def test_revision_on_the_blacklist(repository: Simulator) -> None:
    blacklist = Blacklist.from_text("# bad ones\n<julia.example.org 2\n")
    refused(TrustError, repository, "blacklist", blacklist=blacklist)
    repository.publish()
    read_everything(repository, blacklist=blacklist)


@pytest.mark.parametrize("line", ["<julia.example.org", "<julia.example.org x", "< 5", "<a.b 1 2"])
def test_blacklist_line_that_says_nothing_is_no_comment(line: str) -> None:
    with pytest.raises(CorruptError, match="line 1"):
        Blacklist.from_text(line)


def test_whitelist_ends_at_the_start_of_its_hour(repository: Simulator) -> None:
    ends = NOW.replace(minute=0)
    repository.sign_whitelist(replace(repository.whitelist, expires=ends.replace(minute=59)))
    read_everything(repository, now=ends - timedelta(seconds=1))
    refused(TrustError, repository, "expired on 2026-11-22 at 20:00", now=ends)
    refused(TrustError, repository, "expired", now=NOW + 400 * DAY)


# -- wrong keys, wrong repository ---------------------------------------------------------------------------


def test_wrong_master_key(repository: Simulator) -> None:
    refused(TrustError, repository, WHITELIST_FILE, keys=MasterKeys((rsa_signer("mallory").public,)))


def test_any_of_several_master_keys(repository: Simulator) -> None:
    keys = MasterKeys((rsa_signer("mallory").public, rsa_signer("master").public))
    read_everything(repository, keys=keys)


def test_no_master_key_at_all() -> None:
    with pytest.raises(TrustError, match="no public key"):
        MasterKeys(())


def test_another_repository_of_the_same_owner(repository: Simulator) -> None:
    refused(TrustError, repository, "of julia.example.org, not of", fqrn=Fqrn("other.example.org"))


def test_manifest_of_another_repository(repository: Simulator) -> None:
    other = Simulator(fqrn=Fqrn("other.example.org"))
    other.publish()
    repository.files |= {path: data for path, data in other.files.items() if path != WHITELIST_FILE}
    refused(TrustError, repository, "of other.example.org, not of julia.example.org")


def test_whitelist_of_another_repository(repository: Simulator) -> None:
    repository.sign_whitelist(replace(repository.whitelist, fqrn=Fqrn("other.example.org")))
    refused(TrustError, repository, "of other.example.org, not of julia.example.org")


def test_manifest_signed_with_another_key(repository: Simulator) -> None:
    repository.sign_manifest(repository.manifest, key="mallory")
    refused(TrustError, repository, MANIFEST_FILE)


def test_swapped_certificate(repository: Simulator) -> None:
    stored = deflate(certificate_pem(str(repository.fqrn), "mallory"))
    digest = repository.store(stored, Kind.CERTIFICATE)
    repository.sign_manifest(replace(repository.manifest, certificate=digest), key="mallory")
    refused(TrustError, repository, "not on its whitelist")


def test_certificate_object_with_other_bytes(repository: Simulator) -> None:
    repository.files[repository.manifest.certificate_name.path] = deflate(
        certificate_pem(str(repository.fqrn), "mallory")
    )
    refused(CorruptError, repository, "bytes of its name")


def test_blacklisted_certificate(repository: Simulator) -> None:
    # In another hash than the whitelist's, with a comment: the site's list has its own ways.
    fingerprint = repository.certificate.fingerprint(Algorithm.SHAKE128)
    blacklist = Blacklist.from_text(f"{str(fingerprint).lower()} # stolen\n")
    refused(TrustError, repository, "on this site's blacklist", blacklist=blacklist)


def test_whitelist_without_fingerprints(repository: Simulator) -> None:
    repository.sign_whitelist(replace(repository.whitelist, fingerprints=()))
    refused(TrustError, repository, "not on its whitelist")


def test_old_and_new_certificate_on_one_whitelist(repository: Simulator) -> None:
    good = repository.certificate.fingerprint(Algorithm.SHAKE128)
    other = replace(repository.whitelist.fingerprints[0].digest, raw=b"x" * 20)
    fingerprints = (type(good)(other), good)
    repository.sign_whitelist(replace(repository.whitelist, fingerprints=fingerprints))
    read_everything(repository)


@pytest.mark.parametrize("line", ["Vpkcs7", "Wcachain"])
def test_whitelist_that_asks_for_what_is_not_checked(repository: Simulator, line: str) -> None:
    issued, expires, fqrn, *rest = repository.whitelist.to_bytes().split(b"\n")
    text = b"\n".join([issued, expires, fqrn, line.encode(), *rest])
    signer = rsa_signer("master")
    repository.files[WHITELIST_FILE] = seal(text, algorithm=Algorithm.SHA1, sign=signer.sign_plain)
    refused(TrustError, repository, line)


# -- signatures of another form -----------------------------------------------------------------------------


def sealed(repository: Simulator, name: str, sign: Callable[[bytes], bytes]) -> None:
    text = Letter.cut(repository.files[name], what=name).text
    repository.files[name] = seal(text, algorithm=Algorithm.SHA1, sign=sign)


def test_whitelist_signed_with_a_digest_info(repository: Simulator) -> None:
    sealed(repository, WHITELIST_FILE, rsa_signer("master").sign_sha1)
    refused(TrustError, repository, WHITELIST_FILE)


def signed_with_sha256(line: bytes) -> bytes:
    return rsa_signer("repository").key.sign(line, padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.parametrize(
    "sign",
    [
        pytest.param(rsa_signer("repository").sign_plain, id="no-digest-info"),
        pytest.param(signed_with_sha256, id="sha-256"),
        pytest.param(lambda line: rsa_signer("repository").sign_sha1(line + b"\n"), id="with-newline"),
        pytest.param(lambda line: rsa_signer("repository").sign_sha1(line.upper()), id="upper-case"),
        pytest.param(lambda line: rsa_signer("repository").sign_sha1(line) + b"\n", id="trailing-newline"),
        pytest.param(lambda line: b"\0" + rsa_signer("repository").sign_sha1(line), id="leading-zero"),
        pytest.param(lambda _: b"\0" * 256, id="zeros"),
        pytest.param(lambda _: b"\xff" * 256, id="ones"),
        pytest.param(lambda _: b"\1" * 100, id="short"),
        pytest.param(lambda _: (1).to_bytes(256, "big"), id="one"),
    ],
)
def test_manifest_signed_otherwise(repository: Simulator, sign: Callable[[bytes], bytes]) -> None:
    sealed(repository, MANIFEST_FILE, sign)
    refused(TrustError, repository, MANIFEST_FILE)


@pytest.mark.parametrize("name", [MANIFEST_FILE, WHITELIST_FILE])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data + b"\n", id="trailing-newline"),
        pytest.param(lambda data: data.replace(b"\n", b"\r\n"), id="crlf"),
        pytest.param(lambda data: data[:-1], id="last-byte-lost"),
        pytest.param(lambda data: data[:200], id="half"),
        pytest.param(lambda data: data.partition(b"\n--\n")[0] + b"\n", id="unsigned"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"<html><body>502 Bad Gateway</body></html>\n", id="html"),
        pytest.param(lambda _: b"\n--\n" * 1000, id="separators"),
        pytest.param(lambda data: data.replace(b"--\n", b"--\nf", 1), id="longer-hash"),
    ],
)
def test_signed_file_damaged_on_the_way(
    repository: Simulator, name: str, change: Callable[[bytes], bytes]
) -> None:
    repository.files[name] = change(repository.files[name])
    with pytest.raises((CorruptError, TrustError), match=rf"\{name}"):
        read_everything(repository)


@pytest.mark.parametrize("name", [MANIFEST_FILE, WHITELIST_FILE])
def test_upper_case_hash_line(repository: Simulator, name: str) -> None:
    letter = Letter.cut(repository.files[name], what=name)
    sign = rsa_signer("master").sign_plain if name == WHITELIST_FILE else rsa_signer("repository").sign_sha1
    line = letter.hash_line.upper()
    repository.files[name] = letter.text + b"--\n" + line + b"\n" + sign(line)
    refused(CorruptError, repository, "no content digest")


@pytest.mark.parametrize("name", [MANIFEST_FILE, WHITELIST_FILE])
def test_every_flipped_bit_is_found(repository: Simulator, name: str) -> None:
    good = repository.files[name]
    for at in range(0, len(good), 3):
        broken = bytearray(good)
        broken[at] ^= 1 << at % 8
        repository.files[name] = bytes(broken)
        with pytest.raises((CorruptError, TrustError)):
            opened(repository)


# -- no repository, missing parts, too much ------------------------------------------------------------------


@pytest.mark.parametrize("name", [MANIFEST_FILE, WHITELIST_FILE])
def test_no_repository_there(repository: Simulator, name: str) -> None:
    del repository.files[name]
    refused(StorageError, repository, rf"no CVMFS repository: it has no \{name}")


@pytest.mark.parametrize("name", [MANIFEST_FILE, WHITELIST_FILE])
def test_endless_signed_file(repository: Simulator, name: str) -> None:
    repository.files[name] += b"x" * (1 << 16)
    refused(CorruptError, repository, "more than the 65536 bytes")


def objects(repository: Simulator) -> dict[str, str]:
    """Path of one object of each sort that the state is made of."""
    snapshot = opened(repository)
    nested = snapshot.root_catalog.nested[b"/nested"].digest
    file = repository.tree[b"/a/file"]
    chunked = repository.tree[b"/a/chunked"]
    assert isinstance(file, File)
    assert isinstance(chunked, ChunkedFile)
    repository.requests.clear()
    return {
        "certificate": repository.manifest.certificate_name.path,
        "root": repository.manifest.root_catalog_name.path,
        "nested": ObjectName(digest=nested, kind=Kind.CATALOG).path,
        "file": ObjectName(digest=file.digest, kind=Kind.FILE).path,
        "chunk": ObjectName(digest=chunked.chunks[1].digest, kind=Kind.CHUNK).path,
    }


OBJECTS = ["certificate", "root", "nested", "file", "chunk"]


@pytest.mark.parametrize("which", OBJECTS)
def test_missing_object(repository: Simulator, which: str) -> None:
    path = objects(repository)[which]
    del repository.files[path]
    refused(MissingError, repository, path)


@pytest.mark.parametrize("which", OBJECTS)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data[:-1], id="truncated"),
        pytest.param(lambda data: data[:9] + bytes([data[9] ^ 4]) + data[10:], id="flipped"),
        pytest.param(lambda data: data + b"\0", id="longer"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"<html>Not Found</html>", id="html"),
        pytest.param(lambda data: data + b"\0" * (1 << 20), id="endless"),
    ],
)
def test_damaged_object(repository: Simulator, which: str, change: Callable[[bytes], bytes]) -> None:
    path = objects(repository)[which]
    repository.files[path] = change(repository.files[path])
    refused(CorruptError, repository, path)
    # It was asked for once more, past the caches on the way, and then no more.
    attempts = [fresh for wanted, fresh in repository.requests if wanted == path]
    assert attempts[:2] == [False, True]


@pytest.mark.parametrize("which", OBJECTS)
def test_damage_in_a_cache_on_the_way_is_survived(repository: Simulator, which: str) -> None:
    path = objects(repository)[which]
    repository.stale[path] = b"<html>Captive portal</html>"
    read_everything(repository)


def test_old_copies_in_a_cache_on_the_way_are_survived(repository: Simulator) -> None:
    repository.stale = {name: repository.files[name] for name in (MANIFEST_FILE, WHITELIST_FILE)}
    repository.publish()
    read_everything(repository, seen=Seen(revision=Revision(2), timestamp=0))
    repository.stale[WHITELIST_FILE] = b"<html>502</html>"
    read_everything(repository)


# -- signed by the right key, and wrong nevertheless -------------------------------------------------------


def bomb(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def test_bomb_in_the_certificate(repository: Simulator) -> None:
    digest = repository.store(bomb(1 << 24), Kind.CERTIFICATE)
    repository.sign_manifest(replace(repository.manifest, certificate=digest))
    refused(CorruptError, repository, "inflates to more than the 65536 bytes")


@pytest.mark.parametrize("said", [1 << 16, 0])
def test_bomb_in_the_root_catalog(repository: Simulator, said: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.cvmfs.trust.CATALOG_LIMIT", 1 << 20)
    digest = repository.store(bomb(1 << 24), Kind.CATALOG)
    repository.sign_manifest(replace(repository.manifest, root_catalog=digest, root_size=said))
    refused(CorruptError, repository, "inflates to more than")


def test_bomb_in_a_file(repository: Simulator) -> None:
    entry = repository.put("/a/bomb", b"small")
    digest = repository.store(bomb(1 << 20))
    assert isinstance(entry, File)
    repository.tree[b"/a/bomb"] = replace(entry, digest=digest)
    repository.publish()
    with pytest.raises(CorruptError, match=r"inflates to more than the 5 bytes|more than the \d+ bytes"):
        opened(repository).read(b"/a/bomb", limit=1 << 30)


def test_file_shorter_than_its_catalog_says(repository: Simulator) -> None:
    entry = repository.put("/a/short", b"content")
    assert isinstance(entry, File)
    repository.tree[b"/a/short"] = replace(entry, size=8)
    repository.publish()
    refused(CorruptError, repository, "has 7 bytes in .*, not the 8")


def test_file_above_the_caller_s_limit_is_not_even_fetched(repository: Simulator) -> None:
    snapshot = opened(repository)
    file = objects(repository)["file"]
    with pytest.raises(CorruptError, match="more than the 6999"):
        snapshot.read(b"/a/file", limit=6999)
    assert file not in [path for path, _ in repository.requests]


def test_catalog_of_another_place(repository: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = opened(repository)
    other = snapshot.root_catalog.nested[b"/other"]
    write = Simulator._write

    def swapped(self: Simulator, mountpoint: bytes, stamp: int) -> tuple[Nested, object]:
        reference, statistics = write(self, mountpoint, stamp)
        return (other if mountpoint == b"/nested" else reference), statistics

    monkeypatch.setattr(Simulator, "_write", swapped)
    repository.publish()
    with pytest.raises(CorruptError, match="/nested"):
        opened(repository).read(b"/nested/file", limit=100)


def test_catalog_at_what_is_no_mountpoint(repository: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Simulator, "_as_mountpoint", lambda self, path: self.tree[path])
    repository.publish()
    with pytest.raises(CorruptError, match=r"flags 0x1 are not those of this directory"):
        opened(repository).read(b"/nested/file", limit=100)


def test_history_and_meta_info_where_there_are_none(repository: Simulator) -> None:
    assert opened(repository).history() is not None
    repository.sign_manifest(replace(repository.manifest, history=None))
    assert opened(repository).history() is None
    assert opened(repository).metainfo() is None


@pytest.mark.parametrize("kind", [Kind.HISTORY, Kind.METAINFO])
def test_bomb_in_history_and_meta_info(
    repository: Simulator, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.snapshot.HISTORY_LIMIT", 1 << 20)
    digest = repository.store(bomb(1 << 22), kind)
    repository.sign_manifest(replace(repository.manifest, history=digest, metainfo=digest))
    snapshot = opened(repository)
    with pytest.raises(CorruptError, match="inflates to more than the 1048576"):
        snapshot.history() if kind is Kind.HISTORY else snapshot.metainfo()


def test_root_catalog_of_another_revision(repository: Simulator) -> None:
    repository.sign_manifest(replace(repository.manifest, revision=Revision(9)))
    refused(CorruptError, repository, "of revision 1, the manifest of 9")


def test_root_catalog_of_another_size(repository: Simulator) -> None:
    manifest = repository.manifest
    repository.sign_manifest(replace(manifest, root_size=manifest.root_size + 1))
    refused(CorruptError, repository, "not the")


def test_nested_catalog_in_the_place_of_the_root(repository: Simulator) -> None:
    nested = opened(repository).root_catalog.nested[b"/nested"]
    repository.sign_manifest(replace(repository.manifest, root_catalog=nested.digest, root_size=nested.size))
    with pytest.raises(CorruptError):
        read_everything(repository)


def test_manifest_that_names_no_object(repository: Simulator) -> None:
    digest = Digest(algorithm=Algorithm.SHA1, raw=b"\1" * 20)
    repository.sign_manifest(replace(repository.manifest, root_catalog=digest))
    refused(MissingError, repository, "01/0101")


# -- paths ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [b"a", b"/", b"/a/", b"//a", b"/a/../a/file", b"/a/./file", b"/..", b"/a\0", b"/missing"]
)
def test_paths_that_are_none(repository: Simulator, path: bytes) -> None:
    snapshot = opened(repository)
    for ask in (snapshot.lookup, snapshot.children, lambda path: snapshot.read(path, limit=1)):
        with pytest.raises(UnknownError):
            ask(path)


def test_symbolic_links_are_never_followed(repository: Simulator) -> None:
    repository.link("/a/out", "../../../../etc/passwd")
    repository.link("/a/dir", "../nested")
    repository.publish()
    snapshot = opened(repository)
    for path in (b"/a/out", b"/a/dir", b"/a/dir/file"):
        with pytest.raises(UnknownError):
            snapshot.read(path, limit=1 << 20)
    with pytest.raises(UnknownError):
        snapshot.children(b"/a/dir")


def test_a_catalog_is_fetched_when_it_is_needed_and_once(repository: Simulator) -> None:
    nested = objects(repository)["nested"]
    snapshot = opened(repository)
    snapshot.lookup(b"/a/file")
    assert nested not in [path for path, _ in repository.requests]
    snapshot.lookup(b"/nested/file")
    snapshot.children(b"/nested")
    assert [path for path, _ in repository.requests].count(nested) == 1
