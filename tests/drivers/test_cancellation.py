"""Every driver, cancelled at each step it takes: it ends with nothing but `Cancelled`, and what it promised still holds."""

from __future__ import annotations

import functools
import random
from contextlib import aclosing

import trio
import trio.testing

from swarm.consensus.config import ConsensusConfig
from swarm.drivers.boot import Desk, belonging_of
from swarm.drivers.founding import Founding
from swarm.drivers.logs import READER_IDLE_S
from swarm.drivers.membership import Gossip
from swarm.errors import PeerError, Unavailable, UnknownOutcome, Unreachable
from swarm.membership import Config, MemberIdentity, Membership
from swarm.model.entry import Entry
from swarm.model.ids import NodeId, RequestId
from swarm.model.liveness import MemberStatus
from swarm.model.phase import Phase
from swarm.ports import SecureStream
from swarm.runner.copies import Holdings as Remembered
from swarm.wire import codec
from tests.drivers import test_gossip as gossip
from tests.drivers import test_logs as logs
from tests.drivers import test_replica as replicas
from tests.drivers import test_runner as runners
from tests.fakes.cancel_at import Cut, cut_everywhere
from tests.fakes.loopback_members import LoopbackMember, connect, introduce, node_id_of, node_of
from tests.fakes.memory_peers import MemoryNetwork

# ---- the log ----------------------------------------------------------------------------------------------------------------


