"""Signing what the real tools signed, with their keys, gives their bytes."""

import pytest

import goldens
from goldens import Golden
from headstart.cvmfs.manifest import Manifest
from headstart.cvmfs.signature import Certificate, Letter, seal
from headstart.cvmfs.signing import RsaSigner
from headstart.cvmfs.whitelist import Whitelist

pytestmark = goldens.needed


@pytest.mark.parametrize("golden", goldens.BOTH)
def test_manifest_signed_again_is_the_same_file(golden: Golden) -> None:
    published = golden.files[".cvmfspublished"]
    manifest = Manifest.from_bytes(Letter.cut(published, what="it").text)
    signer = RsaSigner.from_pem(golden.private("key"), what="key")
    assert seal(manifest.to_bytes(), algorithm=manifest.algorithm, sign=signer.sign_sha1) == published


@pytest.mark.parametrize("golden", goldens.BOTH)
def test_whitelist_signed_again_is_the_same_file(golden: Golden) -> None:
    signed = golden.files[".cvmfswhitelist"]
    whitelist = Whitelist.from_bytes(Letter.cut(signed, what="it").text)
    (fingerprint,) = whitelist.fingerprints
    signer = RsaSigner.from_pem(golden.private("masterkey"), what="key")
    again = seal(whitelist.to_bytes(), algorithm=fingerprint.digest.algorithm, sign=signer.sign_plain)
    assert again == signed
    assert (
        Certificate.from_pem(golden.private("crt"), what="it").fingerprint(fingerprint.digest.algorithm)
        == fingerprint
    )


@pytest.mark.parametrize("golden", goldens.BOTH)
def test_public_keys_are_read_as_the_private_ones_give_them(golden: Golden) -> None:
    certificate = Certificate.from_pem(golden.private("crt"), what="it")
    assert certificate.key == RsaSigner.from_pem(golden.private("key"), what="key").public
    assert RsaSigner.from_pem(golden.private("masterkey"), what="key").public.to_pem() == golden.master
