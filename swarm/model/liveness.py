"""What gossip sees of a node: observations with one writer, possibly stale, never a decision."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from swarm.model.ids import NodeId
from swarm.model.node import VerdictKind


class MemberStatus(StrEnum):
    """Gossip's belief about a member."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


class EngineState(StrEnum):
    """The state of a node's Docker Engine as its own sampler sees it; work is placed only on UP."""

    UP = "up"
    DOWN = "down"
    HUNG = "hung"
    FULL = "full"
    UNKNOWN = "unknown"


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One node's load, latest wins by (generation, sequence). Ratios in thousandths keep it small and exact on the wire."""

    node_id: NodeId
    generation: int
    sequence: int
    cpu_used_permille: int = 0
    memory_used_permille: int = 0
    disk_used_permille: int = 0
    load_permille: int = 0
    """One-minute load average per core, thousandths."""
    containers: int = 0
    engine: EngineState = EngineState.UNKNOWN
    loop_lag_ms: int = 0
    health: int = 0
    """The node's own local-health score: 0 is well, larger means that it distrusts itself."""
    disk_full: bool = False
    """Its data folder's disk takes no log entries. `engine` is FULL then too, and also where only the engine's disk is."""


class StatusChange(msgspec.Struct, frozen=True):
    """One node changed its mind about a member (or itself), and what that rests on."""

    number: int
    """Counts the changes since the observer's daemon started."""
    time_utc: float
    observer: NodeId
    subject: NodeId
    name: str
    """The subject's name."""
    old_status: MemberStatus
    status: MemberStatus
    death_kind: VerdictKind | None
    evidence: str
    about: str = ""
    """What of the observer itself this is about (`disk`), when it is no change of a status."""


class MemberView(msgspec.Struct, frozen=True):
    """What this node's membership core believes about one member, for controllers and people."""

    node_id: NodeId
    name: str
    address: str
    status: MemberStatus
    generation: int
    incarnation: int
    since: float
    """CLOCK_BOOTTIME seconds (this host's) at which the status last changed."""
    last_contact: float
    """CLOCK_BOOTTIME seconds of the last direct answer; 0 if never."""
    death_kind: VerdictKind | None = None
    evidence: str = ""
    paused_until: float = 0.0
    """A planned pause was announced: nothing is replaced before this time (this host's CLOCK_BOOTTIME)."""
    rtt_s: float = 0.0
    sample: Sample | None = None


def can_store(member: MemberView) -> bool:
    """Whether this member, as far as gossip knows, answers and has room for log entries."""
    return member.status is MemberStatus.ALIVE and (member.sample is None or not member.sample.disk_full)
