"""The view that scheduler, controllers and explanations decide by: the catalog beside gossip and the leader's own replication.

Promise: built in one step of the loop and without copying the catalog's tables; good until the catalog next applies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from swarm.drivers.consensus import Replica
from swarm.model.assignment import Assignment
from swarm.model.hostport import PortsTaken
from swarm.model.ids import NodeId, TaskId
from swarm.model.liveness import MemberView
from swarm.model.node import Node
from swarm.model.resources import Resources
from swarm.model.task import Task
from swarm.model.view import ClusterView
from swarm.ports import Clock


class Tables(Protocol):
    """The catalog's tables and indexes, read only."""

    @property
    def nodes(self) -> Mapping[NodeId, Node]: ...
    @property
    def tasks(self) -> Mapping[TaskId, Task]: ...
    @property
    def assignments(self) -> Mapping[str, Assignment]: ...
    @property
    def by_node(self) -> Mapping[NodeId, Mapping[str, None]]: ...
    @property
    def reserved(self) -> Mapping[NodeId, Resources]: ...
    @property
    def ports_taken(self) -> Mapping[NodeId, PortsTaken]: ...
    @property
    def pending(self) -> Sequence[TaskId]: ...
    @property
    def moving(self) -> Collection[TaskId]: ...


class ViewSource:
    """Makes views for one node."""

    def __init__(
        self, replica: Replica, catalog: Tables, members: Callable[[], Mapping[NodeId, MemberView]], clock: Clock
    ) -> None:
        self._replica = replica
        self._catalog = catalog
        self._members = members
        self._clock = clock

    def view(self, *, leader_since: float = 0.0) -> ClusterView:
        """Everything at this moment. `leader_since` is when this node's leadership could first act."""
        replica, catalog = self._replica, self._catalog
        return ClusterView(
            now=self._clock.now(),
            self_id=replica.node_id,
            nodes=catalog.nodes,
            tasks=catalog.tasks,
            assignments=catalog.assignments,
            by_node=catalog.by_node,
            reserved=catalog.reserved,
            pending=catalog.pending,
            members=self._members(),
            last_index=replica.last_index,
            is_leader=replica.may_act,
            leader_since=leader_since,
            configuration=replica.configuration,
            configuration_committed=replica.core.is_configuration_committed,
            followers=replica.followers(),
            ports_taken=catalog.ports_taken,
            moving=catalog.moving,
        )
