"""Streams between daemons: who is connected to whom, one-way messages and calls, and how a connection ends.

What matters of the real thing is kept: both ends see a connection stand or end, each at its own moment; a daemon that dies on a
living host is noticed at once (its kernel says so), a host without power or behind a cut only after `silence_s`; what was written
meanwhile arrives late or never. Calls have a timeout, and their outcome is unknown to the caller when it passes.

Promise: a call's `done` is called at most once, with the answer, or with None when it did not come in time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from swarm.model.ids import NodeId
from swarm.simulation.network import Network, Stream
from swarm.simulation.world import World

SILENCE_S = 3.0
"""After so long without an answer an end gives its connection up."""
LOOK_S = 0.1
"""How often connections are looked at and missing ones are made."""

Reply = Callable[[Any], None]


class Peer(Protocol):
    """A daemon as its connections see it. Everything but the numbers is fed to its loop, so a frozen one hears it later."""

    host_number: int
    life: int
    node_id: NodeId

    @property
    def recovery_generation(self) -> int:
        """What its hello names."""

    def on_generation(self, generation: int) -> None:
        """A hello named another generation: no connection came about."""

    @property
    def is_running(self) -> bool:
        """Alive and not frozen: able to take part in a handshake."""

    def on_stream(self, peer: NodeId, connected: bool) -> None:
        """A connection stands or ended."""

    def on_stream_message(self, source: NodeId, kind: str, message: Any) -> None:
        """A one-way message."""

    def on_call(self, source: NodeId, kind: str, question: Any, reply: Reply) -> None:
        """A call; `reply` may be used later, once, or never."""

    def feed_answer(self, done: Callable[[Any], None], answer: Any) -> None:
        """The answer of an own call arrived, or its time is over (None)."""


class Streams:
    """All connections of the cluster."""

    def __init__(self, world: World, network: Network) -> None:
        self._world = world
        self._network = network
        self._rng = world.random("streams")
        self._peers: dict[NodeId, Peer] = {}
        self._numbers: dict[int, NodeId] = {}
        self._streams: dict[tuple[int, int], Stream] = {}
        self._calls = 0
        world.after(0.0, self._look)

    def start(self, peer: Peer) -> None:
        """A daemon is up."""
        self._peers[peer.node_id] = peer
        self._numbers[peer.host_number] = peer.node_id

    def stop(self, peer: Peer) -> None:
        """A daemon is gone: whose kernel can still speak tells the others at once."""
        self._peers.pop(peer.node_id, None)
        for pair, stream in list(self._streams.items()):
            if peer.host_number in pair and stream.lives[pair.index(peer.host_number)] == peer.life:
                other = pair[1] if pair[0] == peer.host_number else pair[0]
                if self._network.open_both_ways(peer.host_number, other):
                    self._break(pair, stream)

    def connected(self, one: NodeId, other: NodeId) -> bool:
        """Whether a connection stands, as far as anybody knows."""
        return self._stream(one, other) is not None

    def _stream(self, one: NodeId, other: NodeId) -> Stream | None:
        first, second = self._peers.get(one), self._peers.get(other)
        if first is None or second is None:
            return None
        numbers = (first.host_number, second.host_number)
        return self._streams.get(numbers if numbers[0] < numbers[1] else (numbers[1], numbers[0]))

    # ---- messages

    def send(self, source: Peer, to: NodeId, kind: str, message: Any) -> bool:
        """Queue a one-way message; False when there is no connection and it is dropped."""
        stream = self._stream(source.node_id, to)
        if stream is None:
            return False
        self._network.write(stream, source.host_number, lambda: self._deliver(to, source.node_id, kind, message))
        return True

    def _deliver(self, to: NodeId, source: NodeId, kind: str, message: Any) -> None:
        peer = self._peers.get(to)
        if peer is not None:
            peer.on_stream_message(source, kind, message)

    def call(
        self, source: Peer, to: NodeId, kind: str, question: Any, *, timeout_s: float, done: Callable[[Any], None]
    ) -> None:
        """Ask; `done(answer)` or, when `timeout_s` of true time has passed or nobody is connected, `done(None)`."""
        ended = False

        def end(answer: Any) -> None:
            nonlocal ended
            if not ended:
                ended = True
                source.feed_answer(done, answer)

        stream = self._stream(source.node_id, to)
        if stream is None:
            self._world.after(0.001, end, None)
            return
        self._world.after(timeout_s, end, None)

        def answer(reply: Any) -> None:
            back = self._stream(to, source.node_id)
            if back is not None:
                self._network.write(back, back.hosts[1 - back.hosts.index(source.host_number)], lambda: end(reply), whole=True)

        def ask() -> None:
            peer = self._peers.get(to)
            if peer is not None:
                peer.on_call(source.node_id, kind, question, answer)

        self._network.write(stream, source.host_number, ask, whole=True)

    # ---- connections

    def _look(self) -> None:
        for pair, stream in list(self._streams.items()):
            self._look_at(pair, stream)
        peers = sorted(self._peers.values(), key=lambda peer: peer.host_number)
        for position, one in enumerate(peers):
            for other in peers[position + 1 :]:
                pair = (one.host_number, other.host_number)
                if pair not in self._streams and one.is_running and other.is_running and self._rng.random() < 0.5:
                    opened = self._network.open_stream(*pair)
                    if opened is not None and not self._are_apart(one, other):
                        self._streams[pair] = opened
                        one.on_stream(other.node_id, True)
                        if self._streams.get(pair) is opened:
                            other.on_stream(one.node_id, True)
        self._world.after(LOOK_S, self._look)

    def _are_apart(self, one: Peer, other: Peer) -> bool:
        """Whether two daemons follow different lives of the cluster, as their hellos say. Then each hears of it, and no more."""
        ours, theirs = one.recovery_generation, other.recovery_generation
        if ours == theirs:
            return False
        other.on_generation(ours)
        one.on_generation(theirs)
        return True

    def _look_at(self, pair: tuple[int, int], stream: Stream) -> None:
        if self._network.open_both_ways(*pair):
            ids = [self._numbers[number] for number in pair]
            lives = tuple(self._peers[i].life if i in self._peers else 0 for i in ids)
            if lives != stream.lives:
                self._break(pair, stream)
            elif stream.stuck_since is not None:
                stream.stuck_since = None
                self._network.release_held(stream)
            elif stream.held[0] or stream.held[1]:
                self._network.release_held(stream)
        elif stream.stuck_since is None:
            stream.stuck_since = self._world.now
        elif self._world.now - stream.stuck_since > SILENCE_S:
            self._break(pair, stream)

    def _break(self, pair: tuple[int, int], stream: Stream) -> None:
        """End a connection, if nobody did: who hears of one's end can die of it, which ends others."""
        if self._streams.get(pair) is not stream:
            return
        stream.up = False
        del self._streams[pair]
        for side, number in enumerate(pair):
            peer = self._peers.get(self._numbers[number])
            if peer is not None and peer.life == stream.lives[side]:
                peer.on_stream(self._numbers[pair[1 - side]], False)
