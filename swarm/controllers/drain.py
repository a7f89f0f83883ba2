"""Draining: a node's work is placed elsewhere first, and stops here only once the new copy runs (`heal`).

A pinned task cannot move: its data is here. It is stopped last, when nothing that can move is left, and then waits, pending,
for the node to take work again.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from swarm.model.command import StopAssignment
from swarm.model.ids import NodeId
from swarm.model.node import Availability, VerdictKind
from swarm.model.phase import Desired
from swarm.model.placement import Replacement
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
        if task.spec.pins:
            pinned.append(StopAssignment(assignment_id, f"{name} is drained, and its data stays there"))
            continue
        movable += 1
        if task.assignment == assignment_id and not task.previous:
            replacements.append(Replacement(task.id, assignment_id, node_id, f"{name} is drained"))
    if movable == 0:
        stops.extend(pinned)
