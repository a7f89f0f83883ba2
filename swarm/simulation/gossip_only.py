"""Membership alone, at any size: real cores on virtual time and a network of packets, and nothing of the rest of a daemon.

A member is a host (its power, its kernel) with one daemon (one core). Kernels answer connects whatever their daemons do: they
accept while it runs, frozen or overloaded or not, refuse when it is gone, and are silent without power or behind a cut. An
**overloaded** member handles every input 1 to 30 s late, while its own timers run on time: nothing tells it that it is slow but
what its core makes of it. A **frozen** one handles nothing, then is told of the gap first, as the driver does.

Every datagram is counted with the size it has when sealed. Messages are passed as objects, since they are frozen; every
`encode_every`-th is encoded, decoded, and held against its counted size.

Promise: a run is a pure function of its seed and of what is called on it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import assert_never

from swarm.membership import (
    Config,
    Effect,
    MemberChanged,
    MemberIdentity,
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
from swarm.model.ids import NodeId
from swarm.model.liveness import EngineState, MemberStatus, Sample
from swarm.simulation.gossip_member import (
    NEVER,
    AnyCore,
    Conditions,
    Core,
    MakeCore,
    Member,
    OnChange,
    address,
    claim_of,
    node_id,
)
from swarm.simulation.gossip_sizes import plain_bytes, sealed_bytes
from swarm.simulation.world import World

SYNC_TIMEOUT_S = 5.0
HELD_MAX = 700
"""Packets that wait in a frozen daemon's socket."""


