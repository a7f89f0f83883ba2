"""Building blocks for tests of the archive: a log whose entries go into one, as a daemon would have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from swarm.adapters.archive import ArchiveFolder
from swarm.adapters.past import Past, reply
from swarm.adapters.past_process import unpacked
from swarm.catalog import Catalog
from swarm.model.archived import Archived, Base, Question, archived
from swarm.model.command import Found
from swarm.model.entry import Entry, Voter
from swarm.model.ids import ClusterId
from swarm.model.outcome import Applied
from tests.catalog_kit import Log, make_node

CLUSTER = "c1"
DAY_S = 86_400.0


class KeptLog:
    """A log, its archive, and what the catalog was at each index."""

    def __init__(self, folder: Path, *, bytes_max: int = 1 << 28, age_max_s: float = 30 * DAY_S, nodes: int = 3) -> None:
        self.folder = folder
        self.bounds = {"bytes_max": bytes_max, "age_max_s": age_max_s}
        self.log = Log()
        self.log.must(_found(nodes))
        self.records = [Archived(self.log.entries[0], self.log.catalog.events(0).events)]
        self.digests = {1: self.log.catalog.digest()}
        self.begin_anew()
        self.written = 0

    def begin_anew(self) -> None:
        """The daemon starts again on the same folder."""
        self.archive = ArchiveFolder(self.folder, CLUSTER, **self.bounds)  # type: ignore[arg-type]

    def apply(self, command: Any, request_id: str = "") -> Applied:
        applied = self.log.apply(command, request_id)
        self.records.append(archived(self.log.entries[applied.index - 1], applied))
        self.digests[applied.index] = self.log.catalog.digest()
        return applied

    def write(self, *, first: int = 0) -> None:
        """Hand over what was applied since the last time; from `first` on, where the log is read again after a start."""
        self.archive.write(self.records[(first - 1) if first else self.written :])
        self.written = len(self.records)

    def offer_base(self) -> None:
        """A snapshot of now."""
        catalog = self.log.catalog
        self.archive.offer_base(Base(CLUSTER, catalog.applied_index, catalog.time_utc, 0), catalog.snapshot())

    def past(self) -> Past:
        """A reader of what is there now."""
        return Past(self.folder, CLUSTER)

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir())


def answer_from(entries: Sequence[Entry], question: Question) -> bytes:
    """What a daemon whose log this is would answer. Raises `OperatorError`."""
    catalog, records = Catalog(), []
    for entry in entries:
        records.append(archived(entry, catalog.apply(entry)))
    with TemporaryDirectory() as folder:
        ArchiveFolder(Path(folder), CLUSTER, bytes_max=1 << 28, age_max_s=30 * DAY_S).write(records)
        return unpacked(reply(Path(folder), CLUSTER, msgspec.json.encode(question)))


def _found(nodes: int) -> Any:
    made = tuple(make_node(f"n{number}") for number in range(1, nodes + 1))
    return Found(ClusterId(CLUSTER), made, (Voter(made[0].id, 1),))
