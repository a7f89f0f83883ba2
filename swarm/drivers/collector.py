"""Python's garbage collector, told when not to look at everything.

A full collection looks at every entry of every long list: up to 10 ms in the middle of a restore of 100,000 tasks, when they
stand in lists as they were read. Collections of what is young stay as they are, and with them how much of it there can be.

The rest of the time one over 100,000 tasks takes 2 to 4 ms. `collect_now_and_then` does it in a step of its own, so that it does
not make another step longer; only under a load that leaves more behind than usual Python begins one by itself.

Promise: nothing is hidden from the collector for longer than its caller's block: what becomes a cycle meanwhile is freed later.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import trio

EVERY_S = 10.0
DUE = 10
"""Collections of what is not quite young since the last full one: Python's own measure."""
AT_LATEST = 500
"""At so many Python does it by itself: half a minute of the heaviest load."""
_NEVER = 2**31 - 1


class _FullCollections:
    """Put off while anybody wants it; several at once, in any order, leave the thresholds as the first found them."""

    def __init__(self) -> None:
        self._holders = 0
        self._before = (0, 0, 0)

    @property
    def are_put_off(self) -> bool:
        return self._holders > 0

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Within the block no full collection begins by itself."""
        if not self._holders:
            self._before = gc.get_threshold()
            gc.set_threshold(*self._before[:2], _NEVER)
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                gc.set_threshold(*self._before)


FULL_COLLECTIONS = _FullCollections()
"""This process's."""


def set_program_apart() -> None:
    """What is here now stays: a full collection over the whole program takes 10 to 20 ms. Call it before there is any connection;
    of what is alive now no cycle is ever freed."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], AT_LATEST)


async def collect_now_and_then() -> None:
    """For ever."""
    while True:
        await trio.sleep(EVERY_S)
        if gc.get_count()[2] >= DUE and not FULL_COLLECTIONS.are_put_off:
            gc.collect()
