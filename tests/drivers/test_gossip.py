"""The membership driver on real loopback sockets, and on a clock and socket of the test's own."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

import pytest
import trio
import trio.testing

from swarm.adapters.clock import SystemClock
from swarm.adapters.connects import KernelConnects
from swarm.adapters.udp import UdpSocket
from swarm.drivers.membership import Gossip
from swarm.errors import Unauthenticated
from swarm.membership import Config, MemberIdentity, Membership
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, Sample
from swarm.model.node import VerdictKind
from tests.fakes.gossip_network import node_id
from tests.fakes.memory_peers import MemoryNetwork
from tests.fakes.steps import Steps

ALIVE, DEAD = MemberStatus.ALIVE, MemberStatus.DEAD


class PlainSealer:
    """Marks packets instead of sealing them: what the real one does is tested where it is."""

    def seal(self, sender: NodeId, plaintext: bytes) -> bytes:
        return b"S" + sender.encode() + plaintext

    def advance(self, generation: int) -> None:
        self.generation = generation

    def open_untrusted(self, packet: bytes) -> tuple[NodeId, bytes]:
        if packet[:1] != b"S":
            raise Unauthenticated("no seal")
        return NodeId(packet[1:33].decode("ascii", "replace")), packet[33:]


def paired_sockets() -> tuple[UdpSocket, socket.socket]:
    """UDP and TCP on one port of 127.0.0.1. The kernel chooses the port for UDP; TCP may have it in use, so it chooses again."""
    for _ in range(100):
        packets = UdpSocket("127.0.0.1", 0)
        listening = socket.socket()
        try:
            listening.bind(packets.address)
        except OSError:
            packets.close()
            listening.close()
            continue
        listening.listen()
        return packets, listening
    raise AssertionError("no port of 127.0.0.1 is free for both UDP and TCP")


class Node:
    """One member on loopback: UDP and TCP on one port, the TCP side accepting and saying nothing."""

    def __init__(self, number: int, peers: MemoryNetwork, *, generation: int = 1) -> None:
        self.number = number
        self.socket, self.listening = paired_sockets()
        self.address = f"127.0.0.1:{self.socket.address[1]}"
        identity = MemberIdentity(node_id(number), f"n{number}", self.address, generation)
        clock = SystemClock()
        core = Membership(identity=identity, config=Config(), rng=random.Random(number), now=clock.now())
        self.gossip = Gossip(core, self.socket, KernelConnects(), peers.peers(node_id(number)), clock, PlainSealer())
        self.changed = trio.Event()
        self.gossip.subscribe(lambda change: self.changed.set())
        self.scope = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.scope:
            try:
                listener = trio.SocketListener(trio.socket.from_stdlib_socket(self.listening))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.serve_listeners, self.silent, [listener])
                    await nursery.start(self.gossip.run)
                    task_status.started()
            finally:
                self.socket.close()
                self.listening.close()

    async def silent(self, stream: trio.SocketStream) -> None:
        await stream.aclose()

    def status(self, number: int) -> MemberStatus:
        return self.gossip.members()[node_id(number)].status

    async def wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed = trio.Event()
            await self.changed.wait()


async def start_group(nursery: trio.Nursery, count: int) -> dict[int, Node]:
    network = MemoryNetwork()
    nodes = {number: Node(number, network) for number in range(1, count + 1)}
    for node in nodes.values():
        await nursery.start(node.run)
    for node in nodes.values():
        node.gossip.set_admitted({node_id(n): (f"n{n}", other.address) for n, other in nodes.items()})
    for node in nodes.values():
        await node.wait(lambda node=node: all(node.status(n) is ALIVE for n in nodes))
    return nodes


async def test_three_nodes_meet_and_a_daemon_that_ends_is_gone_and_a_leaver_has_left() -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nodes = await start_group(nursery, 3)
            nodes[3].scope.cancel()
            for number in (1, 2):
                await nodes[number].wait(lambda number=number: nodes[number].status(3) is DEAD)
                assert nodes[number].gossip.members()[node_id(3)].death_kind is VerdictKind.DAEMON_GONE
            nursery.start_soon(nodes[2].gossip.leave)
            await nodes[1].wait(lambda: nodes[1].status(2) is MemberStatus.LEFT)
            nursery.cancel_scope.cancel()


async def test_what_does_not_open_or_decode_is_counted_by_reason_and_harms_nothing() -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nodes = await start_group(nursery, 2)
            rng = random.Random(5)
            stranger = UdpSocket("127.0.0.1", 0)
            for _ in range(50):
                stranger.send(rng.randbytes(rng.randrange(0, 1800)), nodes[1].socket.address)
                stranger.send(b"S" + node_id(2).encode() + rng.randbytes(rng.randrange(0, 90)), nodes[1].socket.address)
            counters = nodes[1].gossip.counters
            while counters["dropped_bad_message"] < 50 or counters["dropped_unauthenticated"] < 30:
                nodes[1].gossip.observe_sample(Sample(node_id(1), 1, 1))
                await trio.lowlevel.checkpoint()
            stranger.close()
            assert nodes[1].status(2) is ALIVE
            nursery.cancel_scope.cancel()


async def test_a_packet_whose_seal_names_another_sender_is_dropped() -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nodes = await start_group(nursery, 2)
            forger = PlainSealer()
            from swarm.membership.messages import Claim, Rumours, encode_message

            lie = Claim(node_id(2), 9, 0, MemberStatus.LEFT, "n2", nodes[2].address)
            packet = forger.seal(node_id(1), encode_message(Rumours(lie)))
            before = nodes[1].gossip.counters["dropped_bad_message"]
            stranger = UdpSocket("127.0.0.1", 0)
            stranger.send(packet, nodes[1].socket.address)
            while nodes[1].gossip.counters["dropped_bad_message"] == before:
                await trio.lowlevel.checkpoint()
            stranger.close()
            assert nodes[1].status(2) is ALIVE
            nursery.cancel_scope.cancel()


class SilentSocket:
    """Nothing ever comes."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.waiting: list[tuple[bytes, tuple[str, int]]] = []

    async def receive(self) -> list[tuple[bytes, tuple[str, int]]]:
        await trio.sleep_forever()
        raise AssertionError

    def drain(self) -> list[tuple[bytes, tuple[str, int]]]:
        waiting, self.waiting = self.waiting, []
        return waiting

    def send(self, data: bytes, address: tuple[str, int]) -> None:
        self.sent.append((data, address))


