"""Release records: what is written is what is read, and nothing else is read."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from headstart.errors import ConfigurationError, CorruptError
from headstart.names import ChannelName, Fqrn, JuliaName, ReleaseId, Sha256, StackName
from headstart.release import JuliaTree, Release, canonical


@given(strategies.releases)
def test_release_survives_its_stored_form(release: Release) -> None:
    data = release.to_bytes()
    assert Release.from_bytes(data) == release
    assert Release.from_bytes(data).to_bytes() == data


@given(strategies.julia_trees)
def test_julia_tree_survives_its_stored_form_and_is_named_by_it(tree: JuliaTree) -> None:
    data = tree.to_bytes()
    assert JuliaTree.from_bytes(data) == tree
    assert str(tree.name) == f"{tree.version}-{Sha256.of(data).hex[:12]}"


@given(strategies.releases, st.data())
def test_any_key_missing_or_of_another_type_is_named(release: Release, data: st.DataObject) -> None:
    value: dict[str, Any] = json.loads(release.to_bytes())
    places: list[tuple[dict[str, Any], str]] = [
        (value, key) for key in value if key not in ("schema", "path")
    ] + [(value["julia"], key) for key in value["julia"]]
    if value["images"]:
        places += [(value["images"][0], key) for key in value["images"][0]]
    place, key = data.draw(st.sampled_from(places))
    # An image that is both kinds of code is one of the other kind where one is missing.
    both = key in ("system", "packages") and {"system", "packages"} <= place.keys()
    # A Julia that needs no variables has none.
    spare = both or key == "environment"
    if data.draw(st.booleans()) and not spare:
        del place[key]
    else:
        place[key] = None
    with pytest.raises(CorruptError, match=r"release\.json") as caught:
        Release.from_bytes(canonical(value))
    assert key in str(caught.value)


@given(st.binary(max_size=60))
def test_other_bytes_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(CorruptError, match=r"release\.json"):
        Release.from_bytes(data)


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b\0"]), min_size=1, max_size=5).map("/".join))
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    tree = {"schema": 1, "version": "1.5.3", "executable": path, "share": "s", "system_image": "i"}
    data = canonical(tree | {"library_path": [], "files": {}})
    if set(path.split("/")) <= {"a"}:
        assert JuliaTree.from_bytes(data).executable == path
    else:
        with pytest.raises(CorruptError, match=r"not a path inside|without zeros"):
            JuliaTree.from_bytes(data)


def test_newer_schema_says_so() -> None:
    with pytest.raises(CorruptError, match="newer Headstart"):
        Release.from_bytes(canonical({"schema": 3}))


@given(st.text(max_size=30))
def test_names_have_one_spelling(text: str) -> None:
    for make in (Sha256, Fqrn, StackName, ChannelName, ReleaseId, JuliaName):
        name: object = None
        with contextlib.suppress(ConfigurationError):
            name = make(text)
        if name is not None:
            assert text in str(name)
            assert not set(text) & set("/\n\0 ")


@pytest.mark.parametrize("make", [Sha256, Fqrn, StackName, ChannelName, ReleaseId, JuliaName])
def test_a_wrong_name_says_what_is_right(make: Callable[[str], object]) -> None:
    with pytest.raises(ConfigurationError, match=r"^'A b' is no ") as caught:
        make("A b")
    assert caught.value.hint
