"""A container engine in memory: the work itself without any waiting, so that a bench on virtual time can do it early, late or
without an answer, and an asynchronous face of it that keeps `ports.Engine`."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import trio

from swarm.model.container import (
    ContainerPlan,
    ContainerSeen,
    ContainerStatus,
    EngineEvent,
    EngineInfo,
    EngineTrouble,
)
from swarm.model.ids import ClusterId, NodeId
from swarm.model.task import MountKind
from swarm.ports import EngineError
from swarm.runner import labels
from swarm.runner.effects import Inspect, Operation, Remove, Run, Start, Stop

OURS = (labels.CLUSTER, labels.NODE, labels.TASK, labels.ATTEMPT)


@dataclass
class Box:
    container_id: str
    name: str
    plan_labels: dict[str, str]
    plan: ContainerPlan | None = None
    status: ContainerStatus = ContainerStatus.CREATED
    exit_code: int | None = None
    oom_killed: bool = False
    started_utc: float = 0.0
    finished_utc: float = 0.0
    starts: int = 0

    def seen(self) -> ContainerSeen:
        return ContainerSeen(
            self.container_id,
            self.name,
            dict(self.plan_labels),
            self.status,
            self.exit_code,
            self.oom_killed,
            "",
            self.started_utc,
            self.finished_utc,
        )


@dataclass
class Containers:
    """What an engine holds. `clock` gives UTC; `on_event` hears of everything at once; `touched` is every id ever changed."""

    clock: Callable[[], float]
    on_event: Callable[[EngineEvent], None] = lambda event: None
    images: set[str] = field(default_factory=lambda: {"here:1"})
    paths: set[str] = field(default_factory=lambda: {"/"})
    ports: set[int] = field(default_factory=set)
    full: bool = False
    wedged: set[str] = field(default_factory=set)
    """Containers that cannot be started any more, for a reason of the engine's own."""
    boxes: dict[str, Box] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    made: int = 0
    most_alive: dict[str, int] = field(default_factory=dict)

    def do(self, operation: Operation) -> ContainerSeen | None:
        match operation:
            case Run(plan):
                box = self.create(plan)
                if box.status is ContainerStatus.CREATED:
                    self.start(box.container_id)
                return box.seen()
            case Start(container_id):
                self.start(container_id)
            case Stop(container_id):
                self.end(container_id, 143)
            case Remove(container_id):
                self.remove(container_id)
                return None
            case Inspect(container_id):
                pass
        found = self.boxes.get(container_id)
        return found.seen() if found is not None else None

    def create(self, plan: ContainerPlan) -> Box:
        for box in self.boxes.values():
            if box.name == plan.name:
                if any(box.plan_labels.get(key) != plan.labels.get(key) for key in OURS):
                    raise EngineError(EngineTrouble.CONFLICT, f"the name {plan.name} is taken")
                return box
        if self.full:
            raise EngineError(EngineTrouble.NO_SPACE, "no space left on device")
        if plan.spec.image not in self.images:
            raise EngineError(EngineTrouble.NO_IMAGE, f"no such image: {plan.spec.image}")
        for mount in plan.spec.mounts:
            if mount.kind is MountKind.BIND and mount.source not in self.paths:
                raise EngineError(EngineTrouble.NO_MOUNT_SOURCE, f"bind source path does not exist: {mount.source}")
        return self.add(plan.name, plan.labels, plan)

    def add(self, name: str, found_labels: dict[str, str], plan: ContainerPlan | None = None) -> Box:
        self.made += 1
        box = Box(f"c{self.made}", name, dict(found_labels), plan)
        self.boxes[box.container_id] = box
        self.touched.add(box.container_id)
        self._tell("create", box)
        return box

    def start(self, container_id: str) -> None:
        box = self.boxes.get(container_id)
        if box is None:
            raise EngineError(EngineTrouble.NOT_FOUND, f"no such container: {container_id}")
        if box.status is ContainerStatus.RUNNING:
            return
        if container_id in self.wedged:
            raise EngineError(EngineTrouble.CONFLICT, f"task {container_id}: already exists")
        for port in box.plan.spec.ports if box.plan is not None else ():
            if port.host_port in self.ports:
                raise EngineError(EngineTrouble.PORT_TAKEN, f"port {port.host_port} is already allocated")
        box.status, box.exit_code, box.started_utc = ContainerStatus.RUNNING, None, self.clock()
        box.starts += 1
        self.touched.add(container_id)
        self._tell("start", box)
        key = f"{box.plan_labels.get(labels.TASK)}"
        alive = sum(b.status is ContainerStatus.RUNNING and b.plan_labels.get(labels.TASK) == key for b in self.boxes.values())
        self.most_alive[key] = max(alive, self.most_alive.get(key, 0))

    def end(self, container_id: str, exit_code: int, *, oom_killed: bool = False) -> None:
        box = self.boxes.get(container_id)
        if box is None or box.status is not ContainerStatus.RUNNING:
            return
        box.status, box.exit_code, box.oom_killed = ContainerStatus.EXITED, exit_code, oom_killed
        box.finished_utc = self.clock()
        self.touched.add(container_id)
        self._tell("die", box)

    def remove(self, container_id: str) -> None:
        box = self.boxes.pop(container_id, None)
        if box is not None:
            self.touched.add(container_id)
            self._tell("destroy", box)

    def list(self) -> list[ContainerSeen]:
        return [box.seen() for box in self.boxes.values()]

    def of(self, assignment_id: str) -> Box | None:
        task_id, _, attempt = assignment_id.rpartition(".")
        for box in self.boxes.values():
            if (box.plan_labels.get(labels.TASK), box.plan_labels.get(labels.ATTEMPT)) == (task_id, attempt):
                return box
        return None

    def _tell(self, action: str, box: Box) -> None:
        self.on_event(EngineEvent(action, box.container_id, dict(box.plan_labels), self.clock(), box.exit_code))


