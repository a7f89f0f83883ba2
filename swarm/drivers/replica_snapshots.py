"""Carries catalog snapshots from one member to another, by calls over the bulk connection (`consensus.transfer` has the rules).

The sender reads a chunk from the disk, sends it, and waits for the answer: one is in memory and in flight for each transfer, so
heartbeats, on another connection, never wait for a snapshot. The receiver makes sure that there is room for all of it, and writes
what it gets to a spool on the disk. A transfer that breaks is reported as failed; the leader offers it again after the next
answered heartbeat, and the first question, an empty chunk, finds out from where to go on. Where a disk refuses, the next offer
waits: 5 s, then twice as long each time, up to 5 min, and no longer when the receiver's full disk has room again.

Promises kept here: one transfer to a node at a time, at most `TRANSFERS_MAX` at once; a bad chunk ends the transfer, never the
node; a disk that refuses is the sender's to know, not the end of the receiver; whole snapshots are handed on once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from swarm.consensus.transfer import Chunk, Intake, Intakes, Received, check_length_untrusted, chunk_of
from swarm.errors import OperatorError, PeerError, Unreachable
from swarm.model.entry import SnapshotMeta
from swarm.model.ids import NodeId
from swarm.ports import Peers, SnapshotData, Spool, Store
from swarm.wire.codec import decode_untrusted, encode
from swarm.wire.limits import FRAME_BYTES_MAX, SNAPSHOT_CHUNK_BYTES

CALL = "consensus.snapshot"
LOG = logging.getLogger("swarm.snapshots")
CHUNK_TIMEOUT_S = 10.0
REFUSED_S = 5.0
REFUSED_S_MAX = 300.0
TRANSFERS_MAX = 4
"""More at once take no less time on one line, and more memory."""
_ANSWER_BYTES_MAX = 64


@dataclass(slots=True)
class Refused:
    """A disk refused, here or there, and nothing has arrived there since."""

    pause_s: float = REFUSED_S
    said_full: bool = False
    has_room: trio.Event = field(default_factory=trio.Event)


class SnapshotSender:
    """Sends the snapshot of the moment. `done(to, arrived)` is called when a transfer has ended."""

    def __init__(self, peers: Peers, store: Store, done: Callable[[NodeId, bool], None]) -> None:
        self._peers = peers
        self._store = store
        self._done = done
        self._sending: dict[NodeId, int] = {}
        self._refused: dict[NodeId, Refused] = {}
        self._limiter = trio.CapacityLimiter(TRANSFERS_MAX)

    async def send(self, to: NodeId, meta: SnapshotMeta, data: SnapshotData) -> None:
        """One transfer. Returns at once when one to that node is under way."""
        if to in self._sending:
            return
        self._sending[to] = meta.index
        arrived = False
        try:
            async with self._limiter:
                await self._transfer(to, meta, data)
            arrived = True
            self._refused.pop(to, None)
        except PeerError:
            pass  # the follower is gone; the leader offers it again when it answers
        except OperatorError as error:
            await self._pause(to, meta, error)
        finally:
            del self._sending[to]
            self._done(to, arrived)

    def heard(self, source: NodeId, *, full: bool) -> None:
        """A member said whether its disk is full. One that was, and is not, is offered again what it refused."""
        refused = self._refused.get(source)
        if refused is None:
            return
        if full:
            refused.said_full = True
        elif refused.said_full:
            del self._refused[source]
            refused.has_room.set()

    async def _pause(self, to: NodeId, meta: SnapshotMeta, error: OperatorError) -> None:
        """At once it would refuse again, at the network's full speed."""
        refused = self._refused.get(to)
        refused = Refused() if refused is None else Refused(min(2 * refused.pause_s, REFUSED_S_MAX), refused.said_full)
        self._refused[to] = refused
        why = f"{error.message}: {error.cause}" if error.cause else error.message
        LOG.warning("the snapshot at %d is not sent to %s: %s; next offer in %g s", meta.index, to, why, refused.pause_s)
        with trio.move_on_after(refused.pause_s):
            await refused.has_room.wait()

    async def _transfer(self, to: NodeId, meta: SnapshotMeta, data: SnapshotData) -> None:
        position = await self._ask(to, chunk_of(meta, 0, b""))
        while position < meta.length:
            piece = await self._store.read(data, position, min(position + SNAPSHOT_CHUNK_BYTES, meta.length))
            before, position = position, await self._ask(to, chunk_of(meta, position, piece))
            if position <= before:
                raise Unreachable(f"{to} lost a snapshot that it had {before} bytes of")

    async def _ask(self, to: NodeId, chunk: Chunk) -> int:
        """How far the receiver is after this chunk."""
        answer = await self._peers.call(to, CALL, encode(chunk), timeout_s=CHUNK_TIMEOUT_S)
        if not answer:  # an earlier program: it keeps what follows without gap, and says nothing
            return chunk.offset + len(chunk.data)
        return decode_untrusted(answer, Received, bytes_max=_ANSWER_BYTES_MAX).position


class SnapshotReceiver:
    """Collects chunks on the disk. `wanted(meta)`: whether a snapshot is news here. `make_sure_of_room(meta)` raises
    `Unavailable` where it does not fit. `arrived(source, meta, data)` gets a whole, verified one."""

    def __init__(
        self,
        store: Store,
        *,
        wanted: Callable[[SnapshotMeta], bool],
        arrived: Callable[[NodeId, SnapshotMeta, SnapshotData], None],
        make_sure_of_room: Callable[[SnapshotMeta], None],
    ) -> None:
        self._store = store
        self._make_sure_of_room = make_sure_of_room
        self._wanted = wanted
        self._arrived = arrived
        self._intakes = Intakes()
        self._spools: dict[SnapshotMeta, Spool] = {}
        self._turn = trio.Lock()

    async def on_chunk(self, source: NodeId, payload: bytes) -> bytes:
        """Handler of the call; one chunk at a time, whoever sends. Raises `BadMessage` for what cannot be right, and
        `Unavailable` when the disk refuses: then it begins anew."""
        chunk = decode_untrusted(payload, Chunk, bytes_max=FRAME_BYTES_MAX)
        async with self._turn:
            if not self._wanted(chunk.meta):
                return encode(Received(chunk.meta.length))
            intake = self._intakes.find(chunk.meta) or await self._begin(chunk.meta)
            news = intake.take(chunk)
            if news or intake.is_complete:
                await self._keep(source, intake, news)
        return encode(Received(intake.position))

    async def _begin(self, meta: SnapshotMeta) -> Intake:
        check_length_untrusted(meta)
        self._make_sure_of_room(meta)
        intake, dropped = self._intakes.begin(meta)
        try:
            for other in dropped:
                await self._forget(other)
            self._spools[meta] = await self._store.spool()
        except BaseException:
            self._intakes.end(intake)
            raise
        return intake

    async def _keep(self, source: NodeId, intake: Intake, news: bytes) -> None:
        """Write; when that was the last of it, check the whole and give it on. After any error nothing of it is kept."""
        kept = False
        spool = self._spools[intake.meta]
        try:
            await spool.append(news)
            if intake.is_complete:
                intake.verify()
                data = await spool.finish(intake.meta)
                del self._spools[intake.meta]
                self._intakes.end(intake)
                self._arrived(source, intake.meta, data)
                for other in self._intakes.overtaken(intake.meta.index):
                    await self._forget(other)
            kept = True
        finally:
            if not kept:
                await self._forget(intake)

    async def _forget(self, intake: Intake) -> None:
        self._intakes.end(intake)
        spool = self._spools.pop(intake.meta, None)
        if spool is not None:
            await spool.discard()
