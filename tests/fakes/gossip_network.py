"""A handful of membership cores on virtual time: hosts that lose power, daemons that die, freeze or are cut off.

Every packet is encoded and decoded on its way. Connects are answered as a kernel would: by a living host whatever its daemon
does, by a dead one never. Two runs with one seed are the same.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from swarm.membership import (
    Config,
    MemberChanged,
    MemberIdentity,
    Membership,
    PingOverStream,
    PushPull,
    SendPacket,
    SyncState,
    TryConnect,
    decode_message_untrusted,
    encode_message,
)
from swarm.membership.messages import format_address
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, MemberView


def node_id(number: int) -> NodeId:
    """The id of host `number`, as long as a real one."""
    return NodeId(f"{number:032x}")


@dataclass
class Host:
    """One host and its daemon."""

    number: int
    core: Membership
    generation: int = 1
    power: bool = True
    daemon: bool = True
    frozen_at: float | None = None
    held: list[Callable[[], None]] = field(default_factory=list)
    changes: list[tuple[float, MemberChanged]] = field(default_factory=list)
    bytes_sent: int = 0
    packets_sent: int = 0


class GossipNetwork:
    """`hosts` are numbered from 1. `loss` is the share of packets lost, `latency_s` one way."""

    def __init__(
        self, count: int, *, seed: int = 1, config: Config | None = None, loss: float = 0.0, streams: bool = True
    ) -> None:
        self.now = 1000.0
        self.rng = random.Random(seed)
        self.config = config or Config()
        self.loss = loss
        self.latency_s = 0.0005
        self.streams = streams
        self.cut: set[tuple[int, int]] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.hosts: dict[int, Host] = {}
        self.stalled_replies_s: dict[int, float] = {}
        for number in range(1, count + 1):
            self.hosts[number] = Host(number, self._new_core(number, 1))
        for host in self.hosts.values():
            self.admit(host)
        self.run(0.0)

    # ---- what tests do ----------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = end

    def run_until(self, condition: Callable[[], bool], *, at_most_s: float) -> float:
        """Let time pass until the condition holds; returns how long that took. Fails when it takes longer."""
        began = self.now
        while not condition():
            assert self.now - began <= at_most_s, f"not within {at_most_s} s: {self.picture()}"
            self.run(0.01)
        return self.now - began

    def kill_host(self, number: int) -> None:
        """Power cut."""
        self.hosts[number].power = False

    def kill_daemon(self, number: int, *, streams_notice: bool = True) -> None:
        """The daemon is gone, its kernel is not; it closes the streams."""
        self.hosts[number].daemon = False
        for peer in self.hosts.values():
            if peer.number != number and self.streams and streams_notice:
                self._later(0.002, lambda peer=peer: self._input(peer, lambda: self._stream(peer, number, False)))

    def start(self, number: int) -> None:
        """The daemon starts (the host too): the next generation."""
        old = self.hosts[number]
        host = Host(number, self._new_core(number, old.generation + 1), old.generation + 1, changes=old.changes)
        self.hosts[number] = host
        self.admit(host)
        self.run(0.0)

    def freeze(self, number: int) -> None:
        """The process stops; its kernel goes on."""
        self.hosts[number].frozen_at = self.now

    def thaw(self, number: int) -> None:
        """It goes on, told of the gap first, then given what came meanwhile."""
        host = self.hosts[number]
        assert host.frozen_at is not None
        gap_s, host.frozen_at = self.now - host.frozen_at, None
        host.core.on_stall(gap_s, self.now)
        held, host.held = host.held[-700:], []
        for action in held:
            self._input(host, action)
        self._step(host)

    def cut_off(self, *groups: set[int]) -> None:
        """Only within a group do packets pass."""
        for one, other in itertools.permutations(groups, 2):
            self.cut |= {(a, b) for a in one for b in other}

    def heal(self) -> None:
        """Everything passes."""
        self.cut.clear()

    def admit(self, host: Host) -> None:
        """Tell it whom the catalog admits: everybody."""
        nodes = {node_id(n): (f"n{n}", address(n)) for n in self.hosts}

        def admit() -> None:
            host.core.set_admitted(nodes, self.now)
            for number in self.hosts:
                if self.streams and number != host.number:
                    self._stream(host, number, True)

        self._later(0.0, lambda: self._input(host, admit))

    def intend(self, number: int, intent: Callable[[Membership], None]) -> None:
        """Call an intent of one core, now."""
        host = self.hosts[number]
        self._input(host, lambda: intent(host.core))

    # ---- what tests ask ---------------------------------------------------------------------------------------------

    def view(self, observer: int, subject: int) -> MemberView:
        """What `observer` believes about `subject`."""
        return self.hosts[observer].core.members()[node_id(subject)]

    def status(self, observer: int, subject: int) -> MemberStatus:
        """Only the status."""
        return self.view(observer, subject).status

    def living(self) -> list[int]:
        """Hosts whose daemon runs."""
        return [h.number for h in self.hosts.values() if h.power and h.daemon and h.frozen_at is None]

    def all_see(self, subject: int, status: MemberStatus) -> bool:
        """Whether every living daemon but the subject's own believes that."""
        return all(self.status(observer, subject) is status for observer in self.living() if observer != subject)

    def all_alive(self) -> bool:
        """Whether all living daemons see each other alive."""
        return all(self.all_see(subject, MemberStatus.ALIVE) for subject in self.living())

    def deaths(self) -> list[tuple[float, int, int, str]]:
        """Every time anybody called anybody dead: (when, observer, subject, kind)."""
        return [
            (at, host.number, int(change.new.node_id, 16), str(change.new.death_kind))
            for host in self.hosts.values()
            for at, change in host.changes
            if change.new.status is MemberStatus.DEAD
        ]

    def picture(self) -> str:
        """Everybody's belief about everybody, for a failed assertion."""
        rows = (f"n{o}: " + " ".join(f"n{s}={self.status(o, s)}" for s in self.hosts) for o in self.living())
        return "; ".join(rows)

    # ---- how it works -----------------------------------------------------------------------------------------------

    def _new_core(self, number: int, generation: int) -> Membership:
        identity = MemberIdentity(node_id(number), f"n{number}", address(number), generation)
        return Membership(identity=identity, config=self.config, rng=random.Random(self.rng.random()), now=self.now)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), action))

    def _input(self, host: Host, action: Callable[[], None]) -> None:
        if self.hosts[host.number] is not host or not host.power or not host.daemon:
            return
        if host.frozen_at is not None:
            host.held.append(action)
            return
        action()
        self._step(host)

    def _step(self, host: Host) -> None:
        if host.core.next_deadline <= self.now:
            host.core.tick(self.now)
        for effect in host.core.take_effects():
            self._carry_out(host, effect)
        host.core.check()
        deadline = host.core.next_deadline
        if deadline < self.now + 3600:
            self._later(max(0.0, deadline - self.now), lambda: self._wake(host, deadline))

    def _wake(self, host: Host, deadline: float) -> None:
        runs = self.hosts[host.number] is host and host.power and host.daemon and host.frozen_at is None
        if runs and host.core.next_deadline <= deadline:
            self._step(host)

    def _passes(self, source: int, target: int) -> bool:
        return (source, target) not in self.cut and self.hosts[target].power

    def _carry_out(self, host: Host, effect: object) -> None:
        match effect:
            case SendPacket():
                self._send(host, effect)
            case TryConnect():
                self._connect(host, effect)
            case PingOverStream():
                self._call(host, effect.node_id, lambda ok: self._stream_ping(host, effect, ok))
            case PushPull():
                self._push_pull(host, effect)
            case MemberChanged():
                host.changes.append((self.now, effect))

    def _send(self, host: Host, effect: SendPacket) -> None:
        data = encode_message(effect.message)
        assert len(data) <= self.config.packet_bytes_max, f"{len(data)} bytes in {effect.message}"
        host.bytes_sent += len(data) + 64
        host.packets_sent += 1
        target = number_at(effect.address)
        if self._passes(host.number, target) and self.rng.random() >= self.loss:
            source = (f"10.77.{host.number // 200}.{host.number % 200 + 10}", 4747)
            message = decode_message_untrusted(data)
            delay_s = self.latency_s * (1 + self.rng.random())
            self._later(delay_s, lambda: self._deliver(target, lambda core: core.on_packet(source, message, self.now)))

    def _deliver(self, target: int, give: Callable[[Membership], None]) -> None:
        host = self.hosts[target]
        delay_s = self.stalled_replies_s.get(target, 0.0)
        if delay_s:
            self._later(delay_s * self.rng.random(), lambda: self._input(host, lambda: give(host.core)))
        else:
            self._input(host, lambda: give(host.core))

    def _connect(self, host: Host, effect: TryConnect) -> None:
        target = number_at(effect.address)
        both_ways = self._passes(host.number, target) and self._passes(target, host.number)
        if not both_ways:
            outcome, after_s = "silent", effect.timeout_s
        else:
            outcome, after_s = ("accepted" if self.hosts[target].daemon else "refused"), 2 * self.latency_s
        result = lambda: host.core.on_connect_result(effect.probe_id, outcome, self.now)  # noqa: E731
        self._later(after_s, lambda: self._input(host, result))

    def _call(self, host: Host, to: NodeId, answer: Callable[[bool], None]) -> None:
        target = self.hosts[int(to, 16)]
        runs = target.daemon and target.frozen_at is None
        passes = self._passes(host.number, target.number) and self._passes(target.number, host.number)
        self._later(0.002 if runs and passes else 1.0, lambda: self._input(host, lambda: answer(runs and passes)))

    def _stream_ping(self, host: Host, effect: PingOverStream, answered: bool) -> None:
        """Consensus speaks over the stream all the time while the daemon runs."""
        target = self.hosts[int(effect.node_id, 16)]
        runs = target.power and target.daemon
        silent_s = math.inf if not runs else 0.05 if target.frozen_at is None else self.now - target.frozen_at
        host.core.on_stream_ping(effect.probe_id, answered, self.now, silent_s)

    def _push_pull(self, host: Host, effect: PushPull) -> None:
        mine = host.core.sync_state(self.now)
        target = self.hosts[int(effect.node_id, 16)]

        def exchange(answered: bool) -> None:
            if not answered or not (target.daemon and target.power):
                host.core.on_push_pull_failed(self.now)
                return
            theirs: list[SyncState] = []
            self._input(target, lambda: theirs.append(target.core.on_push_pull(_carried(mine), self.now)))
            for reply in theirs:
                host.core.on_push_pull_reply(_carried(reply), self.now)

        self._call(host, effect.node_id, exchange)

    def _stream(self, host: Host, number: int, connected: bool) -> None:
        host.core.observe_stream(node_id(number), connected, self.now)


def address(number: int) -> str:
    """Where host `number` is."""
    return format_address(f"10.77.{number // 200}.{number % 200 + 10}", 4747)


def number_at(text: str) -> int:
    """The inverse of `address`."""
    parts = text.rpartition(":")[0].split(".")
    return int(parts[2]) * 200 + int(parts[3]) - 10


def _carried(state: SyncState) -> SyncState:
    message = decode_message_untrusted(encode_message(state))
    assert isinstance(message, SyncState)
    return message
