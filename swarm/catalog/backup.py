"""The catalog carried out of its cluster, and into a new one.

A backup leaves out what only the old cluster can use and nobody else should have: its secrets, its API tokens, and credentials
of registries, which are sealed to its nodes. What users wrote into their tasks, environment included, is in it.

Restored, the catalog is that of a new cluster with one node. The old nodes are no members; what ran on them is lost there, so
that every task that should run waits for a place. Nothing is known of their volumes: a task that was pinned to its data is free.

Pure: no I/O, no clock, no randomness of its own. Promise: what is restored holds every invariant of a catalog, or `BadMessage`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from msgspec.structs import replace

from swarm.catalog import lifecycle, snapshot
from swarm.catalog.requests import Requests
from swarm.catalog.state import State
from swarm.catalog.turn import Turn
from swarm.errors import BadMessage
from swarm.model.entry import KIND_NOOP, Configuration, Entry, Voter
from swarm.model.ids import ClusterId, NodeId
from swarm.model.node import Node
from swarm.model.phase import Desired
from swarm.model.secret import Secrets
from swarm.model.task import Task


@dataclass(frozen=True, slots=True)
class Contents:
    """What a snapshot holds, for people: names, and the tasks of which a restore must give something up."""

    nodes: tuple[str, ...]
    tasks: tuple[str, ...]
    """Those that have not ended, by name."""
    tasks_to_run: int
    tasks_ended: int
    pinned: tuple[tuple[str, str], ...]
    """(task, node) where the task's data is on that node."""
    with_credentials: tuple[str, ...]
    """Tasks whose image came from a registry that asked who pulls it."""


def contents_untrusted(data: bytes) -> Contents:
    """What is in a snapshot. Raises `BadMessage`."""
    state, _ = _read_untrusted(data)
    alive = sorted((task for task in state.tasks.values() if not task.ended), key=lambda task: task.spec.name)
    return Contents(
        nodes=tuple(sorted(node.name for node in state.nodes.values())),
        tasks=tuple(task.spec.name for task in alive),
        tasks_to_run=sum(task.desired is Desired.RUNNING for task in alive),
        tasks_ended=len(state.tasks) - len(alive),
        pinned=tuple((task.spec.name, _node_name(state, task)) for task in alive if task.pinned_node),
        with_credentials=tuple(task.spec.name for task in alive if task.spec.registry_auth),
    )


def _node_name(state: State, task: Task) -> str:
    node = state.nodes.get(task.pinned_node)
    return node.name if node is not None else str(task.pinned_node)


def for_new_cluster_untrusted(data: bytes, *, cluster_id: ClusterId, me: Node, term: int, time_utc: float) -> tuple[bytes, int]:
    """(snapshot, index) of a new cluster whose only node and voter is `me`. Raises `BadMessage`."""
    state, requests = _read_untrusted(data)
    state.last_index += 1
    state.last_time_utc = max(state.last_time_utc, time_utc)
    turn = Turn(Entry(state.last_index, term, KIND_NOOP, 1, b"", 0, state.last_time_utc), state.last_time_utc, {})
    for node_id in sorted(state.nodes):
        _close(state, turn, state.nodes[node_id])
    state.cluster_id = cluster_id
    state.removed_nodes, state.api_tokens, state.secrets = {}, {}, Secrets()
    state.configuration = Configuration((Voter(me.id, me.store_generation),))
    state.configuration_index = state.last_index
    state.put_node(replace(me, joined_index=state.last_index))
    for task in list(state.tasks.values()):
        state.put_task(replace(snapshot.without_credentials(task), pinned_node=NodeId("")))
    try:
        state.check()
    except (AssertionError, KeyError) as problem:
        raise BadMessage(f"its records contradict each other: {str(problem)[:200]}") from None
    return b"".join(snapshot.slices(state, requests)), state.last_index


def _read_untrusted(data: bytes) -> tuple[State, Requests]:
    reading, state = snapshot.Reading(), State()
    for _ in itertools.chain(reading.feed(data), reading.finish(state)):
        pass
    return state, reading.requests


def _close(state: State, turn: Turn, node: Node) -> None:
    """Everything on a node of the old cluster is lost there, and the node goes."""
    for assignment_id in sorted(state.by_node[node.id]):
        assignment = state.assignments.get(assignment_id)
        if assignment is not None and not assignment.ended:
            lifecycle.lose(state, turn, assignment, f"restored from a backup: {node.name} was a node of the old cluster")
    state.drop_node(node.id)
