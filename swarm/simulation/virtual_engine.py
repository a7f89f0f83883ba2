"""A container engine on virtual time: it does what it is asked, late, sometimes without saying so.

It belongs to a host, not to a daemon: a call that a dead daemon made still finishes. What it does to the runner: a reply is lost
after the work was done, so the caller hears of a failure that was none; a call takes long; an event is dropped; the engine is
down, or hangs; a container ends by itself. Containers survive the death of daemon and engine, and end when the power goes.

Promise: `copy_started` and `copy_ended` of the watch are told the truth, at the moment it becomes true.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from swarm.model.container import ContainerPlan, ContainerSeen, ContainerStatus, EngineEvent, EngineTrouble
from swarm.model.liveness import EngineState
from swarm.model.task import RestartKind
from swarm.ports import EngineError
from swarm.runner.effects import Inspect, Operation, Remove, Run, Start, Stop

if TYPE_CHECKING:
    from swarm.simulation.host import Host

CALL_BOUND_S = 8.0
"""The adapter's own bound: a call without an answer is given up as `unreachable` after this."""
Result = ContainerSeen | EngineError | None
Done = Callable[[Result], None]


@dataclass(slots=True)
class Box:
    """One container. `runs` counts its starts, so that an end planned for an earlier one ends nothing."""

    container_id: str
    plan: ContainerPlan
    status: ContainerStatus = ContainerStatus.CREATED
    exit_code: int | None = None
    started_utc: float = 0.0
    finished_utc: float = 0.0
    runs: int = 0

    def seen(self) -> ContainerSeen:
        """As the engine shows it."""
        return ContainerSeen(
            self.container_id, self.plan.name, self.plan.labels, self.status, self.exit_code, False, "",
            self.started_utc, self.finished_utc,
        )


@dataclass(slots=True)
class Habits:
    """Chances per call or event, and times in seconds."""

    lose_reply: float = 0.0
    drop_event: float = 0.0
    slow: float = 0.0
    """Chance that a call takes up to 3 s."""
    ends_per_s: float = 0.0
    """Rate at which a running container ends by itself."""
    job_s: float = 4.0
    work_s: tuple[float, float] = (0.02, 0.2)