class FakeEngine:
    """Keeps `ports.Engine` in memory. `down` makes every call fail and ends the event streams."""

    def __init__(self, clock: Callable[[], float], *, node_id: NodeId) -> None:
        self.containers = Containers(clock, self._tell)
        self.down = False
        self.output: dict[str, list[tuple[str, bytes]]] = {}
        self._node_id = node_id
        self._listeners: list[trio.MemorySendChannel[EngineEvent]] = []

    async def _ask(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.down:
            raise EngineError(EngineTrouble.UNREACHABLE, "the engine is down")

    def crash(self) -> None:
        self.down = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _tell(self, event: EngineEvent) -> None:
        for listener in self._listeners:
            listener.send_nowait(event)

    async def info(self) -> EngineInfo:
        await self._ask()
        return EngineInfo("fake", "1", "1.41", "amd64", 2, 1 << 30)

    async def list(self, cluster_id: ClusterId) -> list[ContainerSeen]:
        await self._ask()
        found = self.containers.list()
        return [seen for seen in found if labels.assignment_of(seen.labels, cluster_id, self._node_id) is not None]

    async def create(self, plan: ContainerPlan, registry_auth: dict[str, str] | None) -> str:
        await self._ask()
        return self.containers.create(plan).container_id

    async def run(self, plan: ContainerPlan, registry_auth: dict[str, str] | None) -> ContainerSeen:
        await self._ask()
        seen = self.containers.do(Run(plan))
        assert seen is not None
        return seen

    async def start(self, container_id: str) -> None:
        await self._ask()
        self.containers.start(container_id)

    async def stop(self, container_id: str, *, signal: str, grace_s: float) -> None:
        await self._ask()
        self.containers.end(container_id, 143)

    async def remove(self, container_id: str) -> None:
        await self._ask()
        self.containers.remove(container_id)

    async def inspect(self, container_id: str) -> ContainerSeen | None:
        await self._ask()
        return self.containers.do(Inspect(container_id))

    async def events(self, cluster_id: ClusterId) -> AsyncGenerator[EngineEvent, None]:
        await self._ask()
        sender, receiver = trio.open_memory_channel[EngineEvent](math.inf)
        self._listeners.append(sender)
        yield EngineEvent("connected", "", {}, 0.0)
        async for event in receiver:
            if labels.assignment_of(event.labels, cluster_id, self._node_id) is not None:
                yield event

    async def logs(
        self, container_id: str, *, follow: bool, tail: int | None, since_utc: float
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        await self._ask()
        lines = self.output.get(container_id, [])
        for line in lines if tail is None else lines[len(lines) - tail :]:
            yield line
