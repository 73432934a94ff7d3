"""Hypothesis strategies for Headstart's values, shared by the property tests."""

import string

from hypothesis import strategies as st

from headstart.cvmfs.objects import Algorithm, Digest
from headstart.names import ChannelName, Fqrn, JuliaName, ReleaseId, Sha256, StackName
from headstart.release import (
    FileRecord,
    ImageRecord,
    JuliaTree,
    LayeredImages,
    LinkRecord,
    PackageImages,
    Record,
    Release,
    SystemImage,
)

hexadecimal = "0123456789abcdef"


def hex_text(length: int) -> st.SearchStrategy[str]:
    return st.text(hexadecimal, min_size=length, max_size=length)


label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
fqrns = st.builds(Fqrn, st.lists(label, min_size=2, max_size=4).map(".".join))
stack_names = st.builds(StackName, st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True))
_words = st.from_regex(r"[a-z][a-z0-9._-]{0,12}", fullmatch=True)
channel_names = st.builds(
    ChannelName, _words.filter(lambda text: len(text) < 8 or text.strip("0123456789abcdef"))
)
release_ids = st.builds(ReleaseId, hex_text(16))
sha256s = st.builds(Sha256, hex_text(64))
julia_versions = st.from_regex(r"1\.[0-9]{1,2}\.[0-9]{1,2}(-rc[1-9])?", fullmatch=True)
julia_names = st.builds(lambda version, tail: JuliaName(f"{version}-{tail}"), julia_versions, hex_text(12))
digests = st.builds(
    lambda algorithm, raw: Digest(algorithm=algorithm, raw=raw),
    st.sampled_from(Algorithm),
    st.binary(min_size=20, max_size=20).filter(any),
)

component = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda text: text not in (".", ".."))
paths = st.lists(component, min_size=1, max_size=4).map("/".join)
listed_paths = paths.filter(lambda text: ":" not in text)
sizes = st.integers(min_value=0, max_value=2**40)
records: st.SearchStrategy[Record] = st.one_of(
    st.builds(FileRecord, sha256=sha256s, size=sizes, mode=st.sampled_from([0o444, 0o555])),
    st.builds(LinkRecord, target=component),
)
file_maps = st.dictionaries(paths, records, max_size=5)
words = st.text(string.ascii_letters + string.digits + "=-_,.", max_size=20)

julia_trees = st.builds(
    JuliaTree,
    version=julia_versions,
    executable=paths,
    share=listed_paths,
    system_image=paths,
    library_path=st.lists(listed_paths, max_size=2).map(tuple),
    files=file_maps,
)
targets = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=12)


def _image(target: str) -> st.SearchStrategy[ImageRecord]:
    inside = listed_paths.map(lambda path: f"images/{target}/{path}")
    system = st.builds(SystemImage, path=inside, size=sizes)
    depot = st.just(f"images/{target}") | inside
    packages = st.builds(PackageImages, path=depot, size=sizes, count=sizes)
    return st.builds(
        ImageRecord,
        target=st.just(target),
        cpu_target=words,
        recorded=words,
        features=st.lists(words, max_size=4).map(sorted).map(tuple),
        code=st.one_of(system, packages, st.builds(LayeredImages, system=system, packages=packages)),
        build_seconds=st.floats(min_value=0, max_value=1e6),
    )


images = targets.flatmap(_image)
releases = st.builds(
    Release,
    fqrn=fqrns,
    stack=stack_names,
    id=release_ids,
    julia=julia_names,
    julia_digest=sha256s,
    julia_version=julia_versions,
    julia_executable=paths,
    julia_share=listed_paths,
    julia_library_path=st.lists(listed_paths, max_size=2).map(tuple),
    relocatable=st.booleans(),
    startup=st.just("") | paths,
    load_path=st.lists(listed_paths, max_size=2).map(tuple),
    julia_options=st.lists(words, max_size=2).map(tuple),
    julia_environment=st.sampled_from([{}, {"JULIA_OBJCACHE": "0"}]),
    inputs=st.dictionaries(words, words, max_size=3),
    images=st.lists(images, max_size=3).map(tuple),
    files=file_maps,
    built=words,
)
