"""Snapshots of a large catalog: made while it goes on, restored at a start, installed at a follower; time, longest step, memory.

Two replicas in one process, each with the real store on the real disk, the real drivers and the real catalog; between them a link
that hands calls over at once. The loop is watched by Trio itself: a step is what one task does between two of its pauses, and
while it lasts nothing else runs, no heartbeat either. Processor time of a step is what the work costs; time by the clock has the
machine's other processes in it. `python -m testnet.bench.snapshots [TASKS]` prints the section.
"""

from __future__ import annotations

import gc
import random
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from swarm.adapters.clock import SystemClock
from swarm.adapters.store import open_store
from swarm.catalog import Catalog
from swarm.catalog.requests import Requests
from swarm.catalog.snapshot import slices
from swarm.catalog.state import State
from swarm.consensus.config import ConsensusConfig
from swarm.drivers.collector import collect_now_and_then, set_program_apart
from swarm.drivers.consensus import Replica
from swarm.errors import Unreachable
from swarm.model.assignment import Assignment, assignment_id
from swarm.model.command import SetReason
from swarm.model.entry import Configuration, HardState, SnapshotMeta, Voter
from swarm.model.ids import ClusterId, NodeId, RequestId, TaskId
from swarm.model.node import Node
from swarm.model.outcome import Applied
from swarm.model.phase import Desired, Phase
from swarm.model.resources import Resources
from swarm.model.task import Move, Task, TaskSpec
from swarm.ports import Batch, CallHandler, MessageHandler
from swarm.wire.checksum import crc32c
from testnet.bench.figures import Aim, Figures, Section

TASKS = 100_000
NODES = 50
STEP_MS_MAX = 5.0
CONFIG = ConsensusConfig(snapshot_every=100, trailing=0)
LEADER, FOLLOWER = NodeId("a" * 32), NodeId("b" * 32)
AT = SnapshotMeta(1000, 1, Configuration((Voter(LEADER, 1),)), 1, 0, 1000.0, 0, 0)


def large_catalog(tasks: int, rng: random.Random) -> State:
    """So many tasks, each running on one of `NODES` nodes, with four steps of history."""
    state = State()
    state.cluster_id, state.last_index, state.last_time_utc = ClusterId("c"), AT.index, AT.time_utc
    state.configuration, state.configuration_index = AT.configuration, AT.configuration_index
    nodes = [NodeId(f"{number:032x}") for number in range(NODES)]
    for number, node_id in enumerate(nodes):
        state.put_node(Node(node_id, f"n{number}", "", "", b"", b"", 1, capacity=Resources(2**40, 2**60, 2**30)))
    for number in range(tasks):
        task_id, node_id = TaskId(f"{rng.getrandbits(128):032x}"), nodes[number % NODES]
        name, moved = assignment_id(task_id, 1), (Phase.ASSIGNED, Phase.PREPARING, Phase.STARTING, Phase.RUNNING)
        moves = tuple(Move(number + step, 1.0 * number, 1, phase, node_id) for step, phase in enumerate(moved))
        spec = TaskSpec(f"task-{number}", "registry.local/app:1", env=("A=1", "B=2"), resources=Resources(100, 2**26))
        task = Task(task_id, spec, Desired.RUNNING, number, 1.0, moves=moves, moves_total=4)
        state.put_task(task)
        state.put_assignment(
            Assignment(name, task_id, 1, node_id, Desired.RUNNING, Phase.RUNNING, number, 1, container_id="f" * 64)
        )
        state.put_task(Task(task_id, spec, Desired.RUNNING, number, 1.0, attempts=1, assignment=name, moves=moves, moves_total=4))
    return state


