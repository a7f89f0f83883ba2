"""Gossip: the Trio loop around the membership core.

One task waits for packets, one for the core's next deadline; both do their step without suspending, so the core sees one input at
a time. Before a timeout is judged the socket is drained: an answer that waits in the kernel is late, not lost. Connects, pings
over streams and exchanges of tables run as child tasks and come back as inputs.

Promises: a gap of more than 500 ms beyond the planned wake is told to the core as a stall before any other input; what does not
open or decode is counted by reason and dropped; a subscriber is called for every change, in order, and must not suspend.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, assert_never

import trio

from swarm.drivers.history import StatusHistory
from swarm.drivers.lag import LoopLag
from swarm.errors import BadMessage, OperatorError, PeerError
from swarm.membership import (
    Effect,
    MemberChanged,
    Membership,
    Message,
    PingOverStream,
    PushPull,
    SendPacket,
    SyncState,
    TryConnect,
    TwinSuspected,
    decode_message_untrusted,
    encode_message,
)
from swarm.membership.messages import parse_address
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, MemberView, Sample, can_store
from swarm.ports import Clock, Connects, PacketSocket, Peers
from swarm.wire.limits import PACKET_BYTES_MAX

STALL_S = 0.5
"""A gap beyond the planned wake that counts as a pause of this process."""
_SLEEP_S_MAX = 1.0
_DRAIN_ROUNDS_MAX = 4
"""Full drains in a row before timeouts are judged all the same."""
_DRAIN_FULL = 64
_CONNECTS_MAX = 32
"""Connects at once; more wait."""
_SYNC_TIMEOUT_S = 5.0
CALL_SYNC = "membership.sync"
CALL_PING = "membership.ping"

Subscriber = Callable[[MemberChanged], None]


class Sealer(Protocol):
    """Authenticated encryption of packets (`wire.envelope`)."""

    def seal(self, sender: NodeId, plaintext: bytes) -> bytes:
        """One packet."""

    def open_untrusted(self, packet: bytes) -> tuple[NodeId, bytes]:
        """Who sealed it, and what. Raises `Unauthenticated` or `BadMessage`."""

    def advance(self, generation: int) -> None:
        """Seal from here on as a daemon of that generation, if it is a later one."""


class Gossip:
    """Owns the core while it runs. `lag` is how late wakes come, `counters` what was sent, received and dropped, `history` what
    it has changed its mind about."""

    def __init__(
        self, core: Membership, socket: PacketSocket, connects: Connects, peers: Peers, clock: Clock, sealer: Sealer
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.lag = LoopLag()
        self.history = StatusHistory(core.self_id, clock.utc)
        self._core = core
        self._socket = socket
        self._connects = connects
        self._peers = peers
        self._clock = clock
        self._sealer = sealer
        self._self_id = core.self_id
        self._subscribers: list[Subscriber] = [self.history.on_change]
        self.on_twin: Callable[[str], None] = lambda address: None
        """Told an address at which this node's identity is said to live; must not suspend."""
        self._nursery: trio.Nursery | None = None
        self._limiter = trio.CapacityLimiter(_CONNECTS_MAX)
        self._sleeping: trio.CancelScope | None = None
        self._entered = 0.0
        self._planned = float("inf")
        """When the loop wakes next; moved by every input, earlier or later."""
        peers.on_call(CALL_SYNC, self._on_sync)
        peers.on_call(CALL_PING, self._on_ping)

    # ---- what others use --------------------------------------------------------------------------------------------

    def members(self) -> Mapping[NodeId, MemberView]:
        """As the core sees them."""
        return self._core.members()

    def is_dead(self, node_id: NodeId) -> bool:
        """As the core sees it."""
        member = self.members().get(node_id)
        return member is not None and member.status is MemberStatus.DEAD

    def most_could_store(self, node_ids: Iterable[NodeId]) -> bool:
        """Whether a majority of these is alive, with disks that could store what it is given."""
        members = self.members()
        asked = [members.get(node_id) for node_id in node_ids]
        return 2 * sum(member is not None and can_store(member) for member in asked) > len(asked)

    @property
    def health_score(self) -> int:
        """Lifeguard's local health of this node: 0 is well."""
        return self._core.health_score

    def subscribe(self, callback: Subscriber) -> None:
        """Call it for every change of a member. It must not suspend, and must not raise."""
        self._subscribers.append(callback)

    def drops(self) -> Mapping[str, int]:
        """Everything counted, the core's reasons and what became of suspicions included."""
        return self.counters + self._core.counters + self.history.counters

    def set_admitted(self, nodes: Mapping[NodeId, tuple[str, str]]) -> None:
        """From the catalog: id -> (name, address)."""
        self._core.set_admitted(nodes, self._enter())
        self._settle()

    def join(self, addresses: Iterable[str]) -> None:
        """Say hello to these addresses."""
        self._core.join(addresses, self._enter())
        self._settle()

    def observe_sample(self, sample: Sample) -> None:
        """This node's load."""
        self._core.observe_sample(sample, self._enter())
        self._settle()

    def observe_pressure(self, lag_s: float, cpu_pressure_permille: int | None) -> None:
        """How late somebody else in this process woke, and the host's CPU pressure; once a second. This loop's own worst counts
        too: what it could not have noticed in time, it holds against nobody."""
        now = self._enter()
        self._core.observe_pressure(
            lag_s=max(lag_s, self.lag.take_max_s()), cpu_pressure_permille=cpu_pressure_permille, now=now
        )
        self._settle()

    def observe_stream(self, node_id: NodeId, connected: bool) -> None:
        """A peer stream stands or ended."""
        self._core.observe_stream(node_id, connected, self._enter())
        self._settle()

    def pause(self, return_by_s: float) -> None:
        """Announce a planned stop of at most `return_by_s` from now."""
        now = self._enter()
        self._core.pause(now + return_by_s, now)
        self._settle()

    async def leave(self) -> None:
        """Announce the departure and return when it was said for long enough (about a second)."""
        self._core.leave(self._enter())
        self._settle()
        while not self._core.has_left(self._clock.now()):
            await trio.sleep(0.05)

    async def flush(self) -> None:
        """Give an announced pause the time to go out: two rounds of rumours."""
        await trio.sleep(2 * self._core.config.gossip_interval_s)

    # ---- the loop ---------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._planned = self._clock.now()
            nursery.start_soon(self._receive)
            self._settle()
            task_status.started()
            try:
                await self._keep_time()
            finally:
                self._nursery = None

    async def _keep_time(self) -> None:
        while True:
            started_s = self._clock.now()
            self.lag.note(max(0.0, started_s - self._planned), started_s)
            now = self._enter()
            for _ in range(_DRAIN_ROUNDS_MAX):
                datagrams = self._socket.drain()
                self._feed(datagrams, now)
                if len(datagrams) < _DRAIN_FULL:
                    break
                await trio.lowlevel.checkpoint()
                now = self._enter()
            self._core.tick(now)
            self._settle()
            with trio.CancelScope(deadline=self._trio_deadline()) as self._sleeping:
                await trio.sleep_forever()
            self._sleeping = None

    def _trio_deadline(self) -> float:
        """Trio's clock is another than the cores'."""
        return trio.current_time() + max(0.0, self._planned - self._clock.now())

    async def _receive(self) -> None:
        while True:
            datagrams = await self._socket.receive()
            self._feed(datagrams, self._enter())
            self._settle()

    def _enter(self) -> float:
        """Every input begins here: the time, how late the loop is, and a pause of this process told first."""
        now = self._entered = self._clock.now()
        gap_s = now - self._planned
        if gap_s > 0:
            self.lag.note(gap_s, now)
        if gap_s > STALL_S:
            self._planned = now
            self._core.on_stall(gap_s, now)
        return now

    def _settle(self) -> None:
        """Every input ends here: its effects, and the next wake, which may now be earlier or later: an answer that came leaves
        nothing to wake for. Before `run` effects wait in the core."""
        if self._nursery is None:
            return
        for effect in self._core.take_effects():
            self._carry_out(effect)
        planned = min(max(self._core.next_deadline, self._entered), self._entered + _SLEEP_S_MAX)
        if planned != self._planned:
            self._planned = planned
            if self._sleeping is not None:
                self._sleeping.deadline = self._trio_deadline()

    def _feed(self, datagrams: list[tuple[bytes, tuple[str, int]]], now: float) -> None:
        for data, source in datagrams:
            self.counters["packets_received"] += 1
            self.counters["bytes_received"] += len(data)
            try:
                message = self._open_untrusted(data)
            except PeerError as error:
                self.counters[f"dropped_{error.reason}"] += 1
                continue
            self._core.on_packet(source, message, now)

    def _open_untrusted(self, data: bytes) -> Message:
        if len(data) > PACKET_BYTES_MAX:
            raise BadMessage("a datagram longer than any packet")
        sender, plaintext = self._sealer.open_untrusted(data)
        message = decode_message_untrusted(plaintext, bytes_max=PACKET_BYTES_MAX)
        if message.me.node_id != sender or isinstance(message, SyncState):
            raise BadMessage("a packet that names another sender than its seal, or a table as a packet")
        return message

    # ---- effects ----------------------------------------------------------------------------------------------------

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case SendPacket():
                self._send(effect)
            case TwinSuspected():
                self.on_twin(effect.address)
            case MemberChanged():
                if effect.new.node_id == self._self_id:
                    self._sealer.advance(effect.new.generation)
                for subscriber in self._subscribers:
                    subscriber(effect)
            case TryConnect():
                self._start(self._try_connect, effect)
            case PingOverStream():
                self._start(self._ping_over_stream, effect)
            case PushPull():
                self._start(self._push_pull, effect)
            case _:
                assert_never(effect)

    def _start(self, function: Callable[..., object], effect: Effect) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(function, effect)  # type: ignore[arg-type]

    def _send(self, effect: SendPacket) -> None:
        try:
            address = parse_address(effect.address)
        except BadMessage:
            self.counters["bad_address"] += 1
            return
        data = self._sealer.seal(self._self_id, encode_message(effect.message))
        self.counters["packets_sent"] += 1
        self.counters["bytes_sent"] += len(data)
        self._socket.send(data, address)

    async def _try_connect(self, effect: TryConnect) -> None:
        outcome = "unreachable"
        try:
            async with self._limiter:
                outcome = await self._connects.try_connect(parse_address(effect.address), effect.timeout_s)
        except BadMessage:
            self.counters["bad_address"] += 1
        self._core.on_connect_result(effect.probe_id, outcome, self._enter())
        self._settle()

    async def _ping_over_stream(self, effect: PingOverStream) -> None:
        try:
            await self._peers.call(effect.node_id, CALL_PING, b"", timeout_s=effect.timeout_s)
            answered = True
        except (PeerError, OperatorError):
            answered = False
        self._core.on_stream_ping(effect.probe_id, answered, self._enter(), self._peers.silent_s(effect.node_id))
        self._settle()

    async def _push_pull(self, effect: PushPull) -> None:
        mine = encode_message(self._core.sync_state(self._clock.now()))
        try:
            answer = await self._peers.call(effect.node_id, CALL_SYNC, mine, timeout_s=_SYNC_TIMEOUT_S)
            remote = _sync_state_untrusted(effect.node_id, answer)
        except (PeerError, OperatorError) as error:
            self.counters["sync_failed"] += 1
            self.counters[f"sync_failed_{getattr(error, 'reason', 'refused')}"] += 1
            self._core.on_push_pull_failed(self._enter())
        else:
            self._core.on_push_pull_reply(remote, self._enter())
        self._settle()

    async def _on_sync(self, source: NodeId, payload: bytes) -> bytes:
        remote = _sync_state_untrusted(source, payload)
        mine = self._core.on_push_pull(remote, self._enter())
        self._settle()
        await trio.lowlevel.checkpoint()
        return encode_message(mine)

    async def _on_ping(self, source: NodeId, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return b""


def _sync_state_untrusted(source: NodeId, payload: bytes) -> SyncState:
    message = decode_message_untrusted(payload)
    if not isinstance(message, SyncState) or message.me.node_id != source:
        raise BadMessage("not the table of the member that sent it")
    return message
