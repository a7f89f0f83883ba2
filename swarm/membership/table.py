"""The table of members: one record each, merged from claims by one order.

A claim beats another by (generation, incarnation, status), statuses in the order alive, suspect, dead, left (SWIM, section 4.2,
with a generation in front, so that a restarted daemon wins at once). The order is total, so merging is taking the maximum: in
whatever order claims arrive, and however often, the same belief remains. Dead is refutable, like suspect: a member that hears it
raises its incarnation above the accusation.

Promises: only admitted ids have a record; a record's (generation, incarnation, status) only ever grows, but for the marks of this
node's own detector, which move the status up within one incarnation; every change is told by `MemberChanged`.
Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from swarm.machine import Outbox
from swarm.membership.broadcast import Broadcasts
from swarm.membership.effects import Effect, MemberChanged
from swarm.membership.messages import PAUSE_S_MAX, Claim
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, MemberView, Sample
from swarm.model.node import VerdictKind

_id_of = attrgetter("node_id")
RANK = {MemberStatus.ALIVE: 0, MemberStatus.SUSPECT: 1, MemberStatus.DEAD: 2, MemberStatus.LEFT: 3}
_PRESENT = (MemberStatus.ALIVE, MemberStatus.SUSPECT)

PATIENCE_MAX = 8
"""A daemon that is up to half a minute late is not called dead again and again: 40 to 80 s, as for Lifeguard's own score."""


def claim_order(claim: Claim) -> tuple[int, int, int]:
    """What decides between two claims about one member."""
    return claim.generation, claim.incarnation, RANK[claim.status]


@dataclass(slots=True, eq=False)
class Record:
    """What this node believes about one member. Times are this host's CLOCK_BOOTTIME seconds."""

    node_id: NodeId
    name: str
    address: str
    generation: int
    incarnation: int
    status: MemberStatus
    since: float
    started_at: float = -math.inf
    """When this node first heard of its present generation."""
    last_contact: float = 0.0
    """Last answer to a ping of ours, over UDP or a stream."""
    last_heard: float = 0.0
    """Last packet of any kind that it sent us: proves its host, not that it hears us."""
    reached_at: float = 0.0
    """When a helper last reached it for us, and which."""
    reached_by: str = ""
    paused_until: float = 0.0
    kind: VerdictKind | None = None
    accuser: str = ""
    accusation: Claim | None = None
    """What another says of it and we do not believe, since it answered us just now: it is told, and should refute."""
    declared: str = ""
    """Its address as the catalog last had it."""
    rtt_s: float = 0.0
    patience: int = 1
    """How many times the usual suspicion it has before it counts as stalled, 1 to `PATIENCE_MAX`: doubled when it refutes that it
    has, since it was late and not dead, and one less with each answer in time."""
    stream: bool = False
    stream_heard: float = -math.inf
    """When anything last came over a stream, as far as was asked: like `last_heard` it proves the host."""
    twin_at: float = -math.inf
    twin_address: str = ""
    """When it last turned up at two addresses, and the other one: it moved, or a second daemon has its identity."""
    udp_blocked: bool = False
    """It answers over its stream and not over UDP: a condition to show to people."""
    told: Claim | None = None
    """The claim last made of this record, to be used again while it still says the same."""

    @property
    def order(self) -> tuple[int, int, int]:
        """As `claim_order`."""
        return self.generation, self.incarnation, RANK[self.status]


