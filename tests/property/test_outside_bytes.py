"""Whatever comes from outside is a value or a named error, soon: every parser, fed with damage and noise."""

import contextlib
import functools
import json
import socket
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import releases
from headstart.channel import ROOT_TYPE, Pointer, Root, read_pointer, read_root
from headstart.cvmfs.catalog import Catalog
from headstart.cvmfs.der import certificate_public_key, rsa_public_key
from headstart.cvmfs.examine import examine, open_database
from headstart.cvmfs.history import History
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objectkeys import contents_in, key_at, keys_in, name_of, places_in
from headstart.cvmfs.reflog import Reference, ReferenceKind, Reflog
from headstart.cvmfs.signature import Certificate, Letter, RsaPublicKey
from headstart.cvmfs.tagcheck import examine_history, examine_reflog
from headstart.cvmfs.trust import Blacklist, MasterKeys
from headstart.cvmfs.whitelist import WHITELIST_FILE, Whitelist
from headstart.dsse import Envelope, sign
from headstart.errors import Error
from headstart.inflating import inflate
from headstart.memory import Memory
from headstart.names import Sha256
from headstart.release import JuliaTree, Release
from headstart.releasestatement import ReleaseStatement, read_statement
from headstart.repository.releasestatements import statement_of
from headstart.webstratum import HttpStratum
from scripted import Script
from simulator import NOW, Simulator, certificate_pem, channel_signer, rsa_signer

FQRN = Simulator().fqrn
MASTERS = {rsa_signer("master").public.keyid: rsa_signer("master").public}


@functools.cache
def samples() -> dict[str, bytes]:
    """A good one of each kind."""
    simulator = Simulator()
    simulator.put("/a/b/file", b"content")
    simulator.put("/a/chunked", b"content" * 3, chunk=7)
    simulator.link("/a/link", "b/file")
    simulator.nest("/a/b")
    release = simulator.add_release()
    simulator.add_root()
    pointer = simulator.pointer(release)
    simulator.publish()
    manifest = simulator.manifest
    assert manifest.history is not None
    history = next(data for path, data in simulator.files.items() if path.endswith("H"))
    root = Simulator().root()
    julia = JuliaTree(
        version="1.5.3",
        executable="bin/julia",
        share="share/julia",
        system_image="lib/julia/sys.so",
        library_path=("lib",),
        files={"bin/julia": releases.record_of(b"x", 0o555)},
    )
    certificate = certificate_pem(str(FQRN), "repository")
    logged = Reference(digest=manifest.root_catalog, kind=ReferenceKind.CATALOG, timestamp=5)
    catalog = zlib.decompress(simulator.files[manifest.root_catalog_name.path])
    return {
        "manifest": Letter.cut(simulator.files[MANIFEST_FILE], what="it").text,
        "letter": simulator.files[WHITELIST_FILE],
        "whitelist": Letter.cut(simulator.files[WHITELIST_FILE], what="it").text,
        "certificate": certificate,
        "der": Certificate.from_pem(certificate, what="it").der,
        "key": rsa_signer("master").public.to_pem(),
        "spki": rsa_signer("master").public.spki,
        "envelope": sign(root.to_bytes(), payload_type=ROOT_TYPE, signers=(rsa_signer("master"),)).to_bytes(),
        "root": root.to_bytes(),
        "signed pointer": pointer.signed(channel_signer()),
        "pointer": pointer.to_bytes(),
        "release": releases.release().to_bytes(),
        "signed statement": said(release).signed(channel_signer()),
        "statement": said(release).to_bytes(),
        "julia": julia.to_bytes(),
        "history": zlib.decompress(history),
        "examined history": zlib.decompress(history),
        "reflog": Reflog(fqrn=FQRN, references=(logged,)).to_bytes(),
        "catalog": catalog,
        "examined catalog": catalog,
        "object path": manifest.root_catalog_name.path.encode(),
        "memory": Memory(channels={"jets/prod": (5, 1)}).to_bytes(),
        "blacklist": b"<julia.example.org 3\n" + b"AB:" * 19 + b"AB\n",
        "answers": (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nabcde\r\n0\r\nA: b\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nA: b\r\n c\r\n\r\nabc"
        ),
        "stored": zlib.compress(b"content" * 100),
    }


