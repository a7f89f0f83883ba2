"""Draining: a node's work is placed elsewhere first, and stops here only once the new copy runs (`heal`).

A pinned task cannot move: its data is here. It is stopped last, when nothing that can move is left, and then waits, pending,
for the node to take work again. A job is let run to its end: a second copy beside the first would do its work twice. A task whose
new copy failed for good stays where it is until somebody stops it: moving it again would fail again, without end.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from swarm.model.command import StopAssignment
from swarm.model.ids import NodeId
from swarm.model.node import Availability, VerdictKind
from swarm.model.phase import Desired, Phase
from swarm.model.placement import Replacement
from swarm.model.task import RestartKind, Task
from swarm.model.view import ClusterView


def drain_wishes(view: ClusterView) -> tuple[list[Replacement], list[StopAssignment]]:
    """Placements wanted for the work of draining nodes, and the pinned copies whose turn to stop has come."""
    replacements: list[Replacement] = []
    stops: list[StopAssignment] = []
    for node_id in sorted(view.nodes):
        node = view.nodes[node_id]
        if node.availability is Availability.DRAIN and node.verdict.kind is VerdictKind.ALIVE:
            _drain_one(view, node_id, replacements, stops)
    return replacements, stops


def _drain_one(view: ClusterView, node_id: NodeId, replacements: list[Replacement], stops: list[StopAssignment]) -> None:
    name = view.nodes[node_id].name
    pinned: list[StopAssignment] = []
    movable = 0
    for assignment_id in sorted(view.by_node.get(node_id, ())):
        assignment = view.assignments[assignment_id]
        task = view.tasks.get(assignment.task_id)
        if task is None or assignment.desired is not Desired.RUNNING or task.desired is not Desired.RUNNING:
            continue
        if task.spec.restart.kind is not RestartKind.ALWAYS:
            continue
        if task.spec.pins:
            pinned.append(StopAssignment(assignment_id, f"{name} is drained, and its data stays there"))
            continue
        if _failed_elsewhere(task, assignment.attempt):
            continue
        movable += 1
        if task.assignment == assignment_id and not _moves_already(view, task):
            replacements.append(Replacement(task.id, assignment_id, node_id, f"{name} is drained"))
    if movable == 0:
        stops.extend(pinned)


def _moves_already(view: ClusterView, task: Task) -> bool:
    """Whether another copy of it, on a node in reach, is still to end."""
    previous = view.assignments.get(task.previous)
    return previous is not None and not previous.unreachable_since_index


def _failed_elsewhere(task: Task, attempt: int) -> bool:
    """Whether a later attempt than this one has failed for good: the task fell back to this copy."""
    return any(move.attempt > attempt and move.phase is Phase.FAILED for move in task.moves)
