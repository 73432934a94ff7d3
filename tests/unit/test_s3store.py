"""What an object store's storage keeps beyond the contract of all: conditions, the lock, metadata, failures."""

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

import headstart.bucket
import headstart.s3store
import s3server
from headstart.cvmfs.objects import Algorithm, Kind, ObjectName
from headstart.errors import (
    ConfigurationError,
    Error,
    LockedError,
    MissingError,
    StorageError,
    UnavailableError,
)
from headstart.lease import LOCK, Lock, Process
from headstart.s3place import S3Access, Surroundings
from headstart.s3store import S3Store
from headstart.store import present_files
from s3proxy import Answer, Ask, Cut, Hang, Proxy, Rule, Swallow, Verdict, nothing, proxy

MANIFEST = ".cvmfspublished"


def named(content: bytes) -> ObjectName:
    return ObjectName(digest=Algorithm.SHA1.digest(content), kind=Kind.FILE)


@pytest.fixture
def store() -> S3Store:
    server = s3server.running()
    made = S3Store(server.place(), server.access())
    made.prepare()
    return made


@pytest.fixture
def between(store: S3Store) -> Iterator[tuple[S3Store, Proxy]]:
    """The same place through a proxy."""
    with proxy(s3server.running()) as made:
        yield S3Store(store.bucket.place, made.server.access()), made


def publish(store: S3Store, content: bytes) -> None:
    with store.transaction() as into:
        into.put(named(content), content)
        into.settle()
        into.replace(MANIFEST, content)


def anonymously(store: S3Store, path: str) -> bytes:
    url = f"{store.bucket.server}/{store.bucket.place.bucket}/{store.bucket.place.key(path)}"
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - of the test's own server
        return bytes(answer.read())


def test_anybody_may_read_what_is_published_and_caches_are_told_how_long(store: S3Store) -> None:
    publish(store, b"content")
    client, place = s3server.running().client(), store.bucket.place
    found = client.head_object(Bucket=place.bucket, Key=place.key(named(b"content").path))
    assert (found["ContentType"], found["CacheControl"]) == ("application/octet-stream", "max-age=259200")
    found = client.head_object(Bucket=place.bucket, Key=place.key(MANIFEST))
    assert (found["ContentType"], found["CacheControl"]) == ("application/x-cvmfs", "max-age=61")
    assert anonymously(store, MANIFEST) == b"content"
    assert anonymously(store, named(b"content").path) == b"content"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        anonymously(store, LOCK)


def test_without_an_acl_the_bucket_decides(store: S3Store) -> None:
    publish(S3Store(store.bucket.place, s3server.running().access(acl="")), b"content")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        anonymously(store, MANIFEST)


def test_repositories_of_one_bucket_do_not_see_each_other(store: S3Store) -> None:
    place = store.bucket.place
    other = S3Store(replace(place, prefix=f"{place.prefix}.more"), store.bucket.access)
    other.prepare()
    publish(store, b"one")
    publish(other, b"other")
    assert [item.path for item in store.listing("data/") if "txn" not in item.path] == [named(b"one").path]
    assert not store.has(named(b"other").path)
    assert store.read(MANIFEST, limit=9) == b"one"
    assert not other.is_empty()


def test_a_place_with_nothing_in_it_is_no_repository(store: S3Store) -> None:
    other = S3Store(replace(store.bucket.place, prefix="elsewhere"), store.bucket.access)
    with pytest.raises(StorageError, match="no repository"), other.transaction():
        pass
    assert other.is_empty()
    assert list(other.listing("data/")) == []


def test_names_come_page_by_page_and_go_batch_by_batch(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headstart.bucket, "PAGE", 3)
    contents = [bytes([number]) for number in range(8)]
    with store.transaction() as into:
        for content in contents:
            into.put(named(content), content)
        into.settle()
        paths = {item.path for item in store.listing("data/")} - {LOCK}
        assert paths == {named(content).path for content in contents}
        into.delete(sorted(paths)[1:])
    assert {item.path for item in store.listing("data/")} == {LOCK, min(paths)}


def alike(count: int) -> list[bytes]:
    """Contents of objects in one folder."""
    found: list[bytes] = []
    number = 0
    while len(found) < count:
        content = str(number).encode()
        if named(content).path.startswith("data/00/"):
            found.append(content)
        number += 1
    return found


def test_many_objects_of_a_folder_are_asked_for_at_once(between: tuple[S3Store, Proxy]) -> None:
    store, seen = between
    contents = alike(12)
    with store.transaction() as into:
        for content in contents[:10]:
            assert into.put(named(content), content)
        into.settle()
        assert not into.put(named(contents[9]), contents[9])
        into.delete([named(contents[9]).path])
        assert into.put(named(contents[9]), contents[9])
        into.settle()
    assert seen.count("HEAD", "data/00/") == 4
    seen.seen.clear()
    with store.transaction() as into:
        assert [into.put(named(content), content) for content in contents] == [False] * 10 + [True] * 2
    assert (seen.count("HEAD", "data/00/"), seen.count("PUT", "data/00/")) == (4, 2)