class Steps(trio.abc.Instrument):
    """The longest step of the loop since `reset`, milliseconds: of processor time; by the clock; and by the clock of those that
    gave the processor away themselves: to wait for the interpreter or a lock that another thread has, or for a disk."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.cpu_ms = self.wall_ms = self.waited_ms = 0.0
        self._begin()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._begin()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        wall_ms = 1000 * (time.perf_counter() - self._wall_s)
        self.cpu_ms = max(self.cpu_ms, 1000 * (time.thread_time() - self._cpu_s))
        self.wall_ms = max(self.wall_ms, wall_ms)
        if given_away() > self._given_away:
            self.waited_ms = max(self.waited_ms, wall_ms)

    def _begin(self) -> None:
        self._given_away = given_away()
        self._cpu_s, self._wall_s = time.thread_time(), time.perf_counter()


def given_away() -> int:
    """How often this thread has stopped running by itself (voluntary context switches)."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class Wire:
    """Everybody's peers in this process."""

    def __init__(self) -> None:
        self.ends: dict[NodeId, WireEnd] = {}

    def end(self, node_id: NodeId) -> WireEnd:
        return self.ends.setdefault(node_id, WireEnd(self, node_id))


class WireEnd:
    """Keeps `ports.Peers`."""

    def __init__(self, wire: Wire, node_id: NodeId) -> None:
        self._wire = wire
        self._node_id = node_id
        self.messages: dict[str, MessageHandler] = {}
        self.calls: dict[str, CallHandler] = {}

    def on_message(self, kind: str, handler: MessageHandler) -> None:
        self.messages[kind] = handler

    def on_call(self, kind: str, handler: CallHandler) -> None:
        self.calls[kind] = handler

    def connected(self, to: NodeId) -> bool:
        return to in self._wire.ends

    def silent_s(self, to: NodeId) -> float:
        return 0.0

    def send(self, to: NodeId, kind: str, payload: bytes) -> bool:
        if to in self._wire.ends:
            self._wire.ends[to].messages[kind](self._node_id, payload)
        return to in self._wire.ends

    async def call(self, to: NodeId, kind: str, payload: bytes, *, timeout_s: float) -> bytes:
        if to not in self._wire.ends:
            raise Unreachable(f"{to} is not there")
        with trio.fail_after(timeout_s):
            return await self._wire.ends[to].calls[kind](self._node_id, payload)


async def founded(folder: Path, state: State) -> None:
    """A store whose log begins behind a snapshot of that state."""
    store, _ = open_store(folder)
    spool, whole = await store.spool(), b"".join(slices(state, Requests()))
    await spool.append(whole)
    meta = SnapshotMeta(AT.index, 1, AT.configuration, 1, 0, AT.time_utc, crc32c(whole), len(whole))
    data = await spool.finish(meta)
    await store.write([Batch(1, hard_state=HardState(0, 1), snapshot=meta, snapshot_data=data, discard_log=True)])
    await store.close()


@asynccontextmanager
async def replica(folder: Path, name: NodeId, wire: Wire, learners: tuple[Voter, ...]) -> AsyncIterator[tuple[Replica, Catalog]]:
    """One that runs, with its catalog."""
    store, stored = await trio.to_thread.run_sync(open_store, folder)  # the daemon does it before it has a loop
    catalog = Catalog()
    made = Replica(
        me=Voter(name, stored.store_generation), recovery_generation=0, config=CONFIG, rng=random.Random(name), stored=stored,
        store=store, catalog=catalog, peers=wire.end(name), clock=SystemClock(), learners=lambda: learners,
    )  # fmt: skip
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(made.run)
            yield made, catalog
            nursery.cancel_scope.cancel()
    finally:
        wire.ends.pop(name, None)
        await store.close()