@dataclass(slots=True)
class VirtualEngine:
    """The engine of one host."""

    host: Host
    habits: Habits = field(default_factory=Habits)
    state: EngineState = EngineState.UP
    boxes: dict[str, Box] = field(default_factory=dict)
    listener: Callable[[EngineEvent], None] | None = None
    """The daemon's event stream; ends with the daemon and with the engine."""
    made: int = 0
    boot: int = 0
    """Grows when the power goes: calls of before are void."""

    _random: random.Random | None = None

    def __post_init__(self) -> None:
        self._random = self.host.scene.world.random(f"engine/{self.host.number}")
        self.host.reset_hooks.append(self._lose_power)

    # ---- calls

    def call(self, operation: Operation, done: Done, is_wanted: Callable[[], bool]) -> None:
        """Begin an operation. `done` may be called with a failure though the work is done, or long after. `is_wanted` is asked
        between creating and starting: an abandoned call does not start what it created."""
        world, rng = self.host.scene.world, self._rng()
        if self.state is EngineState.DOWN:
            world.after(0.005, done, EngineError(EngineTrouble.UNREACHABLE, "the engine is down"))
            return
        told = [False]

        def tell(result: Result) -> None:
            if not told[0]:
                told[0] = True
                done(result)

        low, high = self.habits.work_s
        takes_s = low + (high - low) * rng.random()
        if rng.random() < self.habits.slow:
            takes_s += 3 * rng.random()
        world.after(CALL_BOUND_S, tell, EngineError(EngineTrouble.UNREACHABLE, "no answer"))
        world.after(takes_s, self._work, self.boot, operation, tell, is_wanted)

    def _rng(self) -> random.Random:
        assert self._random is not None
        return self._random

    def _work(self, boot: int, operation: Operation, tell: Done, is_wanted: Callable[[], bool]) -> None:
        world = self.host.scene.world
        if boot != self.boot or self.state is EngineState.DOWN:
            return
        if self.state is EngineState.HUNG or self.host.is_frozen:
            world.after(0.5, self._work, boot, operation, tell, is_wanted)
            return
        if isinstance(operation, Stop):
            box = self.boxes.get(operation.container_id)
            if box is not None and box.status is ContainerStatus.RUNNING:
                delay_s = min(operation.grace_s, 2.0) * self._rng().random()
                world.after(delay_s, self._stopped, box, box.runs, tell)
                return
        result = self._do(operation, is_wanted)
        if self._rng().random() >= self.habits.lose_reply:
            tell(result)

    def _do(self, operation: Operation, is_wanted: Callable[[], bool]) -> Result:
        match operation:
            case Run():
                box = self._create(operation.plan)
                if box.runs:
                    return box.seen()  # as `ports.Engine.run` promises
                if not is_wanted():
                    return EngineError(EngineTrouble.OTHER, "given up before it was started")
                self._start(box)
                return box.seen()
            case Start():
                started = self.boxes.get(operation.container_id)
                if started is None:
                    return EngineError(EngineTrouble.NOT_FOUND, "no such container")
                self._start(started)
                return started.seen()
            case Stop() | Inspect():
                known = self.boxes.get(operation.container_id)
                return known.seen() if known else None
            case Remove():
                gone = self.boxes.get(operation.container_id)
                if gone is not None and gone.status is ContainerStatus.RUNNING:
                    return EngineError(EngineTrouble.CONFLICT, "it runs")
                if gone is not None:
                    del self.boxes[operation.container_id]
                    self._event("destroy", gone)
                return None

    def _create(self, plan: ContainerPlan) -> Box:
        for box in self.boxes.values():
            if box.plan.name == plan.name:
                return box
        self.made += 1
        box = Box(f"c{self.host.number}-{self.made}", plan)
        self.boxes[box.container_id] = box
        self._event("create", box)
        return box

    def _start(self, box: Box) -> None:
        if box.status is ContainerStatus.RUNNING:
            return
        box.status, box.exit_code = ContainerStatus.RUNNING, None
        box.runs += 1
        box.started_utc = self.host.clock.utc()
        self._trace(f"runs {box.plan.name}")
        self.host.scene.watch.copy_started(self.host, box.plan.labels)
        self._event("start", box)
        world, rng = self.host.scene.world, self._rng()
        if box.plan.spec.restart.kind is RestartKind.NO:
            world.after(self.habits.job_s * (0.5 + rng.random()), self._end, box, box.runs, 0)
        elif self.habits.ends_per_s:
            world.after(rng.expovariate(self.habits.ends_per_s), self._end, box, box.runs, 1)

    def place_stranger(self, plan: ContainerPlan) -> None:
        """Somebody else's container, running; nobody but the power should end it, and nobody starts it again."""
        self.made += 1
        box = Box(f"s{self.host.number}-{self.made}", plan, ContainerStatus.RUNNING, runs=1)
        self.boxes[box.container_id] = box

    def _stopped(self, box: Box, run: int, tell: Done) -> None:
        self._end(box, run, 143)
        if self._rng().random() >= self.habits.lose_reply:
            tell(box.seen())

    def _end(self, box: Box, run: int, exit_code: int) -> None:
        if box.status is not ContainerStatus.RUNNING or box.runs != run:
            return  # the power went, or it was started again
        box.status, box.exit_code = ContainerStatus.EXITED, exit_code
        box.finished_utc = self.host.clock.utc()
        self._trace(f"ended {box.plan.name} with {exit_code}")
        self.host.scene.watch.copy_ended(self.host, box.plan.labels)
        self._event("die", box)

    def _event(self, action: str, box: Box) -> None:
        if self.listener is None or self.state is not EngineState.UP:
            return
        rng = self._rng()
        if rng.random() >= self.habits.drop_event:
            event = EngineEvent(action, box.container_id, box.plan.labels, self.host.clock.utc(), box.exit_code)
            listener = self.listener
            self.host.scene.world.after(0.001 + 0.01 * rng.random(), self._deliver, listener, event)

    def _deliver(self, listener: Callable[[EngineEvent], None], event: EngineEvent) -> None:
        if self.listener is listener:
            listener(event)

    def list(self) -> list[ContainerSeen] | None:
        """Every container, or None when the engine does not answer."""
        if self.state is not EngineState.UP:
            return None
        return [self.boxes[key].seen() for key in sorted(self.boxes)]

    # ---- accidents

    def crash(self) -> None:
        """The engine's process ends; containers run on, event streams end."""
        self._trace("ENGINE DOWN")
        self.state = EngineState.DOWN
        self.listener = None

    def hang(self) -> None:
        """It takes calls and answers none."""
        self._trace("ENGINE HANGS")
        self.state = EngineState.HUNG

    def recover(self) -> None:
        """It is well again."""
        self._trace("engine is up")
        self.state = EngineState.UP

    def _lose_power(self) -> None:
        self.listener = None
        self.boot += 1
        for box in self.boxes.values():
            if box.status is ContainerStatus.RUNNING:
                box.status, box.exit_code = ContainerStatus.EXITED, 137
                self.host.scene.watch.copy_ended(self.host, box.plan.labels)
        self.state = EngineState.UP

    def _trace(self, text: str) -> None:
        self.host.scene.world.trace(self.host.name, text)
