import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

REPO = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("get_julia", REPO / "tools/get_julia.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_suite_is_replaced_and_nothing_else(tool: ModuleType) -> None:
    text = "Types: deb\nURIs: http://mirror/debian-bookwormish\nSuites: bookworm bookworm-updates\n"
    assert tool.apt_sources(text, "bookworm") == text.replace("bookworm bookworm-", "bullseye bullseye-")


def test_something_half_made_is_not_left(tool: ModuleType, tmp_path: Path) -> None:
    def fail(part: Path) -> None:
        (part / "x").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        tool.placed(tmp_path, "julia", fail)
    assert list(tmp_path.iterdir()) == []
    assert tool.placed(tmp_path, "julia", lambda part: (part / "x").touch()) == tmp_path / "julia"
    assert (tmp_path / "julia/x").exists()


def test_what_was_fetched_is_found_again(tool: ModuleType, tmp_path: Path) -> None:
    assert tool.fetched(tmp_path) is None
    for place in ("debian-1.5.3/usr/bin/julia", "official/julia/bin/julia"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
        assert tool.fetched(tmp_path) == tmp_path / place


def test_the_users_julia_comes_first(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_JULIA", "/no/julia")
    with pytest.raises(tool.MissingToolError, match="/no/julia"):
        tool.get(tmp_path)
