"""Keys of objects: one for each object, and back; nothing else in a storage is taken for an object."""

from hypothesis import given
from hypothesis import strategies as st

from headstart.cvmfs.objectkeys import key_at, key_of, name_of
from headstart.cvmfs.objects import Algorithm, Digest, Kind, ObjectName

names = st.builds(
    lambda algorithm, raw, kind: ObjectName(digest=Digest(algorithm=algorithm, raw=raw), kind=kind),
    st.sampled_from(Algorithm),
    st.binary(min_size=20, max_size=20).filter(any),
    st.sampled_from(Kind),
)


@given(name=names)
def test_a_key_is_an_object_and_its_path(name: ObjectName) -> None:
    key = key_of(name)
    assert len(key) == 22
    assert name_of(key) == name
    assert key_at(name.path) == key


@given(name=names, other=names)
def test_different_objects_have_different_keys(name: ObjectName, other: ObjectName) -> None:
    assert (key_of(name) == key_of(other)) == (name == other)


@given(name=names, at=st.integers(0, 60), sign=st.sampled_from(list("Z/.\n gA")))
def test_what_is_spelt_otherwise_is_no_object(name: ObjectName, at: int, sign: str) -> None:
    path = name.path[:at] + sign + name.path[at:]
    assert key_at(path) is None


@given(text=st.text(max_size=80))
def test_anything_else_is_no_object(text: str) -> None:
    assert key_at(text) is None
    assert key_at(f"data/{text}") is None or len(text) >= 41


def test_zeros_are_no_object() -> None:
    assert key_at("data/00/" + "0" * 38) is None
