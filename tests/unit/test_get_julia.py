import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from juliaserver import JuliaHost, archive

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


def test_what_was_fetched_is_found_again(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tool.fetched(tmp_path) is None
    place = tmp_path / "debian-1.5.3/usr/bin/julia"
    place.parent.mkdir(parents=True)
    place.touch()
    assert tool.fetched(tmp_path) == place
    with JuliaHost().running() as host:
        host.add("1.10.6", archive("1.10.6"))
        host.add("1.11.1", archive("1.11.1"))
        monkeypatch.setenv("HEADSTART_JULIA_VERSIONS", host.versions)
        program = tool.official(tmp_path)
    assert program.parent.parent.parent.name.startswith("1.10.6-")
    assert tool.fetched(tmp_path) == program
    assert tool.usable(str(program))


def test_where_none_can_be_had_it_says_why(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HEADSTART_JULIA", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HEADSTART_JULIA_VERSIONS", f"file://{tmp_path}/none.json")
    monkeypatch.setattr(tool.platform, "freedesktop_os_release", lambda: {"ID": "plan9"})
    with pytest.raises(
        tool.MissingToolError, match=r"none\.json cannot be reached .*this is no Debian"
    ) as caught:
        tool.get(tmp_path / "folder")
    assert "\n" not in str(caught.value)
    assert "official build cannot be had" in capsys.readouterr().err


def test_the_users_julia_comes_first(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_JULIA", "/no/julia")
    with pytest.raises(tool.MissingToolError, match="/no/julia"):
        tool.get(tmp_path)