def test_many_files_are_asked_for_at_a_time(between: tuple[S3Store, Proxy]) -> None:
    store, seen = between
    publish(store, b"one")
    together = threading.Barrier(8)

    def wait(ask: Ask) -> Verdict:
        if ask.method == "HEAD":
            together.wait(20)
        return None

    seen.rule = wait
    paths = [named(bytes([number])).path for number in range(15)] + [named(b"one").path]
    assert present_files(store, paths) == {named(b"one").path}
    assert seen.count("HEAD", "/data/") == 17  # and once before it was put


def test_not_more_waits_in_memory_than_is_good(
    between: tuple[S3Store, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, seen = between
    monkeypatch.setattr(headstart.s3store, "_UNDER_WAY", 2000)
    go = threading.Event()

    def slow(ask: Ask) -> Verdict:
        if ask.method == "PUT" and "/data/" in ask.path and "txn" not in ask.path:
            go.wait(20)
        return None

    seen.rule = slow
    contents = [bytes([number]) * 1000 for number in range(4)] + [bytes(5000)]
    done: list[bytes] = []
    with store.transaction() as into:

        def work() -> None:
            for content in contents:
                into.put(named(content), content)
                done.append(content)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(1)
        assert done == contents[:2]
        go.set()
        thread.join()
        into.settle()
    assert all(store.has(named(content).path) for content in contents)


# -- the lock --------------------------------------------------------------------------------------------------


def held_by(store: S3Store, holder: Process, *, lease: float) -> None:
    lock = Lock(holder=holder, nonce="theirs", count=7, lease=lease, suspect=False)
    store.bucket.write(LOCK, lock.to_bytes())


ELSEWHERE = Process(host="far", boot="other", namespace="pid:[1]", pid=1, start="1")


@pytest.mark.slow
def test_somebody_elsewhere_is_waited_for_until_his_time_is_over(store: S3Store) -> None:
    held_by(store, ELSEWHERE, lease=1.0)
    with pytest.raises(LockedError, match="process 1 on far") as caught, store.transaction():
        pass
    assert "its lock is good until" in caught.value.hint
    time.sleep(3.1)
    with store.transaction() as into:
        into.replace(MANIFEST, b"new")
    assert store.read(MANIFEST, limit=3) == b"new"


def test_a_dead_process_of_this_machine_is_not_waited_for(store: S3Store) -> None:
    held_by(store, replace(Process.here(), pid=2**22 + 1), lease=600.0)
    publish(store, b"one")
    held_by(store, replace(Process.here(), start="1"), lease=600.0)
    publish(store, b"two")
    held_by(store, Process.here(), lease=600.0)
    with pytest.raises(LockedError):
        publish(store, b"three")


@pytest.mark.parametrize("content", [b"gibberish", b"[]", b'{"holder": {"host": 1}}'])
def test_a_lock_that_cannot_be_read_is_respected(store: S3Store, content: bytes) -> None:
    store.bucket.write(LOCK, content)
    with pytest.raises(LockedError), store.transaction():
        pass


def test_a_suspect_lock_is_respected_like_any_other(store: S3Store) -> None:
    lock = Lock(holder=ELSEWHERE, nonce="theirs", count=7, lease=60.0, suspect=True)
    store.bucket.write(LOCK, lock.to_bytes())
    with pytest.raises(LockedError), store.transaction():
        pass


@pytest.mark.slow
def test_nothing_is_deleted_while_an_earlier_holder_may_come_back(store: S3Store) -> None:
    publish(store, b"one")
    held_by(store, ELSEWHERE, lease=0.0)
    time.sleep(2.1)
    path = named(b"one").path
    with store.transaction() as into, pytest.raises(LockedError, match="may still come back"):
        into.delete([path])
    with store.transaction() as into:  # it has not become less dangerous by being asked
        with pytest.raises(LockedError):
            into.delete([path])
        into.replace(MANIFEST, b"two")
        into.delete([path])
    with store.transaction() as into:
        into.delete([path])
    assert not store.has(path)


@pytest.mark.slow
def test_who_lost_the_lock_without_knowing_changes_nothing(store: S3Store) -> None:
    publish(store, b"one")
    with store.transaction() as late:
        late.put(named(b"late"), b"late")
        late.settle()
        # As if this process had slept: the other takes its lock, and is done before it wakes.
        held_by(store, ELSEWHERE, lease=0.0)
        time.sleep(2.1)
        with store.transaction() as into:
            into.replace(".cvmfsreflog", b"theirs")
            into.replace(MANIFEST, b"theirs")
        for path in (".cvmfsreflog", MANIFEST):
            with pytest.raises(LockedError, match="somebody else has changed"):
                late.replace(path, b"late")
    assert store.read(MANIFEST, limit=9) == b"theirs"
    assert store.read(".cvmfsreflog", limit=9) == b"theirs"
    publish(store, b"after")


@pytest.mark.slow
def test_the_lock_is_kept_fresh_and_its_loss_is_noticed(store: S3Store) -> None:
    brief = S3Store(store.bucket.place, s3server.running().access(lease=3.0))
    with brief.transaction() as into:
        time.sleep(4.5)
        into.replace(MANIFEST, b"still mine")
        held_by(store, ELSEWHERE, lease=60.0)
        time.sleep(3.1)
        with pytest.raises(LockedError, match="lost"):
            into.replace(MANIFEST, b"no more")
    assert Lock.from_bytes(store.read(LOCK, limit=9999)).holder == ELSEWHERE
    assert store.read(MANIFEST, limit=99) == b"still mine"


# -- servers that are different --------------------------------------------------------------------------------


def as_ceph(ask: Ask) -> Verdict:
    """As radosgw 16.2.15, which compares with an ETag without quotes."""
    return Answer(412, "PreconditionFailed") if '"' in ask.headers.get("If-Match", "") else None


def as_r2(ask: Ask) -> Verdict:
    """As Cloudflare's R2, which does not take an ETag without quotes."""
    bare = ask.headers.get("If-Match") is not None and '"' not in ask.headers["If-Match"]
    return Answer(400, "InvalidArgument") if bare else None


@pytest.mark.parametrize("rule", [as_ceph, as_r2])
def test_etags_are_spelt_as_the_server_wants(between: tuple[S3Store, Proxy], rule: Rule) -> None:
    store, seen = between
    seen.rule = rule
    for content in (b"one", b"two", b"three"):
        publish(store, content)
    assert store.read(MANIFEST, limit=9) == b"three"


def without(*names: str) -> Rule:
    def rule(ask: Ask) -> Verdict:
        for name in names:
            ask.headers.pop(name, None)
        return None

    return rule


def not_made(ask: Ask) -> Verdict:
    return Answer(501, "NotImplemented") if "If-Match" in ask.headers else None


def never_the_same(ask: Ask) -> Verdict:
    return Answer(412, "PreconditionFailed") if "If-Match" in ask.headers else None


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (without("If-Match", "If-None-Match"), "ignores the condition of a write"),
        (without("If-Match"), r"ignores the condition of a write \(If-Match\)"),
        (without("If-None-Match"), r"ignores the condition of a write \(If-None-Match\)"),
        (not_made, "cannot do writing"),
        (never_the_same, "refuses a write whose condition"),
    ],
)
def test_a_server_without_conditional_writes_is_refused(
    between: tuple[S3Store, Proxy], rule: Rule, said: str
) -> None:
    store, seen = between
    publish(store, b"old")
    seen.rule = rule
    with pytest.raises(StorageError, match=said) as caught:
        publish(store, b"new")
    assert "docs/object-stores.md" in caught.value.hint
    seen.rule = nothing
    assert store.read(MANIFEST, limit=3) == b"old"
    publish(store, b"new")


