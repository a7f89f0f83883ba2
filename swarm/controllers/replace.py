"""Replacing: when a dead node's work is to run elsewhere, and when it waits.

| verdict | replaced |
| --- | --- |
| host silent | at once |
| daemon gone | 30 s after this leader first saw the verdict: the containers are presumed to run |
| daemon stalled | 90 s after it: they are presumed to run, and the daemon to be slow |
| confirmed by an operator | at once, brake or not |

Never before the end of an announced pause, never while the brake holds. A task that is pinned by its data, or was submitted with
`--on-node-loss wait`, waits for its node and says so.

Promise: an overloaded or upgraded node does not lose its containers, because only a silent host's work moves at once.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.controllers.verdict import BRAKE_WAIT_S
from swarm.model.assignment import Assignment
from swarm.model.command import SetReason
from swarm.model.ids import NodeId
from swarm.model.node import Node, VerdictKind
from swarm.model.phase import Desired
from swarm.model.placement import Replacement
from swarm.model.task import NodeLossKind, Task
from swarm.model.view import ClusterView

DAEMON_GRACE_S = 30.0
"""For a daemon that is gone: time to start it again, or for an upgrade that forgot to announce itself."""
STALL_GRACE_S = 90.0
"""For one whose kernel accepts while it does not speak: a daemon that was stopped for a minute has lost nothing, and loses
nothing (5 s of suspicion come on top). Longer leaves the work of a host that hangs for good undone."""
REASONS_MAX = 256
"""Reasons written down in one step; the rest follow in the next."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a controller wants: placements for the scheduler to find, and reasons to write down."""

    replacements: tuple[Replacement, ...] = ()
    reasons: tuple[SetReason, ...] = ()
    next_look: float = float("inf")
    """When something that waits now is due, CLOCK_BOOTTIME seconds."""


class Replacing:
    """One leadership's memory of when it first saw each verdict."""

    def __init__(self, daemon_grace_s: float = DAEMON_GRACE_S, stall_grace_s: float = STALL_GRACE_S) -> None:
        self._grace_s = {VerdictKind.DAEMON_GONE: daemon_grace_s, VerdictKind.DAEMON_STALLED: stall_grace_s}
        self._seen_at: dict[NodeId, float] = {}

    def reconcile(self, view: ClusterView, *, brake_until: float) -> Wishes:
        """What to place again now."""
        replacements: list[Replacement] = []
        reasons: list[SetReason] = []
        next_look = float("inf")
        dead = [node_id for node_id in sorted(view.nodes) if view.nodes[node_id].verdict.kind is not VerdictKind.ALIVE]
        self._seen_at = {node_id: self._seen_at.get(node_id, view.now) for node_id in dead}
        for node_id in dead:
            due = self._due(view, view.nodes[node_id], brake_until)
            held = view.now < due
            if held:
                next_look = min(next_look, due)
            for assignment, task in _work_of(view, node_id):
                wait = _why_wait(view, task, node_id) or (self._why_held(view, node_id, brake_until) if held else None)
                if held and wait is None:
                    break
                if wait is None:
                    reason = f"{view.nodes[node_id].name} is dead ({view.nodes[node_id].verdict.kind.value})"
                    replacements.append(Replacement(task.id, assignment.id, node_id, reason))
                elif task.reason != wait and len(reasons) < REASONS_MAX:
                    reasons.append(SetReason(task.id, wait))
        return Wishes(tuple(replacements), tuple(reasons), next_look)

    def _due(self, view: ClusterView, node: Node, brake_until: float) -> float:
        if node.verdict.kind is VerdictKind.CONFIRMED:
            return view.now
        member = view.members.get(node.id)
        due = max(brake_until, member.paused_until if member is not None else 0.0)
        return max(due, self._seen_at[node.id] + self._grace_s.get(node.verdict.kind, 0.0))

    def _why_held(self, view: ClusterView, node_id: NodeId, brake_until: float) -> str | None:
        """What people should know of a wait that they can end. A grace or a pause passes by itself."""
        if view.now >= brake_until:
            return None
        node = view.nodes[node_id]
        wait_s = max(BRAKE_WAIT_S, self._grace_s.get(node.verdict.kind, 0.0))
        when = f"{wait_s:.0f} s after the last of them did, or after 'swarm node confirm-dead {node.name}'"
        return f"waits, since most nodes fell silent at once: replaced some {when}"


def _work_of(view: ClusterView, node_id: NodeId) -> list[tuple[Assignment, Task]]:
    """The node's current copies that should run and are not yet replaced."""
    work = []
    for assignment_id in sorted(view.by_node.get(node_id, ())):
        assignment = view.assignments[assignment_id]
        task = view.tasks.get(assignment.task_id)
        if task is None or task.ended or task.desired is not Desired.RUNNING or task.assignment != assignment_id:
            continue
        previous = view.assignments.get(task.previous)
        if previous is not None and not previous.unreachable_since_index:
            continue  # an older copy is in reach: it is kept, or has to end first (`heal`)
        if assignment.desired is Desired.RUNNING:
            work.append((assignment, task))
    return work


def _why_wait(view: ClusterView, task: Task, node_id: NodeId) -> str | None:
    name = view.nodes[node_id].name
    if task.spec.on_node_loss is NodeLossKind.WAIT:
        return f"waits for {name}, which is dead: it was submitted with --on-node-loss wait"
    if task.spec.pins:
        return f"waits for {name}, which is dead: its data is there (--volume-elsewhere allows an empty start)"
    return None
