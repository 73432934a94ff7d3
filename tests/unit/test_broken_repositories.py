"""Each thing that the real software rejects, or should: named by ``check``, harmless to readers.

The rows are those of format section 21, and the list of section 19 where it has more.
"""

# ruff: noqa: S608 - the statements are the tests'

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from breaking import NESTED, WHITELIST, Broken, at, changed, expect
from headstart.cvmfs.entry import path_hash
from headstart.cvmfs.manifest import MANIFEST_FILE
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName
from headstart.cvmfs.reflog import REFLOG_FILE
from headstart.cvmfs.signature import CertificateFingerprint
from headstart.errors import Error
from headstart.repository.check import Subject, check
from simulator import NOW, certificate_pem, rsa_signer

REFUSED = "refused"
RIGHT = "read right"
Break = Callable[[Broken], None]
SOME = Digest(algorithm=Algorithm.SHA1, raw=b"s" * 20)
BOTH_SIDES = (f"UPDATE catalog SET mtime=mtime+1 {at(NESTED)}",)


def whitelist(**changes: object) -> Break:
    return lambda it: it.simulator.sign_whitelist(replace(it.simulator.whitelist, **changes))  # type: ignore[arg-type] # as given


def sha256(text: bytes, line: bytes) -> bytes:
    return rsa_signer("repository").key.sign(line, padding.PKCS1v15(), hashes.SHA256())


def upper_case(it: Broken) -> None:
    text, _, rest = it.files[MANIFEST_FILE].partition(b"--\n")
    line = rest.partition(b"\n")[0].upper()
    it.files[MANIFEST_FILE] = text + b"--\n" + line + b"\n" + rsa_signer("repository").sign_sha1(line)


def pem_fingerprint(it: Broken) -> None:
    pem = certificate_pem(str(it.simulator.fqrn), "repository")
    wrong = CertificateFingerprint(digest=Algorithm.SHA1.digest(pem))
    it.simulator.sign_whitelist(replace(it.simulator.whitelist, fingerprints=(wrong,)))


def wal(data: bytes) -> bytes:
    return data[:18] + b"\x02\x02" + data[20:]


def raw_catalog(it: Broken) -> None:
    data = it.database(it.manifest.root_catalog)
    it.publish_root(data, len(data))


def without_letter(it: Broken) -> None:
    name = it.manifest.root_catalog_name
    it.files[name.path[:-1]] = it.files.pop(name.path)


def without(path: str) -> Break:
    def remove(it: Broken) -> None:
        del it.files[path]

    return remove


def gone(kind: Kind) -> Break:
    def remove(it: Broken) -> None:
        suffix = kind.value
        path = next(
            path
            for path in sorted(it.files)
            if path.startswith("data/") and (path.endswith(suffix) if suffix else path[-1] not in "CHXMP")
        )
        del it.files[path]

    return remove


def other_level(it: Broken) -> None:
    pem = certificate_pem(str(it.simulator.fqrn), "repository")
    it.sign(certificate=it.simulator.store(zlib.compress(pem, 1), Kind.CERTIFICATE))


def other_level_metainfo(it: Broken) -> None:
    text = b'{"description": "' + b"much the same again and again " * 20 + b'"}\n'
    it.sign(metainfo=it.simulator.store(zlib.compress(text, 0), Kind.METAINFO))


def other_reflog(it: Broken) -> None:
    it.files[REFLOG_FILE] = changed(it.files[REFLOG_FILE], "UPDATE refs SET timestamp=timestamp+1")


def incomplete_reflog(it: Broken) -> None:
    data = changed(it.files[REFLOG_FILE], "DELETE FROM refs WHERE type=1")
    it.files[REFLOG_FILE] = data
    it.simulator.sign_manifest(replace(it.manifest, reflog=Algorithm.SHA1.digest(data)))


def orphan(it: Broken) -> None:
    it.simulator.store(b"nobody names me")


