"""Creating and publishing, in process: what is new, what stays, what is refused."""

import os
import shutil
import stat
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import publishing
from headstart.channel import ROOT_PATH, pointer_path, read_pointer, read_root
from headstart.cvmfs.chunks import ChunkSizes
from headstart.cvmfs.entry import ChunkedFile, Directory
from headstart.cvmfs.history import TRUNK, TRUNK_PREVIOUS
from headstart.cvmfs.objects import Algorithm, Kind, ObjectName
from headstart.cvmfs.reflog import Reflog
from headstart.cvmfs.signature import seal
from headstart.errors import (
    ConfigurationError,
    CorruptError,
    Error,
    ImmutableError,
    KeyFileError,
    LockedError,
    MissingError,
    StorageError,
    TrustError,
)
from headstart.ingest import Recipe
from headstart.keys import create_keys, load_keys, load_master_key
from headstart.names import ChannelName, Fqrn
from headstart.release import LinkRecord, Release
from headstart.repository import (
    Action,
    AllKeys,
    Channel,
    Means,
    Published,
    Settings,
    Wanted,
    create,
    plan,
    publish,
    publish_tree,
)
from headstart.stage import open_stage
from headstart.store import DirectoryStore
from publishing import NOW, PROD, Place, content_of, new_repository, write_stage

HOUR = timedelta(hours=1)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return new_repository(tmp_path / "storage")


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    write_stage(tmp_path / "stage")
    return tmp_path / "stage"


def run(place: Place, stage: Path, channel: Channel | None = PROD, now: datetime = NOW) -> Published:
    return publish(place.target, open_stage(str(stage)), channel, now)


def files_below(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def published_state(place: Place) -> dict[str, bytes]:
    """The storage without what a transaction keeps for itself."""
    return {path: data for path, data in files_below(place.root).items() if not path.startswith("data/txn")}


# Creation


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.SHAKE128])
def test_a_new_repository_is_whole(tmp_path: Path, algorithm: Algorithm) -> None:
    settings = Settings(algorithm=algorithm, ttl=60, garbage_collectable=True)
    repository = new_repository(tmp_path / "storage", settings).open()
    assert set(content_of(repository)) == {b"", b"/channels", b"/channels/1.root.json", ROOT_PATH.encode()}
    manifest = repository.manifest
    assert (manifest.revision, manifest.ttl, manifest.garbage_collectable) == (1, 60, True)
    assert (manifest.algorithm, manifest.timestamp) == (algorithm, int(NOW.timestamp()))
    trunk = repository.history().tag(TRUNK)
    assert trunk is not None
    assert (trunk.digest, trunk.size, trunk.revision) == (manifest.root_catalog, manifest.root_size, 1)
    assert repository.history().tag(TRUNK_PREVIOUS) is None
    catalog = next(repository.forest.catalogs())
    assert catalog.previous_revision is None
    assert catalog.ttl == 60


def test_the_reflog_names_what_the_manifest_names(place: Place, stage: Path) -> None:
    run(place, stage)
    manifest = place.open().manifest
    data = (place.root / ".cvmfsreflog").read_bytes()
    assert manifest.algorithm.digest(data) == manifest.reflog
    named = {item.digest for item in Reflog.from_bytes(data, fqrn=manifest.fqrn).references}
    assert {manifest.root_catalog, manifest.certificate, manifest.history, manifest.metainfo} <= named
    assert len(named) == 6  # two catalogs, two histories, one certificate, one meta info


def test_certificate_and_meta_info_are_compressed_as_the_real_tools_do(place: Place) -> None:
    manifest = place.open().manifest
    assert manifest.metainfo is not None
    for digest, kind in ((manifest.certificate, Kind.CERTIFICATE), (manifest.metainfo, Kind.METAINFO)):
        stored = (place.root / ObjectName(digest=digest, kind=kind).path).read_bytes()
        assert zlib.compress(zlib.decompress(stored)) == stored


def test_a_repository_is_not_made_over_another(place: Place) -> None:
    before = published_state(place)
    with pytest.raises(StorageError, match="already"):
        create(place.store, publishing.all_keys(), NOW)
    assert published_state(place) == before


