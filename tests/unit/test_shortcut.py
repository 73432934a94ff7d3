"""The record of a launch: for the same question only, only while all is as it was, never when damaged."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import shortcut
from headstart.shortcut import Question, Shortcut, content_stamp, load, save, stamp

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
pairs = st.lists(st.tuples(texts, texts), max_size=3).map(tuple)


@st.composite
def shortcuts(draw: st.DrawFn) -> Shortcut:
    made = Shortcut()
    made.created, made.fresh_until, made.expires = (draw(st.integers(0, 2**40)) for _ in range(3))
    made.said = draw(texts)
    made.argv = tuple(draw(st.lists(texts, min_size=1, max_size=4)))
    made.sets, made.binds, made.stamps = draw(pairs), draw(pairs), draw(pairs)
    made.drops, made.needs = tuple(draw(st.lists(texts, max_size=3))), tuple(draw(st.lists(texts, max_size=3)))
    return made


def fields(made: Shortcut) -> dict[str, object]:
    return {name: getattr(made, name) for name in Shortcut.__slots__}


@given(shortcuts(), st.lists(texts, max_size=4))
def test_records_come_back(made: Shortcut, parts: list[str]) -> None:
    question = Question(*parts)
    text = shortcut._encode(made, question)
    back = shortcut._decode(text, question)
    assert back is not None
    assert fields(back) == fields(made)
    assert shortcut._decode(text, Question(*parts, "more")) is None


@given(shortcuts(), st.data())
def test_a_damaged_record_is_none_or_the_same_length_of_lists(made: Shortcut, data: st.DataObject) -> None:
    question = Question("source", "jets")
    text = shortcut._encode(made, question)
    cut = data.draw(st.integers(0, len(text) - 1))
    assert shortcut._decode(text[:cut], question) is None
    at = data.draw(st.integers(0, len(text) - 1))
    # Whatever else is in there, nothing raises: the long way is always open.
    shortcut._decode(text[:at] + data.draw(st.sampled_from(["\0", "9", "-", "x"])) + text[at + 1 :], question)


@pytest.fixture
def made(tmp_path: Path) -> Shortcut:
    (tmp_path / "image").write_text("image")
    (tmp_path / "key").write_text("key")
    record = Shortcut()
    record.created, record.fresh_until, record.expires = 100, 200, 300
    record.argv = ("/bin/julia", "-J", "image")
    record.needs = (str(tmp_path / "image"),)
    record.stamps = (
        (str(tmp_path / "image"), stamp(str(tmp_path / "image"))),
        (str(tmp_path / "key"), content_stamp(str(tmp_path / "key"))),
    )
    return record


QUESTION = Question("source", "jets", "", "flags: fpu")


def test_a_record_is_found_again(tmp_path: Path, made: Shortcut) -> None:
    cache = str(tmp_path / "cache")
    assert load(cache, QUESTION, uid=os.geteuid()) is None
    save(cache, QUESTION, made)
    found = load(cache, QUESTION, uid=os.geteuid())
    assert found is not None
    assert found.held is not None
    # What it holds is this process's, and no part of the record.
    found.held = made.held
    assert fields(found) == fields(made)
    assert load(cache, Question("source", "jets", "", "flags: fpu avx"), uid=os.geteuid()) is None
    assert [path.name for path in (tmp_path / "cache" / "launches").iterdir()] == [QUESTION.name]


def test_a_record_falls_with_what_it_stands_on(tmp_path: Path, made: Shortcut) -> None:
    cache = str(tmp_path / "cache")
    save(cache, QUESTION, made)
    (tmp_path / "key").write_text("kex")
    assert load(cache, QUESTION, uid=os.geteuid()) is None
    (tmp_path / "key").write_text("key")
    assert load(cache, QUESTION, uid=os.geteuid()) is not None
    (tmp_path / "image").write_text("other image")
    assert load(cache, QUESTION, uid=os.geteuid()) is None
    (tmp_path / "image").unlink()
    assert load(cache, QUESTION, uid=os.geteuid()) is None


def test_a_record_that_somebody_else_could_have_written_is_not_read(tmp_path: Path, made: Shortcut) -> None:
    cache = tmp_path / "cache"
    save(str(cache), QUESTION, made)
    record = Path(shortcut.path_of(str(cache), QUESTION))
    for place in (cache, record.parent, record):
        mode = place.stat().st_mode
        for wrong in (0o020, 0o002):
            place.chmod(mode | wrong)
            assert load(str(cache), QUESTION, uid=os.geteuid()) is None
        place.chmod(mode)
    assert load(str(cache), QUESTION, uid=os.geteuid()) is not None
    if os.geteuid() == 0:
        os.chown(record, 4321, 4321)
        assert load(str(cache), QUESTION, uid=0) is None
        assert load(str(cache), QUESTION, uid=4321) is not None


def test_a_stamp_of_nothing_never_holds(tmp_path: Path, made: Shortcut) -> None:
    made.stamps = ((str(tmp_path / "absent"), stamp(str(tmp_path / "absent"))),)
    save(str(tmp_path / "cache"), QUESTION, made)
    assert load(str(tmp_path / "cache"), QUESTION, uid=os.geteuid()) is None


def test_saving_fails_quietly(tmp_path: Path, made: Shortcut) -> None:
    (tmp_path / "cache").write_text("a file")
    save(str(tmp_path / "cache"), QUESTION, made)
    assert (tmp_path / "cache").read_text() == "a file"


def test_the_environment_is_sealed(made: Shortcut) -> None:
    made.drops, made.sets = ("JULIA_PKG_SERVER",), (("JULIA_PROJECT", "/p"),)
    found = made.environment({"JULIA_PKG_SERVER": "x", "JULIA_PROJECT": "/bad", "HOME": "/h"})
    assert found == {"JULIA_PROJECT": "/p", "HOME": "/h"}


def test_nothing_is_saved_where_others_may_write(tmp_path: Path, made: Shortcut) -> None:
    """In a directory that another user has laid out, a name may lead anywhere."""
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    cache.mkdir()
    elsewhere.mkdir()
    (cache / "launches").symlink_to(elsewhere)
    cache.chmod(0o777)
    save(str(cache), QUESTION, made)
    assert list(elsewhere.iterdir()) == []
    cache.chmod(0o755)
    elsewhere.chmod(0o777)
    save(str(cache), QUESTION, made)
    assert list(elsewhere.iterdir()) == []


def test_a_record_is_judged_by_the_file_that_is_read(
    tmp_path: Path, made: Shortcut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exchanged between the look at it and its opening, it must not count."""
    cache = str(tmp_path / "cache")
    save(cache, QUESTION, made)
    place = Path(shortcut.path_of(cache, QUESTION))
    place.chmod(0o666)
    real = os.stat

    def before_the_exchange(path: "str | int", **how: bool) -> os.stat_result:
        found = real(path, **how)
        fields = (found.st_mode & ~0o022, *tuple(found)[1:])
        return found if isinstance(path, int) else os.stat_result(fields)

    monkeypatch.setattr(os, "stat", before_the_exchange)
    assert load(cache, QUESTION, uid=os.geteuid()) is None
