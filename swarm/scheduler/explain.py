"""Why a task has no running container: computed on the node that is asked, from its own view, never logged.

For a waiting task every node is asked for its first fault; equal faults are counted, and for a shortage the best node's
amount is told, so that one line says what would help:
`cannot place task 'web.2': no feasible node (5 lack memory: need 512 MiB, most available 310 MiB)`.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from swarm.model.ids import NodeId, TaskId
from swarm.model.node import VerdictKind
from swarm.model.phase import Desired, Phase
from swarm.model.placement import Explanation
from swarm.model.resources import Resources
from swarm.model.task import Task
from swarm.model.view import ClusterView
from swarm.scheduler.feasible import Fault, log_fault, presence_fault, room_fault, shown, wish_of

_PHRASES = {
    "dead": ("is dead", "are dead"),
    "witness": ("is a witness", "are witnesses"),
    "former node": ("is where it is moving away from", "are where it is moving away from"),
    "not seen": ("is not seen by gossip", "are not seen by gossip"),
    "not alive": ("is not alive by gossip", "are not alive by gossip"),
    "paused": ("announced a pause", "announced a pause"),
    "engine": ("has no working engine", "have no working engine"),
    "silent": ("is silent towards the leader", "are silent towards the leader"),
}


def explain(view: ClusterView, task_id: TaskId) -> Explanation:
    """Why this task is where it is. `task_id` must be in the view. O(nodes)."""
    task = view.tasks[task_id]
    name = task.spec.name
    if task.ended:
        return Explanation(f"task {name!r} has ended{': ' + task.reason if task.reason else ''}")
    current = view.assignments.get(task.assignment)
    if current is not None and not current.ended:
        node = view.nodes.get(current.node_id)
        where = node.name if node is not None else current.node_id
        if current.unreachable_since_index:
            kind = (node.verdict.kind if node is not None else VerdictKind.HOST_SILENT).value.replace("_", " ")
            why = task.reason or "it is replaced after the grace for this kind of death"
            return Explanation(f"task {name!r} is on node {where!r}, which is dead ({kind}): {why}")
        why = f": {current.reason}" if current.reason else ""
        word = "running" if current.phase is Phase.RUNNING else current.phase.value
        return Explanation(f"task {name!r} is {word} on node {where!r}{why}")
    if task.desired is Desired.STOPPED:
        return Explanation(f"task {name!r} is to stop")
    return _why_waiting(view, task)


def _why_waiting(view: ClusterView, task: Task) -> Explanation:
    wish = wish_of(task)
    faults: dict[NodeId, Fault | None] = {}
    for node_id, node in view.nodes.items():
        free = node.capacity.minus(view.reserved.get(node_id, Resources()))
        fault = log_fault(node, wish) or presence_fault(view, node_id)
        faults[node_id] = fault or room_fault(free, view.ports_taken.get(node_id, {}), wish)
    by_name = sorted(faults, key=lambda node_id: (view.nodes[node_id].name, node_id))
    found = [(node_id, faults[node_id]) for node_id in by_name]
    nodes = tuple((node_id, fault.text if fault is not None else "feasible") for node_id, fault in found)
    name = task.spec.name
    if any(fault is None for _, fault in found):
        return Explanation(f"task {name!r} waits for the leader to place it", nodes)
    if task.pinned_node:
        return Explanation(f"cannot place task {name!r}: {_pinned(view, task, faults)}", nodes)
    counted = _counted([fault for _, fault in found if fault is not None])
    return Explanation(f"cannot place task {name!r}: no feasible node ({counted})", nodes)


def _pinned(view: ClusterView, task: Task, faults: dict[NodeId, Fault | None]) -> str:
    node = view.nodes.get(task.pinned_node)
    if node is None:
        return f"its data was on node {task.pinned_node}, which was removed; remove the task and submit it anew"
    fault = faults[node.id]
    return f"its data is on node {node.name!r}, which is not available ({fault.text if fault is not None else 'feasible'})"


def _counted(faults: list[Fault]) -> str:
    groups: dict[str, list[Fault]] = {}
    for fault in faults:
        groups.setdefault(fault.group, []).append(fault)
    parts = [_part(group, members) for group, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))]
    return "; ".join(parts) or "there is no node"


def _part(group: str, members: list[Fault]) -> str:
    first, count = members[0], len(members)
    one = count == 1
    if first.resource:
        best = max(fault.available for fault in members)
        verb = "lacks" if one else "lack"
        need, most = shown(first.resource, first.wanted), shown(first.resource, best)
        return f"{count} {verb} {first.resource}: need {need}, most available {most}"
    if group in _PHRASES:
        return f"{count} {_PHRASES[group][0 if one else 1]}"
    if group.startswith("constraint "):
        return f"{count} {'does' if one else 'do'} not meet {group.removeprefix('constraint ')}"
    if group.startswith("port "):
        return f"{count} {'has' if one else 'have'} host {group} taken"
    return f"{count} {'is' if one else 'are'} {group}"