class TrioClock:
    """Trio's mock time plus what the test adds, as a pause would."""

    def __init__(self) -> None:
        self.added_s = 0.0

    def now(self) -> float:
        return trio.current_time() + self.added_s

    def utc(self) -> float:
        return 0.0


class RefusingConnects:
    """Every kernel refuses."""

    async def try_connect(self, address: tuple[str, int], timeout_s: float) -> str:
        await trio.lowlevel.checkpoint()
        return "refused"


class Wire(SilentSocket):
    """What is sent arrives at once at 10.0.0.n."""

    def __init__(self) -> None:
        super().__init__()
        self.others: dict[int, Wire] = {}
        self.came = trio.Event()

    async def receive(self) -> list[tuple[bytes, tuple[str, int]]]:
        while not self.waiting:
            self.came = trio.Event()
            await self.came.wait()
        return self.drain()

    def send(self, data: bytes, address: tuple[str, int]) -> None:
        other = self.others[int(address[0].rpartition(".")[2])]
        mine = next(number for number, wire in self.others.items() if wire is self)
        other.waiting.append((data, (f"10.0.0.{mine}", 4747)))
        other.came.set()


def wired_gossip(number: int, clock: TrioClock, packets: SilentSocket) -> Gossip:
    identity = MemberIdentity(node_id(number), f"n{number}", f"10.0.0.{number}:4747", 1)
    core = Membership(identity=identity, config=Config(), rng=random.Random(number), now=clock.now())
    return Gossip(core, packets, RefusingConnects(), MemoryNetwork().peers(node_id(number)), clock, PlainSealer())


