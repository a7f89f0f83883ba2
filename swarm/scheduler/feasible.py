"""Whether a task may run on a node, and if not, why: the filters.

Three kinds of facts are asked, cheapest first. What the log says of the node (set to drain, dead, a witness, where the task's
data is, its constraints); what is free there (exact, since reservations are in the log; host ports too); and what is observed
(gossip, the engine, the last acknowledgement to the leader). Observations may only exclude a node, never admit one.

Promise: a node that passes here passes the catalog's own check at apply, unless another entry came between.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.model.constraint import parse_constraint
from swarm.model.hostport import PortsTaken, port_clash
from swarm.model.ids import NodeId, TaskId
from swarm.model.liveness import EngineState, MemberStatus
from swarm.model.node import Availability, Node, VerdictKind
from swarm.model.placement import Replacement
from swarm.model.resources import Resources, fits
from swarm.model.task import Task, TaskSpec
from swarm.model.view import ClusterView

CONTACT_AGE_MAX_S = 10.0
"""A node that has not acknowledged to the leader for this long gets no new work. Shorter excludes nodes that are merely busy;
longer sends work where nobody takes it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why not there. Equal `group`s are counted together; the shortage, if it is one, says how much is missing."""

    group: str
    text: str
    resource: str = ""
    wanted: int = 0
    available: int = 0


@dataclass(frozen=True, slots=True)
class Wish:
    """One task to place: what counts for where it may go."""

    task_id: TaskId
    attempt: int
    spec: TaskSpec
    pinned_node: NodeId
    replaces: str = ""
    avoid: NodeId = NodeId("")
    reason: str = ""

    @property
    def family(self) -> tuple[object, ...]:
        """Tasks of one family are feasible on exactly the same nodes."""
        spec = self.spec
        return (spec.resources, spec.constraints, spec.ports, self.pinned_node, self.avoid)


def wish_of(task: Task, replacement: Replacement | None = None) -> Wish:
    """The wish of a waiting task, or of one that is to move."""
    attempt = task.attempts + 1
    if replacement is None:
        return Wish(task.id, attempt, task.spec, task.pinned_node)
    return Wish(
        task.id, attempt, task.spec, task.pinned_node, replacement.replaces, replacement.avoid, replacement.reason
    )


def log_fault(node: Node, wish: Wish) -> Fault | None:
    """What the log says against it."""
    if node.availability is not Availability.ACTIVE:
        return Fault(f"set to {node.availability.value}", f"set to {node.availability.value}")
    if node.verdict.kind is not VerdictKind.ALIVE:
        return Fault("dead", f"dead ({node.verdict.kind.value.replace('_', ' ')})")
    if node.witness:
        return Fault("witness", "a witness: it runs nothing")
    if wish.avoid == node.id:
        return Fault("former node", "it is moving away from here")
    if wish.pinned_node not in ("", node.id):
        return Fault("pinned elsewhere", "the task's data is on another node")
    return constraint_fault(node, wish)


def constraint_fault(node: Node, wish: Wish) -> Fault | None:
    """The first constraint the node does not meet."""
    for text in wish.spec.constraints:
        if not parse_constraint(text).holds(node):
            return Fault(f"constraint {text}", f"does not meet {text}")
    return None


def room_fault(free: Resources, taken: PortsTaken, wish: Wish) -> Fault | None:
    """What is short there."""
    short = fits(wish.spec.resources, free)
    if short is not None:
        wanted, available = amount_of(wish.spec.resources, short), max(amount_of(free, short), 0)
        text = f"lacks {short}: need {shown(short, wanted)}, available {shown(short, available)}"
        return Fault(f"short of {short}", text, short, wanted, available)
    if not wish.spec.ports:
        return None
    port = port_clash(wish.spec.ports, taken)
    if port is not None:
        return Fault(f"port {port.host_port}/{port.protocol}", f"host port {port.host_port}/{port.protocol} is taken")
    return None


def presence_fault(view: ClusterView, node_id: NodeId) -> Fault | None:
    """What is observed against it: gossip, its engine, its silence towards the leader."""
    member = view.members.get(node_id)
    if node_id != view.self_id:
        if member is None:
            return Fault("not seen", "not seen by gossip")
        if member.status is not MemberStatus.ALIVE:
            return Fault("not alive", f"{member.status.value} by gossip")
    if member is not None:
        if member.paused_until > view.now:
            return Fault("paused", "its daemon announced a pause")
        if member.sample is not None and member.sample.engine is not EngineState.UP:
            return Fault("engine", f"its engine is {member.sample.engine.value}")
    if view.is_leader and node_id != view.self_id:
        follower = view.followers.get(node_id)
        if follower is None or view.now - follower.last_contact > CONTACT_AGE_MAX_S:
            return Fault("silent", f"has not acknowledged to the leader for {CONTACT_AGE_MAX_S:.0f} s")
    return None


def amount_of(resources: Resources, name: str) -> int:
    """The amount of the resource that `fits` names so."""
    match name:
        case "cpu":
            return resources.cpu_millicores
        case "memory":
            return resources.memory_bytes
        case "tasks":
            return resources.tasks
        case _:
            return dict(resources.generic).get(name, 0)


def shown(name: str, amount: int) -> str:
    """An amount as people read it: `512 MiB`, `0.5 CPUs`, `2`."""
    if name == "cpu":
        return f"{amount / 1000:g} CPUs"
    if name != "memory":
        return str(amount)
    if amount >= 10 * 2**30:
        return f"{amount / 2**30:.1f} GiB"
    return f"{amount / 2**20:.0f} MiB" if amount >= 2**20 or amount == 0 else f"{amount} bytes"
