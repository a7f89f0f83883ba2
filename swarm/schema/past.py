"""The JSON shapes of the past: rows of a history, a state as it was, and what differs between two states. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarm.model.archived import Archived
from swarm.model.assignment import Assignment
from swarm.model.entry import Configuration
from swarm.model.ids import NodeId, TaskId
from swarm.model.node import Node
from swarm.model.outcome import Event
from swarm.model.resources import Resources
from swarm.model.task import Task
from swarm.schema.shapes import Shape, spec_object, task_object


@dataclass(frozen=True, slots=True)
class Tables:
    """The catalog's records at one index. Copies: they stay as they are."""

    index: int
    time_utc: float
    tasks: Mapping[TaskId, Task]
    assignments: Mapping[str, Assignment]
    nodes: Mapping[NodeId, Node]
    reserved: Mapping[NodeId, Resources]
    configuration: Configuration


def history_row(record: Archived, event: Event | None, *, by: str, by_node: str) -> Shape:
    """One change, or the refusal of one (`event` is None)."""
    entry = record.entry
    return {
        "index": entry.index,
        "time_utc": entry.time_utc,
        "kind": event.kind if event is not None else entry.kind,
        "text": event.text if event is not None else f"refused: {record.refused}",
        "subjects": list(event.subjects) if event is not None else [],
        "fields": event.fields if event is not None else {},
        "refused": event is None,
        "by": by,
        "by_node_id": by_node or None,
        "request_id": entry.request_id or None,
        "term": entry.term,
    }


def task_row(tables: Tables, task: Task) -> Shape:
    """As in `task ls`, but for what gossip and the scheduler would add: they keep no past."""
    assignment = tables.assignments.get(task.assignment)
    return task_object(task, assignment, tables.nodes.get(assignment.node_id) if assignment is not None else None)


def node_row(tables: Tables, node: Node) -> Shape:
    """What the log said of a node. Whether it answered is gossip's, which keeps no past: `verdict` is what was decided."""
    reserved = tables.reserved.get(node.id, Resources())
    voters = {voter.node_id for voter in tables.configuration.voters}
    running = sum(1 for each in tables.assignments.values() if each.node_id == node.id and _counts(tables, each))
    return {
        "id": node.id,
        "name": node.name,
        "address": node.address,
        "role": "voter" if node.id in voters else "learner",
        "availability": node.availability.value,
        "verdict": node.verdict.kind.value,
        "evidence": node.verdict.evidence,
        "labels": dict(node.labels),
        "arch": node.arch,
        "os": node.os,
        "engine_version": node.engine_version,
        "tasks": running,
        "cpus": node.capacity.cpu_millicores / 1000,
        "cpus_reserved": reserved.cpu_millicores / 1000,
        "memory": node.capacity.memory_bytes,
        "memory_reserved": reserved.memory_bytes,
    }


def _counts(tables: Tables, assignment: Assignment) -> bool:
    """Whether it has not ended, nor been replaced elsewhere while its node was dead: what is left of it there is stopped when the
    node comes back."""
    task = tables.tasks.get(assignment.task_id)
    is_newest = task is not None and task.assignment == assignment.id
    return not assignment.ended and (is_newest or not assignment.unreachable_since_index)


def difference(before: Tables, after: Tables, *, limit: int) -> Shape:
    """What was added, removed, moved or changed on the way from one state to the other; at most `limit` rows of each kind."""
    tasks = {"added": [], "removed": [], "moved": [], "changed": []}  # type: dict[str, list[Shape]]
    for task_id in _ids(before.tasks, after.tasks):
        old, new = before.tasks.get(task_id), after.tasks.get(task_id)
        if new is None and old is not None:
            tasks["removed"].append(task_row(before, old))
        elif old is None and new is not None:
            tasks["added"].append(task_row(after, new))
        elif old is not None and new is not None:
            _compare_task(before, old, after, new, tasks)
    nodes = {"added": [], "removed": [], "changed": []}  # type: dict[str, list[Shape]]
    for node_id in _ids(before.nodes, after.nodes):
        was, now = before.nodes.get(node_id), after.nodes.get(node_id)
        if now is None and was is not None:
            nodes["removed"].append(node_row(before, was))
        elif was is None and now is not None:
            nodes["added"].append(node_row(after, now))
        elif was is not None and now is not None:
            fields = _changes(node_row(before, was), node_row(after, now))
            if fields:
                nodes["changed"].append({"id": node_id, "name": now.name, "fields": fields})
    return {
        "from": {"index": before.index, "time_utc": before.time_utc},
        "to": {"index": after.index, "time_utc": after.time_utc},
        "tasks": {kind: rows[:limit] for kind, rows in tasks.items()},
        "nodes": {kind: rows[:limit] for kind, rows in nodes.items()},
        "totals": {
            "tasks": {kind: len(rows) for kind, rows in tasks.items()},
            "nodes": {kind: len(rows) for kind, rows in nodes.items()},
        },
    }


def _compare_task(before: Tables, old: Task, after: Tables, new: Task, into: dict[str, list[Shape]]) -> None:
    """A task that runs elsewhere has moved; what else differs stands beside it."""
    was, now = before.assignments.get(old.assignment), after.assignments.get(new.assignment)
    if old == new and was == now:
        return
    old_row, new_row = task_row(before, old), task_row(after, new)
    fields = _changes(old_row, new_row) | _changes(spec_object(old.spec), spec_object(new.spec))
    if not fields:
        return
    row = {"id": new.id, "name": new.spec.name, "from_node": old_row["node"], "to_node": new_row["node"], "fields": fields}
    has_moved = was is not None and now is not None and was.node_id != now.node_id
    into["moved" if has_moved else "changed"].append(row)


def _changes(old: Shape, new: Shape) -> dict[str, Any]:
    """Fields of two equal shapes that differ: name -> [old, new]."""
    return {name: [old[name], value] for name, value in new.items() if old[name] != value}


def _ids(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> list[Any]:
    """Both tables' keys, in order, each once."""
    return [*before, *(key for key in after if key not in before)]
