"""Commands: what a log entry's payload can say. The catalog applies them; anyone may propose them through the leader.

Each kind has a name and a schema version of its own. A field is only ever appended, with a default; anything else is a new
version. A node that meets a kind or version it does not know stops applying there and asks to be upgraded.
"""

from __future__ import annotations

from typing import Any

import msgspec

from swarm.model.entry import KIND_CONFIGURATION, KIND_FOUND, KIND_NOOP, Configuration, Voter
from swarm.model.ids import ClusterId, NodeId, RequestId, TaskId
from swarm.model.node import Availability, Node, VerdictKind
from swarm.model.phase import Phase
from swarm.model.resources import Resources
from swarm.model.secret import Authority, SealedSecret
from swarm.model.task import TaskSpec


class Noop(msgspec.Struct, frozen=True, array_like=True):
    """The first entry of each term (Raft, section 5.4.2)."""


class Found(msgspec.Struct, frozen=True, array_like=True):
    """Entry 1 of term 1: the cluster's random id, its founding members sorted by id, and its first voters."""

    cluster_id: ClusterId
    nodes: tuple[Node, ...]
    voters: tuple[Voter, ...]


class Admit(msgspec.Struct, frozen=True, array_like=True):
    """A node may speak as a member: its id, pinned key and store generation."""

    node: Node


class Declare(msgspec.Struct, frozen=True, array_like=True):
    """A member says, at each start and when it changes, where it is and what it has. Never changes its key."""

    node_id: NodeId
    name: str
    address: str
    api_address: str
    store_generation: int
    labels: tuple[tuple[str, str], ...]
    arch: str
    os: str
    capacity: Resources
    engine_version: str
    schema_known: int
    witness: bool = False


class SetNode(msgspec.Struct, frozen=True, array_like=True):
    """An operator's edit: availability and labels set or removed (a label with value None is removed)."""

    node_id: NodeId
    availability: Availability | None = None
    labels: tuple[tuple[str, str | None], ...] = ()


class RemoveNode(msgspec.Struct, frozen=True, array_like=True):
    """`node rm`: the fingerprint goes, the id is never admitted again, its assignments become lost."""

    node_id: NodeId


class PassVerdict(msgspec.Struct, frozen=True, array_like=True):
    """The leader's verdict on a node. `ALIVE` takes an earlier one back and clears `unreachable_since_index`."""

    node_id: NodeId
    kind: VerdictKind
    evidence: str


class Submit(msgspec.Struct, frozen=True, array_like=True):
    """A new task. Refused when a task with that name has not ended."""

    task_id: TaskId
    spec: TaskSpec


class SubmitMany(msgspec.Struct, frozen=True, array_like=True):
    """Several new tasks in one entry. Each is taken or refused by itself, as if it had an entry of its own."""

    submits: tuple[Submit, ...]


class SubmitQueued(msgspec.Struct, frozen=True, array_like=True):
    """A new task that waited on a node for a leader. Refused also when request ids made since `known_since_utc` may have been
    forgotten: whether it was applied before could not be said."""

    task_id: TaskId
    spec: TaskSpec
    known_since_utc: float


class StopTask(msgspec.Struct, frozen=True, array_like=True):
    """The user wants it stopped: desired STOPPED for the task and its assignments."""

    task_id: TaskId
    reason: str = ""


class RemoveTask(msgspec.Struct, frozen=True, array_like=True):
    """Forget an ended task. With `force` it is stopped first and forgotten once its container is gone."""

    task_id: TaskId
    force: bool = False


class Assign(msgspec.Struct, frozen=True, array_like=True):
    """The next attempt of a task on a node. `attempt` must be `task.attempts + 1`, and the node's resources are checked again.

    `replaces` names the assignment this one takes over from: `lost` when its node has a verdict of death, otherwise (a drain)
    it keeps running until the new one runs.
    """

    task_id: TaskId
    attempt: int
    node_id: NodeId
    replaces: str = ""
    reason: str = ""


class StopAssignment(msgspec.Struct, frozen=True, array_like=True):
    """Stop one assignment while its task goes on (the old copy after a drain or a heal, or a cancelled replacement)."""

    assignment_id: str
    reason: str
    keep: str = ""
    """When set, this assignment becomes the task's current one again (the old copy came back before the new one ran)."""