class ReplicaWorld(replicas.World):
    """Its `victim` runs under the cut the first time it is started."""

    victim = replicas.NAMES[0]
    cut: Cut | None = None

    async def _run(self, name: NodeId, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        if name != self.victim or self.cut is None:
            await super()._run(name, task_status)
            return
        cut, self.cut = self.cut, None
        task_status.started(cut.scope)
        await cut.run(self.replicas[name].run)
        self.network.isolate(name)


def test_a_replica_cut_anywhere_loses_nothing_that_was_acknowledged() -> None:
    async def scenario(cut: Cut) -> None:
        async with trio.open_nursery() as nursery:
            world = ReplicaWorld(nursery, ConsensusConfig())
            world.cut = cut
            for name in replicas.NAMES[:3]:
                await world.found(name)
            acknowledged: list[str] = []
            for number in range(2):
                try:
                    await world.replicas[world.victim].submit(
                        replicas.command("x"), request_id=RequestId(f"r{number}"), timeout_s=2
                    )
                    acknowledged.append(f"r{number}")
                except (Unavailable, UnknownOutcome):
                    pass
            if not cut.happened:
                assert acknowledged == ["r0", "r1"], "a replica that is not cut answers"
            cut.scope.cancel()
            await cut.ended.wait()
            world.network.heal()
            await world.start(world.victim)
            leader = await world.leader()
            await leader.propose(replicas.command("after"), request_id=RequestId("after"))
            await replicas.settle(world, leader.commit_index)
            for tape in world.tapes.values():
                assert set(acknowledged) <= set(tape.requests) and tape.requests == leader_tape(world, leader).requests
            nursery.cancel_scope.cancel()

    assert cut_everywhere(scenario) > 20


def leader_tape(world: ReplicaWorld, leader: replicas.Replica) -> replicas.Tape:
    return world.tapes[leader.node_id]


# ---- containers -------------------------------------------------------------------------------------------------------------


def test_a_runner_cut_anywhere_loses_track_of_no_container() -> None:
    async def scenario(cut: Cut) -> None:
        async with trio.open_nursery() as nursery:
            bench = runners.Bench(nursery)
            await nursery.start(cut.run, bench.driver.run)
            key = bench.cluster.assign()
            with trio.move_on_after(3):
                await cut.ended.wait()
            if not cut.happened:
                assert bench.phase(key) is Phase.RUNNING
            cut.scope.cancel()
            await cut.ended.wait()
            saved = bench.memory.saved
            bench.boot(codec.decode_untrusted(saved[-1], Remembered, bytes_max=1 << 20) if saved else None)
            await bench.start()
            await trio.sleep(40)
            assert bench.phase(key) is Phase.RUNNING and bench.cluster.assignments[key].restarts == 0
            (box,) = bench.engine.containers.boxes.values()
            assert box.starts == 1, "one container, started once, whichever daemon began it"
            nursery.cancel_scope.cancel()

    assert cut_everywhere(scenario) > 15


# ---- founding ---------------------------------------------------------------------------------------------------------------


NAMES = ("n1", "n2")


class Desks:
    """Founders in one process; whoever dials gets a stream in memory to the desk that is open at the address."""

    def __init__(self) -> None:
        self.open: dict[str, tuple[Desk, trio.Nursery]] = {}
        self.disks: dict[int, list[Entry]] = {1: [], 2: []}
        self.found: dict[int, bytes] = {}

    async def persist(self, number: int, entry: Entry) -> None:
        await trio.lowlevel.checkpoint()
        self.disks[number].append(entry)
        await trio.lowlevel.checkpoint()

    async def start(self, number: int, *, stay: bool = True) -> None:
        """A daemon's life: goes on with what is on its disk, or settles; its desk is open for as long as it lives."""
        disk = self.disks[number]
        belonging = belonging_of(codec.encode(disk[0])) if disk else None
        desk = Desk(node_of(number), persist_found=functools.partial(self.persist, number), belonging=belonging)
        rng = random.Random(number)
        made = Founding(
            desk, NAMES, dialer=FromNode(self, number), clock=replicas.TrioClock(), rng=rng, say=lambda text: None
        )
        async with trio.open_nursery() as nursery:
            self.open[f"n{number}"] = desk, nursery
            try:
                self.found[number] = (await made.settle()).found
                if stay:
                    await trio.sleep_forever()
            finally:
                del self.open[f"n{number}"]
                kept = [codec.encode(entry) for entry in disk]
                assert desk.belonging is None or kept == [desk.belonging.found], "what it shows is on its disk"
            nursery.cancel_scope.cancel()


class FromNode:
    """What node `number` dials with."""

    def __init__(self, desks: Desks, number: int) -> None:
        self.desks, self.me = desks, node_of(number)

    async def dial(self, address: str, protocol: str) -> SecureStream:
        await trio.lowlevel.checkpoint()
        if address not in self.desks.open:
            raise Unreachable("connection refused")
        desk, nursery = self.desks.open[address]
        mine, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(desk.accept, SecureStream(theirs, self.me.id, self.me.fingerprint, self.me.name))
        return SecureStream(mine, desk.me.id, desk.me.fingerprint, address)


def cut_a_founder(number: int) -> int:
    async def scenario(cut: Cut) -> None:
        async with trio.open_nursery() as nursery:
            desks = Desks()
            nursery.start_soon(desks.start, 3 - number)
            await cut.run(functools.partial(desks.start, number, stay=False))
            nursery.start_soon(desks.start, number)
            with trio.fail_after(60):
                while len(desks.found) < 2:
                    await trio.sleep(0.1)
            assert len(set(desks.found.values())) == 1, "one cluster, byte for byte"
            for disk in desks.disks.values():
                assert [codec.encode(entry) for entry in disk] == [desks.found[number]], "once on every disk"
            nursery.cancel_scope.cancel()

    return cut_everywhere(scenario)


def test_the_proposer_of_a_founding_cut_anywhere_goes_on_after_a_restart() -> None:
    assert cut_a_founder(1) > 10


def test_a_founder_cut_anywhere_takes_the_founding_over_after_a_restart() -> None:
    assert cut_a_founder(2) > 10


# ---- logs -------------------------------------------------------------------------------------------------------------------


def test_a_reader_of_logs_cut_anywhere_leaves_no_reader_open() -> None:
    async def scenario(cut: Cut) -> None:
        pair = logs.Pair()
        pair.engine.written["c1"] = [("stdout", b"x" * 1000)] * 20
        pair.engine.running = {"c1"}
        seen: list[tuple[str, bytes]] = []

        async def read() -> None:
            async with aclosing(pair.read(follow=True)) as chunks:
                async for chunk in chunks:
                    seen.append(chunk)
                    if len(seen) == 20:
                        return

        async with trio.open_nursery() as nursery:
            await nursery.start(pair.source.run)
            await cut.run(read)
            assert cut.happened or len(seen) == 20
            await trio.sleep(READER_IDLE_S * 3)
            assert pair.engine.closed == len(pair.engine.asked)
            nursery.cancel_scope.cancel()

    assert cut_everywhere(scenario) > 3


def test_a_source_of_logs_cut_anywhere_closes_what_it_read() -> None:
    async def scenario(cut: Cut) -> None:
        pair = logs.Pair()
        pair.engine.written["c1"] = [("stdout", b"x" * 1000)] * 20
        pair.engine.running = {"c1"}

        async def read() -> None:
            with trio.move_on_after(5):
                try:
                    async with aclosing(pair.read(follow=True)) as chunks:
                        async for _ in chunks:
                            pass
                except (PeerError, Unavailable):
                    pass

        async with trio.open_nursery() as nursery:
            await nursery.start(cut.run, pair.source.run)
            nursery.start_soon(read)
            with trio.move_on_after(0.2):
                await cut.ended.wait()
            cut.scope.cancel()
            await cut.ended.wait()
            assert pair.engine.closed == len(pair.engine.asked)
            nursery.cancel_scope.cancel()

    assert cut_everywhere(scenario) > 3


# ---- gossip and streams -----------------------------------------------------------------------------------------------------


def test_gossip_cut_anywhere_can_be_asked_and_told_and_started_again() -> None:
    async def scenario(cut: Cut) -> None:
        clock = replicas.TrioClock()
        network = MemoryNetwork()

        def new(generation: int) -> Gossip:
            identity = MemberIdentity(node_id_of(1), "n1", "127.0.0.1:1", generation)
            core = Membership(identity=identity, config=Config(), rng=random.Random(1), now=clock.now())
            peers = network.peers(node_id_of(1))
            made = Gossip(core, gossip.SilentSocket(), Refusing(), peers, clock, gossip.PlainSealer())
            made.set_admitted({node_id_of(n): (f"n{n}", f"127.0.0.1:{n}") for n in (1, 2)})
            return made

        async with trio.open_nursery() as nursery:
            first = new(1)
            await nursery.start(cut.run, first.run)
            first.observe_stream(node_id_of(2), True)
            with trio.move_on_after(4):
                await cut.ended.wait()
            cut.scope.cancel()
            await cut.ended.wait()
            first.observe_stream(node_id_of(2), False)
            first.pause(5)
            assert first.members()[node_id_of(1)].status is MemberStatus.ALIVE
            second = new(2)
            await nursery.start(second.run)
            await trio.sleep(1)
            assert second.counters["packets_sent"] > 0
            nursery.cancel_scope.cancel()

    assert cut_everywhere(scenario) > 10


class Refusing:
    """A kernel that answers every connect with a reset, after a moment."""

    async def try_connect(self, address: tuple[str, int], timeout_s: float) -> str:
        await trio.sleep(0.001)
        return "refused"


def test_streams_cut_anywhere_are_seen_closed_by_the_peer_and_leave_no_socket() -> None:
    async def scenario(cut: Cut) -> None:
        one, two = LoopbackMember(1), LoopbackMember(2)
        introduce(one, two)
        await two.open()
        with trio.fail_after(10):
            async with one.running(), trio.open_nursery() as nursery:

                async def member() -> None:
                    async with two.running():
                        two.streams.on_call("echo", echo)
                        connect(one, two)
                        await one.until(two.node_id, True)
                        await two.until(one.node_id, True)
                        assert await one.streams.call(two.node_id, "echo", b"x", timeout_s=5) == b"x"
                        assert await two.streams.call(one.node_id, "echo", b"x", timeout_s=5) == b"x"

                one.streams.on_call("echo", echo)
                await cut.run(member)
                if (two.node_id, True) in one.events:
                    await one.until(two.node_id, False)
                assert not one.streams.connected(two.node_id)
                nursery.cancel_scope.cancel()
            for listener in (one.listener, two.listener):
                assert listener is not None
                listener.socket.close()

    assert cut_everywhere(scenario, virtual=False) > 20


async def echo(source: NodeId, payload: bytes) -> bytes:
    await trio.lowlevel.checkpoint()
    return payload
