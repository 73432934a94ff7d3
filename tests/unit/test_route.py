"""Servers and proxies as sites write them, and where a node finds them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import ConfigurationError
from headstart.names import Fqrn
from headstart.route import DIRECT, Patience, Route, parse_proxies, parse_servers
from headstart.siteconfig import Site, read_site
from headstart.source import WebSource, parse

FQRN = Fqrn("julia.example.org")


def test_proxies_in_groups() -> None:
    text = "http://a:3128|http://b:3128;http://c;DIRECT"
    assert parse_proxies(text, "it") == (("http://a:3128", "http://b:3128"), ("http://c",), (DIRECT,))
    assert parse_proxies("squid:3128 ; DIRECT", "it") == (("http://squid:3128",), (DIRECT,))


NAMES = st.sampled_from(["http://a:3128", "http://b.example.org", "http://[::1]:80", DIRECT])


@given(st.lists(st.lists(NAMES, min_size=1, max_size=4), min_size=1, max_size=4))
def test_proxies_read_back(groups: list[list[str]]) -> None:
    text = ";".join("|".join(group) for group in groups)
    assert parse_proxies(text, "it") == tuple(map(tuple, groups))


@given(st.text(max_size=40))
def test_any_text_is_proxies_or_a_sentence(text: str) -> None:
    try:
        groups = parse_proxies(text, "CVMFS_HTTP_PROXY")
    except ConfigurationError:
        groups = ()
    assert all(name == DIRECT or name.startswith("http://") for group in groups for name in group)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a proxy is missing"),
        ("http://a||http://b", "a proxy is missing"),
        ("http://a;", "a proxy is missing"),
        ("auto", "auto is not supported"),
        ("https://a", "is no proxy"),
        ("http://", "is no proxy"),
        ("http://a:99999", "is no proxy"),
        ("http://a b", "is no proxy"),
    ],
)
def test_what_is_no_proxy(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_proxies(text, "it")


def test_servers_with_the_repositorys_name() -> None:
    text = "http://s1/cvmfs/@fqrn@;http://s2/@org@,https://s3/x/|http://s1/cvmfs/@fqrn@"
    found = ("http://s1/cvmfs/julia.example.org", "http://s2/julia", "https://s3/x")
    assert parse_servers(text, FQRN, "it") == found
    with pytest.raises(ConfigurationError, match="needs the repository's name"):
        parse_servers("http://s1/cvmfs/@fqrn@", None, "it")
    with pytest.raises(ConfigurationError, match="no address of a server"):
        parse_servers("http://s1;ftp://s2", FQRN, "it")


def test_a_route_of_one_way_is_simple() -> None:
    assert Route(servers=("http://s",)).simple
    assert not Route(servers=("http://s", "http://t")).simple
    assert not Route(servers=("http://s",), proxies=(("http://p",),)).simple


# -- where a node finds them


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


CLIENT = {
    "cvmfs/default.conf": """\
# the client's own
CVMFS_TIMEOUT=5
CVMFS_KEYS_DIR=/etc/cvmfs/keys
CVMFS_HTTP_PROXY="http://wrong:1"
if [ "x$CVMFS_BASE_ENV" = "x" ]; then
  readonly CVMFS_MOUNT_DIR=/cvmfs
fi
""",
    "cvmfs/default.d/50-site.conf": "CVMFS_TIMEOUT_DIRECT=7 # patient\n",
    "cvmfs/default.local": 'CVMFS_HTTP_PROXY="http://squid-a:3128|http://squid-b:3128;DIRECT"\nCVMFS_MAX_RETRIES=3\n',
    "cvmfs/domain.d/example.org.conf": (
        "CVMFS_SERVER_URL='http://s1.example.org/cvmfs/@fqrn@;http://s2.example.org/cvmfs/@fqrn@'\n"
        "export CVMFS_PUBLIC_KEY=/a.pub:/b.pub\n"
    ),
    "cvmfs/config.d/julia.example.org.local": "CVMFS_TIMEOUT=2\n",
    "cvmfs/config.d/other.example.org.local": "CVMFS_TIMEOUT=9\n",
}


def site(tmp_path: Path, **env: str) -> Site:
    return read_site(FQRN, env, etc=str(tmp_path))


def test_a_site_with_the_client_configures_nothing_twice(tmp_path: Path) -> None:
    write(tmp_path, CLIENT)
    route = site(tmp_path).route()
    assert route.servers == (
        "http://s1.example.org/cvmfs/julia.example.org",
        "http://s2.example.org/cvmfs/julia.example.org",
    )
    assert route.proxies == (("http://squid-a:3128", "http://squid-b:3128"), (DIRECT,))
    assert route.patience == Patience(timeout=2.0, timeout_direct=7.0, retries=3)
    assert site(tmp_path).keys == ("/a.pub", "/b.pub")


def test_a_named_server_is_reached_through_the_sites_proxies(tmp_path: Path) -> None:
    write(tmp_path, CLIENT)
    assert site(tmp_path).route("http://mine/x").servers == ("http://mine/x",)
    assert len(site(tmp_path).route("http://mine/x").proxies) == 2
    for here in ("http://127.0.0.1:8000/x", "http://localhost/x", "http://[::1]:80/x"):
        assert site(tmp_path).route(here).proxies == ((DIRECT,),)


def test_headstarts_own_file_and_the_environment_come_first(tmp_path: Path) -> None:
    own = """\
