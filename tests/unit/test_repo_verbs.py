"""``headstart repo`` declares only the verb that is asked for, and all of them to who asks for help."""

import argparse

import pytest

from headstart.cli import main, repo


@pytest.mark.parametrize("verb", repo.VERBS)
def test_a_verb_is_declared_alone(verb: str) -> None:
    parser = argparse.ArgumentParser()
    repo.add_verbs(parser, [verb, "--json"])
    (verbs,) = (item for item in parser._actions if isinstance(item, argparse._SubParsersAction))
    assert list(verbs.choices) == [verb]


@pytest.mark.parametrize("words", [["--help"], ["nothing"], []])
def test_otherwise_all_are(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["repo", *words])
    said = capsys.readouterr()
    if words:
        assert all(verb in said.out + said.err for verb in repo.VERBS)
    else:
        assert "VERB" in said.err
