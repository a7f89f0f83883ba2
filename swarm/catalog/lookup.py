"""From what people type to the record they mean: an id, a name, or a prefix of an id that only one has.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from swarm.catalog.state import State
from swarm.errors import NotFound
from swarm.model.ids import NodeId, TaskId
from swarm.model.node import Availability, Node
from swarm.model.task import Task


def find_task(state: State, text: str) -> Task:
    """A task that has not ended goes before ended ones of its name; of those, the newest is meant. Raises `NotFound`."""
    if text in state.tasks:
        return state.tasks[TaskId(text)]
    if text in state.names:
        return state.tasks[state.names[text]]
    namesakes = [task for task in state.tasks.values() if task.spec.name == text]
    if namesakes:
        return max(namesakes, key=lambda task: (task.created_index, task.id))
    matches = sorted(task_id for task_id in state.tasks if text and task_id.startswith(text))
    return state.tasks[TaskId(_only(matches, "task", text))]


def find_node(state: State, text: str) -> Node:
    """A present node goes before one of its name that has left. Raises `NotFound`."""
    if text in state.nodes:
        return state.nodes[NodeId(text)]
    namesakes = [node for node in state.nodes.values() if node.name == text]
    if namesakes:
        return min(namesakes, key=lambda node: (node.availability is Availability.LEFT, -node.joined_index, node.id))
    matches = sorted(node_id for node_id in state.nodes if text and node_id.startswith(text))
    return state.nodes[NodeId(_only(matches, "node", text))]


def _only(matches: list[str] | list[TaskId] | list[NodeId], what: str, text: str) -> str:
    if not matches:
        raise NotFound(f"no {what} is named {text[:80]!r}", hint=f"see 'swarm {what} ls'")
    if len(matches) > 1:
        shown = ", ".join(matches[:4]) + (", ..." if len(matches) > 4 else "")
        raise NotFound(f"{text[:80]!r} means {len(matches)} {what}s", cause=shown, hint="give more of the id")
    return matches[0]
