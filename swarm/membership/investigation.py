"""Investigations: from a lost ping to a finding.

A case opens when a ping is lost, a stream breaks or somebody accuses. It asks k helpers to ping and connect, connects itself, and
asks over the stream, again and again until the member is reached (the case closes) or the evidence is enough (it is marked
dead). In a large cluster not everybody investigates every accusation at once: such a case sleeps until the suspicion is over.

Promises: nobody is marked dead by a timer alone, nor on the word of others, only by `evidence.weigh` over a case of one's own; a
pause of this process closes every case.
Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from swarm.machine import Outbox
from swarm.membership.config import Config
from swarm.membership.effects import Effect, PingOverStream, TryConnect
from swarm.membership.evidence import FOUND, Case, Circumstances, Finding, Observation, ago, describe, weigh
from swarm.membership.health import LocalHealth
from swarm.membership.mail import Mail
from swarm.membership.messages import ProbeReport, ProbeRequest
from swarm.membership.probe import Prober
from swarm.membership.table import Record, Table
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus
from swarm.model.node import VerdictKind

_CONNECT_AGAIN_S = {"accepted": 1.0, "refused": 0.1, "silent": 0.0, "unreachable": 0.2}
"""A refusal or an error comes at once, so the next try waits a moment; silence took its whole timeout already. Who accepts is
asked seldom: nobody takes the connects out of a stalled daemon's queue, and a full one would look silent."""
_LATE_CONNECTS_MAX = 64
_ACCEPTED_REPEAT = 3
"""For the same reason helpers are asked this many times more seldom."""


@dataclass(slots=True)
class Inquiry:
    """A case and what is being done about it."""

    case: Case
    wake_at: float
    """When it is looked at again at the latest."""
    ask_at: float = math.inf
    ping_at: float = math.inf
    connect_at: float = math.inf
    connect_id: int = 0
    """The connect or stream ping under way, 0 for none."""
    stream_id: int = 0
    failed_counted: bool = False
    queued_at: float = math.inf
    """The time it waits for in the queue of what is due."""
    probe_ids: list[int] = field(default_factory=list)

    @property
    def due_at(self) -> float:
        """When something is to be done about it."""
        return min(self.wake_at, self.ask_at, self.ping_at, self.connect_at)


