"""A snapshot a day, by wall time, bounded in number; and never more than a warning when the disk refuses."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest
import trio
import trio.testing

from swarm.adapters.kept_snapshots import KeptSnapshots
from swarm.catalog import Catalog
from swarm.consensus.config import ConsensusConfig
from swarm.drivers.consensus import Replica
from swarm.drivers.replica_apply import SLICE_S
from swarm.model.entry import Committed, HardState, Voter
from swarm.node.backups import DAILY, DAY_S, FIRST_LOOK_S, LOOK_EVERY_S, REPLACED, Backups
from swarm.ports import Stored
from tests.catalog_kit import Log, make_node
from tests.drivers.test_replica import NAMES, Tape
from tests.fakes.memory_peers import MemoryNetwork
from tests.fakes.memory_store import MemoryStore


class Wall:
    """A clock that is set by hand."""

    utc_s = 0.0

    def now(self) -> float:
        return trio.current_time()

    def utc(self) -> float:
        return self.utc_s


class Node:
    """A catalog, and a replica that is there to be asked for its term."""

    def __init__(self, folder: Path) -> None:
        self.log, self.wall = Log(make_node("n1")), Wall()
        store = MemoryStore()
        replica = Replica(
            me=Voter(NAMES[0], 1), recovery_generation=0, config=ConsensusConfig(), rng=random.Random(1), stored=store.durable,
            store=store, catalog=Tape(), peers=MemoryNetwork().peers(NAMES[0]), clock=self.wall,
        )  # fmt: skip
        self.backups = Backups(
            self.log.catalog, replica, self.wall, KeptSnapshots(folder), node_name="n1", generation=0
        )


async def test_one_a_day_is_kept_when_the_log_went_on_and_a_week_of_them(tmp_path: Path) -> None:
    node = Node(tmp_path)
    made, log = node.backups, node.log
    assert await made.maybe_keep_daily() and not await made.maybe_keep_daily()
    for day in range(9):
        log.submit(f"t{day}")
        assert not await made.maybe_keep_daily(), "not yet a day"
        node.wall.utc_s += DAY_S
        assert await made.maybe_keep_daily()
    node.wall.utc_s += DAY_S
    assert not await made.maybe_keep_daily(), "nothing has happened since"
    kept = await made.kept(DAILY)
    assert [each.index for each in kept] == list(range(4, 11))
    assert kept[-1].header.tasks == 9 and kept[-1].header.cluster_id == "c1"
    restored = Log().catalog
    restored.restore(KeptSnapshots(tmp_path).load(kept[-1]))
    assert restored.digest() == log.catalog.digest()


async def test_a_clock_that_was_set_back_does_not_stop_them(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.wall.utc_s = 30 * DAY_S
    assert await node.backups.keep(DAILY)
    node.log.submit("later")
    node.wall.utc_s = DAY_S
    assert await node.backups.maybe_keep_daily()


async def test_it_looks_by_itself_soon_after_the_start(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    made = Node(tmp_path).backups
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        assert not await made.kept(), "a host that boots has better things to do"
        await trio.sleep(FIRST_LOOK_S)
        while not (kept := await made.kept()):
            await trio.sleep(LOOK_EVERY_S)  # virtual time does not wait for the thread that writes
        assert [each.header.kind for each in kept] == [DAILY]
        nursery.cancel_scope.cancel()


async def test_a_disk_that_refuses_costs_that_snapshot_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Node(tmp_path).backups
    (tmp_path / "kept").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert not await made.maybe_keep_daily()
        await made.keep_replaced()
    assert "cannot keep a snapshot" in caplog.text
    (tmp_path / "kept").unlink()
    await made.keep_replaced()
    assert [each.header.kind for each in await made.kept()] == [REPLACED]


async def test_the_last_state_is_that_of_the_newest_entry_known_to_be_committed_and_what_follows_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """A daemon that has just started hears of the recovery before it has applied its log."""
    log = Log(make_node("n1"))
    for number in range(20):
        log.submit(f"t{number}")
    entries, committed = tuple(log.entries), Committed(0, 18, log.entries[17].term)
    stored = Stored(1, HardState(0, log.term, ""), entries, None, None, committed)
    catalog, clock = Catalog(), Steps()
    replica = Replica(
        me=Voter(NAMES[1], 1), recovery_generation=0, config=ConsensusConfig(), rng=random.Random(1), stored=stored,
        store=MemoryStore(), catalog=catalog, peers=MemoryNetwork().peers(NAMES[1]), clock=clock,
    )  # fmt: skip
    backups = Backups(catalog, replica, Wall(), KeptSnapshots(tmp_path), node_name="n1", generation=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(replica.run)
        assert catalog.applied_index < 18, "there is something left to apply"
        with caplog.at_level(logging.WARNING):
            await backups.keep_replaced()
        nursery.cancel_scope.cancel()
    assert [each.index for each in await backups.kept(REPLACED)] == [18]
    assert "as of entry 18" in caplog.text
    assert "entries 19 to 21, not known to be committed (3 task.submit)" in caplog.text


class Steps(Wall):
    """Each look at the time is as long after the last one as entries are applied without a pause."""

    looks = 0

    def now(self) -> float:
        self.looks += 1
        return trio.current_time() + self.looks * SLICE_S