class Findings:
    """One phase after the other, each with its time, its longest step and the memory it had at most."""

    def __init__(self) -> None:
        self.figures: dict[str, Figures] = {}
        self.steps = Steps()
        self._began = 0.0

    def begin(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        self.steps.reset()
        self._began = time.perf_counter()

    def end(self, phase: str) -> None:
        took_s = time.perf_counter() - self._began
        self.add(f"{phase}: time", "s", took_s)
        self.add(f"{phase}: longest step, processor", "ms", self.steps.cpu_ms)
        self.add(f"{phase}: longest step that waited for another thread or a disk, by the clock", "ms", self.steps.waited_ms)
        self.add(f"{phase}: longest step, by the clock", "ms", self.steps.wall_ms)
        self.add(f"{phase}: memory at most", "MiB", memory_mib("VmHWM"))

    def add(self, name: str, unit: str, value: float) -> None:
        self.figures.setdefault(name, Figures(name, unit)).add(value)


def memory_mib(which: str) -> float:
    """This process's, from /proc: VmRSS now, VmHWM at most since it was cleared."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


async def submits(leader: Replica, state_ids: list[TaskId], done: Callable[[], bool]) -> int:
    """One change of a task after the other until `done`. Returns how many were applied."""
    count = 0
    while not done():
        command = SetReason(state_ids[count % len(state_ids)], f"reason {count}")
        result: Applied = await leader.submit(command, request_id=RequestId(f"{leader.last_index}"), timeout_s=30.0)
        assert result.outcome is None, result
        count += 1
    return count


async def make_one(leader: Replica, ids: list[TaskId], found: Findings) -> None:
    """Submits until one is due, and then while it is made."""
    await submits(leader, ids, lambda: leader.is_making_snapshot)
    found.begin()
    began = time.perf_counter()
    count = await submits(leader, ids, lambda: not leader.is_making_snapshot)
    found.end("snapshot")
    found.add("snapshot: submits applied meanwhile, one client", "/s", count / (time.perf_counter() - began))


async def measure_once(folder: Path, state: State, found: Findings) -> None:
    """Start, snapshot, install, in that order."""
    await founded(folder / "leader", state)
    ids = list(state.tasks)
    wire = Wire()
    learners = (Voter(LEADER, 1), Voter(FOLLOWER, 1))
    trio.lowlevel.add_instrument(found.steps)
    set_program_apart()  # and the catalogs of others than who is measured
    found.begin()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect_now_and_then)  # as a daemon does
        async with replica(folder / "leader", LEADER, wire, learners) as (leader, catalog):
            while not leader.may_act:
                await trio.sleep(0.01)
            found.end("restart")
            await make_one(leader, ids, found)
            await install(folder / "follower", leader, catalog, wire, found, learners)
        nursery.cancel_scope.cancel()
    trio.lowlevel.remove_instrument(found.steps)


async def install(
    folder: Path, leader: Replica, leading: Catalog, wire: Wire, found: Findings, learners: tuple[Voter, ...]
) -> None:
    """A follower with an empty store, until it has what the leader has."""
    set_program_apart()  # and the catalogs of others than who is measured
    found.begin()
    async with replica(folder, FOLLOWER, wire, learners) as (follower, catalog):
        await follower.wait_applied(leader.applied_index)
        found.end("install")
        assert len(catalog.tasks) == len(leading.tasks)


def measure(runs: int, *, tasks: int = TASKS) -> Section:
    """Everything, so many times, in this process."""
    state, found = large_catalog(tasks, random.Random(1)), Findings()
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="snapshots-") as name:
            trio.run(measure_once, Path(name), state, found)
    size_mib = sum(map(len, slices(state, Requests()))) / 2**20
    longest = [each for name, each in sorted(found.figures.items()) if "processor" in name]
    return Section(
        f"Snapshots of a catalog of {tasks:,} tasks",
        f"{tasks:,} tasks on {NODES} nodes, each with its assignment, {size_mib:.0f} MiB as a snapshot. **Restart**: from "
        "opening the store to a leader that has applied everything, its only voter. **Snapshot**: from the entry that "
        "makes it due to where the log begins behind it, durable, while one client changes tasks. **Install**: an empty "
        "follower in the same process, from its start until it has applied what the leader has. A step is what one task "
        "of the loop does between two pauses; the aim is for its processor time. By the clock it holds what other processes of "
        "the machine took meanwhile; the row of those that waited shows what the process's own threads, which share one "
        "interpreter with the loop, may add. Both replicas and the bench's own copy of the catalog are in the memory counted.",
        figures=list(found.figures.values()),
        aims=[Aim(each.name, each.percentile(1.0), STEP_MS_MAX, "ms") for each in longest],
    )


if __name__ == "__main__":
    print(measure(1, tasks=int(sys.argv[1]) if len(sys.argv) > 1 else TASKS).markdown())
