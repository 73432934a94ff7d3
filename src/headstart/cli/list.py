"""``headstart list``: the stacks, channels and releases of a repository."""

import argparse
import textwrap
from datetime import UTC, datetime
from typing import Any

from headstart.cli.reading import (
    add_past_arguments,
    add_source_arguments,
    heading,
    open_from,
    size_text,
    tag_json,
    tags_of,
    time_text,
    title,
    write,
    write_json,
    write_lines,
    write_tags,
)
from headstart.errors import Error, UnknownError
from headstart.inspect import ChannelState, ReleaseState, StackState, survey
from headstart.release import FileRecord, Release
from headstart.source import Opened

HELP = "List the stacks of a repository with their channels and releases, or its tags."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source_arguments(parser)
    add_past_arguments(parser)
    parser.add_argument("--tags", action="store_true", help="list the tags instead, newest first")


def run(args: argparse.Namespace) -> int:
    """Print the list."""
    now = datetime.now(UTC)
    opened = open_from(args, now)
    if args.tags:
        return _list_tags(args, opened)
    states = survey(opened, now=opened.moment(now))
    if args.json:
        write_json(heading(opened) | {"stacks": [_stack_json(state) for state in states]})
        return 0
    write_lines(title(opened))
    for state in states:
        write("")
        for line in _stack_text(state):
            write(line)
    if not states:
        write("no stacks")
    return 0


def _list_tags(args: argparse.Namespace, opened: Opened) -> int:
    if opened.snapshot is None:
        raise UnknownError(
            f"{opened.fqrn} is mounted, and its client does not show the tags",
            hint="name the storage or a server",
        )
    tags = tags_of(opened.snapshot)
    if args.json:
        write_json(heading(opened) | {"tags": [tag_json(tag) for tag in tags]})
    else:
        write_tags(tags)
    return 0


def _stack_text(state: StackState) -> list[str]:
    lines = [str(state.name)]
    for channel in state.channels:
        if isinstance(channel.pointer, Error):
            lines += _wrapped(f"  {channel.name}: {channel.pointer}")
        else:
            pointer = channel.pointer
            lines.append(
                f"  {channel.name!s:<12} -> {pointer.release}  version {pointer.version}, "
                f"until {pointer.expires:%Y-%m-%d}"
            )
    for release in state.releases:
        if isinstance(release.record, Error):
            lines += _wrapped(f"  {release.id}: {release.record}")
        else:
            record, digest = release.record
            lines.append(
                f"  {record.id}  sha256:{digest.hex[:12]}  Julia {record.julia_version}  "
                f"{size_text(_size(record))}  {record.built[:10]}"
            )
            lines += _wrapped(f"      {' '.join(image.target for image in record.images)}")
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 79, subsequent_indent="      ", drop_whitespace=True, replace_whitespace=True)


def _size(record: Release) -> int:
    return sum(item.size for item in record.files.values() if isinstance(item, FileRecord))


def _stack_json(state: StackState) -> dict[str, Any]:
    return {
        "name": str(state.name),
        "channels": [_channel_json(channel) for channel in state.channels],
        "releases": [_release_json(release) for release in state.releases],
    }


def _channel_json(channel: ChannelState) -> dict[str, Any]:
    if isinstance(channel.pointer, Error):
        return {"name": str(channel.name), "problem": str(channel.pointer)}
    pointer = channel.pointer
    return {
        "name": str(channel.name),
        "release": str(pointer.release),
        "digest": pointer.digest.hex,
        "version": pointer.version,
        "issued": time_text(pointer.issued),
        "expires": time_text(pointer.expires),
    }


def _release_json(release: ReleaseState) -> dict[str, Any]:
    if isinstance(release.record, Error):
        return {"release": str(release.id), "problem": str(release.record)}
    record, digest = release.record
    return {
        "release": str(record.id),
        "digest": digest.hex,
        "julia": record.julia_version,
        "built": record.built,
        "targets": [image.target for image in record.images],
        "files": len(record.files),
        "bytes": _size(record),
    }
