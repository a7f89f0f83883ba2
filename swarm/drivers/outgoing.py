"""The connection this node dials to one member, kept up: for its own messages and calls, and the answers to them.

Dial, exchange hellos, check that the key is the one the log names, carry frames until it ends, wait a little, dial again. The
wait doubles from 50 ms to 1 s with each failure and is cut short by any sign of life (`wake`). A lazy one (for bulk) is dialed
when a call needs it and closed after it has been idle.

Promises: no frame leaves before the other side has proved to be the member of that id, under the key pinned in the log, in this
cluster; a call without a connection fails at once unless the first attempt is still under way.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable

import trio

from swarm.drivers.calls import PendingCalls, error_of
from swarm.drivers.link import Link, StreamsConfig, check_hello, close_now, first_frame, send_first
from swarm.errors import BadMessage, NotSent, OtherGeneration, PeerError, Unauthenticated, Unreachable
from swarm.model.ids import NodeId
from swarm.model.node import Node
from swarm.ports import PROTOCOL_PEER, Dialer, SecureStream
from swarm.wire.frame import Answer, Call, Failure, Frame, FrameReader, Hello, Message

Admitted = Callable[[NodeId], Node | None]
GenerationWatcher = Callable[[NodeId, int], None]
"""Told of an admitted node that follows another recovery generation, and which; must not wait."""
URGENT = "consensus"
"""Kinds that start with this word leave before others."""


class _RefusedInWords(Unauthenticated):
    """The other side answered the hello with a refusal."""


class Outgoing:
    """One member's connection as this side dials it. `reason` says why there is none, in words; `hello` is the other side's."""

    def __init__(
        self,
        node_id: NodeId,
        address: str,
        *,
        hello: Callable[[], Hello],
        dialer: Dialer,
        admitted: Admitted,
        config: StreamsConfig,
        rng: random.Random,
        counters: Counter[str],
        on_change: Callable[[NodeId, bool], None],
        on_generation: GenerationWatcher,
        lazy: bool = False,
    ) -> None:
        self.node_id = node_id
        self.address = address
        self.refused = False
        """Whether the last attempt ended with a refusal in words; it stands while the next one is made."""
        self.estranged = False
        """Whether something listens there that does not take this node's certificate, or shows one of another authority."""
        self.reason = "not dialed yet"
        self.theirs: Hello | None = None
        self._mine = hello
        self._dialer = dialer
        self._admitted = admitted
        self._config = config
        self._rng = rng
        self._counters = counters
        self._on_change = on_change
        self._on_generation = on_generation
        self._lazy = lazy
        self._failures = 0
        self._attempts_ended = 0
        self._attempting = False
        self._stood_s = 0.0
        self._link: Link | None = None
        self._calls = PendingCalls(counters)
        self._changed = trio.Event()
        self._wake = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def heard_at(self) -> float:
        """When bytes last came, in Trio's time; minus infinity where no connection stands."""
        return self._link.heard_at if self._link is not None else -math.inf

    @property
    def connected(self) -> bool:
        """Whether a verified connection stands."""
        return self._link is not None

    def send(self, kind: str, payload: bytes) -> bool:
        """Queue a message; False when it was dropped."""
        link = self._link
        if link is None:
            self._counters["messages_dropped_no_stream"] += 1
            return False
        return link.queue(Message(kind, payload), urgent=kind.startswith(URGENT))

    async def call(self, kind: str, payload: bytes, timeout_s: float) -> bytes:
        """Ask and wait, without a bound of its own. Raises what the other side raised, or `Unreachable`."""
        link = await self._standing_link()
        calls = self._calls
        call_id = calls.new()
        if not link.queue(Call(call_id, kind, int(timeout_s * 1000), payload), urgent=kind.startswith(URGENT)):
            calls.forget(call_id)
            raise NotSent(f"too much waits to be sent to {self.address}")
        return await calls.wait(call_id)

    def wake(self) -> None:
        """A sign of life: dial at once, and start the waits from the shortest again."""
        self._failures = 0
        self._wake.set()

    def close(self) -> None:
        """For good: the member is gone or lives elsewhere."""
        self._scope.cancel()

    async def run(self) -> None:
        """Keep the connection up until `close`."""
        with self._scope:
            while True:
                if self._lazy and not self._wake.is_set():
                    await self._wake.wait()
                self._wake = trio.Event()
                self._attempting, self._stood_s = True, 0.0
                await self._attempt()
                self._attempting = False
                self._attempts_ended += 1
                self._failures = 1 if self._stood_s > self._config.backoff_max_s else self._failures + 1
                self._announce()
                if not self._lazy:
                    await self._back_off()

    async def _attempt(self) -> None:
        """One connection from dial to end. Whatever goes wrong becomes `reason`."""
        try:
            secure = await self._dial()
            try:
                try:
                    reader = await self._greet(secure)
                except PeerError as error:  # TLS 1.3: that our certificate is refused shows when we first read
                    self.estranged = not isinstance(error, (_RefusedInWords, OtherGeneration))
                    raise
                self.refused = self.estranged = False
                await self._carry(secure, reader)
            finally:
                await close_now(secure.stream)
        except PeerError as error:
            self._counters[f"dial_{error.reason}"] += 1
            self.reason = str(error)
            self.refused = isinstance(error, _RefusedInWords)

    async def _dial(self) -> SecureStream:
        try:
            secure = await self._dialer.dial(self.address, PROTOCOL_PEER)
        except PeerError as error:
            self.estranged = isinstance(error, Unauthenticated)
            raise
        return secure

    async def _greet(self, secure: SecureStream) -> FrameReader:
        """Check the key, then the hellos. Raises `PeerError`."""
        node = self._admitted(self.node_id)
        if node is None or secure.node_id != self.node_id or secure.fingerprint != node.fingerprint:
            raise Unauthenticated(f"what answers at {self.address} is not the admitted node {self.node_id}")
        reader = FrameReader()
        with trio.move_on_after(self._config.hello_s):
            await send_first(secure.stream, self._mine())
            frame = await first_frame(secure.stream, reader)
            if isinstance(frame, Failure):
                raise _RefusedInWords(f"it refuses this node: {error_of(frame)}")
            try:
                self.theirs = check_hello(frame, self._mine(), secure.node_id)
            except OtherGeneration as error:
                if error.has_log:
                    self._on_generation(self.node_id, error.generation)
                raise
            return reader
        raise Unreachable(f"no hello within {self._config.hello_s:g} s: its daemon does not answer")

    async def _carry(self, secure: SecureStream, reader: FrameReader) -> None:
        self._calls = PendingCalls(self._counters)
        link = Link(secure.stream, reader, config=self._config, counters=self._counters, on_frame=self._on_frame)
        self._link = link
        up_since = trio.current_time()
        self._announce()
        if not self._lazy:
            self._on_change(self.node_id, True)
        try:
            async with trio.open_nursery() as nursery:
                if self._lazy:
                    nursery.start_soon(self._close_when_idle, link)
                await link.run()
                nursery.cancel_scope.cancel()
        finally:
            self._link = None
            self._stood_s = trio.current_time() - up_since
            self.reason = link.ended_because or "closed"
            self._calls.end(self.reason)
            if not self._lazy:
                self._on_change(self.node_id, False)

    def _on_frame(self, frame: Frame) -> None:
        if not isinstance(frame, Answer | Failure):
            raise BadMessage(f"a {type(frame).__name__} where only answers may come")
        self._calls.on_reply(frame)

    async def _standing_link(self) -> Link:
        """The link, waiting for an attempt that has not failed yet. Raises `Unreachable`."""
        if self._lazy and self._link is None and not self._attempting:
            self._wake.set()
        ended = self._attempts_ended
        while self._link is None:
            if self._attempts_ended > ended or (self._failures and not self._lazy):
                raise Unreachable(f"no connection to {self.address}: {self.reason}")
            await self._changed.wait()
        return self._link

    async def _close_when_idle(self, link: Link) -> None:
        while True:
            await trio.sleep(self._config.bulk_idle_s)
            if not len(self._calls):
                link.close()

    async def _back_off(self) -> None:
        config = self._config
        wait_s = min(config.backoff_max_s, config.backoff_first_s * 2.0 ** min(self._failures - 1, 10))
        with trio.move_on_after(wait_s * self._rng.uniform(0.5, 1.0)):
            await self._wake.wait()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
