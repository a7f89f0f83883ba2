"""Cancel a driver at its k-th step, for every k.

A scenario runs the part under test with `Cut.run`. An instrument counts each time Trio is about to resume that task or any task
below it; at the k-th the part is cancelled, so that every checkpoint it reaches is once the one at which it ends. What it must
leave behind is then asserted by the scenario itself. A run in which the part was never cancelled ends the series.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable

import trio
import trio.testing


class Cut(trio.abc.Instrument):
    """One run: cancels at step `at`. `ended` is set when the part is gone, by cancellation or by itself."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps = 0
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self.happened = False
        self._root: trio.lowlevel.Task | None = None

    async def run(
        self, part: Callable[[], Awaitable[object]], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run the part until it ends or is cut. Whatever it raises but `Cancelled` fails the test."""
        assert self._root is None, "one part in one run"
        self._root = trio.lowlevel.current_task()
        try:
            with self.scope:
                task_status.started()
                await part()
        finally:
            self._root = None
            self.ended.set()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._root is None or self.happened or not self._is_below(task):
            return
        self.steps += 1
        if self.steps == self.at:
            self.happened = True
            self.scope.cancel()

    def _is_below(self, task: trio.lowlevel.Task | None) -> bool:
        while task is not None and task is not self._root:
            task = task.parent_nursery.parent_task if task.parent_nursery is not None else None
        return task is not None


def cut_everywhere(scenario: Callable[[Cut], Awaitable[None]], *, virtual: bool = True, limit: int = 2_000) -> int:
    """Run the scenario cut at step 1, 2, ... until it is over before it is cut; how many cuts that were.

    Each run has a loop of its own; `virtual` gives it a clock that jumps. Files left open are counted at the end (and warnings
    about them are errors)."""
    gc.collect()  # what earlier tests left behind must not count
    open_before = _open_files()
    for at in range(1, limit):
        cut = Cut(at)
        clock = trio.testing.MockClock(autojump_threshold=0) if virtual else None
        try:
            trio.run(scenario, cut, clock=clock, instruments=[cut])
        except BaseException as problem:
            problem.add_note(f"cut at step {at}")
            raise
        if not cut.happened:
            gc.collect()
            assert _open_files() == open_before, "something was left open"
            return at - 1
    raise AssertionError(f"still being cut after {limit} runs: the scenario never ends by itself")


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
