"""What this node keeps of its catalog for people: a snapshot a day, and the last state before its log is set aside.

Snapshots are encoded in slices, with a turn of the loop between two, and never copied whole; the disk is written in a thread. A
day is one of wall time since the newest that is there, so restarts neither add to them nor put them off; a clock that was set
back does not stop them.

Promise: keeping fails alone. A full disk costs that snapshot, is said, and is tried again; nothing else waits for it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import trio

from swarm import __version__
from swarm.adapters.kept_snapshots import Kept, KeptSnapshots, Retention
from swarm.catalog import Catalog
from swarm.drivers.consensus import Replica
from swarm.model.entry import Entry, SnapshotMeta
from swarm.ports import Clock
from swarm.wire.checksum import crc32c
from swarm.wire.kept import KeptHeader

LOG = logging.getLogger("swarm.backup")
DAILY, REPLACED, BACKUP = "daily", "replaced", "backup"
DAY_S = 24 * 3600.0
LOOK_EVERY_S = 600.0
FIRST_LOOK_S = 60.0
"""After a start, so that a host that boots has better things to do first."""
CATCH_UP_S = 60.0
"""For applying what is known to be committed before a last state is kept: a million entries. Only a bug takes longer."""
RETENTION = {
    DAILY: Retention(count_max=7, bytes_max=512 * 1024 * 1024, age_max_s=60 * DAY_S),
    REPLACED: Retention(count_max=3, bytes_max=256 * 1024 * 1024, age_max_s=365 * DAY_S),
}


class Backups:
    """One node's own snapshots, and the making of those that are carried away."""

    def __init__(
        self, catalog: Catalog, replica: Replica, clock: Clock, place: KeptSnapshots, *, node_name: str, generation: int
    ) -> None:
        self._catalog = catalog
        self._replica = replica
        self._clock = clock
        self._place = place
        self._node_name = node_name
        self._generation = generation
        self._saving = trio.Lock()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled: one a day."""
        task_status.started()
        await trio.sleep(FIRST_LOOK_S)
        while True:
            await self.maybe_keep_daily()
            await trio.sleep(LOOK_EVERY_S)

    async def maybe_keep_daily(self) -> bool:
        """Keep one if none of the last day is there and the log has gone on since. Whether it did. Never raises."""
        kept = await self.kept(DAILY)
        if not self._catalog.cluster_id or (kept and kept[-1].index == self._catalog.applied_index):
            return False
        if kept and abs(self._clock.utc() - kept[-1].header.taken_utc) < DAY_S:
            return False
        return await self.keep(DAILY) is not None

    async def keep_replaced(self) -> None:
        """Keep what this node last knew, all that it knows to be committed: its log is about to be set aside. A daemon that has
        just started may not have applied that yet. What follows in the log is told of. Never raises."""
        core = self._replica.core
        with trio.move_on_after(CATCH_UP_S):
            await self._replica.wait_restored(core.commit_index)
        if not self._catalog.cluster_id or (header := await self.keep(REPLACED)) is None:
            return
        index = header.meta.index
        LOG.warning("the last state of this node, as of entry %d, is kept in %s", index, self._place.folder)
        if core.last_index > index:
            told = _kinds(core.entry_at(each) for each in range(index + 1, core.last_index + 1))
            LOG.warning("not in it: entries %d to %d, not known to be committed (%s)", index + 1, core.last_index, told)

    async def keep(self, kind: str) -> KeptHeader | None:
        """Keep one now; what it is. None when that did not work: a refusal of the disk is said."""
        async with self._saving:
            header, data = await self.make(kind, self._catalog.snapshot_slices())
            try:
                await trio.to_thread.run_sync(self._keep, header, data)
            except OSError as error:
                LOG.warning("cannot keep a snapshot in %s: %s", self._place.folder, error.strerror or error)
                return None
        return header

    def _keep(self, header: KeptHeader, data: bytearray) -> None:
        self._place.save(header, data)
        self._place.prune(header.kind, RETENTION[header.kind], header.taken_utc)

    async def kept(self, kind: str = "") -> list[Kept]:
        """What is kept (of one kind), the oldest first."""
        read: Callable[[str], list[Kept]] = self._place.kept
        return await trio.to_thread.run_sync(read, kind)

    async def make_backup(self) -> tuple[KeptHeader, bytearray]:
        """One to be carried away: without secrets, tokens and credentials."""
        return await self.make(BACKUP, self._catalog.backup_slices())

    async def make(self, kind: str, slices: Iterator[bytes]) -> tuple[KeptHeader, bytearray]:
        """A snapshot of this moment, with what it says of itself. `slices` are of this catalog, and not begun yet."""
        catalog, core = self._catalog, self._replica.core
        data = bytearray(next(slices))  # the moment of the slices begins here: what is read of the catalog now is of it too
        checksum = crc32c(bytes(data))
        index, utc, configuration = catalog.applied_index, catalog.time_utc, catalog.configuration
        term = core.term_at(index) or core.term
        counts = len(catalog.nodes), len(catalog.tasks)
        cluster_id = catalog.cluster_id
        for part in slices:
            data += part
            checksum = crc32c(part, checksum)
            await trio.lowlevel.checkpoint()
        meta = SnapshotMeta(index, term, configuration, index, self._generation, utc, checksum, len(data))
        return KeptHeader(kind, cluster_id, meta, self._clock.utc(), self._node_name, __version__, *counts), data


def _kinds(entries: Iterable[Entry | None]) -> str:
    """How many entries of each kind."""
    counts = Counter(entry.kind for entry in entries if entry is not None)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