class Investigations:
    """All open cases, by their subject."""

    def __init__(
        self,
        config: Config,
        table: Table,
        mail: Mail,
        prober: Prober,
        health: LocalHealth,
        rng: random.Random,
        outbox: Outbox[Effect],
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._config = config
        self._table = table
        self._mail = mail
        self._prober = prober
        self._health = health
        self._rng = rng
        self._outbox = outbox
        self._open: dict[NodeId, Inquiry] = {}
        self._closed: dict[NodeId, Case] = {}
        """The case that a present accusation rests on, or that a helper's success ended, for the explanation."""
        self._due: list[tuple[float, NodeId]] = []
        """Cases by when they are due; some are closed by then, or due later."""
        self._probe_of: dict[int, NodeId] = {}
        self._late_connects: OrderedDict[int, NodeId] = OrderedDict()
        """Connects of our own that outlived their case: what the kernel did still explains it."""

    @property
    def next_deadline(self) -> float:
        """When a case must be looked at. O(log(open cases)) for each change since it was last asked."""
        while self._due:
            at, node_id = self._due[0]
            inquiry = self._open.get(node_id)
            if inquiry is not None and inquiry.queued_at == at:
                if inquiry.due_at <= at:
                    return at
                inquiry.queued_at = math.inf
                self._plan(inquiry)
            heapq.heappop(self._due)
        return math.inf

    def __contains__(self, node_id: NodeId) -> bool:
        return node_id in self._open

    # ---- what opens and feeds a case --------------------------------------------------------------------------------

    def on_ping_lost(self, record: Record, sent_at: float, now: float) -> None:
        """A direct ping was not answered in time."""
        inquiry = self._open.get(record.node_id) or self._start(record, sent_at)
        first = inquiry.case.pings_lost == 0
        inquiry.case.pings_lost += 1
        if first:
            inquiry.case.opened_at = max(inquiry.case.opened_at, sent_at)
            inquiry.ask_at = inquiry.connect_at = now
        self._work(record, inquiry, now)

    def on_stream_broken(self, record: Record, now: float) -> None:
        """The stream to it ended: look at once; whether that means anything the kernel and a ping will tell."""
        inquiry = self._open.get(record.node_id) or self._start(record, now)
        inquiry.connect_at = now
        self._work(record, inquiry, now)

    def on_accusation(self, record: Record, accuser: NodeId, kind: VerdictKind | None, now: float, *, sleep_s: float) -> None:
        """Another member says suspect or dead."""
        inquiry = self._open.get(record.node_id) or self._start(record, now)
        if kind is not None and accuser not in (self._table.me.node_id, record.node_id, ""):
            inquiry.case.others[accuser] = Observation(now, "", kind)
        if inquiry.case.pings_lost == 0 and inquiry.ask_at == math.inf:
            inquiry.ask_at = inquiry.connect_at = now + sleep_s
        self._work(record, inquiry, now)

    def on_connect(self, probe_id: int, outcome: str, now: float) -> None:
        """A connect of our own came to its end."""
        record, inquiry = self._take_probe(probe_id)
        late = self._closed.get(self._late_connects.pop(probe_id, NodeId("")))
        if late is not None:
            late.on_own_connect(outcome)
        if record is None or inquiry is None or inquiry.connect_id != probe_id:
            return
        inquiry.connect_id = 0
        inquiry.case.on_own_connect(outcome)
        inquiry.connect_at = now + _CONNECT_AGAIN_S.get(outcome, 0.5)
        if outcome == "refused" and not inquiry.case.reports_expected:
            inquiry.ask_at = now
        self._work(record, inquiry, now)

    def on_stream_ping(self, probe_id: int, now: float) -> Record | None:
        """A ping over the stream ended. Returns the member, for the core to note the contact if it was answered."""
        record, inquiry = self._take_probe(probe_id)
        if inquiry is not None and inquiry.stream_id == probe_id:
            inquiry.stream_id = 0
        return record

    def on_report(self, helper: Record, report: ProbeReport, now: float) -> None:
        """A helper says what it found. Only for what we asked; reached by anyone closes the case."""
        inquiry = self._open.get(report.target)
        record = self._table.records.get(report.target)
        if inquiry is None or record is None:
            return
        case = inquiry.case
        if helper.node_id not in case.asked and helper.node_id not in case.others:
            return
        if helper.node_id in case.asked:
            del case.asked[helper.node_id]
            case.reports_received += 1
        if report.reached:
            record.reached_at, record.reached_by = now, helper.node_id
            self._closed[record.node_id] = self._known(record) or case
            self._expect_late_connect(inquiry)
            self.counters["cases_reached_by_others"] += 1
            self.close(record.node_id)
            return
        case.others[helper.node_id] = Observation(now, report.connect)
        self._work(record, inquiry, now)

    def close(self, node_id: NodeId) -> None:
        """It was reached, or is no member any more."""
        inquiry = self._open.pop(node_id, None)
        for probe_id in inquiry.probe_ids if inquiry else ():
            self._probe_of.pop(probe_id, None)

    def forget(self, node_id: NodeId) -> None:
        """Nothing is held against it any more: it spoke for itself."""
        self.close(node_id)
        self._closed.pop(node_id, None)

    def discard(self) -> None:
        """Close every case: this process did not run."""
        for node_id in list(self._open):
            self.close(node_id)

    def tick(self, now: float) -> None:
        """Look at every case that is due."""
        due: list[Inquiry] = []
        while self.next_deadline <= now:
            inquiry = self._open[heapq.heappop(self._due)[1]]
            inquiry.queued_at = math.inf
            due.append(inquiry)
        for inquiry in due:
            node_id = inquiry.case.subject
            if self._open.get(node_id) is inquiry:
                self._work(self._table.records[node_id], inquiry, now)

    def explain(self, record: Record, now: float) -> str:
        """In words, what its status rests on: who saw what, when."""
        names = self._table.name_of
        if record is self._table.me:
            return "this node"
        if record.status is MemberStatus.LEFT:
            return f"it said that it leaves, {ago(now - record.since)}"
        case = self._known(record)
        if case is not None and (case.pings_lost or record.status is not MemberStatus.ALIVE):
            reached_by = record.reached_by if record.reached_at >= case.opened_at else ""
            words = describe(case, names, self._table.me.node_id, now, reached_by=reached_by, reached_at=record.reached_at)
            if record.stream and case.opened_at > record.stream_heard > -math.inf:
                words += f"; the last that came over its stream: {ago(now - record.stream_heard)}"
            by_another = record.accuser not in ("", self._table.me.node_id) and record.accuser not in case.others
            return f"{words}; {self._accused(record, now)}" if by_another else words
        if record.status is not MemberStatus.ALIVE:
            if not record.accuser:
                return "not heard of yet"
            return self._accused(record, now)
        if record.reached_at > record.last_contact:
            return f"{names(record.reached_by)} reached it {ago(now - record.reached_at)}; it does not answer this node"
        if not record.last_contact or record.last_contact < record.since:
            return "it said so itself"
        blocked = " over its stream; UDP does not get through" if record.udp_blocked else ""
        return f"it answered {ago(now - record.last_contact)}{blocked}"

    def _accused(self, record: Record, now: float) -> str:
        found = FOUND[record.kind] if record.kind else "unresponsive"
        return f"{self._table.name_of(record.accuser)} found it {found} {ago(now - record.since)}"

    def _known(self, record: Record) -> Case | None:
        """What is held against it: the open case, over what a former one had found unless it has answered since."""
        inquiry, former = self._open.get(record.node_id), self._closed.get(record.node_id)
        over = record.status is MemberStatus.ALIVE or inquiry is not None  # a case opened since; of a dead one there is none
        if former is not None and over and record.last_contact >= former.opened_at:
            former = None
        if inquiry is None or former is None:
            return inquiry.case if inquiry else former
        case = inquiry.case
        return Case(
            case.subject,
            min(case.opened_at, former.opened_at),
            pings_lost=case.pings_lost + former.pings_lost,
            own_connect=case.own_connect or former.own_connect,
            others={**former.others, **case.others},
        )

    def check(self) -> None:
        """Assert every invariant."""
        for node_id in self._open:
            assert self._table.records[node_id].status in (MemberStatus.ALIVE, MemberStatus.SUSPECT)
        assert set(self._probe_of.values()) <= set(self._open)
        assert all(i.queued_at <= i.due_at for i in self._open.values())

    # ---- the work on one case ---------------------------------------------------------------------------------------

    def _start(self, record: Record, opened_at: float) -> Inquiry:
        inquiry = Inquiry(Case(record.node_id, opened_at), math.inf)
        self._open[record.node_id] = inquiry
        self.counters["cases_opened"] += 1
        return inquiry

    def _take_probe(self, probe_id: int) -> tuple[Record | None, Inquiry | None]:
        node_id = self._probe_of.pop(probe_id, None)
        if node_id is None:
            return None, None
        return self._table.records.get(node_id), self._open.get(node_id)

    def _work(self, record: Record, inquiry: Inquiry, now: float) -> None:
        repeat_s = self._config.case_repeat_s * self._health.factor
        if now >= inquiry.ask_at:
            seldom = _ACCEPTED_REPEAT if inquiry.case.own_connect == "accepted" else 1
            inquiry.ask_at = now + repeat_s * seldom
            inquiry.ping_at = now
            self._ask_helpers(record, inquiry, now)
            self._ask_over_stream(record, inquiry)
        if now >= inquiry.ping_at:
            inquiry.ping_at = now + repeat_s
            if not self._prober.in_flight(record.node_id):
                self._prober.ping(record, now)
        if now >= inquiry.connect_at:
            inquiry.connect_at = math.inf
            if not inquiry.connect_id:
                inquiry.connect_id = self._note_probe(record, inquiry)
                self._outbox.emit(
                    TryConnect(inquiry.connect_id, record.node_id, record.address, self._config.connect_timeout_s)
                )
        self._judge(record, inquiry, now)
        self._plan(inquiry)

    def _plan(self, inquiry: Inquiry) -> None:
        if inquiry.due_at < inquiry.queued_at:
            inquiry.queued_at = inquiry.due_at
            heapq.heappush(self._due, (inquiry.queued_at, inquiry.case.subject))

    def _ask_helpers(self, record: Record, inquiry: Inquiry, now: float) -> None:
        helpers = [r for r in self._table.present() if r is not record and r.status is MemberStatus.ALIVE]
        case = inquiry.case
        for helper in self._rng.sample(helpers, min(self._config.indirect_probes, len(helpers))):
            sequence = self._prober.next_sequence()
            if helper.node_id not in case.asked:
                case.reports_expected += 1
            case.asked[helper.node_id] = None
            self._mail.post(helper, ProbeRequest(self._mail.me(now), sequence, record.node_id, record.address), now)

    def _ask_over_stream(self, record: Record, inquiry: Inquiry) -> None:
        if record.stream and not inquiry.stream_id:
            inquiry.stream_id = self._note_probe(record, inquiry)
            self._outbox.emit(PingOverStream(inquiry.stream_id, record.node_id, 4 * self._config.connect_timeout_s))

    def _expect_late_connect(self, inquiry: Inquiry) -> None:
        if inquiry.connect_id:
            self._late_connects[inquiry.connect_id] = inquiry.case.subject
            while len(self._late_connects) > _LATE_CONNECTS_MAX:
                self._late_connects.popitem(last=False)

    def _note_probe(self, record: Record, inquiry: Inquiry) -> int:
        probe_id = self._prober.next_sequence()
        self._probe_of[probe_id] = record.node_id
        inquiry.probe_ids.append(probe_id)
        if len(inquiry.probe_ids) > 16:
            self._probe_of.pop(inquiry.probe_ids.pop(0), None)
        return probe_id

    def _judge(self, record: Record, inquiry: Inquiry, now: float) -> None:
        case, config = inquiry.case, self._config
        finding = self._weigh(record, case, now)
        if finding.conclusive:
            self._count_failed(inquiry)
            self._closed[record.node_id] = case
            self.close(record.node_id)
            self._table.mark(record, MemberStatus.DEAD, finding.kind, now)
            return
        failed_at = case.opened_at + (config.direct_timeout_s + config.suspect_after_s) * self._health.factor
        suspect_at = failed_at
        if finding.kind is VerdictKind.DAEMON_STALLED:
            told_at = case.opened_at + config.stall_told_share * (finding.check_at - case.opened_at)
            suspect_at = max(failed_at, told_at, record.started_at + config.start_grace_s)
        if case.pings_lost and now >= failed_at:
            self._count_failed(inquiry)
        if case.pings_lost and now >= suspect_at:
            changed = record.status is MemberStatus.ALIVE or record.kind is not finding.kind
            if changed and record.generation > 0:
                self._table.mark(record, MemberStatus.SUSPECT, finding.kind, now)
        next_at = failed_at if now < failed_at else suspect_at
        inquiry.wake_at = next_at if now < next_at else max(finding.check_at, now + config.case_repeat_s)
        if now < finding.check_at < inquiry.wake_at:
            inquiry.wake_at = finding.check_at

    def _weigh(self, record: Record, case: Case, now: float) -> Finding:
        around = Circumstances(
            heard_at=max(record.last_heard, record.stream_heard),
            observers_possible=len(self._table.present()) - 1,
            health_factor=self._health.factor,
            members=self._table.size,
            patience=record.patience,
        )
        return weigh(case, around, self._config, now)

    def _count_failed(self, inquiry: Inquiry) -> None:
        """A probe that nobody answered, counted once per case."""
        if not inquiry.failed_counted:
            inquiry.failed_counted = True
            case = inquiry.case
            self._health.on_failed_probe(
                reports_expected=case.reports_expected, reports_received=case.reports_received
            )
