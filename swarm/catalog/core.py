"""The catalog itself: applies the log's entries, one by one, to the tables, and answers questions about them.

Every replica applies the same entries in the same order and so holds the same state (PROTOCOLS S4): nothing here reads a
clock, draws a random number or depends on the order of a hash table; times are those of the entries. Applying is total for
known kinds: content that makes no sense is a rejection, the same on every replica. A kind or version this program does not
know raises `UnknownEntry` and changes nothing: apply stops there rather than skip (PROTOCOLS S28).

Promises: entries are applied in order of index without a gap; a request id is applied once; after an exception or a rejection
no table has changed, except that the index and the log's time moved on.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from swarm.catalog import assignments, lookup, nodes, secrets, snapshot, tasks
from swarm.catalog.checks import finite, invalid
from swarm.catalog.history import EventRing
from swarm.catalog.requests import Requests
from swarm.catalog.restoring import Restoring
from swarm.catalog.state import State
from swarm.catalog.turn import Turn
from swarm.errors import BadMessage, Bug, UnknownEntry
from swarm.model import command as commands
from swarm.model.apitoken import ApiToken
from swarm.model.assignment import Assignment
from swarm.model.entry import Configuration, Entry
from swarm.model.hostport import PortsTaken
from swarm.model.ids import ClusterId, NodeId, TaskId
from swarm.model.liveness import MemberView
from swarm.model.node import Node
from swarm.model.outcome import Applied, EventPage, Rejected
from swarm.model.resources import Resources
from swarm.model.secret import Secrets
from swarm.model.task import Task
from swarm.model.view import ClusterView, FollowerView
from swarm.wire.codec import decode_untrusted
from swarm.wire.limits import PAYLOAD_BYTES_MAX

Handler = Callable[[State, Any, Turn], Rejected | str]

HANDLERS: dict[type[Any], Handler] = {
    commands.Noop: lambda state, command, turn: "",
    commands.Found: nodes.apply_found,
    Configuration: nodes.apply_configuration,
    commands.Admit: nodes.apply_admit,
    commands.Declare: nodes.apply_declare,
    commands.SetNode: nodes.apply_set_node,
    commands.RemoveNode: nodes.apply_remove_node,
    commands.PassVerdict: nodes.apply_verdict,
    commands.Submit: tasks.apply_submit,
    commands.SubmitMany: tasks.apply_submit_many,
    commands.SubmitQueued: tasks.apply_submit_queued,
    commands.StopTask: tasks.apply_stop,
    commands.RemoveTask: tasks.apply_remove,
    commands.SetReason: tasks.apply_reason,
    commands.Assign: assignments.apply_assign,
    commands.StopAssignment: assignments.apply_stop_assignment,
    commands.Reports: assignments.apply_reports,
    commands.CreateApiToken: nodes.apply_create_token,
    commands.RevokeApiToken: nodes.apply_revoke_token,
    commands.RotateSecret: secrets.apply_rotate,
    commands.AckSecret: secrets.apply_ack,
    commands.AdvanceSecret: secrets.apply_advance,
}


class Catalog:
    """One replica's catalog. Its mappings are read-only to others and good until the next `apply` or `restore`."""

    def __init__(self) -> None:
        self._state = State()
        self._requests = Requests()
        self._events = EventRing()
        self.counters: dict[str, int] = {}
        """Reports dropped, by reason; since this process began."""

    def apply(self, entry: Entry) -> Applied:
        """Apply the next entry. Raises `UnknownEntry` (nothing changed) or `Bug` (an entry out of order)."""
        state = self._state
        if entry.index != state.last_index + 1:
            raise Bug(f"entry {entry.index} does not follow the applied index {state.last_index}")
        version, command_class = commands.COMMANDS.get(entry.kind, (0, None))
        handler = HANDLERS.get(command_class) if command_class is not None else None
        if handler is None or not 1 <= entry.version <= version:
            raise UnknownEntry(f"entry {entry.index} is of kind {entry.kind!r} version {entry.version}: upgrade this node")
        state.last_index = entry.index
        state.last_time_utc = max(state.last_time_utc, finite(entry.time_utc))
        state.schema = max(state.schema, commands.SCHEMA_SINCE.get((entry.kind, entry.version), 1))
        self._requests.forget_old(state.last_time_utc)
        if entry.request_id:
            earlier = self._requests.earlier(entry)
            if earlier is not None:
                return Applied(entry.index, earlier[1], earlier[0], repeated=earlier[2])
        turn = Turn(entry, state.last_time_utc, self.counters, self._requests.known_since(state.last_time_utc))
        result = self._run(handler, command_class, entry, turn)
        rejected = result if isinstance(result, Rejected) else None
        value = "" if isinstance(result, Rejected) else result
        if entry.request_id:
            self._requests.remember(entry, state.last_time_utc, value, rejected)
        events = tuple(turn.events)
        self._events.add(events)
        touched = (frozenset(turn.nodes), frozenset(turn.tasks))
        return Applied(entry.index, rejected, value, events, *touched, refused=tuple(turn.refused))

    def _run(self, handler: Handler, command_class: type[Any] | None, entry: Entry, turn: Turn) -> Rejected | str:
        assert command_class is not None
        try:
            command = decode_untrusted(entry.payload, command_class, bytes_max=PAYLOAD_BYTES_MAX)
        except BadMessage as error:
            return invalid(f"cannot apply entry {entry.index} ({entry.kind})", str(error)[:200])
        return handler(self._state, command, turn)

    # ---- reading ----------------------------------------------------------------------------------------------------------

    @property
    def cluster_id(self) -> ClusterId:
        return self._state.cluster_id

    @property
    def applied_index(self) -> int:
        return self._state.last_index

    @property
    def time_utc(self) -> float:
        """Log time: that of the newest entry."""
        return self._state.last_time_utc

    @property
    def configuration(self) -> Configuration:
        """The voter set as last applied."""
        return self._state.configuration

    @property
    def nodes(self) -> Mapping[NodeId, Node]:
        return self._state.nodes

    @property
    def removed_nodes(self) -> Mapping[NodeId, int]:
        """Ids that are never admitted again, and the index of their removal."""
        return self._state.removed_nodes

    @property
    def tasks(self) -> Mapping[TaskId, Task]:
        return self._state.tasks

    @property
    def assignments(self) -> Mapping[str, Assignment]:
        return self._state.assignments

    @property
    def names(self) -> Mapping[str, TaskId]:
        """Of the tasks that have not ended."""
        return self._state.names

    @property
    def phases(self) -> Mapping[str, int]:
        """How many tasks people are shown in each phase; none of those without any."""
        return {phase: count for phase, count in self._state.phases.items() if count}

    def task_ids(self, after: TaskId | None, count: int) -> list[TaskId]:
        """Some of the ids of all tasks, in order: the first ones, or those after one. O(count)."""
        return self._state.task_ids(after, count)

    @property
    def by_node(self) -> Mapping[NodeId, Mapping[str, None]]:
        """Ids of each node's assignments that have not ended."""
        return self._state.by_node

    @property
    def at_home(self) -> Mapping[NodeId, int]:
        """How many of those are the current ones of their tasks; a node may be missing that has none."""
        return self._state.at_home

    @property
    def placed(self) -> Mapping[NodeId, Mapping[str, None]]:
        """Ids of each node's assignments, ended ones included; nothing under the id of a node that has none."""
        return self._state.placed

    @property
    def reserved(self) -> Mapping[NodeId, Resources]:
        return self._state.reserved

    @property
    def ports_taken(self) -> Mapping[NodeId, PortsTaken]:
        return self._state.ports_taken

    @property
    def pending(self) -> Sequence[TaskId]:
        return self._state.pending

    @property
    def api_tokens(self) -> Mapping[str, ApiToken]:
        return self._state.api_tokens

    @property
    def secrets(self) -> Secrets:
        """The cluster's secrets: numbers, authorities and answers; the same object until one of them changes."""
        return self._state.secrets

    def events(self, since_index: int) -> EventPage:
        """Events of entries after `since_index`, oldest first, from the last 4,096."""
        return self._events.since(since_index, last_index=self._state.last_index)

    def find_task(self, text: str) -> Task:
        """By id, name (one that has not ended first, else the newest) or unique prefix of an id. Raises `NotFound`. O(tasks)."""
        return lookup.find_task(self._state, text)

    def find_node(self, text: str) -> Node:
        """By id, name or unique prefix of an id. Raises `NotFound`. O(nodes)."""
        return lookup.find_node(self._state, text)

    def held_by(self, node_id: NodeId) -> dict[str, tuple[Assignment, Task]]:
        """Every assignment of a node that is not removed, ended ones included: what its runner keeps. O(of them)."""
        found = (self._state.assignments[each] for each in self._state.placed.get(node_id, ()))
        return {assignment.id: (assignment, self._state.tasks[assignment.task_id]) for assignment in found}

    def view(
        self,
        now: float,
        self_id: NodeId,
        members: Mapping[NodeId, MemberView],
        *,
        last_index: int = 0,
        is_leader: bool = False,
        leader_since: float = 0.0,
        configuration: Configuration | None = None,
        configuration_committed: bool = True,
        followers: Mapping[NodeId, FollowerView] | None = None,
        leaving: Collection[NodeId] = (),
    ) -> ClusterView:
        """One look at everything, good until the next `apply`. Copies nothing."""
        state = self._state
        return ClusterView(
            now=now,
            self_id=self_id,
            nodes=state.nodes,
            tasks=state.tasks,
            assignments=state.assignments,
            by_node=state.by_node,
            reserved=state.reserved,
            pending=state.pending,
            members=members,
            last_index=last_index or state.last_index,
            is_leader=is_leader,
            leader_since=leader_since,
            configuration=state.configuration if configuration is None else configuration,
            configuration_committed=configuration_committed,
            followers=followers or {},
            ports_taken=state.ports_taken,
            moving=tuple(sorted(state.moving)),
            secrets=state.secrets,
            leaving=leaving,
        )

    # ---- snapshots --------------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """All of it as bytes, at the applied index. O(state): see `snapshot_slices` for one that leaves the loop room."""
        return b"".join(self.snapshot_slices())

    def snapshot_slices(self) -> Iterator[bytes]:
        """The same bytes in pieces of at most 200 records, all of the moment of the first."""
        return snapshot.slices(self._state, self._requests)

    def backup_slices(self) -> Iterator[bytes]:
        """The same without what is not to leave the cluster: secrets, API tokens, credentials of registries."""
        return snapshot.slices(self._state, self._requests, bare=True)

    def restoring(self) -> Restoring:
        """Become what a snapshot holds, step by step; until the last one nothing changes."""
        return Restoring(self._become)

    def restore(self, data: bytes) -> None:
        """The same in one go. Raises `BadMessage`, with nothing changed."""
        restoring = self.restoring()
        for _ in itertools.chain(restoring.feed(data), restoring.finish(), restoring.clear()):
            pass

    def _become(self, state: State, requests: Requests) -> tuple[State, Requests]:
        """What it was until now. Events begin anew there."""
        replaced = self._state, self._requests
        self._state, self._requests, self._events = state, requests, EventRing(state.last_index)
        return replaced

    def digest(self) -> bytes:
        """SHA-256 of the state: equal on all replicas at an equal applied index. O(state)."""
        digest = hashlib.sha256()
        for part in snapshot.slices(self._state, self._requests, pack=msgspec.msgpack.encode):  # eight times as fast as CBOR
            digest.update(part)
        return digest.digest()

    def check(self) -> None:
        """Assert every invariant. O(state)."""
        self._state.check()
