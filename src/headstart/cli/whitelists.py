"""``headstart repo resign`` and ``headstart repo rollover``: who may sign a repository, and until when."""

import argparse
import os
import sys
from datetime import UTC, datetime
from typing import Any

from headstart.cli.reading import time_text, write, write_json
from headstart.cli.storages import add_storage_arguments, storage_of
from headstart.cli.tags import name_of
from headstart.cli.writing import write_whole
from headstart.console import Console
from headstart.cvmfs.renewal import WHITELIST_DAYS, Renewal, Request, Terms, entries_of
from headstart.cvmfs.signature import LETTER_LIMIT, CertificateFingerprint, Letter
from headstart.cvmfs.trust import MasterKeys
from headstart.errors import ConfigurationError, KeyFileError, StorageError
from headstart.keys import (
    create_successor,
    load_keys,
    load_master_key,
    load_public,
    plan_successor,
    read_certificate,
)
from headstart.namedfile import read_named
from headstart.names import Fqrn
from headstart.repository.whitelists import (
    Letters,
    install_whitelist,
    plan_install,
    plan_renewal,
    renew_whitelist,
    request_of,
    resign_manifest,
    sign_request,
)
from headstart.store import NewStorage
from headstart.wording import counted

_CARRIED = 1 << 16
"""Bytes that a file may have that is carried between the keys."""
_RESIGN = """\
Sign the whitelist again before it expires. Without the master key at hand:

  headstart repo resign --storage DIR --keys KEYDIR --request FILE
  headstart repo resign --sign FILE --keys MASTERDIR --output SIGNED
  headstart repo resign --storage DIR --keys KEYDIR --apply SIGNED

The first and the last need FQRN.pub in KEYDIR, the second FQRN.masterkey and
FQRN.pub in MASTERDIR, and neither the storage nor a network. All certificates
stay on the whitelist but for what --add-certificate and --revoke say; one that
the present state is signed with cannot be revoked.

--published signs the manifest instead, with the certificate in KEYDIR: the
second step of a rollover.
"""
_ROLLOVER = """\
Make the next repository key and certificate of a repository in a directory of
their own, with copies of FQRN.pub and FQRN.channelkey. Then:

  headstart repo resign ... --add-certificate NEWDIR/FQRN.crt
  headstart repo resign --storage DIR --keys NEWDIR --published
  headstart repo resign ... --revoke OLDDIR/FQRN.crt

Between the first and the last step both certificates are good.
"""