def read_catalog(data: bytes) -> None:
    catalog = Catalog.from_bytes(data, mountpoint=b"")
    for path in (b"/a", b"/a/link", b"/a/chunked", b"/a/b"):
        with contextlib.suppress(Error):
            catalog.lookup(path)
    with contextlib.suppress(Error):
        list(catalog.entries())
    with contextlib.suppress(Error):
        catalog.complaints()
    with contextlib.suppress(Error):
        catalog.beyond_us()


def examine_catalog(data: bytes) -> None:
    database = open_database(data, b"")
    examine(database, b"")
    keys = set(keys_in(database))
    for content in contents_in(database):
        name_of(content.key)
    list(places_in(database, b"", keys))


def read_reflog(data: bytes) -> None:
    examine_reflog(data, FQRN)
    Reflog.from_bytes(data, fqrn=FQRN).to_bytes()


def read_signed_pointer(data: bytes) -> None:
    good = Pointer.from_bytes(samples()["pointer"], where="it")
    found = read_pointer(data, root=Simulator().root(), stack=good.stack, channel=good.channel)
    found.check_time(NOW)


def said(release: Release) -> ReleaseStatement:
    return statement_of(release, Sha256.of(release.to_bytes()), b"")


def read_signed_statement(data: bytes) -> None:
    good = ReleaseStatement.from_bytes(samples()["statement"], where="it")
    read_statement(data, root=Simulator().root(), stack=good.stack, digest=good.digest)


class Away:
    """A sink."""

    def begin(self) -> None:
        pass

    def take(self, piece: bytes | memoryview) -> None:
        pass

    def following(self) -> str:
        return "x"


def read_answers(data: bytes) -> None:
    with (
        mock.patch.object(socket, "create_connection", side_effect=lambda *_, **__: Script(data)),
        HttpStratum("http://host/r") as stratum,
    ):
        stratum.pour("x", Away(), limit=1000)
        stratum.fetch("x", limit=1000)


def trust(data: bytes) -> None:
    MasterKeys(tuple(MASTERS.values())).trust(data, fqrn=FQRN, now=datetime(2026, 12, 1, tzinfo=UTC))


