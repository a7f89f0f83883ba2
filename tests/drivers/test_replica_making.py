"""Snapshots are made while the catalog goes on, and their making ends when the disk refuses or a newer one arrives."""

from __future__ import annotations

import trio
import trio.testing

from swarm.consensus.config import ConsensusConfig
from swarm.drivers.replica_forward import pack_command
from swarm.drivers.replica_making import LOG_FACTOR, REST_FACTOR, RETRY_S, is_due
from swarm.model.entry import Entry
from swarm.model.ids import RequestId
from swarm.model.outcome import Applied
from tests.drivers.test_replica import NAMES, World, command, three_nodes

SHORT = ConsensusConfig(snapshot_every=20, trailing=5)


async def submit(world: World, count: int, first: int = 0) -> None:
    leader = await world.leader()
    for number in range(first, first + count):
        await leader.submit(command("x"), request_id=RequestId(f"r{number}"))


def test_a_snapshot_is_due_after_so_many_entries_when_making_them_takes_a_tenth_of_the_time() -> None:
    assert not is_due(99, every=100, rested_s=1e9, took_s=0.0)
    assert is_due(100, every=100, rested_s=0.0, took_s=0.0)
    assert not is_due(100, every=100, rested_s=REST_FACTOR * 3.0 - 0.1, took_s=3.0)
    assert is_due(100, every=100, rested_s=REST_FACTOR * 3.0, took_s=3.0)
    assert is_due(100 * LOG_FACTOR, every=100, rested_s=0.0, took_s=3.0), "the log stays bounded all the same"


async def test_entries_are_applied_while_a_snapshot_of_before_is_written(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes(SHORT) as world:
        leader = await world.leader()
        store = world.stores[leader.node_id]
        store.spool_gate = trio.Event()
        await submit(world, 30)
        assert leader.core.snapshot is None and store.durable.snapshot is None
        assert leader.applied_index > 30, "the disk is slow with the snapshot, not with the log"
        store.spool_gate.set()
        await trio.sleep(0.1)
        meta = store.durable.snapshot
        assert meta is not None and 20 <= meta.index < leader.applied_index, "it is of the moment it was begun"
        world.crash(leader.node_id)
        world.network.heal()
        await world.start(leader.node_id)
        assert world.tapes[leader.node_id].requests == []
        with trio.fail_after(1):
            await world.replicas[leader.node_id].wait_restored(meta.index)
        assert world.tapes[leader.node_id].requests[:10] == [f"r{number}" for number in range(10)], "before any leader speaks"
        await world.leader()
        await submit(world, 1, first=100)
        assert world.tapes[leader.node_id].requests == [*(f"r{number}" for number in range(30)), "r100"]


async def test_a_disk_that_takes_no_snapshot_keeps_the_node_and_is_asked_again_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three_nodes(SHORT) as world:
        leader = await world.leader()
        store = world.stores[leader.node_id]
        store.spools_refused = True
        await submit(world, 45)
        assert leader.may_act and store.durable.snapshot is None
        store.spools_refused = False
        await submit(world, 5, first=50)
        assert store.durable.snapshot is None, "not at once"
        await trio.sleep(RETRY_S)
        await submit(world, 1, first=60)
        await trio.sleep(0.1)
        assert store.durable.snapshot is not None


async def test_a_snapshot_that_arrives_ends_the_making_of_an_older_one(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes(SHORT) as world:
        leader = await world.leader()
        behind = (await world.others())[0]
        store = world.stores[behind.node_id]
        store.spool_gate = trio.Event()
        await submit(world, 25)
        await trio.sleep(1)
        assert len(store.spools) == 1, "its own is in the making"
        for other in NAMES[:3]:
            world.network.cuts |= {(behind.node_id, other), (other, behind.node_id)}
        await submit(world, 60, first=25)
        world.network.heal()
        await trio.sleep(0.5)
        store.spool_gate.set()
        await trio.sleep(3)
        assert behind.applied_index == (await world.leader()).applied_index
        assert world.tapes[behind.node_id].requests == world.tapes[leader.node_id].requests
        assert store.spools == [], "nothing half-made is left"
        durable = store.durable
        assert durable.snapshot is not None and durable.snapshot.index > 26
        assert not durable.entries or durable.entries[0].index == durable.snapshot.index + 1


async def test_a_follower_whose_leader_died_in_the_middle_of_a_transfer_gets_the_next_leaders(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three_nodes(SHORT) as world:
        leader = await world.leader()
        behind = (await world.others())[0]
        for other in NAMES[:3]:
            world.network.cuts |= {(behind.node_id, other), (other, behind.node_id)}
        await submit(world, 70)
        store = world.stores[behind.node_id]
        store.spool_gate = trio.Event()
        world.network.heal()
        await trio.sleep(0.5)
        assert store.spools, "the transfer is under way"
        await world.start(NAMES[3])
        world.crash(leader.node_id)
        store.spool_gate.set()
        await submit(world, 1, first=70)
        await trio.sleep(3)
        assert world.tapes[behind.node_id].requests == [f"r{number}" for number in range(71)]


async def test_a_node_that_halts_in_the_middle_of_a_slice_begins_no_snapshot(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes(ConsensusConfig(snapshot_every=20, trailing=100)) as world:
        leader = await world.leader()
        behind = (await world.others())[0]
        tape = world.tapes[behind.node_id]
        apply = tape.apply

        def apply_few(entry: Entry) -> Applied:
            tape.unknown_kind = entry.kind if entry.index > 25 else ""
            return apply(entry)

        tape.apply = apply_few  # type: ignore[method-assign]
        for number in range(40):
            leader.propose_packed(*pack_command(command("x")), RequestId(f"r{number}"))
        await trio.sleep(2)
        assert behind.halted and behind.applied_index == 25 and behind.core.snapshot is None
        assert leader.core.snapshot is not None, "the others go on"


async def test_while_a_snapshot_is_streamed_the_lease_is_held_up_by_the_very_follower_that_takes_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three_nodes(SHORT) as world:
        leader = await world.leader()
        behind, other = await world.others()
        for name in NAMES[:3]:
            world.network.cuts |= {(behind.node_id, name), (name, behind.node_id)}
        await submit(world, 70)
        store = world.stores[behind.node_id]
        store.spool_gate = trio.Event()
        world.network.heal()
        await trio.sleep(0.5)
        world.crash(other.node_id)
        await trio.sleep(1)
        term, stored = leader.core.term, behind.applied_index
        for _ in range(500):
            await trio.sleep(0.01)
            assert leader.core.lease_valid(trio.current_time()), "two of three are there, and this one takes a snapshot"
            assert trio.current_time() - behind.core.leader_contact <= 2 * SHORT.heartbeat_s
        assert len(store.spools) == 1 and behind.applied_index == stored, "it was under way all the time"
        store.spool_gate.set()
        await submit(world, 1, first=70)
        assert world.tapes[behind.node_id].requests == [f"r{number}" for number in range(71)]
        assert leader.core.term == term
