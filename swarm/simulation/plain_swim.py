"""SWIM as published, without Lifeguard and without evidence: what the product's core is compared with. No daemon runs it.

A ping of a shuffled ring; unanswered, k helpers are asked to ping; still unanswered, the target is suspect and all are told; a
suspicion that is not refuted within a fixed time is death (SWIM, sections 3.1 and 4). What memberlist adds without Lifeguard is
here too: death can be refuted by a higher incarnation, and the dead are told rumours for a while. Pace and timeouts are the
product's, so that only the rules differ.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from swarm.machine import Outbox
from swarm.membership import Config, Effect, MemberIdentity, Message, PushPull, SendPacket, SyncState
from swarm.membership.broadcast import Broadcasts, retransmit_limit
from swarm.membership.messages import HEADER_BYTES_MAX, Ack, Claim, Ping, ProbeReport, ProbeRequest, Rumours, claim_bytes
from swarm.membership.sync import as_suspicion, sync_interval_s
from swarm.membership.table import Record, Table
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, Sample
from swarm.model.node import VerdictKind

_TELL_THE_DEAD_S = 30.0
"""memberlist's GossipToTheDeadTime."""


@dataclass(slots=True)
class Flight:
    """A ping that waits for its answer; for an asker, if it is an errand. `asked` once helpers were."""

    target: NodeId
    asker: NodeId | None = None
    asker_sequence: int = 0
    asked: bool = False