def test_a_repository_is_not_made_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StorageError, match="not empty"):
        create(DirectoryStore(str(tmp_path)), publishing.all_keys(), NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# Publication


def test_a_release_is_published_as_staged(place: Place, stage: Path) -> None:
    done = run(place, stage)
    repository = place.open()
    content = content_of(repository)
    for top in ("julia", "stacks"):
        for path in (stage / top).rglob("*"):
            at = b"/" + os.fsencode(path.relative_to(stage))
            if path.is_file() and not path.is_symlink():
                assert content[at] == path.read_bytes()
            else:
                assert at in content
    assert done.revision == repository.manifest.revision == 2
    assert [step.action for step in done.plan.steps] == [
        Action.PUBLISH,
        Action.PUBLISH,
        Action.POINT,
        Action.STATE,
    ]
    mounted = {catalog.mountpoint for catalog in repository.forest.catalogs()}
    assert mounted == {b"", *(tree.path for tree in open_stage(str(stage)).trees)}


def test_owners_and_modes_are_uniform(place: Place, stage: Path) -> None:
    for directory in [path for path in stage.rglob("*") if path.is_dir()]:
        directory.chmod(0o700)
    run(place, stage)
    for catalog in place.open().forest.catalogs():
        for path, entry in catalog.entries():
            assert (entry.stat.uid, entry.stat.gid) == (0, 0)
            if isinstance(entry, Directory):
                assert entry.stat.mode == 0o755, path


def test_times_of_files_are_kept(place: Place, stage: Path) -> None:
    source = next(stage.rglob("Jets.jl"))
    os.utime(source, (1_234_567_890, 1_234_567_890))
    run(place, stage)
    entry = place.open().forest.lookup(b"/" + os.fsencode(source.relative_to(stage)))
    assert entry is not None
    assert entry.stat.mtime == 1_234_567_890


def test_the_pointer_is_signed_and_points_at_the_release(place: Place, stage: Path) -> None:
    run(place, stage)
    repository = place.open()
    data = repository.content(ROOT_PATH.encode(), limit=1 << 16)
    assert data is not None
    root = read_root(data, master=publishing.keys().masters.by_id, fqrn=repository.fqrn)
    staged = open_stage(str(stage))
    path = pointer_path(staged.release.stack, PROD.name)
    signed = repository.content(path.encode(), limit=1 << 16)
    assert signed is not None
    believed = read_pointer(signed, root=root, stack=staged.release.stack, channel=PROD.name)
    believed.check_time(NOW)
    pointer = believed.pointer
    assert repository.content(pointer.history_path.encode(), limit=1 << 16) == signed
    assert repository.content(root.history_path.encode(), limit=1 << 16) == data
    assert (pointer.digest, pointer.release, pointer.version) == (staged.digest, staged.release.id, 1)
    assert pointer.expires - pointer.issued == timedelta(days=30)


def test_publishing_the_same_again_changes_nothing(place: Place, stage: Path) -> None:
    run(place, stage)
    before = published_state(place)
    done = run(place, stage, now=NOW + HOUR)
    assert not done.plan.changes
    assert done.revision == 2
    assert published_state(place) == before


def test_a_pointer_that_is_half_through_its_time_is_renewed(place: Place, stage: Path) -> None:
    run(place, stage)
    later = NOW + timedelta(days=16)
    done = run(place, stage, now=later)
    assert done.plan.pointer is not None
    assert done.plan.pointer.version == 2
    assert [step.action for step in done.plan.steps] == [Action.PRESENT, Action.PRESENT, Action.POINT]
    assert place.open(later).manifest.revision == 3


def test_two_channels_and_two_releases_live_side_by_side(place: Place, stage: Path, tmp_path: Path) -> None:
    run(place, stage)
    before = place.open()
    write_stage(tmp_path / "other", lambda base: replace(base, id=type(base.id)("f" * 16)))
    done = run(place, tmp_path / "other", Channel(name=ChannelName("test")))
    assert [step.action for step in done.plan.steps] == [
        Action.PRESENT,
        Action.PUBLISH,
        Action.POINT,
        Action.STATE,
    ]
    after = place.open()
    content = content_of(after)
    assert {b"/channels/jets/prod.json", b"/channels/jets/test.json"} <= content.keys()
    # What did not change is the very same catalog.
    kept = {path: nested for catalog in before.forest.catalogs() for path, nested in catalog.nested.items()}
    now = {path: nested for catalog in after.forest.catalogs() for path, nested in catalog.nested.items()}
    assert kept.items() <= now.items()
    assert len(now) == 3
    root = next(after.forest.catalogs())
    assert root.previous_revision == before.manifest.root_catalog
    previous = after.history().tag(TRUNK_PREVIOUS)
    assert previous is not None
    assert previous.digest == before.manifest.root_catalog


def test_a_channel_moves_to_the_next_release(place: Place, stage: Path, tmp_path: Path) -> None:
    run(place, stage)
    write_stage(tmp_path / "other", lambda base: replace(base, id=type(base.id)("f" * 16)))
    done = run(place, tmp_path / "other")
    assert done.plan.pointer is not None
    assert done.plan.pointer.version == 2


def test_a_plan_writes_nothing(place: Place, stage: Path) -> None:
    before = files_below(place.root)
    todo = plan(place.open(), open_stage(str(stage)), PROD, NOW)
    assert todo.changes
    assert [step.action for step in todo.steps] == [Action.PUBLISH, Action.PUBLISH, Action.POINT, Action.STATE]
    assert files_below(place.root) == before


def test_other_bytes_at_the_same_path_are_refused(place: Place, stage: Path, tmp_path: Path) -> None:
    run(place, stage)
    before = published_state(place)
    write_stage(tmp_path / "other", extra={"depot/more.jl": b"more\n"})
    with pytest.raises(ImmutableError, match="already"):
        run(place, tmp_path / "other")
    assert published_state(place) == before


def test_time_never_goes_backwards(place: Place, stage: Path) -> None:
    run(place, stage, now=NOW - 5 * HOUR)
    manifest = place.open().manifest
    assert manifest.timestamp == int(NOW.timestamp())
    assert manifest.revision == 2
    assert next(place.open().forest.catalogs()).last_modified == manifest.timestamp


def test_large_files_are_chunked_and_read_back(place: Place, stage: Path) -> None:
    sizes = ChunkSizes(minimum=4096, average=8192, maximum=16384)
    means = Means(recipe=Recipe(sizes=sizes, workers=3))
    publish(place.target, open_stage(str(stage)), PROD, NOW, means)
    repository = place.open()
    chunked = [
        entry
        for catalog in repository.forest.catalogs()
        for _, entry in catalog.entries()
        if isinstance(entry, ChunkedFile)
    ]
    assert len(chunked) >= 2
    assert all(entry.size > sizes.minimum for entry in chunked)
    image = next(stage.rglob("images/x86-64/sys.so"))
    at = b"/" + os.fsencode(image.relative_to(stage))
    assert content_of(repository)[at] == image.read_bytes()
    assert repository.content(at, limit=1 << 20) == image.read_bytes()


# What is refused: stages


def touch_image(stage: Path) -> None:
    image = next(stage.rglob("images/x86-64/sys.so"))
    data = bytearray(image.read_bytes())
    data[77] ^= 1
    image.chmod(0o644)
    image.write_bytes(data)
    image.chmod(0o444)


def add_file(stage: Path) -> None:
    (next(stage.glob("stacks/*/*")) / "surprise").write_text("x")


def remove_file(stage: Path) -> None:
    next(stage.rglob("Jets.jl")).unlink()


def open_mode(stage: Path) -> None:
    next(stage.rglob("Jets.jl")).chmod(0o666)


def redirect_link(stage: Path) -> None:
    link = next(stage.rglob("depot/current"))
    link.unlink()
    link.symlink_to("/etc/passwd")


def file_for_link(stage: Path) -> None:
    link = next(stage.rglob("depot/current"))
    link.unlink()
    link.write_text("x")


def add_fifo(stage: Path) -> None:
    os.mkfifo(next(stage.glob("stacks/*/*")) / "fifo")


def remove_marker(stage: Path) -> None:
    next(stage.glob("stacks/*/*/.cvmfscatalog")).unlink()


def other_julia(stage: Path) -> None:
    record = next(stage.glob("julia/*/julia.json"))
    record.write_bytes(record.read_bytes().replace(b'"1.5.3"', b'"1.5.4"'))


def other_stage_file(stage: Path) -> None:
    (stage / "stage.json").write_bytes(
        (stage / "stage.json").read_bytes().replace(b'"release":"0123', b'"release":"0124')
    )


def rename_release(stage: Path) -> None:
    other_stage_file(stage)
    old = next(stage.glob("stacks/*/0123*"))
    old.rename(old.with_name("0124" + old.name[4:]))


@pytest.mark.parametrize("published_before", [False, True])
@pytest.mark.parametrize(
    "spoil",
    [
        touch_image,
        add_file,
        remove_file,
        open_mode,
        redirect_link,
        file_for_link,
        add_fifo,
        remove_marker,
        other_julia,
        rename_release,
    ],
)
def test_a_stage_that_is_not_what_its_records_say_is_refused(
    place: Place, stage: Path, spoil: Callable[[Path], None], published_before: bool
) -> None:
    if published_before:
        run(place, stage)
    before = published_state(place)
    spoil(stage)
    with pytest.raises(CorruptError):
        run(place, stage)
    assert published_state(place) == before


def test_no_stage_is_refused(place: Place, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no finished stage"):
        run(place, tmp_path)


def test_a_link_out_of_the_tree_is_refused_even_if_recorded(place: Place, stage: Path) -> None:
    root = next(stage.glob("stacks/*/*"))
    record = Release.from_bytes((root / "release.json").read_bytes())
    link = LinkRecord(target="../../../../etc")
    (root / "release.json").write_bytes(
        replace(record, files={**record.files, "depot/current": link}).to_bytes()
    )
    (root / "depot" / "current").unlink()
    (root / "depot" / "current").symlink_to("../../../../etc")
    with pytest.raises(CorruptError, match="out of its tree"):
        run(place, stage)


def test_a_stage_of_another_repository_is_refused(place: Place, tmp_path: Path) -> None:
    write_stage(tmp_path / "other", lambda base: replace(base, fqrn=Fqrn("other.example.org")))
    with pytest.raises(TrustError, match="built for"):
        run(place, tmp_path / "other")


# What is refused: storage and keys


def test_storage_that_is_no_repository(tmp_path: Path, stage: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="no repository"):
        run(Place(tmp_path / "empty"), stage)
    (tmp_path / "half" / "data").mkdir(parents=True)
    with pytest.raises(StorageError, match="no repository"):
        run(Place(tmp_path / "half"), stage)


def foreign_keys(directory: Path) -> AllKeys:
    create_keys(str(directory), publishing.FQRN, now=NOW)
    return AllKeys(
        keys=load_keys(str(directory), publishing.FQRN),
        master=load_master_key(str(directory), publishing.FQRN),
    )


def test_foreign_keys_are_refused(place: Place, stage: Path, tmp_path: Path) -> None:
    before = published_state(place)
    keys = foreign_keys(tmp_path / "keys").keys
    with pytest.raises(TrustError):
        publish((place.store, keys), open_stage(str(stage)), PROD, NOW)
    # The right master key with another repository key: clients would refuse what it signs.
    mixed = replace(publishing.keys(), repository=keys.repository, certificate=keys.certificate)
    with pytest.raises(TrustError, match="whitelist"):
        publish((place.store, mixed), open_stage(str(stage)), PROD, NOW)
    other_channel = replace(publishing.keys(), channels=keys.channels)
    with pytest.raises(KeyFileError, match="channel key"):
        publish((place.store, other_channel), open_stage(str(stage)), PROD, NOW)
    assert published_state(place) == before


def test_a_key_that_does_not_fit_its_certificate_publishes_nothing(
    place: Place, stage: Path, tmp_path: Path
) -> None:
    keys = replace(publishing.keys(), repository=foreign_keys(tmp_path / "keys").keys.repository)
    head = (place.root / ".cvmfspublished").read_bytes()
    with pytest.raises(TrustError):
        publish((place.store, keys), open_stage(str(stage)), PROD, NOW)
    assert (place.root / ".cvmfspublished").read_bytes() == head
    assert run(place, stage).revision == 2


def test_an_expired_whitelist_is_refused(place: Place, stage: Path) -> None:
    with pytest.raises(TrustError, match="expired"):
        run(place, stage, now=NOW + timedelta(days=31))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def object_of(place: Place, what: str) -> Path:
    manifest = place.open().manifest
    assert manifest.history is not None
    digest, kind = {
        "catalog": (manifest.root_catalog, Kind.CATALOG),
        "certificate": (manifest.certificate, Kind.CERTIFICATE),
        "history": (manifest.history, Kind.HISTORY),
    }[what]
    return place.root / ObjectName(digest=digest, kind=kind).path


@pytest.mark.parametrize("what", ["catalog", "certificate", "history"])
@pytest.mark.parametrize(("damage", "error"), [(flip, CorruptError), (Path.unlink, MissingError)])
def test_damaged_storage_is_refused(
    place: Place, stage: Path, what: str, damage: Callable[[Path], None], error: type[Error]
) -> None:
    damage(object_of(place, what))
    head = (place.root / ".cvmfspublished").read_bytes()
    with pytest.raises(error):
        run(place, stage)
    assert (place.root / ".cvmfspublished").read_bytes() == head


def test_a_forged_pointer_is_refused(place: Place, stage: Path, tmp_path: Path) -> None:
    run(place, stage)
    forged = tmp_path / "forged"
    forged.mkdir()
    signed = place.open().content(b"/channels/jets/prod.json", limit=1 << 16)
    assert signed is not None
    (forged / "prod.json").write_bytes(signed.replace(b'"sig":"', b'"sig":"AAAA'))
    publish_tree(place.target, Wanted(directory=str(forged), at=b"/channels/jets"), NOW)
    with pytest.raises(Error):
        run(place, stage)


@pytest.mark.parametrize(("content", "family"), [(b"rubbish", CorruptError), (None, MissingError)])
def test_nothing_is_published_over_a_log_that_is_damaged_or_gone(
    place: Place, stage: Path, content: bytes | None, family: type[Error]
) -> None:
    """The families are those with which a collection refuses it."""
    log = place.root / ".cvmfsreflog"
    log.unlink()
    if content is not None:
        log.write_bytes(content)
    before = (place.root / ".cvmfspublished").read_bytes()
    with pytest.raises(family, match=r"log of references .* cannot be used.*repo check --repair"):
        run(place, stage)
    assert (place.root / ".cvmfspublished").read_bytes() == before


def test_a_repository_without_a_log_gets_one(place: Place, stage: Path) -> None:
    """Those of the server tools may have none (format section 13)."""
    draft = replace(place.open().manifest, reflog=None)
    sign = publishing.keys().repository.sign_sha1
    signed = seal(draft.to_bytes(), algorithm=draft.algorithm, sign=sign)
    (place.root / ".cvmfspublished").write_bytes(signed)
    (place.root / ".cvmfsreflog").unlink()
    assert run(place, stage).revision == 2
    data = (place.root / ".cvmfsreflog").read_bytes()
    manifest = place.open().manifest
    assert manifest.algorithm.digest(data) == manifest.reflog


def test_a_second_writer_is_locked_out(place: Place, stage: Path) -> None:
    with place.store.transaction(), pytest.raises(LockedError, match="somebody else"):
        run(place, stage)
    assert run(place, stage).revision == 2


def test_something_in_the_way_is_refused(place: Place, stage: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "tree", ignore_errors=True)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "jets").write_text("a file where a directory must be")
    publish_tree(place.target, Wanted(directory=str(tmp_path / "tree"), at=b"/stacks"), NOW)
    with pytest.raises(StorageError, match="not a directory"):
        run(place, stage)


def test_chunk_sizes_that_cannot_be_are_refused() -> None:
    for sizes in ((16, 100, 200), (64, 64, 200), (64, 100, 100)):
        with pytest.raises(ConfigurationError):
            ChunkSizes(minimum=sizes[0], average=sizes[1], maximum=sizes[2])


def test_trees_of_any_kind_are_published(place: Place, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub" / "deep").mkdir(parents=True)
    (tree / "one").write_bytes(b"1")
    os.link(tree / "one", tree / "sub" / "two")
    os.mkfifo(tree / "sub" / "fifo")
    (tree / "sub" / ".cvmfscatalog").touch()
    odd = os.fsencode(tree) + b"/\xff\xfe"
    with open(odd, "wb") as file:
        file.write(b"odd")
    (tree / "one").chmod(stat.S_ISUID | 0o755)
    publish_tree(place.target, Wanted(directory=str(tree), at=b"/any"), NOW)
    content = content_of(place.open())
    assert content[b"/any/one"] == content[b"/any/sub/two"] == b"1"
    assert content[b"/any/\xff\xfe"] == b"odd"
    entry = place.open().forest.lookup(b"/any/one")
    assert entry is not None
    assert entry.stat.mode == stat.S_ISUID | 0o755
    before = place.open().manifest
    assert publish_tree(place.target, Wanted(directory=str(tree), at=b"/any"), NOW).manifest == before


def test_a_marker_in_the_root_directory_is_refused(place: Place, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / ".cvmfscatalog").touch()
    with pytest.raises(StorageError, match="root directory"):
        publish_tree(place.target, Wanted(directory=str(tmp_path / "tree"), at=b""), NOW)


def test_expiry_is_counted_in_utc(place: Place, stage: Path) -> None:
    done = run(place, stage)
    assert done.plan.pointer is not None
    assert done.plan.pointer.issued.tzinfo is UTC


@pytest.mark.parametrize("at", [b"usr", b"/a//b", b"/a/../b", b"/a/", b"/.cvmfs", b"/.cvmfs/snapshots"])
def test_a_tree_cannot_be_put_where_no_path_is(tmp_path: Path, at: bytes) -> None:
    place = new_repository(tmp_path / "storage")
    (tmp_path / "tree").mkdir()
    with pytest.raises(StorageError, match="nothing can be put at"):
        publish_tree(place.target, Wanted(directory=str(tmp_path / "tree"), at=at), NOW)
    assert place.open().manifest.revision == 1
