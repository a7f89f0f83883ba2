"""A node as its API sees it, in memory: the real catalog, fed directly, without consensus, gossip or an engine.

What a leader and a runner would do, tests do by hand through `log`. `down` makes writes fail as without a quorum, `broken`
makes them end in a bug.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import trio

from swarm.api.face import ConsensusStatus, Explanation, LogChunk
from swarm.catalog import Catalog
from swarm.drivers.round_trips import Measured, RoundTripRow
from swarm.errors import NotFound, Unavailable
from swarm.model.archived import Question
from swarm.model.command import RotateSecret
from swarm.model.ids import ClusterId, NodeId, RequestId, TaskId
from swarm.model.liveness import EngineState, MemberStatus, MemberView, Sample, StatusChange
from swarm.model.node import VerdictKind
from swarm.model.outcome import Applied, EventPage
from swarm.model.queued import QueuedSubmit
from swarm.model.secret import Authority, SealedSecret
from swarm.model.task import TaskSpec
from tests.archive_kit import answer_from
from tests.catalog_kit import Log, make_node


class MemoryFace:
    """Node n1 of a cluster of three, of which it is the leader and the only voter."""

    def __init__(self, *, authority_pem: str = "", fingerprint: bytes = b"") -> None:
        self.log = Log(*(make_node(name) for name in ("n1", "n2", "n3")))
        self.node_id = NodeId("id-n1")
        self.applied = trio.lowlevel.ParkingLot()
        self.statuses = dict.fromkeys(self.log.catalog.nodes, MemberStatus.ALIVE)
        self.changes: list[StatusChange] = []
        self.evidence: dict[str, str] = {}
        self.rows = {
            observer: RoundTripRow(
                observer, tuple(Measured(other, 0.0004, MemberStatus.ALIVE) for other in self.statuses if other != observer)
            )
            for observer in self.statuses
        }
        self.down = False
        self.broken = False
        self.age_s = 0.0
        self.full: tuple[NodeId, ...] = ()
        """Whose own disks are full, as their leader knows."""
        self.status: dict[str, Any] = {}
        """What `consensus` says otherwise than a lone voter in the lead."""
        self.full_by_gossip = set[NodeId]()
        self.engines: dict[NodeId, EngineState] = {}
        """What is said of them: UP of this node's and UNKNOWN of others' where nothing is."""
        self.stopped: list[str] = []
        self.submitted: list[tuple[Any, str]] = []
        self.chunks: list[LogChunk] = []
        self.logs_go_on = False
        self.logs_refusal: Exception | None = None
        self.kept: list[QueuedSubmit] = []
        self.is_removed = False
        self.refused: list[str] = []
        self._authority = (fingerprint or hashlib.sha256(b"authority").digest(), authority_pem)

    @property
    def catalog(self) -> Catalog:
        return self.log.catalog

    def members(self) -> Mapping[NodeId, MemberView]:
        return {
            node.id: MemberView(
                node.id, node.name, node.address, self.statuses[node.id], 1, 0, 0.0, 1.0,
                evidence=self.evidence.get(node.id, ""), rtt_s=0.0004,
                sample=Sample(node.id, 1, 1, health=2, engine=self.engines.get(node.id, EngineState.UNKNOWN),
                              disk_full=node.id in self.full_by_gossip),
            )
            for node in self.catalog.nodes.values()
            if node.id in self.statuses
        }

    def see(self, name: str, status: MemberStatus, evidence: str = "") -> None:
        """Gossip changes its mind about a node, at the time of the log's newest entry."""
        node_id = NodeId(f"id-{name}")
        before, self.statuses[node_id] = self.statuses[node_id], status
        number = len(self.changes) + 1
        kind = VerdictKind.DAEMON_GONE if status is MemberStatus.DEAD else None
        self.changes.append(
            StatusChange(number, self.log.time_utc, self.node_id, node_id, name, before, status, kind, evidence)
        )

    def now(self) -> float:
        return 1.012

    def health_score(self) -> int:
        return 1

    def status_changes(self, after: int) -> Sequence[StatusChange]:
        return self.changes[after:]

    def counted_about(self, node_id: NodeId) -> Mapping[str, int]:
        return {"suspicions_opened": 1} if node_id == "id-n3" else {}

    async def round_trips(self) -> Sequence[RoundTripRow]:
        await trio.lowlevel.checkpoint()
        return list(self.rows.values())

    def removed(self) -> bool:
        return self.is_removed

    def refusals(self) -> list[str]:
        return self.refused

    def engine_state(self) -> tuple[EngineState, str]:
        return self.engines.get(self.node_id, EngineState.UP), "24.0"

    def consensus(self) -> ConsensusStatus:
        index = self.catalog.applied_index
        leader = None if self.down else self.node_id
        status = ConsensusStatus(
            "leader", 1, leader, index, index, index, (NodeId("id-n1"),), not self.down, self.age_s, full=self.full,
            state_age_s=self.age_s, told_commit=index,
        )  # fmt: skip
        return replace(status, **self.status)

    def counters(self) -> Mapping[str, int]:
        return {"packets_dropped": 3}

    def events(self, since_index: int) -> EventPage:
        return self.catalog.events(since_index)

    async def past(self, question: Question) -> bytes:
        await trio.lowlevel.checkpoint()
        return answer_from(self.log.entries, question)

    async def wait_applied(self, index: int) -> None:
        while self.catalog.applied_index < index:
            await self.applied.park()

    async def submit(self, command: Any, *, request_id: RequestId, timeout_s: float) -> Applied:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise AssertionError("a bug, made on purpose")
        if self.down:
            raise Unavailable("cannot write", cause="1 of 3 voters answers, 2 are needed", hint="bring n2 or n3 back")
        self.submitted.append((command, request_id))
        applied = self.apply(command, request_id)
        if applied.outcome is not None:
            raise applied.outcome.to_error()
        return applied

    def queued(self) -> Sequence[QueuedSubmit]:
        return tuple(self.kept)

    def queue_problems(self) -> list[str]:
        return [f"{each.spec.name} was not submitted" for each in self.kept if each.ended]

    async def queue(self, request_id: RequestId, task_id: TaskId, spec: TaskSpec, *, maybe_done: bool) -> QueuedSubmit:
        await trio.lowlevel.checkpoint()
        self.kept.append(QueuedSubmit(ClusterId("c1"), request_id, task_id, spec, 1_000.0, maybe_done))
        return self.kept[-1]

    async def unqueue(self, reference: str) -> QueuedSubmit:
        await trio.lowlevel.checkpoint()
        for number, record in enumerate(self.kept):
            if reference in (record.spec.name, record.task_id, record.request_id):
                return self.kept.pop(number)
        raise NotFound(f"no task '{reference}' is queued on this node")

    def apply(self, command: Any, request_id: str = "") -> Applied:
        """One more entry."""
        applied = self.log.apply(command, request_id)
        self.applied.unpark_all()
        return applied

    async def freshen(self, timeout_s: float) -> float:
        await trio.lowlevel.checkpoint()
        return self.age_s

    def explain(self, task_id: TaskId) -> Explanation:
        return Explanation("no feasible node (3 lack cpu)", tuple((node_id, "lacks cpu") for node_id in self.catalog.nodes))

    async def logs(self, task_id: TaskId, *, follow: bool, tail: int | None, since_utc: float) -> AsyncIterator[LogChunk]:
        if self.logs_refusal is not None:
            raise self.logs_refusal
        for chunk in self.chunks if tail is None else self.chunks[-tail:]:
            yield chunk
        if follow and self.logs_go_on:
            await trio.sleep_forever()

    async def seal_registry_auth(self, auth: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"sealed:" + hashlib.sha256(auth).digest()

    def join_token(self) -> tuple[str, str]:
        return "swarm1-x", "swarm up --peers 127.0.0.1"

    def authority(self) -> tuple[bytes, str]:
        return self._authority

    def authority_to_come(self) -> bytes:
        return self._authority[0]

    async def new_secret(self, *, remove: NodeId, reason: str, request_id: RequestId) -> RotateSecret:
        await trio.lowlevel.checkpoint()
        number = self.catalog.secrets.newest + 1
        present, fresh = (Authority(bytes([each]) * 32, b"certificate") for each in (self.catalog.secrets.sending, number))
        sealed = tuple(SealedSecret(node_id, b"sealed") for node_id in self.catalog.nodes if node_id != remove)
        return RotateSecret(number, fresh, present, sealed, remove, reason, request_id)

    def request_stop(self, kind: Literal["pause", "leave"]) -> None:
        self.stopped.append(kind)

    # ---- what a leader and runners do ---------------------------------------------------------------------------------------

    def run_task(self, task_id: TaskId, node: str = "n2", phase: str = "running", **fields: Any) -> None:
        """Assign it if it has no living assignment, and report a phase."""
        from swarm.model.phase import Phase

        task = self.catalog.tasks[task_id]
        current = self.catalog.assignments.get(task.assignment)
        assignment = task.assignment if current is not None and not current.ended else self.log.assign(task_id, node)
        self.log.report(assignment, Phase(phase), **fields)
        self.applied.unpark_all()
