"""An assignment: one attempt of a task on one node, numbered, never reused."""

from __future__ import annotations

import msgspec

from swarm.model.ids import NodeId, TaskId
from swarm.model.phase import ENDS, Desired, Phase


def assignment_id(task_id: TaskId, attempt: int) -> str:
    """`<task id>.<attempt>`."""
    return f"{task_id}.{attempt}"


class Assignment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The replicated record. `desired` is the leader's; `phase` and what follows are the runner's reports.

    Invariant: once `phase` is an end, nothing changes but removal.
    """

    id: str
    task_id: TaskId
    attempt: int
    node_id: NodeId
    desired: Desired
    phase: Phase
    index: int
    """Log index of the entry that made it: the fence for everything done on its behalf."""
    term: int
    task_revision: int = 1
    report_sequence: int = 0
    """Sequence of the newest report applied; reports at or below it are dropped."""
    container_id: str = ""
    exit_code: int | None = None
    reason: str = ""
    restarts: int = 0
    started_utc: float = 0.0
    changed_utc: float = 0.0
    unreachable_since_index: int = 0
    """Set when the leader's verdict found its node dead; 0 while reachable. The phase is kept."""

    @property
    def ended(self) -> bool:
        """Whether the phase is final."""
        return self.phase in ENDS