def lonely_gossip(clock: TrioClock, packets: SilentSocket) -> Gossip:
    gossip = wired_gossip(1, clock, packets)
    gossip.set_admitted({node_id(2): ("n2", "10.0.0.2:4747")})
    return gossip


async def test_a_pause_of_the_process_is_told_before_anything_else(autojump_clock: trio.testing.MockClock) -> None:
    clock = TrioClock()
    gossip = lonely_gossip(clock, SilentSocket())
    async with trio.open_nursery() as nursery:
        await nursery.start(gossip.run)
        await trio.sleep(0.05)  # mock time: the first ping is out, not yet lost
        clock.added_s += 3.0
        gossip.observe_sample(Sample(node_id(1), 1, 1))
        assert gossip.drops()["stalls"] == 1
        assert gossip.members()[node_id(2)].status is MemberStatus.SUSPECT
        await trio.sleep(2)
        assert gossip.members()[node_id(2)].status is DEAD, "it goes on probing afterwards"
        nursery.cancel_scope.cancel()


async def test_an_answer_leaves_nothing_to_wake_for(autojump_clock: trio.testing.MockClock) -> None:
    """The loop turns for its rounds, not for the timeouts of pings that were answered."""
    steps = Steps()
    async with trio.open_nursery() as nursery:
        three = (1, 2, 3)
        wires = {number: Wire() for number in three}
        for number in three:
            wires[number].others = wires
            gossip = wired_gossip(number, TrioClock(), wires[number])
            gossip.set_admitted({node_id(n): (f"n{n}", f"10.0.0.{n}:4747") for n in three})
            await nursery.start(gossip.run)
        await trio.sleep(30)  # what a start had to tell has been told
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(10)
        trio.lowlevel.remove_instrument(steps)
        assert gossip.counters["packets_received"] > 100
        nursery.cancel_scope.cancel()
    rounds = 10 / Config().probe_interval_s
    assert 3 * (rounds - 1) <= steps.wakes["Gossip.run"] <= 3 * (rounds + 5), "rounds, and the exchanges of tables"


async def test_pressure_reaches_the_core_with_the_loops_own_lag(autojump_clock: trio.testing.MockClock) -> None:
    clock = TrioClock()
    gossip = lonely_gossip(clock, SilentSocket())
    async with trio.open_nursery() as nursery:
        await nursery.start(gossip.run)
        gossip.observe_pressure(0.0, None)
        calm = gossip.health_score
        clock.added_s += 0.45
        gossip.observe_pressure(0.0, 1000)
        assert gossip.health_score > calm, "nobody else was late, but this loop was"
        gossip.observe_pressure(0.0, None)
        assert gossip.health_score == calm, "each lag counts once"
        nursery.cancel_scope.cancel()


async def test_a_refused_stranger_of_two_is_gone_and_subscribers_hear_of_it(autojump_clock: trio.testing.MockClock) -> None:
    clock = TrioClock()
    gossip = lonely_gossip(clock, SilentSocket())
    seen: list[MemberStatus] = []
    gossip.subscribe(lambda change: seen.append(change.new.status))
    async with trio.open_nursery() as nursery:
        await nursery.start(gossip.run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert seen == [MemberStatus.SUSPECT, DEAD]
    assert gossip.members()[node_id(2)].death_kind is VerdictKind.DAEMON_GONE


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.3, 1.7])
async def test_it_can_be_cancelled_at_any_time(autojump_clock: trio.testing.MockClock, after_s: float) -> None:
    gossip = lonely_gossip(TrioClock(), SilentSocket())
    with trio.move_on_after(after_s) as scope:
        await gossip.run()
    assert scope.cancelled_caught
