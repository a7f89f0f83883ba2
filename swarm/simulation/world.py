"""The world: true time, a heap of events, and clocks that are all a little wrong.

One `World` is one run. Everything that happens is an event on its heap, ordered by true time and then by the order in which it
was put there; everything that is drawn is drawn from generators seeded by the run's seed and a name, so adding a draw in one
place does not change what another place sees. No node can read true time: it has a `HostClock` that runs at its own rate from
its own zero.

Promise: two runs with the same seed and the same code give the same events in the same order, in any process.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

TraceSink = Callable[[float, str, str], None]
"""(true time, who, what happened)."""

UTC_AT_ZERO = 1_800_000_000.0
"""What people's clocks show when a run begins; any number would do."""


class World:
    """True time and what is due. Hand `trace` a sink to have the story of the run told."""

    __slots__ = ("_heap", "_put", "events", "now", "seed", "trace_sink", "tracing")

    def __init__(self, seed: int, trace_sink: TraceSink | None = None) -> None:
        self.seed = seed
        self.now = 0.0
        """True time, seconds since the run began."""
        self.events = 0
        self.trace_sink = trace_sink
        self.tracing = trace_sink is not None
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._put = 0

    def random(self, name: str) -> random.Random:
        """A generator of its own for one purpose; the same for the same seed and name."""
        return random.Random(f"{self.seed}/{name}")

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Have `action` called at true time `when`, or at once if that has passed. O(log n)."""
        self._put += 1
        heapq.heappush(self._heap, (when if when > self.now else self.now, self._put, action, arguments))

    def after(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Have `action` called `delay_s` seconds of true time from here."""
        self.at(self.now + delay_s, action, *arguments)

    def run_until(self, when: float, stop: Callable[[], bool] | None = None) -> bool:
        """Let everything up to `when` happen; stops early, and says so, once `stop()` holds (asked after each event)."""
        heap = self._heap
        while heap and heap[0][0] <= when:
            self.now, _, action, arguments = heapq.heappop(heap)
            self.events += 1
            action(*arguments)
            if stop is not None and stop():
                return True
        self.now = max(self.now, when)
        return False

    def trace(self, who: str, what: str) -> None:
        """Tell one thing that happened. Ask `tracing` first where making the text costs something."""
        if self.trace_sink is not None:
            self.trace_sink(self.now, who, what)


class HostClock:
    """What one host believes about time: CLOCK_BOOTTIME at a rate of its own, and a wall clock that is off."""

    __slots__ = ("_utc_off_s", "_world", "_zero", "rate")

    def __init__(self, world: World, *, rate: float, offset_s: float, utc_off_s: float) -> None:
        self._world = world
        self.rate = rate
        """Local seconds per true second."""
        self._zero = offset_s - rate * world.now
        self._utc_off_s = utc_off_s

    def now(self) -> float:
        """CLOCK_BOOTTIME of this host."""
        return self._zero + self.rate * self._world.now

    def utc(self) -> float:
        """Wall time of this host, for people."""
        return UTC_AT_ZERO + self._world.now + self._utc_off_s

    def true_time(self, local: float) -> float:
        """When, in true time, this clock shows `local`."""
        return (local - self._zero) / self.rate
