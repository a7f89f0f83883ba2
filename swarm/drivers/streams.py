"""Streams between members (`ports.Peers`): authenticated, ordered, many calls in flight.

Each side dials a connection of its own to every member it is told of, and uses it for its own messages and calls; what comes back
on it are answers. So a pair has two connections, and neither side has to agree with the other on which of them to keep (the
reason is in docs/decisions/streams.md). Calls that are large go over one more connection, dialed when first needed.

Promises: a handler hears only from nodes whose key the log names; a node that the log no longer admits is cut off by `recheck`;
a new connection of a member replaces its old one, so nobody holds more than two here.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping

import msgspec
import trio

from swarm.drivers.incoming import Incoming
from swarm.drivers.link import StreamsConfig, close_now
from swarm.drivers.outgoing import Admitted, GenerationWatcher, Outgoing
from swarm.errors import Unreachable
from swarm.model.ids import NodeId
from swarm.ports import CallHandler, Dialer, MessageHandler, SecureStream
from swarm.wire.frame import Hello
from swarm.wire.limits import FRAME_BYTES_MAX

StreamWatcher = Callable[[NodeId, bool], None]
_CALL_OVERHEAD = 1_024
"""Room for a call's number, kind and time beside its payload."""


class Streams:
    """`ports.Peers` over TLS. `admitted` looks a node up in the log (or in what was learned when joining).

    `on_stream` is told when this node's own connection to a member comes up or ends, `on_generation` of a member that follows
    another recovery of the cluster and has some of its log; neither may wait. `has_log`: whether this node has any.
    """

    def __init__(
        self,
        *,
        hello: Hello,
        dialer: Dialer,
        admitted: Admitted,
        rng: random.Random,
        config: StreamsConfig | None = None,
        on_stream: StreamWatcher | None = None,
        on_generation: GenerationWatcher = lambda node_id, generation: None,
        has_log: Callable[[], bool] = lambda: True,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._hello = hello
        self._has_log = has_log
        self._dialer = dialer
        self._admitted = admitted
        self._rng = rng
        self._config = config or StreamsConfig()
        self._on_stream = on_stream or (lambda node_id, connected: None)
        self._on_generation = on_generation
        self._messages: dict[str, MessageHandler] = {}
        self._calls: dict[str, CallHandler] = {}
        self._outgoing: dict[NodeId, Outgoing] = {}
        self._bulk: dict[NodeId, Outgoing] = {}
        self._incoming: dict[tuple[NodeId, bool], Incoming] = {}
        self._nursery: trio.Nursery | None = None

    # ---- ports.Peers --------------------------------------------------------------------------------------------------------

    def on_message(self, kind: str, handler: MessageHandler) -> None:
        """Register the one handler of a kind of one-way message, before the streams start."""
        assert kind not in self._messages
        self._messages[kind] = handler

    def on_call(self, kind: str, handler: CallHandler) -> None:
        """Register the one handler of a kind of call."""
        assert kind not in self._calls
        self._calls[kind] = handler

    def connected(self, to: NodeId) -> bool:
        """Whether a verified connection to that member stands, dialed by this side."""
        outgoing = self._outgoing.get(to)
        return outgoing is not None and outgoing.connected

    def connected_at(self) -> dict[NodeId, str]:
        """The members to which a verified connection of this side stands, and where. O(members)."""
        return {node_id: each.address for node_id, each in self._outgoing.items() if each.connected}

    def is_anybody_missing(self) -> bool:
        """Whether no such connection stands to some member. O(members)."""
        return not all(each.connected for each in self._outgoing.values())

    def silent_s(self, to: NodeId) -> float:
        """For how long nothing has come from that member, over the connection of either side; infinite where none stands."""
        ends: list[Outgoing | Incoming | None] = [self._outgoing.get(to), self._incoming.get((to, False))]
        return trio.current_time() - max((end.heard_at for end in ends if end is not None), default=-math.inf)

    def send(self, to: NodeId, kind: str, payload: bytes) -> bool:
        """Queue a one-way message; never waits. False when it was dropped, which is counted."""
        outgoing = self._outgoing.get(to)
        if outgoing is None:
            self.counters["messages_dropped_no_member"] += 1
            return False
        return outgoing.send(kind, payload)

    async def call(self, to: NodeId, kind: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Ask and wait. Raises `Unreachable` when the answer did not come, or what the other side raised."""
        assert len(payload) <= FRAME_BYTES_MAX - _CALL_OVERHEAD, f"a call of {len(payload)} bytes"
        large = len(payload) > self._config.bulk_bytes or kind in self._config.bulk_kinds
        outgoing = (self._bulk if large else self._outgoing).get(to)
        if outgoing is None:
            raise Unreachable(f"{to} is not a member known here")
        with trio.move_on_after(timeout_s):
            return await outgoing.call(kind, payload, timeout_s)
        raise Unreachable(f"no answer from {outgoing.address} within {timeout_s:g} s")

    # ---- who is there -------------------------------------------------------------------------------------------------------

    def set_members(self, members: Mapping[NodeId, str]) -> None:
        """Whom to keep connections to, and at which `ip:port`; this node itself is left out. Also does `recheck`."""
        wanted = {node_id: members[node_id] for node_id in sorted(members) if node_id != self._hello.node_id}
        for group in (self._outgoing, self._bulk):
            for node_id in [known for known, outgoing in group.items() if wanted.get(known) != outgoing.address]:
                group.pop(node_id).close()
        for node_id, address in wanted.items():
            if node_id not in self._outgoing:
                self._outgoing[node_id] = self._start(self._new(node_id, address, bulk=False))
                self._bulk[node_id] = self._start(self._new(node_id, address, bulk=True))
        self.recheck()

    def recheck(self) -> None:
        """Cut off whoever the log no longer admits. Call it when the log's nodes have changed."""
        for incoming in list(self._incoming.values()):
            if not incoming.admissible:
                self.counters["cut_off_not_admitted"] += 1
                incoming.close()

    def wake(self, node_id: NodeId) -> None:
        """A sign of life of that member: dial it now instead of after the back-off."""
        outgoing = self._outgoing.get(node_id)
        if outgoing is not None and not outgoing.connected:
            outgoing.wake()

    def why_not(self, node_id: NodeId) -> str:
        """Why there is no connection to that member, in words; empty when there is one."""
        outgoing = self._outgoing.get(node_id)
        if outgoing is None:
            return "not a member known here"
        return "" if outgoing.connected else outgoing.reason

    def refusals(self) -> list[tuple[NodeId, str]]:
        """Members that answer but refuse this node, each with its own words."""
        return [
            (node_id, outgoing.reason)
            for node_id, outgoing in sorted(self._outgoing.items())
            if outgoing.refused and not outgoing.connected
        ]

    def estranged(self) -> list[tuple[NodeId, str]]:
        """Members that answer, but under another authority than this node knows, or that do not know this node's; with their
        address. The secret was rotated, or the address is another cluster's by now."""
        return [
            (node_id, outgoing.address)
            for node_id, outgoing in sorted(self._outgoing.items())
            if outgoing.estranged and not outgoing.connected
        ]

    def wake_all(self) -> None:
        """Dial everybody who is not connected now: this node can show another certificate."""
        for node_id in self._outgoing:
            self.wake(node_id)

    def store_generation(self, node_id: NodeId) -> int | None:
        """The life of its disk that a member named in its newest hello; None when it has not spoken."""
        incoming = self._incoming.get((node_id, False))
        outgoing = self._outgoing.get(node_id)
        hello = (incoming and incoming.theirs) or (outgoing and outgoing.theirs)
        return hello.store_generation if hello else None

    # ---- running ------------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dial and serve until cancelled. `set_members` may be called before or after."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for outgoing in (*self._outgoing.values(), *self._bulk.values()):
                    nursery.start_soon(outgoing.run)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def accept(self, secure: SecureStream) -> None:
        """Serve one connection that a peer dialed, to its end. The listener's handler for `PROTOCOL_PEER`."""
        incoming = Incoming(
            secure,
            hello=self._say_hello,
            admitted=self._admitted,
            messages=self._messages,
            calls=self._calls,
            config=self._config,
            counters=self.counters,
            on_generation=self._on_generation,
        )
        try:
            if await incoming.greet():
                await self._serve(incoming)
        finally:
            await close_now(secure.stream)

    async def _serve(self, incoming: Incoming) -> None:
        assert incoming.theirs is not None
        place = (incoming.node_id, incoming.theirs.bulk)
        former = self._incoming.get(place)
        if former is not None:
            former.close()
        self._incoming[place] = incoming
        self.wake(incoming.node_id)
        try:
            await incoming.run()
        finally:
            if self._incoming.get(place) is incoming:
                del self._incoming[place]

    def _start(self, outgoing: Outgoing) -> Outgoing:
        if self._nursery is not None:
            self._nursery.start_soon(outgoing.run)
        return outgoing

    def _say_hello(self, *, bulk: bool = False) -> Hello:
        return msgspec.structs.replace(self._hello, bulk=bulk, has_log=self._has_log())

    def _new(self, node_id: NodeId, address: str, *, bulk: bool) -> Outgoing:
        return Outgoing(
            node_id,
            address,
            hello=lambda: self._say_hello(bulk=bulk),
            dialer=self._dialer,
            admitted=self._admitted,
            config=self._config,
            rng=self._rng,
            counters=self.counters,
            on_change=self._on_stream,
            on_generation=self._on_generation,
            lazy=bulk,
        )


