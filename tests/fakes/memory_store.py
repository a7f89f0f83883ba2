"""A store in memory that keeps the contract of `ports.Store`; `durable` is what a crash would leave."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from swarm.errors import StoreFailure, StoreFull, Unavailable
from swarm.model.entry import Committed, Entry, HardState, SnapshotMeta
from swarm.ports import Batch, DiskRoom, SnapshotData, Stored
from swarm.wire.checksum import crc32c


class MemorySpool:
    """A snapshot in the making."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.data = bytearray()

    async def append(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._store.spool_gate is not None:
            await self._store.spool_gate.wait()
        if self._store.spools_refused:
            raise Unavailable("cannot write a snapshot", cause="the disk is full")
        self.data += data

    async def finish(self, meta: SnapshotMeta) -> SnapshotData:
        await trio.lowlevel.checkpoint()
        assert (len(self.data), crc32c(bytes(self.data))) == (meta.length, meta.crc32c)
        self._store.spools.remove(self)
        return bytes(self.data)

    async def discard(self) -> None:
        if self in self._store.spools:
            self._store.spools.remove(self)
        await trio.lowlevel.checkpoint()


class MemoryStore:
    """`fail_next` makes the next write fail; `gate`, when set, holds writes until it is opened, `spool_gate` those of snapshots;
    `spools_refused` is a disk that takes no snapshots."""

    def __init__(self, generation: int = 1) -> None:
        self._generation = generation
        self._entries: dict[int, Entry] = {}
        self._hard = HardState()
        self._snapshot: SnapshotMeta | None = None
        self._data: SnapshotData | None = None
        self._committed = Committed()
        self._failed = False
        self.fail_next = False
        self.room = DiskRoom(free_bytes=1 << 40)
        self.is_out_of_room = False
        """Not even the reserve is left: writes fail cleanly."""
        self.gate: trio.Event | None = None
        self.writes = 0
        self.spools_refused = False
        self.spool_gate: trio.Event | None = None
        self.spools: list[MemorySpool] = []
        """Those in the making: neither finished nor discarded."""

    @property
    def durable(self) -> Stored:
        entries = tuple(self._entries[index] for index in sorted(self._entries))
        return Stored(self._generation, self._hard, entries, self._snapshot, self._data, self._committed)

    async def write(self, batches: Sequence[Batch]) -> None:
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.fail_next or self._failed:
            self._failed = True
            raise StoreFailure("cannot write: the disk refuses")
        if self.is_out_of_room:
            raise StoreFull("no room")
        self.writes += 1
        for batch in batches:
            self.keep(batch)

    def keep(self, batch: Batch) -> None:
        """Make one batch durable, at once."""
        if batch.snapshot is not None:
            self._snapshot, self._data = batch.snapshot, batch.snapshot_data
            keep_from = float("inf") if batch.discard_log else batch.snapshot.index + 1
            self._entries = {index: entry for index, entry in self._entries.items() if index >= keep_from}
        if batch.truncate_from:
            self._entries = {index: entry for index, entry in self._entries.items() if index < batch.truncate_from}
        self._entries.update((entry.index, entry) for entry in batch.entries)
        if batch.hard_state is not None:
            self._hard = batch.hard_state
        if batch.committed is not None:
            self._committed = batch.committed

    async def probe(self) -> None:
        await self.write(())

    async def spool(self) -> MemorySpool:
        await trio.lowlevel.checkpoint()
        if self.spools_refused:
            raise Unavailable("cannot begin a snapshot", cause="the disk is full")
        spool = MemorySpool(self)
        self.spools.append(spool)
        return spool

    async def read(self, data: SnapshotData, start: int, end: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return data[start:end]

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