def once(matches: Callable[[Ask], bool], verdict: Verdict) -> Rule:
    left = [1]

    def rule(ask: Ask) -> Verdict:
        if not matches(ask) or not left[0]:
            return None
        left[0] -= 1
        return verdict

    return rule


def writes(part: str) -> Callable[[Ask], bool]:
    return lambda ask: ask.method == "PUT" and part in ask.path


@pytest.mark.parametrize("part", [MANIFEST, "headstart.lock", "data/fe/"])
def test_a_write_whose_answer_is_lost_is_no_failure(between: tuple[S3Store, Proxy], part: str) -> None:
    store, seen = between
    publish(store, b"old")
    assert named(b"one").path.startswith("data/fe/")
    seen.rule = once(writes(part), Swallow())
    publish(store, b"one")
    assert store.read(MANIFEST, limit=3) == b"one"
    assert Lock.from_bytes(store.read(LOCK, limit=9999)).holder is None


@pytest.mark.parametrize(
    "verdict", [Answer(503, "SlowDown"), Answer(500, "InternalError"), Answer(409, "OperationAborted")]
)
def test_a_server_that_is_busy_once_is_asked_again(between: tuple[S3Store, Proxy], verdict: Answer) -> None:
    store, seen = between
    seen.rule = once(writes(MANIFEST), verdict)
    publish(store, b"new")
    assert store.read(MANIFEST, limit=3) == b"new"


