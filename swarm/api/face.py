"""Everything the API needs from the node it runs in, on one page. `swarm/node.py` keeps this protocol; tests have another.

The API holds no state of its own: it reads the replicated catalog and gossip's view, and sends commands. Reads are synchronous
and cheap (the mappings are the catalog's own, read-only, good until the next await); what can suspend is `async`.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from swarm.consensus.recovery import Survey
from swarm.model.archived import Question
from swarm.model.assignment import Assignment
from swarm.model.command import RotateSecret
from swarm.model.ids import ClusterId, NodeId, RequestId, TaskId
from swarm.model.liveness import EngineState, MemberStatus, MemberView, StatusChange
from swarm.model.node import Node
from swarm.model.outcome import Applied, EventPage
from swarm.model.queued import QueuedSubmit
from swarm.model.resources import Resources
from swarm.model.secret import Secrets
from swarm.model.task import Task, TaskSpec
from swarm.wire.kept import KeptHeader


class ApiTokenRecord(Protocol):
    """An API token as the catalog keeps it."""

    @property
    def secret_sha256(self) -> bytes: ...
    @property
    def note(self) -> str: ...


class CatalogRead(Protocol):
    """The catalog, read only, as applied on this node."""

    @property
    def cluster_id(self) -> ClusterId: ...
    @property
    def nodes(self) -> Mapping[NodeId, Node]: ...
    @property
    def removed_nodes(self) -> Mapping[NodeId, int]:
        """And the index of the removal of each."""

    @property
    def tasks(self) -> Mapping[TaskId, Task]: ...
    @property
    def names(self) -> Mapping[str, TaskId]:
        """Of the tasks that have not ended."""

    @property
    def phases(self) -> Mapping[str, int]:
        """How many tasks are shown in each phase; none of those without any."""

    def task_ids(self, after: TaskId | None, count: int) -> list[TaskId]:
        """Some of the ids of all tasks, in order: the first ones, or those after one. O(count)."""

    @property
    def assignments(self) -> Mapping[str, Assignment]: ...
    @property
    def by_node(self) -> Mapping[NodeId, Collection[str]]:
        """Ids of the assignments of each node that have not ended."""

    @property
    def at_home(self) -> Mapping[NodeId, int]:
        """How many of those are the current ones of their tasks; a node may be missing that has none."""

    @property
    def reserved(self) -> Mapping[NodeId, Resources]: ...
    @property
    def secrets(self) -> Secrets: ...
    @property
    def time_utc(self) -> float:
        """That of the newest entry; 0 when there is none."""

    @property
    def api_tokens(self) -> Mapping[str, ApiTokenRecord]: ...


@dataclass(frozen=True, slots=True)
class ConsensusStatus:
    """Where this node stands in the log."""

    role: str
    """`leader`, `follower`, `candidate`, `learner`, or `witness` for one that does not lead."""
    term: int
    leader_id: NodeId | None
    """Whom this node believes to lead; None when nobody in reach does."""
    last_index: int
    commit_index: int
    applied_index: int
    voters: tuple[NodeId, ...]
    lease_valid: bool
    """Only ever true on a leader."""
    leader_contact_age_s: float
    """Seconds since the leader was last heard (0 on a leader inside its lease; infinite when never)."""
    stopped_at: str = ""
    """Why applying stopped (an entry of a newer schema), or empty."""
    recovery_generation: int = 0
    outgoing: tuple[NodeId, ...] = ()
    """The voters that a change under way replaces; empty without one."""
    unheard: tuple[NodeId, ...] = ()
    """Voters whose answers do not reach the leader, as far as this node can know: a leader of all, another of itself."""
    full: tuple[NodeId, ...] = ()
    """Nodes whose disk is too full for log entries, as far as this node can know: a leader of all, another of itself."""
    stalled: tuple[NodeId, ...] = ()
    """Nodes that answer and whose disk has completed nothing for a while; known as `full` is."""
    state_age_s: float = 0.0
    """Seconds since the catalog here was known to lack nothing that a leader had told was committed; infinite when never."""
    told_commit: int = 0
    """The largest commit index that a leader has named here."""
    disk_lack: str = ""
    """That this node's disk has no reserve, for people; empty where it has."""
    last_leader: tuple[NodeId, int] | None = None
    """Who was last known to lead, and in which term."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task waits: in one line, and for each node what speaks against it."""

    summary: str
    nodes: tuple[tuple[NodeId, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of what a container wrote. `stream` is `stdout` or `stderr`; `data` need not end at a line."""

    stream: str
    data: bytes


class MeasuredRead(Protocol):
    """What one member has measured to another."""

    @property
    def node_id(self) -> NodeId: ...
    @property
    def rtt_s(self) -> float:
        """0 when nothing."""

    @property
    def status(self) -> MemberStatus:
        """What the observer believes of it."""


class RoundTripRead(Protocol):
    """One observer's measurements, or the reason why there are none."""

    @property
    def observer(self) -> NodeId: ...
    @property
    def measured(self) -> Sequence[MeasuredRead]: ...
    @property
    def reason(self) -> str: ...


class KeptRead(Protocol):
    """A kept snapshot's file."""

    @property
    def path(self) -> Path: ...
    @property
    def header(self) -> KeptHeader: ...
    @property
    def size_bytes(self) -> int: ...


class NodeFace(Protocol):
    """The node, seen from its API."""

    @property
    def node_id(self) -> NodeId: ...

    @property
    def catalog(self) -> CatalogRead: ...

    def members(self) -> Mapping[NodeId, MemberView]:
        """Gossip's view from here, this node included."""

    def now(self) -> float:
        """CLOCK_BOOTTIME of this host, in which the times of `members` are."""

    def health_score(self) -> int:
        """This node's own local health: 0 is well."""

    def status_changes(self, after: int) -> Sequence[StatusChange]:
        """What gossip here has changed its mind about, with numbers above `after`, oldest first; the last 1,000 are kept."""

    def counted_about(self, node_id: NodeId) -> Mapping[str, int]:
        """Suspicions and deaths of one member by outcome, as gossip here counted them since the start."""

    async def round_trips(self) -> Sequence[RoundTripRead]:
        """Every member's measured round trips to every other, collected anew. Takes at most about two seconds; never raises."""

    def removed(self) -> bool:
        """This node knows that it was removed from the cluster: what it shows of the cluster is the past."""

    def refusals(self) -> list[str]:
        """Members that refuse this node (removed, another key, another cluster), each with why, in words."""

    def engine_state(self) -> tuple[EngineState, str]:
        """This host's engine: its state, and one line that says more (a version, or what is wrong)."""

    def consensus(self) -> ConsensusStatus:
        """A snapshot of where this node stands."""

    def counters(self) -> Mapping[str, int]:
        """Everything counted since the start: dropped packets and frames by reason, connections, ended requests."""

    def events(self, since_index: int) -> EventPage:
        """The catalog's events after `since_index`, oldest first."""

    async def past(self, question: Question) -> bytes:
        """The answer to a question about the past, as JSON, from what this node has kept. Takes as long as a rebuild; bound it.
        Raises `NotFound` (saying what is kept), `UsageError`, `Unavailable` (nothing is kept here) or `Overloaded`."""

    async def wait_applied(self, index: int) -> None:
        """Return once the applied index is at least `index`. May wait for ever: callers bound it."""

    async def submit(self, command: Any, *, request_id: RequestId, timeout_s: float) -> Applied:
        """Have a command (a struct of `swarm.model.command`) committed, and applied here; forwarded to the leader if need be.

        The same request id again returns the first one's result. A rejection is raised (`Rejected.to_error`); raises also
        `Unavailable` (not carried out), `UnknownOutcome` (repeat with the same id) and `Overloaded`.
        """

    def queued(self) -> Sequence[QueuedSubmit]:
        """Tasks that this node keeps until there is a leader, and those it could not submit; oldest first."""

    def queue_problems(self) -> list[str]:
        """What an operator should know about them."""

    async def queue(self, request_id: RequestId, task_id: TaskId, spec: TaskSpec, *, maybe_done: bool) -> QueuedSubmit:
        """Keep a task on this node's disk until there is a leader. Durable when it returns; the same request again gives the
        same record. Raises `Conflict`, `Overloaded` (full) or `Unavailable` (the disk refuses)."""

    async def unqueue(self, reference: str) -> QueuedSubmit:
        """Take one out, by name, id or request id. Raises `NotFound`."""

    async def freshen(self, timeout_s: float) -> float:
        """Bring the catalog here up to an index that a leader inside its lease named after this call began.

        Returns 0.0 when that worked within the time; otherwise the age of what is here: seconds since it was known to lack
        nothing that a leader had told was committed (infinite if never). Never raises."""

    def explain(self, task_id: TaskId) -> Explanation:
        """Why this task has no running container, computed here and now. Cost grows with the number of nodes."""

    def logs(self, task_id: TaskId, *, follow: bool, tail: int | None, since_utc: float) -> AsyncIterator[LogChunk]:
        """What the task's container writes, from whichever node has it. An async generator: close it to stop. Raises
        `NotFound` (no container yet, or gone) or `Unavailable` (its node is out of reach)."""

    async def seal_registry_auth(self, auth: bytes) -> bytes:
        """Seal registry credentials to the members of this moment; never in clear in the log."""

    def join_token(self) -> tuple[str, str]:
        """The join token and the join line that contains this node's address. Shown on the Unix socket only."""

    def authority(self) -> tuple[bytes, str]:
        """SHA-256 of the SubjectPublicKeyInfo of the authority that the API's certificate is signed by, and its certificate in
        PEM."""

    def authority_to_come(self) -> bytes:
        """The same fingerprint once the rotation under way is through: what a new API token names."""

    async def new_secret(self, *, remove: NodeId, reason: str, request_id: RequestId) -> RotateSecret:
        """A fresh secret for the cluster as it is known here, to be submitted; `remove` is a node that goes with it, or empty."""

    async def make_backup(self) -> tuple[KeptHeader, bytearray]:
        """The catalog of this moment, without secrets, API tokens and registry credentials. Takes O(state)."""

    async def kept_backups(self) -> Sequence[KeptRead]:
        """Snapshots kept in the data folder here, the oldest first."""

    async def survey_recovery(self) -> Survey:
        """Where this node and every member that answers stand, and which voters are missing. About two seconds at most."""

    def refuse_recovery(self, survey: Survey) -> None:
        """Raises `Conflict` where `begin_recovery` would be refused by what the survey found."""

    async def begin_recovery(self, *, confirm: str, even_behind: bool) -> int:
        """Begin a new recovery generation with this node alone, and start the daemon anew. Raises `UsageError`, `Conflict` or
        `Unavailable`, having done nothing."""

    def request_stop(self, kind: Literal["pause", "leave"]) -> None:
        """Ask the daemon to end: a pause announced to the others (containers run on), or for good. Returns at once."""


@dataclass(frozen=True, slots=True)
class ApiListeners:
    """What the API listens on. `tcp` is (address, port); with port 0 any free one."""

    socket_path: str
    tcp: tuple[str, int] | None = None
    ssl_context: ssl.SSLContext | None = None
    """TLS 1.3, with this node's certificate and the authority's in its chain. Needed for `tcp`: no plaintext mode exists."""
