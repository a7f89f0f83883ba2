"""The runner's loop between a catalog, an engine and a leader in memory, on Trio's mock clock."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from swarm.drivers.holdings import Holdings
from swarm.drivers.replica_apply import Changes
from swarm.drivers.runner import RunnerDriver
from swarm.drivers.sampler import Sampler
from swarm.errors import NotFound, Unauthenticated, Unavailable
from swarm.model.assignment import Assignment, assignment_id
from swarm.model.command import Reports
from swarm.model.container import ContainerPlan, ContainerStatus
from swarm.model.ids import ClusterId, NodeId, RequestId, TaskId
from swarm.model.liveness import EngineState, Sample
from swarm.model.outcome import Applied
from swarm.model.phase import Desired, Phase
from swarm.model.removal import Removal
from swarm.model.task import Task, TaskSpec
from swarm.ports import HostLoad
from swarm.runner.config import RunnerConfig
from swarm.runner.copies import Holdings as Remembered
from swarm.runner.core import Runner
from swarm.wire.codec import decode_untrusted
from tests.fakes.container_engine import FakeEngine

NODE = NodeId("a" * 32)
OTHER = NodeId("b" * 32)
CLUSTER = ClusterId("c" * 32)
SPEC = TaskSpec(name="web", image="here:1")


class VirtualClock:
    """Trio's mock time as CLOCK_BOOTTIME, with a jump for what the process slept through."""

    def __init__(self) -> None:
        self.slept_s = 0.0

    def now(self) -> float:
        return trio.current_time() + self.slept_s

    def utc(self) -> float:
        return 1_700_000_000.0 + self.now()


class SmallCluster:
    """Catalog and replica in one: applies reports, answers barriers while there is a leader."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.leader = True
        self.applied_index = 0
        self.tasks: dict[TaskId, Task] = {}
        self.assignments: dict[str, Assignment] = {}
        self.submitted: list[Reports] = []
        self.barriers = 0
        self.behind = 0
        """Entries that the leader knows to be committed and that are not applied here: nothing here is current meanwhile."""
        self._heard_at = 0.0
        self._callbacks: list[Callable[[Changes], None]] = []

    @property
    def placed(self) -> dict[NodeId, dict[str, None]]:
        placed: dict[NodeId, dict[str, None]] = {}
        for each in self.assignments.values():
            placed.setdefault(each.node_id, {})[each.id] = None
        return placed

    @property
    def current_at(self) -> float:
        if self.leader and not self.behind:
            self._heard_at = self.clock.now()
        return self._heard_at

    def subscribe(self, callback: Callable[[Changes], None]) -> None:
        self._callbacks.append(callback)

    async def submit(self, command: Any, *, request_id: RequestId, timeout_s: float = 10.0) -> Any:
        await trio.sleep(0.01)
        if not self.leader:
            raise Unavailable("no leader")
        self.submitted.append(command)
        for report in command.reports:
            old = self.assignments.get(report.assignment_id)
            if old is not None and report.sequence > old.report_sequence:
                self.put(
                    replace(
                        old,
                        phase=report.phase,
                        report_sequence=report.sequence,
                        container_id=report.container_id,
                        exit_code=report.exit_code,
                        reason=report.reason,
                        restarts=report.restarts,
                        started_utc=report.started_utc,
                    )
                )

    async def read_barrier(self, timeout_s: float = 3.0) -> int:
        self.barriers += 1
        await trio.sleep(0.01)
        if not self.leader:
            raise Unavailable("no leader")
        return self.applied_index + self.behind

    def put(self, assignment: Assignment) -> None:
        self.assignments[assignment.id] = assignment
        task = self.tasks.get(assignment.task_id)
        if task is None:
            task = Task(assignment.task_id, SPEC, Desired.RUNNING, 1, 0.0)
        self.tasks[task.id] = replace(task, assignment=assignment.id)
        self.changed(task.id)

    def changed(self, task_id: str) -> None:
        self.applied_index += 1
        applied = Applied(self.applied_index, touched_tasks=frozenset({task_id}))
        for callback in self._callbacks:
            callback(Changes(self.applied_index, (applied,)))

    def assign(self, task: str = "t1", attempt: int = 1, node: NodeId = NODE) -> str:
        key = assignment_id(TaskId(task), attempt)
        self.put(Assignment(key, TaskId(task), attempt, node, Desired.RUNNING, Phase.ASSIGNED, 1, 1))
        return key


class Memory:
    def __init__(self) -> None:
        self.saved: list[bytes] = []

    async def save(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.saved.append(data)


class Bench:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.clock = VirtualClock()
        self.cluster = SmallCluster(self.clock)
        self.engine = FakeEngine(self.clock.utc, node_id=NODE)
        self.memory = Memory()
        self.notices: list[tuple[str, str, str]] = []
        self.scope = trio.CancelScope()
        self.boot()

    def boot(self, remembered: Remembered | None = None) -> None:
        self.core = Runner(
            node_id=NODE,
            node_name="h1",
            node_address="10.0.0.1:4747",
            cluster_id=CLUSTER,
            config=RunnerConfig(),
            rng=random.Random(1),
            now=self.clock.now(),
            remembered=remembered,
        )
        self.driver = RunnerDriver(
            self.core,
            self.engine,
            self.cluster,
            self.cluster,
            self.clock,
            request_id=lambda: RequestId("r"),
            unseal=self.unseal,
            notice=lambda *text: self.notices.append(text),
            memory=self.memory,
        )

    async def unseal(self, plan: ContainerPlan) -> dict[str, str]:
        raise Unauthenticated("sealed to others")

    async def start(self) -> None:
        async def run(task_status: trio.TaskStatus[None]) -> None:
            with trio.CancelScope() as self.scope:
                await self.driver.run(task_status=task_status)

        await self.nursery.start(run)

    def phase(self, key: str) -> Phase:
        return self.cluster.assignments[key].phase


@asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery)
        await bench.start()
        yield bench
        nursery.cancel_scope.cancel()


async def test_an_assignment_in_the_catalog_runs_and_the_log_shows_it(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as bench:
        await trio.sleep(1)
        key = bench.cluster.assign()
        await trio.sleep(1)
        assert bench.phase(key) is Phase.RUNNING
        assert bench.driver.containers == 1 and bench.driver.engine_state == (EngineState.UP, "")
        await trio.sleep(60)
        assert bench.cluster.barriers == 1, "what is current is not asked for again"


async def test_without_a_leader_it_waits_and_asks_again(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as bench:
        bench.cluster.leader = False
        key = bench.cluster.assign()
        await trio.sleep(60)
        assert bench.engine.containers.made == 0 and bench.cluster.barriers > 20
        bench.cluster.leader = True
        await trio.sleep(2)
        assert bench.phase(key) is Phase.RUNNING


async def test_a_removal_that_was_taken_back_gives_the_node_its_work_again_without_another_entry(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        key = bench.cluster.assign()
        await trio.sleep(3)
        assert bench.driver.containers == 1
        bench.driver.tell_removal(Removal.CERTAIN)
        await trio.sleep(60)
        assert bench.driver.containers == 0
        bench.driver.tell_removal(Removal.NONE)
        await trio.sleep(10)
        assert bench.driver.containers == 1 and bench.phase(key) is Phase.RUNNING


async def test_after_a_pause_the_fence_is_down_before_anything_else(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as bench:
        await trio.sleep(1)
        assert bench.core.fresh
        bench.clock.slept_s += 60
        bench.cluster.leader = False
        bench.cluster.assign()
        await trio.sleep(5)
        assert not bench.core.fresh and bench.engine.containers.made == 0


async def test_who_takes_no_entries_for_a_while_starts_nothing_on_the_way_when_it_takes_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its leader is heard all the time, and its disk was full: what it reads first may have been given up since."""
    async with running() as bench:
        await trio.sleep(1)
        assert bench.core.fresh
        bench.cluster.behind = 3
        await trio.sleep(8)
        assert not bench.core.fresh
        for left in (2, 1):
            bench.cluster.behind = left
            bench.cluster.assign(f"t{left}")
            await trio.sleep(0.2)
        assert bench.engine.containers.made == 0
        bench.cluster.behind = 0
        last = bench.cluster.assign("t0")
        await trio.sleep(1)
        assert bench.core.fresh and bench.phase(last) is Phase.RUNNING


