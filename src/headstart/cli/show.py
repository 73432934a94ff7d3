"""``headstart show``: what one release is made of."""

import argparse
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from headstart.cli.reading import (
    add_past_arguments,
    add_source_arguments,
    heading,
    open_from,
    size_text,
    time_text,
    title,
    write,
    write_json,
    write_lines,
)
from headstart.errors import Error
from headstart.inspect import Description, describe
from headstart.reference import Reference
from headstart.release import FileRecord, ImageRecord, Record
from headstart.releasestatement import Stated
from headstart.wording import counted

HELP = """\
Describe one release: its Julia, its images and what they ask of a CPU, its
inputs and files."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source_arguments(parser)
    add_past_arguments(parser)
    parser.add_argument(
        "reference",
        metavar="STACK[@WHICH]",
        help="a channel, a release, sha256:DIGEST, or 8 or more digits of it",
    )


def run(args: argparse.Namespace) -> int:
    """Print the description."""
    now = datetime.now(UTC)
    reference = Reference.parse(args.reference)
    opened = open_from(args, now)
    found = describe(opened, reference, now=opened.moment(now))
    if args.json:
        write_json(heading(opened) | _json(found))
        return 0
    write_lines(title(opened))
    write("")
    for line in _text(found):
        write(line)
    return 0


def _text(found: Description) -> list[str]:
    made = found.resolved.release
    lines = [
        f"{made.stack} {made.id}",
        # Indented less than the others: 80 columns hold it so.
        f"  digest sha256:{found.resolved.digest.hex}",
        f"  path      {made.path}",
        f"  built     {made.built}",
        f"  moves     {'yes, it may run from another path' if made.relocatable else 'no, it runs at its path'}",
    ]
    lines += [
        f"  channel   {pointer.channel}, version {pointer.version}, until {pointer.expires:%Y-%m-%d}"
        for pointer in found.channels
    ]
    lines += _field("stated", _stated_text(found.stated))
    julia = _sizes(found.julia.files)
    lines += [
        f"  Julia     {made.julia_version}, {counted(julia['files'], 'file')}, {size_text(julia['bytes'])}",
        f"            {made.julia_path}",
    ]
    lines += _field("options", " ".join(made.julia_options) or "none beyond the sealed ones")
    for image in made.images:
        took = f"built in {image.build_seconds:.0f} s"
        lines.append(f"  image     {image.target}, {_kind(image)}, {size_text(image.size)}, {took}")
        lines += _field("", f"asks for {' '.join(image.features) or 'nothing'}")
    for name, value in sorted(made.inputs.items()):
        lines += _field("input", f"{name}  {value}")
    whole = _sizes(made.files)
    count = f"{counted(whole['files'], 'file')}, {counted(whole['links'], 'link')}"
    lines.append(f"  files     {count}, {size_text(whole['bytes'])}")
    return lines


def _stated_text(stated: Stated | Error) -> str:
    if isinstance(stated, Error):
        return f"no: {stated.message}"
    return f"by {', '.join(keyid[:12] for keyid in stated.signers)}"


def _kind(image: ImageRecord) -> str:
    words = ["system image" for _ in image.system]
    words += [counted(part.count, "package image") for part in image.packages]
    return " and ".join(words)


def _field(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, 79, initial_indent=f"  {name:<10}", subsequent_indent=" " * 12, break_on_hyphens=False
    )


def _sizes(files: Mapping[str, Record]) -> dict[str, int]:
    regular = [record for record in files.values() if isinstance(record, FileRecord)]
    return {
        "files": len(regular),
        "links": len(files) - len(regular),
        "bytes": sum(record.size for record in regular),
    }


def _json(found: Description) -> dict[str, Any]:
    made = found.resolved.release
    return {
        "stack": str(made.stack),
        "release": str(made.id),
        "digest": found.resolved.digest.hex,
        "path": made.path,
        "built": made.built,
        "relocatable": made.relocatable,
        "channels": [
            {
                "name": str(pointer.channel),
                "version": pointer.version,
                "issued": time_text(pointer.issued),
                "expires": time_text(pointer.expires),
            }
            for pointer in found.channels
        ],
        "statement": {"problem": str(found.stated)}
        if isinstance(found.stated, Error)
        else {"keys": list(found.stated.signers), "headstart": found.stated.statement.headstart},
        "julia": {
            "name": str(made.julia),
            "version": made.julia_version,
            "digest": made.julia_digest.hex,
            "path": made.julia_path,
            "options": list(made.julia_options),
            **_sizes(found.julia.files),
        },
        "images": [
            {
                "target": image.target,
                "cpu_target": image.cpu_target,
                "recorded": image.recorded,
                "features": list(image.features),
                "bytes": image.size,
                "system": [{"path": part.path, "bytes": part.size} for part in image.system],
                "packages": [
                    {"path": part.path, "bytes": part.size, "count": part.count} for part in image.packages
                ],
                "build_seconds": image.build_seconds,
            }
            for image in made.images
        ],
        "inputs": dict(made.inputs),
        **_sizes(made.files),
    }
