"""The settings of a session: begun and undone in real shells, whatever is in the values."""

import os
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import ConfigurationError
from headstart.opensession import NOTE, begun, undone
from headstart.shellcode import shell_code

EVAL = {
    "dash": ("sh", ("dash", "-c")),
    "bash": ("sh", ("bash", "-c")),
    "busybox": ("sh", ("busybox", "sh", "-c")),
    "fish": ("fish", ("fish", "--no-config", "-c")),
    "tcsh": ("csh", ("tcsh", "-f", "-c")),
}
TAKE = {"sh": 'eval "$(cat {file})"', "fish": "cat {file} | source", "csh": 'eval "`cat {file}`"'}
VALUES = (
    "a b  c", "it's", 'say "x"', "$HOME `id` $(id) \\ \\n", "tab\there", "semi;colon:co:lon", "new\nline",
    "\n\n",
    "!x !! a!b", "*?[a]{x,y}~", "", "\\", "'", "'!'", "end\\", "é", "\udcff", "%d", "-n", "# no", "a\rb",
)  # fmt: skip


@pytest.fixture(params=EVAL)
def shell(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if shutil.which(EVAL[name][1][0]) is None:
        pytest.skip(f"there is no {name} here")
    return name


def take(shell: str, code: str, env: dict[str, str], file: str) -> dict[str, str]:
    """What a shell's programs have in their environment after it has taken the code."""
    kind, words = EVAL[shell]
    with open(file, "wb") as place:
        place.write(os.fsencode(code))
    script = f"{TAKE[kind].format(file=file)}; {shutil.which('env')} -0"
    done = subprocess.run([*words, script], env=env, capture_output=True, check=False, timeout=60)
    assert done.stderr == b""
    pairs = (os.fsdecode(pair).partition("=") for pair in done.stdout.split(b"\0")[:-1])
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("value", VALUES)
def test_every_value_arrives_as_it_is(shell: str, value: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    kind = EVAL[shell][0]
    changes = {"X_VALUE": value, "GONE": None}
    if kind == "csh" and "\n" in value:
        with pytest.raises(ConfigurationError, match=r"X_VALUE has a line break"):
            shell_code(changes, kind)
        return
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "GONE": "1",
        "LANG": "C.UTF-8",
    }
    found = take(shell, shell_code(changes, kind), env, str(tmp_path_factory.mktemp("code") / "code"))
    assert found["X_VALUE"] == value
    assert "GONE" not in found


@pytest.mark.parametrize("path", ["/usr/bin:/bin", "/my own:/usr/bin:/bin", "/it's:/usr/bin:/bin", None])
def test_a_session_is_begun_and_undone_exactly(
    shell: str, path: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind = EVAL[shell][0]
    file = str(tmp_path_factory.mktemp("code") / "code")
    if path is None and shell != "dash":
        pytest.skip("this shell sets PATH itself where there is none")
    env = {
        "HOME": str(tmp_path_factory.mktemp("home")),
        "LANG": "C.UTF-8",
        **({} if path is None else {"PATH": path}),
    }
    began = {**env, **{k: v for k, v in begun("/r/o p'en", env).items() if v is not None}}
    if path is not None:
        found = take(shell, shell_code(begun("/r/o p'en", env), kind), env, file)
        assert found["PATH"] == f"/r/o p'en:{path}"
        assert found[NOTE] == began[NOTE]
    after = take(shell, shell_code(undone(began), kind), began, file) if path is not None else {}
    if path is not None:
        assert after["PATH"] == path
        assert NOTE not in after
    else:
        assert undone(began) == {"PATH": None, NOTE: None}


paths = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
folders = st.text("abc/ '", min_size=1, max_size=5).map(lambda text: f"/{text}/open")


def apply(changes: object, env: dict[str, str]) -> dict[str, str]:
    assert isinstance(changes, dict)
    made = {**env, **{name: value for name, value in changes.items() if value is not None}}
    return {name: value for name, value in made.items() if changes.get(name, "") is not None}


@given(path=paths, names=st.lists(folders, min_size=1, max_size=4))
def test_sessions_within_sessions_are_undone_one_by_one(path: str | None, names: list[str]) -> None:
    env: dict[str, str] = {} if path is None else {"PATH": path}
    states = [env]
    for name in names:
        made = apply(begun(name, states[-1]), states[-1])
        # The same session once more changes nothing.
        assert begun(name, made) == {}
        if made != states[-1]:
            assert made["PATH"].split(":")[0] == name
            states.append(made)
    for before, after in zip(reversed(states[:-1]), reversed(states[1:]), strict=True):
        assert apply(undone(after), after) == before


def test_what_others_added_since_stays() -> None:
    env = {"PATH": "/usr/bin"}
    made = apply(begun("/r/open", env), env)
    made["PATH"] = f"/conda/bin:{made['PATH']}:/late"
    assert apply(undone(made), made) == {"PATH": "/conda/bin:/usr/bin:/late"}
    made["PATH"] = "/all/new"
    assert apply(undone(made), made) == {"PATH": "/all/new"}
    del made["PATH"]
    assert apply(undone(made), made) == {}


@pytest.mark.parametrize("note", ["", "x", "[]", '["/r", 1, null]', "[" * 5000])
def test_a_note_that_is_none_is_one_sentence(note: str) -> None:
    with pytest.raises(ConfigurationError, match=r"HEADSTART_SESSION is not as Headstart writes it"):
        undone({"PATH": "/usr/bin", NOTE: note})


def test_there_may_be_nothing_to_undo() -> None:
    with pytest.raises(ConfigurationError, match=r"no session to undo"):
        undone({"PATH": "/usr/bin"})
    with pytest.raises(ConfigurationError, match=r"colon"):
        begun("/a:b/open", {})
