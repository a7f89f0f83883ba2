"""The node as its API sees it: `swarm.api.face.NodeFace`, kept by the drivers of this one daemon.

It holds no state of its own. Reads come from the catalog and from gossip as they are; writes go through the replica, to whoever
leads; a task's output comes from the runner of the node that has it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal, cast

import trio

from swarm import scheduler
from swarm.adapters.kept_snapshots import Kept
from swarm.api.face import ConsensusStatus, Explanation, LogChunk
from swarm.api.quorum import UNHEARD_S, with_what_is_missing
from swarm.catalog import Catalog
from swarm.consensus.effects import Role
from swarm.consensus.recovery import Survey
from swarm.drivers.consensus import Replica
from swarm.drivers.logs import LogPlace, LogRelay
from swarm.drivers.membership import Gossip
from swarm.drivers.recovery import Recovery
from swarm.drivers.replica_disk import full_text, lack_text
from swarm.drivers.round_trips import RoundTripRow, RoundTrips
from swarm.drivers.runner import RunnerDriver
from swarm.drivers.submit_queue import SubmitQueue
from swarm.errors import PeerError, Unavailable
from swarm.model.archived import Question
from swarm.model.command import RotateSecret
from swarm.model.ids import NodeId, RequestId, TaskId
from swarm.model.liveness import EngineState, MemberView, StatusChange
from swarm.model.outcome import Applied, EventPage
from swarm.model.queued import QueuedSubmit
from swarm.model.task import TaskSpec
from swarm.model.view import ClusterView
from swarm.node.backups import Backups
from swarm.node.keys import Keys
from swarm.node.registry import RegistryCredentials
from swarm.node.witness import NoRunner
from swarm.ports import Clock
from swarm.wire.kept import KeptHeader


def node_state(runner: RunnerDriver | NoRunner, replica: Replica) -> tuple[EngineState, str]:
    """What work may be placed by, and why not: the engine's state, or FULL for a node whose own disk is."""
    room = replica.disk.room
    return (EngineState.FULL, full_text(room)) if room.full else runner.engine_state


