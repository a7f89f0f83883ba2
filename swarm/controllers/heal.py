"""Settling a task that has two copies: after a drain, or because a node that was thought dead came back.

A returning node stops nothing by itself. While the replacement does not run yet, and the old copy does, the replacement is
cancelled and the old one kept; once the replacement runs, the old one stops. When the new copy's node dies while the old one is
still there (a drain in progress), the old one is kept, whatever its phase: the drain begins anew from it.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from swarm.model.assignment import Assignment
from swarm.model.command import StopAssignment
from swarm.model.node import Availability, VerdictKind
from swarm.model.phase import Desired, Phase
from swarm.model.view import ClusterView


def settle_moves(view: ClusterView) -> list[StopAssignment]:
    """Which of two copies stops, for every task that has two."""
    commands = []
    for task_id in view.moving:
        task = view.tasks[task_id]
        old, new = view.assignments.get(task.previous), view.assignments.get(task.assignment)
        if old is None or new is None or old.ended or task.desired is not Desired.RUNNING:
            continue
        command = _settle(view, old, new)
        if command is not None:
            commands.append(command)
    return commands


def _settle(view: ClusterView, old: Assignment, new: Assignment) -> StopAssignment | None:
    if new.phase is Phase.RUNNING and not new.unreachable_since_index:
        if old.desired is Desired.STOPPED:
            return None
        return StopAssignment(old.id, f"replaced by attempt {new.attempt}")
    if new.desired is Desired.STOPPED or old.desired is Desired.STOPPED or old.unreachable_since_index:
        return None
    if new.unreachable_since_index:
        return StopAssignment(new.id, f"its node died while attempt {old.attempt} was still there", keep=old.id)
    if not _is_well(view, old):
        return None
    return StopAssignment(new.id, f"attempt {old.attempt} came back and still runs", keep=old.id)


def _is_well(view: ClusterView, old: Assignment) -> bool:
    """Whether the old copy runs, on a node that is alive and not being drained."""
    node = view.nodes.get(old.node_id)
    return (
        node is not None
        and node.availability is Availability.ACTIVE
        and node.verdict.kind is VerdictKind.ALIVE
        and old.phase is Phase.RUNNING
    )