PARSERS: dict[str, Callable[[bytes], object]] = {
    "manifest": Manifest.from_bytes,
    "letter": trust,
    "whitelist": Whitelist.from_bytes,
    "certificate": lambda data: Certificate.from_pem(data, what="it"),
    "der": lambda data: certificate_public_key(data, what="it"),
    "key": lambda data: RsaPublicKey.from_pem(data, what="it"),
    "spki": lambda data: rsa_public_key(data, what="it"),
    "envelope": lambda data: (
        Envelope.from_bytes(data, where="it"),
        read_root(data, master=MASTERS, fqrn=FQRN),
    ),
    "root": Root.from_bytes,
    "signed pointer": read_signed_pointer,
    "pointer": lambda data: Pointer.from_bytes(data, where="it"),
    "signed statement": read_signed_statement,
    "statement": lambda data: ReleaseStatement.from_bytes(data, where="it"),
    "release": lambda data: Release.from_bytes(data).to_bytes(),
    "julia": lambda data: JuliaTree.from_bytes(data).to_bytes(),
    "history": lambda data: History.from_bytes(data, fqrn=FQRN),
    "examined history": lambda data: examine_history(data, FQRN),
    "reflog": read_reflog,
    "catalog": read_catalog,
    "examined catalog": examine_catalog,
    "object path": lambda data: key_at(data.decode(errors="replace")),
    "memory": Memory.from_bytes,
    "blacklist": lambda data: Blacklist.from_text(data.decode(errors="replace")),
    "answers": read_answers,
    "stored": lambda data: inflate(data, limit=1000, what="it"),
}
JSON = ("root", "pointer", "statement", "release", "julia", "memory", "envelope", "signed pointer")
quick = settings(
    max_examples=40, deadline=2000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def survives(kind: str, data: bytes) -> None:
    """Nothing but a named error may come out."""
    with contextlib.suppress(Error):
        PARSERS[kind](data)


@pytest.mark.parametrize("kind", sorted(PARSERS))
def test_the_samples_are_good(kind: str) -> None:
    PARSERS[kind](samples()[kind])


FOUND = Path(__file__).resolve().parent.parent / "fuzz"
"""What ``tools/fuzz.py`` has found, by parser; all of it is mended."""


@pytest.mark.parametrize(
    "place",
    [pytest.param(place, id=f"{place.parent.name}-{place.name}") for place in sorted(FOUND.glob("*/*"))],
)
def test_what_fuzzing_has_found_is_a_value_or_a_named_error(place: Path) -> None:
    survives(place.parent.name.replace("-", " "), place.read_bytes())


@pytest.mark.parametrize("kind", sorted(PARSERS))
@quick
@given(data=st.data())
def test_damage_is_a_value_or_a_named_error(kind: str, data: st.DataObject) -> None:
    content = bytearray(samples()[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        match data.draw(st.sampled_from(["flip", "set", "cut", "insert", "copy"])):
            case "flip":
                content[at : at + 1] = bytes(
                    byte ^ 1 << data.draw(st.integers(0, 7)) for byte in content[at : at + 1]
                )
            case "set":
                content[at : at + 1] = data.draw(
                    st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80", b"9", b"\n"])
                )
            case "cut":
                del content[at : at + data.draw(st.integers(1, 40))]
            case "insert":
                content[at:at] = data.draw(st.binary(max_size=8))
            case _:
                other = data.draw(st.integers(0, max(len(content) - 1, 0)))
                size = data.draw(st.integers(1, 64))
                content[at : at + size] = content[other : other + size]
    survives(kind, bytes(content))


@pytest.mark.parametrize("kind", sorted(PARSERS))
@quick
@given(data=st.binary(max_size=300))
def test_noise_is_a_named_error(kind: str, data: bytes) -> None:
    survives(kind, data)
    survives(kind, samples()[kind][:100] + data)


odd: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [10**400, -1, 2**63, 2**64, 1e308, "\0", "..", "/", "\ud800", "\x1b[2J", "a" * 5000, "9" * 3000]
    )
    | st.floats(allow_nan=True)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The way to every value inside a JSON value."""
    found = [path]
    if isinstance(value, dict):
        for key in value:
            found += places(value[key], (*path, key))
    elif isinstance(value, list):
        for key in range(len(value)):
            found += places(value[key], (*path, key))
    return found


@pytest.mark.parametrize("kind", JSON)
@quick
@given(data=st.data())
def test_other_json_is_a_value_or_a_named_error(kind: str, data: st.DataObject) -> None:
    value = json.loads(samples()[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        way = data.draw(st.sampled_from(places(value)[1:]))
        inner = value
        for key in way[:-1]:
            inner = inner[key]
        if data.draw(st.booleans()):
            inner[way[-1]] = data.draw(odd)
        elif isinstance(inner, dict):
            inner[data.draw(st.text(max_size=5) | st.sampled_from(["\0", "../x", "\ud800", "a/../b"]))] = (
                inner.pop(way[-1])
            )
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode(errors="surrogatepass")
    survives(kind, text)


@pytest.mark.parametrize("kind", JSON)
@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"9" * 100_000,
        b'{"schema":1,"version":' + b"1" * 4000 + b"}",
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b'{"schema":1,"schema":1}',
        b"NaN",
    ],
    ids=[
        "deep",
        "deep objects",
        "long number",
        "large number",
        "UTF-16",
        "byte order mark",
        "twice",
        "no number",
    ],
)
def test_odd_json_is_a_named_error(kind: str, data: bytes) -> None:
    with pytest.raises(Error):
        PARSERS[kind](data)


@quick
@given(data=st.data())
def test_catalogs_with_damaged_pages(data: st.DataObject) -> None:
    """Behind the header, where SQLite itself must find its way."""
    content = bytearray(samples()["catalog"])
    for _ in range(data.draw(st.integers(1, 30))):
        at = data.draw(st.integers(100, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    survives("catalog", bytes(content))


def test_long_texts_take_no_time() -> None:
    for text in ("1.1." + "1" * 1_000_000, "a" * 1_000_000 + "!", "a." * 500_000):
        value = json.loads(samples()["release"])
        value["julia"]["name"] = value["fqrn"] = value["stack"] = text
        survives("release", json.dumps(value).encode())
