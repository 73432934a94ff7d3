import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import ConfigurationError
from headstart.overrides import Override, Overrides
from projects import APP, LEAF

ONE, TWO = "1" * 40, "2" * 40


def read(*texts: str) -> Overrides:
    """The first text is that of the last depot, as Julia goes through them."""
    found = Overrides.none()
    for number, text in enumerate(texts):
        found = found.over(text, f"depot{number}/Overrides.toml")
    return found


def test_a_tree_is_replaced_by_a_directory_or_another_tree() -> None:
    found = read(f'{ONE} = "/opt/mpi"\n{TWO} = "{ONE}"\n')
    assert found.of(APP, "mpi", ONE) == Override(file="depot0/Overrides.toml", value="/opt/mpi")
    assert found.of(APP, "tool", TWO) == Override(file="depot0/Overrides.toml", value=ONE)
    assert found.of(APP, "tool", "3" * 40) is None


def test_a_name_holds_for_one_package() -> None:
    found = read(f'[{APP.upper()}]\nmpi = "/opt/mpi"\n')
    assert found.of(APP, "mpi", ONE) == Override(file="depot0/Overrides.toml", value="/opt/mpi")
    assert found.of(APP, "other", ONE) is None
    assert found.of(LEAF, "mpi", ONE) is None


def test_an_earlier_depot_has_the_last_word() -> None:
    found = read(f'{ONE} = "/late"\n', f'{ONE} = "/early"\n')
    assert found.of(APP, "x", ONE) == Override(file="depot1/Overrides.toml", value="/early")
    assert (
        read(f'{ONE} = "/late"\n[{APP}]\nx = "/y"\n', f'{ONE} = ""\n[{APP}]\nx = ""\n').of(APP, "x", ONE)
        is None
    )


@pytest.mark.parametrize(
    "text", ['short = "/x"\n', f'{ONE} = "relative"\n', '[App]\nx = "/y"\n', f"{ONE} = 3\n"]
)
def test_what_julia_leaves_out_is_left_out(text: str) -> None:
    assert read(text) == Overrides.none()


def test_a_file_that_is_no_toml() -> None:
    with pytest.raises(ConfigurationError, match=r"depot0/Overrides\.toml is not TOML"):
        read("[")


TREES = st.sampled_from([ONE, TWO])
VALUES = st.sampled_from(["", "/a", "/b", TWO])


@given(st.lists(st.dictionaries(TREES, VALUES), max_size=4))
def test_of_several_depots_the_first_that_speaks_of_a_tree_decides(depots: list[dict[str, str]]) -> None:
    texts = ["".join(f'{tree} = "{value}"\n' for tree, value in depot.items()) for depot in reversed(depots)]
    for tree in (ONE, TWO):
        wanted = next((depot[tree] for depot in depots if tree in depot), "")
        found = read(*texts).of(APP, "x", tree)
        assert (found.value if found else "") == wanted
