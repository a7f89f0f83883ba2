"""From what people write to the record they mean: an id, a name, or the beginning of an id that is unique."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Iterator, Sequence

import trio

from swarm.api.face import CatalogRead, NodeFace
from swarm.errors import NotFound
from swarm.model.assignment import Assignment
from swarm.model.ids import NodeId, TaskId
from swarm.model.node import Availability, Node
from swarm.model.task import Task
from swarm.schema.quantities import shown

SELF = "self"
RUN = 1000
"""Tasks whose order is found in one step: some 0.5 ms."""
SHOWN_MAX = 5
"""Of several that may be meant."""
NAMES_COMPARED_MAX = 300
"""Comparing a name takes some 15 us: beyond this nobody is told which other one may have been meant."""


async def by_age(face: NodeFace) -> Iterator[TaskId]:
    """The ids of all tasks, oldest first. Sorted in runs, with room for others in between, which the iterator merges."""
    runs: list[list[tuple[int, TaskId]]] = []
    after: TaskId | None = None
    while ids := face.catalog.task_ids(after, RUN):
        runs.append(sorted(((face.catalog.tasks[task_id].created_index, task_id) for task_id in ids), reverse=True))
        after = ids[-1]
        await trio.lowlevel.checkpoint()
    return (task_id for _, task_id in heapq.merge(*map(_taken, runs)))


def _taken(run: list[tuple[int, TaskId]]) -> Iterator[tuple[int, TaskId]]:
    """From its end; what was taken is let go, for the whole at the end would take long."""
    while run:
        yield run.pop()


def present_task(catalog: CatalogRead, reference: str) -> Task | None:
    """The task of that id, or the one of that name that has not ended. O(1)."""
    return catalog.tasks.get(TaskId(reference)) or catalog.tasks.get(catalog.names.get(reference, TaskId("")))


async def find_task(face: NodeFace, reference: str) -> Task:
    """Raises `NotFound`. Of several tasks with one name, the one that has not ended; else the newest. O(1) for an id and for the
    name of one that has not ended, else O(tasks), with room for others in between."""
    catalog = face.catalog
    task = present_task(catalog, reference) or await _newest_named(face, reference)
    if task is not None:
        return task
    begun = _begun(catalog, reference) if reference else []
    if len(begun) == 1:
        return catalog.tasks[begun[0]]
    names = (task.spec.name for task in catalog.tasks.values())
    raise _not_found("task", reference, begun, names, "swarm task ls", known=len(catalog.tasks))


async def _newest_named(face: NodeFace, name: str) -> Task | None:
    """Of all that have this name."""
    newest: Task | None = None
    after: TaskId | None = None
    while ids := face.catalog.task_ids(after, RUN):
        for task in (face.catalog.tasks[task_id] for task_id in ids):
            if task.spec.name == name and (newest is None or (task.created_index, task.id) > (newest.created_index, newest.id)):
                newest = task
        after = ids[-1]
        await trio.lowlevel.checkpoint()
    return newest


def _begun(catalog: CatalogRead, beginning: str) -> list[TaskId]:
    """Up to `SHOWN_MAX` ids that begin so, and are longer."""
    return [task_id for task_id in catalog.task_ids(TaskId(beginning), SHOWN_MAX) if task_id.startswith(beginning)]


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
    names = (node.name for node in nodes.values())
    raise _not_found("node", reference, [node.id for node in begun], names, "swarm node ls", known=len(nodes))


def current_assignment(catalog: CatalogRead, task: Task) -> Assignment | None:
    """The newest attempt, if there was one and it is still kept."""
    return catalog.assignments.get(task.assignment) if task.assignment else None


def _not_found(
    what: str, reference: str, begun: Sequence[str], names: Iterable[str], listing: str, *, known: int
) -> NotFound:
    """`known` is how many names there are."""
    if len(begun) > 1:
        several = ", ".join(sorted(begun)[:SHOWN_MAX])
        return NotFound(f"{shown(reference)} means several {what}s", cause=several, hint="write more of the id")
    near = difflib.get_close_matches(reference, sorted(set(names)), n=3) if known <= NAMES_COMPARED_MAX else []
    hint = f"did you mean {' or '.join(near)}?" if near else f"{listing} shows what there is"
    return NotFound(f"there is no {what} {shown(reference)}", hint=hint)
