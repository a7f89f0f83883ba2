"""Who leads next: a witness hands over as soon as a full voter can take the lead, and who stops hands over to its heir.

A witness prefers not to lead. It may be elected all the same, when nobody else could be; then it leads like any other. A full
voter can take the lead when for 3 s it has answered, has had nearly the whole log and a disk that works: one that has just come
back is not asked to lead at once.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarm.model.entry import Configuration
from swarm.model.ids import NodeId
from swarm.model.node import Availability, Node
from swarm.model.view import ClusterView, FollowerView

HEIR_CONTACT_S = 1.0
"""An heir has answered within ten heartbeats; one that has not would leave the cluster without a leader for longer."""


def heir_of(
    configuration: Configuration, followers: Mapping[NodeId, FollowerView], nodes: Mapping[NodeId, Node], now: float
) -> NodeId | None:
    """The voter to lead when this leader stops: one that answers, a full one rather than a witness, with most of the log."""
    voters = {voter.node_id for voter in configuration.voters}
    others = [view for view in followers.values() if view.node_id in voters]

    def worth(view: FollowerView) -> tuple[bool, bool, int, float, str]:
        node = nodes.get(view.node_id)
        is_there = now - view.last_contact <= HEIR_CONTACT_S
        return is_there, node is not None and not node.witness, view.match_index, view.last_contact, view.node_id

    return max(others, key=worth).node_id if others else None


@dataclass(frozen=True, slots=True)
class LeadConfig:
    """Seconds and entries. Shorter times hand over sooner, and more often for nothing."""

    ready_s: float = 3.0
    contact_s: float = 1.0
    """Ten heartbeats to a voter."""
    lag_entries: int = 64
    disk_stall_s: float = 3.0
    """As everywhere. An idle disk is asked once a second, so a shorter time takes every idle voter for stalled now and then."""
    retry_s: float = 10.0
    """After a hand-over that did not come about."""


class LeadController:
    """One leadership's memory: since when each full voter could have led, and when it was last tried."""

    def __init__(self, config: LeadConfig | None = None) -> None:
        self._config = config or LeadConfig()
        self._ready_since: dict[NodeId, float] = {}
        self._tried_at = float("-inf")

    def reconcile(self, view: ClusterView) -> NodeId | None:
        """The full voter to hand over to, or None when this node should go on leading. Only a witness ever hands over."""
        me = view.nodes.get(view.self_id)
        if me is None or not me.witness:
            return None
        ready = [node_id for node_id in self._full_voters(view) if self._is_ready(view, node_id)]
        self._ready_since = {node_id: self._ready_since.get(node_id, view.now) for node_id in ready}
        if view.configuration.outgoing or view.now - self._tried_at < self._config.retry_s:
            return None
        heirs = [node_id for node_id in ready if view.now - self._ready_since[node_id] >= self._config.ready_s]
        if not heirs:
            return None
        self._tried_at = view.now
        return min(heirs, key=lambda node_id: (self._ready_since[node_id], node_id))

    @staticmethod
    def _full_voters(view: ClusterView) -> list[NodeId]:
        ids = [NodeId(voter.node_id) for voter in view.configuration.voters if voter.node_id != view.self_id]
        return [each for each in ids if each in view.nodes and not view.nodes[each].witness and each not in view.leaving]

    def _is_ready(self, view: ClusterView, node_id: NodeId) -> bool:
        follower = view.followers.get(node_id)
        return (
            follower is not None
            and view.nodes[node_id].availability is not Availability.LEFT
            and view.now - follower.last_contact <= self._config.contact_s
            and view.last_index - follower.match_index <= self._config.lag_entries
            and follower.disk_age_s <= self._config.disk_stall_s
            and not follower.disk_full
        )
