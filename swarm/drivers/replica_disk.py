"""The replica's way to its disk: one task that writes what is queued, and what is known of the room there.

All that waits is written in one sync. When idle, a small write each second shows whether the disk still works, and carries the
commit index when that has advanced. A write that found no room is tried again every second, with what has come since; it counts
as a disk that has completed nothing, so a leader gives up its lease after three seconds. The core hears of a full disk and stops
taking entries; when there is room, it goes on by itself.

Promises kept here: batches become durable in order, each once; any other failure ends the task (and with it the node), never
goes on.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable

import trio

from swarm.consensus.core import Consensus
from swarm.errors import StoreFull
from swarm.ports import Batch, Clock, DiskRoom, Store

LOG = logging.getLogger("swarm.disk")
PROBE_EVERY_S = 1.0
RETRY_S = 1.0
_MIB = 1024 * 1024


class ReplicaDisk:
    """Owns the store while `run` runs. `wake` is called when the core may have something to do."""

    def __init__(
        self, core: Consensus, store: Store, clock: Clock, now: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        """`now` is the time as the core is told it: after a stall was."""
        self._core = core
        self._store = store
        self._clock = clock
        self._now = now
        self._wake = wake
        self._batches: deque[Batch] = deque()
        self._queued = trio.Event()
        self._was_full = False
        self.on_news: Callable[[str], None] = lambda text: None
        """Told, in words, that the disk has become full, or has room again."""

    @property
    def room(self) -> DiskRoom:
        """As it was at the last write."""
        return self._store.room

    def queue(self, batch: Batch) -> None:
        """Have it written; the core is told when it is durable."""
        self._batches.append(batch)
        self._queued.set()

    async def run(self) -> None:
        """Write for ever. Raises `StoreFailure`."""
        if self._store.room.full:
            self._tell(-math.inf)
        while True:
            with trio.move_on_after(PROBE_EVERY_S):
                await self._queued.wait()
            self._queued = trio.Event()
            try:
                await self._write()
            except StoreFull:
                self._tell(-math.inf)
                await trio.sleep(RETRY_S)
                self._queued.set()
            else:
                self._tell(self._clock.now())

    async def _write(self) -> None:
        batches = tuple(self._batches)
        if not batches and (committed := self._core.lazy_commit()) is not None:
            batches = (Batch(number=0, committed=committed),)
            self._batches.extend(batches)
        if not batches:
            await self._store.probe()
            return
        await self._store.write(batches)
        for _ in batches:
            self._batches.popleft()
        if number := max(batch.number for batch in batches):
            self._core.on_persisted(number, self._now())

    def _tell(self, completed_at: float) -> None:
        """Tell the core when the disk last completed something, and whether it is full."""
        room = self._store.room
        self._core.on_disk(completed_at, self._now(), full=room.full)
        self._wake()
        if room.full != self._was_full:
            self._was_full = room.full
            again = f"there is room on the disk of {room.where} again: log entries are taken"
            news = f"{full_text(room)}: no log entries are taken" if room.full else again
            LOG.log(logging.ERROR if room.full else logging.WARNING, "%s", news)
            self.on_news(news)


def full_text(room: DiskRoom) -> str:
    """For people."""
    return f"the disk of {room.where} is full ({room.free_bytes / _MIB:.1f} MiB left, for votes only)"
