"""One runner core on virtual time, with an engine that may be slow, silent or down and a log that may be out of reach."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from swarm.model.assignment import Assignment, assignment_id
from swarm.model.command import Report
from swarm.model.container import ContainerSeen, EngineEvent, EngineTrouble
from swarm.model.ids import ClusterId, NodeId, TaskId
from swarm.model.liveness import EngineState
from swarm.model.phase import ENDS, Desired, Phase, may_move
from swarm.model.removal import Removal
from swarm.model.task import Restart, RestartKind, TaskSpec
from swarm.ports import EngineError
from swarm.runner import labels
from swarm.runner.config import RunnerConfig
from swarm.runner.core import Runner
from swarm.runner.effects import AbandonOperation, NeedBarrier, Notice, SendReports, StartOperation
from tests.fakes.container_engine import Containers

CLUSTER = ClusterId("c" * 32)
NODE = NodeId("a" * 32)
UTC = 1_700_000_000.0


@dataclass
class Faults:
    """Chances per operation or event."""

    lose_reply: float = 0.0
    never_done: float = 0.0
    slow: float = 0.0
    drop_event: float = 0.0


def job(name: str = "web", kind: RestartKind = RestartKind.ALWAYS, **changes: object) -> TaskSpec:
    return TaskSpec(name=name, image="here:1", restart=Restart(kind), **changes)  # type: ignore[arg-type]


class Bench:
    def __init__(self, seed: int = 1, *, leader: bool = True, rebooted: bool = False) -> None:
        self.now = 100.0
        self.rng = random.Random(seed)
        self.faults = Faults()
        self.leader = leader
        self.engine_up = True
        self.containers = Containers(lambda: UTC + self.now, self._tell)
        self.records: dict[str, tuple[Assignment, TaskSpec]] = {}
        self.applied_index = 10
        self.reports: list[tuple[float, Report]] = []
        self.operations: list[tuple[float, object]] = []
        self.notices: list[Notice] = []
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._life = 0
        self.boot(rebooted=rebooted)

    # ---- the daemon

    def boot(
        self, *, rebooted: bool = False, remember: bool = False, applied: bool = True, removal: Removal = Removal.NONE
    ) -> None:
        """A new process. What the old one had asked of the engine still happens, but nobody hears of it."""
        self._life += 1
        remembered = self.core.holdings() if remember else None
        self.core = Runner(
            node_id=NODE,
            node_name="h1",
            node_address="10.0.0.1:4747",
            cluster_id=CLUSTER,
            config=RunnerConfig(),
            rng=random.Random(self.rng.random()),
            now=self.now,
            rebooted=rebooted,
            remembered=remembered,
            removal=removal,
        )
        if applied:
            self.core.on_assignments(self.applied_index, dict(self.records), self.now)
        self.connect_engine()
        self._settle()
        self._every_second(self._life)

    def power_cut(self) -> None:
        for box in self.containers.boxes.values():
            if labels.CLUSTER in box.plan_labels:
                self.containers.end(box.container_id, 137)
        self._heap.clear()

    def connect_engine(self) -> None:
        self.core.on_engine(EngineState.UP if self.engine_up else EngineState.DOWN, self.now)
        if self.engine_up:
            self.core.on_containers(self.containers.list(), self.now, self.now)

    def crash_engine(self) -> None:
        self.engine_up = False
        self.connect_engine()
        self._settle()

    def recover_engine(self) -> None:
        self.engine_up = True
        self.connect_engine()
        self._settle()

    def _every_second(self, life: int) -> None:
        if life != self._life:
            return
        if self.leader:
            self.core.on_current(self.now)
        if self.engine_up and int(self.now) % 30 == 0:
            self.core.on_containers(self.containers.list(), self.now, self.now)
        self.after(1.0, lambda: self._every_second(life))

    # ---- the log

    def assign(self, spec: TaskSpec | None = None, *, task: str = "t1", attempt: int = 1) -> str:
        spec = spec or job()
        key = assignment_id(TaskId(task), attempt)
        self.applied_index += 1
        record = Assignment(key, TaskId(task), attempt, NODE, Desired.RUNNING, Phase.ASSIGNED, self.applied_index, 1)
        self.records[key] = (record, spec)
        self.publish()
        return key

    def change(self, key: str, **changes: object) -> None:
        record, spec = self.records[key]
        self.applied_index += 1
        self.records[key] = (replace(record, **changes), spec)  # type: ignore[arg-type]
        self.publish()

    def order_stop(self, key: str) -> None:
        self.change(key, desired=Desired.STOPPED)

    def forget(self, key: str) -> None:
        self.applied_index += 1
        del self.records[key]
        self.publish()

    def publish(self) -> None:
        self.core.on_assignments(self.applied_index, dict(self.records), self.now)
        self._settle()

    def record(self, key: str) -> Assignment:
        return self.records[key][0]

    def _apply(self, reports: tuple[Report, ...]) -> None:
        if not self.leader:
            return
        for report in reports:
            found = self.records.get(report.assignment_id)
            if found is None or report.sequence <= found[0].report_sequence or found[0].phase in ENDS:
                continue
            old = found[0]
            if report.phase is not old.phase and not may_move(old.phase, report.phase):
                raise AssertionError(f"an illegal move was reported: {old.phase} to {report.phase}")
            self.reports.append((self.now, report))
            self.records[old.id] = (
                replace(
                    old,
                    phase=report.phase,
                    report_sequence=report.sequence,
                    container_id=report.container_id,
                    exit_code=report.exit_code,
                    reason=report.reason,
                    restarts=report.restarts,
                    started_utc=report.started_utc,
                ),
                found[1],
            )
        self.applied_index += 1
        self.publish()

    # ---- effects

    def _settle(self) -> None:
        for effect in self.core.take_effects():
            match effect:
                case StartOperation():
                    self.operations.append((self.now, effect.operation))
                    self._begin(effect)
                case SendReports(reports):
                    self.after(0.02, lambda reports=reports: self._apply(reports))
                case NeedBarrier(number):
                    if self.leader:
                        life = self._life
                        self.after(0.02, lambda number=number, life=life: self._answer(number, life))
                case Notice():
                    self.notices.append(effect)
                case AbandonOperation():
                    pass
        self.core.check()

    def _answer(self, number: int, life: int) -> None:
        if self.leader and life == self._life:
            self.core.on_fresh(number, self.applied_index, self.now)

    def _begin(self, effect: StartOperation) -> None:
        life, rng, faults = self._life, self.rng, self.faults
        takes_s = 0.1 + (rng.random() * 8 if rng.random() < faults.slow else 0.0)
        answered = [False]

        def tell(result: ContainerSeen | EngineError | None) -> None:
            if not answered[0] and life == self._life:
                answered[0] = True
                self.core.on_operation_done(effect.number, result, self.now)

        def work() -> None:
            if not self.engine_up:
                tell(EngineError(EngineTrouble.UNREACHABLE, "the engine is down"))
                return
            try:
                result: ContainerSeen | EngineError | None = self.containers.do(effect.operation)
            except EngineError as error:
                result = error
            if rng.random() >= faults.lose_reply:
                tell(result)

        if rng.random() >= faults.never_done:
            self.after(takes_s, work)
        self.after(5.0, lambda: tell(EngineError(EngineTrouble.UNREACHABLE, "no answer")))

    def _tell(self, event: EngineEvent) -> None:
        if self.engine_up and self.rng.random() >= self.faults.drop_event:
            life = self._life
            self.after(0.001, lambda: self.core.on_event(event, self.now) if life == self._life else None)

    # ---- time

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay_s, self._count, call))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(200_000):
            at = min(self._heap[0][0] if self._heap else until, self.core.next_deadline, until)
            self.now = max(self.now, at)
            if self._heap and self._heap[0][0] <= self.now:
                heapq.heappop(self._heap)[2]()
            elif self.core.next_deadline <= self.now:
                self.core.tick(self.now)
            elif self.now >= until:
                return
            self._settle()
        raise AssertionError("the runner does not come to rest")

    def begun(self, kind: type) -> int:
        return sum(isinstance(operation, kind) for _, operation in self.operations)
