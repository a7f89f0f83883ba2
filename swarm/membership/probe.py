"""Probing: who is pinged when, which pings are in flight, and errands run for others.

SWIM's round-robin over a shuffled ring (section 4.3), but small clusters ping everybody in every round. A ping that was not
answered in time is reported as lost once; its answer is still welcome later, since late is not dead. An errand is a ping and a
connect on behalf of another member: it reports as soon as there is something to say.

Promise: at most `errands_max` errands and four rounds of late pings are remembered.
Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, OrderedDict
from dataclasses import dataclass

from swarm.machine import Outbox
from swarm.membership.config import Config
from swarm.membership.effects import Effect, TryConnect
from swarm.membership.health import LocalHealth
from swarm.membership.mail import Mail
from swarm.membership.messages import Ping, ProbeReport, ProbeRequest
from swarm.membership.table import Record, Table
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus

_LATE_S = 10.0
_PRESENT = (MemberStatus.ALIVE, MemberStatus.SUSPECT)


@dataclass(slots=True)
class Flight:
    """A ping under way. `errand` is set when it is on behalf of another."""

    target: NodeId
    sent_at: float
    lost: bool = False
    errand: Errand | None = None


@dataclass(slots=True)
class Errand:
    """A probe for `asker`, who knows it by `sequence`."""

    asker: NodeId
    sequence: int
    target: NodeId
    connect: str = ""
    ping_over: bool = False
    reached: bool = False


class Prober:
    """Pings in flight and the ring of whom to ping next."""

    def __init__(
        self, config: Config, table: Table, mail: Mail, health: LocalHealth, rng: random.Random, outbox: Outbox[Effect]
    ) -> None:
        self._config = config
        self._table = table
        self._mail = mail
        self._health = health
        self._rng = rng
        self._outbox = outbox
        self._flights: OrderedDict[int, Flight] = OrderedDict()
        self._deadlines: list[tuple[float, int]] = []
        self._errand_connects: OrderedDict[int, Errand] = OrderedDict()
        self._errands = 0
        self._own: dict[NodeId, int] = {}
        """How many pings of our own to whom may still be answered in time."""
        self._ring: list[NodeId] = []
        self._sequence = rng.randrange(1, 2**31)

    @property
    def next_deadline(self) -> float:
        """When the next ping counts as lost."""
        return self._deadlines[0][0] if self._deadlines else math.inf

    def next_sequence(self) -> int:
        """A number never used before by this process; also identifies connects."""
        self._sequence += 1
        return self._sequence

    def targets(self) -> list[Record]:
        """Whom to ping in this round."""
        present = self._table.present()
        if len(present) < self._config.everyone_probes_max:
            return list(present)
        chosen: dict[NodeId, Record] = {}
        for _ in range(2 * len(present)):
            if len(chosen) >= self._config.probes_per_round:
                break
            if not self._ring:
                self._ring = [record.node_id for record in present]
                self._rng.shuffle(self._ring)
            record = self._table.records.get(self._ring.pop())
            if record is not None and record.status in _PRESENT:
                chosen[record.node_id] = record
        return list(chosen.values())

    def ping(self, record: Record, now: float, *, errand: Errand | None = None) -> None:
        """Send one ping and remember it."""
        sequence = self.next_sequence()
        self._flights[sequence] = Flight(record.node_id, now, errand=errand)
        timeout_s = max(self._config.direct_timeout_s, 3 * record.rtt_s)
        if errand is None:
            timeout_s *= self._health.factor
            self._own[record.node_id] = self._own.get(record.node_id, 0) + 1
        heapq.heappush(self._deadlines, (now + timeout_s, sequence))
        self._mail.post(record, Ping(self._mail.me(now), sequence, record.node_id), now)

    def in_flight(self, node_id: NodeId) -> bool:
        """Whether a ping of our own to it may still be answered in time. O(1)."""
        return node_id in self._own

    def on_ack(self, sender: NodeId, sequence: int, now: float) -> Flight | None:
        """The flight that this answers; None for a stranger's or a second answer."""
        flight = self._flights.get(sequence)
        if flight is None or flight.target != sender:
            return None
        del self._flights[sequence]
        self._no_longer_waited_for(flight)
        self._drop_answered()
        if flight.errand is not None:
            flight.errand.reached = True
            self._report(flight.errand, now)
            flight.errand = None
            self._errands -= 1
        return flight

    def take_lost(self, now: float) -> list[Flight]:
        """Pings of our own whose time is over, each once, in order of their deadlines."""
        lost: list[Flight] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, sequence = heapq.heappop(self._deadlines)
            flight = self._flights.get(sequence)
            if flight is None or flight.lost:
                continue
            self._no_longer_waited_for(flight)
            flight.lost = True
            if flight.errand is None:
                lost.append(flight)
                continue
            flight.errand.ping_over = True
            self._errands -= 1
            if flight.errand.connect:
                self._report(flight.errand, now)
            del self._flights[sequence]
        while self._flights:
            oldest = next(iter(self._flights.values()))
            if not oldest.lost or now - oldest.sent_at <= _LATE_S:
                break  # one that may still be answered in time is told as lost first, in bad health up to 12 s later
            self._flights.popitem(last=False)
        self._drop_answered()
        return lost

    def on_request(self, asker: Record, request: ProbeRequest, target: Record, now: float) -> bool:
        """Probe `target` for `asker`. False when there are too many errands."""
        if self._errands >= self._config.errands_max:
            return False
        self._errands += 1
        errand = Errand(asker.node_id, request.sequence, target.node_id)
        self.ping(target, now, errand=errand)
        probe_id = self.next_sequence()
        self._errand_connects[probe_id] = errand
        while len(self._errand_connects) > 2 * self._config.errands_max:
            self._errand_connects.popitem(last=False)
        self._outbox.emit(TryConnect(probe_id, target.node_id, target.address, self._config.connect_timeout_s))
        return True

    def on_errand_connect(self, probe_id: int, outcome: str, now: float) -> bool:
        """A connect made for somebody else came to its end. False when it is not one of those."""
        errand = self._errand_connects.pop(probe_id, None)
        if errand is None:
            return False
        errand.connect = outcome
        if not errand.reached and (errand.ping_over or outcome == "refused"):
            self._report(errand, now)
        return True

    def discard(self) -> None:
        """Forget every ping and errand: this process did not run while their answers came."""
        self._flights.clear()
        self._own.clear()
        self._deadlines.clear()
        self._errand_connects.clear()
        self._errands = 0

    def check(self) -> None:
        """Assert every invariant."""
        errands = sum(1 for flight in self._flights.values() if flight.errand is not None and not flight.lost)
        assert errands == self._errands <= self._config.errands_max
        assert self._own == Counter(f.target for f in self._flights.values() if not f.lost and f.errand is None)

    def _no_longer_waited_for(self, flight: Flight) -> None:
        if flight.lost or flight.errand is not None:
            return
        if self._own[flight.target] == 1:
            del self._own[flight.target]
        else:
            self._own[flight.target] -= 1

    def _drop_answered(self) -> None:
        """Nobody need wake for the deadline of a ping that was answered."""
        while self._deadlines and self._deadlines[0][1] not in self._flights:
            heapq.heappop(self._deadlines)

    def _report(self, errand: Errand, now: float) -> None:
        asker = self._table.records.get(errand.asker)
        if asker is None:
            return
        report = ProbeReport(self._mail.me(now), errand.sequence, errand.target, errand.reached, errand.connect)
        self._mail.post(asker, report, now)