proxy = "http://own:3128"
timeout = 3
[repository."julia.example.org"]
servers = ["http://a/@fqrn@", "http://b/@fqrn@"]
keys = ["/own.pub"]
[repository."other.example.org"]
servers = ["http://c"]
"""
    write(tmp_path, CLIENT | {"headstart/config.toml": own})
    found = site(tmp_path)
    assert found.route().servers == ("http://a/julia.example.org", "http://b/julia.example.org")
    assert found.route().proxies == (("http://own:3128",),)
    assert found.route().patience.timeout == 3
    assert found.keys == ("/own.pub",)
    write(tmp_path / "home", {".config/headstart/config.toml": 'proxy = "DIRECT"\n'})
    assert site(tmp_path, HOME=str(tmp_path / "home")).route().proxies == ((DIRECT,),)
    write(tmp_path / "xdg", {"headstart/config.toml": 'proxy = "http://xdg"\n'})
    both = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert site(tmp_path, **both).route().proxies == (("http://xdg",),)
    last = {"HEADSTART_PROXY": "http://env", "HEADSTART_SERVERS": "http://d/@org@"}
    assert site(tmp_path, **both, **last).route() == Route(
        servers=("http://d/julia",),
        proxies=(("http://env",),),
        patience=Patience(timeout=3.0, timeout_direct=7.0, retries=3),
    )


def test_nothing_is_configured(tmp_path: Path) -> None:
    found = site(tmp_path)
    assert found.keys == ()
    assert found.route("http://s/x") == Route(servers=("http://s/x",))
    with pytest.raises(ConfigurationError, match=r"no server of julia.example.org is configured"):
        found.route()


def test_keys_of_a_directory(tmp_path: Path) -> None:
    write(tmp_path, {"keys/b.pub": "", "keys/a.pub": "", "keys/a.txt": ""})
    write(tmp_path, {"cvmfs/default.local": f"CVMFS_KEYS_DIR={tmp_path}/keys\n"})
    assert site(tmp_path).keys == (f"{tmp_path}/keys/a.pub", f"{tmp_path}/keys/b.pub")
    write(tmp_path, {"cvmfs/default.local": "CVMFS_KEYS_DIR=/nowhere\n"})
    assert site(tmp_path).keys == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("proxies = 1\n", "there is no key proxies"),
        ("proxy = 1\n", "proxy is 1, which is not a text"),
        ('servers = "http://s"\n', "which is not a list of texts"),
        ('timeout = "5"\n', "which is not a number"),
        ("[repository.x]\n", "'x' is no repository name"),
        ('[repository."a.b"]\nserver = 1\n', 'there is no key repository.a.b.server|repository."a.b"'),
        ("[", "is not TOML"),
    ],
)
def test_what_is_wrong_in_headstarts_own_file(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, {"headstart/config.toml": text})
    with pytest.raises(ConfigurationError, match=said):
        site(tmp_path)


def test_numbers_that_make_no_sense(tmp_path: Path) -> None:
    for text in ("CVMFS_TIMEOUT=0", "CVMFS_TIMEOUT=soon", "CVMFS_MAX_RETRIES=-1", "CVMFS_TIMEOUT=nan"):
        write(tmp_path, {"cvmfs/default.local": text + "\n"})
        with pytest.raises(ConfigurationError, match=f"default.local: {text.partition('=')[0]} cannot be"):
            site(tmp_path).route("http://s")


def test_a_name_alone_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, CLIENT)
    source = parse("julia.example.org", lambda fqrn: read_site(fqrn, {}, etc=str(tmp_path)))
    assert isinstance(source, WebSource)
    assert source.url == "http://s1.example.org/cvmfs/julia.example.org"
    with pytest.raises(ConfigurationError, match=r"no server of nowhere.example.com is configured"):
        parse("nowhere.example.com")


def test_several_addresses_are_a_source() -> None:
    source = parse("http://a/cvmfs/julia.example.org;http://b/cvmfs/julia.example.org/")
    assert source == WebSource(
        route=Route(servers=("http://a/cvmfs/julia.example.org", "http://b/cvmfs/julia.example.org"))
    )
