"""One standing connection between two members: bytes in both directions, once the hellos have been checked.

Two queues go out: what consensus sends stands before everything else, and leaves at once when nothing else waits. Both are
bounded by bytes and by number; a frame that does not fit is not queued and its sender is told. The writer takes what has gathered
since its last write and sends it in one piece, which is what makes many calls in flight cheap. A write that makes no progress for
`write_stall_s` ends the connection.

Promises: `run` returns when the connection has ended, whoever ended it, and raises nothing of the network's; frames queued as
urgent leave before others that wait; nothing is sent twice.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from swarm.errors import BadMessage, OtherGeneration, PeerError
from swarm.model.generation import GENERATION_MAX, generation_text
from swarm.ports import ByteStream, PromptStream
from swarm.wire.frame import Frame, FrameReader, Hello, Message, encode_frame
from swarm.wire.limits import FRAME_BYTES_MAX

_PIECE_BYTES = 64 * 1024
"""What one write hands over: four TLS records."""
_FRAMES_PER_TURN = 64
"""Frames handled before other tasks get their turn: under a millisecond."""
_NETWORK = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


UPGRADE = "upgrade swarm on"
"""What a refusal for its version says."""


@dataclass(frozen=True, slots=True)
class StreamsConfig:
    """Every number of the streams. Lower waits notice more and tolerate less load; lower bounds drop earlier."""

    backoff_first_s: float = 0.05
    backoff_max_s: float = 1.0
    """Each failure doubles the wait, times 0.5 to 1 at random. A returned host is dialed within this, gossip or not."""
    hello_s: float = 5.0
    """For the first frame. A loaded host is late by up to 1.6 s."""
    write_stall_s: float = 2.0
    queue_bytes_max: int = 8 * 1024 * 1024
    """For each of the two queues: at least one frame of the largest size and a second one."""
    queue_frames_max: int = 4_096
    calls_max: int = 256
    """Calls of one peer being answered at once; one more is told `overloaded`."""
    bulk_bytes: int = 64 * 1024
    """A call larger than this goes over the bulk connection, where it holds nobody up."""
    bulk_idle_s: float = 30.0
    bulk_kinds: frozenset[str] = frozenset({"consensus.snapshot"})


class _Queue:
    """Encoded frames that wait to be written, bounded by number and bytes."""

    __slots__ = ("frames", "size")

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.size = 0

    def take_into(self, piece: bytearray) -> None:
        while self.frames and len(piece) < _PIECE_BYTES:
            frame = self.frames.popleft()
            self.size -= len(frame)
            piece += frame


class Link:
    """One connection. `on_frame` gets every frame that arrives, in order, and must not wait; its `PeerError` ends the link."""

    def __init__(
        self,
        stream: ByteStream,
        reader: FrameReader,
        *,
        config: StreamsConfig,
        counters: Counter[str],
        on_frame: Callable[[Frame], None],
    ) -> None:
        self.ended_because = ""
        """Why it ended, in words; empty while it stands or when it was closed on purpose."""
        self._stream = stream
        self._reader = reader
        self._config = config
        self._counters = counters
        self._on_frame = on_frame
        self._urgent = _Queue()
        self._other = _Queue()
        self._prompt = stream if isinstance(stream, PromptStream) else None
        self._idle = False
        """Whether the writer waits for something to write."""
        self._wake = trio.Event()
        self._scope = trio.CancelScope()
        self.heard_at = trio.current_time()
        """When bytes last came, in Trio's time."""

    def queue(self, frame: Frame, *, urgent: bool) -> bool:
        """Queue a frame; never waits. False when its queue is full: the frame is dropped and counted."""
        data = encode_frame(frame)
        if urgent and self._idle and self._prompt and isinstance(frame, Message) and self._prompt.send_now(data):
            return True
        queue = self._urgent if urgent else self._other
        config = self._config
        if len(queue.frames) >= config.queue_frames_max or queue.size + len(data) > config.queue_bytes_max:
            self._counters["frames_dropped_queue_full"] += 1
            return False
        queue.frames.append(data)
        queue.size += len(data)
        self._idle = False
        self._wake.set()
        return True

    def close(self) -> None:
        """End it. What is queued is lost."""
        self._scope.cancel()

    async def run(self) -> None:
        """Move bytes until either side ends the connection; then it is closed."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read()
                    nursery.cancel_scope.cancel()
        finally:
            await close_now(self._stream)

    async def _read(self) -> None:
        self._reader.limit = FRAME_BYTES_MAX
        try:
            while True:
                await self._hand_over()
                data = await self._stream.receive_some()
                if not data:
                    self.ended_because = "the other side closed it"
                    return
                self.heard_at = trio.current_time()
                self._reader.feed(data)
        except _NETWORK:
            self.ended_because = self.ended_because or "the connection broke"
        except PeerError as error:
            self._counters[error.reason] += 1
            self.ended_because = str(error)

    async def _hand_over(self) -> None:
        for handled, frame in enumerate(self._reader.frames(), start=1):
            self._on_frame(frame)
            if handled % _FRAMES_PER_TURN == 0:
                await trio.lowlevel.checkpoint()

    async def _write(self) -> None:
        """One scope for all writes: its deadline is moved, since to enter one for each costs as much as the write."""
        with trio.CancelScope() as waiting:
            while True:
                piece = bytearray()
                self._urgent.take_into(piece)
                self._other.take_into(piece)
                if not piece:
                    self._wake = trio.Event()
                    self._idle = True
                    await self._wake.wait()
                elif not await self._write_piece(piece, waiting):
                    break
        if waiting.cancelled_caught:
            self._counters["writes_stalled"] += 1
            self.ended_because = f"it took no bytes for {self._config.write_stall_s:g} s"
        self._scope.cancel()

    async def _write_piece(self, piece: bytearray, waiting: trio.CancelScope) -> bool:
        """Whether all of it left. A frame larger than a piece goes in several writes, each with its own time."""
        view = memoryview(piece)
        for start in range(0, len(view), _PIECE_BYTES):
            waiting.deadline = trio.current_time() + self._config.write_stall_s
            try:
                await self._stream.send_all(view[start : start + _PIECE_BYTES])
            except _NETWORK:
                self.ended_because = self.ended_because or "the connection broke"
                return False
        waiting.deadline = math.inf
        return True


async def first_frame(stream: ByteStream, reader: FrameReader) -> Frame:
    """The first frame of the other side, whatever it is. Raises `BadMessage`; the caller bounds the time."""
    while (frame := reader.next_frame()) is None:
        try:
            data = await stream.receive_some()
        except _NETWORK:
            raise BadMessage("the connection broke before the first frame") from None
        if not data:
            raise BadMessage("the connection ended before the first frame")
        reader.feed(data)
    return frame


async def send_first(stream: ByteStream, frame: Frame) -> None:
    """Send one frame outside of any queue. Raises `BadMessage` when the connection is gone; the caller bounds the time."""
    try:
        await stream.send_all(encode_frame(frame))
    except _NETWORK:
        raise BadMessage("the connection broke before the first frame") from None


def check_hello(frame: Frame, mine: Hello, claimed: str) -> Hello:
    """The other side's hello, fit to talk to. Raises `BadMessage` saying what differs, or `OtherGeneration`."""
    if not isinstance(frame, Hello):
        raise BadMessage("the first frame is no hello")
    if frame.cluster_id != mine.cluster_id:
        raise BadMessage(f"it belongs to the cluster {frame.cluster_id[:32]}, this node to {mine.cluster_id}")
    if frame.protocol_version != mine.protocol_version:
        spoken, known = frame.protocol_version, mine.protocol_version
        older = "this node" if spoken > known else "it"
        raise BadMessage(f"it speaks version {spoken} of the protocol, this node version {known}: {UPGRADE} {older}")
    if frame.node_id != claimed:
        raise BadMessage("its hello and its certificate name different nodes")
    if not 0 <= frame.recovery_generation <= GENERATION_MAX:
        raise BadMessage(f"it follows no recovery: {frame.recovery_generation}")
    if frame.recovery_generation != mine.recovery_generation:
        theirs, ours = generation_text(frame.recovery_generation), generation_text(mine.recovery_generation)
        raise OtherGeneration(
            f"it follows {theirs} of the cluster, this node {ours}", frame.recovery_generation, has_log=frame.has_log
        )
    return frame


async def close_now(stream: ByteStream) -> None:
    """Close without any farewell that could wait."""
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await stream.aclose()