ROWS: dict[str, tuple[Break, str, str]] = {
    # The two signed files.
    "N of another": (
        lambda it: it.letter(lambda text: text.replace(b"Njulia", b"Nother")),
        "manifest-untrusted",
        REFUSED,
    ),
    "R of another path": (
        lambda it: it.letter(lambda text: text.replace(b"Rd4", b"Rd5")),
        "manifest-damaged",
        REFUSED,
    ),
    "D missing": (lambda it: it.letter(lambda text: text.replace(b"D240\n", b"")), "manifest-damaged", REFUSED),
    "CRLF": (lambda it: it.letter(lambda text: text.replace(b"\n", b"\r\n")), "manifest-damaged", REFUSED),
    "signed the letter": (
        lambda it: it.signature(lambda text, line: rsa_signer("repository").sign_sha1(text)),
        "manifest-untrusted",
        REFUSED,
    ),
    "signed without DigestInfo": (
        lambda it: it.signature(lambda text, line: rsa_signer("repository").sign_plain(line)),
        "manifest-untrusted",
        REFUSED,
    ),
    "signed with SHA-256": (lambda it: it.signature(sha256), "manifest-untrusted", REFUSED),
    "signed with newline": (
        lambda it: it.signature(lambda text, line: rsa_signer("repository").sign_sha1(line + b"\n")),
        "manifest-untrusted",
        REFUSED,
    ),
    "newline behind": (
        lambda it: it.files.update({MANIFEST_FILE: it.files[MANIFEST_FILE] + b"\n"}),
        "manifest-untrusted",
        REFUSED,
    ),
    "upper-case hash": (upper_case, "manifest-damaged", REFUSED),
    "no signature": (lambda it: it.signature(lambda text, line: b""), "manifest-damaged", REFUSED),
    "zeros": (lambda it: it.signature(lambda text, line: b"\0" * 256), "manifest-untrusted", REFUSED),
    "100 bytes": (lambda it: it.signature(lambda text, line: b"\1" * 100), "manifest-untrusted", REFUSED),
    "ff": (lambda it: it.signature(lambda text, line: b"\xff" * 256), "manifest-untrusted", REFUSED),
    "another key": (
        lambda it: it.signature(lambda text, line: rsa_signer("thief").sign_sha1(line)),
        "manifest-untrusted",
        REFUSED,
    ),
    "long manifest": (
        lambda it: it.letter(lambda text: text + b"Z" + b"z" * 4000 + b"\n"),
        "manifest-too-long",
        RIGHT,
    ),
    "of the future": (
        lambda it: it.sign(timestamp=int((NOW + timedelta(hours=2)).timestamp())),
        "manifest-time",
        RIGHT,
    ),
    "older than its catalog": (lambda it: it.sign(timestamp=5), "manifest-time", RIGHT),
    "no manifest": (without(MANIFEST_FILE), "file-missing", REFUSED),
    "no whitelist": (without(WHITELIST), "file-missing", REFUSED),
    "whitelist expired": (whitelist(expires=NOW - timedelta(hours=2)), "whitelist-expired", REFUSED),
    "whitelist dies this hour": (whitelist(expires=NOW + timedelta(minutes=30)), "whitelist-expired", REFUSED),
    "whitelist with DigestInfo": (
        lambda it: it.signature(lambda text, line: rsa_signer("master").sign_sha1(line), WHITELIST),
        "whitelist-untrusted",
        REFUSED,
    ),
    "PEM fingerprint": (pem_fingerprint, "certificate-untrusted", REFUSED),
    "whitelist with newline": (
        lambda it: it.files.update({WHITELIST: it.files[WHITELIST] + b"\n"}),
        "whitelist-untrusted",
        REFUSED,
    ),
    # Catalogs as files.
    "catalog stored raw": (raw_catalog, "object-damaged", REFUSED),
    "catalog without C": (without_letter, "object-missing", REFUSED),
    "schema 2.6": (
        lambda it: it.root("UPDATE properties SET value='2.6' WHERE key='schema'"),
        "catalog-schema",
        REFUSED,
    ),
    "WAL": (lambda it: it.root(change=wal), "catalog-damaged", REFUSED),
    "counter missing": (
        lambda it: it.root("DELETE FROM statistics WHERE counter='self_special'"),
        "counter-missing",
        REFUSED,
    ),
    "B wrong": (lambda it: it.sign(root_size=4096), "catalog-size", REFUSED),
    "revision is not S": (
        lambda it: it.root("UPDATE properties SET value='7' WHERE key='revision'"),
        "catalog-revision",
        REFUSED,
    ),
    "root with root_prefix": (
        lambda it: it.root("INSERT INTO properties VALUES ('root_prefix', '/x')"),
        "catalog-place",
        REFUSED,
    ),
    "dangling root predecessor": (
        lambda it: it.root(f"INSERT INTO properties VALUES ('previous_revision', '{SOME}')"),
        "predecessor-missing",
        RIGHT,
    ),
    "dangling nested predecessor": (
        lambda it: it.nested(f"UPDATE properties SET value='{SOME}' WHERE key='previous_revision'"),
        "predecessor-missing",
        RIGHT,
    ),
    # Rows.
    "NULL symlink": (
        lambda it: it.root(f"UPDATE catalog SET symlink=NULL {at(b'/a/link')}"),
        "column-type",
        REFUSED,
    ),
    "NULL name": (lambda it: it.root(f"UPDATE catalog SET name=NULL {at(b'/a/link')}"), "column-type", REFUSED),
    "empty blob on a directory": (
        lambda it: it.root(f"UPDATE catalog SET hash=x'' {at(b'/a')}"),
        "digest",
        REFUSED,
    ),
    "zero hash on a directory": (
        lambda it: it.root(f"UPDATE catalog SET hash=zeroblob(20) {at(b'/a')}"),
        "digest",
        REFUSED,
    ),
    "root's parent is MD5 of nothing": (
        lambda it: it.root("UPDATE catalog SET parent_1={}, parent_2={} {}".format(*path_hash(b""), at(b""))),
        "catalog-root",
        REFUSED,
    ),
    "directory's link count": (
        lambda it: it.root(f"UPDATE catalog SET hardlinks=9 {at(b'/a')}"),
        "link-count",
        RIGHT,
    ),
    "counter": (
        lambda it: it.root("UPDATE statistics SET value=9 WHERE counter='self_regular'"),
        "counter-wrong",
        RIGHT,
    ),
    "subtree counter": (
        lambda it: it.root("UPDATE statistics SET value=9 WHERE counter='subtree_regular'"),
        "counter-wrong",
        RIGHT,
    ),
    "nested size": (lambda it: it.root("UPDATE nested_catalogs SET size=4096"), "catalog-size", REFUSED),
    "mountpoint's mtime": (lambda it: it.root(f"UPDATE catalog SET mtime=7 {at(NESTED)}"), "mountpoint", RIGHT),
    "last chunk missing": (lambda it: it.root("DELETE FROM chunks WHERE offset=20"), "chunks", REFUSED),
    "chunk gap": (lambda it: it.root("UPDATE chunks SET offset=11 WHERE offset=10"), "chunks", REFUSED),
    "chunk lap": (lambda it: it.root("UPDATE chunks SET offset=9 WHERE offset=10"), "chunks", REFUSED),
    "chunks without flag": (
        lambda it: it.root(f"UPDATE catalog SET flags=4 {at(b'/a/chunked')}"),
        "chunks",
        REFUSED,
    ),
    "flag without chunks": (
        lambda it: it.root(f"UPDATE catalog SET flags=68 {at(b'/a/file')}"),
        "chunks",
        REFUSED,
    ),
    "path hash of a file": (
        lambda it: it.root(f"UPDATE catalog SET md5path_1=17 {at(b'/a/file')}"),
        "path-hash",
        REFUSED,
    ),
    "big-endian path hash": (
        lambda it: it.root(
            "UPDATE catalog SET md5path_1={}, md5path_2={} {}".format(*big_endian(b"/a/file"), at(b"/a/file"))
        ),
        "path-hash",
        REFUSED,
    ),
    "hash bits": (
        lambda it: it.root(f"UPDATE catalog SET flags=4+512 {at(b'/a/file')}"),
        "object-missing",
        REFUSED,
    ),
    "unknown hash": (lambda it: it.root(f"UPDATE catalog SET flags=4+1024 {at(b'/a/file')}"), "flags", REFUSED),
    "symlink size": (lambda it: it.root(f"UPDATE catalog SET size=1 {at(b'/a/link')}"), "symlink", RIGHT),
    "sparse rows": (
        lambda it: it.root(
            "CREATE TABLE c AS SELECT * FROM catalog",
            "DELETE FROM catalog",
            "INSERT INTO catalog(rowid, md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode,"
            " mtime, mtimens, flags, name, symlink, uid, gid, xattr) SELECT rowid * 1000, * FROM c",
            "DROP TABLE c",
        ),
        "sparse-rows",
        RIGHT,
    ),
    "rows below a mountpoint": (
        lambda it: it.root(
            "UPDATE catalog SET parent_1={}, parent_2={} {}".format(*path_hash(NESTED), at(b"/a/link"))
        ),
        "mountpoint",
        RIGHT,
    ),
    "rows without a parent": (
        lambda it: it.root(f"UPDATE catalog SET parent_1=1 {at(b'/a/link')}"),
        "row-unreachable",
        RIGHT,
    ),
    "marker missing": (
        lambda it: it.nested(f"DELETE FROM catalog {at(NESTED + b'/.cvmfscatalog')}"),
        "marker",
        RIGHT,
    ),
    "nested root_prefix": (
        lambda it: it.nested("UPDATE properties SET value='/b' WHERE key='root_prefix'"),
        "catalog-place",
        REFUSED,
    ),
    "hidden file": (lambda it: it.root(f"UPDATE catalog SET flags=4+32768 {at(b'/a/file')}"), "flags", RIGHT),
    "bind mountpoint": (
        lambda it: it.root(f"UPDATE catalog SET flags=1+16384 {at(b'/a')}"),
        "bind-mountpoint",
        RIGHT,
    ),
    "hard link without group": (
        lambda it: it.root(f"UPDATE catalog SET hardlinks=2 {at(b'/a/file')}"),
        "hard-links",
        RIGHT,
    ),
    "hard-link group of one with two": (
        lambda it: it.root(f"UPDATE catalog SET hardlinks=2+(1<<32) {at(b'/a/file')}"),
        "hard-links",
        RIGHT,
    ),
    "xattrs": (lambda it: it.root(f"UPDATE catalog SET xattr=x'0101' {at(b'/a/file')}"), "xattrs", REFUSED),
    "variant symlink": (
        lambda it: it.root(f"UPDATE catalog SET symlink='$(X', size=3 {at(b'/a/link')}"),
        "variant-symlink",
        RIGHT,
    ),
    # History.
    "no tags": (lambda it: it.tags("DELETE FROM tags"), "branch", RIGHT),
    "no branch": (lambda it: it.tags("DELETE FROM branches"), "branch", RIGHT),
    "no fqrn": (lambda it: it.tags("DELETE FROM properties WHERE key='fqrn'"), "history-damaged", REFUSED),
    "NULL description": (lambda it: it.tags("UPDATE tags SET description=NULL"), "tag", REFUSED),
    "tag to a missing catalog": (
        lambda it: it.tags(f"INSERT INTO tags SELECT 'old', '{SOME}', 1, 5, 0, '', 4096, '' FROM tags"),
        "tag",
        RIGHT,
    ),
    "tag's size": (lambda it: it.tags("UPDATE tags SET size=1", "UPDATE tags SET name='x'"), "tag", RIGHT),
    "tag's revision": (lambda it: it.tags("UPDATE tags SET revision=9"), "tag", RIGHT),
    "trunk elsewhere": (lambda it: it.tags(f"UPDATE tags SET hash='{SOME}'"), "tag", RIGHT),
    # Storage.
    "no replica marker": (without(".cvmfs_master_replica"), "file-missing", RIGHT),
    "another reflog": (other_reflog, "reflog-checksum", RIGHT),
    "no reflog": (without(REFLOG_FILE), "reflog-missing", RIGHT),
    "reflog is noise": (lambda it: it.files.update({REFLOG_FILE: b"noise"}), "reflog-damaged", RIGHT),
    "reflog without certificate": (incomplete_reflog, "reflog-incomplete", RIGHT),
    "X at another level": (other_level, "not-stock-compression", RIGHT),
    "M at another level": (other_level_metainfo, "not-stock-compression", RIGHT),
    "object missing": (gone(Kind.FILE), "object-missing", REFUSED),
    "chunk missing": (gone(Kind.CHUNK), "object-missing", REFUSED),
    "certificate missing": (gone(Kind.CERTIFICATE), "object-missing", REFUSED),
    "history missing": (gone(Kind.HISTORY), "object-missing", REFUSED),
    "meta information missing": (gone(Kind.METAINFO), "object-missing", REFUSED),
    "orphan": (orphan, "orphans", RIGHT),
    "leftover": (lambda it: it.files.update({"data/txn/abc": b"x"}), "leftover", RIGHT),
    "unknown file": (lambda it: it.files.update({"data/00/readme": b"x"}), "unknown-file", RIGHT),
}