class Table:
    """All records but this node's own in `records`; its own is `me`."""

    def __init__(self, me: Record, outbox: Outbox[Effect], broadcasts: Broadcasts) -> None:
        self.me = me
        self.records: dict[NodeId, Record] = {}
        self.explain: Callable[[Record, float], str] = lambda record, now: ""
        """Says in words what the status rests on; set by the core."""
        self.sample_of: Callable[[NodeId], Sample | None] = lambda node_id: None
        self._outbox = outbox
        self._broadcasts = broadcasts
        self.size = 1
        """Members present, this one included."""
        self._present: list[Record] = []

    def present(self) -> list[Record]:
        """Alive and suspect members but this one, by id. O(1); do not modify, and copy it before anything may change."""
        return self._present

    def dead(self) -> list[Record]:
        """Dead members by id. O(N)."""
        return [self.records[i] for i in sorted(self.records) if self.records[i].status is MemberStatus.DEAD]

    def name_of(self, node_id: str) -> str:
        """Its name, or the beginning of its id."""
        record = self.me if node_id == self.me.node_id else self.records.get(NodeId(node_id))
        return record.name if record else node_id[:8]

    def add(self, node_id: NodeId, name: str, address: str, now: float) -> Record:
        """An admitted member not heard of yet: suspect until it answers, at generation 0 so that any word of its own wins."""
        record = Record(node_id, name, address, 0, 0, MemberStatus.SUSPECT, now, declared=address)
        self.records[node_id] = record
        self._now_present(record)
        self._tell(None, record, now)
        return record

    def broadcast(self, record: Record) -> None:
        """There is news of it: pass it on."""
        self._broadcasts.put(record.node_id)

    def remove(self, node_id: NodeId, now: float) -> None:
        """No member any more."""
        record = self.records.pop(node_id)
        if record.status in _PRESENT:
            self._no_longer_present(record)
        self._broadcasts.forget(node_id)
        view = self.view(record, now)
        self._outbox.emit(MemberChanged(view, view, "no longer admitted", removed=True))

    def claim(self, record: Record, now: float) -> Claim:
        """What to tell others about it."""
        told, paused_s = record.told, 0.0
        if record.paused_until:
            paused_s = min(PAUSE_S_MAX, max(0.0, round(record.paused_until - now, 3)))
        if (
            told is None
            or told.incarnation != record.incarnation
            or told.status is not record.status
            or told.generation != record.generation
            or told.accuser != record.accuser
            or told.kind is not record.kind
            or told.paused_s != paused_s
            or told.address != record.address
            or told.name != record.name
        ):
            told = record.told = Claim(
                record.node_id, record.generation, record.incarnation, record.status, record.name, record.address,
                record.accuser, record.kind, paused_s,
            )  # fmt: skip
        return told

    def adopt(self, record: Record, claim: Claim, now: float) -> bool:
        """Take over a claim if it prevails over what is believed. Returns whether it did."""
        if claim.incarnation == record.incarnation and claim.status is record.status and claim.generation == record.generation:
            return False  # nearly all of them
        if claim_order(claim) <= record.order:
            return False
        old = self.view(record, now)
        if claim.generation > record.generation or claim.status is MemberStatus.ALIVE:
            record.paused_until = now + claim.paused_s if claim.paused_s > 0 else 0.0
        if claim.generation > record.generation:
            record.started_at, record.patience = now, 1
        elif claim.status is MemberStatus.ALIVE and record.kind is VerdictKind.DAEMON_STALLED:
            record.patience = min(PATIENCE_MAX, 2 * record.patience)
        record.generation, record.incarnation = claim.generation, claim.incarnation
        record.name, record.address = claim.name, claim.address
        if record.accusation is not None and claim_order(record.accusation) <= claim_order(claim):
            record.accusation = None
        self._set_status(record, claim.status, claim.kind, claim.accuser, now)
        self._broadcasts.put(record.node_id)
        self._tell(old, record, now)
        return True

    def mark(self, record: Record, status: MemberStatus, kind: VerdictKind | None, now: float) -> None:
        """This node's own detector accuses: status goes up within the incarnation."""
        assert RANK[status] >= RANK[record.status], f"{record.status} cannot become {status} without the member's own word"
        old = self.view(record, now)
        self._set_status(record, status, kind, self.me.node_id, now)
        self._broadcasts.put(record.node_id)
        self._tell(old, record, now)

    def view(self, record: Record, now: float) -> MemberView:
        """The frozen form, for controllers and people."""
        return MemberView(
            node_id=record.node_id,
            name=record.name,
            address=record.address,
            status=record.status,
            generation=record.generation,
            incarnation=record.incarnation,
            since=record.since,
            last_contact=now if record is self.me else record.last_contact,
            death_kind=record.kind if record.status is MemberStatus.DEAD else None,
            evidence=self.explain(record, now),
            paused_until=record.paused_until,
            rtt_s=record.rtt_s,
            sample=self.sample_of(record.node_id),
        )

    def check(self) -> None:
        """Assert every invariant."""
        assert self.me.node_id not in self.records
        for record in self.records.values():
            assert (record.kind is not None) or record.status is not MemberStatus.DEAD, "death has a kind"
            assert record.status is not MemberStatus.ALIVE or record.kind is None
        assert self.size == len(self._present) + 1
        assert self.present() == [self.records[i] for i in sorted(self.records) if self.records[i].status in _PRESENT]

    def _set_status(self, record: Record, status: MemberStatus, kind: VerdictKind | None, accuser: str, now: float) -> None:
        if status is not record.status:
            record.since = now
        was_present, is_present = record.status in _PRESENT, status in _PRESENT
        record.status = status
        accused = status in (MemberStatus.SUSPECT, MemberStatus.DEAD)
        record.kind = kind if accused else None
        if status is MemberStatus.DEAD and record.kind is None:
            record.kind = VerdictKind.DAEMON_STALLED  # an accuser that did not say why: the kind that justifies least
        record.accuser = accuser if accused else ""
        if is_present and not was_present:
            self._now_present(record)
        elif was_present and not is_present:
            self._no_longer_present(record)

    def _now_present(self, record: Record) -> None:
        insort(self._present, record, key=_id_of)
        self.size += 1

    def _no_longer_present(self, record: Record) -> None:
        del self._present[bisect_left(self._present, record.node_id, key=_id_of)]
        self.size -= 1

    def _tell(self, old: MemberView | None, record: Record, now: float) -> None:
        new = self.view(record, now)
        self._outbox.emit(MemberChanged(old, new, new.evidence))
