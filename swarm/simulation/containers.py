"""The runner's part of a simulated daemon: the runner core between the catalog, the leader and the host's engine.

Promise: nothing here decides anything the drivers do not.
"""

from __future__ import annotations

from typing import assert_never

from swarm.model.assignment import Assignment
from swarm.model.command import Reports
from swarm.model.container import EngineEvent
from swarm.model.entry import Entry
from swarm.model.ids import RequestId
from swarm.model.liveness import EngineState, Sample
from swarm.model.outcome import Applied
from swarm.model.task import TaskSpec
from swarm.runner.core import Runner
from swarm.runner.effects import AbandonOperation, Effect, NeedBarrier, Notice, SendReports, StartOperation
from swarm.simulation.gossip import Gossip
from swarm.simulation.node import Daemon
from swarm.simulation.replica import Outcome, Replica
from swarm.simulation.submit import Forwarding
from swarm.simulation.virtual_engine import Result

LOOK_EVERY_S = 1.0
LIST_EVERY_S = 10.0
BARRIER_TIMEOUT_S = 3.0
REPORT_TIMEOUT_S = 5.0
KEEP_S = 0.2


class Containers:
    """The runner with what stands around it."""

    name = "runner"

    def __init__(
        self, daemon: Daemon, replica: Replica, forwarding: Forwarding, gossip: Gossip, *, rebooted: bool
    ) -> None:
        self.dirty = True
        self.daemon = daemon
        self.replica = replica
        self.forwarding = forwarding
        self.gossip = gossip
        host = daemon.host
        self.engine = host.engine
        self.core = Runner(
            node_id=host.node_id,
            node_name=host.name,
            node_address=host.address,
            cluster_id=daemon.scene.cluster_id,
            config=daemon.scene.settings.runner,
            rng=daemon.scene.world.random(f"runner/{host.number}/{daemon.life}"),
            now=daemon.now(),
            rebooted=rebooted,
            remembered=host.remembered,
        )
        self._held: dict[str, tuple[Assignment, TaskSpec]] = {}
        self._begun: set[int] = set()
        self._reports = 0
        self._samples = 0
        self._listed_at = float("-inf")
        self._keeping = False
        replica.on_applied.append(self._on_applied)
        daemon.later(0.05, None, self._look)

    # ---- inputs

    def _on_applied(self, entries: tuple[Entry, ...], results: tuple[Applied, ...], restored: bool) -> None:
        me = self.daemon.node_id
        news = restored or any(me in result.touched_nodes or result.touched_tasks for result in results)
        if news:
            held = self.replica.catalog.held_by(me)
            self._held = {key: (assignment, task.spec) for key, (assignment, task) in held.items()}
            self._keep_soon()
        self.dirty = True
        self.core.on_assignments(self.replica.applied_index, self._held, self.daemon.now())

    def _keep_soon(self) -> None:
        if not self._keeping:
            self._keeping = True
            self.daemon.later(KEEP_S, None, self._keep)

    def _keep(self) -> None:
        self._keeping = False
        self.daemon.host.remembered = self.core.holdings()

    def _look(self) -> None:
        """Each second: the leader, the engine, a sample; now and then a list."""
        now = self.daemon.now()
        self.daemon.later(LOOK_EVERY_S, None, self._look)
        self.dirty = True
        if self.replica.core.freshness.at > self.core.fence.current_at:
            self.core.on_current(self.replica.core.freshness.at)
        state = self.engine.state
        self.core.on_engine(state, now)
        if state is EngineState.UP and self.engine.listener is None:
            self.engine.listener = self._on_event
            self._listed_at = float("-inf")
        if state is EngineState.UP and now - self._listed_at >= LIST_EVERY_S:
            self._listed_at = now
            self.daemon.later(0.01, None, self._list, now)
        self._samples += 1
        generation = self.daemon.host.disk.boots
        self.gossip.observe_sample(
            Sample(self.daemon.node_id, generation, self._samples, engine=state, containers=len(self.engine.boxes))
        )

    def _list(self, asked_at: float) -> None:
        seen = self.engine.list()
        if seen is not None:
            self.dirty = True
            self.core.on_containers(seen, asked_at, self.daemon.now())

    def _on_event(self, event: EngineEvent) -> None:
        self.daemon.feed(self, self._event, event)

    def _event(self, event: EngineEvent) -> None:
        self.core.on_event(event, self.daemon.now())

    # ---- effects

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case StartOperation():
                number = effect.number
                self._begun.add(number)
                self.daemon.scene.watch.operating(self.daemon, effect.operation)
                self.engine.call(
                    effect.operation,
                    lambda result: self.daemon.feed(self, self._done, number, result),
                    lambda: not self.daemon.is_alive or number in self._begun,
                )
            case AbandonOperation():
                self._begun.discard(effect.number)
            case SendReports():
                self._reports += 1
                request_id = RequestId(f"report-{self.daemon.host_number}-{self.daemon.life}-{self._reports}")
                reports = Reports(self.daemon.node_id, effect.reports)
                self.forwarding.submit(reports, request_id, REPORT_TIMEOUT_S, _ignore)
            case NeedBarrier():
                asked = effect.number
                self.forwarding.barrier(BARRIER_TIMEOUT_S, lambda index: self._fresh(asked, index))
            case Notice():
                pass
            case _:
                assert_never(effect)

    def _done(self, number: int, result: Result) -> None:
        self._begun.discard(number)
        self.core.on_operation_done(number, result, self.daemon.now())

    def _fresh(self, number: int, index: int | None) -> None:
        if index is not None:
            self.dirty = True
            self.core.on_fresh(number, index, self.daemon.now())


class NoContainers:
    """What a witness has in a runner's place: no engine is asked for anything."""

    def __init__(self, daemon: Daemon, gossip: Gossip) -> None:
        self._daemon = daemon
        self._gossip = gossip
        self._samples = 0
        daemon.later(0.05, None, self._look)

    def _look(self) -> None:
        self._daemon.later(LOOK_EVERY_S, None, self._look)
        self._samples += 1
        generation = self._daemon.host.disk.boots
        sample = Sample(self._daemon.node_id, generation, self._samples, engine=EngineState.UNKNOWN, containers=0)
        self._gossip.observe_sample(sample)


def _ignore(outcome: Outcome) -> None:
    """What the log does not show is reported again."""