def big_endian(path: bytes) -> tuple[int, int]:
    digest = hashlib.md5(path).digest()
    return int.from_bytes(digest[:8], "big", signed=True), int.from_bytes(digest[8:], "big", signed=True)


def test_the_unbroken_one_is_good() -> None:
    it = Broken()
    report = it.check()
    assert (report.complaints, report.notes) == ([], [])
    assert (report.roots, report.tags, report.catalogs, report.entries) == (1, 1, 2, 10)
    assert report.objects == len([path for path in it.files if path.startswith("data/")])
    assert it.read() == expect(it)


@pytest.mark.parametrize("row", sorted(ROWS))
def test_check_names_it_and_readers_refuse_it_or_read_it_right(row: str) -> None:
    damage, code, reader = ROWS[row]
    it = Broken()
    damage(it)
    assert code in it.codes()
    if reader == REFUSED:
        with pytest.raises(Error):
            it.read()
    else:
        good = expect(it)
        found = it.read()
        assert {path: content for path, content in found.items() if good[path] != content} == {}


def test_a_chunk_with_other_bytes_is_named_by_a_deep_check_only() -> None:
    it = Broken()
    path = next(path for path in sorted(it.files) if path.endswith("P"))
    it.files[path] = it.files[path][:-1] + b"?"
    assert it.check(deep=False).complaints == []
    found = it.check().complaints
    assert [(str(item.code), item.path) for item in found] == [("object-damaged", "/a/chunked")]