class SetReason(msgspec.Struct, frozen=True, array_like=True):
    """Why a task waits, where that is a decision (its node is dead and its data is there); shown to people."""

    task_id: TaskId
    reason: str


class Report(msgspec.Struct, frozen=True, array_like=True):
    """What the runner saw of one assignment. `sequence` grows by one with each report of that assignment."""

    assignment_id: str
    sequence: int
    phase: Phase
    container_id: str = ""
    exit_code: int | None = None
    reason: str = ""
    restarts: int = 0
    started_utc: float = 0.0


class Reports(msgspec.Struct, frozen=True, array_like=True):
    """A node's reports since its last ones, coalesced to one per assignment."""

    node_id: NodeId
    reports: tuple[Report, ...]


class CreateApiToken(msgspec.Struct, frozen=True, array_like=True):
    """An API token, stored as the SHA-256 of its secret."""

    token_id: str
    secret_sha256: bytes
    note: str = ""


class RevokeApiToken(msgspec.Struct, frozen=True, array_like=True):
    """An API token is good no more."""

    token_id: str


class RotateSecret(msgspec.Struct, frozen=True, array_like=True):
    """A new secret for the cluster: from here on it is accepted, later sent with, and then the older ones are retired.

    It is sealed once per member. With `remove`, one entry also removes a node: there is no moment between the two.
    """

    number: int
    """One above the newest. Another number means that somebody else was quicker: refused, make a new one."""
    authority: Authority
    former: Authority
    """Of the secret that the proposer sends with: the first rotation makes the founding authority known by it."""
    sealed: tuple[SealedSecret, ...]
    remove: NodeId = NodeId("")
    reason: str = ""
    request_id: RequestId = RequestId("")
    """Of whoever asked. A repetition makes another secret, so it is found by this and not by its content."""


class AckSecret(msgspec.Struct, frozen=True, array_like=True):
    """A node has a secret on its disk: the newest number it accepts, and the one it sends with. Never goes back."""

    node_id: NodeId
    holds: int
    sends: int


class AdvanceSecret(msgspec.Struct, frozen=True, array_like=True):
    """The leader: send with this number, or (`retire`) accept nothing older any more."""

    number: int
    retire: bool = False


COMMANDS: dict[str, tuple[int, type[Any]]] = {
    KIND_NOOP: (1, Noop),
    KIND_FOUND: (1, Found),
    KIND_CONFIGURATION: (1, Configuration),
    "node.admit": (1, Admit),
    "node.declare": (1, Declare),
    "node.set": (1, SetNode),
    "node.remove": (1, RemoveNode),
    "node.verdict": (1, PassVerdict),
    "task.submit": (1, Submit),
    "task.submit_many": (1, SubmitMany),
    "task.submit_queued": (1, SubmitQueued),
    "task.stop": (1, StopTask),
    "task.remove": (1, RemoveTask),
    "task.assign": (1, Assign),
    "task.reason": (1, SetReason),
    "assignment.stop": (1, StopAssignment),
    "assignment.reports": (1, Reports),
    "token.create": (1, CreateApiToken),
    "token.revoke": (1, RevokeApiToken),
    "secret.rotate": (1, RotateSecret),
    "secret.ack": (1, AckSecret),
    "secret.advance": (1, AdvanceSecret),
}
"""Kind -> (newest known version, class). The one registry of what a payload can be."""

KIND_OF: dict[type[Any], str] = {kind_class: kind for kind, (_, kind_class) in COMMANDS.items()}
SCHEMA_KNOWN = 3
"""Grows with each kind or version that is added. A node declares it through the log."""
SCHEMA_SINCE: dict[tuple[str, int], int] = {("secret.rotate", 1): 2, ("task.submit_many", 1): 3, ("task.submit_queued", 1): 3}
"""(kind, version) -> the schema that brought it; 1 where it is not named. A leader writes none that a member does not know.
What only ever follows such an entry (`secret.ack`, `secret.advance`) is not held back again."""
