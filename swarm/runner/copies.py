"""One copy: what the runner knows and wants of one assignment and its container.

A copy begins with the replicated record (or, for a stray, with a container that nobody can name) and ends when both are gone.
`phase` and what follows is this node's own view, which the reports carry to the log; `record` is what the log shows of it.

Pure: no I/O, no clock, no randomness of its own. Promise: the phase moves only as `model.phase` allows, so that no report is
refused for going back; a restart therefore stays RESTARTING until it runs again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from swarm.model.assignment import Assignment
from swarm.model.container import ContainerSeen, ContainerStatus
from swarm.model.ids import ClusterId
from swarm.model.phase import ENDS, LEGAL_MOVES, Desired, Phase
from swarm.model.task import TaskSpec
from swarm.runner.effects import Operation

ALIVE = frozenset({ContainerStatus.RUNNING, ContainerStatus.PAUSED})
"""A paused container still holds its memory and its name: somebody paused it by hand, and it is left so."""
BROKEN = frozenset({ContainerStatus.REMOVING, ContainerStatus.DEAD})


class Holdings(msgspec.Struct, frozen=True, array_like=True):
    """What this node held at an applied index: kept by the driver beside the store, handed back at the next start."""

    cluster_id: ClusterId
    applied_index: int
    held: tuple[tuple[Assignment, TaskSpec], ...]


class Content(NamedTuple):
    """What a report says, but for its number."""

    phase: Phase
    container_id: str
    exit_code: int | None
    reason: str
    restarts: int
    started_utc: float


@dataclass(slots=True)
class ReportState:
    """What was sent for one copy, and the budget of changes that may go out at once."""

    sequence: int = 0
    content: Content | None = None
    sent_at: float = 0.0
    resends: int = 0
    tokens: float = 0.0
    tokens_at: float = 0.0


@dataclass(slots=True)
class Copy:
    """Mutable; owned by the core. Times are CLOCK_BOOTTIME seconds unless named `_utc`."""

    assignment_id: str
    record: Assignment | None
    spec: TaskSpec | None
    container: ContainerSeen | None = None
    phase: Phase = Phase.ASSIGNED
    reason: str = ""
    exit_code: int | None = None
    restarts: int = 0
    started_utc: float = 0.0
    gone: bool = False
    """Nobody wants it any more: the record was removed, or a stray's grace is over. It is stopped and removed."""
    ran: bool = False
    """It ran here, so starting it again is a restart, which the fence lets pass."""
    operation: Operation | None = None
    operation_number: int = 0
    operation_since: float = 0.0
    recheck: bool = False
    """An event told of something that only a look at the container can explain."""
    waiting: bool = False
    """Another start is due at `try_at`. Invariant: an exit is judged once, which sets this or an end."""
    try_at: float = 0.0
    hold_until: float = 0.0
    """The engine could not do something: nothing is asked of it for this copy before."""
    troubles: int = 0
    wedged: int = 0
    """How often in a row the engine could not start this container for a reason of its own. Past a few it is made anew."""
    streak: int = 0
    running_since: float = 0.0
    touched_at: float = 0.0
    """When an event or an operation last told of the container: lists asked for before are older."""
    changed_at: float = 0.0
    first_seen: float = 0.0
    report: ReportState = field(default_factory=ReportState)
    task_id: str = ""
    attempt: int = 0

    def __post_init__(self) -> None:
        self.task_id, _, number = self.assignment_id.rpartition(".")
        self.attempt = int(number)

    @property
    def alive(self) -> bool:
        """Its container runs."""
        return self.container is not None and self.container.status in ALIVE

    @property
    def lost(self) -> bool:
        """The log gave its task to another assignment while this node was out of reach."""
        return self.record is not None and self.record.phase is Phase.LOST

    @property
    def ended(self) -> bool:
        """Over, here or in the log; a lost one is not, as far as this node's container goes."""
        return self.phase in ENDS

    @property
    def wanted(self) -> bool:
        """It should run."""
        return (
            self.record is not None
            and self.record.desired is Desired.RUNNING
            and not (self.gone or self.ended or self.lost)
        )

    def content(self) -> Content:
        """What a report would say now."""
        container_id = self.container.container_id if self.container is not None else self.recorded_container
        return Content(self.phase, container_id, self.exit_code, self.reason, self.restarts, self.started_utc)

    @property
    def recorded_container(self) -> str:
        return self.record.container_id if self.record is not None else ""

    def move(self, phase: Phase, now: float, *, reason: str = "") -> None:
        """Go to `phase` where that is a legal move; the reason is taken either way."""
        if phase is not self.phase and phase in LEGAL_MOVES[self.phase]:
            self.phase = phase
        self.reason = reason
        self.changed_at = now


def adopt(record: Assignment, spec: TaskSpec, now: float) -> Copy:
    """A copy as the log shows it, before anything is known of its container."""
    copy = Copy(
        assignment_id=record.id,
        record=record,
        spec=spec,
        phase=record.phase,
        reason=record.reason if record.phase is not Phase.ASSIGNED else "",
        exit_code=record.exit_code,
        restarts=record.restarts,
        started_utc=record.started_utc,
        ran=record.started_utc > 0.0,
        waiting=record.phase is Phase.RESTARTING,
        try_at=now,
        changed_at=now,
        running_since=now,
    )
    copy.report.sequence = record.report_sequence
    if record.phase is Phase.LOST:
        copy.phase = Phase.ASSIGNED  # final in the log, but what runs here still has a story to tell
    return copy


def stray(assignment_id: str, seen: ContainerSeen, now: float) -> Copy:
    """A container of ours that no assignment explains."""
    return Copy(assignment_id=assignment_id, record=None, spec=None, container=seen, first_seen=now, changed_at=now)
