"""The membership core: who is there, by SWIM with Lifeguard and by kind of evidence.

Inputs are packets, results of connects, exchanged tables, what the streams do, and intents; outputs are the effects of `effects`.
A member's own word is the only one that brings it back; what becomes of claims, the probing, the cases against members and the
wording of evidence are in `claims`, `probe`, `investigation` and `evidence`.

Promises: only this node raises its own incarnation; it answers only pings meant for its id; who answered it lately is asked
before it is believed dead on another's word; after a pause of this process it accuses nobody for what happened meanwhile.
Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from typing import assert_never

import msgspec

from swarm.errors import OperatorError, PeerError
from swarm.machine import Outbox, ends_when_broken
from swarm.membership.broadcast import Broadcasts
from swarm.membership.claims import Claims
from swarm.membership.config import Config
from swarm.membership.effects import Effect, PushPull, SendPacket
from swarm.membership.health import LocalHealth
from swarm.membership.investigation import Investigations
from swarm.membership.mail import Mail
from swarm.membership.messages import Ack, MemberIdentity, Message, Ping, ProbeReport, ProbeRequest, Rumours, SyncState
from swarm.membership.messages import format_address as address_of
from swarm.membership.probe import Prober
from swarm.membership.samples import SampleBoard
from swarm.membership.sync import as_suspicion, state_of, sync_interval_s
from swarm.membership.table import Record, Table
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, MemberView, Sample

_PRESENT = (MemberStatus.ALIVE, MemberStatus.SUSPECT)


@ends_when_broken(OperatorError, PeerError)
class Membership:
    """See the module. All times are CLOCK_BOOTTIME seconds of this host."""

    def __init__(self, *, identity: MemberIdentity, config: Config, rng: random.Random, now: float) -> None:
        self.config = config
        self._now = now
        self._rng = rng
        self._outbox: Outbox[Effect] = Outbox()
        self._broadcasts = Broadcasts()
        self._samples = SampleBoard()
        self._health = LocalHealth(config.health_score_max)
        i = identity
        me = Record(i.node_id, i.name, i.address, i.generation, 0, MemberStatus.ALIVE, now, last_contact=now)
        self._table = Table(me, self._outbox, self._broadcasts)
        self._table.sample_of = self._samples.latest.get
        self._mail = Mail(config, self._table, self._broadcasts, self._samples, self._outbox)
        self._prober = Prober(config, self._table, self._mail, self._health, rng, self._outbox)
        self._cases = Investigations(config, self._table, self._mail, self._prober, self._health, rng, self._outbox)
        self.counters = self._cases.counters
        """What was dropped, by reason, and what became of investigations."""
        self._table.explain = self._cases.explain
        self._claims = Claims(
            config, self._table, self._mail, self._prober, self._cases, self._health, rng, self._outbox, self.counters
        )
        self._round_at = now
        self._dead_retry_at = now
        self._sync_at = math.inf
        self._gossiped_at = -math.inf
        self._left_at = math.inf

    # ---- what can be asked ------------------------------------------------------------------------------------------

    @property
    def next_deadline(self) -> float:
        """When `tick` is due."""
        if not self._table.records:
            return math.inf
        cases = self._cases.next_deadline
        return min(self._round_at, self._dead_retry_at, self._sync_at, self._gossip_at, self._prober.next_deadline, cases)

    @property
    def self_id(self) -> NodeId:
        """This node."""
        return self._table.me.node_id

    @property
    def health_score(self) -> int:
        """Lifeguard's local health: 0 is well."""
        return self._health.score

    def members(self) -> Mapping[NodeId, MemberView]:
        """Every admitted member and this node, as of the last input. O(N)."""
        views = {node_id: self._table.view(record, self._now) for node_id, record in self._table.records.items()}
        views[self._table.me.node_id] = self._table.view(self._table.me, self._now)
        return views

    def take_effects(self) -> list[Effect]:
        """What is to be done, in order."""
        return self._outbox.take()

    def sync_state(self, now: float) -> SyncState:
        """The whole table, for a push-pull. O(N)."""
        return state_of(self._table, self._samples, now)

    def has_left(self, now: float) -> bool:
        """Whether the leave was announced and lingered over: the process may end."""
        return now >= self._left_at + self.config.leave_linger_s

    def check(self) -> None:
        """Assert every invariant."""
        self._table.check()
        self._prober.check()
        self._cases.check()
        assert 0 <= self._health.score <= self._health.score_max
        assert all(i in self._table.records or i == self._table.me.node_id for i in self._broadcasts.waiting())

    # ---- intents ----------------------------------------------------------------------------------------------------

    def set_admitted(self, nodes: Mapping[NodeId, tuple[str, str]], now: float | None = None) -> None:
        """From the catalog: id -> (name, address). Others are no members; a removed one is dropped at once."""
        self._now = now = self._now if now is None else max(now, self._now)
        for node_id in [i for i in self._table.records if i not in nodes]:
            self._cases.forget(node_id)
            self._table.remove(node_id, now)
            self._samples.forget(node_id)
        for node_id, (name, address) in sorted(nodes.items()):
            record = self._table.records.get(node_id)
            if node_id == self._table.me.node_id:
                continue
            if record is None:
                self._table.add(node_id, name, address, now)
                self._round_at = now
                self._sync_at = min(self._sync_at, now + self.config.probe_interval_s)
            elif record.declared != address:
                record.declared = address
                if record.status is not MemberStatus.ALIVE:
                    record.address = address  # it moved while this node did not hear from it

    def join(self, addresses: Iterable[str], now: float) -> None:
        """Tell these addresses that this member is here; they answer by probing it."""
        for address in addresses:
            self._outbox.emit(SendPacket(address, Rumours(self._mail.me(now))))

    def leave(self, now: float) -> None:
        """Announce the departure for good; go on answering until `has_left`."""
        self._now = now
        self._left_at = min(self._left_at, now)
        self._claims.say_of_myself(MemberStatus.LEFT, self._table.me.incarnation + 1, now)

    def pause(self, until_s: float, now: float) -> None:
        """Announce that the daemon stops and means to be back by `until_s`: nothing need be replaced before then."""
        self._now = now
        self._table.me.paused_until = until_s
        self._claims.say_of_myself(self._table.me.status, self._table.me.incarnation + 1, now)

    def observe_sample(self, sample: Sample, now: float) -> None:
        """This node's own load, at whatever pace it is measured: how often it is told depends on N (`samples`)."""
        self._now = now
        if sample.generation < self._table.me.generation:  # others know a later start of ours, and would take it for an old one
            sample = msgspec.structs.replace(sample, generation=self._table.me.generation)
        self._samples.observe(sample, members=self._table.size, config=self.config, now=now)

    def observe_pressure(self, *, lag_s: float, cpu_pressure_permille: int | None, now: float) -> None:
        """How late this process's own loop ran since the last call, and its host's CPU pressure (None where unknown)."""
        self._now = now
        self._health.on_pressure(lag_s=lag_s, cpu_pressure_permille=cpu_pressure_permille)

    def observe_stream(self, node_id: NodeId, connected: bool, now: float) -> None:
        """A stream to a peer stands, or ended. An end is looked into at once: a killed daemon's kernel tells in milliseconds."""
        self._now = now
        record = self._table.records.get(node_id)
        if record is None or record.stream is connected:
            return
        record.stream = connected
        if not connected and record.status in _PRESENT and self._table.me.status is MemberStatus.ALIVE:
            if not self._prober.in_flight(node_id):
                self._prober.ping(record, now)
            self._cases.on_stream_broken(record, now)

    # ---- inputs -----------------------------------------------------------------------------------------------------

    def on_packet(self, source: tuple[str, int], message: Message, now: float) -> None:
        """One packet, opened, decoded and from whom it says (`message.me`)."""
        self._now = now
        if self._ignore_packet(message):
            return
        sender = self._table.records[message.me.node_id]
        self._take_news(sender, message, now, second_hand=False)
        if sender.status is MemberStatus.DEAD and not self._prober.in_flight(sender.node_id):
            self._prober.ping(sender, now)  # carries the accusation, so that it can refute
        match message:
            case Ping():
                if message.target == self._table.me.node_id:
                    self._mail.reply(sender, address_of(*source), Ack(self._mail.me(now), message.sequence), now)
                else:
                    self.counters["ping_for_another"] += 1
            case Ack():
                self._on_ack(sender, message, now)
            case ProbeRequest():
                target = self._table.records.get(message.target)
                if target is None or not self._prober.on_request(sender, message, target, now):
                    self.counters["errand_refused"] += 1
            case ProbeReport():
                self._cases.on_report(sender, message, now)
            case Rumours() | SyncState():
                pass
            case _:
                assert_never(message)

    def on_connect_result(self, probe_id: int, outcome: str, now: float) -> None:
        """The answer to `TryConnect`: accepted, refused, silent or unreachable."""
        self._now = now
        if not self._prober.on_errand_connect(probe_id, outcome, now):
            self._cases.on_connect(probe_id, outcome, now)

    def on_stream_ping(self, probe_id: int, answered: bool, now: float, silent_s: float = math.inf) -> None:
        """The answer to `PingOverStream`, and for how long nothing at all (consensus speaks there too) has come over a stream."""
        self._now = now
        record = self._cases.on_stream_ping(probe_id, now)
        if record is not None:
            record.stream_heard = max(record.stream_heard, now - silent_s)
        if record is not None and answered:
            record.udp_blocked = True
            self._on_contact(record, now)

    def on_push_pull(self, remote: SyncState, now: float) -> SyncState:
        """A member sent its table; the answer is ours, as it was before."""
        mine = self.sync_state(now)
        self.on_push_pull_reply(remote, now)
        return mine

    def on_push_pull_reply(self, remote: SyncState, now: float) -> None:
        """The table of a member."""
        self._now = now
        if not self._ignore_packet(remote):
            self._take_news(self._table.records[remote.me.node_id], remote, now, second_hand=True)

    def on_push_pull_failed(self, now: float) -> None:
        """The exchange did not happen: try another member soon."""
        self._sync_at = min(self._sync_at, now + self.config.dead_retry_interval_s)

    def on_stall(self, gap_s: float, now: float) -> None:
        """This process did not run for `gap_s`: forget what it could not have seen answered, distrust itself, accuse nobody."""
        self._now = now
        self._prober.discard()
        self._cases.discard()
        self._health.on_stall(gap_s)
        self._round_at = now
        self.counters["stalls"] += 1

    def tick(self, now: float) -> None:
        """Everything that is due."""
        self._now = now
        for flight in self._prober.take_lost(now):
            record = self._table.records.get(flight.target)
            if record is not None and record.status in _PRESENT:
                if record.accusation is not None:
                    self._claims.on_claim(record.accusation, now)
                if record.status in _PRESENT:
                    self._cases.on_ping_lost(record, flight.sent_at, now)
        self._cases.tick(now)
        if now >= self._round_at:
            self._round_at = now + self.config.probe_interval_s * self._health.factor
            self._probe_round(now)
        if now >= self._dead_retry_at:
            self._dead_retry_at = now + self.config.dead_retry_interval_s
            self._retry_dead(now)
        if now >= self._sync_at:
            self._sync_at = now + sync_interval_s(self._table.size, self.config)
            self._sync_with_one()
        if now >= self._gossip_at:
            self._gossip(now)

    # ---- packets ----------------------------------------------------------------------------------------------------

    def _ignore_packet(self, message: Message) -> bool:
        """Every reason to drop a packet."""
        record = self._table.records.get(message.me.node_id)
        if message.me.node_id == self._table.me.node_id:
            reason = "from_own_id"
        elif record is None:
            reason = "not_admitted"
        elif message.me.generation < record.generation:
            reason = "old_generation"
        else:
            return False
        self.counters[reason] += 1
        return True

    def _take_news(self, sender: Record, message: Message, now: float, *, second_hand: bool) -> None:
        sender.last_heard = now
        self._claims.on_own_word(sender, message.me, now)
        for claim in message.claims:
            self._claims.on_claim(as_suspicion(claim) if second_hand else claim, now)
        forward = self._table.size > self.config.everyone_probes_max
        for sample in message.samples:
            if sample.node_id in self._table.records:
                self._samples.merge(sample, forward=forward)

    def _on_ack(self, sender: Record, ack: Ack, now: float) -> None:
        flight = self._prober.on_ack(sender.node_id, ack.sequence, now)
        if flight is None:
            self.counters["ack_unasked"] += 1
            return
        rtt_s = now - flight.sent_at
        unstretched_s = max(self.config.direct_timeout_s, 3 * sender.rtt_s)
        path_s = min(rtt_s, self.config.round_trip_max_s)
        sender.rtt_s = path_s if sender.rtt_s == 0 else 0.8 * sender.rtt_s + 0.2 * path_s
        sender.udp_blocked = False
        if rtt_s <= unstretched_s:  # what took the time that only bad health gives is no sign of good health
            self._health.on_answer()
            sender.patience = max(1, sender.patience - 1)
        self._on_contact(sender, now)

    def _on_contact(self, record: Record, now: float) -> None:
        record.last_contact = now
        if record.node_id in self._cases:
            self.counters["cases_answered"] += 1
        self._cases.close(record.node_id)

    # ---- rounds -----------------------------------------------------------------------------------------------------

    @property
    def _gossip_at(self) -> float:
        """Only news of members makes packets of its own; samples ride on those that leave anyway."""
        if not self._broadcasts.counts:
            return math.inf
        fresh = self._broadcasts.fresh
        return self._gossiped_at + (self.config.gossip_spacing_s if fresh else self.config.gossip_interval_s)

    def _probe_round(self, now: float) -> None:
        if self._table.me.status is MemberStatus.LEFT:
            return
        for record in self._prober.targets():
            self._prober.ping(record, now)

    def _retry_dead(self, now: float) -> None:
        """One dead member is pinged, so that a split heals whoever notices first. Those who left are let alone."""
        dead = [record for record in self._table.dead() if now - record.since <= self.config.dead_retry_for_s]
        if dead and self._table.me.status is MemberStatus.ALIVE:
            self._prober.ping(self._rng.choice(dead), now)

    def _sync_with_one(self) -> None:
        alive = [record for record in self._table.present() if record.status is MemberStatus.ALIVE]
        if alive:
            self._outbox.emit(PushPull(self._rng.choice(alive).node_id))

    def _gossip(self, now: float) -> None:
        self._gossiped_at = now
        self._broadcasts.fresh = False
        targets = self._table.present()
        if len(targets) >= self.config.everyone_probes_max:
            targets = self._rng.sample(targets, self.config.gossip_fanout)
        for record in list(targets):
            if not self._broadcasts.counts:
                break
            self._mail.post(record, Rumours(self._mail.me(now)), now)
