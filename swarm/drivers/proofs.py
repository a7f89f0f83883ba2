"""Where each member's packet counter stands, asked over streams: what makes a recording worthless to a daemon that has restarted.

A reader's replay windows are lost with its process. So it takes no packet of a member until that member has said, over a stream
(which cannot be a recording: its handshake is new), where its counter stands; see `wire.envelope`. Whoever asks tells its own
counter with the question: one connection, in either direction, is enough for both.

Promise: only what a member said of itself over its own verified stream is believed.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import msgspec
import trio

from swarm.errors import OperatorError, PeerError
from swarm.model.ids import NodeId
from swarm.ports import Peers
from swarm.wire.codec import decode_untrusted, encode

CALL = "packets.counter"
TIMEOUT_S = 3.0
RETRY_S = 0.5
_BYTES_MAX = 64


class PacketCounter(msgspec.Struct, frozen=True, array_like=True):
    """The counter of the last packet that the speaker sealed."""

    counter: int


class Counted(Protocol):
    """What seals this node's packets, and keeps the windows of the others'."""

    @property
    def counter(self) -> int: ...

    def prove(self, sender: NodeId, counter: int) -> None:
        """Take that member's packets from here on, above `counter`. Raises `BadMessage`."""


class Proofs:
    """Asks each member when the connection to it comes up, until it has answered."""

    def __init__(self, peers: Peers, sealer: Counted) -> None:
        self.counters: Counter[str] = Counter()
        self._peers = peers
        self._sealer = sealer
        self._waiting: dict[NodeId, None] = {}
        self._asking: dict[NodeId, None] = {}
        """Whom a question is out to: one at a time, however often a connection comes and goes."""
        self._wake = trio.Event()
        peers.on_call(CALL, self._on_ask)

    def on_stream(self, node_id: NodeId, connected: bool) -> None:
        """This node's own connection to a member came up or ended."""
        if connected:
            self._waiting[node_id] = None
            self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                for node_id in [each for each in self._waiting if each not in self._asking]:
                    del self._waiting[node_id]
                    self._asking[node_id] = None
                    nursery.start_soon(self._ask, node_id)

    async def _ask(self, node_id: NodeId) -> None:
        try:
            answer = await self._peers.call(node_id, CALL, self._mine(), timeout_s=TIMEOUT_S)
            self._prove(node_id, answer)
        except (OperatorError, PeerError):
            self.counters["packet_proofs_failed"] += 1
            await trio.sleep(RETRY_S)
            self.on_stream(node_id, self._peers.connected(node_id))
        finally:
            self._asking.pop(node_id, None)
            if node_id in self._waiting:
                self._wake.set()

    async def _on_ask(self, source: NodeId, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self._prove(source, payload)
        return self._mine()

    def _mine(self) -> bytes:
        return encode(PacketCounter(self._sealer.counter))

    def _prove(self, node_id: NodeId, said: bytes) -> None:
        self._sealer.prove(node_id, decode_untrusted(said, PacketCounter, bytes_max=_BYTES_MAX).counter)
