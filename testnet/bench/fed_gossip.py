"""A real daemon's gossip, fed by hand: its driver, seal, decoder and core are the product's; time, network and peers are not.

Virtual time passes as packets are fed, so timers run as they would; what it sends is sealed, counted and goes nowhere; connects
end in every way there is; peers answer no call.
"""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing

from swarm.drivers.membership import Gossip
from swarm.errors import Unreachable
from swarm.membership import Config, MemberIdentity, Membership
from swarm.model.ids import ClusterId, NodeId
from swarm.ports import CallHandler, MessageHandler
from swarm.wire.envelope import Sealer
from swarm.wire.keys import Keyring, gossip_key
from testnet.bench.mutations import Member, admitted

BATCH = 64
STEP_S = 0.01
"""Of virtual time for each batch: 6,400 packets a second, some sixty times what a member of a thousand receives."""
SECRET = bytes(range(32))
CLUSTER, OTHER_CLUSTER = ClusterId("a1" * 16), ClusterId("b2" * 16)


def sealer_of(member: Member, *, cluster: ClusterId = CLUSTER, key: bytes | None = None, generation: int | None = None) -> Sealer:
    """The seal of a member in one of its lives."""
    sending = key if key is not None else gossip_key(SECRET, cluster)
    return Sealer(cluster, Keyring(sending), member.node_id, member.generation if generation is None else generation)


@dataclass
class FedSocket:
    """`ports.PacketSocket`: hands out what it was given."""

    waiting: list[list[tuple[bytes, tuple[str, int]]]] = field(default_factory=list)
    arrived: trio.Event = field(default_factory=trio.Event)
    taken: trio.Event = field(default_factory=trio.Event)
    bytes_sent: int = 0

    async def receive(self) -> list[tuple[bytes, tuple[str, int]]]:
        while not self.waiting:
            self.taken.set()
            self.arrived = trio.Event()
            await self.arrived.wait()
        await trio.lowlevel.checkpoint()
        return self.waiting.pop(0)

    def drain(self) -> list[tuple[bytes, tuple[str, int]]]:
        return []

    def send(self, data: bytes, address: tuple[str, int]) -> None:
        self.bytes_sent += len(data)


class _Connects:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    async def try_connect(self, address: tuple[str, int], timeout_s: float) -> str:
        await trio.lowlevel.checkpoint()
        return self._rng.choice(["accepted", "refused", "silent", "unreachable"])


class _Peers:
    def send(self, to: NodeId, kind: str, payload: bytes) -> bool:
        return False

    async def call(self, to: NodeId, kind: str, payload: bytes, *, timeout_s: float) -> bytes:
        await trio.lowlevel.checkpoint()
        raise Unreachable("nobody is there")

    def on_message(self, kind: str, handler: MessageHandler) -> None:
        pass

    def on_call(self, kind: str, handler: CallHandler) -> None:
        pass

    def connected(self, to: NodeId) -> bool:
        return False


class _VirtualClock:
    def now(self) -> float:
        return trio.current_time()

    def utc(self) -> float:
        return 0.0


class FedGossip:
    """One member that receives. `who[0]` is the member itself."""

    def __init__(self, who: list[Member], *, clock: trio.testing.MockClock, seed: int = 1, sealer: Sealer | None = None) -> None:
        me = who[0]
        identity = MemberIdentity(me.node_id, me.name, me.address, me.generation)
        self.core = Membership(identity=identity, config=Config(), rng=random.Random(seed), now=trio.current_time())
        self.socket = FedSocket()
        self.bytes_received = 0
        self._clock = clock
        self._sealer = sealer or sealer_of(me)
        connects = _Connects(random.Random(seed))
        self.gossip = Gossip(self.core, self.socket, connects, _Peers(), _VirtualClock(), self._sealer)
        self.gossip.set_admitted(admitted(who))

    def prove(self, seals: Mapping[NodeId, Sealer]) -> None:
        """As these members' streams would tell: where their counters stand now."""
        for node_id, sealer in seals.items():
            self._sealer.prove(node_id, sealer.counter)

    async def feed(self, packets: Iterable[tuple[bytes, tuple[str, int]]]) -> Counter[str]:
        """Hand these over, in batches as a busy socket would, and say what was counted meanwhile."""
        before = Counter(self.gossip.drops())
        batch: list[tuple[bytes, tuple[str, int]]] = []
        for packet in packets:
            batch.append(packet)
            self.bytes_received += len(packet[0])
            if len(batch) == BATCH:
                await self._hand_over(batch)
                batch = []
        if batch:
            await self._hand_over(batch)
        self.core.check()
        return Counter(self.gossip.drops()) - before

    async def _hand_over(self, batch: list[tuple[bytes, tuple[str, int]]]) -> None:
        self.socket.taken = trio.Event()
        self.socket.waiting.append(batch)
        self.socket.arrived.set()
        await self.socket.taken.wait()
        self._clock.jump(STEP_S)


@asynccontextmanager
async def fed_gossip(
    who: list[Member], *, clock: trio.testing.MockClock, seed: int = 1, sealer: Sealer | None = None
) -> AsyncIterator[FedGossip]:
    """It runs while the block does; whatever ends its driver ends the block with it."""
    fed = FedGossip(who, clock=clock, seed=seed, sealer=sealer)
    async with trio.open_nursery() as nursery:
        await nursery.start(fed.gossip.run)
        yield fed
        nursery.cancel_scope.cancel()


def objects() -> int:
    """Everything the collector knows, after it ran: what grows with the number of packets is seen here."""
    gc.collect()
    return len(gc.get_objects())
