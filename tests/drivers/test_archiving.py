"""Applied entries on their way into the archive, and questions on theirs to the reader's process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from swarm.adapters.archive import Archive, ArchiveFolder
from swarm.adapters.past_process import PastReader
from swarm.catalog import Catalog
from swarm.drivers import archiving
from swarm.drivers.archiving import Archiving
from swarm.drivers.replica_apply import Changes
from swarm.errors import NotFound, Unavailable
from swarm.model.archived import Archived, Base, Moment, Question
from swarm.model.entry import Configuration, SnapshotMeta
from tests.archive_kit import CLUSTER, DAY_S
from tests.catalog_kit import Log, make_node

Snapshot = tuple[SnapshotMeta, bytes]


class MemoryArchive:
    """Keeps what it is given; refuses while `full`."""

    def __init__(self) -> None:
        self.records: list[Archived] = []
        self.bases: list[Base] = []
        self.full = False

    async def write(self, records: Sequence[Archived]) -> None:
        await trio.lowlevel.checkpoint()
        if self.full:
            raise OSError("no space")
        self.records += records

    async def offer_base(self, base: Base, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.bases.append(base)


class NoReader:
    async def ask(self, question: Question) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"{}"


class Applied:
    """A log whose every entry is told to an `Archiving`, as a replica would."""

    def __init__(self, past: Archiving) -> None:
        self.past = past
        self.log = Log()
        self.feed = Log(*(make_node(name) for name in ("n1", "n2")))
        self.feed.submit("web")
        self.told = 0

    def tell(self) -> None:
        """Apply what is new."""
        while len(self.feed.entries) > self.told:
            entry = self.feed.entries[self.told]
            applied = self.log.apply_entry(entry)
            self.told += 1
            self.past.on_changes(Changes(entry.index, (applied,), (entry,)))


def made(archive: MemoryArchive, snapshots: list[Snapshot]) -> Archiving:
    return Archiving(archive, NoReader(), cluster_id=CLUSTER, snapshot=lambda: snapshots[-1] if snapshots else None)


def snapshot_of(catalog: Catalog) -> Snapshot:
    data = catalog.snapshot()
    return SnapshotMeta(catalog.applied_index, 1, Configuration(()), 1, 0, catalog.time_utc, 0, len(data)), data


async def test_what_is_applied_is_written_within_a_second_together_and_once(autojump_clock: MockClock) -> None:
    archive = MemoryArchive()
    past = made(archive, [])
    applied = Applied(past)
    async with trio.open_nursery() as nursery:
        await nursery.start(past.run)
        applied.tell()
        await trio.sleep(archiving.GATHER_S + 0.1)
        assert [each.entry.index for each in archive.records] == [1, 2]
        assert archive.records[1].events[0].kind == "task.submitted"
        nursery.cancel_scope.cancel()


async def test_a_snapshot_that_was_restored_is_offered_and_each_one_once(autojump_clock: MockClock) -> None:
    archive, snapshots = MemoryArchive(), list[Snapshot]()
    past = made(archive, snapshots)
    applied = Applied(past)
    async with trio.open_nursery() as nursery:
        await nursery.start(past.run)
        snapshots.append(snapshot_of(applied.feed.catalog))
        past.on_changes(Changes(2, (), restored=True))
        await trio.sleep(5)
        past.on_changes(Changes(2, (), restored=True))
        await trio.sleep(5)
        assert [base.index for base in archive.bases] == [2]
        nursery.cancel_scope.cancel()


async def test_a_disk_that_refuses_ends_nothing_and_is_counted(autojump_clock: MockClock) -> None:
    archive = MemoryArchive()
    past = made(archive, [])
    applied = Applied(past)
    async with trio.open_nursery() as nursery:
        await nursery.start(past.run)
        archive.full = True
        applied.tell()
        await trio.sleep(5)
        assert past.counters["history_writes_failed"] == 1
        archive.full = False
        applied.feed.submit("later")
        applied.tell()
        await trio.sleep(5)
        assert [each.entry.index for each in archive.records] == [3]
        nursery.cancel_scope.cancel()


async def test_what_waits_is_bounded_and_what_is_dropped_is_counted(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "QUEUE_MAX", 1)
    archive = MemoryArchive()
    past = made(archive, [])
    Applied(past).tell()
    assert past.counters["history_entries_dropped"] == 1
    async with trio.open_nursery() as nursery:
        await nursery.start(past.run)
        await trio.sleep(5)
        assert len(archive.records) == 1
        nursery.cancel_scope.cancel()


async def test_a_node_without_a_history_says_so() -> None:
    past = Archiving(None, NoReader(), cluster_id=CLUSTER, snapshot=lambda: None)
    Applied(past).tell()
    with pytest.raises(Unavailable, match="keeps no history"):
        await past.ask(Question("history"))


async def test_a_question_is_answered_by_a_process_of_its_own_up_to_what_was_applied_before_it(tmp_path: Path) -> None:
    archive = Archive(ArchiveFolder(tmp_path, CLUSTER, bytes_max=1 << 24, age_max_s=DAY_S))
    past = Archiving(archive, PastReader(tmp_path, CLUSTER), cluster_id=CLUSTER, snapshot=lambda: None)
    applied = Applied(past)
    async with trio.open_nursery() as nursery:
        await nursery.start(past.run)
        applied.tell()
        with trio.fail_after(60):
            found = json.loads(await past.ask(Question("state")))
            assert (found["index"], [task["name"] for task in found["tasks"]]) == (2, ["web"])
            with pytest.raises(NotFound, match="no index 77"):
                await past.ask(Question("state", at=Moment(index=77)))
        nursery.cancel_scope.cancel()
