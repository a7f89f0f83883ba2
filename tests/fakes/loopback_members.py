"""Members with real keys, real TLS and real TCP on 127.0.0.1, without a log: whom each admits is a plain mapping."""

from __future__ import annotations

import functools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from cryptography.hazmat.primitives.asymmetric import ec

from swarm.adapters.certificates import contexts, fingerprint, issue, public_key_der
from swarm.adapters.tcp import PeerPort, listener_port, open_listener
from swarm.drivers.streams import Streams, StreamsConfig
from swarm.model.ids import ClusterId, NodeId
from swarm.model.node import Node
from swarm.ports import PROTOCOL_PEER
from swarm.wire.frame import PROTOCOL_VERSION, Hello
from swarm.wire.keys import cluster_salt

CLUSTER = ClusterId("ab" * 16)
SECRET = bytes(range(32))


@functools.cache
def key_of(number: int) -> ec.EllipticCurvePrivateKey:
    """The key of a numbered node, the same throughout a run."""
    return ec.generate_private_key(ec.SECP256R1())


def node_id_of(number: int) -> NodeId:
    return NodeId(f"{number:032x}")


def node_of(number: int, address: str = "127.0.0.1:1", key_number: int | None = None) -> Node:
    public = public_key_der(key_of(number if key_number is None else key_number).public_key())
    return Node(node_id_of(number), f"n{number}", address, "", fingerprint(public), public, 1)


class LoopbackMember:
    """One member. `admitted` is its view of the log; `events` what `on_stream` told."""

    def __init__(self, number: int, *, cluster: ClusterId = CLUSTER, key_number: int | None = None) -> None:
        self.number = number
        self.node_id = node_id_of(number)
        self.admitted: dict[NodeId, Node] = {}
        self.events: list[tuple[NodeId, bool]] = []
        self.generations: list[tuple[NodeId, int]] = []
        self.changed = trio.Event()
        self.port = PeerPort()
        self.address = ""
        self.listener: trio.SocketListener | None = None
        self.cluster = cluster
        self.hello = Hello(cluster, self.node_id, PROTOCOL_VERSION, 1, 0)
        key = key_of(number if key_number is None else key_number)
        self.port.use(PROTOCOL_PEER, contexts(issue(SECRET, cluster_salt(cluster), self.node_id, key), PROTOCOL_PEER))
        self.has_log = True
        self.streams = self.new_streams()

    def new_streams(self, config: StreamsConfig | None = None) -> Streams:
        streams = Streams(
            hello=self.hello,
            dialer=self.port,
            admitted=self.admitted.get,
            rng=random.Random(self.number),
            config=config or StreamsConfig(),
            on_stream=self._on_stream,
            on_generation=lambda node_id, generation: self.generations.append((node_id, generation)),
            has_log=lambda: self.has_log,
        )
        self.port.handle(PROTOCOL_PEER, streams.accept)
        return streams

    def _on_stream(self, node_id: NodeId, connected: bool) -> None:
        self.events.append((node_id, connected))
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, node_id: NodeId, connected: bool) -> None:
        """Return when `on_stream` has said so (last)."""
        with trio.fail_after(10):
            while [event for event in self.events if event[0] == node_id][-1:] != [(node_id, connected)]:
                await self.changed.wait()

    async def open(self, port: int = 0) -> None:
        self.listener = await open_listener("127.0.0.1", port)
        self.address = f"127.0.0.1:{listener_port(self.listener)}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[LoopbackMember]:
        if self.listener is None:
            await self.open()
        assert self.listener is not None
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(functools.partial(self.port.serve, self.listener))
                await nursery.start(self.streams.run)
                yield self
                nursery.cancel_scope.cancel()
        finally:
            self.listener.socket.close()


def introduce(*members: LoopbackMember) -> None:
    """Everybody admits everybody."""
    for member in members:
        for other in members:
            member.admitted[other.node_id] = node_of(other.number)


def connect(*members: LoopbackMember) -> None:
    """Everybody dials everybody."""
    for member in members:
        member.streams.set_members({other.node_id: other.address for other in members})


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[LoopbackMember, LoopbackMember]]:
    """Two members that have found each other."""
    one, two = LoopbackMember(1), LoopbackMember(2)
    introduce(one, two)
    async with one.running(), two.running():
        connect(one, two)
        await one.until(two.node_id, True)
        await two.until(one.node_id, True)
        yield one, two
