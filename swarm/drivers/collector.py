"""Python's garbage collector, told when not to look at everything.

A full collection looks at every entry of every long list: up to 10 ms in the middle of a restore of 100,000 tasks, when they
stand in lists as they were read. Collections of what is young stay as they are, and with them how much of it there can be.

Promise: nothing is hidden from the collector for longer than its caller's block: what becomes a cycle meanwhile is freed later.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_NEVER = 2**31 - 1


class _FullCollections:
    """Put off while anybody wants it; several at once, in any order, leave the thresholds as the first found them."""

    def __init__(self) -> None:
        self._holders = 0
        self._before = (0, 0, 0)

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