async def test_credentials_that_do_not_open_matter_only_where_the_image_must_be_pulled_and_are_then_named(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "SPEC", replace(SPEC, registry_auth=b"sealed"))
    async with running() as bench:
        await trio.sleep(1)
        here = bench.cluster.assign()
        await trio.sleep(1)
        assert bench.phase(here) is Phase.RUNNING
        bench.engine.containers.images.clear()
        missing = bench.cluster.assign("t2")
        await trio.sleep(1)
        reason = bench.cluster.assignments[missing].reason
        assert "no such image" in reason and "registry credentials cannot be opened here: sealed to others" in reason


async def test_an_engine_crash_is_a_state_and_restarts_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as bench:
        await trio.sleep(1)
        key = bench.cluster.assign()
        await trio.sleep(1)
        reported = len(bench.cluster.submitted)
        bench.engine.crash()
        await trio.sleep(40)
        state, text = bench.driver.engine_state
        assert state is EngineState.DOWN and "down" in text
        waiting = bench.cluster.assign("t2")
        await trio.sleep(5)
        assert bench.phase(waiting) is Phase.ASSIGNED
        bench.engine.down = False
        await trio.sleep(5)
        assert bench.driver.engine_state == (EngineState.UP, "")
        box = bench.engine.containers.of(key)
        assert box is not None and box.starts == 1 and bench.phase(waiting) is Phase.RUNNING
        assert all(report.assignment_id == waiting for sent in bench.cluster.submitted[reported:] for report in sent.reports)


