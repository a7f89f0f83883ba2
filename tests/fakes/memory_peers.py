"""Peers in one process: messages are delivered at once, calls run as they are awaited. Links can be cut, each way alone."""

from __future__ import annotations

import math
from collections import Counter

import trio

from swarm.errors import PeerError, Unreachable
from swarm.model.ids import NodeId
from swarm.ports import CallHandler, MessageHandler


class MemoryNetwork:
    """Everybody's peers. `cut(a, b)` drops what a sends to b."""

    def __init__(self) -> None:
        self.nodes: dict[NodeId, MemoryPeers] = {}
        self.cuts: set[tuple[NodeId, NodeId]] = set()
        self.calls: Counter[tuple[NodeId, str]] = Counter()
        """How often each node was asked each kind of thing."""

    def peers(self, node_id: NodeId) -> MemoryPeers:
        self.nodes[node_id] = MemoryPeers(self, node_id)
        return self.nodes[node_id]

    def isolate(self, node_id: NodeId) -> None:
        for other in self.nodes:
            self.cuts |= {(node_id, other), (other, node_id)}

    def heal(self) -> None:
        self.cuts.clear()


class MemoryPeers:
    """One node's end."""

    def __init__(self, network: MemoryNetwork, node_id: NodeId) -> None:
        self._network = network
        self._node_id = node_id
        self._messages: dict[str, MessageHandler] = {}
        self._calls: dict[str, CallHandler] = {}

    def on_message(self, kind: str, handler: MessageHandler) -> None:
        self._messages[kind] = handler

    def on_call(self, kind: str, handler: CallHandler) -> None:
        self._calls[kind] = handler

    def connected(self, to: NodeId) -> bool:
        return to in self._network.nodes and (self._node_id, to) not in self._network.cuts

    def silent_s(self, to: NodeId) -> float:
        return 0.0 if self.connected(to) else math.inf

    def send(self, to: NodeId, kind: str, payload: bytes) -> bool:
        if not self.connected(to):
            return False
        try:
            self._network.nodes[to]._messages[kind](self._node_id, payload)
        except PeerError:
            return False
        return True

    async def call(self, to: NodeId, kind: str, payload: bytes, *, timeout_s: float) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self.connected(to):
            raise Unreachable(f"{to} does not answer")
        self._network.calls[to, kind] += 1
        with trio.move_on_after(timeout_s):
            answer = await self._network.nodes[to]._calls[kind](self._node_id, payload)
            if (to, self._node_id) not in self._network.cuts:
                return answer
            await trio.sleep_forever()
        raise Unreachable(f"{to} did not answer in time")
