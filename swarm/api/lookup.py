"""From what people write to the record they mean: an id, a name, or the beginning of an id that is unique."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from swarm.api.face import CatalogRead, NodeFace
from swarm.errors import NotFound
from swarm.model.assignment import Assignment
from swarm.model.ids import NodeId, TaskId
from swarm.model.node import Availability, Node
from swarm.model.task import Task
from swarm.schema.quantities import shown

SELF = "self"
NAMES_COMPARED_MAX = 300
"""Comparing a name takes some 15 us: beyond this nobody is told which other one may have been meant."""


def find_task(catalog: CatalogRead, reference: str) -> Task:
    """Raises `NotFound`. Of several tasks with one name, the one that has not ended; else the newest. Cost O(tasks)."""
    task = catalog.tasks.get(TaskId(reference))
    if task is not None:
        return task
    tasks = catalog.tasks.values()
    named = [task for task in tasks if task.spec.name == reference]
    if named:
        return max(named, key=lambda task: (not task.ended, task.created_index, task.id))
    begun = [task for task in tasks if reference and task.id.startswith(reference)]
    if len(begun) == 1:
        return begun[0]
    raise _not_found("task", reference, [t.id for t in begun], (t.spec.name for t in tasks), "swarm task ls")


def find_node(face: NodeFace, reference: str) -> Node:
    """Raises `NotFound`. `self` is the node asked. Cost O(nodes)."""
    nodes = face.catalog.nodes
    node = nodes.get(face.node_id if reference == SELF else NodeId(reference))
    if node is not None:
        return node
    named = [node for node in nodes.values() if node.name == reference]
    present = [node for node in named if node.availability is not Availability.LEFT]
    if len(present or named) == 1:
        return (present or named)[0]
    begun = named or [node for node in nodes.values() if reference and node.id.startswith(reference)]
    if len(begun) == 1:
        return begun[0]
    raise _not_found("node", reference, [n.id for n in begun], (n.name for n in nodes.values()), "swarm node ls")


def current_assignment(catalog: CatalogRead, task: Task) -> Assignment | None:
    """The newest attempt, if there was one and it is still kept."""
    return catalog.assignments.get(task.assignment) if task.assignment else None


def _not_found(what: str, reference: str, begun: list[str], names: Iterable[str], listing: str) -> NotFound:
    if len(begun) > 1:
        several = ", ".join(sorted(begun)[:5])
        return NotFound(f"{shown(reference)} means several {what}s", cause=several, hint="write more of the id")
    known = sorted(set(names))
    near = difflib.get_close_matches(reference, known, n=3) if len(known) <= NAMES_COMPARED_MAX else []
    hint = f"did you mean {' or '.join(near)}?" if near else f"{listing} shows what there is"
    return NotFound(f"there is no {what} {shown(reference)}", hint=hint)
