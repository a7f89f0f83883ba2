"""What scheduler and controllers see: the catalog's decisions beside gossip's observations, at one moment.

The mappings are the catalog's own, read-only, and stay true only until it applies the next entry: a plan is made in one step of
the loop and proposes commands, which the catalog checks again when they are applied.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from swarm.model.assignment import Assignment
from swarm.model.entry import Configuration
from swarm.model.hostport import PortsTaken
from swarm.model.ids import NodeId, TaskId
from swarm.model.liveness import MemberView
from swarm.model.node import Node
from swarm.model.resources import Resources
from swarm.model.secret import Secrets
from swarm.model.task import Task


@dataclass(frozen=True, slots=True)
class FollowerView:
    """What the leader's replication knows of one node: what it acknowledged and when it last answered."""

    node_id: NodeId
    match_index: int
    applied_index: int
    last_contact: float
    disk_age_s: float = 0.0
    """For how long its disk had completed nothing when it last answered."""
    disk_full: bool = False
    """It takes no entries, as it last said."""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """One frozen look at everything. `now` is CLOCK_BOOTTIME seconds of the node that looks."""

    now: float
    self_id: NodeId
    nodes: Mapping[NodeId, Node]
    tasks: Mapping[TaskId, Task]
    assignments: Mapping[str, Assignment]
    by_node: Mapping[NodeId, frozenset[str] | set[str] | Mapping[str, None]]
    """Ids of the assignments of each node that have not ended."""
    reserved: Mapping[NodeId, Resources]
    """What the not-ended assignments of each node reserve, exactly."""
    pending: Sequence[TaskId]
    """Tasks that should run and have no assignment that could: in order of submission."""
    members: Mapping[NodeId, MemberView]
    last_index: int = 0
    """Last index of the leader's own log: how far behind a learner is."""
    is_leader: bool = False
    leader_since: float = 0.0
    """When this leader's first own entry was committed and applied."""
    configuration: Configuration = Configuration(())
    configuration_committed: bool = True
    followers: Mapping[NodeId, FollowerView] = field(default_factory=dict)
    ports_taken: Mapping[NodeId, PortsTaken] = field(default_factory=dict)
    """Host ports that the not-ended assignments of each node hold."""
    moving: Collection[TaskId] = ()
    """Tasks with an older assignment that is still to end (`Task.previous`)."""
    secrets: Secrets = Secrets()
    leaving: Collection[NodeId] = ()
    """Nodes that told this leader lately that they are about to leave for good: they are to give their vote away first."""
