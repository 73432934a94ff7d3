"""Repositories with a history: a few revisions of a small tree, made quickly."""

import atexit
import functools
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from headstart.cvmfs.entry import Entry
from headstart.cvmfs.manifest import Manifest
from headstart.repository import Means, Tagging, Wanted, publish_tree
from publishing import NOW, Place, content_of, new_repository

HOUR = timedelta(hours=1)


@dataclass(slots=True)
class Timeline:
    """A repository whose revision N, from 2 on, has ``/tree/file`` with the text ``state N``."""

    place: Place
    root: Path
    now: datetime = NOW
    manifests: dict[int, Manifest] = field(default_factory=dict)
    contents: dict[int, dict[bytes, Entry | bytes]] = field(default_factory=dict)

    def publish(self, tagging: Tagging | None = None) -> Manifest:
        self.now += HOUR
        number = self.place.open(self.now).manifest.revision + 1
        tree = self.root / "tree"
        (tree / "nested").mkdir(parents=True, exist_ok=True)
        (tree / "file").write_text(f"state {number}")
        (tree / "nested" / ".cvmfscatalog").touch()
        (tree / "nested" / "same").write_text("the same in all")
        (tree / "nested" / f"only-{number % 2}").write_text("now and then")
        means = Means(tagging=tagging or Tagging())
        self.manifests[number] = publish_tree(
            self.place.target, Wanted(directory=str(tree), at=b"/tree"), self.now, means
        ).manifest
        self.contents[number] = content_of(self.place.open(self.now))
        return self.manifests[number]


def timeline(folder: Path, revisions: int = 4) -> Timeline:
    """A repository of that many revisions, an hour apart."""
    template = _template(revisions)
    shutil.copytree(template.root, folder, dirs_exist_ok=True)
    place = Place(folder / "storage")
    return Timeline(place, folder, template.now, dict(template.manifests), dict(template.contents))


@functools.cache
def _template(revisions: int) -> Timeline:
    """Made once, in memory where there is some: publishing waits for the disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="headstart-test-", dir=memory))
    atexit.register(shutil.rmtree, folder)
    made = Timeline(new_repository(folder / "storage"), folder)
    made.manifests[1] = made.place.open().manifest
    made.contents[1] = content_of(made.place.open())
    while len(made.manifests) < revisions:
        made.publish()
    return made