async def test_what_happened_while_nobody_listened_is_found_by_the_list(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as bench:
        await trio.sleep(1)
        key = bench.cluster.assign()
        await trio.sleep(1)
        bench.engine.crash()
        bench.engine.containers.end(bench.engine.containers.of(key).container_id, 9)  # type: ignore[union-attr]
        bench.engine.down = False
        await trio.sleep(5)
        assert bench.phase(key) is Phase.RUNNING and bench.cluster.assignments[key].restarts == 1


async def test_a_new_process_takes_over_what_runs(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as bench:
        await trio.sleep(1)
        key = bench.cluster.assign()
        await trio.sleep(1)
        bench.scope.cancel()
        await trio.sleep(1)
        box = bench.engine.containers.of(key)
        assert box is not None and box.status is ContainerStatus.RUNNING, "containers outlive the daemon"
        bench.boot(decode_untrusted(bench.memory.saved[-1], Remembered, bytes_max=1 << 20))
        await bench.start()
        await trio.sleep(40)
        assert box.starts == 1 and bench.cluster.assignments[key].restarts == 0
        assert bench.phase(key) is Phase.RUNNING


async def test_what_is_held_is_saved_when_it_changes_and_only_then(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as bench:
        await trio.sleep(1)
        key = bench.cluster.assign()
        await trio.sleep(2)
        saved = len(bench.memory.saved)
        bench.cluster.assign("elsewhere", node=OTHER)
        await trio.sleep(10)
        assert len(bench.memory.saved) == saved
        found = decode_untrusted(bench.memory.saved[-1], Remembered, bytes_max=1 << 20)
        assert [assignment.id for assignment, _ in found.held] == [key] and found.cluster_id == CLUSTER


async def test_logs_of_what_is_not_here_say_so(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as bench:
        await trio.sleep(1)
        key = bench.cluster.assign()
        await trio.sleep(1)
        box = bench.engine.containers.of(key)
        assert box is not None
        bench.engine.output[box.container_id] = [("stdout", b"one"), ("stderr", b"two")]
        async with aclosing(bench.driver.logs(key, tail=1)) as chunks:
            assert [chunk async for chunk in chunks] == [("stderr", b"two")]
        with pytest.raises(NotFound, match=r"t9\.1"):
            await anext(bench.driver.logs("t9.1"))
        bench.engine.crash()
        with pytest.raises(Unavailable):
            await anext(bench.driver.logs(key))


async def test_a_full_disk_is_the_engines_state_for_a_while(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as bench:
        await trio.sleep(1)
        bench.engine.containers.full = True
        key = bench.cluster.assign()
        await trio.sleep(2)
        assert bench.driver.engine_state[0] is EngineState.FULL
        bench.engine.containers.full = False
        await trio.sleep(60)
        assert bench.driver.engine_state[0] is EngineState.UP and bench.phase(key) is Phase.RUNNING


async def test_holdings_follow_what_entries_touch(autojump_clock: trio.testing.MockClock) -> None:
    cluster = SmallCluster(VirtualClock())
    holdings = Holdings(cluster, NODE)
    cluster.subscribe(holdings.on_changes)
    mine = cluster.assign("t1")
    cluster.assign("t2", node=OTHER)
    assert list(holdings.held()[1]) == [mine] and not holdings.stale
    later = cluster.assign("t1", attempt=2)
    cluster.tasks[TaskId("t1")] = replace(cluster.tasks[TaskId("t1")], previous=mine)
    assert holdings.stale and sorted(holdings.held()[1]) == [mine, later]
    del cluster.assignments[mine]
    cluster.changed("t1")
    assert list(holdings.held()[1]) == [later]
    del cluster.tasks[TaskId("t1")], cluster.assignments[later]
    cluster.changed("t1")
    assert holdings.held() == (cluster.applied_index, {})
    cluster.assignments[later] = Assignment(later, TaskId("t2"), 9, NODE, Desired.RUNNING, Phase.ASSIGNED, 1, 1)
    holdings.on_changes(Changes(9, (), restored=True))
    assert list(holdings.held()[1]) == [later]


async def test_samples_count_up_and_a_broken_host_still_gives_one(autojump_clock: trio.testing.MockClock) -> None:
    class Host:
        broken = False

        def load(self) -> HostLoad:
            if self.broken:
                raise OSError("no /proc")
            return HostLoad(100, 200, 300, 400, cpu_pressure_permille=70)

        def boot_id(self) -> str:
            return "b"

    host, samples, presses = Host(), list[Sample](), list[tuple[bool, int | None]]()
    sampler = Sampler(
        host,
        VirtualClock(),
        node_id=NODE,
        generation=4,
        engine_state=lambda: EngineState.UP,
        containers=lambda: 3,
        publish=samples.append,
        press=lambda lag_s, pressure: presses.append((lag_s >= 0, pressure)),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(sampler.run)
        await trio.sleep(1.5)
        host.broken = True
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [(sample.generation, sample.sequence, sample.cpu_used_permille) for sample in samples] == [
        (4, 1, 100),
        (4, 2, 100),
        (4, 3, 0),
    ]
    assert samples[0].containers == 3 and samples[0].engine is EngineState.UP
    assert presses == [(True, 70), (True, 70), (True, None)]
