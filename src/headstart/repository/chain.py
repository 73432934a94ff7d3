"""Checking the chain of signatures link by link: behind a broken one the next is still looked at.

Readers go through ``cvmfs.trust``, which cannot go on after a failure; who looks after a repository wants to
know of all that is wrong, so here nothing that was read is believed, and all of it is looked at.
"""

import zlib
from datetime import datetime, timedelta
from typing import Final

from headstart.cvmfs.faults import Code
from headstart.cvmfs.manifest import MANIFEST_FILE, Manifest
from headstart.cvmfs.objects import ObjectName, inflate
from headstart.cvmfs.signature import CERTIFICATE_LIMIT, LETTER_LIMIT, Certificate, Letter
from headstart.cvmfs.trust import MasterKeys
from headstart.cvmfs.whitelist import WHITELIST_FILE, Whitelist
from headstart.errors import CorruptError, Error, MissingError, TrustError
from headstart.fetching import fetch_object, stored_limit
from headstart.names import Fqrn
from headstart.repository.report import Report
from headstart.stratum import Stratum

_REAL_LIMIT: Final = 4096
"""Bytes of a manifest that the real tools read from a file (format section 5)."""
_CLOCKS: Final = timedelta(minutes=5)
"""How far two clocks may be apart."""
_END: Final = b"\n--\n"


def check_chain(
    stratum: Stratum, keys: MasterKeys, fqrn: Fqrn | None, *, now: datetime, report: Report
) -> Manifest | None:
    """Look at whitelist, manifest and certificate.

    Args:
        stratum: where to read them.
        keys: the anchor.
        fqrn: the repository it must be; None for whichever it says.
        now: UTC.
        report: told what is wrong.

    Returns:
        The manifest, believed or not; None where it cannot be read.
    """
    whitelist = _whitelist(stratum, keys, fqrn, now, report)
    data = _read(stratum, MANIFEST_FILE, report)
    if data is None:
        return None
    if len(data) >= _REAL_LIMIT:
        report.add(
            Code.MANIFEST_TOO_LONG,
            MANIFEST_FILE,
            f"has {len(data)} bytes, and the real tools read 4095 at most",
        )
    letter = _cut(data, MANIFEST_FILE, Code.MANIFEST_DAMAGED, report)
    try:
        manifest = Manifest.from_bytes(letter.text if letter is not None else data.partition(_END)[0] + b"\n")
    except CorruptError as error:
        report.add(Code.MANIFEST_DAMAGED, MANIFEST_FILE, error.message)
        return None
    named = fqrn or (whitelist.fqrn if whitelist is not None else None)
    if named is not None and manifest.fqrn != named:
        report.add(Code.MANIFEST_UNTRUSTED, MANIFEST_FILE, f"is of {manifest.fqrn}, not of {named}")
    if manifest.timestamp > (now + _CLOCKS).timestamp():
        report.add(
            Code.MANIFEST_TIME,
            MANIFEST_FILE,
            "is of the future: clients that have seen it refuse whatever is published before that time",
        )
    certificate = _certificate(stratum, manifest.certificate_name, report)
    if certificate is None:
        return manifest
    if letter is not None and not certificate.key.verifies_sha1(letter.hash_line, letter.signature):
        report.add(Code.MANIFEST_UNTRUSTED, MANIFEST_FILE, "is not signed by the certificate that it names")
    if whitelist is not None and not any(
        certificate.fingerprint(good.digest.algorithm) == good for good in whitelist.fingerprints
    ):
        report.add(Code.CERTIFICATE_UNTRUSTED, manifest.certificate_name.path, "is not on the whitelist")
    return manifest


def _whitelist(
    stratum: Stratum, keys: MasterKeys, fqrn: Fqrn | None, now: datetime, report: Report
) -> Whitelist | None:
    data = _read(stratum, WHITELIST_FILE, report)
    if data is None:
        return None
    letter = _cut(data, WHITELIST_FILE, Code.WHITELIST_DAMAGED, report)
    if letter is not None and not any(
        key.verifies_plain(letter.hash_line, letter.signature) for key in keys.keys
    ):
        report.add(Code.WHITELIST_UNTRUSTED, WHITELIST_FILE, "is not signed by any of the given master keys")
    try:
        whitelist = Whitelist.from_bytes(letter.text if letter is not None else data.partition(_END)[0] + b"\n")
    except (CorruptError, TrustError) as error:
        report.add(Code.WHITELIST_DAMAGED, WHITELIST_FILE, error.message)
        return None
    if fqrn is not None and whitelist.fqrn != fqrn:
        report.add(Code.WHITELIST_UNTRUSTED, WHITELIST_FILE, f"is of {whitelist.fqrn}, not of {fqrn}")
    if not whitelist.valid(now):
        report.add(
            Code.WHITELIST_EXPIRED,
            WHITELIST_FILE,
            f"expired on {whitelist.ends:%Y-%m-%d at %H:%M} UTC: sign it again with the master key",
        )
    return whitelist


def _certificate(stratum: Stratum, name: ObjectName, report: Report) -> Certificate | None:
    pem = read_named(stratum, name, CERTIFICATE_LIMIT, report)
    if pem is None:
        return None
    try:
        return Certificate.from_pem(pem, what=name.path)
    except Error as error:
        report.add(Code.CERTIFICATE_UNTRUSTED, name.path, error.message)
        return None


def read_named(stratum: Stratum, name: ObjectName, limit: int, report: Report) -> bytes | None:
    """A certificate or the meta information, which replicas compress again by themselves (format section 7)."""
    try:
        stored = fetch_object(stratum, name, limit=stored_limit(limit))
        content = inflate(stored, limit=limit, what=name.path)
    except MissingError:
        report.add(Code.OBJECT_MISSING, name.path, "is missing, and the manifest names it")
        return None
    except CorruptError as error:
        report.add(Code.OBJECT_DAMAGED, name.path, error.message)
        return None
    if zlib.compress(content) != stored:
        report.add(
            Code.NOT_STOCK_COMPRESSION,
            name.path,
            "is not compressed as zlib does by default, so a Stratum 1 will store other bytes under its name",
        )
    return content


def _read(stratum: Stratum, path: str, report: Report) -> bytes | None:
    try:
        return stratum.fetch(path, limit=LETTER_LIMIT, fresh=True)
    except MissingError:
        report.add(Code.FILE_MISSING, path, "is missing")
    except CorruptError as error:
        report.add(Code.FILE_UNREADABLE, path, error.message)
    return None


def _cut(data: bytes, path: str, code: Code, report: Report) -> Letter | None:
    try:
        return Letter.cut(data, what=path)
    except CorruptError as error:
        report.add(code, path, error.message)
        return None
