"""Names of places in object stores, and CVMFS's ``s3.conf``."""

import pytest

from headstart.errors import ConfigurationError
from headstart.s3place import PUBLIC_READ, S3Keys, S3Place, S3Server, acl_of, parse_s3_config

PLACE = S3Place(bucket="cvmfs", prefix="julia.example.org")
CONF = """\
# as cvmfs_server wants it
CVMFS_S3_HOST=s3.example.org
CVMFS_S3_ACCESS_KEY='AK'
export CVMFS_S3_SECRET_KEY="S#K="   # with a sign in it
CVMFS_S3_BUCKET=cvmfs
CVMFS_S3_DNS_BUCKETS=false
SOMETHING=else
"""


@pytest.mark.parametrize(
    ("text", "place", "key"),
    [
        ("s3://cvmfs/julia.example.org", PLACE, "julia.example.org/data/x"),
        ("s3://cvmfs/julia.example.org/", PLACE, "julia.example.org/data/x"),
        ("s3://cvmfs", S3Place(bucket="cvmfs", prefix=""), "data/x"),
        ("s3://cvmfs/", S3Place(bucket="cvmfs", prefix=""), "data/x"),
        ("s3://a.b-c_D/e/f", S3Place(bucket="a.b-c_D", prefix="e/f"), "e/f/data/x"),
    ],
)
def test_a_place_is_read(text: str, place: S3Place, key: str) -> None:
    assert S3Place.parse(text) == place
    assert place.key("data/x") == key
    assert S3Place.parse(place.name) == place


WRONG = (
    "s3://|s3:///x|S3://b/x|s3://b|s3://bb/a//b|s3://bb//a|s3://bb/a/../b|s3://bb/ü|s3://bb/a b|s3://b b/x|"
    "s3://bb/a?b|s3://bb/%41|s3://bb/a#b|s3://-bb/x|bb/x|s3://bb/" + "a" * 600
).split("|")


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        S3Place.parse(text)


def test_the_file_of_the_real_server_is_read() -> None:
    access = parse_s3_config(CONF, PLACE, where="s3.conf")
    assert access.server == S3Server(
        endpoint="http://s3.example.org:80",
        region="us-east-1",
        keys=S3Keys(access="AK", secret="S#K="),
        virtual=False,
    )
    assert access.acl == PUBLIC_READ
    assert "S#K" not in repr(access)


def test_all_of_it_counts() -> None:
    more = """
CVMFS_S3_USE_HTTPS=on
CVMFS_S3_PORT=8443
CVMFS_S3_REGION=ceph
CVMFS_S3_DNS_BUCKETS=true
CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS=400
CVMFS_S3_MAX_RETRIES=1
CVMFS_S3_TIMEOUT=7
CVMFS_S3_X_AMZ_ACL=-
"""
    access = parse_s3_config(CONF + more, PLACE, where="s3.conf")
    assert isinstance(access.server, S3Server)
    assert access.server.endpoint == "https://s3.example.org:8443"
    assert (access.server.region, access.server.virtual) == ("ceph", True)
    assert (access.connections, access.attempts, access.timeout, access.acl) == (64, 2, 7.0, "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("CVMFS_S3_HOST=s3.example.org", "", "does not set CVMFS_S3_HOST"),
        ("CVMFS_S3_ACCESS_KEY='AK'", "", "does not set CVMFS_S3_ACCESS_KEY"),
        ("CVMFS_S3_BUCKET=cvmfs", "CVMFS_S3_BUCKET=other", "for the bucket other"),
        ("SOMETHING=else", "CVMFS_S3_PORT=many", "CVMFS_S3_PORT 'many'"),
        ("SOMETHING=else", "CVMFS_S3_PORT=70000", "CVMFS_S3_PORT '70000'"),
        ("SOMETHING=else", "CVMFS_S3_X_AMZ_ACL=everybody", "'everybody' is no canned ACL"),
        ("s3.example.org", "http://s3.example.org/", "more than the name of a host"),
        ("'AK'", "'AK", "line 3: no closing quotation"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(old: str, new: str, said: str) -> None:
    assert old in CONF
    with pytest.raises(ConfigurationError, match=said):
        parse_s3_config(CONF.replace(old, new), PLACE, where="s3.conf")


@pytest.mark.parametrize("word", ["", "-", "none"])
def test_no_acl_is_an_answer(word: str) -> None:
    assert acl_of(word, "x") == ""
