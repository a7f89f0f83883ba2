"""A wish for a placement that is not a pending task: a controller wants an assignment's work moved to another node."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.model.ids import NodeId, TaskId


@dataclass(frozen=True, slots=True)
class Replacement:
    """Place `task_id` again, anywhere but on `avoid`, taking over from the assignment `replaces`."""

    task_id: TaskId
    replaces: str
    avoid: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task has no running container: in one line, and for each node (sorted by name) what speaks against it."""

    summary: str
    nodes: tuple[tuple[NodeId, str], ...] = ()
