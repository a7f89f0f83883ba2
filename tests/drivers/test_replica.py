"""The replica on virtual time: three nodes in one process, a fake disk each, and what the rest of the node sees."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext

import msgspec
import pytest
import trio
import trio.testing

from swarm.consensus.config import ConsensusConfig
from swarm.consensus.effects import Role
from swarm.consensus.log import Log
from swarm.drivers import replica_relay
from swarm.drivers.consensus import Replica
from swarm.drivers.replica_disk import OFFER_AGAIN_S, full_text
from swarm.drivers.replica_forward import PROPOSE_CALL, ProposeCall, pack_command
from swarm.drivers.replica_relay import RELAY_CALL, Relay, RelayCall, RelayReply
from swarm.drivers.replica_snapshots import CALL as SNAPSHOT_CALL
from swarm.errors import Bug, DiskFull, Overloaded, StoreFailure, Unavailable, UnknownEntry, UnknownOutcome
from swarm.model.command import Found, SetReason
from swarm.model.entry import KIND_FOUND, Entry, HardState, Voter
from swarm.model.ids import ClusterId, NodeId, RequestId, TaskId
from swarm.model.outcome import Applied
from swarm.ports import Batch, DiskRoom, Stored
from swarm.wire.codec import decode_untrusted, encode
from tests.fakes.memory_peers import MemoryNetwork
from tests.fakes.memory_store import MemoryStore
from tests.fakes.steps import Steps

NAMES = [NodeId(letter * 32) for letter in "abcd"]


class TrioClock:
    def now(self) -> float:
        return trio.current_time()

    def utc(self) -> float:
        return trio.current_time()


class Tape:
    """A catalog that remembers what it was given, each request id once."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, str, str]] = []
        self.unknown_kind = ""
        self.full_collection_after: list[int] = []
        """The collector's last threshold at each step of a restore."""

    def apply(self, entry: Entry) -> Applied:
        if entry.kind == self.unknown_kind:
            raise UnknownEntry(f"entry {entry.index} is newer than this program")
        repeated = entry.request_id != "" and any(entry.request_id == known for _, _, known in self.entries)
        if not repeated:
            self.entries.append((entry.index, entry.kind, entry.request_id))
        return Applied(entry.index, repeated=repeated)

    def snapshot_slices(self) -> Iterator[bytes]:
        whole = msgspec.json.encode(self.entries)
        yield b""
        for start in range(0, len(whole), 1000):
            yield whole[start : start + 1000]

    def restoring(self) -> Rewind:
        return Rewind(self)

    @property
    def requests(self) -> list[str]:
        return [request_id for _, _, request_id in self.entries if request_id]


class Rewind:
    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.data = b""

    def feed(self, piece: bytes) -> Iterator[None]:
        self.data += piece
        self.tape.full_collection_after.append(gc.get_threshold()[2])
        yield

    def finish(self) -> Iterator[None]:
        yield
        self.tape.entries = msgspec.json.decode(self.data, type=list[tuple[int, str, str]])

    def clear(self) -> Iterator[None]:
        self.tape.full_collection_after.append(gc.get_threshold()[2])
        yield


