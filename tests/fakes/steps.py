"""Counts the turns that tasks take: what an idle node costs, without a stopwatch."""

from __future__ import annotations

from collections import Counter

import trio


class Steps(trio.abc.Instrument):
    """Wakes by the last two names of the task, such as `Gossip.run`. Turns within one millisecond are one wake: virtual time may
    wake a task a rounding error early. Added and removed by whoever counts."""

    def __init__(self) -> None:
        self.wakes: Counter[str] = Counter()
        self._latest: dict[trio.lowlevel.Task, int] = {}

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        moment = round(1000 * trio.current_time())
        if self._latest.get(task) != moment:
            self._latest[task] = moment
            self.wakes[".".join(task.name.split(".")[-2:])] += 1