def test_all_complaints_are_reported_with_their_paths() -> None:
    it = Broken()
    it.nested(f"UPDATE catalog SET hardlinks=0 {at(NESTED + b'/file')}")
    it.root(
        f"UPDATE catalog SET md5path_1=17 {at(b'/a/file')}",
        f"UPDATE catalog SET size=1 {at(b'/a/link')}",
        f"UPDATE catalog SET mode=mode|1<<20 {at(b'/empty')}",
        "DELETE FROM chunks WHERE offset=20",
        "UPDATE statistics SET value=9 WHERE counter='self_regular'",
    )
    it.files.pop(".cvmfs_master_replica")
    found = {(str(item.code), item.path) for item in it.check().complaints}
    assert found >= {
        ("link-count", "/a/inner/file"),
        ("path-hash", "/a/file"),
        ("symlink", "/a/link"),
        ("column-type", "/empty"),
        ("chunks", "/a/chunked"),
        ("counter-wrong", "/"),
        ("file-missing", ".cvmfs_master_replica"),
    }


def test_what_is_wrong_with_an_old_state_says_which() -> None:
    it = Broken()
    old = it.manifest.root_catalog
    it.root(f"UPDATE catalog SET size=1 {at(b'/a/link')}")
    bad = it.manifest.root_catalog
    size = it.manifest.root_size
    # A tag keeps the bad one, the head is good again.
    it.root(f"UPDATE catalog SET size=4 {at(b'/a/link')}")
    data = changed(it.database(it.manifest.root_catalog), f"UPDATE catalog SET size=1 {at(b'/a/link')}")
    kept = it.simulator.store(zlib.compress(data), Kind.CATALOG)
    stamp = it.manifest.timestamp
    it.tags(f"INSERT INTO tags VALUES ('v1', '{kept}', 1, {stamp}, 0, '', {len(data)}, '')")
    found = it.check().complaints
    assert {(str(item.code), item.path, item.revision) for item in found} == {
        ("symlink", "/a/link", "tag v1"),
        ("reflog-incomplete", ".cvmfsreflog", ""),
    }
    assert old != bad
    assert size == len(data)


