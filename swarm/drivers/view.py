"""The view that scheduler, controllers and explanations decide by: the catalog beside gossip and the leader's own replication.

Promise: built in one step of the loop and without copying the catalog's tables; good until the catalog next applies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from swarm.catalog import Catalog
from swarm.drivers.consensus import Replica
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberView
from swarm.model.view import ClusterView
from swarm.ports import Clock


class ViewSource:
    """Makes views for one node."""

    def __init__(
        self,
        replica: Replica,
        catalog: Catalog,
        members: Callable[[], Mapping[NodeId, MemberView]],
        clock: Clock,
        leaving: Callable[[], Collection[NodeId]] = frozenset,
    ) -> None:
        """`leaving` says which nodes are about to leave for good."""
        self._leaving = leaving
        self._replica = replica
        self._catalog = catalog
        self._members = members
        self._clock = clock

    def view(self, *, leader_since: float = 0.0) -> ClusterView:
        """Everything at this moment. `leader_since` is when this node's leadership could first act."""
        replica = self._replica
        return self._catalog.view(
            self._clock.now(),
            replica.node_id,
            self._members(),
            last_index=replica.last_index,
            is_leader=replica.may_act,
            leader_since=leader_since,
            configuration=replica.configuration,
            configuration_committed=replica.core.is_configuration_committed,
            followers=replica.followers(),
            leaving=self._leaving(),
        )