def add_resign(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare ``repo resign``."""
    parser = verbs.add_parser(
        "resign",
        help="sign the whitelist again; add and revoke certificates",
        description=_RESIGN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_storage_arguments(parser, required=False)
    parser.add_argument("--keys", required=True, metavar="KEYDIR", help="the directory of the keys")
    parser.add_argument(
        "--days", type=int, metavar="N", help=f"days that it is to be valid (default: {WHITELIST_DAYS})"
    )
    parser.add_argument(
        "--add-certificate", metavar="CRT", action="append", default=[], help="trust this certificate too"
    )
    parser.add_argument(
        "--revoke",
        metavar="CRT|FINGERPRINT",
        action="append",
        default=[],
        help="trust this certificate no more",
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--request", metavar="FILE", help="write what is to be signed elsewhere")
    way.add_argument("--sign", metavar="FILE", help="sign such a file, where the master key is")
    way.add_argument("--apply", metavar="FILE", help="install a whitelist that was signed elsewhere")
    way.add_argument("--published", action="store_true", help="sign the manifest, not the whitelist")
    parser.add_argument("--output", metavar="SIGNED", help="where --sign writes the whitelist")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(perform=_resign)


def add_rollover(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare ``repo rollover``."""
    parser = verbs.add_parser(
        "rollover",
        help="make the next repository key and certificate",
        description=_ROLLOVER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("fqrn", metavar="FQRN", help="the repository's name")
    parser.add_argument("--keys", required=True, metavar="OLDDIR", help="the directory of the present keys")
    parser.add_argument("--to", required=True, metavar="NEWDIR", help="a directory for the next ones")
    parser.add_argument("--dry-run", action="store_true", help="say what would be made, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(perform=_roll_over)


def _resign(args: argparse.Namespace) -> int:
    _check_words(args)
    if args.sign is not None:
        return _sign(args)
    store = storage_of(args)
    fqrn = name_of(store)
    if args.published:
        return _publish(args, store, fqrn)
    if args.apply is not None:
        return _apply(args, store, load_public(args.keys, fqrn))
    now = datetime.now(UTC)
    masters = load_public(args.keys, fqrn)
    letters = Letters.read(store, masters)
    terms = _terms(args, letters)
    if args.request is not None:
        renewal = plan_renewal(letters, terms, now)
        _talk(renewal)
        if not args.dry_run:
            _write(args.request, request_of(letters, renewal).to_bytes())
        return _answer(args, renewal, file=args.request)
    if args.dry_run:
        renewal = plan_renewal(letters, terms, now)
        _talk(renewal)
    else:
        renewal = renew_whitelist(store, load_master_key(args.keys, fqrn), terms, now, _talk)
    return _answer(args, renewal)


def _check_words(args: argparse.Namespace) -> None:
    terms = [name for name in ("days", "add_certificate", "revoke") if getattr(args, name) not in (None, [])]
    if (args.sign or args.apply or args.published) and terms:
        raise ConfigurationError(
            f"--{terms[0].replace('_', '-')} is of a new whitelist, and none is made here",
            hint="give it where the whitelist is requested",
        )
    if args.sign is None and args.storage is None:
        raise ConfigurationError("no storage is named", hint="add --storage DIR")
    if args.sign is not None and args.storage is not None:
        raise ConfigurationError("--sign needs no storage", hint="leave --storage away")
    if (args.sign is None) != (args.output is None):
        raise ConfigurationError("--sign and --output belong together", hint="name the file to be written")


def _terms(args: argparse.Namespace, letters: Letters) -> Terms:
    algorithm = letters.manifest.algorithm
    add = tuple(read_certificate(path).fingerprint(algorithm) for path in args.add_certificate)
    revoke: list[CertificateFingerprint] = []
    for word in args.revoke:
        given = None if os.path.exists(word) else CertificateFingerprint.parse(word)
        if given is not None:
            revoke.append(given)
            continue
        if not os.path.exists(word):
            raise KeyFileError(
                f"--revoke {word} is neither the file of a certificate nor a fingerprint",
                hint="the present ones: headstart repo resign --dry-run",
            )
        certificate = read_certificate(word)
        revoke += entries_of(certificate, letters.whitelist) or (certificate.fingerprint(algorithm),)
    days = WHITELIST_DAYS if args.days is None else args.days
    return Terms(days=days, add=add, revoke=tuple(revoke))


def _publish(args: argparse.Namespace, store: NewStorage, fqrn: Fqrn) -> int:
    keys = load_keys(args.keys, fqrn)
    now = datetime.now(UTC)
    console = Console(sys.stderr)
    if args.dry_run:
        manifest = Letters.read(store, keys.masters).manifest
    else:
        manifest = resign_manifest((store, keys), now)
    fingerprint = keys.certificate.fingerprint(manifest.algorithm)
    console.step(f"revision {manifest.revision} of {fqrn}: signed with {fingerprint}")
    if args.json:
        said = {"fqrn": str(fqrn), "revision": manifest.revision, "certificate": str(fingerprint)}
        write_json(said | {"dry_run": args.dry_run})
    else:
        write(str(fingerprint))
    return 0


def _sign(args: argparse.Namespace) -> int:
    asked = read_named(args.sign, what="request", limit=_CARRIED, error=StorageError)
    request = Request.from_bytes(asked, where=args.sign)
    renewal, data = sign_request(request, load_master_key(args.keys, request.fqrn))
    _talk(renewal)
    if not args.dry_run:
        _write(args.output, data)
    return _answer(args, renewal, file=args.output)


def _apply(args: argparse.Namespace, store: NewStorage, masters: MasterKeys) -> int:
    data = read_named(args.apply, what="signed whitelist", limit=_CARRIED, error=StorageError)
    # What is no whitelist at all is said of the file that was carried here, not of the storage's.
    Letter.cut(data, what=args.apply)
    now = datetime.now(UTC)
    if args.dry_run:
        renewal = plan_install(Letters.read(store, masters), masters, data, now)
        _talk(renewal)
    else:
        renewal = install_whitelist(store, masters, data, now, _talk)
    return _answer(args, renewal)


def _write(path: str, data: bytes) -> None:
    """Write a file to carry, whole or not at all."""
    if len(data) > LETTER_LIMIT:
        raise StorageError(f"{path} would have {len(data)} bytes, more than a whitelist may have")
    write_whole(path, data)


def _talk(renewal: Renewal) -> None:
    console = Console(sys.stderr)
    after = renewal.after
    days = (after.expires - after.issued).days
    console.step(
        f"whitelist of {after.fqrn}: for {counted(days, 'day')}, until {after.ends:%Y-%m-%d %H:%M} UTC"
    )
    if days > WHITELIST_DAYS:
        console.note(
            f"more than {WHITELIST_DAYS} days: whoever steals a key may be believed that long by nodes "
            "that are kept from the news"
        )
    for word, items in (("keeps", renewal.kept), ("adds", renewal.added), ("revokes", renewal.revoked)):
        for item in items:
            console.step(f"{word} {item}")


def _answer(args: argparse.Namespace, renewal: Renewal, *, file: str | None = None) -> int:
    after = renewal.after
    if not args.json:
        write(file if file is not None else time_text(after.ends))
        return 0
    said: dict[str, Any] = {
        "fqrn": str(after.fqrn),
        "issued": time_text(after.issued),
        "expires": time_text(after.ends),
        "kept": [str(item) for item in renewal.kept],
        "added": [str(item) for item in renewal.added],
        "revoked": [str(item) for item in renewal.revoked],
        "file": file,
        "dry_run": args.dry_run,
    }
    write_json(said)
    return 0


def _roll_over(args: argparse.Namespace) -> int:
    fqrn = Fqrn(args.fqrn)
    certificate = os.path.join(os.path.abspath(args.to), f"{fqrn}.crt")
    console = Console(sys.stderr)
    key_id = None
    if args.dry_run:
        for path in plan_successor(args.keys, args.to, fqrn):
            word = "made anew" if path.endswith((".key", ".crt")) else f"a copy of the one in {args.keys}"
            console.step(f"{path}: {word}")
        console.step(f"then nodes have to be told: repo resign ... --add-certificate {certificate}")
    else:
        key_id = create_successor(args.keys, args.to, fqrn, now=datetime.now(UTC)).repository.keyid
        console.step(
            f"made the next keys of {fqrn} in {args.to}; nodes believe them when the whitelist names "
            f"{certificate}"
        )
    if args.json:
        said = {"fqrn": str(fqrn), "certificate": certificate, "key_id": key_id, "dry_run": args.dry_run}
        write_json(said)
    else:
        write(certificate)
    return 0
