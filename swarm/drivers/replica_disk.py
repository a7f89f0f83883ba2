"""The replica's way to its disk: one task that writes what is queued, and what is known of the room there.

All that waits is written in one sync. When idle, a small write each second shows whether the disk still works, and carries the
commit index when that has advanced. A write that found no room is tried again every second, with what has come since; it counts
as a disk that has completed nothing, so a leader gives up its lease after three seconds. The core hears of a full disk and stops
taking entries; when there is room, it goes on by itself.

A disk on which the snapshot that this node lacks does not fit counts as full too. A leader sends nothing to a full disk, and goes
on when it hears that there is room; so this disk says so again after `OFFER_AGAIN_S` in any case: another leader may have less to
send.

Promises kept here: batches become durable in order, each once; any other failure ends the task (and with it the node), never
goes on.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from swarm.consensus.core import Consensus
from swarm.errors import StoreFull, Unavailable
from swarm.model.entry import SnapshotMeta
from swarm.ports import Batch, Clock, DiskRoom, Store

LOG = logging.getLogger("swarm.disk")
PROBE_EVERY_S = 1.0
RETRY_S = 1.0
OFFER_AGAIN_S = 300.0
SNAPSHOT_MARGIN_BYTES = 8 * 1024 * 1024
"""Beside a snapshot and the reserve: the log goes on while it comes, and is copied into the database after 4 MiB."""
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Lacking:
    """A snapshot that this node needs, and that its disk has no room for. `asked_at` is CLOCK_BOOTTIME seconds."""

    meta: SnapshotMeta
    needs_bytes: int
    asked_at: float


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
        self._lacking: Lacking | None = None
        self._completed_at = clock.now()
        self.on_news: Callable[[str], None] = lambda text: None
        """Told, in words, that the disk has become full, or has room again."""

    @property
    def room(self) -> DiskRoom:
        """As it was at the last write."""
        room = self._store.room
        return replace(room, full=True, needs_bytes=self._lacking.needs_bytes) if self._lacking is not None else room

    @property
    def age_s(self) -> float:
        """For how long the disk has completed nothing; it is given something every second."""
        return max(0.0, self._clock.now() - self._completed_at)

    def make_sure_of_room(self, meta: SnapshotMeta) -> None:
        """Before the first byte of a snapshot is taken in. Raises `Unavailable` where it does not fit."""
        room, self._lacking = self._store.room, None
        needs_bytes = meta.length + SNAPSHOT_MARGIN_BYTES + room.owed_bytes
        if room.free_bytes >= needs_bytes:
            return
        self._lacking = Lacking(meta, needs_bytes, self._clock.now())
        self._tell(-math.inf)
        size = mebibytes(meta.length)
        raise Unavailable(f"cannot take a snapshot of {size}", cause=full_text(self.room), hint="free space there")

    def queue(self, batch: Batch) -> None:
        """Have it written; the core is told when it is durable."""
        self._batches.append(batch)
        self._queued.set()

    async def run(self) -> None:
        """Write for ever. Raises `StoreFailure`."""
        if lack := lack_text(self.room):
            LOG.warning("%s", lack)
        if self.room.full:
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
        self._completed_at = max(self._completed_at, completed_at)
        self._forget_what_is_lacking_no_more()
        room = self.room
        waits = self._lacking is not None and self._clock.now() - self._lacking.asked_at < OFFER_AGAIN_S
        self._core.on_disk(completed_at, self._now(), full=self._store.room.full or waits)
        self._wake()
        if room.full != self._was_full:
            self._was_full = room.full
            again = f"there is room on the disk of {room.where} again: log entries are taken"
            news = f"{full_text(room)}: no log entries are taken" if room.full else again
            LOG.log(logging.ERROR if room.full else logging.WARNING, "%s", news)
            self.on_news(news)


    def _forget_what_is_lacking_no_more(self) -> None:
        lacking = self._lacking
        if lacking is None:
            return
        if self._store.room.free_bytes >= lacking.needs_bytes or not self._core.wants_snapshot(lacking.meta):
            self._lacking = None


def full_text(room: DiskRoom) -> str:
    """For people."""
    if room.needs_bytes:
        reserve = f", {mebibytes(room.owed_bytes)} of that for the reserve" if room.owed_bytes else ""
        lacks = f"the snapshot that this node lacks needs {mebibytes(room.needs_bytes)}{reserve}"
        return f"the disk of {room.where} is too full: {lacks}; {mebibytes(room.free_bytes)} are free"
    return f"the disk of {room.where} is full ({mebibytes(room.free_bytes)} left, for votes only)"


def lack_text(room: DiskRoom) -> str:
    """For people: that there is no reserve, and what follows; empty where there is one, or none is wanted."""
    if not room.lacks_bytes:
        return ""
    needed = f"it is made when {mebibytes(2 * room.lacks_bytes)} are free, {mebibytes(room.free_bytes)} are"
    return f"there is no reserve on the disk of {room.where}: {needed}; full, it would not even take a vote"


def mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:.1f} MiB"
