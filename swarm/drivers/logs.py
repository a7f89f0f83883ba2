"""Logs of any task from any node: read from the engine where the container is, relayed in answers to calls.

Calls carry no streams, so a reader is kept open at the source and asked for the next piece: `open` starts it, `next` waits up to
`POLL_S` for what came, and says how the last answer was received (its number), so that a lost answer is given again. A reader
that nobody asks for `READER_IDLE_S` is closed. The buffer is bounded: while it is full, nothing is read from the engine.

A follower outlives the container: when the reader ends and the task has not, it looks where the task is now and goes on there.

Promises: bytes of one container come in order, each once, unless its reader had to be opened again after a lost connection
(then what was written meanwhile is asked for by time). Raises `NotFound` and `Unavailable`, never waits for a dead node longer
than a call.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import trio

from swarm.errors import BadMessage, NotFound, OperatorError, Unavailable, Unreachable
from swarm.model.ids import NodeId
from swarm.ports import Clock, Engine, EngineError, Peers
from swarm.wire.codec import decode_untrusted, encode

CALL = "runner.logs"
POLL_S = 5.0
CALL_S = 10.0
READER_IDLE_S = 30.0
READERS_MAX = 64
"""Per node: each holds a connection to the engine."""
CHUNKS_BUFFERED = 32
ANSWER_BYTES_MAX = 256 * 1024
REQUEST_BYTES_MAX = 4096
LOOK_S = 0.5
"""How often a follower looks where its task has gone."""


class LogRequest(msgspec.Struct, frozen=True, array_like=True):
    """`open` (reader 0): start reading a container. `next`: the piece after number `received`. `close`: enough."""

    action: str
    container_id: str = ""
    follow: bool = False
    tail: int | None = None
    since_utc: float = 0.0
    reader: int = 0
    received: int = 0


class LogAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Piece `number` of reader `reader`. `now_utc` is the source's clock when the last of it was read."""

    reader: int
    number: int = 0
    chunks: tuple[tuple[str, bytes], ...] = ()
    ended: bool = False
    error: str = ""
    now_utc: float = 0.0


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Where a task's current container is, as the catalog knows it. `ended`: the task will not run again."""

    node_id: NodeId
    container_id: str
    attempt: int
    ended: bool


class Reader:
    """One open reading of one container, at its source."""

    def __init__(self, owner: NodeId, now: float) -> None:
        self.owner = owner
        self.send, self.receive = trio.open_memory_channel[tuple[str, bytes]](CHUNKS_BUFFERED)
        self.scope = trio.CancelScope()
        self.error = ""
        self.last = LogAnswer(0)
        self.held: tuple[str, bytes] | None = None
        self.asked = now


class LogSource:
    """This node's side: answers `runner.logs`. Run it in the node's nursery."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._readers: dict[int, Reader] = {}
        self._numbers = itertools.count(1)
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the readers; ends when cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                await trio.sleep(READER_IDLE_S / 3)
                for number, reader in list(self._readers.items()):
                    if trio.current_time() - reader.asked > READER_IDLE_S:
                        self._close(number)

    async def answer(self, source: NodeId, payload: bytes) -> bytes:
        """The `CallHandler`. Raises `BadMessage` and `OperatorError`."""
        request = decode_untrusted(payload, LogRequest, bytes_max=REQUEST_BYTES_MAX)
        return encode(await self.carry_out(source, request))

    async def carry_out(self, source: NodeId, request: LogRequest) -> LogAnswer:
        """The same without the bytes, for this node's own readers."""
        match request.action:
            case "open":
                return self._open(source, request)
            case "next":
                return await self._next(source, request)
            case "close":
                if request.reader in self._readers and self._readers[request.reader].owner == source:
                    self._close(request.reader)
                return LogAnswer(request.reader, ended=True)
        raise BadMessage(f"no such action: {request.action[:20]!r}")

    def _open(self, source: NodeId, request: LogRequest) -> LogAnswer:
        if self._nursery is None or len(self._readers) >= READERS_MAX:
            raise Unavailable("too many logs are being read on that node", hint="end some of the readers, or try again")
        number = next(self._numbers)
        reader = Reader(source, trio.current_time())
        self._readers[number] = reader
        self._nursery.start_soon(self._read, reader, request)
        return LogAnswer(number)

    async def _read(self, reader: Reader, request: LogRequest) -> None:
        """From the engine to the reader's buffer, until it ends or is closed."""
        with reader.scope:
            async with reader.send:
                source = self._engine.logs(
                    request.container_id, follow=request.follow, tail=request.tail, since_utc=request.since_utc
                )
                try:
                    async with aclosing(cast(Any, source)) as chunks:
                        async for chunk in chunks:
                            await reader.send.send(chunk)
                except EngineError as error:
                    reader.error = error.message

    async def _next(self, source: NodeId, request: LogRequest) -> LogAnswer:
        reader = self._readers.get(request.reader)
        if reader is None or reader.owner != source:
            raise NotFound("that reading of the logs was closed", hint="open it again")
        reader.asked = trio.current_time()
        if request.received < reader.last.number:
            return reader.last
        chunks, size, ended = [], 0, False
        with trio.move_on_after(POLL_S):
            try:
                chunk = reader.held or await reader.receive.receive()
                while True:
                    reader.held = None
                    chunks.append(chunk)
                    size += len(chunk[1])
                    chunk = reader.receive.receive_nowait()
                    if size + len(chunk[1]) > ANSWER_BYTES_MAX:
                        reader.held = chunk
                        break
            except trio.WouldBlock:
                pass
            except trio.EndOfChannel:
                ended = True
            except trio.ClosedResourceError:
                raise NotFound("that reading of the logs was closed", hint="open it again") from None
        number = reader.last.number + 1
        reader.last = LogAnswer(request.reader, number, tuple(chunks), ended, reader.error if ended else "", self._clock.utc())
        return reader.last

    def _close(self, number: int) -> None:
        reader = self._readers.pop(number)
        reader.scope.cancel()
        reader.receive.close()