def test_an_answer_that_ends_too_early_is_asked_for_again(between: tuple[S3Store, Proxy]) -> None:
    store, seen = between
    publish(store, bytes(100_000))
    seen.rule = once(lambda ask: ask.method == "GET" and MANIFEST in ask.path, Cut())
    assert store.read(MANIFEST, limit=100_000) == bytes(100_000)
    seen.rule = lambda ask: Cut() if MANIFEST in ask.path else None
    with pytest.raises(UnavailableError):
        store.read(MANIFEST, limit=100_000)


def test_an_upload_that_fails_ends_the_publication(between: tuple[S3Store, Proxy]) -> None:
    store, seen = between
    publish(store, b"old")
    seen.rule = lambda ask: Answer(507, "InsufficientStorage") if writes("/data/fe/")(ask) else None
    with pytest.raises(StorageError, match="has no room left"):
        publish(store, b"one")
    seen.rule = nothing
    assert store.read(MANIFEST, limit=3) == b"old"
    publish(store, b"one")


def test_a_manifest_that_may_have_been_written_is_said_to_be_so(between: tuple[S3Store, Proxy]) -> None:
    store, seen = between
    publish(store, b"old")
    seen.rule = lambda ask: Answer(503, "SlowDown") if MANIFEST in ask.path and ask.method != "HEAD" else None
    with pytest.raises(UnavailableError, match="is not known: headstart repo status"):
        publish(store, b"new")


def test_a_deletion_that_is_refused_is_no_success(between: tuple[S3Store, Proxy]) -> None:
    store, seen = between
    seen.rule = lambda ask: Answer(403, "AccessDenied") if ask.method == "POST" else None
    with store.transaction() as into, pytest.raises(StorageError, match="does not allow deleting"):
        into.delete([named(b"x").path])


REFUSALS: dict[str, tuple[Verdict, type[Error], str]] = {
    "bucket": (Answer(404, "NoSuchBucket"), StorageError, "there is no bucket repositories at http://"),
    "access": (Answer(403, "InvalidAccessKeyId"), StorageError, "does not know the access key"),
    "secret": (Answer(403, "SignatureDoesNotMatch"), StorageError, "does not take the secret key"),
    "denied": (Answer(403, "AccessDenied"), StorageError, "does not allow"),
    "clock": (Answer(403, "RequestTimeTooSkewed"), StorageError, "clock here is wrong"),
    "acl": (Answer(400, "AccessControlListNotSupported"), StorageError, "HEADSTART_S3_ACL=none"),
    "quota": (Answer(403, "QuotaExceeded"), StorageError, "quota of repositories"),
    "region": (Answer(400, "AuthorizationHeaderMalformed"), StorageError, "AWS_REGION"),
    "strange": (Answer(418, "Teapot"), StorageError, "Teapot told so"),
    "busy": (Answer(503, "SlowDown"), UnavailableError, "503"),
    "broken": (Answer(500, ""), UnavailableError, "500"),
    "hanging": (Hang(), UnavailableError, "gives no answer"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_each_refusal_is_one_sentence(between: tuple[S3Store, Proxy], name: str) -> None:
    verdict, family, said = REFUSALS[name]
    store, seen = between
    seen.rule = lambda _: verdict
    hasty = S3Store(store.bucket.place, seen.server.access(attempts=1, timeout=0.5))
    for work in (lambda: publish(hasty, b"x"), lambda: hasty.read(MANIFEST, limit=1), hasty.is_empty):
        with pytest.raises(Error, match=said) as caught:
            work()
        assert type(caught.value) is family
        assert "\n" not in str(caught.value)
    if name != "bucket":  # the answer to HEAD has no text, and a missing bucket is as good as a missing object
        with pytest.raises(family, match=said):
            hasty.has(MANIFEST)


def test_a_server_that_is_not_there_is_unavailable(store: S3Store) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = replace(s3server.running(), url=f"http://127.0.0.1:{closed.getsockname()[1]}")
        absent = S3Store(store.bucket.place, nowhere.access(attempts=1))
        with pytest.raises(UnavailableError, match="gives no answer to listing"), absent.transaction():
            pass


def test_without_credentials_nothing_is_sent(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    nobody = S3Store(store.bucket.place, S3Access(server=Surroundings()))
    with pytest.raises(ConfigurationError, match="no credentials for s3://"):
        nobody.read(MANIFEST, limit=1)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigurationError, match="nobody"):
        S3Store(store.bucket.place, S3Access(server=Surroundings()))
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no address")
    with pytest.raises(ConfigurationError, match="no address"):
        S3Store(store.bucket.place, S3Access(server=Surroundings()))


def test_a_missing_object_is_missing(store: S3Store) -> None:
    with pytest.raises(MissingError, match=r"/data/00/x is missing"):
        store.read("data/00/x", limit=1)