class GossipOnly:
    """Members are numbered from 1. All admit each other; those who join later are admitted by everybody at once."""

    def __init__(
        self,
        count: int,
        *,
        seed: int = 1,
        config: Config | None = None,
        conditions: Conditions | None = None,
        make_core: MakeCore | None = None,
        encode_every: int = 0,
    ) -> None:
        self.world = World(seed)
        self.config = config or Config()
        self.conditions = conditions or Conditions()
        self.members: dict[int, Member] = {}
        self.on_change: list[OnChange] = []
        self.cuts: set[tuple[int, int]] = set()
        self._make_core = make_core or _real
        self._encode_every = encode_every
        self._packets = 0
        self._rng = self.world.random("network")
        self._by_address: dict[str, Member] = {}
        self._by_id: dict[NodeId, Member] = {}
        self._admitted: dict[NodeId, tuple[str, str]] = {}
        for number in range(1, count + 1):
            self._admitted[node_id(number)] = (f"node-{number:04}", address(number))
        for number in range(1, count + 1):
            self._begin(number, 1)

    # ---- what runs do -----------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        return self.world.now

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run_until(self.world.now + seconds)

    def run_until(self, condition: Callable[[], bool], *, at_most_s: float, every_s: float = 0.05) -> float:
        """Let time pass until the condition holds, asked every so often; how long that took, or infinity."""
        began = self.world.now
        while not condition():
            if self.world.now - began >= at_most_s:
                return NEVER
            self.run(every_s)
        return self.world.now - began

    def introduce(self) -> None:
        """All know all from here on, as after an hour of calm: each knows everybody's word, and no rumour is left over."""
        claims = tuple(claim_of(member, self._admitted) for member in self.members.values())
        for member in self.members.values():
            member.core.know(claims, self._rng, self.now)
            self._settle(member)

    def kill_host(self, number: int) -> None:
        """Power cut."""
        self.members[number].power = False

    def kill_daemon(self, number: int) -> None:
        """The daemon is gone, its kernel is not."""
        self.members[number].daemon = False

    def start(self, number: int) -> None:
        """The daemon starts, the host too: the next generation. It knows whom the catalog admits, and who they are no more."""
        self._begin(number, self.members[number].generation + 1)

    def join(self) -> int:
        """A new host is admitted by everybody; its number."""
        number = len(self.members) + 1
        self._admitted[node_id(number)] = (f"node-{number:04}", address(number))
        for member in self.members.values():
            self._input(member, member.core.set_admitted, self._admitted, self.now)
        self._begin(number, 1)
        return number

    def leave(self, number: int) -> None:
        """It announces that it leaves, lingers, and its daemon ends."""
        member = self.members[number]
        self._input(member, member.core.leave, self.now)
        self.world.after(self.config.leave_linger_s, self._end, member)

    def freeze(self, number: int) -> None:
        """The process stops; its kernel goes on."""
        self.members[number].frozen_at = self.now

    def thaw(self, number: int) -> None:
        """It goes on, told of the gap first, then given what came meanwhile."""
        member = self.members[number]
        gap_s, member.frozen_at = self.now - member.frozen_at, NEVER
        member.core.on_stall(gap_s, self.now)
        held, member.held = member.held[-HELD_MAX:], []
        for action, arguments in held:
            action(*arguments)
        self._settle(member)
        self._wake(member, member.wake_at)

    def overload(self, number: int, overloaded: bool = True) -> None:
        """From now on its inputs are late, or on time again."""
        self.members[number].overloaded = overloaded

    def split(self, number_sets: Iterable[Iterable[int]]) -> None:
        """Only within a set do packets pass; those in none are on a side of their own, together."""
        for side, numbers in enumerate(number_sets, start=1):
            for number in numbers:
                self.members[number].side = side

    def heal(self) -> None:
        """Everything passes again."""
        self.cuts.clear()
        for member in self.members.values():
            member.side = 0

    def intend(self, number: int, intent: Callable[[AnyCore, float], object]) -> None:
        """Call an intent of one core, now."""
        member = self.members[number]
        self._input(member, intent, member.core, self.now)

    # ---- what runs ask ----------------------------------------------------------------------------------------------

    def living(self) -> list[Member]:
        """Those whose daemon runs."""
        return [member for member in self.members.values() if member.runs]

    def status(self, observer: int, subject: int) -> MemberStatus | None:
        """What one believes about another; None when it knows no such member."""
        return self.members[observer].core.status_of(node_id(subject))

    def agreed(self) -> bool:
        """Whether all the living believe each other alive, and nobody else."""
        living = self.living()
        expected = {member.node_id for member in living}
        return all(member.core.alive_ids() == expected for member in living)

    def check(self) -> None:
        """Every invariant of every core."""
        for member in self.members.values():
            member.core.check()

    # ---- lives ------------------------------------------------------------------------------------------------------

    def _begin(self, number: int, generation: int) -> None:
        old = self.members.get(number)
        name, where = self._admitted[node_id(number)]
        identity = MemberIdentity(node_id(number), name, where, generation)
        core = self._make_core(identity, self.config, self.world.random(f"{number}/{generation}"), self.now)
        host, _, port = where.rpartition(":")
        source = (host, int(port))
        member = Member(number, identity.node_id, where, source, core, generation, side=old.side if old else 0)
        if old:
            member.packets_sent, member.bytes_sent, member.overloaded = old.packets_sent, old.bytes_sent, old.overloaded
            old.daemon = False
        self.members[number] = self._by_address[where] = self._by_id[member.node_id] = member
        core.set_admitted(self._admitted, self.now)
        self._settle(member)
        if self.conditions.sample_every_s:
            self.world.after(self.conditions.sample_every_s * self._rng.random(), self._observe, member)

    def _end(self, member: Member) -> None:
        member.daemon = False

    def _observe(self, member: Member) -> None:
        """Once in a while a member measures its load; it never stands still."""
        if not (member.power and member.daemon):
            return
        self.world.after(self.conditions.sample_every_s, self._observe, member)
        member.sequence += 1
        cpu, memory = member.load = _wandered(member.load, self._rng)
        sample = Sample(
            member.node_id, member.generation, member.sequence, cpu, memory, 420, 2 * cpu, 10, EngineState.UP, cpu % 30
        )
        if member.frozen_at == NEVER:
            member.core.observe_sample(sample, self.now)
            self._settle(member)

    # ---- inputs and wakes -------------------------------------------------------------------------------------------

    def _input(self, member: Member, action: Callable[..., object], *arguments: object) -> None:
        """Something happens to a daemon: at once, or late, or never."""
        if member.overloaded:
            self.world.after(self._rng.uniform(*self.conditions.late_s), self._handle, member, action, arguments)
        else:
            self._handle(member, action, arguments)

    def _handle(self, member: Member, action: Callable[..., object], arguments: tuple[object, ...]) -> None:
        if not (member.power and member.daemon):
            return
        if member.frozen_at != NEVER:
            member.held.append((action, arguments))
            return
        action(*arguments)
        self._settle(member)

    def _settle(self, member: Member) -> None:
        for effect in member.core.take_effects():
            if type(effect) is SendPacket:
                self._send(member, effect)  # nearly all of them
            else:
                self._carry_out(member, effect)
        deadline = member.core.next_deadline
        if deadline < member.wake_at:
            member.wake_at = deadline
            self.world.at(deadline, self._wake, member, deadline)

    def _wake(self, member: Member, planned: float) -> None:
        if planned != member.wake_at or not member.runs:
            return  # another wake was planned instead, or the daemon does nothing
        member.wake_at = NEVER
        if member.core.next_deadline <= self.world.now:
            member.core.tick(self.world.now)
        self._settle(member)

    # ---- effects ----------------------------------------------------------------------------------------------------

    def _send(self, member: Member, effect: SendPacket) -> None:
        size = sealed_bytes(effect.message)
        member.packets_sent += 1
        member.bytes_sent += size
        self._packets += 1
        if self._encode_every and self._packets % self._encode_every == 0:
            self._encode(effect.message)
        target = self._by_address.get(effect.address)
        if target is None or not self._passes(member, target):
            return
        draw = self._rng.random
        conditions = self.conditions
        if conditions.loss and draw() < conditions.loss:
            return
        arrives = self.world.now + conditions.latency_s * (1 + draw())
        self.world.at(arrives, self._deliver, effect.address, member.source, effect.message)

    def _encode(self, message: Message) -> None:
        data = encode_message(message)
        assert decode_message_untrusted(data) == message
        assert len(data) == plain_bytes(message) <= self.config.packet_bytes_max, f"{len(data)} bytes in {message}"

    def _passes(self, member: Member, target: Member) -> bool:
        return member.side == target.side and not (self.cuts and (member.number, target.number) in self.cuts)

    def _deliver(self, where: str, source: tuple[str, int], message: Message) -> None:
        target = self._by_address[where]
        if target.overloaded or target.frozen_at != NEVER:
            self._input(target, self._packet, target, source, message)
        elif target.power and target.daemon:
            target.core.on_packet(source, message, self.world.now)
            self._settle(target)

    def _packet(self, target: Member, source: tuple[str, int], message: Message) -> None:
        target.core.on_packet(source, message, self.world.now)

    def _carry_out(self, member: Member, effect: Effect) -> None:
        match effect:
            case SendPacket():
                self._send(member, effect)
            case TryConnect():
                self._connect(member, effect)
            case PingOverStream():
                self._later(effect.timeout_s, member, self._stream_ping, member, effect.probe_id)
            case PushPull():
                self._push_pull(member, effect.node_id)
            case MemberChanged():
                for told in self.on_change:
                    told(member, effect)
            case TwinSuspected():
                pass  # no two members of a simulation share an identity
            case _:
                assert_never(effect)

    def _later(self, delay_s: float, member: Member, action: Callable[..., object], *arguments: object) -> None:
        self.world.after(delay_s, self._input, member, action, *arguments)

    def _stream_ping(self, member: Member, probe_id: int) -> None:
        member.core.on_stream_ping(probe_id, False, self.now)  # no streams stand here

    def _connect(self, member: Member, effect: TryConnect) -> None:
        target = self._by_address.get(effect.address)
        both_ways = target is not None and target.power and self._passes(member, target) and self._passes(target, member)
        if not both_ways or target is None:
            outcome, after_s = "silent", effect.timeout_s
        else:
            outcome, after_s = ("accepted" if target.daemon else "refused"), 2 * self.conditions.latency_s
        self._later(after_s, member, self._connected, member, effect.probe_id, outcome)

    def _connected(self, member: Member, probe_id: int, outcome: str) -> None:
        member.core.on_connect_result(probe_id, outcome, self.now)

    # ---- exchanges of tables: over a stream, so whole or not at all --------------------------------------------------

    def _push_pull(self, member: Member, to: NodeId) -> None:
        target = self._by_id[to]
        mine = member.core.sync_state(self.now)
        patience = Patience(member)
        self.world.after(SYNC_TIMEOUT_S, self._sync_over, patience)
        if self._passes(member, target) and self._passes(target, member):
            self._later(2 * self.conditions.latency_s, target, self._sync_asked, target, mine, patience)

    def _sync_asked(self, target: Member, theirs: SyncState, patience: Patience) -> None:
        mine = target.core.on_push_pull(theirs, self.now)
        if self._passes(patience.member, target) and self._passes(target, patience.member):
            self._later(2 * self.conditions.latency_s, patience.member, self._sync_answered, patience, mine)

    def _sync_answered(self, patience: Patience, theirs: SyncState) -> None:
        if not patience.over:
            patience.over = True
            patience.member.core.on_push_pull_reply(theirs, self.now)

    def _sync_over(self, patience: Patience) -> None:
        if not patience.over:
            patience.over = True
            self._handle(patience.member, lambda: patience.member.core.on_push_pull_failed(self.now), ())


@dataclass(slots=True)
class Patience:
    """Whose exchange it is, and whether it was answered or given up."""

    member: Member
    over: bool = False


def _wandered(load: tuple[int, int], rng: random.Random) -> tuple[int, int]:
    """A second later: the processor up to 5 % more or less busy, and once in 20 s something else begins or ends."""
    cpu = rng.randrange(1001) if rng.random() < 0.05 else load[0] + rng.randrange(-50, 51)
    return min(1000, max(0, cpu)), min(1000, max(0, load[1] + rng.randrange(-5, 6)))


def _real(identity: MemberIdentity, config: Config, rng: random.Random, now: float) -> Core:
    return Core(identity=identity, config=config, rng=rng, now=now)