def test_a_web_server_is_checked_without_a_listing() -> None:
    it = Broken()
    made = it.simulator
    gone(Kind.FILE)(it)
    subject = Subject(stratum=made, store=None, keys=made.masters, fqrn=made.fqrn)
    assert check(subject, now=NOW, deep=False).complaints == []
    found = check(subject, now=NOW, deep=True).complaints
    assert {str(item.code) for item in found} == {"object-missing"}


def test_hard_link_groups_are_compared() -> None:
    def grouped(*sql: str) -> set[str]:
        it = Broken()
        copy = (
            "INSERT INTO catalog SELECT {}, {}, parent_1, parent_2, hardlinks, hash, size, mode, mtime,"
            " mtimens, flags, 'twin', symlink, uid, gid, xattr FROM catalog {}"
        ).format(*path_hash(b"/a/twin"), at(b"/a/file"))
        both = f"(({at(b'/a/file')[6:]}) OR ({at(b'/a/twin')[6:]}))"
        it.root(
            copy,
            f"UPDATE catalog SET hardlinks=2+(1<<32) WHERE {both}",
            "UPDATE statistics SET value=value+1 WHERE counter='self_regular'",
            "UPDATE statistics SET value=value+7 WHERE counter='self_file_size'",
            *sql,
        )
        return {str(item.code) for item in it.check().complaints}

    assert grouped() == set()
    assert grouped(f"UPDATE catalog SET mtime=3 {at(b'/a/twin')}") == {"hard-links"}
    assert "hard-links" in grouped(f"UPDATE catalog SET hardlinks=3+(1<<32) {at(b'/a/twin')}")
    assert "hard-links" in grouped(f"UPDATE catalog SET hardlinks=2+(2<<32) {at(b'/a/twin')}")


