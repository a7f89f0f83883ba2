"""Names and labels of our containers, and the test whether a container is ours.

Every container carries `swarm.cluster`, `swarm.node`, `swarm.task` (ids), `swarm.attempt` (a number) and `swarm.name` (the
task's name, for people). Name and labels derive from (cluster, task, attempt) alone, so creating twice finds the first one, and
a daemon that lost its memory still knows what runs for which assignment. Docker's own Swarm mode uses `com.docker.swarm.*`, and
the engine's metrics `swarm_*`: neither meets `swarm.`.

Pure: no I/O, no clock, no randomness of its own. Promise: what lacks any of our labels, or names another cluster or node, is
never ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from swarm.model.assignment import Assignment, assignment_id
from swarm.model.container import ContainerPlan
from swarm.model.ids import ClusterId, NodeId, TaskId
from swarm.model.task import TaskSpec

CLUSTER = "swarm.cluster"
NODE = "swarm.node"
TASK = "swarm.task"
ATTEMPT = "swarm.attempt"
NAME = "swarm.name"
PREFIX = "swarm."


def container_name(cluster_id: ClusterId, task_id: TaskId, attempt: int, task_name: str) -> str:
    """Unique per (cluster, task, attempt), also where several clusters share one engine; starts with what people look for."""
    return f"{task_name}.{attempt}.{task_id[:16]}{cluster_id[:8]}"


def labels_of(cluster_id: ClusterId, node_id: NodeId, assignment: Assignment, spec: TaskSpec) -> dict[str, str]:
    """The user's labels with ours on top; a user's label cannot pretend to be one of ours."""
    labels = {key: value for key, value in spec.labels if not key.startswith(PREFIX)}
    labels |= {
        CLUSTER: cluster_id,
        NODE: node_id,
        TASK: assignment.task_id,
        ATTEMPT: str(assignment.attempt),
        NAME: spec.name,
    }
    return labels


def assignment_of(labels: Mapping[str, str], cluster_id: ClusterId, node_id: NodeId) -> str | None:
    """The id of the assignment a container belongs to; None when it is not this node's of this cluster."""
    if labels.get(CLUSTER) != cluster_id or labels.get(NODE) != node_id:
        return None
    task_id, attempt = labels.get(TASK, ""), labels.get(ATTEMPT, "")
    if not task_id or not attempt.isascii() or not attempt.isdigit():
        return None
    return assignment_id(TaskId(task_id), int(attempt))


def plan_of(
    *,
    cluster_id: ClusterId,
    node_id: NodeId,
    node_name: str,
    node_address: str,
    assignment: Assignment,
    spec: TaskSpec,
    cgroup_parent: str,
) -> ContainerPlan:
    """Everything the engine needs to make the container of an assignment. The address is that of the host, without a port."""
    host = node_address.rpartition(":")[0].strip("[]") or node_address
    return ContainerPlan(
        name=container_name(cluster_id, assignment.task_id, assignment.attempt, spec.name),
        labels=labels_of(cluster_id, node_id, assignment, spec),
        spec=spec,
        env_added=(
            f"SWARM_TASK={spec.name}",
            f"SWARM_ATTEMPT={assignment.attempt}",
            f"SWARM_NODE={node_name}",
            f"SWARM_NODE_ADDRESS={host}",
        ),
        cgroup_parent=cgroup_parent,
    )
