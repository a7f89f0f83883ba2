"""Carries catalog snapshots from a leader to a follower, in chunks, by calls.

Each chunk names the whole snapshot it belongs to and where in it it stands. The receiver keeps one snapshot in the making per
sender, begins anew at offset 0, and gives it on only when it has the length and checksum that its description says.

Promises kept here: one transfer to a node at a time; at most `BYTES_MAX` are collected from one sender, and from `SENDERS_MAX`
senders at once; a wrong chunk ends the transfer, never the node; what a dead sender left unfinished keeps no later one out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from swarm.errors import BadMessage, OperatorError, PeerError
from swarm.model.entry import SnapshotMeta
from swarm.model.ids import NodeId
from swarm.ports import Peers
from swarm.wire.checksum import crc32c
from swarm.wire.codec import decode_untrusted, encode
from swarm.wire.limits import FRAME_BYTES_MAX, SNAPSHOT_CHUNK_BYTES

CALL = "consensus.snapshot"
CHUNK_TIMEOUT_S = 10.0
BYTES_MAX = 1 << 30
SENDERS_MAX = 2


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """A piece of the snapshot that `meta` describes."""

    meta: SnapshotMeta
    offset: Annotated[int, msgspec.Meta(ge=0)]
    data: bytes


class SnapshotSender:
    """Sends the snapshot of the moment. `done(to, arrived)` is called when a transfer has ended."""

    def __init__(self, peers: Peers, done: Callable[[NodeId, bool], None]) -> None:
        self._peers = peers
        self._done = done
        self._sending: dict[NodeId, int] = {}

    async def send(self, to: NodeId, meta: SnapshotMeta, data: bytes) -> None:
        """One transfer. Returns at once when one to that node is under way."""
        if to in self._sending:
            return
        self._sending[to] = meta.index
        arrived = False
        try:
            for offset in range(0, max(1, len(data)), SNAPSHOT_CHUNK_BYTES):
                chunk = Chunk(meta, offset, data[offset : offset + SNAPSHOT_CHUNK_BYTES])
                await self._peers.call(to, CALL, encode(chunk), timeout_s=CHUNK_TIMEOUT_S)
            arrived = True
        except (PeerError, OperatorError):
            pass  # the follower is gone or refused; the leader offers it again when it answers
        finally:
            del self._sending[to]
            self._done(to, arrived)


class SnapshotReceiver:
    """Collects chunks; `arrived(source, meta, data)` is called with a whole, verified snapshot."""

    def __init__(self, arrived: Callable[[NodeId, SnapshotMeta, bytes], None]) -> None:
        self._arrived = arrived
        self._parts: dict[NodeId, tuple[SnapshotMeta, bytearray]] = {}

    async def on_chunk(self, source: NodeId, payload: bytes) -> bytes:
        """Handler of the call. Raises `BadMessage` for what does not fit together."""
        chunk = decode_untrusted(payload, Chunk, bytes_max=FRAME_BYTES_MAX)
        meta = chunk.meta
        if chunk.offset == 0:
            self._begin(source, meta)
        known, data = self._parts.get(source, (None, bytearray()))
        if known != meta or chunk.offset != len(data) or len(data) + len(chunk.data) > meta.length:
            self._parts.pop(source, None)
            raise BadMessage("a chunk that does not follow the one before")
        data += chunk.data
        if len(data) == meta.length:
            del self._parts[source]
            whole = bytes(data)
            if crc32c(whole) != meta.crc32c:
                raise BadMessage("a snapshot that does not match its checksum")
            self._arrived(source, meta, whole)
        return b""

    def _begin(self, source: NodeId, meta: SnapshotMeta) -> None:
        """Of too many, the one begun first gives way: senders that died do not say so."""
        if not 0 <= meta.length <= BYTES_MAX:
            raise BadMessage("a snapshot too large")
        self._parts.pop(source, None)
        if len(self._parts) >= SENDERS_MAX:
            del self._parts[next(iter(self._parts))]
        self._parts[source] = (meta, bytearray())