def test_an_object_name_must_not_be_of_two_sizes() -> None:
    it = Broken()
    other = "(SELECT hash FROM catalog {})".format(at(b"/a/file"))
    it.root(f"UPDATE catalog SET hash={other} {at(b'/empty')}")
    found = {(str(item.code), item.path) for item in it.check().complaints}
    assert ("object-size", "/a/file") in found or ("object-size", "/empty") in found


def test_names_that_are_no_text_are_a_note() -> None:
    it = Broken()
    path = b"/a/\xff\xfe"
    it.root(
        "UPDATE catalog SET name=CAST(x'fffe' AS TEXT), md5path_1={}, md5path_2={} {}".format(
            *path_hash(path), at(b"/a/link")
        )
    )
    report = it.check()
    assert report.complaints == []
    assert [(str(item.code), item.path) for item in report.notes] == [("name-not-utf8", "/a/\\xff\\xfe")]


def test_a_replica_has_a_reflog_of_its_own() -> None:
    it = Broken()
    other_reflog(it)
    it.files[".cvmfs_last_snapshot"] = b"Sun Nov 22 20:15:00 UTC 2026\n"
    assert it.check().complaints == []


def test_a_missing_object_names_every_file_that_needs_it() -> None:
    it = Broken()
    it.simulator.put("/b/same", b"content")
    it.simulator.publish()
    it.sign()
    name = ObjectName(digest=Algorithm.SHA1.digest(zlib.compress(b"content")), kind=Kind.FILE)
    del it.files[name.path]
    found = {item.path for item in it.check(deep=False).complaints if item.code == "object-missing"}
    assert {"/a/file", "/b/same"} <= found
