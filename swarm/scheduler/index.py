"""Nodes in the order a policy prefers them, kept up to date as placements come and go.

Building it costs a step for each node; after that only nodes that changed are looked at again, and a search walks from the
best node on until it has a few feasible ones. So the cost of a placement does not grow with the number of nodes. A node's
slot holds what the log has reserved there and, on top, what this leader has proposed and not yet seen applied.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sortedcontainers import SortedList

from swarm.model.constraint import parse_constraint
from swarm.model.hostport import take_ports
from swarm.model.ids import NodeId
from swarm.model.liveness import Sample
from swarm.model.node import Node
from swarm.model.resources import Resources
from swarm.model.task import TaskSpec
from swarm.model.view import ClusterView
from swarm.scheduler.rank import Key, Policy, order

SMALL_SET = 64
"""Up to this many matching nodes are sorted on the spot rather than searched for in the index."""


class Slot:
    """One node as the plan sees it. `free` and `ports` include what was proposed in this plan and before."""

    __slots__ = ("count", "free", "key", "node", "ports", "reserved", "sample")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.reserved = Resources()
        self.free = node.capacity
        self.ports: dict[tuple[str, int], tuple[str, ...]] = {}
        self.count = 0
        self.sample: Sample | None = None
        self.key: Key = ()

    def add(self, spec: TaskSpec) -> None:
        """Reserve for one more task."""
        self.count += 1
        self.reserved = self.reserved.plus(spec.resources)
        self.free = self.node.capacity.minus(self.reserved)
        if spec.ports:
            take_ports(self.ports, spec.ports)


class NodeIndex:
    """All nodes of the log, sorted for one policy."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.slots: dict[NodeId, Slot] = {}
        self._sorted: SortedList = SortedList()
        self._matching: dict[tuple[str, ...], frozenset[NodeId]] = {}

    def refresh(self, view: ClusterView, node_id: NodeId, proposed: Iterable[TaskSpec]) -> bool:
        """Look at one node again. True when a task that was infeasible before might fit by now."""
        old = self.slots.get(node_id)
        if old is not None:
            self._sorted.remove(old.key)
        node = view.nodes.get(node_id)
        if node is None:
            self.slots.pop(node_id, None)
            self._matching.clear()
            return False
        slot = Slot(node)
        slot.count = len(view.by_node.get(node_id, ()))
        slot.reserved = view.reserved.get(node_id, Resources())
        slot.free = node.capacity.minus(slot.reserved)
        slot.ports = dict(view.ports_taken.get(node_id, {}))
        member = view.members.get(node_id)
        slot.sample = member.sample if member is not None else None
        for spec in proposed:
            slot.add(spec)
        self.slots[node_id] = slot
        self._file(slot)
        if old is None or old.node is not node:
            self._matching.clear()
            return True
        return slot.free != old.free or len(slot.ports) < len(old.ports)

    def place(self, slot: Slot, spec: TaskSpec) -> None:
        """Count one more task on a node."""
        self._sorted.remove(slot.key)
        slot.add(spec)
        self._file(slot)

    def _file(self, slot: Slot) -> None:
        slot.key = order(self.policy, slot.node, slot.reserved, slot.count, slot.sample)
        self._sorted.add(slot.key)

    def matching(self, constraints: tuple[str, ...]) -> frozenset[NodeId]:
        """Ids of the nodes that meet all constraints. O(nodes) the first time, then kept until a node's record changes."""
        known = self._matching.get(constraints)
        if known is None:
            parsed = [parse_constraint(text) for text in constraints]
            known = frozenset(
                node_id for node_id, slot in self.slots.items() if all(condition.holds(slot.node) for condition in parsed)
            )
            self._matching[constraints] = known
        return known

    def among(self, node_ids: Iterable[NodeId]) -> list[Slot]:
        """The slots of these nodes, best first. O(k log k)."""
        found = [self.slots[node_id] for node_id in node_ids if node_id in self.slots]
        return sorted(found, key=lambda slot: slot.key)

    def best_first(self, start: Key = ()) -> Iterator[Slot]:
        """Every slot from `start` on, best first."""
        for key in self._sorted.irange(start):
            yield self.slots[key[-1]]

    def after(self, node_id: NodeId) -> Iterator[Slot]:
        """Every slot by id, from the one after `node_id` round to it again. For the index of round-robin only."""
        for key in self._sorted.irange((node_id,), None, (False, True)):
            yield self.slots[key[-1]]
        for key in self._sorted.irange(None, (node_id,)):
            yield self.slots[key[-1]]