class World:
    """Three voters founded together, and a fourth node that holds nothing."""

    def __init__(self, nursery: trio.Nursery, config: ConsensusConfig) -> None:
        self.nursery = nursery
        self.config = config
        self.network = MemoryNetwork()
        self.voters = tuple(Voter(name, 1) for name in NAMES[:3])
        self.learners = tuple(Voter(name, 1) for name in NAMES)
        self.stores: dict[NodeId, MemoryStore] = {}
        self.tapes: dict[NodeId, Tape] = {}
        self.replicas: dict[NodeId, Replica] = {}
        self.scopes: dict[NodeId, trio.CancelScope] = {}
        self.quorum_in_sight = False
        self.dead = set[NodeId]()
        """In gossip's eyes."""

    async def found(self, name: NodeId) -> None:
        payload = encode(Found(ClusterId("c"), (), self.voters))
        entry = Entry(1, 1, KIND_FOUND, 1, payload, 0, 0.0)
        self.stores[name] = MemoryStore()
        await self.stores[name].write([Batch(1, (entry,), hard_state=HardState(0, 1))])
        await self.start(name)

    async def start(self, name: NodeId) -> None:
        store = self.stores.setdefault(name, MemoryStore())
        stored: Stored = store.durable
        self.tapes[name] = Tape()
        self.replicas[name] = Replica(
            me=Voter(name, stored.store_generation),
            recovery_generation=0,
            config=self.config,
            rng=random.Random(name),
            stored=stored,
            store=store,
            catalog=self.tapes[name],
            peers=self.network.peers(name),
            clock=TrioClock(),
            learners=lambda: self.learners,
            quorum_in_sight=lambda: self.quorum_in_sight,
            name_of=lambda node_id: f"n-{node_id[:1]}",
            is_dead=lambda node_id: node_id in self.dead,
        )
        self.scopes[name] = await self.nursery.start(self._run, name)

    async def _run(self, name: NodeId, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await self.replicas[name].run()

    def crash(self, name: NodeId) -> None:
        self.scopes[name].cancel()
        self.network.isolate(name)
        del self.replicas[name]

    async def leader(self) -> Replica:
        with trio.fail_after(10):
            while True:
                for replica in self.replicas.values():
                    if replica.may_act:
                        return replica
                await trio.sleep(0.01)

    async def others(self) -> list[Replica]:
        leader = await self.leader()
        return [replica for replica in self.replicas.values() if replica is not leader]


@asynccontextmanager
async def three_nodes(config: ConsensusConfig | None = None) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        world = World(nursery, config or ConsensusConfig())
        for name in NAMES[:3]:
            await world.found(name)
        yield world
        nursery.cancel_scope.cancel()


def command(text: str) -> SetReason:
    return SetReason(TaskId("1" * 32), text)


async def settle(world: World, index: int) -> None:
    with trio.fail_after(10):
        for replica in world.replicas.values():
            await replica.wait_applied(index)


async def test_a_command_given_to_any_node_is_applied_on_all_in_the_same_order(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        await world.leader()
        for number, replica in enumerate(world.replicas.values()):
            applied = await replica.submit(command("x"), request_id=RequestId(f"r{number}"))
            assert replica.applied_index >= applied.index
        await settle(world, applied.index)
        tapes = [tape.entries for name, tape in world.tapes.items() if name in world.replicas]
        assert tapes[0] == tapes[1] == tapes[2]
        assert world.tapes[NAMES[0]].requests == ["r0", "r1", "r2"]


async def test_heartbeats_and_their_answers_cost_no_turn_of_the_loop(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        await settle(world, (await world.leader()).last_index)
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(10)
        trio.lowlevel.remove_instrument(steps)
    rounds = 100
    own = 3 * 30  # each node's: the disk's probe, and election timeouts that were put off, about one a second
    assert rounds <= steps.wakes["World._run"] <= rounds + own, "200 heartbeats came, and 200 answers"


async def test_many_commands_share_few_syncs(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        before = world.stores[leader.node_id].writes
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(lambda number=number: leader.submit(command("x"), request_id=RequestId(f"r{number}")))
        assert len(world.tapes[leader.node_id].requests) == 100
        assert world.stores[leader.node_id].writes - before < 20


async def test_work_goes_on_after_the_leader_dies(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        survivor = (await world.others())[0]
        await leader.submit(command("x"), request_id=RequestId("before"))
        world.crash(leader.node_id)
        died_at = trio.current_time()
        await survivor.submit(command("x"), request_id=RequestId("after"), timeout_s=5)
        assert trio.current_time() - died_at < 2.0
        assert world.tapes[survivor.node_id].requests == ["before", "after"]


async def test_a_request_does_not_wait_for_the_answer_of_a_leader_that_fell_silent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        survivor = (await world.others())[0]
        world.network.cuts |= {(leader.node_id, other) for other in NAMES}
        silent_at = trio.current_time()
        await survivor.submit(command("x"), request_id=RequestId("after"), timeout_s=5)
        assert trio.current_time() - silent_at < 1.6
        assert world.tapes[survivor.node_id].requests == ["after"]


async def test_a_write_without_quorum_fails_and_is_not_applied(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        for other in await world.others():
            world.network.isolate(other.node_id)
        await trio.sleep(6)
        started_at = trio.current_time()
        with pytest.raises(Unavailable):
            await leader.submit(command("x"), request_id=RequestId("r"), timeout_s=10)
        assert trio.current_time() - started_at < 1, "with no leader for seconds it fails at once"
        assert not leader.may_act
        with pytest.raises(Unavailable):
            await leader.read_barrier(0.5)


async def test_with_a_majority_in_sight_again_a_write_waits_for_the_new_leader(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        others = [other.node_id for other in await world.others()]
        for other in others:
            world.crash(other)
        await trio.sleep(20)
        world.network.heal()
        world.quorum_in_sight = True
        await world.start(others[0])
        await leader.submit(command("late"), request_id=RequestId("late"), timeout_s=10)
        assert world.tapes[leader.node_id].requests == ["late"]


async def test_an_entry_cut_off_in_flight_has_an_unknown_outcome_or_none(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        world.network.isolate(leader.node_id)
        with pytest.raises(UnknownOutcome):
            await leader.propose(command("x"), request_id=RequestId("r"), timeout_s=1)


async def test_an_overwritten_proposal_is_known_not_to_be_carried_out(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        world.network.isolate(leader.node_id)
        outcome: list[Exception] = []

        async def propose() -> None:
            try:
                await leader.propose(command("x"), request_id=RequestId("r"), timeout_s=60)
            except Unavailable as error:
                outcome.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(propose)
            await trio.sleep(5)
            world.network.heal()
        assert outcome
        successor = await world.leader()
        assert successor is not leader
        assert world.tapes[successor.node_id].requests == []


async def test_the_same_request_sent_twice_is_applied_once(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        follower = (await world.others())[0]
        await follower.submit(command("x"), request_id=RequestId("r"))
        again = await follower.submit(command("x"), request_id=RequestId("r"))
        assert again.repeated
        assert world.tapes[follower.node_id].requests == ["r"]


async def test_a_plan_of_an_earlier_term_is_not_proposed(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        with pytest.raises(Unavailable):
            await leader.propose(command("x"), term=leader.term - 1)


async def test_a_barrier_names_everything_acknowledged_before_it(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        applied = await leader.submit(command("x"), request_id=RequestId("r"))
        for other in await world.others():
            assert await other.read_barrier() >= applied.index


async def test_a_node_that_held_nothing_gets_the_log_as_a_learner(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        applied = await leader.submit(command("x"), request_id=RequestId("r"))
        await world.start(NAMES[3])
        await settle(world, applied.index)
        learner = world.replicas[NAMES[3]]
        assert not learner.core.is_voter and learner.leader_id == leader.node_id
        await learner.submit(command("x"), request_id=RequestId("through the learner"))


async def test_a_node_far_behind_is_brought_up_by_a_snapshot(autojump_clock: trio.testing.MockClock) -> None:
    config = ConsensusConfig(snapshot_every=50, trailing=10)
    async with three_nodes(config) as world:
        leader = await world.leader()
        for number in range(120):
            await leader.submit(command("x" * 100), request_id=RequestId(f"r{number}"))
        assert leader.core.entry_at(60) is None, "the log is bounded"
        await world.start(NAMES[3])
        await settle(world, leader.applied_index)
        assert world.tapes[NAMES[3]].entries == world.tapes[leader.node_id].entries
        world.crash(NAMES[3])
        world.network.heal()
        await world.start(NAMES[3])
        await settle(world, leader.applied_index)
        assert world.tapes[NAMES[3]].entries == world.tapes[leader.node_id].entries


class Ring:
    """Freed by the collector alone, as a connection and its tasks are."""

    def __init__(self) -> None:
        self.me = self


async def test_what_stands_during_a_restore_is_freed_after_it_and_no_full_collection_begins_meanwhile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three_nodes(ConsensusConfig(snapshot_every=50, trailing=10)) as world:
        leader = await world.leader()
        for number in range(60):
            await leader.submit(command("x"), request_id=RequestId(f"r{number}"))
        before, ring = gc.get_threshold(), Ring()
        known = weakref.ref(ring)
        await world.start(NAMES[3])
        await settle(world, leader.applied_index)
        assert len(world.tapes[NAMES[3]].entries) > 50
        assert min(world.tapes[NAMES[3]].full_collection_after) > 1_000_000
        assert gc.get_threshold() == before
        del ring
        gc.collect()
        assert known() is None


async def test_all_nodes_restarted_at_once_have_what_was_acknowledged(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        await leader.submit(command("x"), request_id=RequestId("r"))
        for name in NAMES[:3]:
            world.crash(name)
        world.network.heal()
        for name in NAMES[:3]:
            await world.start(name)
        again = await world.leader()
        await again.submit(command("x"), request_id=RequestId("s"))
        assert world.tapes[again.node_id].requests == ["r", "s"]


async def test_an_unknown_entry_stops_applying_but_not_voting(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        behind = (await world.others())[0]
        world.tapes[behind.node_id].unknown_kind = "task.reason"
        applied = await leader.submit(command("x"), request_id=RequestId("r"))
        world.crash(next(other for other in await world.others() if other is not behind).node_id)
        await leader.submit(command("x"), request_id=RequestId("s"))
        await trio.sleep(1)
        assert "newer" in behind.halted
        assert behind.applied_index == applied.index - 1
        assert behind.commit_index > applied.index, "it goes on acknowledging: the others need its vote"


async def test_a_leader_that_meets_an_unknown_entry_leaves_the_lead_to_one_that_knows_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        world.tapes[leader.node_id].unknown_kind = "task.reason"
        other = (await world.others())[0]
        await other.submit(command("x"), request_id=RequestId("r"))
        await trio.sleep(10)
        assert leader.halted and not leader.may_act
        applied = await other.submit(command("y"), request_id=RequestId("s"))
        assert applied.outcome is None and leader.commit_index >= applied.index


async def test_leadership_is_handed_over_without_a_gap(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        other = (await world.others())[0]
        started_at = trio.current_time()
        leader.transfer_leadership(other.node_id)
        with trio.fail_after(5):
            while other.role is not Role.LEADER:
                await trio.sleep(0.01)
        assert trio.current_time() - started_at < 0.3
        await leader.submit(command("x"), request_id=RequestId("r"))


async def test_voters_change_in_one_proposal(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        await world.start(NAMES[3])
        await trio.sleep(3)
        gone = (await world.others())[0]
        kept = tuple(voter for voter in world.learners if voter.node_id != gone.node_id)
        await leader.propose_configuration(kept)
        await trio.sleep(1)
        assert leader.configuration.voters == kept and not leader.configuration.outgoing
        assert world.replicas[NAMES[3]].core.is_voter


async def test_a_failed_write_ends_the_replica() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with three_nodes() as world:
            leader = await world.leader()
            world.stores[leader.node_id].fail_next = True
            await leader.submit(command("x"), request_id=RequestId("r"), timeout_s=1)
    assert caught.group_contains(StoreFailure)


class TornLog(Log):
    """Broken on purpose: it adds entries, and says that it could not."""

    def append(self, entries: Sequence[Entry]) -> None:
        super().append(entries)
        raise Bug("an invariant of the log is broken")


@pytest.mark.parametrize("asked_over", ["a peer's call", "the API", "a message"])
async def test_a_core_that_breaks_ends_the_replica_whoever_asked_it(
    autojump_clock: trio.testing.MockClock, asked_over: str
) -> None:
    refused = asked_over == "a message"
    with pytest.raises(BaseExceptionGroup) as caught:
        async with three_nodes() as world:
            leader, other = await world.leader(), (await world.others())[0]
            broken = other if asked_over == "a message" else leader
            broken.core._state.log.__class__ = TornLog
            index = leader.last_index
            with pytest.raises(Bug) if broken is leader else nullcontext():
                if broken is other or asked_over == "the API":
                    await leader.submit(command("x"), request_id=RequestId("r"))
                else:
                    call = encode(ProposeCall(*pack_command(command("x")), RequestId("r")))
                    await world.network.nodes[other.node_id].call(leader.node_id, PROPOSE_CALL, call, timeout_s=1)
            refused = True
            await trio.sleep(5)
    assert refused and caught.group_contains(Bug)
    held = [each for each in world.stores[broken.node_id].durable.entries if each.index > index]
    assert held == [], "nothing of the broken change left that node, not even to its disk"


async def test_a_stalled_disk_gives_the_lease_up(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        world.stores[leader.node_id].gate = trio.Event()
        await trio.sleep(5.5)
        assert leader.role is not Role.LEADER
        assert (await world.leader()) is not leader
        world.stores[leader.node_id].gate.set()


async def test_a_node_cut_off_from_the_leader_has_another_one_carry_its_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        cut_off, other = await world.others()
        world.network.cuts |= {(leader.node_id, cut_off.node_id), (cut_off.node_id, leader.node_id)}
        applied = await cut_off.submit(command("through b"), request_id=RequestId("through-b"))
        assert applied.relayed_by == other.node_id
        again = await cut_off.submit(command("through b"), request_id=RequestId("through-b"))
        assert again.repeated
        world.network.heal()
        await settle(world, again.index)
        assert all(tape.requests == ["through-b"] for name, tape in world.tapes.items())


async def test_a_relay_that_does_not_reach_the_leader_either_is_the_last_hop(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        world.network.isolate(leader.node_id)
        one = (await world.others())[0]
        with pytest.raises(Unavailable) as refused:
            await one.submit(command("x"), request_id=RequestId("to-nobody"), timeout_s=0.3)
        assert not any(letter * 32 in f"{refused.value.message} {refused.value.cause} {refused.value.hint}" for letter in "abcd")


async def test_only_so_many_requests_are_carried_for_others_at_once(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_relay, "ANSWERED_MAX", 2)
    network, may_end, told = MemoryNetwork(), trio.Event(), list[str]()

    async def submit(call: RelayCall, timeout_s: float) -> Applied:
        await may_end.wait()
        return Applied(7)

    one, other = network.peers(NAMES[0]), network.peers(NAMES[1])
    Relay(one, submit, lambda: NAMES).register()

    async def ask() -> None:
        call = encode(RelayCall(*pack_command(command("x")), RequestId("r")))
        try:
            answer = await other.call(NAMES[0], RELAY_CALL, call, timeout_s=9)
            told.append(str(decode_untrusted(answer, RelayReply, bytes_max=99).index))
        except Overloaded as error:
            told.append(error.message)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.sleep(1)
        assert told == ["too many requests are carried for other nodes"]
        may_end.set()
        await trio.sleep(1)
        await ask()
    assert told[1:] == ["7", "7", "7"]


@pytest.mark.parametrize(("known", "outcome"), [(True, Unavailable), (False, UnknownOutcome)])
async def test_what_gossip_knows_to_be_dead_is_asked_nothing_though_its_connection_stands(
    known: bool, outcome: type[Exception], autojump_clock: trio.testing.MockClock
) -> None:
    async with three_nodes() as world:
        await world.leader()
        one = (await world.others())[0]
        lost = [node.node_id for node in world.replicas.values() if node is not one]
        world.network.cuts |= {(name, one.node_id) for name in lost}
        world.dead = set(lost) if known else set()
        with pytest.raises(outcome):
            await one.submit(command("x"), request_id=RequestId("r"), timeout_s=10)


# ---- a full disk ----------------------------------------------------------------------------------------------------------


def have_room(world: World, name: NodeId, *, full: bool, out_of_room: bool = False) -> None:
    world.stores[name].room = DiskRoom(full, 1024 * 1024, False, "/data")
    world.stores[name].is_out_of_room = out_of_room


async def test_a_follower_without_any_room_acknowledges_nothing_and_catches_up_when_there_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """S9: not even its reserve is left. The others go on, its process too, and nothing is lost."""
    async with three_nodes() as world:
        leader = await world.leader()
        full = next(name for name in NAMES[:3] if name != leader.node_id)
        have_room(world, full, full=True, out_of_room=True)
        for number in range(5):
            await leader.submit(command("x"), request_id=RequestId(str(number)), timeout_s=5)
        await trio.sleep(20)
        assert world.stores[full].durable.entries[-1].index < leader.last_index
        have_room(world, full, full=False)
        await trio.sleep(3)
        assert world.tapes[full].requests == ["0", "1", "2", "3", "4"]
        assert world.stores[full].durable.entries[-1].index == leader.last_index


async def test_no_term_after_the_other_is_entered_for_votes_that_a_full_disk_cannot_take(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The last voter but one is lost, and the disk of the other one takes not even a vote: nothing can be decided until it has
    room, and then it is at once."""
    async with three_nodes() as world:
        leader = await world.leader()
        full, survivor = (name for name in NAMES[:3] if name != leader.node_id)
        have_room(world, full, full=True, out_of_room=True)
        await trio.sleep(5)
        term = leader.term
        world.crash(leader.node_id)
        await trio.sleep(60)
        assert world.replicas[survivor].term - term <= 1
        assert not any(replica.may_act for replica in world.replicas.values())
        have_room(world, full, full=False)
        await trio.sleep(5)
        await world.replicas[survivor].submit(command("x"), request_id=RequestId("r"), timeout_s=5)


async def test_a_leader_with_a_full_disk_hands_over_and_submits_go_on_through_any_node(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        have_room(world, leader.node_id, full=True)
        for number in range(10):
            await leader.submit(command("x"), request_id=RequestId(str(number)), timeout_s=5)
            await trio.sleep(0.3)
        assert leader.role is not Role.LEADER
        assert (await world.leader()).node_id != leader.node_id


async def test_where_nobody_has_room_a_submit_is_refused_at_once_and_says_where_to_free_space(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three_nodes() as world:
        await world.leader()
        for name in NAMES[:3]:
            have_room(world, name, full=True)
        await trio.sleep(5)
        leader = await world.leader()
        began = trio.current_time()
        with pytest.raises(DiskFull) as refused:
            await leader.submit(command("x"), request_id=RequestId("r"), timeout_s=10)
        assert trio.current_time() - began < 1
        assert refused.value.message == f"cannot propose task.reason: the disk of the leader, n-{leader.node_id[:1]}, is full"
        assert refused.value.cause == "the disk of /data is full (1.0 MiB left, for votes only)"
        follower = next(replica for replica in world.replicas.values() if replica is not leader)
        with pytest.raises(DiskFull, match="the disk of the leader"):
            await follower.submit(command("x"), request_id=RequestId("s"), timeout_s=10)


async def test_a_snapshot_without_room_for_it_is_not_taken_and_comes_once_there_is_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing is written of it, the node says in words what it needs, and no leader goes on offering it."""
    async with three_nodes(ConsensusConfig(snapshot_every=50, trailing=10)) as world:
        leader = await world.leader()
        for number in range(120):
            await leader.submit(command("x" * 100), request_id=RequestId(f"r{number}"))
        world.stores[NAMES[3]] = MemoryStore()
        world.stores[NAMES[3]].room = DiskRoom(free_bytes=70 << 20, where="/data", owed_bytes=64 << 20)
        await world.start(NAMES[3])
        learner = world.replicas[NAMES[3]]
        await trio.sleep(OFFER_AGAIN_S - 10)
        assert (learner.applied_index, world.stores[NAMES[3]].spools) == (0, [])
        assert world.network.calls[NAMES[3], SNAPSHOT_CALL] <= 3, "offered until the leader has heard"
        assert learner.disk.room.full and leader.followers()[NAMES[3]].disk_full
        assert full_text(learner.disk.room) == (
            "the disk of /data is too full: the snapshot that this node lacks needs 72.0 MiB, 64.0 MiB of that for the reserve; "
            "70.0 MiB are free"
        )
        world.stores[NAMES[3]].room = DiskRoom(free_bytes=80 << 20, where="/data", owed_bytes=64 << 20)
        await trio.sleep(3)
        assert world.tapes[NAMES[3]].entries == world.tapes[leader.node_id].entries
        assert not learner.disk.room.full


async def test_a_snapshot_that_found_no_room_is_asked_for_again_after_a_while_by_whoever_leads(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three_nodes(ConsensusConfig(snapshot_every=50, trailing=10)) as world:
        leader = await world.leader()
        for number in range(120):
            await leader.submit(command("x" * 100), request_id=RequestId(f"r{number}"))
        world.stores[NAMES[3]] = MemoryStore()
        world.stores[NAMES[3]].room = DiskRoom(free_bytes=0, where="/data")
        await world.start(NAMES[3])
        await trio.sleep(4 * OFFER_AGAIN_S)
        assert 4 <= world.network.calls[NAMES[3], SNAPSHOT_CALL] <= 12
        assert world.replicas[NAMES[3]].disk.room.full


async def test_an_idle_disks_probe_carries_the_commit_index(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        await leader.submit(command("x"), request_id=RequestId("r"), timeout_s=5)
        await trio.sleep(2)
        assert {store.durable.committed.index for store in world.stores.values()} == {leader.commit_index}
        writes = world.stores[leader.node_id].writes
        await trio.sleep(10)
        assert world.stores[leader.node_id].writes - writes <= 11, "the probes, and nothing beside them"


async def test_a_restarted_node_shows_what_it_knew_with_nobody_in_reach(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader = await world.leader()
        for number in range(3):
            await leader.submit(command("x"), request_id=RequestId(str(number)), timeout_s=5)
        await trio.sleep(2)
        for name in NAMES[:3]:
            world.crash(name)
        await world.start(NAMES[0])
        world.network.isolate(NAMES[0])
        await trio.sleep(0.1)
        assert world.tapes[NAMES[0]].requests == ["0", "1", "2"]
