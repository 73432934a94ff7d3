"""How large a cache may be: what is read as a size, and whose word counts."""

from pathlib import Path

import pytest

from headstart.errors import ConfigurationError
from headstart.names import Fqrn
from headstart.siteconfig import parse_size, read_site


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1500", 1500),
        ("20 GB", 20 * 10**9),
        ("20g", 20 * 10**9),
        (" 1.5TB ", 1_500_000_000_000),
        ("512KiB", 512 * 1024),
        ("16 GiB", 16 * 2**30),
        ("7 B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--quota") == size


@pytest.mark.parametrize(
    "text", ["", "-5", "much", "5 XB", "1e9", "5 GB more", "٣ GB", "9" * 50, "5 iB", "nan"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no size") as caught:
        parse_size(text, "--quota")
    assert "such as 20 GB" in caught.value.hint


def test_the_environment_counts_more_than_the_user_and_the_user_more_than_the_site(tmp_path: Path) -> None:
    etc, home = tmp_path / "etc", tmp_path / "home"
    for place, text in ((etc / "headstart", "1 GB"), (home / ".config" / "headstart", "2 GB")):
        place.mkdir(parents=True)
        (place / "config.toml").write_text(f'cache_quota = "{text}"\n')
    fqrn = Fqrn("julia.example.org")
    assert read_site(fqrn, {}, etc=str(etc)).cache_quota == 10**9
    assert read_site(None, {"HOME": str(home)}, etc=str(etc)).cache_quota == 2 * 10**9
    env = {"HOME": str(home), "HEADSTART_CACHE_QUOTA": "3GB"}
    assert read_site(fqrn, env, etc=str(etc)).cache_quota == 3 * 10**9
    assert read_site(fqrn, {}, etc=str(tmp_path)).cache_quota is None


@pytest.mark.parametrize("text", ["cache_quota = 5", '[repository."julia.example.org"]\ncache_quota = "5 GB"'])
def test_a_quota_is_a_text_and_of_the_whole_cache(tmp_path: Path, text: str) -> None:
    (tmp_path / "headstart").mkdir()
    (tmp_path / "headstart" / "config.toml").write_text(text + "\n")
    with pytest.raises(ConfigurationError, match="cache_quota"):
        read_site(Fqrn("julia.example.org"), {}, etc=str(tmp_path))


def test_a_wrong_one_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "headstart").mkdir()
    (tmp_path / "headstart" / "config.toml").write_text('cache_quota = "a lot"\n')
    site = read_site(None, {}, etc=str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"config\.toml: 'a lot' is no size"):
        assert site.cache_quota
