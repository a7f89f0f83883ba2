"""Claims: what becomes of what is said about a member, this one included.

A claim about another is merged into the table if it prevails there, with one exception: who answered us just now is asked before
it is believed suspect or dead. A claim about this node that it cannot let stand it outbids by a higher incarnation.

**One identity, two daemons.** A copied disk gives two daemons one id and one key. A daemon never changes its address while it
runs, so two addresses under one (id, generation), or a claim of our own generation or a later one at an address that is not ours,
mean that a second one runs, or ran. Only asking there tells which: `TwinSuspected`. And since rumours about a member are not sent
to itself, whoever sees a member turn up at another address says so to the one where it was.

Promises: only this node raises its own incarnation, here; nobody is believed dead on another's word while it answers.
Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import math
import random
from collections import Counter

from swarm.machine import Outbox
from swarm.membership.config import Config
from swarm.membership.effects import Effect, MemberChanged, SendPacket, TwinSuspected
from swarm.membership.health import LocalHealth
from swarm.membership.investigation import Investigations
from swarm.membership.mail import Mail
from swarm.membership.messages import INCARNATION_MAX, Claim, Rumours
from swarm.membership.probe import Prober
from swarm.membership.table import Record, Table, claim_order
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus

_ACCUSED = (MemberStatus.SUSPECT, MemberStatus.DEAD)
_PRESENT = (MemberStatus.ALIVE, MemberStatus.SUSPECT)
TWIN_EVERY_S = 1.0
"""A suspected twin is told of, or asked about, this often at most."""


class Claims:
    """Merges claims into the table, with everything that follows from it."""

    def __init__(
        self,
        config: Config,
        table: Table,
        mail: Mail,
        prober: Prober,
        cases: Investigations,
        health: LocalHealth,
        rng: random.Random,
        outbox: Outbox[Effect],
        counters: Counter[str],
    ) -> None:
        self._config = config
        self._table = table
        self._mail = mail
        self._prober = prober
        self._cases = cases
        self._health = health
        self._rng = rng
        self._outbox = outbox
        self._counters = counters
        self._twin_at = -math.inf

    def on_own_word(self, sender: Record, claim: Claim, now: float) -> None:
        """What a member says of itself, in a packet that it sealed."""
        before, was_here = sender.address, sender.status in _PRESENT and sender.generation > 0
        self.on_claim(claim, now)
        if claim.address == before or not was_here:
            return
        if sender.address == claim.address:  # it moved: if a daemon still runs where it was, that one must hear of it
            self._tell_twin(sender, before, now)
        elif claim.generation == sender.generation:
            self._tell_twin(sender, claim.address, now)

    def on_claim(self, claim: Claim, now: float) -> None:
        """What anybody says about anybody."""
        if claim.node_id == self._table.me.node_id:
            self._on_claim_about_me(claim, now)
            return
        record = self._table.records.get(claim.node_id)
        if record is None:
            self._counters["claim_about_stranger"] += 1
            return
        accused = claim.status in _ACCUSED and claim_order(claim)[:2] >= record.order[:2]
        lately = now - record.last_contact <= self._config.contact_fresh_s
        if accused and record.status is MemberStatus.ALIVE and lately:
            record.accusation = claim
            if not self._prober.in_flight(record.node_id):
                self._prober.ping(record, now)
        elif self._table.adopt(record, claim, now):
            self._after_adopting(record, now)
        elif accused and record.node_id in self._cases:
            self._cases.on_accusation(record, NodeId(claim.accuser), claim.kind, now, sleep_s=0.0)

    def say_of_myself(self, status: MemberStatus, incarnation: int, now: float) -> None:
        """The only place where an incarnation grows."""
        me = self._table.me
        assert incarnation > me.incarnation or status is me.status
        old = self._table.view(me, now)
        if status is not me.status:
            me.since = now
        me.status, me.incarnation = status, incarnation
        self._table.broadcast(me)
        self._outbox.emit(MemberChanged(old, self._table.view(me, now), "this node's own word"))

    def _after_adopting(self, record: Record, now: float) -> None:
        if record.status is MemberStatus.SUSPECT:
            small = self._table.size <= self._config.everyone_probes_max
            sleep_s = 0.0 if small else self._config.suspicion_max_s * (1 + self._rng.random())
            self._cases.on_accusation(record, NodeId(record.accuser), record.kind, now, sleep_s=sleep_s)
            return
        self._cases.forget(record.node_id)
        self._counters[f"became_{record.status.value}"] += 1

    def _on_claim_about_me(self, claim: Claim, now: float) -> None:
        me = self._table.me
        if claim.incarnation == INCARNATION_MAX:  # the one that cannot be outbid; the next start begins at 0 again
            self._counters["absurd_claim"] += 1
            return
        if claim.address != me.address and claim.generation >= me.generation and now - self._twin_at >= TWIN_EVERY_S:
            self._twin_at = now
            self._counters["twin_suspected"] += 1
            self._outbox.emit(TwinSuspected(claim.address))
        if claim.generation > me.generation:
            me.generation = claim.generation  # our counter of starts was lost or restored: others must still hear us
            self._counters["generation_behind"] += 1
        elif claim_order(claim) <= me.order:
            return
        if claim.status in _ACCUSED:
            self._health.on_refute()
            self._counters["refuted"] += 1
        self.say_of_myself(me.status, claim.incarnation + 1, now)

    def _tell_twin(self, record: Record, address: str, now: float) -> None:
        """To whoever listens at `address`: what is believed of the member whose identity it may share."""
        if now - record.twin_at >= TWIN_EVERY_S:
            record.twin_at, record.twin_address = now, address
            self._counters["twin_told"] += 1
            self._outbox.emit(SendPacket(address, Rumours(self._mail.me(now), (self._table.claim(record, now),))))
