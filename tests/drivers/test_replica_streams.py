"""Learners that take entries from peers, in real replicas on virtual time."""

from __future__ import annotations

import trio.testing

from swarm.consensus.config import ConsensusConfig
from swarm.drivers.named import named_nodes
from swarm.model.entry import Entry
from swarm.model.ids import NodeId, RequestId
from swarm.model.outcome import Applied
from tests.drivers.test_replica import NAMES, World, command, settle, three_nodes

LEARNER = NAMES[3]
CONFIG = ConsensusConfig(stream_learners_min=1)


class Naming:
    """Has one node's catalog find that every entry is about the learner."""

    def __init__(self, world: World, name: NodeId) -> None:
        self._apply = world.tapes[name].apply
        world.tapes[name].apply = self.apply  # type: ignore[method-assign]

    def apply(self, entry: Entry) -> Applied:
        return Applied(self._apply(entry).index, touched_nodes=frozenset((LEARNER,)))


def source_of(world: World) -> NodeId:
    taking = world.replicas[LEARNER].core._state.stream.taking
    assert taking is not None
    return taking.source


async def test_a_learner_has_entries_from_a_peer_and_a_client_there_its_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes(CONFIG) as world:
        await world.start(LEARNER)
        await trio.sleep(5)
        leader = await world.leader()
        source = source_of(world)
        assert source in set(NAMES[:3]) - {leader.node_id}
        applied = await world.replicas[LEARNER].submit(command("x"), request_id=RequestId("r"))
        await settle(world, applied.index)
        assert world.tapes[LEARNER].requests == ["r"] and source_of(world) == source
        await trio.sleep(CONFIG.learner_heartbeat_s)
        assert leader.followers()[LEARNER].match_index == applied.index


async def test_its_assignment_comes_from_the_leader_when_its_source_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes(CONFIG) as world:
        for name in NAMES[:3]:
            Naming(world, name)
        await world.start(LEARNER)
        await trio.sleep(5)
        leader = await world.leader()
        world.network.cuts.add((source_of(world), LEARNER))
        proposed = leader.propose_packed("task.assign", 1, b"", RequestId("r"))
        with trio.fail_after(0.2):
            await leader.result_of(proposed, 1.0)
            await world.replicas[LEARNER].wait_applied(proposed.index)


def test_whom_entries_name_are_the_nodes_of_assignments_that_begin_or_end() -> None:
    kinds = ("task.assign", "assignment.reports", "task.stop")
    entries = tuple(Entry(index, 1, kind, 1, b"", 0, 0.0) for index, kind in enumerate(kinds, 1))
    applied = tuple(Applied(index, touched_nodes=frozenset((f"n{index}",))) for index in (1, 2, 3))
    assert named_nodes(entries, applied) == ("n1", "n3")
