"""The runner core: inputs about assignments, containers, operations and the leader; effects for engine and log.

There are no instructions, only state to compare: what the log assigns to this node against what carries this node's labels. Every
input updates one side and asks `reconcile.next_step` what follows; a lost reply, a call that finishes after it was given up, a
missed event or a restart of this process all end in the same comparison (DESIGN, section 9; PROTOCOLS, S18 to S21).

Pure: no I/O, no clock, no randomness of its own. Promises: a container without all of this node's labels is never touched; news
older than what was known is ignored; nothing new starts while the fence is down; at most one operation per copy.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from swarm.machine import NEVER, Outbox
from swarm.model.assignment import Assignment
from swarm.model.container import ContainerSeen, EngineEvent
from swarm.model.ids import ClusterId, NodeId
from swarm.model.liveness import EngineState
from swarm.model.phase import ENDS
from swarm.model.removal import Removal
from swarm.model.task import TaskSpec
from swarm.ports import EngineError
from swarm.runner import invariants, labels, outcomes, reports
from swarm.runner.config import RunnerConfig
from swarm.runner.copies import Copy, Holdings, adopt, stray
from swarm.runner.effects import AbandonOperation, Effect, NeedBarrier, Notice, Operation, SendReports, StartOperation
from swarm.runner.fence import Fence
from swarm.runner.reconcile import Abandon, Create, Do, Forget, JudgeExit, Look, MarkRunning, MarkStopped, next_step

REPORTS_AT_ONCE_MAX = 200
FORGOTTEN_KEPT = 256
STEPS_MAX = 8
Held = Mapping[str, tuple[Assignment, TaskSpec]]


class Runner:
    """One node's runner. `remembered` is what the former process last held; `rebooted`: the host started anew since then."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        node_name: str,
        node_address: str,
        cluster_id: ClusterId,
        config: RunnerConfig,
        rng: random.Random,
        now: float,
        rebooted: bool = False,
        remembered: Holdings | None = None,
        removal: Removal = Removal.NONE,
    ) -> None:
        self.node_id, self.node_name, self.node_address, self.cluster_id = node_id, node_name, node_address, cluster_id
        self.config = config
        self.rng = rng
        self.now = now
        self.fence = Fence(config=config, rebooted=rebooted, now=now, removal=removal)
        self.restarted_host = rebooted
        self.applied_index = 0
        self.held: dict[str, tuple[Assignment, TaskSpec]] = {}
        self.copies: dict[str, Copy] = {}
        self.strays: dict[str, Copy] = {}
        """By container id. Invariant: no container is both in a copy and here."""
        self.engine = EngineState.UNKNOWN
        self.listed = False
        self.trusted = False
        """What is held was true when this process or its predecessor last applied: restarts may rely on it."""
        self.operations: dict[int, Copy] = {}
        self._operations_begun = 0
        self._forgotten: OrderedDict[str, None] = OrderedDict()
        self._engine_lost_at = now
        self._decided_at = -NEVER
        self._outbox: Outbox[Effect] = Outbox()
        if remembered is not None and remembered.cluster_id == cluster_id and not self.disowned:
            self.trusted = True
            self._take_held(remembered.applied_index, {a.id: (a, spec) for a, spec in remembered.held}, now)

    # ---- inputs: the log ----------------------------------------------------------------------------------------------------

    def on_assignments(self, applied_index: int, held: Held, now: float) -> None:
        """This node's not-removed assignments at an applied index. An index below the known one is a replay: ignored, unless a
        leader just named it (the log was recovered to less than this node once saw)."""
        self.now = now
        named = self.fence.named_index
        if self.disowned or (applied_index < self.applied_index and (named is None or named >= self.applied_index)):
            return
        self._take_held(applied_index, held, now)
        self._decide_all()

    def on_fresh(self, number: int, commit_index: int, now: float) -> None:
        """A leader inside its lease named its commit index in answer to barrier `number`, asked after that effect came out."""
        self.now = now
        if self.fence.on_answer(number, commit_index, now):
            self.trusted = True
            for copy in self.copies.values():
                reports.hurry(copy)
        self._decide_all()

    def on_removal(self, removal: Removal, now: float) -> None:
        """What this node knows of its own removal changed. A removed one holds nothing more: all of its containers go."""
        self.now, self.fence.removal = now, removal
        if self.disowned:
            self._take_held(self.applied_index, {}, now)
            for copy in self.strays.values():
                copy.gone = True
        self._decide_all()

    def on_current(self, at: float) -> None:
        """At that moment what is applied here was all that leaders had named as committed: one that is heard says nothing of the
        assignments held here while its entries are not applied (a full disk, a long way behind)."""
        self.fence.maybe_lower(at)
        self.fence.on_current(at)

    def on_reconnect(self, now: float) -> None:
        """This node was cut off from the cluster: what it knows may be old."""
        self.fence.lower(now)
        self.tick(now)

    # ---- inputs: the engine -------------------------------------------------------------------------------------------------

    def on_engine(self, state: EngineState, now: float) -> None:
        """The engine's state changed. Coming up, it must be listed before anything is asked of it. A node's matter: no
        assignment changes its phase because of it."""
        self.now = now
        if state is not self.engine:
            if not _answers(state):
                self.listed, self._engine_lost_at = False, now
            self._outbox.emit(Notice("engine", self.node_name, f"{self.engine.value} -> {state.value}"))
            self.engine = state
        self._decide_all()

    def on_containers(self, seen: Sequence[ContainerSeen], asked_at: float, now: float) -> None:
        """Everything that runs or ran here, listed at `asked_at`: older than what later events and operations told."""
        self.now = now
        present = {one.container_id: one for one in seen if labels.assignment_of(one.labels, self.cluster_id, self.node_id)}
        for copy in (*self.copies.values(), *self.strays.values()):
            known = copy.container
            if known is not None and known.container_id not in present and _older(copy, asked_at):
                copy.container = None
        for container_id in [key for key, copy in self.strays.items() if copy.container is None]:
            del self.strays[container_id]
        for container_id in sorted(present):
            self._sight(present[container_id], asked_at)
        self.listed = self.listed or (_answers(self.engine) and asked_at >= self._engine_lost_at)
        self._decide_all()
        self.restarted_host = False

    def on_event(self, event: EngineEvent, now: float) -> None:
        """A hint from the engine: a start is believed, anything else is a reason to look."""
        self.now = now
        assignment_id = labels.assignment_of(event.labels, self.cluster_id, self.node_id)
        if assignment_id is None:
            return
        copy = self._copy_of(event.container_id, assignment_id)
        if event.action in ("create", "start"):
            outcomes.note_event(self, copy, assignment_id, event)
        elif copy is not None:
            copy.recheck, copy.touched_at = True, now
        if copy is not None:
            self._decide(copy, self._look())
        self._flush()

    def on_operation_done(self, number: int, result: ContainerSeen | EngineError | None, now: float) -> None:
        """An operation ended. One that was abandoned meanwhile still tells of the container it made."""
        self.now = now
        copy = self.operations.pop(number, None)
        if copy is None:
            if isinstance(result, ContainerSeen):
                self._sight(result, now)
        else:
            operation = copy.operation
            assert operation is not None
            copy.operation, copy.touched_at = None, now
            outcomes.note_result(self, copy, operation, result)
            self._decide(copy, self._look())
        self._flush()

    # ---- inputs: time -------------------------------------------------------------------------------------------------------

    @property
    def next_deadline(self) -> float:
        """When `tick` must be called at the latest."""
        times = [self.fence.next_deadline]
        for copy in self.copies.values():
            times += (reports.due_at(copy, self.config), copy.hold_until)
            times.append(copy.try_at if copy.waiting else NEVER)
            if copy.operation is not None and not copy.wanted:
                times.append(copy.operation_since + self.config.abandon_after_s)
        for copy in self.strays.values():
            times += (copy.hold_until, NEVER if copy.gone else copy.first_seen + self.config.stray_grace_s)
        return min((time for time in times if time > self._decided_at), default=NEVER)

    def tick(self, now: float) -> None:
        """Do whatever is due."""
        self.now = now
        self.fence.maybe_lower(now)
        self._decide_all()

    def on_stall(self, gap_s: float, now: float) -> None:
        """This process slept: leader contacts queued meanwhile are old news, so a long gap lowers the fence."""
        if gap_s >= self.config.stale_after_s:
            self.fence.lower(now)
        self.tick(now)

    def take_effects(self) -> list[Effect]:
        """Everything to carry out, in order."""
        return self._outbox.take()

    # ---- what others may read -----------------------------------------------------------------------------------------------

    @property
    def fresh(self) -> bool:
        """The fence is up."""
        return self.fence.is_fresh(self.applied_index)

    @property
    def disowned(self) -> bool:
        """This node was removed for certain: nothing that the log last assigned to it is its own any more."""
        return self.fence.removal is Removal.CERTAIN

    @property
    def running(self) -> int:
        """How many of our containers run."""
        return sum(copy.alive for copy in (*self.copies.values(), *self.strays.values()))

    def holdings(self) -> Holdings:
        """What to hand back at the next start."""
        return Holdings(self.cluster_id, self.applied_index, tuple(self.held[key] for key in sorted(self.held)))

    def container_of(self, assignment_id: str) -> str | None:
        """The container of an assignment, for its logs; None when there is none here."""
        copy = self.copies.get(assignment_id)
        return copy.container.container_id if copy is not None and copy.container is not None else None

    # ---- state changes ------------------------------------------------------------------------------------------------------

    def _take_held(self, applied_index: int, held: Held, now: float) -> None:
        self.applied_index = applied_index
        for assignment_id, (record, spec) in held.items():
            before = self.held.get(assignment_id)
            if before is not None and before[0] is record:
                continue
            copy = self.copies.get(assignment_id)
            if copy is None:
                self.copies[assignment_id] = copy = adopt(record, spec, now)
                self._claim_stray(copy)
            copy.record, copy.spec, copy.gone = record, spec, False
            if record.phase in ENDS and not copy.lost:
                copy.phase, copy.waiting = record.phase, False
        for assignment_id in sorted(self.held.keys() - held.keys()):
            self.copies[assignment_id].gone = True
        self.held = dict(held)

    def _claim_stray(self, copy: Copy) -> None:
        """Its container was here before the assignment was known. What is being done to it goes on, for the copy now."""
        for container_id, other in self.strays.items():
            if other.assignment_id == copy.assignment_id:
                del self.strays[container_id]
                copy.container, copy.touched_at, copy.recheck = other.container, other.touched_at, other.recheck
                if other.operation is not None:
                    copy.operation, copy.operation_number = other.operation, other.operation_number
                    copy.operation_since = other.operation_since
                    self.operations[copy.operation_number] = copy
                return

    def _copy_of(self, container_id: str, assignment_id: str) -> Copy | None:
        found = self.strays.get(container_id) or self.copies.get(assignment_id)
        if found is None or found.container is None or found.container.container_id == container_id:
            return found
        return None

    def _sight(self, seen: ContainerSeen, asked_at: float) -> None:
        """Take note of one container as it was at `asked_at`."""
        assignment_id = labels.assignment_of(seen.labels, self.cluster_id, self.node_id)
        if assignment_id is None:
            return
        copy = self._copy_of(seen.container_id, assignment_id)
        if copy is None:
            self.note_stray(assignment_id, seen)
        elif copy.container is None or _older(copy, asked_at):
            copy.container = seen

    def note_stray(self, assignment_id: str, seen: ContainerSeen) -> None:
        """A container that is ours by its labels and claimed by no assignment: tell people, and wait; a leftover of an
        assignment that was just cleared away waits for nobody."""
        copy = stray(assignment_id, seen, self.now)
        copy.gone = self.disowned or assignment_id in self._forgotten
        self.strays[seen.container_id] = copy
        if not copy.gone:
            self._outbox.emit(Notice("stray", _name(copy), "carries this node's labels, but no assignment claims it"))

    def notice(self, kind: str, subject: str, text: str) -> None:
        """Tell people."""
        self._outbox.emit(Notice(kind, subject, text))

    # ---- decisions ----------------------------------------------------------------------------------------------------------

    def _look(self, kept: dict[str, int] | None = None) -> Look:
        return Look(
            now=self.now,
            ready=self.listed and _answers(self.engine),
            trusted=self.trusted,
            may_start=self.fence.may_start(self.applied_index, self.now),
            may_restart=self.trusted and self.fence.may_restart(self.applied_index, self.now),
            kept=self._newest_ended() if kept is None else kept,
            abandon_after_s=self.config.abandon_after_s,
            stray_stop_grace_s=self.config.stray_stop_grace_s,
        )

    def _newest_ended(self) -> dict[str, int]:
        """Task -> attempt of its newest ended container: the one whose logs are kept."""
        kept: dict[str, int] = {}
        for copy in self.copies.values():
            if copy.ended and copy.container is not None:
                kept[copy.task_id] = max(copy.attempt, kept.get(copy.task_id, 0))
        return kept

    def _decide_all(self) -> None:
        self._decided_at = self.now
        number = self.fence.maybe_ask(self.now)
        if number is not None:
            self._outbox.emit(NeedBarrier(number))
        for copy in self.strays.values():
            if not copy.gone and self.fresh and self.now >= copy.first_seen + self.config.stray_grace_s:
                copy.gone = True
                self._outbox.emit(Notice("collected", _name(copy), "no assignment claims it: stopped and removed"))
        look = self._look()
        for copy in [*self.copies.values(), *self.strays.values()]:
            self._decide(copy, look)
        self._flush()

    def _decide(self, copy: Copy, look: Look) -> None:
        for _ in range(STEPS_MAX):
            match next_step(copy, look):
                case None:
                    return
                case Do(operation):
                    self._begin(copy, operation)
                case Create():
                    self._begin(copy, outcomes.run_of(self, copy))
                case MarkRunning():
                    outcomes.mark_running(copy, self.now)
                case JudgeExit():
                    outcomes.judge(self, copy)
                case MarkStopped():
                    outcomes.mark_stopped(copy, self.now)
                case Abandon():
                    self._abandon(copy)
                case Forget():
                    self._forget(copy)
                    return
        raise AssertionError(f"{copy.assignment_id} does not come to rest in phase {copy.phase.value}")

    def _abandon(self, copy: Copy) -> None:
        del self.operations[copy.operation_number]
        copy.operation = None
        self._outbox.emit(AbandonOperation(copy.operation_number))

    def _begin(self, copy: Copy, operation: Operation) -> None:
        self._operations_begun += 1
        copy.operation, copy.operation_number, copy.operation_since = operation, self._operations_begun, self.now
        self.operations[copy.operation_number] = copy
        outcomes.note_begin(copy, operation, self.now)
        self._outbox.emit(StartOperation(copy.operation_number, operation))

    def _forget(self, copy: Copy) -> None:
        if self.copies.get(copy.assignment_id) is copy:
            del self.copies[copy.assignment_id]
            self._forgotten[copy.assignment_id] = None
            if len(self._forgotten) > FORGOTTEN_KEPT:
                self._forgotten.popitem(last=False)
        for container_id in [key for key, other in self.strays.items() if other is copy]:
            del self.strays[container_id]

    def _flush(self) -> None:
        """Send what is due, in the order of assignments."""
        due = [copy for copy in self.copies.values() if reports.due_at(copy, self.config) <= self.now]
        for first in range(0, len(due), REPORTS_AT_ONCE_MAX):
            batch = due[first : first + REPORTS_AT_ONCE_MAX]
            self._outbox.emit(SendReports(tuple(reports.make_report(copy, self.config, self.now) for copy in batch)))

    def check(self) -> None:
        """Assert every invariant."""
        invariants.check(self)


def _answers(state: EngineState) -> bool:
    return state in (EngineState.UP, EngineState.FULL)


def _older(copy: Copy, asked_at: float) -> bool:
    """What is known of the copy's container is older than a look begun at `asked_at`."""
    return copy.operation is None and copy.touched_at <= asked_at


def _name(copy: Copy) -> str:
    return copy.container.name if copy.container is not None and copy.container.name else copy.assignment_id
