"""The sampler: once a second, how loaded this node is, for gossip.

A sample is an observation: it has one writer, may be stale, and ranks nodes without admitting any. Promise: sequences grow within
a generation; a host whose /proc cannot be read still says that it is there.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from swarm.model.ids import NodeId
from swarm.model.liveness import EngineState, Sample
from swarm.ports import Clock, Host, HostLoad

INTERVAL_S = 1.0
_NOTHING = HostLoad(0, 0, 0, 0)


class Sampler:
    """Calls `publish` with each sample; `engine_state` and `containers` come from the runner, `health` from gossip, `disk_full`
    from the replica."""

    def __init__(
        self,
        host: Host,
        clock: Clock,
        *,
        node_id: NodeId,
        generation: int,
        engine_state: Callable[[], EngineState],
        containers: Callable[[], int],
        health: Callable[[], int] = lambda: 0,
        disk_full: Callable[[], bool] = lambda: False,
        publish: Callable[[Sample], None],
        press: Callable[[float, int | None], None],
    ) -> None:
        """`press` is told once a second how late this task woke (s) and the host's CPU pressure (thousandths, or None)."""
        self._host, self._clock, self._publish, self._press = host, clock, publish, press
        self._node_id, self._generation = node_id, generation
        self._engine_state, self._containers, self._health, self._disk_full = engine_state, containers, health, disk_full
        self._sequence = 0
        self._pressure: int | None = None
        self.loop_lag_s = 0.0
        """How much later than planned the last wake came."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled."""
        task_status.started()
        while True:
            self._publish(self.sample())
            self._press(self.loop_lag_s, self._pressure)
            planned = self._clock.now() + INTERVAL_S
            await trio.sleep(INTERVAL_S)
            self.loop_lag_s = max(0.0, self._clock.now() - planned)

    def sample(self) -> Sample:
        """One look, under the next sequence."""
        try:
            load = self._host.load()
        except (OSError, ValueError, KeyError, IndexError):
            load = _NOTHING
        self._pressure = load.cpu_pressure_permille
        self._sequence += 1
        return Sample(
            self._node_id,
            self._generation,
            self._sequence,
            cpu_used_permille=load.cpu_used_permille,
            memory_used_permille=load.memory_used_permille,
            disk_used_permille=load.disk_used_permille,
            load_permille=load.load_permille,
            containers=self._containers(),
            engine=self._engine_state(),
            loop_lag_ms=round(self.loop_lag_s * 1000),
            health=self._health(),
            disk_full=self._disk_full(),
        )