class Face:
    """See `swarm.api.face.NodeFace` for what each method promises."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        replica: Replica,
        gossip: Gossip,
        round_trips: RoundTrips,
        clock: Clock,
        logs: LogRelay,
        engine_state: Callable[[], tuple[EngineState, str]],
        view: Callable[[], ClusterView],
        counters: Callable[[], Mapping[str, int]],
        refusals: Callable[[], list[str]],
        removed: Callable[[], bool],
        keys: Keys,
        registry: RegistryCredentials,
        queue: SubmitQueue,
        past: Callable[[Question], Awaitable[bytes]],
        recovery: Recovery,
        backups: Backups,
        stop: Callable[[Literal["pause", "leave"]], None],
    ) -> None:
        self._queue = queue
        self._catalog = catalog
        self._replica = replica
        self._gossip = gossip
        self._round_trips = round_trips
        self._clock = clock
        self._logs = logs
        self._engine_state = engine_state
        self._view = view
        self._counters = counters
        self._refusals = refusals
        self._removed = removed
        self._keys = keys
        self._registry = registry
        self._past = past
        self._recovery = recovery
        self._backups = backups
        self._stop = stop

    @property
    def node_id(self) -> NodeId:
        return self._replica.node_id

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    def members(self) -> Mapping[NodeId, MemberView]:
        return self._gossip.members()

    def now(self) -> float:
        return self._clock.now()

    def health_score(self) -> int:
        return self._gossip.health_score

    def status_changes(self, after: int) -> Sequence[StatusChange]:
        return self._gossip.history.after(after)

    def counted_about(self, node_id: NodeId) -> Mapping[str, int]:
        return self._gossip.history.of(node_id)

    async def round_trips(self) -> Sequence[RoundTripRow]:
        return await self._round_trips.collect()

    def refusals(self) -> list[str]:
        return self._refusals()

    def removed(self) -> bool:
        return self._removed()

    def engine_state(self) -> tuple[EngineState, str]:
        return self._engine_state()

    def consensus(self) -> ConsensusStatus:
        replica = self._replica
        voters = tuple(NodeId(voter.node_id) for voter in replica.configuration.voters)
        leads = replica.role is Role.LEADER
        me = self._catalog.nodes.get(replica.node_id)
        role = str(replica.role.value) if leads or replica.node_id in voters else "learner"
        if me is not None and me.witness and not leads:
            role = "witness"
        current = replica.lease_valid and replica.applied_index >= replica.commit_index
        return ConsensusStatus(
            role=role,
            term=replica.term,
            leader_id=replica.leader_id or None,
            last_index=replica.last_index,
            commit_index=replica.commit_index,
            applied_index=replica.applied_index,
            voters=voters,
            outgoing=tuple(NodeId(voter.node_id) for voter in replica.configuration.outgoing),
            lease_valid=replica.lease_valid,
            leader_contact_age_s=0.0 if replica.lease_valid else replica.leader_contact_age_s,
            stopped_at=replica.halted,
            unheard=replica.unheard_voters(UNHEARD_S),
            full=self._full_nodes(),
            stalled=self._stalled_nodes(),
            disk_lack=lack_text(replica.disk.room),
            last_leader=replica.last_leader,
            state_age_s=0.0 if current else self._state_age_s(),
            told_commit=max(replica.core.freshness.told_commit, replica.commit_index),
            recovery_generation=self._recovery.generation,
        )

    def _full_nodes(self) -> tuple[NodeId, ...]:
        full = [node_id for node_id, view in self._replica.followers().items() if view.disk_full]
        return (*full, self._replica.node_id) if self._replica.disk.room.full else tuple(full)

    def _stalled_nodes(self) -> tuple[NodeId, ...]:
        stalled = [node_id for node_id, view in self._replica.followers().items() if view.disk_age_s > UNHEARD_S]
        return (*stalled, self._replica.node_id) if self._replica.disk.age_s > UNHEARD_S else tuple(stalled)

    def counters(self) -> Mapping[str, int]:
        return Counter(self._counters())

    def events(self, since_index: int) -> EventPage:
        return self._catalog.events(since_index)

    async def past(self, question: Question) -> bytes:
        return await self._past(question)

    async def wait_applied(self, index: int) -> None:
        await self._replica.wait_applied(index)

    async def submit(self, command: Any, *, request_id: RequestId, timeout_s: float) -> Applied:
        try:
            return await self._replica.submit(command, request_id=request_id, timeout_s=timeout_s)
        except Unavailable as error:
            raise with_what_is_missing(self, error) from None

    def queued(self) -> Sequence[QueuedSubmit]:
        return self._queue.records

    def queue_problems(self) -> list[str]:
        return self._queue.problems()

    async def queue(self, request_id: RequestId, task_id: TaskId, spec: TaskSpec, *, maybe_done: bool) -> QueuedSubmit:
        return await self._queue.put(request_id, task_id, spec, maybe_done=maybe_done)

    async def unqueue(self, reference: str) -> QueuedSubmit:
        return await self._queue.remove(reference)

    async def freshen(self, timeout_s: float) -> float:
        with trio.move_on_after(timeout_s):
            try:
                index = await self._replica.read_barrier(timeout_s)
            except (Unavailable, PeerError):
                pass
            else:
                await self._replica.wait_applied(index)
                return 0.0
        age_s = self._state_age_s()
        return age_s if age_s > 0 else math.inf

    def _state_age_s(self) -> float:
        return max(0.0, self._clock.now() - self._replica.current_at)

    def explain(self, task_id: TaskId) -> Explanation:
        found = scheduler.explain(self._view(), task_id)
        return Explanation(summary=found.summary, nodes=found.nodes)

    async def logs(self, task_id: TaskId, *, follow: bool, tail: int | None, since_utc: float) -> AsyncIterator[LogChunk]:
        def look() -> LogPlace | None:
            task = self._catalog.tasks.get(task_id)
            assignment = self._catalog.assignments.get(task.assignment) if task is not None else None
            if task is None:
                return None
            if assignment is None:
                return LogPlace(NodeId(""), "", task.attempts, task.ended)
            return LogPlace(assignment.node_id, assignment.container_id, assignment.attempt, task.ended)

        pieces = self._logs.follow(look, follow=follow, tail=tail, since_utc=since_utc)
        async with aclosing(cast(Any, pieces)) as chunks:
            async for stream, data in chunks:
                yield LogChunk(stream, data)

    async def seal_registry_auth(self, auth: bytes) -> bytes:
        return await self._registry.seal(auth)

    def join_token(self) -> tuple[str, str]:
        return self._keys.join_token()

    def authority(self) -> tuple[bytes, str]:
        return self._keys.authority()

    def authority_to_come(self) -> bytes:
        return self._keys.authority_to_come()

    async def new_secret(self, *, remove: NodeId, reason: str, request_id: RequestId) -> RotateSecret:
        nodes = tuple(self._catalog.nodes.values())
        return await self._keys.new_secret(
            self._catalog.secrets, nodes, remove=remove, reason=reason, request_id=request_id
        )

    async def make_backup(self) -> tuple[KeptHeader, bytearray]:
        return await self._backups.make_backup()

    async def kept_backups(self) -> Sequence[Kept]:
        return await self._backups.kept()

    async def survey_recovery(self) -> Survey:
        return await self._recovery.survey()

    def refuse_recovery(self, survey: Survey) -> None:
        self._recovery.refuse(survey)

    async def begin_recovery(self, *, confirm: str, even_behind: bool) -> int:
        return await self._recovery.begin(confirm=confirm, even_behind=even_behind)

    def request_stop(self, kind: Literal["pause", "leave"]) -> None:
        self._stop(kind)
