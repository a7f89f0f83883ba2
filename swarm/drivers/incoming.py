"""A connection that a member dialed to this node: its messages and calls come in, answers go out.

Before its first frame counts, the key must be the one the log names for the id, and the hello must name this cluster. A refusal
is answered in words, since the other side holds the cluster's secret and its operator should know.

Promises: a handler that raises, foreseen or not, ends that call only (a core that broke then also ends its own loop, and so the
node: `swarm.machine.ends_when_broken`; a disk that failed ends the node at once); no more than `calls_max` calls of one
connection are answered at once; a call is given up when its caller does.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping

import trio

from swarm.drivers.calls import failure_of
from swarm.drivers.link import Link, StreamsConfig, check_hello, first_frame, send_first
from swarm.drivers.outgoing import URGENT, Admitted, GenerationWatcher
from swarm.errors import BadMessage, Bug, OperatorError, OtherGeneration, Overloaded, PeerError, StoreFailure, Unauthenticated
from swarm.model.ids import NodeId
from swarm.ports import CallHandler, MessageHandler, SecureStream
from swarm.wire.frame import Answer, Call, Failure, Frame, FrameReader, Hello, Message

LOG = logging.getLogger("swarm.streams")
_CALL_S_MAX = 3_600.0
SAY_EVERY_S = 10.0
"""How often one bug is written down: a peer decides how often it is met."""


class Incoming:
    """One accepted connection, from its hello to its end."""

    def __init__(
        self,
        secure: SecureStream,
        *,
        hello: Callable[[], Hello],
        admitted: Admitted,
        messages: Mapping[str, MessageHandler],
        calls: Mapping[str, CallHandler],
        config: StreamsConfig,
        counters: Counter[str],
        on_generation: GenerationWatcher,
    ) -> None:
        self.node_id: NodeId = secure.node_id
        self.theirs: Hello | None = None
        self._secure = secure
        self._mine = hello
        self._admitted = admitted
        self._message_handlers = messages
        self._call_handlers = calls
        self._config = config
        self._counters = counters
        self._on_generation = on_generation
        self._reader = FrameReader()
        self._answering = 0
        self._stumbled_at: dict[tuple[str, type[Exception]], float] = {}
        self._link: Link | None = None
        self._nursery: trio.Nursery | None = None
        self._closed = False

    @property
    def heard_at(self) -> float:
        """When bytes last came, in Trio's time; minus infinity where no connection stands."""
        return self._link.heard_at if self._link is not None else -math.inf

    @property
    def admissible(self) -> bool:
        """Whether the log names this connection's key for its id."""
        node = self._admitted(self.node_id)
        return node is not None and node.fingerprint == self._secure.fingerprint

    async def greet(self) -> bool:
        """Check key and hello, and answer. False when it was refused and counted; the caller closes."""
        try:
            with trio.move_on_after(self._config.hello_s):
                await self._exchange_hellos()
                return True
            self._counters["hello_timeout"] += 1
        except PeerError as error:
            self._counters[f"refused_{error.reason}"] += 1
            with trio.move_on_after(self._config.hello_s):
                await self._refuse(error)
        return False

    async def _exchange_hellos(self) -> None:
        frame = await first_frame(self._secure.stream, self._reader)
        if not self.admissible:
            raise Unauthenticated("the log admits no node of this id with this key (removed, or not yet known here)")
        self.theirs = check_hello(frame, self._mine(), self.node_id)
        await send_first(self._secure.stream, self._mine())

    async def _refuse(self, error: PeerError) -> None:
        """In words; one of another recovery is told by this node's own hello, which says which one it follows."""
        try:
            if isinstance(error, OtherGeneration):
                if error.has_log:
                    self._on_generation(self.node_id, error.generation)
                await send_first(self._secure.stream, self._mine())
            else:
                await send_first(self._secure.stream, failure_of(0, error))
        except BadMessage:
            self._counters["refusals_unheard"] += 1

    async def run(self) -> None:
        """Serve until either side ends it."""
        link = Link(self._secure.stream, self._reader, config=self._config, counters=self._counters, on_frame=self._on_frame)
        self._link = link
        if self._closed:
            link.close()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await link.run()
                nursery.cancel_scope.cancel()
        finally:
            self._link = self._nursery = None  # each leads back here: freed at once, not by the collector

    def close(self) -> None:
        """End it: the node was removed, or has dialed again."""
        self._closed = True
        if self._link is not None:
            self._link.close()

    def _on_frame(self, frame: Frame) -> None:
        match frame:
            case Message():
                self._on_message(frame)
            case Call():
                self._on_call(frame)
            case _:
                raise BadMessage(f"a {type(frame).__name__} where only messages and calls may come")

    def _on_message(self, message: Message) -> None:
        handler = self._message_handlers.get(message.kind)
        if handler is None:
            self._counters["messages_unknown_kind"] += 1
            return
        try:
            handler(self.node_id, message.payload)
        except PeerError as error:
            self._counters[f"messages_{error.reason}"] += 1

    def _on_call(self, call: Call) -> None:
        handler = self._call_handlers.get(call.kind)
        if handler is None:
            self._reply(call, failure_of(call.call_id, BadMessage("this node answers no such call")))
        elif self._answering >= self._config.calls_max:
            self._counters["calls_overloaded"] += 1
            self._reply(call, failure_of(call.call_id, Overloaded("too many calls of this node are being answered")))
        else:
            assert self._nursery is not None
            self._answering += 1
            self._nursery.start_soon(self._answer, call, handler)

    def _stumbled(self, call: Call, error: Exception) -> Failure:
        """What nobody foresaw is told and counted."""
        self._counters["calls_ended_by_bug"] += 1
        what, now = (call.kind, type(error)), trio.current_time()
        if now - self._stumbled_at.get(what, -math.inf) >= SAY_EVERY_S:
            self._stumbled_at[what] = now
            LOG.error("a bug ended the call %s", call.kind, exc_info=error)
        return failure_of(call.call_id, error if isinstance(error, Bug) else Bug(f"{type(error).__name__}: {error}"))

    async def _answer(self, call: Call, handler: CallHandler) -> None:
        reply: Answer | Failure
        try:
            with trio.move_on_after(min(max(call.timeout_ms, 0) / 1000, _CALL_S_MAX)) as bound:
                try:
                    reply = Answer(call.call_id, await handler(self.node_id, call.payload))
                except (OperatorError, PeerError) as error:
                    reply = failure_of(call.call_id, error)
                except StoreFailure:
                    raise
                except Exception as error:
                    reply = self._stumbled(call, error)
            if bound.cancelled_caught:
                self._counters["calls_given_up"] += 1
            else:
                self._reply(call, reply)
        finally:
            self._answering -= 1

    def _reply(self, call: Call, reply: Answer | Failure) -> None:
        assert self._link is not None
        self._link.queue(reply, urgent=call.kind.startswith(URGENT))