class LogRelay:
    """Any node's side: follows a task wherever it runs."""

    def __init__(self, *, self_id: NodeId, source: LogSource, peers: Peers) -> None:
        self._self_id = self_id
        self._source = source
        self._peers = peers
        peers.on_call(CALL, source.answer)

    async def follow(
        self, look: Callable[[], LogPlace | None], *, follow: bool, tail: int | None, since_utc: float
    ) -> AsyncIterator[tuple[str, bytes]]:
        """(stream, bytes) of the task that `look` finds; None from it means that the task is gone. An async generator."""
        place = await self._placed(look, wait=follow)
        attempt, container = place.attempt, place.container_id
        while True:
            newest_utc = since_utc
            async with aclosing(cast(Any, self._read(place, follow=follow, tail=tail, since_utc=since_utc))) as answers:
                async for answer in answers:
                    for chunk in answer.chunks:
                        yield chunk
                    newest_utc = answer.now_utc
            if not follow:
                return
            # The container stopped. What the catalog says of its task may still be on its way.
            await trio.sleep(LOOK_S)
            found = look()
            if found is None or (found.ended and found.container_id == container):
                return
            place = await self._placed(look, wait=True)
            same = (place.attempt, place.container_id) == (attempt, container)
            since_utc, tail = (newest_utc if same else 0.0), None
            attempt, container = place.attempt, place.container_id

    async def _placed(self, look: Callable[[], LogPlace | None], *, wait: bool) -> LogPlace:
        """Where it is, once it has a container. Raises `NotFound`."""
        while True:
            place = look()
            if place is None:
                raise NotFound("the task is gone")
            if place.container_id:
                return place
            if not wait or place.ended:
                raise NotFound("the task has no container yet", hint="swarm task inspect says why; -f waits for it")
            await trio.sleep(LOOK_S)

    async def _read(
        self, place: LogPlace, *, follow: bool, tail: int | None, since_utc: float
    ) -> AsyncIterator[LogAnswer]:
        """The answers of one reader, to its end."""
        opened = await self._ask(place.node_id, LogRequest("open", place.container_id, follow, tail, since_utc))
        received, failures = 0, 0
        try:
            while True:
                request = LogRequest("next", reader=opened.reader, received=received)
                try:
                    answer = await self._ask(place.node_id, request)
                except Unavailable:
                    failures += 1
                    if failures == 3:
                        raise
                    continue
                failures = 0
                if answer.number > received:
                    received = answer.number
                    yield answer
                if answer.ended:
                    if answer.error:
                        raise NotFound("the logs cannot be read", cause=answer.error)
                    return
        finally:
            with trio.move_on_after(1.0, shield=True):
                await self._close(place.node_id, opened.reader)

    async def _close(self, node_id: NodeId, reader: int) -> None:
        try:
            await self._ask(node_id, LogRequest("close", reader=reader))
        except OperatorError:
            pass  # it closes itself when nobody asks

    async def _ask(self, node_id: NodeId, request: LogRequest) -> LogAnswer:
        if node_id == self._self_id:
            return await self._source.carry_out(node_id, request)
        try:
            answer = await self._peers.call(node_id, CALL, encode(request), timeout_s=CALL_S)
            return decode_untrusted(answer, LogAnswer, bytes_max=2 * ANSWER_BYTES_MAX + 65536)
        except (Unreachable, BadMessage) as error:
            raise Unavailable(
                "the node that has the task's output does not answer", cause=str(error), hint="try again when it is back"
            ) from None