class PlainSwim:
    """`suspicion_s` is fixed; memberlist's rule for it is 4 * log10(N) probe intervals."""

    def __init__(self, identity: MemberIdentity, config: Config, rng: random.Random, now: float, *, suspicion_s: float) -> None:
        self._config = config
        self._suspicion_s = suspicion_s
        self._rng = rng
        self._outbox: Outbox[Effect] = Outbox()
        self._broadcasts = Broadcasts()
        i = identity
        self._me = Record(i.node_id, i.name, i.address, i.generation, 0, MemberStatus.ALIVE, now)
        self._table = Table(self._me, self._outbox, self._broadcasts)
        self._flights: dict[int, Flight] = {}
        self._flight_ends: list[tuple[float, int]] = []
        self._suspicions: list[tuple[float, NodeId, int, int]] = []
        self._sequence = 0
        self._ring: list[NodeId] = []
        self._round_at = self._gossip_at = self._sync_at = now

    # ---- what can be asked ------------------------------------------------------------------------------------------

    @property
    def next_deadline(self) -> float:
        """When `tick` is due."""
        flight = self._flight_ends[0][0] if self._flight_ends else math.inf
        suspicion = self._suspicions[0][0] if self._suspicions else math.inf
        gossip = self._gossip_at if self._broadcasts.counts else math.inf
        return min(self._round_at, self._sync_at, flight, suspicion, gossip)

    def take_effects(self) -> list[Effect]:
        """What is to be done, in order."""
        return self._outbox.take()

    def status_of(self, node_id: NodeId) -> MemberStatus | None:
        """What is believed of one member."""
        record = self._me if node_id == self._me.node_id else self._table.records.get(node_id)
        return record.status if record else None

    def incarnation_of(self, node_id: NodeId) -> int:
        """The newest incarnation heard of."""
        record = self._me if node_id == self._me.node_id else self._table.records.get(node_id)
        return record.incarnation if record else -1

    def alive_ids(self) -> set[NodeId]:
        """Members believed alive, this one included."""
        records = (self._me, *self._table.present())
        return {record.node_id for record in records if record.status is MemberStatus.ALIVE}

    def know(self, claims: Iterable[Claim], rng: random.Random, now: float) -> None:
        """As after an hour of calm."""
        for claim in claims:
            if claim.node_id in self._table.records:
                self._table.adopt(self._table.records[claim.node_id], claim, now)
        self._round_at = now + self._config.probe_interval_s * rng.random()
        self._sync_at = now + sync_interval_s(self._table.size, self._config) * rng.random()
        self._broadcasts.clear()
        self._outbox.take()

    def sync_state(self, now: float) -> SyncState:
        """The whole table."""
        heard = [record for record in self._table.records.values() if record.generation > 0]
        return SyncState(self._table.claim(self._me, now), tuple(self._table.claim(record, now) for record in heard))

    def check(self) -> None:
        """Assert every invariant."""
        self._table.check()

    # ---- inputs -----------------------------------------------------------------------------------------------------

    def set_admitted(self, nodes: Mapping[NodeId, tuple[str, str]], now: float) -> None:
        """Id -> (name, address). Nobody is removed here."""
        for node_id, (name, address) in nodes.items():
            if node_id != self._me.node_id and node_id not in self._table.records:
                self._table.add(node_id, name, address, now)

    def leave(self, now: float) -> None:
        """Announce the departure."""
        self._me.status = MemberStatus.LEFT
        self._me.incarnation += 1
        self._broadcasts.put(self._me.node_id)

    def observe_sample(self, sample: Sample, now: float) -> None:
        """No loads here."""

    def on_stall(self, gap_s: float, now: float) -> None:
        """It does not know."""

    def on_connect_result(self, probe_id: int, outcome: str, now: float) -> None:
        """It asks no kernels."""

    def on_stream_ping(self, probe_id: int, answered: bool, now: float) -> None:
        """It has no streams."""

    def on_packet(self, source: tuple[str, int], message: Message, now: float) -> None:
        """One packet."""
        sender = self._table.records.get(message.me.node_id)
        if sender is None:
            return
        self._take_news(message, now)
        match message:
            case Ping() if message.target == self._me.node_id:
                self._post(sender, Ack(self._table.claim(self._me, now), message.sequence, self._news(now)))
            case Ack():
                self._on_ack(message, now)
            case ProbeRequest() if message.target in self._table.records:
                self._ping(self._table.records[message.target], now, asker=sender.node_id, sequence=message.sequence)
            case ProbeReport() if message.reached:
                self._flights.pop(message.sequence, None)
            case _:
                pass

    def on_push_pull(self, remote: SyncState, now: float) -> SyncState:
        """A member sent its table; the answer is ours."""
        mine = self.sync_state(now)
        self._take_news(remote, now)
        return mine

    def on_push_pull_reply(self, remote: SyncState, now: float) -> None:
        """The table of a member."""
        self._take_news(remote, now)

    def on_push_pull_failed(self, now: float) -> None:
        """Next time."""

    def tick(self, now: float) -> None:
        """Everything that is due."""
        while self._flight_ends and self._flight_ends[0][0] <= now:
            self._flight_over(heapq.heappop(self._flight_ends)[1], now)
        while self._suspicions and self._suspicions[0][0] <= now:
            _, node_id, generation, incarnation = heapq.heappop(self._suspicions)
            record = self._table.records[node_id]
            if record.order == (generation, incarnation, 1):
                self._table.mark(record, MemberStatus.DEAD, VerdictKind.DAEMON_STALLED, now)
        if now >= self._round_at:
            self._round_at = now + self._config.probe_interval_s
            for record in self._targets():
                self._ping(record, now)
        if now >= self._gossip_at and self._broadcasts.counts:
            self._gossip_at = now + self._config.gossip_interval_s
            self._gossip(now)
        if now >= self._sync_at:
            self._sync_at = now + sync_interval_s(self._table.size, self._config) * (0.5 + self._rng.random())
            alive = [record for record in self._table.present() if record.status is MemberStatus.ALIVE]
            if alive:
                self._outbox.emit(PushPull(self._rng.choice(alive).node_id))

    # ---- probing ----------------------------------------------------------------------------------------------------

    def _targets(self) -> list[Record]:
        chosen: list[Record] = []
        for _ in range(min(self._config.probes_per_round, self._table.size - 1)):
            if not self._ring:
                self._ring = [record.node_id for record in self._table.present()]
                self._rng.shuffle(self._ring)
            record = self._table.records[self._ring.pop()]
            if record.status in (MemberStatus.ALIVE, MemberStatus.SUSPECT):
                chosen.append(record)
        return chosen

    def _ping(self, record: Record, now: float, *, asker: NodeId | None = None, sequence: int = 0) -> None:
        self._sequence += 1
        self._flights[self._sequence] = Flight(record.node_id, asker, sequence)
        heapq.heappush(self._flight_ends, (now + self._config.direct_timeout_s, self._sequence))
        self._post(record, Ping(self._table.claim(self._me, now), self._sequence, record.node_id, self._news(now)))

    def _on_ack(self, ack: Ack, now: float) -> None:
        flight = self._flights.pop(ack.sequence, None)
        if flight is None or flight.asker is None:
            return
        asker = self._table.records[flight.asker]
        me = self._table.claim(self._me, now)
        self._post(asker, ProbeReport(me, flight.asker_sequence, flight.target, True, "", self._news(now)))

    def _flight_over(self, sequence: int, now: float) -> None:
        flight = self._flights.get(sequence)
        if flight is None:
            return
        target = self._table.records[flight.target]
        if flight.asker is None and not flight.asked:
            flight.asked = True
            heapq.heappush(self._flight_ends, (now + self._config.suspect_after_s, sequence))
            helpers = [record for record in self._table.present() if record is not target]
            me = self._table.claim(self._me, now)
            for helper in self._rng.sample(helpers, min(self._config.indirect_probes, len(helpers))):
                self._post(helper, ProbeRequest(me, sequence, target.node_id, target.address, self._news(now)))
            return
        del self._flights[sequence]
        if flight.asker is None and target.status is MemberStatus.ALIVE:
            self._table.mark(target, MemberStatus.SUSPECT, VerdictKind.DAEMON_STALLED, now)
            self._suspect(target, now)

    def _suspect(self, record: Record, now: float) -> None:
        heapq.heappush(self._suspicions, (now + self._suspicion_s, record.node_id, record.generation, record.incarnation))

    # ---- news -------------------------------------------------------------------------------------------------------

    def _take_news(self, message: Message, now: float) -> None:
        for claim in (message.me, *message.claims):
            if claim.node_id == self._me.node_id:
                self._refute(claim)
                continue
            record = self._table.records.get(claim.node_id)
            believed = as_suspicion(claim) if isinstance(message, SyncState) else claim
            if record is not None and self._table.adopt(record, believed, now) and record.status is MemberStatus.SUSPECT:
                self._suspect(record, now)

    def _refute(self, claim: Claim) -> None:
        accused = claim.status in (MemberStatus.SUSPECT, MemberStatus.DEAD)
        if accused and claim.generation == self._me.generation and claim.incarnation >= self._me.incarnation:
            self._me.incarnation = claim.incarnation + 1
            self._broadcasts.put(self._me.node_id)

    def _news(self, now: float) -> tuple[Claim, ...]:
        """As many claims as fit."""
        bytes_left = self._config.packet_bytes_max - HEADER_BYTES_MAX
        limit = retransmit_limit(self._table.size, self._config.retransmit_factor)
        claims: list[Claim] = []
        for node_id in self._broadcasts.waiting(12):
            claim = self._table.claim(self._me if node_id == self._me.node_id else self._table.records[node_id], now)
            bytes_left -= claim_bytes(claim)
            if bytes_left < 0:
                break
            claims.append(claim)
            self._broadcasts.sent(node_id, limit=limit)
        return tuple(claims)

    def _gossip(self, now: float) -> None:
        lately = [r for r in self._table.dead() if now - r.since <= _TELL_THE_DEAD_S]
        told = [*self._table.present(), *lately]
        for record in self._rng.sample(told, min(self._config.gossip_fanout, len(told))):
            self._post(record, Rumours(self._table.claim(self._me, now), self._news(now)))

    def _post(self, to: Record, packet: Ping | Ack | ProbeRequest | ProbeReport | Rumours) -> None:
        self._outbox.emit(SendPacket(to.address, packet))
